import { checkpointError } from '../checkpoint/format.js';
import type { NamedTensors } from '../checkpoint/contents.js';
import { allocate, firstNonFinite } from '../arrays.js';
import { quote } from '../errors.js';
import type { Parameter } from '../parameter.js';

/** Exponential moving averages of parameters' data. */
export class WeightAverages {
  readonly #decay: number;
  readonly #averages: ReadonlyMap<Parameter, Float32Array>;

  constructor(parameters: readonly Parameter[], decay: number) {
    this.#decay = decay;
    this.#averages = new Map(
      parameters.map((one) => {
        const average = allocate(one.size, `the average of parameter ${quote(one.name)}`);
        average.set(one.data);
        return [one, average];
      }),
    );
  }

  get all(): ReadonlyMap<Parameter, Float32Array> {
    return this.#averages;
  }

  /** @param step the number of the step that has just been taken, from 1 */
  update(step: number): void {
    const share = 1 - Math.min(this.#decay, (1 + step) / (10 + step));
    for (const [{ data }, average] of this.#averages) {
      for (let i = 0; i < average.length; i++) average[i]! += share * (data[i]! - average[i]!);
    }
  }

  /** Runs `work` while the parameters' data are the averages. Afterwards data are as before, even where it fails. */
  async during<T>(work: () => T | Promise<T>): Promise<T> {
    const former = [...this.#averages].map(([parameter, average]) => {
      const { name, size, data } = parameter;
      const copy = allocate(size, `a copy of parameter ${quote(name)}`);
      copy.set(data);
      return { parameter, average, copy };
    });
    try {
      for (const { parameter, average } of former) parameter.data.set(average);
      return await work();
    } finally {
      for (const { parameter, copy } of former) parameter.data.set(copy);
    }
  }

  /** The averages as tensors of a checkpoint. */
  tensors(): NamedTensors {
    return Object.fromEntries(
      [...this.#averages].map(([{ name, shape }, data]) => [`${name}.ema`, { shape, data }] as const),
    );
  }

  /** @throws RootError ERR_CHECKPOINT where one is missing or not finite, before any changes */
  restore(tensors: NamedTensors, file: string): void {
    const found = [...this.#averages].map(([{ name, size }, average]) => {
      const key = `${name}.ema`;
      const data = Object.hasOwn(tensors, key) ? tensors[key]!.data : undefined;
      if (data?.length !== size) throw checkpointError(`Expected ${file} to have the average ${quote(key)} of ${size}`);
      if (firstNonFinite(data) !== undefined) throw checkpointError(`Expected ${quote(key)} of ${file} to be finite`);
      return { average, data };
    });
    for (const { average, data } of found) average.set(data);
  }
}
