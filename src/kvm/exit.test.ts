import { describe, expect, it } from 'vitest';
import {
  apicAccessExits,
  controlRegisterReadExits,
  controlRegisterWriteExits,
  cr8WriteExits,
  EXIT_REASONS,
  Exit,
  type ExitIsa,
  exitDetail,
  HARDWARE_EXITS,
  hardwareExit,
  hardwareExitName,
  isKernelMmio,
  isKernelPort,
  msrExits,
  timerExit,
} from './exit.ts';

const describeExit = (isa: ExitIsa, reason: number, detail = 0, guestPhysical = 0) => {
  const { code, info1, info2 } = hardwareExit(isa, reason, detail, guestPhysical);
  return `${hardwareExitName(isa, code)} ${info1.toString(16)} ${info2.toString(16)}`;
};

describe('exit reasons', () => {
  it('have an index each, under their name in camel case', () => {
    expect(Exit.externalInterrupt).toBe(0);
    expect(EXIT_REASONS[Exit.msrWrite]).toBe('msr-write');
    expect(EXIT_REASONS[Exit.cr8Write]).toBe('cr8-write');
    expect(Object.values(Exit).sort((a, b) => a - b)).toEqual(EXIT_REASONS.map((_, index) => index));
  });

  it('exist on both VMX and SVM, but for the preemption timer', () => {
    const missing = EXIT_REASONS.filter((reason) => !HARDWARE_EXITS[reason].vmx || !HARDWARE_EXITS[reason].svm);
    expect(missing).toEqual(['preemption-timer']);
    expect(() => hardwareExit('svm', Exit.preemptionTimer, 0, 0)).toThrow(/svm/);
    expect([timerExit('vmx'), timerExit('svm')]).toEqual([Exit.preemptionTimer, Exit.externalInterrupt]);
  });

  it.each(['vmx', 'svm'] as const)('%s: the name found by code is the name in the table', (isa) => {
    for (const reason of EXIT_REASONS) {
      const entry = HARDWARE_EXITS[reason][isa];
      if (entry && reason !== 'exception') expect(hardwareExitName(isa, entry.code)).toBe(entry.name);
    }
    expect(hardwareExitName(isa, 0x3ff)).toBeUndefined();
  });
});

describe('what kvm_exit says', () => {
  it.each([
    ['outb to 0x80', exitDetail.io(0x80, 1, false), '800000', '800010'],
    ['inl from 0xcfc', exitDetail.io(0xcfc, 4, true), 'cfc000b', 'cfc0041'],
    ['rep outsw to 0xf1f0', exitDetail.io(0xf1f0, 2, false, true, true), 'f1f00031', 'f1f0002c'],
  ])('%s', (_, detail, vmx, svm) => {
    expect(describeExit('vmx', Exit.io, detail)).toBe(`IO_INSTRUCTION ${vmx} 0`);
    expect(describeExit('svm', Exit.io, detail)).toBe(`io ${svm} 0`);
  });

  it('MMIO is an EPT misconfiguration on VMX, on SVM a nested page fault that gives the address', () => {
    expect(describeExit('vmx', Exit.mmio, exitDetail.memory(true), 0xfec0_0000)).toBe('EPT_MISCONFIG 0 0');
    expect(describeExit('svm', Exit.mmio, exitDetail.memory(true), 0xfec0_0000)).toBe('npf 10000000f fec00000');
    expect(describeExit('svm', Exit.mmio, exitDetail.memory(false), 0xfed0_00f0)).toBe('npf 10000000d fed000f0');
  });

  it('an xAPIC EOI is an APIC access on VMX, a nested page fault on SVM', () => {
    const detail = exitDetail.apic(0xb0, true);
    expect(describeExit('vmx', Exit.apicAccess, detail, 0xfee0_00b0)).toBe('APIC_ACCESS 10b0 0');
    expect(describeExit('svm', Exit.apicAccess, detail, 0xfee0_00b0)).toBe('npf 10000000f fee000b0');
  });

  it('SVM tells RDMSR from WRMSR by EXITINFO1', () => {
    expect([describeExit('svm', Exit.msrRead), describeExit('svm', Exit.msrWrite)]).toEqual(['msr 0 0', 'msr 1 0']);
    expect([describeExit('vmx', Exit.msrRead), describeExit('vmx', Exit.msrWrite)]).toEqual(['MSR_READ 0 0', 'MSR_WRITE 0 0']);
  });

  it('SVM has a code for each control and debug register and direction', () => {
    expect(describeExit('svm', Exit.crAccess, exitDetail.controlRegister(4, false, 2))).toBe('write_cr4 8000000000000002 0');
    expect(describeExit('svm', Exit.crAccess, exitDetail.controlRegister(4, true))).toBe('read_cr4 8000000000000000 0');
    expect(describeExit('svm', Exit.crAccess, exitDetail.controlRegister(0, false))).toBe('cr0_sel_write 8000000000000000 0');
    expect(describeExit('svm', Exit.cr8Write)).toBe('write_cr8 0 0');
    expect(describeExit('svm', Exit.drAccess, exitDetail.debugRegister(7, false))).toBe('write_dr7 0 0');
    expect(describeExit('svm', Exit.drAccess, exitDetail.debugRegister(6, true))).toBe('read_dr6 0 0');
    expect(describeExit('vmx', Exit.crAccess, exitDetail.controlRegister(4, false, 2))).toBe('CR_ACCESS 204 0');
  });

  it('exceptions carry their vector', () => {
    expect(describeExit('svm', Exit.exception, 6)).toBe('UD excp 0 0');
    expect(describeExit('svm', Exit.exception, 17)).toBe('AC excp 0 0');
    expect(hardwareExit('vmx', Exit.exception, 6, 0)).toEqual({ code: 0, info1: 0n, info2: 0n, intrInfo: 0x8000_0306 });
  });
});

describe('what exits', () => {
  const LSTAR = 0xc000_0082;
  const TSC = 0x10;
  it('MSRs that the CPU switches itself do not, the EOI register does', () => {
    for (const isa of ['vmx', 'svm'] as const) {
      for (const msr of [0xc000_0100, 0xc000_0101, 0xc000_0102, 0x174, 0x175, 0x176])
        expect(msrExits(isa, msr, true)).toBe(false);
      for (const msr of [0x80b, 0x830, 0x6e0, 0x1b, 0xc000_0080, 0x4b56_4d04]) expect(msrExits(isa, msr, true)).toBe(true);
    }
  });

  it('VMX and SVM differ in the system call MSRs, the TSC and the x2APIC TPR', () => {
    expect([msrExits('vmx', LSTAR, true), msrExits('svm', LSTAR, true)]).toEqual([true, false]);
    expect([msrExits('vmx', TSC, false), msrExits('svm', TSC, false)]).toEqual([false, true]);
    expect([msrExits('vmx', TSC, true), msrExits('svm', TSC, true)]).toEqual([true, true]);
    expect([msrExits('vmx', 0x808, true), msrExits('svm', 0x808, true)]).toEqual([false, true]);
  });

  it('of the APIC page, VMX keeps the TPR alone', () => {
    expect([0x80, 0x83, 0xb0, 0x90].map((offset) => apicAccessExits('vmx', offset))).toEqual([false, false, true, true]);
    expect(apicAccessExits('svm', 0x80)).toBe(true);
  });

  it.each([
    // old, new, pending class; VMX, SVM
    [0, 5, -1, false, false],
    [5, 0, 3, true, true],
    [5, 4, 3, false, true],
    [5, 3, 3, false, true],
    [2, 0, 3, false, false],
  ])('CR8 from %i to %i with %i pending: VMX %s, SVM %s', (oldClass, newClass, pending, vmx, svm) => {
    expect([cr8WriteExits('vmx', oldClass, newClass, pending), cr8WriteExits('svm', oldClass, newClass, pending)]).toEqual([
      vmx,
      svm,
    ]);
  });

  it('CR0: TS is the guest’s everywhere, MP on SVM', () => {
    const [TS, MP, WP] = [8n, 2n, 0x1_0000n];
    expect([TS, MP, WP, 0n].map((bit) => controlRegisterWriteExits('svm', 0, bit))).toEqual([false, false, true, false]);
    expect([TS, MP, WP, 0n].map((bit) => controlRegisterWriteExits('vmx', 0, bit))).toEqual([false, true, true, false]);
  });

  it('CR4: flushing the TLB by PGE exits on SVM only, SMEP on both; reads exit on SVM', () => {
    const [PGE, SMEP] = [0x80n, 0x10_0000n];
    expect([PGE, SMEP].map((bit) => controlRegisterWriteExits('svm', 4, bit))).toEqual([true, true]);
    expect([PGE, SMEP].map((bit) => controlRegisterWriteExits('vmx', 4, bit))).toEqual([false, true]);
    expect([controlRegisterReadExits('svm', 4), controlRegisterReadExits('vmx', 4), controlRegisterReadExits('svm', 0)]).toEqual([
      true,
      false,
      false,
    ]);
  });

  it('CR3 never', () => {
    for (const isa of ['vmx', 'svm'] as const) expect(controlRegisterWriteExits(isa, 3, ~0n)).toBe(false);
  });

  it('KVM serves PICs, ELCR and PIT itself, and of memory the I/O APIC', () => {
    const ports = Array.from({ length: 0x1_0000 }, (_, port) => port).filter(isKernelPort);
    expect(ports).toEqual([0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0x61, 0xa0, 0xa1, 0x4d0, 0x4d1]);
    expect([0xfec0_0000, 0xfec0_00ff, 0xfec0_0100, 0xfed0_0000].map(isKernelMmio)).toEqual([true, true, false, false]);
  });
});
