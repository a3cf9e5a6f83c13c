/** Builds capture.c and operations.asm, and runs cases on this machine's processor with them. */

import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Case, IMAGE_BYTES, MEMORY_BYTES, type Outcome, POINTERS_AT, REGISTERS_AT, STATUS_FLAGS } from './case.ts';

/** The image is padded to this in records. */
const IMAGE_ROOM = 120;
const RECORD_BYTES = 8 + IMAGE_ROOM + MEMORY_BYTES;
const BATCH = 20_000;

function run(command: string, args: string[], input?: Uint8Array): Buffer {
  const result = spawnSync(command, args, { input, maxBuffer: 2 ** 30 });
  if (result.error) throw result.error;
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}:\n${result.stderr}`);
  return result.stdout;
}

function samePointers(a: Outcome, b: Outcome): boolean {
  const pointers = ({ image }: Outcome) => image.subarray(POINTERS_AT, REGISTERS_AT);
  return Buffer.compare(pointers(a), pointers(b)) === 0;
}

export class NativeX87 {
  readonly #program: string;
  /** Operations the harness knows, and aliases of them as `alias:operation:encoding`. */
  readonly names: string[];

  constructor(source: string, directory: string) {
    mkdirSync(directory, { recursive: true });
    const object = join(directory, 'operations.o');
    this.#program = join(directory, 'capture');
    run('nasm', ['-f', 'elf64', join(source, 'operations.asm'), '-o', object]);
    run('gcc', ['-O2', '-Wall', '-Wextra', '-no-pie', join(source, 'capture.c'), object, '-o', this.#program]);
    this.names = run(this.#program, ['--names']).toString().trim().split('\n');
  }

  /**
   * Runs cases, each by the name in the harness that stands for its operation. When the kernel switches tasks, error
   * pointers can get lost in whole or in part, so that what they are is decided by two of three runs.
   */
  run(cases: Case[], nameOf: (c: Case) => string = (c) => c.operation): Outcome[] {
    const [first, second] = [this.#runOnce(cases, nameOf), this.#runOnce(cases, nameOf)];
    const disputed = cases.flatMap((_, n) => (samePointers(first[n], second[n]) ? [] : [n]));
    const third = this.#runOnce(
      disputed.map((n) => cases[n]),
      nameOf,
    );
    for (const [at, n] of disputed.entries()) if (samePointers(second[n], third[at])) first[n] = second[n];
    return first;
  }

  #runOnce(cases: Case[], nameOf: (c: Case) => string): Outcome[] {
    const outcomes: Outcome[] = [];
    for (let start = 0; start < cases.length; start += BATCH) {
      const batch = cases.slice(start, start + BATCH);
      const input = new Uint8Array(batch.length * RECORD_BYTES);
      const view = new DataView(input.buffer);
      for (const [n, c] of batch.entries()) {
        const name = this.names.indexOf(nameOf(c));
        if (name < 0) throw new Error(`the harness has no ${nameOf(c)}`);
        const at = n * RECORD_BYTES;
        view.setUint32(at, name * 8 + c.i, true);
        view.setUint32(at + 4, c.rflags | 0x202, true);
        input.set(c.image, at + 8);
        input.set(c.memory, at + 8 + IMAGE_ROOM);
      }
      const output = run(this.#program, [], input);
      for (let n = 0; n < batch.length; n++) {
        const record = new Uint8Array(output.subarray(n * RECORD_BYTES, (n + 1) * RECORD_BYTES));
        const fields = new DataView(record.buffer);
        outcomes.push({
          pending: fields.getUint32(0, true) !== 0,
          rflags: fields.getUint32(4, true) & STATUS_FLAGS,
          image: record.slice(8, 8 + IMAGE_BYTES),
          memory: record.slice(8 + IMAGE_ROOM),
        });
      }
    }
    return outcomes;
  }
}
