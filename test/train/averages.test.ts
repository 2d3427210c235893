import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { AdamW, type BatchPlace, type Model, Parameter, Root, train } from '../../lib/index.js';
import { bits, expectError, gaussian } from '../support.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-averages-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function makeModel(): Model<number> & { places: (BatchPlace | undefined)[] } {
  const weight = new Parameter({ name: 'weight', shape: [6, 4], data: gaussian(24, 1) });
  const bias = new Parameter({ name: 'bias', shape: [4] });
  const places: (BatchPlace | undefined)[] = [];
  return {
    places,
    parameters: [weight, bias],
    lossAndGradients(batch, place) {
      places.push(place);
      const noise = gaussian(28, batch + 1000 * place!.step + place!.index);
      for (const { data, grad } of [weight, bias]) data.forEach((value, i) => (grad[i] = value - 0.1 * i + noise[i]!));
      return 1;
    },
  };
}

const batches = Array.from({ length: 100 }, (_, i) => i);

test('averages follow the rule, in evaluations they are the data', async () => {
  const model = makeModel();
  const optimizer = new Root([...model.parameters], { lr: 0.05 });
  const expected = model.parameters.map(({ data }) => Float64Array.from(data));
  const seen: string[][] = [];
  const weights: string[] = [];
  const { averages } = await train({
    ...{ model, optimizer, batches, steps: 12, ema: { decay: 0.7 } },
    evaluate: {
      every: 4,
      run: () => {
        seen.push(model.parameters.map(({ data }) => bits(data)));
        return 0;
      },
    },
    onStep: ({ step }) => {
      const share = 1 - Math.min(0.7, (1 + step) / (10 + step));
      model.parameters.forEach(({ data }, i) => {
        expected[i]!.forEach((value, j) => (expected[i]![j] = Math.fround(value + share * (data[j]! - value))));
      });
      weights.push(bits(model.parameters[0]!.data));
    },
  });
  const found = model.parameters.map((one) => averages!.get(one)!);
  expect(found.map((one) => bits(one))).toEqual(expected.map((one) => bits(Float32Array.from(one))));
  expect(seen).toHaveLength(3);
  expect(seen[2]).toEqual(found.map((one) => bits(one)));
  expect(bits(model.parameters[0]!.data)).toBe(weights[11]);
  expect(new Set(weights).size).toBe(12);
});

test('data are the weights again where an evaluation fails', async () => {
  const model = makeModel();
  const optimizer = new AdamW([...model.parameters]);
  let last = '';
  const failure = new Error('no');
  await expect(
    train({
      ...{ model, optimizer, batches, steps: 3, ema: { decay: 0.9 } },
      onStep: () => {
        last = bits(model.parameters[0]!.data);
      },
      evaluate: { every: 2, run: () => Promise.reject(failure) },
    }),
  ).rejects.toBe(failure);
  const twin = makeModel();
  const other = new AdamW([...twin.parameters]);
  await train({ model: twin, optimizer: other, batches, steps: 2 });
  expect(bits(model.parameters[0]!.data)).toBe(bits(twin.parameters[0]!.data));
  expect(last).not.toBe(bits(model.parameters[0]!.data));
});

test('a training that resumes has the same averages, and noise that is drawn from the place', async () => {
  const run = async (file: string, stopAfter: number | undefined) => {
    const model = makeModel();
    const controller = new AbortController();
    const { averages } = await train({
      ...{ model, optimizer: new Root([...model.parameters], { lr: 0.05 }), batches, steps: 10, accumulation: 2 },
      ...{ ema: { decay: 0.99 }, checkpoint: { path: path.join(folder, file), every: 3 }, resume: true },
      signal: controller.signal,
      onStep: ({ step }) => {
        if (step === stopAfter) controller.abort();
      },
    });
    const arrays = model.parameters.flatMap((one) => [one.data, averages!.get(one)!]);
    return { places: model.places, bits: arrays.map((one) => bits(one)) };
  };
  const whole = await run('a', undefined);
  const first = await run('b', 4);
  const second = await run('b', undefined);
  expect(second.bits).toEqual(whole.bits);
  expect([...first.places, ...second.places]).toEqual(whole.places);
  expect(whole.places.slice(0, 3)).toEqual([
    { step: 1, index: 0 },
    { step: 1, index: 1 },
    { step: 2, index: 0 },
  ]);
});

test('a checkpoint without averages is no place to go on from with them', async () => {
  const file = path.join(folder, 'run.safetensors');
  const first = makeModel();
  const settings = { batches, steps: 2, checkpoint: { path: file, every: 1 } };
  await train({ model: first, optimizer: new AdamW([...first.parameters]), ...settings });
  const model = makeModel();
  const optimizer = new AdamW([...model.parameters]);
  await expectError(
    () => train({ model, optimizer, ...settings, resume: true, ema: { decay: 0.9 } }),
    'ERR_CHECKPOINT',
    'to have the average "weight.ema" of 24',
  );
  const untouched = makeModel();
  expect(model.parameters.map(({ data }) => bits(data))).toEqual(untouched.parameters.map(({ data }) => bits(data)));
  expect(optimizer.stateOf(model.parameters[0]!).step).toBe(0);
  await optimizer.save(file);
  const other = new AdamW([...first.parameters]);
  const before = first.parameters.map(({ data }) => bits(data));
  await expectError(
    () => train({ model: first, optimizer: other, ...settings, resume: true }),
    'ERR_CHECKPOINT',
    'to be a checkpoint of train',
  );
  expect(first.parameters.map(({ data }) => bits(data))).toEqual(before);
});

test('a training that resumes takes as many batches a step as it is told now', async () => {
  const counts = async (accumulation: number) => {
    const model = makeModel();
    const { history } = await train({
      ...{ model, optimizer: new AdamW([...model.parameters], { lr: 0.01 }), batches, accumulation, resume: true },
      ...{ steps: accumulation === 4 ? 2 : 4, schedule: 'constant' as const },
      checkpoint: { path: path.join(folder, 'counts.safetensors'), every: 1 },
    });
    const { step } = history.at(-1)!;
    return { lr: history.at(-1)!.lr, batches: model.places.filter((place) => place!.step === step).length };
  };
  expect(await counts(4)).toEqual({ lr: [0.01], batches: 4 });
  expect(await counts(1)).toEqual({ lr: [0.01], batches: 1 });
});

test('averages that are not finite are refused', async () => {
  const file = path.join(folder, 'nan.safetensors');
  const model = makeModel();
  const settings = { batches, ema: { decay: 0.9 }, checkpoint: { path: file, every: 1 }, resume: true };
  const optimizer = new AdamW([...model.parameters]);
  await train({ model, optimizer, steps: 1, ...settings });
  const { notes, tensors } = await optimizer.load(file, { tensors: true });
  tensors['weight.ema']!.data[3] = NaN;
  await optimizer.save(file, { notes, tensors });
  await expectError(() => train({ model, optimizer, steps: 2, ...settings }), 'ERR_CHECKPOINT', 'to be finite');
});

test.each([[{ decay: 1 }], [{ decay: -0.1 }], [{ decay: NaN }], [{}], [{ decay: 0.5, rate: 1 }], [0.5]])(
  '%j is refused before anything starts',
  async (ema) => {
    const model = makeModel();
    const file = path.join(folder, 'metrics.jsonl');
    await expectError(
      () =>
        train({
          ...{ model, optimizer: new AdamW([...model.parameters]), batches, steps: 1, metrics: file },
          ema: ema as { decay: number },
        }),
      'ERR_INVALID_ARGUMENT',
      /ema/,
    );
    expect(existsSync(file)).toBe(false);
  },
);

test('a file takes tensors of the user, and no two of one name', async () => {
  const file = path.join(folder, 'a.safetensors');
  const parameter = new Parameter({ name: 'w', shape: [2, 3], data: gaussian(6) });
  const optimizer = new Root([parameter]);
  const tensors = {
    'w.ema': { shape: [2, 3], data: gaussian(6, 2) },
    seeds: { shape: [4], data: gaussian(4, 3) },
  };
  await optimizer.save(file, { tensors });
  expect((await optimizer.load(file, { tensors: true })).tensors).toEqual(tensors);
  expect((await optimizer.load(file)).tensors).toEqual({});
  for (const [name, code] of [
    ['w.data', 'ERR_INVALID_ARGUMENT'],
    ['__metadata__', 'ERR_INVALID_ARGUMENT'],
  ] as const) {
    await expectError(() => optimizer.save(file, { tensors: { [name]: tensors.seeds } }), code, name);
  }
  await expectError(
    () => optimizer.save(file, { tensors: { a: { shape: [5], data: gaussian(4) } } }),
    'ERR_SHAPE_MISMATCH',
    'data of tensor "a"',
  );
  expect((await optimizer.load(file, { tensors: true })).tensors).toEqual(tensors);
});
