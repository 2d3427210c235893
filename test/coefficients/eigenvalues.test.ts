import { EigenvalueDecomposition, Matrix } from 'ml-matrix';
import { quadrature, tridiagonalize } from '../../lib/coefficients/eigenvalues.js';
import { random } from '../support.js';

const uniform = random(5);

/** Made by `element` below and on the diagonal, mirrored above it. */
function symmetric(size: number, element: (i: number, j: number) => number): Float64Array[] {
  const rows = Array.from({ length: size }, () => new Float64Array(size));
  for (let i = 0; i < size; i++) for (let j = 0; j <= i; j++) rows[i]![j] = rows[j]![i] = element(i, j);
  return rows;
}

const ascending = (values: readonly number[]) => [...values].sort((a, b) => a - b);

test.each([
  ['a number', symmetric(1, () => 3)],
  ['zeros', symmetric(5, () => 0)],
  ['the identity', symmetric(6, (i, j) => Number(i === j))],
  ['two rows', symmetric(2, uniform)],
  ['random', symmetric(60, () => uniform() - 0.5)],
  ['of rank one', symmetric(40, (i, j) => (i + 1) * (j + 1))],
  ['in blocks', symmetric(40, (i, j) => (i >> 2 === j >> 2 ? uniform() : 0))],
  ['of many sizes', symmetric(40, (i, j) => (i === j ? 10 ** (-i / 2) : 10 ** (-Math.max(i, j) / 2 - 3)))],
])('eigenvalues of a matrix: %s', (_, matrix) => {
  const expected = new EigenvalueDecomposition(new Matrix(matrix), { assumeSymmetric: true }).realEigenvalues;
  const size = Math.max(...expected.map(Math.abs), 1e-300);
  const found = quadrature(tridiagonalize(matrix)).map(([value]) => value);
  ascending(found).forEach((value, i) => expect(value / size).toBeCloseTo(ascending(expected)[i]! / size, 13));
});

test('nodes and weights are those of a Gauss quadrature: exact for polynomials of degree 2m − 1', () => {
  const diagonal = Float64Array.from({ length: 12 }, uniform);
  const beside = Float64Array.from({ length: 11 }, () => uniform() / 2);
  // The moment of degree k is the first element of the k-th power.
  let vector = diagonal.map((_, i) => Number(i === 0));
  for (let degree = 0; degree < 24; degree++) {
    const nodes = quadrature({ diagonal, beside });
    const moment = nodes.reduce((sum, [value, weight]) => sum + weight * value ** degree, 0);
    expect(moment / Math.max(1, Math.abs(vector[0]!))).toBeCloseTo(vector[0]! / Math.max(1, Math.abs(vector[0]!)), 12);
    vector = vector.map(
      (value, i) =>
        diagonal[i]! * value + (beside[i - 1] ?? 0) * (vector[i - 1] ?? 0) + (beside[i] ?? 0) * (vector[i + 1] ?? 0),
    );
  }
});
