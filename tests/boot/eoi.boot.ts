/** What Debian's kernel executes to end an interrupt: every EOI of whole runs, and the table of it in docs/eoi.md. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  linuxEoiPart,
  Machine,
  type PathCounts,
  parseStrategies,
  pathCounts,
  traceLinuxEois,
  UserError,
  withGeneratedParts,
} from '../../src/index.ts';
import { createDisassembler, debianGuestFiles, type GuestFiles, nodeHost, readInput } from '../../src/platform/node/index.ts';

const files = await debianGuestFiles().catch((error: unknown): GuestFiles | undefined => {
  if (!(error instanceof UserError)) throw error;
  console.warn(`no real kernel is traced: ${error.message}`);
  return undefined;
});
const VCPUS = 2;
const document = readFileSync(new URL('../../docs/eoi.md', import.meta.url), 'utf8');

/**
 * The document's lines, and of tables what an EOI is made of: how many there are, and what happens to come in between, depends on
 * everything else that the machine does.
 */
function whatIsExecuted(text: string): string[] {
  const lines = text.split('\n').map((line) => {
    const cells = line.split(' | ');
    return line.startsWith('| **') || line.startsWith('|  | ') ? [...cells.slice(1, 3), ...cells.slice(4, -1)].join(' | ') : line;
  });
  return [...new Set(lines)].sort();
}

describe.skipIf(!files)('Debian’s kernel', () => {
  it('ends its interrupts by what the series gave it: each EOI is seen, and docs/eoi.md has them', async () => {
    const strategies = parseStrategies('xapic,x2apic,pv-eoi');
    if (!files || !strategies.ok) throw new Error('nothing to trace');
    const linux = { kernel: readInput(files.vmlinuz, 'kernel'), busybox: readInput(files.busybox, 'busybox') };
    const { traces, symbols } = await traceLinuxEois(linux, strategies.value, nodeHost, (options) => new Machine(options));
    const within = (path: (typeof traces)[number]['paths'][number], name: string): PathCounts =>
      pathCounts({ steps: path.steps.filter(({ guestVirtual }) => symbols.at(guestVirtual)?.name === name) });

    for (const { strategy, traced, written, elided, incomplete, paths } of traces) {
      expect(incomplete, strategy).toBe(0);
      // What a vCPU has elided last, the host may not have noticed when the power goes off.
      expect(traced - written - elided, strategy).toBeGreaterThanOrEqual(0);
      expect(traced - written - elided, strategy).toBeLessThanOrEqual(VCPUS);
      const eois = paths.filter(({ name }) => name === 'EOI');
      expect(eois.reduce((sum, { calls }) => sum + calls, 0), 'from the CALL').toBe(traced);
      const exits = eois.filter(({ steps }) => steps.some((step) => step.exits.length)).reduce((sum, { calls }) => sum + calls, 0);
      expect(exits, strategy).toBe(written);
    }
    const [xapic, x2apic, pvEoi] = traces.map(({ paths }) => paths.find(({ name }) => name === 'EOI') as (typeof paths)[number]);
    expect(within(xapic, 'native_apic_mem_write')).toMatchObject({ branches: 0, exits: { 'apic-access': 1 } });
    // The micro-optimisation: nothing is compared. The generic write still compares.
    const direct = within(x2apic, 'native_apic_msr_eoi_write');
    expect(direct).toMatchObject({ instructions: 5, branches: 0, exits: { 'msr-write': 1 } });
    const generic = traces[1].paths.find(({ name }) => name === 'another register') as (typeof traces)[number]['paths'][number];
    expect(pathCounts(generic).branches).toBeGreaterThan(direct.branches);
    expect(pathCounts(generic).instructions - direct.instructions).toBeGreaterThanOrEqual(8);
    // PV EOI: one branch, the word read and written, no exit.
    expect(within(pvEoi, 'kvm_guest_apic_eoi_write')).toMatchObject({ branches: 1, writes: 1, exits: {} });

    const { name, version } = files.kernelPackage;
    const kernel = `${name} ${version}`;
    if (!document.includes(kernel)) console.warn(`docs/eoi.md has another kernel than ${kernel}: npm run docs`);
    else {
      const measured = withGeneratedParts(document, { linux: linuxEoiPart(kernel, traces, symbols, createDisassembler()) });
      expect(whatIsExecuted(document)).toEqual(whatIsExecuted(measured));
    }
  });
});
