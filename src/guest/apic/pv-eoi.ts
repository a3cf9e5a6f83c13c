/**
 * The guest's half of PV EOI (patch 5): the override of `eoiWrite`, and the life cycle of the word that guest and host share.
 * Source: Documentation/virt/kvm/x86/msr.rst, MSR_KVM_EOI_EN.
 */

import { address, eax, ecx, edx, rax, rdx } from '../assembler/operands.ts';
import { KvmMsr } from '../../kvm/kvm-vcpu.ts';
import { structureOffset } from './apic-driver.ts';
import type { GuestFunctions } from './guest-abi.ts';

const KVM_PV_EOI_BIT = 0;
const KVM_MSR_ENABLED = 1;

export const PV_EOI_OVERRIDE = 'kvm_guest_apic_eoi_write';
/** Where the override finds the driver's own EOI. */
export const NATIVE_EOI_POINTER = 'apic_native_eoi_write';

export const pvEoi: GuestFunctions = {
  /**
   * (register, value). One instruction reads and clears the bit, so that nothing comes between; no LOCK, as only the host looks
   * at the word, and only while this CPU is out of guest mode.
   */
  [PV_EOI_OVERRIDE](a, abi) {
    const spare = abi.bits === 64 ? eax : ecx;
    a.btr(abi.perCpu('kvm_apic_eoi', 32), KVM_PV_EOI_BIT).note('the word: read and cleared at once');
    a.sbb(spare, spare).note('−1: the bit was set');
    a.test(spare, spare);
    a.jne('.ended').note('the host ends the interrupt at the next exit');
    a.jmp(abi.pointer(NATIVE_EOI_POINTER)).note("the driver's own EOI");
    a.label('.ended');
    a.ret();
  },

  /** (function): every driver's `eoiWrite`, and nothing else of it. At early boot, on one CPU, interrupts off. */
  apic_set_eoi_write(a, abi) {
    const offset = structureOffset('eoiWrite', abi.word);
    const [next, structure] = abi.saved;
    a.push(next);
    a.push(structure);
    a.mov(structure, abi.pointer('apic'));
    a.mov(structure, abi.pointer(structure, offset));
    a.mov(abi.pointer(NATIVE_EOI_POINTER), structure);
    a.mov(abi.saved32[0], address('__apicdrivers'));
    a.label('.next');
    a.cmp(next, address('__apicdrivers_end'));
    a.jae('.done');
    a.mov(structure, abi.pointer(next));
    a.mov(abi.pointer(structure, offset), abi.arguments[0]);
    a.add(next, abi.word);
    a.jmp('.next');
    a.label('.done');
    a.pop(structure);
    a.pop(next);
    a.ret();
  },

  /** Each CPU for itself, interrupts off: zeroes the word, then tells the host where it is. */
  kvm_guest_cpu_init(a, abi) {
    a.mov(abi.perCpu('kvm_apic_eoi', 32), 0);
    a.mov(abi.result, abi.perCpu('this_cpu_physical'));
    a.add(abi.result, address('kvm_apic_eoi'));
    a.or(eax, KVM_MSR_ENABLED);
    if (abi.bits === 64) a.mov(rdx, rax).shr(rdx, 32);
    else a.xor(edx, edx);
    a.mov(ecx, KvmMsr.pvEoi);
    a.wrmsr();
    a.ret();
  },
  /** On CPU offline, reboot and suspend: the host must not write to the word any more. */
  kvm_pv_guest_cpu_shutdown(a) {
    a.xor(eax, eax);
    a.xor(edx, edx);
    a.mov(ecx, KvmMsr.pvEoi);
    a.wrmsr();
    a.ret();
  },
};
