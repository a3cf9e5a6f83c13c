/**
 * Unisys ES7000: the register by which a processor is started (PSAI), and the block of parameters by which firmware says where it is.
 * Source: what Linux's es7000 driver does with them; there is no public description.
 *
 * Not modelled: the management interface processor's message registers, by which older machines were asked the same; the block names
 * their place, since a kernel takes a machine without for another's. Assumed: a processor is reset and started before the next
 * access, so that the busy bit is never seen; the addresses.
 */

import type { AccessBytes, BusDevice } from '../memory/bus.ts';

export const ES7000_PSAI_BASE = 0xfe60_0000;
export const ES7000_PSAI_BYTES = 8;
const MIP_HOST_REGISTERS = 0xfe60_1000;
const MIP_REGISTERS = 0xfe60_2000;

/** Starts a processor; reads as 1 while the register is busy with that. */
export const PSAI_START = 1 << 24;
/** The page of the code in bits 23 to 16, the processor's APIC ID in 7 to 0. */
export const PSAI_PAGE_SHIFT = 16;

export class Es7000Psai implements BusDevice {
  private readonly start: (apicId: number, page: number) => void;

  constructor(start: (apicId: number, page: number) => void) {
    this.start = start;
  }

  /** Never busy. */
  read(): number {
    return 0;
  }

  write(offset: number, bytes: AccessBytes, value: number): void {
    if (offset === 0 && bytes === 4 && value & PSAI_START) this.start(value & 0xff, (value >>> PSAI_PAGE_SHIFT) & 0xff);
  }
}

/** Entries of the parameter block: type and length in bytes, then 64-bit fields. */
export const OEM_ENTRIES_OFFSET = 8;
export const OEM_ENTRY_MIP = 1;
export const OEM_ENTRY_PSAI = 4;
/** Offset of the register's address in a PSAI entry. */
export const OEM_PSAI_ADDRESS = 8;

/** The block that the ACPI table OEM1 points to. */
export function es7000ParameterBlock(): Uint8Array {
  const entries: [type: number, fields: number[]][] = [
    [OEM_ENTRY_MIP, [0, MIP_HOST_REGISTERS, MIP_REGISTERS]], // delivery information, then the two sets of registers
    [OEM_ENTRY_PSAI, [ES7000_PSAI_BASE, 0]], // no register of the boot processor's
  ];
  const lengths = entries.map(([, fields]) => 8 + 8 * fields.length);
  const bytes = new Uint8Array(lengths.reduce((sum, length) => sum + length, OEM_ENTRIES_OFFSET));
  const view = new DataView(bytes.buffer);
  let at = OEM_ENTRIES_OFFSET;
  for (const [i, [type, fields]] of entries.entries()) {
    bytes[at] = type;
    bytes[at + 1] = lengths[i];
    for (const [index, field] of fields.entries()) view.setUint32(at + 8 + 8 * index, field, true);
    at += lengths[i];
  }
  return bytes;
}
