/**
 * Exit accounting: each exit is counted, charged to the vCPU by the cost profile, and traced as KVM traces it
 * (kvm_exit, kvm_userspace_exit, kvm_entry). Which operations exit at all is decided with `exit.ts`.
 */

import type { Counters } from '../trace/counters.ts';
import { UserspaceExit } from '../trace/ftrace-text.ts';
import type { Tracer } from '../trace/tracepoints.ts';
import type { CostProfile } from './cost-profile.ts';
import { EXIT_REASONS, Exit, type ExitIsa, hardwareExit } from './exit.ts';
import type { PvEoiObserver } from './pv-eoi.ts';

export interface ExitAccountingOptions {
  counters: Counters;
  profile: CostProfile;
  tracer: Tracer;
  /** Whose names the trace uses. */
  isa: ExitIsa;
  /** The vCPU's RIP as the tracepoints show it; asked for only while somebody listens. */
  rip(vcpu: number): bigint;
}

/** Who completes an exit: KVM, or the program that runs the machine (its devices). */
export type CompletedBy = 'kernel' | 'userspace';

export class ExitAccounting {
  readonly isa: ExitIsa;
  readonly profile: CostProfile;
  private readonly counters: Counters;
  private readonly tracer: Tracer;
  private readonly rip: (vcpu: number) => bigint;
  /** By reason, completed in the kernel; then by reason, completed in user space. */
  private readonly cycles: Float64Array;

  constructor(options: ExitAccountingOptions) {
    this.isa = options.isa;
    this.profile = options.profile;
    this.counters = options.counters;
    this.tracer = options.tracer;
    this.rip = options.rip;
    const kernel = EXIT_REASONS.map((reason) => options.profile.exitCycles[reason]);
    this.cycles = Float64Array.from([...kernel, ...kernel.map((cycles) => cycles + options.profile.userspaceCycles)]);
  }

  /**
   * A vCPU leaves guest mode. Returns the cycles to charge to its clock. `reason` is an index (`Exit`), `detail` is
   * made by `exitDetail`, `guestPhysical` is the address of `mmio` and `apic-access`.
   */
  exit(vcpu: number, reason: number, detail = 0, guestPhysical = 0, completedBy: CompletedBy = 'kernel'): number {
    const cycles = this.cycles[completedBy === 'kernel' ? reason : reason + EXIT_REASONS.length];
    this.counters.exit(vcpu, reason, cycles);
    if (this.tracer.enabled) this.traceExit(vcpu, reason, detail, guestPhysical, completedBy);
    return cycles;
  }

  /** The vCPU enters guest mode again. */
  entry(vcpu: number): void {
    if (this.tracer.enabled) this.tracer.emit({ name: 'kvm_entry', vcpu_id: vcpu, rip: this.rip(vcpu) });
  }

  /** An interrupt is delivered at this entry. Returns the cycles to charge. */
  inject(vcpu: number, vector: number): number {
    const { injectionCycles } = this.profile;
    this.counters.charge(vcpu, injectionCycles);
    if (this.tracer.enabled) this.tracer.emit({ name: 'kvm_inj_virq', vec: vector, soft: false, reinjected: false });
    return injectionCycles;
  }

  /** A halted vCPU is woken. Returns the cycles to charge. */
  wakeup(vcpu: number): number {
    const { wakeupCycles } = this.profile;
    this.counters.charge(vcpu, wakeupCycles);
    return wakeupCycles;
  }

  /** What counts and traces a vCPU's PV EOI. */
  pvEoiObserver(vcpu: number): PvEoiObserver {
    const counting = this.counters.pvEoiObserver(vcpu);
    return {
      ...counting,
      elided: (vector) => {
        counting.elided(vector);
        if (this.tracer.enabled) this.tracer.emit({ name: 'kvm_pv_eoi', apicid: vcpu, vector });
      },
    };
  }

  private traceExit(vcpu: number, reason: number, detail: number, guestPhysical: number, completedBy: CompletedBy): void {
    const { code, info1, info2, intrInfo } = hardwareExit(this.isa, reason, detail, guestPhysical);
    this.tracer.emit({
      name: 'kvm_exit',
      vcpu_id: vcpu,
      isa: this.isa,
      exit_reason: code,
      guest_rip: this.rip(vcpu),
      info1,
      info2,
      intr_info: intrInfo,
      error_code: 0,
    });
    if (completedBy === 'userspace') this.tracer.emit({ name: 'kvm_userspace_exit', reason: userspaceExit(reason) });
  }
}

function userspaceExit(reason: number): number {
  switch (reason) {
    case Exit.io:
      return UserspaceExit.io;
    case Exit.mmio:
      return UserspaceExit.mmio;
    case Exit.tripleFault:
      return UserspaceExit.shutdown;
    default:
      throw new Error(`KVM completes exits of reason ${EXIT_REASONS[reason]} itself`);
  }
}
