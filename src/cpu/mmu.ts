/** What the processor's slow half asks of the engine: translations, and that they be forgotten. */

/** What an access is, in bits: as the page walk and #PF's error code want it. */
export const Access = {
  read: 0,
  write: 1,
  user: 2,
  execute: 4,
  /** By the processor itself, as a supervisor whatever CPL is: descriptor tables, TSS, interrupt stacks. */
  implicit: 8,
  /** No exception: FAULTED comes back instead. */
  probe: 16,
  /** As `probe`, but what is found goes into the TLB. */
  quiet: 32,
} as const;

/** What a translation gives instead of a linear address: no RAM there, or (with Access.probe) a fault. */
export const MMIO = -1;
export const FAULTED = -2;

export interface Mmu {
  /** Linear-memory address for a guest-virtual one (segment base included), MMIO or FAULTED. Throws the vCPU's fault. */
  translate(base: number, address: bigint, access: number): number;
  /** CPL, RFLAGS.AC, CR0, CR4 or the like changed: another translation context may apply. */
  contextChanged(base: number): void;
  /** DR0 to DR3 or DR7 changed: other accesses are watched. */
  debugRegistersChanged(base: number): void;
  /** CR3 was written; `keep` is its bit 63 (no flush) under CR4.PCIDE. */
  addressSpaceChanged(base: number, keep: boolean): void;
  /** Forgets every translation of the vCPU, global ones too. */
  flushAll(base: number): void;
  /** INVLPG: forgets the translations of the page at `address`. */
  flushPage(base: number, address: bigint): void;
  /** INVPCID types 0 and 1: those of one PCID, of one page where `address` is given. */
  flushPcid(base: number, pcid: number, address?: bigint): void;
  /** Delivers an event to a 64-bit handler at level 0, at RIP; false, and nothing has changed, where it takes more than that. */
  enterHandler(base: number, vector: number, code: number, isFault: boolean): boolean;
  /** The slice ends at the next block. */
  requestExit(base: number): void;
  /** Bytes of RAM at a linear address were written by the processor: code decoded from them goes. */
  written(linear: number, bytes: number): void;
}
