import { types } from 'node:util';
import { describe, expected, RootError } from './errors.js';

/** Reads a property as the language defines it. An own property of the object may say something else. */
function read(prototype: object, key: string, object: object): unknown {
  return Reflect.get(prototype, key, object);
}
const typedArray = Object.getPrototypeOf(Float32Array.prototype) as object;

/**
 * Returns `array` if it is a Float32Array of length `size` over memory that cannot shrink while a step uses it.
 * @throws RootError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH
 */
export function checkArray(array: unknown, size: number, name: string): Float32Array {
  // `instanceof` fails for arrays from another realm.
  if (!types.isFloat32Array(array)) throw expected(name, `a Float32Array of length ${size}`, array);
  const buffer = read(typedArray, 'buffer', array) as ArrayBufferLike;
  if (types.isArrayBuffer(buffer) && read(ArrayBuffer.prototype, 'resizable', buffer) === true) {
    throw new RootError(
      'ERR_INVALID_ARGUMENT',
      `Expected ${name} to be over memory of fixed length, got a resizable ArrayBuffer`,
    );
  }
  const length = read(typedArray, 'length', array) as number;
  if (length !== size || array.length !== size) {
    if (length === 0 && buffer.byteLength === 0) {
      const got = 'one without memory: empty or detached (transferred to another thread?)';
      throw new RootError(
        'ERR_INVALID_ARGUMENT',
        `Expected ${name} to be a Float32Array of length ${size}, got ${got}`,
      );
    }
    throw new RootError(
      'ERR_SHAPE_MISMATCH',
      `Expected ${name} to be of length ${size}, got Float32Array of length ${length}`,
    );
  }
  return array;
}

/**
 * A new array of `size` zeros.
 * @param label what the error message calls the array
 * @param shared whether it is over a SharedArrayBuffer
 * @throws RootError ERR_OUT_OF_MEMORY
 */
export function allocate(size: number, label: string, shared = false): Float32Array {
  try {
    return shared ? new Float32Array(new SharedArrayBuffer(4 * size)) : new Float32Array(size);
  } catch (cause) {
    throw new RootError('ERR_OUT_OF_MEMORY', `Cannot allocate the ${size} elements of ${label}`, { cause });
  }
}

/** Whether an array is over a SharedArrayBuffer. */
export function isShared(array: Float32Array): boolean {
  return types.isSharedArrayBuffer(read(typedArray, 'buffer', array));
}

/** The first value that is not finite, for a message: "NaN at index 3". */
export function firstNonFinite(array: Float32Array): string | undefined {
  const index = array.findIndex((value) => !Number.isFinite(value));
  return index < 0 ? undefined : `${describe(array[index])} at index ${index}`;
}
