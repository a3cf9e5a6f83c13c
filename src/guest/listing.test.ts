import { describe, expect, it } from 'vitest';
import { driverNamed } from './apic/drivers/all.ts';
import { compareObjdumps, objdump } from './listing.ts';

describe('objdump', () => {
  it('is listed with bytes, beside each other', () => {
    const [left, right] = [
      objdump(driverNamed('x2apic_phys'), 'eoiWrite', 'callback'),
      objdump(driverNamed('x2apic_phys'), 'eoiWrite', 'x2apic-eoi'),
    ];
    expect(left[0]).toBe('native_apic_msr_write: 43 bytes, 15 instructions');
    expect(right).toEqual([
      'native_apic_msr_eoi_write: 12 bytes, 5 instructions',
      '   0  31 c0                     xor eax, eax                          ; APIC_EOI_ACK',
      '   2  b9 0b 08 00 00            mov ecx, 0x80b',
      '   7  89 c2                     mov edx, eax',
      '   9  0f 30                     wrmsr',
      '   b  c3                        ret',
    ]);
    const both = compareObjdumps(driverNamed('x2apic_phys'), 'eoiWrite', ['callback', 'x2apic-eoi']);
    expect(both).toHaveLength(1 + left.length);
    expect(both[1]).toContain(left[0]);
    expect(both[1]).toContain(right[0]);
    expect(objdump(driverNamed('bigsmp'), 'sendIpiMaskAllButSelf', 'callback')).toEqual([]);
  });

  it('falls back to the driver of its own: objdump shows both functions of PV EOI', () => {
    const lines = objdump(driverNamed('flat'), 'eoiWrite', 'pv-eoi');
    expect(lines.filter((line) => /^\w+: \d+ bytes/.test(line)).map((line) => line.split(':')[0])).toEqual([
      'kvm_guest_apic_eoi_write',
      'native_apic_mem_write',
    ]);
  });
});
