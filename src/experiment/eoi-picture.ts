/**
 * The shared word's protocol as a picture: sequences between guest, word and host, time going down. Beside the arrows it shows what
 * each side holds: that the handler runs, the word's bit, that the host's APIC has the interrupt in service.
 */

type Lane = 'guest' | 'word' | 'host';

interface Step {
  from: Lane;
  to: Lane;
  text: string;
  /** It leaves the guest: what the whole thing is about. */
  exit?: boolean;
  /** The word's bit from here on. */
  bit?: 0 | 1;
  /** The handler runs from here on, or has returned; the host has the interrupt in service, or has ended it. */
  handler?: boolean;
  inService?: boolean;
}

interface Scene {
  title: string;
  /** Without a word there is nothing in the middle. */
  hasWord: boolean;
  steps: Step[];
}

const SCENES: readonly Scene[] = [
  {
    title: 'By the register: the EOI is an exit',
    hasWord: false,
    steps: [
      { from: 'host', to: 'guest', text: 'inject, enter', handler: true, inService: true },
      { from: 'guest', to: 'host', text: 'EOI: write the register', exit: true, inService: false },
      { from: 'host', to: 'guest', text: 'enter; the handler returns', handler: false },
    ],
  },
  {
    title: 'By the word, nothing else pending: no exit of its own',
    hasWord: true,
    steps: [
      { from: 'host', to: 'word', text: 'inject; nothing else waits: arm', bit: 1, inService: true },
      { from: 'host', to: 'guest', text: 'enter', handler: true },
      { from: 'guest', to: 'word', text: 'EOI: clear the bit. It was 1', bit: 0, handler: false },
      { from: 'guest', to: 'host', text: 'some exit, later, for whatever reason', exit: true },
      { from: 'host', to: 'word', text: 'sample: 0, the guest has ended it', inService: false },
      { from: 'host', to: 'guest', text: 'enter' },
    ],
  },
  {
    title: 'By the word, when another interrupt comes: the register after all',
    hasWord: true,
    steps: [
      { from: 'host', to: 'word', text: 'inject; nothing else waits: arm', bit: 1, inService: true },
      { from: 'host', to: 'guest', text: 'enter', handler: true },
      { from: 'guest', to: 'host', text: 'kicked out: another one waits', exit: true },
      { from: 'host', to: 'word', text: 'sample: 1, take it back', bit: 0 },
      { from: 'host', to: 'guest', text: 'enter, not armed' },
      { from: 'guest', to: 'word', text: 'EOI: clear the bit. It was 0' },
      { from: 'guest', to: 'host', text: 'so write the register', exit: true, inService: false },
      { from: 'host', to: 'guest', text: 'inject the other one, enter', inService: true },
    ],
  },
];

const WIDTH = 880;
const LANE_X: Record<Lane, number> = { guest: 140, word: 440, host: 740 };
const LANE_NAMES: Record<Lane, string> = { guest: 'guest', word: 'shared word', host: 'host' };
const STEP = 46;
const HEAD = 104;
const SCENE_GAP = 26;
const BAR = { guest: 12, word: 24, host: 12 } as const;
const ARROW = 8;
const LEGEND = 44;

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
const lineAt = (top: number, index: number): number => top + HEAD + index * STEP;

/** Where each of a lane's states begins. */
function changes<State>(steps: readonly Step[], of: (step: Step) => State | undefined): { index: number; state: State }[] {
  return steps.flatMap((step, index) => {
    const state = of(step);
    return state === undefined ? [] : [{ index, state }];
  });
}

function bar(lane: Lane, kind: string, from: number, to: number): string {
  const width = BAR[lane];
  return `<rect class="${kind}" x="${LANE_X[lane] - width / 2}" y="${from}" width="${width}" height="${to - from}" rx="3"/>`;
}

/** A lane's states as bars: what is true is filled, and the word's bit is written into it. */
function bars({ steps, hasWord }: Scene, top: number, bottom: number): string[] {
  const end = (list: readonly { index: number }[], i: number): number => (list[i + 1] ? lineAt(top, list[i + 1].index) : bottom);
  const spans = (lane: Lane, kind: string, of: (step: Step) => boolean | undefined): string[] => {
    const list = changes(steps, of);
    return list.flatMap(({ index, state }, i) => (state ? [bar(lane, kind, lineAt(top, index), end(list, i))] : []));
  };
  const word = changes(steps, ({ bit }) => bit);
  const bits = hasWord ? [{ index: -1, state: 0 as 0 | 1 }, ...word] : [];
  return [
    ...spans('guest', 'handler', ({ handler }) => handler),
    ...spans('host', 'service', ({ inService }) => inService),
    ...bits.flatMap(({ index, state }, i) => {
      const from = index < 0 ? lineAt(top, -0.6) : lineAt(top, index);
      const to = end(bits, i);
      return [
        bar('word', `bit${state}`, from, to),
        `<text class="value${state}" x="${LANE_X.word}" y="${Math.min((from + to) / 2, from + STEP / 2) + 5}">${state}</text>`,
      ];
    }),
  ];
}

function arrow({ from, to, text, exit }: Step, at: number): string[] {
  const kind = exit ? ' exit' : '';
  const direction = Math.sign(LANE_X[to] - LANE_X[from]);
  const start = LANE_X[from] + (direction * BAR[from]) / 2;
  const end = LANE_X[to] - (direction * BAR[to]) / 2;
  const passes = from !== 'word' && to !== 'word';
  // A long arrow's text is on the side where it comes from; the word is not what it is about.
  const middle = passes ? (LANE_X[from] + LANE_X.word) / 2 : (start + end) / 2;
  return [
    `<line class="arrow${kind}" x1="${start}" y1="${at}" x2="${end - direction * ARROW}" y2="${at}"/>`,
    `<path class="head${kind}" d="M${end} ${at} l${-direction * (ARROW + 2)} -5 v10 z"/>`,
    `<text class="label${kind}" x="${middle}" y="${at - 7}">${escaped(text)}</text>`,
  ];
}

function scene(one: Scene, top: number): { parts: string[]; bottom: number } {
  const { title, hasWord, steps } = one;
  const bottom = lineAt(top, steps.length - 1) + STEP * 0.6;
  const lanes = (['guest', 'word', 'host'] as const).filter((lane) => hasWord || lane !== 'word');
  return {
    bottom,
    parts: [
      `<text class="title" x="28" y="${top + 30}">${escaped(title)}</text>`,
      ...lanes.flatMap((lane) => [
        `<text class="lane" x="${LANE_X[lane]}" y="${top + 62}">${LANE_NAMES[lane]}</text>`,
        `<line class="life" x1="${LANE_X[lane]}" y1="${top + 70}" x2="${LANE_X[lane]}" y2="${bottom}"/>`,
      ]),
      ...bars(one, top, bottom),
      ...steps.flatMap((step, index) => arrow(step, lineAt(top, index))),
    ],
  };
}

function legend(at: number): string[] {
  const entries: [kind: string, text: string][] = [
    ['handler', 'the handler runs, to its EOI and return'],
    ['bit1', 'the bit is set'],
    ['service', 'in service, for the host'],
    ['exitmark', 'an exit'],
  ];
  let x = 28;
  return entries.flatMap(([kind, text]) => {
    const entry = `<rect class="${kind}" x="${x}" y="${at - 11}" width="14" height="14" rx="3"/><text class="note" x="${x + 21}" y="${at + 1}">${text}</text>`;
    x += 21 + text.length * 6.6 + 26;
    return [entry];
  });
}

/** Colours of light and of dark pages. */
const LIGHT = {
  page: '#ffffff',
  edge: '#d1d9e0',
  ink: '#1f2328',
  soft: '#59636e',
  exit: '#cf222e',
  on: '#1f883d',
  off: '#e6eaef',
  handler: '#54aeff',
  service: '#eac54f',
};
const DARK = {
  page: '#0d1117',
  edge: '#3d444d',
  ink: '#f0f6fc',
  soft: '#9198a1',
  exit: '#ff7b72',
  on: '#238636',
  off: '#2a313c',
  handler: '#1f6feb',
  service: '#9e6a03',
};

const styleOf = (c: typeof LIGHT): string =>
  [
    `.page{fill:${c.page};stroke:${c.edge}}`,
    `text{fill:${c.ink}}.note{fill:${c.soft}}`,
    `.life{stroke:${c.edge}}.arrow{stroke:${c.soft}}.head{fill:${c.soft}}`,
    `.arrow.exit{stroke:${c.exit}}.head.exit,.label.exit,.exitmark{fill:${c.exit}}`,
    `.label{stroke:${c.page}}`,
    `.bit1{fill:${c.on}}.bit0{fill:${c.off}}.value0{fill:${c.soft}}.value1{fill:#ffffff}`,
    `.handler{fill:${c.handler}}.service{fill:${c.service}}`,
  ].join('');

/** An SVG that suits light and dark pages. */
export function pvEoiPicture(): string {
  const parts: string[] = [];
  let y = 6;
  for (const one of SCENES) {
    const { parts: drawn, bottom } = scene(one, y);
    parts.push(...drawn);
    y = bottom + SCENE_GAP;
  }
  parts.push(...legend(y + 14));
  const height = Math.ceil(y + LEGEND);
  const shared = [
    'text{font:14px system-ui,-apple-system,"Segoe UI",sans-serif}.title{font-size:17px;font-weight:600}.note{font-size:13px}',
    '.lane{font-weight:600;text-anchor:middle}.label{text-anchor:middle;paint-order:stroke;stroke-width:5px;stroke-linejoin:round}',
    '.life{stroke-width:1.5;stroke-dasharray:2 5}.arrow{stroke-width:1.6}.arrow.exit{stroke-width:2.2}',
    '.value0,.value1{text-anchor:middle;font-weight:600}',
  ].join('');
  const title =
    'How an interrupt is ended: by a register write, which exits; by the shared word; and by the register where the word was taken back';
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" role="img" aria-label="${title}">`,
    `<style>${shared}${styleOf(LIGHT)}@media(prefers-color-scheme:dark){${styleOf(DARK)}}</style>`,
    `<rect class="page" x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="8"/>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}
