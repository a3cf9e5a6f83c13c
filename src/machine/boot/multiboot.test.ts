import { beforeEach, describe, expect, it } from 'vitest';
import { GuestMemory } from '../../memory/guest-memory.ts';
import { prepareBoot } from './boot.ts';
import type { BootState } from './boot-state.ts';

const MIB = 2 ** 20;
const FLAGS = 3;
const CODE = Uint8Array.of(0xf4, 0xeb, 0xfd);
const CODE_OFFSET = 0x100;

let memory: GuestMemory;
beforeEach(() => {
  memory = new GuestMemory({ ramBytes: 64 * MIB });
});

const u32 = (guestPhysical: number): number => new DataView(memory.slice(guestPhysical, 4).buffer, memory.slice(guestPhysical, 4).byteOffset).getUint32(0, true);
const text = (guestPhysical: number, bytes: number): string => Buffer.from(memory.slice(guestPhysical, bytes)).toString('latin1');
const boot = (kernel: Uint8Array, initrd?: Uint8Array, append = ''): BootState => prepareBoot(memory, { kernel, initrd, append, method: 'auto', acpi: { apicIds: [0] } });

function header(flags: number, addresses: number[] = []): Buffer {
  const bytes = Buffer.alloc(32);
  [0x1bad_b002, flags, (-0x1bad_b002 - flags) >>> 0, ...addresses].forEach((word, i) => bytes.writeUInt32LE(word >>> 0, 4 * i));
  return bytes;
}

/** A flat file whose header, at 0x20, says where it goes. */
function flat({ flags = FLAGS, load = MIB, loadEnd = 0, bssEnd = 0 } = {}): Buffer {
  const file = Buffer.alloc(0x200);
  header(flags | 0x1_0000, [load + 0x20, load, loadEnd, bssEnd, load + CODE_OFFSET]).copy(file, 0x20);
  file.set(CODE, CODE_OFFSET);
  return file;
}

/** An ELF file of one segment at 4 MiB, its header behind the program header. */
function elf(wide: boolean): Buffer {
  const file = Buffer.alloc(0x200);
  file.writeUInt32BE(0x7f45_4c46, 0);
  file.set([wide ? 2 : 1, 1, 1], 4);
  file.writeUInt16LE(2, 16);
  file.writeUInt16LE(wide ? 62 : 3, 18);
  const word = (value: number, offset: number) => (wide ? file.writeBigUInt64LE(BigInt(value), offset) : file.writeUInt32LE(value, offset));
  word(4 * MIB + CODE_OFFSET, 24);
  const start = wide ? 64 : 52;
  word(start, wide ? 32 : 28);
  file.writeUInt16LE(wide ? 56 : 32, wide ? 54 : 42);
  file.writeUInt16LE(1, wide ? 56 : 44);
  file.writeUInt32LE(1, start);
  word(0, start + (wide ? 8 : 4));
  word(4 * MIB, start + (wide ? 24 : 12));
  word(file.length, start + (wide ? 32 : 16));
  word(file.length + 0x1000, start + (wide ? 40 : 20));
  header(FLAGS).copy(file, 0xa0);
  file.set(CODE, CODE_OFFSET);
  return file;
}

describe('multiboot', () => {
  it.each([
    ['addresses in its header', flat(), MIB],
    ['ELF32', elf(false), 4 * MIB],
    ['ELF64', elf(true), 4 * MIB],
  ])('enters a kernel with %s in flat protected mode', (_name, kernel, load) => {
    memory.slice(load, 0x2000).fill(0xcc);
    const state = boot(kernel);
    expect(state).toMatchObject({ mode: 'protected32', rip: load + CODE_OFFSET, rflags: 2, cr0: 0x11, cr4: 0, efer: 0 });
    expect(state.registers.rax).toBe(0x2bad_b002);
    expect([...memory.slice(state.rip, 3)]).toEqual([...CODE]);
    if (kernel[0] === 0x7f) expect(memory.slice(load + 0x200, 0x1000).every((byte) => byte === 0)).toBe(true);
  });

  it('clears bss and loads no more than the header says', () => {
    memory.slice(2 * MIB, 0x1000).fill(0xcc);
    boot(flat({ load: 2 * MIB, loadEnd: 2 * MIB + 0x180, bssEnd: 2 * MIB + 0x300 }));
    expect(memory.slice(2 * MIB + 0x180, 0x180).every((byte) => byte === 0)).toBe(true);
    expect(memory.slice(2 * MIB + 0x300, 1)[0]).toBe(0xcc);
  });

  it('tells about memory, command line, the one module and the memory map', () => {
    const info = boot(flat(), Buffer.from('module'), 'a b').registers.rbx ?? 0;
    expect(u32(info) & 0b1001_1011).toBe(0b0000_1001);
    expect([u32(info + 4), u32(info + 8)]).toEqual([639, 63 * 1024]);
    expect(text(u32(info + 16), 11)).toBe('kernel a b\0');
    expect(u32(info + 20)).toBe(1);
    const [start, end] = [u32(u32(info + 24)), u32(u32(info + 24) + 4)];
    expect(text(start, end - start)).toBe('module');
    const map = [];
    for (let at = u32(info + 48); at < u32(info + 48) + u32(info + 44); at += u32(at) + 4) map.push([u32(at + 4), u32(at + 12), u32(at + 20)]);
    expect(map).toEqual([[0, 0x9fc00, 1], [0x9fc00, 0x400, 2], [0xe0000, 0x20000, 2], [MIB, 63 * MIB, 1]]);
    expect(text(u32(info + 64), 9)).toBe('Exitless\0');
  });

  it('has no module without an initrd', () => {
    const info = boot(flat()).registers.rbx ?? 0;
    expect(u32(info + 20)).toBe(0);
  });

  it.each([
    ['an unknown requirement', flat({ flags: FLAGS | 0x20 }), 'requires what this multiboot loader does not have: flags 0x20'],
    ['more than the file has', flat({ loadEnd: 2 * MIB }), 'asks for more than the file has'],
    ['a bss that ends before the data', flat({ bssEnd: MIB + 0x10 }), 'bss ends before its data'],
    ['no room', flat({ load: 63 * MIB, bssEnd: 65 * MIB }), 'give it more memory'],
    ['the boot data in its way', flat({ load: 0x2000 }), 'below 36 KiB'],
  ])('refuses a kernel with %s', (_name, kernel, message) => {
    expect(() => boot(kernel)).toThrow(message);
  });
});
