/** Programs whose control flow regions take in: each runs the same interpreted, compiled when hot, and compiled at first sight, in slices of any length. */

import { describe, expect, it } from 'vitest';
import { type BenchOptions, EngineBench, JIT_EARLY, KERNEL_STACK, PAGE, USER_READ_WRITE } from '../../../tests/engine-bench.ts';
import * as state from '../../cpu/state.ts';
import { Activity, Cr4 } from '../../cpu/vcpu.ts';
import type { Assembler } from '../../guest/assembler/assembler.ts';
import { al, byte, cr2, ds, eax, ebp, ebx, ecx, edi, edx, mem, qword, r8, r12, r13, r14, r15, rax, rbp, rbx, rcx, rdi, rdx, rsp, times } from '../../guest/assembler/operands.ts';
import { RandomSource } from '../../machine/random.ts';

const CODE = 0x40_0000n;
const TABLE = 0x61_0000n;
const PAGES = 3;
/** Makes code hot, and hot enough to take in what it calls. */
const TURNS = 70_000;
/** Of a jump through a table. */
const WAYS = 8;

interface Program {
  name: string;
  build: (a: Assembler) => void;
  /** Where in its first page it begins. */
  offset?: number;
}

const nops = (a: Assembler, count: number): Assembler => {
  for (let i = 0; i < count; i++) a.nop();
  return a;
};

const programs: Program[] = [
  {
    name: 'recursion',
    build: (a) => {
      a.mov(edi, 22).call('fib').hlt();
      a.label('fib').cmp(edi, 1).jbe('leaf').push(rbx).push(rbp).mov(ebx, edi);
      a.lea(edi, mem(rbx, -1)).call('fib').mov(ebp, eax).lea(edi, mem(rbx, -2)).call('fib').add(eax, ebp).pop(rbp).pop(rbx).ret();
      a.label('leaf').mov(eax, edi).ret();
    },
  },
  {
    name: 'a callee of several places, each with a return of its own',
    build: (a) => {
      a.mov(r15, TURNS).label('turn').mov(edi, 3).call('f').add(ebx, eax).test(r15, 1).jz('other').call('f').xor(ebx, eax).jmp('join');
      a.label('other').call('g').label('join').dec(r15).jnz('turn').hlt();
      a.label('g').call('f').add(eax, 5).call('f').ret();
      a.label('f').lea(eax, mem(rdi, 7)).cmp(eax, 9).ja('big').ret().label('big').add(eax, ebx).ret();
    },
  },
  {
    name: 'a return that skips its caller',
    build: (a) => {
      a.mov(r15, TURNS).label('turn').call('outer').add(eax, 1).dec(r15).jnz('turn').hlt();
      a.label('outer').call('inner').add(eax, 100).ret();
      a.label('inner').add(eax, 2).test(r15, 3).jnz('normal').add(rsp, 8).label('normal').ret();
    },
  },
  {
    name: 'a loop and a callee in two pages, and an instruction in both',
    offset: PAGE - 13,
    build: (a) => {
      // 7, 3 and 5 bytes: the third instruction crosses the page's end.
      a.mov(r15, TURNS).label('turn').add(ebx, 3).mov(edx, 0x1234_5678).add(ebx, edx).call('far').dec(r15).jnz('turn').hlt();
      nops(a, 0x800).label('far').imul(ebx, ebx, 3).ret();
    },
  },
  {
    name: 'ways into the middle of a loop',
    build: (a) => {
      a.mov(r15, TURNS).xor(ecx, ecx).label('turn').test(r15, 1).jz('middle').label('head').add(ebx, 5);
      a.label('middle').add(ebx, 7).inc(ecx).test(ecx, 3).jnz('head').dec(r15).jnz('turn').hlt();
    },
  },
  {
    name: 'calls through a register that changes',
    build: (a) => {
      a.mov(r15, TURNS).lea(rdx, mem('one')).label('turn').call(rdx).test(r15, 0x3fff).jnz('same').lea(rdx, mem('two'));
      a.label('same').dec(r15).jnz('turn').hlt();
      a.label('one').add(ebx, 3).ret().label('two').add(ebx, 11).ret();
    },
  },
  {
    name: 'a table of jumps',
    build: (a) => {
      a.mov(r12, TABLE);
      for (let way = 0; way < WAYS; way++) a.lea(rax, mem(`way${way}`)).mov(qword(r12, 8 * way), rax);
      a.mov(r15, TURNS).label('turn').mov(rcx, r15).shr(rcx, 2).xor(rcx, r15).and(rcx, WAYS - 1).jmp(qword(r12, times(rcx, 8)));
      for (let way = 0; way < WAYS; way++) a.label(`way${way}`).add(ebx, way * way + 1).jmp('join');
      a.label('join').dec(r15).jnz('turn').hlt();
    },
  },
  {
    name: 'a callee that is patched while it is hot',
    build: (a) => {
      a.mov(r15, TURNS).label('turn').call('f').test(r15, 0x1fff).jnz('same').inc(byte('f', 1)).label('same').dec(r15).jnz('turn').hlt();
      a.label('f').mov(al, 1).add(ebx, eax).ret();
    },
  },
];

function outcome(bench: EngineBench, { build, offset = 0 }: Program, nextBudget: () => number): unknown {
  bench.reset();
  const code = bench.frame(PAGES);
  for (let page = 0; page < PAGES * PAGE; page += PAGE) bench.map(CODE + BigInt(page), code + page);
  bench.map(TABLE, bench.frame());
  bench.code(code + offset, build);
  const { engine, vcpu } = bench;
  const before = engine.retired(vcpu);
  for (let number = 0; number < 16; number++) vcpu.setRegister(number, 0n);
  bench.start({ rip: CODE + BigInt(offset) });
  while (vcpu.activity === Activity.running) engine.run(vcpu, nextBudget());
  const registers = Array.from({ length: 16 }, (_, number) => vcpu.register(number));
  return { retired: engine.retired(vcpu) - before, rip: vcpu.rip, flags: vcpu.rflags, registers };
}

const KERNEL_CODE = 0xffff_9000_0000_0000n;
const INTERRUPT_HANDLER = KERNEL_CODE + BigInt(PAGE);
const KERNEL_DATA = KERNEL_CODE + BigInt(2 * PAGE);
const USER_DATA = TABLE;
const TURNS_IN_KERNEL = 30_000;

/** A user program that calls its kernel again and again, under SMAP, with interrupts wherever a slice ends. */
function systemCalls(bench: EngineBench): unknown {
  bench.reset();
  const { engine, vcpu } = bench;
  bench.program(CODE, (a) => {
    a.mov(r15, TURNS_IN_KERNEL).label('turn').mov(eax, 1).syscall().add(rbx, rax).dec(r15).jnz('turn').xor(eax, eax).syscall();
  }, USER_READ_WRITE);
  bench.program(KERNEL_CODE, (a) => {
    a.test(eax, eax).jz('end').swapgs().mov(r13, rsp).mov(rsp, KERNEL_STACK).mov(r12, USER_DATA);
    a.stac().inc(qword(r12)).mov(rax, qword(r12)).clac().mov(r8, cr2).add(rax, r8).mov(r8, ds).add(rax, r8).test(r15, 1).jz('behind');
    // STI is the last of its block's 64: what is behind it still comes before an interrupt.
    nops(a, 63).sti().label('behind').inc(r14).add(rax, r14).nop().cli().mov(rsp, r13).swapgs().sysretq();
    a.label('end').hlt();
  });
  bench.program(INTERRUPT_HANDLER, (a) => a.push(rax).mov(rax, KERNEL_DATA).inc(qword(rax)).add(qword(rax, 8), r14).pop(rax).iretq());
  const [userData, kernelData] = [bench.frame(), bench.frame()];
  bench.map(USER_DATA, userData, USER_READ_WRITE);
  bench.map(KERNEL_DATA, kernelData);
  bench.setGate(0x40, { handler: INTERRUPT_HANDLER });
  for (let number = 0; number < 16; number++) vcpu.setRegister(number, 0n);
  vcpu.set64(state.STAR, (0x18n << 48n) | (0x08n << 32n));
  vcpu.set64(state.LSTAR, KERNEL_CODE);
  vcpu.set64(state.SFMASK, 0x4_0700n);
  vcpu.set64(state.CR2, 0x1234n);
  vcpu.set64(state.CR4, vcpu.get64(state.CR4) | Cr4.smap);
  bench.start({ rip: CODE, cpl: 3, rflags: 0x202n });
  const random = new RandomSource(5);
  const before = engine.retired(vcpu);
  while (vcpu.activity === Activity.running) {
    engine.run(vcpu, 1 + Number(random.next64() % 300n));
    if (random.next32() % 2) bench.interrupt(0x40);
  }
  const registers = Array.from({ length: 16 }, (_, number) => vcpu.register(number));
  const data = [userData, kernelData, kernelData + 8].map((physical) => bench.readPhysical(physical));
  return { retired: engine.retired(vcpu) - before, rip: vcpu.rip, flags: vcpu.rflags, registers, data };
}

describe.each<[string, BenchOptions]>([
  ['interpreted', { jit: false }],
  ['compiled when hot', { jit: JIT_EARLY }],
  ['compiled at first sight', { jit: 'force' }],
])('%s,', (name, options) => {
  const reference = new EngineBench({ jit: false });
  const bench = new EngineBench(options);

  it.each(programs.map((program) => [program.name, program] as const))('%s', { timeout: 60_000 }, (_, program) => {
    const random = new RandomSource(program.name.length);
    const whole = outcome(reference, program, () => 1e9);
    const regions = bench.engine.jit?.statistics.regions ?? 0;
    expect(outcome(bench, program, () => 10_000)).toEqual(whole);
    expect(outcome(bench, program, () => 1 + Number(random.next64() % 2_000n))).toEqual(whole);
    if (name !== 'interpreted') expect(bench.engine.jit?.statistics.regions).toBeGreaterThan(regions);
  });

  it('system calls and interrupts', { timeout: 60_000 }, () => {
    const expected = systemCalls(reference) as { rip: bigint; data: bigint[] };
    expect(expected.rip).toBeGreaterThan(KERNEL_CODE);
    expect(expected.data[0]).toBe(BigInt(TURNS_IN_KERNEL));
    expect(expected.data[1]).toBeGreaterThan(200n);
    expect(systemCalls(bench)).toEqual(expected);
  });

  it('a callee in a page that is mapped elsewhere meanwhile', () => {
    bench.reset();
    const [own, first, second] = [bench.frame(), bench.frame(), bench.frame()];
    bench.map(CODE, own);
    bench.map(CODE + BigInt(PAGE), first);
    bench.code(own, (a) => nops(a.mov(r15, TURNS).label('turn').call('f').dec(r15).jnz('turn').hlt(), PAGE - 18).label('f'));
    bench.code(first, (a) => a.add(ebx, 1).ret());
    bench.code(second, (a) => a.add(ebx, 3).ret());
    const { vcpu } = bench;
    const turns = (): bigint => {
      vcpu.setRegister(rbx.number, 0n);
      bench.start({ rip: CODE });
      bench.run(1e7);
      return vcpu.register(rbx.number);
    };
    expect(turns()).toBe(BigInt(TURNS));
    bench.map(CODE + BigInt(PAGE), second);
    bench.engine.flushPage(vcpu.base, CODE + BigInt(PAGE));
    expect(turns()).toBe(3n * BigInt(TURNS));
  });

  it('code that is entered again and again is compiled twice at the most', () => {
    bench.reset();
    const code = bench.frame();
    bench.map(CODE, code);
    // Regions leave CPUID to the interpreter, so each turn enters anew.
    bench.code(code, (a) => a.mov(r15, 6 * TURNS).label('turn').add(edi, 3).cpuid().dec(r15).jnz('turn').hlt());
    const regions = bench.engine.jit?.statistics.regions ?? 0;
    bench.start({ rip: CODE });
    while (bench.vcpu.activity === Activity.running) bench.engine.run(bench.vcpu, 10_000);
    expect((bench.engine.jit?.statistics.regions ?? 0) - regions).toBeLessThanOrEqual(2 * 3);
  });
});
