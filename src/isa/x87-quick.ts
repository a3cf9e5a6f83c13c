/**
 * What x87 instructions do in the ordinary case, by the names that the operations have in cpu/x87/x87.ts, which defines them for all
 * cases: in WebAssembly, with x87-arithmetic.ts, on the stack that x87-stack.ts describes. Not here: transcendental functions,
 * remainders, roots, packed decimals, environments. SDM 1 chapter 8.
 */

import { INFINITE_EXPONENT, SIGN } from '../cpu/x87/float80.ts';
import { C0, C1, C2, C3, CONTROL_FIXED, CONTROL_WRITABLE } from '../cpu/x87/register-stack.ts';
import { X87_CONSTANTS, type X87OperationName } from '../cpu/x87/x87.ts';
import { type Expression, i32, i64, select } from '../wasm/expression.ts';
import type { Operand, Semantics, SharedFunction } from './semantics.ts';
import { ADD, COMPARE, DIVIDE, FLAGS_SHIFT, FROM_FLOAT, FROM_INTEGER, MULTIPLY, RARE, TO_FLOAT, TO_INTEGER } from './x87-arithmetic.ts';
import { type Float80Value, QUICK_CONTROL, QUICK_CONTROL_MASK, type StackIndex, type X87Stack } from './x87-stack.ts';

/** An operation on the stack; on a memory operand's bits (an i64, and 16 bits more in another one), or to memory. */
type QuickWay = (x: Semantics, s: X87Stack, i: StackIndex) => void;
type QuickLoad = (x: Semantics, s: X87Stack, low: Expression, high: Expression) => void;
type QuickStore = (x: Semantics, s: X87Stack, memory: Operand) => void;

const NOTHING = i32(0);
const ZERO: Float80Value = { significand: i64(0), signExponent: i32(0) };

/** FCW's rounding control: all ones is towards zero. */
const TOWARDS_ZERO = 0xc00;

/** Calls a function of x87-arithmetic.ts that gives a number or bits, and flags; gives up where it does. */
function computed(x: Semantics, s: X87Stack, target: SharedFunction, ...operands: Expression[]): { result: Expression; rest: Expression; flags: Expression } {
  const [result, rest] = x.shared(target, ...operands);
  s.giveUpIf(rest.eq(RARE));
  return { result, rest: rest.and(0xffff), flags: x.f.let(rest.shrU(FLAGS_SHIFT)) };
}

type Arithmetic = 'add' | 'sub' | 'subr' | 'mul' | 'div' | 'divr';
const FUNCTIONS = { add: ADD, sub: ADD, subr: ADD, mul: MULTIPLY, div: DIVIDE, divr: DIVIDE };

/** `a operation b`, to ST(destination). Where it is reversed, `b operation a`. */
function arithmetic(x: Semantics, s: X87Stack, operation: Arithmetic, a: Float80Value, b: Float80Value, destination: StackIndex): void {
  const [left, right] = operation.endsWith('r') ? [b, a] : [a, b];
  const rightSe = operation.startsWith('sub') ? right.signExponent.xor(SIGN) : right.signExponent;
  const { result, rest, flags } = computed(x, s, FUNCTIONS[operation], left.significand, left.signExponent, right.significand, rightSe, s.control);
  s.settle(flags);
  s.write(destination, { significand: result, signExponent: x.f.let(rest) });
}

/** LESS, EQUAL, GREATER as numbers: 0, 1, 2. */
function relation(x: Semantics, s: X87Stack, a: Float80Value, b: Float80Value): Expression {
  const [result] = x.shared(COMPARE, a.significand, a.signExponent, b.significand, b.signExponent);
  s.giveUpIf(result.eq(RARE));
  return result;
}

function compare(x: Semantics, s: X87Stack, a: Float80Value, b: Float80Value, pops: number): void {
  const result = relation(x, s, a, b);
  s.settle(NOTHING);
  s.setConditions(select(result.eqz(), i32(C0), select(result.eq(1), i32(C3), NOTHING)));
  for (let n = 0; n < pops; n++) s.pop();
}

const compareRegisters =
  (pops: number): QuickWay =>
  (x, s, i) =>
    compare(x, s, s.read(0), s.read(i), pops);

/** To ZF, PF and CF; C1 stays. */
const compareToFlags =
  (pops: number): QuickWay =>
  (x, s, i) => {
    const result = relation(x, s, s.read(0), s.read(i));
    x.setFlags({ zero: result.xor(1).extendU(), sign: 1, carry: result.eqz().extendU().shl(63), overflow: 0 });
    if (pops) s.pop();
  };

const moveIf =
  (condition: number): QuickWay =>
  (x, s, i) => {
    const holds = x.condition(condition);
    const [top, other] = [s.read(0), s.read(i)];
    const picked = (part: keyof Float80Value): Expression => x.f.let(select(holds, other[part], top[part]));
    s.write(0, { significand: picked('significand'), signExponent: picked('signExponent') });
  };

function push(s: X87Stack, value: Float80Value): void {
  s.requireRoom();
  s.settle(NOTHING);
  s.push(value);
}

/** Constants are rounded as the control word says. */
const constant =
  ([signExponent, high, low, behind]: readonly [number, number, number, number]): QuickWay =>
  (_, s) => {
    if (behind) s.giveUpIf(s.control.and(TOWARDS_ZERO));
    const truncated = (BigInt(high) << 32n) | BigInt(low);
    push(s, { significand: i64(truncated + (behind >= 0x8000_0000 ? 1n : 0n)), signExponent: i32(signExponent) });
  };

const changeSign =
  (change: (signExponent: Expression) => Expression): QuickWay =>
  (x, s) => {
    const { significand, signExponent } = s.read(0);
    s.settle(NOTHING);
    s.write(0, { significand, signExponent: x.f.let(change(signExponent)) });
  };

const store =
  (pops: boolean): QuickWay =>
  (_, s, i) => {
    const value = s.read(0);
    s.settle(NOTHING);
    s.write(i, value);
    if (pops) s.pop();
  };

const free =
  (pops: boolean): QuickWay =>
  (_, s, i) => {
    s.settle(NOTHING);
    s.free(i);
    if (pops) s.pop();
  };

const ON_STACK: Partial<Record<X87OperationName, QuickWay>> = {
  fnop() {},
  fwait() {},
  fld1: constant(X87_CONSTANTS.fld1),
  fldl2t: constant(X87_CONSTANTS.fldl2t),
  fldl2e: constant(X87_CONSTANTS.fldl2e),
  fldpi: constant(X87_CONSTANTS.fldpi),
  fldlg2: constant(X87_CONSTANTS.fldlg2),
  fldln2: constant(X87_CONSTANTS.fldln2),
  fldz: (_, s) => push(s, ZERO),
  fchs: changeSign((signExponent) => signExponent.xor(SIGN)),
  fabs: changeSign((signExponent) => signExponent.and(~SIGN)),
  fld_sti: (_, s, i) => push(s, s.read(i)),
  fxch_sti(_, s, i) {
    const [top, other] = [s.read(0), s.read(i)];
    s.settle(NOTHING);
    s.write(0, other);
    s.write(i, top);
  },
  fst_sti: store(false),
  fstp_sti: store(true),
  ffree_sti: free(false),
  ffreep_sti: free(true),
  fcmovb_sti: moveIf(2),
  fcmovnb_sti: moveIf(3),
  fcmove_sti: moveIf(4),
  fcmovne_sti: moveIf(5),
  fcmovbe_sti: moveIf(6),
  fcmovnbe_sti: moveIf(7),
  fcmovu_sti: moveIf(10),
  fcmovnu_sti: moveIf(11),
  // Only NaNs are compared differently by the two kinds.
  fcom_sti: compareRegisters(0),
  fucom_sti: compareRegisters(0),
  fcomp_sti: compareRegisters(1),
  fucomp_sti: compareRegisters(1),
  fcompp: (x, s) => compare(x, s, s.read(0), s.read(1), 2),
  fucompp: (x, s) => compare(x, s, s.read(0), s.read(1), 2),
  fcomi_sti: compareToFlags(0),
  fucomi_sti: compareToFlags(0),
  fcomip_sti: compareToFlags(1),
  fucomip_sti: compareToFlags(1),
  ftst: (x, s) => compare(x, s, s.read(0), ZERO, 0),
  fxam(x, s) {
    const { significand, signExponent } = s.read(0);
    const exponent = x.f.let(signExponent.and(INFINITE_EXPONENT));
    const special = select(significand.shl(1).eqz(), i32(C2 | C0), i32(C0));
    const withIntegerBit = select(exponent.eq(INFINITE_EXPONENT), special, i32(C2));
    const tiny = select(significand.eqz(), i32(C3), i32(C3 | C2));
    s.settle(signExponent.shrU(15).mul(C1));
    s.setConditions(x.f.let(select(exponent.eqz(), tiny, select(significand.ltS(0), withIntegerBit, NOTHING))));
  },
};

/** Memory operands as numbers: floats of 32 and 64 bits, integers. */
function loaded(x: Semantics, s: X87Stack, isInteger: boolean, bits: number, low: Expression): Float80Value {
  const target = isInteger ? FROM_INTEGER : FROM_FLOAT[bits as 32 | 64];
  const { result, rest } = computed(x, s, target, isInteger ? x.f.let(low.signExtend(bits)) : low);
  return { significand: result, signExponent: x.f.let(rest) };
}

/** A quick way for an operation that takes its operands from the stack. */
export function quickWay(name: X87OperationName): QuickWay | undefined {
  const parts = /^f(add|subr?|mul|divr?)(p?)_(st0_sti|sti_st0)$/.exec(name);
  if (!parts) return ON_STACK[name];
  const [, operation, pops, places] = parts;
  return (x, s, i) => {
    const [destination, source]: StackIndex[] = places === 'st0_sti' ? [0, i] : [i, 0];
    arithmetic(x, s, operation as Arithmetic, s.read(destination), s.read(source), destination);
    if (pops) s.pop();
  };
}

/** A quick way for an operation with a memory operand of so many bits that it reads. */
export function quickLoad(name: X87OperationName, bits: number): QuickLoad | undefined {
  if (name === 'fldcw') {
    return (x, s, low) => {
      const control = x.f.let(low.wrap().and(CONTROL_WRITABLE).or(CONTROL_FIXED));
      s.giveUpIf(control.and(QUICK_CONTROL_MASK).ne(QUICK_CONTROL));
      s.setControl(control);
    };
  }
  if (name === 'fld_m80') return (x, s, low, high) => push(s, { significand: low, signExponent: x.f.let(high.wrap()) });
  const parts = /^f(i?)(ld|add|subr?|mul|divr?|comp?)_m/.exec(name);
  if (!parts) return undefined;
  const [, integer, operation] = parts;
  return (x, s, low) => {
    const value = loaded(x, s, integer !== '', bits, low);
    if (operation === 'ld') return push(s, value);
    const top = s.read(0);
    if (operation.startsWith('com')) compare(x, s, top, value, operation === 'comp' ? 1 : 0);
    else arithmetic(x, s, operation as Arithmetic, top, value, 0);
  };
}

/** A quick way for an operation that writes a memory operand of so many bits. */
export function quickStore(name: X87OperationName, bits: number): QuickStore | undefined {
  if (name === 'fnstcw') return (x, s, memory) => x.store(memory.linear(), 16, s.control.extendU());
  if (name === 'fnstsw') return (x, s, memory) => x.store(memory.linear(), 16, s.status().extendU());
  if (name === 'fstp_m80') {
    return (x, s, memory) => {
      const { significand, signExponent } = s.read(0);
      const address = memory.linear();
      const behind = x.f.let(address.add(8));
      x.load(address, 64, 'unsigned', 'modify');
      x.load(behind, 16, 'unsigned', 'modify');
      x.store(address, 64, significand);
      x.store(behind, 16, signExponent.extendU());
      s.settle(NOTHING);
      s.pop();
    };
  }
  const parts = /^f(i?)st(t?)(p?)_m/.exec(name);
  if (!parts) return undefined;
  const [, isInteger, truncates, pops] = parts;
  return (x, s, memory) => {
    const { significand, signExponent } = s.read(0);
    const { result, flags } = isInteger
      ? computed(x, s, TO_INTEGER, significand, signExponent, truncates ? s.control.or(TOWARDS_ZERO) : s.control, i64(2n ** BigInt(bits - 1) - 1n))
      : computed(x, s, TO_FLOAT[bits as 32 | 64], significand, signExponent, s.control);
    x.store(memory.linear(), bits as 16 | 32 | 64, result);
    s.settle(flags);
    if (pops) s.pop();
  };
}
