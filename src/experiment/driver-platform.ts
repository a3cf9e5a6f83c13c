/** Which machine an APIC driver is for, and how many CPUs there are in it for the driver. */

import type { DriverName } from '../guest/apic/apic-driver.ts';
import { driverNamed } from '../guest/apic/drivers/all.ts';
import { MAX_CPUS } from '../guest/kernel/layout.ts';
import { PLATFORMS, type PlatformName } from '../machine/platforms/all.ts';

const PLATFORM_OF: Partial<Record<DriverName, PlatformName>> = {
  numachip: 'numachip',
  x2apic_uv_x: 'uv',
  numaq: 'numaq',
  summit: 'summit',
  es7000: 'es7000',
  es7000_cluster: 'es7000-cluster',
  visws: 'visws',
};

/** The platform that has what the driver talks to: a PC for most. */
export const platformOf = (driver: DriverName): PlatformName => PLATFORM_OF[driver] ?? 'pc';

export interface CpuLimit {
  most: number;
  /** What sets it. */
  why: string;
}

/** How many CPUs a kernel of ours brings up with a driver on its platform, and what sets the limit. */
export function cpuLimit(driver: DriverName): CpuLimit {
  const { bits, cpus } = driverNamed(driver);
  const { maxVcpus, limit } = PLATFORMS[platformOf(driver)];
  const limits: CpuLimit[] = [
    { most: MAX_CPUS[bits], why: `a CPU mask of the kernel is a word of ${bits} bits` },
    { most: maxVcpus, why: limit },
    ...(cpus ? [cpus] : []),
  ];
  return limits.reduce((lowest, next) => (next.most <= lowest.most ? next : lowest));
}
