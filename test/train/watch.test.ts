import {
  AdamW,
  type Model,
  Muon,
  Parameter,
  Root,
  softThresholdSync,
  train,
  type TrainOptions,
} from '../../lib/index.js';
import { expectError, gaussian } from '../support.js';

function makeModel(): Model<number> {
  const parameters = [
    new Parameter({ name: 'w', shape: [20, 30], data: gaussian(600, 1) }),
    new Parameter({ name: 'qkv', shape: [30, 10], split: 3 }),
    new Parameter({ name: 'b', shape: [40] }),
  ];
  return {
    parameters,
    lossAndGradients(batch) {
      for (const [i, { grad }] of parameters.entries()) {
        grad.set(gaussian(grad.length, 10 * batch + i).map((value) => value ** 3));
      }
      return 1;
    },
  };
}

const batches = [1, 2, 3, 4, 5, 6];

function options(model: Model<number>, watch: TrainOptions<number>['watch']) {
  const optimizer = new Root([...model.parameters], {
    ...{ momentum: 0, nesterov: false, device: 'cpu', threshold: { quantile: 0.9 } },
    ...{ gradientThreshold: { quantile: 0.95, growth: null }, adamw: { gradientThreshold: { quantile: 0.5 } } },
  });
  return { model, optimizer, batches, steps: 6, ...(watch === undefined ? {} : { watch }) };
}

test('a look tells thresholds and the shares that they cut off, by matrix', async () => {
  const model = makeModel();
  const seen: Float32Array[] = [];
  const { history } = await train({
    ...options(model, { every: 3, parameters: ['w', 'qkv', 'b'] }),
    onStep: () => void seen.push(model.parameters[0]!.grad.slice()),
  });
  expect(history.map(({ watch }) => watch !== undefined)).toEqual([false, false, true, false, false, true]);
  const { watch } = history[5]!;
  expect(Object.keys(watch!)).toEqual(['w', 'qkv.0', 'qkv.1', 'qkv.2', 'b']);
  const w = watch!['w']!;
  const gradient = softThresholdSync(seen[5]!, { quantile: 0.95, device: 'cpu' });
  const sum = (values: Float32Array) => values.reduce((total, value) => total + Math.abs(value), 0);
  expect(w.gradientThreshold).toBeCloseTo(gradient.threshold, 5);
  expect(w.gradientClipped).toBeCloseTo(sum(gradient.outliers) / sum(seen[5]!), 5);
  expect(w.gradientClipped).toBeGreaterThan(0.1);
  const u = softThresholdSync(gradient.base, { quantile: 0.9, device: 'cpu' });
  expect(w.threshold).toBeCloseTo(u.threshold, 5);
  expect(w.clipped).toBeCloseTo(sum(u.outliers) / sum(gradient.base), 5);
  expect(w.orthogonalityError).toBeGreaterThan(0);
  expect(w.orthogonalityError).toBeLessThan(0.1);
  expect(Object.keys(watch!['b']!)).toEqual(['gradientThreshold', 'gradientScale', 'gradientClipped']);
  expect(watch!['b']!.gradientClipped).toBeGreaterThan(0.3);
});

test('the limit on growth counts as cut off', async () => {
  const [parameter] = [new Parameter({ name: 'w', shape: [10, 10] })];
  const model: Model<number> = {
    parameters: [parameter],
    lossAndGradients(batch) {
      parameter.grad.set(gaussian(100).map((value) => (batch === 6 ? 100 : 1) * value));
      return 1;
    },
  };
  const optimizer = new Root([parameter], { gradientThreshold: { quantile: 1, growth: 2 }, threshold: null });
  const { history } = await train({ model, optimizer, batches, steps: 6, watch: { every: 1 } });
  expect(history[4]!.watch!['w']!.gradientClipped).toBeCloseTo(0, 6);
  expect(history[5]!.watch!['w']!.gradientClipped).toBeCloseTo(0.98, 3);
  expect(history[5]!.watch!['w']).toMatchObject({ threshold: null, clipped: 0 });
});

test('by default all matrices of ROOT and Muon are watched; a step is the same with a look at it', async () => {
  const [plain, watched] = [makeModel(), makeModel()];
  const results = [await train(options(plain, undefined)), await train(options(watched, { every: 1 }))];
  expect(results[0]!.history[0]).not.toHaveProperty('watch');
  expect(Object.keys(results[1]!.history[0]!.watch!)).toEqual(['w', 'qkv.0', 'qkv.1', 'qkv.2']);
  plain.parameters.forEach(({ data }, i) => expect(data).toEqual(watched.parameters[i]!.data));
  const model = makeModel();
  const { history } = await train({
    ...{ model, optimizer: new Muon([...model.parameters]), batches, steps: 1, watch: { every: 1 } },
  });
  expect(history[0]!.watch!['w']).toMatchObject({ gradientThreshold: null, gradientClipped: 0, clipped: 0 });
});

test('steps that are left out have nothing to look at', async () => {
  const parameter = new Parameter({ name: 'w', shape: [4, 4] });
  const model: Model<number> = {
    parameters: [parameter],
    lossAndGradients(batch) {
      parameter.grad.fill(batch === 2 ? NaN : 1);
      return 1;
    },
  };
  const optimizer = new Root([parameter], { nonFinite: 'skip' });
  const { history } = await train({ model, optimizer, batches, steps: 3, watch: { every: 1 } });
  expect(history.map(({ watch }) => watch !== undefined)).toEqual([true, false, true]);
});

test.each([
  [{ every: 0 }, 'watch.every'],
  [{ every: 1, parameters: ['nobody'] }, 'nobody'],
  [{ every: 1, parameters: 'w' }, 'watch.parameters'],
  [{ every: 1, matrices: [] }, 'matrices'],
])('%j is refused', async (watch, message) => {
  const model = makeModel();
  await expectError(
    () =>
      train({ model, optimizer: new AdamW([...model.parameters]), batches, steps: 1, watch: watch as { every: 1 } }),
    'ERR_INVALID_ARGUMENT',
    new RegExp(message),
  );
});

test('matrices that would have one name are refused', async () => {
  const parameters = [
    new Parameter({ name: 'qkv', shape: [6, 4], split: 3 }),
    new Parameter({ name: 'qkv.0', shape: [2, 3] }),
  ];
  const model = { parameters, lossAndGradients: () => 1 };
  await expectError(
    () => train({ model, optimizer: new Muon(parameters), batches, steps: 1, watch: { every: 1 } }),
    'ERR_INVALID_ARGUMENT',
    'Expected watch.parameters to be matrices of different names, got "qkv.0"',
  );
});
