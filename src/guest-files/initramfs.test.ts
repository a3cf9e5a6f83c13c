import { describe, expect, it } from 'vitest';
import { readCpio } from './cpio.ts';
import { buildInitramfs, busyboxApplets } from './initramfs.ts';
import { packageTree } from './package-tree.ts';

const BUSYBOX = new TextEncoder().encode('\x7fELF [ no [[ table \0x\0[\0[[\0ash\0cat\0busybox\0zcat\0\0Usage: [\0');
const tree = (archive: Uint8Array) => new Map(readCpio(archive).map((entry) => [entry.path, entry]));

describe('initramfs', () => {
  it('links each applet that busybox names to it', () => {
    expect(busyboxApplets(BUSYBOX)).toEqual(['[', '[[', 'ash', 'cat', 'busybox', 'zcat']);
    const files = tree(buildInitramfs({ init: '#!/bin/sh', busybox: BUSYBOX }));
    expect(files.get('bin/busybox')).toEqual({ kind: 'file', path: 'bin/busybox', mode: 0o755, data: BUSYBOX });
    for (const applet of ['[', '[[', 'ash', 'cat', 'zcat']) {
      expect(files.get(`bin/${applet}`)).toEqual({ kind: 'symlink', path: `bin/${applet}`, target: 'busybox' });
    }
  });

  it('finds no applets in another binary', () => {
    expect(busyboxApplets(Uint8Array.of(0x5b, 0, 1, 2))).toEqual([]);
    expect(busyboxApplets(new Uint8Array(0))).toEqual([]);
  });

  it('has what the kernel needs to start init: an executable /init, a console, mount points', () => {
    const files = tree(buildInitramfs({ init: 'hello' }));
    expect(files.get('init')).toMatchObject({ kind: 'file', mode: 0o755 });
    expect(files.get('dev/console')).toMatchObject({ kind: 'character-device', major: 5, minor: 1 });
    for (const path of ['proc', 'sys', 'dev', 'tmp']) expect(files.get(path)?.kind).toBe('directory');
  });

  it('makes the directories of extra files, each before what is in it', () => {
    const paths = readCpio(
      buildInitramfs({ init: '', files: { '/usr/lib/x/y': 'text', '/usr/bin': { symlink: '../bin' } } }),
    ).map(({ path }) => path);
    expect(paths.slice(-5)).toEqual(['usr', 'usr/lib', 'usr/lib/x', 'usr/lib/x/y', 'usr/bin']);
  });

  it('gives extra files their modes, and lets them replace what is there', () => {
    const files = tree(buildInitramfs({ init: 'a', files: { '/init': { data: 'b', mode: 0o700 }, '/etc/motd': 'hi' } }));
    expect(files.get('init')).toEqual({ kind: 'file', path: 'init', mode: 0o700, data: new TextEncoder().encode('b') });
    expect(files.get('etc/motd')).toMatchObject({ mode: 0o644 });
  });

  it('refuses a file inside of a file', () => {
    expect(() => buildInitramfs({ init: '', files: { '/init/x': '' } })).toThrow('/init/x lies in /init, which is a file');
  });

  it('is the same bytes for the same options', () => {
    const build = (): Uint8Array => buildInitramfs({ init: 'x', busybox: BUSYBOX });
    expect(build()).toEqual(build());
  });

  it('puts what packages have in /bin and /lib into /usr, and links the old folders there', () => {
    const library = { kind: 'file', path: 'lib/x86_64-linux-gnu/libc.so.6', mode: 0o755, data: Uint8Array.of(1) } as const;
    const manual = { kind: 'file', path: 'usr/share/man/man1/x.1', mode: 0o644, data: Uint8Array.of(2) } as const;
    const packages = [
      [{ kind: 'directory', path: 'lib', mode: 0o700 } as const, library, manual],
      [{ kind: 'file', path: 'usr/bin/cat', mode: 0o755, data: Uint8Array.of(3) } as const],
      [{ kind: 'symlink', path: 'lib64/ld-linux-x86-64.so.2', target: '/lib/x86_64-linux-gnu/ld.so' } as const],
    ];
    const files = tree(buildInitramfs({ init: '', busybox: BUSYBOX, tree: packageTree(packages) }));
    for (const name of ['bin', 'sbin', 'lib', 'lib64'])
      expect(files.get(name)).toMatchObject({ kind: 'symlink', target: `usr/${name}` });
    expect(files.get('usr/lib/x86_64-linux-gnu/libc.so.6')).toMatchObject({ kind: 'file', mode: 0o755 });
    expect(files.get('usr/lib64/ld-linux-x86-64.so.2')).toMatchObject({ kind: 'symlink' });
    expect(files.has('usr/share/man/man1/x.1')).toBe(false);
    expect(files.get('usr/bin/busybox')).toMatchObject({ kind: 'file' });
    expect(files.get('usr/bin/ash')).toMatchObject({ kind: 'symlink', target: 'busybox' });
    expect(files.get('usr/bin/cat'), 'a package’s program goes before the applet').toMatchObject({ kind: 'file' });
    expect([...files.keys()].filter((path) => /^(bin|lib|lib64)\//.test(path))).toEqual([]);
  });

  it('follows relative links to folders, refuses circles, and leaves folders behind links as they are', () => {
    const tree_ = (target: string) => [
      { kind: 'directory', path: 'usr/lib/real', mode: 0o700 } as const,
      { kind: 'symlink', path: 'usr/lib/link', target } as const,
      { kind: 'directory', path: 'usr/lib/link', mode: 0o755 } as const,
    ];
    const files = tree(buildInitramfs({ init: '', tree: tree_('../lib/real'), files: { '/usr/lib/link/a': 'x' } }));
    expect(files.get('usr/lib/link')).toMatchObject({ kind: 'symlink' });
    expect(files.get('usr/lib/real')).toMatchObject({ kind: 'directory', mode: 0o700 });
    expect(files.get('usr/lib/real/a')).toMatchObject({ kind: 'file' });
    expect(() => buildInitramfs({ init: '', tree: tree_('link'), files: { '/usr/lib/link/a': '' } })).toThrow('circles');
  });
});
