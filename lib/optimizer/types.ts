/** What a step did. */
export interface StepReport {
  /** Steps applied so far, this one included where it was. */
  readonly step: number;
  /** False where a gradient was not finite and `nonFinite` is `skip`. */
  readonly applied: boolean;
  /** Names of the parameters whose gradient was not finite or would have made the state so. */
  readonly nonFinite: readonly string[];
}

/** State of a parameter that is updated by ROOT or Muon; arrays are copies. */
export interface OrthogonalState {
  readonly step: number;
  readonly momentumBuffer: Float32Array;
  /**
   * ε of the last step for the first matrix; null where clipping is off or before the first step; 0 where it was 0 and
   * nothing was clipped.
   */
  readonly threshold: number | null;
  /** The same for every matrix of the parameter. */
  readonly thresholds: readonly (number | null)[];
}

/** State of a parameter that is updated by AdamW; arrays are copies. */
export interface AdamWState {
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
  /** A cudaStream_t. Work that fills `grad` belongs into it, or has to have ended before the step. */
  readonly stream: bigint;
}
