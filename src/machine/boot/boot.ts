/**
 * Prepares a machine's memory for booting a kernel, and tells in which state to enter it: by the 64 or 32-bit entry of a bzImage, by
 * PVH, straight into the vmlinux, or by multiboot. All find the same E820 map, ACPI tables, initrd and command line.
 */
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { type AcpiDescription, buildAcpiTables } from '../acpi/acpi-tables.ts';
import { e820Map, HIGH_MEMORY_BASE } from '../memory-map.ts';
import { BootError, sizeText } from './boot-error.ts';
import { writeBiosDataArea } from './boot-layout.ts';
import type { BootState } from './boot-state.ts';
import { type BootInputs, isBzImage, loadBzImage, parseBzImage } from './bzimage.ts';
import { isElf, parseElf } from './elf.ts';
import { extractVmlinux } from './kernel-payload.ts';
import { isMultiboot, loadMultiboot } from './multiboot.ts';
import { loadPvh } from './pvh.ts';

/** `auto` enters a bzImage by its own stub, what has a multiboot header by that, and an ELF vmlinux by PVH; `pvh` unpacks a bzImage on the host. */
export type BootMethod = 'auto' | 'bzimage' | 'pvh' | 'multiboot';

export interface BootOptions {
  /** A bzImage, an ELF64 vmlinux with a PVH entry, or a multiboot kernel. */
  kernel: Uint8Array;
  initrd?: Uint8Array | undefined;
  /** The kernel's command line. */
  append: string;
  method: BootMethod;
  /** None: the machine is older than ACPI. */
  acpi?: AcpiDescription | undefined;
  /** What else firmware leaves in memory. */
  firmware?: readonly FirmwareBlock[] | undefined;
}

export interface FirmwareBlock {
  guestPhysical: number;
  bytes: Uint8Array;
}

/** Fills memory and returns the first vCPU's state. Throws a BootError for what can't be booted; memory is then undefined. */
export function prepareBoot(memory: GuestMemory, options: BootOptions): BootState {
  if (memory.lowBytes <= HIGH_MEMORY_BASE) {
    throw new BootError(`a machine of ${sizeText(memory.lowBytes)} has no memory above 1 MiB to load a kernel to`);
  }
  const acpi = options.acpi && buildAcpiTables(options.acpi);
  const state = loadKernel(memory, options, {
    append: options.append,
    initrd: options.initrd,
    e820: e820Map(memory.ranges),
    rsdpGuestPhysical: acpi?.rsdpGuestPhysical ?? 0,
  });
  for (const { guestPhysical, bytes } of [...(acpi ? [acpi] : []), ...(options.firmware ?? [])]) memory.write(guestPhysical, bytes);
  writeBiosDataArea(memory);
  return state;
}

function loadKernel(memory: GuestMemory, { kernel, method }: BootOptions, inputs: BootInputs): BootState {
  const multiboot = method === 'multiboot' || (method === 'auto' && !isBzImage(kernel) && isMultiboot(kernel));
  if (multiboot) return loadMultiboot(memory, kernel, inputs);
  if (isElf(kernel)) {
    if (method === 'bzimage') throw new BootError('the kernel is an ELF file, which boots by --boot pvh, not --boot bzimage');
    return loadPvh(memory, parseElf(kernel), inputs);
  }
  if (!isBzImage(kernel)) {
    throw new BootError('the kernel is neither a bzImage (no HdrS boot header) nor an ELF file, and has no multiboot header');
  }
  const image = parseBzImage(kernel);
  if (method !== 'pvh') return loadBzImage(memory, image, inputs);
  return loadPvh(memory, parseElf(extractVmlinux(image)), inputs, image.kernelVersion);
}
