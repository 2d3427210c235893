/**
 * The native addon's whole contract: everything that crosses between TypeScript and C++, and nothing else.
 *
 * The addon is mechanism. Defaults, presets, routing, learning-rate scales and the wording of errors a user can cause
 * live in `lib`, which validates everything before it calls; the addon checks what would corrupt memory (types,
 * lengths, detached buffers, use while busy or after disposal) and throws an `Error` whose `code` is one of
 * `NativeErrorCode`.
 *
 * All matrices are row-major float32. "In place" means in the caller's own arrays; nothing is copied that is not said
 * to be.
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
    /** Processor name as the system gives it, or the architecture where it gives none. */
    description: string;
    /** The widest instruction set the product kernels will use. */
    instructionSet: 'avx512bf16' | 'avx512' | 'avx2' | 'neon' | 'baseline';
    /** Physical cores this process may run on: what `threads: 0` means. */
    physicalCores: number;
    /** What products it computes in: float32, and bfloat16 where the processor multiplies that (AVX512_BF16). */
    precisions: ('float32' | 'bfloat16')[];
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
 * Why a device of the report cannot be used at this moment (its memory is taken, the driver fails), or null. Unlike
 * `devices` it sets up the process's context on the device, which takes a moment and some of its memory.
 */
export function deviceObstacle(device: string): string | null;

/** Of the operands of the Newton-Schulz products on CUDA; sums are float32. The CPU computes in float32. */
export type Precision = 'float16' | 'bfloat16' | 'float32';

/** A matrix inside a parameter's array: elements [offset, offset + rows · columns), row-major. */
export interface MatrixLayout {
  offset: number;
  rows: number;
  columns: number;
}

/** A parameter's fixed layout. No matrices: the parameter is updated by AdamW. */
export interface ParameterLayout {
  size: number;
  matrices: readonly MatrixLayout[];
}

/** ROOT and Muon: one step for all matrices of a parameter. */
export interface OrthogonalSettings {
  lr: number;
  momentum: number;
  nesterov: boolean;
  weightDecay: number;
  /** Clip at `scale` · the `quantile` of |U|; null: no clipping (Muon). */
  threshold: { quantile: number; scale: number } | null;
  /**
   * One entry a matrix: the factor on the direction (the learning-rate scale), and a, b, c of every iteration in turn.
   */
  matrices: readonly { updateScale: number; coefficients: Float64Array }[];
}

/** AdamW; `step` counts from 1 and drives the bias correction. */
export interface AdamWSettings {
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  step: number;
}

export type ParameterSettings = OrthogonalSettings | AdamWSettings;

/**
 * `thresholds` holds the value used by the last step for each matrix, NaN before the first or where clipping is off.
 */
export interface OrthogonalState {
  momentumBuffer: Float32Array;
  thresholds: Float64Array;
}

export interface AdamWState {
  expAvg: Float32Array;
  expAvgSq: Float32Array;
}

/** Owns the state (momentum buffers, moments) and the scratch memory of a list of parameters on one device. */
export class Optimizer {
  /**
   * @param device 'cpu' or 'cuda:N'
   * @param threads CPU threads, the calling one included; 0: the physical cores
   * @param precision of the products; on the CPU one of `devices().cpu.precisions`
   * @param parameters sizes and matrices, fixed for life; the matrices of a parameter cover it in order, without overlap
   */
  constructor(device: string, threads: number, precision: Precision, parameters: readonly ParameterLayout[]);

  /** State, the scratch memory that steps so far have needed, and on CUDA the parameters' data and gradients. */
  readonly memoryBytes: number;

  /**
   * One step for all parameters, in place in `data`; the three lists are parallel to the constructor's `parameters`. On
   * CUDA `data` and `gradients` may both be empty: the step then works on the device's own copies and nothing is
   * transferred.
   *
   * Happens whole or not at all: returns the indices of the parameters whose gradient is not finite or would make the
   * state so; where that list is not empty, neither data nor state has changed.
   *
   * `step` runs on a worker thread and keeps the arrays alive meanwhile; until it settles every other call but
   * `dispose` throws ERR_BUSY. It rejects with ERR_DETACHED where an array was detached in the meantime: the step has
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
   * Copies the device's data to the arrays, or the arrays' to the device, off the event loop, ERR_BUSY meanwhile;
   * nothing on the CPU.
   */
  readParameters(data: readonly Float32Array[]): Promise<void>;
  writeParameters(data: readonly Float32Array[]): Promise<void>;
  writeParametersSync(data: readonly Float32Array[]): void;
  /** Fills the device's copies of the gradients with zeros; nothing on the CPU. */
  zeroGradients(): void;
  /**
   * Addresses of the device's copies, fixed for life, and the cudaStream_t in whose order steps run.
   * @throws ERR_DEVICE_UNAVAILABLE on the CPU
   */
  deviceMemory(index: number): { data: bigint; grad: bigint; stream: bigint };

  /** Copies of a parameter's state. */
  state(index: number): OrthogonalState | AdamWState;
  /** Replaces a parameter's state by copies; lengths must match. */
  setState(index: number, state: OrthogonalState | AdamWState): void;

  /** Frees state and scratch, after a running step has ended. Idempotent; every later call throws ERR_DISPOSED. */
  dispose(): void;
}

/**
 * Orthogonalises every matrix of `input` into the same place of `output` (same length; may be the same array).
 * @param coefficients one entry a matrix: a, b, c of every iteration in turn
 * @throws ERR_NON_FINITE where `input` is not finite; `output` is then unchanged
 */
export function orthogonalize(
  device: string,
  threads: number,
  precision: Precision,
  input: Float32Array,
  output: Float32Array,
  matrices: readonly MatrixLayout[],
  coefficients: readonly Float64Array[],
): Promise<void>;
export function orthogonalizeSync(
  device: string,
  threads: number,
  precision: Precision,
  input: Float32Array,
  output: Float32Array,
  matrices: readonly MatrixLayout[],
  coefficients: readonly Float64Array[],
): void;

/**
 * The proximal operator of ε‖·‖₁ and what it leaves: `outliers` = sign(x)·max(|x| − ε, 0), `base` = x − outliers, with
 * ε = scale · the linearly interpolated quantile of |x|. `base` + `outliers` equals
 * `input` bit for bit in float32 arithmetic, and |base| ≤ ε rounded to float32.
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

// For benchmarks and tests alone.

/** The products that orthogonalise a matrix. Its shape and `coefficients`, a, b, c of every iteration, decide them. */
export function newtonSchulzPlan(
  device: string,
  precision: Precision,
  rows: number,
  columns: number,
  coefficients: Float64Array,
): {
  form: 'standard' | 'gram';
  /** Gram form: iterations of each leg between restarts. Standard form: empty. */
  legs: number[];
  /** Floating-point operations, symmetric products counted by halves. */
  flops: number;
  /** The part of `flops` that is float32 although `precision` is another, as in bfloat16's Gram form on the CPU. */
  float32Flops: number;
};

/**
 * FLOP/s of one core that multiplies and adds in registers alone, best of five. Benchmarks measure figures against it.
 * @throws ERR_INVALID_ARGUMENT for a precision that is not among `devices().cpu.precisions`
 */
export function cpuPeak(precision: Precision): number;

/**
 * From now on `stepTimes` tells what the optimizer's last step took.
 * @throws ERR_INVALID_ARGUMENT for an optimizer that is not on the CPU; ERR_BUSY; ERR_DISPOSED
 */
export function profile(optimizer: Optimizer): void;

/**
 * Seconds that the parts of the last step took, all parameters together: the checks, which find the thresholds as well;
 * momentum and proximal pass; products; updates of the data. With a thread to a parameter that is more than went by.
 * Zeros before the first step that is profiled.
 */
export function stepTimes(optimizer: Optimizer): {
  checks: number;
  proximal: number;
  products: number;
  updates: number;
};
