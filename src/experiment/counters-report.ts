/** The counters of one run as text: what `--stats` prints. */

import { balance, type CountersSnapshot, type VcpuCounts } from '../trace/counters.ts';
import { formatCount, type Row, textTable } from './text-table.ts';

/** By vCPU and in total. */
export function formatCounters({ vcpus, total }: CountersSnapshot): string {
  const columns = vcpus.length > 1 && vcpus.length <= 6 ? [...vcpus, total] : [total];
  const names = columns.length > 1 ? [...vcpus.map((_, index) => `vCPU ${index}`), 'total'] : ['total'];
  const row = (label: string, of: (counts: VcpuCounts) => number): Row => [label, ...columns.map((one) => formatCount(of(one)))];
  const keysOf = (of: (counts: VcpuCounts) => Record<string, unknown>): string[] => Object.keys(of(total)).sort();
  const vectors = keysOf(({ interrupts }) => interrupts.injected.byVector);
  const rows: Row[] = [
    row('instructions', ({ instructions }) => instructions),
    row('cycles charged for exits', ({ cyclesCharged }) => cyclesCharged),
    row('interrupts accepted', ({ interrupts }) => interrupts.accepted.total),
    row('  coalesced', ({ interrupts }) => interrupts.coalesced.total),
    row('  injected', ({ interrupts }) => interrupts.injected.total),
    ...vectors.map((vector) =>
      row(`    vector ${vector} (${sourcesOf(total, vector)})`, ({ interrupts }) => {
        return Object.values(interrupts.injected.byVector[vector] ?? {}).reduce((sum, count) => sum + count, 0);
      }),
    ),
    row('NMIs injected', ({ interrupts }) => interrupts.nmisInjected),
    row('EOIs written', ({ eois }) => eois.written),
    ...partRows(total.eois.writtenBecause, row, ({ eois }) => eois.writtenBecause),
    row('EOIs elided', ({ eois }) => eois.elided),
    row('EOIs broadcast', ({ eois }) => eois.broadcast),
    row('PV EOI armed', ({ pvEoi }) => pvEoi.armed),
    row('  disarmed by an exit', ({ pvEoi }) => pvEoi.disarmed),
    row('exits', ({ exits }) => exits.total),
    ...partRows(total.exits.byReason, row, ({ exits }) => exits.byReason),
  ];
  const isShown = (cells: Row): boolean => !cells[0].startsWith('  ') || cells.slice(1).some((cell) => cell !== '0');
  const { isBalanced, delivery, ending, causesRemainder } = balance(total);
  const verdict = isBalanced
    ? 'Every interrupt accepted is accounted for.'
    : `Not accounted for: ${delivery.remainder} in delivery, ${ending.remainder} in ending, ${causesRemainder} in causes.`;
  return `${textTable({ head: ['counters', ...names], rows: rows.filter(isShown) })}\n${verdict}`;
}

const sourcesOf = ({ interrupts }: VcpuCounts, vector: string): string =>
  Object.keys(interrupts.injected.byVector[vector] ?? {}).join(', ');

/** A row for each part of a count, the largest first. */
function partRows(
  parts: Partial<Record<string, number>>,
  row: (label: string, of: (counts: VcpuCounts) => number) => Row,
  of: (counts: VcpuCounts) => Partial<Record<string, number>>,
): Row[] {
  const names = Object.keys(parts).sort((a, b) => (parts[b] ?? 0) - (parts[a] ?? 0));
  return names.map((name) => row(`  ${name}`, (counts) => of(counts)[name] ?? 0));
}
