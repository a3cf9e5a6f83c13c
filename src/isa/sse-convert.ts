/**
 * Conversions between integers and floating point, and between precisions. SDM 2A; rounding by MXCSR.RC (SDM 1, 4.8.4).
 * What does not fit gives the indefinite integer, 0x80000000 or 0x8000000000000000. MXCSR as in sse-float.ts: other than to
 * nearest they round in TypeScript, and the exception flags are kept only there.
 */

import { apply, type Expression, f64, i32, i64, select } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import type { Semantics } from './semantics.ts';
import { Concern, controlled, DOUBLE, type Format, scalar, SINGLE } from './sse-float.ts';
import { gather, halves, lanesOf, LOW_64, low64, merge, splat, ZERO } from './vector.ts';

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
  for (const [mnemonic, opcode, truncates] of [
    [`CVTT${name}2SI`, '2C', true],
    [`CVT${name}2SI`, '2D', false],
  ] as const) {
    instruction(mnemonic, `${prefix} 0F ${opcode} Gy W${size}`, { access: 'wr', hot: truncates }, (x, destination, source) => {
      x.requireSse();
      const v = x.f.let(scalar(source, format));
      const wide = (value: Expression): Expression => x.f.let(format === SINGLE ? apply('f64.promote_f32', value) : value);
      const integral = (): Expression => (truncates ? wide(v) : x.f.let(wide(v).op('nearest')));
      const usual = (): Expression => splat(64, toInteger(integral(), destination.bits));
      const long = destination.bits === 64;
      const operation = truncates ? (long ? 'truncate64' : 'truncate32') : long ? 'toInteger64' : 'toInteger32';
      const concern = truncates ? Concern.nothing : Concern.rounding;
      destination.write(low64(controlled(x, concern, [operation, format, 1], [v, v], 'v128', usual)));
    });
  }
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
    const usual = (): Expression => convert(truncates ? v : x.f.let(apply(`${format.shape}.nearest`, v)));
    const lanes = mmx ? 2 : 128 / format.bits;
    const concern = truncates ? Concern.nothing : Concern.rounding;
    const result = controlled(x, concern, [truncates ? 'truncate32' : 'toInteger32', format, lanes], [v, v], 'v128', usual);
    if (mmx) destination.write(low64(result));
    else destination.writeVector(result);
  });
}

// --- To floating point --------------------------------------------------------------------------------

/** Doublewords, of which `lanes` count, as singles. */
const integersToSingles = (x: Semantics, v: Expression, lanes: number): Expression =>
  controlled(x, Concern.rounding, ['fromInteger32', SINGLE, lanes], [v, v], 'v128', () => apply('f32x4.convert_i32x4_s', v));

instruction('CVTDQ2PS', 'NP 0F 5B Vps Wdq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  destination.writeVector(integersToSingles(x, source.vector(), 4));
});
instruction('CVTDQ2PD', 'F3 0F E6 Vpd Wq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  destination.writeVector(apply('f64x2.convert_low_i32x4_s', source.vector()));
});
instruction('CVTPD2PS', '66 0F 5A Vps Wpd', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  const v = source.vector();
  const usual = (): Expression => apply('f32x4.demote_f64x2_zero', v);
  destination.writeVector(controlled(x, Concern.all, ['toSingle', DOUBLE, 2], [v, v], 'v128', usual));
});
instruction('CVTPS2PD', 'NP 0F 5A Vpd Wq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  const v = source.vector();
  const usual = (): Expression => apply('f64x2.promote_low_f32x4', v);
  destination.writeVector(controlled(x, Concern.operands, ['toDouble', SINGLE, 2], [v, v], 'v128', usual));
});
instruction('CVTPI2PS', 'NP 0F 2A Vps Qq', { access: 'mr' }, (x, destination, source) => {
  x.requireSse();
  // As CVTPI2PD; Intel's manual has it change the x87 state always, AMD's processors do not.
  if (source.kind === 'register') x.enterMmx();
  destination.writeLow(integersToSingles(x, x.f.let(splat(64, source.unsigned())), 2), 64);
});
instruction('CVTPI2PD', '66 0F 2A Vpd Qq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  // From memory it leaves the x87 state alone.
  if (source.kind === 'register') x.enterMmx();
  destination.writeVector(apply('f64x2.convert_low_i32x4_s', splat(64, source.unsigned())));
});

instruction('CVTSS2SD', 'F3 0F 5A Vsd Wss', { access: 'mr', hot: true }, (x, destination, source) => {
  x.requireSse();
  const v = x.f.let(scalar(source, SINGLE));
  const usual = (): Expression => apply('f64.promote_f32', v);
  destination.writeLow(controlled(x, Concern.operands, ['toDouble', SINGLE, 1], [v, v], 'f64', usual), 64);
});
instruction('CVTSD2SS', 'F2 0F 5A Vss Wsd', { access: 'mr', hot: true }, (x, destination, source) => {
  x.requireSse();
  const v = x.f.let(scalar(source, DOUBLE));
  const usual = (): Expression => apply('f32.demote_f64', v);
  destination.writeLow(controlled(x, Concern.all, ['toSingle', DOUBLE, 1], [v, v], 'f32', usual), 32);
});

for (const [mnemonic, encoding, format] of [
  ['CVTSI2SS', 'F3 0F 2A Vss Ey', SINGLE],
  ['CVTSI2SD', 'F2 0F 2A Vsd Ey', DOUBLE],
] as const) {
  instruction(mnemonic, encoding, { access: 'mr', hot: true }, (x, destination, source) => {
    x.requireSse();
    const value = x.f.let(source.signed());
    const usual = (): Expression => apply(`${format.type}.convert_i64_s`, value);
    // 32 bits fit a double whatever the rounding.
    if (source.bits === 32 && format === DOUBLE) return destination.writeLow(usual(), 64);
    const operand = x.f.let(halves(value, value));
    const result = controlled(x, Concern.rounding, ['fromInteger64', format, 1], [operand, operand], format.type, usual);
    destination.writeLow(result, format.bits);
  });
}
