/**
 * Builds an initramfs: an /init, busybox with a link for each of its applets, the usual directories and devices, extra files.
 * The links are made here so that the guest needn't run `busybox --install`.
 */
import { type FileEntry, writeCpio } from './cpio.ts';

/** A file's bytes or text (mode 644), the same with a mode, or the target of a symbolic link. */
export type FileContent = Uint8Array | string | { data: Uint8Array | string; mode: number } | { symlink: string };

export interface InitramfsOptions {
  /** What the kernel runs first: a script or a program. */
  init: Uint8Array | string;
  /** A static busybox, put at /bin/busybox with its applets as links in /bin, where `tree` has no program of that name. */
  busybox?: Uint8Array;
  /** Applets to link; unless given, all that the binary names. */
  applets?: readonly string[];
  /** What everything else is put into, in its order: the files of packages, as `packageTree` merges them. */
  tree?: readonly FileEntry[];
  /** More files by their absolute path; their directories are made. They replace what lies at the same path. */
  files?: Readonly<Record<string, FileContent>>;
}

const DIRECTORIES: Record<string, number> = {
  bin: 0o755,
  dev: 0o755,
  etc: 0o755,
  proc: 0o555,
  root: 0o700,
  run: 0o755,
  sys: 0o555,
  tmp: 0o1777,
};
/** The kernel opens /dev/console for init before anything can be mounted. */
const DEVICES: FileEntry[] = [
  { kind: 'character-device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
  { kind: 'character-device', path: 'dev/null', mode: 0o666, major: 1, minor: 3 },
];

const bytesOf = (data: Uint8Array | string): Uint8Array => (typeof data === 'string' ? new TextEncoder().encode(data) : data);

function entryOf(path: string, content: FileContent): FileEntry {
  if (typeof content === 'string' || content instanceof Uint8Array)
    return { kind: 'file', path, mode: 0o644, data: bytesOf(content) };
  if ('symlink' in content) return { kind: 'symlink', path, target: content.symlink };
  return { kind: 'file', path, mode: content.mode, data: bytesOf(content.data) };
}

/** The applets that a busybox binary has, in its own order: it keeps their names in one sorted run of NUL-terminated texts. */
export function busyboxApplets(busybox: Uint8Array): string[] {
  const first = new TextEncoder().encode('\0[\0[[\0');
  let start = busybox.indexOf(0x5b);
  while (start > 0 && !first.every((byte, index) => busybox[start - 1 + index] === byte))
    start = busybox.indexOf(0x5b, start + 1);
  if (start <= 0) return [];
  let end = start;
  while (end < busybox.length && !(busybox[end] === 0 && busybox[end + 1] === 0)) end++;
  return new TextDecoder('latin1').decode(busybox.subarray(start, end)).split('\0');
}

/** Links that lead to links, before it is a circle. As Linux has it. */
const MAX_LINKS = 40;

/** A file tree in the making. As in a file system, what is put behind a symbolic link to a directory lies where the link leads. */
class FileTree {
  private readonly entries = new Map<string, FileEntry>();

  /** Where `path` leads, and what is there. The last part is not followed. */
  locate(path: string): { path: string; entry: FileEntry | undefined } {
    let links = 0;
    let parts = path.split('/');
    for (let depth = 1; depth < parts.length; depth++) {
      const parent = this.entries.get(parts.slice(0, depth).join('/'));
      if (parent?.kind !== 'symlink') continue;
      if (++links > MAX_LINKS) throw new RangeError(`the links in /${path} go in circles`);
      const base = parent.target.startsWith('/') ? [] : parts.slice(0, depth - 1);
      parts = withoutDots([...base, ...parent.target.split('/'), ...parts.slice(depth)]);
      depth = 0;
    }
    const real = parts.join('/');
    return { path: real, entry: this.entries.get(real) };
  }

  /** Makes the directories it lies in. A directory that is there already stays as it is; anything else is replaced. */
  add(entry: FileEntry): void {
    const { path, entry: present } = this.locate(entry.path);
    if (entry.kind === 'directory' && present && this.isDirectory(present)) return;
    if (entry.kind !== 'directory' && present?.kind === 'directory') throw new RangeError(`/${path} is a directory`);
    const parts = path.split('/');
    for (let depth = 1; depth < parts.length; depth++) {
      const parentPath = parts.slice(0, depth).join('/');
      const parent = this.entries.get(parentPath);
      if (!parent) this.entries.set(parentPath, { kind: 'directory', path: parentPath, mode: DIRECTORIES[parentPath] ?? 0o755 });
      else if (parent.kind !== 'directory') throw new RangeError(`/${path} lies in /${parentPath}, which is a file`);
    }
    this.entries.set(path, { ...entry, path });
  }

  /** Parents come before what is in them. */
  list(): FileEntry[] {
    return [...this.entries.values()];
  }

  private isDirectory(entry: FileEntry, links = 0): boolean {
    if (entry.kind !== 'symlink') return entry.kind === 'directory';
    if (links === MAX_LINKS) throw new RangeError(`the links in /${entry.path} go in circles`);
    const { path, entry: target } = this.locate(`${entry.path}/.`); // as a parent it is followed
    return path === '' || (target !== undefined && this.isDirectory(target, links + 1));
  }
}

/** Resolves `.` and `..`; above the root is the root. */
function withoutDots(parts: readonly string[]): string[] {
  const result: string[] = [];
  for (const part of parts) {
    if (part === '..') result.pop();
    else if (part !== '' && part !== '.') result.push(part);
  }
  return result;
}

/** An uncompressed cpio archive for `--initrd`. The same options make the same bytes. */
export function buildInitramfs(options: InitramfsOptions): Uint8Array {
  const tree = new FileTree();
  for (const entry of options.tree ?? []) tree.add(entry);
  for (const [path, mode] of Object.entries(DIRECTORIES)) tree.add({ kind: 'directory', path, mode });
  for (const device of DEVICES) tree.add(device);
  if (options.busybox) {
    tree.add({ kind: 'file', path: 'bin/busybox', mode: 0o755, data: options.busybox });
    for (const applet of options.applets ?? busyboxApplets(options.busybox)) {
      const isThere = ['bin', 'sbin', 'usr/bin', 'usr/sbin'].some((folder) => tree.locate(`${folder}/${applet}`).entry);
      if (!isThere) tree.add({ kind: 'symlink', path: `bin/${applet}`, target: 'busybox' });
    }
  }
  tree.add({ kind: 'file', path: 'init', mode: 0o755, data: bytesOf(options.init) });
  for (const [path, content] of Object.entries(options.files ?? {})) tree.add(entryOf(path.replace(/^\/+/, ''), content));
  return writeCpio(tree.list());
}
