/**
 * The interrupt controller of Cobalt, the chip set of SGI's Visual Workstations 320 and 540: an I/O APIC whose redirection entries
 * are in memory, each for itself, instead of behind a window. The 8259s' output is one of its inputs. Source: Linux's visws code
 * (cobalt.h, visws_quirks.c) and the names there; there is no public data sheet.
 *
 * Not modelled: Cobalt's timer and its CPU registers (0xC2000000), other inputs than the 8259s'. Assumed: the entries' bits are an
 * 82093AA's, and EOIs of level-triggered vectors come back, as on the bus that Pentium IIs share with their I/O APICs; an entry ends
 * being in service when it is made edge-triggered, too.
 */

import type { InterruptLine } from '../devices/clock.ts';
import type { AccessBytes, BusDevice } from '../memory/bus.ts';
import { IO_APIC_PINS, IoApic } from './io-apic.ts';
import type { AcceptResult, InterruptMessage } from './message.ts';

export const COBALT_APIC_BASE = 0xc400_0000;
export const COBALT_APIC_BYTES = 0x1000;
/** Offset of entry n: its low half, and its high half 4 above. */
export const COBALT_ENTRY_SHIFT = 4;
export const COBALT_APIC_ID = 0xffc;
/** Of the ID register: without it no interrupt goes out. */
export const COBALT_APIC_ENABLE = 1 << 8;
/** The entry whose input is the INTR of the 8259s. */
export const COBALT_8259_ENTRY = 12;

/** In low memory: the number of processors in a word, then an MP table's processor entry for each. What firmware leaves. */
export const COBALT_CPU_COUNT = 0x1e00;

/** Offsets and indices of the I/O APIC behind. */
const [SELECT, WINDOW, FIRST_ENTRY] = [0x00, 0x10, 0x10];

export class CobaltApic implements BusDevice {
  /** What the entries are: the router's and PV EOI's view of them. */
  readonly entries: IoApic;
  private id = 0;

  constructor(send: (message: InterruptMessage) => AcceptResult) {
    this.entries = new IoApic({ send: (message) => (this.isEnabled() ? send(message) : 'ignored'), trackedPins: [] });
  }

  /** An input. */
  line(entry: number): InterruptLine {
    return this.entries.line(entry);
  }

  private isEnabled(): boolean {
    return (this.id & COBALT_APIC_ENABLE) !== 0;
  }

  /** Registers are read and written as a whole; what is none reads as 0. */
  read(offset: number, bytes: AccessBytes): number {
    if (bytes !== 4) return 0;
    if (offset === COBALT_APIC_ID) return this.id;
    return this.select(offset) ? this.entries.read(WINDOW, 4) : 0;
  }

  write(offset: number, bytes: AccessBytes, value: number): void {
    if (bytes !== 4) return;
    if (offset === COBALT_APIC_ID) {
      this.id = value;
      if (this.isEnabled()) this.entries.retry();
    } else if (this.select(offset)) this.entries.write(WINDOW, 4, value);
  }

  private select(offset: number): boolean {
    const entry = offset >> COBALT_ENTRY_SHIFT;
    const half = offset % (1 << COBALT_ENTRY_SHIFT);
    if (entry >= IO_APIC_PINS || (half !== 0 && half !== 4)) return false;
    this.entries.write(SELECT, 4, FIRST_ENTRY + 2 * entry + half / 4);
    return true;
  }
}
