/**
 * A device for bare-metal test programs, at the places where kvm's unit tests look for theirs: latches to try ports with, interrupt lines
 * to move by hand, and MMIO that behaves like RAM. Source: what such programs do; there is no data sheet.
 */

import type { AccessBytes, Bus, BusDevice } from '../memory/bus.ts';
import type { InterruptLine } from './clock.ts';

/** A 32-bit latch in four ports, a port whose writes ask for a page to be flushed (nothing is cached here), and a byte latch. */
export const LATCH_PORT = 0xe0;
export const LATCH_PORTS = 4;
export const FLUSH_PORT = 0xe4;
export const FLUSH_PORTS = 4;
export const BYTE_LATCH_PORT = 0xe8;
/** A port for each interrupt line: a write of 1 asserts it, of 0 deasserts it. */
export const LINES_PORT = 0x2000;
export const TEST_MMIO_BASE = 0xff00_0000;
export const TEST_MMIO_BYTES = 0x1_0000;

/** Keeps what is written, byte by byte, and gives it back in any width. */
export class Latch implements BusDevice {
  private readonly bytes: Uint8Array;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
  }

  read(offset: number, bytes: AccessBytes): number {
    let value = 0;
    for (let i = bytes - 1; i >= 0; i--) value = value * 256 + (this.bytes[offset + i] ?? 0xff);
    return value;
  }

  write(offset: number, bytes: AccessBytes, value: number): void {
    for (let i = 0; i < bytes && offset + i < this.bytes.length; i++) this.bytes[offset + i] = value >>> (8 * i);
  }
}

/** The interrupt lines' ports: each takes bytes, words and double words, and reads as its level. */
export class LinePorts implements BusDevice {
  private readonly lines: readonly InterruptLine[];
  private readonly levels: Uint8Array;

  constructor(lines: readonly InterruptLine[]) {
    this.lines = lines;
    this.levels = new Uint8Array(lines.length);
  }

  read(offset: number): number {
    return this.levels[offset];
  }

  write(offset: number, _bytes: AccessBytes, value: number): void {
    this.levels[offset] = value ? 1 : 0;
    this.lines[offset].set(value !== 0);
  }
}

/** Puts the device on the buses; `lines` are the I/O APIC's pins. */
export function attachTestDevice(ports: Bus, mmio: Bus, lines: readonly InterruptLine[]): void {
  ports.register(LATCH_PORT, LATCH_PORTS, 'test latch', new Latch(LATCH_PORTS));
  ports.register(FLUSH_PORT, FLUSH_PORTS, 'test page flush', new Latch(FLUSH_PORTS));
  ports.register(BYTE_LATCH_PORT, 1, 'test byte latch', new Latch(1));
  ports.register(LINES_PORT, lines.length, 'test interrupt lines', new LinePorts(lines));
  mmio.register(TEST_MMIO_BASE, TEST_MMIO_BYTES, 'test MMIO', new Latch(TEST_MMIO_BYTES));
}
