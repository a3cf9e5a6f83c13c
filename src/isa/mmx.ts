/**
 * Moves of MMX registers, and EMMS. The arithmetic is with SSE2's (sse-integer.ts). SDM 1 chapter 9.
 * MMX registers are the low 64 bits of the x87 ones; `enterMmx` does what every MMX instruction does to the x87 state.
 */

import { FSW, FSW_TOP, FTW } from '../cpu/state.ts';
import { i32 } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import { LOW_64, splat } from './vector.ts';

instruction('MOVD', ['NP 0F 6E Pq Ed ; W0', 'NP 0F 7E Ed Pq ; W0'], { access: 'wr' }, (x, destination, source) => {
  x.enterMmx();
  destination.write(source.unsigned());
});
instruction(
  'MOVQ',
  ['NP 0F 6E Pq Eq ; W1', 'NP 0F 7E Eq Pq ; W1', 'NP 0F 6F Pq Qq', 'NP 0F 7F Qq Pq'],
  { access: 'wr' },
  (x, destination, source) => {
    x.enterMmx();
    destination.write(source.unsigned());
  },
);
instruction('MOVNTQ', 'NP 0F E7 Mq Pq', { access: 'wr' }, (x, destination, source) => {
  x.enterMmx();
  destination.write(source.unsigned());
});

instruction('MOVQ2DQ', 'F3 0F D6 Vdq Nq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  x.enterMmx();
  destination.writeVector(splat(64, source.unsigned()).and(LOW_64));
});
instruction('MOVDQ2Q', 'F2 0F D6 Pq Uq', { access: 'wr' }, (x, destination, source) => {
  x.requireSse();
  x.enterMmx();
  destination.write(source.unsigned());
});

instruction('EMMS', 'NP 0F 77', {}, (x) => {
  x.requireMmx();
  x.setState32(FTW, i32(0));
  x.setState32(FSW, x.state32(FSW).and(~FSW_TOP));
});
