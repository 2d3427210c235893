import { criticalPoints } from './bounds.js';
import type { LeastSquaresProblem, NormalEquations } from './least-squares.js';
import type { Spectrum } from './spectra.js';
import type { Triple } from './triple.js';

/**
 * Limits of a fit's composed map on [0, 1]: `most` in exact arithmetic, `mostPerturbed` where a bfloat16 rounding moves
 * every value.
 */
export const limits = Object.freeze({ most: 1.25, perturbation: 2 ** -8, mostPerturbed: 1.3 });

/**
 * The end of the interval that every iteration maps from. Each iteration maps [0, domain] into [0, 1], and values in
 * [0, 1] that are moved outwards lie in [0, domain] again. Only the last iteration may reach further, up to
 * `limits.most`.
 *
 * Any list of triples can be scaled to this form, since a factor between two iterations changes only the numbers that
 * stand for the map. The form keeps the bound of each iteration apart from the bounds of the others. A single condition
 * on the composed map would bend too sharply for a descent to follow.
 */
export const domain = 1 + limits.perturbation;

/** The greatest value an iteration may take. */
export function ceiling(iteration: number, steps: number): number {
  return iteration + 1 < steps ? 1 : limits.most;
}

/**
 * The least value that an iteration may take at a local minimum. Without this bound a fit could map to 0 what lies
 * between the singular values of its spectrum. Early minima may lie lower, since later iterations raise them. They may
 * not lie so low that the rounding of a product, 2⁻⁸ of its largest values, could pass 0.
 */
function lowest(iteration: number, steps: number): number {
  let least = 0.3;
  for (let i = iteration + 1; i < steps; i++) least *= 0.3;
  return Math.max(least, 0.01);
}

/**
 * The residuals of a list of triples, given as one point of 3·steps numbers. There are two kinds: σ − 1 after the
 * iterations for every value of the spectrum, and the amount by which each iteration exceeds its bounds. Derivatives
 * are exact.
 */
export class FitProblem {
  readonly #spectrum: Spectrum;
  readonly #steps: number;
  /** The path of one value: the value before each iteration, and the iteration's derivative there */
  readonly #values: Float64Array;
  readonly #slopes: Float64Array;
  readonly #derivatives: Float64Array;

  constructor(spectrum: Spectrum, steps: number) {
    this.#spectrum = spectrum;
    this.#steps = steps;
    this.#values = new Float64Array(steps);
    this.#slopes = new Float64Array(steps);
    this.#derivatives = new Float64Array(3 * steps);
  }

  /** @param penalty the weight of the squared violations of the bounds */
  withPenalty(penalty: number): LeastSquaresProblem {
    return (point, equations) => {
      this.#addErrors(point, equations);
      for (let i = 0; i < this.#steps; i++) this.#addViolations(point, i, equations, penalty);
    };
  }

  #addErrors(point: Float64Array, equations: NormalEquations): void {
    const { values, weights } = this.#spectrum;
    for (let i = 0; i < values.length; i++) {
      const error = this.#follow(point, values[i]!, 0, this.#steps) - 1;
      equations.add(weights[i]!, error, this.#derivatives);
    }
  }

  #addViolations(point: Float64Array, iteration: number, equations: NormalEquations, penalty: number): void {
    const critical = criticalPoints(tripleAt(point, iteration)).filter((x) => x < domain);
    // The end of the domain counts only where it is an extreme. So the residuals stay continuous as a critical point
    // passes it.
    const rising = critical.length !== 1;
    const peaks = [...critical.slice(0, 1), ...(rising ? [domain] : [])];
    const valleys = rising ? critical.slice(1) : [domain];
    // The place of an extreme counts as fixed, because to first order the value does not depend on it.
    for (const x of peaks) {
      const over = this.#follow(point, x, iteration, iteration + 1) - ceiling(iteration, this.#steps);
      if (over > 0) equations.add(penalty, over, this.#derivatives);
    }
    for (const x of valleys) {
      const under = this.#follow(point, x, iteration, iteration + 1) - lowest(iteration, this.#steps);
      if (under < 0) equations.add(penalty, under, this.#derivatives);
    }
  }

  /**
   * Returns the value that x has after the iterations from `from` up to but not including `to`. Leaves the derivatives
   * with respect to the coefficients in `#derivatives`.
   */
  #follow(point: Float64Array, x: number, from: number, to: number): number {
    const values = this.#values;
    const slopes = this.#slopes;
    const derivatives = this.#derivatives;
    for (let i = from; i < to; i++) {
      const a = point[3 * i]!;
      const b = point[3 * i + 1]!;
      const c = point[3 * i + 2]!;
      const t = x * x;
      values[i] = x;
      slopes[i] = a + t * (3 * b + t * 5 * c);
      x *= a + t * (b + t * c);
    }
    derivatives.fill(0, 0, 3 * from);
    derivatives.fill(0, 3 * to);
    for (let i = to - 1, slope = 1; i >= from; i--) {
      const square = values[i]! * values[i]!;
      const first = slope * values[i]!;
      derivatives[3 * i] = first;
      derivatives[3 * i + 1] = first * square;
      derivatives[3 * i + 2] = first * square * square;
      slope *= slopes[i]!;
    }
    return x;
  }
}

function tripleAt(point: Float64Array, iteration: number): Triple {
  return [point[3 * iteration]!, point[3 * iteration + 1]!, point[3 * iteration + 2]!];
}

export function triplesOf(point: Float64Array): Triple[] {
  return Array.from({ length: point.length / 3 }, (_, i) => tripleAt(point, i));
}
