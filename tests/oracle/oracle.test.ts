/** The oracle checked by itself: forms against a disassembler, vectors against a second run on this machine's processor. */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MEMORY_WORD, Random } from '../conformance/machine-state.ts';
import { replay } from '../conformance/replay.ts';
import { mnemonicOf } from '../conformance/undefined-flags.ts';
import { decodeVectors } from '../conformance/vector-file.ts';
import { disassemble } from './disassemble.ts';
import { encode } from './encode.ts';
import { FAMILIES } from './forms.ts';
import { buildHarness, describeMachine, type Machine, rerunVectors } from './native.ts';
import { compareStreams } from './streams.ts';

/** Mnemonics by which the disassembler calls the same thing. */
const SYNONYMS: [RegExp, string][] = [
  [/^(J|CMOV|SET)NB$/, '$1AE'], [/^(J|CMOV|SET)Z$/, '$1E'], [/^(J|CMOV|SET)NZ$/, '$1NE'], [/^(J|CMOV|SET)NBE$/, '$1A'],
  [/^(J|CMOV|SET)NL$/, '$1GE'], [/^(J|CMOV|SET)NLE$/, '$1G'], [/^XLAT$/, 'XLATB'], [/^FWAIT$/, 'WAIT'],
];
/** Mnemonics that the disassembler splits by operand or address size. */
const SIZED = /^(MOVS|STOS|LODS|CMPS|SCAS|INS|OUTS|PUSHF|POPF|JRCXZ|PCMPESTR[IM]|PINSRD|PEXTRD|MOVD|SYSRET|F?XSAVE|F?XRSTOR)/;

function sameMnemonic(ours: string, theirs: string): boolean {
  const synonym = SYNONYMS.reduce((name, [pattern, replacement]) => name.replace(pattern, replacement), ours);
  if (synonym === theirs || ours === 'NOP' || (ours === 'XCHG' && theirs === 'NOP')) return true; // hints have many names
  if (!SIZED.test(ours)) return false;
  if (ours === 'JRCXZ') return /^J[ER]?CXZ$/.test(theirs);
  return theirs.replace(/(B|W|D|Q|64)$/, '') === ours.replace(/D$/, '');
}

describe('encodings', () => {
  it.each(FAMILIES.filter(({ forms }) => forms.length))('of $name are what the disassembler takes them for', ({ forms }) => {
    const wrong: string[] = [];
    for (const form of forms.filter(({ illegal }) => !illegal)) {
      const random = new Random(1);
      for (let i = 0; i < 40; i++) {
        const code = encode(form, random);
        const { text, mnemonic, length } = disassemble(code, 0);
        const right = length === code.length && sameMnemonic(form.mnemonic, mnemonic);
        if (!right) wrong.push(`${form.id}: ${Buffer.from(code).toString('hex')} ${text}`);
      }
    }
    expect(wrong).toEqual([]);
  });
});

const machine = describeMachine();
const directory = new URL('../conformance/vectors/', import.meta.url);
const files = readdirSync(directory).filter((name) => name.endsWith('.vec'));
const load = (file: string): Uint8Array => readFileSync(new URL(file, directory));

describe('vectors', () => {
  it.each(files)('in %s raise #UD only where an opcode or its LOCK is illegal', (file) => {
    const illegal = new Set(FAMILIES.flatMap(({ forms }) => forms.filter((form) => form.illegal).map(({ id }) => id)));
    const surprising = new Set<string>();
    for (const { form, expected } of decodeVectors(load(file))) {
      const undefinedOpcode = expected.fault?.vector === 6;
      const meant = illegal.has(form) || /^UD[012]?$/.test(mnemonicOf(form));
      if (undefinedOpcode && !meant) surprising.add(form);
      if (illegal.has(form) && !undefinedOpcode) surprising.add(form);
    }
    expect([...surprising]).toEqual([]);
  });
});

describe.skipIf(typeof machine === 'string' || machine.vendor !== 'AuthenticAMD')('this processor', () => {
  let harness = '';
  let built = '';
  beforeAll(() => {
    built = mkdtempSync(join(tmpdir(), 'oracle-harness-'));
    harness = buildHarness(fileURLToPath(new URL('harness.c', import.meta.url)), built);
  });
  afterAll(() => rmSync(built, { recursive: true, force: true }));

  const recordable = files.filter((file) => {
    const features = FAMILIES.find(({ name }) => file === `${name}.vec`)?.features ?? [];
    return typeof machine !== 'string' && features.every((feature) => machine.features.has(feature));
  });

  it.each(recordable)('does again what %s says', (file) => {
    const recordings = rerunVectors(harness, decodeVectors(load(file)));
    let next = 0;
    const summary = replay(load(file), {
      name: 'rerun',
      run: ({ input }) => {
        const { fault, registers, memory: changes } = recordings[next++];
        const memory = input.memory.slice();
        const view = new DataView(memory.buffer);
        for (const { word, value } of changes) view.setBigUint64((word - MEMORY_WORD) * 8, value, true);
        return { fault, registers, memory };
      },
    });
    // Which of its two operands CMPS reads first, and so which of two faults it raises, is each processor's own.
    const isOrder = ({ form, report }: (typeof summary.mismatches)[number]): boolean => mnemonicOf(form) === 'CMPS' && /^ +fault: expected #.*\n +rerun +#/m.test(report);
    expect(summary.mismatches.filter((mismatch) => !isOrder(mismatch)).map(({ report }) => report)).toEqual([]);
    expect(next).toBe(summary.vectors);
  });

  it('makes the same of random code as the interpreter and compiled code do', () => {
    const { streams, faults, different } = compareStreams(harness, machine as Machine, { seed: 1, from: 0, count: 300 });
    expect(different.map((lines) => lines.join('\n'))).toEqual([]);
    // They get somewhere.
    expect(faults).toBeLessThan(0.7 * streams);
  });
});
