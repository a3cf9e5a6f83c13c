/**
 * What the comparison with a processor leaves out: what the manuals call undefined, and the last place of
 * transcendental functions. Everything else must agree in every bit.
 */

import type { Case, Outcome } from './case.ts';

export interface Undefined {
  /** FSW bits not compared. */
  status: number;
  /** Registers, counted from the new top, not compared. */
  registers: number[];
  /** How far results may be from the processor's, in units of the last place. */
  ulps: number;
  /** Is a byte of memory not compared? */
  memory(offset: number): boolean;
}

const NOTHING: Undefined = { status: 0, registers: [], ulps: 0, memory: () => false };

export const TRANSCENDENTAL = new Set(['f2xm1', 'fyl2x', 'fyl2xp1', 'fpatan', 'fsin', 'fcos', 'fsincos', 'fptan']);

/** FIP, FCS, FOP, FDP and FDS in memory images: they are the decoder's. */
const POINTERS = { protected32: [12, 28], protected16: [6, 14] } as const;

const C1 = 1 << 9;

export function undefinedOf(c: Case, _expected: Outcome): Undefined {
  if (TRANSCENDENTAL.has(c.operation)) return { ...NOTHING, status: C1, ulps: 1 };
  const format = /^fn(?:save|stenv)_(protected\d\d)$/.exec(c.operation)?.[1] as keyof typeof POINTERS | undefined;
  if (format) {
    const [from, to] = POINTERS[format];
    return { ...NOTHING, memory: (offset) => offset >= from && offset < to };
  }
  return NOTHING;
}

/** How far apart two images of finite numbers are, in units of the last place. */
export function ulpDistance(a: string, b: string): number {
  const [x, y] = [a, b].map((image) => BigInt(`0x${image}`));
  if (x >> 79n !== y >> 79n) return Number.POSITIVE_INFINITY;
  // Significands of neighbouring exponents continue each other once the integer bit is taken out.
  const [i, j] = [x, y].map((value) => ((value >> 64n) << 63n) | (value & 0x7fff_ffff_ffff_ffffn));
  return Number(i > j ? i - j : j - i);
}
