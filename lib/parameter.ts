import type { MatrixLayout } from '../binding.js';
import { allocate, checkArray, isShared } from './arrays.js';
import { describe, expected, RootError } from './errors.js';
import { boolean, checkKeys, checkObject, checkShape, oneOf, product } from './validate.js';

export type { MatrixLayout };

export interface ParameterOptions {
  /** Unique within an optimizer. Errors and checkpoints refer to the parameter by it. */
  name: string;
  /** Positive integers; `[]` is a scalar. */
  shape: readonly number[];
  /** Row-major values; zeros if absent. Updated in place by a step. May live in a SharedArrayBuffer. */
  data?: Float32Array | undefined;
  /** The gradient, as long as `data`; zeros if absent. Read by a step. */
  grad?: Float32Array | undefined;
  /**
   * Whether `data` and `grad` lie in SharedArrayBuffers, which nothing can detach, as a step that runs needs it. Arrays
   * that are given have to. Other threads get the memory itself rather than a copy, and WebCrypto and bodies of `fetch`
   * refuse it. Default false.
   */
  shared?: boolean | undefined;
  /**
   * The number of equal blocks, or the rows of each block. Reads the matrix as blocks of rows that are matrices of
   * their own (a fused QKV projection). With `stack`, every stacked matrix is split in this way.
   */
  split?: number | readonly number[] | undefined;
  /** Reads [e, m, n, …] as e matrices of m × n·… (experts). */
  stack?: boolean | undefined;
  /**
   * Which side of a matrix its outputs are on. `out-in`, the default: [out, in, …] as in PyTorch, rows are outputs.
   * `in-out`: […, in, out] as in TensorFlow and JAX, columns are outputs, and more than two dimensions are read as
   * [the rest, the last]. It decides what `normalize: 'rows'` takes for rows and `lrScale: 'spectral'` for outputs.
   */
  layout?: 'out-in' | 'in-out' | undefined;
}

/**
 * A named array with its gradient, and how it is read as matrices. [m, n] is one matrix. More dimensions (a
 * convolution's kernel) are read as [shape[0], the rest]. With fewer than two dimensions there is no matrix, and AdamW
 * updates the parameter.
 *
 * `data` and `grad` may be replaced by arrays of the same length at any time except during a step, which works in the
 * arrays it began with.
 */
export class Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  /** Number of elements. */
  readonly size: number;
  /** The matrices in the array; none where there are fewer than two dimensions. */
  readonly matrices: readonly MatrixLayout[];
  readonly layout: 'out-in' | 'in-out';
  /** The number of outputs of all matrices together: their rows, or with `in-out` their columns. */
  readonly outputs: number;
  readonly #shared: boolean;
  #data: Float32Array;
  #grad: Float32Array;

  /**
   * @throws RootError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH where lengths and shape disagree, ERR_OUT_OF_MEMORY
   */
  constructor(options: ParameterOptions) {
    checkObject(options, 'the argument of Parameter');
    const { name, shape, data, grad, shared = false, split, stack, layout = 'out-in' } = options;
    if (typeof name !== 'string' || name === '') throw expected('the name of a Parameter', 'a non-empty string', name);
    const label = `parameter ${JSON.stringify(name)}`;
    checkKeys(options, ['name', 'shape', 'data', 'grad', 'shared', 'split', 'stack', 'layout'], `of ${label}`);
    this.name = name;
    this.shape = checkShape(shape, `the shape of ${label}`);
    this.size = product(this.shape);
    this.layout = oneOf('out-in', 'in-out')(layout, `layout of ${label}`);
    this.matrices = matricesOf(this.shape, { split, stack, layout }, label);
    const outputs = this.matrices.map(({ rows, columns }) => (layout === 'in-out' ? columns : rows));
    this.outputs = outputs.reduce((sum, one) => sum + one, 0);
    this.#shared = boolean(shared, `shared of ${label}`);
    this.#data = this.#check('data', data ?? allocate(this.size, label, shared));
    this.#grad = this.#check('grad', grad ?? allocate(this.size, label, shared));
  }

  /** Whether a value is a Parameter itself, and no proxy of one, which would have no arrays. */
  static isOne(value: unknown): value is Parameter {
    return typeof value === 'object' && value !== null && #data in value;
  }

  get data(): Float32Array {
    return this.#data;
  }

  set data(data: Float32Array) {
    this.#data = this.#check('data', data);
  }

  get grad(): Float32Array {
    return this.#grad;
  }

  set grad(grad: Float32Array) {
    this.#grad = this.#check('grad', grad);
  }

  #check(property: 'data' | 'grad', array: unknown): Float32Array {
    const label = `${property} of parameter ${JSON.stringify(this.name)}`;
    const checked = checkArray(array, this.size, label);
    if (!this.#shared || isShared(checked)) return checked;
    throw expected(label, 'over a SharedArrayBuffer, since the parameter is shared', checked.buffer);
  }
}

export interface Layout {
  split?: number | readonly number[] | undefined;
  stack?: boolean | undefined;
  layout?: 'out-in' | 'in-out' | undefined;
}

/** The matrices of an array of `shape`, as `Parameter` reads it. */
export function matricesOf(
  shape: readonly number[],
  { split, stack = false, layout = 'out-in' }: Layout,
  label: string,
): readonly MatrixLayout[] {
  if (typeof stack !== 'boolean') throw expected(`stack of ${label}`, 'true or false', stack);
  const least = stack ? 3 : 2;
  if (shape.length < least && (stack || split !== undefined)) {
    throw expected(`the shape of ${label}`, `of at least ${least} dimensions with ${stack ? 'stack' : 'split'}`, shape);
  }
  if (shape.length < least) return Object.freeze([]);
  const [count, rest] = stack ? [shape[0] ?? 1, shape.slice(1)] : [1, shape];
  if (layout === 'in-out' && split !== undefined) {
    throw expected(`split of ${label}`, 'absent with layout "in-out", where rows are inputs', split);
  }
  const cut = layout === 'out-in' ? 1 : rest.length - 1;
  const rows = product(rest.slice(0, cut));
  const columns = product(rest.slice(cut));
  const blocks = blocksOf(split, rows, `split of ${label}`);
  const matrices: MatrixLayout[] = [];
  let offset = 0;
  for (let i = 0; i < count; i++) {
    for (const block of blocks) {
      matrices.push(Object.freeze({ offset, rows: block, columns }));
      offset += block * columns;
    }
  }
  return Object.freeze(matrices);
}

function blocksOf(split: unknown, rows: number, name: string): readonly number[] {
  if (split === undefined) return [rows];
  if (typeof split === 'number') {
    if (!Number.isInteger(split) || split < 1 || rows % split !== 0) {
      throw expected(name, `a divisor of the ${rows} rows`, split);
    }
    return Array.from({ length: split }, () => rows / split);
  }
  if (!Array.isArray(split)) throw expected(name, 'a number of blocks or a list of their rows', split);
  const blocks = checkShape(split, name);
  const sum = blocks.reduce((a, b) => a + b, 0);
  if (sum !== rows) {
    throw new RootError(
      'ERR_SHAPE_MISMATCH',
      `Expected ${name} to sum to the ${rows} rows, got ${describe(split)}: ${sum}`,
    );
  }
  return blocks;
}
