import { describe, expect, it } from 'vitest';
import { COST_PROFILES, costProfileNamed, DEFAULT_COST_PROFILE, parseCostProfile } from './cost-profile.ts';
import { EXIT_REASONS } from './exit.ts';

const valid = {
  name: 'mine',
  year: 2024,
  sources: ['perf kvm stat on my host'],
  exitCycles: { default: 1500, cpuid: 1200 } as Record<string, unknown>,
  userspaceCycles: 4000,
  injectionCycles: 300,
  wakeupCycles: 5000,
};
const error = (change: Record<string, unknown>) => {
  const result = parseCostProfile(JSON.stringify({ ...valid, ...change }), 'mine.json');
  return result.ok ? undefined : result.error;
};

describe('the profiles', () => {
  it('are found by name, and an unknown name is answered with the valid ones', () => {
    for (const profile of COST_PROFILES) expect(costProfileNamed(profile.name)).toEqual({ ok: true, value: profile });
    const result = costProfileNamed('cheap');
    expect(result.ok ? '' : result.error).toContain('free, vmx-2012, svm-2012, modern, nested');
  });

  it.each(COST_PROFILES)('$name has a figure for each reason and states its sources', (profile) => {
    for (const reason of EXIT_REASONS) expect(Number.isInteger(profile.exitCycles[reason])).toBe(true);
    expect(profile.sources.length).toBeGreaterThan(0);
  });

  it('free charges nothing', () => {
    const free = COST_PROFILES[0];
    expect(
      [...Object.values(free.exitCycles), free.userspaceCycles, free.injectionCycles, free.wakeupCycles].every((n) => n === 0),
    ).toBe(true);
  });

  it.each(COST_PROFILES.filter(({ name }) => name !== 'free'))('$name lies within the ranges it states', (profile) => {
    const { ranges, exitCycles } = profile;
    const [low, high] = ranges.worldSwitch;
    for (const reason of EXIT_REASONS) expect(exitCycles[reason]).toBeGreaterThan(low);
    expect(exitCycles.cpuid).toBeLessThanOrEqual(high + ranges.light[1]);
    expect(exitCycles['msr-write']).toBeLessThanOrEqual(high + ranges.apic[1]);
    for (const [figure, part] of [
      [profile.userspaceCycles, 'userspace'],
      [profile.injectionCycles, 'injection'],
      [profile.wakeupCycles, 'wakeup'],
    ] as const) {
      expect(figure).toBeGreaterThanOrEqual(ranges[part][0]);
      expect(figure).toBeLessThanOrEqual(ranges[part][1]);
    }
  });

  it('modern’s IN that user space handles costs what was measured', () => {
    const cycles = DEFAULT_COST_PROFILE.exitCycles.io + DEFAULT_COST_PROFILE.userspaceCycles;
    expect(cycles).toBeGreaterThanOrEqual(5765);
    expect(cycles).toBeLessThanOrEqual(5826);
  });

  it('nested’s CPUID, MOV to CR8 and IN are the measured ones', () => {
    const nested = COST_PROFILES[4];
    expect([nested.exitCycles.cpuid, nested.exitCycles['cr8-write']]).toEqual([28_600, 40_430]);
    const io = nested.exitCycles.io + nested.userspaceCycles;
    expect(io).toBeGreaterThanOrEqual(20_393);
    expect(io).toBeLessThanOrEqual(44_517);
  });
});

describe('a profile of the user’s', () => {
  it('takes named reasons, and the default for the others', () => {
    const result = parseCostProfile(JSON.stringify(valid));
    expect(result).toMatchObject({
      ok: true,
      value: { name: 'mine', exitCycles: { cpuid: 1200, hlt: 1500 }, wakeupCycles: 5000 },
    });
  });

  it('what a profile is made of can be written out and read back', () => {
    expect(parseCostProfile(JSON.stringify(DEFAULT_COST_PROFILE))).toEqual({ ok: true, value: DEFAULT_COST_PROFILE });
  });

  it.each([
    ['"name"', { name: 5 }],
    ['"year"', { year: '2024' }],
    ['"sources"', { sources: [] }],
    ['"sources"', { sources: 'perf' }],
    ['"exitCycles"', { exitCycles: [1] }],
    ['"exitCycles.cpuidd"', { exitCycles: { default: 1, cpuidd: 2 } }],
    ['"exitCycles.cpuid"', { exitCycles: { default: 1, cpuid: -2 } }],
    ['"exitCycles.cpuid"', { exitCycles: { default: 1, cpuid: 1.5 } }],
    ['"exitCycles.default"', { exitCycles: { default: 'many' } }],
    ['"exitCycles.external-interrupt"', { exitCycles: { cpuid: 1 } }],
    ['"userspaceCycles"', { userspaceCycles: null }],
    ['"injectionCycles"', { injectionCycles: 1e10 }],
    ['"wakeupCycles"', { wakeupCycles: undefined }],
    ['"ranges.light"', { ranges: { light: [5, 1] } }],
    ['"ranges"', { ranges: 7 }],
    ['"cycles"', { cycles: 7 }],
  ])('with a bad %s is refused by that key, in one line', (key, change) => {
    expect(error(change)).toMatch(/^mine\.json: [^\n]+$/);
    expect(error(change)).toContain(key);
  });

  it.each(['', '{', '[]', 'null', '7'])('text %j is refused', (text) => {
    const result = parseCostProfile(text, 'x.json');
    expect(result.ok ? '' : result.error).toMatch(/^x\.json: (text is not JSON|top level must be an object)$/);
  });
});
