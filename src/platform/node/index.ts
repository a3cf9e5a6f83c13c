/**
 * What Exitless needs of Node, for programs that run there (`exitless/node`): files, Debian's kernel, clock and event loop.
 */

export { type GuestArchitecture, type DebianPackagesOptions, DEFAULT_CACHE_FOLDER } from './apt.ts';
export {
  type BenchmarkBits,
  type BenchmarkGuest,
  type BenchmarkProgram,
  benchmarkGuest,
  benchmarkHost,
  hostVersions,
  logChild,
  runNatively,
  runsNatively,
  threadTimes,
} from './benchmark-host.ts';
export {
  DEBIAN_KERNELS,
  type DebianKernel,
  type DebianPackage,
  debianBusybox,
  debianGuestFiles,
  debianPackages,
  type GuestFiles,
  type GuestFilesOptions,
  type PackageRequest,
} from './debian-packages.ts';
export { type DebianTree, type DebianTreeOptions, debianTree } from './debian-tree.ts';
export { useBranchHints } from './branch-hints.ts';
export { createDisassembler } from './disassembler.ts';
export { fileErrorReason, readFiles, readInput } from './files.ts';
export { nodeHost } from './host.ts';
export { OutputFile } from './output-file.ts';
export { disassembleGuest, type GuestInstruction } from './disassemble-guest.ts';
