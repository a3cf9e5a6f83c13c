/** Tables of plain text: the first column to the left, numbers to the right. */

export type Row = readonly string[];

export interface TextTableOptions {
  head: Row;
  /** A row of one cell is a heading in the table. */
  rows: readonly Row[];
  /** Columns that read from the left; the first one does unless this says otherwise. */
  leftColumns?: ReadonlySet<number>;
  gap?: number;
}

const FIRST_COLUMN: ReadonlySet<number> = new Set([0]);

/** Lines without trailing blanks, under a rule. */
export function textTable({ head, rows, leftColumns = FIRST_COLUMN, gap = 2 }: TextTableOptions): string {
  const widths = head.map((cell, column) => {
    const cells = rows.filter((row) => row.length > 1).map((row) => row[column] ?? '');
    return Math.max(cell.length, ...cells.map(({ length }) => length));
  });
  const line = (row: Row): string => {
    const cells = row.map((cell, column) =>
      leftColumns.has(column) ? cell.padEnd(widths[column]) : cell.padStart(widths[column]),
    );
    return cells.join(' '.repeat(gap)).trimEnd();
  };
  const width = widths.reduce((sum, one) => sum + one + gap, -gap);
  return [line(head), '─'.repeat(width), ...rows.map((row) => (row.length === 1 ? row[0] : line(row)))].join('\n');
}

/** `1,234,567`. */
export function formatCount(count: number): string {
  return Math.round(count)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ',');
}

/** Four digits of a time: `0.123`, `12.34`, `123.4`. */
export function formatSeconds(seconds: number): string {
  return seconds.toFixed(seconds < 10 ? 3 : seconds < 100 ? 2 : 1);
}
