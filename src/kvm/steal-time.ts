/**
 * Steal time: a 64-byte record of the time a vCPU wanted to run and could not, and whether it is running now.
 * The guest's PV TLB flush rides on it: for a vCPU marked preempted, a guest asks for a flush in the record
 * instead of sending an IPI. Source: Documentation/virt/kvm/x86/msr.rst (0x4b564d03), kvm_steal_time in x86.c.
 *
 * In this machine each vCPU has a host CPU to itself by default, so the scheduler reports neither preemption nor
 * stolen time: that vCPUs take turns in one thread is invisible in guest time. A halted vCPU is not "preempted"
 * either (KVM reports that only at an instruction boundary). A scheduler that models overcommitment calls
 * `preempt`, `addSteal` and `enter`.
 */

import type { GuestMemory } from '../memory/guest-memory.ts';
import { guestPhysicalOf, type MsrValue } from './msr.ts';

const ENABLE = 1;
const RESERVED_BITS = 0x3e;
/** struct kvm_steal_time. */
const RECORD = { bytes: 64, steal: 0, version: 8, flags: 12, preempted: 16 };
const PREEMPTED = 1;
const FLUSH_TLB = 2;

export interface StealTimeHost {
  /** The vCPU's translations of guest addresses, global ones included, are void. */
  flushTlb(): void;
  /** Tracing: what an entry found the guest had asked for. */
  onPvTlbFlush?(needFlush: boolean): void;
}

export class StealTime {
  private readonly memory: GuestMemory;
  private readonly host: StealTimeHost;
  private readonly tlbFlushOffered: boolean;
  private low = 0;
  private high = 0;
  /** Stolen since the record was last brought up to date. */
  private unreportedNanoseconds = 0n;
  private updateRequested = false;

  constructor(memory: GuestMemory, host: StealTimeHost, tlbFlushOffered: boolean) {
    this.memory = memory;
    this.host = host;
    this.tlbFlushOffered = tlbFlushOffered;
  }

  readMsr(): MsrValue {
    return { low: this.low, high: this.high };
  }

  /** WRMSR; false is #GP: reserved bits, which also make the record 64-byte aligned. */
  writeMsr(low: number, high: number): boolean {
    if (low & RESERVED_BITS) return false;
    this.low = low >>> 0;
    this.high = high >>> 0;
    this.updateRequested = (low & ENABLE) !== 0;
    return true;
  }

  reset(): void {
    this.low = 0;
    this.high = 0;
    this.updateRequested = false;
  }

  /** The vCPU waited this long for a host CPU. */
  addSteal(nanoseconds: number): void {
    this.unreportedNanoseconds += BigInt(Math.round(nanoseconds));
    this.updateRequested = true;
  }

  /** The vCPU loses its host CPU though it could run. */
  preempt(): void {
    const base = this.record();
    if (base < 0) return;
    this.memory.view.setUint8(base + RECORD.preempted, PREEMPTED);
    this.memory.onWrite(this.guestPhysical + RECORD.preempted, 1);
    this.updateRequested = true;
  }

  /** Before the vCPU runs again: brings the record up to date, and flushes if another vCPU asked for it. */
  enter(): void {
    if (!this.updateRequested) return;
    this.updateRequested = false;
    const base = this.record();
    if (base < 0) return;
    const { view } = this.memory;
    if (this.tlbFlushOffered) {
      const needFlush = (view.getUint8(base + RECORD.preempted) & FLUSH_TLB) !== 0;
      this.host.onPvTlbFlush?.(needFlush);
      if (needFlush) this.host.flushTlb();
    }
    view.setUint8(base + RECORD.preempted, 0);
    const version = ((view.getUint32(base + RECORD.version, true) + 1) | 1) >>> 0;
    view.setUint32(base + RECORD.version, version, true);
    const steal = view.getBigUint64(base + RECORD.steal, true) + this.unreportedNanoseconds;
    view.setBigUint64(base + RECORD.steal, steal, true);
    this.unreportedNanoseconds = 0n;
    view.setUint32(base + RECORD.version, version + 1, true);
    this.memory.onWrite(this.guestPhysical, RECORD.bytes);
  }

  private get guestPhysical(): number {
    return guestPhysicalOf(this.low, this.high, ENABLE);
  }

  /** Linear address of the record, or -1 if there is none. Aligned, so it never crosses a page. */
  private record(): number {
    return this.low & ENABLE ? this.memory.linear(this.guestPhysical, RECORD.bytes) : -1;
  }
}
