/**
 * Which vectors' EOIs the I/O APIC has to see, for one vCPU: PV EOI must not arm those. Two rules of Linux's
 * arch/x86/kvm/ioapic.c: today's (kvm_ioapic_scan_entry) and that of 3.6, which looked at nothing but the vector.
 */

import type { IoApicEoiRule } from './pv-eoi.ts';

export type IoApicEoiRuleName = 'current' | 'linux-3.6';

/** What an I/O APIC tells of its redirection table. */
export interface RedirectionVectors {
  /**
   * In an entry that is level-triggered (masked or not) or belongs to a pin whose EOIs are watched (the RTC's, those
   * with an acknowledge notifier); with `reaches`, in one whose destination that accepts.
   */
  hasLevelVector(
    vector: number,
    reaches?: (destination: number, mode: 'physical' | 'logical', wide: boolean) => boolean,
  ): boolean;
  /** In any entry at all. */
  hasVector(vector: number): boolean;
}

/** What the vCPU's local APIC tells. */
export interface EoiDestination {
  matches(destination: number, mode: 'physical' | 'logical', wide: boolean): boolean;
  /** True if the vector's last request was level-triggered. */
  tmrBit(vector: number): boolean;
}

/** The rule `name` for the vCPU that has `localApic`. */
export function ioApicEoiRule(
  ioApics: readonly RedirectionVectors[],
  localApic: EoiDestination,
  name: IoApicEoiRuleName = 'current',
): IoApicEoiRule {
  const reachesThis = localApic.matches.bind(localApic);
  /** Level-triggered and for this vCPU, or it was when the request came and the entry was sent elsewhere since. */
  const isCurrent = (ioApic: RedirectionVectors, vector: number) =>
    ioApic.hasLevelVector(vector) && (localApic.tmrBit(vector) || ioApic.hasLevelVector(vector, reachesThis));
  const wants = name === 'current' ? isCurrent : (ioApic: RedirectionVectors, vector: number) => ioApic.hasVector(vector);
  return {
    needsIoApicEoi(vector) {
      for (const ioApic of ioApics) if (wants(ioApic, vector)) return true;
      return false;
    },
  };
}
