/**
 * The x87's register stack, status and tags where a vCPU's state keeps them in linear memory, and the ways
 * instructions report exceptions there. Source: SDM 1 8.1 and 8.5. Layout: cpu/state.ts.
 */

import { FCS, FCW, FDP, FDS, FIP, FOP, FPR, FSW, FTW } from '../state.ts';
import {
  classify,
  DENORMAL,
  Float80,
  INDEFINITE_HIGH,
  INDEFINITE_SIGN_EXPONENT,
  INVALID,
  ALL_EXCEPTIONS,
  ROUNDED_UP,
  ZERO_DIVIDE,
} from './float80.ts';

/** FSW: an invalid operation was a stack fault; C1 then says whether it was an overflow. */
export const STACK_FAULT = 1 << 6;
/** FSW: an unmasked exception is pending. B mirrors it. */
export const ERROR_SUMMARY = 1 << 7;
export const BUSY = 1 << 15;
export const C0 = 1 << 8;
export const C1 = ROUNDED_UP;
export const C2 = 1 << 10;
export const C3 = 1 << 14;
export const TOP_SHIFT = 11;
const TOP = 7 << TOP_SHIFT;

/** FCW after FINIT: all masked, 64 bits, to nearest. */
export const INITIAL_CONTROL = 0x37f;
/** FCW bits that can be written; bit 6 always reads as set. */
export const CONTROL_WRITABLE = 0x1f3f;
export const CONTROL_FIXED = 0x40;

/** Exceptions found before an operation is performed: unmasked, they keep it from being performed. */
const BEFORE = INVALID | DENORMAL | ZERO_DIVIDE;

/** The words that say where the last operation and its operand were. */
export const POINTERS = [FOP, FIP, FIP + 4, FCS, FDP, FDP + 4, FDS];

export class RegisterStack {
  readonly view: DataView;
  readonly words: Int32Array;
  readonly float = new Float80();
  /** The word index of the vCPU whose stack this is now. */
  base = 0;
  /** FSW while an instruction runs; `attach` and `release` carry it from and to the state. */
  status = 0;
  /** False where an unmasked exception kept the instruction from storing its memory operand. */
  stored = true;

  constructor(buffer: ArrayBufferLike) {
    this.view = new DataView(buffer);
    this.words = new Int32Array(buffer, 0, buffer.byteLength >>> 2);
  }

  attach(vcpuBase: number): void {
    this.base = vcpuBase >>> 2;
    this.status = this.words[this.base + (FSW >> 2)];
  }

  release(): void {
    this.words[this.base + (FSW >> 2)] = this.status;
  }

  get control(): number {
    return this.words[this.base + (FCW >> 2)];
  }

  /** Loads FCW; exceptions noted before become pending where that unmasks them. */
  setControl(value: number): void {
    this.words[this.base + (FCW >> 2)] = (value & CONTROL_WRITABLE) | CONTROL_FIXED;
    this.summarize();
  }

  /** Recomputes ES and B from flags and masks. */
  summarize(): void {
    const pending = (this.status & ~this.control & ALL_EXCEPTIONS) !== 0;
    this.status = (this.status & ~(ERROR_SUMMARY | BUSY)) | (pending ? ERROR_SUMMARY | BUSY : 0);
  }

  get tags(): number {
    return this.words[this.base + (FTW >> 2)];
  }

  set tags(value: number) {
    this.words[this.base + (FTW >> 2)] = value;
  }

  get top(): number {
    return (this.status >> TOP_SHIFT) & 7;
  }

  set top(value: number) {
    this.status = (this.status & ~TOP) | ((value & 7) << TOP_SHIFT);
  }

  /** FNINIT: everything but the registers' contents. */
  initialize(): void {
    this.status = 0;
    this.setControl(INITIAL_CONTROL);
    this.tags = 0;
    for (const offset of POINTERS) this.words[this.base + (offset >> 2)] = 0;
  }

  /** Word index of ST(i): low and high half of the significand, then sign and exponent. */
  st(i: number): number {
    return this.base + (FPR >> 2) + (((this.top + i) & 7) << 2);
  }

  isEmpty(i: number): boolean {
    return ((this.tags >> ((this.top + i) & 7)) & 1) === 0;
  }

  /** Writes ST(i), which is in use from then on. */
  write(i: number, low: number, high: number, signExponent: number): void {
    const at = this.st(i);
    this.words[at] = low;
    this.words[at + 1] = high;
    this.words[at + 2] = signExponent;
    this.tags |= 1 << ((this.top + i) & 7);
  }

  /** Writes the arithmetic unit's result to ST(i). */
  writeResult(i: number): void {
    this.write(i, this.float.low, this.float.high, this.float.signExponent);
  }

  writeIndefinite(i: number): void {
    this.write(i, 0, INDEFINITE_HIGH, INDEFINITE_SIGN_EXPONENT);
  }

  free(i: number): void {
    this.tags &= ~(1 << ((this.top + i) & 7));
  }

  pop(): void {
    this.free(0);
    this.top++;
  }

  /**
   * Notes what an operation raised, C1 among it. False where an exception found before the operation is unmasked:
   * then nothing but it is noted, and the operation must leave its destination and the stack alone.
   */
  settle(flags: number): boolean {
    const unmasked = flags & ~this.control & ALL_EXCEPTIONS;
    const suppressed = (unmasked & BEFORE) !== 0;
    const noted = suppressed ? flags & (BEFORE | STACK_FAULT | ((flags & STACK_FAULT) !== 0 ? C1 : 0)) : flags;
    this.status = (this.status & ~C1) | noted | (unmasked !== 0 ? ERROR_SUMMARY | BUSY : 0);
    return !suppressed;
  }

  /** A source register is empty. As `settle`. */
  underflow(): boolean {
    return this.settle(INVALID | STACK_FAULT);
  }

  /** Pushes the arithmetic unit's result, unmasked exceptions or not if they are `tolerated`. */
  pushResult(tolerated = 0): void {
    if (!this.isEmpty(-1)) return this.overflow();
    if (!this.settle(this.float.flags) && (this.float.flags & ~tolerated) !== 0) return;
    this.top--;
    this.writeResult(0);
  }

  /** There is no room to push to. */
  overflow(): void {
    if (!this.settle(INVALID | STACK_FAULT | C1)) return;
    this.top--;
    this.writeIndefinite(0);
  }

  classify(i: number): number {
    const at = this.st(i);
    return classify(this.words[at], this.words[at + 1], this.words[at + 2]);
  }
}
