/**
 * The x87's arithmetic in WebAssembly against that in TypeScript, which recorded vectors hold to a processor: random operands with a
 * taste for edges, in all rounding modes. X87_ROUNDS in the environment asks for more of them.
 */

import { describe, expect, it } from 'vitest';
import { Float80, LESS, PRECISION, ROUNDED_UP } from '../cpu/x87/float80.ts';
import { RandomSource } from '../machine/random.ts';
import { ModuleBuilder } from '../wasm/module-builder.ts';
import type { SharedFunction } from './semantics.ts';
import { ADD, COMPARE, DIVIDE, FLAGS_SHIFT, FROM_FLOAT, FROM_INTEGER, MULTIPLY, RARE, TO_FLOAT, TO_INTEGER } from './x87-arithmetic.ts';

const ROUNDS = Number(process.env.X87_ROUNDS ?? 100_000);
/** FCW: all masked, 64 bits, by rounding mode. */
const CONTROLS = [0x33f, 0x73f, 0xb3f, 0xf3f];

type Call = (...operands: (bigint | number)[]) => [bigint, number];
const module = new ModuleBuilder();
module.importMemory(new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }));
const all = [ADD, MULTIPLY, DIVIDE, COMPARE, FROM_FLOAT[32], FROM_FLOAT[64], FROM_INTEGER, TO_FLOAT[32], TO_FLOAT[64], TO_INTEGER];
for (const { name, signature, build } of all) {
  const f = module.function(name, signature);
  f.return(...build(f, ...signature.parameters.map((_, i) => f.parameter(i))));
  module.export(f);
}
const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.bytes()), { env: { memory } });
const call = ({ name }: SharedFunction): Call => exports[name] as unknown as Call;

const random = new RandomSource(87);
const below = (n: number): number => random.next32() % n;
const oneOf = <T>(...list: T[]): T => list[below(list.length)];

/** Random bits, few bits, runs of ones, and numbers next to these. */
function significand(): bigint {
  const any = random.next64();
  const pattern = oneOf(any, any, 0n, ~0n, any << BigInt(below(64)), (1n << BigInt(below(64))) - 1n, ~((1n << BigInt(below(64))) - 1n), (any >> 11n) << 11n, (any >> 40n) << 40n);
  return BigInt.asUintN(64, pattern + BigInt(below(3) - 1));
}

const INTEGER_BIT = 1n << 63n;
/** Numbers near `exponent`, sometimes anywhere, and what is no normal number. */
function operand(exponent: number): [bigint, number] {
  const sign = below(2) << 15;
  switch (below(24)) {
    case 0: return [0n, sign];
    case 1: return [significand(), sign | 0x7fff];
    case 2: return [significand(), sign];
    case 3: return [significand(), sign | below(0x8000)];
    default: return [significand() | INTEGER_BIT, sign | Math.min(0x7ffe, Math.max(1, exponent + oneOf(0, 0, 1, -1, below(64) - 32, below(140) - 70)))];
  }
}

const low = (v: bigint): number => Number(BigInt.asIntN(32, v));
const high = (v: bigint): number => Number(BigInt.asIntN(32, v >> 32n));
const bits64 = (f: Float80): bigint => (BigInt(f.high >>> 0) << 32n) | BigInt(f.low >>> 0);
const unsigned = (v: bigint): bigint => BigInt.asUintN(64, v);
const exact = new Float80();

describe('x87 arithmetic', () => {
  it.each([
    ['add', ADD, (a: [bigint, number], b: [bigint, number]) => exact.add(low(a[0]), high(a[0]), a[1], low(b[0]), high(b[0]), b[1])],
    ['multiply', MULTIPLY, (a, b) => exact.multiply(low(a[0]), high(a[0]), a[1], low(b[0]), high(b[0]), b[1])],
    ['divide', DIVIDE, (a, b) => exact.divide(low(a[0]), high(a[0]), a[1], low(b[0]), high(b[0]), b[1])],
  ] as [string, SharedFunction, (a: [bigint, number], b: [bigint, number]) => void][])('%s gives what TypeScript gives, or nothing', (_name, target, compute) => {
    const quick = call(target);
    let settled = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const exponent = below(6) ? 0x3fff + below(200) - 100 : below(0x8000);
      const [a, b, control] = [operand(exponent), operand(exponent), oneOf(...CONTROLS)];
      const [result, rest] = quick(...a, ...b, control);
      exact.begin(control);
      compute(a, b);
      if (rest === RARE) continue;
      settled++;
      const found = [unsigned(result), rest & 0xffff, rest >>> FLAGS_SHIFT];
      const expected = [bits64(exact), exact.signExponent & 0xffff, exact.flags];
      if (`${found}` !== `${expected}`) expect.fail(`${[a, b, control.toString(16)]}: ${found}, not ${expected}`);
    }
    expect(settled).toBeGreaterThan(ROUNDS * 0.5);
  });

  it('settles all that is made of normal numbers and zeros', () => {
    for (let round = 0; round < ROUNDS / 10; round++) {
      const number = (): [bigint, number] => (below(8) ? [significand() | INTEGER_BIT, (below(2) << 15) | (0x3000 + below(0x2000))] : [0n, below(2) << 15]);
      const [a, b] = [number(), number()];
      for (const target of [ADD, MULTIPLY]) expect(call(target)(...a, ...b, 0x33f)[1]).not.toBe(RARE);
      if (b[0]) expect(call(DIVIDE)(...a, ...b, 0x33f)[1]).not.toBe(RARE);
    }
  });

  it('compares', () => {
    const quick = exports[COMPARE.name] as (...operands: (bigint | number)[]) => number;
    for (let round = 0; round < ROUNDS; round++) {
      const a = operand(0x3fff);
      const b = below(4) ? operand(0x3fff) : ([a[0], a[1] ^ (below(2) << 15)] as [bigint, number]);
      exact.begin(0x33f);
      const expected = exact.compare(low(a[0]), high(a[0]), a[1], low(b[0]), high(b[0]), b[1], false);
      const found = quick(...a, ...b);
      if (found === RARE) continue;
      if (found !== expected || exact.flags) expect.fail(`${[a, b]}: ${found}, not ${expected}`);
    }
    expect(quick(INTEGER_BIT, 0x3fff, INTEGER_BIT, 0x4000)).toBe(LESS);
  });

  it.each([32, 64] as const)('converts floats of %i bits', (bits) => {
    const exponents = bits === 32 ? 0xff : 0x7ff;
    const fraction = bits === 32 ? 23n : 52n;
    for (let round = 0; round < ROUNDS; round++) {
      const exponent = oneOf(0, 1, exponents, exponents - 1, below(exponents + 1), exponents >> 1);
      const value = BigInt.asUintN(bits, (BigInt(below(2)) << BigInt(bits - 1)) | (BigInt(exponent) << fraction) | (significand() & ((1n << fraction) - 1n)));
      exact.begin(0x33f);
      if (bits === 32) exact.fromFloat32(low(value));
      else exact.fromFloat64(low(value), high(value));
      const [result, rest] = call(FROM_FLOAT[bits])(value);
      if (rest === RARE) {
        if (exponent > 0 && exponent < exponents) expect.fail(`${value.toString(16)} is not rare`);
      } else if (unsigned(result) !== bits64(exact) || rest !== (exact.signExponent & 0xffff) || exact.flags) expect.fail(`${value.toString(16)}: ${result.toString(16)} ${rest.toString(16)}`);

      const control = oneOf(...CONTROLS);
      const number = operand(0x3fff + oneOf(0, 0, -(exponents >> 1), exponents >> 1));
      const [stored, flags] = call(TO_FLOAT[bits])(...number, control);
      if (flags === RARE) continue;
      exact.begin(control);
      const narrow = bits === 32 ? BigInt(exact.toFloat32(low(number[0]), high(number[0]), number[1])) : undefined;
      if (narrow === undefined) exact.toFloat64(low(number[0]), high(number[0]), number[1]);
      const expected = narrow ?? bits64(exact);
      if (BigInt.asUintN(bits, stored) !== BigInt.asUintN(bits, expected) || flags >>> FLAGS_SHIFT !== exact.flags) {
        expect.fail(`${number} ${control.toString(16)}: ${stored.toString(16)} ${flags >>> FLAGS_SHIFT}, not ${expected.toString(16)} ${exact.flags}`);
      }
    }
  });

  it.each([16, 32, 64] as const)('converts integers of %i bits', (bits) => {
    for (let round = 0; round < ROUNDS; round++) {
      const integer = BigInt.asIntN(bits, significand());
      exact.begin(0x33f);
      exact.fromInteger64(low(integer), high(integer));
      const [result, rest] = call(FROM_INTEGER)(integer);
      if (unsigned(result) !== bits64(exact) || rest !== (exact.signExponent & 0xffff)) expect.fail(`${integer}: ${result} ${rest}`);

      const control = oneOf(...CONTROLS);
      const number = operand(0x3fff + below(bits + 4) - 2);
      const [stored, flags] = call(TO_INTEGER)(...number, control, 2n ** BigInt(bits - 1) - 1n);
      if (flags === RARE) continue;
      exact.begin(control);
      exact.toInteger(low(number[0]), high(number[0]), number[1], bits);
      if (unsigned(stored) !== unsigned(BigInt.asIntN(bits, bits64(exact))) || flags >>> FLAGS_SHIFT !== exact.flags) {
        expect.fail(`${number} ${control.toString(16)}: ${stored} ${flags >>> FLAGS_SHIFT}, not ${bits64(exact)} ${exact.flags}`);
      }
    }
  });

  it('knows what an inexact result is', () => {
    const [result, rest] = call(DIVIDE)(INTEGER_BIT, 0x3fff, 3n << 62n, 0x4000, 0x33f);
    expect([unsigned(result), rest & 0xffff, rest >>> FLAGS_SHIFT]).toEqual([0xaaaa_aaaa_aaaa_aaabn, 0x3ffd, PRECISION | ROUNDED_UP]);
  });
});
