/**
 * CPUID: what is advertised is what is there. The model is an AMD processor of x86-64-v2 level; hypervisor leaves come
 * from the KVM side. SDM 2A CPUID, APM 3 appendix E.
 */

import * as state from './state.ts';
import { Cr4, type Vcpu } from './vcpu.ts';

export interface CpuidResult { eax: number; ebx: number; ecx: number; edx: number }

export interface CpuModel {
  vendor: string;
  brand: string;
  family: number;
  model: number;
  stepping: number;
}

export const DEFAULT_MODEL: CpuModel = { vendor: 'AuthenticAMD', brand: 'Exitless x86-64-v2 virtual CPU', family: 0xf, model: 0x6b, stepping: 1 };

/** What the machine around the processor decides. */
export interface CpuidEnvironment {
  vcpuCount: number;
  apicId: number;
  /** x2APIC and TSC-deadline offered. */
  x2apic: boolean;
  tscDeadline: boolean;
  /** The hypervisor's leaves from 0x40000000 on; undefined where it hides. */
  hypervisorLeaf(leaf: number): CpuidResult | undefined;
  hypervisorPresent: boolean;
}

const bits = (...numbers: number[]): number => numbers.reduce((all, bit) => (all | (1 << bit)) >>> 0, 0);
/** fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2. */
const LEAF1_EDX = bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26);
/** sse3 ssse3 cx16 sse4_1 sse4_2 popcnt rdrand; with pcid. */
const LEAF1_ECX = bits(0, 9, 13, 17, 19, 20, 23, 30);
const XSAVE = bits(26);
const OSXSAVE = bits(27);
const X2APIC = bits(21);
const TSC_DEADLINE = bits(24);
const HYPERVISOR = bits(31);
/** fsgsbase tsc_adjust smep erms invpcid smap. */
const LEAF7_EBX = bits(0, 1, 7, 9, 10, 20);
/** As leaf 1's, without sep and mca's neighbours; syscall nx 1-GiB pages rdtscp lm. */
const EXTENDED1_EDX = (LEAF1_EDX & 0x0183_f3ff & ~bits(11)) | bits(11, 20, 26, 27, 29);
/** lahf_lm, cr8_legacy. */
const EXTENDED1_ECX = bits(0, 4);
const PHYSICAL_BITS = 40;
const VIRTUAL_BITS = 48;
const XSAVE_AREA = 576;

const text = (s: string, at: number): number => s.charCodeAt(at) | (s.charCodeAt(at + 1) << 8) | (s.charCodeAt(at + 2) << 16) | (s.charCodeAt(at + 3) << 24);
const log2ceil = (n: number): number => (n <= 1 ? 0 : 32 - Math.clz32(n - 1));

export function signature(model: CpuModel): number {
  const extendedFamily = model.family > 15 ? model.family - 15 : 0;
  return (model.stepping | ((model.model & 15) << 4) | (Math.min(model.family, 15) << 8) | ((model.model >> 4) << 16) | (extendedFamily << 20)) >>> 0;
}

const ZERO: CpuidResult = { eax: 0, ebx: 0, ecx: 0, edx: 0 };

/** The registers that CPUID gives for a leaf and subleaf on this vCPU. */
export function cpuid(vcpu: Vcpu, leaf: number, subleaf: number, environment: CpuidEnvironment, model = DEFAULT_MODEL): CpuidResult {
  const { apicId, vcpuCount } = environment;
  switch (leaf) {
    case 0:
      return { eax: 0xd, ebx: text(model.vendor, 0), edx: text(model.vendor, 4), ecx: text(model.vendor, 8) };
    case 1: {
      const osxsave = vcpu.get64(state.CR4) & Cr4.osxsave ? OSXSAVE : 0;
      const ecx = LEAF1_ECX | XSAVE | osxsave | (environment.x2apic ? X2APIC : 0) | (environment.tscDeadline ? TSC_DEADLINE : 0) | (environment.hypervisorPresent ? HYPERVISOR : 0);
      const count = vcpuCount > 1 ? 1 << log2ceil(vcpuCount) : 1;
      return { eax: signature(model), ebx: ((apicId & 0xff) << 24) | (Math.min(count, 255) << 16) | (8 << 8), ecx, edx: LEAF1_EDX | (vcpuCount > 1 ? bits(28) : 0) };
    }
    case 7:
      return subleaf === 0 ? { eax: 0, ebx: LEAF7_EBX, ecx: 0, edx: 0 } : ZERO;
    case 0xb: {
      // One thread a core, all cores in one package.
      const shift = log2ceil(vcpuCount);
      if (subleaf === 0) return { eax: 0, ebx: 1, ecx: 0x100, edx: apicId };
      if (subleaf === 1) return { eax: shift, ebx: vcpuCount, ecx: 0x201, edx: apicId };
      return { eax: 0, ebx: 0, ecx: subleaf & 0xff, edx: apicId };
    }
    case 0xd:
      if (subleaf === 0) return { eax: 3, ebx: XSAVE_AREA, ecx: XSAVE_AREA, edx: 0 };
      return ZERO;
    case 0x8000_0000:
      return { eax: 0x8000_0008, ebx: text(model.vendor, 0), edx: text(model.vendor, 4), ecx: text(model.vendor, 8) };
    case 0x8000_0001:
      return { eax: signature(model), ebx: 0, ecx: EXTENDED1_ECX | (vcpuCount > 1 ? bits(1) : 0), edx: EXTENDED1_EDX };
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
      // Invariant TSC.
      return { eax: 0, ebx: 0, ecx: 0, edx: bits(8) };
    case 0x8000_0008:
      return { eax: PHYSICAL_BITS | (VIRTUAL_BITS << 8), ebx: 0, ecx: (vcpuCount - 1) | (log2ceil(vcpuCount) << 12), edx: 0 };
    default:
      return (leaf >>> 28 === 4 && environment.hypervisorLeaf(leaf)) || ZERO;
  }
}
