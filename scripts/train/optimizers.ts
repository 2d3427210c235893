import { AdamW, Muon, type Optimizer, Root, type RootOptions } from '../../lib/index.js';
import type { Gpt } from './model.js';

export const optimizerNames = ['root', 'muon', 'adamw'] as const;
export type OptimizerName = (typeof optimizerNames)[number];

/**
 * The best learning rates of the sweeps in docs/experiments.md. Embeddings, head and norms are trained with AdamW's
 * rate everywhere.
 */
export const learningRates: Readonly<Record<OptimizerName, number>> = {
  root: 1.4e-2,
  muon: 1e-2,
  adamw: 4e-3,
};

/** @param lr the learning rate of the hidden matrices, and with AdamW of all parameters */
export function makeOptimizer(
  name: OptimizerName,
  model: Gpt,
  lr: number,
  options: Pick<RootOptions, 'coefficients' | 'threshold' | 'device' | 'precision' | 'threads'>,
): Optimizer {
  const { coefficients, threshold, device, precision, threads } = options;
  const rest = model.parameters.filter((one) => !model.hidden.includes(one));
  const groups = [
    { params: model.hidden, lr },
    { params: rest, algorithm: 'adamw' as const, lr: name === 'adamw' ? lr : learningRates.adamw },
  ];
  switch (name) {
    case 'root':
      return new Root(groups, { threshold, coefficients, device, precision, threads });
    case 'muon':
      return new Muon(groups, { coefficients, device, precision, threads });
    case 'adamw':
      return new AdamW(groups, { device, threads });
  }
}
