/**
 * A local APIC: one register state with two views, the xAPIC page and the x2APIC MSRs. It knows no other APIC: a register
 * write returns what follows from it, and messages come in by `accept`. SDM 3A ch. 11, AMD APM 2 ch. 16.
 * Not modelled: the APIC bus (arbitration ID, its errors), focus processors, remote read, AMD's extended registers.
 */

import type { Clock } from '../devices/clock.ts';
import {
  APIC_BASE_BSP,
  APIC_BASE_ENABLE,
  APIC_BASE_EXTD,
  APIC_DEFAULT_BASE,
  APIC_PAGE_SIZE,
  ApicRegister,
  ESR_ILLEGAL_REGISTER,
  ESR_RECEIVE_ILLEGAL_VECTOR,
  ESR_SEND_ILLEGAL_VECTOR,
  FIRST_LEGAL_VECTOR,
  ICR_ASSERT,
  ICR_LEVEL,
  ICR_LOGICAL,
  ICR_DELIVERY_STATUS,
  ICR_SHORTHAND_SHIFT,
  ICR_SHORTHANDS,
  LVT_ACTIVE_LOW,
  LVT_DELIVERY_MODE,
  LVT_DELIVERY_MODE_SHIFT,
  LVT_DELIVERY_STATUS,
  LVT_LEVEL,
  LVT_MASKED,
  LVT_REMOTE_IRR,
  LVT_TIMER_MODE_SHIFT,
  LVT_TIMER_PERIODIC,
  LVT_TIMER_TSC_DEADLINE,
  LVT_VECTOR,
  MSR_APIC_BASE,
  MSR_TSC_DEADLINE,
  MSR_X2APIC_FIRST,
  MSR_X2APIC_LAST,
  SVR_ENABLE,
  SVR_FOCUS_DISABLED,
  SVR_SUPPRESS_EOI_BROADCAST,
  VERSION_EOI_SUPPRESSION,
  X2APIC_BROADCAST,
  XAPIC_BROADCAST,
  XAPIC_ID_SHIFT,
} from './apic-registers.ts';
import { ApicTimer, type TimerMode } from './apic-timer.ts';
import { type AcceptResult, DeliveryMode, type InterruptMessage, type InterruptSource } from './message.ts';
import { VectorSet } from './vector-set.ts';

/** What a register write, or an EOI without one, entails outside of this APIC. The router performs it. */
export type ApicEffect =
  | { readonly kind: 'ipi'; readonly message: InterruptMessage }
  /** `broadcast`: the I/O APICs are told (level-triggered, and not suppressed by SVR bit 12). */
  | { readonly kind: 'eoi'; readonly vector: number; readonly broadcast: boolean }
  /** Mode, base address, IDs or the software enable bit changed: other messages reach this APIC than before. */
  | { readonly kind: 'configuration' };

export interface MsrValue {
  low: number;
  high: number;
}

/** A general protection fault, #GP(0), on RDMSR or WRMSR. */
export type MsrFault = 'gp';

export type ApicMode = 'disabled' | 'xapic' | 'x2apic';

/** What waits for the vCPU besides vectors: bits of `pendingEvents`. */
export const PendingEvent = { nmi: 1, smi: 2, init: 4, startUp: 8, extInt: 16 } as const;

/** Entries of the local vector table, in the order of their registers, CMCI (which lies apart) last. */
export const Lvt = { timer: 0, thermal: 1, performance: 2, lint0: 3, lint1: 4, error: 5, cmci: 6 } as const;

export interface LocalApicOptions {
  /** The initial APIC ID: the x2APIC ID, and in its low 8 bits the xAPIC ID after reset. */
  apicId: number;
  /** Sets the BSP flag of IA32_APIC_BASE. */
  bootProcessor?: boolean;
  clock: Clock;
  /** The vCPU's TSC in cycles. */
  readTsc(): number;
  tscHz: number;
  /** Timer counts per second before the divider; 1 GHz unless given. */
  busHz?: number;
  /** See `KVM_MINIMUM_PERIOD_NANOSECONDS`, the default. */
  minimumPeriodNanoseconds?: number;
  /** 0x10 to 0x15: an integrated APIC; 0x14, as KVM says, unless given. */
  version?: number;
  /** Highest LVT entry: 5, or 6 to have CMCI. */
  maxLvt?: 5 | 6;
  /** True unless given, as the two below. They have to agree with CPUID. */
  x2apic?: boolean;
  tscDeadline?: boolean;
  /** Version bit 24 and SVR bit 12. False unless given: it needs I/O APICs with an EOI register. */
  eoiBroadcastSuppression?: boolean;
  /**
   * Bits of a physical destination, all ones being the broadcast: 4 on the APIC bus of the Pentium and P6 families, 8 since. 8 unless
   * given. SDM 3A 11.6.2.1.
   */
  physicalIdBits?: 4 | 8 | undefined;
  /** Address bits above are reserved in IA32_APIC_BASE; 48 unless given. */
  physicalAddressBits?: number;
  /** An Intel CPU masks the performance entry when it delivers it, an AMD one does not. False unless given. */
  performanceMasksItself?: boolean;
}

const CONFIGURATION: ApicEffect = { kind: 'configuration' };

/** All EOIs there are: ending an interrupt allocates nothing. */
const eoiEffects = (broadcast: boolean): readonly ApicEffect[] =>
  Array.from({ length: 256 }, (_, vector) => ({ kind: 'eoi', vector, broadcast }));
const EOI_LOCAL = eoiEffects(false);
const EOI_BROADCAST = eoiEffects(true);

const LVT_ENTRIES = 7;
const LVT_SOURCE = LVT_VECTOR | LVT_DELIVERY_MODE | LVT_MASKED;
const LVT_PIN = LVT_SOURCE | LVT_ACTIVE_LOW | LVT_LEVEL;

const ICR_XAPIC_WRITABLE = 0x000c_cfff;
/** Bit 12 is reserved here, but CPUs (and KVM) ignore it where the guest writes back what an xAPIC would have read. */
const ICR_X2APIC_LEGAL = ICR_XAPIC_WRITABLE | ICR_DELIVERY_STATUS;
const DFR_MODEL_SHIFT = 28;
const DFR_CLUSTER = 0;
const DFR_FLAT = 0xf;
const DFR_RESERVED = 0x0fff_ffff; // read as ones

export class LocalApic {
  /** The ID that hardware gave: what MADT and CPUID say. */
  readonly initialId: number;

  /**
   * Called when the vCPU has to look again: a new request (whatever its priority, because a pending request also decides
   * about PV EOI), or an old one that became deliverable. Set by the owner.
   */
  onChange: () => void = () => {};

  /** Called for each message and each local interrupt, by whatever delivery mode. Set by the owner. */
  onAccept: (
    vector: number,
    source: InterruptSource,
    result: AcceptResult,
    deliveryMode: DeliveryMode,
    trigger: 'edge' | 'level',
  ) => void = () => {};

  private readonly options: LocalApicOptions;
  private readonly version: number;
  /** The bits of an ID that physical destinations have; as a destination, the broadcast. */
  private readonly physicalIds: number;
  private readonly svrWritable: number;
  private readonly lvtWritable: Uint32Array;
  private readonly timer: ApicTimer;

  private modeNow: ApicMode = 'xapic';
  private baseLow = 0;
  private baseHigh = 0;

  private xapicId = 0;
  private ldr = 0;
  private dfr = 0;
  private tpr = 0;
  private ppr = 0;
  private svr = 0;
  private icrLow = 0;
  private icrHigh = 0;
  /** What the guest reads from ESR, and what has come together since it last wrote it. */
  private esr = 0;
  private errors = 0;
  private readonly lvt = new Uint32Array(LVT_ENTRIES);
  private readonly irr = new VectorSet();
  private readonly isr = new VectorSet();
  private readonly tmr = new VectorSet();

  /** Electrical levels of LINT0 and LINT1. */
  private readonly lintHigh: [boolean, boolean] = [false, false];
  private events = 0;
  /** An ExtINT message came, which stays until it is taken, unlike the level of LINT0. */
  private extIntLatched = false;
  private startUpVector = 0;

  constructor(options: LocalApicOptions) {
    this.options = options;
    this.initialId = options.apicId >>> 0;
    const suppression = options.eoiBroadcastSuppression ?? false;
    this.physicalIds = (1 << (options.physicalIdBits ?? 8)) - 1;
    const maxLvt = options.maxLvt ?? 5;
    this.version = (options.version ?? 0x14) | (maxLvt << 16) | (suppression ? VERSION_EOI_SUPPRESSION : 0);
    this.svrWritable = LVT_VECTOR | SVR_ENABLE | SVR_FOCUS_DISABLED | (suppression ? SVR_SUPPRESS_EOI_BROADCAST : 0);
    const timerModes = LVT_TIMER_PERIODIC | ((options.tscDeadline ?? true) ? LVT_TIMER_TSC_DEADLINE : 0);
    this.lvtWritable = Uint32Array.of(
      LVT_VECTOR | LVT_MASKED | timerModes,
      LVT_SOURCE,
      LVT_SOURCE,
      LVT_PIN,
      LVT_PIN,
      LVT_VECTOR | LVT_MASKED,
      maxLvt >= Lvt.cmci ? LVT_SOURCE : 0,
    );
    this.timer = new ApicTimer(`apic ${this.initialId}`, options, () => this.raise(Lvt.timer));
    this.reset();
  }

  // ---- Life cycle ----------------------------------------------------------------------------------------------------

  /** Power-up or RESET: xAPIC mode at the default base, initial ID, nothing pending. SDM 3A 11.4.7.1. */
  reset(): void {
    this.baseLow = APIC_DEFAULT_BASE | APIC_BASE_ENABLE | (this.options.bootProcessor ? APIC_BASE_BSP : 0);
    this.baseHigh = 0;
    this.modeNow = 'xapic';
    this.xapicId = this.initialId & XAPIC_BROADCAST;
    this.events = 0;
    this.resetRegisters();
  }

  /**
   * INIT, to be called when the vCPU takes it: as RESET, but IA32_APIC_BASE (so the mode) and the APIC ID stay, and so does
   * a start-up message that came after the INIT. SDM 3A 11.4.7.3.
   */
  init(): void {
    this.events &= PendingEvent.startUp;
    this.resetRegisters();
  }

  private resetRegisters(): void {
    this.ldr = 0;
    this.dfr = 0xffff_ffff; // flat
    this.tpr = this.ppr = 0;
    this.svr = 0xff;
    this.icrLow = this.icrHigh = 0;
    this.esr = this.errors = 0;
    this.lvt.fill(LVT_MASKED);
    this.irr.clear();
    this.isr.clear();
    this.tmr.clear();
    this.timer.reset();
    this.extIntLatched = false;
    this.updateExtInt();
  }

  // ---- What the vCPU asks --------------------------------------------------------------------------------------------

  /** The vector to be delivered now if interrupts are enabled: the highest request above PPR, or -1. */
  highestPending(): number {
    const vector = this.irr.highest;
    return vector >> 4 > this.ppr >> 4 ? vector : -1;
  }

  /** Moves the highest deliverable vector from IRR to ISR and returns it; the spurious vector if there is none any more. */
  acknowledge(): number {
    const vector = this.highestPending();
    if (vector < 0) return this.svr & LVT_VECTOR;
    this.irr.delete(vector);
    this.isr.add(vector);
    this.updatePpr();
    return vector;
  }

  /**
   * What a write of the EOI register does, and what PV EOI does in its stead: retires the highest vector in service.
   * Undefined if none is. SDM 3A 11.8.5.
   */
  endOfInterrupt(): ApicEffect | undefined {
    const vector = this.isr.highest;
    if (vector < 0) return undefined;
    this.isr.delete(vector);
    this.updatePpr();
    const level = this.tmr.has(vector);
    if (level) this.rearmLint0(vector);
    this.notifyIfDeliverable();
    return (level && !(this.svr & SVR_SUPPRESS_EOI_BROADCAST) ? EOI_BROADCAST : EOI_LOCAL)[vector];
  }

  /** True if any vector is requested, deliverable or not. */
  hasPendingIrr(): boolean {
    return this.irr.highest >= 0;
  }

  /** The highest vector requested, deliverable or not; -1 if none is. */
  highestRequested(): number {
    return this.irr.highest;
  }

  /** The vector being handled, -1 if none is. */
  highestInService(): number {
    return this.isr.highest;
  }

  /** True if the vector's last request was level-triggered. */
  tmrBit(vector: number): boolean {
    return this.tmr.has(vector);
  }

  /** Enabled in IA32_APIC_BASE and in SVR. */
  isEnabled(): boolean {
    return this.modeNow !== 'disabled' && (this.svr & SVR_ENABLE) !== 0;
  }

  get mode(): ApicMode {
    return this.modeNow;
  }

  /** Guest-physical address of the xAPIC page. */
  get baseAddress(): number {
    return this.baseHigh * 2 ** 32 + ((this.baseLow & -APIC_PAGE_SIZE) >>> 0);
  }

  get isBootProcessor(): boolean {
    return (this.baseLow & APIC_BASE_BSP) !== 0;
  }

  /** PPR, by which lowest-priority messages choose their target. */
  get processorPriority(): number {
    return this.ppr;
  }

  get cr8(): number {
    return this.tpr >> 4;
  }

  /** MOV to CR8, 0 to 15: bits 7 to 4 of TPR; its bits 3 to 0 become 0. SDM 3A 11.8.6. */
  writeCr8(priorityClass: number): void {
    this.writeTpr((priorityClass & 0xf) << 4);
  }

  // ---- NMI, SMI, INIT, SIPI and ExtINT -------------------------------------------------------------------------------

  /** Bits of `PendingEvent`: one test on the way into the guest. */
  get pendingEvents(): number {
    return this.events;
  }

  takeNmi(): boolean {
    return this.take(PendingEvent.nmi);
  }

  takeSmi(): boolean {
    return this.take(PendingEvent.smi);
  }

  /** The vCPU then resets itself as INIT does, this APIC by `init` included. */
  takeInit(): boolean {
    return this.take(PendingEvent.init);
  }

  /** The start-up vector, or -1. A vCPU that is not waiting for SIPI takes it too, and ignores it. */
  takeStartUp(): number {
    return this.take(PendingEvent.startUp) ? this.startUpVector : -1;
  }

  /** True if an 8259's vector is to be fetched. The level of LINT0 stays pending until the 8259 lowers it. */
  takeExtInt(): boolean {
    const pending = (this.events & PendingEvent.extInt) !== 0;
    this.extIntLatched = false;
    this.updateExtInt();
    return pending;
  }

  private take(event: number): boolean {
    if (!(this.events & event)) return false;
    this.events &= ~event;
    return true;
  }

  // ---- Messages ------------------------------------------------------------------------------------------------------

  /**
   * True if the destination of a message without shorthand includes this APIC. A disabled APIC is reached by nothing, one
   * whose software enable bit is clear by everything. SDM 3A 11.6.2, 11.12.10.
   */
  matches(destination: number, destinationMode: 'physical' | 'logical', wide: boolean): boolean {
    switch (this.modeNow) {
      case 'disabled':
        return false;
      case 'x2apic': {
        if (destination === X2APIC_BROADCAST || (!wide && destination === XAPIC_BROADCAST)) return true;
        if (destinationMode === 'physical') return destination === this.initialId;
        const logicalId = this.logicalId;
        return destination >>> 16 === logicalId >>> 16 && (destination & logicalId & 0xffff) !== 0;
      }
      case 'xapic': {
        if (destination === XAPIC_BROADCAST || destination === X2APIC_BROADCAST) return true;
        if (destination > XAPIC_BROADCAST) return false;
        if (destinationMode === 'physical') {
          const id = destination & this.physicalIds;
          return id === this.physicalIds || id === (this.xapicId & this.physicalIds);
        }
        const logicalId = this.ldr >>> XAPIC_ID_SHIFT;
        const model = this.dfr >>> DFR_MODEL_SHIFT;
        if (model === DFR_FLAT) return (destination & logicalId) !== 0;
        if (model !== DFR_CLUSTER) return false; // a model that does not exist
        return destination >> 4 === logicalId >> 4 && (destination & logicalId & 0xf) !== 0;
      }
    }
  }

  /** Takes a message that the router found to be for this APIC. */
  accept(message: InterruptMessage): AcceptResult {
    if (!message.assert) return 'ignored'; // INIT level de-assert synchronised arbitration IDs, which are no more
    return this.receive(message.vector, message.deliveryMode, message.trigger, message.source);
  }

  private receive(vector: number, deliveryMode: DeliveryMode, trigger: 'edge' | 'level', source: InterruptSource): AcceptResult {
    const result = this.modeNow === 'disabled' ? 'ignored' : this.request(vector, deliveryMode, trigger);
    this.onAccept(vector, source, result, deliveryMode, trigger);
    if (result === 'accepted') this.onChange();
    return result;
  }

  private request(vector: number, deliveryMode: DeliveryMode, trigger: 'edge' | 'level'): AcceptResult {
    switch (deliveryMode) {
      case DeliveryMode.fixed:
      case DeliveryMode.lowestPriority:
        if (!(this.svr & SVR_ENABLE)) return 'ignored';
        if (vector < FIRST_LEGAL_VECTOR) {
          this.logError(ESR_RECEIVE_ILLEGAL_VECTOR);
          return 'ignored';
        }
        if (trigger === 'level') this.tmr.add(vector);
        else if (this.tmr.has(vector)) this.tmr.delete(vector);
        return this.irr.add(vector) ? 'accepted' : 'coalesced';
      case DeliveryMode.nmi:
        return this.latch(PendingEvent.nmi);
      case DeliveryMode.smi:
        return this.latch(PendingEvent.smi);
      case DeliveryMode.init:
        this.events &= ~PendingEvent.startUp; // one that came before is lost with the state it would have started
        return this.latch(PendingEvent.init);
      case DeliveryMode.startUp:
        this.startUpVector = vector;
        return this.latch(PendingEvent.startUp);
      case DeliveryMode.extInt:
        if (!(this.svr & SVR_ENABLE)) return 'ignored';
        this.extIntLatched = true;
        return this.latch(PendingEvent.extInt);
      case DeliveryMode.reserved:
        return 'ignored';
    }
  }

  private latch(event: number): AcceptResult {
    if (this.events & event) return 'coalesced';
    this.events |= event;
    return 'accepted';
  }

  // ---- Local interrupts ----------------------------------------------------------------------------------------------

  /** The TSC was written: a deadline in its terms moves. */
  tscChanged(): void {
    this.timer.tscChanged();
  }

  /** A source of the local vector table without a pin fires: performance counter overflow, thermal sensor, CMCI. */
  raise(entry: number): AcceptResult {
    const lvt = this.lvt[entry];
    if (lvt & LVT_MASKED || this.modeNow === 'disabled') return 'ignored';
    if (entry === Lvt.performance && this.options.performanceMasksItself) this.lvt[entry] |= LVT_MASKED;
    return this.receive(lvt & LVT_VECTOR, deliveryModeOf(lvt), 'edge', entry === Lvt.timer ? 'timer' : 'lvt');
  }

  /**
   * Drives LINT0 or LINT1. The entry's polarity says which level asserts; only LINT0 can be level-triggered. With the APIC
   * disabled in IA32_APIC_BASE the pins are INTR and NMI of a CPU without one. SDM 3A 11.5.1, 11.4.3.
   */
  setLint(pin: 0 | 1, high: boolean): void {
    if (this.lintHigh[pin] === high) return;
    this.lintHigh[pin] = high;
    this.updateExtInt();
    if (this.modeNow === 'disabled') {
      if (pin === 1 && high && this.latch(PendingEvent.nmi) === 'accepted') this.onChange();
    } else if (this.isLintAsserted(pin)) {
      this.raiseLint(pin);
    }
  }

  private isLintAsserted(pin: 0 | 1): boolean {
    return this.lintHigh[pin] !== ((this.lvt[Lvt.lint0 + pin] & LVT_ACTIVE_LOW) !== 0);
  }

  /** LINT `pin` went from deasserted to asserted, or is asserted and may interrupt (again) if it is level-triggered. */
  private raiseLint(pin: 0 | 1): void {
    const entry = Lvt.lint0 + pin;
    const lvt = this.lvt[entry];
    const deliveryMode = deliveryModeOf(lvt);
    if (lvt & LVT_MASKED || deliveryMode === DeliveryMode.extInt) return;
    if (!this.isLevelLint(entry)) {
      this.receive(lvt & LVT_VECTOR, deliveryMode, 'edge', 'lvt');
    } else if (!(lvt & LVT_REMOTE_IRR)) {
      const result = this.receive(lvt & LVT_VECTOR, deliveryMode, 'level', 'lvt');
      if (result !== 'ignored') this.lvt[entry] |= LVT_REMOTE_IRR;
    }
  }

  private isLevelLint(entry: number): boolean {
    const lvt = this.lvt[entry];
    return entry === Lvt.lint0 && (lvt & LVT_LEVEL) !== 0 && deliveryModeOf(lvt) === DeliveryMode.fixed;
  }

  private rearmLint0(vector: number): void {
    const lvt = this.lvt[Lvt.lint0];
    if (!(lvt & LVT_REMOTE_IRR) || (lvt & LVT_VECTOR) !== vector) return;
    this.lvt[Lvt.lint0] &= ~LVT_REMOTE_IRR;
    if (this.isLintAsserted(0)) this.raiseLint(0);
  }

  /** ExtINT by LINT0 is a level: pending while the pin and its entry say so. */
  private updateExtInt(): void {
    const lvt = this.lvt[Lvt.lint0];
    const byPin =
      this.modeNow === 'disabled'
        ? this.lintHigh[0]
        : !(lvt & LVT_MASKED) && deliveryModeOf(lvt) === DeliveryMode.extInt && this.isLintAsserted(0);
    if (!byPin && !this.extIntLatched) this.events &= ~PendingEvent.extInt;
    else if (this.latch(PendingEvent.extInt) === 'accepted') this.onChange();
  }

  /** Each kind of error interrupts once until ESR is written. SDM 3A 11.5.3. */
  private logError(error: number): void {
    if (this.errors & error) return;
    this.errors |= error;
    const lvt = this.lvt[Lvt.error];
    // Its own vector's illegality is one more error, not one more interrupt.
    if (!(lvt & LVT_MASKED) && (lvt & LVT_VECTOR) < FIRST_LEGAL_VECTOR) this.errors |= ESR_RECEIVE_ILLEGAL_VECTOR;
    else this.raise(Lvt.error);
  }

  /** A 32-bit register by its xAPIC offset, in whatever mode, without effects; 0 where there is none. For reports. */
  registerWord(offset: number): number {
    return (this.readRegister(offset) ?? 0) >>> 0;
  }

  // ---- The xAPIC view ------------------------------------------------------------------------------------------------

  /** A 32-bit read at `offset` of the page. All ones outside of xAPIC mode: then there is nothing. */
  readMmio(offset: number): number {
    if (this.modeNow !== 'xapic') return 0xffff_ffff;
    if (offset & 0xf) return 0; // undefined by the manual; KVM reads nothing there either
    const value = this.readRegister(offset);
    if (value === undefined) {
      this.logError(ESR_ILLEGAL_REGISTER);
      return 0;
    }
    return value >>> 0;
  }

  /** A 32-bit write at `offset` of the page. Reserved bits and read-only registers swallow it. */
  writeMmio(offset: number, value: number): ApicEffect | undefined {
    if (this.modeNow !== 'xapic' || offset & 0xf) return undefined;
    switch (offset) {
      case ApicRegister.id:
        this.xapicId = value >>> XAPIC_ID_SHIFT;
        return CONFIGURATION;
      case ApicRegister.ldr:
        this.ldr = (value & (XAPIC_BROADCAST << XAPIC_ID_SHIFT)) >>> 0;
        return CONFIGURATION;
      case ApicRegister.dfr:
        this.dfr = (value | DFR_RESERVED) >>> 0;
        return CONFIGURATION;
      case ApicRegister.icrHigh:
        this.icrHigh = (value & (XAPIC_BROADCAST << XAPIC_ID_SHIFT)) >>> 0;
        return undefined;
      case ApicRegister.icrLow:
        this.icrLow = value & ICR_XAPIC_WRITABLE;
        return this.sendIpi(this.icrHigh >>> XAPIC_ID_SHIFT, false);
      default:
        if (this.writableBits(offset) !== undefined) return this.writeRegister(offset, value);
        if (this.readRegister(offset) === undefined) this.logError(ESR_ILLEGAL_REGISTER);
        return undefined;
    }
  }

  // ---- The x2APIC view and the APIC's other MSRs -------------------------------------------------------------------------

  /** IA32_APIC_BASE, IA32_TSC_DEADLINE and 0x800 to 0x8FF. */
  readMsr(msr: number): MsrValue | MsrFault {
    if (msr === MSR_APIC_BASE) return { low: this.baseLow >>> 0, high: this.baseHigh };
    if (msr === MSR_TSC_DEADLINE) return (this.options.tscDeadline ?? true) ? this.timer.readDeadline() : 'gp';
    if (this.modeNow !== 'x2apic' || msr < MSR_X2APIC_FIRST || msr > MSR_X2APIC_LAST) return 'gp';
    const offset = (msr - MSR_X2APIC_FIRST) << 4;
    switch (offset) {
      case ApicRegister.apr: // these four are gone
      case ApicRegister.remoteRead:
      case ApicRegister.dfr:
      case ApicRegister.icrHigh:
      case ApicRegister.eoi: // write-only
        return 'gp';
    }
    const low = this.readRegister(offset);
    if (low === undefined) return 'gp';
    return { low: low >>> 0, high: offset === ApicRegister.icrLow ? this.icrHigh : 0 };
  }

  /** The same registers. Reserved bits, read-only and absent registers fault. SDM 3A 11.12.1. */
  writeMsr(msr: number, low: number, high: number): ApicEffect | undefined | MsrFault {
    low >>>= 0;
    high >>>= 0;
    if (msr === MSR_APIC_BASE) return this.writeBase(low, high);
    if (msr === MSR_TSC_DEADLINE) {
      if (!(this.options.tscDeadline ?? true)) return 'gp';
      this.timer.writeDeadline(low, high);
      return undefined;
    }
    if (this.modeNow !== 'x2apic' || msr < MSR_X2APIC_FIRST || msr > MSR_X2APIC_LAST) return 'gp';
    const offset = (msr - MSR_X2APIC_FIRST) << 4;
    if (offset === ApicRegister.icrLow) {
      if (low & ~ICR_X2APIC_LEGAL) return 'gp';
      this.icrLow = low & ICR_XAPIC_WRITABLE;
      this.icrHigh = high;
      return this.sendIpi(high, true);
    }
    if (offset === ApicRegister.selfIpi) return low > LVT_VECTOR || high ? 'gp' : this.sendSelfIpi(low);
    const writable = this.writableBits(offset);
    if (writable === undefined || low & ~writable || high) return 'gp';
    return this.writeRegister(offset, low);
  }

  /** What firmware does by IA32_APIC_BASE. */
  enterX2apicMode(): void {
    if (this.writeBase((this.baseLow | APIC_BASE_EXTD) >>> 0, this.baseHigh) === 'gp')
      throw new Error('the APIC has no x2APIC mode');
  }

  /** Legal transitions: disabled ↔ xAPIC → x2APIC → disabled. SDM 3A 11.12.5, figure 11-27. */
  private writeBase(low: number, high: number): ApicEffect | undefined | MsrFault {
    const x2apic = this.options.x2apic ?? true;
    const writable = -APIC_PAGE_SIZE | APIC_BASE_BSP | APIC_BASE_ENABLE | (x2apic ? APIC_BASE_EXTD : 0);
    if (low & ~writable || high >= 2 ** ((this.options.physicalAddressBits ?? 48) - 32)) return 'gp';
    const enable = (low & APIC_BASE_ENABLE) !== 0;
    const extended = (low & APIC_BASE_EXTD) !== 0;
    if (extended && (!enable || this.modeNow === 'disabled')) return 'gp';
    if (enable && !extended && this.modeNow === 'x2apic') return 'gp';
    if (low === this.baseLow >>> 0 && high === this.baseHigh) return undefined;

    const mode = !enable ? 'disabled' : extended ? 'x2apic' : 'xapic';
    this.baseLow = low;
    this.baseHigh = high;
    if (mode !== this.modeNow) {
      this.modeNow = mode;
      this.xapicId = this.initialId & XAPIC_BROADCAST; // what software wrote there does not survive a change of mode
      if (mode === 'x2apic') this.icrHigh = 0;
      else this.resetRegisters(); // on the way to disabled: re-enabled, it is as after reset
    }
    return CONFIGURATION;
  }

  // ---- Registers -----------------------------------------------------------------------------------------------------

  /** x2APIC: the cluster in bits 31 to 16, the CPU's bit in it in 15 to 0, both from the ID. SDM 3A 11.12.10.2. */
  private get logicalId(): number {
    if (this.modeNow !== 'x2apic') return this.ldr;
    return ((this.initialId & ~0xf) << 12) | (1 << (this.initialId & 0xf));
  }

  /** Undefined where the manual's table has no register. */
  private readRegister(offset: number): number | undefined {
    switch (offset) {
      case ApicRegister.id:
        return this.modeNow === 'x2apic' ? this.initialId : this.xapicId << XAPIC_ID_SHIFT;
      case ApicRegister.version:
        return this.version;
      case ApicRegister.tpr:
        return this.tpr;
      case ApicRegister.apr:
        return this.arbitrationPriority();
      case ApicRegister.ppr:
        return this.ppr;
      case ApicRegister.eoi:
      case ApicRegister.remoteRead:
        return 0;
      case ApicRegister.ldr:
        return this.logicalId;
      case ApicRegister.dfr:
        return this.dfr;
      case ApicRegister.svr:
        return this.svr;
      case ApicRegister.esr:
        return this.esr;
      case ApicRegister.icrLow:
        return this.icrLow;
      case ApicRegister.icrHigh:
        return this.icrHigh;
      case ApicRegister.initialCount:
        return this.timer.initialCount;
      case ApicRegister.currentCount:
        return this.timer.currentCount();
      case ApicRegister.divideConfiguration:
        return this.timer.divideConfiguration;
    }
    if (offset >= ApicRegister.isr && offset < ApicRegister.esr) {
      const bank = offset >= ApicRegister.irr ? this.irr : offset >= ApicRegister.tmr ? this.tmr : this.isr;
      return bank.words[(offset >> 4) & 7];
    }
    const entry = this.lvtEntry(offset);
    return entry < 0 ? undefined : this.lvt[entry];
  }

  /**
   * The bits that may be written without a fault in x2APIC mode, of the registers that both views write alike; undefined
   * for the others. Read-only bits of an LVT entry are not reserved: software writes back what it read.
   */
  private writableBits(offset: number): number | undefined {
    switch (offset) {
      case ApicRegister.eoi:
      case ApicRegister.esr:
        return 0;
      case ApicRegister.tpr:
        return 0xff;
      case ApicRegister.svr:
        return this.svrWritable;
      case ApicRegister.initialCount:
        return 0xffff_ffff;
      case ApicRegister.divideConfiguration:
        return 0b1011;
    }
    const entry = this.lvtEntry(offset);
    if (entry < 0) return undefined;
    const isPin = entry === Lvt.lint0 || entry === Lvt.lint1;
    return this.lvtWritable[entry] | LVT_DELIVERY_STATUS | (isPin ? LVT_REMOTE_IRR : 0);
  }

  private writeRegister(offset: number, value: number): ApicEffect | undefined {
    switch (offset) {
      case ApicRegister.eoi:
        return this.endOfInterrupt();
      case ApicRegister.tpr:
        this.writeTpr(value & 0xff);
        return undefined;
      case ApicRegister.svr:
        return this.writeSvr(value & this.svrWritable);
      case ApicRegister.esr:
        this.esr = this.errors;
        this.errors = 0;
        return undefined;
      case ApicRegister.initialCount:
        this.timer.writeInitialCount(value >>> 0);
        return undefined;
      case ApicRegister.divideConfiguration:
        this.timer.writeDivideConfiguration(value);
        return undefined;
      default:
        this.writeLvt(this.lvtEntry(offset), value);
        return undefined;
    }
  }

  /** Index of the LVT entry at `offset`, or -1. */
  private lvtEntry(offset: number): number {
    if (offset >= ApicRegister.lvtTimer && offset <= ApicRegister.lvtError) return (offset - ApicRegister.lvtTimer) >> 4;
    return offset === ApicRegister.lvtCmci && this.lvtWritable[Lvt.cmci] ? Lvt.cmci : -1;
  }

  private writeTpr(value: number): void {
    this.tpr = value;
    this.updatePpr();
    this.notifyIfDeliverable();
  }

  /** SDM 3A 11.8.3.1. */
  private updatePpr(): void {
    const inService = Math.max(this.isr.highest, 0) & 0xf0;
    this.ppr = (this.tpr & 0xf0) >= inService ? this.tpr : inService;
  }

  /** SDM 3A 11.6.2.4. Nothing arbitrates by it any more. */
  private arbitrationPriority(): number {
    const requested = Math.max(this.irr.highest, 0) & 0xf0;
    const inService = Math.max(this.isr.highest, 0) & 0xf0;
    const task = this.tpr & 0xf0;
    return task >= requested && task > inService ? this.tpr : Math.max(task, inService, requested);
  }

  private notifyIfDeliverable(): void {
    if (this.irr.highest >> 4 > this.ppr >> 4) this.onChange();
  }

  /** Disabling masks all entries of the LVT; requests and vectors in service are kept. SDM 3A 11.4.7.2. */
  private writeSvr(value: number): ApicEffect | undefined {
    const toggled = (this.svr ^ value) & SVR_ENABLE;
    if (toggled && !(value & SVR_ENABLE)) {
      for (let entry = 0; entry < LVT_ENTRIES; entry++) this.writeLvt(entry, this.lvt[entry] | LVT_MASKED);
    }
    this.svr = value;
    return toggled ? CONFIGURATION : undefined;
  }

  private writeLvt(entry: number, value: number): void {
    if (entry === Lvt.timer) this.timer.settle();
    let lvt = (value & this.lvtWritable[entry]) | (this.lvt[entry] & LVT_REMOTE_IRR);
    if (!(this.svr & SVR_ENABLE)) lvt |= LVT_MASKED;
    this.lvt[entry] = lvt;
    if (entry === Lvt.timer) {
      this.timer.configure(((lvt >> LVT_TIMER_MODE_SHIFT) & 3) as TimerMode, (lvt & LVT_MASKED) !== 0);
    } else if (entry === Lvt.lint0) {
      if (!this.isLevelLint(entry)) this.lvt[entry] &= ~LVT_REMOTE_IRR;
      this.updateExtInt();
      if (this.isLevelLint(entry) && this.isLintAsserted(0)) this.raiseLint(0);
    }
  }

  /** The message the ICR asks for. Trigger mode and level mean something for INIT alone. SDM 3A 11.6.1. */
  private sendIpi(destination: number, wide: boolean): ApicEffect {
    const low = this.icrLow;
    const deliveryMode = ((low >> 8) & 7) as DeliveryMode;
    const vector = low & 0xff;
    const shorthand = ICR_SHORTHANDS[low >>> ICR_SHORTHAND_SHIFT];
    const trigger = deliveryMode === DeliveryMode.init && low & ICR_LEVEL ? 'level' : 'edge';
    if (vector < FIRST_LEGAL_VECTOR && deliveryMode <= DeliveryMode.lowestPriority) this.logError(ESR_SEND_ILLEGAL_VECTOR);
    return {
      kind: 'ipi',
      message: {
        vector,
        deliveryMode,
        destinationMode: low & ICR_LOGICAL ? 'logical' : 'physical',
        destination: shorthand === 'none' ? destination : 0,
        wide,
        shorthand,
        trigger,
        assert: trigger === 'edge' || (low & ICR_ASSERT) !== 0,
        source: shorthand === 'self' ? 'self-ipi' : 'ipi',
      },
    };
  }

  /** The x2APIC's SELF IPI register: a fixed, edge-triggered interrupt to itself. SDM 3A 11.12.11. */
  private sendSelfIpi(vector: number): ApicEffect {
    if (vector < FIRST_LEGAL_VECTOR) this.logError(ESR_SEND_ILLEGAL_VECTOR);
    return {
      kind: 'ipi',
      message: {
        vector,
        deliveryMode: DeliveryMode.fixed,
        destinationMode: 'physical',
        destination: 0,
        wide: true,
        shorthand: 'self',
        trigger: 'edge',
        assert: true,
        source: 'self-ipi',
      },
    };
  }
}

const deliveryModeOf = (lvt: number): DeliveryMode => ((lvt & LVT_DELIVERY_MODE) >> LVT_DELIVERY_MODE_SHIFT) as DeliveryMode;
