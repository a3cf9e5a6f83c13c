/** Reading what the user names on the command line; every way it can fail is one line for the user. */
import { readFileSync, statSync } from 'node:fs';
import { UserError } from '../../machine/user-error.ts';

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
