/**
 * Compares the x87 with this machine's processor, and records vectors on it. Needs x86-64 Linux, gcc and nasm.
 * npx tsc -p tests/oracle/x87 && node .cache/oracle-x87/tests/oracle/x87/run.js …
 *   sweep [cases per operation] [seed] [operations …]: generates cases and compares; SHOWN is how many differences to show
 *   record: writes vectors.gz
 *   check: runs the file's cases again and compares with what it says
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Case, describeCase, differences, type OperationName, runCase } from './case.ts';
import { generateCase, OPERATION_NAMES, Random } from './generate.ts';
import { NativeX87 } from './native.ts';
import { CONTROL } from './undefined.ts';
import { decodeVectors, encodeVectors } from './vector-file.ts';

const SOURCE = resolve('tests/oracle/x87');
const VECTORS = resolve(SOURCE, 'vectors.gz');
const SHOWN = Number(process.env.SHOWN ?? 5);

/** How many vectors of an operation are worth their bytes: few where there is little to get wrong. */
function recordedCases(operation: OperationName): number {
  if (/^(fld(1|l2t|l2e|pi|lg2|ln2|z)|fnop|fneni|fwait|emms|f(inc|dec)stp|ffreep?_sti|fcmov.*|f(chs|abs))$/.test(operation))
    return 32;
  if (CONTROL.test(operation)) return 32;
  if (/^(fadd|fsub|fmul|fdiv|fsqrt|fscale|fprem1?|frndint|fst_m.*|fld_m.*)/.test(operation)) return 210;
  return 125;
}

const SEED = 7919;

function casesOf(operation: OperationName, count: number, seed: number): Case[] {
  const random = new Random(seed * SEED + OPERATION_NAMES.indexOf(operation) + 1);
  return Array.from({ length: count }, () => generateCase(random, operation));
}

function sweep(native: NativeX87, count: number, seed: number, wanted: string[]): number {
  let failures = 0;
  let total = 0;
  for (const operation of OPERATION_NAMES) {
    if (!native.names.includes(operation) || (wanted.length > 0 && !wanted.includes(operation))) continue;
    const cases = casesOf(operation, count, seed);
    const aliases = native.names.filter((name) => name.startsWith(`alias:${operation}:`));
    for (const name of [operation, ...aliases]) {
      const outcomes = native.run(cases, () => name);
      let failed = 0;
      for (const [n, c] of cases.entries()) {
        const found = differences(c, outcomes[n], runCase(c));
        if (found.length > 0 && failed++ < SHOWN) console.log(`${name} ${describeCase(c)}\n    ${found.join('\n    ')}`);
      }
      total += cases.length;
      failures += failed;
      if (failed > 0) console.log(`${name}: ${failed} of ${cases.length} differ`);
    }
  }
  console.log(`${total} cases, ${failures} differ`);
  return failures;
}

function processorName(): string {
  return /^model name\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'latin1'))?.[1] ?? 'unknown';
}

function record(native: NativeX87): void {
  const cases = OPERATION_NAMES.filter((name) => native.names.includes(name)).flatMap((name) =>
    casesOf(name, recordedCases(name), 1),
  );
  const outcomes = native.run(cases);
  const file = encodeVectors({ processor: processorName(), vectors: cases.map((c, n) => ({ case: c, expected: outcomes[n] })) });
  writeFileSync(VECTORS, file);
  console.log(`${cases.length} vectors, ${file.length} bytes`);
}

function check(native: NativeX87): number {
  const { processor, vectors } = decodeVectors(readFileSync(VECTORS));
  const outcomes = native.run(vectors.map((vector) => vector.case));
  let failures = 0;
  for (const [n, { case: c, expected }] of vectors.entries()) {
    const found = differences(c, expected, outcomes[n]);
    if (found.length > 0 && failures++ < SHOWN) console.log(`${describeCase(c)}\n    ${found.join('\n    ')}`);
  }
  console.log(`${vectors.length} vectors of ${processor}, ${failures} different on ${processorName()}`);
  return failures;
}

function main(args: string[]): number {
  const [command, count = '1000', seed = '1', ...operations] = args;
  const native = () => new NativeX87(SOURCE, resolve('.cache/oracle-x87/native'));
  switch (command) {
    case 'sweep':
      return sweep(native(), Number(count), Number(seed), operations) === 0 ? 0 : 1;
    case 'record':
      record(native());
      return 0;
    case 'check':
      return check(native()) === 0 ? 0 : 1;
    default:
      console.error('usage: run.js sweep [cases per operation] [seed] [operations …] | record | check');
      return 2;
  }
}

process.exitCode = main(process.argv.slice(2));
