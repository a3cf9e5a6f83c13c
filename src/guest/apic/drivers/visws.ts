/**
 * visws: SGI's Visual Workstation. No driver of its own: the default one, and an interrupt chip (Cobalt) whose acknowledge ends
 * the interrupt at the local APIC by the plain register write, so that no `eoiWrite` ever sees it.
 */

import { address, dword, eax, ecx, edx } from '../../assembler/operands.ts';
import { APIC_EOI, APIC_EOI_ACK } from '../apic-constants.ts';
import type { ApicDriver } from '../apic-driver.ts';
import { callMethod } from '../native-access.ts';
import { defaultDriver } from './default.ts';
import { COBALT_ENTRY_SHIFT } from '../../../interrupts/cobalt-apic.ts';
import { REDIRECTION_MASKED } from '../../../interrupts/io-apic.ts';

export const visws: ApicDriver = {
  ...defaultDriver,
  name: 'visws',
  cpus: { most: 4, why: 'the machine has four sockets' },
  functions: {
    /** (entry): masks it, and reads it back so that the write has arrived. */
    disable_cobalt_irq(a) {
      a.shl(eax, COBALT_ENTRY_SHIFT);
      a.or(dword(eax, address('COBALT_APIC_BASE')), REDIRECTION_MASKED);
      a.mov(ecx, dword(eax, address('COBALT_APIC_BASE')));
      a.ret();
    },
    /** (entry) */
    enable_cobalt_irq(a) {
      a.shl(eax, COBALT_ENTRY_SHIFT);
      a.and(dword(eax, address('COBALT_APIC_BASE')), ~REDIRECTION_MASKED);
      a.ret();
    },
    /** (entry) */
    ack_cobalt_irq(a, abi) {
      a.pushf();
      a.cli();
      a.label('.lock');
      a.lock().bts(dword('cobalt_lock'), 0);
      a.jc('.lock');
      a.call('disable_cobalt_irq');
      a.mov(edx, APIC_EOI_ACK);
      a.mov(eax, APIC_EOI);
      callMethod(a, abi, 'write');
      a.mov(dword('cobalt_lock'), 0);
      a.popf();
      a.ret();
    },
  },
};
