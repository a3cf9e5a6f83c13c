/**
 * `npm run conformance`: replays every vector on the engine, interpreted and compiled (`--jit off` and `--jit force`: one of them), and says, for each
 * file, how many agree with the processor; then which forms of the engine's definitions have vectors. `--forms` lists all forms with their number of
 * vectors; names of files choose some.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { JitReport } from '../../src/engine/jit/jit-statistics.ts';
import { formatCoverage, measureCoverage } from './coverage.ts';
import { EngineTarget } from './engine-target.ts';
import { EXACT, formatSummary, replay } from './replay.ts';

const VECTORS = resolve('tests/conformance/vectors');

interface Mode {
  name: string;
  target: EngineTarget;
  mismatches: number;
}

function modes(jit: string): Mode[] {
  const interpreted = { name: 'interpreted', target: new EngineTarget(), mismatches: 0 };
  // It counts what compiled code does; the clock it asks for is not what is wanted.
  const compiled = { name: 'compiled', target: new EngineTarget(true, () => 0), mismatches: 0 };
  return [...(jit === 'force' ? [] : [interpreted]), ...(jit === 'off' ? [] : [compiled])];
}

function compiledCode(target: EngineTarget, vectors: number): string {
  const { run, instructions, wasmBytes } = target.jitReport as JitReport;
  if (!run) throw new Error('the target does not count');
  const retired = run.compiledInstructions;
  const left = run.exits['slow path'] + run.exits.uncompiled;
  return `${instructions} instructions compiled to ${(wasmBytes / 1e6).toFixed(0)} MB: compiled code ran ${retired} vectors, left ${left} to the interpreter midway (faults, what is rare); ${vectors - retired - left} are of instructions it leaves to it altogether`;
}

function main(args: string[]): number {
  const known = readdirSync(VECTORS)
    .filter((name) => name.endsWith('.vec'))
    .map((name) => name.slice(0, -4));
  const { values, positionals: wanted } = parseArgs({ args, options: { jit: { type: 'string', default: 'both' }, forms: { type: 'boolean' } }, allowPositionals: true, strict: false });
  const jit = String(values.jit);
  const isUnknown = Object.keys(values).some((name) => name !== 'jit' && name !== 'forms');
  if (isUnknown || !['both', 'off', 'force'].includes(jit) || wanted.some((name) => !known.includes(name))) {
    console.error(`usage: npm run conformance -- [--jit both|off|force] [--forms] [file …]\nfiles: ${known.join(', ')}`);
    return 2;
  }
  const chosen = wanted.length ? wanted : known;
  const files = chosen.map((name) => readFileSync(join(VECTORS, `${name}.vec`)));
  const running = modes(jit);
  let vectors = 0;
  const column = (value: number): string => String(value).padStart(6);
  files.forEach((file, i) => {
    const summaries = running.map(({ target }) => replay(file, target, EXACT));
    vectors += summaries[0].vectors;
    summaries.forEach(({ mismatchCount }, j) => (running[j].mismatches += mismatchCount));
    const mismatches = summaries.map(({ mismatchCount }, j) => `${column(mismatchCount)} mismatches ${running[j].name}`).join('');
    console.log(`${chosen[i].padEnd(16)} ${column(summaries[0].vectors)} vectors ${column(summaries[0].forms.size)} forms ${mismatches}`);
    for (const summary of summaries) if (summary.mismatchCount) console.log(formatSummary(summary));
  });
  for (const { name, mismatches } of running) console.log(`${vectors} vectors replayed ${name}, ${mismatches} mismatches`);
  for (const { target } of running) if (target.jitReport) console.log(compiledCode(target, vectors));
  const coverage = measureCoverage(files);
  if (values.forms) for (const [form, count] of [...coverage.covered].sort()) console.log(`${String(count).padStart(6)} ${form}`);
  if (chosen.length === known.length) console.log(formatCoverage(coverage));
  return running.some(({ mismatches }) => mismatches > 0) ? 1 : 0;
}

process.exitCode = main(process.argv.slice(2));
