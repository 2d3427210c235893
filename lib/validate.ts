import { expected, quote, RootError } from './errors.js';

/** Checks a value and returns it as it will be kept. `name` is what the error message calls the value. */
export type Rule<T> = (value: unknown, name: string) => T;

export const boolean: Rule<boolean> = (value, name) => {
  if (typeof value !== 'boolean') throw expected(name, 'true or false', value);
  return value;
};

/**
 * A number in an interval written as in mathematics: `[0, 1)`, `(0, ∞)`. The number has to be finite as float32, in
 * which the device computes.
 */
export function interval(text: string): Rule<number> {
  const [, open, low, high, close] = /^([[(])(.+), (.+)([\])])$/.exec(text) as unknown as [
    string,
    string,
    string,
    string,
    string,
  ];
  const least = Number(low);
  const most = high === '∞' ? Infinity : Number(high);
  return (value, name) => {
    const inside =
      typeof value === 'number' &&
      (open === '[' ? value >= least : value > least) &&
      (close === ']' ? value <= most : value < most);
    if (!inside) throw expected(name, `in ${text}`, value);
    const rounded = Math.fround(value);
    if (!Number.isFinite(rounded) || (close === ')' && rounded === most)) {
      throw expected(name, `in ${text} as a float32`, value);
    }
    return value;
  };
}

export function integer(least: number, most: number): Rule<number> {
  return (value, name) => {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
      throw expected(name, `an integer in [${least}, ${most}]`, value);
    }
    return value;
  };
}

export function oneOf<const T extends string>(...values: readonly T[]): Rule<T> {
  return (value, name) => {
    const found = values.find((candidate) => candidate === value);
    if (found === undefined) throw expected(name, `one of ${values.map((one) => `"${one}"`).join(', ')}`, value);
    return found;
  };
}

export function checkObject(value: unknown, name: string): Record<string, unknown> {
  // This refuses a Map, for example, whose entries are no properties.
  if (Object.prototype.toString.call(value) !== '[object Object]') throw expected(name, 'an object', value);
  return value as Record<string, unknown>;
}

/** Whether a value is an object, but neither null nor an array. `checkObject` also refuses Maps and the like. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Checks a list of positive integers whose product can be the length of an array. Returns a frozen copy. */
export function checkShape(shape: unknown, name: string): readonly number[] {
  const valid = Array.isArray(shape) && shape.every((extent) => Number.isInteger(extent) && (extent as number) > 0);
  if (!valid) throw expected(name, 'a list of positive integers', shape);
  const extents = [...(shape as number[])];
  if (!Number.isSafeInteger(product(extents))) throw expected(name, 'a size that an array can have', shape);
  return Object.freeze(extents);
}

export function product(extents: readonly number[]): number {
  return extents.reduce((a, b) => a * b, 1);
}

/**
 * Refuses keys that do not exist, so that a misspelling cannot pass. `where` ends the message's sentence: "of group 1".
 */
export function checkKeys(object: object, known: readonly string[], where = ''): void {
  for (const key of Object.keys(object)) {
    if (!known.includes(key)) throw unknownOption(key, known, where);
  }
}

export function unknownOption(key: string, known: readonly string[], where = ''): RootError {
  const name = `Unknown option ${quote(key)}${where === '' ? '' : ` ${where}`}`;
  const near = nearest(key, known);
  return new RootError(
    'ERR_INVALID_ARGUMENT',
    near === undefined ? `${name}; there are ${known.join(', ')}` : `${name}; did you mean "${near}"?`,
  );
}

/** The names of these options in other libraries. */
const aliases: Readonly<Record<string, string>> = {
  learningrate: 'lr',
  wd: 'weightDecay',
  decay: 'weightDecay',
  beta1: 'betas',
  beta2: 'betas',
  epsilon: 'eps',
  parameters: 'params',
  gradient: 'grad',
  optimizer: 'algorithm',
  nssteps: 'steps',
  iterations: 'steps',
  clip: 'threshold',
  weights: 'data',
};

/** The name that was probably meant, if any is near. */
export function nearest(key: string, known: readonly string[]): string | undefined {
  if (key.length > 60) return undefined; // the comparison takes time by the length
  const plain = key.toLowerCase().replace(/[^a-z0-9]/g, '');
  const alias = Object.hasOwn(aliases, plain) ? aliases[plain] : undefined;
  if (alias !== undefined && known.includes(alias)) return alias;
  const ranked = known
    .map((name) => ({ name, edits: editDistance(plain, name.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits);
  const best = ranked[0];
  return best !== undefined && best.edits <= Math.max(1, Math.floor(best.name.length / 3)) ? best.name : undefined;
}

/** Levenshtein's distance, which counts insertions, deletions and substitutions. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
