/**
 * The state in which a boot protocol enters a kernel, as plain numbers: the machine applies it to the vCPU that boots.
 * Sources: Linux's Documentation/x86/boot.rst (64-bit boot protocol), Xen's x86-HVM direct boot ABI (pvh.pandoc).
 */
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { BOOT_GDT, STACK_TOP } from './boot-layout.ts';

/** Attributes are bits 8-15 and 20-23 of a descriptor's high word, at the same places. */
export interface BootSegment {
  selector: number;
  base: number;
  /** In bytes. */
  limit: number;
  attributes: number;
}

/** What a register that is not named here holds is 0. */
export interface BootState {
  mode: 'long64' | 'protected32';
  rip: number;
  rflags: number;
  registers: Partial<Record<'rax' | 'rbx' | 'rsi' | 'rsp', number>>;
  cr0: number;
  cr3: number;
  cr4: number;
  efer: number;
  gdt: { base: number; limit: number };
  idt: { base: number; limit: number };
  segments: Record<'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs' | 'ldtr' | 'tr', BootSegment>;
  /** What the image says about itself; empty where it says nothing. */
  kernelVersion: string;
}

const CR0_PE = 1 << 0;
const CR0_ET = 1 << 4;
const CR0_PG = 2 ** 31;
const CR4_PAE = 1 << 5;
const EFER_LME = 1 << 8;
const EFER_LMA = 1 << 10;
/** Bit 1 of RFLAGS always reads as 1; interrupts are off. */
const RFLAGS = 0b10;

const BOOT_CS = 0x10;
const BOOT_DS = 0x18;
const BOOT_TSS = 0x20;

/** Granularity of 4 KiB, present, accessed; code is readable, data writable. */
const CODE64 = 0xa0_9b00;
const CODE32 = 0xc0_9b00;
const DATA = 0xc0_9300;
const BUSY_TSS = 0x8b00;
const LDT = 0x8200;

const flat = (selector: number, attributes: number): BootSegment => ({ selector, base: 0, limit: 0xffff_ffff, attributes });
const TSS: BootSegment = { selector: BOOT_TSS, base: 0, limit: 0x67, attributes: BUSY_TSS };

/** A descriptor for a segment based at 0 whose limit is in bytes, or in pages where its attributes say so. */
function descriptor({ limit, attributes }: BootSegment): bigint {
  const scaled = attributes & 0x80_0000 ? Math.floor(limit / 4096) : limit;
  return (BigInt(attributes | (scaled & 0xf_0000)) << 32n) | BigInt(scaled & 0xffff);
}

/** Writes null, null, code, data, and the TSS, which takes two entries in long mode. */
function writeGdt(memory: GuestMemory, code: BootSegment, data: BootSegment): BootState['gdt'] {
  const entries = BigUint64Array.of(0n, 0n, descriptor(code), descriptor(data), descriptor(TSS), 0n);
  memory.write(BOOT_GDT, new Uint8Array(entries.buffer));
  return { base: BOOT_GDT, limit: entries.byteLength - 1 };
}

type Entry = Pick<BootState, 'rip' | 'registers' | 'kernelVersion'>;

function flatState(memory: GuestMemory, entry: Entry, codeAttributes: number) {
  const code = flat(BOOT_CS, codeAttributes);
  const data = flat(BOOT_DS, DATA);
  return {
    ...entry,
    registers: { rsp: STACK_TOP, ...entry.registers },
    rflags: RFLAGS,
    gdt: writeGdt(memory, code, data),
    idt: { base: 0, limit: 0 },
    segments: { cs: code, ds: data, es: data, ss: data, fs: data, gs: data, ldtr: { ...flat(0, LDT), limit: 0xffff }, tr: TSS },
  };
}

/** Linux's 64-bit entry: long mode with the page tables at `cr3`. */
export function longModeState(memory: GuestMemory, entry: Entry & { cr3: number }): BootState {
  const { cr3, ...rest } = entry;
  const control = { cr0: CR0_PG + CR0_ET + CR0_PE, cr3, cr4: CR4_PAE, efer: EFER_LMA | EFER_LME };
  return { mode: 'long64', ...flatState(memory, rest, CODE64), ...control };
}

/** PVH's entry: 32-bit protected mode without paging. */
export function protectedModeState(memory: GuestMemory, entry: Entry): BootState {
  return { mode: 'protected32', ...flatState(memory, entry, CODE32), cr0: CR0_ET | CR0_PE, cr3: 0, cr4: 0, efer: 0 };
}
