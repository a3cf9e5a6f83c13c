/** CLC, STC, CMC, CLD, STD, LAHF, SAHF, SALC. SDM 2, instruction reference. CLI and STI are elsewhere (system.ts). */

import * as state from '../cpu/state.ts';
import { i64 } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import type { Semantics } from './semantics.ts';

const AF_BIT = 1n << 3n; // of the carry word
const CF_BIT = 1n << 63n;

instruction('CLC', 'F8', {}, (x) => x.setFlags({ carry: x.carryWord().and(AF_BIT) }));
instruction('STC', 'F9', {}, (x) => x.setFlags({ carry: x.carryWord().or(CF_BIT) }));
instruction('CMC', 'F5', {}, (x) => x.setFlags({ carry: x.carryWord().op('xor', CF_BIT) }));

const DF = 1n << 10n;
const direction = (x: Semantics, down: boolean): void => {
  const flags = x.state64(state.RFLAGS);
  x.setState64(state.RFLAGS, down ? flags.or(DF) : flags.and(~DF));
};
instruction('CLD', 'FC', {}, (x) => direction(x, false));
instruction('STD', 'FD', {}, (x) => direction(x, true));

/** SF, ZF, AF, PF, CF: the status flags of RFLAGS' low byte, whose bit 1 reads as 1. */
const LOW_FLAGS = 0xd5;
const OF_PLACE = 11;

// The first processors with 64-bit mode had these in the others only.
for (const [mode, attributes] of [['n64', {}], ['o64', { feature: 'lahf_lm' }]] as const) {
  instruction('LAHF', `9F ; ${mode}`, attributes, (x) => x.highByte(0).write(x.statusFlags().and(LOW_FLAGS).or(2)));
  instruction('SAHF', `9E ; ${mode}`, attributes, (x) => {
    x.setStatusFlags(x.highByte(0).unsigned().and(LOW_FLAGS).or(x.overflowFlag().extendU().shl(OF_PLACE)));
  });
}

// AL = CF ? 0xff : 0; in no manual, in every processor.
instruction('SALC', 'D6 ; n64', {}, (x) => x.gpr(0, 8).write(i64(0).sub(x.carryFlag().extendU())));
