import type { Precision } from '../../binding.js';
import { expected, RootError } from '../errors.js';
import { checkShape, integer, product } from '../validate.js';
import { adaptiveTask, adaptiveTriples, type Task } from './adaptive.js';
import { composedBounds } from './bounds.js';
import { calibratedTriples, type Calibration, checkCalibration, isCalibration } from './calibration.js';
import { type Preset, presetNames, presets } from './presets.js';
import { checkTriple, checkTriples, type Triple } from './triple.js';

/**
 * The coefficients of the Newton-Schulz iterations. One of:
 *
 * - a preset's name
 * - one triple for every iteration
 * - a list of triples, one per iteration
 * - the parsed JSON that `root-optimizer calibrate` has written: triples by the names of parameters or by shapes.
 *   Matrices that it does not cover use `adaptive`.
 */
export type Coefficients = Preset | Triple | readonly Triple[] | Calibration;

/**
 * Checks a number of iterations. The bound keeps a slip (a count of training steps, say) from turning a step into
 * hours.
 */
export const checkSteps = integer(1, 100);

/**
 * The number of iterations where none is given: that of a calibration, else 5 or the length of a longer list of
 * triples.
 */
export function defaultSteps(coefficients: Coefficients): number {
  if (isCalibration(coefficients)) return coefficients.steps;
  if (coefficients === 'deepseek-v4') return 10;
  return isList(coefficients) ? Math.max(5, coefficients.length) : 5;
}

function isList(coefficients: Preset | Triple | readonly Triple[]): coefficients is readonly Triple[] {
  return typeof coefficients !== 'string' && Array.isArray(coefficients[0]);
}

/** Checks `coefficients` and returns a frozen copy. */
export function checkCoefficients(coefficients: unknown, name = 'coefficients'): Coefficients {
  const names = presetNames.map((preset) => `"${preset}"`).join(', ');
  if (typeof coefficients === 'string' && Object.hasOwn(presets, coefficients)) return coefficients as Preset;
  if (isCalibration(coefficients)) return checkCalibration(coefficients, name);
  if (!Array.isArray(coefficients) || coefficients.length === 0) {
    throw expected(name, `one of ${names}, [a, b, c], a list of [a, b, c] or a calibration`, coefficients);
  }
  return Array.isArray(coefficients[0]) ? checkTriples(coefficients, name) : checkTriple(coefficients, name);
}

/**
 * Returns the first `steps` triples for a matrix of this shape. Where there are fewer, the last one repeats.
 * @param name the name of the matrix's parameter, for a calibration
 * @throws RootError ERR_INVALID_ARGUMENT where a calibration is for another number of iterations
 */
export function triplesFor(
  rows: number,
  columns: number,
  coefficients: Coefficients,
  steps: number,
  name?: string,
): Triple[] {
  const list = listFor(rows, columns, coefficients, steps, name);
  return Array.from({ length: steps }, (_, i) => list[Math.min(i, list.length - 1)]!);
}

/**
 * Like `triplesFor`, for products of this precision.
 * @throws RootError ERR_INVALID_ARGUMENT also where the iteration diverges
 */
export function boundedTriplesFor(
  rows: number,
  columns: number,
  coefficients: Coefficients,
  steps: number,
  precision: Precision,
  name?: string,
): Triple[] {
  const triples = triplesFor(rows, columns, coefficients, steps, name);
  if (typeof coefficients !== 'string' || precision !== 'float32' || coefficients === 'paper') {
    checkBounded(triples, precision);
  }
  return triples;
}

/**
 * The largest size that iterations may bring a singular value to. It is three times what ROOT's published triples reach
 * in five iterations. A direction that long would no longer be a step of the optimizer.
 */
const mostGrowth = 10;

/**
 * How far rounding to an operand's precision moves a value, relative to the value. That of float32 is too small to
 * matter.
 */
const rounding: Readonly<Record<Precision, number>> = {
  float16: 2 ** -11,
  bfloat16: 2 ** -8,
  bfloat16x3: 2 ** -16,
  float32: 0,
};

function checkBounded(triples: readonly Triple[], precision: Precision): void {
  const { least, most } = composedBounds(triples, rounding[precision]);
  if (most <= mostGrowth && least >= -mostGrowth) return;
  const reach = Math.max(most, -least);
  const where = Number.isFinite(reach) ? reach.toPrecision(3) : 'infinity';
  const got = `ones that take some to ${where} in ${triples.length} iterations`;
  const rounded = precision === 'float32' ? '' : `, rounded to ${precision},`;
  throw new RootError(
    'ERR_INVALID_ARGUMENT',
    `Expected coefficients to keep singular values in [0, 1]${rounded} within ${mostGrowth}, got ${got}`,
  );
}

function listFor(
  rows: number,
  columns: number,
  coefficients: Coefficients,
  steps: number,
  name: string | undefined,
): readonly Triple[] {
  if (typeof coefficients === 'string') return presets[coefficients](rows, columns, steps);
  if (isCalibration(coefficients)) {
    return calibratedTriples(coefficients, rows, columns, steps, name) ?? adaptiveTriples(rows, columns, steps);
  }
  return isList(coefficients) ? coefficients : [coefficients];
}

/** The fit that `triplesFor` needs, for `fitOnThread` to do ahead. Only `adaptive` is fitted. */
export function fitFor(
  rows: number,
  columns: number,
  coefficients: Coefficients,
  steps: number,
  name?: string,
): Task[] {
  const isFitted =
    coefficients === 'adaptive' ||
    (isCalibration(coefficients) && calibratedTriples(coefficients, rows, columns, steps, name) === undefined);
  return isFitted ? [adaptiveTask(rows, columns, steps)] : [];
}

/**
 * Returns the coefficients that a step would use for a matrix of `shape`, one triple per iteration.
 * @param shape two or more dimensions; more than two are read as [shape[0], the rest]
 * @param coefficients a preset's name, one triple, a list of triples, or a calibration, of which only the entries by
 * shape count here
 * @param steps number of iterations, 1 to 100. Default: 5, the length of a longer list, or the number of a calibration.
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
