/**
 * Compiled code of single instructions, for tests that run recorded vectors: blocks that `BlockCache.single` makes at one place and
 * forgets. Many to a module: one of them is small beside what a module costs. What has been compiled for the same bytes at the same
 * place, and the same x87 stack, is used again.
 */

import * as state from '../../cpu/state.ts';
import type { CodeMode } from '../../isa/decoder.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { ModuleBuilder } from '../../wasm/module-builder.ts';
import type { Block, BlockCache } from '../block-cache.ts';
import type { Interpreter } from '../interpreter.ts';
import * as L from '../layout.ts';
import type { RegionGraph, RegionMode } from './region-graph.ts';
import { importForRegions, type RegionImports } from './region-imports.ts';

const PAGE = 4096;
/** V8 has room for so much code only: what is older is forgotten, and its modules collected. */
const MOST_KEPT = 4096;

/** What the JIT does for it: adds a region's function to a module, false where there is nothing to compile; and makes a module's instance. */
export interface RegionCompiler {
  add(module: ModuleBuilder, imports: RegionImports, graph: RegionGraph, name: string): boolean;
  instantiate(module: ModuleBuilder): WebAssembly.Instance;
}

export class SingleInstructions {
  private readonly memory: GuestMemory;
  private readonly cache: BlockCache;
  private readonly interpreter: Interpreter;
  private readonly compiler: RegionCompiler;
  private readonly functions = new Map<string, () => void>();
  /** The module in the making, and the name in it of each instruction; null is one that is not compiled. */
  private module = new ModuleBuilder();
  private imports: RegionImports | undefined;
  private readonly names = new Map<string, string>();
  private readonly notCompiled = new Set<string>();

  constructor(memory: GuestMemory, cache: BlockCache, interpreter: Interpreter, compiler: RegionCompiler) {
    this.memory = memory;
    this.cache = cache;
    this.interpreter = interpreter;
    this.compiler = compiler;
  }

  /** The instruction at `linear`, of which `BlockCache.single` has made the operations at `op` just now, will be wanted. */
  prepare(op: number, linear: number, mode: CodeMode, x87Stack: number): void {
    const key = this.keyOf(op, linear, mode, x87Stack);
    if (key !== undefined && !this.functions.has(key)) this.add(key, op, linear, mode as RegionMode, x87Stack);
  }

  /** The code of the instruction; compiles what was prepared if need be. Undefined where it is left to the interpreter. */
  find(op: number, linear: number, mode: CodeMode, x87Stack: number): (() => void) | undefined {
    const key = this.keyOf(op, linear, mode, x87Stack);
    if (key === undefined) return undefined;
    if (!this.functions.has(key)) {
      this.add(key, op, linear, mode as RegionMode, x87Stack);
      this.compile();
    }
    return this.functions.get(key);
  }

  private keyOf(op: number, linear: number, mode: CodeMode, x87Stack: number): string | undefined {
    if (mode !== state.CODE_64 && mode !== state.CODE_32_FLAT) return undefined;
    const { bytes, ramBase } = this.memory;
    const offset = (linear - ramBase) % PAGE;
    const { decoder } = this.cache;
    if (decoder.decode(bytes, linear, PAGE - offset, mode === state.CODE_64 ? 64 : 32) !== 'ok') return undefined;
    return `${mode} ${op} ${offset} ${x87Stack} ${bytes.subarray(linear, linear + decoder.result.length).join()}`;
  }

  private add(key: string, op: number, linear: number, mode: RegionMode, x87Stack: number): void {
    if (this.names.has(key) || this.notCompiled.has(key)) return;
    this.imports ??= importForRegions(this.module, this.memory, this.interpreter);
    const offset = (linear - this.memory.ramBase) % PAGE;
    const operations = this.cache.singleOperations;
    const bytes = this.cache.decoder.result.length;
    const block: Block = { op, operations, start: linear, bytes, secondStart: 0, secondBytes: 0, mode: mode >> 5 };
    const node = {
      block, page: linear - offset, offset, codeBase: 0n, instructions: [{ offset, first: op, operation: op }],
      last: op + (operations - 1) * L.OP_SIZE, direct: new Map(), dynamic: [], successors: [],
    };
    const name = `i${this.names.size}`;
    if (this.compiler.add(this.module, this.imports, { mode, nodes: [node], entries: [0], x87Stack }, name)) this.names.set(key, name);
    else this.notCompiled.add(key);
  }

  private compile(): void {
    if (!this.names.size) return;
    if (this.functions.size + this.names.size > MOST_KEPT) this.functions.clear();
    const { exports } = this.compiler.instantiate(this.module);
    for (const [key, name] of this.names) this.functions.set(key, exports[name] as () => void);
    this.names.clear();
    this.module = new ModuleBuilder();
    this.imports = undefined;
  }
}
