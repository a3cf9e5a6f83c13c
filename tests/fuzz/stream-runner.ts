/**
 * Runs random instruction streams on an engine of its own and checks what must hold whatever a guest does: no error of the host's, the
 * budget kept, registers that a processor can hold, translations that lead to RAM, nothing outside of the vCPU and RAM touched.
 */

import { MAX_CPU_MODEL } from '../../src/cpu/cpu-model.ts';
import { cpuid } from '../../src/cpu/cpuid.ts';
import { deliver } from '../../src/cpu/exceptions.ts';
import { InertMsrs, readCpuMsr, writeCpuMsr } from '../../src/cpu/msr.ts';
import * as state from '../../src/cpu/state.ts';
import { Activity, type Vcpu } from '../../src/cpu/vcpu.ts';
import { Engine } from '../../src/engine/engine.ts';
import { EmulationFailure, type Environment } from '../../src/engine/environment.ts';
import * as L from '../../src/engine/layout.ts';
import { forms } from '../../src/isa/decoder.ts';
import { GuestMemory } from '../../src/memory/guest-memory.ts';
import { Random } from '../conformance/machine-state.ts';
import { type StreamCase, VECTOR_STATES } from './stream-case.ts';
import * as world from './stream-world.ts';

const OPERATION_BYTES = 2 << 20;
export const BUDGET = 96;
/** Exceptions after which a stream has shown what it can. */
const MOST_EXCEPTIONS = 12;
/** What a run may retire beyond its budget: the rest of a block, or what a repeated instruction that goes on later is charged. */
const OVERRUN = 1024 + 64;
/** TLBs are looked through every so many streams. */
const TLB_INTERVAL = 16;
const CANARY = 0x5aa5_c33c;
const VECTOR_BYTES = state.SEGMENT - state.XMM;

export type StreamEnd = 'halted' | 'budget' | 'shutdown' | 'failure';

/** How a stream is run: as the interpreter does, compiled at first sight, or instruction by instruction. */
export type Execution = 'interpreter' | 'jit' | 'steps';

export class StreamRunner {
  readonly engine: Engine;
  readonly vcpu: Vcpu;
  /** Of the last stream. */
  end: StreamEnd = 'halted';
  /** Instructions the last stream retired, and a digest of its accesses to ports and MMIO. */
  retired = 0;
  accesses = 0;
  exceptions = 0;
  /** Code that had been decoded was overwritten. */
  codeChanged = false;
  /** By form: an instruction of it has been executed step by step. */
  readonly executed = new Uint8Array(forms.length);
  readonly variantNames: readonly string[];
  private readonly memory: GuestMemory;
  private readonly words: Int32Array;
  private readonly layout: L.Layout;
  private readonly image: Uint8Array;
  private readonly imagePages: Uint8Array[];
  private readonly ramPages: Uint8Array[];
  private readonly states: Uint8Array[];
  private readonly vectorStates: Uint8Array[];
  private readonly execution: Execution;
  private inertMsrs = new InertMsrs();
  private inertWritten = false;
  private interrupt = -1;
  private taskPriority = 0;
  private runs = 0;

  constructor(mode: world.ModeName, execution: Execution = 'interpreter') {
    // A second vCPU that never runs: what would touch it is a bug.
    this.layout = L.layOut(2, world.RAM_BYTES, OPERATION_BYTES);
    this.memory = new GuestMemory({ ramBytes: world.RAM_BYTES, arenaBytes: this.layout.arenaBytes });
    this.words = new Int32Array(this.memory.memory.buffer);
    this.execution = execution;
    this.engine = new Engine(this.memory, this.layout, this.environment(), execution === 'jit' ? 'force' : false);
    this.vcpu = this.engine.vcpus[0];
    this.image = world.imageOf(mode);
    const pages = (bytes: Uint8Array, base: number): Uint8Array[] => Array.from({ length: world.RAM_BYTES / world.PAGE }, (_, i) => bytes.subarray(base + i * world.PAGE, base + (i + 1) * world.PAGE));
    this.imagePages = pages(this.image, 0);
    this.ramPages = pages(this.memory.bytes, this.memory.ramBase);
    const states = world.statesOf(this.vcpu, mode);
    this.variantNames = states.map((variant) => variant.name);
    this.states = states.map((variant) => variant.bytes);
    this.vectorStates = Array.from({ length: VECTOR_STATES }, (_, i) => vectorState(i));
    this.words.fill(CANARY, ...this.canary);
  }

  get variants(): number {
    return this.states.length;
  }

  /** Words of the other vCPU's state that nothing changes while it does not run. */
  private get canary(): [from: number, to: number] {
    return [(L.vcpuBase(1) + state.XMM) >> 2, (L.vcpuBase(1) + state.DR) >> 2];
  }

  /** Runs a stream; gives what is wrong with what came of it, in one line, or undefined. Throws what the host throws. */
  run(c: StreamCase, budget = BUDGET): string | undefined {
    this.load(c);
    const { vcpu, engine } = this;
    const before = engine.retired(vcpu);
    const { invalidatedBlocks } = engine.cache;
    this.exceptions = 0;
    try {
      if (this.execution === 'steps') this.steps(before, budget);
      else engine.run(vcpu, budget);
      this.end = vcpu.activity === Activity.halted ? 'halted' : vcpu.activity === Activity.shutdown ? 'shutdown' : 'budget';
    } catch (error) {
      if (!(error instanceof EmulationFailure)) throw error;
      this.end = 'failure';
    }
    this.retired = engine.retired(vcpu) - before;
    this.codeChanged = engine.cache.invalidatedBlocks !== invalidatedBlocks;
    return this.check(budget);
  }

  /** Instruction by instruction, which shares little with how blocks run. */
  private steps(before: number, budget: number): void {
    const { vcpu, engine } = this;
    for (let slices = 0; vcpu.activity === Activity.running && engine.retired(vcpu) - before < budget && slices < 4 * budget; slices++) {
      vcpu.set32(state.STEP_NEXT, 1);
      const retired = engine.retired(vcpu);
      engine.run(vcpu, 1);
      if (engine.retired(vcpu) !== retired) this.executed[engine.cache.lastDecoded.form.id] = 1;
    }
  }

  private load(c: StreamCase): void {
    const { memory, words, vcpu } = this;
    for (let page = 0; page < this.ramPages.length; page++) {
      if (Buffer.compare(this.ramPages[page], this.imagePages[page]) === 0) continue;
      this.ramPages[page].set(this.imagePages[page]);
      const lines = (this.layout.codeLines + page * 8) >> 2;
      if (words[lines] | words[lines + 1]) memory.onWrite(page * world.PAGE, world.PAGE);
    }
    memory.write(world.code + c.start, c.code.subarray(0, Math.min(c.codeLength, world.CODE_BYTES - c.start)));
    const slot = vcpu.get32(state.TLB_SLOT);
    memory.bytes.set(this.states[c.variant % this.states.length], vcpu.base);
    vcpu.set32(state.TLB_SLOT, slot);
    // The TSC counts from here on.
    memory.view.setBigInt64(L.CYCLES_SEEN, 0n, true);
    vcpu.set64(state.TSC_OFFSET, -BigInt(this.engine.retired(vcpu)));
    const at = vcpu.base >> 2;
    words.set(c.registers, at + (state.GPR >> 2));
    memory.bytes.set(this.vectorStates[c.vectors], vcpu.base + state.XMM);
    const offset = world.ripOf(c.mode, c.start);
    words[at + (state.RIP >> 2)] = offset;
    words[at + (state.RIP >> 2) + 1] = 0;
    words[at + (state.RFLAGS >> 2)] ^= c.flags & 0x24_7700;
    for (let i = 0; i < c.patchCount; i++) memory.view.setInt32(memory.ramBase + (c.patches[2 * i] % (world.RAM_BYTES - 3)), c.patches[2 * i + 1], true);
    vcpu.mmu.flushAll(vcpu.base);
    vcpu.mmu.contextChanged(vcpu.base);
    vcpu.mmu.debugRegistersChanged(vcpu.base);
    this.interrupt = c.interrupt;
    vcpu.set32(state.EVENT_PENDING, c.interrupt >= 0 ? 1 : 0);
    this.taskPriority = 0;
    this.accesses = 0;
    if (this.inertWritten) this.inertMsrs = new InertMsrs();
    this.inertWritten = false;
  }

  /** Whether page tables are others than the stream began with. */
  pageTablesChanged(c: StreamCase): boolean {
    if (c.patchCount) return true;
    return this.ramPages.some((page, i) => world.isPageTable(i) && !sameButFlags(page, this.imagePages[i]));
  }

  // --- What must hold -----------------------------------------------------------------------------

  private check(budget: number): string | undefined {
    const { vcpu, words } = this;
    this.runs++;
    if (!(this.retired >= 0 && this.retired <= budget + OVERRUN)) return `retired ${this.retired} instructions of ${budget}`;
    const word = (offset: number): number => words[(vcpu.base + offset) >> 2];
    const [cr0, cr4, efer, flags, cpl] = [word(state.CR0), word(state.CR4), word(state.EFER), word(state.RFLAGS), word(state.CPL)];
    if ((word(state.ZERO) | word(state.ZERO + 4)) !== 0) return 'the slot that is always 0 is not';
    if (cpl < 0 || cpl > 3) return `CPL is ${cpl}`;
    if ((flags & (0x8d5 | 0x8028)) !== 0 || (flags & 2) === 0 || flags >>> 22 !== 0) return `RFLAGS hold ${hex(flags)}`;
    if (cr0 < 0 && !(cr0 & 1)) return 'paging without protected mode';
    const [lme, lma] = [(efer >> 8) & 1, (efer >> 10) & 1];
    if (lma !== (cr0 < 0 ? lme : 0)) return `EFER ${hex(efer)} with CR0 ${hex(cr0)}`;
    if (lma && !(cr4 & 0x20)) return 'long mode without PAE';
    if (BigInt(cr4 >>> 0) & ~vcpu.model.cr4) return `CR4 holds ${hex(cr4)}`;
    if (!(cr0 & 1) && cpl !== 0) return 'real mode with a privilege level';
    const virtual = (flags & 0x2_0000) !== 0;
    if (virtual && (cpl !== 3 || lma !== 0)) return `virtual-8086 mode at CPL ${cpl}, EFER ${hex(efer)}`;
    const csLong = (word(state.CS + state.SEGMENT_ATTRIBUTES) >> 21) & 1;
    const csBig = (word(state.CS + state.SEGMENT_ATTRIBUTES) >> 22) & 1;
    const codeMode = word(state.CODE_MODE);
    const expected = lma && csLong ? 64 : csBig && cr0 & 1 && !virtual ? 32 : 16;
    if ((codeMode === state.CODE_32_FLAT ? 32 : codeMode) !== expected) return `code runs as ${codeMode} instead of ${expected} bits`;
    if (word(state.CANONICAL_SHIFT) !== (cr4 & 0x1000 ? 7 : 16)) return `addresses have ${64 - word(state.CANONICAL_SHIFT)} bits with CR4 ${hex(cr4)}`;
    // SYSRET goes to wherever RCX points, as with AMD: the next fetch faults.
    if (expected === 64 ? !vcpu.isCanonical(vcpu.rip) && vcpu.rip !== vcpu.get64(state.RCX) : word(state.RIP + 4) !== 0) return `RIP is ${hex(word(state.RIP + 4))}${hex(word(state.RIP))} in ${expected}-bit code`;
    if (word(state.MXCSR) & ~0xffff) return `MXCSR holds ${hex(word(state.MXCSR))}`;
    if (word(state.FTW) & ~0xff) return `FTW holds ${hex(word(state.FTW))}`;
    const checked = cpl === 3 ? ((flags >> 18) & (cr0 >> 18) & 1 ? L.CHECKED_CONTEXT : 0) : 1 + ((flags >> 18) & (cr4 >> 21) & 1);
    if (word(state.TLB_BASE) !== word(state.TLB_SLOT) + checked * L.CONTEXT_SIZE) return 'the wrong translation context is in use';
    if (this.runs % TLB_INTERVAL === 0) return this.checkTlb() ?? this.checkCanary();
    return undefined;
  }

  /** Every translation that the fast path would take leads to RAM. */
  private checkTlb(): string | undefined {
    const { words, memory, vcpu } = this;
    const first = vcpu.get32(state.TLB_SLOT);
    for (let kind = 0; kind < L.CONTEXT_KINDS; kind++) {
      const start = (first + kind * L.CONTEXT_SIZE) >> 2;
      const filled = (first + kind * L.CONTEXT_SIZE + L.CONTEXT_FILLED) >> 2;
      for (let i = start; i < start + L.TLB_ENTRIES * (L.TLB_ENTRY_SIZE / 4); i += L.TLB_ENTRY_SIZE / 4) {
        const group = Math.floor((i - start) / (L.TLB_ENTRY_SIZE / 4) / L.TLB_GROUP);
        if (((words[filled + (group >> 5)] >> (group & 31)) & 1) === 0 && (words[i] & words[i + 1] & words[i + 2] & words[i + 3]) !== -1) return 'a translation that a flush would overlook';
        for (const tag of [i, i + 2]) {
          if (words[tag] === -1) continue;
          if (kind === L.CHECKED_CONTEXT) return 'a translation where alignment is checked';
          const linear = (words[tag] + words[i + 4]) >>> 0;
          if (linear < memory.ramBase || linear + world.PAGE > memory.ramBase + world.RAM_BYTES) return `a translation leads outside of RAM, to ${hex(linear)}`;
          const lines = (this.layout.codeLines + ((linear - memory.ramBase) >> 12) * 8) >> 2;
          if (tag === i + 2 && memory.bytes[this.layout.pageWriters + ((linear - memory.ramBase) >> 12)] === 0) return 'a page can be written on the fast path and nobody knows';
          if (tag === i + 2 && (words[lines] | words[lines + 1]) !== 0) return 'a page with code can be written on the fast path';
        }
      }
    }
    return undefined;
  }

  private checkCanary(): string | undefined {
    const [from, to] = this.canary;
    for (let i = from; i < to; i++) if (this.words[i] !== CANARY) return 'another vCPU was touched';
    return undefined;
  }

  /** Where this runner's outcome differs from that of another of the same stream, in one line; undefined where it does not. */
  difference(other: StreamRunner, comparesAccesses = true): string | undefined {
    if (this.end !== other.end) return `${this.execution}: ${this.end}, ${other.execution}: ${other.end}`;
    if (comparesAccesses && this.accesses !== other.accesses) return 'ports or MMIO were accessed otherwise';
    const [a, b] = [this.vcpu, other.vcpu];
    if (a.rip !== b.rip) return `RIP ${a.rip.toString(16)}, ${b.rip.toString(16)}`;
    if (a.rflags !== b.rflags) return `RFLAGS ${a.rflags.toString(16)}, ${b.rflags.toString(16)}`;
    for (const [from, to, name] of COMPARED) {
      for (let offset = from; offset < to; offset += 4) if (a.get32(offset) !== b.get32(offset)) return `${name}+${offset - from}: ${hex(a.get32(offset))}, ${hex(b.get32(offset))}`;
    }
    for (let page = 0; page < this.ramPages.length; page++) {
      if (Buffer.compare(this.ramPages[page], other.ramPages[page]) === 0) continue;
      const at = this.ramPages[page].findIndex((byte, i) => byte !== other.ramPages[page][i]);
      return `RAM at ${hex(page * world.PAGE + at)}: ${this.ramPages[page][at]}, ${other.ramPages[page][at]}`;
    }
    return undefined;
  }

  // --- The machine around it ----------------------------------------------------------------------

  /** What a port or MMIO read gives: a number that depends on nothing but the address. */
  private answer(what: number): number {
    this.accesses = (Math.imul(this.accesses ^ what, 0x01000193) + 0x9e37) | 0;
    return Math.imul(what ^ (what >>> 13), 0x9e37_79b1) >>> 0;
  }

  private environment(): Environment {
    const model = MAX_CPU_MODEL;
    const halt = (vcpu: Vcpu): void => {
      vcpu.activity = Activity.halted;
      this.engine.requestExit(vcpu.base);
    };
    const parts = { apicEnabled: true, vcpuCount: 2, apicId: 0, x2apic: true, tscDeadline: true, hypervisorPresent: true, hypervisorLeaf: () => undefined };
    return {
      model,
      portRead: (_vcpu, port, bytes) => this.answer(port) >>> (32 - 8 * bytes),
      portWrite: (_vcpu, port, _bytes, value) => void this.answer(port ^ value),
      mmioRead: (_vcpu, physical, bytes) => this.answer(physical | 0) >>> (32 - 8 * bytes),
      mmioWrite: (_vcpu, physical, _bytes, value) => void this.answer(physical ^ value),
      cpuid: (vcpu, leaf, subleaf) => cpuid(vcpu, leaf >>> 0, subleaf >>> 0, parts),
      readMsr: (vcpu, msr) => readCpuMsr(vcpu, msr) ?? this.inertMsrs.read(msr),
      writeMsr: (vcpu, msr, value) => {
        const result = writeCpuMsr(vcpu, msr, value);
        if (result !== 'unknown') return result === 'done';
        this.inertWritten = true;
        return this.inertMsrs.write(msr, value);
      },
      readTaskPriority: () => this.taskPriority,
      writeTaskPriority: (_vcpu, value) => {
        this.taskPriority = value;
      },
      controlRegisterWritten: () => {},
      hypercall: (vcpu) => halt(vcpu),
      halt,
      intercepted: (_vcpu, what) => {
        if (what === 'exception' && ++this.exceptions === MOST_EXCEPTIONS) this.engine.requestExit(this.vcpu.base);
      },
      random: () => BigInt(this.answer(1)),
      deliverEvent: (vcpu) => {
        const vector = this.interrupt;
        if (vector < 0 || !vcpu.interruptsEnabled) return false;
        this.interrupt = -1;
        vcpu.set32(state.EVENT_PENDING, 0);
        deliver(vcpu, vector, -1, 'external');
        return true;
      },
    };
  }
}

/** What a program could see of a vCPU: from, to, name. */
const COMPARED: readonly [number, number, string][] = [
  [state.GPR, state.GPR + 128, 'GPR'], [state.XMM, state.MXCSR + 4, 'XMM'], [state.FPR, state.FOP, 'x87'], [state.FIP, state.FDS + 4, 'x87 pointers'], [state.CPL, state.CPL + 4, 'CPL'],
  [state.GDTR_BASE, state.GDTR_LIMIT + 4, 'GDTR'], [state.IDTR_BASE, state.IDTR_LIMIT + 4, 'IDTR'], [state.CR0, state.TSC_OFFSET, 'CR'], [state.XCR0, state.BOUNCE, 'XCR0'],
  ...Array.from({ length: 8 }, (_, i): [number, number, string] => [state.SEGMENT + i * state.SEGMENT_SIZE, state.SEGMENT + i * state.SEGMENT_SIZE + state.SEGMENT_ACCESS, `segment ${i}`]),
]; // biome-ignore format: a table

const ACCESSED_DIRTY = 0x60;
/** Equal but for accessed and dirty bits, as 32-bit words. */
function sameButFlags(page: Uint8Array, image: Uint8Array): boolean {
  for (let i = 0; i < page.length; i++) if (page[i] !== image[i] && ((page[i] ^ image[i]) & ~ACCESSED_DIRTY || i & 3)) return false;
  return true;
}

/** XMM and x87 registers: numbers of every kind. */
function vectorState(index: number): Uint8Array {
  const random = new Random(0x1000 + index);
  const bytes = new Uint8Array(VECTOR_BYTES);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < 256; at += 4) view.setUint32(at, random.chance(30) ? random.pick([0, 0x3f80_0000, 0x3ff0_0000, 0x7f80_0000, 0xffc0_0000, 0x8000_0000, 1]) : random.next(), true);
  view.setUint32(state.MXCSR - state.XMM, random.pick([0x1f80, 0x1f80, 0x1f80, 0x1fa0, 0x9fc0, 0x7f80, 0x0000]), true);
  for (let i = 0; i < 8; i++) {
    const at = state.FPR - state.XMM + 16 * i;
    view.setUint32(at, random.next(), true);
    view.setUint32(at + 4, random.next() | (random.chance(90) ? 0x8000_0000 : 0), true);
    view.setUint16(at + 8, random.pick([0x3fff, 0xbfff, 0x4005, 0x7fff, 0xffff, 0, random.next() & 0xffff]), true);
  }
  view.setUint16(state.FCW - state.XMM, random.pick([0x37f, 0x37f, 0x27f, 0x372, 0xf7f, 0x340]), true);
  view.setUint16(state.FSW - state.XMM, random.below(8) << 11, true);
  view.setUint32(state.FTW - state.XMM, random.below(256), true);
  return bytes;
}

const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');
