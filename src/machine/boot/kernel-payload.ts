/**
 * Unpacks a bzImage's payload on the host, so that the vmlinux in it can be entered by PVH. What the build packed is followed
 * by the unpacked size in four bytes (gzip has them itself). Source: Linux's arch/x86/boot/compressed and scripts/Makefile.lib.
 * Not supported: bzip2 and LZO; kernels packed by them boot by their own stub.
 */
import { gunzipSync } from 'fflate';
import { Decompress } from 'fzstd';
import { BootError } from './boot-error.ts';
import type { BzImage } from './bzimage.ts';
import { crc32 } from './crc32.ts';
import { isElf } from './elf.ts';
import { unpackLz4 } from './lz4.ts';
import { unpackLzma } from './lzma.ts';
import { unpackXz, XZ_MAGIC } from './xz.ts';

export type PayloadFormat = 'none' | 'gzip' | 'bzip2' | 'lzma' | 'xz' | 'lzo' | 'lz4' | 'zstd';

const MAGIC: Record<PayloadFormat, readonly number[]> = {
  none: [0x7f, 0x45, 0x4c, 0x46],
  gzip: [0x1f, 0x8b],
  bzip2: [0x42, 0x5a, 0x68],
  lzma: [0x5d, 0x00, 0x00],
  xz: XZ_MAGIC,
  lzo: [0x89, 0x4c, 0x5a, 0x4f],
  lz4: [0x02, 0x21, 0x4c, 0x18],
  zstd: [0x28, 0xb5, 0x2f, 0xfd],
};
const SIZE_BYTES = 4;
/** No kernel is larger: a corrupt size must not take the host's memory. */
const MAX_UNPACKED_BYTES = 2 ** 29;
/** What zstd's highest level needs, which kernels are packed at: the unpacker takes as much as a frame asks for. */
const MAX_ZSTD_WINDOW_BYTES = 2 ** 27;

export function payloadFormat(payload: Uint8Array): PayloadFormat | undefined {
  const formats = Object.keys(MAGIC) as PayloadFormat[];
  return formats.find((format) => MAGIC[format].every((byte, index) => payload[index] === byte));
}

/** The vmlinux (ELF, with its relocations behind it) in a bzImage. Throws a BootError where there is none or it is corrupt. */
export function extractVmlinux(image: Pick<BzImage, 'payload'>): Uint8Array {
  const { payload } = image;
  if (!payload || payload.length <= SIZE_BYTES) throw new BootError('the kernel does not say where its packed vmlinux lies');
  const format = payloadFormat(payload);
  if (!format) throw new BootError('the kernel is packed in a way that is not known: boot it by --boot bzimage');
  const vmlinux = unpack(format, payload);
  if (!isElf(vmlinux)) throw new BootError('the kernel is corrupt: what it unpacks to is not an ELF file');
  return vmlinux;
}

function unpack(format: PayloadFormat, payload: Uint8Array): Uint8Array {
  const packed = payload.subarray(0, payload.length - SIZE_BYTES);
  const size = new DataView(payload.buffer, payload.byteOffset, payload.byteLength).getUint32(packed.length, true);
  if (format === 'none') return payload;
  if (format === 'bzip2' || format === 'lzo') throw new BootError(`kernels packed with ${format} boot by --boot bzimage only`);
  if (size > MAX_UNPACKED_BYTES)
    throw new BootError(`the kernel's ${format} payload is corrupt: it says it unpacks to ${size} bytes`);
  try {
    switch (format) {
      case 'gzip':
        return unpackGzip(payload, size);
      case 'zstd':
        return unpackZstd(packed, size);
      case 'lzma':
        return unpackLzma(packed, size);
      case 'xz':
        return unpackXz(packed, size);
      case 'lz4':
        return unpackLz4(packed, size);
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new BootError(`the kernel's ${format} payload is corrupt: ${reason}`, { cause: error });
  }
}

function unpackGzip(payload: Uint8Array, size: number): Uint8Array {
  const vmlinux = gunzipSync(payload, { out: new Uint8Array(size) });
  const expected = new DataView(payload.buffer, payload.byteOffset, payload.byteLength).getUint32(payload.length - 8, true);
  if (vmlinux.length !== size || crc32(vmlinux) !== expected) throw new Error('its checksum is wrong');
  return vmlinux;
}

/** The memory that a frame's header asks for; RFC 8878 3.1.1.1. A frame of a single segment is its own window. */
function zstdWindowBytes(packed: Uint8Array, size: number): number {
  const SINGLE_SEGMENT = 1 << 5;
  const [descriptor, window] = packed.subarray(4, 6);
  if (descriptor & SINGLE_SEGMENT) return zstdContentBytes(packed) === size ? 0 : Number.POSITIVE_INFINITY;
  const base = 2 ** (10 + (window >> 3));
  return base + (base / 8) * (window & 7);
}

/** The size of a single-segment frame's content, in 1, 2, 4 or 8 bytes behind the descriptor and the dictionary's number. */
function zstdContentBytes(packed: Uint8Array): number {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  const descriptor = packed[4];
  const at = 5 + [0, 1, 2, 4][descriptor & 3];
  switch (descriptor >> 6) {
    case 0: return view.getUint8(at);
    case 1: return view.getUint16(at, true) + 256;
    case 2: return view.getUint32(at, true);
    default: return Number(view.getBigUint64(at, true));
  }
}

/** By streaming, so that a frame which unpacks to more than it should is stopped. */
function unpackZstd(packed: Uint8Array, size: number): Uint8Array {
  if (zstdWindowBytes(packed, size) > MAX_ZSTD_WINDOW_BYTES) throw new Error('its frame asks for more memory than a kernel needs');
  const vmlinux = new Uint8Array(size);
  let position = 0;
  const decompressor = new Decompress((chunk) => {
    if (position + chunk.length > size) throw new Error('more data than the kernel says');
    vmlinux.set(chunk, position);
    position += chunk.length;
  });
  decompressor.push(packed, true);
  if (position !== size) throw new Error(`it holds ${position} bytes instead of ${size}`);
  return vmlinux;
}
