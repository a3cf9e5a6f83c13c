/**
 * The registry of instructions. Each is defined once, by `instruction(…)`, in a file by family; what decodes,
 * interprets, compiles and tests them derives from the list.
 */

import { type Encoding, parseEncoding } from './encoding.ts';
import type { Operand, Semantics } from './semantics.ts';

export type SemanticsFunction = (x: Semantics, ...operands: Operand[]) => void;

export interface Attributes {
  /** How operands are accessed, a letter each: r read (default), w written, m modified (read and written). */
  access?: string;
  /** LOCK is allowed where the first operand is memory. */
  lock?: boolean;
  /** REP prefixes mean something: 'rep' (REP only), 'repe' (REPE and REPNE). Gets its own handlers. */
  repeat?: 'rep' | 'repe';
  /** No instruction is decoded behind it into the same block: it jumps, changes mode, or must be looked at by the run loop. */
  ends?: 'block';
  /** Worth a handler of its own for base + index × scale + displacement addressing. */
  hot?: boolean;
  /** Uses the stack or IP implicitly, so that 64-bit and legacy modes have different handlers. */
  modal?: boolean;
  /** Looks at the address size apart from its memory operand (`addressBits`: LOOP, JRCXZ, XLAT): has handlers for each. */
  addressed?: boolean;
  /** Its memory operand is addressed with RSP already moved up (POP): where the base is RSP, the decoder adds the operand's bytes to the displacement. */
  addressAfterPop?: boolean;
  /** It adds a displacement of its own to the address of its memory operand, which the address size cuts only then (bit strings). */
  displaced?: boolean;
  /** It does not access its memory operand: the segment's limit and rights do not count (LEA, NOP, INVLPG). It adds the base itself if it wants one. */
  unaccessed?: boolean;
  /** CPUID feature it needs; #UD without. */
  feature?: string;
  /** Memory operands of 16 bytes need not be aligned (MOVUPS, LDDQU…). */
  unaligned?: boolean;
}

type AllAttributes = { [name in keyof Required<Attributes>]: Attributes[name] | undefined };

/** What makes instructions objects of one shape, whichever attributes they have: the decoder asks for them. */
const NO_ATTRIBUTES: AllAttributes = {
  access: undefined, lock: undefined, repeat: undefined, ends: undefined, hot: undefined, modal: undefined, addressed: undefined,
  addressAfterPop: undefined, displaced: undefined, unaccessed: undefined, feature: undefined, unaligned: undefined,
}; // biome-ignore format: a list

export interface Instruction extends AllAttributes {
  id: number;
  mnemonic: string;
  encodings: Encoding[];
  semantics: SemanticsFunction;
}

export const instructions: Instruction[] = [];

/** Defines an instruction. Throws on a malformed encoding. */
export function instruction(mnemonic: string, encodings: string | string[], attributes: Attributes, semantics: SemanticsFunction): Instruction {
  const defined: Instruction = {
    id: instructions.length,
    mnemonic,
    encodings: (typeof encodings === 'string' ? [encodings] : encodings).map(parseEncoding),
    semantics,
    ...NO_ATTRIBUTES,
    ...attributes,
  };
  instructions.push(defined);
  return defined;
}
