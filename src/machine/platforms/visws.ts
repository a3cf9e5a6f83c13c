/**
 * SGI Visual Workstation (320, 540): up to four Pentiums II or III around the Cobalt chip set, whose interrupt controller is the I/O APIC
 * of the machine and has the 8259s for an input. Firmware leaves a table of processors in low memory; there is neither ACPI nor an
 * MP table. Not modelled: everything else of Cobalt (its timer, graphics, Lithium's buses).
 */

import { COBALT_8259_ENTRY, COBALT_APIC_BASE, COBALT_APIC_BYTES, COBALT_CPU_COUNT, CobaltApic } from '../../interrupts/cobalt-apic.ts';
import { ByteWriter } from '../acpi/byte-writer.ts';
import { IOAPIC_BASE } from '../memory-map.ts';
import type { Platform } from './platform.ts';

const MAX_PROCESSORS = 4;
const APIC_VERSION = 0x11;
const [ENABLED, BOOT_PROCESSOR] = [1, 2];

export const visws: Platform = {
  name: 'visws',
  title: 'SGI Visual Workstation',
  maxVcpus: MAX_PROCESSORS,
  limit: "four sockets, as many as Cobalt's table of processors has",
  apicId: (position) => position,
  firmware(apicIds, signature, features) {
    const table = new ByteWriter().u16(apicIds.length);
    apicIds.forEach((apicId, index) => {
      table.u8(0, apicId, APIC_VERSION, index === 0 ? ENABLED | BOOT_PROCESSOR : ENABLED).u32(signature).u32(features).zeros(8);
    });
    return { blocks: [{ guestPhysical: COBALT_CPU_COUNT, bytes: table.finish() }] };
  },
  hasNoX2apic: true,
  attach({ mmio, pic, router }) {
    const cobalt = new CobaltApic((message) => router.deliver(message));
    mmio.unregister(IOAPIC_BASE);
    mmio.register(COBALT_APIC_BASE, COBALT_APIC_BYTES, 'Cobalt APIC', cobalt);
    router.addIoApic(cobalt.entries);
    const input = cobalt.line(COBALT_8259_ENTRY);
    pic.onOutput = (high) => input.set(high);
  },
};
