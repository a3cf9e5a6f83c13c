/**
 * NUMAQ: IBM's (Sequent's) machines of quads, four Pentium IIs or IIIs each; logical IDs are a quad's number and a bit in it, set
 * by firmware. Application processors start at an NMI, through a warm-reset vector.
 */

import { dword, eax, ebx, edx } from '../../assembler/operands.ts';
import { APIC_DM_NMI } from '../apic-constants.ts';
import { type ApicDriver, structureOffset } from '../apic-driver.ts';
import { toOnlineCpus } from '../ipi.ts';
import { callMethod } from '../native-access.ts';
import { compareText } from '../text.ts';
import { XAPIC_ACCESS } from './flat.ts';

/** I/O interrupts go to whatever APIC of the quad wants them. */
const IO_DESTINATION = 0x0f;
const QUAD_ID_BITS = 0x0f;

export const numaq: ApicDriver = {
  name: 'numaq',
  title: 'NUMAQ',
  bits: 32,
  deliveryMode: 'lowest-priority',
  destinationMode: 'physical',
  ipiDestination: 'logical',
  disableEsr: true,
  methods: {
    ...XAPIC_ACCESS,
    probe: 'probe_numaq',
    mpsOemCheck: 'numaq_mps_oem_check',
    targetCpus: 'all_target_cpus',
    earlyLogicalApicId: 'numaq_early_logical_apicid',
    initApicLdr: 'no_init_apic_ldr',
    getApicId: 'numaq_get_apic_id',
    setApicId: 'numaq_set_apic_id',
    cpuMaskToApicId: 'numaq_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'numaq_cpu_mask_to_apicid',
    sendIpiMask: 'default_send_IPI_mask_sequence_logical',
    sendIpiAllButSelf: 'numaq_send_IPI_allbutself',
    sendIpiAll: 'numaq_send_IPI_all',
    sendIpiSelf: 'default_send_IPI_self',
    wakeupSecondaryCpu: 'wakeup_secondary_cpu_via_nmi',
  },
  functions: {
    /** Found already where the MP table was read. */
    probe_numaq(a) {
      a.mov(eax, dword('found_numaq'));
      a.ret();
    },
    /** (OEM, product) */
    numaq_mps_oem_check(a) {
      compareText(a, eax, 'IBM NUMA', '.no');
      a.mov(dword('found_numaq'), 1);
      a.mov(eax, 1);
      a.ret();
      a.label('.no');
      a.xor(eax, eax);
      a.ret();
    },
    numaq_get_apic_id(a) {
      a.shr(eax, 24);
      a.and(eax, QUAD_ID_BITS);
      a.ret();
    },
    numaq_set_apic_id(a) {
      a.and(eax, QUAD_ID_BITS);
      a.shl(eax, 24);
      a.ret();
    },
    numaq_cpu_mask_to_apicid(a) {
      a.mov(eax, IO_DESTINATION);
      a.ret();
    },
    numaq_send_IPI_allbutself: toOnlineCpus('default_send_IPI_mask_allbutself_logical'),
    numaq_send_IPI_all: toOnlineCpus('default_send_IPI_mask_sequence_logical'),
    /** (logical APIC ID, start address): the address is in the warm-reset vector by then. */
    wakeup_secondary_cpu_via_nmi(a, abi) {
      a.push(ebx);
      a.mov(edx, eax);
      a.mov(eax, dword('apic'));
      a.mov(eax, dword(eax, structureOffset('destLogical', abi.word)));
      a.or(eax, APIC_DM_NMI);
      callMethod(a, abi, 'icrWrite');
      callMethod(a, abi, 'safeWaitIcrIdle');
      a.mov(ebx, eax);
      a.mov(eax, 200);
      a.call('udelay');
      a.mov(eax, ebx);
      a.pop(ebx);
      a.ret();
    },
  },
};
