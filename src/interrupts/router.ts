/**
 * Finds the local APICs a message is for, and performs what their register writes entail. SDM 3A 11.6.2 (destinations),
 * 11.11 (MSI). Lowest priority: the APIC with the lowest PPR; among equals the one at position vector modulo their number,
 * which is how KVM spreads vectors over CPUs (`kvm_vector_to_index`) and is the same in every run.
 */

import { ApicRegister, LVT_DELIVERY_MODE_SHIFT, SVR_ENABLE } from './apic-registers.ts';
import type { IoApic } from './io-apic.ts';
import type { ApicEffect, LocalApic } from './local-apic.ts';
import { type AcceptResult, DeliveryMode, type InterruptMessage } from './message.ts';
import type { Pic } from './pic.ts';

/** An MSI is a write to 0xFEEx_xxxx. */
export const MSI_ADDRESS_PREFIX = 0xfee;
const MSI_LOGICAL = 1 << 2;
const MSI_REDIRECTION_HINT = 1 << 3;
const MSI_DATA_ASSERT = 1 << 14;
const MSI_DATA_LEVEL = 1 << 15;

/** The MultiProcessor Specification's example (appendix A.2): vector 15, which no device has. */
const FIRMWARE_SPURIOUS_VECTOR = 0x0f;

/**
 * The message that a write of `data` to a message address makes; undefined where it is no MSI, or a level's de-assertion,
 * which means nothing to an APIC. `extendedDestinationId`: bits 11 to 5 of the address are bits 14 to 8 of the destination,
 * which is KVM_FEATURE_MSI_EXT_DEST_ID.
 */
export function messageFromMsi(
  addressLow: number,
  addressHigh: number,
  data: number,
  extendedDestinationId: boolean,
): InterruptMessage | undefined {
  if (addressLow >>> 20 !== MSI_ADDRESS_PREFIX || addressHigh !== 0) return undefined;
  const level = (data & MSI_DATA_LEVEL) !== 0;
  if (level && !(data & MSI_DATA_ASSERT)) return undefined;
  const deliveryMode = ((data >> 8) & 7) as DeliveryMode;
  const hint = (addressLow & MSI_REDIRECTION_HINT) !== 0 && deliveryMode === DeliveryMode.fixed;
  return {
    vector: data & 0xff,
    deliveryMode: hint ? DeliveryMode.lowestPriority : deliveryMode,
    // The manual ignores this bit without the hint; KVM, QEMU and every guest take it as it is.
    destinationMode: addressLow & MSI_LOGICAL ? 'logical' : 'physical',
    destination: ((addressLow >> 12) & 0xff) | (extendedDestinationId ? ((addressLow >> 5) & 0x7f) << 8 : 0),
    wide: extendedDestinationId,
    shorthand: 'none',
    trigger: level && deliveryMode <= DeliveryMode.lowestPriority ? 'level' : 'edge',
    assert: true,
    source: 'msi',
  };
}

/**
 * A machine made of boards that each have a fabric (an APIC bus, a set of coupled sockets) of their own: what is sent on one
 * reaches the APICs of that board, and others' only where the board's controller passes it on. I/O APICs and MSIs are board 0's.
 */
export interface Boards {
  /** The board of the local APIC with that initial ID. */
  boardOf(apicId: number): number;
  /** Whether the message, sent without shorthand, is passed on to all boards. */
  crosses(message: InterruptMessage): boolean;
}

export interface InterruptRouterOptions {
  /** One for all unless given. */
  boards?: Boards | undefined;
  /** See `messageFromMsi`. */
  extendedDestinationId?: boolean;
}

export class InterruptRouter {
  readonly localApics: LocalApic[] = [];
  readonly ioApics: IoApic[] = [];
  private pic: Pic | undefined;
  private readonly extendedDestinationId: boolean;
  private readonly boards: Boards | undefined;

  constructor(options: InterruptRouterOptions = {}) {
    this.extendedDestinationId = options.extendedDestinationId ?? false;
    this.boards = options.boards;
  }

  addLocalApic(apic: LocalApic): void {
    if (this.localApics.some((other) => other.initialId === apic.initialId)) {
      throw new Error(`two local APICs have the ID ${apic.initialId}`);
    }
    this.localApics.push(apic);
  }

  addIoApic(ioApic: IoApic): void {
    this.ioApics.push(ioApic);
  }

  /** Wires the 8259 pair's INTR to LINT0 of the boot CPU. */
  connectPic(pic: Pic, bootApic: LocalApic): void {
    this.pic = pic;
    pic.onOutput = (high) => bootApic.setLint(0, high);
    bootApic.setLint(0, pic.output);
  }

  /**
   * What firmware leaves behind on the boot CPU: virtual wire mode, with the APIC enabled, LINT0 the 8259s' ExtINT and LINT1
   * NMI. MultiProcessor Specification 1.4, 3.6.2.2. The APIC has to be in xAPIC mode, as after RESET.
   */
  enterVirtualWireMode(bootApic: LocalApic): void {
    this.perform(bootApic.writeMmio(ApicRegister.svr, SVR_ENABLE | FIRMWARE_SPURIOUS_VECTOR), bootApic);
    bootApic.writeMmio(ApicRegister.lvtLint0, DeliveryMode.extInt << LVT_DELIVERY_MODE_SHIFT);
    bootApic.writeMmio(ApicRegister.lvtLint1, DeliveryMode.nmi << LVT_DELIVERY_MODE_SHIFT);
  }

  /** Delivers a message; `sender` is the local APIC that shorthands refer to, and whose board it is sent on. */
  deliver(message: InterruptMessage, sender?: LocalApic): AcceptResult {
    return this.deliverOn(sender && this.boards ? this.boards.boardOf(sender.initialId) : 0, message, sender);
  }

  /** Delivers a message that comes out on a board, by way of its controller. */
  deliverOn(board: number, message: InterruptMessage, sender?: LocalApic): AcceptResult {
    if (message.shorthand === 'self') return ownerOf(message, sender).accept(message);
    if (message.shorthand === 'others') ownerOf(message, sender);
    if (message.deliveryMode === DeliveryMode.lowestPriority) return this.arbitrate(board, message, sender);
    let result: AcceptResult = 'ignored';
    for (const apic of this.localApics) {
      if (!isTarget(apic, message, sender) || !this.isOn(board, apic, message)) continue;
      const one = apic.accept(message);
      if (one === 'accepted' || result === 'ignored') result = one;
    }
    return result;
  }

  /** What a device's write to a message address does. */
  sendMsi(addressLow: number, addressHigh: number, data: number): AcceptResult {
    const message = messageFromMsi(addressLow, addressHigh, data, this.extendedDestinationId);
    return message ? this.deliver(message) : 'ignored';
  }

  /** Performs what `apic` returned from a register write or an EOI. */
  perform(effect: ApicEffect | undefined, apic: LocalApic): void {
    if (!effect) return;
    switch (effect.kind) {
      case 'ipi':
        this.deliver(effect.message, apic);
        return;
      case 'eoi':
        if (effect.broadcast) for (const ioApic of this.ioApics) ioApic.endOfInterrupt(effect.vector);
        return;
      case 'configuration':
        for (const ioApic of this.ioApics) ioApic.retry();
        return;
    }
  }

  /** The vector of an ExtINT that `apic` has pending: the CPU's INTA. Without 8259s there is none to be pending. */
  acknowledgeExtInt(apic: LocalApic): number {
    if (!this.pic) throw new Error('an ExtINT was acknowledged, but no 8259 is connected');
    apic.takeExtInt();
    return this.pic.acknowledge();
  }

  /** Today's rule of KVM: an I/O APIC has to see the end of `vector` on this CPU. See `IoApic.hasLevelVector`. */
  hasLevelVector(apic: LocalApic, vector: number): boolean {
    for (const ioApic of this.ioApics) {
      if (!ioApic.hasLevelVector(vector)) continue;
      if (ioApic.hasLevelVector(vector, (destination, mode, wide) => apic.matches(destination, mode, wide))) return true;
    }
    return false;
  }

  /** Linux 3.6's rule: an I/O APIC has `vector` in any entry. */
  hasVector(vector: number): boolean {
    for (const ioApic of this.ioApics) if (ioApic.hasVector(vector)) return true;
    return false;
  }

  private isOn(board: number, apic: LocalApic, message: InterruptMessage): boolean {
    const { boards } = this;
    if (!boards || boards.boardOf(apic.initialId) === board) return true;
    return message.shorthand === 'none' && boards.crosses(message);
  }

  private arbitrate(board: number, message: InterruptMessage, sender: LocalApic | undefined): AcceptResult {
    let lowestPriority = 0x100;
    let candidates = 0;
    for (const apic of this.localApics) {
      if (!apic.isEnabled() || !isTarget(apic, message, sender) || !this.isOn(board, apic, message)) continue;
      if (apic.processorPriority < lowestPriority) {
        lowestPriority = apic.processorPriority;
        candidates = 0;
      }
      if (apic.processorPriority === lowestPriority) candidates++;
    }
    let position = candidates > 0 ? message.vector % candidates : -1;
    for (const apic of this.localApics) {
      if (position < 0) break;
      if (!apic.isEnabled() || apic.processorPriority !== lowestPriority) continue;
      if (!isTarget(apic, message, sender) || !this.isOn(board, apic, message)) continue;
      if (position-- === 0) return apic.accept(message);
    }
    return 'ignored';
  }
}

function isTarget(apic: LocalApic, message: InterruptMessage, sender: LocalApic | undefined): boolean {
  switch (message.shorthand) {
    case 'none':
      return apic.matches(message.destination, message.destinationMode, message.wide);
    case 'self':
      return apic === sender;
    case 'all':
      return apic.mode !== 'disabled';
    case 'others':
      return apic !== sender && apic.mode !== 'disabled';
  }
}

function ownerOf(message: InterruptMessage, sender: LocalApic | undefined): LocalApic {
  if (!sender) throw new Error(`a message to '${message.shorthand}' needs a sender`);
  return sender;
}
