/**
 * The local APIC's timer: counting down from an initial count, once or periodically, or waiting for the TSC.
 * SDM 3A 11.5.4. A masked timer counts, but asks nothing of the clock: there would be nothing to see.
 */

import type { Clock, Timer } from '../devices/clock.ts';

/** Bits 18:17 of the timer's LVT entry. The reserved mode never expires. */
export const TimerMode = { oneShot: 0, periodic: 1, tscDeadline: 2, reserved: 3 } as const;
export type TimerMode = (typeof TimerMode)[keyof typeof TimerMode];

/**
 * KVM's lower bound of a period (min_timer_period_us): below it a guest would buy host work at no cost of its own. The
 * only deviation from the manual here; set `minimumPeriodNanoseconds` to 0 to go without.
 */
export const KVM_MINIMUM_PERIOD_NANOSECONDS = 200_000;

export interface ApicTimerOptions {
  clock: Clock;
  /** The TSC of the vCPU this APIC belongs to, in cycles. */
  readTsc(): number;
  tscHz: number;
  /** Counts per second before the divider; 1 GHz unless given (KVM's). */
  busHz?: number;
  minimumPeriodNanoseconds?: number;
}

const NEVER = Number.POSITIVE_INFINITY;
const NANOSECONDS_PER_SECOND = 1e9;
const TWO_TO_32 = 2 ** 32;

/** Bits 3, 1 and 0 of the divide configuration register: 2, 4, … 128, and 1 last. */
export const divisorOf = (divideConfiguration: number): number =>
  1 << (((((divideConfiguration >> 1) & 4) | (divideConfiguration & 3)) + 1) & 7);

export class ApicTimer {
  private readonly options: ApicTimerOptions;
  private readonly timer: Timer;
  private readonly expire: () => void;
  private readonly busNanoseconds: number;
  private readonly minimumPeriodNanoseconds: number;

  private mode: TimerMode = TimerMode.oneShot;
  private masked = true;
  private initial = 0;
  private divide = 0;
  /** When the count reaches zero next; NEVER if it stands still. */
  private expiryNanoseconds = NEVER;
  /** IA32_TSC_DEADLINE, in halves because its 64 bits are read back exactly. Both 0: disarmed. */
  private deadlineLow = 0;
  private deadlineHigh = 0;

  /** `expire` raises the LVT entry's interrupt. It is called only while the entry is not masked. */
  constructor(name: string, options: ApicTimerOptions, expire: () => void) {
    this.options = options;
    this.expire = expire;
    this.busNanoseconds = NANOSECONDS_PER_SECOND / (options.busHz ?? 1e9);
    this.minimumPeriodNanoseconds = options.minimumPeriodNanoseconds ?? KVM_MINIMUM_PERIOD_NANOSECONDS;
    this.timer = options.clock.createTimer(name, () => this.expired());
  }

  /** Stopped, masked, one-shot, divide by 2. */
  reset(): void {
    this.mode = TimerMode.oneShot;
    this.masked = true;
    this.divide = 0;
    this.stop();
  }

  /**
   * The LVT entry's mode and mask. Call `settle` before the entry changes. Entering or leaving TSC-deadline mode disarms
   * the timer (and clears the initial count, as KVM does); changing between one-shot and periodic lets it run on.
   */
  configure(mode: TimerMode, masked: boolean): void {
    if (mode !== this.mode && (mode === TimerMode.tscDeadline || this.mode === TimerMode.tscDeadline)) this.stop();
    this.mode = mode;
    this.masked = masked;
    this.schedule();
  }

  get initialCount(): number {
    return this.initial;
  }

  /** Starts counting down; 0 stops. Ignored in TSC-deadline mode. */
  writeInitialCount(count: number): void {
    if (this.mode === TimerMode.tscDeadline) return;
    this.settle();
    this.initial = count;
    this.expiryNanoseconds = count === 0 ? NEVER : this.options.clock.now() + this.periodNanoseconds();
    this.schedule();
  }

  /** What is left of the count: the initial count at once, 0 after a one-shot expired and in TSC-deadline mode. */
  currentCount(): number {
    if (this.mode === TimerMode.tscDeadline) return 0;
    this.settle();
    if (this.expiryNanoseconds === NEVER) return 0;
    return Math.max(0, Math.ceil((this.expiryNanoseconds - this.options.clock.now()) / this.tickNanoseconds()));
  }

  get divideConfiguration(): number {
    return this.divide;
  }

  /** A running count goes on from where it is at the new speed. */
  writeDivideConfiguration(value: number): void {
    this.settle();
    const oldTick = this.tickNanoseconds();
    this.divide = value & 0b1011;
    if (this.expiryNanoseconds === NEVER) return;
    const now = this.options.clock.now();
    this.expiryNanoseconds = now + ((this.expiryNanoseconds - now) * this.tickNanoseconds()) / oldTick;
    this.schedule();
  }

  /** IA32_TSC_DEADLINE: 0 when disarmed or in another mode. */
  readDeadline(): { low: number; high: number } {
    this.settle();
    return { low: this.deadlineLow, high: this.deadlineHigh };
  }

  /** Arms for the moment the TSC reaches the value, at once if it has; 0 disarms. Ignored in other modes. */
  writeDeadline(low: number, high: number): void {
    if (this.mode !== TimerMode.tscDeadline) return;
    this.settle();
    this.deadlineLow = low;
    this.deadlineHigh = high;
    this.schedule();
  }

  /** To be called after the guest wrote its TSC: a deadline stays a value of the TSC, not a moment. */
  tscChanged(): void {
    if (this.mode === TimerMode.tscDeadline) this.schedule();
  }

  /**
   * Lets happen what fell due in the access's past but has not been called by the clock yet, so that a register access
   * sees, and changes, the state the guest would find on hardware.
   */
  settle(): void {
    const now = this.options.clock.now();
    if (this.timer.deadline <= now) {
      this.timer.disarm();
      this.expired();
    } else if (this.masked) {
      if (this.mode === TimerMode.tscDeadline) {
        if (this.deadlineCycles() <= this.options.readTsc()) this.disarmDeadline();
      } else if (this.expiryNanoseconds <= now) {
        this.passExpiry(now);
      }
    }
  }

  private stop(): void {
    this.initial = 0;
    this.expiryNanoseconds = NEVER;
    this.disarmDeadline();
    this.timer.disarm();
  }

  private disarmDeadline(): void {
    this.deadlineLow = this.deadlineHigh = 0;
  }

  private tickNanoseconds(): number {
    return this.busNanoseconds * divisorOf(this.divide);
  }

  private periodNanoseconds(): number {
    const period = this.initial * this.tickNanoseconds();
    return this.mode === TimerMode.periodic ? Math.max(period, this.minimumPeriodNanoseconds) : period;
  }

  private deadlineCycles(): number {
    return this.deadlineHigh * TWO_TO_32 + this.deadlineLow;
  }

  /** A count that ran out unseen before `now`: a one-shot stands, a periodic one is in a later period. */
  private passExpiry(now: number): void {
    if (this.mode !== TimerMode.periodic) {
      this.expiryNanoseconds = NEVER;
      return;
    }
    const period = this.periodNanoseconds();
    this.expiryNanoseconds += (Math.floor((now - this.expiryNanoseconds) / period) + 1) * period;
  }

  private schedule(): void {
    const deadline = this.masked || this.mode === TimerMode.reserved ? NEVER : this.nextExpiryNanoseconds();
    if (deadline === NEVER) this.timer.disarm();
    else this.timer.arm(deadline);
  }

  private nextExpiryNanoseconds(): number {
    if (this.mode !== TimerMode.tscDeadline) return this.expiryNanoseconds;
    const deadline = this.deadlineCycles();
    if (deadline === 0) return NEVER;
    const { clock, readTsc, tscHz } = this.options;
    const cyclesLeft = Math.max(0, deadline - readTsc());
    // Rounded up to a whole nanosecond: the handler must never read a TSC below its deadline.
    return Math.ceil(clock.now() + (cyclesLeft * NANOSECONDS_PER_SECOND) / tscHz);
  }

  /** The clock's word counts, not `readTsc`'s: a halted vCPU's TSC may not have been moved on to this moment yet. */
  private expired(): void {
    switch (this.mode) {
      case TimerMode.oneShot:
        this.expiryNanoseconds = NEVER;
        break;
      case TimerMode.periodic:
        this.expiryNanoseconds += this.periodNanoseconds();
        this.schedule();
        break;
      case TimerMode.tscDeadline:
        this.disarmDeadline();
        break;
      case TimerMode.reserved:
        return;
    }
    this.expire();
  }
}
