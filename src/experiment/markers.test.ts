import { describe, expect, it } from 'vitest';
import { LineReader, parseMarker } from './markers.ts';

describe('parseMarker', () => {
  it('knows start, done and the ends of phases', () => {
    expect(parseMarker('@@ start')).toEqual({ kind: 'start' });
    expect(parseMarker('@@ done')).toEqual({ kind: 'done' });
    expect(parseMarker('@@ begin ipi')).toEqual({ kind: 'begin', phase: 'ipi' });
    expect(parseMarker('@@ end ipi')).toEqual({ kind: 'end', phase: 'ipi' });
  });

  it('finds a marker behind a kernel message', () => {
    expect(parseMarker('[    1.2] random: crng@@ start')).toEqual({ kind: 'start' });
  });

  it('takes nothing else for one', () => {
    for (const line of ['', '@@', '@@ started', '@@ begin', 'echo "@@ start"', '@@ begin two words']) {
      expect(parseMarker(line), line).toBeUndefined();
    }
  });
});

describe('LineReader', () => {
  it('hands out a line when it ends, however it came in pieces', () => {
    const lines: string[] = [];
    const reader = new LineReader((line) => lines.push(line));
    const bytes = new TextEncoder().encode('one\r\ntwo ü\nthr');
    for (const byte of bytes) reader.push(Uint8Array.of(byte));
    expect(lines).toEqual(['one', 'two ü']);
    reader.push(new TextEncoder().encode('ee\n\n'));
    expect(lines).toEqual(['one', 'two ü', 'three', '']);
  });

  it('does not keep more of an endless line than a marker needs', () => {
    const lines: string[] = [];
    const reader = new LineReader((line) => lines.push(line));
    for (let i = 0; i < 100; i++) reader.push(new Uint8Array(1000).fill(0x78));
    reader.push(new TextEncoder().encode('\n'));
    expect(lines[0].length).toBeLessThan(6000);
  });
});
