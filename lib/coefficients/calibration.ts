import { describe, expected, RootError } from '../errors.js';
import { checkShape, isRecord } from '../validate.js';
import { checkTriples, type Triple } from './triple.js';

/** Coefficients that `root-optimizer calibrate` has fitted to the momentum of a run, in the form that it writes. */
export interface Calibration {
  readonly format: 'root-optimizer-coefficients';
  readonly version: 1;
  /** The number of iterations of every entry. */
  readonly steps: number;
  readonly entries: readonly CalibrationEntry[];
}

/**
 * Coefficients for the matrices of the parameters `names`, or for all matrices of `shape` and their transposes. Where
 * an entry by name and one by shape both fit, the one by name applies.
 */
export interface CalibrationEntry {
  readonly names?: readonly string[];
  readonly shape?: readonly [rows: number, columns: number];
  /** One triple per iteration. */
  readonly coefficients: readonly Triple[];
}

export const calibrationFormat = 'root-optimizer-coefficients';

/** Whether a value is meant to be a calibration. `checkCalibration` checks that it is a valid one. */
export function isCalibration(coefficients: unknown): coefficients is Calibration {
  return isRecord(coefficients) && coefficients['format'] === calibrationFormat;
}

/**
 * Checks a calibration and returns a frozen copy of the fields that are used.
 * @throws RootError ERR_INVALID_ARGUMENT
 */
export function checkCalibration(value: unknown, name: string): Calibration {
  const { version, steps, entries } = value as Record<string, unknown>;
  if (version !== 1) throw expected(`${name}.version`, '1', version);
  if (!Number.isInteger(steps) || (steps as number) < 1 || (steps as number) > 100) {
    throw expected(`${name}.steps`, 'an integer in [1, 100]', steps);
  }
  if (!Array.isArray(entries) || entries.length === 0) throw expected(`${name}.entries`, 'a non-empty list', entries);
  const checked = entries.map((entry, i) => checkEntry(entry, steps as number, `${name}.entries[${i}]`));
  return Object.freeze({ format: calibrationFormat, version, steps: steps as number, entries: Object.freeze(checked) });
}

function checkEntry(entry: unknown, steps: number, name: string): CalibrationEntry {
  if (!isRecord(entry)) throw expected(name, 'an object', entry);
  const { names, shape, coefficients } = entry;
  if ((names === undefined) === (shape === undefined)) {
    throw expected(name, 'an object with either names or shape', entry);
  }
  if (!Array.isArray(coefficients) || coefficients.length !== steps) {
    throw expected(`${name}.coefficients`, `a list of ${steps} triples`, coefficients);
  }
  const triples = checkTriples(coefficients, `${name}.coefficients`);
  if (shape !== undefined) {
    const [rows, columns, ...rest] = checkShape(shape, `${name}.shape`);
    if (rows === undefined || columns === undefined || rest.length > 0) {
      throw expected(`${name}.shape`, '[rows, columns]', shape);
    }
    return Object.freeze({ shape: Object.freeze([rows, columns] as const), coefficients: triples });
  }
  if (!Array.isArray(names) || names.length === 0 || !names.every((one) => typeof one === 'string')) {
    throw expected(`${name}.names`, 'a non-empty list of names', names);
  }
  return Object.freeze({ names: Object.freeze([...names]), coefficients: triples });
}

/**
 * Returns the triples of the entry that fits a matrix, or undefined where there is none.
 * @throws RootError ERR_INVALID_ARGUMENT where the calibration is for another number of iterations
 */
export function calibratedTriples(
  calibration: Calibration,
  rows: number,
  columns: number,
  steps: number,
  name?: string,
): readonly Triple[] | undefined {
  checkCalibratedSteps(calibration, steps);
  const { entries } = calibration;
  const byName = name === undefined ? undefined : entries.find(({ names }) => names?.includes(name) === true);
  const byShape = () =>
    entries.find(
      ({ shape }) =>
        shape !== undefined &&
        Math.min(...shape) === Math.min(rows, columns) &&
        Math.max(...shape) === Math.max(rows, columns),
    );
  return (byName ?? byShape())?.coefficients;
}

/**
 * Checks that `steps` is a calibration's own number of iterations. Coefficients that are no calibration pass.
 * @throws RootError ERR_INVALID_ARGUMENT
 */
export function checkCalibratedSteps(coefficients: unknown, steps: number): void {
  if (!isCalibration(coefficients) || coefficients.steps === steps) return;
  throw new RootError(
    'ERR_INVALID_ARGUMENT',
    `Expected steps to be ${coefficients.steps}, as its calibration is, got ${describe(steps)}`,
  );
}
