/**
 * A small encoder for AML, ACPI's bytecode (ACPI 6.5, chapter 20), and for resource descriptors (6.4).
 * Each function returns the encoding of one term; terms nest as they do in ASL. Only what our DSDT needs.
 */
import { ByteWriter } from './byte-writer.ts';

export type Aml = Uint8Array;

const concat = (parts: readonly Uint8Array[]): Uint8Array => {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
};

/** PkgLength counts itself: one byte up to 63, else a nibble and one to three bytes (20.2.4). */
function packageLength(contentBytes: number): Uint8Array {
  if (contentBytes + 1 < 0x40) return Uint8Array.of(contentBytes + 1);
  const follow = contentBytes + 2 < 1 << 12 ? 1 : contentBytes + 3 < 1 << 20 ? 2 : 3;
  const total = contentBytes + 1 + follow;
  if (total >= 1 << 28) throw new RangeError(`AML package of ${total} bytes`);
  const bytes = [(follow << 6) | (total & 0xf)];
  for (let i = 0; i < follow; i++) bytes.push((total >> (4 + 8 * i)) & 0xff);
  return Uint8Array.from(bytes);
}

/** A name string: `\_SB_.PCI0`, with segments of four characters once padded by underscores (20.2.2). */
export function nameString(path: string): Aml {
  const out = new ByteWriter();
  const root = path.startsWith('\\');
  if (root) out.text('\\');
  const segments = path
    .slice(root ? 1 : 0)
    .split('.')
    .filter((segment) => segment !== '');
  for (const segment of segments) {
    if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment)) throw new RangeError(`not an ACPI name: ${path}`);
  }
  if (segments.length === 0) out.u8(0);
  if (segments.length === 2) out.u8(0x2e);
  if (segments.length > 2) out.u8(0x2f, segments.length);
  for (const segment of segments) out.text(segment, 4, '_');
  return out.finish();
}

export function integer(value: number): Aml {
  const out = new ByteWriter();
  if (value === 0 || value === 1) return out.u8(value).finish();
  if (value <= 0xff) return out.u8(0x0a, value).finish();
  if (value <= 0xffff) return out.u8(0x0b).u16(value).finish();
  if (value <= 0xffff_ffff) return out.u8(0x0c).u32(value).finish();
  return out.u8(0x0e).u64(value).finish();
}

export const string = (value: string): Aml => new ByteWriter().u8(0x0d).text(value).u8(0).finish();

/** `EISAID("PNP0501")`: three compressed letters and four hexadecimal digits, big-endian (19.3.4). */
export function eisaId(id: string): Aml {
  const match = /^([A-Z])([A-Z])([A-Z])([0-9A-F]{4})$/.exec(id);
  if (!match) throw new RangeError(`not an EISA id: ${id}`);
  const [a, b, c] = match.slice(1, 4).map((letter) => letter.charCodeAt(0) - 0x40);
  const letters = (a << 10) | (b << 5) | c;
  const digits = Number.parseInt(match[4], 16);
  return new ByteWriter().u8(0x0c, letters >> 8, letters & 0xff, digits >> 8, digits & 0xff).finish();
}

export const name = (path: string, value: Aml): Aml => concat([Uint8Array.of(0x08), nameString(path), value]);

const sized = (opcode: readonly number[], content: readonly Aml[]): Aml => {
  const body = concat(content);
  return concat([Uint8Array.from(opcode), packageLength(body.length), body]);
};

export const scope = (path: string, ...terms: Aml[]): Aml => sized([0x10], [nameString(path), ...terms]);
export const device = (path: string, ...terms: Aml[]): Aml => sized([0x5b, 0x82], [nameString(path), ...terms]);

/** Up to 255 elements make a Package, more a VarPackage. */
export const packageOf = (...elements: Aml[]): Aml =>
  elements.length <= 255
    ? sized([0x12], [Uint8Array.of(elements.length), ...elements])
    : sized([0x13], [integer(elements.length), ...elements]);

const buffer = (data: Uint8Array): Aml => sized([0x11], [integer(data.length), data]);

/** A buffer of resource descriptors, closed by an end tag without checksum. */
export const resourceTemplate = (...descriptors: Uint8Array[]): Aml => buffer(concat([...descriptors, Uint8Array.of(0x79, 0)]));

/** Fixed I/O ports, 16-bit decoded (6.4.2.5). */
export const ioPorts = (port: number, bytes: number): Uint8Array =>
  new ByteWriter().u8(0x47, 1).u16(port).u16(port).u8(1, bytes).finish();

/** One edge-triggered, active-high ISA interrupt (6.4.2.1, IRQNoFlags). */
export const irq = (line: number): Uint8Array =>
  new ByteWriter()
    .u8(0x22)
    .u16(1 << line)
    .finish();

/** A fixed, writable 32-bit memory range (6.4.3.4). */
export const memory32Fixed = (guestPhysical: number, bytes: number): Uint8Array =>
  new ByteWriter().u8(0x86).u16(9).u8(1).u32(guestPhysical).u32(bytes).finish();

/** MinFixed, MaxFixed, positive decode; the device produces what lies behind it (6.4.3.5). */
const PRODUCER_FIXED = 0x0c;
const RANGE_KIND = { memory: 0, io: 1, bus: 2 } as const;

const wordRange = (kind: 'io' | 'bus', first: number, last: number, typeFlags: number): Uint8Array =>
  new ByteWriter()
    .u8(0x88)
    .u16(13)
    .u8(RANGE_KIND[kind], PRODUCER_FIXED, typeFlags)
    .u16(0)
    .u16(first)
    .u16(last)
    .u16(0)
    .u16(last - first + 1)
    .finish();

export const busNumbers = (first: number, last: number): Uint8Array => wordRange('bus', first, last, 0);

/** A window of ports, ISA and non-ISA ranges alike. */
export const ioWindow = (first: number, last: number): Uint8Array => wordRange('io', first, last, 3);

/** A non-cacheable, writable window of 32-bit addresses. */
export const memoryWindow = (guestPhysical: number, bytes: number): Uint8Array =>
  new ByteWriter()
    .u8(0x87)
    .u16(23)
    .u8(RANGE_KIND.memory, PRODUCER_FIXED, 1)
    .u32(0)
    .u32(guestPhysical)
    .u32(guestPhysical + bytes - 1)
    .u32(0)
    .u32(bytes)
    .finish();

export const termList = (...terms: Aml[]): Aml => concat(terms);
