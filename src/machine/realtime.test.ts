import { describe, expect, it } from 'vitest';
import { MachineBench, writeApic } from '../../tests/machine-bench.ts';
import type { Assembler } from '../guest/assembler/assembler.ts';
import { address, al, dword, dx, qword, rax, rdx } from '../guest/assembler/operands.ts';
import { ApicRegister } from '../interrupts/apic-registers.ts';

const COM1 = 0x3f8;
const COM1_PIN = 4;
const VECTOR = 0x40;

/** Halts until a byte is typed, and keeps the time-stamp counter at which it wakes. */
function waitForInput(a: Assembler): void {
  // The PIC would deliver it, too.
  a.mov(al, 0xff).out(0x21, al);
  a.mov(dword(address('IO_APIC_BASE')), 0x10 + 2 * COM1_PIN).mov(dword(address('IO_APIC_BASE', 0x10)), VECTOR);
  for (const [register, value] of [[4, 0x0b], [1, 0x01]]) a.mov(dx, COM1 + register).mov(al, value).out(dx, al);
  a.sti().hlt().cli();
}

const guest = {
  main: waitForInput,
  handlers: {
    [VECTOR]: (a: Assembler) => {
      a.rdtsc().shl(rdx, 32).or(rax, rdx).mov(qword(address('woken')), rax);
      a.mov(dx, COM1).in(al, dx);
      writeApic(a, ApicRegister.eoi, 0);
    },
  },
  data: (a: Assembler) => void a.label('woken').dq(0),
};

describe('with realtime', () => {
  it('input wakes a guest at the time that has passed on the host', () => {
    const bench = new MachineBench(guest, { realtime: true });
    expect(bench.run()).toEqual({ kind: 'idle', untilNanoseconds: Number.POSITIVE_INFINITY });
    bench.machine.serial.write(Uint8Array.of(65));
    bench.machine.allowedUntil = 2e9;
    bench.finish();
    // A byte takes 87 µs to come in.
    expect(Number(bench.word('woken'))).toBeGreaterThan(2e9);
    expect(Number(bench.word('woken'))).toBeLessThan(2e9 + 1e6);
  });

  it('time that was never allowed does not pass', () => {
    const bench = new MachineBench(guest, { realtime: true });
    bench.run();
    bench.machine.serial.write(Uint8Array.of(65));
    bench.finish();
    expect(Number(bench.word('woken'))).toBeLessThan(1e6);
  });
});

describe('without realtime', () => {
  it('input between two runs comes when the second begins', () => {
    const bench = new MachineBench(guest);
    bench.machine.serial.write(Uint8Array.of(65));
    bench.finish();
    expect(Number(bench.word('woken'))).toBeLessThan(1e6);
  });
});
