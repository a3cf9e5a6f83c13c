/**
 * Conversions between integers and floating point, and between precisions. SDM 2A; rounding by MXCSR.RC (SDM 1, 4.8.4).
 * What does not fit gives the indefinite integer, 0x80000000 or 0x8000000000000000. MXCSR as in sse-float.ts.
 */

import { apply, type Expression, f64, i64 } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import type { Semantics } from './semantics.ts';
import { controlled, DOUBLE, type Format, isDenormal, isPeculiar, scalar, SINGLE, wantsPrecision, wantsRounding } from './sse-float.ts';
import { halves, lanesOf, LOW_64, low64, splat, ZERO } from './vector.ts';

// --- To integers --------------------------------------------------------------------------------------

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
      const { f } = x;
      const { bits } = destination;
      const v = scalar(source, format);
      const wide = f.let(format === SINGLE ? apply('f64.promote_f32', v) : v);
      const integral = f.let(wide.op(truncates ? 'trunc' : 'nearest'));
      const integer = apply(`i${bits}.trunc_sat_f64_s`, integral);
      const operation = `${truncates ? 'truncate' : 'toInteger'}${bits as 32 | 64}` as const;
      const fits = integral.op('abs').op('lt', f64(2 ** (bits - 1)));
      const inexact = integral.ne(wide).and(truncates ? wantsPrecision(x) : wantsRounding(x));
      const usual = splat(64, bits === 64 ? integer : integer.extendU());
      destination.write(low64(controlled(x, [operation, format, 1], [v, v], usual, [() => fits.eqz().or(inexact)])));
    });
  }
}

// Two doubles become two doublewords in the low half; the high one is zero.
// biome-ignore format: a table
for (const [mnemonic, encoding, format, truncates] of [
  ['CVTPS2DQ', '66 0F 5B Vdq Wps', SINGLE, false],
  ['CVTTPS2DQ', 'F3 0F 5B Vdq Wps', SINGLE, true],
  ['CVTPD2DQ', 'F2 0F E6 Vdq Wpd', DOUBLE, false],
  ['CVTTPD2DQ', '66 0F E6 Vdq Wpd', DOUBLE, true],
  ['CVTPS2PI', 'NP 0F 2D Pq Wq', SINGLE, false],
  ['CVTTPS2PI', 'NP 0F 2C Pq Wq', SINGLE, true],
  ['CVTPD2PI', '66 0F 2D Pq Wpd', DOUBLE, false],
  ['CVTTPD2PI', '66 0F 2C Pq Wpd', DOUBLE, true],
] as [string, string, Format, boolean][]) {
  instruction(mnemonic, encoding, { access: 'wr' }, (x, destination, source) => {
    x.requireSse();
    const mmx = destination.bits === 64;
    if (mmx) x.enterMmx();
    const { shape } = format;
    const v = source.vector();
    const integral = x.f.let(apply(`${shape}.${truncates ? 'trunc' : 'nearest'}`, v));
    const usual = apply(format === SINGLE ? 'i32x4.trunc_sat_f32x4_s' : 'i32x4.trunc_sat_f64x2_s_zero', integral);
    const limit = format === SINGLE ? lanesOf(32, [0x4f00_0000]) : lanesOf(64, [0x41e0n << 48n]);
    const fits = apply(`${format.integers}.all_true`, apply(`${shape}.lt`, apply(`${shape}.abs`, integral), limit));
    const inexact = apply('v128.any_true', apply(`${shape}.ne`, integral, v)).and(truncates ? wantsPrecision(x) : wantsRounding(x));
    const operation = truncates ? 'truncate32' : 'toInteger32';
    const lanes = mmx ? 2 : 128 / format.bits;
    const result = controlled(x, [operation, format, lanes], [v, v], usual, [() => fits.eqz().or(inexact)]);
    if (mmx) destination.write(low64(result));
    else destination.writeVector(result);
  });
}

// --- To floating point --------------------------------------------------------------------------------

/** Doublewords, of which `lanes` count, as singles: exact up to 24 bits. */
function integersToSingles(x: Semantics, v: Expression, lanes: number): Expression {
  const large = apply('v128.any_true', apply('i32x4.gt_s', apply('i32x4.abs', v), lanesOf(32, [1 << 24])));
  const doubt = (): Expression => large.and(wantsRounding(x));
  return controlled(x, ['fromInteger32', SINGLE, lanes], [v, v], apply('f32x4.convert_i32x4_s', v), [doubt]);
}

instruction('CVTDQ2PS', 'NP 0F 5B Vps Wdq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  destination.writeVector(integersToSingles(x, source.vector(), 4));
});
instruction('CVTDQ2PD', 'F3 0F E6 Vpd Wq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  destination.writeVector(apply('f64x2.convert_low_i32x4_s', source.vector()));
});
/** The least normal and the largest single as doubles. */
const LEAST_SINGLE = lanesOf(64, [0x3810n << 48n]);
const LARGEST_SINGLE = lanesOf(64, [0x47ef_ffff_e000_0000n]);

instruction('CVTPD2PS', '66 0F 5A Vps Wpd', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  const v = source.vector();
  // As for scalars below, lane by lane.
  const doubt = (result: Expression): Expression => {
    const back = apply('f64x2.promote_low_f32x4', result);
    const size = x.f.let(apply('f64x2.abs', back));
    const normal = apply('f64x2.gt', size, LEAST_SINGLE).and(apply('f64x2.le', size, LARGEST_SINGLE));
    const same = apply('f64x2.eq', back, v).and(normal.or(apply('f64x2.eq', back, ZERO)));
    return apply('i64x2.all_true', same.or(normal.and(splat(64, wantsRounding(x).eqz().extendU().op('mul', -1))))).eqz();
  };
  const usual = apply('f32x4.demote_f64x2_zero', v);
  destination.writeVector(controlled(x, ['toSingle', DOUBLE, 2], [v, v], usual, [doubt]));
});
instruction('CVTPS2PD', 'NP 0F 5A Vpd Wq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  const v = source.vector();
  const usual = apply('f64x2.promote_low_f32x4', v);
  // The high half takes no part.
  const peculiar = (): Expression => isPeculiar(SINGLE, v.and(LOW_64));
  destination.writeVector(controlled(x, ['toDouble', SINGLE, 2], [v, v], usual, [peculiar]));
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
  const v = scalar(source, SINGLE);
  const peculiar = (): Expression => v.ne(v).or(isDenormal(SINGLE, v));
  destination.writeLow(controlled(x, ['toDouble', SINGLE, 1], [v, v], apply('f64.promote_f32', v), [peculiar]), 64);
});
instruction('CVTSD2SS', 'F2 0F 5A Vss Wsd', { access: 'mr', hot: true }, (x, destination, source) => {
  x.requireSse();
  const v = scalar(source, DOUBLE);
  // A normal result, if it is exact or inexactness does not matter; or a zero of zero.
  const doubt = (result: Expression): Expression => {
    const back = x.f.let(apply('f64.promote_f32', result));
    const size = x.f.let(back.op('abs'));
    const normal = size.op('gt', f64(2 ** -126)).and(size.op('lt', f64(2 ** 128)));
    const same = back.eq(v);
    return normal.and(same.or(wantsRounding(x).eqz())).or(same.and(back.eq(f64(0)))).eqz();
  };
  destination.writeLow(controlled(x, ['toSingle', DOUBLE, 1], [v, v], apply('f32.demote_f64', v), [doubt]), 32);
});

for (const [mnemonic, encoding, format] of [
  ['CVTSI2SS', 'F3 0F 2A Vss Ey', SINGLE],
  ['CVTSI2SD', 'F2 0F 2A Vsd Ey', DOUBLE],
] as const) {
  instruction(mnemonic, encoding, { access: 'mr', hot: true }, (x, destination, source) => {
    x.requireSse();
    const value = x.f.let(source.signed());
    const usual = apply(`${format.type}.convert_i64_s`, value);
    // 32 bits fit a double.
    if (source.bits === 32 && format === DOUBLE) return destination.writeLow(usual, 64);
    const operand = x.f.let(halves(value, value));
    const limit = 2n ** BigInt(format.fraction + 1);
    const doubt = (): Expression => value.add(i64(limit)).gtU(i64(2n * limit)).and(wantsRounding(x));
    destination.writeLow(controlled(x, ['fromInteger64', format, 1], [operand, operand], usual, [doubt]), format.bits);
  });
}
