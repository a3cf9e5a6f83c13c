/** `exitless tiny`: an APIC driver in our tiny kernel, on the machine it is for. */

import { type Command, Option } from 'commander';
import {
  COST_PROFILES,
  type CostProfile,
  cpuLimit,
  DEFAULT_COST_PROFILE,
  DRIVER_NAMES,
  type DriverName,
  EOI_STATES,
  type EoiState,
  formatDriverRun,
  KVM_ON,
  type KvmFeatureSet,
  type PlatformName,
  platformOf,
  runDriver,
  UserError,
  WORKLOADS,
  type Workload,
} from '../index.ts';
import { OutputFile } from '../platform/node/index.ts';
import { type JitChoice, jitOf, jitOption, platformOption } from './machine-options.ts';
import { choice, costProfile, kvmFeatures, vcpuCount, wholeNumber } from './option-values.ts';
import { environment } from './run-report.ts';

interface TinyCommandOptions {
  driver?: DriverName;
  platform?: PlatformName;
  bits?: '32' | '64';
  state: EoiState;
  workload?: Workload[];
  rounds: number;
  smp: number;
  kvm: KvmFeatureSet;
  cost: CostProfile;
  jit: JitChoice;
  json?: string;
}

const DEFAULT_ROUNDS = 100;
const MAX_ROUNDS = 1_000_000;
const DISAGREEMENT_STATUS = 1;

const HELP = `
Drivers, and the machines they are for:
${DRIVER_NAMES.map((driver) => {
  const { most, why } = cpuLimit(driver);
  return `  ${driver.padEnd(15)} ${platformOf(driver).padEnd(15)} up to ${most} CPU${most === 1 ? '' : 's'}: ${why}`;
}).join('\n')}

States: before (EOI by the generic write), callback, x2apic-eoi, pv-eoi
Workloads: ${WORKLOADS.join(', ')}

Prints the counters, and whether what the guest handled is what the host delivered and saw ended;
the exit status is ${DISAGREEMENT_STATUS} where it is not.

Examples:
  exitless tiny
  exitless tiny --driver x2apic_cluster --state pv-eoi --workload ping-pong,messages
  exitless tiny --driver numaq --smp 24 --state before
  exitless tiny --platform es7000 --bits 32 --rounds 1000 --json run.json`;

export function tinyCommand(program: Command, onStatus: (status: number) => void): void {
  program
    .command('tiny')
    .description('run an APIC driver in a tiny kernel of ours, on the machine it is for, and count its interrupts')
    .addOption(
      new Option('--driver <name>', 'the APIC driver, see below (default: what the kernel chooses by the firmware)').argParser(
        choice('--driver', DRIVER_NAMES),
      ),
    )
    .addOption(platformOption("the driver's, else pc"))
    .addOption(
      new Option('--bits <n>', 'of the kernel, without --driver: 64 or 32 (default: 64)').argParser(
        choice('--bits', ['32', '64']),
      ),
    )
    .addOption(
      new Option('--state <name>', 'how interrupts are ended, see below')
        .argParser(choice('--state', EOI_STATES))
        .default('pv-eoi', 'pv-eoi'),
    )
    .addOption(
      new Option('--workload <list>', 'what to run, see below (default: all)').argParser((text: string) =>
        text.split(',').map((word) => choice('--workload', WORKLOADS)(word.trim())),
      ),
    )
    .addOption(
      new Option('--rounds <n>', 'rounds of each workload')
        .argParser(wholeNumber('--rounds', 1, MAX_ROUNDS))
        .default(DEFAULT_ROUNDS),
    )
    .addOption(new Option('--smp <n>', 'number of vCPUs').argParser(vcpuCount).default(2, '2, or as many as the driver has'))
    .addOption(
      new Option('--kvm <features>', 'on, off, none, a list, or changes like -pv-eoi')
        .argParser(kvmFeatures)
        .default(KVM_ON, 'on'),
    )
    .addOption(
      new Option(
        '--cost <profile>',
        `what exits cost the guest: ${COST_PROFILES.map(({ name }) => name).join(', ')}, or a JSON file`,
      )
        .argParser(costProfile)
        .default(DEFAULT_COST_PROFILE, DEFAULT_COST_PROFILE.name),
    )
    .addOption(jitOption())
    .option('--json <file>', 'write everything about the run')
    .addHelpText('after', HELP)
    .action((options: TinyCommandOptions, command: Command) => {
      const { driver, platform, bits, state, workload, rounds, kvm, cost, jit } = options;
      if (driver && bits) throw new UserError(`--bits: the driver ${driver} says it; leave out one of the two`);
      const most = driver ? cpuLimit(driver).most : Number.POSITIVE_INFINITY;
      const vcpus = command.getOptionValueSource('smp') === 'default' ? Math.min(options.smp, most) : options.smp;
      const json = options.json === undefined ? undefined : new OutputFile(options.json, 'JSON file');
      const run = runDriver({
        driver,
        platform,
        bits: bits === undefined ? undefined : bits === '32' ? 32 : 64,
        state,
        workloads: workload,
        rounds,
        vcpus,
        kvm,
        cost,
        jit: jitOf(jit),
      });
      process.stdout.write(`${formatDriverRun(run)}\n`);
      json?.write(
        `${JSON.stringify({ ...environment(), state, driver: driver ?? 'chosen', ...run, report: { ...run.report, handled: undefined } }, undefined, 2)}\n`,
      );
      json?.close();
      onStatus(run.agrees ? 0 : DISAGREEMENT_STATUS);
    });
}
