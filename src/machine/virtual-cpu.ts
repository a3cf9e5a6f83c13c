/**
 * A vCPU as KVM runs it: the processor, its local APIC, its paravirtual state, and the protocol between guest and host.
 * Every exit goes through `exit`: counted, charged, and PV EOI's word sampled before anything is done about it; every
 * look for events goes through `deliverEvents`, which ends with arming. /docs/interrupts.md tells the order and why.
 */

import { resetVcpu } from '../cpu/control-registers.ts';
import { deliver } from '../cpu/exceptions.ts';
import { InertMsrs } from '../cpu/msr.ts';
import { CS, setSegment } from '../cpu/segments.ts';
import * as state from '../cpu/state.ts';
import { Activity, type Vcpu, Vector } from '../cpu/vcpu.ts';
import type { Engine } from '../engine/engine.ts';
import { ApicRegister } from '../interrupts/apic-registers.ts';
import { type ApicEffect, type LocalApic, PendingEvent } from '../interrupts/local-apic.ts';
import { DeliveryMode } from '../interrupts/message.ts';
import type { InterruptRouter } from '../interrupts/router.ts';
import type { CompletedBy, ExitAccounting } from '../kvm/exit-accounting.ts';
import { Exit, timerExit } from '../kvm/exit.ts';
import type { KvmVcpu } from '../kvm/kvm-vcpu.ts';
import type { Counters } from '../trace/counters.ts';
import type { Tracer } from '../trace/tracepoints.ts';

/** No exit is due. */
const NONE = -1;

export interface VirtualCpuParts {
  vcpu: Vcpu;
  engine: Engine;
  apic: LocalApic;
  router: InterruptRouter;
  accounting: ExitAccounting;
  counters: Counters;
  tracer: Tracer;
  /** Cycles go by for this vCPU: exits and what they cost. */
  charge(cycles: number): void;
  /** The vCPU became runnable: its clock goes to the present. */
  woken(): void;
}

export class VirtualCpu {
  readonly vcpu: Vcpu;
  readonly apic: LocalApic;
  readonly inertMsrs = new InertMsrs();
  kvm!: KvmVcpu;
  private readonly parts: VirtualCpuParts;
  /** Exit that an event from outside will have made by the time it is looked at, or NONE. */
  private kick = NONE;
  /** Events are to be looked at before the next entry (KVM_REQ_EVENT). */
  private requestEvent = true;
  /** The interrupt window was asked for: an interrupt waits for the guest to enable interrupts. */
  private windowRequested = false;
  /** An exit is being handled: what happens meanwhile needs no kick. */
  private inExit = false;

  constructor(parts: VirtualCpuParts) {
    this.parts = parts;
    this.vcpu = parts.vcpu;
    this.apic = parts.apic;
    const { index } = parts.vcpu;
    const { counters, tracer } = parts;
    parts.apic.onAccept = (vector, source, result, deliveryMode, trigger) => {
      if (deliveryMode === DeliveryMode.fixed || deliveryMode === DeliveryMode.lowestPriority) {
        if (result === 'accepted') counters.accepted(index, vector, source);
        else if (result === 'coalesced') counters.coalesced(index, vector, source);
      }
      if (tracer.enabled) tracer.emit({ name: 'kvm_apic_accept_irq', apicid: index, dm: deliveryMode, tm: trigger === 'level', vec: vector });
      if (source === 'timer') this.timerExpired = true;
    };
    parts.apic.onChange = () => this.wakeOrKick();
  }

  get index(): number {
    return this.vcpu.index;
  }

  /** Set by the APIC's own timer on its way to `onChange`: its exit has a reason of its own. */
  private timerExpired = false;

  /** Something arrived at the APIC: a sleeping vCPU wakes, a running one is kicked out of the guest. */
  private wakeOrKick(): void {
    const { vcpu, parts } = this;
    const isTimer = this.timerExpired;
    this.timerExpired = false;
    this.requestEvent = true;
    vcpu.set32(state.EVENT_PENDING, 1);
    if (vcpu.activity === Activity.halted) {
      if (this.canWake()) this.wake();
      return;
    }
    if (vcpu.activity === Activity.waitForSipi) {
      if (this.apic.pendingEvents & PendingEvent.startUp) this.deliverStartUp();
      return;
    }
    if (!this.inExit && this.kick === NONE) this.kick = isTimer ? timerExit(parts.accounting.isa) : Exit.externalInterrupt;
    parts.engine.requestExit(vcpu.base);
  }

  /** Whether HLT ends: an interrupt that can be delivered, NMI, INIT or SMI. */
  private canWake(): boolean {
    const { pendingEvents } = this.apic;
    if (pendingEvents & (PendingEvent.nmi | PendingEvent.init | PendingEvent.smi)) return true;
    return this.vcpu.interruptsEnabled && (this.apic.highestPending() >= 0 || (pendingEvents & PendingEvent.extInt) !== 0);
  }

  private wake(): void {
    const { vcpu, parts } = this;
    vcpu.activity = Activity.running;
    this.kvm.pvUnhalt.take();
    parts.woken();
    parts.charge(parts.accounting.wakeup(this.index));
  }

  /** KICK_CPU: another vCPU handed a lock over. */
  kickFromHypercall(): void {
    this.kvm.pvUnhalt.kick();
    if (this.vcpu.activity === Activity.halted) this.wake();
  }

  // --- Exits --------------------------------------------------------------------------------------

  /**
   * The guest leaves: `handle` does what the exit is about. Before it, the exit is counted and charged, and PV EOI's word is
   * sampled: an interrupt that the guest ended in shared memory is retired before anybody looks at the APIC.
   */
  exit<T>(reason: number, detail: number, guestPhysical: number, completedBy: CompletedBy, handle: () => T): T {
    const { parts, index } = this;
    const nested = this.inExit;
    this.inExit = true;
    parts.charge(parts.accounting.exit(index, reason, detail, guestPhysical, completedBy));
    if (this.kvm.pvEoi.sample()) this.requestEvent = true;
    try {
      return handle();
    } finally {
      this.inExit = nested;
      if (!nested) this.enterGuest();
    }
  }

  /** Back to the guest: at once where no event is due, else by way of the run loop. */
  private enterGuest(): void {
    const { vcpu, parts } = this;
    if (this.requestEvent) {
      if (this.hasDeliverable()) {
        vcpu.set32(state.EVENT_PENDING, 1);
        parts.engine.requestExit(vcpu.base);
        return;
      }
      this.requestEvent = false;
      this.kvm.pvEoi.arm();
      vcpu.set32(state.EVENT_PENDING, 0);
    }
    this.kvm.stealTime.enter();
    parts.accounting.entry(this.index);
  }

  private hasDeliverable(): boolean {
    return this.apic.highestPending() >= 0 || this.apic.pendingEvents !== 0;
  }

  /** EOI by register, in either view, or by PV EOI's sampling. Returns the vector that was ended, -1 for none. */
  endOfInterrupt(): number {
    const { parts, index } = this;
    const effect = this.apic.endOfInterrupt();
    this.requestEvent = true;
    if (effect?.kind !== 'eoi') return NONE;
    if (effect.broadcast) parts.counters.eoiBroadcast(index);
    parts.router.perform(effect, this.apic);
    return effect.vector;
  }

  /** What a write to an APIC register entailed. `register` is the xAPIC offset. */
  performApicEffect(effect: ApicEffect | undefined, register: number): void {
    const { parts, index } = this;
    const { counters, tracer } = parts;
    if (register === ApicRegister.eoi) {
      const vector = effect?.kind === 'eoi' ? effect.vector : NONE;
      counters.eoiWritten(index, vector);
      this.kvm.pvEoi.endOfInterruptWritten(vector);
      if (effect?.kind === 'eoi' && effect.broadcast) counters.eoiBroadcast(index);
      if (tracer.enabled && vector >= 0) tracer.emit({ name: 'kvm_eoi', apicid: index, vector });
      this.requestEvent = true;
    }
    if (!effect) return;
    if (effect.kind === 'ipi') {
      if (tracer.enabled) {
        const { message } = effect;
        const shorthand = ['none', 'self', 'all', 'others'].indexOf(message.shorthand);
        const low = message.vector | (message.deliveryMode << 8) | (message.destinationMode === 'logical' ? 1 << 11 : 0) | (message.assert ? 1 << 14 : 0) | (message.trigger === 'level' ? 1 << 15 : 0) | (shorthand << 18);
        tracer.emit({ name: 'kvm_apic_ipi', icr_low: low, dest_id: message.destination });
      }
      // Whom it is for should see it soon: the sender's slice ends.
      parts.engine.requestExit(this.vcpu.base);
    }
    parts.router.perform(effect, this.apic);
  }

  halt(): void {
    const { vcpu } = this;
    this.exit(Exit.hlt, 0, 0, 'kernel', () => {
      this.requestEvent = true;
      // What is pending already, and a kick that came first, keep it awake.
      if (this.kvm.pvUnhalt.take() || (this.hasDeliverable() && this.canWake())) return;
      vcpu.activity = Activity.halted;
    });
  }

  // --- Events -------------------------------------------------------------------------------------

  /** Called by the run loop between instructions while EVENT_PENDING is set. False where nothing was delivered. */
  deliverEvents(): boolean {
    const { vcpu, apic, parts, index } = this;
    if (this.kick !== NONE) {
      const reason = this.kick;
      this.kick = NONE;
      this.inExit = true;
      parts.charge(parts.accounting.exit(index, reason));
      this.kvm.pvEoi.sample();
      this.inExit = false;
      this.requestEvent = true;
    }
    const events = apic.pendingEvents;
    if (events & PendingEvent.init && apic.takeInit()) {
      this.init();
      return true;
    }
    if (events & PendingEvent.startUp) apic.takeStartUp();
    if (events & PendingEvent.smi) apic.takeSmi();
    let delivered = false;
    if (events & PendingEvent.nmi && !vcpu.get32(state.NMI_BLOCKED) && apic.takeNmi()) {
      parts.counters.nmiInjected(index);
      vcpu.set32(state.NMI_BLOCKED, 1);
      deliver(vcpu, Vector.nmi, -1, 'external');
      delivered = true;
    } else if (this.hasInterrupt()) {
      if (vcpu.interruptsEnabled) {
        if (this.windowRequested) {
          // The guest opened the window: that was an exit too.
          this.windowRequested = false;
          parts.charge(parts.accounting.exit(index, Exit.interruptWindow));
          this.kvm.pvEoi.sample();
        }
        delivered = this.injectInterrupt();
      } else this.windowRequested = true;
    } else this.windowRequested = false;
    if (this.requestEvent || delivered) {
      this.requestEvent = false;
      this.kvm.pvEoi.arm();
    }
    this.kvm.stealTime.enter();
    parts.accounting.entry(index);
    vcpu.set32(state.EVENT_PENDING, this.windowRequested || this.hasDeliverable() ? 1 : 0);
    return delivered;
  }

  private hasInterrupt(): boolean {
    return this.apic.highestPending() >= 0 || (this.apic.pendingEvents & PendingEvent.extInt) !== 0;
  }

  private injectInterrupt(): boolean {
    const { vcpu, apic, parts, index } = this;
    let vector: number;
    if (apic.pendingEvents & PendingEvent.extInt) {
      vector = parts.router.acknowledgeExtInt(apic);
      parts.counters.externalInjected(index, vector);
    } else {
      const pending = apic.highestPending();
      if (pending < 0) return false;
      vector = apic.acknowledge();
      parts.counters.injected(index, vector);
      this.kvm.pvEoi.interruptInjected(vector);
    }
    parts.charge(parts.accounting.inject(index, vector));
    deliver(vcpu, vector, -1, 'external');
    return true;
  }

  // --- Life cycle ---------------------------------------------------------------------------------

  private init(): void {
    const { vcpu, apic, parts, index } = this;
    this.kvm.pvEoi.sample();
    parts.counters.discarded(index, this.bits(ApicRegister.irr), this.bits(ApicRegister.isr));
    apic.init();
    this.kvm.reset();
    resetVcpu(vcpu, true);
    vcpu.activity = Activity.waitForSipi;
    this.windowRequested = false;
    this.kick = NONE;
    if (apic.pendingEvents & PendingEvent.startUp) this.deliverStartUp();
  }

  private deliverStartUp(): void {
    const page = this.apic.takeStartUp();
    if (page < 0) return;
    const { vcpu } = this;
    setSegment(vcpu, CS, page << 8, { base: BigInt(page) << 12n, limit: 0xffff, attributes: 0x9b00 });
    vcpu.rip = 0n;
    vcpu.activity = Activity.running;
    this.requestEvent = true;
    this.parts.woken();
  }

  /** Set bits in one of the APIC's 256-bit registers. */
  bits(first: number): number {
    let count = 0;
    const mode = this.apic.mode;
    if (mode === 'disabled') return 0;
    for (let i = 0; i < 8; i++) {
      let word = this.apic.registerWord(first + 16 * i);
      for (; word; word &= word - 1) count++;
    }
    return count;
  }
}
