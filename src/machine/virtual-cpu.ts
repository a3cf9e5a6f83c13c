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
import { Exit, exitDetail, timerExit } from '../kvm/exit.ts';
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
  /** In the guest, from an entry to the next exit. */
  private inGuest = false;
  /** An NMI waits for the end of another: the IRET that ends it exits. */
  private nmiWindowRequested = false;
  /** The guest's debug registers are in the processor: until the next exit, accesses make none. */
  private debugRegistersLoaded = false;

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
      if (tracer.enabled) tracer.emit({ name: 'kvm_apic_accept_irq', apicid: this.apic.initialId, dm: deliveryMode, tm: trigger === 'level', vec: vector });
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
      if (this.apic.pendingEvents & PendingEvent.init && this.apic.takeInit()) this.init();
      else if (this.apic.pendingEvents & PendingEvent.startUp) this.deliverStartUp();
      return;
    }
    if (this.inGuest && this.kick === NONE) this.kick = isTimer ? timerExit(parts.accounting.isa) : Exit.externalInterrupt;
    parts.engine.requestExit(vcpu.base);
  }

  /** Whether HLT ends: an interrupt that can be delivered, NMI, INIT or SMI. */
  private canWake(): boolean {
    const { pendingEvents } = this.apic;
    if (pendingEvents & (PendingEvent.init | PendingEvent.smi)) return true;
    if (pendingEvents & PendingEvent.nmi && this.vcpu.get32(state.NMI_BLOCKED) === 0) return true;
    return this.vcpu.interruptsEnabled && this.hasInterrupt();
  }

  private wake(): void {
    const { vcpu, parts } = this;
    vcpu.activity = Activity.running;
    vcpu.set32(state.EVENT_PENDING, 1);
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
    const nested = this.inExit;
    this.leaveGuest(reason, detail, guestPhysical, completedBy);
    try {
      return handle();
    } finally {
      this.inExit = nested;
      // Who halts stays out until something wakes it.
      if (!nested && this.vcpu.activity === Activity.running) this.enterGuest();
    }
  }

  private leaveGuest(reason: number, detail = 0, guestPhysical = 0, completedBy: CompletedBy = 'kernel'): void {
    const { parts } = this;
    this.inExit = true;
    this.inGuest = false;
    this.debugRegistersLoaded = false;
    parts.charge(parts.accounting.exit(this.index, reason, detail, guestPhysical, completedBy));
    if (this.kvm.pvEoi.sample()) this.requestEvent = true;
  }

  /** MOV to or from a debug register: the first one after an exit makes one, in which the host loads them all. */
  accessDebugRegister(register: number, isRead: boolean): void {
    if (!this.debugRegistersLoaded) this.exit(Exit.drAccess, exitDetail.debugRegister(register, isRead), 0, 'kernel', () => {});
    this.debugRegistersLoaded = true;
  }

  /** Back to the guest: at once where no event is due, else by way of the run loop. */
  private enterGuest(): void {
    const { vcpu, parts } = this;
    if (this.requestEvent) {
      if (this.canDeliver()) {
        vcpu.set32(state.EVENT_PENDING, 1);
        parts.engine.leaveBeforeNext(vcpu);
        return;
      }
      this.prepareEntry();
    }
    this.entered();
  }

  /** What `vcpu_enter_guest` does when events were looked at: ask for windows for what has to wait, then arm. */
  private prepareEntry(): void {
    const { vcpu, apic } = this;
    this.requestEvent = false;
    this.windowRequested = this.hasInterrupt();
    this.nmiWindowRequested = (apic.pendingEvents & PendingEvent.nmi) !== 0;
    this.kvm.pvEoi.arm();
    vcpu.set32(state.EVENT_PENDING, this.windowRequested || apic.pendingEvents !== 0 ? 1 : 0);
  }

  private entered(): void {
    this.kvm.stealTime.enter();
    this.parts.accounting.entry(this.index);
    this.inGuest = true;
  }

  /** Something waits that the vCPU takes right now (a STARTUP it takes, and ignores). */
  private canDeliver(): boolean {
    const { pendingEvents } = this.apic;
    return (pendingEvents & PendingEvent.startUp) !== 0 || this.canWake();
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
      if (tracer.enabled && vector >= 0) tracer.emit({ name: 'kvm_eoi', apicid: this.apic.initialId, vector });
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
      if (this.kvm.pvUnhalt.take() || this.canWake()) return;
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
      this.leaveGuest(reason);
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
    if (events & PendingEvent.nmi && vcpu.get32(state.NMI_BLOCKED) === 0 && apic.takeNmi()) {
      // The guest opened the window, with its IRET or with its STI: that was an exit too.
      if (this.nmiWindowRequested) this.windowOpened(Exit.nmiWindow);
      parts.counters.nmiInjected(index);
      vcpu.set32(state.NMI_BLOCKED, 1);
      deliver(vcpu, Vector.nmi, -1, 'external');
      delivered = true;
    } else if (vcpu.interruptsEnabled && this.hasInterrupt()) {
      if (this.windowRequested) this.windowOpened(Exit.interruptWindow);
      delivered = this.injectInterrupt();
    }
    if (this.requestEvent || delivered) this.prepareEntry();
    if (!this.inGuest) this.entered();
    return delivered;
  }

  private windowOpened(reason: number): void {
    this.leaveGuest(reason);
    this.inExit = false;
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
    this.nmiWindowRequested = false;
    this.inGuest = false;
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
    vcpu.set32(state.EVENT_PENDING, 1);
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
