import { expected } from './errors.js';
import { checkKeys, checkObject, interval, type Rule } from './validate.js';

/** Clips the look-ahead at ε = `scale` · the `quantile` of its absolute values over the whole matrix. */
export interface Threshold {
  readonly quantile: number;
  readonly scale: number;
}

/**
 * `robust`: quantile 0.5 and scale 3.5 / 0.6745. This clips at 3.5 standard deviations, as the median estimates them
 * for a normal distribution. `null`: no clipping.
 */
export type ThresholdOption =
  'robust' | { readonly quantile?: number | undefined; readonly scale?: number | undefined } | null;

const quantileRule = interval('[0, 1]');
const scaleRule = interval('(0, ∞)');
/** With a limit of 1 or less the mean of past thresholds could never grow. */
const growthRule = interval('(1, ∞)');

/** Checks the option `threshold` and completes it. Returns a frozen copy, or null where there is no clipping. */
export const checkThresholdOption: Rule<Threshold | null> = (value, name) => {
  if (value === null) return null;
  if (value === 'robust') return Object.freeze({ quantile: 0.5, scale: 3.5 / 0.6745 });
  if (typeof value !== 'object' || Array.isArray(value)) {
    throw expected(name, 'null, "robust" or { quantile, scale }', value);
  }
  const given = checkObject(value, name);
  checkKeys(given, ['quantile', 'scale'], `of ${name}`);
  return checkThreshold(given, `${name}.`);
};

/**
 * Checks a quantile in [0, 1], 0.9 if absent, and a scale above 0, 1 if absent.
 * @param prefix what the error message puts before their names
 * @throws RootError ERR_INVALID_ARGUMENT
 */
export function checkThreshold(
  given: { readonly quantile?: unknown; readonly scale?: unknown },
  prefix = '',
): Threshold {
  const { quantile = 0.9, scale = 1 } = given;
  return Object.freeze({
    quantile: quantileRule(quantile, `${prefix}quantile`),
    scale: scaleRule(scale, `${prefix}scale`),
  });
}

/**
 * Clips each gradient G before it is accumulated: at ε_G = `scale` · the `quantile` of |G|, matrix by matrix. The
 * clipped gradient is then scaled by min(1, `growth` · e / ε_G), where e is a running mean of past thresholds: a burst
 * in which the whole gradient grows counts for no more than `growth` times the usual. So e rises by at most a tenth of
 * `growth` − 1 at a step. `growth` null: no limit.
 */
export interface GradientThreshold extends Threshold {
  readonly growth: number | null;
}

/** `robust`: quantile 0.5, scale 3.5 / 0.6745 and growth 2. `null`: gradients are taken as they are. */
export type GradientThresholdOption =
  | 'robust'
  | {
      readonly quantile?: number | undefined;
      readonly scale?: number | undefined;
      readonly growth?: number | null | undefined;
    }
  | null;

/** Checks the option `gradientThreshold` and completes it: quantile 0.99, scale 1, growth 2. */
export const checkGradientThresholdOption: Rule<GradientThreshold | null> = (value, name) => {
  if (value === null) return null;
  if (value === 'robust') return Object.freeze({ quantile: 0.5, scale: 3.5 / 0.6745, growth: 2 });
  if (typeof value !== 'object' || Array.isArray(value)) {
    throw expected(name, 'null, "robust" or { quantile, scale, growth }', value);
  }
  const given = checkObject(value, name);
  checkKeys(given, ['quantile', 'scale', 'growth'], `of ${name}`);
  const { quantile = 0.99, scale, growth = 2 } = given;
  const threshold = checkThreshold({ quantile, scale }, `${name}.`);
  return Object.freeze({ ...threshold, growth: growth === null ? null : growthRule(growth, `${name}.growth`) });
};
