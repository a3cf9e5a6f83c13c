/**
 * Vector files: what single instructions did on a real processor, compactly. A case's registers come from a seed that
 * follows from its form's name and its number, memory from one baseline, so that only what differs is stored: overrides
 * of the input, and changes from it (README.md describes the bytes). Values lie in columns by kind, compressed by brotli.
 */

import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';
import {
  baselineMemory, CODE, CODE_START, hash, MEMORY_SIZE, MEMORY_WORD, PROFILES, type Profile, seedRegisters, Word,
} from './machine-state.ts';

/** A word of the machine state and a value for it. */
export interface WordValue {
  word: number;
  value: bigint;
}

/** An instruction to run and how its input differs from the seeded state. */
export interface Case {
  code: Uint8Array;
  /** Offset in the code window. Code that would reach over the window's end is cut there. */
  codeOffset: number;
  /** Recorded by single step, as an instruction that may jump must be; else by running into an INT3 behind it. */
  step: boolean;
  overrides: WordValue[];
}

/** A processor exception: vector, error code (0 where there is none), and for #PF the address in CR2. */
export interface Fault {
  vector: number;
  errorCode: number;
  address: bigint;
}

/** What a case left behind: all differences between input and outcome, RIP always among the words compared. */
export interface Recording {
  fault: Fault | undefined;
  registers: BigUint64Array;
  memory: WordValue[];
}

export interface FormCases {
  /** Like `ADD Ev,Gv/32/mem`: prefix that matters, mnemonic, operands, operand size, operand kind. */
  form: string;
  profile: Profile;
  cases: Case[];
}

export interface RecordedForm extends FormCases {
  recordings: Recording[];
}

export interface MachineState {
  registers: BigUint64Array;
  memory: Uint8Array;
}

export interface Outcome extends MachineState {
  fault: Fault | undefined;
}

/** A decoded vector. Its arrays are reused for the next one: copy what must last. */
export interface Vector {
  form: string;
  index: number;
  profile: Profile;
  code: Uint8Array;
  codeAddress: number;
  step: boolean;
  input: MachineState;
  /** Offsets of the 8-byte words of `input.memory` that the case sets, besides its code; all else is the baseline. */
  memoryOverrides: readonly number[];
  expected: Outcome;
}

const MAGIC = 0x3143_4556; // "VEC1"
const COLUMNS = ['forms', 'shapes', 'code', 'words', 'tags', 'values'] as const;
type Column = (typeof COLUMNS)[number];

/** How a value is told: its low bytes, those of its complement, or those of its difference (XOR) from the word before. */
const Tag = { plain: 0x00, complement: 0x10, xor: 0x20, count: 0x0f } as const;
const Shape = { codeSize: 0x1f, step: 0x20, moved: 0x40, fault: 0x80 } as const;

class ByteSink {
  #bytes = new Uint8Array(1 << 16);
  length = 0;

  byte(value: number): void {
    if (this.length === this.#bytes.length) {
      const larger = new Uint8Array(2 * this.length);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes[this.length++] = value;
  }

  bytes(values: Iterable<number>): void {
    for (const value of values) this.byte(value);
  }

  /** LEB128, unsigned. */
  varint(value: number): void {
    for (; value >= 0x80; value = Math.floor(value / 0x80)) this.byte((value & 0x7f) | 0x80);
    this.byte(value);
  }

  done(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }
}

function byteLength(value: bigint): number {
  let length = 0;
  for (; value; value >>= 8n) length++;
  return length;
}

const ALL_ONES = 0xffff_ffff_ffff_ffffn;

export function seedOf(form: string, index: number): number {
  return hash(`${form}#${index}`);
}

/** Fills in a case's whole input state; `memory` must hold the baseline and gets the overrides and the code. */
export function establishInput(source: FormCases, index: number, registers: BigUint64Array, memory: Uint8Array): void {
  const it = source.cases[index];
  seedRegisters(seedOf(source.form, index), source.profile, registers);
  registers[Word.rip] = BigInt(CODE.address + it.codeOffset);
  const words = new DataView(memory.buffer, memory.byteOffset);
  for (const { word, value } of it.overrides) {
    if (word < MEMORY_WORD) registers[word] = value;
    else words.setBigUint64((word - MEMORY_WORD) * 8, value, true);
  }
  memory.set(it.code.subarray(0, CODE.size - it.codeOffset), CODE.offset + it.codeOffset);
}

export function encodeVectors(forms: RecordedForm[]): Uint8Array {
  const sinks = Object.fromEntries(COLUMNS.map((name) => [name, new ByteSink()])) as Record<Column, ByteSink>;
  const { shapes, code, words, tags, values } = sinks;
  const registers = new BigUint64Array(Word.count);
  const seeded = new BigUint64Array(Word.count);
  const baseline = baselineMemory();

  const putValue = (before: bigint, value: bigint): void => {
    let [kind, stored]: [number, bigint] = [Tag.plain, value];
    const choices: [number, bigint][] = [[Tag.complement, value ^ ALL_ONES], [Tag.xor, value ^ before]];
    for (const [k, candidate] of choices) if (byteLength(candidate) < byteLength(stored)) [kind, stored] = [k, candidate];
    const length = byteLength(stored);
    tags.byte(kind | length);
    for (let i = 0; i < length; i++) values.byte(Number((stored >> BigInt(8 * i)) & 0xffn));
  };
  /** `before` gives the words as they were. */
  const putWords = (list: WordValue[], before: (word: number) => bigint): void => {
    const sorted = [...list].sort((a, b) => a.word - b.word);
    shapes.varint(sorted.length);
    let last = 0;
    for (const { word, value } of sorted) {
      words.varint(word - last);
      last = word;
      putValue(before(word), value);
    }
  };

  shapes.varint(forms.length);
  for (const recorded of forms) {
    sinks.forms.bytes(new TextEncoder().encode(`${recorded.form}\n`));
    shapes.byte(PROFILES.indexOf(recorded.profile));
    shapes.varint(recorded.cases.length);
    recorded.cases.forEach((it, index) => {
      const { fault, registers: after, memory: memoryChanges } = recorded.recordings[index];
      const moved = it.codeOffset !== CODE_START;
      shapes.byte(it.code.length | (it.step ? Shape.step : 0) | (moved ? Shape.moved : 0) | (fault ? Shape.fault : 0));
      if (moved) shapes.varint(it.codeOffset);
      code.bytes(it.code);
      const memory = baseline.slice();
      establishInput(recorded, index, registers, memory);
      seedRegisters(seedOf(recorded.form, index), recorded.profile, seeded);
      const memoryWord = (bytes: Uint8Array, word: number): bigint =>
        new DataView(bytes.buffer, bytes.byteOffset).getBigUint64((word - MEMORY_WORD) * 8, true);
      putWords(it.overrides, (word) => (word < MEMORY_WORD ? seeded[word] : memoryWord(baseline, word)));
      if (fault) {
        shapes.byte(fault.vector);
        shapes.varint(fault.errorCode);
        putValue(0n, fault.address);
      } else registers[Word.rip] += BigInt(it.code.length);
      const changes = [...memoryChanges];
      after.forEach((value, word) => {
        if (value !== registers[word]) changes.push({ word, value });
      });
      putWords(changes, (word) => (word < MEMORY_WORD ? registers[word] : memoryWord(memory, word)));
    });
  }

  const file = new ByteSink();
  const word32 = (value: number): void => file.bytes([value, value >> 8, value >> 16, value >> 24].map((b) => b & 0xff));
  word32(MAGIC);
  for (const name of COLUMNS) {
    const raw = sinks[name].done();
    const packed = brotliCompressSync(raw, {
      params: {
        [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_SIZE_HINT]: raw.length,
      },
    });
    word32(packed.length);
    file.bytes(packed);
  }
  return file.done().slice();
}

class ByteSource {
  #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  byte(): number {
    if (this.#at === this.#bytes.length) throw new Error('vector file: a column ends early');
    return this.#bytes[this.#at++];
  }

  take(count: number): Uint8Array {
    if (this.#at + count > this.#bytes.length) throw new Error('vector file: a column ends early');
    return this.#bytes.subarray(this.#at, (this.#at += count));
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }

  atEnd(): boolean {
    return this.#at === this.#bytes.length;
  }
}

/** Decodes a vector file, one vector after another. Throws on a damaged one. */
export function* decodeVectors(file: Uint8Array): Generator<Vector, void> {
  const header = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 4 || header.getUint32(0, true) !== MAGIC) throw new Error('vector file: wrong magic number');
  let at = 4;
  const sources = {} as Record<Column, ByteSource>;
  for (const name of COLUMNS) {
    const size = header.getUint32(at, true);
    sources[name] = new ByteSource(brotliDecompressSync(file.subarray(at + 4, at + 4 + size)));
    at += 4 + size;
  }
  const { forms, shapes, code, words, tags, values } = sources;

  const baseline = baselineMemory();
  const input = { registers: new BigUint64Array(Word.count), memory: baseline.slice() };
  const expected = { registers: new BigUint64Array(Word.count), memory: baseline.slice(), fault: undefined as Fault | undefined };
  const bytesOf = (state: MachineState): [Uint8Array, Uint8Array] => [new Uint8Array(state.registers.buffer), state.memory];
  const inputBytes = bytesOf(input);
  const expectedBytes = bytesOf(expected);

  /** Reads a value into eight bytes that still hold the word before. */
  const getValue = (bytes: Uint8Array, offset: number): void => {
    const tag = tags.byte();
    const count = tag & Tag.count;
    const kind = tag & ~Tag.count;
    const stored = values.take(count);
    for (let i = 0; i < 8; i++) {
      const low = i < count ? stored[i] : 0;
      bytes[offset + i] = kind === Tag.xor ? bytes[offset + i] ^ low : kind === Tag.complement ? ~low : low;
    }
  };
  const getWords = ([registerBytes, memoryBytes]: [Uint8Array, Uint8Array], touched: number[]): void => {
    let word = 0;
    for (let count = shapes.varint(); count > 0; count--) {
      word += words.varint();
      if (word < MEMORY_WORD) getValue(registerBytes, word * 8);
      else {
        const offset = (word - MEMORY_WORD) * 8;
        if (offset >= MEMORY_SIZE) throw new Error('vector file: a word outside of the windows');
        touched.push(offset);
        getValue(memoryBytes, offset);
      }
    }
  };
  const restore = (memory: Uint8Array, offsets: number[]): void => {
    for (const offset of offsets) memory.set(baseline.subarray(offset, offset + 8), offset);
  };

  for (let formCount = shapes.varint(); formCount > 0; formCount--) {
    const name: number[] = [];
    for (let byte = forms.byte(); byte !== 0x0a; byte = forms.byte()) name.push(byte);
    const form = new TextDecoder().decode(Uint8Array.from(name));
    const profile = PROFILES[shapes.byte()];
    const caseCount = shapes.varint();
    for (let index = 0; index < caseCount; index++) {
      const shape = shapes.byte();
      const codeOffset = shape & Shape.moved ? shapes.varint() : CODE_START;
      const instruction = code.take(shape & Shape.codeSize);
      const codeAddress = CODE.address + codeOffset;
      const placed = instruction.subarray(0, CODE.size - codeOffset);
      seedRegisters(seedOf(form, index), profile, input.registers);
      input.registers[Word.rip] = BigInt(codeAddress);
      const overridden: number[] = [];
      getWords(inputBytes, overridden);
      for (const offset of overridden) expected.memory.set(input.memory.subarray(offset, offset + 8), offset);
      input.memory.set(placed, CODE.offset + codeOffset);
      expected.memory.set(placed, CODE.offset + codeOffset);
      expected.registers.set(input.registers);
      expected.fault = undefined;
      if (shape & Shape.fault) {
        const address = new BigUint64Array(1);
        const vector = shapes.byte();
        const errorCode = shapes.varint();
        getValue(new Uint8Array(address.buffer), 0);
        expected.fault = { vector, errorCode, address: address[0] };
      } else expected.registers[Word.rip] += BigInt(instruction.length);
      const changed: number[] = [];
      getWords(expectedBytes, changed);
      const step = (shape & Shape.step) !== 0;
      yield { form, index, profile, code: instruction, codeAddress, step, input, memoryOverrides: overridden, expected };
      restore(input.memory, overridden);
      restore(expected.memory, overridden);
      restore(expected.memory, changed);
      input.memory.fill(0xcc, CODE.offset + codeOffset, CODE.offset + codeOffset + placed.length);
      expected.memory.fill(0xcc, CODE.offset + codeOffset, CODE.offset + codeOffset + placed.length);
    }
  }
  if (!COLUMNS.every((name) => sources[name].atEnd())) throw new Error('vector file: bytes left over');
}
