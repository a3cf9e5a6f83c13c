/**
 * Runs a machine to its end at the console: slice by slice, with input between them. With `realtime`, guest time follows the
 * host's clock where it can: idle time is waited for, not skipped.
 */

import type { Machine, RunResult } from '../index.ts';
import { nodeHost } from '../platform/node/index.ts';

/** Small enough that typing feels immediate. */
const SLICE_NANOSECONDS = 4_000_000;

export interface MachineRunOptions {
  realtime: boolean;
  /** Host seconds after which the run is broken off. */
  timeoutSeconds?: number | undefined;
  /** Waits for so long, or until there is input. */
  pause(milliseconds: number): Promise<void>;
  /** True when the user wants to leave. */
  shouldLeave(): boolean;
}

/** How a run at the console ended: by itself, or from outside. */
export type MachineRunEnd = Extract<RunResult, { kind: 'ended' }> | { kind: 'left' } | { kind: 'timeout'; seconds: number };

export async function runMachine(machine: Machine, options: MachineRunOptions): Promise<MachineRunEnd> {
  const { realtime, timeoutSeconds = Number.POSITIVE_INFINITY, pause } = options;
  const start = nodeHost.seconds();
  for (;;) {
    const elapsedSeconds = nodeHost.seconds() - start;
    if (options.shouldLeave()) return { kind: 'left' };
    if (elapsedSeconds >= timeoutSeconds) return { kind: 'timeout', seconds: timeoutSeconds };
    if (realtime) machine.allowedUntil = elapsedSeconds * 1e9;
    const result = machine.run({ guestNanoseconds: SLICE_NANOSECONDS });
    if (result.kind === 'ended') return result;
    const until = result.kind === 'idle' ? result.untilNanoseconds : machine.nowNanoseconds;
    const aheadSeconds = until / 1e9 - (nodeHost.seconds() - start);
    const waitSeconds = Math.min(aheadSeconds, timeoutSeconds - elapsedSeconds);
    await pause(realtime ? waitSeconds * 1000 : 0);
  }
}

/** What the program exits with. */
export function exitStatusOf(end: MachineRunEnd): number {
  switch (end.kind) {
    case 'ended':
      return end.exitStatus;
    case 'left':
      return 0;
    case 'timeout':
      return TIMEOUT_STATUS;
  }
}

/** As timeout(1) has it. */
export const TIMEOUT_STATUS = 124;

/** One line, or more where the vCPUs' states are in it. */
export function describeEnd(end: MachineRunEnd): string {
  switch (end.kind) {
    case 'ended':
      return `${end.end}: ${end.report}`;
    case 'left':
      return 'left';
    case 'timeout':
      return `timeout: the guest still ran after ${end.seconds} s`;
  }
}
