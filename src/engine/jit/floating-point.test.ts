/**
 * Random programs of x87, SSE and MMX instructions, in loops that become hot, leave the same registers, flags and memory interpreted and
 * compiled. They over- and underflow the stack, meet NaNs and denormals, and branch.
 */

import { describe, expect, it } from 'vitest';
import { EngineBench, JIT_EARLY } from '../../../tests/engine-bench.ts';
import * as state from '../../cpu/state.ts';
import { RandomSource } from '../../machine/random.ts';

const CODE = 0x40_0000n;
const DATA = 0x60_0000n;
const DATA_BYTES = 128;
/** Enough for a block to become hot, and then some. */
const ITERATIONS = 12_000;
const BUDGET = 4_000_000;
const SLICE = 20_000;
/** FCW and MXCSR from here to `FPR`'s end, and the general registers. */
const COMPARED = [[0, state.ZERO], [state.FLAG_ZERO, state.RFLAGS + 8], [state.XMM, state.MXCSR + 4], [state.FPR, state.FDP + 8]] as const; // biome-ignore format: ranges

/** Control words in the data: to nearest, and three others, of which one has 53 bits of precision. */
const CONTROLS_AT = 0x60;
const CONTROLS = [0x37f, 0x77f, 0xf7f, 0x27f];

type Kind = 'x87' | 'sse' | 'mmx';

class Programs {
  private readonly random: RandomSource;
  private depth = 0;

  constructor(seed: number) {
    this.random = new RandomSource(seed);
  }

  below(n: number): number {
    return this.random.next32() % n;
  }

  private oneOf<T>(...list: T[]): T {
    return list[this.below(list.length)];
  }

  /** [rsi + displacement], in data that holds numbers. */
  private memory(digit: number): number[] {
    return [0x46 | (digit << 3), 8 * this.below(10)];
  }

  private register(): number {
    return this.below(Math.max(1, this.depth));
  }

  private push(): number[] {
    this.depth++;
    const i = this.below(Math.max(1, this.depth - 1));
    return this.oneOf([0xd9, 0xe8], [0xd9, 0xee], [0xd9, 0xeb], [0xd9, 0xc0 + i], [0xdd, ...this.memory(0)], [0xdd, ...this.memory(0)], [0xd9, ...this.memory(0)], [0xdb, ...this.memory(5)], [0xdf, ...this.memory(5)], [0xdb, ...this.memory(0)]);
  }

  private pop(): number[] {
    const i = this.register();
    this.depth--;
    return this.oneOf([0xde, 0xc0 + i], [0xde, 0xc8 + i], [0xde, 0xe0 + i], [0xde, 0xe8 + i], [0xde, 0xf8 + i], [0xdd, 0xd8 + i], [0xdd, ...this.memory(3)], [0xd9, ...this.memory(3)], [0xdb, ...this.memory(7)], [0xdf, ...this.memory(7)], [0xdd, ...this.memory(1)], [0xd8, 0xd8 + i]);
  }

  private neutral(): number[] {
    const i = this.register();
    const digit = this.oneOf(0, 1, 4, 5, 6, 7);
    return this.oneOf(
      [0xd8, 0xc0 + 8 * digit + i], [0xdc, 0xc0 + 8 * digit + i], [0xd9, 0xc8 + i], [0xd9, 0xc8 + i], [0xd9, 0xe0], [0xd9, 0xe1], [0xdc, ...this.memory(digit)], [0xd8, ...this.memory(digit)],
      [0xda, ...this.memory(digit)], [0xd9, 0xe5], [0xdf, 0xe0], [0xdb, 0xf0 + i], [0xdb, 0xe8 + i], [0xd8, 0xd0 + i], [0xdd, 0xd0 + i], [0xda, 0xc0 + i], [0xdb, 0xc8 + i], [0xd9, 0xfa], [0xd9, 0xfc],
      [0xd9, 0x6e, CONTROLS_AT + 2 * this.below(8)], [0xd9, 0x7e, 0x50 + 2 * this.below(8)], [0xd9, 0xe4], [0x9b],
    ); // biome-ignore format: a table
  }

  private sse(): number[] {
    const prefix = this.oneOf([], [0x66], [0xf2], [0xf3]);
    const modrm = this.below(3) ? [0xc0 | this.below(64)] : this.memory(this.below(8)).map((byte, i) => (i ? byte & 0x70 : byte));
    const opcode = this.oneOf(0x58, 0x58, 0x59, 0x59, 0x5c, 0x5e, 0x51, 0x5d, 0x5f, 0x10, 0x28, 0x14, 0x2e, 0x2f, 0x5a, 0x57);
    const scalarOnly = opcode === 0x10;
    const packedOnly = opcode === 0x28 || opcode === 0x14 || opcode === 0x2e || opcode === 0x2f || opcode === 0x57;
    const chosen = scalarOnly ? this.oneOf([0xf2], [0xf3]) : packedOnly ? this.oneOf([], [0x66]) : prefix;
    return [...chosen, 0x0f, opcode, ...modrm];
  }

  private mmx(): number[] {
    if (this.below(40) === 0) return this.oneOf([0x0f, 0x77], [0xd9, 0xe8]);
    const opcode = this.oneOf(0xfc, 0xfd, 0xfe, 0xd4, 0xec, 0xdd, 0x74, 0x66, 0xdb, 0xeb, 0xef, 0xd5, 0xf5, 0x6f, 0x6f, 0x7f, 0x60, 0x69, 0x63, 0x67, 0xd3, 0xf1, 0x2c, 0xd7);
    const modrm = opcode === 0xd7 || this.below(3) ? [0xc0 | (this.below(8) & (opcode === 0xd7 ? 1 : 7)) << 3 | this.below(8)] : this.memory(this.below(8));
    return this.below(8) ? [0x0f, opcode, ...modrm] : [0x0f, 0x6e, 0xc0 | (this.below(8) << 3) | this.below(3)];
  }

  private instruction(kind: Kind, balanced: boolean): number[] {
    if (kind === 'sse') return this.sse();
    if (kind === 'mmx') return this.mmx();
    if (!balanced && this.depth < 7 && this.below(3) === 0) return this.push();
    if (!balanced && this.depth > 1 && this.below(3) === 0) return this.pop();
    return this.neutral();
  }

  /** The body of a loop. */
  body(kind: Kind): number[] {
    const code: number[] = [];
    this.depth = 0;
    if (kind === 'x87') for (let i = 0; i < 2; i++) code.push(...this.push());
    for (let n = 10 + this.below(12); n > 0; n--) {
      if (this.below(6) > 0) code.push(...this.instruction(kind, false));
      else {
        // A branch over something, which now and then is not balanced; by the flags, or by the count.
        const skipped = Array.from({ length: 1 + this.below(3) }, () => this.instruction(kind, this.below(8) > 0)).flat();
        code.push(...this.oneOf([], [0xf6, 0xc1, 1]), this.oneOf(0x74, 0x75, 0x72, 0x76, 0x7a), skipped.length, ...skipped);
      }
    }
    // Mostly what was pushed is popped.
    if (this.below(6)) while (this.depth > 0) code.push(...this.pop());
    return code;
  }

  /** A double, as programs have them and sometimes not. */
  number(): bigint {
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, (this.below(2000) - 1000) / this.oneOf(1, 3, 7, 64), true);
    return this.below(12) ? view.getBigUint64(0, true) : this.oneOf(0n, 1n, 0x7ff0n << 48n, 0x7ff8n << 48n, 0x7ff0_0000_0000_0001n, this.random.next64());
  }
}

const benches = [JIT_EARLY, false].map((jit) => new EngineBench({ jit }));

/** Runs a loop of `body`; everything that it may have changed, as text. */
function outcome(bench: EngineBench, body: number[], data: bigint[], mxcsr: number): string[] {
  bench.reset();
  const { vcpu, memory } = bench;
  const frame = bench.frame();
  bench.map(DATA, frame);
  data.forEach((value, i) => memory.view.setBigUint64(memory.linear(frame + 8 * i), value, true));
  CONTROLS.forEach((control, i) => memory.view.setUint16(memory.linear(frame + CONTROLS_AT + 2 * i), control, true));
  // mov ecx, ITERATIONS; the body; dec ecx; jnz; hlt
  bench.program(CODE, (a) => a.db(0xb9, ITERATIONS & 0xff, ITERATIONS >> 8, 0, 0, ...body, 0xff, 0xc9, 0x0f, 0x85).dd(-(body.length + 8)).hlt());
  vcpu.set64(state.CR4, vcpu.get64(state.CR4) | 0x600n);
  vcpu.set64(state.CR0, vcpu.get64(state.CR0) & ~0xcn);
  vcpu.set64(state.RSI, DATA);
  vcpu.set32(state.FCW, 0x37f);
  vcpu.set32(state.FSW, 0);
  vcpu.set32(state.FTW, 0);
  vcpu.set32(state.MXCSR, mxcsr);
  for (let i = 0; i < 16; i++) vcpu.set64(state.XMM + 8 * i, data[i % data.length]);
  bench.start({ rip: CODE });
  // What became hot is compiled at the start of the next slice.
  let stop = bench.run(SLICE);
  for (let used = SLICE; stop.kind === 'budget' && used < BUDGET; used += SLICE) stop = bench.run(SLICE);
  const hex = (from: number, bytes: number): string => Buffer.from(memory.bytes.slice(from, from + bytes)).toString('hex');
  // Above sign and exponent a register's 16 bytes have nothing.
  for (let i = 0; i < 8; i++) memory.bytes.fill(0, vcpu.base + state.FPR + 16 * i + 10, vcpu.base + state.FPR + 16 * i + 16);
  return [JSON.stringify(stop, (_, value) => (typeof value === 'bigint' ? `${value}` : value)), ...COMPARED.map(([from, to]) => hex(vcpu.base + from, to - from)), hex(memory.linear(frame), DATA_BYTES)];
}

describe.each(['x87', 'sse', 'mmx'] as const)('random %s programs', (kind) => {
  it.each(Array.from({ length: Number(process.env.FLOAT_PROGRAMS ?? 12) }, (_, seed) => seed))('number %i leaves the same, interpreted and compiled', (seed) => {
    const programs = new Programs(seed + 1);
    const body = programs.body(kind);
    const data = Array.from({ length: DATA_BYTES / 8 }, () => programs.number());
    const mxcsr = programs.below(4) ? 0x1f80 : 0x1f80 | (programs.below(4) << 13) | (programs.below(2) << 6) | (programs.below(2) << 15);
    const [compiled, interpreted] = benches.map((bench) => outcome(bench, body, data, mxcsr));
    expect(compiled, Buffer.from(body).toString('hex')).toEqual(interpreted);
  });
});

it('such programs are compiled', () => {
  expect(benches[0].engine.jit?.statistics.regions).toBeGreaterThan(8);
});
