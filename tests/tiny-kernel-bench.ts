/** Runs of the tiny kernel for tests: a driver on its platform, and whether the guest's counters and the host's agree. */

import { expect } from 'vitest';
import { cpuLimit, platformOf } from '../src/experiment/driver-platform.ts';
import { tallyInterrupts } from '../src/experiment/driver-run.ts';
import type { DriverName } from '../src/guest/apic/apic-driver.ts';
import type { EoiState } from '../src/guest/apic/driver-code.ts';
import { driverNamed } from '../src/guest/apic/drivers/all.ts';
import { buildKernel, type KernelOptions } from '../src/guest/kernel/kernel.ts';
import { type KernelReport, parseKernelReport } from '../src/guest/kernel/kernel-report.ts';
import { Vector } from '../src/guest/kernel/layout.ts';
import { workloadsOf } from '../src/guest/kernel/workloads.ts';
import { Machine, type MachineOptions } from '../src/machine/machine.ts';
import { PLATFORMS, type PlatformName } from '../src/machine/platforms/all.ts';
import { balance, type VcpuCounts } from '../src/trace/counters.ts';

export const ROUNDS = { timer: 20, 'ping-pong': 20, messages: 10, edge: 5, level: 5, nested: 5, nmi: 3 } as const;
const MEMORY_BYTES = 8 * 2 ** 20;
const GUEST_NANOSECONDS = 5e9;

/** Builds and runs a kernel until it powers off. */
export function runKernel(options: KernelOptions, vcpus: number, machineOptions: Partial<MachineOptions> = {}) {
  const kernel = buildKernel({ workloads: ROUNDS, ...options });
  const machine = new Machine({ kernel: kernel.elf, vcpus, memoryBytes: MEMORY_BYTES, ...machineOptions });
  let output = '';
  machine.serial.onOutput((bytes) => {
    output += new TextDecoder().decode(bytes);
  });
  const result = machine.run({ guestNanoseconds: GUEST_NANOSECONDS });
  expect(result, output).toMatchObject({ kind: 'ended', end: 'power-off' });
  return { kernel, machine, report: parseKernelReport(output), counters: machine.counters() };
}
export type KernelRun = ReturnType<typeof runKernel>;

/** Delivered = handled = ended, vCPU by vCPU and vector by vector. */
export function expectBalanced({ report, counters, machine }: KernelRun, platform: PlatformName = 'pc'): void {
  expect(report.complete).toBe(true);
  const tally = tallyInterrupts(report, counters, platform);
  expect(tally.length).toBeGreaterThan(0);
  for (const { cpu, vector, delivered, handled } of tally) expect(handled, `vCPU ${cpu}, vector ${vector}`).toBe(delivered);
  for (const [cpu, counts] of counters.vcpus.slice(0, report.cpus).entries()) {
    const { delivery, ending, isBalanced } = balance(counts);
    expect(isBalanced, JSON.stringify(balance(counts))).toBe(true);
    expect(delivery.accepted).toBe(delivery.injected);
    expect(ending.written + ending.elided).toBe(ending.injected - ending.external);
    expect(counts.eois.ignored).toBe(0);
    expect(counts.interrupts.inIsr).toBe(0);
    // Torn down: the host knows no word any more.
    if (report.pvEoi) expect(machine.cpus[cpu].kvm.pvEoi.readMsr()).toEqual({ low: 0, high: 0 });
  }
  // What the kernel left alone was left alone by interrupts, too.
  for (const counts of counters.vcpus.slice(report.cpus)) expect(counts.interrupts.accepted.total).toBe(0);
}

const sumOver = <Item>(items: readonly Item[], value: (item: Item) => number): number =>
  items.reduce((sum, item) => sum + value(item), 0);

/** A driver runs everything it can on its platform, and every interrupt is delivered, handled and ended, once. */
export function expectDriverWorks(driver: DriverName, state: EoiState, wanted: number): void {
  const { title, bits } = driverNamed(driver);
  const platform = platformOf(driver);
  const vcpus = Math.min(wanted, PLATFORMS[platform].maxVcpus);
  const runs = workloadsOf(driver);
  const workloads = Object.fromEntries(runs.map((workload) => [workload, ROUNDS[workload]]));
  const outcome = runKernel({ driver, state, workloads }, vcpus, { platform });
  const { report, counters } = outcome;
  const cpus = Math.min(vcpus, cpuLimit(driver).most);
  expect(report).toMatchObject({ bits, cpus, driver: title, pvEoi: state === 'pv-eoi' });
  expect(report.workloads.map(({ name }) => name)).toEqual(runs);
  expectBalanced(outcome, platform);
  if (driver === 'noop') expectWithoutApic(outcome);
  else expectWorkloads(report, counters.total, driver, state);
}

function expectWithoutApic({ kernel, machine, report, counters: { total } }: KernelRun): void {
  const handled = (vector: number) => report.handled[0].get(vector) ?? 0;
  expect(handled(Vector.legacy)).toBeGreaterThanOrEqual(ROUNDS.timer);
  expect(handled(Vector.legacy + 4)).toBe(ROUNDS.edge + 2 * ROUNDS.level);
  expect(total.interrupts.injected.bySource).toEqual({ extint: total.interrupts.injected.total });
  expect(total.eois).toMatchObject({ written: 0, elided: 0, ignored: 0, broadcast: 0 });
  // Ended at the 8259s: nothing is in service there.
  machine.devices.ports.write(0x20, 1, 0x0b);
  expect(machine.devices.ports.read(0x20, 1)).toBe(0);
  const warnings = kernel.image.symbols.get('noop_warnings') as number;
  expect([...machine.memory.slice(warnings, 4)]).toEqual([0, 0, 0, 0]);
}

function expectWorkloads(report: KernelReport, total: VcpuCounts, driver: DriverName, state: EoiState): void {
  const { cpus } = report;
  expect(report.nestedOrder).toEqual([0x41, 0x81, 0xc1, 0xc2, 0x82, 0x51, 0x52, 0x42]);
  // Each sender posts to each receiver, every round, and nothing is lost when interrupts coalesce.
  const isReceiver = (cpu: number): boolean => (cpus === 1 ? true : cpu % 2 === 1);
  const senders = Math.ceil(cpus / 2);
  expect(report.messages).toEqual(Array.from({ length: cpus }, (_, cpu) => (isReceiver(cpu) ? senders * ROUNDS.messages : 0)));
  for (const handled of report.handled) expect(handled.get(Vector.timer)).toBeGreaterThanOrEqual(ROUNDS.timer);
  // A level-triggered line that was left alone struck twice each round; every one was ended at the interrupt chip, and by a real write.
  const serial = ROUNDS.edge + 2 * ROUNDS.level;
  expect(sumOver(report.handled, (handled) => handled.get(Vector.serial) ?? 0)).toBe(serial);
  // Cobalt has the 8259s on a level-triggered input, whatever the serial port's line is.
  const levels = driver === 'visws' ? serial : 2 * ROUNDS.level;
  expect(total.eois.broadcast).toBe(levels);
  if (state === 'pv-eoi') {
    expect(total.eois.elided).toBeGreaterThan(cpus * ROUNDS.timer);
    expect(total.eois.writtenBecause['level-triggered']).toBe(levels);
  } else expect(total.eois.elided).toBe(0);
}
