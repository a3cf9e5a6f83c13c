import { beforeEach, describe, expect, it } from 'vitest';
import { bzImage, elf, PVH_ENTRY } from '../../../tests/kernel-images.ts';
import { GuestMemory } from '../../memory/guest-memory.ts';
import { BIOS_AREA_BASE, EBDA_BASE } from '../memory-map.ts';
import { UserError } from '../user-error.ts';
import { type BootMethod, prepareBoot } from './boot.ts';
import { BootError } from './boot-error.ts';
import type { BootState } from './boot-state.ts';

const MIB = 2 ** 20;
let memory: GuestMemory;
beforeEach(() => {
  memory = new GuestMemory({ ramBytes: 64 * MIB });
});

const view = (guestPhysical: number, bytes: number): DataView => {
  const slice = memory.slice(guestPhysical, bytes);
  return new DataView(slice.buffer, slice.byteOffset, bytes);
};
const u32 = (guestPhysical: number): number => view(guestPhysical, 4).getUint32(0, true);
const u64 = (guestPhysical: number): number => Number(view(guestPhysical, 8).getBigUint64(0, true));
const text = (guestPhysical: number, bytes: number): string => Buffer.from(memory.slice(guestPhysical, bytes)).toString('latin1');

interface Boot {
  kernel?: Uint8Array;
  initrd?: Uint8Array;
  append?: string;
  method?: BootMethod;
}
const boot = ({ kernel = bzImage(), append = 'console=ttyS0', method = 'auto', initrd }: Boot = {}): BootState =>
  prepareBoot(memory, { kernel, initrd, append, method, acpi: { apicIds: [0, 1] } });

/** The message of the BootError that this boot ends in. */
function bootError(options: Boot): string {
  let error: unknown;
  try {
    boot(options);
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(BootError);
  expect(error).toBeInstanceOf(UserError);
  const { message } = error as Error;
  expect(message).not.toContain('\n');
  return message;
}

const E820 = [
  [0, 0x9fc00, 1],
  [0x9fc00, 0x400, 2],
  [0xe0000, 0x20000, 2],
  [MIB, 63 * MIB, 1],
];

describe('boot by the 64-bit entry of a bzImage', () => {
  it('enters startup_64 in long mode with boot_params in RSI', () => {
    const state = boot();
    expect(state).toMatchObject({ mode: 'long64', rip: 16 * MIB + 0x200, rflags: 2, kernelVersion: '6.1.0-test' });
    expect([state.cr0, state.cr4, state.efer]).toEqual([0x8000_0011, 0x20, 0x500]);
    expect(state.segments.cs).toEqual({ selector: 0x10, base: 0, limit: 0xffff_ffff, attributes: 0xa0_9b00 });
    for (const name of ['ds', 'es', 'ss'] as const) {
      expect(state.segments[name]).toEqual({ selector: 0x18, base: 0, limit: 0xffff_ffff, attributes: 0xc0_9300 });
    }
    expect(u32((state.registers.rsi ?? 0) + 0x202)).toBe(0x5372_6448);
    expect(memory.slice(16 * MIB, 0x300).every((byte) => byte === 0xcc)).toBe(true);
  });

  it.each([
    ['a 32-bit kernel', (image: Buffer) => image.writeUInt16LE(0, 0x236)],
    ['a kernel of before the 64-bit protocol', (image: Buffer) => image.writeUInt16LE(0x020a, 0x206)],
  ])('enters startup_32 of %s in protected mode', (_name, change) => {
    const state = boot({ kernel: bzImage((image) => void change(image)) });
    expect(state).toMatchObject({ mode: 'protected32', rip: 16 * MIB, cr0: 0x11, cr4: 0, efer: 0 });
    expect(state.segments.cs).toEqual({ selector: 0x10, base: 0, limit: 0xffff_ffff, attributes: 0xc0_9b00 });
    expect(u32((state.registers.rsi ?? 0) + 0x202)).toBe(0x5372_6448);
  });

  it('has a GDT in memory that says the same as the segment registers', () => {
    const { gdt } = boot();
    expect(gdt.limit).toBe(0x2f);
    expect(view(gdt.base + 0x10, 8).getBigUint64(0, true)).toBe(0x00af_9b00_0000_ffffn);
    expect(view(gdt.base + 0x18, 8).getBigUint64(0, true)).toBe(0x00cf_9300_0000_ffffn);
    expect(view(gdt.base + 0x20, 8).getBigUint64(0, true)).toBe(0x0000_8b00_0000_0067n);
  });

  it('tells boot_params command line, ACPI tables and memory map', () => {
    const zeroPage = boot({ append: 'console=ttyS0 quiet' }).registers.rsi ?? 0;
    expect(text(u32(zeroPage + 0x228), 20)).toBe('console=ttyS0 quiet\0');
    expect(memory.slice(zeroPage + 0x210, 1)[0]).toBe(0xff);
    expect(u64(zeroPage + 0x70)).toBe(BIOS_AREA_BASE);
    expect(text(BIOS_AREA_BASE, 8)).toBe('RSD PTR ');
    const entries = Array.from({ length: memory.slice(zeroPage + 0x1e8, 1)[0] }, (_, index) => {
      const at = zeroPage + 0x2d0 + 20 * index;
      return [u64(at), u64(at + 8), u32(at + 16)];
    });
    expect(entries).toEqual(E820);
    expect([u32(zeroPage + 0x218), u32(zeroPage + 0x21c)]).toEqual([0, 0]);
  });

  it('maps the first 4 GiB to themselves', () => {
    const { cr3 } = boot();
    const translate = (address: number): number => {
      const index = (shift: number): number => Math.floor(address / 2 ** shift) % 512;
      const pdpt = u64(cr3 + 8 * index(39));
      const directory = u64(pdpt - 3 + 8 * index(30));
      const entry = u64(directory - 3 + 8 * index(21));
      expect([pdpt & 0xfff, directory & 0xfff, entry & 0xfff]).toEqual([3, 3, 0x83]);
      return entry - 0x83 + (address % 2 ** 21);
    };
    for (const address of [0, 0x1234, 16 * MIB, 0x7fff_ffff, 0xfee0_0000, 0xffff_ffff]) expect(translate(address)).toBe(address);
    expect(view(cr3 + 8, 8).getBigUint64(0, true)).toBe(0n);
  });

  it('puts the initrd at the end of memory, on a page boundary', () => {
    const initrd = Buffer.alloc(5000, 'i');
    const zeroPage = boot({ initrd }).registers.rsi ?? 0;
    expect(u32(zeroPage + 0x218)).toBe(64 * MIB - 0x2000);
    expect(u32(zeroPage + 0x21c)).toBe(5000);
    expect(text(64 * MIB - 0x2000, 5000)).toBe(initrd.toString());
  });

  it('keeps the initrd below initrd_addr_max', () => {
    const kernel = bzImage((image) => image.writeUInt32LE(40 * MIB - 1, 0x22c));
    const zeroPage = boot({ kernel, initrd: Buffer.alloc(4097) }).registers.rsi ?? 0;
    expect(u32(zeroPage + 0x218)).toBe(40 * MIB - 0x2000);
  });

  it('leaves the BIOS data area as a BIOS would', () => {
    boot();
    expect([view(0x40e, 2).getUint16(0, true) * 16, view(0x413, 2).getUint16(0, true)]).toEqual([EBDA_BASE, 639]);
    expect(view(0x400, 2).getUint16(0, true)).toBe(0x3f8);
  });
});

describe('boot by PVH', () => {
  it('enters the address of the Xen note in flat protected mode with the start info in RBX', () => {
    const state = boot({ kernel: elf() });
    expect(state).toMatchObject({ mode: 'protected32', rip: PVH_ENTRY, cr0: 0x11, cr3: 0, cr4: 0, efer: 0, rflags: 2 });
    expect(state.segments.cs).toMatchObject({ base: 0, limit: 0xffff_ffff, attributes: 0xc0_9b00 });
    expect(state.segments.tr).toMatchObject({ base: 0, limit: 0x67, attributes: 0x8b00 });
    const info = state.registers.rbx ?? 0;
    expect([u32(info), u32(info + 4), u32(info + 8)]).toEqual([0x336e_c578, 1, 0]);
  });

  it('loads segments to their physical addresses, zeroed beyond what the file has', () => {
    memory.slice(16 * MIB, 0x2000).fill(0xaa);
    boot({ kernel: elf() });
    expect(text(16 * MIB, 4)).toBe('CODE');
    expect(memory.slice(16 * MIB + 4, 0x1ffc).every((byte) => byte === 0)).toBe(true);
  });

  it('tells the start info command line, initrd, ACPI tables and memory map', () => {
    const info = boot({ kernel: elf(), append: 'quiet', initrd: Buffer.from('INITRD') }).registers.rbx ?? 0;
    expect(text(u64(info + 24), 6)).toBe('quiet\0');
    expect(u64(info + 32)).toBe(BIOS_AREA_BASE);
    expect(u32(info + 12)).toBe(1);
    const modules = u64(info + 16);
    expect([u64(modules), u64(modules + 8)]).toEqual([64 * MIB - 4096, 6]);
    expect(text(u64(modules), 6)).toBe('INITRD');
    const map = u64(info + 40);
    const entries = Array.from({ length: u32(info + 48) }, (_, index) => [
      u64(map + 24 * index),
      u64(map + 24 * index + 8),
      u32(map + 24 * index + 16),
    ]);
    expect(entries).toEqual(E820);
  });

  it('unpacks the vmlinux of a bzImage where asked to', () => {
    expect(boot({ method: 'pvh' })).toMatchObject({ mode: 'protected32', rip: PVH_ENTRY, kernelVersion: '6.1.0-test' });
    expect(text(16 * MIB, 4)).toBe('CODE');
  });
});

describe('what cannot be booted is said in one line', () => {
  const patched = (change: (image: Buffer) => void): Boot => ({ kernel: bzImage(change) });

  it.each<[string, Boot, string]>([
    [
      'a file of another kind',
      { kernel: Buffer.from('#!/bin/sh\n'.repeat(100)) },
      'neither a bzImage (no HdrS boot header) nor an ELF file',
    ],
    ['an empty file', { kernel: Buffer.alloc(0) }, 'neither a bzImage'],
    ['a bzImage cut inside its header', { kernel: bzImage().subarray(0, 0x210) }, 'the kernel is truncated'],
    ['a bzImage cut inside its kernel', { kernel: bzImage().subarray(0, 1500) }, 'the kernel is truncated: it needs'],
    [
      'an old boot protocol',
      patched((image) => image.writeUInt16LE(0x0202, 0x206)),
      'too old: boot protocol 2.02, 2.06 is needed',
    ],
    ['a zImage', patched((image) => image.writeUInt8(0, 0x211)), 'a zImage'],
    ['a payload outside of the kernel', patched((image) => image.writeUInt32LE(0x7fff_ffff, 0x248)), 'its payload lies outside'],
    [
      'an absurd load address',
      patched((image) => image.writeBigUInt64LE(2n ** 63n, 0x258)),
      'wants to be loaded at 0x8000000000000000',
    ],
    [
      'a kernel larger than memory',
      patched((image) => image.writeUInt32LE(100 * MIB, 0x260)),
      'needs memory up to 116 MiB and the machine has 64 MiB',
    ],
    [
      'a corrupt payload',
      { ...patched((image) => image.fill(0, 0x400 + 0x310, 0x400 + 0x330)), method: 'pvh' },
      "the kernel's gzip payload is corrupt",
    ],
    [
      'an initrd larger than memory',
      { initrd: new Uint8Array(65 * MIB) },
      'the initrd is larger than memory: 65 MiB for a machine of 64 MiB',
    ],
    [
      'an initrd that the kernel leaves no room for',
      { initrd: new Uint8Array(41 * MIB) },
      'does not fit in memory beside the kernel (40 MiB are left)',
    ],
    [
      'a command line longer than the kernel reads',
      { append: 'x'.repeat(256) },
      'has 256 bytes, and this kernel reads 255 at most',
    ],
    ['a command line with a NUL', { append: 'a\0b' }, 'has a NUL character'],
    ['an ELF file where a bzImage is asked for', { kernel: elf(), method: 'bzimage' }, 'boots by --boot pvh'],
    [
      'an ELF file without the Xen note',
      { kernel: elf({ note: { name: 'GNU', type: 18, entry: 1 } }) },
      'has no PVH entry point',
    ],
    ['an ELF file with another Xen note', { kernel: elf({ note: { type: 1, entry: 1 } }) }, 'has no PVH entry point'],
    ['an ELF file cut inside its header', { kernel: elf().subarray(0, 40) }, 'its ELF header is cut off'],
    ['an ELF file cut where a 32-bit header would end', { kernel: elf().subarray(0, 56) }, 'its ELF header is cut off'],
    ['an ELF file cut inside its program headers', { kernel: elf().subarray(0, 100) }, 'its ELF program headers are cut off'],
    ['an ELF file cut inside a segment', { kernel: elf().subarray(0, -2) }, 'an ELF segment lies outside of its file'],
    ['a 32-bit ELF file', { kernel: Buffer.from(elf()).fill(1, 4, 5) }, 'for another machine'],
    [
      'an ELF segment in low memory',
      { kernel: elf({ segments: [{ guestPhysical: 0x8000, data: Buffer.from('X'), memoryBytes: 1 }] }) },
      'below 1 MiB',
    ],
    [
      'an ELF segment outside of memory',
      { kernel: elf({ segments: [{ guestPhysical: 63 * MIB, data: Buffer.from('X'), memoryBytes: 2 * MIB }] }) },
      'up to 65 MiB',
    ],
    ['an ELF file with nothing to load', { kernel: elf({ segments: [] }) }, 'nothing to load'],
  ])('%s', (_, options, message) => {
    expect(bootError(options)).toContain(message);
  });

  it('a machine without memory above 1 MiB', () => {
    memory = new GuestMemory({ ramBytes: MIB });
    expect(bootError({})).toContain('no memory above 1 MiB');
  });

  it('any header byte changed: a state or a BootError, nothing else', () => {
    for (const kernel of [bzImage(), elf()]) {
      for (let at = 0; at < Math.min(kernel.length, 0x290); at++) {
        for (const value of [0, 0x7f, 0xff]) {
          const changed = Buffer.from(kernel);
          changed[at] = value;
          try {
            boot({ kernel: changed, method: at % 2 ? 'auto' : 'pvh' });
          } catch (error) {
            expect(error, `byte 0x${at.toString(16)} = ${value}: ${(error as Error).stack}`).toBeInstanceOf(BootError);
          }
        }
      }
    }
  });
});
