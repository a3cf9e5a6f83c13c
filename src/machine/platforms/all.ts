/** All platforms, by name. */

import { es7000, es7000Cluster } from './es7000.ts';
import { numachip } from './numachip.ts';
import { numaq } from './numaq.ts';
import type { Platform } from './platform.ts';
import { summit } from './summit.ts';
import { uv } from './uv.ts';
import { visws } from './visws.ts';

export const PLATFORM_NAMES = ['pc', 'numachip', 'uv', 'numaq', 'summit', 'es7000', 'es7000-cluster', 'visws'] as const;
export type PlatformName = (typeof PLATFORM_NAMES)[number];

const pc: Platform = {
  name: 'pc',
  title: 'PC',
  maxVcpus: 254,
  limit: 'an APIC ID has 8 bits, and 255 is the broadcast',
  apicId: (position) => position,
  firmware: (apicIds) => ({ acpi: { apicIds } }),
};

export const PLATFORMS: Readonly<Record<PlatformName, Platform>> = { pc, numachip, uv, numaq, summit, es7000, 'es7000-cluster': es7000Cluster, visws };
