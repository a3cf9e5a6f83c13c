/** The comparison as text, for terminals of up to 100 columns. */

import type { InterruptBalance } from '../trace/counters.ts';
import { METRICS, type Metric } from './measurement.ts';
import { formatDifference, MINIMUM_PAIRS } from './statistics.ts';
import type { Comparison, Summary } from './summary.ts';
import { formatCount, formatSeconds, type Row, textTable } from './text-table.ts';

/** As many columns of differences as fit beside each other. */
const COMPARISONS_ABREAST = 2;
const COLUMNS_ABREAST = 5;

/** What differences are given of: totals, and causes and reasons in the table above. */
const HEADLINES = new Set(['interrupts.accepted', 'eois.written', 'exits', 'cycles', 'guestSeconds', 'hostSeconds']);

const formatValue = ({ unit }: Metric, value: number): string => (unit === 'seconds' ? formatSeconds(value) : formatCount(value));

const chunks = <Item>(items: readonly Item[], size: number): Item[][] =>
  Array.from({ length: Math.ceil(items.length / size) }, (_, index) => items.slice(index * size, (index + 1) * size));

/** Everything a comparison found. */
export function formatSummary(summary: Summary): string {
  const sections = [
    ...chunks(summary.strategies, COLUMNS_ABREAST).map((strategies) => valuesTable(summary, strategies)),
    ...chunks(summary.strategies, COLUMNS_ABREAST).map((strategies) => phasesTable(summary, strategies)),
    ...chunks(summary.comparisons, COMPARISONS_ABREAST).map(differencesTable),
    ...chunks(summary.strategies, COLUMNS_ABREAST).map((strategies) => balanceTable(summary, strategies)),
  ];
  const note = intervalNote(summary);
  return [...sections, ...(note ? [note] : [])].join('\n\n');
}

function valuesTable({ means, strategies: all, repetitions }: Summary, strategies: readonly string[]): string {
  const shown = METRICS.filter(({ key }) => all.some((strategy) => means[strategy][key] !== 0) || HEADLINES.has(key));
  const rows = shown.map(
    (metric): Row => [metric.label, ...strategies.map((name) => formatValue(metric, means[name][metric.key]))],
  );
  return textTable({ head: [repetitions > 1 ? `workload, mean of ${repetitions}` : 'workload', ...strategies], rows });
}

/** Boot and phases: EOI writes and exits, the two figures that matter. */
function phasesTable({ boot, phases }: Summary, strategies: readonly string[]): string {
  const parts: [string, Record<string, Record<string, number>>][] = [['boot', boot], ...Object.entries(phases)];
  const row = (part: string, label: string, of: Record<string, Record<string, number>>, key: string): Row => [
    `${part}: ${label}`,
    ...strategies.map((strategy) => (of[strategy][key] === undefined ? '—' : formatCount(of[strategy][key]))),
  ];
  const rows = parts.flatMap(([part, of]) => [
    row(part, 'interrupts', of, 'interrupts.accepted'),
    row(part, 'EOIs written', of, 'eois.written'),
    row(part, 'exits', of, 'exits'),
  ]);
  return textTable({ head: ['boot, and phases of the workload', ...strategies], rows });
}

function differencesTable(comparisons: readonly Comparison[]): string {
  const metrics = METRICS.filter(({ key }) => HEADLINES.has(key));
  const rows = metrics.map(
    ({ key, label }): Row => [label, ...comparisons.map(({ differences }) => formatDifference(differences[key]))],
  );
  const head = ['difference', ...comparisons.map(({ strategy, against }) => `${strategy} against ${against}`)];
  return textTable({ head, rows, leftColumns: new Set(head.keys()), gap: 3 });
}

function balanceTable({ balance }: Summary, strategies: readonly string[]): string {
  const row = (label: string, of: (one: InterruptBalance) => number): Row => [
    label,
    ...strategies.map((strategy) => formatCount(of(balance[strategy]))),
  ];
  const rows = [
    row('interrupts accepted', ({ delivery }) => delivery.accepted),
    row('= EOIs written', ({ ending }) => ending.written),
    row('+ EOIs elided', ({ ending }) => ending.elided),
    row('+ from the 8259s: no EOI', ({ ending }) => ending.external),
    row('+ thrown away by INIT', ({ delivery, ending }) => delivery.discardedInIrr + ending.discardedInIsr),
    row('+ change of those pending', ({ delivery }) => delivery.inIrr),
    row('+ change of those in service', ({ ending }) => ending.inIsr),
    row('+ unexplained', ({ delivery, ending }) => delivery.remainder + ending.remainder),
  ];
  const zeros = (row: Row): boolean => row.slice(1).every((cell) => cell === '0');
  const shown = rows.filter((one, index) => index < 3 || index === rows.length - 1 || !zeros(one));
  return textTable({ head: ['where the interrupts went', ...strategies], rows: shown });
}

function intervalNote({ repetitions: n, comparisons, seedMatters }: Summary): string | undefined {
  if (comparisons.length === 0) return undefined;
  if (n > 1 && !seedMatters) {
    return 'All repetitions are the same run, whatever the seed: this guest uses nothing random (RDRAND).';
  }
  if (n === 1) return `One run each: differences have no interval (--repeat ${MINIMUM_PAIRS} or more gives one).`;
  const alike = comparisons.some(({ differences }) => [...HEADLINES].some((key) => differences[key].alike));
  const alikeNote = alike ? `\n"in each of ${n}": no run differs in that from another, so there is no interval to give.` : '';
  if (n < MINIMUM_PAIRS) {
    return `In brackets: the lowest and the highest pair of runs. A 95% interval needs --repeat ${MINIMUM_PAIRS} or more.${alikeNote}`;
  }
  return (
    'In brackets: 95% confidence intervals. p is the probability of a difference at least as large\n' +
    `if there were none; "~" marks those that may well be chance (p ≥ 0.05). Runs differ by their seed.${alikeNote}`
  );
}
