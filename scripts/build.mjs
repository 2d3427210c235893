// Builds the addon for this machine as build/Release/root_optimizer.node, with cmake-js or node-gyp, whichever can.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, constants } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { withLock } from './lock.mjs';

const HELP = `Usage: root-optimizer build [options]

Builds the native addon. Does nothing where it is up to date.

  --backend <tool>  cmake or node-gyp (default: cmake where CMake is installed, else node-gyp)
  --force           build even if the addon is up to date
  --debug           build without optimisation, as build/Debug/root_optimizer.node, for ROOT_OPTIMIZER_ADDON
  --help            print this

The build with CMake uses a CUDA toolkit (12 or newer) where there is one, unless ROOT_OPTIMIZER_CUDA is 0. node-gyp
builds for the CPU alone.
CXX, CXXFLAGS, LDFLAGS and CUDACXX are respected.`;

/** @typedef {'cmake' | 'node-gyp'} Tool */
/** @typedef {{ tool: Tool, nvcc: string | undefined, why: string }} Plan */
/** @typedef {{ backend?: Tool | undefined, debug?: boolean | undefined, force?: boolean | undefined }} Options */

const ADDON = 'root_optimizer.node';
const COMPILER_FAILED = 'The build failed; the output above says why.';
const root = fileURLToPath(new URL('..', import.meta.url));
const stampFile = join(root, 'build', 'stamp.json');
const require = createRequire(import.meta.url);

/** An error in words for the user, who has no use for a stack. */
export class BuildError extends Error {}

/**
 * @param {Options} [options]
 * @returns {Promise<boolean>} false where the addon was up to date
 */
export async function build({ backend, debug = false, force = false } = {}) {
  const config = debug ? 'Debug' : 'Release';
  const addon = join(root, 'build', config, ADDON);
  const plan = choose(backend);
  const wanted = describe(plan, config);
  const isCurrent = () => {
    const built = readStamp();
    return !force && fs.existsSync(addon) && built.options === wanted.options && built.sources === wanted.sources;
  };

  if (isCurrent()) return false;
  return withLock(join(root, '.lock'), async () => {
    if (isCurrent()) return false;
    const started = performance.now();
    console.error(`root-optimizer: building the addon with ${plan.tool}, ${plan.why}`);

    // A killed build leaves no stamp. Without a stamp the next build begins anew and reuses no half-written objects.
    const built = readStamp();
    const isContinuation = !force && built.options === wanted.options && built.root === root;
    fs.rmSync(stampFile, { force: true });
    if (plan.tool === 'cmake') await runCmake(plan, config, isContinuation);
    else await runNodeGyp(config, addon);

    const check = spawnSync(process.execPath, ['-e', 'require(process.argv[1])', addon], { encoding: 'utf8' });
    if (check.status !== 0) throw new BuildError(`The addon was built but does not load.\n${check.stderr}`);
    fs.writeFileSync(stampFile, JSON.stringify(wanted));
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    console.error(`root-optimizer: built build/${config}/${ADDON} in ${seconds} s`);
    return true;
  });
}

/**
 * @param {Tool | undefined} backend
 * @returns {Plan}
 */
function choose(backend) {
  if (process.platform === 'win32') {
    throw new BuildError('Windows is not supported yet; use the Windows Subsystem for Linux.');
  }
  /** @type {Record<Tool, Record<string, string | undefined>>} */
  const needs = {
    cmake: { CMake: find('cmake'), 'make or Ninja': find('make', 'ninja') },
    'node-gyp': { make: find('make'), 'Python 3': process.env['PYTHON'] ?? find('python3', 'python') },
  };
  const compiler = process.env['CXX'] ?? find('g++', 'clang++');
  const missing = (/** @type {Tool} */ tool) =>
    Object.entries({ 'a C++ compiler': compiler, ...needs[tool] }).flatMap(([name, path]) => (path ? [] : [name]));

  /** @type {Tool[]} */
  const candidates = backend ? [backend] : ['cmake', 'node-gyp'];
  const tool = candidates.find((candidate) => missing(candidate).length === 0);
  if (!tool) {
    const [systemPackage, brew] = backend === 'node-gyp' ? ['python3', ''] : ['cmake', ' && brew install cmake'];
    throw new BuildError(
      `The addon cannot be built here. Missing: ${list(missing(backend ?? 'cmake'))}` +
        (backend ? '.' : `; or, to build without CMake: ${list(missing('node-gyp'))}.`) +
        `\n  Debian, Ubuntu  apt-get install g++ make ${systemPackage}` +
        `\n  Fedora          dnf install gcc-c++ make ${systemPackage}` +
        `\n  macOS           xcode-select --install${brew}`,
    );
  }
  const cpu = (/** @type {string} */ why) => ({ tool, nvcc: undefined, why: `for the CPU alone: ${why}` });
  if (tool === 'node-gyp') return cpu(backend ? 'as asked' : `${list(missing('cmake'))} not found`);
  if (process.env['ROOT_OPTIMIZER_CUDA'] === '0') return cpu('ROOT_OPTIMIZER_CUDA is 0');
  const nvcc = process.env['CUDACXX'] ?? find('nvcc', '/usr/local/cuda/bin/nvcc');
  return nvcc ? { tool, nvcc, why: `with CUDA: ${nvcc}` } : cpu('no CUDA toolkit (nvcc) found');
}

/**
 * Returns everything that decides what is built. Node's version is not part of it, since Node-API is stable across
 * versions.
 * @param {Plan} plan
 * @param {string} config
 */
function describe(plan, config) {
  const { tool, nvcc } = plan;
  const { platform, arch } = process;
  const { CXX, CXXFLAGS, LDFLAGS, CUDAFLAGS } = process.env;
  const headers = ['node-addon-api', 'node-api-headers'].map((name) => require(`${name}/package.json`).version);
  const options = JSON.stringify({ tool, nvcc, config, platform, arch, headers, CXX, CXXFLAGS, LDFLAGS, CUDAFLAGS });

  const hash = createHash('sha256');
  for (const file of ['CMakeLists.txt', ...filesUnder('native'), ...filesUnder('cuda')]) {
    hash
      .update(`${file}\0`)
      .update(fs.readFileSync(join(root, file)))
      .update('\0');
  }
  return { options, root, sources: hash.digest('hex') };
}

/** @returns {{ options?: string, root?: string, sources?: string }} */
function readStamp() {
  try {
    return JSON.parse(fs.readFileSync(stampFile, 'utf8'));
  } catch {
    return {};
  }
}

/**
 * @param {Plan} plan
 * @param {string} config
 * @param {boolean} isContinuation
 */
async function runCmake(plan, config, isContinuation) {
  const args = [
    require.resolve('cmake-js/bin/cmake-js'),
    isContinuation ? 'build' : 'rebuild',
    ...['--directory', root, '--config', config, '--parallel', String(availableParallelism()), '--log-level', 'warn'],
    `--CDROOT_OPTIMIZER_CUDA=${plan.nvcc ? 'ON' : 'OFF'}`,
    ...(plan.nvcc ? [`--CDCMAKE_CUDA_COMPILER=${plan.nvcc}`] : []),
  ];
  await run(
    process.execPath,
    args,
    COMPILER_FAILED + (plan.nvcc ? ' ROOT_OPTIMIZER_CUDA=0 builds for the CPU alone.' : ''),
  );
}

/**
 * @param {string} config
 * @param {string} addon
 */
async function runNodeGyp(config, addon) {
  const prefix = dirname(dirname(fs.realpathSync(process.execPath)));
  const hasHeaders = fs.existsSync(join(prefix, 'include', 'node', 'common.gypi'));
  if (!hasHeaders) console.error(`root-optimizer: no headers in ${prefix}/include/node: node-gyp will download them`);
  const native = join(root, 'native');
  const args = [
    require.resolve('node-gyp/bin/node-gyp.js'),
    ...['rebuild', '--directory', native, '--jobs', String(availableParallelism()), '--loglevel', 'warn'],
    config === 'Debug' ? '--debug' : '--release',
    ...(hasHeaders ? ['--nodedir', prefix] : []),
  ];
  await run(process.execPath, args, COMPILER_FAILED);

  // The new file is renamed into place. To overwrite the former one would crash a process that has it loaded.
  fs.rmSync(join(root, 'build'), { recursive: true, force: true });
  fs.mkdirSync(dirname(addon), { recursive: true });
  fs.copyFileSync(join(native, 'build', config, ADDON), `${addon}.new`);
  fs.renameSync(`${addon}.new`, addon);
}

/**
 * Runs a program, and the processes that it starts, in a process group of their own. A signal to this process is passed
 * on to the group, and ends this process only after the group. npm in particular tidies up before it obeys, and no
 * other process may begin meanwhile.
 * @param {string} program
 * @param {string[]} args
 * @param {string} failure
 */
export async function run(program, args, failure) {
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], detached: true });
  /** @type {NodeJS.Signals | undefined} */
  let interrupted;
  const forward = (/** @type {NodeJS.Signals} */ signal) => {
    interrupted = signal;
    if (child.pid !== undefined) process.kill(-child.pid, signal);
  };
  const signals = /** @type {const} */ (['SIGHUP', 'SIGINT', 'SIGTERM']);
  for (const signal of signals) process.on(signal, forward);
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('exit', resolve));
  for (const signal of signals) process.off(signal, forward);
  if (interrupted) process.exit(128 + constants.signals[interrupted]);
  if (code !== 0) throw new BuildError(failure);
}

/** @param {string} folder */
function filesUnder(folder) {
  const files = fs.readdirSync(join(root, folder), { recursive: true, withFileTypes: true });
  return files
    .filter((file) => file.isFile())
    .map((file) => join(file.parentPath, file.name).slice(root.length))
    .filter((file) => !file.startsWith(join('native', 'build')))
    .sort();
}

/** @param {string[]} programs */
function find(...programs) {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  return programs
    .flatMap((program) => (program.startsWith('/') ? program : folders.map((folder) => join(folder, program))))
    .find(isExecutable);
}

/** @param {string} file */
function isExecutable(file) {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return fs.statSync(file).isFile();
  } catch {
    return false;
  }
}

/** @param {string[]} names */
function list(names) {
  return names.length > 1 ? `${names.slice(0, -1).join(', ')} and ${names.at(-1)}` : (names[0] ?? '');
}

/** @param {string[]} args */
async function main(args) {
  const { values } = parseArgs({
    args,
    options: {
      backend: { type: 'string' },
      force: { type: 'boolean' },
      debug: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const { backend } = values;
  if (backend !== undefined && backend !== 'cmake' && backend !== 'node-gyp') {
    throw new BuildError(`Expected --backend to be cmake or node-gyp, got ${backend}.`);
  }
  if (!(await build({ ...values, backend }))) console.error('root-optimizer: the addon is up to date');
}

/**
 * Ends the process with one message instead of a stack, except where the fault is in the script itself.
 * @param {unknown} error
 */
export function fail(error) {
  const isExpected = error instanceof BuildError || (error instanceof Error && 'code' in error);
  console.error(isExpected ? `root-optimizer: ${error.message}` : error);
  process.exit(1);
}

if (process.argv[1] !== undefined && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await main(process.argv.slice(2)).catch(fail);
}
