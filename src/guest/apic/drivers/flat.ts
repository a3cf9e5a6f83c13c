/** flat and physical flat: PCs with up to 8 CPUs, and with more (apic_flat_64). */

import { address, dword, eax, edi, esi, mem, qword, rax, rdi, rdx } from '../../assembler/operands.ts';
import { APIC_DEST_ALLBUT, APIC_DEST_ALLINC, NMI_VECTOR } from '../apic-constants.ts';
import type { ApicDriver } from '../apic-driver.ts';
import { loadDestinationMode, toOnlineCpus } from '../ipi.ts';

const ACPI_FADT_APIC_PHYSICAL_BIT = 19;

/** What both have of xAPIC's registers. */
export const XAPIC_ACCESS = {
  read: 'native_apic_mem_read',
  write: 'native_apic_mem_write',
  eoiWrite: 'native_apic_mem_write',
  icrRead: 'native_apic_icr_read',
  icrWrite: 'native_apic_icr_write',
  waitIcrIdle: 'native_apic_wait_icr_idle',
  safeWaitIcrIdle: 'native_safe_apic_wait_icr_idle',
  getApicId: 'xapic_get_apic_id',
  setApicId: 'xapic_set_apic_id',
} as const;

export const flat: ApicDriver = {
  name: 'flat',
  title: 'flat',
  bits: 64,
  deliveryMode: 'lowest-priority',
  destinationMode: 'logical',
  ipiDestination: 'logical',
  disableEsr: false,
  cpus: { most: 8, why: 'a logical destination has a bit for each, and 8 bits' },
  methods: {
    ...XAPIC_ACCESS,
    probe: 'flat_probe',
    acpiMadtOemCheck: 'flat_acpi_madt_oem_check',
    targetCpus: 'online_target_cpus',
    initApicLdr: 'flat_init_apic_ldr',
    cpuMaskToApicId: 'default_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'default_cpu_mask_to_apicid_and',
    sendIpiMask: 'flat_send_IPI_mask',
    sendIpiMaskAllButSelf: 'flat_send_IPI_mask_allbutself',
    sendIpiAllButSelf: 'flat_send_IPI_allbutself',
    sendIpiAll: 'flat_send_IPI_all',
    sendIpiSelf: 'apic_send_IPI_self',
  },
  functions: {
    flat_probe(a) {
      a.mov(eax, 1);
      a.ret();
    },
    flat_acpi_madt_oem_check(a) {
      a.mov(eax, 1);
      a.ret();
    },
    /** (mask by value, vector) */
    _flat_send_IPI_mask(a, abi) {
      a.pushf();
      a.cli();
      loadDestinationMode(a, abi);
      a.call('__default_send_IPI_dest_field');
      a.popf();
      a.ret();
    },
    flat_send_IPI_mask(a) {
      a.mov(rdi, mem(rdi));
      a.jmp('_flat_send_IPI_mask');
    },
    flat_send_IPI_mask_allbutself(a, abi) {
      a.mov(rdi, mem(rdi));
      a.mov(eax, abi.perCpu('cpu_number', 32));
      a.btr(rdi, rax);
      a.jmp('_flat_send_IPI_mask');
    },
    flat_send_IPI_allbutself(a, abi) {
      a.mov(rax, mem('cpu_online_mask'));
      a.lea(rdx, mem(rax, -1));
      a.test(rax, rdx);
      a.jz('.alone');
      a.mov(esi, edi);
      a.cmp(esi, NMI_VECTOR);
      a.je('.mask').note('a shorthand would hit CPUs that are offline');
      a.mov(edi, APIC_DEST_ALLBUT);
      loadDestinationMode(a, abi);
      a.jmp('__default_send_IPI_shortcut');
      a.label('.mask');
      a.mov(edi, address('cpu_online_mask'));
      a.jmp('flat_send_IPI_mask_allbutself');
      a.label('.alone');
      a.ret();
    },
    flat_send_IPI_all(a, abi) {
      a.mov(esi, edi);
      a.cmp(esi, NMI_VECTOR);
      a.je('.mask');
      a.mov(edi, APIC_DEST_ALLINC);
      loadDestinationMode(a, abi);
      a.jmp('__default_send_IPI_shortcut');
      a.label('.mask');
      a.mov(edi, address('cpu_online_mask'));
      a.jmp('flat_send_IPI_mask');
    },
  },
};

export const physflat: ApicDriver = {
  ...flat,
  name: 'physflat',
  title: 'physical flat',
  cpus: undefined,
  deliveryMode: 'fixed',
  destinationMode: 'physical',
  ipiDestination: 'physical',
  methods: {
    ...flat.methods,
    probe: 'physflat_probe',
    acpiMadtOemCheck: 'physflat_acpi_madt_oem_check',
    cpuMaskToApicId: 'physical_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'physical_cpu_mask_to_apicid_and',
    sendIpiMask: 'default_send_IPI_mask_sequence_phys',
    sendIpiMaskAllButSelf: 'default_send_IPI_mask_allbutself_phys',
    sendIpiAllButSelf: 'physflat_send_IPI_allbutself',
    sendIpiAll: 'physflat_send_IPI_all',
  },
  functions: {
    /** Chosen already by its tables, or more CPUs than flat mode can address. */
    physflat_probe(a) {
      a.mov(eax, 1);
      a.cmp(qword('apic'), address('apic_physflat'));
      a.je('.yes');
      a.cmp(dword('num_possible_cpus'), 8);
      a.ja('.yes');
      a.xor(eax, eax);
      a.label('.yes');
      a.ret();
    },
    physflat_acpi_madt_oem_check(a) {
      a.mov(eax, dword('acpi_fadt_flags'));
      a.shr(eax, ACPI_FADT_APIC_PHYSICAL_BIT);
      a.and(eax, 1);
      a.ret();
    },
    physflat_send_IPI_allbutself: toOnlineCpus('default_send_IPI_mask_allbutself_phys'),
    physflat_send_IPI_all: toOnlineCpus('default_send_IPI_mask_sequence_phys'),
  },
};
