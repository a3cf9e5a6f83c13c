import { describe, expect, it } from 'vitest';
import { KVM_OFF, parseKvmFeatures } from '../../kvm/features.ts';
import { Machine, type MachineOptions } from '../../machine/machine.ts';
import { balance } from '../../trace/counters.ts';
import { type DriverName, structureBytes, structureOffset, structureSymbol } from '../apic/apic-driver.ts';
import { EOI_STATES, functionCode } from '../apic/driver-code.ts';
import { driverNamed, PROBE_ORDER } from '../apic/drivers/all.ts';
import { PV_EOI_OVERRIDE } from '../apic/pv-eoi.ts';
import type { ObjectCode } from '../assembler/assembler.ts';
import { codeBytes } from '../listing.ts';
import { buildKernel, type KernelOptions, type PlatformFacts } from './kernel.ts';
import { parseKernelReport } from './kernel-report.ts';
import { Vector } from './layout.ts';

const ROUNDS = { timer: 20, 'ping-pong': 20, messages: 10, edge: 5, level: 5, nested: 5, nmi: 3 } as const;
const MEMORY_BYTES = 8 * 2 ** 20;

function run(options: KernelOptions, vcpus: number, machineOptions: Partial<MachineOptions> = {}) {
  const kernel = buildKernel({ workloads: ROUNDS, ...options });
  const machine = new Machine({ kernel: kernel.elf, vcpus, memoryBytes: MEMORY_BYTES, ...machineOptions });
  let output = '';
  machine.serial.onOutput((bytes) => {
    output += new TextDecoder().decode(bytes);
  });
  const result = machine.run({ guestNanoseconds: 5e9 });
  expect(result, output).toMatchObject({ kind: 'ended', end: 'power-off' });
  return { kernel, machine, report: parseKernelReport(output), counters: machine.counters() };
}

/** Delivered = handled = ended, vCPU by vCPU and vector by vector. */
function expectBalanced({ report, counters, machine }: ReturnType<typeof run>): void {
  expect(report.complete).toBe(true);
  for (const [cpu, counts] of counters.vcpus.entries()) {
    const injected = Object.entries(counts.interrupts.injected.byVector).map(([vector, sources]) => [
      Number(vector),
      Object.values(sources).reduce((sum, n) => sum + n, 0),
    ]);
    const nmis = counts.interrupts.nmisInjected ? [[Vector.nmi, counts.interrupts.nmisInjected]] : [];
    expect([...report.handled[cpu]], `vCPU ${cpu}`).toEqual([...nmis, ...injected]);
    const { delivery, ending, isBalanced } = balance(counts);
    expect(isBalanced, JSON.stringify(balance(counts))).toBe(true);
    expect(delivery.accepted).toBe(delivery.injected);
    expect(ending.written + ending.elided).toBe(ending.injected);
    expect(counts.eois.ignored).toBe(0);
    expect(counts.interrupts.inIsr).toBe(0);
    // Torn down: the host knows no word any more.
    if (report.pvEoi) expect(machine.cpus[cpu].kvm.pvEoi.readMsr()).toEqual({ low: 0, high: 0 });
  }
}

const PC_DRIVERS: readonly DriverName[] = ['flat', 'physflat', 'x2apic_cluster', 'x2apic_phys', 'default', 'bigsmp', 'summit'];

describe.each(PC_DRIVERS)('the tiny kernel with %s', (driver) => {
  const { title, bits } = driverNamed(driver);

  // Each run costs a machine: the numbers of vCPUs in between see the end of the series alone, with three of the drivers.
  const sizes = ['flat', 'x2apic_phys', 'default'].includes(driver) ? [1, 2, 3, 4] : [2, 4];

  it.each(sizes)('on %i vCPUs: interrupts delivered = handled = ended, in every state', (vcpus) => {
    for (const state of vcpus === 2 ? EOI_STATES : vcpus === 4 ? (['before', 'pv-eoi'] as const) : (['pv-eoi'] as const)) {
      const outcome = run({ driver, state }, vcpus);
      const { report, counters } = outcome;
      expect(report).toMatchObject({ bits, cpus: vcpus, driver: title, pvEoi: state === 'pv-eoi' });
      expectBalanced(outcome);
      expect(report.nestedOrder).toEqual([0x41, 0x81, 0xc1, 0xc2, 0x82, 0x51, 0x52, 0x42]);
      // Each sender posts to each receiver, every round, and nothing is lost when interrupts coalesce.
      const receivers = vcpus === 1 ? [0] : [1, 3].filter((cpu) => cpu < vcpus);
      const senders = Math.ceil(vcpus / 2);
      expect(report.messages).toEqual(
        Array.from({ length: vcpus }, (_, cpu) => (receivers.includes(cpu) ? senders * ROUNDS.messages : 0)),
      );
      for (const handled of report.handled) expect(handled.get(Vector.timer)).toBeGreaterThanOrEqual(ROUNDS.timer);
      // A level-triggered line that was left alone struck twice each round; every one was ended at the I/O APIC, and by a real
      // write.
      expect(report.handled[0].get(Vector.serial)).toBe(ROUNDS.edge + 2 * ROUNDS.level);
      expect(counters.total.eois.broadcast).toBe(2 * ROUNDS.level);
      if (state === 'pv-eoi') {
        expect(counters.total.eois.elided).toBeGreaterThan(vcpus * ROUNDS.timer);
        expect(counters.total.eois.writtenBecause['level-triggered']).toBe(2 * ROUNDS.level);
      } else expect(counters.total.eois.elided).toBe(0);
    }
  });
});

describe('the tiny kernel', () => {
  it.each([64, 32] as const)('is built and booted in well under a second (%i-bit)', (bits) => {
    const start = performance.now();
    const { report } = run({ bits, workloads: { timer: 1 } }, 2);
    expect(report).toMatchObject({ bits, complete: true });
    expect(performance.now() - start).toBeLessThan(5000); // on a busy machine
  });

  it('runs the same twice, instruction for instruction', () => {
    const [first, second] = [run({}, 3), run({}, 3)];
    expect(second.machine.instructions).toBe(first.machine.instructions);
    expect(second.report).toEqual(first.report);
  });

  it.each([9, 24])('starts %i vCPUs, with the drivers for so many', (vcpus) => {
    for (const options of [{}, { x2apic: false }, { bits: 32 as const }]) {
      const outcome = run({ ...options, workloads: { timer: 5, messages: 2 } }, vcpus);
      expectBalanced(outcome);
      expect(outcome.report.driver).toBe(
        options.bits ? 'bigsmp' : options.x2apic === false ? 'physical flat' : 'physical x2apic',
      );
    }
  });

  it.each([
    ['KVM is hidden', KVM_OFF],
    ['KVM offers no PV EOI', kvm('none')],
  ])('ends interrupts by the register where %s', (_, features) => {
    const outcome = run({ state: 'pv-eoi' }, 2, { kvm: features });
    expect(outcome.report.pvEoi).toBe(false);
    expect(outcome.counters.total.eois.elided).toBe(0);
    expectBalanced(outcome);
  });
});

function kvm(text: string) {
  const parsed = parseKvmFeatures(text);
  if (!parsed.ok) throw new Error('no such features');
  return parsed.value;
}

describe('the override', () => {
  it.each([64, 32] as const)('changes eoiWrite of every driver in memory, and no other byte of drivers and code (%i-bit)', (bits) => {
    const { kernel, machine } = run({ bits, state: 'pv-eoi', workloads: { timer: 2 } }, 1);
    const { base, bytes, symbols } = kernel.image;
    const word = bits === 64 ? 8 : 4;
    const addressOf = (symbol: string): number => symbols.get(symbol) as number;
    const changes = (from: number, length: number): number[] => {
      const now = machine.memory.slice(from, length);
      return Array.from({ length }, (_, i) => i).filter((i) => now[i] !== bytes[from - base + i]);
    };
    // Structures: the slot alone, and in it the override.
    const eoi = structureOffset('eoiWrite', word);
    for (const { name } of PROBE_ORDER[bits]) {
      const structure = addressOf(structureSymbol(name));
      const changed = changes(structure, structureBytes(word));
      expect(changed.length, name).toBeGreaterThan(0);
      expect(changed.filter((offset) => offset < eoi || offset >= eoi + word), name).toEqual([]);
      expect(new DataView(machine.memory.slice(structure + eoi, 4).slice().buffer).getUint32(0, true)).toBe(addressOf(PV_EOI_OVERRIDE));
    }
    // Code: all of it.
    const functions = [...symbols.keys()].filter((symbol) => functionCode(symbol, bits));
    expect(functions.length).toBeGreaterThan(70);
    for (const symbol of functions) expect(changes(addressOf(symbol), codeBytes(functionCode(symbol, bits) as ObjectCode)), symbol).toEqual([]);
  });
});

describe('probing', () => {
  const chosen = (options: KernelOptions & { platform: PlatformFacts }, vcpus = 1): string => {
    const { kernel, machine } = run({ ...options, workloads: {} }, vcpus);
    const at = kernel.image.symbols.get('apic') as number;
    const value = new DataView(machine.memory.slice(at, 4).slice().buffer).getUint32(0, true);
    return (
      [...kernel.image.symbols].find(([name, address]) => name.startsWith('apic_') && !name.includes('.') && address === value)?.[0] ??
      'nothing'
    );
  };

  it.each<[string, PlatformFacts, Partial<KernelOptions>]>([
    ['apic_flat', {}, { x2apic: false }],
    ['apic_physflat', { acpiFadtFlags: 1 << 19 }, { x2apic: false }],
    ['apic_x2apic_phys', {}, {}],
    ['apic_numachip', { acpiOemId: 'NUMASC' }, { x2apic: false }],
    ['apic_x2apic_uv_x', { acpiOemId: 'SGI2', acpiOemTableId: 'UVH' }, {}],
    ['apic_x2apic_phys', { acpiOemId: 'SGI', acpiOemTableId: 'UVX' }, {}],
    ['apic_default', {}, { bits: 32 }],
    ['apic_bigsmp', { dmiBigsmp: true }, { bits: 32 }],
    ['apic_numaq', { mpOemId: 'IBM NUMA' }, { bits: 32 }],
    ['apic_summit', { mpOemId: 'IBM ENSW', mpProductId: 'VIGIL SMP' }, { bits: 32 }],
    ['apic_summit', { mpOemId: 'IBM ENSW', mpProductId: 'RUTHLESS SMP' }, { bits: 32 }],
    ['apic_summit', { acpiOemId: 'IBM', acpiOemTableId: 'EXA' }, { bits: 32 }],
    ['apic_default', { mpOemId: 'IBM ENSW', mpProductId: 'SOMETHING' }, { bits: 32 }],
    ['apic_es7000', { acpiOemId: 'UNISYS', bootCpuFamily: 15 }, { bits: 32 }],
    ['apic_es7000_cluster', { acpiOemId: 'UNISYS', bootCpuFamily: 6, bootCpuModel: 8 }, { bits: 32 }],
    ['apic_es7000', { acpiOemId: 'UNISYS', bootCpuFamily: 6, bootCpuModel: 12 }, { bits: 32 }],
  ])('finds %s by %j', (driver, platform, options) => {
    expect(chosen({ ...options, platform })).toBe(driver);
  });
});
