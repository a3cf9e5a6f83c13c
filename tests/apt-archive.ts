/** An archive of packages that are built here, and an apt that serves them: what tests of fetching use instead of Debian's. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { CommandRunner } from '../src/platform/node/apt.ts';

/** A file's text, or the same as a program, or where a link leads. */
export type PackagedFile = string | { program: string } | { symlink: string };

/** Paragraphs of the index, and .deb files by `name=version`. */
export class AptArchive {
  readonly index = new Map<string, string>();
  readonly debs = new Map<string, string>();
  private readonly folder: string;

  /** The .debs are put into `folder`. */
  constructor(folder: string) {
    this.folder = folder;
  }

  /** `fields` are more lines of its paragraph, like `Depends: x (>= 1)`. Needs dpkg-deb. */
  publish(name: string, version: string, files: Record<string, PackagedFile>, fields: readonly string[] = []): void {
    const tree = mkdtempSync(join(this.folder, 'tree-'));
    chmodSync(tree, 0o755);
    const control = `Package: ${name}\nVersion: ${version}\nArchitecture: amd64\nMaintainer: a <a@b>\nDescription: d\n`;
    for (const [path, file] of Object.entries<PackagedFile>({ 'DEBIAN/control': control, ...files })) {
      mkdirSync(join(tree, path, '..'), { recursive: true });
      if (typeof file === 'string') writeFileSync(join(tree, path), file, { mode: 0o644 });
      else if ('program' in file) writeFileSync(join(tree, path), file.program, { mode: 0o755 });
      else symlinkSync(file.symlink, join(tree, path));
    }
    const deb = join(this.folder, `${name}_${version.replace(':', '%3a')}_amd64.deb`);
    const { status, stderr } = spawnSync('dpkg-deb', ['--root-owner-group', '-b', tree, deb], { encoding: 'utf8' });
    if (status !== 0) throw new Error(stderr);
    const sha256 = createHash('sha256').update(readFileSync(deb)).digest('hex');
    this.debs.set(`${name}=${version}`, deb);
    const lines = [control.trim(), ...fields, 'Filename: pool/x.deb', `SHA256: ${sha256}`];
    this.index.set(name, `${lines.join('\n')}\n\n`);
  }

  /** What apt's solver would install: names in `Depends`, the first of alternatives, that are in the index. */
  simulate(names: readonly string[]): string {
    const found = new Set<string>();
    const visit = (name: string): void => {
      const paragraph = this.index.get(name);
      if (!paragraph || found.has(name)) return;
      found.add(name);
      const depends = /^Depends: (.*)$/m.exec(paragraph)?.[1] ?? '';
      for (const group of depends.split(',')) visit(group.trim().split(/[ |]/)[0]);
    };
    for (const name of names) {
      if (!this.index.has(name)) throw commandFailure(`E: Unable to locate package ${name}\n`);
      visit(name);
    }
    const versionOf = (name: string): string => /^Version: (.*)$/m.exec(this.index.get(name) ?? '')?.[1] ?? '';
    return [...found].map((name) => `Inst ${name} (${versionOf(name)} Debian:12 [amd64])\nConf ${name} (x)\n`).join('');
  }
}

export function commandFailure(stderr: string): Error {
  return Object.assign(new Error('Command failed'), { code: 100, stderr });
}

/** An apt that serves the archive, and finds nothing in the system's own lists where `systemLists` is false. */
export function fakeApt(
  archive: Pick<AptArchive, 'index' | 'debs'> & Partial<AptArchive>,
  { systemLists = true } = {},
): { run: CommandRunner; calls: string[] } {
  const calls: string[] = [];
  const run: CommandRunner = async (command, args, cwd) => {
    const words = args.filter((arg, index) => arg !== '-o' && args[index - 1] !== '-o');
    calls.push([command, ...words].join(' '));
    if (words.includes('update')) return '';
    if (!systemLists && !args.some((arg) => arg.startsWith('Dir::State::lists='))) throw commandFailure('E: No packages found\n');
    const names = words.slice(words.findIndex((word) => /^(show|install|download)$/.test(word)) + 1).filter((word) => !word.startsWith('-'));
    if (command === 'apt-cache') {
      const paragraphs = names.map((name) => archive.index.get(name.split('=')[0]));
      if (paragraphs.includes(undefined)) throw commandFailure('N: Unable to locate package\nE: No packages found\n');
      return paragraphs.join('');
    }
    if (words.includes('--simulate')) return archive.simulate?.(names) ?? '';
    for (const name of names) {
      const deb = archive.debs.get(name);
      if (!deb) throw commandFailure(`E: Unable to fetch ${name}\n`);
      copyFileSync(deb, join(cwd, basename(deb)));
    }
    return '';
  };
  return { run, calls };
}

/** Where there is no apt. */
export const noApt: CommandRunner = async (command) => {
  throw Object.assign(new Error(`spawn ${command} ENOENT`), { code: 'ENOENT', syscall: `spawn ${command}` });
};
