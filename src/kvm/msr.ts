/** A model-specific register's value as RDMSR returns it: EAX and EDX, unsigned. */
export interface MsrValue {
  low: number;
  high: number;
}

/** The guest-physical address in a paravirtual MSR, its flag bits cleared. Exact wherever there can be RAM. */
export function guestPhysicalOf(low: number, high: number, flagBits: number): number {
  return (high >>> 0) * 2 ** 32 + ((low & ~flagBits) >>> 0);
}
