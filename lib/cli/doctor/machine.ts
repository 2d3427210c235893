import { mkdirSync, mkdtempSync, readFileSync, rmdirSync } from 'node:fs';
import path from 'node:path';
import { buildFolder, isClone, packageRoot, platformName } from '../../addon-file.js';
import { messageOf, printable } from '../../errors.js';
import { nearest } from '../../validate.js';
import { type Check, isAtLeast, ok, problem, variable } from './check.js';

/** The platforms that have a package with an addon. */
const platforms = ['linux-x64', 'linux-x64-musl', 'linux-arm64', 'darwin-arm64', 'darwin-x64'];
/** Memory that loading the addon and training a small model take. */
const leastMemory = 512 * 2 ** 20;

export function checkNode(): Check {
  const manifest = JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8')) as {
    engines: { node: string };
  };
  const least = manifest.engines.node.replace('>=', '');
  if (isAtLeast(process.version.slice(1), least)) return ok('node', `${process.version}, ${process.execPath}`);
  return problem('node', `${process.version} is too old`, `install Node ${least} or newer, from nodejs.org or by nvm`);
}

export function checkPlatform(): Check {
  const name = platformName();
  if (platforms.includes(name)) return ok('platform', name);
  const remedy =
    process.platform === 'win32'
      ? 'use the Windows Subsystem for Linux'
      : 'there is no package for this platform: npx root-optimizer build';
  return problem('platform', `${name} is not one of ${platforms.join(', ')}`, remedy);
}

export function checkMemory(): Check {
  const available = process.availableMemory();
  const text = `${(available / 2 ** 30).toFixed(1)} GiB available`;
  if (available >= leastMemory) return ok('memory', text);
  const remedy = 'end other programs or raise the limit of the container; a build takes about 1 GiB for each core';
  return problem('memory', `only ${text}`, remedy);
}

/**
 * Whether a build could be put into the cache. A clone has its builds in place.
 * @param needed whether there is no other addon
 */
export function checkCache(needed: boolean): Check {
  const remedy = 'set ROOT_OPTIMIZER_CACHE to a folder that you can write to';
  let folder: string;
  try {
    folder = isClone && variable('ROOT_OPTIMIZER_CACHE') === undefined ? packageRoot : buildFolder();
  } catch (error) {
    return problem('cache', messageOf(error), remedy);
  }
  try {
    const made = mkdirSync(folder, { recursive: true });
    rmdirSync(mkdtempSync(path.join(folder, 'doctor-')));
    removeMade(folder, made);
    return ok('cache', folder);
  } catch (error) {
    const text = `${folder} cannot be written to: ${messageOf(error)}`;
    const asked = needed || variable('ROOT_OPTIMIZER_CACHE') !== undefined;
    return asked ? problem('cache', text, remedy) : { name: 'cache', state: 'note', found: text, remedy };
  }
}

/** Removes the folders that were made for the check, up to the first of them. */
function removeMade(folder: string, first: string | undefined): void {
  if (first === undefined) return;
  for (let one = folder; ; one = path.dirname(one)) {
    rmdirSync(one);
    if (one === first) return;
  }
}

/** The variables that this package and its tests read. */
const variables = ['ADDON', 'CACHE', 'CUDA', 'GEMM', 'INSTRUCTION_SET', 'RELEASE', 'TEST_DEVICE'].map(
  (name) => `ROOT_OPTIMIZER_${name}`,
);

export function checkVariables(): Check[] {
  const set = Object.keys(process.env).filter((name) => name.startsWith('ROOT_OPTIMIZER_'));
  const checks = set
    .filter((name) => !variables.includes(name))
    .map((name) => {
      const near = nearest(
        name,
        variables.map((one) => one.replaceAll('_', '').toLowerCase()),
      );
      const meant = variables.find((one) => one.replaceAll('_', '').toLowerCase() === near);
      const remedy = meant === undefined ? `unset it; there are ${variables.slice(0, 5).join(', ')}` : `set ${meant}`;
      return problem('variables', `nothing reads ${printable(name)}`, remedy);
    });
  const cuda = variable('ROOT_OPTIMIZER_CUDA');
  if (cuda !== undefined && cuda !== '0' && cuda !== '1') {
    checks.push(problem('variables', `ROOT_OPTIMIZER_CUDA is "${printable(cuda)}"`, 'set it to 0 or 1, or unset it'));
  }
  if (checks.length > 0) return checks;
  return [ok('variables', set.length === 0 ? 'none is set' : set.join(', '))];
}
