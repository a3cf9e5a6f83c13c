/** What benchmarks need of Node and Linux: CPU time by thread, the program built by the user's compiler, and a native run of it. */

import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  type BenchmarkHost,
  BenchmarkLog,
  type BenchmarkMeasurement,
  type BenchmarkPlan,
  type BenchmarkTimes,
  benchmarkInitramfs,
} from '../../experiment/benchmark.ts';
import { LineReader } from '../../experiment/markers.ts';
import { UserError } from '../../machine/user-error.ts';
import { DEFAULT_CACHE_FOLDER } from './apt.ts';
import { debianGuestFiles, type GuestFiles } from './debian-packages.ts';
import { readInput } from './files.ts';
import { nodeHost } from './host.ts';

/** `bench/workloads` of this package, from src/ as from dist/. */
const WORKLOADS_FOLDER = join(import.meta.dirname, '..', '..', '..', 'bench', 'workloads');
const BUILD_FOLDER = join(DEFAULT_CACHE_FOLDER, '..', 'bench');

/** Nanoseconds on a CPU of a thread, by its schedstat; undefined where there is none: not Linux, or the thread is gone. */
function threadMilliseconds(task: string): number | undefined {
  try {
    return Number(readFileSync(`${task}/schedstat`, 'latin1').split(' ')[0]) / 1e6;
  } catch {
    return undefined;
  }
}

/** This process as the host of a benchmark. Without Linux's /proc the main thread's time is the process's. */
export const benchmarkHost: BenchmarkHost = {
  ...nodeHost,
  cpuMilliseconds: () => {
    const { user, system } = process.cpuUsage();
    const all = (user + system) / 1000;
    return { process: all, main: threadMilliseconds(`/proc/self/task/${process.pid}`) ?? all };
  },
};

export type BenchmarkBits = 64 | 32;
/** Programs of bench/workloads: the reference workloads, and working sets of code. */
export type BenchmarkProgram = 'bench' | 'code';

/** Builds the program by gcc, once for each source and compiler, and returns its path. Throws a UserError where that fails. */
async function buildBenchmark(name: BenchmarkProgram, bits: BenchmarkBits, onProgress: (line: string) => void): Promise<string> {
  const run = promisify(execFile);
  const source = join(WORKLOADS_FOLDER, `${name}.c`);
  const flags = [`-m${bits}`, '-static', '-O2'];
  const { stdout: version } = await run('gcc', ['-dumpfullversion']).catch((error: unknown) => {
    throw new UserError('there is no gcc here to build the benchmark with: apt-get install gcc libc6-dev', { cause: error });
  });
  const key = createHash('sha256').update(`${version}${flags.join()}`).update(readFileSync(source)).digest('hex').slice(0, 12);
  const program = join(BUILD_FOLDER, `${name}${bits}-${key}`);
  if (existsSync(program)) return program;
  onProgress(`building ${program}`);
  mkdirSync(BUILD_FOLDER, { recursive: true });
  const draft = `${program}.${process.pid}`;
  await run('gcc', [...flags, '-o', draft, source]).catch((error: { stderr?: string; message: string }) => {
    const reason = (error.stderr || error.message).trim().split('\n')[0];
    const hint = bits === 32 ? 'apt-get install gcc-multilib' : 'apt-get install libc6-dev';
    throw new UserError(`gcc cannot build the ${bits}-bit benchmark (${reason}): ${hint}`, { cause: error });
  });
  renameSync(draft, program);
  return program;
}

/** A kernel with its initramfs, and what they were made of. */
export interface BenchmarkGuest {
  files: GuestFiles;
  program: string;
  kernel: Uint8Array;
  initrd: Uint8Array;
}

/** Fetches and builds what platforms boot, where it is not in the cache. Throws a UserError where that fails. */
export async function benchmarkGuest(
  bits: BenchmarkBits,
  onProgress: (line: string) => void,
  name: BenchmarkProgram = 'bench',
): Promise<BenchmarkGuest> {
  const files = await debianGuestFiles({ onProgress, kernel: bits === 64 ? 'cloud-amd64' : '686' });
  const program = await buildBenchmark(name, bits, onProgress);
  // Natively it is run, too.
  chmodSync(files.busybox, 0o755);
  const script = (name: string): string => readFileSync(join(WORKLOADS_FOLDER, name), 'utf8');
  const initrd = benchmarkInitramfs({
    init: script('init'),
    macro: script('macro.sh'),
    program: readInput(program, 'benchmark'),
    busybox: readInput(files.busybox, 'busybox'),
  });
  return { files, program, kernel: readInput(files.vmlinuz, 'kernel'), initrd };
}

/** The host can run the same programs itself. */
export const runsNatively = process.platform === 'linux' && process.arch === 'x64';

/** Clock ticks of /proc/PID/stat a second: the same on every Linux. */
const TICK_MILLISECONDS = 10;

/** CPU time of a process and of its children that ended, in ticks of 10 ms. */
function processTreeMilliseconds(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const ticks = stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .slice(11, 15);
    return ticks.reduce((sum, text) => sum + Number(text), 0) * TICK_MILLISECONDS;
  } catch {
    return 0;
  }
}

/** Lines of a child's output to a log; resolves when it has ended. Rejects where it cannot be started. */
export function logChild(
  command: string,
  args: readonly string[],
  read: (pid: number) => { main: number; process: number },
  onMarker: (name: string, measurement: BenchmarkMeasurement, pid: number, stop: () => void) => void = () => {},
): Promise<{ measurement: BenchmarkMeasurement; status: number | null; lastLines: string[] }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    child.once('error', reject);
    const pid = child.pid ?? 0;
    const now = (): BenchmarkTimes => {
      const { main, process: all } = read(pid);
      return { wallMilliseconds: nodeHost.seconds() * 1000, mainMilliseconds: main, processMilliseconds: all };
    };
    const log = new BenchmarkLog(now);
    const lastLines: string[] = [];
    const lines = new LineReader((line) => {
      if (lastLines.push(line) > 8) lastLines.shift();
      const name = log.line(line);
      if (name) onMarker(name, log.measurement, pid, () => child.kill('SIGKILL'));
    });
    child.stdout.on('data', (bytes: Buffer) => lines.push(bytes));
    child.once('close', (status) => resolve({ measurement: log.measurement, status, lastLines }));
  });
}

/** CPU time of a running process: the busiest of its threads is taken for the one that runs the guest. */
export function threadTimes(pid: number): { main: number; process: number } {
  const folder = `/proc/${pid}/task`;
  const threads = existsSync(folder) ? readdirSync(folder) : [];
  const times = threads.map((thread) => threadMilliseconds(join(folder, thread)) ?? 0);
  return { main: Math.max(0, ...times), process: times.reduce((sum, time) => sum + time, 0) };
}

/** Runs `plan` on the host itself: the program, and the busybox set by the same busybox. */
export async function runNatively({ program, files }: BenchmarkGuest, plan: BenchmarkPlan): Promise<BenchmarkMeasurement> {
  const read = (pid: number) => {
    const time = processTreeMilliseconds(pid);
    return { main: time, process: time };
  };
  const runs: BenchmarkMeasurement['runs'] = {};
  const commands: string[][] = [];
  if (plan.names.length) commands.push([program, `${plan.repetitions}`, ...plan.names]);
  if (plan.macro) commands.push([files.busybox, 'sh', join(WORKLOADS_FOLDER, 'macro.sh'), files.busybox, `${plan.repetitions}`]);
  for (const [command, ...args] of commands) {
    const { measurement, status } = await logChild(command, args, read);
    if (status !== 0) throw new UserError(`${command} ended with status ${status}`);
    Object.assign(runs, measurement.runs);
  }
  return { runs, isComplete: true };
}

/** What figures depend on: processor, host, runtime. */
export function hostVersions(): Record<string, string> {
  return {
    node: process.versions.node,
    v8: process.versions.v8,
    processor: `${cpus()[0]?.model.trim()} (${availableParallelism()} CPUs)`,
    host: `${process.platform} ${release()}`,
  };
}
