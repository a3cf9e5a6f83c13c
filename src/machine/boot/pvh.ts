/**
 * PVH: enters an ELF64 kernel in 32-bit protected mode at the address its Xen note names; the guest unpacks nothing.
 * Source: Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h (version 1 of the start info).
 */
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { E820_TYPE_NUMBER, HIGH_MEMORY_BASE } from '../memory-map.ts';
import { BootError } from './boot-error.ts';
import { COMMAND_LINE, placeInitrd, requireRoom, START_INFO, writeCommandLine } from './boot-layout.ts';
import { type BootState, protectedModeState } from './boot-state.ts';
import type { BootInputs } from './bzimage.ts';
import type { ElfImage } from './elf.ts';

const XEN_ELFNOTE_PHYS32_ENTRY = 18;
const START_INFO_MAGIC = 0x336e_c578;
const START_INFO_VERSION = 1;
const START_INFO_SIZE = 56;
const MODULE_SIZE = 32;
const MEMORY_MAP_ENTRY_SIZE = 24;
/** x86 Linux's COMMAND_LINE_SIZE less the NUL: it cuts off what is beyond. */
const LINUX_COMMAND_LINE_SIZE = 2047;
/** Page tables that a PVH kernel makes for itself reach at least as far. */
const INITRD_ADDRESS_MAX = 0x7fff_ffff;

/** The physical address of the 32-bit entry point, where the kernel has one. */
export function pvhEntry(image: ElfImage): number | undefined {
  const note = image.notes.find(({ name, type }) => name === 'Xen' && type === XEN_ELFNOTE_PHYS32_ENTRY);
  if (!note || note.description.length < 4) return undefined;
  return new DataView(note.description.buffer, note.description.byteOffset).getUint32(0, true);
}

/** Puts segments, initrd, command line and start info in memory; the state enters at the note's address. */
export function loadPvh(memory: GuestMemory, image: ElfImage, inputs: BootInputs, kernelVersion = ''): BootState {
  const rip = pvhEntry(image);
  if (rip === undefined) {
    throw new BootError('the kernel has no PVH entry point (CONFIG_PVH is off): boot its bzImage by --boot bzimage');
  }
  let kernelEnd = HIGH_MEMORY_BASE;
  for (const { guestPhysical, memoryBytes } of image.segments) {
    if (guestPhysical < HIGH_MEMORY_BASE)
      throw new BootError('the kernel wants to be loaded below 1 MiB, where the boot data lies');
    kernelEnd = Math.max(kernelEnd, guestPhysical + memoryBytes);
  }
  requireRoom(memory, kernelEnd);
  for (const { guestPhysical, data, memoryBytes } of image.segments) {
    memory.slice(guestPhysical, memoryBytes).fill(0, data.length);
    memory.slice(guestPhysical, data.length).set(data);
    memory.onWrite(guestPhysical, memoryBytes);
  }
  writeCommandLine(memory, inputs.append, LINUX_COMMAND_LINE_SIZE);
  const initrd = inputs.initrd && placeInitrd(memory, inputs.initrd, kernelEnd, INITRD_ADDRESS_MAX);

  const modules = initrd ? 1 : 0;
  const moduleList = START_INFO_SIZE;
  const memoryMap = moduleList + modules * MODULE_SIZE;
  const info = new Uint8Array(memoryMap + inputs.e820.length * MEMORY_MAP_ENTRY_SIZE);
  const view = new DataView(info.buffer);
  const u64 = (offset: number, value: number): void => view.setBigUint64(offset, BigInt(value), true);
  view.setUint32(0, START_INFO_MAGIC, true);
  view.setUint32(4, START_INFO_VERSION, true);
  view.setUint32(12, modules, true);
  u64(16, initrd ? START_INFO + moduleList : 0);
  u64(24, COMMAND_LINE);
  u64(32, inputs.rsdpGuestPhysical);
  u64(40, START_INFO + memoryMap);
  view.setUint32(48, inputs.e820.length, true);
  if (initrd) {
    u64(moduleList, initrd.guestPhysical);
    u64(moduleList + 8, initrd.bytes);
  }
  inputs.e820.forEach((entry, index) => {
    const offset = memoryMap + index * MEMORY_MAP_ENTRY_SIZE;
    u64(offset, entry.guestPhysical);
    u64(offset + 8, entry.bytes);
    view.setUint32(offset + 16, E820_TYPE_NUMBER[entry.type], true);
  });
  memory.write(START_INFO, info);
  return protectedModeState(memory, { rip, registers: { rbx: START_INFO }, kernelVersion });
}
