/**
 * What an exit costs the guest, by reason: tables with a name, a year and their sources. A figure is the whole
 * round trip (out, handled in the kernel, back in); one that is completed in user space costs `userspaceCycles`
 * more. Figures are assumptions within the ranges given with them unless a source says that they were measured;
 * users bring their own as JSON, made from `perf kvm stat` or kvm-unit-tests' vmexit on their own host.
 */

import { EXIT_REASONS, type ExitReason } from './exit.ts';
import { type Parsed, parsed, refused } from './parsed.ts';

/** Lowest and highest plausible value. */
export type CycleRange = readonly [low: number, high: number];

export interface CostProfile {
  name: string;
  year: number;
  /** Where the figures come from, and which of them are assumptions. */
  sources: readonly string[];
  /** Cycles of a round trip, by reason. */
  exitCycles: Readonly<Record<ExitReason, number>>;
  /** On top of that for an exit which user space completes (a port or MMIO register of its devices). */
  userspaceCycles: number;
  /** Delivering an interrupt at an entry: event injection and the walk through the IDT. */
  injectionCycles: number;
  /** From the wake-up of a halted vCPU until it runs again. */
  wakeupCycles: number;
  /** What the figures may be instead, by what they are made of. Empty where nothing is assumed. */
  ranges: Readonly<Record<string, CycleRange>>;
}

/** What an exit's figure is made of: the world switch, and how much work it is to handle. */
type Handling = 'light' | 'interrupt' | 'apic' | 'decoded' | 'halt';

const HANDLING: Record<ExitReason, Handling> = {
  'external-interrupt': 'interrupt',
  'interrupt-window': 'light',
  'nmi-window': 'light',
  'preemption-timer': 'light',
  hlt: 'halt',
  io: 'apic',
  mmio: 'decoded',
  'apic-access': 'decoded',
  'msr-read': 'apic',
  'msr-write': 'apic',
  cpuid: 'light',
  hypercall: 'light',
  'cr-access': 'light',
  'cr8-write': 'light',
  'dr-access': 'light',
  exception: 'light',
  pause: 'light',
  rdpmc: 'light',
  monitor: 'light',
  mwait: 'light',
  wbinvd: 'light',
  invd: 'light',
  xsetbv: 'light',
  'task-switch': 'decoded',
  'triple-fault': 'light',
};

interface Figure {
  cycles: number;
  range: CycleRange;
}

interface Composition extends Record<Handling, Figure> {
  worldSwitch: Figure;
  userspace: Figure;
  injection: Figure;
  wakeup: Figure;
}

function compose(name: string, year: number, sources: readonly string[], figures: Composition): CostProfile {
  const cycles = (reason: ExitReason) => figures.worldSwitch.cycles + figures[HANDLING[reason]].cycles;
  return {
    name,
    year,
    sources,
    exitCycles: byReason(cycles),
    userspaceCycles: figures.userspace.cycles,
    injectionCycles: figures.injection.cycles,
    wakeupCycles: figures.wakeup.cycles,
    ranges: Object.fromEntries(Object.entries(figures).map(([part, { range }]) => [part, range])),
  };
}

const byReason = (cycles: (reason: ExitReason) => number) =>
  Object.fromEntries(EXIT_REASONS.map((reason) => [reason, cycles(reason)])) as Record<ExitReason, number>;
const about = (cycles: number, low: number, high: number): Figure => ({ cycles, range: [low, high] });

const FREE: CostProfile = {
  name: 'free',
  year: 0,
  sources: ['charges nothing: the guest’s clock counts its instructions alone'],
  exitCycles: byReason(() => 0),
  userspaceCycles: 0,
  injectionCycles: 0,
  wakeupCycles: 0,
  ranges: {},
};

const VMX_2012 = compose(
  'vmx-2012',
  2012,
  [
    'assumption: a lightweight exit and entry took 1,500–3,000 cycles on processors of 2008–2012',
    'assumption: handling in the kernel adds 300–1,500 cycles; an exit to user space takes 3,000–6,000 in all',
  ],
  {
    worldSwitch: about(1700, 1500, 3000),
    light: about(300, 200, 600),
    interrupt: about(600, 300, 1500),
    apic: about(900, 300, 1500),
    decoded: about(1500, 300, 1500),
    halt: about(1200, 300, 1500),
    userspace: about(3000, 1000, 4000),
    injection: about(500, 200, 1000),
    wakeup: about(6000, 2000, 20_000),
  },
);

const SVM_2012 = compose(
  'svm-2012',
  2012,
  [
    'assumption: a lightweight exit and entry took 1,500–3,000 cycles on processors of 2008–2012, SVM’s more than VMX’s',
    'assumption: handling in the kernel adds 300–1,500 cycles; an exit to user space takes 3,000–6,000 in all',
  ],
  {
    worldSwitch: about(2200, 1500, 3000),
    light: about(300, 200, 600),
    interrupt: about(600, 300, 1500),
    apic: about(900, 300, 1500),
    decoded: about(1500, 300, 1500),
    halt: about(1200, 300, 1500),
    userspace: about(2900, 1000, 4000),
    injection: about(500, 200, 1000),
    wakeup: about(6000, 2000, 20_000),
  },
);

const MODERN = compose(
  'modern',
  2022,
  [
    'assumption: a lightweight exit and entry take 700–1,500 cycles on processors of the 2020s',
    'assumption: handling in the kernel adds 300–1,500 cycles',
    'Linux commit ad3610919e6f: an IN in user space took 5,765–5,826 cycles, measured; io and userspaceCycles add up to 5,800',
  ],
  {
    worldSwitch: about(1000, 700, 1500),
    light: about(200, 100, 400),
    interrupt: about(500, 300, 1500),
    apic: about(600, 300, 1500),
    decoded: about(1200, 300, 1500),
    halt: about(800, 300, 1500),
    userspace: about(4200, 2000, 4500),
    injection: about(300, 100, 600),
    wakeup: about(5000, 1500, 20_000),
  },
);

const NESTED_PARTS = compose(
  'nested',
  2024,
  [
    'kvm-unit-tests’ vmexit, measured in a guest nested by software (PVM), 2.6 GHz: CPUID 28,600, MOV to CR8 40,430, ' +
      'IN 20,393–44,517, self-IPI over x2APIC 92,419 cycles',
    'assumption: others cost what CPUID does plus their handling; an APIC write is a third of a self-IPI (ICR, delivery, EOI)',
  ],
  {
    worldSwitch: about(28_000, 20_000, 40_000),
    light: about(600, 500, 12_400),
    interrupt: about(2000, 500, 10_000),
    apic: about(2800, 500, 12_000),
    decoded: about(6000, 1000, 20_000),
    halt: about(4000, 1000, 20_000),
    userspace: about(13_000, 0, 15_000),
    injection: about(2000, 500, 10_000),
    wakeup: about(100_000, 20_000, 500_000),
  },
);

const NESTED: CostProfile = { ...NESTED_PARTS, exitCycles: { ...NESTED_PARTS.exitCycles, 'cr8-write': 40_430 } };

export const COST_PROFILES: readonly CostProfile[] = [FREE, VMX_2012, SVM_2012, MODERN, NESTED];
export const DEFAULT_COST_PROFILE = MODERN;

/** A profile by name; the error names the valid ones. */
export function costProfileNamed(name: string): Parsed<CostProfile> {
  const profile = COST_PROFILES.find((candidate) => candidate.name === name);
  const names = COST_PROFILES.map((candidate) => candidate.name).join(', ');
  return profile ? parsed(profile) : refused(`unknown cost profile "${name}"; valid: ${names}, or a JSON file`);
}

const MAX_CYCLES = 1e9;
const isCycles = (value: unknown): value is number =>
  Number.isInteger(value) && Number(value) >= 0 && Number(value) <= MAX_CYCLES;
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Reads a user's profile: `{ "name", "year", "sources": [...], "exitCycles": { "default": 1500, "cpuid": 1200, … },
 * "userspaceCycles", "injectionCycles", "wakeupCycles", "ranges"? }`. Cycles are whole numbers from 0 to 10^9;
 * `default` stands for the reasons that are not named. `origin` (the file's name) goes into the message.
 */
export function parseCostProfile(text: string, origin = 'cost profile'): Parsed<CostProfile> {
  const wrong = (key: string, what: string) => refused(`${origin}: ${key} ${what}`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return wrong('text', 'is not JSON');
  }
  if (!isObject(json)) return wrong('top level', 'must be an object');
  const known = ['name', 'year', 'sources', 'exitCycles', 'userspaceCycles', 'injectionCycles', 'wakeupCycles', 'ranges'];
  for (const key of Object.keys(json))
    if (!known.includes(key)) return wrong(`"${key}"`, `is not a key of a profile; keys: ${known.join(', ')}`);
  const { name, year, sources, exitCycles, userspaceCycles, injectionCycles, wakeupCycles, ranges = {} } = json;
  if (typeof name !== 'string' || name === '') return wrong('"name"', 'must be a text');
  if (!Number.isInteger(year)) return wrong('"year"', 'must be a whole number');
  if (
    !Array.isArray(sources) ||
    sources.length === 0 ||
    !sources.every((source) => typeof source === 'string' && source !== '')
  ) {
    return wrong('"sources"', 'must be a list of at least one text: say where the figures come from');
  }
  if (!isObject(exitCycles)) return wrong('"exitCycles"', 'must be an object of reason: cycles');
  const cyclesMessage = `must be a whole number of cycles from 0 to ${MAX_CYCLES}`;
  const reasons: readonly string[] = [...EXIT_REASONS, 'default'];
  for (const [reason, cycles] of Object.entries(exitCycles)) {
    if (!reasons.includes(reason))
      return wrong(`"exitCycles.${reason}"`, `is not an exit reason; reasons: ${reasons.join(', ')}`);
    if (!isCycles(cycles)) return wrong(`"exitCycles.${reason}"`, cyclesMessage);
  }
  const table = byReason((reason) => (exitCycles[reason] ?? exitCycles.default) as number);
  const missing = EXIT_REASONS.find((reason) => table[reason] === undefined);
  if (missing) return wrong(`"exitCycles.${missing}"`, 'is missing, and there is no "exitCycles.default"');
  if (!isCycles(userspaceCycles)) return wrong('"userspaceCycles"', cyclesMessage);
  if (!isCycles(injectionCycles)) return wrong('"injectionCycles"', cyclesMessage);
  if (!isCycles(wakeupCycles)) return wrong('"wakeupCycles"', cyclesMessage);
  if (!isObject(ranges)) return wrong('"ranges"', 'must be an object of [low, high]');
  for (const [part, range] of Object.entries(ranges)) {
    if (!Array.isArray(range) || range.length !== 2 || !range.every(isCycles) || range[0] > range[1]) {
      return wrong(`"ranges.${part}"`, 'must be [low, high] in cycles');
    }
  }
  return parsed({
    name,
    year: year as number,
    sources: sources as string[],
    exitCycles: table,
    userspaceCycles,
    injectionCycles,
    wakeupCycles,
    ranges: ranges as Record<string, CycleRange>,
  });
}
