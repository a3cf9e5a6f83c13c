/**
 * The MP configuration table, by which firmware told of processors and interrupts before ACPI. Source: MultiProcessor Specification
 * 1.4, chapter 4. NUMA-Q's translation records, an OEM table, say to which quad an entry of the table belongs.
 * Not modelled: PCI buses and interrupts, the IMCR.
 */

import { ByteWriter } from './acpi/byte-writer.ts';
import { IOAPIC_BASE, IOAPIC_PINS, LOCAL_APIC_BASE, PIT_GSI, PIT_IRQ } from './memory-map.ts';

/** In the BIOS area, where the floating pointer is searched on 16-byte boundaries. */
export const MP_POINTER = 0xf_0000;

export interface MpDescription {
  /** 8 and 12 characters. */
  oemId: string;
  productId: string;
  /** APIC IDs; the first boots. */
  processors: readonly number[];
  /** The quads that the processors belong to. */
  quads?: readonly number[];
  /** CPUID's signature and feature bits. */
  signature: number;
  features: number;
}

const POINTER_BYTES = 16;
const HEADER_BYTES = 44;
const TRANSLATION_BYTES = 8;
const Entry = { processor: 0, bus: 1, ioApic: 2, interrupt: 3, localInterrupt: 4, translation: 192 } as const;
const ENABLED = 1;
const BOOT_PROCESSOR = 2;
const APIC_VERSION = 0x14;
const IO_APIC_VERSION = 0x11;
const ALL_APICS = 0xff;
const ISA_IRQS = 16;
const CASCADE_IRQ = 2;
/** Interrupt types. */
const [INT, NMI, EXT_INT] = [0, 1, 3];

/** Makes the sum of all bytes 0. */
function seal(bytes: Uint8Array, checksumAt: number): Uint8Array {
  bytes[checksumAt] = -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;
  return bytes;
}

/** The floating pointer, the table, and where there are quads the OEM's table, for `MP_POINTER`. */
export function buildMpTable({ oemId, productId, processors, quads, signature, features }: MpDescription): Uint8Array {
  const entries = new ByteWriter();
  const ioApicId = Math.max(...processors) + 1;
  let count = 0;
  const entry = (type: number): ByteWriter => {
    count++;
    return entries.u8(type);
  };
  processors.forEach((apicId, index) => {
    entry(Entry.processor).u8(apicId, APIC_VERSION, index === 0 ? ENABLED | BOOT_PROCESSOR : ENABLED).u32(signature).u32(features).zeros(8);
  });
  entry(Entry.bus).u8(0).text('ISA', 6);
  entry(Entry.ioApic).u8(ioApicId, IO_APIC_VERSION, ENABLED).u32(IOAPIC_BASE);
  for (let irq = 0; irq < Math.min(ISA_IRQS, IOAPIC_PINS); irq++) {
    if (irq !== CASCADE_IRQ) entry(Entry.interrupt).u8(INT).u16(0).u8(0, irq, ioApicId, irq === PIT_IRQ ? PIT_GSI : irq);
  }
  entry(Entry.localInterrupt).u8(EXT_INT).u16(0).u8(0, 0, ALL_APICS, 0);
  entry(Entry.localInterrupt).u8(NMI).u16(0).u8(0, 0, ALL_APICS, 1);

  const body = entries.finish();
  const tableBytes = HEADER_BYTES + body.length;
  const oemTable = quads && translations(quads);
  const table = new ByteWriter()
    .text('PCMP').u16(tableBytes).u8(4, 0).text(oemId, 8).text(productId, 12)
    .u32(oemTable ? MP_POINTER + POINTER_BYTES + tableBytes : 0).u16(oemTable?.length ?? 0).u16(count).u32(LOCAL_APIC_BASE).u32(0)
    .bytes(body).finish();
  const pointer = new ByteWriter().text('_MP_').u32(MP_POINTER + POINTER_BYTES).u8(1, 4, 0, 0).zeros(4).finish();
  return new ByteWriter().bytes(seal(pointer, 10)).bytes(seal(table, 7)).bytes(oemTable ?? []).finish();
}

/** A record for each of the table's processors, then for bus and I/O APIC, which are the first quad's. */
function translations(quads: readonly number[]): Uint8Array {
  const records = new ByteWriter();
  const record = (type: number, quad: number, local: number): unknown =>
    records.u8(Entry.translation, TRANSLATION_BYTES, type, quad, local, local).u16(0);
  quads.forEach((quad, index) => record(Entry.processor, quad, index));
  record(Entry.bus, 0, 0);
  record(Entry.ioApic, 0, 0);
  const body = records.finish();
  return seal(new ByteWriter().text('_OEM').u16(16 + body.length).u8(1, 0).zeros(8).bytes(body).finish(), 7);
}
