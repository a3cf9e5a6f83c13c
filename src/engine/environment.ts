/** What the engine and the vCPUs' slow half ask of the machine around them. Every call is made while `vcpu` runs. */

import type { CpuModel } from '../cpu/cpu-model.ts';
import type { CpuidResult } from '../cpu/cpuid.ts';
import type { Vcpu } from '../cpu/vcpu.ts';
import type { AccessBytes } from '../memory/bus.ts';

/** What a host learns of without having anything to do about it. */
export type Intercept = 'wbinvd' | 'invd' | 'xsetbv' | 'rdpmc' | 'cr-read' | 'dr-read' | 'dr-write' | 'exception';

export interface Environment {
  /** What the processors are. */
  model: CpuModel;
  portRead(vcpu: Vcpu, port: number, bytes: AccessBytes): number;
  portWrite(vcpu: Vcpu, port: number, bytes: AccessBytes, value: number): void;
  mmioRead(vcpu: Vcpu, guestPhysical: number, bytes: AccessBytes): number;
  mmioWrite(vcpu: Vcpu, guestPhysical: number, bytes: AccessBytes, value: number): void;
  cpuid(vcpu: Vcpu, leaf: number, subleaf: number): CpuidResult;
  /** Undefined: no such register, #GP. */
  readMsr(vcpu: Vcpu, msr: number): bigint | undefined;
  /** False: no such register or a value it does not take, #GP. */
  writeMsr(vcpu: Vcpu, msr: number, value: bigint): boolean;
  readTaskPriority(vcpu: Vcpu): number;
  writeTaskPriority(vcpu: Vcpu, value: number): void;
  /** A MOV changed these bits (old XOR new) of CR0, CR3 or CR4. */
  controlRegisterWritten(vcpu: Vcpu, register: number, changed: bigint): void;
  hypercall(vcpu: Vcpu, longMode: boolean): void;
  halt(vcpu: Vcpu): void;
  /** Something is about to happen that a host may intercept; `detail` is the register's number or the exception's vector. Of page faults, which none does, and of MOV from CR0, CR2 and CR3 it is not told. */
  intercepted(vcpu: Vcpu, what: Intercept, detail: number): void;
  /** 64 random bits for RDRAND. */
  random(): bigint;
  /** An event is pending and may be delivered now: deliver it (exceptions.ts). False where nothing came of it. */
  deliverEvent(vcpu: Vcpu): boolean;
}

/** The guest did what this machine cannot go on from. Ends the run with a report. */
export class EmulationFailure extends Error {}
