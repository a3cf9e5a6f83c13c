/** All drivers, and the order in which Linux asks them. */

import type { ApicDriver, DriverName } from '../apic-driver.ts';
import type { GuestBits } from '../guest-abi.ts';
import { bigsmp } from './bigsmp.ts';
import { defaultDriver } from './default.ts';
import { es7000, es7000Cluster } from './es7000.ts';
import { flat, physflat } from './flat.ts';
import { noopDriver } from './noop.ts';
import { numachip } from './numachip.ts';
import { numaq } from './numaq.ts';
import { summit } from './summit.ts';
import { visws } from './visws.ts';
import { x2apicCluster } from './x2apic-cluster.ts';
import { x2apicPhys } from './x2apic-phys.ts';
import { x2apicUvX } from './x2apic-uv-x.ts';

/**
 * The drivers that are probed, in the order in which Linux links them: the first that says yes serves the machine. noop is
 * chosen only where the APIC is given up; visws is the default driver with an interrupt chip of its own.
 */
export const PROBE_ORDER: Record<GuestBits, readonly ApicDriver[]> = {
  64: [numachip, x2apicUvX, x2apicPhys, x2apicCluster, physflat, flat],
  32: [numaq, summit, bigsmp, es7000Cluster, es7000, defaultDriver],
};

export const DRIVERS: readonly ApicDriver[] = [
  flat,
  physflat,
  noopDriver(64),
  noopDriver(32),
  numachip,
  bigsmp,
  es7000,
  es7000Cluster,
  numaq,
  defaultDriver,
  summit,
  x2apicCluster,
  x2apicPhys,
  x2apicUvX,
  visws,
];

/** A driver by name; of noop, which both have, the 64-bit one unless told otherwise. */
export function driverNamed(name: DriverName, bits?: GuestBits): ApicDriver {
  const driver = DRIVERS.find((candidate) => candidate.name === name && (bits === undefined || candidate.bits === bits));
  if (!driver) throw new Error(`there is no ${bits}-bit driver ${name}`);
  return driver;
}
