/**
 * Exitless as a library: an x86-64 SMP machine that boots Linux and counts what every interrupt costs it. Runs wherever
 * JavaScript does; what needs Node (files, Debian's kernel) is `exitless/node`.
 *
 * ```ts
 * const machine = new Machine({ memoryBytes: 256 * 2 ** 20, vcpus: 2, kernel, initrd, append: 'console=ttyS0' });
 * machine.serial.onOutput((bytes) => process.stdout.write(bytes));
 * let result = machine.run({ guestNanoseconds: 10_000_000 });
 * while (result.kind === 'budget') result = machine.run({ guestNanoseconds: 10_000_000 });
 * console.log(machine.counters().total.eois);
 * machine.dispose();
 * ```
 *
 * Wrong input (a corrupt kernel, too little memory) throws a `UserError` with one line for the user; whatever the guest
 * does is a `RunResult`.
 */

// The machine
export {
  CallTracer,
  type PathCounts,
  pathCounts,
  type TracedAccess,
  type TracedPath,
  type TracedStep,
  type TracePoint,
} from './machine/call-tracer.ts';
export { SymbolTable } from './machine/symbol-table.ts';
export type { BootMethod } from './machine/boot/boot.ts';
export {
  EXIT_STATUS,
  Machine,
  type MachineOptions,
  type RunBudget,
  type RunEnd,
  type RunResult,
  TSC_HZ,
} from './machine/machine.ts';
export type { OutputListener, SerialConsole } from './machine/serial-console.ts';
export { PLATFORM_NAMES, type PlatformName } from './machine/platforms/all.ts';
export { UserError } from './machine/user-error.ts';
export { MAX_RAM_BYTES } from './memory/guest-memory.ts';
export { VERSION } from './version.ts';

// What it looks like to the guest
export {
  COST_PROFILES,
  type CostProfile,
  type CycleRange,
  costProfileNamed,
  DEFAULT_COST_PROFILE,
  parseCostProfile,
} from './kvm/cost-profile.ts';
export {
  DEFAULT_KVM_FEATURES,
  hasFeature,
  KVM_FEATURES,
  KVM_OFF,
  KVM_ON,
  type KvmFeature,
  type KvmFeatureSet,
  parseKvmFeatures,
} from './kvm/features.ts';
export type { Parsed } from './kvm/parsed.ts';

// What is counted
export { EXIT_REASONS, type ExitReason } from './kvm/exit.ts';
export { EOI_WRITE_CAUSES, type EoiWriteCause, NOT_ARMED_CAUSES, type NotArmedCause } from './kvm/pv-eoi.ts';
export {
  balance,
  type CountersSnapshot,
  difference,
  type InterruptBalance,
  type InterruptCounts,
  type VcpuCounts,
} from './trace/counters.ts';

// What the JIT did
export type { JitClock, JitReport, RegionExit, RegionRecord } from './engine/jit/jit-statistics.ts';
export { type DisassembledFunction, disassemble } from './wasm/disassembler.ts';

// What is traced
export { formatEvent, ftraceHeader, writeFtrace } from './trace/ftrace-text.ts';
export {
  TRACEPOINTS,
  type TraceEvent,
  type TraceFields,
  type TraceListener,
  type TracepointName,
  type Tracer,
} from './trace/tracepoints.ts';

// Guests
export { CPU_FEATURES, CPU_MODELS, type CpuModel, DEFAULT_CPU_MODEL, parseCpuModel } from './cpu/cpu-model.ts';
// The guest's side of the optimisation: APIC drivers as machine code, and a tiny kernel around them
export {
  compareObjdumps,
  DRIVER_NAMES,
  type DriverName,
  driverNamed,
  EOI_STATES,
  type EoiState,
  exitProgram,
  type ListedMethod,
  METHODS,
  objdump,
  type TinyKernel,
  type Workload,
  WORKLOADS,
} from './guest/index.ts';
export { buildInitramfs, busyboxApplets, type FileContent, type InitramfsOptions } from './guest-files/initramfs.ts';
export {
  COMMAND_INIT,
  COMMAND_PATH,
  DEFAULT_LOAD,
  EXIT_PROGRAM_PATH,
  SHELL_INIT,
  WORKLOAD_INIT,
} from './guest-files/init-scripts.ts';
export { EXIT_STATUS_PORT } from './devices/debug-ports.ts';
export { type FileEntry, readCpio, writeCpio } from './guest-files/cpio.ts';
export { packageTree } from './guest-files/package-tree.ts';

// Benchmarks
export {
  BENCHMARK_GROUPS,
  BENCHMARK_WORKLOADS,
  type BenchmarkFiles,
  type BenchmarkGroup,
  type BenchmarkHost,
  BenchmarkLog,
  type BenchmarkMeasurement,
  type BenchmarkPlan,
  type BenchmarkRun,
  type BenchmarkTimes,
  type BenchmarkWorkload,
  benchmarkCommandLine,
  benchmarkInitramfs,
  bestRun,
  geometricMean,
  hasRightChecksum,
  isMacroWorkload,
  runBenchmark,
} from './experiment/benchmark.ts';
export { formatBenchmark, nativeMilliseconds } from './experiment/benchmark-report.ts';

// Experiments
export { formatCounters } from './experiment/counters-report.ts';
export { LineReader, type Marker, parseMarker } from './experiment/markers.ts';
export {
  between,
  METRICS,
  type Measurement,
  type Metric,
  type MetricUnit,
  type Moment,
  metricNamed,
} from './experiment/measurement.ts';
export { cpuLimit, type CpuLimit, platformOf } from './experiment/driver-platform.ts';
export { formatDriverRun } from './experiment/driver-report.ts';
export { type DriverRun, type DriverRunOptions, type InterruptTally, runDriver } from './experiment/driver-run.ts';
export { formatSummary } from './experiment/report.ts';
export {
  type ExperimentEvent,
  type ExperimentHost,
  type ExperimentMachine,
  type ExperimentOptions,
  type RunRecord,
  runExperiment,
  WorkloadError,
} from './experiment/runner.ts';
export { formatDifference, MINIMUM_PAIRS, mean, type RelativeDifference, relativeDifference } from './experiment/statistics.ts';
export { DEFAULT_STRATEGIES, featuresFor, parseStrategies, STRATEGIES, type Strategy } from './experiment/strategy.ts';
export { type Baseline, type Comparison, type Summary, summarise } from './experiment/summary.ts';
export {
  driverEoiTable,
  eoiDocumentParts,
  linuxEoiPart,
  withGeneratedParts,
} from './experiment/eoi-document.ts';
export { pvEoiPicture } from './experiment/eoi-picture.ts';
export { type DriverEois, traceDriverEois } from './experiment/driver-eoi.ts';
export { type EoiCode, linuxEoiCode, tinyEoiCode } from './experiment/eoi-code.ts';
export { type Disassemble, pathListing, pathTable } from './experiment/eoi-report.ts';
export { type EoiTrace, traceEois, traceLinuxEois } from './experiment/eoi-trace.ts';
export { formatCount, formatSeconds } from './experiment/text-table.ts';
export { MAX_TINY_VCPUS, TINY_WORKLOADS, tinyGuest } from './experiment/tiny-guest.ts';
