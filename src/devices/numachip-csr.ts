/**
 * NumaConnect's chip (NumaChip), which makes one machine of several AMD servers: its local control and status registers, through
 * which a processor interrupts one of another server. Source: what Linux's numachip driver (numachip_csr.h) does with it; there is no
 * public data sheet. Registers are 32 bits wide and big-endian.
 *
 * Not modelled: the global register space (other servers' registers), the cache and its directory, the timers, all other
 * registers, which read as 0. Assumed: the node number's bits of a local address are not decoded, so that the registers repeat every
 * 64 KiB; a message is gone by the next access, so that there is nothing to wait for.
 */

import type { AccessBytes, BusDevice } from '../memory/bus.ts';

/** Needs physical addresses of 46 bits: AMD's processors of the time have 48. */
export const NUMACHIP_LCSR_BASE = 0x3fff_fe00_0000;
export const NUMACHIP_LCSR_BYTES = 0x200_0000;
/** The registers of one node; the upper half of them is reached with bit 15 set ("non-geographical"). */
const NODE_BYTES = 0x1_0000;
export const NUMACHIP_CSR_NON_GEO = 1 << 15;

/** Node numbers: the one given to this server in bits 31 to 16. */
export const CSR_G0_NODE_IDS = 0x008;
/**
 * A write sends an interrupt: vector in bits 7 to 0 (the page for a start-up message), delivery mode in 10 to 8, APIC ID in 31 to 16, its
 * bits above the local APIC's 8 being the server's number.
 */
export const CSR_G3_EXT_IRQ_GEN = (3 << 12) + 0x030;
export const EXT_IRQ_DELIVERY_SHIFT = 8;
export const EXT_IRQ_APIC_ID_SHIFT = 16;
/** Bits of an APIC ID that a server's local APICs know. */
export const NUMACHIP_LAPIC_BITS = 8;

export interface NumachipCsrOptions {
  /** Number of the server on which the registers are read. */
  node(): number;
  /** Sends an interrupt to the local APIC `apicId` of a server. */
  send(interrupt: { node: number; apicId: number; vector: number; deliveryMode: number }): void;
}

export class NumachipCsr implements BusDevice {
  private readonly options: NumachipCsrOptions;
  /** What was written last: the register reads back. */
  private extIrqGen = 0;

  constructor(options: NumachipCsrOptions) {
    this.options = options;
  }

  read(offset: number, bytes: AccessBytes): number {
    if (bytes !== 4 || offset & 3) return 0;
    return swap(this.register(registerAt(offset)));
  }

  /** Only whole registers are written. */
  write(offset: number, bytes: AccessBytes, value: number): void {
    if (bytes !== 4 || registerAt(offset) !== CSR_G3_EXT_IRQ_GEN) return;
    const written = swap(value);
    this.extIrqGen = written;
    const destination = written >>> EXT_IRQ_APIC_ID_SHIFT;
    this.options.send({
      node: destination >>> NUMACHIP_LAPIC_BITS,
      apicId: destination & ((1 << NUMACHIP_LAPIC_BITS) - 1),
      vector: written & 0xff,
      deliveryMode: (written >>> EXT_IRQ_DELIVERY_SHIFT) & 7,
    });
  }

  private register(register: number): number {
    if (register === CSR_G0_NODE_IDS) return this.options.node() << 16;
    return register === CSR_G3_EXT_IRQ_GEN ? this.extIrqGen : 0;
  }
}

/** Which register an offset in the local space means; -1 outside of the half that has them. */
function registerAt(offset: number): number {
  const within = offset % NODE_BYTES;
  return within & NUMACHIP_CSR_NON_GEO ? within - NUMACHIP_CSR_NON_GEO : -1;
}

const swap = (value: number): number =>
  ((value << 24) | ((value << 8) & 0xff_0000) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;
