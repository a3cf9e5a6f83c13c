import { describe, expect, it } from 'vitest';
import * as aml from './aml.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('AML encoder', () => {
  it('uses the shortest constant for an integer', () => {
    expect([0, 1, 2, 0x100, 0x1_0000, 0x1_0000_0000].map((value) => hex(aml.integer(value)))).toEqual([
      '00',
      '01',
      '0a02',
      '0b0001',
      '0c00000100',
      '0e0000000001000000',
    ]);
  });

  it('compresses an EISA id', () => {
    expect(hex(aml.eisaId('PNP0501'))).toBe('0c41d00501');
    expect(() => aml.eisaId('ACPI0007')).toThrow('not an EISA id');
  });

  it('pads name segments and joins paths with the right prefix', () => {
    expect(hex(aml.nameString('\\_S5'))).toBe(hex(Buffer.from('\\_S5_')));
    expect(hex(aml.nameString('\\_SB.PCI0'))).toBe(hex(Buffer.from('\\._SB_PCI0')));
    expect(hex(aml.nameString('A.B.C'))).toBe(hex(Buffer.from('/\x03A___B___C___')));
    expect(() => aml.nameString('toolong')).toThrow('not an ACPI name');
  });

  it.each([
    [0, 1],
    [0x3e, 1],
    [0x3f, 2],
    [0xffd, 2],
    [0xffe, 3],
    [0xf_fffc, 3],
    [0xf_fffd, 4],
  ])('counts the length field in a package length around %i bytes of content', (contentBytes, lengthBytes) => {
    const nameBytes = 4;
    if (contentBytes < nameBytes) return expect(hex(aml.packageOf())).toBe('120200');
    const encoded = aml.scope('ABCD', new Uint8Array(contentBytes - nameBytes));
    expect(encoded.length).toBe(1 + lengthBytes + contentBytes);
    const lead = encoded[1];
    expect(lead >> 6).toBe(lengthBytes - 1);
    let length = lengthBytes === 1 ? lead : lead & 0xf;
    for (let i = 0; i < lengthBytes - 1; i++) length |= encoded[2 + i] << (4 + 8 * i);
    expect(length).toBe(lengthBytes + contentBytes);
  });

  it('makes a package of more than 255 elements a VarPackage', () => {
    const elements = (count: number): Uint8Array[] => Array.from({ length: count }, () => aml.integer(0));
    expect(aml.packageOf(...elements(255))[0]).toBe(0x12);
    expect(aml.packageOf(...elements(256))[0]).toBe(0x13);
  });
});
