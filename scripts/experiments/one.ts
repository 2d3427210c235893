import { type Model, RootError, train } from '../../lib/index.js';
import { makeRandom, type Random } from '../common/random.js';
import { ConvNet } from '../train/convnet.js';
import { loadCorpus, trainingBatches, validationBatches } from '../train/data.js';
import { allDigits, digitBatches, loadDigits } from '../train/digits.js';
import { Gpt } from '../train/model.js';
import { type Labelled, withNoise } from '../train/noise.js';
import { makeOptimizer, type Trainable } from '../train/optimizers.js';
import { batchSizes, type Method, methods, type Outcome, restRates, type Spec } from './plan.js';

/** A model with its data. */
interface Task<Batch extends Labelled> {
  readonly model: Model<Batch> & Trainable & { initialize(random: Random): void; dispose(): void };
  /** The number of different targets. */
  readonly classes: number;
  batches(random: Random): Generator<Batch, never>;
  evaluate(): Promise<Outcome>;
}

/** Trains a model. The same spec gives the same result, and the same as `npm run train` where that can train it. */
export async function runOne(spec: Spec): Promise<Outcome> {
  return spec.model === 'gpt' ? trainOn(spec, await gptTask()) : trainOn(spec, await digitsTask());
}

async function trainOn<Batch extends Labelled>(spec: Spec, task: Task<Batch>): Promise<Outcome> {
  const { model, classes } = task;
  const { seed, steps } = spec;
  const { optimizer: name, ...settings }: Method = methods[spec.method];
  model.initialize(makeRandom(seed, 'weights'));
  // Processes side by side use the cores.
  const optimizer = makeOptimizer(name, model, spec.lr, {
    ...settings,
    restLr: restRates[spec.model],
    device: 'cpu',
    threads: 1,
  });
  try {
    await train({
      model: withNoise(spec.noise, model, { matrices: model.hidden, classes, random: makeRandom(seed, 'noise') }),
      optimizer,
      batches: task.batches(makeRandom(seed, 'batches')),
      steps,
      schedule: { kind: 'cosine', warmup: Math.floor(steps / 10) },
    });
    const { loss, accuracy } = await task.evaluate();
    return { loss: loss === null || !Number.isFinite(loss) ? null : loss, accuracy };
  } catch (error) {
    if (error instanceof RootError && error.code === 'ERR_NON_FINITE') return { loss: null, accuracy: null };
    throw error;
  } finally {
    optimizer.dispose();
    model.dispose();
  }
}

async function gptTask(): Promise<Task<ReturnType<typeof validationBatches>[number]>> {
  const shape = { context: 64, width: 128, heads: 4, layers: 2 };
  const corpus = loadCorpus(undefined, shape.context);
  const model = await Gpt.create({ ...shape, vocabulary: corpus.vocabulary.length });
  const validation = validationBatches(corpus.validation, 16, shape.context, 8);
  return {
    model,
    classes: corpus.vocabulary.length,
    batches: (random) => trainingBatches(corpus.training, batchSizes.gpt, shape.context, random),
    evaluate: async () => {
      let total = 0;
      for (const batch of validation) total += await model.loss(batch);
      return { loss: total / validation.length, accuracy: null };
    },
  };
}

async function digitsTask(): Promise<Task<ReturnType<typeof allDigits>[number]>> {
  const { training, validation } = loadDigits();
  const model = await ConvNet.create();
  return {
    model,
    classes: model.classes,
    batches: (random) => digitBatches(training, batchSizes.mnist, random),
    evaluate: async () => {
      let [loss, right] = [0, 0];
      for (const batch of allDigits(validation, 100)) {
        const judged = judge(await model.logits(batch), batch.targets);
        loss += judged.loss;
        right += judged.right;
      }
      return { loss: loss / validation.count, accuracy: right / validation.count };
    },
  };
}

/**
 * Returns the sum of the losses and the number of rows whose largest logit is that of the target.
 * @param logits row-major, as many rows as targets
 */
export function judge(logits: Float32Array, targets: Int32Array): { loss: number; right: number } {
  const classes = logits.length / targets.length;
  let [loss, right] = [0, 0];
  targets.forEach((target, row) => {
    const own = logits.subarray(row * classes, (row + 1) * classes);
    const most = own.reduce((a, b) => Math.max(a, b), -Infinity);
    const sum = own.reduce((total, logit) => total + Math.exp(logit - most), 0);
    loss += Math.log(sum) + most - own[target]!;
    if (own.indexOf(most) === target) right++;
  });
  return { loss, right };
}
