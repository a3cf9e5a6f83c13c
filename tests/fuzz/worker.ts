/** Fuzzes in a thread of its own, so that what hangs can be seen from outside and ended. */

import { parentPort, workerData } from 'node:worker_threads';
import { DeviceFuzzer } from './devices.ts';
import { ImageFuzzer } from './images.ts';
import type { Execution } from './stream-runner.ts';
import { kindOf, StreamFuzzer } from './streams.ts';
import type { ModeName } from './stream-world.ts';

/** A mode's instruction streams, accesses to devices, or kernel images. */
export type Target = ModeName | 'devices' | 'images';

export interface Job {
  target: Target;
  seed: number;
  from: number;
  to: number;
  execution: Execution;
  /** Every so many streams are compared; 0 for none. */
  compareEvery: number;
  /** The index at work, for who watches; and, once it is not 0, that it is enough. */
  progress: Int32Array;
}

export type Report =
  | { kind: 'finding'; index: number; text: string; stored: object | undefined }
  | { kind: 'again'; index: number; text: string }
  | { kind: 'done'; next: number; summary: Summary };

/** What came of all streams so far. */
export interface Summary {
  ends: Record<string, number>;
  instructions: number;
  exceptions: number;
  /** The slowest, in milliseconds. */
  slowest: number;
  /** The most memory that the process had, in bytes. */
  memory: number;
  /** Of the encodings that streams are made of, how many of those that were compared with single steps have executed. */
  encodings: { executed: number; all: number } | undefined;
}

/** Memory is looked at every so many streams; the process may have so much of it. */
const MEMORY_INTERVAL = 1024;
const MOST_BYTES = 2 ** 31;

const job = workerData as Job;
const report = (message: Report): void => parentPort?.postMessage(message);
const streams = job.target === 'devices' || job.target === 'images' ? undefined : new StreamFuzzer(job.target, job.seed, job.execution);
const fuzzer = streams ?? (job.target === 'devices' ? new DeviceFuzzer(job.seed) : new ImageFuzzer(job.seed));
const known = new Set<string>();
let memory = 0;
let next = job.from;
for (; next < job.to && Atomics.load(job.progress, 1) === 0; next++) {
  Atomics.store(job.progress, 0, next);
  const finding = fuzzer.run(next, job.compareEvery > 0 && next % job.compareEvery === 0);
  if (next % MEMORY_INTERVAL === 0) {
    memory = Math.max(memory, process.memoryUsage.rss());
    if (memory > MOST_BYTES) report({ kind: 'finding', index: next, text: `the process has ${memory} bytes`, stored: undefined });
  }
  if (!finding) continue;
  const kind = kindOf(finding.text);
  if (known.has(kind)) report({ kind: 'again', ...finding });
  else report({ kind: 'finding', ...finding, stored: streams?.minimise(next) });
  known.add(kind);
}
const { ends, instructions, exceptions, slowest } = fuzzer;
report({ kind: 'done', next, summary: { ends, instructions, exceptions, slowest, memory, encodings: streams?.encodings } });
