/**
 * The native addon's whole contract: everything that crosses between TypeScript and C++, and nothing else.
 *
 * The addon is mechanism. Defaults, presets, routing, learning-rate scales and the wording of errors that a user can
 * cause live in `lib`, which validates everything before it calls. The addon itself checks only what would corrupt
 * memory: types, lengths, detached buffers, use while busy or after disposal. It then throws an `Error` whose `code` is
 * one of `NativeErrorCode`.
 *
 * All matrices are row-major float32. "In place" means in the caller's own arrays. Nothing is copied unless the text
 * says so.
 */

export type NativeErrorCode =
  | 'ERR_INVALID_ARGUMENT'
  | 'ERR_DETACHED'
  | 'ERR_SHAPE_MISMATCH'
  | 'ERR_NON_FINITE'
  | 'ERR_BUSY'
  | 'ERR_DISPOSED'
  | 'ERR_DEVICE_UNAVAILABLE'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_CUDA';

/** What this machine and this build offer. */
export interface DeviceReport {
  cpu: {
    /** The processor's name as the system gives it, or the architecture where it gives none. */
    description: string;
    /** The widest instruction set that the product kernels use. */
    instructionSet: 'amx' | 'avx512bf16' | 'avx512' | 'avx2' | 'neon' | 'baseline' | 'amx-emulated';
    /** Number of physical cores that this process may run on. `threads: 0` stands for this number. */
    physicalCores: number;
    /**
     * The precisions of products: float32, bfloat16 where the processor multiplies it (AMX, AVX512_BF16), and
     * bfloat16x3 where it has matrix units (AMX).
     */
    precisions: ('float32' | 'bfloat16' | 'bfloat16x3')[];
  };
  cuda: {
    /** Usable devices; `name` is what `device` accepts. */
    devices: { name: `cuda:${number}`; description: string; memoryBytes: number }[];
    /** Why there is no usable device; null where there is one. */
    reason: string | null;
  };
}

export function devices(): DeviceReport;

/**
 * Returns why a device of the report cannot be used at this moment (its memory is taken, the driver fails), or null
 * where it can. Unlike `devices`, this function sets up the process's context on the device, which takes a moment and
 * some of its memory.
 */
export function deviceObstacle(device: string): string | null;

/**
 * The precision of the operands of the Newton-Schulz products. Their sums are float32. CUDA computes in all but
 * `bfloat16x3`, the CPU in those of `devices().cpu.precisions`.
 *
 * An operand of `bfloat16x3` is the sum of two bfloat16, high and low, and a product is the sum of three: high by high,
 * high by low, low by high.
 */
export type Precision = 'float16' | 'bfloat16' | 'bfloat16x3' | 'float32';

/** A matrix inside a parameter's array: elements [offset, offset + rows · columns), row-major. */
export interface MatrixLayout {
  offset: number;
  rows: number;
  columns: number;
  /** Whether columns take the place of rows where `normalize` speaks of rows; default false. */
  inOut?: boolean;
}

/** A parameter's fixed layout. A parameter without matrices is updated by AdamW. */
export interface ParameterLayout {
  size: number;
  matrices: readonly MatrixLayout[];
}

/**
 * Clips a gradient G before it is accumulated, at ε_G = `scale` · the `quantile` of |G|, and scales the result by
 * f = min(1, `growth` · e / ε_G), where e is the running mean of the f · ε_G of past steps. Growth null: f is 1.
 */
export interface GradientThreshold {
  quantile: number;
  scale: number;
  growth: number | null;
}

/** Settings of ROOT and Muon: one step for all matrices of a parameter. */
export interface OrthogonalSettings {
  lr: number;
  momentum: number;
  nesterov: boolean;
  weightDecay: number;
  /** Whether only elements decay whose weight and direction have one sign. */
  cautious: boolean;
  /** One threshold for each matrix. Null: gradients are taken as they are. */
  gradientThreshold: GradientThreshold | null;
  /** NorMuon's row normalization; `beta2` is the decay rate of the rows' second moment. Null: none. */
  normalize: { beta2: number } | null;
  /** Clips at `scale` · the `quantile` of |U|. Null stands for no clipping (Muon). */
  threshold: { quantile: number; scale: number } | null;
  /**
   * One entry per matrix: the factor on the direction (the learning-rate scale), and a, b, c of every iteration in
   * turn.
   */
  matrices: readonly { updateScale: number; coefficients: Float64Array }[];
}

/** Settings of AdamW. `step` counts from 1 and drives the bias correction. */
export interface AdamWSettings {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  cautious: boolean;
  /** One threshold for the whole parameter. Null: gradients are taken as they are. */
  gradientThreshold: GradientThreshold | null;
  step: number;
}

export type ParameterSettings = OrthogonalSettings | AdamWSettings;

/**
 * The large arrays of a parameter's state: those of ROOT and Muon, then those of AdamW. `rowSecondMoment` has one value
 * for each row of each matrix (each column with `inOut`), matrix after matrix. `data` is the device's copy, on CUDA.
 */
export type StateArray = 'momentumBuffer' | 'rowSecondMoment' | 'expAvg' | 'expAvgSq' | 'data';

/**
 * What the last step found: thresholds, one for each matrix, or for AdamW's parameter as a whole. `gradientScales`
 * holds e. All are null before the first step and where the clipping is off.
 */
export interface FoundThresholds {
  gradientThresholds: readonly (number | null)[];
  gradientScales: readonly (number | null)[];
}

export interface OrthogonalFound extends FoundThresholds {
  thresholds: readonly (number | null)[];
  /** Whether the last step normalized rows. If not, `rowSecondMoment` is without meaning. */
  normalizes: boolean;
}

export type Found = OrthogonalFound | FoundThresholds;

/** Owns the state (momentum buffers, moments) and the scratch memory of a list of parameters on one device. */
export class Optimizer {
  /**
   * @param device 'cpu' or 'cuda:N'
   * @param threads number of CPU threads, the calling one included; 0 stands for the physical cores
   * @param precision the precision of the products; on the CPU one of `devices().cpu.precisions`
   * @param compensated whether X has two parts where one would let rounding errors grow too far; has an effect only in
   * float16
   * @param parameters sizes and matrices, fixed for life; the matrices of a parameter cover it in order, without
   * overlap
   */
  constructor(
    device: string,
    threads: number,
    precision: Precision,
    compensated: boolean,
    parameters: readonly ParameterLayout[],
  );

  /** Bytes of the state, of the scratch memory that steps so far have needed, and on CUDA of the data and gradients. */
  readonly memoryBytes: number;

  /**
   * Takes one step for all parameters, in place in `data`. The three lists are parallel to the constructor's
   * `parameters`. On CUDA, `data` and `gradients` may both be empty: the step then works on the device's own copies,
   * and nothing is transferred.
   *
   * A step happens whole or not at all. It returns the indices of the parameters whose gradient is not finite or would
   * make the state not finite. Where this list is not empty, neither data nor state has changed.
   *
   * `step` runs on a worker thread and keeps the arrays alive meanwhile. Until it settles, every other call except
   * `dispose` throws ERR_BUSY. It rejects with ERR_DETACHED where an array was detached in the meantime; the step has
   * happened all the same.
   */
  step(
    data: readonly Float32Array[],
    gradients: readonly Float32Array[],
    settings: readonly ParameterSettings[],
  ): Promise<number[]>;
  stepSync(
    data: readonly Float32Array[],
    gradients: readonly Float32Array[],
    settings: readonly ParameterSettings[],
  ): number[];

  /**
   * `readParameters` copies the device's data to the arrays; `writeParameters` copies the arrays to the device. Both
   * run off the event loop, and other calls throw ERR_BUSY meanwhile. On the CPU there is nothing to copy.
   */
  readParameters(data: readonly Float32Array[]): Promise<void>;
  writeParameters(data: readonly Float32Array[]): Promise<void>;
  writeParametersSync(data: readonly Float32Array[]): void;
  /** Fills the device's copies of the gradients with zeros. Does nothing on the CPU. */
  zeroGradients(): void;
  /**
   * Returns the addresses of the device's copies, which are fixed for life, and the cudaStream_t in whose order steps
   * run.
   * @throws ERR_DEVICE_UNAVAILABLE on the CPU
   */
  deviceMemory(index: number): { data: bigint; grad: bigint; stream: bigint };

  /** Both copy the elements [offset, offset + values.length) of an array of a parameter's state. */
  readState(index: number, array: StateArray, offset: number, values: Float32Array): void;
  writeState(index: number, array: StateArray, offset: number, values: Float32Array): void;
  found(index: number): Found;
  setFound(index: number, found: Found): void;

  /** Frees state and scratch, after a running step has ended. Idempotent; every later call throws ERR_DISPOSED. */
  dispose(): void;
}

/**
 * Orthogonalises every matrix of `input` into the same place of `output`, which has the same length and may be the same
 * array.
 * @param coefficients one entry per matrix: a, b, c of every iteration in turn
 * @throws ERR_NON_FINITE where `input` is not finite; `output` is then unchanged
 */
export function orthogonalize(
  device: string,
  threads: number,
  precision: Precision,
  compensated: boolean,
  input: Float32Array,
  output: Float32Array,
  matrices: readonly MatrixLayout[],
  coefficients: readonly Float64Array[],
): Promise<void>;
export function orthogonalizeSync(
  device: string,
  threads: number,
  precision: Precision,
  compensated: boolean,
  input: Float32Array,
  output: Float32Array,
  matrices: readonly MatrixLayout[],
  coefficients: readonly Float64Array[],
): void;

/**
 * Splits `input` by the proximal operator of ε‖·‖₁. The operator gives `outliers` = sign(x)·max(|x| − ε, 0), and what
 * it leaves is `base` = x − outliers. Here ε = scale · the linearly interpolated quantile of |x|. `base` + `outliers`
 * equals `input` bit for bit in float32 arithmetic, and |base| ≤ ε rounded to float32.
 * @returns ε in float64
 * @throws ERR_NON_FINITE where `input` is not finite; the outputs are then unchanged
 */
export function softThreshold(
  device: string,
  threads: number,
  input: Float32Array,
  base: Float32Array,
  outliers: Float32Array,
  quantile: number,
  scale: number,
): Promise<number>;
export function softThresholdSync(
  device: string,
  threads: number,
  input: Float32Array,
  base: Float32Array,
  outliers: Float32Array,
  quantile: number,
  scale: number,
): number;

/** Whether no value is infinite or NaN, and with `nonNegative` none below 0. */
export function areFinite(values: Float32Array, nonNegative: boolean): boolean;

// The functions below serve only benchmarks and tests.

/**
 * Returns the plan of the products that orthogonalise a matrix. It depends on the matrix's shape and on `coefficients`,
 * which are a, b, c of every iteration.
 */
export function newtonSchulzPlan(
  device: string,
  precision: Precision,
  compensated: boolean,
  rows: number,
  columns: number,
  coefficients: Float64Array,
): {
  form: 'standard' | 'gram';
  /** The iterations between one product that makes X and the next. The standard form has legs of one iteration. */
  legs: number[];
  /** For so many legs, from the first on, X has two parts. */
  splitLegs: number;
  /** Floating-point operations. A symmetric product counts half. */
  flops: number;
  /**
   * The part of `flops` that is float32 although `precision` is another, as in the Gram form of bfloat16 on the CPU.
   */
  float32Flops: number;
};

/**
 * Measures the FLOP/s of one core that multiplies and adds in registers alone, and returns the best of five. Benchmarks
 * compare their figures with it.
 * @throws ERR_INVALID_ARGUMENT for a precision that is not among `devices().cpu.precisions`
 */
export function cpuPeak(precision: Precision): number;

/**
 * Starts timing the optimizer's steps. From now on `stepTimes` tells how long the last one took.
 * @throws ERR_INVALID_ARGUMENT for an optimizer that is not on the CPU; ERR_BUSY; ERR_DISPOSED
 */
export function profile(optimizer: Optimizer): void;

/**
 * Returns the seconds that the parts of the last step took, summed over all parameters: the checks, which also find the
 * thresholds; momentum and the proximal pass; the products; the updates of the data. With one thread per parameter, the
 * sum exceeds the time that went by. All are zero before the first profiled step.
 */
export function stepTimes(optimizer: Optimizer): {
  checks: number;
  proximal: number;
  products: number;
  updates: number;
};
