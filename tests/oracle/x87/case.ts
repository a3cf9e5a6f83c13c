/**
 * A case, an x87 operation and the state it starts from, and an outcome, what that left behind; and how the
 * implementation's outcome is had and compared with a processor's.
 */

import { FLAG_CARRY, FLAG_OVERFLOW, FLAG_SIGN, FLAG_ZERO, VCPU_STATE_SIZE } from '../../../src/cpu/state.ts';
import { FxState } from '../../../src/cpu/x87/fxsave.ts';
import {
  ST_SHIFT,
  X87,
  X87_NOT_STORED,
  X87_OK,
  X87_OPERATIONS,
  X87_PENDING,
  type X87OperationName,
} from '../../../src/cpu/x87/x87.ts';
import { ulpDistance, undefinedOf } from './undefined.ts';

/** FNSAVE's image in 32-bit protected mode. */
export const IMAGE_BYTES = 108;
export const REGISTERS_AT = 28;
export const REGISTER_BYTES = 10;
const CONTROL_AT = 0;
const STATUS_AT = 4;
const TAGS_AT = 8;
/** FIP, FCS, FOP, FDP and FDS. */
export const POINTERS_AT = 12;

export const MEMORY_BYTES = 512;

/** Operations that are not `X87`'s but `FxState`'s. */
export const FX_NAMES = ['fxsave', 'fxsave64', 'fxrstor', 'fxrstor64'] as const;
export type FxName = (typeof FX_NAMES)[number];
export type OperationName = X87OperationName | FxName;

export interface Case {
  operation: OperationName;
  i: number;
  /** CF, PF, AF, ZF, SF and OF at their places in RFLAGS. */
  rflags: number;
  /** As FRSTOR takes it. */
  image: Uint8Array;
  memory: Uint8Array;
}

export interface Outcome {
  /** The operation was not performed because of a fault, mostly an exception that was pending; nothing else counts then. */
  pending: boolean;
  rflags: number;
  image: Uint8Array;
  memory: Uint8Array;
}

export const STATUS_FLAGS = 0x8d5;
const CF = 1 << 0;
const PF = 1 << 2;
const AF = 1 << 4;
const ZF = 1 << 6;
const SF = 1 << 7;
const OF = 1 << 11;

const VCPU = 256;
const OPERAND = VCPU + VCPU_STATE_SIZE;
const SCRATCH = OPERAND + MEMORY_BYTES;
const buffer = new ArrayBuffer(65536);
const view = new DataView(buffer);
const bytes = new Uint8Array(buffer);
const x87 = new X87(buffer);
const fxState = new FxState(buffer);

function execute(operation: OperationName, i: number): number {
  switch (operation) {
    case 'fxsave':
    case 'fxsave64':
      fxState.fxsave(VCPU, OPERAND, operation === 'fxsave64');
      return X87_OK;
    case 'fxrstor':
    case 'fxrstor64':
      // A recorded fault can only be the #GP of reserved MXCSR bits, which is told as an exception that pends.
      return fxState.fxrstor(VCPU, OPERAND, operation === 'fxrstor64') ? X87_OK : X87_PENDING;
    default:
      return x87.execute(VCPU, X87_OPERATIONS[operation] | (i << ST_SHIFT), OPERAND);
  }
}

function writeFlags(rflags: number): void {
  view.setBigInt64(VCPU + FLAG_ZERO, rflags & ZF ? 0n : 1n << 40n, true);
  view.setBigInt64(VCPU + FLAG_SIGN, (rflags & SF ? 1n << 63n : 0n) | (rflags & PF ? 0x100n : 0x101n), true);
  view.setBigInt64(VCPU + FLAG_CARRY, (rflags & CF ? 1n << 63n : 0n) | (rflags & AF ? 8n : 0n), true);
  view.setBigInt64(VCPU + FLAG_OVERFLOW, rflags & OF ? 1n << 63n : 0n, true);
}

function readFlags(): number {
  const [zero, sign, carry, overflow] = [FLAG_ZERO, FLAG_SIGN, FLAG_CARRY, FLAG_OVERFLOW].map((at) =>
    view.getBigInt64(VCPU + at, true),
  );
  let ones = 0;
  for (let bit = 0n; bit < 8n; bit++) ones += Number((sign >> bit) & 1n);
  return (
    (zero === 0n ? ZF : 0) |
    (sign < 0n ? SF : 0) |
    (ones % 2 === 0 ? PF : 0) |
    (carry < 0n ? CF : 0) |
    ((carry & 8n) !== 0n ? AF : 0) |
    (overflow < 0n ? OF : 0)
  );
}

/** Runs a case on the implementation. */
export function runCase(c: Case): Outcome {
  bytes.fill(0, VCPU, VCPU + VCPU_STATE_SIZE);
  bytes.set(c.image, SCRATCH);
  x87.execute(VCPU, X87_OPERATIONS.frstor_protected32, SCRATCH);
  writeFlags(c.rflags);
  bytes.set(c.memory, OPERAND);
  const done = execute(c.operation, c.i);
  const memory = bytes.slice(OPERAND, OPERAND + MEMORY_BYTES);
  if (done === X87_NOT_STORED && memory.some((byte, at) => byte !== c.memory[at]))
    throw new Error(`${c.operation} wrote memory and denies it`);
  x87.execute(VCPU, X87_OPERATIONS.fnsave_protected32, SCRATCH);
  return { pending: done === X87_PENDING, rflags: readFlags(), image: bytes.slice(SCRATCH, SCRATCH + IMAGE_BYTES), memory };
}

function hex(data: Uint8Array, at: number, size: number): string {
  return Buffer.from(data.subarray(at, at + size))
    .reverse()
    .toString('hex');
}

function word(data: Uint8Array, at: number): number {
  return data[at] | (data[at + 1] << 8);
}

/** What differs between an expected and an actual outcome, one line each; nothing where they agree. */
export function differences(c: Case, expected: Outcome, actual: Outcome): string[] {
  const found: string[] = [];
  const check = (what: string, e: string | number, a: string | number) => {
    if (e !== a)
      found.push(typeof e === 'number' ? `${what}: ${e.toString(16)}, not ${a.toString(16)}` : `${what}: ${e}, not ${a}`);
  };
  check('pending', Number(expected.pending), Number(actual.pending));
  if (expected.pending) return found;
  const ignored = undefinedOf(c);
  check('FCW', word(expected.image, CONTROL_AT), word(actual.image, CONTROL_AT));
  check('FSW', word(expected.image, STATUS_AT) & ~ignored.status, word(actual.image, STATUS_AT) & ~ignored.status);
  check('FTW', word(expected.image, TAGS_AT), word(actual.image, TAGS_AT));
  if (!ignored.pointers)
    check(
      'pointers',
      hex(expected.image, POINTERS_AT, REGISTERS_AT - POINTERS_AT),
      hex(actual.image, POINTERS_AT, REGISTERS_AT - POINTERS_AT),
    );
  check(
    'high halves',
    hex(expected.image, 0, POINTERS_AT).replace(/(....)..../g, '$1'),
    hex(actual.image, 0, POINTERS_AT).replace(/(....)..../g, '$1'),
  );
  for (let i = 0; i < 8; i++) {
    const at = REGISTERS_AT + i * REGISTER_BYTES;
    const [e, a] = [hex(expected.image, at, REGISTER_BYTES), hex(actual.image, at, REGISTER_BYTES)];
    if (e !== a && ulpDistance(e, a) > ignored.ulps) found.push(`ST(${i}): ${e}, not ${a}`);
  }
  check('RFLAGS', expected.rflags & STATUS_FLAGS, actual.rflags & STATUS_FLAGS);
  const at = expected.memory.findIndex((byte, n) => byte !== actual.memory[n] && !ignored.memory(n));
  if (at >= 0)
    found.push(
      `memory at ${at}: ${hex(expected.memory, 0, Math.max(10, at + 4))}, not ${hex(actual.memory, 0, Math.max(10, at + 4))}`,
    );
  return found;
}

export function describeCase(c: Case): string {
  const registers = [0, 1, c.i].map((i) => hex(c.image, REGISTERS_AT + i * REGISTER_BYTES, REGISTER_BYTES));
  const words = [CONTROL_AT, STATUS_AT, TAGS_AT].map((at) => word(c.image, at).toString(16));
  const state = `FCW ${words[0]} FSW ${words[1]} FTW ${words[2]} ST(0) ${registers[0]} ST(1) ${registers[1]} ST(i) ${registers[2]}`;
  return `${c.operation} i=${c.i} ${state} memory ${hex(c.memory, 0, 10)}`;
}
