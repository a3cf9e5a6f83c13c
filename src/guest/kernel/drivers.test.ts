import { describe, expect, it } from 'vitest';
import { expectDriverWorks } from '../../../tests/tiny-kernel-bench.ts';
import { Machine } from '../../machine/machine.ts';
import type { PlatformName } from '../../machine/platforms/all.ts';
import { DRIVER_NAMES, type DriverName } from '../apic/apic-driver.ts';
import { EOI_STATES } from '../apic/driver-code.ts';
import { buildKernel } from './kernel.ts';

/** The whole matrix, up to 24 vCPUs, is `npm run test:drivers`. */
describe.each(DRIVER_NAMES)('%s on its platform', (driver) => {
  it.each([1, 2, 4])('with %i vCPUs: every interrupt delivered, handled and ended once, in every state', (vcpus) => {
    for (const state of EOI_STATES) expectDriverWorks(driver, state, vcpus);
  });
});

describe('the platforms are what the drivers need', () => {
  const end = (driver: DriverName, platform: PlatformName, vcpus: number): string => {
    const { elf } = buildKernel({ driver, workloads: { timer: 1 } });
    const machine = new Machine({ kernel: elf, vcpus, memoryBytes: 8 * 2 ** 20, platform });
    let output = '';
    machine.serial.onOutput((bytes) => {
      output += new TextDecoder().decode(bytes);
    });
    machine.run({ guestNanoseconds: 1e8 });
    return output.includes('@@ done') ? 'done' : 'not done';
  };

  it.each<[DriverName, PlatformName, number, string]>([
    ['numachip', 'pc', 2, 'no chip to send by'],
    ['x2apic_uv_x', 'pc', 2, 'no hubs'],
    ['es7000', 'pc', 2, 'no register to start processors by'],
    ['numaq', 'pc', 2, 'processors that wait for a start-up message, not for an NMI'],
    ['summit', 'numaq', 2, 'processors that wait for an NMI, not for a start-up message'],
    ['physflat', 'numachip', 5, 'a second server, which an APIC does not reach'],
    ['x2apic_phys', 'uv', 9, 'a second blade, which an APIC does not reach'],
  ])('%s on a %s with %i vCPUs gets nowhere: %s', (driver, platform, vcpus) => {
    expect(end(driver, platform, vcpus)).toBe('not done');
  });

  it.each<[PlatformName, number]>([
    ['visws', 5],
    ['numaq', 61],
    ['summit', 61],
    ['es7000', 33],
  ])('a %s has no %i vCPUs', (platform, vcpus) => {
    expect(() => new Machine({ kernel: new Uint8Array(), vcpus, memoryBytes: 8 * 2 ** 20, platform })).toThrow(/vCPUs, not/);
  });
});
