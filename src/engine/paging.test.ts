/** Paging as a guest meets it: what each access right allows, and what #PF tells where it does not. SDM 3A 4.6, 4.7. */
import { beforeEach, describe, expect, it } from 'vitest';
import { EngineBench, HUGE_PAGE, LARGE_PAGE, PAGE, Pf, Pte, READ_WRITE, type Stop, USER_READ_WRITE } from '../../tests/engine-bench.ts';
import * as state from '../cpu/state.ts';
import { Cr0, Cr4, Efer, Flag } from '../cpu/vcpu.ts';
import { al, eax, mem, qword, rax, rbx, rdi, xmm0 } from '../guest/assembler/operands.ts';

const bench = new EngineBench();
const CODE = 0x40_0000n;
const DATA = 0x7f00_0000_0000n;
const [GP, SS, PF, AC] = [13, 12, 14, 17];

beforeEach(() => {
  bench.reset();
  code = CODE;
});

const setBits = (register: number, bits: bigint, on: boolean): void => {
  const { vcpu } = bench;
  vcpu.set64(register, on ? vcpu.get64(register) | bits : vcpu.get64(register) & ~bits);
  vcpu.mmu.flushAll(vcpu.base);
};

type Access = 'read' | 'write' | 'fetch';
/** Page of the code that made the last access. */
let code = CODE;
/** What comes of one access, made by code in a page of its own. */
function access(kind: Access, address: bigint, cpl: 0 | 3 = 0, rflags = 2n): Stop {
  code += 0x1000n;
  bench.program(code, (a) => void (kind === 'read' ? a.mov(rax, mem(rdi)) : kind === 'write' ? a.mov(mem(rdi), rax) : a.jmp(rdi)).hlt(), cpl ? USER_READ_WRITE : READ_WRITE);
  bench.vcpu.set64(state.RDI, address);
  bench.vcpu.set64(state.RAX, 0x1122_3344_5566_7788n);
  bench.start({ rip: code, cpl, rflags });
  return bench.run();
}
/** CPL 3 halts by #GP: HLT is privileged. */
const allowed = (stop: Stop): boolean => stop.kind === 'halt' || (stop.kind === 'trap' && stop.vector === GP && stop.errorCode === 0);
const pageFault = (errorCode: number, address = DATA) => ({ kind: 'trap', vector: PF, errorCode, cr2: BigInt.asUintN(64, address) });

describe('a page that is not there', () => {
  it.each([
    ['read', 0, 0],
    ['write', 0, Pf.write],
    ['fetch', 0, Pf.fetch],
    ['read', 3, Pf.user],
    ['write', 3, Pf.write | Pf.user],
    ['fetch', 3, Pf.user | Pf.fetch],
  ] as const)('%s at CPL %i faults with error code %i', (kind, cpl, code) => {
    expect(access(kind, DATA, cpl)).toMatchObject(pageFault(code));
  });

  it.each([3, 2, 1, 0])('is found missing at level %i of the tables, with the same fault', (level) => {
    bench.map(DATA, bench.frame());
    bench.setEntry(DATA, 0n, level);
    expect(access('read', DATA)).toMatchObject(pageFault(0));
  });

  it('leaves the fault without the fetch bit where neither NX nor SMEP tell fetches apart', () => {
    setBits(state.EFER, Efer.nxe, false);
    expect(access('fetch', DATA)).toMatchObject(pageFault(0));
    bench.reset();
    setBits(state.EFER, Efer.nxe, false);
    setBits(state.CR4, Cr4.smep, true);
    expect(access('fetch', DATA)).toMatchObject(pageFault(Pf.fetch));
  });

  it('has its tables outside of RAM: as if nothing were there', () => {
    bench.map(DATA, bench.frame());
    bench.setEntry(DATA, 0x3000_0000n | USER_READ_WRITE, 1);
    expect(access('read', DATA)).toMatchObject(pageFault(0));
  });
});

describe('rights', () => {
  it('CPL 3 needs the user bit, CPL 0 does not', () => {
    bench.map(DATA, bench.frame(), READ_WRITE);
    expect(allowed(access('read', DATA, 0))).toBe(true);
    expect(access('read', DATA, 3)).toMatchObject(pageFault(Pf.present | Pf.user));
    expect(access('write', DATA, 3)).toMatchObject(pageFault(Pf.present | Pf.user | Pf.write));
  });

  it.each([3, 2, 1, 0])('the user bit has to be set at level %i, too', (level) => {
    bench.map(DATA, bench.frame(), USER_READ_WRITE);
    expect(allowed(access('read', DATA, 3))).toBe(true);
    bench.reset();
    bench.map(DATA, bench.frame(), USER_READ_WRITE);
    bench.setEntry(DATA, bench.entry(DATA, level) & ~Pte.user, level);
    expect(access('read', DATA, 3)).toMatchObject(pageFault(Pf.present | Pf.user));
  });

  it.each([3, 2, 1, 0])('the writable bit has to be set at level %i, too', (level) => {
    bench.map(DATA, bench.frame(), USER_READ_WRITE);
    bench.setEntry(DATA, bench.entry(DATA, level) & ~Pte.writable, level);
    expect(allowed(access('read', DATA, 3))).toBe(true);
    expect(access('write', DATA, 3)).toMatchObject(pageFault(Pf.present | Pf.write | Pf.user));
    expect(access('write', DATA, 0)).toMatchObject(pageFault(Pf.present | Pf.write));
  });

  it('without CR0.WP a supervisor writes to read-only pages, user pages among them, and a user does not', () => {
    const frame = bench.frame();
    bench.map(DATA, frame, Pte.present | Pte.user);
    setBits(state.CR0, Cr0.wp, false);
    expect(allowed(access('write', DATA, 0))).toBe(true);
    expect(bench.readPhysical(frame)).toBe(0x1122_3344_5566_7788n);
    expect(bench.entry(DATA) & Pte.dirty).toBe(Pte.dirty);
    expect(access('write', DATA, 3)).toMatchObject(pageFault(Pf.present | Pf.write | Pf.user));
  });

  it('turning WP on again takes back what the TLB allowed', () => {
    bench.map(DATA, bench.frame(), Pte.present);
    setBits(state.CR0, Cr0.wp, false);
    bench.program(CODE, (a) =>
      a.mov(mem(rdi), rax) // allowed, and in the TLB
        .mov(mem(rdi), rax)
        .mov(rax, rbx)
        .db(0x0f, 0x22, 0xc0) // mov cr0, rax
        .mov(mem(rdi), rax));
    bench.vcpu.set64(state.RDI, DATA);
    bench.vcpu.set64(state.RBX, bench.vcpu.get64(state.CR0) | Cr0.wp);
    expect(bench.trapOf({ rip: CODE })).toMatchObject({ ...pageFault(Pf.present | Pf.write), rip: CODE + 12n });
  });

  it.each([3, 2, 1, 0])('NX at level %i forbids fetches and nothing else', (level) => {
    bench.map(DATA, bench.frame(), USER_READ_WRITE);
    bench.setEntry(DATA, bench.entry(DATA, level) | Pte.noExecute, level);
    expect(allowed(access('write', DATA, 3))).toBe(true);
    expect(access('fetch', DATA, 3)).toMatchObject(pageFault(Pf.present | Pf.user | Pf.fetch));
    expect(access('fetch', DATA, 0)).toMatchObject(pageFault(Pf.present | Pf.fetch));
  });
});

describe('SMEP', () => {
  it('keeps a supervisor from executing user pages', () => {
    const frame = bench.frame();
    bench.map(DATA, frame, USER_READ_WRITE);
    bench.code(frame, (a) => a.hlt());
    expect(allowed(access('fetch', DATA, 0))).toBe(true);
    setBits(state.CR4, Cr4.smep, true);
    expect(access('fetch', DATA, 0)).toMatchObject(pageFault(Pf.present | Pf.fetch));
    expect(allowed(access('read', DATA, 0))).toBe(true);
  });

  it('says nothing about users, nor about supervisor pages', () => {
    setBits(state.CR4, Cr4.smep, true);
    const frame = bench.frame();
    bench.code(frame, (a) => a.hlt());
    bench.map(DATA, frame, USER_READ_WRITE);
    expect(access('fetch', DATA, 3)).toMatchObject({ vector: GP, rip: DATA });
    bench.map(DATA, frame, READ_WRITE);
    bench.vcpu.mmu.flushAll(bench.vcpu.base);
    expect(allowed(access('fetch', DATA, 0))).toBe(true);
  });
});

describe('SMAP', () => {
  beforeEach(() => {
    bench.map(DATA, bench.frame(), USER_READ_WRITE);
    setBits(state.CR4, Cr4.smap, true);
  });

  it('keeps a supervisor from user pages while AC is clear', () => {
    expect(access('read', DATA, 0)).toMatchObject(pageFault(Pf.present));
    expect(access('write', DATA, 0)).toMatchObject(pageFault(Pf.present | Pf.write));
  });

  it('lets it at them while AC is set', () => {
    expect(allowed(access('read', DATA, 0, 2n | Flag.alignment))).toBe(true);
    expect(allowed(access('write', DATA, 0, 2n | Flag.alignment))).toBe(true);
  });

  it('is opened by STAC and closed by CLAC, whatever the TLB holds', () => {
    bench.program(CODE, (a) => a.stac().mov(rax, mem(rdi)).mov(rax, mem(rdi)).clac().mov(rax, mem(rdi)).hlt());
    bench.vcpu.set64(state.RDI, DATA);
    expect(bench.trapOf({ rip: CODE })).toMatchObject({ ...pageFault(Pf.present), rip: CODE + 12n });
  });

  it('is closed by POPF, too', () => {
    bench.program(CODE, (a) => a.stac().mov(rax, mem(rdi)).push(2).popf().mov(rax, mem(rdi)).hlt());
    bench.vcpu.set64(state.RDI, DATA);
    expect(bench.trapOf({ rip: CODE })).toMatchObject({ ...pageFault(Pf.present), rip: CODE + 9n });
  });

  it('does not hinder users, nor fetches of supervisors without SMEP', () => {
    expect(allowed(access('write', DATA, 3))).toBe(true);
    bench.code(Number(bench.entry(DATA) & ~0xfffn & 0xffff_ffffn), (a) => a.hlt());
    expect(allowed(access('fetch', DATA, 0))).toBe(true);
  });

  it('AC does not open it to implicit accesses: an IDT in a user page', () => {
    // The IDT's own page becomes a user page: delivery of anything then faults, and so does that of the page fault.
    const idt = bench.vcpu.get64(state.IDTR_BASE);
    bench.setEntry(idt, bench.entry(idt) | Pte.user);
    bench.program(CODE, (a) => a.ud2());
    bench.start({ rip: CODE, rflags: 2n | Flag.alignment });
    expect(bench.run()).toEqual({ kind: 'shutdown' });
    expect(bench.vcpu.get64(state.CR2)).toBe(idt + 8n * 16n);
  });

  it('implicit accesses are a supervisor’s even at CPL 3: a TSS in a user page', () => {
    const tss = bench.vcpu.get64(state.TR + state.SEGMENT_BASE);
    bench.setEntry(tss, bench.entry(tss) | Pte.user);
    // #PF on an IST would need the TSS, too; from CPL 0 it needs none.
    bench.program(CODE, (a) => a.ud2(), USER_READ_WRITE);
    bench.start({ rip: CODE, cpl: 3, rsp: DATA + 0x1000n });
    expect(bench.run()).toEqual({ kind: 'shutdown' });
    expect(bench.vcpu.get64(state.CR2)).toBe(tss + 4n);
  });
});

describe('reserved bits', () => {
  const reserved = Pf.present | Pf.reserved;

  it.each([3, 2, 1, 0])('an address bit above the 40 that there are, at level %i', (level) => {
    bench.map(DATA, bench.frame(), USER_READ_WRITE);
    bench.setEntry(DATA, bench.entry(DATA, level) | (1n << 40n), level);
    expect(access('read', DATA, 3)).toMatchObject(pageFault(reserved | Pf.user));
    expect(access('write', DATA, 0)).toMatchObject(pageFault(reserved | Pf.write));
    expect(access('fetch', DATA, 0)).toMatchObject(pageFault(reserved | Pf.fetch));
  });

  it('NX while EFER.NXE is clear', () => {
    setBits(state.EFER, Efer.nxe, false);
    bench.map(DATA, bench.frame(), READ_WRITE | Pte.noExecute);
    expect(access('read', DATA)).toMatchObject(pageFault(reserved));
  });

  it('PS in the top level', () => {
    bench.map(DATA, bench.frame());
    bench.setEntry(DATA, bench.entry(DATA, 3) | Pte.large, 3);
    expect(access('read', DATA)).toMatchObject(pageFault(reserved));
  });

  it.each([
    ['2 MiB', LARGE_PAGE, 1, 13],
    ['2 MiB', LARGE_PAGE, 1, 20],
    ['1 GiB', HUGE_PAGE, 2, 13],
    ['1 GiB', HUGE_PAGE, 2, 29],
  ] as const)('address bits below a page of %s', (_name, pageBytes, level, bit) => {
    bench.map(DATA, 0, READ_WRITE, { pageBytes });
    bench.setEntry(DATA, bench.entry(DATA, level) | (1n << BigInt(bit)), level);
    expect(access('read', DATA)).toMatchObject(pageFault(reserved));
  });

  it('bit 12 of a large page is PAT, bits 52 to 62 are ignored', () => {
    bench.map(DATA, 0, READ_WRITE | (1n << 12n) | (0x7ffn << 52n), { pageBytes: LARGE_PAGE });
    expect(allowed(access('read', DATA))).toBe(true);
  });

  it('are not looked at below an entry that is not present', () => {
    bench.map(DATA, bench.frame());
    bench.setEntry(DATA, (bench.entry(DATA) & ~Pte.present) | (0xfffn << 40n));
    expect(access('read', DATA)).toMatchObject(pageFault(0));
  });
});

describe('page sizes', () => {
  it.each([
    ['4 KiB', PAGE, 0xff8n, 0x8_7000],
    ['2 MiB', LARGE_PAGE, 0x1f_f7f8n, 0x20_0000],
    ['1 GiB', HUGE_PAGE, 0x30_1238n, 0],
  ] as const)('a page of %s translates every offset within it', (_name, pageBytes, offset, physical) => {
    bench.map(DATA, physical, READ_WRITE, { pageBytes });
    for (const at of [0n, 8n, offset]) {
      bench.writePhysical(physical + Number(at), 0xfeed_0000n + at);
      expect(allowed(access('read', DATA + at))).toBe(true);
      expect(bench.vcpu.get64(state.RAX)).toBe(0xfeed_0000n + at);
    }
  });

  it('a 1 GiB page reaches what is no RAM as MMIO', () => {
    bench.map(DATA, 0, READ_WRITE, { pageBytes: HUGE_PAGE });
    bench.readValue = 0xabcd_1234;
    expect(allowed(access('read', DATA + 0x3000_0010n))).toBe(true);
    expect(bench.accesses).toEqual(['read 4 @30000010', 'read 4 @30000014']);
    expect(bench.vcpu.get64(state.RAX)).toBe(0xabcd_1234_abcd_1234n);
  });
});

describe('accessed and dirty bits', () => {
  const flags = (level: number): bigint => bench.entry(DATA, level) & (Pte.accessed | Pte.dirty);

  it('a read marks every level accessed, none dirty', () => {
    bench.map(DATA, bench.frame());
    access('read', DATA);
    for (const level of [3, 2, 1, 0]) expect(flags(level)).toBe(Pte.accessed);
  });

  it('a write after a read marks the page dirty', () => {
    bench.map(DATA, bench.frame());
    bench.program(CODE, (a) => a.mov(rax, mem(rdi)).mov(mem(rdi), rax).hlt());
    bench.vcpu.set64(state.RDI, DATA);
    bench.start({ rip: CODE });
    expect(bench.run().kind).toBe('halt');
    expect(flags(0)).toBe(Pte.accessed | Pte.dirty);
    for (const level of [3, 2, 1]) expect(flags(level)).toBe(Pte.accessed);
  });

  it('a large page is marked in the entry that maps it', () => {
    bench.map(DATA, LARGE_PAGE, READ_WRITE, { pageBytes: LARGE_PAGE });
    access('write', DATA + 0x12_3000n);
    expect(flags(1)).toBe(Pte.accessed | Pte.dirty);
    expect(flags(2)).toBe(Pte.accessed);
  });

  it('a fetch marks code accessed', () => {
    const frame = bench.frame();
    bench.map(DATA, frame);
    bench.code(frame, (a) => a.hlt());
    access('fetch', DATA);
    expect(flags(0)).toBe(Pte.accessed);
  });

  it('an access that is refused leaves the page’s own entry alone', () => {
    bench.map(DATA, bench.frame(), Pte.present | Pte.user);
    access('write', DATA, 3);
    expect(flags(0)).toBe(0n);
  });

  it('read-modify-write of a read-only page faults as a write, and marks nothing', () => {
    bench.map(DATA, bench.frame(), Pte.present);
    bench.program(CODE, (a) => a.add(qword(rdi), 1));
    bench.vcpu.set64(state.RDI, DATA);
    expect(bench.trapOf({ rip: CODE })).toMatchObject(pageFault(Pf.present | Pf.write));
    expect(flags(0)).toBe(0n);
  });

  it('CMPXCHG that does not match still writes: it faults on a read-only page', () => {
    bench.map(DATA, bench.frame(), Pte.present);
    bench.program(CODE, (a) => a.lock().cmpxchg(mem(rdi), rbx));
    bench.vcpu.set64(state.RDI, DATA);
    bench.vcpu.set64(state.RAX, 5n);
    expect(bench.trapOf({ rip: CODE })).toMatchObject(pageFault(Pf.present | Pf.write));
  });

  it('a page whose dirty bit the guest clears is marked again after INVLPG', () => {
    bench.map(DATA, bench.frame());
    access('write', DATA);
    bench.setEntry(DATA, bench.entry(DATA) & ~Pte.dirty);
    bench.program(CODE, (a) => a.invlpg(mem(rdi)).mov(mem(rdi), rax).hlt());
    bench.start({ rip: CODE });
    bench.run();
    expect(flags(0)).toBe(Pte.accessed | Pte.dirty);
  });
});

describe('addresses that are not canonical', () => {
  const HOLE = 0x0000_8000_0000_0000n;

  it.each([HOLE, 0xffff_7fff_ffff_fff0n, 0x8000_0000_0000_0000n, 0x1234_5678_9abc_def0n])('raise #GP(0) for data at %s, and leave CR2 alone', (address) => {
    bench.vcpu.set64(state.CR2, 0x77n);
    for (const stop of [access('read', address), access('write', address, 3)]) expect(stop).toMatchObject({ vector: GP, errorCode: 0, cr2: 0x77n });
  });

  it('raise #SS(0) on the stack', () => {
    bench.program(CODE, (a) => a.push(rax).hlt());
    // The handler needs a stack of its own.
    bench.setGate(SS, { ist: 1 });
    expect(bench.trapOf({ rip: CODE, rsp: HOLE + 8n })).toMatchObject({ vector: SS, errorCode: 0, rsp: HOLE + 8n });
  });

  it('raise #GP(0) at the jump that would go there', () => {
    bench.program(CODE, (a) => a.nop().jmp(rdi));
    bench.vcpu.set64(state.RDI, HOLE);
    expect(bench.trapOf({ rip: CODE })).toMatchObject({ vector: GP, errorCode: 0, rip: CODE + 1n });
  });

  it('are reached by an access that begins below the hole', () => {
    bench.map(HOLE - 0x1000n, bench.frame());
    expect(allowed(access('read', HOLE - 8n))).toBe(true);
    expect(access('read', HOLE - 7n)).toMatchObject({ vector: GP, errorCode: 0 });
  });
});

describe('an access across two pages', () => {
  const SPLIT = DATA + 0xffdn;
  it('reads and writes bytes of both', () => {
    const [first, second] = [bench.frame(), bench.frame()];
    bench.map(DATA, second);
    bench.map(DATA + 0x1000n, first);
    expect(allowed(access('write', SPLIT))).toBe(true);
    expect(bench.memory.slice(second + 0xffd, 3)).toEqual(Uint8Array.of(0x88, 0x77, 0x66));
    expect(bench.memory.slice(first, 5)).toEqual(Uint8Array.of(0x55, 0x44, 0x33, 0x22, 0x11));
    expect(allowed(access('read', SPLIT))).toBe(true);
    expect(bench.vcpu.get64(state.RAX)).toBe(0x1122_3344_5566_7788n);
  });

  it('writes nothing where the second is missing, and names its first byte', () => {
    const frame = bench.frame();
    bench.map(DATA, frame);
    expect(access('write', SPLIT)).toMatchObject(pageFault(Pf.write, DATA + 0x1000n));
    expect(bench.memory.slice(frame, PAGE).every((byte) => byte === 0)).toBe(true);
  });

  it('faults on the first page first', () => {
    expect(access('write', SPLIT)).toMatchObject(pageFault(Pf.write, SPLIT));
  });

  it('writes nothing where the second is read-only', () => {
    const frame = bench.frame();
    bench.map(DATA, frame);
    bench.map(DATA + 0x1000n, bench.frame(), Pte.present);
    expect(access('write', SPLIT)).toMatchObject(pageFault(Pf.present | Pf.write, DATA + 0x1000n));
    expect(bench.memory.slice(frame, PAGE).every((byte) => byte === 0)).toBe(true);
  });

  it('does half of no vector store', () => {
    const frame = bench.frame();
    bench.map(DATA, frame);
    bench.program(CODE, (a) => a.movdqu(mem(rdi), xmm0));
    bench.vcpu.set64(state.XMM, ~0n);
    bench.vcpu.set64(state.RDI, SPLIT);
    expect(bench.trapOf({ rip: CODE })).toMatchObject(pageFault(Pf.write, DATA + 0x1000n));
    expect(bench.memory.slice(frame, PAGE).every((byte) => byte === 0)).toBe(true);
  });

  it('a CALL whose push faults stays where it is', () => {
    bench.map(DATA, bench.frame());
    bench.program(CODE, (a) => a.label('here').call('here'));
    bench.setGate(PF, { ist: 1 });
    expect(bench.trapOf({ rip: CODE, rsp: DATA })).toMatchObject({ ...pageFault(Pf.write, DATA - 8n), rip: CODE, rsp: DATA });
  });

  it('an instruction across two pages faults at its start, with the second page’s address', () => {
    // 48 B8 and eight bytes: mov rax, imm64, of which three bytes lie in the first page.
    const rip = CODE + 0xffdn;
    bench.program(rip, (a) => a.mov(rax, 0x1122_3344_5566_7788n));
    expect(bench.trapOf({ rip })).toMatchObject({ ...pageFault(Pf.fetch, CODE + 0x1000n), rip });
    const rest = bench.frame();
    bench.map(CODE + 0x1000n, rest);
    bench.memory.write(rest, Uint8Array.of(0x55, 0x44, 0x33, 0x22, 0x11, 0, 0, 0xf4));
    expect(bench.run()).toMatchObject({ kind: 'halt', rip: CODE + 0x1008n });
  });
});

describe('alignment checks', () => {
  it('are a user’s alone, with AM and AC both set', () => {
    bench.map(DATA, bench.frame(), USER_READ_WRITE);
    expect(allowed(access('read', DATA + 1n, 3, 2n | Flag.alignment))).toBe(true);
    setBits(state.CR0, Cr0.am, true);
    expect(access('read', DATA + 1n, 3, 2n | Flag.alignment)).toMatchObject({ vector: AC, errorCode: 0, rip: code });
    expect(allowed(access('read', DATA + 8n, 3, 2n | Flag.alignment))).toBe(true);
    expect(allowed(access('read', DATA + 1n, 3))).toBe(true);
    expect(allowed(access('read', DATA + 1n, 0, 2n | Flag.alignment))).toBe(true);
  });
});

describe('MMIO', () => {
  const DEVICE = 0xfee0_0000;

  it('gets accesses of 1, 2 and 4 bytes as they are, of 8 in halves', () => {
    bench.map(DATA, DEVICE);
    bench.program(CODE, (a) => a.mov(al, mem(rdi)).mov(eax, mem(rdi, 0x20)).mov(mem(rdi, 0x30), rax).hlt());
    bench.vcpu.set64(state.RDI, DATA);
    bench.readValue = 0x8765_4321;
    bench.start({ rip: CODE });
    expect(bench.run().kind).toBe('halt');
    expect(bench.accesses).toEqual(['read 1 @fee00000', 'read 4 @fee00020', 'write 4 @fee00030 = 87654321', 'write 4 @fee00034 = 0']);
  });

  it('is read and written by a string instruction, element by element', () => {
    bench.map(DATA, DEVICE);
    const frame = bench.frame();
    bench.map(DATA + 0x1000n, frame);
    bench.program(CODE, (a) => a.rep().movsd().hlt());
    bench.readValue = 7;
    bench.vcpu.set64(state.RSI, DATA + 0x10n);
    bench.vcpu.set64(state.RDI, DATA + 0x1000n);
    bench.vcpu.set64(state.RCX, 2n);
    bench.start({ rip: CODE });
    expect(bench.run().kind).toBe('halt');
    expect(bench.accesses).toEqual(['read 4 @fee00010', 'read 4 @fee00014']);
    expect(bench.readPhysical(frame)).toBe(0x7_0000_0007n);
  });

  it('cannot be executed: that ends the run, with the address', () => {
    bench.map(DATA, DEVICE);
    expect(() => access('fetch', DATA)).toThrow(/executes outside RAM, at 0xfee00000/);
  });
});
