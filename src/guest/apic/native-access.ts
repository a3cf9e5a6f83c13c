/**
 * Register access that drivers share: xAPIC registers in memory, x2APIC registers as MSRs, the interrupt command register, and
 * waiting for it. Written as a compiler makes it of Linux 3.4's C. `native_apic_msr_write` checks for the four registers that
 * x2APIC does not let one write, with one branch: what GCC makes of it where branches are dear (-mbranch-cost=4 and more).
 */

import type { Assembler } from '../assembler/assembler.ts';
import { address, al, dl, dword, eax, ecx, edi, edx, esi, mem, rax, rdi, rdx } from '../assembler/operands.ts';
import {
  APIC_BASE_MSR,
  APIC_DFR,
  APIC_EOI,
  APIC_ICR,
  APIC_ICR2,
  APIC_ICR_BUSY,
  APIC_ID,
  APIC_LDR,
  APIC_LVR,
  XAPIC_ID_SHIFT,
} from './apic-constants.ts';
import { type Method, structureOffset } from './apic-driver.ts';
import type { GuestAbi, GuestFunctions } from './guest-abi.ts';

const x2apicMsr = (register: number): number => APIC_BASE_MSR + (register >> 4);

/** Calls a method of the driver in use. Two arguments at most; the result register, or the scratch one, is lost. */
export function callMethod(a: Assembler, abi: GuestAbi, method: Method, how: 'call' | 'jmp' = 'call'): void {
  const structure = abi.bits === 64 ? abi.result : abi.scratch;
  a.mov(structure, abi.pointer('apic'));
  a[how](abi.pointer(structure, structureOffset(method, abi.word)));
}

/** An xAPIC register in memory, at a fixed place. */
export const apicRegister = (register: number) => dword(address('APIC_BASE', register));

/** The same, at an offset in the first argument, of which only 32 bits are defined. */
function indexedRegister(a: Assembler, abi: GuestAbi) {
  if (abi.bits === 64) a.mov(edi, edi).note('the upper half of an argument is undefined');
  return dword(abi.arguments[0], address('APIC_BASE'));
}

/** Turns the MSR's low bit differences into one test: register and its pair partner differ in bit 4 alone. */
const PAIR = 0x10;

export const nativeAccess: GuestFunctions = {
  native_apic_mem_write(a, abi) {
    const register = indexedRegister(a, abi);
    a.mov(register, abi.arguments32[1]);
    a.ret();
  },
  /** For processors with the 11AP erratum (early Pentiums): a locked read-modify-write instead of a plain store. */
  native_apic_mem_write_11ap(a, abi) {
    const register = indexedRegister(a, abi);
    a.xchg(register, abi.arguments32[1]);
    a.ret();
  },
  native_apic_mem_read(a, abi) {
    const register = indexedRegister(a, abi);
    a.mov(eax, register);
    a.ret();
  },

  native_apic_msr_write(a) {
    // reg == LDR || reg == DFR; reg == ID || reg == LVR
    if (((APIC_DFR - APIC_LDR) | (APIC_LVR ^ APIC_ID)) !== PAIR) throw new Error('the registers are no pairs');
    a.lea(eax, mem(rdi, -APIC_LDR));
    a.mov(edx, edi);
    a.and(eax, ~PAIR).note('0 for LDR and DFR');
    a.sete(al);
    a.and(edx, ~PAIR);
    a.cmp(edx, APIC_ID).note('ID and LVR');
    a.sete(dl);
    a.or(al, dl);
    a.jne('.out').note('x2APIC does not let one write those');
    a.shr(edi, 4);
    a.xor(edx, edx);
    a.mov(eax, esi);
    a.lea(ecx, mem(rdi, APIC_BASE_MSR));
    a.wrmsr();
    a.label('.out');
    a.ret();
  },
  /** The micro-optimisation: everything is known, nothing to compare. */
  native_apic_msr_eoi_write(a) {
    a.xor(eax, eax).note('APIC_EOI_ACK');
    a.mov(ecx, x2apicMsr(APIC_EOI));
    a.mov(edx, eax);
    a.wrmsr();
    a.ret();
  },
  native_apic_msr_read(a) {
    a.cmp(edi, APIC_DFR);
    a.je('.none').note('x2APIC has no DFR');
    a.shr(edi, 4);
    a.lea(ecx, mem(rdi, APIC_BASE_MSR));
    a.rdmsr();
    a.ret();
    a.label('.none');
    a.mov(eax, -1);
    a.ret();
  },

  /** (low, APIC ID) */
  native_apic_icr_write(a, abi) {
    const [saved] = abi.saved;
    const [first, second] = abi.arguments32;
    a.push(saved);
    a.mov(abi.saved32[0], first);
    a.shl(second, XAPIC_ID_SHIFT);
    a.mov(first, APIC_ICR2);
    callMethod(a, abi, 'write');
    a.mov(second, abi.saved32[0]);
    a.mov(first, APIC_ICR);
    callMethod(a, abi, 'write');
    a.pop(saved);
    a.ret();
  },
  /** Both halves: in RAX, or EDX:EAX. */
  native_apic_icr_read(a, abi) {
    const [saved] = abi.saved;
    a.push(saved);
    a.mov(abi.arguments32[0], APIC_ICR2);
    callMethod(a, abi, 'read');
    a.mov(abi.saved32[0], eax);
    a.mov(abi.arguments32[0], APIC_ICR);
    callMethod(a, abi, 'read');
    if (abi.bits === 64) a.shl(saved, 32).or(rax, saved);
    else a.mov(edx, saved);
    a.pop(saved);
    a.ret();
  },
  native_apic_wait_icr_idle(a, abi) {
    a.label('.again');
    a.mov(abi.arguments32[0], APIC_ICR);
    callMethod(a, abi, 'read');
    a.test(eax, APIC_ICR_BUSY);
    a.jz('.idle');
    a.pause();
    a.jmp('.again');
    a.label('.idle');
    a.ret();
  },
  /** The same with an end to patience, 100 ms; returns the delivery status. */
  native_safe_apic_wait_icr_idle(a, abi) {
    const [saved] = abi.saved;
    const [tries] = abi.saved32;
    a.push(saved);
    a.mov(tries, 1000);
    a.label('.again');
    a.mov(abi.arguments32[0], APIC_ICR);
    callMethod(a, abi, 'read');
    a.and(eax, APIC_ICR_BUSY);
    a.jz('.out');
    a.inc(abi.perCpu('icr_read_retry_count', 32));
    a.mov(abi.arguments32[0], 100);
    a.call('udelay');
    a.mov(eax, APIC_ICR_BUSY);
    a.dec(tries);
    a.jnz('.again');
    a.label('.out');
    a.pop(saved);
    a.ret();
  },

  /** (low, APIC ID): one register of 64 bits. */
  native_x2apic_icr_write(a) {
    a.mov(eax, edi);
    a.mov(edx, esi);
    a.mov(ecx, x2apicMsr(APIC_ICR));
    a.wrmsr();
    a.ret();
  },
  native_x2apic_icr_read(a) {
    a.mov(ecx, x2apicMsr(APIC_ICR));
    a.rdmsr();
    a.shl(rdx, 32);
    a.or(rax, rdx);
    a.ret();
  },
  /** x2APIC's ICR has no delivery status to wait for. */
  native_x2apic_wait_icr_idle(a) {
    a.ret();
  },
  native_safe_x2apic_wait_icr_idle(a) {
    a.xor(eax, eax);
    a.ret();
  },

  /** Of the identification register's contents. */
  xapic_get_apic_id(a, abi) {
    if (abi.bits === 64) a.mov(eax, edi);
    a.shr(eax, XAPIC_ID_SHIFT);
    a.ret();
  },
  xapic_set_apic_id(a, abi) {
    if (abi.bits === 64) a.mov(eax, edi);
    a.shl(eax, XAPIC_ID_SHIFT);
    a.ret();
  },
  x2apic_get_apic_id(a) {
    a.mov(eax, edi);
    a.ret();
  },
  x2apic_set_apic_id(a) {
    a.mov(eax, edi);
    a.ret();
  },

  /** Every interrupt handler's last act, as it was before the series and as it is since. */
  ack_APIC_irq_by_write(a, abi) {
    acknowledge(a, abi, 'write');
  },
  ack_APIC_irq_by_eoi_write(a, abi) {
    acknowledge(a, abi, 'eoiWrite');
  },
};

function acknowledge(a: Assembler, abi: GuestAbi, method: Method): void {
  const [register, value] = abi.arguments32;
  a.xor(value, value).note('APIC_EOI_ACK');
  a.mov(register, APIC_EOI);
  callMethod(a, abi, method, 'jmp');
}
