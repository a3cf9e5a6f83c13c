/**
 * SSE4.1 and SSE4.2 on XMM registers, PCMPxSTRx included; CRC32 and POPCNT are with the integer instructions. SDM 2B.
 * Rounding and dot products do with MXCSR as sse-float.ts does.
 */

import { apply, type Expression, i32, i64, select } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import { COMPARE_EXPLICIT, COMPARE_IMPLICIT } from './packed-strings.ts';
import type { Semantics } from './semantics.ts';
import {
  arithmetic,
  controlled,
  DOUBLE,
  type Format,
  isDenormal,
  isPeculiar,
  scalar,
  SINGLE,
  wantsPrecision,
  wantsRounding,
} from './sse-float.ts';
import { evenProducts, extractLane, insertLane, laneNumber, packed, plain } from './sse-integer.ts';
import {
  byteOf,
  bytesFrom,
  gather,
  type LaneBits,
  lanesByBits,
  lanesOf,
  LOW_64,
  merge,
  oneLane,
  pick,
  SHAPE,
  splat,
  swizzle,
  ZERO,
} from './vector.ts';

// --- Packed integers ----------------------------------------------------------------------------------

// biome-ignore format: a table
for (const [mnemonic, opcode, operation] of [
  ['PMINSB', '38', 'i8x16.min_s'], ['PMINSD', '39', 'i32x4.min_s'], ['PMINUW', '3A', 'i16x8.min_u'],
  ['PMINUD', '3B', 'i32x4.min_u'], ['PMAXSB', '3C', 'i8x16.max_s'], ['PMAXSD', '3D', 'i32x4.max_s'],
  ['PMAXUW', '3E', 'i16x8.max_u'], ['PMAXUD', '3F', 'i32x4.max_u'], ['PMULLD', '40', 'i32x4.mul'],
  ['PCMPEQQ', '29', 'i64x2.eq'], ['PCMPGTQ', '37', 'i64x2.gt_s'], ['PACKUSDW', '2B', 'i16x8.narrow_i32x4_u'],
]) packed(mnemonic, `0F 38 ${opcode}`, plain(operation), 'none', { feature: mnemonic === 'PCMPGTQ' ? 'sse4_2' : 'sse4_1' });
packed('PMULDQ', '0F 38 28', evenProducts('s'), 'none', { feature: 'sse4_1' });

// Extensions: each step doubles the width of the lanes, from 8, 16 or 32 bits.
// biome-ignore format: a table
for (const [suffix, opcode, from, to, memory] of [
  ['BW', 0, 8, 16, 'q'], ['BD', 1, 8, 32, 'd'], ['BQ', 2, 8, 64, 'w'],
  ['WD', 3, 16, 32, 'q'], ['WQ', 4, 16, 64, 'd'], ['DQ', 5, 32, 64, 'q'],
] as const) {
  for (const [name, base, sign] of [['PMOVSX', 0x20, 's'], ['PMOVZX', 0x30, 'u']] as const) {
    const code = `66 0F 38 ${(base + opcode).toString(16)}`;
    const encodings = [`${code} Vdq Udq ; reg`, `${code} Vdq M${memory} ; mem`];
    instruction(`${name}${suffix}`, encodings, { access: 'wr', feature: 'sse4_1' }, (x, destination, source) => {
      x.requireSse();
      let v = source.kind === 'memory' ? splat(64, source.unsigned()) : source.vector();
      for (let bits: number = from; bits < to; bits *= 2) {
        const [narrow, wide] = [SHAPE[bits as LaneBits], SHAPE[(2 * bits) as LaneBits]];
        v = apply(`${wide}.extend_low_${narrow}_${sign}`, v);
      }
      destination.writeVector(v);
    });
  }
}

// The smallest word and its number: of 32-bit keys, word above number, the smallest.
instruction('PHMINPOSUW', '66 0F 38 41 Vdq Wdq', { access: 'wr', feature: 'sse4_1' }, (x, destination, source) => {
  x.requireSse();
  const { f } = x;
  const v = source.vector();
  const keys = (half: 'low' | 'high', numbers: number[]): Expression =>
    apply('i32x4.shl', apply(`i32x4.extend_${half}_i16x8_u`, v), i32(16)).or(lanesOf(32, numbers));
  const four = f.let(apply('i32x4.min_u', keys('low', [0, 1, 2, 3]), keys('high', [4, 5, 6, 7])));
  const two = f.let(apply('i32x4.min_u', four, gather(four, four, 32, [2, 3, 0, 1])));
  const smallest = f.let(apply('i32x4.min_u', two, gather(two, two, 32, [1, 0, 3, 2])).lane('i32x4.extract_lane', 0));
  destination.writeVector(splat(64, smallest.shrU(16).or(smallest.and(7).shl(16)).extendU()).and(LOW_64));
});

// Eight sums of four distances: a block of the source against the destination from each of eight bytes on.
instruction('MPSADBW', '66 0F 3A 42 Vdq Wdq Ib', { access: 'mrr', feature: 'sse4_1' }, (x, destination, source, immediate) => {
  x.requireSse();
  const { f } = x;
  const b = source.vector();
  const control = byteOf(x, immediate);
  const block = f.let(swizzle(b, bytesFrom(control.and(3).shl(2))));
  const window = f.let(swizzle(destination.vector(), bytesFrom(control.and(4))));
  const distance = (i: number): Expression => {
    const moving = apply(
      'i16x8.extend_low_i8x16_u',
      gather(window, window, 8, (k) => (k + i) & 15),
    );
    const fixed = gather(block, ZERO, 8, (k) => (k & 1 ? 16 : i));
    return apply('i16x8.abs', apply('i16x8.sub', moving, fixed));
  };
  destination.writeVector([1, 2, 3].reduce((sum, i) => apply('i16x8.add', sum, distance(i)), distance(0)));
});

instruction('PTEST', '66 0F 38 17 Vdq Wdq', { access: 'rr', feature: 'sse4_1' }, (x, first, second) => {
  x.requireSse();
  const b = second.vector();
  const a = first.vector();
  const common = apply('v128.any_true', a.and(b));
  const outside = apply('v128.any_true', apply('v128.andnot', b, a));
  x.setFlags({
    zero: common.extendU(),
    sign: 1,
    carry: outside.eqz().extendU().shl(63),
    overflow: 0,
  });
});

// --- Lanes in and out ---------------------------------------------------------------------------------

for (const [suffix, opcode, bits, register, memory] of [
  ['B', '20', 8, 'Rd', 'Mb'],
  ['D', '22', 32, 'Rd', 'Md'],
  ['Q', '22', 64, 'Rq', 'Mq'],
] as const) {
  const width = bits === 64 ? ' W1' : bits === 32 ? ' W0' : '';
  const encodings = (code: string, order: (general: string) => string): string[] => [
    `66 0F 3A ${code} ${order(register)} Ib ; reg${width}`,
    `66 0F 3A ${code} ${order(memory)} Ib ; mem${width}`,
  ];
  instruction(
    `PINSR${suffix}`,
    encodings(opcode, (general) => `Vdq ${general}`),
    { access: 'mrr', feature: 'sse4_1' },
    (x, destination, source, immediate) => {
      x.requireSse();
      const value = source.unsigned();
      destination.writeVector(insertLane(destination.vector(), bits, laneNumber(x, immediate, 128 / bits), value));
    },
  );
  const extract = { 8: '14', 32: '16', 64: '16' }[bits];
  instruction(
    `PEXTR${suffix}`,
    encodings(extract, (general) => `${general} Vdq`),
    { access: 'wrr', feature: 'sse4_1' },
    (x, destination, source, immediate) => {
      x.requireSse();
      destination.write(extractLane(source.vector(), bits, laneNumber(x, immediate, 128 / bits)).zeroExtend(bits));
    },
  );
}
instruction(
  'PEXTRW',
  ['66 0F 3A 15 Rd Vdq Ib ; reg', '66 0F 3A 15 Mw Vdq Ib ; mem'],
  { access: 'wrr', feature: 'sse4_1' },
  (x, destination, source, immediate) => {
    x.requireSse();
    destination.write(extractLane(source.vector(), 16, laneNumber(x, immediate, 8)).and(0xffff));
  },
);
instruction('EXTRACTPS', '66 0F 3A 17 Ed Vdq Ib', { access: 'wrr', feature: 'sse4_1' }, (x, destination, source, immediate) => {
  x.requireSse();
  destination.write(extractLane(source.vector(), 32, laneNumber(x, immediate, 4)));
});

// Immediate: lane of the source (not of memory, which is one), lane of the destination, lanes to clear.
instruction('INSERTPS', '66 0F 3A 21 Vdq Wd Ib', { access: 'mrr', feature: 'sse4_1' }, (x, destination, source, immediate) => {
  x.requireSse();
  const { f } = x;
  const control = byteOf(x, immediate);
  const value = f.let(source.kind === 'memory' ? source.unsigned() : extractLane(source.vector(), 32, control.shrU(6)));
  const inserted = merge(oneLane(f.let(control.shrU(4).and(3)), 32), splat(32, value.wrap()), destination.vector());
  destination.writeVector(
    apply(
      'v128.andnot',
      inserted,
      lanesByBits(control, 32, (lane) => lane),
    ),
  );
});

// --- Blends -------------------------------------------------------------------------------------------

for (const [mnemonic, opcode, bits] of [
  ['BLENDPS', '0C', 32],
  ['BLENDPD', '0D', 64],
  ['PBLENDW', '0E', 16],
] as const) {
  instruction(mnemonic, `66 0F 3A ${opcode} Vdq Wdq Ib`, { access: 'mrr', feature: 'sse4_1' }, (x, destination, source, immediate) => {
    x.requireSse();
    const b = source.vector();
    destination.writeVector(
      merge(
        lanesByBits(byteOf(x, immediate), bits, (lane) => lane),
        b,
        destination.vector(),
      ),
    );
  });
}
for (const [mnemonic, opcode, bits] of [
  ['PBLENDVB', '10', 8],
  ['BLENDVPS', '14', 32],
  ['BLENDVPD', '15', 64],
] as const) {
  instruction(mnemonic, `66 0F 38 ${opcode} Vdq Wdq`, { access: 'mr', feature: 'sse4_1' }, (x, destination, source) => {
    x.requireSse();
    const b = source.vector();
    const mask = apply(`${SHAPE[bits]}.shr_s`, x.xmm(0).vector(), i32(bits - 1));
    destination.writeVector(merge(mask, b, destination.vector()));
  });
}

// --- Floating point -----------------------------------------------------------------------------------

/** Rounding modes in the order of the immediate; bit 2 asks for MXCSR's instead, bit 3 for no notice of inexact results. */
const ROUNDINGS = ['nearest', 'floor', 'ceil', 'trunc'] as const;
const roundingMode = (x: Semantics, control: Expression): Expression => x.f.let(select(control.and(4), i32(0), control.and(3)));
/** What is not an integer yet is a reason for doubt. */
const inexactMatters = (x: Semantics, control: Expression): Expression =>
  select(control.and(4), wantsRounding(x), control.and(8).eqz().and(wantsPrecision(x)));
for (const [suffix, packedOpcode, scalarOpcode, size, format] of [
  ['S', '08', '0A', 'ss', SINGLE],
  ['D', '09', '0B', 'sd', DOUBLE],
] as [string, string, string, string, Format][]) {
  instruction(
    `ROUNDP${suffix}`,
    `66 0F 3A ${packedOpcode} Vdq Wdq Ib`,
    { access: 'wrr', feature: 'sse4_1' },
    (x, destination, source, immediate) => {
      x.requireSse();
      const v = source.vector();
      const control = byteOf(x, immediate);
      const usual = pick(x, roundingMode(x, control), ...ROUNDINGS.map((name) => apply(`${format.shape}.${name}`, v)));
      const doubt = (result: Expression): Expression => {
        const inexact = apply('v128.any_true', apply(`${format.shape}.ne`, result, v));
        return isPeculiar(format, v).or(inexact.and(inexactMatters(x, control)));
      };
      destination.writeVector(controlled(x, ['round', format, 128 / format.bits], [v, v], usual, [doubt], control));
    },
  );
  instruction(
    `ROUNDS${suffix}`,
    `66 0F 3A ${scalarOpcode} V${size} W${size} Ib`,
    { access: 'wrr', feature: 'sse4_1' },
    (x, destination, source, immediate) => {
      x.requireSse();
      const v = scalar(source, format);
      const control = byteOf(x, immediate);
      const usual = pick(x, roundingMode(x, control), ...ROUNDINGS.map((name) => v.op(name)));
      const doubt = (result: Expression): Expression =>
        v.ne(v).or(isDenormal(format, v)).or(result.ne(v).and(inexactMatters(x, control)));
      destination.writeLow(controlled(x, ['round', format, 1], [v, v], usual, [doubt], control), format.bits);
    },
  );
}

// Dot products: bits 4 to 7 choose the products, bits 0 to 3 the lanes that get their sum; the others are 0.
for (const [suffix, opcode, format] of [
  ['PS', '40', SINGLE],
  ['PD', '41', DOUBLE],
] as const) {
  const { bits } = format;
  instruction(`DP${suffix}`, `66 0F 3A ${opcode} Vdq Wdq Ib`, { access: 'mrr', feature: 'sse4_1' }, (x, destination, source, immediate) => {
    x.requireSse();
    const { f } = x;
    const b = source.vector();
    const a = destination.vector();
    const control = byteOf(x, immediate);
    const chosen = f.let(lanesByBits(control, bits, (lane) => lane + 4));
    // What is not chosen raises nothing. Each step may raise what it finds.
    let sum = arithmetic(x, format, 'mul', f.let(a.and(chosen)), f.let(b.and(chosen)));
    // Neighbours first, then for four lanes the two sums.
    for (let apart = 1; apart < 128 / bits; apart *= 2) {
      const addends = sum;
      const [low, high] = [0, apart].map((side) => f.let(gather(addends, addends, bits, (lane) => (lane & ~apart) | side)));
      sum = arithmetic(x, format, 'add', low, high);
    }
    destination.writeVector(sum.and(lanesByBits(control, bits, (lane) => lane)));
  });
}

// --- String comparison --------------------------------------------------------------------------------

/** A length register's magnitude, at most 16, as an i32. */
function explicitLength(x: Semantics, register: number, bits: 32 | 64): Expression {
  const value = x.gpr(register, bits).signed();
  const magnitude = x.f.let(select(value.ltS(0), i64(0).sub(value), value));
  return x.f.let(select(magnitude.gtU(16), i64(16), magnitude).wrap());
}

for (const [opcode, lengths, result] of [
  ['60', 'E', 'M'],
  ['61', 'E', 'I'],
  ['62', 'I', 'M'],
  ['63', 'I', 'I'],
] as const) {
  // REX.W makes the explicit lengths RAX and RDX instead of EAX and EDX.
  for (const bits of lengths === 'E' ? ([32, 64] as const) : ([32] as const)) {
    const width = lengths === 'I' ? '' : bits === 64 ? ' ; W1' : ' ; W0';
    instruction(
      `PCMP${lengths}STR${result}`,
      `66 0F 3A ${opcode} Vdq Wdq Ib${width}`,
      { access: 'rrr', unaligned: true, feature: 'sse4_2' },
      (x, first, second, immediate) => {
        x.requireSse();
        const b = second.vector();
        const a = first.vector();
        const control = byteOf(x, immediate);
        const [matches, firstEnds, secondEnds] =
          lengths === 'I'
            ? x.shared(COMPARE_IMPLICIT, control, a, b)
            : x.shared(COMPARE_EXPLICIT, control, a, b, explicitLength(x, 0, bits), explicitLength(x, 2, bits));
        const words = control.and(1);
        const wholeOrLast = control.and(0x40);
        if (result === 'I') {
          // Where nothing matches: the number of elements.
          const end = i32(1 << 16).shrU(words.shl(3));
          const last = select(matches, i32(31).sub(matches.clz()), end.ctz());
          x.gpr(1, 32).write(select(wholeOrLast, last, matches.or(end).ctz()).extendU());
        } else {
          const byHalves = splat(16, matches);
          const bits = gather(byHalves, byHalves, 8, (lane) => lane >> 3);
          const weights = lanesOf(8, (lane) => 1 << (lane & 7));
          const bytes = apply('i8x16.eq', bits.and(weights), weights);
          const expanded = select(
            words,
            lanesByBits(matches, 16, (lane) => lane),
            bytes,
          );
          x.xmm(0).writeVector(select(wholeOrLast, expanded, splat(64, matches.extendU()).and(LOW_64)));
        }
        x.setFlags({
          carry: matches.nonZero().extendU().shl(63),
          zero: secondEnds.eqz().extendU(),
          // PF is clear.
          sign: firstEnds.extendU().shl(63).or(1),
          overflow: matches.extendU().shl(63),
        });
      },
    );
  }
}
