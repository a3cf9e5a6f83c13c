/** Helpers of x87, MMX and SSE state: see helpers.ts. Images in guest memory are read and written whole, after all checks. */

import { xgetbv } from '../cpu/control-registers.ts';
import { Access, MMIO } from '../cpu/mmu.ts';
import { SseUnit } from '../cpu/sse-unit.ts';
import * as state from '../cpu/state.ts';
import { Cr0, Cr4, generalProtection, raise, undefinedOpcode, type Vcpu, Vector } from '../cpu/vcpu.ts';
import { ENVIRONMENT_BYTES, type EnvironmentFormat } from '../cpu/x87/environment.ts';
import { FXSAVE_BYTES, FxState, INITIAL_MXCSR } from '../cpu/x87/fxsave.ts';
import { X87, X87_OPERATIONS } from '../cpu/x87/x87.ts';
import type { Engine } from './engine.ts';
import type { Helpers } from './interpreter.ts';

/** XSAVE's area: legacy region and header; only x87 and SSE exist. SDM 1 13.4. */
const XSAVE_BYTES = FXSAVE_BYTES + 64;
const X87_STATE = 1;
const SSE_STATE = 2;
/** FXSAVE writes nothing behind XMM15. */
const FXSAVE_USED = 416;
const PAGE = 4096;
const XMM_AT = 160;
const FSAVE_REGISTERS = 80;
/** Fields of the header, the second of the compacted form only. */
const XSTATE_BV = FXSAVE_BYTES;
const XCOMP_BV = FXSAVE_BYTES + 8;
const COMPACTED = 1n << 63n;
const SAVE_OPERATIONS = ['xsave', 'xsaveopt', 'xsavec'] as const;
const STATE_OPERATIONS = ['fldenv', 'fnstenv', 'frstor', 'fnsave'] as const;

export function floatingPointHelpers(engine: Engine): Helpers {
  const { memory } = engine.memory;
  const x87 = new X87(memory.buffer);
  const fx = new FxState(memory.buffer);
  const sse = new SseUnit(memory.buffer);
  /** Images are put together in linear memory, where the FPU's half reads and writes them. */
  const { scratch } = engine;
  const { view, bytes: linear } = engine.memory;
  const at = (base: number): Vcpu => engine.vcpuAt(base);

  const access = (vcpu: Vcpu): number => (vcpu.cpl === 3 ? Access.user : 0);
  /** Goes through the pages of an image, bytes `from` to `to` of it: linear addresses (MMIO where no RAM is), where in the image, how much. */
  const byPages = (vcpu: Vcpu, address: bigint, from: number, to: number, kind: number, part: (at: number, offset: number, bytes: number) => void): void => {
    for (let offset = from; offset < to; ) {
      const start = BigInt.asIntN(64, address + BigInt(offset));
      const bytes = Math.min(to - offset, PAGE - Number(start & 0xfffn));
      part(vcpu.mmu.translate(vcpu.base, start, access(vcpu) | kind), offset, bytes);
      offset += bytes;
    }
  };
  const read = (vcpu: Vcpu, address: bigint, bytes: number): void =>
    byPages(vcpu, address, 0, bytes, Access.read, (from, offset, length) => {
      if (from === MMIO) linear.fill(0xff, scratch + offset, scratch + offset + length);
      else linear.copyWithin(scratch + offset, from, from + length);
    });
  const write = (vcpu: Vcpu, address: bigint, from: number, to: number): void =>
    byPages(vcpu, address, from, to, Access.write, (at, offset, length) => {
      if (at === MMIO) return;
      linear.copyWithin(at, scratch + offset, scratch + offset + length);
      vcpu.mmu.written(at, length);
    });
  const words = new Int32Array(memory.buffer);
  const isZero = (start: number, end: number): boolean => {
    for (let at = start >> 2; at < end >> 2; at++) if (words[at] !== 0) return false;
    return true;
  };
  /** Raises what writing would raise, before anything changes. */
  const checkWritable = (vcpu: Vcpu, address: bigint, bytes: number): void => {
    check(vcpu, address, bytes, Access.write);
  };
  /** Processors look at the last byte of an image first, once the address is canonical. */
  const check = (vcpu: Vcpu, address: bigint, bytes: number, kind: number): void => {
    const last = address + BigInt(bytes - 1);
    for (const end of vcpu.isCanonical(address) ? [last, address] : [address]) vcpu.mmu.translate(vcpu.base, BigInt.asIntN(64, end), access(vcpu) | kind);
  };
  const aligned = (vcpu: Vcpu, alignment: bigint): bigint => {
    const address = vcpu.argument(0);
    if (address & (alignment - 1n)) generalProtection();
    return address;
  };
  const xmmCount = (vcpu: Vcpu): number => (vcpu.code64 ? 16 : 8);
  const requireFpu = (vcpu: Vcpu): void => {
    if (vcpu.get64(state.CR0) & Cr0.em) undefinedOpcode();
    if (vcpu.get64(state.CR0) & Cr0.ts) raise(Vector.deviceNotAvailable);
  };
  /** The components asked for: EDX:EAX and XCR0. */
  const requireXsave = (vcpu: Vcpu): number => {
    if (!(vcpu.get64(state.CR4) & Cr4.osxsave)) undefinedOpcode();
    if (vcpu.get64(state.CR0) & Cr0.ts) raise(Vector.deviceNotAvailable);
    return vcpu.get32(state.RAX) & vcpu.get32(state.XCR0);
  };

  /** XINUSE: the components that are not in their initial state. MXCSR counts with AMD's processors. */
  const componentsInUse = (base: number): number => {
    const sse = !isZero(base + state.XMM, base + state.XMM + 256) || view.getUint32(base + state.MXCSR, true) !== INITIAL_MXCSR;
    return (fx.isX87Initial(base) ? 0 : X87_STATE) | (sse ? SSE_STATE : 0);
  };

  return {
    /** An SSE operation (`sseOperation`) on the operands in ARGUMENT. */
    sse: (base: number, operation: number, detail: number): void => {
      if (sse.execute(base, operation, detail)) return;
      if (at(base).get64(state.CR4) & Cr4.osxmmexcpt) raise(Vector.simd);
      undefinedOpcode();
    },

    /** An x87 operation with its ST number; the memory operand is in ARGUMENT 1 and 2. */
    x87: (base: number, operation: number): number => x87.execute(base, operation, base + state.ARGUMENT + 8),

    /** FLDENV, FNSTENV, FRSTOR, FNSAVE by number; the address is in ARGUMENT 0. */
    x87_state: (base: number, operation: number, bits: number): void => {
      const vcpu = at(base);
      const name = STATE_OPERATIONS[operation];
      const format = `${vcpu.protectedMode && !vcpu.virtual8086 ? 'protected' : 'real'}${bits}` as EnvironmentFormat;
      const bytes = ENVIRONMENT_BYTES[format] + (name === 'frstor' || name === 'fnsave' ? FSAVE_REGISTERS : 0);
      const address = vcpu.argument(0);
      const storing = name === 'fnstenv' || name === 'fnsave';
      if (storing) {
        // These begin at the beginning.
        checkWritable(vcpu, address, 1);
        checkWritable(vcpu, address, bytes);
      } else read(vcpu, address, bytes);
      x87.execute(base, X87_OPERATIONS[`${name}_${format}`], scratch);
      if (storing) write(vcpu, address, 0, bytes);
    },

    fxsave: (base: number, wide: number): void => {
      const vcpu = at(base);
      requireFpu(vcpu);
      const address = aligned(vcpu, 16n);
      checkWritable(vcpu, address, FXSAVE_BYTES);
      fx.fxsave(base, scratch, wide !== 0, xmmCount(vcpu));
      // What it does not save stays as it is, there and in the image, which is somebody else's.
      write(vcpu, address, 0, XMM_AT + 16 * xmmCount(vcpu));
    },
    fxrstor: (base: number, wide: number): void => {
      const vcpu = at(base);
      requireFpu(vcpu);
      const address = aligned(vcpu, 16n);
      check(vcpu, address, FXSAVE_BYTES, Access.read);
      read(vcpu, address, FXSAVE_BYTES);
      if (!fx.fxrstor(base, scratch, wide !== 0, xmmCount(vcpu))) generalProtection();
    },
    /** XSAVE, XSAVEOPT and XSAVEC by number. */
    xsave: (base: number, operation: number, wide: number): void => {
      const vcpu = at(base);
      const wanted = requireXsave(vcpu);
      const name = SAVE_OPERATIONS[operation];
      const address = aligned(vcpu, 64n);
      checkWritable(vcpu, address, 1);
      checkWritable(vcpu, address, XSAVE_BYTES);
      read(vcpu, address, XSAVE_BYTES);
      const inUse = componentsInUse(base);
      const saved = name === 'xsave' ? wanted : wanted & inUse;
      if (saved & X87_STATE) fx.saveX87(base, scratch, wide !== 0);
      // The compacted form has no MXCSR without the SSE component.
      if ((name === 'xsavec' ? saved : wanted) & SSE_STATE) fx.saveMxcsr(base, scratch);
      if (saved & SSE_STATE) fx.saveXmm(base, scratch, xmmCount(vcpu));
      const present = view.getBigUint64(scratch + XSTATE_BV, true);
      const others = name === 'xsavec' ? 0n : present & ~BigInt(wanted);
      view.setBigUint64(scratch + XSTATE_BV, others | BigInt(wanted & inUse), true);
      if (name === 'xsavec') view.setBigUint64(scratch + XCOMP_BV, COMPACTED | BigInt(wanted), true);
      write(vcpu, address, 0, FXSAVE_USED);
      write(vcpu, address, XSTATE_BV, name === 'xsavec' ? XCOMP_BV + 8 : XCOMP_BV);
    },
    xrstor: (base: number, wide: number): void => {
      const vcpu = at(base);
      const wanted = requireXsave(vcpu);
      read(vcpu, aligned(vcpu, 64n), XSAVE_BYTES);
      const present = view.getBigUint64(scratch + XSTATE_BV, true);
      const layout = view.getBigUint64(scratch + XCOMP_BV, true);
      const isCompacted = (layout & COMPACTED) !== 0n && vcpu.model.features.has('xsavec');
      const possible = isCompacted ? layout & ~COMPACTED : vcpu.get64(state.XCR0);
      const reserved = isCompacted ? possible & ~vcpu.get64(state.XCR0) : layout;
      if (reserved || present & ~possible) generalProtection();
      if (!isZero(scratch + XCOMP_BV + 8, scratch + (isCompacted ? XSAVE_BYTES : XCOMP_BV + 16))) generalProtection();
      const restored = wanted & Number(present);
      // Of the standard form MXCSR is loaded whenever SSE is asked for. What is asked for and not in the image goes to its initial state.
      if (wanted & SSE_STATE) {
        if (isCompacted && !(restored & SSE_STATE)) vcpu.set32(state.MXCSR, INITIAL_MXCSR);
        else if (!fx.restoreMxcsr(base, scratch)) generalProtection();
        if (!(restored & SSE_STATE)) linear.fill(0, scratch + XMM_AT, scratch + FXSAVE_USED);
        fx.restoreXmm(base, scratch, xmmCount(vcpu));
      }
      if (wanted & X87_STATE) {
        if (restored & X87_STATE) fx.restoreX87(base, scratch, wide !== 0);
        else fx.initializeX87(base);
      }
    },
    /** XCR0, or with XGETBV1 what of it is in use. */
    xgetbv: (base: number): void => {
      const vcpu = at(base);
      if (vcpu.get32(state.RCX) !== 1 || !vcpu.model.features.has('xgetbv1') || !(vcpu.get64(state.CR4) & Cr4.osxsave)) return xgetbv(vcpu);
      vcpu.set64(state.RAX, BigInt(vcpu.get32(state.XCR0) & componentsInUse(base)));
      vcpu.set64(state.RDX, 0n);
    },
  };
}
