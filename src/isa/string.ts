/**
 * String instructions. SDM 2B MOVS, CMPS, SCAS, LODS, STOS, INS, OUTS. With REP, what lies within one page at source
 * and destination goes at once (memory.copy, memory.fill); every such piece leaves the registers as after so many
 * iterations, so faults are precise and a long copy can be interrupted. Compiled code does what is one such piece, without a call.
 */

import * as state from '../cpu/state.ts';
import { apply, type Expression, i32, i64, select } from '../wasm/expression.ts';
import type { FunctionBuilder } from '../wasm/function-builder.ts';
import { instruction } from './instruction.ts';
import type { Bits, Operand, Semantics } from './semantics.ts';

const MMIO = -1;
const PAGE = 4096;

const count = (x: Semantics): Operand => x.gpr(1, x.addressBits);
const source = (x: Semantics): Operand => x.gpr(6, x.addressBits);
const destination = (x: Semantics): Operand => x.gpr(7, x.addressBits);
const sourceAddress = (x: Semantics, bits: Bits): Expression => x.segmentAddress('data', source(x).unsigned(), i32(bits / 8), 'read');
const destinationAddress = (x: Semantics, bits: Bits, access: 'read' | 'write'): Expression =>
  x.segmentAddress(state.ES, destination(x).unsigned(), i32(bits / 8), access);

/** Moves an index register by `bytes` (i64, signed). */
const advance = (register: Operand, bytes: Expression): void => register.write(register.unsigned().add(bytes));

/** ±size by DF. */
const step = (x: Semantics, bits: number): Expression => x.f.let(x.direction().mul(bits / 8));

/** Rounds (elements, or pieces within a page) that an instruction goes before it looks whether something else is due. */
const MOST_ROUNDS = 65_536;

/** Counts rounds: true (i32) once there have been too many. */
function roundCounter(x: Semantics): () => Expression {
  const { f } = x;
  const rounds = f.local('i32');
  f.set(rounds, 0);
  return () => {
    f.set(rounds, f.get(rounds).add(1));
    return f.get(rounds).gtU(MOST_ROUNDS);
  };
}

/** Runs `body` once, or with a repeat prefix as long as RCX lasts; `done` is called after the last iteration. */
function repeated(x: Semantics, body: (again: () => void) => void): void {
  const { f } = x;
  if (x.repeat === 'none') return body(() => {});
  const rounds = roundCounter(x);
  f.block((end) => {
    f.loop((loop) => {
      f.branchIf(end, count(x).unsigned().eqz());
      f.if(rounds(), () => x.restart());
      body(() => f.branch(loop));
      f.branch(loop);
    });
  });
}

const countDown = (x: Semantics, elements: Expression = i64(1)): void => {
  if (x.repeat !== 'none') advance(count(x), i64(0).sub(elements));
};

/** Bytes from `address` to its page's end. */
const toPageEnd = (address: Expression): Expression => i32(PAGE).sub(address.wrap().and(PAGE - 1));

const minimum = (a: Expression, b: Expression): Expression => select(a.ltU(b), a, b);

/** Whole elements (i32) that can be handled at once from the given addresses: as many as RCX says and their pages hold; 0 with DF set. */
function wholeElements(x: Semantics, bits: number, ...addresses: Expression[]): Expression {
  const { f } = x;
  const shift = Math.log2(bits / 8);
  let bytes = f.let(toPageEnd(addresses[0]));
  for (const address of addresses.slice(1)) bytes = f.let(minimum(bytes, f.let(toPageEnd(address))));
  const left = f.let(count(x).unsigned());
  const limited = f.let(select(left.gtU(PAGE), i32(PAGE), left.wrap()));
  return f.let(select(x.direction().gtS(0), minimum(limited, f.let(bytes.shrU(shift))), i32(0)));
}

// --- Compiled code: the whole of a repetition, or nothing -----------------------------------------------

/** Runs `body` with the bytes to go (an i32, 1 to a page) where RCX is not 0; more of them, and going down, is declined. */
function atOnce(x: Semantics, bits: Bits, body: (length: Expression) => void): void {
  const { f } = x;
  const left = count(x).unsigned();
  f.if(left.nonZero(), () => {
    f.if(left.gtU((PAGE * 8) / bits).or(x.direction().ltS(0)), () => void x.decline());
    body(f.let(left.wrap().shl(Math.log2(bits / 8))));
    count(x).write(i64(0));
  });
}

type Width = 1 | 2 | 4 | 8 | 16;
const LOAD = { 1: 'i64.load8_u', 2: 'i64.load16_u', 4: 'i64.load32_u', 8: 'i64.load', 16: 'v128.load' } as const;
const STORE = { 1: 'i64.store8', 2: 'i64.store16', 4: 'i64.store32', 8: 'i64.store', 16: 'v128.store' } as const;

/** Reads what goes to so many bytes at these distances from the start; what comes back writes it there. */
type Piece = (width: Width, ...distances: Expression[]) => () => void;

/**
 * Goes over `length` bytes (an i32, elements of `bits`) in pieces that a load and a store take. The last ones may overlap those before them: so
 * they are read before anything is written.
 */
function inPieces(f: FunctionBuilder, bits: Bits, length: Expression, piece: Piece): void {
  const shorter = (width: Width): void => {
    if (width === bits / 8) piece(width, i32(0))();
    else f.if(length.geU(width), () => piece(width, i32(0), length.sub(width))(), () => shorter((width / 2) as Width));
  };
  const long = (): void => {
    const end = f.let(length.sub(32));
    const writeEnd = piece(16, end, f.let(length.sub(16)));
    const at = f.local('i32');
    f.set(at, 0);
    f.loop((again) => {
      piece(16, f.get(at), f.get(at).add(16))();
      f.set(at, f.get(at).add(32));
      f.branchIf(again, f.get(at).ltU(end));
    });
    writeEnd();
  };
  f.if(length.geU(32), long, () => shorter(16));
}

function copyAtOnce(x: Semantics, bits: Bits): void {
  const { f } = x;
  atOnce(x, bits, (length) => {
    const from = x.ramAtHand(sourceAddress(x, bits), length, 'read');
    const to = x.ramAtHand(destinationAddress(x, bits, 'write'), length, 'write');
    // A destination that begins inside the source repeats what was just written.
    f.if(to.sub(from).ltU(length), () => void x.decline());
    inPieces(f, bits, length, (width, ...distances) => {
      const values = distances.map((distance) => f.let(from.add(distance).load(LOAD[width])));
      return () => { for (const [i, distance] of distances.entries()) f.store(STORE[width], to.add(distance), values[i]); };
    });
    const moved = f.let(length.extendU());
    advance(source(x), moved);
    advance(destination(x), moved);
  });
}

function fillAtOnce(x: Semantics, bits: Bits): void {
  const { f } = x;
  const value = f.let(x.gpr(0, bits).unsigned().mul((2n ** 64n - 1n) / (2n ** BigInt(bits) - 1n)));
  atOnce(x, bits, (length) => {
    const to = x.ramAtHand(destinationAddress(x, bits, 'write'), length, 'write');
    const wide = f.let(apply('i64x2.splat', value));
    inPieces(f, bits, length, (width, ...distances) => () => {
      for (const distance of distances) f.store(STORE[width], to.add(distance), width === 16 ? wide : value);
    });
    advance(destination(x), f.let(length.extendU()));
  });
}

// --- Definitions --------------------------------------------------------------------------------------

const SIZES: [suffix: string, bits: Bits, opcode: number, size: string, modifier: string][] = [
  ['B', 8, 0, 'b', ''],
  ['W', 16, 1, 'v', ' ; s16'],
  ['D', 32, 1, 'v', ' ; s32'],
  ['Q', 64, 1, 'v', ' ; s64'],
];
const opcode = (base: number, offset: number): string => (base + offset).toString(16).toUpperCase().padStart(2, '0');

for (const [suffix, bits, offset, size, modifier] of SIZES) {
  const bytes = bits / 8;
  const shift = Math.log2(bytes);

  instruction(`MOVS${suffix}`, `${opcode(0xa4, offset)} Y${size} X${size}${modifier}`, { repeat: 'rep', addressed: true, modal: true }, (x) => {
    if (x.isCompiled && x.repeat !== 'none') return copyAtOnce(x, bits);
    const { f } = x;
    repeated(x, (again) => {
      const from = sourceAddress(x, bits);
      const to = destinationAddress(x, bits, 'write');
      if (x.repeat !== 'none') {
        const elements = wholeElements(x, bits, from, to);
        const length = f.let(elements.shl(shift));
        // A destination that begins inside the source repeats what was just written: not a plain copy.
        const distance = f.let(to.sub(from));
        const plain = distance.geU(length.extendU()).and(elements.nonZero());
        const fits = x.fitsSegment('data', source(x).unsigned(), length).and(x.fitsSegment(state.ES, destination(x).unsigned(), length));
        f.if(plain.and(fits), () => {
          const fromRam = x.bulk(from, 'read');
          const toRam = x.bulk(to, 'write');
          // Addresses far from each other may still show the same frame.
          const apart = toRam.sub(fromRam).geU(length);
          f.if(fromRam.ne(MMIO).and(toRam.ne(MMIO)).and(apart), () => {
            f.memoryCopy(toRam, fromRam, length);
            x.wroteBulk(toRam, length);
            const moved = f.let(length.extendU());
            advance(source(x), moved);
            advance(destination(x), moved);
            countDown(x, elements.extendU());
            again();
          });
        });
      }
      x.store(to, bits, x.load(from, bits, 'unsigned'));
      const by = step(x, bits);
      advance(source(x), by);
      advance(destination(x), by);
      countDown(x);
    });
  });

  instruction(`STOS${suffix}`, `${opcode(0xaa, offset)} Y${size}${modifier}`, { repeat: 'rep', addressed: true, modal: true }, (x) => {
    if (x.isCompiled && x.repeat !== 'none') return fillAtOnce(x, bits);
    const { f } = x;
    const value = x.gpr(0, bits).unsigned();
    repeated(x, (again) => {
      const to = destinationAddress(x, bits, 'write');
      if (x.repeat !== 'none') {
        const elements = wholeElements(x, bits, to);
        const fits = x.fitsSegment(state.ES, destination(x).unsigned(), elements.shl(shift));
        f.if(elements.nonZero().and(fits), () => {
          const ram = x.bulk(to, 'write');
          f.if(ram.ne(MMIO), () => {
            const length = f.let(elements.shl(shift));
            const byte = f.let(value.and(0xff));
            const sameBytes = bits === 8 ? i32(1) : value.eq(byte.mul((2n ** BigInt(bits) - 1n) / 255n));
            f.if(
              sameBytes,
              () => f.memoryFill(ram, byte.wrap(), length),
              () => {
                const at = f.local('i32');
                f.set(at, 0);
                f.loop((loop) => {
                  f.store(bits === 64 ? 'i64.store' : `i64.store${bits}`, ram.add(f.get(at)), value);
                  f.set(at, f.get(at).add(bytes));
                  f.branchIf(loop, f.get(at).ltU(length));
                });
              },
            );
            x.wroteBulk(ram, length);
            advance(destination(x), length.extendU());
            countDown(x, elements.extendU());
            again();
          });
        });
      }
      x.store(to, bits, value);
      advance(destination(x), step(x, bits));
      countDown(x);
    });
  });

  instruction(`LODS${suffix}`, `${opcode(0xac, offset)} X${size}${modifier}`, { repeat: 'rep', addressed: true, modal: true }, (x) => {
    repeated(x, () => {
      x.gpr(0, bits).write(x.load(sourceAddress(x, bits), bits, 'unsigned'));
      advance(source(x), step(x, bits));
      countDown(x);
    });
  });

  /** CMPS and SCAS: compares until RCX is 0 or ZF says stop. A fault finds the flags of the last comparison that was made. */
  const compare = (x: Semantics, operands: () => [Expression, Expression], move: () => void): void => {
    const { f } = x;
    const [a, b] = [f.local('i64'), f.local('i64')];
    const flags = (): void => x.flagsOfSub(f.get(a), f.get(b), f.get(a).sub(f.get(b)).signExtend(bits));
    const once = (): void => {
      const [left, right] = operands();
      f.set(a, left);
      f.set(b, right);
      move();
    };
    if (x.repeat === 'none') {
      once();
      return flags();
    }
    f.if(count(x).unsigned().nonZero(), () => {
      const rounds = roundCounter(x);
      f.loop((loop) => {
        once();
        countDown(x);
        flags();
        const equal = f.get(a).eq(f.get(b));
        const goesOn = f.let((x.repeat === 'rep' ? equal : equal.eqz()).and(count(x).unsigned().nonZero()));
        f.if(rounds().and(goesOn), () => x.restart());
        f.branchIf(loop, goesOn);
      });
    });
  };

  instruction(`CMPS${suffix}`, `${opcode(0xa6, offset)} X${size} Y${size}${modifier}`, { repeat: 'repe', addressed: true, modal: true }, (x) => {
    compare(
      x,
      () => [x.load(sourceAddress(x, bits), bits, 'signed'), x.load(destinationAddress(x, bits, 'read'), bits, 'signed')],
      () => {
        const by = step(x, bits);
        advance(source(x), by);
        advance(destination(x), by);
      },
    );
  });

  instruction(`SCAS${suffix}`, `${opcode(0xae, offset)} Y${size}${modifier}`, { repeat: 'repe', addressed: true, modal: true }, (x) => {
    compare(
      x,
      () => [x.gpr(0, bits).signed(), x.load(destinationAddress(x, bits, 'read'), bits, 'signed')],
      () => advance(destination(x), step(x, bits)),
    );
  });

  if (bits === 64) continue;

  // Port strings: an access to the port each time, so nothing goes in bulk. 64-bit operand size means 32.
  const portModifiers = bits === 8 ? [''] : bits === 16 ? [' ; s16'] : [' ; s32', ' ; s64'];
  const portSize = bits === 32 ? 'z' : size;
  const ports = (base: number, letter: string): string[] => portModifiers.map((m) => `${opcode(base, offset)} ${letter}${portSize}${m}`);
  instruction(`INS${suffix}`, ports(0x6c, 'Y'), { repeat: 'rep', addressed: true, modal: true }, (x) => {
    x.helper('check_port', x.gpr(2, 16).unsigned().wrap(), i32(bytes));
    repeated(x, () => {
      const to = destinationAddress(x, bits, 'write');
      // The destination is checked before the port is read: reading may have effects.
      x.load(to, bits, 'unsigned', 'modify');
      const value = x.helper('pio_in', x.gpr(2, 16).unsigned().wrap(), i32(bytes));
      x.store(to, bits, value.extendU());
      advance(destination(x), step(x, bits));
      countDown(x);
    });
  });

  instruction(`OUTS${suffix}`, ports(0x6e, 'X'), { repeat: 'rep', addressed: true, modal: true }, (x) => {
    x.helper('check_port', x.gpr(2, 16).unsigned().wrap(), i32(bytes));
    repeated(x, () => {
      const value = x.load(sourceAddress(x, bits), bits, 'unsigned');
      x.helper('pio_out', x.gpr(2, 16).unsigned().wrap(), i32(bytes), value.wrap());
      advance(source(x), step(x, bits));
      countDown(x);
    });
  });
}
