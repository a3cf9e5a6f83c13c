import { beforeEach, describe, expect, it } from 'vitest';
import { AcpiPm } from './acpi-pm.ts';
import { ManualClock } from './clock.ts';
import { PM_TIMER_HZ, PmTimer } from './pm-timer.ts';
import { RESET_VALUE, ResetControl } from './reset-control.ts';

const [STATUS, ENABLE] = [0, 2];
const [TIMER, POWER_BUTTON] = [0x001, 0x100];

let clock: ManualClock;
let sci: boolean;
let slept: number[];
let pmTimer: PmTimer;
let acpi: AcpiPm;

beforeEach(() => {
  clock = new ManualClock();
  sci = false;
  slept = [];
  pmTimer = new PmTimer(clock);
  const set = (asserted: boolean) => {
    sci = asserted;
  };
  acpi = new AcpiPm({ clock, pmTimer, line: { set }, onSleep: (sleepType) => slept.push(sleepType) });
});

describe('PM timer', () => {
  it('counts 3.579545 MHz in 24 bits and cannot be written', () => {
    clock.advanceTo(1e9);
    expect(pmTimer.read(0, 4)).toBe(PM_TIMER_HZ);
    pmTimer.write();
    clock.advanceTo(5e9);
    expect(pmTimer.read(0, 4)).toBe((5 * PM_TIMER_HZ) % 2 ** 24);
  });

  it('or in 32', () => {
    const wide = new PmTimer(clock, 32);
    clock.advanceTo(1000e9);
    expect(wide.read(0, 4)).toBe(1000 * PM_TIMER_HZ);
    clock.advanceTo(1300e9);
    expect(wide.read(0, 4)).toBe((1300 * PM_TIMER_HZ) % 2 ** 32);
    expect(wide.read(2, 2)).toBe(Math.floor(((1300 * PM_TIMER_HZ) % 2 ** 32) / 65_536));
  });
});

describe('PM1 events', () => {
  it('set TMR_STS each time the top bit of the timer changes', () => {
    const half = (2 ** 23 / PM_TIMER_HZ) * 1e9;
    clock.advanceTo(half - 1000);
    expect(acpi.pm1Event.read(STATUS, 2)).toBe(0);
    clock.advanceTo(half + 1000);
    expect(acpi.pm1Event.read(STATUS, 2)).toBe(TIMER);
    acpi.pm1Event.write(STATUS, 2, TIMER);
    expect(acpi.pm1Event.read(STATUS, 2)).toBe(0);
    acpi.pm1Event.write(ENABLE, 2, TIMER);
    expect(sci).toBe(false);
    clock.advanceTo(2 * half + 1000);
    expect(sci).toBe(true);
    acpi.pm1Event.write(STATUS, 2, TIMER);
    expect(sci).toBe(false);
    clock.advanceTo(3 * half + 1000);
    expect(sci).toBe(true);
  });

  it('the power button raises the SCI once it is enabled, until its status is cleared', () => {
    acpi.pressPowerButton();
    expect(sci).toBe(false);
    acpi.pm1Event.write(ENABLE, 2, POWER_BUTTON);
    expect(sci).toBe(true);
    acpi.pm1Event.write(STATUS, 2, TIMER);
    expect(sci).toBe(true);
    acpi.pm1Event.write(STATUS + 1, 1, POWER_BUTTON >> 8);
    expect(sci).toBe(false);
  });

  it('enables keep the bits that exist', () => {
    acpi.pm1Event.write(STATUS, 4, 0xffff_0000);
    expect(acpi.pm1Event.read(STATUS, 4)).toBe(0x0721_0000);
  });
});

describe('PM1 control', () => {
  it('is in ACPI mode from the start; leaving it silences the SCI', () => {
    expect(acpi.pm1Control.read(0, 2)).toBe(1);
    acpi.pm1Event.write(ENABLE, 2, POWER_BUTTON);
    acpi.pressPowerButton();
    acpi.pm1Control.write(0, 2, 0);
    expect(sci).toBe(false);
    acpi.pm1Control.write(0, 2, 1);
    expect(sci).toBe(true);
  });

  it('sleeps when SLP_EN is written, with the type beside it, and reads SLP_EN as 0', () => {
    acpi.pm1Control.write(0, 2, 0x1401);
    expect(slept).toEqual([]);
    acpi.pm1Control.write(0, 2, 0x3401);
    expect(slept).toEqual([5]);
    expect(acpi.pm1Control.read(0, 2)).toBe(0x1401);
  });
});

describe('GPE0', () => {
  it('raises the SCI for an enabled event until it is cleared', () => {
    acpi.raiseGpe(9);
    expect(acpi.gpe0.read(0, 2)).toBe(0x200);
    expect(sci).toBe(false);
    acpi.gpe0.write(3, 1, 0x02);
    expect(sci).toBe(true);
    expect(acpi.gpe0.read(0, 4)).toBe(0x0200_0200);
    acpi.gpe0.write(0, 1, 0xff);
    expect(sci).toBe(true);
    acpi.gpe0.write(1, 1, 0x02);
    expect(sci).toBe(false);
  });
});

describe('reset control', () => {
  it('resets when RST_CPU rises', () => {
    const resets: string[] = [];
    const control = new ResetControl((kind) => resets.push(kind));
    control.write(0, 1, 0x02);
    expect(resets).toEqual([]);
    control.write(0, 1, RESET_VALUE);
    control.write(0, 1, RESET_VALUE);
    expect(resets).toEqual(['hard']);
    control.write(0, 1, 0);
    control.write(0, 1, 0x04);
    expect(resets).toEqual(['hard', 'soft']);
    expect(control.read(0, 1)).toBe(0x04);
  });
});
