import { beforeEach, expect, it } from 'vitest';
import { COBALT_8259_ENTRY, COBALT_APIC_ENABLE, COBALT_APIC_ID, COBALT_ENTRY_SHIFT, CobaltApic } from './cobalt-apic.ts';
import { REDIRECTION_LEVEL, REDIRECTION_MASKED, REDIRECTION_REMOTE_IRR } from './io-apic.ts';
import type { InterruptMessage } from './message.ts';

const LOW = COBALT_8259_ENTRY << COBALT_ENTRY_SHIFT;
const HIGH = LOW + 4;
const VECTOR = 0x31;
let sent: InterruptMessage[];
let cobalt: CobaltApic;

beforeEach(() => {
  sent = [];
  cobalt = new CobaltApic((message) => {
    sent.push(message);
    return 'accepted';
  });
});

it('has its entries in memory, 16 bytes apart, masked at first', () => {
  expect(cobalt.read(LOW, 4)).toBe(REDIRECTION_MASKED);
  cobalt.write(HIGH, 4, 0x0200_0000);
  cobalt.write(LOW, 4, REDIRECTION_LEVEL | VECTOR);
  expect([cobalt.read(LOW, 4), cobalt.read(HIGH, 4)]).toEqual([REDIRECTION_LEVEL | VECTOR, 0x0200_0000]);
  expect(cobalt.read(LOW + (1 << COBALT_ENTRY_SHIFT), 4)).toBe(REDIRECTION_MASKED);
});

it('sends nothing until it is enabled, and then what is asserted', () => {
  cobalt.write(LOW, 4, REDIRECTION_LEVEL | VECTOR);
  cobalt.write(HIGH, 4, 0x0200_0000);
  cobalt.line(COBALT_8259_ENTRY).set(true);
  expect(sent).toEqual([]);
  cobalt.write(COBALT_APIC_ID, 4, COBALT_APIC_ENABLE);
  expect(sent).toMatchObject([
    { vector: VECTOR, destination: 2, destinationMode: 'physical', trigger: 'level', source: 'ioapic' },
  ]);
  expect(cobalt.read(COBALT_APIC_ID, 4)).toBe(COBALT_APIC_ENABLE);
});

it('sends again at the EOI while the input is high, unless it was masked: how Linux acknowledges', () => {
  cobalt.write(COBALT_APIC_ID, 4, COBALT_APIC_ENABLE);
  cobalt.write(LOW, 4, REDIRECTION_LEVEL | VECTOR);
  cobalt.line(COBALT_8259_ENTRY).set(true);
  expect(cobalt.read(LOW, 4) & REDIRECTION_REMOTE_IRR).not.toBe(0);
  cobalt.write(LOW, 4, REDIRECTION_LEVEL | VECTOR | REDIRECTION_MASKED);
  cobalt.entries.endOfInterrupt(VECTOR);
  expect(sent).toHaveLength(1);
  cobalt.write(LOW, 4, REDIRECTION_LEVEL | VECTOR);
  expect(sent).toHaveLength(2);
});

it('ignores what is no register, and parts of one', () => {
  cobalt.write(LOW + 8, 4, VECTOR);
  cobalt.write(LOW, 2, VECTOR);
  cobalt.write(24 << COBALT_ENTRY_SHIFT, 4, VECTOR);
  expect([cobalt.read(LOW, 4), cobalt.read(LOW, 1), cobalt.read(LOW + 8, 4), cobalt.read(24 << COBALT_ENTRY_SHIFT, 4)]).toEqual([
    REDIRECTION_MASKED,
    0,
    0,
    0,
  ]);
});
