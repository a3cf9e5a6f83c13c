import { describe, expect, it } from 'vitest';
import { EOI_STATES } from './apic/driver-code.ts';
import { DRIVERS, driverNamed } from './apic/drivers/all.ts';
import { eoiPaths } from './eoi-cost.ts';
import { compareObjdumps, objdump } from './listing.ts';

const X2APIC = ['x2apic_cluster', 'x2apic_phys', 'x2apic_uv_x'] as const;

describe('what an EOI costs', () => {
  it.each(X2APIC)('%s: the micro-optimisation shaves off a branch and about 9 instructions', (name) => {
    const [before] = eoiPaths(driverNamed(name), 'callback');
    const [after] = eoiPaths(driverNamed(name), 'x2apic-eoi');
    expect(before.conditionalBranches - after.conditionalBranches).toBe(1);
    expect(after.conditionalBranches).toBe(0);
    const saved = before.instructions - after.instructions;
    expect(Math.abs(saved - 9)).toBeLessThanOrEqual(1);
    expect([before.instructions, after.instructions]).toEqual([19, 9]);
    expect([before.apicAccess, after.apicAccess]).toEqual(['msr', 'msr']);
  });

  it.each(DRIVERS.map((driver) => ({ driver, title: `${driver.name} (${driver.bits}-bit)` })))(
    '$title: the callback alone costs nothing, and PV EOI has one path that never touches the APIC',
    ({ driver }) => {
      const [before, callback] = EOI_STATES.map((state) => eoiPaths(driver, state));
      expect(before).toHaveLength(1);
      expect(callback[0].instructions).toBe(before[0].instructions);
      const paths = eoiPaths(driver, 'pv-eoi');
      expect(paths.map(({ when }) => when)).toEqual(['the bit set', 'the bit clear']);
      const [ended, real] = paths;
      expect(ended.apicAccess).toBe('none');
      expect(ended.functions).toEqual(['ack_APIC_irq_by_eoi_write', 'kvm_guest_apic_eoi_write']);
      const [own] = eoiPaths(driver, 'x2apic-eoi');
      expect(real.apicAccess).toBe(own.apicAccess);
      expect(real.functions.at(-1)).toBe(own.functions.at(-1));
      // BTR, SBB, TEST, JNE and JMP in front of what it was.
      expect(real.instructions).toBe(own.instructions + 5);
    },
  );

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
