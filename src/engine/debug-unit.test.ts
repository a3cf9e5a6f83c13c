/** What breakpoints must not change. That they are met is tested by a guest (tests/system/guests/debug.asm). */
import { beforeEach, describe, expect, it } from 'vitest';
import { EngineBench, FREE, USER_READ_WRITE } from '../../tests/engine-bench.ts';
import * as state from '../cpu/state.ts';
import { al, dx } from '../guest/assembler/operands.ts';

const bench = new EngineBench();
const [CODE, DATA, DEVICE] = [0x40_0000n, 0x50_0000n, 0x60_0000n];
const PORT = 0x80;
const WRITES = 1n << 16n;
const PORTS = 2n << 16n;

beforeEach(() => {
  bench.reset();
  bench.map(DATA, FREE + 0x10_0000);
  bench.map(DEVICE, 0xfed0_0000);
});

function arm(address: bigint, condition: bigint): void {
  const { vcpu } = bench;
  vcpu.set64(state.CR4, vcpu.get64(state.CR4) | 8n);
  vcpu.set64(state.DR, address);
  vcpu.set64(state.DR + 56, 0x402n | condition);
  vcpu.mmu.debugRegistersChanged(vcpu.base);
}

describe('a breakpoint met behind an access to a device', () => {
  it('on what the value is stored to does not repeat the access', () => {
    bench.program(CODE, (a) => void a.movsb().hlt());
    arm(DATA, WRITES);
    bench.vcpu.set64(state.RSI, DEVICE);
    bench.vcpu.set64(state.RDI, DATA);
    expect(bench.trapOf({ rip: CODE })).toMatchObject({ vector: 1, rip: CODE + 1n });
    expect(bench.accesses).toEqual(['read 1 @fed00000']);
  });

  it('on the port that it is written to does not repeat it either', () => {
    bench.program(CODE, (a) => void a.outsb().hlt());
    arm(BigInt(PORT), PORTS);
    bench.vcpu.set64(state.RSI, DEVICE);
    bench.vcpu.set64(state.RDX, BigInt(PORT));
    expect(bench.trapOf({ rip: CODE })).toMatchObject({ vector: 1, rip: CODE + 1n });
    expect(bench.accesses).toEqual(['read 1 @fed00000', 'out 1 @80 = 0']);
  });

  it('is not met by what nobody watches', () => {
    bench.program(CODE, (a) => void a.in(al, dx).hlt());
    arm(DATA, WRITES);
    bench.vcpu.set64(state.RDX, 0n);
    bench.start({ rip: CODE });
    expect(bench.run()).toMatchObject({ kind: 'halt' });
    expect(bench.accesses).toEqual(['in 1 @0']);
  });
});

describe('FXSAVE outside of 64-bit mode', () => {
  it('leaves the place of XMM8 to XMM15 alone', () => {
    const { vcpu, memory } = bench;
    bench.map(CODE, FREE + 0x20_0000, USER_READ_WRITE);
    bench.map(DATA, FREE + 0x10_0000, USER_READ_WRITE);
    bench.code(FREE + 0x20_0000, (a) => void a.db(0x0f, 0xae, 0x00, 0xcd, 0x80));
    memory.slice(FREE + 0x10_0000, 512).fill(0x77);
    memory.bytes.fill(0xaa, bench.engine.scratch, bench.engine.scratch + 512);
    bench.start({ rip: CODE, cpl: 3 });
    bench.enterCompatibilityMode();
    vcpu.set64(state.RAX, DATA);
    expect(bench.run()).toMatchObject({ kind: 'trap', vector: 0x80 });
    expect(memory.slice(FREE + 0x10_0000 + 160 + 128, 128).every((byte) => byte === 0x77)).toBe(true);
  });
});
