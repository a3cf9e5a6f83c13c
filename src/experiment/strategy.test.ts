import { describe, expect, it } from 'vitest';
import { hasFeature, KVM_OFF, KVM_ON } from '../kvm/features.ts';
import { DEFAULT_STRATEGIES, featuresFor, parseStrategies, STRATEGIES } from './strategy.ts';

describe('strategies', () => {
  it('are read in the order given', () => {
    expect(parseStrategies('pv-eoi, xapic')).toMatchObject({ ok: true, value: [{ name: 'pv-eoi' }, { name: 'xapic' }] });
    expect(parseStrategies(DEFAULT_STRATEGIES)).toMatchObject({ ok: true, value: { length: 3 } });
  });

  it('are refused with the valid names', () => {
    expect(parseStrategies('xapic,eoi')).toEqual({
      ok: false,
      error: 'unknown strategy "eoi"; valid: xapic, x2apic, xapic+pv-eoi, pv-eoi',
    });
  });

  it.each(STRATEGIES)('$name changes PV EOI alone of KVM’s features', (strategy) => {
    const features = featuresFor(strategy, KVM_ON);
    if (!features) throw new Error('no features');
    expect(hasFeature(features, 'pv-eoi')).toBe(strategy.pvEoi);
    const rest = (set: ReadonlySet<string>) => [...set].filter((name) => name !== 'pv-eoi');
    expect(rest(features.features)).toEqual(rest(KVM_ON.features));
  });

  it('without KVM cannot have PV EOI, but anything else', () => {
    expect(STRATEGIES.map((strategy) => featuresFor(strategy, KVM_OFF))).toEqual([KVM_OFF, KVM_OFF, undefined, undefined]);
  });
});
