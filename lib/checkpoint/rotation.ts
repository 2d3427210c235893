import { copyFile, link, readdir, rename, unlink } from 'node:fs/promises';
import path from 'node:path';
import { messageOf } from '../errors.js';
import { checkpointError } from './format.js';
import { readMetadata } from './metadata.js';
import { SafetensorsFile } from './reader.js';
import { removeAbandoned, temporaryName } from './temporary.js';

/*
 * Former checkpoints of a file have their step in their names: run.safetensors.step-100. At every moment the newest one
 * is whole under the file's own name.
 */

const nameOf = (file: string, step: number) => `${file}.step-${step}`;

/**
 * Gives the file that is there, if it is a checkpoint of another step, its name as a former one besides its own.
 * @param limit the most bytes of its header
 * @throws RootError ERR_CHECKPOINT
 */
export async function keepFormer(file: string, step: number, limit: number): Promise<void> {
  const former = await stepOf(file, limit);
  if (former === undefined || former === step) return;
  const temporary = temporaryName(file);
  await removeAbandoned(file);
  try {
    // A file system without links gets a copy.
    await link(file, temporary).catch(() => copyFile(file, temporary));
    await rename(temporary, nameOf(file, former));
  } catch (cause) {
    throw checkpointError(`Cannot keep ${nameOf(file, former)}: ${messageOf(cause)}`, cause);
  } finally {
    // Where a killed process has made both names links of one file, renaming succeeds and does nothing.
    await unlink(temporary).catch(() => undefined);
  }
}

/** Removes the files of steps before this one beyond the newest `kept`. Those of later steps are another training's. */
export async function removeStale(file: string, step: number, kept: number): Promise<void> {
  const prefix = `${path.basename(file)}.step-`;
  const names = await readdir(path.dirname(file)).catch((): string[] => []);
  const steps = names
    .filter((name) => name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)))
    .map((name) => Number(name.slice(prefix.length)));
  const stale = steps.filter((one) => one < step).sort((a, b) => b - a);
  for (const one of stale.slice(kept)) await unlink(nameOf(file, one)).catch(() => undefined);
}

/** The step of a checkpoint; undefined where there is none. */
async function stepOf(path: string, limit: number): Promise<number | undefined> {
  const file = await SafetensorsFile.open(path, limit).catch(() => undefined);
  try {
    return file && readMetadata(file, path).step;
  } catch {
    return undefined;
  } finally {
    await file?.close();
  }
}
