import { describe, expect, it } from 'vitest';
import { ApicRegister } from '../../interrupts/apic-registers.ts';
import { REDIRECTION_LEVEL } from '../../interrupts/io-apic.ts';
import { type KvmFeatureSet, parseKvmFeatures } from '../../kvm/features.ts';
import { KvmMsr } from '../../kvm/kvm-vcpu.ts';
import { Machine, type MachineOptions } from '../../machine/machine.ts';
import { RESET_PORT, RESET_VALUE } from '../../machine/memory-map.ts';
import { balance } from '../../trace/counters.ts';
import { callMethod } from '../apic/native-access.ts';
import { address, al, cr0, dword, dx, eax, ecx, edx, esp, mem, native, rax, rsp, word } from '../assembler/operands.ts';
import { LARGE_PAGE } from './boot.ts';
import { COM1, Uart } from './console.ts';
import { buildKernel, type KernelOptions, type ProgramKit } from './kernel.ts';
import { parseKernelReport } from './kernel-report.ts';
import { returnAddressOffset } from './interrupts.ts';
import { PER_CPU_BYTES, PerCpu, TRAMPOLINE, Vector } from './layout.ts';

const GENERAL_PROTECTION = 13;
const OWN = 0x71;
const LOWER = 0x59;
const HIGHER = 0x91;
const PAGE_FAULT = 14;
const MEMORY_BYTES = 8 * 2 ** 20;
/** A port whose reading does nothing, and exits. */
const DELAY_PORT = 0x80;

function run(options: KernelOptions, vcpus = 1, machineOptions: Partial<MachineOptions> = {}) {
  const kernel = buildKernel(options);
  const machine = new Machine({ kernel: kernel.elf, vcpus, memoryBytes: MEMORY_BYTES, ...machineOptions });
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

/** To the second CPU. */
function sendToSecond({ a, abi }: ProgramKit, vector: number): void {
  a.mov(abi.arguments32[0], address('cpu_bit_masks', abi.word));
  a.mov(abi.arguments32[1], vector);
  callMethod(a, abi, 'sendIpiMask');
}

/** This CPU's word, as it is now, goes to a variable. */
function keepWord({ a, abi }: ProgramKit, variable: string): void {
  a.mov(eax, abi.perCpu('kvm_apic_eoi', 32));
  a.mov(dword(variable), eax);
}

/** Hexadecimal digits in the order in which they come. */
function logOrder({ a }: ProgramKit, digit: number): void {
  a.shl(dword('order'), 4);
  a.or(dword('order'), digit);
}

function withoutPvEoi(): KvmFeatureSet {
  const parsed = parseKvmFeatures('-pv-eoi');
  if (!parsed.ok) throw new Error(parsed.error);
  return parsed.value;
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

  it('a level-triggered one is not armed: its end has to reach the I/O APIC', () => {
    const { report, counters } = run({
      bits,
      variables: ['word', 'seen'],
      handlers: {
        [Vector.serial]: (kit) => {
          const { a, acknowledge } = kit;
          keepWord(kit, 'word');
          a.mov(edx, COM1 + Uart.interruptId);
          a.in(al, dx);
          a.inc(dword('seen'));
          a.jmp(acknowledge);
        },
      },
      program: ({ a, abi, say }) => {
        for (const [trigger, name] of [[REDIRECTION_LEVEL, 'level'], [0, 'edge']] as const) {
          a.mov(dword('seen'), 0);
          a.mov(abi.arguments32[0], trigger);
          a.call('route_serial');
          a.mov(edx, COM1 + Uart.interruptEnable);
          a.mov(al, 2).out(dx, al);
          a.label(`.wait_${name}`).pause().cmp(dword('seen'), 0).je(`.wait_${name}`);
          a.mov(edx, COM1 + Uart.interruptEnable);
          a.mov(al, 0).out(dx, al);
          say(name, '=', dword('word'));
        }
      },
    });
    expect(report.notes).toEqual(['level=0', 'edge=1']);
    expect(counters.total.eois.writtenBecause['level-triggered']).toBe(1);
    expect(counters.total.eois.broadcast).toBe(1);
  });

  it('nested: the inner one is armed and ended by its word, the outer one by a write that retires the inner first', () => {
    const { report, counters } = run({
      bits,
      variables: ['outer_before', 'inner', 'outer_after'],
      handlers: {
        [OWN]: (kit) => {
          const { a, acknowledge } = kit;
          keepWord(kit, 'outer_before');
          a.sti();
          selfIpi(kit, HIGHER);
          a.cli();
          keepWord(kit, 'outer_after');
          a.jmp(acknowledge);
        },
        [HIGHER]: (kit) => {
          keepWord(kit, 'inner');
          kit.a.jmp(kit.acknowledge);
        },
      },
      program: (kit) => {
        selfIpi(kit, OWN);
        kit.say('outer=', dword('outer_before'), ',', dword('outer_after'), ' inner=', dword('inner'));
      },
    });
    expect(report.notes).toEqual(['outer=1,0 inner=1']);
    expect(counters.total.eois).toMatchObject({ written: 1, elided: 1, ignored: 0 });
  });

  it('nested, with an exit between the ends: the exit retires the inner one, and the outer is not armed anew', () => {
    const { report, counters } = run({
      bits,
      variables: ['word'],
      handlers: {
        [OWN]: (kit) => {
          const { a, acknowledge } = kit;
          a.sti();
          selfIpi(kit, HIGHER);
          a.cli();
          a.mov(edx, DELAY_PORT).in(al, dx);
          keepWord(kit, 'word');
          a.jmp(acknowledge);
        },
        [HIGHER]: ({ a, acknowledge }) => a.jmp(acknowledge),
      },
      program: (kit) => {
        selfIpi(kit, OWN);
        kit.say('word=', dword('word'));
      },
    });
    expect(report.notes).toEqual(['word=0']);
    expect(counters.total.eois).toMatchObject({ written: 1, elided: 1, ignored: 0 });
    expect(counters.total.pvEoi.notArmed['injected-before-last-eoi']).toBeGreaterThan(0);
  });

  it('its own vector once more, sent by itself: it waits, the first is ended for real, the second by the word', () => {
    const { report, counters } = run({
      bits,
      variables: ['times', 'words'],
      handlers: {
        [OWN]: (kit) => {
          const { a, abi, acknowledge } = kit;
          a.inc(dword('times'));
          a.cmp(dword('times'), 1);
          a.jne('.second');
          selfIpi(kit, OWN);
          a.label('.second');
          a.mov(eax, abi.perCpu('kvm_apic_eoi', 32));
          a.shl(dword('words'), 4);
          a.or(dword('words'), eax);
          a.jmp(acknowledge);
        },
      },
      program: (kit) => {
        selfIpi(kit, OWN);
        kit.say('times=', dword('times'), ' words=', dword('words'));
      },
    });
    expect(report.notes).toEqual(['times=2 words=1']); // 0, then 1
    expect(counters.total.eois).toMatchObject({ written: 1, elided: 1, writtenBecause: { 'pending-irr': 1 } });
  });

  it.each([
    ['lower', LOWER, { written: 1, elided: 1 }],
    ['higher', HIGHER, { written: 1, elided: 1 }],
  ] as const)('one of %s priority from another CPU: it kicks, which disarms; nothing is lost', (name, vector, eois) => {
    const { report, counters } = run(
      {
        bits,
        variables: ['before', 'after', 'arrived', 'go_on', 'order'],
        handlers: {
          [OWN]: (kit) => {
            const { a, acknowledge } = kit;
            keepWord(kit, 'before');
            a.mov(dword('arrived'), 1);
            a.sti();
            a.label('.spin').cmp(dword('go_on'), 0).je('.spin');
            a.cli();
            keepWord(kit, 'after');
            logOrder(kit, 1);
            a.jmp(acknowledge);
          },
          [vector]: (kit) => {
            logOrder(kit, 2);
            kit.a.jmp(kit.acknowledge);
          },
        },
        program: (kit) => {
          const { a, say } = kit;
          sendToSecond(kit, OWN);
          a.label('.arrived').pause().cmp(dword('arrived'), 0).je('.arrived');
          sendToSecond(kit, vector);
          a.mov(ecx, 1000);
          a.label('.a_while').pause().dec(ecx).jnz('.a_while');
          a.mov(dword('go_on'), 1);
          a.label('.both').pause().cmp(dword('order'), 0x10).jb('.both');
          say('before=', dword('before'), ' after=', dword('after'), ' order=', dword('order'));
        },
      },
      2,
    );
    expect(report.notes).toEqual([`before=1 after=0 order=${name === 'lower' ? 0x12 : 0x21}`]);
    const { written, elided } = eois;
    // The second CPU's: both of these, and what wakes it to go offline.
    expect(counters.vcpus[1].eois).toMatchObject({ written, ignored: 0 });
    expect(counters.vcpus[1].eois.elided).toBeGreaterThanOrEqual(elided);
  });

  it('an NMI inside the handler: its exit disarms, its entry looks at events and arms again; it has no EOI of its own', () => {
    const { report, counters } = run(
      {
        bits,
        variables: ['before', 'in_nmi', 'after', 'arrived'],
        handlers: {
          [OWN]: (kit) => {
            const { a, acknowledge } = kit;
            keepWord(kit, 'before');
            a.mov(dword('arrived'), 1);
            a.label('.spin').cmp(dword('arrived'), 2).jne('.spin');
            keepWord(kit, 'after');
            a.mov(dword('arrived'), 3);
            a.jmp(acknowledge);
          },
          [Vector.nmi]: (kit) => {
            keepWord(kit, 'in_nmi');
            kit.a.mov(dword('arrived'), 2).ret();
          },
        },
        program: (kit) => {
          const { a, say } = kit;
          sendToSecond(kit, OWN);
          a.label('.arrived').pause().cmp(dword('arrived'), 1).jne('.arrived');
          sendToSecond(kit, Vector.nmi);
          a.label('.done').pause().cmp(dword('arrived'), 3).jne('.done');
          say('before=', dword('before'), ' nmi=', dword('in_nmi'), ' after=', dword('after'));
        },
      },
      2,
    );
    expect(report.notes).toEqual(['before=1 nmi=1 after=1']);
    expect(counters.vcpus[1].interrupts.nmisInjected).toBe(1);
    expect(counters.vcpus[1].eois).toMatchObject({ written: 0, ignored: 0 });
    expect(counters.vcpus[1].pvEoi.disarmed).toBe(1);
    expect(counters.vcpus[1].pvEoi.armed).toBe(counters.vcpus[1].eois.elided + 1);
  });

  it('reading the ISR exits: inside the handler the vector is in it, behind an elided EOI it is not', () => {
    const readIsr = ({ a, abi }: ProgramKit): void => {
      a.mov(abi.arguments32[0], ApicRegister.isr + 16 * (OWN >> 5));
      callMethod(a, abi, 'read');
      a.shr(eax, OWN & 31);
      a.and(eax, 1);
    };
    const { report, counters } = run({
      bits,
      variables: ['inside', 'word'],
      handlers: {
        [OWN]: (kit) => {
          const { a, acknowledge } = kit;
          a.cmp(dword('inside'), 2);
          a.je(acknowledge);
          readIsr(kit);
          a.mov(dword('inside'), eax);
          keepWord(kit, 'word');
          a.jmp(acknowledge);
        },
      },
      program: (kit) => {
        selfIpi(kit, OWN);
        kit.say('inside=', dword('inside'), ' word=', dword('word'));
        kit.a.mov(dword('inside'), 2);
        selfIpi(kit, OWN);
        readIsr(kit);
        kit.a.mov(kit.abi.saved32[0], eax);
        kit.say('behind=', kit.abi.saved32[0]);
      },
    });
    expect(report.notes).toEqual(['inside=1 word=0', 'behind=0']);
    expect(counters.total.eois).toMatchObject({ written: 1, elided: 1 });
  });

  it('an EOI with nothing in service is ignored, by word and by register', () => {
    const { counters } = run({ bits, program: ({ a, acknowledge }) => a.call(acknowledge) });
    expect(counters.total.eois).toMatchObject({ written: 0, elided: 0, ignored: 1, broadcast: 0 });
  });

  it('another word named inside a handler: the old one is sampled and left alone, the new one has the next interrupt', () => {
    const { kernel, machine, report, counters } = run({
      bits,
      variables: ['new_word', 'times', 'seen'],
      handlers: {
        [OWN]: (kit) => {
          const { a, acknowledge } = kit;
          a.mov(eax, dword('new_word'));
          a.or(dword('seen'), eax);
          a.inc(dword('times'));
          a.cmp(dword('times'), 1);
          a.jne('.own_word');
          a.mov(eax, address('new_word', 1));
          a.xor(edx, edx);
          a.mov(ecx, KvmMsr.pvEoi);
          a.wrmsr();
          a.jmp(acknowledge);
          a.label('.own_word');
          a.btr(dword('new_word'), 0);
          a.jnc(acknowledge);
          a.ret();
        },
      },
      program: (kit) => {
        selfIpi(kit, OWN);
        kit.say('seen=', dword('seen'));
        selfIpi(kit, OWN);
        kit.say('seen=', dword('seen'));
      },
    });
    expect(report.notes).toEqual(['seen=0', 'seen=1']);
    expect(counters.total.eois).toMatchObject({ written: 1, elided: 1, ignored: 0 });
    const at = kernel.image.symbols.get('new_word') as number;
    expect([...machine.memory.slice(at, 4)]).toEqual([0, 0, 0, 0]);
  });

  it('cannot be named where the feature is not offered: #GP, for reading, too', () => {
    const { report, counters } = run(
      {
        bits,
        variables: ['faults'],
        handlers: { [GENERAL_PROTECTION]: skipWrmsr },
        program: (kit) => {
          writeMsr(kit, 0x10_0001);
          kit.a.mov(ecx, KvmMsr.pvEoi).rdmsr(); // as long as WRMSR
          kit.say('faults=', dword('faults'));
          selfIpi(kit, 0xfd);
        },
      },
      1,
      { kvm: withoutPvEoi() },
    );
    expect(report.notes).toEqual(['faults=2']);
    expect(counters.total.eois).toMatchObject({ written: 1, elided: 0, writtenBecause: { 'feature-hidden': 1 } });
  });

  it('may be the last of RAM, and not the first behind', () => {
    const last = MEMORY_BYTES - 4;
    const { report, counters } = run({
      bits,
      variables: ['faults', 'word'],
      handlers: {
        [GENERAL_PROTECTION]: skipWrmsr,
        [OWN]: ({ a, acknowledge }) => {
          a.mov(eax, dword(last));
          a.mov(dword('word'), eax);
          a.btr(dword(last), 0);
          a.jnc(acknowledge);
          a.ret();
        },
      },
      program: (kit) => {
        for (const notRam of [MEMORY_BYTES, 0xfec0_0000, 0xfee0_0000]) writeMsr(kit, (notRam | 1) >>> 0);
        writeMsr(kit, last | 1);
        selfIpi(kit, OWN);
        kit.say('faults=', dword('faults'), ' word=', dword('word'));
      },
    });
    expect(report.notes).toEqual(['faults=3 word=1']);
    expect(counters.total.eois).toMatchObject({ written: 0, elided: 1 });
  });

  it('the machine is reset inside a handler: its exit takes the bit away, and the word is written no more', () => {
    const kernel = buildKernel({
      bits,
      handlers: {
        [OWN]: (kit) => {
          kit.a.mov(edx, RESET_PORT).mov(al, RESET_VALUE).out(dx, al);
          kit.a.label('.halt').hlt().jmp('.halt');
        },
      },
      program: (kit) => selfIpi(kit, OWN),
    });
    const machine = new Machine({ kernel: kernel.elf, vcpus: 1, memoryBytes: MEMORY_BYTES });
    expect(machine.run({ guestNanoseconds: 5e9 })).toMatchObject({ kind: 'ended', end: 'reboot' });
    const at = (kernel.image.symbols.get('per_cpu_areas') as number) + PerCpu.kvm_apic_eoi;
    expect([...machine.memory.slice(at, 4)]).toEqual([0, 0, 0, 0]);
    const { eois, interrupts, pvEoi } = machine.counters().vcpus[0];
    expect({ eois, inIsr: interrupts.inIsr, armed: pvEoi.armed, disarmed: pvEoi.disarmed }).toMatchObject({ eois: { written: 0, elided: 0 }, inIsr: 1, armed: 1, disarmed: 1 });
  });
});

describe('PV EOI and the guest’s own mapping of the word', () => {
  /** A page of 2 MiB beyond the kernel, and its entry in the first page directory. */
  const [PAGE, ENTRY] = [0x40_0000, 2];
  const CR0_WP = 1 << 16;
  const BTR_BYTES = 9;

  it.each([
    ['read-only', LARGE_PAGE | 1, 3],
    ['not there', 0, 2],
  ] as const)('%s: the host arms by the physical address, the guest faults, and its write ends the interrupt once', (_, flags, errorCode) => {
    const { report, counters, machine } = run({
      variables: ['faults', 'error', 'armed'],
      handlers: {
        [PAGE_FAULT]: ({ a, abi }) => {
          a.inc(dword('faults'));
          a.mov(eax, dword(rsp, returnAddressOffset(abi) - abi.word));
          a.mov(dword('error'), eax);
          a.add(native(64, rsp, returnAddressOffset(abi)), BTR_BYTES);
          a.ret();
        },
        [OWN]: ({ a, abi }) => {
          a.btr(dword(PAGE), 0);
          a.xor(abi.arguments32[1], abi.arguments32[1]);
          a.mov(abi.arguments32[0], ApicRegister.eoi);
          callMethod(a, abi, 'write', 'jmp');
        },
      },
      program: (kit) => {
        const { a, say } = kit;
        writeMsr(kit, PAGE | 1);
        a.mov(rax, cr0).or(eax, CR0_WP).mov(cr0, rax);
        a.mov(dword(address('page_directories', 8 * ENTRY)), PAGE * Math.sign(flags) | flags);
        a.invlpg(mem(PAGE));
        selfIpi(kit, OWN);
        say('faults=', dword('faults'), ' error=', dword('error'));
      },
    });
    expect(report.notes).toEqual([`faults=1 error=${errorCode}`]);
    expect(counters.total.pvEoi).toMatchObject({ armed: 1, disarmed: 1 });
    expect(counters.total.eois).toMatchObject({ written: 1, elided: 0, ignored: 0, writtenBecause: { 'disarmed-by-exit': 1 } });
    expect([...machine.memory.slice(PAGE, 4)]).toEqual([0, 0, 0, 0]); // the host took the bit away
  });
});
