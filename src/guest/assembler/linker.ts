/**
 * Puts object code at addresses and fills in what the objects say of each other's symbols: a linker without sections.
 */

import type { ObjectCode } from './assembler.ts';

export interface LinkOptions {
  /** Address of the first byte. */
  base: number;
  /** Symbols that no object defines: registers of devices, per-CPU offsets. */
  absolute?: Readonly<Record<string, number>> | undefined;
}

export interface LinkedImage {
  base: number;
  bytes: Uint8Array;
  /** Addresses of all global and local symbols, the absolute ones included. */
  symbols: ReadonlyMap<string, number>;
}

/**
 * Links in the given order. Throws on a symbol that is missing or defined twice, and on an address that doesn't fit its field.
 */
export function link(objects: readonly ObjectCode[], { base, absolute = {} }: LinkOptions): LinkedImage {
  const symbols = new Map(Object.entries(absolute));
  const places: number[] = [];
  let end = base;
  for (const { bytes, alignment, symbols: own } of objects) {
    const place = Math.ceil(end / alignment) * alignment;
    places.push(place);
    for (const [name, offset] of own) {
      if (symbols.has(name)) throw new Error(`symbol ${name} is defined twice`);
      symbols.set(name, place + offset);
    }
    end = place + bytes.length;
  }
  const image = new Uint8Array(end - base);
  const view = new DataView(image.buffer);
  for (const [i, { bytes, relocations }] of objects.entries()) {
    image.set(bytes, places[i] - base);
    for (const { offset, bytes: size, kind, symbol, addend } of relocations) {
      const target = symbols.get(symbol);
      if (target === undefined) throw new Error(`symbol ${symbol} is not defined`);
      const place = places[i] + offset;
      const value = target + addend - (kind === 'relative' ? place : 0);
      const limit = 2 ** (8 * size);
      const fits = kind === 'absolute' ? value >= -limit / 2 && value < limit : value >= -limit / 2 && value < limit / 2;
      if (!fits) throw new Error(`${symbol} at ${target.toString(16)} does not fit the ${size} bytes at ${place.toString(16)}`);
      const at = place - base;
      if (size === 8) view.setBigInt64(at, BigInt(value), true);
      else if (size === 4) view.setInt32(at, value, true);
      else if (size === 2) view.setInt16(at, value, true);
      else view.setInt8(at, value);
    }
  }
  return { base, bytes: image, symbols };
}
