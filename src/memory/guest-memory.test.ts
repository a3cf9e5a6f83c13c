import { describe, expect, it } from 'vitest';
import { FOUR_GIB, GuestMemory, MAX_RAM_BYTES, MMIO_HOLE_BASE, PAGE_SIZE } from './guest-memory.ts';

const MIB = 2 ** 20;

describe('RAM', () => {
  it('follows the arena, which is rounded up to WebAssembly’s pages', () => {
    const memory = new GuestMemory({ ramBytes: MIB, arenaBytes: 70_000 });
    expect(memory.ramBase).toBe(2 * 65536);
    expect(memory.memory.buffer.byteLength).toBe(memory.ramBase + MIB);
    expect(new GuestMemory({ ramBytes: 65536 }).ramBase).toBe(65536);
  });

  it('is one range from 0 while it fits below the hole', () => {
    expect(new GuestMemory({ ramBytes: 3 * MIB }).ranges).toEqual([{ guestPhysical: 0, bytes: 3 * MIB }]);
    expect(new GuestMemory({ ramBytes: MMIO_HOLE_BASE }).ranges).toHaveLength(1);
  });

  it('goes on at 4 GiB with what does not', () => {
    const memory = new GuestMemory({ ramBytes: MMIO_HOLE_BASE + MIB });
    expect(memory.ranges[1]).toEqual({ guestPhysical: FOUR_GIB, bytes: MIB });
    expect(memory.linear(FOUR_GIB)).toBe(memory.ramBase + MMIO_HOLE_BASE);
    expect(memory.linear(MMIO_HOLE_BASE - 1)).toBe(memory.linear(FOUR_GIB) - 1);
  });

  it.each([0, -65536, 65535, 65536 + 4096, MAX_RAM_BYTES + 65536, Number.NaN])('of %d bytes is refused', (ramBytes) => {
    expect(() => new GuestMemory({ ramBytes })).toThrow(/multiple of 64 KiB up to 3 GiB/);
  });

  it('is zero at first', () => {
    expect(new GuestMemory({ ramBytes: 65536 }).slice(0, 65536).every((byte) => byte === 0)).toBe(true);
  });
});

describe('linear', () => {
  const memory = new GuestMemory({ ramBytes: MMIO_HOLE_BASE + MIB });

  it.each([
    ['the last byte below the hole', MMIO_HOLE_BASE - 1, 1, true],
    ['a range into the hole', MMIO_HOLE_BASE - 1, 2, false],
    ['the hole', MMIO_HOLE_BASE, 1, false],
    ['the byte below 4 GiB', FOUR_GIB - 1, 1, false],
    ['a range out of the hole', FOUR_GIB - 1, 2, false],
    ['all of high RAM', FOUR_GIB, MIB, true],
    ['a range beyond its end', FOUR_GIB + MIB - 1, 2, false],
    ['an address below 0', -1, 1, false],
    ['an address far beyond 2^53', 2 ** 60, 1, false],
    ['a range as long as everything', 0, MMIO_HOLE_BASE + MIB, false],
  ])('%s', (_name, guestPhysical, bytes, isRam) => {
    expect(memory.linear(guestPhysical, bytes) >= 0).toBe(isRam);
    if (!isRam) expect(() => memory.slice(guestPhysical, bytes)).toThrow(/not RAM: \d+ bytes at 0x/);
  });
});

describe('write', () => {
  const memory = new GuestMemory({ ramBytes: MIB });

  it('copies, and tells who decoded code from there', () => {
    const told: [number, number][] = [];
    memory.onWrite = (guestPhysical, bytes) => {
      // What is told is done already.
      expect(memory.bytes[memory.linear(guestPhysical)]).toBe(1);
      told.push([guestPhysical, bytes]);
    };
    memory.write(PAGE_SIZE - 1, Uint8Array.of(1, 2, 3));
    expect([...memory.slice(PAGE_SIZE - 1, 3)]).toEqual([1, 2, 3]);
    expect(told).toEqual([[PAGE_SIZE - 1, 3]]);
  });

  it('changes nothing where it does not fit', () => {
    memory.onWrite = () => expect.fail('nothing was written');
    expect(() => memory.write(MIB - 2, Uint8Array.of(9, 9, 9))).toThrow(RangeError);
    expect([...memory.slice(MIB - 2, 2)]).toEqual([0, 0]);
  });

  it('shows in a slice that was taken before: slices are views', () => {
    memory.onWrite = () => {};
    const view = memory.slice(0x5000, 4);
    memory.write(0x5001, Uint8Array.of(7));
    expect([...view]).toEqual([0, 7, 0, 0]);
  });
});
