import { describe, expect, it } from 'vitest';
import { FOUR_GIB, MMIO_HOLE_BASE } from '../memory/guest-memory.ts';
import { e820Map } from './memory-map.ts';

const MIB = 2 ** 20;

describe('e820Map', () => {
  it('reports conventional memory, the EBDA, the BIOS area and extended memory as a PC does', () => {
    expect(e820Map([{ guestPhysical: 0, bytes: 128 * MIB }])).toEqual([
      { guestPhysical: 0, bytes: 0x9fc00, type: 'usable' },
      { guestPhysical: 0x9fc00, bytes: 0x400, type: 'reserved' },
      { guestPhysical: 0xe0000, bytes: 0x20000, type: 'reserved' },
      { guestPhysical: MIB, bytes: 127 * MIB, type: 'usable' },
    ]);
  });

  it('reports RAM above the MMIO hole at 4 GiB', () => {
    const map = e820Map([
      { guestPhysical: 0, bytes: MMIO_HOLE_BASE },
      { guestPhysical: FOUR_GIB, bytes: 512 * MIB },
    ]);
    expect(map.slice(-2)).toEqual([
      { guestPhysical: MIB, bytes: MMIO_HOLE_BASE - MIB, type: 'usable' },
      { guestPhysical: FOUR_GIB, bytes: 512 * MIB, type: 'usable' },
    ]);
  });

  it('never reports what is not RAM', () => {
    const map = e820Map([{ guestPhysical: 0, bytes: 0xf0000 }]);
    expect(map.at(-1)).toEqual({ guestPhysical: 0xe0000, bytes: 0x10000, type: 'reserved' });
    expect(e820Map([{ guestPhysical: 0, bytes: 0x10000 }])).toEqual([{ guestPhysical: 0, bytes: 0x10000, type: 'usable' }]);
  });

  it('is in ascending order without overlaps', () => {
    const map = e820Map([
      { guestPhysical: 0, bytes: MMIO_HOLE_BASE },
      { guestPhysical: FOUR_GIB, bytes: MIB },
    ]);
    for (let i = 1; i < map.length; i++) {
      expect(map[i].guestPhysical).toBeGreaterThanOrEqual(map[i - 1].guestPhysical + map[i - 1].bytes);
    }
  });
});
