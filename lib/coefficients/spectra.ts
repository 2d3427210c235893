import { expected } from '../errors.js';

/**
 * A distribution of singular values: value i has weight i, and the weights sum to 1. The values are those of a matrix
 * of m rows (m ≤ n) that is divided by its Frobenius norm, so that their mean square is 1/m.
 */
export interface Spectrum {
  readonly values: readonly number[];
  readonly weights: readonly number[];
}

/** The largest number of nodes that stand for all singular values of a spectrum. */
const nodeCount = 64;

/** The exponents p of the decaying spectra, of equal weight. */
const exponents: readonly number[] = Array.from({ length: 11 }, (_, i) => 0.5 + i / 20);

/**
 * The weights of Gaussian and decaying spectra. ROOT's paper (arXiv 2511.20626) mixes random matrices with real
 * momentum in this proportion. Decaying spectra stand for real momentum, since the momentum of transformers falls off
 * like i^−0.5 to i^−1.
 */
export const mixtureWeights = Object.freeze({ gaussian: 3, decaying: 1 });

/**
 * The spectrum of a matrix of independent normal values, by the Marchenko-Pastur law. Its 64 nodes are those of a
 * quadrature that is denser towards 0, where the map is steepest. For m ≤ 8 rows the law itself would exceed 1, and the
 * nodes are its quantiles (i − ½)/m.
 */
export function gaussianSpectrum(rows: number, columns: number): Spectrum {
  const [m, n] = ordered(rows, columns);
  const r = Math.sqrt(m / n);
  return m <= 8 ? normalized(quantiles(m, r), m) : normalized(quadrature(r), m);
}

/*
 * An eigenvalue of XXᵀ/n is 1 + r² − 2r·cos φ with r² = m/n. The angle φ in [0, π] has the density 2/π · sin²φ / (1 +
 * r² − 2r·cos φ). This density is smooth, even for r = 1, where the density of the eigenvalue itself is not bounded.
 */
function eigenvalue(r: number, phi: number): number {
  // 1 − cos φ without cancellation
  return (1 - r) ** 2 + 4 * r * Math.sin(phi / 2) ** 2;
}

function density(r: number, phi: number): number {
  return ((2 / Math.PI) * Math.sin(phi) ** 2) / eigenvalue(r, phi);
}

function quadrature(r: number): Spectrum {
  const at = Array.from({ length: nodeCount }, (_, i) => (i + 0.5) / nodeCount);
  return {
    values: at.map((u) => Math.sqrt(eigenvalue(r, Math.PI * u * u))),
    weights: at.map((u) => 2 * u * density(r, Math.PI * u * u)),
  };
}

function quantiles(count: number, r: number): Spectrum {
  const panels = 1024;
  const step = Math.PI / panels;
  const cumulative = [0];
  for (let i = 0; i < panels; i++) cumulative.push(cumulative[i]! + density(r, (i + 0.5) * step));
  const values: number[] = [];
  for (let i = 0, panel = 0; i < count; i++) {
    const level = (cumulative[panels]! * (i + 0.5)) / count;
    while (cumulative[panel + 1]! < level) panel++;
    const inside = (level - cumulative[panel]!) / (cumulative[panel + 1]! - cumulative[panel]!);
    values.push(Math.sqrt(eigenvalue(r, (panel + inside) * step)));
  }
  return { values, weights: values.map(() => 1) };
}

/** σᵢ ∝ i^−p for i from 1 to m, with p from 0.5 to 1 in equal parts. It stands for real momentum in the mixture. */
function decayingSpectrum(rows: number, columns: number): Spectrum {
  const [m] = ordered(rows, columns);
  const groups = geometricGroups(m);
  const all = mix(exponents.map((p) => [1, normalized(powers(groups, p), m)]));
  return normalized(binned(all), m);
}

/**
 * Divides the indices from 1 to `count` into groups and returns [middle, size] of each. The first groups are single
 * indices, the later ones runs that lengthen in proportion to their start.
 */
function geometricGroups(count: number): readonly (readonly [number, number])[] {
  const groups: [number, number][] = [];
  for (let first = 1; first <= count;) {
    const size = Math.min(Math.max(1, count <= nodeCount ? 1 : Math.floor(first / 8)), count - first + 1);
    groups.push([first + (size - 1) / 2, size]);
    first += size;
  }
  return groups;
}

function powers(groups: readonly (readonly [number, number])[], p: number): Spectrum {
  return { values: groups.map(([i]) => Math.exp(-p * Math.log(i))), weights: groups.map(([, size]) => size) };
}

/**
 * Reduces a spectrum to at most 64 nodes at equal distances on a logarithmic axis. Each node is the root mean square of
 * the values that it stands for. The lowest one also stands for the values below 1e-7 of the greatest.
 */
export function binned({ values, weights }: Spectrum): Spectrum {
  const greatest = values.reduce((a, b) => Math.max(a, b));
  const most = Math.log(greatest);
  const least = Math.log(
    Math.max(
      greatest * 1e-7,
      values.reduce((a, b) => Math.min(a, b)),
    ),
  );
  const sums = Array.from({ length: nodeCount }, () => ({ weight: 0, square: 0 }));
  for (const [i, value] of values.entries()) {
    const place = most > least && value > 0 ? Math.max(0, (Math.log(value) - least) / (most - least)) : 0;
    const bin = sums[Math.min(Math.floor(place * nodeCount), nodeCount - 1)]!;
    bin.weight += weights[i]!;
    bin.square += weights[i]! * value * value;
  }
  const filled = sums.filter(({ weight }) => weight > 0);
  return {
    values: filled.map(({ weight, square }) => Math.sqrt(square / weight)),
    weights: filled.map(({ weight }) => weight),
  };
}

/** The spectrum that `adaptive` is fitted to: Gaussian at weight 3, decaying at weight 1. It has at most 128 nodes. */
export function defaultSpectrum(rows: number, columns: number): Spectrum {
  return mixedWithRandom(decayingSpectrum(rows, columns), rows, columns);
}

/**
 * Gives a thousandth of the weight to a spectrum that is uniform on a logarithmic axis from 0.05/m to 1. Where a
 * spectrum is easy, many maps serve it equally well. The added tail selects one that serves longer tails too.
 */
export function withTail(spectrum: Spectrum, rows: number, columns: number): Spectrum {
  const [m] = ordered(rows, columns);
  // The only singular value of a row is 1.
  if (m === 1) return spectrum;
  const count = 24;
  const values = Array.from({ length: count }, (_, i) => Math.exp(Math.log(0.05 / m) * ((i + 0.5) / count)));
  return mix([
    [999, spectrum],
    [1, { values, weights: values.map(() => 1 / count) }],
  ]);
}

/** Mixes a spectrum with the Gaussian one, in the place that `defaultSpectrum` gives to the decaying ones. */
export function mixedWithRandom(real: Spectrum, rows: number, columns: number): Spectrum {
  return mix([
    [mixtureWeights.gaussian, gaussianSpectrum(rows, columns)],
    [mixtureWeights.decaying, real],
  ]);
}

/** A mixture of spectra. The weights of the parts need not sum to 1. */
export function mix(parts: readonly (readonly [weight: number, spectrum: Spectrum])[]): Spectrum {
  const total = parts.reduce((sum, [weight]) => sum + weight, 0);
  return {
    values: parts.flatMap(([, { values }]) => values),
    weights: parts.flatMap(([weight, { weights }]) => weights.map((one) => (one * weight) / total)),
  };
}

/**
 * The spectrum of a matrix of `rows` singular values, or of several such matrices, in any scale.
 * @param values not negative, at least one of them above 0
 * @param weights how much of the spectrum each value stands for; equal if absent
 * @throws RootError ERR_INVALID_ARGUMENT
 */
export function measuredSpectrum(
  values: readonly number[],
  rows: number,
  weights: readonly number[] = values.map(() => 1),
): Spectrum {
  const valid = (one: unknown) => typeof one === 'number' && one >= 0 && Number.isFinite(one);
  if (values.length === 0 || !values.every(valid) || !values.some((one) => one > 0)) {
    throw expected('the singular values', 'finite, not negative and not all 0', values);
  }
  if (weights.length !== values.length || !weights.every(valid) || !values.some((one, i) => one * weights[i]! > 0)) {
    throw expected('the weights', `${values.length} finite numbers, not negative and not all 0`, weights);
  }
  return normalized({ values, weights }, rows);
}

/** Scales the weights to the sum 1 and the values to the mean square 1/m. */
function normalized({ values, weights }: Spectrum, m: number): Spectrum {
  const total = weights.reduce((a, b) => a + b, 0);
  const square = values.reduce((sum, value, i) => sum + weights[i]! * value * value, 0);
  const factor = Math.sqrt(total / square / m);
  return { values: values.map((value) => value * factor), weights: weights.map((weight) => weight / total) };
}

function ordered(rows: number, columns: number): readonly [m: number, n: number] {
  return rows <= columns ? [rows, columns] : [columns, rows];
}
