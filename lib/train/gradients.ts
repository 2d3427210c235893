import type { Parameter } from '../parameter.js';

/**
 * Adds up the gradients of micro-batches in arrays of its own, since every micro-batch fills the parameters' arrays
 * anew.
 */
export class GradientSum {
  readonly #parameters: readonly Parameter[];
  readonly #sums: readonly Float32Array[];
  #count = 0;

  constructor(parameters: readonly Parameter[]) {
    this.#parameters = parameters;
    this.#sums = parameters.map(({ size }) => new Float32Array(size));
  }

  add(): void {
    const first = this.#count++ === 0;
    this.#parameters.forEach(({ grad }, i) => {
      const sum = this.#sums[i]!;
      if (first) sum.set(grad);
      else for (let j = 0; j < sum.length; j++) sum[j]! += grad[j]!;
    });
  }

  /** Writes the mean into every `grad` and starts again. */
  writeMean(): void {
    const scale = 1 / this.#count;
    this.#parameters.forEach(({ grad }, i) => {
      const sum = this.#sums[i]!;
      for (let j = 0; j < sum.length; j++) grad[j] = sum[j]! * scale;
    });
    this.#count = 0;
  }
}

/**
 * Scales all gradients by one factor, so that their common Euclidean norm is at most `most`. Gradients that are not
 * finite stay as they are, for the optimizer to find.
 * @returns the norm before
 */
export function clipGradients(parameters: readonly Parameter[], most: number): number {
  let squares = 0;
  for (const { grad } of parameters) for (const value of grad) squares += value * value;
  const norm = Math.sqrt(squares);
  if (norm > most && Number.isFinite(norm)) {
    const scale = most / norm;
    for (const { grad } of parameters) for (let i = 0; i < grad.length; i++) grad[i]! *= scale;
  }
  return norm;
}
