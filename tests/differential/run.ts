/**
 * `npm run differential`: boots Debian's kernel twice side by side, interpreted and compiled, and compares all of both vCPUs every 100,000 instructions
 * and all of RAM now and then, from power-on to power-off. Options: --smp N, --every N, --memory-every SLICES, --seconds GUEST, --right on|off|force,
 * --left (off unless given), --seed N, --load N (rounds of the workload; 0 is a shell that exits), --bits 64|32 (32: Debian's 686 kernel).
 */

import { parseArgs } from 'node:util';
import { buildInitramfs, Machine, type MachineOptions, SHELL_INIT, WORKLOAD_INIT } from '../../src/index.ts';
import { debianGuestFiles, readInput } from '../../src/platform/node/index.ts';
import { runLockstep } from './lockstep.ts';

const { values } = parseArgs({
  options: {
    smp: { type: 'string', default: '2' },
    every: { type: 'string', default: '100000' },
    'memory-every': { type: 'string', default: '500' },
    seconds: { type: 'string', default: '600' },
    left: { type: 'string', default: 'off' },
    right: { type: 'string', default: 'on' },
    seed: { type: 'string', default: '1' },
    load: { type: 'string', default: '50' },
    bits: { type: 'string', default: '64' },
  },
});

const files = await debianGuestFiles({ onProgress: (line) => console.error(line), kernel: values.bits === '32' ? '686' : 'cloud-amd64' });
const busybox = readInput(files.busybox, 'busybox');
const load = Number(values.load);
const initrd = buildInitramfs({ init: load ? WORKLOAD_INIT : SHELL_INIT, busybox });
const kernel = readInput(files.vmlinuz, 'kernel');
const JIT: Record<string, MachineOptions['jit']> = { on: true, off: false, force: 'force' };

function machine(jit: string): () => Machine {
  if (!(jit in JIT)) {
    console.error(`differential: "${jit}" is not one of ${Object.keys(JIT).join(', ')}`);
    process.exit(2);
  }
  return () => {
    const made = new Machine({
      memoryBytes: 256 * 2 ** 20,
      vcpus: Number(values.smp),
      kernel,
      initrd,
      append: `console=ttyS0 quiet${load ? ` load=${load}` : ''}`,
      boot: values.bits === '32' ? 'bzimage' : 'pvh',
      seed: Number(values.seed),
      jit: JIT[jit],
    });
    if (!load) made.serial.write(new TextEncoder().encode('cat /proc/interrupts; exit\n'));
    return made;
  };
}

let shown = 0;
const start = process.cpuUsage();
const { difference, ...result } = runLockstep({
  left: machine(values.left),
  right: machine(values.right),
  every: Number(values.every),
  memoryEvery: Number(values['memory-every']),
  maxGuestSeconds: Number(values.seconds),
  onProgress: (instructions, guestSeconds) => {
    if (instructions < shown + 2e8) return;
    shown = instructions;
    console.error(`${(instructions / 1e6).toFixed(0)} M instructions, ${guestSeconds.toFixed(2)} s of guest time: equal`);
  },
});
const { user, system } = process.cpuUsage(start);
console.log(
  `jit ${values.left} and ${values.right}, ${values.bits}-bit, ${values.smp} vCPUs: ${result.instructions} instructions, ${result.guestSeconds.toFixed(3)} s of guest time, compared after each of ${result.slices} slices, RAM ${result.memoryComparisons} times; ${((user + system) / 1e6).toFixed(0)} s of CPU time`,
);
if (difference) {
  console.log(`DIFFERENT between instructions ${difference.after} and ${difference.before}:\n${difference.differences.map((line) => `  ${line}`).join('\n')}\n\n${values.left}:\n${difference.left}\n\n${values.right}:\n${difference.right}`);
  process.exitCode = 1;
} else console.log(`no difference; ${result.end}`);
