/** The generated parts of docs/eoi.md: listings of each state, and tables of what EOIs cost. */

import { DRIVER_NAMES, type DriverName } from '../guest/apic/apic-driver.ts';
import { EOI_STATES, type EoiState } from '../guest/apic/driver-code.ts';
import { DRIVERS, driverNamed } from '../guest/apic/drivers/all.ts';
import { compareObjdumps, objdump } from '../guest/listing.ts';
import type { TracedPath } from '../machine/call-tracer.ts';
import { Machine } from '../machine/machine.ts';
import type { VcpuCounts } from '../trace/counters.ts';
import { traceDriverEois } from './driver-eoi.ts';
import type { SymbolTable } from '../machine/symbol-table.ts';
import { EOI, OTHER_WRITE } from './eoi-code.ts';
import { COST_HEAD, costCells, type Disassemble, functionsOf, NO_EXIT, pathListing } from './eoi-report.ts';
import { type EoiTrace, LINUX_RUN } from './eoi-trace.ts';
import { runExperiment } from './runner.ts';
import { STRATEGIES } from './strategy.ts';
import { formatCount } from './text-table.ts';
import { TINY_WORKLOADS, tinyGuest } from './tiny-guest.ts';

const fenced = (lines: readonly string[]): string => ['```', ...lines, '```'].join('\n');

/** What the micro-optimisation takes away, and PV EOI's override. */
export function eoiListings(): Record<'acknowledge' | 'memory' | 'msr' | 'override', string> {
  const x2apic = driverNamed('x2apic_phys');
  return {
    acknowledge: fenced(objdump(x2apic, 'ackApicIrq', 'callback')),
    memory: fenced(objdump(driverNamed('flat'), 'eoiWrite', 'callback')),
    msr: fenced(compareObjdumps(x2apic, 'eoiWrite', ['callback', 'x2apic-eoi'])),
    override: fenced(objdump(x2apic, 'eoiWrite', 'pv-eoi').slice(0, objdump(x2apic, 'eoiWrite', 'pv-eoi').indexOf(''))),
  };
}

const pathCells = (path: TracedPath, traced: number): string[] => [...costCells(path), `${path.calls} of ${traced}`];

/** Rows of a driver; states whose EOIs execute the same share one. */
function driverRows(name: DriverName): string[] {
  const groups: { states: EoiState[]; paths: string[][] }[] = [];
  for (const state of EOI_STATES) {
    const { paths, traced } = traceDriverEois(driverNamed(name), state);
    const cells = paths.map((path) => pathCells(path, traced));
    const last = groups.at(-1);
    if (last && JSON.stringify(last.paths) === JSON.stringify(cells)) last.states.push(state);
    else groups.push({ states: [state], paths: cells });
  }
  return groups.flatMap(({ states, paths }, group) =>
    paths.map((cells, i) => {
      const ended = paths.length === 1 ? '' : cells[4] === NO_EXIT ? ': by the word' : ': by the register';
      const labels = [group || i ? '' : `**${name}**, ${driverNamed(name).bits}-bit`, states.join(', ') + ended];
      return `| ${[...labels, ...cells].join(' | ')} |`;
    }),
  );
}

/** Every driver in every state, as Markdown: what its EOIs were made of when the tiny kernel ran. Takes some seconds. */
export function driverEoiTable(): string {
  const head = ['driver', 'state', ...COST_HEAD, 'EOIs'];
  const drivers = DRIVER_NAMES.filter((name) => DRIVERS.some((driver) => driver.name === name));
  return [`| ${head.join(' | ')} |`, `|${head.map(() => '---').join('|')}|`, ...drivers.flatMap(driverRows)].join('\n');
}

/** How the tiny guest is compared for the document. */
const SAVINGS_RUN = { vcpus: 2, load: 100, seed: 1 } as const;
const SAVINGS_MEMORY_BYTES = 8 * 2 ** 20;

/** What PV EOI saves in each phase of the tiny guest, as Markdown: all of it counted, nothing timed. */
async function savingsTable(): Promise<string> {
  const { vcpus, load, seed } = SAVINGS_RUN;
  const machine = { kernel: tinyGuest(load).elf, vcpus, memoryBytes: SAVINGS_MEMORY_BYTES };
  const strategies = STRATEGIES.filter(({ name }) => name === 'x2apic' || name === 'pv-eoi');
  const host = { seconds: () => 0, pause: () => Promise.resolve() };
  const [register, word] = await runExperiment({ machine, strategies, repeat: 1, seed }, host, (options) => new Machine(options));
  const rows = [...TINY_WORKLOADS.map((phase) => [phase, register.phases[phase], word.phases[phase]] as const)].map(
    ([phase, before, after]) => {
      const both = (of: (counts: VcpuCounts) => number): string =>
        `${formatCount(of(before.counters.total))} → ${formatCount(of(after.counters.total))}`;
      const causes = Object.entries(after.counters.total.eois.writtenBecause).filter(([, count]) => count > 0);
      const why = causes.map(([cause, count]) => `${cause} ${formatCount(count)}`).join(', ');
      const cycles = both(({ instructions, cyclesCharged }) => instructions + cyclesCharged);
      return [phase, both(({ eois }) => eois.written), why || NO_EXIT, both(({ exits }) => exits.total), cycles];
    },
  );
  const head = ['phase', 'EOIs written', 'why, with PV EOI', 'exits', 'busy cycles'];
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** The parts that need nothing but us. */
export const eoiDocumentParts = async (): Promise<Record<string, string>> => ({
  ...eoiListings(),
  costs: driverEoiTable(),
  savings: await savingsTable(),
});

/** Replaces the parts of a document that lie between `<!-- generated: NAME -->` and `<!-- end -->`. Throws where there is no such place. */
export function withGeneratedParts(document: string, parts: Readonly<Record<string, string>>): string {
  let text = document;
  for (const [name, contents] of Object.entries(parts)) {
    const [before, rest] = splitAt(text, `<!-- generated: ${name} -->\n`);
    const [, behind] = splitAt(rest, '<!-- end -->');
    text = `${before}<!-- generated: ${name} -->\n${contents}\n<!-- end -->${behind}`;
  }
  return text;
}

function splitAt(text: string, separator: string): [before: string, behind: string] {
  const at = text.indexOf(separator);
  if (at < 0) throw new RangeError(`the document has no ${separator.trim()}`);
  return [text.slice(0, at), text.slice(at + separator.length)];
}

// --- Linux ----------------------------------------------------------------------------------------

/** Paths that were executed less often are those of the boot, before the kernel has patched itself. */
const SHOWN_SHARE = 0.01;

/** What a Linux kernel's EOIs executed, by strategy; and the listings of what the micro-optimisation and the word are about. */
export function linuxEoiPart(
  kernel: string,
  traces: readonly EoiTrace[],
  symbols: SymbolTable,
  disassemble: Disassemble,
): string {
  const shown = ({ paths, traced }: EoiTrace): TracedPath[] => paths.filter(({ calls }) => calls >= traced * SHOWN_SHARE);
  const way = (path: TracedPath): string => {
    const functions = functionsOf(path, symbols);
    return (path.name === OTHER_WRITE ? functions : functions.slice(1)).map((name) => `\`${name}\``).join(' → ');
  };
  const rows = traces.flatMap((trace) =>
    shown(trace).map((path, i) => {
      const label = i ? '' : `**${trace.strategy}**, ${formatCount(trace.traced)} EOIs`;
      return `| ${[label, path.name, way(path), formatCount(path.calls), ...costCells(path)].join(' | ')} |`;
    }),
  );
  const head = ['strategy', 'write of', 'through', 'times', ...COST_HEAD];
  const table = [`| ${head.join(' | ')} |`, `|${head.map(() => '---').join('|')}|`, ...rows].join('\n');
  const listed = (strategy: string, isWanted: (path: TracedPath) => boolean): string => {
    const path = traces.find((trace) => trace.strategy === strategy)?.paths.find(isWanted);
    return path ? fenced(pathListing(path, symbols, disassemble)) : '';
  };
  const isEoi = ({ name }: TracedPath): boolean => name === EOI;
  return [
    `${kernel}, ${LINUX_RUN.vcpus} vCPUs, \`exitless eoi --guest debian --load ${LINUX_RUN.load}\`:`,
    table,
    'The EOI of x2APIC, from a handler:',
    listed('x2apic', isEoi),
    'The generic write, which it would be without a function of its own; here of another register:',
    listed('x2apic', ({ name }) => name === OTHER_WRITE),
    'PV EOI, with the bit set:',
    listed('pv-eoi', isEoi),
  ].join('\n\n');
}
