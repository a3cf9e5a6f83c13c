/** Replays the vectors of a real processor on every target there is. */

import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { FAMILIES } from '../oracle/forms.ts';
import { EngineTarget } from './engine-target.ts';
import { type ComparisonPolicy, type ConformanceTarget, EXACT, formatSummary, replay } from './replay.ts';
import { decodeVectors } from './vector-file.ts';

const directory = new URL('vectors/', import.meta.url);
const files = readdirSync(directory).filter((name) => name.endsWith('.vec')).map((name) => name.slice(0, -4));
const load = (file: string): Uint8Array => readFileSync(new URL(`${file}.vec`, directory));

/** Engines that run the vectors, each with what of them it is held to. A family that an engine lacks is left out by name. */
const targets: { target: () => ConformanceTarget; name: string; policy: ComparisonPolicy; without?: string[] }[] = [
  { name: 'the interpreter', target: () => (interpreter ??= new EngineTarget()), policy: EXACT },
  { name: 'compiled code', target: () => (compiler ??= new EngineTarget(true)), policy: EXACT },
];
let interpreter: EngineTarget | undefined;
let compiler: EngineTarget | undefined;

describe('recorded vectors', () => {
  it('exist for every form that the oracle knows, at least 300,000 of them', () => {
    const recorded = new Set<string>();
    let count = 0;
    for (const file of files) {
      for (const { form } of decodeVectors(load(file))) {
        recorded.add(form);
        count++;
      }
    }
    const known = FAMILIES.flatMap(({ forms, literals }) => [...forms.map(({ id }) => id), ...literals.map(({ form }) => form)]);
    expect(known.filter((form) => !recorded.has(form))).toEqual([]);
    expect(new Set(known).size).toBe(known.length);
    expect(count).toBeGreaterThanOrEqual(300_000);
  });
});

for (const { target, name, policy, without = [] } of targets) {
  describe(`${name} does what the processor does`, () => {
    it.each(files.filter((file) => !without.includes(file)))('%s', (file) => {
      const summary = replay(load(file), target(), policy);
      if (summary.mismatchCount) expect.fail(formatSummary(summary));
      expect(summary.vectors).toBeGreaterThan(0);
    });
  });
}

describe('the compiled target', () => {
  it('runs compiled code, and the interpreter where that cannot go on', () => {
    const counting = new EngineTarget(true, () => 0);
    const { vectors } = replay(load('bit-manipulation'), counting, EXACT);
    const run = counting.jitReport?.run;
    expect(run?.compiledInstructions).toBeGreaterThan(0.75 * vectors);
    expect((run?.compiledInstructions ?? 0) + (run?.exits['slow path'] ?? 0)).toBeGreaterThan(0.99 * vectors);
  });
});

describe('the comparison', () => {
  it('finds nothing in an outcome that is the expected one', () => {
    const echo: ConformanceTarget = { name: 'echo', run: ({ expected }) => expected };
    expect(replay(load('prefix'), echo, EXACT).mismatchCount).toBe(0);
  });
});
