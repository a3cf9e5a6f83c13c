/**
 * KVM's tracepoints: names and fields as in the kernel's arch/x86/kvm/trace.h and include/trace/events/kvm.h
 * (Linux 6.1). Who emits looks at `enabled` first, so that tracing which is off costs one branch and builds nothing:
 * `if (tracer.enabled) tracer.emit({ name: 'kvm_eoi', apicid, vector });`
 */

import type { ExitIsa } from '../kvm/exit.ts';

/** Fields of each event. 64-bit values that may use all their bits are bigint. `apicid` is the vCPU's number, as in KVM. */
export interface TraceFields {
  kvm_entry: { vcpu_id: number; rip: bigint };
  kvm_exit: {
    vcpu_id: number;
    isa: ExitIsa;
    exit_reason: number;
    guest_rip: bigint;
    info1: bigint;
    info2: bigint;
    intr_info: number;
    error_code: number;
  };
  /** User space completes the exit; `reason` is its number in struct kvm_run. */
  kvm_userspace_exit: { reason: number };
  kvm_inj_virq: { vec: number; soft: boolean; reinjected: boolean };
  kvm_inj_exception: { exception: number; has_error: boolean; error_code: number; reinjected: boolean };
  kvm_apic_ipi: { icr_low: number; dest_id: number };
  /** `dm` is the delivery mode as in `DeliveryMode`, `tm` true for level. */
  kvm_apic_accept_irq: { apicid: number; dm: number; tm: boolean; vec: number };
  /** `reg` is the xAPIC offset, for x2APIC MSRs too. */
  kvm_apic: { rw: 'read' | 'write'; reg: number; val: bigint };
  kvm_eoi: { apicid: number; vector: number };
  kvm_pv_eoi: { apicid: number; vector: number };
  kvm_msr: { write: boolean; ecx: number; data: bigint; exception: boolean };
  kvm_cr: { rw: 'read' | 'write'; cr: number; val: bigint };
  kvm_pio: { rw: 'read' | 'write'; port: number; size: number; count: number; val: number };
  kvm_mmio: { type: 'unsatisfied-read' | 'read' | 'write'; len: number; gpa: number; val: bigint };
  kvm_cpuid: { function: number; index: number; rax: bigint; rbx: bigint; rcx: bigint; rdx: bigint; found: boolean };
  kvm_hypercall: { nr: bigint; a0: bigint; a1: bigint; a2: bigint; a3: bigint };
  kvm_msi_set_irq: { address: bigint; data: number };
  /** `e` is the redirection entry, 64 bits. */
  kvm_ioapic_set_irq: { e: bigint; pin: number; coalesced: boolean };
  /** `chip` 0 is the master; `elcr` and `imr` are that chip's registers. */
  kvm_pic_set_irq: { chip: number; pin: number; elcr: number; imr: number; coalesced: boolean };
  kvm_set_irq: { gsi: number; level: number; irq_source_id: number };
  kvm_ack_irq: { irqchip: 'PIC master' | 'PIC slave' | 'IOAPIC'; pin: number };
  kvm_pv_tlb_flush: { vcpu_id: number; need_flush_tlb: boolean };
}

export type TracepointName = keyof TraceFields;

/** What an emitter fills in. */
export type TraceRecord<Name extends TracepointName = TracepointName> = { [N in Name]: { name: N } & TraceFields[N] }[Name];

/** What a subscriber gets: the record, and on which vCPU's thread and when it happened. A new object each time. */
export type TraceEvent<Name extends TracepointName = TracepointName> = TraceRecord<Name> & {
  /** vCPU whose thread was running, which is not always the one the event is about. */
  vcpu: number;
  /** Guest time, as that vCPU sees it. */
  timestampNanoseconds: number;
};

export const TRACEPOINTS = [
  'kvm_entry',
  'kvm_exit',
  'kvm_userspace_exit',
  'kvm_inj_virq',
  'kvm_inj_exception',
  'kvm_apic_ipi',
  'kvm_apic_accept_irq',
  'kvm_apic',
  'kvm_eoi',
  'kvm_pv_eoi',
  'kvm_msr',
  'kvm_cr',
  'kvm_pio',
  'kvm_mmio',
  'kvm_cpuid',
  'kvm_hypercall',
  'kvm_msi_set_irq',
  'kvm_ioapic_set_irq',
  'kvm_pic_set_irq',
  'kvm_set_irq',
  'kvm_ack_irq',
  'kvm_pv_tlb_flush',
] as const satisfies readonly TracepointName[];

export type TraceListener<Name extends TracepointName = TracepointName> = (event: TraceEvent<Name>) => void;

interface Subscription {
  listener: TraceListener;
  names: ReadonlySet<TracepointName> | undefined;
}

export class Tracer {
  /** True while anybody listens. */
  enabled = false;
  /** The vCPU whose thread is running: set by who schedules vCPUs. */
  vcpu = 0;
  private readonly now: () => number;
  private subscriptions: readonly Subscription[] = [];

  /** `now` is guest time in nanoseconds as the running vCPU sees it. */
  constructor(now: () => number) {
    this.now = now;
  }

  /** Calls `listener` for each event, or for those named. Returns the function that ends it. */
  subscribe(listener: TraceListener): () => void;
  subscribe<Name extends TracepointName>(listener: TraceListener<Name>, names: readonly Name[]): () => void;
  subscribe(listener: (event: never) => void, names?: readonly TracepointName[]): () => void {
    const subscription: Subscription = { listener: listener as TraceListener, names: names && new Set(names) };
    this.subscriptions = [...this.subscriptions, subscription];
    this.enabled = true;
    return () => {
      this.subscriptions = this.subscriptions.filter((other) => other !== subscription);
      this.enabled = this.subscriptions.length > 0;
    };
  }

  /** Stamps the record and hands it on. The record belongs to the tracer from here on. */
  emit(record: TraceRecord): void {
    const event = record as TraceEvent;
    event.vcpu = this.vcpu;
    event.timestampNanoseconds = this.now();
    for (const { listener, names } of this.subscriptions) if (!names || names.has(event.name)) listener(event);
  }
}
