import { allocate } from '../arrays.js';
import { quote } from '../errors.js';
import type { Parameter } from '../parameter.js';

/**
 * Adds up the gradients of micro-batches in arrays of its own, since every micro-batch fills the parameters' arrays
 * anew.
 */
export class GradientSum {
  readonly #parameters: readonly Parameter[];
  readonly #sums: readonly Float32Array[];
  #count = 0;
  #squares = 0;

  constructor(parameters: readonly Parameter[]) {
    this.#parameters = parameters;
    this.#sums = parameters.map(({ name, size }) => allocate(size, `the sum of gradients of parameter ${quote(name)}`));
  }

  add(): void {
    const first = this.#count++ === 0;
    this.#squares += squaredNorm(this.#parameters);
    this.#parameters.forEach(({ grad }, i) => {
      const sum = this.#sums[i]!;
      if (first) sum.set(grad);
      else for (let j = 0; j < sum.length; j++) sum[j]! += grad[j]!;
    });
  }

  /**
   * Writes the mean into every `grad` and starts again.
   * @returns how the gradients of the micro-batches differ
   */
  writeMean(): Spread {
    const count = this.#count;
    const scale = 1 / count;
    this.#parameters.forEach(({ grad }, i) => {
      const sum = this.#sums[i]!;
      for (let j = 0; j < sum.length; j++) grad[j] = sum[j]! * scale;
    });
    const mean = squaredNorm(this.#parameters);
    // Rounding may leave a little less than 0 where all are equal.
    const variance = Math.max(0, this.#squares - count * mean) / (count - 1);
    this.#count = 0;
    this.#squares = 0;
    return { count, mean, variance };
  }
}

/** The gradients of the micro-batches of a step. */
export interface Spread {
  /** How many there are, at least 2. */
  readonly count: number;
  /** ‖g‖² of their mean g. */
  readonly mean: number;
  /** Σ‖gᵢ − g‖² / (count − 1), an estimate of the trace of one's covariance. */
  readonly variance: number;
}

/**
 * The gradient noise scale in micro-batches: the trace of the covariance over an unbiased estimate of ‖G‖²
 * (McCandlish et al., arXiv 1812.06162, appendix A). Beyond as many of them, averaging brings little. It is infinite
 * where the noise hides the gradient.
 */
export function noiseScale({ count, mean, variance }: Spread): number {
  const signal = mean - variance / count;
  return signal > 0 ? variance / signal : Infinity;
}

/**
 * The number of micro-batches for which the norm test holds: variance / count ≤ θ²‖g‖² (AdAdaGrad, arXiv 2402.11215).
 * A number that passes stays.
 */
export function passingCount({ count, mean, variance }: Spread, theta: number, most: number): number {
  const needed = Math.ceil(variance / (theta * theta * mean));
  return Math.min(most, Math.max(count, Number.isNaN(needed) ? count : needed));
}

function squaredNorm(parameters: readonly Parameter[]): number {
  let squares = 0;
  for (const { grad } of parameters) for (const value of grad) squares += value * value;
  return squares;
}

/**
 * Scales all gradients by one factor, so that their common Euclidean norm is at most `most`. Gradients that are not
 * finite stay as they are, for the optimizer to find.
 * @returns the norm before
 */
export function clipGradients(parameters: readonly Parameter[], most: number): number {
  const norm = Math.sqrt(squaredNorm(parameters));
  if (norm > most && Number.isFinite(norm)) {
    const scale = most / norm;
    for (const { grad } of parameters) for (let i = 0; i < grad.length; i++) grad[i]! *= scale;
  }
  return norm;
}
