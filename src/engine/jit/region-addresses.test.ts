/** What is known of addresses while code is built: what is near what, and for how long that holds. */
import { beforeEach, describe, expect, it } from 'vitest';
import { type Expression, i32, i64 } from '../../wasm/expression.ts';
import { FunctionBuilder, type Local } from '../../wasm/function-builder.ts';
import { RegionAddresses } from './region-addresses.ts';

let f: FunctionBuilder;
let addresses: RegionAddresses;
let base: Local;
let index: Local;
const HOST = i32(0x5000);
const get = (local: Local): Expression => f.get(local);
/** How far `address` is from a translation at hand, or undefined. */
const distance = (address: Expression, write = false): number | undefined => addresses.near(f.let(address), write)?.distance;
const keep = (address: Expression, forWrites = false): void => addresses.keep(f.let(address), HOST, forWrites);

beforeEach(() => {
  f = new FunctionBuilder('region', { parameters: ['i32'], results: [] });
  addresses = new RegionAddresses(f, true);
  addresses.areWorthKeeping = true;
  base = f.variable('i64');
  index = f.variable('i64');
});

describe('near a translation', () => {
  it('is what is a known distance away, whatever it was computed by', () => {
    keep(get(base).add(8));
    expect(distance(get(base).add(24))).toBe(16);
    expect(distance(get(base))).toBe(-8);
    f.set(base, get(base).sub(16));
    expect(distance(get(base).add(32))).toBe(8);
    f.set(index, get(base).add(4));
    expect(distance(get(index).add(20))).toBe(0);
  });

  it('is an element of the same array, and a 32-bit address', () => {
    const element = (displacement: number): Expression => get(base).add(get(index).shl(3)).add(displacement);
    keep(element(0));
    expect(distance(element(8))).toBe(8);
    f.set(index, get(index).add(2));
    expect(distance(element(0))).toBe(16);
    keep(get(base).add(4).zeroExtend(32));
    expect(distance(get(base).add(12).zeroExtend(32))).toBe(8);
    expect(distance(get(base).add(12))).toBeUndefined();
  });

  it('is nothing that is far away, unknown, or written where only reads are known to be allowed', () => {
    keep(get(base));
    expect(distance(get(base).add(2000))).toBeUndefined();
    expect(distance(get(index))).toBeUndefined();
    expect(distance(get(base), true)).toBeUndefined();
    keep(get(base), true);
    expect(distance(get(base).add(8), true)).toBe(8);
    f.set(base, i64(1).add(get(index).mul(get(index))));
    expect(distance(get(base))).toBeUndefined();
  });
});

describe('what is known', () => {
  it('ends with the scope it was learnt in, and what was changed there is unknown behind it', () => {
    keep(get(index));
    f.if(f.parameter(0), () => {
      keep(get(base));
      f.set(index, get(index).add(8));
      expect(distance(get(base).add(8))).toBe(8);
      expect(distance(get(index))).toBe(8);
    }, () => {
      expect(distance(get(base))).toBeUndefined();
      expect(distance(get(index))).toBeUndefined();
    });
    expect(distance(get(base))).toBeUndefined();
    expect(distance(get(index))).toBeUndefined();
  });

  it('is nothing where a loop begins', () => {
    keep(get(base));
    f.loop(() => expect(distance(get(base))).toBeUndefined());
  });

  it('is there again on the other way of a branch', () => {
    keep(get(base));
    const before = addresses.snapshot();
    f.if(f.parameter(0), () => {
      f.set(base, get(index));
      addresses.forget();
      addresses.restore(before);
    });
    expect(distance(get(base).add(8))).toBe(8);
  });

  it('is nothing where nobody follows', () => {
    const other = new RegionAddresses(new FunctionBuilder('quick', { parameters: [], results: [] }), false);
    other.areWorthKeeping = true;
    other.keep(i64(0), HOST, false);
    expect(other.near(i64(0), false)).toBeUndefined();
  });
});
