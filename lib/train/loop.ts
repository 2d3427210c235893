import type { Writable } from 'node:stream';
import { RootError } from '../errors.js';
import { clipGradients } from './gradients.js';
import { openMetrics } from './metrics.js';
import type { Optimizer } from '../optimizer/base.js';
import { checkArray, type Parameter } from '../parameter.js';
import { type ProgressOptions, startProgress } from './progress.js';
import type { Schedule, ScheduleKind, ScheduleOptions } from './schedules.js';
import { checkFactor, checkNumber, isAsync, prepareTraining, type Training } from './options.js';

/** What is trained: parameters, and how their gradients come about. */
export interface Model<Batch> {
  readonly parameters: readonly Parameter[];
  /**
   * Fills `grad` of every parameter (writing or adding: they come as zeros) with the gradient of the mean loss over `batch`.
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
   * What the groups' own learning rates are multiplied by: a name, a name with `warmup` and `floor`, or a function of the step
   * (from 1) with values in [0, 1]. Written to `paramGroups[i].lr`, which is as it was when `train` returns. Default: none, which
   * leaves the rates to whoever sets them, `onStep` for example.
   */
  schedule?: ScheduleKind | ({ kind: ScheduleKind } & ScheduleOptions) | Schedule | undefined;
  /** Batches a step, whose gradients and losses are averaged; default 1. */
  accumulation?: number | undefined;
  /** The largest Euclidean norm that all gradients together may have, else they are scaled down to it; default: none. */
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
   * What `evaluate` gave after this step, where it ran. Where only then it turns out that this step was the last, it is in the
   * history alone.
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

type CleanUp = () => void | Promise<void>;

/** Those that some `train` steps. */
const inTraining = new WeakSet<Optimizer>();

/**
 * Trains a model: `steps` times it lets the model fill the gradients, sets the learning rates, and steps the optimizer.
 *
 * However it ends, between two steps or by an error, parameters and optimizer are as the last whole step left them, learning
 * rates are those before the schedule, files are closed and the iterator of `batches` is told so.
 * @throws RootError ERR_INVALID_ARGUMENT for options, before anything starts, for metrics that cannot be written and for
 * gradients that were taken away; ERR_BUSY where another `train` has not done with the optimizer; what the optimizer throws;
 * whatever the model, `batches`, `evaluate` or `onStep` throw
 */
export async function train<Batch>(options: TrainOptions<Batch>): Promise<TrainResult> {
  const run = prepareTraining(options);
  const { optimizer } = run;
  if (inTraining.has(optimizer)) throw new RootError('ERR_BUSY', 'Expected the train that is running with this optimizer to be awaited first');
  inTraining.add(optimizer);
  const cleanups: CleanUp[] = [];
  const training = takeSteps(run, options, cleanups);
  await Promise.allSettled([training]);
  const cleaning = cleanups.map(async (cleanUp) => {
    await cleanUp();
  });
  await Promise.allSettled(cleaning);
  inTraining.delete(optimizer);
  // In this order, since what cleaning up met may only follow from what ended training.
  const result = await training;
  await Promise.all(cleaning);
  return result;
}

/** @param cleanups filled with what is to be done however it ends */
async function takeSteps<Batch>(run: Training<Batch>, options: TrainOptions<Batch>, cleanups: CleanUp[]): Promise<TrainResult> {
  const { steps, optimizer, schedule, evaluate, signal } = run;
  const lrs = optimizer.paramGroups.map((group) => group.lr);
  if (schedule !== undefined) cleanups.push(() => optimizer.paramGroups.forEach((group, i) => (group.lr = lrs[i]!)));
  const metrics = options.metrics === undefined ? undefined : await openMetrics(options.metrics);
  cleanups.push(() => metrics?.close());
  const progress = run.progress === undefined ? undefined : startProgress(steps, run.progress);
  cleanups.push(() => progress?.stop());
  const batches = new BatchReader(options.batches);
  cleanups.push(() => batches.close());

  const history: StepMetrics[] = [];
  const aborted = (): boolean => signal?.aborted === true;
  const runEvaluation = async (step: number): Promise<number> => checkNumber(await evaluate?.run(step), 'what evaluate.run returns');
  const finish = async (ended: TrainResult['ended']): Promise<TrainResult> => {
    const last = history.at(-1);
    if (evaluate !== undefined && last !== undefined && last.evaluation === undefined) {
      history[history.length - 1] = { ...last, evaluation: await runEvaluation(last.step) };
    }
    return { steps: history.length, ended, history };
  };
  for (let step = 1; step <= steps; step++) {
    if (aborted()) return finish('signal');
    const started = performance.now();
    const loss = await fillGradients(run, batches);
    if (loss === undefined) {
      if (step === 1) throw new RootError('ERR_INVALID_ARGUMENT', `Expected batches to be at least the ${run.accumulation} of a step, got fewer`);
      return finish('batches');
    }
    if (schedule !== undefined) {
      const factor = checkFactor(schedule(step));
      optimizer.paramGroups.forEach((group, i) => (group.lr = lrs[i]! * factor));
    }
    const gradNorm = run.clipNorm === null ? undefined : clipGradients(run.stepped, run.clipNorm);
    const lr = optimizer.paramGroups.map((group) => group.lr);
    const before = performance.now();
    const { applied } = await optimizer.step();
    const after = performance.now();
    const due = evaluate !== undefined && (step % evaluate.every === 0 || step === steps || aborted());
    const evaluation = due ? await runEvaluation(step) : undefined;
    const taken: StepMetrics = {
      step,
      loss,
      lr,
      applied,
      ...(gradNorm === undefined ? {} : { gradNorm }),
      ...(evaluation === undefined ? {} : { evaluation }),
      milliseconds: after - started,
      optimizerMilliseconds: after - before,
    };
    history.push(taken);
    await metrics?.write({ ...options.labels, ...taken });
    progress?.update(step, { loss, lr: lr[0]! });
    await options.onStep?.(taken);
  }
  return finish('steps');
}

/** @returns the mean loss, or undefined where there are not enough batches left for a step */
async function fillGradients<Batch>({ model, stepped, accumulation, sum }: Training<Batch>, batches: BatchReader<Batch>): Promise<number | undefined> {
  let total = 0;
  for (let i = 0; i < accumulation; i++) {
    const next = await batches.next();
    if (next.done === true) return undefined;
    for (const gradient of gradientsOf(model.parameters)) gradient.fill(0);
    total += checkNumber(await model.lossAndGradients(next.value), 'what lossAndGradients returns');
    gradientsOf(stepped);
    sum?.add();
  }
  sum?.writeMean();
  return total / accumulation;
}

/** @throws RootError for one whose memory was taken away, by a transfer to another thread for example */
function gradientsOf(parameters: readonly Parameter[]): Float32Array[] {
  return parameters.map(({ grad, size, name }) => checkArray(grad, size, `grad of parameter ${JSON.stringify(name)}`));
}

/** An iterator of either kind. */
class BatchReader<Batch> {
  readonly #iterator: Iterator<Batch> | AsyncIterator<Batch>;
  #open = true;

  constructor(batches: Iterable<Batch> | AsyncIterable<Batch>) {
    this.#iterator = isAsync(batches) ? batches[Symbol.asyncIterator]() : batches[Symbol.iterator]();
  }

  async next(): Promise<IteratorResult<Batch, unknown>> {
    // As in `for await`: an iterator whose `next` throws has ended and is not to be told so.
    this.#open = false;
    const next = await this.#iterator.next();
    this.#open = next.done !== true;
    return next;
  }

  async close(): Promise<void> {
    if (this.#open) await this.#iterator.return?.();
  }
}
