/**
 * The state a single instruction starts from and leaves behind, as 64-bit words: registers first, then memory.
 * Part of the vector format: what is defined here (windows, seeding, baseline) must not change without recording anew.
 * Everything runs at CPL 3 in 64-bit mode with paging on and the selectors Linux gives a process.
 */

export interface Window {
  name: string;
  /** Guest-virtual address of its first byte, page-aligned. */
  address: number;
  size: number;
  /** Offset in the memory image, where the windows lie one after another. */
  offset: number;
  writable: boolean;
  executable: boolean;
}

const PAGE_SIZE = 0x1000;

function layOut(windows: Omit<Window, 'offset'>[]): Window[] {
  let offset = 0;
  return windows.map((window) => {
    const placed = { ...window, offset };
    offset += window.size;
    return placed;
  });
}

/**
 * All memory there is: whatever lies outside is not mapped, so each window has guards on both sides. `high` lies 2^32
 * multiples above `data`, so that a 67h prefix (which cuts its addresses to 32 bits) leads to the other window.
 */
export const WINDOWS: readonly Window[] = layOut([
  { name: 'code', address: 0x1000_0000, size: 2 * PAGE_SIZE, writable: false, executable: true },
  { name: 'data', address: 0x2000_0000, size: 2 * PAGE_SIZE, writable: true, executable: false },
  { name: 'fixed', address: 0x2000_4000, size: PAGE_SIZE, writable: false, executable: false },
  { name: 'stack', address: 0x3000_0000, size: PAGE_SIZE, writable: true, executable: false },
  { name: 'high', address: 0x12_2000_0000, size: PAGE_SIZE, writable: true, executable: false },
]);

export const [CODE, DATA, FIXED, STACK, HIGH] = WINDOWS;
export const MEMORY_SIZE = WINDOWS.reduce((sum, window) => sum + window.size, 0);
/** Where instructions stand unless a case says otherwise. */
export const CODE_START = 0x800;
export const MAXIMUM_CODE_SIZE = 16;

/** Selectors of the recorded process: user code and stack as Linux has them, null data segments. */
export const SELECTORS = { cs: 0x33, ss: 0x2b, ds: 0, es: 0, fs: 0, gs: 0 } as const;

/** The first entries of the recorded process's GDT, as Linux has them: null, code of 32 and 64 bits and data for the kernel, then for users. */
export const DESCRIPTORS = [
  0n, 0x00cf_9b00_0000_ffffn, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn, 0x00cf_fb00_0000_ffffn, 0x00cf_f300_0000_ffffn, 0x00af_fb00_0000_ffffn,
] as const;

/** Word numbers. Control registers take a word each; x87/MMX registers are physical ones, not relative to the top of stack. */
export const Word = {
  gpr: 0, // RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15
  rip: 16,
  rflags: 17,
  mxcsr: 18,
  fcw: 19,
  fsw: 20,
  ftw: 21, // as FXSAVE has it: one bit for each physical register, 1 = in use
  significand: 22, // R0 to R7; what MMX uses
  exponent: 30, // R0 to R7, sign and exponent in the low 16 bits
  xmm: 38, // two for each of XMM0 to XMM15, low half first
  fsBase: 70,
  gsBase: 71,
  count: 72,
} as const;

/** Number of the word for an offset in the memory image; memory words follow the registers after a gap. */
export const MEMORY_WORD = 128;

export const WORD_NAMES: readonly string[] = [
  ...['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'],
  ...['rip', 'rflags', 'mxcsr', 'fcw', 'fsw', 'ftw'],
  ...Array.from({ length: 8 }, (_, i) => `mm${i}`),
  ...Array.from({ length: 8 }, (_, i) => `exponent${i}`),
  ...Array.from({ length: 32 }, (_, i) => `xmm${i >> 1}.${i & 1 ? 'high' : 'low'}`),
  'fs_base',
  'gs_base',
];

export const Flag = {
  carry: 1 << 0,
  parity: 1 << 2,
  adjust: 1 << 4,
  zero: 1 << 6,
  sign: 1 << 7,
  trap: 1 << 8,
  interrupt: 1 << 9,
  direction: 1 << 10,
  overflow: 1 << 11,
  nestedTask: 1 << 14,
  resume: 1 << 16,
  alignmentCheck: 1 << 18,
  identification: 1 << 21,
} as const;
export const STATUS_FLAGS = Flag.carry | Flag.parity | Flag.adjust | Flag.zero | Flag.sign | Flag.overflow;
/** Flags a vector speaks about. TF and RF belong to how it was recorded. */
export const RECORDED_FLAGS =
  STATUS_FLAGS | Flag.interrupt | Flag.direction | Flag.nestedTask | Flag.alignmentCheck | Flag.identification | 2;

// So that 32-bit offsets lead from FS into the data window and from GS into the high one.
export const FS_BASE = BigInt(DATA.address - 0x10_0000);
export const GS_BASE = BigInt(HIGH.address - 0x1000_0000);

/** How registers and memory operands are filled: what makes an instruction's edge cases likely. */
export type Profile = 'integer' | 'float32' | 'float64' | 'text' | 'float80';
export const PROFILES: readonly Profile[] = ['integer', 'float32', 'float64', 'text', 'float80'];

/** sfc32 (Chris Doty-Humphrey's small fast counter): deterministic, quick, passes PractRand. */
export class Random {
  #a: number;
  #b = 0x9e37_79b9;
  #c = 0x243f_6a88;
  #counter = 1;

  constructor(seed: number) {
    this.#a = seed | 0;
    for (let i = 0; i < 12; i++) this.next();
  }

  /** 32 random bits, as a number from 0. */
  next(): number {
    const result = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + result) | 0;
    return result >>> 0;
  }

  /** An integer from 0 below `limit`. */
  below(limit: number): number {
    return this.next() % limit;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)];
  }

  word(): bigint {
    return (BigInt(this.next()) << 32n) | BigInt(this.next());
  }
}

/** FNV-1a over a string's code units. */
export function hash(text: string): number {
  let value = 0x811c_9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x0100_0193);
  return value >>> 0;
}

// Words are drawn as two halves into these: a replay draws dozens for every vector, too many for BigInt.
let low = 0;
let high = 0;

function drawWord(random: Random): void {
  high = random.next() | 0;
  low = random.next() | 0;
}

/** Keeps the low bits of the drawn word: 8, 16, 32 or 64 of them. */
function keep(bits: number): void {
  if (bits < 64) high = 0;
  if (bits < 32) low &= (1 << bits) - 1;
}

/** 2^exponent. */
function drawPower(exponent: number): void {
  low = exponent < 32 ? 1 << exponent : 0;
  high = exponent < 32 ? 0 : 1 << (exponent - 32);
}

/** Edge values of integers: zero, one, all ones, least, greatest, powers of two and what is below them, alternating bits. */
function drawInteger(random: Random, bits: number): void {
  switch (random.below(12)) {
    case 0: low = high = 0; break;
    case 1: drawPower(0); break;
    case 2: low = high = -1; break;
    case 3: drawPower(bits - 1); break;
    case 4: drawPower(bits - 1); high = ~high; low = ~low; break;
    case 5: drawPower(random.below(bits)); break;
    case 6: drawPower(random.below(bits)); high = low === 0 ? high - 1 : 0; low -= 1; break;
    case 7: high = -1; low = ~random.below(256); break;
    case 8: high = 0; low = random.below(256); break;
    case 9: low = high = 0x5555_5555; break;
    case 10: low = high = 0xaaaa_aaaa | 0; break;
    default: drawWord(random);
  }
  keep(bits);
}

/** A word whose low part, at some operand size, is an edge value; above it zeros, its sign or noise. */
function drawIntegerWord(random: Random): void {
  const bits = random.pick([8, 16, 32, 64, 64]);
  drawInteger(random, bits);
  if (bits === 64) return;
  const above = random.below(3);
  if (above === 0) return;
  const value = low;
  if (above === 1) {
    low = (value << (32 - bits)) >> (32 - bits);
    high = low >> 31;
  } else {
    drawWord(random);
    low = bits === 32 ? value : (low << bits) | value;
  }
}

/** Lanes of one size, each drawn by itself: what packed instructions want. */
function drawLanes(random: Random, bits: number, draw: (random: Random, bits: number) => void): void {
  if (bits === 64) return draw(random, 64);
  const halves = [0, 0];
  for (let shift = 0; shift < 64; shift += bits) {
    draw(random, bits);
    halves[shift >> 5] |= low << (shift & 31);
  }
  [low, high] = halves;
}

const scratch = new DataView(new ArrayBuffer(8));

const FLOAT32_EDGES = [
  0x0000_0000, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xffa1_2345, 0x7fd5_5555,
  0x0000_0001, 0x8000_0001, 0x007f_ffff, 0x0080_0000, 0x8080_0000, 0x7f7f_ffff, 0xff7f_ffff, 0x3f80_0000, 0xbf80_0000,
  0x3f00_0000, 0x3f80_0001, 0x4f00_0000, 0xcf00_0000, 0xcf00_0001, 0x4eff_ffff, 0x5f00_0000, 0xdf00_0000, 0x3fc0_0000,
  0x4020_0000, 0xc060_0000, 0x3eff_ffff,
];

/** A number with few significant bits, so that results are exact, halfway or integral more often than chance has it. */
function drawPlainNumber(random: Random, scales: readonly number[]): number {
  return ((random.below(4001) - 2000) * random.pick(scales)) / random.pick([1, 1, 2, 8]);
}

function drawFloat32(random: Random): void {
  switch (random.below(5)) {
    case 0: low = random.pick(FLOAT32_EDGES); break;
    case 1: low = random.next(); break;
    case 2:
      scratch.setFloat32(0, drawPlainNumber(random, [1, 0.5, 0.25, 3, 1e6]));
      low = scratch.getUint32(0);
      break;
    default: low = (random.next() & 0x807f_ffff) | ((0x60 + random.below(0x40)) << 23); // any significand, near 1
  }
}

const FLOAT64_EDGES = [
  0x0000_0000_0000_0000n, 0x8000_0000_0000_0000n, 0x7ff0_0000_0000_0000n, 0xfff0_0000_0000_0000n, 0x7ff8_0000_0000_0000n,
  0xfff8_0000_0000_0000n, 0x7ff0_0000_0000_0001n, 0xfff4_1234_5678_9abcn, 0x7ffa_aaaa_aaaa_aaaan, 0x0000_0000_0000_0001n,
  0x8000_0000_0000_0001n, 0x000f_ffff_ffff_ffffn, 0x0010_0000_0000_0000n, 0x7fef_ffff_ffff_ffffn, 0xffef_ffff_ffff_ffffn,
  0x3ff0_0000_0000_0000n, 0xbff0_0000_0000_0000n, 0x3fe0_0000_0000_0000n, 0x3ff0_0000_0000_0001n, 0x41e0_0000_0000_0000n,
  0xc1e0_0000_0000_0000n, 0xc1e0_0000_0020_0000n, 0x41df_ffff_ffc0_0000n, 0x41df_ffff_ffe0_0000n, 0x43e0_0000_0000_0000n,
  0xc3e0_0000_0000_0000n, 0x43df_ffff_ffff_ffffn, 0x3ff8_0000_0000_0000n, 0x4004_0000_0000_0000n, 0x3fdf_ffff_ffff_ffffn,
  // around the limits of float32
  0x47ef_ffff_e000_0000n, 0x47ef_ffff_f000_0000n, 0x3810_0000_0000_0000n, 0x380f_ffff_ffff_ffffn, 0x36a0_0000_0000_0000n,
];

function drawFloat64(random: Random): void {
  switch (random.below(5)) {
    case 0: scratch.setBigUint64(0, random.pick(FLOAT64_EDGES)); break;
    case 1:
      scratch.setUint32(0, random.next());
      scratch.setUint32(4, random.next());
      break;
    case 2: scratch.setFloat64(0, drawPlainNumber(random, [1, 0.5, 0.25, 3, 1e6, 1e12])); break;
    default:
      scratch.setUint32(0, (random.next() & 0x800f_ffff) | ((0x3c0 + random.below(0x80)) << 20));
      scratch.setUint32(4, random.next());
  }
  high = scratch.getInt32(0);
  low = scratch.getInt32(4);
}

/** Few distinct characters and an occasional terminator, as bytes or 16-bit characters: strings that match in places. */
function drawText(random: Random): void {
  const alphabet = random.pick(['aab', 'abc\0', 'aAzZ09', 'xyz\0\xff\x80']);
  drawLanes(random, random.chance(70) ? 8 : 16, () => {
    low = alphabet.charCodeAt(random.below(alphabet.length));
  });
}

/** Sign, exponent and significand of 80-bit numbers: [sign and exponent, significand]. */
const FLOAT80_EDGES: readonly [number, bigint][] = [
  [0x0000, 0n], [0x8000, 0n], [0x3fff, 1n << 63n], [0xbfff, 1n << 63n], [0x7fff, 1n << 63n], [0xffff, 1n << 63n],
  [0x7fff, 0xc000_0000_0000_0000n], [0xffff, 0xc000_0000_0000_0000n], [0x7fff, 0xa000_0000_0000_0001n],
  [0xffff, 0xd555_5555_5555_5555n],
  [0x0000, 1n], [0x8000, 0x7fff_ffff_ffff_ffffn], [0x0000, 1n << 63n], [0x0001, 1n << 63n], [0x7ffe, 0xffff_ffff_ffff_ffffn],
  [0x7fff, 0n], [0x3fff, 0x4000_0000_0000_0000n], // pseudo-infinity, unnormal
  [0x4000, 0xc90f_daa2_2168_c235n], [0x3ffe, 1n << 63n], [0x401e, 1n << 63n], [0xc01e, 1n << 63n],
  [0x403e, 1n << 63n], [0xc03e, 1n << 63n],
  [0x400e, 0xffff_8000_0000_0000n], [0x403d, 0xffff_ffff_ffff_fffen], [0x3fff, 0xffff_ffff_ffff_ffffn],
  [0x4000, 0xa000_0000_0000_0000n],
];

/** An 80-bit number: edges, what float64 can hold, and any significand at exponents that meet those of others. */
export function drawFloat80(random: Random): { exponent: number; significand: bigint } {
  switch (random.below(4)) {
    case 0: {
      const [exponent, significand] = random.pick(FLOAT80_EDGES);
      return { exponent, significand };
    }
    case 1: {
      const value = drawPlainNumber(random, [1, 0.5, 0.25, 3, 1e6, 1e12]);
      scratch.setFloat64(0, value);
      const bits = scratch.getBigUint64(0);
      if (value === 0) return { exponent: Number(bits >> 63n) << 15, significand: 0n };
      const exponent = (Number((bits >> 52n) & 0x7ffn) - 0x3ff + 0x3fff) | (Number(bits >> 63n) << 15);
      return { exponent, significand: (1n << 63n) | ((bits << 11n) & ((1n << 63n) - 1n)) };
    }
    default: {
      const exponent = random.chance(10) ? random.below(0x7fff) : 0x3fc0 + random.below(0x90);
      return { exponent: exponent | (random.below(2) << 15), significand: (1n << 63n) | random.word() };
    }
  }
}

function drawLaneWord(random: Random, profile: Profile): void {
  switch (profile) {
    case 'integer': return drawLanes(random, random.pick([8, 8, 16, 16, 32, 64]), drawInteger);
    case 'float32': return drawLanes(random, 32, drawFloat32);
    case 'float64':
    case 'float80': return drawFloat64(random);
    case 'text': return drawText(random);
  }
}

export const MXCSR_DEFAULT = 0x1f80;

/** Fills the register words of a case from its seed. RIP is the caller's; RSP points into the stack window's middle. */
export function seedRegisters(seed: number, profile: Profile, words: BigUint64Array): void {
  const random = new Random(seed);
  const halves = new Int32Array(words.buffer, words.byteOffset, words.length * 2);
  halves.fill(0);
  const put = (word: number): void => {
    halves[2 * word] = low;
    halves[2 * word + 1] = high;
  };
  for (let i = 0; i < 16; i++) {
    drawIntegerWord(random);
    put(Word.gpr + i);
  }
  halves[2 * (Word.gpr + 4)] = STACK.address + STACK.size / 2;
  halves[2 * (Word.gpr + 4) + 1] = 0;
  halves[2 * Word.rflags] = (random.next() & STATUS_FLAGS) | Flag.interrupt | 2;
  halves[2 * Word.mxcsr] = MXCSR_DEFAULT;
  halves[2 * Word.fcw] = 0x37f;
  halves[2 * Word.ftw] = random.below(256);
  for (let i = 0; i < 8; i++) {
    drawLaneWord(random, profile);
    put(Word.significand + i);
    halves[2 * (Word.exponent + i)] = 0xffff;
  }
  for (let i = 0; i < 32; i++) {
    drawLaneWord(random, profile);
    put(Word.xmm + i);
  }
  for (let i = 0; i < 8 && profile === 'float80'; i++) {
    const { exponent, significand } = drawFloat80(random);
    words[Word.significand + i] = significand;
    words[Word.exponent + i] = BigInt(exponent);
  }
  words[Word.fsBase] = FS_BASE;
  words[Word.gsBase] = GS_BASE;
}

/** Zones of the data window (offsets in it) by what they hold; the other windows repeat their first 4 KiB. */
export const ZONES = {
  integer: { offset: 0x000, size: 0x600 },
  float32: { offset: 0x600, size: 0x400 },
  float64: { offset: 0xa00, size: 0x400 },
  text: { offset: 0xe00, size: 0x200 }, // strings with terminators and runs of equal bytes
} as const;

const TEXT =
  'the quick brown fox\0jumps over the lazy dog\0aaaaaaaaaaaaaaaaaaaaaaab\0\0\0\0Abc,abc;ABC \x80\xff\x7f\x01 zzzzzzzz\0';

/** Memory before a case's own changes; code is filled with INT3 and the same for every case. */
export function baselineMemory(): Uint8Array<ArrayBuffer> {
  const memory = new Uint8Array(MEMORY_SIZE);
  const view = new DataView(memory.buffer);
  const random = new Random(hash('memory'));
  for (const window of WINDOWS) {
    if (window.executable) {
      memory.fill(0xcc, window.offset, window.offset + window.size);
      continue;
    }
    for (let page = window.offset; page < window.offset + window.size; page += PAGE_SIZE) {
      for (const profile of ['integer', 'float32', 'float64', 'text'] as const) {
        const zone = ZONES[profile];
        for (let i = 0; i < zone.size; i += 8) {
          if (profile === 'integer' && i & 8) drawIntegerWord(random);
          else drawLaneWord(random, profile);
          view.setInt32(page + zone.offset + i, low, true);
          view.setInt32(page + zone.offset + i + 4, high, true);
        }
      }
      const text = page + ZONES.text.offset;
      for (let i = 0; i < ZONES.text.size / 2; i++) memory[text + i] = TEXT.charCodeAt(i % TEXT.length);
    }
  }
  return memory;
}

/** The window that holds all of [address, address + size), if one does. */
export function windowAt(address: bigint, size = 1): Window | undefined {
  return WINDOWS.find((w) => address >= BigInt(w.address) && address + BigInt(size) <= BigInt(w.address + w.size));
}

/** Names a word for people: a register, or the address of a memory word. */
export function nameOfWord(word: number): string {
  if (word < MEMORY_WORD) return WORD_NAMES[word] ?? `word ${word}`;
  const offset = (word - MEMORY_WORD) * 8;
  const window = WINDOWS.find((w) => offset >= w.offset && offset < w.offset + w.size);
  return window ? `[${(window.address + offset - window.offset).toString(16)}]` : `word ${word}`;
}
