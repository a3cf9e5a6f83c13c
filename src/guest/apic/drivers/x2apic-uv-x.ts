/**
 * UV large system: SGI's machines of many hubs. IPIs are stores to the destination node's hub, in a global register space
 * addressed by the node (pnode) that the APIC ID names. Register facts: Linux's uv_mmrs.h and uv_hub.h.
 */

import type { Assembler } from '../../assembler/assembler.ts';
import {
  address,
  dword,
  eax,
  ebx,
  edi,
  edx,
  esi,
  mem,
  qword,
  rax,
  rbx,
  rdi,
  rdx,
  rsi,
  times,
} from '../../assembler/operands.ts';
import { APIC_DM_INIT, APIC_DM_NMI, APIC_DM_STARTUP, NMI_VECTOR } from '../apic-constants.ts';
import type { ApicDriver } from '../apic-driver.ts';
import { firstCpuId } from '../destination.ts';
import { oneByOne, toOnlineCpus } from '../ipi.ts';
import { compareText } from '../text.ts';
import {
  UV_APIC_PNODE_SHIFT,
  UV_GLOBAL_MMR64_PNODE_SHIFT,
  UV_LOCAL_MMR_BASE,
  UVH_IPI_APIC_ID_SHIFT,
  UVH_IPI_INT,
  UVH_IPI_SEND_BIT,
  UVH_OVERLAY_ENABLE_BIT,
  UVH_RH_GAM_MMR_OVERLAY_CONFIG,
} from '../../../devices/uv-hub.ts';
import { DIRECT_EOI, X2APIC_ACCESS, x2apicIpis } from './x2apic.ts';


/** (APIC ID in EDI, low 16 bits of the register in ESI): stores to the node's register. RAX and RDX are lost. */
function hubIpi(a: Assembler): void {
  a.mov(eax, edi);
  a.shr(eax, UV_APIC_PNODE_SHIFT);
  a.shl(rax, UV_GLOBAL_MMR64_PNODE_SHIFT);
  a.add(rax, qword('uv_global_mmr64_base'));
  a.mov(edx, edi);
  a.shl(rdx, UVH_IPI_APIC_ID_SHIFT);
  a.or(rdx, rsi);
  a.bts(rdx, UVH_IPI_SEND_BIT);
  a.mov(mem(rax, UVH_IPI_INT), rdx);
}

export const x2apicUvX: ApicDriver = {
  name: 'x2apic_uv_x',
  title: 'UV large system',
  bits: 64,
  deliveryMode: 'fixed',
  destinationMode: 'physical',
  ipiDestination: 'logical',
  disableEsr: false,
  directEoi: DIRECT_EOI,
  methods: {
    ...X2APIC_ACCESS,
    probe: 'uv_probe',
    acpiMadtOemCheck: 'uv_acpi_madt_oem_check',
    targetCpus: 'online_target_cpus',
    initApicLdr: 'no_init_apic_ldr',
    getApicId: 'uv_get_apic_id',
    cpuMaskToApicId: 'uv_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'uv_cpu_mask_to_apicid_and',
    sendIpiMask: 'uv_send_IPI_mask',
    sendIpiMaskAllButSelf: 'uv_send_IPI_mask_allbutself',
    sendIpiAllButSelf: 'uv_send_IPI_allbutself',
    sendIpiAll: 'uv_send_IPI_all',
    wakeupSecondaryCpu: 'uv_wakeup_secondary',
  },
  functions: {
    ...x2apicIpis,
    uv_probe(a) {
      a.xor(eax, eax);
      a.cmp(qword('apic'), address('apic_x2apic_uv_x'));
      a.jne('.no');
      a.inc(eax);
      a.label('.no');
      a.ret();
    },
    /** (OEM, table): SGI or SGI2, and UVH. UVX and UVL name machines that other drivers serve. */
    uv_acpi_madt_oem_check(a) {
      a.xor(eax, eax);
      compareText(a, rdi, 'SGI', '.no');
      compareText(a, rsi, 'UVH', '.no');
      a.inc(eax);
      a.label('.no');
      a.ret();
    },
    /** Asks this blade's hub where all hubs' registers are, and maps those of the first nodes, as far as the window reaches. */
    uv_system_init(a, abi) {
      a.mov(eax, UV_LOCAL_MMR_BASE + UVH_RH_GAM_MMR_OVERLAY_CONFIG);
      a.mov(abi.arguments[0], mem(rax));
      a.btr(abi.arguments[0], UVH_OVERLAY_ENABLE_BIT);
      a.lea(rax, mem(address('MMIO_WINDOW')));
      a.mov(qword('uv_global_mmr64_base'), rax);
      a.jmp('map_mmio_window');
    },
    /** The processor's register holds only part of the ID. */
    uv_get_apic_id(a, abi) {
      a.mov(eax, edi);
      a.or(eax, abi.perCpu('x2apic_extra_bits', 32));
      a.ret();
    },
    uv_cpu_mask_to_apicid: firstCpuId('x86_cpu_to_apicid', 1, 'uv_apicid_hibits'),
    uv_cpu_mask_to_apicid_and: firstCpuId('x86_cpu_to_apicid', 2, 'uv_apicid_hibits'),
    /** (CPU, vector) */
    uv_send_IPI_one(a) {
      a.mov(eax, edi);
      a.mov(edi, dword(times(rax, 4), address('x86_cpu_to_apicid')));
      a.cmp(esi, NMI_VECTOR);
      a.jne('.fixed');
      a.or(esi, APIC_DM_NMI);
      a.label('.fixed');
      hubIpi(a);
      a.ret();
    },
    uv_send_IPI_mask: oneByOne('uv_send_IPI_one', false),
    uv_send_IPI_mask_allbutself: oneByOne('uv_send_IPI_one', true),
    uv_send_IPI_allbutself: toOnlineCpus('uv_send_IPI_mask_allbutself'),
    uv_send_IPI_all: toOnlineCpus('uv_send_IPI_mask'),
    /** (APIC ID, start address): INIT and STARTUP through the hub. */
    uv_wakeup_secondary(a) {
      a.push(rbx);
      a.mov(ebx, esi);
      a.or(edi, dword('uv_apicid_hibits'));
      a.shr(ebx, 12);
      a.mov(esi, APIC_DM_INIT);
      a.or(esi, ebx);
      hubIpi(a);
      a.mov(esi, APIC_DM_STARTUP);
      a.or(esi, ebx);
      hubIpi(a);
      a.pop(rbx);
      a.xor(eax, eax);
      a.ret();
    },
  },
};
