import type { Precision } from '../../binding.js';
import { adaptiveTriples } from './adaptive.js';
import { composedBounds } from './bounds.js';
import { type Calibration, calibratedTriples, checkCalibration, isCalibration } from './calibration.js';
import { expected, RootError } from '../errors.js';
import { cans, muon, paper, polarExpress, quintic } from './published.js';
import { checkShape, integer, product } from '../validate.js';

/** a, b, c of one Newton-Schulz iteration, which maps every singular value x to ax + bx³ + cx⁵. */
export type Triple = readonly [a: number, b: number, c: number];

/**
 * Named coefficients. Each but `paper` keeps singular values in [0, 1] within [0, 1.25] at 5 iterations or more, `adaptive` at any number; in
 * between, and at fewer iterations, `polar-express` and `cans` reach 1.99 and `quintic` 1.27. Where a list is shorter than the
 * number of iterations its last triple repeats.
 *
 * - `muon`: one triple for every iteration (Keller Jordan, https://kellerjordan.github.io/posts/muon).
 * - `paper`: ROOT's published triples, one a shape (arXiv 2511.20626), `muon` for shapes it gives none for. Exactly as published, and
 *   that of 2048×2048 is not a bounded map: its peak 1.22459 lies above its unstable fixed point 1.22355, so that singular values
 *   near 0.559 of an iteration leave five iterations at up to 3.31, six at up to 679.
 * - `polar-express`: optimal for the spectral norm, iteration by iteration (arXiv 2505.16932), with its safety factor 1.01.
 * - `cans`: Chebyshev-optimal (arXiv 2506.10935).
 * - `quintic`: You Jiacheng's sequence (https://x.com/YouJiacheng/status/1893704552689303901).
 * - `adaptive`, the default: a triple for each iteration, fitted to the shape and the number of iterations. They minimise the mean square of
 *   σ − 1 over the spectra of Gaussian matrices of that shape (Marchenko-Pastur) at weight 3 and spectra that decay as i^−p, p from 0.5 to 1,
 *   at weight 1, the proportion in which ROOT's paper mixes random matrices with momentum; a thousandth goes to longer tails. The map stays within [0, 1.25], and within 1.3
 *   where every value is moved by a bfloat16 rounding (2⁻⁸); between iterations values peak at 1. Common shapes come from a
 *   table, others are fitted when they are first asked for, in tens of milliseconds, and kept in memory. With `steps: 4` it costs a fifth less and
 *   is no less precise than `muon` with 5, but for large matrices that are nearly square (docs/coefficients.md).
 */
export type Preset = 'muon' | 'paper' | 'polar-express' | 'cans' | 'quintic' | 'adaptive';

/**
 * A preset's name, one triple for every iteration, a list of triples, an iteration each, or what `root-optimizer calibrate` has written (the
 * parsed JSON): triples by the names of parameters or by shapes, `adaptive` for what it does not hold.
 */
export type Coefficients = Preset | Triple | readonly Triple[] | Calibration;

const presets: Readonly<Record<Preset, (rows: number, columns: number, steps: number) => readonly Triple[]>> = {
  muon: () => muon,
  paper: (rows, columns) => {
    const [m, n] = [Math.min(rows, columns), Math.max(rows, columns)];
    return paper.find(({ shape }) => shape[0] === m && shape[1] === n)?.triples ?? muon;
  },
  'polar-express': () => polarExpress,
  cans: () => cans,
  quintic: () => quintic,
  adaptive: adaptiveTriples,
};

export const presetNames = Object.freeze(Object.keys(presets)) as readonly Preset[];

/** Bounded so that a slip (a count of training steps, say) does not turn a step into hours. */
export const checkSteps = integer(1, 100);

/** Iterations where none are given: 5, as many as a longer list of triples holds, or those of a calibration. */
export function defaultSteps(coefficients: Coefficients): number {
  if (isCalibration(coefficients)) return coefficients.steps;
  return isList(coefficients) ? Math.max(5, coefficients.length) : 5;
}

function isList(coefficients: Preset | Triple | readonly Triple[]): coefficients is readonly Triple[] {
  return typeof coefficients !== 'string' && Array.isArray(coefficients[0]);
}

/** Checks `coefficients` and copies them frozen. */
export function checkCoefficients(coefficients: unknown, name = 'coefficients'): Coefficients {
  const names = presetNames.map((preset) => `"${preset}"`).join(', ');
  if (typeof coefficients === 'string' && Object.hasOwn(presets, coefficients)) return coefficients as Preset;
  if (isCalibration(coefficients)) return checkCalibration(coefficients, name);
  if (!Array.isArray(coefficients) || coefficients.length === 0) {
    throw expected(name, `one of ${names}, [a, b, c], a list of [a, b, c] or a calibration`, coefficients);
  }
  return Array.isArray(coefficients[0]) ? checkTriples(coefficients, name) : checkTriple(coefficients, name);
}

/** Frozen copies. */
export function checkTriples(triples: readonly unknown[], name: string): readonly Triple[] {
  return Object.freeze(Array.from(triples, (triple, i) => checkTriple(triple, `${name}[${i}]`)));
}

function checkTriple(triple: unknown, name: string): Triple {
  const fits = (value: unknown) => typeof value === 'number' && Number.isFinite(Math.fround(value));
  if (!Array.isArray(triple) || triple.length !== 3 || !triple.every(fits)) throw expected(name, 'three finite numbers [a, b, c]', triple);
  return Object.freeze([...(triple as [number, number, number])]);
}

/**
 * The first `steps` triples for a matrix of that shape, the last one repeated where there are fewer.
 * @param name of the parameter that the matrix is of, for a calibration
 * @throws RootError ERR_INVALID_ARGUMENT where a calibration is for another number of iterations
 */
export function triplesFor(rows: number, columns: number, coefficients: Coefficients, steps: number, name?: string): Triple[] {
  const list = listFor(rows, columns, coefficients, steps, name);
  return Array.from({ length: steps }, (_, i) => list[Math.min(i, list.length - 1)]!);
}

/**
 * The same for products of that precision.
 * @throws RootError ERR_INVALID_ARGUMENT as well where the iteration diverges
 */
export function boundedTriplesFor(rows: number, columns: number, coefficients: Coefficients, steps: number, precision: Precision, name?: string): Triple[] {
  const triples = triplesFor(rows, columns, coefficients, steps, name);
  if (typeof coefficients !== 'string' || precision !== 'float32' || coefficients === 'paper') checkBounded(triples, precision);
  return triples;
}

/** Three times what ROOT's published triples reach in five iterations; a direction that long would be no step of the optimizer any more. */
const mostGrowth = 10;

/** By how much rounding to an operand's precision moves a value, relative to it; float32's is too little to matter. */
const rounding: Readonly<Record<Precision, number>> = { float16: 2 ** -11, bfloat16: 2 ** -8, float32: 0 };

function checkBounded(triples: readonly Triple[], precision: Precision): void {
  const { least, most } = composedBounds(triples, rounding[precision]);
  if (most <= mostGrowth && least >= -mostGrowth) return;
  const reach = Math.max(most, -least);
  const got = `ones that take some to ${Number.isFinite(reach) ? reach.toPrecision(3) : 'infinity'} in ${triples.length} iterations`;
  const rounded = precision === 'float32' ? '' : `, rounded to ${precision},`;
  throw new RootError('ERR_INVALID_ARGUMENT', `Expected coefficients to keep singular values in [0, 1]${rounded} within ${mostGrowth}, got ${got}`);
}

function listFor(rows: number, columns: number, coefficients: Coefficients, steps: number, name: string | undefined): readonly Triple[] {
  if (typeof coefficients === 'string') return presets[coefficients](rows, columns, steps);
  if (isCalibration(coefficients)) return calibratedTriples(coefficients, rows, columns, steps, name) ?? adaptiveTriples(rows, columns, steps);
  return isList(coefficients) ? coefficients : [coefficients];
}

/**
 * The coefficients that a step would use for a matrix of `shape`, one triple an iteration.
 * @param shape two or more dimensions; more than two are read as [shape[0], the rest]
 * @param coefficients a preset's name, one triple, a list of triples, or a calibration, of which those by shape count here
 * @param steps number of iterations, 1 to 100; 5, the length of a longer list, or those of a calibration, if absent
 * @throws RootError ERR_INVALID_ARGUMENT
 */
export function newtonSchulzCoefficients(
  shape: readonly number[],
  coefficients: Coefficients = 'adaptive',
  steps?: number,
): readonly Triple[] {
  const [rows, ...rest] = checkShape(shape, 'shape');
  if (rows === undefined || rest.length === 0) throw expected('shape', 'of at least 2 dimensions', shape);
  const checked = checkCoefficients(coefficients);
  const triples = triplesFor(rows, product(rest), checked, checkSteps(steps ?? defaultSteps(checked), 'steps'));
  return Object.freeze(triples.map(([a, b, c]) => Object.freeze([a, b, c] as const)));
}
