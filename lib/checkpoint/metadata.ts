import type * as native from '../../binding.js';
import { cut, describe, quote } from '../errors.js';
import type { Parameter } from '../parameter.js';
import { isRecord } from '../validate.js';
import { checkpointError, type Header } from './format.js';

/** The part of an optimizer's group that a checkpoint reads. The values of all other keys are settings. */
export interface Group {
  readonly params: readonly Parameter[];
  readonly algorithm: 'root' | 'muon' | 'adamw';
}

/** What a user keeps in a file besides, such as the place in the data. */
export type Notes = Readonly<Record<string, string>>;

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

/** The metadata of a checkpoint of these groups. */
export function encodeMetadata(
  step: number,
  groups: readonly Group[],
  foundOf: (parameter: Parameter) => native.Found,
  notes: Notes,
): Readonly<Record<string, string>> {
  const parameters = groups.flatMap((group, i) =>
    group.params.map((parameter): Described => {
      const { name, shape, matrices, layout } = describeParameter(parameter, group);
      const {
        normalizes = false,
        thresholds = [],
        ...ofGradients
      } = foundOf(parameter) as Partial<native.OrthogonalFound> & native.FoundThresholds;
      return { name, shape, group: i, matrices, layout, thresholds, ...ofGradients, normalized: normalizes };
    }),
  );
  return {
    ...{ format, version: versions.at(-1)!, step: String(step) },
    groups: JSON.stringify(groups.map((group) => ({ algorithm: group.algorithm, settings: settingsOf(group) }))),
    parameters: JSON.stringify(parameters),
    notes: JSON.stringify(notes),
  };
}

/**
 * The most bytes that the header of a checkpoint of these groups may take. A file of version 1 repeats the settings of
 * a group for every parameter.
 */
export function headerLimit(groups: readonly Group[]): number {
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

/** Whether a file is a checkpoint of this package, of whatever version. */
export function isCheckpoint({ metadata }: Pick<Header, 'metadata'>): boolean {
  return metadata['format'] === format;
}

/** @throws RootError ERR_CHECKPOINT where the file is not a checkpoint of this package */
export function readMetadata(
  { metadata }: Pick<Header, 'metadata'>,
  path: string,
): { step: number; notes: Notes; descriptions: Map<string, Description> } {
  if (!isCheckpoint({ metadata })) throw checkpointError(`${path} is not a checkpoint of ${format}`);
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
    typeof value['algorithm'] === 'string' &&
    Array.isArray(value['shape']) &&
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

/** A step finds the thresholds of all matrices of a parameter, or of none. */
function areThresholds(value: unknown, count: number): value is (number | null)[] {
  if (!Array.isArray(value) || value.length !== count) return false;
  return value.every((one) => one === null) || value.every((one) => Number.isFinite(one) && (one as number) >= 0);
}

/** What keeps a file from being of these groups, a line each. */
export function compare(
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
