/**
 * Reads tar archives: POSIX.1-2001 (pax), ustar and GNU's long names, which is what packages are made of. Owners and times are
 * dropped; a hard link becomes a file of its own, with the same bytes. Not read: sparse files, old archives without a magic.
 */
import type { FileEntry } from './cpio.ts';

const BLOCK_BYTES = 512;
const PERMISSIONS = 0o7777;
const text = new TextDecoder();

const field = (header: Uint8Array, start: number, length: number): string => {
  const bytes = header.subarray(start, start + length);
  const end = bytes.indexOf(0);
  return text.decode(end < 0 ? bytes : bytes.subarray(0, end));
};

/** Octal digits, or where the first bit is set a binary number (GNU). */
function number(header: Uint8Array, start: number, length: number): number {
  if ((header[start] & 0x80) === 0) return Number.parseInt(field(header, start, length).trim() || '0', 8);
  return header.subarray(start + 1, start + length).reduce((value, byte) => value * 256 + byte, 0);
}

/** The bytes of the header, the checksum itself counted as blanks. */
function hasRightChecksum(header: Uint8Array): boolean {
  const sum = header.reduce((total, byte, index) => total + (index >= 148 && index < 156 ? 0x20 : byte), 0);
  return sum === number(header, 148, 8);
}

/** Records of a pax header: `LENGTH KEY=VALUE\n`, lengths in bytes. */
function paxRecords(data: Uint8Array): Map<string, string> {
  const records = new Map<string, string>();
  for (let offset = 0; offset < data.length; ) {
    const length = Number.parseInt(text.decode(data.subarray(offset, offset + 20)), 10);
    if (!(length > 0)) throw new Error('a pax header of the tar archive is corrupt');
    const [, key, value] = /^\d+ ([^=]+)=([\s\S]*)\n$/.exec(text.decode(data.subarray(offset, offset + length))) ?? [];
    if (key !== undefined) records.set(key, value);
    offset += length;
  }
  return records;
}

/** `./usr/bin/` is `usr/bin`, and the root is ''. */
const normalised = (path: string): string =>
  path
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/');

/** The entries in their order. Throws where the archive is corrupt or has what is not known. */
export function readTar(archive: Uint8Array): FileEntry[] {
  const entries: FileEntry[] = [];
  const files = new Map<string, Extract<FileEntry, { kind: 'file' }>>();
  let overrides = new Map<string, string>();
  for (let offset = 0; offset + BLOCK_BYTES <= archive.length; ) {
    const header = archive.subarray(offset, offset + BLOCK_BYTES);
    if (header.every((byte) => byte === 0)) return entries;
    if (!hasRightChecksum(header)) throw new Error(`no tar header at offset ${offset}`);
    const bytes = Number(overrides.get('size') ?? number(header, 124, 12));
    const start = offset + BLOCK_BYTES;
    if (start + bytes > archive.length) throw new Error(`the tar archive is truncated at offset ${offset}`);
    const data = archive.subarray(start, start + bytes);
    offset = start + Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;

    const type = String.fromCharCode(header[156] || 0x30);
    if (type === 'L' || type === 'K') {
      overrides.set(type === 'L' ? 'path' : 'linkpath', field(data, 0, data.length));
      continue;
    }
    if (type === 'x') {
      for (const [key, value] of paxRecords(data)) overrides.set(key, value);
      continue;
    }
    if (type === 'g') continue;
    const prefix = field(header, 257, 6) === 'ustar' ? field(header, 345, 155) : '';
    const path = normalised(overrides.get('path') ?? (prefix ? `${prefix}/` : '') + field(header, 0, 100));
    const target = overrides.get('linkpath') ?? field(header, 157, 100);
    overrides = new Map();
    if (path === '') continue;
    const mode = number(header, 100, 8) & PERMISSIONS;
    switch (type) {
      case '0':
      case '7': {
        const file = { kind: 'file', path, mode, data } as const;
        files.set(path, file);
        entries.push(file);
        break;
      }
      case '1': {
        const original = files.get(normalised(target));
        if (!original) throw new Error(`${path} in the tar archive is a link to ${target}, which is not in it`);
        entries.push({ ...original, path });
        break;
      }
      case '2':
        entries.push({ kind: 'symlink', path, target });
        break;
      case '3':
      case '4': {
        const kind = type === '3' ? 'character-device' : 'block-device';
        entries.push({ kind, path, mode, major: number(header, 329, 8), minor: number(header, 337, 8) });
        break;
      }
      case '5':
        entries.push({ kind: 'directory', path, mode });
        break;
      case '6':
        entries.push({ kind: 'fifo', path, mode });
        break;
      default:
        throw new Error(`${path} in the tar archive is of the unknown type "${type}"`);
    }
  }
  throw new Error('the tar archive has no end');
}
