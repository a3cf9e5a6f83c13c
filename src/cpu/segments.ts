/**
 * Segmentation: descriptors, segment loads, far transfers. SDM 3A chapters 3 and 5, APM 2 chapter 4. Limits: call gates
 * and task switches raise #GP; far transfers do not check the target's limit in legacy modes beyond the offset itself.
 */

import { Access } from './mmu.ts';
import * as state from './state.ts';
import { Flag, generalProtection, raise, type Vcpu, Vector } from './vcpu.ts';

/** Attributes as the descriptor's high word has them: type and S, DPL, P, AVL, L, D/B, G. */
export const Attribute = { accessed: 1 << 8, writable: 1 << 9, readable: 1 << 9, conforming: 1 << 10, expandDown: 1 << 10, code: 1 << 11, system: 0 /* S clear */, s: 1 << 12, dpl: 3 << 13, present: 1 << 15, long: 1 << 21, big: 1 << 22, granular: 1 << 23 } as const;
const ATTRIBUTE_MASK = 0x00f0_ff00;
export const REAL_MODE_DATA = Attribute.present | Attribute.s | Attribute.writable | Attribute.accessed;
const FLAT_LIMIT = 0xffff_ffff;

export interface Descriptor {
  base: bigint;
  limit: number;
  attributes: number;
  /** Guest-virtual address of the descriptor. */
  address: bigint;
}

const typeOf = (d: Descriptor): number => (d.attributes >> 8) & 15;
export const dplOf = (d: { attributes: number }): number => (d.attributes >> 13) & 3;
const present = (d: Descriptor): boolean => (d.attributes & Attribute.present) !== 0;
const isSystem = (d: Descriptor): boolean => (d.attributes & Attribute.s) === 0;
const isCode = (d: Descriptor): boolean => (d.attributes & (Attribute.s | Attribute.code)) === (Attribute.s | Attribute.code);

const offsetOf = (segment: number): number => state.SEGMENT + segment * state.SEGMENT_SIZE;
export const CS = 1;
export const SS = 2;

/** Reads the descriptor a selector names, or undefined where it lies beyond its table. */
export function descriptor(vcpu: Vcpu, selector: number, wide = false): Descriptor | undefined {
  const local = (selector & 4) !== 0;
  const base = local ? vcpu.get64(state.LDTR + state.SEGMENT_BASE) : vcpu.get64(state.GDTR_BASE);
  const limit = local ? vcpu.get32(state.LDTR + state.SEGMENT_LIMIT) : vcpu.get32(state.GDTR_LIMIT);
  const index = selector & 0xfff8;
  if (local && (vcpu.get32(state.LDTR + state.SEGMENT_SELECTOR) & 0xfffc) === 0) return undefined;
  if (index + (wide ? 15 : 7) > limit) return undefined;
  const address = base + BigInt(index);
  const raw = vcpu.read(address, 8, Access.implicit);
  const high = Number(raw >> 32n);
  const attributes = high & ATTRIBUTE_MASK;
  const units = Number(raw & 0xffffn) | (high & 0xf0000);
  let segmentBase = ((raw >> 16n) & 0xff_ffffn) | ((raw >> 56n) << 24n);
  if (wide) segmentBase |= (vcpu.read(address + 8n, 8, Access.implicit) & 0xffff_ffffn) << 32n;
  return { base: segmentBase, limit: attributes & Attribute.granular ? units * 4096 + 4095 : units, attributes, address };
}

/** Loads the hidden part of a segment register. */
export function setSegment(vcpu: Vcpu, segment: number, selector: number, d: { base: bigint; limit: number; attributes: number }): void {
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

function markAccessed(vcpu: Vcpu, d: Descriptor): void {
  if (d.attributes & Attribute.accessed) return;
  vcpu.write(d.address + 5n, 1, BigInt(((d.attributes >> 8) & 0xff) | 1), Access.implicit);
  d.attributes |= Attribute.accessed;
}

const realSegment = (selector: number, attributes: number): { base: bigint; limit: number; attributes: number } => ({ base: BigInt(selector) << 4n, limit: 0xffff, attributes });

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

/** Checks a code segment as the target of a far jump, call or return at privilege `cpl`, which it will run at. */
export function codeDescriptor(vcpu: Vcpu, selector: number, cpl: number, isReturn: boolean): Descriptor {
  const code = selector & 0xfffc;
  if (code === 0) generalProtection();
  const d = descriptor(vcpu, selector) ?? generalProtection(code);
  if (!isCode(d)) generalProtection(code);
  if (vcpu.longMode && (d.attributes & (Attribute.long | Attribute.big)) === (Attribute.long | Attribute.big)) generalProtection(code);
  const rpl = selector & 3;
  if (d.attributes & Attribute.conforming) {
    if (dplOf(d) > (isReturn ? rpl : cpl)) generalProtection(code);
  } else if (isReturn ? dplOf(d) !== rpl : rpl > cpl || dplOf(d) !== cpl) generalProtection(code);
  if (!present(d)) raise(Vector.segmentNotPresent, code);
  return d;
}

function checkOffset(vcpu: Vcpu, d: Descriptor, offset: bigint): void {
  const long = vcpu.longMode && (d.attributes & Attribute.long) !== 0;
  if (long ? BigInt.asUintN(64, BigInt.asIntN(48, offset)) !== offset : offset > BigInt(d.limit)) generalProtection();
}

/** Far JMP, and the code-segment half of far CALL. Sets RIP. */
export function farJump(vcpu: Vcpu, selector: number, offset: bigint): void {
  if (!vcpu.protectedMode || vcpu.virtual8086) {
    if (offset > 0xffffn) generalProtection();
    setSegment(vcpu, CS, selector, realSegment(selector, vcpu.get32(state.CS + state.SEGMENT_ATTRIBUTES)));
  } else {
    const { cpl } = vcpu;
    const d = codeDescriptor(vcpu, selector, cpl, false);
    checkOffset(vcpu, d, offset);
    markAccessed(vcpu, d);
    setSegment(vcpu, CS, (selector & ~3) | cpl, d);
  }
  vcpu.rip = offset;
}

const stackMask = (vcpu: Vcpu): bigint =>
  vcpu.code64 ? 0xffff_ffff_ffff_ffffn : vcpu.get32(state.SS + state.SEGMENT_ATTRIBUTES) & Attribute.big ? 0xffff_ffffn : 0xffffn;
const stackBase = (vcpu: Vcpu): bigint => (vcpu.code64 ? 0n : vcpu.get64(state.SS));
const userAccess = (vcpu: Vcpu): number => (vcpu.cpl === 3 ? Access.user : 0);

/** Moves RSP within the stack's width. */
function setSp(vcpu: Vcpu, sp: bigint): void {
  const mask = stackMask(vcpu);
  const old = vcpu.get64(state.RSP);
  vcpu.set64(state.RSP, mask === 0xffffn ? (old & ~0xffffn) | (sp & 0xffffn) : sp & mask);
}

/** Reads `count` words of `bytes` from the stack, RSP unmoved. */
function stackWords(vcpu: Vcpu, bytes: number, from: number, count: number): bigint[] {
  const mask = stackMask(vcpu);
  const sp = vcpu.get64(state.RSP);
  return Array.from({ length: count }, (_, i) => vcpu.read(stackBase(vcpu) + ((sp + BigInt((from + i) * bytes)) & mask), bytes, userAccess(vcpu)));
}

export function farCall(vcpu: Vcpu, selector: number, offset: bigint, bits: number, nextIp: bigint): void {
  const bytes = bits / 8;
  const mask = stackMask(vcpu);
  const sp = vcpu.get64(state.RSP);
  const oldCs = BigInt(vcpu.get32(state.CS + state.SEGMENT_SELECTOR));
  if (vcpu.protectedMode && !vcpu.virtual8086) checkOffset(vcpu, codeDescriptor(vcpu, selector, vcpu.cpl, false), offset);
  const base = stackBase(vcpu);
  vcpu.write(base + ((sp - BigInt(bytes)) & mask), bytes, oldCs, userAccess(vcpu));
  vcpu.write(base + ((sp - BigInt(2 * bytes)) & mask), bytes, nextIp, userAccess(vcpu));
  farJump(vcpu, selector, offset);
  setSp(vcpu, sp - BigInt(2 * bytes));
}

/** Makes data segments unusable that the outer privilege level may not have. */
function dropPrivilegedSegments(vcpu: Vcpu): void {
  for (const segment of [0, 3, 4, 5]) {
    const offset = offsetOf(segment);
    const attributes = vcpu.get32(offset + state.SEGMENT_ATTRIBUTES);
    const conforming = (attributes & (Attribute.code | Attribute.conforming)) === (Attribute.code | Attribute.conforming);
    if (((attributes >> 13) & 3) < vcpu.cpl && !conforming) {
      vcpu.set32(offset + state.SEGMENT_SELECTOR, 0);
      vcpu.set32(offset + state.SEGMENT_ATTRIBUTES, 0);
      if (!vcpu.longMode || segment < 4) vcpu.set32(offset + state.SEGMENT_LIMIT, 0);
    }
  }
  updateSegments(vcpu);
}

/** The stack segment that a return to an outer level loads. */
function outerStack(vcpu: Vcpu, selector: number, cpl: number, toCode64: boolean): { base: bigint; limit: number; attributes: number } {
  const code = selector & 0xfffc;
  if (code === 0) {
    if (!toCode64 || cpl === 3) generalProtection();
    return { base: 0n, limit: FLAT_LIMIT, attributes: cpl << 13 };
  }
  const d = descriptor(vcpu, selector) ?? generalProtection(code);
  if ((selector & 3) !== cpl || isSystem(d) || isCode(d) || !(d.attributes & Attribute.writable) || dplOf(d) !== cpl) generalProtection(code);
  if (!present(d)) raise(Vector.stackFault, code);
  markAccessed(vcpu, d);
  return d;
}

/** Returns to CS:RIP popped from the stack, with SS:RSP too where the level changes (or always, from IRET in 64-bit mode). */
function returnTo(vcpu: Vcpu, bytes: number, words: bigint[], spIndex: number, release: bigint, interruptReturn: boolean): void {
  const [rip, csWord] = words;
  const selector = Number(csWord & 0xffffn);
  const rpl = selector & 3;
  const { cpl } = vcpu;
  if (rpl < cpl) generalProtection(selector & 0xfffc);
  const d = codeDescriptor(vcpu, selector, cpl, true);
  checkOffset(vcpu, d, rip);
  const wide = interruptReturn && vcpu.code64;
  const sp = vcpu.get64(state.RSP);
  if (rpl > cpl || wide) {
    const [newSp, ssWord] = stackWords(vcpu, bytes, spIndex, 2);
    const ss = Number(ssWord & 0xffffn);
    const stack = outerStack(vcpu, ss, rpl, (d.attributes & Attribute.long) !== 0 && vcpu.longMode);
    markAccessed(vcpu, d);
    setSegment(vcpu, CS, selector, d);
    setCpl(vcpu, rpl);
    setSegment(vcpu, SS, ss, stack);
    vcpu.rip = rip;
    setSp(vcpu, newSp + release);
    if (rpl > cpl) dropPrivilegedSegments(vcpu);
    return;
  }
  const popped = BigInt(spIndex * bytes) + release;
  markAccessed(vcpu, d);
  setSp(vcpu, sp + popped);
  setSegment(vcpu, CS, selector, d);
  vcpu.rip = rip;
}

/** RET far, with `release` bytes of arguments. */
export function farReturn(vcpu: Vcpu, bits: number, release: number): void {
  const bytes = bits / 8;
  const words = stackWords(vcpu, bytes, 0, 2);
  if (!vcpu.protectedMode || vcpu.virtual8086) {
    const sp = vcpu.get64(state.RSP);
    farJump(vcpu, Number(words[1] & 0xffffn), words[0]);
    return setSp(vcpu, sp + BigInt(2 * bytes + release));
  }
  // Past the arguments lie the outer SP and SS.
  const sp = vcpu.get64(state.RSP);
  const outer = (Number(words[1]) & 3) > vcpu.cpl;
  if (outer && release) {
    vcpu.set64(state.RSP, sp + BigInt(release));
    try {
      return returnTo(vcpu, bytes, words, 2, BigInt(release), false);
    } catch (fault) {
      vcpu.set64(state.RSP, sp);
      throw fault;
    }
  }
  returnTo(vcpu, bytes, words, 2, BigInt(release), false);
}

/** What IRET and POPF may change of RFLAGS at a privilege level. */
export function writableFlags(vcpu: Vcpu, cpl: number, bits: number): bigint {
  const iopl = Number((vcpu.get64(state.RFLAGS) & Flag.ioPrivilege) >> 12n);
  let mask = 0x8d5n | Flag.trap | Flag.direction | Flag.nested;
  if (bits > 16) mask |= Flag.resume | Flag.alignment | Flag.id;
  if (cpl <= iopl) mask |= Flag.interrupt;
  if (cpl === 0) mask |= Flag.ioPrivilege;
  return mask;
}

/** IRET. Real mode and protected mode; not to virtual-8086 mode, nor from a nested task. */
export function interruptReturn(vcpu: Vcpu, bits: number): void {
  const bytes = bits / 8;
  const { cpl } = vcpu;
  const mask = writableFlags(vcpu, cpl, bits);
  const words = stackWords(vcpu, bytes, 0, 3);
  if (!vcpu.protectedMode) {
    const sp = vcpu.get64(state.RSP);
    farJump(vcpu, Number(words[1] & 0xffffn), words[0]);
    setSp(vcpu, sp + BigInt(3 * bytes));
  } else {
    if (vcpu.get64(state.RFLAGS) & Flag.nested) generalProtection();
    returnTo(vcpu, bytes, words, 3, 0n, true);
  }
  const old = vcpu.rflags;
  vcpu.rflags = (old & ~mask) | (words[2] & mask);
}

/** VERR, VERW: whether the segment a selector names can be read, or written, at this privilege level. */
export function verify(vcpu: Vcpu, selector: number, write: boolean): boolean {
  if (!vcpu.protectedMode || vcpu.virtual8086) raise(Vector.undefinedOpcode);
  const d = (selector & 0xfffc) === 0 ? undefined : descriptor(vcpu, selector);
  if (!d || isSystem(d) || !present(d)) return false;
  const conforming = isCode(d) && (d.attributes & Attribute.conforming) !== 0;
  if (!conforming && (dplOf(d) < vcpu.cpl || dplOf(d) < (selector & 3))) return false;
  return write ? !isCode(d) && (d.attributes & Attribute.writable) !== 0 : !isCode(d) || (d.attributes & Attribute.readable) !== 0;
}

/** LAR, LSL: the descriptor, where its type is one the instruction tells about and the privilege level may see it. */
export function visibleDescriptor(vcpu: Vcpu, selector: number, instruction: 'lar' | 'lsl'): Descriptor | undefined {
  if (!vcpu.protectedMode || vcpu.virtual8086) raise(Vector.undefinedOpcode);
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
