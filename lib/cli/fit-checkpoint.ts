import { checkpointError } from '../checkpoint/format.js';
import { type Description, readMetadata } from '../checkpoint/metadata.js';
import { SafetensorsFile } from '../checkpoint/reader.js';
import { fitToSpectrum } from '../coefficients/adaptive.js';
import { type Calibration, calibrationFormat } from '../coefficients/calibration.js';
import { rmsError } from '../coefficients/fit.js';
import { newtonSchulzCoefficients } from '../coefficients/option.js';
import type { Preset } from '../coefficients/presets.js';
import { singularValues } from '../coefficients/singular-values.js';
import {
  binned,
  gaussianSpectrum,
  measuredSpectrum,
  mix,
  mixtureWeights,
  type Spectrum,
} from '../coefficients/spectra.js';
import type { Triple } from '../coefficients/triple.js';
import { clipped } from './clip.js';

/**
 * The matrices that share coefficients: those of a shape, of a parameter, or of all parameters with the same settings.
 */
export type CalibrateBy = 'shape' | 'parameter' | 'group';

/**
 * The errors are √(mean of (σ − 1)²) of the real momentum after the iterations. This is the distance to its polar
 * factor, divided by √m.
 */
export interface CalibratedParameter {
  readonly name: string;
  /** [rows, columns] of each of its matrices */
  readonly matrices: readonly (readonly [number, number])[];
  /** Whether all singular values were computed rather than estimated. */
  readonly exact: boolean;
  readonly spectrum: Spectrum;
  readonly coefficients: readonly Triple[];
  /** The preset with the least error here, `adaptive` excepted. */
  readonly bestPreset: Preset;
  readonly errors: { readonly best: number; readonly adaptive: number; readonly calibrated: number };
}

export interface CalibrationResult {
  readonly calibration: Calibration;
  readonly parameters: readonly CalibratedParameter[];
}

interface Matrix {
  readonly name: string;
  readonly group: string;
  readonly shape: readonly [number, number];
  readonly spectrum: Spectrum;
  readonly exact: boolean;
}

const fixedPresets: readonly Preset[] = ['muon', 'paper', 'polar-express', 'cans', 'quintic'];

/**
 * Fits coefficients to the momentum buffers of a checkpoint. The buffers are clipped as a step clips its look-ahead.
 * The look-ahead itself also needs the gradient, which a checkpoint does not hold.
 *
 * Real spectra have weight 1, Gaussian spectra of the same shapes have weight 3. ROOT's paper mixes momentum with
 * random matrices in this proportion. The mixture keeps the fit from following the noise of one checkpoint.
 * @throws RootError ERR_CHECKPOINT where the file is not a checkpoint or holds no momentum
 */
export async function calibrate(path: string, steps: number, by: CalibrateBy): Promise<CalibrationResult> {
  const matrices = await readMatrices(path);
  const keyOf = ({ name, group, shape }: Matrix) =>
    by === 'parameter' ? name : by === 'group' ? group : `${Math.min(...shape)}x${Math.max(...shape)}`;
  const units = new Map<string, Matrix[]>();
  for (const matrix of matrices) units.set(keyOf(matrix), [...(units.get(keyOf(matrix)) ?? []), matrix]);
  const fits = new Map([...units].map(([key, members]) => [key, fitUnit(members, steps)]));
  const entries = [...units].map(([key, members]) => {
    const [m, n] = members[0]!.shape;
    const place =
      by === 'shape'
        ? { shape: [Math.min(m, n), Math.max(m, n)] as const }
        : { names: [...new Set(members.map(({ name }) => name))] };
    return { ...place, coefficients: fits.get(key)! };
  });
  const names = [...new Set(matrices.map(({ name }) => name))];
  const parameters = names.map((name) =>
    rate(
      matrices.filter((one) => one.name === name),
      steps,
      (matrix) => fits.get(keyOf(matrix))!,
    ),
  );
  return { calibration: { format: calibrationFormat, version: 1, steps, entries }, parameters };
}

function fitUnit(members: readonly Matrix[], steps: number): readonly Triple[] {
  // A matrix and its transpose have the same singular values.
  const ordered = ({ shape }: Matrix) => [...shape].sort((a, b) => a - b).join('x');
  const shapes = new Map(members.map((one) => [ordered(one), one.shape]));
  const count = (key: string) => members.filter((one) => ordered(one) === key).length;
  const gaussian = mix([...shapes].map(([key, shape]) => [count(key), gaussianSpectrum(...shape)]));
  const real = mix(members.map(({ spectrum }) => [1, spectrum]));
  const spectrum = mix([
    [mixtureWeights.gaussian, shapes.size === 1 ? gaussian : binned(gaussian)],
    [mixtureWeights.decaying, binned(real)],
  ]);
  return fitToSpectrum(spectrum, ...members[0]!.shape, steps);
}

/** All matrices of a parameter have the same weight. */
function rate(
  members: readonly Matrix[],
  steps: number,
  coefficientsOf: (matrix: Matrix) => readonly Triple[],
): CalibratedParameter {
  const error = (triplesOf: (matrix: Matrix) => readonly Triple[]) =>
    Math.sqrt(members.reduce((sum, one) => sum + rmsError(triplesOf(one), one.spectrum) ** 2, 0) / members.length);
  const presets = fixedPresets.map((preset) => ({
    preset,
    error: error(({ shape }) => newtonSchulzCoefficients(shape, preset, steps)),
  }));
  const best = presets.reduce((a, b) => (b.error < a.error ? b : a));
  return {
    name: members[0]!.name,
    matrices: members.map(({ shape }) => shape),
    exact: members.every(({ exact }) => exact),
    spectrum: mix(members.map(({ spectrum }) => [1, spectrum])),
    coefficients: coefficientsOf(members[0]!),
    bestPreset: best.preset,
    errors: {
      best: best.error,
      adaptive: error(({ shape }) => newtonSchulzCoefficients(shape, 'adaptive', steps)),
      calibrated: error(coefficientsOf),
    },
  };
}

async function readMatrices(path: string): Promise<Matrix[]> {
  const file = await SafetensorsFile.open(path);
  try {
    const matrices: Matrix[] = [];
    for (const description of readMetadata(file, path).descriptions.values()) {
      if (description.algorithm === 'adamw') continue;
      const momentum = await file.read(`${description.name}.momentumBuffer`);
      matrices.push(...matricesIn(path, description, momentum));
    }
    if (matrices.length === 0) {
      throw checkpointError(`${path} holds no momentum of ROOT or Muon that is not 0`);
    }
    return matrices;
  } finally {
    await file.close();
  }
}

function matricesIn(
  path: string,
  { name, algorithm, settings, matrices }: Description,
  momentum: Float32Array,
): Matrix[] {
  const group = JSON.stringify([algorithm, settings]);
  let offset = 0;
  const found = matrices.flatMap(([rows = 0, columns = 0]): Matrix[] => {
    const values = clipped(
      momentum.subarray(offset, offset + rows * columns),
      algorithm === 'root' ? settings['threshold'] : null,
    );
    offset += rows * columns;
    if (!values.every(Number.isFinite)) {
      throw checkpointError(`Expected tensor "${name}.momentumBuffer" of ${path} to be finite`);
    }
    if (values.every((value) => value === 0)) return [];
    const { exact, ...decomposed } = singularValues(values, rows, columns);
    const spectrum = measuredSpectrum(decomposed.values, Math.min(rows, columns), decomposed.weights);
    return [{ name, group, shape: [rows, columns], spectrum, exact }];
  });
  if (offset !== momentum.length) {
    throw checkpointError(`Expected the matrices of "${name}" in ${path} to cover ${momentum.length} elements`);
  }
  return found;
}
