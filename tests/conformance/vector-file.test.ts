import { describe, expect, it } from 'vitest';
import {
  baselineMemory, CODE, CODE_START, DATA, MEMORY_WORD, PROFILES, Random, seedRegisters, STACK, windowAt, WINDOWS, Word,
} from './machine-state.ts';
import { decodeVectors, encodeVectors, establishInput, type Fault, type RecordedForm } from './vector-file.ts';

/** Forms with random code, overrides and outcomes: nothing that a processor would do, but all that a file can say. */
function randomForms(seed: number): RecordedForm[] {
  const random = new Random(seed);
  const memoryWord = (): number => MEMORY_WORD + (DATA.offset >> 3) + random.below((DATA.size + STACK.size) >> 3);
  const memoryWords = Array.from({ length: 40 }, memoryWord);
  const value = (): bigint => random.pick([0n, 0xffff_ffff_ffff_fff0n, random.word(), BigInt(random.below(256))]);
  const words = (count: number): { word: number; value: bigint }[] => {
    const draw = (): number => (random.chance(50) ? random.pick(memoryWords) : random.below(16));
    const chosen = new Set(Array.from({ length: count }, draw));
    return [...chosen].map((word) => ({ word, value: value() }));
  };
  return Array.from({ length: 6 }, (_, number): RecordedForm => {
    const profile = PROFILES[number % PROFILES.length];
    const source: RecordedForm = { form: `FORM ${number} Ev,Gv/32`, profile, cases: [], recordings: [] };
    for (let index = 0; index < 20; index++) {
      const size = 1 + random.below(16);
      const codeOffset = random.chance(50) ? CODE_START : CODE.size - random.below(20);
      const code = Uint8Array.from({ length: size }, () => random.below(256));
      source.cases.push({ code, codeOffset, step: random.chance(50), overrides: words(random.below(6)) });
      const registers = new BigUint64Array(Word.count);
      establishInput(source, index, registers, baselineMemory());
      const fault: Fault | undefined = random.chance(30)
        ? { vector: random.below(32), errorCode: random.below(1 << 16), address: random.word() } : undefined;
      const changes = words(random.below(8));
      for (const { word, value: changed } of changes) if (word < MEMORY_WORD) registers[word] = changed;
      registers[Word.rip] += BigInt(random.below(3) - 1) * BigInt(size);
      source.recordings.push({ fault, registers, memory: changes.filter(({ word }) => word >= MEMORY_WORD) });
    }
    return source;
  });
}

describe('vector files', () => {
  it.each([1, 2, 3])('give back every input and every outcome (seed %i)', (seed) => {
    const forms = randomForms(seed);
    const vectors = decodeVectors(encodeVectors(forms));
    for (const source of forms) {
      for (const [index, it] of source.cases.entries()) {
        const vector = vectors.next().value;
        if (!vector) throw new Error('too few vectors');
        const { fault, registers, memory } = source.recordings[index];
        const { form, profile } = source;
        expect(vector).toMatchObject({ form, index, profile, step: it.step, codeAddress: CODE.address + it.codeOffset });
        expect([...vector.code]).toEqual([...it.code]);
        const input = { registers: new BigUint64Array(Word.count), memory: baselineMemory() };
        establishInput(source, index, input.registers, input.memory);
        expect(vector.input.registers).toEqual(input.registers);
        expect(Buffer.compare(vector.input.memory, input.memory)).toBe(0);
        const view = new DataView(input.memory.buffer);
        for (const { word, value } of memory) view.setBigUint64((word - MEMORY_WORD) * 8, value, true);
        expect(vector.expected.registers).toEqual(registers);
        expect(Buffer.compare(vector.expected.memory, input.memory)).toBe(0);
        expect(vector.expected.fault).toEqual(fault);
        const overridden = it.overrides.filter(({ word }) => word >= MEMORY_WORD).map(({ word }) => (word - MEMORY_WORD) * 8);
        expect([...vector.memoryOverrides].sort()).toEqual(overridden.sort());
      }
    }
    expect(vectors.next().done).toBe(true);
  });

  it('are the same bytes for the same cases', () => {
    expect(Buffer.compare(encodeVectors(randomForms(7)), encodeVectors(randomForms(7)))).toBe(0);
  });

  it('are refused when they are no vector file, cut short, or not used up', () => {
    const file = encodeVectors(randomForms(1));
    const drain = (bytes: Uint8Array): void => void [...decodeVectors(bytes)];
    expect(() => drain(Uint8Array.from([1, 2, 3, 4]))).toThrow('magic');
    expect(() => drain(file.subarray(0, file.length - 20))).toThrow();
    const [first] = randomForms(1);
    const missing = { ...first, cases: first.cases.slice(1) };
    expect(Buffer.compare(encodeVectors([missing]), encodeVectors([first]))).not.toBe(0);
  });
});

describe('the machine state', () => {
  it('is the same for the same seed and differs between seeds and profiles', () => {
    const draw = (seed: number, profile: (typeof PROFILES)[number]): string => {
      const words = new BigUint64Array(Word.count);
      seedRegisters(seed, profile, words);
      return [...words].join();
    };
    expect(draw(1, 'integer')).toBe(draw(1, 'integer'));
    const all = PROFILES.flatMap((profile) => [draw(1, profile), draw(2, profile)]);
    expect(new Set(all).size).toBe(all.length);
  });

  it('has edge values among the registers: 0, 1, -1, least, greatest, at every size', () => {
    const seen = new Set<bigint>();
    const words = new BigUint64Array(Word.count);
    for (let seed = 0; seed < 2000; seed++) {
      seedRegisters(seed, 'integer', words);
      for (let i = 0; i < 16; i++) seen.add(words[i]);
    }
    const edges = [8n, 16n, 32n, 64n].flatMap((bits) => [1n << (bits - 1n), (1n << (bits - 1n)) - 1n, (1n << bits) - 1n]);
    expect([0n, 1n, ...edges].filter((edge) => !seen.has(edge))).toEqual([]);
  });

  it('has not-a-numbers, infinities, denormals and zeros of both signs among the floating point operands', () => {
    const kinds = new Set<string>();
    const words = new BigUint64Array(Word.count);
    const view = new DataView(words.buffer);
    for (let seed = 0; seed < 300; seed++) {
      seedRegisters(seed, 'float64', words);
      for (let i = 0; i < 32; i++) {
        const bits = words[Word.xmm + i];
        const value = view.getFloat64((Word.xmm + i) * 8, true);
        const quiet = (bits >> 51n) & 1n ? 'quiet' : 'signalling';
        let kind = Math.abs(value) < 2 ** -1022 ? 'denormal' : 'normal';
        if (Number.isNaN(value)) kind = quiet;
        else if (value === 0) kind = 'zero';
        else if (!Number.isFinite(value)) kind = 'infinity';
        kinds.add(`${bits >> 63n ? '-' : '+'}${kind}`);
      }
    }
    expect(kinds.size).toBe(12);
  });

  it('has windows that do not touch, so that each ends in an unmapped page', () => {
    for (const window of WINDOWS) {
      expect(windowAt(BigInt(window.address))).toBe(window);
      expect(windowAt(BigInt(window.address - 1))).toBeUndefined();
      expect(windowAt(BigInt(window.address + window.size))).toBeUndefined();
    }
  });
});
