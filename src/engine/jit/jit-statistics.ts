/**
 * What the JIT did. What is known when code is compiled is always counted; what happens when it runs only if a clock is given, because counting costs
 * time in every region.
 */

import { apply, type Expression, i32, i64 } from '../../wasm/expression.ts';
import type { FunctionBuilder } from '../../wasm/function-builder.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import * as L from '../layout.ts';

/** Milliseconds since any moment, best of the thread's CPU time: the library itself knows no clock. */
export type JitClock = () => number;

/**
 * Why compiled code is left: for another block of the page or by an address (to a region, or to the interpreter), because the budget is used up, or because an
 * instruction wants more than compiled code does (faults, devices, pages that are not in the TLB). What is not compiled is counted by its mnemonic.
 */
export type RegionExit = 'link' | 'jump' | 'budget' | 'slow path';

/** A region as it was compiled: what `--dump-region` shows. */
export interface RegionRecord {
  /** Guest-virtual address of its entry when it was compiled. */
  address: bigint;
  codeBits: 16 | 32 | 64;
  /** Its blocks, the entry first: address and bytes as they were. */
  blocks: { address: bigint; bytes: Uint8Array }[];
  /** Where the code of each instruction begins, in bytes from the function's first one. */
  marks: { offset: number; address: bigint }[];
  /** The module it is in, and its name there. */
  module: Uint8Array;
  name: string;
}

export interface JitReport {
  /** Regions compiled, and of them those that are gone: a block of theirs was written to, or everything was dropped to make room. */
  regions: number;
  dropped: number;
  flushes: number;
  modules: number;
  /** Guest instructions compiled and their bytes, and the bytes of WebAssembly made from them. */
  instructions: number;
  guestBytes: number;
  wasmBytes: number;
  /** Instructions that were in a region and not compilable, by mnemonic: how many places. */
  uncompiled: Record<string, number>;
  /** Only where it was asked for. */
  run:
    | {
        /** Building modules, and making V8 compile them to start with; what it does behind our back is not in it. */
        buildMilliseconds: number;
        compileMilliseconds: number;
        /** Retired by compiled code, and by all. */
        compiledInstructions: number;
        instructions: number;
        /** How often regions were left, and how often for an instruction that is not compiled, by mnemonic. */
        exits: Record<RegionExit | 'uncompiled', number>;
        uncompiled: Record<string, number>;
      }
    | undefined;
}

const COMPILED = 'compiled instructions';
const EXITS: readonly RegionExit[] = ['link', 'jump', 'budget', 'slow path'];
const MNEMONIC = 'uncompiled ';

export class JitStatistics {
  regions = 0;
  dropped = 0;
  modules = 0;
  instructions = 0;
  guestBytes = 0;
  wasmBytes = 0;
  buildMilliseconds = 0;
  compileMilliseconds = 0;
  /** Of each region, if counting. */
  readonly records: RegionRecord[] = [];
  readonly isCounting: boolean;
  private readonly clock: JitClock;
  private readonly memory: GuestMemory;
  private readonly places = new Map<string, number>();
  private readonly slots = new Map<string, number>();

  constructor(memory: GuestMemory, clock: JitClock | undefined) {
    this.memory = memory;
    this.isCounting = clock !== undefined;
    this.clock = clock ?? (() => 0);
  }

  now(): number {
    return this.clock();
  }

  /** An instruction of a region is left to the interpreter. Builds what counts that. */
  uncompiled(f: FunctionBuilder, mnemonic: string): void {
    this.places.set(mnemonic, (this.places.get(mnemonic) ?? 0) + 1);
    this.count(f, MNEMONIC + mnemonic);
  }

  /** Builds what counts a way out of a region. */
  exit(f: FunctionBuilder, exit: RegionExit): void {
    this.count(f, exit);
  }

  /** Builds what counts instructions that a region has retired, an i32. */
  retired(f: FunctionBuilder, instructions: Expression): void {
    this.count(f, COMPILED, apply('i64.extend_i32_s', instructions));
  }

  private count(f: FunctionBuilder, name: string, by: Expression = i64(1)): void {
    if (!this.isCounting) return;
    const slot = this.slots.get(name) ?? this.slots.size;
    if (slot >= L.COUNTER_SLOTS) return;
    this.slots.set(name, slot);
    const at = i32(L.COUNTERS + 8 * slot);
    f.store('i64.store', at, at.load('i64.load').add(by));
  }

  private counted(name: string): number {
    const slot = this.slots.get(name);
    return slot === undefined ? 0 : Number(this.memory.view.getBigInt64(L.COUNTERS + 8 * slot, true));
  }

  /** `flushes` is how often all decoded code was dropped, `retired` what all vCPUs have retired. */
  report(flushes: number, retired: number): JitReport {
    const { regions, dropped, modules, instructions, guestBytes, wasmBytes, buildMilliseconds, compileMilliseconds } = this;
    const byCount = (entries: [string, number][]): Record<string, number> => Object.fromEntries(entries.filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a));
    const left = Array.from(this.places.keys(), (mnemonic): [string, number] => [mnemonic, this.counted(MNEMONIC + mnemonic)]);
    const exits = Object.fromEntries(EXITS.map((exit) => [exit, this.counted(exit)])) as Record<RegionExit, number>;
    return {
      regions, dropped, flushes, modules, instructions, guestBytes, wasmBytes,
      uncompiled: byCount([...this.places]),
      run: this.isCounting
        ? {
            buildMilliseconds, compileMilliseconds,
            compiledInstructions: this.counted(COMPILED),
            instructions: retired,
            exits: { ...exits, uncompiled: left.reduce((sum, [, count]) => sum + count, 0) },
            uncompiled: byCount(left),
          }
        : undefined,
    };
  }
}
