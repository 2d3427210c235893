import { checkCoefficients, checkSteps, type Coefficients } from '../coefficients/option.js';
import { checkDevice, checkPrecision, checkThreads, type Device, type Precision } from '../devices.js';
import { expected } from '../errors.js';
import {
  checkGradientThresholdOption,
  checkThresholdOption,
  type GradientThreshold,
  type GradientThresholdOption,
  type Threshold,
  type ThresholdOption,
} from '../threshold.js';
import { boolean, checkKeys, checkObject, interval, oneOf, type Rule } from '../validate.js';

export type Algorithm = 'root' | 'muon' | 'adamw';

/** Chooses the algorithm of a parameter. */
export type Route = (name: string, shape: readonly number[]) => Algorithm;

/**
 * The learning-rate scale. `rms`: 0.2·√max(m, n), so that a learning rate of AdamW's carries over. `spectral`: √max(1,
 * m/n). `none`: 1.
 */
export type LrScale = 'rms' | 'spectral' | 'none';

/**
 * `decoupled`: every element decays. `cautious`: only elements decay whose weight and update direction have one sign,
 * as in Dion and modded-nanogpt.
 */
export type WeightDecayKind = 'decoupled' | 'cautious';

/** Settings that groups of every algorithm have. */
interface CommonSettings {
  /**
   * The clip of a gradient before it is accumulated. ROOT and Muon clip each matrix by itself, AdamW the whole
   * parameter. `null`: no clip. Default: quantile 0.99, scale 1 and growth 2 for ROOT, null for Muon and AdamW.
   */
  gradientThreshold: GradientThreshold | null;
  /** Default `decoupled`. */
  weightDecayKind: WeightDecayKind;
}

export interface MuonSettings extends CommonSettings {
  /** Learning rate, at least 0; default 2e-2. */
  lr: number;
  /** μ in M ← μM + G, in [0, 1); default 0.95. */
  momentum: number;
  /** Whether G + μM is orthogonalised rather than M; default true. */
  nesterov: boolean;
  /** λ in θ ← (1 − lr·λ)θ, at least 0; default 0.1. */
  weightDecay: number;
  /** The coefficients of the Newton-Schulz iteration; default `adaptive`. */
  coefficients: Coefficients;
  /** Newton-Schulz iterations, 1 to 100; default 5, 10 for `deepseek-v4`, or the length of a longer list. */
  steps: number;
  /** The factor on the orthogonalised direction, by the shape of the matrix; default `rms`. */
  lrScale: LrScale;
  /**
   * `rows` divides every row of the direction by the root of a running mean of its mean square, and scales the whole
   * back to the norm that it had: NorMuon (arXiv 2510.05491). Rows are a matrix's outputs (see `layout` of a
   * `Parameter`). Default null, no normalization.
   */
  normalize: 'rows' | null;
  /** The decay rate of the rows' second moment with `normalize: 'rows'`, in [0, 1); default 0.95. */
  beta2: number;
}

export interface RootSettings extends MuonSettings {
  /** Default: quantile 0.9, scale 1. `null`: no clipping. */
  threshold: Threshold | null;
}

export interface AdamWSettings extends CommonSettings {
  /** Learning rate, at least 0; default 1e-3, 3e-3 in `Root` and `Muon`. */
  lr: number;
  /** Decay rates of the two moments, in [0, 1); default 0.9 and 0.95. */
  betas: readonly [number, number];
  /** Added to the root of the second moment, at least 1e-37; default 1e-8. */
  eps: number;
  /** λ in θ ← (1 − lr·λ)θ, at least 0; default 0.1, in `Root` and `Muon` the value that applies to matrices. */
  weightDecay: number;
}

/** What a user may leave out; thresholds also take a name or a part. */
export type Given<T> = {
  [K in keyof T]?:
    | (K extends 'threshold' ? ThresholdOption : K extends 'gradientThreshold' ? GradientThresholdOption : T[K])
    | undefined;
};

export type HostSync = 'step' | 'manual';

/** Options of an optimizer that hold for all its groups. */
export interface DeviceOptions {
  /** Default `auto`. */
  device?: Device | undefined;
  /** Number of CPU threads. The default 0 stands for the physical cores. Results do not depend on it. */
  threads?: number | undefined;
  /**
   * What a step does about gradients that are not finite. `error`, the default, throws ERR_NON_FINITE. `skip` leaves
   * the step out and reports so. Nothing changes in either case.
   */
  nonFinite?: 'error' | 'skip' | undefined;
  /**
   * When host arrays and the device's copies of them are made equal. It matters on CUDA only.
   *
   * - `step`, the default: every step copies all `grad` and `data` to the device, and `data` back.
   * - `manual`: a step works on the device's copies (see `deviceMemory`). `readParameters` and `writeParameters` copy.
   */
  hostSync?: HostSync | undefined;
}

/** Options of `Muon`. */
export interface MuonOptions extends Given<MuonSettings>, DeviceOptions {
  /** Settings of the parameters that AdamW updates. */
  adamw?: Given<AdamWSettings> | undefined;
  /**
   * Chooses the algorithm of each parameter of a flat list. Default: AdamW updates what has fewer than two dimensions
   * and what its name calls an embedding, a head, a bias or a norm; the optimizer's own algorithm updates the rest.
   */
  route?: Route | undefined;
  /**
   * The precision of the Newton-Schulz products.
   *
   * - `auto`, the default: `float16` on CUDA; on the CPU `bfloat16x3` where the processor has matrix units (AMX), else
   *   `float32`.
   * - On CUDA: `float16`, `bfloat16` or `float32`.
   * - On the CPU: `float32`, and what the processor multiplies besides (see `devices().cpu.precisions`). `bfloat16x3`
   *   has errors within 5e-4. `bfloat16` is the fastest, with errors of one to six percent; without matrix units they
   *   are many times that on matrices of low rank.
   *
   * A precision that the device lacks is an error.
   *
   * Coefficients that the precision's rounding can send astray are refused.
   */
  precision?: 'auto' | Precision | undefined;
  /**
   * Whether X is kept as the sum of two float16 while iterations would enlarge the rounding errors of one too far.
   * Default true. `false` takes fewer products and is less exact, above all on matrices of low rank. It has an effect
   * in `float16` only.
   */
  compensated?: boolean | undefined;
}

/** Options of `Root`. */
export interface RootOptions extends MuonOptions, Given<RootSettings> {}

/** Options of `AdamW`. */
export interface AdamWOptions extends Given<AdamWSettings>, DeviceOptions {}

const fraction = interval('[0, 1)');
const nonNegative = interval('[0, ∞)');

const betas: Rule<readonly [number, number]> = (value, name) => {
  if (!Array.isArray(value) || value.length !== 2) throw expected(name, 'two numbers in [0, 1)', value);
  return Object.freeze([fraction(value[0], `${name}[0]`), fraction(value[1], `${name}[1]`)] as const);
};

const commonRules: { [K in keyof CommonSettings]: Rule<CommonSettings[K]> } = {
  gradientThreshold: checkGradientThresholdOption,
  weightDecayKind: oneOf('decoupled', 'cautious'),
};

const normalizeRule: Rule<'rows' | null> = (value, name) => {
  if (value !== null && value !== 'rows') throw expected(name, '"rows" or null', value);
  return value;
};

const muonRules: { [K in keyof MuonSettings]: Rule<MuonSettings[K]> } = {
  lr: nonNegative,
  momentum: fraction,
  nesterov: boolean,
  weightDecay: nonNegative,
  coefficients: checkCoefficients,
  steps: checkSteps,
  lrScale: oneOf('rms', 'spectral', 'none'),
  normalize: normalizeRule,
  beta2: fraction,
  ...commonRules,
};

const rootRules: { [K in keyof RootSettings]: Rule<RootSettings[K]> } = {
  ...muonRules,
  threshold: checkThresholdOption,
};

const adamwRules: { [K in keyof AdamWSettings]: Rule<AdamWSettings[K]> } = {
  lr: nonNegative,
  betas,
  // A smaller value would be 0 in float32 with denormals flushed. A gradient that was always 0 would then divide 0 by
  // 0.
  eps: interval('[1e-37, ∞)'),
  weightDecay: nonNegative,
  ...commonRules,
};

/** The settings that a group of each algorithm has. */
export const rules: Readonly<Record<Algorithm, Readonly<Record<string, Rule<unknown>>>>> = {
  root: rootRules,
  muon: muonRules,
  adamw: adamwRules,
};

const deviceRules = {
  device: checkDevice,
  threads: checkThreads,
  nonFinite: oneOf('error', 'skip'),
  hostSync: oneOf('step', 'manual'),
};

const commonDefaults = { gradientThreshold: null, weightDecayKind: 'decoupled' };

const adamwDefaults = { betas: [0.9, 0.95], eps: 1e-8, ...commonDefaults };

/** What ROOT and Muon have in common. */
const matrixDefaults = {
  lr: 2e-2,
  momentum: 0.95,
  nesterov: true,
  weightDecay: 0.1,
  threshold: { quantile: 0.9, scale: 1 },
  coefficients: 'adaptive',
  lrScale: 'rms',
  normalize: null,
  beta2: 0.95,
  ...commonDefaults,
};

/** What ROOT alone has by default. docs/experiments.md says why. With null it takes the steps of its paper. */
const rootDefaults = { gradientThreshold: { quantile: 0.99, scale: 1, growth: 2 } };

/**
 * The values that apply where a group gives none of its own. `steps` may be absent, since it depends on the group's
 * `coefficients`.
 */
export type Defaults = Readonly<Record<Algorithm, Readonly<Record<string, unknown>>>>;

export interface ResolvedOptions {
  readonly defaults: Defaults;
  readonly device: Device;
  readonly threads: number;
  readonly nonFinite: 'error' | 'skip';
  readonly hostSync: HostSync;
  readonly precision: 'auto' | Precision;
  readonly compensated: boolean;
  readonly route: Route | undefined;
}

/** Checks every option, whether or not a group uses it. */
export function resolveOptions(algorithm: Algorithm, options: unknown): ResolvedOptions {
  const given = checkObject(options, 'the options');
  const own = rules[algorithm];
  const further =
    algorithm === 'adamw'
      ? deviceRules
      : { ...deviceRules, adamw: nestedAdamW, precision: checkPrecision, compensated: boolean, route: routeRule };
  const checked = checkAll(given, { ...own, ...further });
  const settings = pick(checked, own);
  const muon = { ...matrixDefaults, ...settings };
  const { weightDecay, weightDecayKind } = muon;
  const ofAdamW = algorithm === 'adamw' ? { lr: 1e-3, weightDecay: 0.1 } : { lr: 3e-3, weightDecay, weightDecayKind };
  const vectors = algorithm === 'adamw' ? settings : (checked['adamw'] as object | undefined);
  return {
    defaults: {
      root: { ...matrixDefaults, ...rootDefaults, ...settings },
      muon,
      adamw: { ...adamwDefaults, ...ofAdamW, ...vectors },
    },
    device: (checked['device'] ?? 'auto') as Device,
    threads: (checked['threads'] ?? 0) as number,
    nonFinite: (checked['nonFinite'] ?? 'error') as 'error' | 'skip',
    hostSync: (checked['hostSync'] ?? 'step') as HostSync,
    precision: (checked['precision'] ?? 'auto') as 'auto' | Precision,
    compensated: (checked['compensated'] ?? true) as boolean,
    route: checked['route'] as Route | undefined,
  };
}

const routeRule: Rule<Route> = (value, name) => {
  if (typeof value !== 'function') throw expected(name, 'a function', value);
  return value as Route;
};

const nestedAdamW: Rule<Record<string, unknown>> = (value, name) =>
  checkAll(checkObject(value, name), adamwRules, `${name}.`);

function checkAll(
  given: Record<string, unknown>,
  known: Readonly<Record<string, Rule<unknown>>>,
  prefix = '',
): Record<string, unknown> {
  checkKeys(given, Object.keys(known), prefix === '' ? '' : `of ${prefix.slice(0, -1)}`);
  const checked: Record<string, unknown> = {};
  for (const [key, rule] of Object.entries(known)) {
    if (given[key] !== undefined) checked[key] = rule(given[key], `${prefix}${key}`);
  }
  return checked;
}

function pick(from: Record<string, unknown>, keys: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(from).filter(([key]) => Object.hasOwn(keys, key)));
}
