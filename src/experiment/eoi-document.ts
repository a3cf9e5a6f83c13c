/** The generated parts of docs/eoi.md: listings of each state, the table of costs, and the picture of the shared word's protocol. */

import { DRIVER_NAMES, type DriverName } from '../guest/apic/apic-driver.ts';
import { EOI_STATES, type EoiState } from '../guest/apic/driver-code.ts';
import { DRIVERS, driverNamed } from '../guest/apic/drivers/all.ts';
import { compareObjdumps, objdump } from '../guest/listing.ts';
import type { TracedPath } from '../machine/call-tracer.ts';
import { traceDriverEois } from './driver-eoi.ts';
import type { SymbolTable } from '../machine/symbol-table.ts';
import { EOI, OTHER_WRITE } from './eoi-code.ts';
import { COST_HEAD, costCells, type Disassemble, functionsOf, NO_EXIT, pathListing } from './eoi-report.ts';
import { type EoiTrace, LINUX_RUN } from './eoi-trace.ts';
import { formatCount } from './text-table.ts';

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

/** The parts that need nothing but us. */
export const eoiDocumentParts = (): Record<string, string> => ({ ...eoiListings(), costs: driverEoiTable() });

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

// --- The picture ----------------------------------------------------------------------------------

interface Step {
  /** Between which lanes an arrow goes, or where a box stands: 0 guest, 1 word, 2 host. */
  from: number;
  to: number;
  text: string;
  /** The word's bit from here on. */
  bit?: 0 | 1;
  /** It crosses from guest to host: what the whole thing is about. */
  exit?: boolean;
}

const LANES = ['guest', 'shared word', 'host'];
const LANE_X = [150, 400, 650];
const STEP_HEIGHT = 46;
const TOP = 84;
const WIDTH = 800;

const SCENES: { title: string; steps: Step[] }[] = [
  {
    title: 'The common case: no exit for the EOI',
    steps: [
      { from: 2, to: 1, text: 'inject; nothing else pending: arm', bit: 1 },
      { from: 2, to: 0, text: 'enter the guest' },
      { from: 0, to: 0, text: 'handler runs' },
      { from: 0, to: 1, text: 'BTR: was 1, ended', bit: 0 },
      { from: 0, to: 2, text: 'some later exit', exit: true },
      { from: 2, to: 1, text: 'sample: 0, so complete the EOI' },
    ],
  },
  {
    title: 'Something else arrives: the EOI is written',
    steps: [
      { from: 2, to: 1, text: 'inject, arm', bit: 1 },
      { from: 2, to: 0, text: 'enter the guest' },
      { from: 0, to: 2, text: 'kicked: a lower priority waits', exit: true },
      { from: 2, to: 1, text: 'sample: 1, disarm', bit: 0 },
      { from: 2, to: 0, text: 'enter, not armed: IRR is not empty' },
      { from: 0, to: 1, text: 'BTR: was 0' },
      { from: 0, to: 2, text: 'write the EOI register', exit: true },
      { from: 2, to: 0, text: 'inject the one that waited' },
    ],
  },
];

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

/** The protocol as an SVG of two sequences: time goes down, the word's bit is beside its lane. Colours suit light and dark pages. */
export function pvEoiPicture(): string {
  const parts: string[] = [];
  let y = 0;
  for (const { title, steps } of SCENES) {
    const bottom = y + TOP + steps.length * STEP_HEIGHT;
    parts.push(`<text class="title" x="20" y="${y + 26}">${escaped(title)}</text>`);
    for (const [lane, name] of LANES.entries()) {
      parts.push(`<text class="lane" x="${LANE_X[lane]}" y="${y + 54}">${name}</text>`);
      parts.push(`<line class="life" x1="${LANE_X[lane]}" y1="${y + 62}" x2="${LANE_X[lane]}" y2="${bottom - 8}"/>`);
    }
    for (const [i, { from, to, text, bit, exit }] of steps.entries()) {
      const at = y + TOP + i * STEP_HEIGHT + 16;
      const kind = exit ? ' exit' : '';
      if (from === to) {
        parts.push(`<rect class="box" x="${LANE_X[from] - 62}" y="${at - 17}" width="124" height="24" rx="4"/>`);
        parts.push(`<text class="label" x="${LANE_X[from]}" y="${at}">${escaped(text)}</text>`);
      } else {
        const direction = Math.sign(to - from);
        const [x1, x2] = [LANE_X[from], LANE_X[to] - direction * 6];
        parts.push(`<line class="arrow${kind}" x1="${x1}" y1="${at}" x2="${x2}" y2="${at}"/>`);
        parts.push(`<path class="head${kind}" d="M${x2} ${at - 5} l${direction * 8} 5 l${-direction * 8} 5 z"/>`);
        const middle = Math.abs(to - from) === 2 ? (LANE_X[0] + LANE_X[1]) / 2 : (x1 + x2) / 2;
        parts.push(`<text class="label${kind}" x="${middle}" y="${at - 6}">${escaped(text)}</text>`);
      }
      if (bit !== undefined) {
        parts.push(`<circle class="bit${bit}" cx="${LANE_X[1]}" cy="${at + 14}" r="10"/>`);
        parts.push(`<text class="value${bit}" x="${LANE_X[1]}" y="${at + 18}">${bit}</text>`);
      }
    }
    y = bottom + 10;
  }
  const style = [
    'text{font:13px system-ui,sans-serif;fill:#57606a}.title{font-size:16px;font-weight:600}.lane{font-weight:600;text-anchor:middle}',
    '.label{text-anchor:middle}.label.exit{fill:#cf222e}.life{stroke:#8c959f;stroke-dasharray:3 4}.arrow{stroke:#57606a;stroke-width:1.5}',
    '.arrow.exit{stroke:#cf222e}.head{fill:#57606a}.head.exit{fill:#cf222e}.box{fill:none;stroke:#57606a}',
    '.bit1{fill:#1f883d}.bit0{fill:#8c959f}.value1,.value0{fill:#fff;text-anchor:middle;font-weight:600}',
  ].join('');
  const label = 'Two sequences between guest, shared word and host: an EOI without an exit, and one that is written';
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" role="img" aria-label="${label}">`,
    `<style>${style}</style>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}
