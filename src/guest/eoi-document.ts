/** The generated parts of docs/eoi.md: listings of each state, the table of costs, and the picture of the shared word's protocol. */

import { DRIVER_NAMES, type DriverName } from './apic/apic-driver.ts';
import { EOI_STATES, type EoiState } from './apic/driver-code.ts';
import { DRIVERS, driverNamed } from './apic/drivers/all.ts';
import { type EoiPath, eoiPaths } from './eoi-cost.ts';
import { compareObjdumps, objdump } from './listing.ts';

/** Of a run of the tiny kernel: interrupts that had an EOI, and how many of the EOIs were exits. */
export interface MeasuredEois {
  interrupts: number;
  exits: number;
}

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

const ACCESS: Record<EoiPath['apicAccess'], string> = { none: '—', memory: 'store', msr: 'WRMSR' };

function pathRow(name: string, state: string, path: EoiPath, measured: string): string {
  const { when, instructions, conditionalBranches, transfers, memoryReads, memoryWrites, apicAccess } = path;
  const taken = when === 'always' ? '' : ` (${when})`;
  return `| ${name} | ${state}${taken} | ${instructions} | ${conditionalBranches} | ${transfers} | ${memoryReads} + ${memoryWrites} | ${ACCESS[apicAccess]} | ${measured} |`;
}

/**
 * One row for each driver, state and path; states whose costs are those of the one before are left out. `measured` tells what the
 * tiny kernel met on a machine, where the driver runs on a PC.
 */
export function eoiCostTable(measured: (driver: DriverName, state: EoiState) => MeasuredEois | undefined): string {
  const rows = [
    '| driver | state | instructions | conditional branches | jumps and returns | memory reads + writes | to the APIC | EOIs that exit |',
    '|---|---|---|---|---|---|---|---|',
  ];
  for (const name of DRIVER_NAMES) {
    const driver = DRIVERS.find((candidate) => candidate.name === name);
    if (!driver) continue;
    let previous = '';
    for (const state of EOI_STATES) {
      const paths = eoiPaths(driver, state);
      const costs = JSON.stringify(paths.map((path) => [pathRow('', '', path, ''), path.functions.at(-1)]));
      if (costs === previous) continue;
      previous = costs;
      const counts = measured(name, state);
      const met = counts ? `${counts.exits} of ${counts.interrupts}` : '';
      for (const [i, path] of paths.entries()) rows.push(pathRow(i ? '' : name, i ? '' : state, path, i ? '' : met));
    }
  }
  return rows.join('\n');
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
