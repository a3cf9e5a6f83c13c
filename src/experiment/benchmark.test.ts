import { describe, expect, it } from 'vitest';
import {
  BENCHMARK_WORKLOADS,
  BenchmarkLog,
  type BenchmarkRun,
  benchmarkCommandLine,
  bestRun,
  geometricMean,
  hasRightChecksum,
  isMacroWorkload,
} from './benchmark.ts';
import { formatBenchmark, nativeMilliseconds } from './benchmark-report.ts';

/** A log under a clock that goes on by 10 ms each time it is read. */
function logOf(lines: readonly string[]): BenchmarkLog {
  let time = 0;
  const log = new BenchmarkLog(() => {
    time += 10;
    return { wallMilliseconds: time, mainMilliseconds: time, processMilliseconds: 2 * time, instructions: 1000 * time };
  });
  for (const line of lines) log.line(line);
  return log;
}

const run = (milliseconds: number, checksum: string, ownMilliseconds?: number): BenchmarkRun => ({
  wallMilliseconds: milliseconds,
  mainMilliseconds: milliseconds,
  processMilliseconds: milliseconds,
  checksum,
  ownMilliseconds,
});

describe('the console of the reference workloads', () => {
  it('gives the time to /init and of each repetition, between kernel messages', () => {
    const { measurement } = logOf([
      '[    0.000000] Linux',
      '[    1.2] x@@INIT 6.1.0 x86_64 uptime=0.3',
      '@@B fib',
      '@@E fib ms=99.10 cpu=88.50 chk=02547029',
      '@@B m_sh',
      '[    1.3] random: crng init done',
      '@@E m_sh ms=0 chk=34ea6549',
      '@@DONE',
    ]);
    const step = { wallMilliseconds: 10, mainMilliseconds: 10, processMilliseconds: 20, instructions: 10_000 };
    expect(measurement).toEqual({
      boot: step,
      isComplete: true,
      runs: {
        fib: [{ ...step, checksum: '02547029', ownMilliseconds: 88.5 }],
        m_sh: [{ ...step, checksum: '34ea6549', ownMilliseconds: undefined }],
      },
    });
  });

  it('is not complete where the guest ends early, and an end without a beginning is none', () => {
    expect(logOf(['@@E fib ms=1 cpu=1 chk=02547029', '@@B fib']).measurement).toEqual({ runs: {}, isComplete: false });
  });
});

describe('the reference workloads', () => {
  it('are named on the command line of the kernel', () => {
    const plan = { names: ['fib', 'qsort'], macro: false, repetitions: 3 };
    expect(benchmarkCommandLine(plan)).toMatch(/ b\.reps=3 b\.set=fib,qsort b\.macro=0$/);
    expect(benchmarkCommandLine({ names: [], macro: true, repetitions: 1 })).toMatch(/ b\.set=none b\.macro=1$/);
  });

  it('have one checksum each, and the busybox set is apart', () => {
    expect(new Set(BENCHMARK_WORKLOADS.map(({ name }) => name)).size).toBe(24);
    for (const { checksum } of BENCHMARK_WORKLOADS) expect(checksum).toMatch(/^[0-9a-f]{8}$/);
    expect(BENCHMARK_WORKLOADS.filter(isMacroWorkload)).toHaveLength(5);
  });

  it('count by their best repetition, natively by their own measure where they have one', () => {
    expect(bestRun([run(30, ''), run(20, ''), run(25, '')])).toMatchObject({ mainMilliseconds: 20 });
    expect(nativeMilliseconds([run(30, '', 21), run(30, '', 20)])).toBe(20);
    expect(nativeMilliseconds([run(30, ''), run(40, '')])).toBe(35);
    expect(geometricMean([2, 8])).toBeCloseTo(4);
  });

  it('are wrong where one repetition is, or none was', () => {
    const fib = BENCHMARK_WORKLOADS.find(({ name }) => name === 'fib');
    if (!fib) throw new Error('no fib');
    expect(hasRightChecksum(fib, [run(1, fib.checksum)])).toBe(true);
    expect(hasRightChecksum(fib, [run(1, fib.checksum), run(1, '00000001')])).toBe(false);
    expect(hasRightChecksum(fib, [])).toBe(false);
    expect(formatBenchmark({ runs: { fib: [run(100, '00000001')] }, isComplete: true })).toMatch(
      /fib .* WRONG: 00000001, should be 02547029$/m,
    );
  });

  it('are reported by group, with a mean where all of a group ran', () => {
    const guest = { runs: { memcpy: [run(400, '000000b1')], repmovs: [run(100, '000000b1')] }, isComplete: true };
    const native = { runs: { memcpy: [run(1, '000000b1', 100)], repmovs: [run(1, '000000b1', 100)] }, isComplete: true };
    const text = formatBenchmark(guest, native);
    expect(text).toMatch(/^bulk copy\nmemcpy +400 +400 +100 +4\.00 .* right$/m);
    expect(text).toMatch(/^ {2}geometric mean +2\.00$/m);
    expect(text).not.toContain('kernel');
    expect(formatBenchmark(guest)).not.toContain('geometric');
  });
});
