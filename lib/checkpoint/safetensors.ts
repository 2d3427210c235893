import { constants } from 'node:fs';
import { type FileHandle, lstat, open, realpath, rename, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { allocate } from '../arrays.js';
import { cut, messageOf, quote, RootError } from '../errors.js';
import { isRecord, product } from '../validate.js';
import { removeAbandoned, temporaryName } from './temporary.js';

/*
 * The format (https://huggingface.co/docs/safetensors) begins with the length of the header (8 bytes, little-endian).
 * The header (JSON, padded by spaces) and the tensors follow without gaps. Here all tensors are float32. Every platform
 * that the addon is built for is little-endian.
 */

/** A tensor to be written. `values` is called when the tensor's turn comes, so that only one is in memory at a time. */
export interface TensorSource {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: () => Float32Array;
}

const elementSize = Float32Array.BYTES_PER_ELEMENT;
/** Bytes of the header of a file of which nothing is known. */
const usualLimit = 16 << 20;
/** What the parts of a header, once parsed, take at least. A small header may have many. */
const partBytes = 64;
const mostPartBytes = 64 << 20;
/** Reads and writes of more than 2 GiB fail on some systems. */
const chunk = 1 << 30;

/**
 * Writes the file atomically: a failure leaves an older file of that name whole.
 * @param limit the most bytes of a header that a reader of the file takes
 * @throws RootError ERR_CHECKPOINT, also where the name is that of something else than a file
 */
export async function writeSafetensors(
  file: string,
  metadata: Readonly<Record<string, string>>,
  tensors: readonly TensorSource[],
  limit: number,
): Promise<void> {
  const start = header(metadata, tensors);
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
      for (const { name, shape, values } of tensors) {
        const array = values();
        if (array.length !== product(shape)) {
          throw checkpointError(`Expected tensor "${name}" to be of ${product(shape)} elements, got ${array.length}`);
        }
        await writeAll(handle, array);
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, target);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw error instanceof RootError ? error : checkpointError(`Cannot write ${file}: ${messageOf(error)}`, error);
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

function header(metadata: Readonly<Record<string, string>>, tensors: readonly TensorSource[]): Uint8Array {
  const entries: [string, unknown][] = [['__metadata__', metadata]];
  let offset = 0;
  for (const { name, shape } of tensors) {
    const end = offset + product(shape) * elementSize;
    entries.push([name, { dtype: 'F32', shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Math.ceil(json.length / 8) * 8;
  const bytes = Buffer.alloc(8 + length, ' ');
  bytes.writeBigUInt64LE(BigInt(length), 0);
  json.copy(bytes, 8);
  return bytes;
}

async function writeAll(handle: FileHandle, view: ArrayBufferView): Promise<void> {
  for (let done = 0; done < view.byteLength;) {
    const { bytesWritten } = await handle.write(bytesOf(view, done));
    done += bytesWritten;
  }
}

/** Makes the file's new name survive a power failure. Does nothing where a folder cannot be opened. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

interface Entry {
  readonly shape: readonly number[];
  readonly start: number;
  readonly end: number;
}

/** An open file whose header has been checked: every tensor lies within it, and none overlaps another. */
export class SafetensorsFile {
  private constructor(
    private readonly file: string,
    private readonly handle: FileHandle,
    readonly metadata: Readonly<Record<string, string>>,
    readonly tensors: ReadonlyMap<string, Entry>,
  ) {}

  /**
   * @param limit the most bytes that the header may take
   * @throws RootError ERR_CHECKPOINT where the file cannot be read or is not a safetensors file
   */
  static async open(file: string, limit = usualLimit): Promise<SafetensorsFile> {
    // To open a FIFO would wait for a writer, without the second flag, which Windows does not know.
    const flags = constants.O_RDONLY | ((constants.O_NONBLOCK as number | undefined) ?? 0);
    const handle = await open(file, flags).catch((cause: unknown) => {
      throw checkpointError(`Cannot read ${file}: ${messageOf(cause)}`, cause);
    });
    try {
      const found = await handle.stat();
      if (!found.isFile()) throw checkpointError(`Cannot read ${file}: it is not a file`);
      const { size } = found;
      const start = new BigUint64Array(1);
      if (size < 8) throw malformed(file, `it is ${size} bytes long`);
      await readAll(handle, start, 0);
      const length = Number(start[0]);
      if (length > size - 8) throw malformed(file, `its header of ${length} bytes does not fit into ${size}`);
      const tooLarge = () => malformed(file, `its header is larger than one of such a file, ${limit} bytes at most`);
      if (length > limit) throw tooLarge();
      const bytes = new Uint8Array(length);
      await readAll(handle, bytes, 8);
      if (!hasFewParts(bytes, limit)) throw tooLarge();
      const { metadata, tensors } = parseHeader(file, bytes, size);
      return new SafetensorsFile(file, handle, metadata, tensors);
    } catch (error) {
      await handle.close();
      throw error instanceof RootError ? error : checkpointError(`Cannot read ${file}: ${messageOf(error)}`, error);
    }
  }

  async read(name: string): Promise<Float32Array> {
    const entry = this.tensors.get(name);
    if (entry === undefined) throw malformed(this.file, `it has no tensor ${quote(name)}`);
    const values = allocate(product(entry.shape), `tensor ${quote(name)} of ${this.file}`);
    try {
      await readAll(this.handle, values, entry.start);
      return values;
    } catch (cause) {
      throw checkpointError(`Cannot read tensor ${quote(name)} of ${this.file}: ${messageOf(cause)}`, cause);
    }
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}

/** Whether a header that is parsed takes little memory: each list, object, element and entry of it takes some. */
function hasFewParts(bytes: Uint8Array, limit: number): boolean {
  let parts = 0;
  for (const byte of bytes) if (byte === 0x2c || byte === 0x5b || byte === 0x7b) parts++; // , [ {
  return parts * partBytes <= Math.max(mostPartBytes, 4 * limit);
}

function parseHeader(file: string, bytes: Uint8Array, size: number): Pick<SafetensorsFile, 'metadata' | 'tensors'> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw malformed(file, `its header is not JSON: ${cut(messageOf(cause))}`, cause);
  }
  if (!isRecord(parsed)) throw malformed(file, 'its header is not an object');
  const { __metadata__: metadata = {}, ...entries } = parsed;
  if (!isRecord(metadata) || !Object.values(metadata).every((value) => typeof value === 'string')) {
    throw malformed(file, 'its metadata are not strings');
  }
  const begin = 8 + bytes.length;
  const tensors = new Map(Object.entries(entries).map(([name, entry]) => [name, parseEntry(file, name, entry, begin)]));
  let end = begin;
  for (const [name, entry] of [...tensors].sort(([, a], [, b]) => a.start - b.start || a.end - b.end)) {
    if (entry.start !== end) {
      throw malformed(file, `tensor ${quote(name)} begins at byte ${entry.start} rather than ${end}`);
    }
    end = entry.end;
  }
  if (end !== size) throw malformed(file, `it is ${size} bytes long rather than ${end}`);
  return { metadata: metadata as Record<string, string>, tensors };
}

function parseEntry(file: string, name: string, entry: unknown, begin: number): Entry {
  if (!isRecord(entry)) throw malformed(file, `the entry of tensor ${quote(name)} is not an object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (dtype !== 'F32') {
    throw malformed(file, `tensor ${quote(name)} is ${cut(JSON.stringify(dtype))} rather than "F32"`);
  }
  if (!isNaturals(shape) || !isNaturals(offsets) || offsets.length !== 2) {
    throw malformed(file, `the entry of tensor ${quote(name)} is not valid`);
  }
  const [start, end] = offsets as [number, number];
  if (end - start !== product(shape) * elementSize) {
    throw malformed(
      file,
      `tensor ${quote(name)} takes ${end - start} bytes rather than ${product(shape) * elementSize}`,
    );
  }
  return { shape, start: begin + start, end: begin + end };
}

async function readAll(handle: FileHandle, view: ArrayBufferView, position: number): Promise<void> {
  for (let done = 0; done < view.byteLength;) {
    const { bytesRead } = await handle.read(bytesOf(view, done), { position: position + done });
    if (bytesRead === 0) throw new Error('the file ended early');
    done += bytesRead;
  }
}

function bytesOf(view: ArrayBufferView, from: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + from, Math.min(chunk, view.byteLength - from));
}

function isNaturals(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && (one as number) >= 0);
}

function malformed(file: string, why: string, cause?: unknown): RootError {
  return checkpointError(`${file} is not a valid safetensors file: ${why}`, cause);
}

export function checkpointError(message: string, cause?: unknown): RootError {
  return new RootError('ERR_CHECKPOINT', message, cause === undefined ? undefined : { cause });
}
