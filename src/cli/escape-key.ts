/**
 * Ctrl-A as the escape key of a console, as in QEMU and screen: what follows is for us. Bytes for the guest pass through.
 */

const CONTROL_A = 1;

/** What the user wants of us, in the order of the keys. */
export type EscapeCommand = 'leave' | 'help' | 'statistics';

export const ESCAPE_HELP = [
  'Ctrl-A X   leave: the machine stops at once',
  'Ctrl-A S   print the counters so far',
  'Ctrl-A H   this help',
  'Ctrl-A A   send Ctrl-A to the guest',
];

const COMMANDS: Record<string, EscapeCommand> = { x: 'leave', h: 'help', '?': 'help', s: 'statistics' };

export class EscapeKey {
  private escaped = false;

  /** Splits what was typed into bytes for the guest and commands for us. */
  filter(typed: Uint8Array): { toGuest: Uint8Array; commands: EscapeCommand[] } {
    const toGuest: number[] = [];
    const commands: EscapeCommand[] = [];
    for (const byte of typed) {
      if (!this.escaped) {
        if (byte === CONTROL_A) this.escaped = true;
        else toGuest.push(byte);
        continue;
      }
      this.escaped = false;
      const letter = String.fromCharCode(byte).toLowerCase();
      const command = COMMANDS[letter];
      if (command) commands.push(command);
      else if (letter === 'a' || byte === CONTROL_A) toGuest.push(CONTROL_A);
      else toGuest.push(CONTROL_A, byte); // not ours: the guest gets what was typed
    }
    return { toGuest: Uint8Array.from(toGuest), commands };
  }
}
