/** What the tiny kernel says on its serial port, read back: lines that start with `@@`. */

import type { Workload } from './workloads.ts';

export interface KernelReport {
  bits: number;
  cpus: number;
  x2apic: boolean;
  pvEoi: boolean;
  /** The driver's title. */
  driver: string;
  workloads: { name: Workload; rounds: number /** Modulo 2^32. */; cycles: number }[];
  /** Interrupts handled, by CPU, then vector (NMIs have 2). */
  handled: Map<number, number>[];
  /** Messages received, by CPU. */
  messages: number[];
  /** Of the first nested interrupts: vectors at entry, vectors plus 1 at exit. */
  nestedOrder: number[];
  /** What a program of one's own said: its lines without `@@ note`. */
  notes: string[];
  /** The report is whole: the kernel got to its end. */
  complete: boolean;
}

/** The last line of a kernel that got to its end. */
export const KERNEL_END = '@@ end\n';

/** Reads a run's serial output. Throws where a line is not the kernel's. */
export function parseKernelReport(output: string): KernelReport {
  const report: KernelReport = {
    bits: 0,
    cpus: 0,
    x2apic: false,
    pvEoi: false,
    driver: '',
    workloads: [],
    handled: [],
    messages: [],
    nestedOrder: [],
    notes: [],
    complete: false,
  };
  for (const line of output.split('\n')) {
    const [, kind, rest] = /^@@ ([\w-]+) ?(.*)$/.exec(line) ?? [];
    if (kind === undefined) {
      if (line.trim()) throw new Error(`the kernel said: ${line}`);
      continue;
    }
    const values = new Map([...rest.matchAll(/(\w+)=(\S*)/g)].map(([, key, value]) => [key, value]));
    const number = (key: string): number => Number(values.get(key));
    switch (kind) {
      case 'boot':
        Object.assign(report, {
          bits: number('bits'),
          cpus: number('cpus'),
          x2apic: number('x2apic') === 1,
          pvEoi: number('pv_eoi') === 1,
        });
        report.handled = Array.from({ length: report.cpus }, () => new Map());
        break;
      case 'start':
      case 'begin':
      case 'end':
      case 'done':
        if (kind === 'end' && !rest) report.complete = true;
        break;
      case 'driver':
        report.driver = rest;
        break;
      case 'workload':
        report.workloads.push({ name: values.get('name') as Workload, rounds: number('rounds'), cycles: number('cycles') });
        break;
      case 'messages':
        report.messages[number('cpu')] = number('count');
        break;
      case 'handled':
        report.handled[number('cpu')].set(number('vector'), number('count'));
        break;
      case 'nested':
        report.nestedOrder = (values.get('order') ?? '').split(',').map(Number);
        break;
      case 'note':
        report.notes.push(rest);
        break;
      default:
        throw new Error(`the kernel said: ${line}`);
    }
  }
  return report;
}
