/**
 * Conversions between integers and floating point, and between precisions. SDM 2A; rounding by MXCSR.RC (SDM 1, 4.8.4).
 * What does not fit gives the indefinite integer, 0x80000000 or 0x8000000000000000. The usual rounding mode, to nearest,
 * takes a path of its own; the others round that result again by its error. Left out: MXCSR's flags, DAZ and FTZ.
 */

import { MXCSR } from '../cpu/state.ts';
import { apply, type Expression, f64, i32, i64, select } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import type { Operand, Semantics } from './semantics.ts';
import { DOUBLE, type Format, roundingControl, roundScalar, roundVector, scalar, SINGLE } from './sse-float.ts';
import { gather, lanesOf, LOW_64, low64, merge, pick, splat, ZERO } from './vector.ts';

const rounding = (x: Semantics): Expression => roundingControl(x, x.state32(MXCSR));

// --- To integers --------------------------------------------------------------------------------------

/** A truncated f64 as an integer of `bits`, an i64. */
function toInteger(value: Expression, bits: number): Expression {
  const fits = value.op('abs').op('lt', f64(2 ** (bits - 1)));
  if (bits === 32) return select(fits, apply('i32.trunc_sat_f64_s', value), i32(-0x8000_0000)).extendU();
  return select(fits, apply('i64.trunc_sat_f64_s', value), i64(-(1n << 63n)));
}

for (const [name, prefix, size, format] of [
  ['SS', 'F3', 'ss', SINGLE],
  ['SD', 'F2', 'sd', DOUBLE],
] as const) {
  const read = (operand: Operand): Expression =>
    format === SINGLE ? apply('f64.promote_f32', scalar(operand, format)) : scalar(operand, format);
  instruction(`CVTT${name}2SI`, `${prefix} 0F 2C Gy W${size}`, { access: 'wr', hot: true }, (x, destination, source) => {
    x.requireSse();
    destination.write(toInteger(x.f.let(read(source)), destination.bits));
  });
  instruction(`CVT${name}2SI`, `${prefix} 0F 2D Gy W${size}`, { access: 'wr' }, (x, destination, source) => {
    x.requireSse();
    const value = x.f.let(read(source));
    destination.write(toInteger(roundScalar(x, value, rounding(x)), destination.bits));
  });
}

const INDEFINITE = lanesOf(32, [0x8000_0000]);

/** Four singles, truncated, as doublewords. */
const singlesToIntegers = (v: Expression): Expression =>
  merge(apply('f32x4.lt', apply('f32x4.abs', v), lanesOf(32, [0x4f00_0000])), apply('i32x4.trunc_sat_f32x4_s', v), INDEFINITE);

/** Two doubles, truncated, as doublewords in the low half; the high one is zero. */
function doublesToIntegers(v: Expression): Expression {
  const fits = apply('f64x2.lt', apply('f64x2.abs', v), lanesOf(64, [0x41e0n << 48n]));
  const lanes = gather(fits, ZERO, 32, [0, 2, 4, 4]);
  return merge(lanes, apply('i32x4.trunc_sat_f64x2_s_zero', v), INDEFINITE.and(LOW_64));
}

// biome-ignore format: a table
for (const [mnemonic, encoding, format, convert, truncates] of [
  ['CVTPS2DQ', '66 0F 5B Vdq Wps', SINGLE, singlesToIntegers, false],
  ['CVTTPS2DQ', 'F3 0F 5B Vdq Wps', SINGLE, singlesToIntegers, true],
  ['CVTPD2DQ', 'F2 0F E6 Vdq Wpd', DOUBLE, doublesToIntegers, false],
  ['CVTTPD2DQ', '66 0F E6 Vdq Wpd', DOUBLE, doublesToIntegers, true],
  ['CVTPS2PI', 'NP 0F 2D Pq Wq', SINGLE, singlesToIntegers, false],
  ['CVTTPS2PI', 'NP 0F 2C Pq Wq', SINGLE, singlesToIntegers, true],
  ['CVTPD2PI', '66 0F 2D Pq Wpd', DOUBLE, doublesToIntegers, false],
  ['CVTTPD2PI', '66 0F 2C Pq Wpd', DOUBLE, doublesToIntegers, true],
] as [string, string, Format, (v: Expression) => Expression, boolean][]) {
  instruction(mnemonic, encoding, { access: 'wr' }, (x, destination, source) => {
    x.requireSse();
    const mmx = destination.bits === 64;
    if (mmx) x.enterMmx();
    const v = source.vector();
    const result = convert(truncates ? v : roundVector(x, format, v, rounding(x)));
    if (mmx) destination.write(low64(result));
    else destination.writeVector(result);
  });
}

// --- To floating point --------------------------------------------------------------------------------

/** Masks of 64-bit lanes that say how a result to nearest relates to the exact value. */
interface RoundingError {
  /** The exact value is negative. */
  negative: Expression;
  above: Expression;
  below: Expression;
}

/**
 * What to add to the bits of a result rounded to nearest to have it rounded by `mode`, in 64-bit lanes: 1 makes a number's
 * magnitude larger, -1 smaller. The neighbour of the largest finite number is infinity, and of zero the smallest denormal.
 */
function correction(x: Semantics, mode: Expression, { negative, above, below }: RoundingError): Expression {
  const tooLarge = merge(negative, below, above);
  const tooSmall = merge(negative, above, below);
  const outward = pick(x, mode, ZERO, negative, negative.not(), ZERO);
  return pick(x, mode, ZERO, merge(outward, apply('i64x2.neg', tooSmall), tooLarge));
}

/** Two doubles as singles in the low half; the high one is zero. */
function doublesToSingles(x: Semantics, v: Expression): Expression {
  const { f } = x;
  const mode = rounding(x);
  const result = f.local('v128');
  f.set(result, apply('f32x4.demote_f64x2_zero', v));
  f.if(mode, () => {
    const back = f.let(apply('f64x2.promote_low_f32x4', f.get(result)));
    const negative = f.let(apply('i64x2.shr_s', v, i32(63)));
    const error = { negative, above: f.let(apply('f64x2.gt', back, v)), below: f.let(apply('f64x2.lt', back, v)) };
    f.set(result, apply('i32x4.add', f.get(result), gather(correction(x, mode, error), ZERO, 32, [0, 2, 4, 4])));
  });
  return f.let(f.get(result));
}

/** Four doublewords as singles. They are exact as doubles. */
function integersToSingles(x: Semantics, v: Expression): Expression {
  const { f } = x;
  const result = f.local('v128');
  f.set(result, apply('f32x4.convert_i32x4_s', v));
  f.if(rounding(x), () => {
    const low = doublesToSingles(x, f.let(apply('f64x2.convert_low_i32x4_s', v)));
    const high = doublesToSingles(x, f.let(apply('f64x2.convert_low_i32x4_s', gather(v, v, 64, [1, 1]))));
    f.set(result, gather(low, high, 64, [0, 2]));
  });
  return f.let(f.get(result));
}

instruction('CVTDQ2PS', 'NP 0F 5B Vps Wdq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  destination.writeVector(integersToSingles(x, source.vector()));
});
instruction('CVTDQ2PD', 'F3 0F E6 Vpd Wq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  destination.writeVector(apply('f64x2.convert_low_i32x4_s', source.vector()));
});
instruction('CVTPD2PS', '66 0F 5A Vps Wpd', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  destination.writeVector(doublesToSingles(x, source.vector()));
});
instruction('CVTPS2PD', 'NP 0F 5A Vpd Wq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  destination.writeVector(apply('f64x2.promote_low_f32x4', source.vector()));
});
instruction('CVTPI2PS', 'NP 0F 2A Vps Qq', { access: 'mr' }, (x, destination, source) => {
  x.requireSse();
  x.enterMmx();
  destination.writeLow(integersToSingles(x, x.f.let(splat(64, source.unsigned()))), 64);
});
instruction('CVTPI2PD', '66 0F 2A Vpd Qq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  // From memory it leaves the x87 state alone.
  if (source.kind === 'register') x.enterMmx();
  destination.writeVector(apply('f64x2.convert_low_i32x4_s', splat(64, source.unsigned())));
});

instruction('CVTSS2SD', 'F3 0F 5A Vsd Wss', { access: 'mr', hot: true }, (x, destination, source) => {
  x.requireSse();
  destination.writeLow(apply('f64.promote_f32', scalar(source, SINGLE)), 64);
});
instruction('CVTSD2SS', 'F2 0F 5A Vss Wsd', { access: 'mr', hot: true }, (x, destination, source) => {
  x.requireSse();
  const { f } = x;
  const value = f.let(scalar(source, DOUBLE));
  const result = f.local('f32');
  f.set(result, apply('f32.demote_f64', value));
  f.if(rounding(x), () => f.set(result, doublesToSingles(x, f.let(apply('f64x2.splat', value))).lane('f32x4.extract_lane', 0)));
  destination.writeLow(f.get(result), 32);
});

/** An i64 of 32 or 64 bits, sign-extended, to either precision. */
function integerToScalar(x: Semantics, value: Expression, format: Format): Expression {
  const { f } = x;
  const { type } = format;
  const result = f.local(type);
  f.set(result, apply(`${type}.convert_i64_s`, value));
  const mode = rounding(x);
  f.if(mode, () => {
    // The error is exact: of two 32-bit halves the high one minus the result, plus the low one.
    const high = apply('f64.convert_i64_s', value.and(-0x1_0000_0000n));
    const low = apply('f64.convert_i64_u', value.and(0xffff_ffffn));
    const back = type === 'f32' ? apply('f64.promote_f32', f.get(result)) : f.get(result);
    const error = f.let(apply('f64x2.splat', high.sub(back).op('add', low)));
    const masks = {
      negative: f.let(splat(64, value.shrS(63))),
      above: f.let(apply('f64x2.lt', error, ZERO)),
      below: f.let(apply('f64x2.gt', error, ZERO)),
    };
    const fix = correction(x, mode, masks);
    const bits = apply(`${format.shape}.splat`, f.get(result));
    f.set(result, apply(`${format.integers}.add`, bits, fix).lane(`${format.shape}.extract_lane`, 0));
  });
  return f.get(result);
}
for (const [mnemonic, encoding, format] of [
  ['CVTSI2SS', 'F3 0F 2A Vss Ey', SINGLE],
  ['CVTSI2SD', 'F2 0F 2A Vsd Ey', DOUBLE],
] as const) {
  instruction(mnemonic, encoding, { access: 'mr', hot: true }, (x, destination, source) => {
    x.requireSse();
    const value = source.signed();
    // 32 bits fit a double whatever the rounding.
    const exact = source.bits === 32 && format === DOUBLE;
    destination.writeLow(exact ? apply('f64.convert_i64_s', value) : integerToScalar(x, value, format), format.bits);
  });
}
