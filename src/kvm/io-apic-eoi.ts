/**
 * Which vectors' EOIs the I/O APIC has to see, for one vCPU: PV EOI must not arm those. Two rules, from Linux's
 * arch/x86/kvm/ioapic.c: today's (kvm_ioapic_scan_entry) and 3.6's (kvm_ioapic_handles_vector), which looked at
 * nothing but the vector. A rescan is lazy: whoever changes what the rule looks at calls `invalidate`.
 */

import type { IoApicEoiRule } from './pv-eoi.ts';

export type IoApicEoiRuleName = 'current' | 'linux-3.6';

/** What the rule reads of a redirection entry. */
export interface RedirectionEntryView {
  vector: number;
  trigger: 'edge' | 'level';
  destinationMode: 'physical' | 'logical';
  destination: number;
}

export interface IoApicEoiSource {
  /** Redirection entries in the order of their pins, masked ones too. */
  entries(): Iterable<RedirectionEntryView>;
  /** True where the vCPU's local APIC is among the destinations. */
  matchesDestination(destination: number, destinationMode: 'physical' | 'logical'): boolean;
  /** True while `vector` is in the vCPU's IRR or ISR: it was routed here before the entry changed. */
  isInFlight(vector: number): boolean;
  /** True where someone waits for the pin's EOI (the PIT's re-injection, an irqfd that resamples). */
  hasAcknowledgeNotifier?(pin: number): boolean;
}

/** The RTC's pin: KVM counts its EOIs to know of lost ticks. */
const RTC_PIN = 8;

export class IoApicEoiVectors implements IoApicEoiRule {
  private readonly source: IoApicEoiSource;
  private readonly rule: IoApicEoiRuleName;
  private readonly vectors = new Uint8Array(256);
  private valid = false;

  constructor(source: IoApicEoiSource, rule: IoApicEoiRuleName = 'current') {
    this.source = source;
    this.rule = rule;
  }

  /** A redirection entry changed, or the vCPU's APIC ID, LDR, DFR or mode. */
  invalidate(): void {
    this.valid = false;
  }

  needsIoApicEoi(vector: number): boolean {
    if (!this.valid) this.scan();
    return this.vectors[vector] !== 0;
  }

  private scan(): void {
    this.valid = true;
    this.vectors.fill(0);
    let pin = 0;
    for (const entry of this.source.entries()) {
      if (this.rule === 'linux-3.6' || this.wantsEoi(pin, entry)) this.vectors[entry.vector] = 1;
      pin++;
    }
  }

  private wantsEoi(pin: number, entry: RedirectionEntryView): boolean {
    if (entry.trigger !== 'level' && pin !== RTC_PIN && !this.source.hasAcknowledgeNotifier?.(pin)) return false;
    return this.source.matchesDestination(entry.destination, entry.destinationMode) || this.source.isInFlight(entry.vector);
  }
}
