/**
 * Programs of Debian's that compute and check: what they print in the guest is what they print here. A difference or a failure is a
 * wrong instruction of ours; `--jit off` and a smaller command find it.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type GuestRun, PackageGuest, PROGRAMS } from './command-run.ts';
import { generateProgram } from './generated-program.ts';

let folder: string;
const guests: PackageGuest[] = [];
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'exitless-programs-'));
});
afterAll(() => {
  for (const guest of guests) guest.remove();
  rmSync(folder, { recursive: true });
});

/** A guest with these packages, or undefined where they cannot be had. */
async function guestWith(packages: readonly string[], files: readonly string[] = []): Promise<PackageGuest | undefined> {
  const guest = new PackageGuest();
  guests.push(guest);
  return (await guest.build(packages, files)) ? guest : undefined;
}

/** What the same script prints on this machine, or undefined where `program` is missing. */
function here(program: string, script: string, args: readonly string[] = []): string[] | undefined {
  if (spawnSync(program, ['--version']).error) return undefined;
  return execFileSync('sh', [join(PROGRAMS, script), ...args], { cwd: folder, encoding: 'utf8' }).trim().split('\n');
}

const succeeded = ({ status, lines }: GuestRun): void => expect(status, lines.slice(-40).join('\n')).toBe(0);

describe('the reference workloads', () => {
  it.each([64, 32])('of %i bits compute what they compute here, busybox’s too', async (bits) => {
    const json = join(folder, `bench${bits}.json`);
    const main = join(import.meta.dirname, '..', '..', 'dist', 'cli', 'main.js');
    const args = ['bench', '--bits', `${bits}`, '--set', 'all', '--macro', '--json', json];
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
    if (status === 2) return console.warn(`skipped: ${stderr.trim()}`);
    expect(status, stdout + stderr).toBe(0); // it compares the checksums itself
    expect(stdout.match(/right/g)?.length).toBeGreaterThan(20);
  });
});

describe('stress-ng', () => {
  it.each([1, 4])('finds nothing wrong in what it verifies, on %i vCPUs', async (vcpus) => {
    const guest = await guestWith(['stress-ng']);
    if (!guest) return;
    const run = await guest.run(`sh /tests/stress-ng.sh ${vcpus}`, ['--memory', '512M', '--smp', `${vcpus}`]);
    succeeded(run);
    expect(run.lines.filter((line) => line.startsWith('passed')).length).toBeGreaterThanOrEqual(42);
  });
});

describe('openssl', () => {
  it.each([
    ['with AES, PCLMULQDQ and SHA by the processor', 'max'],
    ['in plain SSE', 'x86-64-v2'],
    ['in SSE2 alone', 'x86-64-v1'],
  ])('computes what it computes here, %s', async (_, cpu) => {
    const guest = await guestWith(['openssl']);
    if (!guest) return;
    const run = await guest.run('sh /tests/openssl.sh', ['--cpu', cpu]);
    succeeded(run);
    const expected = here('openssl', 'openssl.sh');
    if (expected) expect(run.lines.filter(Boolean)).toEqual(expected);
    expect(run.lines.filter((line) => line.endsWith('Signature Verified Successfully'))).toHaveLength(4);
    expect(run.lines.filter((line) => line.endsWith('Signature Verification Failure'))).toHaveLength(4);
  });

  it.each(['max', 'x86-64-v2'])('measures its speed without an error on %s', async (cpu) => {
    const guest = await guestWith(['openssl']);
    if (!guest) return;
    const run = await guest.run('sh /tests/openssl-speed.sh', ['--cpu', cpu]);
    succeeded(run);
    expect(run.lines.join('\n')).toMatch(/AES-128-GCM[\s\S]*sha256[\s\S]*sign\/s/i);
  });
});

describe('python3', () => {
  const TESTS = 'test_math test_cmath test_float test_struct test_zlib test_hashlib test_random test_decimal'.split(' ');

  it('passes its own tests of numbers and bytes', async () => {
    const guest = await guestWith(['python3', 'libpython3.11-testsuite']);
    if (!guest) return;
    const run = await guest.run(`sh /tests/python.sh ${TESTS.join(' ')}`, ['--memory', '512M', '--smp', '2']);
    succeeded(run);
    expect(run.lines.join('\n')).toContain(`All ${TESTS.length} tests OK.`);
  });
});

describe('gcc', () => {
  it('compiles thousands of lines to the same code as here, which computes the same', async () => {
    const source = join(folder, 'generated.c');
    writeFileSync(source, generateProgram(1, 60));
    const guest = await guestWith(['gcc', 'libc6-dev'], [`${source}:/root/generated.c`]);
    if (!guest) return;
    const run = await guest.run('sh /tests/gcc.sh /root/generated.c', ['--memory', '1G']);
    succeeded(run);
    const expected = here('gcc', 'gcc.sh', [source]);
    const of = (what: string, lines: readonly string[] = []): string[] => lines.filter((line) => line.includes(` ${what} `));
    expect(of('output', run.lines)).toHaveLength(2);
    if (expected) expect(of('output', run.lines)).toEqual(of('output', expected));
    // The code is the same where the compiler is.
    const version = spawnSync('gcc', ['--version'], { encoding: 'utf8' }).stdout?.split('\n')[0];
    if (version && /Debian 12\./.test(version)) expect(of('assembly', run.lines)).toEqual(of('assembly', expected));
  });
});
