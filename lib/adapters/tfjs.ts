import { types } from 'node:util';
import { RootError } from '../errors.js';
import { AdamW } from '../optimizer/adamw.js';
import { onHost, type Optimizer } from '../optimizer/base.js';
import { Muon } from '../optimizer/muon.js';
import type { AdamWOptions, MuonOptions, RootOptions } from '../optimizer/options.js';
import { Root } from '../optimizer/root.js';
import type { ParameterState } from '../optimizer/types.js';
import { Parameter } from '../parameter.js';

interface Tensor {
  readonly shape: number[];
  readonly dtype: string;
  dataSync(): ArrayLike<number>;
}

interface Variable extends Tensor {
  readonly name: string;
  assign(value: never): void;
}

interface NamedTensor {
  name: string;
  tensor: Tensor;
}

type NamedTensors = Readonly<Record<string, Tensor>> | readonly NamedTensor[];

/** What `createOptimizers` uses of TensorFlow.js, such as `import * as tf from '@tensorflow/tfjs'`. */
export interface TensorFlow {
  readonly Optimizer: abstract new () => object;
  readonly serialization: { registerClass(cls: never): void };
  engine(): { readonly registeredVariables: Readonly<Record<string, unknown>> };
  tidy(work: () => void): void;
  tensor(values: never, shape: never, dtype: never): unknown;
}

/** What our optimizers have besides what every `tf.Optimizer` has. */
export interface TensorFlowOptimizer {
  /** The optimizer of this package. Undefined before the first step, which brings the variables, and before `build`. */
  readonly optimizer: Optimizer | undefined;
  /** The learning rate of the first group. Writing it scales those of all groups by the same factor. */
  learningRate: number;
  /** Makes the optimizer for these variables before the first step, so that `load` can fill it. */
  build(variables: readonly { readonly name: string }[]): void;
  /** Writes data, state and settings to a safetensors file. */
  save(path: string): Promise<void>;
  /** Reads what `save` wrote into the variables and the state. */
  load(path: string): Promise<{ step: number }>;
}

type Made<T extends TensorFlow> = InstanceType<T['Optimizer']> & TensorFlowOptimizer;

/** Where a variable's name and a parameter's meet. */
interface Member {
  readonly parameter: Parameter;
  readonly variable: Variable;
}

/**
 * Returns functions that make optimizers for TensorFlow.js. They go wherever a `tf.Optimizer` goes: `model.compile`,
 * `minimize`, `applyGradients`, and `model.save` with `includeOptimizer`.
 *
 * A step runs on the calling thread (`stepSync`), as TensorFlow.js asks for. Kernels have the layout 'in-out'. Routing
 * is that of a flat list (see `route` of `RootOptions`).
 * @param tf the namespace of TensorFlow.js
 */
export function createOptimizers<T extends TensorFlow>(
  tf: T,
): {
  readonly root: (options?: RootOptions) => Made<T>;
  readonly muon: (options?: MuonOptions) => Made<T>;
  readonly adamw: (options?: AdamWOptions) => Made<T>;
} {
  const makers = {
    Root: define(tf, 'RootOptimizerRoot', (params, options) => new Root(params, options)),
    Muon: define(tf, 'RootOptimizerMuon', (params, options) => new Muon(params, options)),
    AdamW: define(tf, 'RootOptimizerAdamW', (params, options) => new AdamW(params, options)),
  };
  return {
    root: (options = {}) => new makers.Root(options) as Made<T>,
    muon: (options = {}) => new makers.Muon(options) as Made<T>,
    adamw: (options = {}) => new makers.AdamW(options) as Made<T>,
  };
}

/** The part of `tf.Optimizer` that ours builds on. */
interface Base {
  incrementIterations(): void;
  saveIterations(): Promise<NamedTensor>;
  extractIterations(weights: NamedTensor[]): Promise<NamedTensor[]>;
  dispose(): void;
}

function define(
  tf: TensorFlow,
  name: string,
  make: (params: Parameter[], options: object) => Optimizer,
): new (options: object) => object {
  const { Optimizer: TfOptimizer } = tf as unknown as { Optimizer: new () => Base };
  const tensorOf: TensorOf = (values, shape, dtype) =>
    tf.tensor(values as never, shape as never, dtype as never) as Tensor;

  class Adapted extends TfOptimizer implements TensorFlowOptimizer {
    /** The name under which TensorFlow.js saves and finds the class. */
    static readonly className = name;
    readonly #options: object;
    #optimizer: Optimizer | undefined;
    #members: readonly Member[] = [];
    /** What `setWeights` was given before there were variables. */
    #pending: readonly NamedTensorData[] | undefined;
    /** What `learningRate` was set to before there were groups. */
    #firstRate: number | undefined;
    /** The groups' rates as the options have them. Setting `learningRate` keeps their ratios. */
    #rates: readonly number[] = [];

    constructor(options: object) {
      super();
      this.#options = options;
    }

    static fromConfig(
      _: unknown,
      { options = {}, learningRate }: { options?: object; learningRate?: number },
    ): Adapted {
      const adapted = new Adapted(options);
      if (learningRate !== undefined) adapted.learningRate = learningRate;
      return adapted;
    }

    getConfig(): { options: object; learningRate?: number } {
      const rate = this.learningRate;
      return { options: this.#options, ...(Number.isNaN(rate) ? {} : { learningRate: rate }) };
    }

    get optimizer(): Optimizer | undefined {
      return this.#optimizer;
    }

    get learningRate(): number {
      const given = this.#firstRate ?? (this.#options as { lr?: number }).lr;
      return this.#optimizer?.paramGroups[0]!.lr ?? given ?? NaN;
    }

    set learningRate(rate: number) {
      if (this.#optimizer === undefined) {
        this.#firstRate = rate;
        return;
      }
      const [first = 0] = this.#rates;
      this.#optimizer.paramGroups.forEach((group, i) => {
        if (i === 0) group.lr = rate;
        else if (first > 0) group.lr = (rate * this.#rates[i]!) / first;
      });
    }

    setLearningRate(rate: number): void {
      this.learningRate = rate;
    }

    build(variables: readonly { readonly name: string }[]): void {
      if (this.#optimizer !== undefined) return;
      const { registeredVariables } = tf.engine();
      this.#members = variables.map(({ name: variableName }) => {
        const variable = registeredVariables[variableName] as Variable | undefined;
        if (variable === undefined) throw differentVariables(`"${variableName}", which is no variable`);
        if (variable.dtype !== 'float32') {
          throw new RootError(
            'ERR_INVALID_ARGUMENT',
            `Expected variable "${variableName}" to be of float32, got ${variable.dtype}`,
          );
        }
        const data = Float32Array.from(variable.dataSync());
        const parameter = new Parameter({ name: variableName, shape: variable.shape, data, layout: 'in-out' });
        return { parameter, variable };
      });
      const parameters = this.#members.map(({ parameter }) => parameter);
      const optimizer = onHost(make(parameters, this.#options));
      try {
        if (this.#pending !== undefined) this.#restore(optimizer, this.#pending);
      } catch (error) {
        optimizer.dispose();
        throw error;
      }
      this.#optimizer = optimizer;
      this.#rates = optimizer.paramGroups.map(({ lr }) => lr);
      if (this.#firstRate !== undefined) this.learningRate = this.#firstRate;
      this.#pending = undefined;
    }

    applyGradients(gradients: NamedTensors): void {
      const list = listOf(gradients);
      this.build(list);
      const given = new Map(list.map((one) => [one.name, one.tensor as Tensor | null]));
      for (const { parameter, variable } of this.#members) {
        const gradient: Tensor | null | undefined = given.get(parameter.name);
        if (gradient == null) throw differentVariables(`no gradient of "${parameter.name}"`);
        parameter.grad.set(gradient.dataSync());
        parameter.data.set(variable.dataSync());
        given.delete(parameter.name);
      }
      const [stranger] = given.keys();
      if (stranger !== undefined) throw differentVariables(`one of "${stranger}" besides`);
      this.#optimizer!.stepSync();
      this.#assign();
      this.incrementIterations();
    }

    async getWeights(): Promise<NamedTensor[]> {
      const optimizer = this.#optimizer;
      const states =
        optimizer === undefined
          ? (this.#pending ?? [])
          : this.#members.flatMap(({ parameter }) =>
              Object.entries(optimizer.stateOf(parameter)).map(([key, value]): NamedTensorData => {
                return { name: `${parameter.name}/${key}`, value: value as StateValue };
              }),
            );
      const tensors = states.flatMap(({ name: full, value }) => {
        const tensor = encode(value, tensorOf);
        return tensor === undefined ? [] : [{ name: full, tensor }];
      });
      return [await this.saveIterations(), ...tensors];
    }

    async setWeights(weights: NamedTensor[]): Promise<void> {
      const rest = await this.extractIterations(weights);
      const data = rest.map(({ name: key, tensor }) => ({ name: key, ...decode(tensor) }));
      if (this.#optimizer === undefined) this.#pending = data;
      else this.#restore(this.#optimizer, data);
    }

    async save(path: string): Promise<void> {
      await this.#built().save(path);
    }

    async load(path: string): Promise<{ step: number }> {
      const { step } = await this.#built().load(path);
      this.#assign();
      return { step };
    }

    override dispose(): void {
      this.#optimizer?.dispose();
      super.dispose();
    }

    #built(): Optimizer {
      if (this.#optimizer === undefined) {
        throw new RootError('ERR_INVALID_ARGUMENT', 'Expected build(variables) or a step to have come first');
      }
      return this.#optimizer;
    }

    /** Gives the variables copies of the data, which the next step changes in place. */
    #assign(): void {
      tf.tidy(() => {
        for (const { parameter, variable } of this.#members) {
          variable.assign(tensorOf(parameter.data.slice(), variable.shape, 'float32') as never);
        }
      });
    }

    /** Variables are known by their order, since TensorFlow.js gives those of a loaded model other names. */
    #restore(optimizer: Optimizer, weights: readonly NamedTensorData[]): void {
      const given = new Map<string, Record<string, StateValue>>();
      for (const { name: full, value } of weights) {
        const end = full.lastIndexOf('/');
        const state = given.get(full.slice(0, end)) ?? {};
        given.set(full.slice(0, end), { ...state, [full.slice(end + 1)]: value });
      }
      const states = [...given.values()];
      if (states.length !== this.#members.length) {
        throw new RootError(
          'ERR_INVALID_ARGUMENT',
          `Expected weights of ${this.#members.length} variables, got those of ${states.length}`,
        );
      }
      const restored = this.#members.map(({ parameter }, i): [Parameter, ParameterState] => {
        const keys = Object.keys(optimizer.stateOf(parameter));
        return [parameter, Object.fromEntries(keys.map((key) => [key, states[i]![key] ?? null])) as never];
      });
      optimizer.restore(new Map(restored));
    }
  }

  tf.serialization.registerClass(Adapted as never);
  return Adapted;
}

type TensorOf = (values: unknown, shape: readonly number[], dtype: string) => Tensor;
type StateValue = Float32Array | number | null | readonly (number | null)[];

interface NamedTensorData {
  readonly name: string;
  readonly value: StateValue;
}

/**
 * TensorFlow.js has no float64, so that a number becomes two int32. They are a vector for a number, and a row of a
 * matrix in a list. A null within a list is NaN; a value that is null has no tensor.
 */
function encode(value: StateValue, tensor: TensorOf): Tensor | undefined {
  if (value === null) return undefined;
  if (types.isFloat32Array(value)) return tensor(value, [value.length], 'float32');
  const numbers = Float64Array.from(typeof value === 'number' ? [value] : value, (one) => one ?? NaN);
  const shape = typeof value === 'number' ? [2] : [numbers.length, 2];
  return tensor(new Int32Array(numbers.buffer), shape, 'int32');
}

function decode(tensor: Tensor): { value: StateValue } {
  const values = tensor.dataSync();
  if (tensor.dtype === 'float32') return { value: Float32Array.from(values) };
  const doubles = new Float64Array(Int32Array.from(values).buffer);
  const numbers = Array.from(doubles, (one) => (Number.isNaN(one) ? null : one));
  return { value: tensor.shape.length === 1 ? numbers[0]! : numbers };
}

function listOf(gradients: NamedTensors): readonly NamedTensor[] {
  if (Array.isArray(gradients)) return gradients as NamedTensor[];
  return Object.entries(gradients as Record<string, Tensor>).map(([name, tensor]) => ({ name, tensor }));
}

function differentVariables(got: string): RootError {
  return new RootError('ERR_INVALID_ARGUMENT', `Expected gradients of the variables of the first step, got ${got}`);
}
