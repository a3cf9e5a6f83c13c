/**
 * The reference workloads (bench/workloads) and how what they print is read: the same lines on a serial console, from a pipe of
 * another emulator or of the same program run natively. `@@INIT` says that /init runs, `@@B name` and `@@E name … chk=…` are
 * around each repetition, `@@DONE` comes last. Whoever reads a line takes the time.
 */

import { buildInitramfs } from '../guest-files/initramfs.ts';
import type { Machine } from '../machine/machine.ts';
import type { ExperimentHost } from './runner.ts';
import { LineReader } from './markers.ts';

/** The groups whose geometric means are compared. */
export const BENCHMARK_GROUPS = ['user integer', 'kernel', 'busybox', 'floating point', 'bulk copy'] as const;
export type BenchmarkGroup = (typeof BENCHMARK_GROUPS)[number];

export interface BenchmarkWorkload {
  name: string;
  group: BenchmarkGroup;
  /** What it prints, on every platform. */
  checksum: string;
  about: string;
}

/** One of a group to a line: name, checksum and what it does. */
const workloads = (group: BenchmarkGroup, lines: string): BenchmarkWorkload[] =>
  lines
    .trim()
    .split('\n')
    .map((line) => {
      const [name, checksum, ...about] = line.trim().split(' ');
      return { name, group, checksum, about: about.join(' ') };
    });

/** In the order in which they run. */
export const BENCHMARK_WORKLOADS: readonly BenchmarkWorkload[] = [
  ...workloads(
    'user integer',
    `sieve 0047e4e2 Eratosthenes on bytes
     sha256 099b5e33 SHA-256 in C
     chase_s 106d47ba pointer chase in the first-level cache
     chase_l 6496ab22 pointer chase through 16 MiB`,
  ),
  ...workloads('bulk copy', "memcpy 000000b1 the C library's memcpy"),
  ...workloads('user integer', 'loopcpy 000000b1 copying word by word'),
  ...workloads('bulk copy', 'repmovs 000000b1 REP MOVSD'),
  ...workloads(
    'user integer',
    `qsort 5531dea7 quicksort
     qsortcb 01397c52 the C library's qsort with a callback
     interp 19ae621d a bytecode interpreter
     fib 02547029 calls and returns
     int64 b03b0bb7 64-bit multiplication and division`,
  ),
  ...workloads(
    'floating point',
    `fpdbl 0016d794 matrices of doubles
     fpx87 00000008 long double`,
  ),
  ...workloads(
    'kernel',
    `getppid 00000000 300,000 system calls
     pipe 00000000 10,000 round trips between processes
     fork 00000000 500 processes
     forkexec 00000000 200 programs
     pgfault 004fb000 40,960 page faults`,
  ),
  ...workloads(
    'busybox',
    `m_sh 34ea6549 a loop of the shell's
     m_gzip eff5bc1e gzip
     m_sha eff5bc1e sha256sum
     m_awk 79d18c25 awk
     m_spawn 2018b819 100 processes, and a pipeline`,
  ),
];

/** CPU and wall time in milliseconds, of a moment or between two. */
export interface BenchmarkTimes {
  wallMilliseconds: number;
  /** Of the thread that runs the guest. */
  mainMilliseconds: number;
  /** Of all threads: compilers' too. */
  processMilliseconds: number;
  /** What the guest retired; only Exitless knows. */
  instructions?: number | undefined;
}

export interface BenchmarkRun extends BenchmarkTimes {
  checksum: string;
  /** CPU time in milliseconds as the program itself measured it; the busybox set does not. */
  ownMilliseconds?: number | undefined;
}

export interface BenchmarkMeasurement {
  /** From power-on to /init. */
  boot?: BenchmarkTimes | undefined;
  /** Repetitions by workload. */
  runs: Record<string, BenchmarkRun[]>;
  /** `@@DONE` was read. */
  isComplete: boolean;
}

const between = (from: BenchmarkTimes, to: BenchmarkTimes): BenchmarkTimes => ({
  wallMilliseconds: to.wallMilliseconds - from.wallMilliseconds,
  mainMilliseconds: to.mainMilliseconds - from.mainMilliseconds,
  processMilliseconds: to.processMilliseconds - from.processMilliseconds,
  ...(to.instructions !== undefined && { instructions: to.instructions - (from.instructions ?? 0) }),
});

/** Kernel messages may share a line with a marker, before it. */
const MARKER = /@@(INIT|B|E|DONE)\b(?: (\S+))?(?: ms=[\d.]+(?: cpu=([\d.]+))? chk=([0-9a-f]+))?/;

/** Reads the console, line by line, and takes the time at each marker. */
export class BenchmarkLog {
  readonly measurement: BenchmarkMeasurement = { runs: {}, isComplete: false };
  private readonly now: () => BenchmarkTimes;
  private readonly start: BenchmarkTimes;
  private begun: BenchmarkTimes | undefined;

  /** Power-on is now; `now` counts from any moment. */
  constructor(now: () => BenchmarkTimes) {
    this.now = now;
    this.start = now();
  }

  /** A line of the console. The name of the workload that ended with it, `INIT`, `DONE`, or nothing. */
  line(text: string): string | undefined {
    const match = MARKER.exec(text);
    if (!match) return undefined;
    const [, kind, name, own, checksum] = match;
    switch (kind) {
      case 'INIT':
        this.measurement.boot = between(this.start, this.now());
        return kind;
      case 'B':
        this.begun = this.now();
        return undefined;
      case 'DONE':
        this.measurement.isComplete = true;
        return kind;
      default: {
        if (!this.begun || checksum === undefined) return undefined;
        const ownMilliseconds = own === undefined ? undefined : Number(own);
        const run = { ...between(this.begun, this.now()), checksum, ownMilliseconds };
        this.measurement.runs[name] ??= [];
        this.measurement.runs[name].push(run);
        this.begun = undefined;
        return name;
      }
    }
  }
}

/** What the guest's /init is to run. */
export interface BenchmarkPlan {
  /** Names of the program's workloads. */
  names: readonly string[];
  /** The busybox set, too. */
  macro: boolean;
  repetitions: number;
}

export const isMacroWorkload = ({ group }: BenchmarkWorkload): boolean => group === 'busybox';

/** The kernel's command line for `plan`. */
export function benchmarkCommandLine({ names, macro, repetitions }: BenchmarkPlan): string {
  return `console=ttyS0 quiet panic=-1 b.reps=${repetitions} b.set=${names.join(',') || 'none'} b.macro=${macro ? 1 : 0}`;
}

/** What the initramfs is made of. */
export interface BenchmarkFiles {
  /** Texts of bench/workloads. */
  init: string;
  macro: string;
  /** bench.c, built. */
  program: Uint8Array;
  busybox: Uint8Array;
}

/** The initramfs that every platform boots. */
export function benchmarkInitramfs({ init, macro, program, busybox }: BenchmarkFiles): Uint8Array {
  const files = { '/bin/bench': { data: program, mode: 0o755 }, '/bin/macro.sh': { data: macro, mode: 0o755 } };
  return buildInitramfs({ init, busybox, files });
}

/** CPU time of the process and of the main thread, beside the clock. */
export interface BenchmarkHost extends ExperimentHost {
  /** Process and main thread, in milliseconds. */
  cpuMilliseconds(): { main: number; process: number };
}

const SLICE_NANOSECONDS = 50_000_000;

/** Runs a machine that was made a moment ago to its end; `onMarker` gets the names of what ends. Power-on is `start`. */
export async function runBenchmark(
  machine: Pick<Machine, 'run' | 'serial' | 'instructions' | 'dispose'>,
  host: BenchmarkHost,
  onMarker: (name: string, measurement: BenchmarkMeasurement) => void = () => {},
): Promise<{ measurement: BenchmarkMeasurement; end: string }> {
  const log = new BenchmarkLog(() => {
    const { main, process } = host.cpuMilliseconds();
    return {
      wallMilliseconds: host.seconds() * 1000,
      mainMilliseconds: main,
      processMilliseconds: process,
      instructions: machine.instructions,
    };
  });
  const lines = new LineReader((line) => {
    const name = log.line(line);
    if (name) onMarker(name, log.measurement);
  });
  machine.serial.onOutput((bytes) => lines.push(bytes));
  let result = machine.run({ guestNanoseconds: SLICE_NANOSECONDS });
  while (result.kind !== 'ended') {
    await host.pause();
    result = machine.run({ guestNanoseconds: SLICE_NANOSECONDS });
  }
  return { measurement: log.measurement, end: `${result.end}: ${result.report}` };
}

/** The repetition that took least of the main thread: the others had to share the host. */
export function bestRun(runs: readonly BenchmarkRun[]): BenchmarkRun {
  return runs.reduce((best, run) => (run.mainMilliseconds < best.mainMilliseconds ? run : best));
}

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

/** Whether every repetition printed what it should. */
export function hasRightChecksum(workload: BenchmarkWorkload, runs: readonly BenchmarkRun[]): boolean {
  return runs.length > 0 && runs.every(({ checksum }) => checksum === workload.checksum);
}
