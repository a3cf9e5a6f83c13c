/**
 * CPU models: which features a processor has, by the names that Linux gives them in /proc/cpuinfo, where CPUID tells of each, and
 * what depends on it. SDM 2A CPUID, APM 3 appendix E; levels from the x86-64 psABI. Instructions name the feature they need
 * themselves (isa/instruction.ts).
 */

import { Cr4 } from './vcpu.ts';

/** A register of a leaf that has a bit for each feature. */
export type FeatureWord = '1.edx' | '1.ecx' | '7.ebx' | '7.ecx' | '7.edx' | 'd.1.eax' | '80000001.edx' | '80000001.ecx' | '80000007.edx';

/**
 * Why a feature is there: `base` is part of every x86-64 processor here and cannot be off; `system` all models have; the levels are
 * those of the psABI; `extra` only `max` has, until asked for.
 */
type Tier = 'base' | 'system' | 'v2' | 'extra';

interface FeatureDefinition {
  word: FeatureWord;
  bit: number;
  tier: Tier;
  /** Bits of CR4 that are reserved without it. */
  cr4?: bigint;
  needs?: readonly CpuFeature[];
}

const row = (word: FeatureWord, tier: Tier, bits: Record<string, number>): [string, FeatureDefinition][] =>
  Object.entries(bits).map(([name, bit]) => [name, { word, bit, tier }]);

const WITH_MORE: Record<string, Pick<FeatureDefinition, 'cr4' | 'needs'>> = {
  vme: { cr4: Cr4.vme | Cr4.pvi }, de: { cr4: Cr4.de }, pse: { cr4: Cr4.pse }, pge: { cr4: Cr4.pge }, mce: { cr4: Cr4.mce },
  pcid: { cr4: Cr4.pcide }, smep: { cr4: Cr4.smep }, smap: { cr4: Cr4.smap }, umip: { cr4: Cr4.umip }, la57: { cr4: Cr4.la57 }, fsgsbase: { cr4: Cr4.fsgsbase }, xsave: { cr4: Cr4.osxsave },
  ssse3: { needs: ['pni'] }, sse4_1: { needs: ['ssse3'] }, sse4_2: { needs: ['sse4_1'] },
  xsaveopt: { needs: ['xsave'] }, xsavec: { needs: ['xsave'] }, xgetbv1: { needs: ['xsave'] },
}; // biome-ignore format: a table

// biome-ignore format: a table
const FEATURES: ReadonlyMap<CpuFeature, FeatureDefinition> = new Map([
  ...row('1.edx', 'base', {
    fpu: 0, tsc: 4, msr: 5, pae: 6, cx8: 8, apic: 9, sep: 11, mtrr: 12, mca: 14, cmov: 15, pat: 16, pse36: 17, clflush: 19, mmx: 23,
    fxsr: 24, sse: 25, sse2: 26,
  }),
  ...row('1.edx', 'system', { vme: 1, de: 2, pse: 3, mce: 7, pge: 13 }),
  ...row('1.ecx', 'system', { pcid: 17, xsave: 26, rdrand: 30 }),
  ...row('1.ecx', 'v2', { pni: 0, ssse3: 9, cx16: 13, sse4_1: 19, sse4_2: 20, popcnt: 23 }),
  ...row('1.ecx', 'extra', { pclmulqdq: 1, movbe: 22, aes: 25 }),
  ...row('7.ebx', 'system', { fsgsbase: 0, tsc_adjust: 1, smep: 7, erms: 9, invpcid: 10, smap: 20 }),
  ...row('7.ebx', 'extra', { bmi1: 3, bmi2: 8, rdseed: 18, adx: 19, clflushopt: 23, clwb: 24, sha_ni: 29 }),
  ...row('7.ecx', 'extra', { umip: 2, la57: 16, rdpid: 22 }),
  ...row('d.1.eax', 'extra', { xsaveopt: 0, xsavec: 1, xgetbv1: 2 }),
  ...row('80000001.edx', 'base', { syscall: 11, nx: 20, lm: 29 }),
  ...row('80000001.edx', 'system', { pdpe1gb: 26, rdtscp: 27 }),
  ...row('80000001.ecx', 'system', { cr8_legacy: 4 }),
  ...row('80000001.ecx', 'v2', { lahf_lm: 0 }),
  ...row('80000001.ecx', 'extra', { abm: 5 }),
  ...row('80000007.edx', 'base', { constant_tsc: 8 }),
].map(([name, definition]) => [name, { ...definition, ...WITH_MORE[name as string] }] as [CpuFeature, FeatureDefinition]));

/** A feature by Linux's name for it. */
export type CpuFeature = string;
/** Every feature that this processor can have. */
export const CPU_FEATURES: readonly CpuFeature[] = [...FEATURES.keys()];
/** What the machine decides, not its processor model, and by which of its options. */
const DECIDED_ELSEWHERE: Record<string, string> = { x2apic: '--apic', hypervisor: '--kvm', ht: '--smp', cmp_legacy: '--smp' };

/** CR4's bits that no feature stands for. */
const CR4_BASE = Cr4.tsd | Cr4.pae | Cr4.pce | Cr4.osfxsr | Cr4.osxmmexcpt;

/** What a guest sees of its processor. */
export interface CpuModel {
  readonly name: string;
  readonly vendor: string;
  readonly brand: string;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
  readonly features: ReadonlySet<CpuFeature>;
  /** Bits of a physical address, and those of 64 above them: reserved in paging entries, CR3 and IA32_APIC_BASE. */
  readonly physicalAddressBits: number;
  readonly abovePhysical: bigint;
  /** The upper half of those. */
  readonly abovePhysicalHigh: number;
  /** Bits of CR4 that may be set. */
  readonly cr4: bigint;
}

/** What every model has, and PSE-36 can name; machines that have devices above it ask for more (machine/platforms/). */
const PHYSICAL_ADDRESS_BITS = 40;
const physicalAddresses = (bits: number): Pick<CpuModel, 'physicalAddressBits' | 'abovePhysical' | 'abovePhysicalHigh'> => ({
  physicalAddressBits: bits,
  abovePhysical: BigInt.asUintN(64, -1n << BigInt(bits)),
  abovePhysicalHigh: -1 << (bits - 32),
});
/** The model with physical addresses of so many bits, 40 to 52. */
export const withPhysicalAddresses = (model: CpuModel, bits: number): CpuModel => ({ ...model, ...physicalAddresses(bits) });

function makeModel(name: string, features: ReadonlySet<CpuFeature>): CpuModel {
  const cr4 = [...features].reduce((bits, feature) => bits | (FEATURES.get(feature)?.cr4 ?? 0n), CR4_BASE);
  return { name, vendor: 'AuthenticAMD', brand: `Exitless ${name} virtual CPU`, family: 0xf, model: 0x6b, stepping: 1, features, ...physicalAddresses(PHYSICAL_ADDRESS_BITS), cr4 };
}

const withTiers = (...tiers: Tier[]): Set<CpuFeature> => new Set(CPU_FEATURES.filter((name) => tiers.includes(definitionOf(name).tier)));
const definitionOf = (name: CpuFeature): FeatureDefinition => FEATURES.get(name) as FeatureDefinition;

/** The models by name. */
export const CPU_MODELS: ReadonlyMap<string, CpuModel> = new Map(
  [
    makeModel('x86-64-v1', withTiers('base', 'system')),
    makeModel('x86-64-v2', withTiers('base', 'system', 'v2')),
    makeModel('max', new Set(CPU_FEATURES)),
  ].map((model) => [model.name, model]),
);
export const DEFAULT_CPU_MODEL = CPU_MODELS.get('x86-64-v2') as CpuModel;
/** Has everything that exists. */
export const MAX_CPU_MODEL = CPU_MODELS.get('max') as CpuModel;

/** The features that CPUID has in a word, as its bits. */
export function featureBits(model: CpuModel, word: FeatureWord): number {
  let bits = 0;
  for (const name of model.features) {
    const definition = definitionOf(name);
    if (definition.word === word) bits |= 1 << definition.bit;
  }
  return bits >>> 0;
}

const list = (names: Iterable<string>): string => [...names].join(', ');

/** What `name` needs, directly or not, itself included. */
function withNeeds(name: CpuFeature): CpuFeature[] {
  return [name, ...(definitionOf(name).needs ?? []).flatMap(withNeeds)];
}

/**
 * Reads the user's switch: a model, changes to it (`x86-64-v2,+bmi2,-pcid`), or changes alone, to the default model. Switching a feature
 * on brings what it needs, switching one off takes what needs it along; both of the same is refused.
 */
export function parseCpuModel(text: string): { ok: true; value: CpuModel } | { ok: false; error: string } {
  const refuse = (error: string): { ok: false; error: string } => ({ ok: false, error: `--cpu: ${error}` });
  const words = text.split(',').map((word) => word.trim());
  const first = words[0];
  const changes = /^[+-]/.test(first) ? words : words.slice(1);
  const base = changes === words ? DEFAULT_CPU_MODEL : CPU_MODELS.get(first);
  if (!base) return refuse(`unknown model "${first}"; models: ${list(CPU_MODELS.keys())}, then changes like +bmi2,-pcid`);
  const on = new Set<CpuFeature>();
  const off = new Set<CpuFeature>();
  for (const change of changes) {
    const name = change.slice(1);
    if (!/^[+-]/.test(change)) return refuse(`"${change}" in "${text}" has no sign; features are changed by +name and -name`);
    const elsewhere = DECIDED_ELSEWHERE[name];
    if (elsewhere) return refuse(`${name} follows from ${elsewhere}`);
    const definition = FEATURES.get(name);
    if (!definition) return refuse(`unknown feature "${name}"; features: ${list(CPU_FEATURES)}`);
    if (change[0] === '+') for (const needed of withNeeds(name)) on.add(needed);
    else if (definition.tier === 'base') return refuse(`${name} cannot be switched off, every model has it`);
    else for (const other of CPU_FEATURES) if (withNeeds(other).includes(name)) off.add(other);
    const both = [...on].find((feature) => off.has(feature));
    if (both) return refuse(`"${text}" switches ${both} both on and off`);
  }
  if (!changes.length) return { ok: true, value: base };
  const features = new Set(CPU_FEATURES.filter((name) => on.has(name) || (base.features.has(name) && !off.has(name))));
  return { ok: true, value: { ...makeModel(base.name, features), name: text, brand: base.brand } };
}
