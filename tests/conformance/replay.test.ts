import { describe, expect, it } from 'vitest';
import { baselineMemory, CODE_START, DATA, Flag, MEMORY_WORD, Word } from './machine-state.ts';
import { compareOutcome, type ConformanceTarget, describeMismatch, EXACT, formatSummary, replay } from './replay.ts';
import {
  type Case, decodeVectors, encodeVectors, establishInput, type Fault, type Outcome, type RecordedForm, type Vector,
} from './vector-file.ts';

/** A vector whose outcome is its input, RIP advanced, or a fault. */
function recorded(form: string, code: number[], overrides: [number, bigint][] = [], fault?: Fault): RecordedForm {
  const words = overrides.map(([word, value]) => ({ word, value }));
  const only: Case = { code: Uint8Array.from(code), codeOffset: CODE_START, step: false, overrides: words };
  const source: RecordedForm = { form, profile: 'integer', cases: [only], recordings: [] };
  const registers = new BigUint64Array(Word.count);
  establishInput(source, 0, registers, baselineMemory());
  if (!fault) registers[Word.rip] += BigInt(code.length);
  source.recordings.push({ fault, registers, memory: [] });
  return source;
}

function vectorOf(source: RecordedForm): Vector {
  return decodeVectors(encodeVectors([source])).next().value as Vector;
}

function outcomeOf({ expected }: Vector): Outcome {
  return { fault: expected.fault, registers: expected.registers.slice(), memory: expected.memory.slice() };
}

describe('comparing outcomes', () => {
  it('names a register that differs', () => {
    const vector = vectorOf(recorded('MOV Gv,Ev/64/reg', [0x48, 0x89, 0xd8]));
    const actual = outcomeOf(vector);
    actual.registers[Word.gpr] ^= 1n;
    expect(compareOutcome(vector, actual).map(({ what }) => what)).toEqual(['rax']);
  });

  it('names a memory word by its address', () => {
    const vector = vectorOf(recorded('MOV Ev,Gv/64/mem', [0x48, 0x89, 0x03]));
    const actual = outcomeOf(vector);
    actual.memory[DATA.offset + 0x13] ^= 0x80;
    expect(compareOutcome(vector, actual).map(({ what }) => what)).toEqual(['[20000010]']);
  });

  it('tells a missing fault, another error code and another address apart from the expected fault', () => {
    const fault = { vector: 14, errorCode: 6, address: 0x1234n };
    const vector = vectorOf(recorded('MOV Ev,Gv/64/mem', [0x48, 0x89, 0x03], [], fault));
    const actual = outcomeOf(vector);
    expect(compareOutcome(vector, actual)).toEqual([]);
    for (const other of [undefined, { ...fault, errorCode: 4 }, { ...fault, address: 0x1235n }, { ...fault, vector: 13 }]) {
      expect(compareOutcome(vector, { ...actual, fault: other }).map(({ what }) => what)).toEqual(['fault']);
    }
  });

  it.each([
    ['AND Ev,Gv/32/reg', [0x21, 0xd8], Flag.adjust],
    ['MUL Ev/32/reg', [0xf7, 0xe3], Flag.sign | Flag.zero | Flag.adjust | Flag.parity],
    ['SHL Ev,Ib/32/reg', [0xc1, 0xe0, 2], Flag.adjust | Flag.overflow],
    ['SHL Ev,1/32/reg', [0xd1, 0xe0], Flag.adjust],
    ['SHL Ev,Ib/32/reg', [0xc1, 0xe0, 32], 0],
    ['SHR Eb,Ib/reg', [0xc0, 0xe8, 8], Flag.adjust | Flag.overflow | Flag.carry],
    ['SAR Eb,Ib/reg', [0xc0, 0xf8, 8], Flag.adjust | Flag.overflow],
    ['ROL Ev,Ib/64/reg', [0x48, 0xc1, 0xc0, 33], Flag.overflow],
    ['ADD Ev,Gv/64/reg', [0x48, 0x01, 0xd8], 0],
  ])('%s of %j leaves exactly its undefined flags out', (form, code, undefinedFlags) => {
    const vector = vectorOf(recorded(form as string, code as number[]));
    for (const bit of [Flag.carry, Flag.parity, Flag.adjust, Flag.zero, Flag.sign, Flag.overflow, Flag.direction]) {
      const actual = outcomeOf(vector);
      actual.registers[Word.rflags] ^= BigInt(bit);
      expect(compareOutcome(vector, actual).length, `flag ${bit.toString(16)}`).toBe((undefinedFlags as number) & bit ? 0 : 1);
    }
  });

  it('takes a count from CL', () => {
    const vector = vectorOf(recorded('SHL Ev,CL/32/reg', [0xd3, 0xe0], [[Word.gpr + 1, 0x20n]]));
    const actual = outcomeOf(vector);
    actual.registers[Word.rflags] ^= BigInt(Flag.overflow);
    expect(compareOutcome(vector, actual)).toHaveLength(1);
  });

  it('compares flags that are undefined only after the instruction when it faults', () => {
    const fault = { vector: 14, errorCode: 4, address: 0n };
    const vector = vectorOf(recorded('MUL Ev/32/mem', [0xf7, 0x23], [], fault));
    const actual = outcomeOf(vector);
    actual.registers[Word.rflags] ^= BigInt(Flag.zero);
    expect(compareOutcome(vector, actual)).toHaveLength(1);
  });

  it('allows reciprocals their 12 bits and no less', () => {
    const vector = vectorOf(recorded('RCPSS Vss,Wss/reg', [0xf3, 0x0f, 0x53, 0xc1], [[Word.xmm, 0x3f80_0000n]]));
    const withResult = (bits: bigint): Outcome => {
      const actual = outcomeOf(vector);
      actual.registers[Word.xmm] = bits;
      return actual;
    };
    expect(compareOutcome(vector, withResult(0x3f80_0800n))).toEqual([]);
    expect(compareOutcome(vector, withResult(0x3f80_2000n))).toHaveLength(1);
    expect(compareOutcome(vector, withResult(0x7fc0_0000n))).toHaveLength(1);
  });

  it('takes any address in the page of a fault in a large operand, and of no other', () => {
    const fault = { vector: 14, errorCode: 6, address: 0x11ffn };
    for (const [form, lengths] of [['FXSAVE M/mem', [0, 1]], ['MOV Ev,Gv/64/mem', [1, 1]]] as const) {
      const vector = vectorOf(recorded(form, [0x0f, 0xae, 0x03], [], fault));
      const actual = outcomeOf(vector);
      const faults = [0x1000n, 0x2000n].map((address) => ({ ...fault, address }));
      expect(faults.map((other) => compareOutcome(vector, { ...actual, fault: other }).length)).toEqual(lengths);
    }
  });

  it('leaves MXCSR flags out only if told so, and never its controls', () => {
    const vector = vectorOf(recorded('ADDPS Vps,Wps/reg', [0x0f, 0x58, 0xc1]));
    const actual = outcomeOf(vector);
    actual.registers[Word.mxcsr] ^= 0x21n;
    expect(compareOutcome(vector, actual, EXACT)).toHaveLength(1);
    expect(compareOutcome(vector, actual, { mxcsrFlags: 'ignore' })).toEqual([]);
    actual.registers[Word.mxcsr] ^= 0x40n;
    expect(compareOutcome(vector, actual, { mxcsrFlags: 'ignore' })).toHaveLength(1);
  });
});

describe('replaying', () => {
  const simdException = { vector: 19, errorCode: 0, address: 0n };
  const file = encodeVectors([
    recorded('INC Ev/32/reg', [0xff, 0xc0]),
    recorded('ADDPS Vps,Wps/reg', [0x0f, 0x58, 0xc1], [[MEMORY_WORD + DATA.offset / 8, 1n]], simdException),
  ]);
  const wrong: ConformanceTarget = {
    name: 'wrong',
    run: (vector) => {
      const outcome = outcomeOf(vector);
      outcome.registers[Word.gpr + 2] = 42n;
      return outcome;
    },
  };

  it('counts mismatches by form and says what was run, on what and what came of it', () => {
    const summary = replay(file, wrong);
    expect([...summary.failing.keys()]).toEqual(['INC Ev/32/reg', 'ADDPS Vps,Wps/reg']);
    const text = formatSummary(summary);
    expect(text).toContain('2 of 2 vectors mismatch');
    expect(text).toContain('ff c0  inc eax');
    expect(text).toMatch(/rdx: expected [0-9a-f]{16}\n.*wrong.*000000000000002a/);
  });

  it('skips what a policy rejects, and #XM where MXCSR flags are ignored', () => {
    const summary = replay(file, wrong, { mxcsrFlags: 'ignore', accepts: ({ form }) => !form.startsWith('INC') });
    expect(summary).toMatchObject({ vectors: 0, skipped: 2, mismatchCount: 0 });
  });

  it('shows vector registers where they matter', () => {
    const vector = vectorOf(recorded('ADDPS Vps,Wps/reg', [0x0f, 0x58, 0xc1]));
    expect(describeMismatch(vector, [{ what: 'xmm0.low', expected: '0', actual: '1' }]).report).toContain('xmm15');
  });
});
