/**
 * Ticks of a free-running oscillator as a function of guest time. Counters keep the tick they started at
 * and subtract, so they never drift. Exact while time × numerator fits 53 bits (hours to months), and
 * within a thousandth of a tick for years after that.
 */

const NANOSECONDS_PER_SECOND = 1e9;

export class TickRate {
  readonly hz: number;
  private readonly numerator: number;
  private readonly denominator: number;

  constructor(hz: number) {
    this.hz = hz;
    let [a, b] = [hz, NANOSECONDS_PER_SECOND];
    while (b) [a, b] = [b, a % b];
    this.numerator = hz / a;
    this.denominator = NANOSECONDS_PER_SECOND / a;
  }

  /** Whole ticks from power-on to `nanoseconds`. */
  ticksAt(nanoseconds: number): number {
    return Math.floor((nanoseconds * this.numerator) / this.denominator);
  }

  /** The time of a tick: the first at which `ticksAt` says so. Infinity stays Infinity. */
  nanosecondsAt(tick: number): number {
    let nanoseconds = (tick * this.denominator) / this.numerator;
    while (this.ticksAt(nanoseconds) < tick) nanoseconds *= 1 + Number.EPSILON;
    return nanoseconds;
  }
}
