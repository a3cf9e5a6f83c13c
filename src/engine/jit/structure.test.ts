/** Random graphs, structured and run as WebAssembly, have to take the way the graph says. */

import { describe, expect, it } from 'vitest';
import { i32 } from '../../wasm/expression.ts';
import type { FunctionReference } from '../../wasm/function-builder.ts';
import { ModuleBuilder } from '../../wasm/module-builder.ts';
import { ControlFlow } from './structure.ts';

const STEPS = 40;

/** A small generator: the same graphs each time. */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >>> 8) % below;
  };
}

/** Runs a graph as compiled, from `entry`: `visit(node)` is told of each node and says which successor is taken; -1 ends. */
function run(successors: number[][], visit: (node: number) => number, entries = [0], entry = 0): ControlFlow {
  const module = new ModuleBuilder();
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  module.importMemory(memory);
  const see: FunctionReference = module.importFunction('see', { parameters: ['i32'], results: ['i32'] });
  const f = module.function('graph', { parameters: ['i32'], results: [] });
  const flow = new ControlFlow(successors, entries);
  const emit = (node: number): void => {
    const choice = f.call(see, i32(node));
    for (const [i, to] of successors[node].entries()) f.if(choice.eq(i), () => flow.branch(f, node, to, emit));
    f.return();
  };
  flow.build(f, emit, (select) => {
    for (const node of entries) f.if(f.parameter(0).eq(node), () => select(node));
  });
  module.export(f);
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.bytes()), { env: { memory, see: visit } } as unknown as WebAssembly.Imports);
  (instance.exports.graph as (entry: number) => void)(entry);
  return flow;
}

/** Takes random ways through a random graph, by hand and as compiled. */
function compare(seed: number, edges: number, entryCount: number): void {
  const random = randomNumbers(seed);
  const count = entryCount + random(9);
  const successors = Array.from({ length: count }, () => Array.from({ length: random(edges + 1) }, () => random(count)));
  const entries = Array.from({ length: entryCount }, (_, i) => i);
  const choose = randomNumbers(seed * 7919);
  const entry = choose(entryCount);
  const expected: number[] = [];
  const actual: number[] = [];
  const choices: number[] = [];
  let node = entry;
  for (let step = 0; step < STEPS; step++) {
    expected.push(node);
    const list = successors[node];
    const choice = list.length && step < STEPS - 1 ? choose(list.length) : -1;
    choices.push(choice);
    if (choice < 0) break;
    node = list[choice];
  }
  run(successors, (visited) => choices[actual.push(visited) - 1] ?? -1, entries, entry);
  expect(actual, `seed ${seed}`).toEqual(expected);
}

describe('structured control flow', () => {
  it('takes the way that random graphs say', () => {
    for (let seed = 1; seed <= 400; seed++) compare(seed, 2, 1);
  });

  it('takes it in graphs with many edges and several entries', () => {
    for (let seed = 1; seed <= 400; seed++) compare(seed, 5, 1 + (seed % 4));
  });

  it('needs no dispatcher for a loop with an exit in its middle', () => {
    const visits: number[] = [];
    const choices = [0, 0, 1, 0, 1, 1];
    const flow = run([[1], [2, 3], [1, 3], []], (node) => choices[visits.push(node) - 1] ?? -1);
    expect(visits).toEqual([0, 1, 2, 3]);
    expect(flow.dispatched).toEqual([]);
  });

  it('goes into the middle of a loop through the dispatcher', () => {
    // 1 and 2 form a loop that 0 enters at both.
    const visits: number[] = [];
    const flow = run([[1, 2], [2], [1]], (node) => (visits.push(node) < 6 ? (node === 0 ? 1 : 0) : -1));
    expect(visits).toEqual([0, 2, 1, 2, 1, 2]);
    expect(flow.dispatched).toHaveLength(2);
  });
});
