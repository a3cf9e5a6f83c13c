/**
 * PV EOI, the host's side for one vCPU: a word shared with the guest lets it end an interrupt by clearing a bit
 * instead of leaving guest mode. The host arms the word before it enters the guest and samples it after every
 * exit. Source: Linux, Documentation/virt/kvm/x86/msr.rst (MSR 0x4b564d04) and arch/x86/kvm/lapic.c.
 *
 * |  P  |  B  |                                                                    |
 * |-----|-----|--------------------------------------------------------------------|
 * |  0  |  0  | off                                                                |
 * |  1  |  1  | armed; the guest has not ended the interrupt                       |
 * |  1  |  0  | the guest ended it by clearing the bit; the host does not know yet |
 * |  0  |  1  | must not occur                                                     |
 *
 * P is our `pending`, B bit 0 of the guest's word. Deviation from KVM: a word that vanishes while it is armed
 * counts as ended by the guest here, too, but P is cleared in every case.
 */

import { guestPhysicalOf, type MsrValue } from './msr.ts';

/** The byte of guest RAM that is shared. */
export interface GuestByteAccess {
  /** The byte, or -1 where there is no RAM. */
  readByte(guestPhysical: number): number;
  /** False where there is no RAM, or it cannot be written. */
  writeByte(guestPhysical: number, value: number): boolean;
}

/** What PV EOI needs of the vCPU's local APIC. */
export interface PvEoiLocalApic {
  /** Ends the highest interrupt in service, with all that follows: a broadcast to the I/O APICs has to be performed, too. */
  endOfInterrupt(): void;
  /** Any IRR bit at all, deliverable or not. */
  hasPendingIrr(): boolean;
  /** Highest vector in service, or -1. */
  highestInService(): number;
  /** Enabled in the APIC base and by software. */
  isEnabled(): boolean;
}

/** Vectors whose EOI the I/O APIC has to see: they are never armed. See `ioApicEoiRule`. */
export interface IoApicEoiRule {
  needsIoApicEoi(vector: number): boolean;
}

/** Why an entry did not arm the word, in the order in which the conditions are looked at. */
export const NOT_ARMED_CAUSES = [
  /** KVM or the feature is not offered. */
  'feature-hidden',
  /** The guest has not (or no longer) enabled the MSR. */
  'disabled-by-guest',
  /** The local APIC is disabled. */
  'apic-disabled',
  /** The processor virtualises EOI itself. */
  'apicv-active',
  /** Another interrupt waits in the IRR: its delivery needs the exit that the EOI makes. */
  'pending-irr',
  /** There is nothing to end. */
  'nothing-in-service',
  /** Something is in service, but an EOI or a state load came after its injection: KVM's highest-ISR cache is not valid. */
  'injected-before-last-eoi',
  /** The I/O APIC waits for the EOI. */
  'level-triggered',
  /** The word could not be written. */
  'word-unwritable',
] as const;
export type NotArmedCause = (typeof NOT_ARMED_CAUSES)[number];

/** Why the guest had to write an EOI: the entry had not armed it, or an exit disarmed it before the guest got there. */
export const EOI_WRITE_CAUSES = [...NOT_ARMED_CAUSES, 'disarmed-by-exit'] as const;
export type EoiWriteCause = (typeof EOI_WRITE_CAUSES)[number];

const causeIndex = (cause: EoiWriteCause) => EOI_WRITE_CAUSES.indexOf(cause);
const FEATURE_HIDDEN = causeIndex('feature-hidden');
const DISABLED_BY_GUEST = causeIndex('disabled-by-guest');
const APIC_DISABLED = causeIndex('apic-disabled');
const APICV_ACTIVE = causeIndex('apicv-active');
const PENDING_IRR = causeIndex('pending-irr');
const NOTHING_IN_SERVICE = causeIndex('nothing-in-service');
const INJECTED_BEFORE_LAST_EOI = causeIndex('injected-before-last-eoi');
const LEVEL_TRIGGERED = causeIndex('level-triggered');
const WORD_UNWRITABLE = causeIndex('word-unwritable');
const DISARMED_BY_EXIT = causeIndex('disarmed-by-exit');

/** Who counts and traces. Causes are indices into EOI_WRITE_CAUSES. */
export interface PvEoiObserver {
  armed(vector: number): void;
  /** The guest ended `vector` without an exit. */
  elided(vector: number): void;
  /** An exit came before the guest's EOI. */
  disarmed(vector: number): void;
  /** An entry that looked did not arm. */
  notArmed(cause: number): void;
  /** The guest wrote the EOI register for `vector`, and why it had to. */
  written(vector: number, cause: number): void;
}

export interface PvEoiOptions {
  memory: GuestByteAccess;
  localApic: PvEoiLocalApic;
  ioApicEoi: IoApicEoiRule;
  observer: PvEoiObserver;
  /** KVM_FEATURE_PV_EOI is offered. */
  offered: boolean;
  /** APICv or AVIC is active (never, in this machine; the state machine knows it all the same). */
  apicvActive?: boolean;
}

const ENABLE = 1;
const MISALIGNED = 2;
const PENDING = 1;

export class PvEoi {
  private readonly memory: GuestByteAccess;
  private readonly localApic: PvEoiLocalApic;
  private readonly ioApicEoi: IoApicEoiRule;
  private readonly observer: PvEoiObserver;
  private readonly offered: boolean;
  private readonly apicvActive: boolean;

  /** E: what the guest wrote to MSR 0x4b564d04. */
  private low = 0;
  private high = 0;
  private guestPhysical = 0;
  /** P: the vector the word is armed for, or -1. */
  private armedVector = -1;
  /** KVM's highest-ISR cache: the vector injected since the last EOI or state load, or -1. */
  private injectedVector = -1;
  /** Why the interrupt in service is not armed, if it isn't. */
  private cause = NOTHING_IN_SERVICE;

  constructor(options: PvEoiOptions) {
    this.memory = options.memory;
    this.localApic = options.localApic;
    this.ioApicEoi = options.ioApicEoi;
    this.observer = options.observer;
    this.offered = options.offered;
    this.apicvActive = options.apicvActive ?? false;
  }

  /** P: the word was armed and has not been looked at since. */
  get isArmed(): boolean {
    return this.armedVector >= 0;
  }

  get isEnabled(): boolean {
    return (this.low & ENABLE) !== 0;
  }

  /** RDMSR; undefined is #GP. */
  readMsr(): MsrValue | undefined {
    return this.offered ? { low: this.low, high: this.high } : undefined;
  }

  /** WRMSR; false is #GP. The word itself is not touched: zeroing it is the guest's business. */
  writeMsr(low: number, high: number): boolean {
    if (!this.offered || low & MISALIGNED) return false;
    this.sample(); // a WRMSR is an exit: what the guest ended through the old word is ended
    const guestPhysical = guestPhysicalOf(low, high, ENABLE);
    if (low & ENABLE && this.memory.readByte(guestPhysical) < 0) return false;
    this.low = low >>> 0;
    this.high = high >>> 0;
    this.guestPhysical = guestPhysical;
    return true;
  }

  /** The local APIC moved `vector` from IRR to ISR. */
  interruptInjected(vector: number): void {
    this.injectedVector = vector;
  }

  /**
   * Arms the word where that is allowed. To be called last before entering the guest, on entries that looked at
   * pending interrupts (and injected what was to be injected); `sample` has run since the guest last ran.
   */
  arm(): void {
    if (this.armedVector >= 0) throw new Error('PvEoi.arm: still armed; every exit samples first');
    const vector = this.injectedVector;
    const cause = this.whyNotArm(vector);
    if (cause < 0) {
      this.armedVector = vector;
      this.observer.armed(vector);
    } else {
      this.cause = cause;
      this.observer.notArmed(cause);
    }
  }

  private whyNotArm(vector: number): number {
    if (!this.offered) return FEATURE_HIDDEN;
    if (!(this.low & ENABLE)) return DISABLED_BY_GUEST;
    if (!this.localApic.isEnabled()) return APIC_DISABLED;
    if (this.apicvActive) return APICV_ACTIVE;
    if (this.localApic.hasPendingIrr()) return PENDING_IRR;
    if (vector < 0) return this.localApic.highestInService() < 0 ? NOTHING_IN_SERVICE : INJECTED_BEFORE_LAST_EOI;
    if (this.ioApicEoi.needsIoApicEoi(vector)) return LEVEL_TRIGGERED;
    if (!this.memory.writeByte(this.guestPhysical, PENDING)) return WORD_UNWRITABLE;
    return -1;
  }

  /**
   * Looks at the word, and ends the interrupt if the guest did. To be called first on every exit and before anything
   * looks at this vCPU's APIC. True if an interrupt was ended: deliverable interrupts are to be looked at again.
   */
  sample(): boolean {
    const vector = this.armedVector;
    if (vector < 0) return false;
    this.armedVector = -1;
    // A word that cannot be read or cleared any more answers the guest's test-and-clear with a 1 that stays (open bus,
    // ROM): the guest takes its interrupt for ended, so it is.
    const byte = this.memory.readByte(this.guestPhysical);
    const guestHasNotEnded = byte >= 0 && (byte & PENDING) !== 0 && this.memory.writeByte(this.guestPhysical, 0);
    if (guestHasNotEnded) {
      this.cause = DISARMED_BY_EXIT;
      this.observer.disarmed(vector);
      return false;
    }
    const ended = this.localApic.highestInService();
    this.invalidate();
    if (ended < 0) return false;
    this.localApic.endOfInterrupt();
    this.observer.elided(ended);
    return true;
  }

  /** The guest wrote the EOI register, after `sample`, and that ended `vector`; -1 (nothing was in service) is ignored. */
  endOfInterruptWritten(vector: number): void {
    if (vector < 0) return;
    this.observer.written(vector, this.cause);
    this.invalidate();
  }

  /** INIT or RESET: off. The guest's word is left as it is. */
  reset(): void {
    this.low = 0;
    this.high = 0;
    this.guestPhysical = 0;
    this.armedVector = -1;
    this.cause = NOTHING_IN_SERVICE;
    this.injectedVector = -1;
  }

  /** Settles the word, so that ISR is exact, and returns all that has to travel in a snapshot. */
  save(): MsrValue {
    this.sample();
    return { low: this.low, high: this.high };
  }

  /** After the APIC's registers were loaded. False if the value is not one a guest could have written. */
  restore(msr: MsrValue): boolean {
    this.reset();
    this.invalidate();
    return (msr.low === 0 && msr.high === 0) || this.writeMsr(msr.low, msr.high);
  }

  private invalidate(): void {
    this.injectedVector = -1;
    this.cause = INJECTED_BEFORE_LAST_EOI;
  }
}
