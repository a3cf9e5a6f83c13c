/**
 * The engine as a target of the recorded vectors: one vCPU at CPL 3 in 64-bit mode, the windows of machine-state.ts mapped by
 * 4-KiB user pages, control registers as Linux has them. Memory lies in RAM as it lies in the vectors' image.
 */

import { setCpl, setSegment } from '../../src/cpu/segments.ts';
import { type CpuModel, parseCpuModel } from '../../src/cpu/cpu-model.ts';
import { resetVcpu } from '../../src/cpu/control-registers.ts';
import * as state from '../../src/cpu/state.ts';
import { Cr0, Cr4, Efer, type Vcpu, Vector } from '../../src/cpu/vcpu.ts';
import { Engine } from '../../src/engine/engine.ts';
import type { Environment } from '../../src/engine/environment.ts';
import type { JitClock, JitReport } from '../../src/engine/jit/jit-statistics.ts';
import { layOut } from '../../src/engine/layout.ts';
import { GuestMemory } from '../../src/memory/guest-memory.ts';
import { CODE, DESCRIPTORS, MEMORY_SIZE, SELECTORS, WINDOWS, Word } from './machine-state.ts';
import type { ConformanceTarget } from './replay.ts';
import type { MachineState, Outcome, Vector as ConformanceVector } from './vector-file.ts';

const RAM_BYTES = 1 << 20;
const PAGE_TABLES = 0x1000;
/** Where the windows' memory lies in RAM. */
export const IMAGE = 0x10000;
const GDT = { physical: 0xf_f000, virtual: 0xffff_fe00_0000_0000n };
const OPERATION_BYTES = 8 << 20;
const PAGE = 4096;
const [PRESENT, WRITABLE, USER, NO_EXECUTE] = [1n, 2n, 4n, 1n << 63n];

const CODE64 = 0x00a0_fb00;
const DATA = 0x00c0_f300;

/** All features but what the recorded processor lacks: with 5-level paging bases have 57 bits. */
const RECORDED = (parseCpuModel('max,-la57') as { ok: true; value: CpuModel }).value;

/** The machine around the engine, which nothing but `parts` of it is reached of. */
export function surroundings(parts: Partial<Environment> = {}): Environment {
  return new Proxy({ model: RECORDED, ...parts } as Environment, {
    get: (target, name) =>
      Reflect.get(target, name) ??
      (() => {
        throw new Error(`an instruction of user mode asks the machine: ${String(name)}`);
      }),
  });
}

/** Maps the windows and the descriptor table; gives the physical address of the top table. */
function mapWindows(memory: GuestMemory): bigint {
  const table = (physical: number): number => memory.linear(physical, PAGE);
  let free = PAGE_TABLES + PAGE;
  const map = (virtual: bigint, physical: number, rights: bigint): void => {
    let at = PAGE_TABLES;
    for (let level = 3; level > 0; level--) {
      const entry = table(at) + 8 * Number((virtual >> BigInt(12 + 9 * level)) & 511n);
      if (memory.view.getBigUint64(entry, true) === 0n) {
        memory.view.setBigUint64(entry, BigInt(free) | PRESENT | WRITABLE | USER, true);
        free += PAGE;
      }
      at = Number(memory.view.getBigUint64(entry, true) & ~0xfffn);
    }
    memory.view.setBigUint64(table(at) + 8 * Number((virtual >> 12n) & 511n), BigInt(physical) | rights, true);
  };
  for (const { address, size, offset, writable, executable } of WINDOWS) {
    const rights = PRESENT | USER | (writable ? WRITABLE : 0n) | (executable ? 0n : NO_EXECUTE);
    for (let page = 0; page < size; page += PAGE) map(BigInt(address + page), IMAGE + offset + page, rights);
  }
  map(GDT.virtual, GDT.physical, PRESENT | NO_EXECUTE);
  DESCRIPTORS.forEach((descriptor, i) => memory.view.setBigUint64(table(GDT.physical) + 8 * i, descriptor, true));
  return BigInt(PAGE_TABLES);
}

function enterUserMode(vcpu: Vcpu, topTable: bigint): void {
  resetVcpu(vcpu, false);
  vcpu.set64(state.CR0, Cr0.pe | Cr0.mp | Cr0.et | Cr0.ne | Cr0.wp | Cr0.am | Cr0.pg);
  vcpu.set64(state.CR3, topTable);
  vcpu.set64(state.CR4, Cr4.pae | Cr4.pge | Cr4.osfxsr | Cr4.osxmmexcpt | Cr4.fsgsbase | Cr4.osxsave);
  vcpu.set64(state.XCR0, 3n);
  vcpu.set64(state.EFER, Efer.sce | Efer.lme | Efer.lma | Efer.nxe);
  const { es, cs, ss, ds, fs, gs } = SELECTORS;
  [es, cs, ss, ds, fs, gs].forEach((selector, segment) => {
    const attributes = selector === cs ? CODE64 : selector === ss ? DATA : 0;
    setSegment(vcpu, segment, selector, { base: 0n, limit: 0xffff_ffff, attributes });
  });
  vcpu.set64(state.GDTR_BASE, GDT.virtual);
  vcpu.set32(state.GDTR_LIMIT, 8 * DESCRIPTORS.length - 1);
  // No ports for users.
  vcpu.set32(state.TR + state.SEGMENT_LIMIT, 0);
  setCpl(vcpu, 3);
  vcpu.mmu.flushAll(vcpu.base);
  vcpu.mmu.contextChanged(vcpu.base);
}

export class EngineTarget implements ConformanceTarget {
  readonly name = 'engine';
  protected readonly memory: GuestMemory;
  protected readonly engine: Engine;
  protected readonly vcpu: Vcpu;
  protected readonly outcome: Outcome = {
    fault: undefined, registers: new BigUint64Array(Word.count), memory: new Uint8Array(MEMORY_SIZE),
  };

  /** `compiled`: every instruction is compiled as a region of its own first; 'force': blocks, as they are met. `jitClock` makes it count what its code does. */
  constructor(compiled: boolean | 'force' = false, jitClock?: JitClock, environment = surroundings()) {
    const layout = layOut(1, RAM_BYTES, OPERATION_BYTES);
    this.memory = new GuestMemory({ ramBytes: RAM_BYTES, arenaBytes: layout.arenaBytes });
    this.engine = new Engine(this.memory, layout, environment, compiled, jitClock);
    this.engine.compilesSteps = compiled === true;
    this.vcpu = this.engine.vcpus[0];
    enterUserMode(this.vcpu, mapWindows(this.memory));
  }

  /** What compiled code has done of all that was run: only of a target that counts. */
  get jitReport(): JitReport | undefined {
    return this.engine.jit?.statistics.report(0, 0);
  }

  /** Where instructions are compiled: this one, together with others. */
  prepare({ input }: ConformanceVector): void {
    if (!this.engine.compilesSteps) return;
    this.memory.slice(IMAGE + CODE.offset, CODE.size).set(input.memory.subarray(CODE.offset, CODE.offset + CODE.size));
    this.loadRegisters(input.registers);
    this.engine.prepareStep(this.vcpu);
  }

  run({ input }: ConformanceVector): Outcome {
    this.load(input);
    const fault = this.engine.stepInstruction(this.vcpu);
    this.outcome.fault = fault && {
      vector: fault.vector,
      errorCode: Math.max(0, fault.code),
      address: fault.vector === Vector.pageFault ? this.vcpu.get64(state.CR2) : 0n,
    };
    this.save();
    return this.outcome;
  }

  protected load({ registers, memory }: MachineState): void {
    this.memory.write(IMAGE, memory);
    this.loadRegisters(registers);
  }

  private loadRegisters(registers: BigUint64Array): void {
    const { vcpu, memory } = this;
    const bytes = new Uint8Array(registers.buffer, registers.byteOffset, registers.byteLength);
    memory.bytes.set(bytes.subarray(8 * Word.gpr, 8 * (Word.gpr + 16)), vcpu.base + state.GPR);
    memory.bytes.set(bytes.subarray(8 * Word.xmm, 8 * (Word.xmm + 32)), vcpu.base + state.XMM);
    for (let i = 0; i < 8; i++) {
      vcpu.set64(state.FPR + 16 * i, registers[Word.significand + i]);
      vcpu.set64(state.FPR + 16 * i + 8, registers[Word.exponent + i]);
    }
    for (const [word, offset] of WORDS32) vcpu.set32(offset, Number(registers[word]));
    for (const offset of [state.FIP, state.FDP]) vcpu.set64(offset, 0n);
    for (const offset of [state.FOP, state.FCS, state.FDS]) vcpu.set32(offset, 0);
    vcpu.set64(state.FS, registers[Word.fsBase]);
    vcpu.set64(state.GS, registers[Word.gsBase]);
    vcpu.rip = registers[Word.rip];
    vcpu.rflags = registers[Word.rflags];
  }

  protected save(): void {
    const { vcpu, memory } = this;
    const { registers } = this.outcome;
    const bytes = new Uint8Array(registers.buffer);
    const at = (offset: number, size: number): Uint8Array => memory.bytes.subarray(vcpu.base + offset, vcpu.base + offset + size);
    bytes.set(at(state.GPR, 128), 8 * Word.gpr);
    bytes.set(at(state.XMM, 256), 8 * Word.xmm);
    for (let i = 0; i < 8; i++) {
      registers[Word.significand + i] = vcpu.get64(state.FPR + 16 * i);
      registers[Word.exponent + i] = vcpu.get64(state.FPR + 16 * i + 8) & 0xffffn;
    }
    for (const [word, offset] of WORDS32) registers[word] = BigInt(vcpu.get32(offset));
    registers[Word.fsBase] = vcpu.get64(state.FS);
    registers[Word.gsBase] = vcpu.get64(state.GS);
    registers[Word.rip] = vcpu.rip;
    registers[Word.rflags] = vcpu.rflags;
    this.outcome.memory.set(memory.slice(IMAGE, MEMORY_SIZE));
  }
}

/** Words of a vector that 32-bit words of the state hold. */
const WORDS32 = [[Word.mxcsr, state.MXCSR], [Word.fcw, state.FCW], [Word.fsw, state.FSW], [Word.ftw, state.FTW]] as const;
