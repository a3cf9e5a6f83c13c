/**
 * Compares the implementation with this machine's processor.
 * `node run.js sweep [cases per operation] [seed] [operations …]` generates cases and compares.
 */

import { resolve } from 'node:path';
import { describeCase, differences, runCase } from './case.ts';
import { generateCase, OPERATION_NAMES, Random } from './generate.ts';
import { NativeX87 } from './native.ts';

const SHOWN = 5;

function sweep(native: NativeX87, count: number, seed: number, wanted: string[]): number {
  let failures = 0;
  let total = 0;
  for (const operation of OPERATION_NAMES) {
    if (!native.names.includes(operation) || (wanted.length > 0 && !wanted.includes(operation))) continue;
    const random = new Random(seed * 7919 + OPERATION_NAMES.indexOf(operation) + 1);
    const cases = Array.from({ length: count }, () => generateCase(random, operation));
    const aliases = native.names.filter((name) => name.startsWith(`alias:${operation}:`));
    for (const name of [operation, ...aliases]) {
      const outcomes = native.run(cases, () => name);
      let failed = 0;
      for (const [n, c] of cases.entries()) {
        const found = differences(c, outcomes[n], runCase(c));
        if (found.length > 0 && failed++ < SHOWN) console.log(`${name === operation ? '' : name} ${describeCase(c)}\n    ${found.join('\n    ')}`);
      }
      total += cases.length;
      failures += failed;
      if (failed > 0) console.log(`${name}: ${failed} of ${cases.length} differ`);
    }
  }
  console.log(`${total} cases, ${failures} differ`);
  return failures;
}

function main(args: string[]): number {
  const native = new NativeX87(resolve('tests/oracle/x87'), resolve('.cache/oracle-x87/native'));
  const [command, count = '1000', seed = '1', ...operations] = args;
  if (command === 'sweep') return sweep(native, Number(count), Number(seed), operations) === 0 ? 0 : 1;
  console.error('usage: run.js sweep [cases per operation] [seed] [operations …]');
  return 2;
}

process.exitCode = main(process.argv.slice(2));
