import { describe, expect, it } from 'vitest';
import { acknowledgeSymbol } from '../guest/apic/driver-code.ts';
import { callMethod } from '../guest/apic/native-access.ts';
import { dword, eax } from '../guest/assembler/operands.ts';
import { buildKernel, type KernelOptions } from '../guest/kernel/kernel.ts';
import { Vector } from '../guest/kernel/layout.ts';
import { pathCounts } from './call-tracer.ts';
import { Machine, type MachineOptions } from './machine.ts';

const WORKLOADS = { timer: 30, 'ping-pong': 30, messages: 10, level: 5, nested: 5, nmi: 5 };
const PAGE = 4096;

function boot(kernelOptions: KernelOptions, options: Partial<MachineOptions> = {}, symbol?: string) {
  const kernel = buildKernel({ longestPause: 1024, ...kernelOptions });
  const machine = new Machine({ kernel: kernel.elf, vcpus: 2, memoryBytes: 8 * 2 ** 20, ...options });
  const { base, bytes, symbols } = kernel.image;
  const at = symbol === undefined ? undefined : (symbols.get(symbol) as number);
  const pages = Array.from({ length: Math.ceil(bytes.length / PAGE) }, (_, i) => base + i * PAGE);
  const tracer = at === undefined ? undefined : machine.traceCalls([{ guestPhysical: at, kind: 'function', name: () => 'traced' }], pages);
  let output = '';
  machine.serial.onOutput((chunk) => {
    output += new TextDecoder().decode(chunk);
  });
  expect(machine.run({ guestNanoseconds: 5e9 })).toMatchObject({ end: 'power-off' });
  return { tracer, output, counters: machine.counters(), cycles: machine.vcpuCycles };
}

describe('tracing calls', () => {
  it.each([
    { bits: 64 as const, jit: true },
    { bits: 32 as const, jit: true },
    { bits: 64 as const, jit: false },
  ])('leaves the run as it is ($bits-bit, JIT $jit), and sees every EOI', ({ bits, jit }) => {
    const kernel: KernelOptions = { bits, workloads: WORKLOADS };
    const plain = boot(kernel, { jit: true });
    const traced = boot(kernel, { jit }, acknowledgeSymbol('pv-eoi'));
    expect(traced.output).toBe(plain.output);
    expect(traced.counters).toEqual(plain.counters);
    expect(traced.cycles).toEqual(plain.cycles);
    const { written, elided } = traced.counters.total.eois;
    const { tracer } = traced;
    expect(tracer?.paths.reduce((sum, { calls }) => sum + calls, 0)).toBe(written + elided);
    expect(tracer?.incomplete).toBe(0);
    const exiting = tracer?.paths.filter(({ steps }) => steps.some(({ exits }) => exits.length));
    expect(exiting?.reduce((sum, { calls }) => sum + calls, 0)).toBe(written);
  });

  it('counts branches both ways, what is read and written, and exits by their instruction', () => {
    const kernel: KernelOptions = {
      variables: ['word'],
      program: ({ a, abi }) => {
        a.mov(dword('word'), 1);
        a.call('program.traced');
        a.call('program.traced');
        a.jmp('.out');
        a.label('.traced');
        a.push(abi.saved[0]);
        a.cmp(dword('word'), 0);
        a.je('.zero');
        a.dec(dword('word'));
        a.label('.zero');
        a.xor(eax, eax);
        a.cpuid();
        a.pop(abi.saved[0]);
        a.ret();
      },
    };
    const { tracer } = boot(kernel, {}, 'program.traced');
    const same = { branches: 1, transfers: 1, exits: { cpuid: 1 } };
    expect(tracer?.paths.map(pathCounts)).toEqual([
      { ...same, instructions: 8, branchesTaken: 0, reads: 4, writes: 2 },
      { ...same, instructions: 7, branchesTaken: 1, reads: 3, writes: 1 },
    ]);
    expect(tracer?.paths[0].steps.map(({ exits }) => exits)).toEqual([[], [], [], [], [], ['cpuid'], [], []]);
  });

  it('leaves out an interrupt that comes in between, with all that its handler does', () => {
    const kernel: KernelOptions = {
      program: ({ a, abi }) => {
        a.cli();
        a.mov(abi.arguments32[0], Vector.reschedule);
        callMethod(a, abi, 'sendIpiSelf');
        a.call('program.traced');
        a.jmp('.out');
        a.label('.traced');
        a.sti();
        a.nop();
        a.nop();
        a.ret();
      },
    };
    const { tracer, counters } = boot(kernel, { vcpus: 1 }, 'program.traced');
    expect(counters.total.interrupts.injected.total).toBe(1);
    expect(tracer?.incomplete).toBe(0);
    expect(tracer?.paths.map(pathCounts)).toEqual([
      { instructions: 4, branches: 0, branchesTaken: 0, transfers: 1, reads: 1, writes: 0, exits: {} },
    ]);
    expect(tracer?.paths[0].chanceExits).toBe(1);
    expect(tracer?.paths[0].cycles).toBeLessThan(10_000);
  });
});
