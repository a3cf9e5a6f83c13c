import { beforeEach, describe, expect, it } from 'vitest';
import { GuestMemory } from '../memory/guest-memory.ts';
import { StealTime } from './steal-time.ts';

const RECORD = 0x3000;
const memory = new GuestMemory({ ramBytes: 1 << 20 });
const at = memory.linear(RECORD, 64);
const steal = () => memory.view.getBigUint64(at, true);
const version = () => memory.view.getUint32(at + 8, true);
const preempted = () => memory.view.getUint8(at + 16);
let flushes = 0;
let traced: boolean[] = [];
const host = { flushTlb: () => flushes++, onPvTlbFlush: (needFlush: boolean) => traced.push(needFlush) };
let stealTime: StealTime;

beforeEach(() => {
  flushes = 0;
  traced = [];
  memory.slice(RECORD, 64).fill(0);
  stealTime = new StealTime(memory, host, true);
  stealTime.writeMsr(RECORD | 1, 0);
});

describe('the MSR', () => {
  it.each([1, 2, 3, 4, 5])('bit %i is reserved', (bit) => {
    expect(stealTime.writeMsr(RECORD | (1 << bit), 0)).toBe(false);
    expect(stealTime.readMsr()).toEqual({ low: RECORD | 1, high: 0 });
  });

  it('takes an address without RAM: there is just no record', () => {
    expect(stealTime.writeMsr(1, 5)).toBe(true);
    expect(() => stealTime.enter()).not.toThrow();
    expect(version()).toBe(0);
  });
});

describe('the record', () => {
  it('appears at the entry after it was enabled, and only then', () => {
    expect(version()).toBe(0);
    stealTime.enter();
    expect([version(), steal(), preempted()]).toEqual([2, 0n, 0]);
    stealTime.enter();
    expect(version()).toBe(2);
  });

  it('adds up stolen time under an even version', () => {
    stealTime.enter();
    stealTime.addSteal(1500);
    stealTime.addSteal(500);
    stealTime.enter();
    expect([version(), steal()]).toEqual([4, 2000n]);
  });

  it('a vCPU that waits for a host CPU is marked preempted until it runs', () => {
    stealTime.enter();
    stealTime.preempt();
    expect(preempted()).toBe(1);
    stealTime.enter();
    expect(preempted()).toBe(0);
  });

  it('is not written while disabled', () => {
    stealTime.writeMsr(RECORD, 0);
    stealTime.preempt();
    stealTime.addSteal(5);
    stealTime.enter();
    expect([version(), preempted(), steal()]).toEqual([0, 0, 0n]);
  });

  it('is gone after a reset', () => {
    stealTime.reset();
    stealTime.preempt();
    stealTime.enter();
    expect([version(), preempted(), stealTime.readMsr()]).toEqual([0, 0, { low: 0, high: 0 }]);
  });
});

describe('PV TLB flush', () => {
  it('the entry flushes if another vCPU asked for it while this one was preempted', () => {
    stealTime.enter();
    stealTime.preempt();
    memory.view.setUint8(at + 16, preempted() | 2);
    stealTime.enter();
    expect([flushes, preempted(), traced]).toEqual([1, 0, [false, true]]);
    stealTime.enter();
    expect(flushes).toBe(1);
  });

  it('does not flush when nobody asked', () => {
    stealTime.preempt();
    stealTime.enter();
    expect(flushes).toBe(0);
  });

  it('does not look at the flag where the feature is not offered', () => {
    const plain = new StealTime(memory, host, false);
    plain.writeMsr(RECORD | 1, 0);
    memory.view.setUint8(at + 16, 3);
    plain.enter();
    expect([flushes, preempted(), traced]).toEqual([0, 0, []]);
  });
});
