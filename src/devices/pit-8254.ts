/**
 * 8254 programmable interval timer and system control port B (0x61). Source: Intel 8254 data sheet; ICH data sheet for
 * port 0x61. Counts are derived from guest time, never stepped. OUT of counter 0 is the line, except that the low part of a
 * period in modes 2 and 3 and mode 4's strobe reach it as a fall right before the rise: behind an edge-triggered pin nobody can
 * tell. A count of 1 in modes 2 and 3 (illegal) counts as 2. Not modelled: the sound, parity and channel-check NMIs.
 */

import type { BusDevice } from '../memory/bus.ts';
import { ByteRegisters } from './byte-registers.ts';
import type { Clock, InterruptLine, Timer } from './clock.ts';
import { TickRate } from './tick-rate.ts';

export const PIT_HZ = 1_193_182;
/** Counter 1 asked the AT's DRAM for a refresh this often; port 0x61 still shows it. */
const REFRESH_TICKS = 18;

const Access = { latch: 0, low: 1, high: 2, both: 3 } as const;

/** One counter. Times are ticks of the PIT's input clock; what is written in one takes effect in the next. */
class Counter {
  mode = 3;
  private access: number = Access.both;
  private bcd = false;
  gate: boolean;
  /** The count the period is made of, 1 to 65,536 (10,000 in BCD). */
  private count = 65_536;
  /** Tick at which the counting element held `count`, or Infinity while nothing is loaded or a trigger is due. */
  private origin = Number.POSITIVE_INFINITY;
  /** While the gate stops it: how far it had counted. */
  private held = 0;
  /** Modes 2 and 3: a new count and when it takes over, `nextOrigin` being the start of the period it then is in. */
  private nextCount = 0;
  private nextSwitch = Number.POSITIVE_INFINITY;
  private nextOrigin = 0;

  /** No control word yet: what the counter does is undefined then, but no count is on its way into it. */
  private initial = true;
  private writeLow = 0;
  private writeHighNext = false;
  private readHighNext = false;
  private latchedCount = -1;
  private latchedStatus = -1;

  constructor(gate: boolean) {
    this.gate = gate;
  }

  control(value: number): void {
    this.initial = false;
    this.access = (value >> 4) & 3;
    const mode = (value >> 1) & 7;
    this.mode = mode > 5 ? mode - 4 : mode;
    this.bcd = (value & 1) !== 0;
    this.origin = this.nextSwitch = Number.POSITIVE_INFINITY;
    this.held = this.nextCount = 0;
    this.writeHighNext = this.readHighNext = false;
    this.latchedCount = this.latchedStatus = -1;
  }

  write(value: number, tick: number): void {
    if (this.access === Access.both && !this.writeHighNext) {
      this.writeLow = value;
      this.writeHighNext = true;
      // Mode 0: the first byte stops counting and takes OUT low.
      if (this.mode === 0) this.origin = Number.POSITIVE_INFINITY;
      return;
    }
    this.writeHighNext = false;
    const raw = this.access === Access.low ? value : this.access === Access.high ? value << 8 : this.writeLow | (value << 8);
    this.load(this.bcd ? fromBcd(raw) || 10_000 : raw || 65_536, tick);
  }

  private load(count: number, tick: number): void {
    this.settle(tick);
    const { mode } = this;
    const period = (mode === 2 || mode === 3) && count === 1 ? 2 : count;
    if (mode === 1 || mode === 5) {
      this.nextCount = period; // waits for a trigger
      if (this.origin === Number.POSITIVE_INFINITY) this.count = period;
    } else if ((mode === 2 || mode === 3) && this.gate && tick >= this.origin) {
      const half = (this.count + 1) >> 1;
      const phase = (tick - this.origin) % this.count;
      const start = tick - phase;
      this.nextCount = period;
      if (mode === 3 && phase < half) {
        this.nextSwitch = start + half;
        this.nextOrigin = this.nextSwitch - ((period + 1) >> 1);
      } else this.nextSwitch = this.nextOrigin = start + this.count;
    } else {
      this.count = period;
      this.origin = tick + 1;
      this.held = 0;
    }
  }

  setGate(gate: boolean, tick: number): void {
    if (gate === this.gate) return;
    this.settle(tick);
    const { mode } = this;
    if (mode === 1 || mode === 5) {
      if (gate && this.nextCount > 0) {
        this.count = this.nextCount;
        this.origin = tick + 1;
      }
    } else if (this.origin !== Number.POSITIVE_INFINITY) {
      if (!gate) {
        this.held = Math.max(0, tick - this.origin);
        if (mode === 2 || mode === 3) this.takeNext();
      } else if (mode === 2 || mode === 3) {
        this.takeNext();
        this.origin = tick + 1; // a trigger reloads
      } else this.origin = tick - this.held;
    }
    this.gate = gate;
  }

  /** Lets a new count of modes 2 and 3 take over once its time has come. */
  private settle(tick: number): void {
    if (tick < this.nextSwitch) return;
    this.origin = this.nextOrigin;
    this.takeNext();
  }

  private takeNext(): void {
    if (this.nextSwitch === Number.POSITIVE_INFINITY) return;
    this.count = this.nextCount;
    this.nextSwitch = Number.POSITIVE_INFINITY;
  }

  private elapsed(tick: number): number {
    const counting = this.gate || this.mode === 1 || this.mode === 5;
    return counting ? Math.max(0, tick - this.origin) : this.held;
  }

  private value(tick: number): number {
    this.settle(tick);
    if (this.origin === Number.POSITIVE_INFINITY) return 0;
    const { count } = this;
    const elapsed = this.elapsed(tick);
    const modulus = this.bcd ? 10_000 : 65_536;
    let value: number;
    if (this.mode === 2) value = count - (elapsed % count);
    else if (this.mode === 3) {
      const phase = elapsed % count;
      const half = (count + 1) >> 1;
      value = count - (count & 1) - 2 * (phase < half ? phase : phase - half);
    } else {
      value = (count - elapsed) % modulus;
      if (value < 0) value += modulus;
    }
    return this.bcd ? toBcd(value % modulus) : value & 0xffff;
  }

  out(tick: number): boolean {
    this.settle(tick);
    if (this.origin === Number.POSITIVE_INFINITY || tick < this.origin) return this.mode !== 0;
    const elapsed = this.elapsed(tick);
    switch (this.mode) {
      case 0:
        return elapsed >= this.count;
      case 1:
        return elapsed >= this.count;
      case 2:
        return !this.gate || elapsed % this.count !== this.count - 1;
      case 3:
        return !this.gate || elapsed % this.count < (this.count + 1) >> 1;
      default:
        return elapsed !== this.count;
    }
  }

  /** The first tick after `tick` at which OUT rises, or Infinity. */
  nextRise(tick: number): number {
    this.settle(tick);
    if (this.origin === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
    const { mode, origin, count } = this;
    if (mode === 2 || mode === 3) {
      if (!this.gate) return Number.POSITIVE_INFINITY;
      if (this.nextSwitch !== Number.POSITIVE_INFINITY) {
        return this.nextOrigin < this.nextSwitch ? this.nextOrigin + this.nextCount : this.nextSwitch;
      }
      return origin + (Math.floor(Math.max(0, tick - origin) / count) + 1) * count;
    }
    if (!this.gate && mode !== 1 && mode !== 5) return Number.POSITIVE_INFINITY;
    const rise = mode === 0 || mode === 1 ? origin + count : origin + count + 1;
    return rise > tick ? rise : Number.POSITIVE_INFINITY;
  }

  latchCount(tick: number): void {
    if (this.latchedCount < 0) this.latchedCount = this.value(tick);
  }

  latchStatus(tick: number): void {
    if (this.latchedStatus >= 0) return;
    const out = this.out(tick);
    const nullCount = (tick < this.origin && !this.initial) || this.nextSwitch !== Number.POSITIVE_INFINITY;
    this.latchedStatus = (out ? 0x80 : 0) | (nullCount ? 0x40 : 0) | (this.access << 4) | (this.mode << 1) | (this.bcd ? 1 : 0);
  }

  read(tick: number): number {
    if (this.latchedStatus >= 0) {
      const status = this.latchedStatus;
      this.latchedStatus = -1;
      return status;
    }
    const value = this.latchedCount >= 0 ? this.latchedCount : this.value(tick);
    const high = this.access === Access.high || (this.access === Access.both && this.readHighNext);
    if (this.access === Access.both) this.readHighNext = !this.readHighNext;
    if (this.access !== Access.both || high) this.latchedCount = -1;
    return high ? value >> 8 : value & 0xff;
  }
}

function fromBcd(raw: number): number {
  return (raw >> 12) * 1000 + ((raw >> 8) & 0xf) * 100 + ((raw >> 4) & 0xf) * 10 + (raw & 0xf);
}

function toBcd(value: number): number {
  return (
    (Math.floor(value / 1000) << 12) | ((Math.floor(value / 100) % 10) << 8) | ((Math.floor(value / 10) % 10) << 4) | (value % 10)
  );
}

export interface Pit8254Options {
  clock: Clock;
  /** IRQ 0: OUT of counter 0. */
  line: InterruptLine;
}

/** Ports 0x40 to 0x43; `controlPortB` is port 0x61. */
export class Pit8254 extends ByteRegisters {
  /** Port 0x61: gate and output of counter 2, speaker, refresh toggle. */
  readonly controlPortB: BusDevice;
  private readonly clock: Clock;
  private readonly line: InterruptLine;
  private readonly rate = new TickRate(PIT_HZ);
  private readonly timer: Timer;
  private readonly counters = [new Counter(true), new Counter(true), new Counter(false)] as const;
  private nextRise = Number.POSITIVE_INFINITY;
  /** OUT is high at power-on; the edge that made it so reached nobody. */
  private lineLevel = true;

  constructor(options: Pit8254Options) {
    super();
    this.clock = options.clock;
    this.line = options.line;
    this.timer = this.clock.createTimer('pit', () => this.rise());
    this.controlPortB = new ControlPortB(this.counters[2], () => this.tick());
  }

  private tick(): number {
    return this.rate.ticksAt(this.clock.now());
  }

  protected readByte(offset: number): number {
    return offset < 3 ? this.counters[offset].read(this.tick()) : 0xff;
  }

  protected writeByte(offset: number, value: number): void {
    const tick = this.tick();
    if (this.nextRise <= tick) this.rise(); // due, but the clock has not got round to it
    if (offset === 3) this.writeControl(value, tick);
    else if (offset < 3) {
      this.counters[offset].write(value, tick);
      if (offset === 0) this.scheduleRise(tick);
    }
  }

  private writeControl(value: number, tick: number): void {
    const index = value >> 6;
    if (index === 3) {
      // Read-back: bits 5 and 4 are active low, bits 1 to 3 select counters.
      for (let i = 0; i < 3; i++) {
        if (!(value & (2 << i))) continue;
        if (!(value & 0x20)) this.counters[i].latchCount(tick);
        if (!(value & 0x10)) this.counters[i].latchStatus(tick);
      }
    } else if (((value >> 4) & 3) === Access.latch) this.counters[index].latchCount(tick);
    else {
      // A new mode can lift OUT: what counts is where it really was, not the collapsed low part.
      if (index === 0) this.setLine(this.counters[0].out(tick));
      this.counters[index].control(value);
      if (index === 0) this.scheduleRise(tick);
    }
  }

  private scheduleRise(tick: number): void {
    const counter = this.counters[0];
    // Modes 2 to 5: the line stays high until the next rise; mode 0: it is OUT.
    this.setLine(counter.mode !== 0 || counter.out(tick));
    this.armRise(counter.nextRise(tick));
  }

  private armRise(tick: number): void {
    this.nextRise = tick;
    if (tick === Number.POSITIVE_INFINITY) this.timer.disarm();
    else this.timer.arm(this.rate.nanosecondsAt(tick));
  }

  private rise(): void {
    this.setLine(false);
    this.setLine(true);
    this.armRise(this.counters[0].nextRise(this.nextRise));
  }

  private setLine(level: boolean): void {
    if (level === this.lineLevel) return;
    this.lineLevel = level;
    this.line.set(level);
  }
}

/** System control port B. The channel and parity check enables are kept, their NMIs never happen. */
class ControlPortB extends ByteRegisters {
  private readonly counter: Counter;
  private readonly tick: () => number;
  private control = 0;

  constructor(counter: Counter, tick: () => number) {
    super();
    this.counter = counter;
    this.tick = tick;
  }

  protected readByte(offset: number): number {
    if (offset !== 0) return 0xff;
    const tick = this.tick();
    const refresh = Math.floor(tick / REFRESH_TICKS) & 1 ? 0x10 : 0;
    return this.control | refresh | (this.counter.out(tick) ? 0x20 : 0);
  }

  protected writeByte(offset: number, value: number): void {
    if (offset !== 0) return;
    this.control = value & 0x0f;
    this.counter.setGate((value & 1) !== 0, this.tick());
  }
}
