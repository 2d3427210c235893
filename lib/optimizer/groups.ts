import { checkCalibratedSteps } from '../coefficients/calibration.js';
import { type Coefficients, defaultSteps } from '../coefficients/option.js';
import { enumerate, expected, RootError } from '../errors.js';
import { Parameter } from '../parameter.js';
import { checkKeys, checkObject, oneOf, unknownOption } from '../validate.js';
import {
  type AdamWSettings,
  type Algorithm,
  type Defaults,
  type Given,
  type MuonSettings,
  type RootSettings,
  type Route,
  rules,
} from './options.js';
import { routeList } from './routing.js';

interface GroupOf<A extends Algorithm> {
  readonly params: readonly Parameter[];
  readonly algorithm: A;
}

export type RootGroup = GroupOf<'root'> & RootSettings;
export type MuonGroup = GroupOf<'muon'> & MuonSettings;
export type AdamWGroup = GroupOf<'adamw'> & AdamWSettings;

/**
 * Parameters that are updated by the same settings. A group is live: a value that is written to it is checked at once
 * and applies from the next step on. Compound values (`threshold`, `betas`, `coefficients`) are replaced whole.
 */
export type ParamGroup = RootGroup | MuonGroup | AdamWGroup;

/**
 * A group as it is given to an optimizer. Absent settings come from the optimizer's options. Without `algorithm` the
 * group takes the optimizer's own, and its parameters with fewer than two dimensions go to AdamW.
 */
export type GroupOptions = { params: readonly Parameter[] } & (
  | ({ algorithm?: 'root' | undefined } & Given<RootSettings>)
  | ({ algorithm?: 'muon' | undefined } & Given<MuonSettings>)
  | ({ algorithm?: 'adamw' | undefined } & Given<AdamWSettings>)
);

const algorithmRule = oneOf('root', 'muon', 'adamw');

/**
 * Returns the groups of an optimizer of `algorithm`. The given groups come first, in their order. For each of them that
 * mixes in parameters with fewer than two dimensions, a group of AdamW follows. A flat list has a group for each
 * algorithm that `route` chooses.
 */
export function resolveGroups(
  algorithm: Algorithm,
  params: unknown,
  defaults: Defaults,
  route?: Route,
): readonly ParamGroup[] {
  if (!Array.isArray(params) || params.length === 0) {
    throw expected('the parameters', 'a non-empty list of Parameters or of groups', params);
  }
  const flat = params.filter((one) => Parameter.isOne(one)).length;
  if (flat !== 0 && flat !== params.length) throw expected('the parameters', 'all Parameters or all groups', 'both');
  if (flat === 0 && route !== undefined) throw expected('the parameters', 'a flat list with "route"', 'groups');
  const groups =
    flat === 0
      ? resolveGiven(algorithm, params, defaults)
      : routeList(algorithm, params as Parameter[], route).map((one) =>
          makeGroup(one.algorithm, one.params, {}, defaults, 'the list'),
        );
  checkNames(groups.flatMap((group) => group.params));
  return Object.freeze(groups);
}

function resolveGiven(algorithm: Algorithm, given: readonly unknown[], defaults: Defaults): ParamGroup[] {
  const resolved = given.map((group, i) => resolveGroup(algorithm, group, defaults, `group ${i}`));
  return [...resolved.map(([group]) => group), ...resolved.flatMap(([, vectors]) => vectors ?? [])];
}

function resolveGroup(own: Algorithm, options: unknown, defaults: Defaults, label: string): [ParamGroup, ParamGroup?] {
  const { params, algorithm: asked, ...settings } = checkObject(options, label);
  if (!Array.isArray(params) || params.length === 0) {
    throw expected(`params of ${label}`, 'a non-empty list of Parameters', params);
  }
  for (const one of params) {
    if (!Parameter.isOne(one)) throw expected(`params of ${label}`, 'a list of Parameters', one);
  }
  const vectors = (params as Parameter[]).filter((one) => one.shape.length < 2);
  const matrices = (params as Parameter[]).filter((one) => one.shape.length >= 2);
  if (asked !== undefined) {
    const algorithm = algorithmRule(asked, `algorithm of ${label}`);
    if (own === 'adamw' && algorithm !== 'adamw') {
      throw expected(`algorithm of ${label} in AdamW`, '"adamw"', algorithm);
    }
    if (algorithm !== 'adamw' && vectors[0] !== undefined) {
      const names = enumerate(vectors.map((one) => one.name));
      throw new RootError(
        'ERR_INVALID_ARGUMENT',
        `Expected parameters of at least 2 dimensions for ${algorithm} in ${label}, got ${names}`,
      );
    }
    return [makeGroup(algorithm, params as Parameter[], settings, defaults, label)];
  }
  if (own === 'adamw' || matrices.length === 0) {
    return [makeGroup('adamw', params as Parameter[], settings, defaults, label)];
  }
  const group = makeGroup(own, matrices, settings, defaults, label);
  if (vectors.length === 0) return [group];
  // Weight decay is meant for all of a group's parameters; what else it sets is for matrices.
  const { weightDecay, weightDecayKind } = group;
  const inherited = {
    ...(settings['weightDecay'] === undefined ? {} : { weightDecay }),
    ...(settings['weightDecayKind'] === undefined ? {} : { weightDecayKind }),
  };
  return [group, makeGroup('adamw', vectors, inherited, defaults, label)];
}

function makeGroup(
  algorithm: Algorithm,
  params: readonly Parameter[],
  given: Record<string, unknown>,
  defaults: Defaults,
  label: string,
): ParamGroup {
  const known = rules[algorithm];
  checkKeys(given, Object.keys(known), `of ${label} (${algorithm})`);
  const settings: Record<string, unknown> = {};
  for (const [key, rule] of Object.entries(known)) {
    const chosen = given[key] === undefined ? defaults[algorithm][key] : given[key];
    const value =
      key === 'steps' && chosen === undefined ? defaultSteps(settings['coefficients'] as Coefficients) : chosen;
    settings[key] = rule(value, `${key} of ${label}`);
  }
  if (algorithm !== 'adamw') checkCalibratedSteps(settings['coefficients'], settings['steps'] as number);
  return live(algorithm, params, settings);
}

/** Makes a group check a value by its rule when it is written, rather than at the next step. */
function live(algorithm: Algorithm, params: readonly Parameter[], settings: Record<string, unknown>): ParamGroup {
  const known = rules[algorithm];
  const target = Object.seal({ params: Object.freeze([...params]), algorithm, ...settings }) as Record<string, unknown>;
  return new Proxy(target, {
    set(_, key, value) {
      if (key === 'params' || key === 'algorithm') {
        throw new RootError('ERR_INVALID_ARGUMENT', `Expected ${key} of a group to stay as it is`);
      }
      const rule = Object.hasOwn(known, key) ? known[key as string] : undefined;
      if (rule === undefined) throw unknownOption(String(key), Object.keys(known), `of a group (${algorithm})`);
      target[key as string] = rule(value, key as string);
      return true;
    },
    defineProperty() {
      throw new RootError('ERR_INVALID_ARGUMENT', 'Expected a group to be written to by assignment');
    },
  }) as unknown as ParamGroup;
}

function checkNames(params: readonly Parameter[]): void {
  const seen = new Map<string, Parameter>();
  for (const one of params) {
    const other = seen.get(one.name);
    if (other !== undefined) {
      const what = other === one ? 'each parameter once' : 'parameters of different names';
      throw new RootError('ERR_INVALID_ARGUMENT', `Expected ${what}, got ${JSON.stringify(one.name)} twice`);
    }
    seen.set(one.name, one);
  }
}
