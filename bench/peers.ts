/**
 * Exitless beside its peers, in one run: the host itself, Debian's QEMU (TCG, one thread) and npm's v86, on the same kernel, initramfs and
 * program, 64 and 32 bits. What counts is CPU time (the thread that runs the guest, and the whole process), the best of all repetitions; the order of
 * the platforms is reversed from round to round. Needs qemu-system-x86_64, gcc with -m32, and npm for v86.
 *
 *     npm run bench:peers                            everything, three rounds
 *     npm run bench:peers -- --quick                 everything once
 *     npm run bench:peers -- --set fib,qsort --no-macro --platforms native64,tcg64,exitless64
 *
 * Writes bench/results/peers-DATE.{json,md}, anew after each platform.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import {
  BENCHMARK_GROUPS,
  BENCHMARK_WORKLOADS,
  type BenchmarkGroup,
  type BenchmarkMeasurement,
  type BenchmarkPlan,
  type BenchmarkRun,
  type BenchmarkTimes,
  benchmarkCommandLine,
  bestRun,
  geometricMean,
  hasRightChecksum,
  isMacroWorkload,
  nativeMilliseconds,
  VERSION,
} from 'exitless';
import {
  type BenchmarkBits,
  type BenchmarkGuest,
  benchmarkGuest,
  debianPackages,
  hostVersions,
  logChild,
  runNatively,
  threadTimes,
} from 'exitless/node';
import type { V86GuestOptions } from './v86-guest.ts';

const V86_VERSION = '0.5.462';
const QEMU = 'qemu-system-x86_64';
const MEMORY_MIB = 512;
const WORK = join('.cache', 'peers');

const PLATFORMS = ['native64', 'tcg64', 'exitless64', 'exitless64-pvh', 'native32', 'tcg32', 'v86', 'exitless32'] as const;
type Platform = (typeof PLATFORMS)[number];
const bitsOf = (platform: Platform): BenchmarkBits => (/32|v86/.test(platform) ? 32 : 64);

const { values: options } = parseArgs({
  options: {
    platforms: { type: 'string', default: PLATFORMS.join() },
    set: { type: 'string', default: 'all' },
    macro: { type: 'boolean', default: true },
    rounds: { type: 'string' },
    reps: { type: 'string' },
    quick: { type: 'boolean', default: false },
    out: { type: 'string', default: join('bench', 'results') },
  },
  allowNegative: true,
});
const fail = (message: string): never => {
  console.error(`peers: ${message}`);
  process.exit(2);
};
const platforms = options.platforms
  .split(',')
  .map((name) => PLATFORMS.find((known) => known === name) ?? fail(`no platform ${name}; there are ${PLATFORMS.join(', ')}`));
const rounds = Number(options.rounds ?? (options.quick ? 1 : 3));
const nativeRepetitions = options.quick ? 3 : 5;
const programs = BENCHMARK_WORKLOADS.filter((workload) => !isMacroWorkload(workload)).map(({ name }) => name);
const names = options.set === 'all' ? programs : options.set === 'none' ? [] : options.set.split(',');
const plan: BenchmarkPlan = { names, macro: options.macro, repetitions: Number(options.reps ?? (options.quick ? 1 : 2)) };
const workloads = BENCHMARK_WORKLOADS.filter((workload) =>
  isMacroWorkload(workload) ? plan.macro : names.includes(workload.name),
);

const run = promisify(execFile);
const progress = (line: string): void => console.error(line);
mkdirSync(WORK, { recursive: true });

// What they need

const guests = new Map<BenchmarkBits, BenchmarkGuest & { initrdPath: string }>();
for (const bits of new Set(platforms.map(bitsOf))) {
  const guest = await benchmarkGuest(bits, progress);
  const initrdPath = join(WORK, `initramfs${bits}.cpio`);
  writeFileSync(initrdPath, guest.initrd);
  guests.set(bits, { ...guest, initrdPath });
}
const guestOf = (platform: Platform) => guests.get(bitsOf(platform)) as BenchmarkGuest & { initrdPath: string };

async function qemuVersion(): Promise<string> {
  const { stdout } = await run(QEMU, ['--version']).catch(() =>
    fail(`there is no ${QEMU} here: apt-get install qemu-system-x86`),
  );
  return /version (.*)/.exec(stdout)?.[1] ?? stdout;
}

/** v86 and the BIOS it wants, in the cache. */
async function fetchV86(): Promise<Pick<V86GuestOptions, 'library' | 'wasm' | 'bios' | 'vgaBios'> & { seabios: string }> {
  const folder = join(process.cwd(), WORK, 'node_modules', 'v86');
  const installed = existsSync(folder) && JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')).version === V86_VERSION;
  if (!installed) {
    progress(`fetching v86 ${V86_VERSION}`);
    await run('npm', ['install', '--prefix', WORK, '--no-audit', '--no-fund', '--no-save', `v86@${V86_VERSION}`]).catch(
      (error: { stderr?: string }) => fail(`npm cannot fetch v86: ${error.stderr?.trim().split('\n')[0]}`),
    );
  }
  const [seabios] = await debianPackages([{ name: 'seabios', keep: './usr/share/seabios/*' }], { onProgress: progress });
  const bios = join(seabios.folder, 'usr', 'share', 'seabios');
  return {
    library: join(folder, 'build', 'libv86.mjs'),
    wasm: join(folder, 'build', 'v86.wasm'),
    bios: join(bios, 'bios.bin'),
    vgaBios: join(bios, 'vgabios-stdvga.bin'),
    seabios: seabios.version,
  };
}
const v86 = platforms.includes('v86') ? await fetchV86() : undefined;

// Running them

interface PlatformRun {
  guest: BenchmarkMeasurement;
  peakBytes?: number | undefined;
}

/** A Node program that writes a JSON file of `guest` and `peakBytes`. */
async function nodeProgram(args: readonly string[], out: string): Promise<PlatformRun> {
  rmSync(out, { force: true });
  const { status } = await logChild(process.execPath, args, threadTimes);
  if (!existsSync(out)) throw new Error(`${args[0]} ended with status ${status}`);
  return JSON.parse(readFileSync(out, 'utf8')) as PlatformRun;
}

async function exitless(bits: BenchmarkBits, boot: string, what: BenchmarkPlan): Promise<PlatformRun> {
  const out = join(WORK, `exitless${bits}.json`);
  const set = ['--set', what.names.join(',') || 'none', ...(what.macro ? ['--macro'] : []), '--reps', `${what.repetitions}`];
  const settings = ['--bits', `${bits}`, '--boot', boot, '--memory', `${MEMORY_MIB}M`, '--no-native', '--json', out];
  return nodeProgram([join('dist', 'cli', 'main.js'), 'bench', ...set, ...settings], out);
}

async function tcg(platform: Platform): Promise<PlatformRun> {
  const { files, initrdPath } = guestOf(platform);
  const args = [
    '-accel',
    'tcg,thread=single',
    '-smp',
    '1',
    '-m',
    `${MEMORY_MIB}`,
    '-nographic',
    '-nodefaults',
    '-no-reboot',
    '-serial',
    'stdio',
    '-monitor',
    'none',
    '-net',
    'none',
  ];
  let peakBytes: number | undefined;
  const { measurement, lastLines } = await logChild(
    QEMU,
    [...args, '-kernel', files.vmlinuz, '-initrd', initrdPath, '-append', benchmarkCommandLine(plan)],
    threadTimes,
    (marker, _, pid, stop) => {
      progress(`  ${marker}`);
      if (marker !== 'DONE') return;
      peakBytes = Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
      stop();
    },
  );
  if (!measurement.isComplete) throw new Error(`QEMU's guest did not get to its end:\n${lastLines.join('\n')}`);
  return { guest: measurement, peakBytes };
}

async function runV86(): Promise<PlatformRun> {
  const { files, initrdPath } = guestOf('v86');
  const out = join(WORK, 'v86.json');
  const { seabios: _, ...paths } = v86 as NonNullable<typeof v86>;
  const settings: V86GuestOptions = {
    ...paths,
    kernel: files.vmlinuz,
    initrd: initrdPath,
    commandLine: benchmarkCommandLine(plan),
    memoryBytes: MEMORY_MIB * 2 ** 20,
    out,
  };
  return nodeProgram([join(import.meta.dirname, 'v86-guest.js'), JSON.stringify(settings)], out);
}

const runners: Record<Platform, () => Promise<PlatformRun>> = {
  native64: async () => ({ guest: await runNatively(guestOf('native64'), { ...plan, repetitions: nativeRepetitions }) }),
  native32: async () => ({ guest: await runNatively(guestOf('native32'), { ...plan, repetitions: nativeRepetitions }) }),
  tcg64: () => tcg('tcg64'),
  tcg32: () => tcg('tcg32'),
  exitless64: () => exitless(64, 'bzimage', plan),
  'exitless64-pvh': () => exitless(64, 'pvh', { names: [], macro: false, repetitions: 1 }),
  exitless32: () => exitless(32, 'bzimage', plan),
  v86: runV86,
};

const date = new Date().toISOString().slice(0, 10);
const commit = await run('git', ['rev-parse', '--short', 'HEAD']).then(
  ({ stdout }) => ` ${stdout.trim()}`,
  () => '',
);
const versions: Record<string, string> = {
  exitless: `${VERSION}${commit}`,
  qemu: platforms.some((platform) => platform.startsWith('tcg')) ? await qemuVersion() : 'not run',
  v86: v86 ? `${V86_VERSION}, SeaBIOS ${v86.seabios}` : 'not run',
  ...Object.fromEntries(
    [...guests].map(
      ([
        bits,
        {
          files: { kernelPackage },
        },
      ]) => [`kernel ${bits}-bit`, `${kernelPackage.name} ${kernelPackage.version}`],
    ),
  ),
  busybox: [...guests.values()][0].files.busyboxPackage.version,
  gcc: (await run('gcc', ['-dumpfullversion'])).stdout.trim(),
  ...hostVersions(),
};
const results = new Map<Platform, PlatformRun[]>();
const failures: string[] = [];
const loads: number[] = [];
for (let round = 0; round < rounds; round++) {
  for (const platform of round % 2 === 0 ? platforms : platforms.toReversed()) {
    progress(`round ${round + 1} of ${rounds}: ${platform}`);
    loads.push(loadavg()[0]);
    try {
      results.set(platform, [...(results.get(platform) ?? []), await runners[platform]()]);
    } catch (error) {
      failures.push(`${platform}, round ${round + 1}: ${(error as Error).message.split('\n')[0]}`);
      console.error(error);
    }
    writeResults();
  }
}
console.log(report());
const wrong = platforms.flatMap((platform) =>
  workloads
    .filter(
      (workload) =>
        results.has(platform) && platform !== 'exitless64-pvh' && !hasRightChecksum(workload, runsOf(platform, workload.name)),
    )
    .map(({ name }) => `${name} on ${platform}`),
);
if (wrong.length) console.error(`wrong or missing: ${wrong.join(', ')}`);
if (wrong.length || failures.length) process.exitCode = 1;

// Reporting

function runsOf(platform: Platform, name: string): BenchmarkRun[] {
  return (results.get(platform) ?? []).flatMap(({ guest }) => guest.runs[name] ?? []);
}

type Measure = 'mainMilliseconds' | 'processMilliseconds';

/** Milliseconds of the best repetition; of native runs, their own. */
function best(platform: Platform, name: string, measure: Measure): number | undefined {
  const runs = runsOf(platform, name);
  if (!runs.length) return undefined;
  return platform.startsWith('native') ? nativeMilliseconds(runs) : bestRun(runs)[measure];
}

function bestBoot(platform: Platform): BenchmarkTimes | undefined {
  const boots = (results.get(platform) ?? []).flatMap(({ guest: { boot } }) => (boot ? [boot] : []));
  return boots.sort((a, b) => a.processMilliseconds - b.processMilliseconds)[0];
}

function groupMean(group: BenchmarkGroup | 'all', platform: Platform, measure: Measure): number | undefined {
  const native: Platform = bitsOf(platform) === 64 ? 'native64' : 'native32';
  // As the reference figures have it: all is all but the bulk copies.
  const members = BENCHMARK_WORKLOADS.filter((workload) =>
    group === 'all' ? workload.group !== 'bulk copy' : workload.group === group,
  );
  const ratios = members.map(({ name }) => {
    const [guest, host] = [best(platform, name, measure), best(native, name, measure)];
    return guest && host ? guest / host : Number.NaN;
  });
  const mean = geometricMean(ratios);
  return Number.isNaN(mean) ? undefined : mean;
}

/** How long one platform takes for what another takes 1, over the workloads that both have run, but for bulk copies. */
function against(platform: Platform, other: Platform, measure: Measure): number | undefined {
  const ratios = workloads
    .filter(({ group }) => group !== 'bulk copy')
    .flatMap(({ name }) => {
      const [a, b] = [best(platform, name, measure), best(other, name, measure)];
      return a && b ? a / b : [];
    });
  return ratios.length ? geometricMean(ratios) : undefined;
}

function row(cells: readonly (string | undefined)[]): string {
  return `| ${cells.map((cell) => cell ?? '—').join(' | ')} |`;
}
function ratio(value: number | undefined): string | undefined {
  return value === undefined ? undefined : value.toFixed(value < 10 ? 2 : 1);
}
function milliseconds(value: number | undefined): string | undefined {
  return value?.toFixed(0);
}
function quotient(a: number | undefined, b: number | undefined): string | undefined {
  return a && b ? ratio(a / b) : undefined;
}

function workloadTable(native: Platform, others: readonly Platform[]): string {
  const shown = others.filter((platform) => results.has(platform));
  const head = ['workload', native, ...shown.flatMap((platform) => [platform, 'main thread', '× native'])];
  const rows = workloads.map(({ name }) => {
    const host = best(native, name, 'processMilliseconds');
    return [
      name,
      milliseconds(host),
      ...shown.flatMap((platform) => [
        milliseconds(best(platform, name, 'processMilliseconds')),
        milliseconds(best(platform, name, 'mainMilliseconds')),
        quotient(best(platform, name, 'processMilliseconds'), host),
      ]),
    ];
  });
  return [row(head), row(head.map((_, i) => (i === 0 ? '---' : '--:'))), ...rows.map(row)].join('\n');
}

function report(): string {
  const targets: Record<BenchmarkGroup, string> = {
    'user integer': '≤ 4',
    kernel: '≤ 6',
    busybox: '≤ 8',
    'floating point': '≤ 10',
    'bulk copy': '≤ 2',
  };
  const compared = (['tcg64', 'exitless64', 'tcg32', 'v86', 'exitless32'] as const).filter((platform) => results.has(platform));
  const groupRows = [...BENCHMARK_GROUPS, 'all' as const].map((group) =>
    row([
      group === 'all' ? 'all but bulk copy' : group,
      ...compared.flatMap((platform) => [
        ratio(groupMean(group, platform, 'processMilliseconds')),
        ratio(groupMean(group, platform, 'mainMilliseconds')),
      ]),
      group === 'all' ? undefined : targets[group],
    ]),
  );
  const bootRows = platforms.flatMap((platform) => {
    const boot = bestBoot(platform);
    const peaks = (results.get(platform) ?? []).flatMap(({ peakBytes }) => peakBytes ?? []);
    const seconds = (value: number | undefined) => (value === undefined ? undefined : (value / 1000).toFixed(2));
    return boot
      ? [
          row(
            [
              platform,
              seconds(boot.processMilliseconds),
              seconds(boot.mainMilliseconds),
              boot.instructions && (boot.instructions / 1e6).toFixed(0),
              peaks.length ? (Math.max(...peaks) / 2 ** 20).toFixed(0) : undefined,
            ].map((cell) => cell || undefined),
          ),
        ]
      : [];
  });
  const slower = workloads.filter(
    ({ name, group }) =>
      group === 'user integer' &&
      (best('exitless64', name, 'processMilliseconds') ?? 0) >
        (best('tcg64', name, 'processMilliseconds') ?? Number.POSITIVE_INFINITY),
  );
  const wrongs = platforms.flatMap((platform) =>
    workloads
      .filter(({ name }) => runsOf(platform, name).length)
      .filter((workload) => !hasRightChecksum(workload, runsOf(platform, workload.name)))
      .map(({ name }) => `${name} on ${platform}`),
  );
  return `# Exitless beside its peers, ${date}

${Object.entries(versions)
  .map(([name, value]) => `${name}: ${value}`)
  .join('; ')}.

One run of \`npm run bench:peers\`, ${rounds} round${rounds > 1 ? 's' : ''} of ${plan.repetitions} repetition${plan.repetitions > 1 ? 's' : ''} each, the order reversed every other round. Same kernel, initramfs and
program on all: bzImage, ${MEMORY_MIB} MiB, one vCPU. CPU milliseconds of the whole process and of the thread that runs the guest, best
repetition; load of the host (1 minute) while it ran: ${Math.min(...loads).toFixed(1)} to ${Math.max(...loads).toFixed(1)}. tcg is QEMU with \`-accel tcg,thread=single\`.

## Groups: geometric means of times native

| group | ${compared.map((platform) => `${platform} | main thread`).join(' | ')} | target, Exitless |
|---|${compared.map(() => '--:|--:|').join('')}--:|
${groupRows.join('\n')}

Exitless against TCG, 64-bit: ${ratio(against('exitless64', 'tcg64', 'processMilliseconds')) ?? '—'} (main threads ${ratio(against('exitless64', 'tcg64', 'mainMilliseconds')) ?? '—'}). Exitless against v86,
32-bit: ${ratio(against('exitless32', 'v86', 'processMilliseconds')) ?? '—'} (main threads ${ratio(against('exitless32', 'v86', 'mainMilliseconds')) ?? '—'}; target ≤ 0.5). Both are geometric means over all but the bulk copies.
Single workloads of the user integer group that take longer than TCG: ${slower.map(({ name }) => name).join(', ') || 'none'}.

## Power-on to /init, and memory

| platform | CPU s | main thread | M instructions | peak RSS of the whole run, MiB |
|---|--:|--:|--:|--:|
${bootRows.join('\n')}

## 64-bit, CPU ms

${workloadTable('native64', ['tcg64', 'exitless64'])}

## 32-bit, CPU ms

${workloadTable('native32', ['tcg32', 'v86', 'exitless32'])}

Checksums: ${wrongs.length ? `WRONG: ${wrongs.join(', ')}` : 'all right'}.${failures.length ? ` Failures: ${failures.join('; ')}.` : ''}
`;
}

function writeResults(): void {
  mkdirSync(options.out, { recursive: true });
  const stem = join(options.out, `peers-${date}`);
  writeFileSync(`${stem}.md`, report());
  writeFileSync(
    `${stem}.json`,
    `${JSON.stringify({ date, versions, plan, rounds, loads, failures, results: Object.fromEntries(results) }, undefined, 1)}\n`,
  );
}
