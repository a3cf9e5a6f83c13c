/**
 * Shifts and rotates: SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD. SDM 2, instruction reference. A count of 0 (after
 * masking) leaves all flags alone. OF is architectural for a count of 1; for others it is that of the last single step. AF after
 * a shift is undefined.
 */

import { type Expression, i64, select } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import type { Operand, Semantics } from './semantics.ts';

/** The count as the processor masks it: six bits for 64-bit operands, else five. */
const maskedCount = (x: Semantics, destination: Operand, count: Operand): Expression =>
  x.f.let(count.unsigned().and(destination.bits === 64 ? 63 : 31));

/** Runs `body` where the count is not 0: known at once if it is a constant. */
function ifCounted(x: Semantics, count: Expression, body: () => void): void {
  if (count.kind !== 'const') x.f.if(count.nonZero(), body);
  else if (Number(count.immediate) !== 0) body();
}

type Shift = (x: Semantics, destination: Operand, count: Operand) => void;

const shl: Shift = (x, destination, count) => {
  const { bits } = destination;
  const [a, c] = [destination.signed(), maskedCount(x, destination, count)];
  const shifted = x.f.let(a.shl(c));
  const result = x.f.let(shifted.signExtend(bits));
  destination.write(result);
  ifCounted(x, c, () => {
    // The last bit shifted out lies just above the operand; of 64 bits it has to be kept from falling off.
    const carry = x.f.let(bits === 64 ? a.shl(c.sub(1)) : shifted.shl(63 - bits));
    x.setFlags({ zero: result, sign: result, carry, overflow: result.op('xor', carry) });
  });
};

const shr: Shift = (x, destination, count) => {
  const { bits } = destination;
  const [a, c] = [destination.unsigned(), maskedCount(x, destination, count)];
  const result = x.f.let(a.shrU(c));
  destination.write(result);
  ifCounted(x, c, () => {
    // Bit c - 1 to bit 63. Before the last step, the result's second bit from the top was its sign.
    x.setFlags({ zero: result, sign: result, carry: a.shl(i64(0).sub(c)), overflow: result.shl(65 - bits) });
  });
};

const sar: Shift = (x, destination, count) => {
  const [a, c] = [destination.signed(), maskedCount(x, destination, count)];
  const result = x.f.let(a.shrS(c));
  destination.write(result);
  ifCounted(x, c, () => x.setFlags({ zero: result, sign: result, carry: a.shl(i64(0).sub(c)), overflow: 0 }));
};

/** CF and OF after a rotation, from words with the flag in bit 63: AF, which CF shares its word with, stays, as do the others. */
function setRotationFlags(x: Semantics, carry: Expression, overflow: Expression): void {
  x.setFlags({ carry: x.carryWord().and(8).or(carry.and(1n << 63n)), overflow });
}

/** ROL and ROR of 8 and 16 bits rotate copies that fill 32 bits. */
function rotation(a: Expression, bits: number, c: Expression, operation: 'rotl' | 'rotr'): Expression {
  if (bits === 64) return a.op(operation, c);
  const copies = bits === 32 ? a.wrap() : a.wrap().mul(bits === 8 ? 0x01010101 : 0x00010001);
  return copies.op(operation, c.wrap()).extendU();
}

const rol: Shift = (x, destination, count) => {
  const { bits } = destination;
  const [a, c] = [destination.unsigned(), maskedCount(x, destination, count)];
  const result = x.f.let(rotation(a, bits, c, 'rotl'));
  destination.write(result);
  ifCounted(x, c, () => {
    const carry = x.f.let(result.shl(63));
    setRotationFlags(x, carry, carry.op('xor', result.shl(64 - bits)));
  });
};

const ror: Shift = (x, destination, count) => {
  const { bits } = destination;
  const [a, c] = [destination.unsigned(), maskedCount(x, destination, count)];
  const result = x.f.let(rotation(a, bits, c, 'rotr'));
  destination.write(result);
  ifCounted(x, c, () => setRotationFlags(x, result.shl(64 - bits), topBitsDiffer(result, bits)));
};

/** Bit 63 set where the operand's two top bits differ: OF after a rotation to the right. */
const topBitsDiffer = (result: Expression, bits: number): Expression => result.shl(64 - bits).op('xor', result.shl(65 - bits));

/** RCL and RCR rotate one bit more than the operand has: CF is above it. */
function rotateThroughCarry(x: Semantics, destination: Operand, count: Operand, left: boolean): void {
  const { f } = x;
  const { bits } = destination;
  const [a, c] = [destination.unsigned(), maskedCount(x, destination, count)];
  const result = f.local('i64');
  const carry = f.local('i64');
  f.set(result, a);
  ifCounted(x, c, () => {
    const carryIn = f.let(x.carryWord().shrU(63));
    if (bits === 64) {
      // CF lands at bit c - 1 (left) or 64 - c (right); shifts by 65 - c are made in two steps, as c may be 1.
      const around = i64(64).sub(c);
      const rotated = left
        ? a.shl(c).or(carryIn.shl(c.sub(1))).or(a.shrU(1).shrU(around))
        : a.shrU(c).or(carryIn.shl(around)).or(a.shl(1).shl(around));
      f.set(result, rotated);
      f.set(carry, left ? a.shl(c.sub(1)) : a.shl(around));
    } else {
      const width = bits + 1;
      const steps = bits === 32 ? c : f.let(c.remU(width));
      const whole = f.let(carryIn.shl(bits).or(a));
      const back = i64(width).sub(steps);
      f.set(result, left ? whole.shl(steps).or(whole.shrU(back)) : whole.shrU(steps).or(whole.shl(back)));
      f.set(carry, f.get(result).shl(63 - bits));
    }
  });
  const final = f.let(f.get(result));
  destination.write(final);
  ifCounted(x, c, () => {
    const out = f.let(f.get(carry));
    setRotationFlags(x, out, left ? out.op('xor', final.shl(64 - bits)) : topBitsDiffer(final, bits));
  });
}

const operations: [mnemonic: string, digits: number[], shift: Shift][] = [
  ['ROL', [0], rol],
  ['ROR', [1], ror],
  ['RCL', [2], (x, destination, count) => rotateThroughCarry(x, destination, count, true)],
  ['RCR', [3], (x, destination, count) => rotateThroughCarry(x, destination, count, false)],
  ['SHL', [4, 6], shl],
  ['SHR', [5], shr],
  ['SAR', [7], sar],
];
for (const [mnemonic, digits, shift] of operations) {
  const encodings = digits.flatMap((digit) => [
    `C0/${digit} Eb Ib`, `C1/${digit} Ev Ib`, `D0/${digit} Eb 1`, `D1/${digit} Ev 1`, `D2/${digit} Eb CL`, `D3/${digit} Ev CL`,
  ]); // biome-ignore format: a table
  instruction(mnemonic, encodings, { access: 'mr' }, shift);
}

/** SHLD and SHRD. For 16 bits and a count above 16 the result is undefined; as in AMD's processors, the source's bits come in once more. */
function doubleShift(x: Semantics, destination: Operand, source: Operand, count: Operand, left: boolean): void {
  const { f } = x;
  const { bits } = destination;
  const [a, b, c] = [destination.unsigned(), source.unsigned(), maskedCount(x, destination, count)];
  const around = i64(bits).sub(c);
  let shifted: Expression;
  if (bits === 16) {
    const three = f.let(left ? a.shl(32).or(b.shl(16)).or(b) : b.shl(32).or(b.shl(16)).or(a));
    shifted = left ? three.shl(c).shrU(32) : three.shrU(c);
  } else if (bits === 32) {
    shifted = left ? a.shl(32).or(b).shl(c).shrU(32) : b.shl(32).or(a).shrU(c);
  } else {
    const both = left ? a.shl(c).or(b.shrU(around)) : a.shrU(c).or(b.shl(around));
    shifted = c.kind === 'const' && Number(c.immediate) !== 0 ? both : select(c.nonZero(), both, a);
  }
  const result = f.let(shifted.signExtend(bits));
  destination.write(result);
  ifCounted(x, c, () => {
    // The last bit that left: bit (bits - c) going left, bit (c - 1) going right; after 16 bits it is the source's.
    const [leaving, width] = bits === 16 ? [left ? a.shl(16).or(b) : b.shl(16).or(a), 32] : [a, bits];
    const carry = f.let(leaving.shl(left ? i64(63 - width).add(c) : i64(0).sub(c)));
    x.setFlags({ zero: result, sign: result, carry, overflow: left ? result.op('xor', carry) : topBitsDiffer(result, bits) });
  });
}

for (const [mnemonic, opcode, left] of [['SHLD', 0xa4, true], ['SHRD', 0xac, false]] as const) {
  const [byImmediate, byCl] = [opcode, opcode + 1].map((code) => `0F ${code.toString(16).toUpperCase()} Ev Gv`);
  instruction(mnemonic, [`${byImmediate} Ib`, `${byCl} CL`], { access: 'mrr' }, (x, destination, source, count) =>
    doubleShift(x, destination, source, count, left),
  );
}
