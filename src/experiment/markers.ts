/**
 * How a guest tells where its workload begins and ends: lines on the serial console. Between `@@ start` and `@@ done` is what
 * is compared; `@@ begin NAME` and `@@ end NAME` divide it into phases. Any /init that prints them can be compared.
 */

export type Marker = { kind: 'start' } | { kind: 'done' } | { kind: 'begin' | 'end'; phase: string };

/** Kernel messages may share the marker's line, before it. */
const MARKER = /@@ (?:(start|done)|(begin|end) ([\w.-]+))\s*$/;
/** More than a marker's line has; the rest of a longer line is not kept. */
const MAX_LINE = 4096;

/** The marker that a line ends with, if any. */
export function parseMarker(line: string): Marker | undefined {
  const match = MARKER.exec(line);
  if (!match) return undefined;
  if (match[1]) return { kind: match[1] as 'start' | 'done' };
  return { kind: match[2] as 'begin' | 'end', phase: match[3] };
}

/** Cuts a byte stream into lines, without their ends, as they are completed. */
export class LineReader {
  private readonly decoder = new TextDecoder();
  private readonly onLine: (line: string) => void;
  private partial = '';

  constructor(onLine: (line: string) => void) {
    this.onLine = onLine;
  }

  push(bytes: Uint8Array): void {
    const lines = (this.partial + this.decoder.decode(bytes, { stream: true })).split('\n');
    this.partial = (lines.pop() as string).slice(0, MAX_LINE);
    for (const line of lines) this.onLine(line.replace(/\r+$/, ''));
  }
}
