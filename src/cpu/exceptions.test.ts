/** Exceptions, interrupts and the way back, in long mode: what is pushed where, and what becomes of faults on the way. SDM 3A chapter 6. */
import { beforeEach, describe, expect, it } from 'vitest';
import { assemble, EngineBench, IST1, KERNEL, KERNEL_STACK, PAGE, Pf, Pte, READ_WRITE, RSP0, Selector, type Stop, type Trap, USER_READ_WRITE } from '../../tests/engine-bench.ts';
import type { Assembler } from '../guest/assembler/assembler.ts';
import { al, ax, cx, ds, eax, es, gs, mem, qword, r8, r11, rax, rbx, rcx, rdi, rsp, ss } from '../guest/assembler/operands.ts';
import { MAX_CPU_MODEL } from './cpu-model.ts';
import * as state from './state.ts';
import { Efer, Flag, Vector } from './vcpu.ts';

const bench = new EngineBench({ model: MAX_CPU_MODEL });
const CODE = 0x40_0000n;
const USER_STACK = 0x50_1000n;
const { undefinedOpcode: UD, doubleFault: DF, invalidTss: TS, segmentNotPresent: NP, stackFault: SS, generalProtection: GP, pageFault: PF } = Vector;
const IF = Flag.interrupt;

beforeEach(() => {
  bench.reset();
  bench.map(USER_STACK - 0x1000n, bench.frame(), USER_READ_WRITE);
});

/** Runs code in a page of its own to its first exception or HLT. */
function run(build: (a: Assembler) => void, options: { cpl?: 0 | 3; rflags?: bigint; rsp?: bigint } = {}): Stop {
  const { cpl = 0, rflags = 2n, rsp = cpl ? USER_STACK : KERNEL_STACK } = options;
  bench.program(CODE, build, cpl ? USER_READ_WRITE : READ_WRITE);
  bench.start({ rip: CODE, cpl, rflags, rsp });
  return bench.run();
}
const register = (offset: number): bigint => bench.vcpu.get64(offset);
const expectShutdown = (stop: Stop): void => expect(stop).toEqual({ kind: 'shutdown' });

describe('what is pushed', () => {
  it.each<[string, (a: Assembler) => unknown, Partial<Trap>]>([
    ['#DE', (a) => a.nop().div(rcx), { vector: 0, rip: CODE + 1n }],
    ['#UD', (a) => a.nop().ud2(), { vector: 6, rip: CODE + 1n }],
    ['#GP', (a) => a.nop().mov(rax, qword(r8)), { vector: 13, errorCode: 0, rip: CODE + 1n }],
    ['#PF', (a) => a.nop().mov(rax, mem(rdi)), { vector: 14, errorCode: 0, rip: CODE + 1n }],
    ['#BP', (a) => a.nop().int3(), { vector: 3, rip: CODE + 2n }],
    ['INT 0x80', (a) => a.nop().int(0x80), { vector: 0x80, rip: CODE + 3n }],
    ['INT1', (a) => a.nop().int1(), { vector: 1, rip: CODE + 2n }],
  ])('by %s: the instruction’s RIP where it faults, the next one’s where it traps', (_name, build, expected) => {
    bench.vcpu.set64(state.R8, 0x8000_0000_0000_0000n);
    bench.vcpu.set64(state.RDI, 0x1234_5000n);
    expect(run(build as (a: Assembler) => void)).toMatchObject({ errorCode: undefined, cs: Selector.code, ss: Selector.data, rsp: KERNEL_STACK, ...expected });
  });

  it('a fault has RF set in its RFLAGS, a trap and an interrupt have not', () => {
    expect((run((a) => a.ud2()) as Trap).rflags & Flag.resume).toBe(Flag.resume);
    bench.reset();
    expect((run((a) => a.int3()) as Trap).rflags & Flag.resume).toBe(0n);
    bench.reset();
    bench.interrupt(0x40);
    expect((run((a) => a.nop().hlt(), { rflags: 2n | IF }) as Trap).rflags).toBe(2n | IF);
  });

  it('the stack is aligned to 16 bytes before, and holds the old RSP', () => {
    for (const rsp of [KERNEL_STACK - 1n, KERNEL_STACK - 8n, KERNEL_STACK - 15n]) {
      expect(run((a) => a.int3(), { rsp })).toMatchObject({ rsp });
      expect(register(state.RSP)).toBe(KERNEL_STACK - 16n - 40n);
      bench.reset();
    }
  });

  it('the frame ends at the aligned stack pointer, with or without an error code', () => {
    bench.vcpu.set64(state.R8, 0x8000_0000_0000_0000n);
    run((a) => a.mov(rax, mem(r8)));
    expect(register(state.RSP)).toBe(KERNEL_STACK - 48n);
  });

  it('flags that an instruction left are in it', () => {
    const stop = run((a) => a.mov(eax, -1).add(eax, 1).int3()) as Trap;
    expect(stop.rflags & 0x8d5n).toBe(Flag.carry | Flag.zero | Flag.parity | Flag.adjust);
  });

  it('a fault leaves registers and memory as they were before the instruction', () => {
    const frame = bench.frame();
    bench.map(0x60_0000n, frame);
    bench.writePhysical(frame, 0x11n);
    bench.vcpu.set64(state.RDI, 0x60_0000n);
    bench.vcpu.set64(state.RBX, 0x7777n);
    // PUSH from one page to a stack that is missing; POP to a missing page; XADD to a page that is read-only.
    bench.setGate(PF, { ist: 1 });
    expect(run((a) => a.push(qword(rdi)), { rsp: 0x70_0000n })).toMatchObject({ vector: PF, rsp: 0x70_0000n });
    expect(bench.readPhysical(frame)).toBe(0x11n);
    bench.setEntry(0x60_0000n, BigInt(frame) | Pte.present);
    bench.vcpu.mmu.flushAll(bench.vcpu.base);
    bench.code(Number(bench.entry(CODE) & 0xff_f000n), (a) => a.lock().xadd(mem(rdi), rbx));
    expect(bench.trapOf({ rip: CODE })).toMatchObject({ vector: PF, errorCode: Pf.present | Pf.write });
    expect([register(state.RBX), bench.readPhysical(frame)]).toEqual([0x7777n, 0x11n]);
    bench.code(Number(bench.entry(CODE) & 0xff_f000n), (a) => a.pop(qword(rdi)));
    expect(bench.trapOf({ rip: CODE, rsp: KERNEL_STACK - 8n })).toMatchObject({ vector: PF, rsp: KERNEL_STACK - 8n });
  });
});

describe('the handler starts', () => {
  it('with interrupts off through an interrupt gate, as they were through a trap gate', () => {
    for (const [type, flag] of [[14, 0n], [15, IF]] as const) {
      bench.setGate(3, { type });
      run((a) => a.int3(), { rflags: 2n | IF });
      expect(bench.vcpu.rflags & IF).toBe(flag);
    }
  });

  it('with TF, NT and RF clear; AC and IOPL as they were', () => {
    const kept = Flag.alignment | Flag.ioPrivilege | Flag.direction;
    run((a) => a.ud2(), { rflags: 2n | kept | Flag.nested | Flag.resume });
    expect(bench.vcpu.rflags & ~0x8d5n).toBe(2n | kept);
  });

  it('on RSP0 when it comes from CPL 3, with a null SS of the new privilege', () => {
    const stop = run((a) => a.int(0x40), { cpl: 3 });
    expect(stop).toMatchObject({ vector: 0x40, cs: Selector.userCode, ss: Selector.userData, rsp: USER_STACK });
    expect(register(state.RSP)).toBe(RSP0 - 40n);
    expect(bench.vcpu.cpl).toBe(0);
    expect(bench.vcpu.get32(state.SS + state.SEGMENT_SELECTOR)).toBe(0);
    expect(bench.vcpu.get32(state.CS + state.SEGMENT_SELECTOR)).toBe(Selector.code);
  });

  it('on its IST stack, whatever it comes from', () => {
    bench.setGate(0x40, { ist: 1 });
    for (const cpl of [0, 3] as const) {
      expect(run((a) => a.int(0x40), { cpl })).toMatchObject({ rsp: cpl ? USER_STACK : KERNEL_STACK });
      expect(register(state.RSP)).toBe(IST1 - 40n);
      bench.vcpu.mmu.flushAll(bench.vcpu.base);
    }
  });

  it('on the IST stack anew when the exception nests', () => {
    bench.setGate(3, { ist: 1 });
    bench.setGate(0x40, { ist: 1, handler: CODE + 0x800n });
    bench.program(CODE, (a) => a.int(0x40));
    bench.code(Number(bench.entry(CODE) & 0xff_f000n) + 0x800, (a) => a.push(rax).int3());
    bench.start({ rip: CODE });
    expect(bench.run()).toMatchObject({ vector: 3, rsp: IST1 - 48n });
    expect(register(state.RSP)).toBe(IST1 - 40n);
  });
});

describe('INT n', () => {
  it('from CPL 3 needs a gate of DPL 3: otherwise #GP with the gate’s number, at the INT itself', () => {
    bench.setGate(0x40, { dpl: 0 });
    expect(run((a) => a.nop().int(0x40), { cpl: 3 })).toMatchObject({ vector: GP, errorCode: 0x40 * 8 + 2, rip: CODE + 1n });
    bench.reset();
    bench.setGate(3, { dpl: 0 });
    bench.map(USER_STACK - 0x1000n, bench.frame(), USER_READ_WRITE);
    expect(run((a) => a.int3(), { cpl: 3 })).toMatchObject({ vector: GP, errorCode: 3 * 8 + 2, rip: CODE });
  });

  it('INT1 is not asked for the gate’s DPL, nor are exceptions', () => {
    bench.setGate(1, { dpl: 0 });
    expect(run((a) => a.int1(), { cpl: 3 })).toMatchObject({ vector: 1 });
    bench.reset();
    bench.setGate(UD, { dpl: 0 });
    expect(run((a) => a.ud2(), { cpl: 3 })).toMatchObject({ vector: UD });
  });

  it('of an exception’s vector pushes no error code', () => {
    bench.setGate(GP, { handler: CODE + 0x800n });
    bench.program(CODE, (a) => a.int(GP));
    bench.code(Number(bench.entry(CODE) & 0xff_f000n) + 0x800, (a) => a.hlt());
    bench.start({ rip: CODE });
    expect(bench.run()).toEqual({ kind: 'halt', rip: CODE + 0x801n });
    expect(register(state.RSP)).toBe(KERNEL_STACK - 40n);
    expect(bench.vcpu.read(KERNEL_STACK - 40n, 8, 0)).toBe(CODE + 2n);
  });

  it('that faults on the way is where the fault says it is', () => {
    bench.setGate(0x40, { present: false });
    expect(run((a) => a.nop().int(0x40))).toMatchObject({ vector: NP, errorCode: 0x40 * 8 + 2, rip: CODE + 1n });
  });

  it('of vector 8 that faults on the way is no double fault', () => {
    bench.setGate(DF, { dpl: 0 });
    expect(run((a) => a.int(DF), { cpl: 3 })).toMatchObject({ vector: GP, errorCode: DF * 8 + 2 });
  });
});

describe('gates', () => {
  const external = (): Stop => {
    bench.interrupt(0x40);
    return run((a) => a.nop().hlt(), { rflags: 2n | IF });
  };

  it.each<[string, Parameters<EngineBench['setGate']>[1], Partial<Trap>]>([
    ['that is not present', { present: false }, { vector: NP, errorCode: 0x40 * 8 + 2 + 1 }],
    ['of a type that is none', { type: 12 }, { vector: GP, errorCode: 0x40 * 8 + 2 + 1 }],
    ['to a null selector', { selector: 0 }, { vector: GP, errorCode: 1 }],
    ['to a selector beyond the GDT', { selector: 0x48 }, { vector: GP, errorCode: 0x48 + 1 }],
    ['to a data segment', { selector: Selector.data }, { vector: GP, errorCode: Selector.data + 1 }],
    ['to a 32-bit code segment', { selector: Selector.userCode32 & ~3 }, { vector: GP, errorCode: (Selector.userCode32 & ~3) + 1 }],
    ['to code of a lower privilege', { selector: Selector.userCode & ~3 }, { vector: GP, errorCode: (Selector.userCode & ~3) + 1 }],
    ['to an address that is not canonical', { handler: 0x8000_0000_0000n }, { vector: GP, errorCode: 1 }],
  ])('one %s', (_name, gate, expected) => {
    bench.setGate(0x40, gate);
    // The interrupted program is where it was.
    expect(external()).toMatchObject({ ...expected, rip: CODE, rsp: KERNEL_STACK });
  });

  it('one beyond the IDT’s limit', () => {
    bench.vcpu.set32(state.IDTR_LIMIT, 0x40 * 16 + 14);
    expect(external()).toMatchObject({ vector: GP, errorCode: 0x40 * 8 + 2 + 1 });
  });

  it('an IST stack that is not canonical raises #SS; with a TSS that is too short for it, #TS', () => {
    bench.setGate(0x40, { ist: 1 });
    const tss = bench.vcpu.get64(state.TR + state.SEGMENT_BASE);
    bench.writePhysical(Number(tss - KERNEL) + 0x24, 0x8000_0000_0000n);
    expect(external()).toMatchObject({ vector: SS, errorCode: 1 });
    bench.vcpu.mmu.flushAll(bench.vcpu.base);
    bench.vcpu.set32(state.TR + state.SEGMENT_LIMIT, 0x24 + 6);
    expect(external()).toMatchObject({ vector: TS, errorCode: Selector.tss + 1 });
  });

  it('a stack that leaves the canonical addresses in the middle of the frame raises #SS', () => {
    bench.setGate(SS, { ist: 1 });
    bench.map(0xffff_8000_0000_0000n, 0, READ_WRITE);
    expect(run((a) => a.int(0x40), { rsp: 0xffff_8000_0000_0010n })).toMatchObject({ vector: SS, errorCode: 0, rip: CODE });
  });
});

describe('a fault while another is delivered', () => {
  const tss = (): number => Number(bench.vcpu.get64(state.TR + state.SEGMENT_BASE) - KERNEL);
  /** Gates that fault: #NP by themselves, #GP by their type, #PF by a stack that is missing. */
  const make = { np: { present: false }, gp: { type: 12 }, pf: { ist: 2 } };
  beforeEach(() => {
    bench.writePhysical(tss() + 0x2c, 0x6666_0000n);
    bench.setGate(DF, { ist: 1 });
  });
  const cause = {
    de: (a: Assembler) => a.div(rcx), ud: (a: Assembler) => a.ud2(), gp: (a: Assembler) => a.mov(rax, qword(r8)), pf: (a: Assembler) => a.mov(rax, mem(rdi)), int: (a: Assembler) => a.int(0x40),
  };
  const CAUSE_VECTOR = { de: 0, ud: UD, gp: GP, pf: PF, int: 0x40 };

  it.each([
    ['de', 'np', DF], ['de', 'gp', DF], ['de', 'pf', PF],
    ['ud', 'np', NP], ['ud', 'gp', GP], ['ud', 'pf', PF],
    ['gp', 'np', DF], ['gp', 'pf', PF],
    ['pf', 'np', DF], ['pf', 'gp', DF], ['pf', 'pf', DF],
    ['int', 'np', NP], ['int', 'gp', GP], ['int', 'pf', PF],
  ] as const)('first #%s, then #%s: vector %i', (first, second, vector) => {
    bench.vcpu.set64(state.R8, 0x8000_0000_0000_0000n);
    bench.vcpu.set64(state.RDI, 0x1234_5000n);
    bench.setGate(CAUSE_VECTOR[first], make[second]);
    const stop = run((a) => void cause[first](a.nop()));
    expect(stop).toMatchObject({ vector, rip: CODE + 1n, rsp: KERNEL_STACK, ...(vector === DF ? { errorCode: 0 } : {}) });
    if (vector === PF) expect(stop).toMatchObject({ errorCode: Pf.write, cr2: 0x6666_0000n - 8n });
  });

  it('a page fault in the delivery of a page fault leaves CR2 with the second address', () => {
    bench.setGate(PF, { ist: 2 });
    bench.vcpu.set64(state.RDI, 0x1234_5000n);
    expect(run((a) => a.mov(rax, mem(rdi)))).toMatchObject({ vector: DF, errorCode: 0, cr2: 0x6666_0000n - 8n });
  });

  it('a third one shuts the vCPU down, with the registers of the program that was interrupted', () => {
    bench.setGate(DF, { present: false });
    bench.setGate(PF, { ist: 2 });
    bench.vcpu.set64(state.RDI, 0x1234_5000n);
    expectShutdown(run((a) => a.nop().mov(rax, mem(rdi))));
    expect([bench.vcpu.rip, register(state.RSP)]).toEqual([CODE + 1n, KERNEL_STACK]);
  });

  it('a benign exception whose gate faults, and the fault’s own too, becomes a double fault', () => {
    bench.setGate(UD, { present: false });
    bench.setGate(NP, { type: 12 });
    expect(run((a) => a.ud2())).toMatchObject({ vector: DF, errorCode: 0 });
  });

  it('an external interrupt’s fault is restarted: the frame has the interrupted RIP', () => {
    bench.setGate(0x40, { ist: 2 });
    bench.interrupt(0x40);
    expect(run((a) => a.nop().hlt(), { rflags: 2n | IF })).toMatchObject({ vector: PF, rip: CODE, rflags: 2n | IF | Flag.resume });
  });

  it('without an IDT everything shuts down', () => {
    bench.vcpu.set32(state.IDTR_LIMIT, 0);
    expectShutdown(run((a) => a.ud2()));
  });
});

describe('IRETQ', () => {
  /** Pushes SS, RSP, RFLAGS, CS, RIP and returns. */
  const iret = (frame: { ss?: number; rsp?: bigint; rflags?: bigint; cs?: number; rip?: bigint }, rflags = 2n): Stop =>
    run((a) => {
      const words = [frame.ss ?? Selector.userData, frame.rsp ?? USER_STACK, frame.rflags ?? 2n, frame.cs ?? Selector.userCode, frame.rip ?? CODE + 0x800n];
      for (const word of words) a.mov(rax, word).push(rax);
      a.jmp('return').align(IRET_OFFSET).label('return').iretq();
      a.align(0x800).ud2();
    }, { rflags });
  const IRET_OFFSET = 0x400;

  const toUser = (): void => {
    bench.program(CODE, () => {}, USER_READ_WRITE);
    bench.setEntry(CODE, bench.entry(CODE) | Pte.user);
  };

  it('goes back to CPL 3 with its stack, and from there an exception finds RSP0 again', () => {
    bench.program(CODE + 0x1000n, (a) => a.mov(rax, rsp).ud2(), USER_READ_WRITE);
    expect(iret({ rip: CODE + 0x1000n })).toMatchObject({ vector: UD, rip: CODE + 0x1003n, cs: Selector.userCode, ss: Selector.userData, rsp: USER_STACK });
    expect(register(state.RSP)).toBe(RSP0 - 40n);
    expect(register(state.RAX)).toBe(USER_STACK);
  });

  it('a round trip from a handler resumes a program exactly', () => {
    // The bench’s handler halts, and then returns.
    const stop = run((a) => a.mov(eax, 5).add(eax, -6).int(0x40).ud2(), { cpl: 3 });
    expect(stop).toMatchObject({ vector: 0x40 });
    const flags = (stop as Trap).rflags;
    const next = bench.run() as Trap;
    expect(next).toMatchObject({ vector: UD, cs: Selector.userCode, ss: Selector.userData, rsp: USER_STACK });
    expect(next.rflags & 0x8d5n).toBe(flags & 0x8d5n);
  });

  it('at the same level pops RSP and SS all the same', () => {
    expect(iret({ cs: Selector.code, ss: Selector.data, rsp: KERNEL_STACK - 0x100n })).toMatchObject({ vector: UD, rip: CODE + 0x800n, rsp: KERNEL_STACK - 0x100n });
  });

  it('takes a null SS to 64-bit code above CPL 3', () => {
    expect(iret({ cs: Selector.code, ss: 0 })).toMatchObject({ vector: UD, ss: 0 });
  });

  it.each<[string, Parameters<typeof iret>[0], Partial<Trap>]>([
    ['a RIP that is not canonical', { rip: 0x8000_0000_0000n }, { vector: GP, errorCode: 0 }],
    ['a null CS', { cs: 0 }, { vector: GP, errorCode: 0 }],
    ['a null SS for CPL 3', { ss: 0 }, { vector: GP, errorCode: 0 }],
    ['a CS beyond the GDT', { cs: 0x53 }, { vector: GP, errorCode: 0x50 }],
    ['a data segment as CS', { cs: Selector.userData }, { vector: GP, errorCode: Selector.userData & ~3 }],
    ['code as SS', { ss: Selector.userCode }, { vector: GP, errorCode: Selector.userCode & ~3 }],
    ['an SS of another RPL than CS', { ss: Selector.userData & ~3 }, { vector: GP, errorCode: Selector.userData & ~3 }],
    ['an SS of another DPL', { ss: Selector.data | 3 }, { vector: GP, errorCode: Selector.data }],
    ['a CS whose RPL is not its DPL', { cs: Selector.code | 3 }, { vector: GP, errorCode: Selector.code }],
  ])('refuses %s, where it stands', (_name, frame, expected) => {
    toUser();
    expect(iret(frame)).toMatchObject({ ...expected, rip: CODE + BigInt(IRET_OFFSET), cs: Selector.code, rsp: KERNEL_STACK - 40n });
  });

  it('refuses what would raise the privilege', () => {
    expect(run((a) => {
      for (const word of [Selector.data, 0, 2, Selector.code, Number(CODE)]) a.push(word);
      a.iretq();
    }, { cpl: 3 })).toMatchObject({ vector: GP, errorCode: Selector.code, cs: Selector.userCode });
  });

  it('refuses a nested task in long mode', () => {
    expect(iret({ cs: Selector.code, ss: Selector.data }, 2n | Flag.nested)).toMatchObject({ vector: GP, errorCode: 0, rip: CODE + BigInt(IRET_OFFSET) });
  });

  it('sets at CPL 0 what it pops, VM left out', () => {
    const wanted = 2n | IF | Flag.ioPrivilege | Flag.direction | Flag.alignment | Flag.id | 0x8d5n;
    const stop = iret({ cs: Selector.code, ss: Selector.data, rflags: wanted | (1n << 3n) | (1n << 15n) | (1n << 40n) }) as Trap;
    expect(stop.rflags & ~Flag.resume).toBe(wanted);
  });

  it('at CPL 3 leaves IOPL alone, and IF where IOPL is below', () => {
    const stop = run((a) => {
      for (const word of [Selector.userData, Number(USER_STACK), 0x3202 | 0x400, Selector.userCode, Number(CODE) + 0x800]) a.push(word);
      a.iretq().align(0x800).ud2();
    }, { cpl: 3 }) as Trap;
    expect(stop).toMatchObject({ vector: UD, rip: CODE + 0x800n });
    expect(stop.rflags & ~Flag.resume).toBe(2n | Flag.direction);
  });

  it('to an outer level drops data segments that it may not have', () => {
    const stop = run((a) => {
      a.mov(eax, Selector.data).mov(ds, ax).mov(eax, Selector.userData).mov(es, ax);
      for (const word of [Selector.userData, Number(USER_STACK), 2, Selector.userCode, Number(CODE) + 0x1000]) a.push(word);
      a.iretq();
    });
    expect(stop).toMatchObject({ vector: PF, errorCode: Pf.user | Pf.fetch });
    expect([bench.vcpu.get32(state.DS + state.SEGMENT_SELECTOR), bench.vcpu.get32(state.ES + state.SEGMENT_SELECTOR)]).toEqual([0, Selector.userData]);
  });
});

describe('SYSCALL and SYSRET', () => {
  const KERNEL_ENTRY = 0xffff_8100_0000_0000n;
  beforeEach(() => {
    bench.vcpu.set64(state.STAR, (BigInt(Selector.userCode32) << 48n) | (BigInt(Selector.code) << 32n));
    bench.vcpu.set64(state.LSTAR, KERNEL_ENTRY);
    bench.vcpu.set64(state.SFMASK, IF | Flag.direction | Flag.trap);
  });

  it('enters at LSTAR with RIP in RCX and RFLAGS in R11, masked by SFMASK, on the user’s stack', () => {
    bench.program(KERNEL_ENTRY, (a) => a.hlt());
    const rflags = 2n | IF | Flag.direction | Flag.carry | Flag.alignment;
    expect(run((a) => a.syscall(), { cpl: 3, rflags })).toEqual({ kind: 'halt', rip: KERNEL_ENTRY + 1n });
    expect([register(state.RCX), register(state.R11), register(state.RSP)]).toEqual([CODE + 2n, rflags, USER_STACK]);
    expect(bench.vcpu.rflags).toBe(2n | Flag.carry | Flag.alignment);
    expect(bench.vcpu.cpl).toBe(0);
    expect([bench.vcpu.get32(state.CS + state.SEGMENT_SELECTOR), bench.vcpu.get32(state.SS + state.SEGMENT_SELECTOR)]).toEqual([Selector.code, Selector.data]);
  });

  it('a round trip keeps flags and leaves user segments', () => {
    bench.program(KERNEL_ENTRY, (a) => a.or(eax, eax).sysretq());
    const rflags = 2n | Flag.carry | Flag.direction;
    const stop = run((a) => a.syscall().ud2(), { cpl: 3, rflags });
    expect(stop).toMatchObject({ vector: UD, rip: CODE + 2n, cs: Selector.userCode, ss: Selector.userData, rsp: USER_STACK });
    expect((stop as Trap).rflags & ~Flag.resume).toBe(rflags);
  });

  it('SYSRET to 32-bit code runs in compatibility mode', () => {
    bench.program(KERNEL_ENTRY, (a) => a.sysret());
    // 48 is DEC EAX there.
    const stop = run((a) => a.mov(eax, 5).syscall().db(0x48).ud2(), { cpl: 3 });
    expect(stop).toMatchObject({ vector: UD, rip: CODE + 8n, cs: Selector.userCode32, ss: Selector.userData });
    expect(register(state.RAX)).toBe(4n);
  });

  it('SYSRET to an address that is not canonical faults at CPL 3, as AMD has it', () => {
    bench.program(KERNEL_ENTRY, (a) => a.mov(rcx, 0x8000_0000_0000n).sysretq());
    expect(run((a) => a.syscall(), { cpl: 3 })).toMatchObject({ vector: GP, errorCode: 0, rip: 0x8000_0000_0000n, cs: Selector.userCode });
  });

  it('are undefined while EFER.SCE is clear', () => {
    bench.vcpu.set64(state.EFER, register(state.EFER) & ~Efer.sce);
    expect(run((a) => a.syscall(), { cpl: 3 })).toMatchObject({ vector: UD, rip: CODE });
    bench.vcpu.mmu.flushAll(bench.vcpu.base);
    expect(run((a) => a.sysretq())).toMatchObject({ vector: UD, rip: CODE });
  });

  it('SYSRET is CPL 0’s', () => {
    expect(run((a) => a.sysretq(), { cpl: 3 })).toMatchObject({ vector: GP, errorCode: 0, rip: CODE });
  });
});

describe('SWAPGS', () => {
  it('exchanges the base of GS with the kernel’s, and back', () => {
    bench.vcpu.set64(state.GS, 0x1111n);
    bench.vcpu.set64(state.KERNEL_GS_BASE, 0xffff_8000_0000_2222n);
    run((a) => a.swapgs().rdgsbase(rax).swapgs().rdgsbase(rbx).hlt());
    expect([register(state.RAX), register(state.RBX)]).toEqual([0xffff_8000_0000_2222n, 0x1111n]);
  });

  it('is what GS-relative accesses go by at once', () => {
    const frame = bench.frame();
    bench.map(0x60_0000n, frame);
    bench.writePhysical(frame + 8, 0x77n);
    bench.vcpu.set64(state.KERNEL_GS_BASE, 0x60_0000n);
    run((a) => a.swapgs().mov(rax, qword(gs, 8)).hlt());
    expect(register(state.RAX)).toBe(0x77n);
  });

  it('is CPL 0’s', () => {
    expect(run((a) => a.swapgs(), { cpl: 3 })).toMatchObject({ vector: GP, errorCode: 0, rip: CODE });
  });
});

describe('interrupts', () => {
  it('are taken between instructions, with the next one’s RIP', () => {
    bench.interrupt(0x40);
    expect(run((a) => a.sti().nop().nop().hlt())).toMatchObject({ vector: 0x40, rip: CODE + 2n });
  });

  it('wait while IF is clear, and for the instruction after STI', () => {
    bench.interrupt(0x40);
    expect(run((a) => a.nop().nop().sti().mov(eax, 7).mov(eax, 8).hlt())).toMatchObject({ vector: 0x40, rip: CODE + 8n });
    expect(register(state.RAX)).toBe(7n);
  });

  it('STI, HLT: the halt comes first', () => {
    bench.interrupt(0x40);
    expect(run((a) => a.sti().hlt().nop())).toEqual({ kind: 'halt', rip: CODE + 2n });
    expect(bench.run()).toMatchObject({ vector: 0x40, rip: CODE + 2n });
  });

  it('STI, CLI: nothing gets through between the two', () => {
    bench.interrupt(0x40);
    expect(run((a) => a.sti().cli().nop().hlt())).toEqual({ kind: 'halt', rip: CODE + 4n });
  });

  it('wait for the instruction after MOV SS: stack pointer and segment change together', () => {
    bench.onAsked = () => bench.interrupt(0x40);
    bench.vcpu.set64(state.RCX, BigInt(Selector.data));
    bench.vcpu.set64(state.RBX, KERNEL_STACK - 0x100n);
    expect(run((a) => void a.in(al, 0x80).mov(ss, cx).mov(rsp, rbx).nop().hlt(), { rflags: 2n | IF })).toMatchObject({ vector: 0x40, rip: CODE + 7n, rsp: KERNEL_STACK - 0x100n });
  });

  it.each<[string, (a: Assembler) => void, bigint]>([
    ['STI', (a) => void a.sti(), 2n],
    ['MOV SS', (a) => void a.mov(ss, cx), 2n | IF],
  ])('one that arrives right behind %s, where a slice ends, still waits for the instruction after it', (_name, shadow, rflags) => {
    // The shadow ends its block whatever the slice: it stands at the end of a page, then behind 63 NOPs.
    for (const [offset, nops] of [[PAGE - 1, 0], [PAGE - 2, 0], [0x100, 63]]) {
      bench.reset();
      const frame = bench.frame(2);
      for (const page of [0, 1]) bench.map(CODE + BigInt(page * PAGE), frame + page * PAGE);
      bench.code(frame + offset, (a) => {
        for (let i = 0; i < nops; i++) a.nop();
        shadow(a);
        a.mov(eax, 7).mov(eax, 8).hlt();
      });
      bench.vcpu.set64(state.RCX, BigInt(Selector.data));
      bench.start({ rip: CODE + BigInt(offset), rflags });
      bench.engine.run(bench.vcpu, nops + 1);
      bench.interrupt(0x40);
      const shadowed = CODE + BigInt(offset + nops + assemble(shadow).length);
      expect(bench.run()).toMatchObject({ kind: 'trap', vector: 0x40, rip: shadowed + 5n });
      expect(register(state.RAX)).toBe(7n);
    }
  });

  it.each<[string, (a: Assembler) => unknown]>([
    ['POPF', (a) => a.push(0x202).popf()],
    ['IRETQ', (a) => a.mov(rax, rsp).push(Selector.data).push(rax).push(0x202).push(Selector.code).push(r11).iretq()],
  ])('are taken right after %s, which casts no shadow', (_name, build) => {
    bench.interrupt(0x40);
    bench.program(CODE, (a) => {
      build(a);
      a.nop().hlt();
    });
    const behind = CODE + BigInt(bench.code(bench.frame(), (a) => void build(a)).length);
    bench.vcpu.set64(state.R11, behind);
    bench.start({ rip: CODE });
    expect(bench.run()).toMatchObject({ vector: 0x40, rip: behind });
  });

  it('a branch in a shadow finds its way to code that was never run before', () => {
    bench.interrupt(0x40);
    const program = (a: Assembler): void => void a.xor(eax, eax).sti().jmp('target').align(0x100).label('target').jz('done').ud2().label('done').mov(eax, 1).hlt();
    expect(run(program)).toMatchObject({ vector: 0x40, rip: CODE + 0x100n });
    expect(bench.run()).toMatchObject({ kind: 'halt' });
    expect(register(state.RAX)).toBe(1n);
  });

  it('CLI and STI need IOPL', () => {
    expect(run((a) => a.cli(), { cpl: 3 })).toMatchObject({ vector: GP, errorCode: 0, rip: CODE });
    bench.vcpu.mmu.flushAll(bench.vcpu.base);
    expect(run((a) => a.sti(), { cpl: 3, rflags: 2n | (2n << 12n) })).toMatchObject({ vector: GP, rip: CODE });
    bench.vcpu.mmu.flushAll(bench.vcpu.base);
    expect(run((a) => a.sti().cli().ud2(), { cpl: 3, rflags: 2n | Flag.ioPrivilege })).toMatchObject({ vector: UD });
  });

  it('HLT is CPL 0’s', () => {
    expect(run((a) => a.hlt(), { cpl: 3 })).toMatchObject({ vector: GP, errorCode: 0, rip: CODE });
  });

  it('wake a halted vCPU behind the HLT', () => {
    expect(run((a) => a.sti().hlt().mov(eax, 1).hlt())).toEqual({ kind: 'halt', rip: CODE + 2n });
    bench.interrupt(0x41);
    expect(bench.run()).toMatchObject({ vector: 0x41, rip: CODE + 2n });
    expect(bench.run()).toEqual({ kind: 'halt', rip: CODE + 8n });
  });
});
