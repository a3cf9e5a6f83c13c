/** Random graphs, structured and run as WebAssembly, have to take the way the graph says. */

import { describe, expect, it } from 'vitest';
import { i32 } from '../../wasm/expression.ts';
import type { FunctionReference, Label } from '../../wasm/function-builder.ts';
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

/** Runs a graph as compiled: `visit(node)` is told of each node and says which successor is taken; -1 ends. Gives the edges that could not be expressed. */
function run(successors: number[][], visit: (node: number) => number): Set<string> {
  const module = new ModuleBuilder();
  module.importMemory(new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }));
  const see: FunctionReference = module.importFunction('see', { parameters: ['i32'], results: ['i32'] });
  const miss: FunctionReference = module.importFunction('miss', { parameters: ['i32', 'i32'], results: [] });
  const f = module.function('graph', { parameters: [], results: [] });
  const flow = new ControlFlow(successors);
  const emit = (out: Label) => (node: number): void => {
    const choice = f.call(see, i32(node));
    for (const [i, to] of successors[node].entries()) {
      f.if(choice.eq(i), () => {
        if (flow.branch(f, node, to, emit(out))) return;
        f.call(miss, i32(node), i32(to));
        f.branch(out);
      });
    }
    f.branch(out);
  };
  f.block((out) => flow.build(f, emit(out)));
  module.export(f);
  const missed = new Set<string>();
  const env = { memory: new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }), see: visit, miss: (from: number, to: number) => missed.add(`${from}>${to}`) };
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.bytes()), { env } as unknown as WebAssembly.Imports);
  (instance.exports.graph as () => void)();
  return missed;
}

describe('structured control flow', () => {
  it('takes the way that random graphs say, or tells of the edge it lacks', () => {
    for (let seed = 1; seed <= 400; seed++) {
      const random = randomNumbers(seed);
      const count = 1 + random(9);
      // At most one edge to a node from any other: what the JIT's blocks have.
      const successors = Array.from({ length: count }, () => [...new Set(Array.from({ length: random(3) }, () => random(count)))]);
      const choose = randomNumbers(seed * 7919);
      const expected: number[] = [];
      const actual: number[] = [];
      const choices: number[] = [];
      let node = 0;
      for (let step = 0; step < STEPS; step++) {
        expected.push(node);
        const list = successors[node];
        const choice = list.length && step < STEPS - 1 ? choose(list.length) : -1;
        choices.push(choice);
        if (choice < 0) break;
        node = list[choice];
      }
      const missed = run(successors, (visited) => {
        actual.push(visited);
        return choices[actual.length - 1] ?? -1;
      });
      if (missed.size) {
        const [edge] = missed;
        expect(edge, `seed ${seed}`).toBe(`${actual.at(-1)}>${expected[actual.length]}`);
        expect(actual).toEqual(expected.slice(0, actual.length));
      } else expect(actual, `seed ${seed}`).toEqual(expected);
    }
  });

  it('expresses every edge of a loop with an exit in its middle', () => {
    const visits: number[] = [];
    const choices = [0, 0, 1, 0, 1, 1];
    const missed = run([[1], [2, 3], [1, 3], []], (node) => {
      visits.push(node);
      return choices[visits.length - 1] ?? -1;
    });
    expect(missed.size).toBe(0);
    expect(visits).toEqual([0, 1, 2, 3]);
  });

  it('leaves an edge into the middle of a loop to its caller', () => {
    // 1 and 2 form a loop that 0 enters at both.
    const visits: number[] = [];
    const missed = run([[1, 2], [2], [1]], (node) => {
      visits.push(node);
      return 0;
    });
    expect([...missed]).toHaveLength(1);
  });
});
