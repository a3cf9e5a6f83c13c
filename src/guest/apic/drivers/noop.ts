/**
 * noop: there is no APIC. Reads give 0, writes and IPIs do nothing; a use while there is an APIC after all is worth a warning.
 */

import type { Assembler } from '../../assembler/assembler.ts';
import { dword, eax } from '../../assembler/operands.ts';
import type { ApicDriver } from '../apic-driver.ts';
import type { GuestBits } from '../guest-abi.ts';

/** Counts what Linux warns of: the register is used though an APIC exists and is not disabled. */
function warn(a: Assembler): void {
  a.cmp(dword('boot_cpu_has_apic'), 0);
  a.je('.right');
  a.cmp(dword('disable_apic'), 0);
  a.jne('.right');
  a.inc(dword('noop_warnings'));
  a.label('.right');
}

export const noopDriver = (bits: GuestBits): ApicDriver => ({
  name: 'noop',
  title: 'noop',
  bits,
  deliveryMode: 'lowest-priority',
  destinationMode: 'logical',
  ipiDestination: 'logical',
  disableEsr: false,
  cpus: { most: 1, why: 'there is nothing to start others with' },
  methods: {
    probe: 'noop_returns_0',
    targetCpus: 'own_target_cpu',
    initApicLdr: 'noop_does_nothing',
    getApicId: 'noop_returns_0',
    cpuMaskToApicId: 'default_cpu_mask_to_apicid',
    cpuMaskToApicIdAnd: 'default_cpu_mask_to_apicid_and',
    sendIpiMask: 'noop_does_nothing',
    sendIpiMaskAllButSelf: 'noop_does_nothing',
    sendIpiAllButSelf: 'noop_does_nothing',
    sendIpiAll: 'noop_does_nothing',
    sendIpiSelf: 'noop_does_nothing',
    wakeupSecondaryCpu: 'noop_wakeup_secondary_cpu',
    read: 'noop_apic_read',
    write: 'noop_apic_write',
    eoiWrite: 'noop_apic_write',
    icrRead: 'noop_icr_read',
    icrWrite: 'noop_does_nothing',
    waitIcrIdle: 'noop_does_nothing',
    safeWaitIcrIdle: 'noop_returns_0',
  },
  functions: {
    noop_does_nothing(a) {
      a.ret();
    },
    noop_returns_0(a) {
      a.xor(eax, eax);
      a.ret();
    },
    noop_icr_read(a, abi) {
      a.xor(eax, eax);
      if (abi.bits === 32) a.cdq();
      a.ret();
    },
    noop_wakeup_secondary_cpu(a) {
      a.mov(eax, -1);
      a.ret();
    },
    noop_apic_read(a) {
      warn(a);
      a.xor(eax, eax);
      a.ret();
    },
    noop_apic_write(a) {
      warn(a);
      a.ret();
    },
  },
});
