/**
 * What an instruction's semantics is written against: an abstract machine that hands out operands, flags, memory
 * and control flow as WebAssembly expressions. The interpreter generator implements it with operands found in a
 * decoded record, the JIT with operands known. A semantics function runs once, when code is generated.
 *
 * Conventions
 * - Integers are i64 whatever their size. `signed()` sign-extends, `unsigned()` zero-extends; a value that is written
 *   or stored may have anything above its size.
 * - Everything that is read is kept in a local at once: values don't change when the register does later.
 * - Precise faults: whatever can fault (memory reads and writes, checks) comes before the first change of state that
 *   cannot be undone by running the instruction again. With one memory destination: read all, compute, write the
 *   destination, then the flags and other registers.
 */

import type { Expression, Operand as Value } from '../wasm/expression.ts';
import type { FunctionBuilder, Signature } from '../wasm/function-builder.ts';
import type { X87Stack } from './x87-stack.ts';

export type Bits = 8 | 16 | 32 | 64;

/** One operand of the instruction at hand. */
export interface Operand {
  readonly kind: 'register' | 'memory' | 'immediate';
  /** Size in bits: 8 to 64 for integers, 32, 64 or 128 for vector operands (of memory: what is accessed). */
  readonly bits: number;
  /** The value as an i64. Immediates: sign-extended from their own size to the operand's. Of a segment register: its selector. */
  signed(): Expression;
  unsigned(): Expression;
  /** Writes the low `bits`. A 32-bit general register is zero-extended to 64, smaller ones keep the rest. */
  write(value: Expression): void;
  /** Vector register or 128-bit memory as a v128; memory of 32 or 64 bits is zero-extended. */
  vector(): Expression;
  /** The low 32 or 64 bits of a vector operand as an f32 or f64. */
  float(bits: 32 | 64): Expression;
  /** Writes 128 bits; of memory operands that are smaller, the low `bits`. */
  writeVector(value: Expression): void;
  /** Writes the low 32 or 64 `bits` of a vector register, keeping the rest; of memory, those bits. */
  writeLow(value: Expression, bits: 32 | 64): void;
  /** The effective address without segment base, an i64 cut to the address size (LEA). Memory only. */
  address(): Expression;
  /**
   * The guest-virtual address with segment base: what `Semantics.load` takes. Memory only. `displacement` (bytes, i64) is added
   * to the effective address before it is cut to the address size (bit strings, the second half of a pair).
   */
  linear(displacement?: Expression): Expression;
  /** Number of the register (segment, control, debug, x87 stack index, or any other), an i32. Registers only. */
  number(): Expression;
}

/** A function that is generated once, for whoever calls it. Its name is unique. `build` gives the results. */
export interface SharedFunction {
  name: string;
  signature: Signature;
  /** Compiled code has it in place: no call makes it save registers, be it ever so rare. */
  inlined?: boolean;
  build(f: FunctionBuilder, ...parameters: Expression[]): Expression[];
}

/** What a flag-setting instruction stores; see cpu/state.ts for the representation. Left out: unchanged. */
export interface FlagWords {
  /** ZF = (this is 0). */
  zero?: Value;
  /** SF = bit 63, PF = even parity of the low byte. */
  sign?: Value;
  /** CF = bit 63, AF = bit 3. */
  carry?: Value;
  /** OF = bit 63. */
  overflow?: Value;
}

export interface Semantics {
  /** Statements: let, if, loop, local. */
  readonly f: FunctionBuilder;
  /** 16, 32 or 64: the operand size in force. */
  readonly operandBits: 16 | 32 | 64;
  /** The code size: 64-bit mode or a legacy one (16 and 32-bit code share handlers; stack and IP widths are looked up). */
  readonly longMode: boolean;
  readonly mnemonic: string;
  /** The address size in force: what LOOP, JRCXZ, XLAT and string instructions count and address with (`addressed` attribute). */
  readonly addressBits: 16 | 32 | 64;
  /** The repeat prefix of a string instruction (`repeat` attribute), else 'none'. */
  readonly repeat: 'none' | 'rep' | 'repne';

  /** A fixed general register by number (0 RAX, 1 RCX, 2 RDX, 3 RBX, 4 RSP, 5 RBP, 6 RSI, 7 RDI, …) in a given size (8: low byte). */
  gpr(number: number, bits: Bits): Operand;
  /** AH, CH, DH, BH as number 0 to 3. */
  highByte(number: number): Operand;
  /** An XMM register by number. */
  xmm(number: number): Operand;

  // Flags. All of these may be called inside `f.if`: a shift by 0 leaves the flags alone.
  setFlags(words: FlagWords): void;
  /** Flags of a + b (+ carry in) = result, all sign-extended from the operation's size. */
  flagsOfAdd(a: Expression, b: Expression, result: Expression): void;
  /** Flags of a - b (- borrow in) = result, all sign-extended. */
  flagsOfSub(a: Expression, b: Expression, result: Expression): void;
  /** ZF, SF, PF of a sign-extended result; CF, OF, AF clear. */
  flagsOfLogic(result: Expression): void;
  /** The word that holds CF (bit 63) and AF (bit 3), the rest noise: to keep one of the two in a new `carry`. An i64. */
  carryWord(): Expression;
  /** Each flag as an i32 0 or 1. */
  carryFlag(): Expression;
  zeroFlag(): Expression;
  signFlag(): Expression;
  overflowFlag(): Expression;
  parityFlag(): Expression;
  adjustFlag(): Expression;
  /** The condition `cc` of Jcc, SETcc, CMOVcc (0 O, 1 NO, 2 B, … 15 G), an i32 0 or 1. */
  condition(cc: number): Expression;
  /** CF, PF, AF, ZF, SF, OF at their places in RFLAGS, an i64; the other bits 0. */
  statusFlags(): Expression;
  /** Sets all six from an i64 with RFLAGS' layout. */
  setStatusFlags(value: Expression): void;
  /** All of RFLAGS as PUSHF shows it, an i64. */
  rflags(): Expression;
  /** 1 or -1 by DF, an i64. */
  direction(): Expression;

  // State words by offset (cpu/state.ts)
  state32(offset: number): Expression;
  state64(offset: number): Expression;
  setState32(offset: number, value: Value): void;
  setState64(offset: number, value: Value): void;

  /** The time-stamp counter, an i64. */
  timestamp(): Expression;

  // Memory by guest-virtual address (i64, segment base included). `intent` 'modify' checks for writing, and a later store to it cannot fault.
  load(address: Expression, bits: Bits, extend: 'signed' | 'unsigned', intent?: 'read' | 'modify'): Expression;
  store(address: Expression, bits: Bits, value: Expression): void;
  /** Base of a segment (offset of its state, e.g. state.FS) as it applies: 0 for CS, DS, ES, SS in 64-bit mode. */
  segmentBase(segment: number): Expression;
  /** Base, as it applies, of the segment of an implicit DS operand: DS, or what a prefix names instead. */
  dataSegmentBase(): Expression;
  /**
   * Guest-virtual address of `bytes` bytes (i32) at an offset (i64, cut to the address size) in a segment: by the offset of its state, or
   * 'data' for DS or what a prefix names instead. Checked against the segment where it counts; may fault.
   */
  segmentAddress(segment: number | 'data', offset: Expression, bytes: Expression, access: 'read' | 'write'): Expression;
  /** Whether so many bytes (i32) from an offset on can be accessed without wrapping and without faulting for the segment: an i32. */
  fitsSegment(segment: number | 'data', offset: Expression, bytes: Expression): Expression;

  /** Linear address of the RAM at a guest-virtual address, -1 for MMIO: for a run of bytes within its page. Checked for the access; may fault. */
  bulk(address: Expression, access: 'read' | 'write'): Expression;
  /** In compiled code: linear address of the RAM of `bytes` (an i32, 1 to 4,096) from an address on, in one page; declines where that is not at hand. */
  ramAtHand(address: Expression, bytes: Expression, access: 'read' | 'write'): Expression;
  /** RAM found by `bulk` for writing has been written: code decoded from there is dropped. */
  wroteBulk(linear: Expression, bytes: Expression): void;

  // Stack; sizes in bits. Addresses, wrapping and limits follow the mode.
  push(value: Expression, bits: 16 | 32 | 64): void;
  pop(bits: 16 | 32 | 64): Expression;
  /** What `pop` would give (zero-extended), without moving RSP; RSP moves when `dropStack` is called. */
  peek(bits: 16 | 32 | 64, offsetBytes?: number): Expression;
  /** Guest-virtual address of `bytes` bytes (the operand size) at SS:pointer, cut to the stack's width (64 bits in 64-bit mode, else 16 or 32 by SS.B) and checked. For ENTER, LEAVE, PUSHA. */
  stackAddress(pointer: Expression, bytes?: number): Expression;
  /** RSP += bytes (i64, may be negative) within the stack's width. */
  dropStack(bytes: Value): void;

  // Control flow. Each of these ends the handler; an instruction that uses one has `ends: 'block'`.
  /** Jumps to a relative target (a J operand); as `target` and `jumpIf` do, it cuts IP to 16 bits where the operand size is 16. */
  jump(target: Operand): void;
  /** Jumps if `condition` (i32), else goes on behind this instruction. */
  jumpIf(condition: Expression, target: Operand): void;
  /** Jumps to an address (i64 offset in CS), after the canonical or limit check. */
  jumpTo(address: Expression): void;
  /** Checks a target without jumping: #GP where it is not canonical or beyond the limit, after `first`, whose own fault comes before that. */
  checkTarget(address: Expression, first?: () => void): void;
  /** Jumps without a check: a bad target faults when it is fetched, behind the jump. */
  goTo(address: Expression): void;
  /** Offset in CS of the next instruction, an i64. */
  nextIp(): Expression;
  ip(): Expression;
  /** What FOP keeps of an x87 instruction: its opcode's low 3 bits and ModRM, an i32. */
  opcodeNote(): Expression;
  /** The target of a J operand as an i64. */
  target(operand: Operand): Expression;

  /** Raises an exception without or with an error code. Nothing after it runs. */
  raise(vector: number): void;
  raiseWithCode(vector: number, code: number): void;
  /** #GP(0) unless CPL is 0. */
  requirePrivilege(): void;
  /** #UD or #NM by CR0.EM, CR0.TS, CR4.OSFXSR. */
  requireSse(): void;
  /** #NM where the FPU is emulated (CR0.EM) or another task's (CR0.TS). */
  requireFpu(): void;
  /** An x87 operation the quick way, or `exact`, in TypeScript, where that gives up. Compiled code leaves that to the interpreter. */
  x87(quick: (stack: X87Stack) => void, exact: () => void): void;
  /** #UD or #NM by CR0.EM and TS, #MF where an x87 exception is pending; then, once nothing can fault any more, TOP = 0 and all tags valid. */
  enterMmx(): void;
  /** The checks of `enterMmx` alone. */
  requireMmx(): void;
  /** Whether this is compiled code, which does what is frequent and declines the rest. */
  readonly isCompiled: boolean;
  /** In compiled code: leaves the instruction, of which nothing has happened yet, to the interpreter. False in the interpreter. */
  decline(): boolean;
  /** Whether the bits `mask` of MXCSR are others than `expected`: an i32, 0 or 1. */
  mxcsrDiffers(mask: number, expected: number): Expression;
  /** No lane of a value that was kept is denormal where code goes on: `decline` has kept such values away. */
  noteNormal(value: Expression): void;
  /** Whether that is known of a value. */
  isNormal(value: Expression): boolean;
  /** Calls a shared function; gives its results. */
  shared(target: SharedFunction, ...operands: Expression[]): Expression[];
  /** #GP(0) unless the address is 16-byte aligned. */
  requireAligned(address: Expression, bytes: number): void;

  /**
   * Calls `name` of the vCPU's TypeScript half (engine/runtime.ts) with i32 arguments; it may fault. State in linear memory is
   * up to date while it runs and read again after it. Returns its i32.
   */
  helper(name: string, ...args: Value[]): Expression;
  /** i64 slots shared with helpers (state.ARGUMENT): arguments before, results after. */
  argument(index: number): Expression;
  setArgument(index: number, value: Expression): void;
  /** CPL or RFLAGS.AC changed: chooses the translation context that goes with them. */
  updateTranslation(): void;
  /** Leaves to the run loop after this instruction; RIP is the next one. For instructions with `ends: 'block'`. */
  leave(): void;
  /** Leaves to the run loop, which runs this instruction again if nothing else is due: registers say how far it has got. */
  restart(): void;
  /** Leaves to the run loop; RIP was set by a helper. */
  leaveAtRip(): void;
  /** As `leaveAtRip`, but goes on at the new RIP at once where nothing is pending. */
  continueAtRip(): void;
}
