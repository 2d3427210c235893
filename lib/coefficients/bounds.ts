import type { Triple } from './triple.js';

/** Bounds of the values that iterations can make of singular values in [0, 1]. */
export interface Bounds {
  /** The least and the largest value of the whole composition. */
  readonly least: number;
  readonly most: number;
  /** The largest absolute value between two iterations; 0 where there is one iteration. */
  readonly intermediate: number;
}

/**
 * A bound on the error of float64 in a polynomial of a few terms, relative to the terms. It is 1000 times what is
 * needed.
 */
const rounding = 1e-12;

/**
 * Returns the range of the composed map on [0, 1]. Every value, the first and the last included, may be moved by a
 * share of up to `perturbation` either way.
 *
 * The range is not an estimate. A continuous map takes an interval to an interval, and values are moved independently.
 * So the values that can be reached after an iteration fill an interval. It runs from the least to the largest value
 * that the iteration's polynomial takes on the interval before it, each moved outwards. These extremes lie at the ends
 * or where the derivative a + 3bx² + 5cx⁴ is 0. Each interval is widened to cover rounding.
 */
export function composedBounds(triples: readonly Triple[], perturbation = 0): Bounds {
  const outwards = 1 + perturbation + rounding;
  let [least, most, intermediate] = [0, outwards, 0];
  for (const [i, triple] of triples.entries()) {
    const ends = [least, most, ...criticalPoints(triple).flatMap((x) => [x, -x])].filter(
      (x) => x >= least && x <= most,
    );
    const values = ends.map((x) => evaluate(triple, x));
    const size = rounding * magnitude(triple, Math.max(-least, most));
    least = Math.min(0, Math.min(...values) * (1 + perturbation) - size);
    most = Math.max(0, Math.max(...values) * (1 + perturbation) + size);
    if (i + 1 < triples.length) intermediate = Math.max(intermediate, -least, most);
  }
  return { least, most, intermediate };
}

/** Returns the positive roots of the derivative in ascending order: a maximum, then a minimum. */
export function criticalPoints([a, b, c]: Triple): number[] {
  const discriminant = 9 * b * b - 20 * a * c;
  if (!(discriminant >= 0)) return [];
  // This form of the roots does not cancel, and it holds where c is 0 too.
  const q = -(3 * b + (b < 0 ? -1 : 1) * Math.sqrt(discriminant)) / 2;
  return [q / (5 * c), a / q]
    .filter((t) => t > 0 && Number.isFinite(t))
    .map(Math.sqrt)
    .sort((x, y) => x - y);
}

/** ax + bx³ + cx⁵ */
export function evaluate([a, b, c]: Triple, x: number): number {
  const t = x * x;
  return x * (a + t * (b + t * c));
}

/** The sum of the absolute values of a polynomial's terms, which bounds its rounding error. */
function magnitude([a, b, c]: Triple, x: number): number {
  return Math.abs(a * x) + Math.abs(b * x ** 3) + Math.abs(c * x ** 5);
}

/** The composed map at x. */
export function compose(triples: readonly Triple[], x: number): number {
  return triples.reduce((value, triple) => evaluate(triple, value), x);
}
