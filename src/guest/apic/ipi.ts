/**
 * Sending interprocessor interrupts through the xAPIC's interrupt command register, as the drivers share it: to a destination, by
 * shorthand, or one CPU after the other. A CPU mask is a machine word of bits, passed by address.
 */

import type { Assembler } from '../assembler/assembler.ts';
import { address, dword, eax, type GeneralRegister, mem, rax, rdx, times } from '../assembler/operands.ts';
import {
  APIC_DEST_ALLBUT,
  APIC_DEST_ALLINC,
  APIC_DEST_SELF,
  APIC_DM_INIT,
  APIC_DM_NMI,
  APIC_DM_STARTUP,
  APIC_ICR,
  APIC_ICR2,
  APIC_ICR_BUSY,
  APIC_INT_ASSERT,
  APIC_INT_LEVELTRIG,
  NMI_VECTOR,
  XAPIC_ID_SHIFT,
} from './apic-constants.ts';
import { structureOffset } from './apic-driver.ts';
import type { EmitFunction, GuestAbi, GuestFunctions } from './guest-abi.ts';
import { apicRegister, callMethod } from './native-access.ts';

/** Waits, with nothing but flags lost, until the last IPI is on its way. */
function waitIcrIdle(a: Assembler): void {
  a.label('.wait');
  a.test(apicRegister(APIC_ICR), APIC_ICR_BUSY);
  a.jz('.idle');
  a.pause();
  a.jmp('.wait');
  a.label('.idle');
}

/** ICR's destination mode, as the driver in use has it. */
export function loadDestinationMode(a: Assembler, abi: GuestAbi, into = abi.arguments[2]): void {
  a.mov(into, abi.pointer('apic'));
  a.mov(into, abi.pointer(into, structureOffset('destLogical', abi.word)));
}

/** Leaves the function `.none` where the CPU that runs this is the only one online. */
export function returnIfAlone(a: Assembler, abi: GuestAbi, spare: readonly [GeneralRegister, GeneralRegister]): void {
  const [mask, rest] = spare;
  a.mov(mask, abi.pointer('cpu_online_mask'));
  a.lea(rest, mem(mask, -1));
  a.test(mask, rest);
  a.jz('.none');
}

/** (vector) → target(mask of the online CPUs, vector) */
export const toOnlineCpus =
  (target: string): EmitFunction =>
  (a, abi) => {
    const [mask, vector] = abi.arguments32;
    a.mov(vector, mask);
    a.mov(mask, address('cpu_online_mask'));
    a.jmp(target);
  };

/** Runs `each` for every CPU of the mask in the first saved register, its number in the result register. */
export function forEachCpu(a: Assembler, abi: GuestAbi, each: () => void): void {
  const [mask] = abi.saved;
  a.label('.next');
  a.bsf(abi.result, mask);
  a.jz('.done');
  a.btr(mask, abi.result);
  each();
  a.jmp('.next');
  a.label('.done');
}

/** (mask, vector): calls `sendOne` (CPU, vector) for each CPU. */
export const oneByOne =
  (sendOne: string, exceptSelf: boolean): EmitFunction =>
  (a, abi) => {
    const [mask, vector] = abi.saved;
    const [, vector32] = abi.saved32;
    a.push(mask);
    a.push(vector);
    a.mov(vector32, abi.arguments32[1]);
    a.mov(mask, abi.pointer(abi.arguments[0]));
    if (exceptSelf) a.mov(eax, abi.perCpu('cpu_number', 32)).btr(mask, abi.result);
    forEachCpu(a, abi, () => {
      a.mov(abi.arguments32[0], eax);
      a.mov(abi.arguments32[1], vector32);
      a.call(sendOne);
    });
    a.pop(vector);
    a.pop(mask);
    a.ret();
  };

/** (mask, vector): one ICR write for each CPU, by physical or logical ID. */
const sequence =
  (ids: 'physical' | 'logical', exceptSelf: boolean): EmitFunction =>
  (a, abi) => {
    const [mask, vector] = abi.saved;
    const [, vector32] = abi.saved32;
    a.push(mask);
    a.push(vector);
    a.pushf();
    a.cli();
    a.mov(vector32, abi.arguments32[1]);
    a.mov(mask, abi.pointer(abi.arguments[0]));
    if (exceptSelf) {
      a.mov(eax, abi.perCpu('cpu_number', 32));
      a.btr(mask, abi.result);
    }
    forEachCpu(a, abi, () => {
      a.mov(
        abi.arguments32[0],
        dword(times(abi.result, 4), address(ids === 'physical' ? 'x86_cpu_to_apicid' : 'x86_cpu_to_logical_apicid')),
      );
      a.mov(abi.arguments32[1], vector32);
      if (ids === 'physical') a.xor(abi.arguments32[2], abi.arguments32[2]);
      else loadDestinationMode(a, abi);
      a.call('__default_send_IPI_dest_field');
    });
    a.popf();
    a.pop(vector);
    a.pop(mask);
    a.ret();
  };

/** Shorthands for all, and all but self, unless the IPI is an NMI: those go to the CPUs online alone, one field at a time. */
const broadcast =
  (shorthand: number, maskMethod: 'sendIpiMask' | 'sendIpiMaskAllButSelf', whenAlone: boolean): EmitFunction =>
  (a, abi) => {
    const [first, vector] = abi.arguments32;
    if (!whenAlone) returnIfAlone(a, abi, abi.bits === 64 ? [rax, rdx] : [abi.arguments[1], abi.arguments[2]]);
    a.mov(vector, first);
    a.cmp(dword('no_broadcast'), 0);
    a.jne('.mask');
    a.cmp(vector, NMI_VECTOR);
    a.je('.mask');
    loadDestinationMode(a, abi);
    a.mov(first, shorthand);
    a.jmp('__default_send_IPI_shortcut');
    a.label('.mask');
    a.mov(first, address('cpu_online_mask'));
    callMethod(a, abi, maskMethod, 'jmp');
    a.label('.none');
    a.ret();
  };

const self: EmitFunction = (a, abi) => {
  const [first, vector] = abi.arguments32;
  a.mov(vector, first);
  a.mov(first, APIC_DEST_SELF);
  loadDestinationMode(a, abi);
  a.jmp('__default_send_IPI_shortcut');
};

export const sharedIpis: GuestFunctions = {
  /** (destination, vector, destination mode) */
  __default_send_IPI_dest_field(a, abi) {
    const [destination, vector, mode] = abi.arguments32;
    a.cmp(vector, NMI_VECTOR);
    a.je('.nmi');
    waitIcrIdle(a);
    a.shl(destination, XAPIC_ID_SHIFT);
    a.mov(apicRegister(APIC_ICR2), destination);
    a.or(mode, vector);
    a.mov(apicRegister(APIC_ICR), mode);
    a.ret();
    a.label('.nmi');
    for (const register of [abi.arguments[0], abi.arguments[2]]) a.push(register);
    callMethod(a, abi, 'safeWaitIcrIdle');
    for (const register of [abi.arguments[2], abi.arguments[0]]) a.pop(register);
    a.shl(destination, XAPIC_ID_SHIFT);
    a.mov(apicRegister(APIC_ICR2), destination);
    a.or(mode, APIC_DM_NMI);
    a.mov(apicRegister(APIC_ICR), mode);
    a.ret();
  },
  /** (shorthand, vector, destination mode) */
  __default_send_IPI_shortcut(a, abi) {
    const [shorthand, vector, mode] = abi.arguments32;
    waitIcrIdle(a);
    a.or(shorthand, mode);
    a.cmp(vector, NMI_VECTOR);
    a.jne('.fixed');
    a.mov(vector, APIC_DM_NMI);
    a.label('.fixed');
    a.or(shorthand, vector);
    a.mov(apicRegister(APIC_ICR), shorthand);
    a.ret();
  },
  default_send_IPI_mask_sequence_phys: sequence('physical', false),
  default_send_IPI_mask_allbutself_phys: sequence('physical', true),
  default_send_IPI_mask_sequence_logical: sequence('logical', false),
  default_send_IPI_mask_allbutself_logical: sequence('logical', true),
  /** (mask, vector): one ICR write, the mask being the logical destination. */
  default_send_IPI_mask_logical(a, abi) {
    const [mask] = abi.arguments32;
    a.mov(mask, dword(abi.arguments[0]));
    a.test(mask, mask);
    a.jz('.none');
    a.pushf();
    a.cli();
    loadDestinationMode(a, abi);
    a.call('__default_send_IPI_dest_field');
    a.popf();
    a.label('.none');
    a.ret();
  },
  default_send_IPI_allbutself: broadcast(APIC_DEST_ALLBUT, 'sendIpiMaskAllButSelf', false),
  default_send_IPI_all: broadcast(APIC_DEST_ALLINC, 'sendIpiMask', true),
  default_send_IPI_self: self,
  apic_send_IPI_self: self,

  /** (APIC ID, start address): INIT, then STARTUP twice. SDM 3A 9.4.4.1. */
  wakeup_secondary_cpu_via_init(a, abi) {
    const [id, start, rounds] = abi.saved;
    const [id32, start32, rounds32] = abi.saved32;
    const icr = (low: number | GeneralRegister): void => {
      a.mov(abi.arguments32[1], id32);
      a.mov(abi.arguments32[0], low);
      callMethod(a, abi, 'icrWrite');
      callMethod(a, abi, 'safeWaitIcrIdle');
    };
    const delay = (microseconds: number): void => {
      a.mov(abi.arguments32[0], microseconds);
      a.call('udelay');
    };
    for (const register of [id, start, rounds]) a.push(register);
    a.mov(id32, abi.arguments32[0]);
    a.mov(start32, abi.arguments32[1]);
    icr(APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
    delay(10); // processors since the Pentium 4 need none; earlier ones 10 ms
    icr(APIC_INT_LEVELTRIG | APIC_DM_INIT); // de-assert
    a.shr(start32, 12);
    a.or(start32, APIC_DM_STARTUP); // at that page
    a.mov(rounds32, 2);
    a.label('.startup');
    icr(start32);
    delay(10); // likewise: 200 µs
    a.dec(rounds32);
    a.jnz('.startup');
    for (const register of [rounds, start, id]) a.pop(register);
    a.xor(eax, eax);
    a.ret();
  },
};
