/**
 * Reset control register, port 0xCF9, which the FADT names as RESET_REG. Source: Intel PIIX3 and ICH data sheets.
 * The port lies inside configuration mechanism 1's address register; the PCI host passes byte accesses on.
 */

import { ByteRegisters } from './byte-registers.ts';

export const RESET_CONTROL_PORT = 0xcf9;
/** What the FADT's RESET_VALUE should be: a hard reset. */
export const RESET_VALUE = 0x06;

const SYSTEM_RESET = 0x02;
const RESET_CPU = 0x04;

export class ResetControl extends ByteRegisters {
  private readonly onReset: (kind: 'soft' | 'hard') => void;
  private value = 0;

  constructor(onReset: (kind: 'soft' | 'hard') => void) {
    super();
    this.onReset = onReset;
  }

  protected readByte(offset: number): number {
    return offset === 0 ? this.value : 0xff;
  }

  /** A reset is RST_CPU going from 0 to 1; SYS_RST says which kind. */
  protected writeByte(offset: number, value: number): void {
    if (offset !== 0) return;
    const rises = value & ~this.value & RESET_CPU;
    this.value = value & (SYSTEM_RESET | RESET_CPU);
    if (rises) this.onReset(value & SYSTEM_RESET ? 'hard' : 'soft');
  }
}
