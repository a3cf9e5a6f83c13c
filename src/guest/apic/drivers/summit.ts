/** summit: IBM's x440 and its like, whose clusters of four share the high nibble of the APIC ID. */

import { eax, edx } from '../../assembler/operands.ts';
import type { ApicDriver } from '../apic-driver.ts';
import { withinCluster } from '../destination.ts';
import { toOnlineCpus } from '../ipi.ts';
import { compareText } from '../text.ts';
import { XAPIC_ACCESS } from './flat.ts';

export const summit: ApicDriver = {
  name: 'summit',
  title: 'summit',
  bits: 32,
  deliveryMode: 'lowest-priority',
  destinationMode: 'logical',
  ipiDestination: 'logical',
  disableEsr: true,
  methods: {
    ...XAPIC_ACCESS,
    probe: 'probe_summit',
    acpiMadtOemCheck: 'summit_acpi_madt_oem_check',
    mpsOemCheck: 'summit_mps_oem_check',
    targetCpus: 'own_target_cpu',
    earlyLogicalApicId: 'unknown_early_logical_apicid',
    initApicLdr: 'summit_init_apic_ldr',
    cpuMaskToApicId: 'summit_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'summit_cpu_mask_to_apicid_and',
    sendIpiMask: 'default_send_IPI_mask_sequence_logical',
    sendIpiAllButSelf: 'summit_send_IPI_allbutself',
    sendIpiAll: 'summit_send_IPI_all',
    sendIpiSelf: 'default_send_IPI_self',
  },
  functions: {
    /** Its tables decide. */
    probe_summit(a) {
      a.xor(eax, eax);
      a.ret();
    },
    /** (OEM, product) */
    summit_mps_oem_check(a) {
      compareText(a, eax, 'IBM ENSW', '.no');
      compareText(a, edx, 'VIGIL SMP', '.exa');
      a.jmp('.yes');
      a.label('.exa');
      compareText(a, edx, 'EXA', '.ruthless');
      a.jmp('.yes');
      a.label('.ruthless');
      compareText(a, edx, 'RUTHLESS SMP', '.no');
      a.label('.yes');
      a.mov(eax, 1);
      a.ret();
      a.label('.no');
      a.xor(eax, eax);
      a.ret();
    },
    /** (OEM, table) */
    summit_acpi_madt_oem_check(a) {
      compareText(a, eax, 'IBM', '.no');
      compareText(a, edx, 'SERVIGIL', '.exa');
      a.jmp('.yes');
      a.label('.exa');
      compareText(a, edx, 'EXA', '.no');
      a.label('.yes');
      a.mov(eax, 1);
      a.ret();
      a.label('.no');
      a.xor(eax, eax);
      a.ret();
    },
    summit_cpu_mask_to_apicid: withinCluster(true, 1),
    summit_cpu_mask_to_apicid_and: withinCluster(true, 2),
    summit_send_IPI_allbutself: toOnlineCpus('default_send_IPI_mask_allbutself_logical'),
    summit_send_IPI_all: toOnlineCpus('default_send_IPI_mask_sequence_logical'),
  },
};
