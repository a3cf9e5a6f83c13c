/**
 * Hardware task switching: JMP, CALL, IRET and interrupts through a TSS descriptor or a task gate. SDM 3A chapter 8, APM 2 chapter 12.
 * What fails once the new task's registers are loaded fails in the new task, at its first instruction.
 */

import { writeCr3 } from './control-registers.ts';
import { Access } from './mmu.ts';
import {
  Attribute, CS, type Descriptor, descriptor, dplOf, FLAT_LIMIT, isCode, isConforming, isSystem, isWritableData, LDTR, markAccessed, present,
  selectorAt, setCpl, setSegment, SS, Stack, segmentAt, TR, typeOf,
} from './segments.ts';
import * as state from './state.ts';
import { Cr0, Flag, generalProtection, raise, type Vcpu, Vector } from './vcpu.ts';
import { usefulFlags, virtual8086Segment } from './virtual-8086.ts';

export type TaskSwitchCause = 'jump' | 'call' | 'return' | 'interrupt';

const BUSY = 2 << 8;
/** Types of TSS descriptors without the busy bit. */
const TSS16 = 1;
const TSS32 = 9;
/** Where a TSS has what: offsets of EIP, EFLAGS, EAX (seven more behind it) and ES (CS, SS, DS, FS, GS behind it), and the word's bytes. */
const LAYOUT32 = { bytes: 4, limit: 0x67, cr3: 0x1c, ip: 0x20, flags: 0x24, registers: 0x28, selectors: 0x48, segments: 6, ldt: 0x60, trap: 0x64 } as const;
const LAYOUT16 = { bytes: 2, limit: 0x2b, cr3: -1, ip: 0x0e, flags: 0x10, registers: 0x12, selectors: 0x22, segments: 4, ldt: 0x2a, trap: -1 } as const;
/** Local breakpoint enables in DR7: each task has its own. */
const DR7_LOCAL = 0x155n;
const DR6_TASK = 1n << 15n;

/** The descriptor a task gate or far pointer names, where it is that of an available TSS (for `return`: of a busy one). */
export function taskDescriptor(vcpu: Vcpu, selector: number, cause: TaskSwitchCause, external = 0): Descriptor {
  const error = (selector & 0xfffc) | external;
  const bad = (): never => raise(cause === 'return' ? Vector.invalidTss : Vector.generalProtection, error);
  if (selector & 4 || (selector & 0xfffc) === 0) bad();
  const d = descriptor(vcpu, selector) ?? bad();
  const type = typeOf(d);
  const wanted = cause === 'return' ? [TSS16 | 2, TSS32 | 2] : [TSS16, TSS32];
  if (!isSystem(d) || !wanted.includes(type)) bad();
  if (!present(d)) raise(Vector.segmentNotPresent, error);
  return d;
}

const setBusy = (vcpu: Vcpu, d: Descriptor, busy: boolean): void => {
  const type = (d.attributes >> 8) & 0xff;
  vcpu.write(d.address + 5n, 1, BigInt(busy ? type | 2 : type & ~2), Access.implicit);
};

/** Switches to the task of a TSS. RIP is where the old one will go on; `errorCode` is pushed on the new task's stack, -1 for none. */
export function switchTask(vcpu: Vcpu, selector: number, d: Descriptor, cause: TaskSwitchCause, errorCode = -1, external = 0): void {
  const layout = typeOf(d) & 8 ? LAYOUT32 : LAYOUT16;
  if (d.limit < layout.limit) raise(Vector.invalidTss, (selector & 0xfffc) | external);
  const read = (offset: number, bytes: number = layout.bytes): bigint => vcpu.read((d.base + BigInt(offset)) & 0xffff_ffffn, bytes, Access.implicit);
  // Everything that may fault in the old task comes first: the new TSS is read, then the old one written.
  const registers = Array.from({ length: 8 }, (_, i) => read(layout.registers + i * layout.bytes));
  const selectors = Array.from({ length: layout.segments }, (_, i) => Number(read(layout.selectors + i * layout.bytes, 2)));
  const [ip, flags, ldt] = [read(layout.ip), read(layout.flags), Number(read(layout.ldt, 2))];
  const cr3 = layout.cr3 < 0 ? -1n : read(layout.cr3);
  const trap = layout.trap >= 0 && (read(layout.trap, 2) & 1n) !== 0n;

  const oldSelector = selectorAt(vcpu, TR);
  const old = descriptor(vcpu, oldSelector);
  saveTask(vcpu, cause);
  if ((cause === 'jump' || cause === 'return') && old) setBusy(vcpu, old, false);
  if (cause !== 'return') setBusy(vcpu, d, true);
  const nested = cause === 'call' || cause === 'interrupt';
  if (nested) vcpu.write(d.base, 2, BigInt(oldSelector), Access.implicit);

  // The new task begins: nothing behind this can be undone, and faults are its own.
  vcpu.set32(state.CURRENT_OP, 0);
  setSegment(vcpu, TR, selector, { ...d, attributes: d.attributes | BUSY });
  if (cr3 >= 0n && vcpu.get64(state.CR0) & Cr0.pg) writeCr3(vcpu, cr3);
  vcpu.set64(state.CR0, vcpu.get64(state.CR0) | Cr0.ts);
  vcpu.set64(state.DR + 56, vcpu.get64(state.DR + 56) & ~DR7_LOCAL);
  vcpu.mmu.debugRegistersChanged(vcpu.base);
  vcpu.rip = ip;
  registers.forEach((value, number) => vcpu.setRegister(number, layout.bytes === 2 ? (vcpu.register(number) & 0xffff_0000n) | value : value));
  vcpu.rflags = usefulFlags(vcpu, nested ? flags | Flag.nested : flags) & 0x3f_7fd7n;
  loadSegments(vcpu, selectors, ldt);
  if (errorCode >= 0) {
    const stack = new Stack(vcpu, segmentAt(vcpu, SS), vcpu.get64(state.RSP), vcpu.cpl === 3 ? Access.user : 0, external);
    stack.push(BigInt(errorCode), layout.bytes);
    vcpu.set64(state.RSP, stack.pointer);
  }
  if (ip > BigInt(vcpu.get32(state.CS + state.SEGMENT_LIMIT))) generalProtection(external);
  if (trap) {
    vcpu.set64(state.DR + 48, vcpu.get64(state.DR + 48) | DR6_TASK);
    raise(Vector.debug);
  }
}

/** Saves the running task in its TSS, in the size that has. */
function saveTask(vcpu: Vcpu, cause: TaskSwitchCause): void {
  const tr = segmentAt(vcpu, TR);
  const layout = typeOf(tr) & 8 ? LAYOUT32 : LAYOUT16;
  const write = (offset: number, value: bigint, bytes: number = layout.bytes): void =>
    vcpu.write((tr.base + BigInt(offset)) & 0xffff_ffffn, bytes, value & ((1n << BigInt(8 * bytes)) - 1n), Access.implicit);
  const flags = cause === 'return' ? vcpu.rflags & ~Flag.nested : vcpu.rflags;
  write(layout.ip, vcpu.rip);
  write(layout.flags, flags);
  for (let number = 0; number < 8; number++) write(layout.registers + number * layout.bytes, vcpu.register(number));
  for (let segment = 0; segment < layout.segments; segment++) write(layout.selectors + segment * layout.bytes, BigInt(selectorAt(vcpu, segment)), 2);
}

/** Loads LDTR and the segment registers of a task whose selectors were read; a 16-bit TSS has none for FS and GS. */
function loadSegments(vcpu: Vcpu, selectors: readonly number[], ldt: number): void {
  const all = [0, 1, 2, 3, 4, 5].map((i) => selectors[i] ?? 0);
  const unusable = { base: 0n, limit: 0, attributes: 0 };
  const virtual = vcpu.virtual8086;
  // Selectors first: a handler finds those of the new task, whichever of them turns out bad.
  for (let segment = 0; segment < 6; segment++) setSegment(vcpu, segment, all[segment], virtual ? virtual8086Segment(all[segment]) : unusable);
  setSegment(vcpu, LDTR, ldt, unusable);
  setCpl(vcpu, virtual ? 3 : all[CS] & 3);
  const invalid = (selector: number): never => raise(Vector.invalidTss, selector & 0xfffc);
  if (ldt & 0xfffc) {
    const d = ldt & 4 ? undefined : descriptor(vcpu, ldt);
    if (!d || !isSystem(d) || typeOf(d) !== 2 || !present(d)) return invalid(ldt);
    setSegment(vcpu, LDTR, ldt, d);
  }
  if (virtual) return;
  const { cpl } = vcpu;
  const load = (segment: number, accepts: (d: Descriptor) => boolean, notPresent: number): void => {
    const selector = all[segment];
    const d = (selector & 0xfffc ? descriptor(vcpu, selector) : undefined) ?? invalid(selector);
    if (isSystem(d) || !accepts(d)) invalid(selector);
    if (!present(d)) raise(notPresent, selector & 0xfffc);
    markAccessed(vcpu, d);
    setSegment(vcpu, segment, selector, d);
  };
  load(CS, (d) => isCode(d) && (isConforming(d) ? dplOf(d) <= cpl : dplOf(d) === cpl), Vector.segmentNotPresent);
  load(SS, (d) => isWritableData(d) && dplOf(d) === cpl && (all[SS] & 3) === cpl, Vector.stackFault);
  for (const segment of [0, 3, 4, 5]) {
    if ((all[segment] & 0xfffc) === 0) continue;
    const rpl = all[segment] & 3;
    const readable = (d: Descriptor): boolean => !isCode(d) || (d.attributes & Attribute.readable) !== 0;
    load(segment, (d) => readable(d) && (isConforming(d) || (dplOf(d) >= cpl && dplOf(d) >= rpl)), Vector.segmentNotPresent);
  }
}

/** IRET with NT set: back to the task that the TSS links to. */
export function returnToTask(vcpu: Vcpu, nextIp: bigint): void {
  const link = Number(vcpu.read(vcpu.get64(state.TR), 2, Access.implicit));
  const d = taskDescriptor(vcpu, link, 'return');
  vcpu.rip = nextIp;
  switchTask(vcpu, link, d, 'return');
}

/** SS:rSP of an inner privilege level from a legacy TSS, checked as a gate wants it: #TS but for a segment that is not there. */
export function innerStack(vcpu: Vcpu, cpl: number, external: number): { selector: number; sp: bigint; segment: Descriptor } {
  const tss = segmentAt(vcpu, TR);
  const wide = (typeOf(tss) & 8) !== 0;
  const offset = wide ? 4 + 8 * cpl : 2 + 4 * cpl;
  if (offset + (wide ? 5 : 3) > tss.limit) raise(Vector.invalidTss, (selectorAt(vcpu, TR) & 0xfffc) | external);
  const sp = vcpu.read(tss.base + BigInt(offset), wide ? 4 : 2, Access.implicit);
  const selector = Number(vcpu.read(tss.base + BigInt(offset + (wide ? 4 : 2)), 2, Access.implicit));
  const error = (selector & 0xfffc) | external;
  if ((selector & 0xfffc) === 0) raise(Vector.invalidTss, external);
  const segment = descriptor(vcpu, selector) ?? raise(Vector.invalidTss, error);
  if ((selector & 3) !== cpl || dplOf(segment) !== cpl || !isWritableData(segment)) raise(Vector.invalidTss, error);
  if (!present(segment)) raise(Vector.stackFault, error);
  return { selector, sp, segment };
}

const STACK_IN_TSS64 = 4;

/** RSP of an inner privilege level, or with `ist` that of an interrupt stack, from a 64-bit TSS. */
export function innerStack64(vcpu: Vcpu, cpl: number, ist: number, external: number): bigint {
  const offset = ist ? 0x24 + (ist - 1) * 8 : STACK_IN_TSS64 + cpl * 8;
  if (offset + 7 > vcpu.get32(state.TR + state.SEGMENT_LIMIT)) raise(Vector.invalidTss, (selectorAt(vcpu, TR) & 0xfffc) | external);
  return vcpu.read(vcpu.get64(state.TR) + BigInt(offset), 8, Access.implicit);
}

/** The stack segment that a transfer to an inner level of long mode loads: null. */
export const nullStack = (cpl: number): { base: bigint; limit: number; attributes: number } => ({ base: 0n, limit: FLAT_LIMIT, attributes: cpl << 13 });
