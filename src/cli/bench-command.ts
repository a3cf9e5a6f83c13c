/** `exitless bench`: the reference workloads in a guest, beside the same programs on the host. */

import { type Command, Option } from 'commander';
import {
  BENCHMARK_WORKLOADS,
  type BenchmarkMeasurement,
  type BenchmarkPlan,
  type BootMethod,
  benchmarkCommandLine,
  formatBenchmark,
  formatCount,
  formatSeconds,
  hasRightChecksum,
  isMacroWorkload,
  Machine,
  runBenchmark,
  UserError,
  VERSION,
} from '../index.ts';
import {
  type BenchmarkBits,
  benchmarkGuest,
  benchmarkHost,
  hostVersions,
  OutputFile,
  runNatively,
  runsNatively,
} from '../platform/node/index.ts';
import { addJitReportOptions, type JitReportOptions, jitClock, printJitReports } from './jit-report.ts';
import { bootOption, type JitChoice, jitOf, jitOption, memoryOption } from './machine-options.ts';
import { choice, vcpuCount, wholeNumber } from './option-values.ts';

interface BenchCommandOptions extends JitReportOptions {
  set: string[];
  macro?: true;
  reps: number;
  smp: number;
  memory: number;
  bits: BenchmarkBits;
  boot?: BootMethod;
  jit: JitChoice;
  native: boolean;
  json?: string;
}

const PROGRAM = BENCHMARK_WORKLOADS.filter((workload) => !isMacroWorkload(workload));
const NATIVE_REPETITIONS = 5;

const HELP = `
Workloads:
${PROGRAM.map(({ name, about, group }) => `  ${name.padEnd(10)}${about} (${group})`).join('\n')}
With --macro, the busybox set too: ${BENCHMARK_WORKLOADS.filter(isMacroWorkload)
  .map(({ name }) => name)
  .join(', ')}.

Needs gcc (for --bits 32 gcc-multilib), and apt for Debian's kernel and busybox; all is kept.
Times are CPU time: the whole process with V8's compiler threads, and the main thread alone. Of
several repetitions the best counts.

Examples:
  exitless bench --set fib,qsort --reps 3
  exitless bench --set all --macro --json bench.json
  exitless bench --bits 32 --set sieve --jit off`;

/** `all`, `none` or names. */
function workloadSet(text: string): string[] {
  if (text === 'none') return [];
  if (text === 'all') return PROGRAM.map(({ name }) => name);
  return text.split(',').map(
    choice(
      '--set',
      PROGRAM.map(({ name }) => name),
    ),
  );
}

export function benchCommand(program: Command): void {
  addJitReportOptions(program.command('bench').description('run the reference workloads in a guest, and natively beside it'))
    .addOption(
      new Option('--set <list>', 'all, none, or names, see below')
        .argParser(workloadSet)
        .default(workloadSet('sieve,qsort'), 'sieve,qsort'),
    )
    .option('--macro', 'the busybox set, too')
    .addOption(new Option('--reps <n>', 'repetitions of each').argParser(wholeNumber('--reps', 1, 1000)).default(1))
    .addOption(new Option('--smp <n>', 'number of vCPUs').argParser(vcpuCount).default(1))
    .addOption(memoryOption('512M'))
    .addOption(
      new Option('--bits <n>', '64, or 32: a 32-bit kernel, program and busybox')
        .argParser((text) => Number(choice('--bits', ['64', '32'])(text)) as BenchmarkBits)
        .default(64),
    )
    .addOption(bootOption())
    .addOption(jitOption())
    .option('--no-native', 'do not run them on this host')
    .option('--json <file>', 'write everything that was measured')
    .addHelpText('after', HELP)
    .action(async (options: BenchCommandOptions) => bench(options));
}

async function bench(options: BenchCommandOptions): Promise<void> {
  const { set: names, macro = false, reps: repetitions, bits, boot = bits === 64 ? 'pvh' : 'bzimage' } = options;
  const progress = (line: string): void => void process.stderr.write(`${line}\n`);
  const json = options.json === undefined ? undefined : new OutputFile(options.json, 'JSON file');
  const guest = await benchmarkGuest(bits, progress);
  const plan: BenchmarkPlan = { names, macro, repetitions };
  let native: BenchmarkMeasurement | undefined;
  if (options.native && !runsNatively) progress('not run natively: this host is not an x86-64 Linux');
  if (options.native && runsNatively && (names.length || macro)) {
    progress('natively');
    native = await runNatively(guest, { ...plan, repetitions: NATIVE_REPETITIONS });
  }
  const append = benchmarkCommandLine(plan);
  const machine = new Machine({
    memoryBytes: options.memory,
    vcpus: options.smp,
    kernel: guest.kernel,
    initrd: guest.initrd,
    append,
    boot,
    jit: jitOf(options.jit),
    jitClock: jitClock(options),
  });
  const { measurement, end } = await runBenchmark(machine, benchmarkHost, (name, { boot, runs }) => {
    if (name === 'INIT' && boot)
      progress(
        `/init after ${formatSeconds(boot.processMilliseconds / 1000)} s, ${formatCount(boot.instructions ?? 0)} instructions`,
      );
    const last = runs[name]?.at(-1);
    if (last) progress(`${name}: ${last.processMilliseconds.toFixed(0)} ms`);
  });
  const { kernelPackage, busyboxPackage } = guest.files;
  const kernel = `${kernelPackage.name} ${kernelPackage.version}`;
  const versions = { exitless: VERSION, kernel, busybox: busyboxPackage.version, ...hostVersions() };
  const peakBytes = process.resourceUsage().maxRSS * 1024;
  const settings = { bits, smp: options.smp, memoryBytes: options.memory, boot, jit: options.jit, append };
  json?.write(
    `${JSON.stringify({ versions, settings, peakBytes, end, guest: measurement, native, compiled: machine.jitReport() }, undefined, 1)}\n`,
  );
  json?.close();
  process.stdout.write(
    `${kernel}, ${bits}-bit, ${options.smp} vCPU${options.smp > 1 ? 's' : ''}, ${boot}, jit ${options.jit}\n\n${formatBenchmark(measurement, native)}\n`,
  );
  printJitReports(machine, options);
  if (!measurement.isComplete) throw new UserError(`the guest did not get to its end: ${end}`);
  const asked = BENCHMARK_WORKLOADS.filter((workload) => (isMacroWorkload(workload) ? macro : names.includes(workload.name)));
  const wrong = asked.filter((workload) => !hasRightChecksum(workload, measurement.runs[workload.name] ?? []));
  if (wrong.length) throw new Error(`wrong results: ${wrong.map(({ name }) => name).join(', ')}`);
}
