/**
 * The 512-byte image of FXSAVE, which is the legacy area of XSAVE too: from and to a vCPU's state.
 * Source: SDM 1 10.5.1 and 13.4, APM 2 11.4.4; error pointers as AMD processors with CPUID's RstrFpErrPtrs do.
 * Alignment, CR0, CR4 and EFER.FFXSR are the caller's to look at.
 */

import { FCS, FDP, FDS, FIP, FOP, MXCSR, XMM } from '../state.ts';
import { ERROR_SUMMARY, INITIAL_CONTROL, POINTERS, RegisterStack } from './register-stack.ts';

export const FXSAVE_BYTES = 512;
/** Writable bits of MXCSR, as images tell it. */
export const MXCSR_MASK = 0xffff;
/** MXCSR after reset and FNINIT's counterpart in XRSTOR: all masked, to nearest. */
export const INITIAL_MXCSR = 0x1f80;

const FCW_AT = 0;
const FSW_AT = 2;
const FTW_AT = 4;
const FOP_AT = 6;
const FIP_AT = 8;
const FDP_AT = 16;
const MXCSR_AT = 24;
const MXCSR_MASK_AT = 28;
const ST_AT = 32;
const XMM_AT = 160;
const SLOT_BYTES = 16;

/** FOP has 11 bits: of the opcode's two bytes, the first one's upper five never differ. */
const FOP_MASK = 0x7ff;

/** Saves and restores the vCPU states of a linear memory; images lie in it too, at linear addresses. */
export class FxState {
  readonly #stack: RegisterStack;

  constructor(buffer: ArrayBufferLike) {
    this.#stack = new RegisterStack(buffer);
  }

  /** FXSAVE, with REX.W or without; of XMM registers 64-bit mode has 16, others 8. */
  fxsave(vcpuBase: number, image: number, rexW: boolean, xmmCount = 16): void {
    this.saveX87(vcpuBase, image, rexW);
    this.saveMxcsr(vcpuBase, image);
    this.saveXmm(vcpuBase, image, xmmCount);
  }

  /** FXRSTOR. False, with nothing restored, where the image's MXCSR has reserved bits set: #GP(0) is due. */
  fxrstor(vcpuBase: number, image: number, rexW: boolean, xmmCount = 16): boolean {
    if (!this.restoreMxcsr(vcpuBase, image)) return false;
    this.restoreX87(vcpuBase, image, rexW);
    this.restoreXmm(vcpuBase, image, xmmCount);
    return true;
  }

  /** The x87 component: bytes 0 to 23 and 32 to 159. Error pointers are saved only while an exception is pending. */
  saveX87(vcpuBase: number, image: number, rexW: boolean): void {
    const s = this.#stack;
    const { view } = s;
    const at = image >>> 0;
    s.attach(vcpuBase);
    view.setUint16(at + FCW_AT, s.control, true);
    view.setUint16(at + FSW_AT, s.status, true);
    view.setUint16(at + FTW_AT, s.tags, true);
    const pending = (s.status & ERROR_SUMMARY) !== 0;
    const field = (offset: number) => (pending ? view.getUint32(vcpuBase + offset, true) : 0);
    view.setUint16(at + FOP_AT, field(FOP) & FOP_MASK, true);
    view.setUint32(at + FIP_AT, field(FIP), true);
    view.setUint32(at + FIP_AT + 4, rexW ? field(FIP + 4) : field(FCS) & 0xffff, true);
    view.setUint32(at + FDP_AT, field(FDP), true);
    view.setUint32(at + FDP_AT + 4, rexW ? field(FDP + 4) : field(FDS) & 0xffff, true);
    for (let i = 0; i < 8; i++) {
      const from = s.st(i);
      const to = at + ST_AT + i * SLOT_BYTES;
      view.setInt32(to, s.words[from], true);
      view.setInt32(to + 4, s.words[from + 1], true);
      view.setInt32(to + 8, s.words[from + 2] & 0xffff, true);
      view.setInt32(to + 12, 0, true);
    }
  }

  restoreX87(vcpuBase: number, image: number, rexW: boolean): void {
    const s = this.#stack;
    const { view } = s;
    const at = image >>> 0;
    s.attach(vcpuBase);
    s.status = view.getUint16(at + FSW_AT, true);
    s.setControl(view.getUint16(at + FCW_AT, true));
    for (let i = 0; i < 8; i++) {
      const from = at + ST_AT + i * SLOT_BYTES;
      s.write(i, view.getInt32(from, true), view.getInt32(from + 4, true), view.getUint16(from + 8, true));
    }
    s.tags = view.getUint8(at + FTW_AT);
    s.release();
    view.setInt32(vcpuBase + FOP, view.getUint16(at + FOP_AT, true) & FOP_MASK, true);
    view.setUint32(vcpuBase + FIP, view.getUint32(at + FIP_AT, true), true);
    view.setUint32(vcpuBase + FIP + 4, rexW ? view.getUint32(at + FIP_AT + 4, true) : 0, true);
    view.setUint32(vcpuBase + FCS, rexW ? 0 : view.getUint16(at + FIP_AT + 4, true), true);
    view.setUint32(vcpuBase + FDP, view.getUint32(at + FDP_AT, true), true);
    view.setUint32(vcpuBase + FDP + 4, rexW ? view.getUint32(at + FDP_AT + 4, true) : 0, true);
    view.setUint32(vcpuBase + FDS, rexW ? 0 : view.getUint16(at + FDP_AT + 4, true), true);
  }

  /** As FNINIT, and with empty registers of value 0: what XRSTOR makes of an x87 component in its initial state. */
  initializeX87(vcpuBase: number): void {
    const s = this.#stack;
    s.attach(vcpuBase);
    for (let i = 0; i < 8; i++) s.write(i, 0, 0, 0);
    s.initialize();
    s.release();
  }

  /** Is the x87 component in its initial state, as XINUSE and XSAVEOPT ask? */
  isX87Initial(vcpuBase: number): boolean {
    const s = this.#stack;
    s.attach(vcpuBase);
    if (s.control !== INITIAL_CONTROL || s.status !== 0 || s.tags !== 0) return false;
    if (POINTERS.some((offset) => s.words[s.base + (offset >> 2)] !== 0)) return false;
    for (let i = 0; i < 8; i++) {
      const at = s.st(i);
      if ((s.words[at] | s.words[at + 1] | (s.words[at + 2] & 0xffff)) !== 0) return false;
    }
    return true;
  }

  /** MXCSR and its mask, which XSAVE writes with either of the SSE and AVX components. */
  saveMxcsr(vcpuBase: number, image: number): void {
    const { view } = this.#stack;
    view.setInt32((image >>> 0) + MXCSR_AT, view.getInt32(vcpuBase + MXCSR, true), true);
    view.setInt32((image >>> 0) + MXCSR_MASK_AT, MXCSR_MASK, true);
  }

  /** False, with nothing restored, where reserved bits are set. */
  restoreMxcsr(vcpuBase: number, image: number): boolean {
    const { view } = this.#stack;
    const mxcsr = view.getInt32((image >>> 0) + MXCSR_AT, true);
    if ((mxcsr & ~MXCSR_MASK) !== 0) return false;
    view.setInt32(vcpuBase + MXCSR, mxcsr, true);
    return true;
  }

  saveXmm(vcpuBase: number, image: number, xmmCount = 16): void {
    this.#copy((image >>> 0) + XMM_AT, vcpuBase + XMM, xmmCount * SLOT_BYTES);
  }

  restoreXmm(vcpuBase: number, image: number, xmmCount = 16): void {
    this.#copy(vcpuBase + XMM, (image >>> 0) + XMM_AT, xmmCount * SLOT_BYTES);
  }

  #copy(to: number, from: number, bytes: number): void {
    const { view } = this.#stack;
    for (let n = 0; n < bytes; n += 4) view.setInt32(to + n, view.getInt32(from + n, true), true);
  }
}
