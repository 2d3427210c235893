import type * as native from '../../binding.js';
import { allocate, checkArray } from '../arrays.js';
import { addon, guard } from '../binding.js';
import { cut, describe, expected, messageOf, quote, RootError } from '../errors.js';
import type { Parameter } from '../parameter.js';
import { product } from '../validate.js';
import { checkpointError } from './format.js';
import {
  compare,
  type Description,
  encodeMetadata,
  type Group,
  headerLimit,
  type Notes,
  readMetadata,
} from './metadata.js';
import { type Piece, SafetensorsFile } from './reader.js';
import { keepFormer, removeStale } from './rotation.js';
import { type Signal, type TensorSource, writeSafetensors } from './writer.js';

/** A tensor that a user keeps in a file besides. */
export interface NamedTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}
export type NamedTensors = Readonly<Record<string, NamedTensor>>;

/** What `load` returns. */
export interface Loaded {
  /** The number of steps that had been applied when the file was saved. */
  readonly step: number;
  readonly notes: Notes;
  /** None unless they were asked for. */
  readonly tensors: NamedTensors;
}

/** An optimizer's arrays, which pass through memory in pieces, and what its last step found. */
export interface Store {
  found: (parameter: Parameter) => native.Found;
  setFound: (parameter: Parameter, found: native.Found) => void;
  /** Both copy the elements [offset, offset + values.length) of a parameter's array. */
  read: (parameter: Parameter, array: native.StateArray, offset: number, values: Float32Array) => void;
  write: (parameter: Parameter, array: native.StateArray, offset: number, values: Float32Array) => void;
}

/**
 * Writes every parameter's data and state: `<name>.data`, `<name>.momentumBuffer` or `<name>.expAvg` and
 * `<name>.expAvgSq`.
 * @param options.keep how many files to keep, this one included; see `Optimizer.save`
 * @throws RootError ERR_INVALID_ARGUMENT where a tensor of the user's has the name of another; ERR_CHECKPOINT
 */
export async function writeCheckpoint(
  file: string,
  step: number,
  groups: readonly Group[],
  store: Store,
  options: { notes: Notes; tensors: NamedTensors; keep: number; signal?: Signal | undefined },
): Promise<void> {
  const found = new Map(groups.flatMap(({ params }) => params.map((one) => [one, store.found(one)])));
  const metadata = encodeMetadata(step, groups, (one) => found.get(one)!, options.notes);
  const tensors = groups.flatMap((group) =>
    group.params.flatMap((parameter) => {
      const normalized = (found.get(parameter) as native.OrthogonalFound).normalizes;
      return arraysOf(parameter, group, normalized).map(({ array, name, shape }): TensorSource => {
        return { name, shape, read: (offset, values) => store.read(parameter, array, offset, values) };
      });
    }),
  );
  const taken = new Set(['__metadata__', ...tensors.map(({ name }) => name)]);
  for (const [name, { shape, data }] of Object.entries(options.tensors)) {
    if (taken.has(name)) throw expected('the names of tensors', "other than the checkpoint's own", name);
    const size = product(shape);
    const read = (offset: number, values: Float32Array) => {
      const array = checkArray(data, size, `data of tensor ${quote(name)}`);
      values.set(array.subarray(offset, offset + values.length));
    };
    tensors.push({ name, shape, read });
  }
  const { keep, signal } = options;
  const limit = headerLimit(groups);
  const beforeReplacing = keep > 1 ? () => keepFormer(file, step) : undefined;
  await writeSafetensors(file, metadata, tensors, { limit, signal, beforeReplacing });
  if (keep > 0) await removeStale(file, step, keep - 1);
}

/**
 * Reads everything that a file holds for the parameters of these groups. The file is read twice: all of it is checked
 * before the first value is written.
 * @param read.begin is called after the checks. What it throws refuses the file. If anything fails later, the store
 * holds the file's values in part.
 * @throws RootError ERR_CHECKPOINT where the file is not a checkpoint of this package, or where names, shapes,
 * algorithms or, if they are compared, settings differ
 */
export async function readCheckpoint(
  path: string,
  groups: readonly Group[],
  store: Store,
  read: { settings: boolean; tensors: boolean; begin: (loaded: Loaded) => void },
): Promise<Loaded> {
  return withFile(path, headerLimit(groups), async (file) => {
    const { step, notes, descriptions } = checkMetadata(file, path, groups, read.settings);
    const members = groups.flatMap((group) => group.params.map((parameter) => ({ parameter, group })));
    const own = new Map<string, Place>();
    for (const { parameter, group } of members) {
      for (const one of arraysOf(parameter, group, descriptions.get(parameter.name)!.normalized)) {
        checkEntry(file, path, one);
        own.set(one.name, { parameter, ...one });
      }
    }
    for await (const piece of file.pieces(own.keys())) checkPiece(path, own.get(piece.name)!, piece);
    const loaded = { step, notes, tensors: read.tensors ? await readOthers(file, path, own) : {} };
    read.begin(loaded);
    for await (const piece of file.pieces(own.keys())) {
      const place = own.get(piece.name)!;
      checkPiece(path, place, piece); // the file may have changed
      store.write(place.parameter, place.array, piece.offset, piece.values);
    }
    await file.checkUnchanged();
    for (const { parameter, group } of members) {
      store.setFound(parameter, foundOf(parameter, group, descriptions.get(parameter.name)!));
    }
    return loaded;
  });
}

/** Opens a file for as long as `use` takes. */
export async function withFile<T>(
  path: string,
  limit: number | undefined,
  use: (file: SafetensorsFile) => Promise<T>,
): Promise<T> {
  const file = await SafetensorsFile.open(path, limit);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

function checkMetadata(
  file: SafetensorsFile,
  path: string,
  groups: readonly Group[],
  settings: boolean,
): ReturnType<typeof readMetadata> {
  try {
    const metadata = readMetadata(file, path);
    const differences = compare(metadata.descriptions, groups, settings);
    if (differences.length === 0) return metadata;
    const rest = differences.length > 10 ? [`and ${differences.length - 10} more differences`] : [];
    throw checkpointError([`${path} is not of this optimizer:`, ...differences.slice(0, 10), ...rest].join('\n- '));
  } catch (error) {
    // Such as a stack that metadata have exhausted, which are lists within lists.
    throw error instanceof RootError ? error : checkpointError(`Cannot read ${path}: ${messageOf(error)}`, error);
  }
}

/** A tensor of a checkpoint, and the array that it holds. */
interface StoredArray {
  readonly name: string;
  readonly array: native.StateArray;
  readonly shape: readonly number[];
}
type Place = StoredArray & { readonly parameter: Parameter };

function arraysOf(parameter: Parameter, { algorithm }: Group, normalized: boolean | undefined): StoredArray[] {
  const { name, shape, outputs } = parameter;
  const stored = (array: native.StateArray): StoredArray => ({ name: `${name}.${array}`, array, shape });
  if (algorithm === 'adamw') return [stored('data'), stored('expAvg'), stored('expAvgSq')];
  if (normalized !== true) return [stored('data'), stored('momentumBuffer')];
  return [stored('data'), stored('momentumBuffer'), { ...stored('rowSecondMoment'), shape: [outputs] }];
}

function checkEntry(file: SafetensorsFile, path: string, { name, shape }: StoredArray): void {
  const entry = file.tensors.get(name);
  if (entry?.type === 'F32' && JSON.stringify(entry.shape) === JSON.stringify(shape)) return;
  const got = entry === undefined ? 'none' : `${cut(entry.type)} of shape ${describe(entry.shape)}`;
  throw checkpointError(`Expected tensor ${quote(name)} of ${path} to be F32 of shape ${describe(shape)}, got ${got}`);
}

/**
 * Data that are not finite are no model. With a state that is not finite, or second moments below 0, the optimizer
 * would refuse every later step.
 */
function checkPiece(path: string, { name, array }: Place, { values }: Piece): void {
  const isSquare = array === 'expAvgSq' || array === 'rowSecondMoment';
  if (guard(() => addon().areFinite(values, isSquare))) return;
  throw checkpointError(`Expected tensor ${quote(name)} of ${path} to be finite${isSquare ? ' and at least 0' : ''}`);
}

async function readOthers(
  file: SafetensorsFile,
  path: string,
  own: ReadonlyMap<string, unknown>,
): Promise<NamedTensors> {
  const tensors = new Map<string, NamedTensor>();
  for (const [name, { shape }] of file.tensors) {
    if (own.has(name)) continue;
    file.entryOf(name); // before memory is taken: the shape of a type that is not read may be anything
    tensors.set(name, { shape, data: allocate(product(shape), `tensor ${quote(name)} of ${path}`) });
  }
  for await (const { name, offset, values } of file.pieces(tensors.keys())) tensors.get(name)!.data.set(values, offset);
  return Object.fromEntries(tensors);
}

function foundOf(parameter: Parameter, { algorithm }: Group, description: Description): native.Found {
  const { thresholds, normalized: normalizes = false } = description;
  const none = new Array<null>(algorithm === 'adamw' ? 1 : parameter.matrices.length).fill(null);
  const { gradientThresholds = none, gradientScales = none } = description;
  return { gradientThresholds, gradientScales, ...(algorithm === 'adamw' ? {} : { thresholds, normalizes }) };
}
