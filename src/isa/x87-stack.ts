/**
 * The x87's register stack as instructions see it that are done without TypeScript: registers are in use where they must be, exceptions are
 * all masked, precision is 64 bits. What finds it otherwise gives up, before anything has changed.
 */

import type { Expression } from '../wasm/expression.ts';
import type { Operand } from './semantics.ts';

/** FCW's precision control and masks, and what they are then. */
export const QUICK_CONTROL_MASK = 0x33f;
export const QUICK_CONTROL = 0x33f;

/** An 80-bit number: its significand, an i64, and sign and exponent, an i32 of 16 bits. */
export interface Float80Value {
  significand: Expression;
  signExponent: Expression;
}

/** ST(i): an operand that names it, or its number. */
export type StackIndex = Operand | number;

export interface X87Stack {
  /** FCW, an i32. */
  readonly control: Expression;
  /** Gives up where the condition (an i32) holds. */
  giveUpIf(condition: Expression): void;
  /** The value of a register, which must be in use. */
  read(i: StackIndex): Float80Value;
  /** Gives up where nothing can be pushed. */
  requireRoom(): void;

  // Behind these nothing may give up any more.
  /** Notes flags of FSW (an i32): exceptions are added to those noted, C1 is set or cleared. */
  settle(flags: Expression): void;
  /** C3, C2 and C0. */
  setConditions(conditions: Expression): void;
  /** FSW as FNSTSW tells it, an i32. */
  status(): Expression;
  setControl(control: Expression): void;
  /** Writes a register that is in use or popped next. */
  write(i: StackIndex, value: Float80Value): void;
  push(value: Float80Value): void;
  pop(): void;
  free(i: StackIndex): void;
}
