import { describe, expect, it } from 'vitest';
import { EscapeKey } from './escape-key.ts';

const typed = (...texts: string[]) => {
  const escape = new EscapeKey();
  const results = texts.map((text) => escape.filter(new TextEncoder().encode(text)));
  return {
    toGuest: results.map(({ toGuest }) => new TextDecoder().decode(toGuest)).join(''),
    commands: results.flatMap(({ commands }) => commands),
  };
};

describe('the escape key', () => {
  it('lets everything else through', () => {
    expect(typed('ls -l\r\x03\x04\xff')).toEqual({ toGuest: 'ls -l\r\x03\x04\xff', commands: [] });
  });

  it('leaves on Ctrl-A X, in either case, without sending anything', () => {
    expect(typed('a\x01xb\x01X')).toEqual({ toGuest: 'ab', commands: ['leave', 'leave'] });
  });

  it('helps on Ctrl-A H and prints counters on Ctrl-A S', () => {
    expect(typed('\x01h\x01s\x01?').commands).toEqual(['help', 'statistics', 'help']);
  });

  it('waits for the second key in the next chunk', () => {
    expect(typed('x\x01', 'x')).toEqual({ toGuest: 'x', commands: ['leave'] });
  });

  it('sends Ctrl-A on Ctrl-A A and on Ctrl-A Ctrl-A', () => {
    expect(typed('\x01a\x01\x01').toGuest).toBe('\x01\x01');
  });

  it('sends what it does not know as it was typed', () => {
    expect(typed('\x01q')).toEqual({ toGuest: '\x01q', commands: [] });
  });
});
