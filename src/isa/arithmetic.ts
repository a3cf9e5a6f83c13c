/**
 * Addition and subtraction: ADD, ADC, SUB, SBB, CMP, INC, DEC, NEG, and the read-modify-write forms made of them, XADD,
 * CMPXCHG and its 8 and 16-byte forms. SDM 2, instruction reference. LOCK needs no code: a vCPU's slice is never interrupted
 * inside an instruction.
 */

import { i64, select } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import type { Operand, Semantics } from './semantics.ts';

/** The encodings of the eight operations of the opcode map's first columns: `row` is their place, 0 ADD to 7 CMP. */
export function rowEncodings(row: number): string[] {
  const opcode = (column: number): string => (row * 8 + column).toString(16).toUpperCase().padStart(2, '0');
  return [
    `${opcode(0)} Eb Gb`,
    `${opcode(1)} Ev Gv`,
    `${opcode(2)} Gb Eb`,
    `${opcode(3)} Gv Ev`,
    `${opcode(4)} AL Ib`,
    `${opcode(5)} eAX Iz`,
    `80/${row} Eb Ib`,
    `81/${row} Ev Iz`,
    `82/${row} Eb Ib ; n64`,
    `83/${row} Ev sIb`,
  ];
}

/** CF as an i64, 0 or 1. */
const carryIn = (x: Semantics) => x.carryWord().shrU(63);

instruction('ADD', rowEncodings(0), { access: 'mr', lock: true, hot: true }, (x, destination, source) => {
  const [a, b] = [destination.signed(), source.signed()];
  const result = x.f.let(a.add(b).signExtend(destination.bits));
  destination.write(result);
  x.flagsOfAdd(a, b, result);
});

instruction('ADC', rowEncodings(2), { access: 'mr', lock: true }, (x, destination, source) => {
  const [a, b] = [destination.signed(), source.signed()];
  const result = x.f.let(a.add(b).add(carryIn(x)).signExtend(destination.bits));
  destination.write(result);
  x.flagsOfAdd(a, b, result);
});

instruction('SUB', rowEncodings(5), { access: 'mr', lock: true, hot: true }, (x, destination, source) => {
  const [a, b] = [destination.signed(), source.signed()];
  const result = x.f.let(a.sub(b).signExtend(destination.bits));
  destination.write(result);
  x.flagsOfSub(a, b, result);
});

instruction('SBB', rowEncodings(3), { access: 'mr', lock: true }, (x, destination, source) => {
  const [a, b] = [destination.signed(), source.signed()];
  const result = x.f.let(a.sub(b).sub(carryIn(x)).signExtend(destination.bits));
  destination.write(result);
  x.flagsOfSub(a, b, result);
});

instruction('CMP', rowEncodings(7), { hot: true }, (x, first, second) => {
  const [a, b] = [first.signed(), second.signed()];
  x.flagsOfSub(a, b, x.f.let(a.sub(b).signExtend(first.bits)));
});

/** INC and DEC: the flags of ± 1, but CF stays. Bit 3 of `carries` is the carry or borrow out of the low digit, AF. */
function step(x: Semantics, operand: Operand, by: 1 | -1): void {
  const a = operand.signed();
  const result = x.f.let(a.add(by).signExtend(operand.bits));
  operand.write(result);
  const carries = by === 1 ? a.and(result.not()) : result.and(a.not());
  const overflow = by === 1 ? result.and(a.not()) : a.and(result.not());
  x.setFlags({ zero: result, sign: result, carry: x.carryWord().and(1n << 63n).or(carries.and(8)), overflow });
}

instruction('INC', ['FE/0 Eb', 'FF/0 Ev', '40+ Zv ; n64'], { access: 'm', lock: true }, (x, operand) => step(x, operand, 1));
instruction('DEC', ['FE/1 Eb', 'FF/1 Ev', '48+ Zv ; n64'], { access: 'm', lock: true }, (x, operand) => step(x, operand, -1));

instruction('NEG', ['F6/3 Eb', 'F7/3 Ev'], { access: 'm', lock: true }, (x, operand) => {
  const a = operand.signed();
  const result = x.f.let(i64(0).sub(a).signExtend(operand.bits));
  operand.write(result);
  x.flagsOfSub(i64(0), a, result);
});

instruction('XADD', ['0F C0 Eb Gb', '0F C1 Ev Gv'], { access: 'mm', lock: true }, (x, destination, source) => {
  const [a, b] = [destination.signed(), source.signed()];
  const result = x.f.let(a.add(b).signExtend(destination.bits));
  // Memory may fault, so it goes first; of one register twice, the sum stays.
  if (destination.kind === 'register') source.write(a);
  destination.write(result);
  if (destination.kind === 'memory') source.write(a);
  x.flagsOfAdd(a, b, result);
});

// Memory is written in any case. A register is left alone, its upper half included, where the comparison fails; so is RAX where it does not.
instruction('CMPXCHG', ['0F B0 Eb Gb', '0F B1 Ev Gv'], { access: 'mr', lock: true }, (x, destination, source) => {
  const accumulator = x.gpr(0, destination.bits as 8 | 16 | 32 | 64);
  const [a, b, replacement] = [accumulator.signed(), destination.signed(), source.signed()];
  const result = x.f.let(a.sub(b).signExtend(destination.bits));
  const equal = result.eqz();
  if (destination.kind === 'memory') {
    destination.write(select(equal, replacement, b));
    x.f.if(result.nonZero(), () => accumulator.write(b));
  } else {
    x.f.if(equal, () => destination.write(replacement), () => accumulator.write(b));
  }
  x.flagsOfSub(a, b, result);
});

instruction('CMPXCHG8B', '0F C7/1 Mq ; W0', { access: 'm', lock: true, feature: 'cx8' }, (x, memory) => {
  const [eax, edx] = [x.gpr(0, 32), x.gpr(2, 32)];
  const address = x.f.let(memory.linear());
  const old = x.load(address, 64, 'unsigned', 'modify');
  const expected = edx.unsigned().shl(32).or(eax.unsigned());
  const replacement = x.gpr(1, 32).unsigned().shl(32).or(x.gpr(3, 32).unsigned());
  const difference = x.f.let(old.xor(expected));
  x.store(address, 64, select(difference.eqz(), replacement, old));
  x.f.if(difference.nonZero(), () => {
    eax.write(old);
    edx.write(old.shrU(32));
  });
  x.setFlags({ zero: difference });
});

instruction('CMPXCHG16B', '0F C7/1 Mdq ; W1', { access: 'm', lock: true, feature: 'cx16' }, (x, memory) => {
  const [rax, rdx] = [x.gpr(0, 64), x.gpr(2, 64)];
  const address = x.f.let(memory.linear());
  x.requireAligned(address, 16);
  const high = x.f.let(address.add(8));
  const [oldLow, oldHigh] = [x.load(address, 64, 'unsigned', 'modify'), x.load(high, 64, 'unsigned', 'modify')];
  const difference = x.f.let(oldLow.xor(rax.unsigned()).or(oldHigh.xor(rdx.unsigned())));
  const equal = difference.eqz();
  const [rbx, rcx] = [x.gpr(3, 64).unsigned(), x.gpr(1, 64).unsigned()];
  x.store(address, 64, select(equal, rbx, oldLow));
  x.store(high, 64, select(equal, rcx, oldHigh));
  x.f.if(difference.nonZero(), () => {
    rax.write(oldLow);
    rdx.write(oldHigh);
  });
  x.setFlags({ zero: difference });
});
