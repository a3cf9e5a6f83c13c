/**
 * From a graph of blocks to structured control flow, by dominators: Ramsey, "Beyond Relooper: recursive translation of
 * unstructured control flow to structured control flow" (ICFP 2022). Where a graph has several entries, or a way into the middle of
 * a loop, the nodes concerned are reached through a dispatcher: a loop around everything with a switch at its head.
 */

import { i32 } from '../../wasm/expression.ts';
import type { FunctionBuilder, Label, Local } from '../../wasm/function-builder.ts';

export class ControlFlow {
  /** Nodes that are reached through the dispatcher only, in the order of its cases; empty where there is none. */
  readonly dispatched: number[];
  /** Chooses among them. */
  private selector: Local | undefined;
  private readonly root: number;
  private graph!: Graph;
  private readonly blockLabels: (Label | undefined)[] = [];
  private readonly loopLabels: (Label | undefined)[] = [];

  /** `successors[i]` are the nodes that node i can go to, each as often as its code does. */
  constructor(successors: readonly (readonly number[])[], entries: readonly number[] = [0]) {
    const dispatcher = successors.length;
    this.dispatched = entries.length > 1 ? [...entries] : [];
    for (;;) {
      this.graph = this.dispatched.length ? new Graph(throughDispatcher(successors, this.dispatched), dispatcher) : new Graph(successors, entries[0]);
      const middle = this.graph.loopWithTwoEntries();
      if (middle < 0) break;
      if (!this.dispatched.length) this.dispatched.push(entries[0]);
      if (!this.dispatched.includes(middle)) this.dispatched.push(middle);
    }
    this.root = this.dispatched.length ? dispatcher : entries[0];
  }

  /**
   * Builds the whole graph: `emit(node)` builds a node's code and calls `branch` for each way out of it. `choose(select)` comes first where
   * there are several entries: it calls `select` for the one to begin with.
   */
  build(f: FunctionBuilder, emit: (node: number) => void, choose: (select: (entry: number) => void) => void = () => {}): void {
    if (this.dispatched.length) {
      this.selector = f.variable('i32');
      f.set(this.selector, 0);
      choose((entry) => this.select(f, entry));
    }
    this.tree(f, this.root, emit);
  }

  /** Goes from `from` to its successor `to`. */
  branch(f: FunctionBuilder, from: number, to: number, emit: (node: number) => void): void {
    if (from !== this.root && this.dispatched.includes(to)) {
      this.select(f, to);
      return this.edge(f, from, this.root, emit);
    }
    this.edge(f, from, to, emit);
  }

  /** Whether a node's code is reached in several ways, not only from where the one edge to it is built. */
  joins(node: number): boolean {
    return this.graph.merges[node] > 0 || this.graph.loops[node] > 0 || this.dispatched.includes(node);
  }

  private select(f: FunctionBuilder, node: number): void {
    f.set(this.selector as Local, this.dispatched.indexOf(node));
  }

  private edge(f: FunctionBuilder, from: number, to: number, emit: (node: number) => void): void {
    const back = this.graph.order[to] <= this.graph.order[from];
    const label = back ? this.loopLabels[to] : this.blockLabels[to];
    if (!back && !this.graph.merges[to]) return this.tree(f, to, emit);
    if (!label?.open) throw new Error(`no way from node ${from} to ${to}`);
    f.branch(label);
  }

  private tree(f: FunctionBuilder, node: number, emit: (node: number) => void): void {
    const { order, merges } = this.graph;
    const inside = this.graph.children[node].filter((child) => merges[child]).sort((a, b) => order[b] - order[a]);
    if (!this.graph.loops[node]) return this.within(f, node, inside, 0, emit);
    f.loop((label) => {
      this.loopLabels[node] = label;
      this.within(f, node, inside, 0, emit);
    });
  }

  /** The node's code inside blocks whose ends are the merge nodes it dominates, the last one outermost. */
  private within(f: FunctionBuilder, node: number, merges: readonly number[], next: number, emit: (node: number) => void): void {
    if (next === merges.length) return this.node(f, node, emit);
    const merge = merges[next];
    f.block((label) => {
      this.blockLabels[merge] = label;
      this.within(f, node, merges, next + 1, emit);
    });
    this.tree(f, merge, emit);
  }

  private node(f: FunctionBuilder, node: number, emit: (node: number) => void): void {
    if (node !== this.root || !this.selector) return emit(node);
    const [first, ...rest] = this.dispatched.map((to) => () => this.edge(f, node, to, emit));
    // The first one is also what an impossible selector means.
    f.switch(f.get(this.selector).sub(i32(1)), rest, first);
  }
}

/** Every edge to a dispatched node goes to the dispatcher, a further node behind all. */
function throughDispatcher(successors: readonly (readonly number[])[], dispatched: readonly number[]): number[][] {
  const dispatcher = successors.length;
  return [...successors.map((list) => list.map((to) => (dispatched.includes(to) ? dispatcher : to))), [...dispatched]];
}

/** What structuring wants to know of a graph. */
class Graph {
  /** Position in reverse postorder from the root, -1 for what cannot be reached. */
  readonly order: Int32Array;
  /** Nodes that each one dominates immediately. */
  readonly children: number[][];
  /** More than one edge leads forward to it. */
  readonly merges: Uint8Array;
  /** An edge leads back to it. */
  readonly loops: Uint8Array;
  private readonly successors: readonly (readonly number[])[];
  private readonly sequence: number[];
  private readonly dominator: Int32Array;

  constructor(successors: readonly (readonly number[])[], root: number) {
    const count = successors.length;
    this.successors = successors;
    this.order = new Int32Array(count).fill(-1);
    this.merges = new Uint8Array(count);
    this.loops = new Uint8Array(count);
    this.sequence = this.reversePostorder(root);
    this.dominator = this.dominators(root);
    this.children = successors.map(() => []);
    for (const node of this.sequence) if (node !== root) this.children[this.dominator[node]].push(node);
    const forward = new Uint16Array(count);
    for (const from of this.sequence) {
      for (const to of successors[from]) {
        if (this.order[to] <= this.order[from]) this.loops[to] = 1;
        else forward[to]++;
      }
    }
    for (let i = 0; i < count; i++) this.merges[i] = forward[i] > 1 ? 1 : 0;
  }

  /** A node that an edge leads back to from where other ways lead too: no loop has it as its head. -1: there is none. */
  loopWithTwoEntries(): number {
    for (const from of this.sequence) {
      for (const to of this.successors[from]) if (this.order[to] <= this.order[from] && !this.dominates(to, from)) return to;
    }
    return -1;
  }

  private dominates(a: number, b: number): boolean {
    let node = b;
    while (this.order[node] > this.order[a]) node = this.dominator[node];
    return node === a;
  }

  private reversePostorder(root: number): number[] {
    const seen = new Uint8Array(this.successors.length);
    const postorder: number[] = [];
    const visit = (node: number): void => {
      seen[node] = 1;
      for (const next of this.successors[node]) if (!seen[next]) visit(next);
      postorder.push(node);
    };
    visit(root);
    const sequence = postorder.reverse();
    for (const [i, node] of sequence.entries()) this.order[node] = i;
    return sequence;
  }

  /** Immediate dominators: Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm". */
  private dominators(root: number): Int32Array {
    const { order, sequence } = this;
    const predecessors: number[][] = this.successors.map(() => []);
    for (const from of sequence) for (const to of this.successors[from]) predecessors[to].push(from);
    const dominator = new Int32Array(this.successors.length).fill(-1);
    dominator[root] = root;
    const intersect = (a: number, b: number): number => {
      let [x, y] = [a, b];
      while (x !== y) {
        while (order[x] > order[y]) x = dominator[x];
        while (order[y] > order[x]) y = dominator[y];
      }
      return x;
    };
    for (let changed = true; changed; ) {
      changed = false;
      for (const node of sequence) {
        if (node === root) continue;
        let found = -1;
        for (const from of predecessors[node]) if (dominator[from] >= 0) found = found < 0 ? from : intersect(found, from);
        if (dominator[node] !== found) {
          dominator[node] = found;
          changed = true;
        }
      }
    }
    return dominator;
  }
}
