import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type MethodName, type ModelName, type Spec, sweepSeed } from './plan.js';

/** The learning rates of a model's methods, as the sweep chose them. */
export interface ModelRates {
  readonly seed: number;
  readonly steps: number;
  readonly methods: Partial<Record<MethodName, Choice>>;
}

export interface Choice {
  readonly lr: number;
  /** The validation losses of all rates that were tried. Null stands for a training that was not finite. */
  readonly losses: Readonly<Record<string, number | null>>;
}

export type Rates = Partial<Record<ModelName, ModelRates>>;

export function readRates(file: string): Rates {
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Rates) : {};
}

export function writeRates(file: string, rates: Rates): void {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(rates, null, 2)}\n`);
}

/** The k-th rate of a grid whose neighbours differ by √2, with two digits. */
export function gridRate(k: number): number {
  return Number((0.01 * 2 ** (k / 2)).toPrecision(2));
}

/** The exponents that a sweep begins with. AdamW's rates are the smaller ones. */
export function firstExponents(method: MethodName): number[] {
  return method === 'adamw' ? [-5, -4, -3, -2, -1] : [-2, -1, 0, 1, 2];
}

/**
 * Returns the rate with the lowest loss on clean gradients. The grid grows at its end until the best rate lies inside.
 * @param train returns the loss
 * @throws Error where the best rate does not lie inside a grid of 15 rates
 */
export async function sweep(
  { model, method, steps }: Pick<Spec, 'model' | 'method' | 'steps'>,
  train: (spec: Spec) => Promise<{ readonly loss: number | null }>,
): Promise<Choice> {
  const losses = new Map<number, number | null>();
  const tryAll = async (exponents: readonly number[]): Promise<void> => {
    const tried = exponents.map(async (k) => {
      const spec = { model, method, noise: 'none', seed: sweepSeed, lr: gridRate(k), steps } as const;
      return [k, (await train(spec)).loss] as const;
    });
    for (const [k, loss] of await Promise.all(tried)) losses.set(k, loss);
  };
  await tryAll(firstExponents(method));
  for (;;) {
    const sorted = [...losses].sort(([a], [b]) => a - b);
    const [best, loss] = sorted.reduce((a, b) => ((b[1] ?? Infinity) < (a[1] ?? Infinity) ? b : a));
    const [low, high] = [sorted[0]![0], sorted.at(-1)![0]];
    if (high - low > 14) throw new Error(`Found no learning rate for ${model} ${method}`);
    if (loss !== null && best > low && best < high) {
      return {
        lr: gridRate(best),
        losses: Object.fromEntries(sorted.map(([k, value]) => [String(gridRate(k)), value])),
      };
    }
    await tryAll([best === low ? low - 1 : high + 1]);
  }
}
