/** How far an experiment is: one line that is rewritten on a terminal, a line per run elsewhere. */

import type { WriteStream } from 'node:tty';
import { type ExperimentEvent, formatSeconds, metricNamed } from '../index.ts';

const CLEAR_LINE = '\r\x1b[K';

export class Progress {
  private readonly stream: Pick<WriteStream, 'write' | 'isTTY' | 'columns'>;
  private current = '';

  constructor(stream: Pick<WriteStream, 'write' | 'isTTY' | 'columns'>) {
    this.stream = stream;
  }

  /** A line that stays. */
  line(text: string): void {
    this.stream.write(`${this.stream.isTTY ? CLEAR_LINE : ''}${text}\n`);
  }

  event(event: ExperimentEvent): void {
    switch (event.kind) {
      case 'run-started':
        this.current = `[${event.run}/${event.runs}] ${event.strategy}${event.repetition ? `, repetition ${event.repetition + 1}` : ''}`;
        this.transient(`${this.current}: power-on`);
        break;
      case 'run-progress':
        this.transient(`${this.current}: ${event.stage}, ${event.guestSeconds.toFixed(2)} s of guest time`);
        break;
      case 'run-finished': {
        const { boot, workload } = event.record;
        const written = metricNamed('eois.written').of(workload);
        const elided = metricNamed('eois.elided').of(workload);
        const times = `boot ${formatSeconds(boot.hostSeconds)} s, workload ${formatSeconds(workload.hostSeconds)} s`;
        this.line(`${this.current}: ${times}, ${written} EOIs written, ${elided} elided`);
        break;
      }
    }
  }

  private transient(text: string): void {
    if (this.stream.isTTY) this.stream.write(CLEAR_LINE + text.slice(0, (this.stream.columns ?? 80) - 1));
  }
}
