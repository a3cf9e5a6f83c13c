/**
 * What guest code agrees on: which registers carry arguments, which survive a call, how per-CPU variables are reached. 64-bit
 * code follows the System V ABI; 32-bit code passes three arguments in registers, as Linux builds i386.
 */

import type { Assembler } from '../assembler/assembler.ts';
import {
  address,
  eax,
  ebp,
  ebx,
  ecx,
  edi,
  edx,
  esi,
  fs,
  gs,
  type GeneralRegister,
  type Memory,
  type MemoryPart,
  native,
  r12,
  r12d,
  r13,
  r13d,
  rax,
  rbp,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
} from '../assembler/operands.ts';

export type GuestBits = 32 | 64;

export interface GuestAbi {
  bits: GuestBits;
  /** Bytes of a pointer and of a CPU mask, which is one machine word. */
  word: 4 | 8;
  /** Arguments, whole and their low 32 bits. The first may be the result, too. */
  arguments: readonly [GeneralRegister, GeneralRegister, GeneralRegister];
  arguments32: readonly [GeneralRegister, GeneralRegister, GeneralRegister];
  /** The result; free before that. */
  result: GeneralRegister;
  result32: GeneralRegister;
  /** Not used by any argument but the third (32-bit), and lost in a call. */
  scratch: GeneralRegister;
  scratch32: GeneralRegister;
  /** What the callee must save. */
  saved: readonly [GeneralRegister, GeneralRegister, GeneralRegister, GeneralRegister];
  saved32: readonly [GeneralRegister, GeneralRegister, GeneralRegister, GeneralRegister];
  /** A machine word of memory. */
  pointer(...parts: MemoryPart[]): Memory;
  /** A per-CPU variable, by its offset's symbol. */
  perCpu(symbol: string, bits?: 32): Memory;
}

const ABI_64: GuestAbi = {
  bits: 64,
  word: 8,
  arguments: [rdi, rsi, rdx],
  arguments32: [edi, esi, edx],
  result: rax,
  result32: eax,
  scratch: rcx,
  scratch32: ecx,
  saved: [rbx, rbp, r12, r13],
  saved32: [ebx, ebp, r12d, r13d],
  pointer: (...parts) => native(64, ...parts),
  perCpu: (symbol, bits) => native(bits ?? 64, gs, address(symbol)),
};

const ABI_32: GuestAbi = {
  bits: 32,
  word: 4,
  arguments: [eax, edx, ecx],
  arguments32: [eax, edx, ecx],
  result: eax,
  result32: eax,
  scratch: ecx,
  scratch32: ecx,
  saved: [ebx, esi, edi, ebp],
  saved32: [ebx, esi, edi, ebp],
  pointer: (...parts) => native(32, ...parts),
  perCpu: (symbol) => native(32, fs, address(symbol)),
};

export const guestAbi = (bits: GuestBits): GuestAbi => (bits === 64 ? ABI_64 : ABI_32);

/** Writes one function: its label is placed already. */
export type EmitFunction = (a: Assembler, abi: GuestAbi) => void;

/** Functions by symbol. */
export type GuestFunctions = Record<string, EmitFunction>;
