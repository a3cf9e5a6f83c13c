/**
 * Two machines that should be the same run, stepped side by side: after every slice all that can be seen of their vCPUs is compared, now and then
 * all of RAM, at the end the console and the counters. A difference is narrowed down by running both again from power-on, the same up to the last slice
 * that was equal and in ever smaller slices from there.
 */

import type { Machine, RunResult } from '../../src/machine/machine.ts';
import { VCPU_WORDS, VcpuWords } from './vcpu-words.ts';

export interface LockstepOptions {
  /** Makes a machine at power-on, its input typed; the same one each time it is called. */
  left(): Machine;
  right(): Machine;
  /** Instructions of a slice, of all vCPUs together. */
  every: number;
  /** Slices from one comparison of RAM to the next. */
  memoryEvery: number;
  /** Guest time after which it is enough; to the end of the run unless given. */
  maxGuestSeconds?: number;
  onProgress?: (instructions: number, guestSeconds: number) => void;
}

export interface Difference {
  /** Instructions retired by all vCPUs when they were last equal, and when they were found not to be. */
  after: number;
  before: number;
  /** What differs: `vCPU 0 rax: 0x1 and 0x2`. */
  differences: string[];
  /** All of both machines' vCPUs, side by side as text. */
  left: string;
  right: string;
}

export interface LockstepResult {
  instructions: number;
  guestSeconds: number;
  slices: number;
  memoryComparisons: number;
  /** How it ended, where there was no difference. */
  end: string;
  difference: Difference | undefined;
}

const MOST_DIFFERENCES = 24;
const FINER = 64;

class Pair {
  readonly left: Machine;
  readonly right: Machine;
  private readonly words: [VcpuWords, VcpuWords];
  private readonly output: [string, string] = ['', ''];
  private readonly memory: [Buffer, Buffer];

  constructor(left: Machine, right: Machine) {
    this.left = left;
    this.right = right;
    this.words = [new VcpuWords(left), new VcpuWords(right)];
    [left, right].forEach((machine, i) => machine.serial.onOutput((bytes) => (this.output[i] += Buffer.from(bytes).toString('latin1'))));
    const ramOf = ({ memory }: Machine): Buffer => Buffer.from(memory.memory.buffer as unknown as ArrayBuffer, memory.ramBase, memory.ramBytes);
    this.memory = [ramOf(left), ramOf(right)];
  }

  /** Runs both for a slice; how the left one goes on. */
  step(instructions: number): { result: RunResult; differences: string[] } {
    const [left, right] = [this.left.run({ instructions }), this.right.run({ instructions })];
    const same = JSON.stringify(left) === JSON.stringify(right);
    return { result: left, differences: same ? this.differences() : [`the runs: ${JSON.stringify(left)} and ${JSON.stringify(right)}`, ...this.differences()] };
  }

  differences(): string[] {
    const found: string[] = [];
    for (const vcpu of this.left.engine.vcpus) {
      const [a, b] = [this.words[0].read(vcpu), this.words[1].read(this.right.engine.vcpus[vcpu.index])];
      a.forEach((value, i) => {
        if (value !== b[i] && found.length < MOST_DIFFERENCES) found.push(`vCPU ${vcpu.index} ${VCPU_WORDS[i]}: 0x${value.toString(16)} and 0x${b[i].toString(16)}`);
      });
    }
    if (this.output[0] !== this.output[1]) found.push(`console: ${JSON.stringify(this.output[0].slice(-200))} and ${JSON.stringify(this.output[1].slice(-200))}`);
    return found;
  }

  memoryDifferences(): string[] {
    const [a, b] = this.memory;
    if (a.equals(b)) return [];
    const found: string[] = [];
    for (let page = 0; page < a.length && found.length < MOST_DIFFERENCES; page += 4096) {
      if (a.subarray(page, page + 4096).equals(b.subarray(page, page + 4096))) continue;
      for (let i = page; i < page + 4096 && found.length < MOST_DIFFERENCES; i += 8) {
        const [x, y] = [a.readBigUInt64LE(i), b.readBigUInt64LE(i)];
        if (x !== y) found.push(`RAM at 0x${i.toString(16)}: 0x${x.toString(16)} and 0x${y.toString(16)}`);
      }
    }
    return found;
  }

  countersDifferences(): string[] {
    const [a, b] = [JSON.stringify(this.left.counters()), JSON.stringify(this.right.counters())];
    return a === b ? [] : [`counters: ${a} and ${b}`];
  }

  dispose(): void {
    this.left.dispose();
    this.right.dispose();
  }
}

/** Steps both to the end, or to the first difference, and narrows that down. */
export function runLockstep(options: LockstepOptions): LockstepResult {
  const { every, memoryEvery, maxGuestSeconds = Number.POSITIVE_INFINITY } = options;
  const pair = new Pair(options.left(), options.right());
  let slices = 0;
  let memoryComparisons = 0;
  let equalSlices = 0;
  let equalMemorySlices = 0;
  let end = '';
  try {
    for (;;) {
      const { result, differences } = pair.step(every);
      slices++;
      const hasEnded = result.kind === 'ended' || pair.left.nowNanoseconds >= maxGuestSeconds * 1e9;
      if (!differences.length && (slices % memoryEvery === 0 || hasEnded)) {
        memoryComparisons++;
        differences.push(...pair.memoryDifferences(), ...pair.countersDifferences());
        if (!differences.length) equalMemorySlices = slices;
      }
      if (differences.length) {
        // What differs in RAM may have done so since it was last compared.
        const inMemory = differences[0].startsWith('RAM');
        return outcome(narrow(options, inMemory ? equalMemorySlices : equalSlices, inMemory) ?? { after: 0, before: pair.left.instructions, differences, left: pair.left.stateReport(), right: pair.right.stateReport() });
      }
      equalSlices = slices;
      options.onProgress?.(pair.left.instructions, pair.left.nowNanoseconds / 1e9);
      if (hasEnded) {
        end = result.kind === 'ended' ? `${result.end}: ${result.report.split('\n')[0]}` : `after ${maxGuestSeconds} s of guest time`;
        return outcome(undefined);
      }
    }
  } finally {
    pair.dispose();
  }
  function outcome(difference: Difference | undefined): LockstepResult {
    return { instructions: pair.left.instructions, guestSeconds: pair.left.nowNanoseconds / 1e9, slices, memoryComparisons, end, difference };
  }
}

/**
 * Runs both again, alike for `slices` slices and from there in smaller ones, until a block differs from a block. Undefined where the difference does not
 * come back: then it depends on where slices end.
 */
function narrow(options: LockstepOptions, slices: number, inMemory: boolean): Difference | undefined {
  let found: Difference | undefined;
  const prefix: number[] = [slices];
  for (let step = Math.ceil(options.every / FINER); ; step = Math.ceil(step / FINER)) {
    const pair = new Pair(options.left(), options.right());
    try {
      let length = options.every;
      for (const count of prefix) {
        for (let i = 0; i < count; i++) pair.step(length);
        length = Math.ceil(length / FINER);
      }
      let equal = 0;
      for (let next: Difference | undefined; !next; ) {
        const after = pair.left.instructions;
        const { result, differences } = pair.step(step);
        if (inMemory && !differences.length) differences.push(...pair.memoryDifferences());
        if (differences.length) {
          next = { after, before: pair.left.instructions, differences, left: pair.left.stateReport(), right: pair.right.stateReport() };
          found = next;
        } else if (result.kind === 'ended' || equal > options.memoryEvery * FINER) return found;
        else equal++;
      }
      prefix.push(equal);
      if (step === 1) return found;
    } finally {
      pair.dispose();
    }
  }
}
