/**
 * 8042 keyboard controller with PS/2 auxiliary port: data at 0x60, status and commands at 0x64, IRQ 1 and 12.
 * Source: IBM PS/2 technical reference; what Linux's i8042 driver probes. A byte takes no time on its way; the next one
 * loads as soon as the output buffer is read. Not modelled: passwords, the controller's RAM beyond the command byte, diagnostics.
 */

import type { BusDevice } from '../memory/bus.ts';
import type { A20Gate } from './a20-gate.ts';
import { ByteRegisters } from './byte-registers.ts';
import type { InterruptLine } from './clock.ts';
import { Ps2Keyboard, Ps2Mouse } from './ps2-devices.ts';

export const I8042_DATA_PORT = 0x60;
export const I8042_COMMAND_PORT = 0x64;

const Status = { outputFull: 0x01, system: 0x04, command: 0x08, unlocked: 0x10, auxiliary: 0x20 } as const;
const CommandByte = {
  keyboardInterrupt: 0x01,
  auxiliaryInterrupt: 0x02,
  system: 0x04,
  keyboardDisabled: 0x10,
  auxiliaryDisabled: 0x20,
  translate: 0x40,
} as const;
const Command = {
  readCommandByte: 0x20,
  writeCommandByte: 0x60,
  passwordInstalled: 0xa4,
  disableAuxiliary: 0xa7,
  enableAuxiliary: 0xa8,
  testAuxiliary: 0xa9,
  selfTest: 0xaa,
  testKeyboard: 0xab,
  disableKeyboard: 0xad,
  enableKeyboard: 0xae,
  readInputPort: 0xc0,
  readOutputPort: 0xd0,
  writeOutputPort: 0xd1,
  writeKeyboardOutput: 0xd2,
  writeAuxiliaryOutput: 0xd3,
  writeAuxiliary: 0xd4,
  disableA20: 0xdd,
  enableA20: 0xdf,
  readTestInputs: 0xe0,
  pulse: 0xf0,
} as const;
const OutputPort = { notReset: 0x01, a20: 0x02, keyboardFull: 0x10, auxiliaryFull: 0x20, lines: 0xc0 } as const;
/** Keyboard not locked, colour display, 512 KB: what an AT's input port said. */
const INPUT_PORT = 0x80 | 0x20 | 0x10;
const SELF_TEST_PASSED = 0x55;
const NO_PASSWORD = 0xf1;
const TEST_INPUTS = 0x00;

/** An answer of the controller in its queue, marked where it counts as the auxiliary device's. */
const FROM_AUXILIARY = 0x100;
/** Answers a guest can leave unread. */
const MAX_ANSWERS = 16;
const BREAK_PREFIX = 0xf0;

// Scan code set 2 to set 1 by the controller's table, for codes 0x00 to 0x7F.
const TRANSLATION = Uint8Array.from([
  0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, 0x65, 0x38, 0x2a, 0x70, 0x1d,
  0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39,
  0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09,
  0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74,
  0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c,
  0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49,
  0x46, 0x54,
]);

function translateCode(code: number): number {
  if (code < 0x80) return TRANSLATION[code];
  return code === 0x83 ? 0x41 : code === 0x84 ? 0x54 : code;
}

export interface I8042Options {
  /** IRQ 1. */
  keyboardLine: InterruptLine;
  /** IRQ 12. */
  auxiliaryLine: InterruptLine;
  a20: A20Gate;
  /** The reset line was pulsed (command 0xFE) or pulled low. */
  onReset: () => void;
}

export class I8042 {
  /** Port 0x60. */
  readonly dataPort: BusDevice;
  /** Port 0x64. */
  readonly commandPort: BusDevice;
  readonly keyboard = new Ps2Keyboard();
  readonly mouse = new Ps2Mouse();
  private readonly options: I8042Options;
  /** As firmware leaves it: keyboard on with interrupt and translation, auxiliary port off. */
  private commandByte =
    CommandByte.keyboardInterrupt | CommandByte.system | CommandByte.auxiliaryDisabled | CommandByte.translate;
  /** The command whose parameter the next byte at the data port is, or 0. */
  private parameterOf = 0;
  private lastWasCommand = false;
  private readonly answers: number[] = [];
  private outputBuffer = 0;
  private outputFull = false;
  private outputAuxiliary = false;
  private breakPrefixed = false;
  private keyboardAsserted = false;
  private auxiliaryAsserted = false;

  constructor(options: I8042Options) {
    this.options = options;
    this.dataPort = new Port(
      () => this.readData(),
      (value) => this.writeData(value),
    );
    this.commandPort = new Port(
      () => this.readStatus(),
      (value) => this.writeCommand(value),
    );
    this.keyboard.onOutput = () => this.load();
    this.mouse.onOutput = () => this.load();
  }

  private readStatus(): number {
    return (
      Status.unlocked |
      (this.outputFull ? Status.outputFull : 0) |
      (this.outputFull && this.outputAuxiliary ? Status.auxiliary : 0) |
      (this.lastWasCommand ? Status.command : 0) |
      (this.commandByte & CommandByte.system ? Status.system : 0)
    );
  }

  /** Reading an empty buffer gives the last byte again. */
  private readData(): number {
    const value = this.outputBuffer;
    if (this.outputFull) {
      this.outputFull = false;
      this.updateLines();
      this.load();
    }
    return value;
  }

  private writeData(value: number): void {
    this.lastWasCommand = false;
    const command = this.parameterOf;
    this.parameterOf = 0;
    switch (command) {
      case 0:
        this.commandByte &= ~CommandByte.keyboardDisabled; // sending to the keyboard starts its clock
        this.keyboard.command(value);
        this.load();
        break;
      case Command.writeCommandByte:
        this.commandByte = value;
        this.updateLines();
        this.load();
        break;
      case Command.writeOutputPort:
        this.options.a20.set((value & OutputPort.a20) !== 0);
        if (!(value & OutputPort.notReset)) this.options.onReset();
        break;
      case Command.writeKeyboardOutput:
        this.answer(value);
        break;
      case Command.writeAuxiliaryOutput:
        this.answer(value | FROM_AUXILIARY);
        break;
      case Command.writeAuxiliary:
        this.commandByte &= ~CommandByte.auxiliaryDisabled;
        this.mouse.command(value);
        this.load();
        break;
    }
  }

  private writeCommand(command: number): void {
    this.lastWasCommand = true;
    this.parameterOf = 0;
    switch (command) {
      case Command.readCommandByte:
        this.answer(this.commandByte);
        break;
      case Command.writeCommandByte:
      case Command.writeOutputPort:
      case Command.writeKeyboardOutput:
      case Command.writeAuxiliaryOutput:
      case Command.writeAuxiliary:
        this.parameterOf = command;
        break;
      case Command.passwordInstalled:
        this.answer(NO_PASSWORD);
        break;
      case Command.disableAuxiliary:
        this.commandByte |= CommandByte.auxiliaryDisabled;
        break;
      case Command.enableAuxiliary:
        this.commandByte &= ~CommandByte.auxiliaryDisabled;
        this.load();
        break;
      case Command.testAuxiliary:
      case Command.testKeyboard:
        this.answer(0);
        break;
      case Command.selfTest:
        this.commandByte |= CommandByte.system;
        this.answer(SELF_TEST_PASSED);
        break;
      case Command.disableKeyboard:
        this.commandByte |= CommandByte.keyboardDisabled;
        break;
      case Command.enableKeyboard:
        this.commandByte &= ~CommandByte.keyboardDisabled;
        this.load();
        break;
      case Command.readInputPort:
        this.answer(INPUT_PORT);
        break;
      case Command.readOutputPort:
        this.answer(this.outputPort());
        break;
      case Command.disableA20:
      case Command.enableA20:
        this.options.a20.set(command === Command.enableA20);
        break;
      case Command.readTestInputs:
        this.answer(TEST_INPUTS);
        break;
      default:
        // 0xF0 to 0xFF pulse the output lines whose bit is 0; bit 0 is the processor's reset.
        if (command >= Command.pulse && !(command & OutputPort.notReset)) this.options.onReset();
    }
  }

  private outputPort(): number {
    return (
      OutputPort.lines |
      OutputPort.notReset |
      (this.options.a20.enabled ? OutputPort.a20 : 0) |
      (this.keyboardAsserted ? OutputPort.keyboardFull : 0) |
      (this.auxiliaryAsserted ? OutputPort.auxiliaryFull : 0)
    );
  }

  private answer(value: number): void {
    if (this.answers.length === MAX_ANSWERS) return;
    this.answers.push(value);
    this.load();
  }

  /** Fills an empty output buffer: the controller's answers first, then the keyboard, then the auxiliary device. */
  private load(): void {
    while (!this.outputFull) {
      const answer = this.answers.shift();
      if (answer !== undefined) this.fill(answer & 0xff, (answer & FROM_AUXILIARY) !== 0);
      else if (this.keyboard.hasOutput && !(this.commandByte & CommandByte.keyboardDisabled))
        this.fillFromKeyboard(this.keyboard.shift());
      else if (this.mouse.hasOutput && !(this.commandByte & CommandByte.auxiliaryDisabled)) this.fill(this.mouse.shift(), true);
      else return;
    }
  }

  /** With translation on, a break prefix is swallowed and marks the code after it. */
  private fillFromKeyboard(code: number): void {
    if (!(this.commandByte & CommandByte.translate)) {
      this.breakPrefixed = false;
      this.fill(code, false);
    } else if (code === BREAK_PREFIX) this.breakPrefixed = true;
    else {
      const translated = translateCode(code);
      this.fill(this.breakPrefixed ? translated | 0x80 : translated, false);
      this.breakPrefixed = false;
    }
  }

  private fill(value: number, auxiliary: boolean): void {
    this.outputBuffer = value;
    this.outputAuxiliary = auxiliary;
    this.outputFull = true;
    this.updateLines();
  }

  private updateLines(): void {
    const { commandByte } = this;
    const keyboard = this.outputFull && !this.outputAuxiliary && (commandByte & CommandByte.keyboardInterrupt) !== 0;
    const auxiliary = this.outputFull && this.outputAuxiliary && (commandByte & CommandByte.auxiliaryInterrupt) !== 0;
    if (keyboard !== this.keyboardAsserted) {
      this.keyboardAsserted = keyboard;
      this.options.keyboardLine.set(keyboard);
    }
    if (auxiliary !== this.auxiliaryAsserted) {
      this.auxiliaryAsserted = auxiliary;
      this.options.auxiliaryLine.set(auxiliary);
    }
  }
}

/** One byte-wide port. */
class Port extends ByteRegisters {
  private readonly readPort: () => number;
  private readonly writePort: (value: number) => void;

  constructor(readPort: () => number, writePort: (value: number) => void) {
    super();
    this.readPort = readPort;
    this.writePort = writePort;
  }

  protected readByte(offset: number): number {
    return offset === 0 ? this.readPort() : 0xff;
  }

  protected writeByte(offset: number, value: number): void {
    if (offset === 0) this.writePort(value);
  }
}
