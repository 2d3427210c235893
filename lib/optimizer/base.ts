// Symbol.dispose, for programs whose own library of types is older.
/// <reference lib="esnext.disposable" preserve="true" />
import type * as native from '../../binding.js';
import { checkArray, firstNonFinite } from '../arrays.js';
import { addon, asRootError, guard, guardAsync, nativeCodeOf } from '../binding.js';
import { type Loaded, type NamedTensors, readCheckpoint, writeCheckpoint } from '../checkpoint/contents.js';
import { checkpointError } from '../checkpoint/format.js';
import type { Notes } from '../checkpoint/metadata.js';
import { readWeights, type WeightMap } from '../checkpoint/weights.js';
import type { Signal } from '../checkpoint/writer.js';
import { type DeviceInfo, type Precision, precisionOn, resolveDevice } from '../devices.js';
import { enumerate, expected, quote, RootError } from '../errors.js';
import type { Parameter } from '../parameter.js';
import { boolean, checkKeys, checkObject, checkShape, integer, isRecord, oneOf, product } from '../validate.js';
import { type Arrays, checkArrays } from './arrays.js';
import { type GroupOptions, type ParamGroup, resolveGroups } from './groups.js';
import { type Algorithm, type HostSync, resolveOptions } from './options.js';
import { fitCoefficients, StepSettings } from './settings.js';
import { checkState } from './state.js';
import { StateStore } from './store.js';
import type { DeviceMemory, ParameterState, StepReport } from './types.js';

type Task = 'step' | 'save' | 'load' | 'loadWeights' | 'transfer';

export interface SaveOptions {
  notes?: Notes | undefined;
  tensors?: NamedTensors | undefined;
  keep?: number | undefined;
  signal?: Signal | undefined;
}

export interface LoadOptions {
  options?: 'check' | 'ignore' | undefined;
  tensors?: boolean | undefined;
  accept?: ((found: Loaded) => void) | undefined;
}

/** Parameters that are in use by a step, a save or a load of some optimizer. */
const inUse = new WeakSet<Parameter>();

/**
 * The common part of `Root`, `Muon` and `AdamW`. They differ in their defaults, and in the algorithm of a group that
 * names none.
 */
export abstract class Optimizer {
  /**
   * The groups as given, then those that routing added (see `GroupOptions`). Schedules write their learning rates here.
   */
  readonly paramGroups: readonly ParamGroup[];
  readonly device: DeviceInfo;
  /** The precision of the products: the one asked for, or what `auto` chose. */
  readonly precision: Precision;
  /** Whether products are compensated (see `MuonOptions`), which only those in `float16` are. */
  readonly compensated: boolean;
  /** When arrays travel between host and device: the one asked for on CUDA, `step` on the CPU, where none do. */
  readonly hostSync: HostSync;
  readonly #native: native.Optimizer;
  readonly #nonFinite: 'error' | 'skip';
  readonly #parameters: readonly Parameter[];
  readonly #settings: readonly StepSettings[];
  readonly #store: StateStore;
  #arrays: Arrays;
  #step = 0;
  #running: Task | undefined;
  #disposed = false;
  /** Whether data and state are in part those of a file, since a load failed midway. */
  #isMixed = false;

  protected constructor(algorithm: Algorithm, params: readonly Parameter[] | readonly GroupOptions[], options: object) {
    const resolved = resolveOptions(algorithm, options);
    const { defaults, route, device, threads, nonFinite, hostSync, precision, compensated } = resolved;
    this.paramGroups = resolveGroups(algorithm, params, defaults, route);
    this.#parameters = this.paramGroups.flatMap((group) => group.params);
    this.#nonFinite = nonFinite;
    this.#arrays = checkArrays(this.#parameters);
    this.device = resolveDevice(device);
    this.precision = precisionOn(this.device.name, precision);
    this.compensated = compensated && this.precision === 'float16';
    this.#settings = this.paramGroups.map(() => new StepSettings(this.precision));
    const layouts = this.paramGroups.flatMap(({ algorithm, params }) =>
      params.map(({ size, matrices, layout }) => ({
        size,
        matrices: algorithm === 'adamw' ? [] : matrices.map((one) => ({ ...one, inOut: layout === 'in-out' })),
      })),
    );
    this.paramGroups.forEach((group, i) => {
      // Fits are never refused, and end before the first step. Coefficients that were given may be refused, here.
      if (fitCoefficients([group]) === undefined) this.#settings[i]!.forStep(group, 1);
    });
    const { Optimizer: Native } = addon();
    this.#native = guard(() => new Native(this.device.name, threads, this.precision, this.compensated, layouts));
    this.hostSync = this.device.name === 'cpu' ? 'step' : hostSync;
    this.#store = new StateStore(this.#native, this.#parameters, this.#manual);
    if (!this.#manual) return;
    try {
      guard(() => this.#native.writeParametersSync(this.#arrays.data));
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** Whether steps work on the device's copies. Data then pass between host and device only on request. */
  get #manual(): boolean {
    return this.hostSync === 'manual';
  }

  /**
   * Takes one step for every parameter, off the event loop: reads `grad` and updates `data` in place. The step happens
   * whole or not at all.
   *
   * Until the promise settles, both arrays belong to the step. Reading them meanwhile shows a mixture of old and new
   * values, and writing them causes one. Transferring them, to another thread or by `structuredClone`, can end the
   * process, because Node-API cannot pin their memory. The memory of a SharedArrayBuffer cannot go away.
   * @throws RootError ERR_NON_FINITE naming the parameters, ERR_BUSY, ERR_DISPOSED, ERR_INVALID_ARGUMENT or
   * ERR_SHAPE_MISMATCH for arrays that were detached or share memory, ERR_OUT_OF_MEMORY, ERR_CUDA
   */
  async step(): Promise<StepReport> {
    return this.#exclusively('step', async () => {
      // A schedule may go on while coefficients are fitted.
      const groups = this.paramGroups.map((group) => ({ ...group }));
      const fits = fitCoefficients(groups);
      if (fits !== undefined) await fits;
      const { data, gradients } = this.#stepArrays();
      const running = guard(() => this.#native.step(data, gradients, this.#stepSettings(groups)));
      try {
        return this.#report(gradients, await running);
      } catch (error) {
        // An array was detached while the step ran. The state is a step further, wherever the data went.
        if (nativeCodeOf(error) === 'ERR_DETACHED') this.#step++;
        throw asRootError(error);
      }
    });
  }

  /** Like `step`, on the calling thread. */
  stepSync(): StepReport {
    this.#checkIdle();
    const { data, gradients } = this.#stepArrays();
    const rejected = guard(() => this.#native.stepSync(data, gradients, this.#stepSettings(this.paramGroups)));
    return this.#report(gradients, rejected);
  }

  /**
   * Bytes that the optimizer holds on its device: state, the scratch memory that steps so far have needed, and on CUDA
   * data and gradients.
   */
  get memoryBytes(): number {
    this.#checkIdle();
    return guard(() => this.#native.memoryBytes);
  }

  /**
   * Returns where the device keeps a parameter, for programs that compute gradients there. With `hostSync: 'manual'` a
   * step reads `grad` and updates `data` at these addresses. They hold until `dispose`.
   * @throws RootError ERR_DEVICE_UNAVAILABLE on the CPU, ERR_INVALID_ARGUMENT for a parameter that is not this
   * optimizer's, ERR_DISPOSED
   */
  deviceMemory(parameter: Parameter): DeviceMemory {
    this.#checkLive();
    const index = this.#store.indexOf(parameter);
    if (this.device.name === 'cpu') {
      throw new RootError(
        'ERR_DEVICE_UNAVAILABLE',
        `Expected an optimizer on a CUDA device, got one on the CPU (${this.device.reason})`,
      );
    }
    return guard(() => this.#native.deviceMemory(index));
  }

  /**
   * Copies every parameter's `data` from the device to the host. On the CPU and with `hostSync: 'step'` it is there
   * already.
   * @throws RootError ERR_BUSY, ERR_DISPOSED, ERR_CUDA, and the errors of `step` for arrays
   */
  async readParameters(): Promise<void> {
    await this.#exclusively('transfer', () => this.#transfer('readParameters'));
  }

  /**
   * Copies every parameter's `data` from the host to the device, which brings over what the host has written to it. The
   * device's gradients stay as they are.
   */
  async writeParameters(): Promise<void> {
    await this.#exclusively('transfer', () => this.#transfer('writeParameters'));
  }

  /** Fills every gradient with zeros, on the device too. */
  zeroGrad(): void {
    this.#checkIdle();
    for (const gradient of this.#checkArrays().gradients) gradient.fill(0);
    if (this.#manual) guard(() => this.#native.zeroGradients());
  }

  /**
   * Copies of a parameter's state.
   * @throws RootError ERR_INVALID_ARGUMENT for a parameter that is not this optimizer's, ERR_BUSY, ERR_DISPOSED
   */
  stateOf(parameter: Parameter): ParameterState {
    this.#checkIdle();
    return this.#store.copy(parameter, this.#step);
  }

  /**
   * Replaces the state of every parameter by copies of what `stateOf` has returned, here or in another optimizer of
   * such parameters, and the number of steps by theirs. Data stay as they are.
   * @throws RootError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH, before anything changes; ERR_BUSY, ERR_DISPOSED
   */
  restore(states: ReadonlyMap<Parameter, ParameterState>): void {
    this.#checkIdle();
    const checked = this.paramGroups.flatMap(({ params, algorithm }) =>
      params.map((one) => [one, checkState(one, algorithm, states.get(one))] as const),
    );
    const { step } = checked[0]![1];
    const other = checked.find(([, one]) => one.step !== step);
    if (other !== undefined) throw expected('the states', `all of step ${step}`, other[1].step);
    for (const [parameter, state] of checked) this.#store.replace(parameter, state);
    this.#step = step;
  }

  /**
   * Writes data, state, the number of steps and the settings to a safetensors file, atomically: a failure leaves an
   * older file whole. Until the promise settles a step throws ERR_BUSY.
   * @param options.notes strings that `load` returns, such as the place in the data
   * @param options.tensors arrays that `load` returns, such as averages of the weights, by names that no other tensor
   * of the file has. They belong to the save until it settles, as `data` does.
   * @param options.keep how many files to keep. The checkpoint that is there gets the name `<path>.step-<its step>`
   * besides, and those of earlier steps are removed until there are as many files in all. Absent: the new file takes
   * the place of the former one.
   * @param options.signal an AbortSignal that ends the save, which then rejects with the signal's reason
   * @throws RootError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH, ERR_CHECKPOINT, ERR_BUSY, ERR_DISPOSED,
   * ERR_OUT_OF_MEMORY
   */
  async save(path: string, options: SaveOptions = {}): Promise<void> {
    checkPath(path);
    checkKeys(checkObject(options, 'the options of save'), ['notes', 'tensors', 'keep', 'signal'], 'of save');
    const { notes = {}, tensors = {}, keep, signal } = options;
    const besides = {
      notes: checkNotes(notes),
      tensors: checkTensors(tensors),
      keep: keep === undefined ? 0 : integer(1, 1e9)(keep, 'keep'),
      signal: checkSignal(signal),
    };
    await this.#exclusively('save', async () => {
      this.#checkArrays();
      besides.signal?.throwIfAborted();
      await this.#store.holding(() => writeCheckpoint(path, this.#step, this.paramGroups, this.#store, besides));
    });
  }

  /**
   * Reads what `save` wrote into `data` and the state. Names, shapes, algorithms and every setting except `lr` have to
   * equal the file's; `options: 'ignore'` lets the settings differ. The optimizer's own settings stay as they are in
   * either case.
   *
   * All of the file is checked before anything changes. If it cannot be read any more after that, or a device fails,
   * the promise rejects, and steps throw ERR_CHECKPOINT until a load succeeds.
   * @param options.tensors whether to read the tensors that were saved besides, of whatever size; default false
   * @param options.accept is called with what `load` returns before anything changes; what it throws refuses the file
   * @returns the number of steps that had been applied when the file was saved, the notes that were saved with it, and
   * the tensors if they are asked for
   * @throws RootError ERR_CHECKPOINT listing the differences, ERR_BUSY, ERR_DISPOSED, ERR_OUT_OF_MEMORY
   */
  async load(path: string, options: LoadOptions = {}): Promise<Loaded> {
    checkPath(path);
    checkKeys(checkObject(options, 'the options of load'), ['options', 'tensors', 'accept'], 'of load');
    const { accept } = options;
    if (accept !== undefined && typeof accept !== 'function') throw expected('accept', 'a function', accept);
    const checked = {
      settings: oneOf('check', 'ignore')(options.options ?? 'check', 'options') === 'check',
      tensors: boolean(options.tensors ?? false, 'tensors'),
    };
    return this.#replace('load', async (begin) => {
      const loaded = await readCheckpoint(path, this.paramGroups, this.#store, {
        ...checked,
        begin: (found) => {
          accept?.(found);
          begin();
        },
      });
      this.#step = loaded.step;
      return loaded;
    });
  }

  /**
   * Reads weights that another program wrote into `data`: tensors of float64, float32, float16 or bfloat16 in a
   * safetensors file. The state stays as it is. The file is checked as by `load`, which also says what happens if it
   * cannot be read any more later. After a load that failed, only another load helps. With
   * `hostSync: 'manual'` the host's arrays get what the device has, before the file's values.
   * @param options.map returns the tensor that a parameter takes, by default the one of the parameter's name; `null`
   * leaves the parameter as it is, `{ tensor, transpose: true }` takes the transpose
   * @returns the names of the file's tensors that no parameter took
   * @throws RootError ERR_CHECKPOINT listing the parameters that have no tensor of their shape, ERR_INVALID_ARGUMENT,
   * ERR_BUSY, ERR_DISPOSED, ERR_OUT_OF_MEMORY
   */
  async loadWeights(path: string, options: { map?: WeightMap | undefined } = {}): Promise<{ unused: string[] }> {
    checkPath(path);
    checkKeys(checkObject(options, 'the options of loadWeights'), ['map'], 'of loadWeights');
    const { map = (name: string) => name } = options;
    if (typeof map !== 'function') throw expected('map', 'a function', map);
    return this.#replace('loadWeights', async (begin) => {
      return { unused: await readWeights(path, this.#parameters, map, begin, (one) => this.#store.dataOf(one)) };
    });
  }

  /**
   * Frees state and scratch memory, after a running step has ended. Idempotent; every other method throws ERR_DISPOSED
   * afterwards.
   */
  dispose(): void {
    this.#disposed = true;
    guard(() => this.#native.dispose());
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #report(gradients: readonly Float32Array[], rejected: readonly number[]): StepReport {
    if (rejected.length === 0) {
      this.#step++;
      return { step: this.#step, applied: true, nonFinite: [] };
    }
    const names = rejected.map((index) => this.#parameters[index]!.name);
    if (this.#nonFinite === 'skip') return { step: this.#step, applied: false, nonFinite: names };
    const found = (this.#manual ? [] : rejected)
      .map((index) => firstNonFinite(gradients[index]!))
      .find((one) => one !== undefined);
    const got = found ?? `values ${this.#manual ? 'not finite or ' : ''}too large for the optimizer's state`;
    throw new RootError(
      'ERR_NON_FINITE',
      `Expected finite gradients, got ${got} in ${enumerate(names)}; nothing was changed`,
    );
  }

  /**
   * Replaces data or state by what a file holds.
   * @param read calls its argument when it has found nothing wrong, just before it changes the first value
   */
  async #replace<T>(what: 'load' | 'loadWeights', read: (begin: () => void) => Promise<T>): Promise<T> {
    return this.#exclusively(what, async () => {
      // Weights may leave parameters out, which keep what the device has of them.
      if (what === 'loadWeights') await this.#transfer('readParameters');
      const begin = () => {
        this.#checkLive();
        this.#checkArrays();
        this.#isMixed = true;
      };
      const result = await this.#store.holding(() => read(begin));
      await this.#transfer('writeParameters');
      this.#isMixed = false;
      return result;
    });
  }

  async #transfer(direction: 'readParameters' | 'writeParameters'): Promise<void> {
    const { data } = this.#checkArrays();
    if (this.#manual) await guardAsync(() => this.#native[direction](data));
  }

  /** The host arrays that a step takes. There are none where it works on the device's copies. */
  #stepArrays(): Arrays {
    return this.#manual ? { data: [], gradients: [] } : this.#checkArrays();
  }

  #checkArrays(): Arrays {
    return (this.#arrays = checkArrays(this.#parameters, this.#arrays));
  }

  #stepSettings(groups: readonly ParamGroup[]): native.ParameterSettings[] {
    return this.#settings.flatMap((settings, i) => settings.forStep(groups[i]!, this.#step + 1));
  }

  async #exclusively<T>(what: Task, run: () => Promise<T>): Promise<T> {
    this.#checkIdle(what);
    this.#running = what;
    for (const parameter of this.#parameters) inUse.add(parameter);
    try {
      return await run();
    } finally {
      this.#running = undefined;
      for (const parameter of this.#parameters) inUse.delete(parameter);
    }
  }

  #checkIdle(what?: Task): void {
    this.#checkLive();
    if (this.#running !== undefined) {
      throw new RootError('ERR_BUSY', `Expected the ${this.#running} that is running to be awaited first`);
    }
    const shared = this.#parameters.find((parameter) => inUse.has(parameter));
    if (shared !== undefined) {
      throw new RootError('ERR_BUSY', `Expected another optimizer to have ended what it does with "${shared.name}"`);
    }
    if (this.#isMixed && what !== 'load') {
      throw checkpointError('Expected a load to succeed first, since the last one failed after it had changed a part');
    }
  }

  #checkLive(): void {
    if (this.#disposed) throw new RootError('ERR_DISPOSED', 'Expected an optimizer in use, got one that was disposed');
  }
}

/**
 * Returns an optimizer whose steps read gradients from the host, for those who write them there.
 * @throws RootError ERR_INVALID_ARGUMENT for `hostSync: 'manual'` on CUDA, whose steps would not see them
 */
export function onHost<T extends Optimizer>(optimizer: T): T {
  if (optimizer.hostSync === 'step') return optimizer;
  throw expected("the optimizer's hostSync", "'step', since gradients are written on the host", optimizer.hostSync);
}

function checkSignal(signal: unknown): Signal | undefined {
  const isSignal = isRecord(signal) && typeof signal['throwIfAborted'] === 'function';
  if (signal === undefined || isSignal) return signal as Signal | undefined;
  throw expected('signal', 'an AbortSignal', signal);
}

function checkNotes(notes: unknown): Notes {
  for (const [key, note] of Object.entries(checkObject(notes, 'notes'))) {
    if (typeof note !== 'string') throw expected(`notes.${key}`, 'a string', note);
  }
  return notes as Notes;
}

function checkTensors(tensors: unknown): NamedTensors {
  const checked = Object.entries(checkObject(tensors, 'tensors')).map(([name, tensor]) => {
    const { shape, data } = checkObject(tensor, `tensor ${quote(name)}`);
    const extents = checkShape(shape, `the shape of tensor ${quote(name)}`);
    return [
      name,
      { shape: extents, data: checkArray(data, product(extents), `data of tensor ${quote(name)}`) },
    ] as const;
  });
  return Object.fromEntries(checked);
}

function checkPath(path: unknown): void {
  if (typeof path !== 'string' || path === '') throw expected('path', 'the name of a file', path);
}
