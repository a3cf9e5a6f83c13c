import { describe, expect, it } from 'vitest';
import { formatEvent, formatFields, ftraceHeader, writeFtrace } from './ftrace-text.ts';
import { TRACEPOINTS, type TraceEvent, type TraceRecord, Tracer } from './tracepoints.ts';

const stamp = (record: TraceRecord, vcpu = 0, timestampNanoseconds = 0) =>
  ({ ...record, vcpu, timestampNanoseconds }) as TraceEvent;

/** What Linux 6.1 prints for each record. */
const lines: [TraceRecord, string][] = [
  [{ name: 'kvm_entry', vcpu_id: 0, rip: 0xffff_ffff_8106_1234n }, 'vcpu 0, rip 0xffffffff81061234'],
  [
    {
      name: 'kvm_exit',
      vcpu_id: 1,
      isa: 'vmx',
      exit_reason: 44,
      guest_rip: 0xffff_ffff_8105_ff2dn,
      info1: 0x10b0n,
      info2: 0n,
      intr_info: 0,
      error_code: 0,
    },
    'vcpu 1 reason APIC_ACCESS rip 0xffffffff8105ff2d info1 0x00000000000010b0 info2 0x0000000000000000 ' +
      'intr_info 0x00000000 error_code 0x00000000',
  ],
  [
    {
      name: 'kvm_exit',
      vcpu_id: 0,
      isa: 'svm',
      exit_reason: 0x400,
      guest_rip: 0x1000n,
      info1: 0x1_0000_000fn,
      info2: 0xfee0_00b0n,
      intr_info: 0x8000_0306,
      error_code: 0,
    },
    'vcpu 0 reason npf rip 0x1000 info1 0x000000010000000f info2 0x00000000fee000b0 intr_info 0x80000306 error_code 0x00000000',
  ],
  [{ name: 'kvm_userspace_exit', reason: 6 }, 'reason KVM_EXIT_MMIO (6)'],
  [{ name: 'kvm_userspace_exit', reason: 42 }, 'reason 0x2a (42)'],
  [{ name: 'kvm_inj_virq', vec: 0xec, soft: false, reinjected: false }, 'IRQ 0xec'],
  [{ name: 'kvm_inj_virq', vec: 0x80, soft: true, reinjected: true }, 'Soft/INTn 0x80 [reinjected]'],
  [{ name: 'kvm_inj_exception', exception: 13, has_error: true, error_code: 0, reinjected: false }, '#GP (0x0)'],
  [{ name: 'kvm_inj_exception', exception: 6, has_error: false, error_code: 0, reinjected: false }, '#UD'],
  [{ name: 'kvm_inj_exception', exception: 2, has_error: false, error_code: 0, reinjected: true }, '0x2 [reinjected]'],
  [{ name: 'kvm_apic_ipi', icr_low: 0x8fb, dest_id: 2 }, 'dst 2 vec 251 (Fixed|logical|de-assert|edge|dst)'],
  [{ name: 'kvm_apic_ipi', icr_low: 0xc_4500, dest_id: 0 }, 'dst 0 vec 0 (INIT|physical|assert|edge|all-but-self)'],
  [{ name: 'kvm_apic_ipi', icr_low: 0x8500, dest_id: 0xffff_ffff }, 'dst ffffffff vec 0 (INIT|physical|de-assert|level|dst)'],
  [{ name: 'kvm_apic_accept_irq', apicid: 10, dm: 1, tm: true, vec: 33 }, 'apicid a vec 33 (LowPrio|level)'],
  [{ name: 'kvm_apic', rw: 'write', reg: 0xb0, val: 0n }, 'apic_write APIC_EOI = 0x0'],
  [{ name: 'kvm_apic', rw: 'write', reg: 0x300, val: 0x1_0000_00fbn }, 'apic_write APIC_ICR = 0x1000000fb'],
  [{ name: 'kvm_apic', rw: 'read', reg: 0x110, val: 0x10n }, 'apic_read 0x110 = 0x10'],
  [{ name: 'kvm_apic', rw: 'read', reg: 0x390, val: 0xffn }, 'apic_read APIC_TMCCT = 0xff'],
  [{ name: 'kvm_eoi', apicid: 1, vector: 236 }, 'apicid 1 vector 236'],
  [{ name: 'kvm_pv_eoi', apicid: 0, vector: 34 }, 'apicid 0 vector 34'],
  [{ name: 'kvm_msr', write: true, ecx: 0x6e0, data: 0x12_3456_789an, exception: false }, 'msr_write 6e0 = 0x123456789a'],
  [{ name: 'kvm_msr', write: false, ecx: 0xc001_0015, data: 0n, exception: true }, 'msr_read c0010015 = 0x0 (#GP)'],
  [{ name: 'kvm_cr', rw: 'write', cr: 0, val: 0x8005_0033n }, 'cr_write 0 = 0x80050033'],
  [{ name: 'kvm_pio', rw: 'write', port: 0x3f8, size: 1, count: 1, val: 0x41 }, 'pio_write at 0x3f8 size 1 count 1 val 0x41 '],
  [
    { name: 'kvm_pio', rw: 'read', port: 0x1f0, size: 2, count: 256, val: 0xffff },
    'pio_read at 0x1f0 size 2 count 256 val 0xffff (...)',
  ],
  [
    { name: 'kvm_mmio', type: 'unsatisfied-read', len: 4, gpa: 0xfed0_00f0, val: 0n },
    'mmio unsatisfied-read len 4 gpa 0xfed000f0 val 0x0',
  ],
  [
    { name: 'kvm_cpuid', function: 0x4000_0001, index: 0, rax: 0x100_bae9n, rbx: 0n, rcx: 0n, rdx: 0n, found: true },
    'func 40000001 idx 0 rax 100bae9 rbx 0 rcx 0 rdx 0, cpuid entry found',
  ],
  [
    { name: 'kvm_cpuid', function: 0x8000_00ff, index: 1, rax: 0n, rbx: 0n, rcx: 0n, rdx: 0n, found: false },
    'func 800000ff idx 1 rax 0 rbx 0 rcx 0 rdx 0, cpuid entry not found',
  ],
  [{ name: 'kvm_hypercall', nr: 10n, a0: 5n, a1: 0n, a2: 0n, a3: 0xfdn }, 'nr 0xa a0 0x5 a1 0x0 a2 0x0 a3 0xfd'],
  [{ name: 'kvm_msi_set_irq', address: 0xfee0_100cn, data: 0x4023 }, 'dst 1 vec 35 (Fixed|logical|edge|rh)'],
  [{ name: 'kvm_msi_set_irq', address: 0x100_fee0_2000n, data: 0x8122 }, 'dst 102 vec 34 (LowPrio|physical|level)'],
  [
    { name: 'kvm_ioapic_set_irq', e: 0x0300_0000_0000_8930n, pin: 9, coalesced: false },
    'pin 9 dst 3 vec 48 (LowPrio|logical|level)',
  ],
  [
    { name: 'kvm_ioapic_set_irq', e: 0x1_0000n, pin: 4, coalesced: true },
    'pin 4 dst 0 vec 0 (Fixed|physical|edge|masked) (coalesced)',
  ],
  [{ name: 'kvm_pic_set_irq', chip: 1, pin: 1, elcr: 0x0e, imr: 0, coalesced: false }, 'chip 1 pin 1 (level)'],
  [{ name: 'kvm_pic_set_irq', chip: 0, pin: 0, elcr: 0, imr: 0xff, coalesced: true }, 'chip 0 pin 0 (edge|masked) (coalesced)'],
  [{ name: 'kvm_set_irq', gsi: 4, level: 1, irq_source_id: 0 }, 'gsi 4 level 1 source 0'],
  [{ name: 'kvm_ack_irq', irqchip: 'IOAPIC', pin: 4 }, 'irqchip IOAPIC pin 4'],
  [{ name: 'kvm_pv_tlb_flush', vcpu_id: 2, need_flush_tlb: true }, 'vcpu 2 need_flush true'],
];

describe('fields', () => {
  it.each(lines.map(([record, text]) => [record.name, text, record] as const))('%s: %s', (_, text, record) => {
    expect(formatFields(stamp(record))).toBe(text);
  });

  it('every tracepoint has a line here', () => {
    expect(new Set(lines.map(([record]) => record.name))).toEqual(new Set(TRACEPOINTS));
  });
});

describe('lines', () => {
  it('are laid out as the kernel’s', () => {
    expect(formatEvent(stamp({ name: 'kvm_eoi', apicid: 0, vector: 236 }, 0, 12_345_678_000))).toBe(
      '          vcpu-0-1000    [000] .....    12.345678: kvm_eoi: apicid 0 vector 236',
    );
    expect(formatEvent(stamp({ name: 'kvm_eoi', apicid: 11, vector: 1 }, 11, 123_456_000_001_499))).toBe(
      '         vcpu-11-1011    [011] ..... 123456.000001: kvm_eoi: apicid b vector 1',
    );
  });

  it('round to the nearest microsecond, into the next second if need be', () => {
    const time = (nanoseconds: number) =>
      formatEvent(stamp({ name: 'kvm_eoi', apicid: 0, vector: 1 }, 0, nanoseconds)).split(/\s+/)[4];
    expect([time(499), time(500), time(999_999_500)]).toEqual(['0.000000:', '0.000001:', '1.000000:']);
  });

  it('match what parsers of ftrace look for', () => {
    for (const [record] of lines) {
      expect(formatEvent(stamp(record, 3, 1e9))).toMatch(/^\s*(\S+)-(\d+)\s+\[(\d{3})\] \S{5}\s+(\d+\.\d{6}): (\w+): .*$/);
    }
  });
});

describe('the header', () => {
  it('stands over the columns it explains', () => {
    const header = ftraceHeader(2, 14).split('\n');
    expect(header[0]).toBe('# tracer: nop');
    expect(header[2]).toBe('# entries-in-buffer/entries-written: 14/14   #P:2');
    const line = formatEvent(stamp({ name: 'kvm_eoi', apicid: 0, vector: 1 }, 0, 12_345_678_000));
    const columns = header.at(-3) ?? '';
    expect(columns.indexOf('|||||')).toBe(line.indexOf('.....'));
    expect(header.every((text) => text === '' || text.startsWith('#'))).toBe(true);
  });

  it('comes first, then each event as it happens, until stopped', () => {
    const tracer = new Tracer(() => 0);
    let text = '';
    const stop = writeFtrace(tracer, 2, (more) => {
      text += more;
    });
    tracer.emit({ name: 'kvm_eoi', apicid: 0, vector: 1 });
    stop();
    expect(tracer.enabled).toBe(false);
    expect(text.startsWith('# tracer: nop\n')).toBe(true);
    expect(text).not.toContain('entries-in-buffer');
    expect(text.endsWith(': kvm_eoi: apicid 0 vector 1\n')).toBe(true);
  });
});
