// Builds the addon with the CUDA kernels compiled for the host, as build/Emulator/root_optimizer.node, and the programs
// that test the emulator itself. It needs only g++.
import { execFile, execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { BuildError, fail } from './build/run.mjs';
import { withLock } from './lock.mjs';

const HELP = `Usage: npm run build:emulator -- [options]

Builds build/Emulator/root_optimizer.node, whose CUDA devices are emulated. To use it, set ROOT_OPTIMIZER_ADDON to its
path.
Compiles only what has changed.

  --force    compile everything anew
  --odr      check only that no two files define one name differently; build nothing to use
  --traffic  build build/Emulator/traffic.node, whose kernels tell the emulator of every access to memory
  --help     print this

CXX is respected.`;

/** @typedef {{ source: string, object: string, command: string[] }} Step */

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const output = join('build', 'Emulator');
const compiler = process.env['CXX'] ?? 'g++';
const include = join('test', 'cuda-emulator', 'include');

const common = [
  ...['-std=c++20', '-DNDEBUG', '-Wall', '-Wextra', '-ffp-contract=off', '-fPIC', '-pthread'],
  ...['-fvisibility=hidden', '-fvisibility-inlines-hidden'],
];
// A kernel reads memory in any type that it likes, and nvcc lets it.
const emulated = ['-fno-strict-aliasing', '-Wno-unknown-pragmas', '-Wno-psabi', `-I${include}`, ...instructionSets()];
const kernel = ['-O2', ...emulated];
const emulator = ['-O3', ...emulated];
// Unlike the addon it shows more than Node's entry points, since a test asks it for a function of the driver.
const shared = ['-shared', '-Wl,-z,nodelete', '-Wl,--exclude-libs,ALL'];

/**
 * @param {{ force?: boolean | undefined }} [options]
 * @returns {Promise<{ addon: string, faults: string }>} the paths of what was built
 */
export async function buildEmulator({ force = false } = {}) {
  if (process.platform !== 'linux') throw new BuildError('The CUDA emulator is for Linux only.');
  return withLock(join(root, '.lock'), async () => {
    const parts = { emulator: emulatorSteps(), addon: addonSteps(), faults: faultSteps() };
    await compile(Object.values(parts).flat(), force);
    const addon = await link('root_optimizer.node', [...parts.addon, ...parts.emulator], shared);
    const faults = await link('faults', [...parts.faults, ...parts.emulator], []);
    return { addon, faults };
  });
}

/**
 * Builds an addon whose kernels are compiled as for the thread sanitizer: they call a function for every access.
 * @returns {Promise<string>} its path
 */
export async function buildTraffic() {
  return withLock(join(root, '.lock'), async () => {
    const steps = addonSteps().map((one) => (one.source.endsWith('.cu') ? tracing(one) : one));
    const all = [...steps, ...emulatorSteps()];
    await compile(all, false);
    return link('traffic.node', all, shared);
  });
}

/**
 * @param {Step} step
 * @returns {Step}
 */
function tracing({ source, object, command }) {
  const traced = object.replace(/o$/, 'traffic.o');
  return { source, object: traced, command: [...command.slice(0, -1), traced, '-fsanitize=thread'] };
}

/**
 * Fails if two files define one name differently, which is undefined behaviour in C++ (no diagnostic required). The CPU
 * and CUDA sources meet in one compiler here. With link-time optimisation it sees all definitions of a type side by
 * side. Functions that both backends define must come from a header that they share.
 */
export async function checkOneDefinition() {
  await withLock(join(root, '.lock'), async () => {
    const steps = [...addonSteps(), ...emulatorSteps()].map(({ source, command }) => {
      const object = join(output, 'objects', `${source.replaceAll('/', '_')}.lto.o`);
      return { source, object, command: [...command.slice(0, -1), object, '-flto', '-O1', '-fno-inline'] };
    });
    await compile(steps, false);
    const errors = ['-Werror=odr', '-Werror=lto-type-mismatch'];
    const linked = await link('one_definition.node', steps, ['-shared', '-flto=auto', '-O1', ...errors]);
    fs.rmSync(linked);

    const shared = filesIn('native', '.h').map((file) => fs.readFileSync(join(root, file), 'utf8'));
    const [cpu, cuda] = [join('native', 'cpu'), 'cuda'].map((folder) => {
      return inlineFunctions(steps.filter(({ source }) => source.startsWith(folder)).map(({ object }) => object));
    });
    for (const name of cpu ?? []) {
      if (!cuda?.has(name) || shared.some((text) => text.includes(` ${name}(`))) continue;
      throw new BuildError(`Expected one backend to define root_optimizer::${name}, or a header that both include`);
    }
  });
}

/**
 * The inline functions of root_optimizer itself that objects define, without its namespaces and classes.
 * @param {string[]} objects
 */
function inlineFunctions(objects) {
  const lines = execFileSync('gcc-nm', ['-C', '--defined-only', ...objects], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  return new Set([...lines.matchAll(/ W root_optimizer::(\w+)\(/g)].map(([, name = '']) => name));
}

function emulatorSteps() {
  return filesIn(join('test', 'cuda-emulator'), '.cpp').map((source) => step(source, emulator));
}

function faultSteps() {
  return filesIn(join('test', 'cuda-emulator', 'faults'), '.cu').map((source) => step(source, kernel));
}

function addonSteps() {
  /** @type {{ native: string[], cuda: string[] }} */
  const { native, cuda } = JSON.parse(fs.readFileSync(join(root, 'native', 'sources.json'), 'utf8'));
  const nodeHeaders = [require('node-addon-api').include_dir, require('node-api-headers').include_dir];
  const defines = ['NAPI_VERSION=8', 'NODE_ADDON_API_CPP_EXCEPTIONS_ALL', 'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS'];
  const host = ['-O2', ...defines.map((name) => `-D${name}`), ...nodeHeaders.flatMap((folder) => ['-isystem', folder])];
  return [
    ...native.map((source) => step(source, host)),
    ...(cuda.length > 0 ? cuda : ['cuda/no_cuda.cpp']).map((source) => step(source, kernel)),
  ];
}

/**
 * Flags for the instruction sets without which fmaf() is a call of a slow function. They change no result, as long as
 * the compiler fuses nothing.
 */
function instructionSets() {
  const processor = readIfThere('/proc/cpuinfo') ?? '';
  return process.arch === 'x64' && /\bavx2\b/.test(processor) && /\bfma\b/.test(processor) ? ['-mavx2', '-mfma'] : [];
}

/**
 * @param {string} source
 * @param {string[]} flags
 * @returns {Step}
 */
function step(source, flags) {
  const object = join(output, 'objects', `${source.replaceAll('/', '_')}.o`);
  return { source, object, command: [...common, ...flags, '-MMD', '-x', 'c++', '-c', source, '-o', object] };
}

/**
 * @param {Step[]} steps
 * @param {boolean} force
 */
async function compile(steps, force) {
  fs.mkdirSync(join(root, output, 'objects'), { recursive: true });
  const outdated = steps.filter((step) => force || !isCurrent(step));
  if (outdated.length > 0) console.error(`root-optimizer: compiling ${outdated.length} files for the emulator`);
  const work = async () => {
    for (let next = outdated.pop(); next; next = outdated.pop()) {
      const started = new Date();
      fs.rmSync(join(root, stamp(next)), { force: true });
      await execute(next.command);
      // A file that is changed while the compiler reads it has to be compiled again.
      fs.utimesSync(join(root, next.object), started, started);
      fs.writeFileSync(join(root, stamp(next)), describe(next.command));
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
}

/**
 * Whether the object came from the same command and is younger than everything that went into it.
 * @param {Step} step
 */
function isCurrent(step) {
  try {
    if (fs.readFileSync(join(root, stamp(step)), 'utf8') !== describe(step.command)) return false;
    const { mtimeMs } = fs.statSync(join(root, step.object));
    const rule = fs.readFileSync(join(root, step.object.replace(/o$/, 'd')), 'utf8');
    const inputs = rule.replaceAll('\\\n', ' ').split(/\s+/).slice(1);
    return inputs.every((file) => file === '' || fs.statSync(resolve(root, file)).mtimeMs < mtimeMs);
  } catch {
    return false;
  }
}

/** @param {Step} step */
function stamp({ object }) {
  return `${object}.command`;
}

/** @param {string[]} command */
function describe(command) {
  return [compiler, ...command].join('\n');
}

/**
 * @param {string} name
 * @param {Step[]} steps
 * @param {string[]} flags
 */
async function link(name, steps, flags) {
  const file = join(root, output, name);
  const objects = steps.map(({ object }) => object);
  const command = ['-pthread', ...flags, '-o', `${file}.new`, ...objects];
  const commandFile = join(root, output, 'objects', `${name}.command`);
  const isLinked =
    readIfThere(commandFile) === describe(command) &&
    fs.existsSync(file) &&
    objects.every((object) => fs.statSync(join(root, object)).mtimeMs < fs.statSync(file).mtimeMs);
  if (!isLinked) {
    // The new file is renamed into place. To overwrite the former one would crash a process that has it loaded.
    await execute(command);
    fs.renameSync(`${file}.new`, file);
    fs.writeFileSync(commandFile, describe(command));
  }
  return file;
}

/** @param {string[]} args */
function execute(args) {
  return new Promise((done, reject) => {
    execFile(compiler, args, { cwd: root, maxBuffer: Infinity }, (error, _, messages) => {
      process.stderr.write(messages);
      if (!error) done(undefined);
      else if (error.code === 'ENOENT') {
        reject(new BuildError(`The emulator needs a C++ compiler: ${compiler} not found.`));
      } else reject(new BuildError(`The build failed: ${[compiler, ...args].join(' ')}`));
    });
  });
}

/**
 * @param {string} folder
 * @param {string} extension
 */
function filesIn(folder, extension) {
  const names = fs.readdirSync(join(root, folder)).filter((name) => name.endsWith(extension));
  return names.sort().map((name) => join(folder, name));
}

/** @param {string} file */
function readIfThere(file) {
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : undefined;
}

/** @param {string[]} args */
async function main(args) {
  const flag = /** @type {const} */ ({ type: 'boolean' });
  const options = { force: flag, odr: flag, traffic: flag, help: flag };
  const { values } = parseArgs({ args, options });
  if (values.help) {
    console.log(HELP);
    return;
  }
  if (values.odr) {
    await checkOneDefinition();
    console.log('No type and no function has two definitions.');
    return;
  }
  if (values.traffic) {
    console.log(await buildTraffic());
    return;
  }
  const { addon } = await buildEmulator(values);
  console.log(addon);
}

if (process.argv[1] !== undefined && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await main(process.argv.slice(2)).catch(fail);
}
