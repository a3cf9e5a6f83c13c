/**
 * Debian's kernels, each to a shell, with the transcript compared to golden/: it shows at a glance what changed for a guest. Where a
 * new kernel says something else for good reason, `npm run test:guests -- kernels -u` records anew.
 */
import { describe, expect, it } from 'vitest';
import { buildInitramfs, SHELL_INIT } from '../../src/index.ts';
import { type DebianKernel, debianGuestFiles, readInput } from '../../src/platform/node/index.ts';
import { ifAvailable, runAtConsole } from './library-run.ts';
import { COMPLAINTS, transcriptOf } from './transcript.ts';

// biome-ignore lint/suspicious/noControlCharactersInRegex: the shell asks the terminal where its cursor is
const PROMPT = /\/root # (?:\x1b\[6n)?/;
const COMMANDS = [
  'uname -m',
  'grep -c ^processor /proc/cpuinfo',
  'grep -m 2 -E "model name|^flags" /proc/cpuinfo',
  'cat /sys/devices/system/clocksource/clocksource0/current_clocksource',
  'cat /proc/ioports',
  'ls /sys/bus/acpi/devices /sys/bus/pci/devices /sys/bus/pnp/devices',
  `awk '{ print $1, $NF }' /proc/interrupts`,
  'for c in $(seq 0 $(($(nproc)-1))); do taskset $((1<<c)) echo on $c; done',
  'seq 100000 | gzip -9 | gunzip | sha256sum',
  'exit',
];

const CONFIGURATIONS: [kernel: DebianKernel, vcpus: number][] = [
  ['cloud-amd64', 1],
  ['cloud-amd64', 4],
  ['cloud-amd64', 24],
  ['amd64', 1],
  ['amd64', 4],
  ['686', 1],
  ['686', 4],
  ['686-pae', 1],
  ['686-pae', 4],
];

describe('Debian’s kernels', () => {
  it.each(CONFIGURATIONS)('%s with %i vCPUs boots to a shell and finds the machine that it should', async (kernel, vcpus) => {
    const files = await ifAvailable(debianGuestFiles({ kernel }));
    if (!files) return;
    const { result, output } = await runAtConsole(
      {
        memoryBytes: 256 * 2 ** 20,
        vcpus,
        kernel: readInput(files.vmlinuz, 'kernel'),
        initrd: buildInitramfs({ init: SHELL_INIT, busybox: readInput(files.busybox, 'busybox') }),
        append: 'console=ttyS0',
      },
      { typing: COMMANDS.map((command) => ({ prompt: PROMPT, text: `${command}\n` })), guestSeconds: 40 },
    );
    expect(result, output.slice(-2000)).toMatchObject({ kind: 'ended', end: 'power-off' });
    expect(output.split('\n').filter((line) => COMPLAINTS.test(line))).toEqual([]);
    await expect(transcriptOf(output)).toMatchFileSnapshot(`golden/${kernel}-${vcpus}.txt`);
  });
});
