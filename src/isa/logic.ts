/** AND, OR, XOR, NOT, TEST. SDM 2, instruction reference. */

import type { Expression } from '../wasm/expression.ts';
import { rowEncodings } from './arithmetic.ts';
import { instruction } from './instruction.ts';

const operations: [mnemonic: string, row: number, operation: (a: Expression, b: Expression) => Expression][] = [
  ['OR', 1, (a, b) => a.op('or', b)],
  ['AND', 4, (a, b) => a.and(b)],
  ['XOR', 6, (a, b) => a.op('xor', b)],
];
for (const [mnemonic, row, operation] of operations) {
  instruction(mnemonic, rowEncodings(row), { access: 'mr', lock: true, hot: true }, (x, destination, source) => {
    const result = x.f.let(operation(destination.signed(), source.signed()));
    destination.write(result);
    x.flagsOfLogic(result);
  });
}

const testEncodings = ['84 Eb Gb', '85 Ev Gv', 'A8 AL Ib', 'A9 eAX Iz', 'F6/0 Eb Ib', 'F6/1 Eb Ib', 'F7/0 Ev Iz', 'F7/1 Ev Iz'];
instruction('TEST', testEncodings, { hot: true }, (x, first, second) => {
  x.flagsOfLogic(x.f.let(first.signed().and(second.signed())));
});

instruction('NOT', ['F6/2 Eb', 'F7/2 Ev'], { access: 'm', lock: true }, (_x, operand) => {
  operand.write(operand.signed().not());
});
