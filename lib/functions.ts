import { allocate, checkArray, firstNonFinite } from './arrays.js';
import { addon, asRootError, guard, guardAsync, nativeCodeOf } from './binding.js';
import { fitOnThread } from './coefficients/fit-thread.js';
import {
  boundedTriplesFor,
  checkCoefficients,
  checkSteps,
  type Coefficients,
  defaultSteps,
  fitFor,
} from './coefficients/option.js';
import {
  checkDevice,
  checkPrecision,
  checkThreads,
  type Device,
  type Precision,
  precisionOn,
  resolveDevice,
} from './devices.js';
import { expected, RootError } from './errors.js';
import { type Layout, matricesOf } from './parameter.js';
import { checkThreshold } from './threshold.js';
import { boolean, checkKeys, checkObject, checkShape, product } from './validate.js';

interface WhereOptions {
  /** Default `auto`. */
  device?: Device | undefined;
  /** Number of CPU threads. The default 0 stands for the physical cores. Results do not depend on it. */
  threads?: number | undefined;
}

export interface OrthogonalizeOptions extends WhereOptions, Omit<Layout, 'layout'> {
  /** Default `adaptive`. */
  coefficients?: Coefficients | undefined;
  /** Newton-Schulz iterations, 1 to 100; default 5, 10 for `deepseek-v4`, or the length of a longer list. */
  steps?: number | undefined;
  /** The precision of the products, as for an optimizer. Default `auto`. */
  precision?: 'auto' | Precision | undefined;
  /** As for an optimizer, default true. */
  compensated?: boolean | undefined;
  /**
   * The array for the result, of x's length. It may be `x` itself but not another part of its memory. Without it every
   * call allocates a new array, which can take nearly as long as the products.
   */
  out?: Float32Array | undefined;
}

export interface SoftThresholdOptions extends WhereOptions {
  /** In [0, 1], default 0.9. */
  quantile?: number | undefined;
  /** Above 0, default 1. */
  scale?: number | undefined;
}

export interface SoftThresholdResult {
  /** clamp(x, −threshold, threshold) */
  readonly base: Float32Array;
  /** sign(x)·max(|x| − threshold, 0); `base` + `outliers` is `x`, bit for bit. */
  readonly outliers: Float32Array;
  /** ε, in float64 */
  readonly threshold: number;
}

/**
 * Returns the approximate polar factor UVᵀ of X = UΣVᵀ by the Newton-Schulz iteration: X ← X / (‖X‖ + 1e-7) in the
 * Frobenius norm, then X ← aX + (bA + cA²)X with A = XXᵀ, once an iteration.
 *
 * The call runs off the event loop. Until it settles, `x` has to stay as it is, and `out` belongs to this call alone.
 * @param x row-major; changed only where it is `out` as well
 * @param shape [m, n]; more dimensions are read as [shape[0], the rest], or as `split` and `stack` say
 * @returns `out`, or a new array of the same shape. A call that is refused leaves `out` as it was.
 * @throws RootError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH, ERR_NON_FINITE, ERR_DEVICE_UNAVAILABLE,
 * ERR_OUT_OF_MEMORY, ERR_CUDA
 */
export async function orthogonalize(
  x: Float32Array,
  shape: readonly number[],
  options: OrthogonalizeOptions = {},
): Promise<Float32Array> {
  const { output, fits, args } = prepareOrthogonalize(x, shape, options);
  const size = output.length;
  const fitted = fitOnThread(fits);
  if (fitted !== undefined) {
    await fitted;
    for (const [name, array] of Object.entries({ x, out: output })) checkArray(array, size, name);
  }
  const given = args();
  await guardAsync(() => addon().orthogonalize(...given), explaining(x));
  return output;
}

/** Like `orthogonalize`, on the calling thread. */
export function orthogonalizeSync(
  x: Float32Array,
  shape: readonly number[],
  options: OrthogonalizeOptions = {},
): Float32Array {
  const { output, args } = prepareOrthogonalize(x, shape, options);
  const given = args();
  guard(() => addon().orthogonalizeSync(...given), explaining(x));
  return output;
}

/**
 * Splits `x` at ε = `scale` · the `quantile` of |x| (linearly interpolated) by the proximal operator of ε‖·‖₁: `base`
 * is what is kept, `outliers` is what exceeds ε. The call runs off the event loop. Until it settles, `x` has to stay as
 * it is.
 * @param x not empty, not changed
 * @throws RootError ERR_INVALID_ARGUMENT, ERR_NON_FINITE, ERR_DEVICE_UNAVAILABLE, ERR_OUT_OF_MEMORY, ERR_CUDA
 */
export async function softThreshold(x: Float32Array, options: SoftThresholdOptions = {}): Promise<SoftThresholdResult> {
  const { device, threads, base, outliers, quantile, scale } = prepareSoftThreshold(x, options);
  const call = () => addon().softThreshold(device, threads, x, base, outliers, quantile, scale);
  return { base, outliers, threshold: await guardAsync(call, explaining(x)) };
}

/** Like `softThreshold`, on the calling thread. */
export function softThresholdSync(x: Float32Array, options: SoftThresholdOptions = {}): SoftThresholdResult {
  const { device, threads, base, outliers, quantile, scale } = prepareSoftThreshold(x, options);
  const call = () => addon().softThresholdSync(device, threads, x, base, outliers, quantile, scale);
  return { base, outliers, threshold: guard(call, explaining(x)) };
}

/**
 * Returns the array for the result, the fits that the coefficients need, and a function that returns the arguments of
 * the addon's call.
 */
function prepareOrthogonalize(x: Float32Array, shape: unknown, options: OrthogonalizeOptions) {
  checkKeys(checkObject(options, 'the options'), [
    'coefficients',
    'steps',
    'device',
    'threads',
    'precision',
    'compensated',
    'split',
    'stack',
    'out',
  ]);
  const extents = checkShape(shape, 'shape');
  if (extents.length < 2) throw expected('shape', 'of at least 2 dimensions', shape);
  const size = product(extents);
  checkArray(x, size, 'x');
  const out = options.out === undefined ? undefined : checkArray(options.out, size, 'out');
  const matrices = matricesOf(extents, options, 'x');
  const chosen = checkCoefficients(options.coefficients ?? 'adaptive', 'coefficients');
  const steps = checkSteps(options.steps ?? defaultSteps(chosen), 'steps');
  const place = where(options);
  const precision = precisionOn(place.device, checkPrecision(options.precision ?? 'auto', 'precision'));
  const compensated = boolean(options.compensated ?? true, 'compensated');
  const fits = matrices.flatMap(({ rows, columns }) => fitFor(rows, columns, chosen, steps));
  const coefficients = () =>
    matrices.map(({ rows, columns }) =>
      Float64Array.from(boundedTriplesFor(rows, columns, chosen, steps, precision).flat()),
    );
  const output = out ?? allocate(size, 'the result');
  const args = () =>
    [place.device, place.threads, precision, compensated, x, output, matrices, coefficients()] as const;
  return { output, fits, args };
}

function prepareSoftThreshold(x: unknown, options: SoftThresholdOptions) {
  checkKeys(checkObject(options, 'the options'), ['quantile', 'scale', 'device', 'threads']);
  const size = (x as { length?: unknown } | null | undefined)?.length;
  checkArray(x, typeof size === 'number' && size > 0 ? size : 1, 'x');
  const length = (x as Float32Array).length;
  const parts = { base: allocate(length, 'the base'), outliers: allocate(length, 'the outliers') };
  return { ...checkThreshold(options), ...where(options), ...parts };
}

function where({ device, threads }: WhereOptions): { device: string; threads: number } {
  const { name } = resolveDevice(checkDevice(device ?? 'auto', 'device'));
  return { device: name, threads: checkThreads(threads ?? 0, 'threads') };
}

/**
 * Returns a `map` for `guard` in a call on `x`. The addon reports only that a value is not finite; the RootError names
 * it.
 */
function explaining(x: Float32Array): (error: unknown) => unknown {
  return (error) => {
    const found = nativeCodeOf(error) === 'ERR_NON_FINITE' ? firstNonFinite(x) : undefined;
    if (found === undefined) return asRootError(error);
    return new RootError('ERR_NON_FINITE', `Expected x to be finite, got ${found}`, { cause: error });
  };
}
