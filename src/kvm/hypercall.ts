/**
 * KVM's hypercalls (VMCALL and VMMCALL alike). Source: Documentation/virt/kvm/x86/hypercalls.rst and
 * kvm_emulate_hypercall in x86.c. Not offered: MAP_GPA_RANGE; CLOCK_PAIRING answers as on a host whose own
 * clock is not the TSC.
 */

import { DeliveryMode, type InterruptMessage } from '../interrupts/message.ts';
import { hasFeature, type KvmFeatureSet } from './features.ts';

export const HypercallNumber = {
  vapicPollIrq: 1,
  kickCpu: 5,
  clockPairing: 9,
  sendIpi: 10,
  schedYield: 11,
} as const;

const EPERM = -1n;
const EINVAL = -22n;
const EOPNOTSUPP = -95n;
const ENOSYS = -1000n;

/** The registers of a hypercall: number and arguments, unsigned. */
export interface HypercallRegisters {
  rax: bigint;
  rbx: bigint;
  rcx: bigint;
  rdx: bigint;
  rsi: bigint;
}

export interface HypercallContext {
  registers: HypercallRegisters;
  cpl: number;
  /** 64-bit mode; otherwise arguments and result have 32 bits. */
  is64Bit: boolean;
  kvm: KvmFeatureSet;
  host: HypercallHost;
}

/** What hypercalls do to other vCPUs, by APIC ID. IDs nobody has are ignored. */
export interface HypercallHost {
  /** Wakes the vCPU if it is halted, or makes its next HLT fall through (`PvUnhalt`). */
  kick(apicId: number): void;
  /** The caller would rather have the other vCPU run, if that one is preempted. */
  yieldTo(apicId: number): void;
  /** Delivers to that one APIC. True if it accepted, a vector that was pending already included; false if disabled. */
  deliver(apicId: number, message: InterruptMessage): boolean;
}

/** Performs the hypercall and returns RAX. */
export function hypercall(context: HypercallContext): bigint {
  const bits = context.is64Bit ? 64 : 32;
  const result = context.cpl === 0 ? dispatch(context, bits) : EPERM;
  return BigInt.asUintN(bits, result);
}

function dispatch({ registers, kvm, host }: HypercallContext, bits: 32 | 64): bigint {
  const argument = (value: bigint) => BigInt.asUintN(bits, value);
  const [a0, a1, a2, a3] = [registers.rbx, registers.rcx, registers.rdx, registers.rsi].map(argument);
  switch (Number(argument(registers.rax))) {
    case HypercallNumber.vapicPollIrq:
      return 0n; // the exit was all it wanted
    case HypercallNumber.kickCpu: {
      if (!hasFeature(kvm, 'pv-unhalt')) return ENOSYS;
      const apicId = Number(BigInt.asUintN(32, a1)); // a0 holds flags, unused
      host.kick(apicId);
      host.yieldTo(apicId);
      return 0n;
    }
    case HypercallNumber.clockPairing:
      return EOPNOTSUPP;
    case HypercallNumber.sendIpi:
      return hasFeature(kvm, 'pv-send-ipi') ? sendIpi(host, [a0, a1], Number(BigInt.asUintN(32, a2)), a3, bits) : ENOSYS;
    case HypercallNumber.schedYield:
      if (!hasFeature(kvm, 'pv-sched-yield')) return ENOSYS;
      host.yieldTo(Number(BigInt.asUintN(32, a0)));
      return 0n;
    default:
      return ENOSYS;
  }
}

const ICR_DESTINATION_LOGICAL = 0x800n;
const ICR_SHORTHAND = 0xc_0000n;

/** One ICR value to the APIC IDs `min + i` for each bit i set in two bitmaps; the result counts who accepted. */
function sendIpi(host: HypercallHost, bitmaps: [bigint, bigint], min: number, icr: bigint, bits: 32 | 64): bigint {
  if (icr & (ICR_DESTINATION_LOGICAL | ICR_SHORTHAND)) return EINVAL;
  const command = Number(icr & 0xffffn);
  const message: Omit<InterruptMessage, 'destination'> = {
    vector: command & 0xff,
    deliveryMode: ((command >> 8) & 7) as DeliveryMode,
    destinationMode: 'physical',
    wide: true,
    shorthand: 'none',
    trigger: command & 0x8000 ? 'level' : 'edge',
    assert: true,
    source: 'pv-ipi',
  };
  if (isIgnored(message.deliveryMode, command)) return 0n;
  let accepted = 0n;
  bitmaps.forEach((bitmap, half) => {
    const first = (min + half * bits) >>> 0; // wraps at 32 bits, as KVM's does
    for (let i = 0; i < bits; i++) {
      const destination = first + i;
      if ((bitmap >> BigInt(i)) & 1n && destination < 2 ** 32 && host.deliver(destination, { ...message, destination }))
        accepted++;
    }
  });
  return accepted;
}

/** A level that is not asserted goes nowhere (an edge needs no assertion), nor does what no local APIC accepts by message. */
function isIgnored(deliveryMode: DeliveryMode, command: number): boolean {
  switch (deliveryMode) {
    case DeliveryMode.fixed:
    case DeliveryMode.lowestPriority:
    case DeliveryMode.init:
      return (command & 0x8000) !== 0 && (command & 0x4000) === 0;
    case DeliveryMode.reserved:
    case DeliveryMode.extInt:
      return true;
    case DeliveryMode.smi:
    case DeliveryMode.nmi:
    case DeliveryMode.startUp:
      return false;
  }
}
