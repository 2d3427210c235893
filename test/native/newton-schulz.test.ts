import { addon } from '../../lib/binding.js';
import { newtonSchulzCoefficients, Parameter, type Precision, type Preset, Root } from '../../lib/index.js';
import { gaussian } from '../support.js';

const presets: Preset[] = ['muon', 'polar-express', 'cans', 'quintic', 'deepseek-v4', 'cubic5', 'adaptive'];

function plan(
  rows: number,
  columns: number,
  preset: Preset,
  steps: number,
  precision: Precision = 'float32',
  compensated = true,
) {
  const device = precision === 'float32' ? 'cpu' : 'cuda:0';
  const triples = newtonSchulzCoefficients([rows, columns], preset, steps);
  const list = Float64Array.from(triples.flat());
  return { triples, ...addon().newtonSchulzPlan(device, precision, compensated, rows, columns, list) };
}

/** The largest of what iterations make of values in [0, 1], but at least 1. */
function largestAfter(triples: readonly (readonly number[])[]): number {
  const points = Array.from({ length: 256 }, (_, i) => (i + 1) / 256);
  const values = points.map((point) =>
    triples.reduce((x, [a = 0, b = 0, c = 0]) => x * (a + x * x * (b + c * x * x)), point),
  );
  return Math.max(1, ...values.map(Math.abs));
}

const limits = [
  ['float32', true, 2 ** 11],
  ['float16', true, 2 ** 8.5],
  ['float16', false, 2 ** 11.5],
] as const;
test.each(presets.flatMap((preset) => limits.map((limit) => [preset, ...limit] as const)))(
  'the legs of %s in %s (compensated: %s) cover all iterations, and none lets rounding errors grow beyond %f',
  (preset, precision, compensated, limit) => {
    for (const steps of [2, 3, 4, 5, 6, 7, 10, 30, 100]) {
      const { form, legs, triples } = plan(64, 1024, preset, steps, precision, compensated);
      // Where nearly each of a few iterations is a leg, they are no cheaper than the standard form.
      if (precision === 'float16' && steps <= (compensated ? 4 : 3) && form === 'standard') continue;
      expect({ steps, form }).toEqual({ steps, form: 'gram' });
      expect(legs.reduce((a, b) => a + b, 0)).toBe(steps);
      let start = 0;
      for (const leg of legs) {
        const begin = precision === 'float16' && compensated ? largestAfter(triples.slice(0, start)) ** 2 : 1;
        const growth = triples.slice(start, (start += leg)).reduce((product, [a]) => product * Math.max(1, a * a), 1);
        expect(leg === 1 || begin * growth <= limit * 1.01).toBe(true);
      }
    }
  },
);

test('legs are balanced: two of polar-express are 2 + 3, whose growth is a fifteenth of that of 3 + 2', () => {
  expect(plan(64, 1024, 'polar-express', 5).legs).toEqual([2, 3]);
  expect(plan(64, 1024, 'polar-express', 5, 'float16', false).legs).toEqual([2, 3]);
});

test('compensated legs of float16 are long from the first on, and X has two parts in the first of them', () => {
  expect(plan(64, 1024, 'adaptive', 5, 'float16')).toMatchObject({ legs: [2, 2, 1], splitLegs: 1 });
  expect(plan(64, 1024, 'muon', 5, 'float16')).toMatchObject({ legs: [2, 2, 1], splitLegs: 1 });
  expect(plan(64, 1024, 'polar-express', 5, 'float16')).toMatchObject({ legs: [1, 1, 1, 2], splitLegs: 2 });
});

test('X has two parts only where products are compensated, in float16', () => {
  expect(plan(64, 1024, 'muon', 5, 'float16', false).splitLegs).toBe(0);
  for (const precision of ['bfloat16', 'float32'] as const) {
    expect(plan(64, 1024, 'muon', 5, precision, true).splitLegs).toBe(0);
  }
});

test('bfloat16 takes the standard form, which errs less', () => {
  for (const preset of presets) {
    expect(plan(64, 4096, preset, 5, 'bfloat16')).toMatchObject({ form: 'standard', legs: [1, 1, 1, 1, 1] });
  }
});

test('square matrices take the standard form, and coefficients that rounding can send astray do at any shape', () => {
  expect(plan(512, 512, 'muon', 5).form).toBe('standard');
  const [published] = newtonSchulzCoefficients([2048, 2048], 'paper', 1);
  const five = Float64Array.from(Array.from({ length: 5 }, () => published!).flat());
  expect(addon().newtonSchulzPlan('cpu', 'float32', false, 256, 4096, five).form).toBe('standard');
});

test('the count of operations is that of the form: symmetric products by halves', () => {
  expect(plan(512, 512, 'muon', 5).flops).toBe(5 * (3 + 1) * 512 ** 3);
  expect(plan(256, 1024, 'muon', 5).flops).toBe(6 * 256 ** 2 * 1024 + 14 * 256 ** 3);
  // Cubic iterations square nothing.
  expect(plan(512, 512, 'cubic5', 5)).toMatchObject({ form: 'standard', flops: 5 * 3 * 512 ** 3 });
  const { form, legs, flops } = plan(256, 1024, 'cubic5', 5);
  expect({ form, flops }).toEqual({
    form: 'gram',
    flops: 3 * legs.length * 256 ** 2 * 1024 + 3 * (5 - legs.length) * 256 ** 3,
  });
});

test('a hundred iterations are no more trouble than five', () => {
  using optimizer = new Root([new Parameter({ name: 'w', shape: [16, 64], grad: gaussian(16 * 64) })], {
    coefficients: 'muon',
    steps: 100,
  });
  expect(optimizer.stepSync().applied).toBe(true);
});
