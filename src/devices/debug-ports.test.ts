import { expect, it } from 'vitest';
import { A20Gate } from './a20-gate.ts';
import { DEBUG_EXIT_PORT, DebugConsole, DebugExit, EXIT_STATUS_PORT, PostCodePort, SystemControlPortA } from './debug-ports.ts';

it('the POST code is the last byte written', () => {
  const port = new PostCodePort();
  port.write(0, 1, 0x12);
  port.write(0, 1, 0xff);
  expect([port.code, port.read(0, 1)]).toEqual([0xff, 0xff]);
});

it('the debug console passes bytes on and says that it is there', () => {
  const bytes: number[] = [];
  const port = new DebugConsole((byte) => bytes.push(byte));
  for (const letter of 'ok') port.write(0, 1, letter.charCodeAt(0));
  expect(bytes).toEqual([0x6f, 0x6b]);
  expect(port.read(0, 1)).toBe(0xe9);
});

it('port 0x92 moves the A20 gate and shows where others moved it', () => {
  const seen: boolean[] = [];
  const a20 = new A20Gate((enabled) => seen.push(enabled));
  const port = new SystemControlPortA(a20, () => {});
  expect(port.read(0, 1)).toBe(0x02);
  port.write(0, 1, 0x00);
  expect(a20.enabled).toBe(false);
  a20.set(true);
  expect(port.read(0, 1)).toBe(0x02);
  expect(seen).toEqual([false, true]);
});

it('port 0x92 resets when bit 0 rises', () => {
  let resets = 0;
  const port = new SystemControlPortA(new A20Gate(), () => resets++);
  port.write(0, 1, 0x02);
  port.write(0, 1, 0x03);
  port.write(0, 1, 0x03);
  expect(resets).toBe(1);
});

it('isa-debug-exit ends the run with the code, odd as an exit status, or with the status that is written beside it', () => {
  const statuses: number[] = [];
  const port = new DebugExit((status) => statuses.push(status));
  port.write(0, 4, 0);
  port.write(0, 1, 0x10);
  port.write(EXIT_STATUS_PORT - DEBUG_EXIT_PORT, 1, 0);
  port.write(EXIT_STATUS_PORT - DEBUG_EXIT_PORT, 1, 42);
  expect(statuses).toEqual([1, 0x21, 0, 42]);
});
