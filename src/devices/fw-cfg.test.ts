import { beforeEach, describe, expect, it } from 'vitest';
import { GuestMemory } from '../memory/guest-memory.ts';
import { FwCfg, FwCfgKey } from './fw-cfg.ts';

const read = (device: FwCfg, key: number, length: number) => {
  device.write(0, 2, key);
  return Array.from({ length }, () => device.read(1, 1));
};
const ascii = (text: string) => Array.from(text, (letter) => letter.charCodeAt(0));

describe('items', () => {
  const device = new FwCfg({ ramBytes: 0x1_8000_0000, cpuCount: 4, maxCpus: 8 });

  it('sign as QEMU and offer no DMA without memory', () => {
    expect(read(device, FwCfgKey.signature, 4)).toEqual(ascii('QEMU'));
    expect(read(device, FwCfgKey.id, 4)).toEqual([1, 0, 0, 0]);
    expect(device.dmaPort).toBeUndefined();
  });

  it('give RAM in 64 bits and CPUs in 16, little-endian', () => {
    expect(read(device, FwCfgKey.ramBytes, 8)).toEqual([0, 0, 0, 0x80, 1, 0, 0, 0]);
    expect(read(device, FwCfgKey.cpuCount, 2)).toEqual([4, 0]);
    expect(read(device, FwCfgKey.maxCpus, 2)).toEqual([8, 0]);
    expect(read(device, FwCfgKey.kernelData, 4)).toEqual([0, 0, 0, 0]);
  });

  it('read as 0 past their end and where there is none', () => {
    expect(read(device, FwCfgKey.signature, 6).slice(4)).toEqual([0, 0]);
    expect(read(device, 0x7777, 2)).toEqual([0, 0]);
  });

  it('start over when selected again, and ignore writes', () => {
    read(device, FwCfgKey.signature, 2);
    device.write(1, 1, 0x41);
    device.write(0, 1, 5);
    expect(device.read(1, 1)).toBe('M'.charCodeAt(0));
    expect(read(device, FwCfgKey.signature, 1)).toEqual(ascii('Q'));
  });
});

describe('files', () => {
  it('are listed by name, big-endian, with their selectors', () => {
    const device = new FwCfg({ ramBytes: 2 ** 20, cpuCount: 1 });
    expect(read(device, FwCfgKey.directory, 4)).toEqual([0, 0, 0, 0]);
    const second = device.addFile('opt/b', Uint8Array.of(1, 2, 3));
    const first = device.addFile('opt/a', new Uint8Array(300));
    const directory = Uint8Array.from(read(device, FwCfgKey.directory, 4 + 2 * 64));
    const view = new DataView(directory.buffer);
    expect(view.getUint32(0)).toBe(2);
    expect([view.getUint32(4), view.getUint16(8)]).toEqual([300, first]);
    expect([...directory.subarray(12, 18)]).toEqual([...ascii('opt/a'), 0]);
    expect([view.getUint32(68), view.getUint16(72)]).toEqual([3, second]);
    expect(read(device, second, 3)).toEqual([1, 2, 3]);
  });

  it('refuse names that do not fit or are taken', () => {
    const device = new FwCfg({ ramBytes: 2 ** 20, cpuCount: 1 });
    device.addFile('opt/a', new Uint8Array(1));
    expect(() => device.addFile('opt/a', new Uint8Array(1))).toThrow('exists');
    expect(() => device.addFile('x'.repeat(56), new Uint8Array(1))).toThrow(RangeError);
    expect(() => device.addFile('', new Uint8Array(1))).toThrow(RangeError);
  });
});

describe('DMA', () => {
  const STRUCTURE = 0x1000;
  let memory: GuestMemory;
  let device: FwCfg;
  let written: [number, number][];

  beforeEach(() => {
    memory = new GuestMemory({ ramBytes: 2 ** 20 });
    written = [];
    memory.onWrite = (guestPhysical, bytes) => written.push([guestPhysical, bytes]);
    device = new FwCfg({ ramBytes: 2 ** 20, cpuCount: 1, memory });
  });

  /** Runs a transfer and returns what is left in its control field. */
  function run(control: number, length: number, address: number): number {
    const structure = memory.linear(STRUCTURE, 16);
    memory.view.setUint32(structure, control);
    memory.view.setUint32(structure + 4, length);
    memory.view.setUint32(structure + 8, 0);
    memory.view.setUint32(structure + 12, address);
    device.dmaPort?.write(0, 4, 0);
    device.dmaPort?.write(4, 4, 0x0010_0000); // 0x1000, byte-swapped
    return memory.view.getUint32(structure);
  }

  it('is announced in the ID and by its signature', () => {
    expect(read(device, FwCfgKey.id, 1)).toEqual([3]);
    expect(device.dmaPort?.read(0, 4)).toBe(0x554d_4551); // "QEMU" in memory order
    expect(device.dmaPort?.read(4, 4)).toBe(0x4746_4320);
  });

  it('selects and copies, zeroes past the end, and tells of the write', () => {
    const key = device.addFile('opt/a', Uint8Array.of(1, 2, 3));
    memory.slice(0x2000, 8).fill(0xee);
    expect(run((key << 16) | 0x0a, 5, 0x2000)).toBe(0);
    expect([...memory.slice(0x2000, 6)]).toEqual([1, 2, 3, 0, 0, 0xee]);
    expect(written).toEqual([
      [0x2000, 5],
      [STRUCTURE, 4],
    ]);
  });

  it('skips, and goes on where it was', () => {
    const key = device.addFile('opt/a', Uint8Array.of(1, 2, 3));
    run((key << 16) | 0x0c, 2, 0);
    run(0x02, 1, 0x2000);
    expect(memory.slice(0x2000, 1)[0]).toBe(3);
  });

  it('answers an address that is no RAM, and a write, with an error', () => {
    expect(run(0x02, 4, 0xff_0000)).toBe(1);
    expect(run(0x10, 4, 0x2000)).toBe(1);
  });

  it('ignores a control structure that is not in RAM', () => {
    device.dmaPort?.write(0, 4, 0xffff_ffff);
    device.dmaPort?.write(4, 4, 0);
    expect(written).toEqual([]);
  });
});
