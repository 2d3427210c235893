/**
 * Formats rows of cells as lines. Every column is as wide as its widest cell.
 * @param rows rows with as many cells as the first
 * @param left whether a column is aligned to the left; the others are aligned to the right
 */
export function formatTable(rows: readonly (readonly string[])[], left: (column: number) => boolean): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) => formatRow(row, widths, left)).join('\n');
}

/** Formats one row of such a table, for rows that are printed one at a time. */
export function formatRow(
  cells: readonly string[],
  widths: readonly number[],
  left: (column: number) => boolean,
): string {
  const padded = cells.map((cell, i) => (left(i) ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)));
  return padded.join('  ').trimEnd();
}
