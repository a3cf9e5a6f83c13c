/**
 * Every x87 instruction on a vCPU's state: what it does to the register stack, status and memory operand.
 * Source: SDM 1 chapter 8 and the instructions' pages in SDM 2; the rest as current AMD processors do.
 * Decoding, access to guest memory, #NM, and FIP, FDP and FOP are the caller's.
 */

import { FLAG_CARRY, FLAG_OVERFLOW, FLAG_SIGN, FLAG_ZERO } from '../state.ts';
import {
  ENVIRONMENT_BYTES,
  type EnvironmentFormat,
  loadEnvironment,
  loadState,
  STATE_BYTES,
  storeEnvironment,
  storeState,
} from './environment.ts';
import {
  ALL_EXCEPTIONS,
  BIAS,
  DENORMAL,
  DENORMALIZED,
  EQUAL,
  type Float80,
  INCOMPLETE,
  INFINITE,
  INTEGER_BIT,
  INVALID,
  LESS,
  NO_QUOTIENT,
  NORMAL,
  OVERFLOW,
  QUIET_NAN,
  SIGN,
  SIGNALING_NAN,
  TOWARDS_ZERO,
  UNDERFLOW,
  UNORDERED,
  UNSUPPORTED,
  ZERO,
  ZERO_DIVIDE,
} from './float80.ts';
import { BUSY, C0, C1, C2, C3, ERROR_SUMMARY, RegisterStack, STACK_FAULT } from './register-stack.ts';
import { arctangentOf, circular, exponential, isReducible, timesLogarithm, timesLogarithmPlusOne } from './transcendental.ts';

/** An operation: on the stack `s`, register ST(i) and the memory operand at linear address `m`, as far as it has them. */
type Operation = (s: RegisterStack, i: number, m: number) => void;

/** What has register, memory and popping forms. `Reverse`: the destination is subtracted from the source, or divides it. */
type Arithmetic = 'add' | 'multiply' | 'subtract' | 'subtractReverse' | 'divide' | 'divideReverse';

function compute(
  f: Float80,
  operation: Arithmetic,
  aLow: number,
  aHigh: number,
  aSe: number,
  bLow: number,
  bHigh: number,
  bSe: number,
): void {
  switch (operation) {
    case 'add':
      return f.add(aLow, aHigh, aSe, bLow, bHigh, bSe);
    case 'multiply':
      return f.multiply(aLow, aHigh, aSe, bLow, bHigh, bSe);
    case 'subtract':
      return f.add(aLow, aHigh, aSe, bLow, bHigh, bSe, SIGN);
    case 'subtractReverse':
      return f.add(bLow, bHigh, bSe, aLow, aHigh, aSe, SIGN);
    case 'divide':
      return f.divide(aLow, aHigh, aSe, bLow, bHigh, bSe);
    case 'divideReverse':
      return f.divide(bLow, bHigh, bSe, aLow, aHigh, aSe);
  }
}

/** ST(destination) becomes ST(destination) op ST(source). */
function registers(s: RegisterStack, operation: Arithmetic, destination: number, source: number, pops = false): void {
  if (s.isEmpty(destination) || s.isEmpty(source)) {
    if (!s.underflow()) return;
    s.writeIndefinite(destination);
  } else {
    const w = s.words;
    const a = s.st(destination);
    const b = s.st(source);
    compute(s.float, operation, w[a], w[a + 1], w[a + 2] & 0xffff, w[b], w[b + 1], w[b + 2] & 0xffff);
    if (!s.settle(s.float.flags)) return;
    s.writeResult(destination);
  }
  if (pops) s.pop();
}

/** Reads a memory operand into the arithmetic unit. */
type Load = (s: RegisterStack, m: number) => void;

const float32: Load = (s, m) => s.float.fromFloat32(s.view.getInt32(m, true));
const float64: Load = (s, m) => s.float.fromFloat64(s.view.getInt32(m, true), s.view.getInt32(m + 4, true));
const float80: Load = (s, m) =>
  s.float.set(s.view.getInt32(m, true), s.view.getInt32(m + 4, true), s.view.getUint16(m + 8, true));
const integer16: Load = (s, m) => s.float.fromInteger32(s.view.getInt16(m, true));
const integer32: Load = (s, m) => s.float.fromInteger32(s.view.getInt32(m, true));
const integer64: Load = (s, m) => s.float.fromInteger64(s.view.getInt32(m, true), s.view.getInt32(m + 4, true));

/** ST(0) becomes ST(0) op memory. */
function memory(operation: Arithmetic, load: Load): Operation {
  return (s, _, m) => {
    if (s.isEmpty(0)) {
      if (s.underflow()) s.writeIndefinite(0);
      return;
    }
    load(s, m);
    const f = s.float;
    const a = s.st(0);
    compute(f, operation, s.words[a], s.words[a + 1], s.words[a + 2] & 0xffff, f.low, f.high, f.signExponent);
    if (s.settle(f.flags)) s.writeResult(0);
  };
}

const toTop =
  (operation: Arithmetic): Operation =>
  (s, i) =>
    registers(s, operation, 0, i);
const fromTop =
  (operation: Arithmetic, pops = false): Operation =>
  (s, i) =>
    registers(s, operation, i, 0, pops);

/** C3, C2 and C0 by result of a comparison. */
const CONDITIONS = [C0, C3, 0, C3 | C2 | C0];

function setConditions(s: RegisterStack, conditions: number): void {
  s.status = (s.status & ~(C3 | C2 | C0)) | conditions;
}

/**
 * Compares ST(0) with the unit's operand, or an empty register. The relation is reported even where an unmasked
 * exception keeps the operands from being popped.
 */
function compareLoaded(s: RegisterStack, empty: boolean, quiet: boolean, pops: number, report: Report): void {
  const f = s.float;
  let relation = UNORDERED;
  let flags = INVALID | STACK_FAULT;
  if (!empty) {
    const a = s.st(0);
    relation = f.compare(s.words[a], s.words[a + 1], s.words[a + 2] & 0xffff, f.low, f.high, f.signExponent, quiet);
    flags = f.flags;
  }
  const completes = s.settle(flags);
  report(s, relation);
  if (completes) for (let n = 0; n < pops; n++) s.pop();
}

type Report = (s: RegisterStack, relation: number) => void;

const toConditions: Report = (s, relation) => setConditions(s, CONDITIONS[relation]);

const compareMemory =
  (load: Load, pops: 0 | 1): Operation =>
  (s, _, m) => {
    load(s, m);
    compareLoaded(s, s.isEmpty(0), false, pops, toConditions);
  };

function compareRegister(s: RegisterStack, i: number, quiet: boolean, pops: number, report: Report): void {
  const b = s.st(i);
  s.float.set(s.words[b], s.words[b + 1], s.words[b + 2] & 0xffff);
  compareLoaded(s, s.isEmpty(0) || s.isEmpty(i), quiet, pops, report);
}

const compare =
  (quiet: boolean, pops: 0 | 1): Operation =>
  (s, i) =>
    compareRegister(s, i, quiet, pops, toConditions);

const compareAndPopBoth =
  (quiet: boolean): Operation =>
  (s) =>
    compareRegister(s, 1, quiet, 2, toConditions);

/** FCOMI and its relatives: to ZF, PF and CF, in the lazy form the state has them in. OF, SF and AF become 0. */
const toFlags: Report = (s, relation) => {
  const w = s.words;
  const unordered = relation === UNORDERED;
  w[s.base + (FLAG_ZERO >> 2)] = relation === EQUAL || unordered ? 0 : 1;
  w[s.base + (FLAG_ZERO >> 2) + 1] = 0;
  w[s.base + (FLAG_SIGN >> 2)] = unordered ? 0 : 1;
  w[s.base + (FLAG_SIGN >> 2) + 1] = 0;
  w[s.base + (FLAG_CARRY >> 2)] = 0;
  w[s.base + (FLAG_CARRY >> 2) + 1] = relation === LESS || unordered ? INTEGER_BIT : 0;
  w[s.base + (FLAG_OVERFLOW >> 2)] = 0;
  w[s.base + (FLAG_OVERFLOW >> 2) + 1] = 0;
};

const compareToFlags =
  (quiet: boolean, pops: 0 | 1): Operation =>
  (s, i) => {
    // Unlike the other comparisons, these keep C1 unless a register is empty.
    const kept = s.isEmpty(0) || s.isEmpty(i) ? 0 : s.status & C1;
    compareRegister(s, i, quiet, pops, toFlags);
    s.status |= kept;
  };

function isCarry(s: RegisterStack): boolean {
  return s.words[s.base + (FLAG_CARRY >> 2) + 1] < 0;
}

function isZero(s: RegisterStack): boolean {
  return (s.words[s.base + (FLAG_ZERO >> 2)] | s.words[s.base + (FLAG_ZERO >> 2) + 1]) === 0;
}

function isParityEven(s: RegisterStack): boolean {
  const low = s.words[s.base + (FLAG_SIGN >> 2)];
  const folded = low ^ (low >> 4);
  return ((0x6996 >> (folded & 0xf)) & 1) === 0;
}

const moveIf =
  (condition: (s: RegisterStack) => boolean, expected: boolean): Operation =>
  (s, i) => {
    if (s.isEmpty(0) || s.isEmpty(i)) {
      if (s.underflow()) s.writeIndefinite(0);
      return;
    }
    if (condition(s) !== expected) return;
    const b = s.st(i);
    s.write(0, s.words[b], s.words[b + 1], s.words[b + 2] & 0xffff);
  };

const push =
  (load: Load): Operation =>
  (s, _, m) => {
    load(s, m);
    s.pushResult();
  };

const pushFloat =
  (load: Load): Operation =>
  (s, _, m) => {
    load(s, m);
    s.float.quietLoaded();
    s.pushResult(DENORMAL);
  };

/** What can be loaded: sign and exponent, the significand's high and low half, and the 32 bits behind. */
export const X87_CONSTANTS = {
  fld1: [BIAS, 0x8000_0000, 0, 0],
  fldl2t: [BIAS + 1, 0xd49a_784b, 0xcd1b_8afe, 0x492b_f6ff],
  fldl2e: [BIAS, 0xb8aa_3b29, 0x5c17_f0bb, 0xbe87_fed0],
  fldpi: [BIAS + 1, 0xc90f_daa2, 0x2168_c234, 0xc4c6_628b],
  fldlg2: [BIAS - 2, 0x9a20_9a84, 0xfbcf_f798, 0x8f89_59ac],
  fldln2: [BIAS - 1, 0xb172_17f7, 0xd1cf_79ab, 0xc9e3_b398],
} as const;

/** A constant by its value truncated to 64 bits and the 32 bits after them; its rounding is not reported. */
const constant =
  (signExponent: number, high: number, low: number, extra: number): Operation =>
  (s) => {
    s.float.finish(0, signExponent, high | 0, low | 0, extra | 0, 64);
    s.float.flags = 0;
    s.pushResult();
  };

const store =
  (pops: boolean): Operation =>
  (s, i) => {
    if (s.isEmpty(0)) {
      if (!s.underflow()) return;
      s.writeIndefinite(i);
    } else {
      s.settle(0);
      const a = s.st(0);
      s.write(i, s.words[a], s.words[a + 1], s.words[a + 2] & 0xffff);
    }
    if (pops) s.pop();
  };

/** A conversion in the unit to what is to be stored, and the store. */
interface Format {
  convert(f: Float80, low: number, high: number, signExponent: number): void;
  write(s: RegisterStack, m: number): void;
  writeIndefinite(s: RegisterStack, m: number): void;
}

const toFloat32: Format = {
  convert(f, low, high, signExponent) {
    f.low = f.toFloat32(low, high, signExponent);
  },
  write: (s, m) => s.view.setInt32(m, s.float.low, true),
  writeIndefinite: (s, m) => s.view.setInt32(m, 0xffc0_0000 | 0, true),
};

function write64(s: RegisterStack, m: number, low: number, high: number): void {
  s.view.setInt32(m, low, true);
  s.view.setInt32(m + 4, high, true);
}

const toFloat64: Format = {
  convert: (f, low, high, signExponent) => f.toFloat64(low, high, signExponent),
  write: (s, m) => write64(s, m, s.float.low, s.float.high),
  writeIndefinite: (s, m) => write64(s, m, 0, 0xfff8_0000 | 0),
};

const toInteger = (bits: 16 | 32 | 64, truncates: boolean): Format => ({
  convert(f, low, high, signExponent) {
    if (truncates) f.rounding = TOWARDS_ZERO;
    f.toInteger(low, high, signExponent, bits);
  },
  write(s, m) {
    if (bits === 16) s.view.setInt16(m, s.float.low, true);
    else if (bits === 32) s.view.setInt32(m, s.float.low, true);
    else write64(s, m, s.float.low, s.float.high);
  },
  writeIndefinite(s, m) {
    if (bits === 16) s.view.setInt16(m, -0x8000, true);
    else if (bits === 32) s.view.setInt32(m, INTEGER_BIT, true);
    else write64(s, m, 0, INTEGER_BIT);
  },
});

function storeTo(s: RegisterStack, format: Format, m: number, pops: boolean): void {
  s.stored = false;
  if (s.isEmpty(0)) {
    if (!s.underflow()) return;
    format.writeIndefinite(s, m);
  } else {
    const a = s.st(0);
    format.convert(s.float, s.words[a], s.words[a + 1], s.words[a + 2] & 0xffff);
    const { flags } = s.float;
    // With the destination in memory, unmasked overflow and underflow keep it from being written too.
    const unmasked = flags & ~s.control & (OVERFLOW | UNDERFLOW);
    if (!s.settle(unmasked !== 0 ? unmasked : flags) || unmasked !== 0) return;
    format.write(s, m);
  }
  s.stored = true;
  if (pops) s.pop();
}

const storeMemory =
  (format: Format, pops: boolean): Operation =>
  (s, _, m) =>
    storeTo(s, format, m, pops);

function storeFloat80(s: RegisterStack, m: number): void {
  const a = s.st(0);
  const empty = s.isEmpty(0);
  s.stored = empty ? s.underflow() : s.settle(0);
  if (!s.stored) return;
  write64(s, m, empty ? 0 : s.words[a], empty ? INTEGER_BIT | (INTEGER_BIT >>> 1) : s.words[a + 1]);
  s.view.setUint16(m + 8, empty ? 0xffff : s.words[a + 2], true);
  s.pop();
}

/** Packed BCD: 18 digits, two to a byte from the lowest, and the sign in bit 7 of the tenth byte. */
const BCD_BYTES = 9;

const packedDecimal: Load = (s, m) => {
  let value = 0n;
  for (let n = BCD_BYTES - 1; n >= 0; n--) {
    const byte = s.view.getUint8(m + n);
    value = value * 100n + BigInt((byte >> 4) * 10 + (byte & 0xf));
  }
  s.float.fromInteger64(Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n)));
  s.float.signExponent |= (s.view.getUint8(m + BCD_BYTES) << 8) & SIGN;
};

const toPackedDecimal: Format = {
  convert(f, low, high, signExponent) {
    f.toDecimal(low, high, signExponent);
    f.signExponent = signExponent;
  },
  write(s, m) {
    if ((s.float.flags & INVALID) !== 0) return toPackedDecimal.writeIndefinite(s, m);
    let value = (BigInt(s.float.high >>> 0) << 32n) | BigInt(s.float.low >>> 0);
    for (let n = 0; n < BCD_BYTES; n++) {
      const pair = Number(value % 100n);
      value /= 100n;
      s.view.setUint8(m + n, (Math.floor(pair / 10) << 4) | (pair % 10));
    }
    s.view.setUint8(m + BCD_BYTES, (s.float.signExponent & SIGN) >> 8);
  },
  writeIndefinite(s, m) {
    write64(s, m, 0, 0xc000_0000 | 0);
    s.view.setUint16(m + 8, 0xffff, true);
  },
};

function exchange(s: RegisterStack, i: number): void {
  if (s.isEmpty(0) || s.isEmpty(i)) {
    if (!s.underflow()) return;
    if (s.isEmpty(0)) s.writeIndefinite(0);
    if (s.isEmpty(i)) s.writeIndefinite(i);
  } else s.settle(0);
  const w = s.words;
  const a = s.st(0);
  const b = s.st(i);
  const low = w[a];
  const high = w[a + 1];
  const signExponent = w[a + 2];
  s.write(0, w[b], w[b + 1], w[b + 2]);
  s.write(i, low, high, signExponent);
}

/** Changes the sign of ST(0), whatever it holds. */
const signed =
  (change: (signExponent: number) => number): Operation =>
  (s) => {
    if (s.isEmpty(0)) {
      if (s.underflow()) s.writeIndefinite(0);
      return;
    }
    s.settle(0);
    const a = s.st(0);
    s.words[a + 2] = change(s.words[a + 2] & 0xffff);
  };

/** An operation of the unit on ST(0) alone. */
const unary =
  (operation: (f: Float80, low: number, high: number, signExponent: number) => void): Operation =>
  (s) => {
    if (s.isEmpty(0)) {
      if (s.underflow()) s.writeIndefinite(0);
      return;
    }
    const a = s.st(0);
    operation(s.float, s.words[a], s.words[a + 1], s.words[a + 2] & 0xffff);
    if (s.settle(s.float.flags)) s.writeResult(0);
  };

type Binary = (f: Float80, aLow: number, aHigh: number, aSe: number, bLow: number, bHigh: number, bSe: number) => void;

/** An operation of the unit on ST(0) and ST(1), to ST(0), or to ST(1) with a pop. */
const binary =
  (operation: Binary, pops: boolean): Operation =>
  (s) => {
    const destination = pops ? 1 : 0;
    if (s.isEmpty(0) || s.isEmpty(1)) {
      if (!s.underflow()) return;
      s.writeIndefinite(destination);
    } else {
      const w = s.words;
      const a = s.st(0);
      const b = s.st(1);
      operation(s.float, w[a], w[a + 1], w[a + 2] & 0xffff, w[b], w[b + 1], w[b + 2] & 0xffff);
      if (!s.settle(s.float.flags)) return;
      s.writeResult(destination);
    }
    if (pops) s.pop();
  };

const partialRemainder =
  (nearest: boolean): Operation =>
  (s) => {
    const w = s.words;
    const f = s.float;
    s.status &= ~C2;
    if (s.isEmpty(0) || s.isEmpty(1)) {
      if (s.underflow()) s.writeIndefinite(0);
      return;
    }
    const a = s.st(0);
    const b = s.st(1);
    f.remainder(w[a], w[a + 1], w[a + 2] & 0xffff, w[b], w[b + 1], w[b + 2] & 0xffff, nearest);
    if (!s.settle(f.flags)) return;
    s.writeResult(0);
    const q = f.quotient;
    if (q === NO_QUOTIENT) return;
    setConditions(s, q === INCOMPLETE ? C2 : ((q & 4) !== 0 ? C0 : 0) | ((q & 2) !== 0 ? C3 : 0));
    if (q > 0 && (q & 1) !== 0) s.status |= C1;
  };

/** Can an instruction that replaces ST(0) and pushes a second result do so? If not, indefinites take both places. */
function hasRoomForTwo(s: RegisterStack): boolean {
  const empty = s.isEmpty(0);
  if (!empty && s.isEmpty(-1)) return true;
  if (s.settle(INVALID | STACK_FAULT | (empty ? 0 : C1))) {
    s.writeIndefinite(0);
    s.top--;
    s.writeIndefinite(0);
  }
  return false;
}

/** FXTRACT: ST(0) becomes the exponent, and the significand is pushed. */
function extract(s: RegisterStack): void {
  if (!hasRoomForTwo(s)) return;
  const f = s.float;
  const a = s.st(0);
  const low = s.words[a];
  const high = s.words[a + 1];
  const signExponent = s.words[a + 2] & 0xffff;
  const kind = s.classify(0);
  if (kind >= QUIET_NAN) f.propagate(low, high, signExponent);
  else if (kind === ZERO) {
    f.flags |= ZERO_DIVIDE;
    f.setInfinity(SIGN);
  } else if (kind === INFINITE) f.setInfinity(0);
  else {
    if (kind === DENORMALIZED) f.flags |= DENORMAL;
    f.exponentOf(low, high, signExponent);
  }
  if (!s.settle(f.flags)) return;
  s.writeResult(0);
  if (kind === NORMAL || kind === DENORMALIZED) f.significandOf(low, high, signExponent);
  else if (kind === ZERO || kind === INFINITE) f.set(low, high, signExponent);
  s.top--;
  s.writeResult(0);
}

function test(s: RegisterStack): void {
  s.float.setZero(0);
  compareLoaded(s, s.isEmpty(0), false, 0, toConditions);
}

/** FXAM's codes in C3, C2 and C0 by kind of operand. */
const EXAMINED: number[] = [];
EXAMINED[ZERO] = C3;
EXAMINED[DENORMALIZED] = C3 | C2;
EXAMINED[NORMAL] = C2;
EXAMINED[INFINITE] = C2 | C0;
EXAMINED[QUIET_NAN] = C0;
EXAMINED[SIGNALING_NAN] = C0;
EXAMINED[UNSUPPORTED] = 0;

function examine(s: RegisterStack): void {
  setConditions(s, s.isEmpty(0) ? C3 | C0 : EXAMINED[s.classify(0)]);
  const negative = (s.words[s.st(0) + 2] & SIGN) !== 0;
  s.status = (s.status & ~C1) | (negative ? C1 : 0);
}

const trigonometric =
  (which: 'sine' | 'cosine'): Operation =>
  (s) => {
    s.status &= ~C2;
    if (s.isEmpty(0)) {
      if (s.underflow()) s.writeIndefinite(0);
      return;
    }
    const f = s.float;
    const a = s.st(0);
    const signExponent = s.words[a + 2] & 0xffff;
    if (s.classify(0) === NORMAL && !isReducible(signExponent)) {
      s.settle(0);
      s.status |= C2;
      return;
    }
    circular(f, which, s.words[a], s.words[a + 1], signExponent);
    if (s.settle(f.flags)) s.writeResult(0);
  };

/** FSINCOS and FPTAN: ST(0) becomes one function of it, and another (the cosine, or for the tangent 1) is pushed. */
const trigonometricPair =
  (first: 'sine' | 'tangent'): Operation =>
  (s) => {
    s.status &= ~C2;
    if (!hasRoomForTwo(s)) return;
    const f = s.float;
    const a = s.st(0);
    const low = s.words[a];
    const high = s.words[a + 1];
    const signExponent = s.words[a + 2] & 0xffff;
    const kind = s.classify(0);
    if (kind === NORMAL && !isReducible(signExponent)) {
      s.settle(0);
      s.status |= C2;
      return;
    }
    circular(f, first, low, high, signExponent);
    if (!s.settle(f.flags)) return;
    s.writeResult(0);
    if (kind < INFINITE) {
      if (first === 'tangent') f.set(0, INTEGER_BIT, BIAS);
      else circular(f, 'cosine', low, high, signExponent);
    }
    s.top--;
    s.writeResult(0);
  };

const environment = (format: EnvironmentFormat) => ({
  load: ((s, _, m) => loadEnvironment(s, m, format)) satisfies Operation,
  store: ((s, _, m) => {
    storeEnvironment(s, m, format);
    s.setControl(s.control | ALL_EXCEPTIONS);
  }) satisfies Operation,
  restore: ((s, _, m) => loadState(s, m, format)) satisfies Operation,
  save: ((s, _, m) => {
    storeState(s, m, format);
    s.initialize();
  }) satisfies Operation,
});

const protected32 = environment('protected32');
const protected16 = environment('protected16');
const real32 = environment('real32');
const real16 = environment('real16');

/**
 * Every operation by its mnemonic and operands: m32 and m64 are floats or, with FI-, integers of so many bits;
 * for those with `sti`, ST(i) is named by the caller. Environments come in the four formats of SDM 1 8.1.10.
 * Aliases: DC D0 is fcom_sti, DC D8 and DE D0 fcomp_sti, DD C8 and DF C8 fxch_sti, DF D0 and DF D8 fstp_sti,
 * D9 D8 fstpnce_sti, DF C0 ffreep_sti; DB E0, E1 and E4 fneni.
 */
const OPERATIONS = {
  fadd_m32: memory('add', float32),
  fadd_m64: memory('add', float64),
  fiadd_m16: memory('add', integer16),
  fiadd_m32: memory('add', integer32),
  fadd_st0_sti: toTop('add'),
  fadd_sti_st0: fromTop('add'),
  faddp_sti_st0: fromTop('add', true),
  fmul_m32: memory('multiply', float32),
  fmul_m64: memory('multiply', float64),
  fimul_m16: memory('multiply', integer16),
  fimul_m32: memory('multiply', integer32),
  fmul_st0_sti: toTop('multiply'),
  fmul_sti_st0: fromTop('multiply'),
  fmulp_sti_st0: fromTop('multiply', true),
  fsub_m32: memory('subtract', float32),
  fsub_m64: memory('subtract', float64),
  fisub_m16: memory('subtract', integer16),
  fisub_m32: memory('subtract', integer32),
  fsub_st0_sti: toTop('subtract'),
  fsub_sti_st0: fromTop('subtract'),
  fsubp_sti_st0: fromTop('subtract', true),
  fsubr_m32: memory('subtractReverse', float32),
  fsubr_m64: memory('subtractReverse', float64),
  fisubr_m16: memory('subtractReverse', integer16),
  fisubr_m32: memory('subtractReverse', integer32),
  fsubr_st0_sti: toTop('subtractReverse'),
  fsubr_sti_st0: fromTop('subtractReverse'),
  fsubrp_sti_st0: fromTop('subtractReverse', true),
  fdiv_m32: memory('divide', float32),
  fdiv_m64: memory('divide', float64),
  fidiv_m16: memory('divide', integer16),
  fidiv_m32: memory('divide', integer32),
  fdiv_st0_sti: toTop('divide'),
  fdiv_sti_st0: fromTop('divide'),
  fdivp_sti_st0: fromTop('divide', true),
  fdivr_m32: memory('divideReverse', float32),
  fdivr_m64: memory('divideReverse', float64),
  fidivr_m16: memory('divideReverse', integer16),
  fidivr_m32: memory('divideReverse', integer32),
  fdivr_st0_sti: toTop('divideReverse'),
  fdivr_sti_st0: fromTop('divideReverse'),
  fdivrp_sti_st0: fromTop('divideReverse', true),

  fcom_m32: compareMemory(float32, 0),
  fcom_m64: compareMemory(float64, 0),
  ficom_m16: compareMemory(integer16, 0),
  ficom_m32: compareMemory(integer32, 0),
  fcom_sti: compare(false, 0),
  fcomp_m32: compareMemory(float32, 1),
  fcomp_m64: compareMemory(float64, 1),
  ficomp_m16: compareMemory(integer16, 1),
  ficomp_m32: compareMemory(integer32, 1),
  fcomp_sti: compare(false, 1),
  fcompp: compareAndPopBoth(false),
  fucom_sti: compare(true, 0),
  fucomp_sti: compare(true, 1),
  fucompp: compareAndPopBoth(true),
  fcomi_sti: compareToFlags(false, 0),
  fcomip_sti: compareToFlags(false, 1),
  fucomi_sti: compareToFlags(true, 0),
  fucomip_sti: compareToFlags(true, 1),
  ftst: test,
  fxam: examine,

  fld_m32: pushFloat(float32),
  fld_m64: pushFloat(float64),
  fld_m80: push(float80),
  fild_m16: push(integer16),
  fild_m32: push(integer32),
  fild_m64: push(integer64),
  fbld_m80: push(packedDecimal),
  fld_sti(s, i) {
    if (s.isEmpty(i)) {
      if (!s.underflow()) return;
      s.top--;
      return s.writeIndefinite(0);
    }
    const a = s.st(i);
    s.float.set(s.words[a], s.words[a + 1], s.words[a + 2] & 0xffff);
    s.pushResult();
  },
  fld1: constant(...X87_CONSTANTS.fld1),
  fldl2t: constant(...X87_CONSTANTS.fldl2t),
  fldl2e: constant(...X87_CONSTANTS.fldl2e),
  fldpi: constant(...X87_CONSTANTS.fldpi),
  fldlg2: constant(...X87_CONSTANTS.fldlg2),
  fldln2: constant(...X87_CONSTANTS.fldln2),
  fldz(s) {
    s.float.setZero(0);
    s.pushResult();
  },

  fst_m32: storeMemory(toFloat32, false),
  fst_m64: storeMemory(toFloat64, false),
  fst_sti: store(false),
  fstp_m32: storeMemory(toFloat32, true),
  fstp_m64: storeMemory(toFloat64, true),
  fstp_m80: (s, _, m) => storeFloat80(s, m),
  fstp_sti: store(true),
  fist_m16: storeMemory(toInteger(16, false), false),
  fist_m32: storeMemory(toInteger(32, false), false),
  /** D9 D8+i, an FSTP to which an empty register is none to store, and no fault. */
  fstpnce_sti(s, i) {
    s.settle(0);
    if (s.isEmpty(0)) return s.pop();
    const a = s.st(0);
    s.write(i, s.words[a], s.words[a + 1], s.words[a + 2]);
    s.pop();
  },
  fistp_m16: storeMemory(toInteger(16, false), true),
  fistp_m32: storeMemory(toInteger(32, false), true),
  fistp_m64: storeMemory(toInteger(64, false), true),
  fisttp_m16: storeMemory(toInteger(16, true), true),
  fisttp_m32: storeMemory(toInteger(32, true), true),
  fisttp_m64: storeMemory(toInteger(64, true), true),
  fbstp_m80: storeMemory(toPackedDecimal, true),

  fxch_sti: exchange,
  fcmovb_sti: moveIf(isCarry, true),
  fcmove_sti: moveIf(isZero, true),
  fcmovbe_sti: moveIf((s) => isCarry(s) || isZero(s), true),
  fcmovu_sti: moveIf(isParityEven, true),
  fcmovnb_sti: moveIf(isCarry, false),
  fcmovne_sti: moveIf(isZero, false),
  fcmovnbe_sti: moveIf((s) => isCarry(s) || isZero(s), false),
  fcmovnu_sti: moveIf(isParityEven, false),

  fchs: signed((signExponent) => signExponent ^ SIGN),
  fabs: signed((signExponent) => signExponent & ~SIGN),
  fsqrt: unary((f, low, high, signExponent) => f.squareRoot(low, high, signExponent)),
  frndint: unary((f, low, high, signExponent) => f.roundToInteger(low, high, signExponent)),
  fscale: binary((f, aLow, aHigh, aSe, bLow, bHigh, bSe) => f.scale(aLow, aHigh, aSe, bLow, bHigh, bSe), false),
  fxtract: extract,
  fprem: partialRemainder(false),
  fprem1: partialRemainder(true),

  f2xm1: unary(exponential),
  fyl2x: binary(timesLogarithm, true),
  fyl2xp1: binary(timesLogarithmPlusOne, true),
  fpatan: binary(arctangentOf, true),
  fsin: trigonometric('sine'),
  fcos: trigonometric('cosine'),
  fsincos: trigonometricPair('sine'),
  fptan: trigonometricPair('tangent'),

  fincstp(s) {
    s.settle(0);
    s.top++;
  },
  fdecstp(s) {
    s.settle(0);
    s.top--;
  },
  ffree_sti(s, i) {
    s.settle(0);
    s.free(i);
  },
  ffreep_sti(s, i) {
    s.settle(0);
    s.free(i);
    s.pop();
  },
  fnop() {},
  /** What is left of FNENI, FNDISI and FNSETPM. */
  fneni() {},
  fwait() {},
  emms(s) {
    s.top = 0;
    s.tags = 0;
  },

  fldcw: (s, _, m) => s.setControl(s.view.getUint16(m, true)),
  fnstcw: (s, _, m) => s.view.setUint16(m, s.control, true),
  /** FNSTSW; the caller takes the word from the operand for AX. */
  fnstsw: (s, _, m) => s.view.setUint16(m, s.status, true),
  fnclex(s) {
    s.status &= ~(ALL_EXCEPTIONS | STACK_FAULT | ERROR_SUMMARY | BUSY);
  },
  fninit: (s) => s.initialize(),
  fldenv_protected32: protected32.load,
  fldenv_protected16: protected16.load,
  fldenv_real32: real32.load,
  fldenv_real16: real16.load,
  fnstenv_protected32: protected32.store,
  fnstenv_protected16: protected16.store,
  fnstenv_real32: real32.store,
  fnstenv_real16: real16.store,
  frstor_protected32: protected32.restore,
  frstor_protected16: protected16.restore,
  frstor_real32: real32.restore,
  frstor_real16: real16.restore,
  fnsave_protected32: protected32.save,
  fnsave_protected16: protected16.save,
  fnsave_real32: real32.save,
  fnsave_real16: real16.save,
} satisfies Record<string, Operation>;

export type X87OperationName = keyof typeof OPERATIONS;

const NAMES = Object.keys(OPERATIONS) as X87OperationName[];
const SEMANTICS: Operation[] = Object.values(OPERATIONS);

/** Operations by name; what `X87.execute` takes, with ST(i) in bits 8 to 10 where the name has `sti`. */
export const X87_OPERATIONS = Object.fromEntries(NAMES.map((name, index) => [name, index])) as Readonly<
  Record<X87OperationName, number>
>;

export const ST_SHIFT = 8;

/** What a decoder has to know of an operation. */
export interface X87Traits {
  /** ST(i) counts. */
  indexed: boolean;
  /** Size of the memory operand, 0 without one; FNSTSW has its operand in AX or in memory. */
  operandBytes: number;
  /** The memory operand is written, not read. */
  stores: boolean;
  /** An exception that is pending is taken first. FN- instructions run all the same. */
  waits: boolean;
  /** A control instruction: FIP, FCS, FDP, FDS and FOP do not come to name it. */
  control: boolean;
}

function operandBytes(name: X87OperationName): number {
  const sized = /_m(\d+)$/.exec(name);
  if (sized) return Number(sized[1]) / 8;
  const image = /^f(?:ldenv|nstenv|(rstor|nsave))_(\w+)$/.exec(name);
  if (image) {
    const format = image[2] as EnvironmentFormat;
    return image[1] === undefined ? ENVIRONMENT_BYTES[format] : STATE_BYTES[format];
  }
  return name === 'fldcw' || name === 'fnstcw' || name === 'fnstsw' ? 2 : 0;
}

function traitsOf(name: X87OperationName): X87Traits {
  return {
    indexed: name.includes('sti'),
    operandBytes: operandBytes(name),
    stores: /^f(i|b)?stt?p?_m|^fist|^fn(st|save)/.test(name),
    waits: !name.startsWith('fn') || name === 'fnop',
    control: /^(fn(?!op)|fldcw|fldenv|frstor|fwait|emms)/.test(name),
  };
}

/** By the numbers of `X87_OPERATIONS`. */
export const X87_TRAITS: readonly X87Traits[] = NAMES.map(traitsOf);

const WAITS = X87_TRAITS.map((traits) => traits.waits);

/** `execute`: done. */
export const X87_OK = 0;
/** `execute`: an unmasked exception was pending; nothing was done, and #MF (or FERR#) is due. */
export const X87_PENDING = 1;
/** `execute`: done, but an unmasked exception kept the operation from storing its memory operand. */
export const X87_NOT_STORED = 2;

/** Runs x87 instructions on the vCPU states in a linear memory. */
export class X87 {
  readonly #stack: RegisterStack;

  constructor(buffer: ArrayBufferLike) {
    this.#stack = new RegisterStack(buffer);
  }

  /**
   * Runs one operation (see `X87_OPERATIONS`) on the vCPU whose state is at `vcpuBase`. The memory operand is at
   * the linear address `operand`, read there and written there. Gives X87_OK, X87_PENDING or
   * X87_NOT_STORED. An unmasked exception that the operation itself raises is pending from then on, in FSW.ES.
   */
  execute(vcpuBase: number, operation: number, operand: number): number {
    const s = this.#stack;
    s.attach(vcpuBase);
    const index = operation & 0xff;
    if ((s.status & ERROR_SUMMARY) !== 0 && WAITS[index]) return X87_PENDING;
    s.float.begin(s.control);
    s.stored = true;
    SEMANTICS[index](s, (operation >> ST_SHIFT) & 7, operand >>> 0);
    s.release();
    return s.stored ? X87_OK : X87_NOT_STORED;
  }
}
