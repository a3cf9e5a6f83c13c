/**
 * Cases for every operation from edge cases, random operands and operands related to each other, under all
 * rounding and precision controls, with masked and unmasked exceptions and all states of the stack. Deterministic.
 */

import { X87_OPERATIONS, type X87OperationName } from '../../../src/cpu/x87/x87.ts';
import {
  type Case,
  FX_NAMES,
  IMAGE_BYTES,
  MEMORY_BYTES,
  type OperationName,
  POINTERS_AT,
  REGISTER_BYTES,
  REGISTERS_AT,
  STATUS_FLAGS,
} from './case.ts';
import { CONTROL } from './undefined.ts';

/** xorshift32. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0 || 1;
  }

  bits(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  below(limit: number): number {
    return this.bits() % limit;
  }

  chance(probability: number): boolean {
    return this.bits() < probability * 2 ** 32;
  }

  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)];
  }

  bits64(): bigint {
    return (BigInt(this.bits()) << 32n) | BigInt(this.bits());
  }
}

const INTEGER_BIT = 1n << 63n;
const ALL = (1n << 64n) - 1n;

/** Bits of a 64-bit significand: random, sparse, dense, or close to where a shorter precision rounds. */
function significand(random: Random): bigint {
  switch (random.below(8)) {
    case 0:
      return 0n;
    case 1:
      return ALL;
    case 2:
      return (1n << BigInt(random.below(64))) | (1n << BigInt(random.below(64)));
    case 3:
      return ALL ^ (1n << BigInt(random.below(64)));
    case 4: {
      // A tie, or next to one, for 24 or 53 bits.
      const below = random.of([11n, 40n]);
      return ((random.bits64() >> below) << below) + (1n << (below - 1n)) + BigInt(random.below(3)) - 1n;
    }
    case 5:
      return random.bits64() << BigInt(random.below(64));
    default:
      return random.bits64();
  }
}

const BIAS = 0x3fff;

function exponent(random: Random): number {
  switch (random.below(8)) {
    case 0:
      return 1 + random.below(0x7ffe);
    case 1:
      return random.of([1, 2, 3, 0x7ffc, 0x7ffd, 0x7ffe]);
    case 2:
      // The edges of float32, float64 and integers.
      return (
        BIAS +
        random.of([-1075, -1074, -1023, -1022, -150, -149, -127, -126, 15, 16, 31, 32, 59, 60, 62, 63, 64, 127, 128, 1023, 1024])
      );
    case 3:
      return 1 + random.below(80);
    case 4:
      return 0x7ffe - random.below(80);
    default:
      return BIAS - 70 + random.below(140);
  }
}

/** An 80-bit image. */
export function operand(random: Random): bigint {
  const sign = random.chance(0.5) ? 1n << 79n : 0n;
  const image = (e: number, s: bigint) => sign | (BigInt(e) << 64n) | (s & ALL);
  switch (random.below(32)) {
    case 0:
    case 1:
      return image(0, 0n);
    case 2:
      return image(0, significand(random) & ~INTEGER_BIT);
    case 3:
      return image(0, significand(random) >> BigInt(random.below(64)));
    case 4:
      return image(0, significand(random) | INTEGER_BIT);
    case 5:
    case 6:
      return image(0x7fff, INTEGER_BIT);
    case 7:
      return image(0x7fff, significand(random) | (3n << 62n));
    case 8:
      return image(0x7fff, (significand(random) & ~(1n << 62n)) | INTEGER_BIT | 1n);
    case 9:
      return image(0x7fff, significand(random) & ~INTEGER_BIT);
    case 10:
      return image(exponent(random), significand(random) & ~INTEGER_BIT);
    case 11:
      return image(BIAS, INTEGER_BIT);
    case 12:
    case 13: {
      // A small number with few fraction bits.
      const value = BigInt(random.below(2000) + 1);
      const length = value.toString(2).length;
      return image(BIAS + length - 1 - random.below(4), value << BigInt(64 - length));
    }
    default:
      return image(exponent(random), significand(random) | INTEGER_BIT);
  }
}

/** One that stands to another as operands do in interesting sums, quotients and comparisons. */
function related(random: Random, to: bigint): bigint {
  const e = Number((to >> 64n) & 0x7fffn);
  const clamp = (value: number) => BigInt(Math.min(Math.max(value, 0), 0x7fff)) << 64n;
  const s = to & ALL;
  const sign = random.chance(0.5) ? 1n << 79n : 0n;
  switch (random.below(6)) {
    case 0:
      return to ^ (random.chance(0.5) ? 1n << 79n : 0n);
    case 1:
      return sign | clamp(e) | ((s + BigInt(random.below(9)) - 4n) & ALL);
    case 2:
      return sign | clamp(e + random.below(5) - 2) | (significand(random) | INTEGER_BIT);
    case 3:
      return sign | clamp(e + random.below(140) - 70) | (significand(random) | INTEGER_BIT);
    case 4:
      return sign | clamp(2 * BIAS - e + random.below(9) - 4) | (significand(random) | INTEGER_BIT);
    default:
      return (
        sign |
        clamp(random.chance(0.5) ? 0x7ffe - e + BIAS + random.below(5) : BIAS - e + random.below(70)) |
        (significand(random) | INTEGER_BIT)
      );
  }
}

/** Close to 2^n from below, as far as its lowest bits go: rounding to fewer bits may carry all the way. */
function almostPowerOfTwo(random: Random): bigint {
  return ALL ^ BigInt(random.of([0, 0, 1, 2, 3, 0x3ff, 0x400, 0x7ff, 0x800, 0xfff]));
}

/** Two operands between which an operation has a decision to make that others rarely meet. */
function decidingPair(random: Random, operation: string): [first: bigint, second: bigint] {
  const sign = () => (random.chance(0.5) ? 1n << 79n : 0n);
  const number = (e: number, s: bigint) => sign() | (BigInt(e) << 64n) | s;
  const power = BIAS - 8000 + random.below(16000);
  if (operation.startsWith('fprem')) {
    // A quotient that ends in one half, or nearly; or one between one half and one.
    if (random.chance(0.3))
      return [number(power, significand(random) | INTEGER_BIT), number(power + 1, significand(random) | INTEGER_BIT)];
    const divisor = BigInt((random.bits() | 1) >>> random.below(32)) | 1n;
    const dividend = divisor * BigInt(2 * random.below(64) + 1);
    const normal = (value: bigint, scale: number) => {
      const length = value.toString(2).length;
      return number(power + length + scale, value << BigInt(64 - length));
    };
    return [normal(dividend, -1) + (random.chance(0.3) ? BigInt(random.below(3)) : 0n), normal(divisor, 0)];
  }
  if (operation.startsWith('fdiv') && random.chance(0.5)) {
    // The quotient's first 32 bits are reached by a hair, and the divisor is less than the double nearest to it.
    const divisor = ((random.bits64() | INTEGER_BIT) & ~0x7ffn) | BigInt(0x600 + random.below(0x200));
    const digit = BigInt(random.bits()) | (1n << 31n);
    const dividend = ((digit * divisor) >> 32n) + 1n;
    const scale = BigInt(64 - dividend.toString(2).length);
    const [over, under] = [number(power - Number(scale), dividend << scale), number(power, divisor)];
    return operation === 'fdiv_st0_sti' || /^fdivr/.test(operation) ? [over, under] : [under, over];
  }
  // A result around the smallest normal number.
  const e = random.below(4) - 2;
  if (operation.startsWith('fmul')) return [number(power, INTEGER_BIT), number(BIAS + e - power, almostPowerOfTwo(random))];
  const [almost, exact] = [number(8000 + e, almostPowerOfTwo(random)), number(BIAS + 8000, INTEGER_BIT)];
  if (operation === 'fdiv_st0_sti' || operation.startsWith('fdivr')) return [almost, exact];
  if (operation.startsWith('fdiv')) return [exact, almost];
  return [number(Math.max(0, e), almostPowerOfTwo(random)), number(random.below(3), random.of([1n, 2n, 0x400n, INTEGER_BIT]))];
}

/** Operands where a transcendental function is neither trivial nor out of its domain. */
function transcendentalOperand(random: Random, operation: string): bigint {
  const sign = random.chance(0.5) ? 1n << 79n : 0n;
  const within = (from: number, to: number) =>
    sign | (BigInt(BIAS + from + random.below(to - from + 1)) << 64n) | (significand(random) | INTEGER_BIT);
  switch (operation) {
    case 'f2xm1':
      return within(random.chance(0.3) ? -70 : -8, -1);
    case 'fyl2x':
      return within(random.chance(0.5) ? -3 : -16000, random.chance(0.5) ? 3 : 16000) & ~(random.chance(0.9) ? 1n << 79n : 0n);
    case 'fyl2xp1':
      return within(random.chance(0.3) ? -70 : -8, -3);
    case 'fpatan':
      return within(-70, 70);
    default: {
      if (random.chance(0.3)) {
        // Close to a multiple of pi/2, so that the reduction shows.
        const quarter = (0x3243f6a8885a308d313198a2e03707344an * BigInt(1 + random.below(1 << random.below(31)))) / 2n;
        const length = quarter.toString(2).length;
        return sign | (BigInt(BIAS + length - 1 - 132) << 64n) | (quarter >> BigInt(length - 64));
      }
      return within(random.chance(0.3) ? -70 : -3, random.chance(0.3) ? 63 : 5);
    }
  }
}

function float32(random: Random): number {
  const fraction = (): number => random.of([0, 1, 0x400000, 0x7fffff, random.bits() & 0x7fffff, random.bits() & 0x7fffff]);
  const e = random.of([0, 0, 255, 255, 1, 254, 127, random.below(256), random.below(256), 120 + random.below(16)]);
  return ((random.bits() & 0x8000_0000) | (e << 23) | fraction()) >>> 0;
}

function float64(random: Random): bigint {
  const mask = (1n << 52n) - 1n;
  const fraction = random.of([0n, 1n, 1n << 51n, mask, random.bits64() & mask, random.bits64() & mask]);
  const e = random.of([0, 0, 2047, 2047, 1, 2046, 1023, random.below(2048), random.below(2048), 1000 + random.below(50)]);
  return (random.bits64() & INTEGER_BIT) | (BigInt(e) << 52n) | fraction;
}

function packedDecimal(random: Random): bigint {
  const digits = Array.from({ length: 18 }, () =>
    random.chance(0.02) ? random.of(['a', 'b', 'c', 'd', 'e', 'f']) : String(random.below(10)),
  );
  const leading = random.below(19);
  return BigInt(`0x${random.of(['00', '80', '7f', 'ff'])}${digits.map((digit, n) => (n < leading ? '0' : digit)).join('')}`);
}

function control(random: Random): number {
  const masks = random.chance(0.6) ? 0x3f : random.below(64);
  return 0x40 | masks | (random.below(16) << 8) | (random.chance(0.1) ? 1 << 12 : 0);
}

const EXCEPTIONS = 0x3f;
const PENDING = 0x8080;

/** FSW, without TOP, that goes with a control word: flags that are masked, now and then one that is not. */
function status(random: Random, fcw: number, mayPend: boolean): number {
  const conditions = random.bits() & 0x4700;
  if (mayPend && random.chance(0.02)) {
    const flags = random.bits() & EXCEPTIONS;
    return conditions | flags | (flags & ~fcw & EXCEPTIONS ? PENDING : 0);
  }
  return conditions | (random.chance(0.3) ? random.bits() & fcw & EXCEPTIONS : 0) | (random.chance(0.05) ? 0x40 : 0);
}

function putBig(bytes: Uint8Array, at: number, value: bigint, size: number): void {
  for (let n = 0; n < size; n++) bytes[at + n] = Number((value >> BigInt(8 * n)) & 0xffn);
}

/** Operations that read or write RFLAGS. */
const FLAGS = /^f(cmov|u?comi)/;
const PUSHES = /^(fld(?!cw|env)|fild|fbld|fsincos|fptan|fxtract)/;
const DECIDING = /^(fprem|f(add|sub|mul|div)r?p?_st)/;
const TRANSCENDENTALS = /^(f2xm1|fyl2x|fyl2xp1|fpatan|fsin|fcos|fsincos|fptan)$/;

/** An FSAVE image with the two operands at ST(0) and ST(i), others holding recognizable numbers. */
function image(random: Random, operation: string, i: number): Uint8Array {
  const bytes = new Uint8Array(IMAGE_BYTES);
  const view = new DataView(bytes.buffer);
  const fcw = control(random);
  if (CONTROL.test(operation)) for (let n = POINTERS_AT; n < REGISTERS_AT; n++) bytes[n] = random.bits();
  const top = random.below(8);
  view.setUint32(0, 0xffff_0000 | fcw, true);
  view.setUint32(4, 0xffff_0000 | (top << 11) | status(random, fcw, true), true);
  // Tags other than empty are recomputed, so that 0 does for all of them.
  const free = PUSHES.test(operation) ? (random.chance(0.9) ? 1 << 7 : 0) : 0;
  const empty = random.chance(0.85) ? free : free | (1 << random.below(8)) | (random.chance(0.3) ? random.bits() & 0xff : 0);
  let tags = 0;
  for (let st = 0; st < 8; st++) if (empty & (1 << st)) tags |= 3 << (2 * ((st + top) & 7));
  view.setUint32(8, 0xffff_0000 | tags, true);
  let first = TRANSCENDENTALS.test(operation) && random.chance(0.7) ? transcendentalOperand(random, operation) : operand(random);
  let second = random.chance(0.5) ? operand(random) : related(random, first);
  if (DECIDING.test(operation) && random.chance(0.2)) [first, second] = decidingPair(random, operation);
  for (let st = 0; st < 8; st++) {
    const value = st === 0 ? first : st === 1 || st === i ? second : (BigInt(BIAS + st) << 64n) | INTEGER_BIT | BigInt(st);
    putBig(bytes, REGISTERS_AT + st * REGISTER_BYTES, value, REGISTER_BYTES);
  }
  return bytes;
}

function memoryOperand(random: Random, operation: string): Uint8Array {
  const bytes = new Uint8Array(MEMORY_BYTES);
  if (/^(fldenv|frstor)/.test(operation)) {
    const wide = operation.endsWith('32');
    const view = new DataView(bytes.buffer);
    for (let n = 0; n < 64; n++) view.setUint16(2 * n, random.bits(), true);
    const fcw = control(random) | (random.chance(0.3) ? random.bits() & 0xf0c0 : 0);
    const fsw = random.chance(0.5) ? random.bits() : status(random, fcw, true) | (random.bits() & 0x3800);
    view.setUint16(0, fcw, true);
    view.setUint16(wide ? 4 : 2, fsw, true);
    view.setUint16(wide ? 8 : 4, random.bits(), true);
    if (operation.startsWith('frstor')) {
      for (let st = 0; st < 8; st++) putBig(bytes, (wide ? 28 : 14) + st * REGISTER_BYTES, operand(random), REGISTER_BYTES);
    }
  } else if (operation.startsWith('fxrstor')) {
    for (let n = 0; n < 160; n++) bytes[n] = random.bits();
    putBig(
      bytes,
      24,
      random.chance(0.9)
        ? 0x1f80n
        : BigInt(random.bits() & 0xffff) | (random.chance(0.5) ? 1n << BigInt(18 + random.below(14)) : 0n),
      4,
    );
    for (let st = 0; st < 8; st++) putBig(bytes, 32 + 16 * st, operand(random), REGISTER_BYTES);
  } else if (operation.startsWith('fxsave')) bytes.fill(0xa5);
  else if (operation.startsWith('fldcw')) putBig(bytes, 0, BigInt(random.chance(0.5) ? random.bits() : control(random)), 2);
  else if (operation === 'fbld_m80') putBig(bytes, 0, packedDecimal(random), 10);
  else if (operation.endsWith('_m80')) putBig(bytes, 0, operand(random), 10);
  else if (/^fi.*_m(16|32|64)$/.test(operation)) {
    const size = Number(operation.slice(-2));
    const value = random.of([
      0n,
      1n,
      ALL,
      1n << 63n,
      1n << 31n,
      1n << 15n,
      0x7fffn,
      0x7fff_ffffn,
      random.bits64(),
      random.bits64(),
      random.bits64() >> BigInt(random.below(64)),
    ]);
    putBig(bytes, 0, value, size / 8);
  } else if (operation.endsWith('_m32')) putBig(bytes, 0, BigInt(float32(random)), 4);
  else if (operation.endsWith('_m64')) putBig(bytes, 0, float64(random), 8);
  else if (/^fn(save|stenv)/.test(operation)) bytes.fill(0xa5, 0, 128);
  return bytes;
}

export function generateCase(random: Random, operation: OperationName): Case {
  const i = operation.includes('sti') ? random.of([0, 1, 1, 2, 3, 7]) : 0;
  return {
    operation,
    i,
    rflags: FLAGS.test(operation) ? random.bits() & STATUS_FLAGS : 0,
    image: image(random, operation, i),
    memory: memoryOperand(random, operation),
  };
}

export const OPERATION_NAMES: OperationName[] = [...(Object.keys(X87_OPERATIONS) as X87OperationName[]), ...FX_NAMES];
