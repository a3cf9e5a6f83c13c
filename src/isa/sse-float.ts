/**
 * Floating-point arithmetic of SSE, SSE2 and SSE3: sums to square roots, comparisons, logic, shuffles. SDM 2A and 2B.
 *
 * MXCSR's part is exact: rounding modes, denormals as zeros, flushing to zero, all exception flags, unmasked exceptions. WebAssembly
 * computes to nearest and tells nothing of exceptions, so its result stands where that certainly is all there is: numbers neither
 * denormal, infinite nor NaN, and a result that is exact or whose inexactness MXCSR has noted before, as it soon has in any program.
 * A first look, a few instructions, settles nearly everything; a second one, in a function that all share, zeros and exact results.
 * What is doubtful still is done again in TypeScript (cpu/sse-unit.ts). That makes NaNs x86's on every host, too (SDM 1 table 4-7).
 * Simplified: RCP and RSQRT, which raise nothing, are rounded once and twice, so within 1.5 × 2^-24 where the manual allows 1.5 × 2^-12;
 * processors differ in theirs.
 */

import { MASK_SHIFT, PRECISION, ROUNDING, type SseOperation, sseOperation } from '../cpu/sse-unit.ts';
import { apply, type Expression, i32, i64, select } from '../wasm/expression.ts';
import type { FunctionBuilder } from '../wasm/function-builder.ts';
import { instruction } from './instruction.ts';
import type { Operand, Semantics, SharedFunction } from './semantics.ts';
import {
  byteOf,
  controlByFields,
  DOUBLEWORDS,
  everySecond,
  gather,
  halves,
  high64,
  interleave,
  lanesByBits,
  lanesOf,
  low64,
  merge,
  pick,
  splat,
  swizzle,
  ZERO,
} from './vector.ts';

/** Single or double precision. */
export interface Format {
  bits: 32 | 64;
  shape: 'f32x4' | 'f64x2';
  integers: 'i32x4' | 'i64x2';
  type: 'f32' | 'f64';
  sign: Expression;
  /** The bit that makes a NaN quiet. */
  quiet: Expression;
  /** The NaN of invalid operations. */
  indefinite: Expression;
  /** The least normal number, and infinity. */
  least: Expression;
  infinity: Expression;
  /** Bits of a fraction that are 0 in numbers whose product is exact. */
  shortMask: Expression;
  /** Bits of the fraction. */
  fraction: number;
}

export const SINGLE: Format = {
  bits: 32,
  shape: 'f32x4',
  integers: 'i32x4',
  type: 'f32',
  sign: lanesOf(32, [0x8000_0000]),
  quiet: lanesOf(32, [0x0040_0000]),
  indefinite: lanesOf(32, [0xffc0_0000]),
  least: lanesOf(32, [0x0080_0000]),
  infinity: lanesOf(32, [0x7f80_0000]),
  shortMask: lanesOf(32, [0xfff]),
  fraction: 23,
};
export const DOUBLE: Format = {
  bits: 64,
  shape: 'f64x2',
  integers: 'i64x2',
  type: 'f64',
  sign: lanesOf(64, [1n << 63n]),
  quiet: lanesOf(64, [1n << 51n]),
  indefinite: lanesOf(64, [0xfff8n << 48n]),
  least: lanesOf(64, [1n << 52n]),
  infinity: lanesOf(64, [0x7ff0n << 48n]),
  shortMask: lanesOf(64, [0x7ff_ffffn]),
  fraction: 52,
};

/** The four encodings of an arithmetic instruction: suffix, mandatory prefix, operand size, precision. */
const PACKED = [
  ['PS', 'NP', 'ps', SINGLE],
  ['PD', '66', 'pd', DOUBLE],
] as const;
const SCALAR = [
  ['SS', 'F3', 'ss', SINGLE],
  ['SD', 'F2', 'sd', DOUBLE],
] as const;

/** The low element of a vector operand as an f32 or f64, kept. */
export const scalar = (operand: Operand, { bits }: Format): Expression => operand.float(bits);

const splatFloat = ({ shape }: Format, value: Expression): Expression => apply(`${shape}.splat`, value);
const isNan = ({ shape }: Format, v: Expression): Expression => apply(`${shape}.ne`, v, v);

/** What x86 makes of NaNs: the first operand that is one, quiet; the indefinite value where neither is. */
function nanRule(format: Format, a: Expression, b: Expression, result: Expression): Expression {
  const made = merge(isNan(format, result), format.indefinite, result);
  return merge(isNan(format, a), a.or(format.quiet), merge(isNan(format, b), b.or(format.quiet), made));
}

/** `result` of an operation on `a` and `b`, vectors all, with x86's NaNs. */
export function withNans(x: Semantics, format: Format, a: Expression, b: Expression, result: Expression): Expression {
  const { f } = x;
  const fixed = f.local('v128');
  f.set(fixed, result);
  f.if(apply('v128.any_true', isNan(format, f.get(fixed))), () => f.set(fixed, nanRule(format, a, b, f.get(fixed))));
  return f.let(f.get(fixed));
}

// --- MXCSR ---------------------------------------------------------------------------------------------

const PRECISION_MASK = PRECISION << MASK_SHIFT;

/** MXCSR does not say yet that a result was inexact, or wants to hear of every one. */
export const wantsPrecision = (x: Semantics): Expression => x.mxcsrDiffers(PRECISION_MASK | PRECISION, PRECISION_MASK | PRECISION);
/** The same, or results are rounded otherwise than to nearest. */
export const wantsRounding = (x: Semantics): Expression => x.mxcsrDiffers(ROUNDING | PRECISION_MASK | PRECISION, PRECISION_MASK | PRECISION);

/** The operation in TypeScript on vectors or scalars, which may raise #XM; gives its result as a vector. */
export function exactly(x: Semantics, operation: number, a: Expression, b: Expression, detail: Expression = i32(0)): Expression {
  const vector = (v: Expression): Expression => (v.type === 'v128' ? v : splatFloat(v.type === 'f32' ? SINGLE : DOUBLE, v));
  const [first, second] = [vector(a), vector(b)];
  for (const [i, half] of [low64(first), high64(first), low64(second), high64(second)].entries()) x.setArgument(i, half);
  x.helper('sse', i32(operation), detail);
  return halves(x.argument(0), x.argument(1));
}

/** What (i32s) makes a result doubtful, any of it. */
export type Doubt = (result: Expression) => Expression | Expression[];

/** `usual`, a vector or scalar, unless all doubts hold, each of which is looked at only if those before it do; then what `exactly` gives. */
export function controlled(
  x: Semantics,
  [name, { bits }, lanes]: [name: SseOperation, format: Format, lanes: number],
  [a, b]: [Expression, Expression],
  usual: Expression,
  doubts: Doubt[],
  detail: Expression = i32(0),
): Expression {
  const { f } = x;
  const result = f.local(usual.type);
  f.set(result, usual);
  const first = f.let(f.get(result));
  f.block((done) => {
    for (const doubt of doubts) {
      const reasons = [doubt(first)].flat();
      if (reasons.length === 1) f.branchIf(done, reasons[0].eqz());
      else {
        f.block((doubtful) => {
          for (const reason of reasons) f.branchIf(doubtful, reason);
          f.branch(done);
        });
      }
    }
    if (x.decline()) return;
    const full = exactly(x, sseOperation(name, bits, lanes), a, b, detail);
    f.set(result, usual.type === 'v128' ? full : full.lane(`${usual.type === 'f32' ? 'f32x4' : 'f64x2'}.extract_lane`, 0));
  });
  return f.let(f.get(result));
}

const magnitude = ({ shape }: Format, v: Expression): Expression => apply(`${shape}.abs`, v);
const compareLanes = ({ shape }: Format, comparison: string, a: Expression, b: Expression): Expression =>
  apply(`${shape}.${comparison}`, a, b);
/** Lanes that hold denormal numbers. */
const denormalLanes = (format: Format, v: Expression): Expression =>
  compareLanes(format, 'lt', magnitude(format, v), format.least).and(compareLanes(format, 'ne', v, ZERO));
/** Lanes that are denormal or NaNs, as an i32: what comparing and widening may raise something for. */
export const isPeculiar = (format: Format, v: Expression): Expression =>
  apply('v128.any_true', denormalLanes(format, v).or(isNan(format, v)));

const bitsOf = ({ bits, type }: Format, v: Expression): Expression => apply(`i${bits}.reinterpret_${type}`, v);
const integerOf = ({ bits }: Format, value: bigint): Expression => (bits === 64 ? i64(value) : i32(Number(value)));
/** Whether a scalar is denormal. */
export const isDenormal = (format: Format, v: Expression): Expression => {
  const below = (2n << BigInt(format.fraction)) - 1n;
  return bitsOf(format, v).shl(1).sub(integerOf(format, 1n)).ltU(integerOf(format, below));
};

/** Whether a number's encoding without its sign lies from `first` to `last`: lanes' masks for vectors, an i32 for scalars. */
function isBetween(format: Format, v: Expression, first: bigint, last: bigint): Expression {
  const { bits, integers } = format;
  // A left shift drops the sign.
  if (v.type !== 'v128') return bitsOf(format, v).shl(1).sub(integerOf(format, 2n * first)).leU(integerOf(format, 2n * (last - first)));
  // Vectors compare signed numbers only: what lies in between is moved to the lower end of those.
  const lowest = 1n << BigInt(bits - 1);
  const moved = apply(`${integers}.sub`, apply(`${integers}.shl`, v, i32(1)), lanesOf(bits, [2n * first + lowest]));
  return apply(`${integers}.gt_s`, lanesOf(bits, [2n * (last - first) + 1n + lowest]), moved);
}

/**
 * Some operand is denormal, the result is no normal number, or what is inexact matters: the first look at the result of arithmetic. The
 * least normal number counts as none, for it may have come of rounding what was tiny.
 */
function isUncommon(x: Semantics, format: Format, operands: readonly Expression[]): Doubt {
  return (result) => {
    const least = 1n << BigInt(format.fraction);
    const infinity = (1n << BigInt(format.bits - 1)) - least;
    const denormal = operands.filter((v) => !x.isNormal(v)).map((v) => isBetween(format, v, 1n, least - 1n));
    if (result.type !== 'v128') return [isBetween(format, result, least + 1n, infinity - 1n).eqz(), ...denormal, wantsRounding(x)];
    // From infinity over the sign's end to the least normal number.
    const uncommon = isBetween(format, result, infinity, least + (1n << BigInt(format.bits - 1)));
    return apply(`${format.integers}.bitmask`, [uncommon, ...denormal].reduce((all, one) => all.or(one))).or(wantsRounding(x));
  };
}

const ARITHMETIC = ['add', 'sub', 'mul', 'div', 'sqrt', 'addSubtract'] as const;

/** Lanes of a result, zero or normal, that are certainly exact. The error of a sum is a number, and is found by Knuth's method. */
function exactLanes(f: FunctionBuilder, format: Format, operation: Arithmetic, a: Expression, b: Expression, r: Expression, toNearest: Expression): Expression {
  const { shape, integers, shortMask } = format;
  const op = (name: string, p: Expression, q: Expression): Expression => f.let(apply(`${shape}.${name}`, p, q));
  const short = (v: Expression): Expression => apply(`${integers}.eq`, v.and(shortMask), ZERO);
  const isZero = (v: Expression): Expression => compareLanes(format, 'eq', v, ZERO);
  switch (operation) {
    case 'add':
    case 'sub': {
      const addend = operation === 'add' ? b : f.let(apply(`${shape}.neg`, b));
      const second = op('sub', r, a);
      const error = op('add', op('sub', a, op('sub', r, second)), op('sub', addend, second));
      // The sign of a zero depends on the rounding mode.
      return isZero(error).and(isZero(r).not().or(apply('i32x4.splat', i32(0).sub(toNearest))));
    }
    case 'mul':
      return short(a.or(b)).or(isZero(r));
    case 'div':
      return short(r.or(b)).and(compareLanes(format, 'eq', op('mul', r, b), a)).or(isZero(a));
    case 'sqrt':
      return short(r).and(compareLanes(format, 'eq', op('mul', r, r), a));
    case 'addSubtract':
      return ZERO;
  }
}

/** The second look: zeros are no reason for doubt where they come of zeros, nor is a result that is exact. A function: (a, b, result, rounding and inexactness matter). */
function secondLook(format: Format, operation: Arithmetic): SharedFunction {
  return {
    name: `sse_second_look_${operation}_${format.shape}`,
    signature: { parameters: ['v128', 'v128', 'v128', 'i32', 'i32'], results: ['i32'] },
    inlined: true,
    build(f, a, b, r, wanted, toNearest) {
      const isNonzero = (v: Expression): Expression => compareLanes(format, 'ne', v, ZERO);
      const size = f.let(magnitude(format, r));
      const tiny = compareLanes(format, 'le', size, format.least);
      // A sum or a root of normal numbers and zeros is zero where it is exactly that.
      const fromNonzero = operation === 'mul' ? isNonzero(a).and(isNonzero(b)) : operation === 'div' ? isNonzero(a) : isNonzero(r);
      const finite = compareLanes(format, 'lt', size, format.infinity);
      const bad = denormalLanes(format, a).or(denormalLanes(format, b)).or(tiny.and(fromNonzero)).or(finite.not());
      const doubtful = f.local('i32');
      f.set(doubtful, apply('v128.any_true', bad));
      f.if(wanted.gtU(f.get(doubtful)), () => {
        f.set(doubtful, apply(`${format.integers}.all_true`, exactLanes(f, format, operation, a, b, r, toNearest)).eqz());
      });
      return [f.get(doubtful)];
    },
  };
}

type Arithmetic = (typeof ARITHMETIC)[number];
const secondLooks = new Map([SINGLE, DOUBLE].map((format) => [format, new Map(ARITHMETIC.map((operation) => [operation, secondLook(format, operation)]))]));

function isDoubtful(x: Semantics, format: Format, operation: Arithmetic, a: Expression, b: Expression): Doubt {
  return (result) => {
    const [va, vb, r] = [a, b, result].map((v) => (v.type === 'v128' ? v : splatFloat(format, v)));
    const look = secondLooks.get(format)?.get(operation) as SharedFunction;
    return x.shared(look, va, vb, r, wantsRounding(x), x.mxcsrDiffers(ROUNDING, 0).eqz())[0];
  };
}

/** Doubts about the result of arithmetic on `a` and `b`. */
const doubtsOf = (x: Semantics, format: Format, operation: Arithmetic, a: Expression, b: Expression): Doubt[] => [
  isUncommon(x, format, a === b ? [a] : [a, b]),
  isDoubtful(x, format, operation, a, b),
];

/** Arithmetic as MXCSR wants it, on vectors or scalars. Compiled code knows of what it gives that it is not denormal. */
function computed(x: Semantics, format: Format, operation: Arithmetic, a: Expression, b: Expression, usual: Expression): Expression {
  const lanes = usual.type === 'v128' ? 128 / format.bits : 1;
  const result = controlled(x, [operation, format, lanes], [a, b], usual, doubtsOf(x, format, operation, a, b));
  x.noteNormal(result);
  return result;
}

/** `a operation b` on vectors as MXCSR wants it. */
export const arithmetic = (x: Semantics, format: Format, operation: 'add' | 'sub' | 'mul' | 'div', a: Expression, b: Expression): Expression =>
  computed(x, format, operation, a, b, apply(`${format.shape}.${operation}`, a, b));

// --- ADD, SUB, MUL, DIV, SQRT -------------------------------------------------------------------------

for (const [name, operation, opcode] of [
  ['ADD', 'add', '58'],
  ['MUL', 'mul', '59'],
  ['SUB', 'sub', '5C'],
  ['DIV', 'div', '5E'],
] as const) {
  for (const [suffix, prefix, size, format] of PACKED) {
    instruction(
      `${name}${suffix}`,
      `${prefix} 0F ${opcode} V${size} W${size}`,
      { access: 'mr', hot: true },
      (x, destination, source) => {
        x.requireSse();
        const b = source.vector();
        destination.writeVector(arithmetic(x, format, operation, destination.vector(), b));
      },
    );
  }
  for (const [suffix, prefix, size, format] of SCALAR) {
    instruction(
      `${name}${suffix}`,
      `${prefix} 0F ${opcode} V${size} W${size}`,
      { access: 'mr', hot: true },
      (x, destination, source) => {
        x.requireSse();
        const b = scalar(source, format);
        const a = scalar(destination, format);
        destination.writeLow(computed(x, format, operation, a, b, a.op(operation, b)), format.bits);
      },
    );
  }
}

for (const [suffix, prefix, size, format] of PACKED) {
  instruction(`SQRT${suffix}`, `${prefix} 0F 51 V${size} W${size}`, { access: 'wr' }, (x, destination, source) => {
    x.requireSse();
    const v = source.vector();
    destination.writeVector(computed(x, format, 'sqrt', v, v, apply(`${format.shape}.sqrt`, v)));
  });
}
for (const [suffix, prefix, size, format] of SCALAR) {
  instruction(`SQRT${suffix}`, `${prefix} 0F 51 V${size} W${size}`, { access: 'wr', hot: true }, (x, destination, source) => {
    x.requireSse();
    const v = scalar(source, format);
    destination.writeLow(computed(x, format, 'sqrt', v, v, v.op('sqrt')), format.bits);
  });
}

/** Whether one of two scalars is a NaN. */
const isUnordered = (a: Expression, b: Expression): Expression => a.ne(a).or(b.ne(b));

// --- MIN and MAX: the second operand where either is a NaN or both are zero -------------------------------

for (const [name, opcode, operation] of [
  ['MIN', '5D', 'min'],
  ['MAX', '5F', 'max'],
] as const) {
  for (const [suffix, prefix, size, format] of PACKED) {
    instruction(`${name}${suffix}`, `${prefix} 0F ${opcode} V${size} W${size}`, { access: 'mr' }, (x, destination, source) => {
      x.requireSse();
      const b = source.vector();
      const a = destination.vector();
      // pmin(b, a) is a < b ? a : b.
      const usual = apply(`${format.shape}.p${operation}`, b, a);
      const peculiar = (): Expression => isPeculiar(format, a).or(isPeculiar(format, b));
      destination.writeVector(controlled(x, [operation, format, 128 / format.bits], [a, b], usual, [peculiar]));
    });
  }
  for (const [suffix, prefix, size, format] of SCALAR) {
    instruction(
      `${name}${suffix}`,
      `${prefix} 0F ${opcode} V${size} W${size}`,
      { access: 'mr', hot: true },
      (x, destination, source) => {
        x.requireSse();
        const b = scalar(source, format);
        const a = scalar(destination, format);
        const usual = select(a.op(name === 'MIN' ? 'lt' : 'gt', b), a, b);
        const peculiar = (): Expression => isUnordered(a, b).or(isDenormal(format, a)).or(isDenormal(format, b));
        destination.writeLow(controlled(x, [operation, format, 1], [a, b], usual, [peculiar]), format.bits);
      },
    );
  }
}

// --- Reciprocals --------------------------------------------------------------------------------------

/** `v` where `keep`, elsewhere a zero of its sign. */
const orZero = (keep: Expression, v: Expression): Expression => v.and(keep.or(SINGLE.sign));
const ONES = lanesOf(32, [0x3f80_0000]);
const SMALLEST_NORMAL = lanesOf(32, [0x0080_0000]);
/** Its reciprocal, and that of all above, is flushed to zero. */
const TWO_TO_126 = lanesOf(32, [0x7e80_0000]);

for (const [name, opcode] of [
  ['RCP', '53'],
  ['RSQRT', '52'],
]) {
  // A denormal operand counts as zero.
  const approximate = (x: Semantics, v: Expression): Expression => {
    const magnitude = x.f.let(apply('f32x4.abs', v));
    const operand = x.f.let(orZero(apply('f32x4.lt', magnitude, SMALLEST_NORMAL).not(), v));
    if (name === 'RSQRT') return withNans(x, SINGLE, v, v, apply('f32x4.div', ONES, apply('f32x4.sqrt', operand)));
    return orZero(apply('f32x4.ge', magnitude, TWO_TO_126).not(), withNans(x, SINGLE, v, v, apply('f32x4.div', ONES, operand)));
  };
  instruction(`${name}PS`, `NP 0F ${opcode} Vps Wps`, { access: 'wr' }, (x, destination, source) => {
    x.requireSse();
    destination.writeVector(approximate(x, source.vector()));
  });
  instruction(`${name}SS`, `F3 0F ${opcode} Vss Wss`, { access: 'wr' }, (x, destination, source) => {
    x.requireSse();
    destination.writeLow(approximate(x, x.f.let(splatFloat(SINGLE, scalar(source, SINGLE)))), 32);
  });
}

// --- SSE3: alternating and horizontal sums ------------------------------------------------------------

for (const [suffix, prefix, format, odd] of [
  ['PS', 'F2', SINGLE, [0, 5, 2, 7]],
  ['PD', '66', DOUBLE, [0, 3]],
] as const) {
  instruction(`ADDSUB${suffix}`, `${prefix} 0F D0 Vdq Wdq`, { access: 'mr', feature: 'pni' }, (x, destination, source) => {
    x.requireSse();
    const b = source.vector();
    const a = destination.vector();
    const usual = gather(apply(`${format.shape}.sub`, a, b), apply(`${format.shape}.add`, a, b), format.bits, odd);
    destination.writeVector(computed(x, format, 'addSubtract', a, b, usual));
  });
  for (const [name, opcode, operation] of [
    ['HADD', '7C', 'add'],
    ['HSUB', '7D', 'sub'],
  ] as const) {
    instruction(`${name}${suffix}`, `${prefix} 0F ${opcode} Vdq Wdq`, { access: 'mr', feature: 'pni' }, (x, destination, source) => {
      x.requireSse();
      const b = source.vector();
      const a = destination.vector();
      const [first, second] = ([0, 1] as const).map((i) => x.f.let(everySecond(a, b, format.bits, i)));
      destination.writeVector(arithmetic(x, format, operation, first, second));
    });
  }
}

// --- Comparisons --------------------------------------------------------------------------------------

/** Whether `a` is at least, and at most, `b`. */
function comparison(x: Semantics, operation: SseOperation, format: Format, a: Expression, b: Expression): Expression[] {
  const { f } = x;
  const [atLeast, atMost] = [f.local('i32'), f.local('i32')];
  f.set(atLeast, a.op('ge', b));
  f.set(atMost, a.op('le', b));
  const unordered = f.get(atLeast).or(f.get(atMost)).eqz();
  f.if(unordered.or(isDenormal(format, a)).or(isDenormal(format, b)), () => {
    const relation = f.let(low64(exactly(x, sseOperation(operation, format.bits, 1), a, b)).wrap());
    f.set(atLeast, relation.and(1));
    f.set(atMost, relation.shrU(1));
  });
  return [f.let(f.get(atLeast)), f.let(f.get(atMost))];
}

// Predicates 0 to 7: EQ, LT, LE, UNORD and their opposites NEQ, NLT, NLE, ORD.
for (const [suffix, prefix, size, format] of PACKED) {
  instruction(`CMP${suffix}`, `${prefix} 0F C2 V${size} W${size} Ib`, { access: 'mrr' }, (x, destination, source, immediate) => {
    x.requireSse();
    const b = source.vector();
    const a = destination.vector();
    const predicate = byteOf(x, immediate);
    const compare = (name: string): Expression => apply(`${format.shape}.${name}`, a, b);
    // Where something is unordered, TypeScript is asked.
    const holds = pick(x, predicate.and(3), compare('eq'), compare('lt'), compare('le'), ZERO);
    const usual = holds.xor(apply('i32x4.splat', i32(0).sub(predicate.shrU(2).and(1))));
    const peculiar = (): Expression => isPeculiar(format, a).or(isPeculiar(format, b));
    destination.writeVector(controlled(x, ['compare', format, 128 / format.bits], [a, b], usual, [peculiar], predicate.and(7)));
  });
}
for (const [suffix, prefix, size, format] of SCALAR) {
  instruction(`CMP${suffix}`, `${prefix} 0F C2 V${size} W${size} Ib`, { access: 'mrr' }, (x, destination, source, immediate) => {
    x.requireSse();
    const b = scalar(source, format);
    const a = scalar(destination, format);
    const predicate = byteOf(x, immediate);
    const holds = pick(x, predicate.and(3), a.op('eq', b), a.op('lt', b), a.op('le', b), i32(0));
    const usual = splat(64, i32(0).sub(holds.xor(predicate.shrU(2).and(1))).extendS());
    const peculiar = (): Expression => isUnordered(a, b).or(isDenormal(format, a)).or(isDenormal(format, b));
    const mask = controlled(x, ['compare', format, 1], [a, b], usual, [peculiar], predicate.and(7));
    destination.writeLow(low64(mask), format.bits);
  });
  // UCOMI differs from COMI only in when it signals an invalid operation.
  for (const [name, operation, opcode] of [
    ['UCOMI', 'ucomi', '2E'],
    ['COMI', 'comi', '2F'],
  ] as const) {
    instruction(
      `${name}${suffix}`,
      `${format.bits === 32 ? 'NP' : '66'} 0F ${opcode} V${size} W${size}`,
      { access: 'rr', hot: true },
      (x, first, second) => {
        x.requireSse();
        const b = scalar(second, format);
        const a = scalar(first, format);
        const [atLeast, atMost] = comparison(x, operation, format, a, b);
        // Equal: both. Unordered: neither; ZF, PF and CF are set.
        x.setFlags({
          zero: atLeast.xor(atMost).extendU(),
          sign: atLeast.or(atMost).extendU(),
          carry: atLeast.eqz().extendU().shl(63),
          overflow: 0,
        });
      },
    );
  }
}

// --- Logic and shuffles -------------------------------------------------------------------------------

for (const [name, opcode, operation] of [
  ['AND', '54', (a: Expression, b: Expression) => a.and(b)],
  ['ANDN', '55', (a: Expression, b: Expression) => apply('v128.andnot', b, a)],
  ['OR', '56', (a: Expression, b: Expression) => a.or(b)],
  ['XOR', '57', (a: Expression, b: Expression) => a.xor(b)],
  ['UNPCKL', '14', null],
  ['UNPCKH', '15', null],
] as const) {
  for (const [suffix, prefix, size, format] of PACKED) {
    instruction(
      `${name}${suffix}`,
      `${prefix} 0F ${opcode} V${size} W${size}`,
      { access: 'mr', hot: true },
      (x, destination, source) => {
        x.requireSse();
        const b = source.vector();
        const a = destination.vector();
        destination.writeVector(operation ? operation(a, b) : interleave(a, b, format.bits, name === 'UNPCKL' ? 0 : 1));
      },
    );
  }
}

instruction('SHUFPS', 'NP 0F C6 Vps Wps Ib', { access: 'mrr' }, (x, destination, source, immediate) => {
  x.requireSse();
  const b = source.vector();
  const control = x.f.let(controlByFields(byteOf(x, immediate), DOUBLEWORDS));
  destination.writeVector(gather(swizzle(destination.vector(), control), swizzle(b, control), 64, [0, 3]));
});
instruction('SHUFPD', '66 0F C6 Vpd Wpd Ib', { access: 'mrr' }, (x, destination, source, immediate) => {
  x.requireSse();
  const b = source.vector();
  const a = destination.vector();
  destination.writeVector(
    merge(
      lanesByBits(byteOf(x, immediate), 64, (lane) => lane),
      interleave(a, b, 64, 1),
      interleave(a, b, 64, 0),
    ),
  );
});
