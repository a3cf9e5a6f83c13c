/**
 * The machine's time: a clock for each vCPU, counted in cycles of its TSC (instructions retired, exits charged, time slept), and
 * the timers of devices and local APICs in one queue. Nothing here knows the host's clock.
 */

import type { Clock, Timer } from '../devices/clock.ts';

class QueuedTimer implements Timer {
  readonly name: string;
  readonly expire: (deadlineNanoseconds: number) => void;
  deadline = Number.POSITIVE_INFINITY;
  private readonly queue: TimerQueue;

  constructor(queue: TimerQueue, name: string, expire: (deadlineNanoseconds: number) => void) {
    this.queue = queue;
    this.name = name;
    this.expire = expire;
  }

  arm(deadlineNanoseconds: number): void {
    this.deadline = deadlineNanoseconds;
    this.queue.changed();
  }

  disarm(): void {
    if (this.deadline === Number.POSITIVE_INFINITY) return;
    this.deadline = Number.POSITIVE_INFINITY;
    this.queue.changed();
  }
}

/** All timers of the machine: few (a dozen devices, one for each APIC), so the earliest is found by looking at each. */
export class TimerQueue {
  private readonly timers: QueuedTimer[] = [];
  private earliest: QueuedTimer | undefined;
  private stale = false;
  /** Called when a timer is armed or disarmed: the slice that runs may have to end sooner. */
  onChange: () => void = () => {};

  create(name: string, expire: (deadlineNanoseconds: number) => void): Timer {
    const timer = new QueuedTimer(this, name, expire);
    this.timers.push(timer);
    return timer;
  }

  changed(): void {
    this.stale = true;
    this.onChange();
  }

  /** The earliest deadline, or Infinity. */
  get deadline(): number {
    return this.next()?.deadline ?? Number.POSITIVE_INFINITY;
  }

  /** Fires the earliest timer, at its deadline. Of timers due at the same moment the one created first goes first. */
  fire(): void {
    const timer = this.next();
    if (!timer) return;
    const { deadline } = timer;
    timer.deadline = Number.POSITIVE_INFINITY;
    this.stale = true;
    timer.expire(deadline);
  }

  private next(): QueuedTimer | undefined {
    if (this.stale) {
      this.stale = false;
      this.earliest = undefined;
      for (const timer of this.timers) {
        if (timer.deadline < (this.earliest?.deadline ?? Number.POSITIVE_INFINITY)) this.earliest = timer;
      }
    }
    return this.earliest;
  }
}

/** The clock that devices see: the time of whoever acts, a vCPU or a timer. */
export class MachineClock implements Clock {
  readonly queue: TimerQueue;
  private readonly source: () => number;

  constructor(queue: TimerQueue, source: () => number) {
    this.queue = queue;
    this.source = source;
  }

  now(): number {
    return this.source();
  }

  createTimer(name: string, expire: (deadlineNanoseconds: number) => void): Timer {
    return this.queue.create(name, expire);
  }
}
