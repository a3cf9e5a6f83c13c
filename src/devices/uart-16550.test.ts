import { beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from './clock.ts';
import { ModemInput, Uart16550, type Uart16550Options } from './uart-16550.ts';

const [DATA, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR] = [0, 1, 2, 2, 3, 4, 5, 6, 7];
const NO_INTERRUPT = 0x01;
const THRI = 0x02;
const CHARACTER_115200 = (10 * 1e9) / 115_200;

let clock: ManualClock;
let sent: number[];
let level: boolean;
let rises: number;
let uart: Uart16550;

function build(options: Partial<Uart16550Options> = {}): void {
  clock = new ManualClock();
  sent = [];
  level = false;
  rises = 0;
  const set = (asserted: boolean) => {
    if (asserted && !level) rises++;
    level = asserted;
  };
  uart = new Uart16550({ clock, line: { set }, onTransmit: (byte) => sent.push(byte), ...options });
}

const read = (register: number) => uart.read(register, 1);
const write = (register: number, value: number) => uart.write(register, 1, value);
const text = (characters: string) => Uint8Array.from(characters, (c) => c.charCodeAt(0));

function program115200(): void {
  write(LCR, 0x83);
  write(DATA, 1);
  write(IER, 0);
  write(LCR, 0x03);
}

beforeEach(() => build());

describe('how Linux tells a 16550A', () => {
  it('keeps only the low four bits of IER', () => {
    write(IER, 0);
    expect(read(IER) & 0x0f).toBe(0);
    write(IER, 0xff);
    expect(read(IER)).toBe(0x0f);
  });

  it('loops RTS and OUT2 back to CTS and DCD', () => {
    write(MCR, 0x1a);
    expect(read(MSR) & 0xf0).toBe(0x90);
    write(MCR, 0x15);
    expect(read(MSR) & 0xf0).toBe(0x60);
  });

  it('shows enabled FIFOs in IIR, and neither a 64-byte FIFO nor an EFR', () => {
    expect(read(IIR)).toBe(NO_INTERRUPT);
    write(FCR, 0x01);
    expect(read(IIR)).toBe(0xc1);
    write(LCR, 0xbf);
    expect(read(IIR)).toBe(0xc1);
    write(FCR, 0x21);
    write(LCR, 0x80);
    write(FCR, 0x21);
    expect(read(IIR) >> 5).toBe(6);
    write(LCR, 0xe0);
    write(MCR, 0x10);
    expect(read(IIR) & 0x10).toBe(0);
  });

  it('has a scratch register and a divisor latch apart from IER', () => {
    write(SCR, 0xa5);
    write(IER, 0x05);
    write(LCR, 0x83);
    write(DATA, 0x34);
    write(IER, 0x12);
    expect([read(DATA), read(IER), read(SCR)]).toEqual([0x34, 0x12, 0xa5]);
    write(LCR, 0x03);
    expect(read(IER)).toBe(0x05);
  });

  it('passes the THRE test: enabling the interrupt with THR empty raises it every time', () => {
    write(IER, THRI);
    expect(read(IIR)).toBe(THRI);
    write(IER, 0);
    write(IER, THRI);
    expect(read(IIR)).toBe(THRI);
    expect(read(IIR)).toBe(NO_INTERRUPT);
    expect(rises).toBe(2);
  });

  it('splits a wide access into bytes', () => {
    write(SCR, 0x77);
    expect(uart.read(LCR, 4)).toBe(0xb0_60_00_03); // LCR, MCR, LSR, MSR
    uart.write(DATA, 2, 0x0541);
    expect(sent).toEqual([0x41]);
    expect(read(IER)).toBe(0x05);
  });
});

describe('instant transmission', () => {
  it('sends at once and is empty again', () => {
    write(DATA, 0x68);
    write(DATA, 0x69);
    expect(sent).toEqual([0x68, 0x69]);
    expect(read(LSR)).toBe(0x60);
  });

  it('gives a new THRE edge for each character written', () => {
    write(IER, THRI);
    expect(rises).toBe(1);
    write(DATA, 0x41);
    expect(rises).toBe(2);
    expect(read(IIR)).toBe(THRI);
    expect(level).toBe(false);
    write(DATA, 0x42);
    expect(level).toBe(true);
    write(IER, 0);
    expect(level).toBe(false);
  });

  it('sends as many bits as the format has', () => {
    write(LCR, 0x02); // seven bits
    write(DATA, 0xc1);
    expect(sent).toEqual([0x41]);
  });
});

describe('transmission paced by baud', () => {
  beforeEach(() => {
    build({ pacing: 'baud' });
    program115200();
    write(FCR, 0x01);
  });

  it('takes ten bits of guest time a character', () => {
    write(DATA, 0x41);
    expect(read(LSR)).toBe(0x20); // FIFO empty, shift register busy
    clock.advanceTo(CHARACTER_115200 - 1);
    expect(sent).toEqual([]);
    clock.advanceTo(CHARACTER_115200);
    expect(sent).toEqual([0x41]);
    expect(read(LSR)).toBe(0x60);
  });

  it('raises one THRE interrupt for a burst, when its last byte enters the shift register', () => {
    write(IER, THRI);
    read(IIR);
    rises = 0;
    for (let i = 0; i < 16; i++) write(DATA, i);
    expect(level).toBe(false);
    clock.advanceTo(14.5 * CHARACTER_115200);
    expect(level).toBe(false);
    clock.advanceTo(15.1 * CHARACTER_115200);
    expect(level).toBe(true);
    expect(sent).toHaveLength(15);
    clock.advanceTo(20 * CHARACTER_115200);
    expect(sent).toEqual(Array.from({ length: 16 }, (_, i) => i));
    expect(rises).toBe(1);
  });

  it('delays the THRE interrupt of a single byte by a character', () => {
    write(IER, THRI);
    read(IIR);
    write(DATA, 0x41);
    clock.advanceTo(0.9 * CHARACTER_115200);
    expect(level).toBe(false);
    clock.advanceTo(CHARACTER_115200);
    expect(level).toBe(true);
  });

  it('loses what a full FIFO cannot take', () => {
    for (let i = 0; i < 18; i++) write(DATA, i); // one in the shift register, sixteen in the FIFO
    clock.advanceTo(1e9);
    expect(sent).toEqual(Array.from({ length: 17 }, (_, i) => i));
  });

  it('drops waiting characters when the transmit FIFO is cleared, but not the one on the wire', () => {
    write(DATA, 1);
    write(DATA, 2);
    write(FCR, 0x05);
    clock.advanceTo(1e9);
    expect(sent).toEqual([1]);
  });

  it('receives at the same pace', () => {
    uart.receive(text('ab'));
    expect(read(LSR) & 1).toBe(0);
    clock.advanceTo(CHARACTER_115200);
    expect(read(LSR) & 1).toBe(1);
    clock.advanceTo(2 * CHARACTER_115200);
    expect([read(DATA), read(DATA), read(LSR) & 1]).toEqual([0x61, 0x62, 0]);
  });
});

describe('reception', () => {
  it('holds one character without FIFO; the rest waits at the host', () => {
    uart.receive(text('abc'));
    expect(uart.inputPending).toBe(3);
    expect([read(DATA), read(DATA), read(DATA)]).toEqual([0x61, 0x62, 0x63]);
    expect(uart.inputPending).toBe(0);
    expect(read(LSR) & 0x03).toBe(0);
  });

  it('loses nothing of an input far larger than the FIFO', () => {
    write(FCR, 0xc1);
    const input = Uint8Array.from({ length: 1000 }, (_, i) => i);
    for (let i = 0; i < input.length; i += 100) uart.receive(input.subarray(i, i + 100));
    const got: number[] = [];
    while (read(LSR) & 1) got.push(read(DATA));
    expect(Uint8Array.from(got)).toEqual(input);
  });

  it('interrupts at the trigger level and stops below it', () => {
    write(FCR, 0x81); // 8 characters
    write(IER, 0x01);
    uart.receive(text('1234567'));
    expect(level).toBe(false);
    uart.receive(text('8'));
    expect(level).toBe(true);
    expect(read(IIR)).toBe(0xc4);
    read(DATA);
    expect(level).toBe(false);
  });

  it('tells of characters below the trigger level after four character times of silence', () => {
    program115200();
    write(FCR, 0x81);
    write(IER, 0x01);
    uart.receive(text('x'));
    clock.advanceTo(3.9 * CHARACTER_115200);
    expect(level).toBe(false);
    clock.advanceTo(4 * CHARACTER_115200);
    expect(read(IIR)).toBe(0xcc);
    expect(level).toBe(true);
    expect(read(DATA)).toBe(0x78);
    expect(level).toBe(false);
    clock.advanceTo(1e9);
    expect(read(IIR)).toBe(0xc1);
  });

  it('starts the timeout anew with each character', () => {
    program115200();
    write(FCR, 0x81);
    write(IER, 0x01);
    uart.receive(text('x'));
    clock.advanceTo(3 * CHARACTER_115200);
    uart.receive(text('y'));
    clock.advanceTo(6 * CHARACTER_115200);
    expect(level).toBe(false);
    clock.advanceTo(7 * CHARACTER_115200);
    expect(level).toBe(true);
  });

  it('keeps input from a guest that holds RTS low, where asked to', () => {
    build({ waitForRts: true });
    uart.receive(text('a'));
    expect(read(LSR) & 1).toBe(0);
    write(MCR, 0x02);
    expect(read(DATA)).toBe(0x61);
  });

  it('marks a break in LSR as a line status interrupt, above all others', () => {
    write(FCR, 0x01);
    write(IER, 0x07);
    uart.receive(text('a'));
    uart.receiveBreak();
    expect(read(IIR)).toBe(0xc4); // the break is behind the a
    expect(read(LSR)).toBe(0xe1); // but the FIFO holds an error
    read(DATA);
    expect(read(IIR)).toBe(0xc6);
    expect(read(LSR)).toBe(0x71 | 0x80);
    expect(read(LSR)).toBe(0x61);
    expect(read(DATA)).toBe(0);
  });

  it('forgets the FIFO when it is cleared or switched', () => {
    write(FCR, 0x01);
    uart.receive(text('abc'));
    write(FCR, 0x03);
    expect(read(LSR) & 1).toBe(0);
    uart.receive(text('d'));
    write(FCR, 0x00);
    expect(read(LSR) & 1).toBe(0);
  });
});

describe('interrupts', () => {
  it('come in the order line status, data, THRE, modem status', () => {
    write(IER, 0x0f);
    uart.receiveBreak();
    uart.setModemInputs(ModemInput.clearToSend);
    expect(read(IIR)).toBe(0x06);
    read(LSR);
    expect(read(IIR)).toBe(0x04);
    read(DATA);
    expect(read(IIR)).toBe(0x02);
    expect(read(IIR)).toBe(0x00);
    expect(read(MSR)).toBe(0x1a);
    expect(read(IIR)).toBe(0x01);
    expect(read(MSR)).toBe(0x10);
    expect(level).toBe(false);
  });

  it('a THRE event hidden behind another survives reading IIR', () => {
    write(IER, 0x03);
    uart.receive(text('a'));
    expect(read(IIR)).toBe(0x04);
    read(DATA);
    expect(read(IIR)).toBe(THRI);
  });

  it('count the ring indicator only when it ends', () => {
    uart.setModemInputs(ModemInput.ringIndicator);
    read(MSR);
    uart.setModemInputs(0);
    expect(read(MSR)).toBe(0x04);
    uart.setModemInputs(ModemInput.ringIndicator);
    expect(read(MSR)).toBe(0x40);
  });
});

describe('loopback', () => {
  it('returns what is sent, sends nothing out, and keeps host input waiting', () => {
    write(MCR, 0x10);
    uart.receive(text('z'));
    write(DATA, 0x55);
    expect(sent).toEqual([]);
    expect(read(DATA)).toBe(0x55);
    expect(read(LSR) & 1).toBe(0);
    write(MCR, 0x00);
    expect(read(DATA)).toBe(0x7a);
  });

  it('overruns like a wire', () => {
    write(MCR, 0x10);
    write(DATA, 1);
    write(DATA, 2);
    expect(read(LSR)).toBe(0x63);
    expect(read(DATA)).toBe(2);
    write(FCR, 0x01);
    for (let i = 0; i < 17; i++) write(DATA, i);
    expect(read(LSR) & 0x02).toBe(0x02);
    expect(Array.from({ length: 16 }, () => read(DATA))).toEqual(Array.from({ length: 16 }, (_, i) => i));
  });
});
