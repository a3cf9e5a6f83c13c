/**
 * Ring-0 behaviour by small guests (guests/*.asm, multiboot, built by nasm): what each prints on the debug console is compared with what
 * was recorded and checked against the manual. `npm run guests` builds them, records, and shows where QEMU differs.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { runGuest } from './run-guest.ts';

const DIRECTORY = new URL('guests/', import.meta.url);
const names = readdirSync(DIRECTORY).filter((name) => name.endsWith('.bin')).map((name) => name.slice(0, -4));

describe.each([
  { execution: 'interpreted', jit: false },
  { execution: 'all of them compiled', jit: 'force' },
] as const)('guests, $execution', ({ jit }) => {
  it.each(names)('%s prints what was recorded', (name) => {
    const { output, status } = runGuest(readFileSync(new URL(`${name}.bin`, DIRECTORY)), jit);
    expect(output.split('\n')).toEqual(readFileSync(new URL(`${name}.expected`, DIRECTORY), 'utf8').split('\n'));
    expect(status).toBe(1);
  });
});
