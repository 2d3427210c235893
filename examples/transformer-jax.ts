// A small transformer in jax-js that learns the text of a file, with an optimizer in the shape of optax.
//
//   npm run example -- examples/transformer-jax.ts --steps 60 --text README.md
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import * as jax from '@jax-js/jax';
import { createOptimizers } from 'root-optimizer/jax';

const { jit, nn, numpy: np, tree, valueAndGrad } = jax;
const { root, applyUpdates } = createOptimizers(jax);

const [rows, context, width] = [8, 32, 32];
type Weights = Record<string, jax.Array>;

function makeWeights(vocabulary: number): Weights {
  let state = 1;
  const matrix = (from: number, to: number, deviation = from ** -0.5) => {
    const uniform = () => (state = (Math.imul(state, 1664525) + 1013904223) | 0) / 2 ** 31;
    const values = Float32Array.from({ length: from * to }, () => deviation * Math.sqrt(3) * uniform());
    return np.array(values).reshape([from, to]);
  };
  return {
    embedding: matrix(vocabulary, width, 0.1),
    positions: matrix(context, width, 0.1),
    query: matrix(width, width),
    key: matrix(width, width),
    value: matrix(width, width),
    up: matrix(width, 4 * width),
    down: matrix(4 * width, width),
    head: matrix(width, vocabulary, 0.02),
  };
}

/** The mean loss in nats a byte. jax-js frees an array at its last use, so that every use but that one takes `.ref`. */
function lossOf(weights: Weights, inputs: jax.Array, targets: jax.Array): jax.Array {
  const weight = (name: string) => weights[name]!;
  const [vocabulary] = weight('embedding').shape as [number, number];
  const normed = (x: jax.Array) => x.div(np.sqrt(np.mean(np.square(x.ref), -1, { keepdims: true }).add(1e-6)));
  let x = np.matmul(nn.oneHot(inputs, vocabulary), weight('embedding')).add(weight('positions'));
  const before = normed(x.ref);
  const query = np.matmul(before.ref, weight('query'));
  const key = np.matmul(before.ref, weight('key'));
  const value = np.matmul(before, weight('value'));
  const scores = np.matmul(query, np.matrixTranspose(key)).mul(width ** -0.5);
  const causal = scores.add(np.tri(context).sub(1).mul(1e9));
  x = x.add(np.matmul(nn.softmax(causal, -1), value));
  x = x.ref.add(np.matmul(nn.relu(np.matmul(normed(x), weight('up'))), weight('down')));
  const logits = np.matmul(normed(x), weight('head'));
  return nn
    .logSoftmax(logits, -1)
    .mul(nn.oneHot(targets, vocabulary))
    .sum()
    .div(-rows * context);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { steps: { type: 'string', default: '60' }, text: { type: 'string', default: 'README.md' } },
  });
  await jax.init('wasm');
  jax.defaultDevice('wasm');
  const text = readFileSync(values.text);
  const vocabulary = [...new Set(text)];
  const tokens = Int32Array.from(text, (byte) => vocabulary.indexOf(byte));
  const lossAndGradients = jit(valueAndGrad(lossOf));

  let params = makeWeights(vocabulary.length);
  const steps = Number(values.steps);
  const optimizer = root({ lr: 0.02 });
  let state = optimizer.init(tree.ref(params));
  for (let step = 0; step < steps; step++) {
    const starts = Array.from({ length: rows }, (_, row) => (7919 * (rows * step + row)) % (tokens.length - context));
    const windows = (shift: number) =>
      np
        .array(Int32Array.from(starts.flatMap((start) => [...tokens.subarray(start + shift, start + shift + context)])))
        .reshape([rows, context]);
    const [loss, gradients] = lossAndGradients(tree.ref(params), windows(0), windows(1));
    for (const group of state.optimizer.paramGroups) group.lr *= 1 - step / steps / 20;
    let updates: Weights;
    [updates, state] = optimizer.update(gradients, state, tree.ref(params));
    params = applyUpdates(params, updates);
    const value = Number(loss.js());
    if (step === 0 || (step + 1) % 20 === 0 || step + 1 === steps) {
      console.log(`step ${step + 1}: loss ${value.toFixed(3)} nats a byte`);
    }
  }
  tree.dispose(params);
  lossAndGradients.dispose();
  state.optimizer.dispose();
}

void main();
