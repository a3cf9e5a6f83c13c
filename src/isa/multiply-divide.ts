/**
 * MUL, IMUL, DIV, IDIV. SDM 2, instruction reference. Of the flags only CF and OF are defined after a multiplication, none
 * after a division: the others stay. No operand makes WebAssembly's own division trap.
 */

import { type Expression, i64, select } from '../wasm/expression.ts';
import type { FunctionBuilder } from '../wasm/function-builder.ts';
import { DIVIDE_ERROR } from './exceptions.ts';
import { instruction } from './instruction.ts';
import type { Bits, Operand, Semantics } from './semantics.ts';

const RAX = 0;
const RDX = 2;
const LOW_HALF = 0xffff_ffffn;

/** The upper 64 bits of a 64 × 64-bit product (Hacker's Delight, 8-2). */
export function highProduct(f: FunctionBuilder, a: Expression, b: Expression, signed: boolean): Expression {
  const upper = (value: Expression): Expression => (signed ? value.shrS(32) : value.shrU(32));
  const [aLow, aHigh, bLow, bHigh] = [a.and(LOW_HALF), upper(a), b.and(LOW_HALF), upper(b)].map((half) => f.let(half));
  const middle = f.let(aHigh.mul(bLow).add(aLow.mul(bLow).shrU(32)));
  const second = f.let(aLow.mul(bHigh).add(middle.and(LOW_HALF)));
  return aHigh.mul(bHigh).add(upper(middle)).add(upper(second));
}

/** CF and OF of a product: set where it does not fit. */
function setOverflow(x: Semantics, overflows: Expression): void {
  const word = x.f.let(overflows.extendU().shl(63));
  x.setFlags({ carry: word, overflow: word });
}

/** MUL and IMUL with one operand: rDX:rAX (AX for bytes) = rAX × source. */
function multiplyWide(x: Semantics, source: Operand, signed: boolean): void {
  const bits = source.bits as Bits;
  const value = (operand: Operand): Expression => (signed ? operand.signed() : operand.unsigned());
  const [a, b] = [value(x.gpr(RAX, bits)), value(source)];
  const low = x.f.let(a.mul(b));
  if (bits === 64) {
    const high = x.f.let(highProduct(x.f, a, b, signed));
    x.gpr(RAX, 64).write(low);
    x.gpr(RDX, 64).write(high);
    return setOverflow(x, signed ? high.ne(low.shrS(63)) : high.nonZero());
  }
  if (bits === 8) x.gpr(RAX, 16).write(low);
  else {
    x.gpr(RAX, bits).write(low);
    x.gpr(RDX, bits).write(low.shrU(bits));
  }
  setOverflow(x, signed ? low.ne(low.signExtend(bits)) : low.shrU(bits).nonZero());
}

instruction('MUL', ['F6/4 Eb', 'F7/4 Ev'], {}, (x, source) => multiplyWide(x, source, false));
instruction('IMUL', ['F6/5 Eb', 'F7/5 Ev'], {}, (x, source) => multiplyWide(x, source, true));

function multiply(x: Semantics, destination: Operand, first: Operand, second: Operand): void {
  const [a, b] = [first.signed(), second.signed()];
  const product = x.f.let(a.mul(b));
  destination.write(product);
  if (destination.bits === 64) setOverflow(x, highProduct(x.f, a, b, true).ne(product.shrS(63)));
  else setOverflow(x, product.ne(product.signExtend(destination.bits)));
}

instruction('IMUL', '0F AF Gv Ev', { access: 'mr' }, (x, destination, source) => multiply(x, destination, destination, source));
instruction('IMUL', ['69 Gv Ev Iz', '6B Gv Ev sIb'], { access: 'wrr' }, (x, destination, first, second) => multiply(x, destination, first, second));

function raiseIf(x: Semantics, condition: Expression): void {
  x.f.if(condition, () => x.raise(DIVIDE_ERROR));
}

/** The double-width dividend of an operand of 8, 16 or 32 bits, which fits an i64. */
function dividend(x: Semantics, bits: 8 | 16 | 32, signed: boolean): Expression {
  if (bits === 8) return signed ? x.gpr(RAX, 16).signed() : x.gpr(RAX, 16).unsigned();
  const whole = x.gpr(RDX, bits).unsigned().shl(bits).or(x.gpr(RAX, bits).unsigned());
  return x.f.let(signed ? whole.signExtend(2 * bits) : whole);
}

function writeQuotient(x: Semantics, bits: Bits, quotient: Expression, remainder: Expression): void {
  if (bits === 8) return x.gpr(RAX, 16).write(remainder.shl(8).or(quotient.and(0xff)));
  x.gpr(RAX, bits).write(quotient);
  x.gpr(RDX, bits).write(remainder);
}

/**
 * high:low ÷ divisor, unsigned, where high < divisor so that the quotient fits (Knuth's algorithm D on 32-bit digits, as
 * Hacker's Delight 9-4 has it): two digits, each estimated by a division and corrected at most twice.
 */
function longDivision(f: FunctionBuilder, high: Expression, low: Expression, unscaled: Expression): [quotient: Expression, remainder: Expression] {
  const shift = f.let(unscaled.clz());
  const divisor = f.let(unscaled.shl(shift));
  const [divisorHigh, divisorLow] = [f.let(divisor.shrU(32)), f.let(divisor.and(LOW_HALF))];
  // Shifted in two steps, as a shift by 64 would be one by 0.
  const top = f.let(high.shl(shift).or(low.shrU(1).shrU(i64(63).sub(shift))));
  const bottom = f.let(low.shl(shift));
  const digit = (partial: Expression, next: Expression): [digit: Expression, rest: Expression] => {
    const [estimate, rest] = [f.local('i64'), f.local('i64')];
    f.set(estimate, partial.divU(divisorHigh));
    f.set(rest, partial.sub(f.get(estimate).mul(divisorHigh)));
    f.loop((again) => {
      const tooLarge = f.get(estimate).shrU(32).nonZero().or(f.get(estimate).mul(divisorLow).gtU(f.get(rest).shl(32).or(next)));
      f.if(tooLarge, () => {
        f.set(estimate, f.get(estimate).sub(1));
        f.set(rest, f.get(rest).add(divisorHigh));
        f.branchIf(again, f.get(rest).shrU(32).eqz());
      });
    });
    const result = f.let(f.get(estimate));
    return [result, f.let(partial.shl(32).or(next).sub(result.mul(divisor)))];
  };
  const [first, rest] = digit(top, f.let(bottom.shrU(32)));
  const [second, remainder] = digit(rest, f.let(bottom.and(LOW_HALF)));
  return [f.let(first.shl(32).add(second)), f.let(remainder.shrU(shift))];
}

instruction('DIV', ['F6/6 Eb', 'F7/6 Ev'], {}, (x, source) => {
  const { f } = x;
  const bits = source.bits as Bits;
  const divisor = source.unsigned();
  if (bits !== 64) {
    const whole = dividend(x, bits, false);
    // The quotient fits where the upper half is less than the divisor, which also rules out 0.
    raiseIf(x, whole.shrU(bits).geU(divisor));
    const quotient = f.let(whole.divU(divisor));
    return writeQuotient(x, bits, quotient, whole.sub(quotient.mul(divisor)));
  }
  const [low, high] = [x.gpr(RAX, 64).unsigned(), x.gpr(RDX, 64).unsigned()];
  raiseIf(x, high.geU(divisor));
  f.if(
    high.eqz(),
    () => {
      const quotient = f.let(low.divU(divisor));
      writeQuotient(x, 64, quotient, low.sub(quotient.mul(divisor)));
    },
    () => writeQuotient(x, 64, ...longDivision(f, high, low, divisor)),
  );
});

const MOST_NEGATIVE = i64(-(1n << 63n));

instruction('IDIV', ['F6/7 Eb', 'F7/7 Ev'], {}, (x, source) => {
  const { f } = x;
  const bits = source.bits as Bits;
  const divisor = source.signed();
  /** i64 ÷ i64; the one quotient that does not fit an i64 would be a trap. */
  const divide = (whole: Expression): void => {
    raiseIf(x, divisor.eqz().or(whole.eq(MOST_NEGATIVE).and(divisor.eq(-1))));
    const quotient = f.let(whole.divS(divisor));
    if (bits !== 64) raiseIf(x, quotient.ne(quotient.signExtend(bits)));
    writeQuotient(x, bits, quotient, whole.sub(quotient.mul(divisor)));
  };
  if (bits !== 64) return divide(dividend(x, bits, true));

  const [low, high] = [x.gpr(RAX, 64).unsigned(), x.gpr(RDX, 64).unsigned()];
  f.if(
    high.eq(low.shrS(63)),
    () => divide(low),
    () => {
      const dividendSign = f.let(high.shrS(63));
      const sign = f.let(dividendSign.xor(divisor.shrS(63)));
      const magnitude = f.let(divisor.xor(divisor.shrS(63)).sub(divisor.shrS(63)));
      const absoluteLow = f.let(low.xor(dividendSign).sub(dividendSign));
      // Negating carries into the upper half where the lower one is 0.
      const absoluteHigh = f.let(high.xor(dividendSign).add(dividendSign.and(low.eqz().extendU())));
      raiseIf(x, absoluteHigh.geU(magnitude));
      const [quotient, remainder] = longDivision(f, absoluteHigh, absoluteLow, magnitude);
      // Up to 2⁶³ - 1, or 2⁶³ where it becomes negative.
      raiseIf(x, quotient.gtU(select(sign.nonZero(), MOST_NEGATIVE, i64((1n << 63n) - 1n))));
      writeQuotient(x, 64, quotient.xor(sign).sub(sign), remainder.xor(dividendSign).sub(dividendSign));
    },
  );
});
