import { beforeEach, expect, it } from 'vitest';
import { Bus } from '../memory/bus.ts';
import { attachTestDevice, BYTE_LATCH_PORT, LATCH_PORT, LINES_PORT, TEST_MMIO_BASE, TEST_MMIO_BYTES } from './test-device.ts';

let ports: Bus;
let mmio: Bus;
let events: [line: number, asserted: boolean][];

beforeEach(() => {
  ports = new Bus('ports');
  mmio = new Bus('MMIO');
  events = [];
  attachTestDevice(
    ports,
    mmio,
    Array.from({ length: 24 }, (_, line) => ({ set: (asserted: boolean) => void events.push([line, asserted]) })),
  );
});

it('the latch keeps a double word and gives back each part of it', () => {
  ports.write(LATCH_PORT, 4, 0x8765_4321);
  expect([ports.read(LATCH_PORT, 4), ports.read(LATCH_PORT + 1, 2), ports.read(LATCH_PORT + 3, 1)]).toEqual([
    0x8765_4321, 0x6543, 0x87,
  ]);
  ports.write(LATCH_PORT + 1, 1, 0xff);
  expect(ports.read(LATCH_PORT, 4)).toBe(0x8765_ff21);
});

it('the byte latch keeps a byte', () => {
  ports.write(BYTE_LATCH_PORT, 1, 0xa5);
  expect(ports.read(BYTE_LATCH_PORT, 1)).toBe(0xa5);
});

it('each line follows its port, whatever the width', () => {
  ports.write(LINES_PORT + 5, 1, 1);
  ports.write(LINES_PORT + 23, 4, 1);
  ports.write(LINES_PORT + 5, 4, 0);
  expect(events).toEqual([
    [5, true],
    [23, true],
    [5, false],
  ]);
  expect([ports.read(LINES_PORT + 5, 1), ports.read(LINES_PORT + 23, 1)]).toEqual([0, 1]);
});

it('MMIO behaves like RAM up to its last byte', () => {
  mmio.write(TEST_MMIO_BASE, 2, 0x1234);
  mmio.write(TEST_MMIO_BASE + TEST_MMIO_BYTES - 4, 4, 0xdead_beef);
  expect([mmio.read(TEST_MMIO_BASE, 1), mmio.read(TEST_MMIO_BASE + TEST_MMIO_BYTES - 2, 2)]).toEqual([0x34, 0xdead]);
});
