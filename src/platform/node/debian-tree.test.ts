import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { AptArchive, fakeApt, noApt } from '../../../tests/apt-archive.ts';
import { UserError } from '../../machine/user-error.ts';
import { debianTree } from './debian-tree.ts';

let folder: string;
let cacheFolder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'exitless-tree-'));
});
beforeEach(() => {
  cacheFolder = mkdtempSync(join(folder, 'cache-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('a tree of packages', () => {
  it('refuses names that apt would take for something else', async () => {
    for (const name of ['-o', 'a=1', 'a/b', 'A', 'x y', '', 'linux-.*']) {
      await expect(debianTree([name], { cacheFolder, run: noApt })).rejects.toThrow(
        new UserError(`"${name}" is not a name of a package`),
      );
    }
  });

  it('says in one line that there is no apt', async () => {
    await expect(debianTree(['hello'], { cacheFolder, run: noApt })).rejects.toThrow(
      new UserError('there is no apt here to fetch hello with: name packages of Debian, and see that apt has network'),
    );
  });

  it('says in one line that the cache cannot be written', async () => {
    const file = join(folder, 'file');
    writeFileSync(file, '');
    const reason = 'a part of its path is not a directory): fetch hello once as a user who may';
    await expect(debianTree(['hello'], { cacheFolder: join(file, 'cache'), run: noApt })).rejects.toThrow(
      new UserError(`cannot write to the cache folder ${file}/cache (${reason}`),
    );
  });

  it('of no package is the empty system, without apt', async () => {
    const { tree, packages } = await debianTree([], { cacheFolder, run: noApt });
    expect(packages).toEqual([]);
    expect(tree.map(({ path }) => path)).toContain('etc/passwd');
  });
});

const dpkgMissing = spawnSync('dpkg-deb', ['--version']).error !== undefined;
describe.skipIf(dpkgMissing)('a tree of packages, built here', () => {
  let archive: AptArchive;
  beforeAll(() => {
    archive = new AptArchive(folder);
    archive.publish('libhello', '1:2', { 'lib/x86_64-linux-gnu/libhello.so.1': 'LIBRARY' }, ['Depends: debconf']);
    archive.publish('debconf', '3', { 'usr/sbin/debconf': 'X' });
    archive.publish(
      'hello',
      '1.0',
      { 'usr/bin/hello': { program: 'PROGRAM' }, 'usr/bin/hi': { symlink: 'hello' }, 'usr/share/doc/hello/copyright': 'TEXT' },
      ['Depends: libhello (>= 1)'],
    );
  });

  it('has their files and those of what they need, with modes and links', async () => {
    const { tree, packages } = await debianTree(['hello'], { cacheFolder, run: fakeApt(archive).run });
    expect(packages).toEqual([
      { name: 'libhello', version: '1:2' },
      { name: 'hello', version: '1.0' },
    ]);
    const entries = new Map(tree.map((entry) => [entry.path, entry]));
    expect(entries.get('usr/bin/hello')).toMatchObject({ kind: 'file', mode: 0o755 });
    expect(entries.get('lib/x86_64-linux-gnu/libhello.so.1')).toMatchObject({ kind: 'file', mode: 0o644 });
    expect(entries.get('usr/bin/hi')).toMatchObject({ kind: 'symlink', target: 'hello' });
    expect([...entries.keys()].filter((path) => path.includes('doc') || path.includes('debconf'))).toEqual([]);
  });

  it('needs no apt a second time, unless it is to be refreshed', async () => {
    const first = await debianTree(['hello'], { cacheFolder, run: fakeApt(archive).run });
    expect(await debianTree(['hello'], { cacheFolder, run: noApt })).toEqual(first);
    await expect(debianTree(['hello'], { cacheFolder, run: noApt, refresh: true })).rejects.toThrow('there is no apt');
    const { run, calls } = fakeApt(archive);
    expect(await debianTree(['hello'], { cacheFolder, run, refresh: true })).toEqual(first);
    expect(calls.filter((call) => call.includes('download'))).toEqual([]); // the same versions are there
    expect(readdirSync(cacheFolder)).toEqual(['debs']);
  });

  it("comes by fresh lists where the system's are empty, all .debs in one download", async () => {
    const { run, calls } = fakeApt(archive, { systemLists: false });
    await debianTree(['hello'], { cacheFolder, run });
    expect(calls.filter((call) => call.includes('update'))).toHaveLength(1);
    expect(calls.filter((call) => call.includes('download'))).toEqual(['apt-get -qq download libhello=1:2 hello=1.0']);
  });

  it('says in one line which package is unknown', async () => {
    await expect(debianTree(['hello', 'helo'], { cacheFolder, run: fakeApt(archive).run })).rejects.toThrow(
      new UserError(
        'cannot fetch hello, helo (Unable to locate package helo): name packages of Debian, and see that apt has network',
      ),
    );
    expect(readdirSync(join(cacheFolder, 'debs'))).toEqual([]);
  });

  it('refuses a package that is not what the index promised, or was damaged in the cache', async () => {
    const index = new Map(archive.index).set('hello', archive.index.get('hello')?.replace(/SHA256: ..../, 'SHA256: 0000') ?? '');
    const tampered = { index, debs: archive.debs, simulate: (names: readonly string[]) => archive.simulate(names) };
    await expect(debianTree(['hello'], { cacheFolder, run: fakeApt(tampered).run })).rejects.toThrow(/wrong checksum/);
    await debianTree(['hello'], { cacheFolder, run: fakeApt(archive).run });
    const debs = join(cacheFolder, 'debs');
    const deb = readdirSync(debs).find((name) => name.startsWith('hello_')) ?? '';
    writeFileSync(join(debs, deb), 'damaged');
    await expect(debianTree(['hello'], { cacheFolder, run: noApt })).rejects.toThrow(/hello_.*is damaged: remove it/);
    rmSync(join(debs, deb));
    mkdirSync(join(debs, deb));
    await expect(debianTree(['hello'], { cacheFolder, run: noApt })).rejects.toThrow(
      new UserError(`cannot read the cached package ${join(debs, deb)}: it is a directory`),
    );
  });
});
