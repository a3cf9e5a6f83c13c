/**
 * Fuzzing by kernel images, payloads and initrds with some bytes changed: they are refused by a user's error or prepared, in bounded
 * time and memory; what is prepared runs to an end or to its budget.
 */

import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { prepareBoot, type BootMethod } from '../../src/machine/boot/boot.ts';
import { extractVmlinux } from '../../src/machine/boot/kernel-payload.ts';
import { Machine } from '../../src/machine/machine.ts';
import { UserError } from '../../src/machine/user-error.ts';
import { GuestMemory } from '../../src/memory/guest-memory.ts';
import { Random } from '../conformance/machine-state.ts';
import { bzImage, elf } from '../kernel-images.ts';
import { buildGuest } from '../machine-bench.ts';
import { hostError } from './streams.ts';

const RAM_BYTES = 32 << 20;
const MOST_MILLISECONDS = 3000;
const MOST_BYTES = 1 << 30;
/** Every so many that were prepared are run, too. */
const RUN_EVERY = 40;
const RUN_INSTRUCTIONS = 50_000;
const METHODS: readonly BootMethod[] = ['auto', 'auto', 'bzimage', 'pvh', 'multiboot'];
const INTERESTING = [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_fff0, 0x10_0000, 0x0200_0000];
/** Where the headers are that everything else depends on. */
const HEADER_BYTES = 0x400;

interface Sample {
  name: string;
  bytes: Uint8Array;
  /** Not an image but what a bzImage carries. */
  isPayload: boolean;
}

function samples(): Sample[] {
  const read = (path: string): Uint8Array => readFileSync(path);
  const { elf: kernel } = buildGuest({ main: (a) => void a.nop() });
  const images = [
    ['PVH ELF', kernel], ['ELF', elf()], ['bzImage', bzImage()], ['bzImage of a kernel', bzImage(undefined, Buffer.from(kernel))],
    ...['segments', 'paging', 'debug'].map((name) => [`multiboot ${name}`, read(`tests/system/guests/${name}.bin`)] as const),
  ] as const; // biome-ignore format: a table
  const payloads = ['xz', 'lzma', 'lz4', 'zst'].map((suffix) => [`payload ${suffix}`, Buffer.concat([read(`src/machine/boot/fixtures/vmlinux.${suffix}`), Buffer.from([0x40, 0x38, 0, 0])])] as const);
  return [
    ...images.map(([name, bytes]) => ({ name, bytes, isPayload: false })),
    ...[...payloads, ['payload gzip', gzipSync(kernel)] as const].map(([name, bytes]) => ({ name, bytes, isPayload: true })),
  ];
}

/** The bytes, some of them others, and perhaps fewer or more of them. */
function mutate(random: Random, original: Uint8Array): Uint8Array {
  let bytes = Uint8Array.from(original);
  for (let i = random.below(6); i >= 0 && bytes.length > 4; i--) {
    const at = random.below(random.chance(60) ? Math.min(HEADER_BYTES, bytes.length - 4) : bytes.length - 4);
    switch (random.below(7)) {
      case 0: bytes[at] ^= 1 << random.below(8); break;
      case 1: bytes[at] = random.below(256); break;
      case 2: case 3: new DataView(bytes.buffer).setUint32(at, random.chance(70) ? random.pick(INTERESTING) : random.next(), true); break;
      case 4: bytes.fill(random.pick([0, 0xff]), at, at + random.below(64)); break;
      case 5: bytes.copyWithin(random.below(bytes.length), at, at + random.below(256)); break;
      default: if (random.chance(15)) bytes = random.chance(70) ? bytes.slice(0, at) : Uint8Array.from([...bytes, ...bytes.subarray(at)]);
    }
  }
  return bytes;
}

export class ImageFuzzer {
  readonly ends: Record<string, number> = {};
  instructions = 0;
  readonly exceptions = 0;
  slowest = 0;
  private readonly seed: number;
  private readonly samples = samples();
  private readonly memory = new GuestMemory({ ramBytes: RAM_BYTES });
  private prepared = 0;

  constructor(seed: number) {
    this.seed = seed;
  }

  run(index: number): { index: number; text: string } | undefined {
    const random = new Random(Math.imul(this.seed, 0x9e37_79b1) ^ index);
    const sample = random.pick(this.samples);
    const bytes = mutate(random, sample.bytes);
    const start = process.cpuUsage();
    let text: string | undefined;
    try {
      if (sample.isPayload) this.count('unpacked', extractVmlinux({ payload: bytes }).length);
      else this.boot(random, bytes);
    } catch (error) {
      if (error instanceof UserError) this.count('refused');
      else text = `${sample.name}: ${hostError(error)}`;
    }
    const { user, system } = process.cpuUsage(start);
    const taken = (user + system) / 1000;
    this.slowest = Math.max(this.slowest, taken);
    if (taken > MOST_MILLISECONDS) text ??= `${sample.name}: takes ${Math.round(taken)} ms`;
    const used = process.memoryUsage().arrayBuffers;
    if (used > MOST_BYTES) text ??= `${sample.name}: ${used} bytes are held`;
    return text === undefined ? undefined : { index, text };
  }

  private boot(random: Random, kernel: Uint8Array): void {
    const method = random.pick(METHODS);
    const initrd = random.chance(50) ? undefined : new Uint8Array(random.pick([0, 1, 4095, 4096, 70_000, 1 << 20]));
    const append = random.chance(80) ? 'console=ttyS0' : 'x'.repeat(random.pick([0, 255, 256, 2047, 2048, 70_000]));
    prepareBoot(this.memory, { kernel, initrd, append, method, acpi: undefined });
    this.count('prepared');
    if (this.prepared++ % RUN_EVERY) return;
    const machine = new Machine({ kernel, initrd, append, boot: method, vcpus: 1, memoryBytes: RAM_BYTES });
    const result = machine.run({ instructions: RUN_INSTRUCTIONS });
    this.instructions += machine.instructions;
    this.count(result.kind === 'ended' ? result.end : result.kind);
    machine.dispose();
  }

  private count(end: string, _detail = 0): void {
    this.ends[end] = (this.ends[end] ?? 0) + 1;
  }
}
