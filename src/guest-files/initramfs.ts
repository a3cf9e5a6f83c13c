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
  /** A static busybox, put at /bin/busybox with its applets as links in /bin. */
  busybox?: Uint8Array;
  /** Applets to link; unless given, all that the binary names. */
  applets?: readonly string[];
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

/** An uncompressed cpio archive for `--initrd`. The same options make the same bytes. */
export function buildInitramfs(options: InitramfsOptions): Uint8Array {
  const entries = new Map<string, FileEntry>();
  const add = (entry: FileEntry): void => {
    const parts = entry.path.split('/');
    for (let depth = 1; depth < parts.length; depth++) {
      const path = parts.slice(0, depth).join('/');
      const parent = entries.get(path);
      if (!parent) entries.set(path, { kind: 'directory', path, mode: DIRECTORIES[path] ?? 0o755 });
      else if (parent.kind === 'file') throw new RangeError(`/${entry.path} lies in /${path}, which is a file`);
    }
    entries.set(entry.path, entry);
  };
  for (const [path, mode] of Object.entries(DIRECTORIES)) add({ kind: 'directory', path, mode });
  for (const device of DEVICES) add(device);
  if (options.busybox) {
    add({ kind: 'file', path: 'bin/busybox', mode: 0o755, data: options.busybox });
    for (const applet of options.applets ?? busyboxApplets(options.busybox)) {
      if (applet !== 'busybox') add({ kind: 'symlink', path: `bin/${applet}`, target: 'busybox' });
    }
  }
  add({ kind: 'file', path: 'init', mode: 0o755, data: bytesOf(options.init) });
  for (const [path, content] of Object.entries(options.files ?? {})) add(entryOf(path.replace(/^\/+/, ''), content));
  return writeCpio([...entries.values()]);
}
