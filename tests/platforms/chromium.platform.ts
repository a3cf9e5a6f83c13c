/**
 * The library in Chromium's worker does what it does in Node: the same console and the same counters, for the tiny guest and for Debian's kernel, with
 * hot code compiled. `npm run test:browser`; skipped where there is no Chromium.
 */

import { describe, expect, it } from 'vitest';
import type { GuestRequest } from '../../examples/browser-worker.ts';
import { buildKernel } from '../../src/guest/kernel/kernel.ts';
import { buildInitramfs, Machine, type RunResult, SHELL_INIT, UserError } from '../../src/index.ts';
import { debianGuestFiles, type GuestFiles, readInput } from '../../src/platform/node/index.ts';
import { chromium, runInBrowser } from './browser.ts';

if (!chromium) console.warn('the browser is not tested: there is no Chromium here (apt-get install chromium, or CHROMIUM=path)');
const files = await debianGuestFiles().catch((error: unknown): GuestFiles | undefined => {
  if (!(error instanceof UserError)) throw error;
  console.warn(`Debian’s kernel is not tested in the browser: ${error.message}`);
  return undefined;
});

const SECONDS = 240;

/** The same request, here. */
function runHere(request: GuestRequest, kernel: Uint8Array, initrd?: Uint8Array) {
  const machine = new Machine({ ...request.machine, kernel, initrd });
  let output = '';
  machine.serial.onOutput((bytes) => {
    output += Buffer.from(bytes).toString('latin1');
  });
  machine.serial.write(new TextEncoder().encode(request.input));
  let result: RunResult = { kind: 'budget' };
  while (result.kind !== 'ended' && machine.nowNanoseconds < request.maxGuestSeconds * 1e9) result = machine.run({ guestNanoseconds: 10_000_000 });
  const run = { output, result, counters: machine.counters(), guestNanoseconds: machine.nowNanoseconds, instructions: machine.instructions };
  machine.dispose();
  return run;
}

describe.skipIf(!chromium)('in Chromium', () => {
  it.each([1, 4])('the tiny guest is the same run as in Node: %s vCPUs', async (vcpus) => {
    const kernel = buildKernel({ workloads: { timer: 50, 'ping-pong': 50, messages: 50, level: 20, nested: 20 } }).elf;
    const request: GuestRequest = { machine: { memoryBytes: 16 * 2 ** 20, vcpus }, kernel: '/kernel', input: '', maxGuestSeconds: 60 };
    const { kind, hostSeconds, ...run } = await runInBrowser(request, { '/kernel': kernel }, SECONDS);
    expect(kind).toBe('ended');
    expect(run).toMatchObject({ result: { kind: 'ended', end: 'power-off' } });
    expect(run).toEqual(runHere(request, kernel));
  });

  it.skipIf(!files).each([true, false])('Debian’s kernel is the same run as in Node: compiled %s', async (jit) => {
    const kernel = readInput(files?.vmlinuz ?? '', 'kernel');
    const initrd = buildInitramfs({ init: SHELL_INIT, busybox: readInput(files?.busybox ?? '', 'busybox') });
    const machine = { memoryBytes: 256 * 2 ** 20, vcpus: 2, append: 'console=ttyS0 quiet', boot: 'pvh' as const, jit };
    const request: GuestRequest = { machine, kernel: '/kernel', initrd: '/initrd', input: 'cat /proc/interrupts; sha256sum /bin/busybox; exit\n', maxGuestSeconds: 60 };
    const { kind, hostSeconds, ...run } = await runInBrowser(request, { '/kernel': kernel, '/initrd': initrd }, SECONDS);
    console.log(`Debian's kernel, compiled ${jit}: ${hostSeconds.toFixed(1)} s in ${kind}, ${run.instructions} instructions`);
    expect(run.output).toMatch(/[0-9a-f]{64} {2}\/bin\/busybox/);
    expect(run).toEqual(runHere(request, kernel, initrd));
  });
});
