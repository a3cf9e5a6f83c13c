/** Programs whose control flow regions take in: each runs the same interpreted, compiled when hot, and compiled at first sight, in slices of any length. */

import { describe, expect, it } from 'vitest';
import { type BenchOptions, EngineBench, JIT_EARLY, PAGE } from '../../../tests/engine-bench.ts';
import { Activity } from '../../cpu/vcpu.ts';
import type { Assembler } from '../../guest/assembler/assembler.ts';
import { al, byte, eax, ebp, ebx, ecx, edi, edx, mem, qword, r12, r15, rax, rbp, rbx, rcx, rdi, rdx, rsp, times } from '../../guest/assembler/operands.ts';
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
