/**
 * The PC's physical address map, its fixed I/O ports and interrupt lines, and the E820 map a BIOS would report.
 * Sources: ACPI 6.5 chapter 15 (E820), Intel 82093AA, IA-PC HPET 1.0a, SDM 3A 11.4.1.
 * Not modelled: VGA and option ROMs; 0xA0000-0xDFFFF is RAM that E820 doesn't report.
 */
import { MMIO_HOLE_BASE, type RamRange } from '../memory/guest-memory.ts';

/** BIOS data area; Linux's decompressor reads EBDA segment and base memory size from it. */
export const BIOS_DATA_AREA = 0x400;
/** Conventional memory ends at the extended BIOS data area, the last KiB below 640 KiB. */
export const CONVENTIONAL_MEMORY_END = 0xa_0000;
export const EBDA_BASE = CONVENTIONAL_MEMORY_END - 1024;
/** Where operating systems search for the RSDP, on 16-byte boundaries (ACPI 6.5, 5.2.5.1). */
export const BIOS_AREA_BASE = 0xe_0000;
export const HIGH_MEMORY_BASE = 0x10_0000;
export const BIOS_AREA_SIZE = HIGH_MEMORY_BASE - BIOS_AREA_BASE;

export const IOAPIC_BASE = 0xfec0_0000;
export const HPET_BASE = 0xfed0_0000;
export const HPET_SIZE = 0x400;
export const LOCAL_APIC_BASE = 0xfee0_0000;

/** Where PCI memory BARs may lie: from the end of low RAM's largest extent up to the I/O APIC. */
export const PCI_WINDOW_BASE = MMIO_HOLE_BASE;
export const PCI_WINDOW_SIZE = IOAPIC_BASE - PCI_WINDOW_BASE;

/** ACPI fixed hardware: event block (status, enable), control and timer in consecutive ports (ACPI 6.5, 4.8.3). */
export const PM1_EVENT_PORT = 0x600;
export const PM1_EVENT_SIZE = 4;
export const PM1_CONTROL_PORT = PM1_EVENT_PORT + PM1_EVENT_SIZE;
export const PM1_CONTROL_SIZE = 2;
export const PM_TIMER_PORT = PM1_EVENT_PORT + 8;
export const PM_TIMER_SIZE = 4;
/** SLP_TYP that \_S5 asks for: with SLP_EN, 0x2000 written to the control port, this powers off. */
export const S5_SLEEP_TYPE = 0;
export const RESET_PORT = 0xcf9;
export const RESET_VALUE = 6;

export const PCI_CONFIG_PORT = 0xcf8;
export const PCI_CONFIG_SIZE = 8;
export const COM1_PORT = 0x3f8;
export const RTC_PORT = 0x70;
export const I8042_DATA_PORT = 0x60;
export const I8042_COMMAND_PORT = 0x64;

/** Pins of the I/O APIC. ISA interrupts are identity-mapped, but for the PIT's, as on every PC since the MP specification. */
export const PIT_IRQ = 0;
export const PIT_GSI = 2;
export const KEYBOARD_IRQ = 1;
export const COM1_IRQ = 4;
export const RTC_IRQ = 8;
export const SCI_IRQ = 9;
/** PCI interrupts have the pins above the ISA ones. */
export const FIRST_PCI_GSI = 16;
export const IOAPIC_PINS = 24;

export type E820Type = 'usable' | 'reserved' | 'acpi-reclaimable' | 'acpi-nvs';
export const E820_TYPE_NUMBER: Record<E820Type, number> = { usable: 1, reserved: 2, 'acpi-reclaimable': 3, 'acpi-nvs': 4 };

export interface E820Entry {
  guestPhysical: number;
  bytes: number;
  type: E820Type;
}

/** What INT 15h, AX=E820h would report, in ascending order, for the RAM of `GuestMemory.ranges`. */
export function e820Map(ranges: readonly RamRange[]): E820Entry[] {
  const ram = (from: number, to: number, type: E820Type): E820Entry[] =>
    ranges.flatMap(({ guestPhysical, bytes }) => {
      const start = Math.max(from, guestPhysical);
      const end = Math.min(to, guestPhysical + bytes);
      return start < end ? [{ guestPhysical: start, bytes: end - start, type }] : [];
    });
  return [
    ...ram(0, EBDA_BASE, 'usable'),
    ...ram(EBDA_BASE, CONVENTIONAL_MEMORY_END, 'reserved'),
    ...ram(BIOS_AREA_BASE, HIGH_MEMORY_BASE, 'reserved'),
    ...ram(HIGH_MEMORY_BASE, Number.POSITIVE_INFINITY, 'usable'),
  ];
}
