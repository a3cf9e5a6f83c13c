/**
 * The flags in a region. Nearly all that instructions set are overwritten before anything asks for them, but every way out of the region
 * has to leave them right, and each memory access may be one. So an addition, a subtraction or a logical operation keeps what its flags are
 * made of, in three locals, which costs nothing; where the region is left, code common to all ways out makes the flag words (`leave`).
 * Which operation it was is known while code is built; at nodes that several ways lead to, a local says it.
 */

import * as state from '../../cpu/state.ts';
import type { FlagWords } from '../../isa/semantics.ts';
import { type Expression, i32, i64 } from '../../wasm/expression.ts';
import type { FunctionBuilder, Local } from '../../wasm/function-builder.ts';
import { type AllFlagWords, flagsOfAddition, flagsOfLogic, flagsOfSubtraction } from '../flag-words.ts';

/** What the flags are at a place: in the flag words, those of an operation (a borrow is a subtraction with a borrow in), or what the local says. */
export type FlagSource = 'words' | 'addition' | 'subtraction' | 'borrow' | 'logic' | 'any';

const WORDS = { zero: state.FLAG_ZERO, sign: state.FLAG_SIGN, carry: state.FLAG_CARRY, overflow: state.FLAG_OVERFLOW } as const;
const FLAGS = Object.keys(WORDS) as (keyof FlagWords)[];
/** What the local says for each source. */
const NUMBERS = { words: 0, addition: 1, subtraction: 2, borrow: 2, logic: 3 } as const;

/** Thrown where an instruction is about to set flags that it may as well leave alone: it is built anew once the flag words hold them. */
export class FlagWordsWanted extends Error {}

export class RegionFlags {
  source: FlagSource = 'words';
  private readonly f: FunctionBuilder;
  /** The local of a flag word. */
  private readonly word: (offset: number, write: boolean) => Local;
  private readonly a: Local;
  private readonly b: Local;
  private readonly result: Local;
  private readonly number: Local;
  private keeps = false;

  constructor(f: FunctionBuilder, word: (offset: number, write: boolean) => Local) {
    this.f = f;
    this.word = word;
    [this.a, this.b, this.result] = [f.variable('i64'), f.variable('i64'), f.variable('i64')];
    this.number = f.variable('i32');
  }

  /** The flags are those of an operation from here on. */
  keep(source: 'addition' | 'subtraction' | 'borrow' | 'logic', a: Expression, b: Expression, result: Expression): void {
    const { f } = this;
    this.keeps = true;
    const [left, right, outcome] = [f.let(a), f.let(b), f.let(result)];
    if (source !== 'logic') {
      f.set(this.a, left);
      f.set(this.b, right);
    }
    f.set(this.result, outcome);
    this.source = source;
  }

  /** Sets some of the flag words. `isConditional`: within an `if` of the instruction's. */
  setWords(words: FlagWords, isConditional: boolean): void {
    const { f } = this;
    const setsAll = FLAGS.every((flag) => words[flag] !== undefined);
    if (isConditional && this.source !== 'words' && this.source !== 'any') throw new FlagWordsWanted();
    if (!setsAll) this.compute(isConditional);
    for (const flag of FLAGS) {
      const value = words[flag];
      if (value !== undefined) f.set(this.word(WORDS[flag], true), value);
    }
    if (!isConditional) this.source = 'words';
    else if (this.source === 'any') f.set(this.number, NUMBERS.words);
  }

  /** The value of a flag word, for use at once. */
  read(offset: number, isConditional: boolean): Expression {
    const known = this.known();
    if (known) return known[FLAGS.find((flag) => WORDS[flag] === offset) as keyof FlagWords];
    this.compute(isConditional);
    return this.f.get(this.word(offset, false));
  }

  /** Operands and result, for a condition that is computed from them. */
  get operands(): { a: Expression; b: Expression; result: Expression } {
    const { f } = this;
    return { a: f.get(this.a), b: f.get(this.b), result: f.get(this.result) };
  }

  /** Makes the flag words hold the flags. */
  compute(isConditional = false): void {
    if (this.source === 'words') return;
    const known = this.known();
    if (known) this.setAll(known);
    else this.computeAny();
    if (!isConditional) this.source = 'words';
  }

  /** Makes the local say where the flags are: in front of a node that several ways lead to, or of a way out. */
  settle(): void {
    if (this.source !== 'any') this.f.set(this.number, NUMBERS[this.source]);
  }

  /** Behind all ways out. */
  leave(): void {
    if (this.keeps) this.computeAny();
  }

  private computeAny(): void {
    const { f } = this;
    const { a, b, result } = this.operands;
    f.ifRarely(f.get(this.number).nonZero(), () => {
      // Most regions are left behind a comparison.
      this.setAll(flagsOfSubtraction(a, b, result));
      f.if(f.get(this.number).ne(NUMBERS.subtraction), () => {
        const sum = flagsOfAddition(a, b, result);
        const isSum = f.let(i64(0).sub(f.get(this.number).eq(NUMBERS.addition).extendU()));
        this.setAll({ ...sum, carry: sum.carry.and(isSum), overflow: sum.overflow.and(isSum) });
      });
      f.set(this.number, i32(NUMBERS.words));
    });
  }

  private known(): AllFlagWords | null {
    const { a, b, result } = this.operands;
    switch (this.source) {
      case 'addition': return flagsOfAddition(a, b, result);
      case 'subtraction':
      case 'borrow': return flagsOfSubtraction(a, b, result);
      case 'logic': return flagsOfLogic(result);
      default: return null;
    }
  }

  private setAll(words: AllFlagWords): void {
    for (const flag of FLAGS) this.f.set(this.word(WORDS[flag], true), words[flag]);
  }
}
