/** Many runs in few numbers: each metric's mean by strategy, and how strategies differ. Made for JSON. */

import { balance, type InterruptBalance, sum } from '../trace/counters.ts';
import { METRICS, type Measurement, type Metric } from './measurement.ts';
import type { RunRecord } from './runner.ts';
import { mean, type RelativeDifference, relativeDifference } from './statistics.ts';

/** A strategy against another one. */
export interface Comparison {
  strategy: string;
  against: string;
  /** By metric. */
  differences: Record<string, RelativeDifference>;
}

export interface Summary {
  strategies: string[];
  repetitions: number;
  /** Whether repetitions differ in anything but host time: false where the guest made nothing of the seed. */
  seedMatters: boolean;
  /** Of the workload: by strategy, then metric. */
  means: Record<string, Record<string, number>>;
  /** The same of each phase. */
  phases: Record<string, Record<string, Record<string, number>>>;
  /** The same of the boot, up to the workload. */
  boot: Record<string, Record<string, number>>;
  comparisons: Comparison[];
  /** Where the workload's interrupts went, all repetitions together. */
  balance: Record<string, InterruptBalance>;
}

const GUEST_METRICS = METRICS.filter(({ key }) => key !== 'hostSeconds');

/** What every strategy is compared with: the one before it in the list, or always the one named. */
export type Baseline = 'previous' | (string & {});

export function summarise(records: readonly RunRecord[], baseline: Baseline = 'previous'): Summary {
  const strategies = [...new Set(records.filter(({ repetition }) => repetition === 0).map(({ strategy }) => strategy))];
  const runsOf = (strategy: string): RunRecord[] =>
    records.filter((record) => record.strategy === strategy).sort((a, b) => a.repetition - b.repetition);
  const values = (strategy: string, metric: Metric): number[] => runsOf(strategy).map(({ workload }) => metric.of(workload));
  const byStrategy = <Value>(make: (strategy: string) => Value): Record<string, Value> =>
    Object.fromEntries(strategies.map((strategy) => [strategy, make(strategy)]));
  const meansOf = (measurements: readonly Measurement[]): Record<string, number> =>
    Object.fromEntries(METRICS.map((metric) => [metric.key, mean(measurements.map((one) => metric.of(one)))]));
  const phaseNames = [...new Set(records.flatMap(({ phases }) => Object.keys(phases)))];
  const phaseMeans = (strategy: string, phase: string): Record<string, number> => {
    const present = runsOf(strategy).flatMap(({ phases }) => phases[phase] ?? []);
    return present.length ? meansOf(present) : {};
  };

  return {
    strategies,
    repetitions: runsOf(strategies[0]).length,
    seedMatters: strategies.some((strategy) => GUEST_METRICS.some((metric) => new Set(values(strategy, metric)).size > 1)),
    means: byStrategy((strategy) => meansOf(runsOf(strategy).map(({ workload }) => workload))),
    phases: Object.fromEntries(phaseNames.map((phase) => [phase, byStrategy((strategy) => phaseMeans(strategy, phase))])),
    boot: byStrategy((strategy) => meansOf(runsOf(strategy).map(({ boot }) => boot))),
    comparisons: pairs(strategies, baseline).map(([against, strategy]) => ({
      strategy,
      against,
      differences: Object.fromEntries(
        METRICS.map((metric) => [metric.key, relativeDifference(values(against, metric), values(strategy, metric))]),
      ),
    })),
    balance: byStrategy((strategy) => balance(sum(runsOf(strategy).map(({ workload }) => workload.counters.total)))),
  };
}

/** Baseline and strategy of each comparison. */
function pairs(strategies: readonly string[], baseline: Baseline): [string, string][] {
  if (baseline !== 'previous') {
    return strategies.filter((strategy) => strategy !== baseline).map((strategy) => [baseline, strategy]);
  }
  return strategies.slice(1).map((strategy, index) => [strategies[index], strategy]);
}
