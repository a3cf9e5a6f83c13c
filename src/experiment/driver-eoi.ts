/**
 * What an EOI costs with a driver of the series' time, in each of its states: counted while the tiny kernel runs, from the first
 * instruction of `ack_APIC_irq` to its return, that included.
 */

import type { ApicDriver } from '../guest/apic/apic-driver.ts';
import type { EoiState } from '../guest/apic/driver-code.ts';
import { dword } from '../guest/assembler/operands.ts';
import { buildKernel, type KernelOptions } from '../guest/kernel/kernel.ts';
import type { TracedPath } from '../machine/call-tracer.ts';
import { Machine } from '../machine/machine.ts';
import type { SymbolTable } from '../machine/symbol-table.ts';
import { platformOf } from './driver-platform.ts';
import { tinyEoiCode } from './eoi-code.ts';

export interface DriverEois {
  /** By what was executed, the most frequent first. */
  paths: TracedPath[];
  /** EOIs that were traced: all there were. */
  traced: number;
  symbols: SymbolTable;
}

const MEMORY_BYTES = 8 * 2 ** 20;
/** Far more than it takes. */
const GUEST_NANOSECONDS = 5e9;
const WORKLOADS: KernelOptions['workloads'] = { timer: 100, 'ping-pong': 100, nested: 20 };
/** Without an APIC there is no interrupt to end: the function is called for itself. */
const CALLS_WITHOUT_APIC = 10;

/** Runs a kernel on one vCPU of the driver's platform, with timer ticks, self-IPIs and nested interrupts, and traces every EOI. */
export function traceDriverEois(driver: ApicDriver, state: EoiState): DriverEois {
  const { name, bits } = driver;
  const work: KernelOptions =
    name === 'noop'
      ? {
          program: ({ a, acknowledge }) => {
            a.mov(dword('disable_apic'), 1).note('what noop is for; or else it would warn');
            for (let call = 0; call < CALLS_WITHOUT_APIC; call++) a.call(acknowledge);
          },
        }
      : { workloads: WORKLOADS };
  const kernel = buildKernel({ driver: name, bits, state, ...work });
  const machine = new Machine({ kernel: kernel.elf, vcpus: 1, memoryBytes: MEMORY_BYTES, platform: platformOf(name) });
  const { points, alsoIn, symbols } = tinyEoiCode(kernel, state);
  const tracer = machine.traceCalls(points, alsoIn);
  try {
    const result = machine.run({ guestNanoseconds: GUEST_NANOSECONDS });
    if (result.kind !== 'ended' || result.end !== 'power-off')
      throw new Error(`${name}, ${state}: the kernel did not get to its end`);
    const { paths, incomplete } = tracer;
    const traced = paths.reduce((sum, { calls }) => sum + calls, 0);
    const { written, elided } = machine.counters().total.eois;
    const expected = name === 'noop' ? CALLS_WITHOUT_APIC : written + elided;
    if (incomplete || traced !== expected) throw new Error(`${name}, ${state}: ${traced} EOIs were traced of ${expected}`);
    return { paths, traced, symbols };
  } finally {
    machine.dispose();
  }
}
