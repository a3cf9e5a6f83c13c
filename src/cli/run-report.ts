/** What JSON files say about how a machine was made and how its run went. */

import { balance, type Machine, VERSION } from '../index.ts';
import type { LoadedGuest, SharedOptions } from './machine-options.ts';
import { describeEnd, exitStatusOf, type MachineRunEnd } from './machine-run.ts';

/** Of the tool and where it ran. */
export function environment() {
  return { exitless: VERSION, node: process.version, platform: `${process.platform}-${process.arch}` };
}

/** Everything the result depends on. */
export function describeMachine(guest: LoadedGuest, { kvm, seed }: Pick<SharedOptions, 'kvm' | 'seed'>) {
  const { vcpus, memoryBytes, append, boot, cost, jit, platform = 'pc' } = guest.machine;
  return {
    ...guest.description,
    append,
    vcpus,
    memoryBytes,
    boot,
    platform,
    jit,
    kvm: kvm.present ? [...kvm.features] : 'off',
    cost,
    seed,
  };
}

/** One run at the console. */
export function runReport(machine: Machine, guest: LoadedGuest, options: SharedOptions & { apic: string }, end: MachineRunEnd) {
  const counters = machine.counters();
  return {
    ...environment(),
    machine: { ...describeMachine(guest, options), apic: options.apic },
    end: { kind: end.kind === 'ended' ? end.end : end.kind, exitStatus: exitStatusOf(end), report: describeEnd(end) },
    guestSeconds: machine.nowNanoseconds / 1e9,
    instructions: machine.instructions,
    counters,
    balance: balance(counters.total),
  };
}
