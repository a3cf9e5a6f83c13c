/**
 * Debian's kernel and busybox, fetched once into a cache folder by the host's apt. No root is needed; where the system's package
 * lists are empty or stale, fresh ones are fetched beside the cache. What is downloaded is checked against the index's SHA-256.
 * Once cached, neither apt nor the network is touched. Runs may overlap: everything appears in the cache by a rename.
 */
import { type ExecFileException, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { UserError } from '../../machine/user-error.ts';
import { fileErrorReason } from './files.ts';

/** `.cache/packages` of this package, from src/ as from dist/. */
export const DEFAULT_CACHE_FOLDER = join(import.meta.dirname, '..', '..', '..', '.cache', 'packages');

/** A package that is unpacked, or the part of it that was asked for. */
export interface DebianPackage {
  name: string;
  version: string;
  folder: string;
  /** Paths of its files in `folder`, sorted. */
  files: string[];
}

export interface PackageRequest {
  /** A package, or a metapackage that stands for the newest of its kind, like linux-image-cloud-amd64. */
  name: string;
  /** What to unpack: a pattern of tar's for paths that start with `./`. */
  keep: string;
  /** Where `name` is a metapackage: what the name of the package it stands for starts with. */
  standsFor?: string;
  /** Whose package it is; amd64 unless given. */
  architecture?: GuestArchitecture;
}

/** Debian's names of what guests are. */
export type GuestArchitecture = 'amd64' | 'i386';
const DEFAULT_ARCHITECTURE: GuestArchitecture = 'amd64';

/** Runs a program to its end and returns what it printed; rejects as `execFile` does. */
export type CommandRunner = (command: string, args: readonly string[], cwd: string) => Promise<string>;

export interface DebianPackagesOptions {
  cacheFolder?: string;
  /** Told what takes time, a line each. */
  onProgress?: (line: string) => void;
  run?: CommandRunner;
}

/** A package's paragraph in the index. */
interface IndexRecord {
  name: string;
  version: string;
  sha256: string;
  depends: string;
}

/** What the cache remembers about a request: its package, and the sizes of its files. */
interface CacheEntry {
  name: string;
  version: string;
  sha256: string;
  keep: string;
  folder: string;
  files: Record<string, number>;
}

const WHAT_TO_PASS = 'pass a kernel and an initrd by --kernel and --initrd';

const runCommand: CommandRunner = (command, args, cwd) =>
  new Promise((resolve, reject) => {
    const options = { cwd, maxBuffer: 2 ** 26, env: { ...process.env, LC_ALL: 'C' } };
    execFile(command, args, options, (error, stdout) => (error ? reject(error) : resolve(stdout)));
  });

/** Packages are of the guest's architecture, whatever the host's is. */
const aptOptions = (architecture: GuestArchitecture): string[] => [
  `APT::Architecture=${architecture}`,
  `APT::Architectures::=${architecture}`,
  'APT::Sandbox::User=root',
  'Acquire::Languages=none',
];

/** The host's apt, with the system's package lists until `useOwnLists` is called. */
class Apt {
  private readonly run: CommandRunner;
  private readonly workFolder: string;
  private readonly architecture: GuestArchitecture;
  private options: string[];
  hasOwnLists = false;

  constructor(run: CommandRunner, workFolder: string, architecture: GuestArchitecture) {
    this.run = run;
    this.workFolder = workFolder;
    this.architecture = architecture;
    this.options = aptOptions(architecture);
  }

  /** Fetches lists. A mirror that has not all of them will do, if the package is in the rest. */
  async useOwnLists(): Promise<void> {
    this.hasOwnLists = true;
    const state = join(this.workFolder, `apt-state-${this.architecture}`);
    const cache = join(this.workFolder, `apt-cache-${this.architecture}`);
    await mkdir(join(state, 'lists', 'partial'), { recursive: true });
    await mkdir(join(cache, 'archives', 'partial'), { recursive: true });
    this.options = [...aptOptions(this.architecture), `Dir::State::lists=${join(state, 'lists')}`, `Dir::Cache=${cache}`];
    await this.call('apt-get', ['-qq', 'update'], this.workFolder).catch((error: unknown) => {
      if (isMissingProgram(error)) throw error;
    });
  }

  /** The candidate version's paragraph. */
  async show(name: string): Promise<IndexRecord> {
    const text = await this.call('apt-cache', ['show', '--no-all-versions', name], this.workFolder).catch((error: unknown) => {
      if (isMissingProgram(error)) throw error;
      throw new Error(`${name} is not in the package index: there is no network, or this is not Debian`, { cause: error });
    });
    for (const paragraph of text.split(/\n\n+/)) {
      const field = (key: string): string => new RegExp(`^${key}: (.*)$`, 'm').exec(paragraph)?.[1].trim() ?? '';
      const record = { name: field('Package'), version: field('Version'), sha256: field('SHA256'), depends: field('Depends') };
      if (record.name && record.version && /^[0-9a-f]{64}$/.test(record.sha256)) return record;
    }
    throw new Error(`the package index has no checksum of ${name}`);
  }

  /** Downloads into the work folder and verifies; returns the .deb's path. */
  async download({ name, version, sha256 }: IndexRecord): Promise<string> {
    const folder = await mkdtemp(join(this.workFolder, 'deb-'));
    await this.call('apt-get', ['-qq', 'download', `${name}=${version}`], folder);
    const file = (await readdir(folder)).find((entry) => entry.endsWith('.deb'));
    if (!file) throw new Error(`apt-get downloaded no ${name}`);
    const path = join(folder, file);
    const actual = createHash('sha256')
      .update(await readFile(path))
      .digest('hex');
    if (actual !== sha256) throw new Error(`${file} has the wrong checksum: ${actual} instead of ${sha256}`);
    return path;
  }

  private call(command: string, args: readonly string[], cwd: string): Promise<string> {
    return this.run(command, [...this.options.flatMap((option) => ['-o', option]), ...args], cwd);
  }
}

/** Unpacks the files of a .deb that match `keep`. Needs dpkg-deb and tar, which are wherever apt is. */
async function unpackDeb(deb: string, folder: string, keep: string): Promise<void> {
  const unpacker = spawn('dpkg-deb', ['--fsys-tarfile', deb], { stdio: ['ignore', 'pipe', 'ignore'] });
  const tarOptions = ['-x', '-f', '-', '-C', folder, '--no-same-owner', '--wildcards', keep];
  const tar = spawn('tar', tarOptions, { stdio: [unpacker.stdout, 'ignore', 'ignore'] });
  // The pipe is tar's now; while we hold it open, too, dpkg-deb would not notice that tar is gone.
  unpacker.stdout.destroy();
  const ended = (
    child: { once(event: 'error' | 'close', listener: (value: Error | number | null) => void): unknown },
    name: string,
  ) =>
    new Promise<void>((resolve, reject) => {
      child.once('error', (error) => reject(error as Error));
      child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`${name} could not unpack ${deb}`))));
    });
  await Promise.all([ended(unpacker, 'dpkg-deb'), ended(tar, 'tar')]);
}

/** Sizes of all regular files under `folder`, by their path in it. */
async function fileSizes(folder: string): Promise<Record<string, number>> {
  const sizes: [string, number][] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    sizes.push([relative(folder, path), (await stat(path)).size]);
  }
  return Object.fromEntries(sizes.sort(([a], [b]) => (a < b ? -1 : 1)));
}

async function isComplete(folder: string, files: Record<string, number>): Promise<boolean> {
  const checks = Object.entries(files).map(async ([path, size]) => (await stat(join(folder, path))).size === size);
  return Promise.all(checks).then(
    (results) => results.length > 0 && results.every(Boolean),
    () => false,
  );
}

const fileName = (text: string): string => text.replace(/[^\w.+~-]/g, '_');
/** Another architecture's packages have it in their names. */
const suffixOf = ({ architecture = DEFAULT_ARCHITECTURE }: PackageRequest): string =>
  architecture === DEFAULT_ARCHITECTURE ? '' : `_${architecture}`;
const entryName = (request: PackageRequest): string => `${fileName(request.name)}${suffixOf(request)}.json`;
const entryPath = (cacheFolder: string, request: PackageRequest): string => join(cacheFolder, entryName(request));

async function readEntry(cacheFolder: string, request: PackageRequest): Promise<DebianPackage | undefined> {
  try {
    const entry = JSON.parse(await readFile(entryPath(cacheFolder, request), 'utf8')) as CacheEntry;
    const folder = join(cacheFolder, entry.folder);
    if (entry.keep !== request.keep || !(await isComplete(folder, entry.files))) return undefined;
    return { name: entry.name, version: entry.version, folder, files: Object.keys(entry.files) };
  } catch {
    return undefined; // absent or damaged: it will be fetched again
  }
}

/** Moves an unpacked package to its place, unless another run was first. */
async function moveIntoPlace(unpacked: string, folder: string, files: Record<string, number>, workFolder: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await rename(unpacked, folder);
    } catch (error) {
      if (await isComplete(folder, files)) return;
      if (attempt === 3) throw error;
      await rename(folder, await mkdtemp(join(workFolder, 'damaged-'))).catch(() => {});
    }
  }
}

async function fetchOne(
  apt: Apt,
  request: PackageRequest,
  workFolder: string,
  options: DebianPackagesOptions,
): Promise<CacheEntry> {
  const { cacheFolder = DEFAULT_CACHE_FOLDER, onProgress } = options;
  let record = await apt.show(request.name);
  const { standsFor } = request;
  if (standsFor !== undefined) {
    const name = record.depends.split(/[\s,|]+/).find((dependency) => dependency.startsWith(standsFor));
    if (!name) throw new Error(`${request.name} depends on no ${standsFor}…`);
    record = await apt.show(name);
  }
  onProgress?.(`fetching ${record.name} ${record.version}`);
  const deb = await apt.download(record);
  const unpacked = await mkdtemp(join(workFolder, 'unpacked-'));
  const tree = join(unpacked, 'tree');
  await mkdir(tree);
  await unpackDeb(deb, tree, request.keep);
  const files = await fileSizes(tree);
  const folder = fileName(`${record.name}_${record.version}${suffixOf(request)}`);
  await moveIntoPlace(tree, join(cacheFolder, folder), files, workFolder);
  const { name, version, sha256 } = record;
  const entry: CacheEntry = { name, version, sha256, keep: request.keep, folder, files };
  const draft = join(workFolder, entryName(request));
  await writeFile(draft, `${JSON.stringify(entry, undefined, 2)}\n`);
  await rename(draft, entryPath(cacheFolder, request));
  return entry;
}

/** The line of a failed command's output that says why. */
function commandErrorReason(error: unknown): string {
  const { message, stderr } = error as ExecFileException;
  const lines = (stderr || message)
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean);
  return (lines.find((line) => line.startsWith('E: ')) ?? lines.at(-1) ?? 'no reason given').replace(/^E: /, '');
}

const isMissingProgram = (error: unknown): boolean => {
  const { code, syscall } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' && syscall?.startsWith('spawn') === true;
};

/**
 * Returns the packages asked for, in order, fetching those that the cache doesn't have.
 * Throws a UserError that says what to pass instead where there is no apt or it fails.
 */
export async function debianPackages(
  requests: readonly PackageRequest[],
  options: DebianPackagesOptions = {},
): Promise<DebianPackage[]> {
  const { cacheFolder = DEFAULT_CACHE_FOLDER, run = runCommand, onProgress } = options;
  const cached = await Promise.all(requests.map((request) => readEntry(cacheFolder, request)));
  if (cached.every((found) => found !== undefined)) return cached;

  let workFolder: string;
  try {
    await mkdir(cacheFolder, { recursive: true });
    workFolder = await mkdtemp(join(cacheFolder, '.work-'));
  } catch (error) {
    throw new UserError(`cannot write to the cache folder ${cacheFolder} (${fileErrorReason(error)}): ${WHAT_TO_PASS}`, {
      cause: error,
    });
  }
  try {
    const apts = new Map<GuestArchitecture, Apt>();
    const aptFor = (architecture: GuestArchitecture): Apt => {
      const apt = apts.get(architecture) ?? new Apt(run, workFolder, architecture);
      apts.set(architecture, apt);
      return apt;
    };
    const fetch = async (request: PackageRequest): Promise<DebianPackage> => {
      const apt = aptFor(request.architecture ?? DEFAULT_ARCHITECTURE);
      try {
        const { name, version, folder, files } = await fetchOne(apt, request, workFolder, options);
        return { name, version, folder: join(cacheFolder, folder), files: Object.keys(files) };
      } catch (error) {
        if (apt.hasOwnLists || isMissingProgram(error)) throw error;
        onProgress?.('reading package lists');
        await apt.useOwnLists();
        return fetch(request);
      }
    };
    const packages: DebianPackage[] = [];
    for (const [index, request] of requests.entries()) packages.push(cached[index] ?? (await fetch(request)));
    return packages;
  } catch (error) {
    const reason = isMissingProgram(error)
      ? "there is no apt here to fetch Debian's kernel with"
      : `cannot fetch Debian's kernel (${commandErrorReason(error)})`;
    throw new UserError(`${reason}: ${WHAT_TO_PASS}`, { cause: error });
  } finally {
    await rm(workFolder, { recursive: true, force: true });
  }
}

/** Debian's current kernel and static busybox, as paths. */
export interface GuestFiles {
  vmlinuz: string;
  systemMap: string;
  busybox: string;
  kernelPackage: DebianPackage;
  busyboxPackage: DebianPackage;
}

/** The cloud kernel, and of 32-bit ones that for processors without PAE. */
const KERNELS: Record<GuestArchitecture, string> = { amd64: 'linux-image-cloud-amd64', i386: 'linux-image-686' };

export interface GuestFilesOptions extends DebianPackagesOptions {
  /** amd64 unless given. */
  architecture?: GuestArchitecture;
}

/** Fetches what the default guest is made of. Throws a UserError where that fails. */
export async function debianGuestFiles(options: GuestFilesOptions = {}): Promise<GuestFiles> {
  const { architecture = DEFAULT_ARCHITECTURE } = options;
  const kernel: PackageRequest = { name: KERNELS[architecture], standsFor: 'linux-image-', keep: './boot/*', architecture };
  const busybox: PackageRequest = { name: 'busybox-static', keep: '*bin/busybox', architecture };
  const [kernelPackage, busyboxPackage] = await debianPackages([kernel, busybox], options);
  const pathOf = ({ name, folder, files }: DebianPackage, pattern: RegExp): string => {
    const file = files.find((path) => pattern.test(path));
    if (!file) throw new UserError(`the package ${name} has no file like ${pattern.source}: ${WHAT_TO_PASS}`);
    return join(folder, file);
  };
  return {
    vmlinuz: pathOf(kernelPackage, /^boot\/vmlinuz-/),
    systemMap: pathOf(kernelPackage, /^boot\/System\.map-/),
    busybox: pathOf(busyboxPackage, /bin\/busybox$/),
    kernelPackage,
    busyboxPackage,
  };
}
