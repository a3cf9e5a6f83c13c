/** That the comparison finds what differs, and where: one machine is tampered with. */

import { describe, expect, it } from 'vitest';
import * as state from '../../src/cpu/state.ts';
import { rax, rbx, rcx } from '../../src/guest/assembler/operands.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { type GuestProgram, MachineBench } from '../machine-bench.ts';
import { runLockstep } from './lockstep.ts';

/** Half a million rounds of a few instructions. */
const LOOP: GuestProgram = {
  main: (a) => a.mov(rcx, 500_000).mov(rbx, 0).label('again').add(rbx, rcx).mov(rax, rbx).dec(rcx).jnz('again'),
};
const machine = (jit: boolean | 'force') => (): Machine => new MachineBench(LOOP, { jit, vcpus: 2 }).machine;

/** A machine that goes wrong once `instructions` have been retired. */
function tampered(instructions: number, tamper: (machine: Machine) => void) {
  return (): Machine => {
    const made = machine(true)();
    const run = made.run.bind(made);
    let done = false;
    made.run = (budget) => {
      const result = run(budget);
      if (!done && made.instructions >= instructions) {
        done = true;
        tamper(made);
      }
      return result;
    };
    return made;
  };
}

describe('two machines in lockstep', () => {
  it.each([true, 'force'] as const)('are the same run, interpreted and compiled: %s', (jit) => {
    const result = runLockstep({ left: machine(false), right: machine(jit), every: 10_000, memoryEvery: 10 });
    expect(result.difference).toBeUndefined();
    expect(result).toMatchObject({ end: expect.stringMatching(/^debug-exit/) });
    expect(result.instructions).toBeGreaterThan(2_000_000);
    expect(result.slices).toBeGreaterThan(190);
    expect(result.memoryComparisons).toBeGreaterThan(18);
  });

  it('are found to differ in a register, within a block of where they began to', () => {
    const right = tampered(777_777, ({ engine }) => engine.vcpus[0].set64(state.R11, 42n));
    const { difference } = runLockstep({ left: machine(false), right, every: 10_000, memoryEvery: 1000 });
    expect(difference?.differences).toEqual([expect.stringMatching(/^vCPU 0 r11: 0x\w+ and 0x2a$/)]);
    expect(difference?.before).toBeGreaterThanOrEqual(777_777);
    expect((difference?.before ?? 0) - (difference?.after ?? 0)).toBeLessThan(64);
    expect(difference?.after).toBeLessThanOrEqual(777_777 + 64);
  });

  it('are found to differ in a byte of RAM', () => {
    const right = tampered(500_000, ({ memory }) => {
      memory.bytes[memory.linear(0x30_0010)] ^= 1;
    });
    const { difference } = runLockstep({ left: machine(false), right, every: 10_000, memoryEvery: 20 });
    expect(difference?.differences).toEqual([expect.stringMatching(/^RAM at 0x300010: 0x\w+ and 0x\w+$/)]);
    expect((difference?.before ?? 0) - (difference?.after ?? 0)).toBeLessThan(64);
  });
});
