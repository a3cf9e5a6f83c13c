/**
 * What grows with the number of vCPUs and with the code that a guest runs: CPU time and memory, each figure from a process of its own.
 *
 *     npm run bench:growth                    1 to 24 vCPUs on the same work, and 1 to 64 MiB of code
 *     npm run bench:growth -- --vcpus 1,8 --code none --jit off
 *
 * Writes bench/results/growth-DATE.{json,md}.
 */
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import {
  type BenchmarkMeasurement,
  type BenchmarkRun,
  benchmarkCommandLine,
  bestRun,
  formatCount,
  Machine,
  runBenchmark,
  VERSION,
} from 'exitless';
import { type BenchmarkProgram, benchmarkGuest, benchmarkHost, hostVersions, useBranchHints } from 'exitless/node';

useBranchHints();
const { values: options } = parseArgs({
  options: {
    vcpus: { type: 'string', default: '1,2,4,8,16,24' },
    code: { type: 'string', default: '1,2,4,8,16,32,64' },
    jit: { type: 'string', default: 'on' },
    memory: { type: 'string', default: '2048' },
    out: { type: 'string', default: join('bench', 'results') },
    child: { type: 'string' },
  },
});
const numbers = (list: string): number[] => (list === 'none' ? [] : list.split(',').map(Number));

/** What a process of its own does. */
interface Job {
  program: BenchmarkProgram;
  names: string[];
  vcpus: number;
  repetitions: number;
}
interface JobResult {
  guest: BenchmarkMeasurement;
  peakBytes: number;
}

const WORK = ['sieve', 'getppid', 'pipe', 'fork'];

if (options.child !== undefined) await child(JSON.parse(options.child) as Job);
else await measure();

async function child({ program, names, vcpus, repetitions }: Job): Promise<void> {
  const guest = await benchmarkGuest(64, (line) => console.error(line), program);
  const machine = new Machine({
    memoryBytes: Number(options.memory) * 2 ** 20,
    vcpus,
    kernel: guest.kernel,
    initrd: guest.initrd,
    append: benchmarkCommandLine({ names, macro: false, repetitions }),
    boot: 'pvh',
    jit: options.jit === 'on',
  });
  const { measurement, end } = await runBenchmark(machine, benchmarkHost);
  if (!measurement.isComplete) throw new Error(end);
  const result: JobResult = { guest: measurement, peakBytes: process.resourceUsage().maxRSS * 1024 };
  process.stdout.write(JSON.stringify(result));
}

async function measure(): Promise<void> {
  const run = promisify(execFile);
  const job = async (what: Job): Promise<JobResult> => {
    console.error(`${what.vcpus} vCPUs: ${what.names.join(', ')}`);
    const settings = ['--jit', options.jit, '--memory', options.memory, '--child', JSON.stringify(what)];
    const { stdout } = await run(process.execPath, [process.argv[1], ...settings], { maxBuffer: 2 ** 26 });
    return JSON.parse(stdout) as JobResult;
  };
  const row = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`;
  const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(0);
  const milliseconds = (best: BenchmarkRun): string => best.processMilliseconds.toFixed(0);

  const byVcpus: { vcpus: number; result: JobResult }[] = [];
  for (const vcpus of numbers(options.vcpus)) {
    byVcpus.push({ vcpus, result: await job({ program: 'bench', names: WORK, vcpus, repetitions: 2 }) });
  }
  const vcpuRows = byVcpus.map(({ vcpus, result: { guest, peakBytes } }) => {
    const times = WORK.map((name) => milliseconds(bestRun(guest.runs[name])));
    const { processMilliseconds = 0, instructions = 0 } = guest.boot ?? {};
    return row([vcpus, (processMilliseconds / 1000).toFixed(2), formatCount(instructions / 1e6), ...times, mebibytes(peakBytes)]);
  });

  const byCode: { mebibytes: number; result: JobResult }[] = [];
  for (const size of numbers(options.code)) {
    byCode.push({ mebibytes: size, result: await job({ program: 'code', names: [`code${size}`], vcpus: 1, repetitions: 2 }) });
  }
  const codeRows = byCode.map(({ mebibytes: size, result: { guest, peakBytes } }) => {
    const runs = guest.runs[`code${size}`];
    const best = bestRun(runs);
    const nanoseconds = (best.processMilliseconds * 1e6) / (best.instructions ?? 1);
    const cells = [milliseconds(runs[0]), milliseconds(best), best.mainMilliseconds.toFixed(0), nanoseconds.toFixed(1)];
    return row([size, ...cells, formatCount((best.instructions ?? 0) / 1e6), mebibytes(peakBytes)]);
  });

  const date = new Date().toISOString().slice(0, 10);
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
  const versions = { exitless: `${VERSION} ${commit}`, ...hostVersions() };
  const vcpuHead = row(['vCPUs', 'boot to /init, CPU s', 'M instructions', ...WORK.map((name) => `${name}, ms`), 'peak MiB']);
  const report = `# Growth, ${date}

${Object.entries(versions)
  .map(([name, value]) => `${name}: ${value}`)
  .join('; ')}. jit ${options.jit}, ${options.memory} MiB of RAM. \`npm run bench:growth\`.

## vCPUs

The same work, in one thread of the guest, on machines of more and more vCPUs, which are idle. CPU time of the whole process, best of 2.

${vcpuHead}
|${'--:|'.repeat(WORK.length + 4)}
${vcpuRows.join('\n')}

## Working sets of code

\`bench/workloads/code.c\`: functions of 64 bytes are made, then called 4,194,304 times in all, each as far from the last as can be. CPU
milliseconds, of two repetitions, each of which makes its code anew; nanoseconds of CPU time for an instruction of the best.

| MiB of code | first | best | main thread | ns an instruction | M instructions | peak MiB |
|--:|--:|--:|--:|--:|--:|--:|
${codeRows.join('\n')}
`;
  mkdirSync(options.out, { recursive: true });
  const stem = join(options.out, `growth-${date}`);
  writeFileSync(`${stem}.md`, report);
  writeFileSync(`${stem}.json`, `${JSON.stringify({ date, versions, options, byVcpus, byCode }, undefined, 1)}\n`);
  console.log(report);
}
