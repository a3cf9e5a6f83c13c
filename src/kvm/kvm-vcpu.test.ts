import { describe, expect, it } from 'vitest';
import { GuestMemory } from '../memory/guest-memory.ts';
import { KVM_FEATURES, KVM_OFF, KVM_ON, type KvmFeature, type KvmFeatureSet } from './features.ts';
import { isKvmMsr, KvmMsr, KvmVcpu, PvUnhalt, ramByteAccess } from './kvm-vcpu.ts';
import { PvWallClock } from './pv-clock.ts';

const WORD = 0x1000;

function vcpuWith(kvm: KvmFeatureSet) {
  const memory = new GuestMemory({ ramBytes: 1 << 20 });
  const ignore = () => {};
  const vcpu = new KvmVcpu({
    kvm,
    memory,
    localApic: { endOfInterrupt: ignore, hasPendingIrr: () => false, highestInService: () => -1, isEnabled: () => true },
    ioApicEoi: { needsIoApicEoi: () => false },
    pvEoiObserver: { armed: ignore, elided: ignore, disarmed: ignore, notArmed: ignore, written: ignore },
    clockSource: { tscHz: 1e9, reference: () => ({ tsc: 0n, systemNanoseconds: 0n }), isStable: () => true },
    wallClock: new PvWallClock(memory, 0n),
    stealTimeHost: { flushTlb: ignore },
  });
  return { memory, vcpu };
}

const owner: [keyof typeof KvmMsr, KvmFeature | undefined][] = [
  ['wallClockOld', 'clocksource'],
  ['systemTimeOld', 'clocksource'],
  ['wallClock', 'clocksource2'],
  ['systemTime', 'clocksource2'],
  ['asyncPfEnable', undefined],
  ['stealTime', 'steal-time'],
  ['pvEoi', 'pv-eoi'],
  ['pollControl', 'poll-control'],
  ['asyncPfInterrupt', undefined],
  ['asyncPfAcknowledge', undefined],
];

describe.each(owner)('MSR %s', (name, feature) => {
  const msr = KvmMsr[name];

  it('exists with its feature alone, and raises #GP without it', () => {
    for (const offered of KVM_FEATURES) {
      const { vcpu } = vcpuWith({ present: true, features: new Set([offered]) });
      expect(vcpu.readMsr(msr) !== undefined).toBe(offered === feature);
      expect(vcpu.writeMsr(msr, 0, 0)).toBe(offered === feature);
    }
  });

  it('raises #GP when KVM is hidden', () => {
    const { vcpu } = vcpuWith(KVM_OFF);
    expect([vcpu.readMsr(msr), vcpu.writeMsr(msr, 0, 0)]).toEqual([undefined, false]);
  });
});

describe('the paravirtual MSRs of a vCPU', () => {
  it('old and new clock MSRs are two names of one state', () => {
    const { vcpu } = vcpuWith(KVM_ON);
    vcpu.writeMsr(KvmMsr.systemTime, 0x2001, 0);
    vcpu.writeMsr(KvmMsr.wallClockOld, 0x2100, 0);
    expect(vcpu.readMsr(KvmMsr.systemTimeOld)).toEqual({ low: 0x2001, high: 0 });
    expect(vcpu.readMsr(KvmMsr.wallClock)).toEqual({ low: 0x2100, high: 0 });
  });

  it('poll control starts enabled and has one bit', () => {
    const { vcpu } = vcpuWith(KVM_ON);
    expect(vcpu.readMsr(KvmMsr.pollControl)).toEqual({ low: 1, high: 0 });
    expect(vcpu.writeMsr(KvmMsr.pollControl, 2, 0)).toBe(false);
    expect(vcpu.writeMsr(KvmMsr.pollControl, 0, 1)).toBe(false);
    expect(vcpu.writeMsr(KvmMsr.pollControl, 0, 0)).toBe(true);
    expect(vcpu.mayPollBeforeHalt).toBe(false);
  });

  it('PV EOI and steal time pass on what their state machines refuse', () => {
    const { vcpu } = vcpuWith(KVM_ON);
    expect(vcpu.writeMsr(KvmMsr.pvEoi, WORD | 2, 0)).toBe(false);
    expect(vcpu.writeMsr(KvmMsr.pvEoi, WORD | 1, 0)).toBe(true);
    expect(vcpu.readMsr(KvmMsr.pvEoi)).toEqual({ low: WORD | 1, high: 0 });
    expect(vcpu.writeMsr(KvmMsr.stealTime, 0x21, 0)).toBe(false);
  });

  it('INIT clears clock, steal time, PV EOI and a pending kick, and keeps poll control', () => {
    const { vcpu } = vcpuWith(KVM_ON);
    for (const msr of [KvmMsr.systemTime, KvmMsr.stealTime, KvmMsr.pvEoi]) expect(vcpu.writeMsr(msr, WORD | 1, 0)).toBe(true);
    vcpu.writeMsr(KvmMsr.pollControl, 0, 0);
    vcpu.pvUnhalt.kick();
    vcpu.reset();
    for (const msr of [KvmMsr.systemTime, KvmMsr.stealTime, KvmMsr.pvEoi]) expect(vcpu.readMsr(msr)).toEqual({ low: 0, high: 0 });
    expect(vcpu.mayPollBeforeHalt).toBe(false);
    expect(vcpu.pvUnhalt.isKicked).toBe(false);
  });

  it('KVM answers for its whole range and the two old numbers', () => {
    expect([0x4b56_4d00, 0x4b56_4d08, 0x4b56_4dff, 0x11, 0x12].every(isKvmMsr)).toBe(true);
    expect([0x4b56_4cff, 0x4b56_4e00, 0x10, 0x13, 0x80b, 0xc000_0080].some(isKvmMsr)).toBe(false);
  });
});

describe('the shared byte', () => {
  it('is RAM’s, and a write is told to the code cache', () => {
    const memory = new GuestMemory({ ramBytes: 1 << 20 });
    const writes: number[][] = [];
    memory.onWrite = (...write) => writes.push(write);
    const bytes = ramByteAccess(memory);
    expect(bytes.writeByte(WORD, 1)).toBe(true);
    expect([bytes.readByte(WORD), memory.slice(WORD, 1)[0], writes]).toEqual([1, 1, [[WORD, 1]]]);
  });

  it('is refused outside of RAM', () => {
    const bytes = ramByteAccess(new GuestMemory({ ramBytes: 1 << 20 }));
    for (const address of [1 << 20, 0xfee0_0000, 2 ** 32, 2 ** 52, 2 ** 64]) {
      expect([bytes.readByte(address), bytes.writeByte(address, 1)]).toEqual([-1, false]);
    }
  });
});

describe('PV unhalt', () => {
  it('a kick before HLT makes that HLT fall through, once', () => {
    const unhalt = new PvUnhalt();
    unhalt.kick();
    expect([unhalt.isKicked, unhalt.take(), unhalt.take()]).toEqual([true, true, false]);
  });
});
