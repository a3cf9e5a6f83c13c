/** APIC constants under the names Linux's drivers have for them; values from the register definitions. SDM 3A chapter 11. */

import {
  ApicRegister,
  ICR_ASSERT,
  ICR_DELIVERY_STATUS,
  ICR_LEVEL,
  ICR_LOGICAL,
  ICR_SHORTHAND_SHIFT,
  ICR_SHORTHANDS,
  MSR_X2APIC_FIRST,
} from '../../interrupts/apic-registers.ts';

export const APIC_ID = ApicRegister.id;
export const APIC_LVR = ApicRegister.version;
export const APIC_EOI = ApicRegister.eoi;
/** Was misspelled EIO_ACK before the series. */
export const APIC_EOI_ACK = 0;
export const APIC_LDR = ApicRegister.ldr;
export const APIC_DFR = ApicRegister.dfr;
export const APIC_ESR = ApicRegister.esr;
export const APIC_ICR = ApicRegister.icrLow;
export const APIC_ICR2 = ApicRegister.icrHigh;
export const APIC_SELF_IPI = ApicRegister.selfIpi;
export const APIC_BASE_MSR = MSR_X2APIC_FIRST;

/** An xAPIC ID, logical ID or destination is a register's high byte. */
export const XAPIC_ID_SHIFT = 24;
export const LDR_RESERVED = (1 << XAPIC_ID_SHIFT) - 1;
export const XAPIC_ALL_CPUS = 0xff;
export const BAD_APICID = 0xffff;

const shorthand = (name: (typeof ICR_SHORTHANDS)[number]): number => ICR_SHORTHANDS.indexOf(name) << ICR_SHORTHAND_SHIFT;
export const APIC_DEST_SELF = shorthand('self');
export const APIC_DEST_ALLINC = shorthand('all');
export const APIC_DEST_ALLBUT = shorthand('others');
export const APIC_DEST_PHYSICAL = 0;
export const APIC_DEST_LOGICAL = ICR_LOGICAL;
export const APIC_ICR_BUSY = ICR_DELIVERY_STATUS;
export const APIC_INT_ASSERT = ICR_ASSERT;
export const APIC_INT_LEVELTRIG = ICR_LEVEL;
export const APIC_DM_FIXED = 0 << 8;
export const APIC_DM_LOWEST = 1 << 8;
export const APIC_DM_NMI = 4 << 8;
export const APIC_DM_INIT = 5 << 8;
export const APIC_DM_STARTUP = 6 << 8;

/** Linux's number for IPIs that are to be NMIs: it is no vector in the IDT's sense of a fixed interrupt. */
export const NMI_VECTOR = 2;
