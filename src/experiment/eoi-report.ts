/** Traced EOIs as text: what was executed, and what it came to. */

import { type PathCounts, pathCounts, type TracedPath, type TracedStep } from '../machine/call-tracer.ts';
import type { SymbolTable } from '../machine/symbol-table.ts';
import { type Row, formatCount, textTable } from './text-table.ts';

export const NO_EXIT = '—';

/** What a path's EOIs left the guest for. */
export function exitText({ exits }: Pick<PathCounts, 'exits'>): string {
  const parts = Object.entries(exits).map(([reason, count]) => (count === 1 ? reason : `${count} × ${reason}`));
  return parts.join(', ') || NO_EXIT;
}

/** `2 (1 taken)`. */
export const branchText = ({ branches, branchesTaken }: Pick<PathCounts, 'branches' | 'branchesTaken'>): string =>
  branches === 0 ? '0' : `${branches} (${branchesTaken} taken)`;

/** A path's cells, as tables have them. Transfers are jumps, calls and returns. */
export const COST_HEAD = ['instructions', 'branches', 'transfers', 'reads + writes', 'exit', 'cycles'] as const;

export function costCells(path: TracedPath): string[] {
  const counts = pathCounts(path);
  const { instructions, transfers, reads, writes } = counts;
  const cycles = formatCount(path.cycles / path.calls);
  return [`${instructions}`, branchText(counts), `${transfers}`, `${reads} + ${writes}`, exitText(counts), cycles];
}

/** Machine code to text: NASM's syntax. */
export type Disassemble = (code: Uint8Array, guestVirtual: bigint, codeBits: TracedPath['codeBits']) => string;

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
/** Functions that a path leads through. */
export const functionsOf = ({ steps }: TracedPath, symbols: SymbolTable): string[] =>
  symbols.functions(steps.map(({ guestVirtual }) => guestVirtual));

function remarks({ kind, isTaken, accesses, exits }: TracedStep): string {
  const found = accesses.map((access) => `${access.kind}s ${access.bytes}`);
  if (kind === 'branch') found.unshift(isTaken ? 'taken' : 'not taken');
  return [...found, ...exits.map((reason) => `exit: ${reason}`)].join(', ');
}

/** Every instruction in the order in which it was executed, under the functions' names. */
export function pathListing({ steps, codeBits }: TracedPath, symbols: SymbolTable, disassemble: Disassemble): string[] {
  const texts = steps.map(({ code, guestVirtual }) => {
    const text = disassemble(code, guestVirtual, codeBits);
    const target = /^(?:call|j\w+) (0x[0-9a-f]+)$/.exec(text);
    const place = target && symbols.at(BigInt(target[1]));
    return place ? text.replace(target[1], place.offset ? `${place.name}+0x${place.offset.toString(16)}` : place.name) : text;
  });
  const width = Math.max(...texts.map(({ length }) => length));
  const bytesWidth = Math.max(...steps.map(({ code }) => 3 * code.length - 1));
  let last = '';
  return steps.flatMap((step, i) => {
    const { name = '?', offset = 0 } = symbols.at(step.guestVirtual) ?? {};
    const remark = remarks(step);
    const text = remark ? `${texts[i].padEnd(width)}  ; ${remark}` : texts[i];
    const line = `  +${offset.toString(16).padStart(3)}  ${hex(step.code).padEnd(bytesWidth)}  ${text}`;
    const heading = name === last ? [] : [`${name}:`];
    last = name;
    return [...heading, line];
  });
}

/** A table of paths: how often, by way of which functions, and at what cost. */
export function pathTable(paths: readonly TracedPath[], symbols: SymbolTable): string {
  const rows = paths.map(
    (path): Row => [`[${paths.indexOf(path) + 1}] ${path.name}`, formatCount(path.calls), ...costCells(path)],
  );
  const left = new Set([0]);
  const table = textTable({ head: ['what', 'times', ...COST_HEAD], rows, leftColumns: left });
  const ways = paths.map((path, index) => {
    const [first, ...others] = functionsOf(path, symbols);
    const origins = [...path.origins].map(([address, calls]) => `${symbols.at(address)?.name ?? '?'} ${formatCount(calls)}`);
    return `[${index + 1}] ${others.length ? `${others.join(' → ')}\n    from ${origins.join(', ')}` : first}`;
  });
  return `${table}\n\n${ways.join('\n')}`;
}
