/**
 * The host's apt, as a fetcher of packages: no root is needed, nothing is installed, and what is downloaded is checked against the
 * index's SHA-256. Where the system's package lists are empty, stale or of another architecture, fresh ones are read.
 */
import { type ExecFileException, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { UserError } from '../../machine/user-error.ts';
import { fileErrorReason } from './files.ts';
import { type IndexRecord, parseIndexRecords } from './package-index.ts';

/** `.cache/packages` of this package, from src/ as from dist/. */
export const DEFAULT_CACHE_FOLDER = join(import.meta.dirname, '..', '..', '..', '.cache', 'packages');

/** Debian's names of what guests are. */
export type GuestArchitecture = 'amd64' | 'i386';
export const DEFAULT_ARCHITECTURE: GuestArchitecture = 'amd64';

/** Runs a program to its end and returns what it printed; rejects as `execFile` does. */
export type CommandRunner = (command: string, args: readonly string[], cwd: string) => Promise<string>;

export interface DebianPackagesOptions {
  cacheFolder?: string;
  /** Told what takes time, a line each. */
  onProgress?: (line: string) => void;
  run?: CommandRunner;
}

const runCommand: CommandRunner = (command, args, cwd) =>
  new Promise((resolve, reject) => {
    const options = { cwd, maxBuffer: 2 ** 26, env: { ...process.env, LC_ALL: 'C' } };
    execFile(command, args, options, (error, stdout) => (error ? reject(error) : resolve(stdout)));
  });

/** apt, for packages of one architecture whatever the host's is. */
export class Apt {
  readonly workFolder: string;
  private readonly run: CommandRunner;
  private options: string[];
  private listsFailure: unknown;
  hasOwnLists = false;

  constructor(run: CommandRunner, workFolder: string, architecture: GuestArchitecture) {
    this.run = run;
    this.workFolder = workFolder;
    this.options = [
      `APT::Architecture=${architecture}`,
      `APT::Architectures::=${architecture}`,
      'APT::Sandbox::User=root',
      'Acquire::Languages=none',
    ];
  }

  /** Fetches lists. A mirror that has not all of them will do, if the package is in the rest. */
  async useOwnLists(): Promise<void> {
    this.hasOwnLists = true;
    const state = await mkdtemp(join(this.workFolder, 'apt-state-'));
    const cache = await mkdtemp(join(this.workFolder, 'apt-cache-'));
    await mkdir(join(state, 'lists', 'partial'), { recursive: true });
    await mkdir(join(cache, 'archives', 'partial'), { recursive: true });
    this.options = [...this.options, `Dir::State::lists=${join(state, 'lists')}`, `Dir::Cache=${cache}`];
    await this.call('apt-get', ['-qq', 'update']).catch((error: unknown) => {
      if (isMissingProgram(error)) throw error;
      this.listsFailure = error;
    });
  }

  /** The candidate version's paragraph. */
  async show(name: string): Promise<IndexRecord> {
    const text = await this.call('apt-cache', ['show', '--no-all-versions', name]).catch((error: unknown) => {
      if (isMissingProgram(error)) throw error;
      const reason = this.listsFailure ? commandErrorReason(this.listsFailure) : 'there is no network, or this is not Debian';
      throw new Error(`${name} is not in the package index: ${reason}`, { cause: error });
    });
    const [record] = parseIndexRecords(text);
    if (!record) throw new Error(`the package index has no checksum of ${name}`);
    return record;
  }

  /** What apt would install for the packages named, themselves included, on a system that has nothing yet. */
  async plan(names: readonly string[]): Promise<IndexRecord[]> {
    const text = await this.call('apt-get', [
      ...['-o', 'Dir::State::status=/dev/null', '-qq', '--simulate', '--no-install-recommends', 'install'],
      ...names,
    ]);
    const packages = [...text.matchAll(/^Inst (\S+) \((\S+)/gm)].map(([, name, version]) => `${name}=${version}`);
    const records = parseIndexRecords(await this.call('apt-cache', ['show', ...packages]));
    if (records.length !== packages.length) throw new Error('the package index has not the checksums of all that is needed');
    return records;
  }

  /** Downloads into a new folder and verifies; returns the .debs' paths, in order. */
  async download(records: readonly IndexRecord[]): Promise<string[]> {
    const folder = await mkdtemp(join(this.workFolder, 'deb-'));
    await this.call('apt-get', ['-qq', 'download', ...records.map(({ name, version }) => `${name}=${version}`)], folder);
    const debs = (await readdir(folder)).filter((file) => file.endsWith('.deb'));
    return Promise.all(
      records.map(async ({ name, sha256 }) => {
        const file = debs.find((candidate) => candidate.startsWith(`${name}_`));
        if (!file) throw new Error(`apt-get downloaded no ${name}`);
        const path = join(folder, file);
        const actual = createHash('sha256')
          .update(await readFile(path))
          .digest('hex');
        if (actual !== sha256) throw new Error(`${file} has the wrong checksum: ${actual} instead of ${sha256}`);
        return path;
      }),
    );
  }

  private call(command: string, args: readonly string[], cwd = this.workFolder): Promise<string> {
    return this.run(command, [...this.options.flatMap((option) => ['-o', option]), ...args], cwd);
  }
}

/** What a failure to fetch tells the user. */
export interface FetchPurpose {
  /** As in "cannot fetch …". */
  what: string;
  /** What to do where apt fails. */
  advice: string;
  /** What to do where the cache fails, if there is another way. */
  instead?: string;
}

/** Runs `fetch`, and where it fails once more with fresh package lists, which later calls go on with. */
type FetchAttempt = <Fetched>(architecture: GuestArchitecture, fetch: (apt: Apt) => Promise<Fetched>) => Promise<Fetched>;

/**
 * Runs `body` with a work folder in the cache's, which goes at the end. Throws a UserError of one line where there is no apt or
 * fetching fails.
 */
export async function withApt<Result>(
  { cacheFolder = DEFAULT_CACHE_FOLDER, run = runCommand, onProgress }: DebianPackagesOptions,
  { what, advice, instead }: FetchPurpose,
  body: (attempt: FetchAttempt) => Promise<Result>,
): Promise<Result> {
  let workFolder: string;
  try {
    await mkdir(cacheFolder, { recursive: true });
    workFolder = await mkdtemp(join(cacheFolder, '.work-'));
  } catch (error) {
    const problem = `cannot write to the cache folder ${cacheFolder} (${fileErrorReason(error)})`;
    throw new UserError(`${problem}: ${instead ?? `fetch ${what} once as a user who may`}`, { cause: error });
  }
  const apts = new Map<GuestArchitecture, Apt>();
  try {
    return await body(async (architecture, fetch) => {
      const apt = apts.get(architecture) ?? new Apt(run, workFolder, architecture);
      apts.set(architecture, apt);
      try {
        return await fetch(apt);
      } catch (error) {
        if (apt.hasOwnLists || isMissingProgram(error)) throw error;
        onProgress?.('reading package lists');
        await apt.useOwnLists();
        return fetch(apt);
      }
    });
  } catch (error) {
    const reason = isMissingProgram(error)
      ? `there is no apt here to fetch ${what} with`
      : `cannot fetch ${what} (${commandErrorReason(error)})`;
    throw new UserError(`${reason}: ${advice}`, { cause: error });
  } finally {
    await rm(workFolder, { recursive: true, force: true });
  }
}

/** Writes a file in the cache as a whole: other runs see all of it or nothing. */
export async function placeFile(workFolder: string, path: string, data: string | Uint8Array): Promise<void> {
  const draft = join(await mkdtemp(join(workFolder, 'draft-')), basename(path));
  await writeFile(draft, data);
  await rename(draft, path);
}

/** A .deb's files as a tar archive, into the program that `command` starts. */
export async function pipeDeb(deb: string, command: string, args: readonly string[]): Promise<void> {
  const unpacker = spawn('dpkg-deb', ['--fsys-tarfile', deb], { stdio: ['ignore', 'pipe', 'ignore'] });
  const reader = spawn(command, args, { stdio: [unpacker.stdout, 'ignore', 'ignore'] });
  // The pipe is the reader's now; while we hold it open, too, dpkg-deb would not notice that the reader is gone.
  unpacker.stdout.destroy();
  const ended = (child: ReturnType<typeof spawn>, name: string): Promise<void> =>
    new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`${name} could not unpack ${deb}`))));
    });
  await Promise.all([ended(unpacker, 'dpkg-deb'), ended(reader, command)]);
}

/** A .deb's files as a tar archive. */
export function readDeb(deb: string): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const options = { maxBuffer: 2 ** 31, encoding: 'buffer' } as const;
    execFile('dpkg-deb', ['--fsys-tarfile', deb], options, (error, stdout) => {
      if (error) reject(isMissingProgram(error) ? error : new Error(`dpkg-deb could not unpack ${deb}`, { cause: error }));
      else resolve(stdout);
    });
  });
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

export const isMissingProgram = (error: unknown): boolean => {
  const { code, syscall } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' && syscall?.startsWith('spawn') === true;
};
