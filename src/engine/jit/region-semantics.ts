/**
 * The JIT's half of the builder: `Semantics` with operands known. General registers, XMM registers and flags live in wasm
 * locals for as long as a region runs. What the interpreter does better (faults, MMIO, helpers) is left to it: the region stores
 * its registers and names the operation to go on with; nothing of the instruction has happened yet by then.
 */

import * as state from '../../cpu/state.ts';
import { type Decoded, NO_BASE, opcodeNote, RIP_BASE } from '../../isa/decoder.ts';
import type { OperandSpecification } from '../../isa/encoding.ts';
import type { X87Stack } from '../../isa/x87-stack.ts';
import type { Bits, FlagWords, Operand, SharedFunction } from '../../isa/semantics.ts';
import { type Expression, i32, i64, type Operand as Value } from '../../wasm/expression.ts';
import type { FunctionReference, Local } from '../../wasm/function-builder.ts';
import { type HandlerTargets, ImmediateOperand, InterpreterSemantics, MemoryOperand, RegisterOperand, sizeBits, STORE, toInteger } from '../interpreter-semantics.ts';
import * as L from '../layout.ts';
import type { RegionState } from './region-state.ts';
import { QuickStack } from './region-x87.ts';
import { Unsupported } from './unsupported.ts';

const PAGE = 4096;
const [ES, SS, DS, FS] = [0, 2, 3, 4];
/** ES, CS, SS, DS, FS and GS. */
const SEGMENTS = 6;
/** Segments that flat code finds to be all memory. */
const isFlat = (segment: number): boolean => segment === ES || segment === SS || segment === DS;

/** A general register, or its low part, or an MMX register in a local; `offset` is its place in the state. */
class LocalRegister implements Operand {
  readonly kind = 'register';
  readonly bits: number;
  protected readonly region: RegionState;
  protected readonly register: number;
  private readonly offset: number;
  private readonly high: boolean;

  constructor(region: RegionState, number: number, bits: number, high = false, offset = state.GPR + 8 * number) {
    this.region = region;
    this.register = number;
    this.offset = offset;
    this.bits = bits;
    this.high = high;
  }

  private get value(): Expression {
    const { f } = this.region;
    return f.get(this.region.word(this.offset, false) as Local);
  }

  signed(): Expression {
    return this.region.f.let((this.high ? this.value.shrU(8) : this.value).signExtend(this.bits));
  }

  unsigned(): Expression {
    return this.region.f.let((this.high ? this.value.shrU(8) : this.value).zeroExtend(this.bits));
  }

  write(value: Expression): void {
    const { f } = this.region;
    const local = this.region.word(this.offset, true) as Local;
    if (this.bits === 64) return f.set(local, value);
    if (this.bits === 32) return f.set(local, value.zeroExtend(32));
    const shift = this.high ? 8 : 0;
    const mask = (2n ** BigInt(this.bits) - 1n) << BigInt(shift);
    f.set(local, f.get(local).and(~mask).or(value.zeroExtend(this.bits).shl(shift)));
  }

  number(): Expression {
    return i32(this.register);
  }

  vector(): Expression { throw new Unsupported('a general register is no vector'); }
  float(): Expression { return this.vector(); }
  writeVector(): void { this.vector(); }
  writeLow(): void { this.vector(); }
  address(): Expression { throw new Error('a register has no address'); }
  linear(): Expression { return this.address(); }
}

class LocalMmx extends LocalRegister {
  override write(value: Expression): void {
    super.write(value);
    this.region.f.set(this.region.mmxExponent(this.register), i32(state.MMX_EXPONENT));
  }
}

/** An XMM register in a local; `bits` are what is accessed as an integer. */
class LocalVector implements Operand {
  readonly kind = 'register';
  readonly bits: number;
  private readonly region: RegionState;
  private readonly register: number;

  constructor(region: RegionState, number: number, bits: number) {
    this.region = region;
    this.register = number;
    this.bits = bits;
  }

  vector(): Expression {
    const { region, register } = this;
    const known = region.float.vector(register);
    if (known) return known;
    const value = region.f.let(region.f.get(region.vector(register, false)));
    if (!region.float.low(register, 'f32') && !region.float.low(register, 'f64')) region.float.setVector(register, value);
    return value;
  }

  writeVector(value: Expression): void {
    const { region, register } = this;
    const kept = region.f.let(value);
    region.f.set(region.vector(register, true), kept);
    region.float.setVector(register, kept);
  }

  float(bits: 32 | 64): Expression {
    const { region, register } = this;
    const known = region.float.low(register, bits === 32 ? 'f32' : 'f64');
    if (known) return known;
    const local = region.f.get(region.vector(register, false));
    return region.f.let(local.lane(bits === 32 ? 'f32x4.extract_lane' : 'f64x2.extract_lane', 0));
  }

  writeLow(value: Expression, bits: 32 | 64): void {
    const { region, register } = this;
    const { f } = region;
    const kept = f.let(value);
    const local = region.vector(register, true);
    const old = f.get(local);
    if (bits === 64) f.set(local, kept.type === 'f64' ? old.lane('f64x2.replace_lane', 0, kept) : old.lane('i64x2.replace_lane', 0, toInteger(kept, bits)));
    else f.set(local, kept.type === 'f32' ? old.lane('f32x4.replace_lane', 0, kept) : old.lane('i32x4.replace_lane', 0, toInteger(kept, bits).wrap()));
    region.float.setLow(register, kept);
  }

  unsigned(): Expression {
    const value = this.vector();
    return this.region.f.let(this.bits === 32 ? value.lane('i32x4.extract_lane', 0).extendU() : value.lane('i64x2.extract_lane', 0));
  }

  signed(): Expression {
    return this.region.f.let(this.unsigned().signExtend(Math.min(this.bits, 64)));
  }

  write(value: Expression): void {
    this.writeLow(value, this.bits === 32 ? 32 : 64);
  }

  number(): Expression {
    return i32(this.register);
  }

  address(): Expression { throw new Error('a register has no address'); }
  linear(): Expression { return this.address(); }
}

/** ST(i): only its number is asked for. */
class StackRegister implements Operand {
  readonly kind = 'register';
  readonly bits = 80;
  private readonly index: number;

  constructor(index: number) {
    this.index = index;
  }

  number(): Expression {
    return i32(this.index);
  }

  signed(): Expression { throw new Error('an x87 register is on the stack'); }
  unsigned(): Expression { return this.signed(); }
  vector(): Expression { return this.signed(); }
  float(): Expression { return this.signed(); }
  address(): Expression { return this.signed(); }
  linear(): Expression { return this.signed(); }
  write(): void { this.signed(); }
  writeVector(): void { this.signed(); }
  writeLow(): void { this.signed(); }
}

/** A memory operand whose address is made of known parts. */
class KnownMemory extends MemoryOperand {
  private readonly decoded: MemoryParts;
  private readonly writes: boolean;

  constructor(x: RegionSemantics, bits: number, access: 'r' | 'w' | 'm', decoded: MemoryParts) {
    super(x, bits, access, 'simple');
    this.decoded = decoded;
    this.writes = access !== 'r';
    if (decoded.addressBits === 16) throw new Unsupported('16-bit address');
  }

  private sum(): Expression {
    const { base, index, scale, displacement, offset } = this.decoded;
    if (offset !== undefined) return i64(offset);
    const x = this.x as RegionSemantics;
    let sum: Expression = i64(displacement);
    if (base === RIP_BASE) sum = x.region.codeBase.add(displacement);
    else if (base !== NO_BASE) sum = x.gpr(base, 64).unsigned().add(displacement);
    if (index !== NO_BASE) sum = x.gpr(index, 64).unsigned().shl(scale).add(sum);
    return sum;
  }

  override address(): Expression {
    this.effective ??= this.x.f.let(this.decoded.addressBits === 32 ? this.sum().zeroExtend(32) : this.sum());
    return this.effective;
  }

  override linear(displacement?: Expression): Expression {
    if (displacement) {
      const offset = this.sum().add(displacement);
      return this.inSegment(this.decoded.addressBits === 32 ? offset.zeroExtend(32) : offset);
    }
    this.cached ??= this.inSegment(this.address());
    return this.cached;
  }

  private inSegment(offset: Expression): Expression {
    return (this.x as RegionSemantics).inKnownSegment(this.decoded.segment, offset, this.bits / 8, this.writes);
  }
}

type MemoryParts = Pick<Decoded, 'base' | 'index' | 'scale' | 'displacement' | 'segment' | 'addressBits'> & { offset?: bigint };

/** How a block is left: by its branch, behind its last instruction where that may branch, or where it was cut. */
export type Link = 'taken' | 'next' | 'through';

/** Where an instruction stands, and how control leaves it. */
export interface Place {
  /** Its first operation, for the interpreter to go on with. */
  operation: number;
  /** Offsets in the page of the instruction and of the next. */
  ip: number;
  nextIp: number;
  /** Goes to an offset from the page. */
  go(offset: number, link: Link): void;
  /** Some addresses that only the running code knows are looked for in the region. */
  isFollowed: boolean;
  /** Goes to such an address. */
  goTo(rip: Expression): void;
}

const isFlag = (offset: number): boolean => offset >= state.FLAG_ZERO && offset <= state.FLAG_OVERFLOW;

/** A condition on a comparison's flags. Operands are sign-extended, which keeps their order, unsigned too. */
function afterSubtraction(cc: number, { a, b, result }: { a: Expression; b: Expression; result: Expression }): Expression | null {
  switch (cc) {
    case 2: return a.ltU(b);
    case 3: return a.geU(b);
    case 4: return a.eq(b);
    case 5: return a.ne(b);
    case 6: return a.leU(b);
    case 7: return a.gtU(b);
    case 8: return result.ltS(0);
    case 9: return result.geS(0);
    case 12: return a.ltS(b);
    case 13: return a.geS(b);
    case 14: return a.leS(b);
    case 15: return a.gtS(b);
    default: return null;
  }
}

/** A condition on the flags of AND, OR, XOR or TEST: no carry, no overflow. */
function afterLogic(cc: number, result: Expression): Expression | null {
  switch (cc) {
    case 0: case 2: return i32(0);
    case 1: case 3: return i32(1);
    case 4: case 6: return result.eqz();
    case 5: case 7: return result.nonZero();
    case 8: case 12: return result.ltS(0);
    case 9: case 13: return result.geS(0);
    case 14: return result.leS(0);
    case 15: return result.gtS(0);
    default: return null;
  }
}

export class RegionSemantics extends InterpreterSemantics {
  override readonly isCompiled = true;
  readonly region: RegionState;
  private readonly place: Place;
  private readonly decoded: Decoded;
  private readonly parts: MemoryParts;

  constructor(region: RegionState, targets: HandlerTargets, decoded: Decoded, place: Place) {
    const { instruction, encoding } = decoded.form;
    super(
      region.f, targets, instruction,
      { operandBits: encoding.sized ? decoded.operandBits : 32, addressBits: decoded.addressBits, codeBits: region.mode, rm: decoded.mod === 3 ? 'register' : 'general', repeat: instruction.repeat ? decoded.repeat : 'none' },
      i32(place.operation),
    );
    this.region = region;
    this.place = place;
    this.decoded = decoded;
    const { base, index, scale, segment, addressBits, operandBits } = decoded;
    const displacement = decoded.displacement + (base === RIP_BASE ? place.nextIp : 0) + (instruction.addressAfterPop && base === 4 ? operandBits / 8 : 0);
    this.parts = { base, index, scale, segment, addressBits, displacement };
    if (encoding.vex && !this.longMode) throw new Unsupported('VEX');
  }

  override operand(specification: OperandSpecification, position: number, access: 'r' | 'w' | 'm', isRm: boolean, immediateIndex: number): Operand {
    const { region, decoded: d } = this;
    const { code, size } = specification;
    const bits = sizeBits(size, this.operandBits);
    if (isRm && d.mod !== 3) return new KnownMemory(this, bits, access, this.parts);
    if (code === 'O') return new KnownMemory(this, bits, access, { ...this.parts, offset: (BigInt(d.immediateHigh) << 32n) | BigInt(d.immediate >>> 0) });
    const general = (number: number): Operand => {
      if (bits > 64) throw new Unsupported(code);
      return bits === 8 && d.rex === 0 && number >= 4 && number < 8 ? new LocalRegister(region, number - 4, 8, true) : new LocalRegister(region, number, bits);
    };
    const mmx = (number: number): Operand => new LocalMmx(region, number, 64, false, state.FPR + 16 * number);
    switch (code) {
      case 'E': case 'R': return general(d.rm);
      case 'G': return general(d.reg);
      case 'Z': return general(d.opcodeRegister);
      case 'B': return general(d.vvvv);
      case 'W': case 'U': return new LocalVector(region, d.rm, bits);
      case 'V': return new LocalVector(region, d.reg, bits);
      case 'XMM0': return new LocalVector(region, 0, 128);
      case 'P': return mmx(d.reg & 7);
      case 'Q': case 'N': return mmx(d.rm & 7);
      case 'S': {
        const number = d.reg & 7;
        if (number >= SEGMENTS) throw new Unsupported('no segment');
        return new RegisterOperand(this.f, 16, this.vcpu, state.SEGMENT + number * state.SEGMENT_SIZE + state.SEGMENT_SELECTOR, i32(number));
      }
      case 'C': return new RegisterOperand(this.f, 64, this.vcpu, 0, i32(d.reg));
      case 'i': return new StackRegister(d.opcodeRegister & 7);
      case 'I': case 'sI': {
        if (immediateIndex > 0) return new ImmediateOperand(this.f, bits, i64(d.immediate2));
        const value = (BigInt(d.immediateHigh) << 32n) | BigInt(d.immediate >>> 0);
        return new ImmediateOperand(this.f, code === 'sI' ? this.operandBits : bits, i64(value));
      }
      case 'J': return new ImmediateOperand(this.f, bits, i64(this.place.nextIp + d.immediate));
      case '1': return new ImmediateOperand(this.f, 8, i64(1));
      case 'AL': case 'CL': case 'AX': case 'DX': case 'eAX': case 'eDX':
        return this.gpr(code === 'CL' ? 1 : code.endsWith('DX') || code === 'DX' ? 2 : 0, code === 'AL' || code === 'CL' ? 8 : code === 'AX' || code === 'DX' ? 16 : this.operandBits);
      case 'AH': return this.highByte(0);
      case 'X': case 'Y': return super.operand(specification, position, access, isRm, immediateIndex);
      default: throw new Unsupported(code);
    }
  }

  override gpr(number: number, bits: Bits): Operand { return new LocalRegister(this.region, number, bits); }
  override highByte(number: number): Operand { return new LocalRegister(this.region, number, 8, true); }
  override xmm(number: number): Operand { return new LocalVector(this.region, number, 128); }

  // --- State words that are in locals ---------------------------------------------------------------

  protected override word(offset: number): Expression {
    if (isFlag(offset)) return this.region.flags.read(offset, this.isConditional);
    const local = this.region.word(offset, false);
    return local ? this.f.get(local) : super.word(offset);
  }

  override state32(offset: number): Expression {
    // The time-stamp counter asks.
    if (offset === state.BUDGET) return this.f.get(this.region.budget);
    if (offset === state.MXCSR) return this.region.float.mxcsr;
    const local = this.region.word(offset, false);
    return local ? this.f.let(this.f.get(local).wrap()) : super.state32(offset);
  }

  override setState64(offset: number, value: Value): void {
    if (typeof value === 'object' && this.region.x87.setPointer(offset, value)) return;
    const local = this.region.word(offset, true);
    if (local) this.f.set(local, value);
    else super.setState64(offset, value);
  }

  override setState32(offset: number, value: Value): void {
    if (typeof value === 'object' && this.region.x87.setPointer(offset, value)) return;
    if (this.region.word(offset, false)) throw new Unsupported('half of a register');
    super.setState32(offset, value);
    if (offset === state.MXCSR) this.region.float.mxcsrChanged(this.vcpu);
  }

  override setFlags(words: FlagWords): void { this.region.flags.setWords(words, this.isConditional); }

  override flagsOfAdd(a: Expression, b: Expression, result: Expression): void {
    if (this.isConditional) super.flagsOfAdd(a, b, result);
    else this.region.flags.keep('addition', a, b, result);
  }

  override flagsOfSub(a: Expression, b: Expression, result: Expression): void {
    if (this.isConditional) super.flagsOfSub(a, b, result);
    else this.region.flags.keep(this.mnemonic === 'SBB' ? 'borrow' : 'subtraction', a, b, result);
  }

  override flagsOfLogic(result: Expression): void {
    if (this.isConditional) super.flagsOfLogic(result);
    else this.region.flags.keep('logic', result, result, result);
  }

  override condition(cc: number): Expression {
    const { source, operands } = this.region.flags;
    const value = source === 'subtraction' ? afterSubtraction(cc, operands) : source === 'logic' ? afterLogic(cc, operands.result) : null;
    return value ? this.f.let(value) : super.condition(cc);
  }

  // --- Memory ---------------------------------------------------------------------------------------

  protected override probe(address: Expression, bytes: number, tag: number): { entry: Expression; hit: Expression } {
    const { f } = this;
    const shift = 12 - Math.log2(L.TLB_ENTRY_SIZE);
    const entry = f.let(address.shrU(shift).wrap().and((L.TLB_ENTRIES - 1) * L.TLB_ENTRY_SIZE).add(this.region.tlbBase));
    const last = bytes > 1 ? address.add(bytes - 1) : address;
    return { entry, hit: entry.load('i64.load', tag).eq(last.and(-4096)) };
  }

  /** Linear address for an access within a page; where there is none, the interpreter takes over. */
  private host(address: Expression, bytes: number, write: boolean): Expression {
    const { f } = this;
    const { addresses } = this.region;
    const near = addresses.near(address, write);
    if (!near) {
      const host = this.translate(address, bytes, write);
      addresses.keep(address, host, write);
      return host;
    }
    const { translation, distance } = near;
    const host = f.local('i32');
    f.set(host, f.get(translation.host).add(distance));
    f.ifRarely(f.get(translation.offset).add(distance).gtU(PAGE - bytes), () => f.set(host, this.translate(address, bytes, write)));
    return f.let(f.get(host));
  }

  /** The same, by the TLB. */
  private translate(address: Expression, bytes: number, write: boolean): Expression {
    const { entry, hit } = this.probe(address, bytes, write ? L.TLB_WRITE : L.TLB_READ);
    this.f.ifRarely(hit.eqz(), () => this.interpret());
    return this.f.let(this.hostOf(address, entry));
  }

  protected override loadAt(address: Expression, bits: number, name: string, _type: 'i64' | 'v128', modify: boolean, host: Local | null): Expression {
    const linear = this.host(this.f.let(address), bits / 8, modify);
    if (host) this.f.set(host, linear);
    return this.f.let(linear.load(name));
  }

  override store(address: Expression, bits: Bits, value: Expression): void {
    const v = this.f.let(value);
    this.f.store(STORE[bits], this.host(this.f.let(address), bits / 8, true), v);
  }

  override storeVector(address: Expression, value: Expression): void {
    const v = this.f.let(value);
    this.f.store('v128.store', this.host(this.f.let(address), 16, true), v);
  }

  override storeSlow(): void {
    this.f.unreachable();
  }

  override ramAtHand(address: Expression, bytes: Expression, access: 'read' | 'write'): Expression {
    const { f } = this;
    const from = f.let(address);
    const last = from.add(bytes.extendU()).sub(1);
    const tag = access === 'write' ? L.TLB_WRITE : L.TLB_READ;
    const { entry } = this.probe(from, 1, tag);
    f.ifRarely(entry.load('i64.load', tag).ne(last.and(-4096)), () => this.interpret());
    return f.let(this.hostOf(from, entry));
  }

  override bulk(): Expression { throw new Unsupported('by pieces'); }
  override restart(): void { throw new Unsupported('by pieces'); }

  override dataSegmentBase(): Expression {
    return this.decoded.segment >= FS ? this.state64(state.SEGMENT + this.decoded.segment * state.SEGMENT_SIZE) : i64(0);
  }

  override segmentAddress(segment: number | 'data', offset: Expression, bytes: Expression, access: 'read' | 'write'): Expression {
    if (!this.longMode && segment === 'data' && !isFlat(this.decoded.segment)) throw new Unsupported('segment');
    return super.segmentAddress(segment, offset, bytes, access);
  }

  /** Address of `bytes` bytes at an offset in a segment. In flat code FS, GS and CS have limits and rights, which the interpreter looks at closely. */
  inKnownSegment(segment: number, offset: Expression, bytes: number, writes: boolean): Expression {
    const { f } = this;
    const slot = state.SEGMENT + segment * state.SEGMENT_SIZE;
    if (this.longMode) return segment >= FS ? f.let(offset.add(this.state64(slot))) : offset;
    if (isFlat(segment)) return offset;
    const at = f.let(offset);
    const refused = this.vcpu.load('i32.load', slot + state.SEGMENT_ACCESS).and(writes ? state.WRITABLE : state.READABLE).eqz();
    f.if(at.add(bytes - 1).gtU(this.vcpu.load('i64.load32_u', slot + state.SEGMENT_LIMIT)).or(refused), () => this.interpret());
    return f.let(at.add(this.state64(slot)).zeroExtend(32));
  }

  // --- Control flow -----------------------------------------------------------------------------------

  override ip(): Expression { return this.f.let(this.sequential(this.region.codeBase.add(this.place.ip))); }
  override nextIp(): Expression { return this.f.let(this.sequential(this.region.codeBase.add(this.place.nextIp))); }
  override target(): Expression {
    const target = this.region.codeBase.add(this.place.nextIp + this.decoded.immediate);
    return this.f.let(this.operandBits === 16 ? target.zeroExtend(16) : this.wrapIp(target));
  }

  override checkTarget(address: Expression, first?: () => void): void {
    // Flat code reaches all of its 4 GiB.
    if (!this.longMode) return;
    if (this.decoded.form.encoding.operands[0]?.code === 'J') {
      const target = this.place.nextIp + this.decoded.immediate;
      // As canonical as this instruction is.
      if (target >= 0 && target < PAGE) return;
    } else if (this.place.isFollowed) {
      // What has run before is canonical.
      const { hit } = this.region.lookUp(address);
      this.f.ifRarely(hit.eqz(), () => super.checkTarget(address, first));
      return;
    }
    super.checkTarget(address, first);
  }

  override jump(): void {
    if (this.operandBits === 16) throw new Unsupported('16-bit branch');
    this.left = true;
    this.place.go(this.place.nextIp + this.decoded.immediate, 'taken');
  }

  override jumpIf(condition: Expression): void {
    this.f.if(condition, () => this.jump());
    this.goOn();
  }

  override goOn(): void {
    this.left = true;
    this.place.go(this.place.nextIp, 'next');
  }

  override goTo(address: Expression): void {
    this.left = true;
    this.place.goTo(this.f.let(address));
  }

  override next(): void {}
  override enter(): void { throw new Unsupported('enter'); }
  override leave(): void { throw new Unsupported('leave'); }

  /** Nothing of the block is behind an instruction that ends so. */
  override leaveAtRip(): void {
    if (!this.isConditional) this.left = true;
    this.region.stop(this.state64(state.RIP));
  }

  override updateTranslation(): void {
    super.updateTranslation();
    this.region.translationChanged();
  }

  override continueAtRip(): void { throw new Unsupported('continue'); }

  // --- What the interpreter does ------------------------------------------------------------------------

  /** Leaves for the interpreter, which runs this instruction from its start. */
  override interpret(): void {
    if (!this.isConditional) this.left = true;
    this.region.interpret(this.place.operation);
  }

  override raise(): void { this.interpret(); }
  override raiseWithCode(): void { this.interpret(); }
  override requireSse(): void { this.region.usesSse = true; }
  override requireFpu(): void {}
  override opcodeNote(): Expression { return i32(opcodeNote(this.decoded)); }

  override x87(quick: (stack: X87Stack) => void): void {
    const { x87 } = this.region;
    x87.attempt(() => quick(new QuickStack(x87, (condition) => this.f.if(condition, () => this.interpret()))));
  }

  /** EMMS. */
  override requireMmx(): void { throw new Unsupported('the end of MMX'); }
  override enterMmx(): void { this.region.x87.requireMmx(); }

  /** An instruction that always calls is the interpreter's; one that calls in a rare case leaves to it then. */
  override helper(): Expression {
    if (!this.isConditional) throw new Unsupported('helper');
    this.interpret();
    return i32(0);
  }

  override decline(): boolean {
    this.interpret();
    return true;
  }

  override mxcsrDiffers(mask: number, expected: number): Expression {
    return this.region.float.mxcsrDiffers(mask, expected);
  }

  override noteNormal(value: Expression): void {
    this.region.float.noteNormal(value);
  }

  override isNormal(value: Expression): boolean {
    return this.region.float.isNormal(value);
  }

  override shared(target: SharedFunction, ...operands: Expression[]): Expression[] {
    const { f, region } = this;
    if (target.inlined) return target.build(f, ...operands.map((operand) => f.let(operand)));
    return f.callForAll(region.imports.shared.get(target.name) as FunctionReference, ...operands);
  }

  /** The instruction went somewhere, whatever its conditions were. */
  left = false;

  /** Labels open where the instruction began. */
  baseDepth = this.f.mark().labels;

  /** What is being built runs only under a condition of the instruction's. */
  private get isConditional(): boolean {
    return this.f.mark().labels !== this.baseDepth;
  }
}
