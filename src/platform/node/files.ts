/** Reading what the user names on the command line; every way it can fail is one line for the user. */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { FileContent } from '../../guest-files/initramfs.ts';
import { UserError } from '../../machine/user-error.ts';

const PERMISSIONS = 0o7777;
const REASONS: Record<string, string> = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'a part of its path is not a directory',
  EISDIR: 'it is a directory',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  ELOOP: 'its symbolic links go in circles',
  ENAMETOOLONG: 'its name is too long',
  ERR_FS_FILE_TOO_LARGE: 'it is larger than 2 GiB',
};

/** What a failed file operation says to the user. */
export function fileErrorReason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return (code && REASONS[code]) ?? message;
}

/** All bytes of the file at `path`; `what` is its part, as in "kernel". Throws a UserError where that fails or it is empty. */
export function readInput(path: string, what: string): Uint8Array {
  const fail = (reason: string, cause?: unknown): never => {
    throw new UserError(`cannot read the ${what} ${path}: ${reason}`, { cause });
  };
  try {
    const stat = statSync(path);
    if (stat.isDirectory()) fail('it is a directory');
    if (stat.isCharacterDevice() || stat.isBlockDevice()) fail('it is a device');
    const data = readFileSync(path);
    if (data.length === 0) fail('it is empty');
    return data;
  } catch (error) {
    if (error instanceof UserError) throw error;
    return fail(fileErrorReason(error), error);
  }
}

/** The file at `host`, or all that is in the folder there, as files of a guest: by their path, with their modes and links. */
export function readFiles(host: string, guest: string): Record<string, FileContent> {
  try {
    const stat = statSync(host);
    if (stat.isFile()) return { [guest]: { data: readFileSync(host), mode: stat.mode & PERMISSIONS } };
    if (!stat.isDirectory()) throw new UserError(`cannot read the file ${host}: it is neither a file nor a folder`);
    return Object.assign(
      {},
      ...readdirSync(host, { withFileTypes: true }).map((entry): Record<string, FileContent> => {
        const [from, to] = [join(host, entry.name), `${guest}/${entry.name}`];
        return entry.isSymbolicLink() ? { [to]: { symlink: readlinkSync(from) } } : readFiles(from, to);
      }),
    );
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`cannot read the file ${host}: ${fileErrorReason(error)}`, { cause: error });
  }
}
