/**
 * SSE floating-point arithmetic in everything that MXCSR can ask for: rounding modes, denormals as zeros (DAZ), flushing to
 * zero (FTZ), exception flags, unmasked exceptions. Generated code does the usual case itself (isa/sse-float.ts); what is left
 * is exact here by integers. SDM 1 chapter 11.5 and appendix E.
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
export const DAZ = 1 << 6;
export const FTZ = 1 << 15;
export const ROUNDING_SHIFT = 13;
export const ROUNDING = 3 << ROUNDING_SHIFT;
export const MASK_SHIFT = 7;
export const MASKS = ALL_EXCEPTIONS << MASK_SHIFT;

const [NEAREST, DOWN, UP, TOWARDS_ZERO] = [0, 1, 2, 3];

/** A binary interchange format. */
interface Format {
  bits: 32 | 64;
  /** Bits of the fraction; the precision is one more. */
  fraction: number;
  bias: number;
  sign: bigint;
  quiet: bigint;
  infinity: bigint;
  indefinite: bigint;
}

function format(bits: 32 | 64, fraction: number): Format {
  const exponentBits = bits - 1 - fraction;
  const sign = 1n << BigInt(bits - 1);
  const infinity = ((1n << BigInt(exponentBits)) - 1n) << BigInt(fraction);
  const quiet = 1n << BigInt(fraction - 1);
  return { bits, fraction, bias: 2 ** (exponentBits - 1) - 1, sign, quiet, infinity, indefinite: sign | infinity | quiet };
}

const SINGLE = format(32, 23);
const DOUBLE = format(64, 52);

/** A number taken apart: significand × 2^exponent where it is finite. */
interface Unpacked {
  bits: bigint;
  kind: 'zero' | 'finite' | 'infinite' | 'nan';
  negative: boolean;
  signaling: boolean;
  denormal: boolean;
  significand: bigint;
  exponent: number;
}

function bitLength(value: bigint): number {
  const digits = value.toString(16);
  return 4 * (digits.length - 1) + 32 - Math.clz32(Number.parseInt(digits[0], 16));
}

function squareRootOf(value: bigint): bigint {
  let root = 1n << BigInt((bitLength(value) + 1) >> 1);
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

type Binary = (u: SseUnit, f: Format, a: Unpacked, b: Unpacked) => bigint;
/** An operation on so many lanes of a format; `detail` is its immediate. Reads `u.inputs`, writes `u.results`. */
type Operation = (u: SseUnit, f: Format, lanes: number, detail: number) => void;

const lanewise =
  (binary: Binary): Operation =>
  (u, f, lanes) => {
    for (let i = 0; i < lanes; i++) u.put(f.bits, i, binary(u, f, u.operand(f, 0, i), u.operand(f, 1, i)));
  };

const add: Binary = (u, f, a, b) => {
  const nan = u.nanOf(f, a, b);
  if (nan !== undefined) return nan;
  if (a.kind === 'infinite' && b.kind === 'infinite' && a.negative !== b.negative) return u.invalid(f);
  u.noteDenormals(a, b);
  if (a.kind === 'infinite') return a.bits;
  if (b.kind === 'infinite') return b.bits;
  const exponent = Math.min(a.exponent, b.exponent);
  const term = ({ negative, significand, exponent: e }: Unpacked): bigint =>
    (negative ? -significand : significand) << BigInt(e - exponent);
  const sum = term(a) + term(b);
  if (sum !== 0n) return u.round(f, sum < 0n, sum < 0n ? -sum : sum, exponent);
  const negative = a.negative === b.negative && a.kind === 'zero' && b.kind === 'zero' ? a.negative : u.rounding === DOWN;
  return negative ? f.sign : 0n;
};

const negated = (f: Format, a: Unpacked): Unpacked =>
  a.kind === 'nan' ? a : { ...a, bits: a.bits ^ f.sign, negative: !a.negative };
const subtract: Binary = (u, f, a, b) => add(u, f, a, negated(f, b));

const multiply: Binary = (u, f, a, b) => {
  const nan = u.nanOf(f, a, b);
  if (nan !== undefined) return nan;
  const infinite = a.kind === 'infinite' || b.kind === 'infinite';
  const zero = a.kind === 'zero' || b.kind === 'zero';
  if (infinite && zero) return u.invalid(f);
  u.noteDenormals(a, b);
  const negative = a.negative !== b.negative;
  const sign = negative ? f.sign : 0n;
  if (infinite) return sign | f.infinity;
  if (zero) return sign;
  return u.round(f, negative, a.significand * b.significand, a.exponent + b.exponent);
};

const divide: Binary = (u, f, a, b) => {
  const nan = u.nanOf(f, a, b);
  if (nan !== undefined) return nan;
  if (a.kind === b.kind && a.kind !== 'finite') return u.invalid(f);
  const negative = a.negative !== b.negative;
  const sign = negative ? f.sign : 0n;
  if (a.kind === 'finite' && b.kind === 'zero') {
    u.flags |= ZERO_DIVIDE;
    return sign | f.infinity;
  }
  u.noteDenormals(a, b);
  if (a.kind === 'infinite' || b.kind === 'zero') return sign | f.infinity;
  if (a.kind === 'zero' || b.kind === 'infinite') return sign;
  const shift = Math.max(0, f.fraction + 4 + bitLength(b.significand) - bitLength(a.significand));
  const dividend = a.significand << BigInt(shift);
  const quotient = dividend / b.significand;
  return u.round(f, negative, quotient, a.exponent - b.exponent - shift, quotient * b.significand !== dividend);
};

/** Of the second operand. */
const squareRoot: Binary = (u, f, _, b) => {
  const nan = u.nanOf(f, b, b);
  if (nan !== undefined) return nan;
  if (b.kind === 'zero') return b.bits;
  if (b.negative) return u.invalid(f);
  u.noteDenormals(b, b);
  if (b.kind === 'infinite') return b.bits;
  // Twice as many bits as the root is to have, and an even exponent.
  let shift = Math.max(0, 2 * (f.fraction + 4) - bitLength(b.significand));
  if ((b.exponent - shift) & 1) shift++;
  const radicand = b.significand << BigInt(shift);
  const root = squareRootOf(radicand);
  return u.round(f, false, root, (b.exponent - shift) / 2, root * root !== radicand);
};

const [LESS, EQUAL, GREATER, UNORDERED] = [1, 2, 4, 8];

function relationOf(f: Format, a: Unpacked, b: Unpacked): number {
  if (a.kind === 'nan' || b.kind === 'nan') return UNORDERED;
  const key = ({ bits, negative }: Unpacked): bigint => (negative ? -(bits ^ f.sign) : bits);
  return key(a) < key(b) ? LESS : key(a) > key(b) ? GREATER : EQUAL;
}

/** Notes what comparing raises: an invalid operation for signaling NaNs, or for any. */
function compare(u: SseUnit, f: Format, a: Unpacked, b: Unpacked, quiet: boolean): number {
  const relation = relationOf(f, a, b);
  if (relation !== UNORDERED) u.noteDenormals(a, b);
  else if (!quiet || a.signaling || b.signaling) u.flags |= INVALID;
  return relation;
}

const chooses =
  (wanted: number): Binary =>
  (u, f, a, b) =>
    compare(u, f, a, b, false) === wanted ? a.bits : b.bits;

/** Relations that hold for predicates 0 to 3 (EQ, LT, LE, UNORD); 4 to 7 are their opposites. */
const PREDICATES = [EQUAL, LESS, LESS | EQUAL, UNORDERED];
const compareToMask: Operation = (u, f, lanes, predicate) => {
  const quiet = (predicate & 3) === 0 || (predicate & 3) === 3;
  for (let i = 0; i < lanes; i++) {
    const holds = (compare(u, f, u.operand(f, 0, i), u.operand(f, 1, i), quiet) & PREDICATES[predicate & 3]) !== 0;
    u.put(f.bits, i, holds !== (predicate & 4) > 0 ? -1n : 0n);
  }
};

/** The answer is in the result's low bits: at least, at most. */
const compareToFlags =
  (quiet: boolean): Operation =>
  (u, f) => {
    const relation = compare(u, f, u.operand(f, 0, 0), u.operand(f, 1, 0), quiet);
    u.put(32, 0, BigInt((relation & (EQUAL | GREATER) ? 1 : 0) | (relation & (EQUAL | LESS) ? 2 : 0)));
  };

const addSubtract: Operation = (u, f, lanes) => {
  for (let i = 0; i < lanes; i++) u.put(f.bits, i, (i & 1 ? add : subtract)(u, f, u.operand(f, 0, i), u.operand(f, 1, i)));
};

/** DPPS and DPPD: products of chosen lanes, sums of neighbours, and the sum of those; each step may raise what it finds. */
const dotProduct: Operation = (u, f, lanes, control) => {
  let terms = Array.from({ length: lanes }, (_, i) =>
    control & (16 << i) ? multiply(u, f, u.operand(f, 0, i), u.operand(f, 1, i)) : 0n,
  );
  while (terms.length > 1 && u.settle()) {
    const addends = terms.map((bits) => u.unpack(f, bits));
    terms = addends.filter((_, i) => i % 2 === 0).map((a, i) => add(u, f, a, addends[2 * i + 1]));
  }
  for (let i = 0; i < lanes; i++) u.put(f.bits, i, control & (1 << i) ? terms[0] : 0n);
};

/** ROUNDPS and its kin: bits 0 and 1 of the immediate are the mode, unless bit 2 names MXCSR's; bit 3 keeps precision quiet. */
const roundToIntegral: Operation = (u, f, lanes, control) => {
  const mode = control & 4 ? u.rounding : control & 3;
  for (let i = 0; i < lanes; i++) {
    const b = u.operand(f, 1, i);
    let bits = u.nanOf(f, b, b) ?? b.bits;
    if (b.kind === 'finite') {
      const { value, inexact } = u.roundOff(b.significand, -b.exponent, false, b.negative, mode);
      bits = (b.negative ? f.sign : 0n) | (value === 0n ? 0n : u.round(f, false, value, 0));
      if (inexact && !(control & 8)) u.flags |= PRECISION;
    }
    u.put(f.bits, i, bits);
  }
};

const toFormat =
  (to: Format): Operation =>
  (u, from, lanes) => {
    const shift = BigInt(Math.abs(to.fraction - from.fraction));
    const wider = to.fraction > from.fraction;
    for (let i = 0; i < lanes; i++) {
      const b = u.operand(from, 1, i);
      let bits = b.negative ? to.sign : 0n;
      if (b.kind === 'nan') {
        if (b.signaling) u.flags |= INVALID;
        const fraction = b.bits & (from.quiet * 2n - 1n);
        bits |= to.infinity | to.quiet | (wider ? fraction << shift : fraction >> shift);
      } else if (b.kind === 'infinite') bits |= to.infinity;
      else if (b.kind === 'finite') {
        u.noteDenormals(b, b);
        bits = u.round(to, b.negative, b.significand, b.exponent);
      }
      u.put(to.bits, i, bits);
    }
  };

const toInteger =
  (bits: 32 | 64, truncates: boolean): Operation =>
  (u, f, lanes) => {
    const limit = 1n << BigInt(bits - 1);
    for (let i = 0; i < lanes; i++) {
      const b = u.operand(f, 1, i);
      let result = -limit;
      const mode = truncates ? TOWARDS_ZERO : u.rounding;
      const { value, inexact } = u.roundOff(b.significand, -b.exponent, false, b.negative, mode);
      const signed = b.negative ? -value : value;
      if (b.kind === 'nan' || b.kind === 'infinite' || signed < -limit || signed >= limit) u.flags |= INVALID;
      else {
        if (inexact) u.flags |= PRECISION;
        result = signed;
      }
      u.put(bits, i, result);
    }
  };

const fromInteger =
  (bits: 32 | 64): Operation =>
  (u, f, lanes) => {
    for (let i = 0; i < lanes; i++) {
      const value = BigInt.asIntN(bits, u.get(bits, 1, i));
      u.put(f.bits, i, value === 0n ? 0n : u.round(f, value < 0n, value < 0n ? -value : value, 0));
    }
  };

const TABLE = {
  add: lanewise(add),
  sub: lanewise(subtract),
  mul: lanewise(multiply),
  div: lanewise(divide),
  sqrt: lanewise(squareRoot),
  addSubtract,
  min: lanewise(chooses(LESS)),
  max: lanewise(chooses(GREATER)),
  compare: compareToMask,
  comi: compareToFlags(false),
  ucomi: compareToFlags(true),
  dotProduct,
  round: roundToIntegral,
  toSingle: toFormat(SINGLE),
  toDouble: toFormat(DOUBLE),
  toInteger32: toInteger(32, false),
  toInteger64: toInteger(64, false),
  truncate32: toInteger(32, true),
  truncate64: toInteger(64, true),
  fromInteger32: fromInteger(32),
  fromInteger64: fromInteger(64),
} satisfies Record<string, Operation>;

export type SseOperation = keyof typeof TABLE;
const NAMES = Object.keys(TABLE) as SseOperation[];
const OPERATIONS: Operation[] = Object.values(TABLE);
/** The first ones have a quick way for numbers without peculiarities. */
const QUICK = NAMES.indexOf('sqrt');

const OF_DOUBLES = 1 << 8;
const LANES_SHIFT = 9;

/** The number of an operation on lanes of 32 or 64 bits (of a conversion from integers: the results'), for `SseUnit.execute`. */
export const sseOperation = (name: SseOperation, bits: 32 | 64, lanes: number): number =>
  NAMES.indexOf(name) | (bits === 64 ? OF_DOUBLES : 0) | (lanes << LANES_SHIFT);

const OPERAND_BYTES = 16;

export class SseUnit {
  /** Exceptions found since the last `settle`. */
  flags = 0;
  rounding = NEAREST;
  private readonly memory: DataView;
  private readonly inputs = new DataView(new ArrayBuffer(2 * OPERAND_BYTES));
  private readonly inputBytes = new Uint8Array(this.inputs.buffer);
  private readonly memoryBytes: Uint8Array;
  private results = 0;
  private mxcsr = 0;
  private completes = true;

  constructor(buffer: ArrayBufferLike) {
    this.memory = new DataView(buffer);
    this.memoryBytes = new Uint8Array(buffer);
  }

  /**
   * Performs an operation (`sseOperation`) on the vCPU at `base`: operands in ARGUMENT, 16 bytes each (unary ones take the
   * second), the result in their place. False where an exception is unmasked: MXCSR tells which, there is no result.
   */
  execute(base: number, operation: number, detail: number): boolean {
    const arguments_ = base + state.ARGUMENT;
    this.mxcsr = this.memory.getUint32(base + state.MXCSR, true);
    this.inputBytes.set(this.memoryBytes.subarray(arguments_, arguments_ + 2 * OPERAND_BYTES));
    this.results = arguments_;
    const [index, lanes] = [operation & 0xff, operation >> LANES_SHIFT];
    const f = operation & OF_DOUBLES ? DOUBLE : SINGLE;
    if (index <= QUICK && (this.mxcsr & (MASKS | ROUNDING | PRECISION)) === (MASKS | PRECISION) && this.quick(index, f, lanes))
      return true;
    this.rounding = (this.mxcsr >> ROUNDING_SHIFT) & 3;
    this.flags = 0;
    this.completes = true;
    this.memoryBytes.fill(0, arguments_, arguments_ + OPERAND_BYTES);
    OPERATIONS[index](this, f, lanes, detail);
    this.settle();
    this.memory.setUint32(base + state.MXCSR, this.mxcsr, true);
    return this.completes;
  }

  /**
   * The four operations and the root where all operands and results are normal numbers or plainly zero: with everything masked,
   * rounding to nearest and precision noted before, nothing can come of them but the result. False where that is not so.
   */
  private quick(index: number, f: Format, lanes: number): boolean {
    const { inputs } = this;
    const single = f.bits === 32;
    const [least, most] = single ? [2 ** -126, 2 ** 128 * (1 - 2 ** -24)] : [2 ** -1022, Number.MAX_VALUE];
    const results: number[] = [];
    for (let i = 0; i < lanes; i++) {
      let a = single ? inputs.getFloat32(4 * i, true) : inputs.getFloat64(8 * i, true);
      let b = single ? inputs.getFloat32(OPERAND_BYTES + 4 * i, true) : inputs.getFloat64(OPERAND_BYTES + 8 * i, true);
      if (NAMES[index] === 'sqrt') a = b;
      const [sizeA, sizeB] = [Math.abs(a), Math.abs(b)];
      if (!(sizeA <= most && sizeB <= most)) return false;
      if (sizeA < least && a !== 0) {
        if (!(this.mxcsr & DAZ)) return false;
        a *= 0;
      }
      if (sizeB < least && b !== 0) {
        if (!(this.mxcsr & DAZ)) return false;
        b *= 0;
      }
      let result: number;
      let zero = false;
      switch (NAMES[index]) {
        case 'add':
          result = a + b;
          zero = true;
          break;
        case 'sub':
          result = a - b;
          zero = true;
          break;
        case 'mul':
          result = a * b;
          zero = a === 0 || b === 0;
          break;
        case 'div':
          result = a / b;
          zero = a === 0;
          break;
        case 'sqrt':
          result = Math.sqrt(b);
          zero = true;
          break;
        default:
          return false;
      }
      if (single) result = Math.fround(result);
      const size = Math.abs(result);
      // The least normal number may have been rounded up to, from what counts as tiny.
      if (!(size > least && size <= most) && !(result === 0 && zero)) return false;
      results.push(result);
    }
    this.memoryBytes.fill(0, this.results, this.results + OPERAND_BYTES);
    results.forEach((result, i) => {
      if (single) this.memory.setFloat32(this.results + 4 * i, result, true);
      else this.memory.setFloat64(this.results + 8 * i, result, true);
    });
    return true;
  }

  /** Takes what was found into MXCSR; false where something of it is unmasked. */
  settle(): boolean {
    if (!this.completes) return false;
    const unmasked = this.flags & ~(this.mxcsr >> MASK_SHIFT) & ALL_EXCEPTIONS;
    this.mxcsr |= unmasked & BEFORE ? this.flags & BEFORE : this.flags;
    this.flags = 0;
    this.completes = unmasked === 0;
    return this.completes;
  }

  get(bits: 32 | 64, operand: 0 | 1, lane: number): bigint {
    const at = operand * OPERAND_BYTES + (lane * bits) / 8;
    return bits === 32 ? BigInt(this.inputs.getUint32(at, true)) : this.inputs.getBigUint64(at, true);
  }

  put(bits: 32 | 64, lane: number, value: bigint): void {
    const at = this.results + (lane * bits) / 8;
    if (bits === 32) this.memory.setUint32(at, Number(BigInt.asUintN(32, value)), true);
    else this.memory.setBigUint64(at, BigInt.asUintN(64, value), true);
  }

  operand(f: Format, operand: 0 | 1, lane: number): Unpacked {
    return this.unpack(f, this.get(f.bits, operand, lane));
  }

  unpack(f: Format, bits: bigint): Unpacked {
    const negative = (bits & f.sign) !== 0n;
    const fraction = bits & (f.quiet * 2n - 1n);
    const biased = Number((bits & f.infinity) >> BigInt(f.fraction));
    const common = { bits, negative, signaling: false, denormal: false, significand: 0n, exponent: 1 - f.bias - f.fraction };
    if ((bits & f.infinity) === f.infinity) {
      return fraction === 0n
        ? { ...common, kind: 'infinite' }
        : { ...common, kind: 'nan', signaling: (fraction & f.quiet) === 0n };
    }
    if (biased > 0)
      return { ...common, kind: 'finite', significand: fraction | (f.quiet * 2n), exponent: biased - f.bias - f.fraction };
    if (fraction === 0n || this.mxcsr & DAZ) return { ...common, kind: 'zero', bits: bits & f.sign };
    return { ...common, kind: 'finite', denormal: true, significand: fraction };
  }

  /** The NaN that comes of operands of which one is a NaN: the first of them, quiet. */
  nanOf(f: Format, a: Unpacked, b: Unpacked): bigint | undefined {
    if (a.kind !== 'nan' && b.kind !== 'nan') return undefined;
    if (a.signaling || b.signaling) this.flags |= INVALID;
    return (a.kind === 'nan' ? a.bits : b.bits) | f.quiet;
  }

  invalid(f: Format): bigint {
    this.flags |= INVALID;
    return f.indefinite;
  }

  noteDenormals(a: Unpacked, b: Unpacked): void {
    if (a.denormal || b.denormal) this.flags |= DENORMAL;
  }

  /** Drops the low `drop` bits of a magnitude (adds that many zeros if negative); `sticky`: there is more below them. */
  roundOff(
    significand: bigint,
    drop: number,
    sticky: boolean,
    negative: boolean,
    mode: number,
  ): { value: bigint; inexact: boolean } {
    if (drop <= 0) return { value: significand << BigInt(-drop), inexact: sticky };
    const kept = significand >> BigInt(drop);
    const rest = significand - (kept << BigInt(drop));
    const inexact = rest !== 0n || sticky;
    const half = 1n << BigInt(drop - 1);
    const up =
      mode === NEAREST
        ? rest > half || (rest === half && (sticky || (kept & 1n) === 1n))
        : inexact && mode === (negative ? DOWN : UP);
    return { value: up ? kept + 1n : kept, inexact };
  }

  /** significand × 2^exponent (and something below its last bit, if `sticky`) as a number of the format, rounded. */
  round(f: Format, negative: boolean, significand: bigint, exponent: number, sticky = false): bigint {
    const sign = negative ? f.sign : 0n;
    const drop = bitLength(significand) - 1 - f.fraction;
    let { value, inexact } = this.roundOff(significand, drop, sticky, negative, this.rounding);
    let leading = exponent + drop + f.fraction;
    if (value >> BigInt(f.fraction + 1)) {
      value >>= 1n;
      leading++;
    }
    if (leading > f.bias) {
      this.flags |= OVERFLOW | PRECISION;
      const toInfinity = this.rounding === NEAREST || this.rounding === (negative ? DOWN : UP);
      return sign | (toInfinity ? f.infinity : f.infinity - 1n);
    }
    // Tiny is what would be below the least normal number if exponents had no end.
    if (leading < 1 - f.bias) {
      const masked = (this.mxcsr & (UNDERFLOW << MASK_SHIFT)) !== 0;
      if (masked && this.mxcsr & FTZ) {
        this.flags |= UNDERFLOW | PRECISION;
        return sign;
      }
      ({ value, inexact } = this.roundOff(significand, 1 - f.bias - f.fraction - exponent, sticky, negative, this.rounding));
      this.flags |= (inexact ? PRECISION : 0) | (inexact || !masked ? UNDERFLOW : 0);
      return sign | value;
    }
    if (inexact) this.flags |= PRECISION;
    return sign | (BigInt(leading + f.bias) << BigInt(f.fraction)) | (value & (f.quiet * 2n - 1n));
  }
}
