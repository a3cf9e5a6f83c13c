/**
 * The comparison of packed strings: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM up to their intermediate result 2. SDM 2B 4.1. What the
 * immediate chooses is chosen when code is made where it is known then, as in compiled code; the interpreter jumps to the code of its format
 * and aggregation.
 */

import { apply, type Expression, i32, select } from '../wasm/expression.ts';
import type { FunctionBuilder } from '../wasm/function-builder.ts';
import type { ValueType } from '../wasm/opcodes.ts';
import type { SharedFunction } from './semantics.ts';
import { known, lanesOf, SHAPE, splat, swizzle, ZERO } from './vector.ts';

const POLARITY_NEGATIVE = 0x10;
const POLARITY_MASKED = 0x20;

/** Bits 0 and 1 of the immediate: words instead of bytes, signed instead of unsigned. Bits 2 and 3: the aggregation. */
const FORMATS = [
  { bits: 8, signed: false },
  { bits: 16, signed: false },
  { bits: 8, signed: true },
  { bits: 16, signed: true },
] as const;
type ElementFormat = (typeof FORMATS)[number];

/** One operand's elements. */
interface Elements {
  vector: Expression;
  /** A bit for each that belongs to the string; how many these are; whether there are fewer than fit. All i32. */
  valid: Expression;
  length: Expression;
  ends: Expression;
}

interface Strings {
  f: FunctionBuilder;
  format: ElementFormat;
  /** Elements of a register. */
  count: number;
  first: Elements;
  second: Elements;
}

/** Runs `body` for the elements 0, `step`, … of the first string, as far as `limit`; `at(i)` is the one `i` behind, in all lanes. */
function eachElement({ f, format, first }: Strings, step: number, limit: Expression, body: (number: Expression, at: (i: number) => Expression) => void): void {
  const { bits } = format;
  const bytes = bits / 8;
  const number = f.local('i32');
  const control = f.local('v128');
  const further = (i: number): Expression => (i === 0 ? f.get(control) : apply('i8x16.add', f.get(control), splat(8, i32(i * bytes))));
  f.set(number, 0);
  f.set(control, lanesOf(8, (i) => i % bytes));
  f.block((end) => {
    f.loop((again) => {
      f.branchIf(end, f.get(number).geU(limit));
      body(f.get(number), (i) => swizzle(first.vector, further(i)));
      f.set(number, f.get(number).add(step));
      f.set(control, further(step));
      f.branch(again);
    });
  });
}

const bitmask = ({ bits }: ElementFormat, v: Expression): Expression => apply(`${SHAPE[bits]}.bitmask`, v);
const equal = ({ bits }: ElementFormat, a: Expression, b: Expression): Expression => apply(`${SHAPE[bits]}.eq`, a, b);
const all = (count: number): number => (1 << count) - 1;

/** The elements of the second string for which `holds` is all ones, for any step of the first string's elements. */
function anyOf(strings: Strings, step: number, limit: Expression, holds: (at: (i: number) => Expression) => Expression): Expression {
  const { f, format, second } = strings;
  const found = f.local('v128');
  f.set(found, ZERO);
  eachElement(strings, step, limit, (_, at) => f.set(found, f.get(found).or(holds(at))));
  return bitmask(format, f.get(found)).and(second.valid);
}

/** Intermediate result 1, an i32, by aggregation: equal any, ranges, equal each, equal ordered. */
const AGGREGATIONS: ((strings: Strings) => Expression)[] = [
  (strings) => anyOf(strings, 1, strings.first.length, (at) => equal(strings.format, at(0), strings.second.vector)),

  (strings) => {
    const { bits, signed } = strings.format;
    const greaterOrEqual = `${SHAPE[bits]}.ge_${signed ? 's' : 'u'}`;
    const { vector } = strings.second;
    const pairs = strings.f.let(strings.first.length.and(~1));
    return anyOf(strings, 2, pairs, (at) => apply(greaterOrEqual, vector, at(0)).and(apply(greaterOrEqual, at(1), vector)));
  },

  ({ format, count, first, second }) => {
    const both = first.valid.and(second.valid);
    const neither = first.valid.or(second.valid).xor(all(count));
    return bitmask(format, equal(format, first.vector, second.vector)).and(both).or(neither);
  },

  // Of the needle's element i, where the second string has it, moved to where the needle begins. What would lie behind the register matches.
  (strings) => {
    const { f, format, count, first, second } = strings;
    const found = f.local('i32');
    f.set(found, all(count));
    eachElement(strings, 1, first.length, (number, at) => {
      const matches = bitmask(format, equal(format, at(0), second.vector)).and(second.valid);
      f.set(found, f.get(found).and(matches.or(~all(count)).shrU(number)));
    });
    return f.get(found);
  },
];

/** A string that ends in front of its first element that is 0. */
function implicit(f: FunctionBuilder, format: ElementFormat, vector: Expression): Elements {
  const zeros = f.let(bitmask(format, equal(format, vector, ZERO)));
  const end = f.let(zeros.or(1 << (128 / format.bits)));
  return { vector, valid: f.let(end.sub(1).and(end.not())), length: f.let(end.ctz()), ends: f.let(zeros.nonZero()) };
}

/** A string of `wanted` (an i32, 0 to 16) elements, or as many as there are. */
function explicit(f: FunctionBuilder, { bits }: ElementFormat, vector: Expression, wanted: Expression): Elements {
  const count = 128 / bits;
  const length = f.let(bits === 8 ? wanted : select(wanted.ltU(count), wanted, i32(count)));
  return { vector, valid: f.let(i32(1).shl(length).sub(1)), length, ends: f.let(length.ltU(count)) };
}

const RESULTS: ValueType[] = ['i32', 'i32', 'i32'];

/**
 * The comparison by the immediate `control`: intermediate result 2 (a bit for each element of the second operand), and whether the first and the
 * second string end within their registers.
 */
function compare(f: FunctionBuilder, control: Expression, strings: (format: ElementFormat) => [first: Elements, second: Elements]): Expression[] {
  const compareAs = (mode: number): Expression[] => {
    const format = FORMATS[mode & 3];
    const count = 128 / format.bits;
    const [first, second] = strings(format);
    const found = AGGREGATIONS[mode >> 2]({ f, format, count, first, second });
    const turned = select(control.and(POLARITY_NEGATIVE), select(control.and(POLARITY_MASKED), second.valid, i32(all(count))), i32(0));
    return [f.let(found.xor(turned)), first.ends, second.ends];
  };
  const mode = control.and(15);
  const constant = known(mode);
  if (constant !== null) return compareAs(constant);
  const results = RESULTS.map((type) => f.local(type));
  f.block((done) => {
    const cases = Array.from({ length: 16 }, (_, i) => () => {
      for (const [k, value] of compareAs(i).entries()) f.set(results[k], value);
      f.branch(done);
    });
    f.switch(mode, cases, () => f.unreachable());
  });
  return results.map((result) => f.let(f.get(result)));
}

/** (control, first, second) -> what `compare` gives for strings that end in front of a 0. */
export const COMPARE_IMPLICIT: SharedFunction = {
  name: 'compare_implicit_strings',
  inlined: true,
  signature: { parameters: ['i32', 'v128', 'v128'], results: RESULTS },
  build: (f, control, a, b) => compare(f, control, (format) => [implicit(f, format, a), implicit(f, format, b)]),
};

/** (control, first, second, lengths of the two, 0 to 16) -> what `compare` gives. */
export const COMPARE_EXPLICIT: SharedFunction = {
  name: 'compare_explicit_strings',
  inlined: true,
  signature: { parameters: ['i32', 'v128', 'v128', 'i32', 'i32'], results: RESULTS },
  build: (f, control, a, b, first, second) => compare(f, control, (format) => [explicit(f, format, a, first), explicit(f, format, b, second)]),
};
