/**
 * What travels between interrupt controllers: an I/O APIC's or MSI's interrupt, an IPI. A sender makes a
 * message, the router finds the local APICs it is for. SDM 3A 11.6 (ICR), 11.11 (MSI).
 */

export const DeliveryMode = { fixed: 0, lowestPriority: 1, smi: 2, reserved: 3, nmi: 4, init: 5, startUp: 6, extInt: 7 } as const;
export type DeliveryMode = (typeof DeliveryMode)[keyof typeof DeliveryMode];

/** Who made an interrupt: what counters are kept by. */
export type InterruptSource = 'ioapic' | 'msi' | 'ipi' | 'self-ipi' | 'pv-ipi' | 'timer' | 'lvt' | 'extint';

export interface InterruptMessage {
  /** 0 to 255; a page number for a start-up message. */
  vector: number;
  deliveryMode: DeliveryMode;
  destinationMode: 'physical' | 'logical';
  /**
   * APIC ID or logical mask, 32 bits. 0xFF is a broadcast to APICs in xAPIC mode, and to those in x2APIC mode
   * unless `wide`; 0xFFFFFFFF always is one.
   */
  destination: number;
  /** True where the destination has more than 8 bits (x2APIC ICR, KVM's extended destination IDs of I/O APIC and MSI). */
  wide: boolean;
  shorthand: 'none' | 'self' | 'all' | 'others';
  trigger: 'edge' | 'level';
  /** False only for INIT level de-assert. */
  assert: boolean;
  source: InterruptSource;
}

/** What became of a message: a new request, one merged with a request still pending, or nothing. */
export type AcceptResult = 'accepted' | 'coalesced' | 'ignored';
