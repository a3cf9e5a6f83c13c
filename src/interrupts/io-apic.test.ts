import { describe, expect, it } from 'vitest';
import {
  IO_APIC_PINS,
  IoApic,
  type IoApicOptions,
  REDIRECTION_ACTIVE_LOW,
  REDIRECTION_DELIVERY_STATUS,
  REDIRECTION_LEVEL,
  REDIRECTION_LOGICAL,
  REDIRECTION_MASKED,
  REDIRECTION_REMOTE_IRR,
  RTC_PIN,
} from './io-apic.ts';
import { type AcceptResult, DeliveryMode, type InterruptMessage } from './message.ts';

const IOREGSEL = 0;
const IOWIN = 0x10;
const EOI = 0x40;

function create(options: Partial<IoApicOptions> = {}) {
  const messages: InterruptMessage[] = [];
  const answer: { value: AcceptResult } = { value: 'accepted' };
  const ioApic = new IoApic({
    send: (message) => {
      messages.push(message);
      return answer.value;
    },
    ...options,
  });
  const read = (index: number) => {
    ioApic.write(IOREGSEL, 4, index);
    return ioApic.read(IOWIN, 4);
  };
  const write = (index: number, value: number) => {
    ioApic.write(IOREGSEL, 4, index);
    ioApic.write(IOWIN, 4, value >>> 0);
  };
  const route = (pin: number, low: number, high = 0) => {
    write(0x11 + 2 * pin, high);
    write(0x10 + 2 * pin, low);
  };
  const entry = (pin: number) => read(0x10 + 2 * pin);
  return { ioApic, messages, answer, read, write, route, entry };
}

describe('IoApic: registers', () => {
  it('has 24 masked entries after reset, and gives version, ID and arbitration ID', () => {
    const { read, write } = create({ id: 2 });
    expect(read(0)).toBe(0x0200_0000);
    expect(read(1)).toBe(0x0017_0020);
    for (let pin = 0; pin < IO_APIC_PINS; pin++)
      expect([read(0x10 + 2 * pin), read(0x11 + 2 * pin)]).toEqual([REDIRECTION_MASKED, 0]);
    write(0, 0xffff_ffff);
    expect([read(0), read(2)]).toEqual([0x0f00_0000, 0x0f00_0000]);
    write(1, 0);
    expect(read(1)).toBe(0x0017_0020);
    expect(create({ version: 0x11 }).read(1)).toBe(0x0017_0011);
  });

  it('reads indexes without a register as all ones and swallows their writes', () => {
    const { read, write } = create();
    for (const index of [3, 0x0f, 0x40, 0xff]) {
      write(index, 0);
      expect(read(index)).toBe(0xffff_ffff);
    }
  });

  it('keeps reserved and read-only bits of an entry from being written', () => {
    const { read, write, entry } = create();
    write(0x10, 0xffff_ffff);
    expect(entry(0)).toBe(0x0001_afff);
    write(0x11, 0xffff_ffff);
    expect(read(0x11)).toBe(0xff00_0000);
    const extended = create({ extendedDestinationId: true });
    extended.write(0x11, 0xffff_ffff);
    expect(extended.read(0x11)).toBe(0xfffe_0000);
  });

  it('gives bytes of the registers, extends narrow writes with zeros, and has nothing between the registers', () => {
    const { ioApic, entry } = create();
    ioApic.write(IOREGSEL, 1, 0x10);
    expect(ioApic.read(IOREGSEL, 1)).toBe(0x10);
    ioApic.write(IOWIN, 4, 0x0001_0951);
    expect([ioApic.read(IOWIN, 1), ioApic.read(IOWIN + 1, 1), ioApic.read(IOWIN + 2, 2)]).toEqual([0x51, 0x09, 0x0001]);
    ioApic.write(IOWIN + 4, 4, 0);
    expect(entry(0)).toBe(0x0001_0951);
    expect(ioApic.read(0x20, 4)).toBe(0);
  });
});

describe('IoApic: edges', () => {
  it('sends what the entry says, once for each edge', () => {
    const { ioApic, messages, route } = create();
    route(4, 0x34 | REDIRECTION_LOGICAL | (1 << 8), 0x0300_0000);
    ioApic.setPin(4, true);
    ioApic.setPin(4, true);
    expect(messages).toEqual([
      {
        vector: 0x34,
        deliveryMode: DeliveryMode.lowestPriority,
        destinationMode: 'logical',
        destination: 3,
        wide: false,
        shorthand: 'none',
        trigger: 'edge',
        assert: true,
        source: 'ioapic',
      },
    ]);
    ioApic.setPin(4, false);
    ioApic.setPin(4, true);
    expect(messages).toHaveLength(2);
  });

  it('loses an edge that comes while masked', () => {
    const { ioApic, messages, route } = create();
    ioApic.setPin(4, true);
    route(4, 0x34);
    expect(messages).toHaveLength(0);
  });

  it('sees the falling edge where the entry is active low', () => {
    const { ioApic, messages, route } = create();
    ioApic.setPin(4, true);
    route(4, 0x34 | REDIRECTION_ACTIVE_LOW);
    ioApic.setPin(4, false);
    expect(messages).toHaveLength(1);
    ioApic.setPin(4, true);
    expect(messages).toHaveLength(1);
  });

  it('has no remote IRR, and an EOI of its vector does nothing', () => {
    const { ioApic, messages, route, entry } = create();
    route(4, 0x34);
    ioApic.setPin(4, true);
    expect(entry(4)).toBe(0x34);
    ioApic.endOfInterrupt(0x34);
    expect(messages).toHaveLength(1);
  });

  it.each([
    ['SMI', DeliveryMode.smi],
    ['NMI', DeliveryMode.nmi],
    ['INIT', DeliveryMode.init],
    ['ExtINT', DeliveryMode.extInt],
  ])('%s is an edge even where the entry says level', (_name, deliveryMode) => {
    const { ioApic, messages, route, entry } = create();
    route(4, 0x34 | REDIRECTION_LEVEL | (deliveryMode << 8));
    ioApic.setPin(4, true);
    expect(messages).toMatchObject([{ deliveryMode, trigger: 'edge' }]);
    expect(entry(4) & REDIRECTION_REMOTE_IRR).toBe(0);
  });
});

describe('IoApic: levels', () => {
  it('sends once, sets remote IRR, and sends again after EOI while the line is asserted', () => {
    const { ioApic, messages, route, entry } = create();
    route(10, 0x3a | REDIRECTION_LEVEL);
    ioApic.setPin(10, true);
    expect(messages).toMatchObject([{ vector: 0x3a, trigger: 'level' }]);
    expect(entry(10) & REDIRECTION_REMOTE_IRR).not.toBe(0);
    ioApic.endOfInterrupt(0x3b);
    expect(messages).toHaveLength(1);
    ioApic.endOfInterrupt(0x3a);
    expect(messages).toHaveLength(2);
    ioApic.setPin(10, false);
    ioApic.endOfInterrupt(0x3a);
    expect(messages).toHaveLength(2);
    expect(entry(10) & REDIRECTION_REMOTE_IRR).toBe(0);
  });

  it('does not send while remote IRR is set, however the line moves', () => {
    const { ioApic, messages, route } = create();
    route(10, 0x3a | REDIRECTION_LEVEL);
    ioApic.setPin(10, true);
    ioApic.setPin(10, false);
    ioApic.setPin(10, true);
    expect(messages).toHaveLength(1);
  });

  it('sends when an asserted line is unmasked, and after EOI only once unmasked', () => {
    const { ioApic, messages, route } = create();
    ioApic.setPin(10, true);
    route(10, 0x3a | REDIRECTION_LEVEL | REDIRECTION_MASKED);
    expect(messages).toHaveLength(0);
    route(10, 0x3a | REDIRECTION_LEVEL);
    expect(messages).toHaveLength(1);
    route(10, 0x3a | REDIRECTION_LEVEL | REDIRECTION_MASKED);
    ioApic.endOfInterrupt(0x3a);
    expect(messages).toHaveLength(1);
    route(10, 0x3a | REDIRECTION_LEVEL);
    expect(messages).toHaveLength(2);
  });

  it('keeps remote IRR over writes of the entry, until it is made edge-triggered', () => {
    const { ioApic, messages, route, entry } = create({ version: 0x11 });
    route(10, 0x3a | REDIRECTION_LEVEL);
    ioApic.setPin(10, true);
    route(10, 0x4a | REDIRECTION_LEVEL);
    expect(entry(10) & REDIRECTION_REMOTE_IRR).not.toBe(0);
    // Linux's way to end an interrupt by hand on this version: mask and edge, then back.
    route(10, 0x4a | REDIRECTION_MASKED);
    expect(entry(10) & REDIRECTION_REMOTE_IRR).toBe(0);
    route(10, 0x4a | REDIRECTION_LEVEL);
    expect(messages).toHaveLength(2);
  });

  it('ends all entries of a vector', () => {
    const { ioApic, messages, route } = create();
    for (const pin of [10, 11]) {
      route(pin, 0x3a | REDIRECTION_LEVEL);
      ioApic.setPin(pin, true);
    }
    ioApic.endOfInterrupt(0x3a);
    expect(messages).toHaveLength(4);
  });

  it('leaves entries of other vectors in service', () => {
    const { ioApic, messages, route, entry } = create();
    for (const pin of [10, 11]) {
      route(pin, (0x30 + pin) | REDIRECTION_LEVEL);
      ioApic.setPin(pin, true);
    }
    ioApic.endOfInterrupt(0x3a);
    expect(messages.map(({ vector }) => vector)).toEqual([0x3a, 0x3b, 0x3a]);
    expect(entry(11) & REDIRECTION_REMOTE_IRR).not.toBe(0);
  });

  it('has an EOI register from version 0x20 on', () => {
    for (const [version, sent] of [
      [0x20, 2],
      [0x11, 1],
    ] as const) {
      const { ioApic, messages, route } = create({ version });
      route(10, 0x3a | REDIRECTION_LEVEL);
      ioApic.setPin(10, true);
      ioApic.write(EOI, 4, 0x3a);
      expect(messages).toHaveLength(sent);
    }
  });

  it('counts a merged request as accepted', () => {
    const { ioApic, answer, route, entry } = create();
    answer.value = 'coalesced';
    route(10, 0x3a | REDIRECTION_LEVEL);
    ioApic.setPin(10, true);
    expect(entry(10) & REDIRECTION_REMOTE_IRR).not.toBe(0);
  });

  it('keeps a level that nobody accepted pending, for a retry to deliver', () => {
    const { ioApic, messages, answer, route, entry } = create();
    answer.value = 'ignored';
    route(10, 0x3a | REDIRECTION_LEVEL);
    ioApic.setPin(10, true);
    expect(entry(10) & (REDIRECTION_DELIVERY_STATUS | REDIRECTION_REMOTE_IRR)).toBe(REDIRECTION_DELIVERY_STATUS);
    ioApic.retry();
    expect(messages).toHaveLength(2);
    answer.value = 'accepted';
    ioApic.retry();
    expect(entry(10) & (REDIRECTION_DELIVERY_STATUS | REDIRECTION_REMOTE_IRR)).toBe(REDIRECTION_REMOTE_IRR);
    ioApic.retry();
    expect(messages).toHaveLength(3);
  });

  it('forgets a level that went away before anybody accepted it', () => {
    const { ioApic, messages, answer, route, entry } = create();
    answer.value = 'ignored';
    route(10, 0x3a | REDIRECTION_LEVEL);
    ioApic.setPin(10, true);
    ioApic.setPin(10, false);
    expect(entry(10)).toBe(0x3a | REDIRECTION_LEVEL);
    ioApic.retry();
    expect(messages).toHaveLength(1);
  });
});

describe('IoApic: lines', () => {
  it('share a pin: it is asserted while any of them is', () => {
    const { ioApic, messages, route } = create();
    const first = ioApic.line(16, 'active-low');
    const second = ioApic.line(16, 'active-low');
    route(16, 0x3a | REDIRECTION_LEVEL | REDIRECTION_ACTIVE_LOW);
    expect(messages).toHaveLength(0);
    first.set(true);
    second.set(true);
    first.set(false);
    ioApic.endOfInterrupt(0x3a);
    expect(messages).toHaveLength(2);
    second.set(false);
    second.set(false);
    ioApic.endOfInterrupt(0x3a);
    expect(messages).toHaveLength(2);
  });

  it('keep their levels over a reset of the chip', () => {
    const { ioApic, messages, route } = create();
    const line = ioApic.line(5);
    line.set(true);
    ioApic.reset();
    route(5, 0x3a | REDIRECTION_LEVEL);
    expect(messages).toHaveLength(1);
  });
});

describe('IoApic: destinations of 15 bits', () => {
  it('adds bits 55 to 49 of the entry where they are offered', () => {
    for (const [extendedDestinationId, destination] of [
      [true, 0x0123],
      [false, 0x23],
    ] as const) {
      const { ioApic, messages, route } = create({ extendedDestinationId });
      route(4, 0x34, 0x2302_0000);
      ioApic.setPin(4, true);
      expect(messages).toMatchObject([{ destination, wide: extendedDestinationId }]);
    }
  });
});

describe('IoApic: what PV EOI asks', () => {
  it('finds vectors of level-triggered entries, masked or not, and those of tracked pins', () => {
    const { ioApic, route } = create();
    route(4, 0x34);
    route(10, 0x3a | REDIRECTION_LEVEL);
    route(11, 0x3b | REDIRECTION_LEVEL | REDIRECTION_MASKED);
    route(RTC_PIN, 0x38);
    const found = [0x34, 0x38, 0x3a, 0x3b, 0x3c].filter((vector) => ioApic.hasLevelVector(vector));
    expect(found).toEqual([0x38, 0x3a, 0x3b]);
    expect(create({ trackedPins: [] }).ioApic.hasLevelVector(0x38)).toBe(false);
  });

  it('forgets all vectors at reset', () => {
    const { ioApic, route, read } = create();
    route(10, 0x3a | REDIRECTION_LEVEL, 0x0100_0000);
    ioApic.reset();
    expect(read(0x25)).toBe(0);
    ioApic.reset();
    expect([ioApic.hasLevelVector(0x3a), ioApic.hasVector(0x3a), ioApic.read(IOREGSEL, 4)]).toEqual([false, false, 0]);
  });

  it('forgets a vector when its entry changes', () => {
    const { ioApic, route } = create();
    route(10, 0x3a | REDIRECTION_LEVEL);
    route(10, 0x4a | REDIRECTION_LEVEL);
    expect([ioApic.hasLevelVector(0x3a), ioApic.hasLevelVector(0x4a)]).toEqual([false, true]);
    route(10, 0x4a);
    expect([ioApic.hasLevelVector(0x4a), ioApic.hasVector(0x4a)]).toEqual([false, true]);
  });

  it('leaves out entries for other CPUs', () => {
    const { ioApic, route } = create();
    route(10, 0x3a | REDIRECTION_LEVEL, 0x0100_0000);
    expect(ioApic.hasLevelVector(0x3a, (destination) => destination === 1)).toBe(true);
    expect(ioApic.hasLevelVector(0x3a, (destination) => destination === 2)).toBe(false);
  });

  it("finds every entry's vector by the rule of Linux 3.6", () => {
    const { ioApic, route } = create();
    route(4, 0x34 | REDIRECTION_MASKED);
    expect([ioApic.hasVector(0x34), ioApic.hasVector(0x35)]).toEqual([true, false]);
  });
});
