/** `exitless compare`: the same workload under every strategy, and what the difference is. */

import { type Command, Option } from 'commander';
import {
  type Baseline,
  DEFAULT_STRATEGIES,
  formatSummary,
  Machine,
  runExperiment,
  STRATEGIES,
  type Strategy,
  summarise,
  UserError,
} from '../index.ts';
import { nodeHost, OutputFile } from '../platform/node/index.ts';
import { addJitReportOptions, type JitReportOptions, jitClock, printJitReports } from './jit-report.ts';
import { addSharedOptions, loadGuest, type LoadedGuest, type SharedDefaults, type SharedOptions } from './machine-options.ts';
import { strategyList, wholeNumber } from './option-values.ts';
import { Progress } from './progress.ts';
import { describeMachine, environment } from './run-report.ts';

interface CompareCommandOptions extends SharedOptions, JitReportOptions {
  strategy: Strategy[];
  repeat: number;
  baseline: Baseline;
  json: string | false;
}

const DEFAULTS: SharedDefaults = { smp: 2, boot: 'pvh', append: 'console=ttyS0 quiet', guest: 'workload', workloadGuest: 'tiny' };
const DEFAULT_JSON = 'exitless-compare.json';
const MAX_REPEAT = 1000;

const HELP = `
Strategies:
${STRATEGIES.map(({ name, description }) => `  ${name.padEnd(14)}${description}`).join('\n')}

The tiny guest is a kernel of ours, made on the spot: timer ticks, IPI ping-pong, messages between
groups of CPUs, edge- and level-triggered I/O interrupts, interrupts nested in each other.
--guest debian boots Debian's cloud kernel, unpacked by the host (--boot pvh) because all strategies
boot alike, for timer, IPI and serial load. What is measured lies between the lines "@@ start" and
"@@ done" on the console, in an initramfs of yours too.

Examples:
  exitless compare
  exitless compare --guest debian
  exitless compare --smp 4 --repeat 10 --strategy x2apic,pv-eoi
  exitless compare --cost vmx-2012 --baseline xapic --json vmx.json
  exitless compare --kernel bzImage --initrd workload.cpio`;

export function compareCommand(program: Command): void {
  const command = program.command('compare').description('run one workload under several strategies and compare them');
  addJitReportOptions(addSharedOptions(command, DEFAULTS))
    .addOption(
      new Option('--strategy <list>', 'what to compare, see below')
        .argParser(strategyList)
        .default(strategyList(DEFAULT_STRATEGIES), DEFAULT_STRATEGIES),
    )
    .addOption(
      new Option('--repeat <n>', 'runs of each strategy, with a seed of their own each')
        .argParser(wholeNumber('--repeat', 1, MAX_REPEAT))
        .default(1),
    )
    .addOption(
      new Option('--baseline <strategy>', 'what each is compared with: previous in the list, or a strategy').default(
        'previous',
        'previous',
      ),
    )
    .addOption(new Option('--json <file>', 'write everything that was measured').default(DEFAULT_JSON, DEFAULT_JSON))
    .option('--no-json', 'write no file')
    .addOption(
      new Option('--apic <mode>').hideHelp().argParser(() => {
        throw new UserError('--apic: the strategies choose it; say --strategy xapic or --strategy x2apic');
      }),
    )
    .addHelpText('after', HELP)
    .action(async (options: CompareCommandOptions) => compare(options));
}

async function compare(options: CompareCommandOptions): Promise<void> {
  const { strategy: strategies, baseline, repeat, seed, kvm } = options;
  const names = strategies.map(({ name }) => name);
  if (baseline !== 'previous' && !names.includes(baseline)) {
    throw new UserError(`--baseline: "${baseline}" is not among the strategies compared: ${names.join(', ')}`);
  }
  const json = options.json === false ? undefined : new OutputFile(options.json, 'JSON file');
  const progress = new Progress(process.stderr);
  const guest = await loadGuest(options, DEFAULTS, (line) => progress.line(line));
  let machine: Machine | undefined;
  const records = await runExperiment(
    { machine: guest.machine, kvm, strategies, repeat, seed },
    nodeHost,
    (machineOptions) => {
      machine = new Machine({ ...machineOptions, jitClock: jitClock(options) });
      return machine;
    },
    (event) => {
      progress.event(event);
      if (event.kind === 'run-finished' && machine) printJitReports(machine, options);
    },
  );
  const summary = summarise(records, baseline);
  process.stdout.write(`${heading(guest, options)}\n\n${formatSummary(summary)}\n`);
  json?.write(
    `${JSON.stringify({ ...environment(), machine: describeMachine(guest, options), strategies, repeat, summary, runs: records }, undefined, 1)}\n`,
  );
  json?.close();
  if (json) process.stdout.write(`\nEverything that was measured is in ${json.path}.\n`);
  const unbalanced = names.filter((name) => !summary.balance[name].isBalanced);
  if (unbalanced.length) throw new Error(`interrupts are not accounted for: ${unbalanced.join(', ')}`);
}

function heading(guest: LoadedGuest, { smp, memory, cost, seed, repeat, kvm }: CompareCommandOptions): string {
  const seeds = repeat > 1 ? `seeds ${seed} to ${seed + repeat - 1}` : `seed ${seed}`;
  return [
    `${guest.description.kernel}; ${guest.description.initrd}`,
    `${smp} vCPU${smp > 1 ? 's' : ''}, ${memory / 2 ** 20} MiB, cost profile ${cost.name}, ${seeds}${kvm.present ? '' : ', KVM hidden'}`,
  ].join('\n');
}
