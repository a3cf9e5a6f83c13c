/**
 * One vCPU's paravirtual state and the MSRs through which its guest reaches it. Source:
 * Documentation/virt/kvm/x86/msr.rst. An MSR whose feature is not offered does not exist: #GP, as KVM does when
 * paravirtual features are enforced by CPUID.
 */

import type { GuestMemory } from '../memory/guest-memory.ts';
import { hasFeature, type KvmFeature, type KvmFeatureSet } from './features.ts';
import type { MsrValue } from './msr.ts';
import { PvClock, type PvClockSource, type PvWallClock } from './pv-clock.ts';
import { type GuestByteAccess, type IoApicEoiRule, PvEoi, type PvEoiLocalApic, type PvEoiObserver } from './pv-eoi.ts';
import { StealTime, type StealTimeHost } from './steal-time.ts';

export const KvmMsr = {
  wallClockOld: 0x11,
  systemTimeOld: 0x12,
  wallClock: 0x4b56_4d00,
  systemTime: 0x4b56_4d01,
  asyncPfEnable: 0x4b56_4d02,
  stealTime: 0x4b56_4d03,
  pvEoi: 0x4b56_4d04,
  pollControl: 0x4b56_4d05,
  asyncPfInterrupt: 0x4b56_4d06,
  asyncPfAcknowledge: 0x4b56_4d07,
} as const;

/** True for every MSR number that is KVM's to answer, offered or not. */
export function isKvmMsr(msr: number): boolean {
  return msr >>> 8 === 0x4b_564d || msr === KvmMsr.wallClockOld || msr === KvmMsr.systemTimeOld;
}

/** The shared byte in guest RAM. */
export function ramByteAccess(memory: GuestMemory): GuestByteAccess {
  return {
    readByte(guestPhysical) {
      const linear = memory.linear(guestPhysical);
      return linear < 0 ? -1 : memory.bytes[linear];
    },
    writeByte(guestPhysical, value) {
      const linear = memory.linear(guestPhysical);
      if (linear < 0) return false;
      memory.bytes[linear] = value;
      memory.onWrite(guestPhysical, 1);
      return true;
    },
  };
}

/**
 * PV unhalt: a kick (hypercall 5) wakes a vCPU that halts in a lock's slow path. A kick that comes first is not
 * lost: it makes the next HLT fall through.
 */
export class PvUnhalt {
  private kicked = false;

  /** Somebody kicked this vCPU. The caller wakes it if it is halted. */
  kick(): void {
    this.kicked = true;
  }

  /** True if a kick is pending: a halted vCPU is to run. */
  get isKicked(): boolean {
    return this.kicked;
  }

  /** At HLT, and when a halted vCPU wakes, for whatever reason: takes the kick. True if there was one. */
  take(): boolean {
    const { kicked } = this;
    this.kicked = false;
    return kicked;
  }
}

export interface KvmVcpuOptions {
  kvm: KvmFeatureSet;
  memory: GuestMemory;
  localApic: PvEoiLocalApic;
  ioApicEoi: IoApicEoiRule;
  pvEoiObserver: PvEoiObserver;
  clockSource: PvClockSource;
  /** One for the whole VM. */
  wallClock: PvWallClock;
  stealTimeHost: StealTimeHost;
  apicvActive?: boolean;
}

export class KvmVcpu {
  readonly pvEoi: PvEoi;
  readonly clock: PvClock;
  readonly stealTime: StealTime;
  readonly pvUnhalt = new PvUnhalt();
  private readonly kvm: KvmFeatureSet;
  private readonly wallClock: PvWallClock;
  private pollsBeforeHalt = true;

  constructor(options: KvmVcpuOptions) {
    const { kvm, memory } = options;
    const offers = (feature: KvmFeature) => hasFeature(kvm, feature);
    this.kvm = kvm;
    this.wallClock = options.wallClock;
    this.clock = new PvClock(memory, options.clockSource, offers('clocksource-stable'));
    this.stealTime = new StealTime(memory, options.stealTimeHost, offers('pv-tlb-flush'));
    this.pvEoi = new PvEoi({
      memory: ramByteAccess(memory),
      localApic: options.localApic,
      ioApicEoi: options.ioApicEoi,
      observer: options.pvEoiObserver,
      offered: offers('pv-eoi'),
      apicvActive: options.apicvActive ?? false,
    });
  }

  /** Poll control: the host may poll before it puts a halted vCPU to sleep. A guest that polls itself says no. */
  get mayPollBeforeHalt(): boolean {
    return this.pollsBeforeHalt;
  }

  /** RDMSR of an `isKvmMsr`; undefined is #GP. */
  readMsr(msr: number): MsrValue | undefined {
    if (!this.offersMsr(msr)) return undefined;
    switch (msr) {
      case KvmMsr.wallClockOld:
      case KvmMsr.wallClock:
        return this.wallClock.readMsr();
      case KvmMsr.systemTimeOld:
      case KvmMsr.systemTime:
        return this.clock.readMsr();
      case KvmMsr.stealTime:
        return this.stealTime.readMsr();
      case KvmMsr.pvEoi:
        return this.pvEoi.readMsr();
      case KvmMsr.pollControl:
        return { low: this.pollsBeforeHalt ? 1 : 0, high: 0 };
      default:
        return undefined;
    }
  }

  /** WRMSR of an `isKvmMsr`; false is #GP. */
  writeMsr(msr: number, low: number, high: number): boolean {
    if (!this.offersMsr(msr)) return false;
    switch (msr) {
      case KvmMsr.wallClockOld:
      case KvmMsr.wallClock:
        this.wallClock.writeMsr(low, high);
        return true;
      case KvmMsr.systemTimeOld:
      case KvmMsr.systemTime:
        this.clock.writeMsr(low, high);
        return true;
      case KvmMsr.stealTime:
        return this.stealTime.writeMsr(low, high);
      case KvmMsr.pvEoi:
        return this.pvEoi.writeMsr(low, high);
      case KvmMsr.pollControl:
        if (low & ~1 || high !== 0) return false;
        this.pollsBeforeHalt = low === 1;
        return true;
      default:
        return false;
    }
  }

  /** INIT and RESET. Poll control is set up once for a vCPU's life; the wall clock belongs to the VM. */
  reset(): void {
    this.pvEoi.reset();
    this.clock.reset();
    this.stealTime.reset();
    this.pvUnhalt.take();
  }

  private offersMsr(msr: number): boolean {
    switch (msr) {
      case KvmMsr.wallClockOld:
      case KvmMsr.systemTimeOld:
        return hasFeature(this.kvm, 'clocksource');
      case KvmMsr.wallClock:
      case KvmMsr.systemTime:
        return hasFeature(this.kvm, 'clocksource2');
      case KvmMsr.stealTime:
        return hasFeature(this.kvm, 'steal-time');
      case KvmMsr.pvEoi:
        return hasFeature(this.kvm, 'pv-eoi');
      case KvmMsr.pollControl:
        return hasFeature(this.kvm, 'poll-control');
      default:
        return false; // asynchronous page faults among them
    }
  }
}
