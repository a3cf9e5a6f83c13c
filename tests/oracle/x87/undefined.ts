/**
 * What the comparison with a processor leaves out: what the manuals call undefined, and the last place of
 * transcendental functions. Everything else must agree in every bit.
 */

import type { Case } from './case.ts';

export interface Undefined {
  /** FSW bits not compared. */
  status: number;
  /** Are FIP, FCS, FOP, FDP and FDS not compared? */
  pointers: boolean;
  /** How far results may be from the processor's, in units of the last place. */
  ulps: number;
  /** Is a byte of memory not compared? */
  memory(offset: number): boolean;
}

const NOTHING: Undefined = { pointers: false, status: 0, ulps: 0, memory: () => false };

export const TRANSCENDENTAL = new Set(['f2xm1', 'fyl2x', 'fyl2xp1', 'fpatan', 'fsin', 'fcos', 'fsincos', 'fptan']);

/** Control instructions leave FIP, FCS, FOP, FDP and FDS alone or load them; the others' are the decoder's to set. */
export const CONTROL = /^(fn(?!op)|fldcw|fldenv|frstor|fx(save|rstor))/;

const C1 = 1 << 9;

export function undefinedOf(c: Case): Undefined {
  const pointers = !CONTROL.test(c.operation);
  if (TRANSCENDENTAL.has(c.operation)) return { ...NOTHING, pointers, status: C1, ulps: 1 };
  // MXCSR, what of it is writable, and XMM registers are not the harness's to set up.
  if (c.operation.startsWith('fxsave'))
    return { ...NOTHING, memory: (offset) => (offset >= 24 && offset < 32) || (offset >= 160 && offset < 416) };
  return { ...NOTHING, pointers };
}

/** How far apart two images of finite numbers are, in units of the last place. */
export function ulpDistance(a: string, b: string): number {
  const [x, y] = [a, b].map((image) => BigInt(`0x${image}`));
  if (x >> 79n !== y >> 79n) return Number.POSITIVE_INFINITY;
  // Significands of neighbouring exponents continue each other once the integer bit is taken out.
  const [i, j] = [x, y].map((value) => ((value >> 64n) << 63n) | (value & 0x7fff_ffff_ffff_ffffn));
  return Number(i > j ? i - j : j - i);
}
