/**
 * An ELF64 executable of one segment with the note that tells a PVH loader the 32-bit entry. Sources: System V gABI 4 and 5,
 * Xen's elfnote.h.
 */

const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const PT_LOAD = 1;
const PT_NOTE = 4;
const ET_EXEC = 2;
const EM_X86_64 = 62;
const READ_WRITE_EXECUTE = 7;
const XEN_ELFNOTE_PHYS32_ENTRY = 18;

export interface ElfContents {
  /** Guest-physical address of the first byte. */
  base: number;
  bytes: Uint8Array;
  /** Bytes in memory: what the file does not have is zero. */
  memoryBytes: number;
  /** Guest-physical address of the 32-bit entry. */
  entry: number;
}

export function elfImage({ base, bytes, memoryBytes, entry }: ElfContents): Uint8Array {
  const name = new TextEncoder().encode('Xen\0');
  const noteBytes = 12 + name.length + 4;
  const noteOffset = HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES;
  const imageOffset = noteOffset + noteBytes;
  const file = new Uint8Array(imageOffset + bytes.length);
  const view = new DataView(file.buffer);
  const u64 = (at: number, value: number): void => view.setBigUint64(at, BigInt(value), true);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, ET_EXEC, true);
  view.setUint16(18, EM_X86_64, true);
  view.setUint32(20, 1, true);
  u64(24, entry);
  u64(32, HEADER_BYTES);
  view.setUint16(52, HEADER_BYTES, true);
  view.setUint16(54, PROGRAM_HEADER_BYTES, true);
  view.setUint16(56, 2, true);
  const programHeader = (
    at: number,
    type: number,
    offset: number,
    address: number,
    fileBytes: number,
    inMemory: number,
  ): void => {
    view.setUint32(at, type, true);
    view.setUint32(at + 4, READ_WRITE_EXECUTE, true);
    for (const [i, value] of [offset, address, address, fileBytes, inMemory, 4].entries()) u64(at + 8 + 8 * i, value);
  };
  programHeader(HEADER_BYTES, PT_LOAD, imageOffset, base, bytes.length, memoryBytes);
  programHeader(HEADER_BYTES + PROGRAM_HEADER_BYTES, PT_NOTE, noteOffset, 0, noteBytes, noteBytes);
  view.setUint32(noteOffset, name.length, true);
  view.setUint32(noteOffset + 4, 4, true);
  view.setUint32(noteOffset + 8, XEN_ELFNOTE_PHYS32_ENTRY, true);
  file.set(name, noteOffset + 12);
  view.setUint32(noteOffset + 12 + name.length, entry, true);
  file.set(bytes, imageOffset);
  return file;
}
