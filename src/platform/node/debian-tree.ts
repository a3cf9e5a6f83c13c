/**
 * Packages of Debian's with all that they need, as one file tree. Their .debs and what apt chose stay in the cache, so the same
 * packages come without apt's help or the network another time (dpkg-deb unpacks them).
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { FileEntry } from '../../guest-files/cpio.ts';
import { packageTree } from '../../guest-files/package-tree.ts';
import { readTar } from '../../guest-files/tar.ts';
import { UserError } from '../../machine/user-error.ts';
import {
  type Apt,
  type DebianPackagesOptions,
  type GuestArchitecture,
  DEFAULT_ARCHITECTURE,
  DEFAULT_CACHE_FOLDER,
  placeFile,
  readDeb,
  withApt,
} from './apt.ts';
import { fileErrorReason } from './files.ts';
import { dependencyClosure, type IndexRecord } from './package-index.ts';

export interface DebianTreeOptions extends DebianPackagesOptions {
  /** amd64 unless given. */
  architecture?: GuestArchitecture;
  /** Asks apt for the current versions even where the cache has some. */
  refresh?: boolean;
}

export interface DebianTree {
  /** For `buildInitramfs`. */
  tree: FileEntry[];
  /** Those asked for and what they depend on, dependencies first. */
  packages: { name: string; version: string }[];
}

/** What the cache remembers about a list of names. */
type Plan = Pick<IndexRecord, 'name' | 'version' | 'sha256'>[];

const ADVICE = 'name packages of Debian, and see that apt has network';

/** Debian Policy 5.6.7. What else apt would take for options, patterns and orders to remove. */
const NAME = /^[a-z0-9][a-z0-9+.-]+$/;

async function readPlan(path: string, debFolder: string): Promise<Plan | undefined> {
  try {
    const plan = JSON.parse(await readFile(path, 'utf8')) as Plan;
    await Promise.all(plan.map((record) => stat(debPath(debFolder, record))));
    return plan.length > 0 ? plan : undefined;
  } catch {
    return undefined; // absent or damaged: it will be made again
  }
}

/** By content, so that a .deb is in the cache once, and never another under its name. */
const debPath = (debFolder: string, { name, sha256 }: Plan[number]): string =>
  join(debFolder, `${name}_${sha256.slice(0, 16)}.deb`);

async function fetchDebs(apt: Apt, plan: Plan, debFolder: string, records: readonly IndexRecord[]): Promise<void> {
  const present = await Promise.all(plan.map((record) => stat(debPath(debFolder, record)).then(Boolean, () => false)));
  const missing = records.filter((_, index) => !present[index]);
  if (missing.length === 0) return;
  const debs = await apt.download(missing);
  await Promise.all(missing.map((record, index) => rename(debs[index], debPath(debFolder, record))));
}

/**
 * The files of the packages named and of all that they depend on. Throws a UserError of one line where a name is wrong, there is no
 * apt, or it fails.
 */
export async function debianTree(names: readonly string[], options: DebianTreeOptions = {}): Promise<DebianTree> {
  const { cacheFolder = DEFAULT_CACHE_FOLDER, architecture = DEFAULT_ARCHITECTURE, onProgress } = options;
  const wrong = names.find((name) => !NAME.test(name));
  if (wrong !== undefined) throw new UserError(`"${wrong}" is not a name of a package`);
  if (names.length === 0) return { tree: packageTree([]), packages: [] };

  const debFolder = join(cacheFolder, 'debs');
  const key = createHash('sha256').update([architecture, ...new Set(names)].join('\n'));
  const planPath = join(debFolder, `plan-${key.digest('hex').slice(0, 16)}.json`);
  let plan = options.refresh ? undefined : await readPlan(planPath, debFolder);
  plan ??= await withApt(options, { what: names.join(', '), advice: ADVICE }, async (attempt) => {
    await mkdir(debFolder, { recursive: true });
    return attempt(architecture, async (apt) => {
      const records = dependencyClosure(names, await apt.plan(names));
      const chosen: Plan = records.map(({ name, version, sha256 }) => ({ name, version, sha256 }));
      onProgress?.(`fetching ${names.join(', ')} with all dependencies: ${chosen.length} packages`);
      await fetchDebs(apt, chosen, debFolder, records);
      await placeFile(apt.workFolder, planPath, `${JSON.stringify(chosen, undefined, 2)}\n`);
      return chosen;
    });
  });

  const contents: FileEntry[][] = [];
  for (const record of plan) contents.push(readTar(await verifiedDeb(debPath(debFolder, record), record)));
  return { tree: packageTree(contents), packages: plan.map(({ name, version }) => ({ name, version })) };
}

/** The tar archive in a cached .deb. A cache is on a disk for a long time: the checksum is looked at each time. */
async function verifiedDeb(path: string, { name, sha256 }: Plan[number]): Promise<Uint8Array> {
  const deb = await readFile(path).catch((error: unknown) => {
    throw new UserError(`cannot read the cached package ${path}: ${fileErrorReason(error)}`, { cause: error });
  });
  const actual = createHash('sha256').update(deb).digest('hex');
  if (actual !== sha256)
    throw new UserError(`the cached package ${path} is damaged: remove it, and ${name} will be fetched again`);
  try {
    return await readDeb(path);
  } catch (error) {
    throw new UserError(`${(error as Error).message}: dpkg-deb is needed to unpack Debian's packages`, { cause: error });
  }
}
