/**
 * Segmentation: descriptors, segment loads, what a stack segment lets through. SDM 3A chapters 3 and 5, APM 2 chapter 4. Far
 * transfers are elsewhere (far-transfers.ts, task-switch.ts, exceptions.ts).
 */

import { Access } from './mmu.ts';
import * as state from './state.ts';
import { generalProtection, raise, type Vcpu, Vector } from './vcpu.ts';

/** Attributes as the descriptor's high word has them: type and S, DPL, P, AVL, L, D/B, G. */
export const Attribute = { accessed: 1 << 8, writable: 1 << 9, readable: 1 << 9, conforming: 1 << 10, expandDown: 1 << 10, code: 1 << 11, system: 0 /* S clear */, s: 1 << 12, dpl: 3 << 13, present: 1 << 15, long: 1 << 21, big: 1 << 22, granular: 1 << 23 } as const;
const ATTRIBUTE_MASK = 0x00f0_ff00;
export const REAL_MODE_DATA = Attribute.present | Attribute.s | Attribute.writable | Attribute.accessed;
export const FLAT_LIMIT = 0xffff_ffff;

/** The hidden part of a segment register. */
export interface Segment {
  base: bigint;
  limit: number;
  attributes: number;
}

export interface Descriptor extends Segment {
  /** Guest-virtual address of the descriptor, and its 8 bytes (in long mode, of a system descriptor, 16). */
  address: bigint;
  raw: bigint;
}

export const typeOf = (d: Segment): number => (d.attributes >> 8) & 15;
export const dplOf = (d: { attributes: number }): number => (d.attributes >> 13) & 3;
export const present = (d: Segment): boolean => (d.attributes & Attribute.present) !== 0;
export const isSystem = (d: Segment): boolean => (d.attributes & Attribute.s) === 0;
export const isCode = (d: Segment): boolean => (d.attributes & (Attribute.s | Attribute.code)) === (Attribute.s | Attribute.code);

export const isConforming = (d: Segment): boolean => isCode(d) && (d.attributes & Attribute.conforming) !== 0;
export const isWritableData = (d: Segment): boolean => !isSystem(d) && !isCode(d) && (d.attributes & Attribute.writable) !== 0;

export const offsetOf = (segment: number): number => state.SEGMENT + segment * state.SEGMENT_SIZE;
export const CS = 1;
export const SS = 2;
export const LDTR = 6;
export const TR = 7;

/** Reads the descriptor a selector names, or undefined where it lies beyond its table. */
export function descriptor(vcpu: Vcpu, selector: number, wide = false): Descriptor | undefined {
  const local = (selector & 4) !== 0;
  const base = local ? vcpu.get64(state.LDTR + state.SEGMENT_BASE) : vcpu.get64(state.GDTR_BASE);
  const limit = local ? vcpu.get32(state.LDTR + state.SEGMENT_LIMIT) : vcpu.get32(state.GDTR_LIMIT);
  const index = selector & 0xfff8;
  if (local && (vcpu.get32(state.LDTR + state.SEGMENT_SELECTOR) & 0xfffc) === 0) return undefined;
  if (index + (wide ? 15 : 7) > limit) return undefined;
  const address = base + BigInt(index);
  let raw = vcpu.read(address, 8, Access.implicit);
  const high = Number(raw >> 32n);
  const attributes = high & ATTRIBUTE_MASK;
  const units = Number(raw & 0xffffn) | (high & 0xf0000);
  let segmentBase = ((raw >> 16n) & 0xff_ffffn) | ((raw >> 56n) << 24n);
  if (wide) {
    const upper = vcpu.read(address + 8n, 8, Access.implicit);
    segmentBase |= (upper & 0xffff_ffffn) << 32n;
    raw |= upper << 64n;
  }
  return { base: segmentBase, limit: attributes & Attribute.granular ? units * 4096 + 4095 : units, attributes, address, raw };
}

/** Whether so many bytes at an offset lie within a segment, expand-down ones included. */
export function holds(d: Segment, offset: bigint, bytes: number): boolean {
  const last = offset + BigInt(bytes) - 1n;
  const expandDown = !isCode(d) && (d.attributes & Attribute.s) !== 0 && (d.attributes & Attribute.expandDown) !== 0;
  if (expandDown) return offset > BigInt(d.limit) && last <= (d.attributes & Attribute.big ? 0xffff_ffffn : 0xffffn);
  return last <= BigInt(d.limit);
}

/** A stack as far transfers, interrupts and tasks use it: moved on the side, so that a fault leaves RSP alone. */
export class Stack {
  private readonly vcpu: Vcpu;
  private readonly segment: Segment | undefined;
  private readonly access: number;
  private readonly error: number;
  private readonly mask: bigint;
  private readonly initial: bigint;
  private sp: bigint;

  /** `segment` is undefined for 64-bit mode; `error` is what #SS says beyond the limit. */
  constructor(vcpu: Vcpu, segment: Segment | undefined, sp: bigint, access: number, error = 0) {
    this.vcpu = vcpu;
    this.segment = segment;
    this.access = access;
    this.error = error;
    this.mask = !segment ? 0xffff_ffff_ffff_ffffn : segment.attributes & Attribute.big ? 0xffff_ffffn : 0xffffn;
    this.initial = this.sp = sp;
  }

  /** The stack in use. */
  static current(vcpu: Vcpu): Stack {
    return new Stack(vcpu, vcpu.code64 ? undefined : segmentAt(vcpu, SS), vcpu.get64(state.RSP), vcpu.cpl === 3 ? Access.user : 0);
  }

  private at(offset: bigint, bytes: number): bigint {
    if (!this.segment) return offset;
    if (!holds(this.segment, offset, bytes)) raise(Vector.stackFault, this.error);
    return (this.segment.base + offset) & 0xffff_ffffn;
  }

  push(value: bigint, bytes: number): void {
    const sp = (this.sp - BigInt(bytes)) & this.mask;
    this.vcpu.write(this.at(sp, bytes), bytes, value & ((1n << BigInt(8 * bytes)) - 1n), this.access);
    this.sp = sp;
  }

  pop(bytes: number): bigint {
    const sp = this.sp & this.mask;
    const value = this.vcpu.read(this.at(sp, bytes), bytes, this.access);
    this.sp = (sp + BigInt(bytes)) & this.mask;
    return value;
  }

  skip(bytes: number): void {
    this.sp = (this.sp + BigInt(bytes)) & this.mask;
  }

  /** What RSP holds after it: a 16-bit stack leaves the rest alone. */
  get pointer(): bigint {
    if (this.mask === 0xffffn) return (this.initial & ~0xffffn) | (this.sp & 0xffffn);
    return this.sp & this.mask;
  }
}

export const segmentAt = (vcpu: Vcpu, segment: number): Segment => {
  const offset = offsetOf(segment);
  return { base: vcpu.get64(offset), limit: vcpu.get32(offset + state.SEGMENT_LIMIT), attributes: vcpu.get32(offset + state.SEGMENT_ATTRIBUTES) };
};
export const selectorAt = (vcpu: Vcpu, segment: number): number => vcpu.get32(offsetOf(segment) + state.SEGMENT_SELECTOR);

/** Loads the hidden part of a segment register. */
export function setSegment(vcpu: Vcpu, segment: number, selector: number, d: Segment): void {
  const offset = offsetOf(segment);
  vcpu.set64(offset + state.SEGMENT_BASE, d.base);
  vcpu.set32(offset + state.SEGMENT_LIMIT, d.limit);
  vcpu.set32(offset + state.SEGMENT_SELECTOR, selector);
  vcpu.set32(offset + state.SEGMENT_ATTRIBUTES, d.attributes);
  updateAccess(vcpu, segment);
  if (segment <= 3) updateCodeMode(vcpu);
}

const TYPE_MASK = Attribute.present | Attribute.s | Attribute.code;

/** What an access between base and limit may do. Expand-down segments are always looked at closely (engine.ts). */
function updateAccess(vcpu: Vcpu, segment: number): void {
  const offset = offsetOf(segment);
  const attributes = vcpu.get32(offset + state.SEGMENT_ATTRIBUTES);
  const type = attributes & TYPE_MASK;
  const data = type === (Attribute.present | Attribute.s) && !(attributes & Attribute.expandDown);
  const code = type === TYPE_MASK;
  const readable = data || (code && (attributes & Attribute.readable) !== 0);
  const writable = data && (attributes & Attribute.writable) !== 0;
  const all = !vcpu.protectedMode;
  vcpu.set32(offset + state.SEGMENT_ACCESS, (readable || all ? state.READABLE : 0) | (writable || all ? state.WRITABLE : 0));
}

/** Derives again what CR0.PE decides about the segments. */
export function updateSegments(vcpu: Vcpu): void {
  for (let segment = 0; segment < 6; segment++) updateAccess(vcpu, segment);
  updateCodeMode(vcpu);
}

/** Recomputes the mode of the code that runs: from CS and EFER, and in 32-bit code from whether the other segments matter. */
export function updateCodeMode(vcpu: Vcpu): void {
  const attributes = vcpu.get32(state.CS + state.SEGMENT_ATTRIBUTES);
  const long = vcpu.longMode && (attributes & Attribute.long) !== 0;
  const wide = (attributes & Attribute.big) !== 0 && vcpu.protectedMode;
  vcpu.set32(state.CODE_MODE, long ? state.CODE_64 : !wide ? state.CODE_16 : isFlat(vcpu) ? state.CODE_32_FLAT : state.CODE_32);
  vcpu.set64(state.CODE_KEY, long ? 0n : vcpu.get64(state.CS) << 32n);
}

function isFlat(vcpu: Vcpu): boolean {
  const everything = (segment: number): boolean => vcpu.get64(segment) === 0n && vcpu.get32(segment + state.SEGMENT_LIMIT) === FLAT_LIMIT;
  const data = (segment: number): boolean => everything(segment) && vcpu.get32(segment + state.SEGMENT_ACCESS) === (state.READABLE | state.WRITABLE);
  const wideStack = (vcpu.get32(state.SS + state.SEGMENT_ATTRIBUTES) & Attribute.big) !== 0;
  return everything(state.CS) && wideStack && data(state.SS) && data(state.DS) && data(state.ES);
}

export function setCpl(vcpu: Vcpu, cpl: number): void {
  vcpu.set32(state.CPL, cpl);
  vcpu.mmu.contextChanged(vcpu.base);
}

export function markAccessed(vcpu: Vcpu, d: Descriptor): void {
  if (d.attributes & Attribute.accessed) return;
  vcpu.write(d.address + 5n, 1, BigInt(((d.attributes >> 8) & 0xff) | 1), Access.implicit);
  d.attributes |= Attribute.accessed;
}


/** MOV and POP to a data segment register, LDS and the like. Raises #UD for CS. */
export function loadDataSegment(vcpu: Vcpu, segment: number, selector: number): void {
  if (segment === CS) raise(Vector.undefinedOpcode);
  const offset = offsetOf(segment);
  if (!vcpu.protectedMode || vcpu.virtual8086) {
    // Real mode keeps limit and attributes as they are: "unreal" mode is made of this.
    vcpu.set64(offset + state.SEGMENT_BASE, BigInt(selector) << 4n);
    vcpu.set32(offset + state.SEGMENT_SELECTOR, selector);
    return updateCodeMode(vcpu);
  }
  const { cpl } = vcpu;
  const rpl = selector & 3;
  const code = selector & 0xfffc;
  if (code === 0) {
    if (segment === SS && (!vcpu.code64 || cpl === 3 || rpl !== cpl)) generalProtection();
    // A null selector leaves an unusable segment; in 64-bit mode bases of FS and GS are cleared too.
    return setSegment(vcpu, segment, selector, { base: 0n, limit: segment === SS ? FLAT_LIMIT : 0, attributes: segment === SS ? cpl << 13 : 0 });
  }
  const d = descriptor(vcpu, selector) ?? generalProtection(code);
  if (segment === SS) {
    if (rpl !== cpl || isSystem(d) || isCode(d) || !(d.attributes & Attribute.writable) || dplOf(d) !== cpl) generalProtection(code);
    if (!present(d)) raise(Vector.stackFault, code);
  } else {
    const conforming = isCode(d) && (d.attributes & Attribute.conforming) !== 0;
    if (isSystem(d) || (isCode(d) && !(d.attributes & Attribute.readable)) || (!conforming && (rpl > dplOf(d) || cpl > dplOf(d)))) generalProtection(code);
    if (!present(d)) raise(Vector.segmentNotPresent, code);
  }
  markAccessed(vcpu, d);
  setSegment(vcpu, segment, selector, d);
}

/** LLDT. */
export function loadLdtr(vcpu: Vcpu, selector: number): void {
  const code = selector & 0xfffc;
  if (code === 0) return setSegment(vcpu, 6, selector, { base: 0n, limit: 0, attributes: 0 });
  if (selector & 4) generalProtection(code);
  const d = descriptor(vcpu, selector, vcpu.longMode) ?? generalProtection(code);
  if (!isSystem(d) || typeOf(d) !== 2) generalProtection(code);
  if (!present(d)) raise(Vector.segmentNotPresent, code);
  setSegment(vcpu, 6, selector, d);
}

/** LTR: marks the TSS busy. */
export function loadTr(vcpu: Vcpu, selector: number): void {
  const code = selector & 0xfffc;
  if (code === 0 || selector & 4) generalProtection(code);
  const d = descriptor(vcpu, selector, vcpu.longMode) ?? generalProtection(code);
  if (!isSystem(d) || (typeOf(d) !== 9 && (vcpu.longMode || typeOf(d) !== 1))) generalProtection(code);
  if (!present(d)) raise(Vector.segmentNotPresent, code);
  const busy = d.attributes | (2 << 8);
  vcpu.write(d.address + 5n, 1, BigInt((busy >> 8) & 0xff), Access.implicit);
  setSegment(vcpu, 7, selector, { ...d, attributes: busy });
}

/** VERR, VERW: whether the segment a selector names can be read, or written, at this privilege level. */
export function verify(vcpu: Vcpu, selector: number, write: boolean): boolean {
  const d = (selector & 0xfffc) === 0 ? undefined : descriptor(vcpu, selector);
  if (!d || isSystem(d) || !present(d)) return false;
  const conforming = isCode(d) && (d.attributes & Attribute.conforming) !== 0;
  if (!conforming && (dplOf(d) < vcpu.cpl || dplOf(d) < (selector & 3))) return false;
  return write ? !isCode(d) && (d.attributes & Attribute.writable) !== 0 : !isCode(d) || (d.attributes & Attribute.readable) !== 0;
}

/** LAR, LSL: the descriptor, where its type is one the instruction tells about and the privilege level may see it. */
export function visibleDescriptor(vcpu: Vcpu, selector: number, instruction: 'lar' | 'lsl'): Descriptor | undefined {
  const d = (selector & 0xfffc) === 0 ? undefined : descriptor(vcpu, selector);
  if (!d) return undefined;
  if (isSystem(d)) {
    const limits = vcpu.longMode ? [2, 9, 11] : [1, 2, 3, 9, 11];
    const gates = vcpu.longMode ? [12] : [4, 5, 12];
    if (!(instruction === 'lsl' ? limits : [...limits, ...gates]).includes(typeOf(d))) return undefined;
  }
  const conforming = isCode(d) && (d.attributes & Attribute.conforming) !== 0;
  return conforming || (dplOf(d) >= vcpu.cpl && dplOf(d) >= (selector & 3)) ? d : undefined;
}
