import { describe, expect, it } from 'vitest';
import { BootError } from './boot-error.ts';
import { kernelSymbols } from './kallsyms.ts';

const BASE = 0xffff_ffff_8100_0000n;
const COUNT = 1300;
/** Tokens of one character for what names are made of, and some of more. */
const TOKENS = Array.from({ length: 256 }, (_, token) => (token === 1 ? 'native_' : token === 2 ? 'T' : token >= 0x21 && token < 0x7f ? String.fromCharCode(token) : `tok${token}`));
const nameOf = (symbol: number): string => (symbol === 700 ? 'native_apic_msr_eoi_write' : `function_${symbol}`);
/** What is per CPU has its offset for its address. */
const addressOf = (symbol: number): bigint => (symbol < 3 ? BigInt(0x40 * symbol) : BASE + BigInt(16 * symbol));

interface TableLayout {
  /** Addresses behind the tokens, as since 6.4. */
  addressesLast: boolean;
  /** The names' order behind the markers, as in 6.1's stable series. */
  ordered: boolean;
}

/** Kernel tables as scripts/kallsyms.c writes them, with other things around. */
function image({ addressesLast, ordered }: TableLayout): Uint8Array {
  const bytes: number[] = Array(4096).fill(0x90);
  const align = (to: number): void => {
    while (bytes.length % to) bytes.push(0);
  };
  const u32 = (value: number): void => void bytes.push(value & 255, (value >> 8) & 255, (value >> 16) & 255, value >>> 24);
  const addresses = (): void => {
    align(8);
    for (let symbol = 0; symbol < COUNT; symbol++) u32(symbol < 3 ? Number(addressOf(symbol)) : Number(BASE - 1n - addressOf(symbol)) | 0);
    align(8);
    u32(Number(BASE & 0xffff_ffffn));
    u32(0xffff_ffff);
  };
  if (!addressesLast) addresses();
  align(8);
  u32(COUNT);
  align(8);
  const names = bytes.length;
  const markers: number[] = [];
  for (let symbol = 0; symbol < COUNT; symbol++) {
    if (symbol % 256 === 0) markers.push(bytes.length - names);
    const name = nameOf(symbol);
    const characters = (text: string): number[] => Array.from(text, (character) => character.charCodeAt(0));
    const tokens = [2, ...(name.startsWith('native_') ? [1, ...characters(name.slice(7))] : characters(name))];
    bytes.push(tokens.length, ...tokens);
  }
  align(8);
  for (const marker of markers) u32(marker);
  align(8);
  if (ordered) for (let symbol = 0; symbol < COUNT; symbol++) bytes.push(0, symbol >> 8, symbol & 255);
  align(8);
  const tokens = bytes.length;
  const offsets = TOKENS.map((token) => {
    const offset = bytes.length - tokens;
    bytes.push(...new TextEncoder().encode(token), 0);
    return offset;
  });
  align(8);
  for (const offset of offsets) bytes.push(offset & 255, offset >> 8);
  if (addressesLast) addresses();
  bytes.push(...Array(64).fill(0xcc));
  return Uint8Array.from(bytes);
}

describe('kernelSymbols', () => {
  it.each<[string, TableLayout]>([
    ['4.6', { addressesLast: false, ordered: false }],
    ["6.1's stable series", { addressesLast: false, ordered: true }],
    ['6.4', { addressesLast: true, ordered: false }],
  ])('reads the tables as %s has them', (_, layout) => {
    const symbols = kernelSymbols(image(layout));
    expect(symbols.addressOf('native_apic_msr_eoi_write')).toBe(addressOf(700));
    expect(symbols.addressOf('function_2')).toBe(0x80n);
    expect(symbols.named(() => true)).toHaveLength(COUNT);
    expect(symbols.at(addressOf(1299) + 5n)).toEqual({ name: 'function_1299', offset: 5 });
  });

  it('refuses a kernel without symbols, and one whose tables are cut', () => {
    expect(() => kernelSymbols(new Uint8Array(100_000))).toThrow(BootError);
    const whole = image({ addressesLast: true, ordered: false });
    expect(() => kernelSymbols(whole.subarray(0, whole.length - 4000))).toThrow(BootError);
  });
});
