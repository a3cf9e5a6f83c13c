import { beforeEach, describe, expect, it } from 'vitest';
import { Bus } from '../memory/bus.ts';
import { mapPciBars } from './pci-bar-mapper.ts';
import { type PciBar, PciFunction } from './pci-function.ts';
import { PCI_CONFIG_PORT, PCI_CONFIG_PORTS, PciHost } from './pci-host.ts';
import { ResetControl } from './reset-control.ts';

let host: PciHost;
let resets: string[];

beforeEach(() => {
  resets = [];
  host = new PciHost(new ResetControl((kind) => resets.push(kind)));
});

const select = (device: number, index: number, register: number, bus = 0) =>
  host.write(0, 4, (0x8000_0000 | (bus << 16) | (device << 11) | (index << 8) | (register & 0xfc)) >>> 0);
const read = (device: number, index: number, register: number, bytes: 1 | 2 | 4 = 4) => {
  select(device, index, register);
  return host.read(4 + (register & 3), bytes);
};
const write = (device: number, index: number, register: number, value: number, bytes: 1 | 2 | 4 = 4) => {
  select(device, index, register);
  host.write(4 + (register & 3), bytes, value);
};

describe('configuration mechanism 1', () => {
  it("passes Linux's check of the address register", () => {
    host.write(3, 1, 0x01);
    const before = host.read(0, 4);
    host.write(0, 4, 0x8000_0000);
    expect(host.read(0, 4)).toBe(0x8000_0000);
    host.write(0, 4, before);
    host.write(0, 4, 0xffff_ffff);
    expect(host.read(0, 4)).toBe(0x80ff_fffc);
  });

  it('finds an i440FX host bridge, by double words, words and bytes', () => {
    expect(read(0, 0, 0x00)).toBe(0x1237_8086);
    expect(read(0, 0, 0x02, 2)).toBe(0x1237);
    expect(read(0, 0, 0x0b, 1)).toBe(0x06);
    expect(read(0, 0, 0x08)).toBe(0x0600_0002);
  });

  it('reads all ones where nothing is, and swallows writes', () => {
    expect(read(0, 1, 0)).toBe(0xffff_ffff);
    expect(read(31, 7, 0, 2)).toBe(0xffff);
    select(0, 0, 0, 1);
    expect(host.read(4, 4)).toBe(0xffff_ffff);
    write(5, 0, 4, 7);
    host.write(0, 4, 0); // not enabled
    expect(host.read(4, 4)).toBe(0xffff_ffff);
  });

  it('refuses accesses that leave their double word', () => {
    select(0, 0, 0);
    expect(host.read(6, 4)).toBe(0xffff_ffff);
  });

  it('keeps identity read-only and the PAM registers writable', () => {
    write(0, 0, 0x00, 0xffff_ffff);
    expect(read(0, 0, 0x00)).toBe(0x1237_8086);
    write(0, 0, 0x59, 0x30, 1);
    expect(read(0, 0, 0x59, 1)).toBe(0x30);
    write(0, 0, 0x04, 0, 2);
    expect(read(0, 0, 0x04, 2)).toBe(0x0006);
  });

  it('lets bytes through to the reset control register inside the address register', () => {
    const ports = new Bus('ports');
    ports.register(PCI_CONFIG_PORT, PCI_CONFIG_PORTS, 'pci', host);
    ports.write(0xcf8, 4, 0x8000_0004);
    ports.write(0xcf9, 1, 0x02);
    ports.write(0xcf9, 1, 0x06);
    expect(resets).toEqual(['hard']);
    expect(ports.read(0xcf9, 1)).toBe(0x06);
    expect(ports.read(0xcf8, 4)).toBe(0x8000_0004);
  });
});

describe('functions', () => {
  const identity = { vendorId: 0x1af4, deviceId: 0x1042, classCode: 0x01_00_00, interruptPin: 1 };

  it('are found where they are attached; the first of several says so', () => {
    host.attach(3, 0, new PciFunction(identity));
    expect(read(3, 0, 0x0e, 1)).toBe(0x00);
    host.attach(3, 2, new PciFunction(identity));
    expect(read(3, 0, 0x0e, 1)).toBe(0x80);
    expect(read(3, 2, 0)).toBe(0x1042_1af4);
    expect(read(3, 1, 0)).toBe(0xffff_ffff);
    expect(() => host.attach(3, 2, new PciFunction(identity))).toThrow('taken');
    expect(() => host.attach(4, 1, new PciFunction(identity))).toThrow('function 0');
  });

  it('keep the interrupt line firmware writes, not the pin', () => {
    host.attach(3, 0, new PciFunction(identity));
    write(3, 0, 0x3c, 0xff0b, 2);
    expect(read(3, 0, 0x3c, 2)).toBe(0x010b);
  });

  it('tell the sizes of their BARs when all ones are written', () => {
    host.attach(
      3,
      0,
      new PciFunction(identity, [
        { index: 0, kind: 'io', bytes: 0x40 },
        { index: 1, kind: 'memory32', bytes: 0x1000 },
        { index: 2, kind: 'memory64', bytes: 0x4000, prefetchable: true },
      ]),
    );
    for (let bar = 0; bar < 6; bar++) write(3, 0, 0x10 + 4 * bar, 0xffff_ffff);
    expect([0, 1, 2, 3, 4, 5].map((bar) => read(3, 0, 0x10 + 4 * bar))).toEqual([
      0xffff_ffc1, 0xffff_f000, 0xffff_c00c, 0xffff_ffff, 0, 0,
    ]);
  });

  it('refuse impossible BARs', () => {
    const bar = (options: { index: number; kind: 'io' | 'memory64'; bytes: number }) => () =>
      new PciFunction(identity, [options]);
    expect(bar({ index: 0, kind: 'io', bytes: 3 })).toThrow(RangeError);
    expect(bar({ index: 5, kind: 'memory64', bytes: 4096 })).toThrow(RangeError);
  });

  it('announce where a BAR is while its space is enabled', () => {
    const device = new PciFunction(identity, [{ index: 0, kind: 'memory64', bytes: 0x1000 }]);
    const seen: (number | undefined)[] = [];
    device.onBarChange = (bar: PciBar) => seen.push(bar.address);
    host.attach(3, 0, device);
    write(3, 0, 0x10, 0xfe00_0000);
    expect(seen).toEqual([]);
    write(3, 0, 0x04, 0x0002, 2);
    write(3, 0, 0x14, 0x2);
    write(3, 0, 0x04, 0x0000, 2);
    expect(seen).toEqual([0xfe00_0000, 0x2_fe00_0000, undefined]);
  });
});

describe('BARs on the buses', () => {
  it('appear, move and leave; one mapped over another device stays away', () => {
    const memory = new Bus('memory');
    const ports = new Bus('ports');
    const constant = (value: number) => ({ read: () => value, write: () => {} });
    memory.register(0xfee0_0000, 0x1000, 'apic', constant(1));
    const device = new PciFunction({ vendorId: 1, deviceId: 2, classCode: 0 }, [{ index: 0, kind: 'memory32', bytes: 0x1000 }]);
    mapPciBars(device, 'disk', { ports, memory }, new Map([[0, constant(7)]]));
    host.attach(3, 0, device);
    write(3, 0, 0x10, 0xfe00_0000);
    write(3, 0, 0x04, 0x0002, 2);
    expect(memory.read(0xfe00_0010, 4)).toBe(7);
    write(3, 0, 0x10, 0xfee0_0000);
    expect(memory.read(0xfe00_0010, 4)).toBe(0xffff_ffff);
    expect(memory.read(0xfee0_0010, 4)).toBe(1);
    write(3, 0, 0x10, 0xfd00_0000);
    expect(memory.nameAt(0xfd00_0fff)).toBe('disk BAR 0');
    write(3, 0, 0x04, 0, 2);
    expect(memory.nameAt(0xfd00_0fff)).toBeUndefined();
  });
});
