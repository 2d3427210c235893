// Runs tests of the addon on a build whose memory accesses and arithmetic, or whose threads, a sanitizer watches. A
// process in which it finds something ends at once, and its test fails.
import { execFileSync, spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from './build.mjs';
import { BuildError, fail } from './build/run.mjs';

const HELP = `Usage: node scripts/sanitize.mjs address|thread [options of jest]

  address  AddressSanitizer and UndefinedBehaviorSanitizer
  thread   ThreadSanitizer

Without options it runs all tests that use the addon. Needs g++ on Linux.`;

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Tests that work on the addon, on the CPU. Others use no more of it than these. */
const TESTS = [
  'test/(optimizer|checkpoint|train|attack)/',
  'test/(functions|parameter|binding|devices)',
  'test/native/',
];

const SANITIZERS = {
  address: {
    flags: '-fsanitize=address,undefined -fno-sanitize-recover=undefined',
    libraries: ['libasan.so', 'libubsan.so'],
    // Node frees little when it ends. Memory that was freed is watched for a while only, so that tests of how much a
    // process takes hold.
    environment: { ASAN_OPTIONS: 'detect_leaks=0:quarantine_size_mb=4:allocator_may_return_null=1' },
  },
  thread: {
    flags: '-fsanitize=thread',
    libraries: ['libtsan.so'],
    // Node and V8 are not built for it: what they do looks like races. Only accesses from the addon's code are watched.
    environment: { TSAN_OPTIONS: 'halt_on_error=1:ignore_noninstrumented_modules=1:report_signal_unsafe=0' },
  },
};

/**
 * @param {keyof typeof SANITIZERS} name
 * @param {string[]} args
 */
async function main(name, args) {
  const { flags, libraries, environment } = SANITIZERS[name];
  const compiler = process.env['CXX'] ?? 'g++';
  const { addon } = await build({
    backend: 'cmake',
    into: join(root, 'build', 'sanitized', name),
    environment: {
      ROOT_OPTIMIZER_CUDA: '0',
      CXXFLAGS: `${process.env['CXXFLAGS'] ?? ''} ${flags} -g1 -fno-omit-frame-pointer`.trim(),
      LDFLAGS: `${process.env['LDFLAGS'] ?? ''} ${flags}`.trim(),
    },
    isForeign: true, // it loads only where its library has been loaded first
  });
  const paths = libraries.map((one) =>
    execFileSync(compiler, [`-print-file-name=${one}`], { encoding: 'utf8' }).trim(),
  );
  const jest = join(root, 'node_modules', '.bin', 'jest');
  const env = {
    ...process.env,
    ...environment,
    LD_PRELOAD: paths.join(':'),
    ROOT_OPTIMIZER_ADDON: addon,
  };
  const { status } = spawnSync(
    process.execPath,
    [jest, ...(args.length > 0 ? args : TESTS), '--selectProjects', 'addon'],
    {
      stdio: 'inherit',
      cwd: root,
      env,
    },
  );
  process.exitCode = status ?? 1;
}

const [name, ...args] = process.argv.slice(2);
if (name === 'address' || name === 'thread') await main(name, args).catch(fail);
else if (name === '--help') console.log(HELP);
else fail(new BuildError(`Expected address or thread, got ${name ?? 'nothing'}.`));
