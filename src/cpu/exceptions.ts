/**
 * Delivery of interrupts and exceptions through the IDT (or the real-mode vector table), and what becomes of faults on
 * the way: double fault, shutdown. SDM 3A chapter 6, APM 2 chapter 8. Limits: task gates raise #GP.
 */

import { Access } from './mmu.ts';
import { Attribute, CS, descriptor, dplOf, setCpl, setSegment, SS } from './segments.ts';
import * as state from './state.ts';
import { Activity, FAULT, Flag, generalProtection, raise, type Vcpu, Vector } from './vcpu.ts';

/** Where an event comes from: outside, an exception of an instruction, or INT n and its like (whose gates check privilege). */
export type EventKind = 'external' | 'fault' | 'trap' | 'software';

const EXTERNAL = 1;
const IDT_TABLE = 2;
const STACK_IN_TSS64 = 4n;
const IST_IN_TSS64 = 0x24n;
/** SS, RSP, RFLAGS, CS and RIP. */
const FRAME_BYTES64 = 40n;

const canonical = (address: bigint): boolean => BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;

const isContributory = (vector: number): boolean => vector === 0 || (vector >= 10 && vector <= 13);

/**
 * Delivers an event at RIP (for traps and software interrupts: that of the next instruction). A fault during delivery is delivered in
 * its place, as a double fault where the manual says so; a fault in that shuts the vCPU down (SDM 3A table 6-5). What a fault in the
 * delivery of INT n returns to is that instruction, at `restart`.
 */
export function deliver(vcpu: Vcpu, vector: number, code: number, kind: EventKind, restart = vcpu.rip): void {
  let [v, c, k] = [vector, code, kind];
  for (;;) {
    try {
      return enterHandler(vcpu, v, c, k);
    } catch (error) {
      if (error !== FAULT) throw error;
      const next = FAULT.vector;
      vcpu.rip = restart;
      if (v === Vector.doubleFault && k === 'fault') {
        vcpu.activity = Activity.shutdown;
        return;
      }
      const first = k === 'external' || k === 'software' ? -1 : v;
      if ((isContributory(first) && isContributory(next)) || (first === Vector.pageFault && (isContributory(next) || next === Vector.pageFault))) [v, c] = [Vector.doubleFault, 0];
      else [v, c] = [next, FAULT.code];
      k = 'fault';
    }
  }
}

function enterHandler(vcpu: Vcpu, vector: number, code: number, kind: EventKind): void {
  if (!vcpu.protectedMode) return enterRealMode(vcpu, vector);
  if (vcpu.longMode) enterLongMode(vcpu, vector, code, kind);
  else enterProtectedMode(vcpu, vector, code, kind);
}

function enterRealMode(vcpu: Vcpu, vector: number): void {
  const entry = vcpu.get64(state.IDTR_BASE) + BigInt(vector * 4);
  if (vector * 4 + 3 > vcpu.get32(state.IDTR_LIMIT)) generalProtection();
  const pointer = Number(vcpu.read(entry, 4, Access.implicit));
  const base = vcpu.get64(state.SS);
  const sp = vcpu.get64(state.RSP);
  const words = [vcpu.rflags, BigInt(vcpu.get32(state.CS + state.SEGMENT_SELECTOR)), vcpu.rip];
  words.forEach((word, i) => vcpu.write(base + ((sp - BigInt(2 * i + 2)) & 0xffffn), 2, word & 0xffffn, 0));
  vcpu.set64(state.RSP, (sp & ~0xffffn) | ((sp - 6n) & 0xffffn));
  vcpu.rflags = vcpu.rflags & ~(Flag.interrupt | Flag.trap | Flag.alignment | Flag.resume);
  const selector = pointer >>> 16;
  setSegment(vcpu, CS, selector, { base: BigInt(selector) << 4n, limit: 0xffff, attributes: vcpu.get32(state.CS + state.SEGMENT_ATTRIBUTES) });
  vcpu.rip = BigInt(pointer & 0xffff);
}

/** What a gate says: where to, and what it does to the interrupt flag. */
interface Gate {
  selector: number;
  offset: bigint;
  interruptGate: boolean;
  ist: number;
  wide: boolean;
}

function readGate(vcpu: Vcpu, vector: number, kind: EventKind, bytes: 8 | 16): Gate {
  const error = vector * 8 + IDT_TABLE + (kind === 'external' ? EXTERNAL : 0);
  if (vector * bytes + bytes - 1 > vcpu.get32(state.IDTR_LIMIT)) generalProtection(error);
  const address = vcpu.get64(state.IDTR_BASE) + BigInt(vector * bytes);
  const low = vcpu.read(address, 8, Access.implicit);
  const attributes = Number((low >> 32n) & 0xffffn);
  const type = (attributes >> 8) & 31;
  const valid = bytes === 16 ? type === 14 || type === 15 : type === 14 || type === 15 || type === 6 || type === 7;
  if (!valid) generalProtection(error);
  if (kind === 'software' && ((attributes >> 13) & 3) < vcpu.cpl) generalProtection(vector * 8 + IDT_TABLE);
  if (!(attributes & 0x8000)) raise(Vector.segmentNotPresent, error);
  let offset = (low & 0xffffn) | ((low >> 48n) << 16n);
  if (bytes === 16) offset |= (vcpu.read(address + 8n, 8, Access.implicit) & 0xffff_ffffn) << 32n;
  return { selector: Number((low >> 16n) & 0xffffn), offset: type < 8 ? offset & 0xffffn : offset, interruptGate: (type & 1) === 0, ist: attributes & 7, wide: (type & 8) !== 0 };
}

/** The handler's code segment and the privilege level it runs at. */
function handlerSegment(vcpu: Vcpu, gate: Gate, external: number): { d: NonNullable<ReturnType<typeof descriptor>>; cpl: number } {
  const code = (gate.selector & 0xfffc) | external;
  if ((gate.selector & 0xfffc) === 0) generalProtection(external);
  const d = descriptor(vcpu, gate.selector) ?? generalProtection(code);
  if ((d.attributes & (Attribute.s | Attribute.code)) !== (Attribute.s | Attribute.code) || dplOf(d) > vcpu.cpl) generalProtection(code);
  if (vcpu.longMode && (d.attributes & (Attribute.long | Attribute.big)) !== Attribute.long) generalProtection(code);
  if (!(d.attributes & Attribute.present)) raise(Vector.segmentNotPresent, code);
  return { d, cpl: d.attributes & Attribute.conforming ? vcpu.cpl : dplOf(d) };
}

function clearedFlags(gate: Gate): bigint {
  return Flag.trap | Flag.nested | Flag.resume | Flag.virtual8086 | (gate.interruptGate ? Flag.interrupt : 0n);
}

/** RFLAGS as pushed: faults set RF, so that an instruction breakpoint does not hit twice. */
const pushedFlags = (vcpu: Vcpu, vector: number, kind: EventKind): bigint => (kind === 'fault' && vector !== Vector.debug ? vcpu.rflags | Flag.resume : vcpu.rflags);

function enterLongMode(vcpu: Vcpu, vector: number, code: number, kind: EventKind): void {
  const external = kind === 'external' ? EXTERNAL : 0;
  const gate = readGate(vcpu, vector, kind, 16);
  const { d, cpl } = handlerSegment(vcpu, gate, external);
  const oldCpl = vcpu.cpl;
  const tss = vcpu.get64(state.TR + state.SEGMENT_BASE);
  const tssLimit = vcpu.get32(state.TR + state.SEGMENT_LIMIT);
  const stackFromTss = (offset: bigint): bigint => {
    if (Number(offset) + 7 > tssLimit) raise(Vector.invalidTss, (vcpu.get32(state.TR + state.SEGMENT_SELECTOR) & 0xfffc) | external);
    return vcpu.read(tss + offset, 8, Access.implicit);
  };
  const oldRsp = vcpu.get64(state.RSP);
  let rsp = oldRsp;
  if (gate.ist) rsp = stackFromTss(IST_IN_TSS64 + BigInt((gate.ist - 1) * 8));
  else if (cpl < oldCpl) rsp = stackFromTss(STACK_IN_TSS64 + BigInt(cpl * 8));
  rsp &= ~15n;
  if (!canonical(rsp) || !canonical(BigInt.asUintN(64, rsp - FRAME_BYTES64))) raise(Vector.stackFault, external);
  if (!canonical(gate.offset)) generalProtection(external);
  const words = [BigInt(vcpu.get32(state.SS + state.SEGMENT_SELECTOR)), oldRsp, pushedFlags(vcpu, vector, kind), BigInt(vcpu.get32(state.CS + state.SEGMENT_SELECTOR)), vcpu.rip];
  if (code >= 0) words.push(BigInt(code));
  // The frame is one run of supervisor writes (user writes where the level stays 3), checked as it goes; nothing else changes before it is done.
  const access = cpl === 3 ? Access.user : Access.implicit;
  for (const word of words) {
    rsp = BigInt.asUintN(64, rsp - 8n);
    vcpu.write(rsp, 8, word, access);
  }
  vcpu.set64(state.RSP, rsp);
  vcpu.set32(state.CPL, cpl);
  vcpu.rflags = vcpu.rflags & ~clearedFlags(gate);
  setSegment(vcpu, CS, (gate.selector & 0xfffc) | cpl, d);
  if (cpl < oldCpl) setSegment(vcpu, SS, cpl, { base: 0n, limit: 0xffff_ffff, attributes: cpl << 13 });
  vcpu.rip = gate.offset;
}

function enterProtectedMode(vcpu: Vcpu, vector: number, code: number, kind: EventKind): void {
  const external = kind === 'external' ? EXTERNAL : 0;
  const gate = readGate(vcpu, vector, kind, 8);
  const { d, cpl } = handlerSegment(vcpu, gate, external);
  const bytes = gate.wide ? 4 : 2;
  const words = [pushedFlags(vcpu, vector, kind), BigInt(vcpu.get32(state.CS + state.SEGMENT_SELECTOR)), vcpu.rip];
  if (code >= 0) words.push(BigInt(code));
  let sp = vcpu.get64(state.RSP);
  let stack: { base: bigint; limit: number; attributes: number } | undefined;
  let ss = vcpu.get32(state.SS + state.SEGMENT_SELECTOR);
  if (cpl < vcpu.cpl) {
    const tss = vcpu.get64(state.TR + state.SEGMENT_BASE);
    const wide = (vcpu.get32(state.TR + state.SEGMENT_ATTRIBUTES) & (8 << 8)) !== 0;
    words.unshift(BigInt(ss), sp);
    sp = vcpu.read(tss + BigInt(wide ? 4 + 8 * cpl : 2 + 4 * cpl), wide ? 4 : 2, Access.implicit);
    ss = Number(vcpu.read(tss + BigInt(wide ? 8 + 8 * cpl : 4 + 4 * cpl), 2, Access.implicit));
    stack = descriptor(vcpu, ss) ?? raise(Vector.invalidTss, (ss & 0xfffc) | external);
    if ((ss & 3) !== cpl || dplOf(stack) !== cpl || !(stack.attributes & Attribute.writable)) raise(Vector.invalidTss, (ss & 0xfffc) | external);
    if (!(stack.attributes & Attribute.present)) raise(Vector.stackFault, (ss & 0xfffc) | external);
  }
  const attributes = stack ? stack.attributes : vcpu.get32(state.SS + state.SEGMENT_ATTRIBUTES);
  const base = stack ? stack.base : vcpu.get64(state.SS);
  const mask = attributes & Attribute.big ? 0xffff_ffffn : 0xffffn;
  for (const word of words) {
    sp = (sp - BigInt(bytes)) & 0xffff_ffffn;
    vcpu.write(base + (sp & mask), bytes, word & (bytes === 4 ? 0xffff_ffffn : 0xffffn), cpl === 3 ? Access.user : Access.implicit);
  }
  vcpu.set64(state.RSP, mask === 0xffffn ? (vcpu.get64(state.RSP) & ~0xffffn) | (sp & mask) : sp);
  setCpl(vcpu, cpl);
  if (stack) setSegment(vcpu, SS, ss, stack);
  vcpu.rflags = vcpu.rflags & ~clearedFlags(gate);
  setSegment(vcpu, CS, (gate.selector & 0xfffc) | cpl, d);
  vcpu.rip = gate.offset;
}
