/** Small kernel images in the formats that boot: for tests of loaders, and for fuzzing them. */

import { gzipSync } from 'node:zlib';

const MIB = 2 ** 20;
export const PVH_ENTRY = 0x100_0040;

export interface ElfOptions {
  note?: { name?: string; type: number; entry: number } | undefined;
  segments?: { guestPhysical: number; data: Uint8Array; memoryBytes: number }[];
}

/** An ELF64 executable; by default with code at 16 MiB, and a Xen note behind another one. */
export function elf({
  note = { type: 18, entry: PVH_ENTRY },
  segments = [{ guestPhysical: 16 * MIB, data: Buffer.from('CODE'), memoryBytes: 0x2000 }],
}: ElfOptions = {}): Buffer {
  const notes: Buffer[] = [];
  const addNote = (name: string, type: number, description: Buffer): void => {
    const header = Buffer.alloc(12);
    const padded = Buffer.alloc(Math.ceil((name.length + 1) / 4) * 4);
    padded.write(name, 'latin1');
    header.writeUInt32LE(name.length + 1, 0);
    header.writeUInt32LE(description.length, 4);
    header.writeUInt32LE(type, 8);
    notes.push(header, padded, description);
  };
  addNote('GNU', 18, Buffer.alloc(8, 0xee));
  if (note) {
    const description = Buffer.alloc(8);
    description.writeUInt32LE(note.entry);
    addNote(note.name ?? 'Xen', note.type, description);
  }
  const noteData = Buffer.concat(notes);
  const parts = [
    { kind: 4, guestPhysical: 0, data: noteData, memoryBytes: noteData.length },
    ...segments.map((segment) => ({ kind: 1, ...segment })),
  ];
  const header = Buffer.alloc(64);
  Buffer.from('\x7fELF\x02\x01\x01', 'latin1').copy(header);
  header.writeUInt16LE(2, 16);
  header.writeUInt16LE(62, 18);
  header.writeBigUInt64LE(64n, 32);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(parts.length, 56);
  let offset = 64 + 56 * parts.length;
  const headers = parts.map(({ kind, guestPhysical, data, memoryBytes }) => {
    const bytes = Buffer.alloc(56);
    bytes.writeUInt32LE(kind, 0);
    [offset, 0xffff_ffff_8100_0000, guestPhysical, data.length, memoryBytes].forEach((value, index) => {
      bytes.writeBigUInt64LE(BigInt(value), 8 + 8 * index);
    });
    offset += data.length;
    return bytes;
  });
  return Buffer.concat([header, ...headers, ...parts.map(({ data }) => data)]);
}

/** A bzImage of protocol 2.15 with one setup sector behind the boot sector, which carries `vmlinux` packed by gzip. */
export function bzImage(change: (image: Buffer) => void = () => {}, vmlinux = elf()): Buffer {
  const payload = gzipSync(vmlinux);
  const kernel = Buffer.alloc(Math.ceil((0x300 + payload.length) / 16) * 16, 0xcc);
  payload.copy(kernel, 0x300);
  const setup = Buffer.alloc(1024);
  setup.writeUInt8(1, 0x1f1);
  setup.writeUInt32LE(kernel.length / 16, 0x1f4);
  setup.writeUInt16LE(0xaa55, 0x1fe);
  setup.writeUInt16LE(0x6aeb, 0x200);
  setup.write('HdrS', 0x202);
  setup.writeUInt16LE(0x020f, 0x206);
  setup.writeUInt16LE(0x100, 0x20e);
  setup.write('6.1.0-test\0', 0x300, 'latin1');
  setup.writeUInt8(1, 0x211);
  setup.writeUInt32LE(0x7fff_ffff, 0x22c);
  setup.writeUInt32LE(0x20_0000, 0x230);
  setup.writeUInt8(1, 0x234);
  setup.writeUInt16LE(0x7f, 0x236);
  setup.writeUInt32LE(255, 0x238);
  setup.writeUInt32LE(0x300, 0x248);
  setup.writeUInt32LE(payload.length, 0x24c);
  setup.writeBigUInt64LE(BigInt(16 * MIB), 0x258);
  setup.writeUInt32LE(8 * MIB, 0x260);
  const image = Buffer.concat([setup, kernel]);
  change(image);
  return image;
}
