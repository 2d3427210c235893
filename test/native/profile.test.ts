import { addon } from '../../lib/binding.js';
import { gaussian } from '../support.js';

const [rows, columns] = [40, 60];
const size = rows * columns;
const matrices = [{ offset: 0, rows, columns }];
const root = {
  lr: 0.1,
  momentum: 0.9,
  nesterov: true,
  weightDecay: 0,
  threshold: { quantile: 0.9, scale: 1 },
  matrices: [{ updateScale: 1, coefficients: Float64Array.of(2, -1.5, 0.5) }],
};
const adamw = { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0, step: 1 };

function make(
  profile?: boolean,
  layout = [
    { size, matrices },
    { size, matrices: [] },
  ] as { size: number; matrices: typeof matrices }[],
) {
  return new (addon().Optimizer)('cpu', 1, 'float32', layout, profile);
}

test('tells what the parts of the last step took, and computes the same', () => {
  const [profiled, plain] = [make(true), make()];
  expect(profiled.stepTimes).toEqual({ checks: 0, proximal: 0, products: 0, updates: 0 });
  const [a, b] = [profiled, plain].map((optimizer) => {
    const data = [gaussian(size, 1), gaussian(size, 2)];
    const start = performance.now();
    expect(optimizer.stepSync(data, [gaussian(size, 3), gaussian(size, 4)], [root, adamw])).toEqual([]);
    const { checks, proximal, products, updates } = optimizer.stepTimes;
    expect((performance.now() - start) / 1000).toBeGreaterThanOrEqual(checks + proximal + products + updates);
    return data.map((one) => Array.from(one));
  });
  expect(a).toEqual(b);
  for (const seconds of Object.values(profiled.stepTimes)) expect(seconds).toBeGreaterThan(0);
  expect(plain.stepTimes).toEqual({ checks: 0, proximal: 0, products: 0, updates: 0 });

  const refused = gaussian(size, 3);
  refused[5] = NaN;
  expect(
    profiled.stepSync([gaussian(size, 1), gaussian(size, 2)], [refused, gaussian(size, 4)], [root, adamw]),
  ).toEqual([0]);
  expect(profiled.stepTimes).toMatchObject({ proximal: 0, products: 0, updates: 0 });
  expect(profiled.stepTimes.checks).toBeGreaterThan(0);
});

test('rejects a profile that is not a boolean, and throws once disposed of', () => {
  expect(() => make('yes' as unknown as boolean)).toThrow('profile');
  const optimizer = make(true);
  optimizer.dispose();
  expect(() => optimizer.stepTimes).toThrow('disposed');
});
