import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { messageOf, RootError } from './errors.js';

/** Which file the native addon is, and why. */
export interface AddonReport {
  readonly path: string;
  /**
   * - `environment`: ROOT_OPTIMIZER_ADDON names it.
   * - `build`: `root-optimizer build` made it, in this package or in the cache.
   * - `package`: it comes from a package for this platform, such as `@root-optimizer/linux-x64`.
   */
  readonly source: 'environment' | 'build' | 'package';
  readonly reason: string;
}

export const fileName = 'root_optimizer.node';
export const packageRoot = path.join(__dirname, '..');

/** A clone has its builds in place. An installed package has them in the cache, where `npm ci` does not reach. */
export const isClone = existsSync(path.join(packageRoot, 'package-lock.json'));

/**
 * Returns the file to load, which is the first that is there.
 * @throws RootError ERR_ADDON_MISSING
 */
export function findAddon(): AddonReport {
  const override = process.env['ROOT_OPTIMIZER_ADDON'];
  if (override !== undefined && override !== '') {
    return { path: path.resolve(override), source: 'environment', reason: 'ROOT_OPTIMIZER_ADDON names it' };
  }
  if (!isUnbundled()) {
    throw missingAddon(
      'root-optimizer has been bundled, and its native addon has not: mark root-optimizer as external in the bundler',
    );
  }
  const builds = isClone
    ? [path.join(packageRoot, 'build', 'Release'), path.join(packageRoot, 'native', 'build', 'Release')]
    : cachedBuilds();
  const built = builds.map((folder) => path.join(folder, fileName)).find((file) => existsSync(file));
  if (built !== undefined) return { path: built, source: 'build', reason: 'it was built from the sources' };
  const name = `@root-optimizer/${platformName()}`;
  try {
    const file = require.resolve(`${name}/${fileName}`);
    return { path: file, source: 'package', reason: `${name} is installed, and nothing was built from the sources` };
  } catch (cause) {
    const places = builds.length > 0 ? `in ${builds.join(' or ')}` : 'nor a folder for one';
    throw missingAddon(
      `The native addon is missing: ${name} is not installed, and there is no build ${places}; ` +
        'run: npx root-optimizer build',
      cause,
    );
  }
}

/** A user without a home has no cache, and may have the platform's package. */
function cachedBuilds(): string[] {
  try {
    return [path.join(buildFolder(), 'current')];
  } catch {
    return [];
  }
}

/** The folder where `root-optimizer build` puts what it makes of this version for this platform. */
export function buildFolder(): string {
  return path.join(cacheFolder(), version(), platformName());
}

export function version(): string {
  return readManifest().version;
}

/** A stack would lead into this package, where there is nothing to mend. */
export function missingAddon(text: string, cause?: unknown): RootError {
  const error = new RootError('ERR_ADDON_MISSING', text, { cause });
  error.stack = `${error.name}: ${text}`;
  return error;
}

/** ROOT_OPTIMIZER_CACHE, or a folder of ours among the user's caches. */
function cacheFolder(): string {
  const override = process.env['ROOT_OPTIMIZER_CACHE'];
  if (override !== undefined && override !== '') return path.resolve(override);
  const shared = process.env['XDG_CACHE_HOME'];
  if (shared !== undefined && path.isAbsolute(shared)) return path.join(shared, 'root-optimizer');
  const caches = process.platform === 'darwin' ? ['Library', 'Caches'] : ['.cache'];
  return path.join(home(), ...caches, 'root-optimizer');
}

/** @throws RootError ERR_ADDON_MISSING for a user without a home */
function home(): string {
  try {
    return homedir();
  } catch (cause) {
    throw missingAddon(`Expected ROOT_OPTIMIZER_CACHE to name a folder, since ${messageOf(cause)}`, cause);
  }
}

/** The name of this platform in the names of packages. */
export function platformName(): string {
  const { platform, arch } = process;
  return `${platform}-${arch}${platform === 'linux' && !hasGlibc() ? '-musl' : ''}`;
}

function hasGlibc(): boolean {
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return report.header?.glibcVersionRuntime !== undefined;
}

/** In a bundle this file lies in somebody else's package. */
function isUnbundled(): boolean {
  try {
    return readManifest().name === 'root-optimizer';
  } catch {
    return false;
  }
}

function readManifest(): { name: string; version: string } {
  return JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8')) as { name: string; version: string };
}
