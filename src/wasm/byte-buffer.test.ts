/** Numbers in WebAssembly's binary format. Core specification 2.0, 5.2. */
import { describe, expect, it } from 'vitest';
import { ByteBuffer } from './byte-buffer.ts';

const written = (write: (out: ByteBuffer) => void): number[] => {
  const out = new ByteBuffer(1);
  write(out);
  return [...out.view()];
};
/** Reads LEB128 as the specification defines it. */
function leb(bytes: number[], signed: boolean): bigint {
  let value = 0n;
  bytes.forEach((byte, i) => {
    value |= BigInt(byte & 127) << BigInt(7 * i);
    expect(byte >> 7).toBe(i < bytes.length - 1 ? 1 : 0);
  });
  const bits = 7 * bytes.length;
  return signed ? BigInt.asIntN(bits, value) : value;
}

describe('unsigned LEB128', () => {
  it.each<[number, number[]]>([
    [0, [0]],
    [127, [0x7f]],
    [128, [0x80, 1]],
    [624485, [0xe5, 0x8e, 0x26]],
    [2 ** 31, [0x80, 0x80, 0x80, 0x80, 8]],
    [2 ** 32 - 1, [0xff, 0xff, 0xff, 0xff, 0x0f]],
  ])('%d', (value, bytes) => {
    expect(written((out) => out.unsigned(value))).toEqual(bytes);
    expect(leb(bytes, false)).toBe(BigInt(value));
  });
});

describe('signed LEB128', () => {
  it.each<[number, number[]]>([
    [0, [0]],
    [63, [0x3f]],
    [64, [0xc0, 0]],
    [-1, [0x7f]],
    [-64, [0x40]],
    [-65, [0xbf, 0x7f]],
    [-123456, [0xc0, 0xbb, 0x78]],
    [2 ** 31 - 1, [0xff, 0xff, 0xff, 0xff, 7]],
    [-(2 ** 31), [0x80, 0x80, 0x80, 0x80, 0x78]],
  ])('%d', (value, bytes) => {
    expect(written((out) => out.signed(value))).toEqual(bytes);
    expect(written((out) => out.signed64(value))).toEqual(bytes);
    expect(written((out) => out.signed64(BigInt(value)))).toEqual(bytes);
  });

  it('of 64 bits takes any bigint modulo 2^64, and numbers that are integers', () => {
    for (const value of [2n ** 63n - 1n, -(2n ** 63n), 2n ** 32n, -(2n ** 32n) - 1n, 0x1234_5678_9abc_def0n, 2n ** 63n, 2n ** 64n - 1n]) {
      const bytes = written((out) => out.signed64(value));
      expect(leb(bytes, true)).toBe(BigInt.asIntN(64, value));
      expect(bytes.length).toBeLessThanOrEqual(10);
    }
    expect(leb(written((out) => out.signed64(2 ** 40)), true)).toBe(2n ** 40n);
    expect(leb(written((out) => out.signed64(2 ** 31)), true)).toBe(2n ** 31n);
    expect(() => written((out) => out.signed64(0.5))).toThrow(RangeError);
  });

  it('is as short as it can be', () => {
    for (let bit = 0; bit < 63; bit++) {
      for (const value of [2n ** BigInt(bit) - 1n, 2n ** BigInt(bit), -(2n ** BigInt(bit)), -(2n ** BigInt(bit)) - 1n]) {
        const bytes = written((out) => out.signed64(value));
        const bits = (value < 0n ? ~value : value).toString(2).replace(/^0$/, '').length + 1;
        expect(bytes.length).toBe(Math.ceil(bits / 7));
        expect(leb(bytes, true)).toBe(value);
      }
    }
  });
});

describe('a buffer', () => {
  it('writes floats as their bits, NaN and -0 among them', () => {
    expect(written((out) => out.float64(-0))).toEqual([0, 0, 0, 0, 0, 0, 0, 0x80]);
    expect(written((out) => out.float64(1.5))).toEqual([0, 0, 0, 0, 0, 0, 0xf8, 0x3f]);
    expect(written((out) => out.float32(Number.POSITIVE_INFINITY))).toEqual([0, 0, 0x80, 0x7f]);
    expect(written((out) => out.float32(Number.NaN)).at(-1)).toBe(0x7f);
  });

  it('grows by bytes and by whole buffers', () => {
    const out = new ByteBuffer(1);
    for (let i = 0; i < 300; i++) out.byte(i);
    const other = new ByteBuffer(2);
    other.raw(new Uint8Array(5000).fill(7));
    out.append(other);
    expect(out.length).toBe(5300);
    expect([...out.view().subarray(298, 302)]).toEqual([298 & 255, 299 & 255, 7, 7]);
  });

  it('writes names with their length in front', () => {
    expect(written((out) => out.name('env'))).toEqual([3, 0x65, 0x6e, 0x76]);
    expect(written((out) => out.name(''))).toEqual([0]);
  });
});
