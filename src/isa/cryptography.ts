/**
 * AES-NI, PCLMULQDQ and SHA. SDM 2, instruction reference; FIPS 197 and 180-4. Generated code throughout: a substitution box is
 * sixteen vectors that are looked up in turn, so that time does not depend on data.
 */

import { apply, type Expression, i32, i64, select, v128 } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import type { Semantics } from './semantics.ts';
import { byteOf, gather, halves, high64, lanesOf, low64, splat } from './vector.ts';

// --- AES ----------------------------------------------------------------------------------------------

/** Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1. */
function product(a: number, b: number): number {
  let sum = 0;
  for (let [x, y] = [a, b]; y; y >>= 1, x = (x << 1) ^ (x & 0x80 ? 0x11b : 0)) if (y & 1) sum ^= x;
  return sum;
}

/** The substitution box (FIPS 197, 5.1.1): the inverse, then an affine map of its bits. */
const BOX = Array.from({ length: 256 }, (_, value) => {
  let inverse = 0;
  while (value && product(value, inverse) !== 1) inverse++;
  const spread = inverse * 0x101;
  return [4, 5, 6, 7].reduce((sum, shift) => sum ^ (spread >> shift), inverse ^ 0x63) & 0xff;
});
const INVERSE_BOX = BOX.map((_, value) => BOX.indexOf(value));

function substitute(x: Semantics, v: Expression, box: readonly number[]): Expression {
  const { f } = x;
  const bytes = f.let(v);
  // Of each swizzle only the bytes count whose upper half is the table's number: the others are out of its range.
  const rows = Array.from({ length: 16 }, (_, row) => {
    const table = lanesOf(8, box.slice(16 * row, 16 * row + 16));
    return apply('i8x16.swizzle', table, bytes.xor(lanesOf(8, [16 * row])));
  });
  return f.let(rows.reduce((sum, row) => sum.or(row)));
}

/** Bytes of the state are numbered down its columns: row i of the result comes from i columns further on, or back. */
const shiftRows = (v: Expression, by: 1 | -1): Expression => gather(v, v, 8, (i) => (i + 4 * by * (i % 4) + 16) % 16);
/** Each byte's neighbour so many rows further down its column. */
const rotateColumns = (v: Expression, rows: number): Expression => gather(v, v, 8, (i) => (i & 12) | ((i + rows) & 3));
/** Every byte times x. */
const timesX = (v: Expression): Expression =>
  apply('i8x16.shl', v, i32(1)).xor(apply('i8x16.shr_s', v, i32(7)).and(lanesOf(8, [0x1b])));

function mixColumns(x: Semantics, v: Expression): Expression {
  const { f } = x;
  const state = f.let(v);
  const below = f.let(rotateColumns(state, 1));
  const pairs = f.let(state.xor(below));
  return f.let(timesX(pairs).xor(below).xor(rotateColumns(pairs, 2)));
}

/** The inverse's coefficients are those of `mixColumns` times 4 x^2 + 5 (FIPS 197, 5.3.3). */
function inverseMixColumns(x: Semantics, v: Expression): Expression {
  const { f } = x;
  const state = f.let(v);
  const pairs = f.let(state.xor(rotateColumns(state, 2)));
  return mixColumns(x, state.xor(timesX(f.let(timesX(pairs)))));
}

for (const [mnemonic, opcode, direction, last] of [
  ['AESENC', 'DC', 1, false],
  ['AESENCLAST', 'DD', 1, true],
  ['AESDEC', 'DE', -1, false],
  ['AESDECLAST', 'DF', -1, true],
] as const) {
  instruction(mnemonic, `66 0F 38 ${opcode} Vdq Wdq`, { access: 'mr', feature: 'aes' }, (x, destination, source) => {
    x.requireSse();
    const key = source.vector();
    const state = substitute(x, shiftRows(destination.vector(), direction), direction === 1 ? BOX : INVERSE_BOX);
    const mix = direction === 1 ? mixColumns : inverseMixColumns;
    destination.writeVector((last ? state : mix(x, state)).xor(key));
  });
}
instruction('AESIMC', '66 0F 38 DB Vdq Wdq', { access: 'wr', feature: 'aes' }, (x, destination, source) => {
  x.requireSse();
  destination.writeVector(inverseMixColumns(x, source.vector()));
});
instruction('AESKEYGENASSIST', '66 0F 3A DF Vdq Wdq Ib', { access: 'wrr', feature: 'aes' }, (x, destination, source, immediate) => {
  x.requireSse();
  const words = substitute(x, source.vector(), BOX);
  // Words 1 and 3, each as it is and rotated by a byte.
  const spread = gather(words, words, 8, [4, 5, 6, 7, 5, 6, 7, 4, 12, 13, 14, 15, 13, 14, 15, 12]);
  const constant = splat(32, byteOf(x, immediate)).and(lanesOf(32, [0, -1]));
  destination.writeVector(spread.xor(constant));
});

// --- Carry-less multiplication --------------------------------------------------------------------------

instruction('PCLMULQDQ', '66 0F 3A 44 Vdq Wdq Ib', { access: 'mrr', feature: 'pclmulqdq' }, (x, destination, source, immediate) => {
  x.requireSse();
  const { f } = x;
  const [second, first] = [source.vector(), destination.vector()];
  const control = byteOf(x, immediate);
  const a = f.let(select(control.and(1), high64(first), low64(first)));
  const rest = f.local('i64');
  const low = f.local('i64');
  const high = f.local('i64');
  f.set(rest, select(control.and(16), high64(second), low64(second)));
  f.set(low, i64(0));
  f.set(high, i64(0));
  f.block((done) =>
    f.loop((again) => {
      const bits = f.let(f.get(rest));
      f.branchIf(done, bits.eqz());
      const place = f.let(bits.ctz());
      f.set(low, f.get(low).xor(a.shl(place)));
      // In two steps: 64 - place may be 64.
      f.set(high, f.get(high).xor(a.shrU(1).shrU(i64(63).sub(place))));
      f.set(rest, bits.and(bits.sub(1)));
      f.branch(again);
    }),
  );
  destination.writeVector(halves(f.get(low), f.get(high)));
});

// --- SHA-1 and SHA-256 ----------------------------------------------------------------------------------

/** AMD's processors let memory operands of these be unaligned, other than the manuals. */
const SHA = { feature: 'sha_ni', unaligned: true } as const;

const word = (x: Semantics, v: Expression, lane: number): Expression => x.f.let(v.lane('i32x4.extract_lane', lane));
/** A vector of doublewords, the lowest first. */
const vectorOf = (x: Semantics, words: readonly Expression[]): Expression =>
  words.reduce((v, value, lane) => x.f.let(v.lane('i32x4.replace_lane', lane, value)), v128(0n, 0n) as Expression);
const rotatedXor = (x: Semantics, value: Expression, by: readonly number[]): Expression =>
  x.f.let(by.map((count) => value.rotr(count)).reduce((sum, term) => sum.xor(term)));
const rotateLanes = (v: Expression, count: number): Expression =>
  apply('i32x4.shl', v, i32(count)).or(apply('i32x4.shr_u', v, i32(32 - count)));
const choose = (e: Expression, f: Expression, g: Expression): Expression => e.and(f.xor(g)).xor(g);
const majority = (a: Expression, b: Expression, c: Expression): Expression => a.and(b).or(c.and(a.or(b)));

const SHA1_CONSTANTS = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];

instruction('SHA1RNDS4', 'NP 0F 3A CC Vdq Wdq Ib', { access: 'mrr', ...SHA }, (x, destination, source, immediate) => {
  x.requireSse();
  const { f } = x;
  const messages = source.vector();
  const state = destination.vector();
  let [a, b, c, d] = [3, 2, 1, 0].map((lane) => word(x, state, lane));
  let e: Expression = i32(0);
  const phase = f.let(byteOf(x, immediate).and(3));
  const constant = f.let(
    select(phase.and(2), select(phase.and(1), i32(SHA1_CONSTANTS[3]), i32(SHA1_CONSTANTS[2])), select(phase.and(1), i32(SHA1_CONSTANTS[1]), i32(SHA1_CONSTANTS[0]))),
  );
  for (let round = 0; round < 4; round++) {
    const parity = b.xor(c).xor(d);
    const mixed = select(phase.eqz(), choose(b, c, d), select(phase.eq(2), majority(b, c, d), parity));
    // The source already holds message words with E added to the first of them.
    const next = f.let(mixed.add(a.rotl(5)).add(word(x, messages, 3 - round)).add(constant).add(e));
    [a, b, c, d, e] = [next, a, f.let(b.rotl(30)), c, d];
  }
  destination.writeVector(vectorOf(x, [d, c, b, a]));
});
instruction('SHA1NEXTE', 'NP 0F 38 C8 Vdq Wdq', { access: 'mr', ...SHA }, (x, destination, source) => {
  x.requireSse();
  const messages = source.vector();
  const e = word(x, destination.vector(), 3).rotl(30);
  destination.writeVector(messages.lane('i32x4.replace_lane', 3, word(x, messages, 3).add(e)));
});
instruction('SHA1MSG1', 'NP 0F 38 C9 Vdq Wdq', { access: 'mr', ...SHA }, (x, destination, source) => {
  x.requireSse();
  const b = source.vector();
  const a = destination.vector();
  destination.writeVector(a.xor(gather(b, a, 64, [1, 2])));
});
instruction('SHA1MSG2', 'NP 0F 38 CA Vdq Wdq', { access: 'mr', ...SHA }, (x, destination, source) => {
  x.requireSse();
  const { f } = x;
  const b = source.vector();
  const a = destination.vector();
  // Words 16 to 18 take words 13 to 15, word 19 takes word 16.
  const first = f.let(rotateLanes(f.let(a.xor(gather(b, b, 32, [0, 0, 1, 2]))), 1));
  const last = word(x, a, 0).xor(word(x, first, 3)).rotl(1);
  destination.writeVector(first.lane('i32x4.replace_lane', 0, last));
});

instruction('SHA256RNDS2', 'NP 0F 38 CB Vdq Wdq', { access: 'mr', ...SHA }, (x, destination, source) => {
  x.requireSse();
  const { f } = x;
  const [abef, cdgh, messages] = [source.vector(), destination.vector(), x.xmm(0).vector()];
  let [a, b, e, g] = [3, 2, 1, 0].map((lane) => word(x, abef, lane));
  let [c, d, h, i] = [3, 2, 1, 0].map((lane) => word(x, cdgh, lane));
  for (let round = 0; round < 2; round++) {
    const first = f.let(choose(e, g, h).add(rotatedXor(x, e, [6, 11, 25])).add(word(x, messages, round)).add(i));
    const second = majority(a, b, c).add(rotatedXor(x, a, [2, 13, 22]));
    [a, b, c, d, e, g, h, i] = [f.let(first.add(second)), a, b, c, f.let(first.add(d)), e, g, h];
  }
  destination.writeVector(vectorOf(x, [g, e, b, a]));
});

/** σ of SHA-256's message schedule: two rotations and a shift. */
const schedule = (v: Expression, [first, second, shift]: readonly [number, number, number]): Expression =>
  rotateLanes(v, 32 - first).xor(rotateLanes(v, 32 - second)).xor(apply('i32x4.shr_u', v, i32(shift)));

instruction('SHA256MSG1', 'NP 0F 38 CC Vdq Wdq', { access: 'mr', ...SHA }, (x, destination, source) => {
  x.requireSse();
  const b = source.vector();
  const a = destination.vector();
  const next = x.f.let(gather(a, b, 32, [1, 2, 3, 4]));
  destination.writeVector(apply('i32x4.add', a, schedule(next, [7, 18, 3])));
});
instruction('SHA256MSG2', 'NP 0F 38 CD Vdq Wdq', { access: 'mr', ...SHA }, (x, destination, source) => {
  x.requireSse();
  const { f } = x;
  const b = source.vector();
  const a = destination.vector();
  // Words 16 and 17 from words 14 and 15, then words 18 and 19 from these two.
  const half = (terms: Expression): Expression => f.let(schedule(f.let(terms), [17, 19, 10]));
  const low = f.let(apply('i32x4.add', a, half(gather(b, b, 32, [2, 3, 2, 3]))));
  const high = f.let(apply('i32x4.add', a, half(gather(low, low, 32, [0, 1, 0, 1]))));
  destination.writeVector(gather(low, high, 64, [0, 3]));
});
