/**
 * Linux's bzImage: its setup header, and loading it for the 64-bit entry point, or the 32-bit one of a kernel that has no
 * other, where the guest unpacks itself.
 * Source: the kernel's Documentation/x86/boot.rst and zero-page.rst (protocol 2.06 to 2.15).
 * Not modelled: the real-mode entry point, EFI hand-over, setup_data.
 */
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { E820_TYPE_NUMBER, type E820Entry, HIGH_MEMORY_BASE } from '../memory-map.ts';
import { BootError } from './boot-error.ts';
import {
  COMMAND_LINE,
  PAGE_TABLES,
  type PlacedFile,
  placeInitrd,
  requireRoom,
  writeCommandLine,
  ZERO_PAGE,
} from './boot-layout.ts';
import { type BootState, longModeState, protectedModeState } from './boot-state.ts';

const SECTOR = 512;
const BOOT_FLAG = 0xaa55;
const HEADER_MAGIC = 0x5372_6448; // "HdrS"

/** Offsets in the image, and the same in boot_params: the setup header is copied to its own place. */
const Header = {
  setupSectors: 0x1f1,
  systemSize: 0x1f4,
  bootFlag: 0x1fe,
  jumpOffset: 0x201,
  magic: 0x202,
  version: 0x206,
  kernelVersion: 0x20e,
  typeOfLoader: 0x210,
  loadFlags: 0x211,
  ramdiskImage: 0x218,
  ramdiskSize: 0x21c,
  commandLinePointer: 0x228,
  initrdAddressMax: 0x22c,
  kernelAlignment: 0x230,
  relocatableKernel: 0x234,
  extendedLoadFlags: 0x236,
  commandLineSize: 0x238,
  payloadOffset: 0x248,
  payloadLength: 0x24c,
  preferredAddress: 0x258,
  initSize: 0x260,
} as const;
const SETUP_HEADER_START = Header.setupSectors;
/** The header ends where its first jump instruction leads, at most here. */
const SETUP_HEADER_LIMIT = 0x290;

/** Fields of boot_params outside of the setup header. */
const ZeroPage = { acpiRsdpAddress: 0x70, e820Entries: 0x1e8, e820Table: 0x2d0 } as const;
const E820_ENTRY_SIZE = 20;
const E820_MAX_ENTRIES = 128;

const LOADED_HIGH = 1 << 0;
const XLF_KERNEL_64 = 1 << 0;
const LOADER_UNDEFINED = 0xff;
const FIRST_VERSION = 0x0206;
const PAYLOAD_VERSION = 0x0208;
const ENTRY_64_VERSION = 0x020c;
/** startup_64 lies this far behind the start of the protected-mode kernel. */
const ENTRY_64_OFFSET = 0x200;

/** A parsed bzImage. Addresses and sizes are in bytes. */
export interface BzImage {
  bytes: Uint8Array;
  /** Boot protocol, major << 8 | minor. */
  protocolVersion: number;
  /** What `uname -r` will say and more, from the image. */
  kernelVersion: string;
  loadFlags: number;
  extendedLoadFlags: number;
  relocatable: boolean;
  kernelAlignment: number;
  preferredAddress: number;
  /** Memory the kernel needs from its run-time start until it has read the memory map. */
  initSize: number;
  initrdAddressMax: number;
  /** Longest command line without its NUL. */
  commandLineSize: number;
  setupHeader: Uint8Array;
  protectedModeKernel: Uint8Array;
  /** The packed vmlinux with the four bytes that say its unpacked size; absent before protocol 2.08. */
  payload: Uint8Array | undefined;
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const versionText = (version: number): string => `${version >> 8}.${String(version & 0xff).padStart(2, '0')}`;

/** Whether the bytes say that they are a bzImage; the rest may still be corrupt. */
export function isBzImage(bytes: Uint8Array): boolean {
  if (bytes.length < Header.version) return false;
  const view = viewOf(bytes);
  return view.getUint16(Header.bootFlag, true) === BOOT_FLAG && view.getUint32(Header.magic, true) === HEADER_MAGIC;
}

/** Reads the setup header. Throws a BootError where the image is corrupt or too old. */
export function parseBzImage(bytes: Uint8Array): BzImage {
  if (!isBzImage(bytes)) throw new BootError('the kernel is not a bzImage: it has no boot header (HdrS)');
  if (bytes.length < SETUP_HEADER_LIMIT) throw new BootError(`the kernel is truncated: its file has ${bytes.length} bytes`);
  const view = viewOf(bytes);
  const u8 = (offset: number): number => view.getUint8(offset);
  const u32 = (offset: number): number => view.getUint32(offset, true);
  const protocolVersion = view.getUint16(Header.version, true);
  if (protocolVersion < FIRST_VERSION) {
    throw new BootError(
      `the kernel is too old: boot protocol ${versionText(protocolVersion)}, ${versionText(FIRST_VERSION)} is needed`,
    );
  }
  const loadFlags = u8(Header.loadFlags);
  if (!(loadFlags & LOADED_HIGH)) throw new BootError('the kernel is a zImage that loads low; a bzImage is needed');

  const setupBytes = ((u8(Header.setupSectors) || 4) + 1) * SECTOR;
  const kernelBytes = u32(Header.systemSize) * 16;
  // Signed kernels are longer than they say; the last paragraph may be cut short.
  if (kernelBytes === 0 || bytes.length + 15 < setupBytes + kernelBytes) {
    throw new BootError(`the kernel is truncated: it needs ${setupBytes + kernelBytes} bytes, its file has ${bytes.length}`);
  }
  const protectedModeKernel = bytes.subarray(setupBytes, setupBytes + kernelBytes);
  const hasPayload = protocolVersion >= PAYLOAD_VERSION;
  const hasInitSize = protocolVersion >= 0x020a;
  const payloadStart = hasPayload ? u32(Header.payloadOffset) : 0;
  const payloadEnd = payloadStart + (hasPayload ? u32(Header.payloadLength) : 0);
  if (payloadEnd > protectedModeKernel.length) throw new BootError('the kernel is corrupt: its payload lies outside of it');
  const preferredAddress = hasInitSize ? Number(view.getBigUint64(Header.preferredAddress, true)) : HIGH_MEMORY_BASE;
  if (preferredAddress < HIGH_MEMORY_BASE || preferredAddress >= 2 ** 32) {
    throw new BootError(`the kernel is corrupt: it wants to be loaded at 0x${preferredAddress.toString(16)}`);
  }
  const headerEnd = Math.min(Header.magic + u8(Header.jumpOffset), SETUP_HEADER_LIMIT);
  return {
    bytes,
    protocolVersion,
    kernelVersion: readVersion(bytes, view.getUint16(Header.kernelVersion, true), setupBytes),
    loadFlags,
    extendedLoadFlags: protocolVersion >= ENTRY_64_VERSION ? view.getUint16(Header.extendedLoadFlags, true) : 0,
    relocatable: u8(Header.relocatableKernel) !== 0,
    kernelAlignment: u32(Header.kernelAlignment),
    preferredAddress,
    initSize: Math.max(hasInitSize ? u32(Header.initSize) : 0, kernelBytes),
    initrdAddressMax: u32(Header.initrdAddressMax),
    commandLineSize: u32(Header.commandLineSize),
    setupHeader: bytes.subarray(SETUP_HEADER_START, headerEnd),
    protectedModeKernel,
    payload: payloadEnd > payloadStart ? protectedModeKernel.subarray(payloadStart, payloadEnd) : undefined,
  };
}

/** The version is a NUL-terminated text in the setup part, named by its offset less 0x200. */
function readVersion(bytes: Uint8Array, pointer: number, setupBytes: number): string {
  const start = pointer + SECTOR;
  if (pointer === 0 || start >= setupBytes) return '';
  const end = bytes.subarray(start, setupBytes).indexOf(0);
  return new TextDecoder('latin1').decode(bytes.subarray(start, end < 0 ? setupBytes : start + end));
}

/** Everything a kernel is told: by boot_params here, by hvm_start_info in pvh.ts. */
export interface BootInputs {
  append: string;
  initrd?: Uint8Array | undefined;
  e820: readonly E820Entry[];
  rsdpGuestPhysical: number;
}

/** Puts kernel, initrd, command line and boot_params in memory; the state enters startup_64, or startup_32 of a 32-bit kernel. */
export function loadBzImage(memory: GuestMemory, image: BzImage, inputs: BootInputs): BootState {
  const kernelAddress = image.preferredAddress;
  const kernelEnd = kernelAddress + image.initSize;
  requireRoom(memory, kernelEnd);
  memory.write(kernelAddress, image.protectedModeKernel);
  writeCommandLine(memory, inputs.append, image.commandLineSize);
  const initrd = inputs.initrd && placeInitrd(memory, inputs.initrd, kernelEnd, image.initrdAddressMax);
  memory.write(ZERO_PAGE, bootParameters(image, inputs, initrd));
  const entry = { registers: { rsi: ZERO_PAGE }, kernelVersion: image.kernelVersion };
  const has64BitEntry = image.protocolVersion >= ENTRY_64_VERSION && (image.extendedLoadFlags & XLF_KERNEL_64) !== 0;
  if (!has64BitEntry) return protectedModeState(memory, { ...entry, rip: kernelAddress });
  writePageTables(memory);
  return longModeState(memory, { ...entry, rip: kernelAddress + ENTRY_64_OFFSET, cr3: PAGE_TABLES });
}

function bootParameters(image: BzImage, inputs: BootInputs, initrd: PlacedFile | undefined): Uint8Array {
  const bytes = new Uint8Array(4096);
  const view = viewOf(bytes);
  bytes.set(image.setupHeader, SETUP_HEADER_START);
  view.setUint8(Header.typeOfLoader, LOADER_UNDEFINED);
  view.setUint32(Header.commandLinePointer, COMMAND_LINE, true);
  view.setUint32(Header.ramdiskImage, initrd?.guestPhysical ?? 0, true);
  view.setUint32(Header.ramdiskSize, initrd?.bytes ?? 0, true);
  view.setBigUint64(ZeroPage.acpiRsdpAddress, BigInt(inputs.rsdpGuestPhysical), true);
  if (inputs.e820.length > E820_MAX_ENTRIES) throw new RangeError(`${inputs.e820.length} E820 entries`);
  view.setUint8(ZeroPage.e820Entries, inputs.e820.length);
  inputs.e820.forEach((entry, index) => {
    const offset = ZeroPage.e820Table + index * E820_ENTRY_SIZE;
    view.setBigUint64(offset, BigInt(entry.guestPhysical), true);
    view.setBigUint64(offset + 8, BigInt(entry.bytes), true);
    view.setUint32(offset + 16, E820_TYPE_NUMBER[entry.type], true);
  });
  return bytes;
}

/** Maps the first 4 GiB to themselves by 2 MiB pages: one PML4, one PDPT and four page directories. */
function writePageTables(memory: GuestMemory): void {
  const PRESENT_WRITABLE = 0b11;
  const LARGE = 1 << 7;
  const tables = new BigUint64Array(6 * 512);
  const directory = (index: number): number => PAGE_TABLES + (2 + index) * 4096;
  tables[0] = BigInt(PAGE_TABLES + 4096 + PRESENT_WRITABLE);
  for (let gib = 0; gib < 4; gib++) {
    tables[512 + gib] = BigInt(directory(gib) + PRESENT_WRITABLE);
    for (let entry = 0; entry < 512; entry++) {
      tables[(2 + gib) * 512 + entry] = BigInt(gib * 2 ** 30 + entry * 2 ** 21 + LARGE + PRESENT_WRITABLE);
    }
  }
  memory.write(PAGE_TABLES, new Uint8Array(tables.buffer));
}
