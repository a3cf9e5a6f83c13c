/**
 * 16550A UART: register state only. Source: National Semiconductor PC16550D data sheet, and what Linux's
 * 8250 driver tells the chip's relatives apart by. Not modelled: DMA signalling, breaks sent by the guest,
 * framing and parity errors (the far end makes none). The interrupt is not gated by OUT2, unlike on the
 * original PC: as on other virtual machines, whose guests have come to count on it.
 */

import { ByteRegisters } from './byte-registers.ts';
import type { Clock, InterruptLine, Timer } from './clock.ts';

/** Ports (or bytes of MMIO) a 16550 takes. */
export const UART_BYTES = 8;

const UART_INPUT_HZ = 1_843_200;
/** The receiver samples 16 times a bit. */
const BAUD_BASE = UART_INPUT_HZ / 16;
const FIFO_BYTES = 16;
const TIMEOUT_CHARACTERS = 4;
const TRIGGER_LEVELS = [1, 4, 8, 14] as const;
const RESET_DIVISOR = BAUD_BASE / 9600;

const Ier = { receive: 0x01, transmit: 0x02, lineStatus: 0x04, modemStatus: 0x08, mask: 0x0f } as const;
const Iir = {
  modemStatus: 0x00,
  none: 0x01,
  transmit: 0x02,
  receive: 0x04,
  lineStatus: 0x06,
  timeout: 0x0c,
  fifos: 0xc0,
} as const;
const Fcr = { enable: 0x01, clearReceive: 0x02, clearTransmit: 0x04 } as const;
const Lcr = { twoStopBits: 0x04, parity: 0x08, divisorLatch: 0x80 } as const;
const Mcr = { dtr: 0x01, rts: 0x02, out1: 0x04, out2: 0x08, loopback: 0x10, mask: 0x1f } as const;
const Lsr = { data: 0x01, overrun: 0x02, break: 0x10, transmitEmpty: 0x20, idle: 0x40, fifoError: 0x80 } as const;
const Msr = { teri: 0x04, cts: 0x10, dsr: 0x20, ri: 0x40, dcd: 0x80 } as const;

/** Modem inputs as the guest sees them: bits 4 to 7 of the modem status register. */
export const ModemInput = { clearToSend: Msr.cts, dataSetReady: Msr.dsr, ringIndicator: Msr.ri, carrierDetect: Msr.dcd } as const;

export interface Uart16550Options {
  clock: Clock;
  line: InterruptLine;
  /** Gets each character that leaves the transmitter. */
  onTransmit: (byte: number) => void;
  /**
   * `instant` (the default): a character takes no guest time, the FIFO is always empty again. `baud`: it takes
   * as long as divisor and format say, both ways.
   */
  pacing?: 'instant' | 'baud';
  /** Keeps input in the host's queue until the guest raises RTS, as a terminal with flow control would. */
  waitForRts?: boolean;
  /** Prefix of its timers' names. */
  name?: string;
}

export class Uart16550 extends ByteRegisters {
  private readonly clock: Clock;
  private readonly line: InterruptLine;
  private readonly onTransmit: (byte: number) => void;
  private readonly paced: boolean;
  private readonly waitForRts: boolean;
  private readonly transmitTimer: Timer;
  private readonly receiveTimer: Timer;
  private readonly timeoutTimer: Timer;

  private ier = 0;
  /** Eight bits, no parity, one stop bit: as firmware leaves it. The chip itself comes up with five bits. */
  private lcr = 0x03;
  private mcr = 0;
  private scratch = 0;
  private divisor = RESET_DIVISOR;
  private fifosEnabled = false;
  private triggerLevel = 1;
  private modemInputs = Msr.cts | Msr.dsr | Msr.dcd;
  private modemDeltas = 0;
  private characterNanoseconds = 0;
  private lineAsserted = false;

  /** Received characters: the byte, and above it the LSR bits it came with. */
  private readonly received = new Uint16Array(FIFO_BYTES);
  private receivedHead = 0;
  private receivedCount = 0;
  private flaggedCount = 0;
  /** LSR's error bits: latched when a character becomes the oldest, cleared by reading LSR. */
  private lineErrors = 0;
  private timeoutPending = false;

  private readonly transmitting = new Uint8Array(FIFO_BYTES);
  private transmitHead = 0;
  private transmitCount = 0;
  /** Most characters the transmit FIFO held at once since it was last empty. */
  private transmitPeak = 0;
  private transmitDelayed = false;
  private shifting = false;
  private shiftRegister = 0;
  /** The THRE interrupt: set by the event, cleared by reading it in IIR or by writing THR. */
  private transmitPending = false;

  /** Input that has not reached the receiver, as it was handed over; `queueOffset` counts into the first. */
  private readonly queue: Uint8Array[] = [];
  private queueOffset = 0;
  private queuedBytes = 0;

  constructor(options: Uart16550Options) {
    super();
    const name = options.name ?? 'uart';
    this.clock = options.clock;
    this.line = options.line;
    this.onTransmit = options.onTransmit;
    this.paced = options.pacing === 'baud';
    this.waitForRts = options.waitForRts ?? false;
    this.transmitTimer = this.clock.createTimer(`${name}-transmit`, (deadline) => this.finishShift(deadline));
    this.receiveTimer = this.clock.createTimer(`${name}-receive`, (deadline) => this.receiveOne(deadline));
    this.timeoutTimer = this.clock.createTimer(`${name}-timeout`, () => this.expireTimeout());
    this.updateCharacterTime();
  }

  /** Hands input over. What does not fit the receiver waits in a queue; nothing is lost. */
  receive(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.queue.push(bytes.slice());
    this.queuedBytes += bytes.length;
    this.feed();
  }

  /** A break condition, as SysRq on a serial console wants: a zero byte marked in LSR. */
  receiveBreak(): void {
    this.push(Lsr.break << 8);
    this.updateLine();
  }

  /** Bytes of input the guest has not read yet. */
  get inputPending(): number {
    return this.queuedBytes + this.receivedCount;
  }

  /** Sets the modem inputs, a combination of `ModemInput`. At power-on all but the ring indicator are on. */
  setModemInputs(inputs: number): void {
    const before = this.modemLevels();
    this.modemInputs = inputs & 0xf0;
    this.noteModemChange(before);
  }

  protected readByte(offset: number): number {
    switch (offset) {
      case 0:
        return this.lcr & Lcr.divisorLatch ? this.divisor & 0xff : this.readReceiver();
      case 1:
        return this.lcr & Lcr.divisorLatch ? this.divisor >> 8 : this.ier;
      case 2:
        return this.readInterruptIdentification();
      case 3:
        return this.lcr;
      case 4:
        return this.mcr;
      case 5:
        return this.readLineStatus();
      case 6: {
        const status = this.modemLevels() | this.modemDeltas;
        this.modemDeltas = 0;
        this.updateLine();
        return status;
      }
      case 7:
        return this.scratch;
      default:
        return 0xff;
    }
  }

  protected writeByte(offset: number, value: number): void {
    switch (offset) {
      case 0:
        if (this.lcr & Lcr.divisorLatch) this.setDivisor((this.divisor & 0xff00) | value);
        else this.writeTransmitter(value);
        break;
      case 1:
        if (this.lcr & Lcr.divisorLatch) this.setDivisor((this.divisor & 0xff) | (value << 8));
        else this.writeInterruptEnable(value & Ier.mask);
        break;
      case 2:
        this.writeFifoControl(value);
        break;
      case 3:
        this.lcr = value;
        this.updateCharacterTime();
        break;
      case 4: {
        const before = this.modemLevels();
        this.mcr = value & Mcr.mask;
        this.noteModemChange(before);
        this.feed();
        break;
      }
      case 7:
        this.scratch = value;
        break;
      default: // LSR and MSR: writes are for factory tests
        break;
    }
  }

  // Interrupts, by priority

  private interruptIdentification(): number {
    const { ier } = this;
    if (ier & Ier.lineStatus && this.lineErrors) return Iir.lineStatus;
    if (ier & Ier.receive) {
      if (this.receivedCount >= this.triggerLevel) return Iir.receive;
      if (this.timeoutPending) return Iir.timeout;
    }
    if (ier & Ier.transmit && this.transmitPending) return Iir.transmit;
    if (ier & Ier.modemStatus && this.modemDeltas) return Iir.modemStatus;
    return Iir.none;
  }

  private updateLine(): void {
    const asserted = this.interruptIdentification() !== Iir.none;
    if (asserted === this.lineAsserted) return;
    this.lineAsserted = asserted;
    this.line.set(asserted);
  }

  private readInterruptIdentification(): number {
    const identification = this.interruptIdentification();
    if (identification === Iir.transmit) {
      this.transmitPending = false;
      this.updateLine();
    }
    return identification | (this.fifosEnabled ? Iir.fifos : 0);
  }

  /** Enabling the THRE interrupt while THR is empty raises it, each time anew: Linux tests for just that. */
  private writeInterruptEnable(value: number): void {
    const raised = value & ~this.ier;
    this.ier = value;
    if (raised & Ier.transmit && this.transmitCount === 0) this.transmitPending = true;
    this.updateLine();
  }

  // Receiver

  private readReceiver(): number {
    if (this.receivedCount === 0) return 0;
    const entry = this.received[this.receivedHead];
    if (entry >> 8) this.flaggedCount--;
    this.receivedHead = (this.receivedHead + 1) % FIFO_BYTES;
    this.receivedCount--;
    if (this.receivedCount > 0) this.lineErrors |= this.received[this.receivedHead] >> 8;
    this.timeoutPending = false;
    this.restartTimeout();
    this.feed();
    this.updateLine();
    return entry & 0xff;
  }

  private readLineStatus(): number {
    let status = this.lineErrors;
    if (this.receivedCount > 0) status |= Lsr.data;
    if (this.transmitCount === 0) status |= this.shifting ? Lsr.transmitEmpty : Lsr.transmitEmpty | Lsr.idle;
    if (this.fifosEnabled && this.flaggedCount > 0) status |= Lsr.fifoError;
    if (this.lineErrors) {
      this.lineErrors = 0;
      if (this.receivedCount > 0 && this.received[this.receivedHead] >> 8) {
        this.received[this.receivedHead] &= 0xff;
        this.flaggedCount--;
      }
      this.updateLine();
    }
    return status;
  }

  private get receiverCapacity(): number {
    return this.fifosEnabled ? FIFO_BYTES : 1;
  }

  /** A character arrives. A full FIFO keeps what it has; without FIFO the newer character wins. */
  private push(entry: number): void {
    if (this.receivedCount === this.receiverCapacity) {
      this.lineErrors |= Lsr.overrun;
      if (this.fifosEnabled) return;
      this.received[this.receivedHead] = entry;
      this.lineErrors |= entry >> 8;
      this.flaggedCount = entry >> 8 ? 1 : 0;
      return;
    }
    this.received[(this.receivedHead + this.receivedCount) % FIFO_BYTES] = entry;
    if (entry >> 8) this.flaggedCount++;
    if (this.receivedCount === 0) this.lineErrors |= entry >> 8;
    this.receivedCount++;
    this.restartTimeout();
  }

  /** Moves queued input into the receiver as far as there is room: at once, or at the line's speed. */
  private feed(): void {
    if (!this.mayFeed()) return;
    if (this.paced) {
      if (this.receiveTimer.deadline === Number.POSITIVE_INFINITY) {
        this.receiveTimer.arm(this.clock.now() + this.characterNanoseconds);
      }
      return;
    }
    while (this.queuedBytes > 0 && this.receivedCount < this.receiverCapacity) this.push(this.dequeue());
    this.updateLine();
  }

  private mayFeed(): boolean {
    if (this.queuedBytes === 0 || this.receivedCount === this.receiverCapacity || this.mcr & Mcr.loopback) return false;
    return !this.waitForRts || (this.mcr & Mcr.rts) !== 0;
  }

  private receiveOne(deadlineNanoseconds: number): void {
    if (!this.mayFeed()) return;
    this.push(this.dequeue());
    if (this.mayFeed()) this.receiveTimer.arm(deadlineNanoseconds + this.characterNanoseconds);
    this.updateLine();
  }

  private dequeue(): number {
    const chunk = this.queue[0];
    const byte = chunk[this.queueOffset++];
    this.queuedBytes--;
    if (this.queueOffset === chunk.length) {
      this.queue.shift();
      this.queueOffset = 0;
    }
    return byte & this.dataMask;
  }

  /** Characters below the trigger level raise an interrupt when the line and the guest are still for four characters. */
  private restartTimeout(): void {
    if (!this.fifosEnabled || this.receivedCount === 0) this.timeoutTimer.disarm();
    else this.timeoutTimer.arm(this.clock.now() + TIMEOUT_CHARACTERS * this.characterNanoseconds);
  }

  private expireTimeout(): void {
    this.timeoutPending = this.fifosEnabled && this.receivedCount > 0;
    this.updateLine();
  }

  // Transmitter

  private writeTransmitter(value: number): void {
    this.transmitPending = false;
    this.updateLine();
    if (this.paced) {
      const capacity = this.fifosEnabled ? FIFO_BYTES : 1;
      if (this.transmitCount < capacity) this.transmitting[(this.transmitHead + this.transmitCount++) % FIFO_BYTES] = value;
      else if (!this.fifosEnabled) this.transmitting[this.transmitHead] = value;
      this.transmitPeak = Math.max(this.transmitPeak, this.transmitCount);
      if (!this.shifting) this.startShift(this.clock.now());
    } else {
      this.send(value);
      this.transmitPending = true;
    }
    this.updateLine();
  }

  private startShift(nowNanoseconds: number): void {
    this.shiftRegister = this.transmitting[this.transmitHead];
    this.transmitHead = (this.transmitHead + 1) % FIFO_BYTES;
    this.transmitCount--;
    this.shifting = true;
    this.transmitTimer.arm(nowNanoseconds + this.characterNanoseconds);
    if (this.transmitCount > 0) return;
    // Data sheet, FIFO interrupt mode: the interrupt waits a character time unless the FIFO held two at once,
    // so that the first byte of a burst, which goes straight to the shift register, raises none.
    this.transmitDelayed = this.fifosEnabled && this.transmitPeak < 2;
    this.transmitPending = !this.transmitDelayed;
    this.transmitPeak = 0;
  }

  private finishShift(deadlineNanoseconds: number): void {
    this.shifting = false;
    this.send(this.shiftRegister);
    if (this.transmitCount > 0) this.startShift(deadlineNanoseconds);
    else if (this.transmitDelayed) this.transmitPending = true;
    if (!this.shifting) this.transmitDelayed = false;
    this.updateLine();
  }

  private send(value: number): void {
    const byte = value & this.dataMask;
    if (this.mcr & Mcr.loopback) this.push(byte);
    else this.onTransmit(byte);
  }

  // Control

  private writeFifoControl(value: number): void {
    const enabled = (value & Fcr.enable) !== 0;
    const toggled = enabled !== this.fifosEnabled;
    this.fifosEnabled = enabled;
    this.triggerLevel = enabled ? TRIGGER_LEVELS[value >> 6] : 1;
    if (toggled || (enabled && value & Fcr.clearReceive)) {
      this.receivedCount = 0;
      this.flaggedCount = 0;
      this.timeoutPending = false;
      this.timeoutTimer.disarm();
    }
    if (toggled || (enabled && value & Fcr.clearTransmit)) {
      if (this.transmitCount > 0) this.transmitPending = true;
      this.transmitCount = 0;
      this.transmitPeak = 0;
    }
    this.feed();
    this.updateLine();
  }

  private get dataMask(): number {
    return (0x20 << (this.lcr & 0x03)) - 1;
  }

  private setDivisor(divisor: number): void {
    this.divisor = divisor;
    this.updateCharacterTime();
  }

  private updateCharacterTime(): void {
    const dataBits = 5 + (this.lcr & 0x03);
    const parityBits = this.lcr & Lcr.parity ? 1 : 0;
    const stopBits = this.lcr & Lcr.twoStopBits ? (dataBits === 5 ? 1.5 : 2) : 1;
    const bitNanoseconds = ((this.divisor || 1) * 1e9) / BAUD_BASE;
    this.characterNanoseconds = (1 + dataBits + parityBits + stopBits) * bitNanoseconds;
  }

  /** Bits 4 to 7 of MSR: the inputs or, in loopback, the chip's own outputs. */
  private modemLevels(): number {
    const { mcr } = this;
    if (!(mcr & Mcr.loopback)) return this.modemInputs;
    return (
      (mcr & Mcr.rts ? Msr.cts : 0) |
      (mcr & Mcr.dtr ? Msr.dsr : 0) |
      (mcr & Mcr.out1 ? Msr.ri : 0) |
      (mcr & Mcr.out2 ? Msr.dcd : 0)
    );
  }

  private noteModemChange(before: number): void {
    const after = this.modemLevels();
    const deltas = (before ^ after) >> 4;
    // The ring indicator counts only when it ends.
    this.modemDeltas |= deltas & Msr.teri && after & Msr.ri ? deltas & ~Msr.teri : deltas;
    this.updateLine();
  }
}
