/** Where guests end interrupts: the places in the code of our kernel, and of Linux, from which an EOI is traced. */

import { acknowledgeSymbol, type EoiState } from '../guest/apic/driver-code.ts';
import type { TinyKernel } from '../guest/kernel/kernel.ts';
import { linuxCalls, linuxImage } from '../machine/boot/linux-image.ts';
import type { TracePoint } from '../machine/call-tracer.ts';
import { SymbolTable } from '../machine/symbol-table.ts';
import { UserError } from '../machine/user-error.ts';

export interface EoiCode {
  points: TracePoint[];
  /** Guest-physical addresses in pages that an EOI leads through. */
  alsoIn: number[];
  symbols: SymbolTable;
}

/** Names of what is traced. An EOI from its function on is one whose CALL was not known. */
export const EOI = 'EOI';
export const EOI_FROM_FUNCTION = 'EOI, function only';
export const OTHER_WRITE = 'another register';

const PAGE = 4096;

/** From the first instruction of `ack_APIC_irq`. The kernel is small: all of it is looked at. */
export function tinyEoiCode({ image }: TinyKernel, state: EoiState = 'pv-eoi'): EoiCode {
  // A label within a function, which the assembler names `function.label`, is a part of it.
  const functions = [...image.symbols].filter(([symbol]) => !symbol.includes('.'));
  const acknowledge = image.symbols.get(acknowledgeSymbol(state)) as number;
  return {
    points: [{ guestPhysical: acknowledge, kind: 'function', name: () => EOI }],
    alsoIn: Array.from({ length: Math.ceil(image.bytes.length / PAGE) }, (_, i) => image.base + i * PAGE),
    symbols: new SymbolTable(functions.map(([symbol, address]) => [symbol, BigInt(address)])),
  };
}

/** Linux 3.5 to 6.6: what `apic->eoi_write(APIC_EOI, APIC_EOI_ACK)` calls, and what writes registers in general. */
const EOI_FUNCTIONS = ['native_apic_msr_eoi_write', 'kvm_guest_apic_eoi_write'];
const WRITE_FUNCTIONS = ['native_apic_mem_write', 'native_apic_msr_write'];
const RDI = 7;
const APIC_EOI = 0xb0;
const THUNKS = '__x86_indirect_thunk_';
/** What they lead through, besides thunks: WRMSR as a paravirtualised kernel has it, and returns before the kernel has patched itself. */
const ON_THE_WAY = ['native_write_msr', '__x86_return_thunk'];

const isEoi = (register: (number: number) => bigint): boolean => Number(register(RDI) & 0xffff_ffffn) === APIC_EOI;

/**
 * From the interrupt handlers' CALLs: of an indirect function, with APIC_EOI for its first argument. For comparison also what the
 * generic function executes that writes any other register: an EOI was one of these before the series.
 */
export function linuxEoiCode(kernel: Uint8Array): EoiCode {
  const image = linuxImage(kernel);
  const { symbols } = image;
  const functions = (names: readonly string[]) => symbols.named((name) => names.includes(name));
  const eoiFunctions = functions(EOI_FUNCTIONS);
  if (eoiFunctions.length === 0) {
    throw new UserError(`the kernel has none of ${EOI_FUNCTIONS.join(', ')}: EOIs are traced of Linux 3.5 to 6.6`);
  }
  const writes = functions(WRITE_FUNCTIONS);
  const isThunk = (address: bigint): boolean => symbols.at(address)?.name.startsWith(THUNKS) ?? false;
  const calls = linuxCalls(image, APIC_EOI, isThunk);
  const physical = (address: bigint): number => image.guestPhysical(address);
  return {
    points: [
      ...calls.map(
        ({ address, kind }): TracePoint => ({
          guestPhysical: physical(address),
          kind,
          name: (register) => (isEoi(register) ? EOI : undefined),
        }),
      ),
      ...eoiFunctions.map(
        ({ address }): TracePoint => ({
          guestPhysical: physical(address),
          kind: 'function',
          name: () => EOI_FROM_FUNCTION,
        }),
      ),
      ...writes.map(
        ({ address }): TracePoint => ({
          guestPhysical: physical(address),
          kind: 'function',
          name: (register) => (isEoi(register) ? EOI_FROM_FUNCTION : OTHER_WRITE),
        }),
      ),
    ],
    alsoIn: symbols.named((name) => name.startsWith(THUNKS) || ON_THE_WAY.includes(name)).map(({ address }) => physical(address)),
    symbols,
  };
}
