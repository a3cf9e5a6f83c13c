/**
 * Boots every strategy, again and again, and measures the guest's workload. Runs of one repetition have the same seed; the
 * next repetition has the next seed, because a run is the same run whenever its seed is. The order of the strategies is
 * reversed from repetition to repetition, so that a host which gets slower or faster meets all alike.
 */

import type { KvmFeatureSet } from '../kvm/features.ts';
import { KVM_ON } from '../kvm/features.ts';
import type { Machine, MachineOptions, RunEnd } from '../machine/machine.ts';
import { UserError } from '../machine/user-error.ts';
import { LineReader, parseMarker } from './markers.ts';
import { between, type Measurement, type Moment } from './measurement.ts';
import { featuresFor, type Strategy } from './strategy.ts';

/** What the runner needs of where it runs: the library itself knows neither clock nor event loop. */
export interface ExperimentHost {
  /** A clock that only its differences matter of. */
  seconds(): number;
  /** Lets others have their turn. Called several times a second. */
  pause(): Promise<void>;
}

export interface ExperimentOptions {
  /** The machine all strategies have in common. */
  machine: Omit<MachineOptions, 'apic' | 'kvm' | 'seed' | 'realtime'>;
  /** KVM's features but for PV EOI, which is the strategy's. */
  kvm?: KvmFeatureSet | undefined;
  strategies: readonly Strategy[];
  /** How often each strategy is booted; 1 or more. */
  repeat: number;
  /** Seed of the first repetition. */
  seed: number;
  /** Guest time after which a run that has not said `@@ done` is given up. */
  maxGuestSeconds?: number | undefined;
}

/** The part of a machine that a run needs. */
export type ExperimentMachine = Pick<Machine, 'run' | 'serial' | 'counters' | 'nowNanoseconds' | 'dispose'>;

/** One run: what was measured until the workload began, of the workload, and of its phases. */
export interface RunRecord {
  strategy: string;
  /** From 0. */
  repetition: number;
  seed: number;
  /** `running`: it had done its work, but did not power off. */
  end: RunEnd | 'running';
  boot: Measurement;
  workload: Measurement;
  phases: Record<string, Measurement>;
  /** What the guest printed after its workload: /proc/interrupts. */
  epilogue: string[];
}

export type ExperimentEvent =
  | { kind: 'run-started'; strategy: string; repetition: number; run: number; runs: number }
  /** Where a run is, several times a second. */
  | { kind: 'run-progress'; stage: string; guestSeconds: number }
  | { kind: 'run-finished'; record: RunRecord; run: number; runs: number };

/** A run ended before its workload did. */
export class WorkloadError extends Error {
  override name = 'WorkloadError';
  readonly exitStatus: number;

  constructor(message: string, exitStatus: number) {
    super(message);
    this.exitStatus = exitStatus;
  }
}

const SLICE_NANOSECONDS = 5_000_000;
const DEFAULT_MAX_GUEST_SECONDS = 600;
/** Guest time to power off in, once the work is done. */
const POWER_OFF_SECONDS = 10;
const LAST_LINES = 8;

/**
 * Runs the experiment. Throws a UserError for what the machine refuses, and a WorkloadError where a guest ends or takes
 * forever before it says `@@ done`.
 */
export async function runExperiment(
  options: ExperimentOptions,
  host: ExperimentHost,
  createMachine: (options: MachineOptions) => ExperimentMachine,
  onEvent: (event: ExperimentEvent) => void = () => {},
): Promise<RunRecord[]> {
  const { strategies, repeat, seed } = options;
  const plan = strategies.map((strategy) => ({ strategy, kvm: strategyFeatures(strategy, options.kvm ?? KVM_ON) }));
  const runs = strategies.length * repeat;
  const records: RunRecord[] = [];
  for (let repetition = 0; repetition < repeat; repetition++) {
    for (const { strategy, kvm } of repetition % 2 === 0 ? plan : plan.toReversed()) {
      const run = records.length + 1;
      onEvent({ kind: 'run-started', strategy: strategy.name, repetition, run, runs });
      const machine = createMachine({ ...options.machine, apic: strategy.apic, kvm, seed: seed + repetition });
      try {
        const measured = await measure(machine, options, host, strategy, onEvent);
        const record = { strategy: strategy.name, repetition, seed: seed + repetition, ...measured };
        records.push(record);
        onEvent({ kind: 'run-finished', record, run, runs });
      } finally {
        machine.dispose();
      }
    }
  }
  return records;
}

function strategyFeatures(strategy: Strategy, base: KvmFeatureSet): KvmFeatureSet {
  const kvm = featuresFor(strategy, base);
  if (!kvm) throw new UserError(`strategy ${strategy.name} needs KVM's features, but --kvm=off hides them`);
  return kvm;
}

type Measured = Pick<RunRecord, 'end' | 'boot' | 'workload' | 'phases' | 'epilogue'>;

/** Runs one machine to its end. Moments are taken when a marker's last byte leaves the guest. */
async function measure(
  machine: ExperimentMachine,
  options: ExperimentOptions,
  host: ExperimentHost,
  strategy: Strategy,
  onEvent: (event: ExperimentEvent) => void,
): Promise<Measured> {
  const now = (): Moment => ({
    counters: machine.counters(),
    guestNanoseconds: machine.nowNanoseconds,
    hostSeconds: host.seconds(),
  });
  const powerOn = now();
  const begun = new Map<string, Moment>();
  const phases: Record<string, Measurement> = {};
  const lastLines: string[] = [];
  const epilogue: string[] = [];
  let start: Moment | undefined;
  let done: Moment | undefined;
  let stage = 'boot';

  const lines = new LineReader((line) => {
    lastLines.push(line);
    if (lastLines.length > LAST_LINES) lastLines.shift();
    if (done) {
      epilogue.push(line);
      return;
    }
    const marker = parseMarker(line);
    switch (marker?.kind) {
      case 'start':
        start ??= now();
        stage = 'workload';
        break;
      case 'done':
        if (start) done = now();
        stage = 'power-off';
        break;
      case 'begin':
        begun.set(marker.phase, now());
        stage = marker.phase;
        break;
      case 'end': {
        const from = begun.get(marker.phase);
        if (from) phases[marker.phase] = between(from, now());
        stage = 'workload';
        break;
      }
      case undefined:
        break;
    }
  });
  machine.serial.onOutput((bytes) => lines.push(bytes));

  const limit = options.maxGuestSeconds ?? DEFAULT_MAX_GUEST_SECONDS;
  const hasTime = (): boolean => {
    const end = done ? done.guestNanoseconds + POWER_OFF_SECONDS * 1e9 : limit * 1e9;
    return machine.nowNanoseconds < end;
  };
  let result = machine.run({ guestNanoseconds: SLICE_NANOSECONDS });
  while (result.kind !== 'ended' && hasTime()) {
    onEvent({ kind: 'run-progress', stage, guestSeconds: machine.nowNanoseconds / 1e9 });
    await host.pause();
    result = machine.run({ guestNanoseconds: SLICE_NANOSECONDS });
  }
  if (start && done) {
    const end = result.kind === 'ended' ? result.end : 'running';
    return { end, boot: between(powerOn, start), workload: between(start, done), phases, epilogue };
  }
  const what =
    result.kind === 'ended'
      ? `the run ended (${result.end}: ${result.report})`
      : `the guest was still busy after ${limit} s of its time`;
  const missing = `before it printed "@@ ${start ? 'done' : 'start'}"`;
  const status = result.kind === 'ended' && result.exitStatus !== 0 ? result.exitStatus : 2;
  throw new WorkloadError(
    `strategy ${strategy.name}: ${what} ${missing}. The last it printed:\n${lastLines.map((line) => `  ${line}`).join('\n')}`,
    status,
  );
}
