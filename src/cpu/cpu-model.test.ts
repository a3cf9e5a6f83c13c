import { describe, expect, it } from 'vitest';
import '../isa/all.ts';
import { Decoder } from '../isa/decoder.ts';
import { instructions } from '../isa/instruction.ts';
import { CPU_FEATURES, CPU_MODELS, type CpuModel, DEFAULT_CPU_MODEL, featureBits, MAX_CPU_MODEL, parseCpuModel } from './cpu-model.ts';
import { Cr4 } from './vcpu.ts';

function model(text: string): CpuModel {
  const result = parseCpuModel(text);
  if (!result.ok) throw new Error(result.error);
  return result.value;
}
const errorOf = (text: string): string => {
  const result = parseCpuModel(text);
  return result.ok ? 'none' : result.error;
};
const mnemonicOf = (of: CpuModel, ...bytes: number[]): string => {
  const decoder = new Decoder((feature) => of.features.has(feature));
  return decoder.decode(Uint8Array.from(bytes), 0, bytes.length, 64) === 'ok' ? decoder.result.form.instruction.mnemonic : '#UD';
};

describe('models', () => {
  it('advertise by default what they always did', () => {
    expect(DEFAULT_CPU_MODEL.name).toBe('x86-64-v2');
    expect(featureBits(DEFAULT_CPU_MODEL, '1.edx').toString(16)).toBe('78bfbff');
    expect(featureBits(DEFAULT_CPU_MODEL, '1.ecx').toString(16)).toBe('449a2201');
    expect(featureBits(DEFAULT_CPU_MODEL, '7.ebx').toString(16)).toBe('100683');
    expect(featureBits(DEFAULT_CPU_MODEL, '80000001.edx').toString(16)).toBe('2c100800');
    expect(featureBits(DEFAULT_CPU_MODEL, '80000001.ecx').toString(16)).toBe('11');
  });
  it('of the first level lack what the second adds', () => {
    const lacking = [...DEFAULT_CPU_MODEL.features].filter((name) => !CPU_MODELS.get('x86-64-v1')?.features.has(name));
    expect(lacking.sort()).toEqual(['cx16', 'lahf_lm', 'pni', 'popcnt', 'sse4_1', 'sse4_2', 'ssse3']);
  });
  it('know every feature that an instruction needs', () => {
    const unknown = instructions.filter(({ feature }) => feature && !CPU_FEATURES.includes(feature)).map(({ mnemonic }) => mnemonic);
    expect(unknown).toEqual([]);
  });
  it('have two features at no bit', () => {
    for (const word of ['1.edx', '1.ecx', '7.ebx', '7.ecx', 'd.1.eax', '80000001.edx', '80000001.ecx'] as const) {
      const bits = CPU_FEATURES.map((name) => featureBits({ ...MAX_CPU_MODEL, features: new Set([name]) }, word)).filter((bit) => bit !== 0);
      expect(new Set(bits).size).toBe(bits.length);
    }
  });
});

describe('--cpu', () => {
  it('takes a model, changes to it, and changes to the default', () => {
    expect(model('max')).toBe(MAX_CPU_MODEL);
    const changed = model('x86-64-v2,+bmi2,-pcid');
    expect([changed.features.has('bmi2'), changed.features.has('pcid'), changed.features.has('smep')]).toEqual([true, false, true]);
    expect(model('+aes').features.size).toBe(DEFAULT_CPU_MODEL.features.size + 1);
    expect(changed.name).toBe('x86-64-v2,+bmi2,-pcid');
  });
  it('brings what a feature needs, and takes along what needs it', () => {
    expect(['pni', 'ssse3', 'sse4_1'].every((name) => model('x86-64-v1,+sse4_1').features.has(name))).toBe(true);
    expect(['sse4_1', 'sse4_2', 'ssse3'].some((name) => model('-ssse3').features.has(name))).toBe(false);
  });
  it('says in one line what is wrong', () => {
    expect(errorOf('skylake')).toBe('--cpu: unknown model "skylake"; models: x86-64-v1, x86-64-v2, max, then changes like +bmi2,-pcid');
    expect(errorOf('max,+sse5')).toMatch(/^--cpu: unknown feature "sse5"; features: fpu, tsc, .*bmi2/);
    expect(errorOf('max,bmi2')).toBe('--cpu: "bmi2" in "max,bmi2" has no sign; features are changed by +name and -name');
    expect(errorOf('max,-sse2')).toBe('--cpu: sse2 cannot be switched off, every model has it');
    expect(errorOf('-x2apic')).toBe('--cpu: x2apic follows from --apic');
    expect(errorOf('+sse4_2,-ssse3')).toBe('--cpu: "+sse4_2,-ssse3" switches sse4_2 both on and off');
    expect(errorOf('')).toMatch(/^--cpu: unknown model ""/);
    expect(errorOf('max,')).toMatch(/has no sign/);
  });
});

describe('a feature that is off', () => {
  it('leaves its instructions undefined, or what they were before it', () => {
    expect(mnemonicOf(MAX_CPU_MODEL, 0xf3, 0x0f, 0xbc, 0xc3)).toBe('TZCNT');
    expect(mnemonicOf(DEFAULT_CPU_MODEL, 0xf3, 0x0f, 0xbc, 0xc3)).toBe('BSF');
    expect(mnemonicOf(model('+abm'), 0xf3, 0x0f, 0xbd, 0xc3)).toBe('LZCNT');
    expect(mnemonicOf(DEFAULT_CPU_MODEL, 0xf3, 0x0f, 0xbd, 0xc3)).toBe('BSR');
    expect(mnemonicOf(MAX_CPU_MODEL, 0xc4, 0xe2, 0x60, 0xf2, 0xc1)).toBe('ANDN');
    expect(mnemonicOf(DEFAULT_CPU_MODEL, 0xc4, 0xe2, 0x60, 0xf2, 0xc1)).toBe('#UD');
    expect(mnemonicOf(model('-sse4_2'), 0xf2, 0x0f, 0x38, 0xf1, 0xc3)).toBe('#UD');
    expect(mnemonicOf(model('x86-64-v1'), 0x9f)).toBe('#UD');
    expect(mnemonicOf(model('-popcnt'), 0xf3, 0x0f, 0xb8, 0xc3)).toBe('#UD');
  });
  it('leaves its bits of CR4 reserved', () => {
    expect(DEFAULT_CPU_MODEL.cr4 & Cr4.pcide).toBe(Cr4.pcide);
    expect(model('-pcid').cr4 & Cr4.pcide).toBe(0n);
    expect(model('-xsave').cr4 & Cr4.osxsave).toBe(0n);
    expect(model('-xsave').features.has('xsaveopt')).toBe(false);
  });
});
