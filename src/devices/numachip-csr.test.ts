import { beforeEach, expect, it } from 'vitest';
import {
  CSR_G0_NODE_IDS,
  CSR_G3_EXT_IRQ_GEN,
  NUMACHIP_CSR_NON_GEO,
  NumachipCsr,
  type NumachipCsrOptions,
} from './numachip-csr.ts';

const IRQ_GEN = NUMACHIP_CSR_NON_GEO + CSR_G3_EXT_IRQ_GEN;
let sent: Parameters<NumachipCsrOptions['send']>[0][];
let csr: NumachipCsr;

beforeEach(() => {
  sent = [];
  csr = new NumachipCsr({ node: () => 5, send: (interrupt) => sent.push(interrupt) });
});

it('sends what is written to EXT_IRQ_GEN, big-endian: vector, delivery mode, local APIC and its server', () => {
  csr.write(IRQ_GEN, 4, 0xfd00_0302); // 0x020300fd: server 2, APIC 3, fixed
  csr.write(IRQ_GEN, 4, 0x0805_0001); // 0x01000508: server 1, APIC 0, INIT
  expect(sent).toEqual([
    { node: 2, apicId: 3, vector: 0xfd, deliveryMode: 0 },
    { node: 1, apicId: 0, vector: 0x08, deliveryMode: 5 },
  ]);
  expect(csr.read(IRQ_GEN, 4)).toBe(0x0805_0001);
});

it('repeats its registers for every node number of the local space', () => {
  csr.write(0x1f0_0000 + IRQ_GEN, 4, 0x3100_0000);
  expect(sent).toEqual([{ node: 0, apicId: 0, vector: 0x31, deliveryMode: 0 }]);
});

it('tells the number of the server it is asked on', () => {
  expect(csr.read(NUMACHIP_CSR_NON_GEO + CSR_G0_NODE_IDS, 4)).toBe(0x0000_0500);
});

it('takes whole registers alone, at their place alone', () => {
  csr.write(IRQ_GEN, 2, 0x3100);
  csr.write(IRQ_GEN + 4, 4, 0x3100_0000);
  csr.write(CSR_G3_EXT_IRQ_GEN, 4, 0x3100_0000); // the half without registers
  expect(sent).toEqual([]);
  expect([csr.read(IRQ_GEN, 1), csr.read(IRQ_GEN + 4, 4), csr.read(0, 4)]).toEqual([0, 0, 0]);
});
