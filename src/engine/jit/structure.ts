/**
 * From a graph of blocks to structured control flow, by dominators: Ramsey, "Beyond Relooper: recursive translation of
 * unstructured control flow to structured control flow" (ICFP 2022). Edges that no structure can express (into the middle
 * of a loop) are left to the caller.
 */

import type { FunctionBuilder, Label } from '../../wasm/function-builder.ts';

export class ControlFlow {
  private readonly successors: readonly (readonly number[])[];
  /** Position in reverse postorder from node 0, -1 for what cannot be reached. */
  private readonly order: Int32Array;
  private readonly children: number[][];
  private readonly merges: Uint8Array;
  private readonly loops: Uint8Array;
  private readonly blockLabels: (Label | undefined)[];
  private readonly loopLabels: (Label | undefined)[];

  /** `successors[i]` are the nodes that node i can go to. The entry is node 0. */
  constructor(successors: readonly (readonly number[])[]) {
    const count = successors.length;
    this.successors = successors;
    this.order = new Int32Array(count).fill(-1);
    this.merges = new Uint8Array(count);
    this.loops = new Uint8Array(count);
    this.blockLabels = new Array(count);
    this.loopLabels = new Array(count);
    const sequence = this.reversePostorder();
    const dominator = this.dominators(sequence);
    this.children = successors.map(() => []);
    for (const node of sequence) if (node !== 0) this.children[dominator[node]].push(node);
    const forward = new Uint16Array(count);
    for (const from of sequence) {
      for (const to of successors[from]) {
        if (this.order[to] <= this.order[from]) this.loops[to] = 1;
        else forward[to]++;
      }
    }
    for (let i = 0; i < count; i++) this.merges[i] = forward[i] > 1 ? 1 : 0;
  }

  /** Builds the whole graph: `emit(node)` builds a node's code and calls `branch` for each way out of it. */
  build(f: FunctionBuilder, emit: (node: number) => void): void {
    this.tree(f, 0, emit);
  }

  /** Goes from `from` to its successor `to`. False where the structure has no way: then nothing was built. */
  branch(f: FunctionBuilder, from: number, to: number, emit: (node: number) => void): boolean {
    const back = this.order[to] <= this.order[from];
    const label = back ? this.loopLabels[to] : this.blockLabels[to];
    if (back || this.merges[to]) {
      if (!label?.open) return false;
      f.branch(label);
      return true;
    }
    this.tree(f, to, emit);
    return true;
  }

  private tree(f: FunctionBuilder, node: number, emit: (node: number) => void): void {
    const merges = this.children[node].filter((child) => this.merges[child]).sort((a, b) => this.order[b] - this.order[a]);
    if (!this.loops[node]) return this.within(f, node, merges, 0, emit);
    f.loop((label) => {
      this.loopLabels[node] = label;
      this.within(f, node, merges, 0, emit);
    });
  }

  /** The node's code inside blocks whose ends are the merge nodes it dominates, the last one outermost. */
  private within(f: FunctionBuilder, node: number, merges: readonly number[], next: number, emit: (node: number) => void): void {
    if (next === merges.length) return emit(node);
    const merge = merges[next];
    f.block((label) => {
      this.blockLabels[merge] = label;
      this.within(f, node, merges, next + 1, emit);
    });
    this.tree(f, merge, emit);
  }

  private reversePostorder(): number[] {
    const seen = new Uint8Array(this.successors.length);
    const postorder: number[] = [];
    const visit = (node: number): void => {
      seen[node] = 1;
      for (const next of this.successors[node]) if (!seen[next]) visit(next);
      postorder.push(node);
    };
    visit(0);
    const sequence = postorder.reverse();
    for (const [i, node] of sequence.entries()) this.order[node] = i;
    return sequence;
  }

  /** Immediate dominators: Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm". */
  private dominators(sequence: readonly number[]): Int32Array {
    const { order } = this;
    const predecessors: number[][] = this.successors.map(() => []);
    for (const from of sequence) for (const to of this.successors[from]) predecessors[to].push(from);
    const dominator = new Int32Array(this.successors.length).fill(-1);
    dominator[0] = 0;
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
        if (node === 0) continue;
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
