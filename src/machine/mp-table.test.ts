import { expect, it } from 'vitest';
import { buildMpTable, MP_POINTER, type MpDescription } from './mp-table.ts';

const description: MpDescription = { oemId: 'IBM NUMA', productId: 'NUMA-Q', processors: [0, 1, 2, 3, 0, 1], signature: 0x686, features: 0x383_fbff };
const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0);
const text = (bytes: Uint8Array, at: number, length: number): string => Buffer.from(bytes.subarray(at, at + length)).toString();

function parse(bytes: Uint8Array) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const at = view.getUint32(4, true) - MP_POINTER;
  const table = bytes.subarray(at, at + view.getUint16(at + 4, true));
  const sizes: Record<number, number> = { 0: 20 };
  const entries: number[][] = [];
  for (let offset = 44; offset < table.length; ) {
    const size = sizes[table[offset]] ?? 8;
    entries.push([...table.subarray(offset, offset + size)]);
    offset += size;
  }
  return { table, entries, count: view.getUint16(at + 34, true), oem: view.getUint32(at + 28, true) - MP_POINTER, oemBytes: view.getUint16(at + 32, true) };
}

it('is found by its pointer, sums up to 0, and has as many entries as it says', () => {
  const bytes = buildMpTable(description);
  expect([text(bytes, 0, 4), sum(bytes.subarray(0, 16))]).toEqual(['_MP_', 0]);
  const { table, entries, count } = parse(bytes);
  expect([text(table, 0, 4), text(table, 8, 8), text(table, 16, 12), sum(table)]).toEqual(['PCMP', 'IBM NUMA', 'NUMA-Q      ', 0]);
  expect(entries).toHaveLength(count);
  const processors = entries.filter(([type]) => type === 0);
  expect(processors.map(([, apicId, , flags]) => [apicId, flags])).toEqual([[0, 3], [1, 1], [2, 1], [3, 1], [0, 1], [1, 1]]);
  // The PIT is on pin 2, the cascade on none, all others on their own.
  const pins = entries.filter(([type]) => type === 3).map((entry) => [entry[5], entry[7]]);
  expect(pins.slice(0, 3)).toEqual([[0, 2], [1, 1], [3, 3]]);
  expect(pins).toHaveLength(15);
});

it('says by translation records to which quads processors belong', () => {
  const bytes = buildMpTable({ ...description, quads: [0, 0, 0, 0, 1, 1] });
  const { oem, oemBytes } = parse(bytes);
  const table = bytes.subarray(oem, oem + oemBytes);
  expect([text(table, 0, 4), sum(table), table.length]).toEqual(['_OEM', 0, 16 + 8 * 8]);
  expect([0, 1, 2, 3, 4, 5].map((index) => table[16 + 8 * index + 3])).toEqual([0, 0, 0, 0, 1, 1]);
  expect(parse(buildMpTable(description)).oem).toBe(-MP_POINTER);
});
