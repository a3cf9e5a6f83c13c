/** `exitless objdump`: the machine code of an APIC driver's methods, as each state of the EOI optimisation has it. */

import { type Command, Option } from 'commander';
import {
  compareObjdumps,
  DRIVER_NAMES,
  type DriverName,
  driverNamed,
  EOI_STATES,
  type EoiState,
  eoiPaths,
  type ListedMethod,
  METHODS,
  objdump,
  UserError,
} from '../index.ts';
import { choice } from './option-values.ts';

interface ObjdumpCommandOptions {
  driver: DriverName;
  method: ListedMethod;
  state: EoiState[];
}

const LISTED: readonly ListedMethod[] = [...METHODS, 'ackApicIrq'];

const HELP = `
Drivers: ${DRIVER_NAMES.join(', ')}
Methods: ${LISTED.join(', ')}
States:  before (EOI by the generic write), callback, x2apic-eoi, pv-eoi

Two states, separated by a comma, are listed side by side. Below an eoiWrite stands what each way through it costs.

Examples:
  exitless objdump --driver x2apic_cluster --method eoiWrite
  exitless objdump --driver x2apic_phys --method ackApicIrq --state before,x2apic-eoi
  exitless objdump --driver flat --state callback,pv-eoi`;

function states(text: string): EoiState[] {
  const list = text.split(',').map(choice('--state', EOI_STATES));
  if (list.length > 2) throw new UserError('--state: one state, or two to compare');
  return list;
}

export function objdumpCommand(program: Command): void {
  program
    .command('objdump')
    .description("list the machine code of an APIC driver's methods, of one state of the EOI or of two side by side")
    .addOption(
      new Option('--driver <name>', 'the APIC driver, see below')
        .argParser(choice('--driver', DRIVER_NAMES))
        .makeOptionMandatory(),
    )
    .addOption(
      new Option('--method <name>', 'which method').argParser(choice('--method', LISTED)).default('eoiWrite', 'eoiWrite'),
    )
    .addOption(new Option('--state <list>', 'state of the optimisation').argParser(states).default(['callback'], 'callback'))
    .addHelpText('after', HELP)
    .action(({ driver: name, method, state }: ObjdumpCommandOptions) => {
      const driver = driverNamed(name);
      const [first, second] = state;
      const lines = second ? compareObjdumps(driver, method, [first, second]) : objdump(driver, method, first);
      console.log(lines.join('\n'));
      if (method !== 'eoiWrite' && method !== 'ackApicIrq') return;
      for (const each of state) {
        console.log(`\nEOI of ${name}, state ${each}:`);
        for (const path of eoiPaths(driver, each)) {
          const { when, instructions, conditionalBranches, transfers, memoryReads, memoryWrites, apicAccess, functions } = path;
          const counts = `${instructions} instructions, ${conditionalBranches} conditional branches, ${transfers} calls, jumps and returns`;
          console.log(`  ${when}: ${counts}, ${memoryReads} memory reads, ${memoryWrites} writes, APIC access ${apicAccess}`);
          console.log(`    ${functions.join(' → ')}`);
        }
      }
    });
}
