/**
 * The assembler: methods named after the instructions, labels, data, alignment. A page of it reads like a listing:
 *
 *     a.label('native_apic_msr_eoi_write');
 *     a.mov(ecx, APIC_BASE_MSR + (APIC_EOI >> 4));
 *     a.xor(eax, eax);
 *     a.mov(edx, eax);
 *     a.wrmsr();
 *     a.ret();
 *
 * `assemble` makes object code: branches get the shortest reach, symbols of other objects stay relocations for the linker.
 */

import type { CodeBits } from '../../isa/decoder.ts';
import { type Encoded, encode, type Fixup, instructionNames, type Prefixes } from './encoder.ts';
import type { Instructions } from './mnemonics.ts';
import { type Address, type Operand, operandText } from './operands.ts';

/** A fixup left for the linker: its offset is in the object. */
export type Relocation = Fixup;

export interface Line {
  offset: number;
  /** Bytes; 0 of labels. */
  length: number;
  kind: 'label' | 'instruction' | 'data' | 'padding';
  /** NASM's syntax. */
  text: string;
  note: string;
  /** Of instructions: name and operands. */
  name: string;
  operands: readonly Operand[];
}

export interface ObjectCode {
  bits: CodeBits;
  bytes: Uint8Array;
  /** What the object's start must be a multiple of. */
  alignment: number;
  /** Offsets by name; of a local label: `global.local`. */
  symbols: ReadonlyMap<string, number>;
  relocations: readonly Relocation[];
  lines: readonly Line[];
}

/** What data directives take: text only in `db`. */
export type Datum = number | bigint | Address | string | Uint8Array;

interface Item {
  kind: Line['kind'];
  text: string;
  note: string;
  name: string;
  operands: readonly Operand[];
  /** Reaches to choose among, shortest first; one for all but branches. */
  choices: Pick<Encoded, 'bytes' | 'fixups'>[];
  choice: number;
  /** A full name. */
  label: string | undefined;
  /** Of padding. */
  alignment: number;
  bits: CodeBits;
}

/** What Intel recommends for padding, by length (SDM 2B, NOP). */
const NOPS = [
  '',
  '90',
  '6690',
  '0f1f00',
  '0f1f4000',
  '0f1f440000',
  '660f1f440000',
  '0f1f8000000000',
  '0f1f840000000000',
  '660f1f840000000000',
];
const LONGEST_NOP = NOPS.length - 1;

function padding(length: number, bits: CodeBits): number[] {
  if (bits === 16) return new Array<number>(length).fill(0x90);
  const bytes: number[] = [];
  for (let rest = length; rest > 0; rest -= LONGEST_NOP) {
    const nop = NOPS[Math.min(rest, LONGEST_NOP)];
    for (let i = 0; i < nop.length; i += 2) bytes.push(Number.parseInt(nop.slice(i, i + 2), 16));
  }
  return bytes;
}

const textEncoder = new TextEncoder();

class AssemblyBuffer {
  private bits: CodeBits;
  private readonly items: Item[] = [];
  private readonly labels = new Set<string>();
  private globalLabel = '';
  private prefixes: Prefixes = { lock: false, repeat: 0 };
  private prefixText = '';
  private maxAlignment = 1;

  constructor(bits: CodeBits) {
    this.bits = bits;
  }

  /** What follows is code of this mode. */
  use(bits: CodeBits): this {
    this.bits = bits;
    return this;
  }

  /** Names the place: a global symbol, or `.name`, which belongs to the last global one. */
  label(name: string): this {
    const full = this.fullName(name);
    if (this.labels.has(full)) throw new Error(`label ${full} is defined twice`);
    this.labels.add(full);
    if (!name.startsWith('.')) this.globalLabel = name;
    this.append({ kind: 'label', text: `${name}:`, label: full });
    return this;
  }

  /** A comment on the last line, for listings. */
  note(text: string): this {
    const last = this.items.at(-1);
    if (!last) throw new Error('no line to note on');
    last.note = text;
    return this;
  }

  lock(): this {
    this.prefixes.lock = true;
    this.prefixText = 'lock ';
    return this;
  }

  rep(): this {
    return this.repeat(0xf3, 'rep ');
  }

  repe(): this {
    return this.repeat(0xf3, 'repe ');
  }

  repne(): this {
    return this.repeat(0xf2, 'repne ');
  }

  private repeat(prefix: 0xf2 | 0xf3, text: string): this {
    this.prefixes.repeat = prefix;
    this.prefixText = text;
    return this;
  }

  /** Pads to a multiple of a power of two: with NOPs, or with a byte. */
  align(alignment: number, fill: 'nop' | number = 'nop'): this {
    if (alignment < 1 || alignment & (alignment - 1)) throw new Error(`alignment ${alignment} is no power of two`);
    this.maxAlignment = Math.max(this.maxAlignment, alignment);
    this.append({
      kind: 'padding',
      text: `align ${alignment}`,
      alignment,
      name: fill === 'nop' ? fill : '',
      operands: fill === 'nop' ? [] : [fill],
    });
    return this;
  }

  db(...data: Datum[]): this {
    return this.data('db', 1, data);
  }

  dw(...data: Datum[]): this {
    return this.data('dw', 2, data);
  }

  dd(...data: Datum[]): this {
    return this.data('dd', 4, data);
  }

  dq(...data: Datum[]): this {
    return this.data('dq', 8, data);
  }

  /** Zeros. */
  reserve(bytes: number): this {
    this.append({
      kind: 'data',
      text: `times ${bytes} db 0`,
      choices: [{ bytes: new Array<number>(bytes).fill(0), fixups: [] }],
    });
    return this;
  }

  private data(directive: string, size: 1 | 2 | 4 | 8, data: readonly Datum[]): this {
    const bytes: number[] = [];
    const fixups: Fixup[] = [];
    for (const datum of data) {
      if (typeof datum === 'string' || datum instanceof Uint8Array) {
        if (size !== 1) throw new Error(`${directive} takes no text`);
        for (const value of typeof datum === 'string' ? textEncoder.encode(datum) : datum) bytes.push(value);
        continue;
      }
      let value = 0n;
      if (typeof datum === 'object')
        fixups.push({
          offset: bytes.length,
          bytes: size,
          kind: 'absolute',
          symbol: this.fullName(datum.symbol),
          addend: datum.addend,
        });
      else {
        value = BigInt(datum);
        if (value < -(1n << BigInt(8 * size - 1)) || value >= 1n << BigInt(8 * size))
          throw new Error(`${directive} ${datum}: too large`);
      }
      for (let i = 0; i < size; i++) bytes.push(Number((BigInt.asUintN(64, value) >> BigInt(8 * i)) & 0xffn));
    }
    const text = data.map((datum) =>
      datum instanceof Uint8Array
        ? `<${datum.length} bytes>`
        : typeof datum === 'string'
          ? JSON.stringify(datum)
          : operandText(datum),
    );
    this.append({ kind: 'data', text: `${directive} ${text.join(', ')}`, choices: [{ bytes, fixups }] });
    return this;
  }

  /** An instruction by name: what the methods named after instructions call. */
  instruction(name: string, operands: readonly Operand[]): this {
    const { prefixes, prefixText } = this;
    this.prefixes = { lock: false, repeat: 0 };
    this.prefixText = '';
    const choices = encode(name, operands, this.bits, prefixes).map(({ bytes, fixups }) => ({
      bytes,
      fixups: fixups.map((fixup) => ({ ...fixup, symbol: this.fullName(fixup.symbol) })),
    }));
    const isBranch = typeof operands[0] === 'string';
    const text = `${prefixText}${name} ${operands.map(operandText).join(', ')}`.trim();
    this.append({ kind: 'instruction', text, name, operands, choices: isBranch ? choices : choices.slice(0, 1) });
    return this;
  }

  private fullName(name: string): string {
    return name.startsWith('.') ? this.globalLabel + name : name;
  }

  private append(item: Partial<Item> & Pick<Item, 'kind' | 'text'>): void {
    this.items.push({
      note: '',
      name: '',
      operands: [],
      choices: [],
      choice: 0,
      label: undefined,
      alignment: 1,
      bits: this.bits,
      ...item,
    });
  }

  private sizeOf(item: Item, offset: number): number {
    if (item.kind === 'padding') return -offset & (item.alignment - 1);
    return item.choices[item.choice]?.bytes.length ?? 0;
  }

  /** Offsets of all items, and of labels. */
  private layOut(): { offsets: number[]; symbols: Map<string, number> } {
    const offsets: number[] = [];
    const symbols = new Map<string, number>();
    let offset = 0;
    for (const item of this.items) {
      offsets.push(offset);
      if (item.label !== undefined) symbols.set(item.label, offset);
      offset += this.sizeOf(item, offset);
    }
    return { offsets, symbols };
  }

  /** Branches start short and grow until all reach: growing never makes a reach shorter again, so this ends. */
  private relax(): { offsets: number[]; symbols: Map<string, number> } {
    for (;;) {
      const { offsets, symbols } = this.layOut();
      let grown = false;
      for (const [i, item] of this.items.entries()) {
        const fixup = item.choices[item.choice]?.fixups.at(-1);
        if (fixup?.kind !== 'relative' || fixup.bytes === 4) continue;
        const target = symbols.get(fixup.symbol);
        const distance = target === undefined ? Number.NaN : target + fixup.addend - offsets[i] - fixup.offset;
        const limit = 2 ** (8 * fixup.bytes - 1);
        if (distance >= -limit && distance < limit) continue;
        if (fixup.bytes === 2 && target === undefined) continue;
        if (item.choice + 1 >= item.choices.length)
          throw new Error(`${item.text}: ${target === undefined ? 'no such label in reach' : 'out of reach'}`);
        item.choice++;
        grown = true;
      }
      if (!grown) return { offsets, symbols };
    }
  }

  assemble(): ObjectCode {
    const { offsets, symbols } = this.relax();
    const bytes: number[] = [];
    const relocations: Relocation[] = [];
    const lines: Line[] = [];
    for (const [i, item] of this.items.entries()) {
      const { kind, text, note, name, operands, bits } = item;
      const offset = offsets[i];
      const length = this.sizeOf(item, offset);
      if (kind === 'padding')
        bytes.push(...(operands.length ? new Array<number>(length).fill(operands[0] as number) : padding(length, bits)));
      const choice = item.choices[item.choice];
      if (choice) for (const value of choice.bytes) bytes.push(value);
      for (const fixup of choice?.fixups ?? []) {
        const place = offset + fixup.offset;
        const target = symbols.get(fixup.symbol);
        if (fixup.kind !== 'relative' || target === undefined) {
          if (target === undefined && fixup.symbol.includes('.')) throw new Error(`no label ${fixup.symbol}`);
          relocations.push({ ...fixup, offset: place });
          continue;
        }
        const distance = target + fixup.addend - place;
        for (let b = 0; b < fixup.bytes; b++) bytes[place + b] = (distance >> (8 * b)) & 0xff;
      }
      lines.push({ offset, length, kind, text, note, name, operands });
    }
    return { bits: this.bits, bytes: Uint8Array.from(bytes), alignment: this.maxAlignment, symbols, relocations, lines };
  }
}

for (const name of instructionNames().keys()) {
  Object.defineProperty(AssemblyBuffer.prototype, name, {
    value(this: AssemblyBuffer, ...operands: Operand[]) {
      return this.instruction(name, operands);
    },
  });
}

export interface Assembler extends AssemblyBuffer, Instructions<Assembler> {}

/** An assembler for code of a mode. */
export const assembler = (bits: CodeBits): Assembler => new AssemblyBuffer(bits) as unknown as Assembler;
