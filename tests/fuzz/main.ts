/**
 * `npm run fuzz -- --mode long --count 10000000 --seed 1`: random instruction streams in one mode, accesses to
 * `devices`, kernel `images`, or `all` of it; of these last two, by the time they take, fewer than `--count`. Prints what it finds, writes
 * each kind of finding, made small, to tests/fuzz/corpus with `--save`, and exits with 1 where there was any.
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { kindOf } from './streams.ts';
import { MODES } from './stream-world.ts';
import type { Job, Report, Summary, Target } from './worker.ts';

const CORPUS = 'tests/fuzz/corpus';
/** A stream that takes so much of the host's CPU has hung. */
const HANG_MILLISECONDS = 20_000;
/** How many streams take as long as one of these: of what makes thousands of accesses or unpacks a kernel there are so many fewer. */
const STREAMS_EACH: Partial<Record<Target, number>> = { devices: 500, images: 100 };

const { values } = parseArgs({
  options: {
    mode: { type: 'string', default: 'all' },
    count: { type: 'string', default: '100000' },
    seed: { type: 'string', default: '1' },
    from: { type: 'string', default: '0' },
    execution: { type: 'string', default: 'steps' },
    'compare-every': { type: 'string', default: '50' },
    minutes: { type: 'string', default: 'Infinity' },
    save: { type: 'boolean', default: false },
  },
});

function fail(message: string): never {
  console.error(`fuzz: ${message}`);
  process.exit(2);
}

const number = (name: 'count' | 'seed' | 'from' | 'compare-every' | 'minutes'): number => {
  const value = Number(values[name]);
  return Number.isNaN(value) || value < 0 ? fail(`--${name} takes a number, not "${values[name]}"`) : value;
};
const TARGETS: readonly Target[] = [...MODES, 'devices', 'images'];
const targets = values.mode === 'all' ? TARGETS : TARGETS.filter((target) => target === values.mode);
if (!targets.length) fail(`--mode is all, ${TARGETS.join(', ')}; not "${values.mode}"`);
if (values.execution !== 'steps' && values.execution !== 'jit') fail(`--execution is steps or jit, not "${values.execution}"`);

function cpuMilliseconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Instructions and exceptions, for each stream: those that die at once would be fast, and worth nothing. */
function describe({ ends, instructions, exceptions, slowest, memory, encodings }: Summary, count: number): string {
  const parts = [
    Object.entries(ends).map(([end, times]) => `${times} ${end}`).join(', '),
    `${(instructions / count).toFixed(1)} instructions and ${(exceptions / count).toFixed(1)} exceptions each`,
    `slowest ${slowest.toFixed(0)} ms`,
    `${Math.round(memory / 2 ** 20)} MiB`,
  ];
  if (encodings) parts.push(`${encodings.executed} of ${encodings.all} encodings executed`);
  return parts.join('; ');
}

/** Runs a target in a worker, again and again where one hangs. Gives how many findings there were. */
async function fuzz(target: Target): Promise<number> {
  const seed = number('seed');
  const from = number('from');
  const to = from + Math.ceil(number('count') / (STREAMS_EACH[target] ?? 1));
  const deadline = performance.now() + number('minutes') * 60_000;
  const counts = new Map<string, number>();
  const progress = new Int32Array(new SharedArrayBuffer(8));
  const started = performance.now();
  const note = (index: number, text: string, stored?: object): void => {
    const kind = kindOf(text);
    const count = (counts.get(kind) ?? 0) + 1;
    counts.set(kind, count);
    if (count > 1) return;
    console.log(`${target}, seed ${seed}, stream ${index}: ${text}`);
    if (!values.save || !stored) return;
    mkdirSync(CORPUS, { recursive: true });
    writeFileSync(`${CORPUS}/${target}-${seed}-${index}.json`, `${JSON.stringify(stored, undefined, 1)}\n`);
  };
  let next = from;
  let summary = '';
  while (next < to) {
    const job: Job = { target, seed, from: next, to, execution: values.execution as Job['execution'], compareEvery: number('compare-every'), progress };
    progress[0] = next;
    const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData: job });
    next = await new Promise<number>((resolve, reject) => {
      let seen = -1;
      let since = cpuMilliseconds();
      const watch = setInterval(() => {
        const index = Atomics.load(progress, 0);
        if (index !== seen) [seen, since] = [index, cpuMilliseconds()];
        const hung = cpuMilliseconds() - since > HANG_MILLISECONDS;
        if (hung) note(index, 'does not end');
        if (performance.now() >= deadline) Atomics.store(progress, 1, 1);
        if (!hung) return;
        clearInterval(watch);
        void worker.terminate();
        resolve(index + 1);
      }, 500);
      worker.on('message', (report: Report) => {
        if (report.kind !== 'done') return note(report.index, report.text, report.kind === 'finding' ? report.stored : undefined);
        clearInterval(watch);
        summary = describe(report.summary, report.next - job.from);
        resolve(report.next);
      });
      worker.on('error', reject);
    });
    if (progress[1]) break;
  }
  const count = next - from;
  const seconds = (performance.now() - started) / 1000;
  const what = target === 'devices' ? 'machines' : target === 'images' ? 'images' : 'streams';
  console.log(`${target}: ${count} ${what}, seed ${seed}, from ${from}, ${seconds.toFixed(0)} s, ${(count / seconds).toFixed(0)}/s; ${summary}`);
  for (const [kind, times] of counts) console.log(`  ${times} × ${kind}`);
  return counts.size;
}

let findings = 0;
for (const target of targets) findings += await fuzz(target);
console.log(findings === 0 ? 'nothing found' : `${findings} kinds of findings`);
process.exitCode = findings === 0 ? 0 : 1;
