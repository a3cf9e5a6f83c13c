/**
 * Virtual-8086 mode and its extensions (CR4.VME, CR4.PVI): segments there, the virtual interrupt flag, redirection of software
 * interrupts. SDM 3B chapter 20, APM 2 8.2.8 and 8.9.
 */

import { Access } from './mmu.ts';
import { Attribute, CS, type Segment, setSegment, Stack } from './segments.ts';
import * as state from './state.ts';
import { Cr4, Flag, generalProtection, type Vcpu } from './vcpu.ts';

const ATTRIBUTES = Attribute.present | Attribute.s | Attribute.writable | Attribute.accessed | Attribute.dpl;
const ALL_PRIVILEGES = 3;
const TSS_IO_MAP = 0x66n;
/** The redirection bit map lies in front of the I/O map, a bit for each vector. */
const REDIRECTION_BYTES = 32;

/** The segment a selector names, as every segment of a virtual-8086 task is. */
export const virtual8086Segment = (selector: number): Segment => ({ base: BigInt(selector) << 4n, limit: 0xffff, attributes: ATTRIBUTES });

/** Flags as returns and tasks load them: RF is for the instruction returned to, and means something only where breakpoints do. */
export const usefulFlags = (vcpu: Vcpu, flags: bigint): bigint => (vcpu.get32(state.BREAKPOINTS) & state.CODE_BREAKPOINTS ? flags : flags & ~Flag.resume);

export const ioPrivilege = (flags: bigint): number => Number((flags & Flag.ioPrivilege) >> 12n);

/** Whether IF stands for the virtual interrupt flag now: with VME in a virtual-8086 task, with PVI at CPL 3, below IOPL 3. */
export function hasVirtualInterruptFlag(vcpu: Vcpu): boolean {
  if (ioPrivilege(vcpu.get64(state.RFLAGS)) === ALL_PRIVILEGES) return false;
  return (vcpu.get64(state.CR4) & (vcpu.virtual8086 ? Cr4.vme : vcpu.cpl === 3 && vcpu.protectedMode ? Cr4.pvi : 0n)) !== 0n;
}

/** CLI and STI where IOPL forbids them: they move the virtual interrupt flag, or raise #GP. */
export function setVirtualInterruptFlag(vcpu: Vcpu, enabled: boolean): void {
  const flags = vcpu.get64(state.RFLAGS);
  if (!hasVirtualInterruptFlag(vcpu) || (enabled && flags & Flag.virtualPending)) generalProtection();
  vcpu.set64(state.RFLAGS, enabled ? flags | Flag.virtualInterrupt : flags & ~Flag.virtualInterrupt);
}

/** The flags that a virtual-8086 task below IOPL 3 sees and pushes, 16 bits: IF is VIF, IOPL is 3. */
function virtualFlags(vcpu: Vcpu): bigint {
  const flags = vcpu.rflags;
  return (flags & ~Flag.interrupt) | Flag.ioPrivilege | (flags & Flag.virtualInterrupt ? Flag.interrupt : 0n);
}

/** PUSHF in virtual-8086 mode below IOPL 3. */
export function pushedVirtualFlags(vcpu: Vcpu, bits: number): bigint {
  if (bits !== 16 || !hasVirtualInterruptFlag(vcpu)) generalProtection();
  return virtualFlags(vcpu);
}

/** POPF and IRET in virtual-8086 mode below IOPL 3: `value` into FLAGS, its IF into VIF. */
export function setVirtualFlags(vcpu: Vcpu, value: bigint, bits: number): void {
  if (bits !== 16 || !hasVirtualInterruptFlag(vcpu)) generalProtection();
  const old = vcpu.rflags;
  if (value & Flag.trap || (value & Flag.interrupt && old & Flag.virtualPending)) generalProtection();
  const mask = 0x8d5n | Flag.trap | Flag.direction | Flag.nested;
  const virtual = value & Flag.interrupt ? Flag.virtualInterrupt : 0n;
  vcpu.rflags = (old & ~(mask | Flag.virtualInterrupt)) | (value & mask) | virtual;
}

/** INT n in virtual-8086 mode: goes through the task's own interrupt table where VME says so. True where that is done. */
export function redirectInterrupt(vcpu: Vcpu, vector: number): boolean {
  const privileged = ioPrivilege(vcpu.get64(state.RFLAGS)) === ALL_PRIVILEGES;
  if (vcpu.get64(state.CR4) & Cr4.vme) {
    const tss = vcpu.get64(state.TR + state.SEGMENT_BASE);
    const map = Number(vcpu.read(tss + TSS_IO_MAP, 2, Access.implicit));
    const at = map - REDIRECTION_BYTES + (vector >> 3);
    if (at > vcpu.get32(state.TR + state.SEGMENT_LIMIT)) generalProtection();
    const redirected = !((Number(vcpu.read(tss + BigInt(at), 1, Access.implicit)) >> (vector & 7)) & 1);
    if (redirected) {
      enterTask(vcpu, vector, privileged);
      return true;
    }
  }
  if (!privileged) generalProtection();
  return false;
}

function enterTask(vcpu: Vcpu, vector: number, privileged: boolean): void {
  const pointer = Number(vcpu.read(BigInt(vector * 4), 4, Access.user));
  const stack = Stack.current(vcpu);
  stack.push(privileged ? vcpu.rflags : virtualFlags(vcpu), 2);
  stack.push(BigInt(vcpu.get32(state.CS + state.SEGMENT_SELECTOR)), 2);
  stack.push(vcpu.rip, 2);
  vcpu.set64(state.RSP, stack.pointer);
  vcpu.rflags = vcpu.rflags & ~(Flag.trap | (privileged ? Flag.interrupt : Flag.virtualInterrupt));
  setSegment(vcpu, CS, pointer >>> 16, virtual8086Segment(pointer >>> 16));
  vcpu.rip = BigInt(pointer & 0xffff);
}
