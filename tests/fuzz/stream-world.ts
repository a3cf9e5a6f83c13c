/**
 * The world of random instruction streams: 128 KiB of RAM with everything a processor looks at within reach (descriptor tables,
 * TSSs, page tables of every kind, handlers that go on 16 bytes behind what faulted), and the modes streams begin in.
 */

import { resetVcpu } from '../../src/cpu/control-registers.ts';
import { Attribute, setCpl, setSegment } from '../../src/cpu/segments.ts';
import * as state from '../../src/cpu/state.ts';
import { Cr0, Cr4, Efer, Flag, type Vcpu } from '../../src/cpu/vcpu.ts';
import type { CodeBits } from '../../src/isa/decoder.ts';
import { Random } from '../conformance/machine-state.ts';

export const RAM_BYTES = 128 << 10;
export const PAGE = 4096;
export const SELECTOR_COUNT = 64;
export const code = 0x8000;
export const CODE_BYTES = 2 * PAGE;
export const stack = 0x6f00;
export const gdt = 0x1000;
const [IDT, TSS, LDT, TASKS, HANDLERS] = [0x2000, 0x3000, 0x3800, 0x4000, 0x5000];
const [DATA, USER_STACK] = [0xa000, 0x7f00];
const [PML4, PDPT, PD, PT, PD32, PT32, PAE_PDPT, PAE_PD, OTHER_PML4, PML5] = [0x10000, 0x11000, 0x12000, 0x13000, 0x14000, 0x15000, 0x16000, 0x17000, 0x18000, 0x19000];
/** Guest-virtual pages from here on are the first ones once more, with other rights. */
const ALIASES = 0x20;

export const isPageTable = (page: number): boolean => page * PAGE >= PML4 && page * PAGE <= PML5;

export const MODES = ['real', 'virtual-8086', 'protected-16', 'protected-32', 'compatibility', 'long'] as const;
export type ModeName = (typeof MODES)[number];
export const codeBitsOf = (mode: ModeName): CodeBits => (mode === 'long' ? 64 : mode === 'protected-32' || mode === 'compatibility' ? 32 : 16);

/** VMMCALL: ends a stream, in every mode and at every privilege level. */
export const STREAM_END = [0x0f, 0x01, 0xd9];

// --- Values that lead somewhere -------------------------------------------------------------------

export const roots = [PML4, PD32, PAE_PDPT, OTHER_PML4, PML5, OTHER_PML4 | 1, PML4 | 2, PML4 | 7, 0x1f000, 0xfff_f000];
export const cr0 = [0x8001_0031, 0x8000_0031, 0x11, 0x10, 0x8005_0033, 0xe005_003f, 0x8001_003b, 0x31, 0x8000_0010, 0x2000_0010];

/** An address: of data for the most part, of what the processor reads, near the ends of pages, outside of RAM. */
export function pointer(random: Random): number {
  const dice = random.next();
  const low = dice >>> 16;
  switch (dice & 15) {
    case 0: return code + (low & 0x1fff);
    case 1: return gdt + (low & 0x1ff);
    case 2: return IDT + (low & 0xfff);
    case 3: return PML4 + (low & 0x9fff);
    case 4: return TSS + (low & 0x1fff);
    case 5: case 6: return ((low & 15) << 12) + 0xff0 + ((low >> 4) & 31);
    case 7: return (ALIASES << 12) + (low << 1);
    case 8: return 0x8_0000 + low * 64;
    case 9: return USER_STACK - (low & 0xff);
    default: return DATA + (low & 0x3fff);
  }
}

export function selector(random: Random): number {
  const dice = random.next();
  const index = dice & 0x100 ? 1 + ((dice >>> 9) & 7) : (dice >>> 9) & 63;
  return (index << 3) | ((dice & 0xf000_0000) === 0 ? 4 : 0) | (dice & 0x0600_0000 ? (dice & 1 ? 3 : 0) : dice & 3);
}

/** The half of a descriptor with its type: of any kind, present for the most part. */
export function descriptorHalf(random: Random): number {
  const dice = random.next();
  return (dice & 0x00ff_6fff) | ((dice & 0x0f00_0000) !== 0 ? 0x8000 : 0) | (((dice >>> 16) & 15) << 8);
}

/** Address of an entry of a page table, gate or descriptor that is in use. */
export function tableEntry(random: Random): number {
  const table = random.pick([PML4, PDPT, PD, PT, PT, PT, PD32, PT32, PT32, PAE_PDPT, PAE_PD, PML5, IDT, gdt, TSS, LDT]);
  return table + 4 * random.below(64);
}

// --- Memory ---------------------------------------------------------------------------------------

const [PRESENT, WRITABLE, USER, LARGE, GLOBAL] = [1, 2, 4, 0x80, 0x100];
const NO_EXECUTE_HIGH = 0x8000_0000;

/** Handlers by width: one for exceptions without an error code, 32 bytes behind it one for those with. */
const HANDLER_CODE = {
  16: [0x55, 0x89, 0xe5, 0x83, 0x66, 0x02, 0xf0, 0x83, 0x46, 0x02, 0x10, 0x5d, 0xcf],
  32: [0x83, 0x24, 0x24, 0xf0, 0x83, 0x04, 0x24, 0x10, 0xcf],
  64: [0x48, 0x83, 0x24, 0x24, 0xf0, 0x48, 0x83, 0x04, 0x24, 0x10, 0x48, 0xcf],
} as const;
const DROP_CODE = { 16: [0x83, 0xc4, 0x02], 32: [0x83, 0xc4, 0x04], 64: [0x48, 0x83, 0xc4, 0x08] } as const;
const VECTORS_WITH_CODE = new Set([8, 10, 11, 12, 13, 14, 17]);
const handlerAt = (bits: CodeBits, vector: number): number => HANDLERS + bits * 4 + (VECTORS_WITH_CODE.has(vector) ? 32 : 0);

/** Selectors of segments that always mean the same. */
const Selector = { code64: 0x08, data: 0x10, code32: 0x18, code16: 0x20, userData: 0x2b, userCode32: 0x33, userCode64: 0x3b, userCode16: 0x43, data16: 0x48, userData16: 0x53, tss: 0x58, ldt: 0x68 } as const;
const FLAT = 0xf_ffff;
/** Base, limit, and the high half's type and flags. */
const FIXED_DESCRIPTORS: readonly [selector: number, base: number, limit: number, attributes: number][] = [
  [Selector.code64, 0, FLAT, 0x00a0_9b00], [Selector.data, 0, FLAT, 0x00c0_9300], [Selector.code32, 0, FLAT, 0x00c0_9b00], [Selector.code16, 0, 0xffff, 0x0000_9b00],
  [Selector.userData, 0, FLAT, 0x00c0_f300], [Selector.userCode32, 0, FLAT, 0x00c0_fb00], [Selector.userCode64, 0, FLAT, 0x00a0_fb00], [Selector.userCode16, 0, 0xffff, 0x0000_fb00],
  [Selector.data16, 0, 0xffff, 0x0000_9300], [Selector.userData16, 0, 0xffff, 0x0000_f300], [Selector.tss, TSS, 0x7ff, 0x0000_8900], [Selector.ldt, LDT, 0x7f, 0x0000_8200],
  [0x78, TASKS, 0x2b, 0x0000_e100], [0x80, TASKS + 0x100, 0x67, 0x0000_e900],
]; // biome-ignore format: a table

class Image {
  readonly bytes = new Uint8Array(RAM_BYTES);
  private readonly view = new DataView(this.bytes.buffer);

  set16(at: number, value: number): void { this.view.setUint16(at, value, true); }
  set32(at: number, value: number): void { this.view.setUint32(at, value >>> 0, true); }
  set64(at: number, low: number, high = 0): void {
    this.set32(at, low);
    this.set32(at + 4, high);
  }
  descriptor(at: number, base: number, limit: number, attributes: number): void {
    this.set64(at, (limit & 0xffff) | (base << 16), ((base >>> 16) & 0xff) | attributes | (limit & 0xf0000) | (base & 0xff00_0000));
  }
  gate(at: number, target: number, offset: number, attributes: number): void {
    this.set64(at, (offset & 0xffff) | (target << 16), (offset & 0xffff_0000) | attributes);
  }
}

/** RAM as streams of a mode find it. The same every time. */
export function imageOf(mode: ModeName): Uint8Array {
  const image = new Image();
  const random = new Random(MODES.indexOf(mode) + 1);
  const long = mode === 'long' || mode === 'compatibility';
  for (const bits of [16, 32, 64] as const) {
    image.bytes.set(HANDLER_CODE[bits], handlerAt(bits, 0));
    image.bytes.set([...DROP_CODE[bits], ...HANDLER_CODE[bits]], handlerAt(bits, 8));
  }
  // Whatever leaves the stream ends it soon.
  for (const [from, to] of [[0x400, gdt], [0x6000, DATA], [PML5 + PAGE, RAM_BYTES]]) for (let i = from; i < to; i++) image.bytes[i] = STREAM_END[(i - from) % STREAM_END.length];
  for (let i = DATA; i < DATA + 4 * PAGE; i += 4) image.set32(i, random.chance(30) ? pointer(random) : random.next());
  for (let vector = 0; vector < 256; vector++) image.set32(vector * 4, handlerAt(16, 0));
  writeDescriptors(image, random, long);
  writeGates(image, random, mode);
  writeTasks(image, long);
  writePageTables(image, random);
  return image.bytes;
}

function writeDescriptors(image: Image, random: Random, long: boolean): void {
  for (let index = 1; index < SELECTOR_COUNT; index++) {
    const isGate = random.chance(30);
    const gateType = random.pick(long ? [12] : [4, 12, 5, 14]);
    if (isGate) image.gate(gdt + 8 * index, random.pick([Selector.code64, Selector.code32, Selector.code16, 0x78, 0x80]), code + 16 * random.below(16), 0x8000 | (random.below(4) << 13) | (gateType << 8) | random.below(4));
    else image.set64(gdt + 8 * index, random.chance(50) ? 0xffff : random.next(), descriptorHalf(random));
    if (index < 16) image.set64(LDT + 8 * index, random.chance(50) ? 0xffff : random.next(), descriptorHalf(random) | 0x1000);
  }
  for (const [entry, base, limit, attributes] of FIXED_DESCRIPTORS) image.descriptor(gdt + (entry & ~7), base, limit, attributes);
  if (long) for (const entry of [Selector.tss, Selector.ldt]) image.set64(gdt + entry + 8, 0);
}

function writeGates(image: Image, random: Random, mode: ModeName): void {
  const long = mode === 'long' || mode === 'compatibility';
  for (let vector = 0; vector < 256; vector++) {
    const odd = vector > 32 && random.chance(30);
    const dpl = vector < 32 || random.chance(70) ? 0xe000 : 0x8000;
    if (long) {
      image.gate(IDT + 16 * vector, odd ? selector(random) : Selector.code64, handlerAt(64, vector), dpl | (random.chance(50) ? 0xe00 : 0xf00) | (odd ? random.below(8) : 0));
    } else {
      const bits = mode === 'protected-16' ? 16 : 32;
      const type = odd ? random.pick([5, 6, 7, 14, 15]) : bits === 16 ? 6 : 14;
      const target = type === 5 ? random.pick([0x78, 0x80]) : odd ? selector(random) : bits === 16 ? Selector.code16 : Selector.code32;
      image.gate(IDT + 8 * vector, target, handlerAt(type & 8 ? 32 : 16, vector), dpl | (type << 8));
    }
  }
}

function writeTasks(image: Image, long: boolean): void {
  if (long) {
    for (let i = 0; i < 3; i++) image.set64(TSS + 4 + 8 * i, stack - 0x100 * i);
    for (let i = 0; i < 7; i++) image.set64(TSS + 0x24 + 8 * i, stack - 0x100 * i - 0x400);
  } else {
    for (let i = 0; i < 3; i++) image.set64(TSS + 4 + 8 * i, stack - 0x100 * i, Selector.data);
  }
  image.set16(TSS + 0x66, 0x88);
  image.bytes.fill(0xff, TSS + 0x88 + 0x40, TSS + 0x800);
  // A 16-bit task and a 32-bit one.
  image.set16(TASKS + 0x0e, code);
  image.set16(TASKS + 0x12 + 8, stack);
  for (const [i, selectorThere] of [Selector.data16, Selector.code16, Selector.data16, Selector.data16].entries()) image.set16(TASKS + 0x22 + 2 * i, selectorThere);
  const task = TASKS + 0x100;
  image.set32(task + 0x1c, PD32);
  image.set32(task + 0x20, code);
  image.set32(task + 0x24, 2);
  image.set32(task + 0x38, stack);
  for (const [i, selectorThere] of [Selector.data, Selector.code32, Selector.data, Selector.data, 0, 0].entries()) image.set32(task + 0x48 + 4 * i, selectorThere);
}

function writePageTables(image: Image, random: Random): void {
  const rights = (page: number): number => {
    if (page === 0) return PRESENT | WRITABLE | USER;
    if (page >= ALIASES) return random.below(8) | (random.chance(80) ? PRESENT : 0) | (random.chance(20) ? GLOBAL : 0);
    const isUser = page >= 7 && page < 16;
    return PRESENT | WRITABLE | (isUser ? USER : 0);
  };
  for (let page = 0; page < 512; page++) {
    const frame = page >= ALIASES && page < 2 * ALIASES ? page - ALIASES : page;
    const [flags, high] = [rights(page), page >= ALIASES && random.chance(20) ? NO_EXECUTE_HIGH : 0];
    image.set64(PT + 8 * page, frame * PAGE | flags, high);
    image.set32(PT32 + 4 * page, frame * PAGE | flags);
  }
  const all = PRESENT | WRITABLE | USER;
  image.set64(PD, PT | all);
  image.set64(PD + 8, LARGE | all);
  image.set64(PD + 16, LARGE | all, NO_EXECUTE_HIGH);
  image.set64(PD + 24, 0x1000 | LARGE | all);
  for (const table of [PML4, OTHER_PML4]) for (const entry of [0, 255, 256, 511]) image.set64(table + 8 * entry, PDPT | (entry === 256 ? PRESENT | WRITABLE : all));
  image.set64(PDPT, PD | all);
  image.set64(PDPT + 8, LARGE | all);
  image.set64(PDPT + 8 * 511, PD | all);
  for (const entry of [0, 255, 256, 511]) image.set64(PML5 + 8 * entry, PML4 | all);
  for (const entry of [0, 768]) image.set32(PD32 + 4 * entry, PT32 | all);
  image.set32(PD32 + 4, LARGE | all);
  for (let i = 0; i < 4; i++) image.set64(PAE_PDPT + 8 * i, PAE_PD | PRESENT);
  image.set64(PAE_PD, PT | all);
  image.set64(PAE_PD + 8, LARGE | all);
}

// --- Modes ----------------------------------------------------------------------------------------

type Paging = 'none' | '32-bit' | 'PAE' | '4-level' | '5-level';

interface Variant {
  name: string;
  cpl: number;
  paging: Paging;
  /** CR0 and CR4 apart from what the mode itself needs. */
  cr0: bigint;
  cr4: bigint;
  flags: bigint;
}

const SSE = Cr4.osfxsr | Cr4.osxmmexcpt | Cr4.osxsave;
const SOME_CR4: readonly bigint[] = [SSE, SSE | Cr4.pge | Cr4.pse | Cr4.fsgsbase | Cr4.vme, SSE | Cr4.pse | Cr4.smep | Cr4.smap | Cr4.umip | Cr4.tsd, Cr4.pse | Cr4.de | Cr4.vme];

function variantsOf(mode: ModeName): Variant[] {
  const pagings: Paging[] = mode === 'real' ? ['none'] : mode === 'long' || mode === 'compatibility' ? ['4-level', '5-level'] : ['none', '32-bit', 'PAE'];
  const levels = mode === 'real' ? [0] : mode === 'virtual-8086' ? [3] : mode === 'protected-32' ? [0, 3, 1] : [0, 3];
  const variants: Variant[] = [];
  for (const paging of pagings) {
    for (const cpl of levels) {
      SOME_CR4.forEach((bits, i) => {
        const iopl = cpl === 3 && i & 1 ? Flag.ioPrivilege : 0n;
        variants.push({
          name: `${paging} CPL ${cpl} CR4 ${bits.toString(16)}`, cpl, paging,
          cr0: Cr0.et | Cr0.ne | (i !== 3 ? Cr0.wp : Cr0.ts) | (i === 1 ? Cr0.am : 0n),
          cr4: bits | (paging === 'PAE' || paging === '4-level' || paging === '5-level' ? Cr4.pae : 0n) | (i === 2 && (paging === '4-level' || paging === '5-level') ? Cr4.pcide : 0n),
          flags: 2n | iopl | (i === 1 && cpl === 3 ? Flag.alignment : 0n) | (i & 1 ? Flag.interrupt : 0n),
        });
      });
    }
  }
  return variants;
}

const ROOT: Record<Paging, number> = { none: 0, '32-bit': PD32, PAE: PAE_PDPT, '4-level': PML4, '5-level': PML5 };

function enter(vcpu: Vcpu, mode: ModeName, { cpl, paging, cr0: extra0, cr4, flags }: Variant): void {
  resetVcpu(vcpu, false);
  const real = mode === 'real';
  const long = mode === 'long' || mode === 'compatibility';
  const fiveLevels = paging === '5-level' ? vcpu.model.cr4 & (1n << 12n) : 0n;
  vcpu.set64(state.CR0, extra0 | (real ? 0n : Cr0.pe) | (paging === 'none' ? 0n : Cr0.pg));
  vcpu.set64(state.CR4, (cr4 & vcpu.model.cr4) | fiveLevels);
  if (fiveLevels) vcpu.set64(state.CANONICAL_SHIFT, 7n);
  vcpu.set64(state.CR3, BigInt(paging === '5-level' && !fiveLevels ? PML4 : ROOT[paging]));
  vcpu.set64(state.EFER, long ? Efer.sce | Efer.lme | Efer.lma | Efer.nxe : paging === 'PAE' ? Efer.nxe | Efer.sce : 0n);
  for (let i = 0; i < 4; i++) vcpu.set64(state.PDPTE + 8 * i, BigInt(PAE_PD | PRESENT));
  vcpu.set64(state.XCR0, 3n);
  vcpu.set64(state.GDTR_BASE, BigInt(gdt));
  vcpu.set32(state.GDTR_LIMIT, SELECTOR_COUNT * 8 - 1);
  vcpu.set64(state.IDTR_BASE, real ? 0n : BigInt(IDT));
  vcpu.set32(state.IDTR_LIMIT, real ? 0x3ff : long ? 0xfff : 0x7ff);
  const dpl = cpl << 13;
  const set = (segment: number, selectorThere: number, base: number, limit: number, attributes: number): void => setSegment(vcpu, segment, selectorThere, { base: BigInt(base), limit, attributes });
  if (real || mode === 'virtual-8086') {
    for (let segment = 0; segment < 6; segment++) {
      const paragraph = segment === 1 ? code >> 4 : segment === 5 ? 0xf00 : segment === 0 ? 0xa00 : 0;
      set(segment, paragraph, paragraph << 4, 0xffff, Attribute.present | Attribute.s | Attribute.writable | Attribute.accessed | dpl);
    }
  } else {
    const bits = codeBitsOf(mode);
    const [codeSelector, dataSelector] = cpl === 0 ? [bits === 64 ? Selector.code64 : bits === 32 ? Selector.code32 : Selector.code16, bits === 16 ? Selector.data16 : Selector.data] : [bits === 64 ? Selector.userCode64 : bits === 32 ? Selector.userCode32 : Selector.userCode16, bits === 16 ? Selector.userData16 : Selector.userData];
    const limit = bits === 16 ? 0xffff : 0xffff_ffff;
    for (let segment = 0; segment < 6; segment++) {
      if (segment === 1) set(1, (codeSelector & ~3) | cpl, 0, limit, (bits === 64 ? 0x00a0_9b00 : bits === 32 ? 0x00c0_9b00 : 0x0000_9b00) | dpl);
      else set(segment, (dataSelector & ~3) | cpl, segment === 4 ? 0x100 : 0, limit, (bits === 16 ? 0x0000_9300 : 0x00c0_9300) | dpl);
    }
  }
  set(6, Selector.ldt, LDT, 0x7f, 0x8200);
  set(7, Selector.tss, TSS, 0x7ff, 0x8b00);
  vcpu.set64(state.STAR, 0x0033_0008_0000_8000n);
  vcpu.set64(state.LSTAR, BigInt(code + 0x20));
  vcpu.set64(state.CSTAR, BigInt(code + 0x20));
  vcpu.set64(state.SFMASK, 0x200n);
  vcpu.set64(state.SYSENTER_CS, 8n);
  vcpu.set64(state.SYSENTER_ESP, BigInt(stack));
  vcpu.set64(state.SYSENTER_EIP, BigInt(code + 0x20));
  vcpu.rflags = flags | (mode === 'virtual-8086' ? Flag.virtual8086 : 0n);
  setCpl(vcpu, mode === 'virtual-8086' ? 3 : cpl);
}

/** The vCPU's state at the beginning of a stream, for each variant of a mode. */
export function statesOf(vcpu: Vcpu, mode: ModeName): { name: string; bytes: Uint8Array }[] {
  return variantsOf(mode).map((variant) => {
    enter(vcpu, mode, variant);
    return { name: variant.name, bytes: vcpu.memory.bytes.slice(vcpu.base, vcpu.base + state.VCPU_STATE_SIZE) };
  });
}

/** Where a stream that begins at `offset` in the code has its first instruction, as RIP. */
export const ripOf = (mode: ModeName, offset: number): number => (mode === 'real' || mode === 'virtual-8086' ? offset : code + offset);
/** Top of the stack that a stream begins with. */
export const stackOf = (mode: ModeName, cpl: number): number => (cpl === 3 || mode === 'virtual-8086' ? USER_STACK : stack);
