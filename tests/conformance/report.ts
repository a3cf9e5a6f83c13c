/**
 * `npm run conformance`: replays every vector on the engine and says, for each file, how many agree with the processor; then
 * which forms of the engine's definitions have vectors. `--forms` lists all forms with their number of vectors; names of
 * files choose some.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { formatCoverage, measureCoverage } from './coverage.ts';
import { EngineTarget } from './engine-target.ts';
import { EXACT, formatSummary, replay } from './replay.ts';

const VECTORS = resolve('tests/conformance/vectors');

function main(args: string[]): number {
  const known = readdirSync(VECTORS)
    .filter((name) => name.endsWith('.vec'))
    .map((name) => name.slice(0, -4));
  const wanted = args.filter((arg) => !arg.startsWith('-'));
  if (args.some((arg) => arg.startsWith('-') && arg !== '--forms') || wanted.some((name) => !known.includes(name))) {
    console.error(`usage: npm run conformance -- [--forms] [file …]\nfiles: ${known.join(', ')}`);
    return 2;
  }
  const chosen = wanted.length ? wanted : known;
  const files = chosen.map((name) => readFileSync(join(VECTORS, `${name}.vec`)));
  const target = new EngineTarget();
  const total = { vectors: 0, mismatches: 0 };
  files.forEach((file, i) => {
    const summary = replay(file, target, EXACT);
    total.vectors += summary.vectors;
    total.mismatches += summary.mismatchCount;
    const counts = [summary.vectors, summary.forms.size, summary.mismatchCount].map((count) => String(count).padStart(6));
    console.log(`${chosen[i].padEnd(16)} ${counts[0]} vectors ${counts[1]} forms ${counts[2]} mismatches`);
    if (summary.mismatchCount) console.log(formatSummary(summary));
  });
  console.log(`${total.vectors} vectors replayed, ${total.mismatches} mismatches`);
  const coverage = measureCoverage(files);
  if (args.includes('--forms'))
    for (const [form, count] of [...coverage.covered].sort()) console.log(`${String(count).padStart(6)} ${form}`);
  if (chosen.length === known.length) console.log(formatCoverage(coverage));
  return total.mismatches ? 1 : 0;
}

process.exitCode = main(process.argv.slice(2));
