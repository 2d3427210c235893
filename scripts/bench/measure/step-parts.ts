import { addon } from '../../../lib/binding.js';
import { newtonSchulzCoefficients, type Precision } from '../../../lib/index.js';
import { paper } from '../../common/paper.js';
import { gaussian } from '../../common/random.js';
import { milliseconds } from '../../common/time.js';

/** A step of ROOT's paper on the CPU, whose parts the addon times. */
export interface TimedStep {
  readonly run: () => void;
  /** Milliseconds of every run: the whole step, and the products within it. */
  readonly samples: readonly { readonly stepMs: number; readonly productsMs: number }[];
  readonly dispose: () => void;
}

export function timedStep(shape: readonly [number, number], threads: number, precision: Precision): TimedStep {
  const [rows, columns] = shape;
  const size = rows * columns;
  const layout = { size, matrices: [{ offset: 0, rows, columns }] };
  const optimizer = new (addon().Optimizer)('cpu', threads, precision, true, [layout]);
  addon().profile(optimizer);
  const [data, grad] = [gaussian(size), gaussian(size)];
  const settings = {
    ...paper,
    ...{ lr: 1e-3, momentum: 0.95, nesterov: true, weightDecay: 0, cautious: false },
    threshold: { quantile: 0.9, scale: 1 },
    matrices: [{ updateScale: 1, coefficients: Float64Array.from(newtonSchulzCoefficients(shape).flat()) }],
  };
  const samples: { stepMs: number; productsMs: number }[] = [];
  return {
    samples,
    run() {
      const stepMs = milliseconds(() => optimizer.stepSync([data], [grad], [settings]));
      samples.push({ stepMs, productsMs: 1000 * addon().stepTimes(optimizer).products });
    },
    dispose: () => optimizer.dispose(),
  };
}
