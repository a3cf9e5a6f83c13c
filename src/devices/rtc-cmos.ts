/**
 * MC146818 real-time clock with 128 bytes of CMOS RAM, ports 0x70 and 0x71. Source: Motorola MC146818 data sheet;
 * PC conventions for the bytes above 0x0E. Time runs from an injected date with guest time. An update is instant at
 * the end of the UIP window. Not modelled: daylight saving, square wave, time bases other than 32,768 Hz (they stop the clock),
 * the NMI mask's effect.
 */

import { ByteRegisters } from './byte-registers.ts';
import type { Clock, InterruptLine, Timer } from './clock.ts';
import { TickRate } from './tick-rate.ts';

/** Where the century is kept; the FADT says so. */
export const RTC_CENTURY_REGISTER = 0x32;
/** 2024-01-01 00:00:00 UTC. */
export const DEFAULT_RTC_EPOCH_SECONDS = 1_704_067_200;

const CMOS_BYTES = 128;
const SECOND = 1e9;
const SECONDS_PER_DAY = 86_400;
const CRYSTAL_HZ = 32_768;
/** UIP rises 244 µs before an update cycle, which takes 1,984 µs. */
const UPDATE_NANOSECONDS = 244_000 + 1_984_000;
/** Out of divider reset, the first update comes half a second later. */
const FIRST_UPDATE_NANOSECONDS = SECOND / 2;

const Register = {
  seconds: 0x00,
  secondsAlarm: 0x01,
  minutes: 0x02,
  minutesAlarm: 0x03,
  hours: 0x04,
  hoursAlarm: 0x05,
  weekday: 0x06,
  day: 0x07,
  month: 0x08,
  year: 0x09,
  a: 0x0a,
  b: 0x0b,
  c: 0x0c,
  d: 0x0d,
} as const;
const A = { updateInProgress: 0x80, divider: 0x70, running: 0x20, rate: 0x0f } as const;
const B = { set: 0x80, periodic: 0x40, alarm: 0x20, update: 0x10, binary: 0x04, hours24: 0x02 } as const;
/** Register C's flags sit where register B enables them. */
const C = { request: 0x80, periodic: B.periodic, alarm: B.alarm, update: B.update } as const;
const FLAGS = C.periodic | C.alarm | C.update;
const D_VALID = 0x80;
/** Alarm bytes from here up match anything. */
const ALARM_ANY = 0xc0;
const HOURS_PM = 0x80;

export interface RtcCmosOptions {
  clock: Clock;
  /** IRQ 8. */
  line: InterruptLine;
  /** Date at guest time 0, UTC. */
  epochSeconds?: number;
  /** Guest RAM below 4 GiB, and above it, for CMOS's memory sizes. */
  lowRamBytes?: number;
  highRamBytes?: number;
  cpuCount?: number;
}

export class RtcCmos extends ByteRegisters {
  private readonly clock: Clock;
  private readonly line: InterruptLine;
  private readonly timer: Timer;
  private readonly crystal = new TickRate(CRYSTAL_HZ);
  private readonly cmos = new Uint8Array(CMOS_BYTES);
  private index = 0;
  private nonMaskableMasked = false;
  /** Guest time the chain of dividers started at: updates and periodic ticks count from here. */
  private dividerStart = 0;
  private updateStart = 0;
  /** Updates and periodic ticks since then that the registers already show. */
  private updatesSeen = 0;
  private periodsSeen = 0;
  private lineAsserted = false;

  constructor(options: RtcCmosOptions) {
    super();
    this.clock = options.clock;
    this.line = options.line;
    this.timer = this.clock.createTimer('rtc', (deadline) => this.refresh(deadline));
    const { cmos } = this;
    cmos[Register.a] = A.running | 6; // 1,024 Hz, as firmware leaves it
    cmos[Register.b] = B.hours24;
    cmos[Register.d] = D_VALID;
    const epochSeconds = Math.floor(options.epochSeconds ?? DEFAULT_RTC_EPOCH_SECONDS);
    cmos[Register.weekday] = ((((Math.floor(epochSeconds / SECONDS_PER_DAY) + 4) % 7) + 7) % 7) + 1; // 1970-01-01: a Thursday, 5
    this.storeTime(epochSeconds);
    this.storeMemorySizes(options.lowRamBytes ?? 0, options.highRamBytes ?? 0);
    cmos[0x5f] = (options.cpuCount ?? 1) - 1;
    this.storeChecksum();
  }

  /** Bit 7 of the last write to port 0x70. */
  get nmiMasked(): boolean {
    return this.nonMaskableMasked;
  }

  /** A CMOS byte as firmware would set it, 0x0E to 0x7F; the checksum follows. */
  setCmos(index: number, value: number): void {
    if (index <= Register.d || index >= CMOS_BYTES) throw new RangeError(`not a CMOS RAM byte: 0x${index.toString(16)}`);
    this.cmos[index] = value;
    this.storeChecksum();
  }

  protected readByte(offset: number): number {
    if (offset !== 1) return 0xff; // the index is write-only
    const { index } = this;
    if (index > Register.d && index !== RTC_CENTURY_REGISTER) return this.cmos[index];
    const now = this.clock.now();
    this.settle(now);
    if (index === Register.a) return this.cmos[index] | (this.updateInProgress(now) ? A.updateInProgress : 0);
    if (index !== Register.c) return this.cmos[index];
    const flags = this.cmos[Register.c];
    const pending = flags & this.cmos[Register.b] & FLAGS ? C.request : 0;
    this.cmos[Register.c] = 0;
    this.reschedule();
    return flags | pending;
  }

  protected writeByte(offset: number, value: number): void {
    if (offset === 0) {
      this.index = value & (CMOS_BYTES - 1);
      this.nonMaskableMasked = (value & 0x80) !== 0;
    } else if (offset === 1) this.writeRegister(this.index, value);
  }

  private writeRegister(index: number, value: number): void {
    if (index > Register.d && index !== RTC_CENTURY_REGISTER) {
      this.cmos[index] = value;
      return;
    }
    if (index === Register.c || index === Register.d) return;
    const now = this.clock.now();
    this.settle(now);
    if (index === Register.a) this.writeA(value & ~A.updateInProgress, now);
    else if (index === Register.b) {
      // Stopping the clock to set it turns the update interrupt off.
      this.cmos[index] = value & B.set ? value & ~B.update : value;
    } else this.cmos[index] = value;
    this.reschedule();
  }

  private writeA(value: number, now: number): void {
    const ran = this.running;
    this.cmos[Register.a] = value;
    if (this.running && !ran) {
      this.dividerStart = now;
      this.updateStart = now + FIRST_UPDATE_NANOSECONDS - SECOND;
    }
    this.updatesSeen = this.updatesAt(now);
    this.periodsSeen = this.periodsAt(now);
  }

  private get running(): boolean {
    return (this.cmos[Register.a] & A.divider) === A.running;
  }

  // Events: what happened by `now` is found by counting, not by having been there

  private updatesAt(now: number): number {
    return Math.floor((now - this.updateStart) / SECOND);
  }

  /** The time of an update: the first at which `updatesAt` counts it. */
  private updateNanoseconds(update: number): number {
    let nanoseconds = this.updateStart + update * SECOND;
    while (this.updatesAt(nanoseconds) < update) nanoseconds += nanoseconds * Number.EPSILON;
    return nanoseconds;
  }

  /** Crystal ticks between periodic interrupts, or 0 for none. Rates 1 and 2 repeat 8 and 9. */
  private get periodTicks(): number {
    const rate = this.cmos[Register.a] & A.rate;
    if (rate === 0) return 0;
    return 1 << (rate <= 2 ? rate + 6 : rate - 1);
  }

  private periodsAt(now: number): number {
    const { periodTicks } = this;
    return periodTicks === 0 ? 0 : Math.floor(this.crystal.ticksAt(Math.max(0, now - this.dividerStart)) / periodTicks);
  }

  private updateInProgress(now: number): boolean {
    if (!this.running || this.cmos[Register.b] & B.set) return false;
    return this.updateStart + (this.updatesAt(now) + 1) * SECOND - now <= UPDATE_NANOSECONDS;
  }

  /** Brings registers and flags up to `now`. */
  private settle(now: number): void {
    if (!this.running) return;
    const { cmos } = this;
    const periods = this.periodsAt(now);
    if (periods > this.periodsSeen) {
      this.periodsSeen = periods;
      cmos[Register.c] |= C.periodic;
    }
    const updates = this.updatesAt(now);
    const passed = updates - this.updatesSeen;
    if (passed <= 0) return;
    this.updatesSeen = updates;
    if (cmos[Register.b] & B.set) return;
    if (this.secondsToAlarm() <= passed) cmos[Register.c] |= C.alarm;
    cmos[Register.c] |= C.update;
    const before = this.loadTime();
    const days = Math.floor((before + passed) / SECONDS_PER_DAY) - Math.floor(before / SECONDS_PER_DAY);
    cmos[Register.weekday] = (((cmos[Register.weekday] & 7) + 6 + days) % 7) + 1;
    this.storeTime(before + passed);
  }

  private refresh(now: number): void {
    this.settle(now);
    this.reschedule();
  }

  /** Sets the line, and the timer to the next event that would raise it. */
  private reschedule(): void {
    const { cmos } = this;
    const asserted = (cmos[Register.b] & cmos[Register.c] & FLAGS) !== 0;
    if (asserted !== this.lineAsserted) {
      this.lineAsserted = asserted;
      this.line.set(asserted);
    }
    const wanted = asserted || !this.running ? 0 : cmos[Register.b];
    let deadline = Number.POSITIVE_INFINITY;
    if (wanted & B.periodic && this.periodTicks > 0) {
      deadline = this.dividerStart + this.crystal.nanosecondsAt((this.periodsSeen + 1) * this.periodTicks);
      while (this.periodsAt(deadline) <= this.periodsSeen) deadline += deadline * Number.EPSILON; // the sum was rounded down
    }
    if (!(wanted & B.set)) {
      if (wanted & B.update) deadline = Math.min(deadline, this.updateNanoseconds(this.updatesSeen + 1));
      if (wanted & B.alarm) deadline = Math.min(deadline, this.updateNanoseconds(this.updatesSeen + this.secondsToAlarm()));
    }
    if (deadline === Number.POSITIVE_INFINITY) this.timer.disarm();
    else this.timer.arm(deadline);
  }

  /** Updates until the time of day next equals the alarm, at least 1; Infinity where it never does. */
  private secondsToAlarm(): number {
    const { cmos } = this;
    const second = cmos[Register.secondsAlarm] >= ALARM_ANY ? -1 : this.decode(cmos[Register.secondsAlarm]);
    const minute = cmos[Register.minutesAlarm] >= ALARM_ANY ? -1 : this.decode(cmos[Register.minutesAlarm]);
    const hour = cmos[Register.hoursAlarm] >= ALARM_ANY ? -1 : this.decodeHours(cmos[Register.hoursAlarm]);
    const start = ((this.loadTime() % SECONDS_PER_DAY) + SECONDS_PER_DAY) % SECONDS_PER_DAY;
    // Skip to the next hour, minute or second wherever that part does not match.
    for (let at = start + 1; at <= start + SECONDS_PER_DAY; ) {
      const timeOfDay = at % SECONDS_PER_DAY;
      if (hour >= 0 && Math.floor(timeOfDay / 3600) !== hour) at += 3600 - (timeOfDay % 3600);
      else if (minute >= 0 && Math.floor(timeOfDay / 60) % 60 !== minute) at += 60 - (timeOfDay % 60);
      else if (second >= 0 && timeOfDay % 60 !== second) at++;
      else return at - start;
    }
    return Number.POSITIVE_INFINITY;
  }

  // The date in its registers. Nonsense a guest wrote becomes some date, the same one each time.

  private decode(value: number): number {
    return this.cmos[Register.b] & B.binary ? value : (value >> 4) * 10 + (value & 0xf);
  }

  private encode(value: number): number {
    return this.cmos[Register.b] & B.binary ? value : (Math.floor(value / 10) << 4) | (value % 10);
  }

  private decodeHours(value: number): number {
    if (this.cmos[Register.b] & B.hours24) return this.decode(value);
    return (this.decode(value & ~HOURS_PM) % 12) + (value & HOURS_PM ? 12 : 0);
  }

  private encodeHours(hours: number): number {
    if (this.cmos[Register.b] & B.hours24) return this.encode(hours);
    return this.encode(hours % 12 || 12) | (hours >= 12 ? HOURS_PM : 0);
  }

  private loadTime(): number {
    const { cmos } = this;
    // The century byte is firmware's, and BCD whatever register B says.
    const century = (cmos[RTC_CENTURY_REGISTER] >> 4) * 10 + (cmos[RTC_CENTURY_REGISTER] & 0xf);
    const year = century * 100 + this.decode(cmos[Register.year]);
    const days = daysFromCivil(year, this.decode(cmos[Register.month]), this.decode(cmos[Register.day]));
    const hours = this.decodeHours(cmos[Register.hours]);
    return days * SECONDS_PER_DAY + hours * 3600 + this.decode(cmos[Register.minutes]) * 60 + this.decode(cmos[Register.seconds]);
  }

  private storeTime(epochSeconds: number): void {
    const { cmos } = this;
    const days = Math.floor(epochSeconds / SECONDS_PER_DAY);
    const timeOfDay = epochSeconds - days * SECONDS_PER_DAY;
    cmos[Register.seconds] = this.encode(timeOfDay % 60);
    cmos[Register.minutes] = this.encode(Math.floor(timeOfDay / 60) % 60);
    cmos[Register.hours] = this.encodeHours(Math.floor(timeOfDay / 3600));
    // Days to a date (Howard Hinnant's civil_from_days): years begin in March, eras have 400 of them.
    const shifted = days + DAYS_TO_1970;
    const era = Math.floor(shifted / DAYS_PER_ERA);
    const dayOfEra = shifted - era * DAYS_PER_ERA;
    const leaps = Math.floor(dayOfEra / 1460) - Math.floor(dayOfEra / 36_524) + Math.floor(dayOfEra / 146_096);
    const yearOfEra = Math.floor((dayOfEra - leaps) / 365);
    const dayOfYear = dayOfEra - (365 * yearOfEra + (yearOfEra >> 2) - Math.floor(yearOfEra / 100));
    const monthFromMarch = Math.floor((5 * dayOfYear + 2) / 153);
    const month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9;
    const year = era * 400 + yearOfEra + (month <= 2 ? 1 : 0);
    cmos[Register.day] = this.encode(dayOfYear - Math.floor((153 * monthFromMarch + 2) / 5) + 1);
    cmos[Register.month] = this.encode(month);
    cmos[Register.year] = this.encode(year % 100);
    const century = Math.floor(year / 100) % 100;
    cmos[RTC_CENTURY_REGISTER] = (Math.floor(century / 10) << 4) | (century % 10);
  }

  private storeMemorySizes(lowRamBytes: number, highRamBytes: number): void {
    const kib = 1024;
    const mib = 1024 * kib;
    const baseKib = Math.min(640, Math.floor(lowRamBytes / kib));
    const extendedKib = clamp(Math.floor(lowRamBytes / kib) - 1024, 0xffff);
    this.storeWord(0x15, baseKib);
    this.storeWord(0x17, extendedKib);
    this.storeWord(0x30, extendedKib);
    this.storeWord(0x34, clamp(Math.floor((lowRamBytes - 16 * mib) / (64 * kib)), 0xffff));
    const highUnits = clamp(Math.floor(highRamBytes / (64 * kib)), 0xff_ffff);
    this.storeWord(0x5b, highUnits & 0xffff);
    this.cmos[0x5d] = highUnits >> 16;
    this.cmos[0x14] = 0x02; // equipment: x87, no floppy
  }

  private storeWord(index: number, value: number): void {
    this.cmos[index] = value;
    this.cmos[index + 1] = value >> 8;
  }

  /** Bytes 0x10 to 0x2D add up to 0x2E (high) and 0x2F (low). */
  private storeChecksum(): void {
    let sum = 0;
    for (let i = 0x10; i <= 0x2d; i++) sum += this.cmos[i];
    this.cmos[0x2e] = sum >> 8;
    this.cmos[0x2f] = sum;
  }
}

/** Days from 0000-03-01, where an era begins, to 1970-01-01. */
const DAYS_TO_1970 = 719_468;
const DAYS_PER_ERA = 146_097;

/** Days from 1970-01-01 to a date (Howard Hinnant's days_from_civil). */
function daysFromCivil(year: number, month: number, day: number): number {
  const marchYear = month <= 2 ? year - 1 : year;
  const era = Math.floor(marchYear / 400);
  const yearOfEra = marchYear - era * 400;
  const dayOfYear = Math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1;
  return era * DAYS_PER_ERA + yearOfEra * 365 + (yearOfEra >> 2) - Math.floor(yearOfEra / 100) + dayOfYear - DAYS_TO_1970;
}

function clamp(value: number, maximum: number): number {
  return Math.min(Math.max(value, 0), maximum);
}
