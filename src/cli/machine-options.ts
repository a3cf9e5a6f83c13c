/** The options that all commands share: what machine to make, and what to boot on it. */

import { type Command, Option } from 'commander';
import {
  type BootMethod,
  buildInitramfs,
  COST_PROFILES,
  type CostProfile,
  CPU_MODELS,
  type CpuModel,
  DEFAULT_COST_PROFILE,
  DEFAULT_CPU_MODEL,
  DEFAULT_LOAD,
  KVM_FEATURES,
  KVM_ON,
  type KvmFeatureSet,
  type MachineOptions,
  MAX_TINY_VCPUS,
  PLATFORM_NAMES,
  type PlatformName,
  SHELL_INIT,
  TINY_WORKLOADS,
  type TinyKernel,
  tinyGuest,
  UserError,
  WORKLOAD_INIT,
} from '../index.ts';
import { debianGuestFiles, type GuestFiles, readInput } from '../platform/node/index.ts';
import { choice, costProfile, cpuModel, kvmFeatures, memorySize, seedValue, vcpuCount, wholeNumber } from './option-values.ts';

/** What commander makes of the shared options. */
export interface SharedOptions {
  kernel?: string;
  initrd?: string;
  append?: string;
  /** Undefined where the command boots no guest but Linux, or none was asked for. */
  guest?: GuestName;
  smp: number;
  memory: number;
  boot: BootMethod;
  kvm: KvmFeatureSet;
  cost: CostProfile;
  seed: number;
  jit: JitChoice;
  platform?: PlatformName;
  cpu: CpuModel;
  load: number;
}

/** Guests that come with us, or by way of apt. */
export const GUESTS = ['tiny', 'debian'] as const;
export type GuestName = (typeof GUESTS)[number];

export interface SharedDefaults {
  smp: number;
  boot: BootMethod;
  append: string;
  /** /init of the guest that is booted unless one is given. */
  guest: 'shell' | 'workload';
  /** Whose kernel runs the workload, where neither `--guest` nor `--kernel` and `--initrd` say so. */
  workloadGuest?: GuestName;
}

const MAX_LOAD = 1_000_000;
const DEFAULT_MEMORY = '256M';

export const memoryOption = (size: string): Option =>
  new Option('--memory <size>', 'guest RAM, like 256M or 1G').argParser(memorySize).default(memorySize(size), size);

/** Without a default the command has one of its own: PVH for 64-bit kernels. */
export function bootOption(boot?: BootMethod): Option {
  const option = new Option(
    '--boot <how>',
    'auto, bzimage (the kernel unpacks itself), pvh (the host unpacks it) or multiboot',
  ).argParser(choice('--boot', ['auto', 'bzimage', 'pvh', 'multiboot']));
  return boot ? option.default(boot, boot) : option;
}

export type JitChoice = 'on' | 'off' | 'force';

export const jitOption = (): Option =>
  new Option(
    '--jit <how>',
    'on or off: compile hot code, which changes nothing but the time it takes; force: all code, at first sight',
  )
    .argParser(choice('--jit', ['on', 'off', 'force']))
    .default('on', 'on');

/** The choice as the library takes it. */
export const jitOf = (jit: JitChoice): boolean | 'force' => (jit === 'force' ? jit : jit === 'on');

export const platformOption = (otherwise: string): Option =>
  new Option(
    '--platform <name>',
    `which machine, as docs/interrupts.md has them: ${PLATFORM_NAMES.join(', ')} (default: ${otherwise})`,
  ).argParser(choice('--platform', PLATFORM_NAMES));

export function addSharedOptions(command: Command, { smp, boot, append, guest, workloadGuest }: SharedDefaults): Command {
  const init = guest === 'shell' ? 'a shell' : 'the workload';
  const profiles = COST_PROFILES.map(({ name }) => name).join(', ');
  command
    .option(
      '--kernel <file>',
      "bzImage, ELF vmlinux or multiboot kernel to boot (default: Debian's cloud kernel, fetched by apt)",
    )
    .option(
      '--initrd <file>',
      `initramfs (default: ours, with busybox and ${init}${guest === 'shell' ? '; none with --kernel' : ''})`,
    )
    .option('--append <text>', `the kernel's command line (default: "${append}")`)
    .addOption(new Option('--smp <n>', 'number of vCPUs').argParser(vcpuCount).default(smp))
    .addOption(
      new Option(
        '--cpu <model>',
        `processor model and changes to it, like x86-64-v2,+bmi2,-pcid; models: ${[...CPU_MODELS.keys()].join(', ')}`,
      )
        .argParser(cpuModel)
        .default(DEFAULT_CPU_MODEL, DEFAULT_CPU_MODEL.name),
    )
    .addOption(memoryOption(DEFAULT_MEMORY))
    .addOption(bootOption(boot))
    .addOption(
      new Option(
        '--kvm <features>',
        `on, off, none, a list, or changes like +realtime,-steal-time; features: ${KVM_FEATURES.join(', ')}`,
      )
        .argParser(kvmFeatures)
        .default(KVM_ON, 'on'),
    )
    .addOption(
      new Option('--cost <profile>', `what exits cost the guest: ${profiles}, or a JSON file`)
        .argParser(costProfile)
        .default(DEFAULT_COST_PROFILE, DEFAULT_COST_PROFILE.name),
    )
    .addOption(new Option('--seed <n>', 'seed of the run: the same seed gives the same run').argParser(seedValue).default(1))
    .addOption(platformOption('pc'))
    .addOption(jitOption());
  if (workloadGuest) {
    command.addOption(
      new Option('--guest <which>', "tiny (a kernel of ours, nothing to fetch) or debian (Debian's, with busybox)")
        .argParser(choice('--guest', GUESTS))
        .default(undefined, `${workloadGuest}; debian with --initrd`),
    );
  }
  if (guest === 'workload') {
    command.addOption(
      new Option('--load <n>', "rounds of each phase of our workload's")
        .argParser(wholeNumber('--load', 1, MAX_LOAD))
        .default(DEFAULT_LOAD),
    );
  }
  return command;
}

/** What is booted, as reports name it. */
export interface GuestDescription {
  kernel: string;
  initrd: string;
}

export interface LoadedGuest {
  description: GuestDescription;
  /** The tiny guest, if it is that. */
  tiny?: TinyKernel;
  /** True where it runs our workload. */
  hasOurWorkload: boolean;
  machine: Omit<MachineOptions, 'apic' | 'kvm' | 'seed' | 'realtime'>;
}

/** What the tiny guest has no use for is refused rather than left out. */
function isTiny(
  { guest, kernel, initrd, append, boot, smp }: SharedOptions,
  { workloadGuest = 'debian' }: SharedDefaults,
): boolean {
  const isLinux = kernel !== undefined || initrd !== undefined;
  if ((guest ?? (isLinux ? 'debian' : workloadGuest)) !== 'tiny') {
    if (guest && kernel !== undefined) throw new UserError(`--guest ${guest}: --kernel names another one`);
    return false;
  }
  if (isLinux)
    throw new UserError(`--guest tiny: it is all in its kernel; leave out ${kernel ? '--kernel' : '--initrd'}, or --guest`);
  if (append !== undefined) throw new UserError('--append: the tiny guest has no command line (--guest debian has one)');
  if (boot === 'bzimage') throw new UserError('--boot: the tiny guest is an ELF file, which is started by pvh');
  if (smp > MAX_TINY_VCPUS)
    throw new UserError(`--smp: the tiny guest has up to ${MAX_TINY_VCPUS} vCPUs (--guest debian has more)`);
  return true;
}

/** Reads the files named, and fetches those not named. */
export async function loadGuest(
  options: SharedOptions,
  defaults: SharedDefaults,
  onProgress: (line: string) => void,
): Promise<LoadedGuest> {
  const { kernel: kernelPath, initrd: initrdPath } = options;
  const hardware = {
    memoryBytes: options.memory,
    vcpus: options.smp,
    boot: options.boot,
    cost: options.cost,
    cpu: options.cpu,
    jit: jitOf(options.jit),
    platform: options.platform,
  };
  if (isTiny(options, defaults)) {
    const tiny = tinyGuest(options.load);
    return {
      tiny,
      description: { kernel: 'tiny guest', initrd: `${options.load} rounds of ${TINY_WORKLOADS.join(', ')}` },
      hasOurWorkload: true,
      machine: { ...hardware, kernel: tiny.elf },
    };
  }
  // What the user named is read first: a wrong name should not cost a download.
  const ownKernel = kernelPath === undefined ? undefined : readInput(kernelPath, 'kernel');
  const ownInitrd = initrdPath === undefined ? undefined : readInput(initrdPath, 'initrd');
  const wantsOurInitrd = initrdPath === undefined && (kernelPath === undefined || defaults.guest === 'workload');
  let debian: GuestFiles | undefined;
  if (ownKernel === undefined || wantsOurInitrd) debian = await debianGuestFiles({ onProgress });

  let { append = defaults.append } = options;
  let initrd = ownInitrd;
  let initrdName = initrdPath ?? 'none';
  const hasOurWorkload = wantsOurInitrd && defaults.guest === 'workload';
  if (wantsOurInitrd && debian) {
    const busybox = readInput(debian.busybox, 'busybox');
    initrd = buildInitramfs({ init: hasOurWorkload ? WORKLOAD_INIT : SHELL_INIT, busybox });
    initrdName = `${defaults.guest}, busybox ${debian.busyboxPackage.version}`;
    if (hasOurWorkload) append += ` load=${options.load}`;
  }
  const kernelPackage = debian?.kernelPackage;
  return {
    description: {
      kernel: kernelPath ?? `${kernelPackage?.name} ${kernelPackage?.version}`,
      initrd: initrdName,
    },
    hasOurWorkload,
    machine: { ...hardware, kernel: ownKernel ?? readInput((debian as GuestFiles).vmlinuz, 'kernel'), initrd, append },
  };
}
