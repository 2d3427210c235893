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
  cautious: false,
  gradientThreshold: null,
  normalize: null,
  threshold: { quantile: 0.9, scale: 1 },
  matrices: [{ updateScale: 1, coefficients: Float64Array.of(2, -1.5, 0.5) }],
};
const adamw = {
  lr: 0.1,
  beta1: 0.9,
  beta2: 0.99,
  eps: 1e-8,
  weightDecay: 0,
  cautious: false,
  gradientThreshold: null,
  step: 1,
};

const none = { checks: 0, proximal: 0, products: 0, updates: 0 };

function make() {
  return new (addon().Optimizer)('cpu', 1, 'float32', false, [
    { size, matrices },
    { size, matrices: [] },
  ]);
}

test('tells what the parts of the last step took, and computes the same', () => {
  const { profile, stepTimes } = addon();
  const [profiled, plain] = [make(), make()];
  profile(profiled);
  expect(stepTimes(profiled)).toEqual(none);
  const [a, b] = [profiled, plain].map((optimizer) => {
    const data = [gaussian(size, 1), gaussian(size, 2)];
    const start = performance.now();
    expect(optimizer.stepSync(data, [gaussian(size, 3), gaussian(size, 4)], [root, adamw])).toEqual([]);
    const { checks, proximal, products, updates } = stepTimes(optimizer);
    expect((performance.now() - start) / 1000).toBeGreaterThanOrEqual(checks + proximal + products + updates);
    return data.map((one) => Array.from(one));
  });
  expect(a).toEqual(b);
  for (const seconds of Object.values(stepTimes(profiled))) expect(seconds).toBeGreaterThan(0);
  expect(stepTimes(plain)).toEqual(none);

  const refused = gaussian(size, 3);
  refused[5] = NaN;
  expect(
    profiled.stepSync([gaussian(size, 1), gaussian(size, 2)], [refused, gaussian(size, 4)], [root, adamw]),
  ).toEqual([0]);
  expect(stepTimes(profiled)).toMatchObject({ proximal: 0, products: 0, updates: 0 });
  expect(stepTimes(profiled).checks).toBeGreaterThan(0);
});

test('times the steps after it has been asked to', () => {
  const { profile, stepTimes } = addon();
  const optimizer = make();
  const step = () =>
    optimizer.stepSync([gaussian(size, 1), gaussian(size, 2)], [gaussian(size, 3), gaussian(size, 4)], [root, adamw]);
  step();
  profile(optimizer);
  expect(stepTimes(optimizer)).toEqual(none);
  step();
  for (const seconds of Object.values(stepTimes(optimizer))) expect(seconds).toBeGreaterThan(0);
});

test('refuses what is not an optimizer, or is one no more', () => {
  const { profile, stepTimes } = addon();
  for (const call of [profile, stepTimes]) {
    for (const wrong of [undefined, {}, new Float32Array(1), Object.create(make())]) {
      expect(() => call(wrong as ReturnType<typeof make>)).toThrow('Expected optimizer to be an Optimizer');
    }
    const optimizer = make();
    optimizer.dispose();
    expect(() => call(optimizer)).toThrow('disposed');
  }
});
