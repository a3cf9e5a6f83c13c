/**
 * Machine code to instructions, by tables derived from the definitions. SDM 2A chapter 2, APM 3 chapter 1.
 * The result is one reused object: decoding allocates nothing.
 */

import type { Encoding, OperandSpecification } from './encoding.ts';
import { type Instruction, instructions } from './instruction.ts';

/** Width of the code segment: 64-bit mode, or a legacy one. */
export type CodeBits = 16 | 32 | 64;
/** That and, for 32-bit code whose segments are all flat, 96: what decoded code is keyed by (cpu/state.ts). */
export type CodeMode = CodeBits | 96;

/** An encoding with what matching it needs, and a number that handlers and forms are found by. */
export interface Form {
  id: number;
  instruction: Instruction;
  encoding: Encoding;
  /** Position of the ModRM memory-or-register operand, or -1. */
  rmPosition: number;
  /** Its memory form is valid; its register form is. */
  allowsMemory: boolean;
  allowsRegister: boolean;
  /** Its encoding's modifiers, as Condition's bits. */
  conditions: number;
  /** Operands that follow the instruction's bytes. */
  immediates: readonly OperandSpecification[];
}

/** Modifiers of encodings that matching and decoding ask about. */
const Condition = {
  n64: 1 << 0, o64: 1 << 1, B0: 1 << 2, L0: 1 << 3, W0: 1 << 4, W1: 1 << 5, s16: 1 << 6, s32: 1 << 7, s64: 1 << 8, mem: 1 << 9, reg: 1 << 10,
  d64: 1 << 11, f64: 1 << 12, anymod: 1 << 13,
} as const; // biome-ignore format: a table
const ANY_SIZE = Condition.s16 | Condition.s32 | Condition.s64;
const DEFAULT_64 = Condition.d64 | Condition.f64;

export const NO_BASE = -1;
export const RIP_BASE = 16;

/** What one instruction decodes to. Numbers only; valid until the next decode. */
export interface Decoded {
  form: Form;
  /** Bytes. */
  length: number;
  operandBits: 16 | 32 | 64;
  addressBits: 16 | 32 | 64;
  lock: boolean;
  repeat: 'none' | 'rep' | 'repne';
  rex: number;
  /** ModRM.reg and .rm with REX; mod 3 is a register. */
  mod: number;
  reg: number;
  rm: number;
  /** Register in the opcode's low bits, with REX.B; or the x87 stack index. */
  opcodeRegister: number;
  /** Register in VEX.vvvv. */
  vvvv: number;
  /** Memory operand: 0 to 15, NO_BASE, RIP_BASE; index 0 to 15 or NO_BASE; shift; sign-extended displacement. */
  base: number;
  index: number;
  scale: number;
  displacement: number;
  /** Segment of the memory operand: 0 ES to 5 GS, by override or default. */
  segment: number;
  segmentOverride: boolean;
  /** First immediate, sign-extended from its own size; its upper half for 64-bit ones. */
  immediate: number;
  immediateHigh: number;
  /** Second immediate (ENTER, far pointers' selector). */
  immediate2: number;
}

export type DecodeStatus = 'ok' | 'undefined' | 'truncated' | 'too-long';

const isRm = (o: OperandSpecification): boolean => 'ERMWUQN'.includes(o.code) && o.code.length === 1;

const isControlRegister = (o: OperandSpecification): boolean => o.code === 'C';

/** All forms: every encoding of every instruction. */
export const forms: Form[] = [];
/** Candidates by map << 10 | opcode << 2 | prefix class (none, 66, F3, F2); maps of VEX-encoded instructions from VEX_MAPS on. */
const VEX_MAPS = 4;
const candidates: Form[][] = [];
const PREFIX_CLASSES = ['none', '66', 'F3', 'F2'] as const;

function addForm(instruction: Instruction, encoding: Encoding): void {
  const rmPosition = encoding.operands.findIndex(isRm);
  const code = rmPosition < 0 ? '' : encoding.operands[rmPosition].code;
  const form: Form = {
    id: forms.length,
    instruction,
    encoding,
    rmPosition,
    allowsMemory: 'EMWQ'.includes(code) && !encoding.modifiers.has('reg'),
    allowsRegister: 'ERWUQN'.includes(code) && !encoding.modifiers.has('mem'),
    conditions: Object.entries(Condition).reduce((bits, [name, bit]) => bits | (encoding.modifiers.has(name) ? bit : 0), 0),
    immediates: encoding.operands.filter((o) => o.code === 'I' || o.code === 'sI' || o.code === 'J' || o.code === 'O'),
  };
  forms.push(form);
  const inOpcode = encoding.operands.some((o) => o.code === 'Z');
  for (let opcode = encoding.opcode; opcode < encoding.opcode + (inOpcode ? 8 : 1); opcode++) {
    for (const [i, prefix] of PREFIX_CLASSES.entries()) {
      if (encoding.prefix !== 'any' && encoding.prefix !== prefix) continue;
      const slot = ((encoding.vex ? VEX_MAPS + encoding.map : encoding.map) << 10) | (opcode << 2) | i;
      candidates[slot] ??= [];
      candidates[slot].push(form);
    }
  }
}

/** Builds the tables; called once all families have been imported. Throws nothing; later calls do nothing. */
export function buildDecodeTables(): void {
  if (forms.length) return;
  for (const instruction of instructions) for (const encoding of instruction.encodings) addForm(instruction, encoding);
  const specificity = (form: Form): number => (form.encoding.prefix === 'any' ? 0 : 4) + (form.encoding.modrm >= 0 ? 2 : 0) + (form.encoding.digit >= 0 || form.encoding.modifiers.has('B0') ? 1 : 0);
  // What says more goes first.
  for (const list of candidates) list?.sort((a, b) => specificity(b) - specificity(a));
}

const undefinedForm = {} as Form;

export class Decoder {
  readonly result: Decoded = {
    form: undefinedForm,
    length: 0,
    operandBits: 32,
    addressBits: 64,
    lock: false,
    repeat: 'none',
    rex: 0,
    mod: 0,
    reg: 0,
    rm: 0,
    opcodeRegister: 0,
    vvvv: 0,
    base: NO_BASE,
    index: NO_BASE,
    scale: 0,
    displacement: 0,
    segment: 3,
    segmentOverride: false,
    immediate: 0,
    immediateHigh: 0,
    immediate2: 0,
  };
  private bytes: Uint8Array = new Uint8Array(0);
  private position = 0;
  private end = 0;
  private codeBits: CodeBits = 64;
  /** VEX.L, for forms that want it so. */
  private vexL = 0;
  /** By form: its feature is off, so that it does not exist. */
  private readonly absent: Uint8Array;
  /** LOCK makes CR0 in a MOV CR8 (APM 3, MOV CRn): what code without REX reaches the task priority by. */
  private readonly lockMeansCr8: boolean;

  /** `hasFeature` tells which CPUID features (Linux's names) there are: without it all. */
  constructor(hasFeature: (feature: string) => boolean = () => true) {
    buildDecodeTables();
    this.lockMeansCr8 = hasFeature('cr8_legacy');
    this.absent = Uint8Array.from(forms, ({ instruction: { feature } }) => (feature === undefined || hasFeature(feature) ? 0 : 1));
  }

  /**
   * Decodes the instruction at `bytes[offset]`, of which `available` bytes are known. 'truncated' asks for more (up to 15),
   * 'too-long' is #GP, 'undefined' is #UD.
   */
  decode(bytes: Uint8Array, offset: number, available: number, codeBits: CodeBits): DecodeStatus {
    const d = this.result;
    this.bytes = bytes;
    this.position = offset;
    this.end = offset + Math.min(available, 15);
    this.codeBits = codeBits;
    const starved: DecodeStatus = available >= 15 ? 'too-long' : 'truncated';
    d.rex = 0;
    d.lock = false;
    d.segmentOverride = false;
    let operandPrefix = false;
    let addressPrefix = false;
    let repeatPrefix = 0;
    let opcode = 0;
    prefixes: for (;;) {
      if (this.position >= this.end) return starved;
      opcode = bytes[this.position++];
      switch (opcode) {
        case 0x66: operandPrefix = true; d.rex = 0; break;
        case 0x67: addressPrefix = true; d.rex = 0; break;
        case 0xf0: d.lock = true; d.rex = 0; break;
        case 0xf2: case 0xf3: repeatPrefix = opcode; d.rex = 0; break;
        case 0x26: case 0x2e: case 0x36: case 0x3e:
          // In 64-bit mode these are ignored, and do not undo an FS or GS override.
          if (codeBits !== 64) {
            d.segmentOverride = true;
            d.segment = (opcode >> 3) & 3;
          }
          d.rex = 0;
          break;
        case 0x64: case 0x65: d.segmentOverride = true; d.segment = opcode - 0x60; d.rex = 0; break;
        default:
          if (codeBits === 64 && (opcode & 0xf0) === 0x40) d.rex = opcode;
          else break prefixes;
      }
    }
    const override = d.segmentOverride ? d.segment : -1;
    let map = 0;
    let vex = false;
    if ((opcode & 0xfe) === 0xc4 && (codeBits === 64 || (this.position < this.end && bytes[this.position] >= 0xc0))) {
      // VEX: C5 and one byte, or C4 and two. What it stands for must not precede it.
      if (operandPrefix || repeatPrefix !== 0 || d.lock || d.rex !== 0) return 'undefined';
      const long = opcode === 0xc4;
      if (this.position + (long ? 3 : 2) > this.end) return starved;
      const first = bytes[this.position++];
      const last = long ? bytes[this.position++] : first & 0x7f;
      vex = true;
      // R, X, B and vvvv are inverted; outside of 64-bit mode there are eight registers.
      const extended = codeBits === 64;
      d.rex = extended ? 0x40 | ((last & 0x80) >> 4) | ((~first & 0x80) >> 5) | (long ? (~first >> 5) & 3 : 0) : 0;
      d.vvvv = (~last >> 3) & (extended ? 15 : 7);
      this.vexL = (last >> 2) & 1;
      map = VEX_MAPS + (long ? first & 0x1f : 1);
      if (map <= VEX_MAPS || map > VEX_MAPS + 3) return 'undefined';
      operandPrefix = (last & 3) === 1;
      repeatPrefix = [0, 0, 0xf3, 0xf2][last & 3];
      opcode = bytes[this.position++];
    } else if (opcode === 0x0f) {
      if (this.position >= this.end) return starved;
      opcode = bytes[this.position++];
      map = 1;
      if (opcode === 0x38 || opcode === 0x3a) {
        map = opcode === 0x38 ? 2 : 3;
        if (this.position >= this.end) return starved;
        opcode = bytes[this.position++];
      }
    }
    const prefixClass = repeatPrefix === 0xf3 ? 2 : repeatPrefix === 0xf2 ? 3 : operandPrefix ? 1 : 0;
    const list = candidates[(map << 10) | (opcode << 2) | prefixClass];
    if (!list) return 'undefined';
    const modrm = this.position < this.end ? bytes[this.position] : -1;
    const operandSize16 = !vex && operandPrefix !== (codeBits === 16);
    const form = this.select(list, modrm, operandSize16);
    if (form === null) return modrm < 0 && list.some((f) => f.encoding.hasModrm) ? starved : 'undefined';
    const { encoding, conditions } = form;
    if (vex && !encoding.vvvv && d.vvvv !== 0) return 'undefined';
    d.form = form;
    const wide = codeBits === 64 && (d.rex & 8) !== 0;
    if (codeBits === 64 && conditions & Condition.f64) d.operandBits = 64;
    else if (wide) d.operandBits = 64;
    else if (operandSize16) d.operandBits = 16;
    else d.operandBits = codeBits === 64 && conditions & Condition.d64 ? 64 : 32;
    // Address size: 64 or 32; 32 or 16; 16 or 32.
    d.addressBits = codeBits === 64 ? (addressPrefix ? 32 : 64) : addressPrefix !== (codeBits === 16) ? 16 : 32;
    d.repeat = repeatPrefix === 0xf3 ? 'rep' : repeatPrefix === 0xf2 ? 'repne' : 'none';
    d.opcodeRegister = (opcode & 7) | ((d.rex & 1) << 3);
    d.mod = 3;
    d.base = NO_BASE;
    d.index = NO_BASE;
    d.scale = 0;
    d.displacement = 0;
    d.segment = override < 0 ? 3 : override;
    if (encoding.hasModrm) {
      if (this.position >= this.end) return starved;
      this.position++;
      d.mod = modrm >> 6;
      d.reg = ((modrm >> 3) & 7) | ((d.rex & 4) << 1);
      d.rm = (modrm & 7) | ((d.rex & 1) << 3);
      if (encoding.modrmCount === 8) d.opcodeRegister = modrm & 7;
      // MOV to and from control and debug registers takes any mod as a register.
      if (conditions & Condition.anymod) d.mod = 3;
      if (d.mod !== 3 && !this.memoryOperand(modrm, override)) return starved;
    }
    if (form.immediates.length && !this.immediates(form.immediates)) return starved;
    d.length = this.position - offset;
    if (d.lock && this.lockMeansCr8 && encoding.operands.some(isControlRegister) && d.reg === 0) {
      d.lock = false;
      d.reg = 8;
    }
    if (d.lock && !(form.instruction.lock && form.rmPosition === 0 && d.mod !== 3)) return 'undefined';
    return 'ok';
  }

  private select(list: Form[], modrm: number, operandSize16: boolean): Form | null {
    const { codeBits } = this;
    const wide = (this.result.rex & 8) !== 0;
    for (const form of list) {
      const { encoding, conditions } = form;
      if (this.absent[form.id]) continue;
      if (encoding.hasModrm) {
        if (modrm < 0) continue;
        if (encoding.digit >= 0 && ((modrm >> 3) & 7) !== encoding.digit) continue;
        if (encoding.modrm >= 0 && (modrm < encoding.modrm || modrm >= encoding.modrm + encoding.modrmCount)) continue;
        if (form.rmPosition >= 0 && !(conditions & Condition.anymod) && !(modrm >= 0xc0 ? form.allowsRegister : form.allowsMemory)) continue;
      }
      if (conditions) {
        if (conditions & (codeBits === 64 ? Condition.n64 : Condition.o64)) continue;
        if (conditions & Condition.B0 && this.result.rex & 1) continue;
        if (conditions & Condition.L0 && this.vexL !== 0) continue;
        if (conditions & (wide ? Condition.W0 : Condition.W1)) continue;
        if (conditions & ANY_SIZE) {
          const size = wide ? Condition.s64 : operandSize16 ? Condition.s16 : codeBits === 64 && conditions & DEFAULT_64 ? Condition.s64 : Condition.s32;
          if (conditions & ANY_SIZE & ~size) continue;
        }
        if (conditions & Condition.mem && modrm >= 0xc0) continue;
        if (conditions & Condition.reg && modrm < 0xc0) continue;
      }
      return form;
    }
    return null;
  }

  /** Reads SIB and displacement. False where bytes are missing. */
  private memoryOperand(modrm: number, override: number): boolean {
    const d = this.result;
    const rm = modrm & 7;
    if (d.addressBits === 16) {
      d.base = [3, 3, 5, 5, 6, 7, 5, 3][rm];
      d.index = [6, 7, 6, 7, NO_BASE, NO_BASE, NO_BASE, NO_BASE][rm];
      let bytes = d.mod;
      if (d.mod === 0 && rm === 6) {
        d.base = NO_BASE;
        bytes = 2;
      }
      if (override < 0 && d.base === 5) d.segment = 2;
      if (this.position + bytes > this.end) return false;
      if (bytes) d.displacement = this.signed(bytes);
      return true;
    }
    let { mod } = d;
    if (rm === 4) {
      if (this.position >= this.end) return false;
      const sib = this.bytes[this.position++];
      const index = ((sib >> 3) & 7) | ((d.rex & 2) << 2);
      if (index !== 4) {
        d.index = index;
        d.scale = sib >> 6;
      }
      if ((sib & 7) === 5 && mod === 0) mod = 4;
      else d.base = (sib & 7) | ((d.rex & 1) << 3);
    } else if (rm === 5 && mod === 0) {
      mod = 4;
      if (this.codeBits === 64) d.base = RIP_BASE;
    } else d.base = d.rm;
    if (override < 0 && (d.base === 4 || d.base === 5)) d.segment = 2;
    const bytes = mod === 1 ? 1 : mod === 2 || mod === 4 ? 4 : 0;
    if (this.position + bytes > this.end) return false;
    if (bytes) d.displacement = this.signed(bytes);
    return true;
  }

  private immediates(operands: readonly OperandSpecification[]): boolean {
    const d = this.result;
    let first = true;
    for (const { code, size } of operands) {
      let bytes: number;
      if (code === 'I' || code === 'sI' || code === 'J') {
        if (size === 'b') bytes = 1;
        else if (size === 'w') bytes = 2;
        else if (size === 'p') bytes = d.operandBits === 16 ? 2 : 4;
        else if (size === 'v') bytes = d.operandBits / 8;
        else if (size === 'z') bytes = d.operandBits === 16 ? 2 : 4;
        else bytes = size === 'q' ? 8 : 4;
      } else bytes = d.addressBits / 8;
      if (this.position + bytes > this.end) return false;
      if (bytes === 8) {
        d.immediate = this.signed(4);
        d.immediateHigh = this.signed(4);
      } else {
        const value = this.signed(bytes);
        if (first) {
          d.immediate = value;
          d.immediateHigh = value >> 31;
        } else d.immediate2 = value;
      }
      if (size === 'p') {
        if (this.position + 2 > this.end) return false;
        d.immediate2 = this.signed(2) & 0xffff;
      }
      first = false;
    }
    return true;
  }

  private signed(bytes: number): number {
    const { bytes: b, position: p } = this;
    this.position += bytes;
    if (bytes === 1) return (b[p] << 24) >> 24;
    if (bytes === 2) return ((b[p] | (b[p + 1] << 8)) << 16) >> 16;
    return b[p] | (b[p + 1] << 8) | (b[p + 2] << 16) | (b[p + 3] << 24);
  }
}

/** The opcodes D8 to DF. */
export const isX87 = ({ form: { encoding } }: Decoded): boolean => encoding.map === 0 && (encoding.opcode & 0xf8) === 0xd8;

/** What FOP keeps of an x87 instruction: the low 3 bits of its opcode and its ModRM byte. */
export function opcodeNote({ form: { encoding }, mod, reg, rm, opcodeRegister }: Decoded): number {
  return ((encoding.opcode & 7) << 8) | (mod << 6) | ((reg & 7) << 3) | (encoding.modrmCount === 8 ? opcodeRegister : rm & 7);
}
