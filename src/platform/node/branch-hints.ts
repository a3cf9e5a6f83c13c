/** WebAssembly's branch hints, which the JIT's code has: V8 reads them of itself from version 14 on (Node 26), and before when told to. */

import { setFlagsFromString } from 'node:v8';

const FIRST_TO_READ_THEM = 14;

/**
 * Has this process's V8 read branch hints: guests run some 10 % faster. For all code that is compiled from then on, so call it before
 * the first machine is made; `exitless` does.
 */
export function useBranchHints(): void {
  if (Number.parseInt(process.versions.v8, 10) < FIRST_TO_READ_THEM) setFlagsFromString('--experimental-wasm-branch-hinting');
}
