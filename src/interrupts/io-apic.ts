/**
 * An I/O APIC: pins in, messages out, by its redirection table. Intel 82093AA data sheet (version 0x11); version 0x20, of
 * the chip sets since, adds the EOI register. Not modelled: the APIC bus, so an edge nobody accepts is lost, as on every
 * chip set that writes its messages to memory; a level stays pending (delivery status) until somebody accepts it.
 */

import type { InterruptLine } from '../devices/clock.ts';
import type { AccessBytes, BusDevice } from '../memory/bus.ts';
import { type AcceptResult, DeliveryMode, type InterruptMessage } from './message.ts';
import { VectorSet } from './vector-set.ts';

export const IO_APIC_BASE = 0xfec0_0000;
export const IO_APIC_SIZE = 0x1000;
export const IO_APIC_PINS = 24;
/** KVM watches the end of this pin's interrupts to tell which of the clock's ticks were lost. */
export const RTC_PIN = 8;

/** Offsets in the page. */
const IOREGSEL = 0x00;
const IOWIN = 0x10;
const EOI_REGISTER = 0x40;

/** Registers behind IOWIN. Two for each pin from `REDIRECTION_TABLE`: low and high half of its entry. */
const IOAPICID = 0x00;
const IOAPICVER = 0x01;
const IOAPICARB = 0x02;
const REDIRECTION_TABLE = 0x10;
const ID_MASK = 0x0f00_0000;
const MAX_ENTRY_SHIFT = 16;

/** A redirection entry's low half. */
export const REDIRECTION_LOGICAL = 1 << 11;
export const REDIRECTION_DELIVERY_STATUS = 1 << 12;
export const REDIRECTION_ACTIVE_LOW = 1 << 13;
export const REDIRECTION_REMOTE_IRR = 1 << 14;
export const REDIRECTION_LEVEL = 1 << 15;
export const REDIRECTION_MASKED = 1 << 16;
const READ_ONLY = REDIRECTION_DELIVERY_STATUS | REDIRECTION_REMOTE_IRR;
const WRITABLE_LOW = 0x1_ffff & ~READ_ONLY;

/** Its high half: destination in bits 63 to 56 and, by KVM's extension, bits 14 to 8 of the APIC ID in 55 to 49. */
const DESTINATION_SHIFT = 24;
const EXTENDED_DESTINATION_SHIFT = 17;
const EXTENDED_DESTINATION_MASK = 0x7f;

/** Asks whether a destination includes the local APIC in question. */
export type Reaches = (destination: number, destinationMode: 'physical' | 'logical', wide: boolean) => boolean;

export interface IoApicOptions {
  /** Delivers a message at once and says what became of it. */
  send(message: InterruptMessage): AcceptResult;
  /** 0x11, without EOI register, or 0x20, with it. 0x20 unless given. */
  version?: 0x11 | 0x20;
  id?: number;
  /** Destination IDs of 15 bits (KVM_FEATURE_MSI_EXT_DEST_ID). */
  extendedDestinationId?: boolean;
  /** Pins whose EOI the host wants to see though they are edge-triggered: the RTC's unless given, as in KVM. */
  trackedPins?: readonly number[];
}

export class IoApic implements BusDevice {
  private readonly options: IoApicOptions;
  private readonly version: number;
  private readonly tracked: number;

  private selected = 0;
  private id = 0;
  private readonly low = new Uint32Array(IO_APIC_PINS);
  private readonly high = new Uint32Array(IO_APIC_PINS);
  /** Electrical levels of the pins, a bit each. */
  private levels = 0;
  /** How many of a pin's lines are asserted. */
  private readonly assertedLines = new Uint16Array(IO_APIC_PINS);
  /** Vectors in any entry, and those whose EOI has to come here: what the vCPUs ask at every injection. */
  private readonly vectors = new VectorSet();
  private readonly endedHere = new VectorSet();

  constructor(options: IoApicOptions) {
    this.options = options;
    this.version = options.version ?? 0x20;
    this.tracked = (options.trackedPins ?? [RTC_PIN]).reduce((mask, pin) => mask | (1 << pin), 0);
    this.reset();
  }

  /** All entries masked, edge-triggered, vector 0. The pins keep their levels. */
  reset(): void {
    this.selected = 0;
    this.id = ((this.options.id ?? 0) << DESTINATION_SHIFT) & ID_MASK;
    this.low.fill(REDIRECTION_MASKED);
    this.high.fill(0);
    this.collectVectors();
  }

  // ---- Pins ----------------------------------------------------------------------------------------------------------

  /** Drives a pin to an electrical level; its entry's polarity says whether high or low asserts it. */
  setPin(pin: number, high: boolean): void {
    const bit = 1 << pin;
    if (((this.levels & bit) !== 0) === high) return;
    this.levels ^= bit;
    if (!this.isAsserted(pin)) this.low[pin] &= ~REDIRECTION_DELIVERY_STATUS;
    else if (this.isLevel(pin)) this.evaluate(pin);
    else if (!(this.low[pin] & REDIRECTION_MASKED)) this.options.send(this.messageOf(pin)); // a masked edge is lost
  }

  /** A line to a pin. Several lines to one pin share it: it is asserted while any of them is. PCI's lines are active low. */
  line(pin: number, wiring: 'active-high' | 'active-low' = 'active-high'): InterruptLine {
    const idleHigh = wiring === 'active-low';
    let asserted = false;
    if (this.assertedLines[pin] === 0) this.setPin(pin, idleHigh);
    return {
      set: (next) => {
        if (next === asserted) return;
        asserted = next;
        this.assertedLines[pin] += next ? 1 : -1;
        this.setPin(pin, this.assertedLines[pin] > 0 !== idleHigh);
      },
    };
  }

  private isAsserted(pin: number): boolean {
    const isHigh = ((this.levels >>> pin) & 1) !== 0;
    const isActiveLow = (this.low[pin] & REDIRECTION_ACTIVE_LOW) !== 0;
    return isHigh !== isActiveLow;
  }

  /** NMI, SMI, INIT and ExtINT are edges whatever the trigger mode says: nobody ends them. */
  private isLevel(pin: number): boolean {
    return (this.low[pin] & REDIRECTION_LEVEL) !== 0 && deliveryModeOf(this.low[pin]) <= DeliveryMode.lowestPriority;
  }

  /** Sends a level-triggered pin's interrupt if it is asserted, not masked, and not being handled. */
  private evaluate(pin: number): void {
    if (!this.isLevel(pin) || this.low[pin] & (REDIRECTION_MASKED | REDIRECTION_REMOTE_IRR) || !this.isAsserted(pin)) return;
    const taken = this.options.send(this.messageOf(pin)) !== 'ignored';
    this.low[pin] &= ~READ_ONLY;
    this.low[pin] |= taken ? REDIRECTION_REMOTE_IRR : REDIRECTION_DELIVERY_STATUS;
  }

  /** Sends again what no local APIC accepted: to be called when one of them may by now. */
  retry(): void {
    for (let pin = 0; pin < IO_APIC_PINS; pin++) if (this.low[pin] & REDIRECTION_DELIVERY_STATUS) this.evaluate(pin);
  }

  /** An EOI, broadcast by a local APIC or written here. What is still asserted interrupts again. */
  endOfInterrupt(vector: number): void {
    if (!this.vectors.has(vector)) return;
    for (let pin = 0; pin < IO_APIC_PINS; pin++) {
      if ((this.low[pin] & 0xff) !== vector || !(this.low[pin] & REDIRECTION_REMOTE_IRR)) continue;
      this.low[pin] &= ~REDIRECTION_REMOTE_IRR;
      this.evaluate(pin);
    }
  }

  // ---- What PV EOI asks ----------------------------------------------------------------------------------------------

  /**
   * Today's rule of KVM for vectors whose EOI has to be seen: one in an entry that is level-triggered (masked or not) or
   * that belongs to a tracked pin. `reaches`, where given, restricts it to the entries for one local APIC.
   */
  hasLevelVector(vector: number, reaches?: Reaches): boolean {
    if (!this.endedHere.has(vector)) return false;
    if (!reaches) return true;
    for (let pin = 0; pin < IO_APIC_PINS; pin++) {
      if ((this.low[pin] & 0xff) !== vector || !this.isEndedHere(pin)) continue;
      const { destination, destinationMode, wide } = this.messageOf(pin);
      if (reaches(destination, destinationMode, wide)) return true;
    }
    return false;
  }

  /** Linux 3.6's rule: a vector in any entry, edge-triggered and masked ones too. */
  hasVector(vector: number): boolean {
    return this.vectors.has(vector);
  }

  private isEndedHere(pin: number): boolean {
    return (this.low[pin] & REDIRECTION_LEVEL) !== 0 || ((this.tracked >>> pin) & 1) !== 0;
  }

  private collectVectors(): void {
    this.vectors.clear();
    this.endedHere.clear();
    for (let pin = 0; pin < IO_APIC_PINS; pin++) {
      const vector = this.low[pin] & 0xff;
      this.vectors.add(vector);
      if (this.isEndedHere(pin)) this.endedHere.add(vector);
    }
  }

  private messageOf(pin: number): InterruptMessage {
    const low = this.low[pin];
    const high = this.high[pin];
    const extended = this.options.extendedDestinationId ?? false;
    return {
      vector: low & 0xff,
      deliveryMode: deliveryModeOf(low),
      destinationMode: low & REDIRECTION_LOGICAL ? 'logical' : 'physical',
      destination:
        (high >>> DESTINATION_SHIFT) | (extended ? ((high >>> EXTENDED_DESTINATION_SHIFT) & EXTENDED_DESTINATION_MASK) << 8 : 0),
      wide: extended,
      shorthand: 'none',
      trigger: this.isLevel(pin) ? 'level' : 'edge',
      assert: true,
      source: 'ioapic',
    };
  }

  // ---- Registers -----------------------------------------------------------------------------------------------------

  /** Narrow reads give their part of a register, as KVM has it; the manual wants 32 bits. */
  read(offset: number, bytes: AccessBytes): number {
    const register = offset & ~3;
    const value = register === IOREGSEL ? this.selected : register === IOWIN ? this.readWindow() : 0;
    return ((value >>> ((offset & 3) * 8)) & (bytes === 4 ? 0xffff_ffff : (1 << (bytes * 8)) - 1)) >>> 0;
  }

  /** Narrow writes are extended with zeros; those beside a register go nowhere. */
  write(offset: number, _bytes: AccessBytes, value: number): void {
    if (offset === IOREGSEL) this.selected = value & 0xff;
    else if (offset === IOWIN) this.writeWindow(value);
    else if (offset === EOI_REGISTER && this.version >= 0x20) this.endOfInterrupt(value & 0xff);
  }

  private readWindow(): number {
    switch (this.selected) {
      case IOAPICID:
      case IOAPICARB: // loaded with the ID, and nothing arbitrates
        return this.id;
      case IOAPICVER:
        return ((IO_APIC_PINS - 1) << MAX_ENTRY_SHIFT) | this.version;
    }
    const pin = (this.selected - REDIRECTION_TABLE) >> 1;
    if (pin < 0 || pin >= IO_APIC_PINS) return 0xffff_ffff;
    return this.selected & 1 ? this.high[pin] : this.low[pin];
  }

  private writeWindow(value: number): void {
    if (this.selected === IOAPICID) this.id = value & ID_MASK;
    const pin = (this.selected - REDIRECTION_TABLE) >> 1;
    if (pin < 0 || pin >= IO_APIC_PINS) return;
    if (this.selected & 1) this.writeHigh(pin, value);
    else this.writeLow(pin, value);
    this.collectVectors();
    this.evaluate(pin);
  }

  private writeHigh(pin: number, value: number): void {
    const extended = this.options.extendedDestinationId ? EXTENDED_DESTINATION_MASK << EXTENDED_DESTINATION_SHIFT : 0;
    this.high[pin] = value & ((0xff << DESTINATION_SHIFT) | extended);
  }

  /** Becoming edge-triggered clears remote IRR: how Linux ends an interrupt by hand where there is no EOI register. */
  private writeLow(pin: number, value: number): void {
    this.low[pin] = (value & WRITABLE_LOW) | (this.low[pin] & READ_ONLY);
    if (!this.isLevel(pin)) this.low[pin] &= ~READ_ONLY;
    else if (!this.isAsserted(pin)) this.low[pin] &= ~REDIRECTION_DELIVERY_STATUS;
  }
}

const deliveryModeOf = (low: number): DeliveryMode => ((low >> 8) & 7) as DeliveryMode;
