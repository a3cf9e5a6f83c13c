/** LZ4's legacy frame, which kernels are packed in: a magic number, then independent blocks behind their sizes, to the end. */

export const LZ4_LEGACY_MAGIC = 0x184c_2102;
const MIN_MATCH = 4;

/** Up to so many bytes are copied one by one: a call costs more. Most literals and matches are shorter. */
const SHORT = 32;

/** What the bytes from `input[at]` on add to a length of 15: all of them up to the first that is not 255. */
function longLength(input: Uint8Array, at: number, to: number): number {
  let length = 0;
  for (let i = at; i < to; i++) {
    length += input[i];
    if (input[i] !== 255) return length;
  }
  throw new Error('a length runs past its block');
}

/** Decodes one block from `input[from, to)` to `output` at `position`; returns the position after it. */
function decodeBlock(input: Uint8Array, from: number, to: number, output: Uint8Array, position: number): number {
  const blockStart = position;
  let at = from;
  let end = position;
  while (at < to) {
    const token = input[at++];
    let literals = token >> 4;
    if (literals === 15) {
      const more = longLength(input, at, to);
      literals += more;
      at += Math.floor(more / 255) + 1;
    }
    if (at + literals > to || end + literals > output.length) throw new Error('literals run past their block');
    if (literals > SHORT) output.set(input.subarray(at, at + literals), end);
    else for (let i = 0; i < literals; i++) output[end + i] = input[at + i];
    at += literals;
    end += literals;
    if (at === to) return end; // the last sequence has no match
    if (at + 2 > to) throw new Error('a block ends inside a match');
    const distance = input[at] | (input[at + 1] << 8);
    at += 2;
    let length = (token & 15) + MIN_MATCH;
    if ((token & 15) === 15) {
      const more = longLength(input, at, to);
      length += more;
      at += Math.floor(more / 255) + 1;
    }
    const source = end - distance;
    if (distance === 0 || source < blockStart) throw new Error('a match starts before its block');
    if (end + length > output.length) throw new Error('more data than the kernel says');
    if (length > SHORT && distance >= length) output.copyWithin(end, source, source + length);
    else for (let i = 0; i < length; i++) output[end + i] = output[source + i];
    end += length;
  }
  throw new Error('a block ends without literals');
}

/** Unpacks a whole legacy frame, `unpackedBytes` long. Throws an Error where it is corrupt. */
export function unpackLz4(input: Uint8Array, unpackedBytes: number): Uint8Array {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  const output = new Uint8Array(unpackedBytes);
  let position = 0;
  let at = 4;
  while (at < input.length) {
    if (at + 4 > input.length) throw new Error('it ends inside a block size');
    const size = view.getUint32(at, true);
    at += 4;
    if (size === LZ4_LEGACY_MAGIC) continue; // frames may follow each other
    if (size === 0 || at + size > input.length) throw new Error(`a block of ${size} bytes runs past the end`);
    position = decodeBlock(input, at, at + size, output, position);
    at += size;
  }
  if (position !== unpackedBytes) throw new Error(`it holds ${position} bytes instead of ${unpackedBytes}`);
  return output;
}
