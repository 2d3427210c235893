import { existsSync } from 'node:fs';
import path from 'node:path';
import bindings from 'bindings';
import type * as native from '../binding.js';
import { messageOf, RootError, type RootErrorCode } from './errors.js';

type Binding = typeof native;

const packageRoot = path.join(__dirname, '..');
const builds = [
  ['build', 'Release'],
  ['native', 'build', 'Release'],
];

let loaded: Binding | undefined;

/**
 * Returns the native addon, which is loaded at first use. `ROOT_OPTIMIZER_ADDON` names its file; where it is not set,
 * the build in this package is loaded.
 * @throws RootError ERR_DEVICE_UNAVAILABLE where the addon is not built, or is built but does not load
 */
export function addon(): Binding {
  return (loaded ??= load());
}

function load(): Binding {
  const override = process.env['ROOT_OPTIMIZER_ADDON'];
  if (override !== undefined && override !== '') {
    try {
      // eslint-disable-next-line @typescript-eslint/no-require-imports -- the path is known at run time only
      return require(path.resolve(override)) as Binding;
    } catch (cause) {
      throw unavailable(`Cannot load the addon that ROOT_OPTIMIZER_ADDON names: ${messageOf(cause)}`, cause);
    }
  }
  try {
    // The paths are given in full: `bindings` would otherwise prefer build/Debug and guess the package's root from the
    // call stack.
    const attempts = builds.map((folder) => ['module_root', ...folder, 'bindings']);
    return bindings({ bindings: 'root_optimizer.node', module_root: packageRoot, try: attempts }) as Binding;
  } catch (cause) {
    const candidates = builds.map((folder) => path.join(packageRoot, ...folder, 'root_optimizer.node'));
    const found = candidates.find((file) => existsSync(file));
    throw found === undefined
      ? unavailable(
          `The native addon is not built; run: npx root-optimizer build\nLooked for ${candidates.join(' and ')}`,
          cause,
        )
      : unavailable(
          `The native addon at ${found} does not load (${messageOf(cause)}); ` +
            'to build it anew, run: npx root-optimizer build',
          cause,
        );
  }
}

function unavailable(text: string, cause: unknown): RootError {
  return new RootError('ERR_DEVICE_UNAVAILABLE', text, { cause });
}

const nativeCodes: Record<native.NativeErrorCode, RootErrorCode> = {
  ERR_INVALID_ARGUMENT: 'ERR_INVALID_ARGUMENT',
  ERR_DETACHED: 'ERR_INVALID_ARGUMENT',
  ERR_SHAPE_MISMATCH: 'ERR_SHAPE_MISMATCH',
  ERR_NON_FINITE: 'ERR_NON_FINITE',
  ERR_BUSY: 'ERR_BUSY',
  ERR_DISPOSED: 'ERR_DISPOSED',
  ERR_DEVICE_UNAVAILABLE: 'ERR_DEVICE_UNAVAILABLE',
  ERR_OUT_OF_MEMORY: 'ERR_OUT_OF_MEMORY',
  ERR_CUDA: 'ERR_CUDA',
};

/**
 * Returns the code of an error that the addon threw, undefined for all other errors. An error of the addon may come
 * from another realm, where `instanceof` fails.
 */
export function nativeCodeOf(error: unknown): native.NativeErrorCode | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  if (error instanceof RootError || typeof code !== 'string' || !Object.hasOwn(nativeCodes, code)) return undefined;
  return code as native.NativeErrorCode;
}

/** Turns an error of the addon into a RootError with the same message. Returns any other error as it is. */
export function asRootError(error: unknown): unknown {
  const code = nativeCodeOf(error);
  return code === undefined ? error : new RootError(nativeCodes[code], messageOf(error), { cause: error });
}

/** Runs a native call. `map` turns the error that the call throws into the error to throw, by default a RootError. */
export function guard<T>(call: () => T, map = asRootError): T {
  try {
    return call();
  } catch (error) {
    throw map(error);
  }
}

/** Like `guard`, for a call that returns a promise. */
export async function guardAsync<T>(call: () => Promise<T>, map = asRootError): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw map(error);
  }
}
