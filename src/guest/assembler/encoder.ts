/**
 * Encodes one instruction, from the encodings its definition has: the shortest one whose operands fit. The reverse of
 * isa/decoder.ts. SDM 2A chapter 2.
 * Not reachable: the 16-bit variants of FLDENV and its like in 32 and 64-bit mode, encodings that only repeat another one.
 */

import '../../isa/all.ts';
import { buildDecodeTables, type CodeBits, type Form, forms } from '../../isa/decoder.ts';
import type { Encoding, OperandSpecification } from '../../isa/encoding.ts';
import { INSTRUCTION_NAMES } from './mnemonics.ts';
import {
  type Address,
  ax,
  cs,
  ds,
  es,
  type FarPointer,
  fs,
  gs,
  type Memory,
  type Operand,
  operandText,
  type Register,
  ss,
} from './operands.ts';

/** Four bytes (or fewer) of an instruction that depend on where a symbol ends up. */
export interface Fixup {
  offset: number;
  bytes: 1 | 2 | 4 | 8;
  /** absolute: the address, zero- or sign-extended; signed: must survive sign extension; relative: to the field itself. */
  kind: 'absolute' | 'signed' | 'relative';
  symbol: string;
  addend: number;
}

export interface Encoded {
  form: Form;
  bytes: number[];
  fixups: Fixup[];
}

export interface Prefixes {
  lock: boolean;
  repeat: 0 | 0xf2 | 0xf3;
}

const REX = { base: 0x40, w: 8, r: 4, x: 2, b: 1 } as const;
const SEGMENT_PREFIXES = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
const OPERAND_SIZE = 0x66;
const ADDRESS_SIZE = 0x67;
/** SIB's index that is none, ModRM.rm that calls for SIB, base that is none with mod 0. */
const NO_INDEX = 4;
const HAS_SIB = 4;
const NO_BASE = 5;
/** Base and index of 16-bit addresses by ModRM.rm: BX+SI, BX+DI, BP+SI, BP+DI, SI, DI, BP, BX. */
const ADDRESSES_16 = ['3,6', '3,7', '5,6', '5,7', '6', '7', '5', '3'];

/** Operands that the manual writes and the encoding implies, by encoding. */
const IMPLIED: Record<string, readonly Register[]> = {
  'DF E0': [ax],
  '06 ; n64 d64': [es],
  '0E ; n64 d64': [cs],
  '16 ; n64 d64': [ss],
  '1E ; n64 d64': [ds],
  '0F A0 ; d64': [fs],
  '0F A8 ; d64': [gs],
  '07 ; n64 d64': [es],
  '17 ; n64 d64': [ss],
  '1F ; n64 d64': [ds],
  '0F A1 ; d64': [fs],
  '0F A9 ; d64': [gs],
};

/** Names of forms that the mnemonic alone does not tell apart: by mnemonic, then modifier (or opcode extension). */
const VARIANTS: Record<string, Record<string, string>> = {
  'CALL far': { '': 'callFar' },
  'JMP far': { '': 'jmpFar' },
  'RET far': { s16: 'retfw', s32: 'retfd', s64: 'retfq' },
  IRET: { s16: 'iretw', s32: 'iretd', s64: 'iretq' },
  SYSRET: { s32: 'sysret', s64: 'sysretq' },
};
/** Encodings that repeat another one, or whose ModRM.reg is a hint that the definition leaves open. */
const LEFT_OUT = new RegExp(
  ['82/', '[CD][0-3]/6', 'F[67]/1 E', '6[DF] [XY]z ; s64', '0F 1[9A-E] Ev', '66 0F 3A 6[01].*W1', 'DC D[08]', 'DE D0', 'D[DF] C8', 'DF D[08]', 'D9 D8']
    .map((start) => `^${start}`)
    .join('|'),
);
/** ModRM.reg is the hint of a prefetch. */
const PREFETCHES: Record<string, [encoding: string, digit: number]> = {
  prefetchnta: ['0F 18 Ev', 0],
  prefetcht0: ['0F 18 Ev', 1],
  prefetcht1: ['0F 18 Ev', 2],
  prefetcht2: ['0F 18 Ev', 3],
  prefetchw: ['0F 0D M', 1],
};
const ALIASES: Record<string, string> = {
  jc: 'jb',
  jnc: 'jae',
  jz: 'je',
  jnz: 'jne',
  jna: 'jbe',
  jnbe: 'ja',
  jnae: 'jb',
  jnb: 'jae',
  jl: 'jl',
  jnge: 'jl',
  jnl: 'jge',
  jng: 'jle',
  jnle: 'jg',
  jpe: 'jp',
  jpo: 'jnp',
  setc: 'setb',
  setnc: 'setae',
  setz: 'sete',
  setnz: 'setne',
  cmovc: 'cmovb',
  cmovnc: 'cmovae',
  cmovz: 'cmove',
  cmovnz: 'cmovne',
  sal: 'shl',
};

interface Candidate {
  form: Form;
  digit: number;
  /** The operands that are written, and which kinds of operand each can be: a first look, before anything is tried. */
  specifications: readonly OperandSpecification[];
  kinds: readonly number[];
}

const Kind = { general: 1, segment: 2, control: 4, debug: 8, mmx: 16, xmm: 32, x87: 64, memory: 128, immediate: 256, target: 512, far: 1024 } as const;

function kindOf(operand: Operand): number {
  if (typeof operand === 'string') return Kind.target;
  if (typeof operand !== 'object' || operand.kind === 'address') return Kind.immediate;
  return operand.kind === 'register' ? Kind[operand.class] : Kind[operand.kind];
}

function kindsOf({ code, size }: OperandSpecification): number {
  switch (code) {
    case 'E': return Kind.general | Kind.memory;
    case 'W': return Kind.xmm | Kind.memory;
    case 'Q': return Kind.mmx | Kind.memory;
    case 'M': case 'O': return Kind.memory;
    case 'V': case 'U': return Kind.xmm;
    case 'P': case 'N': return Kind.mmx;
    case 'S': return Kind.segment;
    case 'C': return Kind.control;
    case 'D': return Kind.debug;
    case 'I': case 'sI': return size === 'p' ? Kind.far : Kind.immediate;
    case '1': return Kind.immediate;
    case 'J': return Kind.target;
    case 'i': return Kind.x87;
    default: return Kind.general;
  }
}

const byName = new Map<string, Candidate[]>();

/** The assembler's name of a form, or undefined for one it does not emit. */
export function formName({ instruction: { mnemonic }, encoding: { text, modifiers } }: Form): string | undefined {
  if (LEFT_OUT.test(text) || mnemonic === 'PREFETCH') return undefined;
  if (/^F?X(SAVE|RSTOR)/.test(mnemonic)) return mnemonic.toLowerCase() + (modifiers.has('W1') ? '64' : '');
  const variants = VARIANTS[mnemonic];
  if (!variants) return mnemonic.split(' ')[0].toLowerCase();
  const modifier = ['s16', 's32', 's64'].find((m) => modifiers.has(m)) ?? '';
  return variants[modifier];
}

function buildNames(): void {
  if (byName.size) return;
  buildDecodeTables();
  const add = (name: string, form: Form, digit = Math.max(form.encoding.digit, 0)): void => {
    const specifications = explicitOperands(form);
    const candidate = { form, digit, specifications, kinds: specifications.map(kindsOf) };
    const list = byName.get(name);
    if (list) list.push(candidate);
    else byName.set(name, [candidate]);
  };
  for (const form of forms) {
    const name = formName(form);
    if (name !== undefined && INSTRUCTION_NAMES.has(name)) add(name, form);
    for (const [prefetch, [text, digit]] of Object.entries(PREFETCHES))
      if (form.encoding.text === text) add(prefetch, form, digit);
  }
  for (const [alias, name] of Object.entries(ALIASES)) byName.set(alias, byName.get(name) as Candidate[]);
}

/** All names, aliases included, with the forms each stands for: those in the lists of mnemonics.ts. */
export function instructionNames(): ReadonlyMap<string, readonly { form: Form }[]> {
  buildNames();
  return byName;
}

/** The operands that are written: not the implied ones. */
export function explicitOperands(form: Form): OperandSpecification[] {
  const { operands } = form.encoding;
  const implied = operands.some((o) => o.code === 'eDX' || o.code === 'X' || o.code === 'Y');
  return implied ? [] : operands;
}

const isAddress = (operand: Operand): operand is Address => typeof operand === 'object' && operand.kind === 'address';
const isImmediate = (operand: Operand): operand is number | bigint | Address =>
  typeof operand === 'number' || typeof operand === 'bigint' || isAddress(operand);
const isRegister = (operand: Operand, registerClass: Register['class'], bits?: number): operand is Register =>
  typeof operand === 'object' &&
  operand.kind === 'register' &&
  operand.class === registerClass &&
  (bits === undefined || operand.bits === bits);
const isMemory = (operand: Operand): operand is Memory => typeof operand === 'object' && operand.kind === 'memory';
const fitsSigned = (value: number | bigint, bits: number): boolean => BigInt.asIntN(bits, BigInt(value)) === BigInt(value);

/** Bits of a size letter; 0: any. */
function sizeBits(size: string, operandBits: number): number {
  switch (size) {
    case 'b':
      return 8;
    case 'w':
      return 16;
    case 'd':
    case 'ss':
      return 32;
    case 'q':
    case 'sd':
    case 'si':
    case 'pi':
      return 64;
    case 't':
      return 80;
    case 'v':
      return operandBits;
    case 'z':
      return Math.min(operandBits, 32);
    case 'y':
      return operandBits === 64 ? 64 : 32;
    case 'p':
      return operandBits + 16;
    case '':
    case 'a':
    case 's':
    case 'env':
    case 'fpu':
    case 'fx':
    case 'xs':
      return 0;
    default:
      return 128;
  }
}

const little = (value: number | bigint, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, i) => Number((BigInt.asUintN(64, BigInt(value)) >> BigInt(8 * i)) & 0xffn));

/** Collects the parts of one instruction; false from a method means that the operand doesn't fit. */
class Attempt {
  readonly bits: CodeBits;
  rex = 0;
  needsRex = false;
  forbidsRex = false;
  modrm = -1;
  sib = -1;
  displacement: number[] = [];
  immediates: number[] = [];
  opcodeRegister = 0;
  /** The register in VEX.vvvv. */
  vvvv = 0;
  segment = -1;
  addressPrefix = false;
  /** Offsets are from the displacement's, or the immediates', first byte. */
  displacementFixups: Fixup[] = [];
  immediateFixups: Fixup[] = [];

  constructor(bits: CodeBits) {
    this.bits = bits;
  }

  /** The low three bits of its number; notes what REX must say. */
  register(register: Register, rexBit: number): number {
    if (register.class === 'general' && register.bits === 8 && register.number >= 4 && register.number < 8) {
      if (register.high) this.forbidsRex = true;
      else this.needsRex = true;
    }
    if (register.number > 7) this.rex |= rexBit;
    return register.number & 7;
  }

  memory(operand: Memory): boolean {
    const { base, index, scale, displacement, symbol } = operand;
    if (operand.segment) this.segment = operand.segment.number;
    const addressBits =
      (base ?? index)?.bits ?? (this.bits === 16 && (displacement < 0 || displacement > 0xffff) ? 32 : this.bits);
    if ((base && base.bits !== addressBits) || (index && index.bits !== addressBits) || addressBits === 8) return false;
    if (this.bits === 64 ? addressBits === 16 : addressBits === 64) return false;
    this.addressPrefix = addressBits !== this.bits;
    if (addressBits === 16) return this.memory16(operand);
    const put = (mod: number, rm: number): true => {
      this.modrm = (this.modrm & 0x38) | (mod << 6) | rm;
      return true;
    };
    const relative = operand.relative && this.bits === 64;
    const wide = (kind: Fixup['kind']): void => {
      this.displacement = little(symbol === undefined ? displacement : 0, 4);
      if (symbol !== undefined) this.displacementFixups.push({ offset: 0, bytes: 4, kind, symbol, addend: displacement });
    };
    if (
      symbol === undefined &&
      !fitsSigned(displacement, 32) &&
      !(addressBits === 32 && displacement >= 0 && displacement < 2 ** 32)
    )
      return false;
    if (relative) {
      wide('relative');
      return put(0, NO_BASE);
    }
    if (!base) {
      wide(addressBits === 64 ? 'signed' : 'absolute');
      if (!index && this.bits !== 64) return put(0, NO_BASE);
      if (index && index.number > 7) this.rex |= REX.x;
      this.sib = (Math.log2(scale) << 6) | ((index ? index.number & 7 : NO_INDEX) << 3) | NO_BASE;
      return put(0, HAS_SIB);
    }
    if (base.number > 7) this.rex |= REX.b;
    if (index && index.number > 7) this.rex |= REX.x;
    const rm = base.number & 7;
    const needsSib = index !== undefined || rm === HAS_SIB;
    if (needsSib) this.sib = (Math.log2(scale) << 6) | ((index ? index.number & 7 : NO_INDEX) << 3) | rm;
    const field = needsSib ? HAS_SIB : rm;
    if (symbol !== undefined) {
      wide(addressBits === 64 ? 'signed' : 'absolute');
      return put(2, field);
    }
    if (displacement === 0 && rm !== NO_BASE) return put(0, field);
    if (fitsSigned(displacement, 8)) {
      this.displacement = little(displacement, 1);
      return put(1, field);
    }
    wide('signed');
    return put(2, field);
  }

  private memory16({ base, index, scale, displacement, symbol }: Memory): boolean {
    const registers = [base, index]
      .filter((r) => r !== undefined)
      .map((r) => r.number)
      .sort();
    const rm = registers.length ? ADDRESSES_16.indexOf(registers.join()) : 6;
    if (rm < 0 || scale !== 1) return false;
    const alone = registers.length === 0;
    if (symbol === undefined && !fitsSigned(displacement, 16) && displacement >>> 0 > 0xffff) return false;
    const small = symbol === undefined && fitsSigned(displacement, 8) && !alone;
    const mod = alone || (small && displacement === 0 && rm !== 6) ? 0 : small ? 1 : 2;
    const bytes = alone || mod === 2 ? 2 : mod;
    this.displacement = little(symbol === undefined ? displacement : 0, bytes);
    if (symbol !== undefined)
      this.displacementFixups.push({ offset: 0, bytes: 2, kind: 'absolute', symbol, addend: displacement });
    this.modrm = (this.modrm & 0x38) | (mod << 6) | rm;
    return true;
  }

  /** An immediate of `bytes`, for an operand of `bits`: sign-extended if it is smaller. */
  immediate(operand: number | bigint | Address, bytes: number, bits: number, extended: boolean): boolean {
    const size = bytes as Fixup['bytes'];
    if (isAddress(operand)) {
      if (extended && bytes === 1) return false;
      this.immediateFixups.push({
        offset: this.immediates.length,
        bytes: size,
        kind: bits > bytes * 8 ? 'signed' : 'absolute',
        symbol: operand.symbol,
        addend: operand.addend,
      });
      this.immediates.push(...little(0, bytes));
      return true;
    }
    const value = BigInt(operand);
    if (value < -(1n << BigInt(bits - 1)) || value >= 1n << BigInt(bits)) return false;
    if (!fitsSigned(BigInt.asIntN(bits, value), bytes * 8) && bits !== bytes * 8) return false;
    this.immediates.push(...little(value, bytes));
    return true;
  }

  farPointer({ selector, offset }: FarPointer, operandBits: number): boolean {
    if (!this.immediate(offset, operandBits / 8, operandBits, false)) return false;
    this.immediates.push(...little(selector, 2));
    return true;
  }
}

/** Fits operands to a form at an operand size, and encodes. Undefined: they don't fit. */
function encodeForm(
  { form, digit, specifications }: Candidate,
  operands: readonly Operand[],
  operandBits: number,
  bits: CodeBits,
  prefixes: Prefixes,
): Encoded | undefined {
  const { encoding } = form;
  const { modifiers } = encoding;
  const attempt = new Attempt(bits);
  const system = encoding.operands.some((o) => o.code === 'C' || o.code === 'D');
  const invpcid = form.instruction.mnemonic === 'INVPCID';
  if (encoding.hasModrm) attempt.modrm = encoding.modrm >= 0 ? encoding.modrm : 0xc0 | (digit << 3);
  if (modifiers.has('W1') || (operandBits === 64 && encoding.sized && !modifiers.has('d64') && !modifiers.has('f64')))
    attempt.rex |= REX.w;
  const reg = (register: Register): boolean => {
    attempt.modrm = (attempt.modrm & ~0x38) | (attempt.register(register, REX.r) << 3);
    return true;
  };
  const rm = (register: Register): boolean => {
    if (!form.allowsRegister) return false;
    attempt.modrm |= 0xc0 | attempt.register(register, REX.b);
    return true;
  };
  const place = (operand: Operand, accepts: (operand: Operand) => operand is Register, memoryBits: number): boolean => {
    if (accepts(operand)) return rm(operand);
    return (
      isMemory(operand) &&
      form.allowsMemory &&
      (operand.bits === 0 || memoryBits === 0 || operand.bits === memoryBits) &&
      attempt.memory(operand)
    );
  };
  const fit = (operand: Operand, { code, size }: OperandSpecification): boolean => {
    const width = (system && size === 'q') || (invpcid && code === 'G') ? (bits === 64 ? 64 : 32) : sizeBits(size, operandBits);
    const general = (o: Operand): o is Register => isRegister(o, 'general', width);
    const xmm = (o: Operand): o is Register => isRegister(o, 'xmm');
    const mmx = (o: Operand): o is Register => isRegister(o, 'mmx');
    switch (code) {
      case 'E':
      case 'R':
      case 'M':
        if (form.instruction.mnemonic === 'PREFETCH') return isMemory(operand) && attempt.memory(operand);
        return place(operand, general, width);
      case 'W':
      case 'U':
        return place(operand, xmm, vectorMemoryBits(form, width));
      case 'Q':
      case 'N':
        return place(operand, mmx, width);
      case 'G':
        return general(operand) && reg(operand);
      case 'B': {
        if (!general(operand)) return false;
        attempt.vvvv = operand.number;
        return operand.number < 8 || bits === 64;
      }
      case 'V':
        return xmm(operand) && reg(operand);
      case 'P':
        return mmx(operand) && reg(operand);
      case 'S':
        return isRegister(operand, 'segment') && reg(operand);
      case 'C':
        return isRegister(operand, 'control') && reg(operand);
      case 'D':
        return isRegister(operand, 'debug') && reg(operand);
      case 'Z': {
        if (!general(operand)) return false;
        attempt.opcodeRegister = attempt.register(operand, REX.b);
        // 90 is NOP, which does not clear the upper half.
        return !(encoding.opcode === 0x90 && operand.number === 0);
      }
      case 'I':
      case 'sI': {
        if (size === 'p')
          return typeof operand === 'object' && operand.kind === 'far' && attempt.farPointer(operand, operandBits);
        if (!isImmediate(operand)) return false;
        // A lone byte beside a wider operand is a count or a mask, not extended; `sIb` and a 64-bit operand's Iz are.
        const wide = code === 'sI' ? operandBits : size === 'z' ? operandBits : width;
        return attempt.immediate(operand, width / 8, wide, code === 'sI');
      }
      case 'J': {
        const bytes = (size === 'b' ? 1 : operandBits === 16 ? 2 : 4) as Fixup['bytes'];
        if (typeof operand !== 'string') return false;
        attempt.immediateFixups.push({
          offset: attempt.immediates.length,
          bytes,
          kind: 'relative',
          symbol: operand,
          addend: -bytes,
        });
        attempt.immediates.push(...little(0, bytes));
        return true;
      }
      case 'O': {
        if (!isMemory(operand) || operand.base || operand.index || operand.relative || (operand.bits && operand.bits !== width))
          return false;
        if (operand.segment) attempt.segment = operand.segment.number;
        const bytes = (bits / 8) as Fixup['bytes'];
        if (operand.symbol !== undefined)
          attempt.immediateFixups.push({
            offset: 0,
            bytes,
            kind: 'absolute',
            symbol: operand.symbol,
            addend: operand.displacement,
          });
        else if (bits < 64 && (operand.displacement < 0 || operand.displacement >= 2 ** bits)) return false;
        attempt.immediates.push(...little(operand.symbol === undefined ? operand.displacement : 0, bytes));
        return true;
      }
      case 'AL':
      case 'CL':
      case 'AH':
        return isRegister(operand, 'general', 8) && operand.name === code.toLowerCase();
      case 'AX':
      case 'DX':
        return isRegister(operand, 'general', 16) && operand.name === code.toLowerCase();
      case 'eAX':
        return isRegister(operand, 'general', ioBits(form, operandBits)) && operand.number === 0;
      case '1':
        return operand === 1;
      case 'i': {
        if (!isRegister(operand, 'x87')) return false;
        attempt.modrm |= operand.number;
        return true;
      }
      default:
        return false;
    }
  };
  if (operands.length !== specifications.length || !operands.every((operand, i) => fit(operand, specifications[i])))
    return undefined;

  const { rex } = attempt;
  const usesRex = rex !== 0 || attempt.needsRex;
  if (usesRex && (bits !== 64 || attempt.forbidsRex)) return undefined;
  let operandPrefix = !encoding.vex && encoding.sized && (operandBits === 16) !== (bits === 16);
  if (modifiers.has('d64') && bits === 64) operandPrefix = operandBits === 16;
  if (encoding.prefix === 'none' && operandPrefix) return undefined;
  if (encoding.prefix === '66') {
    // Beside an operand of any size the prefix says its size, as ever; otherwise it is part of the opcode.
    if (!encoding.operands.some(({ size }) => size === 'v')) operandPrefix = false;
    else if (!operandPrefix) return undefined;
  }
  if (prefixes.lock && !(form.instruction.lock && form.rmPosition === 0 && isMemory(operands[0]))) return undefined;
  if (prefixes.repeat && !form.instruction.repeat) return undefined;

  const mandatory =
    encoding.prefix === 'any' || encoding.prefix === 'none' || (encoding.prefix === '66' && operandPrefix)
      ? 0
      : Number.parseInt(encoding.prefix, 16);
  const bytes: number[] = [];
  if (prefixes.lock) bytes.push(0xf0);
  if (prefixes.repeat) bytes.push(prefixes.repeat);
  if (attempt.segment >= 0) bytes.push(SEGMENT_PREFIXES[attempt.segment]);
  if (operandPrefix) bytes.push(OPERAND_SIZE);
  if (attempt.addressPrefix) bytes.push(ADDRESS_SIZE);
  if (encoding.vex) bytes.push(...vexPrefix(encoding, rex, attempt.vvvv), encoding.opcode);
  else {
    if (mandatory) bytes.push(mandatory);
    if (usesRex) bytes.push(REX.base | rex);
    bytes.push(...[[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][encoding.map], encoding.opcode | attempt.opcodeRegister);
  }
  if (encoding.hasModrm) bytes.push(attempt.modrm);
  if (attempt.sib >= 0) bytes.push(attempt.sib);
  const displacementAt = bytes.length;
  bytes.push(...attempt.displacement);
  const immediatesAt = bytes.length;
  bytes.push(...attempt.immediates);
  if (bytes.length > 15) return undefined;
  const fixups = [
    ...attempt.displacementFixups.map((f) => ({
      ...f,
      offset: displacementAt,
      addend: f.kind === 'relative' ? f.addend - (bytes.length - displacementAt) : f.addend,
    })),
    ...attempt.immediateFixups.map((f) => ({ ...f, offset: immediatesAt + f.offset })),
  ];
  return { form, bytes, fixups };
}

/** VEX (SDM 2A 2.3.5), whose register bits are inverted: two bytes where they can say it, else three. L is 0. */
function vexPrefix({ map, prefix }: Encoding, rex: number, vvvv: number): number[] {
  const low = ((vvvv ^ 15) << 3) | Math.max(0, ['', '66', 'F3', 'F2'].indexOf(prefix));
  if (map === 1 && !(rex & (REX.w | REX.x | REX.b))) return [0xc5, (rex & REX.r ? 0 : 0x80) | low];
  return [0xc4, (((rex & 7) ^ 7) << 5) | map, (rex & REX.w ? 0x80 : 0) | low];
}

/** IN and OUT have no 64-bit accumulator. */
const ioBits = (form: Form, operandBits: number): number =>
  /^(IN|OUT)$/.test(form.instruction.mnemonic) ? Math.min(operandBits, 32) : operandBits;

/** What a vector operand in memory occupies. */
const vectorMemoryBits = (form: Form, width: number): number =>
  /^(CVTDQ2PD|CVTPS2PD)$/.test(form.instruction.mnemonic) ? 64 : width;

/** x87 instructions name ST(0), too: which operand it is follows from the opcode. */
function withoutStackTop(form: Form, operands: readonly Operand[]): readonly Operand[] | undefined {
  const { encoding } = form;
  if (!encoding.operands.some((o) => o.code === 'i')) return operands;
  const reversed = encoding.opcode === 0xdc || encoding.opcode === 0xde;
  if (operands.length === 1) return encoding.opcode === 0xdc ? undefined : operands;
  if (operands.length !== 2 || /^F(LD|ST|STP|FREE|FREEP)$/.test(form.instruction.mnemonic)) return undefined;
  const [first, second] = operands;
  const top = reversed ? second : first;
  return isRegister(top, 'x87') && top.number === 0 ? [reversed ? first : second] : undefined;
}

/** Operand sizes to try. Undefined size of the operands leaves the default alone. */
function operandSizes({ form, specifications }: Candidate, operands: readonly Operand[], bits: CodeBits): readonly number[] {
  const {
    instruction: { mnemonic, ends },
    encoding: { sized, vex, modifiers },
  } = form;
  const legacy = bits === 16 ? 16 : 32;
  // A prefetch's operand has no size.
  if (!sized || mnemonic === 'PREFETCH') return [legacy];
  if (vex) return bits === 64 ? [32, 64] : [32];
  const fixed = [16, 32, 64].filter((size) => modifiers.has(`s${size}`));
  if (fixed.length) return fixed;
  const stack = modifiers.has('d64') && bits === 64;
  // A prefix that makes a near branch 16 bits wide is heeded by AMD's processors alone.
  if (stack && ends === 'block') return [64];
  let open = false;
  for (const [i, operand] of operands.entries()) {
    if (typeof operand !== 'object' || operand.kind === 'address' || operand.kind === 'far') continue;
    const { code, size } = specifications[i];
    const scales = size !== '' && 'vzy'.includes(size);
    if (operand.kind === 'memory') {
      if (size === 'p') return [operand.bits ? operand.bits - 16 : legacy];
      if (scales) open ||= operand.bits !== 0 || !stack;
    } else if (code === 'eAX' || size === 'v') {
      // MOVSXD to 16 bits moves 16 on Intel's and 32 on AMD's processors.
      return (mnemonic === 'MOVSXD' && operand.bits === 16) || (stack && operand.bits === 32) ? [] : [operand.bits];
    } else open ||= scales;
  }
  if (!open) return [stack ? 64 : legacy];
  return stack ? [64, 16] : bits === 64 ? [32, 64, 16] : [32, 16];
}

const COMMUTATIVE = new Set(['xchg', 'test']);

/**
 * All encodings that fit, shortest first. For a branch to a label the displacement is left to a fixup, and both reaches are
 * among the results. Throws where nothing fits, or where the size of memory is open.
 */
export function encode(name: string, operands: readonly Operand[], bits: CodeBits, prefixes: Prefixes): Encoded[] {
  buildNames();
  const candidates = byName.get(name);
  if (!candidates) throw new Error(`no instruction ${name}`);
  const found: { encoded: Encoded; memoryBits: number }[] = [];
  const orders = COMMUTATIVE.has(name) && operands.length === 2 ? [operands, [operands[1], operands[0]]] : [operands];
  for (const order of orders) {
    for (const candidate of candidates) {
      const { form } = candidate;
      const { modifiers, text: encodingText } = form.encoding;
      if (modifiers.has(bits === 64 ? 'n64' : 'o64') || (modifiers.has('W1') && bits !== 64)) continue;
      const implied = IMPLIED[encodingText];
      if (implied && (order.length !== implied.length || order.some((operand, i) => operand !== implied[i]))) continue;
      const written = implied ? [] : withoutStackTop(form, order);
      if (written?.length !== candidate.kinds.length || !written.every((operand, i) => kindOf(operand) & candidate.kinds[i])) continue;
      for (const operandBits of operandSizes(candidate, written, bits)) {
        if (operandBits === 8 || (operandBits === 64 && bits !== 64)) continue;
        const encoded = encodeForm(candidate, written, operandBits, bits, prefixes);
        if (!encoded) continue;
        const size = candidate.specifications[written.findIndex((operand) => isMemory(operand) && operand.bits === 0)]?.size;
        const open = size !== undefined && size !== 'p' && !name.startsWith('prefetch');
        found.push({ encoded, memoryBits: open ? vectorMemoryBits(form, sizeBits(size, operandBits)) : 0 });
      }
    }
  }
  const text = (): string => `${name} ${operands.map(operandText).join(', ')}`.trim();
  if (!found.length) throw new Error(`no encoding of ${text()} in ${bits}-bit code`);
  if (new Set(found.map(({ memoryBits }) => memoryBits)).size > 1)
    throw new Error(`${text()}: the size of the memory operand is open`);
  // Among equals a sign-extended byte, as every assembler has it; then the definitions' order.
  const extends8 = ({ form }: Encoded): number => (form.encoding.operands.some(({ code }) => code === 'sI') ? 0 : 1);
  return found.map(({ encoded }) => encoded).sort((a, b) => a.bytes.length - b.bytes.length || extends8(a) - extends8(b));
}
