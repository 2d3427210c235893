import { copyFile, link, open, readdir, realpath, rename, unlink } from 'node:fs/promises';
import path from 'node:path';
import { messageOf } from '../errors.js';
import { checkpointError } from './format.js';
import { isCheckpoint, readMetadata } from './metadata.js';
import { SafetensorsFile } from './reader.js';
import { removeAbandoned, temporaryName } from './temporary.js';

/*
 * Former checkpoints of a file have their step in their names: run.safetensors.step-100. At every moment the newest one
 * is whole under the file's own name.
 */

const nameOf = (file: string, step: number) => `${file}.step-${step}`;

/** Bytes that the header of a former checkpoint may take. It may be that of a larger optimizer. */
const mostHeaderBytes = 1 << 27;

/**
 * Gives the file that is there, if it is a checkpoint of another step, its name as a former one besides its own.
 * @throws RootError ERR_CHECKPOINT also where the file cannot be read, since the new one would take its place
 */
export async function keepFormer(file: string, step: number): Promise<void> {
  const former = await stepOf(file);
  if (former === undefined || former === step) return;
  const temporary = temporaryName(file);
  await removeAbandoned(file);
  try {
    // The name may be a symbolic link, which leads to the new file later on. A file system without links gets a copy.
    const target = await realpath(file);
    await link(target, temporary).catch(() => copy(target, temporary));
    await rename(temporary, nameOf(file, former));
  } catch (cause) {
    throw checkpointError(`Cannot keep ${nameOf(file, former)}: ${messageOf(cause)}`, cause);
  } finally {
    // Where a killed process has made both names links of one file, renaming succeeds and does nothing.
    await unlink(temporary).catch(() => undefined);
  }
}

/** Copies a file so that the copy survives a power failure, as what it is a copy of does. */
async function copy(from: string, to: string): Promise<void> {
  await copyFile(from, to);
  const handle = await open(to, 'r+');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Removes the files of steps before this one beyond the newest `kept`. Those of later steps are another training's. */
export async function removeStale(file: string, step: number, kept: number): Promise<void> {
  const prefix = `${path.basename(file)}.step-`;
  const names = await readdir(path.dirname(file)).catch((): string[] => []);
  const steps = names
    .filter((name) => name.startsWith(prefix) && /^(0|[1-9]\d*)$/.test(name.slice(prefix.length)))
    .map((name) => Number(name.slice(prefix.length)));
  const stale = steps.filter((one) => one < step).sort((a, b) => b - a);
  for (const one of stale.slice(kept)) await unlink(nameOf(file, one)).catch(() => undefined);
}

/** The step of a checkpoint; undefined where there is no file, or one of another kind. */
async function stepOf(path: string): Promise<number | undefined> {
  let file: SafetensorsFile;
  try {
    file = await SafetensorsFile.open(path, mostHeaderBytes);
  } catch (error) {
    const code = ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code;
    if (code === undefined || code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return isCheckpoint(file) ? readMetadata(file, path).step : undefined;
  } finally {
    await file.close();
  }
}
