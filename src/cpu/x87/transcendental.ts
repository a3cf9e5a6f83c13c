/**
 * The x87's transcendental functions, in fixed point on BigInt with at least 60 bits more than the result has.
 * Source: SDM 1 8.3.7 and the instructions' tables of special operands in SDM 2; the results are rounded
 * correctly from these values, which hardware promises within one unit in the last place only.
 */

import {
  BIAS,
  classify,
  DENORMAL,
  DENORMALIZED,
  type Float80,
  INFINITE,
  INFINITE_EXPONENT,
  INTEGER_BIT,
  PRECISION,
  QUIET_NAN,
  SIGN,
  ZERO,
  ZERO_DIVIDE,
} from './float80.ts';

/** A non-zero number, significand * 2^exponent; the significand may be negative. */
interface Real {
  significand: bigint;
  exponent: number;
}

/** Fraction bits of the fixed-point constants, and of work on operands near 1. */
const FRACTION = 256;
const ONE = 1n << BigInt(FRACTION);

/** Sum of ratio^(2k+1) * sign^k / (2k+1): atanh for sign 1, atan for -1. */
function arcSeries(ratio: bigint, fraction: bigint, sign: bigint): bigint {
  const square = (sign * ratio * ratio) >> fraction;
  let power = ratio;
  let sum = ratio;
  for (let divisor = 3n; ; divisor += 2n) {
    power = (power * square) >> fraction;
    const term = power / divisor;
    if (term === 0n) return sum;
    sum += term;
  }
}

/** Arctangent of 1/n. */
function arctangentOfInverse(n: bigint): bigint {
  return arcSeries(ONE / n, BigInt(FRACTION), -1n);
}

const LN2 = 2n * arcSeries(ONE / 3n, BigInt(FRACTION), 1n);
const LOG2_E = (ONE << BigInt(FRACTION)) / LN2;
/** Machin's formula. */
const PI = 4n * (4n * arctangentOfInverse(5n) - arctangentOfInverse(239n));

/** Trigonometric functions reduce by a pi of 66 fraction bits (SDM 1 8.3.8), with what that means for large operands. */
const REDUCTION_PI = 0xc90f_daa2_2168_c234_cn << BigInt(FRACTION - 66);

function bitLength(value: bigint): number {
  const hex = value.toString(16);
  return (hex.length - 1) * 4 + 32 - Math.clz32(Number.parseInt(hex[0], 16));
}

function absolute(value: bigint): bigint {
  return value < 0n ? -value : value;
}

function shift(value: bigint, left: number): bigint {
  return left >= 0 ? value << BigInt(left) : value >> BigInt(-left);
}

/** The magnitude of a finite, non-zero operand as (64-bit significand) * 2^exponent. */
function magnitudeOf(low: number, high: number, signExponent: number): Real {
  const significand = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
  return { significand, exponent: (signExponent & INFINITE_EXPONENT || 1) - BIAS - 63 };
}

/** Hands a result to the unit for rounding. All are reported as inexact, as the processor does. */
function finish(unit: Float80, sign: number, value: bigint, exponent: number): void {
  // 96 bits: the significand and the 32 below it, of which the lowest is sticky.
  const excess = bitLength(value) - 96;
  const top = shift(value, -excess);
  const high = Number(BigInt.asIntN(32, top >> 64n));
  const low = Number(BigInt.asIntN(32, top >> 32n));
  const extra = Number(BigInt.asIntN(32, top)) | 1;
  unit.finish(sign, exponent + excess + 95 + BIAS, high, low, extra, 64);
}

/** e^t - 1 for |t| < 1. */
function exponentialMinusOne(t: bigint, fraction: bigint): bigint {
  let term = t;
  let sum = t;
  for (let n = 2n; ; n++) {
    term = ((term * t) >> fraction) / n;
    if (term === 0n || term === -1n) return sum;
    sum += term;
  }
}

/** Below this exponent the first terms of a series are the result to more bits than are kept. */
const TINY = -80;

/** F2XM1: 2^x - 1 for x from -1 to 1. */
export function exponential(unit: Float80, low: number, high: number, signExponent: number): void {
  const kind = classify(low, high, signExponent);
  const sign = signExponent & SIGN;
  if (kind >= QUIET_NAN) return unit.propagate(low, high, signExponent);
  if (kind === ZERO) return unit.set(low, high, signExponent);
  if (kind === INFINITE) {
    if (sign === 0) return unit.set(low, high, signExponent);
    return unit.set(0, INTEGER_BIT, SIGN | BIAS);
  }
  if (kind === DENORMALIZED) unit.flags |= DENORMAL;
  const x = magnitudeOf(low, high, signExponent);
  const size = bitLength(x.significand) + x.exponent;
  if (size < TINY) return finish(unit, sign, x.significand * LN2, x.exponent - FRACTION);
  if (size > 0) {
    // Only -1 and 1 are left in the domain; outside of it the operand stays.
    unit.flags |= PRECISION;
    if (x.significand !== 1n << 63n || x.exponent !== -63) return unit.set(low, high, signExponent);
    return unit.set(0, INTEGER_BIT, sign === 0 ? BIAS : SIGN | (BIAS - 1));
  }
  const fraction = WORKING - size;
  const t = shift(x.significand * LN2, x.exponent - FRACTION + fraction);
  const result = exponentialMinusOne(sign === 0 ? t : -t, BigInt(fraction));
  finish(unit, sign, absolute(result), -fraction);
}

/** Bits that a series is worked to, counted from its argument's highest. */
const WORKING = 116;

/** `arcSeries` of a ratio with FRACTION bits, worked to fewer where that loses nothing that is kept. */
function shortArcSeries(ratio: bigint, sign: bigint): bigint {
  const fraction = Math.min(FRACTION, FRACTION + WORKING - bitLength(absolute(ratio)));
  return shift(arcSeries(shift(ratio, fraction - FRACTION), BigInt(fraction), sign), FRACTION - fraction);
}

/** Logarithm to base 2 of a positive number as fixed point with FRACTION bits; exact for powers of two. */
function logarithm(x: Real): bigint {
  let bits = bitLength(x.significand);
  let scaled = shift(x.significand, FRACTION + 1 - bits);
  // Between 3/4 and 3/2, so that numbers near 1 lose nothing to a whole part.
  if (scaled >= ONE + (ONE >> 1n)) {
    scaled >>= 1n;
    bits++;
  }
  const power = BigInt(bits - 1 + x.exponent);
  const ratio = ((scaled - ONE) << BigInt(FRACTION)) / (scaled + ONE);
  return (power << BigInt(FRACTION)) + ((2n * shortArcSeries(ratio, 1n) * LOG2_E) >> BigInt(FRACTION));
}

/** FYL2X: y * log2(x). */
export function timesLogarithm(
  unit: Float80,
  xLow: number,
  xHigh: number,
  xSe: number,
  yLow: number,
  yHigh: number,
  ySe: number,
): void {
  const kindX = classify(xLow, xHigh, xSe);
  const kindY = classify(yLow, yHigh, ySe);
  if (kindX >= QUIET_NAN || kindY >= QUIET_NAN) return unit.propagateOf(xLow, xHigh, xSe, yLow, yHigh, ySe);
  const sign = ySe & SIGN;
  if (kindX === ZERO) {
    if (kindY === ZERO) return unit.setInvalid();
    if (kindY !== INFINITE) unit.flags |= ZERO_DIVIDE;
    return unit.setInfinity(sign ^ SIGN);
  }
  if ((xSe & SIGN) !== 0) return unit.setInvalid();
  const exponent = (xSe & INFINITE_EXPONENT) - BIAS;
  const one = exponent === 0 && xHigh === INTEGER_BIT && xLow === 0;
  if (kindX === INFINITE && kindY === ZERO) return unit.setInvalid();
  if (one && kindY === INFINITE) return unit.setInvalid();
  if (kindX === DENORMALIZED || kindY === DENORMALIZED) unit.flags |= DENORMAL;
  const below = exponent < 0 ? SIGN : 0;
  if (kindX === INFINITE || kindY === INFINITE) return unit.setInfinity(sign ^ below);
  if (kindY === ZERO || one) return unit.setZero(sign ^ below);
  const x = magnitudeOf(xLow, xHigh, xSe);
  const y = magnitudeOf(yLow, yHigh, ySe);
  const result = logarithm(x) * y.significand;
  finish(unit, result < 0n ? sign ^ SIGN : sign, absolute(result), y.exponent - FRACTION);
}

/** FYL2XP1: y * log2(1 + x). */
export function timesLogarithmPlusOne(
  unit: Float80,
  xLow: number,
  xHigh: number,
  xSe: number,
  yLow: number,
  yHigh: number,
  ySe: number,
): void {
  const kindX = classify(xLow, xHigh, xSe);
  const kindY = classify(yLow, yHigh, ySe);
  if (kindX >= QUIET_NAN || kindY >= QUIET_NAN) return unit.propagateOf(xLow, xHigh, xSe, yLow, yHigh, ySe);
  const signX = xSe & SIGN;
  const sign = signX ^ (ySe & SIGN);
  if (kindX === INFINITE && (signX !== 0 || kindY === ZERO)) return unit.setInvalid();
  if (kindX === ZERO && kindY === INFINITE) return unit.setInvalid();
  if (kindX === DENORMALIZED || kindY === DENORMALIZED) unit.flags |= DENORMAL;
  if (kindX === INFINITE || kindY === INFINITE) return unit.setInfinity(sign);
  if (kindX === ZERO || kindY === ZERO) return unit.setZero(sign);
  const x = magnitudeOf(xLow, xHigh, xSe);
  const y = magnitudeOf(yLow, yHigh, ySe);
  const size = bitLength(x.significand) + x.exponent;
  if (size < TINY) {
    return finish(unit, sign, x.significand * y.significand * LOG2_E, x.exponent + y.exponent - FRACTION);
  }
  if (size > -2) {
    // Where 1 + x has no bits to lose, which is mostly outside of the domain. Where it has no logarithm, x stays.
    if (signX !== 0 && size > 0) {
      unit.flags |= PRECISION;
      return unit.set(xLow, xHigh, xSe);
    }
    const scaled = size > 200 ? x.significand : shift(x.significand, x.exponent + FRACTION);
    const sum = size > 200 ? x : { significand: signX === 0 ? ONE + scaled : ONE - scaled, exponent: -FRACTION };
    return finish(unit, sign, absolute(logarithm(sum)) * y.significand, y.exponent - FRACTION);
  }
  const scaled = signX === 0 ? shift(x.significand, x.exponent + FRACTION) : -shift(x.significand, x.exponent + FRACTION);
  const ratio = (scaled << BigInt(FRACTION)) / (2n * ONE + scaled);
  const result = ((2n * shortArcSeries(ratio, 1n) * LOG2_E) >> BigInt(FRACTION)) * y.significand;
  finish(unit, sign, absolute(result), y.exponent - FRACTION);
}

/** Arctangent of a ratio between 0 and 1, with FRACTION bits: one division brings it below 1/16 of a tabled one. */
function arctangent(ratio: bigint): bigint {
  const step = Number((ratio * 8n + (ONE >> 1n)) >> BigInt(FRACTION));
  if (step === 0) return shortArcSeries(ratio, -1n);
  const base = (ONE * BigInt(step)) >> 3n;
  const rest = ((ratio - base) << BigInt(FRACTION)) / (ONE + ((ratio * base) >> BigInt(FRACTION)));
  return arctangentOfEighths(step) + shortArcSeries(rest, -1n);
}

const eighths: bigint[] = [];

function arctangentOfEighths(step: number): bigint {
  if (step === 8) return PI >> 2n;
  eighths[step] ??= arcSeries((ONE * BigInt(step)) >> 3n, BigInt(FRACTION), -1n);
  return eighths[step];
}

/** FPATAN: the angle of the point (x, y), from -pi to pi. */
export function arctangentOf(
  unit: Float80,
  xLow: number,
  xHigh: number,
  xSe: number,
  yLow: number,
  yHigh: number,
  ySe: number,
): void {
  const kindX = classify(xLow, xHigh, xSe);
  const kindY = classify(yLow, yHigh, ySe);
  if (kindX >= QUIET_NAN || kindY >= QUIET_NAN) return unit.propagateOf(xLow, xHigh, xSe, yLow, yHigh, ySe);
  const sign = ySe & SIGN;
  const left = (xSe & SIGN) !== 0;
  if (kindX === DENORMALIZED || kindY === DENORMALIZED) unit.flags |= DENORMAL;
  const angle = (eighthsOfTurn: bigint) => finish(unit, sign, PI * eighthsOfTurn, -FRACTION - 2);
  if (kindY === INFINITE) return angle(kindX === INFINITE ? (left ? 3n : 1n) : 2n);
  if (kindY === ZERO || kindX === INFINITE) return left ? angle(4n) : unit.setZero(sign);
  if (kindX === ZERO) return angle(2n);
  const x = magnitudeOf(xLow, xHigh, xSe);
  const y = magnitudeOf(yLow, yHigh, ySe);
  const sizes = bitLength(y.significand) + y.exponent - bitLength(x.significand) - x.exponent;
  if (sizes < TINY && !left) {
    // The angle is the ratio, less a part that is too small to see; it may be too small for a fixed point.
    const ratio = (y.significand << BigInt(FRACTION)) / x.significand;
    const exact = ratio * x.significand === y.significand << BigInt(FRACTION);
    return finish(unit, sign, exact ? (ratio << 64n) - 1n : ratio << 64n, y.exponent - x.exponent - FRACTION - 64);
  }
  const steep = sizes > 0;
  const [small, large] = steep ? [x, y] : [y, x];
  const ratio = shift(small.significand << BigInt(FRACTION), small.exponent - large.exponent) / large.significand;
  if (ratio > ONE) {
    // Sizes are equal and the operand taken for the smaller one is not.
    const inverse = (ONE << BigInt(FRACTION)) / ratio;
    const result = (PI >> 1n) - arctangent(inverse);
    return finish(unit, sign, left ? PI - result : result, -FRACTION);
  }
  let result = arctangent(ratio);
  if (steep) result = (PI >> 1n) - result;
  finish(unit, sign, left ? PI - result : result, -FRACTION);
}

/** Sine of an angle between 0 and pi/4 (times `1 << fraction`), and its cosine. */
function sineAndCosine(angle: bigint, fraction: bigint): [sine: bigint, cosine: bigint] {
  const one = 1n << fraction;
  let term = one;
  let sine = 0n;
  let cosine = one;
  for (let n = 1n; ; n++) {
    term = ((term * angle) >> fraction) / n;
    if (term === 0n) return [sine, cosine];
    if ((n & 1n) !== 0n) sine += (n & 2n) === 0n ? term : -term;
    else cosine += (n & 2n) === 0n ? term : -term;
  }
}

/** Fixed-point parts of sine, cosine and tangent: the reduced angle's, and where on the circle it lies. */
interface Circular {
  sine: bigint;
  cosine: bigint;
  fraction: number;
  /** Quarter turns taken off, modulo 4. */
  quadrant: number;
  negative: boolean;
}

/** Operands of trigonometric functions must be below 2^63; others set C2 and stay (SDM 1 8.3.8). */
export function isReducible(signExponent: number): boolean {
  return (signExponent & INFINITE_EXPONENT) < BIAS + 63;
}

function reduce(low: number, high: number, signExponent: number): Circular {
  const x = magnitudeOf(low, high, signExponent);
  let angle = shift(x.significand, x.exponent + FRACTION);
  const half = REDUCTION_PI >> 1n;
  let quadrant = Number(((angle + (half >> 1n)) / half) & 3n);
  angle -= ((angle + (half >> 1n)) / half) * half;
  let negative = (signExponent & SIGN) !== 0;
  if (angle < 0n) {
    // Mirrored, so that the series sees a positive angle.
    angle = -angle;
    quadrant = -quadrant & 3;
    negative = !negative;
  }
  const fraction = Math.min(FRACTION, FRACTION - bitLength(angle) + WORKING);
  const [sine, cosine] = sineAndCosine(shift(angle, fraction - FRACTION), BigInt(fraction));
  return { sine, cosine, fraction, quadrant, negative };
}

/** FSIN, FCOS and FPTAN of an operand that `isReducible` accepts, or a NaN, infinity or unsupported one. */
export function circular(
  unit: Float80,
  which: 'sine' | 'cosine' | 'tangent',
  low: number,
  high: number,
  signExponent: number,
): void {
  const kind = classify(low, high, signExponent);
  if (kind >= QUIET_NAN) return unit.propagate(low, high, signExponent);
  if (kind === INFINITE) return unit.setInvalid();
  if (kind === ZERO) return which === 'cosine' ? unit.set(0, INTEGER_BIT, BIAS) : unit.set(low, high, signExponent);
  if (kind === DENORMALIZED) unit.flags |= DENORMAL;
  const sign = signExponent & SIGN;
  const x = magnitudeOf(low, high, signExponent);
  if (bitLength(x.significand) + x.exponent < TINY) {
    // sin x is just below x, tan x just above, cos x just below 1.
    if (which === 'cosine') return finish(unit, 0, (1n << 128n) - 1n, -128);
    const nudge = which === 'sine' ? -1n : 1n;
    return finish(unit, sign, (x.significand << 64n) + nudge, x.exponent - 64);
  }
  const c = reduce(low, high, signExponent);
  const swapped = (c.quadrant & 1) !== 0;
  if (which === 'tangent') {
    const [over, under] = swapped ? [c.cosine, c.sine] : [c.sine, c.cosine];
    return finish(unit, c.negative !== swapped ? SIGN : 0, (over << BigInt(c.fraction)) / under, -c.fraction);
  }
  const cosine = which === 'cosine';
  const value = swapped !== cosine ? c.cosine : c.sine;
  const negative = cosine ? ((c.quadrant + 1) & 2) !== 0 : c.negative !== ((c.quadrant & 2) !== 0);
  finish(unit, negative ? SIGN : 0, absolute(value), -c.fraction);
}
