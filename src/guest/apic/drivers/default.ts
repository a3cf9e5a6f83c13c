/** default (probe_32): 32-bit PCs with up to 8 CPUs; the last resort. */

import { eax } from '../../assembler/operands.ts';
import type { ApicDriver } from '../apic-driver.ts';
import { XAPIC_ACCESS } from './flat.ts';

export const defaultDriver: ApicDriver = {
  name: 'default',
  title: 'default',
  bits: 32,
  deliveryMode: 'lowest-priority',
  destinationMode: 'logical',
  ipiDestination: 'logical',
  disableEsr: false,
  cpus: { most: 8, why: 'a logical destination has a bit for each, and 8 bits' },
  methods: {
    ...XAPIC_ACCESS,
    probe: 'probe_default',
    targetCpus: 'online_target_cpus',
    earlyLogicalApicId: 'default_early_logical_apicid',
    initApicLdr: 'default_init_apic_ldr',
    cpuMaskToApicId: 'default_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'default_cpu_mask_to_apicid_and',
    sendIpiMask: 'default_send_IPI_mask_logical',
    sendIpiMaskAllButSelf: 'default_send_IPI_mask_allbutself_logical',
    sendIpiAllButSelf: 'default_send_IPI_allbutself',
    sendIpiAll: 'default_send_IPI_all',
    sendIpiSelf: 'default_send_IPI_self',
  },
  functions: {
    probe_default(a) {
      a.mov(eax, 1);
      a.ret();
    },
  },
};
