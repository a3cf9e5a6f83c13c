/**
 * Unisys ES7000, of the Xeon generation (physical destinations) and of the Pentium III Xeon's, whose APIC IDs are logical IDs of
 * the cluster model: cluster and a bit of it. A register of the machine's starts application processors. A kernel tells the two apart by
 * the processor's family and model. Assumed: four processors to a cluster; a start is INIT and STARTUP.
 */

import type { CpuModel } from '../../cpu/cpu-model.ts';
import { ES7000_PSAI_BASE, ES7000_PSAI_BYTES, Es7000Psai, es7000ParameterBlock } from '../../devices/es7000-mip.ts';
import { DeliveryMode } from '../../interrupts/message.ts';
import { CLUSTER_PROCESSORS, messageTo, type Platform } from './platform.ts';

const MAX_PROCESSORS = 32;
/** A kernel takes family 6, models 7 to 11, for those with clusters. */
const PENTIUM_III_XEON: Pick<CpuModel, 'family' | 'model'> = { family: 6, model: 10 };

export const es7000: Platform = {
  name: 'es7000',
  title: 'Unisys ES7000',
  maxVcpus: MAX_PROCESSORS,
  limit: 'what Unisys built',
  apicId: (position) => position,
  firmware: (apicIds) => ({
    acpi: { apicIds, oem: { id: 'UNISYS', tableId: 'ES7000' }, oemParameters: es7000ParameterBlock() },
  }),
  hasNoX2apic: true,
  attach({ mmio, send }) {
    const psai = new Es7000Psai((apicId, page) => {
      send(messageTo(apicId, 0, DeliveryMode.init, false), 0);
      send(messageTo(apicId, page, DeliveryMode.startUp, false), 0);
    });
    mmio.register(ES7000_PSAI_BASE, ES7000_PSAI_BYTES, 'ES7000 PSAI', psai);
  },
};

export const es7000Cluster: Platform = {
  ...es7000,
  name: 'es7000-cluster',
  title: 'Unisys ES7000 with clusters',
  apicId: (position) => (Math.floor(position / CLUSTER_PROCESSORS) << 4) | (1 << (position % CLUSTER_PROCESSORS)),
  processor: (model) => ({ ...model, ...PENTIUM_III_XEON }),
};
