import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { UserError } from '../../machine/user-error.ts';
import { OutputFile } from './output-file.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'exitless-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('an output file', () => {
  it('has everything in it once it is closed, in order', () => {
    const file = new OutputFile(join(folder, 'trace'), 'trace');
    const lines = Array.from({ length: 20_000 }, (_, index) => `line ${index} ü\n`);
    for (const line of lines) file.write(line);
    file.close();
    expect(readFileSync(file.path, 'utf8')).toBe(lines.join(''));
  });

  it('replaces what was there', () => {
    const path = join(folder, 'old');
    writeFileSync(path, 'a longer text than the new one');
    const file = new OutputFile(path, 'trace');
    file.write('new');
    file.close();
    expect(readFileSync(path, 'utf8')).toBe('new');
  });

  it('keeps what was there until there is something new', () => {
    const path = join(folder, 'old');
    writeFileSync(path, 'hours of work');
    const file = new OutputFile(path, 'trace');
    file.write('x');
    expect(readFileSync(path, 'utf8')).toBe('hours of work');
    file.close();
    expect(readFileSync(path, 'utf8')).toBe('x');
  });

  it('is refused before any work is done where it cannot be written', () => {
    expect(() => new OutputFile(join(folder, 'none', 'trace'), 'trace')).toThrow(UserError);
    expect(() => new OutputFile(folder, 'trace')).toThrow(/^cannot write the trace .*: it is a directory$/);
  });

  it('says so when the disk is full', () => {
    const file = new OutputFile('/dev/full', 'trace');
    file.write('x');
    expect(() => file.close()).toThrow(/cannot write \/dev\/full: the disk is full/);
  });
});
