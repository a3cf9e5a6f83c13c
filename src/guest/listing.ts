/** Listings of guest code: offsets, bytes, NASM's syntax and notes; of one function, or of two states beside each other. */

import type { ObjectCode } from './assembler/assembler.ts';
import { acknowledgeSymbol, type EoiState, functionCode, methodSymbol, nativeEoiSymbol } from './apic/driver-code.ts';
import type { ApicDriver, Method } from './apic/apic-driver.ts';

const BYTES_COLUMN = 24;
const TEXT_COLUMN = 36;
const BYTES_PER_LINE = 8;

const count = (n: number, one: string): string => `${n} ${one}${n === 1 ? '' : 's'}`;

/** Bytes of a function without the padding behind it. */
export const codeBytes = (code: ObjectCode): number =>
  code.lines.reduce((end, { kind, offset, length }) => (kind === 'padding' ? end : Math.max(end, offset + length)), 0);
export const instructionCount = (code: ObjectCode): number => code.lines.filter(({ kind }) => kind === 'instruction').length;

/** A function as lines of text; the first has its name and size. Bytes that the linker fills in are dots. */
export function listing(code: ObjectCode, symbol: string): string[] {
  const relocated = new Set(code.relocations.flatMap(({ offset, bytes }) => Array.from({ length: bytes }, (_, i) => offset + i)));
  const out = [`${symbol}: ${count(codeBytes(code), 'byte')}, ${count(instructionCount(code), 'instruction')}`];
  for (const { kind, offset, length, text, note } of code.lines) {
    if (kind === 'label') {
      if (text !== `${symbol}:`) out.push(`      ${text}`);
      continue;
    }
    if (kind === 'padding') continue;
    const bytes = Array.from(code.bytes.subarray(offset, offset + length), (byte, i) =>
      relocated.has(offset + i) ? '..' : byte.toString(16).padStart(2, '0'),
    );
    const column = bytes.slice(0, BYTES_PER_LINE).join(' ').padEnd(BYTES_COLUMN);
    out.push(`${offset.toString(16).padStart(4)}  ${column}  ${note ? `${text.padEnd(TEXT_COLUMN)}  ; ${note}` : text}`);
    if (bytes.length > BYTES_PER_LINE) out.push(`      ${bytes.slice(BYTES_PER_LINE).join(' ')}`);
  }
  return out;
}

/** Two columns, each as wide as its widest line. */
export function sideBySide(left: readonly string[], right: readonly string[], gap = ' │ '): string[] {
  const width = Math.max(...left.map((line) => line.length));
  return Array.from({ length: Math.max(left.length, right.length) }, (_, i) =>
    `${(left[i] ?? '').padEnd(width)}${gap}${right[i] ?? ''}`.trimEnd(),
  );
}

/** What can be listed of a driver: its methods, and the call that every interrupt handler ends with. */
export type ListedMethod = Method | 'ackApicIrq';

/** The functions behind a method in a state: its own, and of PV EOI also the one it falls back to. */
export function methodFunctions(
  driver: ApicDriver,
  method: ListedMethod,
  state: EoiState,
): { symbol: string; code: ObjectCode }[] {
  const first =
    method === 'ackApicIrq'
      ? acknowledgeSymbol(state)
      : (methodSymbol(driver, method, state) ?? (method === 'eoiWrite' ? driver.methods.write : undefined));
  if (first === undefined) return [];
  const symbols = method === 'eoiWrite' && state === 'pv-eoi' ? [first, nativeEoiSymbol(driver)] : [first];
  return symbols.flatMap((symbol) => {
    const code = functionCode(symbol, driver.bits);
    return code ? [{ symbol, code }] : [];
  });
}

/**
 * `objdump` of a driver's method in a state; before the series, `eoiWrite` is `write`. Empty for a method that the driver doesn't
 * have.
 */
export function objdump(driver: ApicDriver, method: ListedMethod, state: EoiState): string[] {
  return methodFunctions(driver, method, state).flatMap(({ symbol, code }, i) => [...(i ? [''] : []), ...listing(code, symbol)]);
}

/** The same for two states, beside each other. */
export function compareObjdumps(driver: ApicDriver, method: ListedMethod, states: readonly [EoiState, EoiState]): string[] {
  const [left, right] = states.map((state) => [`[${state}]`, ...objdump(driver, method, state)]);
  return sideBySide(left, right);
}
