/**
 * High precision event timers: one 64-bit up-counter, three comparators, each one-shot or periodic, edge or level, 32 or
 * 64 bits. Source: IA-PC HPET specification 1.0a. Legacy replacement lives here too: the PIT's and the RTC's lines pass
 * through. An edge leaves its line high until the timer is touched or matches again, since an 8259 wants to find it so. A
 * comparator written equal to the counter fires at once. Several periods missed because the clock was late make one interrupt.
 * Not modelled: FSB (MSI) delivery. Writes narrower than 32 bits are dropped.
 */

import type { AccessBytes, BusDevice } from '../memory/bus.ts';
import type { Clock, InterruptLine, Timer } from './clock.ts';
import { TickRate } from './tick-rate.ts';

export const HPET_BYTES = 0x400;
export const HPET_TIMERS = 3;
/** 10 ns: the counter of choice. */
export const HPET_DEFAULT_HZ = 100_000_000;
/** What Intel's chipsets have. */
export const HPET_INTEL_HZ = 14_318_180;

const FEMTOSECONDS_PER_SECOND = 1e15;
const TWO_32 = 2 ** 32;

const Register = { capabilities: 0x000, configuration: 0x010, status: 0x020, counter: 0x0f0, timers: 0x100 } as const;
const TIMER_STRIDE = 0x20;
const TimerRegister = { configuration: 0x00, comparator: 0x08 } as const;

const VENDOR = 0x8086;
const REVISION = 0x01;
const Capability = { timersShift: 8, counter64: 0x2000, legacyReplacement: 0x8000, vendorShift: 16 } as const;
const Configuration = { enable: 0x1, legacyReplacement: 0x2 } as const;
const TimerConfiguration = {
  level: 0x0002,
  enable: 0x0004,
  periodic: 0x0008,
  canPeriodic: 0x0010,
  can64: 0x0020,
  setAccumulator: 0x0040,
  mode32: 0x0100,
  routeShift: 9,
  routeMask: 0x1f,
} as const;
const WRITABLE =
  TimerConfiguration.level |
  TimerConfiguration.enable |
  TimerConfiguration.periodic |
  TimerConfiguration.setAccumulator |
  TimerConfiguration.mode32 |
  (TimerConfiguration.routeMask << TimerConfiguration.routeShift);

export interface HpetOptions {
  clock: Clock;
  hz?: number;
  /** Lines by GSI; a timer can be routed to those that are there. At most 32. */
  lines: readonly (InterruptLine | undefined)[];
  /** IRQ 0 (I/O APIC pin 2) and IRQ 8: driven by timers 0 and 1 in legacy replacement, by PIT and RTC else. */
  irq0: InterruptLine;
  irq8: InterruptLine;
}

/** A line that gets through to `target` while it is open; what it is at shows again when it opens. */
class Passage implements InterruptLine {
  private readonly target: InterruptLine;
  private level = false;
  private open = true;

  constructor(target: InterruptLine) {
    this.target = target;
  }

  set(asserted: boolean): void {
    this.level = asserted;
    if (this.open) this.target.set(asserted);
  }

  setOpen(open: boolean): void {
    if (open === this.open) return;
    this.open = open;
    this.target.set(open && this.level);
  }
}

class Comparator {
  configuration = TimerConfiguration.canPeriodic | TimerConfiguration.can64;
  low = 0xffff_ffff;
  high = 0xffff_ffff;
  periodLow = 0;
  periodHigh = 0;
  /** Counter ticks (as `Hpet.ticks` counts) at which it matches next; Infinity where it is not known or never. */
  matchTick = Number.POSITIVE_INFINITY;
  /** The accumulator's low half was just set: a high half that follows directly belongs to it. */
  highFollows = false;
  /** The line it holds high right now. */
  drives: InterruptLine | undefined;
  readonly timer: Timer;

  constructor(timer: Timer) {
    this.timer = timer;
  }

  get periodic(): boolean {
    return (this.configuration & TimerConfiguration.periodic) !== 0;
  }

  get level(): boolean {
    return (this.configuration & TimerConfiguration.level) !== 0;
  }

  get enabled(): boolean {
    return (this.configuration & TimerConfiguration.enable) !== 0;
  }

  get mode32(): boolean {
    return (this.configuration & TimerConfiguration.mode32) !== 0;
  }

  get periodTicks(): number {
    return this.periodHigh * TWO_32 + this.periodLow;
  }

  /** Ticks from a counter value to the next match: 0 when they are equal. Exact where it is below 2^53. */
  distanceFrom(counterLow: number, counterHigh: number): number {
    const low = (this.low - counterLow) >>> 0;
    if (this.mode32) return low;
    const high = (this.high - counterHigh - (this.low < counterLow ? 1 : 0)) >>> 0;
    return high * TWO_32 + low;
  }

  /** Adds periods to the accumulator. */
  advance(periods: number): void {
    const ticks = periods * this.periodTicks;
    const addLow = periods === 1 ? this.periodLow : ticks % TWO_32;
    const addHigh = periods === 1 ? this.periodHigh : Math.floor(ticks / TWO_32);
    const sum = this.low + addLow;
    this.low = sum >>> 0;
    if (!this.mode32) this.high = (this.high + addHigh + (sum >= TWO_32 ? 1 : 0)) >>> 0;
  }

  truncate(): void {
    if (!this.mode32) return;
    this.high = this.periodHigh = 0;
  }
}

export class Hpet implements BusDevice {
  /** Where the PIT's and the RTC's interrupts go in. */
  readonly pitLine: InterruptLine;
  readonly rtcLine: InterruptLine;
  private readonly pitPassage: Passage;
  private readonly rtcPassage: Passage;
  private readonly clock: Clock;
  private readonly rate: TickRate;
  private readonly lines: readonly (InterruptLine | undefined)[];
  private readonly irq0: InterruptLine;
  private readonly irq8: InterruptLine;
  private readonly routeCapability: number;
  private readonly comparators: readonly Comparator[];
  private configuration = 0;
  /** One bit a level-triggered timer. */
  private status = 0;
  /** The counter's value when it was last started, stopped or written, and the oscillator's tick at that moment. */
  private baseLow = 0;
  private baseHigh = 0;
  private baseTick = 0;
  /** The counter as `sample` left it. */
  private counterLow = 0;
  private counterHigh = 0;

  constructor(options: HpetOptions) {
    this.clock = options.clock;
    this.rate = new TickRate(options.hz ?? HPET_DEFAULT_HZ);
    this.lines = options.lines;
    this.irq0 = options.irq0;
    this.irq8 = options.irq8;
    let routes = 0;
    for (let gsi = 0; gsi < 32; gsi++) if (options.lines[gsi]) routes |= 1 << gsi;
    this.routeCapability = routes >>> 0;
    this.pitLine = this.pitPassage = new Passage(options.irq0);
    this.rtcLine = this.rtcPassage = new Passage(options.irq8);
    this.comparators = Array.from({ length: HPET_TIMERS }, (_, index) => {
      return new Comparator(this.clock.createTimer(`hpet-${index}`, () => this.match(index)));
    });
  }

  get hz(): number {
    return this.rate.hz;
  }

  read(offset: number, bytes: AccessBytes): number {
    for (const comparator of this.comparators) comparator.highFollows = false;
    const value = this.readRegister(offset & ~7, (offset & 4) !== 0);
    if (bytes === 4) return value;
    return (value >>> (8 * (offset & 3))) & (bytes === 1 ? 0xff : 0xffff);
  }

  write(offset: number, bytes: AccessBytes, value: number): void {
    if (bytes === 4 && (offset & 3) === 0) this.writeRegister(offset & ~7, (offset & 4) !== 0, value);
  }

  private readRegister(register: number, high: boolean): number {
    switch (register) {
      case Register.capabilities: {
        if (high) return Math.round(FEMTOSECONDS_PER_SECOND / this.rate.hz);
        const timers = (HPET_TIMERS - 1) << Capability.timersShift;
        return (
          (REVISION | timers | Capability.counter64 | Capability.legacyReplacement | (VENDOR << Capability.vendorShift)) >>> 0
        );
      }
      case Register.configuration:
        return high ? 0 : this.configuration;
      case Register.status:
        return high ? 0 : this.status;
      case Register.counter:
        this.sample(this.now());
        return high ? this.counterHigh : this.counterLow;
    }
    const index = Math.floor((register - Register.timers) / TIMER_STRIDE);
    const comparator = this.comparators[index];
    if (!comparator) return 0;
    switch (register % TIMER_STRIDE) {
      case TimerRegister.configuration:
        return high ? this.routeCapability : comparator.configuration;
      case TimerRegister.comparator:
        this.catchUp(index, this.ticks(this.now()));
        return high ? comparator.high : comparator.low;
      default:
        return 0;
    }
  }

  private writeRegister(register: number, high: boolean, value: number): void {
    const index = Math.floor((register - Register.timers) / TIMER_STRIDE);
    for (let i = 0; i < HPET_TIMERS; i++) if (i !== index) this.comparators[i].highFollows = false;
    switch (register) {
      case Register.configuration:
        if (!high) this.writeConfiguration(value & (Configuration.enable | Configuration.legacyReplacement));
        return;
      case Register.status:
        if (high) return;
        this.status &= ~value;
        this.driveLines();
        return;
      case Register.counter:
        this.writeCounter(high, value);
        return;
    }
    const comparator = this.comparators[index];
    if (!comparator) return;
    const highFollows = comparator.highFollows;
    comparator.highFollows = false;
    switch (register % TIMER_STRIDE) {
      case TimerRegister.configuration:
        if (!high) this.writeTimerConfiguration(comparator, index, value);
        return;
      case TimerRegister.comparator:
        this.writeComparator(comparator, index, high, value, highFollows);
    }
  }

  // The counter

  private get running(): boolean {
    return (this.configuration & Configuration.enable) !== 0;
  }

  private now(): number {
    return this.clock.now();
  }

  /** Ticks counted since the counter was last started or written. */
  private ticks(now: number): number {
    return this.running ? Math.max(0, this.rate.ticksAt(now) - this.baseTick) : 0;
  }

  private sample(now: number): void {
    const ticks = this.ticks(now);
    const sum = this.baseLow + (ticks % TWO_32);
    this.counterLow = sum >>> 0;
    this.counterHigh = (this.baseHigh + Math.floor(ticks / TWO_32) + (sum >= TWO_32 ? 1 : 0)) >>> 0;
  }

  /** Fixes the counter at what it shows now, so that counting goes on from there. */
  private rebase(now: number): void {
    const ticks = this.ticks(now);
    for (let index = 0; index < HPET_TIMERS; index++) this.catchUp(index, ticks);
    this.sample(now);
    this.baseLow = this.counterLow;
    this.baseHigh = this.counterHigh;
    this.baseTick = this.rate.ticksAt(now);
  }

  private writeCounter(high: boolean, value: number): void {
    this.rebase(this.now());
    if (high) this.baseHigh = value;
    else this.baseLow = value;
    for (const comparator of this.comparators) this.schedule(comparator);
  }

  private writeConfiguration(value: number): void {
    const changed = value ^ this.configuration;
    if (changed & Configuration.enable) this.rebase(this.now());
    this.configuration = value;
    // Whoever loses the legacy lines lets go of them before the other takes hold.
    const legacy = (value & Configuration.legacyReplacement) !== 0;
    if (legacy) this.openPassages(false);
    this.driveLines();
    if (!legacy) this.openPassages(true);
    if (changed & Configuration.enable) for (const comparator of this.comparators) this.schedule(comparator);
  }

  private openPassages(open: boolean): void {
    this.pitPassage.setOpen(open);
    this.rtcPassage.setOpen(open);
  }

  // Comparators

  private writeTimerConfiguration(comparator: Comparator, index: number, value: number): void {
    this.catchUp(index, this.ticks(this.now()));
    if ((value ^ comparator.configuration) & TimerConfiguration.level) this.hold(comparator, undefined);
    comparator.configuration = (value & WRITABLE) | (comparator.configuration & ~WRITABLE);
    if (!comparator.periodic) comparator.configuration &= ~TimerConfiguration.setAccumulator;
    comparator.truncate();
    if (!comparator.level) this.status &= ~(1 << index);
    this.schedule(comparator);
    this.driveLines();
  }

  /** In periodic mode a write sets the period; with VAL_SET, which it clears, the accumulator as well. */
  private writeComparator(comparator: Comparator, index: number, high: boolean, value: number, highFollows: boolean): void {
    if (high && comparator.mode32) return;
    this.catchUp(index, this.ticks(this.now()));
    const { periodic } = comparator;
    const setAccumulator = (comparator.configuration & TimerConfiguration.setAccumulator) !== 0;
    if (!periodic || setAccumulator || (high && highFollows)) {
      if (high) comparator.high = value;
      else comparator.low = value;
    }
    if (periodic) {
      if (high) comparator.periodHigh = value;
      else comparator.periodLow = value;
      comparator.configuration &= ~TimerConfiguration.setAccumulator;
      comparator.highFollows = setAccumulator && !high;
    }
    this.schedule(comparator);
  }

  /** Passes the matches that nobody waited for; one that is due but has not fired yet fires now. */
  private catchUp(index: number, ticks: number): void {
    const comparator = this.comparators[index];
    if (ticks < comparator.matchTick) return;
    if (comparator.timer.deadline === Number.POSITIVE_INFINITY) this.passMatches(comparator, ticks);
    else this.match(index);
  }

  /** Moves a comparator whose match is due to its next one. */
  private passMatches(comparator: Comparator, ticks: number): void {
    const { periodTicks } = comparator;
    if (comparator.periodic && periodTicks > 0) {
      const periods = Math.floor((ticks - comparator.matchTick) / periodTicks) + 1;
      comparator.advance(periods);
      comparator.matchTick += periods * periodTicks;
    } else {
      // It matches again when the counter comes round.
      const wrap = comparator.mode32 ? TWO_32 : TWO_32 * TWO_32;
      comparator.matchTick += (Math.floor((ticks - comparator.matchTick) / wrap) + 1) * wrap;
    }
  }

  /** Works the next match out from counter and comparator. */
  private schedule(comparator: Comparator): void {
    if (!this.running) {
      comparator.matchTick = Number.POSITIVE_INFINITY;
      comparator.timer.disarm();
      return;
    }
    const now = this.now();
    this.sample(now);
    comparator.matchTick = this.ticks(now) + comparator.distanceFrom(this.counterLow, this.counterHigh);
    this.arm(comparator);
  }

  /** A timer is armed only for a match that has an effect: an interrupt, or a status bit. */
  private arm(comparator: Comparator): void {
    if (comparator.enabled || comparator.level) {
      comparator.timer.arm(this.rate.nanosecondsAt(this.baseTick + comparator.matchTick));
    } else comparator.timer.disarm();
  }

  private match(index: number): void {
    const comparator = this.comparators[index];
    this.passMatches(comparator, Math.max(comparator.matchTick, this.ticks(this.now())));
    this.arm(comparator);
    if (comparator.level) {
      this.status |= 1 << index;
      this.driveLines();
    } else if (comparator.enabled) {
      const line = this.lineOf(index);
      line?.set(false); // whoever holds it: this is an edge of its own
      comparator.drives = line;
      line?.set(true);
    }
  }

  // Interrupts

  private lineOf(index: number): InterruptLine | undefined {
    if (this.configuration & Configuration.legacyReplacement && index < 2) return index === 0 ? this.irq0 : this.irq8;
    const { configuration } = this.comparators[index];
    return this.lines[(configuration >> TimerConfiguration.routeShift) & TimerConfiguration.routeMask];
  }

  /** Level-triggered timers hold their lines while their status bits are set, edge-triggered ones while nothing changes. */
  private driveLines(): void {
    for (let index = 0; index < HPET_TIMERS; index++) {
      const comparator = this.comparators[index];
      const line = this.running && comparator.enabled ? this.lineOf(index) : undefined;
      const high = comparator.level ? (this.status >> index) & 1 : comparator.drives === line;
      this.hold(comparator, high ? line : undefined);
    }
  }

  /** Lets go of one line and takes another; several timers may hold the same one. */
  private hold(comparator: Comparator, line: InterruptLine | undefined): void {
    const before = comparator.drives;
    if (line === before) return;
    comparator.drives = line;
    if (before && !this.comparators.some((other) => other.drives === before)) before.set(false);
    line?.set(true);
  }
}
