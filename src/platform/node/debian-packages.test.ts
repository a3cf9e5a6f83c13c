import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { AptArchive, fakeApt, noApt } from '../../../tests/apt-archive.ts';
import { UserError } from '../../machine/user-error.ts';
import type { CommandRunner } from './apt.ts';
import { debianGuestFiles, debianPackages } from './debian-packages.ts';

let folder: string;
let cacheFolder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'exitless-packages-'));
});
beforeEach(() => {
  cacheFolder = mkdtempSync(join(folder, 'cache-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function failureOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UserError);
  expect((error as Error).message).not.toContain('\n');
  return (error as Error).message;
}

describe('Debian packages', () => {
  it('say what to pass instead where there is no apt', async () => {
    expect(await failureOf(debianGuestFiles({ cacheFolder, run: noApt }))).toBe(
      "there is no apt here to fetch Debian's kernel with: pass a kernel and an initrd by --kernel and --initrd",
    );
    expect(readdirSync(cacheFolder)).toEqual([]);
  });

  it('say what to pass instead where the cache cannot be written', async () => {
    const file = join(folder, 'file');
    writeFileSync(file, '');
    expect(await failureOf(debianGuestFiles({ cacheFolder: join(file, 'cache'), run: noApt }))).toMatch(
      /cannot write .*--kernel and --initrd/,
    );
  });

  it("read fresh lists where the system's have nothing, and give up when those have nothing either", async () => {
    const { run, calls } = fakeApt({ index: new Map(), debs: new Map() });
    expect(await failureOf(debianGuestFiles({ cacheFolder, run }))).toContain(
      'linux-image-cloud-amd64 is not in the package index',
    );
    expect(calls.filter((call) => call.includes('update'))).toHaveLength(1);
    expect(readdirSync(cacheFolder)).toEqual([]);
  });
});

const dpkgMissing = spawnSync('dpkg-deb', ['--version']).error !== undefined;
describe.skipIf(dpkgMissing)('Debian packages, built here', () => {
  let archive: AptArchive;

  beforeAll(() => {
    archive = new AptArchive(folder);
    const kernelFiles = {
      'boot/vmlinuz-6.1-cloud': 'KERNEL',
      'boot/System.map-6.1-cloud': 'MAP',
      'lib/modules/6.1/x.ko': 'MODULE',
    };
    archive.publish('linux-image-6.1-cloud-amd64', '6.1.1-1', kernelFiles);
    archive.publish('linux-image-cloud-amd64', '6.1.1-1', {}, ['Depends: linux-base, linux-image-6.1-cloud-amd64 (= 6.1.1-1)']);
    archive.publish('busybox-static', '1:1.35', { 'usr/bin/busybox': 'BUSYBOX', 'usr/share/doc/x': 'DOC' });
  });

  it('resolve the metapackage, keep the wanted files only, and name their versions', async () => {
    const files = await debianGuestFiles({ cacheFolder, run: fakeApt(archive).run });
    expect([files.vmlinuz, files.systemMap, files.busybox].map((path) => readFileSync(path, 'utf8'))).toEqual([
      'KERNEL',
      'MAP',
      'BUSYBOX',
    ]);
    expect(files.kernelPackage).toMatchObject({ name: 'linux-image-6.1-cloud-amd64', version: '6.1.1-1' });
    expect(files.kernelPackage.files).toEqual(['boot/System.map-6.1-cloud', 'boot/vmlinuz-6.1-cloud']);
    expect(files.busyboxPackage.files).toEqual(['usr/bin/busybox']);
    expect(readdirSync(cacheFolder).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  it('of another architecture are asked for as such, and kept apart', async () => {
    const { run } = fakeApt(archive);
    const architectures: string[] = [];
    const spy: CommandRunner = (command, args, cwd) => {
      architectures.push(args.find((arg) => arg.startsWith('APT::Architecture='))?.split('=')[1] ?? '');
      return run(command, args, cwd);
    };
    const request = { name: 'busybox-static', keep: '*bin/busybox' };
    const [amd64, i386] = await debianPackages([request, { ...request, architecture: 'i386' }], { cacheFolder, run: spy });
    expect(new Set(architectures)).toEqual(new Set(['amd64', 'i386']));
    expect(i386.folder).toBe(`${amd64.folder}_i386`);
    expect(await debianPackages([{ ...request, architecture: 'i386' }], { cacheFolder, run: noApt })).toEqual([i386]);
  });

  it('need no apt a second time', async () => {
    const first = await debianGuestFiles({ cacheFolder, run: fakeApt(archive).run });
    expect(await debianGuestFiles({ cacheFolder, run: noApt })).toEqual(first);
  });

  it("come by fresh lists where the system's are empty, read once for all packages", async () => {
    const { run, calls } = fakeApt(archive, { systemLists: false });
    const progress: string[] = [];
    await debianGuestFiles({ cacheFolder, run, onProgress: (line) => progress.push(line) });
    expect(calls.filter((call) => call.includes('update'))).toHaveLength(1);
    expect(progress).toEqual([
      'reading package lists',
      'fetching linux-image-6.1-cloud-amd64 6.1.1-1',
      'fetching busybox-static 1:1.35',
    ]);
  });

  it('are refused where the checksum is not the one of the index', async () => {
    const index = new Map(archive.index);
    index.set('busybox-static', index.get('busybox-static')?.replace(/SHA256: ..../, 'SHA256: 0000') ?? '');
    expect(await failureOf(debianGuestFiles({ cacheFolder, run: fakeApt({ ...archive, index }).run }))).toContain(
      'wrong checksum',
    );
    expect(readdirSync(cacheFolder).some((name) => name.startsWith('busybox'))).toBe(false);
  });

  it.each([
    ['removed', (path: string) => unlinkSync(path)],
    ['cut short', (path: string) => writeFileSync(path, 'K')],
  ])('are fetched again where a cached file was %s', async (_, damage) => {
    const first = await debianGuestFiles({ cacheFolder, run: fakeApt(archive).run });
    damage(first.vmlinuz);
    const again = await debianGuestFiles({ cacheFolder, run: fakeApt(archive).run });
    expect(readFileSync(again.vmlinuz, 'utf8')).toBe('KERNEL');
  });

  it('survive being fetched by several runs at once', async () => {
    const results = await Promise.all(
      Array.from({ length: 6 }, () => debianGuestFiles({ cacheFolder, run: fakeApt(archive).run })),
    );
    for (const files of results) expect(readFileSync(files.vmlinuz, 'utf8')).toBe('KERNEL');
    expect(readdirSync(cacheFolder).sort()).toEqual([
      'busybox-static.json',
      'busybox-static_1_1.35',
      'linux-image-6.1-cloud-amd64_6.1.1-1',
      'linux-image-cloud-amd64.json',
    ]);
  });

  it('are fetched again where what is kept of them has changed or the record is damaged', async () => {
    await debianGuestFiles({ cacheFolder, run: fakeApt(archive).run });
    writeFileSync(join(cacheFolder, 'busybox-static.json'), '{"name":');
    const { run, calls } = fakeApt(archive);
    await debianGuestFiles({ cacheFolder, run });
    expect(calls.some((call) => call.includes('busybox-static'))).toBe(true);
    expect(calls.some((call) => call.includes('linux-image'))).toBe(false);
  });
});
