/** 5-level paging (CR4.LA57): 57-bit addresses, what is canonical then, and what goes by the processor whatever paging is in use. SDM 3A 4.5. */
import { beforeEach, describe, expect, it } from 'vitest';
import { EngineBench, FREE, LARGE_PAGE, Pf, Pte, READ_WRITE, type Stop, USER_READ_WRITE } from '../../tests/engine-bench.ts';
import { writeCr4 } from '../cpu/control-registers.ts';
import { MAX_CPU_MODEL } from '../cpu/cpu-model.ts';
import { Msr, writeCpuMsr } from '../cpu/msr.ts';
import * as state from '../cpu/state.ts';
import { Cr4 } from '../cpu/vcpu.ts';
import type { Assembler } from '../guest/assembler/assembler.ts';
import { ebx, mem, rax, rdi } from '../guest/assembler/operands.ts';

const bench = new EngineBench({ model: MAX_CPU_MODEL });
const CODE = 0x40_0000n;
const [GP, SS, PF] = [13, 12, 14];
/** Only with five levels there is such an address: bits 56 to 48 are 2. */
const WIDE = 0x0002_7000_1234_5000n;
/** Bit 56 is set and nothing above it. */
const NOT_CANONICAL = 0x0100_0000_0000_0000n;
let root5 = 0;

beforeEach(() => {
  bench.reset();
  const { vcpu } = bench;
  root5 = bench.newTable();
  for (const index of [0, 511]) bench.writePhysical(root5 + 8 * index, BigInt(bench.root) | USER_READ_WRITE);
  vcpu.set64(state.CR4, vcpu.get64(state.CR4) | Cr4.la57);
  vcpu.set64(state.CANONICAL_SHIFT, 7n);
  vcpu.set64(state.CR3, BigInt(root5));
  vcpu.mmu.flushAll(vcpu.base);
});

/** A top-level entry for `virtual`, with four levels of its own below. */
function mapWide(virtual: bigint, physical: number, { flags = READ_WRITE, top = USER_READ_WRITE, pageBytes = 4096 } = {}): void {
  const root = bench.newTable();
  bench.writePhysical(root5 + 8 * Number((virtual >> 48n) & 511n), BigInt(root) | top);
  bench.map(virtual, physical, flags, { root, pageBytes });
}

/** What comes of code that finds `address` in RDI; of a read, where no other is given. */
function read(address: bigint, build: (a: Assembler) => void = (a) => void a.mov(rax, mem(rdi)).hlt(), cpl: 0 | 3 = 0): Stop {
  bench.program(CODE, build, cpl ? USER_READ_WRITE : READ_WRITE);
  bench.vcpu.set64(state.RDI, address);
  bench.start({ rip: CODE, cpl });
  return bench.run();
}

describe('an address of 57 bits', () => {
  it('is looked up by way of the fifth level', () => {
    mapWide(WIDE, FREE + 0x10_0000);
    bench.writePhysical(FREE + 0x10_0008, 0x1234_5678n);
    expect(read(WIDE + 8n)).toMatchObject({ kind: 'halt' });
    expect(bench.vcpu.get64(state.RAX)).toBe(0x1234_5678n);
    // Each level on the way was marked.
    expect(bench.readPhysical(root5 + 8 * 2) & Pte.accessed).toBe(Pte.accessed);
  });

  it('may lie in a large page', () => {
    mapWide(WIDE, 0, { pageBytes: LARGE_PAGE });
    bench.writePhysical(FREE + 8, 77n);
    expect(read((WIDE & ~0x1f_ffffn) + BigInt(FREE) + 8n)).toMatchObject({ kind: 'halt' });
    expect(bench.vcpu.get64(state.RAX)).toBe(77n);
  });

  it('has code, too', () => {
    mapWide(WIDE, FREE + 0x10_0000);
    bench.code(FREE + 0x10_0000, (a) => void a.mov(ebx, 5).hlt());
    expect(read(WIDE, (a) => void a.jmp(rdi))).toMatchObject({ kind: 'halt', rip: WIDE + 6n });
    expect(bench.vcpu.get64(state.RBX)).toBe(5n);
  });

  it.each([
    ['is not present', USER_READ_WRITE & ~Pte.present, 0 as const, 0],
    ['has PS set, which is reserved', USER_READ_WRITE | Pte.large, 0 as const, Pf.present | Pf.reserved],
    ['has an address bit that is reserved', USER_READ_WRITE | (1n << 51n), 0 as const, Pf.present | Pf.reserved],
    ['is the supervisor’s', READ_WRITE, 3 as const, Pf.present | Pf.user],
  ])('faults where the top-level entry %s', (_what, top, cpl, errorCode) => {
    mapWide(WIDE, FREE + 0x10_0000, { top, flags: USER_READ_WRITE });
    expect(read(WIDE, undefined, cpl)).toMatchObject({ kind: 'trap', vector: PF, errorCode, cr2: WIDE });
  });

  it('is canonical where bits 63 to 57 repeat bit 56', () => {
    expect(read(NOT_CANONICAL)).toMatchObject({ vector: GP, errorCode: 0 });
    expect(read(-NOT_CANONICAL)).toMatchObject({ vector: PF });
    expect(read(NOT_CANONICAL - 8n)).toMatchObject({ vector: PF });
    // What ends beyond the last one, too, before any page is looked at: so do real processors.
    expect(read(NOT_CANONICAL - 4n)).toMatchObject({ vector: GP, errorCode: 0 });
  });

  it('on the stack raises #SS where it is not', () => {
    bench.program(CODE, (a) => void a.push(rax).hlt(), USER_READ_WRITE);
    expect(bench.trapOf({ rip: CODE, rsp: NOT_CANONICAL, cpl: 3 })).toMatchObject({ vector: PF });
    expect(bench.trapOf({ rip: CODE, rsp: NOT_CANONICAL + 8n, cpl: 3 })).toMatchObject({ vector: SS });
  });

  it('as a target of a jump is taken where it is canonical', () => {
    const jump = (a: Assembler): void => void a.jmp(rdi);
    expect(read(0x0000_8000_0000_0000n, jump)).toMatchObject({ vector: PF, rip: 0x0000_8000_0000_0000n });
    expect(read(NOT_CANONICAL, jump)).toMatchObject({ vector: GP, rip: CODE });
  });
});

describe('LA57', () => {
  it('stays as it is in long mode', () => {
    const { vcpu } = bench;
    expect(() => writeCr4(vcpu, vcpu.get64(state.CR4) & ~Cr4.la57)).toThrow();
    writeCr4(vcpu, vcpu.get64(state.CR4) | Cr4.tsd);
    expect(vcpu.get64(state.CANONICAL_SHIFT)).toBe(7n);
  });

  it('does not decide what MSRs take: the processor’s width does', () => {
    const narrow = new EngineBench();
    for (const msr of [Msr.lstar, Msr.fsBase, Msr.sysenterEip]) {
      expect(writeCpuMsr(bench.vcpu, msr, WIDE)).toBe('done');
      expect(writeCpuMsr(bench.vcpu, msr, NOT_CANONICAL)).toBe('gp');
      expect(writeCpuMsr(narrow.vcpu, msr, WIDE)).toBe('gp');
    }
    bench.reset();
    expect(writeCpuMsr(bench.vcpu, Msr.lstar, WIDE)).toBe('done');
  });
});
