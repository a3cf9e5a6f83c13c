/**
 * `npm run guests`: builds the guests with nasm, records what Exitless prints, and shows the lines in which QEMU differs, where it is
 * installed. QEMU's TCG checks neither segment limits nor types on access, and pushes RF as it was: see qemu-differences.md.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runGuest } from './run-guest.ts';

const directory = join(process.cwd(), 'tests/system/guests');

function qemu(kernel: string): string[] | undefined {
  const log = join(mkdtempSync(join(tmpdir(), 'guest-')), 'console');
  const options = ['-machine', 'pc', '-cpu', 'max', '-m', '64', '-kernel', kernel, '-debugcon', `file:${log}`, '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-display', 'none', '-no-reboot'];
  const { error } = spawnSync('qemu-system-x86_64', options, { timeout: 20_000 });
  if (error && !existsSync(log)) return undefined;
  return readFileSync(log, 'latin1').split('\n');
}

for (const file of readdirSync(directory).filter((name) => name.endsWith('.asm'))) {
  const name = file.slice(0, -4);
  const binary = join(directory, `${name}.bin`);
  execFileSync('nasm', ['-f', 'bin', file, '-o', binary], { cwd: directory, stdio: 'inherit' });
  const { output, status } = runGuest(readFileSync(binary));
  writeFileSync(join(directory, `${name}.expected`), output);
  console.log(`${name}: ${output.split('\n').length - 1} lines, ${status === 1 ? 'recorded' : `DID NOT END WELL: ${status}`}`);
  const other = qemu(binary);
  output.split('\n').forEach((line, i) => {
    if (other && other[i] !== line) console.log(`  Exitless ${line}\n  QEMU     ${other[i] ?? '(nothing)'}`);
  });
}
