import { expect, it } from 'vitest';
import { TickRate } from './tick-rate.ts';

it.each([1_193_182, 3_579_545, 14_318_180, 32_768, 100_000_000])('a tick of %i Hz begins at its own time, not before', (hz) => {
  const rate = new TickRate(hz);
  for (const tick of [0, 1, 2, 3, 7, 1000, 65_536, 999_999_937, 2 ** 32 + 1, 2 ** 40 + 12_345]) {
    const at = rate.nanosecondsAt(tick);
    expect(rate.ticksAt(at)).toBe(tick);
    if (tick > 0) expect(rate.ticksAt(at - 0.5e9 / hz)).toBe(tick - 1);
  }
});

it('counts a second exactly, an hour later too', () => {
  const rate = new TickRate(1_193_182);
  expect(rate.ticksAt(1e9)).toBe(1_193_182);
  expect(rate.ticksAt(3600e9)).toBe(3600 * 1_193_182);
});

it('leaves Infinity alone', () => {
  expect(new TickRate(32_768).nanosecondsAt(Number.POSITIVE_INFINITY)).toBe(Number.POSITIVE_INFINITY);
});
