/**
 * Where the boot loader's own things lie in conventional memory, and how initrd and command line get into the guest.
 * Everything here is out of the kernel's way: it takes hold of low memory only after it has read what we left.
 */
import { type GuestMemory, PAGE_SIZE } from '../../memory/guest-memory.ts';
import { BIOS_DATA_AREA, COM1_PORT, CONVENTIONAL_MEMORY_END, EBDA_BASE, HIGH_MEMORY_BASE } from '../memory-map.ts';
import { BootError, sizeText } from './boot-error.ts';

export const BOOT_GDT = 0x1000;
/** PVH's hvm_start_info and the tables it points to. */
export const START_INFO = 0x2000;
export const ZERO_PAGE = 0x7000;
export const STACK_TOP = 0x9000;
export const PAGE_TABLES = 0x9000;
export const PAGE_TABLES_SIZE = 6 * PAGE_SIZE;
export const COMMAND_LINE = 0x2_0000;
const COMMAND_LINE_ROOM = 0x1_0000;

/** A file in guest memory. */
export interface PlacedFile {
  guestPhysical: number;
  bytes: number;
}

/** What the BIOS would have left about serial port, memory size and EBDA; Linux looks for room for its trampoline by it. */
export function writeBiosDataArea(memory: GuestMemory): void {
  const area = new Uint8Array(0x100);
  const view = new DataView(area.buffer);
  view.setUint16(0x00, COM1_PORT, true);
  view.setUint16(0x0e, EBDA_BASE >> 4, true);
  view.setUint16(0x13, EBDA_BASE >> 10, true);
  memory.write(BIOS_DATA_AREA, area);
  memory.write(EBDA_BASE, Uint8Array.of((CONVENTIONAL_MEMORY_END - EBDA_BASE) >> 10));
}

/** Throws where the kernel, which ends at `kernelEnd`, does not fit in the RAM below 4 GiB. */
export function requireRoom(memory: GuestMemory, kernelEnd: number): void {
  if (kernelEnd <= memory.lowBytes) return;
  const has = sizeText(memory.lowBytes);
  throw new BootError(`the kernel needs memory up to ${sizeText(kernelEnd)} and the machine has ${has}: give it more memory`);
}

/** Writes the command line and its NUL; `limit` is the longest that the kernel reads. */
export function writeCommandLine(memory: GuestMemory, append: string, limit: number): void {
  const text = new TextEncoder().encode(append);
  if (text.includes(0)) throw new BootError('the kernel command line has a NUL character in it');
  const longest = Math.min(limit, COMMAND_LINE_ROOM - 1);
  if (text.length > longest) {
    throw new BootError(`the kernel command line has ${text.length} bytes, and this kernel reads ${longest} at most`);
  }
  const bytes = new Uint8Array(text.length + 1);
  bytes.set(text);
  memory.write(COMMAND_LINE, bytes);
}

/** Copies the initrd as high as kernel and RAM below 4 GiB allow, on a page boundary, above `lowest`. */
export function placeInitrd(memory: GuestMemory, initrd: Uint8Array, lowest: number, maxAddress: number): PlacedFile {
  const end = Math.min(memory.lowBytes, maxAddress + 1);
  const guestPhysical = Math.floor((end - initrd.length) / PAGE_SIZE) * PAGE_SIZE;
  if (guestPhysical < Math.max(lowest, HIGH_MEMORY_BASE)) {
    const size = sizeText(initrd.length);
    if (initrd.length > memory.lowBytes) {
      throw new BootError(`the initrd is larger than memory: ${size} for a machine of ${sizeText(memory.lowBytes)}`);
    }
    const left = sizeText(Math.max(0, end - lowest));
    throw new BootError(`the initrd of ${size} does not fit in memory beside the kernel (${left} are left): give it more memory`);
  }
  memory.write(guestPhysical, initrd);
  return { guestPhysical, bytes: initrd.length };
}
