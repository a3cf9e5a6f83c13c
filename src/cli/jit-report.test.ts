import { describe, expect, it } from 'vitest';
import { type GuestProgram, MachineBench } from '../../tests/machine-bench.ts';
import { ecx, edx } from '../guest/assembler/operands.ts';
import { formatJitReport, formatRegion } from './jit-report.ts';

const LOOP: GuestProgram = { main: (a) => a.mov(ecx, 1_000_000).label('again').add(edx, ecx).dec(ecx).jnz('again') };

describe('reports of the JIT', () => {
  const bench = new MachineBench(LOOP, { jit: true, jitClock: () => 0 });
  while (bench.run({ instructions: 100_000 }).kind === 'budget');

  it('say what was compiled and how much of the run that was', () => {
    const text = formatJitReport(bench.machine.jitReport());
    expect(text).toMatch(/^regions +\d+ in \d+ modules?; 0 dropped as stale, everything 0 times$/m);
    expect(text).toMatch(/^wasm +[\d,]+ bytes: [\d.]+ for an instruction, [\d.]+ for a guest's byte$/m);
    expect(text).toMatch(/^retired +2,\d{3},\d{3} of 3,\d{3},\d{3} instructions in compiled code: \d\d\.\d%$/m);
    expect(text).toMatch(
      /^left +\d+ times, after [\d.]+ instructions: link \d+, jump \d+, budget \d+, slow path \d+, uncompiled \d+$/m,
    );
    expect(formatJitReport(undefined)).toBe('jit off');
  });

  it('list a region: the guest’s instructions, and below each what it became', () => {
    const address = BigInt(bench.address('again'));
    const lines = formatRegion(bench.machine.regionsAt(address)[0]).split('\n');
    expect(lines[0]).toMatch(/^region 0x[0-9a-f]+, 64-bit: \d+ blocks?, \d+ instructions, \d+ bytes$/);
    expect(lines[1]).toMatch(/^wasm: \d+ bytes, \d+ instructions \([\d.]+ for one of the guest's\): /);
    const add = lines.findIndex((line) => line.startsWith(`;; ${address.toString(16).padStart(16, '0')}  01 ca`));
    expect(lines[add]).toMatch(/ add edx,ecx$/);
    const dec = lines.findIndex((line) => / dec ecx$/.test(line));
    expect(dec).toBeGreaterThan(add);
    expect(lines.slice(add, dec).join('\n')).toContain('(i64.add (');
  });
});
