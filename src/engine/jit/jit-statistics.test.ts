/** What the JIT reports is what happened, and asking for it changes nothing else. */

import { describe, expect, it } from 'vitest';
import { type GuestProgram, MachineBench } from '../../../tests/machine-bench.ts';
import { rax, rbx, rcx, rsi } from '../../guest/assembler/operands.ts';
import { disassemble } from '../../wasm/disassembler.ts';

const ROUNDS = 2_000_000;
/** A loop of five instructions, and in another one that is left for CPUID, which compiled code does not have. */
const LOOPS: GuestProgram = {
  main: (a) => {
    a.mov(rcx, ROUNDS).mov(rbx, 0).label('again').add(rbx, rcx).mov(rax, rbx).xor(rax, 5).dec(rcx).jnz('again');
    a.mov(rsi, ROUNDS / 2).label('more').xor(rax, rax).mov(rcx, 0).cpuid().dec(rsi).jnz('more');
  },
};

/** In small slices: what is hot is compiled between them. */
function run(jitClock?: () => number): MachineBench {
  const bench = new MachineBench(LOOPS, { jit: true, jitClock });
  while (bench.run({ instructions: 10_000 }).kind === 'budget');
  return bench.finish();
}

describe('what the JIT did', () => {
  it('is told of the code, always', () => {
    const report = run().machine.jitReport();
    expect(report?.run).toBeUndefined();
    expect(report?.regions).toBeGreaterThanOrEqual(2);
    expect(report?.instructions).toBeGreaterThanOrEqual(5);
    expect(report?.guestBytes).toBeGreaterThanOrEqual(5 * 2);
    expect(report?.wasmBytes).toBeGreaterThan(200);
    expect(report?.uncompiled).toMatchObject({ CPUID: expect.any(Number) });
    expect(new MachineBench(LOOPS, { jit: false }).machine.jitReport()).toBeUndefined();
  });

  it('is counted as it happens, if a clock is given', () => {
    let ticks = 0;
    const { machine } = run(() => ++ticks);
    const counted = machine.jitReport()?.run;
    expect(counted?.instructions).toBe(machine.instructions);
    // All of the first loop but what it takes to become hot, and two of six instructions of the second up to the one that leaves.
    expect(counted?.compiledInstructions).toBeGreaterThan(2 * ROUNDS);
    expect(counted?.compiledInstructions).toBeLessThan(machine.instructions - (3 * ROUNDS) / 2);
    expect(counted?.uncompiled.CPUID).toBeGreaterThan(ROUNDS / 2 / 8);
    expect(counted?.uncompiled.CPUID).toBeLessThanOrEqual(ROUNDS / 2);
    expect(counted?.exits.uncompiled).toBe(Object.values(counted?.uncompiled ?? {}).reduce((sum, count) => sum + count, 0));
    expect(counted?.buildMilliseconds).toBeGreaterThan(0);
    expect(counted?.compileMilliseconds).toBeGreaterThan(0);
  });

  it('is the same run as without a clock', () => {
    const [plain, counting] = [run().machine, run(() => 0).machine];
    expect(counting.instructions).toBe(plain.instructions);
    expect(counting.counters()).toEqual(plain.counters());
  });

  it('has the regions at an address, with their code as it was compiled', () => {
    const bench = run(() => 0);
    const address = BigInt(bench.address('again'));
    const [region] = bench.machine.regionsAt(address);
    expect(region.codeBits).toBe(64);
    const block = region.blocks.find((candidate) => candidate.address === address);
    expect([...(block?.bytes ?? [])]).toEqual([...bench.machine.memory.slice(bench.address('again'), block?.bytes.length ?? 1)]);
    const wasm = disassemble(region.module).find(({ name }) => name === region.name);
    expect(wasm?.lines.some((line) => line.includes('i64.add'))).toBe(true);
    // The marks lie in the function, one behind the other, and at instructions of its blocks.
    const offsets = region.marks.map(({ offset }) => offset);
    expect(offsets).toEqual(offsets.toSorted((a, b) => a - b));
    expect(offsets.at(-1)).toBeLessThan(wasm?.bytes ?? 0);
    expect(region.marks.map((mark) => mark.address)).toContain(address);
    expect(bench.machine.regionsAt(0x1234n)).toEqual([]);
  });
});
