/**
 * The vocabulary of the vector families: constant vectors, lanes picked and merged, and controls made from an
 * immediate. An immediate is a constant in compiled code and a value of the decoded operation in the interpreter;
 * each function here takes both and gives a fixed shuffle for the first, a computed swizzle for the second.
 */

import { apply, type Expression, i32, select, v128 } from '../wasm/expression.ts';
import type { Operand, Semantics } from './semantics.ts';

/** Width of a lane. */
export type LaneBits = 8 | 16 | 32 | 64;

export const SHAPE = { 8: 'i8x16', 16: 'i16x8', 32: 'i32x4', 64: 'i64x2' } as const;

/** Numbers of the lanes 0, 1 … `length` - 1. */
const count = (length: number): number[] => Array.from({ length }, (_, i) => i);

/** A constant vector of lanes, the lowest first; fewer than fill it are repeated. */
export function lanesOf(bits: LaneBits, values: readonly (number | bigint)[] | ((lane: number) => number)): Expression {
  const list = typeof values === 'function' ? count(128 / bits).map(values) : values;
  let whole = 0n;
  for (let i = 0; i < 128 / bits; i++) whole |= BigInt.asUintN(bits, BigInt(list[i % list.length])) << BigInt(i * bits);
  return v128(BigInt.asUintN(64, whole), whole >> 64n);
}

export const ZERO = v128(0n, 0n);
export const LOW_64 = v128(-1n, 0n);
/** 0, 1, 2 … 15: the identity as a swizzle's control. */
export const BYTE_NUMBERS = lanesOf(8, (i) => i);

/** `value` (an i32, or an i64 for 64-bit lanes) in every lane. */
export const splat = (bits: LaneBits, value: Expression): Expression => apply(`${SHAPE[bits]}.splat`, value);
export const low64 = (v: Expression): Expression => v.lane('i64x2.extract_lane', 0);
export const high64 = (v: Expression): Expression => v.lane('i64x2.extract_lane', 1);
/** A vector of two 64-bit halves. */
export const halves = (low: Expression, high: Expression): Expression => splat(64, low).lane('i64x2.replace_lane', 1, high);
/** `ifSet` where the mask's bits are set, `ifClear` elsewhere. */
export const merge = (mask: Expression, ifSet: Expression, ifClear: Expression): Expression =>
  apply('v128.bitselect', ifSet, ifClear, mask);

/** Numbers of lanes: listed, or by a function of the result's lane. */
export type LaneNumbers = readonly number[] | ((lane: number) => number);

/** Lanes of `bits` picked from `a` (counted from 0) and `b` (counted on). */
export function gather(a: Expression, b: Expression, bits: LaneBits, lanes: LaneNumbers): Expression {
  const bytes = bits / 8;
  const list = typeof lanes === 'function' ? count(128 / bits).map(lanes) : lanes;
  const byteNumbers = list.flatMap((lane) => count(bytes).map((i) => lane * bytes + i));
  return a.shuffle(b, byteNumbers);
}

/** Every second lane of `a`, then of `b`, from the first (0) or second (1) one. */
export const everySecond = (a: Expression, b: Expression, bits: LaneBits, first: 0 | 1): Expression =>
  gather(a, b, bits, (i) => 2 * i + first);

/** Lanes of the low (0) or high (1) halves of `a` and `b` in turn. */
export function interleave(a: Expression, b: Expression, bits: LaneBits, half: 0 | 1): Expression {
  const lanes = 128 / bits;
  return gather(a, b, bits, (i) => (i >> 1) + (half * lanes) / 2 + (i & 1) * lanes);
}

/** An immediate byte as an i32, 0 to 255. */
export const byteOf = (x: Semantics, immediate: Operand): Expression => x.f.let(immediate.unsigned().wrap());

/** The number a constant stands for, or null where it is known only when the code runs. */
export const known = (value: Expression): number | null => (value.kind === 'const' ? Number(value.immediate) : null);

/** `alternatives[index]`, of which only the one needed is computed; anything past the last counts as the last. */
export function pick(x: Semantics, index: Expression, ...alternatives: Expression[]): Expression {
  const constant = known(index);
  if (constant !== null) return alternatives[Math.min(constant, alternatives.length - 1)];
  const { f } = x;
  const result = f.local(alternatives[0].type);
  const from = (i: number): void => {
    if (i === alternatives.length - 1) f.set(result, alternatives[i]);
    else
      f.if(
        index.eq(i),
        () => f.set(result, alternatives[i]),
        () => from(i + 1),
      );
  };
  from(0);
  return f.let(f.get(result));
}

/** Bytes of `v` by a control; 16 and more give 0. */
export function swizzle(v: Expression, control: Expression): Expression {
  if (control.kind !== 'const') return apply('i8x16.swizzle', v, control);
  const bytes = count(16).map((i) => Number(((control.immediate as bigint) >> BigInt(8 * i)) & 0xffn));
  return v.shuffle(
    ZERO,
    bytes.map((byte) => Math.min(byte, 16)),
  );
}

/** A control for bytes `start`, `start` + 1 …: 16 bytes of a vector from `start` (an i32, 0 to 255) on. */
export function bytesFrom(start: Expression): Expression {
  const constant = known(start);
  if (constant !== null) return lanesOf(8, (i) => Math.min(i + constant, 255));
  return apply('i8x16.add_sat_u', splat(8, start), BYTE_NUMBERS);
}

/** An i32 in every lane, whatever their width. */
const splatNumber = (bits: LaneBits, value: Expression): Expression => splat(bits, bits === 64 ? value.extendU() : value);

/** All ones in the lanes whose bit of the immediate byte is set; `bitOf` is the bit's number for each lane. */
export function lanesByBits(immediate: Expression, bits: LaneBits, bitOf: (lane: number) => number): Expression {
  const constant = known(immediate);
  if (constant !== null) return lanesOf(bits, (lane) => -((constant >> bitOf(lane)) & 1));
  const weights = lanesOf(bits, (lane) => 1 << bitOf(lane));
  return apply(`${SHAPE[bits]}.eq`, splatNumber(bits, immediate).and(weights), weights);
}

/** All ones in lane `lane` (an i32 in range). */
export function oneLane(lane: Expression, bits: LaneBits): Expression {
  const constant = known(lane);
  if (constant !== null) return lanesOf(bits, (i) => (i === constant ? -1 : 0));
  return apply(
    `${SHAPE[bits]}.eq`,
    splatNumber(bits, lane),
    lanesOf(bits, (i) => i),
  );
}

/** How 2-bit fields of an immediate move lanes of `bits`: for each word of the result the number of its field; null: it stays. */
export interface FieldShuffle {
  bits: 16 | 32;
  fields: readonly (number | null)[];
  /** Number of the first byte that a field counts from. */
  base: number;
}

export const DOUBLEWORDS: FieldShuffle = { bits: 32, fields: [0, 0, 1, 1, 2, 2, 3, 3], base: 0 };
export const LOW_WORDS: FieldShuffle = { bits: 16, fields: [0, 1, 2, 3, null, null, null, null], base: 0 };
export const HIGH_WORDS: FieldShuffle = { bits: 16, fields: [null, null, null, null, 0, 1, 2, 3], base: 8 };

/** The control of a shuffle by 2-bit fields (PSHUFD, PSHUFLW…). */
export function controlByFields(immediate: Expression, { bits, fields, base }: FieldShuffle): Expression {
  const bytes = bits / 8;
  // First byte of each word where its field is 0.
  const origins = fields.map((field, i) => (field === null ? 2 * i : base + ((2 * i) % bytes)));
  const constant = known(immediate);
  if (constant !== null) {
    const words = fields.map((field, i) => origins[i] + (field === null ? 0 : ((constant >> (2 * field)) & 3) * bytes));
    return lanesOf(8, (i) => words[i >> 1] + (i & 1));
  }
  // Each field is cut out where it is, moved to bits 6 and 7 by a multiplication, and down to a number of bytes.
  const byField = (value: (field: number) => number): Expression =>
    lanesOf(16, (i) => (fields[i] === null ? 0 : value(fields[i])));
  const cut = splat(16, immediate).and(byField((field) => 3 << (2 * field)));
  const aligned = apply(
    'i16x8.mul',
    cut,
    byField((field) => 64 >> (2 * field)),
  );
  const moved = apply('i16x8.shr_u', aligned, i32(bits === 32 ? 4 : 5));
  const inBothBytes = apply('i16x8.mul', moved, lanesOf(16, [0x0101]));
  return apply(
    'i16x8.add',
    inBothBytes,
    lanesOf(16, (i) => origins[i] | ((origins[i] + 1) << 8)),
  );
}

/** Shifts all lanes by `count`, an i64: those of the lanes' width and more clear them, or leave copies of the sign. */
export function shiftLanes(v: Expression, name: 'shl' | 'shr_u' | 'shr_s', bits: LaneBits, count: Expression): Expression {
  const shift = `${SHAPE[bits]}.${name}`;
  const fits = count.ltU(bits);
  if (name === 'shr_s') return apply(shift, v, select(fits, count.wrap(), i32(bits - 1)));
  return select(fits, apply(shift, v, count.wrap()), ZERO);
}
