import { composedBounds, criticalPoints, evaluate } from './bounds.js';
import { ceiling, domain, FitProblem, limits, triplesOf } from './fit-problem.js';
import { minimizeSquares } from './least-squares.js';
import { minimaxTriples } from './minimax.js';
import type { Spectrum } from './spectra.js';
import type { Triple } from './triple.js';

/**
 * Lists of weights of the squared violations of the bounds, in units of the mean square error at the start. A descent
 * uses the weights of a list in turn. Lenient weights lead out of local minima, strict ones keep to what the start has
 * achieved. Each list finds the better fit for some shapes.
 */
const ladders: readonly (readonly number[])[] = [
  [30, 1e3, 1e6],
  [1e3, 1e6],
];
const roughly = { iterations: 50, tolerance: 1e-4 };
const finely = { iterations: 200, tolerance: 1e-9 };

/**
 * Returns the list of triples that minimises the mean square of σ − 1 over a spectrum, among those whose composed map
 * stays within `limits`. It is the best of the local minima that are reached from `starts` and from minimax lists. The
 * bounds hold for the numbers as they are returned, rounded to 6 digits. Between iterations, values peak at 1.
 *
 * The method is Levenberg-Marquardt, not a library's: those on npm know no constraints (ml-levenberg-marquardt) or no
 * derivatives, and the composed map needs both.
 * @param starts lists of triples, none empty. Each is cut to `steps` triples or extended by its last one.
 */
export function fitTriples(
  spectrum: Spectrum,
  steps: number,
  starts: readonly (readonly Triple[])[],
): readonly Triple[] {
  const problem = new FitProblem(spectrum, steps);
  const descend = (
    start: readonly Triple[],
    penalties: readonly number[],
    { iterations, tolerance }: typeof roughly,
  ) => {
    const unit = Math.max(meanSquareError(start, spectrum), 1e-4);
    const first = Float64Array.from(start.flat());
    const step = (point: Float64Array, penalty: number) =>
      minimizeSquares(problem.withPenalty(penalty * unit), point, iterations, tolerance);
    return triplesOf(penalties.reduce(step, first));
  };
  const given = starts.map((start) =>
    normalized(Array.from({ length: steps }, (_, i) => start[Math.min(i, start.length - 1)]!)),
  );
  const starting = [...minimaxStarts(spectrum, steps), ...given];
  // Beyond 6 iterations, the minimax lists alone start close to the best fit, and descents cost most.
  const used = steps > 6 ? ladders.slice(0, 1) : ladders;
  const rough = starting
    .flatMap((start) => used.map((penalties) => descend(start, penalties, roughly)))
    .filter(hasPeaks);
  const fine = best(rough.map(bounded), spectrum, 2).flatMap((start) => [
    start,
    bounded(descend(start, [1e8], finely)),
  ]);
  return Object.freeze(best(fine, spectrum, 1)[0]!.map((triple) => Object.freeze(triple)));
}

/** Whether a descent has gone well. Where it has not, the work that follows would not end. */
function hasPeaks(triples: readonly Triple[]): boolean {
  return triples.every((triple) => triple.every(Number.isFinite) && maximum(triple, domain) > 0.01);
}

function best(fits: readonly Triple[][], spectrum: Spectrum, count: number): Triple[][] {
  const rated = fits.map((triples) => ({ triples, error: meanSquareError(triples, spectrum) }));
  const sorted = rated.sort((x, y) => x.error - y.error);
  return sorted.slice(0, count).map(({ triples }) => triples);
}

/** √(mean of (σ − 1)²) after the triples. */
export function rmsError(triples: readonly Triple[], spectrum: Spectrum): number {
  return Math.sqrt(meanSquareError(triples, spectrum));
}

function meanSquareError(triples: readonly Triple[], { values, weights }: Spectrum): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    let x = values[i]!;
    for (const triple of triples) x = evaluate(triple, x);
    sum += weights[i]! * (x - 1) * (x - 1);
  }
  return sum;
}

const minimaxLists = new Map<number, readonly Triple[][]>();

/** The three best of the minimax lists. */
function minimaxStarts(spectrum: Spectrum, steps: number): Triple[][] {
  let lists = minimaxLists.get(steps);
  if (lists === undefined) {
    const least = Array.from({ length: 32 }, (_, i) => Math.exp(-0.35 * i - 0.7));
    lists = [0.01, 0.03, 0.1]
      .flatMap((cushion) => least.map((value) => normalized(minimaxTriples(value, cushion, steps))))
      .filter(hasPeaks);
    minimaxLists.set(steps, lists);
  }
  return best(lists, spectrum, 3);
}

/**
 * Scales every iteration so that its peak on [0, domain] is at its ceiling. The last one is only scaled down. Otherwise
 * the map stays the same: it takes domain · x to where the triples take x.
 */
function normalized(triples: readonly Triple[]): Triple[] {
  let reach = 1;
  return triples.map((triple, i) => {
    const stretched = scale(triple, reach / domain, 1);
    const most = ceiling(i, triples.length);
    const peak = maximum(stretched, domain);
    reach = peak;
    return scale(stretched, 1, i + 1 < triples.length ? most / peak : Math.min(1, most / peak));
  });
}

/**
 * Rounds the triples to 6 digits within the bounds. Each iteration is scaled to take what the one before it reaches
 * with its rounded numbers. The last one is scaled down by as much more as the bounds still ask for.
 */
function bounded(triples: readonly Triple[]): Triple[] {
  let reach = domain;
  const result = triples.map((triple, i) => {
    const stretched = scale(triple, domain / reach, 1);
    const rounded = round(scale(stretched, 1, Math.min(1, ceiling(i, triples.length) / maximum(stretched, reach))));
    reach = maximum(rounded, reach) * domain;
    return rounded;
  });
  const last = result.at(-1)!;
  for (let factor = 1; ;) {
    const exact = composedBounds(result).most / limits.most;
    const perturbed = composedBounds(result, limits.perturbation).most / limits.mostPerturbed;
    if (exact <= 1 && perturbed <= 1) return result;
    factor /= Math.max(exact, perturbed) * (1 + 1e-6);
    result[triples.length - 1] = round(scale(last, 1, factor));
  }
}

/** output · p(input · x) */
function scale([a, b, c]: Triple, input: number, output: number): Triple {
  const first = input * output;
  const square = input * input;
  return [a * first, b * first * square, c * first * square * square];
}

/** The largest value of an iteration on [0, end] */
function maximum(triple: Triple, end: number): number {
  return Math.max(evaluate(triple, end), ...criticalPoints(triple).map((x) => (x < end ? evaluate(triple, x) : 0)));
}

function round([a, b, c]: Triple): Triple {
  const digits = (value: number) => Number(value.toPrecision(6));
  return [digits(a), digits(b), digits(c)];
}
