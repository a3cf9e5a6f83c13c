import { beforeEach, describe, expect, it } from 'vitest';
import type { BusDevice } from '../memory/bus.ts';
import {
  UV_GLOBAL_MMR32_PNODE_SHIFT,
  UV_GLOBAL_MMR64_BASE,
  UV_GLOBAL_MMR64_PNODE_SHIFT,
  UVH_APICID,
  UVH_IPI_INT,
  UVH_IPI_INT_32,
  UVH_NODE_ID,
  UVH_RH_GAM_CONFIG,
  UVH_RH_GAM_MMR_OVERLAY_CONFIG,
  UvHubs,
  type UvInterrupt,
} from './uv-hub.ts';

let sent: UvInterrupt[];
let hubs: UvHubs;

beforeEach(() => {
  sent = [];
  hubs = new UvHubs({ pnodes: 4, pnode: () => 2, send: (interrupt) => sent.push(interrupt) });
});

function write64(device: BusDevice, offset: number, value: bigint): void {
  device.write(offset, 4, Number(value & 0xffff_ffffn));
  device.write(offset + 4, 4, Number(value >> 32n));
}
const read64 = (device: BusDevice, offset: number): bigint =>
  BigInt(device.read(offset, 4)) | (BigInt(device.read(offset + 4, 4)) << 32n);

const SEND = 1n << 63n;

describe('the IPI register', () => {
  it('sends when its upper half is written with the send bit: vector, delivery mode, APIC ID', () => {
    const value = SEND | (0x83n << 16n) | (4n << 8n) | 0x02n; // NMI
    write64(hubs.global64, 2 * 2 ** UV_GLOBAL_MMR64_PNODE_SHIFT + UVH_IPI_INT, value);
    expect(sent).toEqual([{ pnode: 2, apicId: 0x83, vector: 2, deliveryMode: 4, logical: false }]);
    expect(read64(hubs.global64, 2 * 2 ** UV_GLOBAL_MMR64_PNODE_SHIFT + UVH_IPI_INT)).toBe(value);
  });

  it('has 32 bits of APIC ID across its halves, and a logical destination', () => {
    write64(hubs.local, UVH_IPI_INT, SEND | (0x1234_5678n << 16n) | (1n << 11n) | 0xfdn);
    expect(sent).toEqual([{ pnode: 2, apicId: 0x1234_5678, vector: 0xfd, deliveryMode: 0, logical: true }]);
  });

  it('is the same one in the global 32-bit space', () => {
    write64(hubs.global32, (3 << UV_GLOBAL_MMR32_PNODE_SHIFT) + UVH_IPI_INT_32, SEND | (0xc0n << 16n) | 0x31n);
    expect(sent).toEqual([{ pnode: 3, apicId: 0xc0, vector: 0x31, deliveryMode: 0, logical: false }]);
    expect(read64(hubs.global64, 3 * 2 ** UV_GLOBAL_MMR64_PNODE_SHIFT + UVH_IPI_INT)).toBe(SEND | (0xc0n << 16n) | 0x31n);
  });

  it('sends nothing without the send bit, nor for narrow writes', () => {
    write64(hubs.local, UVH_IPI_INT, 0x31n);
    hubs.local.write(UVH_IPI_INT + 6, 2, 0x8000);
    expect(sent).toEqual([]);
  });
});

it('tells blade, part and the format of addresses and APIC IDs', () => {
  const nodeId = read64(hubs.local, UVH_NODE_ID);
  expect(Number((nodeId >> 32n) & 0x7fffn) >> 1).toBe(2);
  expect(Number((nodeId >> 12n) & 0xffffn)).toBe(0x88a5);
  expect(read64(hubs.global64, UVH_NODE_ID) >> 32n).toBe(0n);
  expect(read64(hubs.local, UVH_RH_GAM_MMR_OVERLAY_CONFIG)).toBe(SEND | BigInt(UV_GLOBAL_MMR64_BASE));
  expect(Number(read64(hubs.local, UVH_RH_GAM_CONFIG) >> 6n) & 15).toBe(8);
  expect(Number(read64(hubs.local, UVH_APICID) >> 56n) & 0x1f).toBe(6);
  expect(read64(hubs.local, 0x1000)).toBe(0n);
});
