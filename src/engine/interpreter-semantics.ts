/**
 * The interpreter's half of the builder: `Semantics` over a decoded operation whose fields say which registers,
 * displacement and immediate an instruction has. Each handler is `(vcpu, op) -> ()` and ends by tail-calling the
 * handler of the next operation.
 */

import * as state from '../cpu/state.ts';
import { isCanonical } from '../isa/canonical.ts';
import type { CodeMode } from '../isa/decoder.ts';
import type { OperandSpecification } from '../isa/encoding.ts';
import type { Instruction } from '../isa/instruction.ts';
import type { Bits, FlagWords, Operand, Semantics, SharedFunction } from '../isa/semantics.ts';
import { apply, type Expression, i32, i64, type Operand as Value, select, v128 } from '../wasm/expression.ts';
import type { FunctionBuilder, FunctionReference, Local, Signature } from '../wasm/function-builder.ts';
import { jumpBlock, jumpEntry, jumpHit } from './jump-cache.ts';
import type { X87Stack } from '../isa/x87-stack.ts';
import { flagsOfAddition, flagsOfLogic, flagsOfSubtraction } from './flag-words.ts';
import * as L from './layout.ts';
import { StateStack } from './x87-stack.ts';

export const HANDLER: Signature = { parameters: ['i32', 'i32'], results: [] };

/** The functions that handlers call; made by memory-access.ts and from the helpers' list. */
export interface HandlerTargets {
  handlerType: number;
  /** These two return 1 where the access faulted and the fault has been delivered: the handler is at its end then. */
  readSlow: FunctionReference;
  writeSlow: FunctionReference;
  /** (vcpu, op): goes on at RIP. */
  resume: FunctionReference;
  lookup: FunctionReference;
  bulk: FunctionReference;
  codeCheck: FunctionReference;
  resolveLink: FunctionReference;
  /** (vcpu, block): the block was entered so many times more. */
  hot: FunctionReference;
  hotEntries: number;
  raise: FunctionReference;
  segmentLinear: FunctionReference;
  operandLinear: FunctionReference;
  stackLinear: FunctionReference;
  helpers: ReadonlyMap<string, FunctionReference>;
  shared(target: SharedFunction): FunctionReference;
}

/**
 * How the ModRM operand is addressed: a register, [base + displacement], anything ([segment: base + index × scale + displacement]), or
 * anything cut to 32 bits, in a flat segment.
 */
export type RmKind = 'register' | 'simple' | 'general' | 'flat';

/** What handlers differ by: 64-bit code, flat 32-bit code, or code (16 and 32-bit) whose segments count. */
export type HandlerMode = 'long' | 'flat' | 'segmented';

export interface Variant {
  operandBits: 16 | 32 | 64;
  addressBits: 16 | 32 | 64;
  /** 64-bit code; 96 for flat 32-bit code; 32 for all code whose segments count. */
  codeBits: CodeMode;
  rm: RmKind;
  repeat: 'none' | 'rep' | 'repne';
}

/** Access of an operand: read, written, or read and written. */
type Access = 'r' | 'w' | 'm';

const TRAP_FLAG = 1 << 8;
/** In instructions. */
const RESTART_COST = 1024;
const CR0_EM_TS = 0xc;
const EXCEPTION_UD = 6;
const EXCEPTION_NM = 7;
const EXCEPTION_GP = 13;
const EXCEPTION_MF = 16;
const RSP_NUMBER = 4;

/** Size in bits that a size letter stands for. */
export function sizeBits(size: string, operandBits: 16 | 32 | 64): number {
  switch (size) {
    case 'b': return 8;
    case 'w': return 16;
    case 'd': case 'ss': case 'si': return 32;
    case 'q': case 'sd': case 'pi': return 64;
    case 't': return 80;
    case 'v': return operandBits;
    case 'z': return Math.min(operandBits, 32);
    case 'y': return operandBits === 64 ? 64 : 32;
    case 'dq': case 'x': case 'ps': case 'pd': return 128;
    default: return operandBits;
  }
}

/** Bytes that an operand in memory has; 0 for one that is not accessed. */
export function memoryBytes(size: string, operandBits: 16 | 32 | 64): number {
  switch (size) {
    case '': return 0;
    case 'p': return operandBits / 8 + 2;
    case 'a': return operandBits / 4;
    // Outside of 64-bit mode, which knows no limits.
    case 's': return 6;
    case 'env': return operandBits === 16 ? 14 : 28;
    case 'fpu': return operandBits === 16 ? 94 : 108;
    case 'fx': return 512;
    // Legacy region and header.
    case 'xs': return 576;
    default: return sizeBits(size, operandBits) / 8;
  }
}

export const LOAD: Record<number, Record<'signed' | 'unsigned', string>> = {
  8: { signed: 'i64.load8_s', unsigned: 'i64.load8_u' },
  16: { signed: 'i64.load16_s', unsigned: 'i64.load16_u' },
  32: { signed: 'i64.load32_s', unsigned: 'i64.load32_u' },
  64: { signed: 'i64.load', unsigned: 'i64.load' },
};
export const STORE: Record<number, string> = { 8: 'i64.store8', 16: 'i64.store16', 32: 'i64.store32', 64: 'i64.store' };

/** Low `bits` of any value as an i64. */
export function toInteger(value: Expression, bits: number): Expression {
  if (value.type === 'v128') return bits === 32 ? value.lane('i32x4.extract_lane', 0).extendU() : value.lane('i64x2.extract_lane', 0);
  if (value.type === 'f64') return apply('i64.reinterpret_f64', value);
  if (value.type === 'f32') return apply('i32.reinterpret_f32', value).extendU();
  return value.type === 'i32' ? value.extendU() : value;
}

/** Low bits of an i64 as an f32 or f64. */
const toFloat = (value: Expression, bits: 32 | 64): Expression =>
  bits === 32 ? apply('f32.reinterpret_i32', value.wrap()) : apply('f64.reinterpret_i64', value);

const toVector = (low: Expression): Expression => v128(0n, 0n).lane('i64x2.replace_lane', 0, low);

export class RegisterOperand implements Operand {
  readonly kind = 'register';
  readonly bits: number;
  protected readonly f: FunctionBuilder;
  protected readonly base: Expression;
  private readonly offset: number;
  private readonly field: Expression;

  constructor(f: FunctionBuilder, bits: number, base: Expression, offset: number, field: Expression) {
    this.f = f;
    this.bits = bits;
    this.base = base;
    this.offset = offset;
    this.field = field;
  }

  signed(): Expression {
    return this.f.let(this.base.load(LOAD[Math.min(this.bits, 64)].signed, this.offset));
  }

  unsigned(): Expression {
    return this.f.let(this.base.load(LOAD[Math.min(this.bits, 64)].unsigned, this.offset));
  }

  write(value: Expression): void {
    if (this.bits === 32) this.f.store('i64.store', this.base, value.zeroExtend(32), this.offset);
    else this.f.store(STORE[Math.min(this.bits, 64)], this.base, value, this.offset);
  }

  vector(): Expression {
    return this.f.let(this.base.load('v128.load', this.offset));
  }

  float(bits: 32 | 64): Expression {
    return this.f.let(this.base.load(`f${bits}.load`, this.offset));
  }

  writeVector(value: Expression): void {
    this.f.store('v128.store', this.base, value, this.offset);
  }

  writeLow(value: Expression, bits: 32 | 64): void {
    this.f.store(STORE[bits], this.base, toInteger(value, bits), this.offset);
  }

  address(): Expression {
    throw new Error('a register has no address');
  }

  linear(): Expression {
    throw new Error('a register has no address');
  }

  number(): Expression {
    return this.f.let(this.field);
  }
}

/** An MMX register: what is written there makes the x87 register a number whose exponent is all ones. SDM 1 9.6.2. */
class MmxRegister extends RegisterOperand {
  override write(value: Expression): void {
    super.write(value);
    this.f.store('i32.store', this.base, i32(state.MMX_EXPONENT), 8);
  }
}

export class ImmediateOperand implements Operand {
  readonly kind = 'immediate';
  readonly bits: number;
  private readonly value: Expression;
  private readonly f: FunctionBuilder;

  constructor(f: FunctionBuilder, bits: number, value: Expression) {
    this.f = f;
    this.bits = bits;
    this.value = value;
  }

  signed(): Expression {
    return this.f.let(this.value);
  }

  unsigned(): Expression {
    return this.f.let(this.value.zeroExtend(this.bits));
  }

  number(): Expression {
    return this.f.let(this.value.wrap());
  }

  write(): void { throw new Error('an immediate cannot be written'); }
  vector(): Expression { throw new Error('an immediate is no vector'); }
  float(): Expression { return this.vector(); }
  writeVector(): void { this.write(); }
  writeLow(): void { this.write(); }
  address(): Expression { throw new Error('an immediate has no address'); }
  linear(): Expression { return this.address(); }
}

export class MemoryOperand implements Operand {
  readonly kind = 'memory';
  readonly bits: number;
  protected readonly x: InterpreterSemantics;
  private readonly access: Access;
  private readonly kindOfAddress: RmKind;
  protected effective: Expression | null = null;
  protected cached: Expression | null = null;
  /** Host address found by the reading half of a modification, 0 where that took the slow path. */
  private host: Local | null = null;

  constructor(x: InterpreterSemantics, bits: number, access: Access, kind: RmKind) {
    this.x = x;
    this.bits = bits;
    this.access = access;
    this.kindOfAddress = kind;
  }

  address(): Expression {
    const { x } = this;
    if (this.effective) return this.effective;
    const register = (field: number): Expression => x.vcpu.add(x.op.load('i32.load', field)).load('i64.load');
    let sum = register(L.OP_BASE).add(x.op.load('i64.load32_s', L.OP_DISPLACEMENT));
    if (this.kindOfAddress === 'general' || this.kindOfAddress === 'flat') sum = sum.add(register(L.OP_INDEX).shl(x.op.load('i64.load8_u', L.OP_SCALE)));
    if (this.kindOfAddress === 'flat') sum = sum.zeroExtend(32);
    this.effective = x.f.let(sum);
    return this.effective;
  }

  linear(displacement?: Expression): Expression {
    const { x } = this;
    if (displacement) {
      // The decoder leaves cutting and the segment to what comes after the sum (`displaced`).
      const offset = x.f.let(this.address().add(displacement).and(x.op.load('i64.load', L.OP_IMMEDIATE)));
      if (x.mode === 'segmented') return x.inSegment(x.op.load('i32.load', L.OP_SEGMENT), offset, i32(this.bits / 8), this.access === 'r' ? 'read' : 'write');
      return x.f.let(offset.add(x.vcpu.add(x.op.load('i32.load', L.OP_SEGMENT)).load('i64.load')));
    }
    if (this.cached) return this.cached;
    const offset = this.address();
    this.cached = this.kindOfAddress === 'general' ? x.f.let(offset.add(x.vcpu.add(x.op.load('i32.load', L.OP_SEGMENT)).load('i64.load'))) : offset;
    return this.cached;
  }

  signed(): Expression {
    return this.read('signed');
  }

  unsigned(): Expression {
    return this.read('unsigned');
  }

  write(value: Expression): void {
    const { x } = this;
    if (!this.host) return x.store(this.linear(), this.bits as Bits, value);
    const pinned = x.f.let(value);
    x.f.if(
      x.f.get(this.host),
      () => x.f.store(STORE[this.bits], x.f.get(this.host as Local), pinned),
      () => x.storeSlow(this.linear(), this.bits, pinned),
    );
  }

  float(bits: 32 | 64): Expression {
    return this.x.f.let(toFloat(this.unsigned(), bits));
  }

  vector(): Expression {
    if (this.bits !== 128) return toVector(this.unsigned());
    this.x.alignment(this.linear());
    return this.x.loadVector(this.linear());
  }

  writeVector(value: Expression): void {
    if (this.bits !== 128) return this.write(toInteger(value, this.bits));
    this.x.alignment(this.linear());
    this.x.storeVector(this.linear(), value);
  }

  writeLow(value: Expression, bits: 32 | 64): void {
    this.x.store(this.linear(), bits, toInteger(value, bits));
  }

  number(): Expression {
    throw new Error('memory has no register number');
  }

  private read(extend: 'signed' | 'unsigned'): Expression {
    if (this.access !== 'm') return this.x.load(this.linear(), this.bits as Bits, extend);
    this.host ??= this.x.f.local('i32');
    return this.x.loadForModify(this.linear(), this.bits as Bits, extend, this.host);
  }
}

export class InterpreterSemantics implements Semantics {
  readonly f: FunctionBuilder;
  readonly vcpu: Expression;
  readonly op: Expression;
  readonly mnemonic: string;
  readonly operandBits: 16 | 32 | 64;
  readonly longMode: boolean;
  readonly mode: HandlerMode;
  readonly repeat: 'none' | 'rep' | 'repne';
  readonly isCompiled: boolean = false;
  /** Whether the semantics asked for the address size: if not, one handler does for all. */
  usesAddressBits = false;
  private entersMmx = false;
  protected readonly variant: Variant;
  protected readonly unaligned: boolean;
  protected readonly targets: HandlerTargets;

  constructor(f: FunctionBuilder, targets: HandlerTargets, instruction: Pick<Instruction, 'mnemonic'> & Partial<Pick<Instruction, 'unaligned'>>, variant: Variant, op?: Expression) {
    this.f = f;
    this.targets = targets;
    this.mnemonic = instruction.mnemonic;
    this.unaligned = instruction.unaligned ?? false;
    this.variant = variant;
    this.operandBits = variant.operandBits;
    this.mode = variant.codeBits === state.CODE_64 ? 'long' : variant.codeBits === state.CODE_32_FLAT ? 'flat' : 'segmented';
    this.longMode = this.mode === 'long';
    this.repeat = variant.repeat;
    this.vcpu = f.parameter(0);
    this.op = op ?? f.parameter(1);
  }

  get addressBits(): 16 | 32 | 64 {
    this.usesAddressBits = true;
    return this.variant.addressBits;
  }

  /** The operand at `position` of an encoding. `immediateIndex` counts the immediates before it. */
  operand(specification: OperandSpecification, position: number, access: Access, isRm: boolean, immediateIndex: number): Operand {
    const { f } = this;
    const bits = sizeBits(specification.size, this.operandBits);
    const field = this.op.load('i32.load', L.OP_REGISTER + 4 * position);
    const indirect = (size: number): Operand => new RegisterOperand(f, size, f.let(this.vcpu.add(field)), 0, field);
    if (isRm && this.variant.rm !== 'register') return new MemoryOperand(this, bits, access, this.variant.rm);
    switch (specification.code) {
      case 'I': case 'sI': case 'J': {
        if (immediateIndex > 0) return new ImmediateOperand(f, bits, field.extendS());
        return new ImmediateOperand(f, specification.code === 'sI' ? this.operandBits : bits, this.op.load('i64.load', L.OP_IMMEDIATE));
      }
      case '1':
        return new ImmediateOperand(f, 8, i64(1));
      case 'O':
        return new MemoryOperand(this, bits, access, 'simple');
      case 'X': case 'Y':
        return new MemoryOperand(this, bits, access, 'simple');
      case 'S':
        return new RegisterOperand(f, 16, f.let(this.vcpu.add(field.mul(state.SEGMENT_SIZE))), state.SEGMENT + state.SEGMENT_SELECTOR, field);
      case 'C': case 'D': case 'i':
        return new RegisterOperand(f, 64, this.vcpu, 0, field);
      case 'P': case 'Q': case 'N':
        return new MmxRegister(f, bits, f.let(this.vcpu.add(field)), 0, field);
      case 'CL': return this.gpr(1, 8);
      case 'AL': return this.gpr(0, 8);
      default:
        return indirect(bits);
    }
  }

  gpr(number: number, bits: Bits): Operand {
    return new RegisterOperand(this.f, bits, this.vcpu, state.GPR + 8 * number, i32(number));
  }

  highByte(number: number): Operand {
    return new RegisterOperand(this.f, 8, this.vcpu, state.GPR + 8 * number + 1, i32(number));
  }

  xmm(number: number): Operand {
    return new RegisterOperand(this.f, 128, this.vcpu, state.XMM + 16 * number, i32(number));
  }

  // --- Flags --------------------------------------------------------------------------------------

  setFlags(words: FlagWords): void {
    if (words.zero !== undefined) this.setState64(state.FLAG_ZERO, words.zero);
    if (words.sign !== undefined) this.setState64(state.FLAG_SIGN, words.sign);
    if (words.carry !== undefined) this.setState64(state.FLAG_CARRY, words.carry);
    if (words.overflow !== undefined) this.setState64(state.FLAG_OVERFLOW, words.overflow);
  }

  flagsOfAdd(a: Expression, b: Expression, result: Expression): void { this.setFlags(flagsOfAddition(a, b, this.f.let(result))); }
  flagsOfSub(a: Expression, b: Expression, result: Expression): void { this.setFlags(flagsOfSubtraction(a, b, this.f.let(result))); }
  flagsOfLogic(result: Expression): void { this.setFlags(flagsOfLogic(this.f.let(result))); }

  carryWord(): Expression { return this.state64(state.FLAG_CARRY); }
  carryFlag(): Expression { return this.f.let(this.signBit(state.FLAG_CARRY)); }
  zeroFlag(): Expression { return this.f.let(this.state64(state.FLAG_ZERO).eqz()); }
  signFlag(): Expression { return this.f.let(this.signBit(state.FLAG_SIGN)); }
  overflowFlag(): Expression { return this.f.let(this.signBit(state.FLAG_OVERFLOW)); }
  parityFlag(): Expression { return this.f.let(this.word(state.FLAG_SIGN).wrap().and(0xff).popcnt().and(1).xor(1)); }
  adjustFlag(): Expression { return this.f.let(this.word(state.FLAG_CARRY).wrap().shrU(3).and(1)); }

  condition(cc: number): Expression {
    const word = (offset: number): Expression => this.word(offset);
    const less = (): Expression => word(state.FLAG_SIGN).xor(word(state.FLAG_OVERFLOW)).ltS(0);
    let value: Expression;
    switch (cc >> 1) {
      case 0: value = word(state.FLAG_OVERFLOW).ltS(0); break;
      case 1: value = word(state.FLAG_CARRY).ltS(0); break;
      case 2: value = word(state.FLAG_ZERO).eqz(); break;
      case 3: value = word(state.FLAG_CARRY).ltS(0).or(word(state.FLAG_ZERO).eqz()); break;
      case 4: value = word(state.FLAG_SIGN).ltS(0); break;
      case 5: value = this.parityFlag(); break;
      case 6: value = less(); break;
      default: value = less().or(word(state.FLAG_ZERO).eqz());
    }
    return this.f.let(cc & 1 ? value.eqz() : value);
  }

  statusFlags(): Expression {
    const at = (flag: Expression, bit: number): Expression => flag.shl(bit);
    return this.f.let(
      this.carryFlag().or(at(this.parityFlag(), 2)).or(at(this.adjustFlag(), 4)).or(at(this.zeroFlag(), 6)).or(at(this.signFlag(), 7)).or(at(this.overflowFlag(), 11)).extendU(),
    );
  }

  setStatusFlags(value: Expression): void {
    const v = this.f.let(value);
    this.setFlags({
      carry: v.shl(63).or(v.shrU(1).and(8)),
      zero: v.shrU(6).and(1).xor(1),
      sign: v.and(0x80).shl(56).or(v.shrU(2).and(1).xor(1)),
      overflow: v.shl(52),
    });
  }

  rflags(): Expression {
    return this.f.let(this.state64(state.RFLAGS).or(this.statusFlags()));
  }

  direction(): Expression {
    return this.f.let(i64(1).sub(this.state64(state.RFLAGS).shrU(9).and(2)));
  }

  // --- State --------------------------------------------------------------------------------------

  state32(offset: number): Expression { return this.f.let(this.vcpu.load('i32.load', offset)); }
  state64(offset: number): Expression { return this.f.let(this.word(offset)); }
  setState32(offset: number, value: Value): void { this.f.store('i32.store', this.vcpu, value, offset); }
  setState64(offset: number, value: Value): void { this.f.store('i64.store', this.vcpu, value, offset); }
  argument(index: number): Expression { return this.state64(state.ARGUMENT + 8 * index); }
  setArgument(index: number, value: Expression): void { this.setState64(state.ARGUMENT + 8 * index, value); }

  timestamp(): Expression {
    const { f, vcpu, op } = this;
    const unpaid = this.state32(state.BUDGET).add(op.load('i32.load16_s', L.OP_REMAINING)).add(1);
    const cycles = f.let(vcpu.load('i64.load', state.RETIRED_BASE).add(vcpu.load('i64.load', state.CHARGED)).sub(unpaid.extendS()));
    const seen = f.let(i32(0).load('i64.load', L.CYCLES_SEEN));
    const latest = f.let(select(seen.gtS(cycles), seen, cycles));
    f.store('i64.store', i32(0), latest, L.CYCLES_SEEN);
    return f.let(latest.add(vcpu.load('i64.load', state.TSC_OFFSET)));
  }

  /** A 64-bit word of the state, not kept: for use at once. */
  protected word(offset: number): Expression {
    return this.vcpu.load('i64.load', offset);
  }

  private signBit(offset: number): Expression {
    return this.word(offset).shrU(63).wrap();
  }

  // --- Memory -------------------------------------------------------------------------------------

  /** The TLB entry for an address, and whether it translates `bytes` bytes for the access `tag` stands for. */
  protected probe(address: Expression, bytes: number, tag: number): { entry: Expression; hit: Expression } {
    const { f } = this;
    const shift = 12 - Math.log2(L.TLB_ENTRY_SIZE);
    const mask = (L.TLB_ENTRIES - 1) * L.TLB_ENTRY_SIZE;
    const entry = f.let(address.shrU(shift).wrap().and(mask).add(this.vcpu.load('i32.load', state.TLB_BASE)));
    // The tag compares unequal too where the access reaches into the next page.
    const last = bytes > 1 ? address.add(bytes - 1) : address;
    return { entry, hit: entry.load('i64.load', tag).eq(last.and(-4096)) };
  }

  protected hostOf(address: Expression, entry: Expression): Expression {
    return address.wrap().add(entry.load('i32.load', L.TLB_ADDEND));
  }

  load(address: Expression, bits: Bits, extend: 'signed' | 'unsigned', intent: 'read' | 'modify' = 'read'): Expression {
    return this.loadAt(address, bits, LOAD[bits][extend], 'i64', intent === 'modify', null);
  }

  loadForModify(address: Expression, bits: Bits, extend: 'signed' | 'unsigned', host: Local): Expression {
    return this.loadAt(address, bits, LOAD[bits][extend], 'i64', true, host);
  }

  loadVector(address: Expression): Expression {
    return this.loadAt(address, 128, 'v128.load', 'v128', false, null);
  }

  protected loadAt(address: Expression, bits: number, name: string, type: 'i64' | 'v128', modify: boolean, host: Local | null): Expression {
    const { f } = this;
    const a = f.let(address);
    const { entry, hit } = this.probe(a, bits / 8, modify ? L.TLB_WRITE : L.TLB_READ);
    const result = f.local(type);
    f.if(
      hit,
      () => {
        const linear = this.hostOf(a, entry);
        if (host) f.set(host, linear);
        f.set(result, (host ? f.get(host) : linear).load(name));
      },
      () => {
        if (host) f.set(host, i32(0));
        this.unlessFaulted(f.call(this.targets.readSlow, this.vcpu, this.op, a, i32(bits / 8), i32(modify ? 1 : 0)));
        f.set(result, this.vcpu.load(name, state.BOUNCE));
      },
    );
    return f.let(f.get(result));
  }

  store(address: Expression, bits: Bits, value: Expression): void {
    const { f } = this;
    const a = f.let(address);
    const v = f.let(value);
    const { entry, hit } = this.probe(a, bits / 8, L.TLB_WRITE);
    f.if(
      hit,
      () => f.store(STORE[bits], this.hostOf(a, entry), v),
      () => this.storeSlow(a, bits, v),
    );
  }

  storeVector(address: Expression, value: Expression): void {
    const { f } = this;
    const a = f.let(address);
    const v = f.let(value);
    const { entry, hit } = this.probe(a, 16, L.TLB_WRITE);
    f.if(
      hit,
      () => f.store('v128.store', this.hostOf(a, entry), v),
      () => {
        f.store('v128.store', this.vcpu, v, state.BOUNCE);
        this.unlessFaulted(f.call(this.targets.writeSlow, this.vcpu, this.op, a, i32(16)));
      },
    );
  }

  storeSlow(address: Expression, bits: number, value: Expression): void {
    this.f.store('i64.store', this.vcpu, value, state.BOUNCE);
    this.unlessFaulted(this.f.call(this.targets.writeSlow, this.vcpu, this.op, address, i32(bits / 8)));
  }

  private unlessFaulted(faulted: Expression): void {
    this.f.if(faulted, () => this.f.returnCall(this.targets.resume, this.vcpu, this.op));
  }

  bulk(address: Expression, access: 'read' | 'write'): Expression {
    const { f } = this;
    const a = f.let(address);
    const { entry, hit } = this.probe(a, 1, access === 'write' ? L.TLB_WRITE : L.TLB_READ);
    const linear = f.local('i32');
    f.if(
      hit,
      () => f.set(linear, this.hostOf(a, entry)),
      () => f.set(linear, f.call(this.targets.bulk, this.vcpu, this.op, a, i32(access === 'write' ? 1 : 0))),
    );
    return f.let(f.get(linear));
  }

  ramAtHand(_address: Expression, _bytes: Expression, _access: 'read' | 'write'): Expression { throw new Error('handlers go by pieces'); }

  wroteBulk(linear: Expression, bytes: Expression): void {
    this.f.call(this.targets.codeCheck, linear, bytes);
  }

  alignment(address: Expression): void {
    if (!this.unaligned) this.requireAligned(address, 16);
  }

  segmentBase(segment: number): Expression {
    if (this.longMode && segment !== state.FS && segment !== state.GS) return i64(0);
    return this.state64(segment + state.SEGMENT_BASE);
  }

  dataSegmentBase(): Expression {
    return this.f.let(this.vcpu.add(this.op.load('i32.load', L.OP_SEGMENT)).load('i64.load'));
  }

  segmentAddress(segment: number | 'data', offset: Expression, bytes: Expression, access: 'read' | 'write'): Expression {
    // What names another segment than a flat one has a handler for segments.
    if (this.mode === 'flat') return offset;
    if (this.mode === 'long') return this.f.let((segment === 'data' ? this.dataSegmentBase() : this.segmentBase(segment)).add(offset));
    return this.inSegment(segment === 'data' ? this.op.load('i32.load', L.OP_SEGMENT) : i32(segment), offset, bytes, access);
  }

  inSegment(slot: Expression, offset: Expression, bytes: Expression, access: 'read' | 'write'): Expression {
    return this.f.call(this.targets.segmentLinear, this.vcpu, this.op, slot, offset, bytes, i32(access === 'read' ? 0 : 1));
  }

  fitsSegment(segment: number | 'data', offset: Expression, bytes: Expression): Expression {
    const last = offset.add(bytes.extendU()).sub(1);
    const inAddress = this.addressBits === 16 ? last.leU(0xffff) : i32(1);
    if (this.mode !== 'segmented') return inAddress;
    const slot = this.f.let(this.vcpu.add(segment === 'data' ? this.op.load('i32.load', L.OP_SEGMENT) : i32(segment)));
    // An expand-down segment is gone through element by element.
    const accessible = slot.load('i32.load', state.SEGMENT_ACCESS).eq(state.READABLE | state.WRITABLE);
    return inAddress.and(last.leU(slot.load('i64.load32_u', state.SEGMENT_LIMIT))).and(accessible);
  }

  // --- Stack --------------------------------------------------------------------------------------

  /** Linear address of the stack at SP + offset. */
  protected stackAt(offset: number, bytes: number): Expression {
    if (this.longMode) return this.f.let(this.state64(state.RSP).add(offset));
    if (this.mode === 'flat') return this.f.let(this.state64(state.RSP).add(offset).zeroExtend(32));
    return this.f.call(this.targets.stackLinear, this.vcpu, this.op, i32(offset), i32(bytes));
  }

  stackAddress(pointer: Expression, bytes = this.operandBits / 8): Expression {
    if (this.longMode) return pointer;
    if (this.mode === 'flat') return this.f.let(pointer.zeroExtend(32));
    return this.f.call(this.targets.stackLinear, this.vcpu, this.op, pointer.wrap().sub(this.vcpu.load('i32.load', state.RSP)), i32(bytes));
  }

  push(value: Expression, bits: 16 | 32 | 64): void {
    const v = this.f.let(value);
    const address = this.stackAt(-bits / 8, bits / 8);
    this.store(address, bits, v);
    this.dropStack(-bits / 8);
  }

  pop(bits: 16 | 32 | 64): Expression {
    const value = this.peek(bits);
    this.dropStack(bits / 8);
    return value;
  }

  peek(bits: 16 | 32 | 64, offsetBytes = 0): Expression {
    return this.load(this.stackAt(offsetBytes, bits / 8), bits, 'unsigned');
  }

  dropStack(bytes: Value): void {
    const amount = typeof bytes === 'object' ? bytes : i64(bytes);
    const sp = this.f.let(this.state64(state.RSP).add(amount));
    if (this.longMode) return this.setState64(state.RSP, sp);
    if (this.mode === 'flat') return this.setState64(state.RSP, sp.zeroExtend(32));
    this.f.if(
      this.vcpu.load('i32.load', state.SS + state.SEGMENT_ATTRIBUTES).and(1 << 22),
      () => this.setState64(state.RSP, sp.zeroExtend(32)),
      () => this.gpr(RSP_NUMBER, 16).write(sp),
    );
  }

  // --- Control flow -------------------------------------------------------------------------------

  ip(): Expression {
    return this.f.let(this.vcpu.load('i64.load', state.CODE_BASE).add(this.op.load('i64.load16_u', L.OP_IP)));
  }

  opcodeNote(): Expression {
    return this.op.load('i32.load16_u', L.OP_EXTRA);
  }

  nextIp(): Expression {
    return this.f.let(this.sequential(this.vcpu.load('i64.load', state.CODE_BASE).add(this.op.load('i64.load16_u', L.OP_NEXT_IP))));
  }

  target(_operand?: Operand): Expression {
    const target = this.vcpu.load('i64.load', state.CODE_BASE).add(this.op.load('i64.load', L.OP_IMMEDIATE));
    return this.f.let(this.operandBits === 16 ? target.zeroExtend(16) : this.wrapIp(target));
  }

  /** Going on behind an instruction, an instruction pointer has 32 bits in legacy modes; a branch cuts it to the operand size. */
  protected sequential(ip: Expression): Expression {
    return this.longMode ? ip : ip.zeroExtend(32);
  }

  protected wrapIp(ip: Expression): Expression {
    return this.longMode ? ip : ip.zeroExtend(this.operandBits === 16 ? 16 : 32);
  }

  jump(target: Operand): void {
    if (this.mode === 'segmented') this.checkTarget(this.target(target));
    this.follow(L.OP_LINK, () => this.target(target));
  }

  jumpIf(condition: Expression, target: Operand): void {
    this.f.if(condition, () => this.jump(target));
    this.goOn();
  }

  jumpTo(address: Expression): void {
    const a = this.f.let(this.wrapIp(address));
    this.checkTarget(a);
    this.goTo(a);
  }

  checkTarget(address: Expression, first: () => void = () => {}): void {
    const limit = this.vcpu.load('i64.load32_u', state.CS + state.SEGMENT_LIMIT);
    this.f.ifRarely(this.longMode ? isCanonical(address, this.state64(state.CANONICAL_SHIFT)).eqz() : address.gtU(limit), () => {
      first();
      this.raiseWithCode(EXCEPTION_GP, 0);
    });
  }

  /** Goes on behind this instruction, in another block. */
  goOn(): void {
    this.follow(L.OP_LINK_NEXT, () => this.nextIp());
  }

  /** Follows a link of this operation; where it leads to another page, looks its target up. */
  protected follow(link: number, target: () => Expression): void {
    const { f } = this;
    const block = f.local('i32');
    f.set(block, this.op.load('i32.load', link));
    f.if(f.get(block).leU(1), () => {
      f.if(
        f.get(block),
        () => f.set(block, f.call(this.targets.lookup, this.vcpu, target())),
        () => f.set(block, f.call(this.targets.resolveLink, this.vcpu, this.op, i32(link))),
      );
      f.if(f.get(block).eqz(), () => f.return());
    });
    this.enter(f.get(block));
  }

  /** Follows the link of a direct branch within its page. */
  followBranch(): void {
    this.follow(L.OP_LINK, () => this.target());
  }

  goTo(address: Expression): void {
    const { f } = this;
    const block = f.call(this.targets.lookup, this.vcpu, address);
    f.if(block.eqz(), () => f.return());
    // Where it went last: what a compiler takes for the way it goes.
    if (this.mnemonic === 'CALL' || this.mnemonic === 'JMP') f.store('i32.store', this.op, block, L.OP_LINK);
    this.enter(block);
  }

  /** The same, with a short way to a region: what the jump cache has for flat code, as `lookup` finds it. Regions are the handlers from `firstRegion` on. */
  goToRegion(address: Expression, firstRegion: number): void {
    const { f, vcpu } = this;
    const word = (offset: number): Expression => vcpu.load('i32.load', offset);
    const context = f.let(word(state.TLB_BASE));
    const entry = jumpEntry(f, vcpu, address);
    const codeMode = f.let(word(state.CODE_MODE));
    // The key of other code has CS's base in it.
    const flat = codeMode.and(state.CODE_64).nonZero();
    f.if(jumpHit(entry, address, context.load('i32.load', L.CONTEXT_GENERATION).or(codeMode)).and(flat), () => {
      const block = f.let(jumpBlock(entry));
      const isRegion = block.load('i32.load16_u', L.OP_HANDLER).geU(firstRegion);
      const budget = f.let(word(state.BUDGET));
      f.if(block.nonZero().and(isRegion).and(budget.gtS(0)), () => {
        this.setState64(state.CODE_BASE, address.sub(block.load('i64.load16_u', L.OP_IP)));
        this.pay(block, budget);
      });
    });
    this.goTo(address);
  }

  /** Enters a block if the budget lasts, otherwise leaves to the run loop in front of it. */
  enter(block: Expression): void {
    const { f } = this;
    const budget = f.let(this.vcpu.load('i32.load', state.BUDGET));
    f.if(budget.leS(0), () => {
      this.setState64(state.RIP, this.vcpu.load('i64.load', state.CODE_BASE).add(block.load('i64.load16_u', L.OP_IP)));
      f.return();
    });
    this.pay(block, budget);
  }

  /** Takes a block's length from the budget, counts its entries, and runs it. */
  private pay(block: Expression, budget: Expression): void {
    const { f } = this;
    this.setState32(state.BUDGET, budget.sub(block.load('i32.load16_u', L.OP_REMAINING)).sub(1));
    const heat = f.let(block.load('i32.load16_u', L.OP_HEAT).add(1));
    f.store('i32.store16', block, heat, L.OP_HEAT);
    f.if(heat.and(this.targets.hotEntries - 1).eqz(), () => f.call(this.targets.hot, this.vcpu, block));
    f.returnCallIndirect(this.targets.handlerType, HANDLER, block.load('i32.load16_u', L.OP_HANDLER), this.vcpu, block);
  }

  /** Runs this operation's own handler, where a block's first may have a region's. */
  interpret(): void {
    this.f.returnCallIndirect(this.targets.handlerType, HANDLER, this.op.load('i32.load16_u', L.OP_INTERPRETED), this.vcpu, this.op);
  }

  /** Runs the operation behind this one. */
  next(): void {
    this.leaveX87();
    this.f.returnCallIndirect(this.targets.handlerType, HANDLER, this.op.load('i32.load16_u', L.OP_SIZE + L.OP_HANDLER), this.vcpu, this.op.add(L.OP_SIZE));
  }

  updateTranslation(): void {
    const { f } = this;
    const ac = f.let(this.vcpu.load('i32.load', state.RFLAGS).shrU(18).and(1));
    const user = this.vcpu.load('i32.load', state.CR0).shrU(18).and(ac).mul(L.CHECKED_CONTEXT);
    const supervisor = this.vcpu.load('i32.load', state.CR4).shrU(21).and(ac).add(1);
    const kind = select(this.vcpu.load('i32.load', state.CPL).eq(3), user, supervisor);
    f.store('i32.store', this.vcpu, this.vcpu.load('i32.load', state.TLB_SLOT).add(kind.mul(L.CONTEXT_SIZE)), state.TLB_BASE);
  }

  leave(): void {
    this.setState64(state.RIP, this.nextIp());
    this.leaveAtRip();
  }

  restart(): void {
    // The rest of the block has not run; the work done so far has its price, so that the budget bounds it.
    this.setState32(state.BUDGET, this.state32(state.BUDGET).add(this.op.load('i32.load16_s', L.OP_REMAINING)).sub(RESTART_COST));
    this.setState64(state.RIP, this.ip());
    this.f.return();
  }

  leaveAtRip(): void {
    // What the block paid for and did not run is given back.
    this.setState32(state.BUDGET, this.state32(state.BUDGET).add(this.op.load('i32.load16_s', L.OP_REMAINING)));
    this.f.return();
  }

  continueAtRip(): void {
    this.f.if(this.vcpu.load('i32.load', state.RFLAGS).and(TRAP_FLAG), () => this.leaveAtRip());
    this.goTo(this.state64(state.RIP));
  }

  // --- Faults and helpers -------------------------------------------------------------------------

  protected synchronise(): void {
    this.setState32(state.CURRENT_OP, this.op);
  }

  raise(vector: number): void {
    this.synchronise();
    this.f.call(this.targets.raise, this.vcpu, i32(vector), i32(-1));
  }

  raiseWithCode(vector: number, code: number): void {
    this.synchronise();
    this.f.call(this.targets.raise, this.vcpu, i32(vector), i32(code));
  }

  requirePrivilege(): void {
    this.f.if(this.vcpu.load('i32.load', state.CPL), () => this.raiseWithCode(EXCEPTION_GP, 0));
  }

  /** #UD in real and virtual-8086 mode, where VEX means nothing. */
  requireProtectedMode(): void {
    const real = this.vcpu.load('i32.load', state.CR0).and(1).eqz();
    this.f.if(real.or(this.vcpu.load('i32.load', state.RFLAGS).shrU(17).and(1)), () => this.raise(EXCEPTION_UD));
  }

  requireSse(): void {
    const cr0 = this.vcpu.load('i32.load', state.CR0);
    const cr4 = this.vcpu.load('i32.load', state.CR4);
    // One test for the usual case: EM and TS clear, OSFXSR set.
    this.f.if(cr0.and(0xc).or(cr4.and(0x200).xor(0x200)), () => {
      this.f.if(cr0.and(4).or(cr4.and(0x200).eqz()), () => this.raise(EXCEPTION_UD));
      this.raise(EXCEPTION_NM);
    });
  }

  requireFpu(): void {
    this.f.if(this.vcpu.load('i32.load', state.CR0).and(CR0_EM_TS), () => this.raise(EXCEPTION_NM));
  }

  x87(quick: (stack: X87Stack) => void, exact: () => void): void {
    const { f } = this;
    f.block((done) => {
      f.block((hard) => {
        const stack = new StateStack(f, this.vcpu, hard);
        quick(stack);
        stack.commit();
        f.branch(done);
      });
      exact();
    });
  }

  requireMmx(): void {
    const cr0 = this.vcpu.load('i32.load', state.CR0);
    this.f.if(cr0.and(0xc), () => {
      this.f.if(cr0.and(4), () => this.raise(EXCEPTION_UD));
      this.raise(EXCEPTION_NM);
    });
    this.f.if(this.vcpu.load('i32.load', state.FSW).and(0x80), () => this.raise(EXCEPTION_MF));
  }

  enterMmx(): void {
    this.requireMmx();
    this.entersMmx = true;
  }

  /** What an MMX instruction does to the x87 state: behind everything that may fault but arithmetic. */
  private leaveX87(): void {
    if (!this.entersMmx) return;
    this.setState32(state.FSW, this.state32(state.FSW).and(~state.FSW_TOP));
    this.setState32(state.FTW, i32(0xff));
  }

  decline(): boolean { return false; }

  mxcsrDiffers(mask: number, expected: number): Expression {
    return this.f.let(this.state32(state.MXCSR).and(mask).ne(expected));
  }

  noteNormal(_value: Expression): void {}
  isNormal(_value: Expression): boolean { return false; }

  shared(target: SharedFunction, ...operands: Expression[]): Expression[] {
    return this.f.callForAll(this.targets.shared(target), ...operands);
  }

  requireAligned(address: Expression, bytes: number): void {
    this.f.ifRarely(address.and(bytes - 1).nonZero(), () => this.raiseWithCode(EXCEPTION_GP, 0));
  }

  helper(name: string, ...args: Value[]): Expression {
    const target = this.targets.helpers.get(name);
    if (!target) throw new Error(`${this.mnemonic}: no helper ${name}`);
    this.synchronise();
    this.leaveX87();
    return this.f.call(target, this.vcpu, ...args);
  }
}
