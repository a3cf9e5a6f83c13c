import { describe, expect, it } from 'vitest';
import * as state from '../cpu/state.ts';
import { type Expression, i32, i64, type Operand as Value, select } from '../wasm/expression.ts';
import type { FunctionBuilder, FunctionReference } from '../wasm/function-builder.ts';
import { ModuleBuilder } from '../wasm/module-builder.ts';
import './arithmetic.ts';
import './logic.ts';
import './multiply-divide.ts';
import './shift.ts';
import './bit.ts';
import './data-transfer.ts';
import './stack.ts';
import './control.ts';
import './flags.ts';
import './convert.ts';
import './miscellaneous.ts';
import type { Encoding } from './encoding.ts';
import { type Instruction, instructions } from './instruction.ts';
import type { Bits, FlagWords, Operand, Semantics, SharedFunction } from './semantics.ts';

// A machine without an engine: one instruction is one function, with operands known, on flat memory that faults outside of RAM.

const RAM = 0x10000;
const RAM_BYTES = 0x20000;
const MEMORY_PAGES = (RAM + RAM_BYTES) / 65536 + 1;
const STATE = i32(0);

type Operands =
  | { kind: 'register'; number: number; bits: number; high?: boolean; segment?: boolean; vector?: boolean }
  | { kind: 'memory'; bits: number; base: number; index: number; scale: number; displacement: number; segment: number }
  | { kind: 'immediate'; bits: number; value: bigint };

interface Form {
  operandBits: 16 | 32 | 64;
  addressBits: 16 | 32 | 64;
  longMode: boolean;
  ip: bigint;
  length: number;
  operands: Operands[];
}

interface Imports {
  raise: FunctionReference;
  helper: FunctionReference;
}

const imports = (module: ModuleBuilder): Imports => ({
  raise: module.importFunction('raise', { parameters: ['i32', 'i32'], results: [] }),
  helper: module.importFunction('helper', { parameters: ['i32', 'i32', 'i32', 'i32'], results: ['i32'] }),
});
const helperNames: string[] = [];

/** What integer instructions use of `Semantics`; other families need more. */
class FlatSemantics implements Partial<Semantics> {
  readonly f: FunctionBuilder;
  readonly form: Form;
  readonly mnemonic: string;
  readonly repeat = 'none';
  private readonly imports: Imports;

  constructor(f: FunctionBuilder, mnemonic: string, form: Form, imported: Imports) {
    this.f = f;
    this.mnemonic = mnemonic;
    this.form = form;
    this.imports = imported;
  }

  get operandBits() { return this.form.operandBits; }
  get addressBits() { return this.form.addressBits; }
  get longMode() { return this.form.longMode; }

  operand(o: Operands): Operand {
    const { f } = this;
    const refuse = (): never => {
      throw new Error(`${this.mnemonic}: not for a ${o.kind} operand`);
    };
    const none = { signed: refuse, unsigned: refuse, write: refuse, vector: refuse, float: refuse, writeVector: refuse, writeLow: refuse, address: refuse, linear: refuse, number: refuse };
    if (o.kind === 'immediate') {
      return { ...none, kind: o.kind, bits: o.bits, signed: () => i64(BigInt.asIntN(o.bits, o.value)), unsigned: () => i64(BigInt.asUintN(o.bits, o.value)) };
    }
    if (o.kind === 'register') {
      if (o.segment) {
        const selector = () => this.state32(state.SEGMENT + o.number * state.SEGMENT_SIZE + state.SEGMENT_SELECTOR).extendU();
        return { ...none, kind: o.kind, bits: o.bits, unsigned: selector, number: () => i32(o.number) };
      }
      if (o.vector) {
        const offset = state.XMM + 16 * o.number;
        return {
          ...none,
          kind: o.kind,
          bits: 128,
          vector: () => f.let(STATE.load('v128.load', offset)),
          float: (bits) => f.let(STATE.load(`f${bits}.load`, offset)),
          writeVector: (value) => f.store('v128.store', STATE, value, offset),
          writeLow: (value, bits) => f.store(bits === 64 ? 'i64.store' : 'i64.store32', STATE, value, offset),
          number: () => i32(o.number),
        };
      }
      const offset = state.GPR + 8 * o.number + (o.high ? 1 : 0);
      return {
        ...none,
        kind: o.kind,
        bits: o.bits,
        signed: () => f.let(STATE.load(o.bits === 64 ? 'i64.load' : `i64.load${o.bits}_s`, offset)),
        unsigned: () => f.let(STATE.load(o.bits === 64 ? 'i64.load' : `i64.load${o.bits}_u`, offset)),
        write: (value) => {
          if (o.bits >= 32) f.store('i64.store', STATE, value.zeroExtend(o.bits), offset);
          else f.store(`i64.store${o.bits}`, STATE, value, offset);
        },
        number: () => i32(o.number),
      };
    }
    const effective = (displacement: Expression = i64(0)) => {
      let address = displacement.add(o.displacement);
      if (o.base >= 0) address = address.add(this.gpr(o.base, 64).unsigned());
      if (o.index >= 0) address = address.add(this.gpr(o.index, 64).unsigned().shl(o.scale));
      return address.zeroExtend(this.addressBits);
    };
    const linear = (displacement?: Expression) => f.let(this.segmentBase(state.SEGMENT + o.segment * state.SEGMENT_SIZE).add(effective(displacement)));
    return {
      ...none,
      kind: o.kind,
      bits: o.bits,
      signed: () => this.load(linear(), o.bits as Bits, 'signed'),
      unsigned: () => this.load(linear(), o.bits as Bits, 'unsigned'),
      write: (value) => this.store(linear(), o.bits as Bits, value),
      float: (bits) => f.let(this.host(linear(), bits / 8).load(`f${bits}.load`)),
      vector: () => f.let(this.host(linear(), o.bits / 8).load(o.bits === 128 ? 'v128.load' : `v128.load${o.bits}_zero`)),
      writeVector: (value) => f.store('v128.store', this.host(linear(), 16), value),
      address: () => f.let(effective()),
      linear,
    };
  }

  gpr(number: number, bits: Bits) { return this.operand({ kind: 'register', number, bits }); }
  highByte(number: number) { return this.operand({ kind: 'register', number, bits: 8, high: true }); }
  xmm(number: number) { return this.operand({ kind: 'register', number, bits: 128, vector: true }); }

  setFlags({ zero, sign, carry, overflow }: FlagWords) {
    if (zero !== undefined) this.setState64(state.FLAG_ZERO, zero);
    if (sign !== undefined) this.setState64(state.FLAG_SIGN, sign);
    if (carry !== undefined) this.setState64(state.FLAG_CARRY, carry);
    if (overflow !== undefined) this.setState64(state.FLAG_OVERFLOW, overflow);
  }
  flagsOfAdd(a: Expression, b: Expression, result: Expression) {
    this.setFlags({ zero: result, sign: result, carry: a.and(b).or(a.or(b).and(result.not())), overflow: a.op('xor', result).and(b.op('xor', result)) });
  }
  flagsOfSub(a: Expression, b: Expression, result: Expression) {
    const notA = a.not();
    this.setFlags({ zero: result, sign: result, carry: notA.and(b).op('or', notA.op('or', b).and(result)), overflow: a.op('xor', b).and(a.op('xor', result)) });
  }
  flagsOfLogic(result: Expression) { this.setFlags({ zero: result, sign: result, carry: 0, overflow: 0 }); }
  carryWord() { return this.state64(state.FLAG_CARRY); }
  carryFlag() { return this.carryWord().shrU(63).wrap(); }
  zeroFlag() { return this.state64(state.FLAG_ZERO).eqz(); }
  signFlag() { return this.state64(state.FLAG_SIGN).shrU(63).wrap(); }
  overflowFlag() { return this.state64(state.FLAG_OVERFLOW).shrU(63).wrap(); }
  parityFlag() { return this.state64(state.FLAG_SIGN).and(0xff).popcnt().wrap().and(1).op('xor', 1); }
  adjustFlag() { return this.carryWord().shrU(3).wrap().and(1); }
  condition(cc: number) {
    const less = () => this.signFlag().op('xor', this.overflowFlag());
    const positive = [
      () => this.overflowFlag(),
      () => this.carryFlag(),
      () => this.zeroFlag(),
      () => this.carryFlag().or(this.zeroFlag()),
      () => this.signFlag(),
      () => this.parityFlag(),
      less,
      () => less().or(this.zeroFlag()),
    ][cc >> 1]();
    return cc & 1 ? positive.eqz() : positive;
  }
  statusFlags() {
    const at = (flag: Expression, bit: number) => flag.extendU().shl(bit);
    return at(this.carryFlag(), 0).or(at(this.parityFlag(), 2)).or(at(this.adjustFlag(), 4)).or(at(this.zeroFlag(), 6)).or(at(this.signFlag(), 7)).or(at(this.overflowFlag(), 11));
  }
  setStatusFlags(value: Expression) {
    const v = this.f.let(value);
    this.setFlags({
      zero: v.shrU(6).and(1).op('xor', 1),
      sign: v.shl(56).and(1n << 63n).or(v.shrU(2).and(1).op('xor', 1)),
      carry: v.shl(63).or(v.shrU(1).and(8)),
      overflow: v.shl(52),
    });
  }
  rflags() { return this.statusFlags().or(this.state64(state.RFLAGS)); }
  direction() { return i64(1); }

  state32(offset: number) { return this.f.let(STATE.load('i32.load', offset)); }
  state64(offset: number) { return this.f.let(STATE.load('i64.load', offset)); }
  setState32(offset: number, value: Value) { this.f.store('i32.store', STATE, value, offset); }
  setState64(offset: number, value: Value) { this.f.store('i64.store', STATE, value, offset); }

  private host(address: Expression, bytes: number): Expression {
    const at = this.f.let(address);
    this.f.if(at.sub(RAM).gtU(RAM_BYTES - bytes), () => this.raiseWithCode(14, 0));
    return at.wrap();
  }
  load(address: Expression, bits: Bits, extend: 'signed' | 'unsigned') {
    return this.f.let(this.host(address, bits / 8).load(bits === 64 ? 'i64.load' : `i64.load${bits}_${extend[0]}`));
  }
  store(address: Expression, bits: Bits, value: Expression) {
    this.f.store(bits === 64 ? 'i64.store' : `i64.store${bits}`, this.host(address, bits / 8), value);
  }
  segmentBase(segment: number) { return this.longMode && segment < state.FS ? i64(0) : this.state64(segment + state.SEGMENT_BASE); }
  dataSegmentBase() { return this.segmentBase(state.DS); }
  segmentAddress(segment: number | 'data', offset: Expression) { return this.f.let(this.segmentBase(segment === 'data' ? state.DS : segment).add(offset)); }
  fitsSegment() { return i32(1); }

  // The stack is 32 bits wide in legacy modes.
  private get stackBits() { return this.longMode ? 64 : 32; }
  push(value: Expression, bits: 16 | 32 | 64) {
    this.store(this.stackAddress(this.gpr(4, 64).unsigned().sub(bits / 8)), bits, value);
    this.dropStack(-bits / 8);
  }
  pop(bits: 16 | 32 | 64) {
    const value = this.peek(bits);
    this.dropStack(bits / 8);
    return value;
  }
  peek(bits: 16 | 32 | 64, offsetBytes = 0) { return this.load(this.stackAddress(this.gpr(4, 64).unsigned().add(offsetBytes)), bits, 'unsigned'); }
  stackAddress(pointer: Expression) { return this.segmentBase(state.SS).add(pointer.zeroExtend(this.stackBits)); }
  dropStack(bytes: Value) { this.gpr(4, this.stackBits).write(this.gpr(4, 64).unsigned().add(bytes)); }

  target(operand: Operand) { return this.nextIp().add(operand.signed()).zeroExtend(this.operandBits); }
  jump(target: Operand) { this.jumpTo(this.target(target)); }
  jumpIf(condition: Expression, target: Operand) { this.jumpTo(select(condition, this.target(target), this.nextIp())); }
  jumpTo(address: Expression) {
    const to = this.f.let(address);
    this.checkTarget(to);
    this.goTo(to);
  }
  goTo(address: Expression) {
    this.setState64(state.RIP, address);
    this.f.return();
  }
  checkTarget(address: Expression) {
    if (this.longMode) this.f.if(address.shl(16).shrS(16).ne(address), () => this.raiseWithCode(13, 0));
  }
  nextIp() { return i64(this.form.ip + BigInt(this.form.length)); }
  ip() { return i64(this.form.ip); }

  raise(vector: number) { this.raiseWithCode(vector, -1); }
  raiseWithCode(vector: number, code: number) {
    this.f.call(this.imports.raise, i32(vector), i32(code));
    this.f.unreachable();
  }
  requirePrivilege() {}
  requireSse() {}
  enterMmx() {}
  decline() { return false; }
  mxcsrDiffers(mask: number, expected: number) { return this.f.let(this.state32(state.MXCSR).and(mask).ne(expected)); }
  noteNormal() {}
  isNormal() { return false; }
  shared({ build }: SharedFunction, ...operands: Expression[]) { return build(this.f, ...operands.map((operand) => this.f.let(operand))); }
  requireAligned(address: Expression, bytes: number) {
    this.f.if(address.and(bytes - 1).nonZero(), () => this.raiseWithCode(13, 0));
  }
  helper(name: string, ...args: Value[]) {
    if (!helperNames.includes(name)) helperNames.push(name);
    const padded = [...args, 0, 0, 0].slice(0, 3);
    return this.f.call(this.imports.helper, i32(helperNames.indexOf(name)), ...padded);
  }
  argument(index: number) { return this.state64(state.ARGUMENT + 8 * index); }
  setArgument(index: number, value: Expression) { this.setState64(state.ARGUMENT + 8 * index, value); }
  leave() { this.f.return(); }
  restart() { this.f.unreachable(); }
  leaveAtRip() { this.f.return(); }
  continueAtRip() { this.f.return(); }
}

function build(module: ModuleBuilder, imported: Imports, defined: Instruction, form: Form): FunctionBuilder {
  const f = module.function(`${defined.mnemonic}`, { parameters: [], results: [] });
  const x = new FlatSemantics(f, defined.mnemonic, form, imported);
  x.setState64(state.RIP, x.nextIp());
  defined.semantics(x as Partial<Semantics> as Semantics, ...form.operands.map((o) => x.operand(o)));
  return f;
}

const memory = new WebAssembly.Memory({ initial: MEMORY_PAGES, maximum: MEMORY_PAGES, shared: true });
const view = new DataView(memory.buffer);
class Fault {
  readonly vector: number;
  readonly code: number;
  constructor(vector: number, code: number) {
    this.vector = vector;
    this.code = code;
  }
}
let helperCalls: [name: string, ...args: number[]][] = [];

/** Compiles one instruction and runs it on the state in `memory`. Returns the fault it raised, or null. */
function execute(defined: Instruction, form: Form): Fault | null {
  const module = new ModuleBuilder();
  module.importMemory(memory);
  const f = build(module, imports(module), defined, form);
  module.export(f, 'run');
  const raise = (vector: number, code: number): never => {
    throw new Fault(vector, code);
  };
  const helper = (id: number, ...args: number[]): number => {
    helperCalls.push([helperNames[id], ...args]);
    return 0;
  };
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.bytes()), { env: { memory, raise, helper } });
  try {
    (instance.exports.run as () => void)();
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  return null;
}
// End of the machine.

/** The bits of an operand specification's size, given the operand size. */
function sizeOf(size: string, operandBits: number): number {
  switch (size) {
    case 'b': return 8;
    case 'w': return 16;
    case 'd': case 'ss': return 32;
    case 'q': case 'sd': case 'pi': return 64;
    case 'v': return operandBits;
    case 'z': return Math.min(32, operandBits);
    case 'y': return Math.max(32, operandBits);
    default: return 128;
  }
}

const FIXED_REGISTERS: Record<string, [number: number, bits: number]> = { AL: [0, 8], CL: [1, 8], AX: [0, 16], DX: [2, 16], eAX: [0, 0], eDX: [2, 0] };

/** Operands for an encoding: register operands get different numbers, memory is [rSI + rDI × 4 + 16]. */
function operandsOf(encoding: Encoding, operandBits: 16 | 32 | 64, inMemory: boolean, immediate = 5n): Operands[] {
  return encoding.operands.map(({ code, size }, i) => {
    const bits = sizeOf(size, operandBits);
    const fixed = FIXED_REGISTERS[code];
    if (fixed) return { kind: 'register', number: fixed[0], bits: fixed[1] || operandBits };
    if (code === '1') return { kind: 'immediate', bits: 8, value: 1n };
    if (code === 'I' || code === 'J') return { kind: 'immediate', bits: code === 'I' && size !== 'w' && size !== 'b' ? operandBits : bits, value: immediate };
    if (code === 'sI') return { kind: 'immediate', bits: operandBits, value: immediate };
    if (code === 'M' || code === 'O' || (inMemory && 'EWQ'.includes(code))) return { kind: 'memory', bits, base: 6, index: 7, scale: 2, displacement: 16, segment: 3 };
    const vector = 'VWU'.includes(code);
    return { kind: 'register', number: vector ? i + 1 : [3, 8, 9, 10][i], bits: vector ? 128 : bits, segment: code === 'S', vector };
  });
}

const inRm = (encoding: Encoding): boolean => encoding.operands.some((o) => 'EWQ'.includes(o.code));

/** All that handlers are made for: operand sizes, memory and register, address sizes, 64-bit and legacy code. */
function* formsOf({ attributes, encoding }: { attributes: Instruction; encoding: Encoding }): Generator<Form> {
  const { modifiers } = encoding;
  for (const longMode of [true, false]) {
    if (modifiers.has(longMode ? 'n64' : 'o64')) continue;
    for (const operandBits of longMode ? ([16, 32, 64] as const) : ([16, 32] as const)) {
      if (!encoding.sized && operandBits !== 32) continue;
      if (['s16', 's32', 's64'].some((m) => modifiers.has(m) && m !== `s${operandBits}`)) continue;
      if (longMode && ((modifiers.has('f64') && operandBits !== 64) || (modifiers.has('d64') && operandBits === 32))) continue;
      for (const addressBits of attributes.addressed ? ([16, 32, 64] as const) : longMode ? ([64] as const) : ([32] as const)) {
        for (const inMemory of inRm(encoding) ? [false, true] : [false]) {
          yield { operandBits, addressBits, longMode, ip: 0x400000n, length: 4, operands: operandsOf(encoding, operandBits, inMemory) };
        }
      }
    }
  }
}

/** The general-purpose integer instructions: what is defined before the other families are imported. */
const integer = [...instructions];

describe('instruction definitions', () => {
  it('build valid WebAssembly for every operand size, kind and mode', () => {
    let count = 0;
    for (const defined of integer) {
      const module = new ModuleBuilder();
      module.importMemory(memory);
      const imported = imports(module);
      for (const encoding of defined.encodings) {
        for (const form of formsOf({ attributes: defined, encoding })) {
          build(module, imported, defined, form);
          count++;
        }
      }
      expect(WebAssembly.validate(module.bytes()), defined.mnemonic).toBe(true);
    }
    expect(count).toBeGreaterThan(1000);
  });

  it('claim no machine code twice', async () => {
    await import('./all.ts');
    const claims = new Map<string, string>();
    const conflicts = new Set<string>();
    for (const { mnemonic, encodings } of instructions) {
      for (const e of encodings) {
        const kinds = [...'MR'].filter((kind) => {
          const rm = e.operands.find((o) => 'EWQMRUN'.includes(o.code) && o.code.length === 1)?.code ?? '';
          if (e.modifiers.has('mem') || rm === 'M') return kind === 'M';
          if (e.modifiers.has('reg') || 'RUN'.includes(rm) || e.modrm >= 0) return kind === 'R' || rm === '';
          return true;
        });
        const modes = [16, 32, 64].flatMap((bits) => ['16', '32', '64'].filter((mode) => !(mode === '64' ? e.modifiers.has('n64') : e.modifiers.has('o64')) && (mode === '64' || bits !== 64)).map((mode) => `${mode}:${bits}`))
          .filter((key) => !['s16', 's32', 's64'].some((s) => e.modifiers.has(s) && !key.endsWith(`:${s.slice(1)}`)));
        const wide = e.modifiers.has('W0') ? ['W0'] : e.modifiers.has('W1') ? ['W1'] : ['W0', 'W1'];
        const digits = e.digit >= 0 ? [e.digit] : e.modrm >= 0 ? [] : [0, 1, 2, 3, 4, 5, 6, 7];
        const wholes = e.modrm >= 0 ? Array.from({ length: e.modrmCount }, (_, i) => `=${e.modrm + i}`) : digits.map((d) => `/${d}`);
        const inOpcode = e.operands.some((o) => o.code === 'Z');
        for (let opcode = e.opcode; opcode < e.opcode + (inOpcode ? 8 : 1); opcode++) {
          for (const kind of kinds) for (const mode of modes) for (const w of wide) for (const rest of wholes) {
            // B0, a mandatory prefix and a whole ModRM are exceptions from what does not say.
            const key = [e.map, opcode.toString(16), e.prefix, e.modifiers.has('B0'), kind, mode, w, rest].join(' ');
            const other = claims.get(key);
            if (other && other !== `${mnemonic} ${e.text}`) conflicts.add(`'${other}' and '${mnemonic} ${e.text}'`);
            claims.set(key, `${mnemonic} ${e.text}`);
          }
        }
      }
    }
    expect([...conflicts]).toEqual([]);
    expect(claims.size).toBeGreaterThan(1000);
  });
});

interface Setting {
  bits?: 16 | 32 | 64;
  longMode?: boolean;
  inMemory?: boolean;
  immediate?: bigint;
  /** General registers by number. Memory operands are at [rSI + 16] unless rDI is set. */
  registers?: Record<number, bigint>;
  carry?: boolean;
  /** 64-bit words of memory by address. */
  words?: Record<number, bigint>;
  operands?: Operands[];
}

const DATA = RAM + 0x100;
const STACK = RAM + 0x800;
const RSP = 4;

/** Runs one encoding of an instruction and looks at what came of it. */
function run(mnemonic: string, text: string, setting: Setting) {
  const { bits = 64, longMode = true, inMemory = false, immediate = 5n, registers = {}, carry = false, words = {} } = setting;
  const defined = instructions.find((i) => i.mnemonic === mnemonic && i.encodings.some((e) => e.text === text)) as Instruction;
  const encoding = defined.encodings.find((e) => e.text === text) as Encoding;
  new Uint8Array(memory.buffer).fill(0);
  helperCalls = [];
  view.setBigUint64(state.RFLAGS, 0x202n, true);
  view.setBigUint64(state.FLAG_ZERO, 1n, true);
  view.setBigUint64(state.FLAG_SIGN, 1n, true);
  view.setBigUint64(state.FLAG_CARRY, carry ? 1n << 63n : 0n, true);
  view.setBigUint64(state.GPR + 8 * RSP, BigInt(STACK), true);
  view.setBigUint64(state.RSI, BigInt(DATA - 16), true);
  for (const [number, value] of Object.entries(registers)) view.setBigUint64(state.GPR + 8 * Number(number), BigInt.asUintN(64, value), true);
  for (const [address, value] of Object.entries(words)) view.setBigUint64(Number(address), BigInt.asUintN(64, value), true);
  const operands = setting.operands ?? operandsOf(encoding, bits, inMemory, immediate);
  const fault = execute(defined, { operandBits: bits, addressBits: longMode ? 64 : 32, longMode, ip: 0x400000n, length: 4, operands });
  const word = (address: number): bigint => view.getBigUint64(address, true);
  return {
    vector: fault?.vector ?? null,
    register: (number: number) => word(state.GPR + 8 * number),
    word,
    rip: word(state.RIP),
    carry: word(state.FLAG_CARRY) >> 63n === 1n,
    overflow: word(state.FLAG_OVERFLOW) >> 63n === 1n,
    zero: word(state.FLAG_ZERO) === 0n,
  };
}

const unsigned64 = (value: bigint): bigint => BigInt.asUintN(64, value);
const INTERESTING = [0n, 1n, 2n, 3n, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn, 0x1_0000_0000n, 0x1234_5678_9abc_def0n, (1n << 63n) - 1n, 1n << 63n, (1n << 63n) + 1n, (1n << 64n) - 2n, (1n << 64n) - 1n];

describe('division', () => {
  it('of 128 by 64 bits is exact, and #DE where the quotient does not fit', () => {
    const wrong: string[] = [];
    for (const high of INTERESTING) for (const low of INTERESTING.slice(4)) for (const divisor of INTERESTING) {
      const whole = (high << 64n) | low;
      const fits = divisor !== 0n && whole / divisor < 1n << 64n;
      const result = run('DIV', 'F7/6 Ev', { registers: { 0: low, 2: high, 3: divisor } });
      const right = fits
        ? result.vector === null && result.register(0) === whole / divisor && result.register(2) === whole % divisor
        : result.vector === 0 && result.register(0) === low && result.register(2) === high;
      if (!right) wrong.push(`${whole} / ${divisor}`);
    }
    expect(wrong).toEqual([]);
  });

  it('with signs truncates towards zero, and #DE where the quotient does not fit', () => {
    const wrong: string[] = [];
    for (const high of [0n, 1n, 2n, 3n, 0x7fffn, 0x8000_0000n, 1n << 62n, 1n << 63n, -1n, -2n, -3n, -0x1234_5678n]) for (const low of INTERESTING) for (const divisorBits of INTERESTING) {
      const whole = BigInt.asIntN(128, (high << 64n) | low);
      const divisor = BigInt.asIntN(64, divisorBits);
      const fits = divisor !== 0n && BigInt.asIntN(64, whole / divisor) === whole / divisor;
      const result = run('IDIV', 'F7/7 Ev', { registers: { 0: low, 2: high, 3: divisorBits } });
      const right = fits
        ? result.vector === null && result.register(0) === unsigned64(whole / divisor) && result.register(2) === unsigned64(whole % divisor)
        : result.vector === 0 && result.register(0) === low;
      if (!right) wrong.push(`${whole} / ${divisor}`);
    }
    expect(wrong).toEqual([]);
  });

  it('of the most negative number by -1 is #DE at every size', () => {
    for (const bits of [16, 32, 64] as const) {
      const low = 1n << BigInt(bits - 1);
      const result = run('IDIV', 'F7/7 Ev', { bits, registers: { 0: low, 2: (1n << BigInt(bits)) - 1n, 3: (1n << BigInt(bits)) - 1n } });
      expect([bits, result.vector]).toEqual([bits, 0]);
    }
    expect(run('IDIV', 'F7/7 Ev', { bits: 32, registers: { 0: 0n, 2: 1n << 31n, 3: 0xffff_ffffn } }).vector).toBe(0);
  });
});

describe('multiplication', () => {
  it('sets CF and OF where the product of 64-bit numbers does not fit', () => {
    for (const a of INTERESTING) for (const b of INTERESTING) {
      const [x, y] = [BigInt.asIntN(64, a), BigInt.asIntN(64, b)];
      const signed = run('IMUL', 'F7/5 Ev', { registers: { 0: a, 3: b } });
      expect([signed.register(0), signed.register(2), signed.carry]).toEqual([unsigned64(x * y), unsigned64((x * y) >> 64n), x * y !== BigInt.asIntN(64, x * y)]);
      const wide = run('MUL', 'F7/4 Ev', { registers: { 0: a, 3: b } });
      expect([wide.register(0), wide.register(2), wide.overflow]).toEqual([unsigned64(a * b), (a * b) >> 64n, a * b >> 64n !== 0n]);
    }
  });
});

describe('rotation through carry', () => {
  it('moves CF as one more bit, at every size and count', () => {
    for (const bits of [16, 32, 64] as const) for (let count = 0; count < 64; count++) for (const carry of [false, true]) {
      const value = 0x9234_5678_9abc_def1n & ((1n << BigInt(bits)) - 1n);
      const steps = BigInt((bits === 64 ? count : count & 31) % (bits + 1));
      const wide = (BigInt(carry) << BigInt(bits)) | value;
      const around = BigInt(bits + 1) - steps;
      const rotated = ((wide << steps) | (wide >> around)) & ((1n << BigInt(bits + 1)) - 1n);
      const left = run('RCL', 'C1/2 Ev Ib', { bits, carry, registers: { 3: value }, immediate: BigInt(count) });
      expect([bits, count, left.register(3), left.carry]).toEqual([bits, count, rotated & ((1n << BigInt(bits)) - 1n), rotated >> BigInt(bits) === 1n]);
      const back = run('RCR', 'C1/3 Ev Ib', { bits, carry: left.carry, registers: { 3: left.register(3) }, immediate: BigInt(count) });
      expect([bits, count, back.register(3), back.carry]).toEqual([bits, count, value, carry]);
    }
  });
});

describe('flags', () => {
  it('survive a shift or rotation by 0, and INC leaves CF alone', () => {
    for (const [mnemonic, text] of [['SHL', 'D3/4 Ev CL'], ['ROR', 'D3/1 Ev CL'], ['RCL', 'D3/2 Ev CL']]) {
      const result = run(mnemonic, text, { carry: true, registers: { 1: 0x40n, 3: 0n } });
      expect([mnemonic, result.carry, result.zero]).toEqual([mnemonic, true, false]);
    }
    const increment = run('INC', 'FF/0 Ev', { carry: true, registers: { 3: -1n } });
    expect([increment.register(3), increment.carry, increment.zero]).toEqual([0n, true, true]);
  });
});

describe('the stack', () => {
  const onStack = (displacement: number): Operands => ({ kind: 'memory', bits: 64, base: RSP, index: -1, scale: 0, displacement, segment: 2 });

  it('gets the old RSP from PUSH RSP, and POP RSP keeps what was popped', () => {
    const pushed = run('PUSH', '50+ Zv ; d64', { operands: [{ kind: 'register', number: RSP, bits: 64 }] });
    expect([pushed.register(RSP), pushed.word(STACK - 8)]).toEqual([BigInt(STACK - 8), BigInt(STACK)]);
    expect(run('POP', '58+ Zv ; d64', { operands: [{ kind: 'register', number: RSP, bits: 64 }], words: { [STACK]: 0x1234n } }).register(RSP)).toBe(0x1234n);
  });

  it('is as before when what POP stores to faults', () => {
    const operands: Operands[] = [{ kind: 'memory', bits: 64, base: 6, index: -1, scale: 0, displacement: 0, segment: 3 }];
    const result = run('POP', '8F/0 Ev ; d64', { operands, registers: { 6: 0n } });
    expect([result.vector, result.register(RSP)]).toEqual([14, BigInt(STACK)]);
  });

  it('is read by PUSH and CALL through memory before it is written', () => {
    expect(run('PUSH', 'FF/6 Ev ; d64', { operands: [onStack(-8)], words: { [STACK - 8]: 77n } }).word(STACK - 8)).toBe(77n);
    const called = run('CALL', 'FF/2 Ev ; d64', { operands: [onStack(-8)], words: { [STACK - 8]: 0x5000n } });
    expect([called.rip, called.word(STACK - 8)]).toEqual([0x5000n, 0x400004n]);
  });

  it('is as before when CALL or RET would go to an address that is not canonical', () => {
    const called = run('CALL', 'FF/2 Ev ; d64', { registers: { 3: 1n << 47n } });
    expect([called.vector, called.register(RSP), called.word(STACK - 8)]).toEqual([13, BigInt(STACK), 0n]);
    const returned = run('RET', 'C3 ; d64', { words: { [STACK]: 1n << 47n } });
    expect([returned.vector, returned.register(RSP)]).toEqual([13, BigInt(STACK)]);
  });

  it('takes the outer frames of a nested ENTER, and LEAVE drops them', () => {
    const operands: Operands[] = [{ kind: 'immediate', bits: 16, value: 0x20n }, { kind: 'immediate', bits: 8, value: 3n }];
    const frame = STACK + 0x80;
    const entered = run('ENTER', 'C8 Iw Ib ; d64', { operands, registers: { 5: BigInt(frame) }, words: { [frame - 8]: 11n, [frame - 16]: 22n } });
    expect([0, 1, 2, 3].map((i) => entered.word(STACK - 8 - 8 * i))).toEqual([BigInt(frame), 11n, 22n, BigInt(STACK - 8)]);
    expect([entered.register(5), entered.register(RSP)]).toEqual([BigInt(STACK - 8), BigInt(STACK - 32 - 0x20)]);
    const left = run('LEAVE', 'C9 ; d64', { registers: { 5: BigInt(STACK - 8) }, words: { [STACK - 8]: BigInt(frame) } });
    expect([left.register(5), left.register(RSP)]).toEqual([BigInt(frame), BigInt(STACK)]);
  });
});

describe('memory operands', () => {
  it('of bit tests reach beyond themselves by a signed offset', () => {
    const below = run('BTS', '0F AB Ev Gv', { bits: 32, inMemory: true, registers: { 8: -33n } });
    expect([below.word(DATA - 8), below.carry]).toEqual([0x8000_0000n, false]);
    const above = run('BTR', '0F B3 Ev Gv', { bits: 64, inMemory: true, registers: { 8: 130n }, words: { [DATA + 16]: 7n } });
    expect([above.word(DATA + 16), above.carry]).toEqual([3n, true]);
  });

  it('of CMPXCHG16B are exchanged where equal, loaded where not, and #GP where not aligned', () => {
    const words = { [DATA]: 1n, [DATA + 8]: 2n };
    const equal = run('CMPXCHG16B', '0F C7/1 Mdq ; W1', { registers: { 0: 1n, 2: 2n, 3: 3n, 1: 4n }, words });
    expect([equal.word(DATA), equal.word(DATA + 8), equal.zero]).toEqual([3n, 4n, true]);
    const other = run('CMPXCHG16B', '0F C7/1 Mdq ; W1', { registers: { 0: 1n, 2: 9n }, words });
    expect([other.register(0), other.register(2), other.word(DATA + 8), other.zero]).toEqual([1n, 2n, 2n, false]);
    expect(run('CMPXCHG16B', '0F C7/1 Mdq ; W1', { registers: { 6: BigInt(DATA - 8) } }).vector).toBe(13);
  });
});

describe('register operands', () => {
  it('keep their upper half through BSF of 0 and a failing CMPXCHG, and lose it to a CMOV that does not move', () => {
    const operands: Operands[] = [{ kind: 'register', number: 3, bits: 32 }, { kind: 'register', number: 8, bits: 32 }];
    const full = 0xffff_ffff_1234_5678n;
    const scan = run('BSF', '0F BC Gv Ev', { bits: 32, operands, registers: { 3: full } });
    expect([scan.register(3), scan.zero]).toEqual([full, true]);
    const exchange = run('CMPXCHG', '0F B1 Ev Gv', { bits: 32, operands, registers: { 0: full + 1n, 3: full } });
    expect([exchange.register(3), exchange.register(0), exchange.zero]).toEqual([full, 0x1234_5678n, false]);
    expect(run('CMOVE', '0F 44 Gv Ev', { bits: 32, operands, registers: { 3: full } }).register(3)).toBe(0x1234_5678n);
  });
});

describe('CRC32', () => {
  it("accumulates the Castagnoli code of '123456789'", () => {
    let crc = 0xffff_ffffn;
    for (const character of '123456789') crc = run('CRC32', 'F2 0F 38 F0 Gy Eb', { bits: 32, registers: { 3: crc, 8: BigInt(character.charCodeAt(0)) } }).register(3);
    expect(crc ^ 0xffff_ffffn).toBe(0xe306_9283n);
  });
});

describe('software interrupts', () => {
  it('leave vector and kind to the helper, and the IP to return to', () => {
    const result = run('INT', 'CD Ib', { immediate: 0x80n });
    expect(helperCalls).toEqual([['interrupt', 0x80, 4, 0]]);
    expect(result.word(state.ARGUMENT)).toBe(0x400004n);
    run('INTO', 'CE ; n64', { longMode: false, bits: 32 });
    expect(helperCalls).toEqual([]);
  });
});
