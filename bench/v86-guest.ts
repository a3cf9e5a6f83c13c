/**
 * Boots a guest in npm's v86 and writes what the reference workloads took: `v86-guest.js OPTIONS`, JSON with the fields below. A program of its own
 * because a process's memory and its compiler threads' time are measured.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { BenchmarkLog, LineReader } from 'exitless';
import { benchmarkHost } from 'exitless/node';

/** What peers.ts gives, paths of files and text. */
export interface V86GuestOptions {
  library: string;
  wasm: string;
  bios: string;
  vgaBios: string;
  kernel: string;
  initrd: string;
  commandLine: string;
  memoryBytes: number;
  out: string;
}

interface V86Emulator {
  add_listener(event: 'serial0-output-byte', listener: (byte: number) => void): void;
}

const options = JSON.parse(process.argv[2]) as V86GuestOptions;
const { V86 } = (await import(pathToFileURL(options.library).href)) as { V86: new (options: object) => V86Emulator };
/** A copy of exactly the file: Node's buffers may lie in a larger one. */
const buffer = (path: string): ArrayBuffer => new Uint8Array(readFileSync(path)).buffer;

const log = new BenchmarkLog(() => {
  const { main, process: all } = benchmarkHost.cpuMilliseconds();
  return { wallMilliseconds: benchmarkHost.seconds() * 1000, mainMilliseconds: main, processMilliseconds: all };
});
const lines = new LineReader((line) => {
  const marker = log.line(line);
  if (marker) console.error(`  ${marker}`);
  if (marker !== 'DONE') return;
  const peakBytes = process.resourceUsage().maxRSS * 1024;
  writeFileSync(options.out, JSON.stringify({ guest: log.measurement, peakBytes }));
  // It has no ACPI to power off by.
  process.exit(0);
});
const emulator = new V86({
  wasm_path: options.wasm,
  memory_size: options.memoryBytes,
  vga_memory_size: 2 * 2 ** 20,
  bios: { buffer: buffer(options.bios) },
  vga_bios: { buffer: buffer(options.vgaBios) },
  bzimage: { buffer: buffer(options.kernel) },
  initrd: { buffer: buffer(options.initrd) },
  cmdline: options.commandLine,
  autostart: true,
  disable_speaker: true,
  log_level: 0,
});
emulator.add_listener('serial0-output-byte', (byte) => lines.push(Uint8Array.of(byte)));
