import { AdamW, Muon, type Optimizer, Parameter, Root, train } from '../../../lib/index.js';
import { gaussian } from '../../support.js';

/* What the programs of this folder train, and what tests load their checkpoints into. */

/** An optimizer whose checkpoint takes about 1 MB, so that a good part of its program's time goes into saves. */
export function makeTrainee(seed: number): Optimizer {
  const shapes = { up: [256, 128], experts: [3, 64, 128], down: [128, 256], bias: [256] };
  const params = Object.entries(shapes).map(([name, shape], i) => {
    const one = new Parameter({ name, shape, stack: name === 'experts' });
    one.data.set(gaussian(one.size, 10 * seed + i));
    return one;
  });
  const options = { device: 'cpu', coefficients: 'muon', steps: 1 } as const;
  return [
    () => new Root(params, options),
    () => new Muon(params, { ...options, normalize: 'rows', gradientThreshold: {} }),
    () => new AdamW(params, { device: 'cpu' }),
  ][seed % 3]!();
}

export function stepTrainee(optimizer: Optimizer, seed: number): void {
  optimizer.paramGroups
    .flatMap(({ params }) => params)
    .forEach((one, i) => {
      one.grad.set(gaussian(one.size, 1000 * seed + i));
    });
  optimizer.stepSync();
}

/**
 * A training that does the same whether or not it is interrupted.
 * @param path where it keeps a checkpoint of every step, and goes on from
 */
export async function runTraining(
  path: string | undefined,
  steps: number,
  onStep: (step: number) => void = () => undefined,
): Promise<Parameter> {
  const w = new Parameter({ name: 'w', shape: [40, 60], data: gaussian(2400) });
  using optimizer = new Root([w], { device: 'cpu', coefficients: 'muon' });
  const lossAndGradients = (batch: number) => {
    gaussian(w.size, batch).forEach((noise, i) => (w.grad[i] = w.data[i]! + noise));
    return 1;
  };
  await train<number>({
    model: { parameters: [w], lossAndGradients },
    optimizer,
    steps,
    batches: function* (first) {
      for (let batch = first; ; batch++) yield batch;
    },
    ema: { decay: 0.9 },
    onStep: ({ step }) => onStep(step),
    ...(path === undefined ? {} : { checkpoint: { path, every: 1, keep: 2 }, resume: true }),
  });
  return w;
}
