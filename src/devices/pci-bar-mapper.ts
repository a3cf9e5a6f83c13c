/**
 * Puts what is behind a PCI function's BARs on the buses, where and while the guest wants it there. A guest may
 * map a BAR over something else (sizing one does so in passing): then the BAR stays unmapped until it moves.
 */

import type { Bus, BusDevice } from '../memory/bus.ts';
import type { PciBar, PciFunction } from './pci-function.ts';

export interface PciBuses {
  ports: Bus;
  memory: Bus;
}

/** Connects a function's BARs, by index, to devices. */
export function mapPciBars(
  pciFunction: PciFunction,
  name: string,
  buses: PciBuses,
  devices: ReadonlyMap<number, BusDevice>,
): void {
  const mapped = new Map<number, number>();
  pciFunction.onBarChange = (bar: PciBar) => {
    const bus = bar.kind === 'io' ? buses.ports : buses.memory;
    const at = mapped.get(bar.index);
    if (at !== undefined) bus.unregister(at);
    mapped.delete(bar.index);
    const device = devices.get(bar.index);
    if (bar.address === undefined || !device || !bus.isFree(bar.address, bar.bytes)) return;
    bus.register(bar.address, bar.bytes, `${name} BAR ${bar.index}`, device);
    mapped.set(bar.index, bar.address);
  };
}
