/** `exitless eoi`: what a guest executes to end an interrupt, traced at every one of a run's. */

import { type Command, Option } from 'commander';
import {
  DEFAULT_STRATEGIES,
  type EoiTrace,
  formatCount,
  linuxEoiCode,
  Machine,
  pathCounts,
  pathListing,
  pathTable,
  type Strategy,
  type SymbolTable,
  tinyEoiCode,
  traceEois,
  UserError,
} from '../index.ts';
import { createDisassembler, nodeHost, OutputFile } from '../platform/node/index.ts';
import { addSharedOptions, loadGuest, type SharedDefaults, type SharedOptions } from './machine-options.ts';
import { strategyList } from './option-values.ts';
import { Progress } from './progress.ts';
import { describeMachine, environment } from './run-report.ts';

interface EoiCommandOptions extends SharedOptions {
  strategy: Strategy[];
  json?: string;
}

const DEFAULTS: SharedDefaults = {
  smp: 2,
  boot: 'pvh',
  append: 'console=ttyS0 quiet',
  guest: 'workload',
  workloadGuest: 'tiny',
};
/** What is executed less often is in the table, and in the JSON file. */
const LISTED_SHARE = 0.01;

const HELP = `
Traces every EOI from power-on to power-off: in the tiny guest from the first instruction of
ack_APIC_irq to its return, in Linux (3.5 to 6.6) from the interrupt handler's CALL of
apic->eoi_write to its return. For comparison also Linux's writes of other registers by the generic
function: an EOI was one of these before it had a function of its own. The traced run is the same
run as one that is not traced. The kernel's symbols come from its own kallsyms.

Branches are conditional ones. Reads and writes are of data, stack and the APIC's page. Interrupts
that come in between are not counted.

Examples:
  exitless eoi
  exitless eoi --guest debian
  exitless eoi --guest debian --strategy pv-eoi --load 50 --json eoi.json`;

export function eoiCommand(program: Command): void {
  addSharedOptions(program.command('eoi').description('list and count what a guest executes to end an interrupt'), DEFAULTS)
    .addOption(
      new Option('--strategy <list>', 'ways of ending an interrupt, as compare has them')
        .argParser(strategyList)
        .default(strategyList(DEFAULT_STRATEGIES), DEFAULT_STRATEGIES),
    )
    .option('--json <file>', 'write every path that was executed')
    .addHelpText('after', HELP)
    .action(async (options: EoiCommandOptions) => eoi(options));
}

async function eoi(options: EoiCommandOptions): Promise<void> {
  const { strategy: strategies, seed, kvm, smp } = options;
  const json = options.json === undefined ? undefined : new OutputFile(options.json, 'JSON file');
  const progress = new Progress(process.stderr);
  const guest = await loadGuest(options, DEFAULTS, (line) => progress.line(line));
  if (!guest.tiny && options.boot !== 'pvh')
    throw new UserError('--boot: EOIs are traced of kernels that start by pvh, at fixed addresses');
  const code = guest.tiny ? tinyEoiCode(guest.tiny) : linuxEoiCode(guest.machine.kernel);
  const traces = await traceEois(
    { machine: guest.machine, kvm, strategies, seed },
    code,
    nodeHost,
    (machineOptions) => new Machine(machineOptions),
    (event) => progress.event(event),
  );
  const { kernel, initrd } = guest.description;
  const heading = `${kernel}; ${initrd}\n${smp} vCPU${smp > 1 ? 's' : ''}, cost profile ${options.cost.name}, seed ${seed}`;
  process.stdout.write(`${[heading, ...traces.map((trace) => report(trace, code.symbols))].join('\n\n')}\n`);
  json?.write(
    `${JSON.stringify({ ...environment(), machine: describeMachine(guest, options), traces: traces.map(plain) }, undefined, 1)}\n`,
  );
  json?.close();
}

const count = (n: number, what: string): string => `${formatCount(n)} ${what}${n === 1 ? '' : 's'}`;

function report({ strategy, paths, traced, written, elided, incomplete }: EoiTrace, symbols: SymbolTable): string {
  const disassemble = createDisassembler();
  const listed = paths.filter(({ calls }) => calls >= traced * LISTED_SHARE);
  const listings = listed.map(
    (path) => `[${paths.indexOf(path) + 1}] ${count(path.calls, 'time')}\n${pathListing(path, symbols, disassemble).join('\n')}`,
  );
  const unseen = incomplete
    ? [`${count(incomplete, 'call')} left the code that was watched, and ${incomplete === 1 ? 'is' : 'are'} not counted.`]
    : [];
  const title = `${strategy}: ${count(traced, 'EOI')} traced; ${formatCount(written)} written, ${formatCount(elided)} elided`;
  return [`${title}\n${'═'.repeat(title.length)}`, pathTable(paths, symbols), ...listings, ...unseen].join('\n\n');
}

/** For JSON: addresses and code in hexadecimal. */
function plain({ paths, ...trace }: EoiTrace) {
  const address = (value: bigint): string => `0x${value.toString(16)}`;
  return {
    ...trace,
    paths: paths.map((path) => ({
      ...path,
      ...pathCounts(path),
      origins: [...path.origins].map(([from, calls]) => ({ from: address(from), calls })),
      steps: path.steps.map(({ guestVirtual, code, accesses, ...step }) => ({
        guestVirtual: address(guestVirtual),
        code: Buffer.from(code).toString('hex'),
        ...step,
        accesses: accesses.map((access) => ({ ...access, guestVirtual: address(access.guestVirtual) })),
      })),
    })),
  };
}
