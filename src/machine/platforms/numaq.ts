/**
 * IBM (Sequent) NUMA-Q: quads of four P6 processors, each with an APIC bus of its own. The quads' controllers pass logical
 * destinations on, whose cluster is the quad's number; physical ones and shorthands stay in the quad. Firmware sets the logical IDs, and
 * leaves application processors halted in real mode: an NMI starts them, by its vector. It has MP tables, and no ACPI.
 * Assumed: APIC IDs are numbered through from 0 in a quad; all devices belong to the first.
 */

import { APIC_DFR_CLUSTER, ApicRegister, XAPIC_ID_SHIFT } from '../../interrupts/apic-registers.ts';
import type { FirmwareBlock } from '../boot/boot.ts';
import { BIOS_DATA_AREA } from '../memory-map.ts';
import { buildMpTable, MP_POINTER } from '../mp-table.ts';
import { CLUSTER_PROCESSORS, CLUSTERS, type Platform } from './platform.ts';

/** HLT and a jump back to it, in the BIOS. */
const PARKING = { segment: 0xf000, offset: 0xfe00, code: Uint8Array.of(0xf4, 0xeb, 0xfd) } as const;
/** Behind the BIOS data area: an NMI leaves three words that nobody wants. */
const STACK_TOP = BIOS_DATA_AREA + 0x300;

const quadOf = (apicId: number): number => apicId >>> 4;
const withinQuad = (apicId: number): number => apicId & 0xf;

export const numaq: Platform = {
  name: 'numaq',
  title: 'IBM NUMA-Q',
  maxVcpus: CLUSTERS * CLUSTER_PROCESSORS,
  limit: '15 quads of 4, a logical cluster number having 4 bits and the last one being the broadcast',
  apicId: (position) => (Math.floor(position / CLUSTER_PROCESSORS) << 4) | (position % CLUSTER_PROCESSORS),
  firmware(apicIds, signature, features) {
    const table = buildMpTable({
      oemId: 'IBM NUMA',
      productId: 'NUMA-Q',
      processors: apicIds.map(withinQuad),
      quads: apicIds.map(quadOf),
      signature,
      features,
    });
    const parking: FirmwareBlock = { guestPhysical: (PARKING.segment << 4) + PARKING.offset, bytes: PARKING.code };
    return { blocks: [{ guestPhysical: MP_POINTER, bytes: table }, parking] };
  },
  boards: { boardOf: quadOf, crosses: ({ destinationMode }) => destinationMode === 'logical' },
  physicalIdBits: 4,
  startsByNmi: true,
  hasNoX2apic: true,
  attach({ apics, park }) {
    for (const [index, apic] of apics.entries()) {
      const logicalId = (quadOf(apic.initialId) << 4) | (1 << withinQuad(apic.initialId));
      apic.writeMmio(ApicRegister.dfr, APIC_DFR_CLUSTER);
      apic.writeMmio(ApicRegister.ldr, logicalId << XAPIC_ID_SHIFT);
      if (index > 0) park(index, PARKING.segment, PARKING.offset, STACK_TOP);
    }
  },
};
