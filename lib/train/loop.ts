import { checkArray } from '../arrays.js';
import { RootError } from '../errors.js';
import type { Optimizer } from '../optimizer/base.js';
import type { StepReport } from '../optimizer/types.js';
import type { Parameter } from '../parameter.js';
import { WeightAverages } from './averages.js';
import { type Place, resumeFrom, saveCheckpoint } from './checkpoints.js';
import { clipGradients, noiseScale, passingCount, type Spread } from './gradients.js';
import { type MetricsWriter, openMetrics } from './metrics.js';
import { checkBatches, checkFactor, checkNumber, isAsync, prepareTraining, type Training } from './options.js';
import { type Progress, startProgress } from './progress.js';
import type { StepMetrics, TrainOptions, TrainResult } from './types.js';
import { watchStep } from './watch.js';

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
    const averages = run.decay === undefined ? undefined : new WeightAverages(run.stepped, run.decay);
    const place = run.resume && (await resumeFrom(optimizer, run.resume, averages));
    const metrics = options.metrics === undefined ? undefined : await openMetrics(options.metrics);
    return await closing(metrics, () => {
      const progress = run.progress === undefined ? undefined : startProgress(run.steps, run.progress);
      return closing(progress, () => {
        const done = place?.step ?? 0;
        const given = options.batches;
        const before = place?.batches ?? 0;
        const batches = new BatchReader(typeof given === 'function' ? checkBatches(given(done + 1, before)) : given);
        return closing(batches, async () => {
          if (typeof given !== 'function') await batches.skip(before);
          return takeSteps(run, options, { lrs, place, averages, metrics, progress, batches });
        });
      });
    });
  } finally {
    if (run.schedule !== undefined || run.adaptive !== undefined) {
      optimizer.paramGroups.forEach((group, i) => (group.lr = lrs[i]!));
    }
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
  /** Where an earlier training left off. */
  readonly place: Place | undefined;
  readonly averages: WeightAverages | undefined;
  readonly metrics: MetricsWriter | undefined;
  readonly progress: Progress | undefined;
  readonly batches: BatchReader<Batch>;
}

async function takeSteps<Batch>(
  run: Training<Batch>,
  options: TrainOptions<Batch>,
  { lrs, place, averages, metrics, progress, batches }: Opened<Batch>,
): Promise<TrainResult> {
  const { steps, optimizer, schedule, evaluate, watch, earlyStop, checkpoint, signal } = run;
  const history: StepMetrics[] = [];
  const first = (place?.step ?? 0) + 1;
  let { best, sinceBest, accumulation, batches: read } = place ?? start(run);
  // A number that adapts itself goes on from where it was. One that is given is the option's, also where that changed.
  accumulation =
    run.adaptive === undefined
      ? run.accumulation
      : Math.min(run.adaptive.max, Math.max(accumulation, run.accumulation));
  // The step that this training has saved last or goes on from, which need not be saved again.
  let saved = run.resume?.file === checkpoint?.path ? place?.step : undefined;
  const save = async (step: number): Promise<void> => {
    if (checkpoint === undefined || saved === step) return;
    const here = { step, best, sinceBest, accumulation, batches: read };
    await saveCheckpoint(optimizer, checkpoint, here, averages?.tensors() ?? {});
    saved = step;
  };
  const aborted = (): boolean => signal?.aborted === true;
  const runEvaluation = async (step: number): Promise<number> => {
    const evaluated = () => evaluate?.run(step);
    const value = checkNumber(
      await (averages === undefined ? evaluated() : averages.during(evaluated)),
      'what evaluate.run returns',
    );
    // One that came because training ended is not part of a training that goes on from here.
    if (step % evaluate!.every !== 0) return value;
    const isBest = best === null || value < best;
    [best, sinceBest] = isBest && Number.isFinite(value) ? [value, 0] : [best, sinceBest + 1];
    return value;
  };
  const finish = async (ended: TrainResult['ended']): Promise<TrainResult> => {
    const last = history.at(-1);
    if (last !== undefined) await save(last.step);
    if (evaluate !== undefined && last !== undefined && last.evaluation === undefined) {
      history[history.length - 1] = { ...last, evaluation: await runEvaluation(last.step) };
    }
    return { steps: history.length, ended, history, ...(averages === undefined ? {} : { averages: averages.all }) };
  };
  for (let step = first; step <= steps; step++) {
    if (aborted()) return finish('signal');
    if (earlyStop !== undefined && sinceBest >= earlyStop.patience) return finish('earlyStop');
    const started = performance.now();
    const filled = await fillGradients(run, batches, { step, accumulation });
    if (filled === undefined) {
      if (step === first) {
        throw new RootError(
          'ERR_INVALID_ARGUMENT',
          `Expected batches to be at least the ${accumulation} of a step, got fewer`,
        );
      }
      return finish('batches');
    }
    const { loss, spread } = filled;
    read += accumulation;
    if (schedule !== undefined || run.adaptive !== undefined) {
      const factor = checkFactor(schedule?.(step) ?? 1) * Math.sqrt(accumulation / run.accumulation);
      optimizer.paramGroups.forEach((group, i) => (group.lr = lrs[i]! * factor));
    }
    const gradNorm = run.clipNorm && clipGradients(run.clipNorm.params, run.clipNorm.max);
    const lr = optimizer.paramGroups.map((group) => group.lr);
    const before = performance.now();
    const { applied } = await naming(step, optimizer.step());
    const after = performance.now();
    if (applied) averages?.update(step);
    const isWatched = watch !== undefined && applied && step % watch.every === 0;
    const watched = isWatched ? await watchStep(optimizer, watch.parameters) : undefined;
    const due = evaluate !== undefined && (step % evaluate.every === 0 || step === steps || aborted());
    const evaluation = due ? await runEvaluation(step) : undefined;
    const taken: StepMetrics = {
      step,
      loss,
      lr,
      applied,
      ...(gradNorm === undefined ? {} : { gradNorm }),
      ...(run.adaptive === undefined ? {} : { accumulation }),
      ...(spread === undefined ? {} : { noiseScale: noiseScale(spread) }),
      ...(watched === undefined ? {} : { watch: watched }),
      ...(evaluation === undefined ? {} : { evaluation }),
      milliseconds: after - started,
      optimizerMilliseconds: after - before,
    };
    history.push(taken);
    if (spread !== undefined && run.adaptive !== undefined) {
      accumulation = passingCount(spread, run.adaptive.theta, run.adaptive.max);
    }
    await metrics?.write({ ...options.labels, ...taken });
    progress?.update(step, { loss, lr: lr[0]! });
    await options.onStep?.(taken);
    // A process that is killed before this takes the step again, so that nothing of it is missed.
    if (checkpoint !== undefined && step % checkpoint.every === 0) await save(step);
  }
  return finish('steps');
}

/** Adds the step to the error of one whose gradients are not finite. */
async function naming(step: number, report: Promise<StepReport>): Promise<StepReport> {
  try {
    return await report;
  } catch (error) {
    if (!(error instanceof RootError) || error.code !== 'ERR_NON_FINITE') throw error;
    throw new RootError(error.code, `In step ${step}: ${error.message}`, { cause: error });
  }
}

/** The place of a training that begins. */
function start({ accumulation }: Training<unknown>): Omit<Place, 'step'> {
  return { best: null, sinceBest: 0, batches: 0, accumulation };
}

/**
 * @returns the mean loss and, of several batches, how their gradients differ; undefined where there are not enough
 * batches left for a step
 */
async function fillGradients<Batch>(
  { model, stepped, sum }: Training<Batch>,
  batches: BatchReader<Batch>,
  { step, accumulation }: { step: number; accumulation: number },
): Promise<{ loss: number; spread: Spread | undefined } | undefined> {
  let total = 0;
  for (let index = 0; index < accumulation; index++) {
    const next = await batches.next();
    if (next.done === true) return undefined;
    for (const gradient of gradientsOf(model.parameters)) gradient.fill(0);
    total += checkNumber(await model.lossAndGradients(next.value, { step, index }), 'what lossAndGradients returns');
    gradientsOf(stepped);
    sum?.add();
  }
  return { loss: total / accumulation, spread: sum?.writeMean() };
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

  /** Reads so many batches that a step had before. */
  async skip(count: number): Promise<void> {
    for (let i = 0; i < count && (await this.next()).done !== true; i++);
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
