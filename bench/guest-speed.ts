/**
 * How fast guests run: time and instructions from power-on to /init, then the reference workloads (bench/workloads), whose
 * checksums have to be those of the same program run here without a virtual machine. Needs gcc, and apt for Debian's kernel.
 *
 *     npm run bench                      sieve and qsort
 *     npm run bench -- --set all         every workload
 *     npm run bench -- --set sieve,fib --macro --repeat 3
 *     npm run bench -- --jit off           the interpreter alone
 *
 * Figures are of CPU time (the whole process, V8's compiler threads included), as hosts are busy; the JSON has the wall clock's, too.
 * Writes bench/results/guest-speed-DATE.{json,md}, and interpreter-speed-… with --jit off.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type BootMethod, buildInitramfs, formatCount, LineReader, Machine, VERSION } from 'exitless';
import { debianGuestFiles, readInput } from 'exitless/node';

const { values: options } = parseArgs({
  options: {
    set: { type: 'string', default: 'sieve,qsort' },
    macro: { type: 'boolean', default: false },
    repeat: { type: 'string', default: '1' },
    boot: { type: 'string', default: 'pvh' },
    jit: { type: 'string', default: 'on' },
    out: { type: 'string', default: 'bench/results' },
  },
});

const WORKLOADS = join('bench', 'workloads');
const BUILD = join('.cache', 'bench');
const MIB = 2 ** 20;
const SLICE_NANOSECONDS = 50_000_000;
const ALL = 'sieve sha256 chase_s chase_l memcpy loopcpy repmovs qsort qsortcb interp fib int64 fpdbl fpx87'.split(' ');
const ALL_KERNEL = 'getppid pipe fork forkexec pgfault'.split(' ');

const names = options.set === 'all' ? [...ALL, ...ALL_KERNEL] : options.set === 'none' ? [] : options.set.split(',');
const repeat = Number(options.repeat);

const cpuSeconds = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};
const wallSeconds = (): number => performance.now() / 1000;

interface Sample {
  wallSeconds: number;
  cpuSeconds: number;
  instructions: number;
}

interface WorkloadResult {
  name: string;
  samples: Sample[];
  checksums: string[];
  native: { milliseconds: number; checksum: string } | undefined;
}

/** The busybox set does not time itself: no `cpu`. */
const END = /@@E (\S+) ms=[\d.]+(?: cpu=([\d.]+))? chk=([0-9a-f]+)/;

// Build, and run natively

mkdirSync(BUILD, { recursive: true });
const program = join(BUILD, 'bench64');
execFileSync('gcc', ['-m64', '-static', '-O2', '-o', program, join(WORKLOADS, 'bench.c')], { stdio: 'inherit' });
const files = await debianGuestFiles({ onProgress: (line) => console.error(line) });
chmodSync(files.busybox, 0o755);

const native = new Map<string, { milliseconds: number; checksum: string }>();
function recordNative(output: string): void {
  for (const line of output.split('\n')) {
    const match = END.exec(line);
    if (!match) continue;
    const milliseconds = Number(match[2] ?? 0);
    const best = native.get(match[1]);
    if (!best || milliseconds < best.milliseconds) native.set(match[1], { milliseconds, checksum: match[3] });
  }
}
console.error('natively');
if (names.length) recordNative(execFileSync(program, ['3', ...names], { encoding: 'utf8' }));
if (options.macro) {
  recordNative(execFileSync('sh', [join(WORKLOADS, 'macro.sh'), files.busybox, '1'], { encoding: 'utf8' }));
}

// In the guest

const text = (name: string): string => readFileSync(join(WORKLOADS, name), 'utf8');
const arguments_ = [`b.reps=${repeat}`, `b.set=${names.join(',') || 'none'}`, `b.macro=${options.macro ? 1 : 0}`];
const now = (): Sample => ({ wallSeconds: wallSeconds(), cpuSeconds: cpuSeconds(), instructions: machine.instructions });
const since = (start: Sample): Sample => {
  const end = now();
  return {
    wallSeconds: end.wallSeconds - start.wallSeconds,
    cpuSeconds: end.cpuSeconds - start.cpuSeconds,
    instructions: end.instructions - start.instructions,
  };
};

const constructed = { wallSeconds: wallSeconds(), cpuSeconds: cpuSeconds(), instructions: 0 };
const machine = new Machine({
  memoryBytes: 512 * MIB,
  vcpus: 1,
  kernel: readInput(files.vmlinuz, 'kernel'),
  initrd: buildInitramfs({
    init: text('init'),
    busybox: readInput(files.busybox, 'busybox'),
    files: {
      '/bin/bench': { data: readFileSync(program), mode: 0o755 },
      '/bin/macro.sh': { data: text('macro.sh'), mode: 0o755 },
    },
  }),
  append: `console=ttyS0 quiet ${arguments_.join(' ')}`,
  boot: options.boot as BootMethod,
  jit: options.jit === 'on',
});

let boot: Sample | undefined;
let begun: Sample | undefined;
const results = new Map<string, WorkloadResult>();
const lines = new LineReader((line) => {
  if (line.includes('@@INIT')) {
    boot = since(constructed);
    console.error(`/init after ${boot.wallSeconds.toFixed(2)} s, ${formatCount(boot.instructions)} instructions`);
  } else if (line.includes('@@B')) {
    begun = now();
  } else if (begun) {
    const match = END.exec(line);
    if (!match) return;
    const [, name, , checksum] = match;
    const result = results.get(name) ?? { name, samples: [], checksums: [], native: native.get(name) };
    results.set(name, result);
    const sample = since(begun);
    result.samples.push(sample);
    result.checksums.push(checksum);
    console.error(`${name}: ${mips(sample).toFixed(1)} MIPS`);
  }
});
machine.serial.onOutput((bytes) => lines.push(bytes));
let run = machine.run({ guestNanoseconds: SLICE_NANOSECONDS });
while (run.kind !== 'ended') {
  await new Promise((resolve) => setImmediate(resolve));
  run = machine.run({ guestNanoseconds: SLICE_NANOSECONDS });
}
if (run.end !== 'power-off' || !boot) throw new Error(`the guest did not get to its end: ${run.end}: ${run.report}`);

// Report

function mips({ instructions, cpuSeconds }: Sample): number {
  return instructions / cpuSeconds / 1e6;
}
/** The repetition that took least: the others had to share the machine. */
const best = ({ samples }: WorkloadResult): Sample => samples.reduce((a, b) => (b.cpuSeconds < a.cpuSeconds ? b : a));
const hasRightChecksum = ({ checksums, native: reference }: WorkloadResult): boolean =>
  reference !== undefined && checksums.every((checksum) => checksum === reference.checksum);

const date = new Date().toISOString().slice(0, 10);
const versions = {
  exitless: VERSION,
  node: process.version,
  v8: process.versions.v8,
  kernel: `${files.kernelPackage.name} ${files.kernelPackage.version}`,
  busybox: files.busyboxPackage.version,
  gcc: execFileSync('gcc', ['-dumpfullversion'], { encoding: 'utf8' }).trim(),
  processor: cpus()[0]?.model.trim(),
  processors: cpus().length,
  host: `Linux ${release()}`,
};
const table = [...results.values()].map((result) => {
  const sample = best(result);
  const nativeMilliseconds = result.native?.milliseconds || undefined;
  const slowdown = nativeMilliseconds ? ((sample.cpuSeconds * 1000) / nativeMilliseconds).toFixed(1) : '—';
  const cells = [
    result.name,
    mips(sample).toFixed(1),
    formatCount(sample.instructions),
    (sample.cpuSeconds * 1000).toFixed(0),
    nativeMilliseconds?.toFixed(0) ?? '—',
    slowdown,
    hasRightChecksum(result) ? 'right' : `WRONG: ${result.checksums.join(' ')} instead of ${result.native?.checksum}`,
  ];
  return `| ${cells.join(' | ')} |`;
});
const report = `# Speed of guests, ${options.jit === 'on' ? 'hot code compiled' : 'interpreted'}, ${date}

${Object.entries(versions)
  .map(([name, value]) => `${name} ${value}`)
  .join(', ')}.

Power-on to /init (${options.boot}, 1 vCPU, 512 MiB): ${boot.cpuSeconds.toFixed(2)} s of CPU time (${boot.wallSeconds.toFixed(2)} s on the clock),
${formatCount(boot.instructions)} instructions, ${mips(boot).toFixed(1)} MIPS.

| workload | MIPS | instructions | CPU ms | native | times native | checksum |
|---|--:|--:|--:|--:|--:|---|
${table.join('\n')}
`;
mkdirSync(options.out, { recursive: true });
const stem = join(options.out, `${options.jit === 'on' ? 'guest' : 'interpreter'}-speed-${date}`);
writeFileSync(`${stem}.md`, report);
const data = { date, versions, arguments: arguments_, boot, results: [...results.values()] };
writeFileSync(`${stem}.json`, `${JSON.stringify(data, undefined, 2)}\n`);
console.log(report);
const wrong = [...results.values()].filter((result) => !hasRightChecksum(result));
const missing = names.filter((name) => !results.has(name));
if (wrong.length || missing.length) {
  throw new Error(`wrong: ${wrong.map(({ name }) => name).join(', ') || 'none'}; missing: ${missing.join(', ') || 'none'}`);
}
