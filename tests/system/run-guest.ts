/** Runs a multiboot guest on a machine of its own, to its end by isa-debug-exit. */

import { MAX_CPU_MODEL } from '../../src/cpu/cpu-model.ts';
import { KVM_OFF } from '../../src/kvm/features.ts';
import { Machine } from '../../src/machine/machine.ts';

const MEMORY_BYTES = 64 << 20;
const MOST_INSTRUCTIONS = 50e6;

export interface GuestRun {
  /** What it wrote to port 0xE9. */
  output: string;
  /** Exit status, or how else it ended. */
  status: number | string;
}

export function runGuest(kernel: Uint8Array, jit: boolean | 'force' = true): GuestRun {
  const machine = new Machine({ memoryBytes: MEMORY_BYTES, vcpus: 1, kernel, kvm: KVM_OFF, cpu: MAX_CPU_MODEL, jit, testDevice: true });
  let output = '';
  machine.debugConsole.onOutput((bytes) => {
    output += Buffer.from(bytes).toString('latin1');
  });
  const result = machine.run({ instructions: MOST_INSTRUCTIONS });
  machine.debugConsole.flush();
  return { output, status: result.kind === 'ended' && result.end === 'debug-exit' ? result.exitStatus : result.kind === 'ended' ? result.report : result.kind };
}
