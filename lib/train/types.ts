import type { Optimizer } from '../optimizer/base.js';
import type { Parameter } from '../parameter.js';
import type { ProgressOptions } from './progress.js';
import type { TextStream } from './stream.js';
import type { Schedule, ScheduleKind, ScheduleOptions } from './schedules.js';

/** A model to be trained: its parameters, and the function that computes their gradients. */
export interface Model<Batch> {
  readonly parameters: readonly Parameter[];
  /**
   * Fills `grad` of every parameter with the gradient of the mean loss over `batch`. It may write or add, since the
   * gradients come as zeros. A model that draws numbers, for dropout say, draws the same in a training that resumes if
   * it draws them from `place`, which `train` always gives.
   * @returns the loss
   */
  lossAndGradients(batch: Batch, place?: BatchPlace): number | Promise<number>;
}

/** Where in training a batch is. */
export interface BatchPlace {
  /** The step, counted from 1. */
  readonly step: number;
  /** The batch among those of its step, counted from 0. */
  readonly index: number;
}

export interface Evaluation {
  /** The number of steps between evaluations. There is one after the last step too, also where training ends early. */
  every: number;
  /** Returns a figure such as the loss on held-out data. The parameters do not change meanwhile. */
  run: (step: number) => number | Promise<number>;
}

export type Batches<Batch> = Iterable<Batch> | AsyncIterable<Batch>;

export interface ClipNorm {
  /** Above 0. */
  max: number;
  only?: 'adamw' | undefined;
}

/**
 * A number of batches per step that grows as the gradients' noise comes to outweigh them: AdAdaGrad's norm test (arXiv
 * 2402.11215), with batches in place of examples. Where the variance of the mean gradient exceeds θ²‖g‖², the next step
 * takes as many batches as the test asks for. Learning rates grow with the root of the number; `train` sets them, also
 * without a schedule.
 */
export interface AdaptiveAccumulation {
  test: 'norm';
  /** θ, above 0: the relative standard error that a step's gradient may have. */
  theta: number;
  /** The number of the first step, at least 2; default 2. */
  start?: number | undefined;
  /** The largest number. */
  max: number;
}

/**
 * An exponential moving average of the weights. After step t each average moves to the weight by
 * 1 − min(decay, (1 + t) / (10 + t)) of the way, so that it does not cling to the first ones (the rule of TensorFlow's
 * ExponentialMovingAverage). `evaluate.run` finds the averages in the parameters' `data`.
 */
export interface AverageOptions {
  /** In [0, 1), such as 0.999. */
  decay: number;
}

export interface WatchOptions {
  /**
   * The number of steps between two looks. Each orthogonalises every watched matrix once more, and measures the result
   * on the calling thread, which takes seconds for a side of 1024 (see `orthogonalityError`).
   */
  every: number;
  /** Names of parameters. Default: all that ROOT and Muon update, which suits small models. */
  parameters?: readonly string[] | undefined;
}

/** What a step did to a matrix, or to a parameter of AdamW's, which lacks what is said to be of matrices. */
export interface Watched {
  /** ε_G, at which the gradient was clipped; null where it was not. */
  readonly gradientThreshold: number | null;
  /** e, the running mean of ε_G; null as above. */
  readonly gradientScale: number | null;
  /** The share of Σ|G| that lay beyond ε_G, or that the limit on its growth took away. */
  readonly gradientClipped: number;
  /** ε of ROOT, of matrices; null where nothing was clipped. */
  readonly threshold?: number | null;
  /** The share of Σ|U| that lay beyond ε, of matrices. */
  readonly clipped?: number;
  /** How far the update's direction was from orthogonal, of matrices: ‖X − UVᵀ‖ / √m before rows are normalized. */
  readonly orthogonalityError?: number;
}

export interface EarlyStop {
  /** The number of evaluations in a row that may bring no new least value. */
  patience: number;
}

export interface CheckpointOptions {
  /** The file of the newest one, replaced atomically. */
  path: string;
  /** The number of steps between two. */
  every: number;
  /**
   * The number of files to keep, default 1. Those besides the newest have their step in their names:
   * run.safetensors.step-200.
   */
  keep?: number | undefined;
}

export interface TrainOptions<Batch> {
  model: Model<Batch>;
  /** An optimizer of some or all of the model's parameters. The others stay as they are. */
  optimizer: Optimizer;
  /**
   * The source of the batches: anything that can be iterated, also asynchronously, or a function that returns it for
   * the number of the first step and of the batches before it. Training ends early where it ends. Where training
   * resumes, a function is asked for the batches from that step on. Of anything else, the batches of the steps before
   * are read and passed over.
   */
  batches: Batches<Batch> | ((firstStep: number, batchesBefore: number) => Batches<Batch>);
  /** Optimizer steps to take. */
  steps: number;
  /**
   * The factor on the groups' own learning rates: a name, a name with `warmup` and `floor`, or a function of the step
   * (from 1) with values in [0, 1]. `train` writes the product to `paramGroups[i].lr` and restores the rates before it
   * returns. Default: none. The rates are then left to whoever sets them, `onStep` for example.
   */
  schedule?: ScheduleKind | ({ kind: ScheduleKind } & ScheduleOptions) | Schedule | undefined;
  /** Number of batches per step, whose gradients and losses are averaged; default 1. It may be adaptive. */
  accumulation?: number | AdaptiveAccumulation | undefined;
  /**
   * The largest Euclidean norm of all gradients together. Gradients that exceed it are scaled down to it. Default:
   * none.
   *
   * An orthogonalised update forgets the length of its gradient. Its momentum does not, so that a scaled gradient
   * counts less beside those of other steps. `only: 'adamw'` measures and scales the gradients of AdamW's parameters
   * alone.
   */
  clipNorm?: number | ClipNorm | null | undefined;
  evaluate?: Evaluation | undefined;
  /** Averages of the weights, which the result holds. Checkpoints keep them as tensors `<name>.ema`. */
  ema?: AverageOptions | undefined;
  /** Looks at thresholds, at what they clip, and at how orthogonal updates are. Default: not. */
  watch?: WatchOptions | undefined;
  /** Ends training when evaluations improve no more. It needs `evaluate`. */
  earlyStop?: EarlyStop | undefined;
  /** Saves the optimizer and the place in training. There is a last one where training ends without an error. */
  checkpoint?: CheckpointOptions | undefined;
  /**
   * Goes on from a checkpoint of `train`: a file, or with `true` the one at `checkpoint.path`, if there is one. The run
   * then gives the same bits as one that was never interrupted, if the model does. Default false.
   */
  resume?: boolean | string | undefined;
  /**
   * Shows a bar with loss, learning rate and time left, or a line every so often where there is no terminal. Default
   * false.
   */
  progress?: boolean | ProgressOptions | undefined;
  /** Takes a line of JSON per step: the `StepMetrics`. A file is appended to, a stream is left open. */
  metrics?: string | TextStream | undefined;
  /** Added to every line of `metrics`. */
  labels?: Readonly<Record<string, string | number | boolean>> | undefined;
  /** An AbortSignal. It ends training after the current step. */
  signal?: { readonly aborted: boolean } | undefined;
  /** Called after every step, and awaited. A checkpoint of the step comes afterwards. */
  onStep?: ((metrics: StepMetrics) => void | Promise<void>) | undefined;
}

export interface StepMetrics {
  /** The number of the step, counted from 1. */
  readonly step: number;
  /** Mean loss over the batches of the step, before its update. */
  readonly loss: number;
  /** The learning rate of every group in this step. */
  readonly lr: readonly number[];
  /** False where a gradient was not finite and the optimizer's `nonFinite` is `skip`. */
  readonly applied: boolean;
  /** Euclidean norm of the gradients that `clipNorm` is for, before clipping; present with `clipNorm` only. */
  readonly gradNorm?: number;
  /** Number of batches in this step; present where it is adaptive. */
  readonly accumulation?: number;
  /**
   * The gradient noise scale (arXiv 1812.06162) in batches, estimated from those of this step: beyond as many per step,
   * further ones bring little. Present with two or more batches per step; infinite (null in JSON) where noise hides the
   * gradient.
   */
  readonly noiseScale?: number;
  /**
   * By the name of a parameter, `name.0` and so on where it is several matrices. Present in every step of `watch` that
   * was applied.
   */
  readonly watch?: Readonly<Record<string, Watched>>;
  /**
   * The value of `evaluate` after this step, where it ran. If it turns out only after the report of a step that it was
   * the last, the value is in the history alone.
   */
  readonly evaluation?: number;
  /** Time from asking for the first batch to the end of the optimizer's step, without evaluation. */
  readonly milliseconds: number;
  /** The optimizer's part of `milliseconds`. */
  readonly optimizerMilliseconds: number;
}

export interface TrainResult {
  /** Steps taken. Where training has resumed, those before do not count. */
  readonly steps: number;
  /** Why training ended: all steps taken, the signal, no more batches, or evaluations that improved no more. */
  readonly ended: 'steps' | 'signal' | 'batches' | 'earlyStop';
  readonly history: readonly StepMetrics[];
  /** The averages of the weights; present with `ema` only. */
  readonly averages?: ReadonlyMap<Parameter, Float32Array>;
}
