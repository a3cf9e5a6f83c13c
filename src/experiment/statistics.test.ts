import { describe, expect, it } from 'vitest';
import { formatDifference, relativeDifference } from './statistics.ts';

/** Normal deviates, the same each time: Box and Muller over a linear congruential generator. */
function normal(seed: number): () => number {
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

describe('relativeDifference', () => {
  it('estimates the ratio of the sums', () => {
    expect(relativeDifference([100, 300], [50, 250]).estimate).toBeCloseTo(-0.25, 12);
  });

  it('has no interval below six pairs, but their range', () => {
    const result = relativeDifference([100, 100, 100], [90, 80, 95]);
    expect(result).toMatchObject({ interval: undefined, p: undefined, n: 3 });
    expect(result.range[0]).toBeCloseTo(-0.2, 12);
    expect(result.range[1]).toBeCloseTo(-0.05, 12);
  });

  it('gives six pairs that all agree p = 2/64, and the range of their subsets', () => {
    const { p, interval } = relativeDifference([100, 100, 100, 100, 100, 100], [90, 91, 92, 93, 94, 95]);
    expect(p).toBe(2 / 64);
    expect(interval?.[0]).toBeCloseTo(-0.1, 12);
    expect(interval?.[1]).toBeCloseTo(-0.05, 12);
  });

  it('finds nothing where nothing differs', () => {
    const same = [5, 6, 7, 8, 9, 10];
    expect(relativeDifference(same, same)).toMatchObject({ estimate: 0, p: 1, interval: [0, 0] });
  });

  it('finds nothing where differences cancel', () => {
    const { p, interval } = relativeDifference([100, 100, 100, 100, 100, 100], [90, 110, 95, 105, 99, 101]);
    expect(p).toBeGreaterThan(0.9);
    expect(interval?.[0]).toBeLessThan(0);
    expect(interval?.[1]).toBeGreaterThan(0);
  });

  it.each([8, 16])('covers the true difference 95 times in 100 with %i pairs', (n) => {
    const random = normal(n);
    const truth = -0.02;
    let covered = 0;
    let agreeing = 0;
    const trials = n > 12 ? 150 : 400;
    for (let trial = 0; trial < trials; trial++) {
      const a = Array.from({ length: n }, () => 1000 + 10 * random());
      const b = a.map((value) => value * (1 + truth) + 15 * random());
      const { interval, p } = relativeDifference(a, b);
      if (!interval || p === undefined) throw new Error('no interval');
      if (interval[0] <= truth && truth <= interval[1]) covered++;
      if (p < 0.05 === (interval[0] > 0 || interval[1] < 0)) agreeing++;
    }
    expect(covered / trials).toBeGreaterThan(0.9);
    expect(covered / trials).toBeLessThan(0.99);
    expect(agreeing / trials).toBeGreaterThan(0.98);
  });

  it('is the same each time, where subsets are drawn, too', () => {
    const a = Array.from({ length: 20 }, (_, index) => 100 + index);
    const b = a.map((value, index) => value + (index % 3));
    expect(relativeDifference(a, b)).toEqual(relativeDifference(a, b));
  });

  it('does not divide by nothing', () => {
    expect(relativeDifference([0], [0]).estimate).toBeNaN();
    expect(relativeDifference([0], [3]).estimate).toBe(Number.POSITIVE_INFINITY);
  });

  it('refuses what are no pairs', () => {
    expect(() => relativeDifference([1, 2], [1])).toThrow(RangeError);
    expect(() => relativeDifference([], [])).toThrow(RangeError);
  });
});

describe('formatDifference', () => {
  const difference = {
    estimate: -0.011,
    interval: [-0.019, -0.004],
    range: [-0.03, 0.01],
    p: 0.008,
    n: 20,
    alike: false,
  } as const;

  it('prints estimate, interval, p and n', () => {
    expect(formatDifference(difference)).toBe('−1.1% [−1.9, −0.4] p=0.008 n=20');
  });

  it('marks what is not significant', () => {
    expect(formatDifference({ ...difference, interval: [-0.03, 0.008], p: 0.21 })).toBe('~−1.1% [−3.0, +0.8] p=0.210 n=20');
  });

  it('prints the range of a few pairs, and only the value of one', () => {
    const few = { ...difference, interval: undefined, p: undefined };
    expect(formatDifference({ ...few, n: 3 })).toBe('−1.1% (−3.0…+1.0) n=3');
    expect(formatDifference({ ...few, n: 1 })).toBe('−1.1%');
  });

  it('makes up no interval where every pair is the same', () => {
    const difference = relativeDifference([8, 8, 8, 8, 8, 8], [2, 2, 2, 2, 2, 2]);
    expect(difference).toMatchObject({ estimate: -0.75, interval: undefined, p: undefined, alike: true });
    expect(formatDifference(difference)).toBe('−75.0% in each of 6');
  });

  it('has words for what came from nothing', () => {
    expect(formatDifference(relativeDifference([0], [3]))).toBe('from 0');
    expect(formatDifference(relativeDifference([0], [0]))).toBe('none');
  });
});
