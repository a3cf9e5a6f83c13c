/**
 * kvmclock: the record from which a guest computes time out of its TSC, and the wall clock at boot. Source:
 * Documentation/virt/kvm/x86/msr.rst and timekeeping.rst. Not modelled: PVCLOCK_GUEST_STOPPED (nothing stops
 * a vCPU behind the guest's back) and a host that scales the guest's TSC.
 */

import { type GuestMemory, PAGE_SIZE } from '../memory/guest-memory.ts';
import { guestPhysicalOf, type MsrValue } from './msr.ts';

const NANOSECONDS_PER_SECOND = 1_000_000_000n;

/** A moment, as the vCPU's TSC and as nanoseconds of the VM's time. */
export interface PvClockReference {
  tsc: bigint;
  systemNanoseconds: bigint;
}

export interface PvClockSource {
  readonly tscHz: number;
  /**
   * A moment at which TSC and time were looked at together. vCPUs whose TSCs are synchronised are given the same
   * moment (the TSC's start will do): then their clocks agree to the nanosecond and `isStable` may be promised.
   */
  reference(): PvClockReference;
  /** All vCPUs' clocks agree: the guest need not guard against going backwards. */
  isStable(): boolean;
}

/** ns = ((tsc - tscTimestamp) shifted left by `shift`) * `multiplier` / 2^32. */
export interface PvClockScale {
  multiplier: number;
  /** Negative shifts right. */
  shift: number;
}

/** The scale for a TSC of `tscHz`, its multiplier normalised to 2^31 … 2^32 − 1 and rounded down, as KVM's. */
export function pvClockScale(tscHz: number): PvClockScale {
  if (!(tscHz >= 1 && tscHz < 2 ** 53)) throw new RangeError(`TSC frequency out of range: ${tscHz} Hz`);
  let numerator = NANOSECONDS_PER_SECOND << 32n;
  let denominator = BigInt(Math.round(tscHz));
  let shift = 0;
  for (; numerator / denominator >= 1n << 32n; shift++) denominator <<= 1n;
  for (; numerator / denominator < 1n << 31n; shift--) numerator <<= 1n;
  return { multiplier: Number(numerator / denominator), shift };
}

const ENABLE = 1;
/** struct pvclock_vcpu_time_info. */
const TIME_INFO = { bytes: 32, version: 0, tscTimestamp: 8, systemTime: 16, multiplier: 24, shift: 28, flags: 29 };
const FLAG_TSC_STABLE = 1;

/** One vCPU's clock: MSR 0x12 or 0x4b564d01. */
export class PvClock {
  private readonly memory: GuestMemory;
  private readonly source: PvClockSource;
  private readonly stableOffered: boolean;
  private low = 0;
  private high = 0;
  private version = 0;

  constructor(memory: GuestMemory, source: PvClockSource, stableOffered: boolean) {
    this.memory = memory;
    this.source = source;
    this.stableOffered = stableOffered;
  }

  readMsr(): MsrValue {
    return { low: this.low, high: this.high };
  }

  /** WRMSR never faults: an address that cannot be written just gets no clock. Bit 0 enables. */
  writeMsr(low: number, high: number): void {
    this.low = low >>> 0;
    this.high = high >>> 0;
    this.update();
  }

  reset(): void {
    this.low = 0;
    this.high = 0;
  }

  /** Writes the record anew, with an odd version while it is in the making. To be called when the guest's TSC was set. */
  update(): void {
    if (!(this.low & ENABLE)) return;
    const guestPhysical = guestPhysicalOf(this.low, this.high, ENABLE);
    const crossesPage = (guestPhysical % PAGE_SIZE) + TIME_INFO.bytes > PAGE_SIZE; // KVM maps one page for it
    const base = crossesPage ? -1 : this.memory.linear(guestPhysical, TIME_INFO.bytes);
    if (base < 0) return;
    const { view } = this.memory;
    const { multiplier, shift } = pvClockScale(this.source.tscHz);
    const { tsc, systemNanoseconds } = this.source.reference();
    const stable = this.stableOffered && this.source.isStable();
    const versionInMemory = view.getUint32(base + TIME_INFO.version, true);
    this.version = ((versionInMemory + 1) | 1) >>> 0;
    view.setUint32(base + TIME_INFO.version, this.version, true);
    view.setUint32(base + 4, 0, true);
    view.setBigUint64(base + TIME_INFO.tscTimestamp, tsc, true);
    view.setBigUint64(base + TIME_INFO.systemTime, systemNanoseconds, true);
    view.setUint32(base + TIME_INFO.multiplier, multiplier, true);
    view.setInt8(base + TIME_INFO.shift, shift);
    view.setUint8(base + TIME_INFO.flags, stable ? FLAG_TSC_STABLE : 0);
    view.setUint16(base + 30, 0, true);
    view.setUint32(base + TIME_INFO.version, this.version + 1, true);
    this.memory.onWrite(guestPhysical, TIME_INFO.bytes);
  }
}

const WALL_CLOCK_BYTES = 12;

/** The VM's wall clock, shared by all vCPUs: MSR 0x11 or 0x4b564d00. */
export class PvWallClock {
  private readonly memory: GuestMemory;
  private readonly epochAtBootNanoseconds: bigint;
  private low = 0;
  private high = 0;

  /** `epochAtBootNanoseconds`: what the wall showed (Unix epoch) when the VM's time was 0. */
  constructor(memory: GuestMemory, epochAtBootNanoseconds: bigint) {
    this.memory = memory;
    this.epochAtBootNanoseconds = epochAtBootNanoseconds;
  }

  readMsr(): MsrValue {
    return { low: this.low, high: this.high };
  }

  /** Writes the time of boot to the address: once for each WRMSR, there is no enable bit. */
  writeMsr(low: number, high: number): void {
    this.low = low >>> 0;
    this.high = high >>> 0;
    const guestPhysical = guestPhysicalOf(low, high, 0);
    const base = guestPhysical === 0 ? -1 : this.memory.linear(guestPhysical, WALL_CLOCK_BYTES);
    if (base < 0) return;
    const { view } = this.memory;
    const version = ((view.getUint32(base, true) + 1) | 1) >>> 0;
    view.setUint32(base, version, true);
    view.setUint32(base + 4, Number(BigInt.asUintN(32, this.epochAtBootNanoseconds / NANOSECONDS_PER_SECOND)), true);
    view.setUint32(base + 8, Number(this.epochAtBootNanoseconds % NANOSECONDS_PER_SECOND), true);
    view.setUint32(base, version + 1, true);
    this.memory.onWrite(guestPhysical, WALL_CLOCK_BYTES);
  }
}
