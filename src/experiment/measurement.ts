/** What is measured of a stretch of a run, and the metrics that reports are made of. */

import { EXIT_REASONS } from '../kvm/exit.ts';
import { EOI_WRITE_CAUSES } from '../kvm/pv-eoi.ts';
import { type CountersSnapshot, difference } from '../trace/counters.ts';

/** The machine at one moment. */
export interface Moment {
  counters: CountersSnapshot;
  guestNanoseconds: number;
  hostSeconds: number;
}

/** What happened between two moments. */
export interface Measurement {
  counters: CountersSnapshot;
  guestNanoseconds: number;
  hostSeconds: number;
}

export const between = (from: Moment, to: Moment): Measurement => ({
  counters: difference(from.counters, to.counters),
  guestNanoseconds: to.guestNanoseconds - from.guestNanoseconds,
  hostSeconds: to.hostSeconds - from.hostSeconds,
});

export type MetricUnit = 'count' | 'cycles' | 'seconds';

export interface Metric {
  /** Stable, for JSON: `exits.msr-write`. */
  key: string;
  label: string;
  unit: MetricUnit;
  of(measurement: Measurement): number;
}

const metric = (key: string, label: string, of: Metric['of'], unit: MetricUnit = 'count'): Metric => ({ key, label, unit, of });

/** Every metric there is; reports leave out those that are 0 throughout. */
export const METRICS: readonly Metric[] = [
  metric('interrupts.accepted', 'interrupts accepted', ({ counters }) => counters.total.interrupts.accepted.total),
  ...(['timer', 'ipi', 'pv-ipi', 'self-ipi', 'ioapic', 'msi', 'lvt', 'extint'] as const).map((source) =>
    metric(
      `interrupts.${source}`,
      `  from ${source}`,
      ({ counters }) => counters.total.interrupts.accepted.bySource[source] ?? 0,
    ),
  ),
  metric('eois.written', 'EOIs written', ({ counters }) => counters.total.eois.written),
  ...EOI_WRITE_CAUSES.map((cause) =>
    metric(`eois.written.${cause}`, `  ${cause}`, ({ counters }) => counters.total.eois.writtenBecause[cause] ?? 0),
  ),
  metric('eois.elided', 'EOIs elided', ({ counters }) => counters.total.eois.elided),
  metric('eois.broadcast', 'EOIs broadcast', ({ counters }) => counters.total.eois.broadcast),
  metric('exits', 'exits', ({ counters }) => counters.total.exits.total),
  ...EXIT_REASONS.map((reason) =>
    metric(`exits.${reason}`, `  ${reason}`, ({ counters }) => counters.total.exits.byReason[reason] ?? 0),
  ),
  metric('cycles', 'guest cycles, busy', ({ counters }) => counters.total.instructions + counters.total.cyclesCharged, 'cycles'),
  metric('cycles.instructions', '  instructions', ({ counters }) => counters.total.instructions, 'cycles'),
  metric('cycles.charged', '  charged for exits', ({ counters }) => counters.total.cyclesCharged, 'cycles'),
  metric('guestSeconds', 'guest seconds', ({ guestNanoseconds }) => guestNanoseconds / 1e9, 'seconds'),
  metric('hostSeconds', 'host seconds', ({ hostSeconds }) => hostSeconds, 'seconds'),
];

export function metricNamed(key: string): Metric {
  const found = METRICS.find((candidate) => candidate.key === key);
  if (!found) throw new RangeError(`no metric ${key}`);
  return found;
}
