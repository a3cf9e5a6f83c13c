/**
 * PCI bus 0 behind configuration mechanism 1 (0xCF8, 0xCFC), and the i440FX's host bridge at 00:00.0. Source: PCI Local
 * Bus 3.0, 3.2.2.3.2; Intel 440FX data sheet. Absent functions and other buses read as all ones. The host bridge's PAM and SMRAM
 * registers keep what is written and do nothing: all of the space below 1 MiB is RAM.
 */

import type { AccessBytes, BusDevice } from '../memory/bus.ts';
import { PciFunction, PciRegister } from './pci-function.ts';

export const PCI_CONFIG_PORT = 0xcf8;
export const PCI_CONFIG_PORTS = 8;

const DATA_OFFSET = 4;
/** Port 0xCF9, in the middle of the address register. */
const RESET_OFFSET = 1;
const ADDRESS_ENABLE = 0x8000_0000;
const ADDRESS_WRITABLE = 0x80ff_fffc;
const ALL_ONES = { 1: 0xff, 2: 0xffff, 4: 0xffff_ffff } as const;
const DEVICES = 32;
const FUNCTIONS = 8;

const HOST_BRIDGE = {
  vendorId: 0x8086,
  deviceId: 0x1237,
  revision: 0x02,
  classCode: 0x06_00_00,
  subsystemVendorId: 0x1af4,
  subsystemId: 0x1100,
};
const Bridge = { pam: 0x59, pamBytes: 7, smram: 0x72 } as const;

/** The i440FX's host bridge. */
class HostBridge extends PciFunction {
  constructor() {
    super(HOST_BRIDGE);
    for (let i = 0; i < Bridge.pamBytes; i++) this.allow(Bridge.pam + i, 1, 0xff);
    this.allow(Bridge.smram, 1, 0xff);
    this.store(PciRegister.command, 2, 0x0006); // memory and bus master, hardwired
    this.writable[PciRegister.command] = 0;
    this.store(PciRegister.status, 2, 0x0280);
    this.store(Bridge.smram, 1, 0x02);
  }
}

/** Ports 0xCF8 to 0xCFF. Byte accesses to 0xCF9 go to the reset control register. */
export class PciHost implements BusDevice {
  private readonly functions = new Array<PciFunction | undefined>(DEVICES * FUNCTIONS);
  private readonly resetControl: BusDevice | undefined;
  private address = 0;

  constructor(resetControl?: BusDevice) {
    this.resetControl = resetControl;
    this.attach(0, 0, new HostBridge());
  }

  /** Plugs a function in. Throws where one is already; function 0 of a device must be there first. */
  attach(device: number, index: number, pciFunction: PciFunction): void {
    const slot = device * FUNCTIONS + index;
    const name = `00:${device.toString(16).padStart(2, '0')}.${index}`;
    if (device < 0 || device >= DEVICES || index < 0 || index >= FUNCTIONS) throw new RangeError(`no PCI slot ${name}`);
    if (this.functions[slot]) throw new Error(`PCI slot ${name} is taken`);
    const first = this.functions[device * FUNCTIONS];
    if (index > 0 && !first) throw new Error(`PCI slot ${name} needs function 0 first`);
    this.functions[slot] = pciFunction;
    if (index > 0) first?.markMultiFunction();
  }

  read(offset: number, bytes: AccessBytes): number {
    if (offset >= DATA_OFFSET) {
      const register = (this.address & 0xfc) | (offset - DATA_OFFSET);
      const target = this.target(offset, bytes);
      return target ? target.readConfig(register, bytes) : ALL_ONES[bytes];
    }
    if (offset === 0 && bytes === 4) return this.address;
    return offset === RESET_OFFSET && bytes === 1 && this.resetControl ? this.resetControl.read(0, 1) : ALL_ONES[bytes];
  }

  write(offset: number, bytes: AccessBytes, value: number): void {
    if (offset >= DATA_OFFSET) {
      this.target(offset, bytes)?.writeConfig((this.address & 0xfc) | (offset - DATA_OFFSET), bytes, value);
    } else if (offset === 0 && bytes === 4) this.address = (value & ADDRESS_WRITABLE) >>> 0;
    else if (offset === RESET_OFFSET && bytes === 1) this.resetControl?.write(0, 1, value);
  }

  /** The function addressed, if the access stays within its double word. */
  private target(offset: number, bytes: AccessBytes): PciFunction | undefined {
    const { address } = this;
    if (!(address & ADDRESS_ENABLE) || offset + bytes > PCI_CONFIG_PORTS || (address >> 16) & 0xff) return undefined;
    return this.functions[(address >> 8) & 0xff];
  }
}
