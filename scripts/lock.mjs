import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, renameSync, rmSync, rmdirSync, statSync, utimes, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const BEAT_MS = 500;
const STALE_BEATS = 10;

/**
 * Runs `work` while no other process holds the lock at `path`, which is a folder with one file named for its holder.
 * The holder touches its file twice a second. A file that is untouched for five seconds belongs to a killed process.
 * Whoever renames it to a name of its own has the lock, and only one process can.
 *
 * @template T
 * @param {string} path
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withLock(path, work) {
  const owner = randomUUID();
  if (!create(path, owner)) await takeOver(path, owner);

  const file = join(path, owner);
  const beat = setInterval(() => utimes(file, new Date(), new Date(), () => undefined), BEAT_MS);
  const release = () => {
    rmSync(file, { force: true });
    removeIfEmpty(path);
  };
  process.on('exit', release);
  try {
    return await work();
  } finally {
    clearInterval(beat);
    process.off('exit', release);
    release();
  }
}

/**
 * Moves a folder with the holder's file in it to `path`. The system refuses this while another such folder is there.
 * @param {string} path
 * @param {string} owner
 */
function create(path, owner) {
  const draft = `${path}-${owner}`;
  mkdirSync(draft);
  writeFileSync(join(draft, owner), '');
  try {
    renameSync(draft, path);
    return true;
  } catch (error) {
    rmSync(draft, { recursive: true });
    if (hasCode(error, 'ENOTEMPTY', 'EEXIST')) return false;
    throw error;
  }
}

/**
 * @param {string} path
 * @param {string} owner
 */
async function takeOver(path, owner) {
  console.error('root-optimizer: waiting for another process that is setting up this folder');
  let seen = '';
  for (let beats = 0; ; beats++) {
    await sleep(BEAT_MS);
    try {
      const [holder] = readdirSync(path);
      if (holder === undefined) {
        removeIfEmpty(path);
        continue;
      }
      const now = `${holder} ${statSync(join(path, holder)).mtimeMs}`;
      if (now !== seen) {
        seen = now;
        beats = 0;
      } else if (beats >= STALE_BEATS) {
        renameSync(join(path, holder), join(path, owner));
        return;
      }
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error;
      if (create(path, owner)) return;
    }
  }
}

/** @param {string} path */
function removeIfEmpty(path) {
  try {
    rmdirSync(path);
  } catch (error) {
    if (!hasCode(error, 'ENOENT', 'ENOTEMPTY', 'EEXIST')) throw error;
  }
}

/**
 * @param {unknown} error
 * @param {string[]} codes
 */
function hasCode(error, ...codes) {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}
