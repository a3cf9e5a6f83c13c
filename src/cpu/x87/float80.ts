/**
 * 80-bit extended floating point in software, on 32-bit integers: what the x87 computes, without its stack.
 * Source: SDM 1 chapter 4 and 8, APM 1 chapter 6; where they leave a choice, what current AMD processors do.
 * Values travel as (low, high, signExponent): the halves of the 64-bit significand as int32 and the 16-bit sign and exponent.
 */

/** Exceptions, at their bits of FSW and FCW. */
export const INVALID = 1 << 0;
export const DENORMAL = 1 << 1;
export const ZERO_DIVIDE = 1 << 2;
export const OVERFLOW = 1 << 3;
export const UNDERFLOW = 1 << 4;
export const PRECISION = 1 << 5;
export const ALL_EXCEPTIONS = 0x3f;
/** Among `flags`, not an exception: the last rounding increased the magnitude. It has the place of FSW.C1. */
export const ROUNDED_UP = 1 << 9;

export const SIGN = 0x8000;
export const BIAS = 0x3fff;
export const INFINITE_EXPONENT = 0x7fff;
/** Integer bit of a significand, in its high half. */
export const INTEGER_BIT = 0x8000_0000 | 0;
const QUIET_BIT = 0x4000_0000;
/** The real indefinite: the NaN that answers a masked invalid operation. */
export const INDEFINITE_SIGN_EXPONENT = 0xffff;
export const INDEFINITE_HIGH = INTEGER_BIT | QUIET_BIT;
/** What an unmasked overflow takes from the exponent and an unmasked underflow adds to it (SDM 1 8.5.4). */
const WRAP = 24576;

/** Rounding control, FCW bits 10 and 11. */
export const TO_NEAREST = 0;
export const DOWN = 1;
export const UP = 2;
export const TOWARDS_ZERO = 3;
/** Significant bits by precision control, FCW bits 8 and 9. */
const PRECISIONS = [24, 64, 53, 64];

/** Kinds of operands; everything from QUIET_NAN up has no numeric value. */
export const ZERO = 0;
export const DENORMALIZED = 1;
export const NORMAL = 2;
export const INFINITE = 3;
export const QUIET_NAN = 4;
export const SIGNALING_NAN = 5;
/** Unnormals, pseudo-infinities and pseudo-NaNs: the integer bit is clear where it must be set. */
export const UNSUPPORTED = 6;

/** Results of `compare`. */
export const LESS = 0;
export const EQUAL = 1;
export const GREATER = 2;
export const UNORDERED = 3;

/** Quotients of `remainder`: the reduction needs another step; there was nothing to divide. */
export const INCOMPLETE = -1;
export const NO_QUOTIENT = -2;

const TWO_32 = 2 ** 32;

export function classify(low: number, high: number, signExponent: number): number {
  const exponent = signExponent & INFINITE_EXPONENT;
  if (exponent === 0) return (low | high) === 0 ? ZERO : DENORMALIZED;
  if (high >= 0) return UNSUPPORTED;
  if (exponent !== INFINITE_EXPONENT) return NORMAL;
  if (((high << 1) | low) === 0) return INFINITE;
  return (high & QUIET_BIT) !== 0 ? QUIET_NAN : SIGNALING_NAN;
}

/** Neither zero, denormal, infinite, NaN nor unsupported. */
function isNormal(high: number, signExponent: number): boolean {
  return high < 0 && ((signExponent + 1) & INFINITE_EXPONENT) > 1;
}

function isBelow(aLow: number, aHigh: number, bLow: number, bHigh: number): boolean {
  return aHigh === bHigh ? aLow >>> 0 < bLow >>> 0 : aHigh >>> 0 < bHigh >>> 0;
}

/** High half of the product of two unsigned 32-bit integers. */
function multiplyHigh(a: number, b: number): number {
  const a0 = a & 0xffff;
  const a1 = a >>> 16;
  const b0 = b & 0xffff;
  const b1 = b >>> 16;
  const outer = (Math.imul(a1, b0) + (Math.imul(a0, b0) >>> 16)) | 0;
  const inner = (Math.imul(a0, b1) + (outer & 0xffff)) | 0;
  return (Math.imul(a1, b1) + (outer >>> 16) + (inner >>> 16)) | 0;
}

/**
 * The arithmetic unit. An operation leaves its result in `low`, `high` and `signExponent` and adds what it
 * raised to `flags`, which the caller clears beforehand. Masked responses are complete; of unmasked exceptions
 * it knows the wrapped exponents of overflow and underflow, the rest (not writing a result) is the caller's.
 */
export class Float80 {
  low = 0;
  high = 0;
  signExponent = 0;
  flags = 0;
  /** Of a partial remainder: the quotient's low three bits, INCOMPLETE or NO_QUOTIENT. */
  quotient = 0;
  rounding = TO_NEAREST;
  precision = 64;
  /** Exceptions that are masked. */
  masks = ALL_EXCEPTIONS;
  /** 32 bits below the significand; the lowest of them is sticky. */
  #extra = 0;

  /** Takes rounding, precision and masks from a control word, and clears `flags`. */
  begin(fcw: number): void {
    this.rounding = (fcw >> 10) & 3;
    this.precision = PRECISIONS[(fcw >> 8) & 3];
    this.masks = fcw & ALL_EXCEPTIONS;
    this.flags = 0;
  }

  set(low: number, high: number, signExponent: number): void {
    this.low = low;
    this.high = high;
    this.signExponent = signExponent;
  }

  setZero(sign: number): void {
    this.set(0, 0, sign);
  }

  setInfinity(sign: number): void {
    this.set(0, INTEGER_BIT, sign | INFINITE_EXPONENT);
  }

  /** An invalid operation: the real indefinite. Whatever was noted before of operands does not count. */
  setInvalid(): void {
    this.flags = INVALID;
    this.set(0, INDEFINITE_HIGH, INDEFINITE_SIGN_EXPONENT);
  }

  /** The answer to a single operand that is a NaN or unsupported. */
  propagate(low: number, high: number, signExponent: number): void {
    const kind = classify(low, high, signExponent);
    if (kind === UNSUPPORTED) return this.setInvalid();
    this.flags = kind === SIGNALING_NAN ? INVALID : 0;
    this.set(low, high | QUIET_BIT, signExponent);
  }

  /** The answer to two operands of which at least one is a NaN or unsupported (SDM 1 table 4-7). */
  propagateOf(aLow: number, aHigh: number, aSe: number, bLow: number, bHigh: number, bSe: number): void {
    const a = classify(aLow, aHigh, aSe);
    const b = classify(bLow, bHigh, bSe);
    if (a === UNSUPPORTED || b === UNSUPPORTED) return this.setInvalid();
    const invalid = a === SIGNALING_NAN || b === SIGNALING_NAN;
    let takesA: boolean;
    if (a < QUIET_NAN || b < QUIET_NAN) takesA = a >= QUIET_NAN;
    else if (a !== b) takesA = a === QUIET_NAN;
    else if (aLow === bLow && aHigh === bHigh) takesA = (aSe & SIGN) === 0;
    else takesA = isBelow(bLow, bHigh, aLow, aHigh);
    this.flags = invalid ? INVALID : 0;
    if (takesA) this.set(aLow, aHigh | QUIET_BIT, aSe);
    else this.set(bLow, bHigh | QUIET_BIT, bSe);
  }

  /** Sets the significand and `#extra` to the 96-bit argument shifted right, bits lost kept as a sticky one. */
  #shiftRight(high: number, low: number, extra: number, count: number): void {
    let n = count;
    let sticky = 0;
    while (n >= 32) {
      sticky |= extra;
      extra = low;
      low = high;
      high = 0;
      n -= 32;
      if ((high | low | extra) === 0) n = 0;
    }
    if (n > 0) {
      sticky |= extra << (32 - n);
      extra = (extra >>> n) | (low << (32 - n));
      low = (low >>> n) | (high << (32 - n));
      high >>>= n;
    }
    this.high = high | 0;
    this.low = low | 0;
    this.#extra = extra | (sticky !== 0 ? 1 : 0);
  }

  /** Rounds a significand to `precision` bits. Returns 1 where that carried into the next power of two. */
  #roundSignificand(sign: number, high: number, low: number, extra: number, precision: number): number {
    if (precision === 53) {
      extra = (low << 21) | (extra !== 0 ? 1 : 0);
      low &= ~0x7ff;
    } else if (precision === 24) {
      extra = (high << 24) | ((low | extra) !== 0 ? 1 : 0);
      high &= ~0xff;
      low = 0;
    }
    if (extra !== 0) {
      this.flags |= PRECISION;
      let up: boolean;
      if (this.rounding === TO_NEAREST) {
        const odd = precision === 64 ? low & 1 : precision === 53 ? low & 0x800 : high & 0x100;
        up = extra < 0 && ((extra & 0x7fff_ffff) !== 0 || odd !== 0);
      } else up = this.rounding === (sign === 0 ? UP : DOWN);
      if (up) {
        this.flags |= ROUNDED_UP;
        if (precision === 24) high = (high + 0x100) | 0;
        else {
          low = (low + (precision === 64 ? 1 : 0x800)) | 0;
          if (low === 0) high = (high + 1) | 0;
        }
        if (high === 0 && low === 0) {
          this.high = INTEGER_BIT;
          this.low = 0;
          return 1;
        }
      }
    }
    this.high = high;
    this.low = low;
    return 0;
  }

  /** Completes a result: a normalized significand with 32 bits more, and a biased exponent that may be out of range. */
  finish(sign: number, exponent: number, high: number, low: number, extra: number, precision: number): void {
    if (exponent < 1) return this.#finishTiny(sign, exponent, high, low, extra, precision);
    exponent += this.#roundSignificand(sign, high, low, extra, precision);
    if (exponent < INFINITE_EXPONENT) this.signExponent = sign | exponent;
    else this.#overflow(sign, exponent, precision);
  }

  #overflow(sign: number, exponent: number, precision: number): void {
    this.flags |= OVERFLOW;
    if ((this.masks & OVERFLOW) === 0) {
      if (exponent - WRAP < INFINITE_EXPONENT) this.signExponent = sign | (exponent - WRAP);
      else {
        // FSCALE can overflow by more than wrapping makes up for.
        this.flags |= PRECISION | ROUNDED_UP;
        this.setInfinity(sign);
      }
      return;
    }
    this.flags |= PRECISION;
    this.#setOverflowed(sign, precision);
  }

  /** Infinity or the largest finite number, as the rounding has it. */
  #setOverflowed(sign: number, precision: number): void {
    if (this.rounding === TO_NEAREST || this.rounding === (sign === 0 ? UP : DOWN)) {
      this.flags |= ROUNDED_UP;
      this.setInfinity(sign);
    } else {
      this.flags &= ~ROUNDED_UP;
      const high = precision === 24 ? ~0xff : -1;
      this.set(precision === 64 ? -1 : precision === 53 ? ~0x7ff : 0, high, sign | (INFINITE_EXPONENT - 1));
    }
  }

  #finishTiny(sign: number, exponent: number, high: number, low: number, extra: number, precision: number): void {
    const flags = this.flags;
    // Tininess is detected after rounding: what rounds up to the smallest normal number is not tiny.
    const carried = this.#roundSignificand(sign, high, low, extra, precision);
    const tiny = exponent + carried < 1;
    if (tiny && (this.masks & UNDERFLOW) === 0) {
      this.flags |= UNDERFLOW;
      if (exponent + carried + WRAP > 0) this.signExponent = sign | (exponent + carried + WRAP);
      else {
        this.flags |= PRECISION;
        this.setZero(sign);
      }
      return;
    }
    this.flags = flags;
    this.#shiftRight(high, low, extra, 1 - exponent);
    this.#roundSignificand(sign, this.high, this.low, this.#extra, precision);
    if (tiny && (this.flags & PRECISION) !== 0) this.flags |= UNDERFLOW;
    this.signExponent = this.high < 0 ? sign | 1 : sign;
  }

  /** As `finish`, of a significand that may have leading zeros; there is at least one bit set. */
  normalize(sign: number, exponent: number, high: number, low: number, extra: number, precision: number): void {
    while (high === 0) {
      high = low;
      low = extra;
      extra = 0;
      exponent -= 32;
    }
    const n = Math.clz32(high);
    if (n > 0) {
      high = (high << n) | (low >>> (32 - n));
      low = (low << n) | (extra >>> (32 - n));
      extra <<= n;
      exponent -= n;
    }
    this.finish(sign, exponent, high, low, extra, precision);
  }

  /** Sets significand and exponent (in `signExponent`, signed, without sign) of a non-zero finite operand, normalized. */
  #normalizeOperand(low: number, high: number, signExponent: number): void {
    let exponent = signExponent & INFINITE_EXPONENT || 1;
    if (high === 0) {
      high = low;
      low = 0;
      exponent -= 32;
    }
    const n = Math.clz32(high);
    if (n > 0) {
      high = (high << n) | (low >>> (32 - n));
      low <<= n;
    }
    this.set(low, high, exponent - n);
  }

  /** a + b, or a - b where `negateB` is SIGN. */
  add(aLow: number, aHigh: number, aSe: number, bLow: number, bHigh: number, bSe: number, negateB = 0): void {
    if (!isNormal(aHigh, aSe) || !isNormal(bHigh, bSe)) {
      const a = classify(aLow, aHigh, aSe);
      const b = classify(bLow, bHigh, bSe);
      if (a >= QUIET_NAN || b >= QUIET_NAN) return this.propagateOf(aLow, aHigh, aSe, bLow, bHigh, bSe);
      if (a === INFINITE && b === INFINITE && ((aSe ^ bSe ^ negateB) & SIGN) !== 0) return this.setInvalid();
      if (a === DENORMALIZED || b === DENORMALIZED) this.flags |= DENORMAL;
      if (a === INFINITE) return this.setInfinity(aSe & SIGN);
      if (b === INFINITE) return this.setInfinity((bSe ^ negateB) & SIGN);
    }
    let sign = aSe & SIGN;
    const differ = ((aSe ^ bSe ^ negateB) & SIGN) !== 0;
    let exponent = aSe & INFINITE_EXPONENT || 1;
    let distance = exponent - (bSe & INFINITE_EXPONENT || 1);
    if (distance < 0 || (distance === 0 && isBelow(aLow, aHigh, bLow, bHigh))) {
      if (differ) sign ^= SIGN;
      exponent -= distance;
      distance = -distance;
      const low = aLow;
      const high = aHigh;
      aLow = bLow;
      aHigh = bHigh;
      bLow = low;
      bHigh = high;
    }
    let bExtra = 0;
    if (distance > 0) {
      this.#shiftRight(bHigh, bLow, 0, distance);
      bHigh = this.high;
      bLow = this.low;
      bExtra = this.#extra;
    }
    if (differ) {
      const extra = -bExtra | 0;
      const borrow = bExtra !== 0 ? 1 : 0;
      const low = (aLow >>> 0) - (bLow >>> 0) - borrow;
      const high = (aHigh - bHigh - (low < 0 ? 1 : 0)) | 0;
      if ((high | low | extra) === 0) return this.setZero(this.rounding === DOWN ? SIGN : 0);
      return this.normalize(sign, exponent, high, low | 0, extra, this.precision);
    }
    const low = (aLow >>> 0) + (bLow >>> 0);
    const high = (aHigh >>> 0) + (bHigh >>> 0) + (low >= TWO_32 ? 1 : 0);
    if (high >= TWO_32) {
      const extra = (low << 31) | (bExtra >>> 1) | (bExtra & 1);
      this.finish(sign, exponent + 1, (high >>> 1) | INTEGER_BIT, (low >>> 1) | (high << 31), extra, this.precision);
    } else if (high >= 0x8000_0000) this.finish(sign, exponent, high | 0, low | 0, bExtra, this.precision);
    else if ((high | low | bExtra) >>> 0 === 0) this.setZero(sign);
    else this.normalize(sign, exponent, high | 0, low | 0, bExtra, this.precision);
  }

  multiply(aLow: number, aHigh: number, aSe: number, bLow: number, bHigh: number, bSe: number): void {
    const sign = (aSe ^ bSe) & SIGN;
    let exponent = (aSe & INFINITE_EXPONENT) + (bSe & INFINITE_EXPONENT) - BIAS;
    if (!isNormal(aHigh, aSe) || !isNormal(bHigh, bSe)) {
      const a = classify(aLow, aHigh, aSe);
      const b = classify(bLow, bHigh, bSe);
      if (a >= QUIET_NAN || b >= QUIET_NAN) return this.propagateOf(aLow, aHigh, aSe, bLow, bHigh, bSe);
      if ((a === INFINITE && b === ZERO) || (a === ZERO && b === INFINITE)) return this.setInvalid();
      if (a === DENORMALIZED || b === DENORMALIZED) this.flags |= DENORMAL;
      if (a === INFINITE || b === INFINITE) return this.setInfinity(sign);
      if (a === ZERO || b === ZERO) return this.setZero(sign);
      this.#normalizeOperand(aLow, aHigh, aSe);
      aLow = this.low;
      aHigh = this.high;
      exponent = this.signExponent - BIAS;
      this.#normalizeOperand(bLow, bHigh, bSe);
      bLow = this.low;
      bHigh = this.high;
      exponent += this.signExponent;
    }
    const p0 = Math.imul(aLow, bLow);
    const s1 = (multiplyHigh(aLow, bLow) >>> 0) + (Math.imul(aLow, bHigh) >>> 0) + (Math.imul(aHigh, bLow) >>> 0);
    const c1 = s1 >= 2 * TWO_32 ? 2 : s1 >= TWO_32 ? 1 : 0;
    const s2 = (multiplyHigh(aLow, bHigh) >>> 0) + (multiplyHigh(aHigh, bLow) >>> 0) + (Math.imul(aHigh, bHigh) >>> 0) + c1;
    const c2 = s2 >= 2 * TWO_32 ? 2 : s2 >= TWO_32 ? 1 : 0;
    let high = (multiplyHigh(aHigh, bHigh) + c2) | 0;
    let low = s2 | 0;
    let extra = s1 | (p0 !== 0 ? 1 : 0);
    if (high < 0) exponent++;
    else {
      high = (high << 1) | (low >>> 31);
      low = (low << 1) | (extra >>> 31);
      extra = (extra << 1) | (extra & 1);
    }
    this.finish(sign, exponent, high, low, extra, this.precision);
  }

  /** a / b. */
  divide(aLow: number, aHigh: number, aSe: number, bLow: number, bHigh: number, bSe: number): void {
    const sign = (aSe ^ bSe) & SIGN;
    let exponent = (aSe & INFINITE_EXPONENT) - (bSe & INFINITE_EXPONENT) + BIAS;
    if (!isNormal(aHigh, aSe) || !isNormal(bHigh, bSe)) {
      const a = classify(aLow, aHigh, aSe);
      const b = classify(bLow, bHigh, bSe);
      if (a >= QUIET_NAN || b >= QUIET_NAN) return this.propagateOf(aLow, aHigh, aSe, bLow, bHigh, bSe);
      if ((a === INFINITE && b === INFINITE) || (a === ZERO && b === ZERO)) return this.setInvalid();
      if (b === ZERO) {
        // A denormal dividend is not reported in addition.
        if (a !== INFINITE) this.flags = ZERO_DIVIDE;
        return this.setInfinity(sign);
      }
      if (a === DENORMALIZED || b === DENORMALIZED) this.flags |= DENORMAL;
      if (a === INFINITE) return this.setInfinity(sign);
      if (a === ZERO || b === INFINITE) return this.setZero(sign);
      this.#normalizeOperand(aLow, aHigh, aSe);
      aLow = this.low;
      aHigh = this.high;
      exponent = this.signExponent + BIAS;
      this.#normalizeOperand(bLow, bHigh, bSe);
      bLow = this.low;
      bHigh = this.high;
      exponent -= this.signExponent;
    }
    // The quotient is 0.(first)(second)… or 1.(first)(second)…; between digits, (low, high) is what remains to be divided.
    const below = isBelow(aLow, aHigh, bLow, bHigh);
    this.low = aLow;
    this.high = aHigh;
    if (!below) this.#subtractFromRemainder(bLow, bHigh);
    const first = this.#divideDigit(bLow, bHigh);
    const second = this.#divideDigit(bLow, bHigh);
    const remains = (this.low | this.high) !== 0;
    if (!below) {
      const low = (first << 31) | (second >>> 1);
      return this.finish(sign, exponent, INTEGER_BIT | (first >>> 1), low, (second << 31) | (remains ? 1 : 0), this.precision);
    }
    const extra = remains ? this.#compareDoubled(bLow, bHigh) : 0;
    this.finish(sign, exponent - 1, first, second, extra, this.precision);
  }

  #subtractFromRemainder(low: number, high: number): void {
    const borrow = this.low >>> 0 < low >>> 0 ? 1 : 0;
    this.low = (this.low - low) | 0;
    this.high = (this.high - high - borrow) | 0;
  }

  /** The fraction remainder / divisor as rounding needs it: its first bit and a sticky one. The remainder is not zero. */
  #compareDoubled(low: number, high: number): number {
    if (this.high < 0) return INTEGER_BIT | 1;
    const doubledLow = this.low << 1;
    const doubledHigh = (this.high << 1) | (this.low >>> 31);
    if (isBelow(doubledLow, doubledHigh, low, high)) return 1;
    return doubledLow === low && doubledHigh === high ? INTEGER_BIT : INTEGER_BIT | 1;
  }

  /** The next 32 bits of remainder / divisor, for a remainder below the divisor. Leaves the new remainder. */
  #divideDigit(bLow: number, bHigh: number): number {
    const dividend = (this.high >>> 0) * TWO_32 + (this.low >>> 0);
    const divisor = (bHigh >>> 0) * TWO_32 + (bLow >>> 0);
    // Doubles have more than the 32 bits wanted, so that this is wrong by one at most.
    let digit = Math.min(Math.floor((dividend / divisor) * TWO_32), TWO_32 - 1) | 0;
    const p0 = Math.imul(digit, bLow);
    const p1 = (multiplyHigh(digit, bLow) >>> 0) + (Math.imul(digit, bHigh) >>> 0);
    const p2 = (multiplyHigh(digit, bHigh) >>> 0) + (p1 >= TWO_32 ? 1 : 0);
    const r1 = (this.low >>> 0) - (p1 >>> 0) - (p0 !== 0 ? 1 : 0);
    const r2 = (this.high >>> 0) - p2 - (r1 < 0 ? 1 : 0);
    this.low = -p0 | 0;
    this.high = r1 | 0;
    if (r2 < 0) {
      digit = (digit - 1) | 0;
      const low = (this.low >>> 0) + (bLow >>> 0);
      this.low = low | 0;
      this.high = (this.high + bHigh + (low >= TWO_32 ? 1 : 0)) | 0;
    } else if (r2 > 0 || !isBelow(this.low, this.high, bLow, bHigh)) {
      digit = (digit + 1) | 0;
      this.#subtractFromRemainder(bLow, bHigh);
    }
    return digit;
  }

  squareRoot(low: number, high: number, signExponent: number): void {
    const kind = classify(low, high, signExponent);
    if (kind >= QUIET_NAN) return this.propagate(low, high, signExponent);
    if (kind === ZERO) return this.set(low, high, signExponent);
    if ((signExponent & SIGN) !== 0) return this.setInvalid();
    if (kind === INFINITE) return this.setInfinity(0);
    if (kind === DENORMALIZED) this.flags |= DENORMAL;
    this.#normalizeOperand(low, high, signExponent);
    const power = this.signExponent - BIAS;
    // The radicand has 128 bits: the significand, shifted right by one where the exponent is even, and n1 and 0 below it.
    const even = (power & 1) === 0;
    const n3 = (even ? this.high >>> 1 : this.high) >>> 0;
    const n2 = (even ? (this.high << 31) | (this.low >>> 1) : this.low) >>> 0;
    const n1 = (even ? this.low << 31 : 0) >>> 0;
    let first = Math.min(Math.floor(Math.sqrt(n3 * TWO_32 + n2)), TWO_32 - 1);
    let rest = (n3 - (multiplyHigh(first, first) >>> 0)) * TWO_32 + (n2 - (Math.imul(first, first) >>> 0));
    // What rounding the radicand down to a double takes from its root is below half a unit of that: only too much is possible.
    if (rest < 0) rest += 2 * --first + 1;
    let second = Math.min(Math.floor((rest * TWO_32 + n1) / (2 * first)), TWO_32 - 1);
    for (;;) {
      // What remains of the radicand is over * 2^32 - squareLow, and must lie between 0 and twice the root.
      const productLow = Math.imul(first, second);
      const over =
        (rest - 2 * (multiplyHigh(first, second) >>> 0) - (productLow >>> 31)) * TWO_32 +
        (n1 - ((productLow << 1) >>> 0)) -
        (multiplyHigh(second, second) >>> 0);
      const squareLow = Math.imul(second, second) >>> 0;
      if (over * TWO_32 - squareLow < 0) second--;
      else if ((over - 2 * first) * TWO_32 - squareLow - 2 * second > 0) second++;
      else {
        const beyondHalf = (over - first) * TWO_32 - squareLow - second > 0;
        const extra = over === 0 && squareLow === 0 ? 0 : beyondHalf ? INTEGER_BIT | 1 : 1;
        return this.finish(0, (power >> 1) + BIAS, first | 0, second | 0, extra, this.precision);
      }
    }
  }

  /** How a relates to b. Quiet NaNs are invalid operands too unless `quiet`. */
  compare(aLow: number, aHigh: number, aSe: number, bLow: number, bHigh: number, bSe: number, quiet: boolean): number {
    if (!isNormal(aHigh, aSe) || !isNormal(bHigh, bSe)) {
      const a = classify(aLow, aHigh, aSe);
      const b = classify(bLow, bHigh, bSe);
      if (a >= QUIET_NAN || b >= QUIET_NAN) {
        const bothQuiet = a <= QUIET_NAN && b <= QUIET_NAN;
        this.flags = quiet && bothQuiet ? 0 : INVALID;
        return UNORDERED;
      }
      if (a === DENORMALIZED || b === DENORMALIZED) this.flags |= DENORMAL;
      if (a === ZERO && b === ZERO) return EQUAL;
    }
    const negative = (aSe & SIGN) !== 0;
    if (((aSe ^ bSe) & SIGN) !== 0) return negative ? LESS : GREATER;
    // A pseudo-denormal has the value of the number with exponent 1.
    const aExponent = aSe & INFINITE_EXPONENT || 1;
    const bExponent = bSe & INFINITE_EXPONENT || 1;
    if (aExponent === bExponent && aHigh === bHigh && aLow === bLow) return EQUAL;
    const less = aExponent === bExponent ? isBelow(aLow, aHigh, bLow, bHigh) : aExponent < bExponent;
    return less === negative ? GREATER : LESS;
  }

  /** Rounds a finite operand to an integer; `low`, `high` become its magnitude. False where it has more than 64 bits. */
  #integer(low: number, high: number, signExponent: number): boolean {
    const exponent = signExponent & INFINITE_EXPONENT || 1;
    if (exponent > BIAS + 63) return false;
    const shift = BIAS + 63 - exponent;
    this.#shiftRight(high, low, 0, shift);
    // A shift by 64 or more leaves nothing to carry out of; one by 0 nothing to round.
    this.#roundSignificand(signExponent & SIGN, this.high, this.low, this.#extra, 64);
    return true;
  }

  roundToInteger(low: number, high: number, signExponent: number): void {
    const kind = classify(low, high, signExponent);
    if (kind >= QUIET_NAN) return this.propagate(low, high, signExponent);
    if (kind === DENORMALIZED) this.flags |= DENORMAL;
    const sign = signExponent & SIGN;
    if (kind === ZERO || kind === INFINITE || !this.#integer(low, high, signExponent)) {
      return this.set(low, high, signExponent);
    }
    if ((this.low | this.high) === 0) return this.setZero(sign);
    this.normalize(sign, BIAS + 63, this.high, this.low, 0, 64);
  }

  /** a scaled by two to the power of b's integer part. */
  scale(aLow: number, aHigh: number, aSe: number, bLow: number, bHigh: number, bSe: number): void {
    const a = classify(aLow, aHigh, aSe);
    const b = classify(bLow, bHigh, bSe);
    if (a >= QUIET_NAN || b >= QUIET_NAN) return this.propagateOf(aLow, aHigh, aSe, bLow, bHigh, bSe);
    const sign = aSe & SIGN;
    const negative = (bSe & SIGN) !== 0;
    if (b === INFINITE && (negative ? a === INFINITE : a === ZERO)) return this.setInvalid();
    if (a === DENORMALIZED || b === DENORMALIZED) this.flags |= DENORMAL;
    if (a === INFINITE || a === ZERO) return this.set(aLow, aHigh, aSe);
    if (b === INFINITE) return negative ? this.setZero(sign) : this.setInfinity(sign);
    const power = bSe & INFINITE_EXPONENT;
    // Beyond 2^17 every result is out of range whatever the operand.
    const magnitude = power < BIAS ? 0 : power > BIAS + 16 ? 1 << 17 : bHigh >>> (BIAS + 31 - power);
    this.#normalizeOperand(aLow, aHigh, aSe);
    this.finish(sign, this.signExponent + (negative ? -magnitude : magnitude), this.high, this.low, 0, 64);
  }

  /** The unbiased exponent of a non-zero finite operand, as a value; `significandOf` has the rest of it. */
  exponentOf(low: number, high: number, signExponent: number): void {
    this.#normalizeOperand(low, high, signExponent);
    this.fromInteger32(this.signExponent - BIAS);
  }

  significandOf(low: number, high: number, signExponent: number): void {
    this.#normalizeOperand(low, high, signExponent);
    this.signExponent = (signExponent & SIGN) | BIAS;
  }

  /**
   * What remains of a after taking off multiples of b: the quotient truncated (FPREM) or, with `nearest`,
   * rounded (FPREM1). Exponents 64 or more apart are brought closer by one step, and `quotient` says so.
   */
  remainder(aLow: number, aHigh: number, aSe: number, bLow: number, bHigh: number, bSe: number, nearest: boolean): void {
    const a = classify(aLow, aHigh, aSe);
    const b = classify(bLow, bHigh, bSe);
    this.quotient = NO_QUOTIENT;
    if (a >= QUIET_NAN || b >= QUIET_NAN) return this.propagateOf(aLow, aHigh, aSe, bLow, bHigh, bSe);
    if (a === INFINITE || b === ZERO) return this.setInvalid();
    if (a === DENORMALIZED || b === DENORMALIZED) this.flags |= DENORMAL;
    this.quotient = 0;
    if (a === ZERO) return this.set(aLow, aHigh, aSe);
    let sign = aSe & SIGN;
    this.#normalizeOperand(bLow, bHigh, bSe);
    bLow = this.low;
    bHigh = this.high;
    const bExponent = this.signExponent;
    this.#normalizeOperand(aLow, aHigh, aSe);
    const aExponent = this.signExponent;
    const distance = aExponent - bExponent;
    if (b === INFINITE || distance < (nearest ? -1 : 0)) {
      return this.finish(sign, aExponent, this.high, this.low, 0, 64);
    }
    const partial = distance >= 64;
    // A step takes between 32 and 63 off the exponents' distance (SDM 2, FPREM); which, is AMD's choice.
    const steps = (partial ? (distance & 31) | 32 : distance) + 1;
    let quotient = 0;
    let carry = 0;
    if (distance >= 0) {
      for (let step = 0; step < steps; step++) {
        if (step > 0) {
          carry = this.high >>> 31;
          this.high = (this.high << 1) | (this.low >>> 31);
          this.low <<= 1;
        }
        quotient <<= 1;
        if (carry !== 0 || !isBelow(this.low, this.high, bLow, bHigh)) {
          this.#subtractFromRemainder(bLow, bHigh);
          quotient |= 1;
        }
      }
    } else this.#shiftRight(this.high, this.low, 0, 1);
    const lost = distance < 0 ? this.#extra : 0;
    const unit = partial ? bExponent + distance - steps + 1 : bExponent;
    if (partial) this.quotient = INCOMPLETE;
    else {
      if (nearest && (this.low | this.high | lost) !== 0) {
        const half = this.#compareDoubled(bLow, bHigh);
        const beyond = half === (INTEGER_BIT | 1) || (half === INTEGER_BIT && (lost !== 0 || (quotient & 1) !== 0));
        if (beyond) {
          quotient++;
          sign ^= SIGN;
          const remainderLow = this.low;
          const remainderHigh = this.high;
          this.low = bLow;
          this.high = bHigh;
          this.#subtractFromRemainder(remainderLow, remainderHigh);
          if (lost !== 0) this.#subtractFromRemainder(1, 0);
        }
      }
      this.quotient = quotient & 7;
    }
    if ((this.low | this.high | lost) === 0) return this.setZero(sign);
    this.normalize(sign, unit, this.high, this.low, lost, 64);
  }

  fromInteger32(value: number): void {
    if (value === 0) return this.setZero(0);
    const magnitude = Math.abs(value);
    const n = Math.clz32(magnitude);
    this.set(0, magnitude << n, (value < 0 ? SIGN : 0) | (BIAS + 31 - n));
  }

  fromInteger64(low: number, high: number): void {
    if ((low | high) === 0) return this.setZero(0);
    const sign = high < 0 ? SIGN : 0;
    if (high < 0) {
      low = -low | 0;
      high = (~high + (low === 0 ? 1 : 0)) | 0;
    }
    this.normalize(sign, BIAS + 63, high, low, 0, 64);
  }

  /** A float32 as it is: signaling NaNs stay so, and a denormal is noted in `flags`. */
  fromFloat32(bits: number): void {
    const sign = (bits >>> 16) & SIGN;
    const exponent = (bits >>> 23) & 0xff;
    const fraction = bits & 0x7f_ffff;
    if (exponent === 0) {
      if (fraction === 0) return this.setZero(sign);
      this.flags |= DENORMAL;
      const n = Math.clz32(fraction);
      this.set(0, fraction << n, sign | (BIAS - 126 + 8 - n));
    } else {
      this.set(0, INTEGER_BIT | (fraction << 8), sign | (exponent === 0xff ? INFINITE_EXPONENT : exponent - 127 + BIAS));
    }
  }

  /** A float64 as it is; see `fromFloat32`. */
  fromFloat64(low: number, high: number): void {
    const sign = (high >>> 16) & SIGN;
    const exponent = (high >>> 20) & 0x7ff;
    const fraction = high & 0xf_ffff;
    if (exponent === 0) {
      if ((fraction | low) === 0) return this.setZero(sign);
      this.flags |= DENORMAL;
      return this.normalize(sign, BIAS - 1022 + 11, fraction, low, 0, 64);
    }
    const biased = exponent === 0x7ff ? INFINITE_EXPONENT : exponent - 1023 + BIAS;
    this.set(low << 11, INTEGER_BIT | (fraction << 11) | (low >>> 21), sign | biased);
  }

  /** Makes what was loaded from a float32 or float64 quiet, noting a signaling NaN. */
  quietLoaded(): void {
    if ((this.signExponent & INFINITE_EXPONENT) !== INFINITE_EXPONENT) return;
    if (classify(this.low, this.high, this.signExponent) === SIGNALING_NAN) {
      this.flags |= INVALID;
      this.high |= QUIET_BIT;
    }
  }

  /**
   * Rounds to the range and precision of a narrower format: exponents from `minimum` to below `limit`, biased
   * as here. A denormal result comes out with exponent 0 here, an overflow as infinity or the largest number.
   */
  #narrow(low: number, high: number, signExponent: number, precision: number, minimum: number, limit: number): void {
    const sign = signExponent & SIGN;
    const kind = classify(low, high, signExponent);
    if (kind >= QUIET_NAN) return this.propagate(low, high, signExponent);
    if (kind === ZERO || kind === INFINITE) return this.set(low, high, signExponent);
    this.#normalizeOperand(low, high, signExponent);
    let exponent = this.signExponent;
    const fullHigh = this.high;
    const fullLow = this.low;
    exponent += this.#roundSignificand(sign, fullHigh, fullLow, 0, precision);
    if (exponent >= limit) {
      this.flags |= OVERFLOW;
      if ((this.masks & OVERFLOW) === 0) return;
      this.flags |= PRECISION;
      this.#setOverflowed(sign, precision);
      if (this.high << 1 !== 0) this.signExponent = sign | (limit - 1);
      return;
    }
    if (exponent < minimum) {
      if ((this.masks & UNDERFLOW) === 0) {
        this.flags |= UNDERFLOW;
        return;
      }
      this.flags &= ~(PRECISION | ROUNDED_UP);
      this.#shiftRight(fullHigh, fullLow, 0, minimum - this.signExponent);
      this.#roundSignificand(sign, this.high, this.low, this.#extra, precision);
      if ((this.flags & PRECISION) !== 0) this.flags |= UNDERFLOW;
      exponent = this.high < 0 ? minimum : 0;
    }
    this.signExponent = sign | exponent;
  }

  /** Converts to a float32; its bits are returned. */
  toFloat32(low: number, high: number, signExponent: number): number {
    this.#narrow(low, high, signExponent, 24, BIAS - 126, BIAS + 128);
    const exponent = this.signExponent & INFINITE_EXPONENT;
    const biased = exponent === 0 ? 0 : exponent === INFINITE_EXPONENT ? 0xff : exponent - BIAS + 127;
    return ((this.signExponent & SIGN) << 16) | (biased << 23) | ((this.high >>> 8) & 0x7f_ffff);
  }

  /** Converts to a float64, left in `low` and `high`. */
  toFloat64(low: number, high: number, signExponent: number): void {
    this.#narrow(low, high, signExponent, 53, BIAS - 1022, BIAS + 1024);
    const exponent = this.signExponent & INFINITE_EXPONENT;
    const biased = exponent === 0 ? 0 : exponent === INFINITE_EXPONENT ? 0x7ff : exponent - BIAS + 1023;
    this.low = (this.low >>> 11) | (this.high << 21);
    this.high = ((this.signExponent & SIGN) << 16) | (biased << 20) | ((this.high >>> 11) & 0xf_ffff);
  }

  /** Converts to a signed integer of 16, 32 or 64 bits in `low` and `high`; the integer indefinite where it does not fit. */
  toInteger(low: number, high: number, signExponent: number, bits: 16 | 32 | 64): void {
    const negative = (signExponent & SIGN) !== 0;
    if (classify(low, high, signExponent) < INFINITE && this.#integer(low, high, signExponent)) {
      // The most negative integer has no positive counterpart.
      const limitHigh = bits === 64 ? INTEGER_BIT : 0;
      const limitLow = bits === 64 ? 0 : 1 << (bits - 1);
      const limit = negative
        ? !isBelow(limitLow, limitHigh, this.low, this.high)
        : isBelow(this.low, this.high, limitLow, limitHigh);
      if (limit) {
        if (negative) {
          this.low = -this.low | 0;
          this.high = (~this.high + (this.low === 0 ? 1 : 0)) | 0;
        }
        return;
      }
    }
    this.flags = INVALID;
    this.low = bits === 64 ? 0 : -1 << (bits - 1);
    this.high = bits === 64 ? INTEGER_BIT : -1;
  }

  /** Rounds to an integer of at most 18 decimal digits, its magnitude in `low` and `high`. False where it has more. */
  toDecimal(low: number, high: number, signExponent: number): boolean {
    if (classify(low, high, signExponent) < INFINITE && this.#integer(low, high, signExponent)) {
      if (isBelow(this.low, this.high, DECIMAL_LIMIT_LOW, DECIMAL_LIMIT_HIGH)) return true;
    }
    this.flags = INVALID;
    return false;
  }
}

/** 10^18, the first integer that packed BCD cannot hold. */
const DECIMAL_LIMIT_LOW = Number(BigInt.asIntN(32, 10n ** 18n));
const DECIMAL_LIMIT_HIGH = Number((10n ** 18n) >> 32n);
