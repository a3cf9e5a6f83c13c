/**
 * `npm run oracle`: builds the harness, generates cases, records them on this processor and writes the vector files.
 * `npm run oracle -- --check` records again and compares with the files instead; names of families choose some.
 * `npm run oracle -- --coverage` records nothing: it says which of the engine's forms have no vectors.
 */

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { formatCoverage, measureCoverage } from '../conformance/coverage.ts';
import { compareOutcome, describeMismatch, type Mismatch } from '../conformance/replay.ts';
import { decodeVectors, encodeVectors, type RecordedForm } from '../conformance/vector-file.ts';
import { FAMILIES, type Family } from './forms.ts';
import { generateFamily } from './generate.ts';
import { buildHarness, describeMachine, runNatively } from './native.ts';

const ORACLE = resolve('tests/oracle');
const VECTORS = resolve('tests/conformance/vectors');

/** From here on Linux hides from a process whether a page is mapped: error codes would be its invention. */
const HIDDEN_FROM = 0x7fff_ffff_f000n;

function rejectHiddenFaults(forms: RecordedForm[]): void {
  for (const { form, cases, recordings } of forms) {
    recordings.forEach(({ fault }, i) => {
      if (fault?.vector !== 14 || fault.address < HIDDEN_FROM) return;
      throw new Error(`${form}: ${Buffer.from(cases[i].code).toString('hex')} touches ${fault.address.toString(16)}`);
    });
  }
}

function check(family: Family, file: Uint8Array, encoded: Uint8Array): number {
  const mismatches: Mismatch[] = [];
  const again = decodeVectors(encoded);
  for (const vector of decodeVectors(file)) {
    const other = again.next().value;
    if (other?.form !== vector.form || Buffer.compare(other.code, vector.code) !== 0) {
      throw new Error(`${family.name}: other cases in the file; record it anew`);
    }
    const differences = compareOutcome(vector, other.expected);
    if (differences.length) mismatches.push(describeMismatch(vector, differences));
  }
  for (const mismatch of mismatches.slice(0, 5)) console.log(mismatch.report);
  return mismatches.length;
}

const OPTIONS = ['--check', '--coverage'];

function main(args: string[]): number {
  const checking = args.includes('--check');
  const wanted = args.filter((arg) => !arg.startsWith('-'));
  const unknown = wanted.find((name) => !FAMILIES.some((family) => family.name === name));
  if (unknown || args.some((arg) => arg.startsWith('-') && !OPTIONS.includes(arg))) {
    console.error('usage: npm run oracle -- [--check | --coverage] [family …]');
    console.error(`families: ${FAMILIES.map(({ name }) => name).join(', ')}`);
    return 2;
  }
  if (args.includes('--coverage')) {
    const files = readdirSync(VECTORS).filter((name) => name.endsWith('.vec'));
    const coverage = measureCoverage(files.map((name) => readFileSync(join(VECTORS, name))));
    console.log(formatCoverage(coverage));
    return coverage.missing.length ? 1 : 0;
  }
  const machine = describeMachine();
  if (typeof machine === 'string') {
    console.error(`oracle: ${machine}; the vectors in tests/conformance/vectors stay as they are`);
    return 2;
  }
  console.log(`recording on ${machine.model}`);
  const harness = buildHarness(join(ORACLE, 'harness.c'), resolve('.cache/oracle'));
  mkdirSync(VECTORS, { recursive: true });
  let failures = 0;
  for (const family of FAMILIES.filter(({ name }) => wanted.length === 0 || wanted.includes(name))) {
    const missing = (family.features ?? []).filter((feature) => !machine.features.has(feature));
    if (missing.length) {
      console.log(`${family.name}: left as it is, the processor lacks ${missing.join(', ')}`);
      continue;
    }
    if (family.vendor && family.vendor !== machine.vendor) {
      console.log(`${family.name}: left as it is, it tells what processors of ${family.vendor} do`);
      continue;
    }
    const recorded = runNatively(harness, generateFamily(family));
    rejectHiddenFaults(recorded);
    const encoded = encodeVectors(recorded);
    const vectors = recorded.reduce((sum, { cases }) => sum + cases.length, 0);
    const faults = recorded.reduce((sum, { recordings }) => sum + recordings.filter(({ fault }) => fault).length, 0);
    const path = join(VECTORS, `${family.name}.vec`);
    let verdict = '';
    if (checking) {
      const mismatches = check(family, readFileSync(path), encoded);
      failures += mismatches;
      verdict = `, ${mismatches} differ from the file`;
    } else writeFileSync(path, encoded);
    const counts = `${recorded.length} forms, ${vectors} vectors, ${faults} faults, ${encoded.length} bytes`;
    console.log(`${family.name}: ${counts}${verdict}`);
  }
  return failures ? 1 : 0;
}

process.exitCode = main(process.argv.slice(2));
