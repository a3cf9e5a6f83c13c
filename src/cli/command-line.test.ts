import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { runCommandLine } from './command-line.ts';

let folder: string;
let stderr: string;
let stdout: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'exitless-'));
  stderr = '';
  stdout = '';
  const gather = (add: (text: string) => void) => (text: unknown) => {
    add(String(text));
    return true;
  };
  vi.spyOn(process.stderr, 'write').mockImplementation(gather((text) => (stderr += text)));
  vi.spyOn(process.stdout, 'write').mockImplementation(gather((text) => (stdout += text)));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const path = (name: string) => join(folder, name);
const file = (name: string, content: string | Uint8Array) => {
  writeFileSync(path(name), content);
  return path(name);
};
/** An ELF header, and nothing it promises. */
const stub = () => file('kernel', Uint8Array.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, ...new Uint8Array(57)]));

describe('bad input', () => {
  const cases: [what: string, args: () => string[], message: RegExp][] = [
    ['a missing kernel', () => ['boot', '--kernel', path('none')], /cannot read the kernel .*none: there is no such file/],
    ['a directory as kernel', () => ['boot', '--kernel', folder], /it is a directory/],
    ['an empty kernel', () => ['boot', '--kernel', file('empty', '')], /it is empty/],
    ['a text as kernel', () => ['boot', '--kernel', file('text', 'hello')], /neither a bzImage .* nor an ELF file/],
    ['a corrupt kernel', () => ['boot', '--kernel', stub()], /./],
    ['a missing initrd', () => ['boot', '--kernel', stub(), '--initrd', path('none')], /cannot read the initrd/],
    ['no vCPU', () => ['boot', '--smp', '0'], /--smp: "0" is not a whole number from 1 to 254/],
    ['half a vCPU', () => ['boot', '--smp', '1.5'], /--smp/],
    ['memory without a unit', () => ['boot', '--memory', '12'], /--memory: "12" is not a size with a unit: say 12M or 12G/],
    ['no memory', () => ['boot', '--memory', '0M'], /--memory: 0M is not a multiple of 64K up to 3G/],
    ['too much memory', () => ['boot', '--memory', '4G'], /--memory: 4G is not/],
    ['an unknown feature', () => ['boot', '--kvm=+pv-io'], /unknown feature "pv-io"; valid: .*pv-eoi/],
    ['an unknown cost profile', () => ['boot', '--cost', 'cheap'], /unknown cost profile "cheap"; valid: free, .*modern/],
    ['a missing cost file', () => ['boot', '--cost', path('none.json')], /cannot read .*none.json: there is no such file/],
    ['a cost file with a mistake', () => ['boot', '--cost', file('c.json', '{"name": 5}')], /c\.json: "name" must be a text/],
    ['an unknown APIC mode', () => ['boot', '--apic', 'x3apic'], /--apic: "x3apic" is not one of xapic, x2apic/],
    ['a negative seed', () => ['boot', '--seed', '-1'], /--seed/],
    ['an unknown strategy', () => ['compare', '--strategy', 'fast'], /unknown strategy "fast"; valid: xapic, x2apic/],
    ['a strategy named twice', () => ['compare', '--strategy', 'xapic,xapic'], /named twice/],
    ['--apic with compare', () => ['compare', '--apic', 'xapic'], /--apic: the strategies choose it/],
    ['no repetition', () => ['compare', '--repeat', '0'], /--repeat/],
    ['a baseline that is not compared', () => ['compare', '--strategy', 'xapic', '--baseline', 'pv-eoi'], /--baseline: "pv-eoi"/],
    [
      'the tiny guest with an initrd',
      () => ['compare', '--guest', 'tiny', '--initrd', stub()],
      /--guest tiny: it is all in its kernel; leave out --initrd/,
    ],
    ['a command line for the tiny guest', () => ['compare', '--append', 'quiet'], /--append: the tiny guest has no command line/],
    ['the tiny guest as a bzImage', () => ['compare', '--boot', 'bzimage'], /--boot: the tiny guest is an ELF file/],
    ['more vCPUs than the tiny guest has room for', () => ['compare', '--smp', '65'], /--smp: the tiny guest has up to 64 vCPUs/],
    ['two guests', () => ['compare', '--guest', 'debian', '--kernel', stub()], /--guest debian: --kernel names another one/],
    ['no driver to list', () => ['objdump'], /--driver: say which one, of flat, physflat/],
    [
      'a state beside itself',
      () => ['objdump', '--driver', 'flat', '--against', 'callback'],
      /--against: callback is what --state says/,
    ],
    [
      'a method that the driver lacks',
      () => ['objdump', '--driver', 'flat', '--method', 'wakeupSecondaryCpu'],
      /flat has no wakeupSecondaryCpu/,
    ],
    [
      'EOIs of a kernel that moves itself',
      () => ['eoi', '--kernel', stub(), '--boot', 'bzimage', '--initrd', stub()],
      /--boot: EOIs are traced of/,
    ],
    ['an unknown event', () => ['trace', '-o', path('t'), '--events', 'kvm_eio'], /--events: "kvm_eio" is not one of kvm_entry/],
    ['a trace without a file', () => ['trace'], /required option '-o, --output <file>'/],
    ['a trace into no folder', () => ['trace', '-o', path('no/t')], /cannot write the trace .*: its folder does not exist/],
    ['JSON into a directory', () => ['boot', '--json', folder], /cannot write the JSON file .*: it is a directory/],
    ['an initramfs without a place', () => ['initramfs'], /required option '--output <file>'/],
    [
      'an initramfs into no folder',
      () => ['initramfs', '--output', path('no/i')],
      /cannot write the initramfs .*: its folder does not/,
    ],
    ['a name of no package', () => ['initramfs', '--package', '-y', '--output', path('i')], /"-y" is not a name of a package/],
    ['a missing init', () => ['initramfs', '--init', path('none'), '--output', path('i')], /cannot read the init script/],
    [
      'a missing file',
      () => ['initramfs', '--file', `${path('none')}:/x`, '--output', path('i')],
      /cannot read the file .*none: there is no/,
    ],
    ['a file to nowhere', () => ['initramfs', '--file', stub(), '--output', path('i')], /--file: ".*" is not HOST:GUEST/],
    [
      'a file to a relative path',
      () => ['initramfs', '--file', `${stub()}:x`, '--output', path('i')],
      /--file: .* absolute path/,
    ],
    [
      'an architecture of others',
      () => ['initramfs', '--arch', 'arm64', '--output', path('i')],
      /"arm64" is not one of amd64, i386/,
    ],
    ['two things to run', () => ['initramfs', '--run', 'a', '--init', 'b', '--output', path('i')], /--init and --run exclude/],
    ['an unknown platform', () => ['boot', '--platform', 'mac'], /--platform: "mac" is not one of pc, numachip, uv, numaq/],
    [
      'more vCPUs than the platform has',
      () => ['compare', '--platform', 'visws', '--smp', '5'],
      /a visws has 1 to 4 vCPUs, not 5 \(four sockets/,
    ],
    ['a platform without xAPIC', () => ['compare', '--platform', 'uv', '--strategy', 'xapic'], /a uv has no xAPIC mode/],
    ['more vCPUs than the driver addresses', () => ['tiny', '--driver', 'flat', '--smp', '9'], /flat has up to 8 vCPUs, not 9/],
    [
      'a workload of IPIs without an APIC',
      () => ['tiny', '--driver', 'noop', '--workload', 'timer,messages'],
      /the driver noop can run timer, edge, level, not messages/,
    ],
    ['bits beside a driver', () => ['tiny', '--driver', 'flat', '--bits', '32'], /--bits: the driver flat says it/],
    ['an unknown option', () => ['boot', '--smb', '2'], /unknown option '--smb' \(Did you mean --smp\?\)/],
    ['an unknown command', () => ['bot'], /unknown command 'bot' \(Did you mean boot\?\)/],
    ['an argument too many', () => ['boot', 'bzImage'], /too many arguments/],
  ];

  it.each(cases)('%s: one line, status 2', async (_what, args, message) => {
    expect(await runCommandLine(args())).toBe(2);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^exitless: [^\n]+\n$/);
    expect(stdout).toBe('');
  });
});

describe('compare', () => {
  it('needs nothing but itself: compares the tiny guest, and writes what it measured', async () => {
    const args = ['compare', '--load', '10', '--strategy', 'x2apic,pv-eoi', '--json', path('compare.json')];
    expect(await runCommandLine(args), stderr).toBe(0);
    expect(stdout).toMatch(/^tiny guest; 10 rounds of timer, ping-pong, messages, edge, level, nested\n2 vCPUs/);
    expect(stdout).toMatch(/^EOIs written +−6\d\.\d%$/m);
    expect(stdout).toMatch(/^\+ unexplained +0 +0$/m);
    const { summary, runs, machine } = JSON.parse(readFileSync(path('compare.json'), 'utf8'));
    expect(machine).toMatchObject({ kernel: 'tiny guest', vcpus: 2 });
    expect(runs).toHaveLength(2);
    expect(summary.means['pv-eoi']['eois.elided']).toBeGreaterThan(0);
  });
});

describe('tiny', () => {
  it('runs a driver on the machine it is for, and compares what guest and host counted', async () => {
    const args = ['tiny', '--driver', 'numaq', '--smp', '5', '--rounds', '5', '--json', path('run.json')];
    expect(await runCommandLine(args), stderr).toBe(0);
    expect(stdout).toMatch(/^NUMAQ driver, 32-bit, 5 vCPUs on IBM NUMA-Q, xAPIC mode, PV EOI enabled\n/);
    expect(stdout).toMatch(/^The guest handled [\d,]+ interrupts and NMIs, as many as were delivered/m);
    const { tally, agrees, platform, counters } = JSON.parse(readFileSync(path('run.json'), 'utf8'));
    expect({ agrees, platform }).toEqual({ agrees: true, platform: 'numaq' });
    expect(tally).toContainEqual({ cpu: 4, vector: 0xec, delivered: 5, handled: 5 });
    expect(counters.vcpus).toHaveLength(5);
  });

  it('lets the kernel find its driver where none is named', async () => {
    expect(await runCommandLine(['tiny', '--platform', 'uv', '--smp', '9', '--rounds', '2', '--workload', 'ping-pong'])).toBe(0);
    expect(stdout).toMatch(/^UV large system driver, 64-bit, 9 vCPUs on SGI UV large system, x2APIC mode/);
  });

  it('says where a driver fails on a machine that it is not for, with the status of a guest that hangs', async () => {
    expect(await runCommandLine(['tiny', '--driver', 'flat', '--platform', 'numaq'])).toBe(6);
    expect(stderr).toBe(
      'exitless: the kernel did not get to its end on this numaq: the guest powered off; it said last: @@ not responding: CPU 1\n',
    );
  });
});

describe('a bare-metal kernel', () => {
  /** A flat multiboot image at 1 MiB: writes "ok" to the debug console and leaves with code 21. */
  const kernel = () => {
    const code = [0xb0, 0x6f, 0xe6, 0xe9, 0xb0, 0x6b, 0xe6, 0xe9, 0xb8, 21, 0, 0, 0, 0xe7, 0xf4];
    const words = [0x1bad_b002, 0x1_0000, -(0x1bad_b002 + 0x1_0000), 0x10_0000, 0x10_0000, 0, 0, 0x10_0020];
    return file('kernel.bin', new Uint8Array([...new Uint8Array(Int32Array.from(words).buffer), ...code]));
  };

  it.each([[], ['--boot', 'multiboot', '--test-device']])('runs, and gives the exit status %s', async (...options) => {
    const status = await runCommandLine([
      'boot',
      '--kernel',
      kernel(),
      '--no-realtime',
      '--debug-console',
      path('out'),
      ...options,
    ]);
    expect(status).toBe(43);
    expect(readFileSync(path('out'), 'utf8')).toBe('ok');
  });
});

describe('objdump', () => {
  it('lists two states beside each other, and what their EOIs executed', async () => {
    const log = vi.spyOn(console, 'log').mockImplementation((text: string) => {
      stdout += text;
    });
    expect(await runCommandLine(['objdump', '--driver', 'x2apic_cluster', '--state', 'before', '--against', 'x2apic-eoi'])).toBe(
      0,
    );
    log.mockRestore();
    expect(stdout).toMatch(
      /^native_apic_msr_write: 43 bytes, 15 instructions +│ native_apic_msr_eoi_write: 12 bytes, 5 instructions$/m,
    );
    expect(stdout).toMatch(/^\[1\] EOI +280 +19 +1 \(0 taken\) +2 +3 \+ 0 +msr-write +1,619$/m);
    expect(stdout).toMatch(/^\[1\] EOI +280 +9 +0 +2 +3 \+ 0 +msr-write +1,609$/m);
  });
});

describe('eoi', () => {
  it('lists and counts what ends the interrupts of the tiny guest', async () => {
    expect(await runCommandLine(['eoi', '--load', '10', '--strategy', 'pv-eoi', '--json', path('eoi.json')]), stderr).toBe(0);
    expect(stdout).toMatch(/^pv-eoi: 13\d EOIs traced; \d+ written, \d+ elided$/m);
    expect(stdout).toMatch(/^ {2}\+ {2}9 {2}0f 30 +wrmsr +; exit: msr-write$/m);
    expect(stdout).toMatch(/jne kvm_guest_apic_eoi_write\+0x16 +; taken$/m);
    expect(Math.max(...stdout.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(100);
    const [{ paths, traced }] = JSON.parse(readFileSync(path('eoi.json'), 'utf8')).traces;
    expect(paths.reduce((sum: number, { calls }: { calls: number }) => sum + calls, 0)).toBe(traced);
  });
});

describe('help', () => {
  it.each([
    ['--help'],
    ['boot', '--help'],
    ['compare', '--help'],
    ['trace', '--help'],
    ['bench', '--help'],
    ['initramfs', '--help'],
    ['eoi', '--help'],
    ['objdump', '--help'],
  ])('%s %s has examples', async (...args) => {
    expect(await runCommandLine(args.filter(Boolean))).toBe(0);
    expect(stdout).toMatch(/Examples:\n {2}exitless /);
    expect(Math.max(...stdout.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(102);
  });

  it('prints the version of package.json', async () => {
    const packageJson = JSON.parse(readFileSync(join(import.meta.dirname, '..', '..', 'package.json'), 'utf8'));
    expect(await runCommandLine(['--version'])).toBe(0);
    expect(stdout).toBe(`${packageJson.version}\n`);
  });
});
