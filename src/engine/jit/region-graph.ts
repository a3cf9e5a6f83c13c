/**
 * Which blocks a region is made of, and how control goes between them. It begins with a hot block and takes in what that
 * leads to by branches, calls, returns and jumps through registers, in other pages too, as far as it is warm.
 */

import type { Decoded, Decoder } from '../../isa/decoder.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import * as state from '../../cpu/state.ts';
import type { Block, BlockCache } from '../block-cache.ts';
import { peekJump, ripOfBlock } from '../jump-cache.ts';
import * as L from '../layout.ts';

const PAGE = 4096;
const MAX_NODES = 64;
const MAX_INSTRUCTIONS = 400;
/** What is called comes in only as long as the region is no larger than this. */
const MAX_INSTRUCTIONS_WITH_CALLEES = 300;
/** Ways of a jump through a register or memory. */
const MAX_TARGETS = 32;

/** Modes of code that regions are made of. */
export type RegionMode = typeof state.CODE_64 | typeof state.CODE_32_FLAT;

/** Where a hot block is about to run: what tells which code an address leads to. */
export interface CodeContext {
  mode: RegionMode;
  /** Linear address of the vCPU. */
  vcpu: number;
  /** Guest-virtual address of the page of the block. */
  codeBase: bigint;
  /** Which of the x87's registers are in use (`usedRegisters`). */
  x87Stack: number;
}

export interface RegionInstruction {
  /** Offset in the page. */
  offset: number;
  /** Its first operation, and its own, behind the address operation or page check it may have. */
  first: number;
  operation: number;
}

export interface RegionNode {
  block: Block;
  /** Linear address of the page, and where in it the block begins. */
  page: number;
  offset: number;
  /** Guest-virtual address of the page when the region was found. */
  codeBase: bigint;
  instructions: RegionInstruction[];
  /** Its last operation: what links to the blocks that follow. */
  last: number;
  /** Nodes that direct branches, and falling through, lead to, by their offset from the page. */
  direct: Map<number, number>;
  /** Nodes that a return, or a jump or call through a register, may lead to. */
  dynamic: number[];
  /** All these, as often as code for them is made. */
  successors: number[];
}

export interface RegionGraph {
  mode: RegionMode;
  nodes: RegionNode[];
  /** Nodes that control may come to from outside. The first is the hot one. */
  entries: number[];
  /** The x87's registers that are in use where it begins (`usedRegisters`). */
  x87Stack: number;
}

/** How a block ends: offsets from its page where they are known. */
interface Ending {
  kind: 'branch' | 'call' | 'return' | 'jump' | 'other';
  targets: number[];
  /** Of a call: where it returns to. */
  returnPoint: number;
}

interface Found extends RegionNode {
  ending: Ending;
  /** Blocks that its direct targets are, by their offset; those of a call are the callee's. */
  targetBlocks: Map<number, Block>;
  /** Of a jump or call through a register: what it may lead to, and the guest-virtual address of the page of each. */
  candidates: [Block, bigint][];
  returnBlock: Block | undefined;
}

export class RegionFinder {
  private readonly memory: GuestMemory;
  private readonly cache: BlockCache;
  private readonly words: Int32Array;
  private readonly decoder: Decoder;
  private readonly crossing = new Uint8Array(2 * 16);
  private readonly warmEntries: number;
  private readonly isEntry: (op: number) => boolean;

  /** Blocks are worth having in another's region from `warmEntries` on. `isEntry` tells where regions are entered already. */
  constructor(memory: GuestMemory, cache: BlockCache, warmEntries: number, isEntry: (op: number) => boolean) {
    this.warmEntries = warmEntries;
    this.isEntry = isEntry;
    this.memory = memory;
    this.cache = cache;
    this.words = new Int32Array(memory.memory.buffer);
    this.decoder = cache.decoder;
  }

  /**
   * The region of `entry`; undefined where its code is none to compile. It ends where others begin. `withCallees`: what others contain comes in too, and
   * what it calls, as far as there is room. That is worth its price, several times as much code, only for what runs very often.
   */
  find(entry: Block, context: CodeContext, withCallees: boolean): RegionGraph | undefined {
    const found = new Map<number, Found>();
    const own: [Block, bigint][] = [[entry, context.codeBase]];
    const called: [Block, bigint][] = [];
    let instructions = 0;
    while (found.size < MAX_NODES && instructions < MAX_INSTRUCTIONS) {
      const next = own.shift() ?? (withCallees && instructions < MAX_INSTRUCTIONS_WITH_CALLEES ? called.shift() : undefined);
      if (!next) break;
      const [block, codeBase] = next;
      if (found.has(block.op) || (found.size && !withCallees && this.isEntry(block.op))) continue;
      const node = this.examine(block, codeBase, context);
      if (!node) continue;
      found.set(block.op, node);
      instructions += node.instructions.length;
      const isCall = node.ending.kind === 'call';
      const pageOf = (offset: number): bigint => this.wrap(codeBase + BigInt(offset - (offset & (PAGE - 1))), context.mode);
      for (const [offset, target] of node.targetBlocks) (isCall ? called : own).push([target, pageOf(offset)]);
      if (node.returnBlock) own.push([node.returnBlock, pageOf(node.ending.returnPoint)]);
      for (const [target, base] of node.candidates) (isCall ? called : own).push([target, base]);
    }
    const nodes = [...found.values()];
    if (!nodes.length) return undefined;
    return { mode: context.mode, nodes, entries: this.connect(nodes), x87Stack: context.x87Stack };
  }

  /** The instruction at an offset of a node's page, valid until the next is decoded. */
  decode(node: RegionNode, offset: number, mode: RegionMode): Decoded {
    const codeBits = mode === state.CODE_64 ? 64 : 32;
    const available = PAGE - offset;
    if (this.decoder.decode(this.memory.bytes, node.page + offset, available, codeBits) === 'truncated') {
      this.crossing.set(this.memory.bytes.subarray(node.page + offset, node.page + PAGE));
      this.crossing.set(this.memory.bytes.subarray(node.block.secondStart, node.block.secondStart + 16), available);
      this.decoder.decode(this.crossing, 0, available + 16, codeBits);
    }
    return this.decoder.result;
  }

  /** Fills in the edges; returns the entries. */
  private connect(nodes: Found[]): number[] {
    const indexOf = new Map(nodes.map((node, i) => [node.block.op, i]));
    const index = (block: Block | undefined): number => (block && indexOf.get(block.op)) ?? -1;
    const entries = new Set([0]);
    const isInside = (i: number): boolean => i >= 0;
    /** Where control goes within a function, calls gone over. */
    const next: number[][] = [];
    for (const node of nodes) {
      for (const [offset, block] of node.targetBlocks) if (index(block) >= 0) node.direct.set(offset, index(block));
      const { kind } = node.ending;
      if (kind === 'jump' || kind === 'call') node.dynamic = node.candidates.map(([block]) => index(block)).filter(isInside);
      next.push(kind === 'call' ? [index(node.returnBlock)].filter(isInside) : [...node.direct.values(), ...node.dynamic]);
    }
    const returns = new Map<number, number[]>();
    for (const node of nodes) {
      const point = node.ending.kind === 'call' ? index(node.returnBlock) : -1;
      if (point < 0) continue;
      let comesBack = false;
      for (const callee of [...node.direct.values(), ...node.dynamic]) {
        const found = returns.get(callee) ?? returnsOf(callee, nodes, next);
        returns.set(callee, found);
        for (const i of found) if (!nodes[i].dynamic.includes(point)) nodes[i].dynamic.push(point);
        comesBack ||= found.length > 0;
      }
      // What is called, or ends, outside comes back from there.
      if (!comesBack) entries.add(point);
    }
    for (const node of nodes) {
      node.dynamic.length = Math.min(node.dynamic.length, MAX_TARGETS);
      node.successors = [...node.ending.targets.flatMap((offset) => node.direct.get(offset) ?? []), ...node.dynamic];
    }
    return [...entries];
  }

  private wrap(address: bigint, mode: RegionMode): bigint {
    return mode === state.CODE_64 ? BigInt.asIntN(64, address) : BigInt.asUintN(32, address);
  }

  private isWarm(block: Block): boolean {
    return this.memory.view.getUint16(block.op + L.OP_HEAT, true) >= this.warmEntries;
  }

  /** The warm block at an offset from the page at `page`, which may be another page. */
  private blockAt(page: number, offset: number, codeBase: bigint, context: CodeContext): Block | undefined {
    const inPage = offset >= 0 && offset < PAGE;
    const block = inPage
      ? this.cache.known(page + offset, context.mode)
      : this.cache.blockOf(peekJump(this.words, context.vcpu, this.wrap(codeBase + BigInt(offset), context.mode), context.mode));
    return block && this.isWarm(block) ? block : undefined;
  }

  private examine(block: Block, codeBase: bigint, context: CodeContext): Found | undefined {
    // What somebody watches is run operation by operation.
    if (block.mode !== context.mode >> 5 || this.cache.isWatched(block.start)) return undefined;
    const page = block.start - ((block.start - this.memory.ramBase) % PAGE);
    // An instruction that goes on outside of RAM is none.
    if (block.secondStart < 0) return undefined;
    const instructions: RegionInstruction[] = [];
    const end = block.start + block.bytes;
    for (let i = 0; i < block.operations; i++) {
      const operation = block.op + i * L.OP_SIZE;
      const offset = this.words[(operation + L.OP_IP) >> 2] & 0xffff;
      // What closes a block stands behind its last instruction.
      if (page + offset >= end || offset >= PAGE) continue;
      const before = instructions.at(-1);
      // Operations in front of an instruction's own have its offset.
      if (before?.offset === offset) before.operation = operation;
      else instructions.push({ offset, first: operation, operation });
    }
    if (!instructions.length || instructions.length !== this.memory.view.getInt16(block.op + L.OP_REMAINING, true) + 1) return undefined;
    const node: Found = {
      block, page, offset: block.start - page, instructions, last: block.op + (block.operations - 1) * L.OP_SIZE,
      direct: new Map(), dynamic: [], successors: [], codeBase,
      ending: { kind: 'other', targets: [], returnPoint: -1 }, targetBlocks: new Map(), candidates: [], returnBlock: undefined,
    };
    const last = instructions[instructions.length - 1].offset;
    // Bytes that are no instruction end a block, too.
    if (this.cache.isUndefined(instructions[instructions.length - 1].operation)) return undefined;
    const decoded = this.decode(node, last, context.mode);
    if (!decoded.length) return undefined;
    node.ending = endingOf(decoded, last);
    for (const offset of node.ending.targets) {
      const target = this.blockAt(page, offset, codeBase, context);
      if (target) node.targetBlocks.set(offset, target);
    }
    if (node.ending.kind === 'call') node.returnBlock = this.blockAt(page, node.ending.returnPoint, codeBase, context);
    if (!node.ending.targets.length && (node.ending.kind === 'jump' || node.ending.kind === 'call')) node.candidates = this.candidatesOf(node, context);
    return node;
  }

  /** Where a jump or call through a register may lead: where it went last; a jump to what is looked up in its own page, too. */
  private candidatesOf(node: Found, context: CodeContext): [Block, bigint][] {
    const found: [Block, bigint][] = [];
    const last = this.cache.blockOf(this.words[(node.last + L.OP_LINK) >> 2]);
    const codeBase = last && this.isWarm(last) ? this.lookedUp(last, context) : undefined;
    if (last && codeBase !== undefined) found.push([last, codeBase]);
    if (node.ending.kind === 'call') return found;
    for (const block of this.cache.inPage(node.page)) {
      const offset = block.start - node.page;
      if (block === last || offset < 0 || offset >= PAGE || block.mode !== context.mode >> 5 || !this.isWarm(block)) continue;
      if (peekJump(this.words, context.vcpu, this.wrap(node.codeBase + BigInt(offset), context.mode), context.mode) === block.op) found.push([block, node.codeBase]);
    }
    return found.slice(0, MAX_TARGETS);
  }

  /** Guest-virtual address of a block's page, if the jump cache knows the block. */
  private lookedUp(block: Block, context: CodeContext): bigint | undefined {
    const rip = ripOfBlock(this.words, context.vcpu, block.op, context.mode);
    return rip === undefined ? undefined : rip - BigInt((block.start - this.memory.ramBase) % PAGE);
  }
}

function endingOf(d: Decoded, offset: number): Ending {
  const { instruction, encoding } = d.form;
  const next = offset + d.length;
  const isDirect = encoding.operands.some((o) => o.code === 'J');
  if (instruction.ends !== 'block') return { kind: 'branch', targets: [next], returnPoint: -1 };
  if (d.operandBits === 16) return { kind: 'other', targets: [], returnPoint: -1 };
  switch (instruction.mnemonic) {
    case 'JMP': return { kind: isDirect ? 'branch' : 'jump', targets: isDirect ? [next + d.immediate] : [], returnPoint: -1 };
    case 'CALL': return { kind: 'call', targets: isDirect ? [next + d.immediate] : [], returnPoint: next };
    case 'RET': return { kind: 'return', targets: [], returnPoint: -1 };
    default: return isDirect ? { kind: 'branch', targets: [next + d.immediate, next], returnPoint: -1 } : { kind: 'other', targets: [], returnPoint: -1 };
  }
}

/** The nodes with a return that what begins at `callee` comes to. */
function returnsOf(callee: number, nodes: readonly Found[], next: readonly (readonly number[])[]): number[] {
  const seen = new Set([callee]);
  for (const i of seen) for (const to of next[i]) seen.add(to);
  return [...seen].filter((i) => nodes[i].ending.kind === 'return');
}
