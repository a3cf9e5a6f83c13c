/**
 * As much RAM as there may be: guest-physical addresses above 4 GiB, and linear ones above 2^31, where a sign might creep in. Every kind of
 * access is made there, in the last page and across the middle.
 */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { EngineBench, HUGE_PAGE, JIT_EARLY, LARGE_PAGE, PAGE, Pf, READ_WRITE } from '../../tests/engine-bench.ts';
import * as state from '../cpu/state.ts';
import { byte, dword, eax, mem, oword, qword, rax, rbx, rcx, rdi, rdx, rsi, xmm0, xmm1 } from '../guest/assembler/operands.ts';
import { FOUR_GIB, MAX_RAM_BYTES, MMIO_HOLE_BASE } from '../memory/guest-memory.ts';

const CODE = 0x40_0000n;
const DATA = 0x7f00_0000_0000n;
const HIGH_BYTES = MAX_RAM_BYTES - MMIO_HOLE_BASE;
let bench: EngineBench;

beforeAll(() => {
  bench = new EngineBench({ vcpus: 2, ramBytes: MAX_RAM_BYTES, jit: JIT_EARLY });
});
beforeEach(() => bench.reset());
const register = (offset: number): bigint => bench.vcpu.get64(offset);

it('3 GiB of RAM reach beyond linear 2^31, and from 4 GiB upwards', () => {
  expect(bench.memory.ranges).toEqual([
    { guestPhysical: 0, bytes: MMIO_HOLE_BASE },
    { guestPhysical: FOUR_GIB, bytes: HIGH_BYTES },
  ]);
  expect(bench.memory.linear(FOUR_GIB)).toBeGreaterThan(2 ** 31);
  expect(bench.memory.linear(FOUR_GIB + HIGH_BYTES)).toBe(-1);
});

/** Physical pages in places where addresses change their nature. */
const PLACES: [string, () => number][] = [
  ['below linear 2^31', () => 2 ** 31 - bench.memory.ramBase - PAGE],
  ['from linear 2^31 on', () => 2 ** 31 - bench.memory.ramBase],
  ['below the hole', () => MMIO_HOLE_BASE - PAGE],
  ['at 4 GiB', () => FOUR_GIB],
  ['at the end', () => FOUR_GIB + HIGH_BYTES - PAGE],
];

describe.each(PLACES)('a page %s', (_name, place) => {
  let frame = 0;
  beforeEach(() => {
    frame = place();
    bench.memory.slice(frame, PAGE).fill(0);
    bench.map(DATA, frame);
    bench.vcpu.set64(state.RDI, DATA);
  });

  it('is read and written, in every size, through TLB misses and hits', () => {
    bench.program(CODE, (a) =>
      a.mov(byte(rdi), 0x11).mov(byte(rdi, 1), 0x22).mov(dword(rdi, 4), 0x4433_2211).mov(rax, mem(rdi)).mov(mem(rdi, 0xff8), rax)
        .add(qword(rdi, 0xff8), 1).lock().xadd(mem(rdi, 0xff8), rax).movdqu(xmm0, mem(rdi)).movdqa(mem(rdi, 0x20), xmm0).movdqa(xmm1, oword(rdi, 0x20)).hlt());
    bench.start({ rip: CODE });
    expect(bench.run().kind).toBe('halt');
    expect(bench.readPhysical(frame)).toBe(0x4433_2211_0000_2211n);
    expect(register(state.RAX)).toBe(0x4433_2211_0000_2212n);
    expect(bench.readPhysical(frame + 0xff8)).toBe(0x4433_2211_0000_2211n + 0x4433_2211_0000_2212n);
    expect(register(state.XMM + 16)).toBe(0x4433_2211_0000_2211n);
  });

  it('runs code, and sees it change by guest and host', () => {
    bench.code(frame + 0x10, (a) => a.mov(byte(rdi, 0x10 + 8), 7).label('next').mov(eax, 1).hlt());
    const next = bench.memory.slice(frame, PAGE).indexOf(0xb8);
    bench.memory.write(frame + 0x12, Uint8Array.of(next + 1));
    bench.start({ rip: DATA + 0x10n });
    expect(bench.run().kind).toBe('halt');
    expect(register(state.RAX)).toBe(7n);
    bench.memory.write(frame + next + 1, Uint8Array.of(9));
    bench.start({ rip: DATA + BigInt(next) });
    expect(bench.run().kind).toBe('halt');
    expect(register(state.RAX)).toBe(9n);
  });

  it('serves compiled loops', () => {
    const regions = bench.engine.jit?.statistics.regions ?? 0;
    bench.program(CODE, (a) => a.label('again').add(qword(rdi), 3).mov(mem(rdi, 0xff8), rcx).add(rbx, mem(rdi, 0xff8)).dec(rcx).jnz('again').hlt());
    bench.vcpu.set64(state.RCX, 40_000n);
    bench.vcpu.set64(state.RBX, 0n);
    bench.start({ rip: CODE });
    while (bench.run(10_000).kind === 'budget');
    expect([bench.readPhysical(frame), register(state.RBX)]).toEqual([120_000n, (40_000n * 40_001n) / 2n]);
    expect(bench.engine.jit?.statistics.regions).toBeGreaterThan(regions);
  });

  it('holds a stack: calls, pushes, an exception and its return', () => {
    bench.program(CODE, (a) => a.call('routine').int(0x40).mov(rbx, rcx).hlt().label('routine').push(0x77).pop(rcx).ret());
    bench.start({ rip: CODE, rsp: DATA + 0x1000n });
    expect(bench.run()).toMatchObject({ vector: 0x40, rsp: DATA + 0x1000n });
    expect(bench.run()).toMatchObject({ kind: 'halt' });
    expect(register(state.RBX)).toBe(0x77n);
  });

  it('holds a page table, whose bits are set there', () => {
    const virtual = 0x7f80_0000_0000n;
    bench.map(virtual, bench.frame());
    const table = bench.entryAddress(virtual) & ~0xfff;
    bench.memory.slice(frame, PAGE).set(bench.memory.slice(table, PAGE));
    bench.setEntry(virtual, BigInt(frame) | READ_WRITE, 1);
    bench.program(CODE, (a) => a.mov(mem(rdi), rax).hlt());
    bench.vcpu.set64(state.RDI, virtual);
    bench.start({ rip: CODE });
    expect(bench.run().kind).toBe('halt');
    expect(bench.entry(virtual) & 0x60n).toBe(0x60n);
    expect(bench.entryAddress(virtual)).toBeGreaterThanOrEqual(frame);
  });

  it('takes part in string instructions', () => {
    const other = bench.frame();
    bench.map(DATA + 0x10_0000n, other);
    for (let i = 0; i < PAGE; i += 8) bench.writePhysical(other + i, BigInt(i) * 0x1_0001_0001n);
    bench.program(CODE, (a) => a.mov(rcx, 512).rep().movsq().mov(rcx, 512).mov(rdi, rbx).mov(rsi, rdx).repe().cmpsq().hlt());
    bench.vcpu.set64(state.RSI, DATA + 0x10_0000n);
    bench.vcpu.set64(state.RDX, DATA + 0x10_0000n);
    bench.vcpu.set64(state.RBX, DATA);
    bench.start({ rip: CODE });
    expect(bench.run().kind).toBe('halt');
    expect(register(state.RCX)).toBe(0n);
    expect(Buffer.compare(bench.memory.slice(frame, PAGE), bench.memory.slice(other, PAGE))).toBe(0);
  });
});

it('an access across linear 2^31 is split and put together', () => {
  const border = 2 ** 31 - bench.memory.ramBase;
  for (const page of [-1, 0]) bench.map(DATA + BigInt((page + 1) * PAGE), border + page * PAGE);
  bench.vcpu.set64(state.RDI, DATA + 0xffdn);
  bench.vcpu.set64(state.RAX, 0x1122_3344_5566_7788n);
  bench.program(CODE, (a) => a.mov(mem(rdi), rax).mov(rbx, mem(rdi)).hlt());
  bench.start({ rip: CODE });
  expect(bench.run().kind).toBe('halt');
  expect(register(state.RBX)).toBe(0x1122_3344_5566_7788n);
  expect([...bench.memory.slice(border - 3, 8)]).toEqual([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
});

it('an instruction across linear 2^31 runs, and changes', () => {
  const border = 2 ** 31 - bench.memory.ramBase;
  for (const page of [-1, 0]) bench.map(DATA + BigInt((page + 1) * PAGE), border + page * PAGE);
  bench.code(border - 3, (a) => a.mov(rax, 0x1111_2222_3333_4444n).hlt());
  bench.start({ rip: DATA + 0xffdn });
  expect(bench.run().kind).toBe('halt');
  bench.memory.write(border, Uint8Array.of(0x99));
  bench.start({ rip: DATA + 0xffdn });
  bench.run();
  expect(register(state.RAX)).toBe(0x1111_2222_3333_9944n);
});

it('large pages reach it whole: 2 MiB and 1 GiB', () => {
  bench.map(DATA, FOUR_GIB + 2 * LARGE_PAGE, READ_WRITE, { pageBytes: LARGE_PAGE });
  bench.map(DATA + BigInt(HUGE_PAGE), FOUR_GIB, READ_WRITE, { pageBytes: HUGE_PAGE });
  bench.program(CODE, (a) => a.mov(mem(rdi), rax).mov(rbx, mem(rsi)).hlt());
  bench.vcpu.set64(state.RDI, DATA + 0x1f_fff8n);
  bench.vcpu.set64(state.RSI, DATA + BigInt(HUGE_PAGE + 3 * LARGE_PAGE - 8));
  bench.vcpu.set64(state.RAX, 0xabcdn);
  bench.start({ rip: CODE });
  expect(bench.run().kind).toBe('halt');
  expect(register(state.RBX)).toBe(0xabcdn);
});

it('the hole below 4 GiB and what lies beyond RAM are devices’', () => {
  bench.map(DATA, MMIO_HOLE_BASE);
  bench.map(DATA + 0x1000n, FOUR_GIB - PAGE);
  bench.map(DATA + 0x2000n, FOUR_GIB + HIGH_BYTES);
  bench.program(CODE, (a) => a.mov(eax, mem(rdi)).mov(eax, mem(rdi, 0x1ffc)).mov(mem(rdi, 0x2000), eax).hlt());
  bench.vcpu.set64(state.RDI, DATA);
  bench.readValue = 5;
  bench.start({ rip: CODE });
  expect(bench.run().kind).toBe('halt');
  expect(bench.accesses).toEqual(['read 4 @80000000', 'read 4 @fffffffc', `write 4 @${(FOUR_GIB + HIGH_BYTES).toString(16)} = 5`]);
});

it('code of a page above 4 GiB is shared by vCPUs, and taken from both when one of them changes it', () => {
  const [first, second] = bench.engine.vcpus;
  bench.map(DATA, FOUR_GIB + 0x7000);
  bench.code(FOUR_GIB + 0x7000, (a) => a.label('again').mov(eax, 1).jmp('again'));
  bench.start({ rip: DATA, vcpu: first });
  expect(bench.run(500, first)).toEqual({ kind: 'budget' });
  bench.program(CODE, (a) => a.mov(byte(rdi, 5), 0xf4).hlt());
  second.set64(state.RDI, DATA);
  bench.start({ rip: CODE, vcpu: second });
  bench.run(500, second);
  expect(bench.run(500, first)).toEqual({ kind: 'halt', rip: DATA + 6n });
});

it('faults up there have the addresses they should have', () => {
  bench.map(DATA, FOUR_GIB + HIGH_BYTES - PAGE);
  bench.program(CODE, (a) => a.mov(mem(rdi), rax).hlt());
  bench.vcpu.set64(state.RDI, DATA + 0xffcn);
  bench.vcpu.set64(state.RAX, ~0n);
  bench.memory.slice(FOUR_GIB + HIGH_BYTES - 4, 4).fill(0);
  expect(bench.trapOf({ rip: CODE })).toMatchObject({ vector: 14, errorCode: Pf.write, cr2: DATA + 0x1000n });
  expect([...bench.memory.slice(FOUR_GIB + HIGH_BYTES - 4, 4)]).toEqual([0, 0, 0, 0]);
});
