/**
 * Dense matrices of known singular values and vectors. The result of the Newton-Schulz iteration on them is known in
 * float64 too.
 */
import type { Triple } from '../../lib/index.js';

/** `length` singular values in descending order, of a matrix whose longer side is `aspect` times the shorter one. */
export const spectra: Readonly<Record<string, (length: number, aspect: number) => number[]>> = {
  Gaussian: marchenkoPastur,
  'heavy-tailed': (length, aspect) =>
    marchenkoPastur(length, aspect).map((value, i) => value + 30 * Math.exp((-40 * i) / length)),
  'low rank + noise': (length, aspect) => lowRank(length, aspect, length / 8, 0.1),
  'rank 8 + noise': (length, aspect) => lowRank(length, aspect, 8, 0.001),
  'rank m/4': (length, aspect) => lowRank(length, aspect, length / 4, 0),
  'rank m/8': (length, aspect) => lowRank(length, aspect, length / 8, 0),
  'i^-0.8': (length) => Array.from({ length }, (_, i) => (i + 1) ** -0.8),
  'i^-1.2': (length) => Array.from({ length }, (_, i) => (i + 1) ** -1.2),
  'condition 1e6': (length) => Array.from({ length }, (_, i) => 10 ** ((-6 * i) / Math.max(1, length - 1))),
};

/** Those of a Gaussian matrix, of which all but the `rank` largest are multiplied by `noise`. */
function lowRank(length: number, aspect: number, rank: number, noise: number): number[] {
  return marchenkoPastur(length, aspect).map((value, i) => (i < rank ? value : noise * value));
}

/**
 * The singular values of a Gaussian matrix, by the law that they follow as it grows, times a factor that the division
 * by the Frobenius norm removes.
 */
function marchenkoPastur(length: number, aspect: number): number[] {
  const y = 1 / aspect;
  const [low, high] = [(1 - Math.sqrt(y)) ** 2, (1 + Math.sqrt(y)) ** 2];
  // The density of λ = σ² is summed over a grid whose points crowd at both ends, where the density has singularities.
  const points = 20_000;
  const values: number[] = [];
  let [sum, index] = [0, 0];
  const lambda = (i: number) => low + ((high - low) * (1 - Math.cos((Math.PI * i) / points))) / 2;
  const mass = (i: number) => {
    const middle = (lambda(i) + lambda(i + 1)) / 2;
    return (Math.sqrt((high - middle) * (middle - low)) / (2 * Math.PI * y * middle)) * (lambda(i + 1) - lambda(i));
  };
  const total = Array.from({ length: points }, (_, i) => mass(i)).reduce((a, b) => a + b);
  for (let i = 0; i < points; i++) {
    sum += mass(i) / total;
    for (; index < length && sum >= (index + 0.5) / length; index++) values.push(Math.sqrt(lambda(i + 1)));
  }
  return values.concat(Array.from({ length: length - values.length }, () => Math.sqrt(high))).reverse();
}

/**
 * U·diag(values)·Vᵀ, where U and V consist of random signs and Walsh-Hadamard transforms. Both sides are powers of two.
 */
export function matrixOf(values: readonly number[], rows: number, columns: number, seed = 1): Float64Array {
  const x = new Float64Array(rows * columns);
  values.forEach((value, i) => (x[i * columns + i] = value));
  for (const round of [0, 1]) {
    const [left, right] = [signs(rows, 4 * seed + round), signs(columns, 4 * seed + 2 + round)];
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) x[i * columns + j]! *= left[i]! * right[j]!;
      butterflies(x, i * columns, columns, 1);
    }
    butterflies(x, 0, rows, columns);
    const scale = 1 / Math.sqrt(rows * columns);
    for (let i = 0; i < x.length; i++) x[i]! *= scale;
  }
  return x;
}

/** Returns the singular values after the iteration, which divides them by their Frobenius norm first. */
export function iterated(values: readonly number[], coefficients: readonly Triple[]): number[] {
  const norm = Math.hypot(...values) + 1e-7;
  return values.map((value) => coefficients.reduce((x, [a, b, c]) => x * (a + x * x * (b + c * x * x)), value / norm));
}

/**
 * The Walsh-Hadamard transform along `count` runs of `width` elements, from `first` on, two of its levels in a pass.
 * Quarters of a long transform come one after the other, so that all passes but the last find them in a cache.
 */
function butterflies(x: Float64Array, first: number, count: number, width: number): void {
  const end = first + count * width;
  let step = width;
  if (count > 4 && count * width > 1 << 14) {
    step = (count * width) / 4;
    for (let quarter = first; quarter < end; quarter += step) butterflies(x, quarter, count / 4, width);
  }
  for (; first + 2 * step < end; step *= 4) {
    for (let start = first; start < end; start += 4 * step) {
      for (let i = start; i < start + step; i++) {
        const a = x[i]! + x[i + step]!;
        const b = x[i]! - x[i + step]!;
        const c = x[i + 2 * step]! + x[i + 3 * step]!;
        const d = x[i + 2 * step]! - x[i + 3 * step]!;
        x[i] = a + c;
        x[i + step] = b + d;
        x[i + 2 * step] = a - c;
        x[i + 3 * step] = b - d;
      }
    }
  }
  if (first + step === end) return;
  for (let i = first; i < first + step; i++) {
    const a = x[i]!;
    const b = x[i + step]!;
    x[i] = a + b;
    x[i + step] = a - b;
  }
}

function signs(length: number, seed: number): Float64Array {
  let state = seed * 2_654_435_769;
  return Float64Array.from({ length }, () => {
    state = (Math.imul(state ^ (state >>> 15), 2_246_822_519) + 3_266_489_917) | 0;
    return ((state >>> 16) & 1) === 0 ? 1 : -1;
  });
}
