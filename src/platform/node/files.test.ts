import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../../machine/user-error.ts';
import { readInput } from './files.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'exitless-files-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function messageOf(path: string): string {
  try {
    readInput(path, 'kernel');
  } catch (error) {
    expect(error).toBeInstanceOf(UserError);
    return (error as Error).message;
  }
  throw new Error('it was read');
}

describe('readInput', () => {
  it('returns the bytes of a file', () => {
    const path = join(folder, 'kernel');
    writeFileSync(path, Uint8Array.of(1, 2, 3));
    expect([...readInput(path, 'kernel')]).toEqual([1, 2, 3]);
  });

  it('says in one line what is wrong, which file and what it was for', () => {
    const at = (name: string): string => join(folder, name);
    writeFileSync(at('empty'), '');
    symlinkSync('loop', at('loop'));
    expect(messageOf(at('missing'))).toBe(`cannot read the kernel ${at('missing')}: there is no such file`);
    expect(messageOf(folder)).toBe(`cannot read the kernel ${folder}: it is a directory`);
    expect(messageOf(at('empty'))).toBe(`cannot read the kernel ${at('empty')}: it is empty`);
    expect(messageOf(at('empty/x'))).toContain('a part of its path is not a directory');
    expect(messageOf(at('loop'))).toContain('symbolic links go in circles');
    expect(messageOf('/dev/zero')).toContain('it is a device');
    expect(messageOf(at('x'.repeat(300)))).toContain('name is too long');
  });

  it.skipIf(process.getuid?.() === 0)('says so where permission is denied', () => {
    const path = join(folder, 'secret');
    writeFileSync(path, 'x');
    chmodSync(path, 0);
    expect(messageOf(path)).toContain('permission denied');
  });
});
