import { beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from './clock.ts';
import { PIT_HZ, Pit8254 } from './pit-8254.ts';
import { TickRate } from './tick-rate.ts';

const CONTROL = 3;
const rate = new TickRate(PIT_HZ);

let clock: ManualClock;
let pit: Pit8254;
/** Ticks at which IRQ 0 rose. */
let rises: number[];
let level: boolean;

beforeEach(() => {
  clock = new ManualClock();
  rises = [];
  level = true;
  const set = (asserted: boolean) => {
    if (asserted && !level) rises.push(rate.ticksAt(clock.now()));
    level = asserted;
  };
  pit = new Pit8254({ clock, line: { set } });
});

const at = (tick: number) => clock.advanceTo(rate.nanosecondsAt(tick));
const program = (counter: number, control: number, count: number) => {
  pit.write(CONTROL, 1, (counter << 6) | control);
  pit.write(counter, 1, count & 0xff);
  pit.write(counter, 1, count >> 8);
};
const count = (counter: number) => pit.read(counter, 1) | (pit.read(counter, 1) << 8);
const status = (counter: number) => {
  pit.write(CONTROL, 1, 0xe0 | (2 << counter));
  return pit.read(counter, 1);
};
const [MODE0, MODE1, MODE2, MODE3, MODE4, MODE5] = [0x30, 0x32, 0x34, 0x36, 0x38, 0x3a];

describe('counter 0 and IRQ 0', () => {
  it('mode 2 interrupts every N ticks, from the load on, without drift', () => {
    program(0, MODE2, 1000);
    at(10_500);
    expect(rises).toEqual(Array.from({ length: 10 }, (_, i) => 1 + (i + 1) * 1000));
    at(1 + 11_931_820);
    expect(rises).toHaveLength(11_931);
  });

  it('mode 3 interrupts as often', () => {
    program(0, MODE3, 1001);
    at(4100);
    expect(rises).toEqual([1002, 2003, 3004, 4005]);
  });

  it('mode 0 interrupts once, N + 1 ticks after the count was written', () => {
    program(0, MODE0, 500);
    expect(level).toBe(false);
    at(500);
    expect(level).toBe(false);
    at(100_000);
    expect(rises).toEqual([501]);
    program(0, MODE0, 0); // how Linux parks it: 65,536 ticks more
    at(300_000);
    expect(rises).toEqual([501, 100_000 + 65_537]);
  });

  it('mode 4 interrupts once per count written', () => {
    program(0, MODE4, 100);
    at(1000);
    expect(rises).toEqual([102]);
    pit.write(0, 1, 50);
    pit.write(0, 1, 0);
    at(5000);
    expect(rises).toEqual([102, 1052]);
  });

  it('a mode that lifts OUT interrupts, one that leaves it high does not', () => {
    program(0, MODE0, 100);
    at(10);
    pit.write(CONTROL, 1, MODE2);
    expect(rises).toEqual([10]);
    pit.write(CONTROL, 1, MODE4);
    at(1000);
    expect(rises).toEqual([10]);
  });

  it('a new count in mode 2 takes over at the end of the period', () => {
    program(0, MODE2, 1000);
    at(400);
    pit.write(0, 1, 0xf4);
    pit.write(0, 1, 0x01);
    expect(status(0) & 0x40).toBe(0x40);
    at(2200);
    expect(rises).toEqual([1001, 1501, 2001]);
    expect(status(0) & 0x40).toBe(0);
  });

  it('a new count in mode 3 takes over at the end of the half period', () => {
    program(0, MODE3, 1000);
    at(100); // OUT is high until 501
    pit.write(0, 1, 200);
    pit.write(0, 1, 0);
    at(900);
    expect(rises).toEqual([601, 801]);
  });

  it('reprogramming stops what was running', () => {
    program(0, MODE2, 100);
    at(50);
    program(0, MODE4, 1000);
    at(1000);
    expect(rises).toEqual([]);
    at(1100);
    expect(rises).toEqual([1052]);
  });

  it('an illegal count of 1 is taken for 2', () => {
    program(0, MODE2, 1);
    at(9);
    expect(rises).toEqual([3, 5, 7, 9]);
  });
});

describe('reading', () => {
  it('follows the count in mode 2', () => {
    program(0, MODE2, 0x1234);
    at(1);
    expect(count(0)).toBe(0x1234);
    at(0x35);
    expect(count(0)).toBe(0x1200);
    at(0x1234);
    expect(count(0)).toBe(1);
    at(0x1235);
    expect(count(0)).toBe(0x1234);
  });

  it('counts by two in mode 3, once for each half', () => {
    program(0, MODE3, 7);
    const seen = Array.from({ length: 8 }, (_, i) => {
      at(1 + i);
      return [count(0), status(0) >> 7];
    });
    // Four ticks high, three low; the count is even from the start.
    expect(seen).toEqual([
      [6, 1],
      [4, 1],
      [2, 1],
      [0, 1],
      [6, 0],
      [4, 0],
      [2, 0],
      [6, 1],
    ]);
  });

  it('a latched count stands still until both bytes are read, further latches notwithstanding', () => {
    program(0, MODE2, 0x8000);
    at(1);
    pit.write(CONTROL, 1, 0x00);
    at(0x101);
    pit.write(CONTROL, 1, 0x00);
    expect(count(0)).toBe(0x8000);
    expect(count(0)).toBe(0x7f00);
  });

  it('has no null count before the first control word: Linux 32-bit waits for that', () => {
    expect(status(0) & 0x40).toBe(0);
    pit.write(CONTROL, 1, MODE2);
    expect(status(0) & 0x40).toBe(0x40);
  });

  it('read-back latches status and count of several counters at once, status first', () => {
    program(0, MODE2, 0x4000);
    pit.write(CONTROL, 1, 0x54); // low byte only
    pit.write(1, 1, 0x12);
    at(0x11);
    pit.write(CONTROL, 1, 0xc0 | 0x06);
    at(0x800);
    expect(pit.read(0, 1)).toBe(0xb4);
    expect(count(0)).toBe(0x3ff0);
    expect(pit.read(1, 1)).toBe(0x94);
    expect(pit.read(1, 1)).toBe(0x02);
  });

  it('says that a count has not been loaded yet', () => {
    pit.write(CONTROL, 1, MODE2);
    expect(status(0) & 0x40).toBe(0x40);
    pit.write(0, 1, 0);
    pit.write(0, 1, 1);
    expect(status(0) & 0x40).toBe(0x40);
    at(1);
    expect(status(0) & 0x40).toBe(0);
  });

  it('counts in BCD', () => {
    program(0, MODE2 | 1, 0x1000);
    at(2);
    expect(count(0)).toBe(0x0999);
    program(0, MODE0 | 1, 0); // 10,000
    at(4);
    expect(count(0)).toBe(0x9999);
  });

  it('wraps on after terminal count in mode 0', () => {
    program(0, MODE0, 10);
    at(12);
    expect(count(0)).toBe(0xffff);
  });

  it('single bytes: low alone and high alone', () => {
    pit.write(CONTROL, 1, 0x24); // high byte only, mode 2
    pit.write(0, 1, 0x10);
    at(2);
    expect(pit.read(0, 1)).toBe(0x0f);
    expect(pit.read(0, 1)).toBe(0x0f);
  });

  it('the control port is write-only', () => {
    expect(pit.read(CONTROL, 1)).toBe(0xff);
  });
});

describe('counter 2 and port 0x61', () => {
  const port = {
    get value() {
      return pit.controlPortB.read(0, 1);
    },
    set value(value: number) {
      pit.controlPortB.write(0, 1, value);
    },
  };

  it('times an interval the way Linux calibrates the TSC', () => {
    port.value = (port.value & ~0x02) | 0x01;
    program(2, MODE0, 59_659);
    expect(port.value & 0x20).toBe(0);
    at(59_659);
    expect(port.value & 0x20).toBe(0);
    at(59_660);
    expect(port.value & 0x20).toBe(0x20);
  });

  it('the gate stops mode 0 and lets it go on', () => {
    port.value = 1;
    program(2, MODE0, 1000);
    at(401);
    port.value = 0;
    expect(count(2)).toBe(600);
    at(5000);
    expect(count(2)).toBe(600);
    port.value = 1;
    at(5599);
    expect(port.value & 0x20).toBe(0);
    at(5600);
    expect(port.value & 0x20).toBe(0x20);
  });

  it('a rising gate restarts modes 2 and 3, a low one holds OUT high', () => {
    program(2, MODE3, 1000);
    expect(port.value & 0x20).toBe(0x20);
    at(3000);
    port.value = 1;
    at(3001);
    expect(count(2)).toBe(1000);
    at(3501);
    expect(port.value & 0x20).toBe(0);
    port.value = 0;
    expect(port.value & 0x20).toBe(0x20);
  });

  it('a rising gate triggers the one-shot of mode 1, again and again', () => {
    program(2, MODE1, 100);
    at(1000);
    expect(port.value & 0x20).toBe(0x20);
    port.value = 1;
    at(1001);
    expect(port.value & 0x20).toBe(0);
    at(1050);
    port.value = 0;
    port.value = 1;
    at(1150);
    expect(port.value & 0x20).toBe(0);
    at(1151);
    expect(port.value & 0x20).toBe(0x20);
  });

  it('a rising gate starts the strobe of mode 5', () => {
    program(2, MODE5, 100);
    at(1000);
    port.value = 1;
    at(1100);
    expect(port.value & 0x20).toBe(0x20);
    at(1101);
    expect(port.value & 0x20).toBe(0);
    at(1102);
    expect(port.value & 0x20).toBe(0x20);
  });

  it('toggles the refresh bit every 15 microseconds and keeps the low four bits', () => {
    port.value = 0xff;
    expect(port.value & 0xdf).toBe(0x0f);
    at(18);
    expect(port.value & 0x10).toBe(0x10);
    at(36);
    expect(port.value & 0x10).toBe(0);
  });
});
