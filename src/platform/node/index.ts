/**
 * What Exitless needs of Node, for programs that run there (`exitless/node`): files, Debian's kernel, clock and event loop.
 */

export {
  type BenchmarkBits,
  type BenchmarkGuest,
  benchmarkGuest,
  benchmarkHost,
  hostVersions,
  logChild,
  runNatively,
  runsNatively,
  threadTimes,
} from './benchmark-host.ts';
export {
  DEFAULT_CACHE_FOLDER,
  type DebianPackage,
  type DebianPackagesOptions,
  debianGuestFiles,
  debianPackages,
  type GuestArchitecture,
  type GuestFiles,
  type GuestFilesOptions,
  type PackageRequest,
} from './debian-packages.ts';
export { fileErrorReason, readInput } from './files.ts';
export { nodeHost } from './host.ts';
export { OutputFile } from './output-file.ts';
