/**
 * What is built runs as WebAssembly: every instruction of the table validates, and functions compute what they say. What does not fit
 * is an error where it is written, with the expression in text.
 */
import { describe, expect, it } from 'vitest';
import { apply, type Expression, f32, f64, i32, i64, select, v128 } from './expression.ts';
import type { FunctionBuilder, Signature } from './function-builder.ts';
import { ModuleBuilder } from './module-builder.ts';
import { operation, operations, type ValueType } from './opcodes.ts';

const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
const view = new DataView(memory.buffer);
type Exports = Record<string, (...args: (number | bigint)[]) => number | bigint>;

/** A module of one function, instantiated. */
function build(signature: Signature, body: (f: FunctionBuilder, module: ModuleBuilder) => void): (...args: (number | bigint)[]) => number | bigint {
  const module = new ModuleBuilder();
  module.importMemory(memory);
  const f = module.function('f', signature);
  body(f, module);
  module.export(f);
  return instantiate(module).f;
}
function instantiate(module: ModuleBuilder, imports: Record<string, unknown> = {}): Exports & { table: WebAssembly.Table } {
  const bytes = module.bytes();
  expect(WebAssembly.validate(bytes)).toBe(true);
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory, ...imports } } as WebAssembly.Imports).exports as never;
}
const I32: Signature = { parameters: ['i32', 'i32'], results: ['i32'] };
const I64: Signature = { parameters: ['i64', 'i64'], results: ['i64'] };
/** A function that is only built, not run. */
const scratch = (signature: Signature = I32): FunctionBuilder => new ModuleBuilder().function('scratch', signature);
const valueOf = (expression: Expression): number | bigint => build({ parameters: [], results: [expression.type] }, (f) => f.return(expression))();

describe('every instruction', () => {
  const constants: Record<ValueType, Expression> = { i32: i32(0), i64: i64(0), f32: f32(0), f64: f64(0), v128: v128(0n, 0n) };

  it('validates, with operands and a result of its types', () => {
    for (const op of operations()) {
      const module = new ModuleBuilder();
      module.importMemory(memory);
      const f = module.function(op.name, { parameters: op.operands, results: [] });
      const operands = op.operands.map((_, i) => f.parameter(i));
      if (op.bytes !== undefined && op.operands.length === 2) f.store(op.name, operands[0], operands[1], 8);
      else {
        const value = op.bytes !== undefined ? operands[0].load(op.name, 8) : op.lanes !== undefined ? operands[0].lane(op.name, op.lanes - 1, operands[1]) : apply(op.name, ...operands);
        f.set(f.local(op.result), value);
      }
      expect([op.name, WebAssembly.validate(module.bytes())]).toEqual([op.name, true]);
      // Constants fold to the same type.
      if (op.bytes === undefined && op.lanes === undefined) expect([op.name, apply(op.name, ...op.operands.map((type) => constants[type])).type]).toEqual([op.name, op.result]);
    }
  });

  it('has a name of its own, and a code', () => {
    const codes = [...operations()].map(({ code }) => code);
    expect(new Set(codes).size).toBe(codes.length);
    expect(codes.length).toBeGreaterThan(300);
    expect(() => operation('i32.bogus')).toThrow('no such WebAssembly instruction: i32.bogus');
  });
});

describe('expressions', () => {
  it('compute', () => {
    const f = build(I64, (f) => f.return(f.parameter(0).add(f.parameter(1)).mul(3).xor(i64(-1n)).shrU(1)));
    expect(f(5n, 7n)).toBe((2n ** 64n - 1n - 36n) >> 1n);
    const g = build(I32, (f) => f.return(f.parameter(0).ltU(f.parameter(1)).or(f.parameter(0).eqz().shl(4))));
    expect([g(-1, 1), g(1, -1), g(0, 0)]).toEqual([0, 1, 16]);
  });

  it('are evaluated where they are used, pinned ones where they are pinned', () => {
    const f = build(I32, (f) => {
      const local = f.local('i32');
      f.set(local, f.parameter(0));
      const [now, later] = [f.let(f.get(local)), f.get(local)];
      f.set(local, f.parameter(1));
      f.return(now.mul(1000).add(later));
    });
    expect(f(3, 4)).toBe(3004);
  });

  it.each<[string, Expression, number | bigint]>([
    ['i32 constants at the edges', i32(0x8000_0000), -0x8000_0000],
    ['i64 constants at the edges', i64(-(2n ** 63n)), -(2n ** 63n)],
    ['i64 constants that look like i32', i64(0xffff_ffffn), 0xffff_ffffn],
    ['sums that wrap around', i32(0x7fff_ffff).add(1), -0x8000_0000],
    ['64-bit sums that wrap around', i64(2n ** 63n - 1n).add(1), -(2n ** 63n)],
    ['differences', i64(0).sub(1), -1n],
    ['conjunctions of negative numbers', i32(-1).and(0xff), 255],
    ['shifts by more than the width', i32(1).shl(33), 2],
    ['shifts to the right of negative numbers', i32(-2).shrU(33), 0x7fff_ffff],
    ['shifts to the right by nothing', i32(-2).shrU(i32(32)), -2],
    ['disjunctions of negative numbers', i32(-0x8000_0000).or(i32(1)), -0x7fff_ffff],
    ['differences of bits', i32(-1).xor(i32(1)), -2],
    ['trailing zeros', i32(-0x8000_0000).ctz(), 31],
    ['trailing zeros of nothing', i32(0).ctz(), 32],
    ['choices', select(i32(2), i32(3), i32(4)), 3],
    ['other choices', select(i32(0), i64(3), i64(4)), 4n],
    ['64-bit shifts by more than the width', i64(1).shl(65), 2n],
    ['sign extension', i32(-1).extendS(), -1n],
    ['zero extension', i32(-1).extendU(), 0xffff_ffffn],
    ['wrapping', i64(0x1_8000_0000n).wrap(), -0x8000_0000],
    ['8-bit sign extension', i64(0x80).signExtend(8), -128n],
    ['zero extension of 64 bits', i64(-1).zeroExtend(64), -1n],
  ])('fold %s as WebAssembly computes them', (_name, expression, expected) => {
    expect(valueOf(expression)).toBe(expected);
  });

  it('of constants and of locals agree', () => {
    const values = [0n, 1n, -1n, 0x7fff_ffffn, -0x8000_0000n, 0x1234_5678_9abc_def0n, -(2n ** 63n)];
    for (const name of ['add', 'sub', 'and', 'or', 'shl', 'xor', 'mul']) {
      const f = build(I64, (f) => f.return(f.parameter(0).op(name, f.parameter(1))));
      for (const a of values) for (const b of values) expect([name, a, b, valueOf(i64(a).op(name, i64(b)))]).toEqual([name, a, b, f(a, b)]);
    }
  });

  it('leave out what does nothing to integers, and only there', () => {
    const f = scratch({ parameters: ['i64', 'f64'], results: [] });
    const [integer, float] = [f.parameter(0), f.parameter(1)];
    for (const same of [integer.add(0), integer.sub(0n), integer.or(i64(0)), integer.xor(0), integer.shl(0), integer.shrU(0), integer.shrS(0)]) expect(same).toBe(integer);
    // -0 + 0 is +0.
    expect(Object.is(valueOf(f64(-0).add(f64(0))), 0)).toBe(true);
    const sum = build({ parameters: ['f64'], results: ['f64'] }, (g) => g.return(g.parameter(0).add(0)));
    expect(Object.is(sum(-0), 0)).toBe(true);
    expect(float.add(0)).not.toBe(float);
  });

  it('pick by a condition, vectors too', () => {
    const f = build(I32, (f) => f.return(select(f.parameter(0), f.parameter(1), i32(7))));
    expect([f(1, 5), f(0, 5)]).toEqual([5, 7]);
    const g = build(I32, (f) => f.return(select(f.parameter(0), v128(1n, 0n), v128(2n, 0n)).lane('i32x4.extract_lane', 0)));
    expect([g(1, 0), g(0, 0)]).toEqual([1, 2]);
  });

  it('have vectors: constants, lanes, shuffles', () => {
    const f = build({ parameters: ['i64'], results: ['i64'] }, (f) => {
      const v = v128(0x0706_0504_0302_0100n, 0x0f0e_0d0c_0b0a_0908n).lane('i64x2.replace_lane', 1, f.parameter(0));
      f.return(v.shuffle(v128(-1n, 0n), [15, 14, 13, 12, 0, 1, 16, 31, 0, 0, 0, 0, 0, 0, 0, 0]).lane('i64x2.extract_lane', 0));
    });
    expect(f(0x1122_3344_5566_7788n)).toBe(0x00ff_0100_4433_2211n);
  });

  it('load and store with offsets up to 2^32', () => {
    const f = build(I32, (f) => {
      f.store('i32.store16', f.parameter(0), f.parameter(1), 6);
      f.return(f.parameter(0).load('i32.load8_s', 7));
    });
    expect(f(100, 0x8234)).toBe(-126);
    expect(view.getUint16(106, true)).toBe(0x8234);
    const far = build(I32, (f) => f.return(f.parameter(0).load('i32.load', 2 ** 32 - 4)));
    expect(() => far(0, 0)).toThrow(WebAssembly.RuntimeError);
  });
});

describe('control flow', () => {
  it('loops, leaves and goes on', () => {
    const f = build({ parameters: ['i32'], results: ['i32'] }, (f) => {
      const [i, sum] = [f.local('i32'), f.local('i32')];
      f.block((out) => {
        f.loop((again) => {
          f.branchIf(out, f.get(i).geU(f.parameter(0)));
          f.set(i, f.get(i).add(1));
          f.branchIf(again, f.get(i).and(1));
          f.set(sum, f.get(sum).add(f.get(i)));
          f.branch(again);
        });
      });
      f.return(f.get(sum));
    });
    expect([f(0), f(1), f(10)]).toEqual([0, 0, 30]);
  });

  it('chooses', () => {
    const f = build(I32, (f) => {
      f.if(f.parameter(0), () => f.if(f.parameter(1), () => f.return(3), () => f.return(2)));
      f.return(1);
    });
    expect([f(0, 1), f(1, 0), f(1, 1)]).toEqual([1, 2, 3]);
  });

  it('calls imports, functions and the table; tail calls do not nest', () => {
    const module = new ModuleBuilder();
    module.importMemory(memory);
    const seen: number[] = [];
    const note = module.importFunction('note', { parameters: ['i32'], results: ['i32'] });
    const step: Signature = { parameters: ['i32'], results: [] };
    const [down, done, start] = [module.function('down', step), module.function('done', step), module.function('start', step)];
    const type = module.type(step);
    down.if(down.parameter(0).eqz(), () => down.returnCall(done, 42));
    down.returnCallIndirect(type, step, i32(1), down.parameter(0).sub(1));
    done.call(note, done.parameter(0));
    const doubled = start.call(note, start.parameter(0));
    start.callIndirect(type, step, i32(1), doubled);
    module.table([done, down], 3);
    module.export(start);
    const exports = instantiate(module, { note: (value: number) => { seen.push(value); return value * 2; } });
    exports.start(500_000);
    expect(seen).toEqual([500_000, 42]);
    expect(exports.table.length).toBe(5);
    expect(exports.table.get(4)).toBeNull();
  });

  it('fills and copies memory', () => {
    const f = build(I32, (f) => {
      f.memoryFill(f.parameter(0), 0xab, 8);
      f.memoryCopy(f.parameter(0).add(4), f.parameter(0).add(3), 4);
      f.store('i32.store8', f.parameter(0), 1, 5);
      f.return(f.parameter(0).load('i32.load', 4));
    });
    expect(f(0x200, 0)).toBe(0xabab_01ab | 0);
  });

  it('rolls back what was begun, open blocks included', () => {
    const f = build(I32, (f) => {
      const mark = f.mark();
      expect(() => f.block((leave) => {
        f.set(f.local('i64'), 5);
        f.branch(leave);
        throw new Error('no');
      })).toThrow('no');
      f.rollBack(mark);
      f.return(f.parameter(0));
    });
    expect(f(3, 4)).toBe(3);
  });

  it('puts code in front of what was built', () => {
    const f = build(I32, (f) => {
      const local = f.local('i32');
      f.return(f.get(local));
      f.prepend(() => f.set(local, f.parameter(1)));
    });
    expect(f(3, 4)).toBe(4);
  });

  it('a function with a result that does not return traps', () => {
    const f = build(I32, () => {});
    expect(() => f(1, 2)).toThrow(WebAssembly.RuntimeError);
  });
});

describe('what does not fit is refused where it is written', () => {
  const f = scratch({ parameters: ['i32', 'i64', 'f64', 'v128'], results: ['i32'] });
  const [word, long, float, vector] = [0, 1, 2, 3].map((i) => f.parameter(i));
  const other = new ModuleBuilder();
  const takesLong = other.function('takesLong', { parameters: ['i64'], results: [] });

  it.each<[string, () => unknown, string | RegExp]>([
    ['operands of different types', () => word.add(long), 'i32.add wants (i32, i32), got (i32, i64): (local.get 0) , (local.get 1)'],
    ['an operand too few', () => apply('i64.add', long), /i64.add wants \(i64, i64\), got \(i64\)/],
    ['an operand deep in a tree', () => long.add(long.mul(2).xor(word)), 'i64.xor wants (i64, i64), got (i64, i32): (i64.mul (local.get 1) (i64.const 2)) , (local.get 0)'],
    ['an address of 64 bits', () => long.load('i64.load'), /i64.load wants \(i32\), got \(i64\)/],
    ['a condition of 64 bits', () => f.if(long, () => {}), 'wasm function scratch: a condition is an i32, not i64: (local.get 1)'],
    ['a condition of a branch', () => f.block((leave) => f.branchIf(leave, long)), /a condition is an i32, not i64/],
    ['a selection of two types', () => select(word, word, long), /select wants an i32 and two of a type/],
    ['a value of another type in a local', () => f.set(f.local('i32'), long), /local \d+ is i32, not i64: \(local.get 1\)/],
    ['a local that does not exist', () => f.set({ index: 999, type: 'i32' }, 1), /local 999 is none of this function's/],
    ['a local of another function', () => f.set(f.local('v128'), new ModuleBuilder().function('g', { parameters: ['i32', 'i32', 'i32', 'i32', 'v128'], results: [] }).parameter(4)), /a local of another function: v128 \(local.get 4\)/],
    ['a parameter too many', () => f.parameter(4), 'wasm function scratch: no parameter 4'],
    ['a result of another type', () => f.return(long), 'wasm function scratch: returns i32, not i64: (local.get 1)'],
    ['a result too few', () => f.return(), /return does not fit the signature/],
    ['a result too many', () => takesLong.return(1), /return does not fit the signature/],
    ['an argument of another type', () => f.call(takesLong, word), 'wasm function scratch: call of takesLong(i64) with (i32 (local.get 0))'],
    ['an argument too many', () => f.call(takesLong, 1, 2), /plain number|call of takesLong/],
    ['a tail call of what returns something else', () => f.returnCall(takesLong, long), 'wasm function scratch: a tail call of takesLong, which returns (), not (i32)'],
    ['an indirect tail call of what returns something else', () => f.returnCallIndirect(0, takesLong.signature, word, long), /a tail call of return_call_indirect/],
    ['an indirect call with a result', () => f.callIndirect(0, I32, word, word, word), /nobody takes its results/],
    ['a table’s index of 64 bits', () => f.callIndirect(0, takesLong.signature, long, long), /a table's index is an i32, not i64/],
    ['a store of another type', () => f.store('i32.store', word, long), 'wasm function scratch: i32.store wants (i32, i32): (local.get 0) , (local.get 1)'],
    ['a store that is a load', () => f.store('i32.load', word, word), /i32.load is no store/],
    ['a load that is a store', () => word.load('i32.store'), 'i32.store is no load'],
    ['a load that is neither', () => word.load('i32.clz'), 'i32.clz is no load'],
    ['an access without its offset', () => apply('i32.load', word), /i32.load wants an offset/],
    ['a lane access without its lane', () => apply('i32x4.extract_lane', vector), /i32x4.extract_lane wants a lane/],
    ['an offset below 0', () => word.load('i32.load', -4), 'i32.load has no offset -4'],
    ['an offset beyond 2^32', () => f.store('i32.store', word, 0, 2 ** 32), 'i32.store has no offset 4294967296'],
    ['a lane that a vector does not have', () => vector.lane('i32x4.extract_lane', 4), 'i32x4.extract_lane has no lane 4: (local.get 3)'],
    ['a lane of what has none', () => vector.lane('i32x4.add', 0, vector), /has no lane/],
    ['a shuffle of too few', () => vector.shuffle(vector, [1, 2]), /16 of their 32 bytes/],
    ['a shuffle beyond both', () => vector.shuffle(vector, [32, ...new Array<number>(15).fill(0)]), /16 of their 32 bytes/],
    ['a fill by 64 bits', () => f.memoryFill(word, 0, long), /memory.fill wants \(i32, i32, i32\)/],
    ['a plain number for a float', () => f.set(f.local('f64'), 1), /a plain number cannot be f64/],
    ['an unknown instruction', () => float.op('bogus'), 'no such WebAssembly instruction: f64.bogus'],
    ['code in front of a block that is open', () => f.block(() => f.prepend(() => {})), /in front of a whole function only/],
    ['an import after a function', () => other.importFunction('late', I32), 'import late after a function'],
  ])('%s', (_name, write, message) => {
    expect(write).toThrow(message);
  });

  it('a branch to a block that has ended, or into another function', () => {
    const g = scratch({ parameters: [], results: [] });
    let ended: Parameters<FunctionBuilder['branch']>[0] | undefined;
    g.block((leave) => {
      ended = leave;
    });
    g.block(() => expect(() => g.branch(ended as never)).toThrow(/a branch to a block that has ended/));
    const h = scratch({ parameters: [], results: [] });
    g.block((leave) => h.block(() => expect(() => h.branch(leave)).toThrow(/or of another function/)));
  });

  it('a function whose block was left open', () => {
    const g = scratch({ parameters: [], results: [] });
    expect(() => g.block(() => {
      throw new Error('in the middle');
    })).toThrow('in the middle');
    expect(() => g.body()).toThrow('wasm function scratch: a block was left open');
  });
});

describe('branch hints', () => {
  it('name the opcode of each branch that has one, wherever code was put in front or taken back', () => {
    const module = new ModuleBuilder();
    module.importMemory(memory);
    module.function('plain', I32).return(0);
    const f = module.function('hinted', { parameters: ['i32'], results: [] });
    const condition = f.parameter(0);
    f.if(condition, () => f.ifRarely(condition, () => f.return()));
    const mark = f.mark();
    f.ifLikely(condition, () => f.return());
    f.rollBack(mark);
    f.ifLikely(condition, () => {}, () => f.set(f.local('i64'), 5));
    f.prepend(() => f.ifRarely(condition, () => f.return()));
    const bytes = module.bytes();
    const compiled = new WebAssembly.Module(bytes);
    const [section] = WebAssembly.Module.customSections(compiled, 'metadata.code.branch_hint');
    const { code, hints } = f.body();
    expect(hints.map(({ offset, isLikely }) => [code.view()[offset], isLikely])).toEqual([[0x04, false], [0x04, false], [0x04, true]]);
    expect([...new Uint8Array(section)]).toEqual([1, f.index, hints.length, ...hints.flatMap(({ offset, isLikely }) => [offset, 1, isLikely ? 1 : 0])]);
  });
});

describe('text', () => {
  it('of an expression is what the text format has', () => {
    const f = scratch({ parameters: ['i32', 'v128'], results: [] });
    const [word, vector] = [f.parameter(0), f.parameter(1)];
    expect(`${word.add(4).load('i64.load8_u', 16).shl(3)}`).toBe('(i64.shl (i64.load8_u offset=16 (i32.add (local.get 0) (i32.const 4))) (i64.const 3))');
    expect(`${vector.lane('i32x4.replace_lane', 2, word)}`).toBe('(i32x4.replace_lane 2 (local.get 1) (local.get 0))');
    expect(`${select(word, word, i32(-1))}`).toBe('(select (local.get 0) (i32.const -1) (local.get 0))');
    expect(`${vector.shuffle(vector, new Array<number>(16).fill(1))}`).toMatch(/^\(i8x16.shuffle 1 1 .* \(local.get 1\) \(local.get 1\)\)$/);
  });
});
