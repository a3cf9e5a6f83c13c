/**
 * Platforms: the machines that Linux had APIC drivers for. A platform is a PC with another way of numbering processors, of getting
 * interrupts to them, or of waking them, and with the firmware tables by which a kernel recognises it. docs/interrupts.md has a table.
 */

import type { CpuModel } from '../../cpu/cpu-model.ts';
import type { LocalApic } from '../../interrupts/local-apic.ts';
import type { InterruptMessage } from '../../interrupts/message.ts';
import type { Boards, InterruptRouter } from '../../interrupts/router.ts';
import type { Pic } from '../../interrupts/pic.ts';
import type { Bus } from '../../memory/bus.ts';
import type { AcpiDescription } from '../acpi/acpi-tables.ts';
import type { FirmwareBlock } from '../boot/boot.ts';

/** What a platform's hardware is connected to. */
export interface Backplane {
  mmio: Bus;
  pic: Pic;
  router: InterruptRouter;
  /** By position; the first is the boot processor's. */
  apics: readonly LocalApic[];
  /** The APIC of the processor whose access is being served. */
  accessor(): LocalApic;
  /** Delivers a message on a board, as a register write of the accessor's: its slice ends. */
  send(message: InterruptMessage, board: number): void;
  /** Gives a processor a model-specific register that holds a value. */
  setMsr(processor: number, msr: number, value: bigint): void;
  /** Leaves an application processor halted in real mode, at the code there, instead of waiting for a start-up message. */
  park(processor: number, segment: number, offset: number, stackTop: number): void;
}

export interface Platform {
  readonly name: string;
  readonly title: string;
  /** How many processors its addressing or its firmware allows, and why no more. */
  readonly maxVcpus: number;
  readonly limit: string;
  /** Initial APIC ID of the processor at that position: unique in the machine. */
  apicId(position: number): number;
  /** What a kernel finds in memory. */
  firmware(apicIds: readonly number[], signature: number, features: number): { acpi?: AcpiDescription; blocks?: readonly FirmwareBlock[] };
  readonly boards?: Boards;
  /** See `LocalApicOptions`. */
  readonly physicalIdBits?: 4;
  /** Application processors are started by an NMI. */
  readonly startsByNmi?: boolean;
  /** Firmware hands processors over in x2APIC mode. */
  readonly startsInX2apicMode?: boolean;
  /** Processors older than x2APIC. */
  readonly hasNoX2apic?: boolean;
  /** What its processors differ in. */
  processor?(model: CpuModel): CpuModel;
  /** Puts its hardware on the buses and processors into the state that firmware leaves them in. */
  attach?(backplane: Backplane): void;
}

/** Processors of a cluster, which share the APIC ID's upper four bits. The last cluster number is the broadcast's. */
export const CLUSTER_PROCESSORS = 4;
export const CLUSTERS = 15;

/** A message from a chip's register to one local APIC. */
export function messageTo(apicId: number, vector: number, deliveryMode: number, wide: boolean): InterruptMessage {
  return {
    vector,
    deliveryMode: deliveryMode as InterruptMessage['deliveryMode'],
    destinationMode: 'physical',
    destination: apicId,
    wide,
    shorthand: 'none',
    trigger: 'edge',
    assert: true,
    source: 'ipi',
  };
}
