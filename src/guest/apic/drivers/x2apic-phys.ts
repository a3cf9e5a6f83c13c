/** physical x2apic: one ICR write for each CPU. What KVM's guests use without interrupt remapping. */

import { address, dword, eax, ebp, esi, mem, qword, rax, rbp, rbx, rdi, times } from '../../assembler/operands.ts';
import type { ApicDriver } from '../apic-driver.ts';
import type { EmitFunction } from '../guest-abi.ts';
import { forEachCpu, toOnlineCpus } from '../ipi.ts';
import { DIRECT_EOI, X2APIC_ACCESS, x2apicIpis } from './x2apic.ts';
import { prepareIcr } from './x2apic-cluster.ts';

const ACPI_FADT_APIC_PHYSICAL = 1 << 19;

/** (mask, vector). The ICR's low half is the same for all: EBP. */
const mask =
  (exceptSelf: boolean): EmitFunction =>
  (a, abi) => {
    for (const register of [rbx, rbp]) a.push(register);
    a.pushf();
    a.mfence().note('WRMSR to an x2APIC register does not serialise');
    a.cli();
    a.mov(rbx, mem(rdi));
    prepareIcr(a, abi, esi, true);
    a.mov(ebp, abi.arguments32[0]);
    if (exceptSelf) a.mov(eax, abi.perCpu('cpu_number', 32)).btr(rbx, rax);
    forEachCpu(a, abi, () => {
      a.mov(esi, dword(times(rax, 4), address('x86_cpu_to_apicid')));
      a.mov(abi.arguments32[0], ebp);
      a.call('native_x2apic_icr_write');
    });
    a.popf();
    for (const register of [rbp, rbx]) a.pop(register);
    a.ret();
  };

export const x2apicPhys: ApicDriver = {
  name: 'x2apic_phys',
  title: 'physical x2apic',
  bits: 64,
  deliveryMode: 'fixed',
  destinationMode: 'physical',
  ipiDestination: 'physical',
  disableEsr: false,
  directEoi: DIRECT_EOI,
  methods: {
    ...X2APIC_ACCESS,
    probe: 'x2apic_phys_probe',
    acpiMadtOemCheck: 'x2apic_phys_acpi_madt_oem_check',
    targetCpus: 'online_target_cpus',
    initApicLdr: 'no_init_apic_ldr',
    cpuMaskToApicId: 'physical_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'physical_cpu_mask_to_apicid_and',
    sendIpiMask: 'x2apic_phys_send_IPI_mask',
    sendIpiMaskAllButSelf: 'x2apic_phys_send_IPI_mask_allbutself',
    sendIpiAllButSelf: 'x2apic_phys_send_IPI_allbutself',
    sendIpiAll: 'x2apic_phys_send_IPI_all',
  },
  functions: {
    ...x2apicIpis,
    /** x2APIC mode, and physical destinations forced; or chosen already by its tables. */
    x2apic_phys_probe(a) {
      a.cmp(dword('x2apic_mode'), 0);
      a.je('.chosen');
      a.cmp(dword('x2apic_phys'), 0);
      a.jne('.yes');
      a.label('.chosen');
      a.cmp(qword('apic'), address('apic_x2apic_phys'));
      a.je('.yes');
      a.xor(eax, eax);
      a.ret();
      a.label('.yes');
      a.mov(eax, 1);
      a.ret();
    },
    x2apic_phys_acpi_madt_oem_check(a) {
      a.mov(eax, dword('x2apic_mode'));
      a.cmp(dword('x2apic_phys'), 0);
      a.jne('.out');
      a.test(dword('acpi_fadt_flags'), ACPI_FADT_APIC_PHYSICAL);
      a.jnz('.out');
      a.xor(eax, eax);
      a.label('.out');
      a.ret();
    },
    x2apic_phys_send_IPI_mask: mask(false),
    x2apic_phys_send_IPI_mask_allbutself: mask(true),
    x2apic_phys_send_IPI_allbutself: toOnlineCpus('x2apic_phys_send_IPI_mask_allbutself'),
    x2apic_phys_send_IPI_all: toOnlineCpus('x2apic_phys_send_IPI_mask'),
  },
};
