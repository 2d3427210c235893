import { compose } from '../lib/coefficients/bounds.js';
import { rmsError } from '../lib/coefficients/fit.js';
import { singularValues } from '../lib/coefficients/singular-values.js';
import { gaussianSpectrum } from '../lib/coefficients/spectra.js';
import { newtonSchulzCoefficients, orthogonalityError, orthogonalizeSync } from '../lib/index.js';
import * as reference from './reference.js';
import { expectError, gaussian } from './support.js';

test('known matrices', () => {
  const identity = Float32Array.from({ length: 12 }, (_, i) => (i % 5 === 0 ? 1 : 0));
  expect(orthogonalityError(identity, [3, 4])).toEqual({ gram: 0, polar: 0 });
  expect(orthogonalityError(new Float32Array(12), [3, 4])).toEqual({ gram: 1, polar: 1 });
  const { gram, polar } = orthogonalityError(
    identity.map((value) => value * 1.5),
    [3, 2, 2],
  );
  expect(gram).toBeCloseTo(1.25, 12);
  expect(polar).toBeCloseTo(0.5, 12);
  expect(orthogonalityError(Float32Array.of(3, 4), [1, 2]).polar).toBeCloseTo(4, 12);
  expect(orthogonalityError(Float32Array.of(3, 4), [2, 1]).polar).toBeCloseTo(4, 12);
});

test.each([
  [20, 50],
  [50, 20],
  [33, 33],
])('%i × %i against the singular values of the reference', (rows, columns) => {
  const x = orthogonalizeSync(gaussian(rows * columns), [rows, columns], { coefficients: 'muon' });
  const values = reference.singularValues(x, rows, columns);
  const mean = (f: (value: number) => number) =>
    Math.sqrt(values.reduce((sum, value) => sum + f(value), 0) / values.length);
  const { gram, polar } = orthogonalityError(x, [rows, columns]);
  expect(gram).toBeCloseTo(
    mean((value) => (value * value - 1) ** 2),
    6,
  );
  expect(polar).toBeCloseTo(
    mean((value) => (value - 1) ** 2),
    6,
  );
});

test('falls with the iterations', () => {
  const x = gaussian(96 * 256);
  const errors = [1, 2, 3, 4, 5].map(
    (steps) => orthogonalityError(orthogonalizeSync(x, [96, 256], { steps }), [96, 256]).polar,
  );
  for (const [i, error] of errors.slice(1).entries()) expect(error).toBeLessThan(errors[i]!);
  expect(errors[4]).toBeLessThan(5e-3);
});

test.each([
  [1100, 1200],
  [1200, 1100],
])(
  '%i × %i is estimated',
  (rows, columns) => {
    const { exact, values, weights } = singularValues(gaussian(rows * columns, 3), rows, columns);
    expect(exact).toBe(false);
    // A Gaussian matrix has mean σ² = n and mean σ⁴ = n² + mn.
    const mean = (power: number) => values.reduce((sum, value, i) => sum + weights[i]! * value ** power, 0);
    const [m, n] = [1100, 1200];
    expect(mean(0)).toBeCloseTo(1, 9);
    expect(mean(2) / n).toBeCloseTo(1, 1);
    expect(mean(4) / (n * n + m * n)).toBeCloseTo(1, 1);
  },
  60_000,
);

describe('what five iterations leave of 1100 × 1100 is estimated', () => {
  const m = 1100;
  const triples = newtonSchulzCoefficients([m, m]);

  test.each([0.5, 1])(
    'within 3 %% where singular values fall as i^−%f',
    (p) => {
      const vectors = orthogonalizeSync(gaussian(m * m), [m, m], { steps: 14 });
      const decaying = Array.from({ length: m }, (_, i) => (i + 1) ** -p);
      const norm = Math.sqrt(decaying.reduce((sum, value) => sum + value * value, 0));
      const values = decaying.map((value) => compose(triples, value / norm));
      const { gram, polar } = orthogonalityError(
        vectors.map((value, i) => value * values[i % m]!),
        [m, m],
      );
      const exact = (f: (value: number) => number) => Math.sqrt(values.reduce((sum, value) => sum + f(value), 0) / m);
      expect(Math.abs(polar / exact((value) => (value - 1) ** 2) - 1)).toBeLessThan(0.03);
      expect(Math.abs(gram / exact((value) => (value * value - 1) ** 2) - 1)).toBeLessThan(0.03);
    },
    60_000,
  );

  test('within 15 % for a Gaussian matrix', () => {
    const { polar } = orthogonalityError(orthogonalizeSync(gaussian(m * m), [m, m]), [m, m]);
    expect(Math.abs(polar / rmsError(triples, gaussianSpectrum(m, m)) - 1)).toBeLessThan(0.15);
  }, 60_000);
});

test('refuses', async () => {
  await expectError(
    () => orthogonalityError(new Float32Array(4), [4]),
    'ERR_INVALID_ARGUMENT',
    'at least 2 dimensions',
  );
  await expectError(() => orthogonalityError(new Float32Array(4), [2, 3]), 'ERR_SHAPE_MISMATCH', 'length 6');
  await expectError(() => orthogonalityError(Float32Array.of(1, NaN), [1, 2]), 'ERR_NON_FINITE', 'NaN at index 1');
});
