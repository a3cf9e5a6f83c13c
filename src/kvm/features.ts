/**
 * KVM's paravirtual features: their names, CPUID leaves 0x40000000 and 0x40000001, and the user's switch for
 * them. Source: Documentation/virt/kvm/x86/cpuid.rst. Not offered: the three asynchronous page fault features
 * (guest RAM is never swapped out here), memory encryption and migration control.
 */

import { type Parsed, parsed, refused } from './parsed.ts';

/** Bit of each feature in EAX of leaf 0x40000001; `realtime` is a hint and lives in EDX. */
const FEATURE_BITS = {
  clocksource: 0,
  'nop-io-delay': 1,
  clocksource2: 3,
  'steal-time': 5,
  'pv-eoi': 6,
  'pv-unhalt': 7,
  'pv-tlb-flush': 9,
  'pv-send-ipi': 11,
  'poll-control': 12,
  'pv-sched-yield': 13,
  'msi-ext-dest-id': 15,
  'clocksource-stable': 24,
} as const;
const HINT_BITS = { realtime: 0 } as const;

export type KvmFeature = keyof typeof FEATURE_BITS | keyof typeof HINT_BITS;

/** Every feature and hint there is, in the order of their bits, hints last. */
export const KVM_FEATURES = [...Object.keys(FEATURE_BITS), ...Object.keys(HINT_BITS)] as readonly KvmFeature[];

/** What a guest gets unless told otherwise: all features, no hint, as a current host without CPU pinning. */
export const DEFAULT_KVM_FEATURES: ReadonlySet<KvmFeature> = new Set(Object.keys(FEATURE_BITS) as KvmFeature[]);

/** What a guest sees of KVM. */
export interface KvmFeatureSet {
  /** False hides KVM altogether: no signature, no MSRs, no hypercalls, and CPUID.1:ECX.31 should be clear, too. */
  readonly present: boolean;
  readonly features: ReadonlySet<KvmFeature>;
}

export const KVM_ON: KvmFeatureSet = { present: true, features: DEFAULT_KVM_FEATURES };
export const KVM_OFF: KvmFeatureSet = { present: false, features: new Set() };

export function hasFeature(kvm: KvmFeatureSet, feature: KvmFeature): boolean {
  return kvm.present && kvm.features.has(feature);
}

const VALID = `on, off, none, or features: ${KVM_FEATURES.join(', ')}`;

/**
 * Reads the user's switch: `on`, `off`, `none` (KVM's signature without a feature), an absolute list
 * (`pv-eoi,steal-time`), or changes to the default (`+realtime,-steal-time`). A change may follow `on` or `none`
 * (`none,+pv-eoi`); a list that mixes bare names with changes is refused, as its meaning would be a guess.
 */
export function parseKvmFeatures(text: string): Parsed<KvmFeatureSet> {
  const words = text.split(',').map((word) => word.trim());
  if (words.some((word) => word === '')) return refused(`--kvm: empty feature name in "${text}"; valid: ${VALID}`);
  const base = words[0];
  if (base === 'off') return words.length === 1 ? parsed(KVM_OFF) : refused(`--kvm: nothing can follow "off" in "${text}"`);
  const hasBase = base === 'on' || base === 'none';
  const rest = hasBase ? words.slice(1) : words;
  const isChange = (word: string) => word.startsWith('+') || word.startsWith('-');
  for (const word of rest) {
    const name = isChange(word) ? word.slice(1) : word;
    if (!(KVM_FEATURES as readonly string[]).includes(name)) return refused(`--kvm: unknown feature "${name}"; valid: ${VALID}`);
  }
  const changes = rest.filter(isChange);
  if (changes.length !== rest.length && (changes.length > 0 || hasBase)) {
    return refused(`--kvm: "${text}" mixes a list of features with changes (+name, -name); give one or the other`);
  }
  const isAbsolute = rest.length > 0 && changes.length === 0;
  const features = new Set<KvmFeature>(isAbsolute || base === 'none' ? [] : DEFAULT_KVM_FEATURES);
  for (const word of rest) {
    const name = (isChange(word) ? word.slice(1) : word) as KvmFeature;
    if (word.startsWith('-')) features.delete(name);
    else features.add(name);
  }
  return parsed({ present: true, features });
}

/** The four registers CPUID returns, unsigned. */
export interface CpuidLeaf {
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}

export const KVM_CPUID_SIGNATURE = 0x4000_0000;
export const KVM_CPUID_FEATURES = 0x4000_0001;

const fourBytes = (text: string) => [...text.padEnd(4, '\0')].reduceRight((word, char) => word * 256 + char.charCodeAt(0), 0);

/** A leaf of the hypervisor's range, or undefined where the CPU answers as if there were no hypervisor. */
export function kvmCpuid(kvm: KvmFeatureSet, leaf: number): CpuidLeaf | undefined {
  if (!kvm.present) return undefined;
  if (leaf === KVM_CPUID_SIGNATURE) {
    return { eax: KVM_CPUID_FEATURES, ebx: fourBytes('KVMK'), ecx: fourBytes('VMKV'), edx: fourBytes('M') };
  }
  if (leaf !== KVM_CPUID_FEATURES) return undefined;
  const word = (bits: Record<string, number>) =>
    Object.entries(bits).reduce((sum, [name, bit]) => (kvm.features.has(name as KvmFeature) ? sum + 2 ** bit : sum), 0);
  return { eax: word(FEATURE_BITS), ebx: 0, ecx: 0, edx: word(HINT_BITS) };
}
