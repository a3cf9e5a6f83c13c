/** `exitless trace`: what happened, event by event, as ftrace's text under KVM's names. */

import { type Command, Option } from 'commander';
import {
  formatCount,
  formatEvent,
  ftraceHeader,
  LineReader,
  Machine,
  TRACEPOINTS,
  type TracepointName,
  UserError,
} from '../index.ts';
import { nodeHost, OutputFile } from '../platform/node/index.ts';
import { wrapped } from './help-text.ts';
import { addSharedOptions, loadGuest, type SharedDefaults, type SharedOptions } from './machine-options.ts';
import { describeEnd, exitStatusOf, runMachine } from './machine-run.ts';
import { choice, seconds, tracepointList } from './option-values.ts';

interface TraceCommandOptions extends SharedOptions {
  apic: 'xapic' | 'x2apic';
  output: string;
  events?: TracepointName[];
  from?: string;
  until?: string;
  timeout?: number;
}

const DEFAULTS: SharedDefaults = {
  smp: 2,
  boot: 'pvh',
  append: 'console=ttyS0 quiet',
  guest: 'workload',
  workloadGuest: 'debian',
};
const WORKLOAD_START = '@@ start';
const WORKLOAD_DONE = '@@ done';

const HELP = `
Without --initrd, boots the workload of exitless compare --guest debian (or of --guest tiny) and
traces that, from "${WORKLOAD_START}" to
"${WORKLOAD_DONE}" on the console; --from '' traces from power-on. The guest's console goes to
standard output, or to standard error with -o -.

Events: ${wrapped(TRACEPOINTS, 90)}

Examples:
  exitless trace -o trace.txt
  exitless trace --guest tiny -o tiny.txt
  exitless trace -o - --from '' --events kvm_msr 2>/dev/null | grep 4b564d04
  exitless trace -o eoi.txt --events kvm_eoi,kvm_pv_eoi,kvm_apic_accept_irq --apic xapic
  exitless trace -o boot.txt --from '' --until 'Run /init' --append console=ttyS0
  exitless trace -o trace.txt --kernel bzImage --initrd initramfs.cpio`;

export function traceCommand(program: Command, onStatus: (status: number) => void): void {
  addSharedOptions(program.command('trace').description("write a trace of the run: ftrace's text with KVM's events"), DEFAULTS)
    .requiredOption('-o, --output <file>', 'where the trace goes; - is standard output')
    .addOption(
      new Option('--apic <mode>', 'xapic, or x2apic if the kernel wants it')
        .argParser(choice('--apic', ['xapic', 'x2apic']))
        .default('x2apic', 'x2apic'),
    )
    .addOption(new Option('--events <list>', 'only these, see below').argParser(tracepointList))
    .option('--from <text>', 'trace from the first line on the console that has this in it')
    .option('--until <text>', 'end the run at the first line after that has this in it')
    .addOption(new Option('--timeout <seconds>', "break off after so many of the host's seconds").argParser(seconds))
    .addHelpText('after', HELP)
    .action(async (options: TraceCommandOptions) => {
      onStatus(await trace(options));
    });
}

async function trace(options: TraceCommandOptions): Promise<number> {
  const output = new OutputFile(options.output, 'trace');
  const guest = await loadGuest(options, DEFAULTS, (line) => process.stderr.write(`${line}\n`));
  const { apic, kvm, seed, events } = options;
  const from = options.from ?? (guest.hasOurWorkload ? WORKLOAD_START : '');
  const until = options.until ?? (guest.hasOurWorkload ? WORKLOAD_DONE : undefined);
  const machine = new Machine({ ...guest.machine, apic, kvm, seed });

  const screen = output.isStandardOutput ? process.stderr : process.stdout;
  let count = 0;
  let isTracing = false;
  let isDone = false;
  const write = (event: Parameters<typeof formatEvent>[0]): void => {
    count++;
    output.write(`${formatEvent(event)}\n`);
  };
  const start = (): void => {
    isTracing = true;
    machine.tracer.subscribe(write, events ?? TRACEPOINTS);
  };
  output.write(ftraceHeader(options.smp));
  if (from === '') start();
  const lines = new LineReader((line) => {
    if (!isTracing) {
      if (line.includes(from)) start();
    } else if (until !== undefined && line.includes(until)) isDone = true;
  });
  machine.serial.onOutput((bytes) => {
    screen.write(bytes);
    lines.push(bytes);
  });
  try {
    const end = await runMachine(machine, {
      realtime: false,
      timeoutSeconds: options.timeout,
      pause: () => nodeHost.pause(),
      shouldLeave: () => isDone || output.isBroken,
    });
    output.close();
    if (!isTracing) throw new UserError(`--from: no line on the console had "${from}" in it (${describeEnd(end)})`);
    process.stderr.write(`${formatCount(count)} events in ${options.output}\n`);
    return exitStatusOf(end);
  } finally {
    machine.dispose();
  }
}
