/**
 * Exitless in a browser: a module worker that runs a guest as it is told and posts what the guest prints, then how it ended. Machines want
 * SharedArrayBuffer, so the page is to be cross-origin isolated (`Cross-Origin-Opener-Policy: same-origin`,
 * `Cross-Origin-Embedder-Policy: require-corp`), and a worker, where modules of any size may be compiled and nobody waits for a frame.
 */
import { type CountersSnapshot, Machine, type MachineOptions, type RunResult } from 'exitless';

export interface GuestRequest {
  machine: Omit<MachineOptions, 'kernel' | 'initrd'>;
  /** URLs. */
  kernel: string;
  initrd?: string;
  /** Typed at power-on. */
  input: string;
  /** Guest time after which the run is broken off. */
  maxGuestSeconds: number;
}

export type GuestMessage =
  | { kind: 'output'; text: string }
  | { kind: 'failed'; reason: string }
  | {
      kind: 'ended';
      result: RunResult;
      counters: CountersSnapshot;
      guestNanoseconds: number;
      instructions: number;
      hostSeconds: number;
    };

const HOST_MILLISECONDS = 50;

const post = (message: GuestMessage): void => postMessage(message);
const fetchBytes = async (url: string): Promise<Uint8Array> => new Uint8Array(await (await fetch(url)).arrayBuffer());

async function run({ machine: options, kernel, initrd, input, maxGuestSeconds }: GuestRequest): Promise<void> {
  const machine = new Machine({
    ...options,
    kernel: await fetchBytes(kernel),
    ...(initrd && { initrd: await fetchBytes(initrd) }),
  });
  const decoder = new TextDecoder('latin1');
  machine.serial.onOutput((bytes) => post({ kind: 'output', text: decoder.decode(bytes) }));
  machine.serial.write(new TextEncoder().encode(input));
  const start = performance.now();
  let result: RunResult = { kind: 'budget' };
  while (result.kind !== 'ended' && machine.nowNanoseconds < maxGuestSeconds * 1e9) {
    const slice = performance.now();
    do result = machine.run({ guestNanoseconds: 10_000_000 });
    while (result.kind !== 'ended' && performance.now() < slice + HOST_MILLISECONDS);
    // Messages, such as input would be, get their turn.
    await new Promise((resolve) => setTimeout(resolve));
  }
  const { nowNanoseconds: guestNanoseconds, instructions } = machine;
  const hostSeconds = (performance.now() - start) / 1000;
  post({ kind: 'ended', result, counters: machine.counters(), guestNanoseconds, instructions, hostSeconds });
  machine.dispose();
}

addEventListener('message', ({ data }: MessageEvent<GuestRequest>) => {
  run(data).catch((error: unknown) => post({ kind: 'failed', reason: error instanceof Error ? `${error.stack}` : `${error}` }));
});
