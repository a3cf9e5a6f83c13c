/** Every APIC driver on its platform, in every state of the EOI, with 1 to 24 vCPUs (or as many as the driver can address). */

import { describe, it } from 'vitest';
import { cpuLimit } from '../../src/experiment/driver-platform.ts';
import { DRIVER_NAMES } from '../../src/guest/apic/apic-driver.ts';
import { EOI_STATES } from '../../src/guest/apic/driver-code.ts';
import { expectDriverWorks } from '../tiny-kernel-bench.ts';

const VCPUS = [1, 2, 4, 8, 24];

describe.each(DRIVER_NAMES)('%s', (driver) => {
  const { most, why } = cpuLimit(driver);
  const cases = VCPUS.flatMap((vcpus) =>
    EOI_STATES.map((state) => ({ vcpus, state, note: vcpus > most ? `, of which ${most} can be used: ${why}` : '' })),
  );
  it.each(cases)('$state on $vcpus vCPUs$note', ({ vcpus, state }) => {
    expectDriverWorks(driver, state, vcpus);
  });
});
