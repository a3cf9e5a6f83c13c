/**
 * What the manuals leave undefined, in one table: status flags by mnemonic and, for shifts, by count; results that are
 * undefined or approximate; which byte of an operand a page fault names. Vectors hold what the recording processor did,
 * the comparison leaves these out; flags and results only where no fault kept the instruction from making them.
 * Source: SDM 2 and APM 3, instruction reference; where the two differ, what either calls undefined is undefined here.
 */

import { Flag, STATUS_FLAGS, Word } from './machine-state.ts';
import type { Vector } from './vector-file.ts';

export interface Undefined {
  /** RFLAGS bits not to be compared. */
  flags: number;
  /**
   * How the other results are compared: exactly, as a reciprocal within 1.5 × 2^-12, as a transcendental function within one
   * unit in the last place (and C1, which tells how the last place was rounded, not at all), or not at all.
   */
  results: 'exact' | 'approximate' | 'last place' | 'any';
  /** Which byte of a large operand a page fault names is the processor's choice: only the page is compared. */
  faultAddress?: 'page';
}

const { carry: CF, parity: PF, adjust: AF, zero: ZF, sign: SF, overflow: OF } = Flag;

const PREFIXES = new Set(['LOCK', 'REP', 'REPE', 'REPNE', 'A32']);

/** `MNEMONIC` of a form like `LOCK MNEMONIC Ev,Gv/32/mem`. */
export function mnemonicOf(form: string): string {
  return form.split('/')[0].split(' ').find((word) => !PREFIXES.has(word)) as string;
}

/** Operand size in bits that a form states, by its size or a byte operand. */
export function operandSizeOf(form: string): number {
  const stated = /\/(16|32|64)(?:\/|$| )/.exec(form);
  return stated ? Number(stated[1]) : /\bE?b|Eb/.test(form) ? 8 : 0;
}

type Rule = (vector: Vector, size: number) => number | Undefined;

/** The count a shift or rotate uses, before it is taken modulo the operand size. */
function shiftCount(vector: Vector, size: number): number {
  const operands = vector.form.split('/')[0];
  let raw = 1;
  if (operands.endsWith('CL')) raw = Number(vector.input.registers[Word.gpr + 1] & 0xffn);
  else if (operands.endsWith('Ib')) raw = vector.code[vector.code.length - 1];
  return raw & (size === 64 ? 63 : 31);
}

/** SHL, SHR, SAR: AF always, OF but for counts of 1, CF once all bits are out (SAR keeps shifting signs in). */
const shift = (signed: boolean): Rule => (vector, size) => {
  const count = shiftCount(vector, size);
  if (count === 0) return 0;
  return AF | (count === 1 ? 0 : OF) | (!signed && count >= size ? CF : 0);
};

const rotate: Rule = (vector, size) => (shiftCount(vector, size) > 1 ? OF : 0);

/** A 16-bit double shift by more than 16 leaves destination and flags undefined. */
const doubleShift: Rule = (vector, size) => {
  const count = shiftCount(vector, size);
  if (count > size) return { flags: STATUS_FLAGS, results: 'any' };
  return count === 0 ? 0 : AF | (count === 1 ? 0 : OF);
};

/** Of 16 bits. */
const byteSwap: Rule = (_, size) => ({ flags: 0, results: size === 16 ? 'any' : 'exact' });

const largeOperand: Rule = () => ({ flags: 0, results: 'exact', faultAddress: 'page' });

const transcendental: Rule = () => ({ flags: 0, results: 'last place' });

const always = (flags: number): Rule => () => flags;
const approximate: Rule = () => ({ flags: 0, results: 'approximate' });

export const UNDEFINED: Readonly<Record<string, Rule>> = {
  AND: always(AF), OR: always(AF), XOR: always(AF), TEST: always(AF),
  MUL: always(SF | ZF | AF | PF), IMUL: always(SF | ZF | AF | PF), DIV: always(STATUS_FLAGS), IDIV: always(STATUS_FLAGS),
  SHL: shift(false), SAL: shift(false), SHR: shift(false), SAR: shift(true),
  ROL: rotate, ROR: rotate, RCL: rotate, RCR: rotate, SHLD: doubleShift, SHRD: doubleShift,
  BSWAP: byteSwap,
  BT: always(OF | SF | AF | PF), BTS: always(OF | SF | AF | PF), BTR: always(OF | SF | AF | PF), BTC: always(OF | SF | AF | PF),
  // The destination for a source of 0 is not compared as undefined: AMD documents that it stays, Intel's processors do the same.
  BSF: always(CF | OF | SF | AF | PF), BSR: always(CF | OF | SF | AF | PF),
  TZCNT: always(OF | SF | AF | PF), LZCNT: always(OF | SF | AF | PF), ANDN: always(AF | PF), BEXTR: always(AF | SF | PF),
  BLSR: always(AF | PF), BLSMSK: always(AF | PF), BLSI: always(AF | PF), BZHI: always(AF | PF),
  F2XM1: transcendental, FYL2X: transcendental, FYL2XP1: transcendental, FPTAN: transcendental, FPATAN: transcendental,
  FSIN: transcendental, FCOS: transcendental, FSINCOS: transcendental,
  FNSAVE: largeOperand, FRSTOR: largeOperand, FNSTENV: largeOperand, FLDENV: largeOperand, FXSAVE: largeOperand,
  FXRSTOR: largeOperand, XSAVE: largeOperand, XSAVEOPT: largeOperand, XSAVEC: largeOperand, XRSTOR: largeOperand,
  RCPPS: approximate, RCPSS: approximate, RSQRTPS: approximate, RSQRTSS: approximate,
};

export function undefinedBehaviour(vector: Vector): Undefined {
  const rule = UNDEFINED[mnemonicOf(vector.form)];
  const answer = rule ? rule(vector, operandSizeOf(vector.form)) : 0;
  return typeof answer === 'number' ? { flags: answer, results: 'exact' } : answer;
}
