import type { Writable } from 'node:stream';
import type { Optimizer } from '../optimizer/base.js';
import type { Parameter } from '../parameter.js';
import type { ProgressOptions } from './progress.js';
import type { Schedule, ScheduleKind, ScheduleOptions } from './schedules.js';

/** What is trained: parameters, and how their gradients come about. */
export interface Model<Batch> {
  readonly parameters: readonly Parameter[];
  /**
   * Fills `grad` of every parameter (writing or adding: they come as zeros) with the gradient of the mean loss over
   * `batch`.
   * @returns the loss
   */
  lossAndGradients(batch: Batch): number | Promise<number>;
}

export interface Evaluation {
  /** Every so many steps, and after the last, also where training ends early. */
  every: number;
  /** A figure such as the loss on held-out data. The parameters do not change meanwhile. */
  run: (step: number) => number | Promise<number>;
}

export interface TrainOptions<Batch> {
  model: Model<Batch>;
  /** Of some or all of the model's parameters; the others stay as they are. */
  optimizer: Optimizer;
  /** Where batches come from: anything that can be iterated, also asynchronously. Training ends early where it ends. */
  batches: Iterable<Batch> | AsyncIterable<Batch>;
  /** Optimizer steps to take. */
  steps: number;
  /**
   * What the groups' own learning rates are multiplied by: a name, a name with `warmup` and `floor`, or a function of
   * the step (from 1) with values in [0, 1]. Written to `paramGroups[i].lr`, which is as it was when `train` returns.
   * Default: none, which leaves the rates to whoever sets them, `onStep` for example.
   */
  schedule?: ScheduleKind | ({ kind: ScheduleKind } & ScheduleOptions) | Schedule | undefined;
  /** Batches a step, whose gradients and losses are averaged; default 1. */
  accumulation?: number | undefined;
  /**
   * The largest Euclidean norm that all gradients together may have, else they are scaled down to it; default: none.
   */
  clipNorm?: number | null | undefined;
  evaluate?: Evaluation | undefined;
  /** A bar with loss, learning rate and time left; where there is no terminal, a line every so often. Default false. */
  progress?: boolean | ProgressOptions | undefined;
  /** Takes a line of JSON a step: the `StepMetrics`. A file is appended to, a stream left open. */
  metrics?: string | Writable | undefined;
  /** Added to every line of `metrics`. */
  labels?: Readonly<Record<string, string | number | boolean>> | undefined;
  /** Ends training after the current step. */
  signal?: AbortSignal | undefined;
  /** Called after every step, and awaited. */
  onStep?: ((metrics: StepMetrics) => void | Promise<void>) | undefined;
}

export interface StepMetrics {
  /** From 1. */
  readonly step: number;
  /** Mean over the batches of the step, before its update. */
  readonly loss: number;
  /** Of every group, in this step. */
  readonly lr: readonly number[];
  /** False where a gradient was not finite and the optimizer's `nonFinite` is `skip`. */
  readonly applied: boolean;
  /** Euclidean, of all gradients together before clipping; with `clipNorm` only. */
  readonly gradNorm?: number;
  /**
   * What `evaluate` gave after this step, where it ran. Where only then it turns out that this step was the last, it is
   * in the history alone.
   */
  readonly evaluation?: number;
  /** From asking for the first batch to the end of the optimizer's step; evaluation is not in it. */
  readonly milliseconds: number;
  /** The optimizer's part of it. */
  readonly optimizerMilliseconds: number;
}

export interface TrainResult {
  /** Steps taken. */
  readonly steps: number;
  /** Why it ended: all steps taken, the signal, or no more batches. */
  readonly ended: 'steps' | 'signal' | 'batches';
  readonly history: readonly StepMetrics[];
}
