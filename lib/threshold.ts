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
