/** bigsmp: 32-bit PCs with more than 8 CPUs, or that are on a list of machines to be addressed physically. */

import { dword, eax } from '../../assembler/operands.ts';
import type { ApicDriver } from '../apic-driver.ts';
import { toOnlineCpus } from '../ipi.ts';
import { XAPIC_ACCESS } from './flat.ts';

export const bigsmp: ApicDriver = {
  name: 'bigsmp',
  title: 'bigsmp',
  bits: 32,
  deliveryMode: 'fixed',
  destinationMode: 'physical',
  ipiDestination: 'physical',
  disableEsr: true,
  methods: {
    ...XAPIC_ACCESS,
    probe: 'probe_bigsmp',
    targetCpus: 'online_target_cpus',
    earlyLogicalApicId: 'physical_early_logical_apicid',
    initApicLdr: 'bigsmp_init_apic_ldr',
    cpuMaskToApicId: 'physical_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'physical_cpu_mask_to_apicid_and',
    sendIpiMask: 'default_send_IPI_mask_sequence_phys',
    sendIpiAllButSelf: 'bigsmp_send_IPI_allbutself',
    sendIpiAll: 'bigsmp_send_IPI_all',
    sendIpiSelf: 'default_send_IPI_self',
  },
  functions: {
    probe_bigsmp(a) {
      a.mov(eax, 1);
      a.cmp(dword('num_possible_cpus'), 8);
      a.ja('.yes');
      a.mov(eax, dword('dmi_bigsmp'));
      a.label('.yes');
      a.ret();
    },
    bigsmp_send_IPI_allbutself: toOnlineCpus('default_send_IPI_mask_allbutself_phys'),
    bigsmp_send_IPI_all: toOnlineCpus('default_send_IPI_mask_sequence_phys'),
  },
};
