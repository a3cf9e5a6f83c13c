/**
 * Delivery of interrupts and exceptions through the IDT (or the real-mode vector table), and what becomes of faults on
 * the way: double fault, shutdown. SDM 3A chapter 6, APM 2 chapter 8.
 */

import { Access } from './mmu.ts';
import {
  Attribute, CS, type Descriptor, descriptor, dplOf, isCode, isConforming, markAccessed, present, selectorAt, setCpl, setSegment, SS, Stack, segmentAt,
} from './segments.ts';
import * as state from './state.ts';
import { innerStack, innerStack64, nullStack, switchTask, taskDescriptor } from './task-switch.ts';
import { Activity, FAULT, Flag, generalProtection, raise, type Vcpu, Vector } from './vcpu.ts';
import { redirectInterrupt } from './virtual-8086.ts';

/**
 * Where an event comes from: outside, an exception of an instruction, INT n, or INT3 and INTO. The gates of the latter two check
 * privilege; a virtual-8086 task is asked about INT n alone.
 */
export type EventKind = 'external' | 'fault' | 'trap' | 'software' | 'software-exception';
const isSoftware = (kind: EventKind): boolean => kind === 'software' || kind === 'software-exception';

const DR7_GENERAL_DETECT = 1n << 13n;
const EXTERNAL = 1;
const IDT_TABLE = 2;
/** SS, RSP, RFLAGS, CS and RIP. */
const FRAME_BYTES64 = 40n;

const isContributory = (vector: number): boolean => vector === 0 || (vector >= 10 && vector <= 13);

/**
 * Delivers an event at RIP (for traps and software interrupts: that of the next instruction). A fault during delivery is delivered in
 * its place, as a double fault where the manual says so; a fault in that shuts the vCPU down (SDM 3A table 6-5). What a fault in the
 * delivery of INT n returns to is that instruction, at `restart`.
 */
export function deliver(vcpu: Vcpu, vector: number, code: number, kind: EventKind, restart = vcpu.rip): void {
  if ((kind === 'external' || kind === 'fault') && vector !== Vector.debug && vcpu.mmu.enterHandler(vcpu.base, vector, code, kind === 'fault')) return;
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
      const first = k === 'external' || isSoftware(k) ? -1 : v;
      if ((isContributory(first) && isContributory(next)) || (first === Vector.pageFault && (isContributory(next) || next === Vector.pageFault))) [v, c] = [Vector.doubleFault, 0];
      else [v, c] = [next, FAULT.code];
      k = 'fault';
    }
  }
}

function enterHandler(vcpu: Vcpu, vector: number, code: number, kind: EventKind): void {
  const dr7 = vcpu.get64(state.DR + 56);
  if (vector === Vector.debug && dr7 & DR7_GENERAL_DETECT && !isSoftware(kind)) vcpu.set64(state.DR + 56, dr7 & ~DR7_GENERAL_DETECT);
  if (!vcpu.protectedMode) return enterRealMode(vcpu, vector);
  if (vcpu.longMode) enterLongMode(vcpu, vector, code, kind);
  else enterProtectedMode(vcpu, vector, code, kind);
}

function enterRealMode(vcpu: Vcpu, vector: number): void {
  const entry = vcpu.get64(state.IDTR_BASE) + BigInt(vector * 4);
  if (vector * 4 + 3 > vcpu.get32(state.IDTR_LIMIT)) generalProtection();
  const pointer = Number(vcpu.read(entry, 4, Access.implicit));
  const stack = new Stack(vcpu, segmentAt(vcpu, SS), vcpu.get64(state.RSP), 0);
  for (const word of [vcpu.rflags, BigInt(selectorAt(vcpu, CS)), vcpu.rip]) stack.push(word, 2);
  vcpu.set64(state.RSP, stack.pointer);
  vcpu.rflags = vcpu.rflags & ~(Flag.interrupt | Flag.trap | Flag.alignment | Flag.resume);
  const selector = pointer >>> 16;
  const { limit, attributes } = segmentAt(vcpu, CS);
  setSegment(vcpu, CS, selector, { base: BigInt(selector) << 4n, limit, attributes });
  vcpu.rip = BigInt(pointer & 0xffff);
}

/** What a gate says: where to, and what it does to the interrupt flag. */
interface Gate {
  selector: number;
  offset: bigint;
  interruptGate: boolean;
  ist: number;
  wide: boolean;
  isTask: boolean;
}

/** What an error code's EXT bit says: that the event did not come from INT n and its like. */
const externalBit = (kind: EventKind): number => (isSoftware(kind) ? 0 : EXTERNAL);

function readGate(vcpu: Vcpu, vector: number, kind: EventKind, bytes: 8 | 16): Gate {
  const error = vector * 8 + IDT_TABLE + externalBit(kind);
  if (vector * bytes + bytes - 1 > vcpu.get32(state.IDTR_LIMIT)) generalProtection(error);
  const address = vcpu.get64(state.IDTR_BASE) + BigInt(vector * bytes);
  const low = vcpu.read(address, 8, Access.implicit);
  const attributes = Number((low >> 32n) & 0xffffn);
  const type = (attributes >> 8) & 31;
  const valid = bytes === 16 ? type === 14 || type === 15 : type === 14 || type === 15 || type === 5 || type === 6 || type === 7;
  if (!valid) generalProtection(error);
  if (isSoftware(kind) && ((attributes >> 13) & 3) < vcpu.cpl) generalProtection(vector * 8 + IDT_TABLE);
  if (!(attributes & 0x8000)) raise(Vector.segmentNotPresent, error);
  let offset = (low & 0xffffn) | ((low >> 48n) << 16n);
  if (bytes === 16) offset |= (vcpu.read(address + 8n, 8, Access.implicit) & 0xffff_ffffn) << 32n;
  return { selector: Number((low >> 16n) & 0xffffn), offset: type < 8 ? offset & 0xffffn : offset, interruptGate: (type & 1) === 0, ist: attributes & 7, wide: (type & 8) !== 0, isTask: type === 5 };
}

/** The handler's code segment and the privilege level it runs at. */
function handlerSegment(vcpu: Vcpu, gate: Gate, external: number): { d: Descriptor; cpl: number } {
  const code = (gate.selector & 0xfffc) | external;
  if ((gate.selector & 0xfffc) === 0) generalProtection(external);
  const d = descriptor(vcpu, gate.selector) ?? generalProtection(code);
  if (!isCode(d) || dplOf(d) > vcpu.cpl) generalProtection(code);
  if (vcpu.longMode && (d.attributes & (Attribute.long | Attribute.big)) !== Attribute.long) generalProtection(code);
  if (!present(d)) raise(Vector.segmentNotPresent, code);
  const cpl = isConforming(d) ? vcpu.cpl : dplOf(d);
  // A virtual-8086 task is interrupted to level 0 alone.
  if (vcpu.virtual8086 && cpl !== 0) generalProtection(code);
  return { d, cpl };
}

function clearedFlags(gate: Gate): bigint {
  return Flag.trap | Flag.nested | Flag.resume | Flag.virtual8086 | (gate.interruptGate ? Flag.interrupt : 0n);
}

/** RFLAGS as pushed: faults set RF, so that an instruction breakpoint does not hit twice. */
const pushedFlags = (vcpu: Vcpu, vector: number, kind: EventKind): bigint => (kind === 'fault' && vector !== Vector.debug ? vcpu.rflags | Flag.resume : vcpu.rflags);

function enterLongMode(vcpu: Vcpu, vector: number, code: number, kind: EventKind): void {
  const external = externalBit(kind);
  const gate = readGate(vcpu, vector, kind, 16);
  const { d, cpl } = handlerSegment(vcpu, gate, external);
  const oldCpl = vcpu.cpl;
  const oldRsp = vcpu.get64(state.RSP);
  let rsp = gate.ist || cpl < oldCpl ? innerStack64(vcpu, cpl, gate.ist, external) : oldRsp;
  rsp &= ~15n;
  if (!vcpu.isCanonical(rsp) || !vcpu.isCanonical(BigInt.asUintN(64, rsp - FRAME_BYTES64))) raise(Vector.stackFault, external);
  if (!vcpu.isCanonical(gate.offset)) generalProtection(external);
  const words = [BigInt(selectorAt(vcpu, SS)), oldRsp, pushedFlags(vcpu, vector, kind), BigInt(selectorAt(vcpu, CS)), vcpu.rip];
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
  if (cpl < oldCpl) setSegment(vcpu, SS, cpl, nullStack(cpl));
  vcpu.rip = gate.offset;
}

function enterProtectedMode(vcpu: Vcpu, vector: number, code: number, kind: EventKind): void {
  const external = externalBit(kind);
  if (kind === 'software' && vcpu.virtual8086 && redirectInterrupt(vcpu, vector)) return;
  const gate = readGate(vcpu, vector, kind, 8);
  if (gate.isTask) {
    const task = taskDescriptor(vcpu, gate.selector, 'interrupt', external);
    return switchTask(vcpu, gate.selector, task, 'interrupt', code, external);
  }
  const { d, cpl } = handlerSegment(vcpu, gate, external);
  const bytes = gate.wide ? 4 : 2;
  const wasVirtual = vcpu.virtual8086;
  const inner = cpl < vcpu.cpl ? innerStack(vcpu, cpl, external) : undefined;
  const stack = inner
    ? new Stack(vcpu, inner.segment, inner.sp, Access.implicit, (inner.selector & 0xfffc) | external)
    : new Stack(vcpu, segmentAt(vcpu, SS), vcpu.get64(state.RSP), cpl === 3 ? Access.user : Access.implicit, external);
  const push = (word: bigint): void => stack.push(word, bytes);
  if (wasVirtual) for (const segment of [5, 4, 3, 0]) push(BigInt(selectorAt(vcpu, segment)));
  if (inner) {
    push(BigInt(selectorAt(vcpu, SS)));
    push(vcpu.get64(state.RSP));
  }
  push(pushedFlags(vcpu, vector, kind));
  push(BigInt(selectorAt(vcpu, CS)));
  push(vcpu.rip);
  if (code >= 0) push(BigInt(code));
  if (gate.offset > BigInt(d.limit)) generalProtection(external);
  markAccessed(vcpu, d);
  vcpu.set64(state.RSP, stack.pointer);
  vcpu.rflags = vcpu.rflags & ~clearedFlags(gate);
  setCpl(vcpu, cpl);
  if (inner) {
    markAccessed(vcpu, inner.segment);
    setSegment(vcpu, SS, inner.selector, inner.segment);
  }
  if (wasVirtual) for (const segment of [0, 3, 4, 5]) setSegment(vcpu, segment, 0, { base: 0n, limit: 0, attributes: 0 });
  setSegment(vcpu, CS, (gate.selector & 0xfffc) | cpl, d);
  vcpu.rip = gate.offset;
}
