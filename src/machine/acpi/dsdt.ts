/**
 * The DSDT's contents: sleep state S5, the PCI root bridge, the ISA devices and one processor device for each vCPU.
 * Source: ACPI 6.5 chapters 6 to 8. Not modelled: interrupt links (PCI pins are hard-wired to GSIs), GPEs, S3.
 */
import {
  COM1_IRQ,
  COM1_PORT,
  HPET_BASE,
  HPET_SIZE,
  I8042_COMMAND_PORT,
  I8042_DATA_PORT,
  KEYBOARD_IRQ,
  PCI_CONFIG_PORT,
  PCI_CONFIG_SIZE,
  PCI_WINDOW_BASE,
  PCI_WINDOW_SIZE,
  RTC_IRQ,
  RTC_PORT,
  S5_SLEEP_TYPE,
} from '../memory-map.ts';
import type { AcpiDescription } from './acpi-tables.ts';
import * as aml from './aml.ts';

/** An interrupt pin of a PCI slot, hard-wired to a GSI: one entry of the root bridge's _PRT. */
export interface PciRoute {
  slot: number;
  pin: 'INTA' | 'INTB' | 'INTC' | 'INTD';
  gsi: number;
}

const PINS = ['INTA', 'INTB', 'INTC', 'INTD'];

function pnpDevice(path: string, id: string, ...descriptors: Uint8Array[]): aml.Aml {
  return aml.device(path, aml.name('_HID', aml.eisaId(id)), aml.name('_CRS', aml.resourceTemplate(...descriptors)));
}

function pciRoot(routes: readonly PciRoute[]): aml.Aml {
  const resources = aml.resourceTemplate(
    aml.busNumbers(0, 0xff),
    aml.ioPorts(PCI_CONFIG_PORT, PCI_CONFIG_SIZE),
    aml.ioWindow(0, PCI_CONFIG_PORT - 1),
    aml.ioWindow(PCI_CONFIG_PORT + PCI_CONFIG_SIZE, 0xffff),
    aml.memoryWindow(PCI_WINDOW_BASE, PCI_WINDOW_SIZE),
  );
  const routing = routes.map(({ slot, pin, gsi }) =>
    aml.packageOf(aml.integer(slot * 2 ** 16 + 0xffff), aml.integer(PINS.indexOf(pin)), aml.integer(0), aml.integer(gsi)),
  );
  return aml.device(
    'PCI0',
    aml.name('_HID', aml.eisaId('PNP0A03')),
    aml.name('_UID', aml.integer(0)),
    aml.name('_BBN', aml.integer(0)),
    aml.name('_CRS', resources),
    ...(routing.length > 0 ? [aml.name('_PRT', aml.packageOf(...routing))] : []),
  );
}

/** The processor's _UID is what the MADT's entry of the same vCPU says; its name counts in hexadecimal. */
function processor(uid: number): aml.Aml {
  const path = `C${uid.toString(16).toUpperCase().padStart(3, '0')}`;
  return aml.device(path, aml.name('_HID', aml.string('ACPI0007')), aml.name('_UID', aml.integer(uid)));
}

/** AML of the DSDT, without the table's header. */
export function dsdtBody(description: AcpiDescription): aml.Aml {
  const sleepType = aml.integer(S5_SLEEP_TYPE);
  return aml.termList(
    aml.name('\\_S5', aml.packageOf(sleepType, sleepType, aml.integer(0), aml.integer(0))),
    aml.scope(
      '\\_SB',
      pciRoot(description.pciRoutes ?? []),
      pnpDevice('COM1', 'PNP0501', aml.ioPorts(COM1_PORT, 8), aml.irq(COM1_IRQ)),
      pnpDevice('RTC', 'PNP0B00', aml.ioPorts(RTC_PORT, 2), aml.irq(RTC_IRQ)),
      pnpDevice('KBD', 'PNP0303', aml.ioPorts(I8042_DATA_PORT, 1), aml.ioPorts(I8042_COMMAND_PORT, 1), aml.irq(KEYBOARD_IRQ)),
      ...(description.hpet === false ? [] : [pnpDevice('HPET', 'PNP0103', aml.memory32Fixed(HPET_BASE, HPET_SIZE))]),
      ...description.apicIds.map((_, uid) => processor(uid)),
    ),
  );
}
