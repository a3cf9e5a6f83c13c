/**
 * Writes the generated parts of docs/ anew: `npm run docs`. Listings, tables and the picture of docs/eoi.md come from the drivers and
 * from runs of our own kernel; what Debian's kernel executes, from runs of that, where apt (or a cache) has it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  DEFAULT_STRATEGIES,
  eoiDocumentParts,
  linuxEoiPart,
  Machine,
  parseStrategies,
  pvEoiPicture,
  traceLinuxEois,
  UserError,
  withGeneratedParts,
} from 'exitless';
import { createDisassembler, debianGuestFiles, nodeHost, readInput } from 'exitless/node';

const DOCS = join(import.meta.dirname, '..', '..', '..', 'docs');
const DOCUMENT = join(DOCS, 'eoi.md');

async function linuxPart(): Promise<Record<string, string>> {
  try {
    const files = await debianGuestFiles();
    const strategies = parseStrategies(DEFAULT_STRATEGIES);
    if (!strategies.ok) throw new Error(strategies.error);
    const linux = { kernel: readInput(files.vmlinuz, 'kernel'), busybox: readInput(files.busybox, 'busybox') };
    const { traces, symbols } = await traceLinuxEois(linux, strategies.value, nodeHost, (options) => new Machine(options));
    const { name, version } = files.kernelPackage;
    return { linux: linuxEoiPart(`${name} ${version}`, traces, symbols, createDisassembler()) };
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    console.warn(`the part about Linux stays as it is: ${error.message}`);
    return {};
  }
}

const parts = { ...(await eoiDocumentParts()), ...(await linuxPart()) };
writeFileSync(DOCUMENT, withGeneratedParts(readFileSync(DOCUMENT, 'utf8'), parts));
writeFileSync(join(DOCS, 'pv-eoi.svg'), pvEoiPicture());
