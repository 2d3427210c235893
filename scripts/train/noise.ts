import type { Model, Parameter } from '../../lib/index.js';
import { normal, type Random } from '../common/random.js';

/**
 * Returns the same model with heavy-tailed gradients. In each step 0.1 % of the entries of every matrix, at random
 * places, gain a normal deviate of 100 standard deviations of that gradient.
 */
export function withSpikes<Batch>(model: Model<Batch>, matrices: readonly Parameter[], random: Random): Model<Batch> {
  return {
    parameters: model.parameters,
    async lossAndGradients(batch) {
      const loss = await model.lossAndGradients(batch);
      for (const { grad } of matrices) {
        const deviation = 100 * standardDeviation(grad);
        for (let n = Math.ceil(grad.length / 1000); n > 0; n--) {
          grad[Math.floor(random() * grad.length)]! += deviation * normal(random);
        }
      }
      return loss;
    },
  };
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
