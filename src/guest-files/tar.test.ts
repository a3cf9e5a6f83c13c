import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, linkSync, writeFileSync, chmodSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readTar } from './tar.ts';

const LONG = `${'d'.repeat(90)}/${'e'.repeat(90)}/${'f'.repeat(90)}`;
const tarMissing = spawnSync('tar', ['--version']).error !== undefined;

describe.skipIf(tarMissing)('a tar archive', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'exitless-tar-'));
    const write = (path: string, data: string | Uint8Array, mode: number): void => {
      mkdirSync(join(folder, path, '..'), { recursive: true });
      writeFileSync(join(folder, path), data);
      chmodSync(join(folder, path), mode);
    };
    write('usr/bin/program', new Uint8Array(1500).fill(7), 0o4755);
    write('etc/empty', '', 0o600);
    write('etc/ä', 'text', 0o644);
    write(LONG, 'deep', 0o644);
    linkSync(join(folder, 'usr/bin/program'), join(folder, 'usr/bin/same'));
    symlinkSync(`../${LONG}`, join(folder, 'usr/link'));
    symlinkSync('bin/program', join(folder, 'usr/short'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const archive = (format: string): Uint8Array => {
    const { stdout, status } = spawnSync('tar', ['-c', `--format=${format}`, '--sort=name', '-C', folder, '.']);
    expect(status).toBe(0);
    return new Uint8Array(stdout);
  };

  it.each(['gnu', 'pax'])('of format %s gives files, links and directories with their modes', (format) => {
    const entries = new Map(readTar(archive(format)).map((entry) => [entry.path, entry]));
    expect(entries.get('usr/bin/program')).toMatchObject({ kind: 'file', mode: 0o4755, data: new Uint8Array(1500).fill(7) });
    expect(entries.get('usr/bin/same')).toEqual({ ...entries.get('usr/bin/program'), path: 'usr/bin/same' });
    expect(entries.get('etc/empty')).toMatchObject({ kind: 'file', mode: 0o600 });
    expect(entries.get('etc/ä')).toMatchObject({ kind: 'file', mode: 0o644, data: new TextEncoder().encode('text') });
    expect(entries.get(LONG)).toMatchObject({ kind: 'file', data: new TextEncoder().encode('deep') });
    expect(entries.get('usr/link')).toEqual({ kind: 'symlink', path: 'usr/link', target: `../${LONG}` });
    expect(entries.get('usr/short')).toEqual({ kind: 'symlink', path: 'usr/short', target: 'bin/program' });
    expect(entries.get('usr/bin')).toMatchObject({ kind: 'directory' });
    expect(entries.has('')).toBe(false);
  });

  it('is refused where it is cut short or not one', () => {
    const whole = archive('gnu');
    expect(() => readTar(whole.subarray(0, 1024))).toThrow(/no end|truncated/);
    expect(() => readTar(whole.slice(0, 1024).fill(0x41))).toThrow('no tar header at offset 0');
    expect(() => readTar(new Uint8Array(0))).toThrow('no end');
  });
});
