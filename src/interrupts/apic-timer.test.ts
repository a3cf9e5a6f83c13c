import { describe, expect, it } from 'vitest';
import { ManualClock } from '../devices/clock.ts';
import { ApicTimer, type ApicTimerOptions, divisorOf, KVM_MINIMUM_PERIOD_NANOSECONDS, TimerMode } from './apic-timer.ts';

const DIVIDE_BY_1 = 0b1011;
const DIVIDE_BY_2 = 0b0000;
const DIVIDE_BY_4 = 0b0001;

function create(mode: TimerMode, options: Partial<ApicTimerOptions> = {}) {
  const clock = new ManualClock();
  const expiries: number[] = [];
  const all = { clock, readTsc: () => clock.now() * 2.5, tscHz: 2.5e9, minimumPeriodNanoseconds: 0, ...options };
  const timer = new ApicTimer('test', all, () => expiries.push(clock.now()));
  const configure = (newMode: TimerMode, masked: boolean) => {
    timer.settle();
    timer.configure(newMode, masked);
  };
  configure(mode, false);
  timer.writeDivideConfiguration(DIVIDE_BY_1);
  return { clock, timer, expiries, configure };
}

describe('ApicTimer: counting', () => {
  it.each([
    [0b0000, 2],
    [0b0001, 4],
    [0b0010, 8],
    [0b0011, 16],
    [0b1000, 32],
    [0b1001, 64],
    [0b1010, 128],
    [0b1011, 1],
  ])('divide configuration %i divides by %i', (configuration, divisor) => {
    expect(divisorOf(configuration)).toBe(divisor);
    const { clock, timer, expiries } = create(TimerMode.oneShot);
    timer.writeDivideConfiguration(configuration);
    timer.writeInitialCount(100);
    clock.advanceTo(10 * divisor);
    expect(timer.currentCount()).toBe(90);
    clock.advanceTo(1e6);
    expect(expiries).toEqual([100 * divisor]);
  });

  it('reads the initial count at once, then one less for each whole tick', () => {
    const { clock, timer } = create(TimerMode.oneShot);
    timer.writeDivideConfiguration(DIVIDE_BY_4);
    timer.writeInitialCount(10);
    expect(timer.currentCount()).toBe(10);
    clock.advanceTo(3.9);
    expect(timer.currentCount()).toBe(10);
    clock.advanceTo(4);
    expect(timer.currentCount()).toBe(9);
  });

  it('counts at the bus frequency it is given', () => {
    const { clock, timer, expiries } = create(TimerMode.oneShot, { busHz: 100e6 });
    timer.writeInitialCount(100);
    clock.advanceTo(500);
    expect(timer.currentCount()).toBe(50);
    clock.advanceTo(1000);
    expect(expiries).toEqual([1000]);
  });

  it('one-shot expires once and stays at 0', () => {
    const { clock, timer, expiries } = create(TimerMode.oneShot);
    timer.writeInitialCount(100);
    clock.advanceTo(1000);
    expect(expiries).toEqual([100]);
    expect(timer.currentCount()).toBe(0);
    expect(timer.initialCount).toBe(100);
  });

  it('periodic expires at each multiple without drift', () => {
    const { clock, timer, expiries } = create(TimerMode.periodic);
    clock.advanceTo(7);
    timer.writeInitialCount(100);
    clock.advanceTo(450);
    expect(expiries).toEqual([107, 207, 307, 407]);
    expect(timer.currentCount()).toBe(57);
  });

  it('writing the initial count starts over, and 0 stops', () => {
    const { clock, timer, expiries } = create(TimerMode.periodic);
    timer.writeInitialCount(100);
    clock.advanceTo(50);
    timer.writeInitialCount(200);
    clock.advanceTo(249);
    expect(expiries).toEqual([]);
    clock.advanceTo(250);
    expect(expiries).toEqual([250]);
    timer.writeInitialCount(0);
    clock.advanceTo(10_000);
    expect(expiries).toEqual([250]);
    expect(timer.currentCount()).toBe(0);
  });

  it('a running count goes on at the new speed when the divider changes', () => {
    const { clock, timer, expiries } = create(TimerMode.oneShot);
    timer.writeInitialCount(100);
    clock.advanceTo(40);
    timer.writeDivideConfiguration(DIVIDE_BY_2);
    expect(timer.currentCount()).toBe(60);
    clock.advanceTo(1000);
    expect(expiries).toEqual([160]);
  });

  it('changing between one-shot and periodic lets the count run on', () => {
    const { clock, timer, expiries, configure } = create(TimerMode.oneShot);
    timer.writeInitialCount(100);
    clock.advanceTo(50);
    configure(TimerMode.periodic, false);
    clock.advanceTo(250);
    expect(expiries).toEqual([100, 200]);
    configure(TimerMode.oneShot, false);
    clock.advanceTo(1000);
    expect(expiries).toEqual([100, 200, 300]);
  });

  it('counts while it is masked, and expires in phase once unmasked', () => {
    const { clock, timer, expiries, configure } = create(TimerMode.periodic);
    timer.writeInitialCount(100);
    configure(TimerMode.periodic, true);
    clock.advanceTo(1030);
    expect(timer.currentCount()).toBe(70);
    configure(TimerMode.periodic, false);
    clock.advanceTo(1250);
    expect(expiries).toEqual([1100, 1200]);
  });

  it('a one-shot that ran out while masked does not expire later', () => {
    const { clock, timer, expiries, configure } = create(TimerMode.oneShot);
    configure(TimerMode.oneShot, true);
    timer.writeInitialCount(100);
    clock.advanceTo(150);
    configure(TimerMode.periodic, false);
    clock.advanceTo(1000);
    expect(expiries).toEqual([]);
    expect(timer.currentCount()).toBe(0);
  });

  it('reset stops it, masked until it is configured again', () => {
    const { clock, timer, expiries, configure } = create(TimerMode.periodic);
    timer.writeInitialCount(100);
    timer.reset();
    expect([timer.initialCount, timer.currentCount(), timer.divideConfiguration]).toEqual([0, 0, 0]);
    clock.advanceTo(1000);
    timer.writeInitialCount(100);
    clock.advanceTo(2000);
    expect(expiries).toEqual([]);
    configure(TimerMode.oneShot, false);
    timer.writeInitialCount(100);
    clock.advanceTo(3000);
    expect(expiries).toEqual([2200]);
  });

  it('the reserved mode never expires', () => {
    const { clock, timer, expiries } = create(TimerMode.reserved);
    timer.writeInitialCount(100);
    clock.advanceTo(1000);
    expect(expiries).toEqual([]);
  });

  it("bounds a period from below as KVM does, and a one-shot's time not", () => {
    const periodic = create(TimerMode.periodic, { minimumPeriodNanoseconds: KVM_MINIMUM_PERIOD_NANOSECONDS });
    periodic.timer.writeInitialCount(1);
    periodic.clock.advanceTo(1e6);
    expect(periodic.expiries).toHaveLength(1e6 / KVM_MINIMUM_PERIOD_NANOSECONDS);
    const oneShot = create(TimerMode.oneShot, { minimumPeriodNanoseconds: KVM_MINIMUM_PERIOD_NANOSECONDS });
    oneShot.timer.writeInitialCount(1);
    oneShot.clock.advanceTo(1e6);
    expect(oneShot.expiries).toEqual([1]);
  });
});

describe('ApicTimer: TSC deadline', () => {
  it('expires when the TSC reaches the deadline, never before', () => {
    const { clock, timer, expiries } = create(TimerMode.tscDeadline);
    timer.writeDeadline(2501, 0);
    clock.advanceTo(1e4);
    expect(expiries).toEqual([1001]);
    expect(timer.readDeadline()).toEqual({ low: 0, high: 0 });
  });

  it('expires at once for a deadline in the past, and 0 disarms', () => {
    const { clock, timer, expiries } = create(TimerMode.tscDeadline);
    clock.advanceTo(1000);
    timer.writeDeadline(1, 0);
    clock.advanceTo(1000);
    expect(expiries).toEqual([1000]);
    timer.writeDeadline(10_000, 0);
    timer.writeDeadline(0, 0);
    clock.advanceTo(1e6);
    expect(expiries).toEqual([1000]);
  });

  it('gives all 64 bits back', () => {
    const { timer } = create(TimerMode.tscDeadline);
    timer.writeDeadline(0xffff_ffff, 0xffff_fffe);
    expect(timer.readDeadline()).toEqual({ low: 0xffff_ffff, high: 0xffff_fffe });
  });

  it('ignores the initial count, reads the current count as 0, and ignores the MSR in other modes', () => {
    const { clock, timer, expiries, configure } = create(TimerMode.tscDeadline);
    timer.writeInitialCount(100);
    expect([timer.initialCount, timer.currentCount()]).toEqual([0, 0]);
    configure(TimerMode.oneShot, false);
    timer.writeDeadline(100, 0);
    expect(timer.readDeadline()).toEqual({ low: 0, high: 0 });
    clock.advanceTo(1e6);
    expect(expiries).toEqual([]);
  });

  it('changing to or from the mode disarms', () => {
    const { clock, timer, expiries, configure } = create(TimerMode.oneShot);
    timer.writeInitialCount(100);
    configure(TimerMode.tscDeadline, false);
    timer.writeDeadline(1000, 0);
    configure(TimerMode.periodic, false);
    expect(timer.readDeadline()).toEqual({ low: 0, high: 0 });
    clock.advanceTo(1e6);
    configure(TimerMode.tscDeadline, false);
    clock.advanceTo(2e6);
    expect(expiries).toEqual([]);
  });

  it('a deadline that passed while masked is gone', () => {
    const { clock, timer, expiries, configure } = create(TimerMode.tscDeadline);
    configure(TimerMode.tscDeadline, true);
    timer.writeDeadline(1000, 0);
    clock.advanceTo(500);
    expect(timer.readDeadline()).toEqual({ low: 0, high: 0 });
    configure(TimerMode.tscDeadline, false);
    clock.advanceTo(1e6);
    expect(expiries).toEqual([]);
  });

  it('moves with the TSC when the guest writes it', () => {
    let offset = 0;
    const clock = new ManualClock();
    const expiries: number[] = [];
    const timer = new ApicTimer('test', { clock, readTsc: () => clock.now() + offset, tscHz: 1e9 }, () =>
      expiries.push(clock.now()),
    );
    timer.configure(TimerMode.tscDeadline, false);
    timer.writeDeadline(1000, 0);
    offset = 600;
    timer.tscChanged();
    clock.advanceTo(1e4);
    expect(expiries).toEqual([400]);
  });
});
