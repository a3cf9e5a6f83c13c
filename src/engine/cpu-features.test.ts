/** What depends on the processor's model, and on MXCSR, where the engine and a guest's handlers meet. */

import { describe, expect, it } from 'vitest';
import { EngineBench, HUGE_PAGE, LARGE_PAGE, Pf, READ_WRITE } from '../../tests/engine-bench.ts';
import { CPU_MODELS, type CpuModel, MAX_CPU_MODEL, parseCpuModel, withPhysicalAddresses } from '../cpu/cpu-model.ts';
import * as state from '../cpu/state.ts';
import { Cr0, Cr4 } from '../cpu/vcpu.ts';

const CODE = 0x40_0000n;
const DATA = 0x60_0000n;
const [UNDEFINED_OPCODE, GENERAL_PROTECTION, PAGE_FAULT, SIMD_EXCEPTION] = [6, 13, 14, 19];

function model(text: string): CpuModel {
  const result = parseCpuModel(text);
  if (!result.ok) throw new Error(result.error);
  return result.value;
}

/** Puts code, given in hexadecimal, at CODE, a HLT behind it, and data at DATA. */
function prepare(bench: EngineBench, code: string): void {
  bench.reset();
  const frame = bench.frame();
  bench.map(CODE, frame);
  bench.memory.write(frame, Uint8Array.from(Buffer.from(`${code.replaceAll(' ', '')}f4`, 'hex')));
  bench.map(DATA, bench.frame());
}
/** The vector of the exception that code raises; 'halt' where it reaches the end. */
function outcome(bench: EngineBench, code: string, setUp: () => void = () => {}): number | 'halt' | 'other' {
  prepare(bench, code);
  setUp();
  bench.start({ rip: CODE });
  const stop = bench.run();
  return stop.kind === 'trap' ? stop.vector : stop.kind === 'halt' ? 'halt' : 'other';
}

/** Instructions of each feature that has some. */
const INSTRUCTIONS: Record<string, string> = {
  pni: 'f2 0f 12 c1', ssse3: '66 0f 38 00 c1', sse4_1: '66 0f 38 38 c1', sse4_2: '66 0f 38 37 c1', popcnt: 'f3 0f b8 c3', lahf_lm: '9f',
  bmi1: 'c4 e2 60 f2 c1', bmi2: 'c4 e2 63 f5 c1', adx: '66 0f 38 f6 c1', movbe: '0f 38 f0 04 25 00 00 60 00', aes: '66 0f 38 dc c1',
  pclmulqdq: '66 0f 3a 44 c1 00', sha_ni: '0f 38 c8 c1', rdpid: 'f3 0f c7 f8', clwb: '66 0f ae 34 25 00 00 60 00',
  clflushopt: '66 0f ae 3c 25 00 00 60 00', rdtscp: '0f 01 f9', fsgsbase: 'f3 48 0f ae c0',
};

describe('a feature', () => {
  const everything = new EngineBench({ model: MAX_CPU_MODEL });
  const nothing = new EngineBench({ model: model(`x86-64-v1,-rdtscp,-fsgsbase`) });
  it.each(Object.entries(INSTRUCTIONS))('%s makes its instructions exist, and nothing else does', (_, code) => {
    const withCr4 = (bench: EngineBench) => (): void => {
      // RDFSBASE wants its bit of CR4 as well, which a processor without it does not let be set.
      bench.vcpu.set64(state.CR4, bench.vcpu.get64(state.CR4) | (bench.vcpu.model.cr4 & Cr4.fsgsbase));
    };
    expect(outcome(everything, code, withCr4(everything))).toBe('halt');
    expect(outcome(nothing, code, withCr4(nothing))).toBe(UNDEFINED_OPCODE);
  });

  it('of CR4 can be set only where it is there', () => {
    // MOV CR4, RAX
    const setPcide = (bench: EngineBench) => outcome(bench, '0f 22 e0', () => bench.vcpu.set64(state.RAX, bench.vcpu.get64(state.CR4) | Cr4.pcide));
    expect(setPcide(everything)).toBe('halt');
    expect(setPcide(new EngineBench({ model: model('max,-pcid') }))).toBe(GENERAL_PROTECTION);
  });

  it('that is off leaves TZCNT and LZCNT the BSF and BSR they are without it', () => {
    const run = (bench: EngineBench, code: string): bigint => {
      outcome(bench, code, () => {
        bench.vcpu.set64(state.RAX, 77n);
        bench.vcpu.set64(state.RBX, 0n);
      });
      return bench.vcpu.get64(state.RAX);
    };
    const [tzcnt, lzcnt] = ['f3 0f bc c3', 'f3 0f bd c3'];
    expect([run(everything, tzcnt), run(everything, lzcnt)]).toEqual([32n, 32n]);
    expect([run(nothing, tzcnt), run(nothing, lzcnt)]).toEqual([77n, 77n]);
  });

  it('RDPID reads TSC_AUX', () => {
    outcome(everything, INSTRUCTIONS.rdpid, () => everything.vcpu.set64(state.TSC_AUX, 0x1234_5678n));
    expect(everything.vcpu.get64(state.RAX)).toBe(0x1234_5678n);
  });

  it.each([
    ['RDRAND', '48 0f c7 f0', 64n], ['RDRAND of 32 bits', '0f c7 f0', 32n], ['RDRAND of 16 bits', '66 0f c7 f0', 16n],
    ['RDSEED', '48 0f c7 f8', 64n], ['RDSEED of 32 bits', '0f c7 f8', 32n], ['RDSEED of 16 bits', '66 0f c7 f8', 16n],
  ])('%s fills a register with what the machine gives, sets CF and clears the other flags', (_, code, bits) => {
    const numbers = [0x0123_4567_89ab_cdefn, 0xfedc_ba98_7654_3210n];
    for (const number of numbers) {
      everything.randomNumber = number;
      outcome(everything, code, () => {
        everything.vcpu.set64(state.RAX, -1n);
        everything.vcpu.rflags |= 0x8d5n;
      });
      const kept = bits === 16n ? 0xffff_ffff_ffff_0000n : 0n;
      expect(BigInt.asUintN(64, everything.vcpu.get64(state.RAX))).toBe(kept | (number & ((1n << bits) - 1n)));
      expect(everything.vcpu.rflags & 0x8d5n).toBe(1n);
    }
  });

  it('1-GiB pages are reserved where they are not known', () => {
    const load = (bench: EngineBench): ReturnType<EngineBench['run']> => {
      prepare(bench, '8b 04 25 00 00 00 40'); // MOV EAX, [1 GiB]
      bench.map(0x4000_0000n, 0, READ_WRITE, { pageBytes: HUGE_PAGE });
      bench.start({ rip: CODE });
      return bench.run();
    };
    expect(load(everything).kind).toBe('halt');
    const stop = load(new EngineBench({ model: model('max,-pdpe1gb') }));
    expect(stop).toMatchObject({ kind: 'trap', vector: PAGE_FAULT, errorCode: Pf.present | Pf.reserved });
  });
});

describe('physical addresses', () => {
  const ABOVE = 0x3fff_fe00_0000n;
  const wide = withPhysicalAddresses(MAX_CPU_MODEL, 48);
  /** MOV EAX, [1 GiB], which is mapped to beyond 40 bits. */
  const load = (bench: EngineBench): ReturnType<EngineBench['run']> => {
    prepare(bench, '8b 04 25 00 00 00 40');
    bench.map(0x4000_0000n, 0, READ_WRITE, { pageBytes: LARGE_PAGE });
    bench.setEntry(0x4000_0000n, bench.entry(0x4000_0000n, 1) | ABOVE, 1);
    bench.start({ rip: CODE });
    return bench.run();
  };

  it('are as wide as the model says, bus and paging entries alike', () => {
    expect(load(new EngineBench({ model: MAX_CPU_MODEL }))).toMatchObject({ kind: 'trap', vector: PAGE_FAULT, errorCode: Pf.present | Pf.reserved });
    const bench = new EngineBench({ model: wide });
    expect(load(bench)).toMatchObject({ kind: 'halt' });
    expect(bench.accesses).toEqual([`read 4 @${ABOVE.toString(16)}`]);
  });

  it('bound CR3', () => {
    const load = (model: CpuModel): number | 'halt' | 'other' => {
      const bench = new EngineBench({ model });
      return outcome(bench, '0f 22 d8', () => bench.vcpu.set64(state.RAX, (1n << 45n) | bench.vcpu.get64(state.CR3)));
    };
    expect(load(MAX_CPU_MODEL)).toBe(GENERAL_PROTECTION);
    expect(load(wide)).not.toBe(GENERAL_PROTECTION);
  });
});

describe('VEX', () => {
  const bench = new EngineBench({ model: MAX_CPU_MODEL });
  it('means nothing in real and virtual-8086 mode', () => {
    /** ANDN in 32-bit code, once the mode is what `enter` makes of it. */
    const step = (enter: () => void): number | undefined => {
      prepare(bench, INSTRUCTIONS.bmi1);
      bench.start({ rip: CODE });
      bench.vcpu.set32(state.CS + state.SEGMENT_ATTRIBUTES, 0x00c0_9b00);
      bench.vcpu.set32(state.CODE_MODE, 32);
      enter();
      return bench.engine.stepInstruction(bench.vcpu)?.vector;
    };
    expect(step(() => {})).toBeUndefined();
    expect(step(() => bench.vcpu.set64(state.RFLAGS, bench.vcpu.get64(state.RFLAGS) | (1n << 17n)))).toBe(UNDEFINED_OPCODE);
    expect(step(() => bench.vcpu.set64(state.CR0, bench.vcpu.get64(state.CR0) & ~Cr0.pe))).toBe(UNDEFINED_OPCODE);
  });
});

describe('unmasked SIMD exceptions', () => {
  const bench = new EngineBench({ model: CPU_MODELS.get('x86-64-v2') as CpuModel });
  const DIVSD = 'f2 0f 5e c1';
  const one = 0x3ff0_0000_0000_0000n;
  const divideByZero = (mxcsr: number, cr4: bigint = Cr4.osxmmexcpt): number | 'halt' | 'other' =>
    outcome(bench, DIVSD, () => {
      bench.vcpu.set32(state.MXCSR, mxcsr);
      bench.vcpu.set64(state.CR4, (bench.vcpu.get64(state.CR4) & ~Cr4.osxmmexcpt) | cr4);
      bench.vcpu.set64(state.XMM, one);
      bench.vcpu.set64(state.XMM + 16, 0n);
    });

  it('raise #XM, set their flag and write no result', () => {
    expect(divideByZero(0x1d80)).toBe(SIMD_EXCEPTION);
    expect(bench.vcpu.get32(state.MXCSR)).toBe(0x1d84);
    expect(bench.vcpu.get64(state.XMM)).toBe(one);
  });

  it('are #UD to a system that has not said it handles them', () => {
    expect(divideByZero(0x1d80, 0n)).toBe(UNDEFINED_OPCODE);
  });

  it('that are masked give the default result and the flag', () => {
    expect(divideByZero(0x1f80)).toBe('halt');
    expect(bench.vcpu.get32(state.MXCSR)).toBe(0x1f84);
    expect(bench.vcpu.get64(state.XMM)).toBe(0x7ff0_0000_0000_0000n);
  });

  it('leave a loop that was compiled, at the instruction that raises them', () => {
    // ADDSD XMM0, XMM1 until it overflows: LOOP: ADDSD; DEC ECX; JNZ LOOP
    prepare(bench, 'f2 0f 58 c0 ff c9 75 f8');
    bench.vcpu.set32(state.MXCSR, 0x1b80);
    bench.vcpu.set64(state.XMM, one);
    bench.vcpu.set64(state.RCX, 0x10_0000n);
    bench.start({ rip: CODE });
    expect(bench.run(5_000_000)).toMatchObject({ kind: 'trap', vector: SIMD_EXCEPTION, rip: CODE });
    expect(bench.vcpu.get64(state.XMM)).toBe(0x7fe0_0000_0000_0000n);
    expect(bench.vcpu.get64(state.RCX)).toBe(0x10_0000n - 1023n);
  });
});
