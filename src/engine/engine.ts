/**
 * Runs vCPUs: owns the generated interpreter, the decoded code and the translation contexts, and turns what generated
 * code throws into exceptions of the guest's.
 */

import { deliver, type EventKind } from '../cpu/exceptions.ts';
import { Access, FAULTED, MMIO, type Mmu } from '../cpu/mmu.ts';
import { Attribute } from '../cpu/segments.ts';
import * as state from '../cpu/state.ts';
import { Activity, Cr4, FAULT, Fault, raise, Vcpu, Vector } from '../cpu/vcpu.ts';
import type { CodeMode } from '../isa/decoder.ts';
import type { AccessBytes } from '../memory/bus.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { BlockCache } from './block-cache.ts';
import { EmulationFailure, type Environment } from './environment.ts';
import { DebugUnit } from './debug-unit.ts';
import { FRUITLESS_FAULT_COST, MOST_FRUITLESS_FAULTS } from './event-delivery.ts';
import { createHelpers } from './helpers.ts';
import type { InstructionWatcher } from './instruction-watcher.ts';
import { createInterpreter, type Interpreter } from './interpreter.ts';
import { JIT_FORCED, JIT_POLICY, Jit, type JitPolicy } from './jit/jit.ts';
import type { JitClock } from './jit/jit-statistics.ts';
import * as L from './layout.ts';

const PAGE = 4096;
const PCID_MASK = 0xfff;
const CR4_PCIDE = Number(Cr4.pcide);
const TRAP_FLAG = 1 << 8;
const RESUME_FLAG = 1 << 16;
/** Thrown through generated code: the instruction has met a breakpoint and is begun again, by itself. */
const STEP_AGAIN = { stepAgain: true } as const;
const GROUP_WORDS = (L.TLB_GROUP * L.TLB_ENTRY_SIZE) / 4;

/** Which address space each slot of translation contexts holds. */
class AddressSpaces {
  /** PCID, or -1 for a slot that holds nothing. */
  readonly pcids = new Int32Array(L.CONTEXT_SLOTS).fill(-1);
  readonly lastUse = new Float64Array(L.CONTEXT_SLOTS);
  current = 0;
}

const currentPcid = (vcpu: Vcpu): number => (vcpu.get32(state.CR4) & CR4_PCIDE ? vcpu.get32(state.CR3) & PCID_MASK : 0);

export class Engine implements Mmu {
  readonly memory: GuestMemory;
  readonly vcpus: Vcpu[];
  readonly cache: BlockCache;
  readonly interpreter: Interpreter;
  readonly jit: Jit | undefined;
  private readonly layout: L.Layout;
  private readonly environment: Environment;
  private readonly words: Int32Array;
  private readonly spaces: AddressSpaces[];
  private readonly debugUnits: DebugUnit[];
  /** Instructions each vCPU has retired, up to the start of its current slice. */
  private readonly retiredBefore: Float64Array;
  /** Of each vCPU, the last one given to a context. */
  private readonly generations: Int32Array;
  private useCounter = 0;
  private running = -1;
  /** Of the running vCPU: what it had retired, plus the slice, less what was taken back from it: RETIRED_BASE. */
  private retiredBase = 0;
  /** What is left of the slice while a single instruction is run. */
  private stepReserve = 0;
  private exitRequested = false;
  /** Operation that leaves in place of what its handler does; 0 is none. */
  private exitOp = 0;
  private exitHandler = 0;
  /** Single steps run compiled code, as far as there is any: what conformance tests of the JIT want. */
  compilesSteps = false;
  /** In `stepInstruction`, and there met with a software interrupt. */
  private stepping = false;
  /** In `step`: breakpoints that are met are noted. */
  private debugging = false;
  private interrupted = false;
  private watcher: InstructionWatcher | undefined;

  constructor(memory: GuestMemory, layout: L.Layout, environment: Environment, jit: boolean | 'force' | JitPolicy = false, jitClock?: JitClock) {
    const policy = jit === 'force' ? JIT_FORCED : typeof jit === 'object' ? jit : JIT_POLICY;
    this.memory = memory;
    this.layout = layout;
    this.environment = environment;
    this.words = new Int32Array(memory.memory.buffer);
    this.vcpus = Array.from({ length: layout.vcpuCount }, (_, i) => new Vcpu(i, L.vcpuBase(i), memory, environment.model));
    this.spaces = this.vcpus.map(() => new AddressSpaces());
    this.debugUnits = this.vcpus.map(() => new DebugUnit());
    this.retiredBefore = new Float64Array(layout.vcpuCount);
    this.generations = new Int32Array(layout.vcpuCount);
    this.cache = new BlockCache(memory, layout, environment.model);
    this.interpreter = createInterpreter(
      memory,
      layout,
      {
        page_fault: (base, code) => {
          const vcpu = this.vcpuAt(base);
          vcpu.set64(state.CR2, vcpu.argument(3));
          raise(Vector.pageFault, code);
        },
        non_canonical: (base) => this.nonCanonical(base),
        mmio_read: (base, bytes) => this.mmio(base, bytes, false),
        mmio_write: (base, bytes) => this.mmio(base, bytes, true),
        code_written: (linear, bytes) => this.cache.invalidate(linear >>> 0, bytes),
        resolve: (base) => this.resolve(base),
        resolve_link: (base, op, link) => this.resolveLink(base, op, link),
        hot: (base, block) => this.jit?.hot(base, block),
        raise: (_base, vector, code) => raise(vector, code),
        check_page: (base, op) => this.checkPage(this.vcpuAt(base), op),
        data_access: (base, bytes, how) => this.dataAccess(base, bytes, how),
        watched_instruction: (base) => this.watchedInstruction(base),
        segment_allows: (base, segment, bytes, write) => (this.segmentAllows(base, segment, bytes, write !== 0) ? 1 : 0),
      },
      createHelpers(this, environment),
      environment.model,
      policy.hotEntries,
    );
    this.cache.attach(this.interpreter);
    if (jit) this.jit = new Jit(memory, this.cache, this.interpreter, policy, jitClock);
    this.cache.onCodePage = (linear) => this.protectCodePage(linear);
    this.cache.onFlush = () => {
      this.jit?.flushed();
      for (const vcpu of this.vcpus) this.flushAll(vcpu.base);
    };
    memory.onWrite = (guestPhysical, bytes) => {
      for (let at = guestPhysical; at < guestPhysical + bytes; at += PAGE - (at % PAGE)) this.written(memory.linear(at), Math.min(PAGE - (at % PAGE), guestPhysical + bytes - at));
    };
    for (const vcpu of this.vcpus) {
      vcpu.mmu = this;
      // Zeros are no empty TLB: every context is emptied before its first use.
      for (let context = L.contextBase(vcpu.base, 0, 0); context < vcpu.base + L.JUMP_CACHE; context += L.CONTEXT_SIZE) {
        this.words.fill(-1, (context + L.CONTEXT_FILLED) >> 2, (context + L.CONTEXT_FILLED + 8) >> 2);
      }
      this.selectSlot(vcpu, 0);
      this.flushAll(vcpu.base);
    }
  }

  /** 256 bytes of linear memory for a helper's own use. */
  get scratch(): number {
    return L.SCRATCH;
  }

  vcpuAt(base: number): Vcpu {
    return this.vcpus[(base - L.vcpuBase(0)) / this.layout.vcpuBytes];
  }

  /** Instructions a vCPU has retired, exact while one of its helpers runs too. */
  retired(vcpu: Vcpu): number {
    const before = this.retiredBefore[vcpu.index];
    if (this.running !== vcpu.index) return before;
    const op = vcpu.get32(state.CURRENT_OP);
    // The block was paid for when it was entered; what lies behind the running instruction, and that itself, has not happened yet.
    const unpaid = op === 0 ? 0 : this.memory.view.getInt16(op + L.OP_REMAINING, true) + 1;
    return this.retiredBase - this.words[(vcpu.base + state.BUDGET) >> 2] - unpaid;
  }

  private setRetiredBase(vcpu: Vcpu, instructions: number): void {
    this.retiredBase = instructions;
    vcpu.setNumber(state.RETIRED_BASE, instructions);
  }

  /** Cycles since power-on as the vCPU's TSC counts them: never less than any vCPU has seen. */
  cycles(vcpu: Vcpu): number {
    const { view } = this.memory;
    const seen = Math.max(Number(view.getBigInt64(L.CYCLES_SEEN, true)), this.retired(vcpu) + vcpu.getNumber(state.CHARGED));
    view.setBigInt64(L.CYCLES_SEEN, BigInt(seen), true);
    return seen;
  }

  /**
   * Runs a vCPU for about `budget` instructions: to the end of the block that reaches it, or until it halts or is asked to leave.
   * True where it was the budget that ended it.
   */
  run(vcpu: Vcpu, budget: number): boolean {
    const { base } = vcpu;
    const { exports } = this.interpreter;
    const budgetWord = (base + state.BUDGET) >> 2;
    const { words } = this;
    this.running = vcpu.index;
    const before = this.retiredBefore[vcpu.index];
    this.setRetiredBase(vcpu, before + budget);
    this.exitRequested = false;
    words[budgetWord] = budget;
    words[(base + state.CURRENT_OP) >> 2] = 0;
    try {
      while (words[(base + state.ACTIVITY) >> 2] === Activity.running) {
        this.restoreHandler();
        try {
          if (words[(base + state.INTERRUPT_SHADOW) >> 2] !== 0) {
            // The shadow waits for the next slice: a program of nothing but MOV SS is no exception.
            if (words[budgetWord] <= 0) break;
            words[(base + state.INTERRUPT_SHADOW) >> 2] = 0;
            this.step(vcpu);
          } else {
            if (words[(base + state.EVENT_PENDING) >> 2] !== 0) this.environment.deliverEvent(vcpu);
            // INIT stops it, a triple fault shuts it down.
            if (words[budgetWord] <= 0 || words[(base + state.ACTIVITY) >> 2] !== Activity.running) break;
            if (this.mustStep(vcpu)) this.step(vcpu);
            else {
              words[(base + state.TAKES_FAULTS) >> 2] = 1;
              exports.run(base);
            }
          }
          words[(base + state.CURRENT_OP) >> 2] = 0;
        } catch (error) {
          if (error === STEP_AGAIN) this.unwind(vcpu);
          else if (error === FAULT) this.faulted(vcpu);
          else throw error;
        }
      }
    } finally {
      this.restoreHandler();
      this.retiredBefore[vcpu.index] = this.retired(vcpu);
      this.running = -1;
    }
    this.jit?.sliceEnded(this.retiredBefore[vcpu.index] - before);
    return !this.exitRequested;
  }

  /**
   * Runs the instruction at RIP, whatever is pending (a repeated one to its end), and hands back the exception it raises instead of
   * delivering it; the state is then what a handler would find. An exception of fetching the next instruction is not this one's.
   */
  stepInstruction(vcpu: Vcpu): Fault | undefined {
    const { words } = this;
    const opWord = (vcpu.base + state.CURRENT_OP) >> 2;
    words[opWord] = 0;
    this.stepping = true;
    this.interrupted = false;
    const start = vcpu.rip;
    try {
      this.execute(vcpu, false);
      words[opWord] = 0;
      return undefined;
    } catch (error) {
      if (error !== FAULT) throw error;
      if (words[opWord] !== 0) this.rewind(vcpu, words[opWord]);
      else if (vcpu.rip !== start && !this.interrupted) return undefined;
      return Object.assign(new Fault(), FAULT);
    } finally {
      this.stepping = false;
    }
  }

  /** Where single steps run compiled code: the instruction at RIP will be one of them, and is compiled together with others. */
  prepareStep(vcpu: Vcpu): void {
    const page = this.pageOfRip(vcpu);
    try {
      const linear = this.fetch(vcpu, vcpu.rip);
      const op = this.cache.single(linear, this.codeMode(vcpu), () => this.nextPage(vcpu, page));
      this.jit?.prepareSingle(vcpu.base, op, linear, this.codeMode(vcpu));
    } catch (error) {
      if (error !== FAULT) throw error;
    }
  }

  /** INT n and its like, at RIP behind it; `restart` is its own. */
  softwareInterrupt(vcpu: Vcpu, vector: number, kind: EventKind, restart: bigint): void {
    this.interrupted = true;
    if (this.stepping) {
      raise(vector);
    }
    deliver(vcpu, vector, -1, kind, restart);
  }

  /** Whether the next instruction is one to run by itself: to trap behind it, or to look for a breakpoint in front of it. */
  private mustStep(vcpu: Vcpu): boolean {
    const { words } = this;
    const flags = words[(vcpu.base + state.RFLAGS) >> 2];
    if (words[(vcpu.base + state.STEP_NEXT) >> 2] !== 0 || flags & TRAP_FLAG) return true;
    const armed = words[(vcpu.base + state.BREAKPOINTS) >> 2];
    if (armed === 0) return false;
    const unit = this.debugUnits[vcpu.index];
    return unit.pending !== 0 || ((armed & state.CODE_BREAKPOINTS) !== 0 && ((flags & RESUME_FLAG) !== 0 || unit.onCodePage(this.codeAddress(vcpu, vcpu.rip))));
  }

  /** Runs one instruction, or one iteration of a repeated one, with all that debugging asks for. */
  private step(vcpu: Vcpu): void {
    const { words } = this;
    const unit = this.debugUnits[vcpu.index];
    const flags = words[(vcpu.base + state.RFLAGS) >> 2];
    const start = vcpu.rip;
    if (words[(vcpu.base + state.BREAKPOINTS) >> 2] & state.CODE_BREAKPOINTS && !(flags & RESUME_FLAG)) {
      const found = unit.atInstruction(this.codeAddress(vcpu, start));
      if (found) {
        this.debugException(vcpu, found, 'fault');
        return this.noteFault(vcpu);
      }
    }
    this.debugging = true;
    this.interrupted = false;
    unit.met = 0;
    try {
      const { iteration, shadowsDebug, returns } = this.execute(vcpu, true);
      words[(vcpu.base + state.CURRENT_OP) >> 2] = 0;
      if (iteration && this.iterates(vcpu, iteration)) vcpu.rip = start;
      if (flags & RESUME_FLAG && !returns) words[(vcpu.base + state.RFLAGS) >> 2] &= ~RESUME_FLAG;
      const found = unit.afterInstruction((flags & TRAP_FLAG) !== 0 && !this.interrupted, shadowsDebug);
      if (found) this.debugException(vcpu, found, 'trap');
    } finally {
      this.debugging = false;
    }
  }

  private isCountZero(vcpu: Vcpu, addressBits: 16 | 32 | 64): boolean {
    return (vcpu.get64(state.RCX) & ((1n << BigInt(addressBits)) - 1n)) === 0n;
  }

  /** Counts an iteration of a repeated string instruction; whether another one follows. */
  private iterates(vcpu: Vcpu, { addressBits, until }: NonNullable<BlockCache['iteration']>): boolean {
    const left = vcpu.get64(state.RCX) - 1n;
    vcpu.set64(state.RCX, addressBits === 64 ? left : addressBits === 32 ? left & 0xffff_ffffn : (vcpu.get64(state.RCX) & ~0xffffn) | (left & 0xffffn));
    const zero = vcpu.get64(state.FLAG_ZERO) === 0n;
    return !this.isCountZero(vcpu, addressBits) && !(until === 'equal' && zero) && !(until === 'unequal' && !zero);
  }

  private debugException(vcpu: Vcpu, found: number, kind: EventKind): void {
    vcpu.set64(state.DR + 48, vcpu.get64(state.DR + 48) | BigInt(found));
    if (vcpu.activity === Activity.halted) vcpu.activity = Activity.running;
    this.environment.intercepted(vcpu, 'exception', Vector.debug);
    deliver(vcpu, Vector.debug, -1, kind);
  }

  /**
   * An access (memory-access.ts has what `how` says) while data breakpoints are armed: one that is met is noted where the instruction runs
   * by itself, else it is begun again so. Or while somebody watches.
   */
  private dataAccess(base: number, bytes: number, how: number): void {
    const vcpu = this.vcpuAt(base);
    this.meet(vcpu, this.debugUnits[vcpu.index].atData(vcpu.argument(3), bytes, how !== 0));
    if (vcpu.get32(state.BREAKPOINTS) & state.WATCHED) this.watcher?.access(vcpu, vcpu.argument(3), bytes, how === 2 ? 'write' : 'read');
  }

  /** Shows `watcher` what it wants to see, and nobody else anything. Not while a vCPU runs. */
  watch(watcher: InstructionWatcher | undefined): void {
    if (this.running >= 0) throw new Error('a vCPU runs');
    this.watcher = watcher;
    for (const vcpu of this.vcpus) this.follow(vcpu, false);
    this.cache.watch(watcher?.code);
  }

  private watchedInstruction(base: number): void {
    const vcpu = this.vcpuAt(base);
    this.follow(vcpu, this.watcher?.instruction(vcpu) ?? false);
  }

  private follow(vcpu: Vcpu, wanted: boolean): void {
    const before = vcpu.get32(state.BREAKPOINTS);
    if (wanted === ((before & state.WATCHED) !== 0)) return;
    vcpu.set32(state.BREAKPOINTS, before ^ state.WATCHED);
    // What is in the TLB is accessed unseen.
    if (wanted) this.flushSlot(vcpu.base, this.spaces[vcpu.index].current);
  }

  portAccess(vcpu: Vcpu, port: number, bytes: number): void {
    if (vcpu.get32(state.BREAKPOINTS) & state.PORT_BREAKPOINTS) this.meet(vcpu, this.debugUnits[vcpu.index].atPort(port, bytes));
  }

  private meet(vcpu: Vcpu, found: number): void {
    if (!found || this.stepping) return;
    this.debugUnits[vcpu.index].met |= found;
    if (!this.debugging) this.stepAgain(vcpu);
  }

  private stepAgain(vcpu: Vcpu): never {
    vcpu.set32(state.STEP_NEXT, 1);
    throw STEP_AGAIN;
  }

  debugRegistersChanged(base: number): void {
    const vcpu = this.vcpuAt(base);
    const unit = this.debugUnits[vcpu.index];
    const before = vcpu.get32(state.BREAKPOINTS);
    const armed = unit.update(vcpu) | (before & state.WATCHED);
    vcpu.set32(state.BREAKPOINTS, armed);
    // Pages that are watched leave the TLB, and those with breakpoints the jump caches.
    if (before | armed) this.flushAll(base);
  }

  /** Runs one instruction; with `iterate`, one iteration of a repeated one. What it was, as debugging wants to know it. */
  private execute(vcpu: Vcpu, iterate: boolean): { iteration: BlockCache['iteration']; shadowsDebug: boolean; returns: boolean } {
    const { words } = this;
    words[(vcpu.base + state.STEP_NEXT) >> 2] = 0;
    words[(vcpu.base + state.TAKES_FAULTS) >> 2] = 0;
    const budgetWord = (vcpu.base + state.BUDGET) >> 2;
    const page = this.pageOfRip(vcpu);
    const linear = this.fetch(vcpu, vcpu.rip);
    const decode = (iterates: boolean): number => this.cache.single(linear, this.codeMode(vcpu), () => this.nextPage(vcpu, page), iterates);
    let op = decode(iterate);
    // Without a count there is no iteration; what is checked all the same, the whole instruction knows.
    if (this.cache.iteration && this.isCountZero(vcpu, this.cache.iteration.addressBits)) op = decode(false);
    const { iteration } = this.cache;
    const { form, reg } = this.cache.lastDecoded;
    const { map, opcode } = form.encoding ?? { map: -1, opcode: -1 };
    // MOV SS and POP SS hold debug exceptions back too; what IRET loads into RF stays there.
    const kind = { iteration, shadowsDebug: map === 0 && ((opcode === 0x8e && (reg & 7) === 2) || opcode === 0x17), returns: map === 0 && opcode === 0xcf };
    if (!vcpu.code64) this.checkLimit(vcpu, op);
    if (this.compilesSteps) this.jit?.compileSingle(vcpu.base, op, linear, this.codeMode(vcpu));
    const ip = BigInt((linear - this.memory.ramBase) % PAGE);
    vcpu.set64(state.CODE_BASE, vcpu.rip - ip);
    // The rest of the slice is put aside; what is taken from it meanwhile stays away.
    this.stepReserve = Math.max(0, words[budgetWord] - 1);
    this.setRetiredBase(vcpu, this.retiredBase + 1 - words[budgetWord]);
    words[budgetWord] = 1;
    try {
      this.interpreter.exports.enter(vcpu.base, op);
    } finally {
      words[budgetWord] += this.stepReserve;
      this.setRetiredBase(vcpu, this.retiredBase + this.stepReserve);
      this.stepReserve = 0;
    }
    return kind;
  }

  /** Delivers the fault in flight; RIP is that of the instruction that CURRENT_OP names, unless it is 0. */
  private faulted(vcpu: Vcpu): void {
    this.unwind(vcpu);
    const { vector, code } = FAULT;
    this.environment.intercepted(vcpu, 'exception', vector);
    deliver(vcpu, vector, code, 'fault');
    this.noteFault(vcpu);
  }

  /** A handler that faults at once may go on for ever without an instruction retired: from some point on its faults cost the budget. As generated code does (event-delivery.ts). */
  private noteFault(vcpu: Vcpu): void {
    const fruitless = this.retired(vcpu) === vcpu.getNumber(state.LAST_FAULT) ? vcpu.get32(state.FRUITLESS_FAULTS) + 1 : 0;
    vcpu.set32(state.FRUITLESS_FAULTS, fruitless);
    if (fruitless >= MOST_FRUITLESS_FAULTS) this.words[(vcpu.base + state.BUDGET) >> 2] -= FRUITLESS_FAULT_COST;
    vcpu.setNumber(state.LAST_FAULT, this.retired(vcpu));
  }

  /** Back to where the instruction began that CURRENT_OP names, unless it is 0; what the block paid for and did not run is given back. */
  private unwind(vcpu: Vcpu): void {
    const opWord = (vcpu.base + state.CURRENT_OP) >> 2;
    const op = this.words[opWord];
    if (op !== 0) {
      this.rewind(vcpu, op);
      this.words[(vcpu.base + state.BUDGET) >> 2] += this.memory.view.getInt16(op + L.OP_REMAINING, true) + 1;
      this.words[opWord] = 0;
    }
  }

  private rewind(vcpu: Vcpu, op: number): void {
    vcpu.rip = vcpu.get64(state.CODE_BASE) + BigInt(this.memory.view.getUint16(op + L.OP_IP, true));
    if (!vcpu.code64) vcpu.rip &= 0xffff_ffffn;
  }

  /** RIP, exact while a helper runs too. */
  ripOf(vcpu: Vcpu): bigint {
    return vcpu.index === this.running && vcpu.get32(state.CURRENT_OP) !== 0 ? this.currentIp(vcpu) : vcpu.rip;
  }

  /** RIP of the running instruction, and of the next: what helpers use. */
  currentIp(vcpu: Vcpu): bigint {
    return BigInt.asUintN(64, vcpu.get64(state.CODE_BASE) + BigInt(this.memory.view.getUint16(vcpu.get32(state.CURRENT_OP) + L.OP_IP, true)));
  }

  nextIp(vcpu: Vcpu): bigint {
    const ip = BigInt.asUintN(64, vcpu.get64(state.CODE_BASE) + BigInt(this.memory.view.getUint16(vcpu.get32(state.CURRENT_OP) + L.OP_NEXT_IP, true)));
    return vcpu.code64 ? ip : ip & 0xffff_ffffn;
  }

  operationWord(vcpu: Vcpu, offset: number): number {
    return this.words[(vcpu.get32(state.CURRENT_OP) + offset) >> 2];
  }

  // --- Code ---------------------------------------------------------------------------------------

  private codeMode(vcpu: Vcpu): CodeMode {
    return vcpu.get32(state.CODE_MODE) as CodeMode;
  }

  /** #GP where the instruction that `op` begins reaches beyond CS's limit: its operations lie one behind the other. */
  private checkLimit(vcpu: Vcpu, op: number): void {
    const { view } = this.memory;
    const first = view.getUint16(op + L.OP_HANDLER, true) === this.interpreter.microOp['check-page'] ? op + L.OP_SIZE : op;
    const length = Math.max(1, view.getUint16(first + L.OP_NEXT_IP, true) - view.getUint16(first + L.OP_IP, true));
    if (vcpu.getNumber(state.RIP) + length - 1 > vcpu.get32(state.CS + state.SEGMENT_LIMIT)) raise(Vector.generalProtection, 0);
  }

  private codeAddress(vcpu: Vcpu, rip: bigint): bigint {
    return vcpu.code64 ? rip : (vcpu.get64(state.CS) + rip) & 0xffff_ffffn;
  }

  private pageOfRip(vcpu: Vcpu): bigint {
    return this.codeAddress(vcpu, vcpu.rip) & ~0xfffn;
  }

  private pageOfCode(vcpu: Vcpu): bigint {
    return vcpu.code64 ? vcpu.get64(state.CODE_BASE) : (vcpu.get64(state.CS) + vcpu.get64(state.CODE_BASE)) & 0xffff_ffffn;
  }

  /** Linear address of the instruction at an offset in CS; may fault. */
  private fetch(vcpu: Vcpu, rip: bigint): number {
    if (!vcpu.code64 && rip > BigInt(vcpu.get32(state.CS + state.SEGMENT_LIMIT))) raise(Vector.generalProtection, 0);
    const linear = this.translate(vcpu.base, BigInt.asIntN(64, this.codeAddress(vcpu, rip)), Access.execute | (vcpu.cpl === 3 ? Access.user : 0));
    if (linear === MMIO) throw new EmulationFailure(`vCPU ${vcpu.index} executes outside RAM, at 0x${vcpu.getNumber(state.PHYSICAL).toString(16)}`);
    return linear >>> 0;
  }

  private nextPage(vcpu: Vcpu, page: bigint): number {
    const next = page + BigInt(PAGE);
    const linear = this.translate(vcpu.base, BigInt.asIntN(64, vcpu.code64 ? next : next & 0xffff_ffffn), Access.execute | (vcpu.cpl === 3 ? Access.user : 0));
    return linear === MMIO ? MMIO : linear >>> 0;
  }

  /** 1 where an instruction across pages still goes on where it did when it was decoded; otherwise it is forgotten. */
  private checkPage(vcpu: Vcpu, op: number): number {
    if ((this.nextPage(vcpu, this.pageOfCode(vcpu)) | 0) === this.words[(op + L.OP_IMMEDIATE) >> 2]) return 1;
    this.cache.secondPageChanged(op);
    return 0;
  }

  private resolve(base: number): number {
    const vcpu = this.vcpuAt(base);
    // Pages with breakpoints are gone through instruction by instruction.
    if (vcpu.get32(state.BREAKPOINTS) & state.CODE_BREAKPOINTS && this.debugUnits[vcpu.index].onCodePage(this.codeAddress(vcpu, vcpu.rip))) return 0;
    const linear = this.fetch(vcpu, vcpu.rip);
    const mode = this.codeMode(vcpu);
    const block = this.cache.block(linear, mode, () => this.nextPage(vcpu, this.pageOfRip(vcpu)));
    const slot = (this.layout.blockTable + (Math.imul(linear, L.BLOCK_HASH) >>> L.BLOCK_HASH_SHIFT) * L.BLOCK_ENTRY_SIZE) >> 2;
    // Who was there moves over.
    if (this.words[slot] !== 0 && this.words[slot] !== linear) this.words.copyWithin(slot ^ (L.BLOCK_ENTRY_SIZE >> 2), slot, slot + 3);
    this.words[slot] = linear;
    this.words[slot + 1] = mode;
    this.words[slot + 2] = block;
    return block;
  }

  private resolveLink(base: number, op: number, link: number): number {
    const vcpu = this.vcpuAt(base);
    const offset = link === L.OP_LINK ? this.words[(op + L.OP_IMMEDIATE) >> 2] : this.memory.view.getUint16(op + L.OP_NEXT_IP, true);
    vcpu.rip = vcpu.get64(state.CODE_BASE) + BigInt(offset);
    if (!vcpu.code64) vcpu.rip &= 0xffff_ffffn;
    vcpu.set32(state.CURRENT_OP, 0);
    const { flushes } = this.cache;
    const block = this.resolve(base);
    if (this.cache.flushes === flushes) this.words[(op + link) >> 2] = block;
    return block;
  }

  // --- Slow accesses ------------------------------------------------------------------------------

  private nonCanonical(base: number): never {
    const vcpu = this.vcpuAt(base);
    const op = vcpu.get32(state.CURRENT_OP);
    const extra = op === 0 ? 0 : this.memory.view.getUint16(op + L.OP_EXTRA, true);
    const nearTop = (address: bigint): boolean => BigInt.asUintN(64, address - vcpu.get64(state.RSP) + 8n) < 16n;
    const stack = (extra & L.STACK_OPERAND) !== 0 || ((extra & L.STACK_TOO) !== 0 && nearTop(vcpu.argument(3)));
    return raise(stack ? Vector.stackFault : Vector.generalProtection, 0);
  }

  private mmio(base: number, bytes: number, write: boolean): void {
    const vcpu = this.vcpuAt(base);
    // What a device is asked cannot be begun again: where a breakpoint may be met behind it, the instruction runs by itself.
    if (vcpu.get32(state.BREAKPOINTS) & (state.DATA_BREAKPOINTS | state.PORT_BREAKPOINTS) && !this.debugging && !this.stepping) this.stepAgain(vcpu);
    const physical = vcpu.getNumber(state.PHYSICAL);
    const bounce = vcpu.base + state.BOUNCE;
    const { view } = this.memory;
    for (let done = 0; done < bytes; done += 4) {
      const size = Math.min(4, bytes - done) as AccessBytes;
      const at = bounce + done;
      if (write) {
        const value = size === 4 ? view.getUint32(at, true) : size === 2 ? view.getUint16(at, true) : view.getUint8(at);
        this.environment.mmioWrite(vcpu, physical + done, size, value);
      } else {
        const value = this.environment.mmioRead(vcpu, physical + done, size);
        if (size === 4) view.setUint32(at, value, true);
        else if (size === 2) view.setUint16(at, value, true);
        else view.setUint8(at, value);
      }
    }
  }

  /**
   * Looks closely at an access to a segment that the quick check does not let through: refused beyond the limit, and where a segment is null
   * or does not allow it; not where an expand-down segment holds it, nor where 4 GiB wrap around.
   */
  private segmentAllows(base: number, segment: number, bytes: number, write: boolean): boolean {
    const vcpu = this.vcpuAt(base);
    const attributes = vcpu.get32(segment + state.SEGMENT_ATTRIBUTES);
    const limit = vcpu.get32(segment + state.SEGMENT_LIMIT);
    const start = vcpu.getNumber(state.ARGUMENT);
    const last = start + bytes - 1;
    const isData = (attributes & (Attribute.present | Attribute.s | Attribute.code)) === (Attribute.present | Attribute.s);
    const expandDown = vcpu.protectedMode && isData && (attributes & Attribute.expandDown) !== 0;
    const access = vcpu.get32(segment + state.SEGMENT_ACCESS);
    const allowed = expandDown ? !write || (attributes & Attribute.writable) !== 0 : (access & (write ? state.WRITABLE : state.READABLE)) !== 0;
    const inside = expandDown ? start > limit && last <= (attributes & Attribute.big ? 0xffff_ffff : 0xffff) : last <= limit || limit === 0xffff_ffff;
    return allowed && inside;
  }

  // --- Mmu ----------------------------------------------------------------------------------------

  translate(base: number, address: bigint, access: number): number {
    const linear = this.interpreter.exports.fill(base, address, access);
    return linear === MMIO || linear === FAULTED ? linear : linear >>> 0;
  }

  enterHandler(base: number, vector: number, code: number, isFault: boolean): boolean {
    return this.interpreter.exports.enter_handler(base, vector, code, isFault ? 1 : 0) !== 0;
  }

  contextChanged(base: number): void {
    const { words } = this;
    const cpl = words[(base + state.CPL) >> 2];
    const ac = (words[(base + state.RFLAGS) >> 2] >> 18) & 1;
    const user = ac & (words[(base + state.CR0) >> 2] >> 18) ? L.CHECKED_CONTEXT : 0;
    const supervisor = 1 + (ac & (words[(base + state.CR4) >> 2] >> 21));
    words[(base + state.TLB_BASE) >> 2] = words[(base + state.TLB_SLOT) >> 2] + (cpl === 3 ? user : supervisor) * L.CONTEXT_SIZE;
  }

  addressSpaceChanged(base: number, keep: boolean): void {
    const vcpu = this.vcpuAt(base);
    const spaces = this.spaces[vcpu.index];
    const pcid = currentPcid(vcpu);
    let slot = spaces.pcids.indexOf(pcid);
    const known = slot >= 0;
    if (!known) {
      slot = 0;
      for (let i = 1; i < L.CONTEXT_SLOTS; i++) if (spaces.lastUse[i] < spaces.lastUse[slot]) slot = i;
    }
    if (vcpu.get32(state.TLB_TRAITS) & state.TRAIT_LOCAL_CODE) this.flushSupervisorJumps(base);
    if (!known || !keep) this.flushSlot(base, slot);
    spaces.pcids[slot] = pcid;
    this.selectSlot(vcpu, slot);
  }

  flushAll(base: number): void {
    const vcpu = this.vcpuAt(base);
    const spaces = this.spaces[vcpu.index];
    for (let slot = 0; slot < L.CONTEXT_SLOTS; slot++) if (slot === spaces.current || spaces.pcids[slot] >= 0) this.flushSlot(base, slot);
    this.flushSupervisorJumps(base);
    spaces.pcids.fill(-1);
    spaces.pcids[spaces.current] = currentPcid(vcpu);
    vcpu.set32(state.TLB_TRAITS, 0);
  }

  flushPage(base: number, address: bigint): void {
    const vcpu = this.vcpuAt(base);
    const spaces = this.spaces[vcpu.index];
    const traits = vcpu.get32(state.TLB_TRAITS);
    const kernel = address >> 63n !== 0n;
    // A page in the kernel's half may be global, hence in every slot.
    if (kernel || traits & state.TRAIT_GLOBAL_USER) for (let slot = 0; slot < L.CONTEXT_SLOTS; slot++) if (slot !== spaces.current) spaces.pcids[slot] = -1;
    // Of a large page any 4-KiB piece may be in the TLB.
    const isLarge = (traits & (kernel ? state.TRAIT_LARGE_KERNEL : state.TRAIT_LARGE_USER)) !== 0;
    const page = Number((address >> 12n) & BigInt(L.SUPERVISOR_PAGE_BITS - 1));
    const hasCode = (this.words[((base + L.SUPERVISOR_JUMP_PAGES) >> 2) + (page >> 5)] & (1 << (page & 31))) !== 0;
    if (kernel || isLarge || hasCode) this.flushSupervisorJumps(base);
    if (isLarge) return this.flushSlot(base, spaces.current);
    this.flushPageIn(base, spaces.current, address);
  }

  flushPcid(base: number, pcid: number, address?: bigint): void {
    const spaces = this.spaces[this.vcpuAt(base).index];
    const slot = spaces.pcids.indexOf(pcid);
    if (slot < 0) return;
    if (slot === spaces.current) return address === undefined ? this.flushSlot(base, slot) : this.flushPage(base, address);
    spaces.pcids[slot] = -1;
  }

  requestExit(base: number): void {
    if (this.vcpuAt(base).index !== this.running) return;
    this.exitRequested = true;
    this.shorten(base, Number.POSITIVE_INFINITY);
  }

  /** The slice ends before the next instruction: an event is to be delivered there. Called while a helper of the vCPU runs. */
  leaveBeforeNext(vcpu: Vcpu): void {
    this.requestExit(vcpu.base);
    const op = vcpu.get32(state.CURRENT_OP);
    // What ends a block leaves in front of the next one. Within a block, the operation behind this instruction is made to.
    if (vcpu.index !== this.running || op === 0 || this.memory.view.getInt16(op + L.OP_REMAINING, true) <= 0) return;
    this.restoreHandler();
    this.exitOp = op + L.OP_SIZE;
    this.exitHandler = this.memory.view.getUint16(this.exitOp + L.OP_HANDLER, true);
    this.memory.view.setUint16(this.exitOp + L.OP_HANDLER, this.interpreter.microOp.leave, true);
  }

  private restoreHandler(): void {
    const { exitOp } = this;
    if (exitOp === 0) return;
    this.exitOp = 0;
    // Code that has changed since stays as it is.
    if (this.memory.view.getUint16(exitOp + L.OP_HANDLER, true) === this.interpreter.microOp.leave) this.memory.view.setUint16(exitOp + L.OP_HANDLER, this.exitHandler, true);
  }

  /** Takes up to `instructions` from what the slice may still run: its time went by otherwise. */
  shorten(base: number, instructions: number): void {
    if (this.vcpuAt(base).index !== this.running) return;
    const fromStep = Math.min(this.stepReserve, instructions);
    this.stepReserve -= fromStep;
    const word = (base + state.BUDGET) >> 2;
    const left = this.words[word];
    if (left <= 0) return;
    const taken = Math.min(left, instructions - fromStep);
    this.setRetiredBase(this.vcpuAt(base), this.retiredBase - taken);
    this.words[word] = left - taken;
  }

  written(linear: number, bytes: number): void {
    this.interpreter.exports.code_check(linear, bytes);
  }

  private selectSlot(vcpu: Vcpu, slot: number): void {
    const spaces = this.spaces[vcpu.index];
    spaces.current = slot;
    spaces.lastUse[slot] = ++this.useCounter;
    vcpu.set32(state.TLB_SLOT, L.contextBase(vcpu.base, slot, 0));
    this.contextChanged(vcpu.base);
  }

  private flushSlot(base: number, slot: number): void {
    const { words } = this;
    for (let kind = 0; kind < L.CONTEXT_KINDS; kind++) {
      const context = L.contextBase(base, slot, kind);
      for (let half = 0; half < 2; half++) {
        const filled = ((context + L.CONTEXT_FILLED) >> 2) + half;
        for (let groups = words[filled]; groups !== 0; groups &= groups - 1) {
          const first = this.groupStart(context, half, groups);
          words.fill(-1, first, first + GROUP_WORDS);
        }
        words[filled] = 0;
      }
      if (kind === L.USER_CONTEXT || kind === L.CHECKED_CONTEXT) this.flushUserJumps(base, context);
    }
    if (words[(base + state.TLB_TRAITS) >> 2] & state.TRAIT_LOCAL_CODE) this.flushSupervisorJumps(base);
  }

  /** First word of the group of TLB entries that the lowest bit of `groups` means, a half of CONTEXT_FILLED. */
  private groupStart(context: number, half: number, groups: number): number {
    return (context >> 2) + (32 * half + 31 - Math.clz32(groups & -groups)) * GROUP_WORDS;
  }

  /** A number that no entry of the vCPU's jump cache has. */
  private newGeneration(base: number): number {
    const { words, generations } = this;
    const { index } = this.vcpuAt(base);
    generations[index] += L.GENERATION_STEP;
    if (generations[index] === 0) {
      // After a turn of the counter old entries could pass for new ones, and old contexts too.
      words.fill(0, (base + L.JUMP_CACHE) >> 2, (base + L.SUPERVISOR_JUMP_PAGES) >> 2);
      for (let context = L.contextBase(base, 0, 0); context < base + L.JUMP_CACHE; context += L.CONTEXT_SIZE) {
        generations[index] += L.GENERATION_STEP;
        words[(context + L.CONTEXT_GENERATION) >> 2] = generations[index];
      }
      this.flushSupervisorJumps(base);
      generations[index] += L.GENERATION_STEP;
    }
    return generations[index];
  }

  private flushUserJumps(base: number, context: number): void {
    const { words } = this;
    words[(context + L.CONTEXT_GENERATION) >> 2] = this.newGeneration(base);
    const pages = (context + L.CONTEXT_JUMP_PAGES) >> 2;
    words.fill(0, pages, pages + L.JUMP_PAGE_BITS / 32);
  }

  private flushSupervisorJumps(base: number): void {
    const { words } = this;
    const generation = this.newGeneration(base);
    for (let slot = 0; slot < L.CONTEXT_SLOTS; slot++) {
      for (const kind of [L.SUPERVISOR_CONTEXT, L.SUPERVISOR_AC_CONTEXT]) words[(L.contextBase(base, slot, kind) + L.CONTEXT_GENERATION) >> 2] = generation;
    }
    const pages = (base + L.SUPERVISOR_JUMP_PAGES) >> 2;
    words.fill(0, pages, pages + L.SUPERVISOR_PAGE_BITS / 32);
    words[(base + state.TLB_TRAITS) >> 2] &= ~state.TRAIT_LOCAL_CODE;
  }

  private flushPageIn(base: number, slot: number, address: bigint): void {
    const { words } = this;
    const page = Number((address >> 12n) & 0xffffn);
    const tlbIndex = page & (L.TLB_ENTRIES - 1);
    const pageBit = page & (L.JUMP_PAGE_BITS - 1);
    for (let kind = 0; kind < L.CONTEXT_KINDS; kind++) {
      const context = L.contextBase(base, slot, kind);
      const entry = (context + tlbIndex * L.TLB_ENTRY_SIZE) >> 2;
      words.fill(-1, entry, entry + 4);
      // Code is rarely what INVLPG is for.
      if (words[((context + L.CONTEXT_JUMP_PAGES) >> 2) + (pageBit >> 5)] & (1 << (pageBit & 31))) this.flushUserJumps(base, context);
    }
  }

  /** Takes the right to write past the slow path from every TLB entry of the page at `linear`. */
  private protectCodePage(linear: number): void {
    const number = (linear - this.memory.ramBase) >>> 12;
    const page = number * PAGE + this.memory.ramBase;
    const writer = this.memory.bytes[this.layout.pageWriters + number];
    if (writer === 0) return;
    this.memory.bytes[this.layout.pageWriters + number] = 0;
    const vcpus = writer === L.MANY_WRITERS ? this.vcpus : [this.vcpus[writer - 1]];
    for (const { base, index } of vcpus) {
      const { pcids, current } = this.spaces[index];
      for (let slot = 0; slot < L.CONTEXT_SLOTS; slot++) {
        // A slot that holds no address space is emptied before it gets one.
        if (slot !== current && pcids[slot] < 0) continue;
        for (let kind = 0; kind < L.CONTEXT_KINDS; kind++) this.protectIn(L.contextBase(base, slot, kind), page);
      }
    }
  }

  /** Of one translation context. */
  private protectIn(context: number, page: number): void {
    const { words } = this;
    for (let half = 0; half < 2; half++) {
      for (let groups = words[((context + L.CONTEXT_FILLED) >> 2) + half]; groups !== 0; groups &= groups - 1) {
        const start = this.groupStart(context, half, groups);
        for (let i = start; i < start + GROUP_WORDS; i += L.TLB_ENTRY_SIZE / 4) {
          // Tags are page-aligned; an invalid one is -1.
          if (words[i + 2] !== -1 && (words[i + 2] + words[i + 4]) >>> 0 === page) {
            words[i + 2] = -1;
            words[i + 3] = -1;
          }
        }
      }
    }
  }
}
