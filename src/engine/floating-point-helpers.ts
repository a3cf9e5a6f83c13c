/** Helpers of x87, MMX and SSE state: see helpers.ts. */

import { comparePackedStrings } from '../cpu/pcmpstr.ts';
import * as state from '../cpu/state.ts';
import type { Engine } from './engine.ts';
import type { Helpers } from './interpreter.ts';

export function floatingPointHelpers(engine: Engine): Helpers {
  const { memory } = engine.memory;
  return {
    comparePackedStrings: (base: number, control: number, firstLength: number, secondLength: number): number =>
      comparePackedStrings(new DataView(memory.buffer, base + state.ARGUMENT, 32), control, firstLength, secondLength),
  };
}
