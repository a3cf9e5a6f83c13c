/**
 * Far JMP, CALL and RET, call gates, IRET. SDM 3A chapter 5 and SDM 2, instruction reference; APM 2 4.7. Everything that may fault
 * comes before the first register changes.
 */

import {
  Attribute, CS, type Descriptor, descriptor, dplOf, FLAT_LIMIT, isCode, isConforming, isSystem, isWritableData, markAccessed, offsetOf, present,
  type Segment, segmentAt, selectorAt, setCpl, setSegment, SS, Stack, typeOf, updateSegments,
} from './segments.ts';
import { Access } from './mmu.ts';
import * as state from './state.ts';
import { innerStack, innerStack64, nullStack, returnToTask, switchTask, taskDescriptor } from './task-switch.ts';
import { Flag, generalProtection, raise, type Vcpu, Vector } from './vcpu.ts';
import { ioPrivilege, setVirtualFlags, usefulFlags, virtual8086Segment } from './virtual-8086.ts';

const CALL_GATE_16 = 4;
const TASK_GATE = 5;
const CALL_GATE = 12;
const TSS_TYPES = [1, 3, 9, 11];

/** Checks a code segment as the target of a far jump, call or return, at CPL `cpl`. */
function codeDescriptor(vcpu: Vcpu, selector: number, d: Descriptor, cpl: number, isReturn: boolean): void {
  const error = selector & 0xfffc;
  if (!isCode(d) || (vcpu.longMode && (d.attributes & (Attribute.long | Attribute.big)) === (Attribute.long | Attribute.big))) generalProtection(error);
  const rpl = selector & 3;
  if (isConforming(d)) {
    if (dplOf(d) > (isReturn ? rpl : cpl)) generalProtection(error);
  } else if (isReturn ? dplOf(d) !== rpl : rpl > cpl || dplOf(d) !== cpl) generalProtection(error);
  if (!present(d)) raise(Vector.segmentNotPresent, error);
}

function checkOffset(vcpu: Vcpu, d: Segment, offset: bigint): void {
  const long = vcpu.longMode && (d.attributes & Attribute.long) !== 0;
  if (long ? !vcpu.isCanonical(offset) : offset > BigInt(d.limit)) generalProtection();
}

/** CS as real mode loads it: base and selector change; limit and attributes stay, as "unreal" mode left them. */
function realCodeSegment(vcpu: Vcpu, selector: number): Segment {
  if (vcpu.virtual8086) return virtual8086Segment(selector);
  const { limit, attributes } = segmentAt(vcpu, CS);
  return { base: BigInt(selector) << 4n, limit, attributes };
}

const isReal = (vcpu: Vcpu): boolean => !vcpu.protectedMode || vcpu.virtual8086;

function enterCode(vcpu: Vcpu, selector: number, d: Descriptor, cpl: number, offset: bigint): void {
  markAccessed(vcpu, d);
  setSegment(vcpu, CS, (selector & ~3) | cpl, d);
  vcpu.rip = offset;
}

/** Far JMP. RIP behind the instruction is `nextIp`: where a task that is left goes on. */
export function farJump(vcpu: Vcpu, selector: number, offset: bigint, nextIp: bigint): void {
  if (isReal(vcpu)) {
    const segment = realCodeSegment(vcpu, selector);
    if (offset > BigInt(segment.limit)) generalProtection();
    setSegment(vcpu, CS, selector, segment);
    vcpu.rip = offset;
    return;
  }
  const { cpl } = vcpu;
  const d = targetDescriptor(vcpu, selector);
  if (isSystem(d)) {
    const gate = throughGate(vcpu, selector, d, 'jump', nextIp);
    if (!gate) return;
    if (isConforming(gate.code) ? dplOf(gate.code) > cpl : dplOf(gate.code) !== cpl) generalProtection(gate.selector & 0xfffc);
    checkOffset(vcpu, gate.code, gate.offset);
    return enterCode(vcpu, gate.selector, gate.code, cpl, gate.offset);
  }
  codeDescriptor(vcpu, selector, d, cpl, false);
  checkOffset(vcpu, d, offset);
  enterCode(vcpu, selector, d, cpl, offset);
}

function targetDescriptor(vcpu: Vcpu, selector: number): Descriptor {
  if ((selector & 0xfffc) === 0) generalProtection();
  return descriptor(vcpu, selector) ?? generalProtection(selector & 0xfffc);
}

interface CallGate {
  selector: number;
  code: Descriptor;
  offset: bigint;
  /** Of what it pushes, and how many such words it copies from the caller's stack. */
  bytes: number;
  parameters: number;
}

/** A far jump or call to a system descriptor: switches tasks (undefined then), or says where a call gate leads. */
function throughGate(vcpu: Vcpu, selector: number, d: Descriptor, cause: 'jump' | 'call', nextIp: bigint): CallGate | undefined {
  const error = selector & 0xfffc;
  const type = typeOf(d);
  const { longMode, cpl } = vcpu;
  const valid = longMode ? [CALL_GATE] : [CALL_GATE_16, CALL_GATE, TASK_GATE, ...TSS_TYPES];
  if (!valid.includes(type) || dplOf(d) < cpl || dplOf(d) < (selector & 3)) generalProtection(error);
  if (type === TASK_GATE || TSS_TYPES.includes(type)) {
    if (type === TASK_GATE && !present(d)) raise(Vector.segmentNotPresent, error);
    const target = type === TASK_GATE ? Number((d.raw >> 16n) & 0xffffn) : selector;
    const task = taskDescriptor(vcpu, target, cause);
    vcpu.rip = nextIp;
    switchTask(vcpu, target, task, cause);
    return undefined;
  }
  if (!present(d)) raise(Vector.segmentNotPresent, error);
  let raw = d.raw;
  if (longMode) {
    // The descriptor above belongs to it; its type must be 0.
    const upper = descriptor(vcpu, selector, true) ?? generalProtection(error);
    raw = upper.raw;
    if ((raw >> 104n) & 0x1fn) generalProtection(error);
  }
  const code = targetDescriptor(vcpu, Number((raw >> 16n) & 0xffffn));
  const codeSelector = Number((raw >> 16n) & 0xffffn);
  if (!isCode(code) || dplOf(code) > cpl) generalProtection(codeSelector & 0xfffc);
  if (longMode && (code.attributes & (Attribute.long | Attribute.big)) !== Attribute.long) generalProtection(codeSelector & 0xfffc);
  if (!present(code)) raise(Vector.segmentNotPresent, codeSelector & 0xfffc);
  const low = (raw & 0xffffn) | (((raw >> 48n) & 0xffffn) << 16n);
  const offset = type === CALL_GATE_16 ? low & 0xffffn : longMode ? low | (((raw >> 64n) & 0xffff_ffffn) << 32n) : low;
  const bytes = longMode ? 8 : type === CALL_GATE ? 4 : 2;
  return { selector: codeSelector, code, offset, bytes, parameters: longMode ? 0 : Number((raw >> 32n) & 31n) };
}

/** Far CALL with the operand size `bits`. */
export function farCall(vcpu: Vcpu, selector: number, offset: bigint, bits: number, nextIp: bigint): void {
  const oldCs = BigInt(selectorAt(vcpu, CS));
  const returnAddress = (stack: Stack, bytes: number): void => {
    stack.push(oldCs, bytes);
    stack.push(nextIp, bytes);
  };
  if (isReal(vcpu)) {
    const stack = Stack.current(vcpu);
    returnAddress(stack, bits / 8);
    farJump(vcpu, selector, offset, nextIp);
    vcpu.set64(state.RSP, stack.pointer);
    return;
  }
  const { cpl } = vcpu;
  const d = targetDescriptor(vcpu, selector);
  if (!isSystem(d)) {
    codeDescriptor(vcpu, selector, d, cpl, false);
    const stack = Stack.current(vcpu);
    returnAddress(stack, bits / 8);
    checkOffset(vcpu, d, offset);
    enterCode(vcpu, selector, d, cpl, offset);
    vcpu.set64(state.RSP, stack.pointer);
    return;
  }
  const gate = throughGate(vcpu, selector, d, 'call', nextIp);
  if (!gate) return;
  const { code, bytes } = gate;
  const inner = !isConforming(code) && dplOf(code) < cpl;
  if (!inner) {
    const stack = gate.bytes === 8 ? new Stack(vcpu, undefined, vcpu.get64(state.RSP), cpl === 3 ? Access.user : 0) : Stack.current(vcpu);
    returnAddress(stack, bytes);
    checkOffset(vcpu, code, gate.offset);
    enterCode(vcpu, gate.selector, code, cpl, gate.offset);
    vcpu.set64(state.RSP, stack.pointer);
    return;
  }
  const newCpl = dplOf(code);
  const [oldSs, oldSp] = [BigInt(selectorAt(vcpu, SS)), vcpu.get64(state.RSP)];
  const found = bytes === 8 ? undefined : innerStack(vcpu, newCpl, 0);
  const stack = found
    ? new Stack(vcpu, found.segment, found.sp, Access.implicit, found.selector & 0xfffc)
    : new Stack(vcpu, undefined, innerStack64(vcpu, newCpl, 0, 0), Access.implicit);
  stack.push(oldSs, bytes);
  stack.push(oldSp, bytes);
  const caller = Stack.current(vcpu);
  const parameters = Array.from({ length: gate.parameters }, () => caller.pop(bytes));
  for (const parameter of parameters.reverse()) stack.push(parameter, bytes);
  returnAddress(stack, bytes);
  checkOffset(vcpu, code, gate.offset);
  markAccessed(vcpu, code);
  if (found) markAccessed(vcpu, found.segment);
  setCpl(vcpu, newCpl);
  enterCode(vcpu, gate.selector, code, newCpl, gate.offset);
  setSegment(vcpu, SS, found ? found.selector : newCpl, found ? found.segment : nullStack(newCpl));
  vcpu.set64(state.RSP, stack.pointer);
}

/** Makes data segments unusable that the outer privilege level may not have. */
function dropPrivilegedSegments(vcpu: Vcpu): void {
  for (const segment of [0, 3, 4, 5]) {
    const offset = offsetOf(segment);
    const hidden = segmentAt(vcpu, segment);
    if (dplOf(hidden) >= vcpu.cpl || isConforming(hidden)) continue;
    vcpu.set32(offset + state.SEGMENT_SELECTOR, 0);
    vcpu.set32(offset + state.SEGMENT_ATTRIBUTES, 0);
    if (!vcpu.longMode || segment < 4) vcpu.set32(offset + state.SEGMENT_LIMIT, 0);
  }
  if (!vcpu.code64) updateSegments(vcpu);
}

/** The stack segment that a return to an outer level loads. */
function outerStack(vcpu: Vcpu, selector: number, cpl: number, toCode64: boolean): Segment {
  const error = selector & 0xfffc;
  if (error === 0) {
    if (!toCode64 || cpl === 3) generalProtection();
    return { base: 0n, limit: FLAT_LIMIT, attributes: cpl << 13 };
  }
  const d = descriptor(vcpu, selector) ?? generalProtection(error);
  if ((selector & 3) !== cpl || !isWritableData(d) || dplOf(d) !== cpl) generalProtection(error);
  if (!present(d)) raise(Vector.stackFault, error);
  markAccessed(vcpu, d);
  return d;
}

/** Returns to CS:RIP, with SS:RSP popped too where the level changes (or always, by IRET from 64-bit mode). `release` bytes of arguments go. */
function returnTo(vcpu: Vcpu, stack: Stack, bytes: number, rip: bigint, selector: number, release: number, wide: boolean): void {
  const rpl = selector & 3;
  const { cpl } = vcpu;
  const error = selector & 0xfffc;
  if (error === 0) generalProtection();
  const d = descriptor(vcpu, selector) ?? generalProtection(error);
  if (rpl < cpl) generalProtection(error);
  codeDescriptor(vcpu, selector, d, cpl, true);
  stack.skip(release);
  if (rpl === cpl && !wide) {
    checkOffset(vcpu, d, rip);
    vcpu.set64(state.RSP, stack.pointer);
    markAccessed(vcpu, d);
    setSegment(vcpu, CS, selector, d);
    vcpu.rip = rip;
    return;
  }
  const sp = stack.pop(bytes);
  const ss = Number(stack.pop(bytes) & 0xffffn);
  const segment = outerStack(vcpu, ss, rpl, vcpu.longMode && (d.attributes & Attribute.long) !== 0);
  checkOffset(vcpu, d, rip);
  markAccessed(vcpu, d);
  setSegment(vcpu, CS, selector, d);
  if (rpl !== cpl) setCpl(vcpu, rpl);
  setSegment(vcpu, SS, ss, segment);
  vcpu.rip = rip;
  const outer = new Stack(vcpu, vcpu.code64 ? undefined : segment, bytes === 2 ? (vcpu.get64(state.RSP) & ~0xffffn) | sp : sp, 0);
  outer.skip(release);
  vcpu.set64(state.RSP, outer.pointer);
  if (rpl > cpl) dropPrivilegedSegments(vcpu);
}

/** RET far, with `release` bytes of arguments. */
export function farReturn(vcpu: Vcpu, bits: number, release: number): void {
  const bytes = bits / 8;
  const stack = Stack.current(vcpu);
  const rip = stack.pop(bytes);
  const selector = Number(stack.pop(bytes) & 0xffffn);
  if (!isReal(vcpu)) return returnTo(vcpu, stack, bytes, rip, selector, release, false);
  stack.skip(release);
  farJump(vcpu, selector, rip, rip);
  vcpu.set64(state.RSP, stack.pointer);
}

/** What IRET and POPF may change of RFLAGS at a privilege level. */
export function writableFlags(vcpu: Vcpu, cpl: number, bits: number): bigint {
  let mask = 0x8d5n | Flag.trap | Flag.direction | Flag.nested;
  if (bits > 16) mask |= Flag.resume | Flag.alignment | Flag.id;
  if (cpl <= ioPrivilege(vcpu.get64(state.RFLAGS))) mask |= Flag.interrupt;
  if (cpl === 0) mask |= Flag.ioPrivilege;
  return mask;
}

/** IRET. `nextIp` is where a nested task goes on that returns. */
export function interruptReturn(vcpu: Vcpu, bits: number, nextIp: bigint): void {
  const bytes = bits / 8;
  const { cpl, protectedMode } = vcpu;
  const flags = vcpu.get64(state.RFLAGS);
  vcpu.set32(state.NMI_BLOCKED, 0);
  if (protectedMode && vcpu.virtual8086) return returnInVirtual8086(vcpu, bytes);
  if (protectedMode && flags & Flag.nested) {
    if (vcpu.longMode) generalProtection();
    return returnToTask(vcpu, nextIp);
  }
  let mask = writableFlags(vcpu, cpl, bits);
  const stack = Stack.current(vcpu);
  const rip = stack.pop(bytes);
  const selector = Number(stack.pop(bytes) & 0xffffn);
  const popped = usefulFlags(vcpu, stack.pop(bytes));
  if (!protectedMode) {
    farJump(vcpu, selector, rip, rip);
    vcpu.set64(state.RSP, stack.pointer);
  } else {
    if (bits === 32 && cpl === 0 && !vcpu.longMode && popped & Flag.virtual8086) return returnToVirtual8086(vcpu, stack, rip, selector, popped);
    if (bits > 16 && cpl === 0) mask |= Flag.virtualInterrupt | Flag.virtualPending;
    returnTo(vcpu, stack, bytes, rip, selector, 0, vcpu.code64);
  }
  vcpu.rflags = (vcpu.rflags & ~mask) | (popped & mask);
}

function returnToVirtual8086(vcpu: Vcpu, stack: Stack, rip: bigint, selector: number, flags: bigint): void {
  const sp = stack.pop(4);
  const [ss, es, ds, fs, gs] = [0, 1, 2, 3, 4].map(() => Number(stack.pop(4) & 0xffffn));
  if (rip > 0xffffn) generalProtection();
  vcpu.rflags = usefulFlags(vcpu, flags);
  [es, selector, ss, ds, fs, gs].forEach((value, segment) => setSegment(vcpu, segment, value, virtual8086Segment(value)));
  setCpl(vcpu, 3);
  vcpu.set64(state.RSP, sp);
  vcpu.rip = rip;
}

function returnInVirtual8086(vcpu: Vcpu, bytes: number): void {
  const privileged = ioPrivilege(vcpu.get64(state.RFLAGS)) === 3;
  if (!privileged && (bytes !== 2 || !vcpu.virtualModeExtensions)) generalProtection();
  const stack = Stack.current(vcpu);
  const rip = stack.pop(bytes);
  const selector = Number(stack.pop(bytes) & 0xffffn);
  const popped = usefulFlags(vcpu, stack.pop(bytes));
  if (rip > 0xffffn) generalProtection();
  if (privileged) {
    const mask = writableFlags(vcpu, 3, bytes * 8);
    vcpu.rflags = (vcpu.rflags & ~mask) | (popped & mask);
  } else setVirtualFlags(vcpu, popped, bytes * 8);
  setSegment(vcpu, CS, selector, virtual8086Segment(selector));
  vcpu.rip = rip;
  vcpu.set64(state.RSP, stack.pointer);
}
