import type { Precision } from '../../lib/index.js';
import { gaussian } from '../support.js';

type Fill = (rows: number, columns: number) => Float32Array;

/** Matrices by the kind of their spectra. */
export const spectra: Record<string, Fill> = {
  Gaussian: (rows, columns) => gaussian(rows * columns, rows + columns),
  'heavy-tailed': (rows, columns) => gaussian(rows * columns, 3).map((value) => value ** 3),
  'low rank and noise': (rows, columns) => {
    const [left, right, noise] = [gaussian(rows * 4, 5), gaussian(4 * columns, 6), gaussian(rows * columns, 7)];
    return noise.map((value, i) => {
      const [row, column] = [Math.floor(i / columns), i % columns];
      let sum = 0.2 * value;
      for (let k = 0; k < 4; k++) sum += left[row * 4 + k]! * right[k * columns + column]!;
      return sum;
    });
  },
  decaying: (rows, columns) =>
    reflected(
      gaussian(rows * columns, 8).map((value, i) => value * (Math.floor(i / columns) + 1) ** -0.8),
      rows,
      columns,
    ),
};

/** (I − 2vvᵀ)·X, which mixes the rows and keeps the singular values. */
function reflected(x: Float32Array, rows: number, columns: number): Float32Array {
  const v = gaussian(rows, 9);
  const norm = Math.hypot(...v);
  const sums = new Float64Array(columns);
  x.forEach((value, i) => (sums[i % columns]! += (v[Math.floor(i / columns)]! / norm) * value));
  return x.map((value, i) => value - (2 * v[Math.floor(i / columns)]! * sums[i % columns]!) / norm);
}

/** The largest errors relative to the CPU's result, in the Frobenius norm. */
export const limits: [Precision, number][] = [
  ['float32', 1e-5],
  ['float16', 5e-3],
  ['bfloat16', 3e-2],
];

/** Those of matrices of 768 × 3072 and more, whose spectra reach further down (docs/cuda.md, Precision). */
export const limitsOfLarge: [Precision, number][] = [
  ['float32', 4e-5],
  ['float16', 1.2e-2],
  ['bfloat16', 2e-1],
];
