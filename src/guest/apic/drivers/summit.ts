/** summit: IBM's x440 and its like, whose clusters of four share the high nibble of the APIC ID. */

import { eax, edx } from '../../assembler/operands.ts';
import type { ApicDriver } from '../apic-driver.ts';
import { withinCluster } from '../destination.ts';
import type { EmitFunction } from '../guest-abi.ts';
import { toOnlineCpus } from '../ipi.ts';
import { compareText } from '../text.ts';
import { XAPIC_ACCESS } from './flat.ts';

/** (OEM, product or table) */
const oemCheck =
  (oem: string, products: readonly string[]): EmitFunction =>
  (a) => {
    compareText(a, eax, oem, '.no');
    for (const [i, product] of products.entries()) {
      const isLast = i === products.length - 1;
      compareText(a, edx, product, isLast ? '.no' : `.not_${i}`);
      if (!isLast) a.jmp('.yes').label(`.not_${i}`);
    }
    a.label('.yes');
    a.mov(eax, 1);
    a.ret();
    a.label('.no');
    a.xor(eax, eax);
    a.ret();
  };

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
    summit_mps_oem_check: oemCheck('IBM ENSW', ['VIGIL SMP', 'EXA', 'RUTHLESS SMP']),
    summit_acpi_madt_oem_check: oemCheck('IBM', ['SERVIGIL', 'EXA']),
    summit_cpu_mask_to_apicid: withinCluster(true, 1),
    summit_cpu_mask_to_apicid_and: withinCluster(true, 2),
    summit_send_IPI_allbutself: toOnlineCpus('default_send_IPI_mask_allbutself_logical'),
    summit_send_IPI_all: toOnlineCpus('default_send_IPI_mask_sequence_logical'),
  },
};
