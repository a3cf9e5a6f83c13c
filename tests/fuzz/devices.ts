/**
 * Fuzzing by accesses to everything that is not RAM: vCPUs that read and write ports, MMIO and MSRs at random, in every size and by
 * string instructions, on every platform, with interrupts on. The run ends or keeps its budget, and no interrupt is unaccounted for.
 */

import type { Assembler } from '../../src/guest/assembler/assembler.ts';
import { al, address, ax, dword, dx, eax, ebx, ecx, edi, edx, esi, qword, rax, rbx, rcx, rdx, rsi, rsp, word, byte } from '../../src/guest/assembler/operands.ts';
import { Machine } from '../../src/machine/machine.ts';
import { PLATFORMS, type PlatformName } from '../../src/machine/platforms/all.ts';
import { KVM_OFF, KVM_ON } from '../../src/kvm/features.ts';
import { balance } from '../../src/trace/counters.ts';
import { Random } from '../conformance/machine-state.ts';
import { buildGuest, endInterrupt, SAVED_BYTES, startApplications } from '../machine-bench.ts';
import { hostError } from './streams.ts';

const ACCESSES = 1500;
const MOST_VCPUS = 4;
const ENTRY_BYTES = 24;
const RUN_INSTRUCTIONS = 400_000;
const MOST_MILLISECONDS = 4000;
const GENERAL_PROTECTION = 13;

/** What a table's entry does with its address and value; the guest has code for each, in this order. */
const KINDS: ((a: Assembler) => void)[] = [
  (a) => void a.in(al, dx), (a) => void a.in(ax, dx), (a) => void a.in(eax, dx),
  (a) => void a.out(dx, al), (a) => void a.out(dx, ax), (a) => void a.out(dx, eax),
  (a) => void a.mov(al, byte(rdx)), (a) => void a.mov(ax, word(rdx)), (a) => void a.mov(eax, dword(rdx)), (a) => void a.mov(rax, qword(rdx)),
  (a) => void a.mov(byte(rdx), al), (a) => void a.mov(word(rdx), ax), (a) => void a.mov(dword(rdx), eax), (a) => void a.mov(qword(rdx), rax),
  (a) => void a.lock().xadd(dword(rdx), eax),
  (a) => void a.mov(ecx, edx).mov(rdx, rax).shr(rdx, 32).wrmsr(),
  (a) => void a.mov(ecx, edx).rdmsr(),
  (a) => void a.mov(edi, address('scratch')).mov(ecx, 5).rep().insb(),
  (a) => void a.push(rsi).mov(esi, address('scratch')).mov(ecx, 7).rep().outsb().pop(rsi),
  (a) => void a.vmmcall(),
  (a) => void a.sti().hlt(),
  (a) => void a.pause(),
]; // biome-ignore format: a table
const [PORTS, MEMORY, MSRS] = [[0, 1, 2, 3, 4, 5, 17, 18], [6, 7, 8, 9, 10, 11, 12, 13, 14], [15, 16]];
const [HYPERCALL, HALT] = [19, 20];

/** A guest whose vCPUs go through tables of accesses; they lie behind its label `tables`. */
function guest(): ReturnType<typeof buildGuest> {
  const run = (a: Assembler): void => {
    // Each vCPU has a table of its own.
    a.mov(ecx, 1).lock().xadd(dword(address('next_table')), ecx).mov(eax, ecx).mov(ebx, ACCESSES * ENTRY_BYTES).mul(ebx);
    a.mov(esi, address('tables')).add(rsi, rax).add(rbx, rsi).sti().call('work').cli();
  };
  const handlers = Object.fromEntries(
    Array.from({ length: 256 }, (_, vector) => [
      vector,
      (a: Assembler) => {
        if (vector >= 32) endInterrupt(a);
        // What faults is left out.
        else if (vector === GENERAL_PROTECTION) a.mov(rax, address('work')).mov(qword(rsp, SAVED_BYTES + 8), rax);
      },
    ]),
  );
  return buildGuest({
    main: (a) => {
      startApplications(a);
      run(a);
    },
    application: run,
    handlers,
    data: (a) => {
      a.align(16).label('work').cmp(rsi, rbx).jae('worked');
      a.mov(ecx, dword(rsi)).mov(rdx, qword(rsi, 8)).mov(rax, qword(rsi, 16)).add(rsi, ENTRY_BYTES).shl(ecx, 5).add(rcx, address('code')).jmp(rcx);
      a.label('worked').ret();
      a.align(32).label('code');
      for (const kind of KINDS) {
        a.align(32);
        kind(a);
        a.jmp('work');
      }
      a.align(64).label('next_table').dq(0).label('scratch').reserve(64);
      a.align(64).label('tables').reserve(MOST_VCPUS * ACCESSES * ENTRY_BYTES);
    },
  });
}

const PORT_RANGES = [[0x20, 2], [0xa0, 2], [0x40, 4], [0x60, 5], [0x70, 2], [0x80, 1], [0x92, 1], [0x3f8, 8], [0x2f8, 8], [0x4d0, 2], [0x510, 12], [0x600, 0x60], [0xcf8, 8], [0xe9, 1], [0x2000, 0x20], [0xf5, 1]] as const;
const MMIO_RANGES = [[0xfee0_0000, 0x1000], [0xfec0_0000, 0x1000], [0xfed0_0000, 0x400], [0xe000_0000, 0x1000], [0xf000_0000, 0x100_0000], [0xfe00_0000, 0x1000], [0xd800_0000, 0x1000]] as const;
const MSR_RANGES = [[0x800, 0x40], [0x1b, 1], [0x6e0, 1], [0x10, 1], [0x3b, 1], [0x4b56_4d00, 9], [0x200, 0x10], [0x250, 0x20], [0x2ff, 1], [0x277, 1], [0x174, 3], [0xc000_0080, 5], [0xc001_0010, 8], [0, 0x2000]] as const;
const VALUES = [0, 1, 0xff, 0x80, 0x20, 0x1_00ff, 0xfee0_0900, 0xfee0_0d00, 0xffff_ffff, 0xc_4500, 0x4_4041, 0x8_0052, 0x2_0030, 0x8000_0000, 0x8000_0800];

export class DeviceFuzzer {
  readonly ends: Record<string, number> = {};
  instructions = 0;
  readonly exceptions = 0;
  slowest = 0;
  private readonly seed: number;
  private readonly guest = guest();

  constructor(seed: number) {
    this.seed = seed;
  }

  run(index: number): { index: number; text: string } | undefined {
    const random = new Random(Math.imul(this.seed, 0x9e37_79b1) ^ Math.imul(index, 0x85eb_ca6b));
    const start = process.cpuUsage();
    let text: string | undefined;
    let name = '';
    try {
      const platform = random.chance(50) ? 'pc' : random.pick(Object.keys(PLATFORMS) as PlatformName[]);
      const { maxVcpus, startsInX2apicMode } = PLATFORMS[platform];
      const vcpus = Math.min(1 + random.below(MOST_VCPUS), maxVcpus);
      name = `${platform}, ${vcpus} vCPUs`;
      const machine = new Machine({
        kernel: this.guest.elf, memoryBytes: 4 << 20, vcpus, platform, testDevice: random.chance(50), kvm: random.chance(70) ? KVM_ON : KVM_OFF,
        apic: startsInX2apicMode || random.chance(50) ? 'x2apic' : 'xapic',
      }); // biome-ignore format: one line a thought
      this.fill(machine, random);
      const result = machine.run({ instructions: RUN_INSTRUCTIONS, guestNanoseconds: 1e9 });
      this.instructions += machine.instructions;
      const end = result.kind === 'ended' ? result.end : result.kind;
      this.ends[end] = (this.ends[end] ?? 0) + 1;
      const { total } = machine.counters();
      if (!balance(total).isBalanced) text = `${name}: interrupts do not add up: ${JSON.stringify(balance(total))}`;
      if (total.instructions > RUN_INSTRUCTIONS + vcpus * 20_000) text = `${name}: ${total.instructions} instructions`;
      machine.dispose();
    } catch (error) {
      text = `${name}: ${hostError(error)}`;
    }
    const { user, system } = process.cpuUsage(start);
    const taken = (user + system) / 1000;
    this.slowest = Math.max(this.slowest, taken);
    if (taken > MOST_MILLISECONDS) text ??= `${name}: takes ${Math.round(taken)} ms`;
    return text === undefined ? undefined : { index, text };
  }

  private fill(machine: Machine, random: Random): void {
    const base = this.guest.symbols.get('tables') as number;
    const { view } = machine.memory;
    const within = ([first, count]: readonly [number, number]): number => first + random.below(count);
    // A table keeps to some of it: what belongs together meets.
    const favourites = { ports: random.pick(PORT_RANGES), mmio: random.pick(MMIO_RANGES), msrs: random.pick(MSR_RANGES) };
    for (let i = 0; i < MOST_VCPUS * ACCESSES; i++) {
      const at = machine.memory.linear(base + i * ENTRY_BYTES, ENTRY_BYTES);
      const dice = random.below(100);
      const isPort = dice < 40;
      const isMemory = dice < 80;
      const kind = isPort ? random.pick(PORTS) : isMemory ? random.pick(MEMORY) : dice < 94 ? random.pick(MSRS) : dice < 96 ? HYPERCALL : dice < 97 ? HALT : 21;
      const favourite = random.chance(60);
      const target = isPort
        ? favourite ? within(favourites.ports) : random.chance(90) ? within(random.pick(PORT_RANGES)) : random.below(65536)
        : isMemory
          ? (favourite ? within(favourites.mmio) : random.chance(90) ? within(random.pick(MMIO_RANGES)) : 0x8000_0000 + random.below(0x7fff_0000)) & (random.chance(70) ? -16 : -1)
          : favourite ? within(favourites.msrs) : within(random.pick(MSR_RANGES));
      view.setUint32(at, kind, true);
      view.setUint32(at + 8, target, true);
      view.setUint32(at + 12, 0, true);
      view.setUint32(at + 16, random.chance(50) ? random.pick(VALUES) : random.chance(50) ? random.below(256) : random.next(), true);
      view.setUint32(at + 20, random.chance(80) ? 0 : random.next(), true);
    }
  }
}
