/** MMX registers as x87 instructions find them. What one instruction does, recorded vectors say; these begin with empty registers. */

import { describe, expect, it } from 'vitest';
import { EngineBench } from '../../tests/engine-bench.ts';
import * as state from '../cpu/state.ts';

const CODE = 0x40_0000n;
/** FNINIT; FLDPI; FLDPI; PADDB mm6, mm7. It adds to the first of them that was loaded, physical register 7, what is in the other. */
const ADD = 'dbe3 d9eb d9eb 0ffcf7';
const PI = { significand: 0xc90f_daa2_2168_c235n, exponent: 0x4000 };

describe.each([['interpreted', false], ['compiled', 'force']] as const)('an MMX register, %s', (_, jit) => {
  const bench = new EngineBench({ jit });
  const run = (code: string): void => {
    bench.reset();
    const frame = bench.frame();
    bench.map(CODE, frame);
    bench.memory.write(frame, Uint8Array.from(Buffer.from(`${code.replaceAll(' ', '')}f4`, 'hex')));
    bench.start({ rip: CODE });
    expect(bench.run().kind).toBe('halt');
  };
  const exponent = (register: number): number => bench.vcpu.get32(state.FPR + 16 * register + 8) & 0xffff;

  it('that is written has an exponent of all ones, one that is read keeps its own', () => {
    run(ADD);
    expect(exponent(6)).toBe(0xffff);
    expect(exponent(7)).toBe(PI.exponent);
    expect(bench.vcpu.get64(state.FPR + 16 * 7)).toBe(PI.significand);
    expect(bench.vcpu.get32(state.FTW)).toBe(0xff);
    expect(bench.vcpu.get32(state.FSW) & state.FSW_TOP).toBe(0);
  });

  it('that would be written on the other way keeps its exponent', () => {
    // MOVQ mm0, mm1; a jump over PXOR mm7, mm7; MOVQ mm2, mm1.
    run('dbe3 d9eb d9eb 0f6fc1 31c0 7403 0fefff 0f6fd1');
    expect(exponent(0)).toBe(0xffff);
    expect(exponent(2)).toBe(0xffff);
    expect(exponent(7)).toBe(PI.exponent);
  });

  it('of a processor that leaves MMX by EMMS is at the top of an empty stack', () => {
    run('dbe3 d9eb 0f77');
    expect(bench.vcpu.get32(state.FTW)).toBe(0);
    expect(bench.vcpu.get32(state.FSW) & state.FSW_TOP).toBe(0);
  });
});
