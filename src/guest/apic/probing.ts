/** Choosing a driver, as Linux does it: by the firmware's tables, then by asking each. The APIC's name for giving up is noop. */

import type { Assembler } from '../assembler/assembler.ts';
import { address, eax } from '../assembler/operands.ts';
import { type Method, structureOffset } from './apic-driver.ts';
import type { EmitFunction, GuestAbi, GuestFunctions } from './guest-abi.ts';

/**
 * Runs `each` for the drivers in order, their structure in the second saved register; `.chosen` takes it, falling through means
 * none.
 */
function forEachDriver(a: Assembler, abi: GuestAbi, method: Method, pass: () => void): void {
  const [at, structure] = abi.saved;
  a.mov(abi.saved32[0], address('__apicdrivers'));
  a.label('.next');
  a.cmp(at, address('__apicdrivers_end'));
  a.jae('.none');
  a.mov(structure, abi.pointer(at));
  a.add(at, abi.word);
  a.cmp(abi.pointer(structure, structureOffset(method, abi.word)), 0);
  a.je('.next');
  pass();
  a.call(abi.pointer(structure, structureOffset(method, abi.word)));
  a.test(eax, eax);
  a.jz('.next');
}

/** Takes the first driver whose method says yes to the texts; returns whether there was one. */
const chooseBy =
  (method: Method, texts?: readonly [string, string]): EmitFunction =>
  (a, abi) => {
    const [at, structure] = abi.saved;
    a.push(at);
    a.push(structure);
    forEachDriver(a, abi, method, () => {
      for (const [i, text] of (texts ?? []).entries()) a.mov(abi.arguments32[i], address(text));
    });
    a.mov(abi.pointer('apic'), structure);
    a.mov(eax, 1);
    a.jmp('.out');
    a.label('.none');
    a.xor(eax, eax);
    a.label('.out');
    a.pop(structure);
    a.pop(at);
    a.ret();
  };

export const probing: GuestFunctions = {
  probe_apic_drivers: chooseBy('probe'),
  default_acpi_madt_oem_check: chooseBy('acpiMadtOemCheck', ['acpi_oem_id', 'acpi_oem_table_id']),
  generic_mps_oem_check: chooseBy('mpsOemCheck', ['mp_oem_id', 'mp_product_id']),

  /**
   * 64-bit: tables, then everyone is asked again, who may stay chosen. 32-bit: the other way round, and bigsmp instead of
   * default.
   */
  default_setup_apic_routing(a, abi) {
    if (abi.bits === 64) {
      a.call('default_acpi_madt_oem_check');
      a.call('probe_apic_drivers');
      a.ret();
      return;
    }
    a.call('probe_apic_drivers');
    a.call('generic_mps_oem_check');
    a.call('default_acpi_madt_oem_check');
    a.cmp(abi.pointer('apic'), address('apic_default'));
    a.jne('.out');
    a.call('probe_bigsmp');
    a.test(eax, eax);
    a.jz('.out');
    a.mov(abi.pointer('apic'), address('apic_bigsmp'));
    a.label('.out');
    a.ret();
  },
  apic_disable(a, abi) {
    a.mov(abi.pointer('apic'), address('apic_noop'));
    a.ret();
  },
};
