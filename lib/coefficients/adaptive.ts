import adaptiveTable from './adaptive-table.json';
import { fitTriples } from './fit.js';
import { cans, muon, paper, polarExpress, quintic } from './published.js';
import { defaultSpectrum, type Spectrum, withTail } from './spectra.js';
import type { Triple } from './triple.js';

/** The largest number of iterations that are fitted. Further ones would have nothing left to improve. */
export const mostFitted = 10;

/** Maps 1 to 1 with its first two derivatives 0 there, and [0, 1.25] into [0, 1.05]. */
const finisher: Triple = Object.freeze([1.875, -1.25, 0.375] as const);

/**
 * The table that `npm run coefficients` writes. A key is "shorter side x longer side : iterations", a value holds a, b,
 * c of each iteration in turn.
 */
const table: Readonly<Record<string, readonly number[]>> = adaptiveTable;

/** What has been fitted in this process, beside the table. */
const cache = new Map<string, readonly Triple[]>();

/** The shorter and the longer side of a matrix, and the number of iterations that are fitted. */
export type Task = readonly [m: number, n: number, steps: number];

/**
 * Returns the triples of the preset `adaptive`: from the shipped table, from memory, or from a fit (tens of
 * milliseconds). They depend only on the shorter and the longer side and on the number of iterations. After the tenth
 * iteration (15x − 10x³ + 3x⁵)/8 repeats.
 */
export function adaptiveTriples(rows: number, columns: number, steps: number): readonly Triple[] {
  const task = adaptiveTask(rows, columns, steps);
  const key = tableKey(...task);
  let triples = cache.get(key) ?? fromTable(key);
  if (triples === undefined) {
    triples = fitAdaptive(...task);
    cache.set(key, triples);
  }
  const further = steps - triples.length;
  return further > 0 ? [...triples, ...Array.from({ length: further }, () => finisher)] : triples;
}

/** The fit that `adaptiveTriples` takes its triples from. */
export function adaptiveTask(rows: number, columns: number, steps: number): Task {
  return [Math.min(rows, columns), Math.max(rows, columns), Math.min(steps, mostFitted)];
}

/** Whether the triples are there without a fit. */
export function isFitted(task: Task): boolean {
  const key = tableKey(...task);
  return cache.has(key) || Object.hasOwn(table, key);
}

/** Keeps what was fitted elsewhere. */
export function remember(task: Task, triples: readonly Triple[]): void {
  cache.set(tableKey(...task), Object.freeze(triples.map(([a, b, c]) => Object.freeze([a, b, c] as const))));
}

/** Fits the triples anew. `npm run coefficients` writes the table with it. */
export function fitAdaptive(rows: number, columns: number, steps: number): readonly Triple[] {
  return fitToSpectrum(defaultSpectrum(rows, columns), rows, columns, steps);
}

/**
 * Fits triples to a spectrum. The fit starts from every preset; of `paper` it takes the triple of the nearest shape.
 */
export function fitToSpectrum(spectrum: Spectrum, rows: number, columns: number, steps: number): readonly Triple[] {
  return fitTriples(withTail(spectrum, rows, columns), steps, [
    muon,
    polarExpress,
    cans,
    quintic,
    nearestPaper(rows, columns),
  ]);
}

function nearestPaper(rows: number, columns: number): readonly Triple[] {
  const [m, n] = [Math.min(rows, columns), Math.max(rows, columns)];
  const distance = ([k, l]: readonly [number, number]) => Math.abs(Math.log(k / m)) + Math.abs(Math.log(l / n));
  return paper.reduce((a, b) => (distance(b.shape) < distance(a.shape) ? b : a)).triples;
}

export function tableKey(m: number, n: number, steps: number): string {
  return `${m}x${n}:${steps}`;
}

function fromTable(key: string): readonly Triple[] | undefined {
  const numbers = table[key];
  if (numbers === undefined) return undefined;
  const triple = (i: number): Triple =>
    Object.freeze([numbers[3 * i]!, numbers[3 * i + 1]!, numbers[3 * i + 2]!] as const);
  return Object.freeze(Array.from({ length: numbers.length / 3 }, (_, i) => triple(i)));
}
