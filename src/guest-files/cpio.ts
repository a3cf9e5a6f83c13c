/**
 * The cpio format `newc` (magic 070701), which Linux unpacks its initramfs from. Source: the kernel's
 * Documentation/driver-api/early-userspace/buffer-format.rst. Archives are deterministic: everything is
 * root's, times are 0, inodes count up. Not made: hard links, checksums (070702).
 */

/** Something in a file tree. `mode` holds the permission bits only. */
export type FileEntry =
  | { kind: 'file'; path: string; mode: number; data: Uint8Array }
  | { kind: 'directory'; path: string; mode: number }
  | { kind: 'symlink'; path: string; target: string }
  | { kind: 'character-device' | 'block-device'; path: string; mode: number; major: number; minor: number }
  | { kind: 'fifo'; path: string; mode: number };

const MAGIC = '070701';
const HEADER_SIZE = 110;
const TRAILER = 'TRAILER!!!';
const FORMAT_MASK = 0o170000;
const PERMISSIONS = 0o7777;
const FORMAT: Record<FileEntry['kind'], number> = {
  fifo: 0o010000,
  'character-device': 0o020000,
  directory: 0o040000,
  'block-device': 0o060000,
  file: 0o100000,
  symlink: 0o120000,
};

const NO_DATA = new Uint8Array(0);
const padded = (bytes: number): number => Math.ceil(bytes / 4) * 4;

function contentOf(entry: FileEntry): Uint8Array {
  if (entry.kind === 'file') return entry.data;
  return entry.kind === 'symlink' ? new TextEncoder().encode(entry.target) : NO_DATA;
}

interface Member {
  name: Uint8Array;
  mode: number;
  links: number;
  device: [major: number, minor: number];
  content: Uint8Array;
}

function memberOf(entry: FileEntry): Member {
  const path = entry.path.replace(/^\/+/, '');
  if (path === '' || path.split('/').some((part) => part === '' || part === '.' || part === '..')) {
    throw new RangeError(`not a path for an archive: ${entry.path}`);
  }
  const permissions = entry.kind === 'symlink' ? 0o777 : entry.mode & PERMISSIONS;
  return {
    name: new TextEncoder().encode(path),
    mode: FORMAT[entry.kind] | permissions,
    links: entry.kind === 'directory' ? 2 : 1,
    device: 'major' in entry ? [entry.major, entry.minor] : [0, 0],
    content: contentOf(entry),
  };
}

/** Packs the entries in their order; a directory has to come before what is in it. Throws where a path is not one. */
export function writeCpio(entries: readonly FileEntry[]): Uint8Array {
  const members = entries.map(memberOf);
  members.push({ name: new TextEncoder().encode(TRAILER), mode: 0, links: 1, device: [0, 0], content: NO_DATA });
  const sizes = members.map(({ name, content }) => padded(HEADER_SIZE + name.length + 1) + padded(content.length));
  const archive = new Uint8Array(sizes.reduce((sum, size) => sum + size, 0));
  let offset = 0;
  members.forEach(({ name, mode, links, device, content }, index) => {
    const inode = index === members.length - 1 ? 0 : index + 1;
    // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, ...device, name.length + 1, 0];
    const header = MAGIC + fields.map((field) => field.toString(16).toUpperCase().padStart(8, '0')).join('');
    archive.set(new TextEncoder().encode(header), offset);
    archive.set(name, offset + HEADER_SIZE);
    archive.set(content, offset + padded(HEADER_SIZE + name.length + 1));
    offset += sizes[index];
  });
  return archive;
}

/** Unpacks an uncompressed archive. Throws where it is not one. */
export function readCpio(archive: Uint8Array): FileEntry[] {
  const text = new TextDecoder();
  const entries: FileEntry[] = [];
  for (let offset = 0; ; ) {
    const header = text.decode(archive.subarray(offset, offset + HEADER_SIZE));
    if (!/^070701[0-9a-fA-F]{104}$/.test(header)) throw new Error(`no cpio header at offset ${offset}`);
    const field = (index: number): number => Number.parseInt(header.slice(6 + 8 * index, 14 + 8 * index), 16);
    const [mode, contentBytes, major, minor, nameBytes] = [1, 6, 9, 10, 11].map(field);
    const nameStart = offset + HEADER_SIZE;
    const contentStart = offset + padded(HEADER_SIZE + nameBytes);
    if (contentStart + contentBytes > archive.length) throw new Error(`the cpio member at offset ${offset} is truncated`);
    const path = text.decode(archive.subarray(nameStart, nameStart + nameBytes - 1));
    if (path === TRAILER) return entries;
    const content = archive.subarray(contentStart, contentStart + contentBytes);
    entries.push(entryOf(path, mode, content, major, minor));
    offset = contentStart + padded(contentBytes);
  }
}

function entryOf(path: string, fullMode: number, content: Uint8Array, major: number, minor: number): FileEntry {
  const kind = (Object.keys(FORMAT) as FileEntry['kind'][]).find((name) => FORMAT[name] === (fullMode & FORMAT_MASK));
  const mode = fullMode & PERMISSIONS;
  switch (kind) {
    case 'file':
      return { kind, path, mode, data: content };
    case 'symlink':
      return { kind, path, target: new TextDecoder().decode(content) };
    case 'character-device':
    case 'block-device':
      return { kind, path, mode, major, minor };
    case 'directory':
    case 'fifo':
      return { kind, path, mode };
    case undefined:
      throw new Error(`${path} has an unknown mode ${fullMode.toString(8)}`);
  }
}
