/**
 * Encodes forms with registers, addressing modes, immediates and redundant prefixes drawn at random, so that the cases
 * of a form together see the encoding space: all registers, REX present where it isn't needed, AH to BH and SPL to DIL,
 * every shape of ModRM and SIB. Displacements of operands without a base are placeholders that generate.ts fills in.
 */

import type { Random } from '../conformance/machine-state.ts';
import type { Form } from './forms.ts';

const REX = { base: 0x40, w: 8, r: 4, x: 2, b: 1 } as const;
const SEGMENT_OVERRIDES = [0x64, 0x65, 0x64, 0x65, 0x2e, 0x3e, 0x26, 0x36];
const DISPLACEMENTS = [0, 1, -1, 8, 0x10, -0x10, 0x7f, -0x80];
const WIDE_DISPLACEMENTS = [...DISPLACEMENTS, 0x80, -0x81, 0x1234, -0x1234, 0x1234_5678, -0x1234_5678, 0x7fff_ffff, -0x8000_0000];

function little(value: number | bigint, size: number): number[] {
  return Array.from({ length: size }, (_, i) => Number((BigInt.asUintN(64, BigInt(value)) >> BigInt(8 * i)) & 0xffn));
}

interface RmEncoding {
  mod: number;
  rm: number;
  sib: number[];
  displacement: number[];
  rex: number;
}

/** ModRM.rm, SIB and displacement of a memory operand. */
/** `near`: only displacements that leave a stack pointer used as the base where the stack is. */
function encodeMemory(random: Random, near: boolean): RmEncoding {
  const shape = random.below(14);
  const mod = random.below(3);
  const wide = mod === 2;
  const displacement = mod === 0 ? [] : little(random.pick(wide && !near ? WIDE_DISPLACEMENTS : DISPLACEMENTS), wide ? 4 : 1);
  const index = random.pick([0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
  const scale = random.below(4) << 6;
  const indexed = ((index & 7) << 3) | scale;
  const indexRex = index > 7 ? REX.x : 0;
  const alone = { mod: 0, displacement: [0, 0, 0, 0] };
  if (shape === 0) return { ...alone, rm: 5, sib: [], rex: random.chance(20) ? REX.b : 0 }; // RIP-relative
  if (shape === 1) return { ...alone, rm: 4, sib: [0x25], rex: 0 }; // absolute
  if (shape === 2) return { ...alone, rm: 4, sib: [indexed | 5], rex: indexRex }; // index without base
  let base = random.below(16);
  if (shape <= 7) { // base and index; RBP and R13 need a displacement
    while (base === index) base = random.below(16);
    const extended = mod === 0 && (base & 7) === 5;
    const rex = indexRex | (base > 7 ? REX.b : 0);
    return { mod: extended ? 1 : mod, rm: 4, sib: [indexed | (base & 7)], displacement: extended ? [0] : displacement, rex };
  }
  const rex = base > 7 ? REX.b : 0;
  const extended = mod === 0 && (base & 7) === 5;
  const sib = (base & 7) === 4 || random.chance(10) ? [0x20 | (random.below(4) << 6) | (base & 7)] : [];
  return { mod: extended ? 1 : mod, rm: sib.length ? 4 : base & 7, sib, displacement: extended ? [0x10] : displacement, rex };
}

const EDGE_BYTES = [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 0x7f, 0x80, 0x81, 0xfe, 0xff];

export function edgeImmediate(random: Random, size: number): number[] {
  if (size === 1) return [random.chance(60) ? random.pick(EDGE_BYTES) : random.below(256)];
  switch (random.below(5)) {
    case 0: return little(random.pick([0, 1, -1, 2, -2, 0x7f, 0x80, -0x80]), size);
    case 1: return [...new Array<number>(size - 1).fill(0), 0x80];
    case 2: return [...new Array<number>(size - 1).fill(0xff), 0x7f];
    default: return little(random.word(), size);
  }
}

/** Bytes of one instruction of the form. */
export function encode(form: Form, random: Random): Uint8Array {
  const { encoding, size } = form;
  const codes = encoding.operands;
  const find = (letters: string) => codes.find(({ code }) => code.length === 1 && letters.includes(code));
  const has = (modifier: string): boolean => encoding.modifiers.has(modifier);
  const prefixes = [...form.prefixes];
  let rex = 0;
  let forceRex = random.chance(10);

  if (size === 16) prefixes.push(0x66);
  if (size === 64 && encoding.sized && !has('d64') && !has('f64')) rex |= REX.w;
  if (size === 64 && (has('d64') || has('f64')) && random.chance(10)) rex |= REX.w;
  if (has('W1') || (size === 64 && !encoding.sized)) rex |= REX.w;
  if (codes.some(({ size: s }) => s === 'y') && size === 64) rex |= REX.w;

  const tail: number[] = [];
  let opcode = encoding.opcode;
  const register = find('GPVSCD');
  const rm = find('ERMWUQN');
  if (encoding.modrm >= 0) tail.push(encoding.modrm + random.below(encoding.modrmCount));
  else if (encoding.hasModrm) {
    let reg = encoding.digit >= 0 ? encoding.digit : random.below(register?.code === 'S' ? 6 : register?.code === 'P' ? 8 : 16);
    if (register?.code === 'P' && random.chance(10)) rex |= REX.r; // ignored
    if (reg > 7) rex |= REX.r;
    reg &= 7;
    if (form.kind === 'mem') {
      const usesStack = /^(PUSH|POP|CALL)$/.test(form.mnemonic);
      const memory = encodeMemory(random, usesStack);
      rex |= memory.rex;
      tail.push((memory.mod << 6) | (reg << 3) | memory.rm, ...memory.sib, ...memory.displacement);
      if (!form.prefixes.length || form.prefixes[0] === 0xf0) {
        if (random.chance(8)) prefixes.push(0x67);
        if (random.chance(6) && !usesStack) prefixes.push(random.pick(SEGMENT_OVERRIDES));
      }
    } else {
      const mmx = rm !== undefined && 'QN'.includes(rm.code);
      const number = random.below(mmx ? 8 : 16);
      if (number > 7 || (mmx && random.chance(10))) rex |= REX.b;
      tail.push(0xc0 | (reg << 3) | (number & 7));
      if (random.chance(5)) rex |= REX.x; // ignored
    }
  } else if (find('Z')) {
    const number = random.below(16);
    opcode |= number & 7;
    if (number > 7) rex |= REX.b;
  }
  if (codes.some((operand) => operand.size === 'b' && 'EGZ'.includes(operand.code)) && random.chance(30)) forceRex = true;

  for (const { code, size: letter } of codes) {
    const wide = size === 64 ? 4 : size / 8;
    if (code === 'I' || code === 'sI') tail.push(...immediate(form, letter, wide, random));
    else if (code === 'J' && letter === 'b') tail.push(random.below(256));
    else if (code === 'J') tail.push(...little(random.next() >> (random.chance(70) ? 8 : 0), wide));
    else if (code === 'O') tail.push(...new Array<number>(8).fill(0));
  }
  const escape = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][encoding.map];
  if (encoding.vex) return Uint8Array.from([...prefixes, ...encodeVex(form, rex, random), opcode, ...tail]);
  // Mandatory prefixes are told from 66h as operand size by their place being irrelevant: any order will do.
  if (encoding.prefix === '66') prefixes.push(0x66);
  if (encoding.prefix === 'F2') prefixes.push(0xf2);
  if (encoding.prefix === 'F3') prefixes.push(0xf3);
  if (prefixes.length > 1 && random.chance(30)) prefixes.reverse();
  const rexBytes = rex || forceRex ? [REX.base | rex] : [];
  return Uint8Array.from([...prefixes, ...rexBytes, ...escape, opcode, ...tail]);
}

/** C4 and the two bytes behind it, with the register in VEX.vvvv drawn where there is one. */
function encodeVex({ encoding }: Form, rex: number, random: Random): number[] {
  const inverted = ~rex & 7;
  const vvvv = encoding.vvvv ? random.below(16) : 15;
  const prefix = ['any', '66', 'F3', 'F2'].indexOf(encoding.prefix);
  return [0xc4, (inverted << 5) | encoding.map, (rex & REX.w ? 0x80 : 0) | (vvvv << 3) | Math.max(0, prefix)];
}

const FRAME_SIZES = [0, 1, 8, 0x10, 0x40, 0xff, 0x100, 0x200];
const NESTING_LEVELS = [0, 0, 1, 1, 2, 3, 4, 8, 31, 32, 33, 0x41];

function immediate(form: Form, letter: string, wide: number, random: Random): number[] {
  if (form.mnemonic === 'ENTER') return letter === 'w' ? little(random.pick(FRAME_SIZES), 2) : [random.pick(NESTING_LEVELS)];
  if (form.mnemonic === 'RET') return little(random.pick([0, 1, 8, 0x10, 0x7fff, 0x8000, 0xffff]), 2);
  switch (letter) {
    case 'b': return edgeImmediate(random, 1);
    case 'w': return edgeImmediate(random, 2);
    case 'z': return edgeImmediate(random, wide);
    case 'v': return edgeImmediate(random, form.size / 8);
    default: throw new Error(`${form.id}: immediate of size '${letter}'`);
  }
}
