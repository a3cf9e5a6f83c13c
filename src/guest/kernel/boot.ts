/**
 * From PVH's 32-bit entry to the kernel's mode, and the trampoline that brings application processors there. SDM 3A 10.8.5, 9.4.
 */

import { type Assembler, assembler, type ObjectCode } from '../assembler/assembler.ts';
import { type LinkedImage, link } from '../assembler/linker.ts';
import { address, ax, cr0, cr3, cr4, ds, dword, eax, ebx, ecx, edi, es, esi, esp, far, mem, ss } from '../assembler/operands.ts';
import type { GuestBits } from '../apic/guest-abi.ts';
import { PAGE_BYTES, PER_CPU_BYTES, Selector, TRAMPOLINE } from './layout.ts';

const CR0_PE = 1 << 0;
const CR0_PG = 1 << 31;
const CR4_PAE = 1 << 5;
const MSR_EFER = 0xc000_0080;
const EFER_LME = 1 << 8;

const GIB_PER_SPACE = 4;
export const PAGE_ENTRIES = 512;
export const LARGE_PAGE_SHIFT = 21;
export const PRESENT_WRITABLE = 0b11;
export const LARGE_PAGE = 1 << 7;

/** Null, flat 32-bit code, data, 64-bit code; in the 32-bit kernel a data segment for each per-CPU area follows. */
const DESCRIPTORS = [0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn, 0x00af_9b00_0000_ffffn];

function flatSegments(a: Assembler): void {
  a.mov(eax, Selector.data);
  for (const segment of [ds, es, ss]) a.mov(segment, ax);
}

/** Turns on paging and long mode, from flat 32-bit code; the far jump that must follow is the caller's. */
function enterLongMode(a: Assembler, pageTables: () => void): void {
  a.mov(eax, cr4);
  a.or(eax, CR4_PAE);
  a.mov(cr4, eax);
  pageTables();
  a.mov(cr3, eax);
  a.mov(ecx, MSR_EFER);
  a.rdmsr();
  a.or(eax, EFER_LME);
  a.wrmsr();
  a.mov(eax, cr0);
  a.or(eax, CR0_PG | CR0_PE);
  a.mov(cr0, eax);
}

/** The image's first object: entered with EBX at the start info. */
export function bootCode(bits: GuestBits): ObjectCode {
  const a = assembler(32).align(16).label('pvh_entry');
  a.cli();
  a.cld();
  a.mov(dword(address('start_info')), ebx);
  a.lgdt(mem(address('gdt_pointer')));
  a.jmpFar(far(Selector.code32, address('pvh_entry.flat')));
  a.label('.flat');
  flatSegments(a);
  a.mov(esp, address('per_cpu_areas', PER_CPU_BYTES));
  // The trampoline goes where real mode reaches it.
  a.mov(esi, address('trampoline'));
  a.mov(edi, TRAMPOLINE);
  a.mov(ecx, address('trampoline_bytes'));
  a.rep().movsb();
  if (bits === 32) return a.jmp('kernel_main').assemble();
  enterLongMode(a, () => a.mov(eax, address('pml4')));
  a.jmpFar(far(Selector.code64, address('pvh_entry.long')));
  a.use(64);
  a.label('.long');
  a.mov(esp, address('per_cpu_areas', PER_CPU_BYTES));
  a.jmp('kernel_main');
  return a.assemble();
}

/** Real mode at its own page, then as above. It takes what it needs to know from the kernel's fixed addresses. */
export function trampolineImage(bits: GuestBits, kernel: { gdt: number; pml4: number; secondaryStart: number }): Uint8Array {
  const a = assembler(16).label('start');
  a.cli();
  a.xor(eax, eax);
  a.mov(ds, ax);
  a.lgdt(mem(address('start.gdt')));
  a.mov(eax, cr0);
  a.or(eax, CR0_PE);
  a.mov(cr0, eax);
  a.jmpFar(far(Selector.code32, address('start.flat')));
  a.label('.gdt').dw(GDT_LIMIT).dd(address('gdt'));
  a.use(32);
  a.label('.flat');
  flatSegments(a);
  if (bits === 32) {
    a.mov(eax, address('secondary_start'));
    a.jmp(eax);
  } else {
    enterLongMode(a, () => a.mov(eax, address('pml4')));
    a.jmpFar(far(Selector.code64, address('secondary_start')));
  }
  const image: LinkedImage = link([a.assemble()], {
    base: TRAMPOLINE,
    absolute: { gdt: kernel.gdt, pml4: kernel.pml4, secondary_start: kernel.secondaryStart },
  });
  if (image.bytes.length > PAGE_BYTES) throw new Error('the trampoline is larger than a page');
  return image.bytes;
}

/** Room for a segment of each CPU. */
const GDT_ENTRIES = Selector.perCpu / 8 + 64;
const GDT_LIMIT = GDT_ENTRIES * 8 - 1;

/**
 * GDT and its pointer; page tables that map 4 GiB one to one, and the last GiB of them again at the end of the address space;
 * in front of that a window for devices beyond 4 GiB, empty at first.
 */
export function bootTables(bits: GuestBits): ObjectCode[] {
  const gdt = assembler(32)
    .align(16, 0)
    .label('gdt')
    .dq(...DESCRIPTORS);
  gdt.reserve((GDT_ENTRIES - DESCRIPTORS.length) * 8);
  gdt.label('gdt_pointer').dw(GDT_LIMIT).dd(address('gdt'));
  if (bits === 32) return [gdt.assemble()];
  const directories = new BigUint64Array(GIB_PER_SPACE * PAGE_ENTRIES).map(
    (_, i) => (BigInt(i) << BigInt(LARGE_PAGE_SHIFT)) | BigInt(PRESENT_WRITABLE | LARGE_PAGE),
  );
  const tables = assembler(64).align(PAGE_BYTES, 0).label('page_directories').db(new Uint8Array(directories.buffer));
  const directory = (gib: number) => address('page_directories', gib * PAGE_BYTES + PRESENT_WRITABLE);
  tables.label('pdpt');
  for (let gib = 0; gib < GIB_PER_SPACE; gib++) tables.dq(directory(gib));
  tables.reserve((PAGE_ENTRIES - GIB_PER_SPACE - 2) * 8).dq(address('mmio_window_directory', PRESENT_WRITABLE), directory(GIB_PER_SPACE - 1));
  tables
    .label('pml4')
    .dq(address('pdpt', PRESENT_WRITABLE))
    .reserve((PAGE_ENTRIES - 2) * 8)
    .dq(address('pdpt', PRESENT_WRITABLE));
  tables.label('mmio_window_directory').reserve(PAGE_BYTES);
  return [gdt.assemble(), tables.assemble()];
}
