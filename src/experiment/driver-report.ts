/** A run of the tiny kernel as text. */

import { PLATFORMS } from '../machine/platforms/all.ts';
import { formatCounters } from './counters-report.ts';
import type { DriverRun } from './driver-run.ts';
import { formatCount, textTable } from './text-table.ts';

/** What ran on what, its workloads, the host's counters, and whether the guest's agree with them. */
export function formatDriverRun({ platform, vcpus, report, counters, tally, agrees }: DriverRun): string {
  const { driver, bits, cpus, x2apic, pvEoi } = report;
  const used = cpus === vcpus ? `${vcpus} vCPU${vcpus === 1 ? '' : 's'}` : `${cpus} of ${vcpus} vCPUs`;
  const head = `${driver} driver, ${bits}-bit, ${used} on ${PLATFORMS[platform].title}, ${x2apic ? 'x2APIC' : 'xAPIC'} mode, PV EOI ${pvEoi ? 'enabled' : 'not enabled'}`;
  const workloads = textTable({
    head: ['workload', 'rounds', 'cycles a round'],
    rows: report.workloads.map(({ name, rounds, cycles }) => [name, formatCount(rounds), formatCount(cycles / rounds)]),
  });
  const total = (value: 'delivered' | 'handled'): number => tally.reduce((sum, one) => sum + one[value], 0);
  const wrong = tally.filter(({ delivered, handled }) => delivered !== handled);
  const verdict = agrees
    ? `The guest handled ${formatCount(total('handled'))} interrupts and NMIs, as many as were delivered, by CPU and vector; all were ended.`
    : [
        'Guest and host do not agree:',
        ...wrong.map(
          ({ cpu, vector, delivered, handled }) =>
            `  CPU ${cpu}, vector 0x${vector.toString(16)}: ${delivered} delivered, ${handled} handled`,
        ),
      ].join('\n');
  return [head, workloads, formatCounters(counters), verdict].join('\n\n');
}
