import { describe, expect, it } from 'vitest';
import { Exit } from '../kvm/exit.ts';
import { EOI_WRITE_CAUSES } from '../kvm/pv-eoi.ts';
import { balance, Counters, difference } from './counters.ts';

const LEVEL_TRIGGERED = EOI_WRITE_CAUSES.indexOf('level-triggered');
const idle = () => ({ instructions: 0, inIrr: 0, inIsr: 0 });

/** One interrupt's life on vCPU 0: accepted, injected, and ended by a write. */
function ended(counters: Counters, vector: number): void {
  counters.accepted(0, vector, 'timer');
  counters.injected(0, vector);
  counters.eoiWritten(0, vector);
  counters.pvEoiObserver(0).written(vector, LEVEL_TRIGGERED);
}

describe('counters', () => {
  it('keep interrupts by vCPU, vector and source', () => {
    const counters = new Counters(2);
    counters.accepted(0, 0xec, 'timer');
    counters.accepted(1, 0xfb, 'ipi');
    counters.accepted(1, 0xfb, 'pv-ipi');
    counters.coalesced(1, 0xfb, 'ipi');
    const { vcpus, total } = counters.snapshot(idle);
    expect(vcpus[0].interrupts.accepted).toEqual({ total: 1, bySource: { timer: 1 }, byVector: { '0xec': { timer: 1 } } });
    expect(vcpus[1].interrupts.accepted.byVector).toEqual({ '0xfb': { ipi: 1, 'pv-ipi': 1 } });
    expect(total.interrupts.accepted).toEqual({
      total: 3,
      bySource: { timer: 1, ipi: 1, 'pv-ipi': 1 },
      byVector: { '0xec': { timer: 1 }, '0xfb': { ipi: 1, 'pv-ipi': 1 } },
    });
    expect(total.interrupts.coalesced.total).toBe(1);
  });

  it('injection is put down to the source that set the IRR bit', () => {
    const counters = new Counters(1);
    counters.accepted(0, 0x30, 'msi');
    counters.coalesced(0, 0x30, 'ipi');
    counters.injected(0, 0x30);
    counters.accepted(0, 0x30, 'ipi');
    counters.injected(0, 0x30);
    expect(counters.snapshot(idle).total.interrupts.injected.byVector).toEqual({ '0x30': { msi: 1, ipi: 1 } });
  });

  it('a PIC’s interrupt needs no EOI at the local APIC', () => {
    const counters = new Counters(1);
    counters.externalInjected(0, 0x20);
    const result = balance(counters.snapshot(idle).total);
    expect(result).toMatchObject({ isBalanced: true, ending: { injected: 1, external: 1, written: 0, remainder: 0 } });
  });

  it('count exits and cycles by reason', () => {
    const counters = new Counters(2);
    counters.exit(1, Exit.msrWrite, 1600);
    counters.exit(1, Exit.msrWrite, 1600);
    counters.charge(1, 300);
    expect(counters.exitCount(1)).toBe(2);
    expect([counters.exitCount(1, Exit.msrWrite), counters.exitCount(1, Exit.hlt), counters.exitCount(0)]).toEqual([2, 0, 0]);
    expect(counters.snapshot(idle).total).toMatchObject({
      cyclesCharged: 3500,
      exits: { total: 2, byReason: { 'msr-write': 2 }, cyclesByReason: { 'msr-write': 3200 } },
    });
  });

  it('count PV EOI, by cause where it did not arm', () => {
    const counters = new Counters(1);
    const observer = counters.pvEoiObserver(0);
    observer.armed(1);
    observer.armed(1);
    observer.elided(1);
    observer.disarmed(1);
    observer.notArmed(LEVEL_TRIGGERED);
    observer.written(1, LEVEL_TRIGGERED);
    expect(counters.snapshot(idle).total).toMatchObject({
      pvEoi: { armed: 2, disarmed: 1, notArmed: { 'level-triggered': 1 } },
      eois: { elided: 1, writtenBecause: { 'level-triggered': 1 } },
    });
  });

  it('an EOI with nothing in service is none', () => {
    const counters = new Counters(1);
    counters.eoiWritten(0, -1);
    expect(counters.snapshot(idle).total.eois).toMatchObject({ written: 0, ignored: 1 });
  });

  it('a snapshot is plain JSON and does not change afterwards', () => {
    const counters = new Counters(2);
    ended(counters, 0x30);
    const snapshot = counters.snapshot((vcpu) => ({ instructions: 100 + vcpu, inIrr: 0, inIsr: 0 }));
    const text = JSON.stringify(snapshot);
    expect(JSON.parse(text)).toEqual(snapshot);
    ended(counters, 0x30);
    expect(JSON.stringify(snapshot)).toBe(text);
    expect(snapshot.total.instructions).toBe(201);
  });

  it('the difference of two snapshots is what happened between them', () => {
    const counters = new Counters(1);
    ended(counters, 0x30);
    const before = counters.snapshot(() => ({ instructions: 1000, inIrr: 1, inIsr: 0 }));
    ended(counters, 0x30);
    ended(counters, 0x41);
    counters.exit(0, Exit.hlt, 5);
    const { total } = difference(
      before,
      counters.snapshot(() => ({ instructions: 1500, inIrr: 0, inIsr: 1 })),
    );
    expect(total.instructions).toBe(500);
    expect(total.interrupts.accepted).toEqual({
      total: 2,
      bySource: { timer: 2 },
      byVector: { '0x30': { timer: 1 }, '0x41': { timer: 1 } },
    });
    expect(total.exits.byReason).toEqual({ hlt: 1 });
    expect([total.interrupts.inIrr, total.interrupts.inIsr]).toEqual([-1, 1]);
    expect(total.eois.writtenBecause).toEqual({ 'level-triggered': 2 });
  });
});

describe('the balance', () => {
  it('adds up over everything that can become of an interrupt', () => {
    const counters = new Counters(2);
    ended(counters, 0x30);
    counters.accepted(1, 0x31, 'ipi'); // elided
    counters.injected(1, 0x31);
    counters.pvEoiObserver(1).elided(0x31);
    counters.accepted(1, 0x32, 'ipi'); // in service
    counters.injected(1, 0x32);
    counters.accepted(1, 0x33, 'ipi'); // pending
    counters.accepted(0, 0x34, 'ioapic'); // lost in service to INIT
    counters.injected(0, 0x34);
    counters.accepted(0, 0x35, 'ioapic'); // lost pending to INIT
    counters.discarded(0, 1, 1);
    counters.eoiBroadcast(0);
    const { total } = counters.snapshot((vcpu) => ({ instructions: 0, inIrr: vcpu, inIsr: vcpu }));
    expect(balance(total)).toEqual({
      delivery: { accepted: 6, injected: 4, discardedInIrr: 1, inIrr: 1, remainder: 0 },
      ending: { injected: 4, external: 0, written: 1, elided: 1, discardedInIsr: 1, inIsr: 1, remainder: 0 },
      broadcast: 1,
      causesRemainder: 0,
      isBalanced: true,
    });
  });

  it('holds for a difference, too', () => {
    const counters = new Counters(1);
    counters.accepted(0, 0x30, 'ipi');
    const before = counters.snapshot(() => ({ instructions: 0, inIrr: 1, inIsr: 0 }));
    counters.injected(0, 0x30);
    counters.eoiWritten(0, 0x30);
    counters.pvEoiObserver(0).written(0x30, LEVEL_TRIGGERED);
    expect(balance(difference(before, counters.snapshot(idle)).total).isBalanced).toBe(true);
  });

  it('shows a lost interrupt, one ended twice, and an EOI without a cause', () => {
    const lost = new Counters(1);
    lost.accepted(0, 0x30, 'ipi');
    expect(balance(lost.snapshot(idle).total)).toMatchObject({ isBalanced: false, delivery: { remainder: 1 } });
    const twice = new Counters(1);
    ended(twice, 0x30);
    twice.pvEoiObserver(0).elided(0x30);
    expect(balance(twice.snapshot(idle).total)).toMatchObject({ isBalanced: false, ending: { remainder: -1 } });
    const uncaused = new Counters(1);
    uncaused.accepted(0, 0x30, 'ipi');
    uncaused.injected(0, 0x30);
    uncaused.eoiWritten(0, 0x30);
    expect(balance(uncaused.snapshot(idle).total)).toMatchObject({ isBalanced: false, causesRemainder: 1 });
  });
});
