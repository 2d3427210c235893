import { copyFileSync, existsSync, linkSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { Loaded, NamedTensors, Notes } from '../checkpoint/contents.js';
import { checkpointError } from '../checkpoint/safetensors.js';
import { messageOf } from '../errors.js';
import type { Optimizer } from '../optimizer/base.js';
import { isRecord } from '../validate.js';
import type { WeightAverages } from './averages.js';
import type { CheckpointOptions } from './types.js';

/** The place in training, which a checkpoint holds besides what the optimizer writes. */
export interface Place {
  /** The last step, counted from 1. Steps that were left out count too. */
  readonly step: number;
  /** The least value of `evaluate`, and the evaluations since. */
  readonly best: number | null;
  readonly sinceBest: number;
  /** Batches that have been read, and those of the next step. */
  readonly batches: number;
  readonly accumulation: number;
}

/** The options of checkpoints, complete. */
export interface Saving extends CheckpointOptions {
  keep: number;
}

const note = 'train';

/**
 * Writes the newest checkpoint, and keeps as many older ones as are asked for.
 * @param former the step of the file that is there, if this training wrote it or began with it
 */
export async function saveCheckpoint(
  optimizer: Optimizer,
  { path: file, keep }: Saving,
  place: Place,
  tensors: NamedTensors,
  former: number | undefined,
): Promise<void> {
  // The former file gets a second name, so that at every moment there is a whole one under the first.
  if (keep > 1 && former !== undefined && existsSync(file)) link(file, `${file}.step-${former}`);
  await optimizer.save(file, { notes: { [note]: JSON.stringify(place) }, tensors });
  for (const old of staleFiles(file, place.step, keep - 1)) rmSync(old, { force: true });
}

/**
 * Loads what `saveCheckpoint` wrote. Where `isOptional`, there need be no file.
 * @param averages are filled from the file, if there are any
 * @throws RootError ERR_CHECKPOINT before anything changes
 */
export async function resumeFrom(
  optimizer: Optimizer,
  { file, isOptional }: { file: string; isOptional: boolean },
  averages: WeightAverages | undefined,
): Promise<Place | undefined> {
  if (isOptional && !existsSync(file)) return undefined;
  let place: unknown;
  const accept = ({ notes, tensors }: Loaded): void => {
    place = placeOf(notes);
    if (!isPlace(place)) throw checkpointError(`Expected ${file} to be a checkpoint of train, got one of an optimizer`);
    averages?.restore(tensors, file);
  };
  await optimizer.load(file, { tensors: averages !== undefined, accept });
  return place as Place;
}

function placeOf(notes: Notes): unknown {
  try {
    return JSON.parse(notes[note] ?? 'null');
  } catch {
    return undefined;
  }
}

function isPlace(value: unknown): value is Place {
  if (!isRecord(value)) return false;
  const { step, best, sinceBest, batches, accumulation } = value;
  const isCount = (one: unknown) => Number.isSafeInteger(one) && (one as number) >= 0;
  return [step, sinceBest, batches, accumulation].every(isCount) && (best === null || typeof best === 'number');
}

/** Files of former steps beyond the newest `kept`. Those of later steps are another training's, and stay. */
function staleFiles(file: string, step: number, kept: number): string[] {
  const prefix = `${path.basename(file)}.step-`;
  const folder = path.dirname(path.resolve(file));
  const steps = readdirSync(folder)
    .filter((name) => name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)))
    .map((name) => Number(name.slice(prefix.length)));
  const former = steps.filter((one) => one < step).sort((a, b) => b - a);
  return former.slice(kept).map((one) => path.join(folder, `${prefix}${one}`));
}

/** Gives a file another name besides. A file system without links gets a copy. */
function link(file: string, name: string): void {
  rmSync(name, { force: true });
  try {
    linkSync(file, name);
  } catch {
    try {
      copyFileSync(file, name);
    } catch (cause) {
      throw checkpointError(`Cannot keep ${name}: ${messageOf(cause)}`, cause);
    }
  }
}
