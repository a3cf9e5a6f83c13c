/**
 * Every EOI of whole runs, from power-on to power-off, instruction by instruction: what a guest executes to end an interrupt, under each
 * strategy.
 */

import type { CallTracer, TracedPath } from '../machine/call-tracer.ts';
import type { Machine, MachineOptions } from '../machine/machine.ts';
import { WORKLOAD_INIT } from '../guest-files/init-scripts.ts';
import { buildInitramfs } from '../guest-files/initramfs.ts';
import { EOI, EOI_FROM_FUNCTION, type EoiCode, linuxEoiCode } from './eoi-code.ts';
import { type ExperimentEvent, type ExperimentHost, type ExperimentOptions, runExperiment } from './runner.ts';
import type { Strategy } from './strategy.ts';

/** How the run of Linux is made that docs/eoi.md has. */
export const LINUX_RUN = { vcpus: 2, load: 100, seed: 1 } as const;
const MEMORY_BYTES = 256 * 2 ** 20;

export interface EoiTrace {
  strategy: string;
  /** By what was executed, the most frequent first. */
  paths: TracedPath[];
  /** EOIs that were traced. */
  traced: number;
  /** EOIs that the machine counted. One that was elided may be noticed late: the last of a vCPU's may be missing here. */
  written: number;
  elided: number;
  /** Calls of which not all was seen; 0, or what is reported is not all there is. */
  incomplete: number;
}

/** The run of Debian's kernel that docs/eoi.md reports, under some strategies. */
export async function traceLinuxEois(
  { kernel, busybox }: { kernel: Uint8Array; busybox: Uint8Array },
  strategies: readonly Strategy[],
  host: ExperimentHost,
  createMachine: (options: MachineOptions) => Machine,
): Promise<{ traces: EoiTrace[]; symbols: EoiCode['symbols'] }> {
  const code = linuxEoiCode(kernel);
  const { vcpus, load, seed } = LINUX_RUN;
  const machine = {
    kernel,
    initrd: buildInitramfs({ init: WORKLOAD_INIT, busybox }),
    append: `console=ttyS0 quiet load=${load}`,
    boot: 'pvh' as const,
    vcpus,
    memoryBytes: MEMORY_BYTES,
  };
  return { traces: await traceEois({ machine, strategies, seed }, code, host, createMachine), symbols: code.symbols };
}

/** Runs each strategy once. Throws what `runExperiment` throws. */
export async function traceEois(
  options: Omit<ExperimentOptions, 'repeat'>,
  code: Pick<EoiCode, 'points' | 'alsoIn'>,
  host: ExperimentHost,
  createMachine: (options: MachineOptions) => Machine,
  onEvent: (event: ExperimentEvent) => void = () => {},
): Promise<EoiTrace[]> {
  const traces: EoiTrace[] = [];
  let current: { machine: Machine; tracer: CallTracer } | undefined;
  const create = (machineOptions: MachineOptions): Machine => {
    const machine = createMachine(machineOptions);
    current = { machine, tracer: machine.traceCalls(code.points, code.alsoIn) };
    return machine;
  };
  await runExperiment({ ...options, repeat: 1 }, host, create, (event) => {
    onEvent(event);
    if (event.kind !== 'run-finished' || !current) return;
    const { paths, incomplete } = current.tracer;
    const { written, elided, ignored } = current.machine.counters().total.eois;
    const traced = paths
      .filter(({ name }) => name === EOI || name === EOI_FROM_FUNCTION)
      .reduce((sum, { calls }) => sum + calls, 0);
    traces.push({ strategy: event.record.strategy, paths, traced, written: written + ignored, elided, incomplete });
    current = undefined;
  });
  return traces;
}
