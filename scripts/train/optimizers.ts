import { AdamW, Muon, type Optimizer, type Parameter, Root, type RootOptions } from '../../lib/index.js';

export const optimizerNames = ['root', 'muon', 'adamw'] as const;
export type OptimizerName = (typeof optimizerNames)[number];

/**
 * The best learning rates of an early sweep; see docs/experiments.md. Embeddings, head and norms are trained with
 * AdamW's rate everywhere.
 */
export const learningRates: Readonly<Record<OptimizerName, number>> = {
  root: 1.4e-2,
  muon: 1e-2,
  adamw: 4e-3,
};

/** A model whose `hidden` matrices ROOT and Muon train. AdamW trains its other parameters. */
export interface Trainable {
  readonly parameters: readonly Parameter[];
  readonly hidden: readonly Parameter[];
}

/** Settings of the step. One that is absent is the optimizer's default. */
export interface StepOptions {
  gradientThreshold?: 'robust' | { quantile?: number; scale?: number; growth?: number | null } | null;
  normalize?: 'rows' | null;
}

export type MakeOptions = StepOptions &
  Pick<RootOptions, 'coefficients' | 'threshold' | 'nesterov' | 'device' | 'precision' | 'threads'> & {
    /** AdamW's rate for the parameters beside the hidden matrices. */
    restLr?: number;
  };

/**
 * The gradient threshold applies to all parameters of AdamW, and to the hidden matrices of the others.
 * @param lr the learning rate of the hidden matrices, and with AdamW of all parameters
 * @throws RootError where the optimizer lacks a setting that is given
 */
export function makeOptimizer(name: OptimizerName, model: Trainable, lr: number, options: MakeOptions): Optimizer {
  const { coefficients, threshold, nesterov, gradientThreshold, normalize, device, precision, threads } = options;
  const { restLr = learningRates.adamw } = options;
  const rest = model.parameters.filter((one) => !model.hidden.includes(one));
  const clipping = gradientThreshold === undefined ? {} : { gradientThreshold };
  const normalizing = normalize === undefined ? {} : { normalize };
  const matrices = { coefficients, nesterov, device, precision, threads };
  const groups = [
    { params: model.hidden, lr, ...clipping, ...(name === 'adamw' ? {} : normalizing) },
    {
      ...{ params: rest, algorithm: 'adamw' as const, lr: name === 'adamw' ? lr : restLr },
      ...(name === 'adamw' ? clipping : {}),
    },
  ];
  switch (name) {
    case 'root':
      return new Root(groups, { ...matrices, threshold });
    case 'muon':
      return new Muon(groups, matrices);
    case 'adamw':
      return new AdamW(groups, { device, threads });
  }
}
