import { describe, expect, it } from 'vitest';
import { EOI_STATES } from '../guest/apic/driver-code.ts';
import { DRIVERS, driverNamed } from '../guest/apic/drivers/all.ts';
import { pathCounts } from '../machine/call-tracer.ts';
import { type DriverEois, traceDriverEois } from './driver-eoi.ts';

const X2APIC = ['x2apic_cluster', 'x2apic_phys', 'x2apic_uv_x'] as const;
const countsOf = ({ paths }: DriverEois) => paths.map(pathCounts);

describe('an EOI, counted as it is executed', () => {
  it.each(X2APIC)('%s: the micro-optimisation shaves off a branch and about 9 instructions', (name) => {
    const [[before], [after]] = (['callback', 'x2apic-eoi'] as const).map((state) =>
      countsOf(traceDriverEois(driverNamed(name), state)),
    );
    expect(before).toEqual({
      instructions: 19,
      branches: 1,
      branchesTaken: 0,
      transfers: 2,
      reads: 3,
      writes: 0,
      exits: { 'msr-write': 1 },
    });
    expect(after).toEqual({
      instructions: 9,
      branches: 0,
      branchesTaken: 0,
      transfers: 2,
      reads: 3,
      writes: 0,
      exits: { 'msr-write': 1 },
    });
    expect(Math.abs(before.instructions - after.instructions - 9)).toBeLessThanOrEqual(1);
  });

  it.each(DRIVERS.filter(({ name }) => name !== 'noop').map((driver) => ({ driver, title: driver.name })))(
    '$title: the callback alone costs nothing, and PV EOI has one path without an exit',
    ({ driver }) => {
      const [before, callback, own, pv] = EOI_STATES.map((state) => traceDriverEois(driver, state));
      expect(countsOf(before)).toHaveLength(1);
      expect(countsOf(callback)).toEqual(countsOf(before));
      const [native] = countsOf(own);
      const [ended, written] = countsOf(pv);
      expect(ended).toMatchObject({ instructions: 9, branches: 1, branchesTaken: 1, exits: {} });
      expect(pv.paths[0].cycles / pv.paths[0].calls).toBe(9);
      // BTR, SBB, TEST, JNE and JMP in front of what it was.
      expect(written).toMatchObject({ instructions: native.instructions + 5, branchesTaken: 0, exits: native.exits });
      const functions = pv.paths.map(({ steps }) => pv.symbols.functions(steps.map(({ guestVirtual }) => guestVirtual)));
      expect(functions[0]).toEqual(['ack_APIC_irq_by_eoi_write', 'kvm_guest_apic_eoi_write']);
      expect(functions[1]).toEqual([...functions[0], driver.directEoi ?? driver.methods.eoiWrite]);
    },
  );

  it('sees what is accessed, and where', () => {
    const { paths } = traceDriverEois(driverNamed('flat'), 'pv-eoi');
    const accesses = paths[1].steps.flatMap((step) => step.accesses.map(({ kind, bytes }) => `${kind} ${bytes}`));
    // The driver's address, its method's, the word (read and written), the native EOI's address, the APIC, the return address.
    expect(accesses).toEqual(['read 8', 'read 8', 'read 4', 'write 4', 'read 8', 'write 4', 'read 8']);
    const apic = paths[1].steps.find(({ exits }) => exits.length)?.accesses[0];
    expect(apic).toMatchObject({ kind: 'write', guestVirtual: 0xffff_ffff_fee0_00b0n });
  });
});
