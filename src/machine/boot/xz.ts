/**
 * The .xz container, with LZMA2 and the x86 branch filter: what kernels are packed with ("The .xz File Format" 1.1.0).
 * CRC32s are verified (the only check the kernel's own unpacker knows, so kernels have it); CRC64 and SHA-256 are not.
 */
import { crc32 } from './crc32.ts';
import { decodeLzma2 } from './lzma.ts';

export const XZ_MAGIC: readonly number[] = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00];
const STREAM_HEADER_SIZE = 12;
const FILTER_X86 = 0x04;
const FILTER_LZMA2 = 0x21;
const CHECK_CRC32 = 1;
/** Bytes of a block's check, by its kind. */
const CHECK_SIZE = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64];

class XzReader {
  at = 0;
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u8(): number {
    if (this.at >= this.bytes.length) throw new Error('it is truncated');
    return this.bytes[this.at++];
  }

  u32(): number {
    if (this.at + 4 > this.bytes.length) throw new Error('it is truncated');
    this.at += 4;
    return this.view.getUint32(this.at - 4, true);
  }

  /** A multibyte integer, seven bits a byte. */
  integer(): number {
    let value = 0;
    for (let shift = 0; shift < 49; shift += 7) {
      const byte = this.u8();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new Error('an integer is too large');
  }

  /** Checks the CRC32 that lies here against the bytes since `from`. */
  verify(from: number, what: string): void {
    const expected = crc32(this.bytes.subarray(from, this.at));
    if (this.u32() !== expected) throw new Error(`the checksum of its ${what} is wrong`);
  }
}

/** Reads the filters of a block header: LZMA2 last, before it at most the x86 filter. Returns that one's start offset. */
function readBlockHeader(reader: XzReader): { x86Start: number | undefined } {
  const start = reader.at;
  const end = start + (reader.u8() + 1) * 4 - 4;
  const flags = reader.u8();
  if (flags & 0x40) reader.integer();
  if (flags & 0x80) reader.integer();
  let x86Start: number | undefined;
  const last = flags & 3;
  for (let filter = 0; filter <= last; filter++) {
    const id = reader.integer();
    const propertyBytes = reader.integer();
    if (id === FILTER_X86 && filter < last) x86Start = propertyBytes === 4 ? reader.u32() : 0;
    else if (id === FILTER_LZMA2 && filter === last) reader.at += propertyBytes;
    else throw new Error(`filter 0x${id.toString(16)} is not supported`);
  }
  if (reader.at > end) throw new Error('a block header is too short');
  reader.at = end;
  reader.verify(start, 'block header');
  return { x86Start };
}

const isSignByte = (byte: number): boolean => byte === 0 || byte === 0xff;

/**
 * Undoes the x86 filter, which made the targets of CALL and JMP absolute. An operand is touched only where its top byte is a
 * sign extension and no E8/E9 byte before it makes it doubtful: `pending` has a bit for each of the last three bytes that was
 * one and was not converted, the nearest in bit 0.
 */
export function undoX86Filter(bytes: Uint8Array, startOffset = 0): void {
  const DOUBT_BYTE = [0, 1, 2, 2, 3, 3, 3, 3];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let pending = 0;
  let lastOpcode = -1;
  for (let at = 0; at + 5 <= bytes.length; at++) {
    if ((bytes[at] & 0xfe) !== 0xe8) continue;
    const distance = at - lastOpcode;
    lastOpcode = at;
    pending = distance > 3 ? 0 : (pending << (distance - 1)) & 7;
    const severalBefore = pending === 3 || pending >= 5;
    if (!isSignByte(bytes[at + 4]) || severalBefore || (pending !== 0 && isSignByte(bytes[at + 4 - DOUBT_BYTE[pending]]))) {
      pending = ((pending << 1) | 1) & 0xff;
      continue;
    }
    const next = (startOffset + at + 5) | 0;
    let target = (view.getInt32(at + 1, true) - next) | 0;
    if (pending !== 0) {
      const shift = DOUBT_BYTE[pending] * 8;
      while (isSignByte((target >>> (24 - shift)) & 0xff)) target = ((target ^ (2 ** (32 - shift) - 1)) - next) | 0;
    }
    view.setInt32(at + 1, (target << 7) >> 7, true);
    at += 4;
  }
}

/** Unpacks an .xz file `unpackedBytes` long (one stream or several). Throws an Error where it is corrupt. */
export function unpackXz(input: Uint8Array, unpackedBytes: number): Uint8Array {
  const output = new Uint8Array(unpackedBytes);
  const reader = new XzReader(input);
  let position = 0;
  while (reader.at < input.length) {
    const streamStart = reader.at;
    if (!XZ_MAGIC.every((byte) => reader.u8() === byte)) throw new Error('a stream header is missing');
    const flags = reader.view.getUint16(reader.at, true);
    const check = flags >> 8;
    if ((flags & 0xff) !== 0 || check > 15) throw new Error('its stream flags are unknown');
    reader.at += 2;
    reader.at = streamStart + STREAM_HEADER_SIZE - 4;
    reader.verify(streamStart + XZ_MAGIC.length, 'stream header');
    let blocks = 0;
    for (; input[reader.at] !== 0; blocks++) {
      const { x86Start } = readBlockHeader(reader);
      const dataStart = reader.at;
      const blockStart = position;
      ({ at: reader.at, position } = decodeLzma2(input, dataStart, output, position));
      reader.at += (4 - ((reader.at - dataStart) % 4)) % 4;
      const block = output.subarray(blockStart, position);
      if (x86Start !== undefined) undoX86Filter(block, x86Start);
      if (check === CHECK_CRC32) {
        if (reader.u32() !== crc32(block)) throw new Error('the checksum of its data is wrong');
      } else reader.at += CHECK_SIZE[check];
    }
    readIndex(reader, blocks);
    readFooter(reader, flags);
  }
  if (position !== unpackedBytes) throw new Error(`it holds ${position} bytes instead of ${unpackedBytes}`);
  return output;
}

function readIndex(reader: XzReader, blocks: number): void {
  const start = reader.at;
  reader.u8();
  if (reader.integer() !== blocks) throw new Error('its index counts other blocks');
  for (let field = 0; field < 2 * blocks; field++) reader.integer();
  while ((reader.at - start) % 4 !== 0) reader.u8();
  reader.verify(start, 'index');
}

function readFooter(reader: XzReader, flags: number): void {
  const expected = reader.u32();
  const start = reader.at;
  reader.u32();
  if ((reader.u8() | (reader.u8() << 8)) !== flags) throw new Error('header and footer differ');
  if (crc32(reader.bytes.subarray(start, reader.at)) !== expected) throw new Error('the checksum of its footer is wrong');
  if (reader.u8() !== 0x59 || reader.u8() !== 0x5a) throw new Error('its footer is missing');
}
