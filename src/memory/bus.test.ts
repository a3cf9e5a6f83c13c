import { describe, expect, it } from 'vitest';
import { Bus, type BusDevice } from './bus.ts';

/** A device that notes its accesses. */
function noting(log: string[], name: string, value = 0): BusDevice {
  return {
    read: (offset, bytes) => {
      log.push(`${name} read ${bytes} +${offset}`);
      return value;
    },
    write: (offset, bytes, written) => void log.push(`${name} write ${bytes} +${offset} = ${written}`),
  };
}

describe('an access', () => {
  it('reaches the device that claimed the address, which sees its own offset', () => {
    const log: string[] = [];
    const bus = new Bus('ports');
    bus.register(0x3f8, 8, 'COM1', noting(log, 'COM1'));
    bus.register(0x60, 1, 'data', noting(log, 'data'));
    bus.register(0x64, 1, 'command', noting(log, 'command'));
    bus.read(0x3f8, 1);
    bus.write(0x3ff, 1, 5);
    bus.read(0x64, 1);
    bus.read(0x60, 1);
    expect(log).toEqual(['COM1 read 1 +0', 'COM1 write 1 +7 = 5', 'command read 1 +0', 'data read 1 +0']);
  });

  it('that nobody claims reads as ones and is swallowed', () => {
    const bus = new Bus('ports');
    expect([bus.read(0x61, 1), bus.read(0x61, 2), bus.read(0x61, 4)]).toEqual([0xff, 0xffff, 0xffff_ffff]);
    bus.write(0x61, 1, 5);
    bus.register(0x60, 1, 'one', noting([], 'one'));
    expect([bus.read(0x5f, 1), bus.read(0x61, 1)]).toEqual([0xff, 0xff]);
  });

  it('has unsigned values, whatever a device or vCPU gives', () => {
    const log: string[] = [];
    const bus = new Bus('MMIO');
    bus.register(0, 4, 'device', noting(log, 'device', -1));
    expect(bus.read(0, 4)).toBe(0xffff_ffff);
    bus.write(0, 4, -2);
    expect(log[1]).toBe('device write 4 +0 = 4294967294');
  });

  it('finds its device among many, and none between them', () => {
    const bus = new Bus('MMIO');
    for (const i of [7, 3, 9, 0, 5, 1, 8, 2, 6, 4])
      bus.register(0xfe00_0000 + i * 0x1000, 0x800, `device ${i}`, noting([], '', i));
    for (let i = 0; i < 10; i++) {
      expect(bus.read(0xfe00_0000 + i * 0x1000 + 0x7ff, 1)).toBe(i);
      expect(bus.read(0xfe00_0000 + i * 0x1000 + 0x800, 1)).toBe(0xff);
      expect(bus.nameAt(0xfe00_0000 + i * 0x1000)).toBe(`device ${i}`);
    }
    expect(bus.nameAt(0)).toBeUndefined();
  });

  it('reaches addresses above 4 GiB', () => {
    const bus = new Bus('MMIO');
    bus.register(2 ** 36, 16, 'high', noting([], 'high', 9));
    expect(bus.read(2 ** 36 + 15, 1)).toBe(9);
  });
});

describe('claims', () => {
  it('that overlap are refused, with both names', () => {
    const bus = new Bus('I/O ports');
    bus.register(0x40, 4, 'PIT', noting([], 'PIT'));
    for (const [start, bytes] of [
      [0x40, 1],
      [0x43, 1],
      [0x3f, 2],
      [0x30, 0x100],
    ]) {
      expect(() => bus.register(start, bytes, 'other', noting([], 'other'))).toThrow(
        `I/O ports: other at 0x${start.toString(16)} overlaps PIT`,
      );
    }
    bus.register(0x44, 1, 'behind', noting([], ''));
    bus.register(0x3f, 1, 'before', noting([], ''));
  });

  it('can be asked about and given back', () => {
    const bus = new Bus('MMIO');
    bus.register(0x1000, 0x100, 'BAR', noting([], 'BAR', 3));
    expect([bus.isFree(0xf00, 0x100), bus.isFree(0x10ff, 1), bus.isFree(0x1100, 1)]).toEqual([true, false, true]);
    bus.unregister(0x1001);
    expect(bus.isFree(0x1000, 1)).toBe(false);
    bus.unregister(0x1000);
    expect(bus.isFree(0x1000, 0x100)).toBe(true);
    expect(bus.read(0x1000, 1)).toBe(0xff);
  });
});
