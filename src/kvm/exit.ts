/**
 * Exits: what would leave guest mode on a KVM host with hardware paging (EPT, NPT), an in-kernel interrupt
 * controller and no APICv or AVIC. Names and numbers: SDM 3D appendix C, APM 2 appendix C, Linux's
 * arch/x86/include/uapi/asm/vmx.h and svm.h. What exits follows arch/x86/kvm/vmx/vmx.c and svm/svm.c of Linux 6.1.
 *
 * | operation of the guest                                   | VMX                         | SVM                      |
 * |----------------------------------------------------------|-----------------------------|--------------------------|
 * | CPUID, HLT, IN/OUT, VMCALL/VMMCALL, INVD, WBINVD, XSETBV | exits                       | exits                    |
 * | RDPMC, MONITOR, MWAIT, task switch                       | exits                       | exits                    |
 * | RDMSR, WRMSR                                             | `msrExits`                  | `msrExits`               |
 * | MMIO, I/O APIC                                           | EPT misconfiguration        | nested page fault        |
 * | local APIC page (xAPIC)                                  | APIC access; TPR does not   | nested page fault        |
 * | MOV to CR8                                               | if it unmasks what waits    | while something waits    |
 * | MOV to CR0, CR4                                          | if it changes the host's    | CR0: so; CR4: exits      |
 * | MOV from CR4                                             | does not exit               | exits                    |
 * | MOV to/from DR                                           | the first after an exit     | the first after an exit  |
 * | #UD, #AC, #MC; on SVM also #DB                           | exits, and is given back    | the same                 |
 * | PAUSE in a loop of 4096 cycles (VMX), 3000 times (SVM)   | exits                       | exits                    |
 * | interrupt for this vCPU while it runs                    | external interrupt (a kick) | the same                 |
 * | its own APIC timer expires while it runs                 | preemption timer            | external interrupt       |
 * | interrupt waits and IF or the shadow forbids it          | interrupt window            | virtual interrupt        |
 * | NMI waits for the end of another                         | NMI window                  | IRET                     |
 * | shutdown (triple fault)                                  | exits, the last one         | the same                 |
 * | MOV CR3, INVLPG, INVPCID, RDTSC(P), SYSCALL, page faults | does not exit               | does not exit            |
 *
 * Not modelled: EPT violations and nested page faults that populate guest RAM (it is all there), host interrupts
 * that are not for the guest, and the host's own timer tick.
 */

/** Reasons in the order of their index. Counters are typed arrays by that index. */
export const EXIT_REASONS = [
  'external-interrupt',
  'interrupt-window',
  'nmi-window',
  'preemption-timer',
  'hlt',
  'io',
  'mmio',
  'apic-access',
  'msr-read',
  'msr-write',
  'cpuid',
  'hypercall',
  'cr-access',
  'cr8-write',
  'dr-access',
  'exception',
  'pause',
  'rdpmc',
  'monitor',
  'mwait',
  'wbinvd',
  'invd',
  'xsetbv',
  'task-switch',
  'triple-fault',
] as const;
export type ExitReason = (typeof EXIT_REASONS)[number];

type CamelCase<Name extends string> = Name extends `${infer Head}-${infer Tail}` ? `${Head}${Capitalize<CamelCase<Tail>>}` : Name;
const camelCase = (name: string) => name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());

/** The index of each reason, by its name in camel case: `Exit.msrWrite`. */
export const Exit = Object.fromEntries(EXIT_REASONS.map((name, index) => [camelCase(name), index])) as {
  readonly [Name in ExitReason as CamelCase<Name>]: number;
};

/** Whose virtualisation extensions the exits are named after. */
export type ExitIsa = 'vmx' | 'svm';

/** Number and name of a reason as the kernel's kvm_exit event has them. */
interface HardwareExit {
  code: number;
  name: string;
}
const exit = (code: number, name: string): HardwareExit => ({ code, name });

/** By reason; undefined where the extension has no such exit. Names as in VMX_EXIT_REASONS and SVM_EXIT_REASONS. */
export const HARDWARE_EXITS: Record<ExitReason, Record<ExitIsa, HardwareExit | undefined>> = {
  'external-interrupt': { vmx: exit(1, 'EXTERNAL_INTERRUPT'), svm: exit(0x60, 'interrupt') },
  'interrupt-window': { vmx: exit(7, 'INTERRUPT_WINDOW'), svm: exit(0x64, 'vintr') },
  'nmi-window': { vmx: exit(8, 'NMI_WINDOW'), svm: exit(0x74, 'iret') },
  'preemption-timer': { vmx: exit(52, 'PREEMPTION_TIMER'), svm: undefined },
  hlt: { vmx: exit(12, 'HLT'), svm: exit(0x78, 'hlt') },
  io: { vmx: exit(30, 'IO_INSTRUCTION'), svm: exit(0x7b, 'io') },
  mmio: { vmx: exit(49, 'EPT_MISCONFIG'), svm: exit(0x400, 'npf') },
  'apic-access': { vmx: exit(44, 'APIC_ACCESS'), svm: exit(0x400, 'npf') },
  'msr-read': { vmx: exit(31, 'MSR_READ'), svm: exit(0x7c, 'msr') },
  'msr-write': { vmx: exit(32, 'MSR_WRITE'), svm: exit(0x7c, 'msr') },
  cpuid: { vmx: exit(10, 'CPUID'), svm: exit(0x72, 'cpuid') },
  hypercall: { vmx: exit(18, 'VMCALL'), svm: exit(0x81, 'hypercall') },
  'cr-access': { vmx: exit(28, 'CR_ACCESS'), svm: exit(0x10, 'write_cr0') },
  'cr8-write': { vmx: exit(43, 'TPR_BELOW_THRESHOLD'), svm: exit(0x18, 'write_cr8') },
  'dr-access': { vmx: exit(29, 'DR_ACCESS'), svm: exit(0x20, 'read_dr0') },
  exception: { vmx: exit(0, 'EXCEPTION_NMI'), svm: exit(0x40, 'excp_base') },
  pause: { vmx: exit(40, 'PAUSE_INSTRUCTION'), svm: exit(0x77, 'pause') },
  rdpmc: { vmx: exit(15, 'RDPMC'), svm: exit(0x6f, 'rdpmc') },
  monitor: { vmx: exit(39, 'MONITOR_INSTRUCTION'), svm: exit(0x8a, 'monitor') },
  mwait: { vmx: exit(36, 'MWAIT_INSTRUCTION'), svm: exit(0x8b, 'mwait') },
  wbinvd: { vmx: exit(54, 'WBINVD'), svm: exit(0x89, 'wbinvd') },
  invd: { vmx: exit(13, 'INVD'), svm: exit(0x76, 'invd') },
  xsetbv: { vmx: exit(55, 'XSETBV'), svm: exit(0x8d, 'xsetbv') },
  'task-switch': { vmx: exit(9, 'TASK_SWITCH'), svm: exit(0x7d, 'task_switch') },
  'triple-fault': { vmx: exit(2, 'TRIPLE_FAULT'), svm: exit(0x7f, 'shutdown') },
};

const EXCEPTION_NAMES: Record<number, string> = { 1: 'DB', 6: 'UD', 17: 'AC', 18: 'MC' };

/** The name kvm_exit prints for a hardware reason, or undefined if none of ours has that number. */
export function hardwareExitName(isa: ExitIsa, code: number): string | undefined {
  if (isa === 'svm') {
    if (code < 0x20) return `${code < 0x10 ? 'read' : 'write'}_cr${code & 0xf}`;
    if (code < 0x40) return `${code < 0x30 ? 'read' : 'write'}_dr${code & 0xf}`;
    if (code < 0x60) return EXCEPTION_NAMES[code - 0x40] && `${EXCEPTION_NAMES[code - 0x40]} excp`;
    if (code === CR0_SELECTIVE_WRITE) return 'cr0_sel_write';
  }
  return Object.values(HARDWARE_EXITS).find((names) => names[isa]?.code === code)?.[isa]?.name;
}

/**
 * What an exit is about, in one number, as VMX's exit qualification has it (SDM 3C 28.2.1); SVM's codes and
 * EXITINFO1 are derived from it. Reasons not listed here take 0; `exception` takes the vector.
 */
export const exitDetail = {
  io: (port: number, bytes: 1 | 2 | 4, isRead: boolean, isString = false, isRepeated = false): number =>
    port * 0x1_0000 + (bytes - 1) + (isRead ? 8 : 0) + (isString ? 16 : 0) + (isRepeated ? 32 : 0),
  /** For `mmio`. */
  memory: (isWrite: boolean): number => (isWrite ? 1 : 0),
  apic: (offset: number, isWrite: boolean): number => (offset & 0xfff) | (isWrite ? 0x1000 : 0),
  /** For `cr-access`: `gpr` is the other operand's register. */
  controlRegister: (register: number, isRead: boolean, gpr = 0): number => register | (isRead ? 0x10 : 0) | (gpr << 8),
  debugRegister: (register: number, isRead: boolean, gpr = 0): number => register | (isRead ? 0x10 : 0) | (gpr << 8),
} as const;

/** What the kernel's kvm_exit event says of an exit. */
export interface HardwareExitInformation {
  code: number;
  info1: bigint;
  info2: bigint;
  /** VMX's interruption information: what event made the exit. */
  intrInfo: number;
}

const CR0_SELECTIVE_WRITE = 0x65;
/** Nested page fault on MMIO: a present entry with reserved bits set, accessed as user (all guest accesses are). */
const NPF_MMIO = 0x1_0000_000dn;
const NPF_WRITE = 2n;
const SVM_DECODED = 1n << 63n;
const HARDWARE_EXCEPTION = 0x8000_0300;

/**
 * Code and information words of an exit, from `exitDetail` and the guest-physical address of `mmio` and
 * `apic-access`. SVM's EXITINFO2 of an IN or OUT is the RIP after it, which is not known here: 0.
 */
export function hardwareExit(isa: ExitIsa, reason: number, detail: number, guestPhysical: number): HardwareExitInformation {
  const name = EXIT_REASONS[reason];
  const entry = HARDWARE_EXITS[name][isa];
  if (!entry) throw new Error(`${isa} has no exit of reason ${name}`);
  const { code } = entry;
  if (isa === 'vmx') {
    const hasNoQualification = name === 'mmio' || name === 'exception';
    const info1 = hasNoQualification ? 0n : BigInt(detail);
    return { code, info1, info2: 0n, intrInfo: name === 'exception' ? HARDWARE_EXCEPTION + detail : 0 };
  }
  const svm = (info1 = 0n, info2 = 0n, svmCode = code) => ({ code: svmCode, info1, info2, intrInfo: 0 });
  switch (name) {
    case 'io': {
      const size = 0x10n << BigInt([0, 1, 1, 2][detail & 3]);
      const flags = BigInt((detail & 8 ? 1 : 0) | (detail & 16 ? 4 : 0) | (detail & 32 ? 8 : 0));
      return svm((BigInt(detail) & 0xffff_0000n) | size | flags);
    }
    case 'mmio':
      return svm(NPF_MMIO | (detail ? NPF_WRITE : 0n), BigInt(guestPhysical));
    case 'apic-access':
      return svm(NPF_MMIO | (detail & 0x1000 ? NPF_WRITE : 0n), BigInt(guestPhysical));
    case 'msr-write':
      return svm(1n);
    case 'cr-access': {
      const register = detail & 0xf;
      const isRead = (detail & 0x10) !== 0;
      const selective = register === 0 && !isRead;
      return svm(SVM_DECODED | BigInt(detail >> 8), 0n, selective ? CR0_SELECTIVE_WRITE : register + (isRead ? 0 : 0x10));
    }
    case 'dr-access':
      return svm(BigInt(detail >> 8), 0n, 0x20 + (detail & 0xf) + (detail & 0x10 ? 0 : 0x10));
    case 'exception':
      return svm(0n, 0n, code + detail);
    default:
      return svm();
  }
}

/** The exit that a vCPU's own APIC timer makes when it expires while the vCPU runs. */
export function timerExit(isa: ExitIsa): number {
  return isa === 'vmx' ? Exit.preemptionTimer : Exit.externalInterrupt;
}

const MSR_TSC = 0x10;
const MSR_X2APIC_TPR = 0x808;

/** True where RDMSR or WRMSR leaves guest mode: MSR bitmaps let the guest have the ones that the CPU switches anyway. */
export function msrExits(isa: ExitIsa, msr: number, isWrite: boolean): boolean {
  switch (msr) {
    case 0xc000_0100: // FS_BASE
    case 0xc000_0101: // GS_BASE
    case 0xc000_0102: // KERNEL_GS_BASE
    case 0x174: // SYSENTER_CS
    case 0x175: // SYSENTER_ESP
    case 0x176: // SYSENTER_EIP
      return false;
    case 0xc000_0081: // STAR
    case 0xc000_0082: // LSTAR
    case 0xc000_0083: // CSTAR
    case 0xc000_0084: // SYSCALL_MASK
      return isa === 'vmx'; // KVM switches these lazily on VMX
    case MSR_TSC:
      return isa === 'svm' || isWrite;
    case MSR_X2APIC_TPR:
      return isa === 'svm'; // VMX virtualises the TPR, with its threshold for what waits
    default:
      return true;
  }
}

const APIC_TPR_OFFSET = 0x80;

/** True where an access to the xAPIC page leaves guest mode; VMX (FlexPriority) keeps the TPR in a virtual-APIC page. */
export function apicAccessExits(isa: ExitIsa, offset: number): boolean {
  return isa === 'svm' || (offset & 0xff0) !== APIC_TPR_OFFSET;
}

/**
 * True where a MOV to CR8 (or, on VMX, a write of the virtual TPR) leaves guest mode. `pendingClass` is the priority
 * class of the highest interrupt in the IRR, or -1; the classes of the TPR are from before and after the write.
 */
export function cr8WriteExits(isa: ExitIsa, oldClass: number, newClass: number, pendingClass: number): boolean {
  const isMasked = pendingClass >= 0 && pendingClass <= oldClass;
  return isMasked && (isa === 'svm' || newClass < pendingClass);
}

const CR0_TS_MP = 0xan;
const CR0_TS = 0x8n;
/** PVI, DE, TSD, PGE, PCE, OSFXSR, OSXMMEXCPT and FSGSBASE: the guest's own under VMX with EPT. TSD since 5.11. */
const CR4_GUEST_OWNED = 0x1_078en;

/** True where a MOV to a control register leaves guest mode, given what it changes (old XOR new). CR2, CR3: never. */
export function controlRegisterWriteExits(isa: ExitIsa, register: number, changed: bigint): boolean {
  switch (register) {
    case 0:
      // SVM's selective intercept looks past TS and MP; VMX owns all but TS, and a write that changes nothing it owns stays
      return (changed & ~(isa === 'svm' ? CR0_TS_MP : CR0_TS)) !== 0n;
    case 4:
      return isa === 'svm' || (changed & ~CR4_GUEST_OWNED) !== 0n;
    default:
      return false;
  }
}

/** True where a MOV from a control register leaves guest mode. */
export function controlRegisterReadExits(isa: ExitIsa, register: number): boolean {
  return isa === 'svm' && register === 4;
}

const [DEBUG, UNDEFINED_OPCODE, ALIGNMENT_CHECK, MACHINE_CHECK] = [1, 6, 17, 18];

/** True where an exception of the guest's leaves guest mode on its way to the guest. */
export function exceptionExits(isa: ExitIsa, vector: number): boolean {
  return (
    vector === UNDEFINED_OPCODE || vector === ALIGNMENT_CHECK || vector === MACHINE_CHECK || (isa === 'svm' && vector === DEBUG)
  );
}

/** A port that KVM serves in the kernel: PICs, ELCR, PIT and its gate. Others cost a trip to user space. */
export function isKernelPort(port: number): boolean {
  return (port >= 0x40 && port <= 0x43) || port === 0x61 || (port & 0xff7e) === 0x20 || port === 0x4d0 || port === 0x4d1;
}

const IO_APIC_BASE = 0xfec0_0000;
const IO_APIC_BYTES = 0x100;

/** A guest-physical address that KVM serves in the kernel: the I/O APIC (the local APIC's page is an exit of its own). */
export function isKernelMmio(guestPhysical: number): boolean {
  return guestPhysical >= IO_APIC_BASE && guestPhysical < IO_APIC_BASE + IO_APIC_BYTES;
}
