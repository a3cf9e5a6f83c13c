/** `exitless boot`: a machine with its serial console on the terminal. */

import { type Command, Option } from 'commander';
import { formatCounters, Machine } from '../index.ts';
import { OutputFile } from '../platform/node/index.ts';
import { TerminalConsole } from './console.ts';
import { ESCAPE_HELP } from './escape-key.ts';
import { addJitReportOptions, type JitReportOptions, jitClock, printJitReports } from './jit-report.ts';
import { addSharedOptions, loadGuest, type SharedDefaults, type SharedOptions } from './machine-options.ts';
import { describeEnd, exitStatusOf, runMachine, TIMEOUT_STATUS } from './machine-run.ts';
import { choice, seconds } from './option-values.ts';
import { runReport } from './run-report.ts';

interface BootCommandOptions extends SharedOptions, JitReportOptions {
  apic: 'xapic' | 'x2apic';
  realtime?: boolean;
  testDevice?: true;
  debugConsole?: string;
  timeout?: number;
  stats?: true;
  json?: string;
}

/** Ctrl-D. */
const END_OF_TRANSMISSION = 4;
/**
 * A pipe that ended stays at its end, but a terminal's Ctrl-D is read once, and lost on a shell that is just starting. So it is
 * typed anew whenever the guest has been silent for so long.
 */
const SILENCE_NANOSECONDS = 1e9;

const DEFAULTS: SharedDefaults = { smp: 1, boot: 'auto', append: 'console=ttyS0', guest: 'shell' };

const HELP = `
Without --kernel, boots Debian's cloud kernel to a busybox shell. On the console:
${ESCAPE_HELP.map((line) => `  ${line}`).join('\n')}

Input may be a pipe; after its end the guest gets Ctrl-D when it is silent.

Exit status: 0 power-off, 3 reboot, 4 panic, 5 triple fault, 6 hung, 7 emulation failure, ${TIMEOUT_STATUS} timeout;
what the guest writes to ports 0xf4 and 0xf5 gives its own. 2 is a mistake in what was given,
1 one of ours.

Examples:
  exitless boot
  exitless boot --smp 4 --memory 1G --apic xapic --stats
  exitless boot --kernel bzImage --initrd initramfs.cpio --append 'console=ttyS0 quiet'
  exitless boot --kernel hello.elf --test-device --append 'a multiboot kernel of yours'
  exitless boot --kvm=-pv-eoi,-steal-time --cost vmx-2012 --json counters.json
  echo 'cat /proc/interrupts' | exitless boot --smp 2`;

export function bootCommand(program: Command, onStatus: (status: number) => void): void {
  const command = program.command('boot').description('boot a kernel, with its serial console on the terminal');
  addJitReportOptions(addSharedOptions(command, DEFAULTS))
    .addOption(
      new Option('--apic <mode>', 'xapic, or x2apic if the kernel wants it')
        .argParser(choice('--apic', ['xapic', 'x2apic']))
        .default('x2apic', 'x2apic'),
    )
    .option('--realtime', 'idle time takes as long as it says (the default at a terminal)')
    .option('--no-realtime', 'idle time is skipped, and the same seed gives the same run')
    .option('--debug-console <file>', 'write there what the guest writes to port 0xe9; - is standard output')
    .option('--test-device', 'add the device that bare-metal test programs drive: interrupt lines, latches, MMIO')
    .addOption(new Option('--timeout <seconds>', "break off after so many of the host's seconds").argParser(seconds))
    .option('--stats', 'print the counters at the end')
    .option('--json <file>', 'write them, and everything about the run')
    .addHelpText('after', HELP)
    .action(async (options: BootCommandOptions) => {
      onStatus(await boot(options));
    });
}

async function boot(options: BootCommandOptions): Promise<number> {
  const json = options.json === undefined ? undefined : new OutputFile(options.json, 'JSON file');
  const debugConsole = options.debugConsole === undefined ? undefined : new OutputFile(options.debugConsole, 'debug console');
  const guest = await loadGuest(options, DEFAULTS, (line) => process.stderr.write(`${line}\n`));
  const { apic, kvm, seed, testDevice, realtime = process.stdin.isTTY === true } = options;
  const machine = new Machine({ ...guest.machine, apic, kvm, seed, testDevice, realtime, jitClock: jitClock(options) });

  let leaving = false;
  /** When the guest last printed, or was told that there is no more input. */
  let lastNanoseconds = 0;
  const terminal = new TerminalConsole({
    onInput: (bytes) => machine.serial.write(bytes),
    onLeave: () => {
      leaving = true;
    },
    onStatistics: () => terminal.notice(formatCounters(machine.counters())),
  });
  machine.serial.onOutput((bytes) => {
    lastNanoseconds = machine.nowNanoseconds;
    terminal.write(bytes);
  });
  if (debugConsole) {
    const decoder = new TextDecoder();
    machine.debugConsole.onOutput((bytes) => {
      debugConsole.write(decoder.decode(bytes, { stream: true }));
      debugConsole.flush();
    });
  }
  const repeatEndOfInput = (): void => {
    if (!terminal.inputHasEnded || machine.nowNanoseconds < lastNanoseconds + SILENCE_NANOSECONDS) return;
    lastNanoseconds = machine.nowNanoseconds;
    machine.serial.write(Uint8Array.of(END_OF_TRANSMISSION));
  };
  try {
    const end = await runMachine(machine, {
      realtime,
      timeoutSeconds: options.timeout,
      pause: (milliseconds) => {
        repeatEndOfInput();
        return terminal.pause(milliseconds);
      },
      shouldLeave: () => leaving,
    });
    terminal.close();
    const isQuiet = end.kind === 'left' || (end.kind === 'ended' && end.end === 'power-off' && !terminal.isTerminal);
    if (!isQuiet) terminal.notice(`exitless: ${describeEnd(end)}`);
    if (options.stats) process.stderr.write(`\n${formatCounters(machine.counters())}\n`);
    debugConsole?.close();
    printJitReports(machine, options);
    json?.write(`${JSON.stringify(runReport(machine, guest, options, end), undefined, 2)}\n`);
    json?.close();
    return exitStatusOf(end);
  } finally {
    terminal.close();
    machine.dispose();
  }
}
