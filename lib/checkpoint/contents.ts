import type * as native from '../../binding.js';
import { checkArray } from '../arrays.js';
import { cut, describe, expected, messageOf, quote, RootError } from '../errors.js';
import type { Parameter } from '../parameter.js';
import { isRecord, product } from '../validate.js';
import { checkpointError, SafetensorsFile, type TensorSource, writeSafetensors } from './safetensors.js';

type State = native.OrthogonalState | native.AdamWState;

/** The part of an optimizer's group that a checkpoint reads. The values of all other keys are settings. */
export interface Group {
  readonly params: readonly Parameter[];
  readonly algorithm: 'root' | 'muon' | 'adamw';
}

/** What a user keeps in a file besides, such as the place in the data. */
export type Notes = Readonly<Record<string, string>>;

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

/** The data and the state that a file held for a parameter, checked and in memory. */
export interface Entry {
  readonly parameter: Parameter;
  readonly data: Float32Array;
  readonly state: State;
}

/** What a file's metadata say of a parameter. A parameter of AdamW's has no matrices and no thresholds. */
export interface Description {
  readonly name: string;
  readonly shape: readonly number[];
  readonly algorithm: string;
  /** [rows, columns] of each matrix */
  readonly matrices: readonly (readonly number[])[];
  readonly settings: Readonly<Record<string, unknown>>;
  readonly thresholds: readonly (number | null)[];
  // Files that were written before gradients had thresholds lack all of these.
  /** `out-in` for a parameter of AdamW's, too. */
  readonly layout?: 'out-in' | 'in-out';
  readonly gradientThresholds?: readonly (number | null)[];
  readonly gradientScales?: readonly (number | null)[];
  /** Whether the last step normalized rows, so that the file holds their second moment. */
  readonly normalized?: boolean;
}

/** The part of a description that the optimizer's groups alone decide. */
type Fixed = Required<Pick<Description, 'name' | 'shape' | 'algorithm' | 'matrices' | 'layout'>>;

/** In version 1 each parameter had the algorithm and the settings of its group. */
type Described = Omit<Description, 'algorithm' | 'settings'> & { readonly group: number };
type DescribedGroup = Pick<Description, 'algorithm' | 'settings'>;

const format = 'root-optimizer';
const versions = ['1', '2'];
/** Bytes that a header may take besides what the optimizer's parameters and settings need, for notes above all. */
const headerAllowance = 4 << 20;
/** The largest number of steps in a file. No training takes as many, and float64 still counts by one far above it. */
const mostSteps = 1e15;

/**
 * Writes every parameter's data and state: `<name>.data`, `<name>.momentumBuffer` or `<name>.expAvg` and
 * `<name>.expAvgSq`.
 * @param dataOf returns a parameter's data: its own array, or a copy of the device's
 * @throws RootError ERR_INVALID_ARGUMENT where a tensor of the user's has the name of another; ERR_CHECKPOINT
 */
export async function writeCheckpoint(
  file: string,
  step: number,
  groups: readonly Group[],
  dataOf: (parameter: Parameter) => Float32Array,
  stateOf: (parameter: Parameter) => State,
  { notes, tensors: besides }: { notes: Notes; tensors: NamedTensors },
): Promise<void> {
  // Nothing changes a state while it is saved, and each look copies it.
  let last: { parameter: Parameter; state: State } | undefined;
  const lookAt = (parameter: Parameter): State => {
    if (last?.parameter !== parameter) last = { parameter, state: stateOf(parameter) };
    return last.state;
  };
  const members = groups.flatMap((group) => group.params.map((parameter) => ({ parameter, group })));
  const parameters = members.map(({ parameter, group }): Described => {
    const state = stateOf(parameter);
    const { name, shape, matrices, layout } = describeParameter(parameter, group);
    return {
      ...{ name, shape, group: groups.indexOf(group), matrices, layout },
      thresholds: 'thresholds' in state ? nullsForNaN(state.thresholds) : [],
      gradientThresholds: nullsForNaN(state.gradientThresholds),
      gradientScales: nullsForNaN(state.gradientScales),
      normalized: hasRows(state),
    };
  });
  const tensors = members.flatMap(({ parameter, group }, i): TensorSource[] => {
    const { name, shape } = parameter;
    const ofState = stateKeys(group, parameters[i]!.normalized ?? false).map((key) => ({
      name: `${name}.${key}`,
      shape: key === rowKey ? [rowCount(parameter)] : shape,
      values: () => arrayOf(lookAt(parameter), key),
    }));
    return [
      {
        name: `${name}.data`,
        shape,
        values: () => checkArray(dataOf(parameter), parameter.size, `data of parameter "${name}"`),
      },
      ...ofState,
    ];
  });
  const taken = new Set(['__metadata__', ...tensors.map(({ name }) => name)]);
  for (const [name, { shape, data }] of Object.entries(besides)) {
    if (taken.has(name)) throw expected('the names of tensors', "other than the checkpoint's own", name);
    tensors.push({ name, shape, values: () => checkArray(data, product(shape), `data of tensor ${quote(name)}`) });
  }
  const metadata = {
    ...{ format, version: versions.at(-1)!, step: String(step) },
    groups: JSON.stringify(groups.map((group) => ({ algorithm: group.algorithm, settings: settingsOf(group) }))),
    parameters: JSON.stringify(parameters),
    notes: JSON.stringify(notes),
  };
  await writeSafetensors(file, metadata, tensors, headerLimit(groups));
}

/**
 * Reads everything that a file holds for the parameters of these groups.
 * @param read whether to compare settings, and whether to read tensors that are not of the parameters
 * @throws RootError ERR_CHECKPOINT where the file is not a checkpoint of this package, or where names, shapes,
 * algorithms or, if they are compared, settings differ
 */
export async function readCheckpoint(
  path: string,
  groups: readonly Group[],
  read: { settings: boolean; tensors: boolean },
): Promise<Loaded & { entries: readonly Entry[] }> {
  const file = await SafetensorsFile.open(path, headerLimit(groups));
  try {
    const { step, notes, descriptions } = readMetadata(file, path);
    const differences = compare(descriptions, groups, read.settings);
    if (differences.length > 0) {
      const rest = differences.length > 10 ? [`and ${differences.length - 10} more differences`] : [];
      throw checkpointError([`${path} is not of this optimizer:`, ...differences.slice(0, 10), ...rest].join('\n- '));
    }
    const entries: Entry[] = [];
    const own = new Set<string>();
    for (const group of groups) {
      for (const parameter of group.params) {
        const description = descriptions.get(parameter.name)!;
        entries.push(await readEntry(file, path, parameter, group, description));
        for (const key of ['data', ...stateKeys(group, description.normalized ?? false)]) {
          own.add(`${parameter.name}.${key}`);
        }
      }
    }
    const tensors: [string, NamedTensor][] = [];
    for (const [name, { shape }] of file.tensors) {
      if (read.tensors && !own.has(name)) tensors.push([name, { shape, data: await file.read(name) }]);
    }
    return { step, notes, tensors: Object.fromEntries(tensors), entries };
  } catch (error) {
    // Such as a stack that metadata have exhausted, which are lists within lists.
    throw error instanceof RootError ? error : checkpointError(`Cannot read ${path}: ${messageOf(error)}`, error);
  } finally {
    await file.close();
  }
}

/**
 * The most bytes that the header of a checkpoint of these groups may take. A file of version 1 repeats the settings of
 * a group for every parameter.
 */
function headerLimit(groups: readonly Group[]): number {
  let bytes = 0;
  for (const group of groups) {
    const settings = JSON.stringify(settingsOf(group)).length;
    for (const parameter of group.params) {
      const { name, shape, matrices } = parameter;
      bytes += settings + 4 * JSON.stringify([name, shape]).length + 100 * (matrices.length + 6);
    }
  }
  return headerAllowance + 3 * bytes;
}

function describeParameter({ name, shape, matrices, layout }: Parameter, { algorithm }: Group): Fixed {
  if (algorithm === 'adamw') return { name, shape, algorithm, matrices: [], layout: 'out-in' };
  return { name, shape, algorithm, matrices: matrices.map(({ rows, columns }) => [rows, columns]), layout };
}

/** A group's settings by name. */
function settingsOf(group: Group): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(group).filter(([key]) => key !== 'params' && key !== 'algorithm'));
}

/** @throws RootError ERR_CHECKPOINT where the file is not a checkpoint of this package */
export function readMetadata(
  { metadata }: SafetensorsFile,
  path: string,
): { step: number; notes: Notes; descriptions: Map<string, Description> } {
  if (metadata['format'] !== format) throw checkpointError(`${path} is not a checkpoint of ${format}`);
  if (!versions.includes(metadata['version'] ?? '')) {
    throw checkpointError(
      `Expected ${path} to be a checkpoint of version ${versions.join(' or ')}, ` +
        `got version ${describe(metadata['version'])}`,
    );
  }
  const step = /^\d+$/.test(metadata['step'] ?? '') ? Number(metadata['step']) : NaN;
  let parameters: unknown;
  let notes: unknown;
  try {
    parameters = JSON.parse(metadata['parameters'] ?? '');
    if (metadata['version'] !== '1') parameters = withGroups(parameters, JSON.parse(metadata['groups'] ?? ''));
    notes = JSON.parse(metadata['notes'] ?? '{}');
  } catch (cause) {
    throw checkpointError(`The parameters in the metadata of ${path} are not JSON`, cause);
  }
  if (!(step <= mostSteps) || !isNotes(notes) || !Array.isArray(parameters) || !parameters.every(isDescription)) {
    throw checkpointError(`The metadata of ${path} are not those of a checkpoint`);
  }
  const descriptions = new Map(parameters.map((one) => [one.name, one]));
  if (descriptions.size !== parameters.length) {
    throw checkpointError(`The metadata of ${path} describe a parameter twice`);
  }
  return { step, notes, descriptions };
}

/** Gives parameters what is said of their groups. What is not as it should be, `isDescription` refuses. */
function withGroups(parameters: unknown, groups: unknown): unknown {
  if (!Array.isArray(parameters) || !Array.isArray(groups)) return undefined;
  return parameters.map((one: unknown) => {
    if (!isRecord(one)) return undefined;
    const { group, ...rest } = one;
    const { algorithm, settings } = (groups[group as number] ?? {}) as Partial<DescribedGroup>;
    return { ...rest, algorithm, settings };
  });
}

function isNotes(value: unknown): value is Notes {
  return isRecord(value) && Object.values(value).every((one) => typeof one === 'string');
}

function isDescription(value: unknown): value is Description {
  return (
    isRecord(value) &&
    typeof value['name'] === 'string' &&
    isRecord(value['settings']) &&
    Array.isArray(value['matrices']) &&
    value['matrices'].every(
      (one) =>
        Array.isArray(one) &&
        one.length === 2 &&
        one.every((extent) => Number.isInteger(extent) && (extent as number) > 0),
    ) &&
    areThresholds(value['thresholds'], value['matrices'].length) &&
    [undefined, 'out-in', 'in-out'].includes(value['layout'] as string | undefined) &&
    [undefined, true, false].includes(value['normalized'] as boolean | undefined) &&
    areGradientThresholds(value['gradientThresholds'], value['gradientScales'], value['matrices'].length)
  );
}

/** Both are there or neither is, and a step that found the one has found the other. */
function areGradientThresholds(thresholds: unknown, scales: unknown, matrices: number): boolean {
  if (thresholds === undefined) return scales === undefined;
  const count = Math.max(1, matrices);
  if (!areThresholds(thresholds, count) || !areThresholds(scales, count)) return false;
  return thresholds.every((one, i) => (one === null) === (scales[i] === null));
}

function areThresholds(value: unknown, count: number): value is (number | null)[] {
  return (
    Array.isArray(value) &&
    value.length === count &&
    value.every((one) => one === null || (Number.isFinite(one) && (one as number) >= 0))
  );
}

function compare(
  descriptions: ReadonlyMap<string, Description>,
  groups: readonly Group[],
  settingsToo: boolean,
): string[] {
  const differences: string[] = [];
  const here = new Set<string>();
  for (const group of groups) {
    // Parameters of a group share one object of settings, which may be large.
    const compared = new Map<object, string[]>();
    const settings = settingsOf(group);
    for (const parameter of group.params) {
      here.add(parameter.name);
      const mine = describeParameter(parameter, group);
      const theirs = descriptions.get(mine.name);
      if (theirs === undefined) {
        differences.push(`${quote(mine.name)} is not in the file`);
        continue;
      }
      let found = compareFixed(theirs, mine);
      if (found.length === 0 && settingsToo) {
        found = compared.get(theirs.settings) ?? compareSettings(theirs.settings, settings);
        compared.set(theirs.settings, found);
      }
      differences.push(...found.map((text) => `${quote(mine.name)}: ${text}`));
    }
  }
  for (const name of descriptions.keys()) if (!here.has(name)) differences.push(`${quote(name)} is in the file only`);
  return differences;
}

function compareFixed(theirs: Description, mine: Fixed): string[] {
  return [
    ...(['shape', 'algorithm', 'matrices'] as const).flatMap((key) => differs(key, theirs[key], mine[key])),
    ...differs('layout', theirs.layout ?? 'out-in', mine.layout),
  ];
}

function compareSettings(theirs: Description['settings'], mine: Description['settings']): string[] {
  // A schedule owns lr, and has moved it since the optimizer was made. An older file does not name a setting that came
  // later.
  const keys = Object.keys(mine).filter((key) => key !== 'lr' && Object.hasOwn(theirs, key));
  return keys.flatMap((key) => differs(key, theirs[key], mine[key]));
}

function differs(key: string, a: unknown, b: unknown): string[] {
  const [there, here] = [a, b].map((one) => JSON.stringify(one));
  return there === here ? [] : [`${key} ${cut(there!)} in the file, ${cut(here!)} here`];
}

async function readEntry(
  file: SafetensorsFile,
  path: string,
  parameter: Parameter,
  group: Group,
  { thresholds, gradientThresholds, gradientScales, normalized = false }: Description,
): Promise<Entry> {
  const read = async (key: string) => {
    const name = `${parameter.name}.${key}`;
    const shape = file.tensors.get(name)?.shape;
    const wanted = key === rowKey ? [rowCount(parameter)] : parameter.shape;
    if (JSON.stringify(shape) !== JSON.stringify(wanted)) {
      throw checkpointError(
        `Expected tensor "${name}" of ${path} to be of shape ${describe(wanted)}, got ${describe(shape)}`,
      );
    }
    return file.read(name);
  };
  const arrays: Record<string, Float32Array> = {};
  for (const key of ['data', ...stateKeys(group, normalized)]) {
    const array = (arrays[key] = await read(key));
    // With a state that is not finite, the optimizer would refuse every later step. Data that are not finite are no
    // model.
    const [least, requirement] =
      key === 'expAvgSq' || key === rowKey ? [0, 'finite and at least 0'] : [-Infinity, 'finite'];
    if (!array.every((value) => Number.isFinite(value) && value >= least)) {
      throw checkpointError(`Expected tensor "${parameter.name}.${key}" of ${path} to be ${requirement}`);
    }
  }
  const none = new Array<null>(Math.max(1, parameter.matrices.length)).fill(null);
  const regions = group.algorithm === 'adamw' ? [null] : none;
  const further = {
    gradientThresholds: nansForNull(gradientThresholds ?? regions),
    gradientScales: nansForNull(gradientScales ?? regions),
    ...(group.algorithm === 'adamw' ? {} : { rowSecondMoment: null, thresholds: nansForNull(thresholds) }),
  };
  const { data, ...state } = arrays;
  return { parameter, data: data!, state: { ...further, ...state } as unknown as State };
}

const rowKey = 'rowSecondMoment';

/** The rows of a parameter's matrices, outputs that is, one after the other. */
function rowCount({ matrices, layout }: Parameter): number {
  return matrices.reduce((sum, { rows, columns }) => sum + (layout === 'in-out' ? columns : rows), 0);
}

function hasRows(state: State): boolean {
  return 'rowSecondMoment' in state && state.rowSecondMoment !== null;
}

function stateKeys(group: Group, normalized: boolean): readonly string[] {
  if (group.algorithm === 'adamw') return ['expAvg', 'expAvgSq'];
  return normalized ? ['momentumBuffer', rowKey] : ['momentumBuffer'];
}

function arrayOf(state: State, key: string): Float32Array {
  return (state as unknown as Readonly<Record<string, Float32Array>>)[key]!;
}

function nullsForNaN(values: Float64Array): (number | null)[] {
  return Array.from(values, (one) => (Number.isNaN(one) ? null : one));
}

function nansForNull(values: readonly (number | null)[]): Float64Array {
  return Float64Array.from(values, (one) => one ?? NaN);
}
