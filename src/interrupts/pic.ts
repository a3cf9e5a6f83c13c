/**
 * The PC's pair of 8259A interrupt controllers with the edge/level control registers of its chip sets. Intel 8259A data
 * sheet, PIIX3 data sheet (ELCR). Not modelled: MCS-80 mode, buffered mode, and ICW1's LTIM, which ELCR replaces.
 */

import type { InterruptLine } from '../devices/clock.ts';
import type { BusDevice } from '../memory/bus.ts';

/** I/O ports: each chip has two, command (A0 = 0) and data (A0 = 1); ELCR has one for each chip. */
export const PIC_MASTER_PORT = 0x20;
export const PIC_SLAVE_PORT = 0xa0;
export const PIC_PORTS = 2;
export const ELCR_PORT = 0x4d0;
export const ELCR_PORTS = 2;

const CASCADE_IRQ = 2;
/** What a chip answers when the request that raised INT is gone. */
const SPURIOUS_IRQ = 7;
/** IRQ 0, 1, 2, 8 and 13 are edge-triggered on every PC. */
const ELCR_WRITABLE = [0xf8, 0xde] as const;

const ICW1 = 0x10;
const ICW1_NEEDS_ICW4 = 0x01;
const ICW1_SINGLE = 0x02;
const ICW4_AUTO_EOI = 0x02;
const ICW4_SPECIAL_FULLY_NESTED = 0x10;
const OCW3 = 0x08;
const OCW3_READ_ISR = 0x01;
const OCW3_READ_REGISTER = 0x02;
const OCW3_POLL = 0x04;
const OCW3_SPECIAL_MASK = 0x20;
const OCW3_SET_SPECIAL_MASK = 0x40;

/** OCW2's R, SL and EOI bits. 2 is no operation. */
const Ocw2 = {
  rotateInAutoEoiOff: 0,
  eoi: 1,
  specificEoi: 3,
  rotateInAutoEoiOn: 4,
  rotateOnEoi: 5,
  setPriority: 6,
  rotateOnSpecificEoi: 7,
} as const;

/** One 8259A: what it knows of its inputs, without its neighbours. */
class Chip {
  vectorBase = 0;
  elcr = 0;
  private lines = 0;
  /** Inputs that rose and were not acknowledged since. One counts only while the input stays high. */
  private edges = 0;
  private imr = 0;
  private isr = 0;
  /** The input with the lowest priority; the one after it has the highest. */
  private lowest = 7;
  private autoEoi = false;
  private rotateInAutoEoi = false;
  private specialMask = false;
  private specialFullyNested = false;
  private readIsr = false;
  private poll = false;
  /** The ICW that the data port takes next; 0 outside of initialisation. */
  private nextIcw: 0 | 2 | 3 | 4 = 0;
  private needsIcw3 = true;
  private needsIcw4 = false;
  /** The input a slave's INT drives, -1 on a slave. */
  private readonly cascade: number;

  constructor(cascade: number) {
    this.cascade = cascade;
  }

  setLine(irq: number, high: boolean): void {
    const bit = 1 << irq;
    if (high && !(this.lines & bit)) this.edges |= bit;
    this.lines = high ? this.lines | bit : this.lines & ~bit;
  }

  /** The slave raised INT. The master holds that request until it is acknowledged, even if the slave has none then. */
  requestCascade(): void {
    this.lines |= 1 << this.cascade;
    this.edges |= 1 << this.cascade;
  }

  private get irr(): number {
    return this.lines & (this.edges | this.elcr);
  }

  /** The request that INT stands for, or -1: the one of highest priority, unless something at or above it is in service. */
  pending(): number {
    const requests = this.irr & ~this.imr;
    if (requests === 0) return -1;
    const inService = this.specialMask ? this.isr & ~this.imr : this.isr;
    for (let rank = 1; rank <= 8; rank++) {
      const irq = (this.lowest + rank) & 7;
      const bit = 1 << irq;
      const nests = this.specialFullyNested && irq === this.cascade;
      if (inService & bit && !nests) return -1;
      if (requests & bit) return irq;
      if (inService & bit) return -1;
    }
    return -1;
  }

  /** INTA for a request that `pending` returned. */
  acknowledge(irq: number): void {
    this.edges &= ~(1 << irq);
    if (!this.autoEoi) this.isr |= 1 << irq;
    else if (this.rotateInAutoEoi) this.lowest = irq;
  }

  readCommand(): number {
    if (this.poll) return this.pollNow();
    return this.readIsr ? this.isr : this.irr;
  }

  readData(): number {
    return this.poll ? this.pollNow() : this.imr;
  }

  /** A poll is an INTA that the program makes: bit 7 says that there was a request, bits 2 to 0 which. */
  private pollNow(): number {
    this.poll = false;
    const irq = this.pending();
    if (irq < 0) return 0;
    this.acknowledge(irq);
    return 0x80 | irq;
  }

  writeCommand(value: number): void {
    if (value & ICW1) this.initialise(value);
    else if (value & OCW3) this.writeOcw3(value);
    else this.writeOcw2(value >> 5, value & 7);
  }

  writeData(value: number): void {
    switch (this.nextIcw) {
      case 0:
        this.imr = value;
        break;
      case 2:
        this.vectorBase = value & 0xf8;
        this.nextIcw = this.needsIcw3 ? 3 : this.needsIcw4 ? 4 : 0;
        break;
      case 3: // how the pair is wired does not depend on what the program says
        this.nextIcw = this.needsIcw4 ? 4 : 0;
        break;
      case 4:
        this.specialFullyNested = (value & ICW4_SPECIAL_FULLY_NESTED) !== 0;
        this.autoEoi = (value & ICW4_AUTO_EOI) !== 0;
        this.nextIcw = 0;
        break;
    }
  }

  /** ICW1. An input that is high has to fall and rise again to count as an edge. */
  private initialise(icw1: number): void {
    this.needsIcw3 = !(icw1 & ICW1_SINGLE);
    this.needsIcw4 = (icw1 & ICW1_NEEDS_ICW4) !== 0;
    this.nextIcw = 2;
    this.edges = this.imr = this.isr = 0;
    this.lowest = 7;
    this.specialMask = this.readIsr = this.poll = false;
    this.autoEoi = this.specialFullyNested = this.rotateInAutoEoi = false;
  }

  private writeOcw3(value: number): void {
    if (value & OCW3_POLL) this.poll = true;
    if (value & OCW3_READ_REGISTER) this.readIsr = (value & OCW3_READ_ISR) !== 0;
    if (value & OCW3_SET_SPECIAL_MASK) this.specialMask = (value & OCW3_SPECIAL_MASK) !== 0;
  }

  private writeOcw2(operation: number, irq: number): void {
    switch (operation) {
      case Ocw2.rotateInAutoEoiOff:
      case Ocw2.rotateInAutoEoiOn:
        this.rotateInAutoEoi = operation === Ocw2.rotateInAutoEoiOn;
        break;
      case Ocw2.eoi:
      case Ocw2.rotateOnEoi: {
        const ended = this.highestInService();
        if (ended < 0) break;
        this.isr &= ~(1 << ended);
        if (operation === Ocw2.rotateOnEoi) this.lowest = ended;
        break;
      }
      case Ocw2.specificEoi:
      case Ocw2.rotateOnSpecificEoi:
        this.isr &= ~(1 << irq);
        if (operation === Ocw2.rotateOnSpecificEoi) this.lowest = irq;
        break;
      case Ocw2.setPriority:
        this.lowest = irq;
        break;
    }
  }

  /** What a non-specific EOI ends. In special mask mode it passes over what is masked. */
  private highestInService(): number {
    const inService = this.specialMask ? this.isr & ~this.imr : this.isr;
    for (let rank = 1; rank <= 8; rank++) {
      const irq = (this.lowest + rank) & 7;
      if (inService & (1 << irq)) return irq;
    }
    return -1;
  }

  reset(): void {
    this.initialise(ICW1 | ICW1_NEEDS_ICW4);
    this.nextIcw = 0;
    this.vectorBase = this.elcr = 0;
  }
}

/** IRQ 0 to 15, the slave's INT on the master's IRQ 2. */
export class Pic {
  /** Called when INTR to the CPU changes. Set by the owner. */
  onOutput: (high: boolean) => void = () => {};

  /** The devices for `PIC_MASTER_PORT`, `PIC_SLAVE_PORT` and `ELCR_PORT`. */
  readonly master: BusDevice;
  readonly slave: BusDevice;
  readonly elcr: BusDevice;

  private readonly chips: readonly [Chip, Chip] = [new Chip(CASCADE_IRQ), new Chip(-1)];
  private intr = false;

  constructor() {
    this.master = this.ports(this.chips[0]);
    this.slave = this.ports(this.chips[1]);
    this.elcr = {
      read: (offset) => this.chips[offset & 1].elcr,
      write: (offset, _bytes, value) => {
        this.chips[offset & 1].elcr = value & ELCR_WRITABLE[offset & 1];
        this.update();
      },
    };
  }

  /** As after power-up; the lines keep their levels. */
  reset(): void {
    for (const chip of this.chips) chip.reset();
    this.update();
  }

  /** Level of INTR. */
  get output(): boolean {
    return this.intr;
  }

  /** Drives IRQ 0 to 15; high is asserted, for the active-low PCI interrupts too, which the chip set inverts. */
  setIrq(irq: number, high: boolean): void {
    this.chips[irq >> 3].setLine(irq & 7, high);
    this.update();
  }

  line(irq: number): InterruptLine {
    if (irq < 0 || irq > 15 || irq === CASCADE_IRQ) throw new RangeError(`no device can be on IRQ ${irq} of the 8259 pair`);
    return { set: (asserted) => this.setIrq(irq, asserted) };
  }

  /** The CPU's INTA: the vector, that of IRQ 7 or IRQ 15 if what raised INTR is gone. Those two are not in service then. */
  acknowledge(): number {
    const [master, slave] = this.chips;
    const irq = master.pending();
    if (irq < 0) return master.vectorBase + SPURIOUS_IRQ;
    master.acknowledge(irq);
    let vector = master.vectorBase + irq;
    if (irq === CASCADE_IRQ) {
      const slaveIrq = slave.pending();
      if (slaveIrq >= 0) slave.acknowledge(slaveIrq);
      vector = slave.vectorBase + (slaveIrq < 0 ? SPURIOUS_IRQ : slaveIrq);
    }
    this.update();
    return vector;
  }

  private ports(chip: Chip): BusDevice {
    return {
      read: (offset) => {
        const value = offset & 1 ? chip.readData() : chip.readCommand();
        this.update(); // a poll acknowledges
        return value;
      },
      write: (offset, _bytes, value) => {
        if (offset & 1) chip.writeData(value & 0xff);
        else chip.writeCommand(value & 0xff);
        this.update();
      },
    };
  }

  private update(): void {
    const [master, slave] = this.chips;
    if (slave.pending() >= 0) master.requestCascade();
    const intr = master.pending() >= 0;
    if (intr === this.intr) return;
    this.intr = intr;
    this.onOutput(intr);
  }
}
