import { existsSync } from 'node:fs';
import type { Loaded, NamedTensors } from '../checkpoint/contents.js';
import { checkpointError } from '../checkpoint/format.js';
import type { Notes } from '../checkpoint/metadata.js';
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

/** Writes the newest checkpoint, and keeps as many older ones as are asked for. */
export async function saveCheckpoint(
  optimizer: Optimizer,
  { path, keep }: Saving,
  place: Place,
  tensors: NamedTensors,
): Promise<void> {
  await optimizer.save(path, { notes: { [note]: JSON.stringify(place) }, tensors, keep });
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
