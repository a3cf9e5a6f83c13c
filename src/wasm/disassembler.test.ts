/** What was built reads back as the text of what it was built from. */
import { describe, expect, it } from 'vitest';
import { disassemble } from './disassembler.ts';
import { Expression, f32, f64, i32, i64, v128 } from './expression.ts';
import type { FunctionBuilder, Signature } from './function-builder.ts';
import { ModuleBuilder } from './module-builder.ts';
import { operations, type ValueType } from './opcodes.ts';

const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });

function text(signature: Signature, body: (f: FunctionBuilder, module: ModuleBuilder) => void) {
  const module = new ModuleBuilder();
  module.importMemory(memory);
  const log = module.importFunction('log', { parameters: ['i32'], results: ['i32'] });
  const f = module.function('f', signature);
  body(f, module);
  expect(log.index).toBe(0);
  return disassemble(module.bytes())[0];
}

describe('a module, disassembled', () => {
  const parameters: ValueType[] = ['i32', 'i64', 'f32', 'f64', 'v128'];
  const type = (f: FunctionBuilder, wanted: ValueType): Expression => f.parameter(parameters.indexOf(wanted));

  it('has the text of every instruction', () => {
    for (const op of operations()) {
      let expected = '';
      const { lines } = text({ parameters, results: [] }, (f) => {
        const operands = op.operands.map((wanted) => type(f, wanted));
        const isStore = op.bytes !== undefined && op.name.includes('.store');
        if (isStore) {
          f.store(op.name, operands[0], operands[1], 300);
          expected = `(${op.name} offset=300 ${operands.join(' ')})`;
          return;
        }
        const kind = op.lanes !== undefined ? 'lane' : op.bytes !== undefined ? 'memory' : 'operation';
        const value = new Expression(kind, op.result, op, operands, kind === 'lane' ? 1 : kind === 'memory' ? 70_000 : 0);
        f.set(f.local(op.result), value);
        expected = `(local.set 5 ${value})`;
      });
      expect(lines).toEqual([expected]);
    }
  });

  it('has constants as they were', () => {
    const constants = [i32(-5), i32(1 << 30), i64(-1), i64(0x1234_5678_9abc_def0n), i64(-(2n ** 63n)), f32(1.5), f64(-0.1)];
    const { lines } = text({ parameters: [], results: [] }, (f) => {
      for (const value of constants) f.set(f.local(value.type), value);
      f.set(f.local('v128'), v128(0x0706_0504_0302_0100n, 0n));
    });
    expect(lines.slice(0, -1)).toEqual(constants.map((value, i) => `(local.set ${i} ${value})`));
    expect(lines.at(-1)).toBe('(local.set 7 (v128.const i8x16 0 1 2 3 4 5 6 7 0 0 0 0 0 0 0 0))');
  });

  it('shows its structure by indents, and counts', () => {
    const { lines, counts, locals, name } = text({ parameters: ['i32'], results: [] }, (f) => {
      const [n, sum] = [f.parameter(0), f.local('i64')];
      f.block((out) => {
        f.loop((again) => {
          f.if(n.eqz(), () => f.branch(out), () => f.set(sum, f.get(sum).add(1)));
          f.store('i64.store', n, f.get(sum), 8);
          f.call({ name: 'log', signature: { parameters: ['i32'], results: ['i32'] }, index: 0 }, n.load('i32.load'));
          f.branch(again);
        });
      });
    });
    expect(lines).toEqual([
      '(block',
      '  (loop',
      '    (if (i32.eqz (local.get 0)) (then',
      '      (br 2)',
      '    ) (else',
      '      (local.set 1 (i64.add (local.get 1) (i64.const 1)))',
      '    )',
      '    (i64.store offset=8 (local.get 0) (local.get 1))',
      '    (local.set 2 (call $log (i32.load offset=0 (local.get 0))))',
      '    (br 0)',
      '  )',
      ')',
    ]);
    expect(name).toBe('f');
    expect(locals).toEqual({ i64: 1, i32: 1 });
    expect(counts).toEqual({ instructions: 18, loads: 1, stores: 1, locals: 7, calls: 1, branches: 2 });
  });
});
