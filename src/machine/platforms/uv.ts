/**
 * SGI UV 1000: blades of eight processors, in x2APIC mode from the firmware on. An APIC reaches its own blade; others are reached by
 * their hubs' registers. Assumed: eight processors to a blade; all devices belong to the first.
 */

import {
  UV_APIC_PNODE_SHIFT,
  UV_GLOBAL_MMR32_BASE,
  UV_GLOBAL_MMR64_BASE,
  UV_LOCAL_MMR_BASE,
  UV_LOCAL_MMR_BYTES,
  UvHubs,
} from '../../devices/uv-hub.ts';
import { messageTo, type Platform } from './platform.ts';

const BLADE_PROCESSORS = 8;
const bladeOf = (apicId: number): number => apicId >>> UV_APIC_PNODE_SHIFT;

export const uv: Platform = {
  name: 'uv',
  title: 'SGI UV large system',
  maxVcpus: 254,
  limit: 'as many as the machine itself: 32 blades of 8',
  apicId: (position) => (Math.floor(position / BLADE_PROCESSORS) << UV_APIC_PNODE_SHIFT) | (position % BLADE_PROCESSORS),
  firmware: (apicIds) => ({ acpi: { apicIds, oem: { id: 'SGI', tableId: 'UVH' } } }),
  boards: { boardOf: bladeOf, crosses: () => false },
  startsInX2apicMode: true,
  attach({ mmio, apics, accessor, send }) {
    const hubs = new UvHubs({
      pnodes: bladeOf(Math.max(...apics.map(({ initialId }) => initialId))) + 1,
      pnode: () => bladeOf(accessor().initialId),
      send({ pnode, apicId, vector, deliveryMode, logical }) {
        send({ ...messageTo(apicId, vector, deliveryMode, true), destinationMode: logical ? 'logical' : 'physical' }, pnode);
      },
    });
    mmio.register(UV_LOCAL_MMR_BASE, UV_LOCAL_MMR_BYTES, 'UV hub, local registers', hubs.local);
    mmio.register(UV_GLOBAL_MMR32_BASE, hubs.global32Bytes, 'UV hubs, 32-bit registers', hubs.global32);
    mmio.register(UV_GLOBAL_MMR64_BASE, hubs.global64Bytes, 'UV hubs, 64-bit registers', hubs.global64);
  },
};
