/**
 * ACPI tables of the PC: RSDP, XSDT, FADT, FACS, MADT, HPET, DSDT, and a maker's OEM1, laid out in the BIOS area.
 * Source: ACPI 6.5 chapter 5; IA-PC HPET 1.0a, 3.2.4. The machine is in ACPI mode from the start (no SMI command port).
 * Not modelled: GPE blocks, RSDT (every ACPI 2.0 system reads the XSDT), SRAT, MCFG.
 */
import {
  BIOS_AREA_BASE,
  BIOS_AREA_SIZE,
  HPET_BASE,
  IOAPIC_BASE,
  LOCAL_APIC_BASE,
  PIT_GSI,
  PIT_IRQ,
  PM_TIMER_PORT,
  PM_TIMER_SIZE,
  PM1_CONTROL_PORT,
  PM1_CONTROL_SIZE,
  PM1_EVENT_PORT,
  PM1_EVENT_SIZE,
  RESET_PORT,
  RESET_VALUE,
  SCI_IRQ,
} from '../memory-map.ts';
import { ByteWriter } from './byte-writer.ts';
import { dsdtBody, type PciRoute } from './dsdt.ts';

/** An ISA interrupt that is wired to another GSI, or is not edge-triggered and active high. */
export interface IrqOverride {
  irq: number;
  gsi: number;
  trigger: 'edge' | 'level';
  polarity: 'high' | 'low';
}

/** What the tables tell about. The vCPU at index 0 is the one that boots. */
export interface AcpiDescription {
  /** APIC id of each vCPU; ids from 255 on get x2APIC entries. */
  apicIds: readonly number[];
  /** APIC id of the I/O APIC; 0 unless given. */
  ioApicId?: number;
  /** `PC_IRQ_OVERRIDES` unless given. */
  irqOverrides?: readonly IrqOverride[];
  /** Hard-wired PCI interrupts: the root bridge's _PRT. None unless given. */
  pciRoutes?: readonly PciRoute[];
  /** Whether the machine has an HPET: true unless given. */
  hpet?: boolean;
  /** Low half of the HPET's capabilities register; that of an ICH9's unless given. */
  hpetBlockId?: number;
  /** Who made the machine, as all tables say it: 6 and 8 characters. Ours unless given. */
  oem?: AcpiOem | undefined;
  /** Parameters of the maker's, to which a table OEM1 points. */
  oemParameters?: Uint8Array | undefined;
}

export interface AcpiOem {
  id: string;
  tableId: string;
}

/** The PIT on pin 2, and ACPI's SCI level-triggered. */
export const PC_IRQ_OVERRIDES: readonly IrqOverride[] = [
  { irq: PIT_IRQ, gsi: PIT_GSI, trigger: 'edge', polarity: 'high' },
  { irq: SCI_IRQ, gsi: SCI_IRQ, trigger: 'level', polarity: 'high' },
];

/** The tables as bytes to be written to `guestPhysical`. */
export interface AcpiTables {
  guestPhysical: number;
  bytes: Uint8Array;
  rsdpGuestPhysical: number;
  /** Offset and length of each table in `bytes`, by signature. */
  tables: ReadonlyMap<string, { offset: number; length: number }>;
}

const OWN_OEM: AcpiOem = { id: 'EXITLS', tableId: 'EXITLESS' };
const CREATOR_ID = 'EXIT';
const HEADER_SIZE = 36;
const CHECKSUM_OFFSET = 9;
const RSDP_SIZE = 36;
/** 8086h, legacy replacement capable, 64-bit counter, three comparators, revision 1. */
const ICH9_HPET_BLOCK_ID = 0x8086_a201;

/** The byte that makes the sum of all bytes 0. */
const checksum = (bytes: Uint8Array): number => -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;

/** A system description table: header (5.2.6) and body. */
function table(signature: string, revision: number, oem: AcpiOem, body: Uint8Array): Uint8Array {
  const bytes = new ByteWriter()
    .text(signature, 4)
    .u32(HEADER_SIZE + body.length)
    .u8(revision, 0)
    .text(oem.id, 6)
    .text(oem.tableId, 8)
    .u32(1)
    .text(CREATOR_ID, 4)
    .u32(1)
    .bytes(body)
    .finish();
  bytes[CHECKSUM_OFFSET] = checksum(bytes);
  return bytes;
}

/** Generic address structure (5.2.3.2). */
function address(out: ByteWriter, space: 'memory' | 'io', at: number, bits: number, accessBytes: 0 | 1 | 2 | 4): ByteWriter {
  const accessSize = { 0: 0, 1: 1, 2: 2, 4: 3 }[accessBytes];
  return out.u8(space === 'io' ? 1 : 0, bits, 0, accessSize).u64(at);
}

const noAddress = (out: ByteWriter): ByteWriter => out.zeros(12);

/** Fixed feature flags (5.2.9): what is named here is there; the power and sleep buttons are absent. */
const FADT_FLAGS = {
  WBINVD: 1 << 0,
  PROC_C1: 1 << 2,
  PWR_BUTTON: 1 << 4,
  SLP_BUTTON: 1 << 5,
  FIX_RTC: 1 << 6,
  RESET_REG_SUP: 1 << 10,
} as const;
const BOOT_ARCH_FLAGS = { LEGACY_DEVICES: 1 << 0, I8042: 1 << 1, VGA_NOT_PRESENT: 1 << 2 } as const;
const all = (flags: Record<string, number>): number => Object.values(flags).reduce((sum, flag) => sum | flag, 0);

/** Latencies beyond which C2 and C3 don't exist (5.2.9). */
const NO_C2_LATENCY = 101;
const NO_C3_LATENCY = 1001;
/** Index of the century byte in the CMOS RAM. */
const RTC_CENTURY = 0x32;

const FADT_REVISION = 6;
const FADT_MINOR_REVISION = 0;

function fadtBody(facs: number, dsdt: number): Uint8Array {
  const out = new ByteWriter()
    .u32(facs)
    .u32(dsdt)
    .u8(0, 0) // reserved; preferred power management profile unspecified
    .u16(SCI_IRQ)
    .u32(0) // no SMI command port: always in ACPI mode
    .u8(0, 0, 0, 0)
    .u32(PM1_EVENT_PORT)
    .u32(0)
    .u32(PM1_CONTROL_PORT)
    .u32(0)
    .u32(0)
    .u32(PM_TIMER_PORT)
    .u32(0)
    .u32(0)
    .u8(PM1_EVENT_SIZE, PM1_CONTROL_SIZE, 0, PM_TIMER_SIZE, 0, 0, 0, 0)
    .u16(NO_C2_LATENCY)
    .u16(NO_C3_LATENCY)
    .u16(0)
    .u16(0)
    .u8(0, 0, 0, 0, RTC_CENTURY)
    .u16(all(BOOT_ARCH_FLAGS))
    .u8(0)
    .u32(all(FADT_FLAGS));
  address(out, 'io', RESET_PORT, 8, 1).u8(RESET_VALUE).u16(0).u8(FADT_MINOR_REVISION);
  out.u64(0).u64(dsdt); // the FACS is named once, by its 32-bit field, as the specification wants
  address(out, 'io', PM1_EVENT_PORT, 8 * PM1_EVENT_SIZE, 2);
  noAddress(out);
  address(out, 'io', PM1_CONTROL_PORT, 8 * PM1_CONTROL_SIZE, 2);
  noAddress(out);
  noAddress(out);
  address(out, 'io', PM_TIMER_PORT, 8 * PM_TIMER_SIZE, 4);
  for (let block = 0; block < 4; block++) noAddress(out); // GPE0, GPE1, sleep control, sleep status
  return out.u64(0).finish();
}

/** Firmware ACPI control structure (5.2.10): no header checksum; version 2. */
const facsBytes = (): Uint8Array => new ByteWriter().text('FACS').u32(64).zeros(24).u8(2).zeros(31).finish();

const ENABLED = 1;
/** MPS INTI flags (table 5.27). */
const POLARITY = { high: 1, low: 3 } as const;
const TRIGGER = { edge: 1 << 2, level: 3 << 2 } as const;
/** ACPI processor UIDs that mean all processors. */
const ALL_PROCESSORS = 0xff;
const ALL_PROCESSORS_X2APIC = 0xffff_ffff;
const FIRST_X2APIC_ID = 255;

function madtBody(description: AcpiDescription): Uint8Array {
  const out = new ByteWriter().u32(LOCAL_APIC_BASE).u32(1); // PCAT_COMPAT: there is a pair of 8259s, too
  description.apicIds.forEach((apicId, uid) => {
    // An entry of the small kind has a UID of one byte as well.
    if (apicId < FIRST_X2APIC_ID && uid < ALL_PROCESSORS) out.u8(0, 8, uid, apicId).u32(ENABLED);
    else out.u8(9, 16).u16(0).u32(apicId).u32(ENABLED).u32(uid);
  });
  out
    .u8(1, 12, description.ioApicId ?? 0, 0)
    .u32(IOAPIC_BASE)
    .u32(0);
  for (const { irq, gsi, trigger, polarity } of description.irqOverrides ?? PC_IRQ_OVERRIDES) {
    out
      .u8(2, 10, 0, irq)
      .u32(gsi)
      .u16(POLARITY[polarity] | TRIGGER[trigger]);
  }
  out.u8(4, 6, ALL_PROCESSORS).u16(0).u8(1); // NMI on LINT1
  if (description.apicIds.some((apicId) => apicId >= FIRST_X2APIC_ID)) {
    out.u8(10, 12).u16(0).u32(ALL_PROCESSORS_X2APIC).u8(1, 0, 0, 0);
  }
  return out.finish();
}

function hpetBody(blockId: number): Uint8Array {
  const out = new ByteWriter().u32(blockId);
  return address(out, 'memory', HPET_BASE, 0, 0).u8(0).u16(0x80).u8(0).finish();
}

function rsdpBytes(oem: AcpiOem, xsdt: number): Uint8Array {
  const bytes = new ByteWriter()
    .text('RSD PTR ')
    .u8(0)
    .text(oem.id, 6)
    .u8(2)
    .u32(0)
    .u32(RSDP_SIZE)
    .u64(xsdt)
    .u8(0, 0, 0, 0)
    .finish();
  bytes[8] = checksum(bytes.subarray(0, 20)); // what ACPI 1.0 knew
  bytes[32] = checksum(bytes);
  return bytes;
}

/** Builds the tables for the BIOS area, the RSDP first. Throws where they don't fit: over 2,500 vCPUs. */
export function buildAcpiTables(description: AcpiDescription, guestPhysical = BIOS_AREA_BASE): AcpiTables {
  const out = new ByteWriter().zeros(RSDP_SIZE);
  const oem = description.oem ?? OWN_OEM;
  const tables = new Map<string, { offset: number; length: number }>();
  const place = (signature: string, bytes: Uint8Array): number => {
    const offset = out.align(64).length;
    tables.set(signature, { offset, length: bytes.length });
    out.bytes(bytes);
    return guestPhysical + offset;
  };
  const system = (signature: string, revision: number, body: Uint8Array): number => place(signature, table(signature, revision, oem, body));
  const facs = place('FACS', facsBytes());
  const dsdt = system('DSDT', 2, dsdtBody(description));
  const listed = [system('FACP', FADT_REVISION, fadtBody(facs, dsdt)), system('APIC', 5, madtBody(description))];
  if (description.hpet !== false) {
    listed.push(system('HPET', 1, hpetBody(description.hpetBlockId ?? ICH9_HPET_BLOCK_ID)));
  }
  if (description.oemParameters) {
    const parameters = place('OEM parameters', description.oemParameters);
    listed.push(system('OEM1', 1, new ByteWriter().u32(parameters).u32(description.oemParameters.length).finish()));
  }
  const pointers = new ByteWriter();
  for (const entry of listed) pointers.u64(entry);
  const xsdt = system('XSDT', 1, pointers.finish());
  const bytes = out.finish();
  bytes.set(rsdpBytes(oem, xsdt));
  if (bytes.length > BIOS_AREA_SIZE) throw new RangeError(`ACPI tables of ${bytes.length} bytes don't fit the BIOS area`);
  return { guestPhysical, bytes, rsdpGuestPhysical: guestPhysical, tables };
}
