/**
 * BMI1, BMI2, LZCNT and ADX. SDM 2, instruction reference. Most are VEX-encoded and exist in protected mode only. Undefined flags
 * stay as they are or are clear, as is cheaper.
 */

import { type Expression, i64, select } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import { highProduct } from './multiply-divide.ts';
import type { Operand, Semantics } from './semantics.ts';

const CARRY = 1n << 63n;
const flag = (condition: Expression): Expression => condition.extendU().shl(63);

// --- Counts -------------------------------------------------------------------------------------------

/** A count of zeros of a nonzero value, or the operand's size and CF. */
function countZeros(x: Semantics, destination: Operand, source: Operand, count: (value: Expression) => Expression): void {
  const value = source.unsigned();
  const result = x.f.let(count(value));
  destination.write(result);
  x.setFlags({ zero: result, carry: flag(value.eqz()) });
}
instruction('TZCNT', 'F3 0F BC Gv Ev', { access: 'wr', feature: 'bmi1' }, (x, destination, source) => {
  const { bits } = source;
  countZeros(x, destination, source, (value) => (bits === 64 ? value : value.or(1n << BigInt(bits))).ctz());
});
instruction('LZCNT', 'F3 0F BD Gv Ev', { access: 'wr', feature: 'abm' }, (x, destination, source) => {
  countZeros(x, destination, source, (value) => value.clz().sub(64 - source.bits));
});

// --- Lowest bits and fields -----------------------------------------------------------------------------

instruction('ANDN', 'VEX NP 0F 38 F2 Gy By Ey ; L0', { access: 'wrr', feature: 'bmi1' }, (x, destination, first, second) => {
  const b = second.signed();
  const result = x.f.let(first.signed().not().and(b));
  destination.write(result);
  x.flagsOfLogic(result);
});

const lowest: [mnemonic: string, digit: number, result: (value: Expression) => Expression, carryIfZero: boolean][] = [
  ['BLSR', 1, (value) => value.and(value.sub(1)), true],
  ['BLSMSK', 2, (value) => value.op('xor', value.sub(1)), true],
  ['BLSI', 3, (value) => value.and(i64(0).sub(value)), false],
];
for (const [mnemonic, digit, compute, carryIfZero] of lowest) {
  instruction(mnemonic, `VEX NP 0F 38 F3/${digit} By Ey ; L0`, { access: 'wr', feature: 'bmi1' }, (x, destination, source) => {
    const value = source.signed();
    const result = x.f.let(compute(value).signExtend(source.bits));
    destination.write(result);
    x.setFlags({ zero: result, sign: result, carry: flag(carryIfZero ? value.eqz() : value.nonZero()), overflow: 0 });
  });
}

/** Ones in the low `length` bits, all of them from 64 on; the length is an i64 below 2^63. */
const onesBelow = (length: Expression): Expression => select(length.gtU(63), i64(-1), i64(1).shl(length).sub(1));

instruction('BEXTR', 'VEX NP 0F 38 F7 Gy Ey By ; L0', { access: 'wrr', feature: 'bmi1' }, (x, destination, source, control) => {
  const { f } = x;
  const value = source.unsigned();
  const field = control.unsigned();
  const start = f.let(field.and(0xff));
  const length = f.let(field.shrU(8).and(0xff));
  const result = f.let(select(start.gtU(63), i64(0), value.shrU(start)).and(onesBelow(length)));
  destination.write(result);
  x.setFlags({ zero: result, carry: 0, overflow: 0 });
});
instruction('BZHI', 'VEX NP 0F 38 F5 Gy Ey By ; L0', { access: 'wrr', feature: 'bmi2' }, (x, destination, source, index) => {
  const value = source.signed();
  const length = x.f.let(index.unsigned().and(0xff));
  const result = x.f.let(value.and(onesBelow(length)).signExtend(source.bits));
  destination.write(result);
  x.setFlags({ zero: result, sign: result, carry: flag(length.gtU(source.bits - 1)), overflow: 0 });
});

// Bits of the source, from the lowest on, to and from where the mask has ones: a turn for each of these.
for (const [mnemonic, prefix, deposits] of [['PDEP', 'F2', true], ['PEXT', 'F3', false]] as const) {
  instruction(mnemonic, `VEX ${prefix} 0F 38 F5 Gy By Ey ; L0`, { access: 'wrr', feature: 'bmi2' }, (x, destination, source, mask) => {
    const { f } = x;
    const places = f.local('i64');
    const result = f.local('i64');
    const bit = f.local('i64');
    f.set(places, mask.unsigned());
    const value = source.unsigned();
    f.set(result, i64(0));
    f.set(bit, i64(1));
    f.block((done) =>
      f.loop((again) => {
        const place = f.let(f.get(places));
        f.branchIf(done, place.eqz());
        const lowestPlace = place.and(i64(0).sub(place));
        const [from, to] = deposits ? [f.get(bit), lowestPlace] : [lowestPlace, f.get(bit)];
        f.set(result, f.get(result).or(select(value.and(from).eqz(), i64(0), to)));
        f.set(bit, f.get(bit).shl(1));
        f.set(places, place.and(place.sub(1)));
        f.branch(again);
      }),
    );
    destination.write(f.get(result));
  });
}

// --- Arithmetic that leaves flags alone ------------------------------------------------------------------

instruction('MULX', 'VEX F2 0F 38 F6 Gy By Ey ; L0', { access: 'wwr', feature: 'bmi2' }, (x, high, low, source) => {
  const { bits } = source;
  const b = source.unsigned();
  const a = x.gpr(2, bits as 32 | 64).unsigned();
  const product = x.f.let(a.mul(b));
  const upper = x.f.let(bits === 64 ? highProduct(x.f, a, b, false) : product.shrU(32));
  // Of two destinations that are one, the high half is kept.
  low.write(product);
  high.write(upper);
});
instruction('RORX', 'VEX F2 0F 3A F0 Gy Ey Ib ; L0', { access: 'wrr', feature: 'bmi2' }, (x, destination, source, count) => {
  const value = source.unsigned();
  const by = x.f.let(count.unsigned());
  destination.write(source.bits === 64 ? value.rotr(by) : value.wrap().rotr(by.wrap()).extendU());
});
for (const [mnemonic, prefix, shift] of [
  ['SHLX', '66', (a: Expression, c: Expression) => a.shl(c)],
  ['SHRX', 'F2', (a: Expression, c: Expression) => a.shrU(c)],
  ['SARX', 'F3', (a: Expression, c: Expression) => a.shrS(c)],
] as const) {
  instruction(mnemonic, `VEX ${prefix} 0F 38 F7 Gy Ey By ; L0`, { access: 'wrr', feature: 'bmi2' }, (_x, destination, source, count) => {
    const value = mnemonic === 'SARX' ? source.signed() : source.unsigned();
    destination.write(shift(value, count.unsigned().and(source.bits - 1)));
  });
}

// --- Additions with a carry of their own -------------------------------------------------------------------

for (const [mnemonic, prefix] of [['ADCX', '66'], ['ADOX', 'F3']] as const) {
  instruction(mnemonic, `${prefix} 0F 38 F6 Gy Ey`, { access: 'mr', feature: 'adx' }, (x, destination, source) => {
    const { f } = x;
    const [b, a] = [source.unsigned(), destination.unsigned()];
    const carryIn = mnemonic === 'ADCX' ? x.carryFlag() : x.overflowFlag();
    const sum = f.let(a.add(b).add(carryIn.extendU()));
    destination.write(sum);
    const carry = f.let(source.bits === 64 ? a.and(b).or(a.or(b).and(sum.not())) : sum.shl(31));
    x.setFlags(mnemonic === 'ADCX' ? { carry: x.carryWord().and(8).or(carry.and(CARRY)) } : { overflow: carry });
  });
}
