import { expected } from './errors.js';
import { checkShape, integer, product } from './validate.js';

/** a, b, c of one Newton-Schulz iteration, which maps every singular value x to ax + bx³ + cx⁵. */
export type Triple = readonly [a: number, b: number, c: number];

/**
 * Named coefficients. Each but `paper` maps singular values from [0, 1] into [0, 1.25] with 5 iterations or more; on the way, and so with
 * fewer iterations, `polar-express` and `cans` reach 1.99 and `quintic` 1.27. Where a sequence is shorter than the number of
 * iterations its last triple repeats.
 *
 * - `muon`: one triple for every iteration (Keller Jordan, https://kellerjordan.github.io/posts/muon).
 * - `paper`: ROOT's published triples (arXiv 2511.20626), one for each of 2048×2048, 2048×3072, 2048×8192 and 2048×16384 or their
 *   transposes; `muon` for other shapes. As published, and that of 2048×2048 is not bounded: its peak 1.22459, at 0.5591, lies
 *   above its unstable fixed point 1.22355, so that a few singular values leave five iterations at up to 3.31 and six at up to 679.
 * - `polar-express`: optimal in the spectral norm, iteration by iteration (arXiv 2505.16932), with its safety factor 1.01.
 * - `cans`: Chebyshev-optimal (arXiv 2506.10935).
 * - `quintic`: You Jiacheng's sequence (https://x.com/YouJiacheng/status/1905861218138804534).
 * - `adaptive`: to be fitted to the matrix's shape; at present the same as `polar-express`, which the fits will replace.
 */
export type Preset = 'muon' | 'paper' | 'polar-express' | 'cans' | 'quintic' | 'adaptive';

/** A preset's name, one triple for every iteration, or a list of triples, an iteration each. */
export type Coefficients = Preset | Triple | readonly Triple[];

const muon: readonly Triple[] = [[3.4445, -4.775, 2.0315]];

const paper: Readonly<Record<string, readonly Triple[]>> = {
  '2048x2048': [[3.4916, -4.8224, 2.1095]],
  '2048x3072': [[3.4509, -4.579, 1.9325]],
  '2048x8192': [[2.9794, -3.6674, 1.6207]],
  '2048x16384': [[3.1943, -3.8221, 1.5322]],
};

/** p(x / s): leaves room for singular values that rounding pushes above 1. */
const withSafety = (s: number, [a, b, c]: Triple): Triple => [a / s, b / s ** 3, c / s ** 5];

const published: readonly Triple[] = [
  [8.28721201814563, -23.595886519098837, 17.300387312530933],
  [4.107059111542203, -2.9478499167379106, 0.5448431082926601],
  [3.9486908534822946, -2.908902115962949, 0.5518191394370137],
  [3.3184196573706015, -2.488488024314874, 0.51004894012372],
  [2.300652019954817, -1.6689039845747493, 0.4188073119525673],
  [1.875, -1.25, 0.375],
];
const polarExpress = published.map((triple) => withSafety(1.01, triple));

const cans: readonly Triple[] = [
  [8.4703, -25.1081, 18.6293],
  [4.1828, -3.1087, 0.5806],
  [3.9619, -2.9541, 0.563],
  [3.2866, -2.4647, 0.5074],
  [2.2737, -1.6447, 0.4162],
];

const quintic: readonly Triple[] = [
  [4.0848, -6.8946, 2.927],
  [3.9505, -6.3029, 2.6377],
  [3.7418, -5.5913, 2.3037],
  [2.8769, -3.1427, 1.2046],
  [2.8366, -3.0525, 1.2012],
];

const presets: Readonly<Record<Preset, (rows: number, columns: number) => readonly Triple[]>> = {
  muon: () => muon,
  paper: (rows, columns) => paper[`${Math.min(rows, columns)}x${Math.max(rows, columns)}`] ?? muon,
  'polar-express': () => polarExpress,
  cans: () => cans,
  quintic: () => quintic,
  adaptive: () => polarExpress,
};

export const presetNames = Object.freeze(Object.keys(presets)) as readonly Preset[];

/** Bounded so that a slip (a count of training steps, say) does not turn a step into hours. */
export const checkSteps = integer(1, 100);

/** Iterations where none are given: 5, or as many as a longer list of triples holds. */
export function defaultSteps(coefficients: Coefficients): number {
  return isList(coefficients) ? Math.max(5, coefficients.length) : 5;
}

function isList(coefficients: Coefficients): coefficients is readonly Triple[] {
  return typeof coefficients !== 'string' && Array.isArray(coefficients[0]);
}

/** Checks `coefficients` and copies them frozen. */
export function checkCoefficients(coefficients: unknown, name = 'coefficients'): Coefficients {
  const names = presetNames.map((preset) => `"${preset}"`).join(', ');
  if (typeof coefficients === 'string' && Object.hasOwn(presets, coefficients)) return coefficients as Preset;
  if (!Array.isArray(coefficients) || coefficients.length === 0) {
    throw expected(name, `one of ${names}, [a, b, c] or a list of [a, b, c]`, coefficients);
  }
  if (!Array.isArray(coefficients[0])) return checkTriple(coefficients, name);
  return Object.freeze(coefficients.map((triple, i) => checkTriple(triple, `${name}[${i}]`)));
}

function checkTriple(triple: unknown, name: string): Triple {
  const fits = (value: unknown) => typeof value === 'number' && Number.isFinite(Math.fround(value));
  if (!Array.isArray(triple) || triple.length !== 3 || !triple.every(fits)) throw expected(name, 'three finite numbers [a, b, c]', triple);
  return Object.freeze([...(triple as [number, number, number])]);
}

/** The first `steps` triples for a matrix of that shape, the last one repeated where there are fewer. */
export function triplesFor(rows: number, columns: number, coefficients: Coefficients, steps: number): Triple[] {
  const list = typeof coefficients === 'string' ? presets[coefficients](rows, columns) : isList(coefficients) ? coefficients : [coefficients];
  return Array.from({ length: steps }, (_, i) => list[Math.min(i, list.length - 1)]!);
}

/**
 * The coefficients that a step would use for a matrix of `shape`, one triple an iteration.
 * @param shape two or more dimensions; more than two are read as [shape[0], the rest]
 * @param coefficients a preset's name, one triple, or a list of triples
 * @param steps number of iterations, 1 to 100; 5, or the length of a longer list, if absent
 * @throws RootError ERR_INVALID_ARGUMENT
 */
export function newtonSchulzCoefficients(
  shape: readonly number[],
  coefficients: Coefficients = 'adaptive',
  steps?: number,
): readonly Triple[] {
  const [rows, ...rest] = checkShape(shape, 'shape');
  if (rows === undefined || rest.length === 0) throw expected('shape', 'of at least 2 dimensions', shape);
  const checked = checkCoefficients(coefficients);
  const triples = triplesFor(rows, product(rest), checked, checkSteps(steps ?? defaultSteps(checked), 'steps'));
  return Object.freeze(triples.map(([a, b, c]) => Object.freeze([a, b, c] as const)));
}
