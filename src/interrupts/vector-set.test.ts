import { describe, expect, it } from 'vitest';
import { VectorSet } from './vector-set.ts';

describe('VectorSet', () => {
  it('knows its highest vector through additions and removals in any order', () => {
    const set = new VectorSet();
    expect(set.highest).toBe(-1);
    for (const vector of [0, 255, 31, 32, 128]) expect(set.add(vector)).toBe(true);
    expect(set.add(32)).toBe(false);
    const order = [];
    while (set.highest >= 0) {
      order.push(set.highest);
      set.delete(set.highest);
    }
    expect(order).toEqual([255, 128, 32, 31, 0]);
    expect([...set.words]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  });

  it('keeps its highest when a lower or an absent vector is removed', () => {
    const set = new VectorSet();
    set.add(200);
    set.add(100);
    set.delete(100);
    set.delete(40);
    expect(set.highest).toBe(200);
    set.clear();
    expect([set.highest, set.has(200)]).toEqual([-1, false]);
  });
});
