import { type FileHandle, lstat, open, realpath, rename, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { allocate } from '../arrays.js';
import { messageOf, RootError } from '../errors.js';
import { product } from '../validate.js';
import { checkpointError, encodeHeader, hasFewParts } from './format.js';
import { pieceBytes } from './reader.js';
import { removeAbandoned, temporaryName } from './temporary.js';

/** A tensor to be written, of float32. */
export interface TensorSource {
  readonly name: string;
  readonly shape: readonly number[];
  /** Fills `values` with the elements [offset, offset + values.length). */
  readonly read: (offset: number, values: Float32Array) => void;
}

/** What is needed of an AbortSignal, of which not every project has the type. */
export interface Signal {
  readonly aborted: boolean;
  /** Throws the signal's reason if it is aborted. */
  throwIfAborted: () => void;
}

interface WriteOptions {
  /** The most bytes of a header that a reader of the file takes. */
  readonly limit: number;
  readonly signal?: Signal | undefined;
  /** Called when the new file is whole, before it takes the place of the former one. */
  readonly beforeReplacing?: (() => Promise<void>) | undefined;
}

/**
 * Writes the file atomically: a failure leaves an older file of that name whole.
 * @throws RootError ERR_CHECKPOINT, also where the name is that of something else than a file; ERR_OUT_OF_MEMORY; the
 * signal's reason
 */
export async function writeSafetensors(
  file: string,
  metadata: Readonly<Record<string, string>>,
  tensors: readonly TensorSource[],
  { limit, signal, beforeReplacing }: WriteOptions,
): Promise<void> {
  const start = encodeHeader(metadata, tensors);
  if (start.length - 8 > limit || !hasFewParts(start.subarray(8), limit)) {
    throw checkpointError(
      `Expected the header of ${file} to take at most ${limit} bytes, got ${start.length - 8}: notes are for little`,
    );
  }
  const target = await targetOf(file);
  const temporary = temporaryName(target);
  await removeAbandoned(target);
  try {
    const mode = await stat(target).then(
      ({ mode }) => mode & 0o777,
      () => 0o666,
    );
    const handle = await open(temporary, 'wx', mode);
    try {
      await writeAll(handle, start);
      await writePieces(handle, piecesOf(tensors), signal);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await beforeReplacing?.();
    signal?.throwIfAborted();
    await rename(temporary, target);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    if (error instanceof RootError) throw error;
    signal?.throwIfAborted();
    throw checkpointError(`Cannot write ${file}: ${messageOf(error)}`, error);
  }
  await syncFolder(path.dirname(target));
}

/** The file that a name stands for, behind links. There need not be one yet. */
async function targetOf(file: string): Promise<string> {
  const found = await lstat(file).catch(() => undefined);
  if (found === undefined) return file;
  const target = await realpath(file).catch(() => undefined);
  if (target === undefined) throw checkpointError(`Cannot write ${file}: it is a link to nothing`);
  if (!(await stat(target)).isFile()) throw checkpointError(`Cannot write ${file}: it is not a file`);
  return target;
}

/** The elements of all tensors, in two buffers by turns: one may be written while the other is filled. */
function* piecesOf(tensors: readonly TensorSource[]): Generator<Float32Array> {
  const capacity = pieceBytes / Float32Array.BYTES_PER_ELEMENT;
  const total = tensors.reduce((sum, { shape }) => sum + product(shape), 0);
  let [buffer, other] = [
    allocate(Math.min(capacity, total), 'a buffer'),
    allocate(Math.min(capacity, total), 'a buffer'),
  ];
  let used = 0;
  for (const { shape, read } of tensors) {
    const size = product(shape);
    for (let offset = 0; offset < size;) {
      const count = Math.min(size - offset, buffer.length - used);
      read(offset, buffer.subarray(used, used + count));
      offset += count;
      used += count;
      if (used < buffer.length) continue;
      yield buffer;
      [buffer, other] = [other, buffer];
      used = 0;
    }
  }
  if (used > 0) yield buffer.subarray(0, used);
}

async function writePieces(handle: FileHandle, pieces: Iterable<Float32Array>, signal?: Signal): Promise<void> {
  let written = Promise.resolve();
  try {
    for (const piece of pieces) {
      await written;
      signal?.throwIfAborted();
      written = writeAll(handle, new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength));
    }
  } finally {
    await written;
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done);
    done += bytesWritten;
  }
}

/** Makes the file's new name survive a power failure. Does nothing where a folder cannot be opened. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}
