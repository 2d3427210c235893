// A network whose gradients are written by hand: all that `train` asks of a model.
//
//   npm run example -- examples/mlp.ts --steps 200
import { parseArgs } from 'node:util';
import { type Model, Parameter, Root, train } from 'root-optimizer';
import { type Batch, batchesFrom, classes, loadDigits, pixels } from './digits.js';

const hidden = 64;

/** Linear, ReLU, linear, softmax. Weights are [out, in]. */
export class Mlp implements Model<Batch> {
  readonly w1 = new Parameter({ name: 'hidden.weight', shape: [hidden, pixels] });
  readonly b1 = new Parameter({ name: 'hidden.bias', shape: [hidden] });
  readonly w2 = new Parameter({ name: 'head.weight', shape: [classes, hidden] });
  readonly b2 = new Parameter({ name: 'head.bias', shape: [classes] });
  readonly parameters = [this.w1, this.b1, this.w2, this.b2];

  constructor() {
    this.w1.data.forEach((_, i, data) => (data[i] = Math.sin(12.9898 * i) * Math.sqrt(2 / pixels)));
    this.w2.data.forEach((_, i, data) => (data[i] = Math.sin(78.233 * i) * 0.02));
  }

  /** Returns the mean loss of a batch, and adds its gradient to `grad`. */
  lossAndGradients({ images, labels }: Batch): number {
    let loss = 0;
    labels.forEach((label, row) => {
      const x = images.subarray(pixels * row, pixels * (row + 1));
      const { h, p } = this.#forward(x);
      loss -= Math.log(p[label]!) / labels.length;
      // The gradient of a loss with respect to the logits is p − y, and goes back from layer to layer.
      const dh = new Float32Array(hidden);
      p.forEach((value, k) => {
        const d = (value - Number(k === label)) / labels.length;
        this.b2.grad[k]! += d;
        for (let j = 0; j < hidden; j++) {
          this.w2.grad[hidden * k + j]! += d * h[j]!;
          dh[j]! += d * this.w2.data[hidden * k + j]!;
        }
      });
      for (let j = 0; j < hidden; j++) {
        if (h[j] === 0) continue;
        this.b1.grad[j]! += dh[j]!;
        for (let i = 0; i < pixels; i++) this.w1.grad[pixels * j + i]! += dh[j]! * x[i]!;
      }
    });
    return loss;
  }

  /** The share of the digits that are recognised. */
  accuracy({ images, labels }: Batch): number {
    const right = labels.filter((label, row) => {
      const { p } = this.#forward(images.subarray(pixels * row, pixels * (row + 1)));
      return p.indexOf(Math.max(...p)) === label;
    });
    return right.length / labels.length;
  }

  #forward(x: Float32Array): { h: Float32Array; p: Float32Array } {
    const h = linear(this.w1, this.b1, x).map((value) => Math.max(0, value));
    const logits = linear(this.w2, this.b2, h);
    const most = Math.max(...logits);
    const e = logits.map((value) => Math.exp(value - most));
    const sum = e.reduce((a, b) => a + b);
    return { h, p: e.map((value) => value / sum) };
  }
}

function linear(weight: Parameter, bias: Parameter, x: Float32Array): Float32Array {
  return bias.data.map((start, j) => {
    let sum = start;
    for (let i = 0; i < x.length; i++) sum += weight.data[x.length * j + i]! * x[i]!;
    return sum;
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { steps: { type: 'string', default: '200' } } });
  const { training, test } = loadDigits();
  const model = new Mlp();
  // A flat list divides itself: ROOT takes hidden.weight; AdamW takes the head, as its name says, and the biases.
  const optimizer = new Root(model.parameters, { lr: 0.02 });
  const { history } = await train({
    model,
    optimizer,
    steps: Number(values.steps),
    batches: (firstStep) => batchesFrom(training, firstStep),
    schedule: { kind: 'cosine', warmup: 10 },
    progress: true,
  });
  console.log(`loss ${history[0]!.loss.toFixed(3)} → ${history.at(-1)!.loss.toFixed(3)}`);
  console.log(`${(100 * model.accuracy(test)).toFixed(1)} % of ${test.labels.length} new digits recognised`);
  optimizer.dispose();
}

if (require.main === module) void main();
