import * as jax from '@jax-js/jax';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createOptimizers, type GradientTransformation } from '../../lib/adapters/jax.js';
import { Parameter, Root } from '../../lib/index.js';
import { expectError, gaussian } from '../support.js';

const { lax, nn, numpy: np, tree, valueAndGrad } = jax;
const { root, muon, adamw, parameters, applyUpdates } = createOptimizers(jax);

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  await jax.init('wasm');
  jax.defaultDevice('wasm');
});
afterAll(() => rmSync(folder, { recursive: true }));

const rows = 24;
const classes = 4;

interface Task {
  /** [name, shape] of the weights, with dots for the tree's levels */
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  /** Logits of shape [rows, classes]. Frees its arguments. */
  readonly forward: (weights: Weights, x: jax.Array) => jax.Array;
  readonly inputs: readonly number[];
}
type Weights = Record<string, Record<string, jax.Array>>;

const tasks: Record<string, Task> = {
  dense: {
    shapes: { 'hidden.kernel': [12, 20], 'hidden.bias': [20], 'head.kernel': [20, classes], 'head.bias': [classes] },
    inputs: [12],
    forward: ({ hidden, head }, x) =>
      np.matmul(nn.relu(np.matmul(x, hidden!['kernel']!).add(hidden!['bias']!)), head!['kernel']!).add(head!['bias']!),
  },
  convolution: {
    shapes: { 'convolution.kernel': [5, 1, 3, 3], 'head.kernel': [5 * 16, classes] },
    inputs: [1, 6, 6],
    forward: ({ convolution, head }, x) =>
      np.matmul(nn.relu(lax.conv(x, convolution!['kernel']!, [1, 1], 'VALID')).reshape([rows, 80]), head!['kernel']!),
  },
  transformer: {
    shapes: {
      'attention.query': [8, 8],
      'attention.key': [8, 8],
      'attention.value': [8, 8],
      'mlp.up': [8, 16],
      'mlp.down': [16, 8],
      'norm.gain': [8],
      'head.kernel': [8, classes],
    },
    inputs: [5, 8],
    forward: ({ attention, mlp, norm, head }, x) => {
      const [query, key, value] = ['query', 'key', 'value'].map((name) => np.matmul(x.ref, attention![name]!));
      const scores = np.matmul(query!, np.matrixTranspose(key!)).mul(8 ** -0.5);
      const causal = scores.add(np.tri(5).sub(1).mul(1e9));
      const mixed = np.matmul(nn.softmax(causal, -1), value!).add(x);
      const scale = np.sqrt(np.mean(np.square(mixed.ref), -1, { keepdims: true }).add(1e-6));
      const normed = mixed.div(scale).mul(norm!['gain']!);
      const out = normed.ref.add(np.matmul(nn.relu(np.matmul(normed, mlp!['up']!)), mlp!['down']!));
      return np.matmul(np.mean(out, 1), head!['kernel']!);
    },
  },
};

const product = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

function makeWeights({ shapes }: Task): Weights {
  const weights: Weights = {};
  Object.entries(shapes).forEach(([name, shape], i) => {
    const [layer, kind] = name.split('.') as [string, string];
    const values = gaussian(product(shape), i + 1).map((value) => 0.3 * value);
    (weights[layer] ??= {})[kind] = np.array(values).reshape([...shape]);
  });
  return weights;
}

function makeLoss(task: Task): (weights: Weights) => [jax.Array, Weights] {
  const values = gaussian(rows * product(task.inputs), 99);
  const each = values.length / rows;
  const labels = Array.from({ length: rows }, (_, row) => {
    const sums = Array.from({ length: classes }, (__, part) =>
      values.subarray(row * each + (part * each) / 4, row * each + ((part + 1) * each) / 4).reduce((a, b) => a + b, 0),
    );
    return sums.indexOf(Math.max(...sums));
  });
  return valueAndGrad((weights: Weights) => {
    const x = np.array(values).reshape([rows, ...task.inputs]);
    const targets = nn.oneHot(np.array(Int32Array.from(labels)), classes);
    return nn.logSoftmax(task.forward(weights, x), -1).mul(targets).sum().div(-rows);
  });
}

/** Frees the array. */
const valuesIn = (array: jax.Array) => array.dataSync() as Float32Array;

const valuesOf = (weights: Weights) =>
  tree.leaves<jax.Array>(tree.ref(weights)).map((one) => Array.from(valuesIn(one)));

/** Takes steps as a loop with optax would, and returns the losses and the last weights. */
function takeSteps(
  optimizer: GradientTransformation,
  loss: ReturnType<typeof makeLoss>,
  params: Weights,
  state: ReturnType<GradientTransformation['init']>,
  steps: number,
) {
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const [value, grads] = loss(tree.ref(params));
    losses.push(valuesIn(value)[0]!);
    let updates: Weights;
    [updates, state] = optimizer.update(grads, state, tree.ref(params));
    params = applyUpdates(params, updates);
  }
  return { losses, params, state };
}

describe.each(Object.entries(tasks))('%s', (name, task) => {
  test('steps are those of plain arrays, learn, and free what they are given', () => {
    const loss = makeLoss(task);
    const params = makeWeights(task);
    const optimizer = root({ lr: 0.05 });
    const state = optimizer.init(tree.ref(params));
    const [value, grads] = loss(tree.ref(params));
    value.dispose();
    const leaves = [...tree.leaves<jax.Array>(grads), ...tree.leaves<jax.Array>(params)];
    const [updates, second] = optimizer.update(grads, state, tree.ref(params));
    // The gradients are freed. The parameters have one owner, who adds the updates to them.
    expect(leaves.map(({ refCount }) => refCount).sort()).toEqual([
      ...leaves.slice(leaves.length / 2).map(() => 0),
      ...leaves.slice(leaves.length / 2).map(() => 1),
    ]);
    const taken = takeSteps(optimizer, loss, applyUpdates(params, updates), second, 11);
    expect(taken.state.step).toBe(12);

    const weights = makeWeights(task);
    const plain = parameters(weights);
    expect(plain.parameters.map((one) => one.name)).toEqual(Object.keys(task.shapes));
    const same = new Root(
      plain.parameters.map((one) => new Parameter({ ...pick(one), data: one.data })),
      { lr: 0.05 },
    );
    const losses: number[] = [];
    const own = same.paramGroups.flatMap((group) => group.params);
    for (let step = 0; step < 12; step++) {
      const [now, gradients] = loss(plain.arrays());
      losses.push(valuesIn(now)[0]!);
      const flat = new Map<string, Float32Array>(
        Object.entries(gradients).flatMap(([layer, kinds]) =>
          Object.entries(kinds).map(([kind, array]) => [`${layer}.${kind}`, valuesIn(array)] as const),
        ),
      );
      for (const one of own) one.grad.set(flat.get(one.name)!);
      same.stepSync();
    }
    expect(losses.at(-1)).toBeLessThan(0.95 * losses[0]!);
    taken.losses.forEach((one, i) => expect(one).toBeCloseTo(losses[i + 1]!, 4));
    tree.dispose(taken.params);
  });

  test('a saved state goes on exactly', async () => {
    const loss = makeLoss(task);
    const optimizer = root({ lr: 0.05 });
    const params = makeWeights(task);
    const first = takeSteps(optimizer, loss, params, optimizer.init(tree.ref(params)), 3);
    const file = path.join(folder, `${name}.safetensors`);
    await optimizer.save(file, first.state);
    const [loaded, state] = await root({ lr: 0.05 }).load(file, makeWeights(task));
    expect(state.step).toBe(3);
    expect(valuesOf(loaded)).toEqual(valuesOf(first.params));
    const resumed = takeSteps(optimizer, loss, loaded, state, 3);
    const uninterrupted = takeSteps(optimizer, loss, first.params, first.state, 3);
    expect(resumed.losses).toEqual(uninterrupted.losses);
    expect(valuesOf(resumed.params)).toEqual(valuesOf(uninterrupted.params));
  });
});

const pick = ({ name, shape, layout }: Parameter) => ({ name, shape, layout });

test('names and rank decide what AdamW updates, and read how a matrix is read', () => {
  const read = (name: string) => (name === 'attention.query' ? { layout: 'out-in' as const, split: 2 } : {});
  const { optimizer } = muon({ read }).init(makeWeights(tasks['transformer']!));
  const [hidden, rest] = optimizer.paramGroups;
  expect([hidden!.algorithm, rest!.algorithm]).toEqual(['muon', 'adamw']);
  expect(rest!.params.map(({ name }) => name)).toEqual(['norm.gain', 'head.kernel']);
  expect(hidden!.params.map(({ name, layout, matrices }) => [name, layout, matrices.length])).toEqual([
    ['attention.query', 'out-in', 2],
    ['attention.key', 'in-out', 1],
    ['attention.value', 'in-out', 1],
    ['mlp.up', 'in-out', 1],
    ['mlp.down', 'in-out', 1],
  ]);
});

test('a stale state, another tree, and arrays without values are refused, and nothing is freed', async () => {
  const optimizer = adamw();
  const w = np.array(Float32Array.of(1, 2, 3, 4)).reshape([2, 2]);
  const g = () => ({ w: np.ones([2, 2]) });
  const state = optimizer.init({ w: w.ref });
  const [updates, next] = optimizer.update(g(), state, { w: w.ref });
  expect(next.step).toBe(1);
  const given = g();
  await expectError(() => optimizer.update(given, state, { w }), 'ERR_INVALID_ARGUMENT', 'the last state, of step 1');
  await expectError(() => optimizer.update(given, next, { w: np.ones([4]) }), 'ERR_SHAPE_MISMATCH', '"w" of [2, 2]');
  await expectError(
    () => optimizer.update({ v: given.w } as never, next, { w }),
    'ERR_SHAPE_MISMATCH',
    'the gradients to have "w"',
  );
  await expectError(
    () => optimizer.update({ w: np.array(Float32Array.of(NaN, 1, 1, 1)).reshape([2, 2]) }, next, { w }),
    'ERR_NON_FINITE',
    '"w"',
  );
  await expectError(
    () => jax.jit((x: jax.Array) => (optimizer.update({ w: x }, next, { w: x.ref }), x))(np.ones([2, 2])),
    'ERR_INVALID_ARGUMENT',
    'no step is possible inside jit',
  );
  expect([...next.optimizer.paramGroups[0]!.params[0]!.data].map(Math.round)).toEqual([1, 2, 3, 4]);
  await expectError(() => optimizer.load(path.join(folder, 'absent'), { w }), 'ERR_CHECKPOINT', 'absent');
  expect([w.refCount, given.w.refCount]).toEqual([1, 1]);
  expect(() => applyUpdates({ w }, { v: given.w } as never)).toThrow('the updates to have "w"');
  optimizer.update(given, next, { w });
  expect([w.refCount, given.w.refCount]).toEqual([0, 0]);
  tree.dispose(updates);
});

test('a tree becomes parameters and back', async () => {
  const made = parameters({ layers: [{ w: np.ones([2, 3]) }, { w: np.zeros([3]) }] });
  expect(made.parameters.map(({ name, shape }) => [name, shape])).toEqual([
    ['layers.0.w', [2, 3]],
    ['layers.1.w', [3]],
  ]);
  made.parameters[1]!.data.set([1, 2, 3]);
  const { layers } = made.arrays();
  expect(layers[1]!.w.js()).toEqual([1, 2, 3]);
  const gradients = { layers: [{ w: layers[0]!.w.mul(5) }, { w: np.ones([3]) }] };
  await made.readGradients(gradients);
  expect([...made.parameters[0]!.grad]).toEqual([5, 5, 5, 5, 5, 5]);
  expect(gradients.layers[0]!.w.refCount).toBe(0);
});

test('a step that is left out does not count', async () => {
  const optimizer = adamw({ nonFinite: 'skip' });
  const start = optimizer.init({ w: np.ones([2]) });
  const bad = { w: np.array(Float32Array.of(NaN, 1)) };
  const [none, skipped] = optimizer.update(bad, start, { w: np.ones([2]) });
  expect([skipped.step, none.w.js()]).toEqual([0, [0, 0]]);
  const file = path.join(folder, 'skipped.safetensors');
  await optimizer.save(file, skipped);
  const [params, loaded] = await optimizer.load(file, { w: np.ones([2]) });
  expect(loaded.step).toBe(0);
  tree.dispose(params);
});
