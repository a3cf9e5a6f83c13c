/**
 * A PCI function: 256 bytes of configuration space with the bits a guest can write, and base address registers.
 * Source: PCI Local Bus 3.0, chapter 6. A BAR's size is what its hardwired zeroes say; where it is mapped is announced, not
 * done here. Not modelled: expansion ROMs, extended configuration space.
 */

import type { AccessBytes } from '../memory/bus.ts';

export const PCI_CONFIG_BYTES = 256;

export const PciRegister = {
  vendorId: 0x00,
  deviceId: 0x02,
  command: 0x04,
  status: 0x06,
  revision: 0x08,
  classCode: 0x09,
  cacheLineSize: 0x0c,
  latencyTimer: 0x0d,
  headerType: 0x0e,
  bars: 0x10,
  subsystemVendorId: 0x2c,
  subsystemId: 0x2e,
  capabilities: 0x34,
  interruptLine: 0x3c,
  interruptPin: 0x3d,
} as const;
export const PciCommand = {
  io: 0x001,
  memory: 0x002,
  busMaster: 0x004,
  parity: 0x040,
  serr: 0x100,
  interruptDisable: 0x400,
} as const;
const COMMAND_WRITABLE =
  PciCommand.io | PciCommand.memory | PciCommand.busMaster | PciCommand.parity | PciCommand.serr | PciCommand.interruptDisable;
/** Status bits that a written one clears. */
const STATUS_CLEARABLE = 0xf900;
const MULTI_FUNCTION = 0x80;
const BAR_COUNT = 6;
const BarFlag = { io: 0x1, memory64: 0x4, prefetchable: 0x8 } as const;

export interface PciBarOptions {
  /** 0 to 5; a 64-bit one takes the next as well. */
  index: number;
  kind: 'io' | 'memory32' | 'memory64';
  /** A power of two: at least 4 ports or 16 bytes of memory, at most 2 GiB. */
  bytes: number;
  prefetchable?: boolean;
}

/** A base address register: `address` is where the guest has it mapped, or undefined while it is not decoded. */
export interface PciBar extends Readonly<PciBarOptions> {
  readonly address: number | undefined;
}

export interface PciIdentity {
  vendorId: number;
  deviceId: number;
  /** Base class, subclass and interface: 0x060000 is a host bridge. */
  classCode: number;
  revision?: number;
  subsystemVendorId?: number;
  subsystemId?: number;
  /** 1 to 4 for INTA# to INTD#, 0 for none. */
  interruptPin?: number;
}

type MutableBar = PciBarOptions & { address: number | undefined };

export class PciFunction {
  /** Configuration space as the guest reads it. */
  protected readonly config = new Uint8Array(PCI_CONFIG_BYTES);
  /** Bits a guest's write changes, and bits that it clears by writing one. */
  protected readonly writable = new Uint8Array(PCI_CONFIG_BYTES);
  protected readonly clearable = new Uint8Array(PCI_CONFIG_BYTES);
  private readonly barList: MutableBar[] = [];
  /** Told when a BAR appears in, moves in, or leaves its address space; `address` is the new one. */
  onBarChange: (bar: PciBar, before: number | undefined) => void = () => {};

  constructor(identity: PciIdentity, bars: readonly PciBarOptions[] = []) {
    this.store(PciRegister.vendorId, 2, identity.vendorId);
    this.store(PciRegister.deviceId, 2, identity.deviceId);
    this.store(PciRegister.revision, 1, identity.revision ?? 0);
    this.store(PciRegister.classCode, 3, identity.classCode);
    this.store(PciRegister.subsystemVendorId, 2, identity.subsystemVendorId ?? 0);
    this.store(PciRegister.subsystemId, 2, identity.subsystemId ?? 0);
    this.store(PciRegister.interruptPin, 1, identity.interruptPin ?? 0);
    this.allow(PciRegister.command, 2, COMMAND_WRITABLE);
    this.allow(PciRegister.cacheLineSize, 1, 0xff);
    this.allow(PciRegister.latencyTimer, 1, 0xff);
    this.allow(PciRegister.interruptLine, 1, 0xff);
    this.clearable[PciRegister.status + 1] = STATUS_CLEARABLE >> 8;
    for (const bar of bars) this.addBar(bar);
  }

  get bars(): readonly PciBar[] {
    return this.barList;
  }

  /** The command register: which of its address spaces the function answers in, whether it may be bus master. */
  get command(): number {
    return this.load(PciRegister.command, 2);
  }

  /** Reads configuration space; the access does not cross a double word. */
  readConfig(offset: number, bytes: AccessBytes): number {
    return this.load(offset, bytes);
  }

  writeConfig(offset: number, bytes: AccessBytes, value: number): void {
    for (let i = 0; i < bytes; i++) {
      const at = offset + i;
      const byte = (value >>> (8 * i)) & 0xff;
      const mask = this.writable[at];
      this.config[at] = ((this.config[at] & ~mask) | (byte & mask)) & ~(byte & this.clearable[at]);
    }
    const touchesBars = offset < PciRegister.bars + 4 * BAR_COUNT && offset + bytes > PciRegister.bars;
    if (touchesBars || offset < PciRegister.status) this.updateBars();
  }

  /** Marks function 0 of a device that has others. */
  markMultiFunction(): void {
    this.config[PciRegister.headerType] |= MULTI_FUNCTION;
  }

  protected load(offset: number, bytes: number): number {
    let value = 0;
    for (let i = bytes - 1; i >= 0; i--) value = (value << 8) | this.config[offset + i];
    return value >>> 0;
  }

  protected store(offset: number, bytes: number, value: number): void {
    for (let i = 0; i < bytes; i++) this.config[offset + i] = value >>> (8 * i);
  }

  /** Lets the guest write the bits of `mask`. */
  protected allow(offset: number, bytes: number, mask: number): void {
    for (let i = 0; i < bytes; i++) this.writable[offset + i] |= mask >>> (8 * i);
  }

  private addBar(bar: PciBarOptions): void {
    const minimum = bar.kind === 'io' ? 4 : 16;
    const last = bar.kind === 'memory64' ? bar.index + 1 : bar.index;
    const taken = this.barList.some(
      (other) => other.index === bar.index || (other.kind === 'memory64' && other.index + 1 === bar.index),
    );
    if (taken || bar.index < 0 || last >= BAR_COUNT) throw new RangeError(`BAR ${bar.index} is taken or does not exist`);
    if (bar.bytes < minimum || bar.bytes > 2 ** 31 || !Number.isInteger(Math.log2(bar.bytes))) {
      throw new RangeError(`BAR ${bar.index} cannot have ${bar.bytes} bytes`);
    }
    const offset = PciRegister.bars + 4 * bar.index;
    const flags = (bar.kind === 'memory64' ? BarFlag.memory64 : 0) | (bar.prefetchable ? BarFlag.prefetchable : 0);
    this.store(offset, 4, bar.kind === 'io' ? BarFlag.io : flags);
    this.allow(offset, 4, -bar.bytes >>> 0);
    if (bar.kind === 'memory64') this.allow(offset + 4, 4, 0xffff_ffff);
    this.barList.push({ ...bar, address: undefined });
  }

  private updateBars(): void {
    for (const bar of this.barList) {
      const address = this.decodedAddress(bar);
      if (address === bar.address) continue;
      const before = bar.address;
      bar.address = address;
      this.onBarChange(bar, before);
    }
  }

  private decodedAddress(bar: MutableBar): number | undefined {
    const enable = bar.kind === 'io' ? PciCommand.io : PciCommand.memory;
    if (!(this.command & enable)) return undefined;
    const offset = PciRegister.bars + 4 * bar.index;
    const low = (this.load(offset, 4) & -bar.bytes) >>> 0;
    return bar.kind === 'memory64' ? this.load(offset + 4, 4) * 2 ** 32 + low : low;
  }
}
