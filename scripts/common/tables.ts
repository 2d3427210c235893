export { formatRow, formatTable } from '../../lib/cli/table.js';

/** The first two lines of a table in Markdown. */
export function markdownHead(cells: readonly string[]): string {
  return `${markdownRow(cells)}\n|${'---|'.repeat(cells.length)}`;
}

export function markdownRow(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}
