/** What the drivers of x2APIC mode share: registers are MSRs, an IPI to oneself is one write. SDM 3A 11.12. */

import { APIC_SELF_IPI } from '../apic-constants.ts';
import type { EmitFunction, GuestFunctions } from '../guest-abi.ts';
import { callMethod } from '../native-access.ts';

export const X2APIC_ACCESS = {
  read: 'native_apic_msr_read',
  write: 'native_apic_msr_write',
  eoiWrite: 'native_apic_msr_write',
  icrRead: 'native_x2apic_icr_read',
  icrWrite: 'native_x2apic_icr_write',
  waitIcrIdle: 'native_x2apic_wait_icr_idle',
  safeWaitIcrIdle: 'native_safe_x2apic_wait_icr_idle',
  getApicId: 'x2apic_get_apic_id',
  setApicId: 'x2apic_set_apic_id',
  sendIpiSelf: 'x2apic_send_IPI_self',
} as const;

export const DIRECT_EOI = 'native_apic_msr_eoi_write';

/** (vector) */
const selfIpi: EmitFunction = (a, abi) => {
  a.mov(abi.arguments32[1], abi.arguments32[0]);
  a.mov(abi.arguments32[0], APIC_SELF_IPI);
  callMethod(a, abi, 'write', 'jmp');
};

export const x2apicIpis: GuestFunctions = { x2apic_send_IPI_self: selfIpi };
