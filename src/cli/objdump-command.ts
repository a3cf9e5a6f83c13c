/** `exitless objdump`: the machine code of an APIC driver's methods, as each state of the EOI optimisation has it, and what it costs. */

import { type Command, Option } from 'commander';
import {
  compareObjdumps,
  DRIVER_NAMES,
  type DriverName,
  driverEoiTable,
  driverNamed,
  EOI_STATES,
  type EoiState,
  type ListedMethod,
  METHODS,
  objdump,
  pathTable,
  traceDriverEois,
  UserError,
} from '../index.ts';
import { wrapped } from './help-text.ts';
import { choice } from './option-values.ts';

interface ObjdumpCommandOptions {
  driver?: DriverName;
  method: ListedMethod;
  state: EoiState;
  against?: EoiState;
  table?: true;
}

const LISTED: readonly ListedMethod[] = [...METHODS, 'ackApicIrq'];

const HELP = `
Drivers: ${wrapped(DRIVER_NAMES, 90)}
Methods: ${wrapped(LISTED, 90)}
States:  before (EOI by the generic write), callback, x2apic-eoi, pv-eoi

Below an eoiWrite stands what the EOIs of a kernel with this driver executed, from ack_APIC_irq to its
return, counted while it ran.

Examples:
  exitless objdump --driver x2apic_cluster --method eoiWrite
  exitless objdump --driver x2apic_phys --state before --against x2apic-eoi
  exitless objdump --driver flat --method ackApicIrq --state pv-eoi
  exitless objdump --table`;

export function objdumpCommand(program: Command): void {
  program
    .command('objdump')
    .description("list the machine code of an APIC driver's methods, in one state of the EOI or in two side by side")
    .addOption(new Option('--driver <name>', 'the APIC driver, see below').argParser(choice('--driver', DRIVER_NAMES)))
    .addOption(
      new Option('--method <name>', 'which method').argParser(choice('--method', LISTED)).default('eoiWrite', 'eoiWrite'),
    )
    .addOption(
      new Option('--state <state>', 'state of the optimisation')
        .argParser(choice('--state', EOI_STATES))
        .default('callback', 'callback'),
    )
    .addOption(new Option('--against <state>', 'another one, listed beside it').argParser(choice('--against', EOI_STATES)))
    .option('--table', 'instead: what EOIs cost with every driver in every state, as Markdown')
    .addHelpText('after', HELP)
    .action((options: ObjdumpCommandOptions) => console.log(options.table ? driverEoiTable() : listed(options).join('\n')));
}

function listed({ driver: name, method, state, against }: ObjdumpCommandOptions): string[] {
  if (name === undefined) throw new UserError(`--driver: say which one, of ${DRIVER_NAMES.join(', ')}; or --table for all`);
  if (against === state) throw new UserError(`--against: ${against} is what --state says, too`);
  const driver = driverNamed(name);
  const lines = against ? compareObjdumps(driver, method, [state, against]) : objdump(driver, method, state);
  if (lines.length === 0) throw new UserError(`--method: the driver ${name} has no ${method}`);
  if (method !== 'eoiWrite' && method !== 'ackApicIrq') return lines;
  for (const each of against ? [state, against] : [state]) {
    const { paths, symbols, traced } = traceDriverEois(driver, each);
    lines.push('', `${traced} EOIs with ${name}, ${each}:`, '', pathTable(paths, symbols));
  }
  return lines;
}
