/**
 * The file of recorded vectors: gzip of a header (its size as u32, then JSON: the processor, and the operations' names in
 * the order that rows refer to them by) and of rows, each a case and the processor's outcome as they are in memory.
 */

import { gunzipSync, gzipSync } from 'node:zlib';
import { type Case, IMAGE_BYTES, MEMORY_BYTES, type OperationName, type Outcome } from './case.ts';

export interface Vector {
  case: Case;
  expected: Outcome;
}

export interface VectorFile {
  processor: string;
  vectors: Vector[];
}

interface Header {
  processor: string;
  operations: OperationName[];
}

/** Memory is stored up to where it only repeats its last byte. */
function significantBytes(memory: Uint8Array): number {
  let size = memory.length;
  while (size > 1 && memory[size - 2] === memory[size - 1]) size--;
  return size;
}

export function encodeVectors(file: VectorFile): Uint8Array {
  const operations = [...new Set(file.vectors.map((vector) => vector.case.operation))];
  const header = Buffer.from(JSON.stringify({ processor: file.processor, operations } satisfies Header));
  const parts: Uint8Array[] = [new Uint8Array(Uint32Array.of(header.length).buffer), header];
  const word = (value: number) => void parts.push(Uint8Array.of(value, value >> 8));
  const memory = (bytes: Uint8Array) => {
    const size = significantBytes(bytes);
    word(size);
    parts.push(bytes.subarray(0, size));
  };
  for (const { case: c, expected } of file.vectors) {
    parts.push(Uint8Array.of(operations.indexOf(c.operation), c.i));
    word(c.rflags);
    parts.push(c.image);
    memory(c.memory);
    parts.push(Uint8Array.of(Number(expected.pending)));
    word(expected.rflags);
    parts.push(expected.image);
    // Nothing stands for memory that is as it was.
    if (Buffer.compare(expected.memory, c.memory) === 0) word(0);
    else memory(expected.memory);
  }
  return gzipSync(Buffer.concat(parts), { level: 9 });
}

export function decodeVectors(file: Uint8Array): VectorFile {
  const data = gunzipSync(file);
  const headerEnd = 4 + data.readUInt32LE(0);
  const { processor, operations } = JSON.parse(data.toString('utf8', 4, headerEnd)) as Header;
  let at = headerEnd;
  const byte = () => data[at++];
  const word = () => byte() | (byte() << 8);
  const take = (size: number) => {
    at += size;
    return new Uint8Array(data.subarray(at - size, at));
  };
  const memory = (before?: Uint8Array) => {
    const stored = take(word());
    if (stored.length === 0 && before) return before;
    const bytes = new Uint8Array(MEMORY_BYTES).fill(stored[stored.length - 1]);
    bytes.set(stored);
    return bytes;
  };
  const vectors: Vector[] = [];
  while (at < data.length) {
    const c: Case = { operation: operations[byte()], i: byte(), rflags: word(), image: take(IMAGE_BYTES), memory: memory() };
    vectors.push({
      case: c,
      expected: { pending: byte() !== 0, rflags: word(), image: take(IMAGE_BYTES), memory: memory(c.memory) },
    });
  }
  return { processor, vectors };
}
