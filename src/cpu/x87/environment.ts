/**
 * The images of FSTENV and FSAVE. Source: SDM 1 8.1.10, figures 8-9 to 8-12; protected-mode formats have
 * selectors, real-mode formats linear addresses.
 */

import { FCS, FDP, FDS, FIP, FOP } from '../state.ts';
import { NORMAL, ZERO } from './float80.ts';
import type { RegisterStack } from './register-stack.ts';

export type EnvironmentFormat = 'protected32' | 'protected16' | 'real32' | 'real16';

/** Bytes of FSTENV's image; FSAVE's has the eight registers after it. */
export const ENVIRONMENT_BYTES = { protected32: 28, protected16: 14, real32: 28, real16: 14 } as const;
export const STATE_BYTES = { protected32: 108, protected16: 94, real32: 108, real16: 94 } as const;
const REGISTER_BYTES = 10;

/** Two bits for each physical register, by content. */
const TAG_VALID = 0;
const TAG_ZERO = 1;
const TAG_SPECIAL = 2;
const TAG_EMPTY = 3;

/** The tag word as images have it, from the registers. */
export function fullTags(s: RegisterStack): number {
  let tags = 0;
  const { top } = s;
  for (let physical = 0; physical < 8; physical++) {
    const i = (physical - top) & 7;
    const kind = s.classify(i);
    const tag = s.isEmpty(i) ? TAG_EMPTY : kind === NORMAL ? TAG_VALID : kind === ZERO ? TAG_ZERO : TAG_SPECIAL;
    tags |= tag << (2 * physical);
  }
  return tags;
}

/** Only empty or not is kept of each tag. */
export function abridgeTags(tags: number): number {
  let abridged = 0;
  for (let physical = 0; physical < 8; physical++) {
    if (((tags >> (2 * physical)) & 3) !== TAG_EMPTY) abridged |= 1 << physical;
  }
  return abridged;
}

export function storeEnvironment(s: RegisterStack, m: number, format: EnvironmentFormat): void {
  const { view, words } = s;
  const state = (offset: number) => words[s.base + (offset >> 2)];
  const [fip, fdp, fop] = [state(FIP), state(FDP), state(FOP) & 0x7ff];
  const [fcs, fds] = [state(FCS) & 0xffff, state(FDS) & 0xffff];
  const fields: number[] = [s.control, s.status, fullTags(s)];
  switch (format) {
    case 'protected32':
      // Words of their own have the rest of their doublewords set.
      fields.push(fip, fcs | (fop << 16), fdp, fds | (0xffff << 16));
      break;
    case 'protected16':
      fields.push(fip, fcs, fdp, fds);
      break;
    case 'real32':
      fields.push(
        (fip & 0xffff) | (0xffff << 16),
        ((fip >>> 16) << 12) | fop,
        (fdp & 0xffff) | (0xffff << 16),
        (fdp >>> 16) << 12,
      );
      break;
    case 'real16':
      fields.push(fip, ((fip >>> 4) & 0xf000) | fop, fdp, (fdp >>> 4) & 0xf000);
      break;
  }
  const wide = ENVIRONMENT_BYTES[format] === 28;
  for (const [n, field] of fields.entries()) {
    if (wide) view.setInt32(m + 4 * n, n < 3 ? field | (0xffff << 16) : field, true);
    else view.setUint16(m + 2 * n, field, true);
  }
}

export function loadEnvironment(s: RegisterStack, m: number, format: EnvironmentFormat): void {
  const { view, words } = s;
  const wide = ENVIRONMENT_BYTES[format] === 28;
  const field = (n: number) => (wide ? view.getInt32(m + 4 * n, true) : view.getUint16(m + 2 * n, true));
  let [fip, fcs, fdp, fds] = [field(3), field(4), field(5), field(6)];
  // The 16-bit protected-mode format has no room for FOP.
  let fop = wide ? (fcs >>> 16) & 0x7ff : 0;
  if (format === 'real32' || format === 'real16') {
    const high =
      format === 'real32' ? (value: number) => ((value >>> 12) & 0xffff) << 16 : (value: number) => (value & 0xf000) << 4;
    fop = fcs & 0x7ff;
    fip = (fip & 0xffff) | high(fcs);
    fdp = (fdp & 0xffff) | high(fds);
    fcs = 0;
    fds = 0;
  }
  const base = s.base;
  words[base + (FIP >> 2)] = fip;
  words[base + (FIP >> 2) + 1] = 0;
  words[base + (FDP >> 2)] = fdp;
  words[base + (FDP >> 2) + 1] = 0;
  words[base + (FCS >> 2)] = fcs & 0xffff;
  words[base + (FDS >> 2)] = fds & 0xffff;
  words[base + (FOP >> 2)] = fop;
  s.status = field(1) & 0xffff;
  s.tags = abridgeTags(field(2));
  s.setControl(field(0) & 0xffff);
}

/** FNSAVE's image: the environment, then ST(0) to ST(7) whatever their tags. */
export function storeState(s: RegisterStack, m: number, format: EnvironmentFormat): void {
  storeEnvironment(s, m, format);
  for (let i = 0; i < 8; i++) {
    const to = m + ENVIRONMENT_BYTES[format] + i * REGISTER_BYTES;
    const from = s.st(i);
    s.view.setInt32(to, s.words[from], true);
    s.view.setInt32(to + 4, s.words[from + 1], true);
    s.view.setUint16(to + 8, s.words[from + 2], true);
  }
}

export function loadState(s: RegisterStack, m: number, format: EnvironmentFormat): void {
  loadEnvironment(s, m, format);
  const { tags } = s;
  for (let i = 0; i < 8; i++) {
    const from = m + ENVIRONMENT_BYTES[format] + i * REGISTER_BYTES;
    s.write(i, s.view.getInt32(from, true), s.view.getInt32(from + 4, true), s.view.getUint16(from + 8, true));
  }
  s.tags = tags;
}
