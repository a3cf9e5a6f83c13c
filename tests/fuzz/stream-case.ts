/** A random instruction stream and the state it begins in: drawn from a seed, or read from the corpus. */

import type { Form } from '../../src/isa/decoder.ts';
import { Random } from '../conformance/machine-state.ts';
import { InstructionSource } from './instruction-source.ts';
import * as world from './stream-world.ts';

export const MAX_CODE_BYTES = 2048;
const MAX_PATCHES = 6;
const SLOT = 16;
/** How many different contents of XMM and x87 registers there are. */
export const VECTOR_STATES = 64;
const END_SLOTS = 3;
/** NOPs of 1 to 9 bytes. */
const NOPS = [
  [], [0x90], [0x66, 0x90], [0x0f, 0x1f, 0x00], [0x0f, 0x1f, 0x40, 0x00], [0x0f, 0x1f, 0x44, 0x00, 0x00], [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
  [0x0f, 0x1f, 0x80, 0, 0, 0, 0], [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], [0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
]; // biome-ignore format: a table

/** Everything that decides what a stream does. Reused: nothing is allocated while streams are drawn. */
export interface StreamCase {
  mode: world.ModeName;
  /** Index of the state it begins in (stream-world.ts). */
  variant: number;
  /** Offset of the first instruction in the code's pages, and the bytes from there on. */
  start: number;
  code: Uint8Array;
  codeLength: number;
  /** Halves of the general registers, low one first. */
  registers: Int32Array;
  /** XORed into RFLAGS. */
  flags: number;
  /** Which contents XMM and x87 registers have. */
  vectors: number;
  /** Words of RAM that are changed first: address, value. */
  patches: Int32Array;
  patchCount: number;
  /** An external interrupt that is pending, or -1. */
  interrupt: number;
}

export const emptyCase = (mode: world.ModeName): StreamCase => ({
  mode, variant: 0, start: 0, code: new Uint8Array(MAX_CODE_BYTES), codeLength: 0, registers: new Int32Array(32), flags: 0, vectors: 0,
  patches: new Int32Array(2 * MAX_PATCHES), patchCount: 0, interrupt: -1,
});

/** Draws streams of a mode: the `index`th of a seed is always the same. */
export class StreamSource {
  readonly case: StreamCase;
  private readonly instructions: InstructionSource;
  private readonly seed: number;
  private readonly variants: number;

  constructor(mode: world.ModeName, variants: number, seed: number) {
    this.case = emptyCase(mode);
    this.variants = variants;
    this.seed = seed;
    this.instructions = new InstructionSource(world.codeBitsOf(mode));
  }

  get forms(): readonly Form[] {
    return this.instructions.forms;
  }

  draw(index: number): StreamCase {
    const c = this.case;
    const random = new Random(Math.imul(this.seed, 0x9e37_79b1) ^ Math.imul(index, 0x85eb_ca6b) ^ (index >>> 16));
    c.variant = random.below(this.variants);
    c.vectors = random.below(VECTOR_STATES);
    c.interrupt = random.chance(4) ? 32 + random.below(224) : -1;
    c.flags = random.chance(75) ? 0 : random.next() & (random.chance(10) ? 0x7500 : 0x0400);
    this.drawRegisters(random);
    c.patchCount = random.chance(80) ? 0 : random.below(MAX_PATCHES);
    for (let i = 0; i < c.patchCount; i++) {
      c.patches[2 * i] = world.tableEntry(random);
      c.patches[2 * i + 1] = random.chance(50) ? world.descriptorHalf(random) : random.chance(50) ? (world.pointer(random) & ~0xfff) | (random.next() & 0x1ff) : random.next();
    }
    c.start = random.chance(70) ? SLOT * random.below(128) : world.PAGE - SLOT * (1 + random.below(8));
    this.drawCode(random);
    return c;
  }

  private drawRegisters(random: Random): void {
    const { registers, mode } = this.case;
    for (let i = 0; i < 16; i++) {
      const dice = random.next();
      const kind = dice & 15;
      registers[2 * i] = kind < 9 ? world.pointer(random) : kind < 12 ? (dice >>> 4) & 0xff : kind < 14 ? dice ^ 0x5555_5555 : kind === 14 ? -1 - ((dice >>> 4) & 0xff) : 1 << ((dice >>> 4) & 31);
      const above = dice >>> 24;
      registers[2 * i + 1] = above < 200 ? 0 : above < 215 ? 0xffff_8000 | 0 : above < 230 ? -1 : above < 240 ? 0x8000 : random.next();
    }
    // Most repeated instructions end.
    if (!random.chance(15)) {
      registers[2] = random.below(24);
      registers[3] = 0;
    }
    // Most streams have a stack.
    if (!random.chance(8)) {
      registers[8] = world.stackOf(mode, this.case.variant & 4 ? 3 : 0) - 8 * random.below(16);
      registers[9] = 0;
    }
  }

  private drawCode(random: Random): void {
    const c = this.case;
    const { code } = c;
    const count = 6 + random.below(12);
    const inSlots = random.chance(60);
    let at = 0;
    for (let i = 0; i < count; i++) {
      at += this.instructions.write(random, code, at);
      if (inSlots) at = pad(code, at);
    }
    at = pad(code, at);
    for (let i = 0; i < END_SLOTS; i++) {
      code.set(world.STREAM_END, at);
      at = pad(code, at + world.STREAM_END.length);
    }
    c.codeLength = Math.min(at, world.CODE_BYTES - c.start);
  }
}

/** NOPs up to the next slot. */
function pad(code: Uint8Array, from: number): number {
  let at = from;
  while (at % SLOT) {
    const nop = NOPS[Math.min(9, SLOT - (at % SLOT))];
    for (let i = 0; i < nop.length; i++) code[at++] = nop[i];
  }
  return at;
}

// --- The corpus -----------------------------------------------------------------------------------

/** A case as the corpus has it. */
export interface StoredCase {
  /** What went wrong when it was found. */
  found: string;
  mode: world.ModeName;
  variant: number;
  start: number;
  code: string;
  registers: string[];
  flags: number;
  vectors: number;
  patches: [address: number, value: number][];
  interrupt: number;
}

export function store(c: StreamCase, found: string): StoredCase {
  return {
    found, mode: c.mode, variant: c.variant, start: c.start,
    code: Buffer.from(c.code.subarray(0, c.codeLength)).toString('hex'),
    registers: Array.from({ length: 16 }, (_, i) => hex(c.registers[2 * i + 1]) + hex(c.registers[2 * i])),
    flags: c.flags, vectors: c.vectors,
    patches: Array.from({ length: c.patchCount }, (_, i) => [c.patches[2 * i], c.patches[2 * i + 1]]),
    interrupt: c.interrupt,
  };
}

export function restore(stored: StoredCase): StreamCase {
  const c = emptyCase(stored.mode);
  c.variant = stored.variant;
  c.start = stored.start;
  c.code.set(Buffer.from(stored.code, 'hex'));
  c.codeLength = stored.code.length / 2;
  stored.registers.forEach((text, i) => {
    c.registers[2 * i + 1] = Number.parseInt(text.slice(0, 8), 16);
    c.registers[2 * i] = Number.parseInt(text.slice(8), 16);
  });
  c.flags = stored.flags;
  c.vectors = stored.vectors;
  stored.patches.flat().forEach((word, i) => { c.patches[i] = word; });
  c.patchCount = stored.patches.length;
  c.interrupt = stored.interrupt;
  return c;
}

const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');
