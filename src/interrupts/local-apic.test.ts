import { describe, expect, it } from 'vitest';
import { ManualClock } from '../devices/clock.ts';
import {
  APIC_BASE_BSP,
  APIC_BASE_ENABLE,
  APIC_BASE_EXTD,
  APIC_DEFAULT_BASE,
  ApicRegister,
  ESR_ILLEGAL_REGISTER,
  ESR_RECEIVE_ILLEGAL_VECTOR,
  ESR_SEND_ILLEGAL_VECTOR,
  LVT_ACTIVE_LOW,
  LVT_LEVEL,
  LVT_MASKED,
  LVT_REMOTE_IRR,
  LVT_TIMER_PERIODIC,
  MSR_APIC_BASE,
  MSR_TSC_DEADLINE,
  SVR_ENABLE,
  SVR_SUPPRESS_EOI_BROADCAST,
  x2apicMsr,
} from './apic-registers.ts';
import { type ApicEffect, LocalApic, type LocalApicOptions, Lvt, type MsrValue, PendingEvent } from './local-apic.ts';
import { DeliveryMode, type InterruptMessage } from './message.ts';

const SPURIOUS = 0xef;

function create(options: Partial<LocalApicOptions> = {}): LocalApic {
  const clock = options.clock ?? new ManualClock();
  return new LocalApic({ apicId: 3, readTsc: () => clock.now(), tscHz: 1e9, ...options, clock });
}

function enabled(options: Partial<LocalApicOptions> = {}): LocalApic {
  const apic = create(options);
  apic.writeMmio(ApicRegister.svr, SVR_ENABLE | SPURIOUS);
  return apic;
}

function x2apic(options: Partial<LocalApicOptions> = {}): LocalApic {
  const apic = enabled(options);
  setMode(apic, APIC_BASE_ENABLE | APIC_BASE_EXTD);
  return apic;
}

const setMode = (apic: LocalApic, bits: number) => apic.writeMsr(MSR_APIC_BASE, (APIC_DEFAULT_BASE | bits) >>> 0, 0);

function message(vector: number, parts: Partial<InterruptMessage> = {}): InterruptMessage {
  return {
    vector,
    deliveryMode: DeliveryMode.fixed,
    destinationMode: 'physical',
    destination: 3,
    wide: false,
    shorthand: 'none',
    trigger: 'edge',
    assert: true,
    source: 'ioapic',
    ...parts,
  };
}

function sent(effect: ApicEffect | 'gp' | undefined): InterruptMessage {
  if (effect === undefined || effect === 'gp' || effect.kind !== 'ipi') throw new Error('no message was sent');
  return effect.message;
}

function errors(apic: LocalApic): number {
  apic.writeMmio(ApicRegister.esr, 0);
  return apic.readMmio(ApicRegister.esr);
}

const low = (value: MsrValue | 'gp') => (value === 'gp' ? value : value.low);
const inBank = (apic: LocalApic, bank: number, vector: number) =>
  (apic.readMmio(bank + (vector >> 5) * 16) >>> (vector & 31)) & 1;

describe('LocalApic: requests, service and priorities', () => {
  it('delivers the highest vector first and each one once', () => {
    const apic = enabled();
    for (const vector of [0x41, 0xec, 0x7f]) expect(apic.accept(message(vector))).toBe('accepted');
    expect(apic.highestPending()).toBe(0xec);
    const order = [];
    while (apic.highestPending() >= 0) {
      order.push(apic.acknowledge());
      apic.endOfInterrupt();
    }
    expect(order).toEqual([0xec, 0x7f, 0x41]);
  });

  it('moves a vector from IRR to ISR when it is acknowledged and out of ISR at EOI', () => {
    const apic = enabled();
    apic.accept(message(0x51));
    expect([inBank(apic, ApicRegister.irr, 0x51), inBank(apic, ApicRegister.isr, 0x51)]).toEqual([1, 0]);
    expect(apic.hasPendingIrr()).toBe(true);
    apic.acknowledge();
    expect([inBank(apic, ApicRegister.irr, 0x51), inBank(apic, ApicRegister.isr, 0x51)]).toEqual([0, 1]);
    expect(apic.hasPendingIrr()).toBe(false);
    expect(apic.highestInService()).toBe(0x51);
    apic.writeMmio(ApicRegister.eoi, 0);
    expect(inBank(apic, ApicRegister.isr, 0x51)).toBe(0);
    expect(apic.highestInService()).toBe(-1);
  });

  it('holds one further request of a vector in service and merges any more', () => {
    const apic = enabled();
    apic.accept(message(0x51));
    apic.acknowledge();
    expect(apic.accept(message(0x51))).toBe('accepted');
    expect(apic.accept(message(0x51))).toBe('coalesced');
    expect(apic.highestPending()).toBe(-1);
    apic.endOfInterrupt();
    expect(apic.acknowledge()).toBe(0x51);
    apic.endOfInterrupt();
    expect(apic.highestPending()).toBe(-1);
  });

  it('interrupts a handler with a higher class only, not with a higher vector of the same class', () => {
    const apic = enabled();
    apic.accept(message(0x51));
    apic.acknowledge();
    apic.accept(message(0x5f));
    expect(apic.highestPending()).toBe(-1);
    apic.accept(message(0x60));
    expect(apic.acknowledge()).toBe(0x60);
    expect(apic.readMmio(ApicRegister.ppr)).toBe(0x60);
  });

  it('EOI retires the highest in-service vector first', () => {
    const apic = enabled();
    apic.accept(message(0x51));
    apic.acknowledge();
    apic.accept(message(0x81));
    apic.acknowledge();
    expect(apic.endOfInterrupt()).toEqual({ kind: 'eoi', vector: 0x81, broadcast: false });
    expect(apic.endOfInterrupt()).toEqual({ kind: 'eoi', vector: 0x51, broadcast: false });
  });

  it('ignores an EOI with nothing in service', () => {
    expect(enabled().writeMmio(ApicRegister.eoi, 0)).toBeUndefined();
  });

  it('TPR defers injection, and lowering it tells the owner', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.tpr, 0x50);
    apic.accept(message(0x5f));
    expect(apic.highestPending()).toBe(-1);
    let changes = 0;
    apic.onChange = () => changes++;
    apic.writeMmio(ApicRegister.tpr, 0x60);
    expect(changes).toBe(0);
    apic.writeMmio(ApicRegister.tpr, 0x4f);
    expect(changes).toBe(1);
    expect(apic.highestPending()).toBe(0x5f);
  });

  it('gives the spurious vector, with nothing in service, if TPR rose between interrupt and acknowledgement', () => {
    const apic = enabled();
    apic.accept(message(0x51));
    apic.writeCr8(5);
    expect(apic.acknowledge()).toBe(SPURIOUS);
    expect(apic.highestInService()).toBe(-1);
    apic.writeCr8(4);
    expect(apic.acknowledge()).toBe(0x51);
  });

  it('PPR is TPR where TPR has the higher or equal class, and otherwise the class in service', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.tpr, 0x23);
    expect(apic.readMmio(ApicRegister.ppr)).toBe(0x23);
    apic.accept(message(0x57));
    apic.acknowledge();
    expect(apic.readMmio(ApicRegister.ppr)).toBe(0x50);
    apic.writeMmio(ApicRegister.tpr, 0x54);
    expect(apic.readMmio(ApicRegister.ppr)).toBe(0x54);
    apic.endOfInterrupt();
    expect(apic.processorPriority).toBe(0x54);
  });

  it('CR8 is the class of TPR and writing it clears the sub-class', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.tpr, 0x7f);
    expect(apic.cr8).toBe(7);
    apic.writeCr8(9);
    expect(apic.readMmio(ApicRegister.tpr)).toBe(0x90);
  });

  it('computes the arbitration priority as the manual does', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.tpr, 0x35);
    expect(apic.readMmio(ApicRegister.apr)).toBe(0x35);
    apic.accept(message(0x72));
    expect(apic.readMmio(ApicRegister.apr)).toBe(0x70);
  });

  it('behaves like a plain set of bits under random traffic', () => {
    const apic = enabled();
    const irr = new Set<number>();
    const isr = new Set<number>();
    let tpr = 0;
    const top = (set: Set<number>) => Math.max(-1, ...set);
    let seed = 12345;
    const random = (below: number) => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % below;
    };
    for (let step = 0; step < 20_000; step++) {
      const ppr = Math.max(tpr >> 4, top(isr) >> 4);
      const deliverable = top(irr) >> 4 > ppr ? top(irr) : -1;
      expect(apic.highestPending()).toBe(deliverable);
      expect(apic.highestInService()).toBe(top(isr));
      expect(apic.hasPendingIrr()).toBe(irr.size > 0);
      switch (random(4)) {
        case 0: {
          const vector = 16 + random(240);
          expect(apic.accept(message(vector))).toBe(irr.has(vector) ? 'coalesced' : 'accepted');
          irr.add(vector);
          break;
        }
        case 1:
          expect(apic.acknowledge()).toBe(deliverable < 0 ? SPURIOUS : deliverable);
          if (deliverable < 0) break;
          irr.delete(deliverable);
          isr.add(deliverable);
          break;
        case 2:
          apic.endOfInterrupt();
          isr.delete(top(isr));
          break;
        case 3:
          tpr = random(16) << 4;
          apic.writeMmio(ApicRegister.tpr, tpr);
          break;
      }
    }
  });
});

describe('LocalApic: level-triggered vectors', () => {
  it('TMR follows the trigger of the last request', () => {
    const apic = enabled();
    apic.accept(message(0x51, { trigger: 'level' }));
    expect(apic.tmrBit(0x51)).toBe(true);
    expect(inBank(apic, ApicRegister.tmr, 0x51)).toBe(1);
    apic.accept(message(0x51));
    expect(apic.tmrBit(0x51)).toBe(false);
  });

  it('broadcasts the EOI of a level-triggered vector', () => {
    const apic = enabled();
    apic.accept(message(0x51, { trigger: 'level' }));
    apic.acknowledge();
    expect(apic.writeMmio(ApicRegister.eoi, 0)).toEqual({ kind: 'eoi', vector: 0x51, broadcast: true });
  });

  it('suppresses the broadcast when SVR says so and the APIC can', () => {
    for (const eoiBroadcastSuppression of [true, false]) {
      const apic = enabled({ eoiBroadcastSuppression });
      expect((apic.readMmio(ApicRegister.version) >>> 24) & 1).toBe(eoiBroadcastSuppression ? 1 : 0);
      apic.writeMmio(ApicRegister.svr, SVR_ENABLE | SVR_SUPPRESS_EOI_BROADCAST | SPURIOUS);
      apic.accept(message(0x51, { trigger: 'level' }));
      apic.acknowledge();
      expect(apic.endOfInterrupt()).toEqual({ kind: 'eoi', vector: 0x51, broadcast: !eoiBroadcastSuppression });
    }
  });

  it('ends interrupts without allocating: equal EOIs are one object', () => {
    const apic = enabled();
    const end = () => {
      apic.accept(message(0x51));
      apic.acknowledge();
      return apic.endOfInterrupt();
    };
    expect(end()).toBe(end());
  });
});

describe('LocalApic: what it tells its owner', () => {
  it('reports every new request, even one that PPR holds back, and no merged one', () => {
    const apic = enabled();
    let changes = 0;
    apic.onChange = () => changes++;
    apic.accept(message(0x81));
    expect(changes).toBe(1);
    apic.acknowledge();
    apic.accept(message(0x51));
    expect(changes).toBe(2);
    apic.accept(message(0x51));
    expect(changes).toBe(2);
    apic.endOfInterrupt();
    expect(changes).toBe(3);
  });

  it('hands vector, source, result, delivery mode and trigger of each request to onAccept', () => {
    const apic = enabled();
    const seen: unknown[] = [];
    apic.onAccept = (...parts) => seen.push(parts);
    apic.accept(message(0x51, { source: 'msi', trigger: 'level' }));
    apic.accept(message(0x51, { source: 'ipi' }));
    apic.accept(message(5));
    apic.accept(message(0, { deliveryMode: DeliveryMode.nmi }));
    expect(seen).toEqual([
      [0x51, 'msi', 'accepted', DeliveryMode.fixed, 'level'],
      [0x51, 'ipi', 'coalesced', DeliveryMode.fixed, 'edge'],
      [5, 'ioapic', 'ignored', DeliveryMode.fixed, 'edge'],
      [0, 'ioapic', 'accepted', DeliveryMode.nmi, 'edge'],
    ]);
  });
});

describe('LocalApic: software disable', () => {
  it('starts software-disabled with all entries masked and vector 0xFF', () => {
    const apic = create();
    expect(apic.isEnabled()).toBe(false);
    expect(apic.readMmio(ApicRegister.svr)).toBe(0xff);
    for (let offset = ApicRegister.lvtTimer; offset <= ApicRegister.lvtError; offset += 16) {
      expect(apic.readMmio(offset)).toBe(LVT_MASKED);
    }
  });

  it('masks all LVT entries and does not let them be unmasked', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.lvtLint1, 0x400);
    apic.writeMmio(ApicRegister.svr, SPURIOUS);
    expect(apic.readMmio(ApicRegister.lvtLint1)).toBe(LVT_MASKED | 0x400);
    apic.writeMmio(ApicRegister.lvtLint1, 0x400);
    expect(apic.readMmio(ApicRegister.lvtLint1)).toBe(LVT_MASKED | 0x400);
    apic.writeMmio(ApicRegister.svr, SVR_ENABLE | SPURIOUS);
    expect(apic.readMmio(ApicRegister.lvtLint1)).toBe(LVT_MASKED | 0x400);
  });

  it('refuses vectors and ExtINT but takes NMI, SMI, INIT and SIPI', () => {
    const apic = create();
    expect(apic.accept(message(0x51))).toBe('ignored');
    expect(apic.accept(message(0x51, { deliveryMode: DeliveryMode.lowestPriority }))).toBe('ignored');
    expect(apic.accept(message(0, { deliveryMode: DeliveryMode.extInt }))).toBe('ignored');
    const { nmi, smi, init, startUp } = DeliveryMode;
    for (const deliveryMode of [nmi, smi, init, startUp]) expect(apic.accept(message(0x10, { deliveryMode }))).toBe('accepted');
    expect(apic.hasPendingIrr()).toBe(false);
  });

  it('keeps requests and vectors in service, which the CPU still handles', () => {
    const apic = enabled();
    apic.accept(message(0x51));
    apic.acknowledge();
    apic.accept(message(0x81));
    apic.writeMmio(ApicRegister.svr, SPURIOUS);
    expect(apic.highestInService()).toBe(0x51);
    expect(apic.acknowledge()).toBe(0x81);
  });

  it('tells the router when the enable bit changes, and only then', () => {
    const apic = create();
    expect(apic.writeMmio(ApicRegister.svr, SVR_ENABLE | SPURIOUS)).toEqual({ kind: 'configuration' });
    expect(apic.writeMmio(ApicRegister.svr, SVR_ENABLE | 0x2f)).toBeUndefined();
    expect(apic.writeMmio(ApicRegister.svr, 0x2f)).toEqual({ kind: 'configuration' });
  });
});

describe('LocalApic: NMI, SMI, INIT and SIPI', () => {
  it('latches each and gives it out once', () => {
    const apic = enabled();
    apic.accept(message(0, { deliveryMode: DeliveryMode.nmi }));
    expect(apic.accept(message(0, { deliveryMode: DeliveryMode.nmi }))).toBe('coalesced');
    apic.accept(message(0, { deliveryMode: DeliveryMode.smi }));
    expect(apic.pendingEvents).toBe(PendingEvent.nmi | PendingEvent.smi);
    expect([apic.takeNmi(), apic.takeNmi(), apic.takeSmi(), apic.takeSmi()]).toEqual([true, false, true, false]);
    expect(apic.pendingEvents).toBe(0);
  });

  it('keeps the vector of the last start-up message, and INIT discards an earlier one', () => {
    const apic = enabled();
    apic.accept(message(0x10, { deliveryMode: DeliveryMode.startUp }));
    apic.accept(message(0, { deliveryMode: DeliveryMode.init }));
    expect(apic.takeStartUp()).toBe(-1);
    expect(apic.takeInit()).toBe(true);
    apic.accept(message(0x9a, { deliveryMode: DeliveryMode.startUp }));
    apic.accept(message(0x9b, { deliveryMode: DeliveryMode.startUp }));
    expect([apic.takeStartUp(), apic.takeStartUp()]).toEqual([0x9b, -1]);
  });

  it('a start-up message sent right after INIT survives the INIT being taken', () => {
    const apic = enabled();
    apic.accept(message(0, { deliveryMode: DeliveryMode.init }));
    apic.accept(message(0x9a, { deliveryMode: DeliveryMode.startUp }));
    apic.takeInit();
    apic.init();
    expect(apic.takeStartUp()).toBe(0x9a);
  });

  it('ignores INIT level de-assert', () => {
    const apic = enabled();
    expect(apic.accept(message(0, { deliveryMode: DeliveryMode.init, trigger: 'level', assert: false }))).toBe('ignored');
    expect(apic.pendingEvents).toBe(0);
  });

  it('ignores the reserved delivery mode', () => {
    expect(enabled().accept(message(0x51, { deliveryMode: DeliveryMode.reserved }))).toBe('ignored');
  });
});

describe('LocalApic: reset and INIT', () => {
  function dirty(apic: LocalApic): void {
    apic.accept(message(0x51, { trigger: 'level' }));
    apic.acknowledge();
    apic.accept(message(0x81));
    apic.accept(message(0, { deliveryMode: DeliveryMode.nmi }));
    apic.writeMmio(ApicRegister.tpr, 0x20);
    apic.writeMmio(ApicRegister.id, 9 << 24);
    apic.writeMmio(ApicRegister.ldr, 0x0200_0000);
    apic.writeMmio(ApicRegister.dfr, 0);
    apic.writeMmio(ApicRegister.lvtTimer, 0xec | LVT_TIMER_PERIODIC);
    apic.writeMmio(ApicRegister.initialCount, 1000);
    apic.writeMmio(ApicRegister.icrHigh, 0x0500_0000);
    apic.readMmio(0x400);
  }

  it('INIT clears everything but the ID and IA32_APIC_BASE', () => {
    const apic = enabled();
    apic.writeMsr(MSR_APIC_BASE, (0xfec1_0000 | APIC_BASE_ENABLE) >>> 0, 0);
    dirty(apic);
    apic.init();
    const fresh = create();
    fresh.writeMmio(ApicRegister.id, 9 << 24);
    for (let offset = 0; offset < 0x400; offset += 16)
      expect(apic.readMmio(offset), `0x${offset.toString(16)}`).toBe(fresh.readMmio(offset));
    expect(apic.baseAddress).toBe(0xfec1_0000);
    expect(apic.pendingEvents).toBe(0);
    expect([apic.highestPending(), apic.highestInService()]).toEqual([-1, -1]);
  });

  it('INIT in x2APIC mode stays in it', () => {
    const apic = x2apic({ apicId: 0x123 });
    apic.init();
    expect(apic.mode).toBe('x2apic');
    expect(low(apic.readMsr(x2apicMsr(ApicRegister.id)))).toBe(0x123);
    expect(apic.isEnabled()).toBe(false);
  });

  it('RESET goes back to xAPIC mode at the default base with the initial ID', () => {
    const apic = enabled({ bootProcessor: true });
    dirty(apic);
    apic.writeMsr(MSR_APIC_BASE, (APIC_DEFAULT_BASE | APIC_BASE_ENABLE | APIC_BASE_EXTD) >>> 0, 1);
    apic.reset();
    expect(apic.mode).toBe('xapic');
    expect(apic.readMsr(MSR_APIC_BASE)).toEqual({ low: 0xfee0_0900, high: 0 });
    expect(apic.readMmio(ApicRegister.id)).toBe(3 << 24);
  });
});

describe('LocalApic: IA32_APIC_BASE', () => {
  const modes = { disabled: 0, xapic: APIC_BASE_ENABLE, x2apic: APIC_BASE_ENABLE | APIC_BASE_EXTD, invalid: APIC_BASE_EXTD };
  const legal = new Set(['disabled xapic', 'xapic disabled', 'xapic x2apic', 'x2apic disabled']);

  for (const from of ['disabled', 'xapic', 'x2apic'] as const) {
    for (const to of ['disabled', 'xapic', 'x2apic', 'invalid'] as const) {
      const allowed = from === to || legal.has(`${from} ${to}`);
      it(`${allowed ? 'goes' : 'does not go'} from ${from} to ${to}`, () => {
        const apic = enabled();
        if (from !== 'xapic') setMode(apic, modes[from]);
        expect(apic.mode).toBe(from);
        const effect = setMode(apic, modes[to]);
        if (!allowed) expect(effect).toBe('gp');
        else if (from === to) expect(effect).toBeUndefined();
        else expect(effect).toEqual({ kind: 'configuration' });
        expect(apic.mode).toBe(allowed ? to : from);
      });
    }
  }

  it('faults on reserved bits, on addresses the CPU does not have, and on EXTD without x2APIC', () => {
    const apic = create({ physicalAddressBits: 40 });
    for (const bit of [0, 1, 7, 9]) expect(setMode(apic, APIC_BASE_ENABLE | (1 << bit))).toBe('gp');
    expect(apic.writeMsr(MSR_APIC_BASE, 0xfee0_0800, 0x100)).toBe('gp');
    expect(apic.writeMsr(MSR_APIC_BASE, 0xfee0_0800, 0xff)).toEqual({ kind: 'configuration' });
    expect(apic.baseAddress).toBe(0xff_fee0_0000);
    expect(setMode(create({ x2apic: false }), APIC_BASE_ENABLE | APIC_BASE_EXTD)).toBe('gp');
  });

  it('keeps the BSP flag where software puts it', () => {
    const apic = create({ bootProcessor: true });
    expect(apic.isBootProcessor).toBe(true);
    setMode(apic, APIC_BASE_ENABLE);
    expect(apic.isBootProcessor).toBe(false);
    setMode(apic, APIC_BASE_ENABLE | APIC_BASE_BSP);
    expect(apic.isBootProcessor).toBe(true);
  });

  it('disabled, it takes nothing, has no registers, and forgets its state', () => {
    const apic = enabled();
    apic.accept(message(0x51));
    apic.writeMmio(ApicRegister.id, 9 << 24);
    setMode(apic, 0);
    expect(apic.isEnabled()).toBe(false);
    expect(apic.matches(3, 'physical', false)).toBe(false);
    expect(apic.accept(message(0x52))).toBe('ignored');
    expect(apic.accept(message(0, { deliveryMode: DeliveryMode.nmi }))).toBe('ignored');
    expect(apic.readMmio(ApicRegister.version)).toBe(0xffff_ffff);
    expect(apic.readMsr(x2apicMsr(ApicRegister.version))).toBe('gp');
    setMode(apic, APIC_BASE_ENABLE);
    expect(apic.readMmio(ApicRegister.id)).toBe(3 << 24);
    expect(apic.readMmio(ApicRegister.svr)).toBe(0xff);
    expect(apic.hasPendingIrr()).toBe(false);
  });

  it('entering x2APIC mode keeps the state but not the ID, LDR and ICR high that software wrote', () => {
    const apic = enabled({ apicId: 0x25 });
    apic.accept(message(0x51));
    apic.acknowledge();
    apic.writeMmio(ApicRegister.tpr, 0x10);
    apic.writeMmio(ApicRegister.id, 9 << 24);
    apic.writeMmio(ApicRegister.ldr, 0x0200_0000);
    apic.writeMmio(ApicRegister.icrHigh, 0x0500_0000);
    setMode(apic, APIC_BASE_ENABLE | APIC_BASE_EXTD);
    expect(low(apic.readMsr(x2apicMsr(ApicRegister.tpr)))).toBe(0x10);
    expect(apic.highestInService()).toBe(0x51);
    expect(low(apic.readMsr(x2apicMsr(ApicRegister.id)))).toBe(0x25);
    expect(low(apic.readMsr(x2apicMsr(ApicRegister.ldr)))).toBe((2 << 16) | (1 << 5));
    expect(apic.readMsr(x2apicMsr(ApicRegister.icrLow))).toEqual({ low: 0, high: 0 });
    expect(apic.readMmio(ApicRegister.tpr)).toBe(0xffff_ffff);
    expect(apic.writeMmio(ApicRegister.eoi, 0)).toBeUndefined();
    expect(apic.highestInService()).toBe(0x51);
  });
});

describe('LocalApic: the xAPIC page', () => {
  it('gives version and number of LVT entries', () => {
    expect(create().readMmio(ApicRegister.version)).toBe(0x0005_0014);
    expect(create({ maxLvt: 6, version: 0x15 }).readMmio(ApicRegister.version)).toBe(0x0006_0015);
  });

  it('masks reserved bits on writing', () => {
    const apic = enabled({ maxLvt: 6 });
    const written: [number, number][] = [
      [ApicRegister.id, 0xff00_0000],
      [ApicRegister.tpr, 0xff],
      [ApicRegister.ldr, 0xff00_0000],
      [ApicRegister.svr, 0x3ff],
      [ApicRegister.lvtCmci, 0x107ff],
      [ApicRegister.icrHigh, 0xff00_0000],
      [ApicRegister.lvtThermal, 0x107ff],
      [ApicRegister.lvtPerformance, 0x107ff],
      [ApicRegister.lvtLint0, 0x1a7ff],
      [ApicRegister.lvtLint1, 0x1a7ff],
      [ApicRegister.lvtError, 0x100ff],
      [ApicRegister.lvtTimer, 0x700ff],
      [ApicRegister.divideConfiguration, 0xb],
    ];
    for (const [offset, expected] of written) {
      apic.writeMmio(offset, 0xffff_ffff);
      expect(apic.readMmio(offset), `0x${offset.toString(16)}`).toBe(expected);
    }
    apic.writeMmio(ApicRegister.dfr, 0);
    expect(apic.readMmio(ApicRegister.dfr)).toBe(0x0fff_ffff);
  });

  it('swallows writes of read-only registers', () => {
    const apic = enabled();
    for (const offset of [
      ApicRegister.version,
      ApicRegister.ppr,
      ApicRegister.apr,
      ApicRegister.isr,
      ApicRegister.irr,
      ApicRegister.currentCount,
    ]) {
      const before = apic.readMmio(offset);
      apic.writeMmio(offset, 0xffff_ffff);
      expect(apic.readMmio(offset)).toBe(before);
    }
    expect(errors(apic)).toBe(0);
  });

  it('logs an illegal register address for what the table reserves, and reads it as 0', () => {
    const apic = enabled();
    for (const offset of [0, 0x10, 0x40, 0x290, ApicRegister.lvtCmci, 0x3a0, ApicRegister.selfIpi, 0x400, 0xff0]) {
      expect(apic.readMmio(offset)).toBe(0);
      expect(errors(apic), `read 0x${offset.toString(16)}`).toBe(ESR_ILLEGAL_REGISTER);
      apic.writeMmio(offset, 0);
      expect(errors(apic), `write 0x${offset.toString(16)}`).toBe(ESR_ILLEGAL_REGISTER);
    }
  });

  it('reads write-only registers and the gaps between registers as 0 without an error', () => {
    const apic = enabled();
    expect([apic.readMmio(ApicRegister.eoi), apic.readMmio(ApicRegister.remoteRead), apic.readMmio(0x24)]).toEqual([0, 0, 0]);
    expect(errors(apic)).toBe(0);
  });
});

describe('LocalApic: errors', () => {
  it('shows errors in ESR only after it was written, and the write clears what was shown', () => {
    const apic = enabled();
    apic.readMmio(0x400);
    expect(apic.readMmio(ApicRegister.esr)).toBe(0);
    expect(errors(apic)).toBe(ESR_ILLEGAL_REGISTER);
    expect(apic.readMmio(ApicRegister.esr)).toBe(ESR_ILLEGAL_REGISTER);
    expect(errors(apic)).toBe(0);
  });

  it('interrupts once for each kind of error until ESR is written', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.lvtError, 0xfe);
    const take = () => {
      const vector = apic.highestPending();
      if (vector >= 0) apic.acknowledge();
      apic.endOfInterrupt();
      return vector;
    };
    apic.readMmio(0x400);
    expect(take()).toBe(0xfe);
    apic.readMmio(0x400);
    expect(take()).toBe(-1);
    apic.accept(message(5));
    expect(take()).toBe(0xfe);
    expect(errors(apic)).toBe(ESR_ILLEGAL_REGISTER | ESR_RECEIVE_ILLEGAL_VECTOR);
    apic.readMmio(0x400);
    expect(take()).toBe(0xfe);
  });

  it('does not accept vectors 0 to 15', () => {
    const apic = enabled();
    expect(apic.accept(message(15))).toBe('ignored');
    expect(errors(apic)).toBe(ESR_RECEIVE_ILLEGAL_VECTOR);
    expect(apic.accept(message(16))).toBe('accepted');
  });

  it('logs an illegal vector that it sends, and one that it sends to itself twice over', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.icrLow, 0x0000_400f);
    expect(errors(apic)).toBe(ESR_SEND_ILLEGAL_VECTOR);
    apic.accept(sent(apic.writeMmio(ApicRegister.icrLow, 0x0004_400f)));
    expect(errors(apic)).toBe(ESR_SEND_ILLEGAL_VECTOR | ESR_RECEIVE_ILLEGAL_VECTOR);
    apic.writeMmio(ApicRegister.icrLow, 0x0000_4400);
    expect(errors(apic), 'NMI has no vector').toBe(0);
  });

  it('survives an error entry whose own vector is illegal', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.lvtError, 3);
    apic.readMmio(0x400);
    expect(errors(apic)).toBe(ESR_ILLEGAL_REGISTER | ESR_RECEIVE_ILLEGAL_VECTOR);
    expect(apic.hasPendingIrr()).toBe(false);
  });
});

describe('LocalApic: the ICR', () => {
  it('sends what it says, with an 8-bit destination in xAPIC mode', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.icrHigh, 0x0700_0000);
    expect(sent(apic.writeMmio(ApicRegister.icrLow, 0x0000_48fd))).toEqual({
      vector: 0xfd,
      deliveryMode: DeliveryMode.fixed,
      destinationMode: 'logical',
      destination: 7,
      wide: false,
      shorthand: 'none',
      trigger: 'edge',
      assert: true,
      source: 'ipi',
    });
    expect(apic.readMmio(ApicRegister.icrLow), 'delivery status is idle').toBe(0x0000_48fd);
  });

  it('sends with a 32-bit destination by one write in x2APIC mode', () => {
    const apic = x2apic();
    const parts = sent(apic.writeMsr(x2apicMsr(ApicRegister.icrLow), 0x0000_00fd, 0x1_0203));
    expect(parts).toMatchObject({ vector: 0xfd, destination: 0x1_0203, wide: true, destinationMode: 'physical' });
    expect(apic.readMsr(x2apicMsr(ApicRegister.icrLow))).toEqual({ low: 0xfd, high: 0x1_0203 });
  });

  it.each([
    [0, 'none', 'ipi'],
    [1, 'self', 'self-ipi'],
    [2, 'all', 'ipi'],
    [3, 'others', 'ipi'],
  ] as const)('shorthand %i is %s', (bits, shorthand, source) => {
    expect(sent(enabled().writeMmio(ApicRegister.icrLow, 0x4040 | (bits << 18)))).toMatchObject({ shorthand, source });
  });

  it.each(Object.entries(DeliveryMode))('sends delivery mode %s', (_name, deliveryMode) => {
    expect(sent(enabled().writeMmio(ApicRegister.icrLow, 0x4040 | (deliveryMode << 8))).deliveryMode).toBe(deliveryMode);
  });

  it('takes trigger mode and level to heart for INIT only', () => {
    const apic = enabled();
    expect(sent(apic.writeMmio(ApicRegister.icrLow, 0xc500))).toMatchObject({ trigger: 'level', assert: true });
    expect(sent(apic.writeMmio(ApicRegister.icrLow, 0x8500))).toMatchObject({ trigger: 'level', assert: false });
    expect(sent(apic.writeMmio(ApicRegister.icrLow, 0x0500))).toMatchObject({ trigger: 'edge', assert: true });
    expect(sent(apic.writeMmio(ApicRegister.icrLow, 0x8041))).toMatchObject({ trigger: 'edge', assert: true });
  });
});

describe('LocalApic: the x2APIC MSRs', () => {
  it('are absent in xAPIC mode', () => {
    const apic = enabled();
    for (let msr = 0x800; msr <= 0x8ff; msr++) {
      expect(apic.readMsr(msr)).toBe('gp');
      expect(apic.writeMsr(msr, 0, 0)).toBe('gp');
    }
  });

  it('exist as the manual lists them and fault elsewhere', () => {
    const apic = x2apic();
    const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index);
    const readable = [0x802, 0x803, 0x808, 0x80a, 0x80d, 0x80f, ...range(0x810, 0x828), 0x830, ...range(0x832, 0x839), 0x83e];
    const writable = [0x808, 0x80b, 0x80f, 0x828, 0x830, ...range(0x832, 0x838), 0x83e, 0x83f];
    const all = range(0x800, 0x8ff);
    expect(all.filter((msr) => apic.readMsr(msr) !== 'gp')).toEqual(readable);
    expect(all.filter((msr) => apic.writeMsr(msr, 0, 0) !== 'gp')).toEqual(writable);
  });

  it.each([
    [ApicRegister.tpr, 0x0000_00ff],
    [ApicRegister.eoi, 0],
    [ApicRegister.svr, 0x0000_03ff],
    [ApicRegister.esr, 0],
    [ApicRegister.icrLow, 0x000c_dfff],
    [ApicRegister.lvtTimer, 0x0007_10ff],
    [ApicRegister.lvtThermal, 0x0001_17ff],
    [ApicRegister.lvtPerformance, 0x0001_17ff],
    [ApicRegister.lvtLint0, 0x0001_f7ff],
    [ApicRegister.lvtLint1, 0x0001_f7ff],
    [ApicRegister.lvtError, 0x0001_10ff],
    [ApicRegister.initialCount, 0xffff_ffff],
    [ApicRegister.divideConfiguration, 0x0000_000b],
    [ApicRegister.selfIpi, 0x0000_00ff],
  ])('register 0x%s faults on each reserved bit and on no other', (register, legal) => {
    for (let bit = 0; bit < 32; bit++) {
      const fault = x2apic().writeMsr(x2apicMsr(register), (1 << bit) >>> 0, 0) === 'gp';
      expect(fault, `bit ${bit}`).toBe(((legal >>> bit) & 1) === 0);
    }
    expect(x2apic().writeMsr(x2apicMsr(register), 0, 1) === 'gp').toBe(register !== ApicRegister.icrLow);
  });

  it('a faulting write changes nothing', () => {
    const apic = x2apic();
    apic.writeMsr(x2apicMsr(ApicRegister.tpr), 0x20, 0);
    apic.writeMsr(x2apicMsr(ApicRegister.tpr), 0x130, 0);
    apic.writeMsr(x2apicMsr(ApicRegister.tpr), 0x30, 1);
    expect(low(apic.readMsr(x2apicMsr(ApicRegister.tpr)))).toBe(0x20);
  });

  it('SELF IPI sends a fixed edge-triggered interrupt to itself', () => {
    const apic = x2apic();
    const parts = sent(apic.writeMsr(x2apicMsr(ApicRegister.selfIpi), 0x77, 0));
    expect(parts).toMatchObject({ vector: 0x77, shorthand: 'self', source: 'self-ipi', trigger: 'edge' });
    expect(apic.accept(parts)).toBe('accepted');
    expect(apic.acknowledge()).toBe(0x77);
    expect(apic.writeMsr(x2apicMsr(ApicRegister.eoi), 0, 0)).toEqual({ kind: 'eoi', vector: 0x77, broadcast: false });
  });

  it('SELF IPI with an illegal vector is an error of the sender and of the receiver', () => {
    const apic = x2apic();
    apic.accept(sent(apic.writeMsr(x2apicMsr(ApicRegister.selfIpi), 9, 0)));
    apic.writeMsr(x2apicMsr(ApicRegister.esr), 0, 0);
    expect(low(apic.readMsr(x2apicMsr(ApicRegister.esr)))).toBe(ESR_SEND_ILLEGAL_VECTOR | ESR_RECEIVE_ILLEGAL_VECTOR);
    expect(apic.hasPendingIrr()).toBe(false);
  });

  it('shows IRR, ISR and TMR in the same words as the page', () => {
    const apic = enabled();
    apic.accept(message(0xa7, { trigger: 'level' }));
    apic.accept(message(0x45));
    apic.acknowledge();
    const page = [ApicRegister.isr, ApicRegister.tmr, ApicRegister.irr].map((bank) =>
      Array.from({ length: 8 }, (_, word) => apic.readMmio(bank + word * 16)),
    );
    setMode(apic, APIC_BASE_ENABLE | APIC_BASE_EXTD);
    const msrs = [0x810, 0x818, 0x820].map((bank) => Array.from({ length: 8 }, (_, word) => low(apic.readMsr(bank + word))));
    expect(msrs).toEqual(page);
    expect(page[0][5]).toBe(1 << 7);
    expect(page[2][2]).toBe(1 << 5);
  });

  it('logs no illegal register addresses: those fault', () => {
    const apic = x2apic();
    apic.readMsr(0x8f0);
    apic.writeMsr(x2apicMsr(ApicRegister.esr), 0, 0);
    expect(low(apic.readMsr(x2apicMsr(ApicRegister.esr)))).toBe(0);
  });
});

describe('LocalApic: destinations', () => {
  it('matches its ID and broadcasts physically in xAPIC mode, wherever software moved the ID', () => {
    const apic = enabled();
    expect(apic.matches(3, 'physical', false)).toBe(true);
    expect(apic.matches(0xff, 'physical', false)).toBe(true);
    expect(apic.matches(0x103, 'physical', true)).toBe(false);
    apic.writeMmio(ApicRegister.id, 0x0800_0000);
    expect([apic.matches(3, 'physical', false), apic.matches(8, 'physical', false)]).toEqual([false, true]);
  });

  it('matches any common bit of LDR in the flat model', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.ldr, 0x0600_0000);
    const reached = [0x01, 0x02, 0x04, 0x08, 0x0b, 0xff].filter((mask) => apic.matches(mask, 'logical', false));
    expect(reached).toEqual([0x02, 0x04, 0x0b, 0xff]);
    expect(apic.matches(0x102, 'logical', true), 'a destination that xAPIC mode cannot have').toBe(false);
  });

  it('matches cluster and a common bit in the cluster model', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.dfr, 0x0fff_ffff);
    apic.writeMmio(ApicRegister.ldr, 0x2400_0000);
    const reached = [0x24, 0x2f, 0x2b, 0x14, 0x04, 0xff].filter((mask) => apic.matches(mask, 'logical', false));
    expect(reached).toEqual([0x24, 0x2f, 0xff]);
  });

  it('matches no logical destination in a model that does not exist', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.ldr, 0xff00_0000);
    apic.writeMmio(ApicRegister.dfr, 0x8000_0000);
    expect(apic.matches(0x0f, 'logical', false)).toBe(false);
  });

  it('matches 32-bit IDs and clusters in x2APIC mode', () => {
    const apic = x2apic({ apicId: 0x123 });
    expect(apic.matches(0x123, 'physical', true)).toBe(true);
    expect(apic.matches(0x23, 'physical', true)).toBe(false);
    expect(apic.matches((0x12 << 16) | 0x0008, 'logical', true)).toBe(true);
    expect(apic.matches((0x12 << 16) | 0x0017, 'logical', true)).toBe(false);
    expect(apic.matches((0x13 << 16) | 0x0008, 'logical', true)).toBe(false);
  });

  it('looks at 4 bits of a physical destination on a P6 bus, whose broadcast is 15', () => {
    const apic = enabled({ apicId: 0x21, physicalIdBits: 4 });
    expect([0x01, 0x21, 0x0f, 0xff].map((destination) => apic.matches(destination, 'physical', false))).toEqual([
      true,
      true,
      true,
      true,
    ]);
    expect([0x02, 0x20].map((destination) => apic.matches(destination, 'physical', false))).toEqual([false, false]);
    apic.writeMmio(ApicRegister.ldr, 0x10 << 24);
    expect([0x0f, 0x1f].map((destination) => apic.matches(destination, 'logical', false))).toEqual([false, true]);
  });

  it('takes 0xFF as a broadcast in x2APIC mode only from an 8-bit destination', () => {
    const apic = x2apic();
    expect(apic.matches(0xff, 'physical', false)).toBe(true);
    expect(apic.matches(0xff, 'physical', true)).toBe(false);
    expect(apic.matches(0xffff_ffff, 'physical', true)).toBe(true);
  });
});

describe('LocalApic: LINT pins and local sources', () => {
  it('ExtINT by LINT0 is pending as long as the pin is high and the entry lets it', () => {
    const apic = enabled();
    let changes = 0;
    apic.onChange = () => changes++;
    apic.setLint(0, true);
    expect(apic.pendingEvents).toBe(0);
    apic.writeMmio(ApicRegister.lvtLint0, 0x700);
    expect(apic.pendingEvents).toBe(PendingEvent.extInt);
    expect(changes).toBe(1);
    expect(apic.takeExtInt()).toBe(true);
    expect(apic.takeExtInt(), 'the 8259 has not lowered it').toBe(true);
    apic.setLint(0, false);
    expect(apic.takeExtInt()).toBe(false);
    apic.setLint(0, true);
    apic.writeMmio(ApicRegister.lvtLint0, LVT_MASKED | 0x700);
    expect(apic.pendingEvents).toBe(0);
  });

  it('RESET and INIT mask the entry that let ExtINT through, and forget an ExtINT message', () => {
    for (const restart of ['reset', 'init'] as const) {
      const apic = enabled();
      apic.writeMmio(ApicRegister.lvtLint0, 0x700);
      apic.setLint(0, true);
      apic.accept(message(0, { deliveryMode: DeliveryMode.extInt }));
      apic[restart]();
      expect(apic.pendingEvents).toBe(0);
      expect(apic.takeExtInt()).toBe(false);
    }
  });

  it('an ExtINT message stays until it is taken', () => {
    const apic = enabled();
    expect(apic.accept(message(0, { deliveryMode: DeliveryMode.extInt }))).toBe('accepted');
    apic.writeMmio(ApicRegister.lvtLint0, LVT_MASKED);
    expect([apic.takeExtInt(), apic.takeExtInt()]).toEqual([true, false]);
  });

  it('NMI by LINT1 needs a rising edge each', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.lvtLint1, 0x400);
    apic.setLint(1, true);
    expect([apic.takeNmi(), apic.takeNmi()]).toEqual([true, false]);
    apic.setLint(1, true);
    apic.setLint(1, false);
    expect(apic.takeNmi()).toBe(false);
    apic.setLint(1, true);
    expect(apic.takeNmi()).toBe(true);
  });

  it('honours the polarity', () => {
    const apic = enabled();
    apic.setLint(1, true);
    apic.writeMmio(ApicRegister.lvtLint1, 0x400 | LVT_ACTIVE_LOW);
    apic.setLint(1, false);
    expect(apic.takeNmi()).toBe(true);
  });

  it('a level-triggered LINT0 sets remote IRR and interrupts again after EOI while asserted', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.lvtLint0, 0x51 | LVT_LEVEL);
    apic.setLint(0, true);
    expect(apic.readMmio(ApicRegister.lvtLint0)).toBe(0x51 | LVT_LEVEL | LVT_REMOTE_IRR);
    apic.acknowledge();
    expect(apic.hasPendingIrr()).toBe(false);
    apic.endOfInterrupt();
    expect(apic.acknowledge()).toBe(0x51);
    apic.setLint(0, false);
    apic.endOfInterrupt();
    expect(apic.hasPendingIrr()).toBe(false);
    expect(apic.readMmio(ApicRegister.lvtLint0)).toBe(0x51 | LVT_LEVEL);
  });

  it('a level-triggered LINT0 waits for the EOI of its own vector, and forgets remote IRR when it becomes an edge', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.lvtLint0, 0x51 | LVT_LEVEL);
    apic.setLint(0, true);
    apic.accept(message(0x61, { trigger: 'level' }));
    expect(apic.acknowledge()).toBe(0x61);
    let raised = 0;
    apic.onAccept = () => raised++;
    apic.endOfInterrupt();
    expect(raised).toBe(0);
    expect(apic.readMmio(ApicRegister.lvtLint0) & LVT_REMOTE_IRR).not.toBe(0);
    apic.writeMmio(ApicRegister.lvtLint0, 0x51);
    expect(apic.readMmio(ApicRegister.lvtLint0)).toBe(0x51);
  });

  it('a masked pin interrupts by neither edge nor level', () => {
    for (const trigger of [LVT_LEVEL, 0]) {
      const apic = enabled();
      apic.writeMmio(ApicRegister.lvtLint0, LVT_MASKED | 0x51 | trigger);
      apic.setLint(0, true);
      expect(apic.hasPendingIrr()).toBe(false);
    }
  });

  it('a level that is asserted interrupts as soon as LINT0 is unmasked, an edge does not', () => {
    for (const [trigger, pending] of [
      [LVT_LEVEL, 0x51],
      [0, -1],
    ]) {
      const apic = enabled();
      apic.setLint(0, true);
      apic.writeMmio(ApicRegister.lvtLint0, 0x51 | trigger);
      expect(apic.highestPending()).toBe(pending);
    }
  });

  it('LINT1 is edge-triggered whatever its entry says', () => {
    const apic = enabled();
    apic.writeMmio(ApicRegister.lvtLint1, 0x51 | LVT_LEVEL);
    apic.setLint(1, true);
    expect(apic.tmrBit(0x51)).toBe(false);
    apic.acknowledge();
    apic.endOfInterrupt();
    expect(apic.hasPendingIrr()).toBe(false);
  });

  it('disabled in IA32_APIC_BASE, the pins are INTR and NMI', () => {
    const apic = create();
    setMode(apic, 0);
    apic.setLint(0, true);
    expect(apic.pendingEvents).toBe(PendingEvent.extInt);
    apic.setLint(0, false);
    let changes = 0;
    apic.onChange = () => changes++;
    apic.setLint(1, true);
    expect(apic.pendingEvents).toBe(PendingEvent.nmi);
    expect(changes).toBe(1);
  });

  it('raises local sources by their entries, as vectors or NMI', () => {
    const apic = enabled({ maxLvt: 6 });
    expect(apic.raise(Lvt.performance)).toBe('ignored');
    apic.writeMmio(ApicRegister.lvtPerformance, 0x400);
    apic.writeMmio(ApicRegister.lvtThermal, 0xfa);
    apic.writeMmio(ApicRegister.lvtCmci, 0xf9);
    apic.raise(Lvt.performance);
    apic.raise(Lvt.thermal);
    apic.raise(Lvt.cmci);
    expect(apic.takeNmi()).toBe(true);
    expect([apic.acknowledge(), apic.endOfInterrupt() && apic.acknowledge()]).toEqual([0xfa, 0xf9]);
  });

  it("masks the performance entry on delivery where the CPU is Intel's", () => {
    for (const performanceMasksItself of [true, false]) {
      const apic = enabled({ performanceMasksItself });
      apic.writeMmio(ApicRegister.lvtPerformance, 0x400);
      apic.raise(Lvt.performance);
      expect(apic.readMmio(ApicRegister.lvtPerformance)).toBe(performanceMasksItself ? LVT_MASKED | 0x400 : 0x400);
    }
  });
});

describe('LocalApic: its timer', () => {
  it('interrupts by its entry, whose mask is looked at when it expires', () => {
    const clock = new ManualClock();
    const apic = enabled({ clock });
    const seen: unknown[] = [];
    apic.onAccept = (vector, source, result) => seen.push([vector, source, result]);
    apic.writeMmio(ApicRegister.lvtTimer, 0xec);
    apic.writeMmio(ApicRegister.divideConfiguration, 0b1011);
    apic.writeMmio(ApicRegister.initialCount, 1000);
    clock.advanceTo(999);
    expect(apic.hasPendingIrr()).toBe(false);
    expect(apic.readMmio(ApicRegister.currentCount)).toBe(1);
    clock.advanceTo(1000);
    expect(seen).toEqual([[0xec, 'timer', 'accepted']]);
    apic.writeMmio(ApicRegister.initialCount, 1000);
    apic.writeMmio(ApicRegister.lvtTimer, LVT_MASKED | 0xec);
    clock.advanceTo(5000);
    expect(seen).toHaveLength(1);
    expect(apic.readMmio(ApicRegister.initialCount)).toBe(1000);
  });

  it('an expiry that a register write overtakes still interrupts by the old entry', () => {
    let now = 0;
    let deadline = Number.POSITIVE_INFINITY;
    const timer = {
      get deadline() {
        return deadline;
      },
      arm: (nanoseconds: number) => {
        deadline = nanoseconds;
      },
      disarm: () => {
        deadline = Number.POSITIVE_INFINITY;
      },
    };
    const apic = enabled({ clock: { now: () => now, createTimer: () => timer } });
    apic.writeMmio(ApicRegister.lvtTimer, 0xec);
    apic.writeMmio(ApicRegister.initialCount, 100);
    now = 500; // the vCPU ran past the deadline; nobody has called the timer yet
    apic.writeMmio(ApicRegister.lvtTimer, 0xed);
    expect(apic.highestPending()).toBe(0xec);
    apic.writeMmio(ApicRegister.initialCount, 100);
    now = 1500;
    expect(apic.readMmio(ApicRegister.currentCount)).toBe(0);
    expect(apic.hasPendingIrr()).toBe(true);
    expect(deadline, 'it does not expire a second time').toBe(Number.POSITIVE_INFINITY);
  });

  it('gives IA32_TSC_DEADLINE by the MSR and interrupts when the TSC gets there', () => {
    const clock = new ManualClock();
    const apic = enabled({ clock });
    apic.writeMmio(ApicRegister.lvtTimer, 0xec | (2 << 17));
    expect(apic.writeMsr(MSR_TSC_DEADLINE, 5000, 0)).toBeUndefined();
    expect(apic.readMsr(MSR_TSC_DEADLINE)).toEqual({ low: 5000, high: 0 });
    clock.advanceTo(4999);
    expect(apic.hasPendingIrr()).toBe(false);
    clock.advanceTo(5000);
    expect(apic.highestPending()).toBe(0xec);
    expect(apic.readMsr(MSR_TSC_DEADLINE)).toEqual({ low: 0, high: 0 });
  });

  it('has neither the MSR nor the mode without TSC deadline', () => {
    const apic = enabled({ tscDeadline: false });
    expect(apic.readMsr(MSR_TSC_DEADLINE)).toBe('gp');
    expect(apic.writeMsr(MSR_TSC_DEADLINE, 1, 0)).toBe('gp');
    apic.writeMmio(ApicRegister.lvtTimer, 0xec | (3 << 17));
    expect(apic.readMmio(ApicRegister.lvtTimer)).toBe(0xec | LVT_TIMER_PERIODIC);
  });

  it('stops at software disable, INIT and global disable', () => {
    for (const stop of [
      (apic: LocalApic) => apic.writeMmio(ApicRegister.svr, SPURIOUS),
      (apic: LocalApic) => apic.init(),
      (apic: LocalApic) => setMode(apic, 0),
    ]) {
      const clock = new ManualClock();
      const apic = enabled({ clock });
      apic.writeMmio(ApicRegister.lvtTimer, 0xec | LVT_TIMER_PERIODIC);
      apic.writeMmio(ApicRegister.initialCount, 1_000_000);
      stop(apic);
      let fired = 0;
      apic.onAccept = () => fired++;
      clock.advanceTo(10_000_000);
      expect(fired).toBe(0);
    }
  });
});
