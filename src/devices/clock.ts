/**
 * Time as devices see it: guest nanoseconds since power-on, and timers that fire in guest time. Injected,
 * so that a test drives a device with a clock of its own and the machine with the virtual one.
 */

/** A one-shot timer; a periodic device arms it again from its callback. */
export interface Timer {
  /** Guest time at which it fires, in nanoseconds, or Infinity. */
  readonly deadline: number;
  /** Arms it, replacing an earlier deadline. A deadline in the past fires at once, after the current access. */
  arm(deadlineNanoseconds: number): void;
  disarm(): void;
}

export interface Clock {
  /** Guest time in nanoseconds (fractions allowed), as the vCPU that is running sees it. */
  now(): number;
  /** A timer, disarmed. `expire` gets the deadline it was armed for. */
  createTimer(name: string, expire: (deadlineNanoseconds: number) => void): Timer;
}

/** An interrupt line: a device drives a level; an edge is a change of it. */
export interface InterruptLine {
  set(asserted: boolean): void;
}

/** A clock that stands still until a test moves it. Timers fire in order of deadline. */
export class ManualClock implements Clock {
  private time = 0;
  private readonly timers = new Set<{ name: string; deadline: number; expire: (deadline: number) => void }>();

  now(): number {
    return this.time;
  }

  createTimer(name: string, expire: (deadlineNanoseconds: number) => void): Timer {
    const timer = {
      name,
      deadline: Number.POSITIVE_INFINITY,
      expire,
      arm(deadline: number) {
        timer.deadline = deadline;
      },
      disarm() {
        timer.deadline = Number.POSITIVE_INFINITY;
      },
    };
    this.timers.add(timer);
    return timer;
  }

  /** Moves time to `nanoseconds`, firing what falls due on the way at its own deadline. */
  advanceTo(nanoseconds: number): void {
    for (;;) {
      let next: { deadline: number; expire: (deadline: number) => void } | undefined;
      for (const timer of this.timers)
        if (timer.deadline <= nanoseconds && (!next || timer.deadline < next.deadline)) next = timer;
      if (!next) break;
      const { deadline } = next;
      this.time = Math.max(this.time, deadline);
      next.deadline = Number.POSITIVE_INFINITY;
      next.expire(deadline);
    }
    this.time = Math.max(this.time, nanoseconds);
  }
}
