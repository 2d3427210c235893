// `node scripts/setup.mjs <program> [arguments]` installs packages and builds the addon where needed. Then it runs a
// script of this folder, or a program of an installed package. With --help it builds nothing.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from './build.mjs';
import { fail, run } from './build/run.mjs';
import { withLock } from './lock.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const [program, ...args] = process.argv.slice(2);

try {
  if (!isInstalled()) await withLock(join(root, '.lock'), install);
  // A user who points at another addon has built it already.
  if (!process.env['ROOT_OPTIMIZER_ADDON'] && !args.includes('--help')) await build();
} catch (error) {
  fail(error);
}
if (program !== undefined) {
  const target = program.endsWith('.ts') ? ['--import', 'tsx', program] : [join('node_modules', '.bin', program)];
  const { status, signal } = spawnSync(process.execPath, [...target, ...args], { cwd: root, stdio: 'inherit' });
  process.exitCode = status ?? 128 + constants.signals[signal ?? 'SIGTERM'];
}

/** npm writes node_modules/.package-lock.json last, as the record of what it installed. */
function isInstalled() {
  const wanted = readPackages('package-lock.json');
  const installed = readPackages('node_modules/.package-lock.json');
  return Object.entries(wanted).every(
    ([path, { version, optional, devOptional }]) =>
      path === '' || optional === true || devOptional === true || installed[path]?.version === version,
  );
}

/**
 * @param {string} lockFile
 * @returns {Record<string, { version?: string, optional?: boolean, devOptional?: boolean }>}
 */
function readPackages(lockFile) {
  try {
    return JSON.parse(readFileSync(join(root, lockFile), 'utf8')).packages;
  } catch {
    return {};
  }
}

async function install() {
  if (isInstalled()) return;
  console.error('root-optimizer: installing packages (npm ci)');
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund'];
  await run('npm', args, 'npm ci failed; its output above says why.', { cwd: root });
}
