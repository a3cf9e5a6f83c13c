import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { BootError } from './boot-error.ts';
import { crc32 } from './crc32.ts';
import { extractVmlinux, payloadFormat } from './kernel-payload.ts';
import { unpackLz4 } from './lz4.ts';
import { undoX86Filter, unpackXz } from './xz.ts';

/**
 * What the files in fixtures/ unpack to: an ELF magic, bytes with many calls and jumps, repetitive text, noise. Made by
 *   xz --check=crc32 --x86 --lzma2=preset=9,lc=1,lp=2,pb=1 --block-size=2048; xz --format=lzma -9; lz4 -l -9; zstd -19
 */
function vmlinux(): Buffer {
  let seed = 1;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 16) % below;
  };
  const CALLS = [0xe8, 0xe9, 0x00, 0xff, 0x01, 0xfe, 0x90];
  return Buffer.concat([
    Buffer.from([0x7f, 0x45, 0x4c, 0x46]),
    Buffer.from(Array.from({ length: 3000 }, () => CALLS[random(CALLS.length)])),
    Buffer.from(Array.from({ length: 400 }, (_, line) => `line ${line * random(20)} of the text\n`).join('')),
    Buffer.from(Array.from({ length: 3000 }, () => random(256))),
  ]);
}

const VMLINUX = vmlinux();
const fixture = (name: string): Buffer => readFileSync(join(import.meta.dirname, 'fixtures', name));
const withSize = (packed: Uint8Array, size = VMLINUX.length): Uint8Array => {
  const word = Buffer.alloc(4);
  word.writeUInt32LE(size);
  return Buffer.concat([packed, word]);
};
const extract = (payload: Uint8Array | undefined): Buffer => Buffer.from(extractVmlinux({ payload }));

const PACKED = [
  ['xz', fixture('vmlinux.xz')],
  ['lzma', fixture('vmlinux.lzma')],
  ['lz4', fixture('vmlinux.lz4')],
  ['zstd', fixture('vmlinux.zst')],
] as const;

describe('kernel payload', () => {
  it.each(PACKED)('packed with %s is unpacked', (format, packed) => {
    expect(payloadFormat(packed)).toBe(format);
    expect(extract(withSize(packed)).equals(VMLINUX)).toBe(true);
  });

  it('packed with gzip is unpacked and its checksum verified', () => {
    const packed = gzipSync(VMLINUX);
    expect(extract(packed).equals(VMLINUX)).toBe(true);
    packed[packed.length - 8] ^= 1;
    expect(() => extract(packed)).toThrow(BootError);
  });

  it('not packed at all is taken as it is', () => {
    expect(extract(VMLINUX).equals(VMLINUX)).toBe(true);
  });

  it.each(PACKED)('packed with %s and truncated anywhere is a BootError', (format, packed) => {
    for (let length = 16; length < packed.length; length += 97) {
      expect(() => extract(withSize(packed.subarray(0, length)))).toThrow(BootError);
    }
    expect(() => extract(withSize(packed.subarray(0, packed.length >> 1)))).toThrow(
      `the kernel's ${format} payload is corrupt: `,
    );
  });

  it.each(PACKED)('packed with %s never ends in anything but bytes or a BootError when a byte is changed', (_, packed) => {
    for (let at = 0; at < packed.length; at += 41) {
      const changed = Uint8Array.from(packed);
      changed[at] ^= 0x55;
      try {
        expect(extract(withSize(changed)).length).toBe(VMLINUX.length);
      } catch (error) {
        expect(error).toBeInstanceOf(BootError);
      }
    }
  });

  it('packed with xz is verified by its checksums wherever a byte is changed', () => {
    const packed = fixture('vmlinux.xz');
    for (let at = 0; at < packed.length; at += 13) {
      const changed = Uint8Array.from(packed);
      changed[at] ^= 1;
      expect(() => extract(withSize(changed)), `byte ${at}`).toThrow(BootError);
    }
  });

  it.each(PACKED)('packed with %s that is longer or shorter than it says is a BootError', (_, packed) => {
    for (const size of [VMLINUX.length - 1, VMLINUX.length + 1]) expect(() => extract(withSize(packed, size))).toThrow(BootError);
  });

  it('that claims an absurd size is refused before memory is taken', () => {
    expect(() => extract(withSize(fixture('vmlinux.xz'), 0xffff_ffff))).toThrow('it says it unpacks to 4294967295 bytes');
  });

  it('packed with zstd whose frame asks for too much memory is refused before it is taken', () => {
    const packed = fixture('vmlinux.zst');
    const window = Uint8Array.from([...packed.subarray(0, 4), 0x04, 0xa0, ...packed.subarray(7)]);
    const content = Uint8Array.from([...packed.subarray(0, 4), 0xa4, 0, 0, 0, 0x60, ...packed.subarray(7)]);
    for (const changed of [window, content]) expect(() => extract(withSize(changed))).toThrow('its frame asks for more memory than a kernel needs');
  });

  it('of a format that only the guest can unpack says how to boot it', () => {
    expect(() => extract(withSize(Buffer.from('BZh91AY&SY')))).toThrow('bzip2 boot by --boot bzimage only');
    expect(() => extract(withSize(Buffer.from('garbage')))).toThrow('packed in a way that is not known');
    expect(() => extract(undefined)).toThrow('does not say where its packed vmlinux lies');
  });

  it('that is no kernel after all is refused', () => {
    expect(() => extract(gzipSync('not a kernel'))).toThrow('what it unpacks to is not an ELF file');
  });
});

describe('LZ4 legacy frames', () => {
  it('hold several blocks, and may follow each other', () => {
    const block = fixture('vmlinux.lz4').subarray(4);
    const magic = fixture('vmlinux.lz4').subarray(0, 4);
    const unpacked = Buffer.from(unpackLz4(Buffer.concat([magic, block, block, magic, block]), 3 * VMLINUX.length));
    expect(unpacked.equals(Buffer.concat([VMLINUX, VMLINUX, VMLINUX]))).toBe(true);
  });

  it('refuse a match that reaches before its block', () => {
    const twoBlocks = Uint8Array.of(2, 0x21, 0x4c, 0x18, 2, 0, 0, 0, 0x10, 65, 5, 0, 0, 0, 0x10, 65, 2, 0, 0);
    expect(() => unpackLz4(twoBlocks, 7)).toThrow('a match starts before its block');
  });
});

describe('XZ', () => {
  it('unpacks streams that follow each other', () => {
    const packed = fixture('vmlinux.xz');
    const unpacked = Buffer.from(unpackXz(Buffer.concat([packed, packed]), 2 * VMLINUX.length));
    expect(unpacked.equals(Buffer.concat([VMLINUX, VMLINUX]))).toBe(true);
  });

  it('makes the absolute target of a call relative again', () => {
    const code = Uint8Array.of(0x90, 0xe8, 0x10, 0x01, 0, 0, 0x90);
    undoX86Filter(code);
    expect([...code]).toEqual([0x90, 0xe8, 0x0a, 0x01, 0, 0, 0x90]);
    undoX86Filter(code, 0x100);
    expect([...code]).toEqual([0x90, 0xe8, 0x04, 0x00, 0, 0, 0x90]);
  });
});

describe('CRC-32', () => {
  it('has the check value of its definition', () => {
    expect(crc32(new TextEncoder().encode('123456789'))).toBe(0xcbf4_3926);
  });
});
