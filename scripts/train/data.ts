import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Random } from '../common/random.js';

/** Text as indices into a vocabulary of bytes. */
export interface Corpus {
  readonly description: string;
  /** The bytes that occur, ascending. */
  readonly vocabulary: Uint8Array;
  readonly training: Uint8Array;
  /** The last tenth of every file. */
  readonly validation: Uint8Array;
  /** Entropy of the single bytes in nats: the loss of a model that knows only how frequent each byte is. */
  readonly unigramEntropy: number;
}

/** Windows of text, and for every byte the one that follows it. Both are row-major, `rows` × context. */
export interface Batch {
  readonly rows: number;
  readonly inputs: Int32Array;
  readonly targets: Int32Array;
}

/** An error that the user can mend. It is shown without a stack. */
export class DataError extends Error {}

/**
 * Reads a file, or all files of a folder except hidden and binary ones. The default is the declarations that come with
 * TypeScript.
 * @param context the length of the windows that the text has to hold
 * @throws DataError
 */
export function loadCorpus(from: string | undefined, context: number): Corpus {
  const files = from === undefined ? declarations() : listFiles(from);
  // A file that is named is read even if it is binary.
  const texts = files.map(read).filter((text) => files[0] === from || !text.includes(0));
  const all = Buffer.concat(texts);
  const name = from ?? "TypeScript's lib.*.d.ts";
  if (all.length === 0) throw new DataError(`Expected text in ${name}, got nothing`);
  const splits = texts.map((text) => Math.ceil(text.length * 0.9));
  const training = Buffer.concat(texts.map((text, i) => text.subarray(0, splits[i])));
  const validation = Buffer.concat(texts.map((text, i) => text.subarray(splits[i])));
  if (validation.length <= context) {
    throw new DataError(
      `Expected the last tenth of the text in ${name}, which is held out, to be more than ${context} bytes, ` +
        `got ${validation.length}`,
    );
  }
  const counts = new Float64Array(256);
  for (const byte of all) counts[byte]!++;
  const vocabulary = Uint8Array.from(counts.keys()).filter((byte) => counts[byte]! > 0);
  if (vocabulary.length < 2) throw new DataError(`Expected different bytes in ${name}, got only one`);
  const shares = Array.from(vocabulary, (byte) => counts[byte]! / all.length);
  const index = new Uint8Array(256);
  vocabulary.forEach((byte, i) => (index[byte] = i));
  return {
    description: `${name}: ${(all.length / 1e6).toFixed(2)} MB in ${texts.length} file${texts.length === 1 ? '' : 's'}`,
    vocabulary,
    training: new Uint8Array(training).map((byte) => index[byte]!),
    validation: new Uint8Array(validation).map((byte) => index[byte]!),
    unigramEntropy: -shares.reduce((sum, share) => sum + share * Math.log(share), 0),
  };
}

/**
 * Lists TypeScript's declarations without the web worker's. They repeat those of the document object model, so that
 * validation would meet text that was trained on.
 */
function declarations(): string[] {
  const folder = path.dirname(require.resolve('typescript'));
  return listFiles(folder).filter((file) => /^lib\.(?!webworker).*\.d\.ts$/.test(path.basename(file)));
}

function listFiles(from: string): string[] {
  try {
    if (!statSync(from).isDirectory()) return [from];
    const entries = readdirSync(from, { withFileTypes: true }).filter(({ name }) => !name.startsWith('.'));
    const names = entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    return names.flatMap((entry) => {
      const file = path.join(from, entry.name);
      return entry.isDirectory() ? listFiles(file) : entry.isFile() ? [file] : [];
    });
  } catch (cause) {
    throw unreadable(cause);
  }
}

function read(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw unreadable(cause);
  }
}

function unreadable(cause: unknown): DataError {
  return new DataError(`Cannot read the text: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
}

/** Endless batches of windows at random places. */
export function* trainingBatches(
  text: Uint8Array,
  rows: number,
  context: number,
  random: Random,
): Generator<Batch, never> {
  for (;;) {
    yield windows(
      text,
      context,
      Array.from({ length: rows }, () => Math.floor(random() * (text.length - context))),
    );
  }
}

/** `count` batches of windows at even distances, the same each time. */
export function validationBatches(text: Uint8Array, rows: number, context: number, count: number): Batch[] {
  const last = text.length - context - 1;
  const starts = Array.from({ length: rows * count }, (_, i) => Math.round((i * last) / (rows * count - 1)));
  return Array.from({ length: count }, (_, i) => windows(text, context, starts.slice(i * rows, (i + 1) * rows)));
}

function windows(text: Uint8Array, context: number, starts: number[]): Batch {
  const rows = starts.length;
  const batch = { rows, inputs: new Int32Array(rows * context), targets: new Int32Array(rows * context) };
  starts.forEach((start, row) => {
    batch.inputs.set(text.subarray(start, start + context), row * context);
    batch.targets.set(text.subarray(start + 1, start + context + 1), row * context);
  });
  return batch;
}
