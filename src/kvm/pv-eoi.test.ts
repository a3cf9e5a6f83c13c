/** Every rule and corner case of the PV EOI state machine, then random runs against a machine that has no PV EOI. */
import { beforeEach, describe, expect, it } from 'vitest';
import { type IoApicEoiRuleName, ioApicEoiRule } from './io-apic-eoi.ts';
import { EOI_WRITE_CAUSES, PvEoi, type PvEoiOptions } from './pv-eoi.ts';

const WORD = 0x1000;
const RAM_BYTES = 0x2000;

/** A local APIC as far as priorities go: class of vector against class in service, TPR 0. */
class TestApic {
  readonly irr = new Set<number>();
  readonly isr = new Set<number>();
  readonly ended: number[] = [];
  enabled = true;

  endOfInterrupt(): void {
    const vector = this.highestInService();
    if (vector < 0) return;
    this.isr.delete(vector);
    this.ended.push(vector);
  }
  hasPendingIrr(): boolean {
    return this.irr.size > 0;
  }
  highestInService(): number {
    return Math.max(-1, ...this.isr);
  }
  isEnabled(): boolean {
    return this.enabled;
  }
  /** IRR to ISR, if the priority allows it. */
  acknowledge(): number {
    const vector = Math.max(-1, ...this.irr);
    if (vector >> 4 <= this.highestInService() >> 4) return -1;
    this.irr.delete(vector);
    this.isr.add(vector);
    return vector;
  }
}

/** RAM of two pages that can vanish or turn read-only. */
class TestMemory {
  readonly bytes = new Uint8Array(RAM_BYTES);
  present = true;
  writable = true;

  readByte(guestPhysical: number): number {
    return this.present && guestPhysical < RAM_BYTES ? this.bytes[guestPhysical] : -1;
  }
  writeByte(guestPhysical: number, value: number): boolean {
    if (!this.present || !this.writable || guestPhysical >= RAM_BYTES) return false;
    this.bytes[guestPhysical] = value;
    return true;
  }
}

/** One vCPU, host and guest, in the order KVM does things: exit (sample), handle, then entry (inject, arm). */
class TestVcpu {
  readonly apic = new TestApic();
  readonly memory = new TestMemory();
  readonly level = new Set<number>();
  readonly log: string[] = [];
  readonly pvEoi: PvEoi;
  interruptFlag = true;
  exits = 0;
  readonly delivered: number[] = [];

  constructor(options: Partial<PvEoiOptions> = {}) {
    const { log } = this;
    this.pvEoi = new PvEoi({
      memory: this.memory,
      localApic: this.apic,
      ioApicEoi: { needsIoApicEoi: (vector) => this.level.has(vector) },
      observer: {
        armed: (vector) => log.push(`armed ${vector.toString(16)}`),
        elided: (vector) => log.push(`elided ${vector.toString(16)}`),
        disarmed: (vector) => log.push(`disarmed ${vector.toString(16)}`),
        notArmed: (cause) => log.push(`not armed: ${EOI_WRITE_CAUSES[cause]}`),
        written: (vector, cause) => log.push(`written ${vector.toString(16)}: ${EOI_WRITE_CAUSES[cause]}`),
      },
      offered: true,
      ...options,
    });
  }

  /** What happened since the last call. */
  takeLog(): string[] {
    return this.log.splice(0);
  }

  get bit(): number {
    return this.memory.bytes[WORD] & 1;
  }

  enable(): this {
    this.memory.bytes[WORD] = 0;
    this.exit();
    expect(this.pvEoi.writeMsr(WORD | 1, 0)).toBe(true);
    return this;
  }

  exit(): void {
    this.exits++;
    this.pvEoi.sample();
  }

  /** An entry that re-evaluates events. */
  enter(): void {
    if (this.interruptFlag) {
      const vector = this.apic.acknowledge();
      if (vector >= 0) {
        this.pvEoi.interruptInjected(vector);
        this.delivered.push(vector);
        this.interruptFlag = false;
      }
    }
    this.pvEoi.arm();
  }

  /** An interrupt arrives while the guest runs: its sender's kick makes the exit. */
  interrupt(vector: number): void {
    this.exit();
    this.apic.irr.add(vector);
    this.enter();
  }

  writeEoi(): void {
    this.exit();
    const vector = this.apic.highestInService();
    this.apic.endOfInterrupt();
    this.pvEoi.endOfInterruptWritten(vector);
    this.enter();
  }

  /** The guest's half: test and clear, non-LOCKed; write the register if the bit was 0. True if it was elided. */
  guestEoi(): boolean {
    const byte = this.memory.readByte(WORD);
    const old = byte < 0 ? 0xff : byte;
    this.memory.writeByte(WORD, old & ~1);
    if (old & 1) return true;
    this.writeEoi();
    return false;
  }
}

let vcpu: TestVcpu;
beforeEach(() => {
  vcpu = new TestVcpu().enable();
  vcpu.takeLog();
});

describe('rule A: the MSR', () => {
  it('reads back what was written', () => {
    expect(vcpu.pvEoi.readMsr()).toEqual({ low: WORD | 1, high: 0 });
    expect(vcpu.pvEoi.writeMsr(0x1ff8, 0xdead)).toBe(true);
    expect(vcpu.pvEoi.readMsr()).toEqual({ low: 0x1ff8, high: 0xdead });
  });

  it('refuses a misaligned address, enabled or not, and keeps the old value', () => {
    expect(vcpu.pvEoi.writeMsr(0x1802, 0)).toBe(false);
    expect(vcpu.pvEoi.writeMsr(0x1803, 0)).toBe(false);
    expect(vcpu.pvEoi.readMsr()).toEqual({ low: WORD | 1, high: 0 });
  });

  it('refuses to be enabled for an address that is not RAM, but stores it disabled', () => {
    expect(vcpu.pvEoi.writeMsr(RAM_BYTES | 1, 0)).toBe(false);
    expect(vcpu.pvEoi.writeMsr(WORD | 1, 1)).toBe(false);
    expect(vcpu.pvEoi.writeMsr(RAM_BYTES, 0)).toBe(true);
    expect(vcpu.pvEoi.isEnabled).toBe(false);
  });

  it('does not exist when the feature is hidden', () => {
    const hidden = new TestVcpu({ offered: false });
    expect(hidden.pvEoi.writeMsr(WORD | 1, 0)).toBe(false);
    expect(hidden.pvEoi.writeMsr(0, 0)).toBe(false);
    expect(hidden.pvEoi.readMsr()).toBeUndefined();
    hidden.interrupt(0x30);
    expect(hidden.takeLog()).toEqual(['not armed: feature-hidden']);
  });

  it('does not touch the word when written', () => {
    vcpu.memory.bytes[0x1800] = 0xa5;
    expect(vcpu.pvEoi.writeMsr(0x1801, 0)).toBe(true);
    expect(vcpu.memory.bytes[0x1800]).toBe(0xa5);
  });

  it('moving the word settles the old one first', () => {
    vcpu.interrupt(0x30);
    vcpu.guestEoi();
    expect(vcpu.pvEoi.writeMsr(0x1801, 0)).toBe(true);
    expect(vcpu.apic.ended).toEqual([0x30]);
    vcpu.interruptFlag = true;
    vcpu.interrupt(0x30);
    expect(vcpu.memory.bytes[0x1800]).toBe(1);
    expect(vcpu.bit).toBe(0);
  });

  it('disabled with an interrupt armed: the word is cleared and the guest writes the register', () => {
    vcpu.interrupt(0x30);
    vcpu.exit();
    expect(vcpu.pvEoi.writeMsr(0, 0)).toBe(true);
    vcpu.enter();
    expect(vcpu.bit).toBe(0);
    expect(vcpu.guestEoi()).toBe(false);
    expect(vcpu.apic.ended).toEqual([0x30]);
    expect(vcpu.takeLog()).toContain('written 30: disabled-by-guest');
  });
});

describe('rule B: arming', () => {
  it('arms an edge interrupt that was injected alone', () => {
    vcpu.interrupt(0x30);
    expect([vcpu.pvEoi.isArmed, vcpu.bit]).toEqual([true, 1]);
    expect(vcpu.takeLog()).toEqual(['armed 30']);
  });

  it('does not arm with nothing in service', () => {
    vcpu.exit();
    vcpu.enter();
    expect(vcpu.takeLog()).toEqual(['not armed: nothing-in-service']);
    expect([vcpu.pvEoi.isArmed, vcpu.bit]).toEqual([false, 0]);
  });

  it('does not arm while the MSR is off', () => {
    const off = new TestVcpu();
    off.interrupt(0x30);
    off.guestEoi();
    expect(off.takeLog().slice(0, 2)).toEqual(['not armed: disabled-by-guest', 'written 30: disabled-by-guest']);
  });

  it('does not arm with the local APIC disabled', () => {
    vcpu.interrupt(0x30);
    vcpu.exit();
    vcpu.apic.enabled = false;
    vcpu.enter();
    expect(vcpu.takeLog().at(-1)).toBe('not armed: apic-disabled');
    expect(vcpu.bit).toBe(0);
  });

  it('a pending vector of any priority forbids it', () => {
    vcpu.exit();
    vcpu.apic.irr.add(0x10).add(0x30);
    vcpu.enter();
    expect(vcpu.delivered).toEqual([0x30]);
    expect(vcpu.takeLog()).toEqual(['not armed: pending-irr']);
  });

  it('does not count ISR bits: an inner interrupt may be armed', () => {
    vcpu.interrupt(0x30);
    vcpu.interruptFlag = true;
    vcpu.interrupt(0x50);
    expect(vcpu.takeLog()).toEqual(['armed 30', 'disarmed 30', 'armed 50']);
  });

  it('an interrupt injected before the last EOI is not armed any more', () => {
    vcpu.interrupt(0x30);
    vcpu.interruptFlag = true;
    vcpu.interrupt(0x50);
    vcpu.guestEoi();
    vcpu.exit();
    vcpu.enter();
    expect(vcpu.takeLog().slice(-2)).toEqual(['elided 50', 'not armed: injected-before-last-eoi']);
  });

  it('arms nothing if the word cannot be written', () => {
    vcpu.memory.writable = false;
    vcpu.interrupt(0x30);
    expect(vcpu.takeLog()).toEqual(['not armed: word-unwritable']);
    expect([vcpu.pvEoi.isArmed, vcpu.bit]).toEqual([false, 0]);
  });

  it('arming twice without sampling is a mistake of the host', () => {
    vcpu.interrupt(0x30);
    expect(() => vcpu.pvEoi.arm()).toThrow(/sample/);
  });

  it('writes one byte and leaves the other three of the word alone', () => {
    vcpu.memory.bytes.fill(0x77, WORD + 1, WORD + 4);
    vcpu.interrupt(0x30);
    vcpu.exit();
    expect([...vcpu.memory.bytes.subarray(WORD, WORD + 4)]).toEqual([0, 0x77, 0x77, 0x77]);
  });
});

describe('rule C: sampling', () => {
  it('does nothing when not armed, even if the guest set the bit itself', () => {
    vcpu.memory.bytes[WORD] = 1;
    expect(vcpu.pvEoi.sample()).toBe(false);
    expect(vcpu.bit).toBe(1);
    expect(vcpu.takeLog()).toEqual([]);
  });

  it('bit still set: disarms and ends nothing', () => {
    vcpu.interrupt(0x30);
    expect(vcpu.pvEoi.sample()).toBe(false);
    expect([vcpu.pvEoi.isArmed, vcpu.bit, [...vcpu.apic.isr]]).toEqual([false, 0, [0x30]]);
  });

  it('bit cleared: ends the interrupt, once', () => {
    vcpu.interrupt(0x30);
    expect(vcpu.guestEoi()).toBe(true);
    expect(vcpu.apic.ended).toEqual([]);
    expect(vcpu.pvEoi.sample()).toBe(true);
    expect(vcpu.pvEoi.sample()).toBe(false);
    expect(vcpu.apic.ended).toEqual([0x30]);
  });

  it('runs on a cancelled entry, too, and the next entry may arm again', () => {
    vcpu.interrupt(0x30);
    vcpu.pvEoi.sample(); // the entry was cancelled
    vcpu.enter();
    expect(vcpu.takeLog()).toEqual(['armed 30', 'disarmed 30', 'armed 30']);
  });

  it('a handler’s whole life takes one exit, the one that brought the interrupt', () => {
    const before = vcpu.exits;
    vcpu.interrupt(0x30);
    vcpu.guestEoi();
    expect(vcpu.exits - before).toBe(1);
  });
});

describe('rule D: the guest may write the register all the same', () => {
  it('with the word armed, the write ends the interrupt once', () => {
    vcpu.interrupt(0x30);
    vcpu.writeEoi();
    expect(vcpu.apic.ended).toEqual([0x30]);
    expect(vcpu.takeLog()).toEqual(['armed 30', 'disarmed 30', 'written 30: disarmed-by-exit', 'not armed: nothing-in-service']);
  });

  it('with the bit cleared, the write ends the next interrupt below', () => {
    vcpu.interrupt(0x30);
    vcpu.interruptFlag = true;
    vcpu.interrupt(0x50);
    vcpu.guestEoi();
    vcpu.writeEoi();
    expect(vcpu.apic.ended).toEqual([0x50, 0x30]);
  });
});

describe('corner cases', () => {
  it.each([0x30, 0x35, 0x20])('1: interrupt %i of no higher priority while armed waits for a real EOI, no longer', (second) => {
    vcpu.interrupt(0x35);
    vcpu.interrupt(second);
    expect(vcpu.takeLog()).toEqual(['armed 35', 'disarmed 35', 'not armed: pending-irr']);
    vcpu.interruptFlag = true;
    expect(vcpu.guestEoi()).toBe(false);
    expect(vcpu.delivered).toEqual([0x35, second]);
    expect(vcpu.takeLog()).toEqual(['written 35: pending-irr', `armed ${second.toString(16)}`]);
  });

  it('2: a nested interrupt is armed; the outer one’s real EOI first retires the inner', () => {
    vcpu.interrupt(0x30);
    vcpu.interruptFlag = true;
    vcpu.interrupt(0x50);
    expect([...vcpu.apic.isr]).toEqual([0x30, 0x50]);
    expect(vcpu.guestEoi()).toBe(true);
    expect(vcpu.guestEoi()).toBe(false);
    expect(vcpu.apic.ended).toEqual([0x50, 0x30]);
    expect(vcpu.takeLog().slice(2)).toEqual([
      'armed 50',
      'elided 50',
      'written 30: injected-before-last-eoi',
      'not armed: nothing-in-service',
    ]);
  });

  it('3: an unrelated exit disarms; it is armed again only if that entry looked at events', () => {
    vcpu.interrupt(0x30);
    vcpu.exit();
    expect(vcpu.bit).toBe(0); // entered without looking: stays off
    vcpu.exit();
    vcpu.enter();
    expect(vcpu.bit).toBe(1);
    expect(vcpu.guestEoi()).toBe(true);
  });

  it('3: an unrelated exit that did not look makes the guest write the EOI', () => {
    vcpu.interrupt(0x30);
    vcpu.exit();
    expect(vcpu.guestEoi()).toBe(false);
    expect(vcpu.takeLog()).toContain('written 30: disarmed-by-exit');
  });

  it('4: ISR is clear before HLT decides', () => {
    vcpu.interrupt(0x30);
    vcpu.guestEoi();
    expect(vcpu.apic.highestInService()).toBe(0x30);
    vcpu.exit(); // HLT, or a read of ISR, PPR, IRR
    expect(vcpu.apic.highestInService()).toBe(-1);
  });

  it('5: never armed while something waits for the interrupt window', () => {
    vcpu.interrupt(0x30);
    vcpu.interrupt(0x50); // IF = 0 in the handler
    expect(vcpu.delivered).toEqual([0x30]);
    expect(vcpu.takeLog().at(-1)).toBe('not armed: pending-irr');
    vcpu.interruptFlag = true;
    vcpu.exit(); // the window opens
    vcpu.enter();
    expect(vcpu.takeLog()).toEqual(['armed 50']);
  });

  it('6: an NMI or exception makes an exit and nothing else', () => {
    vcpu.interrupt(0x30);
    vcpu.exit();
    vcpu.enter(); // the NMI is injected: no ISR bit
    expect(vcpu.takeLog()).toEqual(['armed 30', 'disarmed 30', 'armed 30']);
    expect(vcpu.guestEoi()).toBe(true);
    vcpu.exit();
    expect(vcpu.apic.ended).toEqual([0x30]);
  });

  it('7: a level-triggered interrupt of the I/O APIC is ended for real', () => {
    vcpu.level.add(0x30);
    vcpu.interrupt(0x30);
    expect(vcpu.guestEoi()).toBe(false);
    expect(vcpu.takeLog().slice(0, 2)).toEqual(['not armed: level-triggered', 'written 30: level-triggered']);
  });

  it('8: never armed with APICv; the word stays 0', () => {
    const apicv = new TestVcpu({ apicvActive: true }).enable();
    apicv.interrupt(0x30);
    expect(apicv.bit).toBe(0);
    expect(apicv.takeLog()).toEqual(['not armed: apicv-active']);
  });

  it('9: INIT and RESET switch it off and leave the word in memory alone', () => {
    vcpu.interrupt(0x30);
    vcpu.apic.isr.clear();
    vcpu.pvEoi.reset();
    expect(vcpu.pvEoi.readMsr()).toEqual({ low: 0, high: 0 });
    expect([vcpu.pvEoi.isArmed, vcpu.bit]).toEqual([false, 1]);
    expect(vcpu.pvEoi.sample()).toBe(false);
    expect(vcpu.apic.ended).toEqual([]);
  });

  it('10: a snapshot settles the word, and only the MSR travels', () => {
    vcpu.interrupt(0x30);
    vcpu.guestEoi();
    const msr = vcpu.pvEoi.save();
    expect([msr, vcpu.pvEoi.isArmed, vcpu.bit, vcpu.apic.isr.size]).toEqual([{ low: WORD | 1, high: 0 }, false, 0, 0]);
  });

  it('10: after a restore, what was in service is ended for real, and the next injection is armed', () => {
    vcpu.interrupt(0x30);
    const target = new TestVcpu();
    const msr = vcpu.pvEoi.save();
    target.apic.isr.add(0x30);
    expect(target.pvEoi.restore(msr)).toBe(true);
    target.enter();
    expect(target.guestEoi()).toBe(false);
    expect(target.takeLog().slice(0, 2)).toEqual(['not armed: injected-before-last-eoi', 'written 30: injected-before-last-eoi']);
    target.interrupt(0x30);
    expect(target.guestEoi()).toBe(true);
  });

  it('10: restoring a value no guest could have written is refused', () => {
    expect(vcpu.pvEoi.restore({ low: RAM_BYTES | 1, high: 0 })).toBe(false);
    expect(vcpu.pvEoi.readMsr()).toEqual({ low: 0, high: 0 });
  });

  it('11: RAM behind the word vanished: plain EOI', () => {
    vcpu.memory.present = false;
    vcpu.interrupt(0x30);
    vcpu.writeEoi();
    expect(vcpu.takeLog().slice(0, 2)).toEqual(['not armed: word-unwritable', 'written 30: word-unwritable']);
  });

  it('11: vanished while armed: the guest reads ones and is done, so the host ends it, and P is clear', () => {
    vcpu.interrupt(0x30);
    vcpu.memory.present = false;
    expect(vcpu.guestEoi()).toBe(true);
    vcpu.exit();
    expect([vcpu.pvEoi.isArmed, vcpu.apic.ended]).toEqual([false, [0x30]]);
    vcpu.exit();
    expect(vcpu.apic.ended).toEqual([0x30]);
  });

  it('11: turned read-only while armed: the bit cannot be taken back, so it counts as ended', () => {
    vcpu.interrupt(0x30);
    vcpu.memory.writable = false;
    vcpu.exit();
    expect([vcpu.pvEoi.isArmed, vcpu.apic.ended]).toEqual([false, [0x30]]);
  });

  it('12: the pair runs the same way whatever ran in the guest, an L2 of its own included', () => {
    vcpu.interrupt(0x30);
    for (let l2Exit = 0; l2Exit < 3; l2Exit++) {
      vcpu.exit();
      vcpu.enter();
    }
    expect(vcpu.guestEoi()).toBe(true);
    vcpu.exit();
    expect(vcpu.apic.ended).toEqual([0x30]);
  });

  it('13: an EOI with nothing in service is ignored', () => {
    vcpu.writeEoi();
    expect(vcpu.apic.ended).toEqual([]);
    expect(vcpu.takeLog()).toEqual(['not armed: nothing-in-service']);
  });

  it('13: nor is an elided one made up when the ISR was emptied behind the word’s back', () => {
    vcpu.interrupt(0x30);
    vcpu.guestEoi();
    vcpu.apic.isr.clear();
    expect(vcpu.pvEoi.sample()).toBe(false);
    expect(vcpu.takeLog()).toEqual(['armed 30']);
  });
});

describe('which vectors the I/O APIC wants an EOI for', () => {
  interface Entry {
    vector: number;
    watched: boolean;
    destination: number;
  }
  const entry = (vector: number, watched: boolean, destination = 1): Entry => ({ vector, watched, destination });
  /** vCPU 1's rule over one I/O APIC's table; `level` are the vectors whose last request to it was level-triggered. */
  const rule = (entries: Entry[], level: number[] = [], name?: IoApicEoiRuleName) =>
    ioApicEoiRule(
      [
        {
          hasLevelVector: (vector, reaches) =>
            entries.some(
              (one) => one.vector === vector && one.watched && (!reaches || reaches(one.destination, 'physical', false)),
            ),
          hasVector: (vector) => entries.some((one) => one.vector === vector),
        },
      ],
      { matches: (destination) => destination === 1, tmrBit: (vector) => level.includes(vector) },
      name,
    );

  it('those of level entries (or watched pins) for this vCPU', () => {
    const { needsIoApicEoi } = rule([entry(0x30, false), entry(0x31, true), entry(0x32, true, 2)]);
    expect([0x30, 0x31, 0x32, 0x33].map(needsIoApicEoi)).toEqual([false, true, false, false]);
  });

  it('a level interrupt still in flight here after its entry was sent elsewhere', () => {
    expect(rule([entry(0x31, true, 2)], [0x31]).needsIoApicEoi(0x31)).toBe(true);
  });

  it('not an MSI that has the vector of another vCPU’s level entry, nor a level interrupt without an entry', () => {
    expect(rule([entry(0x31, true, 2)]).needsIoApicEoi(0x31)).toBe(false);
    expect(rule([], [0x31]).needsIoApicEoi(0x31)).toBe(false);
  });

  it('Linux 3.6 refused every vector in any entry, whoever it was for', () => {
    const { needsIoApicEoi } = rule([entry(0x30, false), entry(0x32, true, 2)], [], 'linux-3.6');
    expect([0x30, 0x32, 0x33].map(needsIoApicEoi)).toEqual([true, true, false]);
  });

  it('every I/O APIC is asked', () => {
    const silent = { hasLevelVector: () => false, hasVector: () => false };
    const other = { hasLevelVector: () => true, hasVector: () => true };
    const localApic = { matches: () => true, tmrBit: () => false };
    expect(ioApicEoiRule([silent, other], localApic).needsIoApicEoi(0x40)).toBe(true);
    expect(ioApicEoiRule([], localApic).needsIoApicEoi(0x40)).toBe(false);
  });
});

describe('random runs', () => {
  const generator = (seed: number) => () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };

  /** The naive machine: every EOI is performed at once. */
  class Reference {
    readonly apic = new TestApic();
    readonly delivered: number[] = [];
    interruptFlag = true;
    enter(): void {
      if (!this.interruptFlag) return;
      const vector = this.apic.acknowledge();
      if (vector < 0) return;
      this.delivered.push(vector);
      this.interruptFlag = false;
    }
  }

  it.each(Array.from({ length: 24 }, (_, seed) => seed))('seed %i: same deliveries and EOIs as without PV EOI', (seed) => {
    const random = generator(seed + 1);
    const subject = new TestVcpu();
    const reference = new Reference();
    const counts = { accepted: 0, written: 0, elided: 0, armed: 0, disarmed: 0 };
    const vectors = [0x21, 0x22, 0x30, 0x31, 0x45, 0x60, 0x61, 0xec];
    for (const vector of vectors) if (random() < 0.15) subject.level.add(vector);
    let handlers = 0;

    const tally = () => {
      for (const line of subject.takeLog()) {
        const kind = line.split(' ')[0] as keyof typeof counts | 'not';
        if (kind !== 'not') counts[kind]++;
        if (kind === 'armed') expect(subject.level).not.toContain(Number.parseInt(line.split(' ')[1], 16));
      }
    };

    for (let step = 0; step < 1200; step++) {
      const choice = random();
      if (choice < 0.22) {
        const vector = vectors[Math.floor(random() * vectors.length)];
        reference.apic.irr.add(vector);
        reference.enter();
        subject.interrupt(vector);
      } else if (choice < 0.6) {
        if (handlers > 0) {
          // the handler's end: EOI, then IRET sets IF
          reference.apic.endOfInterrupt();
          reference.enter();
          subject.guestEoi();
          reference.interruptFlag = true;
          subject.interruptFlag = true;
          handlers--;
          reference.enter();
          if (subject.apic.hasPendingIrr()) {
            subject.exit();
            subject.enter();
          }
        }
      } else if (choice < 0.7) {
        subject.interruptFlag = reference.interruptFlag = true; // STI in a handler
        reference.enter();
        if (subject.apic.hasPendingIrr()) {
          subject.exit(); // the interrupt window
          subject.enter();
        }
      } else if (choice < 0.8) {
        subject.exit(); // handled without looking at events
      } else if (choice < 0.9) {
        subject.exit();
        subject.enter();
        reference.enter();
      } else if (choice < 0.93) {
        subject.exit();
        subject.pvEoi.writeMsr(random() < 0.7 ? WORD | 1 : 0, 0);
        subject.enter();
        reference.enter();
      } else if (choice < 0.95) {
        if (handlers > 0) {
          // an unpatched path: the register is written though the word may be armed
          reference.apic.endOfInterrupt();
          reference.enter();
          subject.writeEoi();
          handlers--;
        }
      } else if (choice < 0.97) {
        subject.memory.writable = random() < 0.5 || subject.pvEoi.isArmed;
      } else {
        const msr = subject.pvEoi.save();
        expect(subject.pvEoi.restore(msr)).toBe(true);
        subject.enter();
        reference.enter();
      }

      handlers += reference.delivered.length - counts.accepted;
      counts.accepted = reference.delivered.length;
      tally();
      expect(subject.delivered.length).toBe(reference.delivered.length);
      expect(subject.apic.irr).toEqual(reference.apic.irr);
      // (P=0, B=1) never occurs: a guest's test-and-clear could take it for an EOI that nobody performs
      if (!subject.pvEoi.isArmed) expect(subject.bit).toBe(0);
      // exact up to the one EOI that is on its way in the word
      const onItsWay = subject.pvEoi.isArmed && subject.bit === 0 ? 1 : 0;
      expect(subject.apic.isr.size).toBe(reference.apic.isr.size + onItsWay);
      expect(counts.accepted).toBe(counts.written + counts.elided + subject.apic.isr.size);
      expect(subject.apic.ended.length).toBe(counts.written + counts.elided);
    }

    subject.exit();
    expect(subject.delivered).toEqual(reference.delivered);
    expect(subject.apic.ended).toEqual(reference.apic.ended);
    expect(subject.apic.isr).toEqual(reference.apic.isr);
    expect(counts.armed).toBeGreaterThan(20); // the run meant something
    tally();
    expect(counts.armed).toBe(counts.elided + counts.disarmed);
  });
});
