/** Everything of a vCPU that a program or its kernel could see, as named words, whatever form the engine keeps it in. */

import * as state from '../../src/cpu/state.ts';
import type { Vcpu } from '../../src/cpu/vcpu.ts';
import { FXSAVE_BYTES, FxState } from '../../src/cpu/x87/fxsave.ts';
import type { Machine } from '../../src/machine/machine.ts';

const GENERAL = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'];
const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'];
const WORDS_64: Record<string, number> = {
  rip: state.RIP, fip: state.FIP, fdp: state.FDP, gdtr: state.GDTR_BASE, idtr: state.IDTR_BASE, cr0: state.CR0, cr2: state.CR2, cr3: state.CR3, cr4: state.CR4,
  efer: state.EFER, star: state.STAR, lstar: state.LSTAR, cstar: state.CSTAR, sfmask: state.SFMASK, kernel_gs_base: state.KERNEL_GS_BASE, sysenter_cs: state.SYSENTER_CS,
  sysenter_esp: state.SYSENTER_ESP, sysenter_eip: state.SYSENTER_EIP, pat: state.PAT, tsc_offset: state.TSC_OFFSET, xcr0: state.XCR0,
};
const WORDS_32: Record<string, number> = {
  fop: state.FOP, fcs: state.FCS, fds: state.FDS, gdtr_limit: state.GDTR_LIMIT, idtr_limit: state.IDTR_LIMIT, tsc_aux: state.TSC_AUX, cpl: state.CPL, activity: state.ACTIVITY,
  shadow: state.INTERRUPT_SHADOW, nmi_blocked: state.NMI_BLOCKED, code_mode: state.CODE_MODE, step_next: state.STEP_NEXT,
};
/** Below the arena, where nothing is, and behind the helpers' scratch memory. */
const FX_IMAGE = 2048;

const NAMES: string[] = [
  ...GENERAL, 'rflags', ...Object.keys(WORDS_64), ...Object.keys(WORDS_32), ...Array.from({ length: 8 }, (_, i) => `dr${i}`), ...Array.from({ length: 4 }, (_, i) => `pdpte${i}`),
  ...SEGMENTS.flatMap((name) => [`${name}.base`, `${name}.limit`, `${name}.selector`, `${name}.attributes`]),
  ...Array.from({ length: FXSAVE_BYTES / 8 }, (_, i) => fxName(8 * i)), 'cycles', 'retired',
];

/** Where in FXSAVE's image a word is, as registers are called. */
function fxName(offset: number): string {
  const half = offset % 16 ? '.high' : '.low';
  if (offset >= 160 && offset < 416) return `xmm${(offset - 160) >> 4}${half}`;
  if (offset >= 32 && offset < 160) return `st${(offset - 32) >> 4}${half}`;
  return `fxsave+${offset}`;
}

/** The words of `VcpuWords.read`, by name. */
export const VCPU_WORDS: readonly string[] = NAMES;

/** Reads the vCPUs of one machine. */
export class VcpuWords {
  private readonly machine: Machine;
  private readonly fx: FxState;

  constructor(machine: Machine) {
    this.machine = machine;
    this.fx = new FxState(machine.memory.memory.buffer);
  }

  read(vcpu: Vcpu): bigint[] {
    const words: bigint[] = [];
    for (let i = 0; i < 16; i++) words.push(vcpu.register(i));
    words.push(vcpu.rflags);
    for (const offset of Object.values(WORDS_64)) words.push(vcpu.get64(offset));
    for (const offset of Object.values(WORDS_32)) words.push(BigInt(vcpu.get32(offset)));
    for (let i = 0; i < 8; i++) words.push(vcpu.get64(state.DR + 8 * i));
    for (let i = 0; i < 4; i++) words.push(vcpu.get64(state.PDPTE + 8 * i));
    for (let i = 0; i < SEGMENTS.length; i++) {
      const at = state.SEGMENT + i * state.SEGMENT_SIZE;
      words.push(vcpu.get64(at), BigInt(vcpu.get32(at + state.SEGMENT_LIMIT)), BigInt(vcpu.get32(at + state.SEGMENT_SELECTOR)), BigInt(vcpu.get32(at + state.SEGMENT_ATTRIBUTES)));
    }
    this.fx.fxsave(vcpu.base, FX_IMAGE, true);
    for (let i = 0; i < FXSAVE_BYTES; i += 8) words.push(this.machine.memory.view.getBigUint64(FX_IMAGE + i, true));
    words.push(BigInt(Math.round(this.machine.vcpuCycles[vcpu.index])), BigInt(this.machine.engine.retired(vcpu)));
    return words;
  }
}
