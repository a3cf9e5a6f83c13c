/**
 * Someone who sees single instructions of a guest, and what they access, without changing its run: blocks stay cut where they are, so
 * that a watched run is the same run, instruction for instruction. Watched pages are interpreted.
 * Not seen: what a processor accesses by itself (descriptors, page tables, stacks of interrupts and of far transfers), and
 * instructions whose accesses are TypeScript's (FXSAVE and its like).
 */

import type { Vcpu } from '../cpu/vcpu.ts';
import type { WatchedCode } from './block-cache.ts';

export interface InstructionWatcher {
  readonly code: WatchedCode;
  /**
   * A vCPU is about to run the instruction at its RIP (`Engine.ripOf`): one of the points, or the next one that it was asked to follow.
   * Returns whether to follow, through all watched pages.
   */
  instruction(vcpu: Vcpu): boolean;
  /** An instruction that is followed accesses data or stack, in the order in which it does. `address` is guest-virtual. */
  access(vcpu: Vcpu, address: bigint, bytes: number, kind: 'read' | 'write'): void;
}
