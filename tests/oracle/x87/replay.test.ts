import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { X87_OPERATIONS } from '../../../src/cpu/x87/x87.ts';
import { describeCase, differences, runCase } from './case.ts';
import { decodeVectors, type Vector } from './vector-file.ts';

const { processor, vectors } = decodeVectors(readFileSync(new URL('vectors.gz', import.meta.url)));

const byOperation = new Map<string, Vector[]>();
for (const vector of vectors) {
  const { operation } = vector.case;
  byOperation.set(operation, [...(byOperation.get(operation) ?? []), vector]);
}

/** Real mode's formats cannot be recorded by a process in 64-bit mode. */
const UNRECORDED = /_real(16|32)$/;

describe(`x87 operations recorded on ${processor}`, () => {
  it('are all there are', () => {
    expect(Object.keys(X87_OPERATIONS).filter((name) => !byOperation.has(name) && !UNRECORDED.test(name))).toEqual([]);
  });

  it.each([...byOperation.keys()])('%s leaves the same registers, status, tags, flags and memory', (operation) => {
    const failures = (byOperation.get(operation) ?? []).flatMap(({ case: c, expected }) => {
      const found = differences(c, expected, runCase(c));
      return found.length > 0 ? [`${describeCase(c)}: ${found.join('; ')}`] : [];
    });
    expect(failures).toEqual([]);
  });
});
