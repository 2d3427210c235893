import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import bindings from 'bindings';
import type * as native from '../binding.js';
import { messageOf, RootError, type RootErrorCode } from './errors.js';

type Binding = typeof native;

/** Which file the native addon is, and why. */
export interface AddonReport {
  readonly path: string;
  /**
   * - `environment`: ROOT_OPTIMIZER_ADDON names it.
   * - `build`: it was built in this package.
   * - `package`: it comes from a package for this platform, such as `@root-optimizer/linux-x64`.
   */
  readonly source: 'environment' | 'build' | 'package';
  readonly reason: string;
}

const FILE = 'root_optimizer.node';
const packageRoot = path.join(__dirname, '..');
const builds = [
  ['build', 'Release'],
  ['native', 'build', 'Release'],
];

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
  const report = find();
  try {
    // `bindings` gets the whole path: it would prefer build/Debug, and guess the package's root from the call stack.
    const binding = bindings({ bindings: FILE, module_root: packageRoot, try: [[report.path]] }) as Binding;
    return { binding, report };
  } catch (cause) {
    const remedy = {
      environment: 'ROOT_OPTIMIZER_ADDON names it',
      build: 'to build it anew, run: npx root-optimizer build',
      package: 'to build another one, run: npx root-optimizer build',
    }[report.source];
    const reason = existsSync(report.path) ? messageOf(cause).split('\n')[0]! : 'there is no such file';
    throw missing(`The native addon at ${report.path} does not load (${reason}); ${remedy}`, cause);
  }
}

/** Returns the file to load. Only where no place has one, this fails. */
function find(): AddonReport {
  const override = process.env['ROOT_OPTIMIZER_ADDON'];
  if (override !== undefined && override !== '') {
    return { path: path.resolve(override), source: 'environment', reason: 'ROOT_OPTIMIZER_ADDON names it' };
  }
  if (isBundled()) {
    throw missing(
      'root-optimizer has been bundled, and its native addon has not: mark root-optimizer as external in the bundler',
    );
  }
  const candidates = builds.map((folder) => path.join(packageRoot, ...folder, FILE));
  const built = candidates.find((file) => existsSync(file));
  if (built !== undefined) return { path: built, source: 'build', reason: 'it was built in this package' };
  const name = platformPackage();
  try {
    const file = require.resolve(`${name}/${FILE}`);
    return { path: file, source: 'package', reason: `${name} is installed, and this package has no build of its own` };
  } catch (cause) {
    throw missing(
      `The native addon is missing: there is neither ${candidates.join(' nor ')}, and ${name} is not installed; ` +
        'run: npx root-optimizer build',
      cause,
    );
  }
}

/** In a bundle this file lies in somebody else's package. */
function isBundled(): boolean {
  try {
    const manifest = JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8')) as { name?: unknown };
    return manifest.name !== 'root-optimizer';
  } catch {
    return true;
  }
}

/** The name of the package that has an addon for this platform. */
function platformPackage(): string {
  const { platform, arch } = process;
  return `@root-optimizer/${platform}-${arch}${platform === 'linux' && !hasGlibc() ? '-musl' : ''}`;
}

function hasGlibc(): boolean {
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return report.header?.glibcVersionRuntime !== undefined;
}

/** A stack would lead into this package, where there is nothing to mend. */
function missing(text: string, cause?: unknown): RootError {
  const error = new RootError('ERR_ADDON_MISSING', text, { cause });
  error.stack = `${error.name}: ${text}`;
  return error;
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
