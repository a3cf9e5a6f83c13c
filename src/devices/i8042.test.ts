import { beforeEach, describe, expect, it } from 'vitest';
import { A20Gate } from './a20-gate.ts';
import { I8042 } from './i8042.ts';

const [FULL, AUXILIARY] = [0x01, 0x20];

let controller: I8042;
let a20: A20Gate;
let resets: number;
let irq1: boolean;
let irq12: boolean;
let irq1Rises: number;

beforeEach(() => {
  resets = irq1Rises = 0;
  irq1 = irq12 = false;
  a20 = new A20Gate();
  controller = new I8042({
    keyboardLine: {
      set: (asserted) => {
        irq1 = asserted;
        if (asserted) irq1Rises++;
      },
    },
    auxiliaryLine: {
      set: (asserted) => {
        irq12 = asserted;
      },
    },
    a20,
    onReset: () => resets++,
  });
});

const status = () => controller.commandPort.read(0, 1);
const command = (value: number) => controller.commandPort.write(0, 1, value);
const send = (value: number) => controller.dataPort.write(0, 1, value);
const take = () => {
  expect(status() & FULL).toBe(FULL);
  return controller.dataPort.read(0, 1);
};
const drain = () => {
  const bytes: number[] = [];
  while (status() & FULL) bytes.push(controller.dataPort.read(0, 1));
  return bytes;
};
const ask = (value: number) => {
  command(value);
  return take();
};
const setCommandByte = (value: number) => {
  command(0x60);
  send(value);
};

describe("Linux's probe", () => {
  it('finds nothing to flush, an unlocked keyboard, and a command byte that can be changed', () => {
    expect(status()).toBe(0x14);
    const initial = ask(0x20);
    setCommandByte((initial | 0x10) & ~0x01);
    expect(ask(0x20)).toBe((initial | 0x10) & ~0x01);
  });

  it('passes the self-test and both port tests', () => {
    expect(ask(0xaa)).toBe(0x55);
    expect(ask(0xa9)).toBe(0x00);
    expect(ask(0xab)).toBe(0x00);
  });

  it('loops bytes through the auxiliary port unchanged: there is a port and no multiplexer', () => {
    for (const byte of [0x5a, 0xf0, 0x56, 0xa4]) {
      command(0xd3);
      send(byte);
      expect(status() & (FULL | AUXILIARY)).toBe(FULL | AUXILIARY);
      expect(take()).toBe(byte);
    }
  });

  it('switches the auxiliary port on and off in the command byte', () => {
    command(0xa7);
    expect(ask(0x20) & 0x20).toBe(0x20);
    command(0xa8);
    expect(ask(0x20) & 0x20).toBe(0);
  });

  it('delivers IRQ 12 for a looped byte', () => {
    setCommandByte(0x46);
    command(0xd3);
    send(0xa5);
    expect([irq1, irq12]).toEqual([false, true]);
    take();
    expect(irq12).toBe(false);
  });
});

describe('the keyboard', () => {
  it('answers reset and identify, through the translation table', () => {
    send(0xff);
    expect(drain()).toEqual([0xfa, 0xaa]);
    send(0xf2);
    expect(drain()).toEqual([0xfa, 0xab, 0x41]);
    setCommandByte(0x05);
    send(0xf2);
    expect(drain()).toEqual([0xfa, 0xab, 0x83]);
  });

  it('raises IRQ 1 anew for each byte', () => {
    send(0xff);
    expect(irq1).toBe(true);
    take();
    expect([irq1, irq1Rises]).toEqual([true, 2]);
    take();
    expect(irq1).toBe(false);
  });

  it('takes parameters and refuses what it does not know', () => {
    send(0xed);
    send(0x02);
    expect(drain()).toEqual([0xfa, 0xfa]);
    expect(controller.keyboard.leds).toBe(2);
    send(0xf0);
    send(0x00);
    expect(drain()).toEqual([0xfa, 0xfa, 0x41]); // set 2, translated
    send(0xf0);
    send(0x03);
    expect(drain()).toEqual([0xfa, 0xfe]);
    send(0x12);
    expect(drain()).toEqual([0xfe]);
    send(0xee);
    expect(drain()).toEqual([0xee]);
  });

  it('translates make and break codes to set 1', () => {
    controller.keyboard.type([0x1c, 0xf0, 0x1c, 0xe0, 0x75, 0xe0, 0xf0, 0x75]);
    expect(drain()).toEqual([0x1e, 0x9e, 0xe0, 0x48, 0xe0, 0xc8]);
    setCommandByte(0x05);
    controller.keyboard.type([0x1c, 0xf0, 0x1c]);
    expect(drain()).toEqual([0x1c, 0xf0, 0x1c]);
  });

  it('waits while its port is disabled, and drops keys while scanning is off', () => {
    command(0xad);
    controller.keyboard.type([0x1c]);
    expect(status() & FULL).toBe(0);
    command(0xae);
    expect(drain()).toEqual([0x1e]);
    send(0xf5);
    drain();
    controller.keyboard.type([0x1c]);
    expect(drain()).toEqual([]);
    send(0xf4);
    controller.keyboard.type([0x1c]);
    expect(drain()).toEqual([0xfa, 0x1e]);
  });

  it('reports an overrun once', () => {
    setCommandByte(0x05);
    for (let i = 0; i < 40; i++) controller.keyboard.type([0x1c]);
    const keys = drain();
    expect(keys.length).toBeLessThan(20);
    expect(keys.filter((key) => key === 0)).toHaveLength(1);
  });
});

describe('the mouse', () => {
  const mouse = (...bytes: number[]) => {
    const answers: number[] = [];
    for (const byte of bytes) {
      command(0xd4);
      send(byte);
      while (status() & FULL) {
        expect(status() & AUXILIARY).toBe(AUXILIARY);
        answers.push(take());
      }
    }
    return answers;
  };

  it('answers reset and identify, and stays a plain one when asked for its wheel', () => {
    expect(mouse(0xff)).toEqual([0xfa, 0xaa, 0x00]);
    expect(mouse(0xf3, 200, 0xf3, 100, 0xf3, 80)).toEqual([0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa]);
    expect(mouse(0xf2)).toEqual([0xfa, 0x00]);
  });

  it('reports movement once it may', () => {
    controller.mouse.move(5, -3, 1);
    expect(mouse(0xf4)).toEqual([0xfa]);
    controller.mouse.move(5, -3, 1);
    expect(drain()).toEqual([0x29, 5, 0xfd]);
    expect(mouse(0xe9)).toEqual([0xfa, 0x21, 2, 100]);
    controller.mouse.move(1000, 0, 0);
    expect(drain()).toEqual([0x48, 0xff, 0]);
  });
});

describe('the output port', () => {
  it('pulses reset on 0xFE and only there', () => {
    command(0xff);
    expect(resets).toBe(0);
    command(0xfe);
    expect(resets).toBe(1);
    command(0xd1);
    send(0x02);
    expect(resets).toBe(2);
  });

  it('moves the A20 gate', () => {
    command(0xd1);
    send(0x01);
    expect(a20.enabled).toBe(false);
    expect(ask(0xd0) & 0x03).toBe(0x01);
    command(0xdf);
    expect(a20.enabled).toBe(true);
    expect(ask(0xd0) & 0x03).toBe(0x03);
    command(0xdd);
    expect(a20.enabled).toBe(false);
  });
});

it('a guest that asks and never reads is given no more than fits', () => {
  for (let i = 0; i < 10_000; i++) {
    command(0x20);
    send(0xee);
    command(0xd4);
    send(0xf2);
  }
  expect(drain().length).toBeLessThan(200);
  expect(ask(0xaa)).toBe(0x55);
});
