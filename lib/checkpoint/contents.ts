import type * as native from '../../binding.js';
import { checkArray } from '../arrays.js';
import { describe, expected } from '../errors.js';
import type { Parameter } from '../parameter.js';
import { isRecord } from '../validate.js';
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

/** The data and the state that a file held for a parameter, checked and in memory. */
export interface Entry {
  readonly parameter: Parameter;
  readonly data: Float32Array;
  readonly state: State;
}

/** The description of a parameter in a file's metadata. A parameter of AdamW's has no matrices and no thresholds. */
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
type Fixed = Required<Pick<Description, 'name' | 'shape' | 'algorithm' | 'matrices' | 'layout' | 'settings'>>;

const format = 'root-optimizer';
const version = '1';
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
  const members = groups.flatMap((group) => group.params.map((parameter) => ({ parameter, group })));
  const parameters = members.map(({ parameter, group }) => {
    const state = stateOf(parameter);
    return {
      ...describeParameter(parameter, group),
      thresholds: 'thresholds' in state ? nullsForNaN(state.thresholds) : [],
      gradientThresholds: nullsForNaN(state.gradientThresholds),
      gradientScales: nullsForNaN(state.gradientScales),
      normalized: hasRows(state),
    };
  });
  const tensors = members.flatMap(({ parameter, group }): TensorSource[] => {
    const { name, shape } = parameter;
    const ofState = stateKeys(group, hasRows(stateOf(parameter))).map((key) => ({
      name: `${name}.${key}`,
      shape: key === rowKey ? [rowCount(parameter)] : shape,
      values: () => arrayOf(stateOf(parameter), key),
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
    tensors.push({ name, shape, values: () => data });
  }
  await writeSafetensors(
    file,
    { format, version, step: String(step), parameters: JSON.stringify(parameters), notes: JSON.stringify(notes) },
    tensors,
  );
}

/**
 * Reads everything that a file holds for the parameters of these groups.
 * @throws RootError ERR_CHECKPOINT where the file is not a checkpoint of this package, or where names, shapes,
 * algorithms or, if they are compared, settings differ
 */
export async function readCheckpoint(
  path: string,
  groups: readonly Group[],
  compareSettings: boolean,
): Promise<{ step: number; notes: Notes; tensors: NamedTensors; entries: readonly Entry[] }> {
  const file = await SafetensorsFile.open(path);
  try {
    const { step, notes, descriptions } = readMetadata(file, path);
    const differences = compare(descriptions, groups, compareSettings);
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
      if (!own.has(name)) tensors.push([name, { shape, data: await file.read(name) }]);
    }
    return { step, notes, tensors: Object.fromEntries(tensors), entries };
  } finally {
    await file.close();
  }
}

function describeParameter({ name, shape, matrices, layout }: Parameter, group: Group): Fixed {
  const { algorithm } = group;
  const settings = Object.fromEntries(Object.entries(group).filter(([key]) => key !== 'params' && key !== 'algorithm'));
  if (algorithm === 'adamw') return { name, shape, algorithm, matrices: [], layout: 'out-in', settings };
  const extents = matrices.map(({ rows, columns }) => [rows, columns]);
  return { name, shape, algorithm, matrices: extents, layout, settings };
}

/** @throws RootError ERR_CHECKPOINT where the file is not a checkpoint of this package */
export function readMetadata(
  { metadata }: SafetensorsFile,
  path: string,
): { step: number; notes: Notes; descriptions: Map<string, Description> } {
  if (metadata['format'] !== format) throw checkpointError(`${path} is not a checkpoint of ${format}`);
  if (metadata['version'] !== version) {
    throw checkpointError(
      `Expected ${path} to be a checkpoint of version ${version}, got version ${describe(metadata['version'])}`,
    );
  }
  const step = /^\d+$/.test(metadata['step'] ?? '') ? Number(metadata['step']) : NaN;
  let parameters: unknown;
  let notes: unknown;
  try {
    parameters = JSON.parse(metadata['parameters'] ?? '');
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
    for (const parameter of group.params) {
      here.add(parameter.name);
      const mine = describeParameter(parameter, group);
      const theirs = descriptions.get(mine.name);
      if (theirs === undefined) differences.push(`"${mine.name}" is not in the file`);
      else differences.push(...compareOne(theirs, mine, settingsToo).map((text) => `"${mine.name}": ${text}`));
    }
  }
  for (const name of descriptions.keys()) if (!here.has(name)) differences.push(`"${name}" is in the file only`);
  return differences;
}

function compareOne(theirs: Description, mine: Fixed, settingsToo: boolean): string[] {
  const differs = (key: string, a: unknown, b: unknown) => {
    const [there, here] = [JSON.stringify(a), JSON.stringify(b)];
    return there === here ? [] : [`${key} ${there} in the file, ${here} here`];
  };
  const fixed = [
    ...(['shape', 'algorithm', 'matrices'] as const).flatMap((key) => differs(key, theirs[key], mine[key])),
    ...differs('layout', theirs.layout ?? 'out-in', mine.layout),
  ];
  if (fixed.length > 0 || !settingsToo) return fixed;
  // A schedule owns lr, and has moved it since the optimizer was made. An older file does not name a setting that came
  // later.
  const keys = Object.keys(mine.settings).filter((key) => key !== 'lr' && Object.hasOwn(theirs.settings, key));
  return keys.flatMap((key) => differs(key, theirs.settings[key], mine.settings[key]));
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
  const data = await read('data');
  const arrays: Record<string, Float32Array> = {};
  for (const key of stateKeys(group, normalized)) {
    const array = (arrays[key] = await read(key));
    // With a state that is not finite, the optimizer would refuse every later step.
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
  return { parameter, data, state: { ...further, ...arrays } as unknown as State };
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
