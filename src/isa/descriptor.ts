/** Segment descriptors taken apart, as expressions over their 8 bytes: what generated code does where cpu/segments.ts would otherwise. SDM 3A 3.4.5. */

import { type Expression, i32, select } from '../wasm/expression.ts';

/** Type, S, DPL, P, AVL, L, D/B and G at the places that state.SEGMENT_ATTRIBUTES keeps them at. */
export const ATTRIBUTES = 0x00f0_ff00;
/** Accessed; conforming; code; S; present; long; 32-bit. Of the attributes. */
const [A, C, CODE, S, P, LONG, BIG] = [1 << 8, 1 << 10, 1 << 11, 1 << 12, 1 << 15, 1 << 21, 1 << 22];
const WRITABLE = 1 << 9;
const EXPAND_DOWN = 1 << 10;
const GRANULAR = 1 << 23;

export const attributesOf = (raw: Expression): Expression => raw.shrU(32).wrap().and(ATTRIBUTES);
export const baseOf = (raw: Expression): Expression => raw.shrU(16).and(0xff_ffff).or(raw.shrU(56).shl(24));
export const dplOf = (attributes: Expression): Expression => attributes.shrU(13).and(3);

export function limitOf(raw: Expression): Expression {
  const units = raw.wrap().and(0xffff).or(raw.shrU(32).wrap().and(0xf_0000));
  return select(raw.shrU(32).wrap().and(GRANULAR), units.shl(12).or(0xfff), units);
}

/** Present 64-bit code, not conforming, accessed before, at privilege level `dpl`: an i32 0 or 1. */
export const isCode64 = (attributes: Expression, dpl: Expression): Expression =>
  attributes.and(A | C | CODE | S | (3 << 13) | P | LONG | BIG).eq(i32(A | CODE | S | P | LONG).or(dpl.shl(13)));

/** Present writable data that grows upwards, accessed before, at privilege level `dpl`: an i32 0 or 1. */
export const isPlainData = (attributes: Expression, dpl: Expression): Expression =>
  attributes.and(A | WRITABLE | EXPAND_DOWN | CODE | S | (3 << 13) | P).eq(i32(A | WRITABLE | S | P).or(dpl.shl(13)));

/** A selector that names an entry of the GDT that is there: an i32 0 or 1. */
export const isInGdt = (selector: Expression, gdtLimit: Expression): Expression =>
  selector.and(0xfffc).nonZero().and(selector.and(4).eqz()).and(selector.and(0xfff8).add(7).leU(gdtLimit));
