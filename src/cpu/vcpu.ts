/**
 * A vCPU as TypeScript sees it: named access to the state that generated code works on, and to guest memory through
 * the vCPU's eyes. Cold paths only; values of 64 bits are unsigned bigints.
 */

import type { GuestMemory } from '../memory/guest-memory.ts';
import type { CpuModel } from './cpu-model.ts';
import { Access, FAULTED, MMIO, type Mmu } from './mmu.ts';
import * as state from './state.ts';

export const Vector = {
  divideError: 0, debug: 1, nmi: 2, breakpoint: 3, overflow: 4, boundRange: 5, undefinedOpcode: 6, deviceNotAvailable: 7, doubleFault: 8,
  invalidTss: 10, segmentNotPresent: 11, stackFault: 12, generalProtection: 13, pageFault: 14, x87: 16, alignmentCheck: 17, machineCheck: 18, simd: 19,
} as const; // biome-ignore format: the manual's table

export const Flag = {
  carry: 1n, parity: 1n << 2n, adjust: 1n << 4n, zero: 1n << 6n, sign: 1n << 7n, trap: 1n << 8n, interrupt: 1n << 9n, direction: 1n << 10n, overflow: 1n << 11n,
  ioPrivilege: 3n << 12n, nested: 1n << 14n, resume: 1n << 16n, virtual8086: 1n << 17n, alignment: 1n << 18n, virtualInterrupt: 1n << 19n, virtualPending: 1n << 20n, id: 1n << 21n,
} as const; // biome-ignore format: a table
export const STATUS_FLAGS = 0x8d5n;

export const Cr0 = { pe: 1n, mp: 2n, em: 4n, ts: 8n, et: 16n, ne: 32n, wp: 1n << 16n, am: 1n << 18n, nw: 1n << 29n, cd: 1n << 30n, pg: 1n << 31n } as const;
export const Cr4 = {
  vme: 1n, pvi: 2n, tsd: 4n, de: 8n, pse: 16n, pae: 32n, mce: 64n, pge: 128n, pce: 256n, osfxsr: 512n, osxmmexcpt: 1024n, umip: 2048n, la57: 4096n,
  fsgsbase: 1n << 16n, pcide: 1n << 17n, osxsave: 1n << 18n, smep: 1n << 20n, smap: 1n << 21n,
} as const; // biome-ignore format: a table
export const Efer = { sce: 1n, lme: 1n << 8n, lma: 1n << 10n, nxe: 1n << 11n } as const;

/** What is asked for most, as numbers. */
const [LMA, PE, VM, VME, IF] = [Efer.lma, Cr0.pe, Flag.virtual8086, Cr4.vme, Flag.interrupt].map(Number);

export const Activity = { running: 0, halted: 1, waitForSipi: 2, shutdown: 3 } as const;
export type ActivityName = keyof typeof Activity;

/** A guest's exception on its way to the run loop. One object, thrown through generated code; never kept. */
export class Fault {
  vector = 0;
  /** Error code, or -1 where the exception has none. */
  code = -1;
}

/** The one fault that is in flight: there is one thread. */
export const FAULT = new Fault();

/** Raises an exception of the guest's. */
export function raise(vector: number, code = -1): never {
  FAULT.vector = vector;
  FAULT.code = code;
  throw FAULT;
}

/** #GP with a selector or 0. */
export const generalProtection = (code = 0): never => raise(Vector.generalProtection, code);
export const undefinedOpcode = (): never => raise(Vector.undefinedOpcode);

const signExtends = (address: bigint, shift: number): boolean => BigInt.asUintN(64, BigInt.asIntN(64 - shift, address)) === address;

export class Vcpu {
  readonly index: number;
  /** Linear address of the state; what generated code calls `vcpu`. */
  readonly base: number;
  readonly memory: GuestMemory;
  /** Which features it has. */
  readonly model: CpuModel;
  mmu!: Mmu;
  private readonly view: DataView;

  constructor(index: number, base: number, memory: GuestMemory, model: CpuModel) {
    this.model = model;
    this.index = index;
    this.base = base;
    this.memory = memory;
    this.view = memory.view;
  }

  get32(offset: number): number { return this.view.getUint32(this.base + offset, true); }
  set32(offset: number, value: number): void { this.view.setUint32(this.base + offset, value, true); }
  get64(offset: number): bigint { return this.view.getBigUint64(this.base + offset, true); }
  set64(offset: number, value: bigint): void { this.view.setBigUint64(this.base + offset, BigInt.asUintN(64, value), true); }
  /** A 64-bit word as a number: exact below 2^53. */
  getNumber(offset: number): number { return this.get32(offset) + this.get32(offset + 4) * 2 ** 32; }

  setNumber(offset: number, value: number): void {
    this.set32(offset, value % 2 ** 32);
    this.set32(offset + 4, Math.floor(value / 2 ** 32));
  }

  register(number: number): bigint { return this.get64(state.GPR + 8 * number); }
  setRegister(number: number, value: bigint): void { this.set64(state.GPR + 8 * number, value); }

  get rip(): bigint { return this.get64(state.RIP); }
  set rip(value: bigint) { this.set64(state.RIP, value); }
  get cpl(): number { return this.get32(state.CPL); }
  get activity(): number { return this.get32(state.ACTIVITY); }
  set activity(value: number) { this.set32(state.ACTIVITY, value); }
  get longMode(): boolean { return (this.get32(state.EFER) & LMA) !== 0; }
  /** 64-bit code, as against compatibility mode. */
  get code64(): boolean { return this.longMode && (this.get32(state.CS + state.SEGMENT_ATTRIBUTES) & (1 << 21)) !== 0; }
  get protectedMode(): boolean { return (this.get32(state.CR0) & PE) !== 0; }
  get virtual8086(): boolean { return (this.get32(state.RFLAGS) & VM) !== 0; }
  get virtualModeExtensions(): boolean { return (this.get32(state.CR4) & VME) !== 0; }
  /** Whether an address is canonical, as code and data addresses have to be now. */
  isCanonical(address: bigint): boolean { return signExtends(address, this.get32(state.CANONICAL_SHIFT)); }
  /** The same of bases and of addresses in MSRs, which goes by the width that the processor has, whatever paging is in use. */
  isCanonicalBase(address: bigint): boolean { return signExtends(address, this.get32(state.BASE_CANONICAL_SHIFT)); }
  get interruptsEnabled(): boolean { return (this.get32(state.RFLAGS) & IF) !== 0; }

  get rflags(): bigint {
    const sign = this.get64(state.FLAG_SIGN);
    const carry = this.get64(state.FLAG_CARRY);
    let parity = Number(sign & 0xffn);
    parity ^= parity >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return (
      this.get64(state.RFLAGS) | (carry >> 63n) | ((carry & 8n) << 1n) | (parity & 1 ? 0n : Flag.parity) |
      (this.get64(state.FLAG_ZERO) === 0n ? Flag.zero : 0n) | ((sign >> 63n) << 7n) | ((this.get64(state.FLAG_OVERFLOW) >> 63n) << 11n)
    );
  }

  /** Sets all of RFLAGS; bit 1 is always set. A change of AC or of the interrupt flag takes effect at once. */
  set rflags(value: bigint) {
    this.set64(state.RFLAGS, (value & ~STATUS_FLAGS & 0x3f7fd7n) | 2n);
    this.set64(state.FLAG_CARRY, ((value & Flag.carry) << 63n) | ((value & Flag.adjust) >> 1n));
    this.set64(state.FLAG_ZERO, value & Flag.zero ? 0n : 1n);
    this.set64(state.FLAG_SIGN, ((value & Flag.sign) << 56n) | (value & Flag.parity ? 0n : 1n));
    this.set64(state.FLAG_OVERFLOW, (value & Flag.overflow) << 52n);
    this.mmu.contextChanged(this.base);
  }

  /** i64 slots shared with generated code. */
  argument(index: number): bigint { return this.get64(state.ARGUMENT + 8 * index); }
  setArgument(index: number, value: bigint): void { this.set64(state.ARGUMENT + 8 * index, value); }

  /** Reads guest-virtual memory (segment base included), little-endian; may fault. MMIO reads as all ones: nothing here is meant for it. */
  read(address: bigint, bytes: number, access: number): bigint {
    let value = 0n;
    const inPage = 4096 - Number(address & 0xfffn);
    if (bytes <= inPage) {
      const linear = this.linear(address, access);
      if (linear < 0) return (1n << BigInt(8 * bytes)) - 1n;
      if (bytes === 8) return this.view.getBigUint64(linear, true);
      if (bytes === 4) return BigInt(this.view.getUint32(linear, true));
      if (bytes === 2) return BigInt(this.view.getUint16(linear, true));
      for (let i = bytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.memory.bytes[linear + i]);
      return value;
    }
    const low = this.read(address, inPage, access);
    return low | (this.read(address + BigInt(inPage), bytes - inPage, access) << BigInt(8 * inPage));
  }

  /** Reads 8 bytes of physical memory, in one page; all ones where no RAM is. */
  readPhysical(guestPhysical: number): bigint {
    const linear = this.memory.linear(guestPhysical, 8);
    return linear < 0 ? 0xffff_ffff_ffff_ffffn : this.view.getBigUint64(linear, true);
  }

  /** Writes guest-virtual memory; both pages of a split write are checked before either is touched. */
  write(address: bigint, bytes: number, value: bigint, access: number): void {
    const inPage = 4096 - Number(address & 0xfffn);
    const first = Math.min(bytes, inPage);
    const linear = this.linear(address, access | Access.write);
    const second = first < bytes ? this.linear(address + BigInt(first), access | Access.write) : MMIO;
    if (linear >= 0) {
      this.store(linear, first, value);
      this.mmu.written(linear, first);
    }
    if (second >= 0) {
      this.store(second, bytes - first, value >> BigInt(8 * first));
      this.mmu.written(second, bytes - first);
    }
  }

  private store(linear: number, bytes: number, value: bigint): void {
    const { view } = this;
    if (bytes === 8) return view.setBigUint64(linear, value, true);
    if (bytes === 4) return view.setUint32(linear, Number(value & 0xffff_ffffn), true);
    if (bytes === 2) return view.setUint16(linear, Number(value & 0xffffn), true);
    let rest = value;
    for (let i = 0; i < bytes; i++) {
      view.setUint8(linear + i, Number(rest & 0xffn));
      rest >>= 8n;
    }
  }

  /** True where the access would not fault. */
  canAccess(address: bigint, bytes: number, access: number): boolean {
    const last = address + BigInt(bytes - 1);
    return [address, last].every((a) => this.mmu.translate(this.base, BigInt.asIntN(64, a), access | Access.probe) !== FAULTED);
  }

  private linear(address: bigint, access: number): number {
    const linear = this.mmu.translate(this.base, BigInt.asIntN(64, address), access);
    return linear === MMIO ? MMIO : linear >>> 0;
  }
}
