/**
 * A vCPU as KVM runs it, by real guest code: what exits and how it is counted, how events arrive, and PV EOI's corner cases with the
 * counters that tell them apart. /docs/interrupts.md.
 */
import { describe, expect, it } from 'vitest';
import {
  armTimer, countUp, enablePvEoi, enableX2apic, endInterrupt, endInterruptPv, exitWith, interruptSelf, keep, MachineBench, MSR_PV_EOI, openWindow, readApic, record, SAVED_BYTES, sendIpi, startApplications, waitFor, writeApic, writeMsr,
} from '../../tests/machine-bench.ts';
import type { Assembler } from '../guest/assembler/assembler.ts';
import { address, al, cr0, cr3, cr4, cr8, dr7, dword, dx, eax, ecx, edx, esi, mem, qword, rax, rbx, rcx, rsi, rsp } from '../guest/assembler/operands.ts';
import { ApicRegister, x2apicMsr } from '../interrupts/apic-registers.ts';
import { COST_PROFILES } from '../kvm/cost-profile.ts';
import type { ExitReason } from '../kvm/exit.ts';
import { KVM_OFF, parseKvmFeatures } from '../kvm/features.ts';
import { balance } from '../trace/counters.ts';

const [LOW, MIDDLE, HIGH] = [0x41, 0x61, 0x81];
const NMI = 2;
const MSR_APIC_BASE = 0x1b;
const GP = 13;
const kvm = (text: string) => {
  const parsed = parseKvmFeatures(text);
  if (!parsed.ok) throw new Error(parsed.error);
  return parsed.value;
};

const free = COST_PROFILES.find(({ name }) => name === 'free');

/** The sums that have to hold for every run. */
function expectBalanced(bench: MachineBench): void {
  for (const counts of bench.machine.counters().vcpus) expect(balance(counts)).toMatchObject({ isBalanced: true });
}

describe('exits', () => {
  /** Exits of a program that does something `times` times, less those of one that does not. */
  function exitsOf(build: (a: Assembler) => void, times = 5, prepare: (a: Assembler) => void = () => {}): Partial<Record<ExitReason, number>> {
    const count = (repeat: number) =>
      new MachineBench({
        main: (a) => {
          prepare(a);
          for (let i = 0; i < repeat; i++) build(a);
        },
      }).finish().total.exits.byReason;
    const [none, some] = [count(0), count(times)];
    return Object.fromEntries(Object.entries(some).map(([reason, n]) => [reason, n - (none[reason as ExitReason] ?? 0)]).filter(([, n]) => n !== 0));
  }

  it.each<[string, (a: Assembler) => unknown, Partial<Record<ExitReason, number>>]>([
    ['CPUID', (a) => a.cpuid(), { cpuid: 5 }],
    ['OUT and IN', (a) => a.out(0x80, al).in(al, 0x80), { io: 10 }],
    ['a string to a port, element by element', (a) => a.mov(dx, 0x80).mov(rsi, address('log')).mov(ecx, 3).rep().outsb(), { io: 15 }],
    ['RDMSR, WRMSR', (a) => a.mov(ecx, 0xc000_0080).rdmsr().wrmsr(), { 'msr-read': 5, 'msr-write': 5 }],
    ['MSRs that a guest has to itself', (a) => a.mov(ecx, 0xc000_0102).rdmsr().wrmsr().mov(ecx, 0xc000_0082).rdmsr(), {}],
    ['the local APIC’s page', (a) => readApic(a, ApicRegister.version), { 'apic-access': 5 }],
    ['the I/O APIC’s page', (a) => a.mov(dword(address('IO_APIC_BASE')), 1), { mmio: 5 }],
    ['MMIO that nobody answers, in halves', (a) => a.mov(ecx, 0xd000_0000).mov(rax, mem(rcx)), { mmio: 10 }],
    ['VMMCALL and VMCALL', (a) => a.mov(eax, 99).vmmcall().vmcall(), { hypercall: 10 }],
    ['WBINVD', (a) => a.wbinvd(), { wbinvd: 5 }],
    ['INVD', (a) => a.invd(), { invd: 5 }],
    ['XSETBV', (a) => a.mov(eax, 3).mov(ecx, 0).mov(edx, 0).xsetbv(), { xsetbv: 5 }],
    ['a change of CR0.WP', (a) => a.mov(rax, cr0).xor(eax, 0x10000).mov(cr0, rax), { 'cr-access': 5 }],
    ['a write to CR0 that changes nothing', (a) => a.mov(rax, cr0).mov(cr0, rax), {}],
    ['reads and writes of CR4', (a) => a.mov(rax, cr4).mov(cr4, rax), { 'cr-access': 10 }],
    ['CR3, INVLPG, RDTSC, SWAPGS, PUSHF, CLI', (a) => a.mov(rax, cr3).mov(cr3, rax).invlpg(mem(rax)).rdtsc().swapgs().pushf().pop(rax).cli(), {}],
    ['CR8 while nothing waits', (a) => a.mov(eax, 3).mov(cr8, rax).mov(rax, cr8), {}],
    ['the first access to a debug register after an exit', (a) => a.mov(rax, dr7).mov(dr7, rax).cpuid(), { 'dr-access': 5, cpuid: 5 }],
  ])('of %s', (_name, build, expected) => {
    const osxsave = (a: Assembler): void => void a.mov(rax, cr4).or(eax, 1 << 18).mov(cr4, rax);
    expect(exitsOf((a) => void build(a), 5, osxsave)).toEqual(expected);
  });

  it('#UD makes one, which the guest gets back; page faults make none', () => {
    const bench = new MachineBench({
      main: (a) => a.ud2().ud2(),
      handlers: { 6: (a) => a.add(qword(rsp, SAVED_BYTES), 2) },
    }).finish();
    expect(bench.total.exits.byReason.exception).toBe(2);
  });
  it('a halted vCPU has made one, and a wake-up is none', () => {
    const bench = new MachineBench({ main: (a) => armAndHalt(a), handlers: { [LOW]: (a) => endInterrupt(a) } }).finish();
    expect(bench.total.exits.byReason.hlt).toBe(1);
    expect(bench.total.exits.byReason['external-interrupt']).toBeUndefined();
  });

  it('a timer that expires while the guest runs kicks it out once', () => {
    const bench = new MachineBench({
      main: (a) => {
        armTimer(a, LOW, 1000);
        a.sti();
        waitFor(a, 'seen', 1);
      },
      handlers: { [LOW]: (a) => { countUp(a, 'seen'); endInterrupt(a); } },
      data: (a) => a.label('seen').dq(0),
    }).finish();
    expect(bench.total.exits.byReason['external-interrupt']).toBe(1);
    expect(bench.total.interrupts.accepted.bySource).toEqual({ timer: 1 });
  });

  it('a triple fault is the last one', () => {
    const bench = new MachineBench({ main: (a) => a.lidt(mem('nothing')).ud2(), data: (a) => a.label('nothing').dq(0, 0) });
    expect(bench.run()).toMatchObject({ kind: 'ended', end: 'triple-fault' });
    expect(bench.total.exits.byReason['triple-fault']).toBe(1);
  });
});

const armAndHalt = (a: Assembler): void => {
  armTimer(a, LOW, 1000);
  a.sti().hlt().cli();
};

describe('entries', () => {
  it('and exits take turns in the trace, on each vCPU, starting with an entry', () => {
    const bench = new MachineBench({
      main: (a) => {
        startApplications(a);
        waitFor(a, 'ready', 1);
        a.sti();
        for (let i = 0; i < 5; i++) {
          sendIpi(a, 1, LOW);
          waitFor(a, 'seen', i + 1);
          armTimer(a, MIDDLE, 100_000);
          a.hlt().out(0x80, al);
          interruptSelf(a, HIGH);
        }
        a.cli();
        interruptSelf(a, LOW);
        a.nop().nop().sti().nop().cli();
      },
      handlers: { [LOW]: (a) => { countUp(a, 'seen'); endInterrupt(a); }, [MIDDLE]: (a) => endInterrupt(a), [HIGH]: (a) => endInterrupt(a) },
      application: (a) => {
        countUp(a, 'ready');
        a.label('idle').sti().hlt().jmp('idle');
      },
      data: (a) => a.label('seen').dq(0).label('ready').dq(0),
    }, { vcpus: 2 });
    const sides: string[] = ['', ''];
    bench.machine.tracer.subscribe((event) => {
      if (event.name === 'kvm_entry') sides[event.vcpu_id] += 'e';
      if (event.name === 'kvm_exit') sides[event.vcpu_id] += 'x';
    });
    bench.finish();
    for (const [vcpu, side] of sides.entries()) {
      expect([vcpu, side.replace(/^(ex)*e?$/, '')]).toEqual([vcpu, '']);
      expect(side.replaceAll('e', '').length).toBe(bench.machine.counters().vcpus[vcpu].exits.total);
    }
    expect(sides[0].length).toBeGreaterThan(40);
    expect(sides[1].length).toBeGreaterThan(10);
    expectBalanced(bench);
  });
});

describe('interrupts', () => {
  const logging = (...vectors: number[]) => Object.fromEntries(vectors.map((vector) => [vector, (a: Assembler) => { record(a, vector); endInterrupt(a); }]));

  it('wait in the IRR while interrupts are off, and come by priority', () => {
    const bench = new MachineBench({
      main: (a) => {
        for (const vector of [MIDDLE, LOW, HIGH]) interruptSelf(a, vector);
        readApic(a, ApicRegister.irr + 0x10 * (HIGH >> 5));
        keep(a, 'irr', rax);
        openWindow(a);
      },
      handlers: logging(LOW, MIDDLE, HIGH),
      data: (a) => a.label('irr').dq(0),
    }).finish();
    expect(bench.log).toEqual([HIGH, MIDDLE, LOW]);
    expect(bench.word('irr')).toBe(1n << BigInt(HIGH & 31));
    // The window is asked for once for each: after an injection something still waits.
    expect(bench.total.exits.byReason['interrupt-window']).toBe(3);
    expectBalanced(bench);
  });

  it('of one vector that come twice are one delivery', () => {
    const bench = new MachineBench({
      main: (a) => {
        interruptSelf(a, LOW);
        interruptSelf(a, LOW);
        openWindow(a);
      },
      handlers: logging(LOW),
    }).finish();
    expect(bench.log).toEqual([LOW]);
    expect(bench.total.interrupts).toMatchObject({ accepted: { total: 1 }, coalesced: { total: 1 } });
  });

  it('nest by priority: a higher one interrupts a handler, an equal or lower one does not', () => {
    const handler = (vector: number) => (a: Assembler) => {
      record(a, vector);
      if (vector === MIDDLE) {
        interruptSelf(a, LOW);
        interruptSelf(a, MIDDLE + 1);
        interruptSelf(a, HIGH);
        openWindow(a);
        record(a, 0xee);
      }
      endInterrupt(a);
    };
    const bench = new MachineBench({
      main: (a) => {
        interruptSelf(a, MIDDLE);
        openWindow(a);
      },
      handlers: { [LOW]: handler(LOW), [MIDDLE]: handler(MIDDLE), [MIDDLE + 1]: handler(MIDDLE + 1), [HIGH]: handler(HIGH) },
    }).finish();
    expect(bench.log).toEqual([MIDDLE, HIGH, 0xee, MIDDLE + 1, LOW]);
    expectBalanced(bench);
  });

  it('are held back by CR8, and let in when it is lowered, in an exit', () => {
    const bench = new MachineBench({
      main: (a) => {
        a.mov(eax, MIDDLE >> 4).mov(cr8, rax).sti();
        interruptSelf(a, MIDDLE);
        interruptSelf(a, HIGH);
        record(a, 1);
        a.mov(eax, 0).mov(cr8, rax).nop();
        record(a, 2);
        a.cli();
      },
      handlers: logging(MIDDLE, HIGH),
    }).finish();
    expect(bench.log).toEqual([HIGH, 1, MIDDLE, 2]);
    expect(bench.total.exits.byReason['cr8-write']).toBe(1);
  });

  it('of another vCPU kick it out of the guest; a halted one just wakes', () => {
    const run = (halts: boolean) =>
      new MachineBench({
        main: (a) => {
          startApplications(a);
          waitFor(a, 'ready', 1);
          a.mov(ecx, 50_000).label('delay').dec(ecx).jnz('delay');
          sendIpi(a, 1, LOW);
          waitFor(a, 'seen', 1);
        },
        handlers: { [LOW]: (a) => { countUp(a, 'seen'); endInterrupt(a); } },
        application: (a) => {
          a.sti();
          countUp(a, 'ready');
          a.label('idle');
          if (halts) a.hlt();
          a.jmp('idle');
        },
        data: (a) => a.label('seen').dq(0).label('ready').dq(0),
      }, { vcpus: 2 }).finish();
    const [running, halted] = [run(false), run(true)].map((bench) => bench.machine.counters().vcpus[1].exits.byReason);
    expect(running).toMatchObject({ 'external-interrupt': 1, 'apic-access': 2 });
    expect(halted['external-interrupt']).toBeUndefined();
    // It halted, woke, halted again.
    expect(halted).toMatchObject({ hlt: 2, 'apic-access': 2 });
  });

  it('that a vCPU sends itself need no kick: it is out already', () => {
    const bench = new MachineBench({
      main: (a) => {
        a.sti();
        interruptSelf(a, LOW);
        a.nop().cli();
      },
      handlers: logging(LOW),
    }).finish();
    expect(bench.log).toEqual([LOW]);
    expect(bench.total.exits.byReason['external-interrupt']).toBeUndefined();
    expect(bench.total.exits.byReason['interrupt-window']).toBeUndefined();
  });

  it('pending when HLT comes end it at once', () => {
    const bench = new MachineBench({
      main: (a) => {
        interruptSelf(a, LOW);
        a.sti().hlt();
        record(a, 1);
        a.cli();
      },
      handlers: logging(LOW),
    }).finish();
    expect(bench.log).toEqual([LOW, 1]);
    expect(bench.total.exits.byReason.hlt).toBe(1);
  });

  it('do not end a HLT with interrupts off; an NMI does', () => {
    const bench = new MachineBench({
      main: (a) => {
        interruptSelf(a, LOW);
        a.cli().hlt();
        record(a, 1);
      },
      handlers: { ...logging(LOW), [NMI]: (a) => record(a, NMI) },
    });
    expect(bench.run()).toMatchObject({ kind: 'ended', end: 'hung' });
    const woken = new MachineBench({
      main: (a) => {
        startApplications(a);
        interruptSelf(a, LOW);
        a.cli().hlt();
        record(a, 1);
      },
      handlers: { ...logging(LOW), [NMI]: (a) => record(a, NMI) },
      application: (a) => {
        a.mov(ecx, 100_000).label('delay').dec(ecx).jnz('delay');
        sendIpi(a, 0, 0x400);
      },
    }, { vcpus: 2 }).finish();
    expect(woken.log).toEqual([NMI, 1]);
    expect(woken.total.interrupts.nmisInjected).toBe(1);
  });

  it('from the 8259 come by way of LINT0 and have no EOI of the local APIC’s', () => {
    const bench = new MachineBench({
      main: (a) => {
        // PIC: vectors from 0x30 on, all but IRQ 0 masked; PIT: channel 0, one shot, 100 counts.
        for (const [port, value] of [[0x20, 0x11], [0x21, 0x30], [0x21, 4], [0x21, 1], [0xa1, 0xff], [0x21, 0xfe], [0x43, 0x30], [0x40, 100], [0x40, 0]]) a.mov(al, value).out(port, al);
        a.sti().hlt().cli();
      },
      handlers: { 0x30: (a) => { record(a, 0x30); a.mov(al, 0x20).out(0x20, al); } },
    }).finish();
    expect(bench.log).toEqual([0x30]);
    expect(bench.total.interrupts.injected.bySource).toEqual({ extint: 1 });
    expect(bench.total.eois).toMatchObject({ written: 0, elided: 0 });
    expectBalanced(bench);
  });

  it('are not let in between STI and HLT, wherever the timer strikes', () => {
    // The timer is armed for every moment around the pair; a lost one would leave the vCPU halted for ever.
    const bench = new MachineBench({
      main: (a) => {
        a.mov(ecx, 400).label('again').mov(rsi, rcx).shr(rsi, 1).add(rsi, 1);
        writeApic(a, ApicRegister.divideConfiguration, 0xb);
        writeApic(a, ApicRegister.lvtTimer, LOW);
        a.mov(dword(address('APIC_BASE', ApicRegister.initialCount)), esi);
        for (let i = 0; i < 60; i++) a.nop();
        a.cmp(qword(address('seen')), 0).jnz('done').sti().hlt().cli().label('done').sti().nop().cli();
        a.mov(qword(address('seen')), 0).dec(ecx).jnz('again');
      },
      handlers: { [LOW]: (a) => { countUp(a, 'seen'); endInterrupt(a); } },
      data: (a) => a.label('seen').dq(0),
    }, { cost: free });
    expect(bench.finish().total.interrupts.injected.total).toBeGreaterThanOrEqual(400);
  });
});

describe('NMIs', () => {
  it('are not interrupted by NMIs: one waits for the IRET, the rest is lost', () => {
    const bench = new MachineBench({
      main: (a) => {
        sendIpi(a, 0, 0x400);
        record(a, 1);
      },
      handlers: {
        [NMI]: (a) => {
          record(a, NMI);
          a.cmp(qword(address('seen')), 0).jnz('not_again');
          countUp(a, 'seen');
          for (let i = 0; i < 3; i++) sendIpi(a, 0, 0x400);
          record(a, 0xee);
          a.label('not_again');
        },
      },
      data: (a) => a.label('seen').dq(0),
    }).finish();
    expect(bench.log).toEqual([NMI, 0xee, NMI, 1]);
    expect(bench.total.interrupts.nmisInjected).toBe(2);
    expect(bench.total.exits.byReason['nmi-window']).toBe(1);
  });

  it('come whatever IF says, and interrupts wait until they are done', () => {
    const bench = new MachineBench({
      main: (a) => {
        a.sti();
        sendIpi(a, 0, 0x400);
        record(a, 1);
        a.cli();
      },
      handlers: {
        [NMI]: (a) => {
          interruptSelf(a, LOW);
          record(a, NMI);
        },
        [LOW]: (a) => { record(a, LOW); endInterrupt(a); },
      },
    }).finish();
    expect(bench.log).toEqual([NMI, LOW, 1]);
  });
});

describe('INIT and STARTUP', () => {
  /** A second vCPU that counts how often it was started, then spins (or halts) with interrupts off. */
  const target = (loops: boolean) => (a: Assembler): void => {
    countUp(a, 'started');
    a.label('spin').pause();
    if (!loops) a.hlt();
    a.jmp('spin');
  };
  const init = (a: Assembler): void => sendIpi(a, 1, 0x4500);
  const startUp = (a: Assembler): void => sendIpi(a, 1, 0x4608);
  const data = (a: Assembler): void => void a.label('started').dq(0);
  const delay = (a: Assembler, label: string, loops = 30_000): void => void a.mov(ecx, loops).label(label).dec(ecx).jnz(label);

  it('one of each starts a vCPU', () => {
    const bench = new MachineBench({
      main: (a) => {
        init(a);
        startUp(a);
        waitFor(a, 'started', 1);
      },
      application: target(false), data,
    }, { vcpus: 2 }).finish();
    expect(bench.word('started')).toBe(1n);
  });

  it('a second STARTUP is ignored by a vCPU that runs', () => {
    const bench = new MachineBench({
      main: (a) => {
        init(a);
        startUp(a);
        waitFor(a, 'started', 1);
        startUp(a);
        delay(a, 'd1');
        startUp(a);
        delay(a, 'd2');
      },
      application: target(true), data,
    }, { vcpus: 2 }).finish();
    expect(bench.word('started')).toBe(1n);
  });

  it.each([['runs', true], ['is halted', false]] as const)('INIT stops a vCPU that %s, and instructions are counted on rightly', (_name, loops) => {
    const bench = new MachineBench({
      main: (a) => {
        init(a);
        startUp(a);
        waitFor(a, 'started', 1);
        delay(a, 'd1');
        init(a);
        delay(a, 'd2', 200_000);
        a.mov(rbx, qword(address('started')));
        startUp(a);
        waitFor(a, 'started', 2);
      },
      application: target(loops), data,
    }, { vcpus: 2 });
    bench.finish();
    const [boot, second] = bench.machine.counters().vcpus;
    // It spun as long as the boot processor’s first delay at most, not during the second.
    expect(second.instructions).toBeLessThan(boot.instructions / 2);
    expect(bench.machine.instructions).toBe(boot.instructions + second.instructions);
    const cycles = bench.machine.vcpuCycles;
    expect(cycles[1]).toBeLessThanOrEqual(cycles[0] + 40_000);
  });

  it('INIT throws away what is pending and in service, and PV EOI’s word is none any more', () => {
    const bench = new MachineBench({
      main: (a) => {
        init(a);
        startUp(a);
        waitFor(a, 'started', 1);
        delay(a, 'd1');
        init(a);
        startUp(a);
        waitFor(a, 'started', 2);
        delay(a, 'd2');
      },
      application: (a) => {
        countUp(a, 'started');
        // What the MSR holds: the second time, nothing.
        a.mov(ecx, MSR_PV_EOI).rdmsr();
        keep(a, 'msr', rax);
        enablePvEoi(a);
        // In service MIDDLE, armed; its handler never returns. Pending LOW.
        interruptSelf(a, MIDDLE);
        a.sti().label('spin').pause().jmp('spin');
      },
      handlers: {
        [MIDDLE]: (a) => {
          a.cmp(qword(address('started')), 1).jnz('second').label('stay');
          a.pause().jmp('stay').label('second');
          endInterruptPv(a);
        },
      },
      data: (a) => a.label('started').dq(0).label('msr').dq(~0n),
    }, { vcpus: 2 });
    bench.finish();
    expect(bench.word('msr')).toBe(0n);
    expect(bench.machine.counters().vcpus[1].interrupts).toMatchObject({ discardedInIsr: 1, discardedInIrr: 0 });
    expectBalanced(bench);
  });
});

describe('an APIC that is turned off', () => {
  it('throws away what is pending and in service', () => {
    const bench = new MachineBench({
      main: (a) => {
        interruptSelf(a, MIDDLE);
        a.sti().nop().cli();
      },
      handlers: {
        // LOW waits behind MIDDLE, which is in service.
        [MIDDLE]: (a) => {
          interruptSelf(a, LOW);
          a.mov(ecx, MSR_APIC_BASE).rdmsr().and(eax, ~0xc00).wrmsr();
        },
      },
    });
    bench.finish();
    expect(bench.machine.counters().vcpus[0].interrupts).toMatchObject({ discardedInIsr: 1, discardedInIrr: 1, inIsr: 0, inIrr: 0 });
    expectBalanced(bench);
  });
});

describe('paravirtual wake-ups', () => {
  it('a kick wakes a vCPU that halts with interrupts off', () => {
    const bench = new MachineBench({
      main: (a) => {
        startApplications(a);
        waitFor(a, 'ready', 1);
        a.mov(ecx, 50_000).label('delay').dec(ecx).jnz('delay');
        a.mov(eax, 5).mov(rbx, 0).mov(ecx, 1).vmmcall();
        keep(a, 'result', rax);
        waitFor(a, 'woken', 1);
      },
      application: (a) => {
        countUp(a, 'ready');
        a.cli().hlt();
        countUp(a, 'woken');
      },
      data: (a) => a.label('ready').dq(0).label('woken').dq(0).label('result').dq(~0n),
    }, { vcpus: 2 }).finish();
    expect(bench.word('result')).toBe(0n);
  });

  it('a kick that comes first lets the next HLT fall through', () => {
    const bench = new MachineBench({
      main: (a) => {
        a.mov(eax, 5).mov(rbx, 0).mov(ecx, 0).vmmcall();
        a.cli().hlt();
        record(a, 1);
      },
    }).finish();
    expect(bench.log).toEqual([1]);
  });

  it('IPIs by hypercall are counted as what they are, and say how many took them', () => {
    const bench = new MachineBench({
      main: (a) => {
        startApplications(a);
        waitFor(a, 'ready', 2);
        a.mov(eax, 10).mov(rbx, 0b1110).mov(ecx, 0).mov(edx, 0).mov(rsi, LOW).vmmcall();
        keep(a, 'result', rax);
        waitFor(a, 'seen', 2);
      },
      handlers: { [LOW]: (a) => { countUp(a, 'seen'); endInterrupt(a); } },
      application: (a) => {
        countUp(a, 'ready');
        a.label('idle').sti().hlt().jmp('idle');
      },
      data: (a) => a.label('ready').dq(0).label('seen').dq(0).label('result').dq(0),
    }, { vcpus: 3 }).finish();
    // There is no vCPU 3.
    expect(bench.word('result')).toBe(2n);
    expect(bench.total.interrupts.accepted.bySource).toEqual({ 'pv-ipi': 2 });
    expect(bench.total.exits.byReason.hypercall).toBe(1);
  });
});

describe('PV EOI', () => {
  const pvHandlers = (...vectors: number[]) => Object.fromEntries(vectors.map((vector) => [vector, (a: Assembler) => { record(a, vector); endInterruptPv(a); }]));
  const eois = (bench: MachineBench) => bench.finish().total.eois;

  it('a handler that nothing disturbs ends its interrupt without an exit', () => {
    const bench = new MachineBench({
      main: (a) => {
        enablePvEoi(a);
        for (let i = 0; i < 3; i++) {
          interruptSelf(a, LOW);
          openWindow(a);
        }
      },
      handlers: pvHandlers(LOW),
    });
    expect(eois(bench)).toEqual({ written: 0, elided: 3, broadcast: 0, ignored: 0, writtenBecause: {} });
    expect(bench.log).toEqual([LOW, LOW, LOW]);
    expect(bench.word('pv_eoi_word')).toBe(0n);
    expect(bench.total.pvEoi).toMatchObject({ armed: 3, disarmed: 0 });
    expectBalanced(bench);
  });

  it('works the same in x2APIC mode, where the write would be to an MSR', () => {
    const run = (pv: boolean) =>
      new MachineBench({
        main: (a) => {
          enableX2apic(a);
          if (pv) enablePvEoi(a);
          writeMsr(a, x2apicMsr(ApicRegister.selfIpi), LOW);
          openWindow(a);
        },
        handlers: { [LOW]: (a) => {
          if (pv) a.btr(dword(address('pv_eoi_word')), 0).jc('ended');
          writeMsr(a, x2apicMsr(ApicRegister.eoi), 0);
          a.label('ended');
        } },
      }).finish().total;
    const [plain, paravirtual] = [run(false), run(true)];
    expect([plain.eois.written, paravirtual.eois.written, paravirtual.eois.elided]).toEqual([1, 0, 1]);
    // One write more to enable it, one less at the end.
    expect(paravirtual.exits.byReason['msr-write']).toBe(plain.exits.byReason['msr-write']);
  });

  it('1: a lower one that arrives meanwhile makes the handler write; nothing is lost', () => {
    const bench = new MachineBench({
      main: (a) => {
        enablePvEoi(a);
        interruptSelf(a, MIDDLE);
        openWindow(a);
      },
      handlers: {
        ...pvHandlers(LOW),
        [MIDDLE]: (a) => {
          record(a, MIDDLE);
          interruptSelf(a, LOW);
          endInterruptPv(a);
          record(a, 0xee);
        },
      },
    });
    expect(eois(bench)).toMatchObject({ written: 1, elided: 1, writtenBecause: { 'pending-irr': 1 } });
    expect(bench.log).toEqual([MIDDLE, 0xee, LOW]);
    expectBalanced(bench);
  });

  it('2: a nested one is ended by its bit, the outer one by the register: inner first', () => {
    const bench = new MachineBench({
      main: (a) => {
        enablePvEoi(a);
        interruptSelf(a, LOW);
        openWindow(a);
        readApic(a, ApicRegister.isr + 0x20);
        keep(a, 'isr', rax);
      },
      handlers: {
        ...pvHandlers(HIGH),
        [LOW]: (a) => {
          record(a, LOW);
          interruptSelf(a, HIGH);
          openWindow(a);
          record(a, 0xee);
          endInterruptPv(a);
        },
      },
      data: (a) => a.label('isr').dq(~0n),
    });
    expect(eois(bench)).toMatchObject({ written: 1, elided: 1 });
    expect(bench.log).toEqual([LOW, HIGH, 0xee]);
    expect(bench.word('isr')).toBe(0n);
    expectBalanced(bench);
  });

  it('3: an exit in the handler disarms; one that looks at no events does not arm again', () => {
    const bench = new MachineBench({
      main: (a) => {
        enablePvEoi(a);
        interruptSelf(a, LOW);
        openWindow(a);
      },
      handlers: { [LOW]: (a) => {
        keep(a, 'before', loadWord(a));
        a.out(0x80, al);
        keep(a, 'after', loadWord(a));
        endInterruptPv(a);
      } },
      data: (a) => a.label('before').dq(9).label('after').dq(9),
    });
    expect(eois(bench)).toMatchObject({ written: 1, elided: 0, writtenBecause: { 'disarmed-by-exit': 1 } });
    expect([bench.word('before'), bench.word('after')]).toEqual([1n, 0n]);
    expect(bench.total.pvEoi).toMatchObject({ armed: 1, disarmed: 1 });
  });

  it('3: an exit for an NMI disarms as well, and arms again: it looked', () => {
    const bench = new MachineBench({
      main: (a) => {
        enablePvEoi(a);
        interruptSelf(a, LOW);
        openWindow(a);
      },
      handlers: { [LOW]: (a) => {
        sendIpi(a, 0, 0x400);
        endInterruptPv(a);
      }, [NMI]: (a) => record(a, NMI) },
    });
    expect(eois(bench)).toMatchObject({ written: 0, elided: 1 });
    expect(bench.total.pvEoi).toMatchObject({ armed: 2, disarmed: 1 });
    expect(bench.log).toEqual([NMI]);
  });

  it('4: what the guest ended is out of the ISR before HLT decides, and before the guest reads it', () => {
    const bench = new MachineBench({
      main: (a) => {
        enablePvEoi(a);
        interruptSelf(a, HIGH);
        openWindow(a);
        // Reading the PPR is an exit: the end of HIGH is noticed first.
        readApic(a, ApicRegister.ppr);
        keep(a, 'ppr', rax);
        interruptSelf(a, HIGH);
        openWindow(a);
        // Ended, not noticed. The timer's interrupt is lower: it must wake the vCPU all the same.
        armTimer(a, LOW, 100_000);
        interruptSelf(a, HIGH);
        a.sti().nop().hlt().cli();
      },
      handlers: pvHandlers(LOW, HIGH),
      data: (a) => a.label('ppr').dq(9),
    });
    expect(eois(bench)).toMatchObject({ written: 0, elided: 4 });
    expect(bench.word('ppr')).toBe(0n);
    expect(bench.log).toEqual([HIGH, HIGH, HIGH, LOW]);
  });

  it('5: while something waits for the interrupt window, the word stays 0', () => {
    const bench = new MachineBench({
      main: (a) => {
        enablePvEoi(a);
        interruptSelf(a, LOW);
        keep(a, 'while', loadWord(a));
        openWindow(a);
      },
      handlers: pvHandlers(LOW),
      data: (a) => a.label('while').dq(9),
    });
    expect(eois(bench)).toMatchObject({ written: 0, elided: 1 });
    expect(bench.word('while')).toBe(0n);
    expect(bench.total.pvEoi.notArmed['pending-irr']).toBeGreaterThanOrEqual(1);
  });

  it('7: a level-triggered line’s interrupt is ended at the I/O APIC, by a real write', () => {
    const GSI = 4;
    const bench = new MachineBench({
      main: (a) => {
        enablePvEoi(a);
        a.mov(al, 0xff).out(0x21, al).out(0xa1, al);
        // COM1's pin: level, MIDDLE. The UART asserts its line while the transmitter is empty.
        for (const [register, value] of [[0x10 + 2 * GSI, 0x8000 | MIDDLE], [0x11 + 2 * GSI, 0]]) a.mov(dword(address('IO_APIC_BASE')), register).mov(dword(address('IO_APIC_BASE', 0x10)), value);
        a.mov(dx, 0x3f9).mov(al, 2).out(dx, al).mov(dx, 0x3fc).mov(al, 8).out(dx, al);
        openWindow(a);
      },
      handlers: { [MIDDLE]: (a) => {
        record(a, MIDDLE);
        // The second time the device is quietened.
        a.inc(qword(address('seen'))).cmp(qword(address('seen')), 2).jb('again').mov(dx, 0x3f9).mov(al, 0).out(dx, al).label('again');
        keep(a, 'word', loadWord(a));
        endInterruptPv(a);
      } },
      data: (a) => a.label('seen').dq(0).label('word').dq(9),
    });
    expect(eois(bench)).toMatchObject({ written: 2, elided: 0, broadcast: 2 });
    expect(bench.log).toEqual([MIDDLE, MIDDLE]);
    expect(bench.word('word')).toBe(0n);
    expectBalanced(bench);
  });

  it('13: an EOI with nothing in service is ignored', () => {
    const bench = new MachineBench({ main: (a) => { enablePvEoi(a); endInterruptPv(a); endInterrupt(a); } });
    expect(eois(bench)).toMatchObject({ written: 0, elided: 0, ignored: 2 });
  });

  it('a guest that writes the register although the bit is set ends its interrupt once', () => {
    const bench = new MachineBench({
      main: (a) => {
        enablePvEoi(a);
        interruptSelf(a, LOW);
        interruptSelf(a, HIGH);
        openWindow(a);
      },
      handlers: { [LOW]: (a) => { record(a, LOW); endInterrupt(a); }, [HIGH]: (a) => { record(a, HIGH); endInterrupt(a); } },
    });
    expect(eois(bench)).toMatchObject({ written: 2, elided: 0, ignored: 0 });
    expect(bench.word('pv_eoi_word')).toBe(0n);
    expectBalanced(bench);
  });

  it('turned off in a handler, the interrupt is ended by the register', () => {
    const bench = new MachineBench({
      main: (a) => {
        enablePvEoi(a);
        interruptSelf(a, LOW);
        openWindow(a);
        interruptSelf(a, LOW);
        openWindow(a);
      },
      handlers: { [LOW]: (a) => { writeMsr(a, MSR_PV_EOI, 0); endInterruptPv(a); } },
    });
    expect(eois(bench)).toMatchObject({ written: 2, elided: 0 });
    expect(bench.total.pvEoi.notArmed['disabled-by-guest']).toBeGreaterThanOrEqual(1);
  });

  it.each([
    ['misaligned', 2 + 1, 0, {}],
    ['beyond RAM', 0x4000_0000 + 1, 0, {}],
    ['far beyond RAM', 1, 0x100, {}],
    ['that KVM does not offer', 1, 0, { kvm: kvm('-pv-eoi') }],
    ['of a KVM that hides', 1, 0, { kvm: KVM_OFF }],
  ])('a word %s raises #GP', (_name, low, high, options) => {
    const bench = new MachineBench({ main: (a) => { writeMsr(a, MSR_PV_EOI, low, high); }, handlers: { [GP]: (a) => exitWith(a, GP) } }, options);
    expect(bench.run()).toMatchObject({ kind: 'ended', end: 'debug-exit', exitStatus: (GP << 1) | 1 });
  });

  it('reads back what was written, bit 0 included', () => {
    const bench = new MachineBench({ main: (a) => { enablePvEoi(a, 8); a.mov(ecx, MSR_PV_EOI).rdmsr(); keep(a, 'read', rax); }, data: (a) => a.label('read').dq(0) }).finish();
    expect(bench.word('read')).toBe(BigInt(bench.address('pv_eoi_word') + 8 + 1));
  });

  it('on several vCPUs each has its own word; thousands of IPIs balance', () => {
    const ROUNDS = 500;
    const bench = new MachineBench({
      main: (a) => {
        enablePvEoi(a);
        startApplications(a);
        waitFor(a, 'ready', 1);
        a.mov(rsi, 0).label('round');
        sendIpi(a, 1, LOW);
        a.inc(rsi).sti().label('wait').pause().cmp(rsi, qword(address('seen'))).ja('wait').cli().cmp(rsi, ROUNDS).jb('round');
      },
      application: (a) => {
        enablePvEoi(a, 8);
        countUp(a, 'ready');
        a.label('idle').sti().hlt().jmp('idle');
      },
      handlers: { [LOW]: (a) => {
        countUp(a, 'seen');
        a.btr(dword(address('pv_eoi_word', 8)), 0).jc('ended');
        endInterrupt(a);
        a.label('ended');
        sendIpi(a, 0, HIGH);
      }, [HIGH]: (a) => { endInterruptPv(a); } },
      data: (a) => a.label('ready').dq(0).label('seen').dq(0),
    }, { vcpus: 2 }).finish();
    expectBalanced(bench);
    const [first, second] = bench.machine.counters().vcpus;
    expect(second.interrupts.injected.total).toBe(ROUNDS);
    expect(second.eois.elided).toBe(ROUNDS);
    expect(first.eois.elided + first.eois.written + first.interrupts.inIsr + first.interrupts.inIrr + first.interrupts.coalesced.total).toBe(ROUNDS);
    expect(first.eois.elided).toBeGreaterThan(first.eois.written * 5);
  });
});

/** RAX: the word PV EOI is about. */
function loadWord(a: Assembler) {
  a.mov(eax, dword(address('pv_eoi_word')));
  return rax;
}
