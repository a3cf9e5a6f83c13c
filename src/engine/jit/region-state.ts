/**
 * What the instructions of a region share: the locals that stand for the vCPU's registers and flags, and the ways into the region and
 * out of it. All ways out are tail calls, as the interpreter's handlers make them: of the next region, of a handler, or of the
 * interpreter's lookup; only when the budget has ended the run loop gets control back.
 */

import * as state from '../../cpu/state.ts';
import { type Expression, i32 } from '../../wasm/expression.ts';
import type { FunctionBuilder, Label, Local } from '../../wasm/function-builder.ts';
import { jumpBlock, jumpEntry, jumpHit } from '../jump-cache.ts';
import * as L from '../layout.ts';
import type { JitStatistics } from './jit-statistics.ts';
import { RegionAddresses } from './region-addresses.ts';
import { RegionFlags } from './region-flags.ts';
import { RegionFloat } from './region-float.ts';
import type { RegionMode } from './region-graph.ts';
import type { RegionImports } from './region-imports.ts';
import { RegionX87 } from './region-x87.ts';

const FLAGS = [state.FLAG_ZERO, state.FLAG_SIGN, state.FLAG_CARRY, state.FLAG_OVERFLOW];

/** How a region is left. */
const Exit = { lookUp: 0, interpret: 1, taken: 2, next: 3, stop: 4 } as const;

export class RegionState {
  readonly f: FunctionBuilder;
  readonly imports: RegionImports;
  readonly mode: RegionMode;
  readonly float: RegionFloat;
  readonly x87: RegionX87;
  /** Guest-virtual address of the page of the running code, and the TLB. */
  readonly codeBase: Expression;
  readonly tlbBase: Expression;
  readonly budget: Local;
  readonly flags: RegionFlags;
  readonly addresses: RegionAddresses;
  usesSse = false;
  /** What this instruction has looked up. */
  lookedUp: { rip: Expression; block: Expression; hit: Expression } | null = null;
  /** It leaves the page that it is entered in, or is entered in several. */
  usesPages = false;
  private readonly words = new Map<number, { local: Local; written: boolean }>();
  private readonly vectors = new Map<number, { local: Local; written: boolean }>();
  /** Sign and exponent of MMX registers that are written. */
  private readonly mmxExponents = new Map<number, Local>();
  private readonly codeBaseLocal: Local;
  private readonly tlbBaseLocal: Local;
  private readonly jumpMode: Local;
  private looksUp = false;
  /** How the region is left (Exit), with the operation or the RIP to go on at. */
  private readonly exit: Local;
  private readonly exitOperation: Local;
  private readonly exitRip: Local;
  private readonly budgetAtEntry: Local;
  private readonly statistics: JitStatistics;
  private out!: Label;
  /** Bytes of the code in front of what `build` was given. */
  loadBytes = 0;

  constructor(f: FunctionBuilder, imports: RegionImports, mode: RegionMode, statistics: JitStatistics, isThorough: boolean) {
    this.f = f;
    this.statistics = statistics;
    this.imports = imports;
    this.mode = mode;
    this.float = new RegionFloat(f);
    this.addresses = new RegionAddresses(f, isThorough);
    this.flags = new RegionFlags(f, (offset, write) => this.word(offset, write) as Local);
    this.x87 = new RegionX87(f);
    this.budget = f.variable('i32');
    this.budgetAtEntry = f.variable('i32');
    this.exit = f.variable('i32');
    this.exitOperation = f.variable('i32');
    this.exitRip = f.variable('i64');
    this.codeBaseLocal = f.variable('i64');
    this.tlbBaseLocal = f.variable('i32');
    this.jumpMode = f.variable('i32');
    this.codeBase = f.get(this.codeBaseLocal);
    this.tlbBase = f.get(this.tlbBaseLocal);
  }

  /** Builds the region: `body` is its code, which ends by leaving. */
  build(body: () => void): void {
    const { f } = this;
    f.block((out) => {
      this.out = out;
      body();
    });
    this.store();
    this.goOut();
    const { length } = f.mark();
    f.prepend(() => this.load());
    this.loadBytes = f.mark().length - length;
  }

  /** The local that stands for a 64-bit word of the state, if one does: general and MMX registers, and flags. */
  word(offset: number, write: boolean): Local | null {
    const isGeneral = offset >= state.GPR && offset < state.GPR + 128 && offset % 8 === 0;
    const isMmx = offset >= state.FPR && offset < state.FPR + 128 && offset % 16 === 0;
    if (!isGeneral && !isMmx && !FLAGS.includes(offset)) return null;
    let entry = this.words.get(offset);
    if (!entry) {
      entry = { local: this.f.variable('i64'), written: false };
      this.words.set(offset, entry);
    }
    entry.written ||= write;
    return entry.local;
  }

  /** To be set where the MMX register is written. */
  mmxExponent(number: number): Local {
    let local = this.mmxExponents.get(number);
    if (!local) {
      local = this.f.variable('i32');
      this.mmxExponents.set(number, local);
    }
    return local;
  }

  vector(number: number, write: boolean): Local {
    let entry = this.vectors.get(number);
    if (!entry) {
      entry = { local: this.f.variable('v128'), written: false };
      this.vectors.set(number, entry);
    }
    entry.written ||= write;
    return entry.local;
  }

  /** Another translation context applies. */
  translationChanged(): void {
    const { f } = this;
    f.set(this.tlbBaseLocal, f.parameter(0).load('i32.load', state.TLB_BASE));
    f.set(this.jumpMode, this.generation());
    this.addresses.forgetTranslations();
  }

  /** Another block begins. */
  beginBlock(): void {
    this.float.beginBlock();
  }

  /** Control is at `rip` now, `offset` behind the start of its page. */
  enterPage(rip: Expression, offset: number): void {
    this.usesPages = true;
    this.f.set(this.codeBaseLocal, rip.sub(offset));
  }

  /**
   * The block that the jump cache has for `rip`, with `hit` saying whether that is right: as the interpreter finds it, so that what is in the
   * cache, hence what is walked for, is the same with regions and without.
   */
  lookUp(rip: Expression): { block: Expression; hit: Expression } {
    if (this.lookedUp?.rip === rip) return this.lookedUp;
    this.looksUp = true;
    const entry = jumpEntry(this.f, this.f.parameter(0), rip);
    this.lookedUp = { rip, block: jumpBlock(entry), hit: this.f.let(jumpHit(entry, rip, this.f.get(this.jumpMode))) };
    return this.lookedUp;
  }

  // --- Ways out ---------------------------------------------------------------------------------------

  /** Leaves for the interpreter, which goes on with an operation of a block that was paid for. */
  interpret(operation: number): void {
    this.countUnpaid(operation);
    this.statistics.exit(this.f, 'slow path');
    this.leave(Exit.interpret, { operation });
  }

  /** The same at an instruction that is not compiled. */
  interpretUncompiled(operation: number, mnemonic: string): void {
    this.countUnpaid(operation);
    this.statistics.uncompiled(this.f, mnemonic);
    this.leave(Exit.interpret, { operation });
  }

  /** Leaves where a block falls through to one that is not in the region. */
  fallThrough(operation: number): void {
    this.statistics.exit(this.f, 'link');
    this.leave(Exit.interpret, { operation });
  }

  /** Leaves by a link of a block's last operation. */
  follow(link: 'taken' | 'next', operation: number): void {
    this.statistics.exit(this.f, 'link');
    this.leave(Exit[link], { operation });
  }

  /** Leaves for what is at `rip`. */
  goTo(rip: Expression): void {
    this.statistics.exit(this.f, 'jump');
    this.leave(Exit.lookUp, { rip });
  }

  /** Leaves to the run loop, to go on at `rip` some time. */
  stop(rip: Expression): void {
    this.statistics.exit(this.f, 'budget');
    this.leave(Exit.stop, { rip });
  }

  /** What the interpreter runs of a block that was paid for is not retired here. */
  private countUnpaid(operation: number): void {
    if (this.statistics.isCounting) this.statistics.retired(this.f, i32(-1).sub(i32(operation).load('i32.load16_s', L.OP_REMAINING)));
  }

  private leave(exit: number, { operation, rip }: { operation?: number; rip?: Expression }): void {
    const { f } = this;
    f.set(this.exit, exit);
    if (operation !== undefined) f.set(this.exitOperation, operation);
    if (rip) f.set(this.exitRip, rip);
    this.x87.beforeLeaving();
    this.flags.settle();
    f.branch(this.out);
  }

  /** Code in front of the region: loads what it uses. */
  private load(): void {
    const { f } = this;
    const [vcpu, op] = [f.parameter(0), f.parameter(1)];
    if (this.usesSse) {
      // EM and TS clear, OSFXSR set: this cannot change inside. If it is not so, the interpreter raises what is due.
      const cr0 = vcpu.load('i32.load', state.CR0);
      const cr4 = vcpu.load('i32.load', state.CR4);
      f.if(cr0.and(0xc).or(cr4.and(0x200).xor(0x200)), () => f.returnCall(this.imports.interpret, vcpu, op));
    }
    const unexpected = this.x87.load(op);
    if (unexpected) f.if(unexpected, () => f.returnCall(this.imports.interpret, vcpu, op));
    for (const [offset, { local }] of this.words) f.set(local, vcpu.load('i64.load', offset));
    for (const [number, { local }] of this.vectors) f.set(local, vcpu.load('v128.load', state.XMM + 16 * number));
    for (const [number, local] of this.mmxExponents) f.set(local, vcpu.load('i32.load16_u', state.FPR + 16 * number + 8));
    this.float.load(vcpu);
    f.set(this.codeBaseLocal, vcpu.load('i64.load', state.CODE_BASE));
    f.set(this.tlbBaseLocal, vcpu.load('i32.load', state.TLB_BASE));
    if (this.looksUp) f.set(this.jumpMode, this.generation());
    // Who enters has paid for the first block; it pays for itself again.
    f.set(this.budget, vcpu.load('i32.load', state.BUDGET).add(op.load('i32.load16_s', L.OP_REMAINING)).add(1));
    if (this.statistics.isCounting) f.set(this.budgetAtEntry, f.get(this.budget));
  }

  private generation(): Expression {
    return this.tlbBase.load('i32.load', L.CONTEXT_GENERATION).or(this.mode);
  }

  /** Code behind the region: stores what it wrote. */
  private store(): void {
    const { f } = this;
    const vcpu = f.parameter(0);
    this.flags.leave();
    for (const [offset, { local, written }] of this.words) if (written) f.store('i64.store', vcpu, f.get(local), offset);
    for (const [number, { local, written }] of this.vectors) if (written) f.store('v128.store', vcpu, f.get(local), state.XMM + 16 * number);
    for (const [number, local] of this.mmxExponents) f.store('i32.store', vcpu, f.get(local), state.FPR + 16 * number + 8);
    if (this.statistics.isCounting) this.statistics.retired(f, f.get(this.budgetAtEntry).sub(f.get(this.budget)));
    this.x87.store();
    f.store('i32.store', vcpu, f.get(this.budget), state.BUDGET);
    if (this.usesPages) f.store('i64.store', vcpu, this.codeBase, state.CODE_BASE);
  }

  private goOut(): void {
    const { f, imports } = this;
    const vcpu = f.parameter(0);
    const [exit, operation, rip] = [f.get(this.exit), f.get(this.exitOperation), f.get(this.exitRip)];
    f.if(exit.nonZero(), () => {
      f.if(exit.eq(Exit.interpret), () => f.returnCall(imports.interpret, vcpu, operation));
      f.if(exit.eq(Exit.taken), () => f.returnCall(imports.follow.taken, vcpu, operation));
      f.if(exit.eq(Exit.next), () => f.returnCall(imports.follow.next, vcpu, operation));
      f.store('i64.store', vcpu, rip, state.RIP);
      f.return();
    });
    f.returnCall(imports.goTo, vcpu, rip);
  }
}
