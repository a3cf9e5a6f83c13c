/**
 * Debian's cloud kernel, booted to a shell in all the ways that matter. Slow (a boot takes seconds), so it runs apart from
 * the other tests: `npm run test:boot`; `npm run test:boot:forced` compiles every block at first sight, which takes half an hour.
 * Without apt and without a cache of the packages it is skipped.
 */
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import {
  balance,
  buildInitramfs,
  type CountersSnapshot,
  KVM_OFF,
  KVM_ON,
  Machine,
  type MachineOptions,
  type RunResult,
  SHELL_INIT,
  UserError,
} from '../../src/index.ts';
import { MAX_CPU_MODEL } from '../../src/cpu/cpu-model.ts';
import { debianGuestFiles, type GuestFiles, readInput } from '../../src/platform/node/index.ts';

const files = await debianGuestFiles().catch((error: unknown): GuestFiles | undefined => {
  if (!(error instanceof UserError)) throw error;
  console.warn(`no real boot is tested: ${error.message}`);
  return undefined;
});

const GUEST_SECONDS = 60;
const SLICE_NANOSECONDS = 20_000_000;
const jit = process.env.JIT === 'force' ? 'force' : true;
let initrd: Uint8Array | undefined;
let machine: Machine | undefined;
afterEach(() => machine?.dispose());

interface Run {
  result: RunResult;
  /** All that the guest printed. */
  output: string;
  counters: CountersSnapshot;
  guestNanoseconds: number;
  instructions: number;
}

/** Boots to the shell, types `script` there, and runs to the end or for a minute of guest time. */
function boot(script: string, options: Partial<MachineOptions> = {}): Run {
  if (!files) throw new Error('no files to boot');
  initrd ??= buildInitramfs({ init: SHELL_INIT, busybox: readInput(files.busybox, 'busybox') });
  const guest = new Machine({
    memoryBytes: 256 * 2 ** 20,
    vcpus: 1,
    kernel: readInput(files.vmlinuz, 'kernel'),
    initrd,
    append: 'console=ttyS0 quiet',
    boot: 'pvh',
    jit,
    ...options,
  });
  machine = guest;
  let output = '';
  guest.serial.onOutput((bytes) => {
    output += new TextDecoder('latin1').decode(bytes);
  });
  guest.serial.write(new TextEncoder().encode(`${script}\n`));
  let result = guest.run({ guestNanoseconds: SLICE_NANOSECONDS });
  while (result.kind === 'budget' && guest.nowNanoseconds < GUEST_SECONDS * 1e9) {
    result = guest.run({ guestNanoseconds: SLICE_NANOSECONDS });
  }
  const { nowNanoseconds: guestNanoseconds, instructions } = guest;
  return { result, output, counters: guest.counters(), guestNanoseconds, instructions };
}

/** What `boot` typed as `echo "name=$(command)"`: its value. */
const valueOf = (output: string, name: string): string | undefined =>
  new RegExp(`^${name}=([^$\\r\\n]*)\\r?$`, 'm').exec(output)?.[1];

const POWERED_OFF = { kind: 'ended', end: 'power-off', exitStatus: 0 };

describe.skipIf(!files)('Debian’s cloud kernel', () => {
  const shapes = [1, 2, 4].flatMap((vcpus) => [
    { vcpus, apic: 'xapic' as const, kvm: KVM_ON, kvmName: 'on' },
    { vcpus, apic: 'x2apic' as const, kvm: KVM_ON, kvmName: 'on' },
  ]);
  const hidden = [1, 4].map((vcpus) => ({ vcpus, apic: 'xapic' as const, kvm: KVM_OFF, kvmName: 'off' }));

  it('turns 5-level paging on where the processor has it and the kernel unpacks itself', () => {
    const { result, output } = boot('echo "la57=$(grep -o -m 1 -w la57 /proc/cpuinfo)"\nexit', { cpu: MAX_CPU_MODEL, boot: 'bzimage' });
    expect(result, output.slice(-2000)).toMatchObject(POWERED_OFF);
    expect(valueOf(output, 'la57')).toBe('la57');
  });

  it.each([...shapes, ...hidden])('boots to a shell: $vcpus vCPUs, $apic, KVM $kvmName', ({ vcpus, apic, kvm }) => {
    const script = [
      'echo "cpus=$(nproc)"',
      'echo "clock=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"',
      'echo "x2apic=$(grep -c x2apic /proc/cpuinfo)"',
      'exit',
    ].join('\n');
    const { result, output, counters } = boot(script, { vcpus, apic, kvm });
    expect(result, output.slice(-2000)).toMatchObject(POWERED_OFF);
    expect(valueOf(output, 'cpus')).toBe(`${vcpus}`);
    expect(valueOf(output, 'x2apic')).toBe(apic === 'x2apic' ? `${vcpus}` : '0');
    expect(output).not.toMatch(/WARNING:|BUG:|Oops/);
    const { total } = counters;
    expect(balance(total)).toMatchObject({ isBalanced: true });
    if (kvm.present) expect(total.eois.written).toBeLessThan(total.eois.elided / 5);
    else expect(total.eois.elided).toBe(0);
  });

  it('boots on a blade of a UV, in the x2APIC mode that firmware left', () => {
    const script = ['echo "cpus=$(nproc)"', 'echo "mode=$(dmesg | grep -c "x2apic: enabled by BIOS")"', 'exit'].join('\n');
    const { result, output, counters } = boot(script, { vcpus: 8, platform: 'uv' });
    expect(result, output.slice(-2000)).toMatchObject(POWERED_OFF);
    expect([valueOf(output, 'cpus'), valueOf(output, 'mode')]).toEqual(['8', '1']);
    expect(balance(counters.total)).toMatchObject({ isBalanced: true });
  });

  it('boots by its own decompressor, too', () => {
    const { result, output } = boot('exit', { boot: 'bzimage', vcpus: 2 });
    expect(result, output.slice(-2000)).toMatchObject(POWERED_OFF);
  });

  it('is the same run again with the same seed, and another with another', () => {
    const script = 'head -c 8 /dev/urandom | xxd; ls -l /proc/self; exit';
    const [first, second, other] = [1, 1, 2].map((seed) => boot(script, { vcpus: 2, seed }));
    expect(second.output).toBe(first.output);
    expect(second.counters).toEqual(first.counters);
    expect([second.guestNanoseconds, second.instructions]).toEqual([first.guestNanoseconds, first.instructions]);
    expect(other.output).not.toBe(first.output);
  });

  it('runs programs that get things right', () => {
    const text = 'the quick brown fox\n'.repeat(500);
    const script = [
      `for i in $(seq 500); do echo "the quick brown fox"; done >/tmp/text`,
      'echo "sha=$(sha256sum </tmp/text | cut -c1-64)"',
      'echo "md5=$(gzip -c /tmp/text | gunzip | md5sum | cut -c1-32)"',
      'echo "bz=$(bzip2 -c /tmp/text | bunzip2 | cmp - /tmp/text && echo same)"',
      `echo "awk=$(awk 'BEGIN { for (i = 1; i <= 1000; i++) s += i * i; printf "%d %.6f", s, 2 / 3 }')"`,
      'echo "bc=$(echo "2^200" | bc)"',
      'echo "sort=$(seq 300 | shuf | sort -n | md5sum | cut -c1-32)"',
      'echo "sed=$(echo eoi | sed "s/o/0/;y/e/E/")"',
      'echo "jobs=$( (sleep 0.02; echo b) & echo a; wait; echo c)"',
      'exit',
    ].join('\n');
    const { result, output } = boot(script, { vcpus: 2 });
    expect(result, output.slice(-2000)).toMatchObject(POWERED_OFF);
    const hash = (name: string, data: string) => createHash(name).update(data).digest('hex');
    const numbers = Array.from({ length: 300 }, (_, index) => `${index + 1}\n`).join('');
    const names = ['sha', 'md5', 'bz', 'awk', 'bc', 'sort', 'sed'];
    expect(Object.fromEntries(names.map((name) => [name, valueOf(output, name)]))).toEqual({
      sha: hash('sha256', text),
      md5: hash('md5', text),
      bz: 'same',
      awk: `${(1000 * 1001 * 2001) / 6} 0.666667`,
      bc: `${2n ** 200n}`,
      sort: hash('md5', numbers),
      sed: 'E0i',
    });
  });

  it('ends with its own status for reboot and panic', () => {
    expect(boot('reboot -f').result).toMatchObject({ kind: 'ended', end: 'reboot', exitStatus: 3 });
    expect(boot('echo c >/proc/sysrq-trigger').result).toMatchObject({ kind: 'ended', end: 'panic', exitStatus: 4 });
    expect(boot('', { initrd: undefined }).result).toMatchObject({ kind: 'ended', end: 'panic', exitStatus: 4 });
  });
});
