/**
 * The x87's arithmetic in WebAssembly, for what programs compute with: normal numbers and zeros whose results are normal or zero, 64
 * bits of precision, in all four rounding modes. Each function gives RARE for the rest (NaNs, infinities, denormals, results out of
 * range, what is invalid), which is cpu/x87/float80.ts's; that is the definition of all of it. SDM 1 chapters 4 and 8.
 *
 * A value is a significand, an i64, and sign and exponent, an i32 of 16 bits. Results have flags above those 16 bits.
 */

import { BIAS, INFINITE_EXPONENT, PRECISION, ROUNDED_UP, SIGN } from '../cpu/x87/float80.ts';
import { type Expression, i32, i64, select } from '../wasm/expression.ts';
import type { FunctionBuilder, Label, Local } from '../wasm/function-builder.ts';
import type { SharedFunction } from './semantics.ts';

/** In place of sign, exponent and flags: the result is not known here. */
export const RARE = -1;
/** Where a result has the exceptions it raised and ROUNDED_UP, as FSW has them. */
export const FLAGS_SHIFT = 16;

/** FCW's rounding control. */
const ROUNDING = 0xc00;
const INTEGER_BIT = 1n << 63n;
const INEXACT = PRECISION << FLAGS_SHIFT;
const UP = ROUNDED_UP << FLAGS_SHIFT;

const LESS = 0;
const EQUAL = 1;
const GREATER = 2;

const exponentOf = (signExponent: Expression): Expression => signExponent.and(INFINITE_EXPONENT);
/** Neither zero, denormal, infinite nor NaN; and no number without its integer bit. */
const isNormal = (significand: Expression, signExponent: Expression): Expression =>
  exponentOf(signExponent.add(1)).gtU(1).and(significand.ltS(0));
const isZero = (significand: Expression, signExponent: Expression): Expression => significand.eqz().and(exponentOf(signExponent).eqz());

/** A function's body that leaves with two results from anywhere: `finish` gives them. */
class Body {
  readonly f: FunctionBuilder;
  private readonly significand: Local;
  private readonly rest: Local;
  private done!: Label;

  constructor(f: FunctionBuilder) {
    this.f = f;
    this.significand = f.local('i64');
    this.rest = f.local('i32');
  }

  build(body: () => void): Expression[] {
    this.f.block((done) => {
      this.done = done;
      body();
    });
    return [this.f.get(this.significand), this.f.get(this.rest)];
  }

  finish(significand: Expression, rest: Expression): void {
    this.f.set(this.significand, significand);
    this.f.set(this.rest, rest);
    this.f.branch(this.done);
  }

  rare(): void {
    this.finish(i64(0), i32(RARE));
  }

  rareIf(condition: Expression): void {
    this.f.if(condition, () => this.rare());
  }
}

/** Whether a significand with `rest` (an i64, not 0) below it is rounded up in magnitude. `sign` is SIGN or 0. */
function roundsUp(f: FunctionBuilder, control: Expression, sign: Expression, isOdd: Expression, rest: Expression): Expression {
  const up = f.local('i32');
  const mode = f.let(control.and(ROUNDING));
  f.if(
    mode.eqz(),
    () => f.set(up, rest.ltS(0).and(isOdd.or(rest.shl(1).nonZero()))),
    // Down is 1, up is 2, towards zero 3.
    () => f.set(up, mode.eq(select(sign, i32(0x400), i32(0x800)))),
  );
  return f.let(f.get(up));
}

/** Finishes with a normalized significand and the 64 bits below it, rounded; `exponent` is at least 1. */
function finishRounded(body: Body, control: Expression, sign: Expression, exponent: Expression, high: Expression, low: Expression): void {
  const { f } = body;
  body.rareIf(exponent.geS(INFINITE_EXPONENT));
  f.if(low.eqz(), () => body.finish(high, sign.or(exponent)));
  f.if(roundsUp(f, control, sign, high.wrap().and(1), low).eqz(), () => body.finish(high, sign.or(exponent).or(INEXACT)));
  const rounded = f.let(high.add(1));
  f.if(rounded.nonZero(), () => body.finish(rounded, sign.or(exponent).or(INEXACT | UP)));
  body.rareIf(exponent.eq(INFINITE_EXPONENT - 1));
  body.finish(i64(INTEGER_BIT), sign.or(exponent.add(1)).or(INEXACT | UP));
}

/** (a, b, FCW) → (significand; sign, exponent and flags). */
const BINARY = { parameters: ['i64', 'i32', 'i64', 'i32', 'i32'], results: ['i64', 'i32'] } as const;

/** a + b; subtraction changes the sign of what is subtracted before, which makes no difference unless it is a NaN. */
export const ADD: SharedFunction = {
  name: 'x87_add',
  signature: BINARY,
  build(f, a, aSe, b, bSe, control) {
    const body = new Body(f);
    return body.build(() => {
      f.if(isNormal(a, aSe).and(isNormal(b, bSe)).eqz(), () => {
        const [aZero, bZero] = [f.let(isZero(a, aSe)), f.let(isZero(b, bSe))];
        f.if(aZero.and(bZero), () => {
          const down = control.and(ROUNDING).eq(0x400);
          body.finish(i64(0), select(aSe.eq(bSe), aSe, select(down, i32(SIGN), i32(0))));
        });
        f.if(aZero.and(isNormal(b, bSe)), () => body.finish(b, bSe));
        f.if(bZero.and(isNormal(a, aSe)), () => body.finish(a, aSe));
        body.rare();
      });
      // The larger one is first.
      const swapped = f.let(select(exponentOf(aSe).eq(exponentOf(bSe)), a.ltU(b), exponentOf(aSe).ltU(exponentOf(bSe))));
      const [large, small] = [f.let(select(swapped, b, a)), f.let(select(swapped, a, b))];
      const sign = f.let(select(swapped, bSe, aSe).and(SIGN));
      const exponent = f.let(exponentOf(select(swapped, bSe, aSe)));
      const distance = f.let(exponent.sub(exponentOf(select(swapped, aSe, bSe))));
      const [high, low] = [f.local('i64'), f.local('i64')];
      const by = f.let(distance.extendU());
      f.if(
        distance.ltU(64),
        () => {
          f.set(high, small.shrU(by));
          f.set(low, select(distance, small.shl(i64(0).sub(by)), i64(0)));
        },
        () => {
          f.set(high, i64(0));
          // What is lost behind the second word is kept as a bit that is set.
          const lost = small.shl(i64(0).sub(by)).nonZero().and(distance.ne(64)).extendU();
          f.set(low, select(distance.ltU(128), small.shrU(by).or(lost), i64(1)));
        },
      );
      f.if(aSe.xor(bSe).and(SIGN).eqz(), () => {
        const sum = f.let(large.add(f.get(high)));
        f.if(sum.geU(large), () => finishRounded(body, control, sign, exponent, sum, f.let(f.get(low))));
        const rest = f.let(sum.shl(63).or(f.get(low).shrU(1)).or(f.get(low).and(1)));
        finishRounded(body, control, sign, f.let(exponent.add(1)), f.let(sum.shrU(1).or(i64(INTEGER_BIT))), rest);
      });
      const borrow = f.get(low).nonZero().extendU();
      const difference = f.let(large.sub(f.get(high)).sub(borrow));
      const rest = f.let(i64(0).sub(f.get(low)));
      f.if(difference.ltS(0), () => finishRounded(body, control, sign, exponent, difference, rest));
      f.if(difference.or(rest).eqz(), () => body.finish(i64(0), select(control.and(ROUNDING).eq(0x400), i32(SIGN), i32(0))));
      // Where a whole word is lost, one bit at most was below it.
      const empty = f.let(difference.eqz());
      const [first, second] = [f.let(select(empty, rest, difference)), f.let(select(empty, i64(0), rest))];
      const zeros = f.let(first.clz());
      const normalized = f.let(exponent.sub(zeros.wrap()).sub(empty.shl(6)));
      body.rareIf(normalized.leS(0));
      const filled = select(zeros.eqz(), i64(0), second.shrU(i64(0).sub(zeros)));
      finishRounded(body, control, sign, normalized, f.let(first.shl(zeros).or(filled)), f.let(second.shl(zeros)));
    });
  },
};

/** Both words of a product. */
function multiplyWide(f: FunctionBuilder, a: Expression, b: Expression): { high: Expression; low: Expression } {
  const half = (v: Expression): Expression[] => [f.let(v.and(0xffff_ffff)), f.let(v.shrU(32))];
  const [[aLow, aHigh], [bLow, bHigh]] = [half(a), half(b)];
  const lowest = f.let(aLow.mul(bLow));
  const outer = f.let(aLow.mul(bHigh).add(lowest.shrU(32)));
  const inner = f.let(aHigh.mul(bLow).add(outer.and(0xffff_ffff)));
  return {
    high: f.let(aHigh.mul(bHigh).add(outer.shrU(32)).add(inner.shrU(32))),
    low: f.let(inner.shl(32).or(lowest.and(0xffff_ffff))),
  };
}

export const MULTIPLY: SharedFunction = {
  name: 'x87_multiply',
  inlined: true,
  signature: BINARY,
  build(f, a, aSe, b, bSe, control) {
    const body = new Body(f);
    return body.build(() => {
      const sign = f.let(aSe.xor(bSe).and(SIGN));
      const [aNormal, bNormal] = [f.let(isNormal(a, aSe)), f.let(isNormal(b, bSe))];
      f.if(aNormal.and(bNormal).eqz(), () => {
        const [aZero, bZero] = [f.let(isZero(a, aSe)), f.let(isZero(b, bSe))];
        f.if(aZero.and(bZero.or(bNormal)).or(bZero.and(aNormal)), () => body.finish(i64(0), sign));
        body.rare();
      });
      const { high, low } = multiplyWide(f, a, b);
      const exponent = f.let(exponentOf(aSe).add(exponentOf(bSe)).sub(BIAS));
      body.rareIf(exponent.leS(0));
      f.if(high.ltS(0), () => finishRounded(body, control, sign, f.let(exponent.add(1)), high, low));
      finishRounded(body, control, sign, exponent, f.let(high.shl(1).or(low.shrU(63))), f.let(low.shl(1)));
    });
  },
};

/** One digit, of 32 bits, of a quotient (Knuth, The Art of Computer Programming 4.3.1, D): of `high` and the next digit by `divisor`. What is left, too. */
function quotientDigit(f: FunctionBuilder, high: Expression, next: Expression, divisor: Expression): { digit: Expression; rest: Expression } {
  const [upper, lower] = [f.let(divisor.shrU(32)), f.let(divisor.and(0xffff_ffff))];
  const digit = f.local('i64');
  const rest = f.local('i64');
  f.set(digit, high.divU(upper));
  f.set(rest, high.sub(f.get(digit).mul(upper)));
  const tooLarge = (): Expression => f.get(digit).shrU(32).nonZero().or(f.get(digit).mul(lower).gtU(f.get(rest).shl(32).or(next)));
  // At most twice.
  const correct = (then: () => void): void =>
    f.if(tooLarge(), () => {
      f.set(digit, f.get(digit).sub(1));
      f.set(rest, f.get(rest).add(upper));
      f.if(f.get(rest).shrU(32).eqz(), then);
    });
  correct(() => correct(() => {}));
  return { digit: f.let(f.get(digit)), rest: f.let(high.shl(32).or(next).sub(f.get(digit).mul(divisor))) };
}

/** a / b. */
export const DIVIDE: SharedFunction = {
  name: 'x87_divide',
  signature: BINARY,
  build(f, a, aSe, b, bSe, control) {
    const body = new Body(f);
    return body.build(() => {
      const sign = f.let(aSe.xor(bSe).and(SIGN));
      body.rareIf(isNormal(b, bSe).eqz());
      f.if(isNormal(a, aSe).eqz(), () => {
        f.if(isZero(a, aSe), () => body.finish(i64(0), sign));
        body.rare();
      });
      const smaller = f.let(a.ltU(b));
      const exponent = f.let(exponentOf(aSe).sub(exponentOf(bSe)).add(BIAS).sub(smaller));
      body.rareIf(exponent.leS(0));
      // So that the quotient has 64 bits.
      const dividend = f.let(select(smaller, a, a.shrU(1)));
      const first = quotientDigit(f, dividend, f.let(select(smaller, i64(0), a.and(1).shl(31))), b);
      const second = quotientDigit(f, first.rest, i64(0), b);
      // Of what is left it counts whether it is none, less than half, half or more.
      const other = f.let(b.sub(second.rest));
      const rest = select(second.rest.geU(other), i64(INTEGER_BIT), i64(0)).or(second.rest.nonZero().and(second.rest.ne(other)).extendU());
      finishRounded(body, control, sign, exponent, f.let(first.digit.shl(32).or(second.digit)), f.let(rest));
    });
  },
};

/** (a, b) → LESS, EQUAL, GREATER or RARE. */
export const COMPARE: SharedFunction = {
  name: 'x87_compare',
  inlined: true,
  signature: { parameters: ['i64', 'i32', 'i64', 'i32'], results: ['i32'] },
  build(f, a, aSe, b, bSe) {
    const [aZero, bZero] = [f.let(isZero(a, aSe)), f.let(isZero(b, bSe))];
    const ordinary = isNormal(a, aSe).or(aZero).and(isNormal(b, bSe).or(bZero));
    const [aNegative, bNegative] = [f.let(aSe.shrU(15)), f.let(bSe.shrU(15))];
    const [aExponent, bExponent] = [f.let(exponentOf(aSe)), f.let(exponentOf(bSe))];
    const larger = select(aExponent.eq(bExponent), a.gtU(b), aExponent.gtU(bExponent)).xor(aNegative);
    const equal = aZero.and(bZero).or(a.eq(b).and(aSe.eq(bSe)));
    const ordered = select(aNegative.eq(bNegative), larger, bNegative);
    return [select(ordinary, select(equal, i32(EQUAL), select(ordered, i32(GREATER), i32(LESS))), i32(RARE))];
  },
};

/** (bits) → a value: exact. RARE for what is no normal number or zero. */
const widening = (bits: 32 | 64): SharedFunction => {
  const fraction = bits === 32 ? 23 : 52;
  const exponents = bits === 32 ? 0xff : 0x7ff;
  return {
    name: `x87_from_float${bits}`,
    signature: { parameters: ['i64'], results: ['i64', 'i32'] },
    build(f, value) {
      const exponent = f.let(value.shrU(fraction).wrap().and(exponents));
      const sign = f.let(value.shrU(bits - 16).wrap().and(SIGN));
      const significand = value.shl(63 - fraction).or(i64(INTEGER_BIT));
      const normal = f.let(exponent.sub(1).ltU(exponents - 1));
      const zero = value.shl(65 - bits).eqz();
      const rest = select(normal, sign.or(exponent.add(BIAS - (exponents >> 1))), select(zero, sign, i32(RARE)));
      return [f.let(select(normal, significand, i64(0))), f.let(rest)];
    },
  };
};
export const FROM_FLOAT = { 32: widening(32), 64: widening(64) };

/** (an integer, sign-extended) → a value: exact. */
export const FROM_INTEGER: SharedFunction = {
  name: 'x87_from_integer',
  signature: { parameters: ['i64'], results: ['i64', 'i32'] },
  build(f, value) {
    const magnitude = f.let(select(value.ltS(0), i64(0).sub(value), value));
    const zeros = f.let(magnitude.clz());
    const sign = value.shrU(48).wrap().and(SIGN);
    return [magnitude.shl(zeros), select(magnitude.eqz(), i32(0), sign.or(i32(BIAS + 63).sub(zeros.wrap())))];
  },
};

/** (a value, FCW) → (bits; flags or RARE): what FST stores. */
const narrowing = (bits: 32 | 64): SharedFunction => {
  const fraction = bits === 32 ? 23 : 52;
  const exponents = bits === 32 ? 0xff : 0x7ff;
  const lost = 63 - fraction;
  return {
    name: `x87_to_float${bits}`,
    signature: { parameters: ['i64', 'i32', 'i32'], results: ['i64', 'i32'] },
    build(f, significand, signExponent, control) {
      const body = new Body(f);
      return body.build(() => {
        const sign = f.let(signExponent.and(SIGN));
        const signBit = f.let(sign.extendU().shl(bits - 16));
        f.if(isZero(significand, signExponent), () => body.finish(signBit, i32(0)));
        const exponent = f.let(exponentOf(signExponent).sub(BIAS - (exponents >> 1)));
        body.rareIf(significand.geS(0).or(exponent.sub(1).geU(exponents - 1)));
        const kept = f.let(significand.shrU(lost));
        // The integer bit adds one to the exponent, as does a carry.
        const whole = f.let(exponent.sub(1).extendU().shl(fraction).add(kept));
        const rest = f.let(significand.shl(64 - lost));
        f.if(rest.eqz(), () => body.finish(whole.or(signBit), i32(0)));
        f.if(roundsUp(f, control, sign, kept.wrap().and(1), rest).eqz(), () => body.finish(whole.or(signBit), i32(INEXACT)));
        const rounded = f.let(whole.add(1));
        body.rareIf(rounded.shrU(fraction).eq(exponents));
        body.finish(rounded.or(signBit), i32(INEXACT | UP));
      });
    },
  };
};
export const TO_FLOAT = { 32: narrowing(32), 64: narrowing(64) };

/** (a value, FCW, the largest integer) → (integer; flags or RARE): what FIST stores. */
export const TO_INTEGER: SharedFunction = {
  name: 'x87_to_integer',
  signature: { parameters: ['i64', 'i32', 'i32', 'i64'], results: ['i64', 'i32'] },
  build(f, significand, signExponent, control, largest) {
    const body = new Body(f);
    return body.build(() => {
      f.if(isZero(significand, signExponent), () => body.finish(i64(0), i32(0)));
      const distance = f.let(i32(BIAS + 63).sub(exponentOf(signExponent)));
      // Denormal, or 2^63 and more.
      body.rareIf(significand.geS(0).or(distance.leS(0)).or(exponentOf(signExponent).eqz()));
      const sign = f.let(signExponent.and(SIGN));
      const by = f.let(distance.extendU());
      const within = f.let(distance.ltU(64));
      const kept = f.let(select(within, significand.shrU(by), i64(0)));
      const rest = f.let(select(within, significand.shl(i64(0).sub(by)), select(distance.eq(64), significand, i64(1))));
      const flags = f.local('i32');
      const magnitude = f.local('i64');
      f.set(flags, i32(0));
      f.set(magnitude, kept);
      f.if(rest.nonZero(), () => {
        const up = roundsUp(f, control, sign, kept.wrap().and(1), rest);
        f.set(magnitude, kept.add(up.extendU()));
        f.set(flags, select(up, i32(INEXACT | UP), i32(INEXACT)));
      });
      // The most negative integer has no positive counterpart.
      body.rareIf(f.get(magnitude).sub(sign.nonZero().extendU()).gtS(largest));
      body.rareIf(f.get(magnitude).ltS(0));
      body.finish(select(sign, i64(0).sub(f.get(magnitude)), f.get(magnitude)), f.get(flags));
    });
  },
};
