import { criticalPoints } from './bounds.js';
import type { LeastSquaresProblem, NormalEquations } from './least-squares.js';
import type { Spectrum } from './spectra.js';
import type { Triple } from './triple.js';

/** What the composed map of a fit may reach on [0, 1], exactly and with every value moved by a bfloat16 rounding. */
export const limits = Object.freeze({ most: 1.25, perturbation: 2 ** -8, mostPerturbed: 1.3 });

/**
 * Every iteration maps [0, domain] into [0, 1], which moved outwards is [0, domain] again, but the last, which may
 * reach `limits.most`. Any list of triples can be scaled so, since a factor between two iterations changes nothing but
 * the numbers that stand for it. It keeps the bound of each iteration apart from those of the others: as one condition
 * on the composed map it would bend too sharply for a descent to follow.
 */
export const domain = 1 + limits.perturbation;

/** The greatest value an iteration may take. */
export function ceiling(iteration: number, steps: number): number {
  return iteration + 1 < steps ? 1 : limits.most;
}

/**
 * The least value at a local minimum. Without it a fit is free to map to 0 what lies between the singular values of its
 * spectrum. Early minima may lie lower, since later iterations raise them, but not so low that the rounding of a
 * product, 2⁻⁸ of its largest values, might pass 0.
 */
function lowest(iteration: number, steps: number): number {
  let least = 0.3;
  for (let i = iteration + 1; i < steps; i++) least *= 0.3;
  return Math.max(least, 0.01);
}

/**
 * The residuals of a list of triples, as one point of 3·steps numbers: σ − 1 after them for every value of the
 * spectrum, and what each iteration exceeds its bounds by. Derivatives are exact.
 */
export class FitProblem {
  readonly #spectrum: Spectrum;
  readonly #steps: number;
  /** Of one path: the value before each iteration, and the iteration's derivative there */
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
    // The end counts where it is an extreme and only there, so that the residuals stay continuous as a critical point
    // passes it.
    const rising = critical.length !== 1;
    const peaks = [...critical.slice(0, 1), ...(rising ? [domain] : [])];
    const valleys = rising ? critical.slice(1) : [domain];
    // The value at an extreme does not depend on its place to first order: the place counts as fixed.
    for (const x of peaks) {
      const over = this.#follow(point, x, iteration, iteration + 1) - ceiling(iteration, this.#steps);
      if (over > 0) equations.add(penalty, over, this.#derivatives);
    }
    for (const x of valleys) {
      const under = this.#follow(point, x, iteration, iteration + 1) - lowest(iteration, this.#steps);
      if (under < 0) equations.add(penalty, under, this.#derivatives);
    }
  }

  /** Where x goes in the iterations from `from` to before `to`; leaves the derivatives by the coefficients. */
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
