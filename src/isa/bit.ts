/**
 * Bits: BT, BTS, BTR, BTC, BSF, BSR, POPCNT, BSWAP, MOVBE, CRC32. SDM 2, instruction reference. Undefined flags stay as they are
 * (AF excepted where CF changes).
 */

import { type Expression, i64 } from '../wasm/expression.ts';
import { instruction, type SemanticsFunction } from './instruction.ts';
import type { Bits, Operand, Semantics } from './semantics.ts';

type Change = (value: Expression, bit: Expression) => Expression;

function testBit(x: Semantics, base: Operand, offset: Operand, change: Change | null): void {
  const { f } = x;
  const bits = base.bits as Bits;
  let value: Expression;
  let write: (value: Expression) => void;
  let position: Expression;
  if (base.kind === 'memory' && offset.kind === 'register') {
    // A bit string: the offset is signed and reaches beyond the operand, whose unit still is what is accessed.
    position = offset.signed();
    const unit = position.shrS(Math.log2(bits)).shl(Math.log2(bits / 8));
    const address = f.let(base.linear(unit));
    value = x.load(address, bits, 'unsigned', change ? 'modify' : 'read');
    write = (changed) => x.store(address, bits, changed);
  } else {
    position = offset.unsigned();
    value = base.unsigned();
    write = (changed) => base.write(changed);
  }
  const place = f.let(position.and(bits - 1));
  if (change) write(change(value, i64(1).shl(place)));
  x.setFlags({ carry: value.shl(i64(63).sub(place)) });
}

const bitTests: [mnemonic: string, row: number, change: Change | null][] = [
  ['BT', 4, null],
  ['BTS', 5, (value, bit) => value.or(bit)],
  ['BTR', 6, (value, bit) => value.and(bit.not())],
  ['BTC', 7, (value, bit) => value.op('xor', bit)],
];
for (const [mnemonic, row, change] of bitTests) {
  const attributes = change ? { access: 'mr', lock: true } : {};
  const semantics: SemanticsFunction = (x, base, offset) => testBit(x, base, offset, change);
  instruction(mnemonic, `0F ${(0x83 + row * 8).toString(16).toUpperCase()} Ev Gv`, { ...attributes, displaced: true }, semantics);
  instruction(mnemonic, `0F BA/${row} Ev Ib`, attributes, semantics);
}

// The destination keeps its value, all 64 bits of it, where no bit is set. F3 before them makes them TZCNT and LZCNT where these exist.
instruction('BSF', '0F BC Gv Ev', { access: 'mr' }, (x, destination, source) => {
  const value = source.unsigned();
  x.f.if(value.nonZero(), () => destination.write(value.ctz()));
  x.setFlags({ zero: value });
});

instruction('BSR', '0F BD Gv Ev', { access: 'mr' }, (x, destination, source) => {
  const value = source.unsigned();
  x.f.if(value.nonZero(), () => destination.write(value.clz().op('xor', 63)));
  x.setFlags({ zero: value });
});

instruction('POPCNT', 'F3 0F B8 Gv Ev', { access: 'wr', feature: 'popcnt' }, (x, destination, source) => {
  const value = source.unsigned();
  destination.write(value.popcnt());
  // Only ZF may be set: a low byte of 1 has odd parity.
  x.setFlags({ zero: value, sign: 1, carry: 0, overflow: 0 });
});

/** A zero-extended value's bytes in reverse order. */
function reverseBytes(x: Semantics, value: Expression, bits: number): Expression {
  if (bits <= 32) {
    const word = value.wrap();
    const reversed = word.rotl(8).and(0x00ff00ff).or(word.rotr(8).and(0xff00ff00)).extendU();
    return bits === 32 ? reversed : reversed.shrU(16);
  }
  const bytes = 0x00ff_00ff_00ff_00ffn;
  const words = 0x0000_ffff_0000_ffffn;
  const swapped = x.f.let(value.and(bytes).shl(8).or(value.shrU(8).and(bytes)));
  return swapped.and(words).shl(16).or(swapped.shrU(16).and(words)).rotl(32);
}

instruction('BSWAP', '0F C8+ Zv', { access: 'm' }, (x, operand) => {
  // Undefined for 16 bits, where processors write 0.
  operand.write(operand.bits === 16 ? i64(0) : reverseBytes(x, operand.unsigned(), operand.bits));
});

// 66 is the operand size here, F2 makes it CRC32.
for (const prefix of ['NP', '66']) {
  for (const encoding of ['F0 Gv Mv', 'F1 Mv Gv']) {
    instruction('MOVBE', `${prefix} 0F 38 ${encoding}`, { access: 'wr', feature: 'movbe' }, (x, destination, source) =>
      destination.write(reverseBytes(x, source.unsigned(), source.bits)),
    );
  }
}

/** The Castagnoli polynomial, bits reversed. */
const CRC32C = 0x82f6_3b78n;

// Long division by the polynomial, the data's lowest bit first: each step shifts one bit out and subtracts where it was set.
instruction('CRC32', ['F2 0F 38 F0 Gy Eb', 'F2 0F 38 F1 Gy Ev'], { access: 'mr', feature: 'sse4_2' }, (x, destination, source) => {
  const { f } = x;
  const rest = f.local('i64');
  const bytesLeft = f.local('i32');
  f.set(rest, destination.unsigned().and(0xffff_ffff).op('xor', source.unsigned()));
  f.set(bytesLeft, source.bits / 8);
  f.loop((again) => {
    for (let bit = 0; bit < 8; bit++) f.set(rest, f.get(rest).shrU(1).op('xor', i64(0).sub(f.get(rest).and(1)).and(CRC32C)));
    f.set(bytesLeft, f.get(bytesLeft).sub(1));
    f.branchIf(again, f.get(bytesLeft).nonZero());
  });
  destination.write(f.get(rest));
});
