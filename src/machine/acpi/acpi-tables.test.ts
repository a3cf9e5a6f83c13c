import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  BIOS_AREA_BASE,
  HIGH_MEMORY_BASE,
  IOAPIC_BASE,
  LOCAL_APIC_BASE,
  PM_TIMER_PORT,
  PM1_CONTROL_PORT,
} from '../memory-map.ts';
import { type AcpiDescription, type AcpiTables, buildAcpiTables } from './acpi-tables.ts';

const cpus = (count: number, firstApicId = 0): AcpiDescription => ({
  apicIds: Array.from({ length: count }, (_, index) => firstApicId + index),
});

const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0);

function tableBytes(acpi: AcpiTables, signature: string): Uint8Array {
  const entry = acpi.tables.get(signature);
  if (!entry) throw new Error(`no ${signature}`);
  return acpi.bytes.slice(entry.offset, entry.offset + entry.length);
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const signatureAt = (bytes: Uint8Array, offset: number): string => Buffer.from(bytes.subarray(offset, offset + 4)).toString();

/** The variable part of a MADT as lists of bytes. */
function madtEntries(acpi: AcpiTables): number[][] {
  const madt = tableBytes(acpi, 'APIC');
  const entries: number[][] = [];
  for (let offset = 44; offset < madt.length; offset += madt[offset + 1]) {
    entries.push([...madt.subarray(offset, offset + madt[offset + 1])]);
  }
  return entries;
}

describe('ACPI tables', () => {
  it('have an RSDP where operating systems search for it, with both checksums right', () => {
    const acpi = buildAcpiTables(cpus(1));
    expect(acpi.rsdpGuestPhysical % 16).toBe(0);
    expect(acpi.rsdpGuestPhysical).toBeGreaterThanOrEqual(BIOS_AREA_BASE);
    expect(acpi.guestPhysical + acpi.bytes.length).toBeLessThanOrEqual(HIGH_MEMORY_BASE);
    const rsdp = acpi.bytes.subarray(acpi.rsdpGuestPhysical - acpi.guestPhysical);
    expect(Buffer.from(rsdp.subarray(0, 8)).toString()).toBe('RSD PTR ');
    expect(sum(rsdp.subarray(0, 20))).toBe(0);
    expect(sum(rsdp.subarray(0, 36))).toBe(0);
  });

  it('say who made the machine, and point to parameters of his', () => {
    const acpi = buildAcpiTables({ ...cpus(1), oem: { id: 'UNISYS', tableId: 'ES7' }, oemParameters: Uint8Array.of(1, 2, 3) });
    for (const signature of ['DSDT', 'FACP', 'APIC', 'XSDT', 'OEM1']) {
      expect(Buffer.from(tableBytes(acpi, signature).subarray(10, 24)).toString(), signature).toBe('UNISYSES7     ');
    }
    const view = viewOf(tableBytes(acpi, 'OEM1'));
    const [address, size] = [view.getUint32(36, true), view.getUint32(40, true)];
    expect([...acpi.bytes.subarray(address - acpi.guestPhysical).subarray(0, size)]).toEqual([1, 2, 3]);
  });

  it('are found by following the addresses from the RSDP, each with its length and checksum right', () => {
    const acpi = buildAcpiTables(cpus(4));
    const view = viewOf(acpi.bytes);
    const offsetAt = (offset: number): number => Number(view.getBigUint64(offset, true)) - acpi.guestPhysical;
    const check = (offset: number): string => {
      const length = view.getUint32(offset + 4, true);
      expect(sum(acpi.bytes.subarray(offset, offset + length))).toBe(0);
      return signatureAt(acpi.bytes, offset);
    };
    const xsdt = offsetAt(24);
    expect(check(xsdt)).toBe('XSDT');
    const listed = Array.from({ length: (view.getUint32(xsdt + 4, true) - 36) / 8 }, (_, index) =>
      offsetAt(xsdt + 36 + 8 * index),
    );
    expect(listed.map(check)).toEqual(['FACP', 'APIC', 'HPET']);
    const fadt = listed[0];
    expect(check(offsetAt(fadt + 140))).toBe('DSDT');
    expect(view.getUint32(fadt + 40, true)).toBe(acpi.guestPhysical + offsetAt(fadt + 140));
    const facs = view.getUint32(fadt + 36, true);
    expect(facs % 64).toBe(0);
    expect(signatureAt(acpi.bytes, facs - acpi.guestPhysical)).toBe('FACS');
  });

  it('the FADT describes a machine in ACPI mode with a reset register, an i8042 and no VGA', () => {
    const fadt = tableBytes(buildAcpiTables(cpus(1)), 'FACP');
    const view = viewOf(fadt);
    expect(fadt.length).toBe(276);
    expect([fadt[8], fadt[131]]).toEqual([6, 0]);
    expect(view.getUint16(46, true)).toBe(9);
    expect(view.getUint32(48, true)).toBe(0);
    expect(view.getUint32(64, true)).toBe(PM1_CONTROL_PORT);
    expect(view.getUint32(76, true)).toBe(PM_TIMER_PORT);
    expect(view.getUint16(109, true)).toBe(0b111);
    expect(view.getUint32(112, true) & (1 << 10)).not.toBe(0);
    expect([...fadt.subarray(116, 129)]).toEqual([1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 6]);
    expect(view.getBigUint64(172 + 4, true)).toBe(BigInt(PM1_CONTROL_PORT));
    expect(view.getBigUint64(208 + 4, true)).toBe(BigInt(PM_TIMER_PORT));
  });

  it('the MADT lists a local APIC for each vCPU, the I/O APIC, the overrides and NMI on LINT1', () => {
    const acpi = buildAcpiTables({ ...cpus(2), ioApicId: 2 });
    expect(viewOf(tableBytes(acpi, 'APIC')).getUint32(36, true)).toBe(LOCAL_APIC_BASE);
    expect(madtEntries(acpi)).toEqual([
      [0, 8, 0, 0, 1, 0, 0, 0],
      [0, 8, 1, 1, 1, 0, 0, 0],
      [1, 12, 2, 0, 0, 0, (IOAPIC_BASE >>> 16) & 0xff, IOAPIC_BASE >>> 24, 0, 0, 0, 0],
      [2, 10, 0, 0, 2, 0, 0, 0, 0x05, 0],
      [2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
      [4, 6, 0xff, 0, 0, 1],
    ]);
  });

  it('the MADT has x2APIC entries, and an x2APIC NMI entry, for ids from 255 on only', () => {
    const entries = madtEntries(buildAcpiTables({ apicIds: [0, 254, 255, 0x12345] }));
    expect(entries.filter(([kind]) => kind === 0).map((entry) => entry[3])).toEqual([0, 254]);
    expect(entries.filter(([kind]) => kind === 9)).toEqual([
      [9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
      [9, 16, 0, 0, 0x45, 0x23, 1, 0, 1, 0, 0, 0, 3, 0, 0, 0],
    ]);
    expect(entries.filter(([kind]) => kind === 10)).toEqual([[10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]]);
    expect(madtEntries(buildAcpiTables(cpus(255))).some(([kind]) => kind === 10)).toBe(false);
  });

  it('leave the HPET out where there is none', () => {
    const acpi = buildAcpiTables({ ...cpus(1), hpet: false });
    expect(acpi.tables.has('HPET')).toBe(false);
    expect(Buffer.from(acpi.bytes).includes('HPET')).toBe(false);
  });

  it('fit the BIOS area with 1024 vCPUs, and refuse what does not fit', () => {
    expect(() => buildAcpiTables(cpus(1024))).not.toThrow();
    expect(() => buildAcpiTables(cpus(4000))).toThrow("don't fit the BIOS area");
  });

  const iaslMissing = spawnSync('iasl', ['-v']).error !== undefined;
  it.skipIf(iaslMissing)('disassemble, and the DSDT recompiles to the same bytes, with the ACPI reference compiler', () => {
    const folder = mkdtempSync(join(tmpdir(), 'exitless-acpi-'));
    try {
      const acpi = buildAcpiTables({
        apicIds: [0, 1, 2, 300],
        pciRoutes: [
          { slot: 1, pin: 'INTA', gsi: 16 },
          { slot: 2, pin: 'INTB', gsi: 17 },
        ],
      });
      for (const signature of ['FACP', 'APIC', 'HPET', 'XSDT', 'FACS', 'DSDT']) {
        const path = join(folder, `${signature}.aml`);
        writeFileSync(path, tableBytes(acpi, signature));
        const run = spawnSync('iasl', ['-d', path], { encoding: 'utf8' });
        expect(run.status, run.stderr).toBe(0);
        expect(run.stdout + run.stderr).not.toMatch(/error|warning|invalid|incorrect/i);
      }
      const source = readFileSync(join(folder, 'DSDT.dsl'), 'utf8');
      for (const text of ['PNP0A03', 'PNP0501', 'PNP0B00', 'PNP0303', 'ACPI0007', '_S5', '_PRT']) expect(source).toContain(text);
      const again = spawnSync('iasl', ['-oa', '-p', join(folder, 'again'), join(folder, 'DSDT.dsl')], { encoding: 'utf8' });
      expect(again.status, again.stdout + again.stderr).toBe(0);
      expect(again.stdout).toContain('0 Errors, 0 Warnings');
      const body = (path: string): Buffer => readFileSync(join(folder, path)).subarray(36);
      expect(body('again.aml').equals(body('DSDT.aml'))).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
