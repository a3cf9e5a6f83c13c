/**
 * SSE floating-point arithmetic in everything that MXCSR can ask for: rounding modes, denormals as zeros (DAZ), flushing to
 * zero (FTZ), exception flags, unmasked exceptions. Generated code does the usual case itself (isa/sse-float.ts); the rest is
 * exact here. SDM 1 chapter 11.5 and appendix E.
 *
 * Method: the host's doubles give a result to nearest, Knuth's and Dekker's formulas the sign of its error, both together what
 * any rounding to either format needs. Operands of products, quotients and roots are scaled, so that no exponent is in the way.
 */

import * as state from './state.ts';

const INVALID = 1 << 0;
const DENORMAL = 1 << 1;
const ZERO_DIVIDE = 1 << 2;
const OVERFLOW = 1 << 3;
const UNDERFLOW = 1 << 4;
export const PRECISION = 1 << 5;
/** Found before an operation is performed; those found after it are not told where one of these is unmasked. */
const BEFORE = INVALID | DENORMAL | ZERO_DIVIDE;
const ALL_EXCEPTIONS = 0x3f;

/** MXCSR: denormals are zeros, flush to zero, rounding control, exception masks. */
const DAZ = 1 << 6;
const FTZ = 1 << 15;
const ROUNDING_SHIFT = 13;
export const ROUNDING = 3 << ROUNDING_SHIFT;
export const MASK_SHIFT = 7;

const [NEAREST, DOWN, UP, TOWARDS_ZERO] = [0, 1, 2, 3];

const SIGN = 0x8000_0000 | 0;
const MAGNITUDE = 0x7fff_ffff;

/** A binary interchange format, by the high word of its encodings: for singles the only one. */
interface Format {
  single: boolean;
  infinity: number;
  quiet: number;
  /** Bits of a significand. */
  precision: number;
  /** Exponents of normal numbers, 1 ≤ significand < 2. */
  minimumExponent: number;
  maximumExponent: number;
  largest: number;
}

const SINGLE: Format = {
  single: true, infinity: 0x7f80_0000, quiet: 0x0040_0000, precision: 24, minimumExponent: -126, maximumExponent: 127, largest: 2 ** 128 - 2 ** 104,
}; // biome-ignore format: a table
const DOUBLE: Format = {
  single: false, infinity: 0x7ff0_0000, quiet: 0x0008_0000, precision: 53, minimumExponent: -1022, maximumExponent: 1023, largest: Number.MAX_VALUE,
}; // biome-ignore format: a table

const TWO_32 = 2 ** 32;
const LEAST_DENORMAL_EXPONENT = -1074;

/** Where a number's encoding is looked at, and made. */
const number = new Float64Array(1);
const words = new Int32Array(number.buffer);
const single = new Float32Array(number.buffer);

function powerOfTwo(exponent: number): number {
  const place = exponent - LEAST_DENORMAL_EXPONENT;
  words[0] = exponent < DOUBLE.minimumExponent && place < 32 ? 1 << place : 0;
  words[1] = exponent >= DOUBLE.minimumExponent ? (exponent + 1023) << 20 : place < 32 ? 0 : 1 << (place - 32);
  return number[0];
}

/** Exponent of a normal number. */
function exponentOf(value: number): number {
  number[0] = value;
  return ((words[1] >>> 20) & 0x7ff) - 1023;
}

/** The error of a product of two numbers from 1 to 4 (Dekker): exact. */
function productError(a: number, b: number, product: number): number {
  const splitA = 134217729 * a;
  const highA = splitA - (splitA - a);
  const lowA = a - highA;
  const splitB = 134217729 * b;
  const highB = splitB - (splitB - b);
  const lowB = b - highB;
  return lowA * lowB - (product - highA * highB - lowA * highB - highA * lowB);
}

/** A finite value rounded to an integer. */
function toIntegral(value: number, mode: number): number {
  if (mode === DOWN) return Math.floor(value);
  if (mode === UP) return Math.ceil(value);
  if (mode === TOWARDS_ZERO) return Math.trunc(value);
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
}

const OPERATIONS = [
  'add', 'sub', 'mul', 'div', 'sqrt', 'addSubtract', 'min', 'max', 'compare', 'comi', 'ucomi', 'round', 'toSingle', 'toDouble',
  'toInteger32', 'toInteger64', 'truncate32', 'truncate64', 'fromInteger32', 'fromInteger64',
] as const; // biome-ignore format: a table
export type SseOperation = (typeof OPERATIONS)[number];

const OF_DOUBLES = 1 << 8;
const LANES_SHIFT = 9;

/** The number that `SseUnit.execute` takes for an operation on lanes of 32 or 64 bits (of a conversion from integers: the results'). */
export const sseOperation = (name: SseOperation, bits: 32 | 64, lanes: number): number =>
  OPERATIONS.indexOf(name) | (bits === 64 ? OF_DOUBLES : 0) | (lanes << LANES_SHIFT);

/** Relations of two numbers as bits of a set, and those that hold for predicates 0 to 3 (EQ, LT, LE, UNORD); 4 to 7 are their opposites. */
const [LESS, EQUAL, GREATER, UNORDERED] = [1, 2, 4, 8];
const PREDICATES = [EQUAL, LESS, LESS | EQUAL, UNORDERED];

const ARGUMENT_WORDS = 8;
const RESULT_WORDS = 4;

export class SseUnit {
  private readonly memory: Int32Array;
  private readonly inputs = new Int32Array(ARGUMENT_WORDS);
  private readonly results = new Int32Array(RESULT_WORDS);
  private mxcsr = 0;
  /** Exceptions found so far. */
  private flags = 0;
  private rounding = NEAREST;
  /** The format of operands. */
  private format = SINGLE;
  /** An operand was denormal; it counts where the operation is performed. */
  private denormal = false;
  private inexact = false;
  /** The lane that is being made. */
  private low = 0;
  private high = 0;

  constructor(buffer: ArrayBufferLike) {
    this.memory = new Int32Array(buffer);
  }

  /**
   * Performs an operation (`sseOperation`) on the vCPU at `base`: operands in ARGUMENT, 16 bytes each (unary ones take the
   * second), the result in the first one's place. False where an exception is unmasked: MXCSR tells which, there is no result.
   */
  execute(base: number, operation: number, detail: number): boolean {
    const { memory, inputs, results } = this;
    const at = (base + state.ARGUMENT) >> 2;
    const mxcsrAt = (base + state.MXCSR) >> 2;
    for (let i = 0; i < ARGUMENT_WORDS; i++) inputs[i] = memory[at + i];
    results.fill(0);
    this.mxcsr = memory[mxcsrAt];
    this.rounding = (this.mxcsr >> ROUNDING_SHIFT) & 3;
    this.flags = 0;
    this.format = operation & OF_DOUBLES ? DOUBLE : SINGLE;
    const name = OPERATIONS[operation & 0xff];
    const lanes = operation >> LANES_SHIFT;
    for (let lane = 0; lane < lanes; lane++) this.performLane(name, lane, detail);
    const unmasked = this.flags & ~(this.mxcsr >> MASK_SHIFT) & ALL_EXCEPTIONS;
    memory[mxcsrAt] = this.mxcsr | (unmasked & BEFORE ? this.flags & BEFORE : this.flags);
    if (unmasked !== 0) return false;
    for (let i = 0; i < RESULT_WORDS; i++) memory[at + i] = results[i];
    return true;
  }

  private performLane(name: SseOperation, lane: number, detail: number): void {
    const { inputs, format } = this;
    const wide = !format.single;
    const place = wide ? 2 * lane : lane;
    const aLow = inputs[place];
    const aHigh = wide ? inputs[place + 1] : aLow;
    const bLow = inputs[4 + place];
    const bHigh = wide ? inputs[4 + place + 1] : bLow;
    this.denormal = false;
    switch (name) {
      case 'add':
      case 'mul':
      case 'div':
        this.binary(name, aHigh, aLow, bHigh, bLow, false);
        return this.store(lane, format);
      case 'sub':
        this.binary('add', aHigh, aLow, bHigh, bLow, true);
        return this.store(lane, format);
      case 'addSubtract':
        this.binary('add', aHigh, aLow, bHigh, bLow, (lane & 1) === 0);
        return this.store(lane, format);
      case 'sqrt':
        this.squareRoot(bHigh, bLow);
        return this.store(lane, format);
      case 'min':
      case 'max': {
        const first = this.compare(aHigh, aLow, bHigh, bLow, false) === (name === 'min' ? LESS : GREATER);
        this.set(first ? aHigh : bHigh, first ? aLow : bLow);
        // A denormal that counts as zero is one in the result.
        if (this.mxcsr & DAZ && this.isDenormal(this.high, this.low)) this.set(this.high & SIGN, 0);
        return this.store(lane, format);
      }
      case 'compare': {
        const quiet = (detail & 3) === 0 || (detail & 3) === 3;
        const holds = (this.compare(aHigh, aLow, bHigh, bLow, quiet) & PREDICATES[detail & 3]) !== 0;
        const mask = holds !== (detail & 4) > 0 ? -1 : 0;
        this.set(mask, mask);
        return this.store(lane, format);
      }
      case 'comi':
      case 'ucomi': {
        // At least, at most.
        const relation = this.compare(aHigh, aLow, bHigh, bLow, name === 'ucomi');
        this.results[0] = (relation & (EQUAL | GREATER) ? 1 : 0) | (relation & (EQUAL | LESS) ? 2 : 0);
        return;
      }
      case 'round':
        this.roundToIntegral(bHigh, bLow, detail);
        return this.store(lane, format);
      case 'toSingle':
        this.toFormat(SINGLE, bHigh, bLow);
        return this.store(lane, SINGLE);
      case 'toDouble':
        this.toFormat(DOUBLE, bHigh, bLow);
        return this.store(lane, DOUBLE);
      case 'toInteger32':
      case 'truncate32':
        this.toInteger(32, bHigh, bLow, name === 'truncate32' ? TOWARDS_ZERO : this.rounding);
        this.results[lane] = this.low;
        return;
      case 'toInteger64':
      case 'truncate64':
        this.toInteger(64, bHigh, bLow, name === 'truncate64' ? TOWARDS_ZERO : this.rounding);
        return this.store(lane, DOUBLE);
      case 'fromInteger32':
        this.sum(inputs[4 + lane], 0);
        return this.store(lane, format);
      case 'fromInteger64':
        this.sum(inputs[5] * TWO_32, inputs[4] >>> 0);
        return this.store(lane, format);
    }
  }

  // --- Encodings ----------------------------------------------------------------------------------

  private set(high: number, low: number): void {
    this.high = high;
    this.low = low;
  }

  private store(lane: number, { single: narrow }: Format): void {
    if (narrow) this.results[lane] = this.high;
    else {
      this.results[2 * lane] = this.low;
      this.results[2 * lane + 1] = this.high;
    }
  }

  /** The lane becomes a number that the format holds exactly. */
  private put(value: number, { single: narrow }: Format): void {
    if (narrow) {
      single[0] = value;
      this.set(words[0], 0);
    } else {
      number[0] = value;
      this.set(words[1], words[0]);
    }
  }

  private isNan(high: number, low: number): boolean {
    const { infinity, single: narrow } = this.format;
    const size = high & MAGNITUDE;
    return size > infinity || (size === infinity && !narrow && low !== 0);
  }

  private isDenormal(high: number, low: number): boolean {
    const rest = this.format.single ? 0 : low;
    return (high & this.format.infinity) === 0 && ((high & MAGNITUDE) | rest) !== 0;
  }

  /** What an operand stands for, if it is no NaN; notes a denormal, or takes it for zero. */
  private valueOf(high: number, low: number): number {
    if (this.isDenormal(high, low)) {
      if (this.mxcsr & DAZ) return high < 0 ? -0 : 0;
      this.denormal = true;
    }
    words[0] = this.format.single ? high : low;
    if (this.format.single) return single[0];
    words[1] = high;
    return number[0];
  }

  /** A result of operands that are denormal, maybe. */
  private noteDenormal(): void {
    if (this.denormal) this.flags |= DENORMAL;
  }

  private invalid(): void {
    this.flags |= INVALID;
    this.set(SIGN | this.format.infinity | this.format.quiet, 0);
  }

  /** Of operands of which one is a NaN the first that is, made quiet. */
  private propagate(aHigh: number, aLow: number, bHigh: number, bLow: number): void {
    const { quiet } = this.format;
    const first = this.isNan(aHigh, aLow);
    if ((first && !(aHigh & quiet)) || (this.isNan(bHigh, bLow) && !(bHigh & quiet))) this.flags |= INVALID;
    this.set((first ? aHigh : bHigh) | quiet, first ? aLow : bLow);
  }

  // --- Arithmetic ---------------------------------------------------------------------------------

  private binary(name: 'add' | 'mul' | 'div', aHigh: number, aLow: number, bHigh: number, bLow: number, negate: boolean): void {
    if (this.isNan(aHigh, aLow) || this.isNan(bHigh, bLow)) return this.propagate(aHigh, aLow, bHigh, bLow);
    const a = this.valueOf(aHigh, aLow);
    const b = negate ? -this.valueOf(bHigh, bLow) : this.valueOf(bHigh, bLow);
    if (name === 'div' && b === 0 && a !== 0 && Math.abs(a) < Number.POSITIVE_INFINITY) {
      this.flags |= ZERO_DIVIDE;
      return this.put(a / b, this.format);
    }
    const plain = name === 'add' ? a + b : name === 'mul' ? a * b : a / b;
    if (Number.isNaN(plain)) return this.invalid();
    this.noteDenormal();
    if (!Number.isFinite(a) || !Number.isFinite(b)) return this.put(plain, this.format);
    if (name === 'add') return this.sum(a, b);
    if (a === 0 || b === 0) return this.put(plain, this.format);
    const [exponentA, exponentB] = [this.exponent(a), this.exponent(b)];
    const [significandA, significandB] = [this.significand(a), this.significand(b)];
    if (name === 'mul') {
      const product = significandA * significandB;
      return this.round(product, productError(significandA, significandB, product), exponentA + exponentB);
    }
    const quotient = significandA / significandB;
    // What is left of the dividend has the sign of the error, if the divisor is positive.
    const product = Math.abs(quotient) * Math.abs(significandB);
    const rest = Math.abs(significandA) - product - productError(Math.abs(quotient), Math.abs(significandB), product);
    this.round(quotient, quotient < 0 ? -rest : rest, exponentA - exponentB);
  }

  private exponent(value: number): number {
    return Math.abs(value) < 2 ** -1022 ? exponentOf(value * 2 ** 200) - 200 : exponentOf(value);
  }

  /** The value with an exponent of 0. */
  private significand(value: number): number {
    number[0] = Math.abs(value) < 2 ** -1022 ? value * 2 ** 200 : value;
    words[1] = (words[1] & 0x800f_ffff) | 0x3ff0_0000;
    return number[0];
  }

  /** Of finite numbers; integers of 64 bits are sums, too. */
  private sum(a: number, b: number): void {
    let [first, second] = [a, b];
    const size = Math.max(Math.abs(a), Math.abs(b));
    let scale = 0;
    if (size > 2 ** 1000) {
      scale = 100;
      first *= 2 ** -100;
      second *= 2 ** -100;
      // Of what is so much smaller than the other only the sign matters.
      if (first === 0 && a !== 0) first = Math.sign(a) * Number.MIN_VALUE;
      if (second === 0 && b !== 0) second = Math.sign(b) * Number.MIN_VALUE;
    } else if (size < 2 ** -800) {
      scale = -200;
      first *= 2 ** 200;
      second *= 2 ** 200;
    }
    const sum = first + second;
    if (sum === 0) {
      const same = first === 0 && second === 0 && Object.is(first, second);
      return this.put(same ? first : this.rounding === DOWN ? -0 : 0, this.format);
    }
    const added = sum - first;
    this.round(sum, first - (sum - added) + (second - added), scale);
  }

  private squareRoot(high: number, low: number): void {
    if (this.isNan(high, low)) return this.propagate(high, low, high, low);
    const value = this.valueOf(high, low);
    if (value < 0) return this.invalid();
    this.noteDenormal();
    if (value === 0 || value === Number.POSITIVE_INFINITY) return this.put(value, this.format);
    const exponent = this.exponent(value);
    const radicand = this.significand(value) * (exponent & 1 ? 2 : 1);
    const root = Math.sqrt(radicand);
    const square = root * root;
    this.round(root, radicand - square - productError(root, root, square), exponent >> 1);
  }

  /**
   * The lane becomes (value + error) × 2^scale, rounded: `value` is that to nearest of which `error` has the exact rest's sign, and
   * has a normal number's exponent.
   */
  private round(value: number, error: number, scale: number, format = this.format): void {
    const negative = value < 0;
    const size = Math.abs(value);
    const rest = negative ? -error : error;
    let exponent = exponentOf(size);
    // Below a power of two numbers are closer.
    if (rest < 0 && (words[1] & 0xf_ffff) === 0 && words[0] === 0) exponent--;
    const { precision, minimumExponent, maximumExponent } = format;
    let unit = exponent - precision + 1;
    let count = this.roundToUnit(size, unit, rest, negative);
    const leading = scale + (count === 2 ** precision ? exponent + 1 : exponent);
    if (leading > maximumExponent) {
      this.flags |= OVERFLOW | PRECISION;
      const toInfinity = this.rounding === NEAREST || this.rounding === (negative ? DOWN : UP);
      const result = toInfinity ? Number.POSITIVE_INFINITY : format.largest;
      return this.put(negative ? -result : result, format);
    }
    // Tiny is what would be below the least normal number if exponents had no end.
    if (leading < minimumExponent) {
      const masked = (this.mxcsr & (UNDERFLOW << MASK_SHIFT)) !== 0;
      if (masked && this.mxcsr & FTZ) {
        this.flags |= UNDERFLOW | PRECISION;
        return this.put(negative ? -0 : 0, format);
      }
      unit = minimumExponent - precision + 1 - scale;
      // Far below the least denormal number, how far does not matter.
      count = this.roundToUnit(size, Math.min(unit, exponent + 3), rest, negative);
      this.flags |= (this.inexact ? PRECISION : 0) | (this.inexact || !masked ? UNDERFLOW : 0);
    } else if (this.inexact) this.flags |= PRECISION;
    const result = count * powerOfTwo(unit + scale);
    this.put(negative ? -result : result, format);
  }

  /** A magnitude, and a rest that is smaller than half of its last place, as a multiple of 2^unit. */
  private roundToUnit(size: number, unit: number, rest: number, negative: boolean): number {
    const quotient = size * powerOfTwo(-unit);
    const below = Math.floor(quotient);
    const part = quotient - below;
    this.inexact = part !== 0 || rest !== 0;
    // Just below an integer: the host has rounded up to it.
    const fallsShort = part === 0 && rest < 0;
    switch (this.rounding) {
      case NEAREST:
        return part > 0.5 || (part === 0.5 && (rest > 0 || (rest === 0 && below % 2 !== 0))) ? below + 1 : below;
      case TOWARDS_ZERO:
        return fallsShort ? below - 1 : below;
      default: {
        const away = this.inexact && this.rounding === (negative ? DOWN : UP);
        return (fallsShort ? below - 1 : below) + (away ? 1 : 0);
      }
    }
  }

  // --- Comparison and conversion ------------------------------------------------------------------

  /** Notes what comparing raises: an invalid operation for signaling NaNs, or for any. */
  private compare(aHigh: number, aLow: number, bHigh: number, bLow: number, quiet: boolean): number {
    if (this.isNan(aHigh, aLow) || this.isNan(bHigh, bLow)) {
      if (quiet) this.propagate(aHigh, aLow, bHigh, bLow);
      else this.flags |= INVALID;
      return UNORDERED;
    }
    const a = this.valueOf(aHigh, aLow);
    const b = this.valueOf(bHigh, bLow);
    this.noteDenormal();
    return a < b ? LESS : a > b ? GREATER : EQUAL;
  }

  /** ROUNDPS and its kin: bits 0 and 1 of the immediate are the mode, unless bit 2 names MXCSR's; bit 3 keeps precision quiet. */
  private roundToIntegral(high: number, low: number, control: number): void {
    if (this.isNan(high, low)) return this.propagate(high, low, high, low);
    const value = this.valueOf(high, low);
    const result = Number.isFinite(value) ? toIntegral(value, control & 4 ? this.rounding : control & 3) : value;
    if (result !== value && !(control & 8)) this.flags |= PRECISION;
    this.put(result === 0 && high < 0 ? -0 : result, this.format);
  }

  private toFormat(to: Format, high: number, low: number): void {
    if (this.isNan(high, low)) {
      this.propagate(high, low, high, low);
      const { infinity, quiet } = to;
      if (to.single) this.set((high & SIGN) | infinity | quiet | ((high & 0xf_ffff) << 3) | (low >>> 29), 0);
      else this.set((high & SIGN) | infinity | quiet | ((high & 0x7f_ffff) >>> 3), high << 29);
      return;
    }
    const value = this.valueOf(high, low);
    this.noteDenormal();
    if (value === 0 || !Number.isFinite(value) || !to.single) return this.put(value, to);
    if (this.denormal) this.round(value * 2 ** 200, 0, -200, to);
    else this.round(value, 0, 0, to);
  }

  private toInteger(bits: 32 | 64, high: number, low: number, mode: number): void {
    const limit = 2 ** (bits - 1);
    const value = this.isNan(high, low) ? Number.POSITIVE_INFINITY : this.valueOf(high, low);
    const integer = Number.isFinite(value) ? toIntegral(value, mode) : value;
    if (integer >= -limit && integer < limit) {
      if (integer !== value) this.flags |= PRECISION;
      const upper = Math.floor(integer / TWO_32);
      return this.set(upper | 0, (integer - upper * TWO_32) | 0);
    }
    this.flags |= INVALID;
    this.set(SIGN, bits === 32 ? SIGN : 0);
  }
}
