import { checkArray } from '../arrays.js';
import { RootError } from '../errors.js';
import type { Optimizer } from '../optimizer/base.js';
import type { Parameter } from '../parameter.js';
import { clipGradients } from './gradients.js';
import { type MetricsWriter, openMetrics } from './metrics.js';
import { checkFactor, checkNumber, isAsync, prepareTraining, type Training } from './options.js';
import { type Progress, startProgress } from './progress.js';
import type { StepMetrics, TrainOptions, TrainResult } from './types.js';

/** Optimizers that some call of `train` is stepping. */
const inTraining = new WeakSet<Optimizer>();

/**
 * Trains a model. `steps` times it lets the model fill the gradients, sets the learning rates, and steps the optimizer.
 *
 * Training may end between two steps or by an error. In either case parameters and optimizer are as the last whole step
 * left them, learning rates are those before the schedule, files are closed and the iterator of `batches` is told of
 * the end.
 * @throws RootError ERR_INVALID_ARGUMENT for options (before anything starts), for metrics that cannot be written and
 * for gradients that were taken away; ERR_BUSY where another `train` has not done with the optimizer; the errors of the
 * optimizer; whatever the model, `batches`, `evaluate` or `onStep` throw
 */
export async function train<Batch>(options: TrainOptions<Batch>): Promise<TrainResult> {
  const run = prepareTraining(options);
  const { optimizer } = run;
  if (inTraining.has(optimizer)) {
    throw new RootError('ERR_BUSY', 'Expected the train that is running with this optimizer to be awaited first');
  }
  inTraining.add(optimizer);
  const lrs = optimizer.paramGroups.map((group) => group.lr);
  try {
    const metrics = options.metrics === undefined ? undefined : await openMetrics(options.metrics);
    return await closing(metrics, () => {
      const progress = run.progress === undefined ? undefined : startProgress(run.steps, run.progress);
      return closing(progress, () => {
        const batches = new BatchReader(options.batches);
        return closing(batches, () => takeSteps(run, options, { lrs, metrics, progress, batches }));
      });
    });
  } finally {
    if (run.schedule !== undefined) optimizer.paramGroups.forEach((group, i) => (group.lr = lrs[i]!));
    inTraining.delete(optimizer);
  }
}

/**
 * Runs `work` and then closes the resource that it works with, even where `work` fails.
 * @throws the error of `work`; else the error of closing. Where both fail, the second may only follow from the first.
 */
async function closing<T>(
  resource: { close(): void | Promise<void> } | undefined,
  work: () => T | Promise<T>,
): Promise<T> {
  const close = async () => resource?.close();
  let result: T;
  try {
    result = await work();
  } catch (error) {
    await Promise.allSettled([close()]);
    throw error;
  }
  await close();
  return result;
}

/** The resources that `train` opens for its steps. */
interface Opened<Batch> {
  /** Each group's learning rate before training. */
  readonly lrs: readonly number[];
  readonly metrics: MetricsWriter | undefined;
  readonly progress: Progress | undefined;
  readonly batches: BatchReader<Batch>;
}

async function takeSteps<Batch>(
  run: Training<Batch>,
  options: TrainOptions<Batch>,
  { lrs, metrics, progress, batches }: Opened<Batch>,
): Promise<TrainResult> {
  const { steps, optimizer, schedule, evaluate, signal } = run;
  const history: StepMetrics[] = [];
  const aborted = (): boolean => signal?.aborted === true;
  const runEvaluation = async (step: number): Promise<number> =>
    checkNumber(await evaluate?.run(step), 'what evaluate.run returns');
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
      if (step === 1) {
        throw new RootError(
          'ERR_INVALID_ARGUMENT',
          `Expected batches to be at least the ${run.accumulation} of a step, got fewer`,
        );
      }
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
async function fillGradients<Batch>(
  { model, stepped, accumulation, sum }: Training<Batch>,
  batches: BatchReader<Batch>,
): Promise<number | undefined> {
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

/** @throws RootError for a gradient whose memory was taken away, for example by a transfer to another thread */
function gradientsOf(parameters: readonly Parameter[]): Float32Array[] {
  return parameters.map(({ grad, size, name }) => checkArray(grad, size, `grad of parameter ${JSON.stringify(name)}`));
}

/** Reads batches from an iterator, synchronous or asynchronous. */
class BatchReader<Batch> {
  readonly #iterator: Iterator<Batch> | AsyncIterator<Batch>;
  #open = true;

  constructor(batches: Iterable<Batch> | AsyncIterable<Batch>) {
    this.#iterator = isAsync(batches) ? batches[Symbol.asyncIterator]() : batches[Symbol.iterator]();
  }

  async next(): Promise<IteratorResult<Batch, unknown>> {
    // As in `for await`, an iterator whose `next` throws has ended, and nobody tells it of the end.
    this.#open = false;
    const next = await this.#iterator.next();
    this.#open = next.done !== true;
    return next;
  }

  async close(): Promise<void> {
    if (this.#open) await this.#iterator.return?.();
  }
}
