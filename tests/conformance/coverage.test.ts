import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { formatCoverage, measureCoverage } from './coverage.ts';
import { CODE_START } from './machine-state.ts';
import { encodeVectors } from './vector-file.ts';

const directory = new URL('vectors/', import.meta.url);
const names = readdirSync(directory).filter((name) => name.endsWith('.vec'));
const files = names.map((name) => readFileSync(new URL(name, directory)));

describe('coverage of the definitions', () => {
  it('is complete but for what user mode cannot record', () => {
    const coverage = measureCoverage(files);
    if (coverage.missing.length) expect.fail(formatCoverage(coverage));
    expect(coverage.covered.size).toBeGreaterThan(2000);
  });

  it('counts a vector for the form that its bytes are, and for no other', () => {
    const code = Uint8Array.from([0xf0, 0x48, 0x01, 0x03]); // LOCK ADD [RBX],RAX
    const cases = [{ code, codeOffset: CODE_START, step: false, overrides: [] }];
    const recordings = [{ fault: undefined, registers: new BigUint64Array(72), memory: [] }];
    const { covered, missing } = measureCoverage([encodeVectors([{ form: 'any name', profile: 'integer', cases, recordings }])]);
    expect([...covered]).toEqual([['LOCK ADD [01 Ev Gv] 64 mem', 1]]);
    expect(missing).toContain('ADD [01 Ev Gv] 64 mem');
    expect(missing).toContain('LOCK ADD [01 Ev Gv] 32 mem');
    expect(missing).not.toContain('LOCK ADD [01 Ev Gv] 64 mem');
  });
});
