/**
 * The hubs of SGI's UV 1000 (UV1): a node controller on each blade, with memory-mapped registers (MMRs) of 64 bits that all processors
 * of the machine reach, and by which they interrupt one of that blade. Source: what Linux does with them (uv_mmrs.h, uv_hub.h); the
 * programmer's reference is not public.
 *
 * Here are three views of the registers: the local one (this blade's hub, 64 MiB), the global one for 32-bit MMRs, where some registers
 * have a second address, and the global one for 64-bit MMRs. Modelled: node ID, address configuration, the APIC IDs' format, the IPI
 * register. Not modelled: GRU and BAU, clocks, scratch registers, errors; they read as 0. Assumed: the globally visible spaces lie
 * where the constants say, which is the firmware's choice; 32-bit halves may be written one after the other, the upper one last.
 */

import type { AccessBytes, BusDevice } from '../memory/bus.ts';

export const UV_LOCAL_MMR_BASE = 0xf400_0000;
export const UV_LOCAL_MMR_BYTES = 64 * 2 ** 20;
export const UV_GLOBAL_MMR32_BASE = 0xf800_0000;
export const UV_GLOBAL_MMR32_PNODE_SHIFT = 15;
export const UV_GLOBAL_MMR64_BASE = 0x80_0000_0000;
export const UV_GLOBAL_MMR64_PNODE_SHIFT = 26;

/** Registers, by their offsets in the local and the global 64-bit space. */
export const UVH_NODE_ID = 0x0;
export const UVH_IPI_INT = 0x6_0500;
export const UVH_APICID = 0x2d_0e00;
export const UVH_RH_GAM_CONFIG = 0x160_0000;
export const UVH_RH_GAM_MMR_OVERLAY_CONFIG = 0x160_0028;
/** The IPI register once more, in the global 32-bit space. */
export const UVH_IPI_INT_32 = 0x348;

/** IPI register: vector in bits 7 to 0, delivery mode in 10 to 8, logical destination 11, APIC ID in 47 to 16, send 63. */
export const UVH_IPI_DELIVERY_SHIFT = 8;
export const UVH_IPI_LOGICAL = 1 << 11;
export const UVH_IPI_APIC_ID_SHIFT = 16;
export const UVH_IPI_SEND_BIT = 63;
/** The overlay's base is in bits 45 to 26, bit 63 says that it is there. */
export const UVH_OVERLAY_ENABLE_BIT = 63;
/** An APIC ID's bits from here on are the blade's number (pnode); those below, the processor on it. */
export const UV_APIC_PNODE_SHIFT = 6;

const UV1_PART_NUMBER = 0x88a5;
/** NODE_ID: bit 0 is always 1, part number in 27 to 12, node ID (twice the pnode) in 46 to 32. */
const NODE_ID_LOW = (1 | (UV1_PART_NUMBER << 12)) >>> 0;
/** APICID: mask of the processor's bits from 0, mask of the pnode's from 32, where those begin in 60 to 56. GAM_CONFIG: bits of a socket's address range in 5 to 0, of a pnode in 9 to 6. */
const M_SKT = 33;

/** The widest machine: pnodes have 8 bits here, as many blades as vCPUs can need. */
const N_SKT = 8;
export const UV_MAX_PNODES = 1 << N_SKT;

export interface UvInterrupt {
  pnode: number;
  apicId: number;
  vector: number;
  deliveryMode: number;
  logical: boolean;
}

export interface UvHubsOptions {
  /** Blades that there are: others' registers read as all ones. */
  pnodes: number;
  /** The blade of the processor that makes the access. */
  pnode(): number;
  send(interrupt: UvInterrupt): void;
}

/** All blades' hubs. */
export class UvHubs {
  readonly local: BusDevice;
  readonly global32: BusDevice;
  readonly global64: BusDevice;
  private readonly options: UvHubsOptions;
  /** Lower and upper half of each hub's IPI register. */
  private readonly ipi: Uint32Array;

  constructor(options: UvHubsOptions) {
    this.options = options;
    this.ipi = new Uint32Array(2 * options.pnodes);
    const device = (pnodeOf: (offset: number) => number, registerOf: (offset: number) => number): BusDevice => ({
      read: (offset, bytes) => this.read(pnodeOf(offset), registerOf(offset), bytes),
      write: (offset, bytes, value) => this.write(pnodeOf(offset), registerOf(offset), bytes, value),
    });
    this.local = device(
      () => options.pnode(),
      (offset) => offset,
    );
    this.global32 = device(
      (offset) => offset >>> UV_GLOBAL_MMR32_PNODE_SHIFT,
      (offset) => {
        const register = offset % (1 << UV_GLOBAL_MMR32_PNODE_SHIFT);
        const within = register - UVH_IPI_INT_32;
        return within >= 0 && within < 8 ? UVH_IPI_INT + within : -1;
      },
    );
    this.global64 = device(
      (offset) => Math.floor(offset / 2 ** UV_GLOBAL_MMR64_PNODE_SHIFT),
      (offset) => offset % 2 ** UV_GLOBAL_MMR64_PNODE_SHIFT,
    );
  }

  get global32Bytes(): number {
    return this.options.pnodes << UV_GLOBAL_MMR32_PNODE_SHIFT;
  }

  get global64Bytes(): number {
    return this.options.pnodes * 2 ** UV_GLOBAL_MMR64_PNODE_SHIFT;
  }

  /** Halves of registers are read; anything narrower is 0. */
  private read(pnode: number, register: number, bytes: AccessBytes): number {
    if (bytes !== 4 || register & 3) return 0;
    const [low, high] = this.register(pnode, register - (register & 4));
    return register & 4 ? high : low;
  }

  private register(pnode: number, register: number): readonly [low: number, high: number] {
    switch (register) {
      case UVH_NODE_ID:
        return [NODE_ID_LOW, pnode << 1];
      case UVH_IPI_INT:
        return [this.ipi[2 * pnode], this.ipi[2 * pnode + 1]];
      case UVH_APICID:
        return [(1 << UV_APIC_PNODE_SHIFT) - 1, (UV_MAX_PNODES - 1) | (UV_APIC_PNODE_SHIFT << 24)];
      case UVH_RH_GAM_CONFIG:
        return [M_SKT | (N_SKT << 6), 0];
      case UVH_RH_GAM_MMR_OVERLAY_CONFIG:
        return [
          UV_GLOBAL_MMR64_BASE >>> 0,
          (Math.floor(UV_GLOBAL_MMR64_BASE / 2 ** 32) | (1 << (UVH_OVERLAY_ENABLE_BIT - 32))) >>> 0,
        ];
      default:
        return [0, 0];
    }
  }

  /** A write of the upper half with the send bit sends. */
  private write(pnode: number, register: number, bytes: AccessBytes, value: number): void {
    const within = register - UVH_IPI_INT;
    if (bytes !== 4 || (within !== 0 && within !== 4)) return;
    this.ipi[2 * pnode + within / 4] = value;
    if (within === 0 || !(value >>> (UVH_IPI_SEND_BIT - 32))) return;
    const low = this.ipi[2 * pnode];
    this.options.send({
      pnode,
      apicId: (((value & 0xffff) << 16) | (low >>> UVH_IPI_APIC_ID_SHIFT)) >>> 0,
      vector: low & 0xff,
      deliveryMode: (low >>> UVH_IPI_DELIVERY_SHIFT) & 7,
      logical: (low & UVH_IPI_LOGICAL) !== 0,
    });
  }
}
