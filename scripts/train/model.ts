import * as jax from '@jax-js/jax';
import { createOptimizers, type ParameterTree } from '../../lib/adapters/jax.js';
import type { Model, Parameter } from '../../lib/index.js';
import type { Batch } from './data.js';
import { normal, type Random } from '../common/random.js';

export interface ModelShape {
  /** The number of different tokens. */
  vocabulary: number;
  /** The number of tokens that a prediction can look back on. */
  context: number;
  width: number;
  heads: number;
  layers: number;
}

const { jit, lax, nn, numpy: np, valueAndGrad } = jax;
const { parameters } = createOptimizers(jax);

type Arrays = Record<string, jax.Array>;

/**
 * A small GPT. It has token and position embeddings, then in every layer causal attention and an MLP with squared ReLU,
 * then a norm and a linear head. Attention and MLP each follow an RMSNorm and stand in a residual branch. Weights of
 * linear maps are [out, in].
 *
 * jax-js frees an array at its last use, so that every use but the last one takes `.ref`.
 */
export class Gpt implements Model<Batch> {
  readonly shape: ModelShape;
  readonly parameters: readonly Parameter[];
  /** The matrices between embedding and head, which ROOT and Muon are made for. */
  readonly hidden: readonly Parameter[];
  readonly #weights: ParameterTree<Arrays>;
  readonly #lossAndGradients = jit(
    valueAndGrad((weights: Arrays, inputs: jax.Array, targets: jax.Array) => this.#lossOf(weights, inputs, targets)),
  );
  readonly #loss = jit((weights: Arrays, inputs: jax.Array, targets: jax.Array) =>
    this.#lossOf(weights, inputs, targets),
  );
  readonly #logits = jit((weights: Arrays, inputs: jax.Array) => this.#forward(weights, inputs));

  /** Starts jax-js with its WebAssembly backend, on which the model computes. */
  static async create(shape: ModelShape): Promise<Gpt> {
    await jax.init('wasm');
    jax.defaultDevice('wasm');
    return new Gpt(shape);
  }

  private constructor(shape: ModelShape) {
    this.shape = shape;
    const { vocabulary, context, width } = shape;
    const layer = (i: number): [string, number[]][] => [
      [`${i}.attention.norm`, [width]],
      [`${i}.attention.qkv`, [3 * width, width]],
      [`${i}.attention.out`, [width, width]],
      [`${i}.mlp.norm`, [width]],
      [`${i}.mlp.up`, [4 * width, width]],
      [`${i}.mlp.down`, [width, 4 * width]],
    ];
    const shapes: [string, number[]][] = [
      ['embedding', [vocabulary, width]],
      ['positions', [context, width]],
      ...Array.from({ length: shape.layers }, (_, i) => layer(i)).flat(),
      ['norm', [width]],
      ['head', [vocabulary, width]],
    ];
    this.#weights = parameters(Object.fromEntries(shapes.map(([name, of]) => [name, np.zeros(of)])), (name) => ({
      layout: 'out-in',
      ...(name.endsWith('qkv') ? { split: 3 } : {}),
    }));
    this.parameters = this.#weights.parameters;
    this.hidden = this.parameters.filter(({ name, shape: of }) => /^\d/.test(name) && of.length === 2);
  }

  /** Sets norms to 1, embeddings and head to a standard deviation of 0.02, and other matrices to one of 1 / √in. */
  initialize(random: Random): void {
    for (const parameter of this.parameters) {
      const deviation = this.hidden.includes(parameter) ? parameter.shape[1]! ** -0.5 : 0.02;
      const { data } = parameter;
      for (let i = 0; i < data.length; i++) data[i] = parameter.shape.length === 1 ? 1 : deviation * normal(random);
    }
  }

  /** @returns the mean loss in nats per token. Its gradient is in `grad`. */
  async lossAndGradients(batch: Batch): Promise<number> {
    const [loss, gradients] = this.#lossAndGradients(this.#weights.arrays(), ...this.#tokens(batch));
    await this.#weights.readGradients(gradients);
    return (await values(loss))[0]!;
  }

  async loss(batch: Batch): Promise<number> {
    return (await values(this.#loss(this.#weights.arrays(), ...this.#tokens(batch))))[0]!;
  }

  /** @returns logits of the token that follows each of the `context` tokens: row-major, context × vocabulary */
  async logits(tokens: Int32Array): Promise<Float32Array> {
    return values(this.#logits(this.#weights.arrays(), np.array(tokens).reshape([1, this.shape.context])));
  }

  /** Frees the memory of the compiled functions. */
  dispose(): void {
    for (const compiled of [this.#lossAndGradients, this.#loss, this.#logits]) compiled.dispose();
  }

  #tokens({ rows, inputs, targets }: Batch): [jax.Array, jax.Array] {
    const { context } = this.shape;
    return [np.array(inputs).reshape([rows, context]), np.array(targets).reshape([rows * context])];
  }

  #lossOf(weights: Arrays, inputs: jax.Array, targets: jax.Array): jax.Array {
    const logProbabilities = nn.logSoftmax(this.#forward(weights, inputs), -1);
    const [tokens, vocabulary] = logProbabilities.shape as [number, number];
    return logProbabilities.mul(nn.oneHot(targets, vocabulary)).sum().div(-tokens);
  }

  /** @returns [rows · context, vocabulary] */
  #forward(weights: Arrays, inputs: jax.Array): jax.Array {
    const { vocabulary, context, width, layers } = this.shape;
    const weight = (name: string): jax.Array => weights[name]!;
    const [rows] = inputs.shape as [number, number];
    const tokens = rows * context;
    // A product with one-hot rows differentiates faster than a look-up.
    const embedded = np.matmul(nn.oneHot(inputs, vocabulary).reshape([tokens, vocabulary]), weight('embedding'));
    let x = embedded.reshape([rows, context, width]).add(weight('positions')).reshape([tokens, width]);
    for (let i = 0; i < layers; i++) {
      const qkv = linear(norm(x.ref, weight(`${i}.attention.norm`)), weight(`${i}.attention.qkv`));
      const attended = this.#attention(qkv.reshape([rows, context, 3 * width])).reshape([tokens, width]);
      x = x.add(linear(attended, weight(`${i}.attention.out`)));
      const up = linear(norm(x.ref, weight(`${i}.mlp.norm`)), weight(`${i}.mlp.up`));
      x = x.add(linear(np.square(nn.relu(up)), weight(`${i}.mlp.down`)));
    }
    return linear(norm(x, weight('norm')), weight('head'));
  }

  /**
   * Computes the same as `nn.dotProductAttention` with `isCausal`, but its forward pass is twice as fast. The weights
   * are divided by their sum after the product with the values and after the transposition of that product. This order
   * keeps jax-js from computing the weights anew for every value.
   */
  #attention(qkv: jax.Array): jax.Array {
    const { context, width, heads } = this.shape;
    const [rows] = qkv.shape as [number, number, number];
    const perHead = (x: jax.Array): jax.Array =>
      np.transpose(x.reshape([rows, context, heads, width / heads]), [0, 2, 1, 3]);
    const [query, key, value] = np.split(qkv, 3, -1).map(perHead) as [jax.Array, jax.Array, jax.Array];
    const scores = np.matmul(query, np.matrixTranspose(key)).mul((width / heads) ** -0.5);
    const causal = scores.add(np.tri(context).sub(1).mul(1e9));
    const weights = np.exp(causal.ref.sub(lax.stopGradient(np.max(causal, -1, { keepdims: true }))));
    const sums = np.transpose(weights.ref.sum(-1), [0, 2, 1]).reshape([rows, context, heads, 1]);
    return np.transpose(np.matmul(weights, value), [0, 2, 1, 3]).div(sums);
  }
}

function linear(x: jax.Array, weight: jax.Array): jax.Array {
  return np.matmul(x, weight.transpose());
}

function norm(x: jax.Array, gain: jax.Array): jax.Array {
  const meanSquare = np.mean(np.square(x.ref), -1, { keepdims: true });
  return x.div(np.sqrt(meanSquare.add(1e-6))).mul(gain);
}

async function values(array: jax.Array): Promise<Float32Array> {
  return (await array.data()) as Float32Array;
}
