import { UserError } from '../user-error.ts';

/** A kernel, initrd, command line or memory size that can't be booted: the user's mistake, said in one line. */
export class BootError extends UserError {
  override name = 'BootError';
}

/** A size as people say it, for messages. */
export function sizeText(bytes: number): string {
  if (bytes < 2 ** 10) return `${bytes} bytes`;
  const [unit, name] = bytes < 2 ** 20 ? [2 ** 10, 'KiB'] : [2 ** 20, 'MiB'];
  return `${Number((bytes / unit).toFixed(1))} ${name}`;
}
