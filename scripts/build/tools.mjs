import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { run } from './run.mjs';

/** @import { Plan, Tool } from './plan.mjs' */

const ADDON = 'root_optimizer.node';
const COMPILER_FAILED = 'The build failed; the output above says why.';
const headers = ['node-addon-api', 'node-api-headers'];

/** @type {Record<Tool, string[]>} */
const packages = { cmake: ['cmake-js', ...headers], 'node-gyp': ['node-gyp', ...headers] };

/**
 * Names and versions of the packages that a tool builds with, as package.json asks for them.
 * @param {string} root
 * @param {Tool} tool
 */
export function toolPackages(root, tool) {
  /** @type {{ devDependencies: Record<string, string> }} */
  const { devDependencies } = JSON.parse(fs.readFileSync(join(root, 'package.json'), 'utf8'));
  return packages[tool].map((name) => `${name}@${devDependencies[name]}`);
}

/**
 * Installs packages from the npm registry into a folder of their own below `into`, if they are not there yet.
 * @param {string} into
 * @param {string[]} specifications
 * @returns {Promise<string>} the folder node_modules
 */
export async function fetchTools(into, specifications) {
  const key = createHash('sha256').update(specifications.join()).digest('hex').slice(0, 12);
  const folder = join(into, `tools-${key}`);
  const modules = join(folder, 'node_modules');
  if (fs.existsSync(modules)) return modules;
  console.error(`root-optimizer: fetching ${specifications.join(', ')}`);
  const draft = `${folder}.new`;
  fs.rmSync(draft, { recursive: true, force: true });
  fs.mkdirSync(draft, { recursive: true });
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock', '--loglevel', 'error'];
  const args = ['install', '--prefix', draft, ...quiet, ...specifications];
  await run('npm', args, 'npm could not fetch what the build needs; its output above says why.');
  fs.renameSync(draft, folder);
  return modules;
}

/**
 * Builds with cmake-js.
 * @param {{ plan: Plan, config: string, sources: string, output: string, modules: string, isContinuation: boolean,
 *   env: NodeJS.ProcessEnv }} job
 * @returns {Promise<string>} the addon
 */
export async function runCmake({ plan, config, sources, output, modules, isContinuation, env }) {
  const args = [
    join(modules, 'cmake-js', 'bin', 'cmake-js'),
    isContinuation ? 'build' : 'rebuild',
    ...['--directory', sources, '--out', output, '--config', config, '--log-level', 'warn'],
    ...['--parallel', String(availableParallelism())],
    `--CDROOT_OPTIMIZER_CUDA=${plan.nvcc ? 'ON' : 'OFF'}`,
    ...(plan.nvcc ? [`--CDCMAKE_CUDA_COMPILER=${plan.nvcc}`] : []),
  ];
  const hint = plan.nvcc ? ' ROOT_OPTIMIZER_CUDA=0 builds for the CPU alone.' : '';
  await run(process.execPath, args, COMPILER_FAILED + hint, { cwd: sources, env });
  return join(output, config, ADDON);
}

/**
 * Builds with node-gyp.
 * @param {{ config: string, sources: string, modules: string, env: NodeJS.ProcessEnv }} job
 * @returns {Promise<string>} the addon
 */
export async function runNodeGyp({ config, sources, modules, env }) {
  const prefix = dirname(dirname(fs.realpathSync(process.execPath)));
  const hasHeaders = fs.existsSync(join(prefix, 'include', 'node', 'common.gypi'));
  if (!hasHeaders) console.error(`root-optimizer: no headers in ${prefix}/include/node: node-gyp will download them`);
  const native = join(sources, 'native');
  const args = [
    join(modules, 'node-gyp', 'bin', 'node-gyp.js'),
    ...['rebuild', '--directory', native, '--jobs', String(availableParallelism()), '--loglevel', 'warn'],
    config === 'Debug' ? '--debug' : '--release',
    ...(hasHeaders ? ['--nodedir', prefix] : []),
  ];
  await run(process.execPath, args, COMPILER_FAILED, { cwd: sources, env });
  return join(native, 'build', config, ADDON);
}
