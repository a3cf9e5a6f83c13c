/**
 * Workloads: what makes interrupts. Each runs its rounds between the lines `@@ begin NAME` and `@@ end NAME` (all of them between
 * `@@ start` and `@@ done`), and says in a line how long they took, by the boot CPU's TSC.
 */

import type { Assembler } from '../assembler/assembler.ts';
import { address, al, byte, dl, dword, dx, eax, edx, type GeneralRegister, mem, times } from '../assembler/operands.ts';
import type { DriverName } from '../apic/apic-driver.ts';
import type { GuestAbi, GuestFunctions } from '../apic/guest-abi.ts';
import { callMethod } from '../apic/native-access.ts';
import { ApicRegister, LVT_MASKED, LVT_TIMER_PERIODIC } from '../../interrupts/apic-registers.ts';
import { REDIRECTION_LEVEL } from '../../interrupts/io-apic.ts';
import { acknowledgeSymbol, type EoiState } from '../apic/driver-code.ts';
import { COM1, printLine, type Texts, Uart } from './console.ts';
import { PerCpu, Vector } from './layout.ts';
import { TIMER_IRQ, unmask8259 } from './serial-interrupts.ts';
import { apicWrite } from './processors.ts';

export const WORKLOADS = ['timer', 'ping-pong', 'messages', 'edge', 'level', 'nested', 'nmi'] as const;
export type Workload = (typeof WORKLOADS)[number];

/** How long a tick is, in the APIC timer's counts at divisor 1. */
const TICK_COUNTS = 50_000;
const DIVIDE_BY_1 = 0b1011;
const TRANSMIT_INTERRUPT = 2;
/** Channel 0 as a rate generator, low byte first: every 50 microseconds of its 1.19 MHz. */
const PIT_COUNTER = 0x40;
const PIT_CONTROL = 0x43;
const PIT_RATE_GENERATOR = 0x34;
const PIT_COUNT = 60;
/** One byte for each pair of receiver and sender: 64 senders to a receiver. */
const MAILBOX_SHIFT = 6;

const symbolOf = (workload: Workload): string => `workload_${workload.replace('-', '_')}`;

/** How often a workload does what it does, and whether it takes random pauses in between. */
interface Rounds {
  count: number;
  pauses: boolean;
}

/** How many interrupts of a vector this CPU has handled. */
const handled = (abi: GuestAbi, vector: number) => ({ ...abi.perCpu('handled', 32), displacement: 4 * vector });

/** Sleeps until `ready` jumps to `.ready`, with interrupts off while it looks. Interrupts are on afterwards. */
function sleepUntil(a: Assembler, name: string, ready: () => void): void {
  a.label(`.sleep_${name}`);
  a.cli();
  ready();
  a.sti();
  a.hlt();
  a.jmp(`.sleep_${name}`);
  a.label(`.ready_${name}`);
  a.sti();
}

/** Runs `round` so many times, with the count in the third saved register; a random pause comes before each, if there are any. */
function rounds(a: Assembler, abi: GuestAbi, { count, pauses }: Rounds, round: () => void): void {
  const [, , left] = abi.saved;
  const [, , left32] = abi.saved32;
  a.push(left);
  a.mov(left32, count);
  a.label('.round');
  if (pauses) a.call('random_pause');
  round();
  a.dec(left32);
  a.jnz('.round');
  a.pop(left);
}

function maskOf(a: Assembler, abi: GuestAbi, cpu: GeneralRegister): void {
  a.lea(abi.arguments[0], mem(times(cpu, abi.word), address('cpu_bit_masks')));
}

/**
 * Serial interrupts: enabling the transmitter's interrupt while it is empty makes one. `each` is how many to expect of a round.
 */
const serial =
  (all: Rounds, level: boolean): GuestFunctions[string] =>
  (a, abi) => {
    const [target] = abi.saved;
    const [target32] = abi.saved32;
    const setInterrupts = (value: number): void => {
      a.mov(eax, value);
      a.mov(edx, COM1 + Uart.interruptEnable);
      a.out(dx, al);
    };
    a.push(target);
    a.mov(abi.arguments32[0], level ? REDIRECTION_LEVEL : 0);
    a.call('route_serial');
    a.mov(eax, abi.perCpu('cpu_number', 32));
    a.mov(dword('serial_waiter'), eax);
    a.mov(target32, dword('serial_handled'));
    rounds(a, abi, all, () => {
      // A line that is not taken down strikes again at the EOI, if it is level-triggered.
      if (level) a.mov(dword('serial_leave_alone'), 1);
      a.add(target32, level ? 2 : 1);
      setInterrupts(TRANSMIT_INTERRUPT);
      sleepUntil(a, 'serial', () => {
        a.cmp(dword('serial_handled'), target32);
        a.je('.ready_serial');
      });
      setInterrupts(0);
    });
    a.pop(target);
    a.ret();
  };

/** The PIT's first channel, through the 8259s. */
const pitTicks =
  (count: number): GuestFunctions[string] =>
  (a, abi) => {
    const ticks = handled(abi, Vector.legacy + TIMER_IRQ);
    a.call('init_8259');
    for (const [port, value] of [
      [PIT_CONTROL, PIT_RATE_GENERATOR],
      [PIT_COUNTER, PIT_COUNT],
      [PIT_COUNTER, 0],
    ]) {
      a.mov(al, value);
      a.out(port, al);
    }
    unmask8259(a, TIMER_IRQ);
    sleepUntil(a, 'tick', () => {
      a.cmp(ticks, count);
      a.jge('.ready_tick');
    });
    unmask8259(a);
    a.ret();
  };

const selfInterrupts =
  (all: Rounds, vector: number): GuestFunctions[string] =>
  (a, abi) => {
    rounds(a, abi, all, () => {
      a.mov(abi.arguments32[0], vector);
      callMethod(a, abi, 'sendIpiSelf');
    });
    a.ret();
  };

/** What a kernel with that driver can run: without an APIC there are no IPIs. */
export const workloadsOf = (driver: DriverName | undefined): readonly Workload[] => (driver === 'noop' ? ['timer', 'edge', 'level'] : WORKLOADS);

export interface WorkloadOptions {
  /** Rounds of each. */
  counts: Readonly<Partial<Record<Workload, number>>>;
  state: EoiState;
  /** A power of two, or 0. */
  longestPause: number;
  /** Timer ticks are the APIC's, else the PIT's. */
  hasApic: boolean;
}

export function workloadFunctions({ counts, state, longestPause, hasApic }: WorkloadOptions, texts: Texts): GuestFunctions {
  const count = (workload: Workload): number => counts[workload] ?? 0;
  const pauses = longestPause > 0;
  const roundsOf = (workload: Workload): Rounds => ({ count: count(workload), pauses });
  return {
    /** A number below a power of two that is random where the processor has RDRAND, else 0. Flags, result and scratch are lost. */
    random_below_longest_pause(a) {
      a.xor(eax, eax);
      a.cmp(dword('has_rdrand'), 0);
      a.je('.none');
      a.rdrand(eax);
      a.and(eax, longestPause - 1);
      a.label('.none');
      a.ret();
    },
    /** So many iterations of nothing. */
    random_pause(a) {
      a.call('random_below_longest_pause');
      a.inc(eax);
      a.label('.pause');
      a.dec(eax);
      a.jnz('.pause');
      a.ret();
    },

    ...(hasApic ? {} : { pit_ticks: pitTicks(count('timer')) }),
    /** Every CPU's own APIC timer, periodic; they sleep in between. */
    timer_ticks(a, abi) {
      if (!hasApic) return a.jmp('pit_ticks');
      const [target] = abi.saved;
      const [target32] = abi.saved32;
      a.push(target);
      a.mov(target32, handled(abi, Vector.timer));
      a.add(target32, count('timer'));
      apicWrite(a, abi, ApicRegister.divideConfiguration, DIVIDE_BY_1);
      apicWrite(a, abi, ApicRegister.lvtTimer, LVT_TIMER_PERIODIC | Vector.timer);
      if (pauses) {
        a.call('random_below_longest_pause').note('CPUs tick at rates of their own');
        a.add(eax, TICK_COUNTS);
      } else a.mov(eax, TICK_COUNTS);
      apicWrite(a, abi, ApicRegister.initialCount, eax);
      sleepUntil(a, 'timer', () => {
        a.cmp(handled(abi, Vector.timer), target32);
        a.jge('.ready_timer');
      });
      apicWrite(a, abi, ApicRegister.initialCount, 0);
      apicWrite(a, abi, ApicRegister.lvtTimer, LVT_MASKED);
      a.pop(target);
      a.ret();
    },
    workload_timer(a, abi) {
      a.mov(abi.arguments32[0], address('timer_ticks'));
      a.jmp('run_on_all');
    },

    /** CPUs 0 and 1 hand a ball to each other and sleep without it; a single CPU interrupts itself. */
    ping_pong(a, abi) {
      const [me, other] = abi.saved;
      const [me32, other32] = abi.saved32;
      a.push(me);
      a.push(other);
      a.mov(me32, abi.perCpu('cpu_number', 32));
      a.cmp(me32, 1);
      a.ja('.out');
      a.mov(other32, me32);
      a.xor(other32, 1);
      rounds(a, abi, roundsOf('ping-pong'), () => {
        sleepUntil(a, 'ball', () => {
          a.cmp(dword('ball'), me32);
          a.je('.ready_ball');
        });
        a.mov(dword('ball'), other32);
        maskOf(a, abi, other);
        a.mov(abi.arguments32[1], Vector.reschedule);
        callMethod(a, abi, 'sendIpiMask');
      });
      a.label('.out');
      a.pop(other);
      a.pop(me);
      a.ret();
    },
    ping_self: selfInterrupts(roundsOf('ping-pong'), Vector.reschedule),
    workload_ping_pong(a, abi) {
      a.cmp(dword('nr_cpu_ids'), 1);
      a.je('ping_self');
      a.mov(dword('ball'), 0);
      a.mov(abi.arguments32[0], address('ping_pong'));
      a.jmp('run_on_all');
    },

    /** Even CPUs post to all odd ones and sleep until all have answered; a single CPU posts to itself. */
    send_messages(a, abi) {
      const [me, box] = abi.saved;
      const [me32, box32] = abi.saved32;
      a.push(me);
      a.push(box);
      a.mov(me32, abi.perCpu('cpu_number', 32));
      a.test(me32, 1);
      a.jnz('.out');
      rounds(a, abi, roundsOf('messages'), () => {
        a.mov(dword(times(me, 4), address('answers')), 0);
        a.xor(box32, box32);
        a.label('.post');
        a.bt(abi.pointer('receivers'), box);
        a.jnc('.posted');
        a.mov(eax, box32);
        a.shl(eax, MAILBOX_SHIFT);
        a.mov(byte(abi.result, me, address('mailboxes')), 1);
        a.label('.posted');
        a.inc(box32);
        a.cmp(box32, dword('nr_cpu_ids'));
        a.jb('.post');
        a.mov(abi.arguments32[0], address('receivers'));
        a.mov(abi.arguments32[1], Vector.message);
        callMethod(a, abi, 'sendIpiMask');
        a.mov(box32, dword('receiver_count'));
        sleepUntil(a, 'answers', () => {
          a.cmp(dword(times(me, 4), address('answers')), box32);
          a.je('.ready_answers');
        });
      });
      a.label('.out');
      a.pop(box);
      a.pop(me);
      a.ret();
    },
    /** The receiver's side: whatever lies in its boxes, one interrupt or several messages ago. Each sender is woken. */
    handle_message(a, abi) {
      const [me, sender] = abi.saved;
      const [me32, sender32] = abi.saved32;
      a.push(me);
      a.push(sender);
      a.call(acknowledgeSymbol(state));
      a.mov(me32, abi.perCpu('cpu_number', 32));
      a.xor(sender32, sender32);
      a.label('.sender');
      a.mov(eax, me32);
      a.shl(eax, MAILBOX_SHIFT);
      a.mov(edx, 0);
      a.xchg(byte(abi.result, sender, address('mailboxes')), dl);
      a.test(dl, dl);
      a.jz('.next');
      a.inc(abi.perCpu('messages_received', 32));
      a.lock().inc(dword(times(sender, 4), address('answers')));
      a.cmp(sender32, me32);
      a.je('.next');
      maskOf(a, abi, sender);
      a.mov(abi.arguments32[1], Vector.reschedule);
      callMethod(a, abi, 'sendIpiMask');
      a.label('.next');
      a.inc(sender32);
      a.cmp(sender32, dword('nr_cpu_ids'));
      a.jb('.sender');
      a.pop(sender);
      a.pop(me);
      a.ret();
    },
    workload_messages(a, abi) {
      a.mov(abi.result, abi.pointer('cpu_online_mask'));
      const odd = abi.bits === 64 ? 0xaaaa_aaaa_aaaa_aaaan : 0xaaaa_aaaa;
      a.mov(abi.scratch, odd);
      a.and(abi.result, abi.scratch);
      a.jnz('.group');
      a.mov(eax, 1);
      a.label('.group');
      a.mov(abi.pointer('receivers'), abi.result);
      a.mov(dword('receiver_count'), 0);
      a.label('.count').note('POPCNT, for any processor');
      a.inc(dword('receiver_count'));
      a.lea(abi.scratch, mem(abi.result, -1));
      a.and(abi.result, abi.scratch);
      a.jnz('.count');
      a.mov(abi.arguments32[0], address('send_messages'));
      a.jmp('run_on_all');
    },

    workload_edge: serial(roundsOf('edge'), false),
    workload_level: serial(roundsOf('level'), true),
    workload_nested: selfInterrupts(roundsOf('nested'), Vector.nested[0]),
    /** An NMI inside a handler, before its EOI; then one for all the others. */
    workload_nmi(a, abi) {
      rounds(a, abi, roundsOf('nmi'), () => {
        a.mov(abi.arguments32[0], Vector.withNmi);
        callMethod(a, abi, 'sendIpiSelf');
        a.mov(abi.arguments32[0], Vector.nmi);
        callMethod(a, abi, 'sendIpiAllButSelf');
      });
      a.ret();
    },

    /** All of them, those with rounds to run. */
    run_workloads(a, abi) {
      const [start] = abi.saved32;
      a.push(abi.saved[0]);
      printLine(a, abi, texts, ['@@ start']);
      for (const workload of WORKLOADS) {
        if (!count(workload)) continue;
        printLine(a, abi, texts, [`@@ begin ${workload}`]);
        a.rdtsc();
        a.mov(start, eax);
        a.call(symbolOf(workload));
        a.rdtsc();
        a.sub(eax, start);
        a.mov(start, eax);
        printLine(a, abi, texts, [`@@ end ${workload}`]);
        printLine(a, abi, texts, [`@@ workload name=${workload} rounds=${count(workload)} cycles=`, start]);
      }
      printLine(a, abi, texts, ['@@ done']);
      a.pop(abi.saved[0]);
      a.ret();
    },

    /** Interrupts handled by CPU and vector, messages received, the order of the first nested interrupts. */
    report(a, abi) {
      const [cpu, vector, area] = abi.saved;
      const [cpu32, vector32, area32] = abi.saved32;
      for (const register of [cpu, vector, area]) a.push(register);
      a.xor(cpu32, cpu32);
      a.label('.cpu');
      a.mov(area32, cpu32);
      a.shl(area32, 14);
      a.add(area, address('per_cpu_areas'));
      printLine(a, abi, texts, ['@@ messages cpu=', cpu32, ' count=', dword(area, PerCpu.messages_received)]);
      a.xor(vector32, vector32);
      a.label('.vector');
      a.cmp(dword(area, times(vector, 4), PerCpu.handled), 0);
      a.je('.none');
      printLine(a, abi, texts, [
        '@@ handled cpu=',
        cpu32,
        ' vector=',
        vector32,
        ' count=',
        dword(area, times(vector, 4), PerCpu.handled),
      ]);
      a.label('.none');
      a.inc(vector32);
      a.cmp(vector32, 256);
      a.jb('.vector');
      a.inc(cpu32);
      a.cmp(cpu32, dword('nr_cpu_ids'));
      a.jb('.cpu');
      if (count('nested')) {
        printLine(a, abi, texts, [
          '@@ nested order=',
          ...[0, 1, 2, 3, 4, 5, 6, 7].flatMap((i) => [...(i ? [','] : []), byte(address('nested_log', i))]),
        ]);
      }
      for (const register of [area, vector, cpu]) a.pop(register);
      a.ret();
    },
  };
}
