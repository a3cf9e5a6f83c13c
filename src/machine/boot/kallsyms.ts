/**
 * The symbols that a Linux kernel carries in itself (CONFIG_KALLSYMS), found in its image without any help: names are strings of tokens,
 * tokens are in a table that has the digits one after the other. Source: Linux's scripts/kallsyms.c and kernel/kallsyms.c.
 * Reads the layouts of 4.6 to 6.3, and of 6.4 and later, of 64-bit kernels whose addresses are relative (CONFIG_KALLSYMS_BASE_RELATIVE).
 */
import { SymbolTable } from '../symbol-table.ts';
import { BootError } from './boot-error.ts';

const TOKENS = 256;
/** Names between two entries of the table of markers. */
const NAMES_PER_MARKER = 256;
const ORDER_BYTES = 3;
const FEWEST_SYMBOLS = 1000;
const MOST_SYMBOLS = 2 ** 21;
/** Names of more than this have a length of two bytes, since 6.1. */
const SHORT_NAME = 0x80;
const DIGITS = new TextEncoder().encode('0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00');

interface Tables {
  tokens: string[];
  /** Of the table of tokens' index: where what lies behind it begins. */
  end: number;
  names: number;
  count: number;
}

/** The symbols of an unpacked kernel (vmlinux), but for those not wanted. Throws a BootError where it has none that can be read. */
export function kernelSymbols(vmlinux: Uint8Array, unwanted: ReadonlySet<string> = new Set()): SymbolTable {
  const view = new DataView(vmlinux.buffer, vmlinux.byteOffset, vmlinux.byteLength);
  const tables = findTables(vmlinux, view);
  if (!tables) throw new BootError('the kernel has no table of its symbols (CONFIG_KALLSYMS) that can be read');
  const { names, count, tokens } = tables;
  const addresses = findAddresses(view, tables);
  const symbols: [string, bigint][] = [];
  let at = names;
  for (let symbol = 0; symbol < count; symbol++) {
    const [start, length] = nameAt(vmlinux, at);
    let name = '';
    for (let i = 0; i < length; i++) name += tokens[vmlinux[start + i]];
    at = start + length;
    // The first character is the symbol's type.
    if (!unwanted.has(name.slice(1))) symbols.push([name.slice(1), addresses(symbol)]);
  }
  return new SymbolTable(symbols);
}

/** Where a name's tokens begin, and how many there are. */
function nameAt(bytes: Uint8Array, at: number): [start: number, length: number] {
  const length = bytes[at];
  return length & SHORT_NAME ? [at + 2, (length & (SHORT_NAME - 1)) | (bytes[at + 1] << 7)] : [at + 1, length];
}

const align = (at: number, bytes: number): number => Math.ceil(at / bytes) * bytes;

function findTables(bytes: Uint8Array, view: DataView): Tables | undefined {
  for (let at = 0; ; at++) {
    at = indexOf(bytes, DIGITS, at);
    if (at < 0) return undefined;
    const found = tablesAround(bytes, view, at);
    if (found) return found;
  }
}

function indexOf(bytes: Uint8Array, wanted: Uint8Array, from: number): number {
  for (let at = bytes.indexOf(wanted[0], from); at >= 0; at = bytes.indexOf(wanted[0], at + 1)) {
    if (wanted.every((byte, i) => bytes[at + i] === byte)) return at;
  }
  return -1;
}

/** The tables, if the digits at `digits` are in a table of tokens: '0' is token 0x30, so that as many lie in front of it. */
function tablesAround(bytes: Uint8Array, view: DataView, digits: number): Tables | undefined {
  let start = digits;
  for (let token = 0x30; token > 0; token--) {
    start--; // the end of the token in front
    while (start > 0 && bytes[start - 1] !== 0) start--;
  }
  const tokens: string[] = [];
  const offsets: number[] = [];
  let at = start;
  for (let token = 0; token < TOKENS; token++) {
    const end = bytes.indexOf(0, at);
    offsets.push(at - start);
    tokens.push(new TextDecoder('latin1').decode(bytes.subarray(at, end)));
    at = end + 1;
  }
  const index = align(at, 4);
  for (const candidate of new Set([index, align(at, 8)])) {
    if (offsets.some((offset, token) => view.getUint16(candidate + 2 * token, true) !== offset)) continue;
    const names = findNames(bytes, view, start);
    if (names) return { tokens, end: align(candidate + 2 * TOKENS, 4), ...names };
  }
  return undefined;
}

/**
 * Number of symbols, names and markers lie in front of the tokens, in this order; some versions have the names' order (3 bytes a symbol)
 * behind them. The markers say whether a guess is right.
 */
function findNames(bytes: Uint8Array, view: DataView, tokens: number): Pick<Tables, 'names' | 'count'> | undefined {
  for (let at = align(tokens - 8, 4); at > 0; at -= 4) {
    const count = view.getUint32(at, true);
    if (count < FEWEST_SYMBOLS || count > MOST_SYMBOLS) continue;
    for (const names of [at + 4, at + 8]) {
      const markersBytes = 4 * Math.ceil(count / NAMES_PER_MARKER);
      for (const orderBytes of [0, align(ORDER_BYTES * count, 8)]) {
        const markers = tokens - orderBytes - align(markersBytes, 8);
        if (markers > names && hasNames(bytes, view, names, markers, count)) return { names, count };
      }
    }
  }
  return undefined;
}

/** Whether every marker has the place of a name. */
function hasNames(bytes: Uint8Array, view: DataView, names: number, markers: number, count: number): boolean {
  let at = names;
  for (let symbol = 0; symbol < count; symbol++) {
    if (symbol % NAMES_PER_MARKER === 0 && view.getUint32(markers + (symbol / NAMES_PER_MARKER) * 4, true) !== at - names) return false;
    const [start, length] = nameAt(bytes, at);
    at = start + length;
    if (length === 0 || at > markers) return false;
  }
  return true;
}

/**
 * Offsets, a word each, and the base they are relative to: in front of the number of symbols, or (6.4) behind the tokens. Offsets of
 * per-CPU symbols are positive and absolute, all others negative.
 */
function findAddresses(view: DataView, { names, end, count }: Tables): (symbol: number) => bigint {
  const isKernel = (address: bigint): boolean => address >> 32n === 0xffff_ffffn;
  const candidates: [offsets: number, base: number][] = [];
  for (const baseAt of [names - 12, names - 16]) {
    candidates.push([align(baseAt - 4 * count - 7, 8), baseAt], [baseAt - 4 * count, baseAt], [baseAt - align(4 * count, 8), baseAt]);
  }
  for (const start of [end, align(end, 8)]) candidates.push([start, align(start + 4 * count, 8)]);
  for (const [offsets, baseAt] of candidates) {
    if (baseAt + 8 > view.byteLength || offsets < 0 || offsets % 4) continue;
    const base = view.getBigUint64(baseAt, true);
    if (!isKernel(base)) continue;
    const addresses = (symbol: number): bigint => {
      const offset = BigInt(view.getInt32(offsets + 4 * symbol, true));
      return offset >= 0n ? offset : base - 1n - offset;
    };
    // They are sorted; the wrong place would not be.
    const relative = Array.from({ length: count }, (_, symbol) => addresses(symbol)).filter(isKernel);
    if (relative.length > count / 2 && relative.every((address, i) => i === 0 || address >= relative[i - 1])) return addresses;
  }
  throw new BootError('the kernel has names of its symbols, but no addresses that can be read');
}
