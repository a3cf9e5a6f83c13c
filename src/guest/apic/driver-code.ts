/** The driver layer as object code: functions on demand, drivers' structures, and the EOI of each state. */

import { assembler, type ObjectCode } from '../assembler/assembler.ts';
import { address } from '../assembler/operands.ts';
import { APIC_DEST_LOGICAL } from './apic-constants.ts';
import { type ApicDriver, METHODS, type Method, STRUCTURE_NUMBERS, structureSymbol } from './apic-driver.ts';
import { destinations } from './destination.ts';
import { DRIVERS, PROBE_ORDER } from './drivers/all.ts';
import { type EmitFunction, type GuestBits, type GuestFunctions, guestAbi } from './guest-abi.ts';
import { sharedIpis } from './ipi.ts';
import { nativeAccess } from './native-access.ts';
import { probing } from './probing.ts';
import { PV_EOI_OVERRIDE, pvEoi } from './pv-eoi.ts';

/**
 * How far the series has got: `before` it an EOI is a register write like any other; `callback` (patch 3) it has a method of its
 * own; `x2apic-eoi` (patch 4) that writes the MSR without looking at the register; `pv-eoi` (patch 5) looks at the shared word
 * first.
 */
export const EOI_STATES = ['before', 'callback', 'x2apic-eoi', 'pv-eoi'] as const;
export type EoiState = (typeof EOI_STATES)[number];

/** The symbol behind a driver's method in a state: `eoiWrite` alone depends on it. Undefined: a null pointer. */
export function methodSymbol(driver: ApicDriver, method: Method, state: EoiState): string | undefined {
  if (method !== 'eoiWrite') return driver.methods[method];
  switch (state) {
    case 'before':
      return undefined;
    case 'callback':
      return driver.methods.eoiWrite;
    case 'x2apic-eoi':
      return nativeEoiSymbol(driver);
    case 'pv-eoi':
      return isRegistered(driver) ? PV_EOI_OVERRIDE : nativeEoiSymbol(driver);
  }
}

/** Whether probing knows the driver's structure, and so the override finds it: noop's it does not. */
const isRegistered = ({ bits, name }: ApicDriver): boolean =>
  PROBE_ORDER[bits].some((other) => structureSymbol(other.name) === structureSymbol(name));

/** What PV EOI falls back to: the driver's own EOI. */
export const nativeEoiSymbol = (driver: ApicDriver): string => driver.directEoi ?? (driver.methods.eoiWrite as string);

/** What ends an interrupt: the caller of `write` before the series, of `eoiWrite` since. */
export const acknowledgeSymbol = (state: EoiState): string =>
  state === 'before' ? 'ack_APIC_irq_by_write' : 'ack_APIC_irq_by_eoi_write';

const libraries = new Map<GuestBits, GuestFunctions>();

function library(bits: GuestBits): GuestFunctions {
  let functions = libraries.get(bits);
  if (!functions) {
    functions = Object.assign(
      {},
      nativeAccess,
      sharedIpis,
      destinations,
      probing,
      pvEoi,
      ...DRIVERS.filter((driver) => driver.bits === bits).map((driver) => driver.functions),
    ) as GuestFunctions;
    libraries.set(bits, functions);
  }
  return functions;
}

const emitted = new Map<string, ObjectCode>();

export function emitFunction(symbol: string, emit: EmitFunction, bits: GuestBits): ObjectCode {
  const a = assembler(bits);
  a.align(16);
  a.label(symbol);
  emit(a, guestAbi(bits));
  return a.assemble();
}

/** One function of the layer, or undefined where there is none of that name: data, or a function that the kernel has to have. */
export function functionCode(symbol: string, bits: GuestBits): ObjectCode | undefined {
  const key = `${bits} ${symbol}`;
  let code = emitted.get(key);
  const emit = library(bits)[symbol] as EmitFunction | undefined;
  if (!code && emit) {
    code = emitFunction(symbol, emit, bits);
    emitted.set(key, code);
  }
  return code;
}

/** A quirk uses another driver's. */
const hasStructure = ({ name }: ApicDriver): boolean => structureSymbol(name) === `apic_${name}`;

/** A driver's structure. Under `pv-eoi` it is that of `x2apic-eoi`: the override happens when the guest boots. */
export function structureCode(driver: ApicDriver, state: EoiState): ObjectCode {
  const { bits, name } = driver;
  const a = assembler(bits);
  const put = (value: number | ReturnType<typeof address>): unknown => (bits === 64 ? a.dq(value) : a.dd(value));
  const numbers: Record<(typeof STRUCTURE_NUMBERS)[number], number> = {
    irqDeliveryMode: driver.deliveryMode === 'fixed' ? 0 : 1,
    irqDestMode: driver.destinationMode === 'physical' ? 0 : 1,
    destLogical: driver.ipiDestination === 'physical' ? 0 : APIC_DEST_LOGICAL,
    disableEsr: driver.disableEsr ? 1 : 0,
  };
  a.align(16, 0).label(structureSymbol(name));
  put(address(`${structureSymbol(name)}.name`));
  for (const number of STRUCTURE_NUMBERS) put(numbers[number]);
  for (const method of METHODS) {
    const symbol = methodSymbol(driver, method, state === 'pv-eoi' ? 'x2apic-eoi' : state);
    put(symbol === undefined ? 0 : address(symbol));
    a.note(method);
  }
  a.label('.name').db(driver.title, 0);
  return a.assemble();
}

/** The table of drivers to probe. */
function probeTable(bits: GuestBits): ObjectCode {
  const a = assembler(bits).align(8, 0).label('__apicdrivers');
  for (const { name } of PROBE_ORDER[bits])
    bits === 64 ? a.dq(address(structureSymbol(name))) : a.dd(address(structureSymbol(name)));
  return a.label('__apicdrivers_end').assemble();
}

/** What the layer consists of for a kernel: table, structures, and all functions that they or `roots` lead to. */
export function driverLayer(bits: GuestBits, state: EoiState, roots: readonly string[]): ObjectCode[] {
  const structures = DRIVERS.filter((driver) => driver.bits === bits && hasStructure(driver)).map((driver) => structureCode(driver, state));
  const objects: ObjectCode[] = [];
  const visited = new Set<string>();
  const visit = (symbol: string): void => {
    if (visited.has(symbol)) return;
    visited.add(symbol);
    const code = functionCode(symbol, bits);
    if (!code) return;
    objects.push(code);
    for (const relocation of code.relocations) visit(relocation.symbol);
  };
  for (const symbol of [
    ...roots,
    ...DRIVERS.filter((driver) => driver.bits === bits).flatMap(({ functions }) => Object.keys(functions)),
  ])
    visit(symbol);
  for (const { relocations } of structures) for (const { symbol } of relocations) visit(symbol);
  return [...objects, ...structures, probeTable(bits)];
}
