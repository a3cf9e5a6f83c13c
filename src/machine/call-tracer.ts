/**
 * What guests execute from given points of their code to the return from there, counted instruction by instruction as it happens:
 * what an EOI is made of. A traced run is the same run as one that is not (engine/instruction-watcher.ts).
 * Interrupts and NMIs that come in between are left out; their exits are told apart.
 */

import { Access } from '../cpu/mmu.ts';
import * as state from '../cpu/state.ts';
import type { Vcpu } from '../cpu/vcpu.ts';
import type { Engine } from '../engine/engine.ts';
import type { InstructionWatcher } from '../engine/instruction-watcher.ts';
import { type CodeBits, Decoder } from '../isa/decoder.ts';
import { EXIT_REASONS, type ExitReason } from '../kvm/exit.ts';

/** Where a trace begins. */
export interface TracePoint {
  guestPhysical: number;
  /**
   * A function's first instruction, whose return address lies on the stack; or a CALL, which is traced with what it calls; or a JMP to a
   * function as the last thing that another one does.
   */
  kind: 'function' | 'call' | 'jump';
  /** What is traced: calls of the same name that execute the same are counted together. Undefined: this one is not. */
  name(register: (number: number) => bigint): string | undefined;
}

/** An access to data or stack. */
export interface TracedAccess {
  kind: 'read' | 'write';
  guestVirtual: bigint;
  bytes: number;
}

export interface TracedStep {
  guestVirtual: bigint;
  code: Uint8Array;
  kind: 'branch' | 'transfer' | 'other';
  /** Of conditional branches. */
  isTaken: boolean;
  /** Of the first time that the path was executed. */
  accesses: TracedAccess[];
  /** Made by this instruction. */
  exits: ExitReason[];
}

/** Executed alike, again and again. */
export interface TracedPath {
  name: string;
  codeBits: CodeBits;
  steps: TracedStep[];
  calls: number;
  /** Where it began, and how often: calls are alike that call the same from different places. By guest-virtual address. */
  origins: Map<bigint, number>;
  /** Of all calls: instructions, what was charged for their exits, and for exits that came by chance in between. */
  cycles: number;
  /** Exits in between that no instruction made: a timer, a device. */
  chanceExits: number;
}

/** A path's steps in numbers, for one call. */
export interface PathCounts {
  instructions: number;
  branches: number;
  branchesTaken: number;
  /** Jumps, calls and returns, which are always taken. */
  transfers: number;
  reads: number;
  writes: number;
  exits: Partial<Record<ExitReason, number>>;
}

export function pathCounts({ steps }: Pick<TracedPath, 'steps'>): PathCounts {
  const counts: PathCounts = { instructions: steps.length, branches: 0, branchesTaken: 0, transfers: 0, reads: 0, writes: 0, exits: {} };
  for (const { kind, isTaken, accesses, exits } of steps) {
    if (kind === 'branch') counts.branches++;
    if (kind === 'branch' && isTaken) counts.branchesTaken++;
    if (kind === 'transfer') counts.transfers++;
    for (const access of accesses) counts[access.kind === 'read' ? 'reads' : 'writes']++;
    for (const reason of exits) counts.exits[reason] = (counts.exits[reason] ?? 0) + 1;
  }
  return counts;
}

/** What the tracer asks of the machine. */
export interface CallTracerHost {
  engine: Engine;
  exitCount(vcpu: number, reason?: number): number;
  /** A vCPU's clock. */
  cyclesOf(vcpu: number): number;
}

const PAGE = 4096;
const RSP = 4;
const MOST_INSTRUCTION_BYTES = 15;
/** Longer calls are given up: what is traced is an EOI, not what a handler does. */
const MAX_STEPS = 1000;
/** Exits that happen to an instruction rather than being made by it. */
const BY_CHANCE: ReadonlySet<ExitReason> = new Set(['external-interrupt', 'interrupt-window', 'nmi-window', 'preemption-timer']);

/** A call under way. */
interface Call {
  name: string;
  kind: TracePoint['kind'];
  steps: TracedStep[];
  /** The stack pointer that says that it has returned. */
  returned: bigint;
  /** What the vCPU had retired when the last step was seen. */
  seen: number;
  instructions: number;
  cycles: number;
  chanceExits: number;
  exits: number[];
  /** Interrupted at this place, and what the clocks said. */
  interruption: { rip: bigint; rsp: bigint; instructions: number; cycles: number } | undefined;
}

interface KnownInstruction {
  code: Uint8Array;
  kind: TracedStep['kind'];
}

export class CallTracer implements InstructionWatcher {
  readonly code: { pages: Set<number>; points: Map<number, TracePoint> };
  private readonly host: CallTracerHost;
  private readonly decoder = new Decoder();
  private readonly known = new Map<bigint, KnownInstruction>();
  private readonly calls: (Call | undefined)[];
  private readonly found = new Map<string, TracedPath>();
  /** Calls of which not all was seen: they left the watched pages, or were given up. */
  incomplete = 0;

  /** `alsoIn`: guest-physical addresses of further pages that calls lead through. */
  constructor(host: CallTracerHost, points: readonly TracePoint[], alsoIn: readonly number[] = []) {
    this.host = host;
    this.calls = host.engine.vcpus.map(() => undefined);
    const { memory } = host.engine;
    const linear = (guestPhysical: number): number => {
      const at = memory.linear(guestPhysical);
      if (at < 0) throw new RangeError(`nothing to trace at 0x${guestPhysical.toString(16)}: it is not RAM`);
      return at;
    };
    const page = (guestPhysical: number): number => (linear(guestPhysical) - memory.ramBase) >>> 12;
    this.code = {
      pages: new Set([...points.map(({ guestPhysical }) => guestPhysical), ...alsoIn].map(page)),
      points: new Map(points.map((point) => [linear(point.guestPhysical), point])),
    };
  }

  /** What was found, the most frequent first. */
  get paths(): TracedPath[] {
    return [...this.found.values()].sort((a, b) => b.calls - a.calls);
  }

  instruction(vcpu: Vcpu): boolean {
    const { index } = vcpu;
    const { engine } = this.host;
    const rip = engine.ripOf(vcpu);
    const rsp = vcpu.register(RSP);
    const retired = engine.retired(vcpu);
    let call = this.calls[index];
    // Its block had to be decoded anew.
    if (call?.seen === retired) return true;
    if (call?.interruption) {
      const { interruption } = call;
      if (rip !== interruption.rip || rsp !== interruption.rsp) return true;
      call.instructions += retired - interruption.instructions;
      call.cycles += this.host.cyclesOf(index) - interruption.cycles;
      this.takeExits(index, call);
      call.interruption = undefined;
    }
    if (call) {
      this.finishStep(vcpu, call, rip);
      if (call.steps.length >= MAX_STEPS) {
        this.incomplete++;
        call = this.calls[index] = undefined;
      } else if (rsp >= call.returned) {
        this.finish(vcpu, call, retired);
        call = this.calls[index] = undefined;
      }
    }
    const linear = engine.translate(vcpu.base, BigInt.asIntN(64, rip), Access.execute);
    const { code, kind } = this.instructionAt(vcpu, rip, linear);
    if (!call) {
      call = this.begin(vcpu, linear, rsp, retired);
      if (!call) return false;
      this.watchReturn(vcpu, call.kind === 'call' ? rip + BigInt(code.length) : this.returnAddress(vcpu, rsp));
    }
    call.seen = retired;
    call.steps.push({ guestVirtual: rip, code, kind, isTaken: false, accesses: [], exits: [] });
    return true;
  }

  access(vcpu: Vcpu, guestVirtual: bigint, bytes: number, kind: 'read' | 'write'): void {
    const call = this.calls[vcpu.index];
    if (call && !call.interruption) call.steps.at(-1)?.accesses.push({ kind, guestVirtual: BigInt.asUintN(64, guestVirtual), bytes });
  }

  /** An interrupt is about to be delivered, maybe; returns what to call when it was. */
  beforeEvent(vcpu: Vcpu): (() => void) | undefined {
    const call = this.calls[vcpu.index];
    if (!call || call.interruption) return undefined;
    const [rip, rsp] = [this.host.engine.ripOf(vcpu), vcpu.register(RSP)];
    return () => {
      this.takeExits(vcpu.index, call, call.steps.at(-1));
      call.interruption = { rip, rsp, instructions: this.host.engine.retired(vcpu), cycles: this.host.cyclesOf(vcpu.index) };
    };
  }

  /** The instruction that a call returns to is the one that ends it. */
  private watchReturn({ base }: Vcpu, address: bigint): void {
    const { engine } = this.host;
    const linear = engine.translate(base, BigInt.asIntN(64, address), Access.execute | Access.probe);
    if (linear < engine.memory.ramBase) return;
    const page = (linear - engine.memory.ramBase) >>> 12;
    if (this.code.pages.has(page)) return;
    this.code.pages.add(page);
    engine.cache.invalidate(engine.memory.ramBase + page * PAGE, PAGE);
  }

  private returnAddress(vcpu: Vcpu, rsp: bigint): bigint {
    const { engine } = this.host;
    const linear = engine.translate(vcpu.base, BigInt.asIntN(64, rsp), Access.probe);
    if (linear < engine.memory.ramBase || (linear & (PAGE - 1)) > PAGE - 8) return 0n;
    return codeBitsOf(vcpu) === 64 ? engine.memory.view.getBigUint64(linear, true) : BigInt(engine.memory.view.getUint32(linear, true));
  }

  private begin(vcpu: Vcpu, linear: number, rsp: bigint, retired: number): Call | undefined {
    const point = this.code.points.get(linear);
    const name = point?.name((number) => vcpu.register(number));
    if (point === undefined || name === undefined) return undefined;
    const { index } = vcpu;
    const call: Call = {
      name,
      kind: point.kind,
      steps: [],
      returned: point.kind === 'call' ? rsp : rsp + 1n,
      seen: retired,
      instructions: retired,
      cycles: this.host.cyclesOf(index),
      chanceExits: 0,
      exits: EXIT_REASONS.map((_, reason) => this.host.exitCount(index, reason)),
      interruption: undefined,
    };
    this.calls[index] = call;
    return call;
  }

  private finishStep({ index }: Vcpu, call: Call, next: bigint): void {
    const step = call.steps.at(-1) as TracedStep;
    step.isTaken = step.kind === 'branch' && next !== step.guestVirtual + BigInt(step.code.length);
    this.takeExits(index, call, step);
  }

  /** What was counted since the last time: a step's exits, or nobody's. */
  private takeExits(index: number, call: Call, step?: TracedStep): void {
    for (const [reason, name] of EXIT_REASONS.entries()) {
      const count = this.host.exitCount(index, reason);
      const made = count - call.exits[reason];
      if (!made) continue;
      call.exits[reason] = count;
      if (!step) continue;
      if (BY_CHANCE.has(name)) call.chanceExits += made;
      else for (let i = 0; i < made; i++) step.exits.push(name);
    }
  }

  private finish(vcpu: Vcpu, call: Call, retired: number): void {
    const { name, steps, chanceExits } = call;
    if (retired - call.instructions !== steps.length) {
      this.incomplete++;
      return;
    }
    const cycles = this.host.cyclesOf(vcpu.index) - call.cycles;
    const origin = steps[0].guestVirtual;
    const alike = call.kind === 'function' ? steps : steps.slice(1);
    const key = [name, call.kind, ...alike.map(({ guestVirtual, exits }) => `${guestVirtual.toString(36)}${exits.join()}`)].join(' ');
    let path = this.found.get(key);
    if (!path) {
      path = { name, codeBits: codeBitsOf(vcpu), steps, calls: 0, origins: new Map(), cycles: 0, chanceExits: 0 };
      this.found.set(key, path);
    }
    path.calls++;
    path.origins.set(origin, (path.origins.get(origin) ?? 0) + 1);
    path.cycles += cycles;
    path.chanceExits += chanceExits;
  }

  /** Kernels patch themselves: what is known is compared with what is there. */
  private instructionAt(vcpu: Vcpu, rip: bigint, linear: number): KnownInstruction {
    const { bytes } = this.host.engine.memory;
    const found = this.known.get(rip);
    if (found?.code.every((byte, i) => bytes[linear + i] === byte)) return found;
    const copy = bytes.slice(linear, linear + MOST_INSTRUCTION_BYTES);
    this.decoder.decode(copy, 0, copy.length, codeBitsOf(vcpu));
    const { form, length } = this.decoder.result;
    const { mnemonic } = form.instruction;
    const kind = /^(J(?!MP)|LOOP)/.test(mnemonic) ? 'branch' : /^(JMP|CALL|RET|IRET)/.test(mnemonic) ? 'transfer' : 'other';
    const known: KnownInstruction = { code: copy.subarray(0, length), kind };
    this.known.set(rip, known);
    return known;
  }
}

const codeBitsOf = (vcpu: Vcpu): CodeBits => {
  const mode = vcpu.get32(state.CODE_MODE);
  return mode === state.CODE_32_FLAT ? 32 : (mode as CodeBits);
};
