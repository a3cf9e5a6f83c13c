/**
 * One run of the tiny kernel with an APIC driver on the machine it is for: what the guest says it handled beside what the host
 * delivered and saw ended.
 */

import type { DriverName } from '../guest/apic/apic-driver.ts';
import type { EoiState } from '../guest/apic/driver-code.ts';
import type { GuestBits } from '../guest/apic/guest-abi.ts';
import { buildKernel } from '../guest/kernel/kernel.ts';
import { KERNEL_END, type KernelReport, parseKernelReport } from '../guest/kernel/kernel-report.ts';
import { Vector } from '../guest/kernel/layout.ts';
import { type Workload, workloadsOf } from '../guest/kernel/workloads.ts';
import { EXIT_STATUS, Machine, type MachineOptions } from '../machine/machine.ts';
import { PLATFORMS, type PlatformName } from '../machine/platforms/all.ts';
import { UserError } from '../machine/user-error.ts';
import { balance, type CountersSnapshot } from '../trace/counters.ts';
import { cpuLimit, platformOf } from './driver-platform.ts';
import { WorkloadError } from './runner.ts';
import { formatSeconds } from './text-table.ts';

const MEMORY_BYTES = 8 * 2 ** 20;
/** Guest time in which a run is expected to be done: to start, and for each round of a workload on a vCPU. */
const START_NANOSECONDS = 1e9;
const ROUND_NANOSECONDS = 1e6;

export interface DriverRunOptions extends Pick<MachineOptions, 'vcpus' | 'cost' | 'cpu' | 'jit' | 'kvm' | 'seed'> {
  /** Unless given, the kernel chooses by what the machine's firmware says. */
  driver?: DriverName | undefined;
  /** Of the kernel, where no driver says it; 64 unless given. */
  bits?: GuestBits | undefined;
  /** The driver's unless given. */
  platform?: PlatformName | undefined;
  state: EoiState;
  /** All that the driver can run unless given. */
  workloads?: readonly Workload[] | undefined;
  /** Of each workload. */
  rounds: number;
}

/** One vector on one CPU, NMIs being vector 2. */
export interface InterruptTally {
  cpu: number;
  vector: number;
  /** By the host. */
  delivered: number;
  /** By the guest's own count. */
  handled: number;
}

export interface DriverRun {
  platform: PlatformName;
  vcpus: number;
  report: KernelReport;
  counters: CountersSnapshot;
  instructions: number;
  /** Vectors of the CPUs that the kernel uses. */
  tally: InterruptTally[];
  /** Every interrupt was delivered, handled and ended, once. */
  agrees: boolean;
}

/** The host's counts beside the guest's. */
export function tallyInterrupts(report: KernelReport, { vcpus }: CountersSnapshot, platform: PlatformName): InterruptTally[] {
  // An NMI that starts a processor is taken by no handler.
  const startedBy = PLATFORMS[platform].startsByNmi ? 1 : 0;
  return report.handled.flatMap((handledHere, cpu) => {
    const { injected, nmisInjected } = vcpus[cpu].interrupts;
    const delivered = new Map(
      Object.entries(injected.byVector).map(([vector, sources]) => [
        Number(vector),
        Object.values(sources).reduce((sum, count) => sum + count, 0),
      ]),
    );
    const nmis = nmisInjected - (cpu > 0 ? startedBy : 0);
    if (nmis) delivered.set(Vector.nmi, nmis);
    const vectors = [...new Set([...delivered.keys(), ...handledHere.keys()])].sort((a, b) => a - b);
    return vectors.map((vector) => ({
      cpu,
      vector,
      delivered: delivered.get(vector) ?? 0,
      handled: handledHere.get(vector) ?? 0,
    }));
  });
}

/** Throws a UserError for what cannot be, and a WorkloadError where the kernel did not get to its end. */
export function runDriver(options: DriverRunOptions): DriverRun {
  const { driver, bits, state, vcpus, rounds, cost, cpu, jit, kvm, seed } = options;
  const platform = options.platform ?? (driver === undefined ? 'pc' : platformOf(driver));
  const possible = workloadsOf(driver);
  for (const workload of options.workloads ?? []) {
    if (!possible.includes(workload)) throw new UserError(`the driver ${driver} can run ${possible.join(', ')}, not ${workload}`);
  }
  const limit = driver === undefined ? undefined : cpuLimit(driver);
  if (limit && vcpus > limit.most)
    throw new UserError(`the driver ${driver} has up to ${limit.most} vCPUs, not ${vcpus} (${limit.why})`);
  const chosen = options.workloads ?? possible;
  const workloads = Object.fromEntries(chosen.map((workload) => [workload, rounds]));
  const kernel = buildKernel({ driver, bits, state, workloads });
  const machine = new Machine({ kernel: kernel.elf, memoryBytes: MEMORY_BYTES, platform, vcpus, cost, cpu, jit, kvm, seed });
  let output = '';
  machine.serial.onOutput((bytes) => {
    output += new TextDecoder().decode(bytes);
  });
  try {
    const result = machine.run({ guestNanoseconds: START_NANOSECONDS + ROUND_NANOSECONDS * rounds * chosen.length * vcpus });
    if (result.kind !== 'ended' || result.end !== 'power-off' || !output.endsWith(KERNEL_END)) {
      const last = output.trim().split('\n').at(-1) || 'nothing';
      const end =
        result.kind === 'ended'
          ? result.report.split('\n')[0]
          : `not done after ${formatSeconds(machine.nowNanoseconds / 1e9)} s of its time`;
      const status = result.kind === 'ended' && result.exitStatus ? result.exitStatus : EXIT_STATUS.hung;
      throw new WorkloadError(`the kernel did not get to its end on this ${platform}: ${end}; it said last: ${last}`, status);
    }
    const report = parseKernelReport(output);
    const counters = machine.counters();
    const tally = tallyInterrupts(report, counters, platform);
    const agrees =
      tally.every(({ delivered, handled }) => delivered === handled) &&
      counters.vcpus.every((counts) => balance(counts).isBalanced);
    return { platform, vcpus, report, counters, instructions: machine.instructions, tally, agrees };
  } finally {
    machine.dispose();
  }
}
