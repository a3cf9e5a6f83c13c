/** What a benchmark measured, as text. */

import {
  BENCHMARK_GROUPS,
  BENCHMARK_WORKLOADS,
  type BenchmarkMeasurement,
  type BenchmarkRun,
  bestRun,
  geometricMean,
  hasRightChecksum,
} from './benchmark.ts';
import { formatCount, formatSeconds, type Row, textTable } from './text-table.ts';

/**
 * CPU milliseconds of a native run: the best by the program's own measure; of what does not measure itself the mean, since a
 * process's time is only known in ticks of 10 ms.
 */
export function nativeMilliseconds(runs: readonly BenchmarkRun[]): number {
  const own = runs.map(({ ownMilliseconds }) => ownMilliseconds).filter((time) => time !== undefined);
  if (own.length) return Math.min(...own);
  return runs.reduce((sum, { processMilliseconds }) => sum + processMilliseconds, 0) / runs.length;
}

const ratio = (value: number): string => value.toFixed(value < 10 ? 2 : 1);

/** A table of the workloads, by group, and the geometric means of the groups that are complete. */
export function formatBenchmark(guest: BenchmarkMeasurement, native?: BenchmarkMeasurement): string {
  const rows: Row[] = [];
  for (const group of BENCHMARK_GROUPS) {
    const workloads = BENCHMARK_WORKLOADS.filter((workload) => workload.group === group);
    const ratios: number[] = [];
    const groupRows = workloads.flatMap((workload): Row[] => {
      const runs = guest.runs[workload.name];
      if (!runs) return [];
      const best = bestRun(runs);
      const host = native?.runs[workload.name];
      const hostMilliseconds = host && nativeMilliseconds(host);
      if (hostMilliseconds) ratios.push(best.processMilliseconds / hostMilliseconds);
      const checksums = [...new Set([...runs, ...(host ?? [])].map(({ checksum }) => checksum))];
      return [
        [
          workload.name,
          best.processMilliseconds.toFixed(0),
          best.mainMilliseconds.toFixed(0),
          hostMilliseconds?.toFixed(0) ?? '',
          hostMilliseconds ? ratio(best.processMilliseconds / hostMilliseconds) : '',
          formatCount((best.instructions ?? 0) / 1e6),
          formatCount((best.instructions ?? 0) / best.mainMilliseconds / 1000),
          hasRightChecksum(workload, [...runs, ...(host ?? [])])
            ? 'right'
            : `WRONG: ${checksums.join(' ')}, should be ${workload.checksum}`,
        ],
      ];
    });
    if (!groupRows.length) continue;
    rows.push([group], ...groupRows);
    if (ratios.length === workloads.length) rows.push(['  geometric mean', '', '', '', ratio(geometricMean(ratios))]);
  }
  const head = ['workload', 'CPU ms', 'main thread', 'native', '× native', 'M instructions', 'MIPS', 'checksum'];
  const table = rows.length ? `${textTable({ head, rows, leftColumns: new Set([0, 7]) })}\n\n` : '';
  const { boot } = guest;
  if (!boot) return `${table}The guest did not get to /init.`;
  const seconds = `${formatSeconds(boot.processMilliseconds / 1000)} s of CPU time (${formatSeconds(boot.mainMilliseconds / 1000)} s of it the main thread's)`;
  return `${table}Power-on to /init: ${seconds}, ${formatCount(boot.instructions ?? 0)} instructions.`;
}
