/**
 * Makes cases from forms: sets registers and memory up so that an instruction does what it is there for (addresses that
 * lead into the windows, dividends that fit and that don't, counts, return addresses) and, now and then, so that it
 * faults. Works from bytes, by way of a disassembler, so that forms may come from anywhere.
 */

import {
  baselineMemory, CODE, CODE_START, DATA, DESCRIPTORS, drawFloat80, FIXED, Flag, hash, HIGH, MEMORY_WORD, MXCSR_DEFAULT, type Profile, Random,
  seedRegisters, STACK, type Window, windowAt, Word, ZONES,
} from '../conformance/machine-state.ts';
import { mnemonicOf } from '../conformance/undefined-flags.ts';
import { type Case, type FormCases, seedOf } from '../conformance/vector-file.ts';
import { disassemble, type Disassembly } from './disassemble.ts';
import { encode } from './encode.ts';
import type { Family, Form, LiteralForm } from './forms.ts';

const [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI] = [0, 1, 2, 3, 4, 5, 6, 7];
const PAGE = 0x1000;
const ones = (bits: number): bigint => (1n << BigInt(bits)) - 1n;

/** Where a memory operand lies. */
type Place =
  | 'aligned' | 'anywhere' | 'page crossing' | 'at the end' | 'high'
  | 'over the end' | 'before the start' | 'unmapped' | 'read-only' | 'non-canonical';

/** Places in the order that a form's cases go through, beginning at a random one. */
const PLACES: readonly Place[] = [
  'aligned', 'anywhere', 'aligned', 'page crossing', 'aligned', 'high', 'aligned', 'unmapped', 'aligned', 'at the end',
  'anywhere', 'over the end', 'aligned', 'read-only', 'aligned', 'non-canonical', 'aligned', 'before the start',
];
/** At both edges of the 48-bit canonical range, and far from it. */
const NON_CANONICAL = [
  0x8000_0000_0000n, 0xffff_7fff_ffff_fff0n, 0x7fff_0000_0000_0000n, 0x8000_0000_0000_0000n, 0xdead_beef_0000_0000n,
];
const UNMAPPED = [0n, 0x1000n, 0x2000_3ff8n, 0x2000_5000n, 0x3fff_f000n, 0x4000_0000n];
const SMALL = [0n, 1n, 2n, 3n, 4n, 8n, 0x10n, 0x100n, -1n, -2n, -8n];

function place(where: Place, size: number, zone: { offset: number; size: number }, random: Random): bigint {
  const inside = zone.offset + random.below(zone.size - size);
  const aligned = inside - (inside % Math.max(1, Math.min(size, 16)));
  const part = 1 + random.below(Math.max(1, size - 1));
  const at = (window: Window, offset: number): bigint => BigInt(window.address + offset);
  switch (where) {
    case 'aligned': return at(DATA, random.below(2) * PAGE + aligned);
    case 'anywhere': return at(DATA, random.below(2) * PAGE + inside);
    case 'page crossing': return at(DATA, PAGE - part);
    case 'at the end': return at(DATA, DATA.size - size);
    case 'high': return at(HIGH, aligned);
    case 'over the end': return at(DATA, DATA.size - part);
    case 'before the start': return at(DATA, -part);
    case 'unmapped': return random.pick(UNMAPPED);
    case 'read-only': return at(FIXED, aligned);
    case 'non-canonical': return random.pick(NON_CANONICAL);
  }
}

function hasAddressSizePrefix(code: Uint8Array): boolean {
  for (const byte of code) {
    if (byte === 0x67) return true;
    if (![0x66, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65].includes(byte) && (byte & 0xf0) !== 0x40) return false;
  }
  return false;
}

const baseline = baselineMemory();

/** An address and, should an addressing mode not reach it, ones in the low and the high window to take instead. */
function alternatives(address: bigint): bigint[] {
  return [address, ...[DATA, HIGH].map((window) => BigInt(window.address) + (address & 0xff0n))];
}

/** The input of one case while it is being put together. */
class Setup {
  readonly overrides = new Map<number, bigint>();
  readonly #registers = new BigUint64Array(Word.count);
  readonly random: Random;
  readonly profile: Profile;
  readonly address32: boolean;
  readonly it: Disassembly;

  constructor(form: string, index: number, profile: Profile, code: Uint8Array, it: Disassembly, random: Random) {
    seedRegisters(seedOf(form, index), profile, this.#registers);
    this.random = random;
    this.profile = profile;
    this.it = it;
    this.address32 = hasAddressSizePrefix(code);
  }

  get(word: number): bigint {
    return this.#registers[word];
  }

  set(word: number, value: bigint): void {
    this.#registers[word] = value;
    this.overrides.set(word, this.#registers[word]);
  }

  /** Sets the low bits of a register and keeps the others. */
  setLow(register: number, value: bigint, bits: number, shift = 0): void {
    const mask = ones(bits) << BigInt(shift);
    this.set(register, (this.get(register) & ~mask) | ((value << BigInt(shift)) & mask));
  }

  #wordAt(address: bigint): { word: number; value: bigint; shift: bigint } | undefined {
    const window = windowAt(address);
    if (!window) return undefined;
    const offset = window.offset + Number(address) - window.address;
    const word = MEMORY_WORD + (offset >> 3);
    const value = this.overrides.get(word) ?? new DataView(baseline.buffer).getBigUint64(offset & ~7, true);
    return { word, value, shift: BigInt(8 * (offset & 7)) };
  }

  /** Puts a value into memory, as far as it is mapped and isn't code. */
  store(address: bigint, value: bigint, size: number): void {
    for (let i = 0; i < size; i++) {
      const at = this.#wordAt(address + BigInt(i));
      if (!at || windowAt(address + BigInt(i))?.executable) continue;
      this.overrides.set(at.word, (at.value & ~(0xffn << at.shift)) | (((value >> BigInt(8 * i)) & 0xffn) << at.shift));
    }
  }

  /** Reads memory; unmapped bytes as 0. */
  load(address: bigint, size: number): bigint {
    let value = 0n;
    for (let i = size - 1; i >= 0; i--) {
      const at = this.#wordAt(address + BigInt(i));
      value = (value << 8n) | (at ? (at.value >> at.shift) & 0xffn : 0n);
    }
    return value;
  }

  /** Lets a register point somewhere through a segment; with 32-bit addresses, to what can be reached and under noise. */
  point(register: number, target: bigint, segmentBase = 0n): void {
    if (!this.address32) return this.set(register, target - segmentBase);
    const offset = alternatives(target).map((t) => t - segmentBase).find((o) => o >= 0n && o < 1n << 32n) ?? 0n;
    this.set(register, offset | (this.random.chance(50) ? 0xfedc_ba98_0000_0000n : 0n));
  }

  zone(): { offset: number; size: number } {
    if (this.profile !== 'float80') return ZONES[this.profile];
    return ZONES[this.it.memorySize === 4 ? 'float32' : this.it.memorySize === 8 ? 'float64' : 'integer'];
  }
}

function fitsSigned(value: bigint, bits: number): boolean {
  return BigInt.asIntN(bits, value) === value;
}

/**
 * Makes the explicit memory operand lie at `wanted`, or somewhere its addressing mode can reach; returns where. Patches
 * the displacement in `code` where there is no base register.
 */
function placeMemoryOperand(setup: Setup, code: Uint8Array, codeAddress: number, wanted: bigint): bigint {
  const { it, random, address32 } = setup;
  const { base, index, scale, displacement, ripRelative } = it.memory as NonNullable<Disassembly['memory']>;
  const targets = alternatives(wanted);
  /** What an index may have above the 32 bits in use. */
  const noise = (): bigint => (address32 && random.chance(50) ? 0x1234_5678_0000_0000n : 0n);
  if (base >= 0) {
    let indexed = 0n;
    if (index >= 0 && index !== base) {
      if (random.chance(75)) setup.set(index, random.pick(SMALL) + noise());
      indexed = setup.get(index) * BigInt(scale);
    }
    const target = address32 ? (targets.find((t) => t >= it.segmentBase && t - it.segmentBase < 1n << 32n) as bigint) : wanted;
    const value = target - it.segmentBase - indexed - displacement;
    setup.set(base, address32 ? (value & ones(32)) | (random.chance(50) ? 0x9abc_def0_0000_0000n : 0n) : value);
    return target;
  }
  let anchor = ripRelative ? BigInt(codeAddress + it.length) : 0n;
  if (index >= 0) {
    const value = random.pick(SMALL);
    setup.set(index, value + noise());
    anchor = value * BigInt(scale);
  }
  const reachable = (target: bigint): boolean => {
    const offset = target - it.segmentBase;
    return it.displacementSize === 8 || (offset >= 0n && offset < 1n << 31n && fitsSigned(offset - anchor, 32));
  };
  const target = targets.find(reachable) as bigint;
  const field = new DataView(new ArrayBuffer(8));
  field.setBigInt64(0, target - it.segmentBase - anchor, true);
  for (let i = 0; i < it.displacementSize; i++) code[it.displacementOffset + i] = field.getUint8(i);
  return target;
}

const COUNTS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 0x80, 0xff];
const LOADABLE_FLAGS = BigInt(0xffff_ffff & ~(Flag.trap | Flag.resume));
/** MXCSR: rounding modes, flush to zero, denormals are zero, flags already set; rarely an unmasked exception. */
function drawMxcsr(random: Random): bigint {
  let value = MXCSR_DEFAULT | (random.below(4) << 13);
  if (random.chance(25)) value |= 1 << 15;
  if (random.chance(25)) value |= 1 << 6;
  if (random.chance(25)) value |= random.below(64);
  if (random.chance(12)) value &= ~(1 << (7 + random.below(6)));
  return BigInt(value);
}

/** Rounding and precision controls, masks: mostly all set. */
function drawFcw(random: Random): number {
  if (random.chance(40)) return 0x37f;
  const precision = random.pick([3, 3, 2, 0]);
  let masks = 0x3f;
  if (random.chance(25)) masks &= ~(1 << random.below(6));
  if (random.chance(5)) masks = random.below(64);
  return 0x40 | masks | (precision << 8) | (random.below(4) << 10);
}

/** Puts the x87 into some state that it could be in: any top of stack, mostly full, at times with exceptions pending. */
function setUpX87(setup: Setup): void {
  const { random } = setup;
  const fcw = drawFcw(random);
  let fsw = random.below(8) << 11;
  if (random.chance(40)) fsw |= random.below(16) << 8 & 0x700 | random.below(2) << 14;
  if (random.chance(25)) fsw |= random.chance(50) ? random.below(128) : 1 << random.below(6);
  if (fsw & ~fcw & 0x3f) {
    if (random.chance(70)) fsw &= ~0x3f | fcw;
    else fsw |= 0x8080;
  }
  setup.set(Word.fcw, BigInt(fcw));
  setup.set(Word.fsw, BigInt(fsw));
  setup.set(Word.ftw, random.chance(75) ? 0xffn : BigInt(random.below(256)));
}

/** For memory operands with a format of their own: 80-bit numbers, decimal ones, control words. */
function storeX87Operand(setup: Setup, mnemonic: string, target: bigint, bytes: number): void {
  const { random } = setup;
  if (mnemonic === 'FLD' && bytes === 10) {
    const { exponent, significand } = drawFloat80(random);
    setup.store(target, significand, 8);
    setup.store(target + 8n, BigInt(exponent), 2);
  } else if (mnemonic === 'FBLD') {
    for (let i = 0; i < 9; i++) setup.store(target + BigInt(i), BigInt(random.below(10) << 4 | random.below(10)), 1);
    setup.store(target + 9n, BigInt(random.pick([0, 0x80, 0x80, 0x7f])), 1);
    if (random.chance(10)) setup.store(target + BigInt(random.below(9)), BigInt(random.below(256)), 1);
  } else if (mnemonic === 'FLDCW') setup.store(target, random.chance(70) ? BigInt(drawFcw(random)) : random.word(), 2);
  else if (mnemonic === 'FLDENV' || mnemonic === 'FRSTOR') setup.store(target, BigInt(drawFcw(random)), 2);
}

/** For LDMXCSR: any of the bits that exist, rarely a reserved one (not bit 17, which is AMD's own). */
function drawStoredMxcsr(random: Random): bigint {
  const reserved = random.chance(15) ? BigInt(random.pick([1 << 16, 1 << 18, 1 << 31])) & ones(32) : 0n;
  return (random.word() & 0xffffn) | reserved;
}

const CODE_TARGETS = [
  0n, 0x1000_0900n, 0x1000_1ffen, 0x7fff_ffff_f000n, 0x1234_5678_9abcn, 0xffff_8000_0000_0000n, 0xffff_ffff_8100_0000n,
  ...NON_CANONICAL,
];

function drawStackPointer(setup: Setup): void {
  const { random } = setup;
  const { address, size } = STACK;
  const choices = [
    address + 0x800 + random.below(16), address + size - 8, address + size - 4, address + size, address, address + 2, address + 8,
    HIGH.address + 0x800, FIXED.address + 0x800, DATA.address + PAGE + random.below(16) - 8,
  ].map(BigInt);
  if (!random.chance(45)) return;
  setup.set(RSP, random.pick([...choices, random.pick(UNMAPPED.slice(1)), random.pick(NON_CANONICAL.slice(1))]));
}

function setUpString(setup: Setup, mnemonic: string, repeated: boolean): void {
  const { random, it } = setup;
  const size = Math.max(1, it.memorySize);
  const backwards = random.chance(40);
  if (backwards) setup.set(Word.rflags, setup.get(Word.rflags) | BigInt(Flag.direction));
  const step = BigInt(backwards ? -size : size);
  const count = repeated ? random.pick([0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64]) : 1;
  if (repeated) setup.set(RCX, BigInt(count) | (setup.address32 && random.chance(50) ? 0x7654_3210_0000_0000n : 0n));
  const draw = (): bigint => {
    const zone = random.chance(60) ? ZONES.text : ZONES.integer;
    /** So far before a window's end, in the direction of travel, that the count reaches about there. */
    const nearEnd = ({ address, size: length }: { address: number; size: number }): bigint => {
      const before = BigInt(backwards ? address : address + length) - step * BigInt(random.below(count + 2));
      return before + (random.chance(30) ? BigInt(random.below(size)) : 0n);
    };
    const start = DATA.address + zone.offset;
    const within = (window: Window): bigint => BigInt(window.address + 0x800);
    switch (random.below(14)) {
      case 0: return nearEnd({ ...DATA, size: PAGE });
      case 1: return nearEnd(DATA);
      case 2: return random.chance(40) ? nearEnd(HIGH) : within(HIGH);
      case 3: return random.chance(50) ? nearEnd(FIXED) : within(FIXED);
      case 4: return random.chance(40) ? random.pick([...UNMAPPED.slice(1), ...NON_CANONICAL.slice(2)]) : BigInt(start);
      default: return BigInt(start + random.below(2) * PAGE + (backwards ? zone.size / 2 : 0) + random.below(zone.size / 4));
    }
  };
  const source = draw();
  let destination = draw();
  if (random.chance(35)) {
    destination = source;
    if (mnemonic !== 'CMPS') destination += BigInt(random.below(9) - 4) * (random.chance(50) ? 1n : step);
  }
  if (random.chance(10)) destination = source + BigInt(random.pick([8, 16, 32, 64, -8, -16, -64]));
  if (!/STOS|SCAS|INS/.test(mnemonic)) setup.point(RSI, source, it.segmentBase);
  if (!/LODS|OUTS/.test(mnemonic)) setup.point(RDI, destination);
  if (mnemonic === 'SCAS' && random.chance(60)) {
    setup.setLow(RAX, setup.load(destination + step * BigInt(random.below(4)), size), 8 * size);
  }
}

/** Whether RAX or RDX (or what is listed) take part in the memory operand's address, so that they can't be set freely. */
function addressUses(it: Disassembly, ...registers: number[]): boolean {
  return it.memory !== undefined && registers.some((r) => it.memory?.base === r || it.memory?.index === r);
}

function setUpDividend(setup: Setup, signed: boolean, divisor: bigint, bits: number): void {
  const { random, it } = setup;
  if (addressUses(it, RAX, RDX) || it.registers[0]?.number === RAX || it.registers[0]?.number === RDX) return;
  const low = setup.get(RAX) & ones(bits === 8 ? 8 : bits);
  let high: bigint;
  switch (random.below(4)) {
    case 0: return; // most likely #DE
    case 1: high = signed && low >> BigInt(bits - 1) ? ones(bits) : 0n; break;
    default: {
      // A dividend near quotient × divisor, with quotients around the greatest that fit.
      const half = 1n << BigInt(bits - 1);
      const divide = signed ? BigInt.asIntN(bits, divisor) : divisor;
      const edges = signed ? [half - 1n, half, -half, -half - 1n, 0n, -1n] : [ones(bits), ones(bits) + 1n, half, 0n, 1n];
      const any = (): bigint => (signed ? BigInt.asIntN(bits, random.word()) : random.word() & ones(bits));
      const quotient = random.chance(50) ? random.pick(edges) : any();
      const size = divide < 0n ? -divide : divide;
      const dividend = quotient * divide + (size ? (random.word() % size) * (quotient * divide < 0n ? -1n : 1n) : 0n);
      const wide = BigInt.asUintN(2 * bits, dividend);
      setup.setLow(RAX, wide & ones(bits), bits);
      high = wide >> BigInt(bits);
    }
  }
  if (bits === 8) setup.setLow(RAX, high, 8, 8);
  else setup.setLow(RDX, high, bits);
}

function setUpControl(setup: Setup, mnemonic: string): void {
  const { random } = setup;
  if (mnemonic.startsWith('LOOP') || mnemonic === 'JRCXZ') {
    setup.set(RCX, random.pick([0n, 1n, 2n, 0x1_0000_0000n, 0x1_0000_0001n, 0x8000_0000_0000_0000n, ones(64), 0xffff_ffffn]));
  } else if (mnemonic === 'RET') setup.store(setup.get(RSP), random.pick(CODE_TARGETS), 8);
  else if (mnemonic === 'POPF') {
    const frame = random.word() & LOADABLE_FLAGS & ~(random.chance(70) ? BigInt(Flag.alignmentCheck) : 0n);
    setup.store(setup.get(RSP), frame, 8);
  } else if (mnemonic === 'PUSHF' && random.chance(40)) {
    const aligned = setup.get(RSP) % 8n === 0n; // #AC has vectors of its own
    const flags = aligned ? random.pick([Flag.alignmentCheck, Flag.direction | Flag.alignmentCheck]) : Flag.direction;
    setup.set(Word.rflags, setup.get(Word.rflags) | BigInt(flags));
  } else if (mnemonic === 'ENTER' || mnemonic === 'LEAVE') {
    const { address, size } = STACK;
    const frames = [address + 0x900, address + 0xc04, DATA.address + 0x400, address + size - 8].map(BigInt);
    const odd = [BigInt(address + 0x10), ...NON_CANONICAL.slice(2, 4), ...UNMAPPED.slice(1, 3)];
    setup.set(RBP, random.pick(random.chance(70) ? frames : odd));
  }
}

/** The third operand: a count or a bit's number in the low byte; BEXTR has the length of a field in the second. */
function setUpField(setup: Setup, mnemonic: string): void {
  const { it, random } = setup;
  const count = (): number => (random.chance(80) ? random.pick(COUNTS) : random.below(256));
  const register = it.registers.at(-1);
  if (register) setup.setLow(register.number, BigInt(count() | (count() << 8)), mnemonic === 'BEXTR' ? 16 : 8);
}

const EXTENDED_STATE = /^X(SAVE|RSTOR)/;
/** Of XSAVE's standard and compacted form: legacy area and header. */
const EXTENDED_STATE_BYTES = 576;
/** Components that may be asked for: x87 and SSE, and such as exist nowhere; not those beyond x86-64-v2. */
const COMPONENTS = [0n, 1n, 2n, 3n, 3n, 3n, 0x10n, 0x13n];

function setUpExtendedState(setup: Setup, mnemonic: string, target: bigint): void {
  const { random } = setup;
  setup.setLow(RAX, random.pick(COMPONENTS), 32);
  setup.setLow(RDX, 0n, 32);
  // Whether MXCSR alone makes the SSE component count as in use depends on how it was loaded.
  if (random.chance(25)) for (let i = 0; i < 32; i++) setup.set(Word.xmm + i, 0n);
  else if (random.chance(50)) setup.set(Word.mxcsr, drawMxcsr(random) | (0x3fn << 7n));
  if (random.chance(25)) {
    for (let i = 0; i < 8; i++) for (const word of [Word.significand, Word.exponent]) setup.set(word + i, 0n);
    for (const [word, value] of [[Word.fcw, 0x37fn], [Word.fsw, 0n], [Word.ftw, 0n]] as const) setup.set(word, value);
  }
  if (mnemonic !== 'XRSTOR') return;
  const compacted = random.chance(40);
  const layout = compacted ? (1n << 63n) | random.pick([1n, 2n, 3n, 3n, 3n, random.chance(20) ? 0x11n : 3n]) : 0n;
  setup.store(target, 0x37fn | (random.word() & 0xff_ffff_0000n), 8);
  setup.store(target + 24n, drawStoredMxcsr(random), 4);
  setup.store(target + 512n, random.pick([0n, 1n, 2n, 3n, 3n, random.chance(30) ? 0x10n : 3n]), 8);
  setup.store(target + 520n, layout, 8);
  for (let at = 528n; at < 576n; at += 8n) setup.store(target + at, random.chance(1) ? 1n : 0n, 8);
}

const STACK_MNEMONICS = /^(PUSH|POP|PUSHF|POPF|ENTER|LEAVE|CALL|RET)$/;
const STRING_MNEMONICS = /^(MOVS|STOS|LODS|CMPS|SCAS|INS|OUTS)$/;
/** What these do with a page they need not touch (an all-zero mask) is the processor's choice. */
const MASKED_STORES = /^MASKMOV/;

/** Locked accesses across cache lines are slow, and trapped by some kernels. */
function withoutSplit(where: Place): Place {
  switch (where) {
    case 'anywhere':
    case 'page crossing': return 'aligned';
    case 'over the end': return 'unmapped';
    default: return where;
  }
}

interface Source {
  form: string;
  profile: Profile;
  codeOffset?: number | undefined;
}

/** Sets one case up for an instruction given by its bytes; `where` says where an explicit memory operand is to lie. */
function setUp(source: Source, index: number, bytes: Uint8Array, where: Place, random: Random): Case {
  const { form, profile, codeOffset = CODE_START } = source;
  const code = bytes.slice();
  const codeAddress = CODE.address + codeOffset;
  const it = disassemble(code, codeAddress);
  const mnemonic = mnemonicOf(form);
  const setup = new Setup(form, index, profile, code, it, random);

  if (profile === 'float32' || profile === 'float64' || /^(CVT|STMXCSR|LDMXCSR)/.test(mnemonic)) {
    if (random.chance(50)) setup.set(Word.mxcsr, drawMxcsr(random));
  }
  if (profile === 'float80') setUpX87(setup);
  if (/,CL\b/.test(form)) setup.setLow(RCX, BigInt(random.chance(80) ? random.pick(COUNTS) : random.below(256)), 8);
  if (form.includes('/AC')) setup.set(Word.rflags, setup.get(Word.rflags) | BigInt(Flag.alignmentCheck));
  if (STACK_MNEMONICS.test(mnemonic)) drawStackPointer(setup);
  if (mnemonic.startsWith('PCMPESTR')) {
    for (const register of [RAX, RDX]) if (random.chance(80)) setup.set(register, BigInt(random.below(41) - 20));
  }
  if (STRING_MNEMONICS.test(mnemonic)) setUpString(setup, mnemonic, /\bREP/.test(form));
  if (mnemonic === 'XLAT') setup.point(RBX, place(where, 1, ZONES.text, random) - (setup.get(RAX) & 0xffn), it.segmentBase);
  if (MASKED_STORES.test(mnemonic)) {
    const mapped = /over|before|unmapped|only|canonical/.test(where) ? 'anywhere' : where;
    setup.point(RDI, place(mapped, 16, setup.zone(), random), it.segmentBase);
  }
  const bitOffset = /^BT[SRC]?$/.test(mnemonic) && it.memory ? it.registers[1] : undefined;
  if (bitOffset) setup.setLow(bitOffset.number, BigInt(random.below(0x2000) - 0x1000), bitOffset.bits);
  if (/^(BEXTR|BZHI|S[AH][LR]X)$/.test(mnemonic)) setUpField(setup, mnemonic);
  setUpControl(setup, mnemonic);

  let target: bigint | undefined;
  // XLAT's operand has been placed: of its index only AL counts.
  if (it.memory && !['LEA', 'NOP', 'XLAT'].includes(mnemonic)) {
    const exclusive = form.startsWith('LOCK') || mnemonic === 'XCHG';
    const isExtendedState = EXTENDED_STATE.test(mnemonic);
    const size = isExtendedState ? EXTENDED_STATE_BYTES : it.memorySize || 1;
    let wanted = place(exclusive || isExtendedState ? withoutSplit(where) : where, size, setup.zone(), random);
    if (isExtendedState && random.chance(90)) wanted &= ~63n;
    if (bitOffset && (where === 'aligned' || wanted < 0x1_0000n)) wanted = BigInt(DATA.address + PAGE);
    if (bitOffset && where === 'non-canonical') wanted = NON_CANONICAL[4];
    target = placeMemoryOperand(setup, code, codeAddress, wanted);
  } else if (it.memory && it.displacementSize > 1) {
    for (let i = 0; i < it.displacementSize; i++) code[it.displacementOffset + i] = random.below(256);
  }

  if (target !== undefined && EXTENDED_STATE.test(mnemonic)) setUpExtendedState(setup, mnemonic, target);
  const operand = it.registers[0];
  const bits = operand?.bits ?? it.memorySize * 8;
  const value = (): bigint =>
    operand ? (setup.get(operand.number) >> (operand.high ? 8n : 0n)) & ones(bits) : setup.load(target as bigint, bits / 8);
  if (profile === 'float80' && target !== undefined) storeX87Operand(setup, mnemonic, target, it.memorySize);
  else if (mnemonic === 'DIV' || mnemonic === 'IDIV') setUpDividend(setup, mnemonic === 'IDIV', value(), bits);
  else if (mnemonic === 'CMPXCHG' && random.chance(50) && !addressUses(it, RAX) && operand?.number !== RAX) {
    setup.setLow(RAX, value(), bits);
  } else if (/^CMPXCHG\d+B$/.test(mnemonic) && random.chance(50) && !addressUses(it, RAX, RDX)) {
    setup.setLow(RAX, setup.load(target as bigint, it.memorySize / 2), it.memorySize * 4);
    setup.setLow(RDX, setup.load((target as bigint) + BigInt(it.memorySize / 2), it.memorySize / 2), it.memorySize * 4);
  } else if ((mnemonic === 'JMP' || mnemonic === 'CALL') && (operand || it.memory) && random.chance(80)) {
    const to = random.pick(CODE_TARGETS);
    if (target !== undefined) setup.store(target, to, 8);
    else if (operand && operand.number !== RSP) setup.set(operand.number, to);
  } else if (/^(LAR|LSL|VERR|VERW)$/.test(mnemonic)) {
    const source = it.registers.at(-1);
    if (target !== undefined) setup.store(target, drawSelector(random), 2);
    else if (source) setup.setLow(source.number, drawSelector(random), 16);
  } else if (mnemonic === 'LDMXCSR') {
    setup.store(target as bigint, drawStoredMxcsr(random), 4);
  } else if (mnemonic === 'FXRSTOR') {
    setup.store(target as bigint, 0x37fn | (random.word() & 0xff_ffff_0000n), 8);
    setup.store((target as bigint) + 24n, drawStoredMxcsr(random), 4);
  }
  const endsWindow = codeOffset + code.length >= CODE.size; // no room for an INT3 behind it
  const overrides = [...setup.overrides].map(([word, v]) => ({ word, value: v }));
  return { code, codeOffset, step: it.jumps || endsWindow, overrides };
}

/** Selectors of DESCRIPTORS' entries with all privilege levels; beyond the table, and of an LDT that there is not. */
function drawSelector(random: Random): bigint {
  return random.chance(80) ? BigInt((random.below(DESCRIPTORS.length) << 3) | random.below(4)) : random.pick([0xfff8n, 0x8003n, 0x0007n, 0x002fn]);
}

/** How many times all places a memory operand can lie at, or as many cases without one, a form goes through. */
const ROUNDS = 3;

/** How many cases a form gets. */
function casesOf({ illegal, profile, mnemonic, kind, prefixes }: Form): number {
  if (illegal) return 2;
  if (/^FX/.test(mnemonic)) return 2 * PLACES.length;
  if (EXTENDED_STATE.test(mnemonic)) return 6 * PLACES.length;
  if (profile.startsWith('float')) return ROUNDS * 72;
  const isComplex = STRING_MNEMONICS.test(mnemonic) || /^(PCMP.STR|DIV|IDIV|RCL|RCR|SHLD|SHRD|LEA$|CMPXCHG|CVT|P(DEP|EXT)|BEXTR)/.test(mnemonic);
  if (isComplex) return ROUNDS * 64;
  return kind === 'mem' ? ROUNDS * (prefixes.length ? 2 : 3) * PLACES.length : ROUNDS * 36;
}

/** Registers that say something else take part in the address: a bit's offset, or RAX and RDX where they name components. */
function isEntangled({ mnemonic, kind }: Form, code: Uint8Array): boolean {
  if (kind !== 'mem') return false;
  const isBitString = /^BT[SRC]?$/.test(mnemonic);
  if (!isBitString && !EXTENDED_STATE.test(mnemonic)) return false;
  const it = disassemble(code, CODE.address);
  return isBitString ? addressUses(it, it.registers[1]?.number ?? -2) : addressUses(it, RAX, RDX);
}

export function generateForm(form: Form, count = casesOf(form)): FormCases {
  const start = hash(form.id) % PLACES.length;
  const cases = Array.from({ length: count }, (_, index) => {
    const random = new Random(hash(`${form.id}!${index}`));
    const where = PLACES[(start + index) % PLACES.length];
    let code = encode(form, random);
    while (isEntangled(form, code)) code = encode(form, random);
    return setUp({ form: form.id, profile: form.profile }, index, code, where, random);
  });
  return { form: form.id, profile: form.profile, cases };
}

/** Cases for an instruction given as hexadecimal bytes, from wherever the list of forms comes. */
export function generateLiteral({ form, bytes, profile = 'integer', codeOffset }: LiteralForm, count: number): FormCases {
  const code = Uint8Array.from(Buffer.from(bytes.replaceAll(' ', ''), 'hex'));
  const cases = Array.from({ length: count }, (_, index) => {
    const where = count < PLACES.length && index < 6 ? 'aligned' : PLACES[index % PLACES.length];
    return setUp({ form, profile, codeOffset }, index, code, where, new Random(hash(`${form}!${index}`)));
  });
  return { form, profile, cases };
}

const LITERAL_CASES: Record<string, number> = { prefix: 12, alignment: 2 * PLACES.length };

export function generateFamily(family: Family): FormCases[] {
  return [
    ...family.forms.map((form) => generateForm(form, family.name === 'system' ? 3 : undefined)),
    ...family.literals.map((literal) => generateLiteral(literal, LITERAL_CASES[family.name] ?? 1)),
  ];
}
