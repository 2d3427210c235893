import type * as native from '../../binding.js';
import { allocate, checkArray } from '../arrays.js';
import { guard } from '../binding.js';
import type { Store } from '../checkpoint/contents.js';
import { expected, quote } from '../errors.js';
import type { Parameter } from '../parameter.js';
import type { CheckedState } from './state.js';
import type { ParameterState } from './types.js';

/** The state that the addon keeps of parameters, and their data, wherever these are. */
export class StateStore implements Store {
  readonly #native: native.Optimizer;
  readonly #indices: ReadonlyMap<Parameter, number>;
  readonly #dataOnDevice: boolean;
  /** Data as they were when a save or a load began. */
  #held: ReadonlyMap<Parameter, Float32Array> | undefined;

  /** @param dataOnDevice whether the device's copies of data are read, rather than the host's arrays */
  constructor(optimizer: native.Optimizer, parameters: readonly Parameter[], dataOnDevice: boolean) {
    this.#native = optimizer;
    this.#indices = new Map(parameters.map((one, i) => [one, i]));
    this.#dataOnDevice = dataOnDevice;
  }

  /** Runs a save or a load, which fails where an array of data is replaced meanwhile. */
  async holding<T>(run: () => Promise<T>): Promise<T> {
    this.#held = new Map([...this.#indices.keys()].map((one) => [one, one.data]));
    try {
      return await run();
    } finally {
      this.#held = undefined;
    }
  }

  /** @throws RootError ERR_INVALID_ARGUMENT for a parameter that is not this optimizer's */
  indexOf(parameter: Parameter): number {
    const index = this.#indices.get(parameter);
    if (index !== undefined) return index;
    const name = (parameter as Partial<Parameter> | null | undefined)?.name;
    throw expected('the parameter', "one of this optimizer's", name ?? parameter);
  }

  found(parameter: Parameter): native.Found {
    return guard(() => this.#native.found(this.indexOf(parameter)));
  }

  setFound(parameter: Parameter, found: native.Found): void {
    guard(() => this.#native.setFound(this.indexOf(parameter), found));
  }

  read(parameter: Parameter, array: native.StateArray, offset: number, values: Float32Array): void {
    if (array === 'data' && !this.#dataOnDevice) {
      values.set(this.dataOf(parameter).subarray(offset, offset + values.length));
    } else {
      guard(() => this.#native.readState(this.indexOf(parameter), array, offset, values));
    }
  }

  /** Data are written on the host. */
  write(parameter: Parameter, array: native.StateArray, offset: number, values: Float32Array): void {
    if (array === 'data') {
      this.dataOf(parameter).set(values, offset);
    } else {
      guard(() => this.#native.writeState(this.indexOf(parameter), array, offset, values));
    }
  }

  dataOf(parameter: Parameter): Float32Array {
    const { name, data, size } = parameter;
    if (this.#held !== undefined && this.#held.get(parameter) !== data) {
      throw expected(`data of parameter ${quote(name)}`, 'the same array until the save or load ends', 'another one');
    }
    return checkArray(data, size, `data of parameter ${quote(name)}`);
  }

  /** Copies of a parameter's state. */
  copy(parameter: Parameter, step: number): ParameterState {
    const found = this.found(parameter);
    const copy = (array: native.StateArray, size: number) => {
      const values = allocate(size, `the state of parameter ${quote(parameter.name)}`);
      this.read(parameter, array, 0, values);
      return values;
    };
    const { gradientThresholds, gradientScales } = found;
    const [gradientThreshold = null, gradientScale = null] = [gradientThresholds[0], gradientScales[0]];
    const common = { step, gradientThreshold, gradientScale };
    const { size } = parameter;
    if (!('thresholds' in found)) return { ...common, expAvg: copy('expAvg', size), expAvgSq: copy('expAvgSq', size) };
    const { thresholds, normalizes } = found;
    return {
      ...common,
      momentumBuffer: copy('momentumBuffer', size),
      threshold: thresholds[0] ?? null,
      thresholds,
      gradientThresholds,
      gradientScales,
      rowSecondMoment: normalizes ? copy('rowSecondMoment', parameter.outputs) : null,
    };
  }

  /** Replaces a parameter's state by copies. */
  replace(parameter: Parameter, { arrays, found }: CheckedState): void {
    for (const [array, values] of arrays) this.write(parameter, array, 0, values);
    this.setFound(parameter, found);
  }
}
