/** Where the tiny kernel keeps what: segments, vectors, per-CPU areas, devices' registers. */

import { APIC_DEFAULT_BASE } from '../../interrupts/apic-registers.ts';
import { COBALT_APIC_BASE } from '../../interrupts/cobalt-apic.ts';
import { IO_APIC_BASE } from '../../interrupts/io-apic.ts';
import type { GuestBits } from '../apic/guest-abi.ts';

export const KERNEL_BASE = 0x10_0000;
export const PAGE_BYTES = 4096;
/** Application processors start here, in real mode: the vector of their STARTUP is the page. */
export const TRAMPOLINE = 0x8000;
export const MAX_CPUS: Record<GuestBits, number> = { 32: 32, 64: 64 };

export const Selector = { code32: 0x08, data: 0x10, code64: 0x18, perCpu: 0x20 } as const;

export const Vector = {
  nmi: 2,
  /** Of the 8259s' interrupts, 16 from here on. */
  legacy: 0x20,
  serial: 0x31,
  nested: [0x41, 0x51, 0x81, 0xc1],
  withNmi: 0x61,
  timer: 0xec,
  message: 0xfb,
  reschedule: 0xfd,
  spurious: 0xff,
} as const;

/** A per-CPU area: variables by offset, the stack growing down from its end. */
export const PerCpu = {
  this_cpu_physical: 0x00,
  cpu_number: 0x08,
  icr_read_retry_count: 0x0c,
  x2apic_extra_bits: 0x10,
  messages_received: 0x14,
  /** What an idle CPU is to run; it zeroes it when done. */
  work: 0x18,
  /** Alone on its cache line, as the host writes to it. */
  kvm_apic_eoi: 0x40,
  /** Interrupts handled, by vector. */
  handled: 0x80,
} as const;
export const PER_CPU_SHIFT = 14;
export const PER_CPU_BYTES = 1 << PER_CPU_SHIFT;

/** The window's address as a sign-extended displacement: the last but one GiB of the address space. */
const MMIO_WINDOW = -(2 ** 31);

/**
 * Addresses that no object defines. In 64-bit mode the last GiB below 4 GiB is mapped once more at the end of the address space,
 * so that a sign-extended displacement reaches the devices there.
 */
export function absoluteSymbols(bits: GuestBits): Record<string, number> {
  const device = (guestPhysical: number): number => (bits === 64 ? guestPhysical - 2 ** 32 : guestPhysical);
  return {
    ...PerCpu,
    APIC_BASE: device(APIC_DEFAULT_BASE),
    IO_APIC_BASE: device(IO_APIC_BASE),
    ...(bits === 64 ? { MMIO_WINDOW } : { COBALT_APIC_BASE }),
  };
}
