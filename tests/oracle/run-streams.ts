/** `npm run oracle:streams -- --count 100000 --seed 1`: compares random code with this machine's processor. Exits with 1 where it differs. */

import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { buildHarness, describeMachine } from './native.ts';
import { compareStreams } from './streams.ts';

const MOST_REPORTS = 10;

function main(): number {
  const { values } = parseArgs({
    options: { count: { type: 'string', default: '20000' }, seed: { type: 'string', default: '1' }, from: { type: 'string', default: '0' } },
  });
  const machine = describeMachine();
  if (typeof machine === 'string') {
    console.error(`oracle: ${machine}`);
    return 2;
  }
  const harness = buildHarness(resolve('tests/oracle/harness.c'), resolve('.cache/oracle'));
  const seed = Number(values.seed);
  const { streams, faults, leftOut, different } = compareStreams(harness, machine, { seed, from: Number(values.from), count: Number(values.count) });
  for (const lines of different.slice(0, MOST_REPORTS)) console.log(lines.join('\n'));
  console.log(`${streams} streams on ${machine.model}, seed ${seed}: ${faults} ended in a fault, ${leftOut} left out; ${different.length} outcomes differ`);
  return different.length ? 1 : 0;
}

process.exitCode = main();
