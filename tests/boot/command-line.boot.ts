/** The commands as users run them, on Debian's kernel: through pipes, with files. Skipped where there is no apt and no cache. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../../src/index.ts';
import { debianGuestFiles, type GuestFiles, readInput } from '../../src/platform/node/index.ts';

const MAIN = join(import.meta.dirname, '..', '..', 'dist', 'cli', 'main.js');
const files = await debianGuestFiles().catch((error: unknown): GuestFiles | undefined => {
  if (!(error instanceof UserError)) throw error;
  console.warn(`no real boot is tested: ${error.message}`);
  return undefined;
});

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'exitless-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function exitless(args: readonly string[], input = '') {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], { input, encoding: 'utf8', cwd: folder });
  return { status, stdout, stderr };
}
const json = (name: string) => JSON.parse(readFileSync(join(folder, name), 'utf8'));

describe.skipIf(!files)('exitless', () => {
  it('boot types what comes through a pipe, ends when the shell does, and writes what it counted', () => {
    const script = 'echo "sum=$((40+2))"\n'; // no exit: the end of input is Ctrl-D
    const args = ['boot', '--smp', '2', '--boot', 'pvh', '--append', 'console=ttyS0 quiet', '--stats', '--json', 'boot.json'];
    const { status, stdout, stderr } = exitless(args, script);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/^sum=42\r$/m);
    expect(stderr).toMatch(/^EOIs elided .*\d$/m);
    expect(json('boot.json')).toMatchObject({
      exitless: expect.any(String),
      machine: { vcpus: 2, boot: 'pvh', seed: 1, apic: 'x2apic', append: 'console=ttyS0 quiet' },
      end: { kind: 'power-off', exitStatus: 0 },
      balance: { isBalanced: true },
      counters: { vcpus: [{}, {}] },
    });
  });

  it('boot exits with the status of a panic', () => {
    const kernel = files?.vmlinuz ?? '';
    const { status, stderr } = exitless(['boot', '--kernel', kernel, '--boot', 'pvh', '--append', 'console=ttyS0 quiet']);
    expect(status).toBe(4);
    expect(stderr).toMatch(/^exitless: panic: .*VFS: Unable to mount root fs/m);
  });

  it('boot gives up after its timeout', () => {
    expect(exitless(['boot', '--timeout', '0.5'])).toMatchObject({
      status: 124,
      stderr: 'exitless: timeout: the guest still ran after 0.5 s\n',
    });
  });

  it('boot says in one line what cannot be booted', () => {
    const kernel = readInput(files?.vmlinuz ?? '', 'kernel');
    writeFileSync(join(folder, 'truncated'), kernel.subarray(0, kernel.length / 2));
    writeFileSync(join(folder, 'large'), new Uint8Array(80 * 2 ** 20));
    const cases: [string[], RegExp][] = [
      [['--kernel', 'truncated'], /^exitless: the kernel is truncated/],
      [['--kernel', 'truncated', '--boot', 'pvh'], /^exitless: the kernel is truncated/],
      [['--initrd', 'large', '--memory', '64M'], /^exitless: .*64 MiB: give it more memory/],
      [['--memory', '4M'], /^exitless: .* memory/],
    ];
    for (const [args, message] of cases) {
      const { status, stderr } = exitless(['boot', ...args]);
      expect(status).toBe(2);
      expect(stderr).toMatch(message);
      expect(stderr.trim().split('\n')).toHaveLength(1);
    }
  });

  it('compare prints what PV EOI saves, and everything into its file', () => {
    const args = ['compare', '--guest', 'debian', '--strategy', 'x2apic,pv-eoi', '--load', '30', '--json', 'compare.json'];
    const { status, stdout, stderr } = exitless(args);
    expect(status, stderr).toBe(0);
    expect(stderr.trim().split('\n')).toHaveLength(2);
    expect(stdout).toMatch(/^EOIs written +−9\d\.\d%$/m);
    expect(stdout).toMatch(/^\+ unexplained +0 +0$/m);
    const { summary, runs } = json('compare.json');
    expect(runs).toHaveLength(2);
    expect(summary.means['pv-eoi']['eois.written']).toBeLessThan(summary.means.x2apic['eois.written'] / 10);
    expect(Object.keys(runs[0].phases)).toEqual(['timer', 'ipi', 'serial']);
    expect(runs[0].epilogue.some((line: string) => line.startsWith('LOC:'))).toBe(true);
  });

  it('trace writes the events of the workload, as many as were counted', () => {
    const args = ['trace', '-o', 'trace.txt', '--load', '30', '--events', 'kvm_pv_eoi,kvm_eoi'];
    const { status, stdout, stderr } = exitless(args);
    expect(status, stderr).toBe(0);
    expect(stdout).toContain('@@ done');
    const lines = readFileSync(join(folder, 'trace.txt'), 'utf8').trim().split('\n');
    const events = lines.filter((line) => !line.startsWith('#'));
    expect(events.every((line) => /^ +vcpu-\d-\d+ +\[\d{3}\] \.{5} +\d+\.\d{6}: kvm_(pv_)?eoi: apicid \d vector \d+$/.test(line))).toBe(true);
    const { 'pv-eoi': means } = json('compare.json').summary.means;
    const count = (name: string) => events.filter((line) => line.includes(` ${name}: `)).length;
    expect(count('kvm_pv_eoi')).toBeCloseTo(means['eois.elided'], -1.5);
    expect(stderr).toContain(`${events.length} events in trace.txt`);
  });

  it('initramfs makes a guest of a package and of files, and boot exits with the status of what it ran', () => {
    writeFileSync(join(folder, 'script'), '[ "$(cat /etc/motd)" = "a file" ] && hello -g "from a package" && exit 42\n', { mode: 0o755 });
    writeFileSync(join(folder, 'motd'), 'a file\n');
    const files = ['--file', 'script:/usr/local/bin/script', '--file', 'motd:/etc/motd'];
    const built = exitless(['initramfs', '--package', 'hello', ...files, '--run', 'script', '--output', 'hello.cpio']);
    if (built.status === 2 && built.stderr.includes('cannot fetch')) return; // the cache has the kernel, and there is no network
    expect(built.status, built.stderr).toBe(0);
    const { status, stdout } = exitless(['boot', '--initrd', 'hello.cpio', '--append', 'console=ttyS0 quiet']);
    expect(stdout).toMatch(/^from a package\r$/m);
    expect(status).toBe(42);
  });
});
