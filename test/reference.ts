/** The algorithm in float64, written to be read. The results of every backend are measured against it. */

export type Triple = readonly [number, number, number];

/** What a gradient is clipped by, and e of the steps before; null before the first one. */
export interface GradientClip {
  quantile: number;
  scale: number;
  growth: number | null;
  mean: number | null;
}

/** G̃, with ε_G; brings `mean` up to date. */
export function clipGradient(
  gradient: ArrayLike<number>,
  clip: GradientClip,
): { clipped: Float64Array; threshold: number } {
  const epsilon = threshold(gradient, clip.quantile, clip.scale);
  if (epsilon === 0) return { clipped: Float64Array.from(gradient), threshold: 0 };
  const factor = clip.mean === null || clip.growth === null ? 1 : Math.min(1, (clip.growth * clip.mean) / epsilon);
  clip.mean = clip.mean === null ? epsilon : 0.9 * clip.mean + 0.1 * factor * epsilon;
  return { clipped: softThreshold(gradient, epsilon).base.map((value) => factor * value), threshold: epsilon };
}

/** NorMuon: divides each row by the root of `moment`, which it brings up to date, and keeps the Frobenius norm. */
export function normalizeRows(x: Float64Array, columns: number, moment: Float64Array, beta2: number): Float64Array {
  moment.forEach((value, i) => {
    const row = x.subarray(i * columns, (i + 1) * columns);
    moment[i] = beta2 * value + ((1 - beta2) * frobenius(row) ** 2) / columns;
  });
  const divided = x.map((value, i) => value / (Math.sqrt(moment[Math.floor(i / columns)]!) + 1e-8));
  const norm = frobenius(divided);
  const ratio = frobenius(x) / norm;
  return norm === 0 ? divided : divided.map((value) => value * ratio);
}

export interface OrthogonalOptions {
  lr: number;
  momentum: number;
  nesterov: boolean;
  weightDecay: number;
  threshold: { quantile: number; scale: number } | null;
  coefficients: readonly Triple[];
  lrScale: 'rms' | 'spectral' | 'none';
}

export interface AdamWOptions {
  lr: number;
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
}

/** M ← μM + G; returns U. */
export function momentum(
  buffer: Float64Array,
  gradient: ArrayLike<number>,
  mu: number,
  nesterov: boolean,
): Float64Array {
  buffer.forEach((value, i) => (buffer[i] = mu * value + gradient[i]!));
  return nesterov ? buffer.map((value, i) => gradient[i]! + mu * value) : buffer.slice();
}

/** scale · quantile of |u|, interpolated linearly at rank (size − 1)·quantile. */
export function threshold(u: ArrayLike<number>, quantile: number, scale: number): number {
  const sorted = Float64Array.from(u, Math.abs).sort();
  const rank = (sorted.length - 1) * quantile;
  const below = sorted[Math.floor(rank)]!;
  const above = sorted[Math.ceil(rank)]!;
  return scale * (below + (above - below) * (rank - Math.floor(rank)));
}

export function softThreshold(u: ArrayLike<number>, epsilon: number): { base: Float64Array; outliers: Float64Array } {
  const base = Float64Array.from(u, (value) => Math.min(Math.max(value, -epsilon), epsilon));
  return { base, outliers: base.map((value, i) => u[i]! - value) };
}

export function transpose(x: ArrayLike<number>, rows: number, columns: number): Float64Array {
  const out = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out[j * rows + i] = x[i * columns + j]!;
  }
  return out;
}

/** X Xᵀ */
export function gram(x: Float64Array, rows: number, columns: number): Float64Array {
  const out = products(x, x, rows, rows, columns, true);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < i; j++) out[j * rows + i] = out[i * rows + j]!;
  }
  return out;
}

/**
 * a·bᵀ for a of m × k and b of n × k, or only its lower half. Every element is summed in the order of k. Eight sums at
 * once take half as long as one after the other.
 */
function products(a: Float64Array, b: Float64Array, m: number, n: number, k: number, half = false): Float64Array {
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i += 2) {
    // Beyond the last row and column the last ones are computed again.
    const i1 = Math.min(i + 1, m - 1);
    for (let j = 0; j < (half ? i1 + 1 : n); j += 4) {
      const [j1, j2, j3] = [Math.min(j + 1, n - 1), Math.min(j + 2, n - 1), Math.min(j + 3, n - 1)];
      let [s00, s01, s02, s03, s10, s11, s12, s13] = [0, 0, 0, 0, 0, 0, 0, 0];
      for (let l = 0; l < k; l++) {
        const a0 = a[i * k + l]!;
        const a1 = a[i1 * k + l]!;
        const b0 = b[j * k + l]!;
        const b1 = b[j1 * k + l]!;
        const b2 = b[j2 * k + l]!;
        const b3 = b[j3 * k + l]!;
        s00 += a0 * b0;
        s01 += a0 * b1;
        s02 += a0 * b2;
        s03 += a0 * b3;
        s10 += a1 * b0;
        s11 += a1 * b1;
        s12 += a1 * b2;
        s13 += a1 * b3;
      }
      out[i * n + j] = s00;
      out[i * n + j1] = s01;
      out[i * n + j2] = s02;
      out[i * n + j3] = s03;
      out[i1 * n + j] = s10;
      out[i1 * n + j1] = s11;
      out[i1 * n + j2] = s12;
      out[i1 * n + j3] = s13;
    }
  }
  return out;
}

export function frobenius(x: ArrayLike<number>): number {
  let sum = 0;
  for (const value of Float64Array.from(x)) sum += value * value;
  return Math.sqrt(sum);
}

/** X ← X / (‖X‖ + 1e-7), then X ← aX + (bA + cA²)X with A = XXᵀ for every triple. */
export function newtonSchulz(
  x: ArrayLike<number>,
  rows: number,
  columns: number,
  coefficients: readonly Triple[],
): Float64Array {
  if (rows > columns) {
    return transpose(newtonSchulz(transpose(x, rows, columns), columns, rows, coefficients), columns, rows);
  }
  const norm = frobenius(x) + 1e-7;
  let y = Float64Array.from(x, (value) => value / norm);
  for (const [a, b, c] of coefficients) {
    const A = gram(y, rows, columns);
    const squared = gram(A, rows, rows);
    const B = A.map((value, i) => b * value + c * squared[i]!);
    const By = products(B, transpose(y, rows, columns), rows, columns, rows);
    y = y.map((value, i) => a * value + By[i]!);
  }
  return y;
}

/** Returns singular values in descending order, by one-sided Jacobi rotations. */
export function singularValues(x: ArrayLike<number>, rows: number, columns: number): number[] {
  const [m, n, y] =
    rows > columns ? [columns, rows, transpose(x, rows, columns)] : [rows, columns, Float64Array.from(x)];
  for (let sweep = 0; sweep < 30; sweep++) {
    let largest = 0;
    for (let p = 0; p < m; p++) {
      for (let q = p + 1; q < m; q++) {
        largest = Math.max(largest, rotate(y.subarray(p * n, p * n + n), y.subarray(q * n, q * n + n)));
      }
    }
    if (largest < 1e-12) break;
  }
  return Array.from({ length: m }, (_, i) => frobenius(y.subarray(i * n, i * n + n))).sort((a, b) => b - a);
}

/** Makes two rows orthogonal; returns the cosine between them before. */
function rotate(p: Float64Array, q: Float64Array): number {
  let pp = 0;
  let qq = 0;
  let pq = 0;
  for (let i = 0; i < p.length; i++) {
    pp += p[i]! * p[i]!;
    qq += q[i]! * q[i]!;
    pq += p[i]! * q[i]!;
  }
  if (pq === 0) return 0;
  const zeta = (qq - pp) / (2 * pq);
  const t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
  const cos = 1 / Math.hypot(1, t);
  for (let i = 0; i < p.length; i++) {
    const value = p[i]!;
    p[i] = cos * (value - t * q[i]!);
    q[i] = cos * (t * value + q[i]!);
  }
  return Math.abs(pq) / Math.sqrt(pp * qq);
}

const lrScales = {
  rms: (rows: number, columns: number) => 0.2 * Math.sqrt(Math.max(rows, columns)),
  spectral: (rows: number, columns: number) => Math.sqrt(Math.max(1, rows / columns)),
  none: () => 1,
};

/** One step of ROOT, or of Muon without `threshold`, in place in `data` and `buffer`; returns ε. */
export function orthogonalStep(
  data: Float64Array,
  buffer: Float64Array,
  gradient: ArrayLike<number>,
  [rows, columns]: readonly [number, number],
  options: OrthogonalOptions,
): number | null {
  const u = momentum(buffer, gradient, options.momentum, options.nesterov);
  const epsilon = options.threshold && threshold(u, options.threshold.quantile, options.threshold.scale);
  const kept = epsilon ? softThreshold(u, epsilon).base : u;
  const x = newtonSchulz(kept, rows, columns, options.coefficients);
  const rate = options.lr * lrScales[options.lrScale](rows, columns);
  data.forEach((value, i) => (data[i] = value * (1 - options.lr * options.weightDecay) - rate * x[i]!));
  return epsilon;
}

/** One step of torch.optim.AdamW, in place; `step` counts from 1. */
export function adamwStep(
  data: Float64Array,
  expAvg: Float64Array,
  expAvgSq: Float64Array,
  gradient: ArrayLike<number>,
  step: number,
  { lr, betas: [beta1, beta2], eps, weightDecay }: AdamWOptions,
): void {
  data.forEach((value, i) => {
    const g = gradient[i]!;
    expAvg[i] = beta1 * expAvg[i]! + (1 - beta1) * g;
    expAvgSq[i] = beta2 * expAvgSq[i]! + (1 - beta2) * g * g;
    const first = expAvg[i] / (1 - beta1 ** step);
    const second = expAvgSq[i] / (1 - beta2 ** step);
    data[i] = value * (1 - lr * weightDecay) - (lr * first) / (Math.sqrt(second) + eps);
  });
}
