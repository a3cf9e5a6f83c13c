/**
 * What a vCPU's debug registers watch for, and what has been met. SDM 3B chapter 18, APM 2 chapter 13. Instructions, data and I/O ports; not
 * watched: what the processor itself reads and writes (descriptor tables, TSS, stacks of far transfers and interrupts).
 */

import * as state from '../cpu/state.ts';
import { Cr4, type Vcpu } from '../cpu/vcpu.ts';

interface Breakpoint {
  /** Its bit in DR6. */
  bit: number;
  /** DR7's R/W field. */
  kind: number;
  start: bigint;
  bytes: bigint;
}

const Kind = { execute: 0, write: 1, port: 2, access: 3 } as const;
/** By DR7's LEN field. */
const LENGTHS = [1n, 2n, 8n, 4n] as const;
const SINGLE_STEP = 1 << 14;

export class DebugUnit {
  private breakpoints: Breakpoint[] = [];
  /** Bits of DR6 that the running instruction has met, and those that wait behind MOV SS. */
  met = 0;
  pending = 0;

  /** Reads the debug registers; the kinds that are armed, as BREAKPOINTS holds them. */
  update(vcpu: Vcpu): number {
    const dr7 = vcpu.get32(state.DR + 56);
    this.breakpoints = [];
    let armed = 0;
    for (let i = 0; i < 4; i++) {
      if (!((dr7 >> (2 * i)) & 3)) continue;
      const kind = (dr7 >> (16 + 4 * i)) & 3;
      const bytes = LENGTHS[(dr7 >> (18 + 4 * i)) & 3];
      // Without CR4.DE there are no port breakpoints.
      if (kind === Kind.port && !(vcpu.get64(state.CR4) & Cr4.de)) continue;
      const start = vcpu.get64(state.DR + 8 * i) & ~(bytes - 1n);
      this.breakpoints.push({ bit: 1 << i, kind, start: kind === Kind.execute ? vcpu.get64(state.DR + 8 * i) : start, bytes });
      armed |= kind === Kind.execute ? state.CODE_BREAKPOINTS : kind === Kind.port ? state.PORT_BREAKPOINTS : state.DATA_BREAKPOINTS;
    }
    return armed;
  }

  private hits(kinds: readonly number[], address: bigint, bytes: number): number {
    const start = BigInt.asUintN(64, address);
    let found = 0;
    for (const b of this.breakpoints) if (kinds.includes(b.kind) && start < b.start + b.bytes && b.start < start + BigInt(bytes)) found |= b.bit;
    return found;
  }

  /** Instruction breakpoints at an address. */
  atInstruction(address: bigint): number {
    let found = 0;
    for (const { kind, start, bit } of this.breakpoints) if (kind === Kind.execute && start === address) found |= bit;
    return found;
  }

  /** Whether one lies in the page of an address. */
  onCodePage(address: bigint): boolean {
    return this.breakpoints.some(({ kind, start }) => kind === Kind.execute && start >> 12n === address >> 12n);
  }

  atData(address: bigint, bytes: number, write: boolean): number {
    return this.hits(write ? [Kind.write, Kind.access] : [Kind.access], address, bytes);
  }

  atPort(port: number, bytes: number): number {
    return this.hits([Kind.port], BigInt(port), bytes);
  }

  /** What DR6 gains behind an instruction: what it met, and the single step where that was asked for. `shadow` is MOV SS: it all waits. */
  afterInstruction(singleStep: boolean, shadow: boolean): number {
    const all = this.met | this.pending;
    this.met = 0;
    this.pending = shadow ? all : 0;
    return shadow ? 0 : all | (singleStep ? SINGLE_STEP : 0);
  }
}
