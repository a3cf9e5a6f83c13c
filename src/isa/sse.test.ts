import { beforeAll, describe, expect, it } from 'vitest';
import { SseUnit } from '../cpu/sse-unit.ts';
import * as state from '../cpu/state.ts';
import { apply, type Expression, i32, i64, type Operand as Value, v128 } from '../wasm/expression.ts';
import type { FunctionBuilder, FunctionReference } from '../wasm/function-builder.ts';
import { ModuleBuilder } from '../wasm/module-builder.ts';
import type { Encoding } from './encoding.ts';
import { type Instruction, instructions } from './instruction.ts';
import './mmx.ts';
import './sse-convert.ts';
import './sse-float.ts';
import './sse-integer.ts';
import './sse-move.ts';
import './sse4.ts';
import type { Bits, FlagWords, Operand, Semantics, SharedFunction } from './semantics.ts';

// A machine without an engine: every form is a function on fixed slots of linear memory. Destination registers are number 1
// (RBX among general ones), sources number 2 (RSI), the memory operand is where RDI points.

const MEMORY_OPERAND = 4096;
const IMMEDIATE = 4160;
const STATE = i32(0);
const DESTINATION = { xmm: state.XMM + 16, mmx: state.FPR + 16, general: state.RBX };
const SOURCE = { xmm: state.XMM + 32, mmx: state.FPR + 32, general: state.RSI };
const BITS: Record<string, number> = { b: 8, w: 16, d: 32, ss: 32, q: 64, sd: 64, dq: 128, ps: 128, pd: 128 };

function toInteger(value: Expression, bits: number): Expression {
  if (value.type === 'v128')
    return bits === 32 ? value.lane('i32x4.extract_lane', 0).extendU() : value.lane('i64x2.extract_lane', 0);
  if (value.type === 'f64') return apply('i64.reinterpret_f64', value);
  return value.type === 'f32' ? apply('i32.reinterpret_f32', value).extendU() : value;
}

/** A register or memory operand at a fixed place. */
class Slot {
  readonly f: FunctionBuilder;
  readonly kind: 'register' | 'memory';
  readonly bits: number;
  readonly offset: number;

  constructor(f: FunctionBuilder, kind: 'register' | 'memory', bits: number, offset: number) {
    this.f = f;
    this.kind = kind;
    this.bits = bits;
    this.offset = offset;
  }

  private read(sign: 's' | 'u'): Expression {
    const bits = Math.min(this.bits, 64);
    return this.f.let(STATE.load(bits === 64 ? 'i64.load' : `i64.load${bits}_${sign}`, this.offset));
  }

  signed() {
    return this.read('s');
  }
  unsigned() {
    return this.read('u');
  }

  write(value: Expression) {
    const extends32 = this.kind === 'register' && this.bits === 32 && this.offset < state.XMM;
    if (extends32 || this.bits === 64) this.f.store('i64.store', STATE, extends32 ? value.zeroExtend(32) : value, this.offset);
    else this.f.store(`i64.store${this.bits}`, STATE, value, this.offset);
  }

  vector() {
    if (this.kind === 'register' || this.bits === 128) return this.f.let(STATE.load('v128.load', this.offset));
    return this.f.let(v128(0n, 0n).lane('i64x2.replace_lane', 0, this.unsigned()));
  }

  float(bits: 32 | 64) {
    return this.f.let(STATE.load(`f${bits}.load`, this.offset));
  }

  writeVector(value: Expression) {
    if (this.kind === 'register' || this.bits === 128) this.f.store('v128.store', STATE, value, this.offset);
    else this.write(toInteger(value, this.bits));
  }

  writeLow(value: Expression, bits: 32 | 64) {
    this.f.store(bits === 32 ? 'i64.store32' : 'i64.store', STATE, toInteger(value, bits), this.offset);
  }
}

/** An immediate known when code is made, as compiled code has it, or only when it runs, as the interpreter does. */
const immediateOperand = (f: FunctionBuilder, constant: number | null): unknown => ({
  kind: 'immediate',
  bits: 8,
  unsigned: () => (constant === null ? f.let(STATE.load('i64.load8_u', IMMEDIATE)) : i64(constant)),
});

/** An encoding with its ModRM operand in a register or in memory. */
interface Form {
  name: string;
  instruction: Instruction;
  encoding: Encoding;
  rm: 'register' | 'memory';
  wide: boolean;
  constant: number | null;
}

const forms: Form[] = instructions.flatMap((instruction) =>
  instruction.encodings.flatMap((encoding) => {
    const has = (letters: string): boolean => encoding.operands.some((o) => letters.includes(o.code));
    const kinds: Form['rm'][] = [];
    if (!encoding.modifiers.has('mem') && !has('M')) kinds.push('register');
    if (!encoding.modifiers.has('reg') && has('MEWQ')) kinds.push('memory');
    const widths = encoding.operands.some((o) => o.size === 'y') ? [false, true] : [encoding.modifiers.has('W1')];
    return kinds.flatMap((rm) =>
      widths.map((wide) => {
        return {
          name: `${instruction.mnemonic} ${encoding.text} (${rm}${wide ? ', W' : ''})`,
          instruction,
          encoding,
          rm,
          wide,
          constant: null,
        };
      }),
    );
  }),
);
const hasImmediate = (form: Form): boolean => form.encoding.operands.some((o) => o.code === 'I');

class Machine {
  readonly memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  readonly bytes = new Uint8Array(this.memory.buffer);
  readonly view = new DataView(this.memory.buffer);
  private readonly functions = new Map<Form, () => void>();
  /** The last operation that was left to TypeScript. */
  asked = -1;

  constructor(list: readonly Form[]) {
    const module = new ModuleBuilder();
    module.importMemory(this.memory);
    const sse = module.importFunction('sse', { parameters: ['i32', 'i32'], results: [] });
    const raise = module.importFunction('raise', { parameters: ['i32'], results: [] });
    for (const [i, form] of list.entries()) {
      const f = module.function(`f${i}`, { parameters: [], results: [] });
      form.instruction.semantics(
        this.semantics(f, sse, raise),
        ...form.encoding.operands.map((o) => this.operand(f, form, o)),
      );
      module.export(f);
    }
    const unit = new SseUnit(this.memory.buffer);
    const env = {
      memory: this.memory,
      sse: (operation: number, detail: number) => {
        this.asked = operation;
        unit.execute(0, operation, detail);
      },
      raise: (vector: number) => {
        throw new Error(`exception ${vector}`);
      },
    };
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.bytes()), { env });
    for (const [i, form] of list.entries()) this.functions.set(form, exports[`f${i}`] as () => void);
    this.view.setUint32(state.MXCSR, 0x1f80, true);
  }

  run(form: Form, immediate = 0): void {
    this.view.setUint8(IMMEDIATE, immediate);
    this.view.setBigUint64(state.RDI, BigInt(MEMORY_OPERAND), true);
    (this.functions.get(form) as () => void)();
  }

  /** CF, PF, AF, ZF, SF, OF at their places in RFLAGS. */
  flags(): number {
    const word = (offset: number): bigint => this.view.getBigInt64(offset, true);
    const negative = (offset: number): number => (word(offset) < 0n ? 1 : 0);
    const odd = (word(state.FLAG_SIGN) & 0xffn).toString(2).replaceAll('0', '').length & 1;
    const zero = word(state.FLAG_ZERO) === 0n ? 1 : 0;
    const adjust = Number((word(state.FLAG_CARRY) >> 3n) & 1n);
    return (
      negative(state.FLAG_CARRY) |
      ((odd ^ 1) << 2) |
      (adjust << 4) |
      (zero << 6) |
      (negative(state.FLAG_SIGN) << 7) |
      (negative(state.FLAG_OVERFLOW) << 11)
    );
  }

  private operand(f: FunctionBuilder, form: Form, { code, size }: { code: string; size: string }): Operand {
    const bits = size === 'y' ? (form.wide ? 64 : 32) : BITS[size];
    const place = (): number => {
      switch (code) {
        case 'V':
          return DESTINATION.xmm;
        case 'W':
        case 'U':
          return SOURCE.xmm;
        case 'P':
          return DESTINATION.mmx;
        case 'Q':
        case 'N':
          return SOURCE.mmx;
        case 'G':
          return DESTINATION.general;
        default:
          return SOURCE.general;
      }
    };
    if (code === 'I') return immediateOperand(f, form.constant) as Operand;
    const inMemory = form.rm === 'memory' && 'MEWQ'.includes(code);
    return new Slot(f, inMemory ? 'memory' : 'register', bits, inMemory ? MEMORY_OPERAND : place()) as unknown as Operand;
  }

  private semantics(f: FunctionBuilder, sse: FunctionReference, raise: FunctionReference): Semantics {
    const flagPlaces = { zero: state.FLAG_ZERO, sign: state.FLAG_SIGN, carry: state.FLAG_CARRY, overflow: state.FLAG_OVERFLOW };
    const x = {
      f,
      addressBits: 64,
      longMode: true,
      gpr: (number: number, bits: Bits) => new Slot(f, 'register', bits, state.GPR + 8 * number),
      xmm: (number: number) => new Slot(f, 'register', 128, state.XMM + 16 * number),
      setFlags: (words: FlagWords) => {
        for (const [name, value] of Object.entries(words))
          f.store('i64.store', STATE, value, flagPlaces[name as keyof FlagWords]);
      },
      state32: (offset: number) => f.let(STATE.load('i32.load', offset)),
      setState32: (offset: number, value: Value) => f.store('i32.store', STATE, value, offset),
      load: (address: Expression) => f.let(address.wrap().load('i64.load8_u')),
      store: (address: Expression, _: Bits, value: Expression) => f.store('i64.store8', address.wrap(), value),
      segmentAddress: (_: number | 'data', offset: Expression) => offset,
      requireSse: () => undefined,
      enterMmx: () => f.store('i32.store', STATE, 0xff, state.FTW),
      requireMmx: () => {},
      decline: () => false,
      mxcsrDiffers: (mask: number, expected: number) => f.let(STATE.load('i32.load', state.MXCSR).and(mask).ne(expected)),
      noteNormal: () => undefined,
      isNormal: () => false,
      shared: ({ build }: SharedFunction, ...operands: Expression[]) => build(f, ...operands.map((operand) => f.let(operand))),
      raiseWithCode: (vector: number) => f.call(raise, vector),
      helper: (_name: string, ...operands: Value[]) => f.call(sse, ...operands),
      argument: (index: number) => f.let(STATE.load('i64.load', state.ARGUMENT + 8 * index)),
      setArgument: (index: number, value: Expression) => f.store('i64.store', STATE, value, state.ARGUMENT + 8 * index),
    };
    return x as unknown as Semantics;
  }
}

// --- Inputs -------------------------------------------------------------------------------------------

let seed = 1;
function random(): number {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t ^= t + Math.imul(t ^ (t >>> 7), 61 | t);
  return (t ^ (t >>> 14)) >>> 0;
}
const EDGES_64 = [
  0n, 1n, 0x7fffffffffffffffn, 0x8000000000000000n, 0xffffffffffffffffn, 15n, 16n, 31n, 32n, 63n, 64n, 0x8000800080008000n,
  0x7fff7fff7fff7fffn,
  0x8080808080808080n, 0x7f7f7f7f7f7f7f7fn, 0x0001ffff80007fffn, 0x3ff0000000000000n, 0xbff8000000000000n,
  0x7ff0000000000000n, 0xfff0000000000000n,
  0x7ff8000000000001n, 0x7ff0000000000002n, 0xfff7000000000003n, 0x3f800000bf800000n, 0x7f800000ff800000n,
  0x7fc000017f800002n, 0x4effffffcf000000n,
  0x41dfffffffc00000n, 0xc1e0000000000000n, 0x43e0000000000000n, 0x0000000100000000n, 0x0080000000000001n,
  0x3fe00000c0040000n, 0x402000003f000000n,
]; // biome-ignore format: a table
const random64 = (): bigint =>
  random() % 3 ? (BigInt(random()) << 32n) | BigInt(random()) : EDGES_64[random() % EDGES_64.length];

/** Fills registers 0 to 3, the general registers used and the memory operand. */
function randomize(machine: Machine): void {
  for (let offset = state.XMM; offset < state.XMM + 64; offset += 8) machine.view.setBigUint64(offset, random64(), true);
  for (const offset of [state.RAX, state.RCX, state.RDX, state.RBX, state.RSI, DESTINATION.mmx, SOURCE.mmx])
    machine.view.setBigUint64(offset, random64(), true);
  for (let offset = MEMORY_OPERAND; offset < MEMORY_OPERAND + 32; offset += 8)
    machine.view.setBigUint64(offset, random64(), true);
}

const ROUNDS = 60;
let machine: Machine;
beforeAll(() => {
  machine = new Machine(forms);
});
const formsOf = (mnemonic: string): Form[] => {
  const found = forms.filter((form) => form.instruction.mnemonic === mnemonic);
  if (!found.length) throw new Error(`no ${mnemonic}`);
  return found;
};

/** Runs all forms of a two-operand instruction on random inputs; `model` computes the destination's bytes from both operands'. */
function compareVectors(mnemonic: string, model: (a: DataView, b: DataView, result: DataView, immediate: number) => void): void {
  for (const form of formsOf(mnemonic)) {
    const [first, second] = form.encoding.operands;
    const mmx = 'PN'.includes(first.code);
    const bytes = mmx ? 8 : 16;
    const place = (code: string): number => {
      if (form.rm === 'memory' && 'WQM'.includes(code)) return MEMORY_OPERAND;
      return 'VP'.includes(code) ? DESTINATION[mmx ? 'mmx' : 'xmm'] : SOURCE[mmx ? 'mmx' : 'xmm'];
    };
    for (let i = 0; i < ROUNDS; i++) {
      randomize(machine);
      const copy = (offset: number): DataView => new DataView(machine.bytes.slice(offset, offset + bytes).buffer);
      const a = copy(place(first.code));
      const b = second.code === 'I' ? a : copy(place(second.code));
      const expected = new DataView(a.buffer.slice(0));
      const immediate = random() & 255;
      model(a, b, expected, immediate);
      machine.run(form, immediate);
      const hex = (view: DataView): string => Buffer.from(view.buffer, view.byteOffset, bytes).toString('hex');
      expect(hex(copy(place(first.code))), `${form.name}, ${hex(a)} with ${hex(b)}, ${immediate}`).toBe(hex(expected));
    }
  }
}

type Kind = 'Int8' | 'Uint8' | 'Int16' | 'Uint16' | 'Int32' | 'Uint32' | 'BigInt64' | 'BigUint64' | 'Float32' | 'Float64';
const SIZES: Record<Kind, number> = {
  Int8: 1,
  Uint8: 1,
  Int16: 2,
  Uint16: 2,
  Int32: 4,
  Uint32: 4,
  BigInt64: 8,
  BigUint64: 8,
  Float32: 4,
  Float64: 8,
};
// biome-ignore lint/suspicious/noExplicitAny: numbers and bigints alike
type Any = any;
const get = (view: DataView, kind: Kind, lane: number): Any => view[`get${kind}`](lane * SIZES[kind], true);
const set = (view: DataView, kind: Kind, lane: number, value: Any): void =>
  (view[`set${kind}`] as Any).call(view, lane * SIZES[kind], value, true);
const lanesIn = (view: DataView, kind: Kind): number => view.byteLength / SIZES[kind];

/** Lane by lane. */
const laneModel =
  (kind: Kind, model: (a: Any, b: Any) => Any) =>
  (a: DataView, b: DataView, result: DataView): void => {
    for (let i = 0; i < lanesIn(a, kind); i++) set(result, kind, i, model(get(a, kind, i), get(b, kind, i)));
  };
const clamp =
  (low: number, high: number) =>
  (value: number): number =>
    Math.max(low, Math.min(high, value));
const [toS8, toS16, toU8, toU16] = [clamp(-128, 127), clamp(-32768, 32767), clamp(0, 255), clamp(0, 65535)];

describe('definitions', () => {
  it('of every form build into a module that validates', () => {
    expect(forms.length).toBeGreaterThan(600);
  });

  it('give the same with an immediate known when code is made and one known when it runs', () => {
    const constants = Array.from({ length: 24 }, (_, i) => (i < 16 ? i * 17 : random() & 255));
    const fixed = forms.filter(hasImmediate).flatMap((form) => constants.map((constant) => ({ ...form, constant, of: form })));
    const compiled = new Machine(fixed);
    for (const form of fixed) {
      for (let i = 0; i < 3; i++) {
        randomize(machine);
        compiled.bytes.set(machine.bytes);
        machine.run(form.of, form.constant);
        compiled.run(form, form.constant);
        expect(Buffer.compare(compiled.bytes, machine.bytes), `${form.name} ${form.constant}`).toBe(0);
      }
    }
  });
});

describe('packed integers', () => {
  const same = (value: Any): number => (value ? -1 : 0);
  const highWord = (product: number): number => Math.floor(product / 65536);
  const table: [string, Kind, (a: Any, b: Any) => Any][] = [
    ['PADDB', 'Int8', (a, b) => a + b], ['PADDW', 'Int16', (a, b) => a + b], ['PADDD', 'Int32', (a, b) => a + b],
    ['PADDQ', 'BigInt64', (a, b) => a + b],
    ['PSUBB', 'Int8', (a, b) => a - b], ['PSUBW', 'Int16', (a, b) => a - b], ['PSUBD', 'Int32', (a, b) => a - b],
    ['PSUBQ', 'BigInt64', (a, b) => a - b],
    ['PADDSB', 'Int8', (a, b) => toS8(a + b)], ['PADDSW', 'Int16', (a, b) => toS16(a + b)],
    ['PADDUSB', 'Uint8', (a, b) => toU8(a + b)],
    ['PADDUSW', 'Uint16', (a, b) => toU16(a + b)], ['PSUBSB', 'Int8', (a, b) => toS8(a - b)],
    ['PSUBSW', 'Int16', (a, b) => toS16(a - b)],
    ['PSUBUSB', 'Uint8', (a, b) => toU8(a - b)], ['PSUBUSW', 'Uint16', (a, b) => toU16(a - b)],
    ['PAVGB', 'Uint8', (a, b) => (a + b + 1) >> 1], ['PAVGW', 'Uint16', (a, b) => (a + b + 1) >> 1],
    ['PMINUB', 'Uint8', Math.min], ['PMAXUB', 'Uint8', Math.max], ['PMINSW', 'Int16', Math.min], ['PMAXSW', 'Int16', Math.max],
    ['PMINSB', 'Int8', Math.min], ['PMAXSB', 'Int8', Math.max], ['PMINUW', 'Uint16', Math.min], ['PMAXUW', 'Uint16', Math.max],
    ['PMINSD', 'Int32', Math.min], ['PMAXSD', 'Int32', Math.max], ['PMINUD', 'Uint32', Math.min], ['PMAXUD', 'Uint32', Math.max],
    ['PCMPEQB', 'Int8', (a, b) => same(a === b)], ['PCMPEQW', 'Int16', (a, b) => same(a === b)],
    ['PCMPEQD', 'Int32', (a, b) => same(a === b)],
    ['PCMPEQQ', 'BigInt64', (a, b) => BigInt(same(a === b))], ['PCMPGTB', 'Int8', (a, b) => same(a > b)],
    ['PCMPGTW', 'Int16', (a, b) => same(a > b)],
    ['PCMPGTD', 'Int32', (a, b) => same(a > b)], ['PCMPGTQ', 'BigInt64', (a, b) => BigInt(same(a > b))],
    ['PAND', 'Int32', (a, b) => a & b], ['PANDN', 'Int32', (a, b) => ~a & b], ['POR', 'Int32', (a, b) => a | b],
    ['PXOR', 'Int32', (a, b) => a ^ b],
    ['PMULLW', 'Int16', (a, b) => a * b], ['PMULHW', 'Int16', (a, b) => highWord(a * b)],
    ['PMULHUW', 'Uint16', (a, b) => highWord(a * b)],
    ['PMULLD', 'Int32', (a, b) => Math.imul(a, b)], ['PMULHRSW', 'Int16', (a, b) => (((a * b) >> 14) + 1) >> 1],
    ['PSIGNB', 'Int8', (a, b) => a * Math.sign(b)], ['PSIGNW', 'Int16', (a, b) => a * Math.sign(b)],
    ['PSIGND', 'Int32', (a, b) => a * Math.sign(b)],
    ['PABSB', 'Int8', (_, b) => Math.abs(b)], ['PABSW', 'Int16', (_, b) => Math.abs(b)],
    ['PABSD', 'Int32', (_, b) => Math.abs(b)],
  ]; // biome-ignore format: a table
  it.each(table)('%s works lane by lane in MMX and XMM registers', (mnemonic, kind, model) => {
    compareVectors(mnemonic, laneModel(kind, model));
  });

  it('multiplies pairs into wider lanes', () => {
    compareVectors('PMADDWD', (a, b, r) => {
      const product = (i: number): number => get(a, 'Int16', i) * get(b, 'Int16', i);
      for (let i = 0; i < lanesIn(a, 'Int32'); i++) set(r, 'Int32', i, product(2 * i) + product(2 * i + 1));
    });
    compareVectors('PMADDUBSW', (a, b, r) => {
      const product = (i: number): number => get(a, 'Uint8', i) * get(b, 'Int8', i);
      for (let i = 0; i < lanesIn(a, 'Int16'); i++) set(r, 'Int16', i, toS16(product(2 * i) + product(2 * i + 1)));
    });
    compareVectors('PMULUDQ', (a, b, r) => {
      for (let i = 0; i < lanesIn(a, 'BigInt64'); i++)
        set(r, 'BigUint64', i, BigInt(get(a, 'Uint32', 2 * i)) * BigInt(get(b, 'Uint32', 2 * i)));
    });
    compareVectors('PMULDQ', (a, b, r) => {
      for (let i = 0; i < 2; i++) set(r, 'BigInt64', i, BigInt(get(a, 'Int32', 2 * i)) * BigInt(get(b, 'Int32', 2 * i)));
    });
  });

  it('sums distances of bytes', () => {
    compareVectors('PSADBW', (a, b, r) => {
      for (let i = 0; i < lanesIn(a, 'BigInt64'); i++) {
        let sum = 0;
        for (let k = 0; k < 8; k++) sum += Math.abs(get(a, 'Uint8', 8 * i + k) - get(b, 'Uint8', 8 * i + k));
        set(r, 'BigUint64', i, BigInt(sum));
      }
    });
    compareVectors('MPSADBW', (a, b, r, immediate) => {
      for (let i = 0; i < 8; i++) {
        let sum = 0;
        for (let k = 0; k < 4; k++)
          sum += Math.abs(get(a, 'Uint8', (immediate & 4) + i + k) - get(b, 'Uint8', 4 * (immediate & 3) + k));
        set(r, 'Uint16', i, sum);
      }
    });
  });

  it('PHMINPOSUW finds the first smallest word', () => {
    compareVectors('PHMINPOSUW', (_, b, r) => {
      const words = Array.from({ length: 8 }, (_unused, i) => get(b, 'Uint16', i));
      const smallest = Math.min(...words);
      set(r, 'BigUint64', 0, BigInt(smallest + words.indexOf(smallest) * 65536));
      set(r, 'BigUint64', 1, 0n);
    });
  });

  it.each([
    ['PHADDW', 'Int16', 1, (v: number) => v], ['PHADDD', 'Int32', 1, (v: number) => v], ['PHADDSW', 'Int16', 1, toS16],
    ['PHSUBW', 'Int16', -1, (v: number) => v], ['PHSUBD', 'Int32', -1, (v: number) => v], ['PHSUBSW', 'Int16', -1, toS16],
  ] as const)('%s combines neighbours', (mnemonic, kind, sign, limit) => {
    compareVectors(mnemonic, (a, b, r) => {
      const lanes = lanesIn(a, kind);
      for (let i = 0; i < lanes; i++) {
        const [from, at] = 2 * i < lanes ? [a, 2 * i] : [b, 2 * i - lanes];
        set(r, kind, i, limit(get(from, kind, at) + sign * get(from, kind, at + 1)));
      }
    });
  }); // biome-ignore format: a table

  it.each([
    ['PACKSSWB', 'Int16', 'Int8', toS8], ['PACKSSDW', 'Int32', 'Int16', toS16], ['PACKUSWB', 'Int16', 'Uint8', toU8],
    ['PACKUSDW', 'Int32', 'Uint16', toU16],
  ] as const)('%s narrows with saturation, the destination first', (mnemonic, from, to, limit) => {
    compareVectors(mnemonic, (a, b, r) => {
      const lanes = lanesIn(a, from);
      for (let i = 0; i < 2 * lanes; i++) set(r, to, i, limit(i < lanes ? get(a, from, i) : get(b, from, i - lanes)));
    });
  }); // biome-ignore format: a table

  it.each([
    ['BW', 'Uint8'],
    ['WD', 'Uint16'],
    ['DQ', 'Uint32'],
    ['QDQ', 'BigUint64'],
  ] as const)('PUNPCKL%s and PUNPCKH interleave', (suffix, kind) => {
    for (const high of [0, 1]) {
      compareVectors(`PUNPCK${'LH'[high]}${suffix}`, (a, b, r) => {
        const lanes = lanesIn(a, kind);
        for (let i = 0; i < lanes; i++) set(r, kind, i, get(i & 1 ? b : a, kind, (i >> 1) + (high * lanes) / 2));
      });
    }
  });

  it.each([
    ['PSRLW', 'Uint16', 16], ['PSRLD', 'Uint32', 32], ['PSRLQ', 'BigUint64', 64], ['PSRAW', 'Int16', 16], ['PSRAD', 'Int32', 32],
    ['PSLLW', 'Uint16', 16], ['PSLLD', 'Uint32', 32], ['PSLLQ', 'BigUint64', 64],
  ] as const)('%s shifts by any count, those past the width too', (mnemonic, kind, width) => {
    for (const form of formsOf(mnemonic)) {
      const byImmediate = hasImmediate(form);
      const mmx = 'PN'.includes(form.encoding.operands[0].code);
      const place = (byImmediate ? SOURCE : DESTINATION)[mmx ? 'mmx' : 'xmm'];
      const countPlace = form.rm === 'memory' ? MEMORY_OPERAND : SOURCE[mmx ? 'mmx' : 'xmm'];
      const counts = [0n, 1n, 7n, 15n, 16n, 31n, 32n, 63n, 64n, 65n, 128n, 255n];
      for (const count of byImmediate ? counts : [...counts, 1n << 32n, 1n << 63n]) {
        randomize(machine);
        const before = new DataView(machine.bytes.slice(place, place + (mmx ? 8 : 16)).buffer);
        if (!byImmediate) machine.view.setBigUint64(countPlace, count, true);
        machine.run(form, Number(count & 255n));
        for (let i = 0; i < lanesIn(before, kind); i++) {
          const value = BigInt(get(before, kind, i));
          const by = count > BigInt(width) ? BigInt(width) : count;
          const shifted = mnemonic.startsWith('PSLL') ? value << by : value >> by;
          const after = BigInt(get(new DataView(machine.memory.buffer, place, 16), kind, i));
          expect(BigInt.asUintN(width, after), `${form.name} by ${count}`).toBe(BigInt.asUintN(width, shifted));
        }
      }
    }
  }); // biome-ignore format: a table

  it('shuffles by immediates and by control bytes', () => {
    const byFields =
      (kind: Kind, first: number, lanes: number) =>
      (_: DataView, b: DataView, r: DataView, immediate: number): void => {
        for (let i = 0; i < lanesIn(b, kind); i++) {
          const moves = i >= first && i < first + lanes;
          set(r, kind, i, get(b, kind, moves ? first + ((immediate >> (2 * (i - first))) & 3) : i));
        }
      };
    compareVectors('PSHUFD', byFields('Uint32', 0, 4));
    compareVectors('PSHUFLW', byFields('Uint16', 0, 4));
    compareVectors('PSHUFHW', byFields('Uint16', 4, 4));
    compareVectors('PSHUFW', byFields('Uint16', 0, 4));
    compareVectors('SHUFPS', (a, b, r, immediate) => {
      for (let i = 0; i < 4; i++) set(r, 'Uint32', i, get(i < 2 ? a : b, 'Uint32', (immediate >> (2 * i)) & 3));
    });
    compareVectors('SHUFPD', (a, b, r, immediate) => {
      for (let i = 0; i < 2; i++) set(r, 'BigUint64', i, get(i ? b : a, 'BigUint64', (immediate >> i) & 1));
    });
    compareVectors('PSHUFB', (a, b, r) => {
      for (let i = 0; i < b.byteLength; i++) {
        const control = get(b, 'Uint8', i);
        set(r, 'Uint8', i, control & 0x80 ? 0 : get(a, 'Uint8', control & (b.byteLength - 1)));
      }
    });
    compareVectors('PALIGNR', (a, b, r, immediate) => {
      const size = a.byteLength;
      for (let i = 0; i < size; i++) {
        const at = i + immediate;
        set(r, 'Uint8', i, at < size ? get(b, 'Uint8', at) : at < 2 * size ? get(a, 'Uint8', at - size) : 0);
      }
    });
    for (const [mnemonic, direction] of [
      ['PSRLDQ', 1],
      ['PSLLDQ', -1],
    ] as const) {
      for (const immediate of [0, 1, 7, 8, 15, 16, 17, 128, 240, 255]) {
        randomize(machine);
        const before = machine.bytes.slice(SOURCE.xmm, SOURCE.xmm + 16);
        machine.run(formsOf(mnemonic)[0], immediate);
        const after = machine.bytes.slice(SOURCE.xmm, SOURCE.xmm + 16);
        expect(after, `${mnemonic} ${immediate}`).toEqual(before.map((_, i) => before[i + direction * immediate] ?? 0));
      }
    }
  });

  it('blends by immediate bits and by the signs in XMM0', () => {
    for (const [mnemonic, kind] of [
      ['BLENDPS', 'Uint32'],
      ['BLENDPD', 'BigUint64'],
      ['PBLENDW', 'Uint16'],
    ] as const) {
      compareVectors(mnemonic, (a, b, r, immediate) => {
        for (let i = 0; i < lanesIn(a, kind); i++) set(r, kind, i, get((immediate >> i) & 1 ? b : a, kind, i));
      });
    }
    for (const [mnemonic, kind, signed] of [
      ['BLENDVPS', 'Uint32', 'Int32'],
      ['BLENDVPD', 'BigUint64', 'BigInt64'],
      ['PBLENDVB', 'Uint8', 'Int8'],
    ] as const) {
      compareVectors(mnemonic, (a, b, r) => {
        const mask = new DataView(machine.memory.buffer, state.XMM, 16);
        for (let i = 0; i < lanesIn(a, kind); i++) set(r, kind, i, get(get(mask, signed, i) < 0 ? b : a, kind, i));
      });
    }
  });

  it.each([
    ['BW', 'Int8', 'Int16'], ['BD', 'Int8', 'Int32'], ['BQ', 'Int8', 'BigInt64'], ['WD', 'Int16', 'Int32'],
    ['WQ', 'Int16', 'BigInt64'], ['DQ', 'Int32', 'BigInt64'],
  ] as const)('PMOVSX%s and PMOVZX widen the low lanes', (suffix, from, to) => {
    const widen = (kind: Kind) => (_: DataView, b: DataView, r: DataView): void => {
      for (let i = 0; i < lanesIn(r, to); i++) set(r, to, i, to === 'BigInt64' ? BigInt(get(b, kind, i)) : get(b, kind, i));
    };
    compareVectors(`PMOVSX${suffix}`, widen(from));
    compareVectors(`PMOVZX${suffix}`, widen(`U${from.toLowerCase()}` as Kind));
  }); // biome-ignore format: a table

  it('PTEST sets ZF and CF by common and missing bits', () => {
    for (const form of formsOf('PTEST')) {
      for (const [a, b, flags] of [
        [0n, 0n, 0x41],
        [1n, 2n, 0x40],
        [3n, 2n, 1],
        [6n, 3n, 0],
      ] as const) {
        machine.bytes.fill(0, state.XMM, state.XMM + 64);
        machine.bytes.fill(0, MEMORY_OPERAND, MEMORY_OPERAND + 16);
        machine.view.setBigUint64(DESTINATION.xmm + 8, a, true);
        machine.view.setBigUint64((form.rm === 'memory' ? MEMORY_OPERAND : SOURCE.xmm) + 8, b, true);
        machine.run(form);
        expect(machine.flags()).toBe(flags);
      }
    }
  });
});

describe('moves', () => {
  const DEST = DESTINATION.xmm;
  const low = (offset: number): bigint => machine.view.getBigUint64(offset, true);

  it('MOVSS and MOVSD merge between registers and clear from memory', () => {
    for (const [mnemonic, mask] of [
      ['MOVSS', 0xffff_ffffn],
      ['MOVSD', (1n << 64n) - 1n],
    ] as const) {
      for (const form of formsOf(mnemonic).filter((f) => f.encoding.opcode === 0x10)) {
        randomize(machine);
        const [before, high] = [low(DEST), low(DEST + 8)];
        const source = low(form.rm === 'memory' ? MEMORY_OPERAND : SOURCE.xmm);
        machine.run(form);
        expect(low(DEST)).toBe(form.rm === 'memory' ? source & mask : (source & mask) | (before & ~mask));
        expect(low(DEST + 8)).toBe(form.rm === 'memory' ? 0n : high);
      }
    }
  });

  it('MOVD and MOVQ clear what is above', () => {
    for (const form of [...formsOf('MOVD'), ...formsOf('MOVQ')].filter((f) => f.encoding.operands[0].code === 'V')) {
      randomize(machine);
      const source = low(
        form.rm === 'memory' ? MEMORY_OPERAND : form.encoding.operands[1].code === 'W' ? SOURCE.xmm : SOURCE.general,
      );
      machine.run(form);
      expect([low(DEST), low(DEST + 8)], form.name).toEqual([
        form.instruction.mnemonic === 'MOVD' ? source & 0xffff_ffffn : source,
        0n,
      ]);
    }
  });

  it('MASKMOVDQU stores the bytes whose mask byte is negative, and no others', () => {
    for (let round = 0; round < ROUNDS; round++) {
      randomize(machine);
      const [data, mask, before] = [DEST, SOURCE.xmm, MEMORY_OPERAND].map((offset) => machine.bytes.slice(offset, offset + 16));
      machine.run(formsOf('MASKMOVDQU')[0]);
      const expected = before.map((byte, i) => (mask[i] & 0x80 ? data[i] : byte));
      expect(machine.bytes.slice(MEMORY_OPERAND, MEMORY_OPERAND + 16)).toEqual(expected);
    }
  });

  it('inserts and extracts the lane that the immediate names', () => {
    for (const [suffix, kind, lanes] of [
      ['B', 'Uint8', 16],
      ['W', 'Uint16', 8],
      ['D', 'Uint32', 4],
      ['Q', 'BigUint64', 2],
    ] as const) {
      for (const form of formsOf(`PINSR${suffix}`).filter((f) => f.encoding.operands[0].code === 'V')) {
        for (let immediate = 0; immediate < 32; immediate++) {
          randomize(machine);
          const expected = new DataView(machine.bytes.slice(DEST, DEST + 16).buffer);
          const source = form.rm === 'memory' ? MEMORY_OPERAND : SOURCE.general;
          set(expected, kind, immediate % lanes, get(new DataView(machine.memory.buffer, source, 8), kind, 0));
          machine.run(form, immediate);
          expect(machine.bytes.slice(DEST, DEST + 16), form.name).toEqual(new Uint8Array(expected.buffer));
        }
      }
      for (const form of formsOf(`PEXTR${suffix}`).filter((f) => f.encoding.map === 3)) {
        for (let immediate = 0; immediate < 32; immediate++) {
          randomize(machine);
          const before = low(MEMORY_OPERAND);
          const value = BigInt(get(new DataView(machine.memory.buffer, DEST, 16), kind, immediate % lanes));
          const bits = BigInt(SIZES[kind] * 8);
          machine.run(form, immediate);
          if (form.rm === 'register') expect(low(SOURCE.general), form.name).toBe(value);
          else expect(low(MEMORY_OPERAND), form.name).toBe(((before >> bits) << bits) | value);
        }
      }
    }
  });

  it('LDMXCSR refuses reserved bits', () => {
    const [form] = formsOf('LDMXCSR');
    machine.view.setUint32(MEMORY_OPERAND, 0x10000, true);
    expect(() => machine.run(form)).toThrow('exception 13');
    machine.view.setUint32(MEMORY_OPERAND, 0x1f80, true);
    machine.run(form);
  });

  it('EMMS empties the x87 registers', () => {
    machine.view.setUint32(state.FTW, 0x55, true);
    machine.view.setUint32(state.FSW, 0x7a41, true);
    machine.run(formsOf('EMMS')[0]);
    expect(machine.view.getUint32(state.FTW, true)).toBe(0);
    // The top of the stack is register 0, the rest of the status stays.
    expect(machine.view.getUint32(state.FSW, true)).toBe(0x4241);
  });
});

describe('floating point', () => {
  /** SDM 1 table 4-7: the first NaN, quiet, else the indefinite value. Works on bits, as JavaScript may change NaNs. */
  const formats = [
    ['S', 'Float32', 'Uint32', 0x0040_0000n, 0xffc0_0000n, 4],
    ['D', 'Float64', 'BigUint64', 1n << 51n, 0xfff8n << 48n, 8],
  ] as const;
  const finish = (
    f: (typeof formats)[number],
    a: DataView,
    ai: number,
    b: DataView,
    bi: number,
    r: DataView,
    i: number,
    value: number,
  ): void => {
    const [, float, integer, quiet, indefinite] = f;
    const bits = (v: bigint): Any => (integer === 'Uint32' ? Number(v) : v);
    if (Number.isNaN(get(a, float, ai))) set(r, integer, i, bits(BigInt(get(a, integer, ai)) | quiet));
    else if (Number.isNaN(get(b, float, bi))) set(r, integer, i, bits(BigInt(get(b, integer, bi)) | quiet));
    else if (Number.isNaN(value)) set(r, integer, i, bits(indefinite));
    else set(r, float, i, value);
  };
  const operations: [string, (a: number, b: number) => number][] = [
    ['ADD', (a, b) => a + b],
    ['SUB', (a, b) => a - b],
    ['MUL', (a, b) => a * b],
    ['DIV', (a, b) => a / b],
    ['SQRT', (_, b) => Math.sqrt(b)],
  ];
  it.each(operations)('%s rounds to nearest and keeps the first NaN', (name, operation) => {
    for (const format of formats) {
      const one = (a: DataView, b: DataView, r: DataView, i: number): void => {
        const first = name === 'SQRT' ? b : a;
        finish(format, first, i, b, i, r, i, operation(get(a, format[1], i), get(b, format[1], i)));
      };
      compareVectors(`${name}P${format[0]}`, (a, b, r) => {
        for (let i = 0; i < 16 / format[5]; i++) one(a, b, r, i);
      });
      compareVectors(`${name}S${format[0]}`, (a, b, r) => one(a, b, r, 0));
    }
  });

  it('HADD, HSUB and ADDSUB combine the right elements', () => {
    for (const format of formats) {
      const lanes = 16 / format[5];
      for (const [name, sign] of [
        ['HADD', 1],
        ['HSUB', -1],
      ] as const) {
        compareVectors(`${name}P${format[0]}`, (a, b, r) => {
          for (let i = 0; i < lanes; i++) {
            const [from, at] = 2 * i < lanes ? [a, 2 * i] : [b, 2 * i - lanes];
            finish(format, from, at, from, at + 1, r, i, get(from, format[1], at) + sign * get(from, format[1], at + 1));
          }
        });
      }
      compareVectors(`ADDSUBP${format[0]}`, (a, b, r) => {
        for (let i = 0; i < lanes; i++)
          finish(format, a, i, b, i, r, i, get(a, format[1], i) + (i & 1 ? 1 : -1) * get(b, format[1], i));
      });
    }
  });

  it('MIN and MAX give the second operand for NaNs and for zeros of either sign', () => {
    for (const [suffix, float, integer] of formats) {
      for (const [name, first] of [
        ['MIN', (a: number, b: number) => a < b],
        ['MAX', (a: number, b: number) => a > b],
      ] as const) {
        const one = (a: DataView, b: DataView, r: DataView, i: number): void => {
          set(r, integer, i, get(first(get(a, float, i), get(b, float, i)) ? a : b, integer, i));
        };
        compareVectors(`${name}P${suffix}`, (a, b, r) => {
          for (let i = 0; i < lanesIn(a, float); i++) one(a, b, r, i);
        });
        compareVectors(`${name}S${suffix}`, (a, b, r) => one(a, b, r, 0));
      }
    }
  });

  it('CMP knows eight predicates', () => {
    const holds = (a: number, b: number, predicate: number): boolean => {
      const base = [a === b, a < b, a <= b, Number.isNaN(a) || Number.isNaN(b)][predicate & 3];
      return base !== ((predicate & 4) !== 0);
    };
    for (const [suffix, float, integer] of formats) {
      const one = (a: DataView, b: DataView, r: DataView, i: number, immediate: number): void => {
        const mask = holds(get(a, float, i), get(b, float, i), immediate & 7);
        set(r, integer, i, integer === 'Uint32' ? -Number(mask) : -BigInt(mask));
      };
      compareVectors(`CMPP${suffix}`, (a, b, r, immediate) => {
        for (let i = 0; i < lanesIn(a, float); i++) one(a, b, r, i, immediate);
      });
      compareVectors(`CMPS${suffix}`, (a, b, r, immediate) => one(a, b, r, 0, immediate));
    }
  });

  it.each(['COMISS', 'UCOMISS', 'COMISD', 'UCOMISD'])('%s sets ZF, PF and CF, and clears the others', (mnemonic) => {
    const float = mnemonic.endsWith('SS') ? 'Float32' : 'Float64';
    for (const form of formsOf(mnemonic)) {
      for (const [a, b, flags] of [
        [1, 2, 1],
        [2, 1, 0],
        [0, -0, 0x40],
        [NaN, 1, 0x45],
        [1, NaN, 0x45],
        [-Infinity, Infinity, 1],
      ] as const) {
        randomize(machine);
        set(new DataView(machine.memory.buffer, DESTINATION.xmm), float, 0, a);
        set(new DataView(machine.memory.buffer, form.rm === 'memory' ? MEMORY_OPERAND : SOURCE.xmm), float, 0, b);
        machine.run(form);
        expect(machine.flags(), `${a} ${b}`).toBe(flags);
      }
    }
  });

  it('RCP and RSQRT stay within 1.5 × 2^-12, take denormals as zero and flush tiny results', () => {
    for (const [mnemonic, exact] of [
      ['RCPPS', (v: number) => 1 / v],
      ['RSQRTPS', (v: number) => 1 / Math.sqrt(v)],
    ] as const) {
      const [form] = formsOf(mnemonic);
      const view = new DataView(machine.memory.buffer);
      for (let round = 0; round < ROUNDS * 4; round++) {
        randomize(machine);
        const value = view.getFloat32(SOURCE.xmm, true);
        machine.run(form);
        const result = view.getFloat32(DESTINATION.xmm, true);
        const expected = exact(Math.abs(value) < 2 ** -126 ? 0 * Math.sign(value) * (Object.is(value, -0) ? -1 : 1) : value);
        if (Number.isNaN(expected)) expect(result).toBeNaN();
        else if (mnemonic === 'RCPPS' && Math.abs(value) >= 2 ** 126) expect(Math.abs(result)).toBe(0);
        else if (!Number.isFinite(expected)) expect(Math.abs(result)).toBe(Infinity);
        else expect(Math.abs(result / expected - 1)).toBeLessThan(1.5 / 4096);
      }
    }
  });

  it.each([
    ['RCPPS', 1, (v: number) => v],
    ['RSQRTPS', 1.5, Math.sqrt],
  ] as const)('%s is within %d × 2^-24 for every mantissa', (mnemonic, bound, root) => {
    const [form] = formsOf(mnemonic);
    const input = new Int32Array(4);
    const source = new Uint8Array(input.buffer);
    const { memory } = machine;
    const [sources, results] = [new Uint8Array(memory.buffer, SOURCE.xmm, 16), new Float32Array(memory.buffer, DESTINATION.xmm, 4)];
    const values = new Float32Array(input.buffer);
    let worst = 0;
    // 0.5 to 2: an even and an odd exponent.
    for (let bits = 0x3f00_0000; bits < 0x4000_0000; bits += 4) {
      for (let i = 0; i < 4; i++) input[i] = bits + i;
      sources.set(source);
      machine.run(form);
      for (let i = 0; i < 4; i++) worst = Math.max(worst, Math.abs(results[i] * root(values[i]) - 1));
    }
    expect(worst).toBeLessThanOrEqual(bound * 2 ** -24);
    expect(worst).toBeGreaterThan(0.9 * bound * 2 ** -24);
  });

  it('dot products take the chosen products and fill the chosen lanes', () => {
    for (let immediate = 0; immediate < 256; immediate++) {
      const values = [1, 2, 4, 8];
      for (let i = 0; i < 4; i++) {
        machine.view.setFloat32(DESTINATION.xmm + 4 * i, values[i], true);
        machine.view.setFloat32(SOURCE.xmm + 4 * i, 10, true);
      }
      machine.run(formsOf('DPPS')[0], immediate);
      for (let i = 0; i < 4; i++)
        expect(machine.view.getFloat32(DESTINATION.xmm + 4 * i, true)).toBe((immediate >> i) & 1 ? 10 * (immediate >> 4) : 0);
    }
  });
});

describe('conversions', () => {
  const nearest = (v: number): number => {
    const down = Math.floor(v);
    return v - down > 0.5 || (v - down === 0.5 && down % 2 !== 0) ? down + 1 : down;
  };
  const rounders = [nearest, Math.floor, Math.ceil, Math.trunc];
  const source = (form: Form): number =>
    form.rm === 'memory' ? MEMORY_OPERAND : form.encoding.operands[1].code === 'E' ? SOURCE.general : SOURCE.xmm;
  const eachMode = (body: (mode: number) => void): void => {
    for (const mode of [0, 1, 2, 3]) {
      machine.view.setUint32(state.MXCSR, 0x1f80 | (mode << 13), true);
      body(mode);
    }
    machine.view.setUint32(state.MXCSR, 0x1f80, true);
  };
  const VALUES = [
    0, -0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, 1e9, 2147483647, 2147483647.5, 2147483648, -2147483648, -2147483648.5,
    -2147483649,
    2 ** 63 - 1024, 2 ** 63, -(2 ** 63), 1e30, -1e30, Infinity, -Infinity, NaN,
    2 ** 51 + 0.5, 1e-320,
  ]; // biome-ignore format: a table

  it.each(['CVTSS2SI', 'CVTTSS2SI', 'CVTSD2SI', 'CVTTSD2SI'])(
    '%s rounds by MXCSR or truncates, and gives the indefinite integer',
    (mnemonic) => {
      const float = mnemonic.includes('SS') ? 'Float32' : 'Float64';
      eachMode((mode) => {
        for (const form of formsOf(mnemonic)) {
          const bits = form.wide ? 64 : 32;
          for (const chosen of VALUES) {
            set(new DataView(machine.memory.buffer, source(form)), float, 0, chosen);
            const value = get(new DataView(machine.memory.buffer, source(form)), float, 0);
            machine.run(form);
            const rounded = (mnemonic.startsWith('CVTT') ? Math.trunc : rounders[mode])(value);
            const fits = rounded >= -(2 ** (bits - 1)) && rounded < 2 ** (bits - 1);
            const expected = BigInt.asUintN(bits, fits ? BigInt(rounded) : 1n << BigInt(bits - 1));
            expect(machine.view.getBigUint64(DESTINATION.general, true), `${form.name} ${value} mode ${mode}`).toBe(expected);
          }
        }
      });
    },
  );

  it('packed conversions to integers agree with the scalar rule', () => {
    for (const [mnemonic, float, lanes] of [
      ['CVTPS2DQ', 'Float32', 4],
      ['CVTTPS2DQ', 'Float32', 4],
      ['CVTPD2DQ', 'Float64', 2],
      ['CVTTPD2DQ', 'Float64', 2],
    ] as const) {
      eachMode((mode) => {
        for (const form of formsOf(mnemonic)) {
          for (let first = 0; first + lanes <= VALUES.length; first++) {
            const view = new DataView(machine.memory.buffer, source(form));
            for (let i = 0; i < lanes; i++) set(view, float, i, VALUES[first + i]);
            const values = Array.from({ length: lanes }, (_, i) => get(view, float, i));
            machine.run(form);
            for (let i = 0; i < 4; i++) {
              const rounded = i < lanes ? (mnemonic.startsWith('CVTT') ? Math.trunc : rounders[mode])(values[i]) : 0;
              const fits = rounded >= -(2 ** 31) && rounded < 2 ** 31;
              expect(machine.view.getInt32(DESTINATION.xmm + 4 * i, true), `${form.name} ${values[i]} mode ${mode}`).toBe(
                fits ? rounded | 0 : -(2 ** 31),
              );
            }
          }
        }
      });
    }
  });

  /** The neighbours of a float of the given format. */
  const neighbour = (float: 'Float32' | 'Float64', value: number, up: boolean): number => {
    const view = new DataView(new ArrayBuffer(8));
    if (value === 0) return (up ? 1 : -1) * (float === 'Float32' ? 2 ** -149 : 2 ** -1074);
    set(view, float, 0, value);
    const integer = float === 'Float32' ? 'Uint32' : 'BigUint64';
    const step = value > 0 === up ? 1 : -1;
    set(view, integer, 0, float === 'Float32' ? get(view, integer, 0) + step : get(view, integer, 0) + BigInt(step));
    return get(view, float, 0);
  };
  /** Checks a directed rounding of a value, given as something that compares exactly with floats. */
  const checkRounding = (float: 'Float32' | 'Float64', exact: number | bigint, result: number, mode: number): void => {
    if (Math.abs(result) === Infinity) {
      expect(mode === 0 || (mode === 2 ? result > 0 : mode === 1 && result < 0)).toBe(true);
      return;
    }
    // `==` and `<` between bigints and numbers are exact.
    // biome-ignore lint/suspicious/noDoubleEquals: see above
    if (exact == result) return;
    const below = result < exact;
    const towardsZero = below === exact > 0;
    if (mode === 1) expect(below).toBe(true);
    if (mode === 2) expect(below).toBe(false);
    if (mode === 3) expect(towardsZero).toBe(true);
    if (mode !== 0) expect(neighbour(float, result, below) > exact, `${exact} ${result} mode ${mode}`).toBe(below);
  };

  it('conversions to floating point round by MXCSR', () => {
    const view = new DataView(machine.memory.buffer);
    eachMode((mode) => {
      for (let round = 0; round < 200; round++) {
        randomize(machine);
        for (const [mnemonic, float] of [
          ['CVTSI2SS', 'Float32'],
          ['CVTSI2SD', 'Float64'],
        ] as const) {
          for (const form of formsOf(mnemonic)) {
            const integer = form.wide ? view.getBigInt64(source(form), true) : BigInt(view.getInt32(source(form), true));
            machine.run(form);
            const result = get(new DataView(machine.memory.buffer, DESTINATION.xmm), float, 0);
            if (mode === 0)
              expect(result).toBe(
                float === 'Float32' && integer === BigInt(Number(integer))
                  ? Math.fround(Number(integer))
                  : float === 'Float64'
                    ? Number(integer)
                    : result,
              );
            checkRounding(float, integer, result, mode);
          }
        }
        for (const form of formsOf('CVTSD2SS')) {
          const value = view.getFloat64(source(form), true);
          machine.run(form);
          const result = view.getFloat32(DESTINATION.xmm, true);
          if (Number.isNaN(value)) expect(result).toBeNaN();
          else if (mode === 0) expect(result).toBe(Math.fround(value));
          else if (Number.isFinite(value)) checkRounding('Float32', value, result, mode);
        }
        for (const form of formsOf('CVTDQ2PS')) {
          const integers = [0, 1, 2, 3].map((i) => view.getInt32(source(form) + 4 * i, true));
          machine.run(form);
          for (const [i, integer] of integers.entries())
            checkRounding('Float32', integer, view.getFloat32(DESTINATION.xmm + 4 * i, true), mode);
        }
      }
    });
  });

  it('ROUND uses the immediate, or MXCSR where bit 2 says so', () => {
    eachMode((mode) => {
      for (const immediate of [0, 1, 2, 3, 4, 7, 12]) {
        for (const value of VALUES.filter((v) => !Number.isNaN(v))) {
          machine.view.setFloat64(SOURCE.xmm, value, true);
          machine.run(formsOf('ROUNDSD').find((f) => f.rm === 'register') as Form, immediate);
          const rounded = rounders[immediate & 4 ? mode : immediate & 3](value);
          expect(machine.view.getFloat64(DESTINATION.xmm, true) + 0).toBe(rounded + 0);
        }
      }
    });
  });
});

describe('what generated code settles by itself', () => {
  const MNEMONIC =
    /^((ADD|SUB|MUL|DIV|SQRT|MIN|MAX|CMP|ADDSUB)[PS][SD]|U?COMIS[SD]|ROUND[PS][SD]|CVTT?S[SD]2SI|CVTT?P[SD]2DQ|CVT(DQ2PS|PD2PS|PS2PD|SS2SD|SD2SS|SI2S[SD]))$/;
  const WRITTEN: Record<string, number> = { ss: 4, sd: 8, ps: 16, pd: 16, dq: 16 };
  /** Precision not noted yet, noted, noted with DAZ or FTZ, other rounding, everything. */
  const CONTROLS = [0x1f80, 0x1fa0, 0x1fa0, 0x1fa0, 0x1fe0, 0x9fa0, 0x9fe0, 0x3fa0, 0x5f80, 0x7fa0, 0x1fbf];
  const SINGLES = [
    0, 0x8000_0000, 1, 0x007f_ffff, 0x0080_0000, 0x8080_0000, 0x0080_0001, 0x00ff_ffff, 0x0100_0000, 0x1f80_0001, 0x2000_0000, 0x3f80_0000,
    0xbf80_0000, 0x3f7f_ffff, 0x3f80_0001, 0x4000_0000, 0x3f00_0000, 0x4b00_0000, 0x4b80_0001, 0x4f00_0000, 0xcf00_0000, 0x4eff_ffff,
    0x7f7f_ffff, 0x7e80_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0001, 0x7f80_0001,
  ];
  const DOUBLES = [
    0n, 1n, 0xfffffffffffffn, 0x10000000000000n, 0x10000000000001n, 0x1fffffffffffffn, 0x20000000000000n, 0x1ff0000000000001n,
    0x2000000000000000n, 0x3810000000000000n, 0x380fffffe0000001n, 0x380fffffffffffffn, 0x3690000000000000n, 0x3ff0000000000000n,
    0x3fefffffffffffffn, 0x3ff0000000000001n, 0x4000000000000000n, 0x41e0000000000000n, 0x41dfffffffc00000n, 0x43e0000000000000n,
    0x4330000000000001n, 0x4340000000000000n, 0x47efffffe0000000n, 0x47effffff0000000n, 0x7fefffffffffffffn, 0x7fe0000000000000n,
    0x7ff0000000000000n, 0x7ff8000000000001n, 0x7ff0000000000001n,
  ];
  const sign = (bits: bigint): bigint => BigInt(random() & 1) << bits;
  const single = (): bigint => (random() % 3 ? BigInt(SINGLES[random() % SINGLES.length]) ^ sign(31n) : BigInt(random()));
  const small = (): bigint => BigInt(random() % 64);
  const double = (): bigint => {
    if (random() % 3 === 0) return random64();
    // Neighbours of what is special.
    return BigInt.asUintN(64, (DOUBLES[random() % DOUBLES.length] ^ sign(63n)) + (random() % 4 ? 0n : small() - 32n));
  };
  const encodeDouble = new DataView(new ArrayBuffer(8));
  const plain = (bits: number): bigint => {
    const value = ((random() % 2001) - 1000) * 2 ** ((random() % 9) - 4);
    if (bits === 64) encodeDouble.setFloat64(0, value);
    else encodeDouble.setFloat32(4, value);
    return bits === 64 ? encodeDouble.getBigUint64(0) : BigInt(encodeDouble.getUint32(4));
  };

  const list = forms.filter((form) => MNEMONIC.test(form.instruction.mnemonic) && form.rm === 'register');
  it.each(list.map((form) => [form.name, form] as const))('is what TypeScript makes of it: %s', (_, form) => {
    const [first, second] = form.encoding.operands;
    const { mnemonic } = form.instruction;
    const bits = /(PS|SS)$|^CVTT?[PS]S2/.test(mnemonic) && mnemonic !== 'CVTPD2PS' && mnemonic !== 'CVTSD2SS' ? 32 : 64;
    const memory = new DataView(new ArrayBuffer(2048));
    const unit = new SseUnit(memory.buffer);
    const source = second.code === 'E' ? SOURCE.general : SOURCE.xmm;
    const destination = first.code === 'G' ? DESTINATION.general : DESTINATION.xmm;
    // Which operation it is shows where it must ask: with NaNs, or an integer that does not fit.
    machine.bytes.fill(mnemonic === 'CVTDQ2PS' ? 0x7f : 0xff, state.XMM, state.XMM + 64);
    machine.bytes.fill(0x7f, SOURCE.general, SOURCE.general + 8);
    machine.view.setUint32(state.MXCSR, 0x1f80, true);
    machine.asked = -1;
    machine.run(form);
    const operation = machine.asked;
    // CVTSI2SD of 32 bits is always exact.
    if (operation < 0) return expect(form.name).toMatch(/^CVTSI2SD .*register\)$/);
    let settled = 0;
    const wrong: string[] = [];
    const hex = (view: DataView, at: number, count: number): string => Buffer.from(view.buffer, at, count).toString('hex');
    for (let i = 0; i < 2000; i++) {
      const mxcsr = CONTROLS[random() % CONTROLS.length];
      const kind = random() % 3;
      for (const at of [DESTINATION.xmm, DESTINATION.xmm + 8, SOURCE.xmm, SOURCE.xmm + 8]) {
        const draw = bits === 64 ? double : single;
        const lane = (): bigint => (kind === 0 || (kind === 1 && random() & 1) ? plain(bits) : draw());
        machine.view.setBigUint64(at, bits === 64 ? lane() : lane() | (lane() << 32n), true);
      }
      const integer = random64() >> (random() % 2 ? 0n : small());
      machine.view.setBigUint64(SOURCE.general, integer, true);
      const immediate = mnemonic.startsWith('CMP') ? random() & 7 : mnemonic.startsWith('ROUND') ? random() & 15 : 0;
      for (let at = 0; at < 16; at += 8) {
        memory.setBigUint64(state.ARGUMENT + at, machine.view.getBigUint64(DESTINATION.xmm + at, true), true);
        const value = machine.view.getBigUint64(source === SOURCE.general ? source : source + at, true);
        memory.setBigUint64(state.ARGUMENT + 16 + at, form.wide || source !== SOURCE.general ? value : BigInt.asUintN(64, BigInt.asIntN(32, value)), true);
      }
      const inputs = hex(memory, state.ARGUMENT, 32);
      memory.setUint32(state.MXCSR, mxcsr, true);
      machine.view.setUint32(state.MXCSR, mxcsr, true);
      unit.execute(0, operation, immediate);
      machine.asked = -1;
      machine.run(form, immediate);
      if (machine.asked < 0) settled++;
      const count = first.code === 'G' ? (form.wide ? 8 : 4) : WRITTEN[first.size];
      const same = /COMI/.test(mnemonic)
        ? (machine.flags() & 0x45) === [0x45, 0, 1, 0x40][memory.getUint32(state.ARGUMENT, true)]
        : hex(machine.view, destination, count) === hex(memory, state.ARGUMENT, count);
      const flags = memory.getUint32(state.MXCSR, true);
      if (same && machine.view.getUint32(state.MXCSR, true) === flags) continue;
      wrong.push(`mxcsr ${mxcsr.toString(16)} to ${flags.toString(16)}, ${inputs}, ${immediate}`);
    }
    expect(wrong).toEqual([]);
    expect(settled).toBeGreaterThan(40);
  });
});

describe('PCMPxSTRx', () => {
  /** Index, then the flags CF ZF SF OF. */
  const indexOf = (control: number, first: string, second: string): { index: number; flags: number } => {
    machine.bytes.fill(0, state.XMM, state.XMM + 64);
    for (let i = 0; i < Math.min(first.length, 16); i++) machine.view.setUint8(DESTINATION.xmm + i, first.charCodeAt(i));
    for (let i = 0; i < Math.min(second.length, 16); i++) machine.view.setUint8(SOURCE.xmm + i, second.charCodeAt(i));
    machine.run(formsOf('PCMPISTRI').find((f) => f.rm === 'register') as Form, control);
    return { index: Number(machine.view.getBigUint64(state.RCX, true)), flags: machine.flags() };
  };
  const [CF, ZF, SF, OF] = [1, 0x40, 0x80, 0x800];

  it('finds any of a set, ranges, the first difference and a needle', () => {
    expect(indexOf(0x00, 'xyz', 'lazy dogs')).toEqual({ index: 2, flags: CF | ZF | SF });
    expect(indexOf(0x00, 'q', 'lazy dogs and mo')).toEqual({ index: 16, flags: SF });
    expect(indexOf(0x04, 'AZ09', 'ab3X')).toEqual({ index: 2, flags: CF | ZF | SF });
    expect(indexOf(0x18, 'equal', 'equal')).toEqual({ index: 16, flags: ZF | SF });
    expect(indexOf(0x18, 'equal', 'equbl')).toEqual({ index: 3, flags: CF | ZF | SF });
    expect(indexOf(0x0c, 'do', 'lazy dogs')).toEqual({ index: 5, flags: CF | ZF | SF });
    expect(indexOf(0x0c, 'xo', 'abcdefghijklmnox')).toEqual({ index: 15, flags: CF | SF });
    expect(indexOf(0x0c, '', 'abc')).toEqual({ index: 0, flags: CF | ZF | SF | OF });
    expect(indexOf(0x40, 'a', 'banana')).toEqual({ index: 5, flags: CF | ZF | SF });
  });

  it('takes explicit lengths by magnitude and 64-bit ones with REX.W', () => {
    for (const form of formsOf('PCMPESTRI').filter((f) => f.rm === 'register')) {
      machine.bytes.fill(0x61, state.XMM, state.XMM + 64);
      machine.view.setBigInt64(state.RAX, 1n << 32n, true);
      machine.view.setBigInt64(state.RDX, -3n, true);
      machine.run(form, 0x40);
      // Without REX.W the first length is 0.
      expect(machine.view.getBigUint64(state.RCX, true)).toBe(form.wide ? 2n : 16n);
      expect(machine.flags()).toBe(form.wide ? CF | ZF | OF : ZF | SF);
    }
  });

  it('expands the mask to bytes or words', () => {
    const form = formsOf('PCMPISTRM').find((f) => f.rm === 'register') as Form;
    const mask = (control: number): string => {
      machine.bytes.fill(0, state.XMM, state.XMM + 64);
      machine.bytes.set([0x61, 0, 0x62], DESTINATION.xmm);
      machine.bytes.set([0x61, 0, 0x63, 0, 0x61, 0], SOURCE.xmm);
      machine.run(form, control);
      return Buffer.from(machine.bytes.slice(state.XMM, state.XMM + 16)).toString('hex');
    };
    expect(mask(0x01)).toBe(`05${'00'.repeat(15)}`);
    expect(mask(0x41)).toBe(`ffff0000ffff${'00'.repeat(10)}`);
    expect(mask(0x40)).toBe(`ff${'00'.repeat(15)}`);
  });
});
