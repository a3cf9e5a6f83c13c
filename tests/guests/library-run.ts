/** Runs a machine made by the library to its end, with somebody at its console, and lets the test runner breathe in between. */
import { Machine, type MachineOptions, type RunResult, UserError } from '../../src/index.ts';

const SLICE_NANOSECONDS = 20_000_000;
const MODEM_CONTROL_PORT = 0x3fc;
const DTR_RTS = 0b11;

export interface ConsoleRun {
  result: RunResult;
  /** All that the guest printed. */
  output: string;
  guestSeconds: number;
}

export interface ConsoleOptions {
  /** When `prompt` has come since something was typed, `text` is: one after the other. */
  typing?: readonly { prompt: RegExp; text: string }[];
  /** For a guest that reads its serial port without raising RTS: as with a cable that has no such wire. */
  withoutRts?: boolean;
  /** Breaks the run off when true of the output. */
  until?: (output: string) => boolean;
  /** Breaks the run off at this time. */
  guestSeconds: number;
}

export async function runAtConsole(machineOptions: MachineOptions, options: ConsoleOptions): Promise<ConsoleRun> {
  const { typing = [], until = () => false, withoutRts = false, guestSeconds } = options;
  const machine = new Machine(machineOptions);
  try {
    let output = '';
    let typed = 0;
    /** What was printed since something was typed. */
    let answer = '';
    machine.serial.onOutput((bytes) => {
      const text = Buffer.from(bytes).toString('latin1');
      output += text;
      answer += text;
    });
    let result: RunResult;
    do {
      result = machine.run({ guestNanoseconds: SLICE_NANOSECONDS });
      if (typed < typing.length && typing[typed].prompt.test(answer)) {
        answer = '';
        if (withoutRts) machine.devices.ports.write(MODEM_CONTROL_PORT, 1, DTR_RTS);
        machine.serial.write(new TextEncoder().encode(typing[typed++].text));
      }
      await new Promise((resolve) => setImmediate(resolve));
    } while (result.kind === 'budget' && machine.nowNanoseconds < guestSeconds * 1e9 && !until(output));
    return { result, output, guestSeconds: machine.nowNanoseconds / 1e9 };
  } finally {
    machine.dispose();
  }
}

/** What `fetch` gives, or undefined with a warning where there is neither apt nor a cache: those tests are skipped then. */
export async function ifAvailable<Files>(fetch: Promise<Files>): Promise<Files | undefined> {
  try {
    return await fetch;
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    console.warn(`skipped: ${error.message}`);
    return undefined;
  }
}
