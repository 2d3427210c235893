import { triplesFor } from '../../lib/coefficients/option.js';
import { singularValues } from '../../lib/coefficients/singular-values.js';
import { type Optimizer, orthogonalityError, orthogonalize, type Parameter } from '../../lib/index.js';

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

/** What clips the gradient, in a group and in the state of a parameter. A library without it has neither. */
interface GradientClipping {
  readonly gradientThreshold?: { readonly growth: number | null } | null;
}
interface GradientState {
  readonly step: number;
  readonly gradientThreshold?: number | null;
  readonly gradientScale?: number | null;
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
  const { momentumBuffer, threshold, step } = state;
  const { name } = parameter;
  const { growth = null } = (group as GradientClipping).gradientThreshold ?? {};
  const grad = clipGradient(parameter.grad, state, growth);
  const { rows, columns } = parameter.matrices[0]!;
  const { momentum, nesterov, steps } = group;
  const most = threshold === null || threshold === 0 ? Infinity : threshold;
  const base = momentumBuffer.map((value, i) =>
    Math.min(Math.max(nesterov ? grad[i]! + momentum * value : value, -most), most),
  );
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

/**
 * Returns the gradient as the last step added it to the momentum: clipped at the threshold ε, and scaled so that the
 * threshold is at most `growth` times e, the running mean of the thresholds before it.
 */
export function clipGradient(
  gradient: Float32Array,
  { gradientThreshold: threshold, gradientScale: mean }: GradientState,
  growth: number | null,
): Float32Array {
  if (threshold === undefined || threshold === null || threshold === 0) return gradient;
  // The state holds the mean after the step, 0.9·e + 0.1·f·ε. With the factor f = 1 it was e; otherwise f·ε = growth·e.
  const unscaled = ((mean ?? threshold) - 0.1 * threshold) / 0.9;
  const scaled = growth !== null && growth * unscaled < threshold;
  const factor = scaled ? (growth * (mean ?? threshold)) / (0.9 + 0.1 * growth) / threshold : 1;
  return gradient.map((value) => factor * Math.min(Math.max(value, -threshold), threshold));
}
