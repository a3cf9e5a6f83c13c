/**
 * x87 instructions. All that they do is defined in TypeScript (cpu/x87/), called by the number of the operation. What programs do most has
 * a quick way besides (x87-quick.ts), in WebAssembly, which gives up where something is out of the ordinary. SDM 1 chapter 8, SDM 2 F-.
 * Of FIP, FDP and FOP each instruction that is not a control instruction keeps the last, as Intel's manual has it.
 */

import * as state from '../cpu/state.ts';
import { ERROR_SUMMARY } from '../cpu/x87/register-stack.ts';
import { ST_SHIFT, X87_NOT_STORED, X87_OPERATIONS, X87_PENDING, type X87OperationName } from '../cpu/x87/x87.ts';
import { type Expression, i32, i64 } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import type { Operand, Semantics } from './semantics.ts';
import { quickLoad, quickStore, quickWay } from './x87-quick.ts';

const DEVICE_NOT_AVAILABLE = 7;
const X87_ERROR = 16;
const CR0_MP_TS = 0xa;

/** #MF where an earlier exception is pending: before memory is touched. */
function requireNothingPending(x: Semantics): void {
  x.f.if(x.state32(state.FSW).and(ERROR_SUMMARY), () => x.raise(X87_ERROR));
}

/** Runs an operation in TypeScript; #MF where an earlier exception is pending. Leaves its status. */
function executeExactly(x: Semantics, name: X87OperationName, register?: Operand): Expression {
  const index = X87_OPERATIONS[name];
  const operation = register ? register.number().shl(ST_SHIFT).or(index) : i32(index);
  const status = x.helper('x87', operation);
  x.f.if(status.eq(X87_PENDING), () => x.raise(X87_ERROR));
  return status;
}

/** Runs an operation that has its operands on the stack. */
function execute(x: Semantics, name: X87OperationName, register?: Operand): void {
  const quick = quickWay(name);
  if (!quick) executeExactly(x, name, register);
  else
    x.x87(
      (s) => quick(x, s, register ?? 0),
      () => executeExactly(x, name, register),
    );
}

/** Notes which instruction it is, for FSTENV and FXSAVE. */
function remember(x: Semantics, memory?: Operand): void {
  x.setState64(state.FIP, x.ip());
  x.setState32(state.FOP, x.opcodeNote());
  if (memory) x.setState64(state.FDP, memory.linear());
}

/** What is in the scratch operand of the helper. */
const OPERAND = state.ARGUMENT + 8;

/** Instructions without operands: D9 D0 to D9 FF, DA E9, DB E2 and the like. */
const plain: [mnemonic: string, encoding: string, operation: X87OperationName][] = [
  ['FNOP', 'D9 D0', 'fnop'], ['FCHS', 'D9 E0', 'fchs'], ['FABS', 'D9 E1', 'fabs'], ['FTST', 'D9 E4', 'ftst'], ['FXAM', 'D9 E5', 'fxam'],
  ['FLD1', 'D9 E8', 'fld1'], ['FLDL2T', 'D9 E9', 'fldl2t'], ['FLDL2E', 'D9 EA', 'fldl2e'], ['FLDPI', 'D9 EB', 'fldpi'], ['FLDLG2', 'D9 EC', 'fldlg2'], ['FLDLN2', 'D9 ED', 'fldln2'], ['FLDZ', 'D9 EE', 'fldz'],
  ['F2XM1', 'D9 F0', 'f2xm1'], ['FYL2X', 'D9 F1', 'fyl2x'], ['FPTAN', 'D9 F2', 'fptan'], ['FPATAN', 'D9 F3', 'fpatan'], ['FXTRACT', 'D9 F4', 'fxtract'], ['FPREM1', 'D9 F5', 'fprem1'], ['FDECSTP', 'D9 F6', 'fdecstp'], ['FINCSTP', 'D9 F7', 'fincstp'],
  ['FPREM', 'D9 F8', 'fprem'], ['FYL2XP1', 'D9 F9', 'fyl2xp1'], ['FSQRT', 'D9 FA', 'fsqrt'], ['FSINCOS', 'D9 FB', 'fsincos'], ['FRNDINT', 'D9 FC', 'frndint'], ['FSCALE', 'D9 FD', 'fscale'], ['FSIN', 'D9 FE', 'fsin'], ['FCOS', 'D9 FF', 'fcos'],
  ['FUCOMPP', 'DA E9', 'fucompp'], ['FCOMPP', 'DE D9', 'fcompp'],
]; // biome-ignore format: a table
for (const [mnemonic, encoding, operation] of plain) {
  instruction(mnemonic, encoding, {}, (x) => {
    x.requireFpu();
    execute(x, operation);
    remember(x);
  });
}

/** Control instructions: they leave FIP and its like alone. FNENI, FNDISI, FNSETPM are relics that do nothing. */
const control: [mnemonic: string, encoding: string, operation: X87OperationName][] = [
  ['FNENI', 'DB E0', 'fneni'], ['FNDISI', 'DB E1', 'fneni'], ['FNCLEX', 'DB E2', 'fnclex'], ['FNINIT', 'DB E3', 'fninit'], ['FNSETPM', 'DB E4', 'fneni'],
]; // biome-ignore format: a table
for (const [mnemonic, encoding, operation] of control) {
  instruction(mnemonic, encoding, {}, (x) => {
    x.requireFpu();
    execute(x, operation);
  });
}
instruction('FWAIT', '9B', {}, (x) => {
  x.f.if(x.state32(state.CR0).and(CR0_MP_TS).eq(CR0_MP_TS), () => x.raise(DEVICE_NOT_AVAILABLE));
  execute(x, 'fwait');
});

/** With ST(i) in the opcode. Undocumented aliases that every CPU has are encodings like the others. */
const registers: [mnemonic: string, encodings: string[], operation: X87OperationName][] = [
  ['FLD', ['D9 C0+ i'], 'fld_sti'], ['FXCH', ['D9 C8+ i', 'DD C8+ i', 'DF C8+ i'], 'fxch_sti'], ['FSTPNCE', ['D9 D8+ i'], 'fstpnce_sti'],
  ['FCMOVB', ['DA C0+ i'], 'fcmovb_sti'], ['FCMOVE', ['DA C8+ i'], 'fcmove_sti'], ['FCMOVBE', ['DA D0+ i'], 'fcmovbe_sti'], ['FCMOVU', ['DA D8+ i'], 'fcmovu_sti'],
  ['FCMOVNB', ['DB C0+ i'], 'fcmovnb_sti'], ['FCMOVNE', ['DB C8+ i'], 'fcmovne_sti'], ['FCMOVNBE', ['DB D0+ i'], 'fcmovnbe_sti'], ['FCMOVNU', ['DB D8+ i'], 'fcmovnu_sti'],
  ['FUCOMI', ['DB E8+ i'], 'fucomi_sti'], ['FCOMI', ['DB F0+ i'], 'fcomi_sti'], ['FUCOMIP', ['DF E8+ i'], 'fucomip_sti'], ['FCOMIP', ['DF F0+ i'], 'fcomip_sti'],
  ['FFREE', ['DD C0+ i'], 'ffree_sti'], ['FFREEP', ['DF C0+ i'], 'ffreep_sti'], ['FST', ['DD D0+ i'], 'fst_sti'], ['FSTP', ['DD D8+ i', 'DF D0+ i', 'DF D8+ i'], 'fstp_sti'],
  ['FUCOM', ['DD E0+ i'], 'fucom_sti'], ['FUCOMP', ['DD E8+ i'], 'fucomp_sti'], ['FCOM', ['D8 D0+ i', 'DC D0+ i'], 'fcom_sti'], ['FCOMP', ['D8 D8+ i', 'DC D8+ i', 'DE D0+ i'], 'fcomp_sti'],
]; // biome-ignore format: a table
for (const [mnemonic, encodings, operation] of registers) {
  instruction(mnemonic, encodings, {}, (x, register) => {
    x.requireFpu();
    execute(x, operation, register);
    remember(x);
  });
}

/** Runs an operation on a memory operand (16 to 80 bits). */
function executeOn(x: Semantics, name: X87OperationName, memory: Operand): void {
  const wide = memory.bits > 64;
  const low = wide ? x.load(memory.linear(), 64, 'unsigned') : memory.unsigned();
  const high = wide ? x.load(memory.linear().add(8), 16, 'unsigned') : i64(0);
  const exact = (): void => {
    x.setState64(OPERAND, low);
    if (wide) x.setState64(OPERAND + 8, high);
    executeExactly(x, name);
  };
  const quick = quickLoad(name, memory.bits);
  if (quick) x.x87((s) => quick(x, s, low, high), exact);
  else exact();
}

function fromMemory(mnemonic: string, encoding: string, operation: X87OperationName): void {
  instruction(mnemonic, encoding, {}, (x, memory) => {
    x.requireFpu();
    requireNothingPending(x);
    executeOn(x, operation, memory);
    remember(x, memory);
  });
}

/** Stores. In TypeScript memory is checked for writing first, for the operation cannot be undone after it popped. */
function toMemory(mnemonic: string, encoding: string, operation: X87OperationName, isControl = false): void {
  instruction(mnemonic, encoding, { access: 'w', ...(mnemonic === 'FISTTP' && { feature: 'pni' }) }, (x, memory) => {
    x.requireFpu();
    const wide = memory.bits > 64;
    const bits = wide ? 64 : (memory.bits as 16 | 32 | 64);
    const address = memory.linear();
    const exact = (): void => {
      if (!isControl) requireNothingPending(x);
      x.load(address, bits, 'unsigned', 'modify');
      if (wide) x.load(address.add(8), 16, 'unsigned', 'modify');
      const status = executeExactly(x, operation);
      x.f.if(status.ne(X87_NOT_STORED), () => {
        x.store(address, bits, x.state64(OPERAND));
        if (wide) x.store(address.add(8), 16, x.state64(OPERAND + 8));
      });
    };
    const quick = quickStore(operation, memory.bits);
    if (quick) x.x87((s) => quick(x, s, memory), exact);
    else exact();
    if (!isControl) remember(x, memory);
  });
}

// Arithmetic: ModRM.reg says which, the opcode says with what.
const ARITHMETIC = ['add', 'mul', 'com', 'comp', 'sub', 'subr', 'div', 'divr'] as const;
for (const [digit, name] of ARITHMETIC.entries()) {
  const upper = name.toUpperCase();
  fromMemory(`F${upper}`, `D8/${digit} Md`, `f${name}_m32`);
  fromMemory(`F${upper}`, `DC/${digit} Mq`, `f${name}_m64`);
  fromMemory(`FI${upper}`, `DA/${digit} Md`, `fi${name}_m32`);
  fromMemory(`FI${upper}`, `DE/${digit} Mw`, `fi${name}_m16`);
  if (name === 'com' || name === 'comp') continue;
  const row = (0xc0 + 8 * digit).toString(16).toUpperCase();
  // With ST(i) as destination, FSUB and FSUBR, FDIV and FDIVR change places in the opcode map.
  const reversed = name.startsWith('sub') || name.startsWith('div') ? 0xc0 + 8 * (digit ^ 1) : 0xc0 + 8 * digit;
  const other = reversed.toString(16).toUpperCase();
  for (const [mnemonic, encoding, operation] of [
    [`F${upper}`, `D8 ${row}+ i`, `f${name}_st0_sti`],
    [`F${upper}`, `DC ${other}+ i`, `f${name}_sti_st0`],
    [`F${upper}P`, `DE ${other}+ i`, `f${name}p_sti_st0`],
  ] as const) {
    instruction(mnemonic, encoding, {}, (x, register) => {
      x.requireFpu();
      execute(x, operation, register);
      remember(x);
    });
  }
}

fromMemory('FLD', 'D9/0 Md', 'fld_m32');
fromMemory('FLD', 'DD/0 Mq', 'fld_m64');
fromMemory('FLD', 'DB/5 Mt', 'fld_m80');
fromMemory('FILD', 'DF/0 Mw', 'fild_m16');
fromMemory('FILD', 'DB/0 Md', 'fild_m32');
fromMemory('FILD', 'DF/5 Mq', 'fild_m64');
fromMemory('FBLD', 'DF/4 Mt', 'fbld_m80');
toMemory('FST', 'D9/2 Md', 'fst_m32');
toMemory('FST', 'DD/2 Mq', 'fst_m64');
toMemory('FSTP', 'D9/3 Md', 'fstp_m32');
toMemory('FSTP', 'DD/3 Mq', 'fstp_m64');
toMemory('FSTP', 'DB/7 Mt', 'fstp_m80');
toMemory('FIST', 'DF/2 Mw', 'fist_m16');
toMemory('FIST', 'DB/2 Md', 'fist_m32');
toMemory('FISTP', 'DF/3 Mw', 'fistp_m16');
toMemory('FISTP', 'DB/3 Md', 'fistp_m32');
toMemory('FISTP', 'DF/7 Mq', 'fistp_m64');
toMemory('FISTTP', 'DF/1 Mw', 'fisttp_m16');
toMemory('FISTTP', 'DB/1 Md', 'fisttp_m32');
toMemory('FISTTP', 'DD/1 Mq', 'fisttp_m64');
toMemory('FBSTP', 'DF/6 Mt', 'fbstp_m80');
toMemory('FNSTCW', 'D9/7 Mw', 'fnstcw', true);
toMemory('FNSTSW', 'DD/7 Mw', 'fnstsw', true);
instruction('FNSTSW', 'DF E0', {}, (x) => {
  x.requireFpu();
  x.x87(
    (s) => x.gpr(0, 16).write(s.status().extendU()),
    () => {
      executeExactly(x, 'fnstsw');
      x.gpr(0, 16).write(x.state64(OPERAND));
    },
  );
});
instruction('FLDCW', 'D9/5 Mw', {}, (x, memory) => {
  x.requireFpu();
  requireNothingPending(x);
  executeOn(x, 'fldcw', memory);
});

// Environments and whole states go to and from memory in the helper, by operand size and mode.
for (const [mnemonic, encoding, name] of [
  ['FLDENV', 'D9/4 Menv', 'fldenv'], ['FNSTENV', 'D9/6 Menv', 'fnstenv'], ['FRSTOR', 'DD/4 Mfpu', 'frstor'], ['FNSAVE', 'DD/6 Mfpu', 'fnsave'],
] as const) {
  instruction(mnemonic, [16, 32, 64].map((bits) => `${encoding} ; mem s${bits}`), { access: name.startsWith('fn') ? 'w' : 'r', modal: true }, (x, memory) => {
    x.requireFpu();
    if (name === 'fldenv' || name === 'frstor') requireNothingPending(x);
    x.setArgument(0, memory.linear());
    x.helper('x87_state', i32(['fldenv', 'fnstenv', 'frstor', 'fnsave'].indexOf(name)), i32(x.operandBits === 16 ? 16 : 32));
  });
}
