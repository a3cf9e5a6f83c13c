import { describe, expect, it } from 'vitest';
import { hasFeature, KVM_OFF, KVM_ON } from '../kvm/features.ts';
import type { MachineOptions, RunResult } from '../machine/machine.ts';
import { UserError } from '../machine/user-error.ts';
import { balance, Counters, type CountersSnapshot } from '../trace/counters.ts';
import { formatCounters } from './counters-report.ts';
import { metricNamed } from './measurement.ts';
import { formatSummary } from './report.ts';
import { type ExperimentEvent, type ExperimentMachine, runExperiment, WorkloadError } from './runner.ts';
import { parseStrategies } from './strategy.ts';
import { summarise } from './summary.ts';

/** A guest whose interrupts are all timers: `elided` of them without an EOI write. Prints one line each millisecond. */
function scriptedMachine(
  lines: readonly string[],
  interruptsPerLine: number,
  elidedPerLine: number,
  end: RunResult,
): ExperimentMachine {
  const counters = new Counters(2);
  const listeners: ((bytes: Uint8Array) => void)[] = [];
  let line = 0;
  return {
    serial: { onOutput: (listener: (bytes: Uint8Array) => void) => void listeners.push(listener) } as never,
    get nowNanoseconds() {
      return line * 1e6;
    },
    run() {
      if (line === lines.length) return end;
      for (let count = 0; count < interruptsPerLine; count++) {
        counters.accepted(1, 0xec, 'timer');
        counters.injected(1, 0xec);
        const observer = counters.pvEoiObserver(1);
        if (count < elidedPerLine) observer.elided(0xec);
        else {
          counters.eoiWritten(1, 0xec);
          observer.written(0xec, 0);
          counters.exit(1, 10, 1500);
        }
      }
      const text = new TextEncoder().encode(`${lines[line++]}\r\n`);
      for (const listener of listeners) listener(text);
      return { kind: 'budget' };
    },
    counters: () => counters.snapshot(() => ({ instructions: line * 1000, inIrr: 0, inIsr: 0 })),
    dispose() {},
  };
}

const POWER_OFF: RunResult = { kind: 'ended', end: 'power-off', exitStatus: 0, report: 'off' };
const PANIC: RunResult = { kind: 'ended', end: 'panic', exitStatus: 4, report: 'no root' };
const LINES = ['boot', '@@ start', 'x', '@@ begin ipi', 'x', 'x', '@@ end ipi', '@@ done', 'LOC: 5'];

const host = () => {
  let now = 0;
  return { seconds: () => now++, pause: () => Promise.resolve() };
};
const strategies = (text: string) => {
  const result = parseStrategies(text);
  if (!result.ok) throw new Error(result.error);
  return result.value;
};
const machine = { memoryBytes: 2 ** 26, vcpus: 2, kernel: new Uint8Array(0) };

/** Interrupts are elided where the strategy has PV EOI; seeds make a difference of one interrupt. */
async function run(names: string, repeat: number, { kvm = KVM_ON, lines = LINES, end = POWER_OFF } = {}) {
  const made: MachineOptions[] = [];
  const events: ExperimentEvent[] = [];
  const create = (options: MachineOptions) => {
    made.push(options);
    const isElided = hasFeature(options.kvm ?? KVM_OFF, 'pv-eoi');
    return scriptedMachine(lines, 10 + ((options.seed ?? 0) % 3), isElided ? 9 : 0, end);
  };
  const options = { machine, kvm, strategies: strategies(names), repeat, seed: 7 };
  const records = await runExperiment(options, host(), create, (event) => events.push(event));
  return { records, made, events };
}

describe('runExperiment', () => {
  it('measures from the line after start to done, and phases between their marks', async () => {
    const { records } = await run('xapic', 1);
    const accepted = metricNamed('interrupts.accepted');
    const [{ boot, workload, phases, epilogue }] = records;
    expect(accepted.of(boot)).toBe(2 * 11);
    expect(accepted.of(workload)).toBe(6 * 11);
    expect(accepted.of(phases.ipi)).toBe(3 * 11);
    expect(workload.guestNanoseconds).toBe(6e6);
    expect(epilogue).toEqual(['LOC: 5']);
  });

  it('gives all strategies of a repetition the same seed, and turns their order round each time', async () => {
    const { made } = await run('xapic,x2apic,pv-eoi', 2);
    expect(made.map(({ seed }) => seed)).toEqual([7, 7, 7, 8, 8, 8]);
    expect(made.map(({ apic, kvm }) => `${apic}${kvm?.features.has('pv-eoi') ? '+' : ''}`)).toEqual([
      ...['xapic', 'x2apic', 'x2apic+'],
      ...['x2apic+', 'x2apic', 'xapic'],
    ]);
  });

  it('tells of every run that starts and ends', async () => {
    const { events } = await run('xapic,pv-eoi', 2);
    const kinds = events.filter(({ kind }) => kind !== 'run-progress').map(({ kind }) => kind);
    expect(kinds).toEqual(Array(4).fill(['run-started', 'run-finished']).flat());
    expect(events.some((event) => event.kind === 'run-progress' && event.stage === 'ipi')).toBe(true);
  });

  it('reports a guest that ends too early with its last lines and its exit status', async () => {
    const failure = run('xapic', 1, { lines: ['Kernel panic'], end: PANIC });
    await expect(failure).rejects.toThrow(WorkloadError);
    await expect(failure).rejects.toThrow(/strategy xapic: .*panic: no root.*"@@ start".*\n {2}Kernel panic$/s);
    await expect(failure).rejects.toMatchObject({ exitStatus: 4 });
    await expect(run('xapic', 1, { lines: ['@@ start'] })).rejects.toMatchObject({ exitStatus: 2 });
  });

  it('gives up a guest that never comes to an end', async () => {
    const forever = (): ExperimentMachine => {
      let now = 0;
      const idle = scriptedMachine([], 0, 0, { kind: 'budget' });
      const run = (): RunResult => {
        now += 1e9;
        return { kind: 'budget' };
      };
      return Object.defineProperties(
        { ...idle, run, counters: idle.counters },
        { nowNanoseconds: { get: () => now } },
      ) as ExperimentMachine;
    };
    const options = { machine, strategies: strategies('xapic'), repeat: 1, seed: 1, maxGuestSeconds: 30 };
    await expect(runExperiment(options, host(), forever)).rejects.toThrow(/still busy after 30 s of its time/);
  });

  it('refuses PV EOI where KVM is hidden', async () => {
    await expect(run('pv-eoi', 1, { kvm: KVM_OFF })).rejects.toThrow(UserError);
  });
});

describe('summarise', () => {
  it('compares each strategy with the one before it, pair by pair', async () => {
    const { records } = await run('xapic,x2apic,pv-eoi', 6);
    const { comparisons, means, repetitions } = summarise(records);
    expect(repetitions).toBe(6);
    expect(comparisons.map(({ strategy, against }) => [strategy, against])).toEqual([
      ['x2apic', 'xapic'],
      ['pv-eoi', 'x2apic'],
    ]);
    expect(means['pv-eoi']['eois.elided']).toBe(6 * 9);
    expect(comparisons[0].differences['eois.written']).toMatchObject({ estimate: 0, p: 1 });
    const { estimate, p } = comparisons[1].differences['eois.written'];
    expect(estimate).toBeCloseTo(-9 / 11, 12);
    expect(p).toBe(2 / 64);
  });

  it('compares with a baseline where there is one', async () => {
    const { records } = await run('xapic,x2apic,pv-eoi', 1);
    expect(summarise(records, 'xapic').comparisons.map(({ against }) => against)).toEqual(['xapic', 'xapic']);
  });

  it('balances the interrupts of all repetitions', async () => {
    const { records } = await run('pv-eoi', 2);
    const { isBalanced, ending } = summarise(records).balance['pv-eoi'];
    expect(isBalanced).toBe(true);
    expect(ending).toMatchObject({ injected: 6 * (11 + 12), elided: 2 * 6 * 9, written: 6 * (2 + 3) });
  });
});

describe('formatSummary', () => {
  it.each([1, 3, 6])('fits into 100 columns with %i repetitions, and says what brackets mean', async (repeat) => {
    const { records } = await run('xapic,x2apic,pv-eoi', repeat);
    const text = formatSummary(summarise(records));
    expect(Math.max(...text.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(100);
    expect(text).toMatch(/^EOIs elided +0 +0 +54$/m);
    expect(text).toMatch(/^\+ unexplained +0 +0 +0$/m);
    if (repeat === 1) expect(text).toContain('One run each: differences have no interval');
    if (repeat === 3) expect(text).toMatch(/EOIs written +0\.0% \(0\.0…0\.0\) n=3 +−81\.8% \(−90\.0…−75\.0\) n=3/);
    if (repeat === 6) expect(text).toMatch(/−81\.8% \[−90\.0, −75\.0\] p=0\.031 n=6/);
  });
});

describe('formatCounters', () => {
  it('shows each vCPU, vectors by source, and that all is accounted for', async () => {
    const [{ workload }] = (await run('pv-eoi', 1)).records;
    const text = formatCounters(workload.counters);
    expect(text).toMatch(/^counters +vCPU 0 +vCPU 1 +total$/m);
    expect(text).toMatch(/^ {4}vector 0xec \(timer\) +0 +66 +66$/m);
    expect(text).toContain('Every interrupt accepted is accounted for.');
  });

  it('says what is not', () => {
    const counters = new Counters(1);
    counters.accepted(0, 0x30, 'ipi');
    const snapshot: CountersSnapshot = counters.snapshot(() => ({ instructions: 0, inIrr: 0, inIsr: 0 }));
    expect(balance(snapshot.total).isBalanced).toBe(false);
    expect(formatCounters(snapshot)).toContain('Not accounted for: 1 in delivery, 0 in ending, 0 in causes.');
  });
});
