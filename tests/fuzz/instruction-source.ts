/**
 * Random machine code that means something: instructions of every definition, with operands and addresses that mostly lead to the
 * memory there is, prefixes, and the short sequences that system instructions need in front of them to get anywhere.
 */

import { type CodeBits, Decoder, type Form, forms } from '../../src/isa/decoder.ts';
import type { Random } from '../conformance/machine-state.ts';
import * as world from './stream-world.ts';

/** What stands in front of immediates and displacements, ready to be written. */
interface Template {
  form: Form;
  mandatory: number;
  escapes: number[];
  /** Immediates and branch targets in bytes, by their letters. */
  hasImmediate: boolean;
  branch: 'none' | 'byte' | 'full';
  far: boolean;
  absolute: boolean;
  wide: 'any' | 'must' | 'never';
}

const MANDATORY = { any: 0, none: 0, 66: 0x66, F3: 0xf3, F2: 0xf2 } as const;
const ESCAPES = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]];

function templateOf(form: Form): Template {
  const { encoding } = form;
  const jump = encoding.operands.find((o) => o.code === 'J');
  return {
    form,
    mandatory: MANDATORY[encoding.prefix],
    escapes: ESCAPES[encoding.map],
    hasImmediate: encoding.operands.some((o) => o.code === 'I' || o.code === 'sI'),
    branch: !jump ? 'none' : jump.size === 'b' ? 'byte' : 'full',
    far: encoding.operands.some((o) => o.size === 'p' && (o.code === 'I' || o.code === 'J')),
    absolute: encoding.operands.some((o) => o.code === 'O'),
    wide: encoding.modifiers.has('W1') ? 'must' : encoding.modifiers.has('W0') ? 'never' : 'any',
  };
}

/** How much more often than an arithmetic vector instruction: what changes the machine's mind most. */
function weightOf({ instruction, encoding }: Form): number {
  if (encoding.operands.some((o) => 'VWUPQN'.includes(o.code) && o.code.length === 1)) return 1;
  if (encoding.map === 0 && (encoding.opcode & 0xf8) === 0xd8) return 1;
  if (instruction.repeat) return 10;
  if (instruction.modal || instruction.ends === 'block') return 8;
  return 4;
}

const [SEGMENT_PREFIXES, OTHER_PREFIXES] = [[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65], [0x66, 0x67, 0xf0, 0xf2, 0xf3]];
const MSRS = [
  0x10, 0x1b, 0x3b, 0x8b, 0xfe, 0x174, 0x175, 0x176, 0x179, 0x17a, 0x1a0, 0x200, 0x277, 0x2ff, 0x6e0, 0x802, 0x808, 0x80b, 0x80f, 0x830, 0x832, 0x838, 0x83f,
  0xc000_0080, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102, 0xc000_0103, 0xc001_0015, 0xc001_1029, 0x4b56_4d00, 0x4b56_4d01, 0x4b56_4d02, 0x4b56_4d03, 0x4b56_4d04,
  0xc000_0105, 0x1234_5678,
]; // biome-ignore format: a table
const PORTS = [0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xa1, 0xcf8, 0xcf9, 0xcfc, 0x3f8, 0x3fb, 0x4d0, 0x510, 0x514, 0x600, 0x608];

/** Writes instructions for one kind of code. */
export class InstructionSource {
  /** The encodings that there are in such code. */
  readonly forms: Form[] = [];
  private readonly templates: Template[] = [];
  private readonly codeBits: CodeBits;
  private readonly decoder = new Decoder();
  private bytes: Uint8Array = new Uint8Array(0);
  private at = 0;

  constructor(codeBits: CodeBits) {
    this.codeBits = codeBits;
    for (const form of forms) {
      const { modifiers } = form.encoding;
      if (modifiers.has(codeBits === 64 ? 'n64' : 'o64')) continue;
      // Outside of 64-bit mode nothing is wide.
      if (codeBits === 64 || !(modifiers.has('W1') || modifiers.has('s64'))) this.forms.push(form);
      const template = templateOf(form);
      for (let i = weightOf(form); i > 0; i--) this.templates.push(template);
    }
  }

  /** Writes an instruction, or a few that belong together; gives the number of bytes, at most 48. */
  write(random: Random, bytes: Uint8Array, at: number): number {
    this.bytes = bytes;
    this.at = at;
    const kind = random.below(100);
    if (kind < 8) this.sequence(random);
    else if (kind < 10) for (let i = 1 + random.below(12); i > 0; i--) this.put(random.below(256));
    else this.instruction(random, random.pick(this.templates));
    return this.at - at;
  }

  private put(byte: number): void {
    this.bytes[this.at++] = byte;
  }

  private put32(value: number): void {
    for (let i = 0; i < 4; i++) this.put((value >>> (8 * i)) & 0xff);
  }

  private instruction(random: Random, template: Template): void {
    const { form } = template;
    const { encoding, instruction } = form;
    const start = this.at;
    const { codeBits } = this;
    let addressPrefix = false;
    let operandPrefix = template.mandatory === 0x66;
    const dice = random.next();
    // Some of the prefixes there are, rarely many.
    if ((dice & 15) === 0) this.put(random.pick(SEGMENT_PREFIXES));
    if ((dice & 0xf0) === 0) {
      this.put(0x67);
      addressPrefix = true;
    }
    if ((dice & 0x700) === 0 && !encoding.vex) {
      this.put(0x66);
      operandPrefix = true;
    }
    if ((dice & 0x1f000) === 0) this.put(0xf0);
    if (instruction.lock && (dice & 0x60000) === 0) this.put(0xf0);
    if (instruction.repeat ? (dice & 0x80000) === 0 : (dice & 0x1f80000) === 0) this.put(dice & 0x2000000 ? 0xf3 : 0xf2);
    if ((dice & 0xfc000000) === 0) for (let i = random.below(13); i > 0; i--) this.put(random.chance(50) ? random.pick(SEGMENT_PREFIXES) : random.pick(OTHER_PREFIXES));
    const rex = this.encodeOpcode(random, template);
    if (encoding.hasModrm) this.modrm(random, form, addressPrefix, rex);
    const narrow = operandPrefix !== (codeBits === 16);
    if (template.branch !== 'none') this.branch(random, template.branch === 'byte' ? 1 : narrow ? 2 : 4);
    else if (template.far) {
      this.put32(random.chance(80) ? world.code + random.below(256) : world.pointer(random));
      if (narrow) this.at -= 2;
      this.selector(random);
    } else if (template.absolute) {
      this.put32(world.pointer(random));
      this.put32(0);
    } else if (template.hasImmediate) this.immediate(random);
    else return;
    // Only the decoder knows how much of it was wanted.
    const status = this.decoder.decode(this.bytes, start, 15, codeBits);
    if (status === 'ok') this.at = start + this.decoder.result.length;
  }

  /** Mandatory prefix, REX or VEX, escapes, opcode; gives REX. */
  private encodeOpcode(random: Random, { form, mandatory, escapes, wide }: Template): number {
    const { encoding } = form;
    const opcode = encoding.operands.some((o) => o.code === 'Z') ? encoding.opcode + random.below(8) : encoding.opcode;
    const dice = random.next();
    if (encoding.vex) {
      const extended = this.codeBits === 64 ? dice & 0xe0 : 0xe0;
      const pp = mandatory === 0x66 ? 1 : mandatory === 0xf3 ? 2 : mandatory === 0xf2 ? 3 : 0;
      const vvvv = encoding.vvvv || (dice & 0xf00) === 0 ? (dice >> 12) & 15 : 15;
      const w = wide === 'must' ? 0x80 : wide === 'never' ? 0 : (dice >> 16) & 0x80;
      for (const byte of [0xc4, extended | encoding.map, w | (vvvv << 3) | ((dice & 0xf000_0000) === 0 ? 4 : 0) | pp, opcode]) this.put(byte);
      return 0;
    }
    if (mandatory) this.put(mandatory);
    let rex = 0;
    if (this.codeBits === 64 && (wide === 'must' || (dice & 1) === 0)) {
      rex = 0x40 | ((dice >> 1) & (dice & 0x20 ? 8 : 15)) | (wide === 'must' ? 8 : 0);
      this.put(rex);
    }
    for (const escape of escapes) this.put(escape);
    this.put(opcode);
    return rex;
  }

  private modrm(random: Random, { encoding, allowsMemory, allowsRegister }: Form, addressPrefix: boolean, rex: number): void {
    if (encoding.modrm >= 0) return this.put(encoding.modrm + random.below(encoding.modrmCount));
    const reg = encoding.digit >= 0 ? encoding.digit : random.below(8);
    const memory = allowsMemory && (!allowsRegister || random.chance(65)) !== random.chance(2);
    if (!memory) return this.put(0xc0 | (reg << 3) | random.below(8));
    const mod = random.below(3);
    const bits = this.codeBits === 64 ? (addressPrefix ? 32 : 64) : addressPrefix !== (this.codeBits === 16) ? 16 : 32;
    const rm = random.below(8);
    this.put((mod << 6) | (reg << 3) | rm);
    if (bits === 16) {
      const pointer = world.pointer(random);
      if (mod === 1) this.put(random.below(256));
      if (mod === 2 || (mod === 0 && rm === 6)) {
        this.put(pointer & 0xff);
        this.put((pointer >> 8) & 0xff);
      }
      return;
    }
    let base = rm;
    if (rm === 4) {
      // Mostly without an index: two pointers are none.
      base = random.below(8);
      this.put((random.below(4) << 6) | ((random.chance(70) && !(rex & 2) ? 4 : random.below(8)) << 3) | base);
    }
    if (mod === 1) this.put(random.below(256));
    else if (mod === 0 && base === 5) this.put32(bits === 64 || (this.codeBits === 64 && rm === 5) ? random.below(0x1000) - 0x800 : world.pointer(random));
    else if (mod === 2) this.put32(random.chance(90) ? random.below(0x2000) - 0x1000 : random.next());
  }

  /** A target near by, most of the time. */
  private branch(random: Random, bytes: number): void {
    const distance = random.chance(90) ? random.below(96) - 32 : random.next() | 0;
    for (let i = 0; i < bytes; i++) this.put((distance >> (8 * i)) & 0xff);
  }

  private selector(random: Random): void {
    const selector = world.selector(random);
    this.put(selector & 0xff);
    this.put(selector >> 8);
  }

  private immediate(random: Random): void {
    switch (random.below(5)) {
      case 0: for (let i = 0; i < 9; i++) this.put(0); break;
      case 1: for (let i = 0; i < 9; i++) this.put(0xff); break;
      case 2: this.put32(world.pointer(random)); this.put32(0); this.put(0); break;
      case 3: this.put(random.below(256)); for (let i = 0; i < 8; i++) this.put(0); break;
      default: for (let i = 0; i < 9; i++) this.put(random.below(256));
    }
  }

  // --- Short programs -----------------------------------------------------------------------------

  /** MOV of an immediate to a 32-bit register. */
  private load(register: number, value: number): void {
    if (this.codeBits === 16) this.put(0x66);
    this.put(0xb8 + register);
    this.put32(value);
  }

  /** PUSH of an immediate; 16 and 32-bit code push 32 bits, 64-bit code pushes 64. */
  private push(value: number): void {
    if (this.codeBits === 16) this.put(0x66);
    this.put(0x68);
    this.put32(value);
  }

  private sequence(random: Random): void {
    const flags = random.chance(60) ? 2 : random.next() & 0x27_7fd7;
    switch (random.below(10)) {
      case 0: case 1: // WRMSR, RDMSR
        this.load(1, random.pick(MSRS));
        this.load(0, random.chance(50) ? random.next() : random.pick([0, 1, 0xfee0_0c00, 0xfee0_0900, 0xd01, 0x901, 0xffff_ffff, world.code]));
        this.load(2, random.chance(70) ? 0 : random.pick([-1, 0xffff_8000, 1, random.next()]));
        this.put(0x0f);
        return this.put(random.chance(80) ? 0x30 : 0x32);
      case 2: { // MOV CRn
        const register = random.pick([0, 2, 3, 4, 8]);
        const value = register === 0 ? random.pick(world.cr0) : register === 3 ? random.pick(world.roots) : register === 4 ? random.next() & random.pick([0x30_ffff, 0x37_1fff, 0x7ff, 0x1000]) | (this.codeBits === 64 ? 0x20 : 0) : random.next();
        this.load(0, value);
        if (register === 8) this.put(this.codeBits === 64 ? 0x44 : 0xf0);
        for (const byte of [0x0f, 0x22, 0xc0 | ((register & 7) << 3)]) this.put(byte);
        return;
      }
      case 3: // a selector into a segment register, LDTR or TR
        this.load(0, world.selector(random));
        if (random.chance(60)) {
          this.put(0x8e);
          return this.put(0xc0 | (random.below(6) << 3));
        }
        this.put(0x0f);
        this.put(0x00);
        return this.put(0xd0 | (random.below(2) << 3));
      case 4: // an interrupt frame, IRET
        if (random.chance(70)) {
          this.push(world.selector(random));
          this.push(random.chance(80) ? world.stack : random.next());
        }
        this.push(flags);
        this.push(world.selector(random));
        this.push(world.code + random.below(256));
        if (this.codeBits === 64) this.put(0x48);
        else if (this.codeBits === 16) this.put(0x66);
        return this.put(0xcf);
      case 5: // a far pointer on the stack, RETF
        if (random.chance(60)) {
          this.push(world.selector(random));
          this.push(world.stack);
        }
        this.push(world.selector(random));
        this.push(world.code + random.below(256));
        if (this.codeBits === 64) this.put(0x48);
        else if (this.codeBits === 16) this.put(0x66);
        return this.put(0xcb);
      case 6: // flags
        this.push(random.next() & (random.chance(50) ? 0x27_7fd7 : 0x100));
        if (this.codeBits === 16) this.put(0x66);
        return this.put(0x9d);
      case 7: { // debug registers
        const register = random.pick([0, 1, 2, 3, 6, 7, 7, 7]);
        this.load(0, register < 4 ? world.pointer(random) : random.next());
        for (const byte of [0x0f, 0x23, 0xc0 | (register << 3)]) this.put(byte);
        return;
      }
      case 8: // ports
        this.load(2, random.chance(80) ? random.pick(PORTS) : random.below(65536));
        return this.put(random.pick([0xec, 0xed, 0xee, 0xef, 0x6c, 0x6d, 0x6e, 0x6f]));
      default: // a descriptor, gate or page table entry is written
        this.load(0, random.chance(50) ? world.descriptorHalf(random) : random.next());
        if (this.codeBits === 64) for (const byte of [0x89, 0x04, 0x25]) this.put(byte);
        else if (this.codeBits === 32) for (const byte of [0x89, 0x05]) this.put(byte);
        else for (const byte of [0x66, 0x67, 0x89, 0x05]) this.put(byte);
        this.put32(random.chance(50) ? world.tableEntry(random) : world.gdt + 4 * random.below(2 * world.SELECTOR_COUNT));
    }
  }
}
