/**
 * Exitless as a library: boots a kernel, talks to its shell over the serial line, listens to its trace, and reads what its
 * interrupts cost. `npm run example` runs it on Debian's kernel.
 */
import { buildInitramfs, difference, LineReader, Machine, type RunResult, SHELL_INIT } from 'exitless';
import { debianGuestFiles, readInput, useBranchHints } from 'exitless/node';

useBranchHints();
const files = await debianGuestFiles({ onProgress: console.log });
const machine = new Machine({
  memoryBytes: 256 * 2 ** 20,
  vcpus: 2,
  kernel: readInput(files.vmlinuz, 'kernel'),
  initrd: buildInitramfs({ init: SHELL_INIT, busybox: readInput(files.busybox, 'busybox') }),
  append: 'console=ttyS0 quiet',
  boot: 'pvh',
});

// Output comes in chunks as the guest prints; input waits until the guest reads it.
const printed: string[] = [];
const lines = new LineReader((line) => printed.push(line));
machine.serial.onOutput((bytes) => lines.push(bytes));
const type = (text: string) => machine.serial.write(new TextEncoder().encode(text));

/** Runs slice by slice (a page would await a frame in between) until something has happened. */
function runUntil(hasHappened: () => boolean): RunResult {
  let result = machine.run({ guestNanoseconds: 10_000_000 });
  while (result.kind === 'budget' && !hasHappened()) result = machine.run({ guestNanoseconds: 10_000_000 });
  return result;
}

runUntil(() => printed.some((line) => line.includes('Type exit')));
console.log(`The shell is up after ${(machine.nowNanoseconds / 1e9).toFixed(2)} s of guest time.`);

// A trace subscription: how often does the guest end an interrupt without leaving guest mode?
let elided = 0;
const unsubscribe = machine.tracer.subscribe(() => elided++, ['kvm_pv_eoi']);
const before = machine.counters();
type('i=0; while [ $i -lt 20 ]; do usleep 1000; i=$((i+1)); done; echo slept $i times\n');
runUntil(() => printed.includes('slept 20 times'));
unsubscribe();

const { total } = difference(before, machine.counters());
console.log(`${total.interrupts.accepted.total} interrupts, ${total.exits.total} exits`);
console.log(`${total.eois.written} EOIs written, ${total.eois.elided} elided (${elided} events traced)`);

type('exit\n');
const result = runUntil(() => false);
machine.dispose();
if (result.kind !== 'ended' || result.end !== 'power-off' || elided === 0) {
  throw new Error(`not what was expected: ${JSON.stringify(result)}; the last lines: ${printed.slice(-5).join(' | ')}`);
}
console.log(`The guest ended: ${result.report}.`);
