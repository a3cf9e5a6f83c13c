/**
 * ACPI power management timer: a free-running up-counter at 3.579545 MHz, 24 or 32 bits wide, that no one can
 * stop or set. Source: ACPI 6.4, 4.8.3.3. It starts at power-on.
 */

import type { AccessBytes, BusDevice } from '../memory/bus.ts';
import type { Clock } from './clock.ts';
import { TickRate } from './tick-rate.ts';

export const PM_TIMER_HZ = 3_579_545;
export const PM_TIMER_BYTES = 4;

export class PmTimer implements BusDevice {
  /** Half its period in ticks: the top bit changes (and TMR_STS is set) each time that many have passed. */
  readonly halfPeriodTicks: number;
  private readonly clock: Clock;
  private readonly rate = new TickRate(PM_TIMER_HZ);

  constructor(clock: Clock, bits: 24 | 32 = 24) {
    this.clock = clock;
    this.halfPeriodTicks = 2 ** (bits - 1);
  }

  /** How often the top bit has changed by `nanoseconds`. */
  overflowsAt(nanoseconds: number): number {
    return Math.floor(this.rate.ticksAt(nanoseconds) / this.halfPeriodTicks);
  }

  /** Guest time of the given change of the top bit. */
  overflowNanoseconds(overflow: number): number {
    return this.rate.nanosecondsAt(overflow * this.halfPeriodTicks);
  }

  read(offset: number, bytes: AccessBytes): number {
    const value = this.rate.ticksAt(this.clock.now()) % (2 * this.halfPeriodTicks);
    if (bytes === 4) return value;
    return (value >>> (8 * (offset & 3))) & (bytes === 1 ? 0xff : 0xffff);
  }

  write(): void {}
}
