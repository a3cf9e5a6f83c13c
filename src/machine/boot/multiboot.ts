/**
 * Multiboot 1: enters a kernel in flat 32-bit protected mode, loaded from ELF32, ELF64 or where its header says (the a.out kludge).
 * Source: Multiboot Specification 0.6.96. Not modelled: boot device, drives, APM, VBE and frame buffers; the initrd is the one module.
 */
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { E820_TYPE_NUMBER } from '../memory-map.ts';
import { BootError } from './boot-error.ts';
import { COMMAND_LINE, PAGE_TABLES, placeInitrd, requireRoom, START_INFO, STACK_TOP, writeCommandLine } from './boot-layout.ts';
import { type BootState, protectedModeState } from './boot-state.ts';
import type { BootInputs } from './bzimage.ts';
import { type ElfSegment, isElf, parseElf } from './elf.ts';

const HEADER_MAGIC = 0x1bad_b002;
/** What EAX holds when the kernel is entered. */
export const LOADER_MAGIC = 0x2bad_b002;
/** The header lies in the first 8 KiB, on a 4-byte boundary. */
const SEARCH_BYTES = 8192;
/** Flags: a loader that does not know a bit below 16 must refuse the kernel. Alignment and memory information are always given. */
const Flag = { pageAligned: 1 << 0, memoryInformation: 1 << 1, addresses: 1 << 16 } as const;
const KNOWN_REQUIREMENTS = Flag.pageAligned | Flag.memoryInformation;

/** Offsets in the information structure, and which of them hold something. */
const Info = { flags: 0, memoryLower: 4, memoryUpper: 8, commandLine: 16, moduleCount: 20, modules: 24, mapLength: 44, map: 48, loaderName: 64, size: 120 } as const;
const INFO_FLAGS = (1 << 0) | (1 << 2) | (1 << 3) | (1 << 6) | (1 << 9);
const MODULE_SIZE = 16;
const MAP_ENTRY_SIZE = 24;
const LOADER_NAME = 'Exitless';
/** The command line's first word is the kernel's name, which nobody told us. */
const KERNEL_NAME = 'kernel';
const COMMAND_LINE_SIZE = 4095;
const MODULE_ADDRESS_MAX = 0x7fff_ffff;
const CONVENTIONAL_KIB = 639;

interface MultibootHeader {
  /** Of the header in the file. */
  offset: number;
  flags: number;
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function findHeader(bytes: Uint8Array): MultibootHeader | undefined {
  const view = viewOf(bytes);
  for (let offset = 0; offset + 12 <= Math.min(bytes.length, SEARCH_BYTES); offset += 4) {
    if (view.getUint32(offset, true) !== HEADER_MAGIC) continue;
    const flags = view.getUint32(offset + 4, true);
    const checksum = view.getUint32(offset + 8, true);
    if ((HEADER_MAGIC + flags + checksum) % 2 ** 32 === 0) return { offset, flags };
  }
  return undefined;
}

export const isMultiboot = (bytes: Uint8Array): boolean => findHeader(bytes) !== undefined;

/** Puts the kernel's segments, the initrd as a module, command line and memory map in memory; the state enters the kernel. */
export function loadMultiboot(memory: GuestMemory, kernel: Uint8Array, inputs: BootInputs): BootState {
  const header = findHeader(kernel);
  if (!header) throw new BootError('the kernel has no multiboot header in its first 8 KiB');
  const unknown = header.flags & 0xffff & ~KNOWN_REQUIREMENTS;
  // Bit 2 asks for a video mode, which a text console cannot give but a kernel can live without.
  if (unknown & ~4) throw new BootError(`the kernel requires what this multiboot loader does not have: flags 0x${unknown.toString(16)}`);
  const { entry, segments } = header.flags & Flag.addresses ? loadAddresses(kernel, header) : elfSegments(kernel);
  let end = 0;
  for (const { guestPhysical, memoryBytes } of segments) {
    requireRoom(memory, guestPhysical + memoryBytes);
    end = Math.max(end, guestPhysical + memoryBytes);
    if (guestPhysical < PAGE_TABLES && guestPhysical + memoryBytes > 0x1000) throw new BootError('the kernel wants to be loaded below 36 KiB, where the boot data lies');
    if (guestPhysical < COMMAND_LINE + COMMAND_LINE_SIZE && guestPhysical + memoryBytes > COMMAND_LINE) throw new BootError('the kernel wants to be loaded at 128 KiB, where its command line lies');
  }
  for (const { guestPhysical, data, memoryBytes } of segments) {
    memory.slice(guestPhysical, memoryBytes).fill(0, data.length);
    memory.slice(guestPhysical, data.length).set(data);
    memory.onWrite(guestPhysical, memoryBytes);
  }
  writeCommandLine(memory, inputs.append === '' ? KERNEL_NAME : `${KERNEL_NAME} ${inputs.append}`, COMMAND_LINE_SIZE);
  writeInformation(memory, inputs, end);
  return protectedModeState(memory, { rip: entry, registers: { rax: LOADER_MAGIC, rbx: START_INFO, rsp: STACK_TOP }, kernelVersion: '' });
}

function elfSegments(kernel: Uint8Array): { entry: number; segments: ElfSegment[] } {
  if (!isElf(kernel)) throw new BootError('the multiboot kernel is no ELF file, and its header gives no addresses');
  const image = parseElf(kernel, 'any');
  if (image.entry >= 2 ** 32) throw new BootError(`the kernel's entry point 0x${image.entry.toString(16)} is not in the low 4 GiB, where multiboot enters`);
  return image;
}

/** What the header says itself, instead of ELF program headers. */
function loadAddresses(kernel: Uint8Array, { offset }: MultibootHeader): { entry: number; segments: ElfSegment[] } {
  if (offset + 32 > kernel.length) throw new BootError('the kernel is truncated: its multiboot header is cut off');
  const view = viewOf(kernel);
  const [headerAddress, loadAddress, loadEnd, bssEnd, entry] = [12, 16, 20, 24, 28].map((at) => view.getUint32(offset + at, true));
  const start = offset - (headerAddress - loadAddress);
  if (headerAddress < loadAddress || start < 0) throw new BootError('the kernel is corrupt: its multiboot load address lies behind its header');
  const bytes = loadEnd === 0 ? kernel.length - start : loadEnd - loadAddress;
  if (bytes <= 0 || start + bytes > kernel.length) throw new BootError('the kernel is truncated: its multiboot header asks for more than the file has');
  const memoryBytes = bssEnd === 0 ? bytes : bssEnd - loadAddress;
  if (memoryBytes < bytes) throw new BootError('the kernel is corrupt: its multiboot bss ends before its data');
  return { entry, segments: [{ guestPhysical: loadAddress, data: kernel.subarray(start, start + bytes), memoryBytes }] };
}

function writeInformation(memory: GuestMemory, inputs: BootInputs, kernelEnd: number): void {
  const initrd = inputs.initrd && placeInitrd(memory, inputs.initrd, kernelEnd, MODULE_ADDRESS_MAX);
  const modules = Info.size;
  const map = modules + (initrd ? MODULE_SIZE : 0);
  const name = map + inputs.e820.length * MAP_ENTRY_SIZE;
  const info = new Uint8Array(name + LOADER_NAME.length + 1);
  const view = viewOf(info);
  const u32 = (offset: number, value: number): void => view.setUint32(offset, value, true);
  const upper = inputs.e820.find(({ guestPhysical, type }) => type === 'usable' && guestPhysical === 0x10_0000);
  u32(Info.flags, INFO_FLAGS);
  u32(Info.memoryLower, CONVENTIONAL_KIB);
  u32(Info.memoryUpper, upper ? upper.bytes / 1024 : 0);
  u32(Info.commandLine, COMMAND_LINE);
  u32(Info.moduleCount, initrd ? 1 : 0);
  u32(Info.modules, START_INFO + modules);
  u32(Info.mapLength, inputs.e820.length * MAP_ENTRY_SIZE);
  u32(Info.map, START_INFO + map);
  u32(Info.loaderName, START_INFO + name);
  if (initrd) {
    u32(modules, initrd.guestPhysical);
    u32(modules + 4, initrd.guestPhysical + initrd.bytes);
    u32(modules + 8, COMMAND_LINE);
  }
  inputs.e820.forEach((entry, index) => {
    const offset = map + index * MAP_ENTRY_SIZE;
    // An entry's size field lies in front of it and does not count itself.
    u32(offset, MAP_ENTRY_SIZE - 4);
    view.setBigUint64(offset + 4, BigInt(entry.guestPhysical), true);
    view.setBigUint64(offset + 12, BigInt(entry.bytes), true);
    u32(offset + 20, E820_TYPE_NUMBER[entry.type]);
  });
  info.set(new TextEncoder().encode(LOADER_NAME), name);
  memory.write(START_INFO, info);
}
