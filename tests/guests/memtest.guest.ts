/**
 * memtest86+ of Debian's package, by its Linux boot protocol: a whole pass over a small memory on several CPUs, watched and configured
 * at its serial console. Its bit fade test is taken out by its menu: it is 160 s of waiting for bits that cannot fade here.
 */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { debianPackages, readInput } from '../../src/platform/node/index.ts';
import { ifAvailable, runAtConsole } from './library-run.ts';

/** The terminal's 80 × 25 characters, as cursor positions and texts leave them. */
function screenOf(output: string): string[] {
  const screen = Array.from({ length: 25 }, () => ' '.repeat(80));
  // biome-ignore lint/suspicious/noControlCharactersInRegex: cursor positions
  for (const [, row, column, text] of output.matchAll(/\x1b\[(\d+);(\d+)H((?:(?!\x1b\[\d+;\d+H)[\s\S])*)/g)) {
    const at = Number(column) - 1;
    // biome-ignore lint/suspicious/noControlCharactersInRegex: attributes
    const plain = text.replace(/\x1b\[[\d;?]*[A-Za-z]/g, '').replace(/[^ -~]/g, '');
    const line = screen[Number(row) - 1] ?? '';
    if (line) screen[Number(row) - 1] = (line.slice(0, at) + plain + line.slice(at + plain.length)).slice(0, 80);
  }
  return screen;
}

/** Its menus, as they appear: settings, test selection, remove one test, its number, and back. */
const WITHOUT_BIT_FADE = [
  { prompt: /Errors: 0/, text: '1' },
  { prompt: /Test selection[\s\S]*Exit menu/, text: '1' },
  { prompt: /Current selection[\s\S]*\*{9}/, text: '2' },
  { prompt: /Enter test #/, text: '10\r' },
  { prompt: /Current selection[\s\S]*\*{8}\./, text: '0' },
  { prompt: /Settings[\s\S]*Exit menu/, text: '0' },
];

/** Without what moves: the test that runs, bars, patterns and the time. */
const still = (line: string): string =>
  line
    .trimEnd()
    .replace(/(\| (?:Pass|Test|Testing:|Pattern:) ).*/, '$1…')
    .replace(/(Time: ) *[\d:]+/, '$1…')
    .replace(/(Status: \w+ +)\S$/, '$1…')
    .replace(/v\d+\.\d+/, 'VERSION')
    .replace(/\d+\.\d+\.\w+(?=\.x(?:64|32)$)/, 'VERSION');

describe('memtest86+', () => {
  it.each(['x64', 'ia32'])('%s completes a pass on three CPUs without an error', async (image) => {
    const packages = await ifAvailable(debianPackages([{ name: 'memtest86+', keep: './boot/*' }]));
    if (!packages) return;
    const kernel = readInput(join(packages[0].folder, 'boot', `memtest86+${image}.bin`), 'kernel');
    const hasPassed = (output: string): boolean => /Pass:\s+[1-9]/.test(screenOf(output)[8]);
    const { output } = await runAtConsole(
      { memoryBytes: 8 * 2 ** 20, vcpus: 3, kernel, append: 'console=ttyS0,115200 nobench nosm nopause nobigstatus' },
      { typing: WITHOUT_BIT_FADE, withoutRts: true, until: hasPassed, guestSeconds: 60 },
    );
    const screen = screenOf(output);
    expect(screen[8], screen.join('\n')).toMatch(/Pass:\s+1\s+Errors: 0\s*$/);
    await expect(`${screen.map(still).join('\n').trim()}\n`).toMatchFileSnapshot(`golden/memtest86+${image}.txt`);
  });
});
