/** `exitless initramfs`: a guest of one's own, made of Debian's packages and files of the host. */

import { type Command, Option } from 'commander';
import {
  buildInitramfs,
  COMMAND_INIT,
  COMMAND_PATH,
  EXIT_PROGRAM_PATH,
  EXIT_STATUS_PORT,
  exitProgram,
  type FileContent,
  UserError,
} from '../index.ts';
import { type GuestArchitecture, debianBusybox, debianTree, OutputFile, readFiles, readInput } from '../platform/node/index.ts';
import { choice } from './option-values.ts';

interface InitramfsCommandOptions {
  package: string[];
  file: HostFile[];
  run?: string;
  init?: string;
  arch: GuestArchitecture;
  refresh?: true;
  output: string;
}

interface HostFile {
  host: string;
  guest: string;
}

const HELP = `
The packages come with all that they depend on, by apt-get download (nothing is installed, no root is
needed), into a cache. Documentation, manuals and translations are left out. The packages' own scripts
do not run: what they would set up (alternatives, caches, accounts) is missing.

The guest runs what the kernel's command line has behind " -- ", or else what --run says, or else a
shell, and powers off. The status of what it ran is the exit status of "exitless boot".

Boot it with enough memory for the archive, what is unpacked from it, and the programs.

Examples:
  exitless initramfs --package stress-ng --run 'stress-ng --cpu 1 -t 5' --output stress.cpio
  exitless boot --initrd stress.cpio --memory 512M --append 'console=ttyS0 quiet'
  exitless boot --initrd stress.cpio --memory 512M --append 'console=ttyS0 -- stress-ng --matrix 1'
  exitless initramfs --package gcc --package libc6-dev --file hello.c:/root/hello.c --output gcc.cpio
  exitless initramfs --file ./a.out:/bin/a.out --run a.out --output a.cpio`;

const gather =
  <Value>(parse: (text: string) => Value) =>
  (text: string, previous: Value[]) => [...previous, parse(text)];

/** `HOST:GUEST`; a host's path may have colons. */
function hostFile(text: string): HostFile {
  const colon = text.lastIndexOf(':');
  const [host, guest] = [text.slice(0, colon), text.slice(colon + 1)];
  if (colon < 1 || !/^\/./.test(guest) || guest.split('/').some((part) => part === '.' || part === '..')) {
    throw new UserError(`--file: "${text}" is not HOST:GUEST with an absolute path in the guest`);
  }
  return { host, guest: guest.replace(/\/+/g, '/').replace(/\/$/, '') };
}

export function initramfsCommand(program: Command): void {
  program
    .command('initramfs')
    .description("build an initramfs of Debian's packages and your files, for boot --initrd")
    .addOption(
      new Option('--package <name>', 'a package of Debian, with all that it needs; may be repeated')
        .argParser(gather((text) => text))
        .default([], 'none: busybox alone'),
    )
    .addOption(
      new Option('--file <host:guest>', 'a file or folder of the host, and its path in the guest; may be repeated')
        .argParser(gather(hostFile))
        .default([], 'none'),
    )
    .option('--run <command>', 'what the guest runs, for its shell')
    .option('--init <script>', "a file that the kernel starts as /init, instead of ours (which powers off at the command's end)")
    .addOption(
      new Option('--arch <name>', 'amd64, or i386 for 32-bit kernels')
        .argParser(choice('--arch', ['amd64', 'i386']))
        .default('amd64', 'amd64'),
    )
    .option('--refresh', 'ask apt for the current versions, whatever the cache has')
    .requiredOption('--output <file>', 'the archive to write (cpio, not compressed)')
    .addHelpText('after', HELP)
    .action(buildAndWrite);
}

async function buildAndWrite(options: InitramfsCommandOptions): Promise<void> {
  if (options.init !== undefined && options.run !== undefined) {
    throw new UserError('--init and --run exclude each other: the script is what the guest runs');
  }
  // What the user named is read first: a wrong name should not cost a download.
  const init = options.init === undefined ? COMMAND_INIT : readInput(options.init, 'init script');
  const files: Record<string, FileContent> = { [EXIT_PROGRAM_PATH]: { data: exitProgram(EXIT_STATUS_PORT), mode: 0o755 } };
  if (options.run !== undefined) files[COMMAND_PATH] = `${options.run}\n`;
  for (const { host, guest } of options.file) Object.assign(files, readFiles(host, guest));
  const output = new OutputFile(options.output, 'initramfs');

  const { arch: architecture, refresh } = options;
  const onProgress = (line: string): void => void process.stderr.write(`${line}\n`);
  const { tree, packages } = await debianTree(options.package, { architecture, onProgress, refresh: refresh === true });
  const busybox = readInput(await debianBusybox(architecture, { onProgress }), 'busybox');
  const archive = archiveOf({ init, busybox, tree, files });
  output.writeBytes(archive);
  output.close();
  const size = `${(archive.length / 2 ** 20).toFixed(1)} MiB`;
  process.stderr.write(`${options.output}: ${size}, ${packages.length} packages and busybox\n`);
}

/** What contradicts itself in it (a file inside of a file) is the user's mistake. */
function archiveOf(contents: Parameters<typeof buildInitramfs>[0]): Uint8Array {
  try {
    return buildInitramfs(contents);
  } catch (error) {
    if (error instanceof RangeError) throw new UserError(`cannot build the initramfs: ${error.message}`, { cause: error });
    throw error;
  }
}
