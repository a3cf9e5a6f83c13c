/**
 * Counting and slicing: how many instructions have retired is exact whenever somebody asks, and however a run is cut into slices, it is the
 * same run. So it is with compiled code, with little room for decoded code, and one instruction at a time.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { assemble, type BenchOptions, EngineBench, JIT_EARLY, PAGE, READ_WRITE, USER_READ_WRITE } from '../../tests/engine-bench.ts';
import * as state from '../cpu/state.ts';
import { Activity } from '../cpu/vcpu.ts';
import type { Assembler } from '../guest/assembler/assembler.ts';
import { al, byte, dword, ecx, mem, qword, r10, r11, r12, r13, r14, r15, r8, r9, rax, rbx, rcx, rdi, rdx, rsi, rsp } from '../guest/assembler/operands.ts';
import { RandomSource } from '../machine/random.ts';

const CODE = 0x40_0000n;
const DATA = 0x60_0000n;
const DEVICE = 0x70_0000n;

describe('instructions retired', () => {
  const bench = new EngineBench();
  beforeEach(() => bench.reset());
  const retired = (): number => bench.engine.retired(bench.vcpu);
  /** Runs to a HLT or an exception; instructions that took, the bench’s handler’s HLT included. */
  const count = (build: (a: Assembler) => void, { cpl = 0 as 0 | 3, rflags = 2n } = {}): number => {
    bench.program(CODE, build, cpl ? USER_READ_WRITE : READ_WRITE);
    bench.start({ rip: CODE, cpl, rflags });
    const before = retired();
    bench.run();
    return retired() - before;
  };

  it('are counted one by one, HLT included', () => {
    expect(count((a) => a.hlt())).toBe(1);
    bench.vcpu.mmu.flushAll(bench.vcpu.base);
    expect(count((a) => a.nop().nop().nop().hlt())).toBe(4);
  });

  it('are not those that fault', () => {
    expect(count((a) => a.nop().nop().ud2().nop().nop())).toBe(2 + 1);
    bench.reset();
    expect(count((a) => a.nop().mov(rax, mem(rdi)).nop().nop())).toBe(1 + 1);
    bench.reset();
    expect(count((a) => a.nop().jmp(rdi))).toBe(2 + 1); // the jump retires; the fetch behind it faults
  });

  it('are those that trap', () => {
    expect(count((a) => a.nop().int3().nop())).toBe(2 + 1);
    bench.reset();
    expect(count((a) => a.nop().int(0x40).nop())).toBe(2 + 1);
  });

  it('of loops are what the loop says', () => {
    expect(count((a) => a.mov(ecx, 1000).label('again').dec(ecx).jnz('again').hlt())).toBe(1 + 2000 + 1);
  });

  it('a repeated string instruction counts once, a faulting one not at all', () => {
    bench.map(DATA, bench.frame());
    bench.vcpu.set64(state.RDI, DATA);
    bench.vcpu.set64(state.RCX, 100n);
    expect(count((a) => a.rep().stosb().hlt())).toBe(2);
    bench.reset();
    bench.map(DATA, bench.frame());
    bench.vcpu.set64(state.RDI, DATA + 0xff0n);
    bench.vcpu.set64(state.RCX, 100n);
    expect(count((a) => a.nop().rep().stosb().hlt())).toBe(1 + 1);
    expect(bench.vcpu.get64(state.RCX)).toBe(84n);
  });

  it('of a block with more than 64 instructions, of blocks across pages and of code that is patched are exact', () => {
    expect(count((a) => {
      for (let i = 0; i < 200; i++) a.nop();
      a.hlt();
    })).toBe(201);
    bench.reset();
    expect(count((a) => {
      for (let i = 0; i < 20; i++) a.mov(byte('target', 1), i);
      a.label('target').mov(al, 0).hlt();
    })).toBe(22);
    bench.reset();
    const frame = bench.frame(2);
    for (const page of [0, 1]) bench.map(CODE + BigInt(page * PAGE), frame + page * PAGE);
    bench.code(frame + PAGE - 5, (a) => a.nop().nop().mov(rax, 0x1122_3344_5566n).nop().hlt());
    bench.start({ rip: CODE + BigInt(PAGE - 5) });
    const before = retired();
    bench.run();
    expect(retired() - before).toBe(5);
  });

  it('are exact where RDTSC, CPUID or a device looks, in the middle of a block', () => {
    bench.map(DEVICE, 0xfee0_0000);
    const seen: number[] = [];
    bench.onAsked = () => seen.push(retired());
    bench.vcpu.set64(state.RSI, DEVICE);
    const before = retired();
    bench.program(CODE, (a) => a.nop().nop().rdtsc().mov(rdi, rax).nop().cpuid().nop().rdtsc().hlt());
    bench.start({ rip: CODE });
    bench.run();
    expect(seen.map((count) => count - before)).toEqual([5]);
    expect([bench.vcpu.get64(state.RDI), bench.vcpu.get64(state.RAX)]).toEqual([2n, 7n]);
  });

  it('are exact in an interrupt’s shadow', () => {
    const before = retired();
    bench.program(CODE, (a) => a.nop().sti().rdtsc().nop().hlt());
    bench.interrupt(0x40);
    bench.start({ rip: CODE });
    bench.run();
    expect(bench.vcpu.get64(state.RAX)).toBe(2n);
    expect(retired() - before).toBe(3 + 1);
  });
});

describe('a slice', () => {
  const bench = new EngineBench();
  beforeEach(() => bench.reset());

  it('ends with the block that reaches its budget', () => {
    bench.program(CODE, (a) => a.label('again').nop().nop().nop().jmp('again'));
    for (const budget of [1, 4, 5, 100, 101]) {
      bench.start({ rip: CODE });
      const before = bench.engine.retired(bench.vcpu);
      expect(bench.engine.run(bench.vcpu, budget)).toBe(true);
      expect(bench.engine.retired(bench.vcpu) - before).toBe(Math.ceil(budget / 4) * 4);
      expect(bench.vcpu.rip).toBe(CODE);
    }
  });

  it('with no budget runs nothing', () => {
    bench.program(CODE, (a) => a.hlt());
    bench.start({ rip: CODE });
    expect(bench.engine.run(bench.vcpu, 0)).toBe(true);
    expect(bench.vcpu.rip).toBe(CODE);
  });

  it('is not run by a vCPU that is halted', () => {
    bench.program(CODE, (a) => a.hlt());
    bench.start({ rip: CODE });
    bench.vcpu.activity = Activity.halted;
    bench.engine.run(bench.vcpu, 1000);
    expect(bench.vcpu.rip).toBe(CODE);
  });

  it('ends at the next block once somebody asks for it, and says so', () => {
    bench.program(CODE, (a) => a.label('again').cpuid().nop().jmp('again'));
    bench.onAsked = (vcpu) => bench.vcpu.mmu.requestExit(vcpu.base);
    bench.start({ rip: CODE });
    const before = bench.engine.retired(bench.vcpu);
    expect(bench.engine.run(bench.vcpu, 1000)).toBe(false);
    expect(bench.engine.retired(bench.vcpu) - before).toBe(3);
  });

  it('gets shorter by what is taken from it, in the middle of a block', () => {
    bench.program(CODE, (a) => a.cpuid().label('again').nop().jmp('again'));
    bench.onAsked = (vcpu) => bench.engine.shorten(vcpu.base, 60);
    bench.start({ rip: CODE });
    const before = bench.engine.retired(bench.vcpu);
    expect(bench.engine.run(bench.vcpu, 100)).toBe(true);
    // Three are paid for when the first block is entered, 60 are taken; 37 are left, in blocks of two.
    expect(bench.engine.retired(bench.vcpu) - before).toBe(3 + 38);
  });

  it('an error of ours goes through it, and leaves the counts right', () => {
    bench.program(CODE, (a) => a.nop().cpuid().nop().hlt());
    bench.onAsked = () => {
      throw new Error('ours');
    };
    bench.start({ rip: CODE });
    const before = bench.engine.retired(bench.vcpu);
    expect(() => bench.run()).toThrow('ours');
    expect(bench.engine.retired(bench.vcpu) - before).toBe(1);
  });
});

/** A random program: an outer loop around snippets that touch all that counting has to do with. It stores what RDTSC reads. */
function randomProgram(random: RandomSource, turns: number): Uint8Array {
  const below = (limit: number): number => Number(random.next64() % BigInt(limit));
  const snippets: ((a: Assembler, label: string) => void)[] = [
    (a) => a.add(rax, below(1000)).imul(rbx, rax, 0x10001).xor(r8, rbx),
    (a) => a.mov(mem(r12, 8 * below(400)), r8).add(r8, mem(r12, 8 * below(400))),
    (a) => a.rdtsc().xor(r9, rax).rol(r9, 7),
    (a) => a.cpuid().add(r9, 3),
    (a) => a.ud2(),
    (a) => a.call('routine'),
    (a) => a.push(r8).push(r9).pop(r10).pop(r11).xor(r8, r10),
    (a, label) => a.test(r8, 1 << below(8)).jz(label).add(r8, 5).rdtsc().add(r9, rax).label(label),
    (a) => a.lea(rsi, mem(r12, below(2000))).lea(rdi, mem(r12, below(2000))).mov(ecx, below(40)).rep().movsb(),
    (a) => a.mov(rax, mem(r13)).add(r8, rax),
    (a, label) => a.mov(r14, 1 + below(20)).label(label).add(r8, r14).dec(r14).jnz(label),
    (a) => a.add(dword(r12, 4 * below(900)), below(100)).lock().xadd(mem(r12, 8 * below(300)), r8),
    (a) => a.pushf().pop(r10).and(r10, 0xff).add(r9, r10),
    (a) => a.sti().nop().cli(),
    (a, label) => a.jmp(label).ud2().align(64).label(label),
    (a) => a.mov(r10, 0x8000_0000_0000_0000n).mov(r10, mem(r10)),
  ];
  const picked = Array.from({ length: 5 + below(60) }, () => snippets[below(snippets.length)]);
  const offset = below(256);
  return assemble((a) => {
    for (let i = 0; i < offset; i++) a.nop();
    a.mov(r15, turns).label('turn');
    for (const [i, snippet] of picked.entries()) snippet(a, `place${i}`);
    a.dec(r15).jnz('turn').hlt();
    a.label('routine').add(r8, 1).cmp(r8, r9).jb('back').xor(r9, r8).label('back').ret();
  });
}

describe.each<[string, BenchOptions]>([
  ['interpreted', { jit: false }],
  ['compiled', { jit: JIT_EARLY }],
  ['compiled at first sight', { jit: 'force' }],
  ['compiled, with room for little decoded code', { jit: JIT_EARLY, operationBytes: 24 << 10 }],
  ['interpreted, with room for little decoded code', { jit: false, operationBytes: 17 << 10 }],
])('a random program, %s,', (name, options) => {
  const reference = new EngineBench({ jit: false });
  const subject = new EngineBench(options);

  /** All that a run leaves, and what it was at every look in between. */
  function outcome(bench: EngineBench, program: Uint8Array, nextBudget: () => number): unknown {
    bench.reset();
    const code = bench.frame(8);
    for (let page = 0; page < 8; page++) bench.map(CODE + BigInt(page * PAGE), code + page * PAGE);
    const data = bench.frame();
    bench.map(DATA, data);
    bench.map(DEVICE, 0xfee0_0000);
    bench.readValue = 0x55;
    // #UD and #GP are skipped: two bytes for UD2, three for the load.
    bench.code(0x9000, (a) => a.add(qword(rsp), 2).iretq());
    bench.code(0x9100, (a) => a.add(qword(rsp, 8), 3).add(rsp, 8).iretq());
    bench.map(0x9000n, 0x9000);
    bench.setGate(6, { handler: 0x9000n });
    bench.setGate(13, { handler: 0x9100n });
    bench.memory.write(code, program);
    const { engine, vcpu } = bench;
    const before = engine.retired(vcpu);
    const looks: number[] = [];
    bench.onAsked = () => looks.push(engine.retired(vcpu) - before);
    for (let number = 0; number < 16; number++) vcpu.setRegister(number, 0n);
    vcpu.setRegister(r12.number, DATA);
    vcpu.setRegister(r13.number, DEVICE);
    bench.start({ rip: CODE });
    let slices = 0;
    while (vcpu.activity === Activity.running) {
      engine.run(vcpu, nextBudget());
      if (++slices > 1e6) throw new Error('endless');
    }
    const registers = Array.from({ length: 16 }, (_, number) => vcpu.register(number));
    expect(vcpu.rip).toBeLessThan(CODE + BigInt(8 * PAGE)); // its own HLT, not an exception's
    return { retired: engine.retired(vcpu) - before, rip: vcpu.rip, flags: vcpu.rflags & 0xfffn, registers, looks, data: bench.memory.slice(data, PAGE).slice(), accesses: bench.accesses.length };
  }

  it('is the same run in whatever slices', { timeout: 120_000 }, () => {
    for (let seed = 1; seed <= 25; seed++) {
      const random = new RandomSource(seed);
      // Code is compiled once it has run some thousand times.
      const turns = seed % 3 !== 0 ? 8 : name === 'compiled' ? 12_000 : 600;
      const program = randomProgram(random, turns);
      const whole = outcome(reference, program, () => 1e9);
      const sliced = outcome(subject, program, () => (turns > 8 ? 1 + Number(random.next64() % BigInt(turns * 5)) : 1 + Number(random.next64() % 40n)));
      expect({ seed, ...(sliced as object) }).toEqual({ seed, ...(whole as object) });
      if (turns === 8) {
        const stepped = outcome(subject, program, () => 1);
        expect({ seed, ...(stepped as object) }).toEqual({ seed, ...(whole as object) });
      }
    }
    if (name.includes('little')) expect(subject.engine.cache.flushes).toBeGreaterThan(25 * 3);
    if (name === 'compiled') expect(subject.engine.jit?.statistics.regions).toBeGreaterThan(20);
  });
});

describe('two vCPUs', () => {
  const bench = new EngineBench({ vcpus: 2 });
  beforeEach(() => bench.reset());

  it('count for themselves, and share decoded code', () => {
    const [first, second] = bench.engine.vcpus;
    bench.program(CODE, (a) => a.nop().add(rcx, rdx).hlt());
    const before = bench.engine.vcpus.map((vcpu) => bench.engine.retired(vcpu));
    first.set64(state.RDX, 1n);
    second.set64(state.RDX, 2n);
    bench.start({ rip: CODE, vcpu: first });
    bench.run(100, first);
    const { decodedInstructions } = bench.engine.cache;
    bench.start({ rip: CODE, vcpu: second });
    bench.run(100, second);
    expect(bench.engine.cache.decodedInstructions).toBe(decodedInstructions);
    expect([first.get64(state.RCX), second.get64(state.RCX)]).toEqual([1n, 2n]);
    expect(bench.engine.vcpus.map((vcpu, i) => bench.engine.retired(vcpu) - before[i])).toEqual([3, 3]);
  });

  it('an exit that is asked of one that does not run is nothing', () => {
    const [first, second] = bench.engine.vcpus;
    bench.program(CODE, (a) => a.cpuid().nop().hlt());
    bench.onAsked = () => bench.vcpu.mmu.requestExit(second.base);
    bench.start({ rip: CODE, vcpu: first });
    expect(bench.engine.run(first, 100)).toBe(true);
    expect(first.activity).toBe(Activity.halted);
  });
});
