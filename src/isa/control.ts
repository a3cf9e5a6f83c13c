/**
 * Near control transfer and software interrupts: JMP, CALL, RET, Jcc, JRCXZ, LOOP, INT, INT3, INTO, BOUND, UD. SDM 2, instruction
 * reference. A target is checked before anything changes. Far transfers are elsewhere (system.ts). In 64-bit mode 66 makes a near
 * branch one of 16 bits, as AMD's processors have it; Intel's ignore it.
 */

import { type Expression, i32, i64 } from '../wasm/expression.ts';
import { CONDITIONS } from './conditions.ts';
import { BOUND_RANGE, BREAKPOINT, DEBUG, INVALID_OPCODE, OVERFLOW } from './exceptions.ts';
import { instruction } from './instruction.ts';
import type { Operand, Semantics } from './semantics.ts';

const ends = 'block' as const;
const RSP = 4;

instruction('JMP', ['EB Jb ; d64', 'E9 Jz ; d64'], { ends, modal: true }, (x, target) => x.jump(target));
instruction('JMP', 'FF/4 Ev ; d64', { ends, modal: true }, (x, target) => x.jumpTo(target.unsigned()));

instruction('CALL', 'E8 Jz ; d64', { ends, modal: true }, (x, target) => {
  x.checkTarget(x.f.let(x.target(target)));
  x.push(x.nextIp(), x.operandBits);
  x.jump(target);
});
instruction('CALL', 'FF/2 Ev ; d64', { ends, modal: true }, (x, operand) => {
  const target = operand.unsigned();
  // A stack that cannot take the return address comes first.
  const top = x.f.let(x.stackAddress(x.f.let(x.gpr(RSP, 64).unsigned().sub(x.operandBits / 8))));
  x.checkTarget(target, () => void x.load(top, x.operandBits, 'unsigned', 'modify'));
  x.push(x.nextIp(), x.operandBits);
  x.goTo(target);
});

instruction('RET', ['C3 ; d64', 'C2 Iw ; d64'], { ends, modal: true }, (x, parameterBytes) => {
  const target = x.peek(x.operandBits);
  x.checkTarget(target);
  x.dropStack(parameterBytes ? parameterBytes.unsigned().add(x.operandBits / 8) : x.operandBits / 8);
  x.goTo(target);
});

CONDITIONS.forEach((name, code) => {
  const low = code.toString(16).toUpperCase();
  instruction(`J${name}`, [`7${low} Jb ; d64`, `0F 8${low} Jz ; d64`], { ends, modal: true }, (x, target) => x.jumpIf(x.condition(code), target));
});

const RCX = 1;

instruction('JRCXZ', 'E3 Jb ; d64', { ends, modal: true, addressed: true }, (x, target) => {
  x.jumpIf(x.gpr(RCX, x.addressBits).unsigned().eqz(), target);
});

/** Counts rCX (by address size) down and jumps while it is not 0 and `condition` holds. */
function loop(x: Semantics, target: Operand, condition: Expression | null): void {
  const counter = x.gpr(RCX, x.addressBits);
  const count = x.f.let(counter.unsigned().sub(1).zeroExtend(x.addressBits));
  const taken = x.f.let(condition ? count.nonZero().and(condition) : count.nonZero());
  x.f.if(taken, () => x.checkTarget(x.f.let(x.target(target))));
  counter.write(count);
  x.jumpIf(taken, target);
}
instruction('LOOPNE', 'E0 Jb ; d64', { ends, modal: true, addressed: true }, (x, target) => loop(x, target, x.zeroFlag().eqz()));
instruction('LOOPE', 'E1 Jb ; d64', { ends, modal: true, addressed: true }, (x, target) => loop(x, target, x.zeroFlag()));
instruction('LOOP', 'E2 Jb ; d64', { ends, modal: true, addressed: true }, (x, target) => loop(x, target, null));

/** How an event was caused, as VMX numbers it (SDM 3C 25.8.3): decides on DPL checks and on what virtual-8086 mode does. */
const SOFTWARE_INTERRUPT = 4;
const PRIVILEGED_SOFTWARE_EXCEPTION = 5;
const SOFTWARE_EXCEPTION = 6;

/** Delivers an interrupt that returns behind this instruction. The helper takes the IP to push from argument 0. */
function interrupt(x: Semantics, vector: Expression, type: number): void {
  x.setArgument(0, x.nextIp());
  x.helper('interrupt', vector, type);
  x.continueAtRip();
}
instruction('INT', 'CD Ib', { ends, modal: true }, (x, vector) => interrupt(x, vector.unsigned().wrap().and(0xff), SOFTWARE_INTERRUPT));
instruction('INT3', 'CC', { ends, modal: true }, (x) => interrupt(x, i32(BREAKPOINT), SOFTWARE_EXCEPTION));
instruction('INT1', 'F1', { ends, modal: true }, (x) => interrupt(x, i32(DEBUG), PRIVILEGED_SOFTWARE_EXCEPTION));
instruction('INTO', 'CE ; n64', { ends, modal: true }, (x) => {
  x.f.if(x.overflowFlag(), () => interrupt(x, i32(OVERFLOW), SOFTWARE_EXCEPTION));
  x.leave();
});

// A pair of signed bounds lies in memory, the lower one first.
instruction('BOUND', '62 Gv Ma ; n64', { displaced: true }, (x, index, bounds) => {
  const bits = index.bits as 16 | 32;
  const value = index.signed();
  const lower = x.load(bounds.linear(i64(0)), bits, 'signed');
  const upper = x.load(bounds.linear(i64(bits / 8)), bits, 'signed');
  x.f.if(value.ltS(lower).or(value.gtS(upper)), () => x.raise(BOUND_RANGE));
});

instruction('UD0', '0F FF Gv Ev', { ends, unaccessed: true }, (x) => x.raise(INVALID_OPCODE));
instruction('UD1', '0F B9 Gv Ev', { ends, unaccessed: true }, (x) => x.raise(INVALID_OPCODE));
instruction('UD2', '0F 0B', { ends }, (x) => x.raise(INVALID_OPCODE));
