import { describe, expect, it } from 'vitest';
import { assembler } from './assembler.ts';
import { link } from './linker.ts';
import { address, dword, eax, esi, rax, rdi } from './operands.ts';

describe('the linker', () => {
  const main = assembler(64).label('main').call('write').lea(rax, dword('table', 4)).ret().assemble();
  const write = assembler(64)
    .align(16)
    .label('write')
    .mov(dword(rdi, address('APIC_BASE')), esi)
    .ret()
    .assemble();
  const table = assembler(64).align(8, 0).label('table').dq(address('main'), address('table', 8)).assemble();

  it('places objects by their alignment and resolves what they say of each other', () => {
    const { bytes, symbols } = link([main, write, table], { base: 0x100000, absolute: { APIC_BASE: -0xa03000 } });
    expect(symbols.get('write')).toBe(0x100010);
    expect(symbols.get('table')).toBe(0x100018);
    const view = new DataView(bytes.buffer);
    expect(view.getInt32(1, true)).toBe(0x10 - 5);
    expect(view.getInt32(8, true)).toBe(0x18 + 4 - 12);
    expect(view.getInt32(0x12, true)).toBe(-0xa03000);
    expect(view.getBigUint64(0x18, true)).toBe(0x100000n);
    expect(view.getBigUint64(0x20, true)).toBe(0x100020n);
  });

  it('refuses missing and repeated symbols, and addresses that do not fit', () => {
    expect(() => link([main], { base: 0 })).toThrow('symbol write is not defined');
    expect(() => link([table, table], { base: 0 })).toThrow('symbol table is defined twice');
    expect(() => link([write], { base: 0, absolute: { APIC_BASE: 0xfee0_0000 } })).toThrow(/does not fit/);
    const absolute = assembler(32)
      .mov(eax, dword(address('APIC_BASE')))
      .assemble();
    expect([...link([absolute], { base: 0, absolute: { APIC_BASE: 0xfee0_0000 } }).bytes]).toEqual([0xa1, 0, 0, 0xe0, 0xfe]);
  });
});
