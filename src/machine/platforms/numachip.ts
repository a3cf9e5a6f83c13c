/**
 * NumaConnect: AMD servers of four processors each, coupled by Numascale's chip. A server's local APICs and I/O APIC know 8 bits of
 * an APIC ID and reach nobody outside; the chip reaches everybody, by IDs with the server's number in front.
 * Assumed: four processors to a server; all devices belong to the first.
 */

import { withPhysicalAddresses } from '../../cpu/cpu-model.ts';
import { NUMACHIP_LAPIC_BITS, NUMACHIP_LCSR_BASE, NUMACHIP_LCSR_BYTES, NumachipCsr } from '../../devices/numachip-csr.ts';
import { messageTo, type Platform } from './platform.ts';

const SERVER_PROCESSORS = 4;
/** AMD family 10h: the processor's node within the server; firmware keeps the server's number in bits 11 to 6. */
const MSR_FAM10H_NODE_ID = 0xc001_100c;
const SERVER_SHIFT = 6n;
const PHYSICAL_ADDRESS_BITS = 48;

const serverOf = (apicId: number): number => apicId >>> NUMACHIP_LAPIC_BITS;

export const numachip: Platform = {
  name: 'numachip',
  title: 'NumaConnect system',
  maxVcpus: 254,
  limit: '64 servers of 4, a server number having 6 bits',
  apicId: (position) => (Math.floor(position / SERVER_PROCESSORS) << NUMACHIP_LAPIC_BITS) | (position % SERVER_PROCESSORS),
  firmware: (apicIds) => ({ acpi: { apicIds, oem: { id: 'NUMASC', tableId: 'NCONNECT' } } }),
  boards: { boardOf: serverOf, crosses: () => false },
  hasNoX2apic: true,
  processor: (model) => withPhysicalAddresses(model, PHYSICAL_ADDRESS_BITS),
  attach({ mmio, apics, accessor, send, setMsr }) {
    const csr = new NumachipCsr({
      node: () => serverOf(accessor().initialId),
      send: ({ node, apicId, vector, deliveryMode }) => send(messageTo(apicId, vector, deliveryMode, false), node),
    });
    mmio.register(NUMACHIP_LCSR_BASE, NUMACHIP_LCSR_BYTES, 'NumaChip CSRs', csr);
    for (const [index, { initialId }] of apics.entries()) setMsr(index, MSR_FAM10H_NODE_ID, BigInt(serverOf(initialId)) << SERVER_SHIFT);
  },
};
