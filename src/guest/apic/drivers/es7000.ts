/**
 * es7000 and its cluster mode: Unisys' servers, the older ones (Pentium III family) with logical clusters. Their application
 * processors are woken through a register that the OEM1 table names, not by INIT and STARTUP.
 */

import type { Assembler } from '../../assembler/assembler.ts';
import { byte, dword, eax, ecx, edx, mem } from '../../assembler/operands.ts';
import type { ApicDriver } from '../apic-driver.ts';
import { withinCluster } from '../destination.ts';
import { toOnlineCpus } from '../ipi.ts';
import { compareText } from '../text.ts';
import { OEM_ENTRIES_OFFSET, OEM_ENTRY_PSAI, OEM_PSAI_ADDRESS, PSAI_PAGE_SHIFT, PSAI_START } from '../../../devices/es7000-mip.ts';
import { XAPIC_ACCESS } from './flat.ts';

const PAGE_SHIFT = 12;
/** Offsets in table OEM1: of the maker's name, and of where his parameters are. */
const TABLE_OEM_ID = 10;
const OEM1_ADDRESS = 36;
const OEM1_SIZE = 40;

/** Goes to `.no` unless the name at EAX is Unisys'. */
const requireUnisys = (a: Assembler): void => compareText(a, eax, 'UNISYS', '.no');

/** Family 6, models 7 to 11 are those with clusters; leaves the answer in EAX. */
function isCluster(a: Assembler): void {
  a.xor(eax, eax);
  a.cmp(dword('boot_cpu_family'), 6);
  a.jne('.other');
  a.mov(ecx, dword('boot_cpu_model'));
  a.sub(ecx, 7);
  a.cmp(ecx, 11 - 7);
  a.ja('.other');
  a.inc(eax);
  a.label('.other');
}

const check =
  (cluster: boolean) =>
  (a: Assembler): void => {
    requireUnisys(a);
    isCluster(a);
    if (!cluster) a.xor(eax, 1);
    a.ret();
    a.label('.no');
    a.xor(eax, eax);
    a.ret();
  };

export const es7000: ApicDriver = {
  name: 'es7000',
  title: 'es7000',
  bits: 32,
  deliveryMode: 'fixed',
  destinationMode: 'physical',
  ipiDestination: 'physical',
  disableEsr: true,
  methods: {
    ...XAPIC_ACCESS,
    probe: 'probe_es7000',
    acpiMadtOemCheck: 'es7000_acpi_madt_oem_check',
    mpsOemCheck: 'es7000_mps_oem_check',
    targetCpus: 'own_target_cpu',
    earlyLogicalApicId: 'physical_early_logical_apicid',
    initApicLdr: 'es7000_init_apic_ldr',
    cpuMaskToApicId: 'es7000_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'es7000_cpu_mask_to_apicid_and',
    sendIpiMask: 'default_send_IPI_mask_sequence_phys',
    sendIpiAllButSelf: 'es7000_send_IPI_allbutself',
    sendIpiAll: 'es7000_send_IPI_all',
    sendIpiSelf: 'default_send_IPI_self',
    wakeupSecondaryCpu: 'wakeup_secondary_cpu_via_mip',
  },
  functions: {
    /** Its tables decide. */
    probe_es7000(a) {
      a.xor(eax, eax);
      a.ret();
    },
    es7000_acpi_madt_oem_check: check(false),
    es7000_acpi_madt_oem_check_cluster: check(true),
    es7000_mps_oem_check: check(false),
    es7000_mps_oem_check_cluster: check(true),
    es7000_cpu_mask_to_apicid: withinCluster(false, 1),
    es7000_cpu_mask_to_apicid_and: withinCluster(false, 2),
    es7000_send_IPI_allbutself: toOnlineCpus('default_send_IPI_mask_allbutself_phys'),
    es7000_send_IPI_all: toOnlineCpus('default_send_IPI_mask_sequence_phys'),
    /** (table OEM1): finds the register's address in the maker's parameters that the table points to. */
    es7000_read_oem_table(a) {
      a.mov(edx, eax);
      a.lea(eax, mem(edx, TABLE_OEM_ID));
      requireUnisys(a);
      a.mov(eax, dword(edx, OEM1_ADDRESS));
      a.mov(ecx, dword(edx, OEM1_SIZE));
      a.lea(edx, mem(eax, ecx));
      a.add(eax, OEM_ENTRIES_OFFSET);
      a.label('.entry');
      a.cmp(eax, edx);
      a.jae('.no');
      a.cmp(byte(eax), OEM_ENTRY_PSAI);
      a.je('.found');
      a.movzx(ecx, byte(eax, 1)).note("the entry's length");
      a.add(eax, ecx);
      a.jmp('.entry');
      a.label('.found');
      a.mov(ecx, dword(eax, OEM_PSAI_ADDRESS));
      a.mov(dword('es7000_psai'), ecx);
      a.label('.no');
      a.ret();
    },
    /** (APIC ID, start address) */
    wakeup_secondary_cpu_via_mip(a) {
      a.mov(ecx, dword('es7000_psai'));
      a.test(ecx, ecx);
      a.jz('.none');
      a.shr(edx, PAGE_SHIFT);
      a.shl(edx, PSAI_PAGE_SHIFT);
      a.or(edx, eax);
      a.or(edx, PSAI_START);
      a.label('.busy');
      a.test(dword(ecx), PSAI_START);
      a.jnz('.busy');
      a.mov(mem(ecx), edx);
      a.xor(eax, eax);
      a.ret();
      a.label('.none');
      a.mov(eax, -1);
      a.ret();
    },
  },
};

export const es7000Cluster: ApicDriver = {
  ...es7000,
  name: 'es7000_cluster',
  deliveryMode: 'lowest-priority',
  destinationMode: 'logical',
  ipiDestination: 'physical',
  methods: {
    ...es7000.methods,
    acpiMadtOemCheck: 'es7000_acpi_madt_oem_check_cluster',
    mpsOemCheck: 'es7000_mps_oem_check_cluster',
    targetCpus: 'all_target_cpus',
    initApicLdr: 'es7000_init_apic_ldr_cluster',
  },
};
