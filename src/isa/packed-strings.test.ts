import { describe, expect, it } from 'vitest';
import { RandomSource } from '../machine/random.ts';
import { type Expression, i32 } from '../wasm/expression.ts';
import { ModuleBuilder } from '../wasm/module-builder.ts';
import { COMPARE_EXPLICIT, COMPARE_IMPLICIT } from './packed-strings.ts';

const [RANGES, EACH, ORDERED] = [1, 2, 3];
/** Immediates whose bits matter here. */
const CONTROLS = Array.from({ length: 64 }, (_, i) => i);
const FIRST = 0;
const SECOND = 16;

type Compare = (control: number, firstLength: number, secondLength: number) => [matches: number, firstEnds: number, secondEnds: number];

const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
const operands = new DataView(memory.buffer);
const module = new ModuleBuilder();
module.importMemory(memory);
for (const { name, signature, build } of [COMPARE_EXPLICIT, COMPARE_IMPLICIT]) {
  const lengths = signature.parameters.length - 3;
  const define = (suffix: string, control?: Expression): void => {
    const f = module.function(`${name}${suffix}`, { parameters: ['i32', 'i32', 'i32'], results: signature.results });
    const [first, second] = [FIRST, SECOND].map((at) => f.let(i32(at).load('v128.load')));
    f.return(...build(f, control ?? f.parameter(0), first, second, ...[f.parameter(1), f.parameter(2)].slice(0, lengths)));
    module.export(f);
  };
  define('');
  for (const control of CONTROLS) define(` ${control}`, i32(control));
}
const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.bytes()), { env: { memory } });

/** The manual's pseudocode. A length below 0: the operand ends in front of its first 0. */
function model(control: number, firstLength: number, secondLength: number): ReturnType<Compare> {
  const bytes = control & 1 ? 2 : 1;
  const elements = 16 / bytes;
  const element = (operand: number, i: number): number => {
    const at = operand + i * bytes;
    if (bytes === 2) return control & 2 ? operands.getInt16(at, true) : operands.getUint16(at, true);
    return control & 2 ? operands.getInt8(at) : operands.getUint8(at);
  };
  const lengthOf = (operand: number, wanted: number): number => {
    if (wanted >= 0) return Math.min(wanted, elements);
    let i = 0;
    while (i < elements && element(operand, i) !== 0) i++;
    return i;
  };
  const first = lengthOf(FIRST, firstLength);
  const second = lengthOf(SECOND, secondLength);
  const holds = (j: number): boolean => {
    switch ((control >> 2) & 3) {
      case ORDERED:
        // What is past the needle's own end matches anything.
        for (let i = 0; i < first && j + i < elements; i++) if (j + i >= second || element(FIRST, i) !== element(SECOND, j + i)) return false;
        return true;
      case EACH:
        return j < first && j < second ? element(FIRST, j) === element(SECOND, j) : j >= first && j >= second;
      case RANGES:
        for (let i = 0; i + 1 < first && j < second; i += 2) if (element(FIRST, i) <= element(SECOND, j) && element(SECOND, j) <= element(FIRST, i + 1)) return true;
        return false;
      default:
        for (let i = 0; i < first && j < second; i++) if (element(FIRST, i) === element(SECOND, j)) return true;
        return false;
    }
  };
  let result = 0;
  for (let j = 0; j < elements; j++) if (holds(j)) result |= 1 << j;
  if (control & 0x10) result ^= control & 0x20 ? (1 << second) - 1 : (1 << elements) - 1;
  return [result, first < elements ? 1 : 0, second < elements ? 1 : 0];
}

const random = new RandomSource(7);
const below = (n: number): number => random.next32() % n;
/** Bytes of few kinds, so that they are often equal, with a 0 here and there, or none. */
function fill(): void {
  const alphabet = [[1, 2], [0, 1, 2], [1, 2, 0x80, 0xff], [0, 1, 0x7f, 0x80, 0xfe], Array.from({ length: 256 }, (_, i) => i)][below(5)];
  for (let i = 0; i < 32; i++) operands.setUint8(i, alphabet[below(alphabet.length)]);
  // A needle that is there.
  if (below(3) === 0) for (let i = 0, from = below(16); i < 16; i++) operands.setUint8(FIRST + i, operands.getUint8(SECOND + ((from + i) & 15)));
  for (const at of [FIRST, SECOND]) if (below(3) === 0) for (let i = below(17); i < 16; i++) operands.setUint8(at + i, 0);
}

describe.each([
  ['with immediates known when code is made', (control: number) => ` ${control}`],
  ['with immediates known when it runs', () => ''],
])('packed strings %s', (_title, suffix) => {
  it.each(CONTROLS)('compare as the manual says with immediate %i', (control) => {
    const implicit = exports[COMPARE_IMPLICIT.name + suffix(control)] as Compare;
    const explicit = exports[COMPARE_EXPLICIT.name + suffix(control)] as Compare;
    for (let round = 0; round < 300; round++) {
      fill();
      const lengths = [below(17), below(17)] as const;
      const bytes = Buffer.from(memory.buffer, 0, 32).toString('hex');
      expect([bytes, implicit(control, 0, 0)]).toEqual([bytes, model(control, -1, -1)]);
      expect([bytes, lengths, explicit(control, ...lengths)]).toEqual([bytes, lengths, model(control, ...lengths)]);
    }
  });
});
