/**
 * A bench for whole machines: a few instructions of a test's as a kernel in long mode, with an IDT, its APIC enabled and a log in memory that
 * handlers write. It boots by PVH like any other; application processors come through real mode. What is not asked for is not there.
 */

import { bootCode, bootTables, trampolineImage } from '../src/guest/kernel/boot.ts';
import { elfImage } from '../src/guest/kernel/elf-image.ts';
import { type Assembler, assembler, type ObjectCode } from '../src/guest/assembler/assembler.ts';
import { link } from '../src/guest/assembler/linker.ts';
import { address, al, ax, byte, cl, dword, dx, eax, ecx, edi, edx, esp, mem, qword, rax, rbx, rcx, rdi, rdx, rsi, rsp, word } from '../src/guest/assembler/operands.ts';
import { KERNEL_BASE, PER_CPU_BYTES, Selector, TRAMPOLINE } from '../src/guest/kernel/layout.ts';
import { APIC_DEFAULT_BASE, ApicRegister, SVR_ENABLE } from '../src/interrupts/apic-registers.ts';
import { IO_APIC_BASE } from '../src/interrupts/io-apic.ts';
import { Machine, type MachineOptions, type RunBudget, type RunResult } from '../src/machine/machine.ts';

const MAX_VCPUS = 8;
const LOG_BYTES = 4096;
export const MSR_PV_EOI = 0x4b56_4d04;
export const DEBUG_EXIT_PORT = 0xf4;

export interface GuestProgram {
  /** What the boot processor does, interrupts off; at its end it leaves by port 0xF4 with code 0. */
  main(a: Assembler): void;
  /** By vector: what a handler does before its IRETQ. All registers are saved. */
  handlers?: Record<number, (a: Assembler) => void>;
  /** What application processors do, with a stack of their own; at its end they halt for good. */
  application?: (a: Assembler) => void;
  /** Labels and data. */
  data?: (a: Assembler) => void;
}

const SAVED = [rax, rbx, rcx, rdx, rsi, rdi];
/** What a handler finds on its stack before the error code, or before RIP. */
export const SAVED_BYTES = 8 * SAVED.length;
/** Exceptions that push an error code. */
const HAS_ERROR_CODE = new Set([8, 10, 11, 12, 13, 14, 17]);

function program({ main, handlers = {}, application, data }: GuestProgram): ObjectCode {
  const a = assembler(64).align(16);
  a.label('kernel_main');
  // Gates: the stub of each vector, 16 bytes each.
  a.mov(edi, address('idt')).mov(eax, address('stubs')).mov(ecx, 256);
  a.label('gate').mov(rdx, rax).mov(word(rdi), ax).mov(word(rdi, 2), Selector.code64).mov(word(rdi, 4), 0x8e00);
  a.shr(rdx, 16).mov(word(rdi, 6), dx).shr(rdx, 16).mov(qword(rdi, 8), rdx).add(rdi, 16).add(rax, 16).dec(ecx).jnz('gate');
  a.call('processor_setup');
  main(a);
  exitWith(a, 0);
  a.label('secondary_start');
  a.mov(ecx, 1).lock().xadd(dword(address('next_stack')), ecx).shl(ecx, 12).mov(esp, address('stacks', 4096)).add(rsp, rcx);
  a.call('processor_setup');
  application?.(a);
  a.label('halted').cli().hlt().jmp('halted');
  a.label('processor_setup').lidt(mem('idt_pointer'));
  writeApic(a, ApicRegister.svr, SVR_ENABLE | 0xff);
  a.ret();
  for (let vector = 0; vector < 256; vector++) {
    a.align(16);
    if (vector === 0) a.label('stubs');
    if (handlers[vector]) a.jmp(`handler_${vector}`);
    else exitWith(a, vector); // nobody expects this one
  }
  for (const [vector, handler] of Object.entries(handlers)) {
    a.label(`handler_${vector}`);
    for (const register of SAVED) a.push(register);
    handler(a);
    for (const register of SAVED.toReversed()) a.pop(register);
    if (HAS_ERROR_CODE.has(Number(vector))) a.add(rsp, 8);
    a.iretq();
  }
  a.align(16).label('idt_pointer').dw(0xfff).dq(address('idt'));
  a.align(64).label('log_next').dq(address('log')).label('next_stack').dq(0);
  a.align(64).label('pv_eoi_word').dq(0);
  data?.(a);
  a.align(64).label('log').reserve(LOG_BYTES).label('idt').reserve(4096);
  a.align(16).label('start_info').dq(0).label('stacks').reserve(MAX_VCPUS * 4096);
  return a.assemble();
}

/** A kernel for `Machine`, and where its labels are. */
export function buildGuest(guest: GuestProgram): { elf: Uint8Array; symbols: ReadonlyMap<string, number> } {
  const objects = [bootCode(64), program(guest), ...bootTables(64)];
  const perCpu = assembler(64).align(4096, 0).label('per_cpu_areas').reserve(PER_CPU_BYTES).assemble();
  const linked = (trampoline: Uint8Array) => {
    const page = assembler(64).align(16, 0).label('trampoline').db(trampoline).assemble();
    const devices = { APIC_BASE: APIC_DEFAULT_BASE - 2 ** 32, IO_APIC_BASE: IO_APIC_BASE - 2 ** 32 };
    return link([...objects, page, perCpu], { base: KERNEL_BASE, absolute: { ...devices, trampoline_bytes: trampoline.length } });
  };
  // Its size does not depend on what it says: the first one is full of zeros.
  const { symbols: at } = linked(trampolineImage(64, { gdt: 0, pml4: 0, secondaryStart: 0 }));
  const find = (name: string): number => at.get(name) as number;
  const { bytes, symbols } = linked(trampolineImage(64, { gdt: find('gdt'), pml4: find('pml4'), secondaryStart: find('secondary_start') }));
  return { elf: elfImage({ base: KERNEL_BASE, bytes, memoryBytes: bytes.length, entry: find('pvh_entry') }), symbols };
}

export class MachineBench {
  readonly machine: Machine;
  readonly symbols: ReadonlyMap<string, number>;
  /** What the guest wrote to its serial console. */
  output = '';

  constructor(guest: GuestProgram, options: Partial<MachineOptions> = {}) {
    const { elf, symbols } = buildGuest(guest);
    this.symbols = symbols;
    this.machine = new Machine({ kernel: elf, vcpus: 1, memoryBytes: 4 << 20, ...options });
    this.machine.serial.onOutput((bytes) => {
      this.output += new TextDecoder('latin1').decode(bytes);
    });
  }

  /** Runs for a second of guest time at most. */
  run(budget: RunBudget = { guestNanoseconds: 1e9 }): RunResult {
    return this.machine.run(budget);
  }

  /** Runs to the end of `main`; throws where it ends in another way. */
  finish(): this {
    const result = this.run();
    if (result.kind !== 'ended' || result.end !== 'debug-exit') throw new Error(`${JSON.stringify(result, undefined, 1)}\n${this.machine.stateReport()}`);
    if (result.exitStatus !== 1) throw new Error(`the guest left with code ${result.exitStatus >> 1}: an unexpected exception or interrupt\n${this.machine.stateReport()}`);
    return this;
  }

  address(symbol: string): number {
    const found = this.symbols.get(symbol);
    if (found === undefined) throw new Error(`no symbol ${symbol}`);
    return found;
  }

  /** The 64-bit word at a label. */
  word(symbol: string, offset = 0): bigint {
    return this.machine.memory.view.getBigUint64(this.machine.memory.linear(this.address(symbol) + offset), true);
  }

  /** What `record` wrote. */
  get log(): number[] {
    return [...this.machine.memory.slice(this.address('log'), Number(this.word('log_next')) - this.address('log'))];
  }

  /** Counts of all vCPUs. */
  get total() {
    return this.machine.counters().total;
  }
}

// --- What programs are made of --------------------------------------------------------------------

/** Leaves the machine by the debug exit port. */
export function exitWith(a: Assembler, code: number): void {
  a.mov(al, code).out(DEBUG_EXIT_PORT, al);
}

/** Appends a byte to the log. Safe with several vCPUs; clobbers RAX. */
export function record(a: Assembler, value: number): void {
  a.mov(eax, 1).lock().xadd(qword(address('log_next')), rax).mov(byte(rax), value);
}

/** Appends AL-wide register CL to the log; clobbers RAX. */
export function recordCl(a: Assembler): void {
  a.mov(eax, 1).lock().xadd(qword(address('log_next')), rax).mov(byte(rax), cl);
}

/** Stores a 64-bit register at a label. */
export function keep(a: Assembler, symbol: string, register: typeof rax, offset = 0): void {
  a.mov(qword(address(symbol, offset)), register);
}

export function writeApic(a: Assembler, register: number, value: number): void {
  a.mov(dword(address('APIC_BASE', register)), value);
}

/** Into EAX. */
export function readApic(a: Assembler, register: number): void {
  a.mov(eax, dword(address('APIC_BASE', register)));
}

/** Clobbers RAX, RCX and RDX. */
export function writeMsr(a: Assembler, msr: number, low: number | ReturnType<typeof address>, high = 0): void {
  a.mov(ecx, msr).mov(eax, low).mov(edx, high).wrmsr();
}

/** Turns x2APIC mode on; the xAPIC page is gone then. */
export function enableX2apic(a: Assembler): void {
  a.mov(ecx, 0x1b).rdmsr().or(eax, 1 << 10).wrmsr();
}

/** An IPI by the xAPIC's registers: `command` is the low half. */
export function sendIpi(a: Assembler, apicId: number, command: number): void {
  writeApic(a, ApicRegister.icrHigh, apicId * 2 ** 24);
  writeApic(a, ApicRegister.icrLow, command);
}

const SELF = 1 << 18;
/** To oneself: pending, and delivered as soon as interrupts are enabled and the priority allows. */
export function interruptSelf(a: Assembler, vector: number): void {
  writeApic(a, ApicRegister.icrLow, SELF | vector);
}

export function endInterrupt(a: Assembler): void {
  writeApic(a, ApicRegister.eoi, 0);
}

/** Tells the host where the word is: `pv_eoi_word`, plus `offset`. */
export function enablePvEoi(a: Assembler, offset = 0): void {
  writeMsr(a, MSR_PV_EOI, address('pv_eoi_word', offset + 1));
}

let labels = 0;
/** As Linux does it: test and clear the bit, and write the register where it was clear. */
export function endInterruptPv(a: Assembler): void {
  const done = `ended${labels++}`;
  a.btr(dword(address('pv_eoi_word')), 0).jc(done);
  endInterrupt(a);
  a.label(done);
}

/** INIT and STARTUP to all others; they come out at `application`. */
export function startApplications(a: Assembler): void {
  writeApic(a, ApicRegister.icrLow, 0xc_4500);
  writeApic(a, ApicRegister.icrLow, 0xc_4600 | (TRAMPOLINE >> 12));
}

/** Spins until the 64-bit word at a label is not below `value`. */
export function waitFor(a: Assembler, symbol: string, value: number): void {
  const again = `wait${labels++}`;
  a.label(again).pause().cmp(qword(address(symbol)), value).jb(again);
}

/** Adds one to the word at a label, for all vCPUs to see. */
export function countUp(a: Assembler, symbol: string): void {
  a.lock().inc(qword(address(symbol)));
}

/** Lets pending interrupts in, and shuts them out again. */
export function openWindow(a: Assembler): void {
  a.sti().nop().nop().cli();
}

/** Arms the timer for one expiry, `counts` of the APIC's clock divided by 1 from now. */
export function armTimer(a: Assembler, vector: number, counts: number): void {
  writeApic(a, ApicRegister.divideConfiguration, 0xb);
  writeApic(a, ApicRegister.lvtTimer, vector);
  writeApic(a, ApicRegister.initialCount, counts);
}
