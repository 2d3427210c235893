import type { Model, Parameter } from '../../lib/index.js';
import { normal, type Random } from '../common/random.js';

export const noiseKinds = ['none', 'spikes', 'burst', 'student', 'labels'] as const;
export type NoiseKind = (typeof noiseKinds)[number];

/** A batch of examples, each with the index of its class. */
export interface Labelled {
  readonly targets: Int32Array;
}

export interface Noisy {
  /** The parameters whose gradients `spikes`, `burst` and `student` disturb. */
  readonly matrices: readonly Parameter[];
  /** The number of classes that `labels` draws from. */
  readonly classes: number;
  readonly random: Random;
}

/**
 * Returns the same model with noise in its training:
 *
 * - `spikes`: at each step 0.1 % of the entries of every matrix's gradient, at random places, gain a normal deviate of
 *   100 standard deviations of that gradient
 * - `burst`: at one random step of every 50, every matrix's gradient is replaced by normal noise of 100 times the root
 *   mean square of that gradient
 * - `student`: every entry of every matrix's gradient gains a deviate of Student's t with 2 degrees of freedom times
 *   the root mean square of that gradient
 * - `labels`: each target is replaced by a random class with probability 0.1
 *
 * How many numbers are drawn does not depend on the gradients. The same seed gives every optimizer the same noise, and
 * a training that resumes the noise that it would have had.
 */
export function withNoise<Batch extends Labelled>(kind: NoiseKind, model: Model<Batch>, noisy: Noisy): Model<Batch> {
  switch (kind) {
    case 'none':
      return model;
    case 'labels':
      return withRandomTargets(model, noisy);
    case 'spikes':
      return withDisturbance(model, noisy, () => addSpikes);
    case 'student':
      return withDisturbance(model, noisy, () => addStudent);
    case 'burst': {
      let bursts = 0;
      return withDisturbance(model, noisy, (step, random) => {
        if (step % 50 === 0) bursts = step + Math.floor(random() * 50);
        return step === bursts ? replaceByNoise : undefined;
      });
    }
  }
}

type Disturbance = (gradient: Float32Array, random: Random) => void;

/** @param choose returns what happens to the gradients of a step, which is counted from 0 */
function withDisturbance<Batch>(
  model: Model<Batch>,
  { matrices, random }: Noisy,
  choose: (step: number, random: Random) => Disturbance | undefined,
): Model<Batch> {
  let step = 0;
  const disturbNext = (gradients: readonly Float32Array[]) => {
    const disturb = choose(step++, random);
    if (disturb !== undefined) for (const gradient of gradients) disturb(gradient, random);
  };
  return {
    parameters: model.parameters,
    async lossAndGradients(batch, place) {
      const loss = await model.lossAndGradients(batch, place);
      while (place !== undefined && step < place.step - 1) {
        disturbNext(matrices.map(({ size }) => new Float32Array(size)));
      }
      disturbNext(matrices.map(({ grad }) => grad));
      return loss;
    },
  };
}

function withRandomTargets<Batch extends Labelled>(model: Model<Batch>, { classes, random }: Noisy): Model<Batch> {
  let step = 0;
  const next = (given: Int32Array) => {
    step++;
    return given.map((target) => {
      const [replaced, other] = [random() < 0.1, Math.floor(random() * classes)];
      return replaced ? other : target;
    });
  };
  return {
    parameters: model.parameters,
    lossAndGradients(batch, place) {
      while (place !== undefined && step < place.step - 1) next(batch.targets);
      return model.lossAndGradients({ ...batch, targets: next(batch.targets) }, place);
    },
  };
}

function addSpikes(gradient: Float32Array, random: Random): void {
  const deviation = 100 * standardDeviation(gradient);
  for (let n = Math.ceil(gradient.length / 1000); n > 0; n--) {
    gradient[Math.floor(random() * gradient.length)]! += deviation * normal(random);
  }
}

function addStudent(gradient: Float32Array, random: Random): void {
  const scale = rootMeanSquare(gradient);
  for (let i = 0; i < gradient.length; i++) gradient[i]! += scale * student2(random);
}

function replaceByNoise(gradient: Float32Array, random: Random): void {
  const scale = 100 * rootMeanSquare(gradient);
  for (let i = 0; i < gradient.length; i++) gradient[i] = scale * normal(random);
}

/** A deviate of Student's t with 2 degrees of freedom, by the inverse of its distribution function. */
function student2(random: Random): number {
  // `random` draws multiples of 2^-32. The middles of their intervals keep the deviate finite.
  const p = random() + 2 ** -33;
  return (2 * p - 1) / Math.sqrt(2 * p * (1 - p));
}

function rootMeanSquare(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
}

function standardDeviation(values: Float32Array): number {
  let [sum, squares] = [0, 0];
  for (const value of values) {
    sum += value;
    squares += value * value;
  }
  const mean = sum / values.length;
  return Math.sqrt(Math.max(0, squares / values.length - mean * mean));
}
