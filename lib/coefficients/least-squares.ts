/** Adds up the squares of residuals and, for their minimisation, JᵀJ and Jᵀr. */
export class NormalEquations {
  readonly size: number;
  /** JᵀJ, row-major. Only its lower triangle is kept. */
  readonly matrix: Float64Array;
  /** Jᵀr */
  readonly vector: Float64Array;
  /** rᵀr */
  cost = 0;

  constructor(size: number) {
    this.size = size;
    this.matrix = new Float64Array(size * size);
    this.vector = new Float64Array(size);
  }

  clear(): void {
    this.matrix.fill(0);
    this.vector.fill(0);
    this.cost = 0;
  }

  /** Adds a residual with its weight and its derivatives. */
  add(weight: number, residual: number, derivatives: Float64Array): void {
    const { size, matrix, vector } = this;
    this.cost += weight * residual * residual;
    for (let i = 0; i < size; i++) {
      const scaled = weight * derivatives[i]!;
      vector[i]! += scaled * residual;
      const row = i * size;
      for (let j = 0; j <= i; j++) matrix[row + j]! += scaled * derivatives[j]!;
    }
  }

  /** Returns −(JᵀJ + damping · its diagonal)⁻¹ Jᵀr by Cholesky's decomposition, or undefined where that fails. */
  solve(damping: number): Float64Array | undefined {
    const { size, vector } = this;
    const lower = this.matrix.slice();
    const largest = diagonalMaximum(lower, size);
    for (let i = 0; i < size; i++) lower[i * size + i] = lower[i * size + i]! * (1 + damping) + largest * 1e-14;
    const solution = new Float64Array(size);
    for (let i = 0; i < size; i++) {
      const row = i * size;
      for (let j = 0; j <= i; j++) {
        let sum = lower[row + j]!;
        for (let k = 0; k < j; k++) sum -= lower[row + k]! * lower[j * size + k]!;
        if (i === j && !(sum > 0)) return undefined;
        lower[row + j] = i === j ? Math.sqrt(sum) : sum / lower[j * size + j]!;
      }
      let sum = -vector[i]!;
      for (let k = 0; k < i; k++) sum -= lower[row + k]! * solution[k]!;
      solution[i] = sum / lower[row + i]!;
    }
    for (let i = size - 1; i >= 0; i--) {
      let sum = solution[i]!;
      for (let k = i + 1; k < size; k++) sum -= lower[k * size + i]! * solution[k]!;
      solution[i] = sum / lower[i * size + i]!;
    }
    return solution;
  }
}

function diagonalMaximum(matrix: Float64Array, size: number): number {
  let most = 0;
  for (let i = 0; i < size; i++) most = Math.max(most, matrix[i * size + i]!);
  return most;
}

/** Fills the equations for a point. Leaves their cost not finite where the point has no value. */
export type LeastSquaresProblem = (point: Float64Array, equations: NormalEquations) => void;

/**
 * Finds the local minimum of a sum of squares that `start` leads to, by the method of Levenberg and Marquardt.
 * @param tolerance the search ends where a successful step lowers the cost by less than this share of it
 */
export function minimizeSquares(
  problem: LeastSquaresProblem,
  start: Float64Array,
  iterations: number,
  tolerance: number,
): Float64Array {
  let point = start;
  let here = new NormalEquations(start.length);
  let there = new NormalEquations(start.length);
  problem(point, here);
  for (let i = 0, damping = 1e-3; i < iterations && damping < 1e12; i++) {
    const step = here.solve(damping);
    if (step !== undefined) {
      const next = point.map((value, j) => value + step[j]!);
      there.clear();
      problem(next, there);
      if (there.cost < here.cost) {
        const gain = here.cost - there.cost;
        point = next;
        [here, there] = [there, here];
        if (gain <= tolerance * here.cost) break;
        damping = Math.max(damping / 5, 1e-14);
        continue;
      }
    }
    damping *= 4;
  }
  return point;
}
