/** LZ4's legacy frame, which kernels are packed in: a magic number, then independent blocks behind their sizes, to the end. */

export const LZ4_LEGACY_MAGIC = 0x184c_2102;
const MIN_MATCH = 4;

/** Decodes one block from `input[from, to)` to `output` at `position`; returns the position after it. */
function decodeBlock(input: Uint8Array, from: number, to: number, output: Uint8Array, position: number): number {
  const blockStart = position;
  let at = from;
  const longLength = (nibble: number): number => {
    let length = nibble;
    if (nibble === 15) {
      let more: number;
      do {
        if (at >= to) throw new Error('a length runs past its block');
        more = input[at++];
        length += more;
      } while (more === 255);
    }
    return length;
  };
  while (at < to) {
    const token = input[at++];
    const literals = longLength(token >> 4);
    if (at + literals > to || position + literals > output.length) throw new Error('literals run past their block');
    output.set(input.subarray(at, at + literals), position);
    at += literals;
    position += literals;
    if (at === to) return position; // the last sequence has no match
    if (at + 2 > to) throw new Error('a block ends inside a match');
    const distance = input[at] | (input[at + 1] << 8);
    at += 2;
    const length = longLength(token & 15) + MIN_MATCH;
    const source = position - distance;
    if (distance === 0 || source < blockStart) throw new Error('a match starts before its block');
    if (position + length > output.length) throw new Error('more data than the kernel says');
    if (distance >= length) output.copyWithin(position, source, source + length);
    else for (let i = 0; i < length; i++) output[position + i] = output[source + i];
    position += length;
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
