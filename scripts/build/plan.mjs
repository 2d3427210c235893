import * as fs from 'node:fs';
import { delimiter, join } from 'node:path';
import { BuildError } from './run.mjs';

/** @typedef {'cmake' | 'node-gyp'} Tool */
/**
 * What a build uses, and why. `unused` is a CUDA toolkit that is left alone because there is no driver.
 * @typedef {{ tool: Tool, nvcc: string | undefined, unused?: string, why: string }} Plan
 */

/**
 * @param {Tool | undefined} backend
 * @param {boolean} cuda whether CUDA was asked for
 * @returns {Plan}
 */
export function choosePlan(backend, cuda) {
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
  const noCmake = backend ? 'node-gyp was asked for' : `${list(missing('cmake'))} not found`;
  return { tool, ...chooseCuda(tool, noCmake, cuda) };
}

/**
 * @param {Tool} tool
 * @param {string} noCmake why the tool is node-gyp, where it is
 * @param {boolean} asked
 * @returns {Omit<Plan, 'tool'>}
 */
function chooseCuda(tool, noCmake, asked) {
  const variable = process.env['ROOT_OPTIMIZER_CUDA'] ?? '';
  if (!['', '0', '1'].includes(variable)) {
    throw new BuildError(`Expected ROOT_OPTIMIZER_CUDA to be 0 or 1, got ${variable}.`);
  }
  const wanted = asked || variable === '1';
  const cpu = (/** @type {string} */ why) => {
    if (wanted) throw new BuildError(`The addon cannot be built for CUDA: ${why}.`);
    return { nvcc: undefined, why: `for the CPU alone: ${why}` };
  };
  if (tool === 'node-gyp') return cpu(noCmake);
  if (!wanted && variable === '0') return cpu('ROOT_OPTIMIZER_CUDA is 0');
  const nvcc = process.env['CUDACXX'] ?? find('nvcc', '/usr/local/cuda/bin/nvcc');
  if (!nvcc) return cpu('no CUDA toolkit (nvcc) found');
  if (wanted || hasDriver()) return { nvcc, why: `with CUDA: ${nvcc}` };
  return { ...cpu('there is a CUDA toolkit, but no NVIDIA driver; --cuda builds for CUDA as well'), unused: nvcc };
}

/** Whether an NVIDIA driver runs here: that of Linux, of Windows below its Linux, or of a Jetson. */
function hasDriver() {
  return ['/proc/driver/nvidia/version', '/dev/nvidiactl', '/dev/dxg', '/dev/nvmap'].some(fs.existsSync);
}

/**
 * Returns everything that decides what is built from the sources. Node's version is not part of it, since Node-API is
 * stable across versions.
 * @param {Plan} plan
 * @param {string} config
 * @param {string[]} tools names and versions of the packages that build
 * @param {NodeJS.ProcessEnv} env
 */
export function describeOptions({ tool, nvcc }, config, tools, env) {
  const { platform, arch } = process;
  const { CXX, CXXFLAGS, LDFLAGS, CUDAFLAGS, CMAKE_CXX_LINKER_LAUNCHER: linker } = env;
  const flags = { CXX, CXXFLAGS, LDFLAGS, CUDAFLAGS, linker };
  return JSON.stringify({ tool, nvcc, config, platform, arch, tools, ...flags });
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
