import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { Machine } from '../machine/machine.ts';
import type { DriverName } from './apic/apic-driver.ts';
import type { EoiState } from './apic/driver-code.ts';
import { eoiCostTable, eoiListings, type MeasuredEois, pvEoiPicture } from './eoi-document.ts';
import { buildKernel } from './kernel/kernel.ts';

const DOCUMENT = fileURLToPath(new URL('../../docs/eoi.md', import.meta.url));
const PICTURE = fileURLToPath(new URL('../../docs/pv-eoi.svg', import.meta.url));
/** `EXITLESS_UPDATE_DOCS=1 npx vitest run src/guest/eoi-document.test.ts` writes the generated parts anew. */
const update = process.env.EXITLESS_UPDATE_DOCS === '1';
const ON_A_PC: readonly DriverName[] = ['flat', 'physflat', 'bigsmp', 'default', 'summit', 'x2apic_cluster', 'x2apic_phys'];

/** Timer ticks and self-IPIs on one vCPU: what an interrupt costs where nothing else happens. */
function measure(driver: DriverName, state: EoiState): MeasuredEois | undefined {
  if (!ON_A_PC.includes(driver)) return undefined;
  const kernel = buildKernel({ driver, state, workloads: { timer: 100, 'ping-pong': 100 } });
  const machine = new Machine({ kernel: kernel.elf, vcpus: 1, memoryBytes: 8 * 2 ** 20 });
  machine.run({ guestNanoseconds: 1e9 });
  const { written, elided } = machine.counters().total.eois;
  machine.dispose();
  return { interrupts: written + elided, exits: written };
}

function withParts(document: string, parts: Record<string, string>): string {
  let text = document;
  for (const [name, contents] of Object.entries(parts)) {
    const place = new RegExp(`(<!-- generated: ${name} -->\n)[^]*?(<!-- end -->)`);
    expect(text, `docs/eoi.md has no place for ${name}`).toMatch(place);
    text = text.replace(place, (_, open: string, close: string) => `${open}${contents}\n${close}`);
  }
  return text;
}

describe('docs/eoi.md', () => {
  it('has the listings, the table and the picture that the code gives', () => {
    const before = readFileSync(DOCUMENT, 'utf8');
    const after = withParts(before, { ...eoiListings(), costs: eoiCostTable(measure) });
    if (update) {
      writeFileSync(DOCUMENT, after);
      writeFileSync(PICTURE, pvEoiPicture());
    }
    expect(update ? after : before).toBe(after);
    expect(readFileSync(PICTURE, 'utf8')).toBe(pvEoiPicture());
  });
});
