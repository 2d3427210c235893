import { statSync } from 'node:fs';
import { type Description, readMetadata } from '../checkpoint/metadata.js';
import { isElementType } from '../checkpoint/format.js';
import { SafetensorsFile } from '../checkpoint/reader.js';
import { singularValues } from '../coefficients/singular-values.js';
import { product } from '../validate.js';
import { shareBeyond, thresholdOf } from './clip.js';
import { logHistogram } from './plot.js';

/** Which matrices are decomposed: as many as take a few seconds, the smallest first; all; or none. */
export type SpectraChoice = 'auto' | 'all' | 'none';

export interface Inspection {
  readonly format: 'root-optimizer-inspection';
  readonly version: 1;
  readonly file: string;
  readonly bytes: number;
  /** The steps that had been applied; null where the file is not a checkpoint of this package. */
  readonly step: number | null;
  /** The names of the notes that were saved with a checkpoint. */
  readonly notes: readonly string[];
  /** The parameters of a checkpoint. */
  readonly parameters: readonly InspectedParameter[];
  readonly tensors: readonly InspectedTensor[];
}

export interface InspectedParameter {
  readonly name: string;
  readonly shape: readonly number[];
  readonly algorithm: string;
  readonly lr: number | null;
  /** ε of the last step, of each matrix; null where nothing was clipped. */
  readonly thresholds: readonly (number | null)[];
  /** The share of Σ|M| of the momentum that ε by the group's setting clips, of each matrix of ROOT's. */
  readonly clipped: readonly number[];
  /** ε_G of the last step and the running mean of it. */
  readonly gradientThresholds: readonly (number | null)[];
  readonly gradientScales: readonly (number | null)[];
}

export interface InspectedTensor {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly number[];
  readonly elements: number;
  readonly bytes: number;
  /** Of the elements that are finite; null for types that are not read. */
  readonly norm: number | null;
  readonly rms: number | null;
  readonly largest: number | null;
  readonly nonFinite: number | null;
  /** Of each of its matrices that was decomposed. */
  readonly spectra: readonly InspectedSpectrum[];
}

export interface InspectedSpectrum {
  readonly rows: number;
  readonly columns: number;
  /** Whether all singular values were computed rather than estimated. */
  readonly exact: boolean;
  readonly largest: number;
  readonly smallest: number;
  /** ‖X‖² / σ₁², a smooth rank. */
  readonly stableRank: number;
  /** The shares of singular values in bins from 10^−6 of the largest to the largest, equal in the logarithm. */
  readonly histogram: readonly number[];
}

/** Bins of a histogram, which are characters of a plot. */
const bins = 24;
/** Operations of all decompositions that are done unasked, a few seconds' worth. */
const budget = 2e9;

/**
 * Reads a safetensors file, of this package or of any other program.
 * @param onTensor is called before each tensor is read
 * @throws RootError ERR_CHECKPOINT where it is none or cannot be read
 */
export async function inspectFile(
  path: string,
  choice: SpectraChoice,
  onTensor: (done: number, total: number, name: string) => void = () => undefined,
): Promise<Inspection> {
  const file = await SafetensorsFile.open(path);
  try {
    const isOurs = file.metadata['format'] === 'root-optimizer';
    const metadata = isOurs ? readMetadata(file, path) : undefined;
    const descriptions = [...(metadata?.descriptions.values() ?? [])];
    const matrices = matricesOf(file, descriptions);
    const chosen = chooseSpectra(matrices, choice);
    const clippedOf = new Map<string, readonly number[]>();
    const owners = new Map(descriptions.map((one) => [`${one.name}.momentumBuffer`, one]));
    const tensors: InspectedTensor[] = [];
    for (const [name, { type, shape, start, end }] of file.tensors) {
      onTensor(tensors.length, file.tensors.size, name);
      const common = { name, type, shape, elements: product(shape), bytes: end - start };
      if (!isElementType(type)) {
        tensors.push({ ...common, norm: null, rms: null, largest: null, nonFinite: null, spectra: [] });
        continue;
      }
      const sizes = matrices.get(name) ?? [];
      const owner = owners.get(name);
      const whole = chosen.has(name) || owner?.algorithm === 'root' ? await file.read(name) : undefined;
      const figures = whole === undefined ? await measure(file, name) : measureValues([whole]);
      if (owner?.algorithm === 'root') clippedOf.set(owner.name, clippedShares(owner, whole!));
      const spectra = chosen.has(name) && figures.nonFinite === 0 ? spectraOf(whole!, sizes) : [];
      tensors.push({ ...common, ...figures, spectra });
    }
    const parameters = descriptions.map((one) => describeParameter(one, clippedOf.get(one.name) ?? []));
    return {
      ...{ format: 'root-optimizer-inspection', version: 1, file: path, bytes: statSync(path).size },
      step: metadata?.step ?? null,
      notes: Object.keys(metadata?.notes ?? {}),
      ...{ parameters, tensors },
    };
  } finally {
    await file.close();
  }
}

type Sizes = readonly (readonly [rows: number, columns: number])[];

/** The matrices of each tensor. Those of a checkpoint are the parameters' own. Second moments are none. */
function matricesOf(file: SafetensorsFile, descriptions: readonly Description[]): Map<string, Sizes> {
  const known = new Map<string, Sizes>();
  for (const { name, matrices } of descriptions) {
    if (matrices.length > 0) {
      for (const array of ['data', 'momentumBuffer']) known.set(`${name}.${array}`, matrices as Sizes);
    }
    for (const array of ['expAvg', 'expAvgSq', 'rowSecondMoment']) known.set(`${name}.${array}`, []);
  }
  const found = [...file.tensors].map(([name, { type, shape }]): [string, Sizes] => {
    const [rows = 0, ...rest] = shape;
    const own: Sizes = rest.length > 0 ? [[rows, product(rest)]] : [];
    const sizes = known.get(name) ?? own;
    const fits = isElementType(type) && product(shape) > 0 && covers(sizes, product(shape));
    return [name, fits ? sizes : []];
  });
  return new Map(found);
}

function covers(sizes: Sizes, elements: number): boolean {
  return sizes.reduce((sum, [rows, columns]) => sum + rows * columns, 0) === elements;
}

function chooseSpectra(matrices: ReadonlyMap<string, Sizes>, choice: SpectraChoice): Set<string> {
  const candidates = [...matrices].filter(([, sizes]) => sizes.length > 0);
  if (choice === 'none') return new Set();
  if (choice === 'all') return new Set(candidates.map(([name]) => name));
  let left = budget;
  const costs = candidates.map(([name, sizes]) => [name, sizes.reduce((sum, size) => sum + costOf(size), 0)] as const);
  const within = costs.sort(([, a], [, b]) => a - b).filter(([, cost]) => (left -= cost) >= 0);
  return new Set(within.map(([name]) => name));
}

/** The operations of `singularValues`. */
function costOf([rows, columns]: readonly [number, number]): number {
  const [m, n] = [Math.min(rows, columns), Math.max(rows, columns)];
  return m <= 1024 ? m * m * n + (4 * m ** 3) / 3 : 1024 * m * n;
}

type Figures = Pick<InspectedTensor, 'norm' | 'rms' | 'largest' | 'nonFinite'>;

async function measure(file: SafetensorsFile, name: string): Promise<Figures> {
  const sums = new Sums();
  for await (const { values } of file.pieces([name])) sums.add(values);
  return sums.figures();
}

function measureValues(parts: readonly Float32Array[]): Figures {
  const sums = new Sums();
  for (const values of parts) sums.add(values);
  return sums.figures();
}

class Sums {
  #squares = 0;
  #largest = 0;
  #finite = 0;
  #nonFinite = 0;

  add(values: Float32Array): void {
    for (const value of values) {
      if (!Number.isFinite(value)) {
        this.#nonFinite++;
        continue;
      }
      this.#finite++;
      this.#squares += value * value;
      this.#largest = Math.max(this.#largest, Math.abs(value));
    }
  }

  figures(): Figures {
    const rms = this.#finite === 0 ? 0 : Math.sqrt(this.#squares / this.#finite);
    return { norm: Math.sqrt(this.#squares), rms, largest: this.#largest, nonFinite: this.#nonFinite };
  }
}

function spectraOf(values: Float32Array, sizes: Sizes): InspectedSpectrum[] {
  let offset = 0;
  return sizes.flatMap(([rows, columns]) => {
    const matrix = values.subarray(offset, (offset += rows * columns));
    if (matrix.every((value) => value === 0)) return [];
    const { values: found, weights, exact } = singularValues(matrix, rows, columns);
    const largest = Math.max(...found);
    const squares = matrix.reduce((sum, value) => sum + value * value, 0);
    return {
      ...{ rows, columns, exact, largest, smallest: Math.min(...found), stableRank: squares / largest ** 2 },
      histogram: logHistogram(found, weights, bins),
    };
  });
}

/** A checkpoint has no gradients, so that the momentum stands for the look-ahead U. */
function clippedShares({ matrices, settings }: Description, momentum: Float32Array): number[] {
  let offset = 0;
  return (matrices as Sizes).map(([rows, columns]) => {
    const values = momentum.subarray(offset, (offset += rows * columns));
    return values.length === 0 ? 0 : shareBeyond(values, thresholdOf(values, settings['threshold']));
  });
}

function describeParameter(description: Description, clipped: readonly number[]): InspectedParameter {
  const { name, shape, algorithm, settings, thresholds, gradientThresholds = [], gradientScales = [] } = description;
  const { lr } = settings;
  return {
    ...{ name, shape, algorithm, lr: typeof lr === 'number' ? lr : null, thresholds, clipped },
    ...{ gradientThresholds, gradientScales },
  };
}
