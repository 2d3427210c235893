// A convolutional network in TensorFlow.js that ROOT trains: `createOptimizers(tf)` is all that changes.
//
//   npm run example -- examples/digits-tfjs.ts --steps 100
import { parseArgs } from 'node:util';
import '@tensorflow/tfjs-backend-cpu';
import * as core from '@tensorflow/tfjs-core';
import * as layers from '@tensorflow/tfjs-layers';
import { createOptimizers } from 'root-optimizer/tfjs';
import { type Batch, batchAt, classes, loadDigits, side } from './digits.js';

// `import * as tf from '@tensorflow/tfjs'` is the same with more backends.
const tf = { ...core, ...layers };
const { root } = createOptimizers(tf);

function tensors({ images, labels }: Batch): { x: core.Tensor; y: core.Tensor } {
  const x = tf.tensor(images, [labels.length, side, side, 1]);
  return { x, y: tf.tidy(() => tf.cast(tf.oneHot(tf.tensor1d(labels, 'int32'), classes), 'float32')) };
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { steps: { type: 'string', default: '100' } } });
  await tf.setBackend('cpu');
  const { training, test } = loadDigits();
  const model = tf.sequential({
    layers: [
      tf.layers.conv2d({ inputShape: [side, side, 1], filters: 8, kernelSize: 5, strides: 2, activation: 'relu' }),
      tf.layers.flatten(),
      tf.layers.dense({ units: 32, activation: 'relu' }),
      tf.layers.dense({ units: classes, activation: 'softmax', name: 'head' }),
    ],
  });
  const optimizer = root({ lr: 0.02 });
  model.compile({ optimizer, loss: 'categoricalCrossentropy', metrics: ['accuracy'] });
  const steps = Number(values.steps);
  for (let step = 1; step <= steps; step++) {
    optimizer.learningRate = 0.02 * (1 - (step - 1) / steps);
    const { x, y } = tensors(batchAt(training, step));
    const [loss] = (await model.trainOnBatch(x, y)) as number[];
    if (step === 1 || step === steps) console.log(`step ${step}: loss ${loss!.toFixed(3)}`);
    tf.dispose([x, y]);
  }
  const { x, y } = tensors(test);
  const [, accuracy] = model.evaluate(x, y) as core.Scalar[];
  console.log(`${(100 * accuracy!.dataSync()[0]!).toFixed(1)} % of ${test.labels.length} new digits recognised`);
  optimizer.dispose();
}

void main();
