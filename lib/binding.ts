import { existsSync } from 'node:fs';
import bindings from 'bindings';
import type * as native from '../binding.js';
import { type AddonReport, fileName, findAddon, missingAddon, packageRoot } from './addon-file.js';
import { messageOf, RootError, type RootErrorCode } from './errors.js';

type Binding = typeof native;

let loaded: { binding: Binding; report: AddonReport } | undefined;

/**
 * Returns the native addon, which is loaded at first use.
 * @throws RootError ERR_ADDON_MISSING where there is none, or where it does not load
 */
export function addon(): Binding {
  return (loaded ??= load()).binding;
}

/** @throws RootError ERR_ADDON_MISSING */
export function addonReport(): AddonReport {
  return (loaded ??= load()).report;
}

function load(): { binding: Binding; report: AddonReport } {
  const report = findAddon();
  try {
    // `bindings` gets the whole path: it would prefer build/Debug, and guess the package's root from the call stack.
    const binding = bindings({ bindings: fileName, module_root: packageRoot, try: [[report.path]] }) as Binding;
    return { binding, report };
  } catch (cause) {
    const remedy = {
      environment: 'ROOT_OPTIMIZER_ADDON names it',
      build: 'to build it anew, run: npx root-optimizer build --force',
      package: 'to build another one, run: npx root-optimizer build',
    }[report.source];
    const reason = existsSync(report.path) ? messageOf(cause).split('\n')[0]! : 'there is no such file';
    throw missingAddon(`The native addon at ${report.path} does not load (${reason}); ${remedy}`, cause);
  }
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
