/**
 * NumaConnect system: AMD machines coupled by Numascale's chip. IPIs are stores to the chip's control and status registers, which
 * are big-endian; an APIC ID has more bits than the register holds. Register facts: Linux's numachip_csr.h.
 */

import type { Assembler } from '../../assembler/assembler.ts';
import { address, dword, eax, ebx, ecx, edi, edx, esi, mem, rax, rbx, times } from '../../assembler/operands.ts';
import {
  APIC_DEST_PHYSICAL,
  APIC_DEST_SELF,
  APIC_DM_INIT,
  APIC_DM_NMI,
  APIC_DM_STARTUP,
  NMI_VECTOR,
  XAPIC_ID_SHIFT,
} from '../apic-constants.ts';
import type { ApicDriver } from '../apic-driver.ts';
import { oneByOne, toOnlineCpus } from '../ipi.ts';
import { compareText } from '../text.ts';
import {
  CSR_G3_EXT_IRQ_GEN,
  EXT_IRQ_APIC_ID_SHIFT,
  NUMACHIP_CSR_NON_GEO,
  NUMACHIP_LCSR_BASE,
  NUMACHIP_LCSR_BYTES,
} from '../../../devices/numachip-csr.ts';
import { flat } from './flat.ts';

/** Where the local registers are in their space: as those of node 0xFFF0, which is whoever asks. */
const LOCAL_NODE = 0xfff0;
const NODE_SHIFT = 16;
const lcsrOffset = (register: number): number => ((LOCAL_NODE * 2 ** NODE_SHIFT) % NUMACHIP_LCSR_BYTES) + NUMACHIP_CSR_NON_GEO + register;
const MSR_FAM10H_NODE_ID = 0xc001_100c;
/** Bits 11:6, in which firmware keeps the server's number, go to bits 13:8 of the ID. */
const NODE_TO_ID_SHIFT = 2;
const NODE_ID_BITS = 0x3f00;

/** Stores EAX in the register, big-endian. */
function writeCsr(a: Assembler): void {
  a.bswap(eax);
  a.mov(dword(address('MMIO_WINDOW', lcsrOffset(CSR_G3_EXT_IRQ_GEN))), eax);
}

export const numachip: ApicDriver = {
  ...flat,
  name: 'numachip',
  title: 'NumaConnect system',
  cpus: undefined,
  deliveryMode: 'fixed',
  destinationMode: 'physical',
  ipiDestination: 'physical',
  methods: {
    ...flat.methods,
    probe: 'numachip_probe',
    acpiMadtOemCheck: 'numachip_acpi_madt_oem_check',
    getApicId: 'numachip_get_apic_id',
    cpuMaskToApicId: 'physical_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'physical_cpu_mask_to_apicid_and',
    sendIpiMask: 'numachip_send_IPI_mask',
    sendIpiMaskAllButSelf: 'numachip_send_IPI_mask_allbutself',
    sendIpiAllButSelf: 'numachip_send_IPI_allbutself',
    sendIpiAll: 'numachip_send_IPI_all',
    sendIpiSelf: 'numachip_send_IPI_self',
    wakeupSecondaryCpu: 'numachip_wakeup_secondary',
  },
  functions: {
    numachip_probe(a, abi) {
      a.xor(eax, eax);
      a.cmp(abi.pointer('apic'), address('apic_numachip'));
      a.jne('.no');
      a.inc(eax);
      a.label('.no');
      a.ret();
    },
    numachip_acpi_madt_oem_check(a, abi) {
      a.xor(eax, eax);
      compareText(a, abi.arguments[0], 'NUMASC', '.no');
      a.inc(eax);
      a.label('.no');
      a.ret();
    },
    /** Maps the registers. */
    numachip_system_init(a, abi) {
      a.mov(abi.arguments[0], BigInt(NUMACHIP_LCSR_BASE));
      a.jmp('map_mmio_window');
    },
    numachip_get_apic_id(a) {
      a.shr(edi, XAPIC_ID_SHIFT);
      a.mov(ecx, MSR_FAM10H_NODE_ID);
      a.rdmsr();
      a.shl(eax, NODE_TO_ID_SHIFT);
      a.and(eax, NODE_ID_BITS);
      a.or(eax, edi);
      a.ret();
    },
    /** (CPU, vector) */
    numachip_send_IPI_one(a) {
      a.mov(eax, edi);
      a.mov(eax, dword(times(rax, 4), address('x86_cpu_to_apicid')));
      a.shl(eax, EXT_IRQ_APIC_ID_SHIFT);
      a.cmp(esi, NMI_VECTOR);
      a.jne('.fixed');
      a.or(esi, APIC_DM_NMI);
      a.label('.fixed');
      a.or(eax, esi);
      writeCsr(a);
      a.ret();
    },
    numachip_send_IPI_mask: oneByOne('numachip_send_IPI_one', false),
    numachip_send_IPI_mask_allbutself: oneByOne('numachip_send_IPI_one', true),
    numachip_send_IPI_allbutself: toOnlineCpus('numachip_send_IPI_mask_allbutself'),
    numachip_send_IPI_all: toOnlineCpus('numachip_send_IPI_mask'),
    /** The only one that goes through the APIC. */
    numachip_send_IPI_self(a) {
      a.mov(esi, edi);
      a.mov(edi, APIC_DEST_SELF);
      a.mov(edx, APIC_DEST_PHYSICAL);
      a.jmp('__default_send_IPI_shortcut');
    },
    /** (APIC ID, start address): the chip takes INIT and STARTUP like any other message. */
    numachip_wakeup_secondary(a) {
      a.push(rbx);
      a.mov(ebx, edi);
      a.shl(ebx, EXT_IRQ_APIC_ID_SHIFT);
      a.lea(eax, mem(rbx, APIC_DM_INIT));
      writeCsr(a);
      a.shr(esi, 12);
      a.lea(eax, mem(rbx, APIC_DM_STARTUP));
      a.or(eax, esi);
      writeCsr(a);
      a.pop(rbx);
      a.xor(eax, eax);
      a.ret();
    },
  },
};
