import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { type FileEntry, readCpio, writeCpio } from './cpio.ts';

const ENTRIES: FileEntry[] = [
  { kind: 'directory', path: 'dev', mode: 0o755 },
  { kind: 'character-device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
  { kind: 'block-device', path: 'dev/vda', mode: 0o660, major: 254, minor: 0 },
  { kind: 'fifo', path: 'dev/initctl', mode: 0o600 },
  { kind: 'file', path: 'init', mode: 0o755, data: new TextEncoder().encode('#!/bin/sh\n') },
  { kind: 'file', path: 'empty', mode: 0o4644, data: new Uint8Array(0) },
  { kind: 'symlink', path: 'sbin', target: 'bin' },
  ...[1, 2, 3, 4, 5].map(
    (bytes): FileEntry => ({ kind: 'file', path: 'f'.repeat(bytes), mode: 0o644, data: new Uint8Array(bytes).fill(bytes) }),
  ),
];

describe('cpio', () => {
  it('reads back every kind of entry as it was written', () => {
    expect(readCpio(writeCpio(ENTRIES))).toEqual(ENTRIES);
  });

  it('writes the header fields of newc in hexadecimal, and pads name and data to four bytes', () => {
    const archive = Buffer.from(writeCpio([{ kind: 'file', path: '/init', mode: 0o755, data: Uint8Array.of(1, 2, 3, 4, 5) }]));
    expect(archive.subarray(0, 110).toString()).toBe(
      `070701${'1 81ED 0 0 1 0 5 0 0 0 0 5 0'.replace(/\w+ ?/g, (field) => field.trim().padStart(8, '0'))}`,
    );
    expect([...archive.subarray(110, 124)]).toEqual([...Buffer.from('init\0\0'), 1, 2, 3, 4, 5, 0, 0, 0]);
    expect(archive.subarray(124, 130).toString()).toBe('070701');
    expect(archive.length % 4).toBe(0);
  });

  it('refuses paths that would leave the tree', () => {
    for (const path of ['', '/', 'a//b', '../x', 'a/../b', './a']) {
      expect(() => writeCpio([{ kind: 'directory', path, mode: 0o755 }])).toThrow('not a path');
    }
  });

  it('says where an archive is corrupt', () => {
    const archive = writeCpio(ENTRIES);
    expect(() => readCpio(archive.subarray(0, 100))).toThrow('no cpio header at offset 0');
    expect(() => readCpio(archive.subarray(0, archive.length - 120))).toThrow(/truncated|no cpio header/);
  });

  const cpioMissing = spawnSync('cpio', ['--version']).error !== undefined;
  it.skipIf(cpioMissing)('is listed by GNU cpio', () => {
    const listed = spawnSync('cpio', ['-t'], { input: writeCpio(ENTRIES), encoding: 'utf8' });
    expect(listed.stdout.trim().split('\n')).toEqual(ENTRIES.map(({ path }) => path));
  });
});
