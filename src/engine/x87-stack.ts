/** The x87's register stack in a vCPU's state, as the interpreter's handlers use it: TOP and tags are looked up. See isa/x87-stack.ts. */

import * as state from '../cpu/state.ts';
import { ERROR_SUMMARY, TOP_SHIFT } from '../cpu/x87/register-stack.ts';
import { ROUNDED_UP } from '../cpu/x87/float80.ts';
import { type Float80Value, QUICK_CONTROL, QUICK_CONTROL_MASK, type StackIndex, type X87Stack } from '../isa/x87-stack.ts';
import { type Expression, i32 } from '../wasm/expression.ts';
import type { FunctionBuilder, Label, Local } from '../wasm/function-builder.ts';

/** C3, C2, C0. */
export const CONDITIONS = 0x4500;

/** Whether the quick way is none: by FCW and FSW. */
export const notQuick = (control: Expression, status: Expression): Expression =>
  control.and(QUICK_CONTROL_MASK).xor(QUICK_CONTROL).or(status.and(ERROR_SUMMARY));

/** FSW with the flags of an operation: exceptions stay, C1 is the last one's. */
export const settled = (status: Expression, flags: Expression): Expression => status.and(~ROUNDED_UP).or(flags);

export class StateStack implements X87Stack {
  readonly control: Expression;
  private readonly f: FunctionBuilder;
  private readonly vcpu: Expression;
  private readonly hard: Label;
  private readonly fsw: Local;
  private readonly tags: Local;

  constructor(f: FunctionBuilder, vcpu: Expression, hard: Label) {
    this.f = f;
    this.vcpu = vcpu;
    this.hard = hard;
    this.fsw = f.local('i32');
    this.tags = f.local('i32');
    this.control = f.let(vcpu.load('i32.load', state.FCW));
    f.set(this.fsw, vcpu.load('i32.load', state.FSW));
    f.set(this.tags, vcpu.load('i32.load', state.FTW));
    this.giveUpIf(notQuick(this.control, f.get(this.fsw)));
  }

  /** Stores what has changed besides registers. */
  commit(): void {
    this.f.store('i32.store', this.vcpu, this.f.get(this.fsw), state.FSW);
    this.f.store('i32.store', this.vcpu, this.f.get(this.tags), state.FTW);
  }

  giveUpIf(condition: Expression): void {
    this.f.branchIf(this.hard, condition);
  }

  read(i: StackIndex): Float80Value {
    const { f } = this;
    const physical = this.physical(i);
    this.giveUpIf(f.get(this.tags).shrU(physical).and(1).eqz());
    const at = this.addressOf(physical);
    return { significand: f.let(at.load('i64.load', state.FPR)), signExponent: f.let(at.load('i32.load16_u', state.FPR + 8)) };
  }

  requireRoom(): void {
    this.giveUpIf(this.f.get(this.tags).shrU(this.physical(-1)).and(1));
  }

  settle(flags: Expression): void {
    this.f.set(this.fsw, settled(this.f.get(this.fsw), flags));
  }

  setConditions(conditions: Expression): void {
    this.f.set(this.fsw, this.f.get(this.fsw).and(~CONDITIONS).or(conditions));
  }

  status(): Expression {
    return this.f.get(this.fsw);
  }

  setControl(control: Expression): void {
    this.f.store('i32.store', this.vcpu, control, state.FCW);
  }

  write(i: StackIndex, value: Float80Value): void {
    const { f } = this;
    const physical = this.physical(i);
    const at = this.addressOf(physical);
    f.store('i64.store', at, value.significand, state.FPR);
    f.store('i32.store', at, value.signExponent, state.FPR + 8);
    f.set(this.tags, f.get(this.tags).or(i32(1).shl(physical)));
  }

  push(value: Float80Value): void {
    this.moveTop(-1);
    this.write(0, value);
  }

  pop(): void {
    this.free(0);
    this.moveTop(1);
  }

  free(i: StackIndex): void {
    const { f } = this;
    f.set(this.tags, f.get(this.tags).and(i32(1).shl(this.physical(i)).xor(-1)));
  }

  private moveTop(by: number): void {
    const { f } = this;
    const fsw = f.get(this.fsw);
    f.set(this.fsw, fsw.and(~state.FSW_TOP).or(fsw.add(by << TOP_SHIFT).and(state.FSW_TOP)));
  }

  private physical(i: StackIndex): Expression {
    const top = this.f.get(this.fsw).shrU(TOP_SHIFT);
    return this.f.let(top.add(typeof i === 'number' ? i : i.number()).and(7));
  }

  private addressOf(physical: Expression): Expression {
    return this.f.let(this.vcpu.add(physical.shl(4)));
  }
}
