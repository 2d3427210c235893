import { quadrature, tridiagonalize } from './eigenvalues.js';

/** The singular values of an m × n matrix, m ≤ n. The weight of a value is its share of the m. */
export interface SingularValues {
  readonly values: readonly number[];
  /** 1/m each where the values are exact */
  readonly weights: readonly number[];
  readonly exact: boolean;
}

/** Matrices whose shorter side is at most this are decomposed. For others the distribution is estimated. */
const mostExact = 1024;

const probes = 4;
const lanczosSteps = 64;

/**
 * Returns the singular values of a matrix, or an estimate of their distribution, depending on the shorter side.
 *
 * - Up to 1024: the square roots of the eigenvalues of XXᵀ in float64, off by at most about 1e-8 of the largest. This
 *   takes m²n + 4m³/3 operations, about half a second for 512 × 512 and four seconds for 1024 × 1024.
 * - Beyond 1024: nodes and weights of stochastic Lanczos quadrature, from 4 vectors of random signs with 64 steps each.
 *   This takes 1024mn operations.
 *
 * The estimate resolves the smallest values worst. Errors of what iterations return came out within 2 % for decaying
 * and wide matrices of 1100 and 2048, and within 15 % for Gaussian square ones. Errors predicted from the spectrum of
 * what goes in came out within 16 %, and within 40 % where the spectrum falls as 1/i.
 * @param x row-major
 */
export function singularValues(x: Float32Array, rows: number, columns: number): SingularValues {
  const m = Math.min(rows, columns);
  if (m > mostExact) return estimated(x, rows, columns);
  const eigenvalues = quadrature(tridiagonalize(gram(x, rows, columns)));
  const values = eigenvalues.map(([value]) => Math.sqrt(Math.max(value, 0)));
  return { values: values.sort((a, b) => b - a), weights: values.map(() => 1 / m), exact: true };
}

/** XXᵀ, or XᵀX of a tall matrix. */
export function gram(x: Float32Array, rows: number, columns: number): Float64Array[] {
  const m = Math.min(rows, columns);
  const result = Array.from({ length: m }, () => new Float64Array(m));
  const [length, stride, step] = rows <= columns ? [columns, columns, 1] : [rows, 1, columns];
  const vectors = Array.from({ length: m }, (_, i) =>
    Float64Array.from({ length }, (_, k) => x[i * stride + k * step]!),
  );
  for (let i = 0; i < m; i++) {
    for (let j = 0; j <= i; j++) result[i]![j] = result[j]![i] = dot(vectors[i]!, vectors[j]!);
  }
  return result;
}

function estimated(x: Float32Array, rows: number, columns: number): SingularValues {
  const values: number[] = [];
  const weights: number[] = [];
  let state = 1;
  const sign = () => ((state = (Math.imul(state, 1664525) + 1013904223) | 0) < 0 ? -1 : 1);
  for (let probe = 0; probe < probes; probe++) {
    const start = Float64Array.from({ length: Math.min(rows, columns) }, sign);
    for (const [value, weight] of lanczos((vector) => applyGram(x, rows, columns, vector), start)) {
      values.push(Math.sqrt(Math.max(value, 0)));
      weights.push(weight / probes);
    }
  }
  return { values, weights, exact: false };
}

/**
 * Gauss' quadrature of the spectral measure of a symmetric operator at `start`. Every basis vector is orthogonalised
 * twice against all vectors before it.
 */
function lanczos(
  apply: (vector: Float64Array) => Float64Array,
  start: Float64Array,
): [value: number, weight: number][] {
  const basis: Float64Array[] = [];
  const diagonal: number[] = [];
  const beside: number[] = [];
  const length = Math.sqrt(dot(start, start));
  let next = start.map((value) => value / length);
  for (let i = 0; i < Math.min(lanczosSteps, start.length); i++) {
    basis.push(next);
    const image = apply(next);
    diagonal.push(dot(image, next));
    for (let pass = 0; pass < 2; pass++) for (const vector of basis) subtract(image, vector, dot(image, vector));
    const norm = Math.sqrt(dot(image, image));
    if (!(norm > 1e-12 * Math.abs(diagonal[0]!))) break;
    beside.push(norm);
    next = image.map((value) => value / norm);
  }
  return quadrature({ diagonal: Float64Array.from(diagonal), beside: Float64Array.from(beside) });
}

function applyGram(x: Float32Array, rows: number, columns: number, vector: Float64Array): Float64Array {
  const across = new Float64Array(rows <= columns ? columns : rows);
  const back = new Float64Array(vector.length);
  for (let i = 0; i < rows; i++) {
    const row = x.subarray(i * columns, (i + 1) * columns);
    if (rows <= columns) for (let j = 0; j < columns; j++) across[j]! += vector[i]! * row[j]!;
    else across[i] = dot(row, vector);
  }
  for (let i = 0; i < rows; i++) {
    const row = x.subarray(i * columns, (i + 1) * columns);
    if (rows <= columns) back[i] = dot(row, across);
    else for (let j = 0; j < columns; j++) back[j]! += across[i]! * row[j]!;
  }
  return back;
}

function dot(a: Float32Array | Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < b.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

function subtract(from: Float64Array, vector: Float64Array, factor: number): void {
  for (let i = 0; i < from.length; i++) from[i]! -= factor * vector[i]!;
}
