import { expected } from '../errors.js';

/** a, b, c of one Newton-Schulz iteration, which maps every singular value x to ax + bx³ + cx⁵. */
export type Triple = readonly [a: number, b: number, c: number];

/**
 * Checks a list of triples.
 * @param name what the error message calls the list
 * @returns a frozen copy
 * @throws RootError ERR_INVALID_ARGUMENT
 */
export function checkTriples(triples: readonly unknown[], name: string): readonly Triple[] {
  return Object.freeze(Array.from(triples, (triple, i) => checkTriple(triple, `${name}[${i}]`)));
}

/**
 * Checks one triple: three numbers that are finite as float32.
 * @param name what the error message calls the triple
 * @returns a frozen copy
 * @throws RootError ERR_INVALID_ARGUMENT
 */
export function checkTriple(triple: unknown, name: string): Triple {
  const fits = (value: unknown) => typeof value === 'number' && Number.isFinite(Math.fround(value));
  if (!Array.isArray(triple) || triple.length !== 3 || !triple.every(fits)) {
    throw expected(name, 'three finite numbers [a, b, c]', triple);
  }
  return Object.freeze([...(triple as [number, number, number])]);
}
