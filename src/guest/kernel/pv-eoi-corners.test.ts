import { describe, expect, it } from 'vitest';
import { KvmMsr } from '../../kvm/kvm-vcpu.ts';
import { Machine } from '../../machine/machine.ts';
import { balance } from '../../trace/counters.ts';
import { callMethod } from '../apic/native-access.ts';
import { address, dword, eax, ecx, edx, esp, native, rsp, word } from '../assembler/operands.ts';
import { buildKernel, type KernelOptions, type ProgramKit } from './kernel.ts';
import { parseKernelReport } from './kernel-report.ts';
import { returnAddressOffset } from './interrupts.ts';
import { PER_CPU_BYTES, PerCpu, TRAMPOLINE } from './layout.ts';

const GENERAL_PROTECTION = 13;
const OWN = 0x71;
const LOWER = 0x59;

function run(options: KernelOptions, vcpus = 1) {
  const kernel = buildKernel(options);
  const machine = new Machine({ kernel: kernel.elf, vcpus, memoryBytes: 8 * 2 ** 20 });
  let output = '';
  machine.serial.onOutput((bytes) => {
    output += new TextDecoder().decode(bytes);
  });
  const result = machine.run({ guestNanoseconds: 5e9 });
  expect(result, output).toMatchObject({ kind: 'ended', end: 'power-off' });
  const counters = machine.counters();
  for (const counts of counters.vcpus) expect(balance(counts).isBalanced, JSON.stringify(balance(counts))).toBe(true);
  return { kernel, machine, report: parseKernelReport(output), counters };
}

function selfIpi({ a, abi }: ProgramKit, vector: number): void {
  a.mov(abi.arguments32[0], vector);
  callMethod(a, abi, 'sendIpiSelf');
}

/** WRMSR of the MSR that names the word. */
function writeMsr({ a }: ProgramKit, low: number, high = 0): void {
  a.mov(eax, low);
  a.mov(edx, high);
  a.mov(ecx, KvmMsr.pvEoi);
  a.wrmsr();
}

/** Counts general protection faults and goes on behind the WRMSR. */
const skipWrmsr = ({ a, abi }: ProgramKit): void => {
  a.inc(dword('faults'));
  a.add(native(abi.bits, abi.bits === 64 ? rsp : esp, returnAddressOffset(abi)), 2);
  a.ret();
};

describe.each([64, 32] as const)('PV EOI in the tiny guest (%i-bit)', (bits) => {
  it('refuses a misaligned word, one that is not in RAM, and takes what is right: #GP for the others', () => {
    const { report, counters } = run({
      bits,
      variables: ['faults'],
      handlers: { [GENERAL_PROTECTION]: skipWrmsr },
      program: (kit) => {
        writeMsr(kit, 0x10_0003); // bit 1
        writeMsr(kit, 0xf000_0001); // between RAM and the I/O APIC
        writeMsr(kit, 1, 0x100); // a TiB
        kit.say('faults=', dword('faults'));
        kit.a.cli();
        kit.a.call('kvm_guest_cpu_init');
        kit.a.sti();
        selfIpi(kit, 0xfd);
        kit.say('faults=', dword('faults'));
      },
    });
    expect(report.notes).toEqual(['faults=3', 'faults=3']);
    expect(counters.total.eois.elided).toBe(1);
  });

  it('disabled while an interrupt is in service: the word is sampled first, the guest ends it for real', () => {
    const { report, counters } = run({
      bits,
      variables: ['word_before', 'word_after'],
      handlers: {
        [OWN]: (kit) => {
          const { a, abi, acknowledge } = kit;
          a.mov(eax, abi.perCpu('kvm_apic_eoi', 32));
          a.mov(dword('word_before'), eax);
          writeMsr(kit, 0);
          a.mov(eax, abi.perCpu('kvm_apic_eoi', 32));
          a.mov(dword('word_after'), eax);
          a.jmp(acknowledge);
        },
      },
      program: (kit) => {
        selfIpi(kit, OWN);
        kit.say('before=', dword('word_before'), ' after=', dword('word_after'));
        selfIpi(kit, 0xfd);
      },
    });
    expect(report.notes).toEqual(['before=1 after=0']);
    expect(counters.total.eois).toMatchObject({ written: 2, elided: 0, ignored: 0 });
    expect(counters.total.eois.writtenBecause).toEqual({ 'disarmed-by-exit': 1, 'disabled-by-guest': 1 });
  });

  it('with a lower priority pending: not armed, and the pending one comes right behind the EOI', () => {
    const { report, counters } = run({
      bits,
      variables: ['word', 'order'],
      handlers: {
        [OWN]: (kit) => {
          const { a, abi, acknowledge } = kit;
          selfIpi(kit, LOWER);
          a.mov(eax, abi.perCpu('kvm_apic_eoi', 32));
          a.mov(dword('word'), eax);
          a.mov(dword('order'), 1);
          a.jmp(acknowledge);
        },
        [LOWER]: ({ a, acknowledge }) => {
          a.shl(dword('order'), 1);
          a.jmp(acknowledge);
        },
      },
      program: (kit) => {
        selfIpi(kit, OWN);
        kit.say('word=', dword('word'), ' order=', dword('order'));
      },
    });
    expect(report.notes).toEqual(['word=0 order=2']);
    // The first one's EOI was written, as something waited for it; the second's was not.
    expect(counters.total.eois).toMatchObject({ written: 1, elided: 1 });
    expect(counters.total.eois.writtenBecause).toEqual({ 'pending-irr': 1 });
  });

  it('a real EOI while armed ends one interrupt, once', () => {
    const { counters } = run({
      bits,
      handlers: {
        [OWN]: ({ a, abi }) => {
          a.xor(abi.arguments32[1], abi.arguments32[1]);
          a.mov(abi.arguments32[0], 0xb0);
          callMethod(a, abi, 'write', 'jmp');
        },
      },
      program: (kit) => {
        selfIpi(kit, OWN);
        selfIpi(kit, OWN);
      },
    });
    expect(counters.total.eois).toMatchObject({ written: 2, elided: 0, ignored: 0 });
  });

  it('an exit inside the handler disarms: the EOI is written', () => {
    const { counters } = run({
      bits,
      handlers: {
        [OWN]: ({ a, acknowledge }) => {
          a.mov(eax, 1);
          a.cpuid();
          a.jmp(acknowledge);
        },
      },
      // CPUID may change the callee-saved register.
      program: (kit) => selfIpi(kit, OWN),
    });
    expect(counters.total.eois).toMatchObject({ written: 1, elided: 0 });
    expect(counters.total.eois.writtenBecause).toEqual({ 'disarmed-by-exit': 1 });
  });

  it('a CPU that goes offline inside a handler, its word set: the word is cleared and never written again', () => {
    const { kernel, machine, report, counters } = run(
      {
        bits,
        handlers: {
          [OWN]: ({ a, abi, acknowledge }) => {
            a.call('kvm_pv_guest_cpu_shutdown');
            a.call(acknowledge);
            a.mov(eax, abi.perCpu('cpu_number', 32));
            a.lock().btr(abi.pointer('cpu_online_mask'), abi.result);
            a.label('.halt').cli().hlt().jmp('.halt');
          },
        },
        program: ({ a, abi, say }) => {
          a.mov(abi.arguments32[0], address('cpu_bit_masks', abi.word));
          a.mov(abi.arguments32[1], OWN);
          callMethod(a, abi, 'sendIpiMask');
          a.label('.wait').pause().bt(native(32, 'cpu_online_mask'), 1).jc('.wait');
          // Something more for it, which stays in its IRR.
          a.mov(abi.arguments32[0], address('cpu_bit_masks', abi.word));
          a.mov(abi.arguments32[1], 0xfd);
          callMethod(a, abi, 'sendIpiMask');
          a.mov(dword('nr_cpu_ids'), 1);
          say('offline');
        },
      },
      2,
    );
    expect(report.notes).toEqual(['offline']);
    const at = (kernel.image.symbols.get('per_cpu_areas') as number) + PER_CPU_BYTES + PerCpu.kvm_apic_eoi;
    expect([...machine.memory.slice(at, 4)]).toEqual([0, 0, 0, 0]);
    expect(machine.cpus[1].kvm.pvEoi.readMsr()).toEqual({ low: 0, high: 0 });
    expect(counters.vcpus[1].interrupts).toMatchObject({ inIrr: 1, inIsr: 0 });
    expect(counters.vcpus[1].eois).toMatchObject({ written: 1, elided: 0 });
  });

  it('INIT while armed: the exit it makes disarms, nothing of the interrupt is left, and a restarted CPU begins anew', () => {
    const { report, counters } = run(
      {
        bits,
        variables: ['arrived', 'restarted'],
        handlers: {
          [OWN]: ({ a }) => {
            a.mov(dword('arrived'), 1);
            a.label('.spin').jmp('.spin');
          },
        },
        program: (kit) => {
          const { a, abi, say } = kit;
          const icr = (low: number): void => {
            a.mov(abi.arguments32[1], dword('x86_cpu_to_apicid', 4));
            a.mov(abi.arguments32[0], low);
            callMethod(a, abi, 'icrWrite');
          };
          a.mov(abi.arguments32[0], address('cpu_bit_masks', abi.word));
          a.mov(abi.arguments32[1], OWN);
          callMethod(a, abi, 'sendIpiMask');
          a.label('.wait').pause().cmp(dword('arrived'), 0).je('.wait');
          say('armed=', dword(address('per_cpu_areas', PER_CPU_BYTES + PerCpu.kvm_apic_eoi)));
          // The host reads and writes one byte of the four.
          a.mov(word(address('per_cpu_areas', PER_CPU_BYTES + PerCpu.kvm_apic_eoi + 1)), 0xbeef);
          icr(0xc500); // INIT
          say('after_init=', dword(address('per_cpu_areas', PER_CPU_BYTES + PerCpu.kvm_apic_eoi)));
          a.btr(native(32, 'cpu_online_mask'), 1);
          a.mov(dword('booting_cpu'), 1);
          icr(0x600 | (TRAMPOLINE >> 12)); // STARTUP
          a.label('.restart').pause().bt(native(32, 'cpu_online_mask'), 1).jnc('.restart');
          say('restarted=', dword(address('per_cpu_areas', PER_CPU_BYTES + PerCpu.kvm_apic_eoi)));
          // It takes interrupts again, and ends them without an exit.
          a.mov(abi.arguments32[0], address('cpu_bit_masks', abi.word));
          a.mov(abi.arguments32[1], 0xfd);
          callMethod(a, abi, 'sendIpiMask');
        },
      },
      2,
    );
    expect(report.notes).toEqual(['armed=1', `after_init=${0xbeef00}`, 'restarted=0']);
    expect(counters.vcpus[1].interrupts.discardedInIsr).toBe(1);
    expect(counters.vcpus[1].eois.elided).toBeGreaterThan(0);
  });
});
