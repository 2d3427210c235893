import type { Triple } from '../lib/coefficients/triple.js';

export interface Interval {
  readonly low: number;
  readonly high: number;
}

/**
 * Encloses what every iteration can reach from [0, 1] where each value is moved by a share of up to `perturbation`
 * either way. It uses interval arithmetic with bisection, and nothing from lib. Every enclosure is widened by 1e-13 of
 * the terms' sizes to cover rounding. This is a hundred times what the dozen operations of float64 can lose.
 */
export function enclosure(triples: readonly Triple[], perturbation: number): Interval[] {
  let reach = widen({ low: 0, high: 1 }, perturbation);
  return triples.map((triple) => {
    const high = supremum(triple, reach);
    const [a, b, c] = triple;
    const low = -supremum([-a, -b, -c], reach);
    reach = widen({ low, high }, perturbation);
    return reach;
  });
}

function widen({ low, high }: Interval, share: number): Interval {
  const outwards = (value: number, up: boolean) => value * (value > 0 === up ? 1 + share : 1 - share);
  return { low: outwards(low, false) - 1e-15, high: outwards(high, true) + 1e-15 };
}

/**
 * Returns an upper bound of p on the interval that is at most 1e-9 too high. Intervals that cannot hold more than a
 * known value are dropped.
 */
function supremum(triple: Triple, { low, high }: Interval): number {
  let known = -Infinity;
  for (let i = 0; i <= 64; i++) known = Math.max(known, at(triple, low + ((high - low) * i) / 64));
  const open: Interval[] = [{ low, high }];
  for (let interval = open.pop(); interval !== undefined; interval = open.pop()) {
    const middle = (interval.low + interval.high) / 2;
    known = Math.max(known, at(triple, middle));
    if (bound(triple, interval) <= known + 1e-9) continue;
    open.push({ low: interval.low, high: middle }, { low: middle, high: interval.high });
  }
  return known + 1e-9;
}

/**
 * Bounds p by the mean value form: p(x) is within p(middle) ± half the width · the greatest |p′|, and p′ is within the
 * range of its own terms.
 */
function bound([a, b, c]: Triple, { low, high }: Interval): number {
  const middle = (low + high) / 2;
  const far = Math.max(Math.abs(low), Math.abs(high));
  const near = low <= 0 && high >= 0 ? 0 : Math.min(Math.abs(low), Math.abs(high));
  const quadratic = [3 * b * near ** 2, 3 * b * far ** 2];
  const quartic = [5 * c * near ** 4, 5 * c * far ** 4];
  const slope = Math.max(
    Math.abs(a + Math.min(...quadratic) + Math.min(...quartic)),
    Math.abs(a + Math.max(...quadratic) + Math.max(...quartic)),
  );
  const size = Math.abs(a * far) + Math.abs(b * far ** 3) + Math.abs(c * far ** 5);
  return at([a, b, c], middle) + ((high - low) / 2) * slope * (1 + 1e-13) + 1e-13 * size;
}

function at([a, b, c]: Triple, x: number): number {
  return x * (a + x * x * (b + x * x * c));
}
