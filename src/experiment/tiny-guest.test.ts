import { describe, expect, it } from 'vitest';
import { parseCpuModel } from '../cpu/cpu-model.ts';
import { Machine, type MachineOptions } from '../machine/machine.ts';
import { metricNamed } from './measurement.ts';
import { runExperiment } from './runner.ts';
import { STRATEGIES } from './strategy.ts';
import { formatSummary } from './report.ts';
import { summarise } from './summary.ts';
import { TINY_WORKLOADS, tinyGuest } from './tiny-guest.ts';

const LOAD = 20;
const host = { seconds: () => 0, pause: () => Promise.resolve() };

async function compare(vcpus: number, repeat: number, options: Partial<MachineOptions> = {}) {
  const machine = { kernel: tinyGuest(LOAD).elf, vcpus, memoryBytes: 8 * 2 ** 20, ...options };
  const records = await runExperiment({ machine, strategies: STRATEGIES, repeat, seed: 1 }, host, (all) => new Machine(all));
  return { records, summary: summarise(records) };
}

describe('the tiny guest, compared', () => {
  it.each([1, 2, 5])('on %i vCPUs: powers off, every interrupt accounted for, phases measured', async (vcpus) => {
    const { records, summary } = await compare(vcpus, 1);
    expect(records.map(({ strategy, end }) => [strategy, end])).toEqual(STRATEGIES.map(({ name }) => [name, 'power-off']));
    for (const { strategy, phases } of records) {
      expect(summary.balance[strategy]).toMatchObject({ isBalanced: true });
      expect(Object.keys(phases)).toEqual([...TINY_WORKLOADS]);
      expect(metricNamed('interrupts.accepted').of(phases.edge)).toBe(LOAD);
      expect(metricNamed('interrupts.timer').of(phases.timer)).toBeGreaterThanOrEqual(vcpus * LOAD);
    }
  });

  it('ends by PV EOI what can be, and writes the rest, each for the reason that it has', async () => {
    const { summary, records } = await compare(2, 1);
    const { x2apic, 'pv-eoi': pvEoi } = summary.means;
    expect(x2apic['eois.elided']).toBe(0);
    expect(pvEoi['eois.written'] + pvEoi['eois.elided']).toBe(x2apic['eois.written']);
    const phases = records.find(({ strategy }) => strategy === 'pv-eoi')?.phases ?? {};
    const why = (phase: string) => phases[phase].counters.total.eois.writtenBecause;
    expect(metricNamed('eois.written').of(phases['ping-pong'])).toBeLessThanOrEqual(2);
    // A line that the I/O APIC watches; a handler that reads a port, which is an exit, before its EOI.
    expect(why('level')).toMatchObject({ 'level-triggered': 2 * LOAD });
    expect(why('edge')).toMatchObject({ 'disarmed-by-exit': LOAD });
    // Of four, two are written: one found another pending, and one was in service before another's EOI.
    expect(why('nested')).toMatchObject({ 'pending-irr': LOAD, 'injected-before-last-eoi': LOAD });
  });

  it('differs from seed to seed where the processor has RDRAND, and the report says so where it has not', async () => {
    const [random, fixed] = [await compare(2, 2), await compare(2, 2, { cpu: cpu('-rdrand') })];
    expect(random.summary.seedMatters).toBe(true);
    expect(formatSummary(random.summary)).toContain('In brackets: the lowest and the highest pair of runs.');
    expect(fixed.summary.seedMatters).toBe(false);
    expect(formatSummary(fixed.summary)).toContain('All repetitions are the same run, whatever the seed');
    const counters = fixed.records.filter(({ strategy }) => strategy === 'pv-eoi').map(({ workload }) => workload.counters);
    expect(counters[1]).toEqual(counters[0]);
  });

  it('runs without the features that it can do without', async () => {
    const { summary } = await compare(2, 1, { cpu: cpu('x86-64-v1,-rdrand'), jit: false });
    expect(summary.balance['pv-eoi'].isBalanced).toBe(true);
  });
});

function cpu(text: string) {
  const parsed = parseCpuModel(text);
  if (!parsed.ok) throw new Error(parsed.error);
  return parsed.value;
}
