/** The guest side: an assembler, the APIC drivers as machine code, and a tiny kernel around them. */

export { type ApicDriver, DRIVER_NAMES, type DriverName, METHODS, type Method } from './apic/apic-driver.ts';
export { driverLayer, EOI_STATES, type EoiState, functionCode, methodSymbol } from './apic/driver-code.ts';
export { DRIVERS, driverNamed, PROBE_ORDER } from './apic/drivers/all.ts';
export { type Assembler, assembler, type ObjectCode } from './assembler/assembler.ts';
export { link, type LinkedImage, type LinkOptions } from './assembler/linker.ts';
export { exitProgram } from './exit-program.ts';
export { compareObjdumps, type ListedMethod, listing, objdump } from './listing.ts';
export { buildKernel, type KernelOptions, type PlatformFacts, type TinyKernel } from './kernel/kernel.ts';
export { type KernelReport, parseKernelReport } from './kernel/kernel-report.ts';
export { type Workload, WORKLOADS, workloadsOf } from './kernel/workloads.ts';
