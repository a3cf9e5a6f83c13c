/**
 * IBM Summit (xSeries 440 and its like): clusters of four processors, the cluster's number in the APIC ID's upper half. Interrupts
 * reach all clusters, physically and logically. Not modelled: the Cyclone timer, hyperthreads.
 */

import { CLUSTER_PROCESSORS, CLUSTERS, type Platform } from './platform.ts';

export const summit: Platform = {
  name: 'summit',
  title: 'IBM Summit',
  maxVcpus: CLUSTERS * CLUSTER_PROCESSORS,
  limit: '15 clusters of 4, a logical cluster number having 4 bits and the last one being the broadcast',
  apicId: (position) => (Math.floor(position / CLUSTER_PROCESSORS) << 4) | (position % CLUSTER_PROCESSORS),
  firmware: (apicIds) => ({ acpi: { apicIds, oem: { id: 'IBM', tableId: 'SERVIGIL' } } }),
  hasNoX2apic: true,
};
