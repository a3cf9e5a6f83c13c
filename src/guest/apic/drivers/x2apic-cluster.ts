/** cluster x2apic: logical IDs of a cluster number and a bit for each of its 16 CPUs, so that one write reaches a cluster. */

import type { Assembler } from '../../assembler/assembler.ts';
import {
  address,
  dword,
  eax,
  ebp,
  ecx,
  edi,
  edx,
  esi,
  type GeneralRegister,
  mem,
  qword,
  r13,
  r13d,
  rax,
  rbp,
  rbx,
  rcx,
  rdi,
  rdx,
  times,
} from '../../assembler/operands.ts';
import { APIC_DM_NMI, APIC_LDR, NMI_VECTOR } from '../apic-constants.ts';
import type { ApicDriver } from '../apic-driver.ts';
import { firstCpuId } from '../destination.ts';
import type { EmitFunction, GuestAbi } from '../guest-abi.ts';
import { loadDestinationMode, toOnlineCpus } from '../ipi.ts';
import { callMethod } from '../native-access.ts';
import { DIRECT_EOI, X2APIC_ACCESS, x2apicIpis } from './x2apic.ts';

/** The ICR's low half for a vector in `vector`, with the destination mode of the driver in use, in EDI. */
export function prepareIcr(a: Assembler, abi: GuestAbi, vector: GeneralRegister, physical: boolean): void {
  if (physical) a.xor(edx, edx);
  else loadDestinationMode(a, abi);
  a.mov(edi, vector);
  a.cmp(edi, NMI_VECTOR);
  a.jne('.fixed');
  a.mov(edi, APIC_DM_NMI);
  a.label('.fixed');
  a.or(edi, edx);
}

/**
 * (mask, vector). Takes a CPU off the mask, gathers the logical IDs of the others in its cluster, takes them off too, sends one
 * IPI. RBX is the mask, R13D the destination.
 */
const mask =
  (exceptSelf: boolean): EmitFunction =>
  (a, abi) => {
    for (const register of [rbx, rbp, r13]) a.push(register);
    a.pushf();
    a.mfence().note('WRMSR to an x2APIC register does not serialise');
    a.cli();
    a.mov(rbx, mem(rdi));
    a.mov(ebp, esi);
    if (exceptSelf) a.mov(eax, abi.perCpu('cpu_number', 32)).btr(rbx, rax);
    a.label('.cluster');
    a.bsf(rax, rbx);
    a.jz('.done');
    a.mov(rcx, qword(times(rax, 8), address('cpus_in_cluster')));
    a.and(rcx, rbx).note('those of the mask that are in the cluster');
    a.xor(rbx, rcx).note('the others are left for later');
    a.xor(r13d, r13d);
    a.label('.member');
    a.bsf(rax, rcx);
    a.jz('.send');
    a.or(r13d, dword(times(rax, 4), address('x86_cpu_to_logical_apicid')));
    a.lea(rdx, mem(rcx, -1));
    a.and(rcx, rdx);
    a.jmp('.member');
    a.label('.send');
    prepareIcr(a, abi, ebp, false);
    a.mov(esi, r13d);
    a.call('native_x2apic_icr_write');
    a.jmp('.cluster');
    a.label('.done');
    a.popf();
    for (const register of [r13, rbp, rbx]) a.pop(register);
    a.ret();
  };

export const x2apicCluster: ApicDriver = {
  name: 'x2apic_cluster',
  title: 'cluster x2apic',
  bits: 64,
  deliveryMode: 'lowest-priority',
  destinationMode: 'logical',
  ipiDestination: 'logical',
  disableEsr: false,
  directEoi: DIRECT_EOI,
  methods: {
    ...X2APIC_ACCESS,
    probe: 'x2apic_cluster_probe',
    acpiMadtOemCheck: 'x2apic_cluster_acpi_madt_oem_check',
    targetCpus: 'online_target_cpus',
    initApicLdr: 'init_x2apic_ldr',
    cpuMaskToApicId: 'x2apic_cluster_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'x2apic_cluster_cpu_mask_to_apicid_and',
    sendIpiMask: 'x2apic_cluster_send_IPI_mask',
    sendIpiMaskAllButSelf: 'x2apic_cluster_send_IPI_mask_allbutself',
    sendIpiAllButSelf: 'x2apic_cluster_send_IPI_allbutself',
    sendIpiAll: 'x2apic_cluster_send_IPI_all',
  },
  functions: {
    ...x2apicIpis,
    x2apic_cluster_probe(a) {
      a.mov(eax, dword('x2apic_mode'));
      a.ret();
    },
    x2apic_cluster_acpi_madt_oem_check(a) {
      a.mov(eax, dword('x2apic_mode'));
      a.ret();
    },
    x2apic_cluster_cpu_mask_to_apicid: firstCpuId('x86_cpu_to_logical_apicid', 1),
    x2apic_cluster_cpu_mask_to_apicid_and: firstCpuId('x86_cpu_to_logical_apicid', 2),
    /** The logical ID is the processor's own choice; whoever has the same cluster number is told apart by masks, both ways. */
    init_x2apic_ldr(a, abi) {
      a.push(rbx);
      a.push(rbp);
      a.mov(edi, APIC_LDR);
      callMethod(a, abi, 'read');
      a.mov(ebp, abi.perCpu('cpu_number', 32));
      a.mov(dword(times(rbp, 4), address('x86_cpu_to_logical_apicid')), eax);
      a.mov(ecx, eax);
      a.shr(ecx, 16).note('the cluster');
      a.lock().bts(qword(times(rbp, 8), address('cpus_in_cluster')), rbp);
      a.mov(rbx, mem('cpu_online_mask'));
      a.label('.next');
      a.bsf(rax, rbx);
      a.jz('.done');
      a.btr(rbx, rax);
      a.mov(edx, dword(times(rax, 4), address('x86_cpu_to_logical_apicid')));
      a.shr(edx, 16);
      a.cmp(edx, ecx);
      a.jne('.next');
      a.lock().bts(qword(times(rax, 8), address('cpus_in_cluster')), rbp);
      a.lock().bts(qword(times(rbp, 8), address('cpus_in_cluster')), rax);
      a.jmp('.next');
      a.label('.done');
      a.pop(rbp);
      a.pop(rbx);
      a.ret();
    },
    x2apic_cluster_send_IPI_mask: mask(false),
    x2apic_cluster_send_IPI_mask_allbutself: mask(true),
    x2apic_cluster_send_IPI_allbutself: toOnlineCpus('x2apic_cluster_send_IPI_mask_allbutself'),
    x2apic_cluster_send_IPI_all: toOnlineCpus('x2apic_cluster_send_IPI_mask'),
  },
};
