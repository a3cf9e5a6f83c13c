/** A vCPU's jump cache: from the address of code to its block (layout.ts). Probed by generated code, and by who looks ahead. */

import * as state from '../cpu/state.ts';
import type { Expression } from '../wasm/expression.ts';
import type { FunctionBuilder } from '../wasm/function-builder.ts';
import * as L from './layout.ts';

/** 2^32 divided by the golden ratio: its products' upper bits tell addresses apart that differ in any bits. */
const HASH = 0x9e37_79b1 | 0;
const HASH_SHIFT = 32 - Math.log2(L.JUMP_ENTRIES);

/** The entry (an i32) of the vCPU's cache where the code at `rip` (i64) would be. */
export function jumpEntry(f: FunctionBuilder, vcpu: Expression, rip: Expression): Expression {
  const hash = rip.wrap().mul(HASH).shrU(HASH_SHIFT);
  return f.let(vcpu.add(hash.mul(L.JUMP_ENTRY_SIZE)));
}

/** Whether the entry is that of `key`, entered in `mode`: CODE_MODE with the context's generation. Its block may be stale, or none. */
export function jumpHit(entry: Expression, key: Expression, mode: Expression): Expression {
  return entry.load('i64.load', L.JUMP_CACHE).eq(key).and(entry.load('i32.load', L.JUMP_CACHE + 12).eq(mode));
}

export const jumpBlock = (entry: Expression): Expression => entry.load('i32.load', L.JUMP_CACHE + 8);

const generationOf = (words: Int32Array, vcpu: number): number => words[(words[(vcpu + state.TLB_BASE) >> 2] + L.CONTEXT_GENERATION) >> 2];

/** What generated code would find for flat code at `rip` in `mode`: a block's first operation, or 0. Changes nothing. */
export function peekJump(words: Int32Array, vcpu: number, rip: bigint, codeMode: number): number {
  const low = Number(BigInt.asIntN(32, rip));
  const hash = Math.imul(low, HASH) >>> HASH_SHIFT;
  const entry = (vcpu + L.JUMP_CACHE + hash * L.JUMP_ENTRY_SIZE) >> 2;
  const high = Number(BigInt.asIntN(32, rip >> 32n));
  const mode = generationOf(words, vcpu) | codeMode;
  return words[entry] === low && words[entry + 1] === high && words[entry + 3] === mode ? words[entry + 2] : 0;
}

/** Where flat code was last entered as the block of this operation, if the cache still knows. */
export function ripOfBlock(words: Int32Array, vcpu: number, op: number, codeMode: number): bigint | undefined {
  const mode = generationOf(words, vcpu) | codeMode;
  const first = (vcpu + L.JUMP_CACHE) >> 2;
  for (let i = first; i < first + (L.JUMP_ENTRIES * L.JUMP_ENTRY_SIZE) / 4; i += 4) {
    if (words[i + 2] === op && words[i + 3] === mode) return (BigInt(words[i + 1]) << 32n) | BigInt(words[i] >>> 0);
  }
  return undefined;
}
