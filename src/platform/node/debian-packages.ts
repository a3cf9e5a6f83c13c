/**
 * Debian's kernels and busybox, fetched once into a cache folder by the host's apt and unpacked there. Once cached, neither apt nor
 * the network is touched. Runs may overlap: everything appears in the cache by a rename.
 */
import { mkdir, mkdtemp, readdir, readFile, rename, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { UserError } from '../../machine/user-error.ts';
import {
  type Apt,
  DEFAULT_ARCHITECTURE,
  DEFAULT_CACHE_FOLDER,
  type DebianPackagesOptions,
  type FetchPurpose,
  type GuestArchitecture,
  pipeDeb,
  placeFile,
  withApt,
} from './apt.ts';
import { packageNames } from './package-index.ts';

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

/** Unpacks the files of a .deb that match `keep`. */
const unpackDeb = (deb: string, folder: string, keep: string): Promise<void> =>
  pipeDeb(deb, 'tar', ['-x', '-f', '-', '-C', folder, '--no-same-owner', '--wildcards', keep]);

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
/** What is of another architecture than most says so in its name. */
const suffixOf = ({ architecture = DEFAULT_ARCHITECTURE }: PackageRequest): string =>
  architecture === DEFAULT_ARCHITECTURE ? '' : `_${architecture}`;
const entryName = (request: PackageRequest): string => `${fileName(request.name)}${suffixOf(request)}.json`;

async function readEntry(request: PackageRequest, options: DebianPackagesOptions): Promise<DebianPackage | undefined> {
  const { cacheFolder = DEFAULT_CACHE_FOLDER } = options;
  try {
    const entry = JSON.parse(await readFile(join(cacheFolder, entryName(request)), 'utf8')) as CacheEntry;
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

async function fetchOne(apt: Apt, request: PackageRequest, options: DebianPackagesOptions): Promise<DebianPackage> {
  const { cacheFolder = DEFAULT_CACHE_FOLDER, onProgress } = options;
  const { workFolder } = apt;
  let record = await apt.show(request.name);
  const { standsFor } = request;
  if (standsFor !== undefined) {
    const name = packageNames(record.depends)
      .flat()
      .find((dependency) => dependency.startsWith(standsFor));
    if (!name) throw new Error(`${request.name} depends on no ${standsFor}…`);
    record = await apt.show(name);
  }
  onProgress?.(`fetching ${record.name} ${record.version}`);
  const [deb] = await apt.download([record]);
  const unpacked = await mkdtemp(join(workFolder, 'unpacked-'));
  const tree = join(unpacked, 'tree');
  await mkdir(tree);
  await unpackDeb(deb, tree, request.keep);
  const files = await fileSizes(tree);
  const folder = fileName(`${record.name}_${record.version}`) + suffixOf(request);
  await moveIntoPlace(tree, join(cacheFolder, folder), files, workFolder);
  const { name, version, sha256 } = record;
  const entry: CacheEntry = { name, version, sha256, keep: request.keep, folder, files };
  await placeFile(workFolder, join(cacheFolder, entryName(request)), `${JSON.stringify(entry, undefined, 2)}\n`);
  return { name, version, folder: join(cacheFolder, folder), files: Object.keys(files) };
}

/**
 * Returns the packages asked for, in order, fetching those that the cache doesn't have.
 * Throws a UserError that says what to pass instead where there is no apt or it fails.
 */
export async function debianPackages(
  requests: readonly PackageRequest[],
  options: DebianPackagesOptions = {},
): Promise<DebianPackage[]> {
  const cached = await Promise.all(requests.map((request) => readEntry(request, options)));
  if (cached.every((found) => found !== undefined)) return cached;
  const purpose: FetchPurpose = requests.some(({ standsFor }) => standsFor)
    ? { what: "Debian's kernel", advice: WHAT_TO_PASS, instead: WHAT_TO_PASS }
    : { what: requests.map(({ name }) => name).join(', '), advice: 'see that apt has network' };
  return withApt(options, purpose, async (attempt) => {
    const packages: DebianPackage[] = [];
    for (const [index, request] of requests.entries()) {
      packages.push(
        cached[index] ?? (await attempt(request.architecture ?? DEFAULT_ARCHITECTURE, (apt) => fetchOne(apt, request, options))),
      );
    }
    return packages;
  });
}

/** A kernel of Debian's and a static busybox that runs on it, as paths. */
export interface GuestFiles {
  vmlinuz: string;
  systemMap: string;
  busybox: string;
  kernelPackage: DebianPackage;
  busyboxPackage: DebianPackage;
}

/** Debian's kernels for PCs: what their metapackages end with, and whose programs they run. */
export const DEBIAN_KERNELS = {
  'cloud-amd64': 'amd64',
  amd64: 'amd64',
  '686': 'i386',
  '686-pae': 'i386',
} as const satisfies Record<string, GuestArchitecture>;
export type DebianKernel = keyof typeof DEBIAN_KERNELS;

export interface GuestFilesOptions extends DebianPackagesOptions {
  /** The cloud kernel unless given. */
  kernel?: DebianKernel;
}

const busyboxOf = (architecture: GuestArchitecture): PackageRequest => ({
  name: 'busybox-static',
  keep: '*bin/busybox',
  architecture,
});

function pathOf({ name, folder, files }: DebianPackage, pattern: RegExp): string {
  const file = files.find((path) => pattern.test(path));
  if (!file) throw new UserError(`the package ${name} has no file like ${pattern.source}: ${WHAT_TO_PASS}`);
  return join(folder, file);
}

const busyboxPath = (busybox: DebianPackage): string => pathOf(busybox, /bin\/busybox$/);

/** Fetches a static busybox and returns its path. Throws a UserError where that fails. */
export async function debianBusybox(architecture: GuestArchitecture, options: DebianPackagesOptions = {}): Promise<string> {
  const [busybox] = await debianPackages([busyboxOf(architecture)], options);
  return busyboxPath(busybox);
}

/** Fetches Debian's current kernel and busybox. Throws a UserError where that fails. */
export async function debianGuestFiles(options: GuestFilesOptions = {}): Promise<GuestFiles> {
  const { kernel = 'cloud-amd64' } = options;
  const architecture = DEBIAN_KERNELS[kernel];
  const image: PackageRequest = { name: `linux-image-${kernel}`, standsFor: 'linux-image-', keep: './boot/*', architecture };
  const [kernelPackage, busyboxPackage] = await debianPackages([image, busyboxOf(architecture)], options);
  return {
    vmlinuz: pathOf(kernelPackage, /^boot\/vmlinuz-/),
    systemMap: pathOf(kernelPackage, /^boot\/System\.map-/),
    busybox: busyboxPath(busyboxPackage),
    kernelPackage,
    busyboxPackage,
  };
}
