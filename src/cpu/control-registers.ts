/** MOV to and from control registers, LMSW, XCR0, debug registers. SDM 3A 2.5, 4.1. What debug registers watch for is the engine's. */

import * as state from './state.ts';
import { updateCodeMode, updateSegments } from './segments.ts';
import { Cr0, Cr4, Efer, generalProtection, raise, type Vcpu, Vector } from './vcpu.ts';

const CR0_DEFINED = 0xe005_003fn;
/** Bit 63 under CR4.PCIDE, which long mode alone has: translations stay. */
const CR3_NO_FLUSH_HIGH = 1 << 31;
const CR4_PCIDE = Number(Cr4.pcide);

/** PAE paging without long mode: CR3 points to four page-directory pointers. */
const isPae = (cr0: bigint, cr4: bigint, efer: bigint): boolean => (cr0 & Cr0.pg) !== 0n && (cr4 & Cr4.pae) !== 0n && !(efer & Efer.lma);
/** Reserved in a page-directory pointer: bits 1, 2, 5 to 8, and what lies above the physical address (SDM 3A table 4-8). */
const pdpteReserved = ({ model }: Vcpu): bigint => 0x1e6n | model.abovePhysical;

/** The page-directory pointers that `cr3` points to; #GP where one is present with reserved bits set. */
function readPageDirectoryPointers(vcpu: Vcpu, cr3: bigint): bigint[] {
  const table = Number(cr3 & 0xffff_ffe0n);
  const reserved = pdpteReserved(vcpu);
  return [0, 1, 2, 3].map((index) => {
    const entry = vcpu.readPhysical(table + 8 * index);
    if (entry & 1n && entry & reserved) generalProtection();
    return entry;
  });
}

function setPageDirectoryPointers(vcpu: Vcpu, pointers: readonly bigint[]): void {
  pointers.forEach((pointer, index) => vcpu.set64(state.PDPTE + 8 * index, pointer));
}

/** Bits above a canonical address's: of 48, and of 57 with 5-level paging. */
const FOUR_LEVEL_SHIFT = 16n;
const FIVE_LEVEL_SHIFT = 7n;

export function writeCr0(vcpu: Vcpu, value: bigint): void {
  const old = vcpu.get64(state.CR0);
  if (value >> 32n) generalProtection();
  const next = (value & CR0_DEFINED) | Cr0.et;
  if ((next & Cr0.pg && !(next & Cr0.pe)) || (next & Cr0.nw && !(next & Cr0.cd))) generalProtection();
  const efer = vcpu.get64(state.EFER);
  const cr4 = vcpu.get64(state.CR4);
  if (next & Cr0.pg && !(old & Cr0.pg) && efer & Efer.lme) {
    if (!(cr4 & Cr4.pae) || vcpu.get32(state.CS + state.SEGMENT_ATTRIBUTES) & (1 << 21)) generalProtection();
    vcpu.set64(state.EFER, efer | Efer.lma);
  } else if ((old ^ next) & (Cr0.pg | Cr0.cd | Cr0.nw) && isPae(next, cr4, efer)) {
    setPageDirectoryPointers(vcpu, readPageDirectoryPointers(vcpu, vcpu.get64(state.CR3)));
  }
  if (!(next & Cr0.pg) && old & Cr0.pg) {
    if (cr4 & Cr4.pcide || vcpu.code64) generalProtection();
    vcpu.set64(state.EFER, efer & ~Efer.lma);
  }
  vcpu.set64(state.CR0, next);
  if ((old ^ next) & (Cr0.pg | Cr0.wp | Cr0.pe)) {
    vcpu.mmu.flushAll(vcpu.base);
    if ((old ^ next) & Cr0.pe) updateSegments(vcpu);
    else updateCodeMode(vcpu);
  }
}

export function writeCr3(vcpu: Vcpu, value: bigint): void {
  if (vcpu.longMode) return writeLongModeCr3(vcpu, Number(value & 0xffff_ffffn), Number(value >> 32n));
  if (isPae(vcpu.get64(state.CR0), vcpu.get64(state.CR4), vcpu.get64(state.EFER))) setPageDirectoryPointers(vcpu, readPageDirectoryPointers(vcpu, value));
  vcpu.set64(state.CR3, value);
  vcpu.mmu.addressSpaceChanged(vcpu.base, false);
}

/** The value in halves: every switch of a kernel's address spaces comes here. */
export function writeLongModeCr3(vcpu: Vcpu, low: number, high: number): void {
  const keep = (vcpu.get32(state.CR4) & CR4_PCIDE) !== 0 && high >>> 31 !== 0;
  const upper = keep ? high & ~CR3_NO_FLUSH_HIGH : high;
  if (upper & vcpu.model.abovePhysicalHigh) generalProtection();
  vcpu.set32(state.CR3, low);
  vcpu.set32(state.CR3 + 4, upper);
  vcpu.mmu.addressSpaceChanged(vcpu.base, keep);
}

export function writeCr4(vcpu: Vcpu, value: bigint): void {
  const old = vcpu.get64(state.CR4);
  if (value & ~vcpu.model.cr4) generalProtection();
  if (vcpu.longMode && (!(value & Cr4.pae) || (old ^ value) & Cr4.la57)) generalProtection();
  if (value & Cr4.pcide && !(old & Cr4.pcide) && (!vcpu.longMode || vcpu.get64(state.CR3) & 0xfffn)) generalProtection();
  if ((old ^ value) & (Cr4.pae | Cr4.pge | Cr4.pse | Cr4.smep) && isPae(vcpu.get64(state.CR0), value, vcpu.get64(state.EFER))) {
    setPageDirectoryPointers(vcpu, readPageDirectoryPointers(vcpu, vcpu.get64(state.CR3)));
  }
  vcpu.set64(state.CR4, value);
  vcpu.set64(state.CANONICAL_SHIFT, value & Cr4.la57 ? FIVE_LEVEL_SHIFT : FOUR_LEVEL_SHIFT);
  if ((old ^ value) & (Cr4.pse | Cr4.pae | Cr4.pge | Cr4.pcide | Cr4.smep | Cr4.smap)) vcpu.mmu.flushAll(vcpu.base);
  vcpu.mmu.contextChanged(vcpu.base);
}

/** What lies behind CR8: the local APIC's task priority. */
export interface TaskPriority {
  readTaskPriority(): number;
  writeTaskPriority(value: number): void;
}

export function readCr(vcpu: Vcpu, number: number, apic: TaskPriority): bigint {
  switch (number) {
    case 0: return vcpu.get64(state.CR0);
    case 2: return vcpu.get64(state.CR2);
    case 3: return vcpu.get64(state.CR3);
    case 4: return vcpu.get64(state.CR4);
    case 8: return BigInt(apic.readTaskPriority());
    default: return raise(Vector.undefinedOpcode);
  }
}

export function writeCr(vcpu: Vcpu, number: number, value: bigint, apic: TaskPriority): void {
  switch (number) {
    case 0: return writeCr0(vcpu, value);
    case 2: return vcpu.set64(state.CR2, value);
    case 3: return writeCr3(vcpu, value);
    case 4: return writeCr4(vcpu, value);
    case 8:
      if (value >> 4n) generalProtection();
      return apic.writeTaskPriority(Number(value));
    default: return raise(Vector.undefinedOpcode);
  }
}

/** LMSW sets PE, MP, EM, TS; it cannot clear PE. */
export function lmsw(vcpu: Vcpu, value: bigint): void {
  const old = vcpu.get64(state.CR0);
  writeCr0(vcpu, (old & ~0xen) | (value & 0xfn));
}

const drSlot = (vcpu: Vcpu, number: number): number => {
  const aliased = number === 4 || number === 5;
  if (number > 7 || (aliased && vcpu.get64(state.CR4) & Cr4.de)) raise(Vector.undefinedOpcode);
  return state.DR + 8 * (aliased ? number + 2 : number);
};

const DR6_GENERAL_DETECT = 1n << 13n;
const DR7_GENERAL_DETECT = 1n << 13n;

/** DR7.GD: a MOV to or from a debug register raises #DB instead. */
function detectAccess(vcpu: Vcpu): void {
  if (!(vcpu.get64(state.DR + 56) & DR7_GENERAL_DETECT)) return;
  vcpu.set64(state.DR + 48, vcpu.get64(state.DR + 48) | DR6_GENERAL_DETECT);
  raise(Vector.debug);
}

export function readDr(vcpu: Vcpu, number: number): bigint {
  const slot = drSlot(vcpu, number);
  detectAccess(vcpu);
  return vcpu.get64(slot);
}

export function writeDr(vcpu: Vcpu, number: number, value: bigint): void {
  const slot = drSlot(vcpu, number);
  detectAccess(vcpu);
  if (number >= 4 && value >> 32n) generalProtection();
  if (slot === state.DR + 48) return vcpu.set64(slot, (value & 0xe00fn) | 0xffff_0ff0n);
  vcpu.set64(slot, slot === state.DR + 56 ? (value & ~0xd000n & 0xffff_ffffn) | 0x400n : value);
  vcpu.mmu.debugRegistersChanged(vcpu.base);
}

/** x87 is always on; SSE may be; nothing else exists here. */
const XCR0_SUPPORTED = 3n;

export function xgetbv(vcpu: Vcpu): void {
  if (!(vcpu.get64(state.CR4) & Cr4.osxsave)) raise(Vector.undefinedOpcode);
  if (vcpu.get32(state.RCX) !== 0) generalProtection();
  const value = vcpu.get64(state.XCR0);
  vcpu.set64(state.RAX, value & 0xffff_ffffn);
  vcpu.set64(state.RDX, value >> 32n);
}

export function xsetbv(vcpu: Vcpu): void {
  if (!(vcpu.get64(state.CR4) & Cr4.osxsave)) raise(Vector.undefinedOpcode);
  const value = BigInt(vcpu.get32(state.RAX)) | (BigInt(vcpu.get32(state.RDX)) << 32n);
  if (vcpu.cpl !== 0 || vcpu.get32(state.RCX) !== 0 || !(value & 1n) || value & ~XCR0_SUPPORTED) generalProtection();
  vcpu.set64(state.XCR0, value);
}

/** Power-on and INIT state of everything architectural (SDM 3A table 10-1). `init` keeps what INIT keeps: x87, SSE, MSRs other than EFER. */
export function resetVcpu(vcpu: Vcpu, init: boolean): void {
  const { base, memory } = vcpu;
  const keep = init ? memory.bytes.slice(base + state.XMM, base + state.SEGMENT) : undefined;
  const msrs = init ? [state.STAR, state.LSTAR, state.CSTAR, state.SFMASK, state.KERNEL_GS_BASE, state.TSC_AUX, state.SYSENTER_CS, state.SYSENTER_ESP, state.SYSENTER_EIP, state.PAT, state.XCR0, state.TSC_OFFSET, state.CHARGED].map((o) => [o, vcpu.get64(o)] as const) : [];
  const contexts = vcpu.get32(state.TLB_SLOT);
  // What is left of the slice is none of the guest's.
  const budget = vcpu.get32(state.BUDGET);
  const retired = vcpu.get64(state.RETIRED_BASE);
  memory.bytes.fill(0, base, base + state.VCPU_STATE_SIZE);
  vcpu.set32(state.TLB_SLOT, contexts);
  vcpu.set32(state.TLB_BASE, contexts);
  vcpu.set32(state.BUDGET, budget);
  vcpu.set64(state.RETIRED_BASE, retired);
  if (keep) memory.bytes.set(keep, base + state.XMM);
  else {
    vcpu.set32(state.MXCSR, 0x1f80);
    vcpu.set32(state.FCW, 0x40);
    vcpu.set32(state.FTW, 0xff);
    vcpu.set64(state.PAT, 0x0007_0406_0007_0406n);
    vcpu.set64(state.XCR0, 1n);
  }
  for (const [offset, value] of msrs) vcpu.set64(offset, value);
  const code = { selector: 0xf000, base: 0xffff_0000n, attributes: 0x9b00 };
  for (let segment = 0; segment < 8; segment++) {
    const offset = state.SEGMENT + segment * state.SEGMENT_SIZE;
    vcpu.set32(offset + state.SEGMENT_LIMIT, 0xffff);
    vcpu.set32(offset + state.SEGMENT_ATTRIBUTES, segment === 6 ? 0x8200 : segment === 7 ? 0x8b00 : 0x9300);
    if (segment === 1) {
      vcpu.set32(offset + state.SEGMENT_SELECTOR, code.selector);
      vcpu.set64(offset, code.base);
      vcpu.set32(offset + state.SEGMENT_ATTRIBUTES, code.attributes);
    }
  }
  vcpu.set32(state.GDTR_LIMIT, 0xffff);
  vcpu.set32(state.IDTR_LIMIT, 0xffff);
  vcpu.set64(state.CR0, 0x6000_0010n);
  vcpu.set64(state.DR + 48, 0xffff_0ff0n);
  vcpu.set64(state.DR + 56, 0x400n);
  vcpu.set64(state.CANONICAL_SHIFT, FOUR_LEVEL_SHIFT);
  vcpu.set64(state.BASE_CANONICAL_SHIFT, vcpu.model.features.has('la57') ? FIVE_LEVEL_SHIFT : FOUR_LEVEL_SHIFT);
  updateSegments(vcpu);
  vcpu.rip = 0xfff0n;
  vcpu.set64(state.RDX, 0x0006_0f11n);
  vcpu.set64(state.RFLAGS, 2n);
  vcpu.set64(state.FLAG_ZERO, 1n);
  vcpu.set64(state.FLAG_SIGN, 1n);
  vcpu.mmu.flushAll(base);
  vcpu.mmu.debugRegistersChanged(base);
}
