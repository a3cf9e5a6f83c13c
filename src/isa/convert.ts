/** Sign extension within the accumulator, and BCD adjustment. SDM 2, instruction reference. Undefined flags stay as they are. */

import { type Expression, i64, select } from '../wasm/expression.ts';
import { DIVIDE_ERROR } from './exceptions.ts';
import { instruction } from './instruction.ts';
import type { Semantics } from './semantics.ts';

const RAX = 0;

for (const [mnemonic, bits] of [['CBW', 16], ['CWDE', 32], ['CDQE', 64]] as const) {
  instruction(mnemonic, `98 ; s${bits}`, {}, (x) => x.gpr(RAX, bits).write(x.gpr(RAX, (bits / 2) as 8 | 16 | 32).signed()));
}
for (const [mnemonic, bits] of [['CWD', 16], ['CDQ', 32], ['CQO', 64]] as const) {
  instruction(mnemonic, `99 eDX eAX ; s${bits}`, { access: 'wr' }, (_x, high, low) => high.write(low.signed().shrS(63)));
}

const carryWord = (carry: Expression, adjust: Expression): Expression => carry.extendU().shl(63).or(adjust.extendU().shl(3));

/** DAA and DAS: AL to two decimal digits after an addition or subtraction of such. */
function decimalAdjust(x: Semantics, subtract: boolean): void {
  const { f } = x;
  const accumulator = x.gpr(RAX, 8);
  const old = accumulator.unsigned();
  const adjust = f.let(old.and(0xf).gtU(9).or(x.adjustFlag()));
  const oldCarry = f.let(x.carryFlag());
  const high = f.let(old.gtU(0x99).or(oldCarry));
  const correction = select(adjust, i64(6), i64(0)).add(select(high, i64(0x60), i64(0)));
  const result = f.let((subtract ? old.sub(correction) : old.add(correction)).signExtend(8));
  // Taking 6 from less may borrow too, where AF was set before.
  const carry = subtract ? high.or(adjust.and(old.ltU(6))) : high;
  accumulator.write(result);
  x.setFlags({ zero: result, sign: result, carry: carryWord(carry, adjust) });
}
instruction('DAA', '27 ; n64', {}, (x) => decimalAdjust(x, false));
instruction('DAS', '2F ; n64', {}, (x) => decimalAdjust(x, true));

/** AAA and AAS: AL to one decimal digit, the carry into AH. */
function unpackedAdjust(x: Semantics, subtract: boolean): void {
  const accumulator = x.gpr(RAX, 16);
  const old = accumulator.unsigned();
  const adjust = x.f.let(old.and(0xf).gtU(9).or(x.adjustFlag()));
  const correction = select(adjust, i64(0x106), i64(0));
  accumulator.write((subtract ? old.sub(correction) : old.add(correction)).and(0xff0f));
  x.setFlags({ carry: carryWord(adjust, adjust) });
}
instruction('AAA', '37 ; n64', {}, (x) => unpackedAdjust(x, false));
instruction('AAS', '3F ; n64', {}, (x) => unpackedAdjust(x, true));

instruction('AAM', 'D4 Ib ; n64', {}, (x, base) => {
  const divisor = x.f.let(base.unsigned().and(0xff));
  x.f.if(divisor.eqz(), () => x.raise(DIVIDE_ERROR));
  const value = x.gpr(RAX, 8).unsigned();
  const digit = x.f.let(value.remU(divisor));
  x.gpr(RAX, 16).write(value.divU(divisor).shl(8).or(digit));
  setDigitFlags(x, digit);
});

instruction('AAD', 'D5 Ib ; n64', {}, (x, base) => {
  const whole = x.f.let(x.gpr(RAX, 8).unsigned().add(x.highByte(0).unsigned().mul(base.unsigned())).and(0xff));
  x.gpr(RAX, 16).write(whole);
  setDigitFlags(x, whole);
});

function setDigitFlags(x: Semantics, value: Expression): void {
  const result = x.f.let(value.signExtend(8));
  x.setFlags({ zero: result, sign: result });
}
