import { expect, it } from 'vitest';
import {
  ES7000_PSAI_BASE,
  Es7000Psai,
  es7000ParameterBlock,
  OEM_ENTRIES_OFFSET,
  OEM_ENTRY_PSAI,
  OEM_PSAI_ADDRESS,
} from './es7000-mip.ts';

it('starts the processor whose APIC ID is written with the start bit, at the page written, and is not busy', () => {
  const started: [number, number][] = [];
  const psai = new Es7000Psai((...processor) => started.push(processor));
  psai.write(0, 4, 0x0108_0012);
  psai.write(0, 4, 0x0008_0013); // no start bit
  psai.write(4, 4, 0x0108_0014); // upper half
  psai.write(0, 1, 0x15);
  expect(started).toEqual([[0x12, 0x08]]);
  expect(psai.read()).toBe(0);
});

it('is named in the parameter block, which is walked by the entries’ lengths', () => {
  const block = es7000ParameterBlock();
  const view = new DataView(block.buffer);
  const found: number[] = [];
  for (let at = OEM_ENTRIES_OFFSET; at < block.length; at += block[at + 1]) {
    expect(block[at + 1]).toBeGreaterThan(0);
    if (block[at] === OEM_ENTRY_PSAI) found.push(view.getUint32(at + OEM_PSAI_ADDRESS, true));
  }
  expect(found).toEqual([ES7000_PSAI_BASE]);
});
