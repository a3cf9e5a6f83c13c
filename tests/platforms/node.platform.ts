/**
 * The command in other versions of Node, which npm's `node` package brings: the same console and the same counters as in this one, on Debian's kernel
 * with hot code compiled. `npm run test:node`; skipped where npm cannot fetch them.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');
const MAIN = join(ROOT, 'dist', 'cli', 'main.js');
const VERSIONS = ['20', '24', '26'];

/** Path of that version's binary, fetched into the cache where it is not there yet. */
function nodeOf(version: string): string | undefined {
  if (process.versions.node.startsWith(`${version}.`)) return process.execPath;
  const folder = join(ROOT, '.cache', `node-${version}`);
  const binary = join(folder, 'node_modules', 'node', 'bin', 'node');
  if (!existsSync(binary)) {
    spawnSync('npm', ['install', '--prefix', folder, '--no-audit', '--no-fund', '--no-save', `node@${version}`], { stdio: 'ignore', timeout: 250_000 });
  }
  if (existsSync(binary)) return binary;
  console.warn(`Node ${version} is not tested: npm did not fetch it`);
  return undefined;
}

const folder = mkdtempSync(join(tmpdir(), 'exitless-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** What depends on nothing but the guest. */
function boot(node: string, version: string) {
  const json = join(folder, `${version}.json`);
  const options = ['--smp', '2', '--boot', 'pvh', '--append', 'console=ttyS0 quiet', '--json', json];
  const { status, stdout, stderr } = spawnSync(node, [MAIN, 'boot', ...options], { input: 'sha256sum /bin/busybox; cat /proc/interrupts\n', encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  const { node: ran, counters, instructions, guestSeconds } = JSON.parse(readFileSync(json, 'utf8'));
  expect(ran).toMatch(new RegExp(`^v${version}\\.`));
  return { stdout, counters, instructions, guestSeconds };
}

describe('Debian’s kernel', () => {
  const [first, ...others] = VERSIONS.map((version) => ({ version, node: nodeOf(version) })).filter(({ node }) => node !== undefined);
  let expected: ReturnType<typeof boot> | undefined;

  it.each(others)(`is the same run in Node $version as in ${first?.version}`, ({ version, node }) => {
    expected ??= boot(first.node as string, first.version);
    expect(expected.stdout).toMatch(/[0-9a-f]{64} {2}\/bin\/busybox/);
    expect(boot(node as string, version)).toEqual(expected);
  });
});
