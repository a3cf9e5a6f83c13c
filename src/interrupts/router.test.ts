import { describe, expect, it } from 'vitest';
import { ManualClock } from '../devices/clock.ts';
import {
  APIC_BASE_ENABLE,
  APIC_BASE_EXTD,
  APIC_DEFAULT_BASE,
  ApicRegister,
  LVT_MASKED,
  MSR_APIC_BASE,
  SVR_ENABLE,
  x2apicMsr,
} from './apic-registers.ts';
import { IoApic, REDIRECTION_LEVEL, REDIRECTION_LOGICAL } from './io-apic.ts';
import { LocalApic, PendingEvent } from './local-apic.ts';
import { DeliveryMode, type InterruptMessage } from './message.ts';
import { Pic } from './pic.ts';
import { type Boards, InterruptRouter, messageFromMsi } from './router.ts';

type Mode = 'xapic' | 'x2apic';

function system(ids: number[], mode: Mode = 'xapic', extendedDestinationId = false, boards?: Boards) {
  const clock = new ManualClock();
  const router = new InterruptRouter({ extendedDestinationId, boards });
  const apics = ids.map((apicId, index) => {
    const apic = new LocalApic({ apicId, bootProcessor: index === 0, clock, readTsc: () => clock.now(), tscHz: 1e9 });
    router.addLocalApic(apic);
    apic.writeMmio(ApicRegister.svr, SVR_ENABLE | 0xff);
    apic.writeMmio(ApicRegister.ldr, (1 << (24 + index)) >>> 0);
    if (mode === 'x2apic') apic.writeMsr(MSR_APIC_BASE, (APIC_DEFAULT_BASE | APIC_BASE_ENABLE | APIC_BASE_EXTD) >>> 0, 0);
    return apic;
  });
  const ioApic = new IoApic({ send: (message) => router.deliver(message), extendedDestinationId });
  router.addIoApic(ioApic);
  const route = (pin: number, low: number, high = 0) => {
    ioApic.write(0, 4, 0x11 + 2 * pin);
    ioApic.write(0x10, 4, high >>> 0);
    ioApic.write(0, 4, 0x10 + 2 * pin);
    ioApic.write(0x10, 4, low);
  };
  /** The APICs that hold a request of any kind, by position; forgets them. */
  const reached = () =>
    apics.flatMap((apic, index) => {
      const hit = apic.hasPendingIrr() || apic.pendingEvents !== 0;
      while (apic.highestPending() >= 0) {
        apic.acknowledge();
        apic.endOfInterrupt();
      }
      apic.takeNmi();
      apic.takeInit();
      apic.takeStartUp();
      return hit ? [index] : [];
    });
  return { clock, router, apics, ioApic, route, reached };
}

function message(parts: Partial<InterruptMessage> = {}): InterruptMessage {
  return {
    vector: 0x51,
    deliveryMode: DeliveryMode.fixed,
    destinationMode: 'physical',
    destination: 0,
    wide: false,
    shorthand: 'none',
    trigger: 'edge',
    assert: true,
    source: 'ipi',
    ...parts,
  };
}

describe('InterruptRouter: destinations', () => {
  it('delivers physically to one, to all by broadcast, and to nobody where there is none', () => {
    const { router, reached } = system([0, 1, 4]);
    expect(router.deliver(message({ destination: 4 }))).toBe('accepted');
    expect(reached()).toEqual([2]);
    expect(router.deliver(message({ destination: 0xff }))).toBe('accepted');
    expect(reached()).toEqual([0, 1, 2]);
    expect(router.deliver(message({ destination: 2 }))).toBe('ignored');
    expect(reached()).toEqual([]);
  });

  it('delivers to every bit of a flat logical mask', () => {
    const { router, reached } = system([0, 1, 2, 3]);
    router.deliver(message({ destinationMode: 'logical', destination: 0b1010 }));
    expect(reached()).toEqual([1, 3]);
  });

  it('delivers within a cluster in the cluster model', () => {
    const { router, apics, reached } = system([0, 1, 2, 3]);
    apics.forEach((apic, index) => {
      apic.writeMmio(ApicRegister.dfr, 0);
      apic.writeMmio(ApicRegister.ldr, (((index >> 1) << 4) | (1 << (index & 1))) << 24);
    });
    router.deliver(message({ destinationMode: 'logical', destination: 0x13 }));
    expect(reached()).toEqual([2, 3]);
    router.deliver(message({ destinationMode: 'logical', destination: 0x02 }));
    expect(reached()).toEqual([1]);
  });

  it('delivers to 32-bit IDs and x2APIC clusters', () => {
    const { router, reached } = system([0, 15, 16, 300], 'x2apic');
    router.deliver(message({ destination: 300, wide: true }));
    expect(reached()).toEqual([3]);
    router.deliver(message({ destinationMode: 'logical', destination: 0x0000_8001, wide: true }));
    expect(reached()).toEqual([0, 1]);
    router.deliver(message({ destinationMode: 'logical', destination: 0x0001_8001, wide: true }));
    expect(reached()).toEqual([2]);
    router.deliver(message({ destination: 0xffff_ffff, wide: true }));
    expect(reached()).toEqual([0, 1, 2, 3]);
  });

  it.each([
    ['self', [1]],
    ['all', [0, 1, 2]],
    ['others', [0, 2]],
  ] as const)('shorthand %s reaches %j from the middle one', (shorthand, expected) => {
    const { router, apics, reached } = system([0, 1, 2]);
    router.deliver(message({ shorthand, destination: 0x77 }), apics[1]);
    expect(reached()).toEqual(expected);
  });

  it('throws where a shorthand has no sender', () => {
    const { router } = system([0, 1]);
    expect(() => router.deliver(message({ shorthand: 'others' }))).toThrow(/sender/);
    expect(() => router.deliver(message({ shorthand: 'self' }))).toThrow(/sender/);
  });

  it('leaves out APICs that IA32_APIC_BASE disables, even for a shorthand', () => {
    const { router, apics, reached } = system([0, 1, 2]);
    apics[2].writeMsr(MSR_APIC_BASE, APIC_DEFAULT_BASE, 0);
    router.deliver(message({ shorthand: 'others', deliveryMode: DeliveryMode.nmi }), apics[0]);
    expect(reached()).toEqual([1]);
  });

  it('refuses two APICs with one ID', () => {
    expect(() => system([1, 1])).toThrow(/ID 1/);
  });

  it('says accepted if one accepted, coalesced if the others had it pending', () => {
    const { router } = system([0, 1]);
    router.deliver(message({ destination: 1 }));
    expect(router.deliver(message({ destination: 1 }))).toBe('coalesced');
    expect(router.deliver(message({ destination: 0xff }))).toBe('accepted');
    expect(router.deliver(message({ destination: 0xff }))).toBe('coalesced');
  });
});

describe('InterruptRouter: lowest priority', () => {
  const lowest = (vector: number, destination = 0b1111) =>
    message({ vector, deliveryMode: DeliveryMode.lowestPriority, destinationMode: 'logical', destination });

  it('chooses the lowest PPR', () => {
    const { router, apics, reached } = system([0, 1, 2, 3]);
    apics.forEach((apic, index) => void apic.writeCr8([3, 2, 1, 2][index]));
    for (const vector of [0x51, 0x52, 0x53]) {
      router.deliver(lowest(vector));
      expect(reached()).toEqual([2]);
    }
  });

  it('spreads vectors over equals, the same way in every run', () => {
    const { router, reached } = system([0, 1, 2, 3]);
    const chosen = [0x50, 0x51, 0x52, 0x53, 0x54, 0x50].map((vector) => {
      router.deliver(lowest(vector));
      return reached()[0];
    });
    expect(chosen).toEqual([0, 1, 2, 3, 0, 0]);
  });

  it('counts equals among the addressed only', () => {
    const { router, reached } = system([0, 1, 2, 3]);
    router.deliver(lowest(0x51, 0b1010));
    expect(reached()).toEqual([3]);
    router.deliver(lowest(0x50, 0b1010));
    expect(reached()).toEqual([1]);
  });

  it('passes over software-disabled APICs, and is ignored if there are no others', () => {
    const { router, apics, reached } = system([0, 1]);
    apics[0].writeMmio(ApicRegister.svr, 0xff);
    for (const vector of [0x50, 0x51]) {
      router.deliver(lowest(vector));
      expect(reached()).toEqual([1]);
    }
    apics[1].writeMmio(ApicRegister.svr, 0xff);
    expect(router.deliver(lowest(0x50))).toBe('ignored');
  });
});

describe('InterruptRouter: boards', () => {
  /** Two of two APICs each; what has vector 0x66 is passed on. */
  const boards: Boards = { boardOf: (apicId) => apicId >> 8, crosses: ({ vector }) => vector === 0x66 };
  const twoBoards = () => system([0x000, 0x001, 0x100, 0x101], 'xapic', false, boards);

  it('deliver within themselves: the same 8-bit ID is another APIC on another board', () => {
    const { router, apics, reached } = twoBoards();
    router.deliver(message({ destination: 1 }), apics[0]);
    expect(reached()).toEqual([1]);
    router.deliver(message({ destination: 1 }), apics[2]);
    expect(reached()).toEqual([3]);
    router.deliver(message({ shorthand: 'others' }), apics[2]);
    expect(reached()).toEqual([3]);
    router.deliver(message({ destination: 0xff }));
    expect(reached()).toEqual([0, 1]); // devices are on board 0
  });

  it('arbitrate lowest priority among their own', () => {
    const { router, apics, reached } = twoBoards();
    apics[2].writeMmio(ApicRegister.tpr, 0x20);
    router.deliver(message({ destination: 0xff, deliveryMode: DeliveryMode.lowestPriority }), apics[2]);
    expect(reached()).toEqual([3]);
  });

  it('are reached by what their controller puts out, and by what is passed on', () => {
    const { router, apics, reached } = twoBoards();
    router.deliverOn(1, message({ destination: 0 }));
    expect(reached()).toEqual([2]);
    router.deliver(message({ destination: 0, vector: 0x66 }), apics[0]);
    expect(reached()).toEqual([0, 2]);
    router.deliver(message({ shorthand: 'all', vector: 0x66 }), apics[0]);
    expect(reached()).toEqual([0, 1]);
  });
});

describe('InterruptRouter: IPIs', () => {
  it('carries INIT and start-up from an ICR to all other CPUs', () => {
    const { router, apics } = system([0, 1, 2]);
    router.perform(apics[0].writeMmio(ApicRegister.icrLow, 0x000c_c500), apics[0]);
    expect(apics.map((apic) => apic.pendingEvents)).toEqual([0, PendingEvent.init, PendingEvent.init]);
    router.perform(apics[0].writeMmio(ApicRegister.icrLow, 0x000c_8500), apics[0]);
    router.perform(apics[0].writeMmio(ApicRegister.icrLow, 0x000c_469a), apics[0]);
    expect(apics.map((apic) => apic.takeStartUp())).toEqual([-1, 0x9a, 0x9a]);
  });

  it('carries an x2APIC ICR write and a SELF IPI', () => {
    const { router, apics, reached } = system([0, 1, 2], 'x2apic');
    const perform = (msr: number, low: number, high: number) => {
      const effect = apics[0].writeMsr(msr, low, high);
      if (effect !== 'gp') router.perform(effect, apics[0]);
    };
    perform(x2apicMsr(ApicRegister.icrLow), 0x51, 2);
    expect(reached()).toEqual([2]);
    perform(x2apicMsr(ApicRegister.selfIpi), 0x51, 0);
    expect(reached()).toEqual([0]);
  });
});

describe('InterruptRouter: MSI', () => {
  it('reads address and data', () => {
    expect(messageFromMsi(0xfee0_5000, 0, 0x0041, false)).toEqual(message({ vector: 0x41, destination: 5, source: 'msi' }));
    expect(messageFromMsi(0xfee0_3004, 0, 0xc141, false)).toMatchObject({
      deliveryMode: DeliveryMode.lowestPriority,
      destinationMode: 'logical',
      trigger: 'level',
    });
    expect(messageFromMsi(0xfee0_300c, 0, 0x0041, false)).toMatchObject({ deliveryMode: DeliveryMode.lowestPriority });
    expect(messageFromMsi(0xfee0_0008, 0, 0x0400, false)).toMatchObject({ deliveryMode: DeliveryMode.nmi });
  });

  it('is none outside of the message addresses, nor where it de-asserts a level', () => {
    expect(messageFromMsi(0xfed0_5000, 0, 0x41, false)).toBeUndefined();
    expect(messageFromMsi(0xfee0_5000, 1, 0x41, false)).toBeUndefined();
    expect(messageFromMsi(0xfee0_5000, 0, 0x8041, false)).toBeUndefined();
  });

  it('takes 15-bit destinations where they are offered', () => {
    for (const [extended, index] of [
      [true, 1],
      [false, 0],
    ] as const) {
      const { router, reached } = system([0x23, 0x123], 'x2apic', extended);
      expect(router.sendMsi(0xfee2_3000 | (1 << 5), 0, 0x51)).toBe('accepted');
      expect(reached()).toEqual([index]);
    }
  });

  it('reports what is ignored', () => {
    expect(system([0]).router.sendMsi(0, 0, 0x51)).toBe('ignored');
  });
});

describe('InterruptRouter: I/O APIC', () => {
  it('a level goes round: message, service, EOI broadcast, message again, until the line falls', () => {
    const { router, apics, ioApic, route } = system([0, 1]);
    route(10, 0x3a | REDIRECTION_LEVEL | REDIRECTION_LOGICAL, 0x0200_0000);
    ioApic.setPin(10, true);
    expect(apics[1].acknowledge()).toBe(0x3a);
    router.perform(apics[1].endOfInterrupt(), apics[1]);
    expect(apics[1].acknowledge()).toBe(0x3a);
    ioApic.setPin(10, false);
    router.perform(apics[1].endOfInterrupt(), apics[1]);
    expect(apics[1].hasPendingIrr()).toBe(false);
  });

  it('a level that came before its CPU enabled the APIC is delivered then', () => {
    const { router, apics, ioApic, route } = system([0, 1]);
    router.perform(apics[1].writeMmio(ApicRegister.svr, 0xff), apics[1]);
    route(10, 0x3a | REDIRECTION_LEVEL, 0x0100_0000);
    ioApic.setPin(10, true);
    expect(apics[1].hasPendingIrr()).toBe(false);
    router.perform(apics[1].writeMmio(ApicRegister.svr, SVR_ENABLE | 0xff), apics[1]);
    expect(apics[1].highestPending()).toBe(0x3a);
  });

  it('tells level vectors by the CPU they go to, and by the rule of Linux 3.6 for all', () => {
    const { router, apics, route } = system([0, 1]);
    route(10, 0x3a | REDIRECTION_LEVEL, 0x0100_0000);
    expect(apics.map((apic) => router.hasLevelVector(apic, 0x3a))).toEqual([false, true]);
    expect(router.hasVector(0x3a)).toBe(true);
    expect(router.hasLevelVector(apics[1], 0x3b)).toBe(false);
  });
});

describe('InterruptRouter: the 8259 pair', () => {
  function withPic() {
    const all = system([0, 1]);
    const pic = new Pic();
    for (const [offset, value] of [
      [0, 0x11],
      [1, 0x30],
      [1, 0x04],
      [1, 0x01],
    ])
      pic.master.write(offset, 1, value);
    all.router.connectPic(pic, all.apics[0]);
    return { ...all, pic };
  }

  it('interrupts the boot CPU by LINT0 in virtual wire mode, and the CPU fetches the vector', () => {
    const { router, apics, pic } = withPic();
    pic.setIrq(4, true);
    expect(apics[0].pendingEvents).toBe(0);
    router.enterVirtualWireMode(apics[0]);
    expect(apics.map((apic) => apic.pendingEvents)).toEqual([PendingEvent.extInt, 0]);
    expect(router.acknowledgeExtInt(apics[0])).toBe(0x34);
    expect(apics[0].pendingEvents).toBe(0);
    expect(apics[0].highestInService(), 'an ExtINT is not in service here').toBe(-1);
  });

  it('reaches a CPU whose APIC is disabled as INTR', () => {
    const { router, apics, pic } = withPic();
    apics[0].writeMsr(MSR_APIC_BASE, APIC_DEFAULT_BASE, 0);
    pic.setIrq(4, true);
    expect(apics[0].pendingEvents).toBe(PendingEvent.extInt);
    expect(router.acknowledgeExtInt(apics[0])).toBe(0x34);
  });

  it('stops when the guest masks LINT0', () => {
    const { router, apics, pic } = withPic();
    router.enterVirtualWireMode(apics[0]);
    apics[0].writeMmio(ApicRegister.lvtLint0, LVT_MASKED);
    pic.setIrq(4, true);
    expect(apics[0].pendingEvents).toBe(0);
  });

  it('reaches any CPU by an ExtINT entry of the I/O APIC', () => {
    const { router, apics, ioApic, route, pic } = withPic();
    pic.onOutput = (high) => ioApic.setPin(0, high);
    route(0, DeliveryMode.extInt << 8, 0x0100_0000);
    pic.setIrq(4, true);
    expect(apics[1].pendingEvents).toBe(PendingEvent.extInt);
    expect(router.acknowledgeExtInt(apics[1])).toBe(0x34);
    expect(apics[1].pendingEvents).toBe(0);
  });

  it('is our mistake to acknowledge where there is none', () => {
    const { router, apics } = system([0]);
    expect(() => router.acknowledgeExtInt(apics[0])).toThrow(/8259/);
  });
});
