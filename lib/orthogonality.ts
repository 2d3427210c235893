import { checkArray, firstNonFinite } from './arrays.js';
import { singularValues } from './coefficients/singular-values.js';
import { expected, RootError } from './errors.js';
import { checkShape, product } from './validate.js';

export interface OrthogonalityError {
  /**
   * ‖XXᵀ − I‖ / √m in the Frobenius norm, which is the root mean square of σ² − 1. For a tall matrix it is formed with
   * XᵀX and the number of columns.
   */
  readonly gram: number;
  /**
   * ‖X − P‖ / √m in the Frobenius norm, where P = UVᵀ is the polar factor of X = UΣVᵀ. It is the root mean square of σ
   * − 1.
   */
  readonly polar: number;
}

/**
 * Measures how far a matrix of m × n, m ≤ n, is from having orthonormal rows, or orthonormal columns if it is tall.
 * This is what Newton-Schulz iterations have left to do. Both errors are 0 for an exact polar factor and 1 for a matrix
 * of zeros, and do not depend on the size.
 *
 * Iterations keep singular vectors. So `polar` is also the distance to the polar factor of the matrix that went into
 * them, except where that matrix is rank-deficient.
 *
 * Up to 1024 on the shorter side, it takes m²n + 4m³/3 operations of float64 on the calling thread, about four seconds
 * for 1024 × 1024. Above 1024 it estimates by Lanczos' method in 1024mn operations. After 4 to 6 iterations of
 * `adaptive`, the estimates are within 2 % of the exact values on decaying spectra and wide matrices of 1100 and 2048.
 * They are within 15 % on Gaussian square ones, where a few small singular values decide.
 * @param x row-major, such as `orthogonalize` returns
 * @param shape [m, n]; more dimensions are read as [shape[0], the rest]
 * @throws RootError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH, ERR_NON_FINITE
 */
export function orthogonalityError(x: Float32Array, shape: readonly number[]): OrthogonalityError {
  const [rows, ...rest] = checkShape(shape, 'shape');
  if (rows === undefined || rest.length === 0) throw expected('shape', 'of at least 2 dimensions', shape);
  const columns = product(rest);
  checkArray(x, rows * columns, 'x');
  const wrong = firstNonFinite(x);
  if (wrong !== undefined) throw new RootError('ERR_NON_FINITE', `Expected x to be finite, got ${wrong}`);
  const { values, weights } = singularValues(x, rows, columns);
  const mean = (f: (value: number) => number) => values.reduce((sum, value, i) => sum + weights[i]! * f(value), 0);
  return {
    gram: Math.sqrt(mean((value) => (value * value - 1) ** 2)),
    polar: Math.sqrt(mean((value) => (value - 1) ** 2)),
  };
}
