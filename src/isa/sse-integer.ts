/**
 * Packed integer instructions of MMX, SSE2 and SSSE3, by family. SDM 2B.
 *
 * Both widths share one definition: an MMX operand is computed on as a vector with its 64 bits in both halves,
 * of which the low one is the result. Where an instruction's halves come from different operands (packing,
 * horizontal sums) the vector is instead made of both operands; see `MmxForm`.
 */

import { apply, type Expression, i32 } from '../wasm/expression.ts';
import type { FunctionBuilder } from '../wasm/function-builder.ts';
import { type Attributes, instruction } from './instruction.ts';
import type { Operand, Semantics } from './semantics.ts';
import {
  BYTE_NUMBERS,
  byteOf,
  bytesFrom,
  controlByFields,
  DOUBLEWORDS,
  everySecond,
  type FieldShuffle,
  gather,
  halves,
  HIGH_WORDS,
  high64,
  interleave,
  type LaneBits,
  lanesOf,
  low64,
  LOW_WORDS,
  merge,
  oneLane,
  shiftLanes,
  SHAPE,
  splat,
  swizzle,
} from './vector.ts';

/** An operation on two vectors, destination first. What it uses twice it keeps with `f.let`. */
export type Lanes = (a: Expression, b: Expression, f: FunctionBuilder) => Expression;

/**
 * How the MMX form follows from the vector operation: 'same' lane by lane; 'paired' the low half of a vector operation on
 * [a, b] as both operands (it takes its low half from one operand and its high half from the other); 'none' there is no MMX form.
 */
export type MmxForm = 'same' | 'paired' | 'none';

/** True of MMX registers and what goes with them, false of XMM. */
const isMmx = (operand: Operand): boolean => operand.bits === 64;

/** The vector instruction `name`. */
export const plain =
  (name: string): Lanes =>
  (a, b) =>
    apply(name, a, b);

/** Computes `destination = lanes(destination, source)` in either width. */
function compute(x: Semantics, destination: Operand, source: Operand, lanes: Lanes, mmx: MmxForm): void {
  const { f } = x;
  if (!isMmx(destination)) {
    x.requireSse();
    const b = source.vector();
    destination.writeVector(lanes(destination.vector(), b, f));
    return;
  }
  x.enterMmx();
  const b = source.unsigned();
  const a = destination.unsigned();
  const both = mmx === 'paired' ? f.let(halves(a, b)) : null;
  destination.write(low64(both ? lanes(both, both, f) : lanes(f.let(splat(64, a)), f.let(splat(64, b)), f)));
}

/** Computes `destination = lanes(source)` in either width. */
function computeUnary(x: Semantics, destination: Operand, source: Operand, lanes: (v: Expression) => Expression): void {
  if (isMmx(destination)) {
    x.enterMmx();
    destination.write(low64(lanes(x.f.let(splat(64, source.unsigned())))));
  } else {
    x.requireSse();
    destination.writeVector(lanes(source.vector()));
  }
}

/** Defines a two-operand instruction: `opcode` as in '0F FC', with 66 on XMM registers and without on MMX ones. */
export function packed(mnemonic: string, opcode: string, lanes: Lanes, mmx: MmxForm = 'same', attributes: Attributes = {}): void {
  const encodings = [`66 ${opcode} Vdq Wdq`];
  if (mmx !== 'none') encodings.push(`NP ${opcode} Pq Qq`);
  instruction(mnemonic, encodings, { access: 'mr', ...attributes }, (x, destination, source) =>
    compute(x, destination, source, lanes, mmx),
  );
}

// --- Sums, comparisons, minima ------------------------------------------------------------------------

// biome-ignore format: a table
for (const [mnemonic, opcode, operation] of [
  ['PADDB', 'FC', 'i8x16.add'], ['PADDW', 'FD', 'i16x8.add'], ['PADDD', 'FE', 'i32x4.add'], ['PADDQ', 'D4', 'i64x2.add'],
  ['PSUBB', 'F8', 'i8x16.sub'], ['PSUBW', 'F9', 'i16x8.sub'], ['PSUBD', 'FA', 'i32x4.sub'], ['PSUBQ', 'FB', 'i64x2.sub'],
  ['PADDSB', 'EC', 'i8x16.add_sat_s'], ['PADDSW', 'ED', 'i16x8.add_sat_s'],
  ['PADDUSB', 'DC', 'i8x16.add_sat_u'], ['PADDUSW', 'DD', 'i16x8.add_sat_u'],
  ['PSUBSB', 'E8', 'i8x16.sub_sat_s'], ['PSUBSW', 'E9', 'i16x8.sub_sat_s'],
  ['PSUBUSB', 'D8', 'i8x16.sub_sat_u'], ['PSUBUSW', 'D9', 'i16x8.sub_sat_u'],
  ['PAVGB', 'E0', 'i8x16.avgr_u'], ['PAVGW', 'E3', 'i16x8.avgr_u'],
  ['PMINUB', 'DA', 'i8x16.min_u'], ['PMAXUB', 'DE', 'i8x16.max_u'],
  ['PMINSW', 'EA', 'i16x8.min_s'], ['PMAXSW', 'EE', 'i16x8.max_s'],
  ['PCMPEQB', '74', 'i8x16.eq'], ['PCMPEQW', '75', 'i16x8.eq'], ['PCMPEQD', '76', 'i32x4.eq'],
  ['PCMPGTB', '64', 'i8x16.gt_s'], ['PCMPGTW', '65', 'i16x8.gt_s'], ['PCMPGTD', '66', 'i32x4.gt_s'],
  ['PAND', 'DB', 'v128.and'], ['POR', 'EB', 'v128.or'], ['PXOR', 'EF', 'v128.xor'],
  ['PMULLW', 'D5', 'i16x8.mul'], ['PMADDWD', 'F5', 'i32x4.dot_i16x8_s'],
]) packed(mnemonic, `0F ${opcode}`, plain(operation), 'same', { hot: true });

packed('PANDN', '0F DF', (a, b) => apply('v128.andnot', b, a), 'same', { hot: true });

// --- Products and differences -------------------------------------------------------------------------

/** High words of the 32-bit products. */
const highProducts =
  (sign: 's' | 'u'): Lanes =>
  (a, b) =>
    everySecond(apply(`i32x4.extmul_low_i16x8_${sign}`, a, b), apply(`i32x4.extmul_high_i16x8_${sign}`, a, b), 16, 1);
packed('PMULHW', '0F E5', highProducts('s'));
packed('PMULHUW', '0F E4', highProducts('u'));

/** 64-bit products of the even doublewords. */
export const evenProducts =
  (sign: 's' | 'u'): Lanes =>
  (a, b) =>
    apply(`i64x2.extmul_low_i32x4_${sign}`, gather(a, a, 32, [0, 2, 0, 2]), gather(b, b, 32, [0, 2, 0, 2]));
packed('PMULUDQ', '0F F4', evenProducts('u'));

/** |a - b| of unsigned bytes. */
const distances = (a: Expression, b: Expression): Expression => apply('i8x16.sub_sat_u', a, b).or(apply('i8x16.sub_sat_u', b, a));
packed('PSADBW', '0F F6', (a, b, f) => {
  const bytes = f.let(distances(a, b));
  const words = apply('i16x8.add', bytes.and(lanesOf(16, [0xff])), apply('i16x8.shr_u', bytes, i32(8)));
  const pairs = f.let(apply('i32x4.dot_i16x8_s', words, lanesOf(16, [1])));
  return apply('i64x2.add', pairs.and(lanesOf(64, [0xffffffffn])), apply('i64x2.shr_u', pairs, i32(32)));
});

packed('PMADDUBSW', '0F 38 04', (a, b) => {
  const even = apply('i16x8.mul', a.and(lanesOf(16, [0xff])), apply('i16x8.shr_s', apply('i16x8.shl', b, i32(8)), i32(8)));
  const odd = apply('i16x8.mul', apply('i16x8.shr_u', a, i32(8)), apply('i16x8.shr_s', b, i32(8)));
  return apply('i16x8.add_sat_s', even, odd);
}, 'same', { feature: 'ssse3' });

// -1 × -1 is the one product that differs: x86 gives -1 (0x8000), where Q15 multiplication saturates.
packed('PMULHRSW', '0F 38 0B', (a, b) => {
  const minimum = lanesOf(16, [0x8000]);
  return apply('i16x8.q15mulr_sat_s', a, b).xor(apply('i16x8.eq', a, minimum).and(apply('i16x8.eq', b, minimum)));
}, 'same', { feature: 'ssse3' });

// --- SSSE3: signs and horizontal sums -----------------------------------------------------------------

for (const [suffix, sign, absolute, bits] of [
  ['B', '08', '1C', 8],
  ['W', '09', '1D', 16],
  ['D', '0A', '1E', 32],
] as const) {
  const shape = SHAPE[bits];
  packed(`PSIGN${suffix}`, `0F 38 ${sign}`, (a, b, f) => {
    const negative = f.let(apply(`${shape}.shr_s`, b, i32(bits - 1)));
    return apply(`${shape}.sub`, a.xor(negative), negative).and(apply(`${shape}.ne`, b, lanesOf(bits, [0])));
  }, 'same', { feature: 'ssse3' });
  instruction(
    `PABS${suffix}`,
    [`66 0F 38 ${absolute} Vdq Wdq`, `NP 0F 38 ${absolute} Pq Qq`],
    { access: 'wr', feature: 'ssse3' },
    (x, destination, source) => {
      computeUnary(x, destination, source, (v) => apply(`${shape}.abs`, v));
    },
  );
}

// biome-ignore format: a table
for (const [mnemonic, opcode, bits, operation] of [
  ['PHADDW', '01', 16, 'add'], ['PHADDD', '02', 32, 'add'], ['PHADDSW', '03', 16, 'add_sat_s'],
  ['PHSUBW', '05', 16, 'sub'], ['PHSUBD', '06', 32, 'sub'], ['PHSUBSW', '07', 16, 'sub_sat_s'],
] as const) {
  const combine = plain(`${SHAPE[bits]}.${operation}`);
  packed(mnemonic, `0F 38 ${opcode}`, (a, b, f) => combine(everySecond(a, b, bits, 0), everySecond(a, b, bits, 1), f), 'paired', { feature: 'ssse3' });
}

// --- Packing and unpacking ----------------------------------------------------------------------------

packed('PACKSSWB', '0F 63', plain('i8x16.narrow_i16x8_s'), 'paired');
packed('PACKSSDW', '0F 6B', plain('i16x8.narrow_i32x4_s'), 'paired');
packed('PACKUSWB', '0F 67', plain('i8x16.narrow_i16x8_u'), 'paired');

for (const [suffix, low, high, bits] of [
  ['BW', '60', '68', 8],
  ['WD', '61', '69', 16],
  ['DQ', '62', '6A', 32],
  ['QDQ', '6C', '6D', 64],
] as const) {
  // PUNPCKLxx reads 32 bits of memory into MMX registers; PUNPCKHxx there is the high half of what the low ones interleave.
  const mmx = bits === 64 ? [[], []] : [[`NP 0F ${low} Pq Qd`], [`NP 0F ${high} Pq Qq`]];
  const take = [low64, high64];
  for (const half of [0, 1] as const) {
    instruction(
      `PUNPCK${'LH'[half]}${suffix}`,
      [`66 0F ${[low, high][half]} Vdq Wdq`, ...mmx[half]],
      { access: 'mr', hot: true },
      (x, destination, source) => {
        if (!isMmx(destination)) return compute(x, destination, source, (a, b) => interleave(a, b, bits, half), 'none');
        x.enterMmx();
        const b = splat(64, source.unsigned());
        destination.write(take[half](interleave(splat(64, destination.unsigned()), b, bits, 0)));
      },
    );
  }
}

// --- Shuffles and shifts of whole registers -----------------------------------------------------------

for (const [mnemonic, encoding, shuffle] of [
  ['PSHUFD', '66 0F 70 Vdq Wdq Ib', DOUBLEWORDS],
  ['PSHUFLW', 'F2 0F 70 Vdq Wdq Ib', LOW_WORDS],
  ['PSHUFHW', 'F3 0F 70 Vdq Wdq Ib', HIGH_WORDS],
  ['PSHUFW', 'NP 0F 70 Pq Qq Ib', LOW_WORDS],
] as [string, string, FieldShuffle][]) {
  instruction(mnemonic, encoding, { access: 'wrr', hot: mnemonic === 'PSHUFD' }, (x, destination, source, immediate) => {
    computeUnary(x, destination, source, (v) => swizzle(v, controlByFields(byteOf(x, immediate), shuffle)));
  });
}

// Bit 7 of a control byte gives 0, as a number past the end does. An MMX register is in both halves: bit 3 changes nothing.
packed('PSHUFB', '0F 38 00', (a, b) => swizzle(a, b.and(lanesOf(8, [0x8f]))), 'same', { hot: true, feature: 'ssse3' });

instruction(
  'PALIGNR',
  ['66 0F 3A 0F Vdq Wdq Ib', 'NP 0F 3A 0F Pq Qq Ib'],
  { access: 'mrr', feature: 'ssse3' },
  (x, destination, source, immediate) => {
    const control = x.f.let(bytesFrom(byteOf(x, immediate)));
    if (isMmx(destination)) {
      x.enterMmx();
      const low = source.unsigned();
      destination.write(low64(swizzle(halves(low, destination.unsigned()), control)));
    } else {
      compute(
        x,
        destination,
        source,
        (a, b) => swizzle(b, control).or(apply('i8x16.swizzle', a, apply('i8x16.sub', control, lanesOf(8, [16])))),
        'none',
      );
    }
  },
);

instruction('PSRLDQ', '66 0F 73/3 Udq Ib', { access: 'mr' }, (x, destination, immediate) => {
  x.requireSse();
  destination.writeVector(swizzle(destination.vector(), bytesFrom(byteOf(x, immediate))));
});
instruction('PSLLDQ', '66 0F 73/7 Udq Ib', { access: 'mr' }, (x, destination, immediate) => {
  x.requireSse();
  const bytes = apply('i8x16.min_u', splat(8, byteOf(x, immediate)), lanesOf(8, [16]));
  destination.writeVector(swizzle(destination.vector(), apply('i8x16.sub', BYTE_NUMBERS, bytes)));
});

// biome-ignore format: a table
for (const [mnemonic, digit, bits, name, byRegister, byImmediate] of [
  ['PSRLW', 2, 16, 'shr_u', 'D1', '71'], ['PSRLD', 2, 32, 'shr_u', 'D2', '72'], ['PSRLQ', 2, 64, 'shr_u', 'D3', '73'],
  ['PSRAW', 4, 16, 'shr_s', 'E1', '71'], ['PSRAD', 4, 32, 'shr_s', 'E2', '72'],
  ['PSLLW', 6, 16, 'shl', 'F1', '71'], ['PSLLD', 6, 32, 'shl', 'F2', '72'], ['PSLLQ', 6, 64, 'shl', 'F3', '73'],
] as const) {
  packed(mnemonic, `0F ${byRegister}`, (v, amount, f) => shiftLanes(v, name, bits, f.let(low64(amount))));
  const encodings = [`66 0F ${byImmediate}/${digit} Udq Ib`, `NP 0F ${byImmediate}/${digit} Nq Ib`];
  instruction(mnemonic, encodings, { access: 'mr', hot: true }, (x, destination, immediate) => {
    computeUnary(x, destination, destination, (v) => shiftLanes(v, name, bits, immediate.unsigned()));
  });
}

// --- Single words -------------------------------------------------------------------------------------

/** The lane that an immediate names, as an i32; bits of it beyond the number of lanes are ignored. */
export const laneNumber = (x: Semantics, immediate: Operand, lanes: number): Expression =>
  x.f.let(byteOf(x, immediate).and(lanes - 1));

/** `v` with `value` (an i64) in lane `lane`. */
export function insertLane(v: Expression, bits: LaneBits, lane: Expression, value: Expression): Expression {
  return merge(oneLane(lane, bits), splat(bits, bits === 64 ? value : value.wrap()), v);
}

/** Lane `lane` of `v` at the low end of an i64, with anything above it. */
export const extractLane = (v: Expression, bits: LaneBits, lane: Expression): Expression =>
  low64(swizzle(v, bytesFrom(lane.mul(bits / 8))));

instruction('PINSRW', ['66 0F C4 Vdq Ew Ib', 'NP 0F C4 Pq Ew Ib'], { access: 'mrr' }, (x, destination, source, immediate) => {
  if (isMmx(destination)) {
    x.enterMmx();
    const value = source.unsigned();
    destination.write(low64(insertLane(splat(64, destination.unsigned()), 16, laneNumber(x, immediate, 4), value)));
  } else {
    x.requireSse();
    const value = source.unsigned();
    destination.writeVector(insertLane(destination.vector(), 16, laneNumber(x, immediate, 8), value));
  }
});
instruction('PEXTRW', ['66 0F C5 Gd Udq Ib', 'NP 0F C5 Gd Nq Ib'], { access: 'wrr' }, (x, destination, source, immediate) => {
  if (isMmx(source)) x.enterMmx();
  else x.requireSse();
  const v = isMmx(source) ? splat(64, source.unsigned()) : source.vector();
  destination.write(extractLane(v, 16, laneNumber(x, immediate, isMmx(source) ? 4 : 8)).and(0xffff));
});
