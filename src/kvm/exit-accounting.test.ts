import { describe, expect, it } from 'vitest';
import { Counters } from '../trace/counters.ts';
import { formatFields } from '../trace/ftrace-text.ts';
import { Tracer } from '../trace/tracepoints.ts';
import { COST_PROFILES, DEFAULT_COST_PROFILE } from './cost-profile.ts';
import { Exit, exitDetail } from './exit.ts';
import { ExitAccounting } from './exit-accounting.ts';

const setUp = (profile = DEFAULT_COST_PROFILE) => {
  const counters = new Counters(2);
  const tracer = new Tracer(() => 0);
  let ripReads = 0;
  const accounting = new ExitAccounting({
    counters,
    profile,
    tracer,
    isa: 'svm',
    rip: () => {
      ripReads++;
      return 0xffff_ffff_8106_1234n;
    },
  });
  const counts = () => counters.snapshot(() => ({ instructions: 0, inIrr: 0, inIsr: 0 }));
  return { accounting, tracer, counts, ripReads: () => ripReads };
};

describe('exit accounting', () => {
  it('counts by vCPU and reason, and charges what it returns', () => {
    const { accounting, counts } = setUp();
    const cpuid = accounting.exit(1, Exit.cpuid);
    const hlt = accounting.exit(1, Exit.hlt);
    accounting.exit(1, Exit.hlt);
    expect([cpuid, hlt]).toEqual([DEFAULT_COST_PROFILE.exitCycles.cpuid, DEFAULT_COST_PROFILE.exitCycles.hlt]);
    const { vcpus } = counts();
    expect(vcpus[1].exits).toEqual({
      total: 3,
      byReason: { hlt: 2, cpuid: 1 },
      cyclesByReason: { hlt: 2 * hlt, cpuid },
    });
    expect(vcpus[1].cyclesCharged).toBe(cpuid + 2 * hlt);
    expect(vcpus[0].exits.total).toBe(0);
  });

  it('an exit that user space completes costs more', () => {
    const { accounting } = setUp();
    const kernel = accounting.exit(0, Exit.io, exitDetail.io(0x40, 1, true));
    const userspace = accounting.exit(0, Exit.io, exitDetail.io(0x3f8, 1, false), 0, 'userspace');
    expect(userspace - kernel).toBe(DEFAULT_COST_PROFILE.userspaceCycles);
  });

  it('charges injection and wake-up apart from exits', () => {
    const { accounting, counts } = setUp();
    const cycles = accounting.inject(0, 0xec) + accounting.wakeup(0);
    expect(cycles).toBe(DEFAULT_COST_PROFILE.injectionCycles + DEFAULT_COST_PROFILE.wakeupCycles);
    expect(counts().vcpus[0]).toMatchObject({ cyclesCharged: cycles, exits: { total: 0, cyclesByReason: {} } });
  });

  it('free charges nothing and counts all the same', () => {
    const { accounting, counts } = setUp(COST_PROFILES[0]);
    expect(accounting.exit(0, Exit.io, 0, 0, 'userspace') + accounting.inject(0, 1) + accounting.wakeup(0)).toBe(0);
    expect(counts().total).toMatchObject({ cyclesCharged: 0, exits: { total: 1 } });
  });

  it('looks at no RIP and emits nothing while nobody listens', () => {
    const { accounting, ripReads } = setUp();
    accounting.exit(0, Exit.cpuid);
    accounting.entry(0);
    expect(ripReads()).toBe(0);
  });

  it('traces exit, user space, injection, entry in KVM’s words', () => {
    const { accounting, tracer } = setUp();
    const lines: string[] = [];
    tracer.subscribe((event) => lines.push(`${event.name}: ${formatFields(event)}`));
    accounting.exit(1, Exit.io, exitDetail.io(0x3f8, 1, false), 0, 'userspace');
    accounting.inject(1, 0xec);
    accounting.entry(1);
    accounting.pvEoiObserver(1).elided(0xec);
    expect(lines).toEqual([
      'kvm_exit: vcpu 1 reason io rip 0xffffffff81061234 info1 0x0000000003f80010 info2 0x0000000000000000 ' +
        'intr_info 0x00000000 error_code 0x00000000',
      'kvm_userspace_exit: reason KVM_EXIT_IO (2)',
      'kvm_inj_virq: IRQ 0xec',
      'kvm_entry: vcpu 1, rip 0xffffffff81061234',
      'kvm_pv_eoi: apicid 1 vector 236',
    ]);
  });

  it('an exit that KVM always completes itself cannot be user space’s', () => {
    const { accounting, tracer } = setUp();
    tracer.subscribe(() => {});
    expect(() => accounting.exit(0, Exit.cpuid, 0, 0, 'userspace')).toThrow(/cpuid/);
  });
});
