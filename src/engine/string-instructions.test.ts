/**
 * Repeated string instructions against a model that goes element by element: overlaps, both directions, page boundaries, pages that are
 * missing or read-only, frames that are mapped twice. Registers after a fault say exactly how far it came. SDM 2B REP. Compiled code does what
 * is at hand in the TLB: each case runs with pages there and with none.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { EngineBench, PAGE, Pf, Pte, READ_WRITE } from '../../tests/engine-bench.ts';
import { Access } from '../cpu/mmu.ts';
import * as state from '../cpu/state.ts';
import { Flag } from '../cpu/vcpu.ts';
import { dx } from '../guest/assembler/operands.ts';
import { RandomSource } from '../machine/random.ts';

let bench: EngineBench;
const CODE = 0x40_0000n;
const ARENA = 0x60_0000n;

type Kind = 'movs' | 'stos' | 'lods' | 'cmps' | 'scas';
const OPCODE: Record<Kind, number> = { movs: 0xa4, cmps: 0xa6, stos: 0xaa, lods: 0xac, scas: 0xae };
const PREFIX = { none: [], rep: [0xf3], repne: [0xf2] } as const;
interface Case {
  kind: Kind;
  bytes: 1 | 2 | 4 | 8;
  repeat: keyof typeof PREFIX;
  /** 32-bit addresses and count. */
  narrow: boolean;
  backwards: boolean;
  rax: bigint;
  rcx: bigint;
  rsi: bigint;
  rdi: bigint;
}

function encode({ kind, bytes, repeat, narrow }: Case): Uint8Array {
  const size = bytes === 2 ? [0x66] : bytes === 8 ? [0x48] : [];
  return Uint8Array.of(...(narrow ? [0x67] : []), ...PREFIX[repeat], ...size, OPCODE[kind] + (bytes === 1 ? 0 : 1), 0xf4);
}

/** Virtual pages from ARENA on: the frame each shows, and its rights. */
interface PageOf {
  frame: number;
  flags: bigint;
}

/** What the instruction leaves, element by element. */
class Model {
  readonly memory: Uint8Array;
  readonly pages: readonly PageOf[];
  fault: { errorCode: number; cr2: bigint } | undefined;
  rax = 0n;
  rcx = 0n;
  rsi = 0n;
  rdi = 0n;
  zero: boolean | undefined;

  constructor(memory: Uint8Array, pages: readonly PageOf[]) {
    this.memory = memory;
    this.pages = pages;
  }

  private at(address: bigint, write: boolean): number {
    const page = this.pages[Number((address - ARENA) >> 12n)];
    const present = page && (page.flags & Pte.present) !== 0n;
    if (!present || (write && !(page.flags & Pte.writable))) {
      this.fault ??= { errorCode: (present ? Pf.present : 0) | (write ? Pf.write : 0), cr2: address };
      return -1;
    }
    return page.frame + Number(address & 0xfffn);
  }

  /** Bytes' places, or nothing where one of them faults: the first byte's page is looked at first. */
  private places(address: bigint, bytes: number, write: boolean): number[] | undefined {
    const places: number[] = [];
    for (let i = 0; i < bytes; i++) {
      const at = this.at(address + BigInt(i), write);
      if (at < 0) return undefined;
      places.push(at);
    }
    return places;
  }

  private load(address: bigint, bytes: number): bigint | undefined {
    return this.places(address, bytes, false)?.reduceRight((value, at) => (value << 8n) | BigInt(this.memory[at]), 0n);
  }

  private store(address: bigint, bytes: number, value: bigint): boolean {
    const places = this.places(address, bytes, true);
    places?.forEach((at, i) => {
      this.memory[at] = Number((value >> BigInt(8 * i)) & 0xffn);
    });
    return places !== undefined;
  }

  run(c: Case): void {
    Object.assign(this, { rax: c.rax, rcx: c.rcx, rsi: c.rsi, rdi: c.rdi });
    const wrap = (value: bigint): bigint => BigInt.asUintN(c.narrow ? 32 : 64, value);
    const step = BigInt(c.backwards ? -c.bytes : c.bytes);
    const bits = 8 * c.bytes;
    const accumulator = BigInt.asUintN(bits, c.rax);
    const usesSource = c.kind !== 'stos' && c.kind !== 'scas';
    const usesDestination = c.kind !== 'lods';
    for (;;) {
      if (c.repeat !== 'none' && wrap(this.rcx) === 0n) return;
      let value = accumulator;
      if (usesSource) {
        const loaded = this.load(wrap(this.rsi), c.bytes);
        if (loaded === undefined) return;
        value = loaded;
      }
      let other: bigint | undefined;
      if (c.kind === 'cmps' || c.kind === 'scas') {
        other = this.load(wrap(this.rdi), c.bytes);
        if (other === undefined) return;
      } else if (usesDestination && !this.store(wrap(this.rdi), c.bytes, value)) return;
      // A 64-bit register written by 32 bits loses its high half.
      if (c.kind === 'lods') this.rax = bits < 32 ? (this.rax & ~((1n << BigInt(bits)) - 1n)) | value : value;
      if (usesSource) this.rsi = wrap(this.rsi + step);
      if (usesDestination) this.rdi = wrap(this.rdi + step);
      if (other !== undefined) this.zero = value === other;
      if (c.repeat === 'none') return;
      this.rcx = wrap(this.rcx - 1n);
      if (other !== undefined && this.zero !== (c.repeat === 'rep')) return;
    }
  }
}

const ARENA_PAGES = 6;
/** Runs a case on the bench and on the model; both have to agree on everything. `warm`: the TLB has the pages that may be written. */
function check(c: Case, pages: readonly PageOf[], frames: number, note: unknown, warm = true): void {
  const base = bench.memory.linear(frames);
  const size = ARENA_PAGES * PAGE;
  const model = new Model(bench.memory.bytes.slice(base, base + size), pages);
  model.run(c);
  const { vcpu } = bench;
  pages.forEach((page, i) => bench.map(ARENA + BigInt(i * PAGE), frames + page.frame, page.flags));
  vcpu.mmu.flushAll(vcpu.base);
  const code = frames + size;
  bench.memory.write(code, encode(c));
  bench.map(CODE, code);
  const rflags = 2n | (c.backwards ? Flag.direction : 0n);
  // Once over nothing: what has been seen is compiled.
  if (c.repeat !== 'none') {
    vcpu.set64(state.RCX, 0n);
    bench.start({ rip: CODE, rflags });
    bench.run();
  }
  for (const [offset, value] of [[state.RAX, c.rax], [state.RCX, c.rcx], [state.RSI, c.rsi], [state.RDI, c.rdi]] as const) vcpu.set64(offset, value);
  bench.start({ rip: CODE, rflags });
  if (warm) pages.forEach(({ flags }, i) => flags === READ_WRITE && vcpu.mmu.translate(vcpu.base, ARENA + BigInt(i * PAGE), Access.write));
  const stop = bench.run();
  const expected = model.fault
    ? { kind: 'trap', vector: 14, rip: CODE, ...model.fault }
    : { kind: 'halt', rip: CODE + BigInt(encode(c).length) };
  const registers = (s: { rax: bigint; rcx: bigint; rsi: bigint; rdi: bigint }): string => [s.rax, s.rcx, s.rsi, s.rdi].map((v) => v.toString(16)).join(' ');
  const left = { rax: vcpu.get64(state.RAX), rcx: vcpu.get64(state.RCX), rsi: vcpu.get64(state.RSI), rdi: vcpu.get64(state.RDI) };
  expect({ note, stop }).toMatchObject({ note, stop: expected });
  expect({ note, registers: registers(left) }).toEqual({ note, registers: registers(model) });
  // Only what ran to its end has flags for the next instruction; a fault's are in its frame.
  if (model.zero !== undefined && !model.fault) expect((vcpu.rflags & Flag.zero) !== 0n).toBe(model.zero);
  const memory = bench.memory.bytes.subarray(base, base + size);
  if (Buffer.compare(memory, model.memory)) expect({ note, memory: memory.slice() }).toEqual({ note, memory: model.memory });
}

const plain = (): PageOf[] => Array.from({ length: ARENA_PAGES }, (_, i) => ({ frame: i * PAGE, flags: READ_WRITE }));
const CASE: Case = { kind: 'movs', bytes: 1, repeat: 'rep', narrow: false, backwards: false, rax: 0x1122_3344_5566_7788n, rcx: 0n, rsi: ARENA, rdi: ARENA };
const fill = (frames: number, random = new RandomSource(3)): void => {
  for (let at = 0; at < ARENA_PAGES * PAGE; at += 8) bench.writePhysical(frames + at, random.next64());
};

describe.each<[string, EngineBench]>([
  ['interpreted', new EngineBench({ jit: false })],
  ['compiled', new EngineBench({ jit: 'force' })],
])('%s,', (name, target) => {
  beforeEach(() => {
    bench = target;
    bench.reset();
  });

  describe('REP MOVS', () => {
    it.each([
      ['forwards, destination just behind the source: the first bytes repeat', 1n, false],
      ['forwards, destination seven bytes behind', 7n, false],
      ['forwards, destination below the source', -3n, false],
      ['backwards, destination above the source', 5n, true],
      ['backwards, destination below the source: the last bytes repeat', -1n, true],
    ])('%s', (name, distance, backwards) => {
      const frames = bench.frame(ARENA_PAGES + 1);
      fill(frames);
      const rsi = ARENA + 0x1800n;
      for (const bytes of [1, 2, 4, 8] as const) check({ ...CASE, bytes, backwards, rcx: 700n, rsi, rdi: rsi + distance }, plain(), frames, [name, bytes]);
    });

    it('copies through a frame that is mapped twice as through one address', () => {
      const frames = bench.frame(ARENA_PAGES + 1);
      fill(frames);
      // Page 3 shows the frame of page 1: the destination begins 8 bytes behind the source, in memory only.
      const pages = plain();
      pages[3] = pages[1];
      check({ ...CASE, bytes: 4, rcx: 300n, rsi: ARENA + 0x1100n, rdi: ARENA + 0x3108n }, pages, frames, 'aliased');
    });

    it('over nothing changes nothing, be the addresses what they may', () => {
      const frames = bench.frame(ARENA_PAGES + 1);
      check({ ...CASE, rcx: 0n, rsi: 0x1234n, rdi: 0x5678n }, plain(), frames, 'none');
    });

    it('stops where a page is missing, and goes on from there once it is there', () => {
      const frames = bench.frame(ARENA_PAGES + 1);
      fill(frames);
      const pages = plain();
      pages[4] = { ...pages[4], flags: 0n };
      const c = { ...CASE, bytes: 8 as const, rcx: 1000n, rsi: ARENA + 4n, rdi: ARENA + 0x2804n };
      check(c, pages, frames, 'missing');
      expect(bench.vcpu.get64(state.CR2)).toBe(ARENA + 0x4000n);
      // The element that reaches into the missing page was not half written.
      bench.map(ARENA + 0x4000n, frames + 4 * PAGE);
      const source = bench.memory.slice(frames + 4, 8000).slice();
      expect(bench.run()).toMatchObject({ kind: 'halt' });
      expect(Buffer.compare(bench.memory.slice(frames + 0x2804, 8000), source)).toBe(0);
      expect(bench.vcpu.get64(state.RCX)).toBe(0n);
    });
  });

  describe('port strings', () => {
    it('INS reads the port only for elements that it can store', () => {
      const frame = bench.frame();
      bench.map(ARENA, frame);
      bench.program(CODE, (a) => a.mov(dx, 0x60).rep().insw().hlt());
      bench.vcpu.set64(state.RDI, ARENA + 0xffbn);
      bench.vcpu.set64(state.RCX, 5n);
      bench.readValue = 0xabcd;
      // Two words fit; of the third, one byte.
      expect(bench.trapOf({ rip: CODE })).toMatchObject({ vector: 14, errorCode: Pf.write, cr2: ARENA + 0x1000n, rip: CODE + 4n });
      expect(bench.accesses).toEqual(['in 2 @60', 'in 2 @60']);
      expect([bench.vcpu.get64(state.RCX), bench.vcpu.get64(state.RDI)]).toEqual([3n, ARENA + 0xfffn]);
      expect([...bench.memory.slice(frame + 0xffb, 5)]).toEqual([0xcd, 0xab, 0xcd, 0xab, 0]);
    });

    it('OUTS writes what it read before it came to a page that is missing', () => {
      bench.map(ARENA, bench.frame());
      bench.program(CODE, (a) => a.mov(dx, 0x80).rep().outsb().hlt());
      bench.vcpu.set64(state.RSI, ARENA + 2n);
      bench.vcpu.set64(state.RCX, 5n);
      bench.start({ rip: CODE, rflags: 2n | Flag.direction });
      expect(bench.run()).toMatchObject({ vector: 14, errorCode: 0, cr2: ARENA - 1n });
      expect(bench.accesses).toEqual(['out 1 @80 = 0', 'out 1 @80 = 0', 'out 1 @80 = 0']);
      expect(bench.vcpu.get64(state.RCX)).toBe(2n);
    });
  });

  it('random string instructions do what the model does', { timeout: 120_000 }, () => {
    const random = new RandomSource(11);
    const below = (limit: number): number => Number(random.next64() % BigInt(limit));
    const pick = <T>(items: readonly T[]): T => items[below(items.length)];
    const frames = bench.frame(ARENA_PAGES + 1);
    for (let round = 0; round < 3000; round++) {
      const pages = plain().map((page) => ({
        frame: below(8) === 0 ? below(ARENA_PAGES) * PAGE : page.frame,
        flags: below(8) === 0 ? pick([0n, Pte.present]) : READ_WRITE,
      }));
      fill(frames, random);
      const kind = pick(['movs', 'stos', 'lods', 'cmps', 'scas'] as const);
      const bytes = pick([1, 2, 4, 8] as const);
      // Often near a page's end; the destination often near the source.
      const address = (): bigint => ARENA + BigInt(below(2) ? below(ARENA_PAGES * PAGE) : (1 + below(ARENA_PAGES)) * PAGE - below(40));
      const rsi = address();
      const rdi = below(2) ? address() : rsi + BigInt(below(200) - 100);
      const backwards = below(3) === 0;
      const c: Case = {
        kind, bytes, backwards, rsi, rdi,
        repeat: pick(['none', 'rep', 'rep', 'repne'] as const),
        narrow: below(4) === 0,
        rax: below(2) ? random.next64() : 0x4242_4242_4242_4242n,
        rcx: below(5) === 0 ? random.next64() : BigInt(below(below(2) ? 20 : 9000)),
      };
      // REPNE MOVS, STOS and LODS repeat like REP.
      if (kind === 'cmps' || kind === 'scas') {
        // Long runs of equal elements, as strings have them.
        const value = BigInt.asUintN(8 * bytes, c.rax);
        const from = Math.max(0, Math.min(Number(c.rdi - ARENA), ARENA_PAGES * PAGE - 1)) & ~7;
        for (let at = from; at < Math.min(from + 2048, ARENA_PAGES * PAGE); at += 8) bench.writePhysical(frames + at, value === BigInt.asUintN(8 * bytes, 0x4242_4242_4242_4242n) ? 0x4242_4242_4242_4242n : 0n);
      }
      check(c, pages, frames, { round, ...c }, below(3) > 0);
    }
    if (name === 'compiled') expect(bench.engine.jit?.statistics.instructions).toBeGreaterThan(500);
  });
});
