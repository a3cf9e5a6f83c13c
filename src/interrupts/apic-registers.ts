/**
 * The local APIC's registers and their bits, by offset in the xAPIC page; an x2APIC MSR is 0x800 + (offset >> 4).
 * SDM 3A table 11-1 (xAPIC), table 11-6 (x2APIC); AMD APM 2 table 16-2.
 */

export const ApicRegister = {
  id: 0x20,
  version: 0x30,
  tpr: 0x80,
  apr: 0x90,
  ppr: 0xa0,
  eoi: 0xb0,
  remoteRead: 0xc0,
  ldr: 0xd0,
  dfr: 0xe0,
  svr: 0xf0,
  isr: 0x100,
  tmr: 0x180,
  irr: 0x200,
  esr: 0x280,
  lvtCmci: 0x2f0,
  icrLow: 0x300,
  icrHigh: 0x310,
  lvtTimer: 0x320,
  lvtThermal: 0x330,
  lvtPerformance: 0x340,
  lvtLint0: 0x350,
  lvtLint1: 0x360,
  lvtError: 0x370,
  initialCount: 0x380,
  currentCount: 0x390,
  divideConfiguration: 0x3e0,
  selfIpi: 0x3f0,
} as const;

export const APIC_DEFAULT_BASE = 0xfee0_0000;
export const APIC_PAGE_SIZE = 0x1000;

export const MSR_APIC_BASE = 0x1b;
export const MSR_TSC_DEADLINE = 0x6e0;
export const MSR_X2APIC_FIRST = 0x800;
export const MSR_X2APIC_LAST = 0x8ff;

/** The MSR of a register in x2APIC mode. */
export const x2apicMsr = (register: number): number => MSR_X2APIC_FIRST + (register >> 4);

/** IA32_APIC_BASE. */
export const APIC_BASE_BSP = 1 << 8;
export const APIC_BASE_EXTD = 1 << 10;
export const APIC_BASE_ENABLE = 1 << 11;

/** Spurious-interrupt vector register; focus checking is kept but does nothing, as on every current CPU. */
export const SVR_ENABLE = 1 << 8;
export const SVR_FOCUS_DISABLED = 1 << 9;
export const SVR_SUPPRESS_EOI_BROADCAST = 1 << 12;

/** Version register: SVR_SUPPRESS_EOI_BROADCAST exists. */
export const VERSION_EOI_SUPPRESSION = 1 << 24;

/** Local vector table entries. */
export const LVT_VECTOR = 0xff;
export const LVT_DELIVERY_MODE_SHIFT = 8;
export const LVT_DELIVERY_MODE = 7 << LVT_DELIVERY_MODE_SHIFT;
export const LVT_DELIVERY_STATUS = 1 << 12;
export const LVT_ACTIVE_LOW = 1 << 13;
export const LVT_REMOTE_IRR = 1 << 14;
export const LVT_LEVEL = 1 << 15;
export const LVT_MASKED = 1 << 16;
export const LVT_TIMER_MODE_SHIFT = 17;
export const LVT_TIMER_PERIODIC = 1 << LVT_TIMER_MODE_SHIFT;
export const LVT_TIMER_TSC_DEADLINE = 2 << LVT_TIMER_MODE_SHIFT;

/** Interrupt command register, low half. */
export const ICR_LOGICAL = 1 << 11;
export const ICR_DELIVERY_STATUS = 1 << 12;
export const ICR_ASSERT = 1 << 14;
export const ICR_LEVEL = 1 << 15;
export const ICR_SHORTHAND_SHIFT = 18;
export const ICR_SHORTHANDS = ['none', 'self', 'all', 'others'] as const;

/** Error status register. Not modelled: the errors of the APIC bus (bits 0 to 3) and redirectible IPIs (bit 4). */
export const ESR_SEND_ILLEGAL_VECTOR = 1 << 5;
export const ESR_RECEIVE_ILLEGAL_VECTOR = 1 << 6;
export const ESR_ILLEGAL_REGISTER = 1 << 7;

/** Vectors below this are the CPU's exceptions: no APIC delivers them. */
export const FIRST_LEGAL_VECTOR = 16;

/** Where an ID or a logical destination of 8 bits sits in ID, LDR and ICR high. */
export const XAPIC_ID_SHIFT = 24;

/** Destination format: the model in bits 31 to 28, the others read as ones. */
export const APIC_DFR_FLAT = 0xffff_ffff;
export const APIC_DFR_CLUSTER = 0x0fff_ffff;

/** The whole of what an 8-bit and a 32-bit destination can name. */
export const XAPIC_BROADCAST = 0xff;
export const X2APIC_BROADCAST = 0xffff_ffff;
