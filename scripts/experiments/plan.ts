import { paper as paperSettings } from '../common/paper.js';
import type { NoiseKind } from '../train/noise.js';
import type { OptimizerName, StepOptions } from '../train/optimizers.js';

export const modelNames = ['gpt', 'mnist'] as const;
export type ModelName = (typeof modelNames)[number];

export interface Method extends StepOptions {
  /** The name in tables. */
  readonly label: string;
  readonly optimizer: OptimizerName;
  readonly nesterov?: boolean;
}

/** The method that `root` names: the paper's, whatever the package's defaults are. */
const paper = { optimizer: 'root', ...paperSettings } as const;

export const methods = {
  adamw: { label: 'AdamW', optimizer: 'adamw' },
  muon: { label: 'Muon', optimizer: 'muon' },
  'muon-rows': { label: 'Muon + rows', optimizer: 'muon', normalize: 'rows' },
  root: { ...paper, label: 'ROOT' },
  'root-gradient': { ...paper, label: 'ROOT + gradient threshold', gradientThreshold: { growth: null } },
  'root-gradient-growth': {
    ...paper,
    label: 'ROOT + gradient threshold + growth limit',
    gradientThreshold: { growth: 2 },
  },
  'root-gradient-growth-rows': {
    ...paper,
    label: 'ROOT + gradient threshold + growth limit + rows',
    gradientThreshold: { growth: 2 },
    normalize: 'rows',
  },
  'root-robust': { ...paper, label: 'ROOT + robust gradient threshold', gradientThreshold: 'robust' },
  'root-robust-rows': {
    ...paper,
    label: 'ROOT + robust gradient threshold + rows',
    gradientThreshold: 'robust',
    normalize: 'rows',
  },
  'muon-no-nesterov': { label: 'Muon without Nesterov', optimizer: 'muon', nesterov: false },
  'root-no-nesterov': { ...paper, label: 'ROOT without Nesterov', nesterov: false },
} as const satisfies Record<string, Method>;
export type MethodName = keyof typeof methods;
export const methodNames = Object.keys(methods) as MethodName[];

/** The rows of each model's table, where --methods names no others. */
export const defaultMethods: Readonly<Record<ModelName, readonly MethodName[]>> = {
  gpt: ['adamw', 'muon', 'muon-rows', 'root', 'root-gradient', 'root-gradient-growth', 'root-gradient-growth-rows'],
  mnist: ['adamw', 'muon', 'root', 'root-gradient-growth', 'root-gradient-growth-rows'],
};

/** The examples of a step. */
export const batchSizes: Readonly<Record<ModelName, number>> = { gpt: 16, mnist: 64 };

/**
 * AdamW's rates for the parameters beside the hidden matrices, with every method except AdamW. They are the best rates
 * of AdamW on clean gradients. That of the digits is of the sweep's seed.
 */
export const restRates: Readonly<Record<ModelName, number>> = { gpt: 0.004, mnist: 0.028 };

/** The seed of the sweep. No table reports it. */
export const sweepSeed = 0;

/** One training from new weights. */
export interface Spec {
  readonly model: ModelName;
  readonly method: MethodName;
  readonly noise: NoiseKind;
  readonly seed: number;
  readonly lr: number;
  readonly steps: number;
}

export interface Outcome {
  /** The validation loss after the last step, in nats. It is null where training came to values that are not finite. */
  readonly loss: number | null;
  /** The share of held-out examples whose likeliest class is right; null where the model does not report it. */
  readonly accuracy: number | null;
}

/** A line of the file of results. */
export interface Result extends Spec, Outcome {
  readonly seconds: number;
  readonly date: string;
}

/** The same text for the same training. */
export function keyOf({ model, method, noise, seed, lr, steps }: Spec): string {
  return `${model} ${method} ${noise} seed ${seed} lr ${lr} steps ${steps}`;
}

/** All trainings of a table, seed by seed, so that a run that is stopped has whole seeds. */
export function planRuns(
  model: ModelName,
  rows: readonly { readonly method: MethodName; readonly lr: number }[],
  { noises, seeds, steps }: { noises: readonly NoiseKind[]; seeds: number; steps: number },
): Spec[] {
  return Array.from({ length: seeds }, (_, i) =>
    noises.flatMap((noise) => rows.map(({ method, lr }) => ({ model, method, noise, seed: i + 1, lr, steps }))),
  ).flat();
}
