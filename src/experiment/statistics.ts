/**
 * Relative differences of paired measurements, with their uncertainty. Runs of one seed are a pair, so what is resampled is
 * pairs: the ratio of sums over every subset of them (Hartigan, Using subsample values as typical values, JASA 64, 1969).
 * These ratios cut the line into 2^n pieces of equal probability, and that is at once an exact confidence interval and an
 * exact two-sided sign-flip test; no distribution is assumed but symmetry of the errors. Beyond 12 pairs, subsets are drawn
 * at random. Not for ratios of quantities that can be negative.
 */

/** Relative difference of b against a: −0.5 means that b is half of a. */
export interface RelativeDifference {
  /** Of the sums: b / a − 1. NaN where both are 0, Infinity where only a is. */
  estimate: number;
  /** 95 % confidence interval; undefined below 6 pairs, which cannot bear one, and where there is no variation to take one from. */
  interval: readonly [low: number, high: number] | undefined;
  /** Lowest and highest difference of a single pair. */
  range: readonly [low: number, high: number];
  /** Probability of a difference at least as far from 0 if there were none; undefined where there is no interval. */
  p: number | undefined;
  /** Pairs. */
  n: number;
  /** All pairs are the same two values: what was repeated is no sample, and the difference is what it is. */
  alike: boolean;
}

export const MINIMUM_PAIRS = 6;
const EXACT_PAIRS = 12;
const RANDOM_SUBSETS = 2 ** EXACT_PAIRS - 1;
const TAIL = 0.025;

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** b against a, pair by pair. Throws where they are not pairs. */
export function relativeDifference(a: readonly number[], b: readonly number[]): RelativeDifference {
  const n = a.length;
  if (n === 0 || b.length !== n) throw new RangeError(`not pairs: ${a.length} and ${b.length} values`);
  const ratio = (numerator: number, denominator: number) => numerator / denominator - 1;
  const singles = a.map((value, index) => ratio(b[index], value));
  const result: RelativeDifference = {
    estimate: ratio(mean(b), mean(a)),
    interval: undefined,
    range: [Math.min(...singles), Math.max(...singles)],
    p: undefined,
    n,
    alike: a.every((value) => value === a[0]) && b.every((value) => value === b[0]),
  };
  if (n < MINIMUM_PAIRS || result.alike || !Number.isFinite(result.estimate)) return result;
  const typical = subsets(n).map((members) => {
    let numerator = 0;
    let denominator = 0;
    for (let index = 0; index < n; index++) {
      if (!members[index]) continue;
      numerator += b[index];
      denominator += a[index];
    }
    return denominator === 0 && numerator === 0 ? 0 : ratio(numerator, denominator);
  });
  typical.sort((left, right) => left - right);
  const pieces = typical.length + 1;
  const cut = Math.floor(TAIL * pieces);
  const below = typical.filter((value) => value <= 0).length;
  const above = typical.filter((value) => value >= 0).length;
  const p = Math.min(1, (2 * (Math.min(below, above) + 1)) / pieces);
  return { ...result, interval: [typical[cut - 1], typical[pieces - 1 - cut]], p };
}

/** All subsets of n pairs but the empty one, or as many random ones as 12 pairs have. */
function subsets(n: number): boolean[][] {
  const members = (bits: (index: number) => boolean) => Array.from({ length: n }, (_, index) => bits(index));
  if (n <= EXACT_PAIRS) {
    return Array.from({ length: 2 ** n - 1 }, (_, subset) => members((index) => ((subset + 1) & (1 << index)) !== 0));
  }
  const random = xorshift(n);
  const draw = (): boolean[] => {
    const drawn = members(() => random() >= 0.5);
    return drawn.includes(true) ? drawn : draw();
  };
  return Array.from({ length: RANDOM_SUBSETS }, draw);
}

/** A small generator of numbers from 0 to 1, so that a report is the same each time. Marsaglia, Xorshift RNGs, 2003. */
function xorshift(seed: number): () => number {
  let state = (seed * 0x9e37_79b9) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

const percent = (difference: number): string => {
  const text = Math.abs(difference * 100).toFixed(1);
  const sign = text === '0.0' ? '' : difference < 0 ? '−' : '+';
  return sign + text;
};

/**
 * `−1.1% [−1.9, −0.4] p=0.008 n=20`; `~` in front where it is not significant (p ≥ 0.05). With 2 to 5 pairs: the range of the
 * single pairs, marked as such. With one: the difference alone. Where all pairs are alike: the difference, and that they are.
 */
export function formatDifference({ estimate, interval, range, p, n, alike }: RelativeDifference): string {
  if (Number.isNaN(estimate)) return 'none';
  if (!Number.isFinite(estimate)) return 'from 0';
  const value = `${percent(estimate)}%`;
  if (n === 1) return value;
  if (alike) return `${value} in each of ${n}`;
  if (!interval || p === undefined) return `${value} (${percent(range[0])}…${percent(range[1])}) n=${n}`;
  const pText = p < 0.001 ? 'p<0.001' : `p=${p.toFixed(3)}`;
  return `${p < 0.05 ? '' : '~'}${value} [${percent(interval[0])}, ${percent(interval[1])}] ${pText} n=${n}`;
}
