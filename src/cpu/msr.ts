/**
 * Model-specific registers that belong to the processor itself; the APIC's, KVM's and time's are asked of the machine.
 * SDM 4, APM 2 appendix A. Limits: MTRRs and machine-check registers hold values and do nothing.
 */

import { updateCodeMode } from './segments.ts';
import * as state from './state.ts';
import { Cr0, Efer, type Vcpu } from './vcpu.ts';

export const Msr = {
  tsc: 0x10, apicBase: 0x1b, tscAdjust: 0x3b, microcode: 0x8b, mtrrCap: 0xfe, sysenterCs: 0x174, sysenterEsp: 0x175, sysenterEip: 0x176, mcgCap: 0x179, mcgStatus: 0x17a,
  miscEnable: 0x1a0, pat: 0x277, mtrrDefault: 0x2ff, tscDeadline: 0x6e0, x2apic: 0x800, x2apicEnd: 0x8ff,
  efer: 0xc000_0080, star: 0xc000_0081, lstar: 0xc000_0082, cstar: 0xc000_0083, sfmask: 0xc000_0084, fsBase: 0xc000_0100, gsBase: 0xc000_0101, kernelGsBase: 0xc000_0102, tscAux: 0xc000_0103,
  syscfg: 0xc001_0010, hwcr: 0xc001_0015, interruptPending: 0xc001_0055, patchLevel: 0x8b, decodeConfig: 0xc001_1029,
} as const; // biome-ignore format: a table

const PLAIN: Record<number, { offset: number; check: 'any' | 'canonical' | 'low32' }> = {
  [Msr.sysenterCs]: { offset: state.SYSENTER_CS, check: 'any' },
  [Msr.sysenterEsp]: { offset: state.SYSENTER_ESP, check: 'canonical' },
  [Msr.sysenterEip]: { offset: state.SYSENTER_EIP, check: 'canonical' },
  [Msr.star]: { offset: state.STAR, check: 'any' },
  [Msr.lstar]: { offset: state.LSTAR, check: 'canonical' },
  [Msr.cstar]: { offset: state.CSTAR, check: 'canonical' },
  [Msr.sfmask]: { offset: state.SFMASK, check: 'low32' },
  [Msr.fsBase]: { offset: state.FS, check: 'canonical' },
  [Msr.gsBase]: { offset: state.GS, check: 'canonical' },
  [Msr.kernelGsBase]: { offset: state.KERNEL_GS_BASE, check: 'canonical' },
  [Msr.tscAux]: { offset: state.TSC_AUX, check: 'low32' },
};

const MTRR_VARIABLE = { first: 0x200, last: 0x20f };
const MTRR_FIXED = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
/** Read as what they hold after reset, written without effect: what Linux touches on AMD processors. */
const INERT: ReadonlyMap<number, bigint> = new Map([
  [Msr.microcode, 0x0100_0065n], [Msr.mtrrCap, 0x508n], [Msr.mcgCap, 0n], [Msr.mcgStatus, 0n], [Msr.syscfg, 0n], [Msr.hwcr, 0x0100_0000n], [Msr.interruptPending, 0n], [Msr.decodeConfig, 2n],
]); // biome-ignore format: a table

/** MSRs that hold a value and nothing else, a vCPU each. */
export class InertMsrs {
  private readonly values = new Map<number, bigint>();

  read(msr: number): bigint | undefined {
    const stored = this.values.get(msr);
    if (stored !== undefined) return stored;
    const known = INERT.get(msr);
    if (known !== undefined) return known;
    const isMtrr = msr === Msr.mtrrDefault || (msr >= MTRR_VARIABLE.first && msr <= MTRR_VARIABLE.last) || MTRR_FIXED.includes(msr);
    return isMtrr ? (msr === Msr.mtrrDefault ? 0xc06n : MTRR_FIXED.includes(msr) ? 0x0606_0606_0606_0606n : 0n) : undefined;
  }

  /** A register that the machine around the processor has it have. */
  define(msr: number, value: bigint): void {
    this.values.set(msr, value);
  }

  /** False where there is no such register. */
  write(msr: number, value: bigint): boolean {
    if (this.read(msr) === undefined || msr === Msr.mtrrCap || msr === Msr.mcgCap) return false;
    if (msr !== Msr.microcode) this.values.set(msr, value);
    return true;
  }
}

function plainOf(vcpu: Vcpu, msr: number): (typeof PLAIN)[number] | undefined {
  const { features } = vcpu.model;
  return msr === Msr.tscAux && !features.has('rdtscp') && !features.has('rdpid') ? undefined : PLAIN[msr];
}

/** The value of a processor MSR, or undefined where it is not one of these. */
export function readCpuMsr(vcpu: Vcpu, msr: number): bigint | undefined {
  const plain = plainOf(vcpu, msr);
  if (plain) return vcpu.get64(plain.offset);
  if (msr === Msr.efer) return vcpu.get64(state.EFER);
  if (msr === Msr.pat) return vcpu.get64(state.PAT);
  return undefined;
}

/** Writes a processor MSR: 'done', 'gp' for a value it does not take, 'unknown' where it is not one of these. */
export function writeCpuMsr(vcpu: Vcpu, msr: number, value: bigint): 'done' | 'gp' | 'unknown' {
  const plain = plainOf(vcpu, msr);
  if (plain) {
    if ((plain.check === 'canonical' && !vcpu.isCanonicalBase(value)) || (plain.check === 'low32' && value >> 32n)) return 'gp';
    vcpu.set64(plain.offset, value);
    return 'done';
  }
  if (msr === Msr.efer) return writeEfer(vcpu, value);
  if (msr === Msr.pat) {
    for (let i = 0n; i < 8n; i++) {
      const type = (value >> (8n * i)) & 0xffn;
      if (type > 7n || type === 2n || type === 3n) return 'gp';
    }
    vcpu.set64(state.PAT, value);
    return 'done';
  }
  return 'unknown';
}

function writeEfer(vcpu: Vcpu, value: bigint): 'done' | 'gp' {
  if (value & ~(Efer.sce | Efer.lme | Efer.lma | Efer.nxe)) return 'gp';
  const old = vcpu.get64(state.EFER);
  if ((old ^ value) & Efer.lme && vcpu.get64(state.CR0) & Cr0.pg) return 'gp';
  // LMA is the processor's.
  vcpu.set64(state.EFER, (value & ~Efer.lma) | (old & Efer.lma));
  if ((old ^ value) & Efer.nxe) vcpu.mmu.flushAll(vcpu.base);
  updateCodeMode(vcpu);
  return 'done';
}
