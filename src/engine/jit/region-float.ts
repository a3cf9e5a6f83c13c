/**
 * What a region knows of floating point while it is being compiled: MXCSR, which is in a local, and what XMM registers hold, so that an
 * operation need not ask again what the one before it has settled.
 */

import { MASK_SHIFT, PRECISION, ROUNDING } from '../../cpu/sse-unit.ts';
import * as state from '../../cpu/state.ts';
import type { Expression } from '../../wasm/expression.ts';
import type { FunctionBuilder, Local } from '../../wasm/function-builder.ts';

interface MxcsrLocals {
  whole: Local;
  differences: { mask: number; expected: number; local: Local }[];
}

const INEXACT = PRECISION | (PRECISION << MASK_SHIFT);
/** Rounded to nearest, and inexactness masked and noted: nothing about a normal result remains to be told. */
const ASKED = [
  { mask: ROUNDING | INEXACT, expected: INEXACT },
  { mask: INEXACT, expected: INEXACT },
];

export class RegionFloat {
  private readonly f: FunctionBuilder;
  private locals: MxcsrLocals | null = null;
  /** Locals, set once, whose value has no denormal lane. */
  private readonly normal = new Set<number>();
  /** What XMM registers hold at this place of the block, as values that were kept; the low element apart from the whole. */
  private readonly vectors = new Map<number, Expression>();
  private readonly lows = new Map<number, Expression>();

  constructor(f: FunctionBuilder) {
    this.f = f;
  }

  /** Another block begins: what was known of registers holds no more. */
  beginBlock(): void {
    this.normal.clear();
    this.vectors.clear();
    this.lows.clear();
  }

  noteNormal(value: Expression): void {
    this.normal.add(value.immediate as number);
  }

  isNormal(value: Expression): boolean {
    return value.kind === 'local' && this.normal.has(value.immediate as number);
  }

  vector(number: number): Expression | undefined {
    return this.vectors.get(number);
  }

  /** The low element, if it is known as a number of this type. */
  low(number: number, type: 'f32' | 'f64'): Expression | undefined {
    const value = this.lows.get(number);
    return value?.type === type ? value : undefined;
  }

  /** A register was written whole, or its low element only, with a value that was kept. */
  setVector(number: number, value: Expression): void {
    this.vectors.set(number, value);
    this.lows.delete(number);
  }

  setLow(number: number, value: Expression): void {
    this.vectors.delete(number);
    this.lows.set(number, value);
  }

  get mxcsr(): Expression {
    return this.f.get(this.mxcsrLocals().whole);
  }

  /** As `Semantics` has it: questions that are asked all the time are answered ahead. */
  mxcsrDiffers(mask: number, expected: number): Expression {
    const { differences } = this.mxcsrLocals();
    const known = differences.find((one) => one.mask === mask && one.expected === expected);
    return known ? this.f.get(known.local) : this.f.let(this.mxcsr.and(mask).ne(expected));
  }

  /** MXCSR in memory has changed. */
  mxcsrChanged(vcpu: Expression): void {
    const { f } = this;
    const { whole, differences } = this.mxcsrLocals();
    f.set(whole, vcpu.load('i32.load', state.MXCSR));
    for (const { mask, expected, local } of differences) f.set(local, f.get(whole).and(mask).ne(expected));
  }

  private mxcsrLocals(): MxcsrLocals {
    const { f } = this;
    this.locals ??= { whole: f.variable('i32'), differences: ASKED.map((difference) => ({ ...difference, local: f.variable('i32') })) };
    return this.locals;
  }

  /** Code in front of the region. */
  load(vcpu: Expression): void {
    if (this.locals) this.mxcsrChanged(vcpu);
  }
}
