/**
 * What lies where in linear memory's arena, and in its records: decoded operations, TLB entries, jump caches.
 * Guest RAM follows the arena (memory/guest-memory.ts).
 */

import { VCPU_STATE_SIZE } from '../cpu/state.ts';

/**
 * A decoded operation: 64 bytes, one cache line. Operations of a block lie one behind the other, so the next one is
 * always at +64. Byte offsets:
 */
export const OP_SIZE = 64;
/** Table index of the handler, u16: the interpreter's, or for a block's first operation that of a compiled region. */
export const OP_HANDLER = 0;
/** Table index of the interpreter's handler, u16. */
export const OP_INTERPRETED = 2;
/** Offset of the instruction, and of the one behind it (may be 4096 or more), in its page of linear addresses; u16. */
export const OP_IP = 4;
export const OP_NEXT_IP = 6;
/** Instructions in the block behind this one, u16: what a fault gives back to the budget. */
export const OP_REMAINING = 8;
/** x87 opcode (FOP) in the low 11 bits, and what a non-canonical address of the operation is, u16. */
export const OP_EXTRA = 10;
/** Its memory operand lies in SS, or it has none and only the stack is accessed: #SS. */
export const STACK_OPERAND = 1 << 15;
/** It accesses the stack besides its memory operand. */
export const STACK_TOO = 1 << 14;
/** For each operand that is a register: its byte offset in the vCPU's state, or a number (segment, control…); i32. */
export const OP_REGISTER = 12;
/** Memory operand: offsets of base and index registers and of the segment's base in the vCPU's state, and the scale's shift; i32. */
export const OP_BASE = 28;
export const OP_INDEX = 32;
export const OP_SCALE = 36; // u8
/** Of a block's first operation: how often it was entered, u16; wraps around. */
export const OP_HEAT = 38;
export const OP_SEGMENT = 40;
/** Displacement (sign-extended i32; for RIP-relative and O operands relative to base), and the immediate, an i64. */
export const OP_DISPLACEMENT = 44;
export const OP_IMMEDIATE = 48;
/** Branch target in the same page: the block's first operation; 0 not looked up yet, 1 in another page. i32 */
export const OP_LINK = 56;
/** The same for the fall-through of a conditional branch, or for what follows a block that was cut. */
export const OP_LINK_NEXT = 60;
export const LINK_UNKNOWN = 0;
export const LINK_OTHER_PAGE = 1;

/**
 * A translation context: a TLB, and a generation of the jump cache, for one address space slot and one kind of access. Kind 0 is user mode, 1
 * supervisor, 2 supervisor that may touch user pages under SMAP (RFLAGS.AC), 3 user mode with alignment checks: its TLB stays
 * empty, so that every access takes the slow path, which checks.
 */
export const TLB_ENTRIES = 512;
/** Tag for reads (i64), tag for writes (i64), addend that makes a guest-virtual address a linear one (i32), padding. */
export const TLB_ENTRY_SIZE = 32;
export const TLB_READ = 0;
export const TLB_WRITE = 8;
export const TLB_ADDEND = 16;
const TLB_BYTES = TLB_ENTRIES * TLB_ENTRY_SIZE;
/** A tag that no page-aligned address equals. */
export const TLB_INVALID = -1;
/**
 * The generation, an i32 with its low 8 bits (where the mode goes) clear. Each user context has its own; all supervisor contexts of a
 * vCPU have the same, as a kernel's code is there in every address space: see TRAIT_LOCAL_CODE. A new one makes the vCPU's jump cache
 * forget the context's entries.
 */
export const CONTEXT_GENERATION = TLB_BYTES;
export const GENERATION_STEP = 256;
/** Which groups of TLB entries may hold anything, a bit each: what a flush has to empty, and a search to look through. i64 */
export const CONTEXT_FILLED = CONTEXT_GENERATION + 8;
export const TLB_GROUP = TLB_ENTRIES / 64;
/** Pages that the jump cache may know targets of user mode's in, by the low bits of their number, a bit each: what INVLPG has to reckon with. */
export const CONTEXT_JUMP_PAGES = CONTEXT_GENERATION + 16;
export const JUMP_PAGE_BITS = 256;
export const CONTEXT_SIZE = CONTEXT_GENERATION + 64;
export const CONTEXT_KINDS = 4;
export const USER_CONTEXT = 0;
export const SUPERVISOR_CONTEXT = 1;
export const SUPERVISOR_AC_CONTEXT = 2;
export const CHECKED_CONTEXT = 3;
/** Address spaces (CR3 with PCID) whose translations are kept side by side. */
export const CONTEXT_SLOTS = 6;

/**
 * A vCPU's jump cache, behind its contexts. Guest RIP and what makes it unique (i64, see CODE_KEY), the block's first operation (i32, 0
 * is none), its mode and the generation of the context it was entered in (i32).
 */
export const JUMP_CACHE = VCPU_STATE_SIZE + CONTEXT_SIZE * CONTEXT_KINDS * CONTEXT_SLOTS;
export const JUMP_ENTRIES = 8192;
export const JUMP_ENTRY_SIZE = 16;
/**
 * Pages that code was found in lately, for what the jump cache misses, by the low bits of their number: guest-virtual page (i64), the
 * generation it was found in (i32, as in the jump cache), linear address (i32).
 */
export const CODE_TLB = JUMP_CACHE + JUMP_ENTRIES * JUMP_ENTRY_SIZE;
export const CODE_TLB_ENTRIES = 256;
export const CODE_TLB_ENTRY_SIZE = 16;
/** As CONTEXT_JUMP_PAGES, for supervisor mode's code in the lower half of addresses. */
export const SUPERVISOR_JUMP_PAGES = CODE_TLB + CODE_TLB_ENTRIES * CODE_TLB_ENTRY_SIZE;
export const SUPERVISOR_PAGE_BITS = 2048;
const VCPU_BYTES = SUPERVISOR_JUMP_PAGES + SUPERVISOR_PAGE_BITS / 8;
/** Counters of the JIT's statistics, i64 each, below the arena. */
export const COUNTERS = 4096;
export const COUNTER_SLOTS = 512;
/** Nothing of a vCPU lies below this: offset 0 stands for "none". */
const ARENA_START = COUNTERS + 8 * COUNTER_SLOTS;
/** A helper's scratch memory, below the arena. */
export const SCRATCH = 1024;
/** Highest cycle count that any vCPU's TSC was made of, an i64: no vCPU sees an older one later, whatever order they run in. */
export const CYCLES_SEEN = 512;

/**
 * Blocks by the linear address of their first byte, for what the jump caches miss: address, mode, first operation; i32 each. Where
 * a block goes is what BLOCK_HASH (2^32 divided by the golden ratio) times its address has in the upper bits, or the other entry of
 * that pair.
 */
export const BLOCK_ENTRIES = 1 << 17;
export const BLOCK_ENTRY_SIZE = 16;
export const BLOCK_HASH = 0x9e37_79b1 | 0;
export const BLOCK_HASH_SHIFT = 32 - Math.log2(BLOCK_ENTRIES);

export interface Layout {
  vcpuCount: number;
  vcpuBytes: number;
  /** 8 bytes for each page of RAM: a bit for each 64 bytes that code was decoded from. */
  codeLines: number;
  /** A byte for each page of RAM: the vCPU (1 and up) that may have an entry in a TLB that lets writes through to it, or MANY_WRITERS. */
  pageWriters: number;
  blockTable: number;
  /** Where decoded operations go, in chunks. */
  operations: number;
  operationBytes: number;
  /** Everything: where RAM may start. */
  arenaBytes: number;
}

/**
 * Memory for decoded code: half of what RAM has, since decoded code takes some 12 times its bytes and what does not fit at once is decoded
 * over and over. Memory that no code was decoded to is not touched. What linear memory can address is shared with RAM.
 */
const LEAST_OPERATION_BYTES = 96 << 20;
const MOST_OPERATION_BYTES = 1024 << 20;
const ADDRESSABLE_BYTES = 2 ** 32 - (1 << 20);

function operationBytesFor(ramBytes: number, otherBytes: number): number {
  const wanted = Math.min(MOST_OPERATION_BYTES, Math.max(LEAST_OPERATION_BYTES, ramBytes / 2));
  return Math.min(wanted, Math.floor((ADDRESSABLE_BYTES - ramBytes - otherBytes) / OP_SIZE) * OP_SIZE);
}

/** The arena for `vcpuCount` vCPUs and `ramBytes` of RAM. */
export function layOut(vcpuCount: number, ramBytes: number, wantedOperationBytes?: number): Layout {
  const codeLines = Math.ceil((ARENA_START + vcpuCount * VCPU_BYTES) / 4096) * 4096;
  const pageWriters = codeLines + (ramBytes / 4096) * 8;
  const blockTable = pageWriters + Math.ceil(ramBytes / 4096 / 32) * 32;
  const operations = blockTable + BLOCK_ENTRIES * BLOCK_ENTRY_SIZE;
  const operationBytes = wantedOperationBytes ?? operationBytesFor(ramBytes, operations);
  return { vcpuCount, vcpuBytes: VCPU_BYTES, codeLines, pageWriters, blockTable, operations, operationBytes, arenaBytes: operations + operationBytes };
}

export const MANY_WRITERS = 255;

/** Linear address of vCPU `index`'s state. */
export const vcpuBase = (index: number): number => ARENA_START + index * VCPU_BYTES;
/** Linear address of a translation context of the vCPU at `base`. */
export const contextBase = (base: number, slot: number, kind: number): number =>
  base + VCPU_STATE_SIZE + (slot * CONTEXT_KINDS + kind) * CONTEXT_SIZE;
