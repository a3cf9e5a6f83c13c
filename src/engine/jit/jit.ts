/**
 * Compiles hot code: which, when, and for how long. A region (region-graph.ts) becomes one WebAssembly function with the interpreter's
 * signature, which takes the place of the first handler of the blocks it may be entered at. Regions leave as the interpreter's blocks do,
 * and check the budget where it does, so a run is the same with and without them.
 *
 * Policy: of a block that is hot the region is found at once, while it is known where addresses lead; regions are compiled some at a
 * time, in one module. V8's optimizing compiler, which soon follows, costs a hundred times what finding and building does, so code is
 * compiled twice only where that pays: a region ends where another one begins, and what another region of its module contains is no
 * region of its own unless it is still hot after that. A region that is entered very often is made anew, once, without these limits and with what it calls
 * inside. A region goes when any of its blocks becomes stale. There may be so many of them; then all decoded code is dropped.
 */

import * as state from '../../cpu/state.ts';
import type { CodeMode } from '../../isa/decoder.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { ModuleBuilder } from '../../wasm/module-builder.ts';
import type { Block, BlockCache } from '../block-cache.ts';
import { type Interpreter, REGION_CAPACITY } from '../interpreter.ts';
import { HANDLER } from '../interpreter-semantics.ts';
import * as L from '../layout.ts';
import { type JitClock, JitStatistics, type RegionRecord } from './jit-statistics.ts';
import { RegionBuilder } from './region-builder.ts';
import { RegionFinder, type RegionGraph } from './region-graph.ts';
import { importForRegions, type RegionImports, regionEnvironment } from './region-imports.ts';
import { usedRegisters } from './region-x87.ts';
import { SingleInstructions } from './single-instructions.ts';

/** Where counting a block's entries goes on when the counter has come round. */
const COUNTED = 0x8000;

/** When code is compiled. */
export interface JitPolicy {
  /** Entries that make a block hot, and each time so many after that: a power of two. */
  hotEntries: number;
  /** Entries that make one worth having in another's region. */
  warmEntries: number;
  /** Entries that make a region worth making anew with its callees. */
  veryHotEntries: number;
  /** Regions to a module, and how many instructions without a further one less than these wait. */
  batch: number;
  patience: number;
  /** Regions there may be at a time, REGION_CAPACITY at most. */
  capacity: number;
}

export const JIT_POLICY: JitPolicy = { hotEntries: 32768, warmEntries: 500, veryHotEntries: 1 << 19, batch: 64, patience: 1 << 22, capacity: 16384 };
/** Every block is compiled at first sight; eight to a module, for a boot has some 70,000 regions, and a module costs more than a region. Meanwhile they are interpreted. */
export const JIT_FORCED: JitPolicy = { hotEntries: 1, warmEntries: 0, veryHotEntries: 0, batch: 8, patience: 0, capacity: REGION_CAPACITY };

interface Region {
  /** First operations of the blocks it is entered at, and of all its blocks. */
  entries: number[];
  blocks: number[];
  tableIndex: number;
  /** What it calls is inside: it is not made anew any more. */
  hasCallees: boolean;
  /** How often it was entered, about. */
  entered: number;
}

interface Queued {
  graph: RegionGraph;
  withCallees: boolean;
}

export class Jit {
  readonly statistics: JitStatistics;
  private readonly memory: GuestMemory;
  private readonly words: Int32Array;
  private readonly cache: BlockCache;
  private readonly interpreter: Interpreter;
  private readonly finder: RegionFinder;
  private readonly policy: JitPolicy;
  /** Regions to compile, by the operation of the hot block. */
  private readonly queue = new Map<number, Queued>();
  /** Regions by the operation of each entry, and by that of each block. */
  private readonly regions = new Map<number, Region>();
  private readonly byBlock = new Map<number, Region[]>();
  private readonly rejected = new Set<number>();
  private readonly free: number[] = [];
  private readonly singles: SingleInstructions;
  private waited = 0;
  private nextIndex: number;

  constructor(memory: GuestMemory, cache: BlockCache, interpreter: Interpreter, policy = JIT_POLICY, clock?: JitClock) {
    this.policy = policy;
    this.memory = memory;
    this.statistics = new JitStatistics(memory, clock);
    this.cache = cache;
    this.interpreter = interpreter;
    this.words = new Int32Array(memory.memory.buffer);
    this.finder = new RegionFinder(memory, cache, policy.warmEntries, (op) => this.regions.has(op));
    this.nextIndex = interpreter.handlerCount;
    this.singles = new SingleInstructions(memory, cache, interpreter, {
      add: (module, imports, graph, name) => this.build(module, imports, graph, name, true) !== undefined,
      instantiate: (module) => this.instantiate(module.bytes()),
    });
    cache.onStale = (block) => this.blockWentStale(block);
  }

  /** A block is hot, once more perhaps, and the vCPU at `base` is about to run it. */
  hot(base: number, op: number): void {
    const { view } = this.memory;
    if (view.getUint16(op + L.OP_HEAT, true) === 0) view.setUint16(op + L.OP_HEAT, COUNTED, true);
    const { hotEntries, veryHotEntries, batch } = this.policy;
    const region = this.regions.get(op);
    if (region) region.entered += hotEntries;
    const withCallees = (region?.entered ?? 0) >= veryHotEntries;
    if (!this.isWorthMaking(op, withCallees) || this.rejected.has(op)) return;
    // Hot again already: it waits no longer.
    if (this.queue.has(op)) return this.compileQueue();
    const block = this.cache.blockOf(op);
    const mode = this.words[(base + state.CODE_MODE) >> 2];
    if (!block || (mode !== state.CODE_64 && mode !== state.CODE_32_FLAT)) return;
    const codeBase = view.getBigInt64(base + state.CODE_BASE, true);
    const graph = this.finder.find(block, { mode, vcpu: base, codeBase, x87Stack: this.x87Stack(base) }, withCallees);
    // A region of one instruction would cost more to enter than it saves.
    const least = hotEntries > 1 ? 2 : 1;
    if (!graph || (graph.nodes.length === 1 && graph.nodes[0].instructions.length < least)) this.rejected.add(op);
    else {
      this.queue.set(op, { graph, withCallees });
      this.waited = 0;
    }
    if (this.queue.size >= batch) this.compileQueue();
  }

  /** No region is entered at `op`, or one that lacks what it calls where that is wanted. */
  private isWorthMaking(op: number, withCallees: boolean): boolean {
    const region = this.regions.get(op);
    return !region || (withCallees && !region.hasCallees);
  }

  /** So many instructions have run: what is queued waits for company as long as some comes. */
  sliceEnded(instructions: number): void {
    if (!this.queue.size) return;
    this.waited += instructions;
    if (this.waited >= this.policy.patience) this.compileQueue();
  }

  /** Compiles what is queued. */
  private compileQueue(): void {
    this.waited = 0;
    const { statistics } = this;
    const start = statistics.now();
    const module = new ModuleBuilder();
    const imports = importForRegions(module, this.memory, this.interpreter);
    const built: Region[] = [];
    const records: Omit<RegionRecord, 'module'>[] = [];
    for (const [op, { graph, withCallees }] of this.chosen()) {
      const name = `r${built.length}`;
      const builder = this.build(module, imports, graph, name, withCallees);
      if (!builder) {
        this.rejected.add(op);
        continue;
      }
      if (statistics.isCounting) records.push(this.recordOf(graph, builder, name));
      const entries = graph.entries.map((i) => graph.nodes[i].block.op).filter((entry) => entry === op || !this.regions.has(entry));
      built.push({ entries, blocks: graph.nodes.map(({ block }) => block.op), tableIndex: 0, hasCallees: withCallees, entered: 0 });
    }
    this.queue.clear();
    if (!built.length) return;
    if (this.nextIndex + built.length > this.interpreter.handlerCount + this.policy.capacity) return this.cache.flush();
    const bytes = module.bytes();
    statistics.buildMilliseconds += statistics.now() - start;
    const instance = this.instantiate(bytes);
    for (const record of records) statistics.records.push({ ...record, module: bytes });
    for (const [i, region] of built.entries()) this.install(region, instance.exports[`r${i}`] as () => void);
  }

  /** Of what is queued, what is to be compiled: not what a larger one of the same kind contains. */
  private chosen(): [number, Queued][] {
    const chosen: [number, Queued][] = [];
    const contained = [new Set<number>(), new Set<number>()];
    const queued = [...this.queue].sort(([, a], [, b]) => b.graph.nodes.length - a.graph.nodes.length);
    for (const [op, region] of queued) {
      const blocks = contained[region.withCallees ? 1 : 0];
      // Another's return point may have become an entry of a region meanwhile.
      if (blocks.has(op) || !this.isWorthMaking(op, region.withCallees)) continue;
      for (const { block } of region.graph.nodes) blocks.add(block.op);
      chosen.push([op, region]);
    }
    return chosen;
  }

  /** For tests: the instruction at `linear`, whose operations `BlockCache.single` made at `op`, is compiled when one that is to run has to be. */
  prepareSingle(base: number, op: number, linear: number, mode: CodeMode): void {
    this.singles.prepare(op, linear, mode, this.x87Stack(base));
  }

  /** Puts that instruction's code in place of its first handler. */
  compileSingle(base: number, op: number, linear: number, mode: CodeMode): void {
    const f = this.singles.find(op, linear, mode, this.x87Stack(base));
    if (!f) return;
    this.interpreter.exports.table.set(this.nextIndex, f);
    this.memory.view.setUint16(op + L.OP_HANDLER, this.nextIndex, true);
  }

  /** Everything decoded was dropped. */
  flushed(): void {
    this.queue.clear();
    this.regions.clear();
    this.byBlock.clear();
    this.rejected.clear();
    this.free.length = 0;
    this.nextIndex = this.interpreter.handlerCount;
  }

  private x87Stack(base: number): number {
    return usedRegisters(this.words[(base + state.FTW) >> 2], this.words[(base + state.FSW) >> 2]);
  }

  /** Adds a region's function to a module; undefined where not even its first instruction can be compiled. */
  private build(module: ModuleBuilder, imports: RegionImports, graph: RegionGraph, name: string, isThorough: boolean): RegionBuilder | undefined {
    const f = module.function(name, HANDLER);
    const builder = new RegionBuilder(f, graph, imports, this.statistics, (node, offset) => this.finder.decode(node, offset, graph.mode), isThorough);
    if (builder.compiled === 0) return undefined;
    this.statistics.instructions += builder.compiled;
    this.statistics.guestBytes += builder.guestBytes;
    module.export(f);
    return builder;
  }

  private recordOf({ mode, nodes }: RegionGraph, { marks }: RegionBuilder, name: string): Omit<RegionRecord, 'module'> {
    const { bytes } = this.memory;
    const blocks = nodes.map(({ codeBase, offset, block }) => {
      const code = [bytes.subarray(block.start, block.start + block.bytes), bytes.subarray(block.secondStart, block.secondStart + block.secondBytes)];
      return { address: BigInt.asUintN(64, codeBase + BigInt(offset)), bytes: Uint8Array.from(code.flatMap((part) => [...part])) };
    });
    const unsigned = marks.map((mark) => ({ ...mark, address: BigInt.asUintN(64, mark.address) }));
    return { address: blocks[0].address, codeBits: mode === state.CODE_64 ? 64 : 32, blocks, marks: unsigned, name };
  }

  private instantiate(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Instance {
    const { statistics } = this;
    statistics.modules++;
    statistics.wasmBytes += bytes.length;
    const start = statistics.now();
    const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), regionEnvironment(this.memory, this.interpreter));
    statistics.compileMilliseconds += statistics.now() - start;
    return instance;
  }

  private install(region: Region, f: () => void): void {
    const index = this.free.pop() ?? this.nextIndex++;
    this.interpreter.exports.table.set(index, f);
    region.tableIndex = index;
    for (const entry of region.entries) {
      const before = this.regions.get(entry);
      this.memory.view.setUint16(entry + L.OP_HANDLER, index, true);
      this.regions.set(entry, region);
      if (before?.entries.every((other) => this.regions.get(other) !== before)) this.free.push(before.tableIndex);
    }
    for (const block of region.blocks) {
      const list = this.byBlock.get(block);
      if (list) list.push(region);
      else this.byBlock.set(block, [region]);
    }
    this.statistics.regions++;
  }

  private blockWentStale({ op }: Block): void {
    this.rejected.delete(op);
    for (const [hot, { graph }] of this.queue) if (graph.nodes.some(({ block }) => block.op === op)) this.queue.delete(hot);
    for (const region of this.byBlock.get(op) ?? []) this.drop(region);
    this.byBlock.delete(op);
  }

  /** Blocks begin anew: its entries are interpreted again until they are hot once more. */
  private drop(region: Region): void {
    const { view } = this.memory;
    const entries = region.entries.filter((entry) => this.regions.get(entry) === region);
    if (!entries.length) return;
    for (const entry of entries) {
      this.regions.delete(entry);
      view.setUint16(entry + L.OP_HANDLER, view.getUint16(entry + L.OP_INTERPRETED, true), true);
      view.setUint16(entry + L.OP_HEAT, 0, true);
    }
    this.statistics.dropped++;
    this.free.push(region.tableIndex);
  }
}
