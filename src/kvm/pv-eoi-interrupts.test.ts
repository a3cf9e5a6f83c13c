/** PV EOI with the real local APIC, I/O APIC and router: random runs whose counters have to add up. */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../devices/clock.ts';
import { ApicRegister, SVR_ENABLE } from '../interrupts/apic-registers.ts';
import { IoApic } from '../interrupts/io-apic.ts';
import { LocalApic } from '../interrupts/local-apic.ts';
import { DeliveryMode } from '../interrupts/message.ts';
import { InterruptRouter } from '../interrupts/router.ts';
import { GuestMemory } from '../memory/guest-memory.ts';
import { balance, Counters } from '../trace/counters.ts';
import { KVM_ON, type KvmFeatureSet } from './features.ts';
import { ioApicEoiRule } from './io-apic-eoi.ts';
import { KvmMsr, KvmVcpu } from './kvm-vcpu.ts';
import { PvWallClock } from './pv-clock.ts';

const WORD = 0x1000;
const [EDGE_PIN, LEVEL_PIN] = [4, 9];
const [EDGE_VECTOR, LEVEL_VECTOR] = [0x34, 0x39];
const IPI_VECTORS = [0x33, 0x51, 0xf2, 0xfd];

/** One vCPU with its APICs and a guest that handles what it gets. */
class Machine {
  readonly counters = new Counters(1);
  readonly memory = new GuestMemory({ ramBytes: 1 << 20 });
  readonly router = new InterruptRouter();
  readonly apic: LocalApic;
  readonly ioApic: IoApic;
  readonly kvm: KvmVcpu;
  readonly handlers: number[] = [];
  interruptFlag = true;

  constructor(kvm: KvmFeatureSet) {
    const clock = new ManualClock();
    this.apic = new LocalApic({ apicId: 0, bootProcessor: true, clock, readTsc: () => 0, tscHz: 1e9 });
    this.ioApic = new IoApic({ id: 0, send: (message) => this.router.deliver(message) });
    this.router.addLocalApic(this.apic);
    this.router.addIoApic(this.ioApic);
    this.apic.onAccept = (vector, source, result) => {
      if (result === 'accepted') this.counters.accepted(0, vector, source);
      if (result === 'coalesced') this.counters.coalesced(0, vector, source);
    };
    this.router.perform(this.apic.writeMmio(ApicRegister.svr, SVR_ENABLE | 0xff), this.apic);
    this.kvm = new KvmVcpu({
      kvm,
      memory: this.memory,
      localApic: {
        endOfInterrupt: () => this.endOfInterrupt(),
        hasPendingIrr: () => this.apic.hasPendingIrr(),
        highestInService: () => this.apic.highestInService(),
        isEnabled: () => this.apic.isEnabled(),
      },
      ioApicEoi: ioApicEoiRule(this.router.ioApics, this.apic),
      pvEoiObserver: this.counters.pvEoiObserver(0),
      clockSource: { tscHz: 1e9, reference: () => ({ tsc: 0n, systemNanoseconds: 0n }), isStable: () => true },
      wallClock: new PvWallClock(this.memory, 0n),
      stealTimeHost: { flushTlb: () => {} },
    });
    this.writeIoApic(0x10 + 2 * EDGE_PIN, EDGE_VECTOR);
    this.writeIoApic(0x10 + 2 * LEVEL_PIN, LEVEL_VECTOR | 0x8000);
    this.kvm.writeMsr(KvmMsr.pvEoi, WORD | 1, 0);
  }

  private writeIoApic(register: number, value: number): void {
    this.ioApic.write(0, 4, register);
    this.ioApic.write(0x10, 4, value);
  }

  private endOfInterrupt(): number {
    const effect = this.apic.endOfInterrupt();
    if (effect?.kind !== 'eoi') return -1;
    if (effect.broadcast) this.counters.eoiBroadcast(0);
    this.router.perform(effect, this.apic);
    return effect.vector;
  }

  exit(handle: () => void = () => {}): void {
    this.kvm.pvEoi.sample();
    handle();
    const vector = this.interruptFlag ? this.apic.highestPending() : -1;
    if (vector >= 0) {
      this.apic.acknowledge();
      this.counters.injected(0, vector);
      this.kvm.pvEoi.interruptInjected(vector);
      this.handlers.push(vector);
      this.interruptFlag = false;
    }
    this.kvm.pvEoi.arm();
  }

  /** The guest's EOI, then its IRET. The device of the level pin lowers its line in the handler. */
  endHandler(): void {
    const vector = this.handlers.pop();
    if (vector === LEVEL_VECTOR) this.exit(() => this.ioApic.setPin(LEVEL_PIN, false));
    const [byte] = this.memory.slice(WORD, 1);
    this.memory.slice(WORD, 1)[0] = byte & ~1;
    if (!(byte & 1)) {
      this.exit(() => {
        const ended = this.endOfInterrupt();
        this.counters.eoiWritten(0, ended);
        this.kvm.pvEoi.endOfInterruptWritten(ended);
      });
    }
    this.interruptFlag = true;
    if (this.apic.highestPending() >= 0) this.exit();
  }

  counts() {
    this.kvm.pvEoi.sample();
    const bits = (first: number) =>
      Array.from({ length: 8 }, (_, i) => this.apic.readMmio(first + 16 * i)).reduce((sum, word) => sum + bitCount(word), 0);
    return this.counters.snapshot(() => ({ instructions: 0, inIrr: bits(ApicRegister.irr), inIsr: bits(ApicRegister.isr) }))
      .total;
  }
}

const bitCount = (word: number) => word.toString(2).replaceAll('0', '').length;

function run(machine: Machine, seed: number, steps: number): void {
  let state = seed * 2 + 1;
  const random = (below: number) => {
    state = Math.imul(state, 0x2c9277b5) + 0x3c6ef372;
    return (state >>> 8) % below;
  };
  for (let step = 0; step < steps; step++) {
    switch (random(8)) {
      case 0:
        machine.exit(() => {
          machine.ioApic.setPin(EDGE_PIN, true);
          machine.ioApic.setPin(EDGE_PIN, false);
        });
        break;
      case 1:
        machine.exit(() => machine.ioApic.setPin(LEVEL_PIN, true));
        break;
      case 2:
        machine.exit(() => {
          machine.router.deliver({
            vector: IPI_VECTORS[random(IPI_VECTORS.length)],
            deliveryMode: DeliveryMode.fixed,
            destinationMode: 'physical',
            destination: 0,
            wide: false,
            shorthand: 'none',
            trigger: 'edge',
            assert: true,
            source: 'ipi',
          });
        });
        break;
      case 3:
        machine.exit();
        break;
      case 4:
        machine.interruptFlag = true; // STI in a handler
        if (machine.apic.highestPending() >= 0) machine.exit();
        break;
      default:
        if (machine.handlers.length > 0) machine.endHandler();
    }
  }
}

describe('PV EOI with real APICs', () => {
  it.each(Array.from({ length: 12 }, (_, seed) => seed))('seed %i: everything accepted is ended exactly once', (seed) => {
    const machine = new Machine(KVM_ON);
    run(machine, seed, 4000);
    const counts = machine.counts();
    expect(balance(counts)).toMatchObject({ isBalanced: true, causesRemainder: 0 });
    expect(counts.pvEoi.armed).toBe(counts.eois.elided + counts.pvEoi.disarmed);
    expect(counts.eois.elided).toBeGreaterThan(100);
    // level-triggered: all broadcast, none elided
    const level = counts.interrupts.injected.byVector['0x39']?.ioapic ?? 0;
    expect(level).toBeGreaterThan(50);
    const inService = machine.handlers.includes(LEVEL_VECTOR) ? 1 : 0;
    expect(counts.eois.broadcast).toBe(level - inService);
  });

  it('hidden, every EOI is written, and the guest gets the same interrupts', () => {
    const machines = [KVM_ON, { present: true, features: new Set<never>() }].map((kvm) => {
      const machine = new Machine(kvm);
      run(machine, 99, 4000);
      return machine;
    });
    const [on, off] = machines.map((machine) => machine.counts());
    expect(off.eois.elided).toBe(0);
    expect(off.interrupts).toEqual(on.interrupts);
    expect(off.eois.written).toBe(on.eois.written + on.eois.elided);
    expect(off.eois.writtenBecause).toEqual({ 'feature-hidden': off.eois.written });
  });
});
