import { expect, it } from 'vitest';
import { ByteWriter } from './byte-writer.ts';

it('loses nothing where it grows, whatever the width of what is written then', () => {
  for (const write of [
    (out: ByteWriter) => out.u8(0xab),
    (out: ByteWriter) => out.u16(0xcdab),
    (out: ByteWriter) => out.u32(0x12ef_cdab),
    (out: ByteWriter) => out.bytes([0xab]),
    (out: ByteWriter) => out.text('\u00ab'),
  ]) {
    for (const size of [256, 512]) expect(write(new ByteWriter().zeros(size)).finish()[size]).toBe(0xab);
  }
});
