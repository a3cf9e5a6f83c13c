/**
 * Destinations: which APIC ID or logical mask stands for a CPU mask, and the logical IDs (LDR, DFR) that make masks work.
 * SDM 3A 11.6.2.2.
 */

import type { Assembler } from '../assembler/assembler.ts';
import { address, al, byte, cl, dword, eax, ecx, edx, mem, times } from '../assembler/operands.ts';
import {
  APIC_DFR,
  APIC_ID,
  APIC_LDR,
  BAD_APICID,
  LDR_RESERVED,
  XAPIC_ALL_CPUS,
  XAPIC_ID_SHIFT,
} from './apic-constants.ts';
import { APIC_DFR_CLUSTER, APIC_DFR_FLAT } from '../../interrupts/apic-registers.ts';
import type { EmitFunction, GuestAbi, GuestFunctions } from './guest-abi.ts';
import { callMethod } from './native-access.ts';

export type ApicIdTable = 'x86_cpu_to_apicid' | 'x86_cpu_to_logical_apicid';

/** (mask) or (mask, mask): the CPUs meant, in the result register; of two masks those in both that are online. */
function loadMask(a: Assembler, abi: GuestAbi, masks: 1 | 2): void {
  const [first, second] = abi.arguments;
  a.mov(abi.result, abi.pointer(first));
  if (masks === 1) return;
  a.and(abi.result, abi.pointer(second));
  a.and(abi.result, abi.pointer('cpu_online_mask'));
}

/** The first CPU's ID, or BAD_APICID. `high`: a symbol whose contents belong to every ID. */
export const firstCpuId =
  (table: ApicIdTable, masks: 1 | 2, high?: string): EmitFunction =>
  (a, abi) => {
    loadMask(a, abi, masks);
    a.bsf(abi.result, abi.result);
    a.jz('.none');
    a.mov(eax, dword(times(abi.result, 4), address(table)));
    if (high) a.or(eax, dword(high));
    a.ret();
    a.label('.none');
    a.mov(eax, BAD_APICID);
    a.ret();
  };

const CLUSTER = 0xf0;

/**
 * Logical IDs of one cluster: the last CPU's (es7000) or all together (summit); BAD_APICID where the CPUs are of several
 * clusters.
 */
export const withinCluster =
  (together: boolean, masks: 1 | 2): EmitFunction =>
  (a, abi) => {
    const [mask, id] = abi.saved;
    const id32 = abi.saved32[1];
    a.push(mask);
    a.push(id);
    loadMask(a, abi, masks);
    a.mov(mask, abi.result);
    a.xor(id32, id32);
    a.bsf(abi.result, mask);
    a.jz('.bad');
    a.mov(id32, dword(times(abi.result, 4), address('x86_cpu_to_logical_apicid')));
    a.label('.next');
    a.btr(mask, abi.result);
    a.mov(ecx, dword(times(abi.result, 4), address('x86_cpu_to_logical_apicid')));
    a.mov(edx, ecx);
    a.xor(edx, id32);
    a.test(edx, CLUSTER);
    a.jnz('.bad');
    if (together) a.or(id32, ecx);
    else a.mov(id32, ecx);
    a.bsf(abi.result, mask);
    a.jnz('.next');
    a.mov(eax, id32);
    a.jmp('.out');
    a.label('.bad');
    a.mov(eax, BAD_APICID);
    a.label('.out');
    a.pop(id);
    a.pop(mask);
    a.ret();
  };

/** Writes DFR, then puts the logical ID that `compute` leaves in ECX into the LDR. */
const initLdr =
  (format: number, compute: (a: Assembler, abi: GuestAbi) => void): EmitFunction =>
  (a, abi) => {
    const [saved] = abi.saved;
    const [ldr] = abi.saved32;
    const [register, value] = abi.arguments32;
    a.push(saved);
    a.mov(value, format);
    a.mov(register, APIC_DFR);
    callMethod(a, abi, 'write');
    a.mov(register, APIC_LDR);
    callMethod(a, abi, 'read');
    a.mov(ldr, eax);
    a.and(ldr, LDR_RESERVED);
    compute(a, abi);
    a.shl(ecx, XAPIC_ID_SHIFT);
    a.or(ldr, ecx);
    a.mov(value, ldr);
    a.mov(register, APIC_LDR);
    callMethod(a, abi, 'write');
    a.pop(saved);
    a.ret();
  };

/** 1 << CPU number */
function bitOfCpu(a: Assembler, abi: GuestAbi): void {
  a.mov(ecx, abi.perCpu('cpu_number', 32));
  a.mov(eax, 1);
  a.shl(eax, cl);
  a.mov(ecx, eax);
}

function physicalId(a: Assembler, abi: GuestAbi): void {
  a.mov(eax, abi.perCpu('cpu_number', 32));
  a.mov(ecx, dword(times(abi.result, 4), address('x86_cpu_to_apicid')));
}

/** The cluster of this APIC's ID, and the next bit that no CPU of the cluster has yet; remembered as the CPU's logical ID. */
function nextInCluster(a: Assembler, abi: GuestAbi): void {
  const [cluster, count, cpu] = abi.saved.slice(1);
  const [cluster32, count32, cpu32] = abi.saved32.slice(1);
  for (const register of [cluster, count, cpu]) a.push(register);
  a.mov(abi.arguments32[0], APIC_ID);
  callMethod(a, abi, 'read');
  a.mov(abi.arguments32[0], eax);
  callMethod(a, abi, 'getApicId');
  a.and(eax, CLUSTER);
  a.mov(cluster32, eax);
  a.xor(count32, count32);
  a.mov(cpu32, dword('nr_cpu_ids'));
  a.label('.cpu');
  a.dec(cpu32);
  a.js('.counted');
  a.mov(eax, dword(times(cpu, 4), address('x86_cpu_to_logical_apicid')));
  a.cmp(eax, BAD_APICID);
  a.je('.cpu');
  a.and(eax, CLUSTER);
  a.cmp(eax, cluster32);
  a.jne('.cpu');
  a.inc(count32);
  a.jmp('.cpu');
  a.label('.counted');
  a.mov(ecx, count32);
  a.mov(eax, 1);
  a.shl(eax, cl);
  a.or(eax, cluster32);
  a.mov(ecx, eax);
  a.mov(eax, abi.perCpu('cpu_number', 32));
  a.mov(dword(times(abi.result, 4), address('x86_cpu_to_logical_apicid')), ecx);
  for (const register of [cpu, count, cluster]) a.pop(register);
}

export const destinations: GuestFunctions = {
  /** Flat logical mode: the mask itself. */
  default_cpu_mask_to_apicid(a, abi) {
    a.movzx(eax, byte(abi.arguments[0]));
    a.ret();
  },
  default_cpu_mask_to_apicid_and(a, abi) {
    loadMask(a, abi, 2);
    if (XAPIC_ALL_CPUS !== 0xff) throw new Error('the mask is a byte');
    a.movzx(eax, al);
    a.ret();
  },
  physical_cpu_mask_to_apicid: firstCpuId('x86_cpu_to_apicid', 1),
  physical_cpu_mask_to_apicid_and: firstCpuId('x86_cpu_to_apicid', 2),

  default_init_apic_ldr: initLdr(APIC_DFR_FLAT, bitOfCpu),
  flat_init_apic_ldr: initLdr(APIC_DFR_FLAT, bitOfCpu),
  bigsmp_init_apic_ldr: initLdr(APIC_DFR_FLAT, physicalId),
  es7000_init_apic_ldr: initLdr(APIC_DFR_FLAT, physicalId),
  es7000_init_apic_ldr_cluster: initLdr(APIC_DFR_CLUSTER, physicalId),
  summit_init_apic_ldr: initLdr(APIC_DFR_CLUSTER, nextInCluster),
  no_init_apic_ldr(a) {
    a.ret();
  },

  /** (CPU): its logical ID before the CPU itself can say; BAD_APICID where it is to be found out. */
  default_early_logical_apicid(a) {
    a.mov(ecx, eax);
    a.mov(eax, 1);
    a.shl(eax, cl);
    a.ret();
  },
  physical_early_logical_apicid(a) {
    a.mov(eax, dword(times(eax, 4), address('x86_cpu_to_apicid')));
    a.ret();
  },
  unknown_early_logical_apicid(a) {
    a.mov(eax, BAD_APICID);
    a.ret();
  },
  /** A quad's number in the high nibble, one of its four CPUs' bits in the low one. */
  numaq_early_logical_apicid(a) {
    a.mov(ecx, eax);
    a.and(ecx, 3);
    a.shr(eax, 2);
    a.shl(eax, 4);
    a.bts(eax, ecx);
    a.ret();
  },

  /** Where interrupts may go: every CPU online, or all CPUs there can be, or the one that asks. */
  online_target_cpus(a) {
    a.mov(eax, address('cpu_online_mask'));
    a.ret();
  },
  all_target_cpus(a) {
    a.mov(eax, address('cpu_all_mask'));
    a.ret();
  },
  own_target_cpu(a, abi) {
    a.mov(eax, abi.perCpu('cpu_number', 32));
    a.lea(abi.result, mem(times(abi.result, abi.word), address('cpu_bit_masks')));
    a.ret();
  },
};
