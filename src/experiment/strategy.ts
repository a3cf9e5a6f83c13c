/**
 * What is compared: ways of ending an interrupt, each a choice of the local APIC's interface and of KVM's features. A strategy
 * changes nothing else of the machine.
 */

import { hasFeature, type KvmFeature, type KvmFeatureSet } from '../kvm/features.ts';
import { type Parsed, parsed, refused } from '../kvm/parsed.ts';

export interface Strategy {
  name: string;
  /** One line for reports and help. */
  description: string;
  apic: 'xapic' | 'x2apic';
  pvEoi: boolean;
}

export const STRATEGIES: readonly Strategy[] = [
  { name: 'xapic', description: 'EOI by a write to the APIC page, no PV EOI', apic: 'xapic', pvEoi: false },
  { name: 'x2apic', description: 'EOI by WRMSR, no PV EOI', apic: 'x2apic', pvEoi: false },
  { name: 'xapic+pv-eoi', description: 'EOI by the shared word, else by the APIC page', apic: 'xapic', pvEoi: true },
  { name: 'pv-eoi', description: 'EOI by the shared word, else by WRMSR', apic: 'x2apic', pvEoi: true },
];

export const DEFAULT_STRATEGIES = 'xapic,x2apic,pv-eoi';

/** Reads `xapic,x2apic,pv-eoi`; the error names the valid ones. */
export function parseStrategies(text: string): Parsed<Strategy[]> {
  const names = text.split(',').map((name) => name.trim());
  const strategies: Strategy[] = [];
  for (const name of names) {
    const strategy = STRATEGIES.find((candidate) => candidate.name === name);
    if (!strategy) return refused(`unknown strategy "${name}"; valid: ${STRATEGIES.map((valid) => valid.name).join(', ')}`);
    if (strategies.includes(strategy)) return refused(`strategy "${name}" is named twice`);
    strategies.push(strategy);
  }
  return parsed(strategies);
}

/** KVM's features with PV EOI as the strategy wants it. Undefined where KVM is hidden and the strategy needs it. */
export function featuresFor(strategy: Strategy, base: KvmFeatureSet): KvmFeatureSet | undefined {
  if (hasFeature(base, 'pv-eoi') === strategy.pvEoi) return base;
  if (!base.present) return undefined;
  const features = new Set<KvmFeature>(base.features);
  if (strategy.pvEoi) features.add('pv-eoi');
  else features.delete('pv-eoi');
  return { present: true, features };
}
