import adaptiveTable from '../../lib/coefficients/adaptive-table.json';
import { adaptiveTriples, fitAdaptive, fitToSpectrum } from '../../lib/coefficients/adaptive.js';
import { composedBounds } from '../../lib/coefficients/bounds.js';
import { rmsError } from '../../lib/coefficients/fit.js';
import { NormalEquations } from '../../lib/coefficients/least-squares.js';
import { newtonSchulzCoefficients } from '../../lib/coefficients/option.js';
import { measuredSpectrum, mixedWithRandom } from '../../lib/coefficients/spectra.js';
import type { Triple } from '../../lib/coefficients/triple.js';
import { enclosure } from '../intervals.js';
import { random } from '../support.js';

const presets = ['muon', 'paper', 'polar-express', 'cans', 'quintic'] as const;
const shapes = [64, 128, 256, 512, 768, 1024, 2048, 4096, 8192, 16384].flatMap((m) =>
  [1, 2, 4, 16].filter((ratio) => m * ratio <= 16384).map((ratio): [number, number] => [m, m * ratio]),
);
const shipped = Object.entries(adaptiveTable).map(([key, numbers]) => ({ key, triples: listOf(numbers) }));

function listOf(numbers: readonly number[]): Triple[] {
  return Array.from({ length: numbers.length / 3 }, (_, i) => [
    numbers[3 * i]!,
    numbers[3 * i + 1]!,
    numbers[3 * i + 2]!,
  ]);
}

/**
 * Checks that the composed map stays within its limits, in exact arithmetic and where a bfloat16 rounding moves values.
 */
function expectBounded(triples: readonly Triple[]): void {
  const exact = enclosure(triples, 0);
  expect(exact.at(-1)!.high).toBeLessThanOrEqual(1.25);
  expect(exact.at(-1)!.low).toBeGreaterThan(-1e-3);
  const moved = enclosure(triples, 2 ** -8);
  expect(moved.at(-1)!.high).toBeLessThanOrEqual(1.3);
  for (const { low, high } of moved) {
    expect(high).toBeLessThan(2.2);
    expect(low).toBeGreaterThan(-1e-3);
  }
}

/**
 * √(mean of (σ − 1)²) over all singular values. Gaussian ones follow the Marchenko-Pastur law, decaying ones are
 * counted one by one.
 */
function exactErrors(
  [m, n]: readonly [number, number],
  triples: readonly Triple[],
): { mixture: number; gaussian: number; decaying: number } {
  const error = (x: number) =>
    (triples.reduce((value, [a, b, c]) => a * value + b * value ** 3 + c * value ** 5, x) - 1) ** 2;
  const q = m / n;
  const [least, most] = [1 - Math.sqrt(q), 1 + Math.sqrt(q)];
  let [gaussian, total] = [0, 0];
  const points = 5000;
  for (let i = 0; i < points; i++) {
    const s = least + ((most - least) * (i + 0.5)) / points;
    const density = Math.sqrt((most * most - s * s) * (s * s - least * least)) / s;
    gaussian += density * error(s / Math.sqrt(m));
    total += density;
  }
  let decaying = 0;
  for (const p of exponents) {
    const norm = Math.sqrt(sumOf(m, (i) => i ** (-2 * p)));
    decaying += sumOf(m, (i) => error(i ** -p / norm)) / m / exponents.length;
  }
  gaussian /= total;
  return {
    mixture: Math.sqrt((3 * gaussian + decaying) / 4),
    gaussian: Math.sqrt(gaussian),
    decaying: Math.sqrt(decaying),
  };
}

const exponents = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1];

/** Adds up terms one by one up to the 200th, and then in runs that grow by 1 %. */
function sumOf(count: number, term: (i: number) => number): number {
  let sum = 0;
  for (let i = 1; i <= count;) {
    const size = Math.min(i <= 200 ? 1 : Math.floor(i / 100), count - i + 1);
    sum += size * term(i + (size - 1) / 2);
    i += size;
  }
  return sum;
}

describe('the shipped table', () => {
  test('holds bounded maps only', () => {
    expect(shipped.length).toBeGreaterThan(200);
    for (const { triples } of shipped) expectBounded(triples);
  });

  // Every tenth entry is fitted here. `npm run coefficients` writes all of them.
  test.each(shipped.filter((_, i) => i % 10 === 0))('is what a fit finds: $key', ({ key, triples }) => {
    const [m, n, steps] = key.split(/[x:]/).map(Number) as [number, number, number];
    expect(fitAdaptive(m, n, steps)).toEqual(triples);
  });

  test('is what is used', () => {
    expect(adaptiveTriples(768, 3072, 5)).toEqual(listOf(adaptiveTable['768x3072:5']));
    expect(adaptiveTriples(3072, 768, 5)).toEqual(adaptiveTriples(768, 3072, 5));
  });
});

describe.each([4, 5, 6])('%i iterations', (steps) => {
  test.each(shapes)('%i × %i beats every preset', (m, n) => {
    const adaptive = exactErrors([m, n], adaptiveTriples(m, n, steps));
    const others = presets.map((preset) => exactErrors([m, n], newtonSchulzCoefficients([m, n], preset, steps)));
    expect(adaptive.mixture).toBeLessThan(Math.min(...others.map((one) => one.mixture)));
    const [muon] = others;
    expect(adaptive.gaussian).toBeLessThanOrEqual(muon!.gaussian);
    expect(adaptive.decaying).toBeLessThanOrEqual(muon!.decaying);
  });
});

test('4 iterations are no worse than 5 of muon, but for large matrices that are nearly square', () => {
  for (const [m, n] of shapes) {
    const four = exactErrors([m, n], adaptiveTriples(m, n, 4)).mixture;
    const five = exactErrors([m, n], newtonSchulzCoefficients([m, n], 'muon', 5)).mixture;
    // Where values are kept within [0, 1] and away from 0, no quintic rises by more than 4.24 times x. So four
    // iterations cannot lift what five of muon lift.
    const large = m >= 1024 && (n === m || m === 8192 || m * 16 === n);
    expect(four / five).toBeLessThan(large ? 1.13 : 1);
  }
});

test('any shape and 1 to 10 iterations: bounded, and better than truncated presets', () => {
  const next = random(5);
  const extent = (most: number) => Math.ceil(Math.exp(next() * Math.log(most)));
  for (let i = 0; i < 60; i++) {
    const [m, n, steps] = [extent(20_000), extent(50_000), 1 + (i % 10)];
    const triples = adaptiveTriples(m, n, steps);
    expect(triples).toHaveLength(steps);
    expectBounded(triples);
    const bounded = presets
      .map((preset) => newtonSchulzCoefficients([m, n], preset, steps))
      .filter((one) => composedBounds(one, 2 ** -8).most <= 1.3);
    const shape = [Math.min(m, n), Math.max(m, n)] as const;
    // A few singular values are fitted by their quantiles, which is not the law that the test integrates.
    if (shape[0] <= 64) continue;
    const errors = bounded.map((one) => exactErrors(shape, one).mixture);
    expect(exactErrors(shape, triples).mixture).toBeLessThan(Math.min(1, ...errors) * 1.001 + 1e-4);
  }
});

test.each([
  [1, 1],
  [1, 7],
  [7, 1],
  [1, 100_000],
  [2, 2],
  [3, 1_000_000],
])('%i × %i', (m, n) => {
  for (const steps of [1, 2, 3, 5, 10]) {
    const triples = adaptiveTriples(m, n, steps);
    expectBounded(triples);
    if (m === 1 || n === 1) {
      expect(triples.reduce((x, [a, b, c]) => a * x + b * x ** 3 + c * x ** 5, 1)).toBeCloseTo(1, 3);
    }
  }
});

test('more than 10 iterations go on to 1', () => {
  const triples = adaptiveTriples(100, 100, 40);
  expect(triples).toHaveLength(40);
  expect(composedBounds(triples, 2 ** -8).most).toBeLessThanOrEqual(1.3);
  expect(triples.reduce((x, [a, b, c]) => a * x + b * x ** 3 + c * x ** 5, 1e-3)).toBeCloseTo(1, 6);
});

test('a fit takes the same course every time, and little of it', () => {
  const solve = jest.spyOn(NormalEquations.prototype, 'solve');
  const fits = [1, 2, 3].map(() => fitAdaptive(640, 2560, 5));
  const iterations = solve.mock.calls.length / fits.length;
  solve.mockRestore();
  expect(fits[1]).toEqual(fits[0]);
  expect(fits[2]).toEqual(fits[0]);
  // The iterations from all presets together. Tens of milliseconds are enough for them.
  expect(iterations).toBeGreaterThan(100);
  expect(iterations).toBeLessThan(2000);
});

test('fits the spectrum of a user', () => {
  const values = Array.from({ length: 96 }, (_, i) => Math.exp(-i / 12));
  const real = measuredSpectrum(values, 96);
  const mixed = mixedWithRandom(real, 96, 384);
  const triples = fitToSpectrum(mixed, 96, 384, 5);
  expectBounded(triples);
  for (const preset of presets) {
    expect(rmsError(triples, mixed)).toBeLessThan(rmsError(newtonSchulzCoefficients([96, 384], preset, 5), mixed));
  }
});
