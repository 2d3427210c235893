// Builds the addon for this machine with cmake-js or node-gyp, whichever can: in a clone as
// build/Release/root_optimizer.node, elsewhere in a folder that is named for what decides the build.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { choosePlan, describeOptions } from './build/plan.mjs';
import { BuildError, fail } from './build/run.mjs';
import { copySources, hashSources, isClone } from './build/sources.mjs';
import { fetchTools, runCmake, runNodeGyp, toolPackages } from './build/tools.mjs';
import { withLock } from './lock.mjs';

/** @import { Plan, Tool } from './build/plan.mjs' */

const HELP = `Usage: root-optimizer build [options]

Builds the native addon from its sources. Does nothing where it is up to date.

  --backend <tool>  cmake or node-gyp (default: cmake where CMake is installed, else node-gyp)
  --cuda            build the CUDA backend even where there is no NVIDIA driver; fail where there is no toolkit
  --force           build even if the addon is up to date
  --debug           build without optimisation, for ROOT_OPTIMIZER_ADDON
  --into <folder>   build into this folder instead of the cache or, in a clone, build/
  --help            print this

Outside a clone the addon goes to the cache: ROOT_OPTIMIZER_CACHE, or root-optimizer in your folder of caches. What only
a build needs (cmake-js or node-gyp, and headers) is fetched from the npm registry into the same folder.
The build with CMake takes a CUDA toolkit (12 or newer) where there is one and an NVIDIA driver; ROOT_OPTIMIZER_CUDA=0
leaves it out, ROOT_OPTIMIZER_CUDA=1 is --cuda. node-gyp builds for the CPU alone.
CXX, CXXFLAGS, LDFLAGS and CUDACXX are respected.`;

/**
 * @typedef {object} Options
 * @property {Tool | undefined} [backend]
 * @property {boolean | undefined} [cuda]
 * @property {boolean | undefined} [debug]
 * @property {boolean | undefined} [force]
 * @property {string | undefined} [into]
 * @property {Record<string, string>} [environment] variables that count besides those of the process
 * @property {boolean} [isForeign] whether it is for another platform, and cannot be loaded here
 */
/** @typedef {{ options?: string, root?: string, sources?: string }} Stamp */

const ADDON = 'root_optimizer.node';
const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * @param {Options} [options]
 * @returns {Promise<{ addon: string, isNew: boolean }>} not new where the addon was up to date
 */
export async function build(options = {}) {
  const { backend, cuda = false, debug = false, force = false, into, isForeign = false } = options;
  const config = debug ? 'Debug' : 'Release';
  const plan = choosePlan(backend, cuda);
  const packages = toolPackages(root, plan.tool);
  const env = { ...process.env, ...options.environment };
  const hash = hashSources(root);
  const describe = (/** @type {Plan} */ one) => ({
    options: describeOptions(one, config, packages, env),
    root,
    sources: hash,
  });
  const wanted = describe(plan);
  // A build that has CUDA besides serves a machine without a driver as well.
  const accepted = [wanted, ...(plan.unused ? [describe({ ...plan, nvcc: plan.unused })] : [])];
  /** @type {Job} */
  const job = { plan, config, force, wanted, accepted, packages, env, isForeign };
  if (into !== undefined) return buildInto(into, job);
  if (!isClone(root)) throw new BuildError('Run: npx root-optimizer build');
  return buildInPlace(job);
}

/**
 * @typedef {object} Job
 * @property {Plan} plan
 * @property {string} config
 * @property {boolean} force
 * @property {Required<Stamp>} wanted
 * @property {Required<Stamp>[]} accepted stamps that make a build superfluous
 * @property {string[]} packages
 * @property {NodeJS.ProcessEnv} env
 * @property {boolean} isForeign
 */

/** @param {Job} job */
async function buildInPlace(job) {
  const { config, wanted, force } = job;
  const stampFile = join(root, 'build', 'stamp.json');
  const addon = join(root, 'build', config, ADDON);
  const isCurrent = () => !force && fs.existsSync(addon) && matches(readStamp(stampFile), job.accepted);
  if (isCurrent()) return { addon, isNew: false };
  return withLock(join(root, '.lock'), async () => {
    if (isCurrent()) return { addon, isNew: false };
    await timed(job, addon, async () => {
      // A killed build leaves no stamp. Without a stamp the next build begins anew and reuses no half-written objects.
      const built = readStamp(stampFile);
      const isContinuation = !force && built.options === wanted.options && built.root === root;
      fs.rmSync(stampFile, { force: true });
      const made = await compile(job, root, join(root, 'build'), join(root, 'node_modules'), isContinuation);
      if (made !== addon) {
        fs.rmSync(join(root, 'build'), { recursive: true, force: true });
        replace(made, addon);
      }
      fs.writeFileSync(stampFile, JSON.stringify(wanted));
    });
    return { addon, isNew: true };
  });
}

/**
 * Builds a copy of the sources, so that the package's own folder may be read-only, and keeps the addon alone. The
 * addon's folder is named for what decides the build. `current` leads to the last one that was asked for.
 * @param {string} into
 * @param {Job} job
 */
async function buildInto(into, job) {
  fs.mkdirSync(into, { recursive: true });
  return withLock(join(into, '.lock'), async () => {
    const found = job.force ? undefined : job.accepted.map((stamp) => addonFor(into, stamp)).find(fs.existsSync);
    const addon = found ?? addonFor(into, job.wanted);
    if (found === undefined) {
      const modules = isClone(root) ? join(root, 'node_modules') : await fetchTools(into, job.packages);
      await timed(job, addon, () => buildCopy(into, addon, modules, job));
    }
    if (job.config === 'Release') point(join(into, 'current'), basename(dirname(addon)));
    return { addon, isNew: found === undefined };
  });
}

/**
 * @param {string} into
 * @param {string} addon
 * @param {string} modules
 * @param {Job} job
 */
async function buildCopy(into, addon, modules, job) {
  const work = join(into, 'work');
  fs.rmSync(work, { recursive: true, force: true });
  fs.mkdirSync(work);
  copySources(root, work);
  fs.symlinkSync(modules, join(work, 'node_modules'));
  replace(await compile(job, work, join(work, 'build'), modules, false), addon);
  fs.rmSync(work, { recursive: true });
}

/**
 * @param {Job} job
 * @param {string} from the folder of the sources
 * @param {string} output
 * @param {string} modules
 * @param {boolean} isContinuation
 * @returns {Promise<string>} the addon, which loads
 */
async function compile({ plan, config, env, isForeign }, from, output, modules, isContinuation) {
  const common = { config, sources: from, modules, env };
  const made = await (plan.tool === 'cmake'
    ? runCmake({ ...common, plan, output, isContinuation })
    : runNodeGyp(common));
  if (isForeign) return made;
  const check = spawnSync(process.execPath, ['-e', 'require(process.argv[1])', made], { encoding: 'utf8' });
  if (check.status !== 0) throw new BuildError(`The addon was built but does not load.\n${check.stderr}`);
  return made;
}

/**
 * @param {Job} job
 * @param {string} addon
 * @param {() => Promise<void>} work
 */
async function timed({ plan }, addon, work) {
  const started = performance.now();
  console.error(`root-optimizer: building the addon with ${plan.tool}, ${plan.why}`);
  await work();
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  console.error(`root-optimizer: built ${addon} in ${seconds} s`);
}

/**
 * @param {string} into
 * @param {Required<Stamp>} stamp
 */
function addonFor(into, stamp) {
  const key = createHash('sha256').update(stamp.options).update(stamp.sources).digest('hex').slice(0, 12);
  return join(into, key, ADDON);
}

/**
 * Renames a file into place. To overwrite the former one would crash a process that has it loaded.
 * @param {string} made
 * @param {string} addon
 */
function replace(made, addon) {
  fs.mkdirSync(dirname(addon), { recursive: true });
  fs.copyFileSync(made, `${addon}.new`);
  fs.renameSync(`${addon}.new`, addon);
}

/**
 * Makes a symbolic link, or turns it to another target, at one stroke.
 * @param {string} link
 * @param {string} target
 */
function point(link, target) {
  fs.rmSync(`${link}.new`, { force: true });
  fs.symlinkSync(target, `${link}.new`);
  fs.renameSync(`${link}.new`, link);
}

/**
 * @param {string} file
 * @returns {Stamp}
 */
function readStamp(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch {
    return {};
  }
}

/**
 * @param {Stamp} built
 * @param {Stamp[]} accepted
 */
function matches(built, accepted) {
  return accepted.some(({ options, sources }) => built.options === options && built.sources === sources);
}

/** @param {string[]} args */
async function main(args) {
  const { values } = parseArgs({
    args,
    options: {
      backend: { type: 'string' },
      cuda: { type: 'boolean' },
      force: { type: 'boolean' },
      debug: { type: 'boolean' },
      into: { type: 'string' },
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
  const { addon, isNew } = await build({ ...values, backend });
  if (!isNew) console.error(`root-optimizer: ${addon} is up to date`);
}

if (process.argv[1] !== undefined && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await main(process.argv.slice(2)).catch(fail);
}
