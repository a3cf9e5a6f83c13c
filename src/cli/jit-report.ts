/** `--jit-stats` and `--dump-region`: what the JIT did, and what it made of a piece of the guest. */

import { type Command, Option } from 'commander';
import { disassemble, formatCount, type JitClock, type JitReport, type Machine, type RegionRecord, UserError } from '../index.ts';
import { benchmarkHost, disassembleGuest } from '../platform/node/index.ts';

export interface JitReportOptions {
  jitStats?: true;
  dumpRegion?: bigint;
}

const SHOWN_MNEMONICS = 12;

function address(text: string): bigint {
  if (!/^(0x)?[0-9a-f]{1,16}$/i.test(text)) throw new UserError(`--dump-region: "${text}" is not an address in hexadecimal`);
  return BigInt(`0x${text.replace(/^0x/i, '')}`);
}

export function addJitReportOptions(command: Command): Command {
  return command
    .option('--jit-stats', 'print what the JIT did; counting takes time')
    .addOption(
      new Option('--dump-region <address>', 'print the code compiled for what is at this guest-virtual address').argParser(
        address,
      ),
    );
}

/** The clock that makes a machine count, where a report is wanted: CPU time, as hosts are busy. */
export function jitClock({ jitStats, dumpRegion }: JitReportOptions): JitClock | undefined {
  return jitStats || dumpRegion !== undefined ? () => benchmarkHost.cpuMilliseconds().main : undefined;
}

/** What was asked for, at the end of a run. */
export function printJitReports(machine: Machine, { jitStats, dumpRegion }: JitReportOptions): void {
  if (jitStats) process.stderr.write(`\n${formatJitReport(machine.jitReport())}\n`);
  if (dumpRegion === undefined) return;
  const regions = machine.regionsAt(dumpRegion);
  if (!regions.length) process.stderr.write(`\nexitless: nothing was compiled for 0x${dumpRegion.toString(16)}\n`);
  for (const region of regions) process.stdout.write(`\n${formatRegion(region)}\n`);
}

const percent = (part: number, whole: number): string => `${((100 * part) / (whole || 1)).toFixed(1)}%`;
const perInstruction = (value: number, { instructions }: JitReport): string => (value / (instructions || 1)).toFixed(1);
const mnemonics = (counts: Record<string, number>): string => {
  const all = Object.entries(counts);
  const shown = all.slice(0, SHOWN_MNEMONICS).map(([mnemonic, count]) => `${mnemonic} ${formatCount(count)}`);
  return shown.join(', ') + (all.length > shown.length ? `, and ${all.length - shown.length} more` : '') || 'none';
};

export function formatJitReport(report: JitReport | undefined): string {
  if (!report) return 'jit off';
  const { regions, dropped, flushes, modules, instructions, guestBytes, wasmBytes, uncompiled, run } = report;
  const lines = [
    `regions            ${formatCount(regions)} in ${formatCount(modules)} modules; ${formatCount(dropped)} dropped as stale, everything ${formatCount(flushes)} times`,
    `guest instructions ${formatCount(instructions)} compiled, ${formatCount(guestBytes)} bytes`,
    `wasm               ${formatCount(wasmBytes)} bytes: ${perInstruction(wasmBytes, report)} for an instruction, ${(wasmBytes / (guestBytes || 1)).toFixed(1)} for a guest's byte`,
    `not compilable     ${mnemonics(uncompiled)}`,
  ];
  if (run) {
    const exits = Object.values(run.exits).reduce((sum, count) => sum + count, 0);
    const ways = Object.entries(run.exits).map(([exit, count]) => `${exit} ${formatCount(count)}`);
    lines.push(
      `time               ${run.buildMilliseconds.toFixed(0)} ms of CPU time to build, ${run.compileMilliseconds.toFixed(0)} ms in V8's first compiler`,
      `retired            ${formatCount(run.compiledInstructions)} of ${formatCount(run.instructions)} instructions in compiled code: ${percent(run.compiledInstructions, run.instructions)}`,
      `left               ${formatCount(exits)} times, after ${(run.compiledInstructions / (exits || 1)).toFixed(1)} instructions: ${ways.join(', ')}`,
      `not compiled       ${mnemonics(run.uncompiled)} (times met)`,
    );
  }
  return lines.join('\n');
}

/** Guest code as comments between the WebAssembly made from it. */
export function formatRegion({ address: start, codeBits, blocks, module, name, marks }: RegionRecord): string {
  const wasm = disassemble(module).find((f) => f.name === name);
  if (!wasm) return `no function ${name}`;
  const listed = blocks.flatMap((block) => disassembleGuest(block.bytes, block.address, codeBits));
  const guest = new Map(listed.map((instruction) => [instruction.address, instruction]));
  const { counts } = wasm;
  const locals = Object.entries(wasm.locals).map(([type, count]) => `${count} ${type}`);
  const out = [
    `region 0x${start.toString(16)}, ${codeBits}-bit: ${blocks.length} block${blocks.length > 1 ? 's' : ''}, ${listed.length} instructions, ${listed.reduce((sum, { bytes }) => sum + bytes.length, 0)} bytes`,
    `wasm: ${wasm.bytes} bytes, ${counts.instructions} instructions (${(counts.instructions / (listed.length || 1)).toFixed(1)} for one of the guest's): ${counts.loads} loads, ${counts.stores} stores, ${counts.locals} of locals, ${counts.calls} calls, ${counts.branches} branches; locals: ${locals.join(', ')}`,
    '',
  ];
  let next = 0;
  for (const [i, line] of wasm.lines.entries()) {
    for (; next < marks.length && wasm.offsets[i] >= marks[next].offset; next++) {
      const instruction = guest.get(marks[next].address);
      const bytes = Array.from(instruction?.bytes ?? [], (byte) => byte.toString(16).padStart(2, '0')).join(' ');
      out.push(`;; ${marks[next].address.toString(16).padStart(16, '0')}  ${bytes.padEnd(24)}  ${instruction?.text ?? ''}`);
    }
    out.push(`  ${line}`);
  }
  return out.join('\n');
}
