import path from 'node:path';
import { type StepMetrics, train } from '../../lib/index.js';
import { type Batch, type Corpus, trainingBatches } from './data.js';
import type { Gpt } from './model.js';
import { withNoise } from './noise.js';
import { makeOptimizer, type OptimizerName } from './optimizers.js';
import type { Options } from './options.js';
import { measureOrthogonality, type Orthogonality } from './orthogonality.js';
import { makeRandom } from '../common/random.js';
import { sample } from './sample.js';

/** One training from new weights. */
export interface Trial {
  readonly optimizer: OptimizerName;
  readonly lr: number;
  readonly seed: number;
  /** Tells the trial from those of other optimizers and learning rates. It is the same for all seeds. */
  readonly label: string;
}

export interface TrialResult {
  readonly trial: Trial;
  /** Of all steps, also of those before training was resumed. */
  readonly history: StepMetrics[];
  /**
   * Measurements of two matrices, at the first step and whenever the validation loss is known. There are none with
   * AdamW.
   */
  readonly orthogonality: Orthogonality[];
  /** The tokens that the model wrote. Absent until the model is trained. */
  sample?: number[];
}

export interface Setup {
  readonly options: Options;
  readonly corpus: Corpus;
  readonly model: Gpt;
  readonly validation: readonly Batch[];
  /** Tokens that samples begin with. */
  readonly prompt: Uint8Array;
  readonly folder: string;
  readonly signal: AbortSignal;
}

/**
 * Trains a model, or goes on where its checkpoint in the folder left off. Leaves a checkpoint and one line of metrics
 * per step in the folder.
 * @param result filled as training goes on
 * @param onEvaluation called each time that the validation loss is known
 */
export async function runTrial(result: TrialResult, setup: Setup, onEvaluation: () => Promise<void>): Promise<void> {
  const { options, corpus, model, validation, prompt, folder, signal } = setup;
  const { optimizer: name, lr, seed, label } = result.trial;
  const several = options.seeds.length > 1;
  const every = Math.ceil(options.steps / 10);
  const withSpectra = [1, every * Math.ceil(options.steps / every / 2), options.steps];
  model.initialize(makeRandom(seed, 'weights'));
  const optimizer = makeOptimizer(name, model, lr, options);
  try {
    const { history } = await train({
      model: withNoise(options.noise, model, {
        matrices: model.hidden,
        classes: model.shape.vocabulary,
        random: makeRandom(seed, 'noise'),
      }),
      optimizer,
      batches: trainingBatches(corpus.training, options.batch, model.shape.context, makeRandom(seed, 'batches')),
      steps: options.steps,
      schedule: { kind: 'cosine', warmup: Math.floor(options.steps / 10) },
      evaluate: { every, run: () => validationLoss(model, validation) },
      checkpoint: { path: path.join(folder, `${label.replace(/\W+/g, '-')}-seed${seed}.safetensors`), every },
      resume: true,
      progress: { label: several ? `${label}, seed ${seed}` : label },
      metrics: path.join(folder, 'metrics.jsonl'),
      labels: { optimizer: name, hiddenLr: lr, seed },
      signal,
      onStep: async (metrics) => {
        // Steps after the last checkpoint are taken again.
        keepBefore(metrics.step, result.history);
        keepBefore(metrics.step, result.orthogonality);
        result.history.push(metrics);
        if (metrics.step === 1 || metrics.evaluation !== undefined) {
          // The matrices are a square one and a tall one, which the iterations serve differently. To measure all of
          // them would take a tenth of the time.
          for (const [i, parameter] of model.hidden.slice(-3, -1).entries()) {
            const measured = await measureOrthogonality(
              optimizer,
              parameter,
              i === 0 && withSpectra.includes(metrics.step),
            );
            if (measured !== undefined) result.orthogonality.push(measured);
          }
        }
        if (metrics.evaluation !== undefined) await onEvaluation();
      },
    });
    // Where training was stopped, the last step has been evaluated after its metrics were recorded.
    result.history.splice(result.history.length - history.length, Infinity, ...history);
    if (result.history.length === 0) return;
    if (!signal.aborted) result.sample = await sample(model, prompt, 240, 0.8, makeRandom(seed, 'sample'));
  } finally {
    optimizer.dispose();
  }
}

function keepBefore(step: number, list: { readonly step: number }[]): void {
  while (list.length > 0 && list.at(-1)!.step >= step) list.pop();
}

async function validationLoss(model: Gpt, batches: readonly Batch[]): Promise<number> {
  let total = 0;
  for (const batch of batches) total += await model.loss(batch);
  return total / batches.length;
}
