/**
 * What a change of the page tables needs to be seen, and what of it. Each test first has the TLB filled, then changes the tables behind
 * its back, then lets the guest invalidate. SDM 3A 4.10.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { EngineBench, LARGE_PAGE, PAGE, Pte, READ_WRITE, type Stop, USER_READ_WRITE } from '../../tests/engine-bench.ts';
import * as state from '../cpu/state.ts';
import { Cr0, Cr4 } from '../cpu/vcpu.ts';
import type { Assembler } from '../guest/assembler/assembler.ts';
import { GENERATION_STEP } from './layout.ts';
import { cr3, cr4, mem, oword, r8, rax, rbx, rcx, rdi, rdx, rsi } from '../guest/assembler/operands.ts';

const bench = new EngineBench({ vcpus: 2, ramBytes: 16 * 2 ** 20 });
const CODE = 0xffff_8100_0000_0000n;
const USER_HALF = 0x7f00_0020_0000n;
const KERNEL_HALF = 0xffff_c000_0020_0000n;
const NO_FLUSH = 1n << 63n;
const GP = 13;

beforeEach(() => bench.reset());

/** A frame that holds `value` in its first word. */
function frameOf(value: bigint, pages = 1): number {
  const frame = bench.frame(pages);
  for (let page = 0; page < pages; page++) bench.writePhysical(frame + page * PAGE, value);
  return frame;
}

/** Pieces of code that run one after the other: each time to the HLT behind one. */
class Script {
  constructor(...pieces: ((a: Assembler) => void)[]) {
    bench.program(CODE, (a) => {
      for (const piece of pieces) {
        piece(a);
        a.hlt();
      }
    });
    bench.start({ rip: CODE });
  }

  next(): Stop {
    return bench.run();
  }
}
const register = (offset: number): bigint => bench.vcpu.get64(offset);
const readAll = (a: Assembler): void => void a.mov(rax, mem(rdi)).mov(rbx, mem(rsi));

describe.each([
  ['the user’s half', USER_HALF],
  ['the kernel’s half', KERNEL_HALF],
])('INVLPG in %s', (_name, address) => {
  it('makes a changed entry seen, of that page', () => {
    bench.map(address, frameOf(1n));
    bench.map(address + 0x1000n, frameOf(10n));
    bench.vcpu.set64(state.RDI, address);
    bench.vcpu.set64(state.RSI, address + 0x1000n);
    const script = new Script(readAll, readAll, (a) => readAll(a.invlpg(mem(rdi, 0xfff))));
    script.next();
    bench.map(address, frameOf(2n));
    bench.map(address + 0x1000n, frameOf(20n));
    script.next();
    // The TLB held both: without that, this test would show nothing.
    expect([register(state.RAX), register(state.RBX)]).toEqual([1n, 10n]);
    script.next();
    expect([register(state.RAX), register(state.RBX)]).toEqual([2n, 10n]);
  });

  it('makes an entry that was cleared fault', () => {
    bench.map(address, frameOf(1n));
    bench.vcpu.set64(state.RDI, address);
    const script = new Script((a) => a.mov(rax, mem(rdi)), (a) => a.invlpg(mem(rdi)).mov(rax, mem(rdi)));
    script.next();
    bench.setEntry(address, 0n);
    expect(script.next()).toMatchObject({ kind: 'trap', vector: 14, errorCode: 0, cr2: address });
  });

  it('of a large page drops every part of it', () => {
    bench.map(address, LARGE_PAGE, READ_WRITE, { pageBytes: LARGE_PAGE });
    bench.writePhysical(LARGE_PAGE + 0x5000, 1n);
    bench.writePhysical(2 * LARGE_PAGE + 0x5000, 2n);
    bench.vcpu.set64(state.RDI, address + 0x5000n);
    bench.vcpu.set64(state.RSI, address + 0x1f_f000n);
    const script = new Script(readAll, readAll, (a) => readAll(a.invlpg(mem(rsi))));
    script.next();
    bench.map(address, 2 * LARGE_PAGE, READ_WRITE, { pageBytes: LARGE_PAGE });
    script.next();
    expect(register(state.RAX)).toBe(1n);
    script.next();
    expect(register(state.RAX)).toBe(2n);
  });

  it('of a global page drops it from every PCID', () => {
    bench.vcpu.set64(state.CR4, bench.vcpu.get64(state.CR4) | Cr4.pcide);
    bench.vcpu.mmu.flushAll(bench.vcpu.base);
    const root = BigInt(bench.root);
    bench.map(address, frameOf(1n), READ_WRITE | Pte.global);
    bench.vcpu.set64(state.RDI, address);
    const [one, two] = [root | 1n | NO_FLUSH, root | 2n | NO_FLUSH];
    const script = new Script(
      (a) => a.mov(rcx, one).mov(cr3, rcx).mov(rax, mem(rdi)).mov(rdx, two).mov(cr3, rdx).mov(rax, mem(rdi)),
      (a) => a.invlpg(mem(rdi)).mov(rax, mem(rdi)).mov(cr3, rcx).mov(rbx, mem(rdi)),
    );
    script.next();
    expect(register(state.RAX)).toBe(1n);
    bench.map(address, frameOf(2n), READ_WRITE | Pte.global);
    script.next();
    expect([register(state.RAX), register(state.RBX)]).toEqual([2n, 2n]);
  });

  it('makes code that was mapped elsewhere run from there', () => {
    const [first, second] = [bench.frame(), bench.frame()];
    bench.code(first, (a) => a.mov(rax, 1).ret());
    bench.code(second, (a) => a.mov(rax, 2).ret());
    bench.map(address, first);
    bench.vcpu.set64(state.RDI, address);
    const script = new Script((a) => a.call(rdi), (a) => a.invlpg(mem(rdi)).call(rdi));
    script.next();
    expect(register(state.RAX)).toBe(1n);
    bench.map(address, second);
    script.next();
    expect(register(state.RAX)).toBe(2n);
  });

  it('of a global page drops the code in it from every address space, which CR3 leaves alone', () => {
    const [first, second] = [bench.frame(), bench.frame()];
    bench.code(first, (a) => a.mov(rax, 1).ret());
    bench.code(second, (a) => a.mov(rax, 2).ret());
    bench.map(address, first, READ_WRITE | Pte.global);
    bench.vcpu.set64(state.RDI, address);
    bench.vcpu.set64(state.RDX, BigInt(bench.root));
    const script = new Script(
      (a) => a.call(rdi),
      (a) => a.mov(cr3, rdx).call(rdi).mov(rbx, rax),
      (a) => a.invlpg(mem(rdi)).call(rdi).mov(rbx, rax).mov(cr3, rdx).call(rdi),
    );
    bench.setEntry(CODE, bench.readPhysical(bench.entryAddress(CODE)) | BigInt(Pte.global));
    bench.vcpu.mmu.flushAll(bench.vcpu.base);
    script.next();
    expect(register(state.RAX)).toBe(1n);
    bench.map(address, second, READ_WRITE | Pte.global);
    script.next();
    expect(register(state.RBX)).toBe(1n);
    script.next();
    expect([register(state.RBX), register(state.RAX)]).toEqual([2n, 2n]);
  });

  it('of a page that code runs in takes effect at once', () => {
    const [first, second] = [bench.frame(), bench.frame()];
    for (const [frame, value] of [[first, 1], [second, 2]] as const) bench.code(frame, (a) => a.mov(mem(rsi), rcx).invlpg(mem(rdi)).mov(rax, value).hlt());
    bench.map(address, first);
    bench.vcpu.set64(state.RDI, address);
    // The code changes its own mapping by way of its page table, which lies open to it.
    const table = 0xffff_8200_0000_0000n;
    bench.map(table, bench.entryAddress(address) & ~0xfff);
    bench.vcpu.set64(state.RSI, table + BigInt(bench.entryAddress(address) & 0xfff));
    bench.vcpu.set64(state.RCX, BigInt(second) | READ_WRITE);
    bench.start({ rip: address });
    expect(bench.run().kind).toBe('halt');
    expect(register(state.RAX)).toBe(2n);
  });
});

describe('an entry that becomes present', () => {
  it('needs no invalidation: what is missing is not remembered', () => {
    bench.vcpu.set64(state.RDI, USER_HALF);
    bench.program(CODE, (a) => a.mov(rax, mem(rdi)).hlt());
    bench.start({ rip: CODE });
    expect(bench.run()).toMatchObject({ kind: 'trap', vector: 14 });
    bench.map(USER_HALF, frameOf(3n));
    expect(bench.run().kind).toBe('halt');
    expect(register(state.RAX)).toBe(3n);
  });
});

describe('MOV to CR3', () => {
  it('drops what is not global', () => {
    bench.map(USER_HALF, frameOf(1n));
    bench.vcpu.set64(state.RDI, USER_HALF);
    const script = new Script((a) => a.mov(rax, mem(rdi)), (a) => a.mov(rax, cr3).mov(cr3, rax).mov(rax, mem(rdi)));
    script.next();
    bench.map(USER_HALF, frameOf(2n));
    script.next();
    expect(register(state.RAX)).toBe(2n);
  });

  it('changes what code runs at an address that both spaces have', () => {
    const other = bench.newRoot();
    const kernelIndex = Number((CODE >> 39n) & 511n) * 8;
    const frames = [bench.frame(), bench.frame()];
    frames.forEach((frame, i) => bench.code(frame, (a) => a.mov(rax, i + 1).ret()));
    bench.map(USER_HALF, frames[0]);
    bench.map(USER_HALF, frames[1], READ_WRITE, { root: other });
    bench.vcpu.set64(state.RDI, USER_HALF);
    bench.vcpu.set64(state.RDX, BigInt(other));
    bench.vcpu.set64(state.RCX, BigInt(bench.root));
    const script = new Script((a) => a.call(rdi).mov(rbx, rax).mov(cr3, rdx).call(rdi).mov(rsi, rax).mov(cr3, rcx).call(rdi));
    bench.writePhysical(other + kernelIndex, bench.readPhysical(bench.root + kernelIndex));
    expect(script.next().kind).toBe('halt');
    expect([register(state.RBX), register(state.RSI), register(state.RAX)]).toEqual([1n, 2n, 1n]);
  });

  it('does so too when the numbers of the jump cache’s generations begin anew', () => {
    const other = bench.newRoot();
    const kernelIndex = Number((CODE >> 39n) & 511n) * 8;
    const frames = [bench.frame(), bench.frame()];
    frames.forEach((frame, i) => bench.code(frame, (a) => a.shl(rax, 1).or(rax, i).ret()));
    bench.map(USER_HALF, frames[0]);
    bench.map(USER_HALF, frames[1], READ_WRITE, { root: other });
    bench.vcpu.set64(state.RAX, 1n);
    bench.vcpu.set64(state.RDI, USER_HALF);
    bench.vcpu.set64(state.RDX, BigInt(other));
    bench.vcpu.set64(state.RCX, BigInt(bench.root));
    const script = new Script((a) => {
      for (let i = 0; i < 20; i++) a.call(rdi).mov(cr3, rdx).call(rdi).mov(cr3, rcx);
    });
    bench.writePhysical(other + kernelIndex, bench.readPhysical(bench.root + kernelIndex));
    (bench.engine as unknown as { generations: Int32Array }).generations[0] = -20 * GENERATION_STEP;
    expect(script.next().kind).toBe('halt');
    expect(register(state.RAX)).toBe(0x155_5555_5555n);
  });

  it.each([
    ['an address beyond the 40 bits there are', 1n << 40n],
    ['the no-flush bit without PCIDE', NO_FLUSH],
  ])('raises #GP(0) for %s', (_name, bits) => {
    bench.program(CODE, (a) => a.mov(rax, bits | BigInt(bench.root)).mov(cr3, rax));
    expect(bench.trapOf({ rip: CODE })).toMatchObject({ vector: GP, errorCode: 0, rip: CODE + 10n });
    expect(register(state.CR3)).toBe(BigInt(bench.root));
  });
});

describe('code that the kernel has run', () => {
  it('is not user mode’s for that', () => {
    const frame = bench.frame();
    bench.code(frame, (a) => a.mov(rax, 1).ret());
    bench.map(KERNEL_HALF, frame, READ_WRITE | Pte.global);
    bench.vcpu.set64(state.RDI, KERNEL_HALF);
    new Script((a) => a.call(rdi).call(rdi)).next();
    expect(register(state.RAX)).toBe(1n);
    const user = bench.frame();
    bench.code(user, (a) => a.jmp(rdi));
    bench.map(USER_HALF, user, USER_READ_WRITE);
    bench.start({ rip: USER_HALF, cpl: 3 });
    expect(bench.run()).toMatchObject({ kind: 'trap', vector: 14, cr2: KERNEL_HALF, rip: KERNEL_HALF });
  });
});

describe('PCID', () => {
  /** Address spaces that map USER_HALF to a frame with their own number in it. */
  function spaces(count: number): bigint[] {
    const index = Number((CODE >> 39n) & 511n) * 8;
    return Array.from({ length: count }, (_, i) => {
      const root = bench.newRoot();
      bench.map(USER_HALF, frameOf(BigInt(i + 1)), READ_WRITE, { root });
      bench.writePhysical(root + index, bench.readPhysical(bench.root + index));
      return BigInt(root) | BigInt(i + 1);
    });
  }
  /** MOV CR3 from RDX, then a read; a run of it gives what was read. */
  const switcher = (): ((value: bigint) => bigint) => {
    bench.program(CODE, (a) => a.label('again').mov(cr3, rdx).mov(rax, mem(rdi)).hlt().jmp('again'));
    bench.vcpu.set64(state.RDI, USER_HALF);
    bench.start({ rip: CODE });
    return (value) => {
      bench.vcpu.set64(state.RDX, value);
      expect(bench.run().kind).toBe('halt');
      return register(state.RAX);
    };
  };
  const restart = (): void => {
    bench.reset();
    bench.program(CODE, (a) => a.hlt()); // so that the top table has an entry for others to share
    bench.vcpu.set64(state.CR4, bench.vcpu.get64(state.CR4) | Cr4.pcide);
    bench.vcpu.mmu.flushAll(bench.vcpu.base);
  };
  beforeEach(restart);

  it('keeps address spaces apart, however many there are', () => {
    const all = spaces(9);
    const enter = switcher();
    for (let round = 0; round < 3; round++) {
      for (const [i, space] of all.entries()) expect(enter(space | NO_FLUSH)).toBe(BigInt(i + 1));
      for (const [i, space] of [...all.entries()].reverse()) expect(enter(space | NO_FLUSH)).toBe(BigInt(i + 1));
    }
  });

  it('with the no-flush bit keeps the translations of the PCID', () => {
    const [one, two] = spaces(2);
    const enter = switcher();
    enter(one);
    enter(two);
    bench.map(USER_HALF, frameOf(77n), READ_WRITE, { root: Number(one & ~0xfffn) });
    expect(enter(one | NO_FLUSH)).toBe(1n);
  });

  it('without it drops those of the PCID that is loaded, and of no other', () => {
    const [one, two] = spaces(2);
    const enter = switcher();
    enter(one);
    enter(two);
    for (const [root, value] of [[one, 77n], [two, 88n]]) bench.map(USER_HALF, frameOf(value), READ_WRITE, { root: Number(root & ~0xfffn) });
    expect(enter(one)).toBe(77n);
    expect(enter(two | NO_FLUSH)).toBe(2n);
    expect(enter(two)).toBe(88n);
  });

  it('reads back without the no-flush bit', () => {
    const [one] = spaces(1);
    switcher()(one | NO_FLUSH);
    expect(register(state.CR3)).toBe(one);
  });

  it('cannot be turned on while CR3 has a PCID in it', () => {
    bench.vcpu.set64(state.CR4, bench.vcpu.get64(state.CR4) & ~Cr4.pcide);
    bench.vcpu.set64(state.CR3, BigInt(bench.root) | 8n);
    bench.program(CODE + 0x1000n, (a) => a.mov(rax, cr4).mov(rcx, Cr4.pcide).or(rax, rcx).mov(cr4, rax));
    expect(bench.trapOf({ rip: CODE + 0x1000n })).toMatchObject({ vector: GP, errorCode: 0 });
    expect(register(state.CR4) & Cr4.pcide).toBe(0n);
  });

  it('has to be off before paging is turned off', () => {
    bench.program(CODE + 0x1000n, (a) => a.mov(rax, bench.vcpu.get64(state.CR0) & ~Cr0.pg).db(0x0f, 0x22, 0xc0)); // mov cr0, rax
    expect(bench.trapOf({ rip: CODE + 0x1000n })).toMatchObject({ vector: GP, errorCode: 0 });
  });

  describe('INVPCID', () => {
    /** Both spaces in the TLB and changed; INVPCID; then what space `seen` reads without a flush. */
    function readAfter(type: number, pcid: bigint, address: bigint, seen: 1 | 2, flags = READ_WRITE): bigint {
      const all = spaces(2);
      all.forEach((space, i) => bench.map(USER_HALF, frameOf(BigInt(i + 1)), flags, { root: Number(space & ~0xfffn) }));
      const enter = switcher();
      enter(all[0]);
      enter(all[1]);
      all.forEach((space, i) => bench.map(USER_HALF, frameOf(BigInt(i + 1) * 11n), flags, { root: Number(space & ~0xfffn) }));
      const descriptor = bench.frame();
      bench.writePhysical(descriptor, pcid);
      bench.writePhysical(descriptor + 8, address);
      bench.map(CODE + 0x2000n, descriptor);
      const code = CODE + 0x1000n;
      bench.program(code, (a) => a.invpcid(rbx, oword(r8)).mov(cr3, rdx).mov(rax, mem(rdi)).hlt());
      bench.vcpu.set64(state.RBX, BigInt(type));
      bench.vcpu.set64(state.R8, CODE + 0x2000n);
      bench.vcpu.set64(state.RDX, all[seen - 1] | NO_FLUSH);
      bench.start({ rip: code });
      const stop = bench.run();
      if (stop.kind === 'trap') throw Object.assign(new Error('trap'), { stop });
      return register(state.RAX);
    }
    const trapOf = (...args: Parameters<typeof readAfter>): unknown => {
      try {
        return readAfter(...args);
      } catch (error) {
        return (error as { stop: Stop }).stop;
      }
    };

    it('type 0 drops an address of a PCID, be it in use or not', () => {
      expect(readAfter(0, 1n, USER_HALF + 0x123n, 1)).toBe(11n);
      restart();
      expect(readAfter(0, 2n, USER_HALF, 2)).toBe(22n);
    });

    it('type 0 leaves other PCIDs alone', () => {
      expect(readAfter(0, 1n, USER_HALF, 2)).toBe(2n);
    });

    it('type 1 drops all of a PCID, and no other', () => {
      expect(readAfter(1, 1n, 0n, 1)).toBe(11n);
      restart();
      expect(readAfter(1, 2n, 0n, 1)).toBe(1n);
    });

    it.each([1, 2] as const)('types 2 and 3 drop all of them, of PCID %i', (seen) => {
      expect(readAfter(2, 0n, 0n, seen)).toBe(BigInt(seen * 11));
      restart();
      expect(readAfter(3, 0n, 0n, seen)).toBe(BigInt(seen * 11));
    });

    it('type 2 drops global pages, too', () => {
      expect(readAfter(2, 0n, 0n, 1, READ_WRITE | Pte.global)).toBe(11n);
    });

    it.each([
      ['an unknown type', 4, 0n, 0n],
      ['reserved bits of the descriptor', 1, 0x1000n, 0n],
      ['an address that is not canonical, of type 0', 0, 1n, 0x8000_0000_0000n],
    ])('raises #GP(0) for %s', (_name, type, pcid, address) => {
      expect(trapOf(type, pcid, address, 1)).toMatchObject({ vector: GP, errorCode: 0, rip: CODE + 0x1000n });
    });

    it('looks at the address of type 0 only', () => {
      expect(readAfter(1, 1n, 0x8000_0000_0000n, 1)).toBe(11n);
    });

    it('has no PCIDs to speak of while CR4.PCIDE is clear', () => {
      bench.vcpu.set64(state.CR4, bench.vcpu.get64(state.CR4) & ~Cr4.pcide);
      const code = CODE + 0x1000n;
      bench.program(code, (a) => a.invpcid(rbx, oword(r8)).hlt());
      bench.vcpu.set64(state.R8, code + 0x800n);
      const descriptor = Number(bench.entry(code) & 0xff_f000n) + 0x800;
      for (const type of [0n, 1n]) {
        bench.writePhysical(descriptor, 1n);
        bench.vcpu.set64(state.RBX, type);
        expect(bench.trapOf({ rip: code })).toMatchObject({ vector: GP, errorCode: 0 });
        bench.writePhysical(descriptor, 0n);
        bench.start({ rip: code });
        expect(bench.run().kind).toBe('halt');
      }
    });
  });
});

describe('CR4', () => {
  it.each([['PGE', Cr4.pge], ['SMEP', Cr4.smep], ['SMAP', Cr4.smap]])('a change of %s drops global pages', (_name, bit) => {
    bench.map(KERNEL_HALF, frameOf(1n), READ_WRITE | Pte.global);
    bench.vcpu.set64(state.RDI, KERNEL_HALF);
    const script = new Script((a) => a.mov(rax, mem(rdi)), (a) => a.mov(rax, cr4).mov(rcx, bit).xor(rax, rcx).mov(cr4, rax).mov(rax, mem(rdi)));
    script.next();
    bench.map(KERNEL_HALF, frameOf(2n), READ_WRITE | Pte.global);
    script.next();
    expect(register(state.RAX)).toBe(2n);
  });

  it('leaving PAE out in long mode raises #GP(0), as do bits that CPUID does not offer', () => {
    for (const value of [0n, Cr4.pae | (1n << 12n), Cr4.pae | (1n << 40n)]) {
      bench.program(CODE, (a) => a.mov(rax, value).mov(cr4, rax));
      bench.vcpu.mmu.flushAll(bench.vcpu.base);
      expect(bench.trapOf({ rip: CODE })).toMatchObject({ vector: GP, errorCode: 0 });
    }
  });
});

it('each vCPU has a TLB of its own: INVLPG on one leaves the other’s alone', () => {
  const [first, second] = bench.engine.vcpus;
  bench.map(USER_HALF, frameOf(1n));
  bench.program(CODE, (a) => a.label('again').mov(rax, mem(rdi)).hlt().invlpg(mem(rdi)).jmp('again'));
  for (const vcpu of bench.engine.vcpus) {
    vcpu.set64(state.RDI, USER_HALF);
    bench.start({ rip: CODE, vcpu });
    bench.run(1000, vcpu);
  }
  bench.map(USER_HALF, frameOf(2n));
  bench.run(1000, first);
  expect(first.get64(state.RAX)).toBe(2n);
  second.rip = CODE; // without its INVLPG
  bench.run(1000, second);
  expect(second.get64(state.RAX)).toBe(1n);
  bench.run(1000, second);
  expect(second.get64(state.RAX)).toBe(2n);
});

it('a privileged instruction of translation is none of CPL 3’s', () => {
  bench.program(USER_HALF, (a) => a.invlpg(mem(rdi)), USER_READ_WRITE);
  expect(bench.trapOf({ rip: USER_HALF, cpl: 3 })).toMatchObject({ vector: GP, errorCode: 0 });
  bench.program(USER_HALF + 0x1000n, (a) => a.mov(rax, cr3), USER_READ_WRITE);
  expect(bench.trapOf({ rip: USER_HALF + 0x1000n, cpl: 3 })).toMatchObject({ vector: GP, errorCode: 0 });
  bench.program(USER_HALF + 0x2000n, (a) => a.invpcid(rax, oword(rdi)), USER_READ_WRITE);
  expect(bench.trapOf({ rip: USER_HALF + 0x2000n, cpl: 3 })).toMatchObject({ vector: GP, errorCode: 0 });
});
