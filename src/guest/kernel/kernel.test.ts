import { describe, expect, it } from 'vitest';
import { expectBalanced, runKernel } from '../../../tests/tiny-kernel-bench.ts';
import { KVM_OFF, parseKvmFeatures } from '../../kvm/features.ts';
import { structureBytes, structureOffset, structureSymbol } from '../apic/apic-driver.ts';
import { functionCode } from '../apic/driver-code.ts';
import { PROBE_ORDER } from '../apic/drivers/all.ts';
import { PV_EOI_OVERRIDE } from '../apic/pv-eoi.ts';
import type { ObjectCode } from '../assembler/assembler.ts';
import { codeBytes } from '../listing.ts';
import type { PlatformName } from '../../machine/platforms/all.ts';
import type { GuestBits } from '../apic/guest-abi.ts';
import type { KernelOptions, PlatformFacts } from './kernel.ts';

describe('the tiny kernel', () => {
  it.each([64, 32] as const)('is built and booted in well under a second (%i-bit)', (bits) => {
    const start = performance.now();
    const { report } = runKernel({ bits, workloads: { timer: 1 } }, 2);
    expect(report).toMatchObject({ bits, complete: true });
    expect(performance.now() - start).toBeLessThan(5000); // on a busy machine
  });

  it('runs the same twice, instruction for instruction', () => {
    const [first, second] = [runKernel({}, 3), runKernel({}, 3)];
    expect(second.machine.instructions).toBe(first.machine.instructions);
    expect(second.report).toEqual(first.report);
  });

  it.each([9, 24])('starts %i vCPUs, with the drivers for so many', (vcpus) => {
    for (const options of [{}, { x2apic: false }, { bits: 32 as const }]) {
      const outcome = runKernel({ ...options, workloads: { timer: 5, messages: 2 } }, vcpus);
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
    const outcome = runKernel({ state: 'pv-eoi' }, 2, { kvm: features });
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
    const { kernel, machine } = runKernel({ bits, state: 'pv-eoi', workloads: { timer: 2 } }, 1);
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
  const chosen = (options: KernelOptions, platform: PlatformName = 'pc'): string => {
    const { kernel, machine } = runKernel({ ...options, workloads: {} }, 1, { platform });
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

  it.each<[PlatformName, GuestBits, string]>([
    ['pc', 64, 'apic_x2apic_phys'],
    ['numachip', 64, 'apic_numachip'],
    ['uv', 64, 'apic_x2apic_uv_x'],
    ['pc', 32, 'apic_default'],
    ['numaq', 32, 'apic_numaq'],
    ['summit', 32, 'apic_summit'],
    ['es7000', 32, 'apic_es7000'],
    ['es7000-cluster', 32, 'apic_es7000_cluster'],
  ])('recognises %s by its firmware and processor, in a %i-bit kernel: %s', (platform, bits, driver) => {
    expect(chosen({ bits }, platform)).toBe(driver);
  });
});
