/**
 * Where MMIO and port accesses go. A device sees only its own offset; overlapping regions are refused
 * when they are registered. What nobody claims reads as all ones and swallows writes, as on a PC.
 */

/** Sizes of an access in bytes. The engine splits 8 and 16-byte MMIO accesses into 4-byte ones. */
export type AccessBytes = 1 | 2 | 4;

/** A device on a bus. `offset` counts from the start of the region it registered; values are unsigned. */
export interface BusDevice {
  read(offset: number, bytes: AccessBytes): number;
  write(offset: number, bytes: AccessBytes, value: number): void;
}

interface Region {
  start: number;
  end: number;
  name: string;
  device: BusDevice;
}

const ALL_ONES = { 1: 0xff, 2: 0xffff, 4: 0xffff_ffff } as const;

/** One address space: guest-physical addresses (MMIO) or I/O ports. */
export class Bus {
  private readonly regions: Region[] = [];
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  /** Whether nobody has claimed any of `bytes` addresses from `start`. */
  isFree(start: number, bytes: number): boolean {
    return !this.regions.some((region) => start < region.end && region.start < start + bytes);
  }

  /** Claims `bytes` addresses from `start`. Throws where they overlap another device's. */
  register(start: number, bytes: number, name: string, device: BusDevice): void {
    const end = start + bytes;
    const other = this.regions.find((region) => start < region.end && region.start < end);
    if (other) throw new Error(`${this.name}: ${name} at 0x${start.toString(16)} overlaps ${other.name}`);
    this.regions.push({ start, end, name, device });
    this.regions.sort((a, b) => a.start - b.start);
  }

  /** Gives the addresses of the region that starts at `start` back. */
  unregister(start: number): void {
    const index = this.regions.findIndex((region) => region.start === start);
    if (index >= 0) this.regions.splice(index, 1);
  }

  read(address: number, bytes: AccessBytes): number {
    const region = this.find(address);
    return region ? region.device.read(address - region.start, bytes) >>> 0 : ALL_ONES[bytes];
  }

  write(address: number, bytes: AccessBytes, value: number): void {
    const region = this.find(address);
    region?.device.write(address - region.start, bytes, value >>> 0);
  }

  /** Name of the device at `address`, for reports. */
  nameAt(address: number): string | undefined {
    return this.find(address)?.name;
  }

  private find(address: number): Region | undefined {
    let low = 0;
    let high = this.regions.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const region = this.regions[middle];
      if (address < region.start) high = middle - 1;
      else if (address >= region.end) low = middle + 1;
      else return region;
    }
    return undefined;
  }
}
