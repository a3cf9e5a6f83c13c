/** Guests made of Debian's packages, as users make and boot them: by `exitless initramfs` and `exitless boot`. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { COMPLAINTS, TIMESTAMP } from './transcript.ts';

const MAIN = join(import.meta.dirname, '..', '..', 'dist', 'cli', 'main.js');
/** Scripts that guests find at /tests. */
export const PROGRAMS = join(import.meta.dirname, 'programs');

export interface GuestRun {
  status: number;
  /** Lines, without what the kernel prints. */
  lines: string[];
}

interface Finished {
  status: number;
  stdout: string;
  stderr: string;
}

function exitless(args: readonly string[]): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const options = { maxBuffer: 2 ** 28, encoding: 'latin1' } as const;
    const child = execFile(process.execPath, [MAIN, ...args], options, (error, stdout, stderr) => {
      if (error && typeof error.code !== 'number') reject(error);
      else resolve({ status: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
    });
    child.stdin?.end();
  });
}

/** An initramfs with `packages` and the folder programs/ at /tests. */
export class PackageGuest {
  private readonly folder = mkdtempSync(join(tmpdir(), 'exitless-guest-'));
  private readonly initrd = join(this.folder, 'initrd.cpio');

  /** `files` are more of the host's, as in `--file`. False where packages cannot be had: tests are skipped then. */
  async build(packages: readonly string[], files: readonly string[] = []): Promise<boolean> {
    const args = [
      ...packages.flatMap((name) => ['--package', name]),
      ...[`${PROGRAMS}:/tests`, ...files].flatMap((file) => ['--file', file]),
    ];
    const { status, stderr } = await exitless(['initramfs', ...args, '--output', this.initrd]);
    if (status === 2 && /cannot fetch|there is no apt/.test(stderr)) {
      console.warn(`skipped: ${stderr.trim()}`);
      return false;
    }
    expect(status, stderr).toBe(0);
    return true;
  }

  /** Runs `command` in the guest; `options` are of `exitless boot`. What a kernel complains of is a failure. */
  async run(command: string, options: readonly string[]): Promise<GuestRun> {
    const append = `console=ttyS0 quiet -- ${command}`;
    const { status, stdout, stderr } = await exitless(['boot', '--initrd', this.initrd, '--append', append, ...options]);
    const lines = stdout.replace(/\r/g, '').split('\n');
    expect(lines.filter((line) => COMPLAINTS.test(line)), stdout.slice(-4000) + stderr).toEqual([]);
    return { status, lines: lines.filter((line) => !TIMESTAMP.test(line)) };
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
