import { triplesFor } from '../../lib/coefficients/option.js';
import { singularValues } from '../../lib/coefficients/singular-values.js';
import { type Optimizer, orthogonalityError, orthogonalize, type Parameter } from '../../lib/index.js';
import { replay } from '../../lib/train/watch.js';

/** A matrix before and after the iterations of a step. */
export interface Orthogonality {
  readonly step: number;
  readonly matrix: string;
  /** The distance to the polar factor, ‖X − UVᵀ‖ / √m. */
  readonly error: number;
  /**
   * Singular values in descending order: `before` are those of the matrix that went into the iterations, divided by its
   * Frobenius norm, `after` are those of the result.
   */
  readonly spectra?: { readonly before: readonly number[]; readonly after: readonly number[] };
}

/**
 * Repeats the last step's orthogonalisation, while momentum and gradient are as the step left them.
 * @param parameter a parameter that is one matrix; with `normalize`, it is measured before its rows are normalised
 * @returns undefined where AdamW updates it
 */
export async function measureOrthogonality(
  optimizer: Optimizer,
  parameter: Parameter,
  withSpectra: boolean,
): Promise<Orthogonality | undefined> {
  const group = optimizer.paramGroups.find(({ params }) => params.includes(parameter));
  const state = optimizer.stateOf(parameter);
  if (group === undefined || group.algorithm === 'adamw' || !('momentumBuffer' in state)) return undefined;
  const { step } = state;
  const { name } = parameter;
  const { rows, columns } = parameter.matrices[0]!;
  const { steps } = group;
  const { base } = replay(parameter, 0, group, state);
  const coefficients = triplesFor(rows, columns, group.coefficients, steps, name);
  const result = await orthogonalize(base, [rows, columns], {
    coefficients,
    steps,
    device: optimizer.device.name,
    precision: optimizer.precision,
  });
  const error = orthogonalityError(result, [rows, columns]).polar;
  if (!withSpectra) return { step, matrix: name, error };
  const norm = Math.sqrt(base.reduce((sum, value) => sum + value * value, 0));
  const before = singularValues(base, rows, columns).values.map((value) => value / norm);
  return { step, matrix: name, error, spectra: { before, after: singularValues(result, rows, columns).values } };
}
