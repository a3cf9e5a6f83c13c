/**
 * A bench for the engine's tests: vCPUs in long mode, page tables that a test writes entry by entry, and an IDT whose handlers halt,
 * so that `run` hands back what an exception pushed. Going on from there pops the error code and returns by IRETQ, all of it guest code.
 */

import { type CpuModel, DEFAULT_CPU_MODEL } from '../src/cpu/cpu-model.ts';
import { deliver } from '../src/cpu/exceptions.ts';
import { resetVcpu } from '../src/cpu/control-registers.ts';
import { readCpuMsr, writeCpuMsr } from '../src/cpu/msr.ts';
import { setCpl, setSegment } from '../src/cpu/segments.ts';
import * as state from '../src/cpu/state.ts';
import { Activity, Cr0, Cr4, Efer, type Vcpu } from '../src/cpu/vcpu.ts';
import { Engine } from '../src/engine/engine.ts';
import type { Environment } from '../src/engine/environment.ts';
import { JIT_POLICY, type JitPolicy } from '../src/engine/jit/jit.ts';
import { CYCLES_SEEN, layOut } from '../src/engine/layout.ts';
import { type Assembler, assembler } from '../src/guest/assembler/assembler.ts';
import { GuestMemory } from '../src/memory/guest-memory.ts';

export const PAGE = 4096;
export const MIB = 2 ** 20;
export const LARGE_PAGE = 2 * MIB;
export const HUGE_PAGE = 1024 * MIB;
/** Bits of a paging entry. */
export const Pte = {
  present: 1n, writable: 2n, user: 4n, accessed: 0x20n, dirty: 0x40n, large: 0x80n, global: 0x100n, noExecute: 1n << 63n,
} as const;
export const READ_WRITE = Pte.present | Pte.writable;
export const USER_READ_WRITE = READ_WRITE | Pte.user;
/** Bits of #PF's error code. */
export const Pf = { present: 1, write: 2, user: 4, reserved: 8, fetch: 16 } as const;

/** The bench's own pages lie here, by their physical address, for supervisors alone. */
export const KERNEL = 0xffff_8000_0000_0000n;
export const Selector = { code: 0x08, data: 0x10, userCode32: 0x1b, userData: 0x23, userCode: 0x2b, tss: 0x30 } as const;
const [GDT, TSS, IDT, HANDLERS] = [0x1000, 0x2000, 0x3000, 0x4000];
/** Stack tops: that of code that starts at CPL 0, RSP0, IST1. */
export const KERNEL_STACK = KERNEL + 0x6000n;
export const RSP0 = KERNEL + 0x7000n;
export const IST1 = KERNEL + 0x8000n;
const OWN_PAGES = 8;
const [TABLES, TABLES_END] = [0x10000, 0x80000];
/** The first physical address that tests may do with as they like. */
export const FREE = 0x80000;
const VECTORS_WITH_CODE = new Set([8, 10, 11, 12, 13, 14, 17]);
const GATE_BYTES = 16;

const CODE64 = 0x00a0_9b00;
const DATA = 0x00c0_9300;
const DPL3 = 0x6000;

/** What an exception or interrupt pushed. */
export interface Trap {
  kind: 'trap';
  vector: number;
  errorCode: number | undefined;
  rip: bigint;
  cs: number;
  rflags: bigint;
  rsp: bigint;
  ss: number;
  cr2: bigint;
}
export type Stop = Trap | { kind: 'halt'; rip: bigint } | { kind: 'budget' } | { kind: 'shutdown' };

export interface StartState {
  rip: bigint;
  rsp?: bigint;
  cpl?: 0 | 3;
  rflags?: bigint;
  /** Starts another vCPU than the first. */
  vcpu?: Vcpu;
}

/** Compiles as machines do, but early: for programs that do not run for long. */
export const JIT_EARLY: JitPolicy = { ...JIT_POLICY, hotEntries: 8192, veryHotEntries: 65536, patience: 1 << 16 };

export interface BenchOptions {
  vcpus?: number;
  ramBytes?: number;
  operationBytes?: number;
  /** Compile hot code. */
  jit?: boolean | 'force' | JitPolicy;
  model?: CpuModel;
}

export class EngineBench {
  readonly memory: GuestMemory;
  readonly engine: Engine;
  /** MMIO and port accesses, as text: `read 4 @fee00000`, `out 1 @80 = 5`. */
  readonly accesses: string[] = [];
  /** What MMIO and port reads give. */
  readValue = 0;
  /** What RDRAND and RDSEED find. */
  randomNumber = 0x1234n;
  /** Told before CPUID and IN are answered: a place to look from, in the middle of a block. */
  onAsked: (vcpu: Vcpu) => void = () => {};
  private readonly pending: number[];
  private nextTable = TABLES;
  private nextFrame = FREE;

  constructor({ vcpus = 1, ramBytes = 4 * MIB, operationBytes = MIB, jit = true, model = DEFAULT_CPU_MODEL }: BenchOptions = {}) {
    const layout = layOut(vcpus, ramBytes, operationBytes);
    this.memory = new GuestMemory({ ramBytes, arenaBytes: layout.arenaBytes });
    this.engine = new Engine(this.memory, layout, this.environment(model), jit);
    this.pending = this.engine.vcpus.map(() => -1);
    this.reset();
  }

  get vcpu(): Vcpu {
    return this.engine.vcpus[0];
  }

  /** Top-level table in use after `reset`. */
  get root(): number {
    return TABLES;
  }

  /** Everything as when it was made: RAM below the tests' first MiB, vCPUs, decoded code. */
  reset(): void {
    const { memory, engine } = this;
    memory.slice(0, Math.min(memory.lowBytes, 2 * MIB)).fill(0);
    engine.cache.flush();
    this.accesses.length = 0;
    this.readValue = 0;
    this.onAsked = () => {};
    this.pending.fill(-1);
    this.nextTable = TABLES + PAGE;
    this.nextFrame = FREE;
    for (let page = 0; page < OWN_PAGES * PAGE; page += PAGE) this.map(KERNEL + BigInt(page), page, READ_WRITE);
    this.writeTables();
    for (const vcpu of engine.vcpus) this.resetVcpu(vcpu);
  }

  private writeTables(): void {
    const { view } = this.memory;
    const at = (physical: number): number => this.memory.linear(physical, 8);
    const descriptors: [number, number, bigint][] = [
      [Selector.code, CODE64, 0xfffffn], [Selector.data, DATA, 0xfffffn], [Selector.userCode32, 0x00c0_fb00, 0xfffffn],
      [Selector.userData, DATA | DPL3, 0xfffffn], [Selector.userCode, CODE64 | DPL3, 0xfffffn],
    ];
    for (const [selector, attributes, limit] of descriptors) {
      view.setBigUint64(at(GDT + (selector & ~7)), (BigInt(attributes) << 32n) | (limit & 0xffffn) | ((limit >> 16n) << 48n), true);
    }
    const tss = KERNEL + BigInt(TSS);
    view.setBigUint64(at(GDT + Selector.tss), 0x67n | ((tss & 0xff_ffffn) << 16n) | (0x8900n << 32n) | (((tss >> 24n) & 0xffn) << 56n), true);
    view.setBigUint64(at(GDT + Selector.tss + 8), tss >> 32n, true);
    view.setBigUint64(at(TSS + 4), RSP0, true);
    view.setBigUint64(at(TSS + 0x24), IST1, true);
    view.setUint16(at(TSS + 0x66), 0x68, true);
    for (let vector = 0; vector < 256; vector++) {
      this.setGate(vector, {});
      this.memory.write(HANDLERS + vector * 16, assembleHandler(vector));
    }
  }

  /** Writes an IDT gate: an interrupt gate of DPL 3 to the bench's handler, where nothing else is said. */
  setGate(vector: number, { ist = 0, dpl = 3, type = 14, present = true, handler = KERNEL + BigInt(HANDLERS + vector * 16), selector = Selector.code as number }): void {
    const at = this.memory.linear(IDT + vector * GATE_BYTES, GATE_BYTES);
    const attributes = BigInt(ist | (type << 8) | (dpl << 13) | (present ? 0x8000 : 0));
    this.memory.view.setBigUint64(at, (handler & 0xffffn) | (BigInt(selector) << 16n) | (attributes << 32n) | (((handler >> 16n) & 0xffffn) << 48n), true);
    this.memory.view.setBigUint64(at + 8, BigInt.asUintN(64, handler) >> 32n, true);
  }

  private resetVcpu(vcpu: Vcpu): void {
    resetVcpu(vcpu, false);
    vcpu.set64(state.CR0, Cr0.pe | Cr0.mp | Cr0.et | Cr0.ne | Cr0.wp | Cr0.pg);
    vcpu.set64(state.CR3, BigInt(TABLES));
    vcpu.set64(state.CR4, Cr4.pae | Cr4.pge | Cr4.osfxsr | Cr4.osxmmexcpt | Cr4.fsgsbase);
    vcpu.set64(state.EFER, Efer.sce | Efer.lme | Efer.lma | Efer.nxe);
    vcpu.set64(state.GDTR_BASE, KERNEL + BigInt(GDT));
    vcpu.set32(state.GDTR_LIMIT, 0x3f);
    vcpu.set64(state.IDTR_BASE, KERNEL + BigInt(IDT));
    vcpu.set32(state.IDTR_LIMIT, 0xfff);
    setSegment(vcpu, 7, Selector.tss, { base: KERNEL + BigInt(TSS), limit: 0x67, attributes: 0x8b00 });
    vcpu.mmu.flushAll(vcpu.base);
    this.setPrivilege(vcpu, 0);
    vcpu.activity = Activity.halted;
    // TSCs count from the last reset on.
    this.memory.view.setBigInt64(CYCLES_SEEN, 0n, true);
    vcpu.set64(state.TSC_OFFSET, -BigInt(this.engine.retired(vcpu)));
  }

  private setPrivilege(vcpu: Vcpu, cpl: 0 | 3): void {
    const dpl = cpl ? DPL3 : 0;
    setSegment(vcpu, 1, cpl ? Selector.userCode : Selector.code, { base: 0n, limit: 0xffff_ffff, attributes: CODE64 | dpl });
    setSegment(vcpu, 2, cpl ? Selector.userData : Selector.data, { base: 0n, limit: 0xffff_ffff, attributes: DATA | dpl });
    setCpl(vcpu, cpl);
  }

  // --- Page tables --------------------------------------------------------------------------------

  /** A free physical page, or several in a row. */
  frame(pages = 1): number {
    const frame = this.nextFrame;
    this.nextFrame += pages * PAGE;
    return frame;
  }

  /** A page for a table, zeroed. */
  newTable(): number {
    if (this.nextTable >= TABLES_END) throw new Error('the bench has no room for page tables left');
    const table = this.nextTable;
    this.nextTable += PAGE;
    return table;
  }

  /** Another address space, with the bench's own pages in it. */
  newRoot(): number {
    const root = this.newTable();
    const index = Number((KERNEL >> 39n) & 511n);
    this.writePhysical(root + 8 * index, this.readPhysical(TABLES + 8 * index));
    return root;
  }

  /** Maps a page; tables above it are made where missing, and allow everything. Nothing is flushed. */
  map(virtual: bigint, physical: number, flags: bigint = READ_WRITE, { pageBytes = PAGE, root = this.root } = {}): void {
    const level = pageBytes === HUGE_PAGE ? 2 : pageBytes === LARGE_PAGE ? 1 : 0;
    for (let above = 3; above > level; above--) {
      const at = this.entryAddress(virtual, above, root);
      if (this.readPhysical(at) === 0n) this.writePhysical(at, BigInt(this.newTable()) | USER_READ_WRITE);
    }
    this.writePhysical(this.entryAddress(virtual, level, root), BigInt(physical) | flags | (level ? Pte.large : 0n));
  }

  /** Physical address of the entry for `virtual` in its table of a level: 0 is the page table, 3 the top. */
  entryAddress(virtual: bigint, level = 0, root = this.root): number {
    let table = root;
    for (let above = 3; above > level; above--) {
      table = Number(this.readPhysical(table + 8 * Number((virtual >> BigInt(12 + 9 * above)) & 511n)) & 0xff_ffff_f000n);
    }
    return table + 8 * Number((virtual >> BigInt(12 + 9 * level)) & 511n);
  }

  entry(virtual: bigint, level = 0, root = this.root): bigint {
    return this.readPhysical(this.entryAddress(virtual, level, root));
  }

  /** As a guest's own store to its page tables: nothing is flushed. */
  setEntry(virtual: bigint, value: bigint, level = 0, root = this.root): void {
    this.writePhysical(this.entryAddress(virtual, level, root), value);
  }

  readPhysical(physical: number): bigint {
    return this.memory.view.getBigUint64(this.memory.linear(physical, 8), true);
  }

  writePhysical(physical: number, value: bigint): void {
    this.memory.view.setBigUint64(this.memory.linear(physical, 8), BigInt.asUintN(64, value), true);
  }

  // --- Code ---------------------------------------------------------------------------------------

  /** Writes code (its symbols are not relocated) to RAM as the host does. */
  code(physical: number, build: (a: Assembler) => void): Uint8Array {
    const bytes = assemble(build);
    this.memory.write(physical, bytes);
    return bytes;
  }

  /** Code in a page of its own, mapped at `virtual`; gives the page's physical address. */
  program(virtual: bigint, build: (a: Assembler) => void, flags: bigint = READ_WRITE): number {
    const physical = this.frame();
    this.map(virtual & ~0xfffn, physical, flags);
    this.code(physical + Number(virtual & 0xfffn), build);
    return physical;
  }

  /** Sets a vCPU off; everything else stays as it is. */
  start({ rip, rsp = KERNEL_STACK, cpl = 0, rflags = 2n, vcpu = this.vcpu }: StartState): void {
    this.setPrivilege(vcpu, cpl);
    vcpu.set64(state.RSP, rsp);
    vcpu.rip = rip;
    vcpu.rflags = rflags;
    vcpu.activity = Activity.running;
  }

  /** The code segment becomes that of 32-bit user code, and the data segment a flat one. */
  enterCompatibilityMode(vcpu = this.vcpu): void {
    setSegment(vcpu, 1, Selector.userCode32, { base: 0n, limit: 0xffff_ffff, attributes: 0x00c0_9b00 | DPL3 });
    setSegment(vcpu, 3, Selector.userData, { base: 0n, limit: 0xffff_ffff, attributes: DATA | DPL3 });
  }

  /** Runs until something halts the vCPU: a handler, or HLT of the test's. A vCPU that an earlier `run` left halted goes on. */
  run(budget = 100_000, vcpu = this.vcpu): Stop {
    if (vcpu.activity === Activity.halted) vcpu.activity = Activity.running;
    const before = this.engine.retired(vcpu);
    while (vcpu.activity === Activity.running) {
      const left = budget - (this.engine.retired(vcpu) - before);
      if (left <= 0) return { kind: 'budget' };
      this.engine.run(vcpu, left);
    }
    if (vcpu.activity === Activity.shutdown) return { kind: 'shutdown' };
    const handler = Number(vcpu.rip - 1n - KERNEL) - HANDLERS;
    const vector = handler / 16;
    return Number.isInteger(vector) && vector >= 0 && vector < 256 ? this.trap(vcpu, vector) : { kind: 'halt', rip: vcpu.rip };
  }

  /** Starts, and runs to the exception that is expected; throws where none comes. */
  trapOf(start: StartState): Trap {
    this.start(start);
    const stop = this.run(100_000, start.vcpu);
    if (stop.kind !== 'trap') throw new Error(`no exception: ${stop.kind}`);
    return stop;
  }

  private trap(vcpu: Vcpu, vector: number): Trap {
    const hasCode = VECTORS_WITH_CODE.has(vector);
    const frame = vcpu.get64(state.RSP);
    const word = (index: number): bigint => vcpu.read(frame + BigInt(8 * index), 8, 0);
    const at = hasCode ? 1 : 0;
    return {
      kind: 'trap', vector, errorCode: hasCode ? Number(word(0)) : undefined,
      rip: word(at), cs: Number(word(at + 1)), rflags: word(at + 2), rsp: word(at + 3), ss: Number(word(at + 4)), cr2: vcpu.get64(state.CR2),
    };
  }

  /** An interrupt arrives: it is delivered as soon as the vCPU takes interrupts. */
  interrupt(vector: number, vcpu = this.vcpu): void {
    this.pending[vcpu.index] = vector;
    vcpu.set32(state.EVENT_PENDING, 1);
  }

  private environment(model: CpuModel): Environment {
    const log = (text: string): void => void this.accesses.push(text);
    return {
      model,
      portRead: (vcpu, port, bytes) => {
        this.onAsked(vcpu);
        log(`in ${bytes} @${port.toString(16)}`);
        return this.readValue;
      },
      portWrite: (_vcpu, port, bytes, value) => log(`out ${bytes} @${port.toString(16)} = ${value.toString(16)}`),
      mmioRead: (_vcpu, physical, bytes) => {
        log(`read ${bytes} @${physical.toString(16)}`);
        return this.readValue;
      },
      mmioWrite: (_vcpu, physical, bytes, value) => log(`write ${bytes} @${physical.toString(16)} = ${value.toString(16)}`),
      cpuid: (vcpu) => {
        this.onAsked(vcpu);
        return { eax: 0, ebx: 0, ecx: 0, edx: 0 };
      },
      readMsr: (vcpu, msr) => readCpuMsr(vcpu, msr),
      writeMsr: (vcpu, msr, value) => writeCpuMsr(vcpu, msr, value) === 'done',
      readTaskPriority: () => 0,
      writeTaskPriority: () => {},
      controlRegisterWritten: () => {},
      hypercall: () => {},
      halt: (vcpu) => {
        vcpu.activity = Activity.halted;
      },
      intercepted: () => {},
      random: () => this.randomNumber,
      deliverEvent: (vcpu) => {
        const vector = this.pending[vcpu.index];
        if (vector < 0 || !vcpu.interruptsEnabled) return false;
        this.pending[vcpu.index] = -1;
        vcpu.set32(state.EVENT_PENDING, 0);
        deliver(vcpu, vector, -1, 'external');
        return true;
      },
    };
  }
}

/** Machine code of 64-bit instructions that need no linking. */
export function assemble(build: (a: Assembler) => void): Uint8Array {
  const a = assembler(64);
  build(a);
  const { bytes, relocations } = a.assemble();
  if (relocations.length) throw new Error(`no such label: ${relocations[0].symbol}`);
  return bytes;
}

/** HLT; then back to where the exception came from. */
function assembleHandler(vector: number): Uint8Array {
  const popCode = VECTORS_WITH_CODE.has(vector) ? [0x48, 0x83, 0xc4, 0x08] : []; // add rsp, 8
  return Uint8Array.of(0xf4, ...popCode, 0x48, 0xcf); // hlt; …; iretq
}
