/**
 * The guest's serial console on standard input and output: a terminal in raw mode with an escape key, or a pipe. The terminal
 * gets its mode back however the program ends.
 */

import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { ESCAPE_HELP, EscapeKey } from './escape-key.ts';

const SIGNALS = ['SIGTERM', 'SIGHUP', 'SIGINT'] as const;

export interface ConsoleOptions {
  /** Gets what was typed for the guest. */
  onInput(bytes: Uint8Array): void;
  /** The user wants to leave: Ctrl-A X, or nobody reads what we print any more. */
  onLeave(): void;
  onStatistics(): void;
}

export class TerminalConsole {
  readonly isTerminal: boolean;
  /** Nothing more will be typed: input was a pipe or a file. */
  inputHasEnded = false;
  private readonly options: ConsoleOptions;
  private readonly escape = new EscapeKey();
  /** Set while somebody waits for input. */
  private wake: (() => void) | undefined;
  private hasInput = false;
  private isClosed = false;

  constructor(options: ConsoleOptions) {
    this.options = options;
    this.isTerminal = process.stdin.isTTY === true;
    if (this.isTerminal) {
      process.stdin.setRawMode(true);
      process.on('exit', restoreTerminal);
      for (const signal of SIGNALS) process.on(signal, leaveBySignal);
    }
    process.stdin.on('data', this.typed);
    process.stdin.on('end', this.inputEnded);
    process.stdin.on('error', () => {});
    process.stdout.on('error', this.outputFailed);
  }

  /** From the guest to the screen. */
  write(bytes: Uint8Array): void {
    process.stdout.write(bytes);
  }

  /** A line of ours, told apart from the guest's. */
  notice(text: string): void {
    process.stderr.write(`${this.isTerminal ? '\n' : ''}${text}\n`);
  }

  /** Waits for so long, or until something was typed; at least one turn of the event loop. */
  async pause(milliseconds: number): Promise<void> {
    if (milliseconds <= 0 || this.hasInput) await new Promise((resolve) => setImmediate(resolve));
    else {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(milliseconds, 2 ** 31 - 1));
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.wake = undefined;
    }
    // A reader slower than the guest makes the guest wait, instead of filling our memory.
    if (process.stdout.writableNeedDrain && !process.stdout.destroyed) {
      await once(process.stdout, 'drain').catch(() => {}); // an error is `outputFailed`'s business
    }
    this.hasInput = false;
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    process.stdin.off('data', this.typed);
    process.stdin.off('end', this.inputEnded);
    process.stdin.pause();
    process.stdin.unref?.();
    if (this.isTerminal) {
      for (const signal of SIGNALS) process.off(signal, leaveBySignal);
      process.off('exit', restoreTerminal);
      restoreTerminal();
    }
  }

  private readonly typed = (bytes: Uint8Array): void => {
    const { toGuest, commands } = this.isTerminal ? this.escape.filter(bytes) : { toGuest: bytes, commands: [] };
    for (const command of commands) {
      if (command === 'leave') this.options.onLeave();
      else if (command === 'help') this.notice(ESCAPE_HELP.join('\n'));
      else this.options.onStatistics();
    }
    this.options.onInput(toGuest);
    this.hasInput = true;
    this.wake?.();
  };

  private readonly inputEnded = (): void => {
    this.inputHasEnded = true;
    this.wake?.();
  };

  private readonly outputFailed = (): void => {
    this.options.onLeave();
    this.wake?.();
  };
}

/** As the shell reports a process that a signal ended; by `exit`, so that the terminal is restored. */
function leaveBySignal(_signal: NodeJS.Signals, number: number): void {
  process.exit(128 + number);
}

function restoreTerminal(): void {
  process.stdin.setRawMode(false);
  // Guests switch such things on and do not switch them off: application cursor keys, a hidden cursor, colours.
  if (process.stdout.isTTY) writeSync(1, '\x1b[?1l\x1b[?25h\x1b[0m');
}
