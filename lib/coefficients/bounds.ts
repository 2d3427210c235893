import type { Triple } from './triple.js';

/** What the iterates of singular values in [0, 1] can reach. */
export interface Bounds {
  /** Of the whole composition. */
  readonly least: number;
  readonly most: number;
  /** The largest absolute value between two iterations; 0 where there is one iteration. */
  readonly intermediate: number;
}

/** By how much float64 may err in a polynomial of a few terms, relative to the terms; generous by a factor of 1000. */
const rounding = 1e-12;

/**
 * The range of the composed map on [0, 1], where every value, the first and the last too, may be moved by a share of up
 * to `perturbation` either way.
 *
 * Not an estimate: a continuous map takes an interval to an interval, and values are moved independently, so the values
 * that can be reached after an iteration fill the interval from the least to the most that its polynomial takes on the
 * interval before it, each moved outwards. Their extremes lie at the ends or where the derivative a + 3bx² + 5cx⁴ is 0.
 * Rounding is covered by widening each interval.
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

/** Positive roots of the derivative, ascending: a maximum, then a minimum. */
export function criticalPoints([a, b, c]: Triple): number[] {
  const discriminant = 9 * b * b - 20 * a * c;
  if (!(discriminant >= 0)) return [];
  // The form that does not cancel, also where c is 0.
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

/** Of the sum's parts, to bound its rounding error. */
function magnitude([a, b, c]: Triple, x: number): number {
  return Math.abs(a * x) + Math.abs(b * x ** 3) + Math.abs(c * x ** 5);
}

/** The composed map at x. */
export function compose(triples: readonly Triple[], x: number): number {
  return triples.reduce((value, triple) => evaluate(triple, value), x);
}
