/** What fuzzing found once, found no more; and a few seconds of fuzzing in every mode. `npm run fuzz` does more of it. */

import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { restore, type StoredCase } from './stream-case.ts';
import { StreamFuzzer } from './streams.ts';
import { MODES } from './stream-world.ts';

const CORPUS = new URL('corpus/', import.meta.url);
const STREAMS = 400;
const stored = readdirSync(CORPUS).map((file): [string, StoredCase] => [file, JSON.parse(readFileSync(new URL(file, CORPUS), 'utf8'))]);

describe.each(MODES)('streams in mode %s', (mode) => {
  const fuzzer = new StreamFuzzer(mode, 7, 'steps');

  it('of the corpus', () => {
    for (const [file, one] of stored) if (one.mode === mode) expect(fuzzer.outcome(restore(one), true), file).toBeUndefined();
  });

  it('of the corpus, compiled', () => {
    const compiled = new StreamFuzzer(mode, 7, 'jit');
    for (const [file, one] of stored) if (one.mode === mode && file.endsWith('jit.json')) expect(compiled.outcome(restore(one), true), file).toBeUndefined();
  });

  it('drawn at random leave a state that a processor can be in, the same by blocks and by single steps', () => {
    for (let index = 0; index < STREAMS; index++) expect(fuzzer.run(index, true)).toBeUndefined();
    // They have got somewhere.
    expect(fuzzer.instructions).toBeGreaterThan(20 * STREAMS);
    expect(fuzzer.ends.halted).toBeGreaterThan(STREAMS / 4);
  });
});
