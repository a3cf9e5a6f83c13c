/** Fuzzing by instruction streams: runs them, compares executions with each other, and makes small what it finds. */

import { type StoredCase, StreamSource, type StreamCase, restore, store } from './stream-case.ts';
import { type Execution, StreamRunner } from './stream-runner.ts';
import type { ModeName } from './stream-world.ts';

/** A stream may take so long at most, in milliseconds of the host's CPU: a thousand times what they take. */
const MOST_MILLISECONDS = 250;
const NOP = 0x90;

export interface StreamFinding {
  index: number;
  /** One line. Of the same kind of finding, the same but for numbers. */
  text: string;
}

/** Runs a mode's streams, every so many on a second engine too. */
export class StreamFuzzer {
  readonly source: StreamSource;
  private runner: StreamRunner;
  private other: StreamRunner | undefined;
  private readonly mode: ModeName;
  private readonly execution: Execution;
  readonly ends: Record<string, number> = {};
  instructions = 0;
  exceptions = 0;
  slowest = 0;

  constructor(mode: ModeName, seed: number, execution: Execution) {
    this.mode = mode;
    this.execution = execution;
    this.runner = new StreamRunner(mode);
    this.source = new StreamSource(mode, this.runner.variants, seed);
  }

  /** Of the encodings there are in the mode, how many streams that ran as single steps have executed. */
  get encodings(): { executed: number; all: number } | undefined {
    if (this.execution !== 'steps') return undefined;
    const { forms } = this.source;
    return { executed: forms.filter(({ id }) => this.other?.executed[id]).length, all: forms.length };
  }

  /** Runs one stream; with `compare`, as the other execution too. */
  run(index: number, compare: boolean): StreamFinding | undefined {
    const stream = this.source.draw(index);
    const text = this.outcome(stream, compare);
    return text === undefined ? undefined : { index, text };
  }

  /** What is wrong with a stream, in one line. */
  outcome(stream: StreamCase, compare: boolean): string | undefined {
    const start = performance.now();
    try {
      const wrong = this.runner.run(stream);
      const taken = performance.now() - start;
      this.ends[this.runner.end] = (this.ends[this.runner.end] ?? 0) + 1;
      this.instructions += this.runner.retired;
      this.exceptions += this.runner.exceptions;
      if (wrong) return wrong;
      // A collection of garbage is not the stream's, nor a busy host: it has to be slow again.
      if (taken > MOST_MILLISECONDS && this.timed(stream) > MOST_MILLISECONDS && this.timed(stream) > MOST_MILLISECONDS) return `takes ${Math.round(taken)} ms`;
      this.slowest = Math.max(this.slowest, taken);
      if (!compare || (this.runner.end !== 'halted' && this.runner.end !== 'shutdown') || this.mayDiffer(stream)) return undefined;
      this.other ??= new StreamRunner(this.mode, this.execution);
      const different = this.compare(stream, this.other);
      if (different === undefined || !this.runner.pageTablesChanged(stream)) return different;
      // Where page tables change behind the TLB's back it may matter what is in it, and that depends on the code that earlier streams left: once more, without it.
      for (const runner of [this.runner, this.other]) runner.engine.cache.flush();
      return this.runner.run(stream) ?? this.compare(stream, this.other);
    } catch (error) {
      // Whatever it left behind is none of the next one's.
      this.runner = new StreamRunner(this.mode);
      this.other = undefined;
      return hostError(error);
    }
  }

  /** Runs a stream the other way and says in one line what is wrong, or different from how it ran first. */
  private compare(stream: StreamCase, other: StreamRunner): string | undefined {
    const wrong = other.run(stream, 4 * this.runner.retired + 1000);
    if (wrong !== undefined) return wrong;
    // Steps count each iteration of a repeated instruction.
    if (other.end === 'budget' && this.execution === 'steps') return undefined;
    return this.runner.difference(other, this.execution !== 'steps' || !hasRepetition(stream));
  }

  /**
   * What steps see sooner than blocks, and a processor may see when it likes: changed page tables behind the TLB's back, and a repeated
   * instruction that overwrites itself. Time goes by for each iteration of one, too, and it looks at a page before the device it copies from.
   */
  private mayDiffer(stream: StreamCase): boolean {
    return this.execution === 'steps' && (this.runner.pageTablesChanged(stream) || ((this.runner.codeChanged || readsTime(stream)) && hasRepetition(stream)));
  }

  private timed(stream: StreamCase): number {
    const start = process.cpuUsage();
    this.runner.run(stream);
    const { user, system } = process.cpuUsage(start);
    return (user + system) / 1000;
  }

  /** The same finding with as little code as it takes: instructions become NOPs, what is drawn becomes 0. */
  minimise(index: number): StoredCase {
    let best = store(this.source.draw(index), '');
    const found = this.outcome(restore(best), true);
    if (found === undefined) return { ...best, found: 'not found again' };
    const kind = kindOf(found);
    const attempt = (change: (stored: StoredCase) => void): void => {
      const changed = structuredClone(best);
      change(changed);
      const again = this.outcome(restore(changed), true);
      if (again !== undefined && kindOf(again) === kind) best = changed;
    };
    attempt((c) => { c.interrupt = -1; });
    attempt((c) => { c.flags = 0; });
    attempt((c) => { c.vectors = 0; });
    for (let i = best.patches.length - 1; i >= 0; i--) attempt((c) => { c.patches.splice(i, 1); });
    for (let i = 0; i < 16; i++) attempt((c) => { c.registers[i] = '0'.repeat(16); });
    for (let bytes = 64; bytes >= 1; bytes >>= 1) {
      for (let at = best.code.length / 2 - bytes; at >= 0; at -= bytes) {
        const nops = NOP.toString(16).repeat(bytes);
        if (best.code.slice(2 * at, 2 * (at + bytes)) !== nops) attempt((c) => { c.code = c.code.slice(0, 2 * at) + nops + c.code.slice(2 * (at + bytes)); });
      }
    }
    return { ...best, found };
  }
}

const STRINGS = new Set([0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0x6c, 0x6d, 0x6e, 0x6f]);

/** REP or REPNE in front of a string instruction, give or take other prefixes. */
function hasRepetition({ code, codeLength }: StreamCase): boolean {
  for (let i = 0; i < codeLength; i++) {
    if (code[i] !== 0xf2 && code[i] !== 0xf3) continue;
    for (let j = i + 1; j < i + 15; j++) if (STRINGS.has(code[j])) return true;
  }
  return false;
}

/** RDTSC or RDTSCP. */
function readsTime({ code, codeLength }: StreamCase): boolean {
  for (let i = 0; i < codeLength - 2; i++) if (code[i] === 0x0f && (code[i + 1] === 0x31 || (code[i + 1] === 0x01 && code[i + 2] === 0xf9))) return true;
  return false;
}

/** What the host threw, and where. */
export function hostError(error: unknown): string {
  const lines = String((error as Error)?.stack ?? error).split('\n');
  return `${lines[0]} ${(lines[1] ?? '').trim().replace(/\(?file:.*\//, '(').replace(/wasm:\S*/, 'wasm')}`;
}

/** A finding without what is its own. */
export const kindOf = (text: string): string => text.replace(/[0-9a-f]{8,}|\d+/g, '#');
