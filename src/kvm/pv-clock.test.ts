import { describe, expect, it } from 'vitest';
import { GuestMemory } from '../memory/guest-memory.ts';
import { PvClock, type PvClockSource, PvWallClock, pvClockScale } from './pv-clock.ts';

const MEMORY_BYTES = 1 << 20;
const RECORD = 0x2000;

class TestSource implements PvClockSource {
  tscHz = 2_000_000_000;
  moment = { tsc: 1000n, systemNanoseconds: 7n };
  stable = true;
  reference() {
    return this.moment;
  }
  isStable() {
    return this.stable;
  }
}

/** What a guest computes, with the arithmetic of pvclock_scale_delta. */
function guestNanoseconds(memory: GuestMemory, guestPhysical: number, tsc: bigint): bigint {
  const base = memory.linear(guestPhysical, 32);
  const shift = memory.view.getInt8(base + 28);
  const delta = tsc - memory.view.getBigUint64(base + 8, true);
  const shifted = shift < 0 ? delta >> BigInt(-shift) : delta << BigInt(shift);
  return memory.view.getBigUint64(base + 16, true) + ((shifted * BigInt(memory.view.getUint32(base + 24, true))) >> 32n);
}

const setUp = (stableOffered = true) => {
  const memory = new GuestMemory({ ramBytes: MEMORY_BYTES });
  const source = new TestSource();
  return { memory, source, clock: new PvClock(memory, source, stableOffered), at: memory.linear(RECORD, 64) };
};

describe('the scale', () => {
  it.each([
    [1_000_000_000, 0x8000_0000, 1],
    [2_000_000_000, 0x8000_0000, 0],
    [4_000_000_000, 0x8000_0000, -1],
    [500_000_000, 0x8000_0000, 2],
    [2_600_000_000, Math.floor((1e9 * 2 ** 33) / 2.6e9), -1],
  ])('of a TSC of %i Hz is %i with shift %i', (hz, multiplier, shift) => {
    expect(pvClockScale(hz)).toEqual({ multiplier, shift });
  });

  it('is normalised and right to one part in 2^31 for any frequency', () => {
    for (const hz of [
      1,
      3,
      32_768,
      1_193_182,
      999_999_999,
      1_000_000_001,
      2_893_437_000,
      4_294_967_296,
      9_999_999_967,
      2 ** 40 + 1,
    ]) {
      const { multiplier, shift } = pvClockScale(hz);
      expect(multiplier).toBeGreaterThanOrEqual(2 ** 31);
      expect(multiplier).toBeLessThan(2 ** 32);
      const nanosecondsPerTick = (multiplier / 2 ** 32) * 2 ** shift;
      expect(Math.abs(nanosecondsPerTick / (1e9 / hz) - 1)).toBeLessThan(2 ** -31);
      expect(nanosecondsPerTick).toBeLessThanOrEqual(1e9 / hz); // never runs ahead
    }
  });

  it.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])('refuses %d Hz', (hz) => {
    expect(() => pvClockScale(hz)).toThrow(RangeError);
  });
});

describe('kvmclock', () => {
  it('gives the guest the machine’s time', () => {
    const { memory, source, clock } = setUp();
    source.tscHz = 2_893_437_000;
    source.moment = { tsc: 123_456_789n, systemNanoseconds: 5_000_000_000n };
    clock.writeMsr(RECORD | 1, 0);
    const oneHour = 3600n * 2_893_437_000n;
    const error = guestNanoseconds(memory, RECORD, 123_456_789n + oneHour) - 3_605_000_000_000n;
    expect(guestNanoseconds(memory, RECORD, 123_456_789n)).toBe(5_000_000_000n);
    expect(Math.abs(Number(error))).toBeLessThan(3600e9 * 2 ** -31 + 2);
  });

  it('leaves an even version that grows by two with each update', () => {
    const { memory, clock, at } = setUp();
    clock.writeMsr(RECORD | 1, 0);
    expect(memory.view.getUint32(at, true)).toBe(2);
    clock.update();
    expect(memory.view.getUint32(at, true)).toBe(4);
  });

  it('starts from whatever the guest’s memory holds, odd or the last number there is', () => {
    const { memory, clock, at } = setUp();
    memory.view.setUint32(at, 7, true);
    clock.writeMsr(RECORD | 1, 0);
    expect(memory.view.getUint32(at, true)).toBe(10);
    memory.view.setUint32(at, 0xffff_fffe, true);
    clock.update();
    expect(memory.view.getUint32(at, true)).toBe(0);
  });

  it('the version is odd while the record is in the making', () => {
    const { memory, source, clock, at } = setUp();
    clock.writeMsr(RECORD | 1, 0);
    const seen: number[] = [];
    const setBigUint64 = memory.view.setBigUint64.bind(memory.view);
    memory.view.setBigUint64 = (...parameters) => {
      seen.push(memory.view.getUint32(at, true) & 1);
      setBigUint64(...parameters);
    };
    source.moment = { tsc: 5n, systemNanoseconds: 6n };
    clock.update();
    expect(seen).toEqual([1, 1]);
  });

  it('promises stability only where it is offered and true', () => {
    for (const [offered, stable, flags] of [
      [true, true, 1],
      [true, false, 0],
      [false, true, 0],
    ] as const) {
      const { memory, source, clock, at } = setUp(offered);
      source.stable = stable;
      clock.writeMsr(RECORD | 1, 0);
      expect(memory.view.getUint8(at + 29)).toBe(flags);
    }
  });

  it('writes nothing when disabled, outside of RAM, or across a page', () => {
    const { memory, clock } = setUp();
    memory.slice(0, MEMORY_BYTES).fill(0xaa);
    for (const [low, high] of [
      [RECORD, 0],
      [MEMORY_BYTES | 1, 0],
      [RECORD | 1, 1],
      [(RECORD + 4096 - 16) | 1, 0],
    ]) {
      clock.writeMsr(low, high);
      expect(clock.readMsr()).toEqual({ low, high });
    }
    expect(memory.slice(0, MEMORY_BYTES).every((byte) => byte === 0xaa)).toBe(true);
  });

  it('writes 32 bytes and tells the code cache', () => {
    const { memory, clock } = setUp();
    const writes: number[][] = [];
    memory.onWrite = (...write) => writes.push(write);
    memory.slice(RECORD - 8, 48).fill(0xaa);
    clock.writeMsr(RECORD | 1, 0);
    expect(writes).toEqual([[RECORD, 32]]);
    expect([...memory.slice(RECORD - 8, 8), ...memory.slice(RECORD + 32, 8)].every((byte) => byte === 0xaa)).toBe(true);
  });

  it('a reset stops it', () => {
    const { memory, clock, at } = setUp();
    clock.writeMsr(RECORD | 1, 0);
    clock.reset();
    clock.update();
    expect(memory.view.getUint32(at, true)).toBe(2);
    expect(clock.readMsr()).toEqual({ low: 0, high: 0 });
  });
});

describe('the wall clock', () => {
  it('writes the time of boot, seconds and nanoseconds, under an even version', () => {
    const memory = new GuestMemory({ ramBytes: MEMORY_BYTES });
    const wallClock = new PvWallClock(memory, 1_700_000_000_123_456_789n);
    wallClock.writeMsr(RECORD, 0);
    const base = memory.linear(RECORD, 12);
    expect([0, 4, 8].map((offset) => memory.view.getUint32(base + offset, true))).toEqual([2, 1_700_000_000, 123_456_789]);
    wallClock.writeMsr(RECORD, 0);
    expect(memory.view.getUint32(base, true)).toBe(4);
    expect(wallClock.readMsr()).toEqual({ low: RECORD, high: 0 });
  });

  it('address 0, or one without RAM, gets nothing', () => {
    const memory = new GuestMemory({ ramBytes: MEMORY_BYTES });
    const wallClock = new PvWallClock(memory, 1n);
    wallClock.writeMsr(0, 0);
    wallClock.writeMsr(MEMORY_BYTES - 4, 0);
    expect(memory.slice(0, 12).every((byte) => byte === 0)).toBe(true);
  });
});
