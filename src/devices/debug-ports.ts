/**
 * Four one-register devices: POST code (0x80), debug console (0xE9, Bochs), system control port A (0x92: fast A20
 * and reset) and isa-debug-exit (0xF4, QEMU), with an addition of ours at 0xF5.
 */

import type { AccessBytes, BusDevice } from '../memory/bus.ts';
import type { A20Gate } from './a20-gate.ts';
import { ByteRegisters } from './byte-registers.ts';

export const POST_CODE_PORT = 0x80;
export const SYSTEM_CONTROL_PORT_A = 0x92;
export const DEBUG_CONSOLE_PORT = 0xe9;
export const DEBUG_EXIT_PORT = 0xf4;
/** Ports isa-debug-exit takes, so that a double word fits. */
export const DEBUG_EXIT_BYTES = 4;

/** Keeps the last byte; Linux writes here to pass a microsecond. */
export class PostCodePort extends ByteRegisters {
  code = 0;

  protected readByte(offset: number): number {
    return offset === 0 ? this.code : 0xff;
  }

  protected writeByte(offset: number, value: number): void {
    if (offset === 0) this.code = value;
  }
}

/** Each byte written goes to the host. Reading 0xE9 tells a guest that it is there. */
export class DebugConsole extends ByteRegisters {
  private readonly onByte: (byte: number) => void;

  constructor(onByte: (byte: number) => void) {
    super();
    this.onByte = onByte;
  }

  protected readByte(offset: number): number {
    return offset === 0 ? DEBUG_CONSOLE_PORT : 0xff;
  }

  protected writeByte(offset: number, value: number): void {
    if (offset === 0) this.onByte(value);
  }
}

const FAST_RESET = 0x01;
const FAST_A20 = 0x02;

/** Port 0x92: bit 1 is the A20 gate, bit 0 going from 0 to 1 resets the processor. */
export class SystemControlPortA extends ByteRegisters {
  private readonly a20: A20Gate;
  private readonly onReset: () => void;
  private value = 0;

  constructor(a20: A20Gate, onReset: () => void) {
    super();
    this.a20 = a20;
    this.onReset = onReset;
  }

  protected readByte(offset: number): number {
    return offset === 0 ? this.value | (this.a20.enabled ? FAST_A20 : 0) : 0xff;
  }

  protected writeByte(offset: number, value: number): void {
    if (offset !== 0) return;
    const resets = value & ~this.value & FAST_RESET;
    this.value = value & ~FAST_A20;
    this.a20.set((value & FAST_A20) !== 0);
    if (resets) this.onReset();
  }
}

/** QEMU's device cannot say that all is well, or anything even: a byte written here is the exit status itself. */
const STATUS_OFFSET = 1;
/** Where our guests write their exit status. */
export const EXIT_STATUS_PORT = DEBUG_EXIT_PORT + STATUS_OFFSET;

/** The exit status that a code written to isa-debug-exit ends a run with. */
function debugExitStatus(code: number): number {
  return ((code << 1) | 1) & 0xff;
}

/** isa-debug-exit: a write, of any width, ends the run with `code << 1 | 1`, or at 0xF5 with what is written. */
export class DebugExit implements BusDevice {
  private readonly onExit: (exitStatus: number) => void;

  constructor(onExit: (exitStatus: number) => void) {
    this.onExit = onExit;
  }

  read(): number {
    return 0;
  }

  write(offset: number, bytes: AccessBytes, value: number): void {
    this.onExit(offset === STATUS_OFFSET && bytes === 1 ? value : debugExitStatus(value));
  }
}
