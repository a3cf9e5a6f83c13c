/**
 * ELF executables for x86: their loadable segments and notes. Source: System V gABI, chapters 4 and 5.
 * Not read: sections, relocations, dynamic linking. Kernels need none of them.
 */
import { BootError } from './boot-error.ts';

export interface ElfSegment {
  guestPhysical: number;
  data: Uint8Array;
  /** Bytes in memory; what `data` doesn't cover is zero. */
  memoryBytes: number;
}

export interface ElfNote {
  name: string;
  type: number;
  description: Uint8Array;
}

export interface ElfImage {
  entry: number;
  segments: ElfSegment[];
  notes: ElfNote[];
}

const ELF_MAGIC = 0x7f45_4c46; // "\x7fELF", big-endian
const CLASS_32 = 1;
const CLASS_64 = 2;
const LITTLE_ENDIAN = 1;
const ET_EXEC = 2;
const ET_DYN = 3;
const EM_386 = 3;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_NOTE = 4;
/** Offsets in the file header (program headers' table, their number and size) and in a program header. */
const LAYOUT_64 = { fileHeader: 64, tableOffset: 32, entrySize: 54, count: 56, headerSize: 56, fileOffset: 8, physical: 24, fileBytes: 32, memoryBytes: 40 } as const;
const LAYOUT_32 = { fileHeader: 52, tableOffset: 28, entrySize: 42, count: 44, headerSize: 32, fileOffset: 4, physical: 12, fileBytes: 16, memoryBytes: 20 } as const;

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export function isElf(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && viewOf(bytes).getUint32(0) === ELF_MAGIC;
}

/** Reads the program headers. Throws a BootError where the file is corrupt or for another machine: 64-bit x86, or with `any` 32-bit too. */
export function parseElf(bytes: Uint8Array, wanted: '64-bit' | 'any' = '64-bit'): ElfImage {
  if (!isElf(bytes)) throw new BootError('the kernel is not an ELF file');
  const cutOff = (): never => {
    throw new BootError('the kernel is truncated: its ELF header is cut off');
  };
  if (bytes.length < LAYOUT_32.fileHeader) cutOff();
  const view = viewOf(bytes);
  const type = view.getUint16(16, true);
  const machine = view.getUint16(18, true);
  const wide = bytes[4] === CLASS_64;
  const narrow = bytes[4] === CLASS_32 && wanted === 'any' && machine === EM_386;
  if (bytes[5] !== LITTLE_ENDIAN || !(narrow || (wide && machine === EM_X86_64))) {
    throw new BootError('the kernel is an ELF file for another machine: one for 64-bit x86 is needed');
  }
  if (type !== ET_EXEC && type !== ET_DYN) throw new BootError('the kernel is an ELF file, but not an executable');
  const layout = wide ? LAYOUT_64 : LAYOUT_32;
  if (bytes.length < layout.fileHeader) cutOff();
  const word = (offset: number): number => (wide ? Number(view.getBigUint64(offset, true)) : view.getUint32(offset, true));
  const tableOffset = word(layout.tableOffset);
  const count = view.getUint16(layout.count, true);
  if (view.getUint16(layout.entrySize, true) !== layout.headerSize) throw new BootError('the kernel is corrupt: its ELF program headers are odd');
  if (tableOffset + count * layout.headerSize > bytes.length) throw new BootError('the kernel is truncated: its ELF program headers are cut off');
  const image: ElfImage = { entry: word(24), segments: [], notes: [] };
  for (let index = 0; index < count; index++) {
    const header = tableOffset + index * layout.headerSize;
    const kind = view.getUint32(header, true);
    if (kind !== PT_LOAD && kind !== PT_NOTE) continue;
    const offset = word(header + layout.fileOffset);
    const fileBytes = word(header + layout.fileBytes);
    const memoryBytes = word(header + layout.memoryBytes);
    if (offset + fileBytes > bytes.length)
      throw new BootError('the kernel is truncated: an ELF segment lies outside of its file');
    const data = bytes.subarray(offset, offset + fileBytes);
    if (kind === PT_NOTE) image.notes.push(...parseNotes(data));
    else if (fileBytes > memoryBytes)
      throw new BootError('the kernel is corrupt: an ELF segment is larger in the file than in memory');
    else if (memoryBytes > 0) image.segments.push({ guestPhysical: word(header + layout.physical), data, memoryBytes });
  }
  if (image.segments.length === 0) throw new BootError('the kernel is corrupt: its ELF file has nothing to load');
  return image;
}

/** Notes are name and description behind three words, each padded to four bytes. */
function parseNotes(data: Uint8Array): ElfNote[] {
  const view = viewOf(data);
  const padded = (bytes: number): number => Math.ceil(bytes / 4) * 4;
  const notes: ElfNote[] = [];
  for (let offset = 0; offset + 12 <= data.length; ) {
    const nameBytes = view.getUint32(offset, true);
    const descriptionStart = offset + 12 + padded(nameBytes);
    const descriptionEnd = descriptionStart + view.getUint32(offset + 4, true);
    if (descriptionEnd > data.length) throw new BootError('the kernel is corrupt: an ELF note runs past its segment');
    const name = new TextDecoder('latin1').decode(data.subarray(offset + 12, offset + 12 + nameBytes)).replace(/\0+$/, '');
    notes.push({ name, type: view.getUint32(offset + 8, true), description: data.subarray(descriptionStart, descriptionEnd) });
    offset = descriptionStart + padded(descriptionEnd - descriptionStart);
  }
  return notes;
}
