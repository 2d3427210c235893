import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';

/**
 * The sources as a package has them. A clone has them as files.
 * @param {string} root
 */
const archiveIn = (root) => join(root, 'sources.tar.gz');

/** What a clone's build reads, besides package.json. */
const folders = ['CMakeLists.txt', 'native', 'cuda'];

/** @param {string} root */
export function isClone(root) {
  return fs.existsSync(join(root, 'package-lock.json'));
}

/** @param {string} root */
export function hashSources(root) {
  const hash = createHash('sha256');
  if (!isClone(root)) return hash.update(fs.readFileSync(archiveIn(root))).digest('hex');
  for (const file of folders.flatMap((folder) => filesUnder(root, folder))) {
    hash
      .update(`${file}\0`)
      .update(fs.readFileSync(join(root, file)))
      .update('\0');
  }
  return hash.digest('hex');
}

/**
 * @param {string} root
 * @param {string} target
 */
export function copySources(root, target) {
  if (!isClone(root)) {
    execFileSync('tar', ['-xzf', archiveIn(root), '-C', target], { stdio: ['ignore', 2, 2] });
    return;
  }
  const filter = (/** @type {string} */ file) => file !== join(root, 'native', 'build');
  for (const source of [...folders, 'package.json']) {
    fs.cpSync(join(root, source), join(target, source), { recursive: true, filter });
  }
}

/**
 * @param {string} root
 * @param {string} folder
 */
function filesUnder(root, folder) {
  if (fs.statSync(join(root, folder)).isFile()) return [folder];
  return fs
    .readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((file) => file.isFile())
    .map((file) => join(file.parentPath, file.name).slice(root.length))
    .filter((file) => !file.startsWith(join('native', 'build')))
    .sort();
}
