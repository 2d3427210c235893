import { Muon, Parameter, train, type TrainOptions } from '../../lib/index.js';
import { expectError, gaussian } from '../support.js';

const size = 500;

/** Gradients of a common direction of norm 1 with noise, whose covariance has the trace `trace`. */
function start(trace: number, options: Partial<TrainOptions<number>>) {
  const weight = new Parameter({ name: 'w', shape: [20, 25] });
  const direction = gaussian(size, 1);
  const length = Math.hypot(...direction);
  const gradients: Float32Array[] = [];
  const model = {
    parameters: [weight],
    lossAndGradients(batch: number) {
      const noise = gaussian(size, 1000 + batch);
      weight.grad.set(direction.map((value, i) => value / length + noise[i]! * Math.sqrt(trace / size)));
      gradients.push(weight.grad.slice());
      return 1;
    },
  };
  const optimizer = new Muon([weight], { lr: 0.1 });
  const batches = Array.from({ length: 2000 }, (_, i) => i);
  return { gradients, options: { model, optimizer, batches, steps: 10, ...options } };
}

test('the noise scale is the trace of the covariance over the squared norm of the gradient', async () => {
  for (const trace of [0.5, 4, 30]) {
    const { history } = await train(start(trace, { accumulation: 64 }).options);
    const mean = history.reduce((sum, { noiseScale }) => sum + noiseScale!, 0) / history.length;
    expect(mean / trace).toBeGreaterThan(0.9);
    expect(mean / trace).toBeLessThan(1.15);
  }
  const { history } = await train(start(1, { accumulation: 1 }).options);
  expect(history[0]).not.toHaveProperty('noiseScale');
});

test('the number of batches grows to what the norm test asks for, and rates with its root', async () => {
  const theta = 0.5;
  const { gradients, options } = start(8, { accumulation: { test: 'norm', theta, max: 1000 }, schedule: 'constant' });
  const { history } = await train(options);
  const counts = history.map(({ accumulation }) => accumulation!);
  expect(counts[0]).toBe(2);
  let first = 0;
  counts.forEach((count, step) => {
    const own = gradients.slice(first, first + count);
    first += count;
    const mean = own[0]!.map((_, i) => own.reduce((sum, one) => sum + one[i]!, 0) / count);
    const square = mean.reduce((sum, value) => sum + value * value, 0);
    const variance =
      own.reduce((sum, one) => sum + one.reduce((all, value, i) => all + (value - mean[i]!) ** 2, 0), 0) / (count - 1);
    const needed = variance / (theta * theta * square);
    if (step + 1 < counts.length) {
      expect(Math.abs(counts[step + 1]! - Math.max(count, Math.ceil(needed)))).toBeLessThan(2);
    }
    expect(history[step]!.lr[0]).toBeCloseTo(0.1 * Math.sqrt(count / 2), 10);
  });
  // Of g = G + noise, the test sees ‖g‖² = 1 + 8 / count: 8 / count ≤ (1 + 8 / count) / 4 from 24 on.
  expect(counts.at(-1)).toBeGreaterThanOrEqual(22);
  expect(counts.at(-1)).toBeLessThan(40);
  expect(options.optimizer.paramGroups[0]!.lr).toBe(0.1);
});

test('gradients without noise leave the number as it is, and max bounds it', async () => {
  const still = await train(start(0, { accumulation: { test: 'norm', theta: 0.1, start: 3, max: 9 } }).options);
  expect(still.history.map(({ accumulation }) => accumulation)).toEqual(Array(10).fill(3));
  const bounded = await train(start(1e4, { accumulation: { test: 'norm', theta: 0.1, max: 5 } }).options);
  expect(bounded.history.map(({ accumulation }) => accumulation)).toEqual([2, ...(Array(9).fill(5) as number[])]);
});

test.each<[unknown, string]>([
  [{ test: 'norm', theta: 0, max: 4 }, 'Expected accumulation.theta'],
  [{ test: 'norm', theta: 1, max: 1 }, 'Expected accumulation.max'],
  [{ test: 'norm', theta: 1, max: 4, start: 1 }, 'Expected accumulation.start'],
  [{ test: 'inner', theta: 1, max: 4 }, 'Expected accumulation.test'],
  [{ theta: 1, max: 4 }, 'Expected accumulation.test'],
])('%j is refused', async (accumulation, message) => {
  await expectError(
    () => train(start(1, { accumulation: accumulation as never }).options),
    'ERR_INVALID_ARGUMENT',
    message,
  );
});
