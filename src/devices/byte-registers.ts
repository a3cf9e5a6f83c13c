/**
 * A device with byte-wide registers on a bus of wider accesses: as on the ISA bus, an access of two or
 * four bytes becomes one of each byte, lowest offset first.
 */

import type { AccessBytes, BusDevice } from '../memory/bus.ts';

export abstract class ByteRegisters implements BusDevice {
  /** Reads one register. Offsets past the last one (the tail of a wide access) read as 0xFF. */
  protected abstract readByte(offset: number): number;
  /** Writes one register. Offsets past the last one are ignored. */
  protected abstract writeByte(offset: number, value: number): void;

  read(offset: number, bytes: AccessBytes): number {
    let value = this.readByte(offset);
    for (let i = 1; i < bytes; i++) value |= this.readByte(offset + i) << (8 * i);
    return value >>> 0;
  }

  write(offset: number, bytes: AccessBytes, value: number): void {
    for (let i = 0; i < bytes; i++) this.writeByte(offset + i, (value >>> (8 * i)) & 0xff);
  }
}
