/**
 * ACPI fixed hardware: PM1a event and control blocks, a GPE0 block, and the SCI. Source: ACPI 6.4, 4.8.3 and 4.8.4.
 * The machine is in ACPI mode from the start (SCI_EN set, no SMI command port). Not modelled: SMIs, bus master
 * reload, the global lock, sleep states that come back.
 */

import type { BusDevice } from '../memory/bus.ts';
import { ByteRegisters } from './byte-registers.ts';
import type { Clock, InterruptLine, Timer } from './clock.ts';
import type { PmTimer } from './pm-timer.ts';

export const PM1_EVENT_BYTES = 4;
export const PM1_CONTROL_BYTES = 2;
/** GPE0: 16 events, two bytes of status and two of enables. */
export const GPE0_BYTES = 4;

const Pm1 = {
  timer: 0x0001,
  busMaster: 0x0010,
  global: 0x0020,
  powerButton: 0x0100,
  sleepButton: 0x0200,
  rtc: 0x0400,
  wake: 0x8000,
} as const;
const PM1_STATUS = Pm1.timer | Pm1.busMaster | Pm1.global | Pm1.powerButton | Pm1.sleepButton | Pm1.rtc | Pm1.wake;
const PM1_ENABLE = Pm1.timer | Pm1.global | Pm1.powerButton | Pm1.sleepButton | Pm1.rtc;
const Control = { sciEnable: 0x0001, globalRelease: 0x0004, sleepTypeShift: 10, sleepTypeMask: 7, sleepEnable: 0x2000 } as const;
/** Write-only bits of the control register. */
const CONTROL_STROBES = Control.sleepEnable | Control.globalRelease;

export interface AcpiPmOptions {
  clock: Clock;
  pmTimer: PmTimer;
  /** The SCI: level-triggered, shared. */
  line: InterruptLine;
  /** SLP_EN was written with this SLP_TYP: the DSDT's _S5 says which one means power-off. */
  onSleep: (sleepType: number) => void;
}

export class AcpiPm {
  /** PM1a_EVT: status at 0, enables at 2. */
  readonly pm1Event: BusDevice;
  /** PM1a_CNT. */
  readonly pm1Control: BusDevice;
  /** GPE0: status at 0, enables at 2. */
  readonly gpe0: BusDevice;
  private readonly clock: Clock;
  private readonly pmTimer: PmTimer;
  private readonly line: InterruptLine;
  private readonly onSleep: (sleepType: number) => void;
  private readonly timer: Timer;
  private status = 0;
  private enable = 0;
  private control: number = Control.sciEnable;
  private gpeStatus = 0;
  private gpeEnable = 0;
  private overflowsSeen = 0;
  private lineAsserted = false;

  constructor(options: AcpiPmOptions) {
    this.clock = options.clock;
    this.pmTimer = options.pmTimer;
    this.line = options.line;
    this.onSleep = options.onSleep;
    this.timer = this.clock.createTimer('acpi-pm', (deadline) => {
      this.settle(deadline);
      this.update();
    });
    this.pm1Event = new ByteBlock(
      (offset) => this.readEvent(offset),
      (offset, value) => this.writeEvent(offset, value),
    );
    this.pm1Control = new ByteBlock(
      (offset) => byteOf(this.control, offset),
      (offset, value) => this.writeControl(offset, value),
    );
    this.gpe0 = new ByteBlock(
      (offset) => (offset < 2 ? byteOf(this.gpeStatus, offset) : byteOf(this.gpeEnable, offset - 2)),
      (offset, value) => this.writeGpe(offset, value),
    );
  }

  /** A press of the power button: what a host's polite shutdown request looks like to a guest. */
  pressPowerButton(): void {
    this.status |= Pm1.powerButton;
    this.update();
  }

  /** Sets a general-purpose event's status bit, 0 to 15. */
  raiseGpe(event: number): void {
    this.gpeStatus |= (1 << event) & 0xffff;
    this.update();
  }

  private readEvent(offset: number): number {
    if (offset >= 2) return byteOf(this.enable, offset - 2);
    this.settle(this.clock.now());
    return byteOf(this.status, offset);
  }

  private writeEvent(offset: number, value: number): void {
    this.settle(this.clock.now());
    if (offset < 2)
      this.status &= ~(value << (8 * offset)); // a one clears
    else if (offset < PM1_EVENT_BYTES) this.enable = withByte(this.enable, offset - 2, value) & PM1_ENABLE;
    this.status &= PM1_STATUS;
    this.update();
  }

  private writeControl(offset: number, value: number): void {
    if (offset >= PM1_CONTROL_BYTES) return;
    const written = withByte(this.control, offset, value);
    this.control = written & ~CONTROL_STROBES;
    this.update();
    if (written & Control.sleepEnable) this.onSleep((written >> Control.sleepTypeShift) & Control.sleepTypeMask);
  }

  private writeGpe(offset: number, value: number): void {
    if (offset < 2) this.gpeStatus &= ~(value << (8 * offset));
    else if (offset < GPE0_BYTES) this.gpeEnable = withByte(this.gpeEnable, offset - 2, value);
    this.update();
  }

  /** TMR_STS: has the PM timer's top bit changed since we last looked? */
  private settle(now: number): void {
    const overflows = this.pmTimer.overflowsAt(now);
    if (overflows <= this.overflowsSeen) return;
    this.overflowsSeen = overflows;
    this.status |= Pm1.timer;
  }

  private update(): void {
    const pending = (this.status & this.enable) | (this.gpeStatus & this.gpeEnable);
    const asserted = pending !== 0 && (this.control & Control.sciEnable) !== 0;
    if (asserted !== this.lineAsserted) {
      this.lineAsserted = asserted;
      this.line.set(asserted);
    }
    // Only an enabled timer event needs waking up for; its status bit is found when it is read.
    if (this.enable & ~this.status & Pm1.timer) this.timer.arm(this.pmTimer.overflowNanoseconds(this.overflowsSeen + 1));
    else this.timer.disarm();
  }
}

/** A block of registers made of two functions; bytes past its end are the functions' business. */
class ByteBlock extends ByteRegisters {
  protected readonly readByte: (offset: number) => number;
  protected readonly writeByte: (offset: number, value: number) => void;

  constructor(readByte: (offset: number) => number, writeByte: (offset: number, value: number) => void) {
    super();
    this.readByte = readByte;
    this.writeByte = writeByte;
  }
}

function byteOf(value: number, index: number): number {
  return (value >> (8 * index)) & 0xff;
}

function withByte(value: number, index: number, byte: number): number {
  return (value & ~(0xff << (8 * index))) | (byte << (8 * index));
}
