import { describe, expect, it } from 'vitest';
import {
  DEFAULT_KVM_FEATURES,
  hasFeature,
  KVM_FEATURES,
  KVM_OFF,
  KVM_ON,
  type KvmFeature,
  type KvmFeatureSet,
  kvmCpuid,
  parseKvmFeatures,
} from './features.ts';

const names = (text: string) => {
  const result = parseKvmFeatures(text);
  if (!result.ok) throw new Error(result.error);
  return [...result.value.features].sort();
};
const error = (text: string) => {
  const result = parseKvmFeatures(text);
  return result.ok ? undefined : result.error;
};
const only = (...features: KvmFeature[]): KvmFeatureSet => ({ present: true, features: new Set(features) });

describe('the --kvm switch', () => {
  it('on is the default set: everything but hints', () => {
    expect(names('on')).toEqual(KVM_FEATURES.filter((name) => name !== 'realtime').sort());
  });

  it('off hides KVM altogether', () => {
    expect(parseKvmFeatures('off')).toEqual({ ok: true, value: KVM_OFF });
  });

  it('none keeps the signature and no feature', () => {
    expect(parseKvmFeatures('none')).toEqual({ ok: true, value: only() });
  });

  it('changes start from the default', () => {
    expect(names('+pv-eoi,-steal-time')).toEqual([...DEFAULT_KVM_FEATURES].filter((name) => name !== 'steal-time').sort());
    expect(names('+realtime')).toContain('realtime');
    expect(names('on,-pv-eoi')).not.toContain('pv-eoi');
  });

  it('the last change of a name wins', () => {
    expect(names('-pv-eoi,+pv-eoi')).toContain('pv-eoi');
    expect(names('+pv-eoi,-pv-eoi')).not.toContain('pv-eoi');
  });

  it('a plain list is absolute', () => {
    expect(names('pv-eoi, clocksource2')).toEqual(['clocksource2', 'pv-eoi']);
    expect(names('none,+pv-eoi')).toEqual(['pv-eoi']);
  });

  it('an unknown name is refused and the valid ones are listed', () => {
    expect(error('+pv-eio')).toContain('unknown feature "pv-eio"');
    for (const name of KVM_FEATURES) expect(error('bogus')).toContain(name);
  });

  it('asynchronous page faults are not offered', () => {
    expect(error('async-pf')).toContain('unknown feature');
  });

  it.each(['', 'pv-eoi,', ',', 'off,+pv-eoi', 'pv-eoi,-steal-time', 'on,pv-eoi', '+on', '+'])(
    'refuses %j in one line',
    (text) => {
      expect(error(text)).toMatch(/^--kvm: [^\n]+$/);
    },
  );
});

describe('CPUID', () => {
  it('leaf 0x40000000 carries the signature KVMKVMKVM and the highest leaf', () => {
    const leaf = kvmCpuid(KVM_ON, 0x4000_0000);
    const bytes = new Uint8Array(new Uint32Array([leaf?.ebx ?? 0, leaf?.ecx ?? 0, leaf?.edx ?? 0]).buffer);
    expect(String.fromCharCode(...bytes)).toBe('KVMKVMKVM\0\0\0');
    expect(leaf?.eax).toBe(0x4000_0001);
  });

  it('the default features are a live host’s 0x01007efb, less async page faults, plus extended MSI destinations', () => {
    const asyncPageFaults = (1 << 4) | (1 << 10) | (1 << 14);
    expect(kvmCpuid(KVM_ON, 0x4000_0001)).toEqual({ eax: (0x0100_7efb & ~asyncPageFaults) | (1 << 15), ebx: 0, ecx: 0, edx: 0 });
  });

  it('PV EOI is bit 6 of EAX and nothing else', () => {
    expect(kvmCpuid(only('pv-eoi'), 0x4000_0001)).toEqual({ eax: 1 << 6, ebx: 0, ecx: 0, edx: 0 });
  });

  it('the realtime hint is bit 0 of EDX', () => {
    expect(kvmCpuid(only('realtime'), 0x4000_0001)).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 1 });
  });

  it('other leaves, and all leaves of a hidden KVM, are not ours', () => {
    expect(kvmCpuid(KVM_ON, 0x4000_0002)).toBeUndefined();
    expect(kvmCpuid(KVM_ON, 1)).toBeUndefined();
    expect(kvmCpuid(KVM_OFF, 0x4000_0000)).toBeUndefined();
    expect(hasFeature({ present: false, features: DEFAULT_KVM_FEATURES }, 'pv-eoi')).toBe(false);
  });
});
