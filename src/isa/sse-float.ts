/**
 * Floating-point arithmetic of SSE, SSE2 and SSE3: sums to square roots, comparisons, logic, shuffles. SDM 2A and 2B.
 *
 * NaN results are x86's on every host: WebAssembly leaves their bits open (V8 swaps operands of commutative
 * instructions, ARM prefers signalling ones), so a result that is a NaN is made again by the rule (SDM 1 table 4-7);
 * other results cost one comparison for it.
 * What MXCSR may want besides, other rounding, denormals as zeros, flushing to zero, exceptions unmasked, sends an
 * instruction to TypeScript (cpu/sse-unit.ts), which then keeps MXCSR's exception flags too.
 * Simplified: otherwise the flags stay as they are. RCP and RSQRT give the correctly rounded result, within the
 * 1.5 × 2^-12 that the manual allows; processors differ in theirs.
 */

import { DAZ, FTZ, MASKS, ROUNDING, type SseOperation, sseOperation } from '../cpu/sse-unit.ts';
import { MXCSR } from '../cpu/state.ts';
import { apply, type Expression, i32, select } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import type { Operand, Semantics } from './semantics.ts';
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
  swizzle,
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
}

export const SINGLE: Format = {
  bits: 32,
  shape: 'f32x4',
  integers: 'i32x4',
  type: 'f32',
  sign: lanesOf(32, [0x8000_0000]),
  quiet: lanesOf(32, [0x0040_0000]),
  indefinite: lanesOf(32, [0xffc0_0000]),
};
export const DOUBLE: Format = {
  bits: 64,
  shape: 'f64x2',
  integers: 'i64x2',
  type: 'f64',
  sign: lanesOf(64, [1n << 63n]),
  quiet: lanesOf(64, [1n << 51n]),
  indefinite: lanesOf(64, [0xfff8n << 48n]),
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

/** The low element of a vector operand as an f32 or f64. */
export const scalar = (operand: Operand, { bits }: Format): Expression =>
  bits === 32 ? apply('f32.reinterpret_i32', operand.unsigned().wrap()) : apply('f64.reinterpret_i64', operand.unsigned());

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

/** The same for scalars. */
export function withNan(x: Semantics, format: Format, a: Expression, b: Expression, result: Expression): Expression {
  const { f } = x;
  const fixed = f.local(format.type);
  f.set(fixed, result);
  f.if(f.get(fixed).ne(f.get(fixed)), () => {
    const [va, vb, vr] = [a, b, f.get(fixed)].map((value) => f.let(splatFloat(format, value)));
    f.set(fixed, nanRule(format, va, vb, vr).lane(`${format.shape}.extract_lane`, 0));
  });
  return f.get(fixed);
}

/** `a operation b` on vectors. */
export const arithmetic = (x: Semantics, format: Format, operation: string, a: Expression, b: Expression): Expression =>
  withNans(x, format, a, b, apply(`${format.shape}.${operation}`, a, b));

/** What of MXCSR can change an instruction's result, besides unmasked exceptions. */
export const Concern = { nothing: 0, operands: DAZ, rounding: ROUNDING, all: DAZ | FTZ | ROUNDING } as const;

/** The operation in TypeScript on vectors or scalars, which may raise #XM; gives its result as a vector. */
export function exactly(x: Semantics, operation: number, a: Expression, b: Expression, detail: Expression = i32(0)): Expression {
  const vector = (v: Expression): Expression => (v.type === 'v128' ? v : splat(v.type === 'f32' ? SINGLE : DOUBLE, v));
  const splat = ({ shape }: Format, v: Expression): Expression => apply(`${shape}.splat`, v);
  const [first, second] = [vector(a), vector(b)];
  for (const [i, half] of [low64(first), high64(first), low64(second), high64(second)].entries()) x.setArgument(i, half);
  x.helper('sse', i32(operation), detail);
  return halves(x.argument(0), x.argument(1));
}

/** `usual`, a vector or scalar, where MXCSR is as after reset in what concerns the operation; else what `exactly` gives. */
export function controlled(
  x: Semantics,
  concern: number,
  [name, { bits }, lanes]: [name: SseOperation, format: Format, lanes: number],
  [a, b]: [Expression, Expression],
  type: 'v128' | 'f32' | 'f64',
  usual: () => Expression,
  detail: Expression = i32(0),
): Expression {
  const { f } = x;
  const result = f.local(type);
  f.if(
    isUsual(x, concern),
    () => f.set(result, usual()),
    () => {
      const full = exactly(x, sseOperation(name, bits, lanes), a, b, detail);
      f.set(result, type === 'v128' ? full : full.lane(`${type === 'f32' ? 'f32x4' : 'f64x2'}.extract_lane`, 0));
    },
  );
  return f.let(f.get(result));
}

/** Whether MXCSR is as after reset in what concerns an operation. */
export const isUsual = (x: Semantics, concern: number): Expression => x.state32(MXCSR).and(MASKS | concern).eq(MASKS);

/** `a operation b` on vectors as MXCSR wants it. */
const packed = (x: Semantics, format: Format, operation: SseOperation, a: Expression, b: Expression): Expression =>
  controlled(x, Concern.all, [operation, format, 128 / format.bits], [a, b], 'v128', () =>
    arithmetic(x, format, operation, a, b),
  );

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
        destination.writeVector(packed(x, format, operation, destination.vector(), b));
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
        const b = x.f.let(scalar(source, format));
        const a = x.f.let(scalar(destination, format));
        const usual = (): Expression => withNan(x, format, a, b, a.op(operation, b));
        destination.writeLow(controlled(x, Concern.all, [operation, format, 1], [a, b], format.type, usual), format.bits);
      },
    );
  }
}

for (const [suffix, prefix, size, format] of PACKED) {
  instruction(`SQRT${suffix}`, `${prefix} 0F 51 V${size} W${size}`, { access: 'wr' }, (x, destination, source) => {
    x.requireSse();
    const v = source.vector();
    const usual = (): Expression => withNans(x, format, v, v, apply(`${format.shape}.sqrt`, v));
    destination.writeVector(controlled(x, Concern.all, ['sqrt', format, 128 / format.bits], [v, v], 'v128', usual));
  });
}
for (const [suffix, prefix, size, format] of SCALAR) {
  instruction(`SQRT${suffix}`, `${prefix} 0F 51 V${size} W${size}`, { access: 'wr', hot: true }, (x, destination, source) => {
    x.requireSse();
    const v = x.f.let(scalar(source, format));
    const usual = (): Expression => withNan(x, format, v, v, v.op('sqrt'));
    destination.writeLow(controlled(x, Concern.all, ['sqrt', format, 1], [v, v], format.type, usual), format.bits);
  });
}

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
      const usual = (): Expression => apply(`${format.shape}.p${operation}`, b, a);
      destination.writeVector(controlled(x, Concern.operands, [operation, format, 128 / format.bits], [a, b], 'v128', usual));
    });
  }
  for (const [suffix, prefix, size, format] of SCALAR) {
    instruction(
      `${name}${suffix}`,
      `${prefix} 0F ${opcode} V${size} W${size}`,
      { access: 'mr', hot: true },
      (x, destination, source) => {
        x.requireSse();
        const b = x.f.let(scalar(source, format));
        const a = x.f.let(scalar(destination, format));
        const usual = (): Expression => select(a.op(name === 'MIN' ? 'lt' : 'gt', b), a, b);
        destination.writeLow(controlled(x, Concern.operands, [operation, format, 1], [a, b], format.type, usual), format.bits);
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
    const usual = (): Expression =>
      withNans(x, format, a, b, gather(apply(`${format.shape}.sub`, a, b), apply(`${format.shape}.add`, a, b), format.bits, odd));
    destination.writeVector(controlled(x, Concern.all, ['addSubtract', format, 128 / format.bits], [a, b], 'v128', usual));
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
      destination.writeVector(packed(x, format, operation, first, second));
    });
  }
}

// --- Comparisons --------------------------------------------------------------------------------------

/** Whether `a` is at least, and at most, `b`. */
function comparison(x: Semantics, operation: SseOperation, format: Format, a: Expression, b: Expression): Expression[] {
  const { f } = x;
  const [atLeast, atMost] = [f.local('i32'), f.local('i32')];
  f.if(
    isUsual(x, Concern.operands),
    () => {
      f.set(atLeast, a.op('ge', b));
      f.set(atMost, a.op('le', b));
    },
    () => {
      const relation = f.let(low64(exactly(x, sseOperation(operation, format.bits, 1), a, b)).wrap());
      f.set(atLeast, relation.and(1));
      f.set(atMost, relation.shrU(1));
    },
  );
  return [f.let(f.get(atLeast)), f.let(f.get(atMost))];
}

// Predicates 0 to 7: EQ, LT, LE, UNORD and their opposites NEQ, NLT, NLE, ORD.
for (const [suffix, prefix, size, format] of PACKED) {
  instruction(`CMP${suffix}`, `${prefix} 0F C2 V${size} W${size} Ib`, { access: 'mrr' }, (x, destination, source, immediate) => {
    x.requireSse();
    const b = source.vector();
    const a = destination.vector();
    const predicate = byteOf(x, immediate);
    const usual = (): Expression => {
      const compare = (name: string): Expression => apply(`${format.shape}.${name}`, a, b);
      const holds = pick(x, predicate.and(3), compare('eq'), compare('lt'), compare('le'), isNan(format, a).or(isNan(format, b)));
      return holds.xor(apply('i32x4.splat', i32(0).sub(predicate.shrU(2).and(1))));
    };
    destination.writeVector(
      controlled(x, Concern.operands, ['compare', format, 128 / format.bits], [a, b], 'v128', usual, predicate.and(7)),
    );
  });
}
for (const [suffix, prefix, size, format] of SCALAR) {
  instruction(`CMP${suffix}`, `${prefix} 0F C2 V${size} W${size} Ib`, { access: 'mrr' }, (x, destination, source, immediate) => {
    x.requireSse();
    const b = x.f.let(scalar(source, format));
    const a = x.f.let(scalar(destination, format));
    const predicate = byteOf(x, immediate);
    const usual = (): Expression => {
      const holds = pick(x, predicate.and(3), a.op('eq', b), a.op('lt', b), a.op('le', b), a.op('ne', a).or(b.op('ne', b)));
      return apply('i64x2.splat', i32(0).sub(holds.xor(predicate.shrU(2).and(1))).extendS());
    };
    const mask = controlled(x, Concern.operands, ['compare', format, 1], [a, b], 'v128', usual, predicate.and(7));
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
        const b = x.f.let(scalar(second, format));
        const a = x.f.let(scalar(first, format));
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
