import { criticalPoints, evaluate } from './bounds.js';
import type { Triple } from './triple.js';

/**
 * Returns the list of triples whose composed map deviates least from 1 on [least, 1]. Each iteration is the best odd
 * quintic on the interval that the iterations before it have left (arXiv 2505.16932, theorem 3.1). That interval is
 * taken to begin no lower than a small share of its end, the `cushion`, so that no value falls to 0 in between.
 */
export function minimaxTriples(least: number, cushion: number, steps: number): Triple[] {
  let [from, to] = [least, 1];
  return Array.from({ length: steps }, () => {
    const triple = minimaxQuintic(Math.max(from, to * cushion), to);
    const end = evaluate(triple, to);
    // Values below the cushion are the only ones that the iteration does not bring within the error around 1.
    from = Math.min(evaluate(triple, from), 2 - end);
    to = Math.max(end, 2 - end);
    return triple;
  });
}

/**
 * Returns the p(x) = ax + bx³ + cx⁵ whose greatest |1 − p(x)| on [from, to] is least. Remez' exchange finds it: its
 * errors at four points are of equal size and alternating sign.
 */
function minimaxQuintic(from: number, to: number): Triple {
  // The polynomial is so flat here that its extremes could not be told apart.
  if (from > 0.97 * to) return contact((from + to) / 2);
  let points = [from, from + (to - from) / 4, from + (3 * (to - from)) / 4, to];
  let triple: Triple = [1, 0, 0];
  for (let i = 0; i < 30; i++) {
    triple = alternating(points);
    const inner = criticalPoints(triple);
    if (inner.length !== 2) break;
    const moved = Math.abs(inner[0]! - points[1]!) + Math.abs(inner[1]! - points[2]!);
    points = [from, inner[0]!, inner[1]!, to];
    if (moved < 1e-12 * to) break;
  }
  return triple;
}

/** Maps x to 1 and has its first two derivatives 0 there. */
function contact(x: number): Triple {
  return [15 / 8 / x, -10 / 8 / x ** 3, 3 / 8 / x ** 5];
}

/** Solves p(x) = 1 − e, 1 + e, 1 − e, 1 + e at the points for p and e by Gauss' elimination. Returns p. */
function alternating(points: readonly number[]): Triple {
  const rows = points.map((x, i) => [x, x ** 3, x ** 5, i % 2 === 0 ? 1 : -1, 1]);
  for (let i = 0; i < 4; i++) {
    const largest = rows.slice(i).reduce((a, b) => (Math.abs(b[i]!) > Math.abs(a[i]!) ? b : a));
    rows.splice(rows.indexOf(largest), 1);
    rows.splice(i, 0, largest);
    for (const row of rows) {
      if (row === largest) continue;
      const factor = row[i]! / largest[i]!;
      for (let j = i; j < 5; j++) row[j]! -= factor * largest[j]!;
    }
  }
  return [rows[0]![4]! / rows[0]![0]!, rows[1]![4]! / rows[1]![1]!, rows[2]![4]! / rows[2]![2]!];
}
