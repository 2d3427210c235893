import '@tensorflow/tfjs-backend-cpu';
import * as core from '@tensorflow/tfjs-core';
import * as layers from '@tensorflow/tfjs-layers';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createOptimizers } from '../../lib/adapters/tfjs.js';
import { AdamW, Muon, type Optimizer, Parameter, Root, RootError } from '../../lib/index.js';
import { bits, gaussian } from '../support.js';

const tf = { ...core, ...layers };
const { root, muon, adamw } = createOptimizers(tf);

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  tf.env().set('IS_TEST', true); // else it advertises another backend
  await tf.setBackend('cpu');
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A model with known weights, which does not depend on what ran before. */
function withWeights(model: layers.Sequential): layers.Sequential {
  const weights = model.getWeights().map((one, i) => tf.tensor(scaled(one.size, i + 1), one.shape));
  model.setWeights(weights);
  tf.dispose(weights);
  return model;
}

const scaled = (size: number, seed: number) => gaussian(size, seed).map((value) => value * 0.2);

function denseModel(): layers.Sequential {
  return withWeights(
    tf.sequential({
      layers: [
        tf.layers.dense({ inputShape: [12], units: 20, activation: 'relu' }),
        tf.layers.dense({ units: 4, activation: 'softmax' }),
      ],
    }),
  );
}

function convolutionalModel(): layers.Sequential {
  return withWeights(
    tf.sequential({
      layers: [
        tf.layers.reshape({ inputShape: [144], targetShape: [12, 12, 1] }),
        tf.layers.conv2d({ filters: 6, kernelSize: 3, strides: 2, activation: 'relu' }),
        tf.layers.flatten(),
        tf.layers.dense({ units: 4, activation: 'softmax' }),
      ],
    }),
  );
}

const models = [
  ['dense', denseModel, 12],
  ['convolutional', convolutionalModel, 144],
] as const;

/** Random inputs whose class is that of the largest of four sums. */
function makeData(inputs: number, rows = 32): { x: core.Tensor2D; y: core.Tensor2D } {
  const values = gaussian(rows * inputs, 77);
  const labels = Array.from({ length: rows }, (_, row) => {
    const sums = [0, 1, 2, 3].map((part) =>
      values
        .subarray(row * inputs + (part * inputs) / 4, row * inputs + ((part + 1) * inputs) / 4)
        .reduce((a, b) => a + b),
    );
    return sums.indexOf(Math.max(...sums));
  });
  const y = tf.tidy(() => tf.cast(tf.oneHot(tf.tensor1d(labels, 'int32'), 4), 'float32') as core.Tensor2D);
  return { x: tf.tensor2d(values, [rows, inputs]), y };
}

function variablesOf(model: layers.Sequential): core.Variable[] {
  return model.trainableWeights.map((one) => (one as unknown as { val: core.Variable }).val);
}

function lossOf(model: layers.Sequential, x: core.Tensor, y: core.Tensor): core.Scalar {
  return tf.mean(tf.metrics.categoricalCrossentropy(y, model.apply(x, { training: true }) as core.Tensor));
}

/** Takes a step for each epoch. */
const fit = (model: layers.LayersModel, x: core.Tensor, y: core.Tensor, epochs: number) =>
  model.fit(x, y, { epochs, batchSize: 32, shuffle: false, verbose: 0 as layers.ModelFitArgs['verbose'] & 0 });

const weightsOf = (model: layers.LayersModel) => model.getWeights().map((one) => bits(one.dataSync() as Float32Array));

describe.each(models)('%s', (_, makeModel, inputs) => {
  test.each([
    ['root', () => root({ lr: 0.05 }), (params: Parameter[]): Optimizer => new Root(params, { lr: 0.05 })],
    ['muon', () => muon({ lr: 0.05 }), (params: Parameter[]): Optimizer => new Muon(params, { lr: 0.05 })],
    ['adamw', () => adamw({ lr: 0.05 }), (params: Parameter[]): Optimizer => new AdamW(params, { lr: 0.05 })],
  ])('compile and fit with %s do the steps of plain arrays, and learn', async (__, makeOptimizer, makePlain) => {
    const { x, y } = makeData(inputs);
    const model = makeModel();
    model.compile({ optimizer: makeOptimizer(), loss: 'categoricalCrossentropy' });
    const { history } = await fit(model, x, y, 8);
    const losses = history['loss'] as number[];
    expect(losses.at(-1)).toBeLessThan(0.75 * losses[0]!);

    const plain = makeModel();
    const variables = variablesOf(plain);
    const params = variables.map(
      (one) =>
        new Parameter({
          ...{ name: one.name, shape: one.shape, layout: 'in-out' as const },
          data: Float32Array.from(one.dataSync()),
        }),
    );
    const optimizer = makePlain(params);
    for (let step = 0; step < 8; step++) {
      const { grads, value } = tf.variableGrads(() => lossOf(plain, x, y), variables);
      expect(value.dataSync()[0]).toBeCloseTo(losses[step]!, 5);
      for (const one of params) one.grad.set(grads[one.name]!.dataSync());
      optimizer.stepSync();
      variables.forEach((one, i) => one.assign(tf.tensor(params[i]!.data.slice(), one.shape)));
      tf.dispose([grads, value]);
    }
    expect(weightsOf(model)).toEqual(weightsOf(plain));
  });

  test('steps leave no tensor behind', () => {
    const { x, y } = makeData(inputs);
    const model = makeModel();
    const optimizer = root({ lr: 0.01 }) as core.Optimizer;
    const step = () => optimizer.minimize(() => lossOf(model, x, y), false, variablesOf(model));
    step();
    const before = tf.memory().numTensors;
    for (let i = 0; i < 5; i++) step();
    expect(tf.memory().numTensors).toBe(before);
    optimizer.dispose();
  });

  test.each(['getWeights and setWeights', 'save and load'])('%s resume exactly', async (how) => {
    const { x, y } = makeData(inputs);
    const model = makeModel();
    const first = root({ lr: 0.02, normalize: 'rows' });
    const step = (optimizer: object, one: layers.Sequential) =>
      (optimizer as core.Optimizer).minimize(() => lossOf(one, x, y), false, variablesOf(one));
    for (let i = 0; i < 3; i++) step(first, model);

    const other = makeModel();
    const second = root({ lr: 0.02, normalize: 'rows' });
    if (how === 'save and load') {
      // A file knows parameters by their names, and TensorFlow.js gives every variable a name of its own.
      const file = path.join(folder, `${inputs}.safetensors`);
      await first.save(file);
      const same = root({ lr: 0.02, normalize: 'rows' });
      await expect(same.load(file)).rejects.toThrow('build(variables)');
      same.build(variablesOf(model));
      const expected = Array.from({ length: 2 }, () => (step(first, model), weightsOf(model)));
      expect(await same.load(file)).toEqual({ step: 3 });
      expect(Array.from({ length: 2 }, () => (step(same, model), weightsOf(model)))).toEqual(expected);
      return;
    }
    other.setWeights(model.getWeights());
    await (second as core.Optimizer).setWeights(await (first as core.Optimizer).getWeights());
    expect((second as core.Optimizer).iterations).toBe(3);
    for (let i = 0; i < 2; i++) {
      step(first, model);
      step(second, other);
      expect(weightsOf(other)).toEqual(weightsOf(model));
    }
  });
});

test('a saved model brings its optimizer back', async () => {
  const { x, y } = makeData(12);
  const model = denseModel();
  model.compile({ optimizer: root({ lr: 0.03 }), loss: 'categoricalCrossentropy' });
  await fit(model, x, y, 2);
  let saved!: core.io.ModelArtifacts;
  const handler = tf.io.withSaveHandler((artifacts) => {
    saved = artifacts;
    return Promise.resolve({ modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: 'JSON' } });
  });
  await model.save(handler, { includeOptimizer: true });
  expect(saved.trainingConfig!.optimizer_config).toMatchObject({ class_name: 'RootOptimizerRoot' });
  const loaded = await tf.loadLayersModel(tf.io.fromMemory(saved));
  for (const one of [model, loaded]) await fit(one, x, y, 2);
  expect(loaded.optimizer.iterations).toBe(4);
  expect(weightsOf(loaded)).toEqual(weightsOf(model));
});

test('embeddings and vectors go to AdamW, and a route decides otherwise', () => {
  const build = (options: object) => {
    const model = tf.sequential({
      layers: [
        tf.layers.embedding({ inputDim: 9, outputDim: 6, inputLength: 3 }),
        tf.layers.flatten(),
        tf.layers.dense({ units: 5 }),
      ],
    });
    const optimizer = root(options);
    optimizer.build(variablesOf(model));
    return optimizer.optimizer!.paramGroups.map(({ algorithm, params }) => [
      algorithm,
      params.map(({ shape, layout }) => [shape.join(), layout].join(' ')),
    ]);
  };
  expect(build({})).toEqual([
    ['root', ['18,5 in-out']],
    ['adamw', ['9,6 in-out', '5 in-out']],
  ]);
  const route = (_: string, shape: readonly number[]) => (shape.length < 2 ? 'adamw' : 'muon');
  expect(build({ route })).toEqual([
    ['muon', ['9,6 in-out', '18,5 in-out']],
    ['adamw', ['5 in-out']],
  ]);
});

test('learning rates are read and scaled together', () => {
  const optimizer = root({ lr: 0.02, adamw: { lr: 0.004 } });
  expect(optimizer.learningRate).toBe(0.02);
  optimizer.build(variablesOf(denseModel()));
  optimizer.learningRate = 0.01;
  expect(optimizer.optimizer!.paramGroups.map(({ lr }) => lr)).toEqual([0.01, 0.002]);
  optimizer.learningRate = 0;
  optimizer.learningRate = 0.04;
  expect(optimizer.optimizer!.paramGroups.map(({ lr }) => lr)).toEqual([0.04, 0.008]);
});

test('a model that is saved again before a step keeps state and rate of its optimizer', async () => {
  const { x, y } = makeData(12);
  const model = denseModel();
  const first = root({ lr: 0.03 });
  model.compile({ optimizer: first, loss: 'categoricalCrossentropy' });
  await fit(model, x, y, 2);
  first.learningRate = 0.001;
  const save = async (one: layers.LayersModel) => {
    let saved!: core.io.ModelArtifacts;
    const handler = tf.io.withSaveHandler((artifacts) => {
      saved = artifacts;
      return Promise.resolve({ modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: 'JSON' } });
    });
    await one.save(handler, { includeOptimizer: true });
    return tf.loadLayersModel(tf.io.fromMemory(saved));
  };
  const twice = await save(await save(model));
  expect((twice.optimizer as unknown as { learningRate: number }).learningRate).toBe(0.001);
  for (const one of [model, twice]) await fit(one, x, y, 2);
  expect(weightsOf(twice)).toEqual(weightsOf(model));
});

test('weights that do not fit are refused by every step until others are set', async () => {
  const model = denseModel();
  const variables = variablesOf(model);
  const optimizer = root() as core.Optimizer;
  const before = weightsOf(model);
  await optimizer.setWeights([
    { name: 'iter', tensor: tf.scalar(1, 'int32') },
    { name: 'w/step', tensor: tf.zeros([2], 'int32') },
  ]);
  const ones = variables.map((one) => ({ name: one.name, tensor: tf.onesLike(one) }));
  for (let i = 0; i < 2; i++) expect(() => optimizer.applyGradients(ones)).toThrow('Expected weights of');
  expect(weightsOf(model)).toEqual(before);
});

test('other variables than those of the first step are refused, and nothing changes', () => {
  const model = denseModel();
  const variables = variablesOf(model);
  const optimizer = root() as core.Optimizer;
  const ones = (list: core.Variable[]) => list.map((one) => ({ name: one.name, tensor: tf.onesLike(one) }));
  optimizer.applyGradients(ones(variables));
  const before = weightsOf(model);
  for (const given of [ones(variables.slice(1)), ones([...variables, ...variablesOf(denseModel())])]) {
    expect(() => optimizer.applyGradients(given)).toThrow(RootError);
  }
  expect(weightsOf(model)).toEqual(before);
  expect(optimizer.iterations).toBe(1);
});
