import { beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from './clock.ts';
import { HPET_INTEL_HZ, Hpet } from './hpet.ts';

const [CAPABILITIES, CONFIGURATION, STATUS, COUNTER] = [0x000, 0x010, 0x020, 0x0f0];
const timerConfiguration = (n: number) => 0x100 + 0x20 * n;
const comparator = (n: number) => 0x108 + 0x20 * n;
const [LEVEL, ENABLE, PERIODIC, SET_ACCUMULATOR, MODE32] = [0x02, 0x04, 0x08, 0x40, 0x100];
const route = (gsi: number) => gsi << 9;
const TICK = 10;

class Pin {
  level = false;
  readonly rises: number[] = [];
  set(asserted: boolean): void {
    if (asserted && !this.level) this.rises.push(clock.now());
    this.level = asserted;
  }
}

let clock: ManualClock;
let pins: Map<number, Pin>;
let irq0: Pin;
let irq8: Pin;
let hpet: Hpet;

beforeEach(() => build());

function build(hz?: number): void {
  clock = new ManualClock();
  pins = new Map([2, 8, 16, 17].map((gsi) => [gsi, new Pin()]));
  irq0 = new Pin();
  irq8 = new Pin();
  const lines = Array.from({ length: 24 }, (_, gsi) => pins.get(gsi));
  hpet = new Hpet({ clock, lines, irq0, irq8, ...(hz === undefined ? {} : { hz }) });
}

const read = (register: number) => hpet.read(register, 4);
const write = (register: number, value: number) => hpet.write(register, 4, value);
const write64 = (register: number, value: bigint) => {
  write(register, Number(value & 0xffff_ffffn));
  write(register + 4, Number(value >> 32n));
};
const read64 = (register: number) => BigInt(read(register)) | (BigInt(read(register + 4)) << 32n);
const pin = (gsi: number) => pins.get(gsi) as Pin;

describe('capabilities', () => {
  it('tell of three 64-bit timers, legacy replacement and a 10 ns period', () => {
    expect(read(CAPABILITIES)).toBe(0x8086_a201);
    expect(read(CAPABILITIES + 4)).toBe(10_000_000);
    expect(read(timerConfiguration(2))).toBe(0x30);
    expect(read(timerConfiguration(2) + 4)).toBe((1 << 2) | (1 << 8) | (1 << 16) | (1 << 17));
    expect(read(timerConfiguration(3))).toBe(0);
  });

  it("give the period of Intel's oscillator in femtoseconds", () => {
    build(HPET_INTEL_HZ);
    expect(read(CAPABILITIES + 4)).toBe(69_841_279);
  });

  it('narrow reads take their part', () => {
    expect(hpet.read(2, 2)).toBe(0x8086);
    expect(hpet.read(1, 1)).toBe(0xa2);
  });
});

describe('the main counter', () => {
  it('counts only while enabled, and keeps its value', () => {
    clock.advanceTo(1000);
    expect(read(COUNTER)).toBe(0);
    write(CONFIGURATION, 1);
    clock.advanceTo(1500);
    expect(read(COUNTER)).toBe(50);
    write(CONFIGURATION, 0);
    clock.advanceTo(9000);
    expect(read(COUNTER)).toBe(50);
    write(CONFIGURATION, 1);
    clock.advanceTo(9010);
    expect(read(COUNTER)).toBe(51);
  });

  it('carries through all 64 bits', () => {
    write64(COUNTER, 0xffff_fffe_ffff_fff0n);
    write(CONFIGURATION, 1);
    clock.advanceTo(0x20 * TICK);
    expect(read64(COUNTER)).toBe(0xffff_ffff_0000_0010n);
    clock.advanceTo((2 ** 32 + 0x20) * TICK);
    expect(read64(COUNTER)).toBe(0x10n);
  });
});

describe('one-shot timers', () => {
  it('interrupt when the counter equals the comparator, once', () => {
    write(timerConfiguration(0), ENABLE | route(2));
    write(CONFIGURATION, 1);
    write64(comparator(0), 1000n);
    clock.advanceTo(1e9);
    expect(pin(2).rises).toEqual([10_000]);
    expect(read(STATUS)).toBe(0);
    expect(pin(2).level).toBe(true); // an 8259 that finds the line low takes the interrupt for spurious
    write(timerConfiguration(0), route(2));
    expect(pin(2).level).toBe(false);
  });

  it('fire at once where the comparator is the counter', () => {
    write(timerConfiguration(0), ENABLE | route(2));
    write(CONFIGURATION, 1);
    clock.advanceTo(500);
    write64(comparator(0), 50n);
    clock.advanceTo(500);
    expect(pin(2).rises).toEqual([500]);
  });

  it('with 32 bits they compare the low half and come again when it wraps', () => {
    write64(COUNTER, 0x5_ffff_ff00n);
    write(timerConfiguration(1), ENABLE | MODE32 | route(8));
    write(comparator(1), 0x100);
    expect(read64(comparator(1))).toBe(0x100n);
    write(CONFIGURATION, 1);
    clock.advanceTo((2 ** 32 + 0x300) * TICK);
    expect(pin(8).rises).toEqual([0x200 * TICK, (2 ** 32 + 0x200) * TICK]);
  });

  it('with 64 bits a comparator just behind the counter is an age away', () => {
    write(timerConfiguration(0), ENABLE | route(2));
    write(CONFIGURATION, 1);
    clock.advanceTo(1000);
    write64(comparator(0), 99n);
    clock.advanceTo(1e15);
    expect(pin(2).rises).toEqual([]);
  });

  it('are silent while disabled, and hold to the counter when it is moved', () => {
    write(CONFIGURATION, 1);
    write64(comparator(0), 1000n);
    clock.advanceTo(5000);
    write(timerConfiguration(0), ENABLE | route(2));
    write64(COUNTER, 900n);
    clock.advanceTo(20_000);
    expect(pin(2).rises).toEqual([6000]);
  });

  it('do not lose a match that was due when the guest wrote', () => {
    write(timerConfiguration(0), ENABLE | route(2));
    write(CONFIGURATION, 1);
    write64(comparator(0), 10n);
    let time = 0;
    clock.now = () => time; // a vCPU that ran ahead of the timers
    time = 150;
    write(timerConfiguration(0), ENABLE | route(16));
    expect(pin(2).rises).toHaveLength(1);
  });
});

describe('periodic timers', () => {
  /** As Linux sets one up: configuration with VAL_SET, first match, then the period. */
  function periodic(index: number, first: number, period: number, flags = 0): void {
    write(timerConfiguration(index), ENABLE | PERIODIC | SET_ACCUMULATOR | MODE32 | flags);
    write(comparator(index), first);
    write(comparator(index), period);
    write(CONFIGURATION, read(CONFIGURATION) | 1);
  }

  it('interrupt each period, without drift', () => {
    periodic(0, 500, 1000, route(2));
    clock.advanceTo(45_000);
    expect(pin(2).rises).toEqual([5000, 15_000, 25_000, 35_000, 45_000]);
    clock.advanceTo(5000 + 1e6 * 10_000);
    expect(pin(2).rises).toHaveLength(1_000_001);
  });

  it('clear VAL_SET with the accumulator written', () => {
    write(timerConfiguration(0), PERIODIC | SET_ACCUMULATOR | MODE32);
    expect(read(timerConfiguration(0))).toBe(0x30 | PERIODIC | SET_ACCUMULATOR | MODE32);
    write(comparator(0), 77);
    expect(read(timerConfiguration(0))).toBe(0x30 | PERIODIC | MODE32);
    write(comparator(0), 1000);
    expect(read(comparator(0))).toBe(77);
  });

  it('take a 64-bit accumulator in two halves', () => {
    write(timerConfiguration(0), PERIODIC | SET_ACCUMULATOR);
    write64(comparator(0), 0x3_0000_0000n);
    expect(read64(comparator(0))).toBe(0x3_0000_0000n);
    write64(comparator(0), 0x1_0000_0000n);
    expect(read64(comparator(0))).toBe(0x3_0000_0000n);
  });

  it('move the accumulator on though nobody hears it', () => {
    write(timerConfiguration(0), PERIODIC | SET_ACCUMULATOR | MODE32);
    write(comparator(0), 100);
    write(comparator(0), 100);
    write(CONFIGURATION, 1);
    clock.advanceTo(1050 * TICK);
    expect(read(comparator(0))).toBe(1100);
  });

  it('stop when the counter stops and go on with it', () => {
    periodic(0, 100, 100, route(2));
    clock.advanceTo(2500);
    write(CONFIGURATION, 0);
    clock.advanceTo(10_000);
    write(CONFIGURATION, 1);
    clock.advanceTo(11_000);
    expect(pin(2).rises).toEqual([1000, 2000, 10_500]);
  });

  it('a period of 0 interrupts once', () => {
    periodic(0, 100, 0, route(2));
    clock.advanceTo(1e6);
    expect(pin(2).rises).toEqual([1000]);
  });

  it('missed periods make one interrupt', () => {
    periodic(0, 100, 100, route(2));
    const advance = clock.advanceTo.bind(clock);
    let late = true;
    const now = clock.now.bind(clock);
    clock.now = () => (late ? 5555 : now());
    advance(1000);
    late = false;
    advance(6000);
    expect(pin(2).rises).toHaveLength(2);
  });
});

describe('level-triggered timers', () => {
  it('hold their line until the status bit is cleared', () => {
    write(timerConfiguration(2), ENABLE | LEVEL | route(16));
    write(CONFIGURATION, 1);
    write64(comparator(2), 100n);
    clock.advanceTo(2000);
    expect([pin(16).level, read(STATUS)]).toEqual([true, 4]);
    write(STATUS, 3);
    expect(pin(16).level).toBe(true);
    write(STATUS, 4);
    expect([pin(16).level, read(STATUS)]).toEqual([false, 0]);
  });

  it('share a line', () => {
    for (const index of [0, 1]) {
      write(timerConfiguration(index), ENABLE | LEVEL | route(17));
      write64(comparator(index), 100n);
    }
    write(CONFIGURATION, 1);
    clock.advanceTo(2000);
    write(STATUS, 1);
    expect(pin(17).level).toBe(true);
    write(STATUS, 2);
    expect(pin(17).level).toBe(false);
    expect(pin(17).rises).toHaveLength(1);
  });

  it('set the status bit even when their interrupt is off, and raise it when that comes on', () => {
    write(timerConfiguration(0), LEVEL | route(16));
    write64(comparator(0), 100n);
    write(CONFIGURATION, 1);
    clock.advanceTo(2000);
    expect([pin(16).level, read(STATUS)]).toEqual([false, 1]);
    write(timerConfiguration(0), ENABLE | LEVEL | route(16));
    expect(pin(16).level).toBe(true);
    write(timerConfiguration(0), ENABLE | LEVEL | route(17));
    expect([pin(16).level, pin(17).level]).toEqual([false, true]);
    write(CONFIGURATION, 0);
    expect(pin(17).level).toBe(false);
  });
});

it('edges of two timers on one line are two edges', () => {
  for (const index of [0, 1]) {
    write(timerConfiguration(index), ENABLE | route(2));
    write64(comparator(index), 100n * BigInt(index + 1));
  }
  write(CONFIGURATION, 1);
  clock.advanceTo(5000);
  expect(pin(2).rises).toEqual([1000, 2000]);
});

it('a timer that turns from level to edge lets go of its line', () => {
  write(timerConfiguration(0), ENABLE | LEVEL | route(16));
  write64(comparator(0), 100n);
  write(CONFIGURATION, 1);
  clock.advanceTo(2000);
  write(timerConfiguration(0), ENABLE | route(16));
  expect([pin(16).level, read(STATUS)]).toEqual([false, 0]);
});

describe('legacy replacement', () => {
  it('moves timers 0 and 1 to IRQ 0 and 8 whatever their route, and shuts PIT and RTC out', () => {
    for (const index of [0, 1, 2]) {
      write(timerConfiguration(index), ENABLE | route(16));
      write64(comparator(index), 100n);
    }
    write(CONFIGURATION, 3);
    hpet.pitLine.set(true);
    hpet.rtcLine.set(true);
    expect([irq0.level, irq8.level]).toEqual([false, false]);
    clock.advanceTo(2000);
    expect([irq0.rises, irq8.rises, pin(16).rises]).toEqual([[1000], [1000], [1000]]);
  });

  it('lets PIT and RTC through otherwise, with the level they are at', () => {
    hpet.pitLine.set(true);
    expect(irq0.level).toBe(true);
    write(CONFIGURATION, 2);
    expect(irq0.level).toBe(false);
    hpet.rtcLine.set(true);
    write(CONFIGURATION, 0);
    expect([irq0.level, irq8.level]).toEqual([true, true]);
  });

  it('hands a held level over in both directions', () => {
    write(timerConfiguration(0), ENABLE | LEVEL | route(16));
    write64(comparator(0), 100n);
    write(CONFIGURATION, 1);
    clock.advanceTo(2000);
    hpet.pitLine.set(true);
    write(CONFIGURATION, 3);
    expect([irq0.level, pin(16).level]).toEqual([true, false]);
    hpet.pitLine.set(false);
    expect(irq0.level).toBe(true);
    write(CONFIGURATION, 1);
    expect([irq0.level, pin(16).level]).toEqual([false, true]);
  });
});
