/**
 * Guest physical RAM, and the one WebAssembly.Memory everything lives in.
 *
 * Linear memory holds, in this order: the engine's arena (vCPU states, TLBs, decoded operations, tables)
 * and the guest's RAM. RAM appears in the guest's physical space from 0 up to the hole below 4 GiB and,
 * what is left of it, from 4 GiB upwards, as on every PC. Limits: RAM is at most 3 GiB, because linear
 * memory has 32-bit addresses and the arena wants its share.
 */

export const PAGE_SIZE = 4096;
export const FOUR_GIB = 2 ** 32;
/** RAM below 4 GiB ends here at the latest: the space above is for devices. */
export const MMIO_HOLE_BASE = 0x8000_0000;
export const MAX_RAM_BYTES = 3 * 2 ** 30;

const WASM_PAGE = 65536;

export interface GuestMemoryOptions {
  /** Bytes of guest RAM, a multiple of 64 KiB. */
  ramBytes: number;
  /** Bytes of linear memory in front of RAM, for the engine; rounded up to 64 KiB. */
  arenaBytes?: number;
}

/** One contiguous piece of guest RAM. */
export interface RamRange {
  guestPhysical: number;
  bytes: number;
}

export class GuestMemory {
  readonly memory: WebAssembly.Memory;
  readonly ramBytes: number;
  /** Linear address of guest-physical 0. */
  readonly ramBase: number;
  /** Bytes of RAM below the hole. */
  readonly lowBytes: number;
  /** All of linear memory; RAM starts at `ramBase`. */
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Told about every write made from TypeScript, so that decoded code can be dropped. */
  onWrite: (guestPhysical: number, bytes: number) => void = () => {};

  constructor(options: GuestMemoryOptions) {
    const arena = Math.ceil((options.arenaBytes ?? WASM_PAGE) / WASM_PAGE);
    const ram = options.ramBytes / WASM_PAGE;
    if (!Number.isInteger(ram) || ram < 1 || options.ramBytes > MAX_RAM_BYTES) {
      throw new RangeError(`guest RAM must be a multiple of 64 KiB up to 3 GiB, not ${options.ramBytes} bytes`);
    }
    this.memory = new WebAssembly.Memory({ initial: arena + ram, maximum: arena + ram, shared: true });
    this.ramBytes = options.ramBytes;
    this.ramBase = arena * WASM_PAGE;
    this.lowBytes = Math.min(options.ramBytes, MMIO_HOLE_BASE);
    this.bytes = new Uint8Array(this.memory.buffer);
    this.view = new DataView(this.memory.buffer);
  }

  get ranges(): RamRange[] {
    const low = { guestPhysical: 0, bytes: this.lowBytes };
    const high = { guestPhysical: FOUR_GIB, bytes: this.ramBytes - this.lowBytes };
    return high.bytes > 0 ? [low, high] : [low];
  }

  /** Linear address of `bytes` bytes of RAM at `guestPhysical`, or -1 where that is not RAM throughout. */
  linear(guestPhysical: number, bytes = 1): number {
    if (guestPhysical >= 0 && guestPhysical + bytes <= this.lowBytes) return this.ramBase + guestPhysical;
    const above = guestPhysical - FOUR_GIB;
    if (above >= 0 && above + bytes <= this.ramBytes - this.lowBytes) return this.ramBase + this.lowBytes + above;
    return -1;
  }

  /** A view of RAM. Throws where the range is not RAM: callers check guest-made addresses with `linear` first. */
  slice(guestPhysical: number, bytes: number): Uint8Array {
    const start = this.linear(guestPhysical, bytes);
    if (start < 0) throw new RangeError(`not RAM: ${bytes} bytes at 0x${guestPhysical.toString(16)}`);
    return this.bytes.subarray(start, start + bytes);
  }

  /** Copies `data` into RAM and drops code decoded from there. */
  write(guestPhysical: number, data: Uint8Array): void {
    this.slice(guestPhysical, data.length).set(data);
    this.onWrite(guestPhysical, data.length);
  }
}
