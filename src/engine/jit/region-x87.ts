/**
 * The x87's registers in a region: in locals, by where they are on the stack. How deep the stack is and which of its registers are in use is
 * known at every place of the code, for the region is entered at a place with one state of it only; so there is nothing to look up, and an
 * exchange of registers costs nothing. What would over- or underflow the stack is the interpreter's.
 *
 * Slots are numbered from ST(0) where the region begins. A push goes to the slot before.
 */

import * as state from '../../cpu/state.ts';
import { ERROR_SUMMARY, TOP_SHIFT } from '../../cpu/x87/register-stack.ts';
import type { Float80Value, StackIndex, X87Stack } from '../../isa/x87-stack.ts';
import { type Expression, i32 } from '../../wasm/expression.ts';
import type { FunctionBuilder, Local } from '../../wasm/function-builder.ts';
import { Unsupported } from './unsupported.ts';
import { CONDITIONS, notQuick, settled } from '../x87-stack.ts';

const SLOTS = 8;
const ALL_TAGS = 0xff;
const CR0_EM_TS = 0xc;

/** The stack at a place of the code: which slot is ST(0), and a bit for each slot that is in use. */
interface Shape {
  top: number;
  tags: number;
}

/** A node that the region may be entered at, with the operation that stands for it. */
interface Entry {
  node: number;
  operation: number;
}

interface Slot {
  significand: Local;
  signExponent: Local;
  written: boolean;
}

/** Which of ST(0) to ST(7) are in use, as bits: FTW has them by physical register, FSW says which of those is ST(0). */
export const usedRegisters = (ftw: number, fsw: number): number => (((ftw << SLOTS) | ftw) >>> ((fsw >>> TOP_SHIFT) & 7)) & 0xff;

export class RegionX87 {
  private readonly f: FunctionBuilder;
  private readonly vcpu: Expression;
  private used = false;
  private entries: readonly Entry[] = [];
  private shape: Shape = { top: 0, tags: 0 };
  private usesMmx = false;
  private readonly shapes = new Map<number, Shape>();
  private readonly slots: (Slot | undefined)[] = new Array(SLOTS);
  /** Physical number of slot 0, FSW, FCW. */
  private readonly base: Local;
  private readonly fsw: Local;
  private readonly fcw: Local;
  private writesControl = false;
  /** FIP, FDP, and FOP. */
  private readonly pointers: { offset: number; local: Local; width: 'i32' | 'i64' }[];
  /** The stack where the region is left. */
  private readonly exitTop: Local;
  private readonly exitTags: Local;

  constructor(f: FunctionBuilder) {
    this.f = f;
    this.vcpu = f.parameter(0);
    const local = (): Local => f.variable('i32');
    [this.base, this.fsw, this.fcw, this.exitTop, this.exitTags] = [local(), local(), local(), local(), local()];
    this.pointers = [
      { offset: state.FIP, local: f.variable('i64'), width: 'i64' },
      { offset: state.FDP, local: f.variable('i64'), width: 'i64' },
      { offset: state.FOP, local: f.variable('i32'), width: 'i32' },
    ];
  }

  /** For a region that has x87 instructions. `tags`: what `usedRegisters` gives where it begins. */
  begin(tags: number, entries: readonly Entry[]): void {
    this.used = true;
    this.entries = entries;
    this.shape = { top: 0, tags };
  }

  // --- Places ---------------------------------------------------------------------------------------

  /** Builds the code of a node: with the stack that the first edge to it has, or that at the entry. */
  atNode(node: number, build: () => void): void {
    const { shape } = this;
    this.shape = this.shapes.get(node) ?? shape;
    this.shapes.set(node, this.shape);
    build();
    this.shape = shape;
  }

  /** Whether an edge may go from here to a node: the stack has to be the same on all. */
  mayGoTo(node: number): boolean {
    const there = this.shapes.get(node);
    if (!there) this.shapes.set(node, this.shape);
    return !there || (there.top === this.shape.top && there.tags === this.shape.tags);
  }

  /** Runs what builds an instruction; if that throws, nothing is known to have changed. */
  attempt(build: () => void): void {
    // FWAIT looks for what other code has left.
    if (!this.used) throw new Unsupported('FWAIT alone');
    const { shape } = this;
    try {
      build();
    } catch (error) {
      this.shape = shape;
      throw error;
    }
  }

  /**
   * For an MMX instruction: these find the registers as MMX leaves them, so that there is nothing to change. The first one behind EMMS is
   * the interpreter's, as is what comes with x87 instructions in one region.
   */
  requireMmx(): void {
    if (this.used) throw new Unsupported('MMX beside x87');
    this.usesMmx = true;
  }

  /** In front of a way out. */
  beforeLeaving(): void {
    if (!this.used) return;
    this.f.set(this.exitTop, i32(this.shape.top));
    this.f.set(this.exitTags, i32(this.shape.tags));
  }

  // --- Entry and exit -------------------------------------------------------------------------------

  /** Code in front of the region, entered with the operation `op`. Gives an i32: the state is not what the region is for; null where it uses no x87. */
  load(op: Expression): Expression | null {
    const { f, vcpu } = this;
    if (this.usesMmx) {
      const status = vcpu.load('i32.load', state.FSW).and(state.FSW_TOP | ERROR_SUMMARY);
      return vcpu.load('i32.load', state.CR0).and(CR0_EM_TS).or(status).or(vcpu.load('i32.load', state.FTW).xor(ALL_TAGS));
    }
    if (!this.used) return null;
    const expected = f.local('i32');
    f.set(this.fsw, vcpu.load('i32.load', state.FSW));
    f.set(this.fcw, vcpu.load('i32.load', state.FCW));
    f.set(this.base, i32(0));
    f.set(expected, i32(this.shape.tags));
    for (const { node, operation } of this.entries) {
      const { top, tags } = this.shapes.get(node) ?? this.shape;
      if (top === 0 && tags === this.shape.tags) continue;
      f.if(op.eq(operation), () => {
        f.set(this.base, i32(-top));
        f.set(expected, i32(tags));
      });
    }
    f.set(this.base, f.get(this.base).add(f.get(this.fsw).shrU(TOP_SHIFT)).and(7));
    this.slots.forEach((slot, number) => {
      if (!slot) return;
      const at = this.addressOf(number);
      f.set(slot.significand, at.load('i64.load', state.FPR));
      f.set(slot.signExponent, at.load('i32.load16_u', state.FPR + 8));
    });
    for (const { offset, local, width } of this.pointers) f.set(local, vcpu.load(`${width}.load`, offset));
    const ftw = f.let(vcpu.load('i32.load', state.FTW));
    const tags = ftw.shl(SLOTS).or(ftw).shrU(f.get(this.base)).and(0xff);
    const disabled = vcpu.load('i32.load', state.CR0).and(CR0_EM_TS);
    return f.let(disabled.or(notQuick(f.get(this.fcw), f.get(this.fsw))).or(tags.xor(f.get(expected))));
  }

  /** Code behind the region. */
  store(): void {
    if (!this.used) return;
    const { f, vcpu } = this;
    this.slots.forEach((slot, number) => {
      if (!slot?.written) return;
      const at = this.addressOf(number);
      f.store('i64.store', at, f.get(slot.significand), state.FPR);
      f.store('i32.store', at, f.get(slot.signExponent), state.FPR + 8);
    });
    for (const { offset, local, width } of this.pointers) f.store(`${width}.store`, vcpu, f.get(local), offset);
    const top = f.get(this.exitTop);
    f.store('i32.store', vcpu, this.status(top), state.FSW);
    if (this.writesControl) f.store('i32.store', vcpu, f.get(this.fcw), state.FCW);
    const turned = f.let(f.get(this.exitTags).shl(f.get(this.base)));
    f.store('i32.store', vcpu, turned.or(turned.shrU(SLOTS)).and(0xff), state.FTW);
  }

  private addressOf(slot: number): Expression {
    return this.f.let(this.vcpu.add(this.f.get(this.base).add(slot).and(7).shl(4)));
  }

  // --- The stack ------------------------------------------------------------------------------------

  get control(): Expression {
    return this.f.get(this.fcw);
  }

  /** Whether a register is in use. */
  isUsed(i: StackIndex): boolean {
    return ((this.shape.tags >> this.slotOf(i)) & 1) !== 0;
  }

  read(i: StackIndex): Float80Value {
    const { f } = this;
    const { significand, signExponent } = this.slot(this.slotOf(i));
    return { significand: f.let(f.get(significand)), signExponent: f.let(f.get(signExponent)) };
  }

  write(i: StackIndex, { significand, signExponent }: Float80Value): void {
    const { f } = this;
    const number = this.slotOf(i);
    const slot = this.slot(number);
    slot.written = true;
    f.set(slot.significand, significand);
    f.set(slot.signExponent, signExponent);
    this.shape = { ...this.shape, tags: this.shape.tags | (1 << number) };
  }

  free(i: StackIndex): void {
    this.shape = { ...this.shape, tags: this.shape.tags & ~(1 << this.slotOf(i)) };
  }

  moveTop(by: number): void {
    this.shape = { ...this.shape, top: (this.shape.top + by) & 7 };
  }

  settle(flags: Expression): void {
    this.f.set(this.fsw, settled(this.f.get(this.fsw), flags));
  }

  setConditions(conditions: Expression): void {
    this.f.set(this.fsw, this.f.get(this.fsw).and(~CONDITIONS).or(conditions));
  }

  /** FSW. */
  status(top: Expression = i32(this.shape.top)): Expression {
    const { f } = this;
    return f.get(this.fsw).and(~state.FSW_TOP).or(f.get(this.base).add(top).and(7).shl(TOP_SHIFT));
  }

  setControl(control: Expression): void {
    this.writesControl = true;
    this.f.set(this.fcw, control);
  }

  /** FIP, FDP or FOP, by its place in the state. */
  setPointer(offset: number, value: Expression): boolean {
    const pointer = this.pointers.find((one) => one.offset === offset);
    if (pointer) this.f.set(pointer.local, value);
    return pointer !== undefined;
  }

  private slotOf(i: StackIndex): number {
    return (this.shape.top + (typeof i === 'number' ? i : (i.number().immediate as number))) & 7;
  }

  private slot(number: number): Slot {
    this.slots[number] ??= { significand: this.f.variable('i64'), signExponent: this.f.variable('i32'), written: false };
    return this.slots[number];
  }
}

/** The stack as an instruction's quick way uses it. */
export class QuickStack implements X87Stack {
  readonly giveUpIf: (condition: Expression) => void;
  private readonly x87: RegionX87;

  constructor(x87: RegionX87, giveUpIf: (condition: Expression) => void) {
    this.x87 = x87;
    this.giveUpIf = giveUpIf;
  }

  get control(): Expression { return this.x87.control; }

  read(i: StackIndex): Float80Value {
    if (!this.x87.isUsed(i)) throw new Unsupported('an empty x87 register');
    return this.x87.read(i);
  }

  requireRoom(): void {
    if (this.x87.isUsed(-1)) throw new Unsupported('a full x87 stack');
  }

  settle(flags: Expression): void { this.x87.settle(flags); }
  setConditions(conditions: Expression): void { this.x87.setConditions(conditions); }
  status(): Expression { return this.x87.status(); }
  setControl(control: Expression): void { this.x87.setControl(control); }
  write(i: StackIndex, value: Float80Value): void { this.x87.write(i, value); }
  free(i: StackIndex): void { this.x87.free(i); }

  push(value: Float80Value): void {
    this.x87.moveTop(-1);
    this.x87.write(0, value);
  }

  pop(): void {
    this.x87.free(0);
    this.x87.moveTop(1);
  }
}
