/** From a region's graph to its WebAssembly function. */

import { type Decoded, isX87 } from '../../isa/decoder.ts';
import { type Expression, i32 } from '../../wasm/expression.ts';
import type { FunctionBuilder } from '../../wasm/function-builder.ts';
import { SHADOWING } from '../block-cache.ts';
import type { HandlerTargets } from '../interpreter-semantics.ts';
import type { RegionImports } from './region-imports.ts';
import type { JitStatistics } from './jit-statistics.ts';
import type { RegionGraph, RegionInstruction, RegionNode } from './region-graph.ts';
import { type Link, type Place, RegionSemantics } from './region-semantics.ts';
import { FlagWordsWanted } from './region-flags.ts';
import { RegionState } from './region-state.ts';
import { ControlFlow } from './structure.ts';
import { Unsupported } from './unsupported.ts';

const PAGE = 4096;
const INTEGERS = ['i32', 'i64'] as const;
/** Regions call nothing that handlers call. */
const NO_TARGETS = {} as HandlerTargets;

export class RegionBuilder {
  /** Instructions compiled so far; what is left to the interpreter does not count. */
  compiled = 0;
  guestBytes = 0;
  /** Where the code of each instruction begins, in bytes from the function's first one, and its guest-virtual address. */
  readonly marks: { offset: number; address: bigint }[] = [];
  private readonly f: FunctionBuilder;
  private readonly graph: RegionGraph;
  private readonly decode: (node: RegionNode, offset: number) => Decoded;
  private readonly region: RegionState;
  private readonly flow: ControlFlow;

  /** Builds the function `f`, a handler, of `graph`, whose instructions `decode` gives; `isThorough`: with what takes longer to build, and makes it faster. */
  constructor(f: FunctionBuilder, graph: RegionGraph, imports: RegionImports, statistics: JitStatistics, decode: (node: RegionNode, offset: number) => Decoded, isThorough: boolean) {
    this.f = f;
    this.graph = graph;
    this.decode = decode;
    this.region = new RegionState(f, imports, graph.mode, statistics, isThorough);
    const hasX87 = graph.nodes.some((node) => node.instructions.some(({ offset }) => isX87(decode(node, offset))));
    if (hasX87) this.region.x87.begin(graph.x87Stack, graph.entries.map((node) => ({ node, operation: graph.nodes[node].block.op })));
    this.flow = new ControlFlow(graph.nodes.map((node) => node.successors), graph.entries);
    this.region.usesPages = graph.nodes.some(({ page }) => page !== graph.nodes[0].page);
    this.region.build(() => this.flow.build(f, (index) => this.node(index), (select) => this.chooseEntry(select)));
    for (const mark of this.marks) mark.offset += this.region.loadBytes;
  }

  /** By the operation that the handler was called with. */
  private chooseEntry(select: (entry: number) => void): void {
    const { f, graph } = this;
    for (const entry of graph.entries) f.if(f.parameter(1).eq(graph.nodes[entry].block.op), () => select(entry));
  }

  private node(index: number): void {
    this.region.x87.atNode(index, () => this.block(index));
  }

  private block(index: number): void {
    const { f, region } = this;
    const node = this.graph.nodes[index];
    region.beginBlock();
    if (this.flow.joins(index)) {
      region.flags.source = 'any';
      region.addresses.forget();
    }
    f.ifRarely(f.get(region.budget).leS(0), () => region.stop(this.rip(node.offset)));
    f.set(region.budget, f.get(region.budget).sub(node.instructions.length));
    // Locals serve one instruction after the other: many of them make a function slow to compile, and to enter until it is. What is known
    // of floating point stays for the whole block.
    const outside = f.temporaryCount;
    if (node.block.secondStart !== 0) this.checkSecondPage(node);
    const decoded = node.instructions.map(({ offset }) => ({ ...this.decode(node, offset) }));
    const reused = basesUsedAgain(decoded);
    for (const [i, instruction] of node.instructions.entries()) {
      region.addresses.areWorthKeeping = reused[i];
      region.lookedUp = null;
      if (!this.instruction(index, instruction, decoded[i])) break;
      f.release(outside, INTEGERS);
    }
    f.release(outside);
  }

  /** In front of an instruction that goes on in the next page: is that still the one it was decoded from? */
  private checkSecondPage(node: RegionNode): void {
    const { f, region } = this;
    const [{ first }] = node.instructions;
    f.if(f.call(region.imports.sameSecondPage, f.parameter(0), i32(first), region.codeBase).eqz(), () => region.interpret(first));
  }

  /** Builds an instruction. False where the node ends: by a jump, or because the interpreter goes on from there. */
  private instruction(index: number, instruction: RegionInstruction, decoded: Decoded): boolean {
    const { f, region } = this;
    const { offset, first } = instruction;
    const node = this.graph.nodes[index];
    const nextIp = offset + decoded.length;
    const mark = f.mark();
    const { source } = region.flags;
    this.marks.push({ offset: mark.length, address: node.codeBase + BigInt(offset) });
    try {
      const go = (to: number, link: Link): void => this.go(index, to, link);
      this.translate(decoded, { operation: first, ip: offset, nextIp, go, isFollowed: node.dynamic.length > 0, goTo: (rip) => this.goTo(index, rip) });
      this.compiled++;
      this.guestBytes += decoded.length;
    } catch (error) {
      f.rollBack(mark);
      region.flags.source = source;
      region.addresses.forget();
      if (error instanceof FlagWordsWanted) {
        this.marks.pop();
        region.float.beginBlock();
        region.flags.compute();
        return this.instruction(index, instruction, decoded);
      }
      if (!(error instanceof Unsupported)) throw error;
      region.interpretUncompiled(first, decoded.form.instruction.mnemonic);
      return false;
    }
    if (decoded.form.instruction.ends === 'block') return false;
    if (offset !== node.instructions[node.instructions.length - 1].offset) return true;
    // What closes a block behind STI sees to it that one more instruction runs before an interrupt.
    if (decoded.form.instruction.mnemonic === SHADOWING) region.fallThrough(node.last);
    else this.go(index, nextIp, 'through');
    return false;
  }

  private translate(decoded: Decoded, place: Place): void {
    const { instruction, encoding, rmPosition } = decoded.form;
    const x = new RegionSemantics(this.region, NO_TARGETS, decoded, place);
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

  /** Address of an offset from the page of the running code. */
  private rip(offset: number): Expression {
    const { region } = this;
    const rip = region.codeBase.add(offset);
    return region.mode === 64 ? rip : rip.zeroExtend(32);
  }

  /** Goes from a node to an offset from its page, by an edge of the region or out of it. */
  private go(from: number, offset: number, link: Link): void {
    const { f, region } = this;
    const node = this.graph.nodes[from];
    const to = node.direct.get(offset);
    const inPage = offset >= 0 && offset < PAGE;
    if (inPage) {
      if (to !== undefined && region.x87.mayGoTo(to)) this.branch(from, to);
      else if (link === 'through') region.fallThrough(node.last);
      else region.follow(link, node.last);
      return;
    }
    const rip = f.let(this.rip(offset));
    if (to !== undefined) this.dispatch(from, rip, [to]);
    region.goTo(rip);
  }

  /** Goes to a node of the region. Its code may be built here. */
  private branch(from: number, to: number): void {
    const { flags, addresses } = this.region;
    const { source } = flags;
    const known = addresses.snapshot();
    if (this.flow.joins(to)) flags.settle();
    this.flow.branch(this.f, from, to, (index) => this.node(index));
    flags.source = source;
    addresses.restore(known);
  }

  /** Goes from a node to where the running code says. */
  private goTo(from: number, rip: Expression): void {
    this.dispatch(from, rip, this.graph.nodes[from].dynamic);
    this.region.goTo(rip);
  }

  /** Goes to the one of these nodes that is at `rip`. Other code than was there once may be at an address: its block tells. */
  private dispatch(from: number, rip: Expression, targets: readonly number[]): void {
    if (!targets.length) return;
    const { f, region } = this;
    const { block, hit } = region.lookUp(rip);
    f.if(hit, () => {
      const found = f.let(block);
      const op = (i: number): number => this.graph.nodes[i].block.op;
      if (targets.length > MOST_COMPARED) return this.hashed(from, rip, found, targets);
      for (const to of targets) f.if(found.eq(op(to)), () => this.enter(from, rip, to));
    });
  }

  /** The same for many: a switch over a perfect hash of their operations. */
  private hashed(from: number, rip: Expression, block: Expression, targets: readonly number[]): void {
    const { f, graph } = this;
    const ops = targets.map((to) => graph.nodes[to].block.op);
    const { factor, shift, slots } = perfectHash(ops);
    f.block((none) => {
      const cases = slots.map((slot) => () => {
        if (slot >= 0) f.if(block.eq(ops[slot]), () => this.enter(from, rip, targets[slot]));
        f.branch(none);
      });
      f.switch(block.mul(i32(factor)).shrU(shift), cases, () => f.branch(none));
    });
  }

  private enter(from: number, rip: Expression, to: number): void {
    if (!this.region.x87.mayGoTo(to)) return;
    this.region.enterPage(rip, this.graph.nodes[to].offset);
    this.branch(from, to);
  }
}

const RSP = 4;
const USES_STACK = new Set(['PUSH', 'POP', 'CALL', 'RET', 'LEAVE']);

/** The registers that an instruction's addresses are computed from, as bits. */
function basesOf({ form, mod, base }: Decoded): number {
  return (mod !== 3 && base >= 0 ? 1 << base : 0) | (USES_STACK.has(form.instruction.mnemonic) ? 1 << RSP : 0);
}

/** For each instruction of a block: does another behind it access memory by the same register, still with a value that is related? */
function basesUsedAgain(instructions: readonly Decoded[]): boolean[] {
  const result: boolean[] = new Array(instructions.length);
  let later = 0;
  for (let i = instructions.length - 1; i >= 0; i--) {
    const { form, reg } = instructions[i];
    const replaces = form.instruction.access?.[0] === 'w' && form.encoding.operands[0]?.code === 'G' && form.instruction.mnemonic !== 'LEA';
    if (replaces) later &= ~(1 << reg);
    const bases = basesOf(instructions[i]);
    result[i] = (bases & later) !== 0;
    later |= bases;
  }
  return result;
}

/** More targets than this are told apart by a switch. */
const MOST_COMPARED = 4;

/** A multiplication and a shift that give different numbers for all keys; `slots` says which key has each number, -1 for none. */
function perfectHash(keys: readonly number[]): { factor: number; shift: number; slots: number[] } {
  for (let bits = Math.ceil(Math.log2(keys.length)); ; bits++) {
    const shift = 32 - bits;
    let factor = 0x9e3779b1 | 0;
    for (let attempt = 0; attempt < 64; attempt++) {
      const slots = new Array<number>(1 << bits).fill(-1);
      const free = keys.every((key, i) => {
        const slot = Math.imul(key, factor) >>> shift;
        const first = slots[slot] < 0;
        slots[slot] = i;
        return first;
      });
      if (free) return { factor, shift, slots };
      factor = (Math.imul(factor, 1664525) + 1013904223) | 1;
    }
  }
}
