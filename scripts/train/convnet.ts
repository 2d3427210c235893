import * as jax from '@jax-js/jax';
import { createOptimizers, type ParameterTree } from '../../lib/adapters/jax.js';
import type { Model, Parameter } from '../../lib/index.js';
import { normal, type Random } from '../common/random.js';
import { type DigitBatch, imageSide } from './digits.js';

const { jit, nn, numpy: np, valueAndGrad } = jax;
const { parameters } = createOptimizers(jax);

type Arrays = Record<string, jax.Array>;

const classes = 10;
const [first, second] = [
  { channels: 16, kernel: 5, padding: 2 },
  { channels: 32, kernel: 3, padding: 1 },
];
/** The images' side after two convolutions of stride 2. */
const lastSide = Math.ceil(imageSide / 4);

/**
 * A small convolutional network for digits: two convolutions of stride 2, a hidden layer of 64 and a linear head, with
 * ReLU between them. Weights of linear maps are [out, in], kernels are [out, height · width · in].
 *
 * jax-js frees an array at its last use, so that every use but the last one takes `.ref`.
 */
export class ConvNet implements Model<DigitBatch> {
  /** The number of different targets. */
  readonly classes = classes;
  readonly parameters: readonly Parameter[];
  /** The kernels and the hidden layer, which ROOT and Muon are made for. */
  readonly hidden: readonly Parameter[];
  readonly #weights: ParameterTree<Arrays>;
  readonly #lossAndGradients = jit(
    valueAndGrad((weights: Arrays, images: jax.Array, targets: jax.Array) => lossOf(weights, images, targets)),
  );
  readonly #logits = jit((weights: Arrays, images: jax.Array) => forward(weights, images));

  /** Starts jax-js with its WebAssembly backend, on which the model computes. */
  static async create(): Promise<ConvNet> {
    await jax.init('wasm');
    jax.defaultDevice('wasm');
    return new ConvNet();
  }

  private constructor() {
    const matrix = (name: string, out: number, inputs: number): [string, jax.Array][] => [
      [name, np.zeros([out, inputs])],
      [`${name}.bias`, np.zeros([out])],
    ];
    const arrays = [
      ...matrix('convolution.0', first.channels, first.kernel ** 2),
      ...matrix('convolution.1', second.channels, second.kernel ** 2 * first.channels),
      ...matrix('dense', 64, lastSide ** 2 * second.channels),
      ...matrix('head', classes, 64),
    ];
    this.#weights = parameters(Object.fromEntries(arrays), () => ({ layout: 'out-in' }));
    this.parameters = this.#weights.parameters;
    this.hidden = this.parameters.filter(({ name, shape }) => shape.length === 2 && name !== 'head');
  }

  /** Sets biases to 0, the head to a standard deviation of 0.02, and other matrices to one of √(2 / in). */
  initialize(random: Random): void {
    for (const parameter of this.parameters) {
      const { data, shape } = parameter;
      const deviation = this.hidden.includes(parameter) ? Math.sqrt(2 / shape[1]!) : 0.02;
      for (let i = 0; i < data.length; i++) data[i] = shape.length === 1 ? 0 : deviation * normal(random);
    }
  }

  /** @returns the mean loss in nats per image. Its gradient is in `grad`. */
  async lossAndGradients(batch: DigitBatch): Promise<number> {
    const targets = np.array(batch.targets);
    const [loss, gradients] = this.#lossAndGradients(this.#weights.arrays(), imagesOf(batch), targets);
    await this.#weights.readGradients(gradients);
    return (await values(loss))[0]!;
  }

  /** @returns row-major, rows × classes */
  async logits(batch: DigitBatch): Promise<Float32Array> {
    return values(this.#logits(this.#weights.arrays(), imagesOf(batch)));
  }

  /** Frees the memory of the compiled functions. */
  dispose(): void {
    for (const compiled of [this.#lossAndGradients, this.#logits]) compiled.dispose();
  }
}

function imagesOf({ rows, inputs }: DigitBatch): jax.Array {
  return np.array(inputs).reshape([rows, imageSide, imageSide, 1]);
}

function lossOf(weights: Arrays, images: jax.Array, targets: jax.Array): jax.Array {
  const logProbabilities = nn.logSoftmax(forward(weights, images), -1);
  const [rows] = logProbabilities.shape as [number, number];
  return logProbabilities.mul(nn.oneHot(targets, classes)).sum().div(-rows);
}

/** @returns [rows, classes] */
function forward(weights: Arrays, images: jax.Array): jax.Array {
  const linear = (x: jax.Array, name: string): jax.Array =>
    np.matmul(x, weights[name]!.transpose()).add(weights[`${name}.bias`]!);
  const [rows] = images.shape as [number, number, number, number];
  let x = images;
  for (const [i, { kernel, padding, channels }] of [first, second].entries()) {
    const side = Math.ceil(x.shape[1]! / 2);
    const convolved = linear(patches(x, kernel, padding), `convolution.${i}`);
    x = nn.relu(convolved).reshape([rows, side, side, channels]);
  }
  return linear(nn.relu(linear(x.reshape([rows, -1]), 'dense')), 'head');
}

/**
 * Returns the patches that a convolution of stride 2 multiplies its kernel by. The product with the kernel is four
 * times as fast to differentiate as jax-js's own convolution.
 * @param x [rows, side, side, channels]
 * @returns [rows · ⌈side / 2⌉², kernel · kernel · channels]
 */
export function patches(x: jax.Array, kernel: number, padding: number): jax.Array {
  const [rows, side, , channels] = x.shape as [number, number, number, number];
  const out = Math.ceil(side / 2);
  const margin: [number, number] = [padding, 2 * out + kernel - padding - side];
  const padded = np.pad(x, [[0, 0], margin, margin, [0, 0]]);
  const shifted = Array.from({ length: kernel * kernel }, (_, i) => {
    const [row, column] = [Math.floor(i / kernel), i % kernel];
    const window = padded.ref.slice([], [row, row + 2 * out], [column, column + 2 * out], []);
    // jax-js slices have no stride. The first of each two rows and columns has an axis of its own.
    return window.reshape([rows, out, 2, out, 2, channels]).slice([], [], 0, [], 0, []);
  });
  padded.dispose();
  return np.concatenate(shifted, -1).reshape([rows * out * out, kernel * kernel * channels]);
}

async function values(array: jax.Array): Promise<Float32Array> {
  return (await array.data()) as Float32Array;
}
