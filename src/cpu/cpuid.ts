/**
 * CPUID: what is advertised is what is there. Features come from the vCPU's model, hypervisor leaves from the KVM side. SDM 2A CPUID,
 * APM 3 appendix E.
 */

import { type CpuModel, featureBits } from './cpu-model.ts';
import * as state from './state.ts';
import { Cr4, type Vcpu } from './vcpu.ts';

export interface CpuidResult { eax: number; ebx: number; ecx: number; edx: number }

/** What the machine around the processor decides. */
export interface CpuidEnvironment {
  vcpuCount: number;
  apicId: number;
  /** Its local APIC is on, by the MSR of its base. */
  apicEnabled: boolean;
  /** x2APIC and TSC-deadline offered. */
  x2apic: boolean;
  tscDeadline: boolean;
  /** The hypervisor's leaves from 0x40000000 on; undefined where it hides. */
  hypervisorLeaf(leaf: number): CpuidResult | undefined;
  hypervisorPresent: boolean;
}

const bits = (...numbers: number[]): number => numbers.reduce((all, bit) => (all | (1 << bit)) >>> 0, 0);
const HT = bits(28);
const APIC = bits(9);
const OSXSAVE = bits(27);
const X2APIC = bits(21);
const TSC_DEADLINE = bits(24);
const HYPERVISOR = bits(31);
const SEP = bits(11);
const CMP_LEGACY = bits(1);
/** What AMD's extended leaf repeats of leaf 1's EDX. */
const REPEATED = 0x0183_f3ff;
const virtualBits = (model: CpuModel): number => (model.features.has('la57') ? 57 : 48);
const XSAVE_AREA = 576;

const text = (s: string, at: number): number => s.charCodeAt(at) | (s.charCodeAt(at + 1) << 8) | (s.charCodeAt(at + 2) << 16) | (s.charCodeAt(at + 3) << 24);
const log2ceil = (n: number): number => (n <= 1 ? 0 : 32 - Math.clz32(n - 1));

export function signature(model: CpuModel): number {
  const extendedFamily = model.family > 15 ? model.family - 15 : 0;
  return (model.stepping | ((model.model & 15) << 4) | (Math.min(model.family, 15) << 8) | ((model.model >> 4) << 16) | (extendedFamily << 20)) >>> 0;
}

const ZERO: CpuidResult = { eax: 0, ebx: 0, ecx: 0, edx: 0 };

/** The registers that CPUID gives for a leaf and subleaf on this vCPU. */
export function cpuid(vcpu: Vcpu, leaf: number, subleaf: number, environment: CpuidEnvironment): CpuidResult {
  const { apicId, vcpuCount } = environment;
  const { model } = vcpu;
  switch (leaf) {
    case 0:
      return { eax: 0xd, ebx: text(model.vendor, 0), edx: text(model.vendor, 4), ecx: text(model.vendor, 8) };
    case 1: {
      const osxsave = vcpu.get64(state.CR4) & Cr4.osxsave ? OSXSAVE : 0;
      const ecx = featureBits(model, '1.ecx') | osxsave | (environment.x2apic ? X2APIC : 0) | (environment.tscDeadline ? TSC_DEADLINE : 0) | (environment.hypervisorPresent ? HYPERVISOR : 0);
      const edx = featureBits(model, '1.edx') & (environment.apicEnabled ? -1 : ~APIC);
      const count = vcpuCount > 1 ? 1 << log2ceil(vcpuCount) : 1;
      return { eax: signature(model), ebx: ((apicId & 0xff) << 24) | (Math.min(count, 255) << 16) | (8 << 8), ecx, edx: edx | (vcpuCount > 1 ? HT : 0) };
    }
    case 7:
      if (subleaf !== 0) return ZERO;
      return { eax: 0, ebx: featureBits(model, '7.ebx'), ecx: featureBits(model, '7.ecx'), edx: featureBits(model, '7.edx') };
    case 0xb: {
      // One thread a core, all cores in one package.
      const shift = log2ceil(vcpuCount);
      if (subleaf === 0) return { eax: 0, ebx: 1, ecx: 0x100, edx: apicId };
      if (subleaf === 1) return { eax: shift, ebx: vcpuCount, ecx: 0x201, edx: apicId };
      return { eax: 0, ebx: 0, ecx: subleaf & 0xff, edx: apicId };
    }
    case 0xd:
      if (!model.features.has('xsave') || subleaf > 1) return ZERO;
      if (subleaf === 0) return { eax: 3, ebx: XSAVE_AREA, ecx: XSAVE_AREA, edx: 0 };
      return { eax: featureBits(model, 'd.1.eax'), ebx: model.features.has('xsavec') ? XSAVE_AREA : 0, ecx: 0, edx: 0 };
    case 0x8000_0000:
      return { eax: 0x8000_0008, ebx: text(model.vendor, 0), edx: text(model.vendor, 4), ecx: text(model.vendor, 8) };
    case 0x8000_0001: {
      const repeated = featureBits(model, '1.edx') & REPEATED & ~SEP;
      return { eax: signature(model), ebx: 0, ecx: featureBits(model, '80000001.ecx') | (vcpuCount > 1 ? CMP_LEGACY : 0), edx: (environment.apicEnabled ? repeated : repeated & ~APIC) | featureBits(model, '80000001.edx') };
    }
    case 0x8000_0002:
    case 0x8000_0003:
    case 0x8000_0004: {
      const brand = model.brand.padEnd(48, '\0');
      const at = (leaf - 0x8000_0002) * 16;
      return { eax: text(brand, at), ebx: text(brand, at + 4), ecx: text(brand, at + 8), edx: text(brand, at + 12) };
    }
    case 0x8000_0005:
      return { eax: 0x01ff_01ff, ebx: 0x01ff_01ff, ecx: 0x4002_0140, edx: 0x4002_0140 };
    case 0x8000_0006:
      return { eax: 0, ebx: 0x4200_4200, ecx: 0x0200_8140, edx: 0 };
    case 0x8000_0007:
      return { eax: 0, ebx: 0, ecx: 0, edx: featureBits(model, '80000007.edx') };
    case 0x8000_0008:
      return { eax: model.physicalAddressBits | (virtualBits(model) << 8), ebx: 0, ecx: (vcpuCount - 1) | (log2ceil(vcpuCount) << 12), edx: 0 };
    default:
      return (leaf >>> 28 === 4 && environment.hypervisorLeaf(leaf)) || ZERO;
  }
}
