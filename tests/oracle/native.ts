/**
 * Builds the harness and runs cases on this processor. The files exchanged with it, little-endian throughout:
 * input: header (magic "ORCL", windows, cases, memory size; u32 each), the windows (address, size, writable, executable;
 * u64 each), baseline memory, then for each case flags (1 = single step), code offset, code size, overrides (u32 each),
 * 16 bytes of code, the 72 register words, and the memory overrides (index of the word in memory, value).
 * Output: for each case vector (i32, -1 = retired), error code (u32), CR2 (u64), the registers, the number of changed
 * memory words (u64) and those (index, value).
 */

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  baselineMemory, CODE, MAXIMUM_CODE_SIZE, MEMORY_SIZE, MEMORY_WORD, RECORDED_FLAGS, WINDOWS, Word,
} from '../conformance/machine-state.ts';
import {
  establishInput, type FormCases, type RecordedForm, type Recording, type Vector, type WordValue,
} from '../conformance/vector-file.ts';

/** What vectors are allowed to use beyond baseline x86-64: the v2 level. Names as in /proc/cpuinfo. */
export const REQUIRED_FEATURES = ['cx16', 'lahf_lm', 'popcnt', 'pni', 'ssse3', 'sse4_1', 'sse4_2'];

const MAGIC = 0x4c43_524f;
const CASE_HEADER_SIZE = 32 + Word.count * 8;
const OUTCOME_HEADER_SIZE = 16 + Word.count * 8 + 8;

export interface Machine {
  vendor: string;
  model: string;
  features: ReadonlySet<string>;
}

/** This machine's processor, or in one line why it can record nothing. */
export function describeMachine(features = REQUIRED_FEATURES): Machine | string {
  const { platform, arch } = process;
  if (platform !== 'linux' || arch !== 'x64') return `needs x86-64 Linux, not ${arch} ${platform}`;
  if (spawnSync('gcc', ['--version']).error) return 'needs gcc (Debian: apt-get install gcc libc6-dev)';
  const information = readFileSync('/proc/cpuinfo', 'latin1');
  const field = (name: string): string => new RegExp(`^${name}\\s*:\\s*(.*)$`, 'm').exec(information)?.[1] ?? '';
  const present = new Set(field('flags').split(' '));
  const missing = features.filter((feature) => !present.has(feature));
  if (missing.length) return `the processor (${field('model name')}) lacks ${missing.join(', ')}`;
  if (present.has('la57')) return 'the recorded canonical addresses are those of 4-level paging, this processor may have 57 bits';
  const model = `${field('model name')}, family ${field('cpu family')} model ${field('model')}`;
  return { vendor: field('vendor_id'), model, features: present };
}

/** Compiles the harness into a directory; returns its path. */
export function buildHarness(source: string, directory: string): string {
  mkdirSync(directory, { recursive: true });
  const binary = join(directory, 'harness');
  const flags = ['-O2', '-Wall', '-Wextra', '-Werror', '-fno-stack-protector'];
  const result = spawnSync('gcc', [...flags, '-o', binary, source], { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`gcc could not build the harness:\n${result.stderr}`);
  return binary;
}

/** A case with its whole input. */
export interface NativeCase {
  /** For messages and FXSAVE. */
  form: string;
  code: Uint8Array;
  codeOffset: number;
  step: boolean;
  registers: BigUint64Array;
  memory: WordValue[];
}

function packCases(batch: NativeCase[]): Uint8Array {
  const overrideCount = batch.reduce((sum, { memory }) => sum + memory.length, 0);
  const headerSize = 16 + WINDOWS.length * 32 + MEMORY_SIZE;
  const file = new Uint8Array(headerSize + batch.length * CASE_HEADER_SIZE + overrideCount * 16);
  const view = new DataView(file.buffer);
  [MAGIC, WINDOWS.length, batch.length, MEMORY_SIZE].forEach((value, i) => void view.setUint32(4 * i, value, true));
  WINDOWS.forEach((window, i) => {
    [window.address, window.size, Number(window.writable), Number(window.executable)].forEach((value, j) => {
      view.setBigUint64(16 + 32 * i + 8 * j, BigInt(value), true);
    });
  });
  file.set(baselineMemory(), 16 + WINDOWS.length * 32);
  let at = headerSize;
  for (const { form, code, codeOffset, step, registers, memory } of batch) {
    if (code.length > MAXIMUM_CODE_SIZE) throw new Error(`${form}: more than ${MAXIMUM_CODE_SIZE} bytes of code`);
    const placed = Math.min(code.length, CODE.size - codeOffset);
    [Number(step), codeOffset, placed, memory.length].forEach((value, i) => void view.setUint32(at + 4 * i, value, true));
    file.set(code, at + 16);
    file.set(new Uint8Array(registers.buffer), at + 32);
    at += CASE_HEADER_SIZE;
    for (const { word, value } of memory) {
      view.setBigUint64(at, BigInt(word - MEMORY_WORD), true);
      view.setBigUint64(at + 8, value, true);
      at += 16;
    }
  }
  return file;
}

const MXCSR_MASK = 0xffffn;

/** FXSAVE and XSAVE tell which bits of MXCSR exist; what a processor has beyond x86-64-v2 there (AMD's MM) is taken out. */
function withoutExtraMxcsrBits(form: string, memory: WordValue[]): void {
  if (!/^F?XSAVE/.test(form)) return;
  for (const change of memory) {
    if (change.value >> 32n === (MXCSR_MASK | 0x2_0000n)) change.value &= (MXCSR_MASK << 32n) | 0xffff_ffffn;
  }
}

function unpackOutcomes(file: Uint8Array, batch: NativeCase[]): Recording[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  let at = 0;
  const recordings = batch.map(({ form }): Recording => {
    const vector = view.getInt32(at, true);
    const registers = new BigUint64Array(Word.count);
    new Uint8Array(registers.buffer).set(file.subarray(at + 16, at + 16 + Word.count * 8));
    registers[Word.rflags] &= BigInt(RECORDED_FLAGS);
    const [errorCode, address] = [view.getUint32(at + 4, true), view.getBigUint64(at + 8, true)];
    const fault = vector < 0 ? undefined : { vector, errorCode, address };
    const changes = Number(view.getBigUint64(at + OUTCOME_HEADER_SIZE - 8, true));
    at += OUTCOME_HEADER_SIZE;
    const memory: WordValue[] = [];
    for (let i = 0; i < changes; i++, at += 16) {
      memory.push({ word: Number(view.getBigUint64(at, true)) + MEMORY_WORD, value: view.getBigUint64(at + 8, true) });
    }
    withoutExtraMxcsrBits(form, memory);
    return { fault, registers, memory };
  });
  if (at !== file.length) throw new Error(`the harness wrote ${file.length} bytes of outcomes, ${at} were expected`);
  return recordings;
}

const BATCH_SIZE = 10_000;

/** Runs cases in batches that bound memory. Throws if the harness fails (a case that does not end, …). */
export function runBatches(harness: string, cases: Iterable<NativeCase>, each: (recording: Recording) => void): void {
  const directory = mkdtempSync(join(tmpdir(), 'oracle-'));
  const [input, output] = [join(directory, 'input'), join(directory, 'output')];
  const run = (batch: NativeCase[]): void => {
    writeFileSync(input, packCases(batch));
    const result = spawnSync(harness, [input, output], { encoding: 'utf8' });
    if (result.status !== 0) {
      const number = /case (\d+)/.exec(result.stderr)?.[1];
      const culprit = number === undefined ? undefined : batch[Number(number)];
      const which = culprit ? `: ${culprit.form}, ${Buffer.from(culprit.code).toString('hex')}` : '';
      throw new Error(`${result.stderr.trim()} (status ${result.status ?? result.signal})${which}`);
    }
    unpackOutcomes(readFileSync(output), batch).forEach(each);
  };
  try {
    let batch: NativeCase[] = [];
    for (const it of cases) {
      batch.push(it);
      if (batch.length === BATCH_SIZE) {
        run(batch);
        batch = [];
      }
    }
    if (batch.length) run(batch);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Records all cases of all forms. */
export function runNatively(harness: string, forms: FormCases[]): RecordedForm[] {
  const recorded = forms.map((form): RecordedForm => ({ ...form, recordings: [] }));
  const scratch = baselineMemory(); // only the registers of the input matter here: memory travels as overrides
  const owners: RecordedForm[] = [];
  function* cases(): Generator<NativeCase> {
    for (const form of recorded) {
      for (const [index, it] of form.cases.entries()) {
        const registers = new BigUint64Array(Word.count);
        establishInput(form, index, registers, scratch);
        owners.push(form);
        yield { ...it, form: form.form, registers, memory: it.overrides.filter(({ word }) => word >= MEMORY_WORD) };
      }
    }
  }
  let next = 0;
  runBatches(harness, cases(), (recording) => void owners[next++].recordings.push(recording));
  return recorded;
}

/** Runs decoded vectors again, from the input states in them; outcomes in the same order, memory as changed words. */
export function rerunVectors(harness: string, vectors: Iterable<Vector>): Recording[] {
  function* cases(): Generator<NativeCase> {
    for (const { form, code, codeAddress, step, input, memoryOverrides } of vectors) {
      const view = new DataView(input.memory.buffer, input.memory.byteOffset);
      const word = (offset: number): WordValue => ({ word: MEMORY_WORD + offset / 8, value: view.getBigUint64(offset, true) });
      const registers = input.registers.slice();
      yield { form, code, codeOffset: codeAddress - CODE.address, step, registers, memory: memoryOverrides.map(word) };
    }
  }
  const recordings: Recording[] = [];
  runBatches(harness, cases(), (recording) => void recordings.push(recording));
  return recordings;
}
