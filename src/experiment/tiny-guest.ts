/**
 * The guest that needs nothing fetched: our tiny kernel (src/guest/kernel) with the workloads that are compared. It is one kernel
 * for all strategies, as Linux is: it finds out what the machine offers, and ends its interrupts by that.
 */

import { buildKernel, type TinyKernel } from '../guest/kernel/kernel.ts';
import { MAX_CPUS } from '../guest/kernel/layout.ts';
import type { Workload } from '../guest/kernel/workloads.ts';

export const MAX_TINY_VCPUS = MAX_CPUS[64];

/** What is compared, in the order in which it is run. NMIs are not among it: they have no EOI. */
export const TINY_WORKLOADS = [
  'timer',
  'ping-pong',
  'messages',
  'edge',
  'level',
  'nested',
] as const satisfies readonly Workload[];

/**
 * Longest random pause between rounds, in loop iterations; of the order of what an exit costs, so that what happens on two CPUs
 * meets in all ways it can. A processor without RDRAND has none, and all its seeds give the same run.
 */
const LONGEST_PAUSE = 4096;

/** `load` rounds of each workload; its ELF file is to be booted by PVH. */
export function tinyGuest(load: number): TinyKernel {
  const workloads = Object.fromEntries(TINY_WORKLOADS.map((workload) => [workload, load]));
  return buildKernel({ workloads, longestPause: LONGEST_PAUSE });
}
