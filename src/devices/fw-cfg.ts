/**
 * QEMU's firmware configuration device, ports 0x510 (selector, 16 bits) and 0x511 (data, bytes), and its DMA interface
 * at 0x514 where there is memory to copy to. Source: QEMU docs/specs/fw_cfg. Items are read-only: writes are ignored,
 * DMA writes answered with an error.
 */

import type { AccessBytes, BusDevice } from '../memory/bus.ts';

export const FW_CFG_PORT = 0x510;
/** Ports without and with the DMA interface; 0x512 and 0x513 belong to neither. */
export const FW_CFG_PORTS = 2;
export const FW_CFG_DMA_PORT = 0x514;
export const FW_CFG_DMA_PORTS = 8;

export const FwCfgKey = {
  signature: 0x00,
  id: 0x01,
  ramBytes: 0x03,
  cpuCount: 0x05,
  maxCpus: 0x0f,
  kernelAddress: 0x07,
  kernelBytes: 0x08,
  kernelEntry: 0x10,
  kernelData: 0x11,
  directory: 0x19,
  firstFile: 0x20,
} as const;

const Id = { traditional: 0x1, dma: 0x2 } as const;
const MAX_FILES = 256;
const DIRECTORY_ENTRY_BYTES = 64;
const NAME_BYTES = 56;
/** "QEMU CFG", as the DMA address register reads. */
const DMA_SIGNATURE_HIGH = 0x51454d55;
const DMA_SIGNATURE_LOW = 0x20434647;
const DMA_CONTROL_BYTES = 16;
const DmaControl = { error: 0x01, read: 0x02, skip: 0x04, select: 0x08, write: 0x10 } as const;

/** Guest memory as DMA needs it; `GuestMemory` is one. */
export interface FwCfgMemory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Offset into `bytes`, or -1 where the range is not RAM throughout. */
  linear(guestPhysical: number, bytes: number): number;
  onWrite(guestPhysical: number, bytes: number): void;
}

export interface FwCfgOptions {
  ramBytes: number;
  cpuCount: number;
  /** Defaults to `cpuCount`. */
  maxCpus?: number;
  /** With it the DMA interface exists. */
  memory?: FwCfgMemory;
}

const EMPTY = new Uint8Array(0);

export class FwCfg implements BusDevice {
  /** The DMA address register, 8 ports at 0x514; undefined without memory. */
  readonly dmaPort: BusDevice | undefined;
  private readonly items = new Map<number, Uint8Array>();
  private readonly files: { name: string; key: number }[] = [];
  private selected: Uint8Array = EMPTY;
  private position = 0;

  constructor(options: FwCfgOptions) {
    this.setItem(
      FwCfgKey.signature,
      Uint8Array.from('QEMU', (letter) => letter.charCodeAt(0)),
    );
    this.setItem(FwCfgKey.id, littleEndian(options.memory ? Id.traditional | Id.dma : Id.traditional, 4));
    this.setItem(FwCfgKey.ramBytes, littleEndian(options.ramBytes, 8));
    this.setItem(FwCfgKey.cpuCount, littleEndian(options.cpuCount, 2));
    this.setItem(FwCfgKey.maxCpus, littleEndian(options.maxCpus ?? options.cpuCount, 2));
    this.setItem(FwCfgKey.kernelData, littleEndian(0, 4));
    this.updateDirectory();
    this.select(FwCfgKey.signature);
    if (options.memory) this.dmaPort = new DmaPort(this, options.memory);
  }

  setItem(key: number, data: Uint8Array): void {
    this.items.set(key, data);
  }

  /** Adds a file to the directory and returns its selector. Names have at most 55 ASCII characters, `opt/...` for users' own. */
  addFile(name: string, data: Uint8Array): number {
    if (name.length === 0 || name.length >= NAME_BYTES || !/^[\x21-\x7e]+$/.test(name))
      throw new RangeError(`not a fw_cfg file name: ${name}`);
    if (this.files.some((file) => file.name === name)) throw new Error(`fw_cfg file ${name} exists`);
    if (this.files.length === MAX_FILES) throw new RangeError('fw_cfg holds no more files');
    const key = FwCfgKey.firstFile + this.files.length;
    this.files.push({ name, key });
    this.setItem(key, data);
    this.updateDirectory();
    return key;
  }

  /** Items that do not exist are empty, and what is past an item's end reads as 0. */
  read(offset: number, bytes: AccessBytes): number {
    return offset === 1 && bytes === 1 ? this.next() : 0;
  }

  write(offset: number, bytes: AccessBytes, value: number): void {
    if (offset === 0 && bytes === 2) this.select(value);
  }

  /** Selects an item from its start. */
  select(key: number): void {
    this.selected = this.items.get(key) ?? EMPTY;
    this.position = 0;
  }

  /** Copies from the item into `target`, or only moves on when there is none. */
  take(length: number, target?: Uint8Array): void {
    const rest = this.selected.subarray(this.position, this.position + length);
    this.position += length;
    if (!target) return;
    target.set(rest);
    target.fill(0, rest.length);
  }

  private next(): number {
    return this.position < this.selected.length ? this.selected[this.position++] : 0;
  }

  /** Count, then size, selector and name of each file by name; numbers are big-endian. */
  private updateDirectory(): void {
    const directory = new Uint8Array(4 + this.files.length * DIRECTORY_ENTRY_BYTES);
    const view = new DataView(directory.buffer);
    view.setUint32(0, this.files.length);
    const sorted = [...this.files].sort((a, b) => (a.name < b.name ? -1 : 1));
    sorted.forEach(({ name, key }, index) => {
      const at = 4 + index * DIRECTORY_ENTRY_BYTES;
      view.setUint32(at, this.items.get(key)?.length ?? 0);
      view.setUint16(at + 4, key);
      for (let i = 0; i < name.length; i++) directory[at + 8 + i] = name.charCodeAt(i);
    });
    this.setItem(FwCfgKey.directory, directory);
  }
}

/** The DMA interface: a big-endian 64-bit address of a control structure; writing its low half starts the transfer. */
class DmaPort implements BusDevice {
  private readonly fwCfg: FwCfg;
  private readonly memory: FwCfgMemory;
  private addressHigh = 0;

  constructor(fwCfg: FwCfg, memory: FwCfgMemory) {
    this.fwCfg = fwCfg;
    this.memory = memory;
  }

  read(offset: number, bytes: AccessBytes): number {
    let value = 0;
    for (let i = bytes - 1; i >= 0; i--) {
      const at = offset + i;
      const half = at < 4 ? DMA_SIGNATURE_HIGH : DMA_SIGNATURE_LOW;
      value = (value << 8) | (at < FW_CFG_DMA_PORTS ? (half >>> (24 - 8 * (at & 3))) & 0xff : 0xff);
    }
    return value >>> 0;
  }

  write(offset: number, bytes: AccessBytes, value: number): void {
    if (bytes !== 4) return;
    if (offset === 0) this.addressHigh = swapBytes(value);
    else if (offset === 4) {
      const address = this.addressHigh * 2 ** 32 + swapBytes(value);
      this.addressHigh = 0;
      this.run(address);
    }
  }

  private run(guestPhysical: number): void {
    const { memory, fwCfg } = this;
    const structure = memory.linear(guestPhysical, DMA_CONTROL_BYTES);
    if (structure < 0) return; // nowhere to report it to
    const control = memory.view.getUint32(structure);
    const length = memory.view.getUint32(structure + 4);
    const address = memory.view.getUint32(structure + 8) * 2 ** 32 + memory.view.getUint32(structure + 12);
    let result = 0;
    if (control & DmaControl.select) fwCfg.select(control >>> 16);
    if (control & DmaControl.read) {
      const target = length === 0 ? 0 : memory.linear(address, length);
      if (target < 0) result = DmaControl.error;
      else {
        fwCfg.take(length, memory.bytes.subarray(target, target + length));
        memory.onWrite(address, length);
      }
    } else if (control & DmaControl.write) result = DmaControl.error;
    else if (control & DmaControl.skip) fwCfg.take(length);
    memory.view.setUint32(structure, result);
    memory.onWrite(guestPhysical, 4);
  }
}

function littleEndian(value: number, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => Math.floor(value / 2 ** (8 * i)) % 256);
}

function swapBytes(value: number): number {
  return ((value >>> 24) | ((value >>> 8) & 0xff00) | ((value & 0xff00) << 8) | (value << 24)) >>> 0;
}
