/**
 * The files of Debian packages as one tree that programs run in: /bin, /sbin and /lib are links into /usr, as on an installed
 * Debian, and what only people read is left out. The packages' scripts do not run: no alternatives, no caches, no accounts but root.
 */
import type { FileEntry } from './cpio.ts';

/** Debian's base-files makes these links, whatever the architecture (usrmerge). */
const MERGED_FOLDERS = ['bin', 'sbin', 'lib', 'lib32', 'lib64', 'libx32'];

/** Folders that no program needs. */
const UNNEEDED = ['doc', 'doc-base', 'man', 'info', 'locale', 'lintian', 'bug', 'menu'].map((name) => `usr/share/${name}`);

/** What base-passwd and netbase would bring: programs ask for root's name and localhost's address. */
const BASE_FILES: Record<string, string> = {
  'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n',
  'etc/group': 'root:x:0:\nnogroup:x:65534:\n',
  'etc/hosts': '127.0.0.1 localhost\n::1 localhost\n',
};

const isNeeded = ({ path }: FileEntry): boolean => !UNNEEDED.some((folder) => path === folder || path.startsWith(`${folder}/`));

/** What to give `buildInitramfs` as its `tree`, from each package's entries. */
export function packageTree(packages: readonly (readonly FileEntry[])[]): FileEntry[] {
  const links = MERGED_FOLDERS.flatMap((name): FileEntry[] => [
    { kind: 'directory', path: `usr/${name}`, mode: 0o755 },
    { kind: 'symlink', path: name, target: `usr/${name}` },
  ]);
  const base = Object.entries(BASE_FILES).map(([path, text]): FileEntry => {
    return { kind: 'file', path, mode: 0o644, data: new TextEncoder().encode(text) };
  });
  return [...links, ...base, ...packages.flat().filter(isNeeded)];
}
