/**
 * Compiles hot code. A region is the blocks of one page that a hot block leads to by direct branches; it becomes one WebAssembly
 * function with the interpreter's signature, which takes the place of the block's first handler. Regions leave as the
 * interpreter's blocks do, and check the budget where it does, so a run is the same with and without them.
 *
 * Policy: a block entered HOT times is queued; queued blocks are compiled together, a module at a time. A region goes when any
 * of its blocks becomes stale. There may be REGION_CAPACITY of them; then all decoded code is dropped.
 */

import type { Decoded, Decoder } from '../../isa/decoder.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { ModuleBuilder } from '../../wasm/module-builder.ts';
import * as state from '../../cpu/state.ts';
import type { Block, BlockCache } from '../block-cache.ts';
import { type Interpreter, REGION_CAPACITY } from '../interpreter.ts';
import { HANDLER, type HandlerTargets } from '../interpreter-semantics.ts';
import * as L from '../layout.ts';
import { importForRegions, type RegionImports, regionEnvironment } from './region-imports.ts';
import { RegionSemantics, RegionState, Unsupported } from './region-semantics.ts';
import { ControlFlow } from './structure.ts';

const PAGE = 4096;
/** Blocks of 64-bit code, as the cache numbers modes. */
const MODE_64 = 64 >> 5;
const BATCH = 8;
const MAX_NODES = 48;
const MAX_INSTRUCTIONS = 400;
/** A block worth having in another's region was entered at least so often. */
const WARM = 500;

interface Region {
  entry: number;
  tableIndex: number;
  blocks: number[];
}

interface Node {
  block: Block;
  /** Offset in the page. */
  offset: number;
  /** Offsets of the instructions and the first operation of each. */
  instructions: { offset: number; operation: number }[];
  successors: number[];
}

export interface JitStatistics {
  regions: number;
  modules: number;
  instructions: number;
  wasmBytes: number;
  dropped: number;
}

export class Jit {
  readonly statistics: JitStatistics = { regions: 0, modules: 0, instructions: 0, wasmBytes: 0, dropped: 0 };
  private readonly memory: GuestMemory;
  private readonly words: Int32Array;
  private readonly cache: BlockCache;
  private readonly interpreter: Interpreter;
  private readonly decoder: Decoder;
  private readonly queue: number[] = [];
  private readonly regions = new Map<number, Region>();
  private readonly byBlock = new Map<number, Region[]>();
  private readonly rejected = new Set<number>();
  private readonly free: number[] = [];
  private readonly singles = new Map<string, (() => void) | null>();
  private nextIndex: number;

  constructor(memory: GuestMemory, cache: BlockCache, interpreter: Interpreter) {
    this.memory = memory;
    this.cache = cache;
    this.interpreter = interpreter;
    this.words = new Int32Array(memory.memory.buffer);
    this.decoder = cache.decoder;
    this.nextIndex = interpreter.handlerCount;
    cache.onStale = (block) => this.blockWentStale(block);
  }

  /** A block became hot. */
  hot(op: number): void {
    if (this.regions.has(op) || this.rejected.has(op) || this.queue.includes(op)) return;
    this.queue.push(op);
    if (this.queue.length >= BATCH) this.compileQueue();
  }

  /** Compiles what is queued. */
  compileQueue(): void {
    if (!this.queue.length) return;
    const module = new ModuleBuilder();
    const imports = this.importsOf(module);
    const built: Region[] = [];
    for (const op of this.queue.splice(0)) {
      const block = this.cache.blockOf(op);
      if (!block || this.regions.has(op)) continue;
      const region = this.build(module, imports, block, `r${built.length}`);
      if (region) built.push(region);
      else this.rejected.add(op);
    }
    if (!built.length) return;
    if (this.nextIndex + built.length > this.interpreter.handlerCount + REGION_CAPACITY) return this.cache.flush();
    const instance = this.instantiate(module);
    for (const [i, region] of built.entries()) this.install(region, instance.exports[`r${i}`] as () => void);
  }

  /**
   * Compiles the one instruction of a block that `BlockCache.single` made at `op` and puts the code in place of its first handler. For
   * tests: what has been compiled for the same bytes at the same place is used again.
   */
  compileSingle(op: number, linear: number): void {
    const pageStart = linear - ((linear - this.memory.ramBase) % PAGE);
    const offset = linear - pageStart;
    if (this.decoder.decode(this.memory.bytes, linear, PAGE - offset, 64) !== 'ok') return;
    const { length } = this.decoder.result;
    const key = `${op} ${offset} ${this.memory.bytes.subarray(linear, linear + length).join()}`;
    let f = this.singles.get(key);
    if (f === undefined) {
      const module = new ModuleBuilder();
      const imports = this.importsOf(module);
      const block: Block = { op, operations: 0, start: linear, bytes: length, secondStart: 0, secondBytes: 0, mode: MODE_64 };
      const nodes: Node[] = [{ block, offset, instructions: [{ offset, operation: op }], successors: [] }];
      const built = this.buildNodes(module, imports, nodes, 'single');
      f = built ? (this.instantiate(module).exports.single as () => void) : null;
      this.singles.set(key, f);
    }
    if (!f) return;
    this.interpreter.exports.table.set(this.nextIndex, f);
    this.memory.view.setUint16(op + L.OP_HANDLER, this.nextIndex, true);
  }

  /** Everything decoded was dropped. */
  flushed(): void {
    this.queue.length = 0;
    this.regions.clear();
    this.byBlock.clear();
    this.rejected.clear();
    this.free.length = 0;
    this.nextIndex = this.interpreter.handlerCount;
  }

  private importsOf(module: ModuleBuilder): RegionImports {
    return importForRegions(module, this.memory, this.interpreter);
  }

  private instantiate(module: ModuleBuilder): WebAssembly.Instance {
    const bytes = module.bytes();
    this.statistics.modules++;
    this.statistics.wasmBytes += bytes.length;
    return new WebAssembly.Instance(new WebAssembly.Module(bytes), regionEnvironment(this.memory, this.interpreter));
  }

  private install(region: Region, f: () => void): void {
    const { entry } = region;
    const index = this.free.pop() ?? this.nextIndex++;
    this.interpreter.exports.table.set(index, f);
    region.tableIndex = index;
    this.memory.view.setUint16(entry + L.OP_HANDLER, index, true);
    this.regions.set(entry, region);
    for (const block of region.blocks) {
      const list = this.byBlock.get(block);
      if (list) list.push(region);
      else this.byBlock.set(block, [region]);
    }
    this.statistics.regions++;
  }

  private blockWentStale(block: Block): void {
    this.rejected.delete(block.op);
    for (const region of this.byBlock.get(block.op) ?? []) {
      if (this.regions.get(region.entry) !== region) continue;
      this.regions.delete(region.entry);
      this.statistics.dropped++;
      // Blocks begin anew: the entry is interpreted again until it is hot once more.
      this.memory.view.setUint16(region.entry + L.OP_HANDLER, this.memory.view.getUint16(region.entry + L.OP_INTERPRETED, true), true);
      this.memory.view.setUint16(region.entry + L.OP_HEAT, 0, true);
      this.free.push(region.tableIndex);
    }
    this.byBlock.delete(block.op);
  }

  // --- Building -----------------------------------------------------------------------------------

  private build(module: ModuleBuilder, imports: RegionImports, entry: Block, name: string): Region | undefined {
    const nodes = this.discover(entry);
    // A region of one instruction would cost more to enter than it saves.
    if (!nodes.length || nodes[0].instructions.length < 2) return undefined;
    return this.buildNodes(module, imports, nodes, name);
  }

  /** Builds a function of these nodes, the first of which is its entry; undefined where not even its first instruction can be compiled. */
  private buildNodes(module: ModuleBuilder, imports: RegionImports, nodes: Node[], name: string): Region | undefined {
    const entry = nodes[0].block;
    const indexOf = new Map(nodes.map((node, i) => [node.offset, i]));
    const flow = new ControlFlow(nodes.map((node) => node.successors.map((offset) => indexOf.get(offset) as number)));
    const f = module.function(name, HANDLER);
    const region = new RegionState(f, imports);
    const pageStart = entry.start - nodes[0].offset;
    let compiled = 0;

    const emit = (index: number): void => {
      const node = nodes[index];
      region.beginBlock();
      const rip = () => region.codeBase.add(node.offset);
      f.if(f.get(region.budget).leS(0), () => region.leave(state.EXIT_LEAVE, 0, rip()));
      f.set(region.budget, f.get(region.budget).sub(node.instructions.length));
      const go = (offset: number): void => {
        const to = indexOf.get(offset);
        if (to !== undefined && node.successors.includes(offset) && flow.branch(f, index, to, emit)) return;
        region.leave(state.EXIT_LOOKUP, 0, region.codeBase.add(offset));
      };
      for (const { offset, operation } of node.instructions) {
        const d = { ...this.decodeAt(pageStart, offset) };
        const ends = d.form.instruction.ends === 'block';
        const nextIp = offset + d.length;
        const mark = f.mark();
        try {
          this.translate(region, d, { operation, ip: offset, nextIp, go });
          compiled++;
        } catch (error) {
          if (!(error instanceof Unsupported)) throw error;
          f.rollBack(mark);
          return region.leave(state.EXIT_INTERPRET, operation);
        }
        if (ends) return;
        if (offset === node.instructions[node.instructions.length - 1].offset) go(nextIp);
      }
    };
    f.block((out) => {
      region.out = out;
      flow.build(f, emit);
    });
    region.store();
    f.prepend(() => region.load(nodes[0].instructions.length, entry.op));
    if (compiled === 0) return undefined;
    this.statistics.instructions += compiled;
    module.export(f);
    return { entry: entry.op, tableIndex: 0, blocks: nodes.map((node) => node.block.op) };
  }

  private translate(region: RegionState, decoded: Decoded, place: ConstructorParameters<typeof RegionSemantics>[3]): void {
    const { instruction, encoding, rmPosition } = decoded.form;
    const x = new RegionSemantics(region, NO_TARGETS, decoded, place);
    let immediates = 0;
    const operands = encoding.operands.map((specification, i) => {
      const access = (instruction.access?.[i] ?? 'r') as 'r' | 'w' | 'm';
      const isImmediate = specification.code === 'I' || specification.code === 'sI' || specification.code === 'J';
      return x.operand(specification, i, access, i === rmPosition, isImmediate ? immediates++ : 0);
    });
    instruction.semantics(x, ...operands);
    // What leaves in a way of its own is the interpreter's.
    if (instruction.ends === 'block' && !x.left) throw new Unsupported('leaves');
  }

  private decodeAt(pageStart: number, offset: number): Decoded {
    this.decoder.decode(this.memory.bytes, pageStart + offset, PAGE - offset, 64);
    return this.decoder.result;
  }

  /** The blocks of the page that `entry` leads to by direct branches, as far as they are warm; itself first. */
  private discover(entry: Block): Node[] {
    const pageStart = entry.start - ((entry.start - this.memory.ramBase) % PAGE);
    const nodes: Node[] = [];
    const seen = new Set<number>();
    const queue = [entry];
    let instructions = 0;
    for (let block = queue.shift(); block && nodes.length < MAX_NODES && instructions < MAX_INSTRUCTIONS; block = queue.shift()) {
      if (block.mode !== MODE_64 || block.secondBytes > 0 || seen.has(block.op)) continue;
      seen.add(block.op);
      const node = this.examine(block, pageStart);
      if (!node) continue;
      nodes.push(node);
      instructions += node.instructions.length;
      for (const offset of node.successors) {
        const next = this.cache.known(pageStart + offset, 64);
        if (next && this.memory.view.getUint16(next.op + L.OP_HEAT, true) >= WARM) queue.push(next);
      }
    }
    const offsets = new Set(nodes.map((node) => node.offset));
    for (const node of nodes) node.successors = node.successors.filter((offset) => offsets.has(offset));
    return nodes;
  }

  private examine(block: Block, pageStart: number): Node | undefined {
    const instructions: Node['instructions'] = [];
    const successors: number[] = [];
    let last = -1;
    for (let i = 0; i < block.operations; i++) {
      const operation = block.op + i * L.OP_SIZE;
      const ip = this.words[(operation + L.OP_IP) >> 2] & 0xffff;
      // Address operations share the offset of what they belong to.
      if (ip === last || ip >= PAGE) continue;
      if (pageStart + ip >= block.start + block.bytes) continue;
      last = ip;
      instructions.push({ offset: ip, operation });
    }
    if (!instructions.length) return undefined;
    if (instructions.length !== this.memory.view.getInt16(block.op + L.OP_REMAINING, true) + 1) return undefined;
    if (this.decoder.decode(this.memory.bytes, pageStart + last, PAGE - last, 64) !== 'ok') return undefined;
    const d = this.decoder.result;
    const { instruction, encoding } = d.form;
    const next = last + d.length;
    const isBranch = encoding.operands.some((o) => o.code === 'J') && instruction.mnemonic !== 'CALL';
    if (instruction.ends !== 'block') successors.push(next);
    else if (isBranch && d.operandBits !== 16) {
      successors.push(next + d.immediate);
      if (instruction.mnemonic !== 'JMP') successors.push(next);
    }
    return { block, offset: block.start - pageStart, instructions, successors: [...new Set(successors)].filter((offset) => offset >= 0 && offset < PAGE) };
  }
}

/** Regions call nothing that handlers call. */
const NO_TARGETS = {} as HandlerTargets;
