import { describe, expected, RootError } from '../errors.js';
import { AdamW } from '../optimizer/adamw.js';
import { onHost, type Optimizer } from '../optimizer/base.js';
import { Muon } from '../optimizer/muon.js';
import type { AdamWOptions, MuonOptions, RootOptions } from '../optimizer/options.js';
import { Root } from '../optimizer/root.js';
import type { StepReport } from '../optimizer/types.js';
import { Parameter, type ParameterOptions } from '../parameter.js';
import { isRecord } from '../validate.js';

/** An array of jax-js. Its use frees it, except through `ref`. */
export interface JaxArray {
  readonly shape: number[];
  readonly dtype: string;
  /** The array itself, for one more use. */
  readonly ref: JaxArray;
  dispose(): void;
  dataSync(): ArrayLike<number>;
  data(): Promise<ArrayLike<number>>;
}

/** What the adapter uses of jax-js, such as `import * as jax from '@jax-js/jax'`. */
export interface Jax {
  readonly numpy: { readonly array: (values: never) => unknown };
}

/** How the parameters of a tree are read; see `ParameterOptions`. */
export type Reading = Pick<ParameterOptions, 'layout' | 'split' | 'stack'>;

/** An optimizer in the shape of optax. Its functions free the trees that they are given, as those of jax-js do. */
export interface GradientTransformation {
  /** Makes the state for parameters like these. */
  init(params: unknown): State;
  /**
   * Takes a step, on the calling thread and outside `jit`.
   * @param state the state that the last call returned; older ones are refused
   * @returns what to add to the parameters, a tree like theirs, and the next state
   * @throws RootError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH, and the errors of `stepSync`. Nothing is freed or
   * changed then.
   */
  update<Tree>(grads: Tree, state: State, params: Tree): [updates: Tree, state: State];
  /** Writes parameters, state and settings to a safetensors file. */
  save(path: string, state: State): Promise<void>;
  /** Reads what `save` wrote. `params` says how the tree looks. */
  load<Tree>(path: string, params: Tree): Promise<[params: Tree, state: State]>;
}

/** The state after a step. Only the last one can be used, because momentum is updated in place. */
export interface State {
  /** Number of steps taken, without those that `nonFinite: 'skip'` left out. */
  readonly step: number;
  /** The optimizer of this package, for learning rates (`paramGroups`), `stateOf` and `dispose`. */
  readonly optimizer: Optimizer;
}

/** A tree of arrays as parameters. */
export interface ParameterTree<Tree> {
  /** Named by the paths of the tree: keys and indices with dots between them. */
  readonly parameters: readonly Parameter[];
  /** New arrays of the parameters' data. They are the caller's, to be freed by their use. */
  arrays(): Tree;
  /** Copies a tree of gradients into `grad` and frees it. */
  readGradients(grads: Tree): Promise<void>;
}

interface Leaf {
  readonly name: string;
  readonly array: JaxArray;
}

/**
 * Returns optimizers for jax-js, and `parameters`, which turns a tree of arrays into parameters for the classes of this
 * package and for `train`.
 *
 * Matrices are read as [in, out] and arrays of more dimensions as [out, …], which jax-js's convolutions take, unless
 * `read` says otherwise. Routing is that of a flat list (see `route` of `RootOptions`), by the paths of the tree.
 * @param jax the namespace of jax-js
 */
export function createOptimizers(jax: Jax): {
  readonly root: (options?: RootOptions & { read?: Read | undefined }) => GradientTransformation;
  readonly muon: (options?: MuonOptions & { read?: Read | undefined }) => GradientTransformation;
  readonly adamw: (options?: AdamWOptions) => GradientTransformation;
  readonly parameters: <Tree>(tree: Tree, read?: Read) => ParameterTree<Tree>;
  /** Adds a tree of updates to the parameters, and frees both. */
  readonly applyUpdates: <Tree>(params: Tree, updates: Tree) => Tree;
} {
  const make = jax.numpy.array as (values: Float32Array) => { reshape(shape: readonly number[]): JaxArray };
  const arrayOf = (values: Float32Array, shape: readonly number[]) => make(values).reshape(shape);
  return {
    root: ({ read, ...options } = {}) => transformation(arrayOf, read, (params) => new Root(params, options)),
    muon: ({ read, ...options } = {}) => transformation(arrayOf, read, (params) => new Muon(params, options)),
    adamw: (options = {}) => transformation(arrayOf, undefined, (params) => new AdamW(params, options)),
    parameters: (tree, read) => parameterTree(arrayOf, tree, read),
    applyUpdates: (params, updates) => {
      const added = leavesOf(updates);
      const wanted = leavesOf(params).map(({ name, array: { shape } }) => ({ name, shape }));
      checkTree(added, wanted, 'the updates');
      return map(params, (leaf, i) => (leaf as unknown as { add(other: unknown): JaxArray }).add(added[i]!.array));
    },
  };
}

type Read = (name: string, shape: readonly number[]) => Reading;
type ArrayOf = (values: Float32Array, shape: readonly number[]) => JaxArray;

/** A state with what belongs to it alone. */
class OwnState implements State {
  readonly step: number;
  readonly optimizer: Optimizer;
  readonly parameters: readonly Parameter[];
  /** The state that can be used, the same object for all states of an optimizer. */
  readonly latest: { state: OwnState | undefined };

  constructor(
    step: number,
    optimizer: Optimizer,
    parameters: readonly Parameter[],
    latest: { state: OwnState | undefined },
  ) {
    this.step = step;
    this.optimizer = optimizer;
    this.parameters = parameters;
    this.latest = latest;
    latest.state = this;
  }

  next(step: number): OwnState {
    return new OwnState(step, this.optimizer, this.parameters, this.latest);
  }
}

function transformation(
  arrayOf: ArrayOf,
  read: Read | undefined,
  make: (params: readonly Parameter[]) => Optimizer,
): GradientTransformation {
  const begin = (params: unknown) => {
    const parameters = makeParameters(params, read);
    return { parameters, optimizer: onHost(make(parameters)) };
  };
  return {
    init: (params) => {
      const { parameters, optimizer } = begin(params);
      free(params);
      return new OwnState(0, optimizer, parameters, { state: undefined });
    },
    update: (grads, state, params) => {
      const own = checkState(state);
      const gradients = checkTree(leavesOf(grads), own.parameters, 'the gradients');
      const values = checkTree(leavesOf(params), own.parameters, 'the parameters');
      const former = own.parameters.map(({ data }) => data.slice());
      own.parameters.forEach((parameter, i) => {
        parameter.grad.set(gradients[i]!.array.ref.dataSync());
        parameter.data.set(values[i]!.array.ref.dataSync());
      });
      const before = own.parameters.map(({ data }) => data.slice());
      const { step } = stepOr(own.optimizer, () => own.parameters.forEach(({ data }, i) => data.set(former[i]!)));
      const updates = own.parameters.map(({ data }, i) => {
        const old = before[i]!;
        const update = data.map((value, j) => value - old[j]!);
        // What `applyUpdates` makes of the update, which rounds once more, so that a checkpoint holds that.
        data.forEach((_, j) => (data[j] = old[j]! + update[j]!));
        return update;
      });
      const tree = map(params, (_, i) => arrayOf(updates[i]!, own.parameters[i]!.shape));
      for (const { array } of [...gradients, ...values]) array.dispose();
      return [tree, own.next(step)];
    },
    save: async (path, state) => checkState(state).optimizer.save(path),
    load: async (path, params) => {
      const { parameters, optimizer } = begin(params);
      const { step } = await optimizer.load(path).catch((error: unknown) => {
        optimizer.dispose();
        throw error;
      });
      free(params);
      const tree = map(params, (_, i) => arrayOf(parameters[i]!.data.slice(), parameters[i]!.shape));
      return [tree, new OwnState(step, optimizer, parameters, { state: undefined })];
    },
  };
}

/** Takes a step. Where it is refused, `undo` puts back what was written for it. */
function stepOr(optimizer: Optimizer, undo: () => void): StepReport {
  try {
    return optimizer.stepSync();
  } catch (error) {
    undo();
    throw error;
  }
}

function parameterTree<Tree>(arrayOf: ArrayOf, tree: Tree, read: Read | undefined): ParameterTree<Tree> {
  const parameters = makeParameters(tree, read);
  free(tree);
  const structure = map(tree, (leaf) => leaf); // its form is what remains of it
  return {
    parameters,
    arrays: () => map(structure, (_, i) => arrayOf(parameters[i]!.data.slice(), parameters[i]!.shape)),
    readGradients: async (grads) => {
      const leaves = checkTree(leavesOf(grads), parameters, 'the gradients');
      await Promise.all(leaves.map(async ({ array }, i) => parameters[i]!.grad.set(await array.data())));
    },
  };
}

function free(tree: unknown): void {
  for (const { array } of leavesOf(tree)) array.dispose();
}

function makeParameters(tree: unknown, read: Read | undefined): readonly Parameter[] {
  const leaves = leavesOf(tree);
  if (leaves.length === 0) throw expected('the parameters', 'a tree of arrays', tree);
  const parameters = leaves.map(({ name, array: { shape } }) => {
    // Matrices multiply from the right, kernels of convolutions are [out, in, height, width].
    const layout = shape.length > 2 ? 'out-in' : 'in-out';
    return new Parameter({ name, shape, layout, ...read?.(name, shape) });
  });
  leaves.forEach(({ array }, i) => parameters[i]!.data.set(array.ref.dataSync()));
  return parameters;
}

function checkState(state: State): OwnState {
  if (!(state instanceof OwnState)) throw expected('the state', 'one that init or update has returned', state);
  if (state.latest.state !== state) {
    throw new RootError(
      'ERR_INVALID_ARGUMENT',
      `Expected the last state, of step ${state.latest.state!.step}, got the one of step ${state.step}`,
    );
  }
  return state;
}

/** Checks that a tree has these names and shapes. */
function checkTree(
  leaves: readonly Leaf[],
  parameters: readonly Pick<Parameter, 'name' | 'shape'>[],
  label: string,
): readonly Leaf[] {
  for (const [i, { name, shape }] of parameters.entries()) {
    const leaf = leaves[i];
    const same = leaf?.name === name && leaf.array.shape.join() === shape.join();
    if (!same) {
      const got = leaf === undefined ? 'nothing' : `${JSON.stringify(leaf.name)} of ${describe(leaf.array.shape)}`;
      throw new RootError(
        'ERR_SHAPE_MISMATCH',
        `Expected ${label} to have ${JSON.stringify(name)} of ${describe(shape)}, got ${got}`,
      );
    }
  }
  const further = leaves[parameters.length];
  if (further !== undefined) throw expected(label, 'a tree like the parameters', `${further.name} besides`);
  return leaves;
}

/** @throws RootError ERR_INVALID_ARGUMENT for what is no array with values, such as those that `jit` traces with */
function leavesOf(tree: unknown): Leaf[] {
  const leaves: Leaf[] = [];
  visit(tree, '', (array, name) => {
    const { dtype } = (array ?? {}) as Partial<JaxArray>;
    if (typeof (array as Partial<JaxArray> | undefined)?.dataSync !== 'function') {
      throw expected(`"${name}"`, 'an array with values (no step is possible inside jit or grad)', array);
    }
    if (dtype !== 'float32') throw expected(`"${name}"`, 'of float32', dtype);
    leaves.push({ name, array: array as JaxArray });
    return array;
  });
  return leaves;
}

/** A tree like this one, of what `make` returns for its leaves in order. */
function map<Tree>(tree: Tree, make: (leaf: JaxArray, index: number) => JaxArray): Tree {
  let index = 0;
  return visit(tree, '', (leaf) => make(leaf as JaxArray, index++)) as Tree;
}

function visit(tree: unknown, path: string, leaf: (value: unknown, name: string) => unknown): unknown {
  const at = (key: string | number) => (path === '' ? String(key) : `${path}.${key}`);
  if (Array.isArray(tree)) return tree.map((one: unknown, i) => visit(one, at(i), leaf));
  if (isRecord(tree) && Object.getPrototypeOf(tree) === Object.prototype) {
    return Object.fromEntries(Object.entries(tree).map(([key, one]) => [key, visit(one, at(key), leaf)]));
  }
  return leaf(tree, path === '' ? 'weights' : path);
}
