/**
 * Moves between XMM registers, general registers and memory; merges and duplications; MXCSR. SDM 2A and 2B.
 */

import { MXCSR } from '../cpu/state.ts';
import { apply, type Expression, i32, i64 } from '../wasm/expression.ts';
import { instruction } from './instruction.ts';
import type { Operand, Semantics } from './semantics.ts';
import { gather, high64, low64, LOW_64, splat, swizzle } from './vector.ts';

const EXCEPTION_GP = 13;
/** Bits that LDMXCSR may set: flags, DAZ, masks, rounding control, FTZ. CPUID's FXSAVE image says the same. */
export const MXCSR_MASK = 0xffff;

/** The vector's low half, the rest zero. */
const zeroHigh = (v: Expression): Expression => v.and(LOW_64);

const move = (x: Semantics, destination: Operand, source: Operand): void => {
  x.requireSse();
  destination.writeVector(source.vector());
};

for (const [mnemonic, load, store] of [
  ['MOVAPS', 'NP 0F 28', 'NP 0F 29'],
  ['MOVAPD', '66 0F 28', '66 0F 29'],
  ['MOVDQA', '66 0F 6F', '66 0F 7F'],
])
  instruction(mnemonic, [`${load} Vdq Wdq`, `${store} Wdq Vdq`], { access: 'wr', hot: true }, move);

for (const [mnemonic, load, store] of [
  ['MOVUPS', 'NP 0F 10', 'NP 0F 11'],
  ['MOVUPD', '66 0F 10', '66 0F 11'],
  ['MOVDQU', 'F3 0F 6F', 'F3 0F 7F'],
])
  instruction(mnemonic, [`${load} Vdq Wdq`, `${store} Wdq Vdq`], { access: 'wr', hot: true, unaligned: true }, move);

instruction('LDDQU', 'F2 0F F0 Vdq Mdq', { access: 'wr', unaligned: true, feature: 'pni' }, move);
instruction('MOVNTPS', 'NP 0F 2B Mdq Vdq', { access: 'wr' }, move);
instruction('MOVNTPD', '66 0F 2B Mdq Vdq', { access: 'wr' }, move);
instruction('MOVNTDQ', '66 0F E7 Mdq Vdq', { access: 'wr' }, move);
instruction('MOVNTDQA', '66 0F 38 2A Vdq Mdq', { access: 'wr', feature: 'sse4_1' }, move);

// From and to general registers.
for (const [mnemonic, load, store] of [
  ['MOVD', '66 0F 6E Vdq Ed ; W0', '66 0F 7E Ed Vd ; W0'],
  ['MOVQ', '66 0F 6E Vdq Eq ; W1', '66 0F 7E Eq Vq ; W1'],
]) {
  instruction(mnemonic, load, { access: 'wr', hot: true }, (x, destination, source) => {
    x.requireSse();
    destination.writeVector(zeroHigh(splat(64, source.unsigned())));
  });
  instruction(mnemonic, store, { access: 'wr', hot: true }, (x, destination, source) => {
    x.requireSse();
    destination.write(source.unsigned());
  });
}
instruction('MOVQ', ['F3 0F 7E Vdq Wq', '66 0F D6 Wq Vq'], { access: 'wr', hot: true }, (x, destination, source) => {
  x.requireSse();
  destination.writeVector(zeroHigh(splat(64, source.unsigned())));
});

/** MOVSS and MOVSD: a load clears the rest of the register, a move between registers keeps it. */
for (const [mnemonic, prefix, bits, size] of [
  ['MOVSS', 'F3', 32, 'ss'],
  ['MOVSD', 'F2', 64, 'sd'],
] as const) {
  instruction(
    mnemonic,
    [`${prefix} 0F 10 V${size} W${size}`, `${prefix} 0F 11 W${size} V${size}`],
    { access: 'wr', hot: true },
    (x, destination, source) => {
      x.requireSse();
      if (source.kind === 'memory') destination.writeVector(source.vector());
      else destination.writeLow(source.unsigned(), bits);
    },
  );
}

// Halves.
for (const [mnemonic, prefix] of [
  ['PS', 'NP'],
  ['PD', '66'],
]) {
  instruction(
    `MOVL${mnemonic}`,
    [`${prefix} 0F 12 Vq Mq ; mem`, `${prefix} 0F 13 Mq Vq`],
    { access: 'wr' },
    (x, destination, source) => {
      x.requireSse();
      destination.writeLow(source.unsigned(), 64);
    },
  );
  instruction(`MOVH${mnemonic}`, `${prefix} 0F 16 Vdq Mq ; mem`, { access: 'mr' }, (x, destination, source) => {
    x.requireSse();
    const high = source.unsigned();
    destination.writeVector(destination.vector().lane('i64x2.replace_lane', 1, high));
  });
  instruction(`MOVH${mnemonic}`, `${prefix} 0F 17 Mq Vdq`, { access: 'wr' }, (x, destination, source) => {
    x.requireSse();
    destination.write(high64(source.vector()));
  });
}
instruction('MOVHLPS', 'NP 0F 12 Vq Udq ; reg', { access: 'mr' }, (x, destination, source) => {
  x.requireSse();
  destination.writeLow(high64(source.vector()), 64);
});
instruction('MOVLHPS', 'NP 0F 16 Vdq Uq ; reg', { access: 'mr' }, (x, destination, source) => {
  x.requireSse();
  destination.writeVector(destination.vector().lane('i64x2.replace_lane', 1, source.unsigned()));
});

// Duplicated lanes.
for (const [mnemonic, encoding, bits, lanes] of [
  ['MOVDDUP', 'F2 0F 12 Vdq Wq', 64, [0, 0]],
  ['MOVSLDUP', 'F3 0F 12 Vdq Wdq', 32, [0, 0, 2, 2]],
  ['MOVSHDUP', 'F3 0F 16 Vdq Wdq', 32, [1, 1, 3, 3]],
] as const) {
  instruction(mnemonic, encoding, { access: 'wr', feature: 'pni' }, (x, destination, source) => {
    x.requireSse();
    const v = source.vector();
    destination.writeVector(gather(v, v, bits, lanes));
  });
}

// Sign bits to a general register.
for (const [mnemonic, encodings, shape] of [
  ['MOVMSKPS', ['NP 0F 50 Gd Udq'], 'i32x4'],
  ['MOVMSKPD', ['66 0F 50 Gd Udq'], 'i64x2'],
  ['PMOVMSKB', ['66 0F D7 Gd Udq', 'NP 0F D7 Gd Nq'], 'i8x16'],
] as const) {
  instruction(mnemonic, [...encodings], { access: 'wr', hot: true }, (x, destination, source) => {
    if (source.bits === 64) {
      x.enterMmx();
      destination.write(apply('i8x16.bitmask', zeroHigh(splat(64, source.unsigned()))).extendU());
    } else {
      x.requireSse();
      destination.write(apply(`${shape}.bitmask`, source.vector()).extendU());
    }
  });
}

/**
 * Stores those of the `bytes` bytes of `data` whose byte of `mask` is negative at DS:rDI. They are checked before the first is stored, and the
 * segment's limit for all of them, chosen or not, as AMD's processors do.
 */
function maskedStore(x: Semantics, bytes: number, data: Expression, mask: Expression): void {
  const { f } = x;
  const start = x.segmentAddress('data', x.gpr(7, x.addressBits).unsigned(), i32(bytes), 'write');
  const selected = f.let(apply('i8x16.bitmask', mask));
  const left = f.local('i32');
  const each = (body: (address: Expression, byte: Expression) => void): void => {
    f.set(left, selected);
    f.block((done) => {
      f.loop((again) => {
        f.branchIf(done, f.get(left).eqz());
        const byte = f.let(f.get(left).ctz());
        f.set(left, f.get(left).and(f.get(left).sub(1)));
        const address = start.add(byte.extendU());
        body(f.let(x.longMode ? address : address.zeroExtend(32)), byte);
        f.branch(again);
      });
    });
  };
  each((address) => x.load(address, 8, 'unsigned', 'modify'));
  each((address, byte) => x.store(address, 8, f.let(low64(swizzle(data, splat(8, byte))))));
}
instruction('MASKMOVDQU', '66 0F F7 Vdq Udq', { access: 'rr', addressed: true, modal: true }, (x, data, mask) => {
  x.requireSse();
  maskedStore(x, 16, data.vector(), mask.vector());
});
instruction('MASKMOVQ', 'NP 0F F7 Pq Nq', { access: 'rr', addressed: true, modal: true }, (x, data, mask) => {
  x.enterMmx();
  maskedStore(x, 8, splat(64, data.unsigned()), zeroHigh(splat(64, mask.unsigned())));
});

// MXCSR.
instruction('LDMXCSR', 'NP 0F AE/2 Md ; mem', { access: 'r' }, (x, source) => {
  x.requireSse();
  const value = x.f.let(source.unsigned().wrap());
  x.f.if(value.and(~MXCSR_MASK), () => x.raiseWithCode(EXCEPTION_GP, 0));
  x.setState32(MXCSR, value);
});
instruction('STMXCSR', 'NP 0F AE/3 Md ; mem', { access: 'w' }, (x, destination) => {
  x.requireSse();
  destination.write(x.state32(MXCSR).extendU().and(i64(MXCSR_MASK)));
});
