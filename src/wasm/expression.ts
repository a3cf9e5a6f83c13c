/**
 * WebAssembly code as expression trees. A node knows its type, so a wrong operand is an error where it is
 * written, with the tree printed, never a message from the engine's validator. Trees are immutable and small;
 * constants are folded as they are built.
 */

import type { ByteBuffer } from './byte-buffer.ts';
import { type Operation, operation, type ValueType } from './opcodes.ts';

type Kind = 'const' | 'local' | 'operation' | 'memory' | 'lane' | 'shuffle' | 'select' | 'global';

/** The locals of a function by their index, parameters first. */
export interface Locals {
  typeOfLocal(index: number): ValueType | undefined;
}

/** An expression, or a number that stands for a constant of the type the context wants. */
export type Operand = Expression | number | bigint;

export class Expression {
  readonly kind: Kind;
  readonly type: ValueType;
  readonly operation: Operation | null;
  readonly operands: readonly Expression[];
  /** A constant's value, a local's index, a memory offset, a lane. */
  readonly immediate: number | bigint;
  readonly lanes: readonly number[] | null;

  constructor(kind: Kind, type: ValueType, op: Operation | null, operands: readonly Expression[], immediate: number | bigint, lanes: readonly number[] | null = null) {
    this.kind = kind;
    this.type = type;
    this.operation = op;
    this.operands = operands;
    this.immediate = immediate;
    this.lanes = lanes;
  }

  private get isInteger(): boolean {
    return this.type === 'i32' || this.type === 'i64';
  }

  /** Applies the instruction `name` of this value's type: `a.op('add', b)` is `i64.add` where `a` is an i64. */
  op(name: string, ...rest: Operand[]): Expression {
    return apply(`${this.type}.${name}`, this, ...rest);
  }

  /** Adding 0 to a float may change it: -0, signalling NaNs. */
  add(b: Operand): Expression { return isZero(b) && this.isInteger ? this : this.op('add', b); }
  sub(b: Operand): Expression { return isZero(b) && this.isInteger ? this : this.op('sub', b); }
  mul(b: Operand): Expression { return this.op('mul', b); }
  divS(b: Operand): Expression { return this.op('div_s', b); }
  divU(b: Operand): Expression { return this.op('div_u', b); }
  remS(b: Operand): Expression { return this.op('rem_s', b); }
  remU(b: Operand): Expression { return this.op('rem_u', b); }
  and(b: Operand): Expression { return this.op('and', b); }
  or(b: Operand): Expression { return isZero(b) ? this : this.op('or', b); }
  xor(b: Operand): Expression { return isZero(b) ? this : this.op('xor', b); }
  not(): Expression { return this.type === 'v128' ? this.op('not') : this.op('xor', -1); }
  shl(b: Operand): Expression { return isZero(b) ? this : this.op('shl', b); }
  shrS(b: Operand): Expression { return isZero(b) ? this : this.op('shr_s', b); }
  shrU(b: Operand): Expression { return isZero(b) ? this : this.op('shr_u', b); }
  rotl(b: Operand): Expression { return this.op('rotl', b); }
  rotr(b: Operand): Expression { return this.op('rotr', b); }
  clz(): Expression { return this.op('clz'); }
  ctz(): Expression { return this.op('ctz'); }
  popcnt(): Expression { return this.op('popcnt'); }
  eqz(): Expression { return this.op('eqz'); }
  /** 1 where the integer is not zero: an i32 either way. */
  nonZero(): Expression { return this.type === 'i32' ? this.op('ne', 0) : this.op('ne', 0); }
  eq(b: Operand): Expression { return this.op('eq', b); }
  ne(b: Operand): Expression { return this.op('ne', b); }
  ltS(b: Operand): Expression { return this.op('lt_s', b); }
  ltU(b: Operand): Expression { return this.op('lt_u', b); }
  gtS(b: Operand): Expression { return this.op('gt_s', b); }
  gtU(b: Operand): Expression { return this.op('gt_u', b); }
  leS(b: Operand): Expression { return this.op('le_s', b); }
  leU(b: Operand): Expression { return this.op('le_u', b); }
  geS(b: Operand): Expression { return this.op('ge_s', b); }
  geU(b: Operand): Expression { return this.op('ge_u', b); }

  /** i64 to i32. */
  wrap(): Expression { return apply('i32.wrap_i64', this); }
  /** i32 to i64. */
  extendS(): Expression { return apply('i64.extend_i32_s', this); }
  extendU(): Expression { return apply('i64.extend_i32_u', this); }
  /** Sign-extends the low `bits` (8, 16, 32; 64 is the value itself) of an i64. */
  signExtend(bits: number): Expression { return bits >= 64 ? this : this.op(`extend${bits}_s`); }
  /** Zero-extends the low `bits` of an i64. */
  zeroExtend(bits: number): Expression { return bits >= 64 ? this : this.and(2n ** BigInt(bits) - 1n); }

  /** A load from this address (an i32). `name` as in the text format: `i64.load8_u`. */
  load(name: string, offset = 0): Expression {
    const op = operation(name);
    if (op.bytes === undefined || op.operands.length !== 1) throw new Error(`${name} is no load`);
    return new Expression('memory', op.result, checked(op, [this]), [this], checkedOffset(name, offset));
  }

  /** A lane instruction: `v.lane('i32x4.extract_lane', 2)`, `v.lane('i32x4.replace_lane', 2, value)`. */
  lane(name: string, lane: number, value?: Expression): Expression {
    const op = operation(name);
    if (op.lanes === undefined || !Number.isInteger(lane) || lane < 0 || lane >= op.lanes) throw new Error(`${name} has no lane ${lane}: ${this}`);
    const operands = value ? [this, value] : [this];
    return new Expression('lane', op.result, checked(op, operands), operands, lane);
  }

  /** Sixteen bytes picked from this vector (0 to 15) and `other` (16 to 31). */
  shuffle(other: Expression, lanes: readonly number[]): Expression {
    const right = lanes.length === 16 && lanes.every((lane) => Number.isInteger(lane) && lane >= 0 && lane < 32);
    if (!right || this.type !== 'v128' || other.type !== 'v128') throw new Error(`a shuffle wants two vectors and 16 of their 32 bytes: ${this}, ${other}, [${lanes}]`);
    return new Expression('shuffle', 'v128', null, [this, other], 0, lanes);
  }

  /** Writes the code that leaves this value on the stack. `locals` are those of the function that it is written to. */
  emit(out: ByteBuffer, locals: Locals): void {
    for (const operand of this.operands) operand.emit(out, locals);
    switch (this.kind) {
      case 'const':
        return emitConstant(out, this);
      case 'local':
        if (locals.typeOfLocal(this.immediate as number) !== this.type) throw new Error(`a local of another function: ${this.type} ${this}`);
        out.byte(0x20);
        return out.unsigned(this.immediate as number);
      case 'global':
        out.byte(0x23);
        return out.unsigned(this.immediate as number);
      case 'operation':
        return emitCode(out, (this.operation as Operation).code);
      case 'memory':
        emitCode(out, (this.operation as Operation).code);
        return emitMemoryArgument(out, this.immediate as number);
      case 'lane':
        emitCode(out, (this.operation as Operation).code);
        return out.byte(this.immediate as number);
      case 'shuffle':
        emitCode(out, 0xfd0d);
        return out.raw(this.lanes as number[]);
      case 'select':
        return out.byte(0x1b);
    }
  }

  /** The text format, in S-expressions: what error messages show. */
  toString(): string {
    const inner = this.operands.map((operand) => ` ${operand}`).join('');
    switch (this.kind) {
      case 'const':
        return `(${this.type}.const ${this.immediate})`;
      case 'local':
        return `(local.get ${this.immediate})`;
      case 'global':
        return `(global.get ${this.immediate})`;
      case 'shuffle':
        return `(i8x16.shuffle ${this.lanes?.join(' ')}${inner})`;
      case 'select':
        return `(select${inner})`;
      case 'memory':
        return `(${this.operation?.name} offset=${this.immediate}${inner})`;
      case 'lane':
        return `(${this.operation?.name} ${this.immediate}${inner})`;
      case 'operation':
        return `(${this.operation?.name}${inner})`;
    }
  }
}

const isZero = (operand: Operand): boolean =>
  operand instanceof Expression ? operand.kind === 'const' && operand.type !== 'v128' && Number(operand.immediate) === 0 : Number(operand) === 0;

const constant = (type: ValueType, value: number | bigint): Expression => new Expression('const', type, null, [], value);
export const i32 = (value: number): Expression => constant('i32', value | 0);
/** An i64 constant: a bigint, or a number that is an integer. */
export const i64 = (value: number | bigint): Expression => {
  const signed = typeof value === 'bigint' ? BigInt.asIntN(64, value) : value;
  return constant('i64', typeof signed === 'bigint' && signed >= -0x8000_0000n && signed <= 0x7fff_ffffn ? Number(signed) : signed);
};
export const f32 = (value: number): Expression => constant('f32', value);
export const f64 = (value: number): Expression => constant('f64', value);
/** A vector constant of two 64-bit halves, the low one first. */
export const v128 = (low: bigint, high: bigint): Expression =>
  constant('v128', (BigInt.asUintN(64, high) << 64n) | BigInt.asUintN(64, low));

/** `condition` (an i32) picks `ifTrue` or `ifFalse`; both are computed, unless it is a constant. */
export function select(condition: Expression, ifTrue: Expression, ifFalse: Expression): Expression {
  if (condition.type !== 'i32' || ifTrue.type !== ifFalse.type) throw new Error(`select wants an i32 and two of a type: ${condition} ? ${ifTrue} : ${ifFalse}`);
  if (condition.kind === 'const') return condition.immediate ? ifTrue : ifFalse;
  return new Expression('select', ifTrue.type, null, [ifTrue, ifFalse, condition], 0);
}

/** The instruction `name` on `operands`; plain numbers become constants of the type it wants. */
export function apply(name: string, ...operands: Operand[]): Expression {
  const op = operation(name);
  if (op.bytes !== undefined || op.lanes !== undefined) throw new Error(`${name} wants ${op.lanes === undefined ? 'an offset: use load or store' : 'a lane: use lane'}`);
  const typed = operands.map((operand, i) => {
    if (operand instanceof Expression) return operand;
    const type = op.operands[i];
    return type === 'i64' ? i64(operand) : type === 'i32' ? i32(Number(operand)) : constant(type, Number(operand));
  });
  checked(op, typed);
  const [a, b] = typed;
  if (a.kind === 'const' && (!b || b.kind === 'const')) {
    const folded = fold(name, a.immediate, b?.immediate);
    if (folded) return folded;
  }
  return new Expression('operation', op.result, op, typed, 0);
}

/** Offsets are unsigned and have 32 bits. */
export function checkedOffset(name: string, offset: number): number {
  if (!Number.isInteger(offset) || offset < 0 || offset >= 2 ** 32) throw new Error(`${name} has no offset ${offset}`);
  return offset;
}

function checked(op: Operation, operands: readonly Expression[]): Operation {
  const right = op.operands.length === operands.length && op.operands.every((type, i) => operands[i].type === type);
  if (!right) throw new Error(`${op.name} wants (${op.operands.join(', ')}), got (${operands.map((o) => o.type).join(', ')}): ${operands.join(' , ')}`);
  return op;
}

function fold(name: string, a: number | bigint, b: number | bigint | undefined): Expression | null {
  const [x, y] = [BigInt(Number.isInteger(a) || typeof a === 'bigint' ? a : 0), BigInt(Number.isInteger(b) || typeof b === 'bigint' ? (b as number) : 0)];
  switch (name) {
    case 'i32.add': return i32(Number(BigInt.asIntN(32, x + y)));
    case 'i32.sub': return i32(Number(BigInt.asIntN(32, x - y)));
    case 'i32.and': return i32(Number(x & y));
    case 'i32.or': return i32(Number(x | y));
    case 'i32.xor': return i32(Number(x ^ y));
    case 'i32.ctz': return i32(Number(x === 0n ? 32 : 31 - Math.clz32(Number(x & -x))));
    case 'i32.shr_u': return i32(Number(BigInt.asUintN(32, x) >> (y & 31n)));
    case 'i32.shl': return i32(Number(BigInt.asIntN(32, x << (y & 31n))));
    case 'i64.add': return i64(x + y);
    case 'i64.sub': return i64(x - y);
    case 'i64.and': return i64(x & y);
    case 'i64.or': return i64(x | y);
    case 'i64.shl': return i64(x << (y & 63n));
    case 'i32.wrap_i64': return i32(Number(BigInt.asIntN(32, x)));
    case 'i64.extend_i32_u': return i64(BigInt.asUintN(32, x));
    case 'i64.extend_i32_s': return i64(x);
    default: return null;
  }
}

function emitConstant(out: ByteBuffer, node: Expression): void {
  switch (node.type) {
    case 'i32':
      out.byte(0x41);
      return out.signed(node.immediate as number);
    case 'i64':
      out.byte(0x42);
      return out.signed64(node.immediate);
    case 'f32':
      out.byte(0x43);
      return out.float32(node.immediate as number);
    case 'f64':
      out.byte(0x44);
      return out.float64(node.immediate as number);
    case 'v128': {
      emitCode(out, 0xfd0c);
      for (let i = 0n; i < 16n; i++) out.byte(Number(((node.immediate as bigint) >> (8n * i)) & 255n));
    }
  }
}

export function emitCode(out: ByteBuffer, code: number): void {
  if (code > 0xff) {
    out.byte(code >> 8 === 0xfc ? 0xfc : 0xfd);
    out.unsigned(code >> 8 === 0xfc ? code & 0xff : code - 0xfd00);
  } else out.byte(code);
}

/** Alignment is always given as 1 byte: guests' accesses need not be aligned, and the engine on x86 and ARM does not care. */
export function emitMemoryArgument(out: ByteBuffer, offset: number): void {
  out.byte(0);
  out.unsigned(offset);
}
