/**
 * PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE. SDM 2, instruction reference. RSP moves only once nothing can fault any
 * more.
 */

import * as state from '../cpu/state.ts';
import { type Expression, i32, i64 } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';

const RSP = 4;
const RBP = 5;

// What is pushed is read before RSP moves: PUSH RSP pushes the old value.
instruction('PUSH', ['50+ Zv ; d64', 'FF/6 Ev ; d64', '68 Iz ; d64', '6A sIb ; d64'], { modal: true }, (x, source) => {
  x.push(source.kind === 'immediate' ? source.signed() : source.unsigned(), x.operandBits);
});

// POP RSP ends with the popped value.
instruction('POP', '58+ Zv ; d64', { access: 'w', modal: true }, (x, destination) => {
  destination.write(x.pop(x.operandBits));
});

instruction('POP', '8F/0 Ev ; d64', { access: 'w', modal: true, addressAfterPop: true }, (x, destination) => {
  const value = x.peek(x.operandBits);
  if (destination.kind === 'register') {
    x.dropStack(x.operandBits / 8);
    return destination.write(value);
  }
  destination.write(value);
  x.dropStack(x.operandBits / 8);
});

// POP of a segment register is elsewhere (system.ts). The selector is zero-extended.
for (const [name, segment, encoding] of [
  ['ES', state.ES, '06 ; n64 d64'],
  ['CS', state.CS, '0E ; n64 d64'],
  ['SS', state.SS, '16 ; n64 d64'],
  ['DS', state.DS, '1E ; n64 d64'],
  ['FS', state.FS, '0F A0 ; d64'],
  ['GS', state.GS, '0F A8 ; d64'],
] as const) {
  instruction(`PUSH ${name}`, encoding, { modal: true }, (x) => x.push(x.state32(segment + state.SEGMENT_SELECTOR).extendU(), x.operandBits));
}

/** rAX, rCX, rDX, rBX, the old rSP, rBP, rSI, rDI: stored from the top down. */
instruction('PUSHA', '60 ; n64 d64', { modal: true }, (x) => {
  const bits = x.operandBits;
  const pointer = x.gpr(RSP, 64).unsigned();
  for (let i = 0; i < 8; i++) x.store(x.f.let(x.stackAddress(pointer.sub(((i + 1) * bits) / 8))), bits, x.gpr(i, bits).unsigned());
  x.dropStack(-bits);
});

// Registers change as they are read, rSP at the end: after a fault it can run again. The image of rSP is thrown away.
instruction('POPA', '61 ; n64 d64', { modal: true }, (x) => {
  const bits = x.operandBits;
  for (let i = 0; i < 8; i++) {
    const value = x.peek(bits, (i * bits) / 8);
    if (7 - i !== RSP) x.gpr(7 - i, bits).write(value);
  }
  x.dropStack(bits);
});

const VM = 1 << 17;
const IOPL = 3 << 12;
const RF = 1 << 16;

instruction('PUSHF', '9C ; d64', { modal: true }, (x) => {
  // VM and RF are not shown.
  const flags = x.f.let(x.rflags().and(~(VM | RF)));
  if (x.longMode) return x.push(flags, x.operandBits);
  // Virtual-8086 mode wants IOPL 3, or flags of its own.
  const mode = x.state64(state.RFLAGS).and(VM | IOPL).sub(VM);
  const shown = x.f.local('i64');
  x.f.set(shown, flags);
  x.f.if(mode.ltU(IOPL), () => {
    x.helper('virtual_flags', i32(x.operandBits));
    x.f.set(shown, x.argument(0));
  });
  x.push(x.f.get(shown), x.operandBits);
});

// The helper merges what CPL and IOPL allow to change, and may raise #GP.
instruction('POPF', '9D ; d64', { modal: true, ends: 'block' }, (x) => {
  x.setArgument(0, x.peek(x.operandBits));
  x.helper('popf', x.operandBits);
  x.dropStack(x.operandBits / 8);
  x.leave();
});

instruction('ENTER', 'C8 Iw Ib ; d64', { modal: true }, (x, size, nesting) => {
  const { f } = x;
  const bits = x.operandBits;
  const bytes = bits / 8;
  const level = f.let(nesting.unsigned().and(31));
  const [stackPointer, framePointer] = [x.gpr(RSP, 64).unsigned(), x.gpr(RBP, 64).unsigned()];
  // Begun again once it has pushed something, it could read what it has pushed.
  f.if(level.nonZero(), () => void x.decline());
  x.store(f.let(x.stackAddress(stackPointer.sub(bytes))), bits, framePointer);
  const frame = f.let(stackPointer.sub(bytes));
  /** What was pushed, in bytes: the outer frames' pointers and this frame's own follow rBP. */
  const pushed = f.local('i64');
  f.set(pushed, bytes);
  f.if(level.nonZero(), () => {
    const at = (pointer: Expression): Expression => f.let(x.stackAddress(pointer.sub(f.get(pushed))));
    const end = f.let(level.mul(bytes));
    f.block((done) =>
      f.loop((again) => {
        f.branchIf(done, f.get(pushed).geU(end));
        const outer = x.load(at(framePointer), bits, 'unsigned');
        x.store(at(frame), bits, outer);
        f.set(pushed, f.get(pushed).add(bytes));
        f.branch(again);
      }),
    );
    x.store(at(frame), bits, frame);
    f.set(pushed, f.get(pushed).add(bytes));
  });
  const moved = f.let(f.get(pushed).add(size.unsigned()));
  // The new top of the stack must be writable.
  x.load(f.let(x.stackAddress(stackPointer.sub(moved), 1)), 8, 'unsigned', 'modify');
  x.gpr(RBP, bits).write(frame);
  x.dropStack(i64(0).sub(moved));
});

instruction('LEAVE', 'C9 ; d64', { modal: true }, (x) => {
  const bits = x.operandBits;
  const frame = x.gpr(RBP, 64).unsigned();
  const value = x.load(x.longMode ? frame : x.f.let(x.stackAddress(frame)), bits, 'unsigned');
  if (x.longMode) x.gpr(RSP, 64).write(frame.add(bits / 8));
  else x.dropStack(frame.add(bits / 8).sub(x.gpr(RSP, 64).unsigned()));
  x.gpr(RBP, bits).write(value);
});
