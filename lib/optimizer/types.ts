/** What a step did. */
export interface StepReport {
  /** Number of steps applied so far. It includes this one if it was applied. */
  readonly step: number;
  /** False where a gradient was not finite and `nonFinite` is `skip`. */
  readonly applied: boolean;
  /** Names of the parameters whose gradient was not finite or would have made the state not finite. */
  readonly nonFinite: readonly string[];
}

/** What a parameter's gradient is clipped by; see `gradientThreshold`. */
interface GradientState {
  /**
   * ε_G of the last step, of the first matrix; null where gradients are taken as they are or before the first step; 0
   * where it was 0 and nothing was clipped.
   */
  readonly gradientThreshold: number | null;
  /** e, the running mean of past thresholds, of the first matrix; null as above. */
  readonly gradientScale: number | null;
}

/** State of a parameter that is updated by ROOT or Muon; arrays are copies. */
export interface OrthogonalState extends GradientState {
  readonly step: number;
  readonly momentumBuffer: Float32Array;
  /**
   * ε of the last step for the first matrix. It is null where clipping is off or before the first step. It is 0 where ε
   * was 0 and nothing was clipped.
   */
  readonly threshold: number | null;
  /** The thresholds of all matrices of the parameter, in the same form. */
  readonly thresholds: readonly (number | null)[];
  /** `gradientThreshold` and `gradientScale` of every matrix. */
  readonly gradientThresholds: readonly (number | null)[];
  readonly gradientScales: readonly (number | null)[];
  /** The rows' second moment, matrix after matrix; null if the last step did not normalize rows. */
  readonly rowSecondMoment: Float32Array | null;
}

/** State of a parameter that is updated by AdamW; arrays are copies. */
export interface AdamWState extends GradientState {
  readonly step: number;
  readonly expAvg: Float32Array;
  readonly expAvgSq: Float32Array;
}

export type ParameterState = OrthogonalState | AdamWState;

/**
 * Where a CUDA device keeps a parameter: addresses of as many float32 values as the parameter has, and the stream that
 * steps run in.
 */
export interface DeviceMemory {
  readonly data: bigint;
  readonly grad: bigint;
  /** A cudaStream_t. Work that fills `grad` has to be in this stream, or to have ended before the step. */
  readonly stream: bigint;
}
