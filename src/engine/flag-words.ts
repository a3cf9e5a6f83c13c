/** The flag words of the common operations, from operands and result, all sign-extended from the operation's size (`FlagWords`). */

import type { FlagWords } from '../isa/semantics.ts';
import { type Expression, i64 } from '../wasm/expression.ts';

/** All four words. */
export type AllFlagWords = Record<keyof FlagWords, Expression>;

/** Of a + b (+ carry in) = result. */
export const flagsOfAddition = (a: Expression, b: Expression, result: Expression): AllFlagWords => ({
  zero: result, sign: result, carry: a.and(b).or(a.or(b).and(result.not())), overflow: a.xor(result).and(b.xor(result)),
});

/** Of a - b (- borrow in) = result. */
export const flagsOfSubtraction = (a: Expression, b: Expression, result: Expression): AllFlagWords => ({
  zero: result, sign: result, carry: a.not().and(b).or(a.xor(b).not().and(result)), overflow: a.xor(b).and(a.xor(result)),
});

/** Of AND, OR, XOR and TEST. */
export const flagsOfLogic = (result: Expression): AllFlagWords => ({ zero: result, sign: result, carry: i64(0), overflow: i64(0) });
