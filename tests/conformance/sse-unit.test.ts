/**
 * The arithmetic that generated code leaves to TypeScript, on every recorded case of register operands: results and MXCSR's
 * exception flags agree with the processor in every bit, unmasked exceptions too, whatever MXCSR asks for.
 */

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type SseOperation, sseOperation, SseUnit } from '../../src/cpu/sse-unit.ts';
import { ARGUMENT, MXCSR } from '../../src/cpu/state.ts';
import { Word } from './machine-state.ts';
import { decodeVectors, type Vector } from './vector-file.ts';

const SIMD_EXCEPTION = 19;
const bytes = new DataView(new ArrayBuffer(2048));
const unit = new SseUnit(bytes.buffer);

/** What an opcode does: the operation, how many lanes of how many bits, and how much of the destination is written. */
interface Meaning {
  name: SseOperation;
  bits: 32 | 64;
  lanes: number;
  written: 4 | 8 | 16;
}

const ARITHMETIC = new Map<number, SseOperation>([
  [0x51, 'sqrt'], [0x58, 'add'], [0x59, 'mul'], [0x5c, 'sub'], [0x5d, 'min'], [0x5e, 'div'], [0x5f, 'max'], [0xc2, 'compare'],
]); // biome-ignore format: a table

function meaningOf(opcode: number, prefix: number): Meaning | undefined {
  const scalar = prefix === 0xf3 || prefix === 0xf2;
  const bits = prefix === 0x66 || prefix === 0xf2 ? 64 : 32;
  const lanes = scalar ? 1 : 128 / bits;
  const written = scalar ? (bits === 32 ? 4 : 8) : 16;
  const arithmetic = ARITHMETIC.get(opcode);
  if (arithmetic) return { name: arithmetic, bits, lanes, written };
  const dq = (name: SseOperation, from: 32 | 64): Meaning => ({ name, bits: from, lanes: 128 / from, written: 16 });
  switch (opcode) {
    case 0xd0:
      return { name: 'addSubtract', bits: prefix === 0x66 ? 64 : 32, lanes: prefix === 0x66 ? 2 : 4, written: 16 };
    case 0x5a:
      return {
        name: bits === 32 ? 'toDouble' : 'toSingle',
        bits,
        lanes: scalar ? 1 : 2,
        written: scalar ? (bits === 32 ? 8 : 4) : 16,
      };
    case 0x5b:
      return prefix === 0x66 ? dq('toInteger32', 32) : prefix === 0xf3 ? dq('truncate32', 32) : dq('fromInteger32', 32);
    case 0xe6:
      return prefix === 0xf2 ? dq('toInteger32', 64) : prefix === 0x66 ? dq('truncate32', 64) : undefined;
    case 0x3a08:
    case 0x3a09:
      return dq('round', opcode === 0x3a08 ? 32 : 64);
    case 0x3a0a:
      return { name: 'round', bits: 32, lanes: 1, written: 4 };
    case 0x3a0b:
      return { name: 'round', bits: 64, lanes: 1, written: 8 };
    default:
      return undefined;
  }
}

/** An instruction on two XMM registers, with its immediate; undefined for anything else. */
function decode(code: Uint8Array): { meaning: Meaning; first: number; second: number; immediate: number } | undefined {
  let [at, prefix, rex] = [0, 0, 0];
  for (; ; at++) {
    if ([0x66, 0xf2, 0xf3].includes(code[at])) prefix = Math.max(prefix, code[at]);
    else if ((code[at] & 0xf0) === 0x40) rex = code[at];
    else break;
  }
  if (code[at++] !== 0x0f) return undefined;
  let opcode = code[at++];
  if (opcode === 0x3a) opcode = 0x3a00 | code[at++];
  const meaning = meaningOf(opcode, prefix);
  const modrm = code[at++];
  if (!meaning || modrm < 0xc0) return undefined;
  return {
    meaning,
    first: ((modrm >> 3) & 7) | ((rex & 4) << 1),
    second: (modrm & 7) | ((rex & 1) << 3),
    immediate: code[at] ?? 0,
  };
}

/** What differs from the processor's outcome. */
function run({ form, index, code, input, expected }: Vector): string[] {
  const { meaning, first, second, immediate } = decode(code) as NonNullable<ReturnType<typeof decode>>;
  const place = (at: number, register: number): void => {
    for (const half of [0, 1]) bytes.setBigUint64(at + 8 * half, input.registers[Word.xmm + 2 * register + half], true);
  };
  place(ARGUMENT, first);
  place(ARGUMENT + 16, second);
  bytes.setUint32(MXCSR, Number(input.registers[Word.mxcsr]), true);
  const detail = meaning.name === 'compare' ? immediate & 7 : immediate;
  const completes = unit.execute(0, sseOperation(meaning.name, meaning.bits, meaning.lanes), detail);
  const found: string[] = [];
  const check = (what: string, wanted: unknown, have: unknown): void => {
    if (wanted !== have) found.push(`${form} #${index} ${what}: ${wanted}, not ${have}`);
  };
  check('raises', expected.fault?.vector === SIMD_EXCEPTION, !completes);
  check('mxcsr', expected.registers[Word.mxcsr].toString(16), bytes.getUint32(MXCSR, true).toString(16));
  if (!completes) return found;
  const wanted = new DataView(expected.registers.buffer, expected.registers.byteOffset + 8 * (Word.xmm + 2 * first), 16);
  for (let at = 0; at < meaning.written; at += 4)
    check(`byte ${at}`, wanted.getUint32(at, true).toString(16), bytes.getUint32(ARGUMENT + at, true).toString(16));
  return found;
}

describe('SSE arithmetic in TypeScript', () => {
  it('gives the results and exception flags of the processor', () => {
    const failures: string[] = [];
    const operations = new Set<string>();
    let count = 0;
    for (const vector of decodeVectors(readFileSync(new URL('vectors/sse-float.vec', import.meta.url)))) {
      if (!/^[A-Z0-9]+ V/.test(vector.form) || vector.form.includes('Qpi')) continue;
      const decoded = decode(vector.code);
      if (!decoded || (vector.expected.fault && vector.expected.fault.vector !== SIMD_EXCEPTION)) continue;
      failures.push(...run(vector));
      operations.add(decoded.meaning.name);
      count++;
    }
    expect(failures).toEqual([]);
    expect(operations.size).toBe(15);
    expect(count).toBeGreaterThan(3000);
  });
});
