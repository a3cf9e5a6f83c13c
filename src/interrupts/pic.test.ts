import { beforeEach, describe, expect, it } from 'vitest';
import { Pic } from './pic.ts';

const COMMAND = 0;
const DATA = 1;
const EOI = 0x20;

let pic: Pic;
let outputs: boolean[];

beforeEach(() => {
  pic = new Pic();
  outputs = [];
  pic.onOutput = (high) => outputs.push(high);
  initialise(0x01, 0x01);
});

/** As Linux and firmware do: vectors 0x30 and 0x38, everything unmasked. */
function initialise(masterIcw4: number, slaveIcw4: number): void {
  for (const [chip, words] of [
    ['master', [0x11, 0x30, 0x04, masterIcw4]],
    ['slave', [0x11, 0x38, 0x02, slaveIcw4]],
  ] as const) {
    pic[chip].write(COMMAND, 1, words[0]);
    for (const word of words.slice(1)) pic[chip].write(DATA, 1, word);
  }
}

const command = (chip: 'master' | 'slave', value: number) => pic[chip].write(COMMAND, 1, value);
const mask = (chip: 'master' | 'slave', value: number) => pic[chip].write(DATA, 1, value);

function registers(chip: 'master' | 'slave'): { irr: number; isr: number } {
  command(chip, 0x0a);
  const irr = pic[chip].read(COMMAND, 1);
  command(chip, 0x0b);
  return { irr, isr: pic[chip].read(COMMAND, 1) };
}

describe('Pic: requests', () => {
  it('raises INTR for an edge, puts it in service at INTA, and lowers INTR', () => {
    pic.setIrq(4, true);
    expect(pic.output).toBe(true);
    expect(registers('master')).toEqual({ irr: 0x10, isr: 0 });
    expect(pic.acknowledge()).toBe(0x34);
    expect(registers('master')).toEqual({ irr: 0, isr: 0x10 });
    expect(outputs).toEqual([true, false]);
  });

  it.each([0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])('IRQ %i raises INTR and gives its vector', (irq) => {
    pic.line(irq).set(true);
    expect(outputs).toEqual([true]);
    expect(pic.acknowledge()).toBe(0x30 + irq);
  });

  it('needs a new edge for a new interrupt', () => {
    pic.setIrq(4, true);
    pic.acknowledge();
    command('master', EOI);
    expect(pic.output).toBe(false);
    pic.setIrq(4, false);
    pic.setIrq(4, true);
    expect(pic.output).toBe(true);
  });

  it('repeats a level-triggered line while it is asserted', () => {
    pic.elcr.write(1, 1, 0xff);
    expect(pic.elcr.read(1, 1)).toBe(0xde);
    pic.setIrq(10, true);
    expect(pic.acknowledge()).toBe(0x3a);
    command('slave', EOI);
    command('master', EOI);
    expect(pic.output).toBe(true);
    expect(pic.acknowledge()).toBe(0x3a);
    pic.setIrq(10, false);
    command('slave', EOI);
    command('master', EOI);
    expect(pic.output).toBe(false);
  });

  it('a high line that becomes level-triggered asks at once', () => {
    pic.setIrq(5, true);
    pic.acknowledge();
    command('master', EOI);
    expect(pic.output).toBe(false);
    pic.elcr.write(0, 1, 0x20);
    expect(pic.output).toBe(true);
  });

  it('leaves the timer, keyboard, cascade, RTC and FPU edge-triggered whatever ELCR is told', () => {
    pic.elcr.write(0, 1, 0xff);
    pic.elcr.write(1, 1, 0xff);
    expect([pic.elcr.read(0, 1), pic.elcr.read(1, 1)]).toEqual([0xf8, 0xde]);
  });

  it('holds masked requests back until they are unmasked', () => {
    mask('master', 0x10);
    pic.setIrq(4, true);
    expect(pic.output).toBe(false);
    expect(pic.master.read(DATA, 1)).toBe(0x10);
    mask('master', 0);
    expect(pic.output).toBe(true);
  });

  it('lets a higher priority interrupt a handler and a lower one wait', () => {
    pic.setIrq(4, true);
    pic.acknowledge();
    pic.setIrq(5, true);
    expect(pic.output).toBe(false);
    pic.setIrq(1, true);
    expect(pic.acknowledge()).toBe(0x31);
    expect(registers('master').isr).toBe(0x12);
    command('master', EOI);
    expect(registers('master').isr, 'EOI ends the higher one').toBe(0x10);
    command('master', EOI);
    expect(pic.acknowledge()).toBe(0x35);
  });

  it('has no device on the cascade', () => {
    for (const irq of [-1, 2, 16]) expect(() => pic.line(irq)).toThrow(RangeError);
    pic.line(8).set(true);
    expect(pic.acknowledge()).toBe(0x38);
  });
});

describe('Pic: the cascade', () => {
  it('puts the request in service on both chips, and needs an EOI for each', () => {
    pic.setIrq(12, true);
    expect(pic.acknowledge()).toBe(0x3c);
    expect([registers('master').isr, registers('slave').isr]).toEqual([0x04, 0x10]);
    pic.setIrq(9, true);
    expect(pic.output, 'the master does not nest its slave').toBe(false);
    command('master', EOI);
    expect(pic.output).toBe(true);
    expect(pic.acknowledge()).toBe(0x39);
    command('slave', EOI);
    expect(registers('slave').isr).toBe(0x10);
  });

  it('asks again when the slave has more', () => {
    pic.setIrq(9, true);
    pic.setIrq(8, true);
    expect(pic.acknowledge()).toBe(0x38);
    command('slave', EOI);
    command('master', EOI);
    expect(pic.acknowledge()).toBe(0x39);
  });

  it('special fully nested mode lets a higher priority of the slave through, and nothing lower', () => {
    initialise(0x11, 0x01);
    pic.setIrq(12, true);
    pic.acknowledge();
    pic.setIrq(4, true);
    expect(pic.output).toBe(false);
    pic.setIrq(9, true);
    expect(pic.acknowledge()).toBe(0x39);
  });

  it('ranks the slave between IRQ 1 and IRQ 3', () => {
    for (const irq of [3, 8, 1]) pic.setIrq(irq, true);
    const order = [];
    for (let count = 0; count < 3; count++) {
      const vector = pic.acknowledge();
      order.push(vector);
      if (vector >= 0x38) command('slave', EOI);
      command('master', EOI);
    }
    expect(order).toEqual([0x31, 0x38, 0x33]);
  });
});

describe('Pic: spurious interrupts', () => {
  it('answers IRQ 7, not in service, when the request is gone at INTA', () => {
    pic.setIrq(4, true);
    pic.setIrq(4, false);
    expect(outputs).toEqual([true, false]);
    expect(pic.acknowledge()).toBe(0x37);
    expect(registers('master')).toEqual({ irr: 0, isr: 0 });
  });

  it('answers IRQ 15 when the slave withdrew: in service on the master alone', () => {
    pic.setIrq(12, true);
    pic.setIrq(12, false);
    expect(pic.output).toBe(true);
    expect(pic.acknowledge()).toBe(0x3f);
    expect([registers('master').isr, registers('slave').isr]).toEqual([0x04, 0]);
  });

  it('a real IRQ 7 is told from a spurious one by ISR', () => {
    pic.setIrq(7, true);
    expect(pic.acknowledge()).toBe(0x37);
    expect(registers('master').isr).toBe(0x80);
  });
});

describe('Pic: initialisation', () => {
  it('takes ICW4 only where ICW1 announces it, ICW3 only in a cascade', () => {
    command('master', 0x10);
    mask('master', 0x40);
    mask('master', 0x04);
    mask('master', 0xfe);
    expect(pic.master.read(DATA, 1)).toBe(0xfe);
    command('master', 0x12);
    mask('master', 0x50);
    mask('master', 0xef);
    expect(pic.master.read(DATA, 1)).toBe(0xef);
    pic.setIrq(4, true);
    expect(pic.acknowledge()).toBe(0x54);
  });

  it('clears masks, service, edges and modes; a high line has to fall and rise again', () => {
    mask('master', 0xff);
    pic.setIrq(4, true);
    initialise(0x01, 0x01);
    expect(pic.master.read(DATA, 1)).toBe(0);
    expect(registers('master')).toEqual({ irr: 0, isr: 0 });
    pic.setIrq(4, true);
    expect(pic.output).toBe(false);
    pic.setIrq(4, false);
    pic.setIrq(4, true);
    expect(pic.output).toBe(true);
  });

  it('leaves special mask mode, a poll and the choice of ISR', () => {
    pic.setIrq(3, true);
    command('master', 0x6f); // special mask, poll, ISR
    initialise(0x01, 0x01);
    expect(pic.master.read(DATA, 1), 'no poll').toBe(0);
    pic.setIrq(3, false);
    pic.setIrq(3, true);
    pic.acknowledge();
    expect(pic.master.read(COMMAND, 1), 'IRR').toBe(0);
    mask('master', 0x08);
    pic.setIrq(6, true);
    expect(pic.output, 'what is in service blocks, masked or not').toBe(false);
  });

  it('ignores the low bits of the vector base', () => {
    command('master', 0x11);
    for (const word of [0x4d, 0x04, 0x01]) mask('master', word);
    pic.setIrq(3, true);
    expect(pic.acknowledge()).toBe(0x4b);
  });

  it('power-up forgets vectors and ELCR', () => {
    pic.elcr.write(0, 1, 0xf8);
    mask('slave', 0xff);
    command('master', 0x11);
    pic.reset();
    expect(pic.slave.read(DATA, 1)).toBe(0);
    mask('master', 0x0e);
    expect(pic.master.read(DATA, 1), 'no ICW is due').toBe(0x0e);
    expect(pic.elcr.read(0, 1)).toBe(0);
    pic.setIrq(0, true);
    expect(pic.acknowledge()).toBe(0);
  });
});

describe('Pic: ends of interrupts and rotation', () => {
  const service = (...irqs: number[]) => {
    for (const irq of irqs) {
      pic.setIrq(irq, true);
      pic.acknowledge();
    }
  };

  it('a specific EOI ends the level it names', () => {
    service(6, 3);
    command('master', 0x60 | 6);
    expect(registers('master').isr).toBe(0x08);
  });

  it('rotation on EOI makes the ended level the lowest', () => {
    service(4);
    command('master', 0xa0);
    for (const irq of [3, 5]) pic.setIrq(irq, true);
    expect(pic.acknowledge()).toBe(0x35);
  });

  it('rotation on a specific EOI ends that level and makes it the lowest', () => {
    service(4);
    command('master', 0xe0 | 4);
    expect(registers('master').isr).toBe(0);
    for (const irq of [0, 6]) pic.setIrq(irq, true);
    expect(pic.acknowledge()).toBe(0x36);
  });

  it('set priority names the lowest level', () => {
    command('master', 0xc0 | 5);
    for (const irq of [0, 7, 6]) pic.setIrq(irq, true);
    expect(pic.acknowledge()).toBe(0x36);
  });

  it('automatic EOI leaves nothing in service', () => {
    initialise(0x03, 0x03);
    service(4);
    expect(registers('master').isr).toBe(0);
    pic.setIrq(5, true);
    expect(pic.output).toBe(true);
  });

  it('rotation in automatic EOI mode can be switched on and off', () => {
    initialise(0x03, 0x03);
    const next = () => {
      for (const irq of [0, 1]) {
        pic.setIrq(irq, false);
        pic.setIrq(irq, true);
      }
      return [pic.acknowledge(), pic.acknowledge()];
    };
    expect(next()).toEqual([0x30, 0x31]);
    command('master', 0x80);
    expect(next()).toEqual([0x30, 0x31]);
    pic.setIrq(0, false);
    pic.setIrq(0, true);
    pic.acknowledge();
    expect(next(), 'after 0, 1 is first').toEqual([0x31, 0x30]);
    command('master', 0x00);
    pic.setIrq(1, false);
    pic.setIrq(1, true);
    pic.acknowledge();
    expect(next(), 'off, 1 stays first').toEqual([0x31, 0x30]);
  });

  it('an EOI with nothing in service does nothing', () => {
    command('master', EOI);
    command('master', 0xa0);
    for (const irq of [0, 7]) pic.setIrq(irq, true);
    expect(pic.acknowledge()).toBe(0x30);
  });
});

describe('Pic: special mask and poll', () => {
  it('special mask mode lets everything through that is not masked, and EOI passes over what is', () => {
    pic.setIrq(3, true);
    pic.acknowledge();
    pic.setIrq(6, true);
    expect(pic.output).toBe(false);
    mask('master', 0x08);
    command('master', 0x68);
    expect(pic.acknowledge()).toBe(0x36);
    command('master', EOI);
    expect(registers('master').isr).toBe(0x08);
    command('master', 0x48);
    pic.setIrq(6, false);
    pic.setIrq(6, true);
    expect(pic.output).toBe(false);
  });

  it('a poll acknowledges the request on the next read, of either port', () => {
    for (const [port, irq] of [
      [COMMAND, 4],
      [DATA, 4],
      [COMMAND, 0],
    ]) {
      pic.setIrq(irq, false);
      pic.setIrq(irq, true);
      command('master', 0x0c);
      expect(pic.master.read(port, 1)).toBe(0x80 | irq);
      expect(pic.output).toBe(false);
      expect(registers('master').isr).toBe(1 << irq);
      command('master', EOI);
    }
    command('master', 0x0c);
    expect(pic.master.read(COMMAND, 1)).toBe(0);
  });

  it('the slave is polled by itself, after the master said 2', () => {
    pic.setIrq(12, true);
    command('master', 0x0c);
    expect(pic.master.read(COMMAND, 1)).toBe(0x82);
    command('slave', 0x0c);
    expect(pic.slave.read(COMMAND, 1)).toBe(0x84);
    expect([registers('master').isr, registers('slave').isr]).toEqual([0x04, 0x10]);
  });
});
