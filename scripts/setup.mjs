// The first step of `npm run train`, `npm test` and `npm run bench`: installs packages and builds the addon where
// needed.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, fail, run } from './build.mjs';
import { withLock } from './lock.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

try {
  if (!isInstalled()) await withLock(join(root, '.lock'), install);
  // A user who points at another addon has built it already.
  if (!process.env['ROOT_OPTIMIZER_ADDON']) await build();
} catch (error) {
  fail(error);
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
  await run('npm', args, 'npm ci failed; its output above says why.');
}
