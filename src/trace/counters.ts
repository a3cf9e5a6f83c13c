/**
 * What is counted of interrupts and exits, by vCPU. Typed arrays of doubles (exact to 2^53): a count is one
 * addition, cheap enough to be always on. `snapshot` makes a plain object for reports, `balance` shows that
 * nothing is lost between an interrupt's acceptance and its end.
 */

import type { InterruptSource } from '../interrupts/message.ts';
import { EXIT_REASONS, type ExitReason } from '../kvm/exit.ts';
import { EOI_WRITE_CAUSES, type EoiWriteCause, NOT_ARMED_CAUSES, type NotArmedCause, type PvEoiObserver } from '../kvm/pv-eoi.ts';

export const INTERRUPT_SOURCES = [
  'ioapic',
  'msi',
  'ipi',
  'self-ipi',
  'pv-ipi',
  'timer',
  'lvt',
  'extint',
] as const satisfies readonly InterruptSource[];

const SOURCE_INDEX = Object.fromEntries(INTERRUPT_SOURCES.map((source, index) => [source, index])) as Record<
  InterruptSource,
  number
>;
const SOURCES = INTERRUPT_SOURCES.length;
const VECTORS = 256;
const REASONS = EXIT_REASONS.length;
const CAUSES = EOI_WRITE_CAUSES.length;

/** Single counts, by their place in a vCPU's row. */
const SCALARS = [
  'eoisWritten',
  'eoisElided',
  'eoisBroadcast',
  'eoisIgnored',
  'nmisInjected',
  'pvEoiArmed',
  'pvEoiDisarmed',
  'discardedInIrr',
  'discardedInIsr',
  'cyclesCharged',
] as const;
const SCALAR_COUNT = SCALARS.length;
const EOIS_WRITTEN = SCALARS.indexOf('eoisWritten');
const EOIS_ELIDED = SCALARS.indexOf('eoisElided');
const EOIS_BROADCAST = SCALARS.indexOf('eoisBroadcast');
const EOIS_IGNORED = SCALARS.indexOf('eoisIgnored');
const NMIS_INJECTED = SCALARS.indexOf('nmisInjected');
const PV_EOI_ARMED = SCALARS.indexOf('pvEoiArmed');
const PV_EOI_DISARMED = SCALARS.indexOf('pvEoiDisarmed');
const DISCARDED_IN_IRR = SCALARS.indexOf('discardedInIrr');
const DISCARDED_IN_ISR = SCALARS.indexOf('discardedInIsr');
const CYCLES_CHARGED = SCALARS.indexOf('cyclesCharged');

/** What a vCPU holds at the moment of a snapshot: asked for, not counted. */
export interface VcpuMoment {
  instructions: number;
  /** Bits in the IRR, and in the ISR, after PV EOI's word was sampled. */
  inIrr: number;
  inIsr: number;
}

export interface InterruptCounts {
  total: number;
  bySource: Partial<Record<InterruptSource, number>>;
  /** Vector (`0xec`), then source. */
  byVector: Record<string, Partial<Record<InterruptSource, number>>>;
}

/** Counts of one vCPU, or of all together. Zeros are left out of tables. */
export interface VcpuCounts {
  instructions: number;
  cyclesCharged: number;
  exits: { total: number; byReason: Partial<Record<ExitReason, number>>; cyclesByReason: Partial<Record<ExitReason, number>> };
  interrupts: {
    /** Set a bit in the IRR (a PIC's interrupt: was acknowledged). */
    accepted: InterruptCounts;
    /** Found the bit set: one delivery for two interrupts. */
    coalesced: InterruptCounts;
    /** Delivered to the guest: moved from IRR to ISR, or a PIC's, which has no ISR bit. */
    injected: InterruptCounts;
    /** Thrown away by INIT, RESET, turning the APIC off or a loaded state. */
    discardedInIrr: number;
    discardedInIsr: number;
    inIrr: number;
    inIsr: number;
    nmisInjected: number;
  };
  eois: {
    /** Written to the register, and ended an interrupt. */
    written: number;
    /** Ended through PV EOI's word, without an exit. */
    elided: number;
    /** Of both: sent on to the I/O APIC. */
    broadcast: number;
    /** Written with nothing in service. */
    ignored: number;
    /** Sums up to `written`: why PV EOI did not save this one. */
    writtenBecause: Partial<Record<EoiWriteCause, number>>;
  };
  pvEoi: {
    armed: number;
    disarmed: number;
    /** Entries that looked and did not arm. */
    notArmed: Partial<Record<NotArmedCause, number>>;
  };
}

export interface CountersSnapshot {
  vcpus: VcpuCounts[];
  total: VcpuCounts;
}

type Table = 'accepted' | 'coalesced' | 'injected';

export class Counters {
  readonly vcpus: number;
  private readonly exits: Float64Array;
  private readonly exitCycles: Float64Array;
  private readonly scalars: Float64Array;
  private readonly notArmed: Float64Array;
  private readonly writtenBecause: Float64Array;
  private readonly interrupts: Record<Table, Float64Array>;
  /** Source of each vector in the IRR, so that injection knows it. */
  private readonly pendingSource: Uint8Array;

  constructor(vcpus: number) {
    const rows = (columns: number) => new Float64Array(vcpus * columns);
    this.vcpus = vcpus;
    this.exits = rows(REASONS);
    this.exitCycles = rows(REASONS);
    this.scalars = rows(SCALAR_COUNT);
    this.notArmed = rows(CAUSES);
    this.writtenBecause = rows(CAUSES);
    this.interrupts = {
      accepted: rows(SOURCES * VECTORS),
      coalesced: rows(SOURCES * VECTORS),
      injected: rows(SOURCES * VECTORS),
    };
    this.pendingSource = new Uint8Array(vcpus * VECTORS);
  }

  /** `reason` is an index (`Exit`). */
  exit(vcpu: number, reason: number, cycles: number): void {
    this.exits[vcpu * REASONS + reason]++;
    this.exitCycles[vcpu * REASONS + reason] += cycles;
    this.scalars[vcpu * SCALAR_COUNT + CYCLES_CHARGED] += cycles;
  }

  /** Cycles charged for something that is no exit: injection, wake-up. */
  charge(vcpu: number, cycles: number): void {
    this.scalars[vcpu * SCALAR_COUNT + CYCLES_CHARGED] += cycles;
  }

  /** The IRR bit of `vector` was set. */
  accepted(vcpu: number, vector: number, source: InterruptSource): void {
    const index = SOURCE_INDEX[source];
    this.interrupts.accepted[(vcpu * SOURCES + index) * VECTORS + vector]++;
    this.pendingSource[vcpu * VECTORS + vector] = index;
  }

  /** An interrupt met its IRR bit set already. */
  coalesced(vcpu: number, vector: number, source: InterruptSource): void {
    this.interrupts.coalesced[(vcpu * SOURCES + SOURCE_INDEX[source]) * VECTORS + vector]++;
  }

  /** `vector` moved from IRR to ISR. */
  injected(vcpu: number, vector: number): void {
    const index = this.pendingSource[vcpu * VECTORS + vector];
    this.interrupts.injected[(vcpu * SOURCES + index) * VECTORS + vector]++;
  }

  /** The PIC's interrupt was acknowledged and injected: neither IRR nor ISR, and no EOI to the local APIC. */
  externalInjected(vcpu: number, vector: number): void {
    const cell = (vcpu * SOURCES + SOURCE_INDEX.extint) * VECTORS + vector;
    this.interrupts.accepted[cell]++;
    this.interrupts.injected[cell]++;
  }

  nmiInjected(vcpu: number): void {
    this.scalars[vcpu * SCALAR_COUNT + NMIS_INJECTED]++;
  }

  /** The EOI register was written and ended `vector`, or -1: nothing was in service. */
  eoiWritten(vcpu: number, vector: number): void {
    this.scalars[vcpu * SCALAR_COUNT + (vector < 0 ? EOIS_IGNORED : EOIS_WRITTEN)]++;
  }

  /** An EOI, written or elided, went on to the I/O APIC. */
  eoiBroadcast(vcpu: number): void {
    this.scalars[vcpu * SCALAR_COUNT + EOIS_BROADCAST]++;
  }

  /** INIT, RESET, turning the APIC off or a loaded state threw bits of IRR and ISR away. */
  discarded(vcpu: number, inIrr: number, inIsr: number): void {
    this.scalars[vcpu * SCALAR_COUNT + DISCARDED_IN_IRR] += inIrr;
    this.scalars[vcpu * SCALAR_COUNT + DISCARDED_IN_ISR] += inIsr;
  }

  /** What counts a vCPU's PV EOI. `written` here counts the cause alone: `eoiWritten` counts the EOI. */
  pvEoiObserver(vcpu: number): PvEoiObserver {
    const { scalars, notArmed, writtenBecause } = this;
    const row = vcpu * SCALAR_COUNT;
    const causes = vcpu * CAUSES;
    return {
      armed: () => {
        scalars[row + PV_EOI_ARMED]++;
      },
      elided: () => {
        scalars[row + EOIS_ELIDED]++;
      },
      disarmed: () => {
        scalars[row + PV_EOI_DISARMED]++;
      },
      notArmed: (cause) => {
        notArmed[causes + cause]++;
      },
      written: (_vector, cause) => {
        writtenBecause[causes + cause]++;
      },
    };
  }

  /** Exits of one vCPU so far, of all reasons or of one. */
  exitCount(vcpu: number, reason?: number): number {
    if (reason !== undefined) return this.exits[vcpu * REASONS + reason];
    return this.exits.subarray(vcpu * REASONS, (vcpu + 1) * REASONS).reduce((sum, count) => sum + count, 0);
  }

  snapshot(moment: (vcpu: number) => VcpuMoment): CountersSnapshot {
    const vcpus = Array.from({ length: this.vcpus }, (_, vcpu) => this.vcpuCounts(vcpu, moment(vcpu)));
    return { vcpus, total: sum(vcpus) };
  }

  private vcpuCounts(vcpu: number, { instructions, inIrr, inIsr }: VcpuMoment): VcpuCounts {
    const scalar = (index: number) => this.scalars[vcpu * SCALAR_COUNT + index];
    const row = (array: Float64Array, columns: number) => array.subarray(vcpu * columns, (vcpu + 1) * columns);
    return {
      instructions,
      cyclesCharged: scalar(CYCLES_CHARGED),
      exits: {
        total: this.exitCount(vcpu),
        byReason: table(EXIT_REASONS, row(this.exits, REASONS)),
        cyclesByReason: table(EXIT_REASONS, row(this.exitCycles, REASONS)),
      },
      interrupts: {
        accepted: this.interruptCounts('accepted', vcpu),
        coalesced: this.interruptCounts('coalesced', vcpu),
        injected: this.interruptCounts('injected', vcpu),
        discardedInIrr: scalar(DISCARDED_IN_IRR),
        discardedInIsr: scalar(DISCARDED_IN_ISR),
        inIrr,
        inIsr,
        nmisInjected: scalar(NMIS_INJECTED),
      },
      eois: {
        written: scalar(EOIS_WRITTEN),
        elided: scalar(EOIS_ELIDED),
        broadcast: scalar(EOIS_BROADCAST),
        ignored: scalar(EOIS_IGNORED),
        writtenBecause: table(EOI_WRITE_CAUSES, row(this.writtenBecause, CAUSES)),
      },
      pvEoi: {
        armed: scalar(PV_EOI_ARMED),
        disarmed: scalar(PV_EOI_DISARMED),
        notArmed: table(NOT_ARMED_CAUSES, row(this.notArmed, CAUSES)),
      },
    };
  }

  private interruptCounts(name: Table, vcpu: number): InterruptCounts {
    const counts: InterruptCounts = { total: 0, bySource: {}, byVector: {} };
    const cells = this.interrupts[name];
    for (let vector = 0; vector < VECTORS; vector++) {
      for (let index = 0; index < SOURCES; index++) {
        const count = cells[(vcpu * SOURCES + index) * VECTORS + vector];
        if (count === 0) continue;
        const source = INTERRUPT_SOURCES[index];
        const key = `0x${vector.toString(16).padStart(2, '0')}`;
        counts.total += count;
        counts.bySource[source] = (counts.bySource[source] ?? 0) + count;
        counts.byVector[key] = { ...counts.byVector[key], [source]: count };
      }
    }
    return counts;
  }
}

/** Names and counts as an object, without the zeros. */
function table<Name extends string>(names: readonly Name[], counts: Float64Array): Partial<Record<Name, number>> {
  const entries = names.map((name, index) => [name, counts[index]] as const).filter(([, count]) => count !== 0);
  return Object.fromEntries(entries) as Partial<Record<Name, number>>;
}

type Tree = { [key: string]: number | Tree };

/** a + sign·b, number by number; what only one of them has counts as 0 in the other. */
function combine<Shape extends object>(a: Shape, b: Shape, sign: 1 | -1): Shape {
  const visit = (left: Tree, right: Tree): Tree => {
    const result: Tree = {};
    for (const key of new Set([...Object.keys(left), ...Object.keys(right)])) {
      const one = left[key];
      const other = right[key];
      if (typeof one === 'object' || typeof other === 'object') result[key] = visit((one as Tree) ?? {}, (other as Tree) ?? {});
      else result[key] = (one ?? 0) + sign * (other ?? 0);
    }
    return result;
  };
  return visit(a as Tree, b as Tree) as Shape;
}

/** Of several vCPUs, or several runs, together. */
export function sum(counts: readonly VcpuCounts[]): VcpuCounts {
  return counts.reduce((total, one) => combine(total, one, 1));
}

/** What happened from `before` to `after`. The numbers that are no counts (`inIrr`, `inIsr`) become their change, too. */
export function difference(before: CountersSnapshot, after: CountersSnapshot): CountersSnapshot {
  return {
    vcpus: after.vcpus.map((counts, vcpu) => combine(counts, before.vcpus[vcpu], -1)),
    total: combine(after.total, before.total, -1),
  };
}

/** Where all interrupts went. Remainders are what the terms do not explain: 0, or there is a bug. */
export interface InterruptBalance {
  /** accepted = injected + discardedInIrr + inIrr + remainder */
  delivery: { accepted: number; injected: number; discardedInIrr: number; inIrr: number; remainder: number };
  /** injected (less `external`, which have no EOI) = written + elided + discardedInIsr + inIsr + remainder */
  ending: {
    injected: number;
    external: number;
    written: number;
    elided: number;
    discardedInIsr: number;
    inIsr: number;
    remainder: number;
  };
  /** Of the EOIs written and elided: sent on to the I/O APIC. */
  broadcast: number;
  /** written = the sum of `writtenBecause` + remainder, and armed = elided + disarmed (+ 0 or 1 still armed) */
  causesRemainder: number;
  isBalanced: boolean;
}

export function balance(counts: VcpuCounts): InterruptBalance {
  const { interrupts, eois } = counts;
  const accepted = interrupts.accepted.total;
  const injected = interrupts.injected.total;
  const external = interrupts.injected.bySource.extint ?? 0;
  const { discardedInIrr, discardedInIsr, inIrr, inIsr } = interrupts;
  const { written, elided, broadcast } = eois;
  const deliveryRemainder = accepted - injected - discardedInIrr - inIrr;
  const endingRemainder = injected - external - written - elided - discardedInIsr - inIsr;
  const causesRemainder = written - Object.values(eois.writtenBecause).reduce((sum, count) => sum + count, 0);
  return {
    delivery: { accepted, injected, discardedInIrr, inIrr, remainder: deliveryRemainder },
    ending: { injected, external, written, elided, discardedInIsr, inIsr, remainder: endingRemainder },
    broadcast,
    causesRemainder,
    isBalanced: deliveryRemainder === 0 && endingRemainder === 0 && causesRemainder === 0,
  };
}
