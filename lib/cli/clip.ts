import { checkThreshold } from '../threshold.js';
import { isRecord } from '../validate.js';

/**
 * ε = scale · quantile of |U|, by the setting `threshold` of a group; undefined where nothing is clipped.
 * @throws RootError ERR_INVALID_ARGUMENT for a setting that no optimizer has written
 */
export function thresholdOf(values: Float32Array, setting: unknown): number | undefined {
  if (!isRecord(setting)) return undefined;
  const { quantile, scale } = checkThreshold(setting);
  const sorted = values.map(Math.abs).sort();
  const rank = (sorted.length - 1) * quantile;
  const low = sorted[Math.floor(rank)]!;
  const epsilon = scale * (low + (rank - Math.floor(rank)) * (sorted[Math.ceil(rank)]! - low));
  return epsilon > 0 ? epsilon : undefined;
}

/** clamp(U, −ε, ε) with the ε of `thresholdOf`. */
export function clipped(values: Float32Array, setting: unknown): Float32Array {
  const epsilon = thresholdOf(values, setting);
  return epsilon === undefined ? values : values.map((value) => Math.min(Math.max(value, -epsilon), epsilon));
}

/** The share of Σ|U| beyond ε. */
export function shareBeyond(values: Float32Array, epsilon: number | undefined): number {
  if (epsilon === undefined) return 0;
  let [all, beyond] = [0, 0];
  for (const value of values) {
    all += Math.abs(value);
    beyond += Math.max(0, Math.abs(value) - epsilon);
  }
  return all === 0 ? 0 : beyond / all;
}
