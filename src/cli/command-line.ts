/** The command line from arguments to exit status. What is wrong with the user's input is said in one line, status 2. */

import { Command, CommanderError } from 'commander';
import { UserError, VERSION, WorkloadError } from '../index.ts';
import { benchCommand } from './bench-command.ts';
import { bootCommand } from './boot-command.ts';
import { compareCommand } from './compare-command.ts';
import { eoiCommand } from './eoi-command.ts';
import { initramfsCommand } from './initramfs-command.ts';
import { objdumpCommand } from './objdump-command.ts';
import { tinyCommand } from './tiny-command.ts';
import { traceCommand } from './trace-command.ts';

const USER_ERROR_STATUS = 2;
const OUR_ERROR_STATUS = 1;

const HELP = `
Examples:
  exitless boot                 Debian's kernel to a shell, here on the terminal
  exitless compare              what PV EOI saves, on a kernel of ours (--guest debian: on Debian's)
  exitless trace -o trace.txt   every exit and interrupt of a run, as ftrace prints them
  exitless eoi --guest debian   what a kernel executes to end an interrupt, counted
  exitless initramfs --package stress-ng --output stress.cpio
  exitless objdump --driver flat --state callback --against pv-eoi
  exitless tiny --driver numaq  an APIC driver on the machine it was for
  exitless bench --set all      how fast guests run`;

/** `onStatus` is told by a command how it ended. */
function createProgram(onStatus: (status: number) => void): Command {
  const program = new Command('exitless')
    .description('An x86-64 virtual machine that shows what every interrupt costs its guest.')
    .version(VERSION)
    .helpOption('-h, --help', 'show help')
    .helpCommand(false)
    .addHelpText('after', HELP);
  bootCommand(program, onStatus);
  compareCommand(program);
  traceCommand(program, onStatus);
  eoiCommand(program);
  objdumpCommand(program);
  tinyCommand(program, onStatus);
  benchCommand(program);
  initramfsCommand(program);
  for (const command of [program, ...program.commands]) {
    command.exitOverride();
    command.allowExcessArguments(false);
    command.configureOutput({ outputError: (text, write) => write(oneLine(text)) });
    command.configureHelp({ helpWidth: 100 });
  }
  return program;
}

/** Commander's own errors, as ours look. */
const oneLine = (text: string): string =>
  `exitless: ${text
    .replace(/^error: /, '')
    .trim()
    .replaceAll('\n', ' ')}\n`;

/** Says what went wrong, and returns the exit status. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USER_ERROR_STATUS; // it has printed already
  if (error instanceof UserError) {
    process.stderr.write(`exitless: ${error.message}\n`);
    return USER_ERROR_STATUS;
  }
  if (error instanceof WorkloadError) {
    process.stderr.write(`exitless: ${error.message}\n`);
    return error.exitStatus;
  }
  process.stderr.write(`exitless: this is our mistake, please report it: ${error instanceof Error ? error.stack : error}\n`);
  return OUR_ERROR_STATUS;
}

/** Runs what `args` say and returns what the process is to exit with. */
export async function runCommandLine(args: readonly string[]): Promise<number> {
  let status = 0;
  try {
    const program = createProgram((result) => {
      status = result;
    });
    await program.parseAsync(args, { from: 'user' });
    return status;
  } catch (error) {
    return report(error);
  }
}
