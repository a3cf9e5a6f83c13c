/**
 * A file the user named for results, or standard output. It is opened before the work that it is for, so that a wrong name costs
 * nothing; what was in it goes when there is something to take its place.
 */

import { closeSync, constants, ftruncateSync, openSync, writeSync } from 'node:fs';
import { UserError } from '../../machine/user-error.ts';
import { fileErrorReason } from './files.ts';

const BUFFER_CHARACTERS = 1 << 16;

const STANDARD_OUTPUT = 1;

export class OutputFile {
  readonly path: string;
  /** `-` was asked for. */
  readonly isStandardOutput: boolean;
  /** Who read the other end of a pipe went away: nothing more is written. */
  isBroken = false;
  private readonly descriptor: number;
  private buffer = '';
  private hasOldContent: boolean;

  /** `what` is its part, as in "JSON file"; the path `-` is standard output. Throws a UserError where it cannot be written. */
  constructor(path: string, what: string) {
    this.path = path;
    this.isStandardOutput = path === '-';
    this.hasOldContent = !this.isStandardOutput;
    try {
      this.descriptor = this.isStandardOutput ? STANDARD_OUTPUT : openSync(path, constants.O_WRONLY | constants.O_CREAT);
    } catch (error) {
      throw new UserError(`cannot write the ${what} ${path}: ${writeErrorReason(error)}`, { cause: error });
    }
  }

  /** Bytes, behind all text that was written before. */
  writeBytes(bytes: Uint8Array): void {
    this.flush();
    this.put(bytes);
  }

  /** Text is gathered; `flush` and `close` write the rest. */
  write(text: string): void {
    this.buffer += text;
    if (this.buffer.length >= BUFFER_CHARACTERS) this.flush();
  }

  close(): void {
    this.flush();
    if (!this.isStandardOutput) closeSync(this.descriptor);
  }

  flush(): void {
    const bytes = Buffer.from(this.buffer);
    this.buffer = '';
    this.put(bytes);
  }

  private put(bytes: Uint8Array): void {
    if (this.isBroken) return;
    try {
      if (this.hasOldContent) truncate(this.descriptor);
      this.hasOldContent = false;
      for (let offset = 0; offset < bytes.length; ) offset += writeSync(this.descriptor, bytes, offset);
    } catch (error) {
      this.isBroken = (error as NodeJS.ErrnoException).code === 'EPIPE';
      if (this.isBroken) return;
      throw new UserError(`cannot write ${this.path}: ${writeErrorReason(error)}`, { cause: error });
    }
  }
}

/** Devices and pipes have no length, and say so by EINVAL. */
function truncate(descriptor: number): void {
  try {
    ftruncateSync(descriptor);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
  }
}

const WRITE_REASONS: Record<string, string> = {
  ENOENT: 'its folder does not exist',
  ENOSPC: 'the disk is full',
  EROFS: 'the file system is read-only',
};

function writeErrorReason(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  return (code && WRITE_REASONS[code]) ?? fileErrorReason(error);
}
