/**
 * The APIC driver of Linux around 3.4 (`struct apic`): a name, how interrupts are addressed, and a table of methods. Every
 * method is a function emitted as guest machine code; drivers that do the same name the same function.
 */

import type { GuestBits, GuestFunctions } from './guest-abi.ts';

/** The pointers of a driver's structure, in its order. The numbers in front of them are in `STRUCTURE_NUMBERS`. */
export const METHODS = [
  'probe',
  'acpiMadtOemCheck',
  'mpsOemCheck',
  'targetCpus',
  'earlyLogicalApicId',
  'initApicLdr',
  'getApicId',
  'setApicId',
  'cpuMaskToApicId',
  'cpuMaskToApicIdAnd',
  'sendIpiMask',
  'sendIpiMaskAllButSelf',
  'sendIpiAllButSelf',
  'sendIpiAll',
  'sendIpiSelf',
  'wakeupSecondaryCpu',
  'read',
  'write',
  'eoiWrite',
  'icrRead',
  'icrWrite',
  'waitIcrIdle',
  'safeWaitIcrIdle',
] as const;
export type Method = (typeof METHODS)[number];

export const STRUCTURE_NUMBERS = ['irqDeliveryMode', 'irqDestMode', 'destLogical', 'disableEsr'] as const;
export type StructureNumber = (typeof STRUCTURE_NUMBERS)[number];

/** Offset in a driver's structure: a pointer to the name, the numbers, the methods, each a machine word. */
export function structureOffset(member: 'name' | StructureNumber | Method, word: 4 | 8): number {
  if (member === 'name') return 0;
  const number = (STRUCTURE_NUMBERS as readonly string[]).indexOf(member);
  return word * (1 + (number >= 0 ? number : STRUCTURE_NUMBERS.length + METHODS.indexOf(member as Method)));
}
export const structureBytes = (word: 4 | 8): number => word * (1 + STRUCTURE_NUMBERS.length + METHODS.length);

export const DRIVER_NAMES = [
  'flat',
  'physflat',
  'noop',
  'numachip',
  'bigsmp',
  'es7000',
  'es7000_cluster',
  'numaq',
  'default',
  'summit',
  'x2apic_cluster',
  'x2apic_phys',
  'x2apic_uv_x',
  'visws',
] as const;
export type DriverName = (typeof DRIVER_NAMES)[number];

export interface ApicDriver {
  name: DriverName;
  /** What Linux prints. */
  title: string;
  bits: GuestBits;
  /** Whether I/O interrupts ask for lowest priority. */
  deliveryMode: 'fixed' | 'lowest-priority';
  destinationMode: 'physical' | 'logical';
  /** ICR's destination mode for IPIs. */
  ipiDestination: 'physical' | 'logical';
  /** The error status register is not to be used. */
  disableEsr: boolean;
  /** How many CPUs it can address, where that is less than the kernel has masks for, and why. */
  cpus?: { most: number; why: string } | undefined;
  /** Symbols of the methods; what is not there is a null pointer. `eoiWrite` is the one patch 3 gives. */
  methods: Partial<Record<Method, string>>;
  /** The EOI of patch 4, where it differs. */
  directEoi?: string | undefined;
  /** What the driver adds to the shared functions; quirks that are no method of it, too. */
  functions: GuestFunctions;
}

/** The symbol of a driver's structure. visws, a quirk, has none of its own: it is the default driver's. */
export const structureSymbol = (name: DriverName): string => `apic_${name === 'visws' ? 'default' : name}`;
