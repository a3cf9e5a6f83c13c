/**
 * Decoded code. Blocks of operations are keyed by the linear address of their first byte in RAM and by mode, so
 * vCPUs and address spaces share them; a write to the bytes a block was made from makes it stale at once.
 */

import type { CpuModel } from '../cpu/cpu-model.ts';
import * as state from '../cpu/state.ts';
import { type CodeBits, type CodeMode, type Decoded, Decoder, type Form, NO_BASE, opcodeNote, RIP_BASE } from '../isa/decoder.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { Interpreter } from './interpreter.ts';
import { memoryBytes, type RmKind, sizeBits } from './interpreter-semantics.ts';
import * as L from './layout.ts';

const PAGE = 4096;
const MAX_INSTRUCTIONS = 64;
/** Operations a block may need at most: those of watched instructions, address operations and the closing ones included. */
const MAX_OPERATIONS = 3 * MAX_INSTRUCTIONS + 3;
const STACK_USERS = new Set(['PUSH', 'POP', 'CALL']);
const CR_OR_DR = new Set(['C', 'D', 'i']);
/** Operations a single instruction may need: page check, watch, address, itself, the one that leaves. */
const SINGLE_OPERATIONS = 5;
const MAX_INSTRUCTION_BYTES = 15;
/** Interrupts stay shut until the instruction after this one has run. MOV SS, which does the same, ends its block. */
export const SHADOWING = 'STI';

export interface Block {
  op: number;
  operations: number;
  /** Linear range it was decoded from; for an instruction across pages, the part in the next page too. */
  start: number;
  bytes: number;
  secondStart: number;
  secondBytes: number;
  mode: number;
}

/** Finds the RAM behind the page after the one that is being decoded (may raise a fault); -1 where that is no RAM. */
export type NextPage = () => number;

/** Code whose instructions are reported: all of some pages, once somebody follows them, and from some places on at once. */
export interface WatchedCode {
  /** By number in RAM. */
  pages: ReadonlySet<number>;
  /** Linear addresses. */
  points: { has(linear: number): boolean };
}

export class BlockCache {
  private readonly memory: GuestMemory;
  private readonly layout: L.Layout;
  private readonly words: Int32Array;
  readonly decoder: Decoder;
  private interpreter!: Interpreter;
  /** Blocks by linear address of their first byte, for 16, 32, 64-bit and flat 32-bit code. */
  private readonly blocks: Map<number, number>[] = [new Map(), new Map(), new Map(), new Map()];
  private readonly pages = new Map<number, Block[]>();
  private readonly byOperation = new Map<number, Block>();
  private readonly crossing = new Uint8Array(32);
  private readonly plans: Plan[] = [];
  private next: number;
  /** Called when a page gets its first code: writable TLB entries for it have to go. */
  onCodePage: (linear: number) => void = () => {};
  /** Called when a block has become stale: what was compiled from it has to go. */
  onStale: (block: Block) => void = () => {};
  /** Called when everything was dropped to make room. */
  onFlush: () => void = () => {};
  private iterates = false;
  /** Code that is decoded so that somebody sees its instructions; undefined where nobody wants to. */
  private watched: WatchedCode | undefined;
  /** Of the last single instruction: that it is one iteration of a repeated one, and what else than its count ends that. */
  iteration: { addressBits: 16 | 32 | 64; until: 'equal' | 'unequal' | undefined } | undefined;
  /** Operations of the last single instruction, what closes it included. */
  singleOperations = 0;
  decodedInstructions = 0;
  invalidatedBlocks = 0;
  flushes = 0;

  constructor(memory: GuestMemory, layout: L.Layout, model: CpuModel) {
    this.decoder = new Decoder((feature) => model.features.has(feature));
    this.memory = memory;
    this.layout = layout;
    this.words = new Int32Array(memory.memory.buffer);
    this.next = this.firstBlock;
  }

  /** Behind the place for single instructions: a block that one of them links to must not be decoded over it. */
  private get firstBlock(): number {
    return this.layout.operations + SINGLE_OPERATIONS * L.OP_SIZE;
  }

  /** From now on code is decoded so; what is decoded already is dropped. Not while a vCPU runs. */
  watch(code: WatchedCode | undefined): void {
    this.watched = code;
    this.flush();
  }

  /** Whether a block's instructions are reported: then it must not be compiled. `linear` is where it starts. */
  isWatched(linear: number): boolean {
    return this.watched?.pages.has(this.pageNumber(linear)) ?? false;
  }

  private pageNumber(linear: number): number {
    return Math.floor((linear - this.memory.ramBase) / PAGE);
  }

  attach(interpreter: Interpreter): void {
    this.interpreter = interpreter;
  }

  /** The block that starts at `linear` in RAM, decoded now if it is not there. */
  block(linear: number, mode: CodeMode, nextPage: NextPage): number {
    const found = this.blocks[mode >> 5].get(linear);
    return found ?? this.decode(linear, mode, MAX_INSTRUCTIONS, nextPage);
  }

  /** The block that starts with this operation, if there is one. */
  blockOf(op: number): Block | undefined {
    return this.byOperation.get(op);
  }

  /** The block decoded from `linear` on, if it is there already. */
  known(linear: number, mode: CodeMode): Block | undefined {
    const op = this.blocks[mode >> 5].get(linear);
    return op === undefined ? undefined : this.byOperation.get(op);
  }

  /** All blocks with bytes in the page at `linear`. */
  inPage(linear: number): readonly Block[] {
    return this.pages.get(Math.floor((linear - this.memory.ramBase) / PAGE)) ?? [];
  }

  /** A block of the one instruction at `linear`, not kept. */
  single(linear: number, mode: CodeMode, nextPage: NextPage, iterate = false): number {
    this.iterates = iterate;
    this.iteration = undefined;
    return this.decode(linear, mode, 1, nextPage);
  }

  private decode(linear: number, mode: CodeMode, limit: number, nextPage: NextPage): number {
    if (this.next + MAX_OPERATIONS * L.OP_SIZE > this.layout.operations + this.layout.operationBytes) this.flush();
    const { bytes } = this.memory;
    const codeBits: CodeBits = mode === state.CODE_32_FLAT ? state.CODE_32 : mode;
    const d = this.decoder.result;
    const pageStart = linear - ((linear - this.memory.ramBase) % PAGE);
    let position = linear;
    const first = limit === 1 ? this.layout.operations : this.next;
    let op = first;
    let count = 0;
    let secondStart = 0;
    let secondBytes = 0;
    let closed = false;
    let linkOther = false;
    let shadowing = false;
    const watched = this.isWatched(linear) ? this.watched : undefined;
    // Where each instruction's operations begin: OP_REMAINING is filled in when the block's length is known.
    const begins: number[] = [];
    // A single instruction is checked by who asks for it.
    const checksLimit = limit > 1 && (mode === state.CODE_16 || mode === state.CODE_32);
    if (checksLimit) {
      this.clear(op);
      this.setHandler(op, this.interpreter.microOp['check-limit']);
      this.setIps(op, position - pageStart, position - pageStart);
      op += L.OP_SIZE;
    }
    while (count < limit && position < pageStart + PAGE) {
      const available = pageStart + PAGE - position;
      let status = this.decoder.decode(bytes, position, available, codeBits);
      const begin = count === 0 ? first : op;
      if (status === 'truncated') {
        if (count > 0) break;
        // The instruction goes on in the next page.
        secondStart = nextPage();
        this.crossing.set(bytes.subarray(position, position + available));
        if (secondStart >= 0) this.crossing.set(bytes.subarray(secondStart, secondStart + 16), available);
        else this.crossing.fill(0xff, available);
        status = this.decoder.decode(this.crossing, 0, available + 16, codeBits);
        this.clear(op);
        this.setHandler(op, this.interpreter.microOp['check-page']);
        this.set(op, L.OP_IMMEDIATE, secondStart);
        this.setIps(op, position - pageStart, position - pageStart);
        op += L.OP_SIZE;
      }
      if (limit === 1 && this.iterates && status === 'ok' && d.form.instruction.repeat && d.repeat !== 'none') {
        this.iteration = { addressBits: d.addressBits, until: d.form.instruction.repeat === 'rep' ? undefined : d.repeat === 'rep' ? 'unequal' : 'equal' };
        d.repeat = 'none';
      }
      const ip = position - pageStart;
      begins.push(begin);
      count++;
      if (watched) {
        this.clear(op);
        this.setHandler(op, this.interpreter.microOp[watched.points.has(position) ? 'watch-point' : 'watch']);
        this.setIps(op, ip, status === 'ok' ? ip + d.length : ip);
        op += L.OP_SIZE;
      }
      if (status !== 'ok' || !this.valid(d)) {
        this.clear(op);
        this.setHandler(op, this.interpreter.microOp[status === 'too-long' ? 'too-long' : 'undefined']);
        this.setIps(op, ip, ip);
        op += L.OP_SIZE;
        // Any of the bytes that were looked at may make an instruction of it.
        position += MAX_INSTRUCTION_BYTES;
        if (secondStart !== 0) secondBytes = MAX_INSTRUCTION_BYTES - available;
        closed = true;
        break;
      }
      op = this.operations(op, d, ip, mode);
      if (secondStart !== 0) secondBytes = d.length - available;
      position += d.length;
      shadowing = d.form.instruction.mnemonic === SHADOWING;
      this.decodedInstructions++;
      if (d.form.instruction.ends === 'block') {
        closed = true;
        break;
      }
      if (secondStart !== 0) {
        linkOther = true;
        break;
      }
    }
    if (!closed) {
      // Fell through: go on in the next block.
      const ip = position - pageStart;
      this.clear(op);
      // A single instruction leaves to the run loop, as code that has changed does; so does a shadow that reaches beyond the block.
      const { shadow, stale, chain } = this.interpreter.microOp;
      this.setHandler(op, shadowing ? shadow : limit === 1 ? stale : chain);
      this.setIps(op, ip, ip);
      this.set(op, L.OP_LINK_NEXT, linkOther || ip >= PAGE ? L.LINK_OTHER_PAGE : L.LINK_UNKNOWN);
      this.set16(op, L.OP_REMAINING, -1);
      op += L.OP_SIZE;
    }
    for (let i = 0; i < begins.length; i++) {
      const end = i + 1 < begins.length ? begins[i + 1] : closed ? op : op - L.OP_SIZE;
      for (let o = begins[i]; o < end; o += L.OP_SIZE) this.set16(o, L.OP_REMAINING, count - 1 - i);
    }
    if (limit === 1) {
      this.singleOperations = (op - first) / L.OP_SIZE;
      return first;
    }
    if (checksLimit) this.set(first, L.OP_IMMEDIATE, position - pageStart - 1);
    this.next = op;
    const block: Block = {
      op: first,
      operations: (op - first) / L.OP_SIZE,
      start: linear,
      bytes: Math.min(position, pageStart + PAGE) - linear,
      secondStart,
      secondBytes: secondStart < 0 ? 0 : secondBytes,
      mode: mode >> 5,
    };
    this.blocks[block.mode].set(linear, first);
    this.byOperation.set(first, block);
    this.remember(block, block.start, block.bytes);
    if (block.secondBytes > 0) this.remember(block, secondStart, secondBytes);
    return first;
  }

  /** The last single instruction, until another one is decoded. */
  get lastDecoded(): Decoded {
    return this.decoder.result;
  }

  /** Whether an operation stands for bytes that are no instruction: #UD, or #GP where they are too many. */
  isUndefined(op: number): boolean {
    const handler = this.memory.view.getUint16(op + L.OP_INTERPRETED, true);
    return handler === this.interpreter.microOp.undefined || handler === this.interpreter.microOp['too-long'];
  }

  private valid(d: Decoded): boolean {
    // Segment registers 6 and 7 do not exist, and CS (1) is not loaded by MOV.
    const { segment } = this.planOf(d.form);
    return segment < 0 || ((d.reg & 7) < 6 && !((d.reg & 7) === 1 && d.form.instruction.access?.[segment] === 'w'));
  }

  private planOf(form: Form): Plan {
    this.plans[form.id] ??= makePlan(form);
    return this.plans[form.id];
  }

  /** Writes the operations of one instruction at `op`; returns where the next go. */
  private operations(at: number, d: Decoded, ip: number, mode: CodeMode): number {
    let op = at;
    const { instruction, encoding, rmPosition } = d.form;
    const plan = this.planOf(d.form);
    const nextIp = ip + d.length;
    const memory = encoding.hasModrm && d.mod !== 3;
    const absolute = plan.absolute >= 0;
    const long = mode === state.CODE_64;
    // CS, FS and GS are never flat: CS cannot be written, FS and GS have bases.
    const flat = mode === state.CODE_32_FLAT && (d.segment === 0 || d.segment === 2 || d.segment === 3);
    const displaced = memory && instruction.displaced === true;
    // An address that a micro-operation has made is any handler's; one that the handler makes itself is in a segment that is not flat.
    const handlerMode = mode === state.CODE_32_FLAT && !flat && (!memory || displaced) ? state.CODE_32 : mode;
    const unaccessed = memory && instruction.unaccessed === true;
    const noSegment = displaced || unaccessed;
    const segmentSlot = flat ? state.ZERO : !long ? state.SEGMENT + d.segment * state.SEGMENT_SIZE : d.segment >= 4 ? state.SEGMENT + d.segment * state.SEGMENT_SIZE : state.ZERO;
    let rm: RmKind = 'register';
    let addressed = false;
    if (memory || absolute) {
      const plain = long && d.addressBits === 64 && !absolute;
      const needsMore = d.index !== NO_BASE || (segmentSlot !== state.ZERO && !noSegment);
      const direct = memory && instruction.hot === true && !displaced;
      const cut = direct && (flat || noSegment) && !long && d.addressBits === 32;
      rm = !memory ? 'register' : cut ? 'flat' : plain && needsMore && direct ? 'general' : 'simple';
      addressed = !cut && (!plain || (needsMore && rm === 'simple'));
    }
    const base = d.base === NO_BASE ? state.ZERO : d.base === RIP_BASE ? state.CODE_BASE : state.GPR + 8 * d.base;
    const index = d.index === NO_BASE ? state.ZERO : state.GPR + 8 * d.index;
    let displacement = d.displacement + (d.base === RIP_BASE ? nextIp : 0);
    if (instruction.addressAfterPop && d.base === 4) displacement += d.operandBits / 8;
    if (addressed) {
      const mask = d.addressBits === 16 ? 0xffff : -1;
      const name = noSegment
        ? d.addressBits === 64 ? 'offset' : 'offset-cut'
        : !long && !flat ? 'address-segmented' : absolute && d.addressBits === 64 ? 'address-absolute' : d.addressBits === 64 ? 'address' : 'address-cut';
      this.clear(op);
      this.setHandler(op, this.interpreter.microOp[name]);
      this.setIps(op, ip, nextIp);
      this.set(op, L.OP_BASE, absolute ? state.ZERO : base);
      this.set(op, L.OP_INDEX, absolute ? state.ZERO : index);
      this.set(op, L.OP_SCALE, d.scale);
      this.set(op, L.OP_SEGMENT, segmentSlot);
      this.set(op, L.OP_DISPLACEMENT, absolute ? d.immediate : displacement);
      this.set(op, L.OP_IMMEDIATE, name === 'address-absolute' ? d.immediate : mask);
      this.set(op, L.OP_IMMEDIATE + 4, name === 'address-absolute' ? d.immediateHigh : 0);
      const position = memory ? rmPosition : plan.absolute;
      const { size } = encoding.operands[position];
      this.set(op, L.OP_REGISTER, memoryBytes(size, d.operandBits));
      this.set(op, L.OP_REGISTER + 4, 'wm'.includes(instruction.access?.[position] ?? 'r') ? 1 : 0);
      op += L.OP_SIZE;
    }
    this.clear(op);
    this.setHandler(op, this.interpreter.handlerOf(d, handlerMode, rm));
    this.setIps(op, ip, nextIp);
    this.set(op, L.OP_SEGMENT, segmentSlot);
    if (addressed) {
      this.set(op, L.OP_BASE, state.EFFECTIVE_ADDRESS);
      this.set(op, L.OP_INDEX, state.ZERO);
      this.set(op, L.OP_SEGMENT, noSegment ? segmentSlot : state.ZERO);
    } else {
      this.set(op, L.OP_BASE, base);
      this.set(op, L.OP_INDEX, index);
      this.set(op, L.OP_SCALE, d.scale);
      this.set(op, L.OP_DISPLACEMENT, displacement);
    }
    let extra = 0;
    if (memory || absolute ? d.segment === 2 : instruction.modal === true && instruction.addressed !== true) extra |= L.STACK_OPERAND;
    if (memory && plan.usesStack) extra |= L.STACK_TOO;
    if (plan.isX87) {
      extra |= opcodeNote(d);
    }
    this.set16(op, L.OP_EXTRA, extra);
    if (displaced) {
      this.set(op, L.OP_IMMEDIATE, d.addressBits === 16 ? 0xffff : -1);
      this.set(op, L.OP_IMMEDIATE + 4, d.addressBits === 64 ? -1 : 0);
    }
    let immediates = 0;
    const { places, sources } = plan;
    const bits = plan.bits[d.operandBits >> 5];
    for (let i = 0; i < places.length; i++) {
      const field = L.OP_REGISTER + 4 * i;
      if (i === rmPosition) {
        if (!memory) this.set(op, field, registerSlot(places[i], d.rm, bits[i], d.rex));
        continue;
      }
      switch (sources[i]) {
        case Source.immediate:
          if (immediates++) this.set(op, field, d.immediate2);
          else {
            const far = encoding.operands[i].size === 'p';
            this.set(op, L.OP_IMMEDIATE, d.immediate);
            this.set(op, L.OP_IMMEDIATE + 4, far ? 0 : d.immediateHigh);
            if (far) this.set(op, L.OP_REGISTER + 12, d.immediate2);
          }
          break;
        case Source.target: {
          const target = nextIp + d.immediate;
          this.set(op, L.OP_IMMEDIATE, target);
          this.set(op, L.OP_IMMEDIATE + 4, target >> 31);
          this.set(op, L.OP_LINK, target >= 0 && target < PAGE && d.operandBits !== 16 ? L.LINK_UNKNOWN : L.LINK_OTHER_PAGE);
          break;
        }
        case Source.reg:
          this.set(op, field, registerSlot(places[i], d.reg, bits[i], d.rex));
          break;
        case Source.vvvv:
          this.set(op, field, registerSlot(places[i], d.vvvv, bits[i], d.rex));
          break;
        case Source.opcode:
          this.set(op, field, registerSlot(places[i], d.opcodeRegister, bits[i], d.rex));
          break;
        case Source.segment:
          this.set(op, field, d.reg & 7);
          break;
        case Source.stackIndex:
          this.set(op, field, d.opcodeRegister & 7);
          break;
        case Source.fixed:
          this.set(op, field, FIXED_REGISTERS[encoding.operands[i].code]);
          break;
      }
    }
    if (instruction.ends === 'block') this.set(op, L.OP_LINK_NEXT, nextIp < PAGE ? L.LINK_UNKNOWN : L.LINK_OTHER_PAGE);
    return op + L.OP_SIZE;
  }

  private remember(block: Block, start: number, bytes: number): void {
    const page = this.pageNumber(start);
    const list = this.pages.get(page);
    if (list) list.push(block);
    else {
      this.pages.set(page, [block]);
      this.onCodePage(start);
    }
    this.markLines(start, bytes);
  }

  private markLines(start: number, bytes: number): void {
    const offset = start - this.memory.ramBase;
    const word = (this.layout.codeLines + Math.floor(offset / PAGE) * 8) >> 2;
    for (let line = (offset % PAGE) >> 6; line <= ((offset % PAGE) + bytes - 1) >> 6; line++) this.words[word + (line >> 5)] |= 1 << (line & 31);
  }

  /** Makes the blocks stale that were decoded from any of `bytes` bytes at `linear`. The range lies in one page. */
  invalidate(linear: number, bytes: number): void {
    const page = this.pageNumber(linear);
    const list = this.pages.get(page);
    if (!list) return;
    const overlaps = (start: number, length: number): boolean => start < linear + bytes && linear < start + length;
    const stale = list.filter((b) => overlaps(b.start, b.bytes) || (b.secondBytes > 0 && overlaps(b.secondStart, b.secondBytes)));
    if (stale.length) this.drop(stale, page);
  }

  /** The page behind that of a block, which reaches into it, is another one now: the block is decoded anew. `op` is its page check. */
  secondPageChanged(op: number): void {
    const block = this.byOperation.get(op) ?? this.byOperation.get(op - L.OP_SIZE);
    if (block) this.drop([block], this.pageNumber(block.start));
  }

  /** Makes blocks stale; `page` is the one whose links to them are cut. */
  private drop(stale: readonly Block[], page: number): void {
    const dead = new Set<number>();
    for (const block of stale) {
      this.invalidatedBlocks++;
      dead.add(block.op);
      this.byOperation.delete(block.op);
      this.onStale(block);
      for (let i = 0; i < block.operations; i++) this.setHandler(block.op + i * L.OP_SIZE, this.interpreter.microOp.stale);
      if (this.blocks[block.mode].get(block.start) === block.op) this.blocks[block.mode].delete(block.start);
      for (const start of block.secondBytes > 0 ? [block.start, block.secondStart] : [block.start]) this.forget(block, start);
    }
    // Links to what is gone have to be looked up again.
    for (const block of this.pages.get(page) ?? []) {
      const last = block.op + (block.operations - 1) * L.OP_SIZE;
      for (const link of [L.OP_LINK, L.OP_LINK_NEXT]) if (dead.has(this.words[(last + link) >> 2])) this.set(last, link, L.LINK_UNKNOWN);
    }
  }

  private forget(block: Block, start: number): void {
    const page = this.pageNumber(start);
    const rest = (this.pages.get(page) ?? []).filter((b) => b !== block);
    const word = (this.layout.codeLines + page * 8) >> 2;
    this.words[word] = 0;
    this.words[word + 1] = 0;
    if (!rest.length) this.pages.delete(page);
    else this.pages.set(page, rest);
    const pageStart = this.memory.ramBase + page * PAGE;
    for (const b of rest) {
      if (b.start >= pageStart && b.start < pageStart + PAGE) this.markLines(b.start, b.bytes);
      if (b.secondBytes > 0 && b.secondStart >= pageStart && b.secondStart < pageStart + PAGE) this.markLines(b.secondStart, b.secondBytes);
    }
  }

  /** Drops everything. */
  flush(): void {
    for (const map of this.blocks) map.clear();
    this.pages.clear();
    this.byOperation.clear();
    // The lines of code, and the table of blocks behind them.
    this.words.fill(0, this.layout.codeLines >> 2, this.layout.operations >> 2);
    this.next = this.firstBlock;
    this.flushes++;
    this.onFlush();
  }

  private clear(op: number): void {
    // Faster than `fill` for so few.
    const { words } = this;
    const end = (op + L.OP_SIZE) >> 2;
    for (let i = op >> 2; i < end; i++) words[i] = 0;
  }

  private setHandler(op: number, handler: number): void {
    this.words[(op + L.OP_HANDLER) >> 2] = handler | (handler << 16);
  }

  private set(op: number, offset: number, value: number): void {
    this.words[(op + offset) >> 2] = value;
  }

  private set16(op: number, offset: number, value: number): void {
    this.memory.view.setInt16(op + offset, value, true);
  }

  private setIps(op: number, ip: number, nextIp: number): void {
    this.words[(op + L.OP_IP) >> 2] = ip | (nextIp << 16);
  }
}

/** What decoding wants to know of a form, found out once. */
interface Plan {
  /** Positions of operands O (an absolute address) and S (a segment register), or -1. */
  absolute: number;
  segment: number;
  usesStack: boolean;
  isX87: boolean;
  /** By operand: where its register lies, and what says which it is. */
  places: Place[];
  sources: Source[];
  /** Sizes of the operands in bits, by operand size (16, 32, 64). */
  bits: number[][];
}

/** General registers, XMM, MMX; or a register that is no slot of the state but a number. */
const Place = { general: 0, vector: 1, mmx: 2, number: 3 } as const;
type Place = (typeof Place)[keyof typeof Place];

/** Where an operand that is not ModRM's memory-or-register one comes from. */
const Source = { none: 0, immediate: 1, target: 2, reg: 3, vvvv: 4, opcode: 5, segment: 6, stackIndex: 7, fixed: 8 } as const;
type Source = (typeof Source)[keyof typeof Source];
const SOURCES: Readonly<Record<string, Source>> = {
  I: Source.immediate, sI: Source.immediate, J: Source.target, G: Source.reg, V: Source.reg, P: Source.reg, C: Source.reg, D: Source.reg,
  B: Source.vvvv, Z: Source.opcode, S: Source.segment, i: Source.stackIndex,
}; // biome-ignore format: a table
/** Registers that an opcode implies, by operand code. */
const FIXED_REGISTERS: Readonly<Record<string, number>> = {
  AX: state.RAX, eAX: state.RAX, AH: state.RAX + 1, DX: state.RDX, eDX: state.RDX, XMM0: state.XMM,
}; // biome-ignore format: a table

function makePlan({ instruction, encoding }: Form): Plan {
  const { operands } = encoding;
  return {
    absolute: operands.findIndex(({ code }) => code === 'O'),
    segment: operands.findIndex(({ code }) => code === 'S'),
    usesStack: STACK_USERS.has(instruction.mnemonic),
    isX87: encoding.map === 0 && (encoding.opcode & 0xf8) === 0xd8,
    places: operands.map(({ code }) => (CR_OR_DR.has(code) ? Place.number : 'VWU'.includes(code) ? Place.vector : 'PQN'.includes(code) ? Place.mmx : Place.general)),
    sources: operands.map(({ code }) => SOURCES[code] ?? (code in FIXED_REGISTERS ? Source.fixed : Source.none)),
    bits: ([16, 32, 64] as const).map((operandBits) => operands.map(({ size }) => sizeBits(size, operandBits))),
  };
}

/** Byte offset in the vCPU's state of register `number` as an operand of this kind. */
function registerSlot(place: Place, number: number, bits: number, rex: number): number {
  if (place === Place.number) return number;
  if (place === Place.vector) return state.XMM + 16 * number;
  if (place === Place.mmx) return state.FPR + 16 * (number & 7);
  // Without REX, 4 to 7 are AH, CH, DH and BH.
  if (bits === 8 && rex === 0 && number >= 4 && number < 8) return state.GPR + 8 * (number - 4) + 1;
  return state.GPR + 8 * number;
}
