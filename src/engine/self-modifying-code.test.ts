/**
 * Code that changes: whoever writes it (the code itself, another vCPU, the host, the processor's own pushes), the next time it is fetched
 * the new bytes run. As on a processor whose stores and fetches see each other at once.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { assemble, EngineBench, PAGE, Pf, READ_WRITE, type Stop } from '../../tests/engine-bench.ts';
import * as state from '../cpu/state.ts';
import type { Assembler } from '../guest/assembler/assembler.ts';
import { al, byte, cr3, dword, eax, ebx, ecx, mem, oword, qword, r8, rax, rbx, rcx, rdi, rdx, rsi, rsp, word, xmm0 } from '../guest/assembler/operands.ts';
import { RandomSource } from '../machine/random.ts';

const bench = new EngineBench({ vcpus: 2 });
const CODE = 0x40_0000n;
/** The same frames as CODE, elsewhere. */
const ALIAS = 0x7f00_0000_0000n;

beforeEach(() => bench.reset());

const register = (offset: number): bigint => bench.vcpu.get64(offset);
/** Code at CODE + offset, two pages of it, which ALIAS shows, too. */
function program(build: (a: Assembler) => void, offset = 0): number {
  const frame = bench.frame(2);
  for (const base of [CODE, ALIAS]) for (const page of [0, PAGE]) bench.map(base + BigInt(page), frame + page);
  bench.code(frame + offset, build);
  return frame;
}
function runFrom(rip = CODE): Stop {
  bench.start({ rip });
  return bench.run();
}

describe('a store', () => {
  it('to the very next instruction changes that', () => {
    program((a) => a.xor(eax, eax).mov(byte('next', 1), 7).label('next').mov(al, 1).hlt());
    runFrom();
    expect(register(state.RAX)).toBe(7n);
  });

  it('to an instruction further on in the block changes that', () => {
    program((a) => a.xor(eax, eax).mov(byte('target', 1), 7).nop().nop().add(eax, 0x10).label('target').mov(al, 1).hlt());
    runFrom();
    expect(register(state.RAX)).toBe(7n);
  });

  it('to an instruction that ran already is seen when it runs again', () => {
    program((a) => a.xor(eax, eax).mov(ecx, 5).label('again').add(eax, 1).add(byte('again', 2), 1).dec(ecx).jnz('again').hlt());
    runFrom();
    expect(register(state.RAX)).toBe(1n + 2n + 3n + 4n + 5n);
  });

  it('that makes instructions of other lengths changes where they begin', () => {
    // 90 90 90 becomes 83 C0 05: add eax, 5.
    program((a) => a.xor(eax, eax).mov(word('target'), 0xc083).mov(byte('target', 2), 5).label('target').nop().nop().nop().hlt());
    runFrom();
    expect(register(state.RAX)).toBe(5n);
  });

  it('to code in the next page is seen there', () => {
    const frame = program((a) => a.mov(byte(rdi), 9).jmp(rsi));
    bench.code(frame + PAGE, (a) => a.mov(eax, 1).hlt());
    bench.vcpu.set64(state.RDI, CODE + 0x1001n);
    bench.vcpu.set64(state.RSI, CODE + 0x1000n);
    runFrom(CODE + 0x1000n);
    expect(register(state.RAX)).toBe(1n);
    runFrom();
    expect(register(state.RAX)).toBe(9n);
  });

  it('by way of another virtual address is seen all the same', () => {
    const frame = program((a) => a.mov(eax, 1).mov(byte(rdi), 9).hlt());
    expect(bench.memory.bytes[bench.memory.linear(frame)]).toBe(0xb8);
    bench.vcpu.set64(state.RDI, ALIAS + 1n);
    runFrom();
    runFrom();
    expect(register(state.RAX)).toBe(9n);
  });

  it('is seen, too, where the page was written to before it had any code', () => {
    const frame = program((a) => a.mov(byte(rdi), 0x90).mov(byte(rdi), 0x90).call(rsi).mov(byte(rdi), 9).call(rsi).hlt());
    bench.code(frame + PAGE, (a) => a.mov(eax, 1).ret());
    // A byte of the page that is no code first, so that the TLB lets writes through.
    bench.vcpu.set64(state.RDI, CODE + 0x1800n);
    bench.vcpu.set64(state.RSI, CODE + 0x1000n);
    runFrom();
    expect(register(state.RAX)).toBe(1n);
    bench.vcpu.set64(state.RDI, CODE + 0x1001n);
    bench.program(CODE + 0x2000n, (a) => a.mov(byte(rdi), 9).call(rsi).hlt());
    runFrom(CODE + 0x2000n);
    expect(register(state.RAX)).toBe(9n);
  });

  it.each<[string, (a: Assembler) => unknown, number]>([
    ['of a vector', (a) => a.movdqu(mem(rdi), xmm0), 16],
    ['of a push', (a) => a.mov(rsp, rdi).add(rsp, 8).push(rbx), 8],
    ['of XCHG', (a) => a.xchg(mem(rdi), rbx), 8],
    ['of LOCK CMPXCHG', (a) => a.mov(rax, mem(rdi)).lock().cmpxchg(mem(rdi), rbx), 8],
    ['of CMPXCHG16B', (a) => a.mov(rax, mem(rdi)).mov(rdx, mem(rdi, 8)).mov(rcx, mem(rdi, 8)).lock().cmpxchg16b(oword(rdi)), 16],
    ['of REP STOSQ', (a) => a.mov(rax, rbx).mov(ecx, 1).rep().stosq(), 8],
    ['of REP MOVSB', (a) => a.mov(ecx, 8).rep().movsb(), 8],
    ['of a bit', (a) => a.btc(dword(rdi), 8), 4],
  ])('%s changes code', (_name, store) => {
    const target = (value: number): Uint8Array => assemble((a) => a.db(0xb8, value, 0, 0, 0).nop().nop().ret()); // mov eax, value; nop; nop; ret
    const frame = program((a) => {
      store(a);
      a.hlt();
    });
    const at = frame + PAGE;
    bench.memory.write(at, target(2));
    const patched = new DataView(target(3).buffer).getBigUint64(0, true);
    bench.writePhysical(frame + 0x800, patched);
    bench.program(CODE + 0x2000n, (a) => a.mov(rsi, CODE + 0x1000n).call(rsi).hlt());
    runFrom(CODE + 0x2000n);
    expect(register(state.RAX)).toBe(2n);
    bench.vcpu.set64(state.RDI, CODE + 0x1000n);
    bench.vcpu.set64(state.RSI, CODE + 0x800n);
    bench.vcpu.set64(state.RBX, patched);
    bench.vcpu.set64(state.XMM, patched);
    expect(runFrom()).toMatchObject({ kind: 'halt' });
    runFrom(CODE + 0x2000n);
    expect(register(state.RAX)).toBe(3n);
  });

  it('across two pages changes code in both', () => {
    const frame = program((a) => a.mov(mem(rdi), rbx).hlt());
    bench.vcpu.set64(state.RDI, CODE + 0xffcn);
    const before = frame + 0xff8;
    bench.memory.write(before, assemble((a) => a.nop().nop().nop().nop().nop().nop().nop().nop().nop().nop().nop().nop().hlt()));
    runFrom(CODE + 0xff8n);
    bench.vcpu.set64(state.RAX, 0n);
    // inc eax at the end of one page, twice, and at the beginning of the next.
    bench.vcpu.set64(state.RBX, 0xc0ff_c0ff_c0ff_c0ffn);
    runFrom();
    runFrom(CODE + 0xff8n);
    expect(register(state.RAX)).toBe(4n);
  });

  it('beside code leaves that decoded', () => {
    const frame = program((a) => a.label('again').add(qword(rdi), 1).dec(ecx).jnz('again').hlt());
    bench.vcpu.set64(state.RCX, 100n);
    bench.vcpu.set64(state.RDI, CODE + 0x20n); // the same page and the same line, behind the code
    const { invalidatedBlocks } = bench.engine.cache;
    runFrom();
    expect(bench.readPhysical(frame + 0x20)).toBe(100n);
    expect(bench.engine.cache.invalidatedBlocks).toBe(invalidatedBlocks);
  });

  it('of a string over the instruction that follows it changes that', () => {
    program((a) => a.mov(eax, 0x90).rep().stosb().label('target').ud2().ud2().ud2().hlt());
    const start = Number(CODE) + assemble((a) => a.mov(eax, 0x90).rep().stosb()).length;
    bench.vcpu.set64(state.RDI, BigInt(start));
    bench.vcpu.set64(state.RCX, 6n);
    expect(runFrom()).toEqual({ kind: 'halt', rip: BigInt(start + 7) });
  });

  it('of a string over itself lets it finish, and then what it left runs', () => {
    // What REP STOSB overwrites begins with itself: a processor goes on with the instruction it has.
    program((a) => a.mov(eax, 0x90).rep().stosb().nop().nop().hlt());
    const self = CODE + 5n;
    bench.vcpu.set64(state.RDI, self);
    bench.vcpu.set64(state.RCX, 4n);
    expect(runFrom()).toMatchObject({ kind: 'halt' });
    expect(register(state.RCX)).toBe(0n);
    expect(runFrom(self)).toMatchObject({ kind: 'halt' });
    expect(register(state.RDI)).toBe(self + 4n);
  });
});

describe('an instruction across two pages', () => {
  const RIP = CODE + 0xffdn;
  /** mov rax, imm64: three bytes in the first page, seven in the second. */
  const split = (): number => program((a) => a.mov(rax, 0x1111_2222_3333_4444n).hlt(), 0xffd);

  it('is seen to change in its first part', () => {
    const frame = split();
    runFrom(RIP);
    bench.memory.write(frame + 0xffe, Uint8Array.of(0xbb)); // mov rbx, imm64
    runFrom(RIP);
    expect(register(state.RBX)).toBe(0x1111_2222_3333_4444n);
  });

  it('is seen to change in its second part, by its own vCPU and another', () => {
    split();
    runFrom(RIP);
    bench.program(CODE + 0x2000n, (a) => a.mov(byte(rdi), rbx.number).hlt());
    for (const [vcpu, value] of [[bench.engine.vcpus[0], 0x77], [bench.engine.vcpus[1], 0x88]] as const) {
      bench.program(CODE + 0x2000n, (a) => a.mov(byte(rdi), value).hlt());
      for (const { base } of bench.engine.vcpus) bench.vcpu.mmu.flushAll(base);
      vcpu.set64(state.RDI, CODE + 0x1000n);
      bench.start({ rip: CODE + 0x2000n, vcpu });
      bench.run(100, vcpu);
      runFrom(RIP);
      expect(register(state.RAX)).toBe(0x1111_2222_3333_0044n | (BigInt(value) << 8n));
    }
  });

  it('runs with the second page that the address space in use has', () => {
    const frame = split();
    const second = bench.frame();
    bench.memory.write(second, bench.memory.slice(frame + PAGE, PAGE).slice().fill(0x55, 0, 2));
    const other = bench.newRoot();
    bench.map(CODE, frame, READ_WRITE, { root: other });
    bench.map(CODE + 0x1000n, second, READ_WRITE, { root: other });
    bench.program(CODE + 0x2000n, (a) => a.mov(cr3, rdx).jmp(rsi));
    bench.map(CODE + 0x2000n, Number(bench.entry(CODE + 0x2000n) & 0xff_f000n), READ_WRITE, { root: other });
    bench.vcpu.set64(state.RSI, RIP);
    const seen = Array.from({ length: 6 }, (_, i) => {
      bench.vcpu.set64(state.RDX, BigInt(i & 1 ? other : bench.root));
      expect(runFrom(CODE + 0x2000n)).toMatchObject({ kind: 'halt', rip: CODE + 0x1008n });
      return register(state.RAX);
    });
    const [one, two] = [0x1111_2222_3333_4444n, 0x1111_2222_3355_5544n];
    expect(seen).toEqual([one, two, one, two, one, two]);
  });

  it('faults once its second page is gone', () => {
    split();
    runFrom(RIP);
    bench.setEntry(CODE + 0x1000n, 0n);
    bench.program(CODE + 0x2000n, (a) => a.invlpg(mem(rdi)).jmp(rsi));
    bench.vcpu.set64(state.RDI, CODE + 0x1000n);
    bench.vcpu.set64(state.RSI, RIP);
    expect(runFrom(CODE + 0x2000n)).toMatchObject({ kind: 'trap', vector: 14, errorCode: Pf.fetch, rip: RIP, cr2: CODE + 0x1000n });
  });

  it('reads ones where the second page is no RAM', () => {
    split();
    bench.map(CODE + 0x1000n, 0x3000_0000);
    bench.start({ rip: RIP });
    expect(() => bench.run()).toThrow(/executes outside RAM/);
    expect(register(state.RAX)).toBe(0xffff_ffff_ffff_ff44n);
  });
});

describe('bytes that were no instruction', () => {
  it.each([
    ['in one page', 0x100],
    ['across two pages', 0xfff],
  ])('become one when their second byte changes, %s', (_name, offset) => {
    // 0F FF is undefined, 0F A2 is CPUID.
    const frame = program((a) => a.db(0x0f, 0xff).hlt(), offset);
    const rip = CODE + BigInt(offset);
    bench.start({ rip });
    expect(bench.run()).toMatchObject({ kind: 'trap', vector: 6, rip });
    bench.program(CODE + 0x2000n, (a) => a.mov(byte(rdi), 0xa2).jmp(rsi));
    bench.vcpu.set64(state.RDI, rip + 1n);
    bench.vcpu.set64(state.RSI, rip);
    bench.vcpu.set64(state.RAX, 5n);
    expect(bench.memory.slice(frame + offset, 2)).toEqual(Uint8Array.of(0x0f, 0xff));
    expect(runFrom(CODE + 0x2000n)).toMatchObject({ kind: 'halt', rip: rip + 3n });
    expect(register(state.RAX)).toBe(0n);
  });

  it('become one when the fifteenth byte does', () => {
    const prefixes = new Array<number>(14).fill(0x66);
    const frame = program((a) => a.db(...prefixes, 0x66, 0x90).hlt());
    expect(runFrom()).toMatchObject({ kind: 'trap', vector: 13, rip: CODE });
    bench.memory.write(frame + 14, Uint8Array.of(0x90));
    expect(runFrom()).toMatchObject({ kind: 'halt' });
  });
});

describe('writes from elsewhere', () => {
  it('another vCPU’s are seen by a vCPU that is in a loop', () => {
    const [first, second] = bench.engine.vcpus;
    program((a) => a.label('again').mov(eax, 1).jmp('again'));
    bench.start({ rip: CODE, vcpu: first });
    expect(bench.run(1000, first)).toEqual({ kind: 'budget' });
    bench.program(CODE + 0x2000n, (a) => a.mov(byte(rdi), 0xf4).hlt());
    second.set64(state.RDI, CODE + 5n);
    bench.start({ rip: CODE + 0x2000n, vcpu: second });
    expect(bench.run(1000, second).kind).toBe('halt');
    expect(bench.run(1000, first)).toEqual({ kind: 'halt', rip: CODE + 6n });
  });

  it('the host’s are seen', () => {
    const frame = program((a) => a.mov(eax, 1).hlt());
    runFrom();
    bench.memory.write(frame + 1, Uint8Array.of(9));
    runFrom();
    expect(register(state.RAX)).toBe(9n);
  });

  it('the host’s are seen in every page of a long one', () => {
    const frame = bench.frame(4);
    for (let page = 0; page < 4; page++) bench.map(CODE + BigInt(page * PAGE), frame + page * PAGE);
    const nops = new Uint8Array(4 * PAGE).fill(0x90);
    nops[4 * PAGE - 1] = 0xf4;
    bench.memory.write(frame, nops);
    expect(runFrom()).toMatchObject({ kind: 'halt', rip: CODE + 0x4000n });
    const { invalidatedBlocks } = bench.engine.cache;
    // From the middle of the first page to that of the last, with a HLT in one page after the other.
    const middle = nops.slice(0, 3 * PAGE);
    for (const at of [0x500, 0x900, 0x1500, 0x1900, 0x2500, 0x2fff]) {
      bench.memory.write(frame + 0x800, middle.fill(0xf4, at, at + 1));
      expect(runFrom()).toEqual({ kind: 'halt', rip: CODE + BigInt(0x800 + at + 1) });
      middle[at] = 0x90;
    }
    expect(bench.engine.cache.invalidatedBlocks).toBeGreaterThan(invalidatedBlocks + 3 * 64);
  });

  it('the processor’s own pushes are seen', () => {
    const frame = program((a) => a.mov(eax, 1).hlt(), 0x800);
    runFrom(CODE + 0x800n);
    // An interrupt frame ends where the code begins, and then over it: RIP, CS, RFLAGS, RSP, SS.
    bench.program(CODE + 0x2000n, (a) => a.ud2());
    bench.start({ rip: CODE + 0x2000n, rsp: CODE + 0x810n });
    bench.run();
    expect(bench.readPhysical(frame + 0x800)).toBe(CODE + 0x810n);
    expect(runFrom(CODE + 0x800n)).not.toMatchObject({ kind: 'halt', rip: CODE + 0x806n });
  });

  it('accessed and dirty bits that change a page table which is code, too, are seen', () => {
    // The page table's entry for ALIAS ends in the bytes of an instruction: 00 00 (add [rax], al) becomes something else with A and D set.
    bench.map(ALIAS, bench.frame());
    const entry = bench.entryAddress(ALIAS);
    bench.map(CODE, entry & ~0xfff);
    const at = CODE + BigInt(entry & 0xfff);
    // 03 00 | F4 ...: with frame 0xF4000 the entry is 03 40 0F 00..., which reads: add eax, [rax + 0xf]; add [rax], al; …
    bench.setEntry(ALIAS, 0xf_4003n);
    const scratch = ALIAS + 0x10_0000n;
    bench.map(scratch, bench.frame());
    bench.vcpu.set64(state.RAX, scratch);
    bench.start({ rip: at });
    const before = bench.engine.cache.invalidatedBlocks;
    bench.run();
    bench.program(CODE + 0x2000n, (a) => a.mov(byte(rdi), 1).hlt());
    bench.vcpu.set64(state.RDI, ALIAS);
    runFrom(CODE + 0x2000n);
    expect(bench.entry(ALIAS)).toBe(0xf_4063n);
    expect(bench.engine.cache.invalidatedBlocks).toBeGreaterThan(before);
  });
});

it('the same bytes are other instructions in 32-bit and in 64-bit code', () => {
  // 48 FF C0: inc rax in 64-bit code; dec eax, inc eax in 32-bit code.
  const frame = program((a) => a.db(0x48, 0xff, 0xc0).hlt());
  expect(frame).toBeGreaterThan(0);
  runFrom();
  expect(register(state.RAX)).toBe(1n);
  bench.program(CODE + 0x2000n, (a) => a.push(0x1b).push(Number(CODE)).retfq());
  bench.vcpu.set64(state.R8, 0n);
  // To CPL 3 the pages have to be the user's; the far return takes SS:RSP along.
  for (const page of [0n, 0x1000n, 0x2000n]) bench.setEntry(CODE + page, bench.entry(CODE + page) | 4n);
  bench.vcpu.mmu.flushAll(bench.vcpu.base);
  bench.program(CODE + 0x3000n, (a) => a.push(0x23).push(0).push(0x1b).push(Number(CODE)).retfq());
  bench.start({ rip: CODE + 0x3000n });
  expect(bench.run()).toMatchObject({ kind: 'trap', vector: 13, rip: CODE + 3n, cs: 0x1b });
  expect(register(state.RAX)).toBe(1n);
  expect(r8.number).toBe(8);
});

it('random programs that patch themselves do what a model does', () => {
  const random = new RandomSource(7);
  const below = (limit: number): number => Number(random.next64() % BigInt(limit));
  // Instructions of two kinds, in slots of a length each: add ebx, imm8, and a store of a byte to some slot's immediate.
  const ADD = assemble((a) => a.add(ebx, 0x11)).length;
  for (let round = 0; round < 150; round++) {
    bench.reset();
    const kinds = Array.from({ length: 4 + below(90) }, () => below(3) === 0);
    const slots: { at: number; bytes: number[]; store: boolean }[] = [];
    const origin = PAGE - below(200);
    let at = origin;
    for (const store of kinds) {
      slots.push({ at, bytes: [], store });
      at += store ? 7 : ADD;
    }
    for (const slot of slots) {
      if (slot.store) {
        const target = slots[below(slots.length)];
        // mov byte [rip + displacement], imm8
        const displacement = target.at + (target.store ? 6 : 2) - (slot.at + 7);
        slot.bytes = [0xc6, 0x05, ...[0, 8, 16, 24].map((shift) => (displacement >> shift) & 0xff), below(128)];
      } else slot.bytes = [0x83, 0xc3, below(128)]; // add ebx, imm8
    }
    const image = slots.flatMap((slot) => slot.bytes);
    const turns = 1 + below(5);
    const frame = program((a) => a.db(...image).dec(ecx).hlt(), origin);
    // The model: bytes, and instructions that read them.
    const model = Uint8Array.from(image);
    let sum = 0;
    for (let turn = 0; turn < turns; turn++) {
      for (const slot of slots) {
        const offset = slot.at - origin;
        if (!slot.store) sum += model[offset + 2];
        else {
          const displacement = new DataView(model.buffer).getInt32(offset + 2, true);
          model[offset + 7 + displacement] = model[offset + 6];
        }
      }
      expect(runFrom(CODE + BigInt(origin))).toMatchObject({ kind: 'halt' });
    }
    expect([round, register(state.RBX)]).toEqual([round, BigInt(sum)]);
    expect(bench.memory.slice(frame + origin, model.length)).toEqual(model);
  }
});
