import { beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from './clock.ts';
import { RTC_CENTURY_REGISTER, RtcCmos, type RtcCmosOptions } from './rtc-cmos.ts';

const SECOND = 1e9;
const [A, B, C, D] = [0x0a, 0x0b, 0x0c, 0x0d];

let clock: ManualClock;
let rtc: RtcCmos;
let level: boolean;
let rises: number[];

function build(options: Partial<RtcCmosOptions> = {}): void {
  clock = new ManualClock();
  level = false;
  rises = [];
  const set = (asserted: boolean) => {
    if (asserted && !level) rises.push(clock.now());
    level = asserted;
  };
  rtc = new RtcCmos({ clock, line: { set }, ...options });
}

const read = (index: number) => {
  rtc.write(0, 1, index);
  return rtc.read(1, 1);
};
const write = (index: number, value: number) => {
  rtc.write(0, 1, index);
  rtc.write(1, 1, value);
};
/** Century, year, month, day, hours, minutes, seconds, as they are encoded. */
const date = () => [RTC_CENTURY_REGISTER, 9, 8, 7, 4, 2, 0].map(read);
const hex = (values: number[]) => values.map((value) => value.toString(16).padStart(2, '0')).join(' ');
const seconds = (iso: string) => Date.parse(`${iso}Z`) / 1000;

beforeEach(() => build());

describe('the date', () => {
  it('starts at 2024-01-01, a Monday, in BCD and 24 hours', () => {
    expect(hex(date())).toBe('20 24 01 01 00 00 00');
    expect(read(6)).toBe(2);
    expect(read(D)).toBe(0x80);
    expect(read(B)).toBe(0x02);
  });

  it('carries from seconds to centuries', () => {
    build({ epochSeconds: seconds('2099-12-31T23:59:58') });
    clock.advanceTo(1.999 * SECOND);
    expect(hex(date())).toBe('20 99 12 31 23 59 59');
    const weekday = read(6);
    clock.advanceTo(2 * SECOND);
    expect(hex(date())).toBe('21 00 01 01 00 00 00');
    expect(read(6)).toBe((weekday % 7) + 1);
  });

  it.each(['1970-01-01T00:00:00', '2000-02-29T12:34:56', '2023-02-28T23:59:59', '2024-12-31T13:00:00', '1900-03-01T00:00:00'])(
    'agrees with the calendar at %s and a long time after',
    (iso) => {
      build({ epochSeconds: seconds(iso) });
      for (const days of [0, 1, 60, 366, 10_000]) {
        clock.advanceTo(days * 86_400 * SECOND);
        const expected = new Date((seconds(iso) + days * 86_400) * 1000);
        const bcd = expected.toISOString().replace(/^(..)(..)-(..)-(..)T(..):(..):(..).*/, '$1 $2 $3 $4 $5 $6 $7');
        expect(hex(date())).toBe(bcd);
        expect(read(6)).toBe(expected.getUTCDay() + 1);
      }
    },
  );

  it('shows binary and 12 hours to those who ask before setting it', () => {
    write(B, 0x80 | 0x04);
    for (const [index, value] of [
      [0, 30],
      [2, 59],
      [4, 0x80 | 11],
      [7, 31],
      [8, 12],
      [9, 99],
    ])
      write(index, value);
    write(B, 0x04);
    clock.advanceTo(30 * SECOND);
    expect([0, 2, 4, 7, 8, 9].map(read)).toEqual([0, 0, 12, 1, 1, 0]); // 12 a.m.
    clock.advanceTo(30 * SECOND + 12 * 3600 * SECOND);
    expect(read(4)).toBe(0x80 | 12);
  });

  it('stands still while SET is on and goes on from what was written', () => {
    write(B, 0x82);
    write(0, 0x45);
    clock.advanceTo(10 * SECOND);
    expect(read(0)).toBe(0x45);
    write(B, 0x02);
    clock.advanceTo(11 * SECOND);
    expect(read(0)).toBe(0x46);
  });

  it('ticks half a second after the divider leaves reset', () => {
    write(A, 0x76);
    clock.advanceTo(5.2 * SECOND);
    write(0, 0x10);
    write(A, 0x26);
    clock.advanceTo(5.6999 * SECOND);
    expect(read(0)).toBe(0x10);
    clock.advanceTo(5.7 * SECOND);
    expect(read(0)).toBe(0x11);
  });

  it('raises UIP 2.2 ms before each update', () => {
    clock.advanceTo(0.9977 * SECOND);
    expect(read(A)).toBe(0x26);
    clock.advanceTo(0.9978 * SECOND);
    expect(read(A)).toBe(0xa6);
    clock.advanceTo(SECOND);
    expect(read(A)).toBe(0x26);
    write(B, 0x82);
    clock.advanceTo(1.999 * SECOND);
    expect(read(A)).toBe(0x26);
  });
});

describe('interrupts', () => {
  it('periodic ones come at the rate of register A, if C is read in between', () => {
    write(A, 0x26); // 1,024 Hz
    write(B, 0x42);
    for (let tick = 1; tick <= 2048; tick++) {
      clock.advanceTo(((tick + 0.01) / 1024) * SECOND);
      expect(read(C)).toBe(tick % 1024 === 0 ? 0xd0 : 0xc0);
      expect(level).toBe(false);
    }
    expect(rises).toHaveLength(2048);
    clock.advanceTo(10 * SECOND);
    expect(rises).toHaveLength(2049);
  });

  it('the slowest and the fastest rates are 2 Hz and 8,192 Hz', () => {
    write(A, 0x2f);
    write(B, 0x42);
    clock.advanceTo(SECOND / 2);
    expect(rises).toEqual([SECOND / 2]);
    write(A, 0x23);
    read(C);
    clock.advanceTo(SECOND);
    expect(rises[1] - SECOND / 2).toBeCloseTo(SECOND / 8192, 0);
  });

  it('rate 0 has none', () => {
    write(A, 0x20);
    write(B, 0x42);
    clock.advanceTo(SECOND * 0.9);
    expect(rises).toEqual([]);
    expect(read(C) & 0x40).toBe(0);
  });

  it('an update interrupt comes with each second', () => {
    write(B, 0x12);
    clock.advanceTo(SECOND);
    expect(level).toBe(true);
    expect(read(C)).toBe(0xd0);
    clock.advanceTo(2.5 * SECOND);
    expect(rises).toEqual([SECOND, 2 * SECOND]);
  });

  it.each([0.1, 1 / 3, 12_345.678_9, 86_400.000_000_123])(
    'come on time though the divider started at an odd moment (%d s)',
    (start) => {
      clock.advanceTo(start * SECOND);
      write(A, 0x76);
      write(A, 0x26);
      write(B, 0x52);
      read(C); // what came before
      let updates = 0;
      let periods = 0;
      for (let step = 1; step <= 2048 * 4; step++) {
        clock.advanceTo(start * SECOND + (step + 0.1) * (SECOND / 2048));
        const flags = read(C);
        if (flags & 0x10) updates++;
        if (flags & 0x40) periods++;
      }
      expect([updates, periods]).toEqual([4, 4096]);
    },
  );

  it('setting SET turns the update interrupt off', () => {
    write(B, 0x92);
    expect(read(B)).toBe(0x82);
  });

  it('flags are set without enables, raise nothing, and are cleared by reading C', () => {
    clock.advanceTo(SECOND);
    expect(rises).toEqual([]);
    expect(read(C)).toBe(0x50);
    expect(read(C)).toBe(0);
  });

  it('enabling an interrupt whose flag is up raises it at once', () => {
    clock.advanceTo(SECOND);
    write(B, 0x12);
    expect(level).toBe(true);
  });

  it('the alarm fires at its time of day, once a day', () => {
    write(1, 0x30);
    write(3, 0x02);
    write(5, 0x01);
    write(B, 0x22);
    clock.advanceTo(86_400 * SECOND);
    expect(rises).toEqual([3750 * SECOND]);
    expect(read(C) & 0xa0).toBe(0xa0);
    clock.advanceTo(2 * 86_400 * SECOND);
    expect(rises).toEqual([3750 * SECOND, (86_400 + 3750) * SECOND]);
  });

  it('alarm bytes from 0xC0 up match anything', () => {
    write(1, 0x15);
    write(3, 0xff);
    write(5, 0xc0);
    write(B, 0x22);
    for (const minute of [0, 1, 2]) {
      clock.advanceTo((minute * 60 + 30) * SECOND);
      expect(read(C) & 0x20).toBe(0x20);
    }
    expect(rises).toEqual([15, 75, 135].map((at) => at * SECOND));
  });

  it('an alarm that is no time of day never fires', () => {
    write(1, 0x75);
    write(B, 0x22);
    clock.advanceTo(3 * 86_400 * SECOND);
    expect(rises).toEqual([]);
  });
});

describe('CMOS RAM', () => {
  it('tells the sizes of memory, the number of CPUs, and its checksum', () => {
    build({ lowRamBytes: 128 * 2 ** 20, highRamBytes: 2 ** 30, cpuCount: 4 });
    const word = (index: number) => read(index) | (read(index + 1) << 8);
    expect(word(0x15)).toBe(640);
    expect(word(0x17)).toBe(0xffff);
    expect(word(0x30)).toBe(0xffff);
    expect(word(0x34)).toBe((112 * 2 ** 20) / 65_536);
    expect(word(0x5b) | (read(0x5d) << 16)).toBe(2 ** 30 / 65_536);
    expect(read(0x5f)).toBe(3);
    let sum = 0;
    for (let i = 0x10; i <= 0x2d; i++) sum += read(i);
    expect((read(0x2e) << 8) | read(0x2f)).toBe(sum);
  });

  it('keeps what the guest writes, and the NMI mask', () => {
    write(0x0f, 0x0a);
    expect(read(0x0f)).toBe(0x0a);
    expect(rtc.nmiMasked).toBe(false);
    rtc.write(0, 1, 0x8f);
    expect(rtc.nmiMasked).toBe(true);
    expect(rtc.read(1, 1)).toBe(0x0a);
    expect(rtc.read(0, 1)).toBe(0xff);
  });

  it('leaves registers C and D alone when they are written', () => {
    write(D, 0);
    write(C, 0xff);
    expect([read(C), read(D)]).toEqual([0, 0x80]);
  });
});
